-- Claim: folding is exact for each type's own arithmetic, equality and order:
-- NaN and infinities come and go, 0.0 and -0.0, 1.0 and 1.00 are one key,
-- overflow stops only the operator that overflows (I3, I7, I11).
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
CREATE SCHEMA exactness_types;
SET search_path = exactness_types;
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SET intervalstyle = 'postgres';
\pset format unaligned
\pset tuples_only on

-- The operator against its definition, computed now, both ways. Floats are summed in
-- another order by the oracle, so their definitions round.
CREATE FUNCTION compare(operator regclass) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    PERFORM weir.wait_for(operator);
    EXECUTE (SELECT format('SELECT format(''%%s: %%s rows, %%s missing, %%s extra'', %3$L, (SELECT count(*) FROM %1$s), '
        '(SELECT count(*) FROM (%2$s EXCEPT ALL SELECT * FROM %1$s) m), '
        '(SELECT count(*) FROM (SELECT * FROM %1$s EXCEPT ALL %2$s) e))', v.operator, v.definition, v.operator)
        FROM weir.versions v WHERE v.operator = $1 AND v.serving) INTO result;
    RETURN result;
END $$;

-- numeric: NaN, infinities, scale -----------------------------------------------
CREATE TABLE numbers (id int PRIMARY KEY, k int, n numeric, scaled numeric(12, 3));
ALTER TABLE numbers REPLICA IDENTITY FULL;
INSERT INTO numbers VALUES (1, 1, 1.5, 1.5), (2, 1, 2.50, 2.25), (3, 2, 'NaN', 1), (4, 2, 7, 2), (5, 3, 'Infinity', NULL), (6, NULL, NULL, 3);
SELECT operator FROM weir.create_operator('sums', 'SELECT k, sum(n) AS total, avg(n) AS mean, min(n) AS lowest, max(n) AS highest, sum(scaled) AS scaled, avg(scaled) AS scaled_mean FROM numbers GROUP BY k');
SELECT operator FROM weir.create_operator('by_value', 'SELECT n, count(*) AS c FROM numbers GROUP BY n');
SELECT compare('sums');
SELECT compare('by_value');
INSERT INTO numbers VALUES (7, 3, '-Infinity', 0), (8, 1, 'NaN', 0.001), (9, 1, 1.500, 1), (10, 4, 1.0, 1), (11, 4, 1.00, 1), (12, 4, 0.000, 1), (13, 4, -0.0, 1);
SELECT compare('sums');
SELECT k, total, mean FROM sums ORDER BY k;
SELECT compare('by_value');
-- what was infinite or not a number leaves again: the finite sum is back
DELETE FROM numbers WHERE n = 'NaN' OR n = 'Infinity';
SELECT compare('sums');
SELECT k, total FROM sums ORDER BY k;
UPDATE numbers SET n = 'Infinity' WHERE k = 4;
SELECT compare('sums');
UPDATE numbers SET n = 12345678901234567890.123456789 + id WHERE k = 4;
UPDATE numbers SET n = 1e-30 WHERE k = 1;
SELECT compare('sums');
SELECT compare('by_value');
UPDATE numbers SET n = 1 WHERE k = 1;
SELECT compare('sums');
SELECT k, total FROM sums WHERE k = 1;

