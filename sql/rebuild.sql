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

-- A source that lost its replica identity meanwhile is refused as at creation; an operator paused
-- across that resumes as far as the changes have their old rows, and says where they do not.
\set VERBOSITY default
ALTER TABLE sales REPLICA IDENTITY DEFAULT;
SELECT strategy FROM weir.rebuild_operator('totals');
SELECT weir.pause_operator('totals');
INSERT INTO sales VALUES ('s0', 1);
SELECT weir.resume_operator('totals');
SELECT weir.wait_for('totals') IS NOT NULL AS reached;
SELECT (SELECT sum(total) FROM totals) = (SELECT sum(amount) FROM sales) AS same;
DELETE FROM sales WHERE shop = 's1';
DO $$
DECLARE
	deadline timestamptz := clock_timestamp() + '20 s';
BEGIN
	WHILE (SELECT status FROM weir.operators WHERE operator = 'totals'::regclass) = 'live'
		AND clock_timestamp() < deadline LOOP
		COMMIT;
	END LOOP;
END
$$;
SELECT status, message, hint FROM weir.operators WHERE operator = 'totals'::regclass;
SELECT strategy FROM weir.rebuild_operator('totals');
ALTER TABLE sales REPLICA IDENTITY FULL;
SELECT strategy FROM weir.rebuild_operator('totals');
SELECT weir.wait_for_upgrade('totals', 'finalized', '20 s');
SELECT missing, extra FROM weir.verify('totals');
-- An operator that is append_only needs none.
SELECT operator FROM weir.create_operator('appended', 'SELECT count(*) AS n FROM sales', options => '{"append_only": true}');
SELECT weir.wait_for('appended') IS NOT NULL AS reached;
ALTER TABLE sales REPLICA IDENTITY DEFAULT;
SELECT strategy FROM weir.rebuild_operator('appended');
SELECT weir.wait_for_upgrade('appended', 'finalized', '20 s');
SELECT weir.drop_operator('appended');
SELECT weir.drop_operator('totals');
SET client_min_messages = error;
DROP SCHEMA rebuilding CASCADE;
