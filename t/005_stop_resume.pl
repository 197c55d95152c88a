# Claim: an operator that cannot apply a change stops by itself and loses nothing: the others
# of its stream go on (I11), the WAL from its position on is kept before the stream's slot may
# pass it, whoever is killed when (I4), and once the cause is gone it goes on from there and
# is exact (I7). WAL is kept up to weir.max_retained_wal; beyond, the operator is lost and
# weir.rebuild_operator mends it. A failing candidate costs its upgrade and nothing else; while
# the old version has stopped there is no way back, and nothing else is lost (I6, I11).
use strict;
use warnings;
use Test::More;
use WeirTest;
use WeirSteps;

my $node = new_node('stop_resume', conf => "weir.restart_delay = '50ms'\n");

$node->safe_psql('postgres', q{
	CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY, shop text, amount bigint, divisor bigint);
	ALTER TABLE orders REPLICA IDENTITY FULL;
	INSERT INTO orders (shop, amount, divisor) SELECT 's' || i % 7, i, 1 FROM generate_series(1, 300) i});
my %query = (
	plain => 'SELECT shop, count(*) AS n, sum(amount) AS total FROM public.orders GROUP BY shop',
	divides => 'SELECT shop, sum(amount / divisor) AS parts FROM public.orders GROUP BY shop',
	narrow => 'SELECT shop, sum(amount::smallint) AS total FROM public.orders GROUP BY shop',
	appended => 'SELECT shop, bool_or(amount > 100) AS large FROM public.orders GROUP BY shop');

sub insert_orders
{
	my (%values) = (shop => 's1', amount => 1, divisor => 1, @_);
	return $node->safe_psql('postgres',
		"INSERT INTO orders (shop, amount, divisor) VALUES ('$values{shop}', $values{amount}, $values{divisor})");
}

sub status_of
{
	my ($operator) = @_;
	return $node->safe_psql('postgres', "SELECT status FROM weir.operators WHERE operator = '$operator'::regclass");
}

sub wait_status
{
	my ($operator, $status) = @_;
	return poll_until($node, "SELECT status FROM weir.operators WHERE operator = '$operator'::regclass", $status, 60);
}

for my $name (sort keys %query)
{
	my $options = $name eq 'appended' ? ", options => '{\"append_only\": true}'" : '';
	my ($status, undef, $stderr) =
	  $node->psql('postgres', "SELECT weir.create_operator('$name', \$\$$query{$name}\$\$$options)");
	is($stderr, '', "operator $name") if $status != 0;
	$node->psql('postgres', "SELECT weir.wait_for('$name', timeout => '60 s')") if $status == 0;
}

# ---- three ways to stop, one stream that goes on

insert_orders(amount => 40000);		# too large for narrow
ok(wait_status('narrow', 'stopped'), 'overflow stops an operator');
insert_orders(divisor => 0);		# too small for divides
ok(wait_status('divides', 'stopped'), 'division by zero stops another');
$node->safe_psql('postgres', 'DELETE FROM orders WHERE id = 5');
ok(wait_status('appended', 'stopped'), 'a DELETE stops one that is append-only');
is_exact($node, 'plain', $query{plain}, 'the fourth goes on');
is($node->safe_psql('postgres', q{
	SELECT string_agg(operator::text || ' ' || sqlstate, ', ' ORDER BY operator::text) FROM weir.versions
	WHERE status = 'stopped'}), 'appended WE002, divides 22012, narrow 22003', 'each says its SQLSTATE');
my ($code, $error) = sqlstate_of($node, q{SELECT weir.wait_for('divides')});
is($code, '55000', 'waiting for one that stopped is refused');
like($error, qr/division by zero/, '... with the reason');
like($error, qr/resume_operator/, '... and what to run');
ok(poll_until($node, q{SELECT count(*) = 3 FROM weir.readers r JOIN pg_replication_slots s USING (slot_name)
	WHERE r.kind = 'stopped' AND s.confirmed_flush_lsn <= r.processed_lsn}), 'each has a slot at or before its place (I4)');
ok($node->safe_psql('postgres', q{SELECT count(*) FROM divides}) > 0, 'one that stopped serves what it had');

# ---- the stream's slot goes on, theirs stay