-- numeric: decimal places are those of the values that are there ----------------------
-- They decide about the digits of a quotient, so two equal sums can have averages that are not.
CREATE TABLE places (id int PRIMARY KEY, k int, n numeric, fixed numeric(20, 6), keep boolean DEFAULT true);
ALTER TABLE places REPLICA IDENTITY FULL;
INSERT INTO places (id, k, n, fixed) VALUES (1, 1, 1, 1), (2, 1, 0, 0), (3, 1, 0, 0), (4, 2, 1.50, 1), (5, 2, 2, 1);
SELECT operator FROM weir.create_operator('means', 'SELECT k, avg(n) AS mean, sum(n) / 3 AS third, sum(n)::text AS shown, scale(sum(n) FILTER (WHERE keep)) AS kept, avg(fixed) AS fixed, sum(fixed * 1.0)::text AS product FROM places GROUP BY k');
SELECT operator FROM weir.create_operator('totals_only', 'SELECT k, sum(n) AS total, count(n) AS c FROM places GROUP BY k');
SELECT operator FROM weir.create_operator('mean_of_all', 'SELECT avg(n) AS mean, sum(n)::text AS shown FROM places');
SELECT compare('means'), compare('mean_of_all');
INSERT INTO places (id, k, n, fixed) VALUES (6, 1, 1e-28, 1), (7, 2, 2.500, 1), (8, 2, 1e-1500, 1);
SELECT compare('means'), compare('mean_of_all');
-- by DELETE, by UPDATE of the value, of the key and of what the filter reads
DELETE FROM places WHERE id = 6;
SELECT compare('means'), compare('mean_of_all');
SELECT mean, shown FROM means WHERE k = 1;
UPDATE places SET n = 2.5 WHERE id = 7;
UPDATE places SET k = 3 WHERE id = 8;
SELECT compare('means'), compare('mean_of_all');
UPDATE places SET keep = false WHERE id = 4;
SELECT compare('means');
SELECT kept FROM means WHERE k = 2;
UPDATE places SET n = 'NaN' WHERE id = 5;
SELECT compare('means'), compare('mean_of_all');
UPDATE places SET n = NULL WHERE k = 2;
SELECT compare('means'), compare('mean_of_all');
-- any number of places, back and forth, each place more than once
INSERT INTO places (id, k, n, fixed) SELECT i, i % 4, round(1 / i::numeric, i % 37), round(1 / i::numeric, i % 37) FROM generate_series(10, 200) i;
SELECT compare('means'), compare('mean_of_all');
UPDATE places SET n = round(n, (id * 7) % 23) WHERE id % 3 = 0;
SELECT compare('means'), compare('mean_of_all');
DELETE FROM places WHERE scale(n) > 5 AND id % 2 = 0;
SELECT compare('means'), compare('mean_of_all');
DELETE FROM places WHERE scale(n) > 5;
SELECT compare('means'), compare('mean_of_all');
-- a version that computes it all anew agrees with one that has seen it come and go, and so does one made from its state
SELECT missing, extra FROM weir.verify('means');
SELECT strategy FROM weir.start_upgrade('means', (SELECT replace(definition, ' FROM places', ', min(n) AS lowest FROM places') FROM weir.versions WHERE operator = 'means'::regclass), gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('means', 'observing');
SELECT compare('means');
SELECT strategy FROM weir.start_upgrade('totals_only', 'SELECT k, sum(n) AS total, avg(n) AS mean, sum(n)::text AS shown FROM places GROUP BY k', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('totals_only', 'observing');
INSERT INTO places (id, k, n) VALUES (301, 1, 1e-12), (302, 2, 1.0000000);
SELECT weir.wait_for('totals_only') IS NOT NULL;
DELETE FROM places WHERE id = 301;
SELECT weir.wait_for('totals_only') IS NOT NULL;
SELECT k, total, mean, shown FROM totals_only EXCEPT ALL SELECT k, sum(n), avg(n), sum(n)::text FROM places GROUP BY k;

-- float4 and float8 ----------------------------------------------------------------
CREATE TABLE floats (id int PRIMARY KEY, k int, f4 float4, f8 float8);
ALTER TABLE floats REPLICA IDENTITY FULL;
INSERT INTO floats SELECT i, i % 3, i * 1.25, i / 3.0 FROM generate_series(1, 60) i;
SELECT operator FROM weir.create_operator('float_sums', 'SELECT k, round(sum(f8)::numeric, 8) AS total, round(avg(f8)::numeric, 8) AS mean, sum(f4) AS total4, min(f8) AS lowest, max(f4) AS highest FROM floats GROUP BY k');
SELECT operator FROM weir.create_operator('float_keys', 'SELECT f8, count(*) AS c FROM floats GROUP BY f8');
SELECT operator FROM weir.create_operator('float_raw', 'SELECT k, sum(f8) AS total FROM floats WHERE k >= 5 GROUP BY k');
SELECT compare('float_sums');
UPDATE floats SET f8 = f8 * 1e10 WHERE id % 2 = 0;
UPDATE floats SET f8 = f8 / 1e10, f4 = -f4 WHERE id % 2 = 0;
DELETE FROM floats WHERE id % 5 = 0;
INSERT INTO floats VALUES (101, 4, 'Infinity', 0.0), (102, 4, 1, '-0.0');
SELECT compare('float_keys');
SELECT c FROM float_keys WHERE f8 = 0;
DELETE FROM floats WHERE k = 4;
SELECT compare('float_sums');
-- a sum that retracts: the same as never having been there, no residue
INSERT INTO floats VALUES (201, 5, 0, 1e20), (202, 5, 0, 1), (203, 5, 0, -1e20);
SELECT weir.wait_for('float_raw') IS NOT NULL;
SELECT * FROM float_raw;
DELETE FROM floats WHERE id IN (201, 203);
SELECT weir.wait_for('float_raw') IS NOT NULL;
SELECT * FROM float_raw;
UPDATE floats SET f8 = 'NaN' WHERE id = 202;
INSERT INTO floats VALUES (204, 5, 0, 2.5), (205, 5, 0, 'Infinity'), (206, 5, 0, '-Infinity');
SELECT compare('float_raw');
SELECT * FROM float_raw;
DELETE FROM floats WHERE id = 202;
SELECT * FROM compare('float_raw');
DELETE FROM floats WHERE id = 206;
SELECT * FROM compare('float_raw');
SELECT * FROM float_raw;
DELETE FROM floats WHERE id = 205;
SELECT * FROM compare('float_raw');
SELECT * FROM float_raw;

-- interval, dates, money, booleans, enums, arrays, composites, domains ---------------
CREATE TYPE mood AS ENUM ('sad', 'fine', 'glad');
CREATE DOMAIN score AS int CHECK (VALUE BETWEEN 0 AND 100);
CREATE TYPE pair AS (a int, b text);
CREATE TABLE things (id int PRIMARY KEY, m mood, s score, span interval, day date, at timestamptz, cash money, tags text[], p pair,
    doc jsonb, ip inet, u uuid, r int4range, bits bit(4), raw bytea);
ALTER TABLE things REPLICA IDENTITY FULL;
INSERT INTO things SELECT i, (ARRAY['sad', 'fine', 'glad'])[1 + i % 3]::mood, i, make_interval(months => i % 2, days => i, secs => i * 1.5::float8),
    date '2026-01-01' + i % 4, timestamptz '2026-01-01 00:00:00+00' + make_interval(hours => i), i::money, ARRAY['t' || i % 2, NULL],
    format('(%s,b)', i % 2)::pair, jsonb_build_object('a', i % 2, 'b', NULL), ('10.0.0.' || i % 3)::inet, md5((i % 4)::text)::uuid,
    int4range(i % 3, 10), (i % 4)::bit(4), decode(md5((i % 2)::text), 'hex') FROM generate_series(1, 40) i;
SELECT operator FROM weir.create_operator('spans', 'SELECT m, sum(span) AS total, avg(span) AS mean, min(span) AS shortest, max(at) AS newest, sum(cash) AS cash, max(s) AS best FROM things GROUP BY m');
SELECT operator FROM weir.create_operator('many_keys', 'SELECT m, day, tags, p, doc, ip, u, r, bits, raw, count(*) AS n, min(day) AS first, max(tags) AS last FROM things GROUP BY m, day, tags, p, doc, ip, u, r, bits, raw');
SELECT compare('spans');
SELECT compare('many_keys');
DELETE FROM things WHERE id % 3 = 1;
UPDATE things SET span = -span, m = 'sad', tags = tags || 'x'::text WHERE id % 4 = 0;
UPDATE things SET at = at - interval '1 year', cash = cash / 3, p = NULL, doc = '{"a": 1.0}', r = 'empty' WHERE id % 7 = 0;
INSERT INTO things (id) VALUES (1000), (1001);
SELECT compare('spans');
SELECT compare('many_keys');
-- intervals that are equal but written differently are one extreme and one key
CREATE TABLE spans_only (k int, span interval);
ALTER TABLE spans_only REPLICA IDENTITY FULL;
INSERT INTO spans_only VALUES (1, '1 mon'), (1, '30 days'), (1, '720 hours');
SELECT operator FROM weir.create_operator('span_keys', 'SELECT span, count(*) AS n FROM spans_only GROUP BY span');
SELECT operator FROM weir.create_operator('span_extremes', 'SELECT k, max(span) AS longest FROM spans_only GROUP BY k');
DELETE FROM spans_only WHERE span::text = '1 mon';
SELECT compare('span_keys');
SELECT compare('span_extremes');

-- text: characters of several bytes, empty strings, padding ------------
CREATE TABLE words (id int PRIMARY KEY, w text, folded text COLLATE "C", c char(5));
ALTER TABLE words REPLICA IDENTITY FULL;
INSERT INTO words VALUES (1, 'été', 'A', 'x'), (2, 'ÉTÉ', 'a', 'x '), (3, '', 'b', ''), (4, E'quote''s "and" \\', 'B', NULL), (5, '日本', NULL, 'abcde');
SELECT operator FROM weir.create_operator('by_word', 'SELECT w, count(*) AS n, max(c) AS c FROM words GROUP BY w');
SELECT operator FROM weir.create_operator('by_folded', 'SELECT folded, max(w) AS last FROM words GROUP BY folded');
SELECT operator FROM weir.create_operator('by_char', 'SELECT c, count(*) AS n FROM words GROUP BY c');
SELECT compare('by_word');
UPDATE words SET w = w || w, c = 'y' WHERE id < 4;
SELECT compare('by_word');
SELECT compare('by_char');
SELECT compare('by_folded');

-- overflow: the operator that overflows stops, the others go on ------------------------
CREATE TABLE big (id int PRIMARY KEY, v int8);
ALTER TABLE big REPLICA IDENTITY FULL;
INSERT INTO big VALUES (1, 9223372036854775807);
SELECT operator FROM weir.create_operator('wide_sum', 'SELECT sum(v) AS total FROM big');
SELECT operator FROM weir.create_operator('narrow', 'SELECT sum(v)::int8 AS total FROM big');
SELECT operator FROM weir.create_operator('argument', 'SELECT sum(v + 1) AS total FROM big WHERE id > 1');
SELECT compare('wide_sum');
SELECT compare('narrow');
INSERT INTO big VALUES (2, 1);
SELECT compare('wide_sum');
SELECT compare('argument');
CREATE PROCEDURE await_stopped(name regclass) LANGUAGE plpgsql AS $$
DECLARE
    deadline timestamptz := clock_timestamp() + interval '30 s';
BEGIN
    WHILE (SELECT status FROM weir.operators WHERE operator = name) = 'live' LOOP
        IF clock_timestamp() > deadline THEN RAISE '% is still live', name; END IF;
        COMMIT;
    END LOOP;
END $$;
CALL await_stopped('narrow');
SELECT operator, status, message, hint FROM weir.operators WHERE operator = 'narrow'::regclass;
SELECT * FROM narrow;
INSERT INTO big VALUES (3, 9223372036854775807);
CALL await_stopped('argument');
SELECT operator, status, message, hint FROM weir.operators WHERE operator = 'argument'::regclass;
SELECT compare('wide_sum');
-- the cause goes away, and a rebuild mends both
DELETE FROM big WHERE id <> 2;
SELECT from_version, to_version, strategy FROM weir.rebuild_operator('narrow');
SELECT from_version, to_version, strategy FROM weir.rebuild_operator('argument');
SELECT weir.wait_for_upgrade('narrow', 'finalized'), weir.wait_for_upgrade('argument', 'finalized');
SELECT compare('narrow');
SELECT compare('argument');
INSERT INTO big VALUES (4, 5);
SELECT compare('narrow');
SELECT compare('argument');
SELECT operator, status, message, hint FROM weir.operators WHERE operator IN ('narrow'::regclass, 'argument') ORDER BY 1;

SELECT count(weir.drop_operator(operator)) FROM weir.operators WHERE operator::text NOT LIKE '%.%';
DROP SCHEMA exactness_types CASCADE;
