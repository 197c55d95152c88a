-- Claim: renaming what a definition uses (types, functions, operators, schemas, tables, columns) neither stops an
-- operator nor changes what it folds: with changes before, in and after the transaction that renames, plans that
-- are used already, and a version that is loaded anew. The oracle is the definition view, which core keeps in step.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
\pset format unaligned
\pset tuples_only on
CREATE SCHEMA ren_kinds;
CREATE SCHEMA ren_data;
CREATE SCHEMA renames;
SET search_path = renames;

CREATE TYPE ren_kinds.mood AS ENUM ('sad', 'fair', 'happy');
CREATE DOMAIN ren_kinds.amount AS int CHECK (value > -1000000);
CREATE FUNCTION ren_kinds.twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION ren_kinds.next(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1 + 1; END';
CREATE FUNCTION ren_kinds.weight(ren_kinds.mood) RETURNS int LANGUAGE sql IMMUTABLE
	RETURN CASE $1 WHEN 'sad'::ren_kinds.mood THEN 0 ELSE 1 END;
CREATE OPERATOR ren_kinds.@@@ (FUNCTION = ren_kinds.twice, RIGHTARG = int);
CREATE TABLE ren_data.t (id int PRIMARY KEY, mood ren_kinds.mood, price ren_kinds.amount, v int, c text);
ALTER TABLE ren_data.t REPLICA IDENTITY FULL;
INSERT INTO ren_data.t SELECT i, (ARRAY['sad', 'fair', 'happy'])[1 + i % 3]::ren_kinds.mood, i, i, 'c' || i % 4 FROM generate_series(1, 60) i;

SELECT count(*) FROM (VALUES
	('ren_enum', $$SELECT mood, count(*) AS n, sum(v) AS total FROM ren_data.t GROUP BY mood$$),
	('ren_const', $$SELECT id % 5 AS k, count(*) FILTER (WHERE mood = 'sad'::ren_kinds.mood) AS n, min(mood) AS lowest FROM ren_data.t WHERE mood <> 'fair'::ren_kinds.mood GROUP BY 1$$),
	('ren_domain', $$SELECT price % 7 AS k, sum(v::ren_kinds.amount) AS total, max(price) AS highest FROM ren_data.t GROUP BY 1$$),
	('ren_function', $$SELECT ren_kinds.twice(v) % 10 AS k, sum(ren_kinds.next(v)) AS total, max(ren_kinds.twice(v)) AS highest FROM ren_data.t GROUP BY 1$$),
	('ren_argument', $$SELECT ren_kinds.weight(mood) AS k, count(*) AS n, ren_kinds.twice(count(*)::int) AS twice FROM ren_data.t GROUP BY 1$$),
	('ren_operator', $$SELECT c, sum(OPERATOR(ren_kinds.@@@) v) AS total FROM ren_data.t GROUP BY c$$),
	('ren_column', $$SELECT c, sum(v) AS total, max(v) AS highest, avg(v) AS mean FROM ren_data.t WHERE v > 3 GROUP BY c$$)
) AS d (name, definition), LATERAL weir.create_operator(name, definition);
SELECT weir.wait_for() IS NOT NULL;

-- Rows of every kind come, change and go, whatever everything is called now.
CREATE PROCEDURE change() LANGUAGE plpgsql AS $$
DECLARE
	source regclass := (SELECT oid FROM pg_class WHERE relname = 'ren_changed' OR relname = 't' AND relnamespace::regnamespace::text LIKE 'ren%');
	columns text[] := (SELECT array_agg(attname ORDER BY attnum) FROM pg_attribute WHERE attrelid = source AND attnum > 0);
BEGIN
	EXECUTE format('INSERT INTO %s SELECT (SELECT max(%I) FROM %1$s) + i, %3$I, %4$I + i, %5$I + i, %6$I || ''x'' FROM %1$s, generate_series(1, 2) i WHERE %2$I %% 13 = 1 AND %2$I + 60 > (SELECT max(%2$I) FROM %1$s) LIMIT 1',
		source, columns[1], columns[2], columns[3], columns[4], columns[5]);
	EXECUTE format('UPDATE %s SET %I = %2$I + 1, %3$I = %3$I + 2 WHERE %4$I %% 3 = 0', source, columns[4], columns[3], columns[1]);
	EXECUTE format('DELETE FROM %s WHERE %I = (SELECT min(%2$I) FROM %1$s)', source, columns[1]);
END $$;
-- Operators that are live and equal their definition, of those that there are.
CREATE FUNCTION state() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	name text;
	differing bigint;
	bad text := '';
	good int := 0;
BEGIN
	FOR name IN SELECT operator::text FROM weir.operators WHERE operator::text LIKE 'ren\_%' ORDER BY 1 LOOP
		BEGIN
			PERFORM weir.wait_for(name::regclass);
			EXECUTE format('SELECT count(*) FROM ((TABLE %1$I EXCEPT ALL TABLE weir_state.%2$I) UNION ALL (TABLE weir_state.%2$I EXCEPT ALL TABLE %1$I)) d',
				name, name || '_v1_definition') INTO differing;
			IF differing = 0 THEN good := good + 1; ELSE bad := bad || format(' %s differs in %s rows', name, differing); END IF;
		EXCEPTION WHEN OTHERS THEN
			bad := bad || format(' %s: %s', name, (SELECT concat_ws(' ', v.status, v.sqlstate, v.message) FROM weir.versions v WHERE v.operator = name::regclass));
		END;
	END LOOP;
	RETURN good || ' equal' || bad;
END $$;
-- Changes in a transaction before the renaming one, in it on both sides, and after it.
CREATE PROCEDURE rename_by(VARIADIC statements text[]) LANGUAGE plpgsql AS $$
DECLARE
	statement text;
BEGIN
	FOREACH statement IN ARRAY statements LOOP
		CALL renames.change();
		COMMIT;
		CALL renames.change();
		EXECUTE statement;
		CALL renames.change();
		COMMIT;
		CALL renames.change();
		COMMIT;
	END LOOP;
END $$;

SELECT state();
-- two functions of one definition, one name and then the other: nothing is missing
CALL rename_by('ALTER FUNCTION ren_kinds.twice RENAME TO was_twice; ALTER FUNCTION ren_kinds.next RENAME TO twice; ALTER FUNCTION ren_kinds.was_twice RENAME TO next');
SELECT state();
CALL rename_by('ALTER FUNCTION ren_kinds.twice RENAME TO was_twice; ALTER FUNCTION ren_kinds.next RENAME TO twice; ALTER FUNCTION ren_kinds.was_twice RENAME TO next');
CALL rename_by('ALTER TYPE ren_kinds.mood RENAME TO feeling');
SELECT state();
CALL rename_by($$ALTER TYPE ren_kinds.feeling RENAME VALUE 'sad' TO 'gloomy'$$);
SELECT state();
CALL rename_by('ALTER DOMAIN ren_kinds.amount RENAME TO sum_of_money');
SELECT state();
CALL rename_by('ALTER FUNCTION ren_kinds.twice RENAME TO doubled', 'ALTER FUNCTION ren_kinds.next RENAME TO following', 'ALTER FUNCTION ren_kinds.weight RENAME TO heft');
SELECT state();
CALL rename_by('ALTER FUNCTION ren_kinds.doubled SET SCHEMA renames', 'ALTER OPERATOR ren_kinds.@@@ (NONE, int) SET SCHEMA renames', 'ALTER TYPE ren_kinds.feeling SET SCHEMA renames');
SELECT state();
CALL rename_by('ALTER SCHEMA ren_kinds RENAME TO ren_sorts');
SELECT state();
CALL rename_by('ALTER TABLE ren_data.t RENAME COLUMN v TO worth');
SELECT state();
CALL rename_by('ALTER TABLE ren_data.t RENAME COLUMN mood TO temper', 'ALTER TABLE ren_data.t RENAME COLUMN c TO v', 'ALTER TABLE ren_data.t RENAME COLUMN price TO c');
SELECT state();
CALL rename_by('ALTER TABLE ren_data.t RENAME TO ren_changed', 'ALTER SCHEMA ren_data RENAME TO ren_facts');
SELECT state();
-- loaded anew, and computed anew
SELECT count(*) FROM (SELECT weir.pause_operator(operator) FROM weir.operators WHERE operator::text LIKE 'ren\_%') p;
CALL change();
SELECT count(*) FROM (SELECT weir.resume_operator(operator) FROM weir.operators WHERE operator::text LIKE 'ren\_%') p;
SELECT state();
SELECT sum(missing), sum(extra) FROM weir.operators, weir.verify(operator) WHERE operator::text LIKE 'ren\_%';
SELECT count(*) FROM (SELECT weir.drop_operator(operator) FROM weir.operators WHERE operator::text LIKE 'ren\_%') d;
DROP SCHEMA renames, ren_sorts, ren_facts CASCADE;
