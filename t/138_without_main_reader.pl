# Claim: when a stream's main reader has to be given up, whoever kept a place of its own loses
# nothing: once resumed it gets a new main reader and catches up with it; while it cannot have
# one, weir.doctor() says so. Who only had a share in the main reader's slot is lost with it, also
# when it had stopped before (I4, I7).
use strict;
use warnings;
use lib 't/perl';
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;
use WeirSteps;

# The delay leaves time between the reader's end and its next start.
my $node = new_node('main', conf => "weir.restart_delay = 1s\nmax_replication_slots = 6\n");
my $finding = q{SELECT count(*) = 1 FROM weir.doctor() WHERE severity = 'error'
	AND finding LIKE 'stream "main" has no running main reader%others v1%' AND fix IS NOT NULL};

# Ends the main reader and drops its slot, as max_slot_wal_keep_size would.
sub lose_main_slot
{
	my $slot = $node->safe_psql('postgres', q{SELECT slot_name FROM weir.readers WHERE kind = 'main'});
	$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM weir.readers WHERE kind = 'main'});
	ok(poll_until($node, qq{SELECT active FROM pg_replication_slots WHERE slot_name = '$slot'}, 'f'), 'the main reader is gone');
	$node->safe_psql('postgres', qq{SELECT pg_drop_replication_slot('$slot')});
	return;
}

sub wait_status
{
	my ($operator, $status) = @_;
	return poll_until($node, "SELECT status FROM weir.operators WHERE operator = '$operator'::regclass", $status, 60);
}

sub take_all_slots
{
	$node->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('taken' || i)
		FROM generate_series(1, (SELECT setting::int FROM pg_settings WHERE name = 'max_replication_slots')
			- (SELECT count(*)::int FROM pg_replication_slots)) i});
	return;
}

sub give_slots_back
{
	$node->safe_psql('postgres',
		q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'taken%'});
	return;
}

create_sales($node, 1000);
create_sales_operator($node);
create_sales_operator($node, 'postgres', 'others');

# ---- the place of a paused operator outlives the main reader

$node->safe_psql('postgres', q{SELECT weir.pause_operator('others')});
ok(poll_until($node, q{SELECT count(*) FROM weir.readers WHERE kind = 'stopped' AND slot_name IS NOT NULL}, '1'),
	'a paused operator has a place of its own');
$node->safe_psql('postgres', q{INSERT INTO sales (shop, amount) VALUES ('before', 1)});
lose_main_slot();
ok(wait_status('totals', 'lost'), 'an operator of the main reader is lost');
is($node->safe_psql('postgres', q{SELECT status FROM weir.operators WHERE operator = 'others'::regclass}), 'paused', '... the paused one is not');
$node->safe_psql('postgres', q{INSERT INTO sales (shop, amount) VALUES ('after', 2)});

# ---- while there cannot be a new main reader

take_all_slots();
$node->safe_psql('postgres', q{SELECT weir.resume_operator('others')});
ok(wait_status('others', 'catching_up'), 'resumed');
ok(poll_until($node, $finding), 'the doctor names the stream and who waits');
give_slots_back();

# ---- and then there is one

ok(wait_status('others', 'live'), 'with a new main reader it goes on');
is_exact($node, 'others', $sales_query, '... and has missed nothing');
is($node->safe_psql('postgres', q{SELECT count(*) FROM weir.doctor() WHERE finding LIKE 'stream %'}), '0',
	'... and the doctor finds nothing more');
is($node->safe_psql('postgres', q{SELECT status FROM weir.operators WHERE operator = 'totals'::regclass}), 'lost', 'the lost one stays lost');
$node->safe_psql('postgres', q{SELECT weir.rebuild_operator('totals')});
is($node->safe_psql('postgres', q{SELECT weir.wait_for_upgrade('totals', 'finalized', '60 s')}), 'finalized', '... until it is rebuilt');
$node->safe_psql('postgres', q{INSERT INTO sales (shop, amount) VALUES ('later', 3)});
is_exact($node, $_, $sales_query, "$_ follows") for 'totals', 'others';

# ---- an operator that stopped, and the main slot goes before there was room for a copy of it

$node->safe_psql('postgres', q{
	CREATE TABLE divisions (k int, v int);
	ALTER TABLE divisions REPLICA IDENTITY FULL;
	INSERT INTO divisions VALUES (1, 1);
	SELECT weir.create_operator('shares', 'SELECT k, sum(100 / v) AS share FROM public.divisions GROUP BY k')});
$node->safe_psql('postgres', q{SELECT weir.wait_for('shares', timeout => '60 s')});
take_all_slots();
$node->safe_psql('postgres', q{INSERT INTO divisions VALUES (2, 0)});
ok(wait_status('shares', 'stopped'), 'an operator stops while no slot is free');
is($node->safe_psql('postgres', q{SELECT count(*) FROM weir.readers WHERE kind = 'stopped' AND slot_name IS NULL}), '1',
	'... it has no place of its own yet');
lose_main_slot();
ok(wait_status('shares', 'lost'), 'without the main slot it is lost');
like($node->safe_psql('postgres', q{SELECT hint FROM weir.operators WHERE operator = 'shares'::regclass}),
	qr/rebuild_operator\('public\.shares'\)/, '... and says what to run');
give_slots_back();
$node->safe_psql('postgres', q{DELETE FROM divisions WHERE v = 0});
for my $operator (qw(shares totals others))
{
	$node->safe_psql('postgres', "SELECT weir.rebuild_operator('$operator')");
	is($node->safe_psql('postgres', "SELECT weir.wait_for_upgrade('$operator', 'finalized', '60 s')"), 'finalized', "$operator is rebuilt");
}
$node->safe_psql('postgres', q{INSERT INTO divisions VALUES (2, 3)});
is_exact($node, 'shares', 'SELECT k, sum(100 / v) AS share FROM public.divisions GROUP BY k', '... and follows again');

$node->safe_psql('postgres', 'DROP EXTENSION pg_weir CASCADE');
ok(poll_until($node, 'SELECT count(*) FROM pg_replication_slots', '0'), 'no slot is left');
$node->stop;
done_testing();