insert_orders(shop => 's' . $_ % 7, amount => $_) for 1 .. 5;
$node->safe_psql('postgres', q{SELECT weir.wait_for('plain')});
ok(poll_until($node, q{SELECT m.confirmed_flush_lsn > max(s.confirmed_flush_lsn)
	FROM weir.readers r JOIN pg_replication_slots m USING (slot_name), weir.readers x JOIN pg_replication_slots s USING (slot_name)
	WHERE r.kind = 'main' AND x.kind = 'stopped' GROUP BY m.confirmed_flush_lsn}), 'the stream\'s slot is past theirs');

# ---- resume before the cause is gone: stops at the same place, as often as one likes

my $place = $node->safe_psql('postgres', q{SELECT error_lsn FROM weir.versions WHERE operator = 'divides'::regclass});
for my $try (1 .. 2)
{
	$node->safe_psql('postgres', q{SELECT weir.resume_operator('divides')});
	ok(poll_until($node, qq{SELECT count(*) = $try + 1 FROM weir.ledger WHERE operator = 'divides' AND event = 'stop'}),
		"resumed in vain, try $try");
	ok(wait_status('divides', 'stopped'), '... it stops again');
}

# A row with divisor 0 came and will be met again, so the way on is a version that takes it.
$query{divides} = 'SELECT shop, sum(amount / nullif(divisor, 0)) AS parts FROM public.orders GROUP BY shop';
($code, $error) = sqlstate_of($node, qq{SELECT weir.start_upgrade('divides', \$\$$query{divides}\$\$)});
is($code, '55000', 'an operator that stopped is not upgraded like others');
like($error, qr/"repair": true/, '... but as a repair');
$node->safe_psql('postgres', qq{SELECT weir.start_upgrade('divides', \$\$$query{divides}\$\$, options => '{"repair": true}', gates => '{"observe": "0 s"}')});
wait_phase($node, 'divides', 'finalized');
is_exact($node, 'divides', $query{divides}, '... and is exact again');

# ---- resume after the cause is gone: a function of the user's that was wrong for a while

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
my $checked_query = 'SELECT k, sum(public.checked(v)) AS total FROM public.readings GROUP BY k';
my $readings_query = 'SELECT k, sum(v) AS total FROM public.readings GROUP BY k';
$node->safe_psql('postgres', qq{SELECT weir.create_operator('checked_sum', \$\$$checked_query\$\$)});
$node->safe_psql('postgres', q{SELECT weir.wait_for('checked_sum', timeout => '60 s')});
$node->safe_psql('postgres', 'UPDATE mood SET broken = true');
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (1, 1), (2, 13), (3, 3)');
ok(wait_status('checked_sum', 'stopped'), 'a function raises');
$node->safe_psql('postgres', 'INSERT INTO readings SELECT i % 5, i FROM generate_series(200, 300) i; DELETE FROM readings WHERE v = 50');
ok(poll_until($node, q{SELECT bool_and(slot_name IS NOT NULL) FROM weir.readers WHERE kind = 'stopped'}), 'its place is kept');
$node->safe_psql('postgres', q{SELECT weir.resume_operator('checked_sum')});
ok(poll_until($node, q{SELECT count(*) = 2 FROM weir.ledger WHERE operator = 'checked_sum' AND event = 'stop'}),
	'resumed too early it stops again');
$node->restart;
$node->safe_psql('postgres', 'UPDATE mood SET broken = false');
$node->safe_psql('postgres', q{SELECT weir.resume_operator('checked_sum')});
ok(wait_status('checked_sum', 'live'), 'resumed after the cause is gone it goes on');
is_exact($node, 'checked_sum', $readings_query, '... and has missed nothing, the failing batch included');

# ---- pause and resume

$node->safe_psql('postgres', q{SELECT weir.pause_operator('checked_sum')});
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (1, 1000)');
ok(wait_status('checked_sum', 'paused'), 'paused');
is_exact($node, 'plain', $query{plain}, 'the others go on');
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (1, 1001)');
$node->stop('immediate');
$node->start;
$node->safe_psql('postgres', q{SELECT weir.resume_operator('checked_sum')});
is_exact($node, 'checked_sum', $readings_query, 'resumed after a crash it has missed nothing');

# ---- rebuild

