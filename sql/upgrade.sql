-- Claim: an upgrade by reuse, backfill or fresh state replaces what serves, in
-- lockstep with it; rollback at any phase serves the old rows with everything that came
-- in since; drift is caught before anybody sees it (I1, I5, I6, I7, I8, I10).
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
CREATE SCHEMA upgrade;
SET search_path = upgrade;
\pset format unaligned
\pset tuples_only on

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
CREATE PROCEDURE change() LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO upgrade.sales SELECT max(id) + 1, 's' || max(id) % 6, 5, 1.5 FROM upgrade.sales;
    UPDATE upgrade.sales SET amount = amount + 1, shop = 's1' WHERE id % 7 = 0;
    DELETE FROM upgrade.sales WHERE id = (SELECT min(id) FROM upgrade.sales);
END $$;
-- Only what serves is left: one state table and its definition.
CREATE FUNCTION relations(name text) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(relname, ', ' ORDER BY relname COLLATE "C") FROM pg_class
    WHERE relnamespace = 'weir_state'::regnamespace AND relname LIKE name || '\_v%' AND relkind IN ('r', 'v')
$$;

CREATE TABLE sales (id int PRIMARY KEY, shop text, amount int, price numeric(10,2));
ALTER TABLE sales REPLICA IDENTITY FULL;
INSERT INTO sales SELECT i, 's' || i % 7, i, i * 1.25 FROM generate_series(1, 500) i;
SELECT operator FROM weir.create_operator('by_shop', 'SELECT shop, count(*) AS n, sum(amount) AS total, max(amount) AS highest FROM sales GROUP BY shop');
SELECT weir.wait_for('by_shop') IS NOT NULL;
CREATE VIEW over AS SELECT shop, total FROM by_shop;

