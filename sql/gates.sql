-- Claim: an upgrade takes its step only when every gate passes, waits while one is
-- inconclusive, and is rolled back by itself when one fails, with what was measured; a row
-- that went wrong while the gates waited is found among many (I5, I10).
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
CREATE SCHEMA gates;
SET search_path = gates;
\pset format unaligned
\pset tuples_only on

CREATE FUNCTION attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hint text;
BEGIN
    EXECUTE statement;
    RETURN 'done';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n', SQLSTATE || ': ' || SQLERRM, 'HINT: ' || nullif(hint, ''));
END $$;
CREATE PROCEDURE await(condition text) LANGUAGE plpgsql AS $$
DECLARE
    deadline timestamptz := clock_timestamp() + interval '60 s';
    reached boolean;
BEGIN
    LOOP
        EXECUTE condition INTO reached;
        EXIT WHEN reached;
        IF clock_timestamp() > deadline THEN RAISE 'not reached: %', condition; END IF;
        COMMIT;
    END LOOP;
END $$;
CREATE VIEW latest AS SELECT * FROM weir.upgrades WHERE operator = 'totals'::text::regclass ORDER BY upgrade_id DESC LIMIT 1;
-- What a gate was read as last, and the entries of the ledger, without what takes as long as it takes.
CREATE FUNCTION reading(gate text) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', r->>'outcome', r - '{gate,outcome,lsn,measured_ms,rows,apply_ms,old_apply_ms}'::text[])
    FROM latest, jsonb_array_elements(gate_readings) r WHERE r->>'gate' = $1
$$;
CREATE FUNCTION entries() RETURNS SETOF text LANGUAGE sql AS $$
    SELECT concat_ws(': ', l.event, l.to_phase, l.reason, (SELECT string_agg(r->>'gate' || ' ' || (r->>'outcome'), ', ') FROM jsonb_array_elements(l.detail) r WHERE r->>'outcome' <> 'pass' AND r->>'gate' <> 'max_lag'))
    FROM weir.ledger l JOIN latest USING (upgrade_id) WHERE l.event = 'gate' AND l.reason !~ '^waits.*(max_drift_rows|max_lag)'
    UNION ALL SELECT concat_ws(': ', phase, reason) FROM latest
$$;

CREATE TABLE sales (id int PRIMARY KEY, shop int, amount int);
ALTER TABLE sales REPLICA IDENTITY FULL;
INSERT INTO sales SELECT i, i % 10, i FROM generate_series(1, 100) i;
SELECT operator FROM weir.create_operator('totals', 'SELECT shop, sum(amount) AS total FROM sales GROUP BY shop');
SELECT weir.wait_for('totals') IS NOT NULL;

-- what is refused ------------------------------------------------------------------------
CREATE FUNCTION with_gates(gates text) RETURNS text LANGUAGE sql AS $$
    SELECT attempt(format('SELECT weir.start_upgrade(''totals'', ''SELECT shop, sum(amount) AS total, 1 AS one FROM sales GROUP BY shop'', gates => %L)', gates))
$$;
SELECT gates, with_gates(gates) FROM (VALUES ('3'), ('[]'), ('{"max_lags": "5 s"}'), ('{"max_lag": 5}'), ('{"max_lag": "soon"}'), ('{"observe": "-1 s"}'),
    ('{"observe": ""}'), ('{"deadline": "2000 years"}'), ('{"max_errors": -1}'), ('{"max_errors": 0.5}'), ('{"max_drift_rows": "0"}'), ('{"min_rows": null}'),
    ('{"min_rows": 1e30}'), ('{"max_slowdown": 0}'), ('{"sql": "SELECT true"}'), ('{"sql": [1]}'), ('{"sql": ["", "", "", "", "", "", "", "", "", "", ""]}'),
    ('{"sql": ["SELECT 1"]}'), ('{"sql": ["SELECT true, true"]}'), ('{"sql": ["SELECT true; SELECT true"]}'), ('{"sql": ["DELETE FROM sales"]}'),
    ('{"sql": ["SELECT true FROM sales FOR UPDATE"]}'), ('{"sql": ["WITH gone AS (DELETE FROM sales RETURNING true) SELECT * FROM gone"]}'), ('{"sql": ["SELECT true FROM nothing"]}'),
    ('{"sql": ["SELECT $1"]}'), ('{"sql": ["SELECT true INTO made"]}'), ('{"max_slowdown": true}')) v (gates);
SELECT count(*) FROM weir.upgrades WHERE operator = 'totals'::regclass;

