-- Claim: weir.verify counts exactly the rows that are missing and that are extra, at
-- one position, whatever comes in meanwhile, and leaves nothing behind (I12).
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
CREATE SCHEMA verify;
SET search_path = verify;
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

CREATE TABLE t (id int PRIMARY KEY, k int, v numeric);
ALTER TABLE t REPLICA IDENTITY FULL;
INSERT INTO t SELECT i, i % 10, i / 4.0 FROM generate_series(1, 300) i;
SELECT operator FROM weir.create_operator('op', 'SELECT k, count(*) AS n, sum(v) AS total, max(v) AS highest FROM t GROUP BY k');
SELECT operator FROM weir.create_operator('single', 'SELECT count(*) AS n, sum(v) AS total FROM t');
SELECT operator FROM weir.create_operator('hidden', 'SELECT count(*) AS n FROM t GROUP BY k % 2');
SELECT weir.wait_for(NULL) IS NOT NULL;
SELECT missing, extra, checked_lsn IS NOT NULL FROM weir.verify('op');
SELECT missing, extra FROM weir.verify('single');
SELECT missing, extra FROM weir.verify('hidden');
DELETE FROM t WHERE k = 3;
UPDATE t SET v = v + 1 WHERE k = 4;
SELECT missing, extra FROM weir.verify('op');
TRUNCATE t;
SELECT missing, extra FROM weir.verify('op'), (SELECT 1) AS one;
SELECT missing, extra FROM weir.verify('single');
INSERT INTO t SELECT i, i % 10, i / 4.0 FROM generate_series(1, 300) i;
SELECT missing, extra FROM weir.verify('op');

-- rows that a superuser planted: wrong, missing, extra
UPDATE weir_state.op_v1 SET n = n + 1 WHERE k = 5;
SELECT missing, extra FROM weir.verify('op');
DELETE FROM weir_state.op_v1 WHERE k = 6;
SELECT missing, extra FROM weir.verify('op');
INSERT INTO weir_state.op_v1 (k, n, total, highest, _weir_shard) SELECT 77, 1, 1, 1, _weir_shard FROM weir_state.op_v1 LIMIT 1;
SELECT missing, extra FROM weir.verify('op');
-- rebuilt, it is right again
SELECT strategy FROM weir.rebuild_operator('op');
SELECT weir.wait_for_upgrade('op', 'finalized');
SELECT missing, extra FROM weir.verify('op');
SELECT version FROM weir.operators WHERE operator = 'op'::regclass;

-- while an upgrade is observed: what serves is verified
SELECT strategy FROM weir.start_upgrade('op', 'SELECT k, count(*) AS n, sum(v) AS total, max(v) AS highest, min(v) AS lowest FROM t GROUP BY k', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('op', 'observing');
SELECT missing, extra FROM weir.verify('op');
UPDATE weir_state.op_v2 SET total = 0;
SELECT missing, extra FROM weir.verify('op');
SELECT serving_version FROM weir.rollback_upgrade('op');
SELECT missing, extra FROM weir.verify('op');

-- not what has nothing to be compared with
SELECT operator FROM weir.create_operator('young', 'SELECT k, count(*) AS n FROM t GROUP BY k', options => '{"backfill": false}');
SELECT weir.wait_for('young') IS NOT NULL;
SELECT attempt($$SELECT weir.verify('young')$$);
-- nor what was derived from it
SELECT strategy FROM weir.start_upgrade('young', 'SELECT k, count(*) AS n, 1 AS one FROM t GROUP BY k', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('young', 'observing');
SELECT weir.finalize_upgrade('young');
SELECT attempt($$SELECT weir.verify('young')$$);
-- what stays of it is never filled up by chance
SELECT attempt($$SELECT weir.start_upgrade('young', 'SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k', gates => '{"observe": "0 s"}')$$);
SELECT strategy, notes[1] FROM weir.start_upgrade('young', 'SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k', strategy => 'backfill', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('young', 'observing');
SELECT missing, extra FROM weir.verify('young');
SELECT serving_version FROM weir.rollback_upgrade('young');
SELECT strategy FROM weir.rebuild_operator('young');
SELECT weir.wait_for_upgrade('young', 'finalized');
SELECT missing, extra FROM weir.verify('young');

-- cancelled, or out of time: the copy goes
SELECT attempt($$SELECT weir.verify('op', '0')$$);
CALL await($$SELECT NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = 'weir_state'::regnamespace AND relname LIKE '%\_v-%')$$);
CALL await($$SELECT NOT EXISTS (SELECT FROM weir.readers WHERE kind = 'catch_up')$$);
CALL await($$SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()) = 1$$);
SELECT status, count(*) FROM weir.operators WHERE operator IN ('op'::regclass, 'single', 'hidden', 'young') GROUP BY status;

SELECT weir.drop_operator('op'), weir.drop_operator('single'), weir.drop_operator('hidden'), weir.drop_operator('young');
DROP SCHEMA verify CASCADE;
