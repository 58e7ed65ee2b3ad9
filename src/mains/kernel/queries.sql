-- Named queries: `-- name:` begins one. Parameters are positional. Where an index is partial, the query repeats the
-- index's condition: a parameter does not prove it to the planner (a test asks the planner about every query).

-- name: event_insert
INSERT INTO event (seq, at_ms, pid, kind, body, crc) VALUES (?, ?, ?, ?, ?, ?)
-- name: event_last
SELECT seq, crc FROM event ORDER BY seq DESC LIMIT 1
-- name: event_scan
SELECT seq, at_ms, pid, kind, body, crc FROM event WHERE seq > ? ORDER BY seq
-- name: event_crc
SELECT crc FROM event WHERE seq = ?
-- name: event_of
SELECT seq, at_ms, pid, kind, body FROM event WHERE pid = ? AND seq > ? ORDER BY seq LIMIT ?
-- name: event_after
SELECT seq, at_ms, pid, kind, body FROM event WHERE seq > ? ORDER BY seq LIMIT ?

-- name: event_limited
SELECT seq, body FROM event WHERE pid = 0 AND kind = 'limited' ORDER BY seq
-- name: event_opened
SELECT seq, body FROM event WHERE pid = 0 AND kind = 'opened' ORDER BY seq
-- name: event_first_of
SELECT seq, body, crc FROM event WHERE pid = ? ORDER BY seq LIMIT ?
-- name: event_notes
SELECT seq, crc FROM event WHERE pid = 0 AND kind NOT IN ('limited', 'opened', 'remembered', 'forgotten') AND seq < ? AND at_ms < ? ORDER BY seq LIMIT ?
-- name: event_delete
DELETE FROM event WHERE seq = ?
-- name: cut_until
SELECT first, last, crc FROM cut WHERE first <= ? ORDER BY first DESC LIMIT 1
-- name: cut_from
SELECT last, crc FROM cut WHERE first = ?
-- name: cut_put
INSERT INTO cut (first, last, crc) VALUES (?, ?, ?)
ON CONFLICT (first) DO UPDATE SET last = excluded.last, crc = excluded.crc
-- name: cut_delete
DELETE FROM cut WHERE first = ?
-- name: cut_count
SELECT count(*) FROM cut
-- name: removed_next
SELECT pid FROM removed ORDER BY pid LIMIT 1
-- name: removed_all
SELECT pid FROM removed
-- name: removed_insert
INSERT INTO removed (pid) VALUES (?)
-- name: removed_delete
DELETE FROM removed WHERE pid = ?

