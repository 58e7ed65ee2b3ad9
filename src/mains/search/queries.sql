-- Named queries of the search index: `-- name:` begins one. Parameters are positional.

-- name: make_space
CREATE TABLE space (
  id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again for another space
  name TEXT NOT NULL UNIQUE,
  next INTEGER NOT NULL,   -- the first position that is not indexed
  page TEXT NOT NULL,      -- of the position before it: whether the index is still of this space
  chunks INTEGER NOT NULL  -- how many are indexed; the next ordinal
)
-- name: make_chunk
CREATE TABLE chunk (
  space INTEGER NOT NULL,
  ordinal INTEGER NOT NULL,  -- 0, 1, 2 ... in the order of the positions
  position INTEGER NOT NULL,
  first INTEGER NOT NULL,    -- character of the document
  until INTEGER NOT NULL,
  PRIMARY KEY (space, ordinal)
) WITHOUT ROWID
-- name: make_posting
CREATE TABLE posting (
  space INTEGER NOT NULL,
  term TEXT NOT NULL,
  block INTEGER NOT NULL,  -- ordinal / 1024
  entries BLOB NOT NULL,   -- 16 bits each, little-endian: ordinal % 1024 * 64 + impact
  PRIMARY KEY (space, term, block)
) WITHOUT ROWID

-- name: make_vector
CREATE TABLE vector (
  space INTEGER NOT NULL,
  model TEXT NOT NULL,
  ordinal INTEGER NOT NULL,  -- of a chunk; those before it have one, too
  numbers BLOB NOT NULL,     -- of its pieces, each of length 1, one after the other: float32, little-endian
  PRIMARY KEY (space, model, ordinal)
) WITHOUT ROWID

-- name: space_names
SELECT name FROM space
-- name: space_get
SELECT id, next, page, chunks FROM space WHERE name = ?
-- name: space_add
INSERT INTO space (name, next, page, chunks) VALUES (?, 0, '', 0) RETURNING id
-- name: space_grow
UPDATE space SET next = ?, page = ?, chunks = ? WHERE id = ?
-- name: space_delete
DELETE FROM space WHERE id = ?
-- name: space_count
SELECT count(*), coalesce(sum(chunks), 0) FROM space
-- name: chunk_add
INSERT INTO chunk (space, ordinal, position, first, until) VALUES (?, ?, ?, ?, ?)
-- name: chunk_get
SELECT position, first, until FROM chunk WHERE space = ? AND ordinal = ?
-- name: chunk_delete
DELETE FROM chunk WHERE space = ?
-- name: posting_add
INSERT INTO posting (space, term, block, entries) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET entries = CAST(entries || excluded.entries AS BLOB)
-- name: posting_get
SELECT block, entries FROM posting WHERE space = ? AND term = ?
-- name: posting_delete
DELETE FROM posting WHERE space = ?

-- name: vector_add
INSERT OR REPLACE INTO vector (space, model, ordinal, numbers) VALUES (?, ?, ?, ?)
-- name: vector_next
SELECT coalesce(max(ordinal), -1) + 1 FROM vector WHERE space = ? AND model = ?
-- name: vector_scan
SELECT v.ordinal, c.position, c.first, c.until, v.numbers
FROM vector v JOIN chunk c ON c.space = v.space AND c.ordinal = v.ordinal
WHERE v.space = ? AND v.model = ? AND v.ordinal >= ? ORDER BY v.ordinal LIMIT ?
-- name: vector_delete_others
DELETE FROM vector WHERE space = ? AND model <> ?
-- name: vector_delete
DELETE FROM vector WHERE space = ?
