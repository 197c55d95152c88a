# Claim: the old version of an upgrade that has shifted can stop without the way back being
# lost. It keeps its place and its WAL up to weir.max_retained_wal; until it is back in lockstep
# a rollback is refused with the reason, and weir.upgrades says the same. A rollback in a
# transaction that is still open when it stops does not commit (I6); prepared before, it leaves
# an operator that has stopped and has lost nothing. Finalizing drops the place (I12).
use strict;
use warnings;
use Test::More;
use WeirSteps;
use WeirTest;

my $node = new_node('old_fails', conf => "weir.restart_delay = '10ms'\nmax_prepared_transactions = 5\n");
$node->safe_psql('postgres', q{
	CREATE TABLE readings (k int, v int);
	ALTER TABLE readings REPLICA IDENTITY FULL;
	CREATE TABLE mood (broken boolean);
	INSERT INTO mood VALUES (false);
	CREATE FUNCTION checked(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		IF (SELECT broken FROM public.mood) AND v = 13 THEN RAISE 'thirteen' USING ERRCODE = '22000'; END IF;
		RETURN v;
	END $$;
	INSERT INTO readings SELECT i % 5, i FROM generate_series(14, 100) i});
my $old_query = 'SELECT k, sum(public.checked(v)) AS total FROM public.readings GROUP BY k';
my $new_query = 'SELECT k, sum(v) AS total FROM public.readings GROUP BY k';
$node->safe_psql('postgres', qq{SELECT weir.create_operator('sums', \$\$$old_query\$\$)});
is_exact($node, 'sums', $new_query, 'an operator whose function can fail');

sub upgrade
{
	$node->safe_psql('postgres', qq{SELECT weir.start_upgrade('sums', \$\$$new_query\$\$, gates => '{"observe": "0 s"}')});
	return wait_phase($node, 'sums', 'observing');
}

sub old_is
{
	my ($status, $name) = @_;
	return ok(poll_until($node, q{SELECT v.status FROM weir.versions v JOIN weir.upgrades u ON u.operator = v.operator
		AND u.from_version = v.version ORDER BY u.upgrade_id DESC LIMIT 1}, $status), $name);
}

sub fail_old
{
	my ($name) = @_;
	$node->safe_psql('postgres', 'UPDATE mood SET broken = true');
	$node->safe_psql('postgres', 'INSERT INTO readings VALUES (3, 13)');
	return old_is('stopped', "$name: the old version stops");
}

sub mend
{
	$node->safe_psql('postgres', 'UPDATE mood SET broken = false');
	return $node->safe_psql('postgres', q{SELECT weir.resume_operator('sums')});
}

sub upgrade_is
{
	my ($expected, $name) = @_;
	return is($node->safe_psql('postgres', 'SELECT phase, rollback_possible FROM weir.upgrades ORDER BY upgrade_id DESC LIMIT 1'),
		$expected, $name);
}

# ---- it stops, and comes back

upgrade();
fail_old('observing');
upgrade_is('observing|f', '... no rollback at this moment');
like($node->safe_psql('postgres', 'SELECT rollback_obstacle FROM weir.upgrades'), qr/^version 1 is stopped since .*: thirteen$/, '... for the reason');
my ($code, $error) = sqlstate_of($node, q{SELECT weir.rollback_upgrade('sums')});
is($code, '55000', '... which the call gives too');
like($error, qr/at this moment.*thirteen.*resume_operator/s, '... with the way on');
$node->safe_psql('postgres', 'INSERT INTO readings SELECT i % 5, i FROM generate_series(200, 300) i; DELETE FROM readings WHERE v = 50');
is_exact($node, 'sums', $new_query, 'the new version goes on');
$node->stop('immediate');
$node->start;
mend();
old_is('live', 'after a crash the old version is resumed');
upgrade_is('observing|t', '... so there is a way back');
is($node->safe_psql('postgres', q{SELECT count(*) FROM weir.ledger WHERE event = 'rollback_impossible'}), '0', '... and always was');

# ---- it stops while a rollback is open

my $session = open_session($node);
$session->query(q{BEGIN; SELECT weir.rollback_upgrade('sums')});
fail_old('rollback open');
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (4, 400)');
is_exact($node, 'sums', $new_query, '... the new version serves');
like($session->query('COMMIT'), qr/ERROR:  55000: .*too late.*version 1 is stopped at .*: thirteen/s, '... the rollback is refused at commit');
upgrade_is('observing|f', '... and has not happened (I9)');
is_exact($node, 'sums', $new_query, '... what is served stays');
mend();
old_is('live', '... the old version comes back');

# A rollback within the transaction is none; nor does the newest state escape an old snapshot.
$session->query(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SAVEPOINT a; SELECT weir.rollback_upgrade('sums'); ROLLBACK TO a});
fail_old('savepoint');
unlike($session->query('COMMIT'), qr/ERROR/, '... nothing to refuse');
mend();
old_is('live', '... and it comes back');
$session->query(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT weir.rollback_upgrade('sums')});
fail_old('repeatable read');
like($session->query('COMMIT'), qr/ERROR:  55000: .*too late/, '... refused');
mend();
old_is('live', '... and it comes back');

