-- Claim: versions of one definition do not depend on each other, so a rebuild leaves nothing
-- of the version it replaces (I12), and can be repeated.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
CREATE SCHEMA rebuilding;
SET search_path = rebuilding;
CREATE TABLE sales (shop text, amount int);
ALTER TABLE sales REPLICA IDENTITY FULL;
INSERT INTO sales SELECT 's' || i % 3, i FROM generate_series(1, 30) AS i;

SELECT operator, version FROM weir.create_operator('totals', 'SELECT shop, sum(amount) AS total FROM sales GROUP BY shop');
SELECT weir.wait_for('totals') IS NOT NULL AS reached;
SELECT from_version, to_version, strategy FROM weir.rebuild_operator('totals');
SELECT weir.wait_for_upgrade('totals', 'finalized', '20 s');
SELECT from_version, to_version, strategy FROM weir.rebuild_operator('totals');
SELECT weir.wait_for_upgrade('totals', 'finalized', '20 s');
SELECT missing, extra FROM weir.verify('totals');
INSERT INTO sales VALUES ('s0', 100);
SELECT weir.wait_for('totals') IS NOT NULL AS reached;
SELECT * FROM totals ORDER BY shop;

-- Only the serving version keeps relations.
DO $$
DECLARE
	deadline timestamptz := clock_timestamp() + '20 s';
BEGIN
	WHILE (SELECT count(*) FROM weir.versions WHERE operator = 'totals'::regclass AND state_table IS NOT NULL) > 1
		AND clock_timestamp() < deadline LOOP
		PERFORM weir.wait_for('totals');
		COMMIT;
	END LOOP;
END
$$;
SELECT version, status, state_table FROM weir.versions WHERE operator = 'totals'::regclass ORDER BY version;
SELECT weir.drop_operator('totals');
SET client_min_messages = error;
DROP SCHEMA rebuilding CASCADE;
