-- Named queries of those who look at memory; `queries.sql` says how queries are written. Nothing in a transaction needs them.

-- name: event_frames
SELECT seq, kind, body FROM event WHERE pid = ? AND seq <= ? AND kind IN ('asked', 'replied', 'evicted', 'execed') ORDER BY seq
-- name: event_at
SELECT at_ms FROM event WHERE seq = ?
-- name: event_next
SELECT seq, kind FROM event WHERE pid = ? AND seq > ? ORDER BY seq LIMIT 1
-- name: context_names
SELECT position, page FROM context WHERE pid = ? AND position >= ? AND position < ? ORDER BY position
-- name: context_sums
SELECT sum(uses), sum(uses * length(bytes)), sum(length(bytes))
FROM (SELECT page, count(*) AS uses FROM context GROUP BY page) JOIN page ON page.hash = page
-- name: context_most
SELECT page, count(DISTINCT pid) AS pids, min(position) FROM context GROUP BY page HAVING pids > 1 ORDER BY pids DESC, page LIMIT ?
-- name: context_sizes
SELECT context.position, context.page, length(page.bytes) FROM context JOIN page ON page.hash = context.page
WHERE context.pid = ? AND context.position >= ? AND context.position < ? ORDER BY context.position
-- name: context_of_pages
SELECT pid, position, page FROM context WHERE page IN (SELECT value FROM json_each(?))
-- name: page_kinds
SELECT kind, count(*), sum(length(bytes)) FROM page GROUP BY kind
-- name: cover_count
SELECT count(*) FROM cover
