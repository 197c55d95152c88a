# Claim: nothing that matters is in memory. A server that is stopped or crashes in any phase of
# an upgrade, or while a version is built, comes back by itself to where the catalogs say, and
# is exact (I3, I5, I7); a launcher, coordinator or reader that is ended comes back with its
# position, each time later when it fails at once; a reader that is killed takes the server
# down for a moment and loses nothing.
use strict;
use warnings;
use Test::More;
use Time::HiRes 'time';
use WeirTest;
use WeirSteps;

my $node = new_node('restart', conf => "weir.restart_delay = '100ms'\n");
create_sales($node, 2000);
create_sales_operator($node);
my $new_query = 'SELECT shop, count(*) AS n, sum(amount) AS total, max(amount) AS highest, min(amount) AS lowest '
  . 'FROM public.sales GROUP BY shop';
my $write_load = q{
\set shop random(1, 60)
INSERT INTO sales (shop, amount) VALUES ('s' || :shop, :shop);
UPDATE sales SET amount = amount + 1 WHERE id = :shop;
DELETE FROM sales WHERE id = :shop + 100;
};

# ---- in each phase, by each kind of stop, under load

# What holds an upgrade in a phase: an old transaction before its slot is made (a prepared one,
# which outlives the server), small pieces while rows are written, the caller's own consent.
sub hold_transaction
{
	$node->safe_psql('postgres', q{BEGIN; CREATE TABLE elsewhere (a int); PREPARE TRANSACTION 'holder'});
	return;
}

sub start_upgrade
{
	my ($options) = @_;
	$node->safe_psql('postgres', "SELECT weir.start_upgrade('totals', \$\$$new_query\$\$, strategy => 'backfill'$options, gates => '{\"observe\": \"0 s\"}')");
	return;
}

my %phase = (
	'waiting for a slot' => {
		enter => sub {
			hold_transaction();
			start_upgrade('');
			return poll_until($node, 'SELECT count(*) = 1 FROM weir.readers WHERE waiting_since IS NOT NULL');
		},
		leave => sub { $node->safe_psql('postgres', q{ROLLBACK PREPARED 'holder'}) },
	},
	'writing rows' => {
		enter => sub {
			$node->append_conf('postgresql.conf', 'weir.build_chunk_rows = 1');
			$node->reload;
			start_upgrade('');
			return poll_until($node, q{SELECT rows_written > 0 FROM weir.upgrades ORDER BY upgrade_id DESC LIMIT 1});
		},
		leave => sub { $node->append_conf('postgresql.conf', 'weir.build_chunk_rows = 20000'); $node->reload },
	},
	'validating' => {
		enter => sub {
			start_upgrade(', auto_advance => false');
			return wait_phase($node, 'totals', 'validating') eq 'validating';
		},
		leave => sub { $node->safe_psql('postgres', q{SELECT weir.advance_upgrade('totals')}) },
	},
	'observing' => {
		enter => sub { start_upgrade(''); return wait_phase($node, 'totals', 'observing') eq 'observing' },
		leave => sub { },
	});

for my $how (qw(fast immediate))
{
	for my $name (sort keys %phase)
	{
		my $load = start_load($node, $write_load, 1);
		ok($phase{$name}{enter}->(), "$name: reached");
		$node->stop($how);
		$load->{run}->finish;
		$node->start;
		$load = start_load($node, $write_load, 1);
		$phase{$name}{leave}->();
		is(wait_phase($node, 'totals', 'observing'), 'observing', "$name, $how: the upgrade goes on");
		is(stop_load($load), '', "$name, $how: load");
		is_exact($node, 'totals', $new_query, "$name, $how: the new version is exact");
		$node->safe_psql('postgres', q{SELECT weir.rollback_upgrade('totals', 'next round')});
		$node->safe_psql('postgres', q{SELECT weir.wait_for('totals')});
		is(differences($node, '(SELECT shop, n, total, highest FROM totals) AS totals', $sales_query), '0',
			"$name, $how: so is the old one");
	}
}
ok(poll_until($node, q{SELECT (SELECT count(*) FROM weir.readers) = 1 AND (SELECT count(*) FROM pg_replication_slots) = 1
	AND (SELECT count(*) FROM pg_class WHERE relnamespace = 'weir_state'::regnamespace AND relkind = 'r') = 2}),
	'nothing is left of all that');

