-- Claim: an operator appears with all its rows at once, follows its source, and
-- leaves nothing behind when it is dropped or its creation is rolled back
-- (I7, I9, I12); whatever is wrong with a call is refused before anything is made.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
CREATE SCHEMA operator_lifecycle;
SET search_path = operator_lifecycle;
\pset format unaligned
\pset tuples_only on

-- What a statement raises: SQLSTATE, message, detail, hint.
CREATE FUNCTION attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text;
    hint text;
BEGIN
    EXECUTE statement;
    RETURN 'done';
EXCEPTION WHEN OTHERS OR query_canceled THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n', SQLSTATE || ': ' || SQLERRM, 'DETAIL: ' || nullif(detail, ''), 'HINT: ' || nullif(hint, ''));
END $$;
-- Oracle: the operator against its definition, computed now, both ways.
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
-- Everything of ours that bears the name: relations, catalog rows, slots that are one too many.
CREATE FUNCTION traces(pattern text) RETURNS text LANGUAGE sql AS $$
    SELECT format('%s relations, %s operators', (SELECT count(*) FROM pg_class
            WHERE relnamespace = 'weir_state'::regnamespace AND relname LIKE pattern AND relkind IN ('r', 'v')),
        (SELECT count(*) FROM weir_internal.operator WHERE NOT dropped AND view_name LIKE pattern))
$$;
CREATE PROCEDURE await_no_traces(pattern text) LANGUAGE plpgsql AS $$
DECLARE
    deadline timestamptz := clock_timestamp() + interval '30 s';
BEGIN
    WHILE operator_lifecycle.traces(pattern) <> '0 relations, 0 operators' LOOP
        IF clock_timestamp() > deadline THEN
            RAISE 'left behind: %', operator_lifecycle.traces(pattern);
        END IF;
        COMMIT;
    END LOOP;
END $$;
CREATE TABLE sales (id int PRIMARY KEY, shop text, amount int);
ALTER TABLE sales REPLICA IDENTITY FULL;
INSERT INTO sales SELECT i, 's' || i % 7, i FROM generate_series(1, 1000) i;

-- create: the answer, the rows, and what comes after -------------------------
SELECT * FROM weir.create_operator('by_shop', 'SELECT shop, count(*) AS n, sum(amount) AS total FROM sales GROUP BY shop');
SELECT compare('by_shop', 'SELECT shop, count(*), sum(amount) FROM sales GROUP BY shop');
SELECT operator, version, status, stream, owner = current_user AS mine, options, upgrade_phase, message, hint
FROM weir.operators WHERE operator = 'by_shop'::regclass;
SELECT version, status, serving, strategy, definition, query, state_table, append_only, rows_total, rows_written
FROM weir.versions WHERE operator = 'by_shop'::regclass;
SELECT event, to_version, actor = current_user AS mine, reason FROM weir.ledger WHERE operator_id = (SELECT operator_id FROM weir_internal.operator WHERE view_oid = 'by_shop'::regclass);
\pset tuples_only off
\pset format aligned
\d by_shop
\pset format unaligned
\pset tuples_only on
SELECT attname, col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid = 'by_shop'::regclass AND attnum > 0 ORDER BY attnum;
INSERT INTO sales SELECT i, 's' || i % 9, i FROM generate_series(1001, 1100) i;
DELETE FROM sales WHERE id % 3 = 0;
UPDATE sales SET amount = amount + 1, shop = 's0' WHERE id % 10 = 0;
SELECT compare('by_shop', 'SELECT shop, count(*), sum(amount) FROM sales GROUP BY shop');

-- an ordinary relation: joins, grants, a view over it
CREATE TABLE shops (shop text PRIMARY KEY, city text);
INSERT INTO shops SELECT 's' || i, 'city ' || i FROM generate_series(0, 8) i;
SELECT count(*), sum(n) = (SELECT count(*) FROM sales) AS all_rows FROM by_shop JOIN shops USING (shop);
CREATE VIEW by_city AS SELECT city, total FROM by_shop JOIN shops USING (shop);
SELECT sum(total) = (SELECT sum(amount) FROM sales) AS all_rows FROM by_city;
CREATE ROLE regress_weir_lifecycle;
GRANT USAGE ON SCHEMA operator_lifecycle TO regress_weir_lifecycle;
SET ROLE regress_weir_lifecycle;
SELECT attempt('SELECT * FROM operator_lifecycle.by_shop');
RESET ROLE;
GRANT SELECT ON by_shop TO regress_weir_lifecycle;
SET ROLE regress_weir_lifecycle;
SELECT attempt('SELECT * FROM operator_lifecycle.by_shop');
SELECT attempt('SELECT * FROM operator_lifecycle.sales');
SELECT attempt('SELECT * FROM weir_state.by_shop_v1');
RESET ROLE;

