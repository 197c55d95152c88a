-- Claim: a paused upgrade stays in its phase, whatever it could go on to, while its versions are
-- built and kept up to date; it can be rolled back, finalized and fail; resumed, it goes on (I8, I9, I10).
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
CREATE SCHEMA pause_upgrade;
SET search_path = pause_upgrade;
SET check_function_bodies = off;
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
    RETURN regexp_replace(concat_ws(' | ', SQLSTATE || ': ' || SQLERRM, nullif(detail, ''), nullif(hint, '')), 'upgrade \d+', 'upgrade N', 'gi');
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
-- The coordinator has looked at every upgrade since: it takes several turns for one that comes later.
CREATE PROCEDURE let_it_look() LANGUAGE plpgsql AS $$ BEGIN
    PERFORM weir.start_upgrade('pause_upgrade.other', 'SELECT count(*) AS n, 1 AS one FROM pause_upgrade.sales', gates => '{"observe": "0 s"}');
    COMMIT;
    PERFORM weir.wait_for_upgrade('pause_upgrade.other', 'observing');
    PERFORM weir.rollback_upgrade('pause_upgrade.other');
    COMMIT;
END $$;
CREATE FUNCTION look() RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', phase, CASE WHEN paused THEN 'paused' END, reason, 'serves', (SELECT version FROM weir.operators o WHERE o.operator = u.operator))
    FROM weir.upgrades u WHERE operator = 'pause_upgrade.op'::regclass ORDER BY upgrade_id DESC LIMIT 1
$$;

CREATE TABLE sales (id int PRIMARY KEY, shop text, amount int);
ALTER TABLE sales REPLICA IDENTITY FULL;
INSERT INTO sales SELECT i, 's' || i % 7, i FROM generate_series(1, 50) i;
SELECT operator FROM weir.create_operator('op', 'SELECT shop, count(*) AS n FROM sales GROUP BY shop');
SELECT operator FROM weir.create_operator('other', 'SELECT count(*) AS n FROM sales');
SELECT weir.wait_for() IS NOT NULL;
SELECT attempt($$SELECT weir.pause_upgrade('op')$$);
SELECT attempt($$SELECT weir.resume_upgrade('op')$$);
SELECT attempt($$SELECT weir.pause_upgrade(NULL)$$);

-- from the transaction that starts it: the version is built, the phase stays ---------------------
BEGIN;
SELECT to_version FROM weir.start_upgrade('op', 'SELECT shop, count(*) AS n, sum(amount) AS total FROM sales GROUP BY shop', gates => '{"observe": "0 s"}');
SELECT weir.pause_upgrade('op');
COMMIT;
CALL await($$SELECT status = 'live' FROM weir.versions WHERE operator = 'op'::regclass AND version = 2$$);
CALL let_it_look();
SELECT look();
SELECT attempt($$SELECT weir.wait_for_upgrade('op', 'validating')$$);
SELECT attempt($$SELECT weir.wait_for_upgrade('op', 'preparing')$$);
SELECT attempt($$SELECT weir.advance_upgrade('op')$$);
-- twice is once, and undone with its transaction
SELECT weir.pause_upgrade('op');
BEGIN;
SELECT weir.resume_upgrade('op');
ROLLBACK;
SELECT look();
SELECT event, reason, from_version, to_version FROM weir.ledger WHERE upgrade_id = (SELECT upgrade_id FROM weir.upgrades WHERE operator = 'op'::regclass) AND event LIKE '%\_upgrade' ORDER BY ledger_id;
SELECT weir.resume_upgrade('op');
SELECT weir.wait_for_upgrade('op', 'observing');
SELECT weir.resume_upgrade('op');

-- observing: the safe window does not end ------------------------------------------------------------
SELECT weir.pause_upgrade('op');
UPDATE weir_internal.upgrade SET observing_until = clock_timestamp() WHERE operator_id = (SELECT operator_id FROM weir_internal.operator WHERE view_oid = 'op'::regclass);
CALL let_it_look();
SELECT look();
SELECT attempt($$SELECT weir.wait_for_upgrade('op', 'finalized')$$);
SELECT serving_version FROM weir.rollback_upgrade('op', 'in time');
SELECT look();
SELECT attempt($$SELECT weir.resume_upgrade('op')$$);

-- finalized by hand ---------------------------------------------------------------------------------------
SELECT to_version FROM weir.start_upgrade('op', 'SELECT shop, count(*) AS n, sum(amount) AS total FROM sales GROUP BY shop', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('op', 'observing');
SELECT weir.pause_upgrade('op');
SELECT weir.finalize_upgrade('op');
SELECT look();
SELECT to_version FROM weir.start_upgrade('op', 'SELECT shop, count(*) AS n, sum(amount) AS total, max(10 / (amount - 77)) AS m FROM sales GROUP BY shop', auto_advance => false, gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('op', 'validating');
SELECT weir.pause_upgrade('op');

-- a new version that fails ends it ------------------------------------------------------------------------
INSERT INTO sales VALUES (100, 's1', 77);
CALL await($$SELECT phase = 'rolled_back' FROM weir.upgrades WHERE operator = 'op'::regclass ORDER BY upgrade_id DESC LIMIT 1$$);
SELECT look();
SELECT weir.wait_for('op') IS NOT NULL;
SELECT count(*) FROM ((SELECT shop, n, total FROM op EXCEPT ALL SELECT shop, count(*), sum(amount) FROM sales GROUP BY shop)
    UNION ALL (SELECT shop, count(*), sum(amount) FROM sales GROUP BY shop EXCEPT ALL SELECT shop, n, total FROM op)) AS differing;
SELECT ok FROM weir.verify_ledger();

SELECT weir.drop_operator('op');
SELECT weir.drop_operator('other');
DROP SCHEMA pause_upgrade CASCADE;
