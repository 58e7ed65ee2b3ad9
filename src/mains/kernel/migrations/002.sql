-- Version 1 -> 2: process groups; who names a page; what is left of processes that were removed.
-- The tables and indexes are those of schema.sql; a test compares a migrated home with a new one.

ALTER TABLE process ADD COLUMN pgroup TEXT NOT NULL DEFAULT '';
CREATE INDEX process_group ON process (pgroup, pid) WHERE pgroup <> '' AND state <> 'EXITED';
CREATE INDEX process_ended ON process (seq) WHERE state = 'EXITED';

ALTER TABLE account ADD COLUMN gone_posted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN gone_overrun INTEGER NOT NULL DEFAULT 0;
CREATE INDEX entry_hold ON entry (hold);

CREATE TABLE page_use (page TEXT NOT NULL, pid INTEGER NOT NULL, PRIMARY KEY (page, pid)) STRICT, WITHOUT ROWID;
CREATE TABLE page_part (page TEXT NOT NULL, whole TEXT NOT NULL, PRIMARY KEY (page, whole)) STRICT, WITHOUT ROWID;
CREATE INDEX page_part_whole ON page_part (whole);

CREATE TABLE removed (pid INTEGER PRIMARY KEY) STRICT;
CREATE TABLE cut (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, crc INTEGER NOT NULL) STRICT;

-- The pages that events name, as `event.named` gives them.
INSERT OR IGNORE INTO page_use (page, pid)
SELECT found.value, event.pid FROM event, json_each(CAST(event.body AS TEXT), '$.process') AS found
WHERE event.kind = 'spawned' AND found.key IN ('program', 'tree', 'inputs', 'tools') AND found.value <> '';
INSERT OR IGNORE INTO page_use (page, pid)
SELECT found.value, event.pid FROM event, json_each(CAST(event.body AS TEXT), '$.context') AS found
WHERE event.kind = 'spawned';
INSERT OR IGNORE INTO page_use (page, pid)
SELECT found.value, event.pid FROM event, json_each(CAST(event.body AS TEXT), '$.pages') AS found
WHERE event.kind = 'asked';
INSERT OR IGNORE INTO page_use (page, pid)
SELECT found.value, event.pid FROM event, json_each(CAST(event.body AS TEXT), '$.after') AS found
WHERE event.kind = 'replied';
INSERT OR IGNORE INTO page_use (page, pid)
SELECT json_extract(found.value, '$.page'), event.pid FROM event, json_each(CAST(event.body AS TEXT), '$.calls') AS found
WHERE event.kind = 'replied' AND json_extract(found.value, '$.page') <> '';
INSERT OR IGNORE INTO page_use (page, pid)
SELECT json_extract(CAST(event.body AS TEXT), '$.page'), event.pid FROM event
WHERE event.kind IN ('replied', 'returned', 'sent');
INSERT OR IGNORE INTO page_use (page, pid)
SELECT json_extract(CAST(event.body AS TEXT), '$.result'), event.pid FROM event
WHERE event.kind = 'exited' AND json_extract(CAST(event.body AS TEXT), '$.result') <> '';

-- The pages that pages name: programs in a tree, files in inputs.
INSERT OR IGNORE INTO page_part (page, whole)
SELECT part.value, page.hash FROM page, json_each(CAST(page.bytes AS TEXT)) AS part WHERE page.kind = 'tree';
INSERT OR IGNORE INTO page_part (page, whole)
SELECT json_extract(file.value, '$.page'), page.hash
FROM page, json_each(CAST(page.bytes AS TEXT)) AS given, json_each(given.value, '$.files') AS file
WHERE page.kind = 'inputs';
