-- Claim: an upgrade that cannot be right is refused before anything is changed,
-- with what stands against it and what to do (I8, I9); at most one upgrade of an
-- operator is under way.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
CREATE SCHEMA upgrade_errors;
SET search_path = upgrade_errors;
\pset format unaligned
\pset tuples_only on

-- Numbers of upgrades depend on what ran before.
CREATE FUNCTION attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text;
    hint text;
BEGIN
    EXECUTE statement;
    RETURN 'done';
EXCEPTION WHEN OTHERS OR query_canceled THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN regexp_replace(regexp_replace(concat_ws(E'\n', SQLSTATE || ': ' || SQLERRM, 'DETAIL: ' || nullif(detail, ''), 'HINT: ' || nullif(hint, '')),
        '[0-9A-F]+/[0-9A-F]+', 'LSN', 'g'), '([uU]pgrade|upgrade_id =) \d+', '\1 N', 'g');
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

CREATE TABLE sales (id int PRIMARY KEY, shop text, amount int, price numeric(10,2));
ALTER TABLE sales REPLICA IDENTITY FULL;
INSERT INTO sales SELECT i, 's' || i % 7, i, i * 1.25 FROM generate_series(1, 100) i;
CREATE TABLE bare (shop text, amount int);
SELECT operator FROM weir.create_operator('op', 'SELECT shop, count(*) AS n, sum(amount) AS total, max(price) AS best FROM sales GROUP BY shop');
SELECT attempt($$SELECT weir.rollback_upgrade('op')$$);
SELECT attempt($$SELECT weir.finalize_upgrade('op')$$);
SELECT attempt($$SELECT weir.advance_upgrade('op')$$);
SELECT attempt($$SELECT weir.wait_for_upgrade('op', 'observing')$$);
-- before it is built
BEGIN;
SELECT operator FROM weir.create_operator('unborn', 'SELECT count(*) AS n FROM sales');
SELECT attempt($$SELECT weir.start_upgrade('unborn', 'SELECT count(*) AS n, 1 AS one FROM sales')$$);
ROLLBACK;
SELECT weir.wait_for('op') IS NOT NULL;

-- arguments -----------------------------------------------------------------------
SELECT attempt($$SELECT weir.start_upgrade(NULL, 'SELECT 1')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', NULL)$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop FROM sales GROUP BY shop', strategy => NULL)$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop FROM sales GROUP BY shop', strategy => 'magic')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop FROM sales GROUP BY shop', strategy => 'convert')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop FROM sales GROUP BY shop', migration => 'SELECT * FROM old')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop FROM sales GROUP BY shop', steps => '{10, 5, 100}')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop FROM sales GROUP BY shop', steps => '{50}')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop FROM sales GROUP BY shop', steps => '{}')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop FROM sales GROUP BY shop', steps => '{0, 100}')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop FROM sales GROUP BY shop', steps => '{NULL, 100}')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop FROM sales GROUP BY shop', gates => '{"max_delay": "5 s"}')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop FROM sales GROUP BY shop', gates => '3')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop FROM sales GROUP BY shop', safe_window => '-1 s')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop FROM sales GROUP BY shop', options => '{"standby": "parked"}')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop FROM sales GROUP BY shop', options => '{"stand_by": "hot"}')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop FROM sales GROUP BY shop', options => '{"compare": "shop"}')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop FROM sales GROUP BY shop', options => '{"compare": [1]}')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop, count(*) AS n FROM sales GROUP BY shop', options => '{"compare": ["shop", "revenue"]}')$$);
SELECT attempt($$SELECT weir.start_upgrade('sales', 'SELECT count(*) FROM sales')$$);
SELECT attempt($$SELECT weir.start_upgrade('nothing', 'SELECT count(*) FROM sales')$$);
SELECT attempt($$SELECT weir.wait_for_upgrade('op', NULL)$$);
SELECT attempt($$SELECT weir.rollback_upgrade(NULL, 'reason')$$);

