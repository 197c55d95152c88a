# Claim: what the gates of an upgrade wait for, they wait for whatever it is: a reader that is
# behind, a user's query that is slow, fails or will not end. Neither the stream nor other
# upgrades wait with them (I11); and a gatekeeper that is killed is started again.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirSteps;
use WeirTest;

my $node = new_node('gates', conf => "weir.restart_delay = '10ms'\n");
$node->safe_psql('postgres', q{
	CREATE TABLE readings (k int, v int);
	ALTER TABLE readings REPLICA IDENTITY FULL;
	INSERT INTO readings SELECT i % 5, i FROM generate_series(1, 100) i;
	CREATE TABLE verdicts (said boolean);
	CREATE FUNCTION stubborn() RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		LOOP
			BEGIN PERFORM count(*) FROM generate_series(1, 1000000); EXCEPTION WHEN query_canceled THEN NULL; END;
		END LOOP;
	END $$;
	CREATE FUNCTION slow() RETURNS boolean LANGUAGE plpgsql AS $$
	DECLARE start timestamptz := clock_timestamp();
	BEGIN
		WHILE clock_timestamp() < start + interval '60 s' LOOP END LOOP;
		RETURN true;
	END $$;
	CREATE FUNCTION writes() RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM set_config('search_path', 'public', false);
		PERFORM set_config('transaction_read_only', 'off', false);
		INSERT INTO public.verdicts VALUES (true);
		RETURN true;
	END $$;
	CREATE FUNCTION writes_all_the_same() RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.verdicts VALUES (true);
		RETURN true;
	END $$});
my $query = 'SELECT k, sum(v) AS total FROM public.readings GROUP BY k';
my $next = 'SELECT k, sum(v) AS total, count(*) AS n FROM public.readings GROUP BY k';
for my $name (qw(sums others))
{
	$node->safe_psql('postgres', qq{SELECT weir.create_operator('$name', '$query')});
	is_exact($node, $name, $query, "operator $name");
}

sub start
{
	my ($name, $gates) = @_;
	return $node->safe_psql('postgres', qq{SELECT weir.start_upgrade('$name', '$next', gates => \$\$$gates\$\$)});
}

sub phase_of { return q{SELECT phase FROM weir.upgrades WHERE operator = '} . shift() . q{'::regclass ORDER BY upgrade_id DESC LIMIT 1} }
sub reads
{
	my ($gate, $condition, $what) = @_;
	return ok(poll_until($node, qq{SELECT $condition FROM weir.upgrades u, jsonb_array_elements(gate_readings) r
		WHERE u.operator = 'sums'::regclass AND u.ended_at IS NULL AND r->>'gate' = '$gate'}), $what);
}
sub back { $node->safe_psql('postgres', q{SELECT weir.rollback_upgrade('sums')}); return }

# ---- a main reader that is behind

start('sums', '{"observe": "0 s", "max_lag": "1 s", "min_rows": 1}');
reads('max_lag', q{r->>'outcome' = 'pass'}, 'a reader that has read everything is not behind');
my $reader = worker_pid($node, 'reader');
kill 'STOP', $reader;
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (1, 1)');
reads('max_lag', q{r->>'outcome' = 'wait' AND (r->>'measured_ms')::numeric > 1000}, 'one that stands still is, from commit to commit');
kill 'CONT', $reader;
ok(poll_until($node, phase_of('sums'), 'observing'), '... and the upgrade goes on when it has caught up');
back();

# ---- a user's queries

start('sums', '{"observe": "0 s", "sql": ["SELECT bool_and(said) FROM verdicts", "SELECT true"]}');
reads('sql 1', q{r->>'outcome' = 'wait' AND r->'measured' = 'null' AND r->'error' = 'null'}, 'NULL waits');
reads('sql 2', q{r->>'outcome' = 'pass'}, '... beside one that passes');
$node->safe_psql('postgres', 'INSERT INTO verdicts VALUES (true)');
ok(poll_until($node, phase_of('sums'), 'observing'), 'true passes');
back();
$node->safe_psql('postgres', 'INSERT INTO verdicts VALUES (false)');
start('sums', '{"observe": "0 s", "sql": ["SELECT bool_and(said) FROM verdicts"]}');
ok(poll_until($node, phase_of('sums'), 'rolled_back'), 'false fails');
is($node->safe_psql('postgres', q{SELECT reason FROM weir.upgrades ORDER BY upgrade_id DESC LIMIT 1}),
	'query 1 of gate sql is false', '... and says which');