# ---- a new operator's build

hold_transaction();
$node->safe_psql('postgres', q{SELECT weir.create_operator('counted', 'SELECT count(*) AS n FROM public.sales')});
ok(poll_until($node, 'SELECT count(*) = 1 FROM weir.readers WHERE waiting_since IS NOT NULL'), 'a new operator waits for its slot');
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', q{SELECT status FROM weir.operators WHERE operator = 'counted'::regclass}), 'building', 'and after a crash still');
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'holder'});
is_exact($node, 'counted', 'SELECT count(*) AS n FROM public.sales', 'it is built after all');

# ---- workers that are ended

for my $type (qw(reader coordinator launcher))
{
	my $before = $node->safe_psql('postgres', q{SELECT processed_lsn FROM weir.readers WHERE kind = 'main'});
	my $old = kill_worker($node, $type);
	isnt(wait_new_worker($node, $type, $old), '', "$type: another comes");
	$node->safe_psql('postgres', q{INSERT INTO sales (shop, amount) VALUES ('s1', 1)});
	is($node->safe_psql('postgres', q{SELECT weir.wait_for('totals', timeout => '60 s') IS NOT NULL}), 't', "$type: the operator goes on");
	is(differences($node, '(SELECT shop, n, total, highest FROM totals) AS totals', $sales_query), '0', "$type: exact");
	is($node->safe_psql('postgres', qq{SELECT processed_lsn >= '$before' FROM weir.readers WHERE kind = 'main'}),
		't', "$type: the position never went back");
}

my $epoch = $node->safe_psql('postgres', q{SELECT epoch FROM weir.readers WHERE kind = 'main'});
my @seen;
my $end = time + 4;
while (time < $end)
{
	my $pid = worker_pid($node, 'reader');
	push @seen, $pid if $pid ne '' && !grep { $_ eq $pid } @seen;
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)") if $pid ne '';
}
# 100 ms, 200, 400, 800, 1600: not forty times in four seconds.
cmp_ok(scalar(@seen), '<=', 7, 'a reader that ends at once again and again comes back paced');
cmp_ok(scalar(@seen), '>=', 3, '... but comes back');
$node->safe_psql('postgres', q{INSERT INTO sales (shop, amount) VALUES ('s1', 1)});
is($node->safe_psql('postgres', q{SELECT weir.wait_for('totals', timeout => '60 s') IS NOT NULL}), 't', '... and goes on in the end');
ok($node->safe_psql('postgres', qq{SELECT epoch > $epoch FROM weir.readers WHERE kind = 'main'}) eq 't', '... with a higher epoch each time');
ok(free_of_crashes($node), 'none of that was a crash');

# ---- a reader that is killed

my $load = start_load($node, $write_load, 1);
my $pid = worker_pid($node, 'reader');
kill 'KILL', $pid;
$load->{run}->finish;
isnt(wait_new_worker($node, 'reader', $pid), '', 'after kill -9 of the reader another comes');
ok(wait_log($node, qr/was terminated by signal 9/), 'the server had restarted for it');
$node->safe_psql('postgres', q{INSERT INTO sales (shop, amount) VALUES ('s1', 1)});
is($node->safe_psql('postgres', q{SELECT weir.wait_for('totals', timeout => '60 s') IS NOT NULL}), 't', 'the operator goes on');
is(differences($node, '(SELECT shop, n, total, highest FROM totals) AS totals', $sales_query), '0', '... exact');
is($node->safe_psql('postgres', q{SELECT missing, extra FROM weir.verify('totals')}), '0|0', '... and verify says so too');

# ---- stopped while nobody wrote for long; the shutdown is quick and its WAL is no surprise

my $start = time;
$node->stop('fast');
cmp_ok(time - $start, '<', 5, 'a fast stop is fast');
$node->start;
is_exact($node, 'counted', 'SELECT count(*) AS n FROM public.sales', 'after a restart without writes wait_for returns');
$node->stop;
done_testing();
