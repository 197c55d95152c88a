-- Claim: nobody writes state through an operator's view, not even a superuser, whatever the view looks like
-- at the time (new, with one version, with two, after a rollback); and a reader's condition still reaches the
-- state table's index.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
CREATE SCHEMA read_only;
SET search_path = read_only;
\pset format unaligned
\pset tuples_only on

CREATE FUNCTION writes(view text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	statement text;
BEGIN
	FOREACH statement IN ARRAY ARRAY['INSERT INTO %s (k) VALUES (100)', 'UPDATE %s SET n = 7', 'DELETE FROM %s', 'TRUNCATE %s']
	LOOP
		BEGIN
			EXECUTE format(statement, view);
			RETURN NEXT 'done: ' || statement;
		EXCEPTION WHEN OTHERS THEN
			RETURN NEXT SQLSTATE || ': ' || SQLERRM;
		END;
	END LOOP;
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
CREATE FUNCTION branches(regclass) RETURNS int LANGUAGE sql AS
	$$SELECT cardinality(view_versions) FROM weir_internal.serving s JOIN weir_internal.operator o USING (operator_id) WHERE o.view_oid = $1$$;

CREATE TABLE t (k int, v int);
ALTER TABLE t REPLICA IDENTITY FULL;
INSERT INTO t SELECT i, i FROM generate_series(1, 50) i;
-- not built yet, hence with a filter
BEGIN;
SELECT operator FROM weir.create_operator('op', 'SELECT k, count(*) AS n FROM t GROUP BY k');
SELECT writes('op');
COMMIT;
SELECT weir.wait_for('op') IS NOT NULL;
CALL await($$SELECT branches('op') = 1$$);
SELECT writes('op');
SELECT is_insertable_into FROM information_schema.tables WHERE table_schema = 'read_only' AND table_name = 'op';

-- conditions, order and joins use the key
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET enable_sort = off;
EXPLAIN (COSTS off) SELECT * FROM op WHERE k = 5;
EXPLAIN (COSTS off) SELECT n FROM op WHERE k > 5 ORDER BY k LIMIT 3;
ALTER VIEW op SET (security_barrier = true);
EXPLAIN (COSTS off) SELECT * FROM op WHERE k = 5;
SELECT * FROM op WHERE k = 5;

-- two versions, one again, and back; what its owner has set stays
SELECT strategy FROM weir.start_upgrade('op', 'SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('op', 'observing');
SELECT writes('op');
SELECT count(*) FROM weir.rollback_upgrade('op');
CALL await($$SELECT branches('op') = 1$$);
SELECT writes('op');
SELECT strategy FROM weir.start_upgrade('op', 'SELECT k, count(*) AS n, sum(v) AS total FROM t GROUP BY k', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('op', 'observing');
SELECT weir.finalize_upgrade('op');
CALL await($$SELECT branches('op') = 1$$);
SELECT writes('op');
SELECT reloptions FROM pg_class WHERE oid = 'op'::regclass;
EXPLAIN (COSTS off) SELECT * FROM op WHERE k = 5;
-- its text makes the same view
DO $$ BEGIN EXECUTE 'CREATE VIEW copy AS ' || pg_get_viewdef('op'); END $$;
SELECT count(*) FROM (SELECT * FROM op EXCEPT ALL SELECT * FROM copy) x;
DROP VIEW copy;
SELECT missing, extra FROM weir.verify('op');
SELECT weir.drop_operator('op');
DROP SCHEMA read_only CASCADE;
