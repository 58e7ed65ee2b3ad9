-- Version 2 -> 3: named accounts, limits with windows, money, tariffs. Holds so far were free and had no named payer.

ALTER TABLE account ADD COLUMN nano_held    INTEGER NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN nano_posted  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN nano_overrun INTEGER NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN gone_nano_posted  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN gone_nano_overrun INTEGER NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN name     TEXT    NOT NULL DEFAULT '';
ALTER TABLE account ADD COLUMN zone     TEXT    NOT NULL DEFAULT '';
ALTER TABLE account ADD COLUMN unknown_price TEXT NOT NULL DEFAULT '';
ALTER TABLE account ADD COLUMN currency TEXT    NOT NULL DEFAULT '';
ALTER TABLE account ADD COLUMN budgets  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN warned   INTEGER NOT NULL DEFAULT 0;
UPDATE account SET name = 'home' WHERE id = 0;
CREATE UNIQUE INDEX account_name ON account (name) WHERE name <> '';

CREATE TABLE budget (
    account INTEGER NOT NULL, unit TEXT NOT NULL, span TEXT NOT NULL, most INTEGER NOT NULL,
    PRIMARY KEY (account, unit, span)) STRICT, WITHOUT ROWID;
CREATE TABLE used (
    account INTEGER NOT NULL, unit TEXT NOT NULL, span TEXT NOT NULL, start_ms INTEGER NOT NULL,
    added INTEGER NOT NULL DEFAULT 0, held INTEGER NOT NULL DEFAULT 0, posted INTEGER NOT NULL DEFAULT 0,
    overrun INTEGER NOT NULL DEFAULT 0, warned INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account, unit, span, start_ms)) STRICT, WITHOUT ROWID;
CREATE TABLE tariff (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, body BLOB NOT NULL) STRICT;

ALTER TABLE hold ADD COLUMN nano    INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hold ADD COLUMN tariff  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hold ADD COLUMN payer   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hold ADD COLUMN program TEXT    NOT NULL DEFAULT '';
ALTER TABLE hold ADD COLUMN model   TEXT    NOT NULL DEFAULT '';
ALTER TABLE hold ADD COLUMN key     TEXT    NOT NULL DEFAULT '';
ALTER TABLE hold ADD COLUMN ask     TEXT    NOT NULL DEFAULT '';
ALTER TABLE hold ADD COLUMN sent_ms INTEGER NOT NULL DEFAULT 0;
UPDATE hold SET sent_ms = at_ms;
ALTER TABLE hold ADD COLUMN input_tokens  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hold ADD COLUMN cached_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hold ADD COLUMN output_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hold ADD COLUMN over_tokens   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hold ADD COLUMN cost_nano     INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hold ADD COLUMN saved_nano    INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hold ADD COLUMN off_peak_nano INTEGER NOT NULL DEFAULT 0;
CREATE INDEX hold_at ON hold (at_ms);
CREATE INDEX hold_foreign ON hold (state) WHERE account = 0 OR account > 1099511627775;
CREATE UNIQUE INDEX hold_key ON hold (key) WHERE key <> '';

-- What an old hold had stands in its entries only: input and output together, which is shown as output.
UPDATE hold SET
    program = coalesce((SELECT json_extract(CAST(process.body AS TEXT), '$.name') FROM process WHERE process.pid = hold.account), ''),
    model = engine,
    output_tokens = coalesce((SELECT sum(tokens) FROM entry WHERE entry.hold = hold.id AND kind IN ('posted', 'overrun')), 0),
    over_tokens = coalesce((SELECT sum(tokens) FROM entry WHERE entry.hold = hold.id AND kind = 'overrun'), 0);

CREATE TABLE tally (
    at_ms INTEGER NOT NULL, payer INTEGER NOT NULL, program TEXT NOT NULL, model TEXT NOT NULL,
    calls INTEGER NOT NULL, input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    over_tokens INTEGER NOT NULL, cost_nano INTEGER NOT NULL, saved_nano INTEGER NOT NULL, off_peak_nano INTEGER NOT NULL,
    PRIMARY KEY (at_ms, payer, program, model)) STRICT, WITHOUT ROWID;

ALTER TABLE entry ADD COLUMN nano   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entry ADD COLUMN tariff INTEGER NOT NULL DEFAULT 0;
CREATE INDEX entry_adjusted ON entry (at_ms) WHERE kind = 'adjusted';
