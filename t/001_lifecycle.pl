# Claim: the extension comes and goes like any other. CREATE EXTENSION brings its coordinator,
# DROP EXTENSION is refused while operators exist and with CASCADE takes everything with it at
# any moment - idle, under load, while a version is built, while an upgrade observes - without
# a deadlock and without a slot, worker or table left (I12); what is rolled back never happened
# (I9); what the server lacks is said at the call, which leaves nothing.
use strict;
use warnings;
use Test::More;
use WeirTest;
use WeirSteps;

my $node = new_node('lifecycle', extension => 0);

# ---- create

is(leftovers($node), 'nothing', 'no worker but the launcher without the extension');
$node->safe_psql('postgres', 'BEGIN; CREATE EXTENSION pg_weir; ROLLBACK');
is(leftovers($node), 'nothing', 'CREATE EXTENSION that is rolled back leaves nothing');

$node->safe_psql('postgres', 'CREATE EXTENSION pg_weir');
ok(poll_until($node, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pg_weir coordinator'}),
	'CREATE EXTENSION brings the coordinator');
is($node->safe_psql('postgres', 'SELECT severity FROM weir.doctor() WHERE severity = \'error\''),
	'', 'the doctor finds no error');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_replication_slots}), '0', 'no slot without operators');

create_sales($node, 1000);
create_sales_operator($node);
is_exact($node, 'totals', $sales_query, 'an operator');

# ---- drop: refused, rolled back, idle

my ($code, $error) = sqlstate_of($node, 'DROP EXTENSION pg_weir');
is($code, '2BP01', 'DROP EXTENSION with operators is refused');
like($error, qr/totals/, '... and names them');
$node->safe_psql('postgres', 'INSERT INTO sales (shop, amount) VALUES (\'s1\', 5)');
is_exact($node, 'totals', $sales_query, 'the operator goes on after the refusal');

$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION pg_weir CASCADE; ROLLBACK');
$node->safe_psql('postgres', 'INSERT INTO sales (shop, amount) VALUES (\'s1\', 6)');
is_exact($node, 'totals', $sales_query, 'the operator goes on after a DROP that is rolled back');

$node->safe_psql('postgres', 'BEGIN; SAVEPOINT s; DROP EXTENSION pg_weir CASCADE; ROLLBACK TO s; COMMIT');
$node->safe_psql('postgres', 'DELETE FROM sales WHERE id = 7');
is_exact($node, 'totals', $sales_query, '... and after one that is rolled back to a savepoint');

# The reader that runs was started by a coordinator that is no more.
my $reader = worker_pid($node, 'reader');
my $coordinator = kill_worker($node, 'coordinator');
isnt(wait_new_worker($node, 'coordinator', $coordinator), '', 'another coordinator comes');
is(worker_pid($node, 'reader'), $reader, 'the reader ran on meanwhile');
$node->safe_psql('postgres', 'DROP EXTENSION pg_weir CASCADE');
ok(wait_gone($node), 'DROP EXTENSION CASCADE leaves nothing');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_class WHERE relname LIKE '%totals%'}),
	'0', '... not the view either');

# ---- dropped and created again at once

$node->safe_psql('postgres', 'CREATE EXTENSION pg_weir');
create_sales_operator($node);
$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION pg_weir CASCADE; CREATE EXTENSION pg_weir; COMMIT');
create_sales_operator($node);
$node->safe_psql('postgres', 'INSERT INTO sales (shop, amount) VALUES (\'s2\', 8)');
is_exact($node, 'totals', $sales_query, 'dropped and created in one transaction');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_replication_slots}), '1', 'one slot, of the new one');

# ---- drop under load, some times: whoever waits for whom must not be chance

my $write_load = q{
\set shop random(1, 50)
INSERT INTO sales (shop, amount) VALUES ('s' || :shop, :shop);
UPDATE sales SET amount = amount + 1 WHERE id = :shop;
};
my $failed = '';
for my $round (1 .. 3)
{
	my $load = start_load($node, $write_load);
	$node->safe_psql('postgres', q{SELECT weir.wait_for('totals')});
	my ($status, undef, $stderr) = $node->psql('postgres', 'DROP EXTENSION pg_weir CASCADE');
	$failed .= "round $round: $stderr\n" if $status != 0;
	$failed .= stop_load($load);
	$failed .= "round $round leaves something\n" if !wait_gone($node);
	$node->safe_psql('postgres', 'CREATE EXTENSION pg_weir');
	create_sales_operator($node);
}
is($failed, '', 'DROP EXTENSION under load, three times, neither fails nor disturbs the load');
is_exact($node, 'totals', $sales_query, 'the operator made anew includes what came meanwhile');

