# Claim: workers and state tables serve many owners, and nothing of one stays in them for the
# others: no advisory lock, no function that ANALYZE would call as a superuser, no dependent that
# keeps state alive, no right that was taken away (J1-J11, I11, I12).
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Utils;
use WeirTest;
use WeirSteps;

my $node = new_node('shared', conf => "weir.restart_delay = '10ms'\nmax_locks_per_transaction = 10\nmax_connections = 40\n");
sub sql { return $node->safe_psql('postgres', $_[0]) }

sub as
{
	my ($role, $statements) = @_;
	return $node->safe_psql('postgres', $statements, extra_params => [ '-U', $role ]);
}

sub version_is
{
	my ($operator, $columns, $expected, $name) = @_;
	return ok(poll_until($node, "SELECT $columns FROM weir.versions WHERE operator = '$operator'::regclass AND serving", $expected), $name);
}

sql(q{CREATE ROLE bob LOGIN; CREATE ROLE alice LOGIN; CREATE ROLE mallory LOGIN;
	CREATE SCHEMA bobs AUTHORIZATION bob; CREATE SCHEMA ali AUTHORIZATION alice; CREATE SCHEMA mal AUTHORIZATION mallory;
	GRANT USAGE ON SCHEMA ali TO PUBLIC});
as('alice', q{
	CREATE TABLE ali.sales (shop text, amount bigint);
	ALTER TABLE ali.sales REPLICA IDENTITY FULL;
	INSERT INTO ali.sales SELECT 's' || i % 5, i FROM generate_series(1, 100) i;
	SELECT weir.create_operator('ali.totals', 'SELECT shop, sum(amount) AS total FROM ali.sales GROUP BY shop')});
my $alices_query = 'SELECT shop, sum(amount) AS total FROM ali.sales GROUP BY shop';
is_exact($node, 'ali.totals', $alices_query, 'an operator of somebody else');

# ---- ANALYZE asks a range type for distances

as('bob', q{
	SET search_path = bobs;
	CREATE FUNCTION distance(int, int) RETURNS float8 LANGUAGE plpgsql IMMUTABLE AS
		$$BEGIN RAISE LOG 'TRACE distance as %', current_user; RETURN $1 - $2; END$$;
	CREATE TYPE span AS RANGE (subtype = int4, subtype_diff = distance);
	CREATE DOMAIN wide AS span;
	CREATE TABLE spans (r span, v int);
	ALTER TABLE spans REPLICA IDENTITY FULL;
	INSERT INTO spans SELECT span(i, i + 5), i FROM generate_series(1, 500) i;
	SELECT weir.create_operator('bobs.by_span', 'SELECT r, r::bobs.wide AS w, ARRAY[r] AS a, multirange(r) AS m, count(*) AS n FROM bobs.spans GROUP BY r')});
is_exact($node, 'bobs.by_span', 'SELECT r, r::bobs.wide, ARRAY[r], multirange(r), count(*) FROM bobs.spans GROUP BY r', 'keys of a type with a function of its owner\'s');
sql(q{SELECT format('ANALYZE %s', c.oid::regclass) FROM pg_class c WHERE relnamespace = 'weir_state'::regnamespace AND relkind = 'r' \gexec});
unlike(slurp_file($node->logfile), qr/LOG:  TRACE distance as (?!bob)/, '... which nobody else calls');
is(sql(q{SELECT count(*) > 0 FROM pg_stats WHERE schemaname = 'weir_state' AND attname = 'n'}), 't', '... though ANALYZE has run');

# ---- advisory locks

as('bob', q{
	SET search_path = bobs;
	CREATE FUNCTION taken(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
		$$BEGIN EXECUTE 'SELECT pg_advisory_lock($1)' USING v; RETURN v; END$$;
	CREATE FUNCTION taken_for_now(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
		$$BEGIN EXECUTE 'SELECT pg_advisory_xact_lock($1)' USING v; RETURN v; END$$;
	CREATE TABLE few (k int);
	ALTER TABLE few REPLICA IDENTITY FULL;
	CREATE TABLE many (LIKE few);
	ALTER TABLE many REPLICA IDENTITY FULL;
	SELECT weir.create_operator('bobs.few_taken', 'SELECT bobs.taken(k) AS k, count(*) AS n FROM bobs.few GROUP BY 1');
	SELECT weir.create_operator('bobs.many_taken', 'SELECT bobs.taken(k) AS k, count(*) AS n FROM bobs.many GROUP BY 1');
	SELECT weir.create_operator('bobs.many_for_now', 'SELECT bobs.taken_for_now(k) AS k, count(*) AS n FROM bobs.many GROUP BY 1')});
sql(q{SELECT weir.wait_for(timeout => '60 s')});
as('bob', 'INSERT INTO bobs.few SELECT generate_series(1, 20)');
sql(q{SELECT weir.wait_for('bobs.few_taken', timeout => '60 s')});
is(sql(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}), '0', 'advisory locks of a function end with the batch');
as('bob', 'INSERT INTO bobs.many SELECT generate_series(1, 100000)');
version_is('bobs.many_taken', 'status, sqlstate', 'stopped|54000', 'a function that takes all locks of the server stops its operator');
version_is('bobs.many_for_now', 'status, sqlstate', 'stopped|54000', '... those of the transaction, too');
as('alice', q{INSERT INTO ali.sales VALUES ('s1', 1000)});
is_exact($node, 'ali.totals', $alices_query, '... and nobody else\'s');
is(sql(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}), '0', '... and leaves none');
my $own = open_session($node);
$own->query(q{SELECT pg_advisory_lock(7)});
$own->query(q{SELECT * FROM weir.explain_definition('SELECT shop, count(*) AS n FROM ali.sales GROUP BY shop')});
is(sql(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}), '1', 'a session keeps its own');
$own->finish;

