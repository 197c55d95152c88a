# Claim: each database of a server has its own workers, positions and slots. Two databases
# with operators on tables of the same name do not meet; DROP DATABASE (also WITH FORCE) and
# RENAME do not wait for our workers, and nothing is left (I12); a clone by CREATE DATABASE
# TEMPLATE neither reads nor drops its original's slot, says what it is, and is mended by
# weir.rebuild_operator; the original does not notice (I3, I4, I7).
use strict;
use warnings;
use Test::More;
use Time::HiRes 'time';
use WeirTest;
use WeirSteps;

my $node = new_node('databases', extension => 0);

# ---- two databases at once

$node->safe_psql('postgres', "CREATE DATABASE $_") for qw(one two);
for my $database (qw(one two))
{
	$node->safe_psql($database, 'CREATE EXTENSION pg_weir');
	create_sales($node, $database eq 'one' ? 500 : 900, $database);
	create_sales_operator($node, $database);
}
my $write_load = q{
\set shop random(1, 60)
INSERT INTO sales (shop, amount) VALUES ('s' || :shop, :shop);
UPDATE sales SET amount = amount + 1 WHERE id = :shop;
};
my @loads = map { start_load($node, $write_load, 1, $_) } qw(one two);
for my $database (qw(one two))
{
	$node->safe_psql($database, qq{
		SELECT weir.start_upgrade('totals', 'SELECT shop, count(*) AS n, sum(amount) AS total,
			max(amount) AS highest, min(amount) AS lowest FROM public.sales GROUP BY shop', gates => '{"observe": "0 s"}')});
}
$node->safe_psql($_, q{SELECT weir.wait_for_upgrade('totals', 'observing', '60 s')}) for qw(one two);
is($node->safe_psql('one', q{SELECT missing, extra FROM weir.verify('totals')}), '0|0', 'verified beside the other');
is(stop_load($_), '', 'load of one database') for @loads;
my $new_query = 'SELECT shop, count(*) AS n, sum(amount) AS total, max(amount) AS highest, min(amount) AS lowest '
  . 'FROM public.sales GROUP BY shop';
is_exact($node, 'totals', $new_query, "database $_ after its upgrade", $_) for qw(one two);
is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT database) FROM pg_replication_slots}),
	'2|2', 'one slot each');
my $slot_of_two = $node->safe_psql('postgres', q{SELECT slot_name FROM pg_replication_slots WHERE database = 'two'});

# ---- rename

my $start = time;
$node->safe_psql('postgres', 'ALTER DATABASE one RENAME TO uno');
cmp_ok(time - $start, '<', 4, 'RENAME does not wait for workers');
$node->safe_psql('uno', q{INSERT INTO sales (shop, amount) VALUES ('s1', 1)});
is_exact($node, 'totals', $new_query, 'it goes on under its new name', 'uno');
isnt((sqlstate_of($node, 'ALTER DATABASE uno RENAME TO two'))[0], '', 'a RENAME that fails');
$node->safe_psql('uno', q{INSERT INTO sales (shop, amount) VALUES ('s1', 2)});
is_exact($node, 'totals', $new_query, '... lets the workers back', 'uno');

# ---- clone

$node->safe_psql('uno', q{
	SELECT weir.finalize_upgrade('totals');
	SELECT weir.create_operator('broken', 'SELECT count(*) AS n, sum(1000 / amount) AS parts FROM public.sales')});
$node->safe_psql('uno', q{SELECT weir.wait_for('broken')});
$node->safe_psql('uno', q{INSERT INTO sales (shop, amount) VALUES ('zero', 0)});
ok(poll_until($node, q{SELECT status = 'stopped' FROM weir.operators WHERE operator = 'broken'::regclass}, 't', 60, 'uno'),
	'one operator of the original stops');
ok(poll_until($node, q{SELECT bool_and(slot_name IS NOT NULL) FROM weir.readers WHERE kind = 'stopped'}, 't', 60, 'uno'),
	'... and has a slot of its own');
my $original_slots = $node->safe_psql('postgres',
	q{SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots WHERE database = 'uno'});

