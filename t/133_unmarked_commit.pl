# Claim: a build does not look at a row whose transaction has committed in the WAL but has not
# been marked as committed yet: taken for aborted, the row would be gone for everybody, for
# ever (I7). The moment between the two is made to last, by stopping the process that commits.
use strict;
use warnings;
use Test::More;
use WeirTest;
use WeirSteps;

my $node = new_node('unmarked', conf => "fsync = on\n");
create_sales($node, 100);
$node->safe_psql('postgres', 'CREATE TABLE other (a int)');
my $watcher = open_session($node);

# A session with an open transaction that has written; its PID and XID.
sub open_writer
{
	my ($sql) = @_;
	my $session = open_session($node);
	my ($pid, $xid) = split /\|/, $session->query("BEGIN; $sql; SELECT pg_backend_pid(), pg_current_xact_id()");
	return ($session, $pid, $xid);
}

sub reader_waits_for
{
	my ($xid, $name) = @_;
	return ok(poll_until($node, qq{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted
		AND transactionid = '$xid'}), "the build waits for $name");
}

# The build's snapshot begins to be made when the first of these ends, and is made when the
# second ends: what commits in between is known from the WAL alone.
my ($first, undef, $first_xid) = open_writer('INSERT INTO other VALUES (1)');
$node->safe_psql('postgres', "SELECT weir.create_operator('totals', '$sales_query')");
reader_waits_for($first_xid, 'the first writer');
my ($second, undef, $second_xid) = open_writer('INSERT INTO other VALUES (2)');
$first->query('COMMIT');
reader_waits_for($second_xid, 'the second');

# A commit that waits for another's flush of the WAL is stopped there; the flush goes on and
# takes it along. Whoever is not caught waiting has committed, and the next one tries.
my ($stopped, $attempts);
for my $attempt (1 .. 20)
{
	$attempts = $attempt;
	my ($flusher) = open_writer('SET LOCAL commit_delay = 100000; SET LOCAL commit_siblings = 0; INSERT INTO other VALUES (3)');
	my ($committer, $pid) = open_writer(q{INSERT INTO sales (shop, amount) VALUES ('unmarked', 1)});
	my $waits = "SELECT wait_event = 'WALWrite' FROM pg_stat_activity WHERE pid = $pid";
	$flusher->send('COMMIT');
	$committer->send('COMMIT');
	for (1 .. 50) { last if $watcher->query($waits) eq 't' }
	kill 'STOP', $pid;
	$flusher->answer;
	$flusher->finish;
	$stopped = { pid => $pid, session => $committer };
	last if $watcher->query($waits) eq 't';
	kill 'CONT', $pid;
	undef $stopped;
	$committer->answer;
	$committer->finish;
}
ok($stopped, "a transaction is committed in the WAL and not marked (attempt $attempts)") or die "no commit could be stopped\n";

$second->query('COMMIT');
ok(poll_until($node, q{SELECT (SELECT count(*) FROM weir.versions WHERE status = 'live') +
	(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_weir reader' AND wait_event IN ('Extension', 'WeirCommitMark')) > 0}),
	'the snapshot is made');
is($node->safe_psql('postgres', q{SELECT count(*) FROM weir.versions WHERE status = 'live'}), '0', '... and not used yet');
kill 'CONT', $stopped->{pid};
$stopped->{session}->answer;
$_->finish for $first, $second, $stopped->{session}, $watcher;

is($node->safe_psql('postgres', q{SELECT weir.wait_for('totals', timeout => '60 s') IS NOT NULL}), 't', 'the build goes on');
is($node->safe_psql('postgres', q{SELECT count(*) FROM sales WHERE shop = 'unmarked'}), $attempts, 'the row is there');
is_exact($node, 'totals', $sales_query, '... and is in the operator');
ok(free_of_crashes($node), 'the server did not crash');
$node->stop;
done_testing();