$node->safe_psql('postgres', 'UPDATE orders SET amount = 1 WHERE amount > 30000');
$node->safe_psql('postgres', q{SELECT weir.rebuild_operator('narrow')});
is($node->safe_psql('postgres', q{SELECT weir.wait_for_upgrade('narrow', 'finalized', '60 s')}), 'finalized',
	'an operator that stopped is rebuilt');
is_exact($node, 'narrow', $query{narrow}, '... and exact');

# ---- killed between the stop and the copy of the slot (I4)

for my $point (qw(batch-committed stopped-slot-copied))
{
	$node->append_conf('postgresql.conf', "weir.crash_point = '$point#stop'");
	$node->reload;
	$node->safe_psql('postgres', 'UPDATE mood SET broken = true');
	$node->psql('postgres', 'INSERT INTO readings VALUES (4, 13)');
	$node->psql('postgres', 'INSERT INTO readings VALUES (4, 14)');
	ok(wait_log($node, qr/crash point $point reached/), "killed at $point");
	ok(wait_status('checked_sum', 'stopped'), '... it stops');
	insert_orders(amount => 2);
	is_exact($node, 'plain', $query{plain}, '... the others go on');
	ok(poll_until($node, q{SELECT s.confirmed_flush_lsn <= r.processed_lsn FROM weir.readers r JOIN pg_replication_slots s USING (slot_name)
		WHERE r.kind = 'stopped' AND 'checked_sum v1' = ANY (r.versions)}), '... its slot is at or before its place');
	$node->safe_psql('postgres', 'UPDATE mood SET broken = false');
	$node->safe_psql('postgres', q{SELECT weir.resume_operator('checked_sum')});
	is_exact($node, 'checked_sum', $readings_query, '... and resumed it has missed nothing');
}
$node->append_conf('postgresql.conf', "weir.crash_point = ''");
$node->reload;

# ---- no slot is free for the copy: the stream keeps the WAL, everything else goes on

$node->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('taken' || i)
	FROM generate_series(1, (SELECT setting::int FROM pg_settings WHERE name = 'max_replication_slots')
		- (SELECT count(*)::int FROM pg_replication_slots)) i});
my $coordinator = worker_pid($node, 'coordinator');
$node->safe_psql('postgres', 'UPDATE mood SET broken = true');
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (4, 13)');
ok(wait_status('checked_sum', 'stopped'), 'an operator stops while no slot is free');
insert_orders(amount => 3);
is_exact($node, 'plain', $query{plain}, '... the others go on');
kill_worker($node, 'reader');
insert_orders(amount => 4);
is_exact($node, 'plain', $query{plain}, '... also when their reader is killed meanwhile');
is(worker_pid($node, 'coordinator'), $coordinator, '... and the coordinator did not fail');
is($node->safe_psql('postgres', q{SELECT bool_and(m.confirmed_flush_lsn <= x.processed_lsn)
	FROM weir.readers r JOIN pg_replication_slots m USING (slot_name), weir.readers x
	WHERE r.kind = 'main' AND x.kind = 'stopped' AND x.slot_name IS NULL}), 't', 'the stream\'s slot waits for it (I4)');
$node->safe_psql('postgres', q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'taken%'});
ok(poll_until($node, q{SELECT bool_and(slot_name IS NOT NULL) FROM weir.readers WHERE kind = 'stopped'}),
	'with a slot free the copy is made');
$node->safe_psql('postgres', 'UPDATE mood SET broken = false');
$node->safe_psql('postgres', q{SELECT weir.resume_operator('checked_sum')});
is_exact($node, 'checked_sum', $readings_query, '... and resumed it has missed nothing');

# ---- weir.max_retained_wal

$node->safe_psql('postgres', 'UPDATE mood SET broken = true');
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (4, 13)');
ok(wait_status('checked_sum', 'stopped'), 'stopped again');
$node->append_conf('postgresql.conf', "weir.max_retained_wal = '20MB'");
$node->reload;
$node->safe_psql('postgres', q{
	CREATE TABLE filler (t text);
	INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 30000)});
ok(wait_status('checked_sum', 'lost'), 'beyond weir.max_retained_wal it is lost');
like($node->safe_psql('postgres', q{SELECT message FROM weir.operators WHERE operator = 'checked_sum'::regclass}),
	qr/max_retained_wal/, '... and says why');
like($node->safe_psql('postgres', q{SELECT hint FROM weir.operators WHERE operator = 'checked_sum'::regclass}),
	qr/rebuild_operator/, '... and what to run');
