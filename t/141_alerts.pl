# Claim: each condition that needs a person is one row of weir.alerts and one notification when
# it begins, and one when it ends, however often it is looked at and whoever is killed meanwhile;
# a missed objective of lag keeps upgrades from starting and makes building give way, and
# neither alerts nor notifications tell others what an error says.
use strict;
use warnings;
use Test::More;
use WeirTest;
use WeirSteps;

my $node = new_node('alerts', conf => "autovacuum = off\nweir.build_chunk_rows = 50\n");
sub sql { return $node->safe_psql('postgres', $_[0]) }

my $listener = open_session($node);
$listener->query('LISTEN weir_alert');
my @expected;

# Waits for the row; what is to be heard of it is kept for the end.
sub raised
{
	my ($condition, $subject, $name) = @_;
	push @expected, "raised $condition $subject";
	wake();
	return ok(poll_until($node, qq{SELECT count(*) = 1 FROM weir.alerts WHERE condition = '$condition' AND cleared_at IS NULL
		AND coalesce(operator::text, 'none') = '$subject'}), $name // "$condition of $subject is raised");
}

sub cleared
{
	my ($condition, $subject) = @_;
	push @expected, "cleared $condition $subject";
	wake();
	return ok(poll_until($node, qq{SELECT count(*) = 0 FROM weir.alerts WHERE condition = '$condition' AND cleared_at IS NULL}),
		"... and cleared");
}

# A control call wakes the coordinator, which else sleeps for two seconds.
sub wake { return sql(q{SELECT weir.set_objective('share', '{"max_retained_wal": "1 TB"}')}) }

# True after a whole look of the coordinator: an alert planted by hand is cleared by the next.
sub look_again
{
	sql(q{INSERT INTO weir_internal.alert (condition, operator_id, reader_id, message, hint, detail) VALUES ('planted', 0, 1, '', '', '{}')});
	push @expected, 'cleared planted none';
	wake();
	return poll_until($node, q{SELECT count(*) = 0 FROM weir.alerts WHERE condition = 'planted' AND cleared_at IS NULL});
}

create_sales($node, 1000);
create_sales_operator($node);
sql(q{CREATE TABLE shares (k int, v int); ALTER TABLE shares REPLICA IDENTITY FULL; INSERT INTO shares VALUES (1, 1);
	CREATE ROLE bob LOGIN; CREATE ROLE watcher LOGIN IN ROLE weir_monitor});
sql(qq{SELECT weir.create_operator('$_', 'SELECT k, sum(100 / v) AS s FROM public.shares GROUP BY k')}) for qw(share upgraded);
sql(q{SELECT weir.wait_for()});
is(sql('SELECT count(*) FROM weir.alerts'), 0, 'nothing to say');

# ---- lag: an objective, upgrades, building

my $upgrade = q{SELECT weir.start_upgrade('totals', 'SELECT shop, count(*) AS n, sum(amount) AS total, max(amount) AS highest, min(amount) AS lowest
	FROM public.sales GROUP BY shop', gates => '{"observe": "0 s"}')};
sql(q{SELECT weir.set_objective('totals', '{"max_lag": "500 ms", "max_retained_wal": "1 TB"}')});
ok(look_again(), 'looked');
my $reader = worker_pid($node, 'reader');
kill 'STOP', $reader;
sql(q{INSERT INTO sales (shop, amount) VALUES ('s1', 1)});
raised('max_lag', 'totals');
ok(look_again() && look_again(), '... looked at twice more');
my ($code, $said) = sqlstate_of($node, $upgrade);
is($code, '55000', 'an upgrade may not start');
like($said, qr/misses its objective.*objective is 0.5 s.*set_objective\('public.totals', '\{\}'\)/s, '... and says why, and what to do');
sql(q{SELECT weir.create_operator('later', 'SELECT id, count(*) AS n FROM public.sales GROUP BY id')});
ok(poll_until($node, q{SELECT step = 'giving way' AND rows_written BETWEEN 50 AND 900 FROM weir.progress}), 'building gives way');
kill 'CONT', $reader;
cleared('max_lag', 'totals');
sql(q{SELECT weir.set_objective('totals', '{}')});
sql(q{SELECT weir.wait_for('later', timeout => '60 s')});
is_exact($node, 'later', 'SELECT id, count(*) AS n FROM public.sales GROUP BY id', 'then it goes on');
sql($upgrade);
wait_phase($node, 'totals', 'observing');

sql(q{UPDATE weir_internal.upgrade SET observing_until = now() + interval '10 min' WHERE phase = 'observing'});
raised('safe_window_ending', 'totals');
sql(q{SELECT weir.finalize_upgrade('totals')});
cleared('safe_window_ending', 'totals');

# ---- an operator that stops, and the old version of an upgrade; the coordinator is killed meanwhile

sql(q{SELECT weir.start_upgrade('upgraded', 'SELECT k, sum(100 / nullif(v, 0)) AS s FROM public.shares GROUP BY k', gates => '{"observe": "0 s"}')});
wait_phase($node, 'upgraded', 'observing');
sql(q{INSERT INTO shares VALUES (2, 0)});
raised('operator_stopped', 'share');
raised('rollback_impossible', 'upgraded');
my $coordinator = kill_worker($node, 'coordinator');
isnt(wait_new_worker($node, 'coordinator', $coordinator), '', 'another coordinator');
ok(look_again(), '... looks');
my $texts = q{SELECT message, hint FROM weir.alerts WHERE condition = 'operator_stopped'};
is(sql($texts), q{version 1: division by zero|SELECT weir.resume_operator('public.share');}, 'what it says to a superuser');
is($node->safe_psql('postgres', $texts, extra_params => [ '-U', 'watcher' ]), q{version 1: division by zero|SELECT weir.resume_operator('public.share');}, '... and to a monitor');
is($node->safe_psql('postgres', "SELECT condition, operator, message, hint FROM weir.alerts WHERE condition = 'operator_stopped'",
		extra_params => [ '-U', 'bob' ]), 'operator_stopped|share||', '... and to others');

sql(q{SELECT weir.finalize_upgrade('upgraded')});
cleared('rollback_impossible', 'upgraded');

# ---- its place in the WAL: near the limit, then lost

ok(poll_until($node, q{SELECT count(*) = 1 FROM weir.readers WHERE kind = 'stopped' AND slot_name IS NOT NULL}), 'it keeps its place');
sql('CREATE TABLE filler (t text)');
my $limit = sql(q{SELECT ceil(retained_wal_bytes / 1048576) + 20 FROM weir.readers WHERE kind = 'stopped'});
$node->append_conf('postgresql.conf', "weir.max_retained_wal = '${limit}MB'\n");
$node->reload;
# Up to between 80 and 100 % of it.
my $missing = sql(qq{SELECT ceil($limit * 0.9 - retained_wal_bytes / 1048576) FROM weir.readers WHERE kind = 'stopped'});
sql("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, $missing * 900)");
raised('slot_near_limit', 'share');
sql("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 20000)");
raised('operator_lost', 'share');
cleared($_, 'share') for 'operator_stopped', 'slot_near_limit';
sql(q{DELETE FROM shares WHERE v = 0; SELECT weir.rebuild_operator('share')});
cleared('operator_lost', 'share');

# ---- the reader does not run

$node->append_conf('postgresql.conf', "weir.restart_delay = '8s'\n");
$node->reload;
ok(poll_until($node, q{SELECT current_setting('weir.restart_delay') = '8s'}), 'a longer delay');
# The first end of a reader that this coordinator did not start has no delay.
$reader = kill_worker($node, 'reader');
isnt(wait_new_worker($node, 'reader', $reader), '', 'a reader is started again');
kill_worker($node, 'reader');
raised('reader_down', 'none', 'a reader that is not started again at once');
cleared('reader_down', 'none');

# ---- what was heard, in all

ok(look_again(), 'looked once more');
my $heard = $listener->query(q{SELECT 'end'});
my @heard;
for my $payload ($heard =~ /notification "weir_alert" with payload "(\{.*?\})" received/g)
{
	my ($change) = $payload =~ /"change": "(\w+)"/;
	my ($condition) = $payload =~ /"condition": "(\w+)"/;
	my ($operator) = $payload =~ /"operator": (?:"(?:public\.)?(\w+)"|null)/;
	push @heard, "$change $condition " . ($operator // 'none');
}
is(join("\n", sort @heard), join("\n", sort @expected), 'each change was notified of once');
unlike($heard, qr/division/, '... without what an error says');
is(sql(q{SELECT count(*) FROM weir.alerts WHERE cleared_at IS NULL OR cleared_at < raised_at}), 0, 'nothing is open');
sql(q{SELECT weir.drop_operator('share')});
is(sql(q{SELECT count(*) FROM weir.alerts WHERE condition = 'operator_lost'}), 0, 'those of a dropped operator are not shown');
$listener->finish;
$node->stop;
done_testing();