-- the defaults, on a table to which nothing comes --------------------------------------------
SELECT strategy FROM weir.start_upgrade('totals', 'SELECT shop, sum(amount) AS total, 1 AS one FROM sales GROUP BY shop');
SELECT jsonb_pretty(gates) FROM latest;
SELECT weir.wait_for_upgrade('totals', 'observing');
SELECT gate, reading(gate) FROM unnest('{max_errors,max_drift_rows,observe,min_rows,max_lag,max_slowdown}'::text[]) gate;
SELECT max(recorded_at) FILTER (WHERE to_phase = 'shifting') - max(recorded_at) FILTER (WHERE to_phase = 'validating') >= interval '5 s' AS observed
FROM weir.ledger JOIN latest USING (upgrade_id);
SELECT count(*) AS waits FROM entries() WHERE entries LIKE 'gate: waits for gates: observe: observe wait';
SELECT count(*) AS passes FROM entries() WHERE entries = 'gate: all gates pass';
SELECT detail - 'drift_lsn' AS detail, detail ? 'drift_lsn' AS at FROM weir.ledger l JOIN latest USING (upgrade_id) WHERE l.to_phase = 'shifting';
SELECT serving_version FROM weir.rollback_upgrade('totals');

-- too few rows: waits, and says for what; nothing is written down again and again ---------------
SELECT strategy FROM weir.start_upgrade('totals', 'SELECT shop, sum(amount) AS total, 2 AS two FROM sales GROUP BY shop', gates => '{"observe": "0 s", "min_rows": 3}');
CALL await($$SELECT reason = 'waits for gates: min_rows' FROM latest$$);
CALL await($$SELECT count(*) = 1 FROM entries() WHERE entries LIKE 'gate:%'$$);
CREATE TABLE seen AS SELECT gates_read_at FROM latest;
CALL await($$SELECT l.gates_read_at > s.gates_read_at FROM latest l, seen s$$);
SELECT * FROM entries();
SELECT reading('min_rows');
INSERT INTO sales SELECT i, 1, 1 FROM generate_series(201, 202) i;
CALL await($$SELECT reading('min_rows') LIKE '%"measured": 2%'$$);
SELECT reading('min_rows'), phase FROM latest;
INSERT INTO sales VALUES (203, 1, 1);
SELECT weir.wait_for_upgrade('totals', 'observing');
SELECT * FROM entries();
SELECT serving_version FROM weir.rollback_upgrade('totals');

-- errors -----------------------------------------------------------------------------------------
SELECT strategy FROM weir.start_upgrade('totals', 'SELECT shop, sum(amount) AS total, 3 AS three FROM sales GROUP BY shop', gates => '{"min_rows": 1000, "max_errors": 1}');
CALL await($$SELECT reason LIKE '%min_rows' FROM latest$$);
UPDATE weir_internal.version_stat SET errors = 1 WHERE version = (SELECT to_version FROM latest) AND operator_id = (SELECT operator_id FROM weir_internal.operator WHERE view_oid = 'totals'::regclass);
CALL await($$SELECT reading('max_errors') = 'pass {"limit": 1, "measured": 1}'$$);
UPDATE weir_internal.version_stat SET errors = 2 WHERE version = (SELECT to_version FROM latest) AND operator_id = (SELECT operator_id FROM weir_internal.operator WHERE view_oid = 'totals'::regclass);
CALL await($$SELECT phase = 'rolled_back' FROM latest$$);
SELECT reason, reading('max_errors') FROM latest;
SELECT count(*) FROM entries() WHERE entries LIKE 'gate: gates fail: errors: 2: max_errors fail%';

-- slower than allowed; what cannot be told yet passes ------------------------------------------------
SELECT strategy FROM weir.start_upgrade('totals', 'SELECT shop, sum(amount) AS total, 4 AS four FROM sales GROUP BY shop', gates => '{"observe": "0 s", "min_rows": 5000000, "max_slowdown": 2.6}');
CALL await($$SELECT reason = 'waits for gates: min_rows' FROM latest$$);
SELECT reading('max_slowdown');
UPDATE weir_internal.version_stat s SET rows = rows + 1000000, apply_us = apply_us + CASE WHEN version = from_version THEN 100000000 ELSE 250000000 END
FROM latest u WHERE s.operator_id = (SELECT operator_id FROM weir_internal.operator WHERE view_oid = 'totals'::regclass) AND s.version IN (from_version, to_version);
CALL await($$SELECT reading('max_slowdown') LIKE '%2.50%'$$);
SELECT reading('max_slowdown'), phase FROM latest;
UPDATE weir_internal.version_stat s SET apply_us = apply_us + 20000000
FROM latest u WHERE s.operator_id = (SELECT operator_id FROM weir_internal.operator WHERE view_oid = 'totals'::regclass) AND s.version = to_version;
CALL await($$SELECT phase = 'rolled_back' FROM latest$$);
SELECT reason, reading('max_slowdown') FROM latest;

-- drift that is allowed, and drift that is not ---------------------------------------------------------
SELECT strategy FROM weir.start_upgrade('totals', 'SELECT shop, sum(amount) + CASE WHEN shop = 7 THEN 1 ELSE 0 END AS total FROM sales GROUP BY shop',
    gates => '{"observe": "0 s", "max_drift_rows": 2}', options => '{"compare": ["shop", "total"]}');
