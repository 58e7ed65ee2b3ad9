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
