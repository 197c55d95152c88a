-- Claim: after any sequence of changes an operator holds exactly the rows that
-- its definition returns when it is computed anew, compared both ways as
-- multisets (I3, I7). Each operator here sees each of these histories.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
CREATE SCHEMA exactness;
SET search_path = exactness;
\pset format unaligned
\pset tuples_only on

-- All operators of this file against their definitions, computed now: those that differ.
CREATE TABLE definitions (operator regclass PRIMARY KEY, definition text);
CREATE FUNCTION keep(name text, definition text, options jsonb DEFAULT '{}') RETURNS void LANGUAGE sql AS $$
    INSERT INTO exactness.definitions SELECT operator, $2 FROM weir.create_operator($1, $2, options => $3)
$$;
CREATE FUNCTION compare() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    kept record;
    missing bigint;
    extra bigint;
BEGIN
    PERFORM weir.wait_for(NULL);
    FOR kept IN SELECT * FROM definitions ORDER BY operator::text LOOP
        EXECUTE format('SELECT (SELECT count(*) FROM (%2$s EXCEPT ALL SELECT * FROM %1$s) m), '
            '(SELECT count(*) FROM (SELECT * FROM %1$s EXCEPT ALL %2$s) e)', kept.operator, kept.definition)
            INTO missing, extra;
        IF missing <> 0 OR extra <> 0 THEN
            RETURN NEXT format('%s: %s missing, %s extra', kept.operator, missing, extra);
        END IF;
    END LOOP;
    RETURN NEXT format('%s operators compared', (SELECT count(*) FROM definitions));
END $$;

-- one table, many shapes of definition ----------------------------------------
CREATE TABLE t (id int PRIMARY KEY, k int, g text, v int, b boolean, note text);
ALTER TABLE t REPLICA IDENTITY FULL;
INSERT INTO t SELECT i, i % 5, chr(97 + i % 3), i % 17, i % 4 = 0, 'note ' || i FROM generate_series(1, 200) i;
SELECT keep('counts', 'SELECT k, count(*) AS n, count(g) AS named, sum(v) AS total FROM t GROUP BY k');
SELECT keep('averages', 'SELECT k, avg(v) AS mean, avg(v) FILTER (WHERE b) AS mean_b FROM t GROUP BY k');
SELECT keep('extremes', 'SELECT k, min(v) AS lowest, max(v) AS highest, min(g) AS first, max(note) AS last FROM t GROUP BY k');
SELECT keep('booleans', 'SELECT g, bool_and(b) AS everybody, bool_or(b) AS anybody, every(v > 0) AS positive FROM t GROUP BY g');
SELECT keep('filtered', 'SELECT k, count(*) FILTER (WHERE v > 8) AS high, sum(v) FILTER (WHERE g = ''a'') AS a FROM t WHERE v <> 3 AND g IS NOT NULL GROUP BY k');
SELECT keep('two_keys', 'SELECT g, k, count(*) AS n FROM t GROUP BY k, g');
SELECT keep('key_expression', 'SELECT upper(g) || k % 2 AS label, sum(v) AS total FROM t GROUP BY upper(g) || k % 2');
SELECT keep('no_keys', 'SELECT count(*) AS n, sum(v) AS total, min(v) AS lowest, avg(v) AS mean, bool_or(b) AS anybody FROM t');
SELECT keep('no_keys_filtered', 'SELECT count(*) AS n, max(v) AS highest FROM t WHERE k = 3');
SELECT keep('hidden_key', 'SELECT count(*) AS n, max(v) AS highest FROM t GROUP BY k');
SELECT keep('hidden_key_twice', 'SELECT g, sum(v) AS total FROM t GROUP BY g, k, b');
SELECT keep('keys_only', 'SELECT k, g FROM t GROUP BY g, k');
SELECT keep('constants', 'SELECT 7 AS seven, ''x''::text AS x, k, count(*) AS n, NULL::int AS nothing FROM t GROUP BY k');
SELECT keep('repeated', 'SELECT k, k AS again, sum(v) AS a, sum(v) AS b, sum(v) + sum(v) AS c FROM t GROUP BY k');
SELECT keep('expressions', 'SELECT k, sum(v)::numeric / count(*) AS ratio, coalesce(max(v), 0) - min(v) AS span, CASE WHEN bool_and(b) THEN ''all'' ELSE g END AS label, k + count(*) AS mixed FROM t GROUP BY k, g');
SELECT keep('argument', 'SELECT k, sum(v * 2 + id) AS total, count(nullif(v, 4)) AS n, max(length(note)) AS longest FROM t GROUP BY k');
SELECT compare();

