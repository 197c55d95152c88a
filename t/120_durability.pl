# Claim: what a reader has committed stays, and what it lost it applies again. Rows that it
# writes survive that other sessions look at them while it is still at work (P1: a process
# that decodes must not be overlooked by snapshots). Its commits are asynchronous, but its
# slot never passes one that a crash takes back: after every immediate stop, with a WAL writer
# that all but sleeps, what is served equals its query (I3, I4, I7). Before a catch-up reader makes
# the main reader hold, it has flushed its own: the hold does not wait for that.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;
use WeirSteps;

my $rounds = $ENV{WEIR_DURABILITY_ROUNDS} // 15;
# Nothing is flushed for anybody who does not ask for it.
my $node = new_node('durability', conf => q{
	wal_writer_delay = '10s'
	wal_writer_flush_after = '1GB'
	weir.restart_delay = '10ms'
	checkpoint_timeout = '1h'
});

# ---- rows of a transaction that goes on while others look

$node->safe_psql('postgres', q{
	CREATE TABLE facts (k int, v int);
	ALTER TABLE facts REPLICA IDENTITY FULL;
	CREATE TABLE other (x int);
	CREATE FUNCTION patient(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
		BEGIN PERFORM pg_catalog.pg_advisory_xact_lock_shared(1201); RETURN v; END $$});
my $early_query = 'SELECT k, count(*) AS n, sum(v) AS total FROM public.facts GROUP BY k';
my $late_query = 'SELECT k, sum(public.patient(v)) AS total FROM public.facts GROUP BY k';
$node->safe_psql('postgres', "SELECT weir.create_operator('early', '$early_query')");
$node->safe_psql('postgres', "SELECT weir.create_operator('late', '$late_query')");
is_exact($node, 'early', $early_query, 'an operator');
is_exact($node, 'late', $late_query, 'another one, applied after it in the same transaction');

for my $round (1 .. 3)
{
	my $holder = open_session($node);
	$holder->query('SELECT pg_advisory_lock(1201)');
	$node->safe_psql('postgres', q{INSERT INTO facts SELECT i % 10, i FROM generate_series(1, 100) i});
	ok(poll_until($node, q{SELECT count(*) = 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE locktype = 'advisory' AND NOT granted AND backend_type = 'pg_weir reader'}),
		"round $round: the reader has written the first one's rows and waits in the second");
	my $before = ($round - 1) * 100;
	for my $look (1 .. 3)
	{
		# The completed transaction makes everything older that does not run a candidate for "aborted".
		$node->safe_psql('postgres', 'INSERT INTO other VALUES (1)');
		is($node->safe_psql('postgres', 'SELECT coalesce(sum(n), 0) FROM early'), $before, "look $look sees none of them");
	}
	$node->safe_psql('postgres', q{VACUUM weir_state.early_v1});
	$holder->query('SELECT pg_advisory_unlock(1201)');
	$holder->finish;
	is_exact($node, 'early', $early_query, '... and all of them afterwards');
	is_exact($node, 'late', $late_query, '... as those of the second');
}
$node->safe_psql('postgres', q{SELECT weir.drop_operator('late')});

# ---- commits that a crash takes back

my $extreme_query = 'SELECT k % 3 AS third, count(*) AS n, min(v) AS lowest, max(v) AS highest FROM public.facts GROUP BY k % 3';
$node->safe_psql('postgres', "SELECT weir.create_operator('extremes', '$extreme_query')");
is_exact($node, 'extremes', $extreme_query, 'an operator with side tables');
my $writes = q{
\set k random(0, 40)
BEGIN;
SET LOCAL synchronous_commit = off;
INSERT INTO facts VALUES (:k, :k * 7), (:k + 1, :k);
UPDATE facts SET v = v + 1 WHERE k = :k;
DELETE FROM facts WHERE k = :k / 2 AND v % 2 = 0;
COMMIT;
};

my $taken_back = 0;
my $position = q{SELECT processed_lsn FROM weir_internal.reader WHERE kind = 'main'};
for my $round (1 .. $rounds)
{
	my $load = start_load($node, $writes, 2);
	my $start = $node->safe_psql('postgres', q{SELECT batches FROM weir.stat_readers WHERE kind = 'main'});
	poll_until($node, qq{SELECT batches >= $start + 20 FROM weir.stat_readers WHERE kind = 'main'});
	# The loads of odd rounds end before the stop. After a checkpoint the next confirmation of
	# the slot goes to disk; then one more batch, whose commit nobody flushes.
	if ($round % 2)
	{
		stop_load($load);
		$node->safe_psql('postgres', 'CHECKPOINT');
		$node->safe_psql('postgres', q{
			SET synchronous_commit = off;
			INSERT INTO facts VALUES (1, 1);
			SELECT weir.wait_for()});
	}
	my $seen = $node->safe_psql('postgres', $position);
	$node->stop('immediate');
	stop_load($load) unless $round % 2;
	my $log_offset = -s $node->logfile;
	$node->start;
	is_exact($node, 'early', $early_query, "round $round: sums and counts are right");
	is_exact($node, 'extremes', $extreme_query, '... and minima and maxima');
	my ($from) = slurp_file($node->logfile, $log_offset) =~ /Streaming transactions committing after (\S+),/;
	is($node->safe_psql('postgres', "SELECT '$from'::pg_lsn <= '$seen'::pg_lsn OR " . ($round % 2 ? 'false' : 'true')),
		't', '... and it went on from where it was, or before');
	$taken_back++ if $node->safe_psql('postgres', "SELECT '$from'::pg_lsn < '$seen'::pg_lsn") eq 't';
}
cmp_ok($taken_back, '>=', $rounds / 5, "the stop took commits back in $taken_back of $rounds rounds");

# ---- what a catch-up reader has committed when it asks for a hold

$node->safe_psql('postgres', q{SELECT weir.pause_operator('extremes'); INSERT INTO facts VALUES (1, 1)});
ok(poll_until($node, q{SELECT count(*) = 1 FROM weir.readers WHERE kind = 'stopped' AND slot_name IS NOT NULL}), 'an operator is paused');
my $paused_at = $node->safe_psql('postgres', q{INSERT INTO facts VALUES (1, 2); SELECT pg_current_wal_lsn()});
$node->safe_psql('postgres', q{INSERT INTO facts VALUES (1, 3); SELECT weir.wait_for('early')});
$node->append_conf('postgresql.conf', "weir.crash_point = 'handover-locked#flushed'\nrestart_after_crash = off");
$node->reload;
$node->psql('postgres', q{SELECT weir.resume_operator('extremes')});
ok(wait_log($node, qr/crash point handover-locked reached/), 'killed with the hold in force');
$node->stop('immediate', fail_ok => 1);
# Without the library nobody goes on from there.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
is($node->safe_psql('postgres', "SELECT processed_lsn > '$paused_at' FROM weir_internal.reader WHERE kind = 'catch_up'"), 't',
	'... what was applied before the hold is not lost');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_weir'");
$node->restart;
is_exact($node, 'extremes', $extreme_query, '... and it goes on');

$node->stop;
done_testing();
