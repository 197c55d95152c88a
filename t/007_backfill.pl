# Claim: a new operator starts from the rows that are there, exactly, whatever is written
# meanwhile (I7); its rows appear all at once, in every snapshot (nobody sees half of them);
# several are built side by side; a transaction that has written and stays open delays builds,
# visibly, and nothing else (I11); a crash starts a build over.
use strict;
use warnings;
use Test::More;
use WeirTest;
use WeirSteps;

my $node = new_node('backfill');
create_sales($node, 30000);
create_sales_operator($node, 'postgres', 'standing');

my $write_load = q{
\set key random(1, 30000)
\set amount random(1, 1000)
BEGIN;
INSERT INTO sales (shop, amount) VALUES ('s' || :amount % 60, :amount);
UPDATE sales SET amount = amount + :amount WHERE id = :key;
DELETE FROM sales WHERE id = :key + 1;
COMMIT;
};
my %query = (
	per_shop => $sales_query,
	per_row => 'SELECT id, max(amount) AS amount, count(*) AS n FROM public.sales GROUP BY id',
	overall => 'SELECT count(*) AS n, sum(amount) AS total, avg(amount) AS mean FROM public.sales',
	large => 'SELECT shop, count(*) AS n FROM public.sales WHERE amount > 500 GROUP BY shop');

# ---- all of them under load, at once; an observer of the largest sees nothing or everything

$node->append_conf('postgresql.conf', 'weir.build_chunk_rows = 500');
$node->reload;
my $load = start_load($node, $write_load, 2);
my $observer = open_session($node);
$node->safe_psql('postgres', join ';', map { "SELECT weir.create_operator('$_', \$\$$query{$_}\$\$)" } sort keys %query);

my ($seen_progress, $partial, $last) = (0, '', 0);
my $end = time + 60;
while (time < $end)
{
	my ($rows, $sum, $status, $written) = split /\|/, $observer->query(q{
		SELECT count(*), coalesce(sum(n), 0), (SELECT status FROM weir.versions WHERE operator = 'per_row'::regclass),
			(SELECT rows_written BETWEEN 1 AND rows_total - 1 FROM weir.versions WHERE operator = 'per_row'::regclass)
		FROM per_row});
	$seen_progress ||= ($written // '') eq 't';
	# The load inserts and deletes one row in a transaction, so the table never has fewer.
	$partial .= "$rows rows while $status; " if $rows > 0 && $rows < 29900;
	last if $status eq 'live' && $rows > 0;
}
is($partial, '', 'no query saw a part of the rows');
ok($seen_progress, 'weir.versions showed progress in between');
for my $name (sort keys %query)
{
	my ($status, undef, $stderr) = $node->psql('postgres', "SELECT weir.wait_for('$name', timeout => '60 s')");
	is($stderr, '', "$name is live under load");
}
is(stop_load($load), '', 'the load did not notice');
is_exact($node, $_, $query{$_}, "$_ is exact") for sort keys %query;
is_exact($node, 'standing', $sales_query, 'the operator that was there before is exact');

# ---- the same in one snapshot that is older than the build

$observer->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM sales');
$node->safe_psql('postgres', q{SELECT weir.create_operator('late', 'SELECT shop, count(*) AS n FROM public.sales GROUP BY shop')});
is((sqlstate_of($node, q{SELECT weir.wait_for('late', timeout => '30 s')}))[0], '', 'an old snapshot does not delay a build');
# Created after the snapshot, so its view is known (catalogs are read as of now) and its rows are not.
like($observer->query('SELECT count(*) FROM late'), qr/^(?:0|.*42P01.*)$/s, 'the old snapshot sees none of its rows');
$observer->query('COMMIT');
is($observer->query('SELECT count(*) > 0 FROM late'), 't', 'the next sees them');

# ---- an old transaction that has written

my $writer = open_session($node);
$writer->query('BEGIN; CREATE TABLE elsewhere (a int)');
$node->safe_psql('postgres', q{CREATE FUNCTION as_is(bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
	SELECT weir.create_operator('patient', 'SELECT shop, sum(public.as_is(amount)) AS total FROM public.sales GROUP BY shop')});
ok(poll_until($node, q{SELECT count(*) = 1 FROM weir.readers WHERE waiting_since IS NOT NULL AND 'patient v1' = ANY (versions)}),
	'a build waits for it, and weir.readers shows since when');
$node->safe_psql('postgres', q{INSERT INTO sales (shop, amount) VALUES ('s1', 1)});
is_exact($node, 'standing', $sales_query, 'what runs goes on');
is($node->safe_psql('postgres', q{SELECT count(*) FROM patient}), '0', 'the one that waits has no rows yet');
my ($code, $error) = sqlstate_of($node, q{SELECT weir.wait_for('patient', timeout => '200 ms')});
is($code, '57014', 'waiting for it times out');
like($error, qr/building/, '... and says that it is being built');
$node->safe_psql('postgres', 'ALTER FUNCTION as_is(bigint) RENAME TO called_otherwise');
$writer->query(q{INSERT INTO sales (shop, amount) VALUES ('by the old transaction', 1); COMMIT});
is_exact($node, 'patient', 'SELECT shop, sum(amount) AS total FROM public.sales GROUP BY shop', 'with it over the build ends, includes it, and follows a new name');
$writer->finish;

# ---- a crash while rows are written: over again, from a new snapshot

$load = start_load($node, $write_load, 1);
$node->append_conf('postgresql.conf', "weir.crash_point = 'build-chunk:3'");
$node->reload;
$node->psql('postgres', qq{SELECT weir.create_operator('survivor', \$\$$query{per_row}\$\$)});
ok(wait_log($node, qr/crash point build-chunk reached/), 'killed while rows are written');
$load->{run}->finish;
ok(poll_until($node, q{SELECT status = 'live' FROM weir.operators WHERE operator = 'survivor'::regclass}, 't', 60), 'built after all');
is_exact($node, 'survivor', $query{per_row}, '... and exact');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_replication_slots s WHERE NOT EXISTS (SELECT FROM weir.readers r
	WHERE r.slot_name = s.slot_name)}), '0', 'no slot is left of the first try');

# ---- from now on only

$node->safe_psql('postgres', q{SELECT weir.create_operator('from_now', 'SELECT count(*) AS n FROM public.sales',
	options => '{"backfill": false}')});
$node->safe_psql('postgres', q{SELECT weir.wait_for('from_now', timeout => '60 s')});
is($node->safe_psql('postgres', 'SELECT n FROM from_now'), '0', 'without backfill it starts from nothing');
$node->safe_psql('postgres', q{INSERT INTO sales (shop, amount) SELECT 's1', i FROM generate_series(1, 7) i});
$node->safe_psql('postgres', q{SELECT weir.wait_for('from_now')});
is($node->safe_psql('postgres', 'SELECT n FROM from_now'), '7', '... and counts what comes');

$observer->finish;
$node->stop;
done_testing();