-- name: process_get
SELECT body FROM process WHERE pid = ?
-- name: process_put
INSERT INTO process (pid, parent, spawned_by, state, reason, quota, pgroup, seq, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (pid) DO UPDATE SET state = excluded.state, reason = excluded.reason, quota = excluded.quota,
    seq = excluded.seq, body = excluded.body
-- name: process_update
UPDATE process SET state = ?, reason = ?, quota = ?, seq = ?, body = ? WHERE pid = ?
-- name: process_all
SELECT body FROM process ORDER BY pid
-- name: process_live
SELECT body FROM process WHERE state <> 'EXITED' ORDER BY pid
-- name: process_in
SELECT body FROM process WHERE state = ? AND state <> 'EXITED' ORDER BY pid
-- name: process_unsized
SELECT body FROM process WHERE state > '' AND state <> 'EXITED' AND NOT instr(body, ?) ORDER BY state, pid
-- name: process_pids_in
SELECT pid FROM process WHERE state = ? AND state <> 'EXITED' ORDER BY pid
-- name: process_newest_in
SELECT body FROM process WHERE state = ? AND state <> 'EXITED' ORDER BY pid DESC LIMIT ?
-- name: process_above
SELECT body FROM process WHERE pid > ? ORDER BY pid LIMIT ?
-- name: process_states
SELECT state, count(*) FROM process WHERE state <> 'EXITED' GROUP BY state ORDER BY state
-- name: process_count_live
SELECT count(*) FROM process WHERE state <> 'EXITED'
-- name: process_count_quota
SELECT count(*) FROM process WHERE quota >= 0
-- name: process_group
SELECT pid FROM process WHERE pgroup = ? AND pgroup <> '' AND state <> 'EXITED' ORDER BY pid
-- name: process_children
SELECT body FROM process WHERE parent = ? AND parent > 0 ORDER BY pid
-- name: process_spawned
SELECT body FROM process WHERE parent = ? AND parent > 0 AND spawned_by = ? ORDER BY pid
-- name: process_spawned_alive
SELECT pid FROM process WHERE parent = ? AND parent > 0 AND spawned_by = ? AND state IN ('NEW', 'READY', 'RUNNING', 'WAITING', 'STOPPED')
LIMIT 1
-- name: process_child_at_work
SELECT pid FROM process WHERE parent = ? AND parent > 0 AND spawned_by <> '' AND state IN ('NEW', 'READY', 'RUNNING') LIMIT 1
-- name: process_spawned_count
SELECT count(*) FROM process WHERE parent = ? AND parent > 0 AND spawned_by = ? AND state IN ('NEW', 'READY', 'RUNNING', 'WAITING', 'STOPPED')
-- name: process_tree_below
WITH RECURSIVE below (pid) AS (
    SELECT pid FROM process WHERE parent = ? AND parent > 0
    UNION ALL SELECT process.pid FROM process JOIN below ON process.parent = below.pid AND process.parent > 0)
SELECT pid FROM below ORDER BY pid
-- name: process_rated_below
WITH RECURSIVE below (pid) AS (
    SELECT pid FROM process WHERE parent = ? AND parent > 0
    UNION ALL SELECT process.pid FROM process JOIN below ON process.parent = below.pid AND process.parent > 0)
SELECT process.body FROM below JOIN process ON process.pid = below.pid WHERE instr(process.body, ?) > 0
-- name: process_alive_below
WITH RECURSIVE below (pid, state) AS (
    SELECT pid, state FROM process WHERE parent = ? AND parent > 0
    UNION ALL SELECT process.pid, process.state FROM process JOIN below ON process.parent = below.pid AND process.parent > 0)
SELECT pid FROM below WHERE state <> 'EXITED' LIMIT 1
-- name: process_child
SELECT pid FROM process WHERE parent = ? AND parent > 0 LIMIT 1
-- name: process_child_pids
SELECT pid FROM process WHERE parent = ? AND parent > 0
-- name: process_state
SELECT state FROM process WHERE pid = ?
-- name: process_ended
SELECT process.pid, process.parent, process.spawned_by, process.seq, event.at_ms
FROM process JOIN event ON event.seq = process.seq
WHERE process.state = 'EXITED' AND process.seq > ? ORDER BY process.seq LIMIT ?
-- name: process_delete
DELETE FROM process WHERE pid = ?
-- name: process_quota_first
SELECT pid FROM process WHERE quota = ? AND quota >= 0 AND pid < ? ORDER BY pid LIMIT 1
-- name: process_quota_next
SELECT pid FROM process WHERE quota = ? AND quota >= 0 ORDER BY pid LIMIT 1
-- name: process_changed
SELECT pid, parent, spawned_by, state, reason, quota, pgroup, seq, body FROM process WHERE seq > ?

-- name: key_get
SELECT pid, ask FROM process_key WHERE key = ?
-- name: key_insert
INSERT INTO process_key (key, pid, ask) VALUES (?, ?, ?)
-- name: key_delete
DELETE FROM process_key WHERE key = ? AND pid = ?

-- name: checkpoint_delete
DELETE FROM checkpoint WHERE pid = ?
-- name: checkpoint_copy
INSERT INTO checkpoint (pid, body) SELECT pid, body FROM process WHERE seq > ?
ON CONFLICT (pid) DO UPDATE SET body = excluded.body
-- name: checkpoint_get
SELECT body FROM checkpoint WHERE pid = ?
-- name: counter_get
SELECT value FROM counter WHERE name = ?
-- name: counter_put
INSERT INTO counter (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value
-- name: counter_raise
INSERT INTO counter (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)
-- name: counter_start
INSERT INTO counter (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING

-- name: page_insert
INSERT INTO page (hash, kind, bytes) VALUES (?, ?, ?) ON CONFLICT (hash) DO NOTHING
-- name: page_get
SELECT bytes FROM page WHERE hash = ?
-- name: page_known
SELECT 1 FROM page WHERE hash = ?
-- name: page_use_insert
INSERT INTO page_use (page, pid) VALUES (?, ?) ON CONFLICT DO NOTHING
-- name: page_part_insert
INSERT INTO page_part (page, whole) VALUES (?, ?) ON CONFLICT DO NOTHING
-- name: page_use_scan
SELECT page, pid FROM page_use
-- name: page_part_scan
SELECT page, whole FROM page_part
-- name: page_use_delete
DELETE FROM page_use WHERE page = ? AND pid = ?
-- name: page_named
SELECT 1 FROM page_use WHERE page = ? UNION ALL SELECT 1 FROM page_part WHERE page = ?
UNION ALL SELECT 1 FROM note WHERE page = ? AND kept = 1 LIMIT 1
-- name: page_parts
SELECT page FROM page_part WHERE whole = ?
-- name: page_part_delete
DELETE FROM page_part WHERE whole = ?
-- name: page_delete
DELETE FROM page WHERE hash = ?
-- name: page_orphans
SELECT hash FROM page WHERE NOT EXISTS (SELECT 1 FROM page_use WHERE page_use.page = page.hash)
AND NOT EXISTS (SELECT 1 FROM page_part WHERE page_part.page = page.hash)
AND NOT EXISTS (SELECT 1 FROM note WHERE note.page = page.hash AND note.kept = 1)
-- name: pages_free
SELECT freelist_count * page_size FROM pragma_freelist_count(), pragma_page_size()
-- name: page_scan
SELECT hash, bytes FROM page
-- name: context_insert
INSERT INTO context (pid, position, page) VALUES (?, ?, ?)
-- name: context_delete_opening
DELETE FROM context WHERE pid = ? AND position < 0
-- name: context_erase
DELETE FROM context WHERE pid = ? AND position > (SELECT max(position) FROM context WHERE pid = ?) - ?
-- name: context_span
SELECT context.position, context.page, page.bytes FROM context JOIN page ON page.hash = context.page
WHERE context.pid = ? AND context.position >= ? AND context.position < ? ORDER BY context.position
-- name: context_from
SELECT context.position, context.page, page.bytes FROM context JOIN page ON page.hash = context.page
WHERE context.pid = ? AND context.position >= ? ORDER BY context.position LIMIT ?
-- name: context_missing
SELECT context.pid, context.position FROM context LEFT JOIN page ON page.hash = context.page WHERE page.hash IS NULL
-- name: context_scan
SELECT pid, position, page FROM context ORDER BY pid, position
-- name: cover_insert
INSERT INTO cover (pid, first, seq, until, pages) VALUES (?, ?, ?, ?, ?)
-- name: cover_of
SELECT seq, first, until, pages FROM cover WHERE pid = ? AND first >= ? AND seq <= ? AND until <= ? ORDER BY seq, first
-- name: cover_latest
SELECT seq, first, until, pages FROM cover WHERE pid = ? AND first = 0 AND seq <= ? AND until <= ? ORDER BY seq DESC LIMIT 1
-- name: cover_delete
DELETE FROM cover WHERE pid = ?
-- name: cover_scan
SELECT pid, seq, first, until, pages FROM cover ORDER BY pid, seq, first

-- name: message_insert
INSERT INTO message (pid, sender, page, key) VALUES (?, ?, ?, ?)
-- name: message_by_key
SELECT id FROM message WHERE pid = ? AND key = ? AND key <> ''
-- name: message_unread
SELECT id, sender, page FROM message WHERE pid = ? AND consumed = 0 ORDER BY id LIMIT ?
-- name: message_consume
UPDATE message SET consumed = 1 WHERE id = ?
-- name: message_delete
DELETE FROM message WHERE id = ? AND pid = ?

-- name: timer_insert
INSERT INTO timer (due_ms, pid, call) VALUES (?, ?, ?) ON CONFLICT DO NOTHING
-- name: timer_next
SELECT due_ms FROM timer ORDER BY due_ms LIMIT 1
-- name: timer_due
SELECT due_ms, pid, call FROM timer WHERE due_ms <= ? ORDER BY due_ms, pid LIMIT ?
-- name: timer_no_later
UPDATE timer SET due_ms = ? WHERE call = ? AND due_ms > ?
-- name: timer_holds
SELECT -pid FROM timer WHERE pid < 0
-- name: timer_at_once
SELECT 1 FROM timer WHERE pid = ? AND due_ms = ?
-- name: timer_delete
DELETE FROM timer WHERE due_ms = ? AND pid = ? AND call = ?
-- name: timer_delete_pid
DELETE FROM timer WHERE pid = ?

-- name: account_insert
INSERT INTO account (id, parent, tokens_max, name) VALUES (?, ?, ?, ?)
-- name: account_add
INSERT INTO account (id, parent, name, zone, unknown_price) VALUES (?, ?, ?, ?, ?)
-- name: account_next
SELECT max(coalesce(max(id), 0) + 1, 1 << 40) FROM account
-- name: account_get
SELECT tokens_max, held, posted, overrun, budgets, name, zone FROM account WHERE id = ?
-- name: account_sums
SELECT posted, overrun, nano_posted, nano_overrun, gone_posted, gone_overrun, gone_nano_posted, gone_nano_overrun, held, nano_held
FROM account WHERE id = ?
-- name: account_place
SELECT parent, name, zone, unknown_price FROM account WHERE id = ?
-- name: account_named
SELECT id FROM account WHERE name = ? AND name <> ''
-- name: account_all_named
SELECT id, parent, name, zone, unknown_price FROM account WHERE name <> '' ORDER BY name
-- name: account_row
SELECT id, parent, name, zone, unknown_price, tokens_max, held, posted, overrun, nano_held, nano_posted, nano_overrun, warned
FROM account WHERE id = ?
-- name: account_move
UPDATE account SET held = held + ?, posted = posted + ?, overrun = overrun + ?,
    nano_held = nano_held + ?, nano_posted = nano_posted + ?, nano_overrun = nano_overrun + ?
WHERE id = ?
-- name: account_move_read
UPDATE account SET held = held + ?, posted = posted + ?, overrun = overrun + ?,
    nano_held = nano_held + ?, nano_posted = nano_posted + ?, nano_overrun = nano_overrun + ?
WHERE id = ? RETURNING tokens_max, posted + overrun, warned, budgets, zone
-- name: account_currency
SELECT currency FROM account WHERE id = 0
-- name: account_currency_put
UPDATE account SET currency = ? WHERE id = 0
-- name: account_warned
UPDATE account SET warned = ? WHERE id = ?
-- name: account_price_rule
UPDATE account SET unknown_price = ? WHERE id = ?
-- name: account_limit
UPDATE account SET tokens_max = ?, warned = ? WHERE id = ?
-- name: account_zone
UPDATE account SET zone = ? WHERE id = ?
-- name: account_budgets
UPDATE account SET budgets = (SELECT count(*) FROM budget WHERE budget.account = account.id) WHERE id = ?
-- name: account_carry
UPDATE account SET gone_posted = gone_posted + ?, gone_overrun = gone_overrun + ?,
    gone_nano_posted = gone_nano_posted + ?, gone_nano_overrun = gone_nano_overrun + ? WHERE id = ?
-- name: account_delete
DELETE FROM account WHERE id = ?
-- name: account_all
SELECT id, parent, tokens_max, held, posted, overrun, gone_posted, gone_overrun,
    nano_held, nano_posted, nano_overrun, gone_nano_posted, gone_nano_overrun, budgets, zone FROM account ORDER BY id
-- name: budget_of
SELECT unit, span, most, (SELECT currency FROM account WHERE id = 0) FROM budget WHERE account = ?
-- name: budget_put
INSERT INTO budget (account, unit, span, most) VALUES (?, ?, ?, ?)
ON CONFLICT (account, unit, span) DO UPDATE SET most = excluded.most
-- name: budget_delete
DELETE FROM budget WHERE account = ? AND unit = ? AND span = ?
-- name: budget_all
SELECT account, unit, span, most FROM budget
-- name: used_get
SELECT added, held, posted, overrun FROM used WHERE account = ? AND unit = ? AND span = ? AND start_ms = ?
-- name: used_warned_at
SELECT warned FROM used WHERE account = ? AND unit = ? AND span = ? AND start_ms = ?
-- name: used_move
INSERT INTO used (account, unit, span, start_ms, held, posted, overrun) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (account, unit, span, start_ms) DO UPDATE
SET held = held + excluded.held, posted = posted + excluded.posted, overrun = overrun + excluded.overrun
RETURNING added, posted + overrun, warned
-- name: used_unwarned
UPDATE used SET warned = 0 WHERE account = ? AND unit = ? AND span = ?
-- name: used_add
INSERT INTO used (account, unit, span, start_ms, added) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (account, unit, span, start_ms) DO UPDATE SET added = added + excluded.added, warned = 0
-- name: used_warned
UPDATE used SET warned = ? WHERE account = ? AND unit = ? AND span = ? AND start_ms = ?
-- name: used_delete
DELETE FROM used WHERE account = ? AND unit = ? AND span = ?
-- name: used_all
SELECT account, unit, span, start_ms, held, posted, overrun FROM used
-- name: tariff_number
SELECT number FROM tariff WHERE id = ?
-- name: tariff_get
SELECT body FROM tariff WHERE number = ?
-- name: tariff_insert
INSERT INTO tariff (id, body) VALUES (?, ?)
-- name: hold_insert
INSERT INTO hold (account, tokens, nano, engine, model, program, payer, key, ask, tariff, state, at_ms, sent_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
-- name: hold_get
SELECT account, state, tokens, nano, tariff, at_ms, sent_ms FROM hold WHERE id = ?
-- name: hold_dispatch
UPDATE hold SET state = 'dispatched', sent_ms = ? WHERE id = ? AND state = 'held'
-- name: hold_end
UPDATE hold SET state = ? WHERE id = ? AND state IN ('held', 'dispatched')
-- name: hold_post
UPDATE hold SET state = 'posted', input_tokens = ?, cached_tokens = ?, output_tokens = ?, over_tokens = ?, cost_nano = ?,
    saved_nano = ?, off_peak_nano = ? WHERE id = ? AND state IN ('held', 'dispatched')
-- name: hold_foreign
SELECT id, account, payer, program, state, tokens, nano FROM hold
WHERE state IN ('held', 'dispatched') AND (account = 0 OR account > 1099511627775)
-- name: hold_by_key
SELECT id, tokens, nano, tariff, ask FROM hold WHERE key = ? AND key <> ''
-- name: hold_counts
WITH RECURSIVE below (id) AS (
    SELECT ? UNION SELECT account.id FROM account JOIN below ON account.parent = below.id WHERE account.name <> '')
SELECT account, payer, program, state, at_ms, tokens, nano, input_tokens + output_tokens, cost_nano FROM hold
WHERE payer IN below
-- name: adjusted_counts
SELECT hold.account, hold.payer, hold.program, hold.at_ms,
    CASE WHEN entry.debit = -1 THEN -entry.tokens ELSE entry.tokens END,
    CASE WHEN entry.debit = -1 THEN -entry.nano ELSE entry.nano END
FROM entry JOIN hold ON hold.id = entry.hold WHERE entry.kind = 'adjusted'
-- name: hold_tally
INSERT INTO tally (at_ms, payer, program, model, calls, input_tokens, cached_tokens, output_tokens, over_tokens, cost_nano,
    saved_nano, off_peak_nano)
SELECT at_ms - at_ms % 900000, payer, program, model, 1, input_tokens, cached_tokens, output_tokens, over_tokens, cost_nano,
    saved_nano, off_peak_nano FROM hold WHERE id = ? AND (state = 'posted' OR output_tokens > 0)
ON CONFLICT (at_ms, payer, program, model) DO UPDATE SET calls = calls + 1,
    input_tokens = input_tokens + excluded.input_tokens, cached_tokens = cached_tokens + excluded.cached_tokens,
    output_tokens = output_tokens + excluded.output_tokens, over_tokens = over_tokens + excluded.over_tokens,
    cost_nano = cost_nano + excluded.cost_nano, saved_nano = saved_nano + excluded.saved_nano,
    off_peak_nano = off_peak_nano + excluded.off_peak_nano
-- name: meter_holds
SELECT at_ms - at_ms % ?, payer, program, model, count(*), sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(over_tokens), sum(cost_nano), sum(saved_nano),
    sum(off_peak_nano) FROM hold
WHERE at_ms >= ? AND at_ms < ? AND (state = 'posted' OR output_tokens > 0) GROUP BY 1, 2, 3, 4
-- name: meter_of
WITH RECURSIVE wanted (step) AS (SELECT ?), below (pid) AS (
    SELECT ? UNION ALL SELECT process.pid FROM process JOIN below ON process.parent = below.pid AND process.parent > 0)
SELECT at_ms - at_ms % step, payer, program, model, count(*), sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(over_tokens), sum(cost_nano), sum(saved_nano),
    sum(off_peak_nano) FROM wanted, hold
WHERE at_ms >= ? AND at_ms < ? AND (state = 'posted' OR output_tokens > 0) AND account IN below GROUP BY 1, 2, 3, 4
-- name: meter_adjusted
SELECT entry.at_ms - entry.at_ms % ?, payer, program, model, 0, 0, 0,
    sum(CASE WHEN entry.debit = -1 THEN -entry.tokens ELSE entry.tokens END), 0,
    sum(CASE WHEN entry.debit = -1 THEN -entry.nano ELSE entry.nano END), 0, 0
FROM entry JOIN hold ON hold.id = entry.hold
WHERE entry.kind = 'adjusted' AND entry.at_ms >= ? AND entry.at_ms < ? GROUP BY 1, 2, 3, 4
-- name: meter_tally
SELECT at_ms - at_ms % ?, payer, program, model, sum(calls), sum(input_tokens), sum(cached_tokens), sum(output_tokens),
    sum(over_tokens), sum(cost_nano), sum(saved_nano), sum(off_peak_nano) FROM tally
WHERE at_ms >= ? AND at_ms < ? GROUP BY 1, 2, 3, 4
-- name: hold_delete
DELETE FROM hold WHERE id = ?
-- name: hold_all
SELECT id, account, tokens, state, nano, at_ms, cost_nano, input_tokens + output_tokens FROM hold ORDER BY id
-- name: tally_all
SELECT at_ms, payer, input_tokens + output_tokens, cost_nano FROM tally
-- name: tally_counts
SELECT -1, payer, program, at_ms, input_tokens + output_tokens, cost_nano FROM tally
-- name: entry_insert
INSERT INTO entry (hold, kind, debit, credit, tokens, nano, tariff, at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
-- name: entry_of
SELECT kind, debit, tokens, nano FROM entry WHERE hold = ? ORDER BY id
-- name: entry_adjusted
SELECT hold.account, hold.payer, hold.program, CASE WHEN entry.debit = -1 THEN -entry.nano ELSE entry.nano END
FROM entry JOIN hold ON hold.id = entry.hold WHERE entry.kind = 'adjusted' AND entry.at_ms >= ? AND entry.at_ms < ?
-- name: entry_delete
DELETE FROM entry WHERE hold = ?
-- name: entry_all
SELECT id, hold, kind, debit, credit, tokens, nano, at_ms FROM entry ORDER BY id
-- name: pid_last
SELECT max(coalesce((SELECT max(pid) FROM process), 0), coalesce((SELECT value FROM counter WHERE name = 'pid_last'), 0))
