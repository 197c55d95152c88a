# Claim: a catch-up reader that cannot go on keeps WAL only up to weir.max_retained_wal, then its
# operator is lost and says so; one that is slow keeps its place however far it lags (I4). The slot of a build that
# was interrupted is not kept either, and the build starts over.
use strict;
use warnings;
use lib 't/perl';
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;
use WeirSteps;

my $node = new_node('main', conf => "weir.restart_delay = 2s\nmax_replication_slots = 6\n"
	. "weir.max_retained_wal = '20MB'\nweir.max_batch_rows = 1\nweir.build_chunk_rows = 1\n");
my $query = 'SELECT k, sum(public.gate(v)) AS total FROM public.readings GROUP BY k';

sub wait_status
{
	my ($operator, $status) = @_;
	return poll_until($node, "SELECT status FROM weir.operators WHERE operator = '$operator'::regclass", $status, 60);
}

# Moves the end of the WAL on by more than the limit.
sub write_wal
{
	$node->safe_psql('postgres', q{SELECT pg_logical_emit_message(true, 'filler', 'x'), pg_switch_wal()}) for 1 .. 3;
	return;
}

# Values at which whoever computes with them waits, while the holder has the lock.
sub set_gates
{
	my (@values) = @_;
	$node->safe_psql('postgres', "DELETE FROM gates; INSERT INTO gates SELECT unnest('{" . join(',', @values) . "}'::bigint[])");
	return;
}

sub wait_at_gate
{
	return poll_until($node, q{SELECT count(*) = 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE locktype = 'advisory' AND NOT granted AND backend_type = 'pg_weir reader'});
}

$node->safe_psql('postgres', q{
	CREATE TABLE readings (k int, v int);
	ALTER TABLE readings REPLICA IDENTITY FULL;
	CREATE TABLE gates (v bigint);
	CREATE FUNCTION gate(v bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		IF EXISTS (SELECT FROM public.gates g WHERE g.v = gate.v) THEN PERFORM pg_advisory_xact_lock_shared(139); END IF;
		RETURN v;
	END $$;
	INSERT INTO readings SELECT i % 5, i FROM generate_series(1, 20) i});
$node->safe_psql('postgres', "SELECT weir.create_operator('$_', '$query')") for qw(tortoise plain third fourth);
$node->safe_psql('postgres', q{SELECT weir.wait_for(NULL, timeout => '60 s')});
my $holder = open_session($node);
$holder->query('SELECT pg_advisory_lock(139)');

# ---- slow: it lags by more than the limit, and gets on

$node->safe_psql('postgres', q{SELECT weir.pause_operator('tortoise')});
ok(wait_status('tortoise', 'paused'), 'paused');
$node->safe_psql('postgres', "INSERT INTO readings VALUES (1, $_)") for 100 .. 103;
is_exact($node, 'plain', $query, 'the other one goes on');
set_gates(101);
$node->safe_psql('postgres', q{SELECT weir.resume_operator('tortoise')});
ok(wait_at_gate(), 'resumed, it is slow');
write_wal();
ok($node->safe_psql('postgres', q{SELECT max(retained_wal_bytes) > 20 * 1024 * 1024 FROM weir.readers WHERE kind = 'catch_up'}),
	'... and keeps more WAL than weir.max_retained_wal');
# Each takes a turn of the coordinator, which looks at all places afterwards.
for my $operator (qw(third fourth))
{
	$node->safe_psql('postgres', "SELECT weir.drop_operator('$operator')");
	ok(poll_until($node, "SELECT to_regclass('weir_state.${operator}_v1') IS NULL"), "$operator is removed meanwhile");
}
ok(wait_status('tortoise', 'catching_up'), '... the slow one has its place still');
# The coordinator looks when a reader ends, and many times until it starts it again.
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM weir.readers WHERE kind = 'catch_up'});
$holder->query('SELECT pg_advisory_unlock(139)');
is_exact($node, 'tortoise', $query, '... and catches up, though it had to be started again');
is($node->safe_psql('postgres', q{SELECT count(*) FROM weir.ledger WHERE event = 'lost'}), '0', 'nobody was lost');

# ---- a build that is interrupted

$holder->query('SELECT pg_advisory_lock(139)');
set_gates($node->safe_psql('postgres', 'SELECT sum(v) FROM readings WHERE k = 3'));
$node->safe_psql('postgres', q{SELECT weir.create_operator('built', 'SELECT k, public.gate(sum(v)) AS total FROM public.readings GROUP BY k')});
ok(wait_at_gate(), 'half built');
my $slot = $node->safe_psql('postgres', q{SELECT slot_name FROM weir.readers WHERE kind = 'catch_up'});
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM weir.readers WHERE kind = 'catch_up'});
set_gates();
write_wal();
ok(poll_until($node, qq{SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$slot'}, '0', 1.8), 'interrupted, it keeps no WAL');
is_exact($node, 'built', 'SELECT k, sum(v) AS total FROM public.readings GROUP BY k', '... and starts over');

# ---- nothing to catch up with

# A place begins where decoding would: let that be here.
ok(poll_until($node, q{CHECKPOINT; SELECT retained_wal_bytes < 10 * 1024 * 1024 FROM weir.readers WHERE kind = 'main'}), 'the main slot has moved on');
$node->safe_psql('postgres', q{SELECT weir.pause_operator('tortoise')});
ok(poll_until($node, q{SELECT count(*) FROM weir.readers WHERE kind = 'stopped' AND slot_name IS NOT NULL}, '1'), 'paused again');
my $main = $node->safe_psql('postgres', q{SELECT slot_name FROM weir.readers WHERE kind = 'main'});
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM weir.readers WHERE kind = 'main'});
ok(poll_until($node, qq{SELECT active FROM pg_replication_slots WHERE slot_name = '$main'}, 'f'), 'the main reader is gone');
$node->safe_psql('postgres', qq{SELECT pg_drop_replication_slot('$main')});
$node->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('taken' || i)
	FROM generate_series(1, 6 - (SELECT count(*)::int FROM pg_replication_slots)) i});
ok(wait_status('plain', 'lost'), '... with its slot');
$node->safe_psql('postgres', q{SELECT weir.resume_operator('tortoise')});
ok(wait_status('tortoise', 'catching_up'), 'resumed without a main reader');
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (1, 1)');
write_wal();
ok(wait_status('tortoise', 'lost'), 'it is lost when it keeps too much');
like($node->safe_psql('postgres', q{SELECT message || hint FROM weir.operators WHERE operator = 'tortoise'::regclass}),
	qr/max_retained_wal.*rebuild_operator\('public\.tortoise'\)/, '... says why and what to run');
ok(poll_until($node, q{SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'weir%stopped'}, '0'), '... and keeps no WAL');
$node->safe_psql('postgres', q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'taken%'});
$node->safe_psql('postgres', q{SELECT weir.rebuild_operator('tortoise')});
is($node->safe_psql('postgres', q{SELECT weir.wait_for_upgrade('tortoise', 'finalized', '60 s')}), 'finalized', 'it is rebuilt');
is_exact($node, 'tortoise', $query, '... and exact');

$holder->finish;
$node->safe_psql('postgres', 'DROP EXTENSION pg_weir CASCADE');
ok(poll_until($node, 'SELECT count(*) FROM pg_replication_slots', '0'), 'no slot is left');
$node->stop;
done_testing();
