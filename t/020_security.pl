# Claim: whoever owns some tables and may create functions, operators, casts, domains and views
# can use pg_weir for no more than that (J1-J11). What they put into definitions runs with
# their own rights only, wherever it runs; nobody sees others' rows or errors; nobody's objects,
# open transactions or errors stop other people's operators (I11).
#
# Each attack leaves a trace in the server log: who ran it, where, and as what.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Utils;
use WeirTest;
use WeirSteps;

my $node = new_node('security', conf => "weir.restart_delay = '10ms'\nmax_replication_slots = 30\nmax_worker_processes = 30\n");
my $log_offset = 0;

sub sql { return $node->safe_psql('postgres', $_[0]) }

# Sessions of their own: one that has done SET ROLE could go back to being superuser.
sub as
{
	my ($role, $statements) = @_;
	return $node->safe_psql('postgres', $statements, extra_params => [ '-U', $role ]);
}
sub error_as
{
	my ($role, $statements) = @_;
	my ($status, undef, $text) =
	  $node->psql('postgres', "\\set VERBOSITY verbose\n$statements", extra_params => [ '-U', $role ]);
	my ($state) = $text =~ /(?:ERROR|FATAL):  ([0-9A-Z]{5}):/;
	return ($state // '', $text);
}
sub fails_as
{
	my ($role, $statements, $state, $name) = @_;
	my ($got, $text) = error_as($role, $statements);
	is($got, $state, $name) or diag($text);
	return $text;
}

# What the server log says since the last call.
sub new_log
{
	my $log = slurp_file($node->logfile);
	my $new = substr($log, $log_offset);
	$log_offset = length $log;
	return $new;
}

# Whom the attacks since the last call ran as in workers, and what else they could do; in
# sessions of mallory's only what is not as mallory.
sub traces
{
	my %seen;
	my $log = new_log();
	while ($log =~ /(pg_weir \w+|client backend)[^\n]* LOG:  TRACE ([\w ]+?)(?: at character \d+)?$/mg)
	{
		$seen{$2} = 1 if $1 ne 'client backend' || $2 eq 'postgres';
	}
	return join ', ', sort keys %seen;
}

sql(q{
	CREATE ROLE mallory LOGIN;
	CREATE ROLE alice LOGIN;
	CREATE SCHEMA mal AUTHORIZATION mallory;
	CREATE SCHEMA ali AUTHORIZATION alice;
	GRANT USAGE ON SCHEMA ali TO PUBLIC;
	CREATE TABLE public.prize (a int)});

as('alice', q{
	CREATE TABLE ali.sales (shop text, amount bigint);
	ALTER TABLE ali.sales REPLICA IDENTITY FULL;
	INSERT INTO ali.sales SELECT 's' || i % 5, i FROM generate_series(1, 100) i;
	SELECT weir.create_operator('ali.totals', 'SELECT shop, sum(amount) AS total FROM ali.sales GROUP BY shop')});
my $alices_query = 'SELECT shop, sum(amount) FROM ali.sales GROUP BY shop';

# Alice's operator goes on, whatever mallory does meanwhile.
my $alices_next = 1000;
sub alice_goes_on
{
	my ($name) = @_;
	$alices_next++;
	as('alice', "INSERT INTO ali.sales VALUES ('s1', $alices_next)");
	my ($status, undef, $error) = $node->psql('postgres', q{SELECT weir.wait_for('ali.totals', timeout => '20 s')});
	return fail("$name: $error") if $status != 0;
	return is(differences($node, '(SELECT shop, total FROM ali.totals) AS t', $alices_query), '0', $name);
}
alice_goes_on('an operator of somebody else');

# ---- code in definitions

# strike() does what it can and says as whom; volatile, and called by what pretends to be immutable.
as('mallory', q{
	SET search_path = mal;
	CREATE FUNCTION strike() RETURNS boolean LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog AS $$
		BEGIN
			RAISE LOG 'TRACE %', current_user;
			BEGIN ALTER ROLE mallory SUPERUSER; EXCEPTION WHEN OTHERS THEN NULL; END;
			BEGIN DROP TABLE public.prize; EXCEPTION WHEN OTHERS THEN NULL; END;
			BEGIN SET ROLE postgres; RAISE LOG 'TRACE role set'; EXCEPTION WHEN OTHERS THEN NULL; END;
			BEGIN RESET SESSION AUTHORIZATION; RAISE LOG 'TRACE session reset'; EXCEPTION WHEN OTHERS THEN NULL; END;
			BEGIN CREATE TEMP TABLE operator (a int); RAISE LOG 'TRACE temp created'; EXCEPTION WHEN OTHERS THEN NULL; END;
			BEGIN UPDATE weir_internal.serving SET version = 7; RAISE LOG 'TRACE state written'; EXCEPTION WHEN OTHERS THEN NULL; END;
			PERFORM set_config('search_path', 'mal', false);
			BEGIN PERFORM set_config('role', 'postgres', false); RAISE LOG 'TRACE role set'; EXCEPTION WHEN OTHERS THEN NULL; END;
			RETURN true;
		END $$;
	CREATE FUNCTION yes() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN mal.strike(); END';
	CREATE FUNCTION yes(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN mal.strike(); END';
	CREATE FUNCTION same(text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS 'BEGIN PERFORM mal.strike(); RETURN $1; END';
	CREATE FUNCTION constant() RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS $$BEGIN PERFORM mal.strike(); RETURN 'c'; END$$;
	CREATE FUNCTION inlined(text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS 'SELECT pg_catalog.textcat(mal.constant(), $1)';
	CREATE FUNCTION more(bigint, bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN mal.strike(); END';
	CREATE OPERATOR >>> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = more);
	CREATE DOMAIN checked AS text CHECK (mal.yes(VALUE));
	CREATE TYPE boxed AS (t mal.checked);
	CREATE TYPE color AS ENUM ('red', 'green');
	CREATE FUNCTION plain(color) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS $$BEGIN RETURN 'p'; END$$;
	CREATE FUNCTION color_text(color) RETURNS text LANGUAGE sql IMMUTABLE STRICT
		AS 'SELECT pg_catalog.textcat(mal.constant(), mal.plain($1))';
	CREATE CAST (color AS text) WITH FUNCTION color_text(color);
	CREATE TABLE src (shop text, amount bigint, c color DEFAULT 'red');
	ALTER TABLE src REPLICA IDENTITY FULL;
	INSERT INTO src SELECT 's' || i % 3, i FROM generate_series(1, 10) i});
traces();

my %definitions = (
	'a key' => 'SELECT mal.same(shop) AS k, count(*) AS n FROM mal.src GROUP BY 1',
	'an output' => 'SELECT shop AS k, mal.same(max(shop)) AS n FROM mal.src GROUP BY shop',
	'a filter' => 'SELECT shop AS k, count(*) FILTER (WHERE mal.yes(shop)) AS n FROM mal.src GROUP BY shop',
	'WHERE without columns' => 'SELECT shop AS k, count(*) AS n FROM mal.src WHERE mal.yes() GROUP BY shop',
	'an inlined function' => 'SELECT mal.inlined(shop) AS k, count(*) AS n FROM mal.src GROUP BY 1',
	'an operator' => 'SELECT shop AS k, count(*) AS n FROM mal.src WHERE amount OPERATOR(mal.>>>) 1 GROUP BY shop',
	'a domain' => 'SELECT shop::mal.checked AS k, count(*) AS n FROM mal.src GROUP BY 1',
	'input of a constant' => q{SELECT shop AS k, count(*) AS n FROM mal.src WHERE ('(x)'::mal.boxed) IS NOT NULL GROUP BY shop},
	'a cast' => 'SELECT c::text AS k, count(*) AS n FROM mal.src GROUP BY 1',
	'an extreme' => 'SELECT shop AS k, max(mal.same(shop)) AS n FROM mal.src GROUP BY shop',
	);
for my $place (sort keys %definitions)
{
	as('mallory', "SELECT weir.create_operator('mal.op', \$\$$definitions{$place}\$\$)");
	sql(q{SELECT weir.wait_for('mal.op', timeout => '20 s')});
	as('mallory', q{INSERT INTO mal.src VALUES ('s9', 9); DELETE FROM mal.src WHERE amount = 9});
	sql(q{SELECT weir.wait_for('mal.op', timeout => '20 s')});
	is(traces(), 'mallory', "code in $place runs as its owner");
	as('mallory', q{SELECT weir.drop_operator('mal.op')});
}

# text || any type casts the latter, perhaps by a function of the type's owner, and is stable.
for my $call (q{'a'::text || c}, q{c || 'a'::text}, 'quote_literal(c)', 'quote_nullable(c)')
{
	fails_as('mallory', "SELECT weir.create_operator('mal.op', \$\$SELECT $call AS k, count(*) AS n FROM mal.src GROUP BY 1\$\$)",
		'42P17', "$call is not immutable for a user's type");
}
is(traces(), '', '... and nothing ran');

# ---- administrators: what an upgrade calls runs as the owner, who alone may choose it

sql(q{
	CREATE ROLE chief LOGIN;
	GRANT weir_admin TO chief;
	CREATE SCHEMA chief AUTHORIZATION chief;
	CREATE TABLE public.ours (k int, v int);
	ALTER TABLE public.ours REPLICA IDENTITY FULL;
	INSERT INTO public.ours VALUES (1, 1);
	GRANT SELECT ON public.ours TO PUBLIC;
	SELECT weir.create_operator('public.ours_count', 'SELECT k, count(*) AS n FROM public.ours GROUP BY k')});
sql(q{SELECT weir.wait_for('public.ours_count', timeout => '20 s')});
as('chief', q{
	CREATE FUNCTION chief.rise() RETURNS int LANGUAGE plpgsql VOLATILE AS $$
		BEGIN
			RAISE LOG 'TRACE %', current_user;
			BEGIN ALTER ROLE chief SUPERUSER; EXCEPTION WHEN OTHERS THEN NULL; END;
			RETURN 1;
		END $$;
	CREATE FUNCTION chief.rise(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN chief.rise(); END'});
fails_as('chief', q{SELECT weir.start_upgrade('public.ours_count',
	'SELECT k, count(*) AS n, sum(chief.rise(v)) AS s FROM public.ours GROUP BY k')}, '42501',
	'an administrator cannot give a superuser\'s operator a definition');
as('chief', q{SELECT weir.pause_operator('public.ours_count'); SELECT weir.resume_operator('public.ours_count')});
sql('INSERT INTO public.ours VALUES (1, 1)');
ok(poll_until($node, q{SELECT status = 'live' FROM weir.operators WHERE operator = 'public.ours_count'::regclass}),
	'... but steer it');
is(traces(), '', '... and nothing ran');
is(sql(q{SELECT rolsuper FROM pg_roles WHERE rolname = 'chief'}), 'f', 'an administrator is no superuser');

# ---- what others may not see

as('alice', q{
	CREATE TABLE ali.diary (k int, v int);
	ALTER TABLE ali.diary REPLICA IDENTITY FULL;
	CREATE FUNCTION ali.read(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
		BEGIN IF v > 100 THEN RAISE 'too much: %', v USING HINT = 'ask for ' || v; END IF; RETURN v; END $$;
	SELECT weir.create_operator('ali.diary_sum', 'SELECT k, sum(ali.read(v)) AS s FROM ali.diary GROUP BY k')});
sql(q{SELECT weir.wait_for('ali.diary_sum', timeout => '20 s')});
as('alice', 'INSERT INTO ali.diary VALUES (1, 1987654321)');
ok(poll_until($node, q{SELECT status = 'stopped' FROM weir.operators WHERE operator = 'ali.diary_sum'::regclass}),
	'an operator stops with a value in the error text');
like(fails_as('alice', q{SELECT weir.wait_for('ali.diary_sum')}, '55000', 'its owner waits in vain'), qr/1987654321/, '... and is told why');
unlike(fails_as('mallory', q{SELECT weir.wait_for('ali.diary_sum')}, '55000', 'somebody else, too'), qr/1987654321/,
	'... without the value');
for my $view (split /\n/, sql(q{SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'weir'::regnamespace AND relkind = 'v'}))
{
	unlike(as('mallory', "SELECT * FROM $view"), qr/1987654321/, "$view does not tell others the value");
}
for my $table (split /\n/, sql(q{SELECT c.oid::regclass FROM pg_class c
	WHERE relnamespace IN ('weir_state'::regnamespace, 'weir_internal'::regnamespace) AND relkind IN ('r', 'v') AND relname <> 'serving'}))
{
	my ($state) = error_as('mallory', "SELECT * FROM $table");
	my ($locked) = error_as('mallory', "BEGIN; LOCK TABLE $table IN ACCESS SHARE MODE");
	is("$state $locked", '42501 42501', "$table: neither to be read nor locked by others");
}
as('alice', q{SELECT weir.drop_operator('ali.diary_sum')});

# ---- a call that comes to mean another function

sql(q{
	CREATE SCHEMA lib;
	GRANT USAGE ON SCHEMA lib TO PUBLIC;
	GRANT CREATE ON SCHEMA lib TO mallory;
	CREATE FUNCTION lib.label(anyelement) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END'});
as('alice', q{
	CREATE TABLE ali.labelled (k int);
	ALTER TABLE ali.labelled REPLICA IDENTITY FULL;
	SELECT weir.create_operator('ali.labels', 'SELECT lib.label(k) AS k, count(*) AS n FROM ali.labelled GROUP BY 1')});
sql(q{SELECT weir.wait_for('ali.labels', timeout => '20 s')});
as('mallory', q{CREATE FUNCTION lib.label(int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
	$$BEGIN PERFORM mal.strike(); RETURN $1; END$$; GRANT USAGE ON SCHEMA mal TO PUBLIC});
# A reader that starts analyses texts anew.
my $reader = kill_worker($node, 'reader');
isnt(wait_new_worker($node, 'reader', $reader), '', 'another reader comes');
as('alice', 'INSERT INTO ali.labelled VALUES (1)');
ok(poll_until($node, q{SELECT status IN ('stopped', 'stale') AND sqlstate = 'WE004' FROM weir.versions WHERE operator = 'ali.labels'::regclass}),
	'an operator stops rather than call another function than before');
is(traces(), '', '... which did not run');
alice_goes_on('... and others go on');
as('mallory', 'DROP FUNCTION lib.label(int)');
as('alice', q{SELECT weir.resume_operator('ali.labels')});
is_exact($node, 'ali.labels', 'SELECT k::text, count(*) FROM ali.labelled GROUP BY 1', 'without it the operator goes on');
as('alice', q{SELECT weir.drop_operator('ali.labels')});

# ---- stopping others: errors that say what mallory likes, and locks

as('mallory', q{
	SET search_path = mal;
	CREATE TABLE orders (k text);
	ALTER TABLE orders REPLICA IDENTITY FULL;
	CREATE FUNCTION fail(k text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
		BEGIN IF k <> '' THEN RAISE 'as you like' USING ERRCODE = k; END IF; RETURN k; END $$});
# A fence and a full disk: what only pg_weir and the server say. (012_isolation.pl has others.)
for my $state ('WE001', '53100')
{
	as('mallory', q{TRUNCATE mal.orders; SELECT weir.create_operator('mal.failing', 'SELECT mal.fail(k) AS k, count(*) AS n FROM mal.orders GROUP BY 1')});
	sql(q{SELECT weir.wait_for('mal.failing', timeout => '20 s')});
	as('mallory', "INSERT INTO mal.orders VALUES ('$state')");
	alice_goes_on("an operator that raises $state does not stop others");
	ok(poll_until($node, qq{SELECT status = 'stopped' AND sqlstate = '$state' FROM weir.versions WHERE operator = 'mal.failing'::regclass}),
		'... but itself');
	as('mallory', q{SELECT weir.drop_operator('mal.failing')});
}

as('mallory', q{TRUNCATE mal.orders; SELECT weir.create_operator('mal.locked', 'SELECT k, count(*) AS n FROM mal.orders GROUP BY 1')});
sql(q{SELECT weir.wait_for('mal.locked', timeout => '20 s')});
my $locker = open_session($node);
$locker->query('SET SESSION AUTHORIZATION mallory; BEGIN; LOCK TABLE mal.orders IN ACCESS EXCLUSIVE MODE');
$reader = kill_worker($node, 'reader');
isnt(wait_new_worker($node, 'reader', $reader), '', 'a reader starts while somebody has locked a source');
alice_goes_on('... which does not stop others');
as('alice', q{SELECT weir.start_upgrade('ali.totals', 'SELECT shop, sum(amount) AS total, count(*) AS n FROM ali.sales GROUP BY shop', gates => '{"observe": "0 s"}')});
is(wait_phase($node, 'ali.totals', 'observing', 20), 'observing', '... nor their upgrades');
as('alice', q{SELECT weir.rollback_upgrade('ali.totals')});
ok(poll_until($node, q{SELECT status <> 'live' FROM weir.versions WHERE operator = 'mal.locked'::regclass}), '... but its own operator');
$locker->query(q{INSERT INTO mal.orders VALUES ('later'); COMMIT});
$locker->finish;
is_exact($node, 'mal.locked', 'SELECT k, count(*) FROM mal.orders GROUP BY 1', '... which goes on by itself');
is(sql(q{SELECT r.kind FROM weir.versions v JOIN weir.readers r USING (reader_id) WHERE v.operator = 'mal.locked'::regclass}),
	'main', '... with the others');
as('mallory', q{SELECT weir.drop_operator('mal.locked')});

# ---- stopping the coordinator, which compares versions and replaces views

as('mallory', q{
	SET search_path = mal;
	CREATE TYPE odd AS (j json);
	CREATE FUNCTION odd_text(odd) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS
		$$BEGIN PERFORM mal.strike(); RETURN 'x'; END$$;
	CREATE CAST (odd AS text) WITH FUNCTION odd_text(odd);
	TRUNCATE src;
	INSERT INTO src VALUES ('s1', 1), ('s2', 2);
	SELECT weir.create_operator('mal.odd_rows', $$SELECT shop, count(*) AS n, ROW('{}'::json)::mal.odd AS j FROM mal.src GROUP BY shop$$)});
my ($built, undef, $why_not) = $node->psql('postgres', q{SELECT weir.wait_for('mal.odd_rows', timeout => '20 s')});
is($built, 0, 'an operator with values that cannot be compared') or diag($why_not);
new_log();
as('mallory', q{SELECT weir.start_upgrade('mal.odd_rows',
	$$SELECT shop, count(*) AS n, ROW('{}'::json)::mal.odd AS j, sum(amount) AS s FROM mal.src GROUP BY shop$$, gates => '{"observe": "0 s"}')});
is(wait_phase($node, 'mal.odd_rows', 'observing', 20), 'observing', '... is upgraded');
is(traces(), '', '... without a cast of its owner\'s');
as('mallory', q{SELECT weir.drop_operator('mal.odd_rows')});

# A view is its owner's: the coordinator replaces what it finds, or ends the upgrade.
as('mallory', q{SELECT weir.create_operator('mal.twisted', 'SELECT shop, count(*) AS n FROM mal.src GROUP BY shop')});
sql(q{SELECT weir.wait_for('mal.twisted', timeout => '20 s')});
# %s: the view and its columns, of the same types.
my %twists = (
	'a column of the next version with another type' => q{CREATE OR REPLACE VIEW %s AS SELECT %s, '(1,1)'::point AS s1},
	'another body' => 'CREATE OR REPLACE VIEW %s AS SELECT %s FROM pg_roles',
	'a domain' => 'CREATE OR REPLACE VIEW %s AS SELECT %s, NULL::mal.checked AS d',
	'a rule' => 'CREATE RULE r AS ON INSERT TO %s DO INSTEAD SELECT mal.strike()',
	'a trigger' => q{CREATE FUNCTION mal.tr() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM mal.strike(); RETURN NULL; END';
		CREATE TRIGGER t INSTEAD OF UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION mal.tr()},
	'another name and schema' => 'CREATE SCHEMA mal2; ALTER VIEW %s RENAME TO "select"; ALTER VIEW mal."select" SET SCHEMA mal2');
sql('GRANT CREATE ON DATABASE postgres TO mallory');
my $upgrades = 0;
for my $twist (sort keys %twists)
{
	my $operator = q{SELECT operator FROM weir.operators WHERE operator::text LIKE 'mal%.%'};
	my $view = sql($operator);
	my $columns = sql(qq{SELECT string_agg(format('NULL::%s AS %I', format_type(atttypid, atttypmod), attname), ', ' ORDER BY attnum)
		FROM pg_attribute WHERE attrelid = '$view'::regclass AND attnum > 0});
	$upgrades++;
	# In one transaction: the coordinator finds the view twisted when it looks for the first time.
	as('mallory', qq{BEGIN; SELECT weir.start_upgrade('$view',
		'SELECT shop, count(*) AS n, sum(amount) + $upgrades AS s$upgrades FROM mal.src GROUP BY shop', safe_window => '0', gates => '{"observe": "0 s"}');
		} . sprintf("$twists{$twist}; COMMIT", $view, $columns));
	$view = sql($operator);
	ok(poll_until($node, "SELECT ended_at IS NOT NULL FROM weir.upgrades WHERE operator = '$view'::regclass ORDER BY upgrade_id DESC LIMIT 1", 't', 20),
		"a view with $twist: the upgrade ends");
}
is(traces(), '', '... and nothing ran');
is(sql(q{SELECT count(*) FROM pg_class WHERE relname IN ('twisted', 'select') AND relkind = 'v'}), '1', '... and no other view came');
alice_goes_on('... and others go on');
as('mallory', q{SELECT weir.drop_operator('mal2."select"')});

# ---- control calls on what is somebody else's, and names

for my $relation ('ali.totals', 'ali.sales', 'weir_state.totals_v1', 'weir_internal.serving', 'weir.operators', 'pg_class', 'pg_class_oid_index', '0', '4294967295')
{
	for my $call ('pause_operator(%s)', 'drop_operator(%s)', 'rebuild_operator(%s)', 'rollback_upgrade(%s)', 'verify(%s)', q{start_upgrade(%s, 'SELECT 1')})
	{
		my ($state) = error_as('mallory', sprintf "SELECT weir.$call", "'$relation'::regclass");
		ok($state =~ /^(42501|42809|42P01)$/, "$call on $relation: refused") or diag($state);
	}
}
for my $name (q{"; DROP TABLE public.prize; --"}, q{"a'b""c\\d"}, q{"two
lines"}, '"' . 'x' x 63 . '"', q{"%s%n%L"}, "\"\xc3\xa4\xe2\x82\xac\"", '"Public"', '"current_user"', '"$$"')
{
	my $column = $name;
	(my $shown = $name) =~ s/\n/ /g;
	as('mallory', qq{SET search_path = mal;
		CREATE TABLE "orders of others" ($column text, v int);
		ALTER TABLE "orders of others" REPLICA IDENTITY FULL;
		INSERT INTO "orders of others" VALUES ('x', 1);
		SELECT weir.create_operator(format('mal.%s', \$q\$$name\$q\$), \$q\$SELECT $column, count(*) AS n, max(v) AS m FROM "orders of others" GROUP BY 1\$q\$)});
	sql(q{SELECT weir.wait_for(timeout => '20 s')});
	as('mallory', qq{SELECT weir.start_upgrade(\$q\$mal.$name\$q\$, \$q\$SELECT $column, count(*) AS n, max(v) AS m, min(v) AS l FROM mal."orders of others" GROUP BY 1\$q\$, gates => '{"observe": "0 s"}')});
	as('mallory', qq{SELECT weir.wait_for_upgrade(\$q\$mal.$name\$q\$, 'observing', '20 s')});
	as('mallory', qq{SELECT weir.finalize_upgrade(\$q\$mal.$name\$q\$); DELETE FROM mal."orders of others"; INSERT INTO mal."orders of others" VALUES ('y', 2)});
	is(as('mallory', qq{SELECT missing, extra FROM weir.verify(\$q\$mal.$name\$q\$, '20 s')}), '0|0', "$shown is a name");
	as('mallory', qq{SELECT weir.drop_operator(\$q\$mal.$name\$q\$); DROP TABLE mal."orders of others" CASCADE});
}

# ---- a database in which others may create in the schema that extensions go to

sql('CREATE DATABASE hostile');
$node->safe_psql('hostile', 'GRANT CREATE ON SCHEMA public TO mallory; GRANT CREATE ON DATABASE hostile TO mallory');
$node->safe_psql('hostile', q{
	CREATE FUNCTION public.format(text, text, int) RETURNS text LANGUAGE sql AS 'SELECT $1';
	CREATE FUNCTION public.format(text, regclass) RETURNS text LANGUAGE sql AS 'SELECT $1';
	CREATE FUNCTION public.round(numeric, bigint) RETURNS numeric LANGUAGE sql AS 'SELECT $1'}
  , extra_params => [ '-U', 'mallory' ]);
$node->safe_psql('hostile', 'CREATE EXTENSION pg_weir');
is($node->safe_psql('hostile', q{
	SELECT DISTINCT f.oid::regprocedure FROM pg_rewrite r
	JOIN pg_class v ON v.oid = r.ev_class AND v.relnamespace = 'weir'::regnamespace
	JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
	LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
	JOIN pg_proc f ON d.refclassid = 'pg_proc'::regclass AND f.oid = d.refobjid OR f.oid = o.oprcode
	WHERE f.proowner <> 10}), '', 'no view of pg_weir calls a function of somebody else');
$node->safe_psql('hostile', 'DROP EXTENSION pg_weir; CREATE SCHEMA weir AUTHORIZATION mallory');
like((sqlstate_of($node, 'CREATE EXTENSION pg_weir', 'hostile'))[1], qr/42P06.*schema "weir" already exists/s,
	'a schema that somebody has prepared is not taken over');
ok(wait_gone($node, 'hostile'), '... and nothing is left');

# ---- end

is(sql(q{SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'}), 'f', 'mallory is no superuser');
is(sql(q{SELECT to_regclass('public.prize')}), 'prize', 'what is not mallory\'s is still there');
alice_goes_on('after all that');
ok(free_of_crashes($node), 'no process crashed');
$node->stop;
done_testing();
