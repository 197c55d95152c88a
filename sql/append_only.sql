-- Claim: an append-only operator needs no old rows; a change that it cannot fold
-- stops it (WE002) with its rows and position kept and says so to its owner, others go
-- on (I11), and after REPLICA IDENTITY FULL weir.rebuild_operator is the way on.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
CREATE SCHEMA append_only;
SET search_path = append_only;
\pset format unaligned
\pset tuples_only on

CREATE FUNCTION attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text;
    hint text;
BEGIN
    EXECUTE statement;
    RETURN 'done';
EXCEPTION WHEN OTHERS OR query_canceled THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN regexp_replace(concat_ws(E'\n', SQLSTATE || ': ' || SQLERRM, 'DETAIL: ' || nullif(detail, ''), 'HINT: ' || nullif(hint, '')),
        '[0-9A-F]+/[0-9A-F]+', 'LSN', 'g');
END $$;
CREATE PROCEDURE await(condition text) LANGUAGE plpgsql AS $$
DECLARE
    deadline timestamptz := clock_timestamp() + interval '30 s';
    reached boolean;
BEGIN
    LOOP
        EXECUTE condition INTO reached;
        EXIT WHEN reached;
        IF clock_timestamp() > deadline THEN RAISE 'not reached: %', condition; END IF;
        COMMIT;
    END LOOP;
END $$;

CREATE TABLE events (id int PRIMARY KEY, kind text, ms int);
INSERT INTO events VALUES (1, 'a', 10), (2, 'a', 20), (3, 'b', 30);
-- without the option the source is refused, with both commands in the hint
SELECT attempt($$SELECT weir.create_operator('kinds', 'SELECT kind, count(*) AS n FROM events GROUP BY kind')$$);
SELECT operator FROM weir.create_operator('kinds', 'SELECT kind, count(*) AS n, max(ms) AS slowest FROM events GROUP BY kind', options => '{"append_only": true}');
SELECT operator FROM weir.create_operator('updated', 'SELECT kind, sum(ms) AS total FROM events GROUP BY kind', options => '{"append_only": true}');
SELECT operator FROM weir.create_operator('deleted', 'SELECT kind, sum(ms) AS total FROM events GROUP BY kind', options => '{"append_only": true, "on_error": "stop"}');
CREATE TABLE other (v int);
ALTER TABLE other REPLICA IDENTITY FULL;
SELECT operator FROM weir.create_operator('other_sum', 'SELECT sum(v) AS total FROM other');
SELECT weir.wait_for(NULL) IS NOT NULL;
SELECT append_only FROM weir.versions WHERE operator = 'kinds'::regclass;
INSERT INTO events VALUES (4, 'a', 5);
COPY events FROM stdin;
5	c	50
\.
SELECT weir.wait_for(NULL) IS NOT NULL;
SELECT * FROM kinds ORDER BY kind;

-- an UPDATE, with an insert before and after it in its transaction
BEGIN;
INSERT INTO events VALUES (6, 'a', 1);
UPDATE events SET ms = 0 WHERE id = 1;
INSERT INTO other VALUES (1);
COMMIT;
INSERT INTO events VALUES (7, 'd', 7);
SELECT weir.wait_for('other_sum') IS NOT NULL;
SELECT * FROM other_sum;
SELECT operator, status, message, hint FROM weir.operators WHERE operator::text IN ('kinds', 'updated', 'deleted') ORDER BY operator::text;
SELECT operator, version, status, stop_cause, sqlstate, message, regexp_replace(detail, '[0-9A-F]+/[0-9A-F]+', 'LSN') AS detail, hint, error_lsn IS NOT NULL AS has_lsn
FROM weir.versions WHERE operator = 'kinds'::regclass;
SELECT event, reason FROM weir.ledger WHERE operator = 'kinds' ORDER BY ledger_id;
-- nothing of that transaction, nothing lost before it, and it may be read
SELECT * FROM kinds ORDER BY kind;
SELECT attempt($$SELECT weir.wait_for('kinds')$$);
SELECT attempt($$SELECT weir.wait_for(NULL)$$) ~ '^55000: operator "(kinds|updated|deleted)" is stopped and does not move';
SELECT attempt($$SELECT * FROM weir.verify('kinds')$$);
SELECT attempt($$SELECT weir.start_upgrade('kinds', 'SELECT kind, count(*) AS n, max(ms) AS slowest FROM events GROUP BY kind', gates => '{"observe": "0 s"}')$$);