# ---- what others make of a state table

as('bob', q{SELECT weir.drop_operator('bobs.' || o) FROM unnest(ARRAY['few_taken', 'many_taken', 'many_for_now']) o});
as('alice', q{SELECT weir.create_operator('ali.kept', 'SELECT shop, count(*) AS n FROM ali.sales GROUP BY shop')});
sql(q{SELECT weir.wait_for('ali.kept', timeout => '60 s')});
as('mallory', q{CREATE VIEW mal.peek AS SELECT * FROM weir_state.kept_v1; CREATE TABLE mal.of_type (x weir_state.kept_v1, y int)});
as('alice', q{SELECT weir.drop_operator('ali.kept')});
ok(poll_until($node, q{SELECT count(*) = 0 FROM pg_class WHERE relnamespace = 'weir_state'::regnamespace AND relname LIKE 'kept%'}),
	'what depends on it does not keep the state of a dropped operator');
is(sql(q{SELECT to_regclass('mal.peek') IS NULL, to_regclass('mal.of_type') IS NOT NULL}), 't|t', '... but goes with it');

# ---- rights that are taken away

as('alice', q{GRANT SELECT ON ali.sales TO bob});
as('bob', q{SELECT weir.create_operator('bobs.of_alice', 'SELECT shop, sum(amount) AS total FROM ali.sales GROUP BY shop')});
is_exact($node, 'bobs.of_alice', $alices_query, 'an operator over a table that was granted');
for my $case (
	[ 'a revoked right', q{REVOKE SELECT ON ali.sales FROM bob}, q{GRANT SELECT ON ali.sales TO bob}, qr/role bob may not read/ ],
	[ 'row security', q{ALTER TABLE ali.sales ENABLE ROW LEVEL SECURITY}, q{ALTER TABLE ali.sales DISABLE ROW LEVEL SECURITY}, qr/row security of table ali.sales applies to role bob/ ])
{
	my ($what, $take, $give, $message) = @$case;
	my $before = sql('SELECT sum(total) FROM bobs.of_alice');
	as('alice', "$take; INSERT INTO ali.sales VALUES ('hidden', 1)");
	version_is('bobs.of_alice', 'status, sqlstate', 'stopped|42501', "$what stops the operator");
	like(sql(q{SELECT message FROM weir.versions WHERE operator = 'bobs.of_alice'::regclass AND serving}), $message, '... for the reason');
	is(sql('SELECT sum(total) FROM bobs.of_alice'), $before, '... before the next change is in it');
	is_exact($node, 'ali.totals', $alices_query, '... others go on');
	as('alice', $give);
	as('bob', q{SELECT weir.resume_operator('bobs.of_alice')});
	is_exact($node, 'bobs.of_alice', $alices_query, '... and given back, it has missed nothing');
}

# ---- a tablespace that the caller may not use

my $folder = PostgreSQL::Test::Utils::tempdir();
sql(qq{CREATE TABLESPACE elsewhere LOCATION '$folder'});
as('bob', q{SET default_tablespace = 'elsewhere'; SELECT weir.start_upgrade('bobs.of_alice', 'SELECT shop, sum(amount) AS total, max(amount) AS m FROM ali.sales GROUP BY shop', gates => '{"observe": "0 s"}')});
is(sql(q{SELECT count(*) FROM pg_class WHERE reltablespace = (SELECT oid FROM pg_tablespace WHERE spcname = 'elsewhere')}), '0',
	'default_tablespace is not followed with other rights than the caller\'s');

# ---- a role that is no more

sql('DROP OWNED BY weir_monitor; DROP ROLE weir_monitor');
is(as('bob', q{SELECT count(*) FROM weir.operators WHERE message IS NULL}) > 0, 1, 'the views do without role weir_monitor');

ok(free_of_crashes($node), 'no process crashed');
$node->stop;
done_testing();
