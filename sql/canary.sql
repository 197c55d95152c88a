-- Claim: an upgrade shifts in the steps that it was given, each a share of the shards; after each of
-- them every row comes from exactly one version and all of them are as of one position; any step can
-- be rolled back at once; a version that fails takes nothing with it; a session may ask for the
-- candidate before anybody is given it (I1, I5, I6, I7).
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
CREATE SCHEMA canary;
SET search_path = canary;
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
CREATE PROCEDURE advance_to(wanted int) LANGUAGE plpgsql AS $$ BEGIN
    PERFORM weir.advance_upgrade('canary.op');
    COMMIT;
    CALL canary.await(format('SELECT step = %s FROM weir.upgrades WHERE operator = ''canary.op''::regclass ORDER BY upgrade_id DESC LIMIT 1', wanted));
END $$;
-- Rows, and what is wrong with them; those of the new version have twice.
CREATE FUNCTION look() RETURNS text LANGUAGE sql AS $$
    SELECT format('%s rows, %s twice or not at all, %s wrong, %s', count(*), count(*) - count(DISTINCT k) + abs(200 - count(DISTINCT k)),
        count(*) FILTER (WHERE (n, total) IS DISTINCT FROM (e.count, e.sum) OR twice <> e.sum * 2),
        CASE count(twice) WHEN 0 THEN 'all old' WHEN 200 THEN 'all new' ELSE 'some of both' END)
    FROM canary.op FULL JOIN (SELECT k, count(*), sum(v) FROM canary.facts GROUP BY k) e USING (k)
$$;
-- A row of the view is new if and only if its shard is below the split.
CREATE FUNCTION misplaced() RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM canary.op JOIN weir_state.op_v2 s USING (k) WHERE (op.twice IS NOT NULL) <> (s._weir_shard < (SELECT shards FROM weir.upgrades WHERE operator = 'canary.op'::regclass AND to_version = 2))
$$;
CREATE FUNCTION standing() RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(', ', phase, format('step %s of %s', step, steps), percent || ' %', shards || ' shards', reason, CASE WHEN rollback_possible THEN 'rollback possible' END,
        CASE WHEN step_since IS NULL THEN 'not begun' END) FROM weir.upgrades WHERE operator = 'canary.op'::regclass ORDER BY upgrade_id DESC LIMIT 1
$$;
CREATE PROCEDURE change() LANGUAGE plpgsql AS $$ BEGIN
    UPDATE canary.facts SET v = v + 1 WHERE id % 3 = 0;
    INSERT INTO canary.facts SELECT max(id) + 1, 7, 5 FROM canary.facts;
    COMMIT;
    PERFORM weir.wait_for('canary.op');
END $$;
-- Scans of state tables that were not needed, of all that a query of the view has.
CREATE FUNCTION scans() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
    needed int := 0;
    not_needed int := 0;
BEGIN
    FOR line IN EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT sum(n) FROM canary.op LOOP
        IF line ~ 'Scan on op_v' THEN
            IF line ~ 'never executed' THEN not_needed := not_needed + 1; ELSE needed := needed + 1; END IF;
        END IF;
    END LOOP;
    RETURN format('%s branches read, %s not', needed, not_needed);
END $$;

CREATE TABLE facts (id int PRIMARY KEY, k int, v int, divisor int DEFAULT 1);
ALTER TABLE facts REPLICA IDENTITY FULL;
INSERT INTO facts SELECT i, i % 200, i FROM generate_series(1, 1000) i;
SELECT operator FROM weir.create_operator('op', 'SELECT k, count(*) AS n, sum(v) AS total FROM facts GROUP BY k');
SELECT weir.wait_for('op') IS NOT NULL;

-- by hand ----------------------------------------------------------------------------------------
SELECT strategy, notes FROM weir.start_upgrade('op', 'SELECT k, count(*) AS n, sum(v) AS total, sum(v) * 2 AS twice FROM facts GROUP BY k',
    steps => '{1, 10, 50, 100}', auto_advance => false, gates => '{"observe": "0 s"}');
