# Claim: who does nothing costs nothing. With nobody writing, all processes of pg_weir together
# use less than half a percent of a core and write almost no WAL, while operators are live, one
# is stopped, and an upgrade observes. WAL that concerns no operator (other tables, other
# databases) does not pile up: the slot follows it; and wait_for returns at once on an idle
# server, whatever the position is the boundary of.
use strict;
use warnings;
use Test::More;
use Time::HiRes 'time';
use WeirTest;
use WeirSteps;

my $node = new_node('idle', conf => "autovacuum = off\nbgwriter_lru_maxpages = 0\ncheckpoint_timeout = 1h\n");
$node->safe_psql('postgres', 'CREATE DATABASE foreign_one');
create_sales($node, 1000);
create_sales_operator($node);
create_sales_operator($node, 'postgres', 'upgraded');
create_sales_operator($node, 'postgres', 'paused');
$node->safe_psql('postgres', q{SELECT weir.start_upgrade('upgraded', 'SELECT shop, count(*) AS n, sum(amount) AS total,
	max(amount) AS highest, min(amount) AS lowest FROM public.sales GROUP BY shop', gates => '{"observe": "0 s"}')});
wait_phase($node, 'upgraded', 'observing');
$node->safe_psql('postgres', q{SELECT weir.pause_operator('paused')});
$node->safe_psql('postgres', q{INSERT INTO sales (shop, amount) VALUES ('s1', 1)});
ok(poll_until($node, q{SELECT count(*) = 1 FROM weir.readers WHERE kind = 'stopped' AND slot_name IS NOT NULL}), 'one operator is paused');
is_exact($node, 'totals', $sales_query, 'one is live, one is being upgraded');
$node->safe_psql('postgres', 'CHECKPOINT');

# ---- CPU and WAL

sub worker_pids
{
	return split /\n/, $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pg_weir %' ORDER BY pid});
}

# The counters are whole ticks of 10 ms, and what the last write left to do is done within seconds:
# the quietest of three stretches counts.
my @pids = worker_pids();
is(scalar(@pids), 3, 'launcher, coordinator and one reader run');
my ($least_cpu, $least_wal) = (100, 1e9);
my $idle = open_session($node);
for my $stretch (1 .. 3)
{
	my $lsn = $idle->query('SELECT pg_current_wal_insert_lsn()');
	my ($cpu, $start) = (cpu_seconds(@pids), time);
	wait_idle(5);
	my $percent = 100 * (cpu_seconds(@pids) - $cpu) / (time - $start);
	my $wal = $idle->query("SELECT pg_current_wal_insert_lsn() - '$lsn'");
	note("stretch $stretch: $percent % CPU, $wal bytes of WAL");
	$least_cpu = $percent if $percent < $least_cpu;
	$least_wal = $wal if $wal < $least_wal;
	last if $least_cpu < 0.5 && $least_wal < 1000;
}
cmp_ok($least_cpu, '<', 0.5, 'percent of a core that all of pg_weir uses');
# The server itself logs running transactions now and then.
cmp_ok($least_wal, '<', 1000, 'bytes of WAL in five seconds');
is(join(' ', worker_pids()), join(' ', @pids), 'the processes are the same');

# ---- WAL of others

$node->safe_psql('postgres', q{SELECT weir.drop_operator('paused')});	# its slot is meant to stay
ok(poll_until($node, 'SELECT count(*) = 1 FROM pg_replication_slots'), 'one slot');
$node->safe_psql('foreign_one', q{CREATE TABLE filler (t text)});
$node->safe_psql('postgres', q{CREATE TABLE filler (t text)});
for my $database (qw(postgres foreign_one))
{
	my $positions = $node->safe_psql('postgres', q{SELECT batches FROM weir.stat_readers});
	$node->safe_psql($database, q{INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 100000)});
	ok(poll_until($node, q{SELECT pg_current_wal_lsn() - confirmed_flush_lsn < 16 * 1024 * 1024 FROM pg_replication_slots}, 't', 60),
		"100 MB written in $database: the slot follows");
	# A slot's restart position moves with the next running-transactions record that is confirmed.
	my ($end, $retained) = (time + 60);
	do
	{
		$node->safe_psql('postgres', 'CHECKPOINT');
		wait_idle(0.5);
		$retained = $node->safe_psql('postgres', q{SELECT retained_wal_bytes FROM weir.readers});
	} while ($retained >= 3 * 16 * 1024 * 1024 && time < $end);
	cmp_ok($retained, '<', 3 * 16 * 1024 * 1024, '... and keeps less than three segments');
	cmp_ok($node->safe_psql('postgres', q{SELECT batches FROM weir.stat_readers}) - $positions, '<', 200,
		'... at the cost of few transactions');
}
is($node->safe_psql('postgres', q{SELECT greatest(lag_bytes, 0) < 1024 * 1024 FROM weir.readers}), 't', 'no lag is shown for it');

# ---- wait_for on an idle server

my $slowest = 0;
for my $round (1 .. 60)
{
	# Messages of odd sizes, so that positions lie everywhere on pages and segments.
	my $size = 1 + ($round * 977) % 9000;
	$node->safe_psql('postgres', "SELECT pg_logical_emit_message(false, 'x', repeat('y', $size))" . ($round % 20 == 0 ? '; SELECT pg_switch_wal()' : ''));
	my $start = time;
	$node->safe_psql('postgres', q{SELECT weir.wait_for('totals', timeout => '20 s')});
	$slowest = time - $start if time - $start > $slowest;
}
cmp_ok($slowest, '<', 3, 'wait_for returns soon wherever the WAL ends');
my $odd = '';
for my $expression (
	q{pg_current_wal_insert_lsn()}, q{pg_current_wal_lsn()}, q{pg_current_wal_flush_lsn()},
	# Just past the header of the page that the WAL ends on, and of its segment.
	q{'0/0'::pg_lsn + (trunc((pg_current_wal_lsn() - '0/0'::pg_lsn) / 8192) * 8192 + 24)},
	q{'0/0'::pg_lsn + (trunc((pg_current_wal_lsn() - '0/0'::pg_lsn) / 8192) * 8192)},
	q{'0/0'::pg_lsn + (trunc((pg_current_wal_lsn() - '0/0'::pg_lsn) / 16777216) * 16777216 + 40)},
	q{'0/0'::pg_lsn + (trunc((pg_current_wal_lsn() - '0/0'::pg_lsn) / 16777216) * 16777216)},
	q{'0/1'::pg_lsn})
{
	my ($code, $error) = sqlstate_of($node, "SELECT weir.wait_for('totals', least($expression, pg_current_wal_insert_lsn()), '20 s')");
	$odd .= "$expression: $error" if $code ne '';
}
is($odd, '', 'wait_for takes any position up to the end of the WAL');
# Right after a switch the WAL ends just past a segment's header.
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
is((sqlstate_of($node, q{SELECT weir.wait_for('totals', timeout => '20 s')}))[0], '', '... also right after a switch of segments');
is((sqlstate_of($node, q{SELECT weir.wait_for('totals', pg_current_wal_insert_lsn() + 1000000)}))[0], '22023', '... and refuses the future');

$idle->finish;
$node->stop;
done_testing();