INSERT INTO t VALUES (1001, 1, 'a', 5, true, 'x'), (1002, NULL, NULL, NULL, NULL, NULL), (1003, NULL, 'b', 7, false, NULL), (1004, 9, NULL, 1, true, '');
SELECT compare();
-- a key moves, a value moves, nothing moves
UPDATE t SET k = k + 1 WHERE id % 3 = 0;
UPDATE t SET v = v * 2 WHERE id % 4 = 0;
UPDATE t SET note = note;
UPDATE t SET g = NULL, k = NULL WHERE id % 29 = 0;
UPDATE t SET id = id + 5000 WHERE id % 31 = 0;
SELECT compare();
-- extremes retract, groups empty out and come back
DELETE FROM t WHERE v = (SELECT max(v) FROM t);
DELETE FROM t WHERE v = (SELECT min(v) FROM t);
DELETE FROM t WHERE k = 1;
SELECT compare();
INSERT INTO t VALUES (2001, 1, 'a', -5, NULL, 'back');
UPDATE t SET k = NULL WHERE id = 2001;
UPDATE t SET k = 1, v = NULL WHERE id = 2001;
SELECT compare();
-- one transaction: inserted and deleted, updated many times, savepoints
BEGIN;
INSERT INTO t VALUES (3001, 77, 'z', 1, true, 'never seen');
DELETE FROM t WHERE id = 3001;
INSERT INTO t VALUES (3002, 78, 'z', 1, true, 'seen');
UPDATE t SET v = 2 WHERE id = 3002;
UPDATE t SET v = 3, k = 79 WHERE id = 3002;
SAVEPOINT a;
DELETE FROM t;
SAVEPOINT b;
INSERT INTO t VALUES (3003, 80, 'y', 4, false, 'never seen');
ROLLBACK TO a;
INSERT INTO t VALUES (3004, 81, 'y', 4, false, 'seen');
RELEASE a;
SAVEPOINT c;
UPDATE t SET v = v + 1 WHERE k = 2;
RELEASE c;
COMMIT;
SELECT compare();
BEGIN;
DELETE FROM t;
ROLLBACK;
SELECT compare();
DO $$ BEGIN
    FOR i IN 1 .. 30 LOOP
        BEGIN
            INSERT INTO t VALUES (4000 + i, i % 7, 'e', i, i % 2 = 0, 'loop');
            IF i % 5 = 0 THEN RAISE division_by_zero; END IF;
        EXCEPTION WHEN division_by_zero THEN NULL;
        END;
    END LOOP;
END $$;
SELECT compare();
-- COPY, INSERT ... SELECT, ON CONFLICT, MERGE, writable CTE
COPY t FROM stdin;
6001	1	a	3	t	copied
6002	2	\N	\N	\N	\N
\.
INSERT INTO t VALUES (6001, 3, 'q', 1, true, 'x') ON CONFLICT (id) DO UPDATE SET k = excluded.k, g = excluded.g;
INSERT INTO t VALUES (6002, 3, 'q', 1, true, 'x') ON CONFLICT DO NOTHING;
MERGE INTO t USING (SELECT * FROM t WHERE id < 20) s ON t.id = s.id + 4
    WHEN MATCHED AND s.id % 2 = 0 THEN DELETE
    WHEN MATCHED THEN UPDATE SET v = s.v
    WHEN NOT MATCHED THEN INSERT VALUES (s.id + 70000, s.k, s.g, s.v, s.b, s.note);
WITH gone AS (DELETE FROM t WHERE k = 2 RETURNING *) INSERT INTO t SELECT id + 80000, k + 40, g, v, b, note FROM gone;
SELECT compare();
-- TRUNCATE, alone and between changes
TRUNCATE t;
SELECT compare();
BEGIN;
INSERT INTO t VALUES (1, 1, 'a', 1, true, 'gone');
TRUNCATE t;
INSERT INTO t VALUES (2, 2, 'b', 2, false, 'stays');
COMMIT;
SELECT compare();
INSERT INTO t SELECT i, i % 5, chr(97 + i % 3), i % 17, i % 4 = 0, 'note ' || i FROM generate_series(10, 90) i;
BEGIN;
TRUNCATE t;
ROLLBACK;
SELECT compare();
DELETE FROM t;
SELECT compare();
SELECT * FROM no_keys;

-- several tables in one transaction --------------------------------------------
CREATE TABLE account (id int PRIMARY KEY, branch int, balance bigint);
CREATE TABLE transfer (id int PRIMARY KEY, branch int, amount int);
ALTER TABLE account REPLICA IDENTITY FULL;
ALTER TABLE transfer REPLICA IDENTITY FULL;
INSERT INTO account SELECT i, i % 3, 100 FROM generate_series(1, 30) i;
SELECT keep('balances', 'SELECT branch, sum(balance) AS total FROM account GROUP BY branch');
SELECT keep('bank', 'SELECT sum(balance) AS total FROM account');
SELECT keep('transfers', 'SELECT branch, count(*) AS n, sum(amount) AS total FROM transfer GROUP BY branch');
DO $$ BEGIN
    FOR i IN 1 .. 20 LOOP
        UPDATE account SET balance = balance - i WHERE id = i;
        UPDATE account SET balance = balance + i WHERE id = i + 7;
        INSERT INTO transfer VALUES (i, i % 3, i);
    END LOOP;
END $$;
SELECT compare();
TRUNCATE account, transfer;
SELECT compare();