-- resumed without a cure it stops at the same change again
SELECT weir.resume_operator('updated');
CALL await($$SELECT count(*) = 2 FROM weir.ledger WHERE operator = 'updated' AND event = 'stop'$$);
SELECT status, message FROM weir.operators WHERE operator = 'updated'::regclass;
SELECT * FROM updated ORDER BY kind;

-- a place is kept for each of them: a slot that holds the WAL
CALL await($$SELECT count(*) = 3 FROM weir.readers r JOIN pg_replication_slots s USING (slot_name) WHERE kind = 'stopped' AND versions <> '{}'$$);
SELECT kind, status, versions FROM weir.readers WHERE kind = 'stopped' AND versions IS NOT NULL ORDER BY versions;

-- the way on: old rows, and a rebuild; append_only itself stays as it was asked for
SELECT attempt($$SELECT weir.rebuild_operator('kinds')$$);
SELECT weir.wait_for_upgrade('kinds', 'finalized');
SELECT weir.wait_for('kinds') IS NOT NULL;
SELECT * FROM kinds ORDER BY kind;
SELECT status, message, hint FROM weir.operators WHERE operator = 'kinds'::regclass;
CALL await($$SELECT count(*) = 2 FROM weir.readers WHERE kind = 'stopped'$$);
INSERT INTO events VALUES (8, 'd', 8);
SELECT weir.wait_for('kinds') IS NOT NULL;
(SELECT kind, count(*), max(ms) FROM events GROUP BY kind) EXCEPT ALL SELECT * FROM kinds;

-- DELETE and TRUNCATE
SELECT weir.drop_operator('updated');
SELECT weir.drop_operator('deleted');
SELECT operator FROM weir.create_operator('deleted', 'SELECT kind, sum(ms) AS total FROM events GROUP BY kind', options => '{"append_only": true}');
CREATE TABLE other_events (LIKE events);
SELECT operator FROM weir.create_operator('truncated', 'SELECT kind, sum(ms) AS total FROM other_events GROUP BY kind', options => '{"append_only": true}');
SELECT weir.wait_for(NULL) IS NOT NULL;
INSERT INTO other_events SELECT * FROM events;
DELETE FROM events WHERE id = 7;
SELECT weir.wait_for('truncated') IS NOT NULL;
TRUNCATE other_events;
SELECT weir.wait_for('other_sum') IS NOT NULL;
SELECT operator, status, message, hint FROM weir.operators WHERE operator::text IN ('deleted', 'truncated') ORDER BY operator::text;
SELECT sum(total) FROM deleted;
SELECT sum(total) FROM truncated;

-- without append_only, a source that loses FULL later: the change that needs the old row stops it
CREATE TABLE full_once (id int PRIMARY KEY, v int);
ALTER TABLE full_once REPLICA IDENTITY FULL;
INSERT INTO full_once VALUES (1, 1), (2, 2);
SELECT operator FROM weir.create_operator('full_sum', 'SELECT sum(v) AS total FROM full_once');
SELECT weir.wait_for('full_sum') IS NOT NULL;
ALTER TABLE full_once REPLICA IDENTITY DEFAULT;
INSERT INTO full_once VALUES (3, 3);
SELECT weir.wait_for('full_sum') IS NOT NULL;
SELECT * FROM full_sum;
UPDATE full_once SET v = 10 WHERE id = 1;
SELECT weir.wait_for('other_sum') IS NOT NULL;
SELECT status, message, hint FROM weir.operators WHERE operator = 'full_sum'::regclass;
SELECT sqlstate, regexp_replace(detail, '[0-9A-F]+/[0-9A-F]+', 'LSN') FROM weir.versions WHERE operator = 'full_sum'::regclass;
SELECT * FROM full_sum;
ALTER TABLE full_once REPLICA IDENTITY FULL;
SELECT attempt($$SELECT weir.rebuild_operator('full_sum')$$);
SELECT weir.wait_for_upgrade('full_sum', 'finalized');
UPDATE full_once SET v = 20 WHERE id = 2;
SELECT weir.wait_for('full_sum') IS NOT NULL;
SELECT * FROM full_sum;

SELECT count(weir.drop_operator(operator)) FROM weir.operators WHERE operator::text NOT LIKE '%.%';
DROP SCHEMA append_only CASCADE;
