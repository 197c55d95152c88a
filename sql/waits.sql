-- Claim: a wait returns when what it waits for is so and not before, gives up at its
-- deadline, and refuses at once what cannot come true (I3).
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
CREATE SCHEMA waits;
SET search_path = waits;
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

CREATE TABLE t (id int PRIMARY KEY, v int);
ALTER TABLE t REPLICA IDENTITY FULL;
INSERT INTO t SELECT i, i FROM generate_series(1, 10) i;
-- no operator: everything is applied
SELECT weir.wait_for() IS NOT NULL;
SELECT operator FROM weir.create_operator('total', 'SELECT sum(v) AS v FROM t');
SELECT operator FROM weir.create_operator('counted', 'SELECT count(*) AS n FROM t');
-- a new operator: until it is built
SELECT weir.wait_for('total') IS NOT NULL;
SELECT * FROM total;
SELECT status FROM weir.operators WHERE operator = 'total'::regclass;
SELECT weir.wait_for() IS NOT NULL;

-- read your writes, a hundred times
DO $$
DECLARE
    seen bigint;
BEGIN
    FOR i IN 1 .. 100 LOOP
        INSERT INTO waits.t VALUES (1000 + i, 1);
        COMMIT;
        PERFORM weir.wait_for('waits.total');
        SELECT v INTO seen FROM waits.total;
        IF seen <> 55 + i THEN RAISE 'saw % instead of %', seen, 55 + i; END IF;
        COMMIT;
    END LOOP;
END $$;
-- the answer is a position that was reached
SELECT pg_current_wal_insert_lsn() AS before \gset
SELECT weir.wait_for('total', :'before') >= :'before' AS reached;
SELECT processed_lsn IS NOT NULL AS known FROM weir.operators WHERE operator = 'total'::regclass;
SELECT weir.wait_for('total', '0/0') IS NOT NULL, weir.wait_for('total', '0/1', '0') IS NOT NULL;
-- commits that nobody flushed
SET synchronous_commit = off;
INSERT INTO t VALUES (2001, 1);
SELECT weir.wait_for('total', timeout => '10 s') IS NOT NULL;
SELECT * FROM total;
RESET synchronous_commit;
-- WAL without commits, of other databases, of nothing
SELECT pg_logical_emit_message(false, 'waits', 'x') IS NOT NULL;
SELECT weir.wait_for('total', timeout => '10 s') IS NOT NULL;
SELECT pg_switch_wal() IS NOT NULL;
SELECT weir.wait_for('total', timeout => '10 s') IS NOT NULL;
SELECT pg_switch_wal() IS NOT NULL;
SELECT weir.wait_for('total', timeout => '10 s') IS NOT NULL;
SELECT weir.wait_for(NULL, timeout => '10 s') IS NOT NULL;

-- in a transaction
BEGIN;
SELECT weir.wait_for('total') IS NOT NULL;
INSERT INTO t VALUES (3001, 1);
SELECT attempt($$SELECT weir.wait_for('total')$$);
SELECT attempt($$SELECT weir.wait_for()$$);
SELECT attempt($$SELECT weir.verify('total')$$);
ROLLBACK;
BEGIN;
SAVEPOINT a;
INSERT INTO t VALUES (3001, 1);
ROLLBACK TO a;
SELECT attempt($$SELECT weir.wait_for('total')$$);
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM total;
SELECT weir.wait_for('total') IS NOT NULL;
SELECT * FROM total;
COMMIT;
BEGIN READ ONLY;
SELECT weir.wait_for('total') IS NOT NULL;
COMMIT;

-- what cannot be
SELECT attempt($$SELECT weir.wait_for('total', pg_current_wal_insert_lsn() + 100000)$$);
SELECT attempt($$SELECT weir.wait_for('total', NULL)$$);
SELECT attempt($$SELECT weir.wait_for('total', timeout => NULL)$$);
SELECT attempt($$SELECT weir.wait_for('t')$$);
SELECT attempt($$SELECT weir.wait_for(1)$$);
SELECT attempt($$SELECT weir.wait_for('nothing')$$);
SELECT attempt($$SELECT weir.verify(NULL)$$);
SELECT attempt($$SELECT weir.verify('t')$$);
SELECT attempt($$SELECT weir.verify('total', NULL)$$);
-- in time, or not: an operator that is not built before this transaction ends
BEGIN;
SELECT operator FROM weir.create_operator('never', 'SELECT count(*) AS n FROM t');
SELECT attempt($$SELECT weir.wait_for('never')$$);
ROLLBACK;
SELECT attempt($$SELECT weir.verify('total', '0')$$);
SELECT attempt($$SELECT weir.verify('total', '-1 s')$$);
-- a paused operator does not move
SELECT weir.pause_operator('counted');
DO $$
DECLARE
    deadline timestamptz := clock_timestamp() + interval '30 s';
BEGIN
    WHILE (SELECT status FROM weir.versions WHERE operator = 'waits.counted'::regclass) <> 'stopped' LOOP
        IF clock_timestamp() > deadline THEN RAISE 'still not stopped'; END IF;
        COMMIT;
    END LOOP;
END $$;
SELECT attempt($$SELECT weir.wait_for('counted')$$);
SELECT attempt($$SELECT weir.wait_for()$$);
SELECT attempt($$SELECT weir.verify('counted')$$);
SELECT weir.wait_for('total') IS NOT NULL;
SELECT weir.resume_operator('counted');
SELECT weir.wait_for('counted') IS NOT NULL;
SELECT * FROM counted;
-- a wait is interrupted like any statement
SELECT strategy FROM weir.start_upgrade('total', 'SELECT sum(v) AS v, 1 AS one FROM t', auto_advance => false, gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('total', 'validating');
\set SHOW_CONTEXT never
SET statement_timeout = '200ms';
SELECT weir.wait_for_upgrade('total', 'observing');
RESET statement_timeout;
SELECT attempt($$SELECT weir.wait_for_upgrade('total', 'observing', '0')$$) ~ '^57014: upgrade \d+ of operator "total" did not reach phase observing in time';

SELECT weir.drop_operator('total');
SELECT weir.drop_operator('counted');
DROP SCHEMA waits CASCADE;
