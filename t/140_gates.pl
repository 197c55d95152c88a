# Claim: an upgrade waits while the main reader is further behind than its gates allow, told
# by commits and not by when the last one came, and goes on when it has caught up.
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
	INSERT INTO readings SELECT i % 5, i FROM generate_series(1, 100) i;});
my $query = 'SELECT k, sum(v) AS total FROM public.readings GROUP BY k';
my $next = 'SELECT k, sum(v) AS total, count(*) AS n FROM public.readings GROUP BY k';
$node->safe_psql('postgres', qq{SELECT weir.create_operator('sums', '$query')});
is_exact($node, 'sums', $query, 'an operator');

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

# ---- a main reader that is behind

start('sums', '{"observe": "0 s", "max_lag": "1 s", "min_rows": 1}');
reads('max_lag', q{r->>'outcome' = 'pass'}, 'a reader that has read everything is not behind');
my $reader = worker_pid($node, 'reader');
kill 'STOP', $reader;
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (1, 1)');
reads('max_lag', q{r->>'outcome' = 'wait' AND (r->>'measured_ms')::numeric > 1000}, 'one that stands still is, from commit to commit');
kill 'CONT', $reader;
ok(poll_until($node, phase_of('sums'), 'observing'), '... and the upgrade goes on when it has caught up');

ok(free_of_crashes($node), 'the server did not crash');
$node->stop;
done_testing();