-- create and drop in a transaction that rolls back leaves no trace -----------
SELECT traces('undone%');
BEGIN;
SELECT operator, version FROM weir.create_operator('undone', 'SELECT shop, max(amount) FROM sales GROUP BY shop');
SELECT * FROM undone;
SELECT status FROM weir.operators WHERE operator = 'undone'::regclass;
SELECT traces('undone%');
ROLLBACK;
SELECT traces('undone%');
SELECT count(*) FROM weir.ledger WHERE operator = 'undone';
BEGIN;
SAVEPOINT a;
SELECT operator FROM weir.create_operator('undone', 'SELECT shop, max(amount) FROM sales GROUP BY shop');
ROLLBACK TO a;
SELECT operator FROM weir.create_operator('undone', 'SELECT shop, min(amount) AS lowest FROM sales GROUP BY shop');
COMMIT;
SELECT compare('undone', 'SELECT shop, min(amount) FROM sales GROUP BY shop');
BEGIN;
SELECT weir.drop_operator('undone');
SELECT attempt('SELECT * FROM undone');
ROLLBACK;
SELECT compare('undone', 'SELECT shop, min(amount) FROM sales GROUP BY shop');
BEGIN;
SELECT operator FROM weir.create_operator('flash', 'SELECT count(*) FROM sales');
SELECT weir.drop_operator('flash');
COMMIT;
SELECT count(*) FROM weir.operators WHERE operator::text = 'flash';
SELECT weir.drop_operator('undone');
CALL await_no_traces('undone%');
CALL await_no_traces('flash%');

-- a name is free again after the drop
SELECT version FROM weir.create_operator('undone', 'SELECT count(*) AS n FROM sales');
SELECT compare('undone', 'SELECT count(*) FROM sales');

-- drop ------------------------------------------------------------------------
\set VERBOSITY terse
SELECT attempt('SELECT weir.drop_operator(''by_shop'')');
SELECT status FROM weir.operators WHERE operator = 'by_shop'::regclass;
SELECT weir.drop_operator('by_shop', cascade => true);
SELECT attempt('SELECT * FROM by_city');
SELECT attempt('SELECT weir.drop_operator(''by_shop'')');
-- the view by itself
DROP VIEW undone;
SELECT count(*) FROM weir.operators WHERE operator::text LIKE '%undone%';
CALL await_no_traces('undone%');
CALL await_no_traces('by_shop%');
SELECT event, reason FROM weir.ledger WHERE operator = 'undone' ORDER BY ledger_id;
-- the source: cascades to the version's definition, not to what it holds
SELECT version FROM weir.create_operator('by_shop', 'SELECT shop, count(*) AS n FROM sales GROUP BY shop');
SELECT attempt('DROP TABLE sales');
SELECT attempt('ALTER TABLE sales DROP COLUMN shop');
SELECT compare('by_shop', 'SELECT shop, count(*) FROM sales GROUP BY shop');

-- names -----------------------------------------------------------------------
CREATE SCHEMA "operator lifecycle's ""schema""";
SELECT operator FROM weir.create_operator('"operator lifecycle''s ""schema"""."Odd ""Name"" it''s"',
    'SELECT shop AS "Shop, the ""first""", count(*) AS "select" FROM sales GROUP BY shop');
SELECT compare('"operator lifecycle''s ""schema"""."Odd ""Name"" it''s"', 'SELECT shop, count(*) FROM sales GROUP BY shop');
SELECT replace(notes[2], 'to wait for it: SELECT', 'SELECT 1 FROM') AS wait FROM weir.create_operator('"operator lifecycle''s ""schema""".été', 'SELECT shop, count(*) FROM sales GROUP BY shop') \gset
:wait
SELECT weir.drop_operator('"operator lifecycle''s ""schema""".été');
DROP SCHEMA "operator lifecycle's ""schema""" CASCADE;
CALL await_no_traces('Odd%');
-- state relations of names that are as long as can be, and equal up to there
SELECT attempt(format('SELECT weir.create_operator(%L, ''SELECT shop, max(amount), min(id) FROM sales GROUP BY shop'')', repeat('x', 62) || 'a'));
SELECT attempt(format('SELECT weir.create_operator(%L, ''SELECT shop, max(amount), min(id) FROM sales GROUP BY shop'')', repeat('x', 62) || 'b'));
SELECT weir.wait_for(NULL) IS NOT NULL;
SELECT compare(repeat('x', 62) || 'b', 'SELECT shop, max(amount), min(id) FROM sales GROUP BY shop');
SELECT weir.drop_operator(repeat('x', 62) || 'a');
SELECT weir.drop_operator(repeat('x', 62) || 'b');
CALL await_no_traces('xxx%');
SELECT attempt(format('SELECT weir.create_operator(%L, ''SELECT count(*) FROM sales'')', repeat('x', 64)));
SELECT attempt(format('SELECT weir.create_operator(%L, ''SELECT count(*) FROM sales'')', repeat('x', 64) || '.a'));
SELECT attempt($$SELECT weir.create_operator('shops', 'SELECT count(*) FROM sales')$$);
SELECT attempt($$SELECT weir.create_operator('by_shop', 'SELECT count(*) FROM sales')$$);
SELECT attempt($$SELECT weir.create_operator('', 'SELECT count(*) FROM sales')$$);
SELECT attempt($$SELECT weir.create_operator('a b', 'SELECT count(*) FROM sales')$$);
SELECT attempt($$SELECT weir.create_operator('a.b.c.d', 'SELECT count(*) FROM sales')$$);
SELECT attempt($$SELECT weir.create_operator('elsewhere.a.b', 'SELECT count(*) FROM sales')$$);
SELECT attempt($$SELECT weir.create_operator('no_such_schema.a', 'SELECT count(*) FROM sales')$$);
SELECT attempt($$SELECT weir.create_operator('weir.a', 'SELECT count(*) FROM sales')$$);
SELECT attempt($$SELECT weir.create_operator('weir_internal.a', 'SELECT count(*) FROM sales')$$);
SELECT attempt($$SELECT weir.create_operator('weir_state.a', 'SELECT count(*) FROM sales')$$);
SELECT attempt($$SELECT weir.create_operator('pg_catalog.a', 'SELECT count(*) FROM sales')$$);
CREATE TEMP TABLE makes_the_schema ();
SELECT regexp_replace(attempt($$SELECT weir.create_operator('pg_temp.a', 'SELECT count(*) FROM sales')$$), 'pg_temp_\d+', 'pg_temp_N');
SET search_path = '';
SELECT operator_lifecycle.attempt($$SELECT weir.create_operator('a', 'SELECT count(*) FROM operator_lifecycle.sales')$$);
SET search_path = operator_lifecycle;

