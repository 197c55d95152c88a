-- Claim: of every pair of definitions the verdict is right: what has another meaning is never passed
-- off as the same, what only looks different is not refused, all objections come at once, nothing is
-- written; start_upgrade acts on the same verdict and records it; and what is reused is exact (I7).
CREATE SCHEMA compat;
SET search_path = compat, public;

CREATE TABLE t (id int PRIMARY KEY, k text, k2 int, v int, w bigint, p numeric(10,2), f float8, b boolean, d date);
CREATE TABLE other (LIKE t);
CREATE TABLE bare (LIKE t);
CREATE TABLE log (LIKE t);
ALTER TABLE t REPLICA IDENTITY FULL;
ALTER TABLE other REPLICA IDENTITY FULL;
INSERT INTO t SELECT i, 'K' || i % 5, i % 3, nullif(i % 11, 4), i * 7, i * 1.25, i / 4.0, nullif(i % 4, 0) > 1, date '2020-01-01' + i FROM generate_series(1, 60) i;
INSERT INTO log SELECT * FROM t;
CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 2 * $1; END';
CREATE FUNCTION thrice(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 3 * $1; END';

CREATE TABLE bases (base text PRIMARY KEY, definition text, options jsonb);
INSERT INTO bases VALUES
    ('a', 'SELECT k, count(*) AS n, sum(v) AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY k', '{}'),
    ('b', 'SELECT k, k2, sum(w) AS s FROM t WHERE v > 0 GROUP BY k, k2', '{}'),
    ('c', 'SELECT count(*) AS n, sum(p) AS s FROM t', '{}'),
    ('d', 'SELECT lower(k) AS lk, min(d) AS first, bool_and(b) AS all_b FROM t GROUP BY lower(k)', '{}'),
    ('e', 'SELECT k, sum(twice(v)) AS s, count(*) FILTER (WHERE v > 10) AS big FROM t GROUP BY k', '{}'),
    ('used', 'SELECT k, count(*) AS n, max(p) AS hi FROM t GROUP BY k', '{}'),
    ('appended', 'SELECT k, max(v) AS hi FROM log GROUP BY k', '{"append_only": true}'),
    ('late', 'SELECT k, count(*) AS n FROM t GROUP BY k', '{"backfill": false}');
SELECT count(weir.create_operator('compat.' || base, definition, options => options)) FROM bases \g /dev/null
SELECT weir.wait_for(NULL) \g /dev/null
CREATE VIEW uses_hi AS SELECT k, hi FROM used;

-- strategy NULL: refused. aspects: all that are not identical, but for those about the whole.
CREATE TABLE pairs (id int GENERATED ALWAYS AS IDENTITY, base text, definition text, strategy text, aspects text);
INSERT INTO pairs (base, definition, strategy, aspects) VALUES
    -- the same in other words
    ('a', 'SELECT k, count(*) AS n, sum(v) AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY k', 'reuse',
        ''),
    ('a', E'select  x.k ,\n count( * ) n , sum(x.v) s, avg(x.v) /* mean */ m, max(x.p) hi\nfrom compat.t as x group by 1 -- by k', 'reuse',
        ''),
    ('a', 'SELECT k, count(1) AS n, sum(v) AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY k', 'reuse',
        ''),
    ('a', 'SELECT max(p) AS hi, avg(v) AS m, sum(v) AS s, count(*) AS n, k FROM t GROUP BY k', 'reuse',
        ''),
    ('b', 'SELECT k, k2, sum(w) AS s FROM t WHERE v > 0 GROUP BY k2, k', 'reuse',
        'key reuse'),
    ('b', 'SELECT sum(t.w) AS s, t.k2, t.k FROM compat.t WHERE (t.v > 0) GROUP BY t.k2, t.k', 'reuse',
        'key reuse'),
    ('d', 'SELECT lower(k) AS lk, min(d) AS first, every(b) AS all_b FROM t GROUP BY 1', 'reuse',
        ''),
    ('e', 'SELECT k, sum(compat.twice(v)) AS s, count(*) FILTER (WHERE v > 10) AS big FROM t GROUP BY k', 'reuse',
        ''),
    -- other columns over what is kept
    ('a', 'SELECT k, count(*) AS n, sum(v) AS s, avg(v) AS m, max(p) AS hi, sum(v) + 1 AS more FROM t GROUP BY k', 'reuse',
        'output "more" reuse'),
    ('a', 'SELECT k, count(*) AS n, sum(v) AS s, sum(v) / count(v) AS mean, max(p) AS hi FROM t GROUP BY k', 'reuse',
        'output "mean" reuse, output "m" reuse'),
    ('a', 'SELECT k, count(*) AS n, sum(v) AS s, avg(v) AS m FROM t GROUP BY k', 'reuse',
        'output "hi" reuse, hidden state max(p) reuse'),
    ('a', 'SELECT k FROM t GROUP BY k', 'reuse',
        'output "n" reuse, output "s" reuse, output "m" reuse, output "hi" reuse, hidden state sum(v) reuse, hidden state count(v) reuse, hidden state max(p) reuse'),
    ('a', 'SELECT k, count(*) AS rows, sum(v) AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY k', 'reuse',
        'output "rows" reuse, output "n" reuse'),
    ('a', 'SELECT k, count(*) AS "N", sum(v) AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY k', 'reuse',
        'output "N" reuse, output "n" reuse'),
    ('a', 'SELECT count(*) AS n, sum(v) AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY k', 'reuse',
        'output "k" reuse'),
    ('a', 'SELECT k, k AS again, count(*) AS n, sum(v) AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY k', 'reuse',
        'output "again" reuse'),
    ('a', 'SELECT k AS again, k, count(*) AS n, sum(v) AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY k', 'reuse',
        'output "again" reuse'),
    ('a', 'SELECT k, 1 AS one, count(*) AS n, sum(v)::numeric AS wide, avg(v) AS m, max(p) AS hi FROM t GROUP BY k', 'reuse',
        'output "one" reuse, output "wide" reuse, output "s" reuse'),
    ('a', 'SELECT upper(k) AS loud, CASE WHEN count(*) > 12 THEN max(p) END AS rich, avg(v) AS m FROM t GROUP BY k', 'reuse',
        'output "loud" reuse, output "rich" reuse, output "k" reuse, output "n" reuse, output "s" reuse, output "hi" reuse'),
    ('b', 'SELECT k, sum(w) / 2 AS half, avg(w) AS mean FROM t WHERE v > 0 GROUP BY k2, k', 'reuse',
        'key reuse, output "half" reuse, output "mean" reuse, output "k2" reuse, output "s" reuse'),
    ('c', 'SELECT count(*) AS n, avg(p) AS mean, coalesce(sum(p), 0) AS total FROM t', 'reuse',
        'output "mean" reuse, output "total" reuse, output "s" reuse'),
    ('d', 'SELECT lower(k) AS lk, min(d) AS first, bool_and(b) AS all_b, bool_or(b) AS any_b, count(*) FILTER (WHERE b) AS yes FROM t GROUP BY lower(k)', 'reuse',
        'output "any_b" reuse, output "yes" reuse'),
    ('e', 'SELECT k, sum(twice(v)) AS s, thrice(count(*)::int) AS x FROM t GROUP BY k', 'reuse',
        'output "x" reuse, output "big" reuse, hidden state count(*) FILTER (WHERE (v > 10)) reuse, functions called reuse'),
    ('appended', 'SELECT k, max(v) AS hi, max(v) * 2 AS double FROM log GROUP BY k', 'reuse',
        'output "double" reuse'),
    ('late', 'SELECT k, count(*) AS n, count(*) + 1 AS next FROM t GROUP BY k', 'reuse',
        'output "next" reuse'),
    -- the same name, another meaning, still over what is kept
    ('a', 'SELECT k, sum(v) AS n, count(*) AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY k', 'reuse',
        'output "n" reuse (other), output "s" reuse (other)'),
    ('a', 'SELECT k, count(v) AS n, sum(v) AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY k', 'reuse',
        'output "n" reuse (other)'),
    ('a', 'SELECT k, count(*) AS n, sum(v) AS s, avg(v) AS m, coalesce(max(p), 0) AS hi FROM t GROUP BY k', 'reuse',
        'output "hi" reuse (other)'),
    ('a', 'SELECT k, count(*) + 1 AS n, -sum(v) AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY k', 'reuse',
        'output "n" reuse (other), output "s" reuse (other)'),
    ('a', 'SELECT k || ''!'' AS k, count(*) AS n, sum(v) AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY t.k', 'reuse',
        'output "k" reuse (other)'),
    ('c', 'SELECT count(*) AS n, sum(p) * 1.1 AS s FROM t', 'reuse',
        'output "s" reuse (other)'),
    ('d', 'SELECT lower(k) AS lk, min(d) AS first, bool_or(b) AS all_b FROM t GROUP BY lower(k)', 'reuse',
        'output "all_b" reuse (other)'),
    ('e', 'SELECT k, count(*) FILTER (WHERE v > 10) AS s, sum(twice(v)) AS big FROM t GROUP BY k', 'reuse',
        'output "s" reuse (other), output "big" reuse (other)'),
    -- what is not kept, or over other rows or groups
    ('a', 'SELECT k, count(w) AS n, sum(v) AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY k', 'backfill',
        'output "n" backfill (other), hidden state count(w) backfill'),
    ('a', 'SELECT k, count(*) AS n, sum(w)::bigint AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY k', 'backfill',
        'output "s" backfill (other), hidden state sum(w) backfill, hidden state count(w) backfill'),
    ('a', 'SELECT k, count(*) AS n, sum(v + 0) AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY k', 'backfill',
        'output "s" backfill (other), hidden state sum(v + 0) backfill, hidden state count(v + 0) backfill'),
    ('a', 'SELECT k, count(*) AS n, sum(v) FILTER (WHERE v > 0) AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY k', 'backfill',
        'output "s" backfill (other), hidden state sum(v) FILTER (WHERE (v > 0)) backfill, hidden state count(v) FILTER (WHERE (v > 0)) backfill'),
    ('a', 'SELECT k, count(*) AS n, sum(v) AS s, avg(v) AS m, max(p) AS hi, sum(v::bigint) AS wide FROM t GROUP BY k', 'backfill',
        'output "wide" backfill, hidden state sum((v)::bigint) backfill, hidden state count((v)::bigint) backfill'),
    ('a', 'SELECT k, count(*) AS n, sum(v) AS s, avg(v) AS m, min(p) AS hi FROM t GROUP BY k', 'backfill',
        'output "hi" backfill (other), hidden state min(p) backfill, hidden state max(p) reuse'),
    ('a', 'SELECT k, count(*) AS n, sum(v) AS s, avg(v) AS m, max(p) AS hi FROM t WHERE v > 0 GROUP BY k', 'backfill',
        'filter backfill, output "k" backfill, output "n" backfill, output "s" backfill, output "m" backfill, output "hi" backfill'),
    ('a', 'SELECT upper(k) AS k, count(*) AS n, sum(v) AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY upper(k)', 'backfill',
        'key backfill, output "k" backfill (other), output "n" backfill, output "s" backfill, output "m" backfill, output "hi" backfill'),
    ('a', 'SELECT k, k2, count(*) AS n, sum(v) AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY k, k2', 'backfill',
        'key backfill, output "k" backfill, output "k2" backfill, output "n" backfill, output "s" backfill, output "m" backfill, output "hi" backfill'),
    ('a', 'SELECT count(*) AS n, sum(v) AS s, avg(v) AS m, max(p) AS hi FROM t', 'backfill',
        'key backfill, output "n" backfill, output "s" backfill, output "m" backfill, output "hi" backfill, output "k" reuse'),
    ('a', 'SELECT k, count(*) AS n, sum(v) AS s, avg(v) AS m, max(p) AS hi FROM other GROUP BY k', 'backfill',
        'inputs backfill, output "k" backfill, output "n" backfill, output "s" backfill, output "m" backfill, output "hi" backfill'),
    ('a', 'SELECT max(f) AS top, k AS key, count(*) AS n FROM t WHERE v > 3 GROUP BY k', 'backfill',
        'filter backfill, output "top" backfill, output "key" backfill, output "n" backfill, output "k" reuse, output "s" reuse, output "m" reuse, output "hi" reuse, hidden state max(f) backfill, hidden state sum(v) reuse, hidden state count(v) reuse, hidden state max(p) reuse'),
    ('b', 'SELECT k, k2, sum(w) AS s FROM t WHERE v >= 0 GROUP BY k, k2', 'backfill',
        'filter backfill, output "k" backfill, output "k2" backfill, output "s" backfill'),
    ('b', 'SELECT k, k2, sum(w) AS s FROM t GROUP BY k, k2', 'backfill',
        'filter backfill, output "k" backfill, output "k2" backfill, output "s" backfill'),
    ('b', 'SELECT k, k2, sum(w) AS s FROM t WHERE v > 0 AND b GROUP BY k, k2', 'backfill',
        'filter backfill, output "k" backfill, output "k2" backfill, output "s" backfill'),
    ('b', 'SELECT k, k2, sum(w) AS s FROM t WHERE 0 < v GROUP BY k, k2', 'backfill',
        'filter backfill, output "k" backfill, output "k2" backfill, output "s" backfill'),
    ('b', 'SELECT k, sum(w) AS s FROM t WHERE v > 0 GROUP BY k', 'backfill',
        'key backfill, output "k" backfill, output "s" backfill, output "k2" reuse'),
    ('c', 'SELECT k, count(*) AS n, sum(p) AS s FROM t GROUP BY k', 'backfill',
        'key backfill, output "k" backfill, output "n" backfill, output "s" backfill'),
    ('c', 'SELECT count(*) AS n, sum(p) AS s, max(p) AS top FROM t', 'backfill',
        'output "top" backfill, hidden state max(p) backfill'),
    ('d', 'SELECT upper(k) AS lk, min(d) AS first, bool_and(b) AS all_b FROM t GROUP BY upper(k)', 'backfill',
        'key backfill, output "lk" backfill (other), output "first" backfill, output "all_b" backfill'),
    ('d', 'SELECT lower(k) AS lk, min(d) AS first, max(d) AS last, bool_and(b) AS all_b FROM t GROUP BY lower(k)', 'backfill',
        'output "last" backfill, hidden state max(d) backfill'),
    ('e', 'SELECT k, sum(thrice(v)) AS s, count(*) FILTER (WHERE v > 10) AS big FROM t GROUP BY k', 'backfill',
        'output "s" backfill (other), hidden state sum(compat.thrice(v)) backfill, hidden state count(compat.thrice(v)) backfill, hidden state sum(compat.twice(v)) reuse, hidden state count(compat.twice(v)) reuse, functions called reuse'),
    ('e', 'SELECT k, sum(twice(v)) AS s, count(*) FILTER (WHERE v > 11) AS big FROM t GROUP BY k', 'backfill',
        'output "big" backfill (other), hidden state count(*) FILTER (WHERE (v > 11)) backfill, hidden state count(*) FILTER (WHERE (v > 10)) reuse'),
    ('appended', 'SELECT k, max(v) AS hi, min(v) AS lo FROM log GROUP BY k', 'backfill',
        'output "lo" backfill, hidden state min(v) backfill'),
    -- what cannot be
    ('a', 'SELECT k, count(*) AS n, sum(v)::numeric AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY k', NULL,
        'output "s" refuse'),
    ('a', 'SELECT k, count(*)::int AS n, sum(w) AS s, avg(v) AS m, max(p) AS hi FROM t GROUP BY k', NULL,
        'output "n" refuse, output "s" refuse, hidden state sum(w) backfill, hidden state count(w) backfill'),
    ('d', 'SELECT lower(k) COLLATE "C" AS lk, min(d) AS first, bool_and(b) AS all_b FROM t GROUP BY lower(k) COLLATE "C"', NULL,
        'key backfill, output "lk" refuse, output "first" backfill, output "all_b" backfill'),
    ('used', 'SELECT k, count(*) AS n FROM t GROUP BY k', NULL,
        'output "hi" refuse, hidden state max(p) reuse'),
    ('used', 'SELECT k, count(*) AS n, max(p) AS top FROM t GROUP BY k', NULL,
        'output "hi" refuse, output "top" reuse'),
    ('used', 'SELECT k, count(*) AS rows, max(p) AS hi FROM t GROUP BY k', 'reuse',
        'output "rows" reuse, output "n" reuse'),
    ('late', 'SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k', NULL,
        'output "s" backfill, hidden state sum(v) backfill, hidden state count(v) backfill, retention refuse'),
    ('a', 'SELECT k, count(*) AS n FROM t GROUP BY k HAVING count(*) > 1', NULL,
        'definition refuse'),
    ('a', 'SELECT k, random() AS n, count(DISTINCT v) AS s FROM t GROUP BY k LIMIT 1', NULL,
        'definition refuse, definition refuse, definition refuse'),
    ('a', 'SELECT k, stddev(v) AS m FROM t GROUP BY k', NULL,
        'definition refuse'),
    ('a', 'SELECT k, count(* FROM t GROUP BY k', NULL,
        'definition refuse'),
    ('a', 'SELECT kk, count(*) AS n FROM t GROUP BY kk', NULL,
        'definition refuse'),
    ('a', 'SELECT k, count(*) AS n FROM nowhere GROUP BY k', NULL,
        'definition refuse'),
    ('a', 'DELETE FROM t', NULL,
        'definition refuse'),
    ('a', 'SELECT t.k, count(*) AS n FROM t JOIN other USING (id) GROUP BY t.k', NULL,
        'definition refuse'),
    ('a', 'SELECT k, count(*) AS n, sum(v) AS s, avg(v) AS m, max(p) AS hi FROM bare GROUP BY k', NULL,
        'definition refuse, inputs backfill, output "k" backfill, output "n" backfill, output "s" backfill, output "m" backfill, output "hi" backfill');

SELECT plan((SELECT count(*)::int FROM pairs) + 65);

-- verdicts ----------------------------------------------------------------------------------
CREATE FUNCTION judged(base text, definition text, OUT strategy text, OUT aspects text) LANGUAGE sql AS $$
SELECT max(detail ->> 'strategy') FILTER (WHERE aspect = 'strategy'),
    coalesce(string_agg(format('%s %s%s', aspect, verdict, CASE WHEN reason LIKE 'other expression%' THEN ' (other)' END), ', ' ORDER BY n)
        FILTER (WHERE verdict <> 'identical' AND aspect NOT IN ('strategy', 'rows and bytes to build', 'rollback')
            AND (aspect <> 'retention' OR verdict = 'refuse')), '')
FROM weir.check_upgrade(base::regclass, definition) WITH ORDINALITY AS c (aspect, verdict, reason, detail, n) $$;
SELECT is(j, ROW(strategy, aspects), format('%s. %s: %s', id, base, definition))
FROM pairs, LATERAL (SELECT judged(base, definition) AS j) x ORDER BY id;

-- nothing is written, all objections come at once ----------------------------------------------
BEGIN READ ONLY;
SELECT count(*) AS rows FROM pairs, weir.check_upgrade(base::regclass, definition) \gset
SELECT pg_current_xact_id_if_assigned() IS NULL AS unwritten \gset
COMMIT;
SELECT ok(:rows > 500 AND :'unwritten', 'in a read-only transaction, without a transaction id');
SELECT results_eq($$SELECT aspect, verdict, reason, detail ->> 'sqlstate', detail ->> 'hint' IS NOT NULL
    FROM weir.check_upgrade('a', 'SELECT k, random() AS n FROM t GROUP BY k HAVING count(*) > 1', migration => 'SELECT 1') WHERE aspect <> 'strategy'$$,
    $$VALUES ('definition', 'refuse', 'HAVING is not supported in a definition', '0A000', true),
        ('definition', 'refuse', 'function random() is not immutable', '42P17', true),
        ('migration', 'refuse', 'the migration does not read old', '22023', true)$$, 'all objections, with SQLSTATE and hint');
SELECT results_eq($$SELECT aspect, detail ->> 'sqlstate', detail ->> 'detail' FROM weir.check_upgrade('used', 'SELECT k, count(*)::int AS n FROM t GROUP BY k')
    WHERE verdict = 'refuse' AND aspect LIKE 'output%'$$,
    $$VALUES ('output "hi"', '2BP01', 'Used by view uses_hi.'), ('output "n"', '42804', 'It is bigint and would be integer.')$$,
    'columns of the view: gone under another view, of another type');
SELECT results_eq($$SELECT detail -> 'compare', detail -> 'not_compared' FROM weir.check_upgrade('a', 'SELECT k, count(v) AS n, sum(v) AS s FROM t GROUP BY k') WHERE aspect = 'strategy'$$,
    $$VALUES ('["k", "s"]'::jsonb, '["n"]'::jsonb)$$, 'another meaning of the same name is not compared');
SELECT results_eq($$SELECT aspect, verdict, jsonb_typeof(detail -> 'bytes_read'), jsonb_typeof(detail -> 'bytes_kept') FROM weir.check_upgrade('a', 'SELECT k, min(v) AS lo FROM t GROUP BY k')
    WHERE aspect IN ('rows and bytes to build', 'rollback')$$,
    $$VALUES ('rows and bytes to build', 'backfill', 'number', NULL), ('rollback', 'backfill', NULL, 'number')$$, 'costs are estimated');
SELECT throws_ok($$SELECT weir.check_upgrade('t', 'SELECT 1')$$, '42809', NULL, 'not an operator');
SELECT throws_ok($$SELECT weir.check_upgrade('a', NULL)$$, '22004', NULL, 'no definition');
SELECT throws_ok($$SELECT weir.check_upgrade(NULL, 'SELECT 1')$$, '22004', NULL, 'no operator');

-- with a migration ---------------------------------------------------------------------------------
-- strategy NULL: refused. aspects as above; refused: what is said against the migration.
CREATE TABLE migrations (id int GENERATED ALWAYS AS IDENTITY, base text, definition text, migration text, strategy text, aspects text, refused text);
INSERT INTO migrations (base, definition, migration, strategy, aspects, refused) VALUES
    -- what the old version keeps
    ('a', 'SELECT k, count(*) AS n, sum(v) AS s, avg(v) AS m FROM t GROUP BY k', 'SELECT k, n, s, _weir_c2 FROM old', 'convert',
        'output "hi" reuse, hidden state count(*) convert, hidden state sum(v) convert, hidden state count(v) convert, hidden state max(p) reuse', ''),
    -- other groups
    ('b', 'SELECT k, sum(w) AS s FROM t WHERE v > 0 GROUP BY k', 'SELECT k, sum(_weir_n)::bigint AS _weir_n, sum(s) AS s, sum(_weir_c2)::bigint AS _weir_c2 FROM old GROUP BY k', 'convert',
        'key convert, output "k" convert, output "s" convert, output "k2" reuse, hidden state count(*) convert, hidden state sum(w) convert, hidden state count(w) convert', ''),
    ('b', 'SELECT sum(w) AS s FROM t WHERE v > 0', 'SELECT coalesce(sum(_weir_n), 0)::bigint AS _weir_n, sum(s) AS s, coalesce(sum(_weir_c2), 0)::bigint AS _weir_c2 FROM old', 'convert',
        'key convert, output "s" convert, output "k" reuse, output "k2" reuse, hidden state count(*) convert, hidden state sum(w) convert, hidden state count(w) convert', ''),
    ('c', 'SELECT k, count(*) AS n FROM t GROUP BY k', $$SELECT NULL AS k, n FROM old$$, 'convert',
        'key convert, output "k" convert, output "n" convert, output "s" reuse, hidden state count(*) convert, hidden state sum(p) reuse, hidden state count(p) reuse', ''),
    -- other rows
    ('c', 'SELECT count(*) AS n FROM t WHERE b', 'SELECT n FROM old', 'convert',
        'filter convert, output "n" convert, output "s" reuse, hidden state count(*) convert, hidden state sum(p) reuse, hidden state count(p) reuse', ''),
    ('c', 'SELECT count(*) AS n FROM other', 'SELECT n FROM old', 'convert',
        'inputs convert, output "n" convert, output "s" reuse, hidden state count(*) convert, hidden state sum(p) reuse, hidden state count(p) reuse', ''),
    -- a new value; an expression, of which the parts are given; a key that is not shown
    ('c', 'SELECT count(*) AS n, count(b) AS nb FROM t', 'SELECT n, n AS nb FROM old', 'convert',
        'output "nb" convert, output "s" reuse, hidden state count(*) convert, hidden state count(b) convert, hidden state sum(p) reuse, hidden state count(p) reuse', ''),
    ('e', 'SELECT 10 * count(*) AS n FROM t GROUP BY k', 'SELECT k AS _weir_k1, _weir_n FROM old', 'convert',
        'output "n" reuse, output "k" reuse, output "s" reuse, output "big" reuse, hidden state count(*) convert, hidden state sum(compat.twice(v)) reuse, hidden state count(compat.twice(v)) reuse, hidden state count(*) FILTER (WHERE (v > 10)) reuse, functions called reuse', ''),
    -- the table has not all that was counted: of no matter
    ('late', 'SELECT k, k2, count(*) AS n FROM t GROUP BY k, k2', 'SELECT k, NULL::int AS k2, n FROM old', 'convert',
        'key convert, output "k" convert, output "k2" convert, output "n" convert, hidden state count(*) convert', ''),
    -- append-only: an extreme can be given
    ('appended', 'SELECT max(v) AS hi FROM log', 'SELECT sum(_weir_n)::bigint AS _weir_n, max(hi) AS hi FROM old', 'convert',
        'key convert, output "hi" convert, output "k" reuse, hidden state count(*) convert, hidden state max(v) convert', ''),
    -- refused
    ('a', 'SELECT k, max(p) AS hi FROM t GROUP BY k', 'SELECT k, _weir_n, hi FROM old', NULL, NULL, '0A000 max(p) cannot be converted'),
    ('b', 'SELECT k, sum(w) AS s FROM t WHERE v > 0 GROUP BY k', 'SELECT k, k2, sum(s)::bigint AS s FROM old GROUP BY k, k2', NULL, NULL,
        '42703 the migration has no column _weir_n, 42703 the migration has no column _weir_c2, 42703 column k2 of the migration is not kept by the new version'),
    ('b', 'SELECT k, sum(w) AS s FROM t WHERE v > 0 GROUP BY k', 'SELECT k::int, sum(_weir_n) AS _weir_n, true AS s, 1 AS _weir_c2 FROM old GROUP BY k', NULL, NULL,
        '42804 column k of the migration is integer, not text, 42804 column _weir_n of the migration is numeric, not bigint, 42804 column s of the migration is boolean, not numeric'),
    ('c', 'SELECT count(*) AS n FROM t', 'SELECT count(*) AS n FROM other', NULL, NULL, '0A000 the migration reads compat.other, 22023 the migration does not read old'),
    ('c', 'SELECT count(*) AS n FROM t', 'SELECT n + random()::bigint AS n FROM old', NULL, NULL, '42P17 function random() is not immutable'),
    ('c', 'SELECT count(*) AS n FROM t', 'SELECT n, n AS n FROM old', NULL, NULL, '42701 the migration has column n more than once'),
    ('c', 'SELECT count(*) AS n FROM t', 'SELECT n FRUM old', NULL, NULL, '42601 syntax error at or near "old"'),
    ('c', 'SELECT count(*) AS n FROM t', 'WITH d AS (DELETE FROM other RETURNING id) SELECT n FROM old', NULL, NULL, '0A000 the migration does more than reading, 0A000 the migration reads compat.other');
SELECT is(ROW(x.strategy, CASE WHEN m.strategy IS NULL THEN NULL ELSE x.aspects END, x.refused), ROW(m.strategy, m.aspects, m.refused), format('migration %s. %s: %s by %s', id, base, definition, m.migration))
FROM migrations m, LATERAL (SELECT max(detail ->> 'strategy') FILTER (WHERE aspect = 'strategy') AS strategy,
    coalesce(string_agg(format('%s %s', aspect, verdict), ', ' ORDER BY n) FILTER (WHERE verdict NOT IN ('identical', 'refuse') AND aspect NOT IN ('strategy', 'rows and bytes to build', 'rollback')), '') AS aspects,
    coalesce(string_agg(format('%s %s', detail ->> 'sqlstate', reason), ', ' ORDER BY n) FILTER (WHERE aspect = 'migration'), '') AS refused
    FROM weir.check_upgrade(base::regclass, definition, m.migration) WITH ORDINALITY AS c (aspect, verdict, reason, detail, n)) x ORDER BY id;
SELECT results_eq($$SELECT aspect, verdict, reason, detail -> 'compare' FROM weir.check_upgrade('b', 'SELECT k2, k, sum(w) AS s FROM t WHERE v > 0 GROUP BY k, k2', 'SELECT k, k2, _weir_n, s, _weir_c2 FROM old') WHERE aspect IN ('strategy', 'retention')$$,
    $$VALUES ('retention', 'identical', 'the old state is taken over with all that it holds', NULL::jsonb),
        ('strategy', 'convert', 'convert: the new state is what the migration makes of the old one, the table is not read', '["k2", "k", "s"]')$$, 'what means the same is compared');

-- a function with another body: nothing of its state is reused -----------------------------------
BEGIN;
CREATE OR REPLACE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 2 * $1 + 1; END';
SELECT results_eq($$SELECT aspect, verdict, reason FROM weir.check_upgrade('e', (SELECT definition FROM bases WHERE base = 'e')) WHERE verdict <> 'identical' AND aspect !~ '^(output|rows|roll)'$$,
    $$VALUES ('functions called', 'backfill', 'function compat.twice(integer) has another body than its state was computed with'),
        ('retention', 'backfill', 'the table holds all rows that were counted'),
        ('strategy', 'backfill', 'backfill: the new state is computed from the table, because function compat.twice(integer) has another body than its state was computed with')$$,
    'a changed body needs the table');
SELECT is((SELECT detail -> 'compare' FROM weir.check_upgrade('e', (SELECT definition FROM bases WHERE base = 'e')) WHERE aspect = 'strategy'), '[]', '... and no column means the same');
SELECT is((SELECT strategy FROM weir.start_upgrade('e', (SELECT definition FROM bases WHERE base = 'e'), gates => '{"observe": "0 s"}')), 'backfill', '... nor is it started otherwise');
ROLLBACK;
BEGIN;
CREATE OR REPLACE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 2 * $1 + 1; END';
SELECT throws_ok($$SELECT weir.start_upgrade('e', 'SELECT k FROM t GROUP BY k', strategy => 'reuse')$$, '22023',
    'state of the old version cannot be reused: function compat.twice(integer) has another body than its state was computed with', 'reuse of it is refused');
ROLLBACK;

-- rights -------------------------------------------------------------------------------------------
CREATE ROLE regress_weir_admin IN ROLE weir_admin;
CREATE ROLE regress_weir_nobody;
GRANT USAGE ON SCHEMA compat, public TO regress_weir_admin, regress_weir_nobody;
GRANT SELECT ON t TO regress_weir_admin;
SET ROLE regress_weir_admin;
SELECT results_eq($$SELECT aspect, detail ->> 'sqlstate' FROM weir.check_upgrade('c', 'SELECT count(*) AS n FROM t') WHERE verdict = 'refuse'$$,
    $$VALUES ('operator', '42501'), ('strategy', NULL)$$, 'weir_admin may look, and is told that it may not start it');
SET ROLE regress_weir_nobody;
SELECT throws_ok($$SELECT weir.check_upgrade('c', 'SELECT count(*) AS n FROM t')$$, '42501', NULL, 'others may not look');
RESET ROLE;

-- what start_upgrade does is what was said, it is recorded, and its rows are exact --------------------
-- Each pair that is reused: an operator of its own, upgraded while rows change.
CREATE TABLE tried AS SELECT id, base, definition, 'op_' || id AS name FROM pairs WHERE strategy = 'reuse' AND base NOT IN ('late', 'used', 'appended') AND id NOT IN (1, 2, 3, 8, 13, 14, 28);
SELECT count(weir.create_operator('compat.' || name, b.definition)) FROM tried JOIN bases b USING (base) \g /dev/null
SELECT weir.wait_for(NULL, timeout => '60 s') \g /dev/null
-- It has not counted the rows that go.
SELECT weir.drop_operator('late') \g /dev/null
INSERT INTO t SELECT i, 'K' || i % 6, i % 3, i % 13, i, i, i, i % 2 = 0, date '2019-01-01' + i FROM generate_series(61, 90) i;
UPDATE t SET v = v + 1, p = p - 3, b = NOT b WHERE id % 7 = 0;
SELECT results_eq($$SELECT name, (weir.start_upgrade(name::regclass, definition, gates => '{"observe": "0 s"}')).strategy FROM tried ORDER BY id$$,
    $$SELECT name, 'reuse' FROM tried ORDER BY id$$, 'all of them are started as reuse');
DELETE FROM t WHERE id % 9 = 1 OR k = 'K3';
UPDATE t SET k = 'K9', k2 = NULL WHERE id % 5 = 2;
SELECT format('SELECT weir.wait_for_upgrade(%L, ''observing'', ''60 s'');', name) FROM tried ORDER BY id
\o /dev/null
\gexec
\o
INSERT INTO t SELECT i, 'K' || i % 6, i % 3, i % 13, i, i, i, i % 2 = 0, date '2018-01-01' + i FROM generate_series(91, 99) i;
SELECT weir.wait_for(NULL, timeout => '60 s') \g /dev/null
CREATE FUNCTION differences(name text, definition text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    columns text;
    result bigint;
BEGIN
    EXECUTE format('CREATE TEMP VIEW wanted AS %s', definition);
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns FROM pg_attribute WHERE attrelid = 'pg_temp.wanted'::regclass;
    EXECUTE format('SELECT count(*) FROM ((SELECT %1$s FROM compat.%2$I EXCEPT ALL SELECT %1$s FROM wanted) UNION ALL (SELECT %1$s FROM wanted EXCEPT ALL SELECT %1$s FROM compat.%2$I)) d', columns, name) INTO result;
    DROP VIEW wanted;
    RETURN result;
END $$;
SELECT is(differences(name, definition), 0::bigint, format('%s is exact: %s', name, definition)) FROM tried ORDER BY id;
SELECT is_empty($$SELECT operator, phase, drift_missing, drift_extra FROM weir.upgrades WHERE operator IN (SELECT name::regclass FROM tried)
    AND (phase <> 'observing' OR drift_missing <> 0 OR drift_extra <> 0)$$, 'none of them drifted');
SELECT set_eq($$SELECT u.operator, u.upgrade_id, count(c.aspect) > 8, max(c.detail ->> 'strategy') FILTER (WHERE c.aspect = 'strategy') FROM weir.upgrades u
    LEFT JOIN weir.compatibility c USING (upgrade_id) WHERE u.operator IN (SELECT name::regclass FROM tried) GROUP BY u.operator, u.upgrade_id$$,
    $$SELECT operator, upgrade_id, true, strategy FROM weir.upgrades WHERE operator IN (SELECT name::regclass FROM tried)$$, 'each verdict is recorded');
SELECT results_eq($$SELECT aspect, verdict, reason FROM weir.compatibility WHERE operator = 'op_9'::regclass AND aspect ~ '^(inputs|filter|key|output|hidden|functions)'$$,
    $$SELECT aspect, verdict, reason FROM weir.check_upgrade('a', (SELECT definition FROM pairs WHERE id = 9)) WHERE aspect ~ '^(inputs|filter|key|output|hidden|functions)'$$,
    'as check_upgrade tells it');
SELECT is_empty($$SELECT c.aspect FROM weir.compatibility c JOIN weir.versions f ON f.operator = c.operator AND f.version = c.from_version
    JOIN weir.versions v ON v.operator = c.operator AND v.version = c.to_version
    WHERE from_digest <> encode(sha256(convert_to(f.query, 'UTF8')), 'hex') OR to_digest <> encode(sha256(convert_to(v.query, 'UTF8')), 'hex')$$,
    'with the digests of both definitions');
SELECT is_empty($$SELECT l.ledger_id FROM weir.ledger l JOIN weir.upgrades u USING (upgrade_id) WHERE l.to_phase = 'preparing' AND u.operator IN (SELECT name::regclass FROM tried)
    AND (l.detail ->> 'strategy' <> u.strategy OR length(l.detail ->> 'to_digest') <> 64 OR (l.detail #>> '{verdicts,identical}')::int < 1)$$, 'and in the ledger');
SELECT results_eq($$SELECT aspect, detail ->> 'sqlstate' FROM weir.check_upgrade('op_9', 'SELECT k FROM t GROUP BY k') WHERE verdict = 'refuse'$$,
    $$VALUES ('operator', '55006'), ('strategy', NULL)$$, 'one that is being upgraded says so');
SELECT weir.pause_operator('b') \g /dev/null
SELECT results_eq($$SELECT aspect, detail ->> 'sqlstate' FROM weir.check_upgrade('b', 'SELECT k FROM t WHERE v > 0 GROUP BY k, k2') WHERE verdict = 'refuse'$$,
    $$VALUES ('operator', '55000'), ('strategy', NULL)$$, 'so does one that does not run');

DROP SCHEMA compat CASCADE;
DROP OWNED BY regress_weir_admin, regress_weir_nobody;
DROP ROLE regress_weir_admin, regress_weir_nobody;
SELECT * FROM finish();
