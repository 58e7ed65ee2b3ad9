-- Version 3 -> 4: the opening of a context has positions below 0, so that what grew behind it never moves; covers.

CREATE TABLE context_new (
    pid INTEGER NOT NULL, position INTEGER NOT NULL, page TEXT NOT NULL, PRIMARY KEY (pid, position)) STRICT, WITHOUT ROWID;
INSERT INTO context_new (pid, position, page)
SELECT context.pid, context.position - coalesce(json_extract(CAST(process.body AS TEXT), '$.opening'), 2), context.page
FROM context LEFT JOIN process ON process.pid = context.pid;
DROP TABLE context;
ALTER TABLE context_new RENAME TO context;

CREATE TABLE cover (
    pid INTEGER NOT NULL, seq INTEGER NOT NULL, first INTEGER NOT NULL, until INTEGER NOT NULL, pages TEXT NOT NULL,
    PRIMARY KEY (pid, first, seq)) STRICT, WITHOUT ROWID;

CREATE TABLE note ( id INTEGER NOT NULL, owner TEXT NOT NULL, scope TEXT NOT NULL, page TEXT NOT NULL, process INTEGER
    NOT NULL, program TEXT NOT NULL, turn INTEGER NOT NULL, tainted TEXT NOT NULL, replaces INTEGER NOT NULL, made_ms
    INTEGER NOT NULL, seq INTEGER NOT NULL, touched INTEGER NOT NULL, ended INTEGER NOT NULL DEFAULT 0, ended_ms
    INTEGER NOT NULL DEFAULT 0, replaced_by INTEGER NOT NULL DEFAULT 0, kept INTEGER NOT NULL DEFAULT 1, PRIMARY KEY
    (id, owner) ) STRICT, WITHOUT ROWID;
CREATE INDEX note_live ON note (scope, owner, id) WHERE ended = 0;
CREATE INDEX note_touched ON note (scope, owner, touched);
CREATE INDEX note_page ON note (page) WHERE kept = 1;
CREATE INDEX note_erase ON note (kept) WHERE kept = 2;
CREATE INDEX note_ended ON note (ended) WHERE ended > 0;

CREATE TABLE segment (        -- shared by processes that map it: the fold of its events
    id      INTEGER PRIMARY KEY,            -- never given twice
    name    TEXT    NOT NULL UNIQUE,
    account INTEGER NOT NULL,               -- whose it is
    append_only INTEGER NOT NULL,           -- 0: it was given once
    pages   INTEGER NOT NULL DEFAULT 0,
    bytes   INTEGER NOT NULL DEFAULT 0      -- of their texts
) STRICT;

CREATE TABLE segment_page (   -- never changed
    segment INTEGER NOT NULL,
    number  INTEGER NOT NULL,               -- 0, 1, 2 ...: the one order
    page    TEXT    NOT NULL,
    seq     INTEGER NOT NULL,               -- of the event that says who appended it, and when
    PRIMARY KEY (segment, number)
) STRICT, WITHOUT ROWID;