# ---- it stops after the rollback was prepared, which cannot be refused any more

$session->query(q{BEGIN; SELECT weir.rollback_upgrade('sums'); PREPARE TRANSACTION 'way_back'});
fail_old('prepared');
$node->safe_psql('postgres', q{COMMIT PREPARED 'way_back'});
is($node->safe_psql('postgres', q{SELECT version, status, sqlstate FROM weir.versions WHERE serving}), '1|stopped|22000', '... it serves, stopped');
like($node->safe_psql('postgres', q{SELECT hint FROM weir.operators}), qr/resume_operator/, '... with a hint');
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (2, 500)');
mend();
is_exact($node, 'sums', $new_query, '... and resumed it has lost nothing');

# ---- the place ends with the safe window

upgrade();
fail_old('finalize');
ok(poll_until($node, q{SELECT count(*) = 2 FROM pg_replication_slots}), '... it has a slot');
$node->safe_psql('postgres', q{SELECT weir.finalize_upgrade('sums')});
ok(poll_until($node, q{SELECT count(*) = 1 FROM pg_replication_slots}), '... that goes with it');
is_exact($node, 'sums', $new_query, '... the new version goes on');

# ---- the place is given up

mend();
$node->safe_psql('postgres', qq{SELECT weir.start_upgrade('sums', \$\$$old_query\$\$, gates => '{"observe": "0 s"}')});
wait_phase($node, 'sums', 'observing');
$node->safe_psql('postgres', q{SELECT weir.finalize_upgrade('sums')});
upgrade();
fail_old('retained WAL');
$node->append_conf('postgresql.conf', "weir.max_retained_wal = '20MB'");
$node->reload;
$node->safe_psql('postgres', q{
	CREATE TABLE filler (t text);
	INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 30000)});
ok(poll_until($node, q{SELECT reason ~ 'is lost since .*thirteen.*max_retained_wal' FROM weir.ledger WHERE event = 'rollback_impossible'}),
	'beyond weir.max_retained_wal the ledger says that there is no way back');
($code, $error) = sqlstate_of($node, q{SELECT weir.rollback_upgrade('sums')});
like("$code $error", qr/^55000 .*can no longer be.*max_retained_wal/s, '... and so does the call');
like($node->safe_psql('postgres', q{SELECT hint FROM weir.versions WHERE status = 'lost'}), qr/finalize_upgrade/, '... what is left is told');
ok(poll_until($node, q{SELECT count(*) = 1 FROM pg_replication_slots}), '... its slot is gone');
is_exact($node, 'sums', $new_query, '... the new version goes on');

$session->finish;
ok(free_of_crashes($node), 'the server did not crash');
$node->stop;
done_testing();
