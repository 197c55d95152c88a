# Claim: weir.batches has each batch once, with what it held and which versions it changed by how
# much, the same as the counters of weir.stat_operators; it is bounded, shows others only what
# is theirs, and names nothing that has been overwritten. lag_time counts from when there was
# something to apply, not from the last commit.
use strict;
use warnings;
use Test::More;
use WeirTest;
use WeirSteps;

my $node = new_node('telemetry', conf => "autovacuum = off\n");
sub sql { return $node->safe_psql('postgres', $_[0]) }

sql(q{CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE watcher LOGIN IN ROLE weir_monitor;
	GRANT CREATE ON SCHEMA public TO alice});
create_sales($node, 100);
create_sales_operator($node);
sql('GRANT SELECT ON sales TO alice');
$node->safe_psql('postgres', q{
	CREATE TABLE own (k int, v int);
	ALTER TABLE own REPLICA IDENTITY FULL;
	SELECT weir.create_operator('per_key', 'SELECT k, sum(v) AS total FROM public.own GROUP BY k');
	SELECT weir.create_operator('all_sales', 'SELECT count(*) AS n FROM public.sales')}, extra_params => [ '-U', 'alice' ]);
sql(q{SELECT weir.wait_for()});

# ---- what a batch holds

my $start = sql('SELECT pg_current_wal_insert_lsn()');
sub since { return "FROM weir.batches WHERE to_lsn > '$start'" }

sql(q{INSERT INTO sales (shop, amount) VALUES ('new', 1), ('newer', 2), ('new', 3)});
sql(q{SELECT weir.wait_for()});
is(sql('SELECT kind, transactions, rows, operators, versions, rows_changed ' . since()),
	'main|1|3|{totals,all_sales}|{1,1}|{2,1}', 'a transaction with three rows of two keys');
is(sql('SELECT count(*) ' . since() . q{ AND read_ms >= 0 AND apply_ms > 0 AND commit_ms > 0 AND from_lsn < to_lsn
	AND committed_at BETWEEN now() - interval '1 min' AND now()}), 1, '... with its times');

$start = sql('SELECT pg_current_wal_insert_lsn()');
my $reader = worker_pid($node, 'reader');
kill 'STOP', $reader;
sql(q{INSERT INTO own VALUES (1, 1)});
sql(q{INSERT INTO sales (shop, amount) VALUES ('new', 1)});
sql(q{DELETE FROM sales WHERE shop = 'newer'});
sql(q{UPDATE own SET v = 2});
kill 'CONT', $reader;
sql(q{SELECT weir.wait_for()});
is(sql('SELECT sum(transactions), sum(rows) ' . since()), '4|5', 'four transactions, an update being two rows');
is(sql(q{SELECT count(*) FROM (SELECT from_lsn, lag(to_lsn) OVER (ORDER BY to_lsn) AS before FROM weir.batches WHERE kind = 'main') b
	WHERE from_lsn < before}), 0, 'no batch begins before the end of the one before it');
ok(poll_until($node, q{SELECT bool_and(rows_inserted + rows_updated + rows_deleted =
		(SELECT sum(f.n) FROM weir.batches b, unnest(b.operators, b.versions, b.rows_changed) f (o, v, n)
		 WHERE f.o = s.operator AND f.v = s.version)) AND count(*) = 3 FROM weir.stat_operators s}),
	'the changes of all batches are those that weir.stat_operators counts');

# ---- rights

sub as { return $node->safe_psql('postgres', $_[1], extra_params => [ '-U', $_[0] ]) }
my $names = q{SELECT coalesce(string_agg(DISTINCT o::text, ' ' ORDER BY o::text), 'none') FROM weir.batches, unnest(operators) o};
is(as('alice', $names), 'all_sales per_key', 'an owner sees the numbers of her operators');
is(as('alice', 'SELECT count(*) FROM weir.batches WHERE cardinality(operators) <> cardinality(rows_changed) OR cardinality(operators) = 0'),
	0, '... and only batches that they took part in');
is(as('bob', $names), 'none', 'others see nothing');
is(as('watcher', $names), 'all_sales per_key totals', 'a monitor sees all');
is(as($_, q{SELECT coalesce(string_agg(operator::text, ' ' ORDER BY operator::text), 'none') FROM weir.stat_operators}),
	{ alice => 'all_sales per_key', bob => 'none', watcher => 'all_sales per_key totals' }->{$_}, "weir.stat_operators for $_")
  for qw(alice bob watcher);

# ---- lag in time

sql(q{SELECT weir.wait_for()});
wait_idle(1.5);
$reader = worker_pid($node, 'reader');
kill 'STOP', $reader;
sql('SELECT pg_switch_wal()');
is(sql(q{SELECT lag_bytes > 0, lag_time < '1 s' FROM weir.stat_readers}), 't|t', 'WAL without a commit of this database is no lag in time');
sql(q{INSERT INTO own VALUES (2, 1)});
ok(poll_until($node, q{SELECT lag_time > '300 ms' FROM weir.stat_readers}), 'a commit that is not applied is');
kill 'CONT', $reader;
sql(q{SELECT weir.wait_for()});
ok(poll_until($node, q{SELECT lag_time < '300 ms' FROM weir.stat_readers}), '... until it is applied');

# ---- drift

sql(q{SELECT weir.start_upgrade('totals', 'SELECT shop, count(*) AS n, sum(amount) AS total, max(amount) AS highest, min(amount) AS lowest
	FROM public.sales GROUP BY shop', gates => '{"observe": "0 s"}')});
wait_phase($node, 'totals', 'observing');
is(sql(q{SELECT version, drift_rows, drift_lsn IS NOT NULL FROM weir.stat_operators WHERE operator = 'totals'::regclass ORDER BY version}),
	"1||f\n2|0|t", 'drift of the version that was compared');
is(sql(q{SELECT count(*) > 0 FROM weir.batches WHERE kind = 'catch_up'}), 'f', 'nothing was written meanwhile, so no catch-up batch');

# ---- bounded: one batch for each transaction, five versions in each

$node->append_conf('postgresql.conf', "weir.max_batch_rows = 1\n");
$node->reload;
poll_until($node, q{SELECT current_setting('weir.max_batch_rows') = '1'});
sql(q{SELECT weir.create_operator(name, 'SELECT count(*) AS n FROM public.sales') FROM unnest('{more,most}'::text[]) name});
sql(q{SELECT weir.wait_for()});
sql(q{DO $$ BEGIN FOR i IN 1..2100 LOOP INSERT INTO sales (shop, amount) VALUES ('s1', i); COMMIT; END LOOP; END $$});
sql(q{SELECT weir.wait_for(timeout => '2 min')});
is(sql(q{SELECT count(*), sum(transactions), count(operators), max(cardinality(operators)) FROM weir.batches}), '2048|2048|1638|5',
	'the last 2048 batches are kept, and the last 8192 versions in them');
is(sql(q{SELECT count(*) FROM weir.batches WHERE operators IS NULL AND committed_at > (SELECT min(committed_at) FROM weir.batches WHERE operators IS NOT NULL)}),
	0, '... from which the oldest have gone');
is_exact($node, 'totals', q{SELECT shop, count(*) AS n, sum(amount) AS total, max(amount) AS highest, min(amount) AS lowest FROM public.sales GROUP BY shop}, 'and the operator is right');

$node->restart;
ok(poll_until($node, q{SELECT count(*) = 1 FROM weir.readers WHERE pid IS NOT NULL}), 'restarted');
is(sql('SELECT count(*) FROM weir.batches'), 0, 'the history is lost with the server');
$node->stop;
done_testing();
