-- Claim: a paused operator keeps its rows and position while others go on, and resumes
-- from where it was without losing or repeating a change (I3, I7); so does one that an
-- error stopped, once its cause is gone.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
CREATE SCHEMA pause_resume;
SET search_path = pause_resume;
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
CREATE FUNCTION compare(operator regclass, query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    PERFORM weir.wait_for(operator);
    EXECUTE format('SELECT format(''%%s rows, %%s missing, %%s extra'', (SELECT count(*) FROM %1$s), '
        '(SELECT count(*) FROM (%2$s EXCEPT ALL SELECT * FROM %1$s) m), '
        '(SELECT count(*) FROM (SELECT * FROM %1$s EXCEPT ALL %2$s) e))', operator, query) INTO result;
    RETURN result;
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

CREATE TABLE t (id int PRIMARY KEY, k int, v int);
ALTER TABLE t REPLICA IDENTITY FULL;
INSERT INTO t SELECT i, i % 5, i FROM generate_series(1, 100) i;
SELECT operator FROM weir.create_operator('op', 'SELECT k, count(*) AS n, sum(v) AS total, max(v) AS highest FROM t GROUP BY k');
SELECT operator FROM weir.create_operator('other', 'SELECT count(*) AS n FROM t');
SELECT weir.wait_for(NULL) IS NOT NULL;
CREATE TABLE at_pause AS SELECT * FROM op;

-- paused: nothing moves but the others
BEGIN;
SELECT weir.pause_operator('op');
SELECT status FROM weir.operators WHERE operator = 'op'::regclass;
ROLLBACK;
SELECT status FROM weir.operators WHERE operator = 'op'::regclass;
SELECT weir.pause_operator('op');
SELECT weir.pause_operator('op');
INSERT INTO t SELECT i, i % 6, i FROM generate_series(101, 200) i;
DELETE FROM t WHERE id % 9 = 0;
SELECT compare('other', 'SELECT count(*) FROM t');
SELECT status, message, hint FROM weir.operators WHERE operator = 'op'::regclass;
SELECT status, stop_cause, sqlstate FROM weir.versions WHERE operator = 'op'::regclass;
SELECT count(*) FROM (SELECT * FROM op EXCEPT ALL SELECT * FROM at_pause) x;
SELECT attempt($$SELECT weir.wait_for('op')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT k, count(*) AS n, sum(v) AS total, max(v) AS highest, min(v) AS lowest FROM t GROUP BY k', gates => '{"observe": "0 s"}')$$);
-- its place: a slot of its own, before the change
CALL await($$SELECT count(*) = 1 FROM weir.readers r JOIN pg_replication_slots s USING (slot_name) WHERE kind = 'stopped' AND versions = '{"op v1"}' AND s.confirmed_flush_lsn <= r.processed_lsn$$);
INSERT INTO t SELECT i, i % 7, i FROM generate_series(201, 300) i;
UPDATE t SET v = v + 1 WHERE id % 4 = 0;
SELECT compare('other', 'SELECT count(*) FROM t');
SELECT count(*) FROM (SELECT * FROM op EXCEPT ALL SELECT * FROM at_pause) x;
BEGIN;
SELECT weir.resume_operator('op');
ROLLBACK;
SELECT status FROM weir.operators WHERE operator = 'op'::regclass;
SELECT weir.resume_operator('op');
SELECT compare('op', 'SELECT k, count(*), sum(v), max(v) FROM t GROUP BY k');
SELECT status, message, hint FROM weir.operators WHERE operator = 'op'::regclass;
CALL await($$SELECT count(*) = 0 FROM weir.readers WHERE kind <> 'main'$$);
-- again, and resumed before anything came in
SELECT weir.pause_operator('op');
SELECT weir.resume_operator('op');
SELECT weir.resume_operator('op');
SELECT compare('op', 'SELECT k, count(*), sum(v), max(v) FROM t GROUP BY k');
INSERT INTO t VALUES (400, 1, 1);
SELECT compare('op', 'SELECT k, count(*), sum(v), max(v) FROM t GROUP BY k');
-- nothing comes in at all: it stops all the same, where the stream was read to
SELECT weir.pause_operator('op');
CALL await($$SELECT status = 'stopped' AND stop_cause = 'pause' FROM weir.versions WHERE operator = 'op'::regclass$$);
CALL await($$SELECT count(*) = 1 FROM weir.readers r JOIN pg_replication_slots s USING (slot_name) WHERE kind = 'stopped' AND versions = '{"op v1"}' AND s.confirmed_flush_lsn <= r.processed_lsn$$);
SELECT status, message, hint FROM weir.operators WHERE operator = 'op'::regclass;
INSERT INTO t VALUES (401, 1, 1);
SELECT compare('other', 'SELECT count(*) FROM t');
SELECT weir.resume_operator('op');
SELECT compare('op', 'SELECT k, count(*), sum(v), max(v) FROM t GROUP BY k');
-- paused, resumed and paused while changes come in
DO $$ BEGIN
    FOR i IN 1 .. 5 LOOP
        PERFORM weir.pause_operator('pause_resume.op');
        INSERT INTO pause_resume.t VALUES (500 + i, i, i);
        COMMIT;
        UPDATE pause_resume.t SET v = v * 2 WHERE id = 500 + i;
        PERFORM weir.resume_operator('pause_resume.op');
        COMMIT;
        DELETE FROM pause_resume.t WHERE id = i;
        COMMIT;
    END LOOP;
END $$;
SELECT compare('op', 'SELECT k, count(*), sum(v), max(v) FROM t GROUP BY k');
SELECT event, count(*) FROM weir.ledger WHERE operator_id = (SELECT operator_id FROM weir_internal.operator WHERE view_oid = 'op'::regclass) AND event IN ('create', 'resume') GROUP BY event ORDER BY event;

-- several at once, and all of a stream
SELECT weir.pause_operator('op'), weir.pause_operator('other');
INSERT INTO t VALUES (600, 1, 1);
INSERT INTO t VALUES (601, 8, 1);
SELECT count(*) FROM weir.operators WHERE status = 'paused';
SELECT weir.resume_operator('op'), weir.resume_operator('other');
SELECT compare('op', 'SELECT k, count(*), sum(v), max(v) FROM t GROUP BY k');
SELECT compare('other', 'SELECT count(*) FROM t');

-- a pause while the source is truncated, and one that ends in a rebuild
SELECT weir.pause_operator('op');
TRUNCATE t;
INSERT INTO t VALUES (1, 1, 1);
SELECT compare('other', 'SELECT count(*) FROM t');
SELECT weir.resume_operator('op');
SELECT compare('op', 'SELECT k, count(*), sum(v), max(v) FROM t GROUP BY k');
SELECT weir.pause_operator('op');
INSERT INTO t VALUES (2, 2, 2);
SELECT compare('other', 'SELECT count(*) FROM t');
SELECT strategy FROM weir.rebuild_operator('op');
SELECT weir.wait_for_upgrade('op', 'finalized');
SELECT compare('op', 'SELECT k, count(*), sum(v), max(v) FROM t GROUP BY k');
SELECT version, status FROM weir.operators WHERE operator = 'op'::regclass;
-- dropped while it is paused
SELECT weir.pause_operator('op');
INSERT INTO t VALUES (3, 3, 3);
SELECT compare('other', 'SELECT count(*) FROM t');
SELECT weir.drop_operator('op');
CALL await($$SELECT count(*) = 0 FROM weir.readers WHERE kind <> 'main'$$);
CALL await($$SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()) = 1$$);

-- stopped by a function's error, which goes away by itself: resume is enough
CREATE TABLE switch (broken boolean);
CREATE FUNCTION checked(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
    IF (SELECT broken FROM pause_resume.switch) THEN RAISE 'value % is refused', v USING ERRCODE = 'data_exception', HINT = 'Turn the switch.'; END IF;
    RETURN v;
END $$;
INSERT INTO switch VALUES (false);
SELECT operator FROM weir.create_operator('op', 'SELECT k, sum(checked(v)) AS total FROM t GROUP BY k');
SELECT weir.wait_for('op') IS NOT NULL;
UPDATE switch SET broken = true;
INSERT INTO t VALUES (4, 4, 4);
SELECT compare('other', 'SELECT count(*) FROM t');
SELECT status, message, hint FROM weir.operators WHERE operator = 'op'::regclass;
SELECT attempt($$SELECT weir.wait_for('op')$$);
DELETE FROM t WHERE id = 1;
UPDATE switch SET broken = false;
SELECT weir.resume_operator('op');
SELECT compare('op', 'SELECT k, sum(v) FROM t GROUP BY k');
-- a function whose body changes: never folded in silently
CREATE OR REPLACE FUNCTION checked(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN v + 1000; END $$;
SELECT weir.pause_operator('op');
INSERT INTO t VALUES (5, 5, 5);
SELECT compare('other', 'SELECT count(*) FROM t');
SELECT weir.resume_operator('op');
CALL await($$SELECT status = 'stale' FROM weir.operators WHERE operator = 'op'::regclass$$);
SELECT message, hint FROM weir.operators WHERE operator = 'op'::regclass;
SELECT max(total) < 1000 AS old FROM op;
SELECT strategy FROM weir.rebuild_operator('op');
SELECT weir.wait_for_upgrade('op', 'finalized');
SELECT compare('op', 'SELECT k, sum(v + 1000) FROM t GROUP BY k');

SELECT attempt($$SELECT weir.pause_operator(NULL)$$);
SELECT attempt($$SELECT weir.pause_operator('t')$$);
SELECT attempt($$SELECT weir.resume_operator(NULL)$$);
SELECT attempt($$SELECT weir.resume_operator('nothing')$$);
SELECT weir.drop_operator('op'), weir.drop_operator('other');
DROP SCHEMA pause_resume CASCADE;
