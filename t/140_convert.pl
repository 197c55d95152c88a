# Claim: a conversion under load loses nothing and counts nothing twice (I7): another key by sums, with
# a way back to the old version that has everything; and what is counted of rows that the table does
# not have any more is kept, which no backfill could do. A migration that fails leaves what serves alone.
use strict;
use warnings;
use Test::More;
use WeirTest;
use WeirSteps;

my $node = new_node('convert', conf => "weir.restart_delay = '10ms'\nweir.build_chunk_rows = 100\n");

# ---- another key, while all kinds of changes come in

$node->safe_psql('postgres', q{
	CREATE TABLE facts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, b int, v numeric, w float8);
	ALTER TABLE facts REPLICA IDENTITY FULL;
	INSERT INTO facts (a, b, v, w) SELECT i % 400, i % 7, nullif(i % 9, 3) / 4.0, CASE i % 50 WHEN 0 THEN 'NaN' ELSE i / 3.0 END
	FROM generate_series(1, 20000) i});
my $fine = 'SELECT a, b, count(*) AS n, sum(v) AS total, avg(w) AS mean FROM public.facts GROUP BY a, b';
my $coarse = 'SELECT a, count(*) AS n, sum(v) AS total, avg(w) AS mean FROM public.facts GROUP BY a';
my $migration = q{SELECT a, sum(n)::bigint AS n, sum(_weir_s1) AS total, sum(_weir_s1_scales) AS _weir_s1_scales, sum(_weir_s1_nan)::bigint AS _weir_s1_nan, sum(_weir_c2)::bigint AS _weir_c2,
	sum(_weir_s3) AS _weir_s3, sum(_weir_s3_nan)::bigint AS _weir_s3_nan, sum(_weir_c4)::bigint AS _weir_c4 FROM old GROUP BY a};
my $changes = q{
\set i random(1, 20000)
\set a random(1, 450)
BEGIN;
INSERT INTO facts (a, b, v, w) VALUES (:a, :i % 7, :i, CASE WHEN :i % 20 = 0 THEN 'NaN' ELSE :i / 7.0 END);
UPDATE facts SET a = :a, v = nullif(v, 2) + 1 WHERE id = :i;
DELETE FROM facts WHERE id = :i + 1;
COMMIT;
};
# A mean of what both sum exactly, to the digits that a float's sum has.
sub coarse_is_exact
{
	my ($name) = @_;
	$node->safe_psql('postgres', q{SELECT weir.wait_for('sums', timeout => '60 s')});
	is(differences($node, '(SELECT a, n, total, mean::numeric(20, 6) FROM sums) AS s',
			'SELECT a, count(*), sum(v), avg(w::numeric)::numeric(20, 6) FROM public.facts GROUP BY a'), '0', $name);
	return;
}
sub fine_is_exact
{
	my ($name) = @_;
	$node->safe_psql('postgres', q{SELECT weir.wait_for('sums', timeout => '60 s')});
	is(differences($node, '(SELECT a, b, n, total, mean::numeric(20, 6) FROM sums) AS s',
			'SELECT a, b, count(*), sum(v), avg(w::numeric)::numeric(20, 6) FROM public.facts GROUP BY a, b'), '0', $name);
	return;
}
$node->safe_psql('postgres', "SELECT weir.create_operator('sums', '$fine')");
fine_is_exact('an operator');

my $load = start_load($node, $changes, 1);
$node->safe_psql('postgres', "SELECT weir.start_upgrade('sums', '$coarse', '$migration', gates => '{\"observe\": \"0 s\"}')");
ok(wait_phase($node, 'sums', 'observing'), 'converted under load');
is(stop_load($load), '', '... the load did not notice');
coarse_is_exact('... the new groups are exact');
is($node->safe_psql('postgres', q{SELECT strategy, rows_total BETWEEN 400 AND 450, rows_written = rows_total, built_percent FROM weir.upgrades}),
	'convert|t|t|100.0', '... as many rows were built as there are new groups');

$load = start_load($node, $changes, 1);
$node->safe_psql('postgres', q{SELECT weir.rollback_upgrade('sums')});
is(stop_load($load), '', 'rolled back under load');
fine_is_exact('... the old version has everything');
$node->safe_psql('postgres', q{SELECT weir.drop_operator('sums')});

