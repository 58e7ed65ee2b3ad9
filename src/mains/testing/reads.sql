-- What the witness of a simulation reads from committed rows. Named as in mains/kernel/queries.sql.

-- name: events_since
SELECT seq, at_ms, pid, kind, body, crc FROM event WHERE seq > ? ORDER BY seq
-- name: event_crc
SELECT crc FROM event WHERE seq = ?
-- name: events_of
SELECT kind FROM event WHERE pid = ? AND seq > ? ORDER BY seq
-- name: process
SELECT state, reason, seq, body FROM process WHERE pid = ?
-- name: processes
SELECT pid, state, reason, seq, body FROM process ORDER BY pid
-- name: context
SELECT context.page, page.bytes FROM context LEFT JOIN page ON page.hash = context.page
WHERE context.pid = ? AND context.position >= ? ORDER BY context.position
-- name: page
SELECT bytes FROM page WHERE hash = ?
-- name: messages
SELECT id, sender, page, key, consumed FROM message WHERE pid = ? ORDER BY id
-- name: message
SELECT pid, page FROM message WHERE id = ?
-- name: entries_since
SELECT id, hold, kind, debit, credit, tokens FROM entry WHERE id > ? ORDER BY id
-- name: accounts
SELECT id, parent, tokens_max, held, posted, overrun FROM account ORDER BY id
-- name: holds_open
SELECT id FROM hold WHERE id > ? AND state = 'dispatched' ORDER BY id
-- name: hold
SELECT account, tokens, state FROM hold WHERE id = ?