CALL await($$SELECT reason = 'waits for weir.advance_upgrade' FROM weir.upgrades WHERE operator = 'op'::regclass$$);
SELECT standing();
SELECT look();
SELECT scans();
-- whoever asks sees the candidate, which nobody else does
SET weir.read_version = 'candidate';
SELECT look();
SELECT scans();
CALL change();
SELECT look();
RESET weir.read_version;
SELECT look();
SELECT attempt($$SET weir.read_version = 'newest'$$);
SELECT version, serving FROM weir.versions WHERE operator = 'op'::regclass ORDER BY version;
-- steps
CALL advance_to(1);
SELECT standing();
SELECT look(), misplaced();
SELECT scans();
CALL await($$SELECT reason = 'waits for weir.advance_upgrade' FROM weir.upgrades WHERE operator = 'op'::regclass$$);
CALL change();
SELECT look(), misplaced();
CALL advance_to(2);
SELECT standing();
SELECT look(), misplaced();
SET weir.read_version = 'candidate';
SELECT look();
RESET weir.read_version;
SELECT version, serving FROM weir.versions WHERE operator = 'op'::regclass ORDER BY version;
SELECT version, upgrade_phase FROM weir.operators WHERE operator = 'op'::regclass;
CALL advance_to(3);
CALL change();
SELECT look(), misplaced();
-- tried, and not wanted
BEGIN;
SELECT serving_version FROM weir.rollback_upgrade('op');
SELECT look();
ROLLBACK;
SELECT look(), misplaced();
CALL advance_to(4);
SELECT standing();
SELECT look();
SELECT scans();
SET weir.read_version = 'candidate';
SELECT look();
RESET weir.read_version;
SELECT serving_version FROM weir.rollback_upgrade('op', 'at the end');
SELECT look();
SELECT standing();
SELECT event, to_phase, reason, CASE event WHEN 'step' THEN detail END FROM weir.ledger WHERE event <> 'gate' AND upgrade_id = (SELECT upgrade_id FROM weir.upgrades WHERE operator = 'op'::regclass) ORDER BY ledger_id;

-- rolled back from the middle, by itself forwards -----------------------------------------------------
SELECT to_version FROM weir.start_upgrade('op', 'SELECT k, count(*) AS n, sum(v) AS total, sum(v) * 2 AS twice FROM facts GROUP BY k',
    steps => '{1, 10, 50, 100}', auto_advance => false, gates => '{"observe": "0 s"}');