SELECT weir.wait_for_upgrade('totals', 'observing');
SELECT reading('max_drift_rows');
SELECT serving_version FROM weir.rollback_upgrade('totals');
SELECT strategy FROM weir.start_upgrade('totals', 'SELECT shop, sum(amount) + CASE WHEN shop = 7 THEN 1 ELSE 0 END AS total FROM sales GROUP BY shop',
    gates => '{"max_drift_rows": 1}', options => '{"compare": ["shop", "total"]}');
CALL await($$SELECT phase = 'rolled_back' FROM latest$$);
SELECT * FROM entries();

-- floats: what differs by no more than the tolerance is no drift, nor what is equal but for NULL and NaN ----
CREATE TABLE measured (k int, v float8, w float4);
ALTER TABLE measured REPLICA IDENTITY FULL;
INSERT INTO measured SELECT i % 10, i / 7.0, i / 3.0 FROM generate_series(1, 100) i;
INSERT INTO measured VALUES (20, 'NaN', 1), (21, 'Infinity', 1), (22, NULL, NULL), (23, 1.7e308, 1);
SELECT operator FROM weir.create_operator('floats', 'SELECT k, max(v) AS v, min(w) AS w FROM measured GROUP BY k');
SELECT weir.wait_for('floats') IS NOT NULL;
CREATE OR REPLACE VIEW latest AS SELECT * FROM weir.upgrades WHERE operator = 'floats'::text::regclass ORDER BY upgrade_id DESC LIMIT 1;
SELECT strategy FROM weir.start_upgrade('floats', 'SELECT k, max(v) * (1 + 5e-10) AS v, (min(w) * (1 + 5e-6))::float4 AS w FROM measured GROUP BY k',
    gates => '{"observe": "0 s"}', options => '{"compare": ["k", "v", "w"]}');
SELECT weir.wait_for_upgrade('floats', 'observing');
SELECT count(*) > 10 AS differ FROM weir_state.floats_v1 o JOIN weir_state.floats_v2 n USING (k) WHERE (o.v, o.w) IS DISTINCT FROM (n.v, n.w);
SELECT reading('max_drift_rows');
SELECT serving_version FROM weir.rollback_upgrade('floats');
SELECT strategy FROM weir.start_upgrade('floats', 'SELECT k, CASE k WHEN 1 THEN max(v) * (1 + 2e-9) WHEN 21 THEN 5 WHEN 22 THEN 0 ELSE max(v) END AS v, min(w) AS w FROM measured GROUP BY k',
    gates => '{"observe": "0 s"}', options => '{"compare": ["k", "v", "w"]}');
CALL await($$SELECT phase = 'rolled_back' FROM latest$$);
SELECT reading('max_drift_rows');
SELECT old_row->>'k', old_row->>'v' = new_row->>'v' AS same FROM weir.drift JOIN latest USING (upgrade_id) ORDER BY 1;
SELECT weir.drop_operator('floats', cascade => true);

-- one wrong row of many, after the first comparison had found none ---------------------------------------
CREATE TABLE many (k int, v int);
ALTER TABLE many REPLICA IDENTITY FULL;
INSERT INTO many SELECT i, i FROM generate_series(1, 200000) i;
SELECT operator FROM weir.create_operator('of_many', 'SELECT k, sum(v) AS total FROM many GROUP BY k');
SELECT weir.wait_for('of_many') IS NOT NULL;
CREATE OR REPLACE VIEW latest AS SELECT * FROM weir.upgrades WHERE operator = 'of_many'::text::regclass ORDER BY upgrade_id DESC LIMIT 1;
SELECT strategy FROM weir.start_upgrade('of_many', 'SELECT k, sum(v) AS total, count(*) AS n FROM many GROUP BY k', gates => '{"observe": "0 s", "min_rows": 1}');
CALL await($$SELECT reason = 'waits for gates: min_rows' FROM latest$$);
SELECT drift_missing, drift_extra FROM latest;
UPDATE weir_state.of_many_v2 SET total = total + 1 WHERE k = 123456;
INSERT INTO many VALUES (1, 1);
CALL await($$SELECT phase = 'rolled_back' FROM latest$$);
SELECT phase, reason, drift_missing, drift_extra FROM latest;
SELECT number, old_row, new_row FROM weir.drift JOIN latest USING (upgrade_id) ORDER BY number;
SELECT reading('max_drift_rows');
SELECT weir.wait_for('of_many') IS NOT NULL;
SELECT count(*), sum(total) FROM of_many;

SELECT weir.drop_operator('of_many', cascade => true);
SELECT weir.drop_operator('totals', cascade => true);
DROP SCHEMA gates CASCADE;
