-- Claim: a migration makes the new version's state of the old one's, and what comes later is folded into
-- it exactly (I7); a migration that cannot be right is refused at the call with all that speaks against
-- it, one that gives a state that cannot be ends in a rollback with the row that shows it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
CREATE SCHEMA convert;
SET search_path = convert;
\pset format unaligned
\pset tuples_only on

CREATE FUNCTION attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text;
    hint text;
BEGIN
    EXECUTE statement;
    RETURN 'done';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n', SQLSTATE || ': ' || SQLERRM, 'DETAIL: ' || nullif(detail, ''), 'HINT: ' || nullif(hint, ''));
END $$;
CREATE FUNCTION compare(operator regclass, columns text, query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    PERFORM weir.wait_for(operator);
    EXECUTE format('SELECT format(''%%s rows, %%s missing, %%s extra'', (SELECT count(*) FROM %1$s), '
        '(SELECT count(*) FROM (%3$s EXCEPT ALL SELECT %2$s FROM %1$s) m), '
        '(SELECT count(*) FROM (SELECT %2$s FROM %1$s EXCEPT ALL %3$s) e))', operator, columns, query) INTO result;
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
CREATE PROCEDURE change() LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO convert.sales SELECT max(id) + 1, 'r' || max(id) % 3, 's' || max(id) % 6, 5, nullif(max(id) % 4, 0), true FROM convert.sales;
    UPDATE convert.sales SET amount = amount + 1, shop = 's1', region = 'r1', price = nullif(price, 3) WHERE id % 7 = 0;
    DELETE FROM convert.sales WHERE id = (SELECT min(id) FROM convert.sales);
END $$;
CREATE FUNCTION relations(name text) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(relname, ', ' ORDER BY relname COLLATE "C") FROM pg_class
    WHERE relnamespace = 'weir_state'::regnamespace AND relname LIKE name || '\_v%' AND relkind IN ('r', 'v')
$$;

CREATE TABLE sales (id int PRIMARY KEY, region text, shop varchar(8), amount int, price float8, paid boolean);
ALTER TABLE sales REPLICA IDENTITY FULL;
INSERT INTO sales SELECT i, 'r' || i % 3, 's' || i % 7, i, nullif(i % 5, 2) / 8.0, nullif(i % 6, 0) > 2 FROM generate_series(1, 300) i;
CREATE TABLE moved (LIKE sales);
ALTER TABLE moved REPLICA IDENTITY FULL;
SELECT operator FROM weir.create_operator('by_shop', 'SELECT region, shop, count(*) AS n, sum(amount) AS total, avg(price) AS mean, bool_or(paid) AS any_paid FROM sales GROUP BY region, shop');
SELECT weir.wait_for('by_shop') IS NOT NULL;
-- What old has: what the state table has, but for the shard.
SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'weir_state.by_shop_v1'::regclass AND attnum > 0;

-- arguments ------------------------------------------------------------------------------
\set by_region 'SELECT region, count(*) AS n, sum(amount) AS total, avg(price) AS mean, round(sum(amount) / count(*), 2) AS per_sale, bool_or(paid) AS any_paid FROM sales GROUP BY region'
CREATE FUNCTION try(migration text, definition text DEFAULT NULL, strategy text DEFAULT 'convert') RETURNS text LANGUAGE sql AS $$
    SELECT convert.attempt(format('SELECT weir.start_upgrade(''by_shop'', %L, migration => %L, strategy => %L)',
        coalesce(definition, 'SELECT region, count(*) AS n, sum(amount) AS total FROM sales GROUP BY region'), migration, strategy)) $$;
\set good 'SELECT region, sum(n)::bigint AS n, sum(total)::bigint AS total, sum(_weir_c2)::bigint AS _weir_c2 FROM old GROUP BY region'
SELECT try(NULL);
SELECT try(:'good', strategy => 'reuse');
SELECT try(:'good', strategy => 'backfill');
SELECT try(:'good', strategy => 'fresh');

-- what is no migration -----------------------------------------------------------------------
SELECT try('');
SELECT try('SELECT region FROM old; SELECT 1');
SELECT try('TRUNCATE old');
SELECT try('SELECT region INTO other FROM old');
SELECT try('SELECT region, sum(n FROM old');
SELECT try('SELECT region, nothing FROM old');
SELECT try('SELECT * FROM nowhere');
SELECT try('SELECT $1 AS region FROM old');
SELECT try('WITH old AS (SELECT 1) SELECT * FROM old');
SELECT try($$SELECT 'r' AS region, 1::bigint AS n, 1::bigint AS total, 1::bigint AS _weir_c2$$);
-- what it may not read, write and call
SELECT try($$SELECT region, sum(n)::bigint AS n, sum(total)::bigint AS total, sum(_weir_c2)::bigint AS _weir_c2 FROM old WHERE n > (SELECT count(*) FROM moved) GROUP BY region$$);
SELECT try($$WITH gone AS (DELETE FROM sales RETURNING *) SELECT region, sum(n)::bigint AS n, sum(total)::bigint AS total, sum(_weir_c2)::bigint AS _weir_c2 FROM old GROUP BY region$$);
SELECT try($$SELECT o.region, o.n, o.total, o._weir_c2 FROM old o, LATERAL (SELECT FROM pg_authid a JOIN weir_internal.operator p ON a.oid = p.operator_id) x$$);
SELECT try($$SELECT region || random() AS region, sum(n)::bigint AS n, sum(total)::bigint AS total, sum(_weir_c2)::bigint AS _weir_c2 FROM old GROUP BY 1$$);
SELECT try($$SELECT current_date::text AS region, sum(n)::bigint AS n, sum(total)::bigint AS total, sum(_weir_c2)::bigint AS _weir_c2 FROM old$$);
-- columns: all that is wrong at once
SELECT try('SELECT region, sum(n) AS n, sum(total)::bigint AS total, true AS extra FROM old GROUP BY region');
SELECT try('SELECT region, region, n, n AS total FROM old');
SELECT try('SELECT * FROM old', :'by_region');
SELECT try('SELECT shop, n FROM old', 'SELECT left(shop, 1)::varchar(3) AS shop, count(*) AS n FROM sales GROUP BY 1');
SELECT try('SELECT left(shop, 1) AS shop, n FROM old', 'SELECT left(shop, 1)::varchar(3) AS shop, count(*) AS n FROM sales GROUP BY 1');
SELECT try('SELECT n FROM old', 'SELECT count(*) AS n, max(amount) AS hi FROM sales');
-- the definition's own objections come first
SELECT try(:'good', 'SELECT region, random() AS n FROM sales GROUP BY region');
SELECT count(*) FROM weir.upgrades WHERE operator = 'by_shop'::regclass;
SELECT relations('by_shop');

-- rows that cannot be: the upgrade is rolled back --------------------------------------------------
CREATE FUNCTION why(operator regclass) RETURNS text LANGUAGE sql AS $$
    SELECT format('%s, %s: %s. DETAIL: %s', u.phase, v.sqlstate, u.reason, v.detail) FROM weir.upgrades u JOIN weir.versions v ON v.operator = u.operator AND v.version = u.to_version
    WHERE u.operator = why.operator ORDER BY u.upgrade_id DESC LIMIT 1 $$;
CREATE PROCEDURE start(migration text, definition text DEFAULT 'SELECT region, count(*) AS n, sum(amount) AS total FROM sales GROUP BY region') LANGUAGE plpgsql AS $$ BEGIN
    PERFORM weir.start_upgrade('by_shop', definition, migration => migration, gates => '{"observe": "0 s"}');
END $$;
CALL start('SELECT region, n, total, _weir_c2 FROM old');
SELECT weir.wait_for_upgrade('by_shop', 'rolled_back') \g /dev/null
SELECT why('by_shop');
CALL start('SELECT region, -sum(n)::bigint AS n, sum(total)::bigint AS total, sum(_weir_c2)::bigint AS _weir_c2 FROM old GROUP BY region');
SELECT weir.wait_for_upgrade('by_shop', 'rolled_back') \g /dev/null
SELECT why('by_shop');
CALL start('SELECT region, 0::bigint AS n, NULL::bigint AS total, 0::bigint AS _weir_c2 FROM old GROUP BY region');
SELECT weir.wait_for_upgrade('by_shop', 'rolled_back') \g /dev/null
SELECT why('by_shop');
CALL start('SELECT region, sum(n)::bigint AS n, sum(total)::bigint AS total, NULL::bigint AS _weir_c2 FROM old GROUP BY region');
SELECT weir.wait_for_upgrade('by_shop', 'rolled_back') \g /dev/null
SELECT why('by_shop');
CALL start('SELECT region, sum(n)::bigint AS n, sum(total)::bigint AS total, sum(total)::bigint AS _weir_c2 FROM old GROUP BY region');
SELECT weir.wait_for_upgrade('by_shop', 'rolled_back') \g /dev/null
SELECT why('by_shop');
CALL start('SELECT region, sum(n)::bigint AS n, sum(total)::bigint AS total, 0::bigint AS _weir_c2 FROM old GROUP BY region');
SELECT weir.wait_for_upgrade('by_shop', 'rolled_back') \g /dev/null
SELECT why('by_shop');
CALL start('SELECT region, sum(n)::bigint AS n, NULL::bigint AS total, sum(n)::bigint AS _weir_c2 FROM old GROUP BY region');
SELECT weir.wait_for_upgrade('by_shop', 'rolled_back') \g /dev/null
SELECT why('by_shop');
CALL start($$SELECT sum(n)::bigint AS n, 'NaN'::numeric AS _weir_s1, sum(n)::bigint AS _weir_c2 FROM old$$, 'SELECT count(*) AS n, avg(price) AS mean FROM sales');
SELECT weir.wait_for_upgrade('by_shop', 'rolled_back') \g /dev/null
SELECT why('by_shop');
CALL start($$SELECT sum(n)::bigint AS n, 5.5 AS _weir_s1, 3::bigint AS _weir_c2, 2::bigint AS _weir_s1_nan, 2::bigint AS _weir_s1_pinf FROM old$$, 'SELECT count(*) AS n, avg(price) AS mean FROM sales');
SELECT weir.wait_for_upgrade('by_shop', 'rolled_back') \g /dev/null
SELECT why('by_shop');
CALL start('SELECT n FROM old', 'SELECT count(*) AS n FROM sales');
SELECT weir.wait_for_upgrade('by_shop', 'rolled_back') \g /dev/null
SELECT why('by_shop');
CALL start('SELECT region, 1 / (sum(n) - sum(n))::bigint AS n, sum(total)::bigint AS total, sum(_weir_c2)::bigint AS _weir_c2 FROM old GROUP BY region');
SELECT weir.wait_for_upgrade('by_shop', 'rolled_back') \g /dev/null
SELECT why('by_shop');
SELECT compare('by_shop', 'region, shop, n, total, any_paid', 'SELECT region, shop, count(*), sum(amount), bool_or(paid) FROM sales GROUP BY region, shop');
CALL await($$SELECT convert.relations('by_shop') = 'by_shop_v1, by_shop_v1_definition'$$);

-- another key, by sums; floats from the exact sum beside the average ----------------------------------
SELECT from_version, to_version, strategy, notes FROM weir.start_upgrade('by_shop', :'by_region', $$
    SELECT region, sum(n)::bigint AS n, sum(total)::bigint AS total, sum(_weir_c2)::bigint AS _weir_c2, sum(_weir_s3) AS _weir_s3, sum(_weir_c4)::bigint AS _weir_c4,
        sum(_weir_s3_nan)::bigint AS _weir_s3_nan, sum(_weir_c5)::bigint AS _weir_c5, sum(_weir_c6)::bigint AS _weir_c6 -- more could be said
    FROM old GROUP BY region$$, auto_advance => false, gates => '{"observe": "0 s"}');
CALL change();
SELECT weir.wait_for_upgrade('by_shop', 'validating');
SELECT relations('by_shop');
SELECT has_table_privilege('public', 'weir_state.by_shop_v13_migration', 'SELECT');
CALL change();
SELECT weir.advance_upgrade('by_shop');
SELECT weir.wait_for_upgrade('by_shop', 'observing');
SELECT phase, strategy, rows_total, rows_written, built_percent, compare_columns FROM weir.upgrades WHERE operator = 'by_shop'::regclass ORDER BY upgrade_id DESC LIMIT 1;
\set region_columns 'region, n, total, mean, per_sale, any_paid'
SELECT compare('by_shop', :'region_columns', :'by_region');
CALL change();
SELECT compare('by_shop', :'region_columns', :'by_region');
SELECT serving_version FROM weir.rollback_upgrade('by_shop');
SELECT compare('by_shop', 'region, shop, n, total, any_paid', 'SELECT region, shop, count(*), sum(amount), bool_or(paid) FROM sales GROUP BY region, shop');
SELECT weir.start_upgrade('by_shop', :'by_region', $$
    SELECT region, sum(n)::bigint AS n, sum(total)::bigint AS total, sum(_weir_c2)::bigint AS _weir_c2, sum(_weir_s3) AS _weir_s3, sum(_weir_c4)::bigint AS _weir_c4,
        sum(_weir_c5)::bigint AS _weir_c5, sum(_weir_c6)::bigint AS _weir_c6 FROM old GROUP BY region$$, gates => '{"observe": "0 s"}') \g /dev/null
SELECT weir.wait_for_upgrade('by_shop', 'observing');
SELECT weir.finalize_upgrade('by_shop');
-- the migration reads the old state: it goes first
CALL await($$SELECT convert.relations('by_shop') = 'by_shop_v14, by_shop_v14_definition'$$);
CALL change();
SELECT compare('by_shop', :'region_columns', :'by_region');
SELECT missing, extra FROM weir.verify('by_shop');
SELECT version, strategy, btrim(left(migration, 30)), migration IS NULL FROM weir.versions WHERE operator = 'by_shop'::regclass AND version IN (1, 14) ORDER BY version;
SELECT l.detail ->> 'strategy', btrim(left(l.detail ->> 'migration', 30)) FROM weir.ledger l JOIN weir.upgrades u USING (upgrade_id) WHERE u.operator = 'by_shop'::regclass AND l.to_phase = 'preparing' ORDER BY ledger_id DESC LIMIT 1;
SELECT aspect, verdict, reason FROM weir.compatibility WHERE operator = 'by_shop'::regclass AND to_version = 14 AND verdict <> 'identical' AND aspect <> 'rows and bytes to build' AND aspect <> 'rollback';

-- the same key: what means the same is compared -----------------------------------------------------
SELECT strategy, notes FROM weir.start_upgrade('by_shop', 'SELECT region, count(*) AS n, sum(amount) AS total, count(price) AS priced FROM sales GROUP BY region',
    'SELECT region, n, total, _weir_c2, _weir_c4 AS priced FROM old', gates => '{"observe": "0 s"}');
CALL change();
SELECT weir.wait_for_upgrade('by_shop', 'observing');
SELECT compare('by_shop', 'region, n, total, priced', 'SELECT region, count(*), sum(amount), count(price) FROM sales GROUP BY region');
SELECT weir.finalize_upgrade('by_shop');
-- one that does not give what it should drifts, and is found before anybody sees it
SELECT weir.start_upgrade('by_shop', 'SELECT region, count(*) AS n, sum(amount) AS total FROM sales GROUP BY region', 'SELECT region, n, total + 1 AS total, _weir_c2 FROM old', gates => '{"observe": "0 s"}') \g /dev/null
SELECT weir.wait_for_upgrade('by_shop', 'rolled_back');
SELECT phase, reason, compare_columns FROM weir.upgrades WHERE operator = 'by_shop'::regclass ORDER BY upgrade_id DESC LIMIT 1;

-- no key, another filter, another table: its author's word ---------------------------------------------
SELECT strategy FROM weir.start_upgrade('by_shop', 'SELECT count(*) AS n, sum(total.amount) AS total FROM moved AS total', 'SELECT coalesce(sum(n), 0)::bigint AS n, sum(total)::bigint AS total, coalesce(sum(_weir_c2), 0)::bigint AS _weir_c2 FROM old', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('by_shop', 'observing');
INSERT INTO moved SELECT id, region, shop, amount FROM sales WHERE id > 290;
DELETE FROM moved WHERE id = 295;
SELECT compare('by_shop', 'n, total', 'SELECT (SELECT count(*) FROM sales) + (SELECT count(*) FROM moved), (SELECT sum(amount) FROM sales) + (SELECT sum(amount) FROM moved)');
SELECT weir.finalize_upgrade('by_shop');

-- numeric of any scale: how many values have how many decimal places is kept, too
CREATE TABLE weights (k int, g int, w numeric);
ALTER TABLE weights REPLICA IDENTITY FULL;
INSERT INTO weights SELECT i % 4, i % 2, i * ('1e-' || i % 7)::numeric FROM generate_series(1, 50) i;
SELECT operator FROM weir.create_operator('weighed', 'SELECT k, g, count(*) AS n, avg(w) AS mean FROM weights GROUP BY k, g');
SELECT weir.wait_for('weighed') IS NOT NULL;
\set by_g 'SELECT g, count(*) AS n, sum(w) AS total, avg(w) AS mean FROM weights GROUP BY g'
SELECT attempt(format('SELECT weir.start_upgrade(''weighed'', %L, %L)', :'by_g', 'SELECT g, sum(n)::bigint AS n, sum(_weir_s1) AS total, sum(_weir_c2)::bigint AS _weir_c2 FROM old GROUP BY g'));
SELECT weir.start_upgrade('weighed', :'by_g', 'SELECT g, sum(n)::bigint AS n, sum(_weir_s1) AS total, sum(n) AS _weir_s1_scales, sum(_weir_c2)::bigint AS _weir_c2 FROM old GROUP BY g', gates => '{"observe": "0 s"}') \g /dev/null
SELECT weir.wait_for_upgrade('weighed', 'rolled_back');
SELECT why('weighed');
SELECT weir.start_upgrade('weighed', :'by_g', 'SELECT g, sum(n)::bigint AS n, sum(_weir_s1) AS total, max(_weir_s1_scales) AS _weir_s1_scales, sum(_weir_c2)::bigint AS _weir_c2 FROM old GROUP BY g', gates => '{"observe": "0 s"}') \g /dev/null
SELECT weir.wait_for_upgrade('weighed', 'rolled_back');
SELECT why('weighed');
SELECT strategy FROM weir.start_upgrade('weighed', :'by_g', 'SELECT g, sum(n)::bigint AS n, sum(_weir_s1) AS total, sum(_weir_s1_scales) AS _weir_s1_scales, sum(_weir_c2)::bigint AS _weir_c2 FROM old GROUP BY g', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('weighed', 'observing');
SELECT compare('weighed', 'g, n, total::text, mean::text', 'SELECT g, count(*), sum(w)::text, avg(w)::text FROM weights GROUP BY g');
DELETE FROM weights WHERE scale(w) > 3;
SELECT compare('weighed', 'g, n, total::text, mean::text', 'SELECT g, count(*), sum(w)::text, avg(w)::text FROM weights GROUP BY g');
-- one that does not run has no position from which to go on
SELECT weir.finalize_upgrade('weighed');
SELECT weir.pause_operator('weighed');
SELECT attempt(format('SELECT weir.start_upgrade(''weighed'', %L, %L, options => ''{"repair": true}'')', 'SELECT count(*) AS n FROM weights', 'SELECT sum(n)::bigint AS n FROM old'));
SELECT weir.drop_operator('weighed');

-- rights, and functions ----------------------------------------------------------------------------------
CREATE ROLE regress_weir_owner;
CREATE ROLE regress_weir_member IN ROLE regress_weir_owner;
GRANT USAGE, CREATE ON SCHEMA convert TO regress_weir_owner;
GRANT SELECT ON sales TO regress_weir_owner;
CREATE FUNCTION district(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN 'd' || right($1, 1)::int / 2 || CASE WHEN current_user = 'regress_weir_owner' THEN '' ELSE current_user END; END $$;
REVOKE EXECUTE ON FUNCTION district(text) FROM PUBLIC;
SET ROLE regress_weir_member;
SELECT operator FROM weir.create_operator('owned', 'SELECT shop, count(*) AS n FROM sales GROUP BY shop') \g /dev/null
RESET ROLE;
ALTER VIEW owned OWNER TO regress_weir_owner;
SELECT weir.wait_for('owned') IS NOT NULL;
CALL await($$SELECT has_table_privilege('regress_weir_owner', 'weir_state.owned_v1', 'SELECT')$$);
SET ROLE regress_weir_member;
SELECT attempt(format('SELECT weir.start_upgrade(''owned'', %L, %L)', 'SELECT count(*) AS n FROM sales', 'SELECT sum(n)::bigint AS n FROM old HAVING convert.district(min(shop)) > '''''));
RESET ROLE;
GRANT EXECUTE ON FUNCTION district(text) TO regress_weir_owner;
SET ROLE regress_weir_member;
SELECT attempt(format('SELECT weir.start_upgrade(''owned'', %L, %L)', 'SELECT district(shop) AS district, count(*) AS n FROM sales GROUP BY 1', 'SELECT convert.district(shop) AS district, sum(n)::bigint AS n FROM old GROUP BY 1'));
RESET ROLE;
SELECT weir.wait_for_upgrade('owned', 'observing');
SELECT compare('owned', 'district, n', $$SELECT 'd' || right(shop, 1)::int / 2, count(*) FROM sales GROUP BY 1$$);
SELECT weir.drop_operator('owned');
CALL await($$SELECT convert.relations('owned') IS NULL$$);

SELECT weir.drop_operator('by_shop');
CALL await($$SELECT coalesce(convert.relations('by_shop'), convert.relations('weighed')) IS NULL$$);
DROP SCHEMA convert CASCADE;
DROP ROLE regress_weir_member, regress_weir_owner;