$start = time;
$node->safe_psql('postgres', 'CREATE DATABASE clone TEMPLATE uno');
cmp_ok(time - $start, '<', 15, 'CREATE DATABASE TEMPLATE does not wait for workers');
ok(poll_until($node, q{SELECT bool_and(status = 'lost') FROM weir.operators}, 't', 60, 'clone'),
	'operators of the clone are lost');
like($node->safe_psql('clone', q{SELECT message FROM weir.operators WHERE operator = 'totals'::regclass}),
	qr/another cluster, timeline or database/, '... because their position is another database\'s');
like($node->safe_psql('clone', q{SELECT hint FROM weir.operators WHERE operator = 'totals'::regclass}),
	qr/weir\.rebuild_operator\('(?:public\.)?totals'\)/, '... and say what to run');
is((sqlstate_of($node, q{SELECT weir.wait_for('totals')}, 'clone'))[0], '55000', 'waiting for one is refused');
$node->safe_psql('uno', q{INSERT INTO sales (shop, amount) VALUES ('later', 5)});
is_exact($node, 'totals', $new_query, 'the original goes on', 'uno');
is($node->safe_psql('postgres', q{SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots
		WHERE database = 'uno'}), $original_slots, 'the original\'s slots are untouched');

# Dropping and rebuilding in the clone concerns the clone; the stopped slot is the prize.
$node->safe_psql('clone', q{SELECT weir.drop_operator('broken')});
$node->safe_psql('clone', q{SELECT weir.rebuild_operator('totals')});
is($node->safe_psql('clone', q{SELECT weir.wait_for_upgrade('totals', 'finalized', '60 s')}), 'finalized',
	'an operator of the clone is rebuilt');
$node->safe_psql('clone', q{INSERT INTO sales (shop, amount) VALUES ('only here', 7)});
is_exact($node, 'totals', $new_query, '... and follows the clone\'s own changes', 'clone');
is($node->safe_psql('postgres', q{SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots
		WHERE database = 'uno'}), $original_slots, 'the original\'s slots are still untouched');
$node->safe_psql('uno', q{DELETE FROM sales WHERE amount = 0});
is_exact($node, 'totals', $new_query, 'the original goes on after that too', 'uno');

# ---- drop

my $load = start_load($node, $write_load, 1, 'two');
($load->{run}->pump_nb, is(leftovers($node, 'clone') =~ /worker/, 1, 'the clone has workers'));
$start = time;
$node->safe_psql('postgres', 'DROP DATABASE clone');
cmp_ok(time - $start, '<', 4, 'DROP DATABASE does not wait for workers');
is(leftovers($node, 'clone'), 'nothing', '... and leaves nothing');
is($node->safe_psql('postgres', q{SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots
		WHERE database = 'uno'}), $original_slots, '... the original has its slots');

isnt((sqlstate_of($node, 'DROP DATABASE two'))[0], '', 'DROP DATABASE with sessions in it is refused');
ok(poll_until($node, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = 'two' AND backend_type = 'pg_weir reader'}),
	'... and its workers come back');
$node->safe_psql('postgres', 'DROP DATABASE two WITH (FORCE)');
$load->{run}->finish;
is(leftovers($node, 'two'), 'nothing', 'DROP DATABASE WITH FORCE leaves nothing');
is($node->safe_psql('postgres', qq{SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$slot_of_two'}),
	'0', '... no slot of it');
$node->safe_psql('postgres', 'DROP DATABASE uno');
is(leftovers($node, 'uno'), 'nothing', 'a database with a stopped operator leaves nothing either');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_replication_slots}), '0', 'no slot is left on the server');

# ---- a template with the extension

$node->safe_psql('template1', 'CREATE EXTENSION pg_weir');
$node->safe_psql('postgres', 'CREATE DATABASE born_with_it');
create_sales($node, 100, 'born_with_it');
create_sales_operator($node, 'born_with_it');
is_exact($node, 'totals', $sales_query, 'a database that was born with the extension', 'born_with_it');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'template1'}),
	'0', 'no worker is in the template');

ok(free_of_crashes($node), 'no process crashed');
$node->stop;
done_testing();