# ---- rows that were counted and have gone

$node->safe_psql('postgres', q{
	CREATE TABLE events (day int, page text, ms int) PARTITION BY RANGE (day);
	CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (1) TO (2);
	CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (2) TO (3);
	CREATE TABLE everything (day int, page text, ms int);
	INSERT INTO events SELECT 1 + i % 2, 'page ' || i % 90, nullif(i % 11, 5) FROM generate_series(1, 6000) i;
	INSERT INTO everything SELECT * FROM events;
	SELECT weir.create_operator('views', 'SELECT page, day, count(*) AS n, sum(ms) AS spent, max(ms) AS longest FROM public.events GROUP BY page, day',
		options => '{"append_only": true}');
	SELECT weir.wait_for('views')});
$node->safe_psql('postgres', 'DROP TABLE events_1');
$load = start_load($node, q{
\set i random(1, 6000)
BEGIN;
INSERT INTO events VALUES (2, 'page ' || :i % 95, :i % 40);
INSERT INTO everything VALUES (2, 'page ' || :i % 95, :i % 40);
COMMIT;
}, 2);
$node->safe_psql('postgres', q{SELECT weir.start_upgrade('views', 'SELECT page, count(*) AS n, sum(ms) AS spent, max(ms) AS longest FROM public.events GROUP BY page',
	migration => 'SELECT page, sum(n)::bigint AS n, sum(spent)::bigint AS spent, sum(_weir_c2)::bigint AS _weir_c2, max(longest) AS longest FROM old GROUP BY page', gates => '{"observe": "0 s"}')});
ok(wait_phase($node, 'views', 'observing'), 'converted after old rows were dropped');
is(stop_load($load), '', '... the load did not notice');
$node->safe_psql('postgres', q{SELECT weir.finalize_upgrade('views'); SELECT weir.wait_for('views', timeout => '60 s')});
is(differences($node, '(SELECT page, n, spent, longest FROM views) AS v', 'SELECT page, count(*), sum(ms), max(ms) FROM everything GROUP BY page'),
	'0', '... everything that was ever counted is in it');
isnt($node->safe_psql('postgres', 'SELECT sum(n) FROM views'), $node->safe_psql('postgres', 'SELECT count(*) FROM events'),
	'... which the table has not');

# ---- a function that goes before the build, a migration that fails

$node->safe_psql('postgres', q{CREATE FUNCTION half(bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT $1 / 2'});
my $halved = q{SELECT weir.start_upgrade('views', 'SELECT count(*) AS n FROM public.events', 'SELECT public.half(sum(n)::bigint) AS n FROM old', gates => '{"observe": "0 s"}')};
$node->safe_psql('postgres', "BEGIN; $halved; DROP FUNCTION half(bigint) CASCADE; COMMIT");
ok(wait_phase($node, 'views', 'rolled_back'), 'without its migration an upgrade is rolled back');
is($node->safe_psql('postgres', q{SELECT sqlstate FROM weir.versions WHERE operator = 'views'::regclass ORDER BY version DESC LIMIT 1}), 'WE004', '... it says why');
is(differences($node, '(SELECT page, n, spent, longest FROM views) AS v', 'SELECT page, count(*), sum(ms), max(ms) FROM everything GROUP BY page'),
	'0', '... and what serves goes on');
ok(poll_until($node, q{SELECT count(*) FROM pg_class WHERE relnamespace = 'weir_state'::regnamespace AND relname LIKE '%\_migration'}, '0'), '... no migration is left');

# ---- dropped while it builds

$node->safe_psql('postgres', q{SELECT weir.start_upgrade('views', 'SELECT count(*) AS n FROM public.events', 'SELECT sum(n)::bigint AS n FROM old', gates => '{"observe": "0 s"}'); SELECT weir.drop_operator('views')});
ok(poll_until($node, q{SELECT count(*) FROM pg_class WHERE relnamespace = 'weir_state'::regnamespace AND relkind IN ('r', 'v')}, '0'),
	'an operator that is dropped while it is converted leaves nothing');
ok(free_of_crashes($node), 'the server did not crash');
$node->stop;
done_testing();
