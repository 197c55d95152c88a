-- Claim: weir.set_objective takes what it knows and refuses everything else without effect
-- (I9); while an operator misses an objective no upgrade of it starts, but what mends it may.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
CREATE SCHEMA objectives;
SET search_path = objectives;
\pset format unaligned
\pset tuples_only on

-- Measured values differ from run to run.
CREATE FUNCTION attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text;
    hint text;
BEGIN
    EXECUTE statement;
    RETURN 'done';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN regexp_replace(concat_ws(E'\n', SQLSTATE || ': ' || SQLERRM, 'DETAIL: ' || nullif(detail, ''), 'HINT: ' || nullif(hint, '')),
        'is \d+ \w+;', 'is N;');
END $$;

CREATE TABLE sales (shop text, amount int);
ALTER TABLE sales REPLICA IDENTITY FULL;
INSERT INTO sales SELECT 's' || i % 7, i FROM generate_series(1, 100) i;
SELECT operator FROM weir.create_operator('totals', 'SELECT shop, sum(amount) AS total FROM sales GROUP BY shop');
SELECT weir.wait_for('totals') IS NOT NULL;

-- what it refuses
SELECT attempt(format('SELECT weir.set_objective(''totals'', %L)', objectives)) FROM (VALUES
    ('{"max_delay": "10 s"}'), ('{"max_lag": 10}'), ('{"max_lag": null}'), ('{"max_lag": "soon"}'), ('{"max_lag": "0 s"}'), ('{"max_lag": "-1 s"}'),
    ('{"max_lag_bytes": "much"}'), ('{"max_lag_bytes": "0"}'), ('{"max_retained_wal": "-5 GB"}'), ('["max_lag"]'), ('7')) o (objectives);
SELECT attempt($$SELECT weir.set_objective('totals', NULL)$$);
SELECT attempt($$SELECT weir.set_objective(NULL, '{}')$$);
SELECT attempt($$SELECT weir.set_objective('sales', '{}')$$);
SELECT objectives IS NULL FROM weir.operators WHERE operator = 'totals'::regclass;

-- what it takes: the last call is what counts, if it commits
SELECT weir.set_objective('totals', '{"max_lag": "1 hour", "max_lag_bytes": "1 GB"}');
SELECT weir.set_objective('totals', '{"max_retained_wal": "100 GB"}');
BEGIN;
SELECT weir.set_objective('totals', '{"max_lag": "1 s"}');
ROLLBACK;
SELECT objectives FROM weir.operators WHERE operator = 'totals'::regclass;
SELECT event, actor = current_user, detail FROM weir.ledger WHERE operator = 'totals' AND event = 'objective' ORDER BY ledger_id;
SELECT ok FROM weir.verify_ledger();

-- one that is kept does not stand in the way
SELECT to_version FROM weir.start_upgrade('totals', 'SELECT shop, sum(amount) AS total, count(*) AS n FROM sales GROUP BY shop', gates => '{"observe": "0 s"}', safe_window => '0');
SELECT weir.wait_for_upgrade('totals', 'finalized');

-- one that is missed does: a slot keeps more than a byte of WAL
SELECT weir.set_objective('totals', '{"max_retained_wal": "1 bytes"}');
SELECT attempt($$SELECT weir.start_upgrade('totals', 'SELECT shop, sum(amount) AS total FROM sales GROUP BY shop')$$);
SELECT aspect, verdict, regexp_replace(reason, 'is \d+ \w+;', 'is N;') FROM weir.check_upgrade('totals', 'SELECT shop, sum(amount) AS total, count(*) AS n FROM sales GROUP BY shop')
WHERE aspect = 'operator';
SELECT count(*) FROM weir.upgrades WHERE operator = 'totals'::regclass;
-- a rebuild may
SELECT strategy FROM weir.rebuild_operator('totals');
SELECT weir.wait_for_upgrade('totals', 'finalized');
SELECT weir.set_objective('totals', '{}');
SELECT objectives IS NULL FROM weir.operators WHERE operator = 'totals'::regclass;
SELECT to_version FROM weir.start_upgrade('totals', 'SELECT shop, sum(amount) AS total FROM sales GROUP BY shop', gates => '{"observe": "0 s"}', safe_window => '0');
SELECT weir.wait_for_upgrade('totals', 'finalized');

-- it goes with its operator
SELECT weir.set_objective('totals', '{"max_lag": "1 hour"}');
SELECT weir.drop_operator('totals');
SELECT count(*) FROM weir_internal.objective JOIN weir_internal.operator o USING (operator_id) WHERE o.dropped;
SET client_min_messages = error;
DROP SCHEMA objectives CASCADE;