# ---- while a version is built, and while its slot waits for an old transaction

my $writer = open_session($node);
$writer->query('BEGIN; CREATE TABLE elsewhere (a int)');
$node->safe_psql('postgres', q{SELECT weir.create_operator('counted', 'SELECT count(*) AS n FROM sales')});
ok(poll_until($node, 'SELECT count(*) = 1 FROM weir.readers WHERE waiting_since IS NOT NULL'),
	'building waits for a transaction that has written');
$node->safe_psql('postgres', 'DROP EXTENSION pg_weir CASCADE');
ok(wait_gone($node), 'dropped while a slot is made');
$writer->query('ROLLBACK');
$writer->finish;

$node->safe_psql('postgres', 'CREATE EXTENSION pg_weir');
$node->safe_psql('postgres', q{INSERT INTO sales (shop, amount) SELECT 'x' || i, i FROM generate_series(1, 20000) i});
$node->append_conf('postgresql.conf', 'weir.build_chunk_rows = 5');
$node->reload;
$node->safe_psql('postgres', qq{SELECT weir.create_operator('totals', \$\$$sales_query\$\$)});
ok(poll_until($node, 'SELECT rows_written BETWEEN 1 AND rows_total - 1 FROM weir.versions'), 'a build is under way');
$node->safe_psql('postgres', 'DROP EXTENSION pg_weir CASCADE');
ok(wait_gone($node), 'dropped while rows are written');
$node->append_conf('postgresql.conf', 'weir.build_chunk_rows = 20000');
$node->reload;

# ---- while an upgrade observes

$node->safe_psql('postgres', 'CREATE EXTENSION pg_weir');
create_sales_operator($node);
my $load = start_load($node, $write_load);
$node->safe_psql('postgres', q{SELECT weir.start_upgrade('totals',
	'SELECT shop, count(*) AS n, sum(amount) AS total, max(amount) AS highest, min(amount) AS lowest FROM sales GROUP BY shop', gates => '{"observe": "0 s"}')});
is(wait_phase($node, 'totals', 'observing'), 'observing', 'an upgrade observes');
$node->safe_psql('postgres', 'DROP EXTENSION pg_weir CASCADE');
is(stop_load($load), '', 'the load did not notice');
ok(wait_gone($node), 'dropped while two versions run in lockstep');

# ---- the owner of the extension drops it with all that is theirs

$node->safe_psql('postgres', q{
	CREATE ROLE keeper SUPERUSER;
	SET ROLE keeper;
	CREATE EXTENSION pg_weir});
create_sales_operator($node);
$node->safe_psql('postgres', 'DROP OWNED BY keeper CASCADE');
ok(wait_gone($node), 'DROP OWNED CASCADE of the extension\'s owner leaves nothing');

# ---- who may not drop it cannot stop its workers with the attempt

$node->safe_psql('postgres', 'CREATE EXTENSION pg_weir; CREATE ROLE nobody LOGIN');
create_sales_operator($node);
$reader = worker_pid($node, 'reader');
is((sqlstate_of($node, 'SET ROLE nobody; DROP EXTENSION pg_weir CASCADE'))[0], '42501', 'not allowed to drop it');
is(worker_pid($node, 'reader'), $reader, '... and the reader did not notice');

ok(free_of_crashes($node), 'no process crashed');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/deadlock detected/, 'no deadlock, of workers either');
$node->stop;

# ---- what the server lacks

sub lacking_node
{
	my ($name, $conf) = @_;
	my $lacking = new_node($name, conf => $conf);
	create_sales($lacking, 10);
	return $lacking;
}

sub refused_like
{
	my ($lacking, $state, $message, $hint, $name) = @_;
	my ($got, $text) = sqlstate_of($lacking, qq{SELECT weir.create_operator('totals', \$\$$sales_query\$\$)});
	is($got, $state, "$name: SQLSTATE");
	like($text, $message, "$name: message");
	like($text, $hint, "$name: line to mend it");
	is($lacking->safe_psql('postgres', q{
		SELECT (SELECT count(*) FROM weir_internal.operator), (SELECT count(*) FROM weir_internal.reader),
			(SELECT count(*) FROM pg_class WHERE relnamespace = 'weir_state'::regnamespace),
			(SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'weir%')}),
		'0|0|0|0', "$name: nothing is left");
	return;
}

