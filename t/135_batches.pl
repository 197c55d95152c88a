# Claim: under a backlog batches start small and grow, up to weir.max_batch_rows; a transaction
# is never split, a batch that touches every key hardly writes to the index, and the result is exact (I7).
use strict;
use warnings;
use Test::More;
use WeirTest;

my $query = 'SELECT shop, count(*) AS n, sum(amount) AS total FROM public.sales GROUP BY shop';
my $node = new_node('batches', conf => "autovacuum = off\n");
$node->safe_psql('postgres', 'CREATE TABLE sales (shop text, amount int); ALTER TABLE sales REPLICA IDENTITY FULL;');
$node->safe_psql('postgres', qq{SELECT weir.create_operator('totals', '$query')});
$node->safe_psql('postgres', q{SELECT weir.wait_for('totals')});

sub batches
{
	return $node->safe_psql('postgres', q{SELECT batches FROM weir.stat_readers WHERE kind = 'main'});
}

# The number of batches in which the reader, stopped meanwhile, applies 40 transactions of 1000 rows.
sub batches_of_backlog
{
	my $before = batches();
	my $pid = $node->safe_psql('postgres', q{SELECT pid FROM weir.readers WHERE kind = 'main'});
	kill 'STOP', $pid;
	$node->safe_psql('postgres', q{DO $$ BEGIN FOR i IN 1..40 LOOP
		INSERT INTO sales SELECT 's' || j % 7, j FROM generate_series(1, 1000) j; COMMIT; END LOOP; END $$});
	kill 'CONT', $pid;
	$node->safe_psql('postgres', q{SELECT weir.wait_for('totals', timeout => '2 min')});
	return batches() - $before;
}

sub set
{
	my ($setting) = @_;
	$node->append_conf('postgresql.conf', "$setting\n");
	$node->reload;
	my ($name, $value) = split / = /, $setting;
	poll_until($node, "SELECT current_setting('$name') = $value");
}

my $batches = batches_of_backlog();
cmp_ok($batches, '>=', 2, 'the first batch is not the whole backlog');
cmp_ok($batches, '<=', 8, 'batches grow');
set(q{weir.max_batch_rows = '2500'});
cmp_ok(batches_of_backlog(), '>=', 13, 'batches no larger than weir.max_batch_rows and one transaction');
set(q{weir.max_batch_rows = '100'});
$batches = batches_of_backlog();
cmp_ok($batches, '>=', 40, 'transactions larger than weir.max_batch_rows come one by one');
cmp_ok($batches, '<=', 44, 'and are not split');
is($node->safe_psql('postgres', "SELECT count(*) FROM ((TABLE totals EXCEPT ALL $query) UNION ALL ($query EXCEPT ALL TABLE totals)) d"),
	0, 'the operator is equal to its definition');

# All keys of a state table at once, as large batches over many keys do.
$node->safe_psql('postgres', q{INSERT INTO sales SELECT 'x' || j, 1000000 FROM generate_series(1, 5000) j});
$node->safe_psql('postgres', q{SELECT weir.create_operator('again', 'SELECT shop, count(*) AS n, sum(amount) AS total FROM public.sales GROUP BY shop')});
$node->safe_psql('postgres', q{SELECT weir.wait_for('again')});
$node->safe_psql('postgres', q{INSERT INTO sales SELECT 'x' || j, 1 FROM generate_series(1, 5000) j});
$node->safe_psql('postgres', q{SELECT weir.wait_for('again')});
my $state = q{FROM pg_stat_user_tables WHERE relname = (SELECT max(relname) FROM pg_stat_user_tables WHERE schemaname = 'weir_state')};
poll_until($node, "SELECT n_tup_upd >= 5000 $state");
cmp_ok($node->safe_psql('postgres', "SELECT n_tup_upd - n_tup_hot_upd $state"), '<', 100, 'rows of a batch that touches every key stay on their pages');
$node->stop;
done_testing();