-- partitions: other column orders, new ones, rows that move ---------------------
CREATE TABLE p (k int, day date, v int, note text) PARTITION BY RANGE (day);
CREATE TABLE p_1 (note text, dropped int, v int, day date NOT NULL, k int);
ALTER TABLE p_1 DROP COLUMN dropped;
ALTER TABLE p ATTACH PARTITION p_1 FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') PARTITION BY LIST (k);
CREATE TABLE p_2_1 PARTITION OF p_2 FOR VALUES IN (1, 2);
CREATE TABLE p_2_rest PARTITION OF p_2 DEFAULT;
ALTER TABLE p_1 REPLICA IDENTITY FULL;
ALTER TABLE p_2_1 REPLICA IDENTITY FULL;
ALTER TABLE p_2_rest REPLICA IDENTITY FULL;
INSERT INTO p SELECT i % 4, date '2026-01-01' + i % 58, i, 'n' || i FROM generate_series(1, 100) i;
SELECT keep('by_k', 'SELECT k, count(*) AS n, sum(v) AS total, max(note) AS last FROM p GROUP BY k');
SELECT keep('by_month', 'SELECT date_trunc(''month'', day::timestamp) AS month, min(v) AS lowest, count(*) AS n FROM p GROUP BY 1');
SELECT keep('one_leaf', 'SELECT k, sum(v) AS total FROM p_2_1 GROUP BY k');
SELECT compare();
UPDATE p SET day = day + 28 WHERE day < '2026-01-15';
UPDATE p SET k = k + 1 WHERE v % 2 = 0;
DELETE FROM p WHERE v % 7 = 0;
INSERT INTO p_1 (k, day, v, note) VALUES (9, '2026-01-09', 900, 'into the leaf');
SELECT compare();
CREATE TABLE p_3 PARTITION OF p FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');
ALTER TABLE p_3 REPLICA IDENTITY FULL;
INSERT INTO p SELECT i % 4, date '2026-03-01' + i % 30, i, 'n' || i FROM generate_series(1, 50) i;
UPDATE p SET day = '2026-03-05' WHERE v = 900;
SELECT compare();
TRUNCATE p;
SELECT compare();

-- values that are stored out of line, unchanged and changed ----------------------
CREATE TABLE wide (id int PRIMARY KEY, k int, v int, doc text);
ALTER TABLE wide ALTER COLUMN doc SET STORAGE EXTERNAL;
ALTER TABLE wide REPLICA IDENTITY FULL;
INSERT INTO wide SELECT i, i % 3, i, repeat(md5(i::text), 300) FROM generate_series(1, 12) i;
SELECT keep('by_doc', 'SELECT md5(doc) AS doc, k, count(*) AS n FROM wide GROUP BY md5(doc), k');
SELECT keep('max_doc', 'SELECT k, max(doc) AS last, sum(length(doc)) AS size FROM wide GROUP BY k');
UPDATE wide SET v = v + 1;
SELECT compare();
UPDATE wide SET k = k + 1 WHERE id < 5;
UPDATE wide SET doc = doc || 'x' WHERE id % 2 = 0;
DELETE FROM wide WHERE doc = (SELECT max(doc) FROM wide);
SELECT compare();

-- the source changes: columns come, go and are renamed --------------------------
CREATE TABLE altered (unused int, k int, v int, w int);
ALTER TABLE altered REPLICA IDENTITY FULL;
INSERT INTO altered VALUES (1, 1, 10, 100), (1, 2, 20, 200);
SELECT operator FROM weir.create_operator('follows', 'SELECT k, sum(v) AS total FROM altered GROUP BY k');
SELECT weir.wait_for('follows') IS NOT NULL;
ALTER TABLE altered ADD COLUMN fresh int DEFAULT 5;
INSERT INTO altered VALUES (1, 1, 10, 100, 6);
ALTER TABLE altered DROP COLUMN unused;
INSERT INTO altered VALUES (2, 20, 100, 6);
ALTER TABLE altered RENAME COLUMN v TO amount;
ALTER TABLE altered RENAME TO renamed;
INSERT INTO renamed VALUES (3, 30, 100, 6);
UPDATE renamed SET amount = amount + 1, w = 0;
DELETE FROM renamed WHERE k = 2;
INSERT INTO definitions VALUES ('follows', 'SELECT k, sum(amount) AS total FROM renamed GROUP BY k');
SELECT compare();

-- insert-only sources need no replica identity, COPY and partitions included -----
CREATE TABLE log (at timestamp, level text, ms int);
SELECT keep('levels', 'SELECT level, count(*) AS n, max(ms) AS slowest, avg(ms) AS mean FROM log GROUP BY level', '{"append_only": true}');
INSERT INTO log SELECT timestamp '2026-01-01', 'l' || i % 3, i FROM generate_series(1, 100) i;
SELECT compare();

SELECT status, count(*) FROM weir.operators WHERE operator IN (SELECT operator FROM definitions) GROUP BY status;
SELECT count(weir.drop_operator(operator)) FROM definitions;
DROP SCHEMA exactness CASCADE;
