-- The home's database, version 2 (`migrations/` leads here from older ones). One writer; readers have connections of their own.
-- Every hash is the SHA-256 of what it names, in hexadecimal. Times are milliseconds since 1970 (UTC).

CREATE TABLE IF NOT EXISTS event (          -- append-only: the truth
    seq   INTEGER PRIMARY KEY,              -- 1, 2, 3 ... without gaps
    at_ms INTEGER NOT NULL,
    pid   INTEGER NOT NULL,                 -- 0: about the home
    kind  TEXT    NOT NULL,
    body  BLOB    NOT NULL,                 -- JSON
    crc   INTEGER NOT NULL                  -- CRC-32 of this row, seeded with that of the row before
) STRICT;
CREATE INDEX IF NOT EXISTS event_pid ON event (pid, seq);

CREATE TABLE IF NOT EXISTS process (        -- the fold of the events
    pid        INTEGER PRIMARY KEY,
    parent     INTEGER NOT NULL,
    spawned_by TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    quota      INTEGER NOT NULL,
    seq        INTEGER NOT NULL,            -- of its last event
    body       BLOB    NOT NULL,            -- JSON
    pgroup     TEXT    NOT NULL DEFAULT ''  -- its group ('': none)
) STRICT;
CREATE INDEX IF NOT EXISTS process_live ON process (state, pid) WHERE state <> 'EXITED';
CREATE INDEX IF NOT EXISTS process_parent ON process (parent, spawned_by, state) WHERE parent > 0;
CREATE INDEX IF NOT EXISTS process_quota ON process (quota, pid) WHERE quota >= 0;
CREATE INDEX IF NOT EXISTS process_group ON process (pgroup, pid) WHERE pgroup <> '' AND state <> 'EXITED';
CREATE INDEX IF NOT EXISTS process_ended ON process (seq) WHERE state = 'EXITED';

CREATE TABLE IF NOT EXISTS process_key (    -- `run --key`
    key TEXT PRIMARY KEY,
    pid INTEGER NOT NULL,
    ask TEXT NOT NULL                       -- hash of the program and inputs that it was given for
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS checkpoint (     -- the process table as of checkpoint_seq in `counter`
    pid  INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS counter (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS page (           -- content-addressed, immutable
    hash  TEXT PRIMARY KEY,
    kind  TEXT NOT NULL,
    bytes BLOB NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS page_use (       -- the events of which processes name a page
    page TEXT    NOT NULL,
    pid  INTEGER NOT NULL,
    PRIMARY KEY (page, pid)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS page_part (      -- the pages that another page names: programs of a tree, files of inputs
    page  TEXT NOT NULL,
    whole TEXT NOT NULL,
    PRIMARY KEY (page, whole)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS page_part_whole ON page_part (whole);

CREATE TABLE IF NOT EXISTS removed (        -- processes that were removed, while something of them is left to erase
    pid INTEGER PRIMARY KEY
) STRICT;

CREATE TABLE IF NOT EXISTS cut (            -- runs of events that were erased with their processes
    first INTEGER PRIMARY KEY,
    last  INTEGER NOT NULL,
    crc   INTEGER NOT NULL                  -- of the last one: the chain goes on from it
) STRICT;

CREATE TABLE IF NOT EXISTS context (        -- the page table of each process
    pid      INTEGER NOT NULL,
    position INTEGER NOT NULL,
    page     TEXT    NOT NULL,
    PRIMARY KEY (pid, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS message (        -- mailboxes
    id       INTEGER PRIMARY KEY,
    pid      INTEGER NOT NULL,              -- to
    sender   TEXT    NOT NULL,
    page     TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    consumed INTEGER NOT NULL DEFAULT 0     -- 1: read, in the transaction of the event that names it
) STRICT;
CREATE INDEX IF NOT EXISTS message_unread ON message (pid, id) WHERE consumed = 0;
CREATE UNIQUE INDEX IF NOT EXISTS message_key ON message (pid, key) WHERE key <> '';

CREATE TABLE IF NOT EXISTS timer (
    due_ms INTEGER NOT NULL,
    pid    INTEGER NOT NULL,
    call   TEXT    NOT NULL,                -- '': a retry of the model call; '@': a slot of its schedule
    PRIMARY KEY (due_ms, pid, call)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS timer_pid ON timer (pid);

CREATE TABLE IF NOT EXISTS account (        -- roll-ups: an account counts everything below it
    id       INTEGER PRIMARY KEY,           -- a pid; 0: the home; -1: the supply (the other side of every entry)
    parent   INTEGER NOT NULL,
    tokens_max INTEGER,                     -- its limit; NULL: none
    held     INTEGER NOT NULL DEFAULT 0,
    posted   INTEGER NOT NULL DEFAULT 0,
    overrun  INTEGER NOT NULL DEFAULT 0,
    gone_posted  INTEGER NOT NULL DEFAULT 0, -- of these, what processes below it had that were removed since
    gone_overrun INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE IF NOT EXISTS hold (
    id      INTEGER PRIMARY KEY,
    account INTEGER NOT NULL,               -- the process that asked
    tokens  INTEGER NOT NULL,
    engine  TEXT    NOT NULL,
    state   TEXT    NOT NULL,               -- dispatched, posted, voided
    at_ms   INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS entry (          -- append-only; debit and credit are equal by form
    id     INTEGER PRIMARY KEY,
    hold   INTEGER NOT NULL,
    kind   TEXT    NOT NULL,                -- held, released, posted, overrun
    debit  INTEGER NOT NULL,
    credit INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    at_ms  INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS entry_hold ON entry (hold);