$node->safe_psql('postgres', 'TRUNCATE verdicts');
start('sums', '{"observe": "0 s", "sql": ["SELECT 1 / count(*) > 0 FROM verdicts", "SELECT writes()", "SELECT writes_all_the_same()", "SELECT slow()"]}');
reads('sql 1', q{r->>'outcome' = 'wait' AND r->>'error' = '22012: division by zero'}, 'an error waits, and is shown');
reads('sql 2', q{r->>'outcome' = 'wait' AND r->>'error' LIKE '25001: %'}, 'a transaction cannot be made one that writes');
reads('sql 3', q{r->>'outcome' = 'wait' AND r->>'error' LIKE '25006: %'}, '... and does not write');
reads('sql 4', q{r->>'outcome' = 'wait' AND r->>'error' LIKE '57014: %'}, 'a slow query is cancelled');
is($node->safe_psql('postgres', 'SELECT count(*) FROM verdicts'), '0', 'nothing was written');
back();

# One that cannot be cancelled costs a process, and nobody else anything.
start('sums', '{"observe": "0 s", "sql": ["SELECT stubborn()"]}');
ok(poll_until($node, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pg_weir gatekeeper' AND state = 'active'}),
	'a gatekeeper runs a query that does not end');
start('others', '{"observe": "0 s"}');
ok(poll_until($node, phase_of('others'), 'observing'), '... while another upgrade goes through');
is_exact($node, 'sums', 'SELECT k, sum(v), NULL::bigint FROM public.readings GROUP BY k', '... and the stream goes on');
my $log_offset = -s $node->logfile;
ok(poll_until($node, "SELECT pg_read_file('@{[ $node->logfile ]}', $log_offset, 1000000) ~ 'terminating background worker \"pg_weir gatekeeper'"),
	'... until the process is ended');
is($node->safe_psql('postgres', phase_of('sums')), 'validating', '... which decides nothing');
back();
ok(poll_until($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pg_weir gatekeeper'}),
	'with the upgrade the gatekeeper ends');
# ---- waiting past the deadline

my $paused = q{SELECT paused FROM weir.upgrades WHERE operator = 'sums'::regclass ORDER BY upgrade_id DESC LIMIT 1};
my $alerted = q{SELECT count(*) = 1 FROM weir.alerts WHERE condition = 'gates_overdue' AND operator = 'sums'::regclass AND cleared_at IS NULL};
my $told = $node->safe_psql('postgres', qq{
	LISTEN weir_alert;
	SELECT weir.start_upgrade('sums', '$next', gates => '{"observe": "0 s", "min_rows": 1, "deadline": "1 s"}');
	DO \$\$ BEGIN
		FOR i IN 1 .. 10000000 LOOP
			EXIT WHEN ($alerted);
			COMMIT;
		END LOOP;
	END \$\$;
	SELECT 1});
like($told, qr/"weir_alert" with payload ".*gates_overdue/, 'past the deadline an alert is sent');
my $times = () = $told =~ /gates_overdue/g;
is($times, 1, '... once');
is($node->safe_psql('postgres', $paused), 't', '... and the upgrade is paused');
like($node->safe_psql('postgres', q{SELECT reason FROM weir.ledger WHERE event = 'pause_upgrade'}),
	qr/^waits for gates: min_rows for longer than the deadline$/, '... which the ledger tells');
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (1, 1)');
# Readers record what they applied once a second, for which the deadline would be short.
ok(poll_until($node, q{SELECT s.rows > 0 FROM weir.stat_operators s JOIN weir.upgrades u ON u.operator = s.operator AND u.to_version = s.version
	WHERE s.operator = 'sums'::regclass AND u.ended_at IS NULL}), 'what was missing comes');
$node->safe_psql('postgres', q{SELECT weir.resume_upgrade('sums')});
ok(poll_until($node, phase_of('sums'), 'observing'), 'resumed, it goes on when the gates pass');
ok(poll_until($node, $alerted, 'f'), '... and the alert is cleared');

ok(free_of_crashes($node), 'the server did not crash');
$node->stop;
done_testing();
