-- The queries of notes (see queries.sql for how such a file is read).

-- name: event_remembered
SELECT seq, at_ms, body FROM event WHERE kind IN ('remembered', 'forgotten') ORDER BY seq
-- name: note_insert
INSERT INTO note (id, owner, scope, page, process, program, turn, tainted, replaces, made_ms, seq, touched)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
-- name: note_end
UPDATE note SET ended = ?, ended_ms = ?, replaced_by = ?, touched = max(touched, ?), kept = ? WHERE id = ? AND owner = ?
-- name: note_live
SELECT * FROM note WHERE scope = ? AND owner = ? AND ended = 0 ORDER BY id
-- name: note_by_id
SELECT * FROM note WHERE id = ? ORDER BY owner
-- name: note_of
SELECT * FROM note WHERE scope = 'process' AND owner = ?
-- name: note_scan
SELECT * FROM note ORDER BY id, owner
-- name: note_touched
SELECT 1 FROM note WHERE scope = ? AND owner = ? AND touched > ? LIMIT 1
-- name: note_to_erase
SELECT id, owner, page FROM note WHERE kept = 2 LIMIT ?
-- name: note_erased
UPDATE note SET kept = 0 WHERE id = ? AND owner = ?
-- name: note_old
SELECT * FROM note WHERE ended > 0 AND ended < ? AND ended_ms < ? AND kept = 0 AND scope <> 'process' LIMIT ?
-- name: note_delete
DELETE FROM note WHERE id = ? AND owner = ?