ok(poll_until($node, q{SELECT count(*) = 0 FROM weir.readers WHERE 'checked_sum v1' = ANY (versions)}), 'its slot is gone');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_replication_slots s WHERE slot_name LIKE 'weir%'
	AND NOT EXISTS (SELECT FROM weir.readers r WHERE r.slot_name = s.slot_name)}), '0', 'no slot without a reader');
is((sqlstate_of($node, q{SELECT weir.resume_operator('checked_sum')}))[0], '55000', 'it cannot be resumed');
$node->safe_psql('postgres', 'UPDATE mood SET broken = false');
$node->safe_psql('postgres', q{SELECT weir.rebuild_operator('checked_sum')});
is($node->safe_psql('postgres', q{SELECT weir.wait_for_upgrade('checked_sum', 'finalized', '60 s')}), 'finalized', 'it is rebuilt');
is_exact($node, 'checked_sum', $readings_query, '... and exact');
$node->append_conf('postgresql.conf', "weir.max_retained_wal = '10GB'");
$node->reload;

# ---- a candidate that fails, early and late

$node->safe_psql('postgres', q{
	CREATE TABLE temper (fails_on int);
	INSERT INTO temper VALUES (-1);
	CREATE FUNCTION risky(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		IF v = (SELECT fails_on FROM public.temper) THEN RAISE 'risky does not like %', v USING ERRCODE = '22000'; END IF;
		RETURN v;
	END $$});
my $risky_query = 'SELECT k, sum(v) AS total, max(public.risky(v)) AS risk FROM public.readings GROUP BY k';

# A version that served once has left its column in the view.
sub totals_are_exact
{
	my ($name) = @_;
	$node->safe_psql('postgres', q{SELECT weir.wait_for('checked_sum')});
	return is(differences($node, '(SELECT k, total FROM checked_sum) AS totals', $readings_query), '0', $name);
}

sub wait_rolled_back
{
	my ($name) = @_;
	ok(poll_until($node, q{SELECT phase FROM weir.upgrades WHERE operator = 'checked_sum'::regclass ORDER BY upgrade_id DESC LIMIT 1},
			'rolled_back'), "$name: rolled back");
	like($node->safe_psql('postgres', q{SELECT reason FROM weir.upgrades WHERE operator = 'checked_sum'::regclass
			ORDER BY upgrade_id DESC LIMIT 1}), qr/risky does not like/, "$name: with the reason");
	$node->safe_psql('postgres', 'INSERT INTO readings VALUES (0, 7)');
	totals_are_exact("$name: the operator goes on and is exact");
	ok(poll_until($node, q{SELECT count(*) FROM weir.readers WHERE kind = 'catch_up'}, '0'), "$name: no reader is left");
	$node->safe_psql('postgres', 'UPDATE temper SET fails_on = -1');
	return;
}

$node->safe_psql('postgres', 'UPDATE temper SET fails_on = 60');
$node->safe_psql('postgres', qq{SELECT weir.start_upgrade('checked_sum', \$\$$risky_query\$\$, gates => '{"observe": "0 s"}')});
wait_rolled_back('candidate fails while building');

# The catch-up reader meets the value: written after the build's snapshot, while an old transaction
# of somebody else's keeps it from ending.
my $writer = open_session($node);
$writer->query('BEGIN; CREATE TABLE elsewhere (a int)');
$node->safe_psql('postgres', qq{SELECT weir.start_upgrade('checked_sum', \$\$$risky_query\$\$, strategy => 'backfill', gates => '{"observe": "0 s"}')});
ok(poll_until($node, q{SELECT count(*) = 1 FROM weir.readers WHERE waiting_since IS NOT NULL}), 'the build waits');
$node->append_conf('postgresql.conf', 'weir.build_chunk_rows = 1');
$node->reload;
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (3, 77)');
$writer->query('COMMIT');
$node->safe_psql('postgres', 'UPDATE temper SET fails_on = 78');
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (3, 78)');
wait_rolled_back('candidate fails while catching up or validating');
$node->append_conf('postgresql.conf', 'weir.build_chunk_rows = 20000');
$node->reload;
$writer->finish;

$node->safe_psql('postgres', qq{SELECT weir.start_upgrade('checked_sum', \$\$$risky_query\$\$, auto_advance => false, gates => '{"observe": "0 s"}')});
is(wait_phase($node, 'checked_sum', 'validating'), 'validating', 'a candidate in lockstep');
$node->safe_psql('postgres', 'UPDATE temper SET fails_on = 79');
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (3, 79)');
wait_rolled_back('candidate fails while validating');

$node->safe_psql('postgres', qq{SELECT weir.start_upgrade('checked_sum', \$\$$risky_query\$\$, gates => '{"observe": "0 s"}')});
is(wait_phase($node, 'checked_sum', 'observing'), 'observing', 'a candidate that serves');
$node->safe_psql('postgres', 'UPDATE temper SET fails_on = 80');
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (3, 80)');
wait_rolled_back('candidate fails while observing');

# A type whose comparison raises: nothing but the upgrade needs it.
$node->safe_psql('postgres', q{
	CREATE TYPE moody AS (v bigint);
	CREATE FUNCTION moody_cmp(a moody, b moody) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN RAISE 'risky does not like to compare' USING ERRCODE = '22000'; END $$;
	CREATE FUNCTION moody_eq(a moody, b moody) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT public.moody_cmp(a, b) = 0';
	CREATE FUNCTION moody_lt(a moody, b moody) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT public.moody_cmp(a, b) < 0';
	CREATE OPERATOR = (LEFTARG = moody, RIGHTARG = moody, FUNCTION = moody_eq, MERGES);
	CREATE OPERATOR < (LEFTARG = moody, RIGHTARG = moody, FUNCTION = moody_lt);
	CREATE OPERATOR CLASS moody_ops DEFAULT FOR TYPE moody USING btree AS
		OPERATOR 1 <, OPERATOR 3 =, FUNCTION 1 moody_cmp(moody, moody);
	SELECT weir.create_operator('moods', 'SELECT k, ROW(sum(v))::public.moody AS mood FROM public.readings GROUP BY k')});
$node->safe_psql('postgres', q{SELECT weir.wait_for('moods', timeout => '60 s')});
$node->safe_psql('postgres', q{SELECT weir.start_upgrade('moods',
	'SELECT k, ROW(sum(v))::public.moody AS mood, count(*) AS n FROM public.readings GROUP BY k', gates => '{"observe": "0 s"}')});
ok(poll_until($node, q{SELECT phase FROM weir.upgrades WHERE operator = 'moods'::regclass}, 'rolled_back'),
	'an upgrade whose rows cannot be compared is rolled back');
like($node->safe_psql('postgres', q{SELECT reason FROM weir.upgrades WHERE operator = 'moods'::regclass}),
	qr/risky does not like to compare/, '... with the reason');
totals_are_exact('... and does not concern others');

# ---- the old version fails while the new one serves

$node->safe_psql('postgres', qq{SELECT weir.start_upgrade('checked_sum', \$\$$readings_query\$\$, gates => '{"observe": "0 s"}')});
is(wait_phase($node, 'checked_sum', 'observing'), 'observing', 'upgraded to a version without the function');
$node->safe_psql('postgres', 'UPDATE mood SET broken = true');
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (2, 13)');
ok(poll_until($node, q{SELECT NOT rollback_possible FROM weir.upgrades WHERE operator = 'checked_sum'::regclass
	ORDER BY upgrade_id DESC LIMIT 1}), 'the old version fails: no way back');
like($node->safe_psql('postgres', q{SELECT rollback_obstacle FROM weir.upgrades WHERE operator = 'checked_sum'::regclass
	ORDER BY upgrade_id DESC LIMIT 1}), qr/thirteen/, '... and the reason is told');
is((sqlstate_of($node, q{SELECT weir.rollback_upgrade('checked_sum')}))[0], '55000', '... a rollback is refused');
totals_are_exact('the new version goes on');
$node->safe_psql('postgres', q{SELECT weir.finalize_upgrade('checked_sum')});
totals_are_exact('... and can be finalized');

is(status_of('plain'), 'live', 'the operator that never failed never stopped');
is_exact($node, 'plain', $query{plain}, '... and is exact');
$node->safe_psql('postgres', q{SELECT weir.drop_operator(operator) FROM weir.operators});
ok(poll_until($node, q{SELECT count(*) FROM pg_replication_slots}, '0'), 'dropped, stopped and lost ones leave no slot');
$node->stop;
done_testing();
