-- Claim: weir.explain_definition accepts what the folds keep exactly, and
-- otherwise names every objection at once, with SQLSTATE and hint, changing nothing.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
\pset format unaligned
\pset tuples_only on
CREATE SCHEMA definition_test;
SET search_path = definition_test;
SET timezone = 'UTC';

-- What speaks against a definition: objections, or the error that the parser raised.
CREATE FUNCTION refusal(definition text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    hint text;
BEGIN
    RETURN QUERY SELECT objection FROM weir.explain_definition(definition) WHERE objection IS NOT NULL;
    IF NOT FOUND THEN RETURN NEXT 'accepted'; END IF;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN NEXT format('raised %s: %s%s', SQLSTATE, SQLERRM, coalesce(E'\nHINT: ' || nullif(hint, ''), ''));
END $$;
CREATE FUNCTION accepted(definition text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT concat_ws(' | ', column_name, fold, exact_under, cost, objection) FROM weir.explain_definition(definition)
$$;

CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN small AS int CHECK (VALUE < 1000);
CREATE DOMAIN recent AS timestamptz CHECK (VALUE > now() - interval '1 year');
CREATE TABLE events (
    id bigint PRIMARY KEY, k int, name text, i2 int2, v int, i8 int8, n numeric(10,2), f4 float4, f8 float8,
    span interval, price money, ok boolean, day date, at timestamp, atz timestamptz, m mood, s small,
    doc json, docb jsonb, place point, x xid, list int[], p pair, doubled int GENERATED ALWAYS AS (v * 2) STORED,
    fr text COLLATE "C", po text COLLATE "POSIX");
ALTER TABLE events REPLICA IDENTITY FULL;
CREATE TABLE "Other Table" ("Key" int, v int);
ALTER TABLE "Other Table" REPLICA IDENTITY FULL;

-- accepted -------------------------------------------------------------------
SELECT accepted('SELECT k, count(*) FROM events GROUP BY k');
SELECT accepted('SELECT "Key", sum(v) FROM "Other Table" AS o GROUP BY 1');
SELECT accepted('SELECT k, sum(v), avg(v), count(v), count(*) AS rows FROM events e GROUP BY k');
SELECT accepted('SELECT k, sum(v)/count(*) AS r, round(avg(n), 2) AS rounded FROM events GROUP BY k');
SELECT accepted('SELECT upper(name) AS u, sum(f8) FROM events WHERE v > 0 AND name IS NOT NULL GROUP BY u');
SELECT accepted('SELECT sum(v) FROM events GROUP BY k, upper(name)');
SELECT accepted('SELECT k FROM events GROUP BY k');
SELECT accepted('SELECT count(*), min(v), max(v) FROM events');
SELECT accepted('SELECT k, max(at) - min(at) AS span, min(m), max(list), min(name) FILTER (WHERE ok) AS first FROM events GROUP BY k');
SELECT accepted('SELECT k, bool_and(ok), every(ok) AS e, bool_or(v > 3) AS o FROM events GROUP BY k');
SELECT accepted('SELECT k, sum(i2) AS a, sum(i8) AS b, sum(n) AS c, sum(f4) AS d, sum(span) AS e, sum(price) AS f FROM events GROUP BY k');
SELECT accepted('SELECT k, avg(i2) AS a, avg(i8) AS b, avg(n) AS c, avg(f4) AS d, avg(span) AS e FROM events GROUP BY k');
SELECT accepted('SELECT k, count(*) FILTER (WHERE ok) AS yes, count(*) FILTER (WHERE NOT ok) AS no FROM events GROUP BY k');
SELECT accepted('SELECT k, k AS again, k + 1 AS next, 7 AS seven, count(1) FROM events GROUP BY k');
SELECT accepted('SELECT f8, s, p, m, day, list, docb, fr, count(*) FROM events GROUP BY 1, 2, 3, 4, 5, 6, 7, 8');
SELECT accepted('SELECT atz AT TIME ZONE ''UTC'' AS utc, date_trunc(''day'', at) AS d, count(*) FROM events GROUP BY 1, 2');
SELECT accepted('SELECT ''x''::text AS c, 5 AS n, doubled, (p).a, docb->>''a'' AS b, sum(doubled) FROM events GROUP BY 1, 2, 3, 4, 5');
SELECT accepted('SELECT CASE k WHEN 1 THEN ''one'' ELSE name END AS c, coalesce(sum(v), 0) AS total, greatest(max(v), 5) AS g FROM ONLY events GROUP BY 1');
SELECT accepted('SELECT k, sum(v) FROM events GROUP BY DISTINCT k;');
SELECT accepted('SELECT name || '':'' || k AS label, max(name || i8) AS last FROM events GROUP BY 1');

-- not one SELECT -------------------------------------------------------------
SELECT refusal(NULL);
SELECT refusal('');
SELECT refusal('SELECT k, count(*) FROM events GROUP BY k; SELECT 1');
SELECT refusal('INSERT INTO events (id) VALUES (1)');
SELECT refusal('CREATE TABLE a (b int)');
SELECT refusal('EXPLAIN SELECT k, count(*) FROM events GROUP BY k');
SELECT refusal('SELECT k, count(*) INTO copy FROM events GROUP BY k');
SELECT refusal('SELECT k, count(* FROM events');
SELECT refusal('SELECT nope, count(*) FROM events GROUP BY nope');
SELECT refusal('SELECT k, count(*) FROM nowhere GROUP BY k');
SELECT refusal('SELECT k, v, count(*) FROM events GROUP BY k');
SELECT refusal('SELECT k, count(*) FROM events WHERE v = $1 GROUP BY k');
\set VERBOSITY default
SELECT weir.explain_definition('SELECT k, count(* FROM events');

-- sources --------------------------------------------------------------------
CREATE VIEW events_view AS SELECT * FROM events;
CREATE MATERIALIZED VIEW events_matview AS SELECT * FROM events;
CREATE FOREIGN DATA WRAPPER definition_test_wrapper;
CREATE SERVER definition_test_server FOREIGN DATA WRAPPER definition_test_wrapper;
CREATE FOREIGN TABLE events_foreign (k int) SERVER definition_test_server;
CREATE TEMP TABLE events_temp (k int);
CREATE UNLOGGED TABLE events_unlogged (k int);
ALTER TABLE events_unlogged REPLICA IDENTITY FULL;
CREATE SEQUENCE events_seq;
CREATE TABLE parent (k int);
ALTER TABLE parent REPLICA IDENTITY FULL;
CREATE TABLE child () INHERITS (parent);
CREATE TABLE parted (k int, v int) PARTITION BY LIST (k);
CREATE TABLE "parted 1" PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2) PARTITION BY LIST (v);
CREATE TABLE parted_2_1 PARTITION OF parted_2 FOR VALUES IN (1);
CREATE TABLE mixed (k int) PARTITION BY LIST (k);
CREATE FOREIGN TABLE mixed_1 PARTITION OF mixed FOR VALUES IN (1) SERVER definition_test_server;
CREATE UNLOGGED TABLE mixed_2 PARTITION OF mixed FOR VALUES IN (2);
ALTER TABLE mixed_2 REPLICA IDENTITY FULL;
SELECT refusal('SELECT 1 AS one, count(*)');
SELECT refusal('SELECT e.k, count(*) FROM events e, "Other Table" o GROUP BY e.k');
SELECT refusal('SELECT e.k, count(*) FROM events e LEFT JOIN events f USING (id) GROUP BY e.k');
SELECT refusal('SELECT k, count(*) FROM (SELECT * FROM events) e GROUP BY k');
SELECT refusal('SELECT g, count(*) FROM generate_series(1, 3) g GROUP BY g');
SELECT refusal('SELECT column1, count(*) FROM (VALUES (1), (2)) v GROUP BY column1');
SELECT refusal('SELECT k, count(*) FROM events_view GROUP BY k');
SELECT refusal('SELECT k, count(*) FROM events_matview GROUP BY k');
SELECT refusal('SELECT k, count(*) FROM events_foreign GROUP BY k');
SELECT regexp_replace(refusal('SELECT k, count(*) FROM events_temp GROUP BY k'), 'pg_temp_\d+', 'pg_temp_N');
SELECT refusal('SELECT k, count(*) FROM events_unlogged GROUP BY k');
SELECT refusal('SELECT last_value, count(*) FROM events_seq GROUP BY last_value');
SELECT refusal('SELECT relkind, count(*) FROM pg_class GROUP BY relkind');
SELECT refusal('SELECT is_supported, count(*) FROM information_schema.sql_features GROUP BY 1');
SELECT refusal('SELECT count(*) FROM weir_internal.operator');
SELECT refusal('SELECT k, count(*) FROM parent GROUP BY k');
SELECT refusal('SELECT k, count(*) FROM ONLY parent GROUP BY k');
SELECT refusal('SELECT k, count(*) FROM ONLY parted GROUP BY k');
SELECT refusal('SELECT k, count(*) FROM mixed GROUP BY k');
SELECT refusal('SELECT k, count(*) FROM events TABLESAMPLE SYSTEM (10) GROUP BY k');

-- replica identity: of the tables that hold the rows
SELECT refusal('SELECT k, count(*) FROM child GROUP BY k');
SELECT refusal('SELECT k, count(*) FROM parted GROUP BY k');
SELECT refusal('SELECT k, count(*) FROM parted_2_1 GROUP BY k');
ALTER TABLE "parted 1" REPLICA IDENTITY FULL;
ALTER TABLE parted_2_1 REPLICA IDENTITY FULL;
SELECT refusal('SELECT k, count(*) FROM parted GROUP BY k');
CREATE TABLE many (k int) PARTITION BY LIST (k);
SELECT format('CREATE TABLE many_%s PARTITION OF many FOR VALUES IN (%s)', i, i) FROM generate_series(1, 9) i
\gexec
SELECT refusal('SELECT k, count(*) FROM many GROUP BY k');
SELECT format('ALTER TABLE %s REPLICA IDENTITY FULL', relid) FROM pg_partition_tree('definition_test.many') WHERE isleaf \gexec
SELECT refusal('SELECT k, count(*) FROM many GROUP BY k');

-- rights and row security
CREATE ROLE regress_weir_definition;
CREATE ROLE regress_weir_definition_owner;
GRANT ALL ON SCHEMA definition_test TO regress_weir_definition_owner;
GRANT USAGE ON SCHEMA weir, definition_test TO regress_weir_definition;
GRANT EXECUTE ON FUNCTION weir.explain_definition TO regress_weir_definition;
GRANT SELECT (k) ON events TO regress_weir_definition;
CREATE TABLE secured (k int, v int);
ALTER TABLE secured REPLICA IDENTITY FULL;
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
ALTER TABLE secured OWNER TO regress_weir_definition_owner;
GRANT SELECT ON secured TO regress_weir_definition;
CREATE FUNCTION secret(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
REVOKE EXECUTE ON FUNCTION secret FROM PUBLIC;
SELECT refusal('SELECT k, count(*) FROM secured GROUP BY k');
SET ROLE regress_weir_definition;
SELECT refusal('SELECT k, count(*) FROM events GROUP BY k');
SELECT refusal('SELECT k, sum(v) FROM events WHERE name <> '''' GROUP BY k');
SELECT refusal('SELECT count(*) FROM "Other Table"');
SELECT refusal('SELECT k, count(*) FROM secured GROUP BY k');
SELECT refusal('SELECT secret(k) AS k, count(*) FROM events GROUP BY 1');
RESET ROLE;
ALTER TABLE secured OWNER TO regress_weir_definition;
SET ROLE regress_weir_definition;
SELECT refusal('SELECT k, count(*) FROM secured GROUP BY k');
RESET ROLE;
ALTER TABLE secured FORCE ROW LEVEL SECURITY;
SET ROLE regress_weir_definition;
SELECT refusal('SELECT k, count(*) FROM secured GROUP BY k');
RESET ROLE;

-- clauses --------------------------------------------------------------------
SELECT refusal('SELECT k, count(*) FROM events GROUP BY k UNION ALL SELECT "Key", 1 FROM "Other Table"');
SELECT refusal('WITH e AS (SELECT * FROM events) SELECT k, count(*) FROM e GROUP BY k');
SELECT refusal('SELECT k, count(*) FROM events WHERE v IN (SELECT v FROM "Other Table") GROUP BY k');
SELECT refusal('SELECT k, (SELECT 1) AS one, count(*) FROM events GROUP BY k');
SELECT refusal('SELECT DISTINCT k, count(*) FROM events GROUP BY k');
SELECT refusal('SELECT DISTINCT ON (k) k, count(*) FROM events GROUP BY k');
SELECT refusal('SELECT DISTINCT k FROM events');
SELECT refusal('SELECT k, name, count(*) FROM events GROUP BY GROUPING SETS ((k), (name))');
SELECT refusal('SELECT k, name, count(*) FROM events GROUP BY ROLLUP (k, name)');
SELECT refusal('SELECT k, grouping(k) AS g, count(*) FROM events GROUP BY k');
SELECT refusal('SELECT k, count(*) FROM events GROUP BY k HAVING count(*) > 1');
SELECT refusal('SELECT k, count(*), rank() OVER (ORDER BY k) FROM events GROUP BY k');
SELECT refusal('SELECT k, unnest(list) AS u, count(*) FROM events GROUP BY k, list');
SELECT refusal('SELECT k, count(*) FROM events GROUP BY k ORDER BY k');
SELECT refusal('SELECT k, count(*) FROM events GROUP BY k LIMIT 10 OFFSET 1');
SELECT refusal('SELECT k, count(*) FROM events GROUP BY k FETCH FIRST ROW ONLY');
SELECT refusal('SELECT id, name FROM events FOR UPDATE');
SELECT refusal('SELECT id, name FROM events WHERE v > 3');
SELECT refusal('TABLE "Other Table"');
SELECT refusal('VALUES (1), (2)');

-- functions ------------------------------------------------------------------
CREATE FUNCTION stable_one(int) RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
CREATE FUNCTION volatile_less(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT $1 < $2';
CREATE OPERATOR <<< (LEFTARG = int, RIGHTARG = int, FUNCTION = volatile_less);
CREATE FUNCTION pg_temp.here(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE DOMAIN stable_domain AS int CHECK (definition_test.stable_one(VALUE) > 0);
SELECT refusal('SELECT k, count(*) FROM events WHERE atz > now() GROUP BY k');
SELECT refusal('SELECT k, sum(v * random()) AS r FROM events GROUP BY k');
SELECT refusal('SELECT k, count(*) FROM events WHERE day = CURRENT_DATE GROUP BY k');
SELECT refusal('SELECT k, CURRENT_USER AS who, LOCALTIMESTAMP(0) AS at, count(*) FROM events GROUP BY k');
SELECT refusal('SELECT k, nextval(''events_seq'') AS n, count(*) FROM events GROUP BY k');
SELECT refusal('SELECT atz::text AS t, count(*) FROM events GROUP BY 1');
SELECT refusal('SELECT atz::date AS d, count(*) FROM events GROUP BY 1');
SELECT refusal('SELECT date_trunc(''day'', atz) AS d, count(*) FROM events GROUP BY 1');
SELECT refusal('SELECT to_char(at, ''YYYY'') AS y, count(*) FROM events GROUP BY 1');
SELECT refusal('SELECT k, count(*) FROM events WHERE atz > at GROUP BY k');
SELECT refusal('SELECT k, count(*) FROM events WHERE atz + ''1 day''::interval > ''2020-01-01 UTC'' GROUP BY k');
SELECT refusal('SELECT stable_one(k) AS k, count(*) FROM events GROUP BY 1');
SELECT refusal('SELECT k, count(*) FILTER (WHERE k <<< v) FROM events GROUP BY k');
SELECT refusal('SELECT pg_temp.here(k) AS k, count(*) FROM events GROUP BY 1') ~ '^0A000: function pg_temp_\d+.here\(integer\) is temporary';
CREATE TYPE pg_temp.color AS ENUM ('red');
CREATE DOMAIN pg_temp.small AS int;
CREATE TYPE pg_temp.pair AS (a int, b int);
SELECT regexp_replace(refusal(format('SELECT %s, count(*) AS n FROM events GROUP BY k', part)), 'pg_temp_\d+', 'pg_temp', 'g')
FROM unnest(ARRAY['NULL::pg_temp.color AS c, k', 'k::pg_temp.small AS k', 'ROW(k, 1)::pg_temp.pair AS p', 'NULL::pg_temp.color[] AS a']) part;
SELECT refusal('SELECT k, count(*) FROM events WHERE v::stable_domain > 1 GROUP BY k');
SELECT refusal('SELECT atz::recent AS r, count(*) FROM events GROUP BY 1');
SELECT refusal('SELECT k, max(v) + random() AS r FROM events GROUP BY k');
SELECT refusal('SELECT name || now() AS n, count(*) FROM events GROUP BY 1');
SELECT refusal('SELECT concat(name, k) AS n, count(*) FROM events GROUP BY 1');

-- columns --------------------------------------------------------------------
SELECT refusal('SELECT xmin, count(*) FROM events GROUP BY xmin');
SELECT refusal('SELECT tableoid::regclass AS t, count(*) FROM events GROUP BY tableoid');
SELECT refusal('SELECT events, count(*) FROM events GROUP BY events') ~ '42883';
SELECT refusal('SELECT k, count(events) FROM events GROUP BY k');
SELECT refusal('SELECT name, id, count(*) FROM events GROUP BY id');
SELECT refusal('SELECT doc, count(*) FROM events GROUP BY doc');
SELECT refusal('SELECT place, count(*) FROM events GROUP BY place');
SELECT refusal('SELECT x, count(*) FROM events GROUP BY x');
SELECT refusal('SELECT ROW(k, v) AS r, count(*) FROM events GROUP BY 1');
SELECT refusal('SELECT k, ROW(count(*), k) AS r FROM events GROUP BY k');
SELECT refusal('SELECT fr || po AS c, count(*) FROM events GROUP BY 1');
SELECT refusal('SELECT k, sum(v), sum(n) FROM events GROUP BY k');
SELECT refusal('SELECT k, 1, 2, count(*) FROM events GROUP BY k');
SELECT refusal('SELECT k AS _weir_key, count(*) AS _weir_n FROM events GROUP BY k');
SELECT refusal('SELECT k AS ctid, count(*) FROM events GROUP BY k');
SELECT refusal('SELECT FROM events GROUP BY k');
SELECT refusal('SELECT k, ' || string_agg(format('sum(v + %s) AS c%s', i, i), ', ') || ' FROM events GROUP BY k')
FROM generate_series(1, 600) i;
SELECT refusal('SELECT max(v) FROM events GROUP BY ' || string_agg(format('k + %s', i), ', ')) FROM generate_series(1, 32) i;

-- aggregates -----------------------------------------------------------------
CREATE AGGREGATE mine(int) (SFUNC = int4pl, STYPE = int);
CREATE AGGREGATE sum(text) (SFUNC = textcat, STYPE = text);
SELECT refusal('SELECT k, count(DISTINCT v) FROM events GROUP BY k');
SELECT refusal('SELECT k, sum(v ORDER BY id) FROM events GROUP BY k');
SELECT refusal('SELECT k, array_agg(v), string_agg(name, '','') FROM events GROUP BY k');
SELECT refusal('SELECT k, percentile_cont(0.5) WITHIN GROUP (ORDER BY f8) FROM events GROUP BY k');
SELECT refusal('SELECT k, rank(3) WITHIN GROUP (ORDER BY v) FROM events GROUP BY k');
SELECT refusal('SELECT k, stddev(f8), jsonb_agg(v) AS j FROM events GROUP BY k');
SELECT refusal('SELECT k, mine(v) FROM events GROUP BY k');
SELECT refusal('SELECT k, sum(name) FROM events GROUP BY k');
SELECT refusal('SELECT k, min(fr || po) AS m FROM events GROUP BY k');
SELECT refusal('SELECT k, max(doc) FROM events GROUP BY k');
SELECT refusal('SELECT k, max(x) FROM events GROUP BY k') ~ '^(raised 42883|0A000)';

-- all at once ----------------------------------------------------------------
SELECT refusal('SELECT DISTINCT u.tableoid, random() AS r, string_agg(name, '','' ORDER BY v), count(*) AS _weir_n
    FROM events_unlogged u JOIN events_view e USING (k) WHERE atz < now()
    GROUP BY e.name, u.tableoid HAVING count(*) > 1 ORDER BY 1 LIMIT 3');

-- virtual generated columns exist since 18; elsewhere there is nothing to refuse
DO $$
BEGIN
    IF current_setting('server_version_num')::int >= 180000 THEN
        EXECUTE 'CREATE TABLE computed (k int, twice int GENERATED ALWAYS AS (k * 2) VIRTUAL)';
        ASSERT definition_test.refusal('SELECT twice, count(*) FROM computed GROUP BY 1')
            LIKE '0A000: column "twice" is a virtual generated column%';
    END IF;
END $$;

DROP OWNED BY regress_weir_definition, regress_weir_definition_owner;
DROP ROLE regress_weir_definition, regress_weir_definition_owner;
DROP SCHEMA definition_test CASCADE;
DROP FOREIGN DATA WRAPPER definition_test_wrapper CASCADE;
