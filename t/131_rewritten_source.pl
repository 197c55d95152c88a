# Claim: a build that had to wait for a rewrite of its source does not take the rows for gone.
# A rewritten or truncated table is empty for the snapshot from before, whoever waited; the
# build notices and starts over from a new snapshot (I7).
use strict;
use warnings;
use Test::More;
use WeirTest;
use WeirSteps;

my $node = new_node('rewritten', conf => "weir.restart_delay = '10ms'\n");
$node->safe_psql('postgres', q{
	CREATE TABLE other (x int);
	ALTER TABLE other REPLICA IDENTITY FULL;
	CREATE TABLE facts (k int, v int);
	CREATE TABLE parts (k int, v int) PARTITION BY LIST (k);
	CREATE TABLE parts_0 PARTITION OF parts FOR VALUES IN (0);
	CREATE TABLE parts_1 PARTITION OF parts DEFAULT;
	ALTER TABLE facts REPLICA IDENTITY FULL;
	ALTER TABLE parts_0 REPLICA IDENTITY FULL;
	ALTER TABLE parts_1 REPLICA IDENTITY FULL;
	ALTER TABLE parts REPLICA IDENTITY FULL;
	INSERT INTO facts SELECT i % 5, i FROM generate_series(1, 1000) i;
	INSERT INTO parts SELECT i % 5, i FROM generate_series(1, 1000) i;
	SELECT weir.create_operator('standing', 'SELECT count(*) AS n FROM public.other')});
$node->safe_psql('postgres', q{SELECT weir.wait_for('standing')});

# A transaction that has written.
sub open_transaction
{
	my $session = open_session($node);
	$session->query('BEGIN; INSERT INTO other VALUES (1)');
	return ($session, $session->query('SELECT pg_current_xact_id()'));
}

sub wait_for_waiting
{
	my ($xid) = @_;
	return poll_until($node, qq{SELECT count(*) = 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE backend_type = 'pg_weir reader' AND locktype = 'transactionid' AND NOT granted AND transactionid = '$xid'::xid});
}

# Making a slot waits twice for the transactions of the time. One that begins after that is
# in nobody's way, except that it has the table when the build wants to read it.
sub build_beside
{
	my ($name, $table, $change) = @_;
	my $query = "SELECT k, count(*) AS n, sum(v) AS total FROM public.$table GROUP BY k";
	my ($first, $first_xid) = open_transaction();
	$node->safe_psql('postgres', "SELECT weir.create_operator('sums', '$query')");
	ok(wait_for_waiting($first_xid), "$name: the build waits for an older transaction");
	my ($second, $second_xid) = open_transaction();
	$first->query('COMMIT');
	ok(wait_for_waiting($second_xid), '... then for one of that time');
	my ($third) = open_transaction();
	my $answer = $third->query($change);
	is($answer, '', '... and another one changes the source');
	$second->query('COMMIT');
	ok(poll_until($node, qq{SELECT count(*) > 0 FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE backend_type = 'pg_weir reader' AND locktype = 'relation' AND NOT granted}), '... which the build waits for');
	$third->query('COMMIT');
	$_->finish for $first, $second, $third;
	is_exact($node, 'sums', $query, '... and yet it is exact');
	$node->safe_psql('postgres', "DELETE FROM $table WHERE v % 3 = 0");
	is_exact($node, 'sums', $query, '... and stays so');
	$node->safe_psql('postgres', q{SELECT weir.drop_operator('sums')});
	return;
}

build_beside('rewrite', 'facts', 'ALTER TABLE facts ADD COLUMN filled float8 DEFAULT random()');
build_beside('clustered', 'facts', 'CREATE INDEX facts_v_idx ON facts (v); CLUSTER facts USING facts_v_idx');
build_beside('truncate', 'facts', 'TRUNCATE facts; INSERT INTO facts SELECT i % 7, i FROM generate_series(1, 100) i');
build_beside('rewrite of a partition', 'parts', 'ALTER TABLE parts ADD COLUMN filled float8 DEFAULT random()');

ok(free_of_crashes($node), 'the server did not crash');
$node->stop;
done_testing();
