-- Named queries of shared segments (`segments.py`); see queries.sql.

-- name: segment_insert
INSERT INTO segment (id, name, account, append_only) VALUES (?, ?, ?, ?)
-- name: segment_by_name
SELECT id, name, account, append_only, pages, bytes FROM segment WHERE name = ?
-- name: segment_get
SELECT id, name, account, append_only, pages, bytes FROM segment WHERE id = ?
-- name: segment_all
SELECT id, name, account, append_only, pages, bytes FROM segment ORDER BY name
-- name: segment_count
SELECT count(*) FROM segment
-- name: segment_grow
UPDATE segment SET pages = pages + 1, bytes = bytes + ? WHERE id = ?
-- name: segment_delete
DELETE FROM segment WHERE id = ?
-- name: segment_page_insert
INSERT INTO segment_page (segment, number, page, seq) VALUES (?, ?, ?, ?)
-- name: segment_pages
SELECT segment_page.number, segment_page.page, page.bytes FROM segment_page JOIN page ON page.hash = segment_page.page
WHERE segment_page.segment = ? AND segment_page.number >= ? ORDER BY segment_page.number LIMIT ?
-- name: segment_told
SELECT segment_page.number, segment_page.page, page.bytes, event.at_ms, event.body FROM segment_page
JOIN page ON page.hash = segment_page.page JOIN event ON event.seq = segment_page.seq
WHERE segment_page.segment = ? AND segment_page.number >= ? ORDER BY segment_page.number LIMIT ?
-- name: segment_pages_delete
DELETE FROM segment_page WHERE segment = ?
-- name: segment_page_scan
SELECT segment, number, page, seq FROM segment_page ORDER BY segment, number
-- name: segment_mappers
SELECT body FROM process WHERE state <> 'EXITED' AND instr(body, ?) ORDER BY pid
-- name: event_of_segments
SELECT seq, pid, body FROM event WHERE pid < 0 ORDER BY pid, seq
