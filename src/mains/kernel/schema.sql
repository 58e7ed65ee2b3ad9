-- The home's database, version 4 (`migrations/` leads here from older ones). One writer; readers have connections of their own.
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

CREATE TABLE IF NOT EXISTS process_key (    -- `run --key`, `topup --key`
    key TEXT PRIMARY KEY,
    pid INTEGER NOT NULL,                   -- 0: of a top-up
    ask TEXT NOT NULL                       -- what it was given for: the program's and the inputs' hashes, or the top-up
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

CREATE TABLE IF NOT EXISTS page_use (       -- the events of which processes name a page, up to uses_seq in `counter`
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

CREATE TABLE IF NOT EXISTS context (        -- the page table of each process; of a fork, from where its maps end
    pid      INTEGER NOT NULL,
    position INTEGER NOT NULL,              -- below 0: the opening; 0, 1, 2 ...: what grew behind it
    page     TEXT    NOT NULL,
    PRIMARY KEY (pid, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS cover (          -- what was evicted: pages that stand in the frame in place of positions
    pid   INTEGER NOT NULL,
    seq   INTEGER NOT NULL,                 -- the event that did it: a later one holds
    first INTEGER NOT NULL,
    until INTEGER NOT NULL,                 -- positions first to until - 1
    pages TEXT    NOT NULL,                 -- hashes, with spaces between
    PRIMARY KEY (pid, first, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS note (           -- what outlives frames: the fold of its events
    id       INTEGER NOT NULL,              -- of forks: as their source has it
    owner    TEXT    NOT NULL,              -- a pid; ACCOUNT/PROGRAM; ACCOUNT
    scope    TEXT    NOT NULL,              -- process, program, user
    page     TEXT    NOT NULL,
    process  INTEGER NOT NULL,              -- who made it, in which turn; 0: a person
    program  TEXT    NOT NULL,
    turn     INTEGER NOT NULL,
    tainted  TEXT    NOT NULL,              -- what untrusted its maker had read ('': nothing)
    replaces INTEGER NOT NULL,
    made_ms  INTEGER NOT NULL,
    seq      INTEGER NOT NULL,              -- of the event that made it
    touched  INTEGER NOT NULL,              -- the last event by which a person changed it; 0: none
    ended    INTEGER NOT NULL DEFAULT 0,    -- the event that replaced it or forgot it
    ended_ms INTEGER NOT NULL DEFAULT 0,
    replaced_by INTEGER NOT NULL DEFAULT 0,
    kept     INTEGER NOT NULL DEFAULT 1,    -- its page: 1 is needed, 2 is to be erased, 0 is needed by it no more
    PRIMARY KEY (id, owner)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS note_live ON note (scope, owner, id) WHERE ended = 0;
CREATE INDEX IF NOT EXISTS note_touched ON note (scope, owner, touched);
CREATE INDEX IF NOT EXISTS note_page ON note (page) WHERE kept = 1;
CREATE INDEX IF NOT EXISTS note_erase ON note (kept) WHERE kept = 2;
CREATE INDEX IF NOT EXISTS note_ended ON note (ended) WHERE ended > 0;

CREATE TABLE IF NOT EXISTS segment (        -- shared by processes that map it: the fold of its events
    id      INTEGER PRIMARY KEY,            -- never given twice
    name    TEXT    NOT NULL UNIQUE,
    account INTEGER NOT NULL,               -- whose it is
    append_only INTEGER NOT NULL,           -- 0: it was given once
    pages   INTEGER NOT NULL DEFAULT 0,
    bytes   INTEGER NOT NULL DEFAULT 0      -- of their texts
) STRICT;

CREATE TABLE IF NOT EXISTS segment_page (   -- never changed
    segment INTEGER NOT NULL,
    number  INTEGER NOT NULL,               -- 0, 1, 2 ...: the one order
    page    TEXT    NOT NULL,
    seq     INTEGER NOT NULL,               -- of the event that says who appended it, and when
    PRIMARY KEY (segment, number)
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

CREATE TABLE IF NOT EXISTS account (        -- roll-ups: an account counts everything that is charged below it
    id       INTEGER PRIMARY KEY,           -- a pid; from 2^40 on: a named one; 0: the home; -1: the supply (the other side of every entry)
    parent   INTEGER NOT NULL,
    tokens_max INTEGER,                     -- its limit of tokens in all; NULL: none
    held     INTEGER NOT NULL DEFAULT 0,    -- tokens
    posted   INTEGER NOT NULL DEFAULT 0,
    overrun  INTEGER NOT NULL DEFAULT 0,
    gone_posted  INTEGER NOT NULL DEFAULT 0, -- of these, what processes below it had that were removed since
    gone_overrun INTEGER NOT NULL DEFAULT 0,
    nano_held    INTEGER NOT NULL DEFAULT 0, -- money, in nano-units of the home's currency
    nano_posted  INTEGER NOT NULL DEFAULT 0,
    nano_overrun INTEGER NOT NULL DEFAULT 0,
    gone_nano_posted  INTEGER NOT NULL DEFAULT 0,
    gone_nano_overrun INTEGER NOT NULL DEFAULT 0,
    name     TEXT    NOT NULL DEFAULT '',   -- of a named account; NAME/PROGRAM: of a program's
    zone     TEXT    NOT NULL DEFAULT '',   -- IANA name: the clock of its windows ('': not said)
    unknown_price TEXT NOT NULL DEFAULT '', -- refuse, allow ('': as the account above)
    currency TEXT    NOT NULL DEFAULT '',   -- of the home: that of all money
    budgets  INTEGER NOT NULL DEFAULT 0,    -- how many limits it has in `budget`
    warned   INTEGER NOT NULL DEFAULT 0     -- percent of tokens_max that were last warned of
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS account_name ON account (name) WHERE name <> '';

CREATE TABLE IF NOT EXISTS budget (         -- limits: of money, and of tokens in a window
    account INTEGER NOT NULL,
    unit    TEXT    NOT NULL,               -- tokens, money
    span    TEXT    NOT NULL,               -- total, day, week, month
    most    INTEGER NOT NULL,
    PRIMARY KEY (account, unit, span)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS used (           -- what was used of a limit in each of its windows
    account  INTEGER NOT NULL,
    unit     TEXT    NOT NULL,
    span     TEXT    NOT NULL,
    start_ms INTEGER NOT NULL,
    added    INTEGER NOT NULL DEFAULT 0,    -- top-ups
    held     INTEGER NOT NULL DEFAULT 0,
    posted   INTEGER NOT NULL DEFAULT 0,
    overrun  INTEGER NOT NULL DEFAULT 0,
    warned   INTEGER NOT NULL DEFAULT 0,    -- percent
    PRIMARY KEY (account, unit, span, start_ms)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS tariff (         -- pinned as they were when they were first used
    number INTEGER PRIMARY KEY,             -- 0 stands for free, -1 for unpriced: they have no row
    id     TEXT NOT NULL UNIQUE,            -- hash of the body
    body   BLOB NOT NULL                    -- JSON
) STRICT;

CREATE TABLE IF NOT EXISTS hold (
    id      INTEGER PRIMARY KEY,
    account INTEGER NOT NULL,               -- who asked: a process, or a named account for a call from outside
    tokens  INTEGER NOT NULL,
    engine  TEXT    NOT NULL,
    state   TEXT    NOT NULL,               -- held, dispatched, posted, voided, expired
    at_ms   INTEGER NOT NULL,
    nano    INTEGER NOT NULL DEFAULT 0,
    tariff  INTEGER NOT NULL DEFAULT 0,
    payer   INTEGER NOT NULL DEFAULT 0,     -- the named account that pays
    program TEXT    NOT NULL DEFAULT '',
    model   TEXT    NOT NULL DEFAULT '',
    key     TEXT    NOT NULL DEFAULT '',    -- idempotency key of a call from outside
    ask     TEXT    NOT NULL DEFAULT '',    -- what was asked for with that key
    sent_ms INTEGER NOT NULL DEFAULT 0,     -- when its call went out: the hour that it is charged at
    input_tokens  INTEGER NOT NULL DEFAULT 0, -- as the engine counted
    cached_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    over_tokens   INTEGER NOT NULL DEFAULT 0, -- beyond the hold
    cost_nano     INTEGER NOT NULL DEFAULT 0,
    saved_nano    INTEGER NOT NULL DEFAULT 0, -- by the engine's cache
    off_peak_nano INTEGER NOT NULL DEFAULT 0  -- by the hour
) STRICT;
CREATE INDEX IF NOT EXISTS hold_at ON hold (at_ms);
CREATE INDEX IF NOT EXISTS hold_foreign ON hold (state) WHERE account = 0 OR account > 1099511627775;
CREATE UNIQUE INDEX IF NOT EXISTS hold_key ON hold (key) WHERE key <> '';

CREATE TABLE IF NOT EXISTS tally (          -- what erased holds had, summed by the quarter of an hour
    at_ms   INTEGER NOT NULL,
    payer   INTEGER NOT NULL,
    program TEXT    NOT NULL,
    model   TEXT    NOT NULL,
    calls         INTEGER NOT NULL,
    input_tokens  INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    over_tokens   INTEGER NOT NULL,
    cost_nano     INTEGER NOT NULL,
    saved_nano    INTEGER NOT NULL,
    off_peak_nano INTEGER NOT NULL,
    PRIMARY KEY (at_ms, payer, program, model)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS entry (          -- append-only; debit and credit are equal by form
    id     INTEGER PRIMARY KEY,
    hold   INTEGER NOT NULL,
    kind   TEXT    NOT NULL,                -- held, released, posted, overrun, adjusted; limit: one was set here
    debit  INTEGER NOT NULL,
    credit INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    at_ms  INTEGER NOT NULL,
    nano   INTEGER NOT NULL DEFAULT 0,
    tariff INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS entry_hold ON entry (hold);
CREATE INDEX IF NOT EXISTS entry_adjusted ON entry (at_ms) WHERE kind = 'adjusted';