my $lacking = lacking_node('not_preloaded', "shared_preload_libraries = ''\n");
refused_like($lacking, '55000', qr/shared_preload_libraries/,
	qr/ALTER SYSTEM SET shared_preload_libraries = 'pg_weir'.*restart/, 'not preloaded');
is($lacking->safe_psql('postgres', q{SELECT needs_restart FROM weir.doctor() WHERE finding LIKE '%preload%'}),
	't', 'the doctor says so too');
$lacking->stop;

$lacking = lacking_node('not_logical', "wal_level = replica\n");
refused_like($lacking, '55000', qr/wal_level is replica/, qr/ALTER SYSTEM SET wal_level = 'logical'.*restart/,
	'wal_level');
$lacking->stop;

$lacking = lacking_node('no_slots', "max_replication_slots = 3\n");
$lacking->safe_psql('postgres', qq{SELECT pg_create_physical_replication_slot('taken$_')}) for 1 .. 3;
refused_like($lacking, '55000', qr/0 of 3 replication slots are free/, qr/max_replication_slots = 13.*restart/,
	'no free slot');
$lacking->safe_psql('postgres', q{SELECT pg_drop_replication_slot('taken1'), pg_drop_replication_slot('taken2')});
create_sales_operator($lacking);
is_exact($lacking, 'totals', $sales_query, 'with two slots free it works');
$lacking->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('taken1')});
is((sqlstate_of($lacking, q{SELECT weir.start_upgrade('totals', 'SELECT shop, count(*) AS n FROM sales GROUP BY shop')}))[0],
	'55000', 'an upgrade without a free slot is refused');
is($lacking->safe_psql('postgres', 'SELECT count(*) FROM weir.upgrades'), '0', '... and leaves no upgrade');
$lacking->safe_psql('postgres', q{INSERT INTO sales (shop, amount) VALUES ('s1', 1)});
is_exact($lacking, 'totals', $sales_query, '... and the operator goes on');
$lacking->stop;

# Workers: both launchers, the coordinator, the reader of the stream: one is left to build with.
# Three builds take turns, and none disturbs the stream.
$lacking = lacking_node('few_workers', "max_worker_processes = 5\n");
create_sales_operator($lacking);
$writer = open_session($lacking);
$writer->query('BEGIN; CREATE TABLE elsewhere (a int)');
$lacking->safe_psql('postgres', qq{SELECT weir.create_operator('totals$_', \$\$$sales_query\$\$)}) for 1 .. 3;
ok(poll_until($lacking, q{SELECT count(*) = 4 AND count(pid) = 2 AND count(waiting_since) = 1 FROM weir.readers}),
	'one operator is built, two wait for a worker');
$lacking->safe_psql('postgres', q{INSERT INTO sales (shop, amount) VALUES ('s1', 1)});
is_exact($lacking, 'totals', $sales_query, 'the stream goes on meanwhile');
$writer->query('COMMIT');
$writer->finish;
is_exact($lacking, "totals$_", $sales_query, "operator $_ has had its turn") for 1 .. 3;
# A second database takes the last one: said at the call.
$lacking->safe_psql('postgres', 'CREATE DATABASE other');
$lacking->safe_psql('other', 'CREATE EXTENSION pg_weir');
ok(poll_until($lacking, q{SELECT count(*) = 2 FROM pg_stat_activity WHERE backend_type = 'pg_weir coordinator'}),
	'two coordinators share five workers');
($code, $error) = sqlstate_of($lacking, qq{SELECT weir.create_operator('totals4', \$\$$sales_query\$\$)});
is($code, '55000', 'no worker left: SQLSTATE');
like($error, qr/max_worker_processes = 13.*restart/, 'no worker left: line to mend it');
$lacking->safe_psql('other', 'DROP EXTENSION pg_weir');
ok(poll_until($lacking, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pg_weir coordinator'}),
	'the other has left');
$lacking->safe_psql('postgres', qq{SELECT weir.create_operator('totals4', \$\$$sales_query\$\$)});
is_exact($lacking, 'totals4', $sales_query, 'with the worker back it works');
$lacking->stop;

done_testing();
