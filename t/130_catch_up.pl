# Claim: a version that is away from the main reader loses nothing, whatever the timing. A
# handover whose hold ran out does not happen, even while the main reader's position stands
# still because nothing it follows is written (I3, I7). A catch-up reader that meets an error
# keeps the place before the failing batch, however often it is tried (I4, I7). A pause that
# is withdrawn before any reader acted on it is over.
use strict;
use warnings;
use Test::More;
use WeirTest;
use WeirSteps;

my $node = new_node('catch_up', conf => "weir.restart_delay = '10ms'\n");

$node->safe_psql('postgres', q{
	CREATE TABLE quiet (k int, v int);
	CREATE TABLE busy (k int, v int);
	ALTER TABLE quiet REPLICA IDENTITY FULL;
	ALTER TABLE busy REPLICA IDENTITY FULL;
	INSERT INTO quiet VALUES (1, 1);
	SELECT weir.create_operator('quiet_count', 'SELECT k, count(*) AS n FROM public.quiet GROUP BY k')});
$node->safe_psql('postgres', q{SELECT weir.wait_for('quiet_count')});

# ---- the hold runs out

my $busy_query = 'SELECT k, count(*) AS n, sum(v) AS total FROM public.busy GROUP BY k';

# So short that most holds run out before the catch-up reader has moved anything.
$node->safe_psql('postgres', q{ALTER SYSTEM SET weir.max_hold = '1ms'});
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
for my $round (1 .. 5)
{
	my $load = start_load($node, "INSERT INTO busy SELECT i % 7, i FROM generate_series(1, 20) i;\n", 1);
	# No other operator follows the table that is written, so the main reader's position stands still.
	$node->safe_psql('postgres', qq{SELECT weir.create_operator('busy_sum', '$busy_query')});
	ok(poll_until($node, q{SELECT status = 'live' FROM weir.versions WHERE operator = 'busy_sum'::regclass}),
		"round $round: handed over");
	is(stop_load($load), '', '... under load');
	is_exact($node, 'busy_sum', $busy_query, '... and nothing that was committed meanwhile is missing');
	$node->safe_psql('postgres', q{SELECT weir.drop_operator('busy_sum')});
}
$node->safe_psql('postgres', 'ALTER SYSTEM RESET weir.max_hold');
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');

# ---- errors while catching up

$node->safe_psql('postgres', q{
	CREATE TABLE divisors (k int, v int);
	ALTER TABLE divisors REPLICA IDENTITY FULL;
	CREATE TABLE allowed (zero int);
	INSERT INTO divisors SELECT i % 5, 1 FROM generate_series(1, 100) i;
	CREATE FUNCTION share(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
		BEGIN
			IF v = 0 AND NOT EXISTS (SELECT FROM public.allowed) THEN RAISE division_by_zero; END IF;
			RETURN v;
		END $$});
my $share_query = 'SELECT k, count(*) AS n, sum(public.share(v)) AS total FROM public.divisors GROUP BY k';
$node->safe_psql('postgres', qq{SELECT weir.create_operator('shares', '$share_query')});
is_exact($node, 'shares', $share_query, 'an operator that can fail');

sub place { return $node->safe_psql('postgres', q{SELECT processed_lsn FROM weir.versions WHERE operator = 'shares'::regclass}) }
sub is_stopped
{
	my ($name) = @_;
	return ok(poll_until($node, q{SELECT status = 'stopped' AND sqlstate = '22012' AND reader_id IN
		(SELECT reader_id FROM weir.readers WHERE kind = 'stopped' AND pid IS NULL AND slot_name IS NOT NULL)
		FROM weir.versions WHERE operator = 'shares'::regclass}), $name);
}

$node->safe_psql('postgres', q{INSERT INTO divisors VALUES (1, 0)});
is_stopped('the main reader stops it');
$node->safe_psql('postgres', qq{INSERT INTO divisors VALUES ($_, 1)}) for 1 .. 5;
my $place = place();
for my $try (1 .. 3)
{
	my $failures = $node->safe_psql('postgres', q{SELECT errors FROM weir.stat_operators WHERE operator = 'shares'::regclass});
	$node->safe_psql('postgres', q{SELECT weir.resume_operator('shares')});
	ok(poll_until($node, qq{SELECT errors > $failures FROM weir.stat_operators WHERE operator = 'shares'::regclass}),
		"try $try: a catch-up reader meets the error again");
	is_stopped('... and stops');
	is(place(), $place, '... at the same place');
	is($node->safe_psql('postgres', q{
		SELECT count(*) FROM weir.readers r JOIN pg_replication_slots s USING (slot_name)
		WHERE r.kind = 'stopped' AND s.confirmed_flush_lsn > r.processed_lsn}),
		'0', '... which its slot has not passed');
}
$node->safe_psql('postgres', q{INSERT INTO allowed VALUES (0)});
$node->safe_psql('postgres', q{SELECT weir.resume_operator('shares')});
is_exact($node, 'shares', $share_query, 'once it can go on, nothing is missing');

# ---- pause and resume before anybody acted on the pause

for my $round (1 .. 20)
{
	$node->safe_psql('postgres', qq{
		INSERT INTO divisors SELECT i, 1 FROM generate_series(1, 2000) i;
		SELECT weir.pause_operator('shares');
		INSERT INTO divisors VALUES ($round, 1);
		SELECT weir.resume_operator('shares')});
}
ok(poll_until($node, q{SELECT status = 'live' FROM weir.versions WHERE operator = 'shares'::regclass}),
	'paused and resumed in a hurry, it runs');
is_exact($node, 'shares', $share_query, '... and nothing is missing');

ok(free_of_crashes($node), 'the server did not crash');
$node->stop;
done_testing();
