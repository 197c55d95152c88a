# Claim: that somebody has locked a source when a reader starts is nobody's failure. Both
# versions of an upgrade keep their places, go on when the lock is released, and are in
# lockstep again: a candidate is not rolled back for it, also when it is alone in waiting, and
# rolling back stays possible (I6).
use strict;
use warnings;
use Test::More;
use WeirSteps;
use WeirTest;

my $node = new_node('locked', conf => "weir.restart_delay = '10ms'\n");
create_sales($node, 1000);
create_sales_operator($node);
my $next = $sales_query =~ s/ FROM/, sum(amount) \/ count(*) AS mean FROM/r;

# The main reader is started anew while a session has the source; transactions come after it.
sub restart_reader_under_lock
{
	my ($table, $left, $name) = @_;
	my $locker = open_session($node);
	$locker->query("BEGIN; LOCK TABLE $table IN ACCESS EXCLUSIVE MODE");
	kill_worker($node, 'reader');
	ok(poll_until($node, q{SELECT count(*) FROM weir.versions WHERE status = 'live'}, $left), "$name: who needs $table leaves the reader");
	$locker->query(qq{INSERT INTO $table (shop, amount) VALUES ('s1', 5000); DELETE FROM $table WHERE amount % 5 = 0; COMMIT});
	$locker->finish;
	ok(poll_until($node, q{SELECT count(*) = 2 FROM weir.versions v JOIN weir.readers r USING (reader_id)
		WHERE v.status = 'live' AND r.kind = 'main'}), '... and come back');
	return;
}

sub upgrade_is
{
	my ($expected, $name) = @_;
	return is($node->safe_psql('postgres', 'SELECT phase, rollback_possible FROM weir.upgrades ORDER BY upgrade_id DESC LIMIT 1'),
		$expected, $name);
}

$node->safe_psql('postgres', "SELECT weir.start_upgrade('totals', '$next', auto_advance => false, gates => '{\"observe\": \"0 s\"}')");
ok(poll_until($node, q{SELECT count(*) = 1 FROM weir.upgrades WHERE phase = 'validating' AND drift_missing = 0}), 'a candidate is validated');
restart_reader_under_lock('sales', 0, 'validating');
upgrade_is('validating|t', '... the upgrade goes on where it was');
is_exact($node, 'totals (shop, n, total, highest)', $sales_query, '... the old version is exact');

$node->safe_psql('postgres', q{SELECT weir.advance_upgrade('totals')});
wait_phase($node, 'totals', 'observing');
is_exact($node, 'totals', $next, 'after the shift the new one is');
restart_reader_under_lock('sales', 0, 'observing');
upgrade_is('observing|t', '... it can still be rolled back');
is_exact($node, 'totals', $next, '... the new version is exact');
$node->safe_psql('postgres', q{SELECT weir.rollback_upgrade('totals')});
is($node->safe_psql('postgres', q{SELECT weir.wait_for('totals', timeout => '60 s') IS NOT NULL}), 't', 'rolled back');
is(differences($node, '(SELECT shop, n, total, highest FROM totals) AS kept', $sales_query), '0', '... so is the old one');
is($node->safe_psql('postgres', q{SELECT count(*) FROM weir.ledger WHERE event = 'rollback_impossible'}), '0',
	'nobody said that it was impossible');

# A candidate that reads another table waits alone.
$node->safe_psql('postgres', q{
	CREATE TABLE orders (shop text, amount bigint);
	ALTER TABLE orders REPLICA IDENTITY FULL});
my $other = $sales_query =~ s/public.sales/public.orders/r;
$node->safe_psql('postgres', "SELECT weir.start_upgrade('totals', '$other', strategy => 'fresh', auto_advance => false, gates => '{\"observe\": \"0 s\"}')");
wait_phase($node, 'totals', 'validating');
restart_reader_under_lock('orders', 1, 'candidate alone');
upgrade_is('validating|t', '... the upgrade goes on');
$node->safe_psql('postgres', q{SELECT weir.advance_upgrade('totals')});
wait_phase($node, 'totals', 'observing');
$node->safe_psql('postgres', q{SELECT weir.wait_for('totals', timeout => '60 s')});
is(differences($node, '(SELECT shop, n, total, highest FROM totals) AS kept', $other), '0', '... and has lost nothing');

$node->safe_psql('postgres', q{SELECT weir.finalize_upgrade('totals')});

# The source is locked when names have changed and the reader has to make a text anew.
$node->safe_psql('postgres', q{
	CREATE TABLE visits (k int, v int);
	ALTER TABLE visits REPLICA IDENTITY FULL;
	INSERT INTO visits SELECT i % 3, i FROM generate_series(1, 100) i;
	SELECT weir.create_operator('visited', 'SELECT k, sum(v) AS s FROM public.visits GROUP BY k')});
is_exact($node, 'visited', 'SELECT k, sum(v) FROM visits GROUP BY k', 'another operator');
my $reader = worker_pid($node, 'reader');
kill 'STOP', $reader;
$node->safe_psql('postgres', q{UPDATE visits SET v = v + 1; INSERT INTO orders (shop, amount) VALUES ('s2', 1); CREATE TABLE any_name ()});
my $locker = open_session($node);
$locker->query('BEGIN; LOCK TABLE visits IN ACCESS EXCLUSIVE MODE');
kill 'CONT', $reader;
ok(poll_until($node, q{SELECT status FROM weir.versions WHERE operator = 'visited'::regclass}, 'catching_up'), 'names have changed: who needs the table leaves the reader');
$node->safe_psql('postgres', q{SELECT weir.wait_for('totals', timeout => '60 s')});
is(differences($node, '(SELECT shop, n, total, highest FROM totals) AS kept', $other), '0', '... and the others go on');
$locker->query('COMMIT');
$locker->finish;
is_exact($node, 'visited', 'SELECT k, sum(v) FROM visits GROUP BY k', '... it comes back by itself');

$node->stop;
done_testing();