CALL await($$SELECT reason = 'waits for weir.advance_upgrade' FROM weir.upgrades WHERE operator = 'canary.op'::regclass ORDER BY upgrade_id DESC LIMIT 1$$);
CALL advance_to(1);
CALL advance_to(2);
SELECT look();
-- a paused upgrade takes no step
SELECT weir.pause_upgrade('op');
SELECT attempt($$SELECT weir.advance_upgrade('op')$$);
CALL change();
SELECT standing();
SELECT look();
SELECT serving_version FROM weir.rollback_upgrade('op', 'in the middle');
SELECT look();
SELECT standing();
SELECT notes FROM weir.start_upgrade('op', 'SELECT k, count(*) AS n, sum(v) AS total, sum(v) * 2 AS twice FROM facts GROUP BY k', steps => '{99, 100}', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('op', 'observing');
SELECT standing();
SELECT look();
SELECT count(*) FROM weir.ledger WHERE event = 'step' AND upgrade_id = (SELECT max(upgrade_id) FROM weir.upgrades WHERE operator = 'op'::regclass);
SELECT weir.finalize_upgrade('op');
CALL change();
SELECT look();

-- the new version fails: its shards are given back -------------------------------------------------------
SELECT to_version FROM weir.start_upgrade('op', 'SELECT k, count(*) AS n, sum(v) AS total, sum(v) * 2 AS twice, max(10 / divisor) AS share FROM facts GROUP BY k',
    steps => '{40, 100}', auto_advance => false, gates => '{"observe": "0 s"}');
CALL await($$SELECT reason = 'waits for weir.advance_upgrade' FROM weir.upgrades WHERE operator = 'canary.op'::regclass ORDER BY upgrade_id DESC LIMIT 1$$);
CALL advance_to(1);
SELECT look(), count(share) BETWEEN 1 AND 199 AS some FROM op;
INSERT INTO facts VALUES (5000, 7, 1, 0);
SELECT weir.wait_for('op') IS NOT NULL;
SELECT look(), count(share) FROM op;
CALL await($$SELECT phase = 'rolled_back' FROM weir.upgrades WHERE operator = 'canary.op'::regclass ORDER BY upgrade_id DESC LIMIT 1$$);
SELECT standing();
DELETE FROM facts WHERE id = 5000;

-- the old version fails: the new one is given everything -----------------------------------------------------
SELECT to_version FROM weir.start_upgrade('op', 'SELECT k, count(*) AS n, sum(v) AS total, sum(v) * 2 AS twice, max(10 / divisor) AS share FROM facts GROUP BY k', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('op', 'observing');
SELECT weir.finalize_upgrade('op');
SELECT to_version FROM weir.start_upgrade('op', 'SELECT k, count(*) AS n, sum(v) AS total, sum(v) * 2 AS twice FROM facts GROUP BY k',
    steps => '{40, 100}', auto_advance => false, gates => '{"observe": "0 s"}');
CALL await($$SELECT reason = 'waits for weir.advance_upgrade' FROM weir.upgrades WHERE operator = 'canary.op'::regclass ORDER BY upgrade_id DESC LIMIT 1$$);
CALL advance_to(1);
SELECT look(), count(share) BETWEEN 1 AND 199 AS some FROM op;
INSERT INTO facts VALUES (5001, 7, 1, 0);
SELECT weir.wait_for('op') IS NOT NULL;
SELECT look(), count(share) FROM op;
SELECT weir.wait_for_upgrade('op', 'observing');
SELECT standing(), rollback_obstacle ~ 'is stopped since .* division by zero' AS obstacle FROM weir.upgrades WHERE operator = 'canary.op'::regclass ORDER BY upgrade_id DESC LIMIT 1;
SELECT event, reason, detail FROM weir.ledger WHERE event = 'step' AND operator = 'op' ORDER BY ledger_id DESC LIMIT 1;
SELECT attempt($$SELECT weir.rollback_upgrade('op')$$) ~ '^55000: upgrade N of operator "op" cannot be rolled back at this moment';
SELECT weir.finalize_upgrade('op');
DELETE FROM facts WHERE id = 5001;
SELECT weir.wait_for('op') IS NOT NULL;
SELECT look();

-- what cannot be divided -----------------------------------------------------------------------------------
CREATE TABLE others (LIKE facts);
ALTER TABLE others REPLICA IDENTITY FULL;
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT k, count(*) AS n, sum(v) AS total FROM facts GROUP BY k', steps => '{10, 5, 100}', gates => '{"observe": "0 s"}')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT k, count(*) AS n, sum(v) AS total FROM facts GROUP BY k', steps => '{10, 10, 100}', gates => '{"observe": "0 s"}')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT k, count(*) AS n, sum(v) AS total FROM facts GROUP BY k', steps => '{10, 101}', gates => '{"observe": "0 s"}')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT k, count(*) AS n, sum(v) AS total FROM others GROUP BY k', steps => '{10, 100}', gates => '{"observe": "0 s"}')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT k, v % 2 AS parity, count(*) AS n, sum(v) AS total FROM facts GROUP BY k, v % 2', steps => '{10, 100}', gates => '{"observe": "0 s"}')$$);
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT k, v % 2 AS parity, count(*) AS n, sum(v) AS total FROM facts GROUP BY k, v % 2', gates => '{"observe": "0 s"}')$$);
SELECT weir.wait_for_upgrade('op', 'observing');
SELECT weir.finalize_upgrade('op');
-- the same keys, in another order: in other shards
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT k, v % 2 AS parity, count(*) AS n, sum(v) AS total FROM facts GROUP BY v % 2, k', steps => '{10, 100}', gates => '{"observe": "0 s"}')$$);
SELECT weir.pause_operator('op');
SELECT attempt($$SELECT weir.start_upgrade('op', 'SELECT k, v % 2 AS parity, count(*) AS n, sum(v) AS total FROM facts GROUP BY k, v % 2', steps => '{10, 100}', options => '{"repair": true}', gates => '{"observe": "0 s"}')$$);
SELECT weir.drop_operator('op');
SELECT operator FROM weir.create_operator('op', 'SELECT count(*) AS n FROM facts');
SELECT weir.wait_for('op') IS NOT NULL;
SELECT notes FROM weir.start_upgrade('op', 'SELECT count(*) AS n, sum(v) AS total FROM facts', steps => '[0:1]={1,100}', auto_advance => false, gates => '{"observe": "0 s"}');
CALL await($$SELECT reason = 'waits for weir.advance_upgrade' FROM weir.upgrades WHERE operator = 'canary.op'::regclass ORDER BY upgrade_id DESC LIMIT 1$$);
SELECT n = (SELECT count(*) FROM facts) AS same, total IS NULL AS old FROM op;
CALL advance_to(1);
SELECT n = (SELECT count(*) FROM facts) AS same, total IS NULL AS old FROM op;
CALL advance_to(2);
SELECT n = (SELECT count(*) FROM facts) AS same, total IS NULL AS old FROM op;

SELECT weir.drop_operator('op');
DROP SCHEMA canary CASCADE;
