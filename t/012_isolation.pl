# Claim: what one operator's owner does or raises does not stop the others of its stream (I11): a view over
# a state table that is to go, errors that look as if they would pass, a changed function, a locked source.
use strict;
use warnings;
use lib 't/perl';
use PostgreSQL::Test::Utils;
use Test::More;
use WeirSteps;
use WeirTest;

my $node = new_node('main');
my $query = 'SELECT shop, count(*) AS n FROM public.sales GROUP BY shop';

sub sql { return $node->safe_psql('postgres', $_[0]); }

# The operator "others" has every row that is in its source by now.
sub others_go_on
{
	my ($name) = @_;

	sql(q{SELECT weir.wait_for('others', timeout => '60 s')});
	is(sql("SELECT count(*) FROM ((TABLE others EXCEPT ALL ($query)) UNION ALL (($query) EXCEPT ALL TABLE others)) AS d"),
		'0', $name);
	return;
}

sql(q{
	CREATE TABLE sales (id int, shop text, amount int);
	CREATE TABLE quiet (k int);
	ALTER TABLE sales REPLICA IDENTITY FULL;
	ALTER TABLE quiet REPLICA IDENTITY FULL;
	INSERT INTO sales SELECT i, 's' || i % 3, i FROM generate_series(1, 300) AS i;
	CREATE FUNCTION picky(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
		'BEGIN IF $1 = -1 THEN RAISE EXCEPTION ''picky'' USING ERRCODE = ''55000''; END IF; RETURN $1; END';
	CREATE FUNCTION plain(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
});
sql("SELECT weir.create_operator('$_', '$query')") for 'others', 'upgraded';
sql(q{SELECT weir.create_operator('quiet_rows', 'SELECT k, count(*) AS n FROM quiet GROUP BY k')});
sql(q{SELECT weir.wait_for(timeout => '60 s')});

# A view over a state table that is to go; it goes with it, but somebody is busy with it.
sql(q{ALTER VIEW upgraded SET (security_barrier = true); ALTER VIEW upgraded RENAME COLUMN n TO sales});
sql(q{SELECT weir.start_upgrade('upgraded', 'SELECT shop, count(*) AS n, sum(amount) AS s FROM sales GROUP BY shop', gates => '{"observe": "0 s"}')});
sql(q{SELECT weir.wait_for_upgrade('upgraded', 'observing', '60 s')});
sql(q{CREATE VIEW in_the_way AS TABLE weir_state.upgraded_v1});
my $busy = open_session($node);
$busy->query(q{BEGIN; COMMENT ON VIEW in_the_way IS 'locks the view alone'});
sql(q{SELECT weir.finalize_upgrade('upgraded')});
ok(poll_until($node, q{SELECT pg_get_viewdef('upgraded'::regclass) NOT LIKE '%_v1%'}), 'the view leaves the old version');
is(sql(q{SELECT reloptions FROM pg_class WHERE oid = 'upgraded'::regclass}), '{security_barrier=true}',
	'... and keeps its options');
is(sql('SELECT sum(sales) FROM upgraded'), '300', '... and what was renamed in it');
$node->wait_for_log(qr/pg_weir coordinator ERROR:  canceling statement due to lock timeout/);
sql(q{SELECT weir.pause_operator('quiet_rows')});
ok(poll_until($node, q{SELECT r.slot_name IS NOT NULL FROM weir.versions v JOIN weir.readers r USING (reader_id) WHERE v.operator = 'quiet_rows'::regclass AND r.kind = 'stopped'}),
	'the coordinator goes on although a state table cannot be dropped');
sql(q{SELECT weir.resume_operator('quiet_rows')});
sql(q{SELECT weir.wait_for('quiet_rows', timeout => '60 s')});
$busy->query('COMMIT');
$busy->finish;
ok(poll_until($node, q{SELECT to_regclass('weir_state.upgraded_v1') IS NULL}), '... which goes as soon as it can');
is(sql(q{SELECT to_regclass('in_the_way') IS NULL}), 't', '... with what was made of it');

# A candidate whose function raises what would be tried again.
sql(q{SELECT weir.start_upgrade('upgraded', 'SELECT shop, count(*) AS n, sum(picky(amount)) AS p FROM sales GROUP BY shop',
	auto_advance => false, gates => '{"observe": "0 s"}')});
sql(q{SELECT weir.wait_for_upgrade('upgraded', 'validating', '60 s')});
sql(q{INSERT INTO sales VALUES (1001, 's0', -1)});
others_go_on('a candidate with an error that might pass does not hold the stream');
ok(poll_until($node, q{SELECT reason FROM weir.upgrades ORDER BY upgrade_id DESC LIMIT 1}, 'version 3 failed: picky'),
	'... but is rolled back');

# The same in an operator that serves.
sql(q{SELECT weir.create_operator('proud', 'SELECT sum(picky(amount)) AS p FROM sales WHERE id > 1001')});
sql(q{SELECT weir.wait_for('proud', timeout => '60 s'); INSERT INTO sales VALUES (1002, 's1', -1)});
others_go_on('nor does an operator that serves, after some tries');
ok(poll_until($node, q{SELECT status || ' ' || message FROM weir.operators WHERE operator = 'proud'::regclass},
	'stopped picky'), '... but stops with its place kept');

# A function that is replaced while readers run.
sql(q{SELECT weir.create_operator('changed', 'SELECT shop, sum(plain(amount)) AS s FROM sales GROUP BY shop')});
sql(q{SELECT weir.wait_for('changed', timeout => '60 s')});
my $before = sql('SELECT sum(s) FROM changed');
sql(q{CREATE OR REPLACE FUNCTION plain(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1000; END'});
sql(q{INSERT INTO sales VALUES (1003, 's2', 1)});
others_go_on('a changed function does not hold the stream');
ok(poll_until($node, q{SELECT status FROM weir.operators WHERE operator = 'changed'::regclass}, 'stale'),
	'... and is not absorbed silently');
is(sql('SELECT sum(s) FROM changed'), $before, '... its operator shows what it had');

# A source that is locked while another operator's new version is handed over.
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN; LOCK TABLE quiet IN ACCESS EXCLUSIVE MODE');
sql(q{SELECT weir.start_upgrade('upgraded', 'SELECT shop, count(*) AS n, sum(amount) AS s, count(*) + 1 AS m FROM sales GROUP BY shop', gates => '{"observe": "0 s"}')});
sql(q{SELECT weir.wait_for_upgrade('upgraded', 'observing', '60 s')});
sql(q{INSERT INTO sales VALUES (1004, 's0', 4)});
others_go_on('a locked source does not hold the stream');
$session->query_safe('ROLLBACK');
$session->quit;

sql('INSERT INTO quiet VALUES (1)');
sql(q{SELECT weir.wait_for('quiet_rows', timeout => '60 s')});
is(sql('SELECT n FROM quiet_rows'), '1', 'and its operator goes on afterwards');
$node->stop;
done_testing();
