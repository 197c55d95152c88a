# Claim: what a build wrote is found again in the table before the version is handed over: a row that
# was changed, lost or doubled in between ends the upgrade (XX001), and what serves goes on. The number
# of rows and their checksum are in the ledger, and depend on nothing but the rows.
use strict;
use warnings;
use Test::More;
use WeirSteps;
use WeirTest;

my $node = new_node('build_checked', conf => "weir.restart_delay = '10ms'\nweir.build_chunk_rows = 50\n");
# Values that are stored in every way: compressed, out of line, by reference, NULL.
$node->safe_psql('postgres', q{
	CREATE TABLE facts (k int, t text, v numeric, d oid);
	ALTER TABLE facts REPLICA IDENTITY FULL;
	INSERT INTO facts SELECT i, CASE i % 4 WHEN 0 THEN repeat('x', 5000) WHEN 1 THEN (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 200) j)
		WHEN 2 THEN 'short' END, i / 7.0, 4294967295 - i::bigint FROM generate_series(1, 200) i});
my $query = 'SELECT k, max(t) AS t, sum(v) AS v, min(d) AS d, min(d)::bigint::oid AS e FROM public.facts GROUP BY k';
my $next = 'SELECT k, max(t) AS t, sum(v) AS v, min(d) AS d, min(d)::bigint::oid AS e, bool_or(d > 7) AS b, count(*) AS n FROM public.facts GROUP BY k';
$node->safe_psql('postgres', "SELECT weir.create_operator('sums', '$query', options => '{\"append_only\": true}')");
is_exact($node, 'sums', $query, 'an operator');

sub latest
{
	my ($what) = @_;
	return $node->safe_psql('postgres', "SELECT $what FROM weir.upgrades u JOIN weir.versions v USING (operator) WHERE v.version = u.to_version ORDER BY upgrade_id DESC LIMIT 1");
}

my $tag = 0;
for my $case (
	[ 'changed', 'UPDATE weir_state.%s SET v = v + 1 WHERE k = 1' ],
	[ 'lost', 'DELETE FROM weir_state.%s WHERE k = 1' ],
	[ 'doubled', 'INSERT INTO weir_state.%1$s SELECT * FROM weir_state.%1$s WHERE k = 1' ])
{
	my ($name, $tamper) = @$case;
	$tag++;
	$node->safe_psql('postgres', "ALTER SYSTEM SET weir.crash_point = 'stop\@build-chunk#$tag'");
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	$node->safe_psql('postgres', "SELECT weir.start_upgrade('sums', '$next', gates => '{\"observe\": \"0 s\"}')");
	ok(poll_until($node, q{SELECT pg_read_file('/proc/' || pid || '/stat', 0, 100) ~ '\) T ' FROM weir.readers WHERE kind = 'catch_up' AND pid IS NOT NULL}),
		'a build stands after its first rows');
	my $pid = $node->safe_psql('postgres', q{SELECT pid FROM weir.readers WHERE kind = 'catch_up'});
	$node->safe_psql('postgres', sprintf($tamper, latest('v.state_table::text') =~ s/weir_state\.//r));
	kill 'CONT', $pid;
	ok(wait_phase($node, 'sums', 'rolled_back'), "a row is $name: the upgrade is rolled back");
	is(latest('v.sqlstate'), 'XX001', '... for that reason');
	is_exact($node, 'sums', $query, '... and what serves goes on') if $tag == 1;
}
$node->safe_psql('postgres', 'ALTER SYSTEM RESET weir.crash_point');
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');

# The same rows twice: by a backfill and by a conversion of it.
$node->safe_psql('postgres', q{SELECT weir.create_operator('plain', 'SELECT k, count(*) AS n, count(d::text::bigint) AS nd FROM public.facts GROUP BY k')});
$node->safe_psql('postgres', q{SELECT weir.wait_for('plain')});
my @builds = (q{strategy => 'backfill'}, q{migration => 'SELECT k % 100 AS k, sum(n)::bigint AS n, sum(nd)::bigint AS nd FROM old GROUP BY 1'});
for my $build (@builds)
{
	$node->safe_psql('postgres', qq{SELECT weir.start_upgrade('plain', 'SELECT k % 100 AS k, count(*) AS n, count(d::text::bigint) AS nd FROM public.facts GROUP BY k % 100', $build, gates => '{"observe": "0 s"}')});
	ok(wait_phase($node, 'plain', 'observing'), "built with $build");
	$node->safe_psql('postgres', q{SELECT weir.rollback_upgrade('plain')});
}
is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT detail ->> 'checksum'), min(detail ->> 'rows'), bool_and(detail ? 'lsn')
	FROM weir.ledger WHERE operator = 'plain' AND to_phase = 'catching_up'}),
	'2|1|100|t', '... and the ledger has the same rows and checksum for both');
ok(free_of_crashes($node), 'the server did not crash');
$node->stop;
done_testing();