-- definitions that cannot be ---------------------------------------------------------
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop, count(* FROM sales GROUP BY shop')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop, count(*) AS n FROM bare GROUP BY shop')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop, random() AS n FROM sales GROUP BY shop')$$);
-- the same operator as its own source
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop, count(*) AS n FROM op GROUP BY shop')$$);
-- reuse of what is not kept
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop, count(*) AS n, min(amount) AS total FROM sales GROUP BY shop', strategy => 'reuse')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop, count(*) AS n, min(amount) AS lowest FROM sales GROUP BY shop', strategy => 'reuse')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT s.shop, sum(amount) AS total, max(s.amount * 2) FILTER (WHERE s.amount > 1) AS doubled FROM sales AS s GROUP BY s.shop', strategy => 'reuse')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop, count(*) AS n FROM sales WHERE amount > 5 GROUP BY shop', strategy => 'reuse')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop, amount, count(*) AS n FROM sales GROUP BY shop, amount', strategy => 'reuse')$$);
-- a column that would change its type, one that would go under a view, several at once
CREATE VIEW uses_best AS SELECT shop, best FROM op;
CREATE FUNCTION uses_total() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT max(total) FROM upgrade_errors.op; END;
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop, count(*) AS n, sum(amount) AS total, max(price)::int AS best FROM sales GROUP BY shop')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop, count(*) AS n, sum(amount) AS total FROM sales GROUP BY shop')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop, count(*)::int AS n FROM sales GROUP BY shop')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT upper(shop) COLLATE "C" AS shop, count(*) AS n, sum(amount) AS total, max(price) AS best FROM sales GROUP BY upper(shop) COLLATE "C"')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop, count(*) AS n, sum(amount) AS total, max(price)::numeric(12,2) AS best FROM sales GROUP BY shop')$$);
SELECT count(*) FROM weir.upgrades WHERE operator = 'op'::regclass;
SELECT relname FROM pg_class WHERE relnamespace = 'weir_state'::regnamespace AND relname LIKE 'op\_%' AND relkind IN ('r', 'v') ORDER BY relname COLLATE "C";

-- one at a time ------------------------------------------------------------------------
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop, count(*) AS n, sum(amount) AS total, max(price) AS best, sum(price) AS revenue FROM sales GROUP BY shop', auto_advance => false, gates => '{"observe": "0 s"}')$$);
SELECT weir.wait_for_upgrade('op', 'validating');
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop, count(*) AS n, sum(amount) AS total, max(price) AS best FROM sales GROUP BY shop', gates => '{"observe": "0 s"}')$$);
SELECT attempt($$SELECT weir.rebuild_operator('op')$$);
SELECT attempt($$SELECT weir.pause_operator('op')$$);
SELECT attempt($$SELECT weir.finalize_upgrade('op')$$);
SELECT attempt($$SELECT weir.wait_for_upgrade('op', 'shifting', timeout => '2 s')$$);
SELECT weir.advance_upgrade('op');
SELECT weir.wait_for_upgrade('op', 'observing');
SELECT attempt($$SELECT weir.advance_upgrade('op')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop, count(*) AS n, sum(amount) AS total, max(price) AS best FROM sales GROUP BY shop', gates => '{"observe": "0 s"}')$$);
-- a wait for a phase that was passed returns at once, for one that cannot come fails at once
SELECT weir.wait_for_upgrade('op', 'preparing', '0'), weir.wait_for_upgrade('op', 'validating', '0'), weir.wait_for_upgrade('op', 'observing', '0');
SELECT attempt($$SELECT weir.wait_for_upgrade('op', 'finalized', '10 ms')$$);
SELECT attempt($$SELECT weir.wait_for_upgrade('op', 'finalised')$$);
SELECT attempt($$SELECT weir.rollback_upgrade('op', 'wrong numbers')$$);
SELECT attempt($$SELECT weir.wait_for_upgrade('op', 'observing')$$);
SELECT attempt($$SELECT weir.wait_for_upgrade('op', 'preparing')$$);
SELECT weir.wait_for_upgrade('op', 'rolled_back');
SELECT attempt($$SELECT weir.rollback_upgrade('op')$$);
SELECT attempt($$SELECT weir.finalize_upgrade('op')$$);
SELECT attempt($$SELECT weir.advance_upgrade('op')$$);
BEGIN;
CREATE TABLE written ();
SELECT attempt($$SELECT weir.wait_for_upgrade('op', 'rolled_back')$$);
ROLLBACK;

-- a column that a view took up while the upgrade was under way: the candidate's shift needs the
-- old columns only, so the view keeps working with NULL
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT shop, count(*) AS n, sum(amount) AS total, max(price) AS best, sum(price) AS revenue FROM sales GROUP BY shop', gates => '{"observe": "0 s"}')$$);
SELECT weir.wait_for_upgrade('op', 'observing');
SELECT attempt('CREATE VIEW uses_revenue AS SELECT shop, revenue FROM op');
SELECT attempt($$SELECT weir.rollback_upgrade('op')$$);
SELECT count(*), count(revenue) FROM uses_revenue;
CALL await($$SELECT cardinality(view_versions) = 1 FROM weir_internal.serving JOIN weir_internal.operator USING (operator_id) WHERE view_oid = 'op'::regclass$$);
SELECT count(*), count(revenue) FROM uses_revenue;

SELECT attempt($$SELECT weir.drop_operator('op')$$);
SELECT weir.drop_operator('op', cascade => true);
DROP SCHEMA upgrade_errors CASCADE;
