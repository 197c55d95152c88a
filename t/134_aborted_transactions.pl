# Claim: a large transaction that ended before it was decoded, itself or in part rolled back, whose
# changes decoding drops or spills on its way, leaves the reader going on and the result exact (I7).
use strict;
use warnings;
use Test::More;
use WeirTest;

my $query = 'SELECT shop, count(*) AS n, sum(amount) AS total FROM public.sales GROUP BY shop';
my $node = new_node('aborted', conf => "autovacuum = off\nlogical_decoding_work_mem = '64kB'\n");
$node->safe_psql('postgres', 'CREATE TABLE sales (shop text, amount int); ALTER TABLE sales REPLICA IDENTITY FULL;');
$node->safe_psql('postgres', qq{SELECT weir.create_operator('totals', '$query')});
$node->safe_psql('postgres', q{SELECT weir.wait_for('totals')});

sub reader_pid
{
	return $node->safe_psql('postgres', q{SELECT pid FROM weir.readers WHERE kind = 'main'});
}

# What is written has ended before the reader, stopped meanwhile, decodes the first of it.
sub behind_the_reader
{
	my ($sql) = @_;
	my $pid = reader_pid();
	kill 'STOP', $pid;
	$node->safe_psql('postgres', $sql);
	kill 'CONT', $pid;
	$node->safe_psql('postgres', q{SELECT weir.wait_for('totals', timeout => '1 min')});
	is(reader_pid(), $pid, '... the same reader goes on');
	is($node->safe_psql('postgres', "SELECT count(*) FROM ((TABLE totals EXCEPT ALL $query) UNION ALL ($query EXCEPT ALL TABLE totals)) d"),
		0, '... and the operator is equal to its definition');
}

my $rows = q{INSERT INTO sales SELECT 's' || j % 7, j FROM generate_series(1, 5000) j};

note('rolled back');
behind_the_reader("BEGIN; $rows; ROLLBACK; INSERT INTO sales VALUES ('after', 1)");
note('a rolled back subtransaction in a committed one');
behind_the_reader("BEGIN; INSERT INTO sales VALUES ('kept', 1); SAVEPOINT s; $rows; ROLLBACK TO s; $rows; COMMIT");
note('a rolled back transaction with subtransactions');
behind_the_reader("BEGIN; $rows; SAVEPOINT s; $rows; RELEASE s; ROLLBACK; INSERT INTO sales VALUES ('after', 2)");
note('its subtransaction still in memory when its changes are dropped: 18 takes that one for streamed');
behind_the_reader("BEGIN; SAVEPOINT s; INSERT INTO sales VALUES ('small', 1); RELEASE s; $rows; ROLLBACK; INSERT INTO sales VALUES ('after', 3)");
note('rolled back among committed ones');
behind_the_reader(qq{DO \$\$ BEGIN FOR i IN 1..5 LOOP $rows; COMMIT; $rows; ROLLBACK; END LOOP; END \$\$});
$node->stop;
done_testing();