-- arguments -------------------------------------------------------------------
SELECT attempt($$SELECT weir.create_operator(NULL, 'SELECT count(*) FROM sales')$$);
SELECT attempt($$SELECT weir.create_operator('a', NULL)$$);
SELECT attempt($$SELECT weir.create_operator('a', 'SELECT count(*) FROM sales', NULL)$$);
SELECT attempt($$SELECT weir.create_operator('a', 'SELECT count(*) FROM sales', options => NULL)$$);
SELECT attempt($$SELECT weir.create_operator('a', 'SELECT count(*) FROM sales', 'nowhere')$$);
SELECT attempt($$SELECT weir.create_operator('a', 'SELECT count(*) FROM sales', options => '[]')$$);
SELECT attempt($$SELECT weir.create_operator('a', 'SELECT count(*) FROM sales', options => '"append_only"')$$);
SELECT attempt($$SELECT weir.create_operator('a', 'SELECT count(*) FROM sales', options => '{"appendonly": true}')$$);
SELECT attempt($$SELECT weir.create_operator('a', 'SELECT count(*) FROM sales', options => '{"append_only": "yes"}')$$);
SELECT attempt($$SELECT weir.create_operator('a', 'SELECT count(*) FROM sales', options => '{"append_only": null}')$$);
SELECT attempt($$SELECT weir.create_operator('a', 'SELECT count(*) FROM sales', options => '{"on_error": "skip"}')$$);
SELECT attempt($$SELECT weir.create_operator('a', 'SELECT count(*) FROM sales', options => '{"on_error": "stop", "backfill": 1}')$$);
SELECT attempt($$SELECT weir.drop_operator(NULL)$$);
SELECT attempt($$SELECT weir.drop_operator('by_shop', NULL)$$);
SELECT attempt($$SELECT weir.drop_operator('shops')$$);
SELECT attempt($$SELECT weir.drop_operator('nothing')$$);
SELECT attempt($$SELECT weir.drop_operator(0)$$);
SELECT count(*) FROM weir.operators WHERE operator::text = 'a';

-- backfill false: from now on --------------------------------------------------
SELECT operator FROM weir.create_operator('from_now', 'SELECT shop, count(*) AS n FROM sales GROUP BY shop', options => '{"backfill": false}');
SELECT weir.wait_for('from_now') IS NOT NULL;
SELECT count(*) FROM from_now;
INSERT INTO sales VALUES (2001, 'new', 1), (2002, 'new', 2);
SELECT weir.wait_for('from_now') IS NOT NULL;
SELECT * FROM from_now;

-- a source that is dropped with CASCADE: the operator keeps what it has, others go on, and it can be dropped
CREATE TABLE fleeting (k int, v int);
ALTER TABLE fleeting REPLICA IDENTITY FULL;
INSERT INTO fleeting VALUES (1, 1), (1, 2);
SELECT operator FROM weir.create_operator('orphan', 'SELECT k, sum(v) FROM fleeting GROUP BY k');
SELECT weir.wait_for('orphan') IS NOT NULL;
DROP TABLE fleeting CASCADE;
INSERT INTO sales VALUES (2003, 'new', 3);
SELECT compare('from_now', 'SELECT * FROM (VALUES (''new'', 3)) v (shop, n)');
SELECT * FROM orphan;
SELECT weir.drop_operator('orphan');

-- not inside a read-only transaction
BEGIN READ ONLY;
SELECT weir.create_operator('a', 'SELECT count(*) FROM sales');
ROLLBACK;

SELECT weir.drop_operator('from_now');
SELECT weir.drop_operator('by_shop');
CALL await_no_traces('from_now%');
CALL await_no_traces('by_shop%');
DROP OWNED BY regress_weir_lifecycle;
DROP ROLE regress_weir_lifecycle;
DROP SCHEMA operator_lifecycle CASCADE;