-- reuse: all that the new version needs is kept by the old one -----------------------
SELECT upgrade_id IS NOT NULL, from_version, to_version, strategy, notes FROM weir.start_upgrade('by_shop', 'SELECT shop, count(*) AS n, sum(amount) AS total, max(amount) AS highest, sum(amount) / count(*) AS mean FROM sales GROUP BY shop', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('by_shop', 'observing');
SELECT compare('by_shop', 'SELECT shop, count(*), sum(amount), max(amount), sum(amount) / count(*) FROM sales GROUP BY shop');
CALL change();
SELECT compare('by_shop', 'SELECT shop, count(*), sum(amount), max(amount), sum(amount) / count(*) FROM sales GROUP BY shop');
SELECT from_version, to_version, strategy, phase, compare_columns, drift_missing, drift_extra, shift_lsn IS NOT NULL AS shifted,
    rollback_possible, reason FROM weir.upgrades WHERE operator = 'by_shop'::regclass;
SELECT version, status, serving, strategy FROM weir.versions WHERE operator = 'by_shop'::regclass ORDER BY version;
SELECT version, status, upgrade_phase FROM weir.operators WHERE operator = 'by_shop'::regclass;
-- rollback after the shift: the old columns, the new changes
SELECT serving_version, fence_lsn IS NOT NULL AS fenced FROM weir.rollback_upgrade('by_shop', 'customers complain');
SELECT compare('by_shop', 'SELECT shop, count(*), sum(amount), max(amount), NULL::bigint FROM sales GROUP BY shop');
CALL change();
SELECT compare('by_shop', 'SELECT shop, count(*), sum(amount), max(amount), NULL::bigint FROM sales GROUP BY shop');
SELECT phase, reason FROM weir.upgrades WHERE operator = 'by_shop'::regclass;
SELECT version, status, serving FROM weir.versions WHERE operator = 'by_shop'::regclass ORDER BY version;
CALL await($$SELECT relations('by_shop') = 'by_shop_v1, by_shop_v1_definition, by_shop_v1_extreme1'$$);
SELECT count(*) = (SELECT count(DISTINCT shop) FROM sales) AS same FROM over;

-- backfill: a value that nobody kept; finalized by the caller -------------------------
SELECT from_version, to_version, strategy, notes FROM weir.start_upgrade('by_shop', 'SELECT shop, sum(price) AS revenue, count(*) AS n, sum(amount) AS total, min(amount) AS lowest, max(amount) AS highest FROM sales GROUP BY shop', gates => '{"observe": "0 s"}');
CALL change();
SELECT weir.wait_for_upgrade('by_shop', 'observing');
SELECT compare('by_shop', 'SELECT shop, count(*), sum(amount), max(amount), NULL::bigint, sum(price), min(amount) FROM sales GROUP BY shop');
SELECT weir.finalize_upgrade('by_shop');
SELECT weir.wait_for_upgrade('by_shop', 'finalized');
CALL change();
SELECT compare('by_shop', 'SELECT shop, count(*), sum(amount), max(amount), NULL::bigint, sum(price), min(amount) FROM sales GROUP BY shop');
CALL await($$SELECT relations('by_shop') = 'by_shop_v3, by_shop_v3_definition, by_shop_v3_extreme1'$$);
SELECT version, status, serving, strategy FROM weir.versions WHERE operator = 'by_shop'::regclass ORDER BY version;

-- a second upgrade straight after the first, rolled back in turn ------------------------
SELECT strategy FROM weir.start_upgrade('by_shop', 'SELECT shop, count(*) AS n, sum(amount) AS total, max(amount) AS highest FROM sales WHERE amount > 100 GROUP BY shop', strategy => 'backfill', options => '{"compare": []}', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('by_shop', 'observing');
SELECT compare('by_shop', 'SELECT shop, count(*), sum(amount), max(amount), NULL::bigint, NULL::numeric, NULL::int FROM sales WHERE amount > 100 GROUP BY shop');
CALL change();
SELECT serving_version FROM weir.rollback_upgrade('by_shop');
SELECT compare('by_shop', 'SELECT shop, count(*), sum(amount), max(amount), NULL::bigint, sum(price), min(amount) FROM sales GROUP BY shop');

-- rollback before the shift: nobody has noticed ------------------------------------------
SELECT strategy FROM weir.start_upgrade('by_shop', 'SELECT shop, count(*) AS n, sum(amount) AS total, max(amount) AS highest FROM sales GROUP BY shop', auto_advance => false, gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('by_shop', 'validating');
CALL await($$SELECT reason = 'waits for weir.advance_upgrade' FROM weir.upgrades WHERE phase = 'validating'$$);
CALL change();
SELECT compare('by_shop', 'SELECT shop, count(*), sum(amount), max(amount), NULL::bigint, sum(price), min(amount) FROM sales GROUP BY shop');
SELECT upgrade_phase FROM weir.operators WHERE operator = 'by_shop'::regclass;
SELECT serving_version FROM weir.rollback_upgrade('by_shop', NULL);
SELECT compare('by_shop', 'SELECT shop, count(*), sum(amount), max(amount), NULL::bigint, sum(price), min(amount) FROM sales GROUP BY shop');
-- in the transaction that started it, and undone with it
BEGIN;
SELECT strategy FROM weir.start_upgrade('by_shop', 'SELECT shop, count(*) AS n, sum(amount) AS total, max(amount) AS highest FROM sales GROUP BY shop', gates => '{"observe": "0 s"}');
SELECT serving_version FROM weir.rollback_upgrade('by_shop', 'second thoughts');
COMMIT;
SELECT count(*) FROM weir.upgrades WHERE operator = 'by_shop'::regclass;
BEGIN;
SELECT strategy FROM weir.start_upgrade('by_shop', 'SELECT shop, count(*) AS n, sum(amount) AS total, max(amount) AS highest FROM sales GROUP BY shop', gates => '{"observe": "0 s"}');
ROLLBACK;
SELECT count(*) FROM weir.upgrades WHERE operator = 'by_shop'::regclass;
CALL await($$SELECT relations('by_shop') = 'by_shop_v3, by_shop_v3_definition, by_shop_v3_extreme1'$$);

-- by hand: no step without weir.advance_upgrade --------------------------------------------
SELECT strategy FROM weir.start_upgrade('by_shop', 'SELECT shop, sum(amount) AS total, max(amount) + 1000 AS highest FROM sales GROUP BY shop', auto_advance => false, gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('by_shop', 'validating');
CALL await($$SELECT reason = 'waits for weir.advance_upgrade' FROM weir.upgrades WHERE phase = 'validating'$$);
SELECT max(highest) < 1000 AS old FROM by_shop;
BEGIN;
SELECT weir.advance_upgrade('by_shop');
ROLLBACK;
SELECT phase, reason FROM weir.upgrades WHERE operator = 'by_shop'::regclass ORDER BY upgrade_id DESC LIMIT 1;
SELECT weir.advance_upgrade('by_shop');
SELECT weir.wait_for_upgrade('by_shop', 'observing');
SELECT reason FROM weir.upgrades WHERE operator = 'by_shop'::regclass AND phase = 'observing';
SELECT compare('by_shop', 'SELECT shop, NULL::bigint, sum(amount), max(amount) + 1000, NULL::bigint, NULL::numeric, NULL::int FROM sales GROUP BY shop');
BEGIN;
SELECT serving_version FROM weir.rollback_upgrade('by_shop');
SELECT max(highest) < 1000 AS old FROM by_shop;
ROLLBACK;
SELECT max(highest) < 1000 AS old FROM by_shop;
-- the safe window ends by itself
SELECT weir.finalize_upgrade('by_shop');
SELECT strategy FROM weir.start_upgrade('by_shop', 'SELECT shop, sum(amount) AS total FROM sales GROUP BY shop', safe_window => '0', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('by_shop', 'finalized');
SELECT compare('by_shop', 'SELECT shop, NULL::bigint, sum(amount), NULL::int, NULL::bigint, NULL::numeric, NULL::int FROM sales GROUP BY shop');

-- drift on purpose: a compared column that differs -------------------------------------------
SELECT operator FROM weir.create_operator('drifting', 'SELECT shop, count(*) AS n, sum(amount) AS total FROM sales GROUP BY shop');
SELECT weir.wait_for('drifting') IS NOT NULL;
SELECT strategy FROM weir.start_upgrade('drifting', 'SELECT shop, count(*) AS n, sum(amount) + 1 AS total FROM sales GROUP BY shop', options => '{"compare": ["shop", "total"]}', gates => '{"observe": "0 s"}');
DO $$ BEGIN PERFORM weir.wait_for_upgrade('upgrade.drifting', 'observing');
EXCEPTION WHEN OTHERS THEN RAISE WARNING '%: %', SQLSTATE, regexp_replace(SQLERRM, '\d+', 'N'); END $$;
SELECT phase, drift_missing, drift_extra, compare_columns, reason FROM weir.upgrades WHERE operator = 'drifting'::regclass;
SELECT compare('drifting', 'SELECT shop, count(*), sum(amount) FROM sales GROUP BY shop');
-- the same change, declared: the column is left out of the comparison
SELECT strategy, notes[1] FROM weir.start_upgrade('drifting', 'SELECT shop, count(*) AS n, sum(amount) + 1 AS total FROM sales GROUP BY shop', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('drifting', 'observing');
SELECT compare('drifting', 'SELECT shop, count(*), sum(amount) + 1 FROM sales GROUP BY shop');
SELECT serving_version FROM weir.rollback_upgrade('drifting');
-- a planted wrong row in the old version shows as drift of a rebuilt candidate
UPDATE weir_state.drifting_v1 SET n = n + 1 WHERE shop = 's1';
SELECT strategy FROM weir.start_upgrade('drifting', 'SELECT shop, count(*) AS n, sum(amount) AS total FROM sales GROUP BY shop', strategy => 'backfill', gates => '{"observe": "0 s"}');
DO $$ BEGIN PERFORM weir.wait_for_upgrade('upgrade.drifting', 'observing');
EXCEPTION WHEN OTHERS THEN RAISE WARNING '%: %', SQLSTATE, regexp_replace(SQLERRM, '\d+', 'N'); END $$;
SELECT phase, drift_missing, drift_extra, reason FROM weir.upgrades WHERE operator = 'drifting'::regclass ORDER BY upgrade_id DESC LIMIT 1;
-- a rebuild compares nothing, and mends it
SELECT from_version, to_version, strategy, notes FROM weir.rebuild_operator('drifting');
SELECT weir.wait_for_upgrade('drifting', 'finalized');
SELECT compare('drifting', 'SELECT shop, count(*), sum(amount) FROM sales GROUP BY shop');

-- fresh: from now on; the key and the source may change ----------------------------------------
CREATE TABLE returns (id int PRIMARY KEY, shop text, amount int);
ALTER TABLE returns REPLICA IDENTITY FULL;
INSERT INTO returns SELECT i, 's' || i % 2, i FROM generate_series(1, 50) i;
SELECT strategy, notes FROM weir.start_upgrade('drifting', 'SELECT shop, count(*) AS n, sum(amount) AS total FROM returns GROUP BY shop', strategy => 'fresh', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('drifting', 'observing');
SELECT * FROM drifting;
INSERT INTO returns VALUES (51, 's1', 7);
SELECT compare('drifting', 'VALUES (''s1'', 1::bigint, 7::bigint)');
CALL change();
SELECT serving_version FROM weir.rollback_upgrade('drifting');
SELECT compare('drifting', 'SELECT shop, count(*), sum(amount) FROM sales GROUP BY shop');
-- another key by backfill
SELECT strategy, notes FROM weir.start_upgrade('drifting', 'SELECT shop, amount % 2 AS parity, count(*) AS n, sum(amount) AS total FROM sales GROUP BY shop, amount % 2', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('drifting', 'observing');
SELECT compare('drifting', 'SELECT shop, count(*), sum(amount), amount % 2 FROM sales GROUP BY shop, amount % 2');
SELECT weir.finalize_upgrade('drifting');

-- a candidate that fails is rolled back, whether it serves already or not -----------------------
SELECT operator FROM weir.create_operator('failing', 'SELECT shop, count(*) AS n FROM sales GROUP BY shop');
SELECT weir.wait_for('failing') IS NOT NULL;
SELECT strategy FROM weir.start_upgrade('failing', 'SELECT shop, count(*) AS n, max(10 / (amount - 77)) AS m FROM sales GROUP BY shop', gates => '{"observe": "0 s"}');
DO $$ BEGIN PERFORM weir.wait_for_upgrade('upgrade.failing', 'observing');
EXCEPTION WHEN OTHERS THEN RAISE WARNING '%: %', SQLSTATE, regexp_replace(SQLERRM, '\d+', 'N'); END $$;
SELECT phase, reason FROM weir.upgrades WHERE operator = 'failing'::regclass;
SELECT version, status, serving, sqlstate, message FROM weir.versions WHERE operator = 'failing'::regclass ORDER BY version;
UPDATE sales SET amount = 78 WHERE amount = 77;
SELECT strategy FROM weir.start_upgrade('failing', 'SELECT shop, count(*) AS n, max(10 / (amount - 77)) AS m FROM sales GROUP BY shop', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('failing', 'observing');
INSERT INTO sales VALUES (9001, 's1', 77, 1);
SELECT weir.wait_for('drifting') IS NOT NULL;
CALL await($$SELECT phase = 'rolled_back' FROM weir.upgrades WHERE operator = 'failing'::regclass ORDER BY upgrade_id DESC LIMIT 1$$);
SELECT phase, reason FROM weir.upgrades WHERE operator = 'failing'::regclass ORDER BY upgrade_id DESC LIMIT 1;
SELECT compare('failing', 'SELECT shop, count(*), NULL::int FROM sales GROUP BY shop');
-- the old version fails while it is observed: the new one goes on, and rollback is refused meanwhile
DELETE FROM sales WHERE amount = 77;
SELECT strategy FROM weir.start_upgrade('failing', 'SELECT shop, count(*) AS n, max(10 / (amount - 77)) AS m FROM sales GROUP BY shop', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('failing', 'observing');
SELECT weir.finalize_upgrade('failing');
SELECT strategy FROM weir.start_upgrade('failing', 'SELECT shop, count(*) AS n FROM sales GROUP BY shop', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('failing', 'observing');
INSERT INTO sales VALUES (9002, 's1', 77, 1);
SELECT compare('failing', 'SELECT shop, count(*), NULL::int FROM sales GROUP BY shop');
CALL await($$SELECT NOT rollback_possible FROM weir.upgrades WHERE operator = 'failing'::regclass AND phase = 'observing'$$);
SELECT regexp_replace(rollback_obstacle, '[0-9A-F]+/[0-9A-F]+', 'LSN') FROM weir.upgrades WHERE operator = 'failing'::regclass AND phase = 'observing';
DO $$ DECLARE detail text; hint text; BEGIN PERFORM weir.rollback_upgrade('upgrade.failing');
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RAISE WARNING '%: %', SQLSTATE, regexp_replace(SQLERRM, '\d+', 'N') USING DETAIL = regexp_replace(detail, '[0-9A-F]+/[0-9A-F]+', 'LSN'), HINT = hint;
END $$;
SELECT weir.finalize_upgrade('failing');

-- every phase change has its entry
SELECT event, from_phase, to_phase, from_version, to_version, actor = current_user AS mine, reason,
    CASE WHEN detail ? 'drift_missing' OR detail ? 'strategy' THEN detail - '{from_digest,to_digest,drift_lsn}'::text[] END AS detail
FROM weir.ledger WHERE operator = 'by_shop' AND event = 'phase' AND upgrade_id IN (SELECT upgrade_id FROM weir.upgrades WHERE operator = 'by_shop'::regclass ORDER BY upgrade_id LIMIT 2)
ORDER BY ledger_id;
SELECT count(*) FROM weir.upgrades u WHERE operator IN ('by_shop'::regclass, 'drifting', 'failing')
    AND phase IS DISTINCT FROM (SELECT to_phase FROM weir.ledger l WHERE l.upgrade_id = u.upgrade_id AND event = 'phase' ORDER BY ledger_id DESC LIMIT 1);

-- of an operator with an upgrade under way, all goes with it
SELECT strategy FROM weir.start_upgrade('by_shop', 'SELECT shop, sum(amount) AS total, 1 AS one FROM sales GROUP BY shop', gates => '{"observe": "0 s"}');
SELECT weir.drop_operator('by_shop', cascade => true);
SELECT weir.drop_operator('drifting');
SELECT weir.drop_operator('failing');
CALL await($$SELECT relations('by_shop') IS NULL AND relations('drifting') IS NULL AND relations('failing') IS NULL$$);
DROP SCHEMA upgrade CASCADE;
