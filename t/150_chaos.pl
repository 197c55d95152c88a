# Claim: nothing is lost, doubled or left, whatever dies while it is at work. Sessions write
# (small, large, long, aborted, prepared; one source partitioned, one appended to only) while
# operators of many shapes are created, upgraded, rolled back, finalized, paused, resumed and
# dropped, and readers, coordinator, launcher, sessions and servers are killed at any moment.
# At checkpoints every operator equals its query (I7), every upgrade has got somewhere, and
# its ledger says how (I10). All the time: one version serves, views can be read and never show
# half a transaction or go back (I1, I7), positions and slots keep their order (I3, I4), versions
# in lockstep are equal (I5), one upgrade at a time (I8). In the end nothing is left (I12).
#
#   WEIR_CHAOS_KILLS  how many processes have to die (60)    WEIR_CHAOS_SEED  of what is done
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use WeirChaos;
use WeirInvariants;
use WeirSteps;
use WeirTest;

my $kills = $ENV{WEIR_CHAOS_KILLS} // 60;
my $seed = $ENV{WEIR_CHAOS_SEED} // int(time) % 1000000;
diag("WEIR_CHAOS_SEED=$seed WEIR_CHAOS_KILLS=$kills");
srand $seed;

my $node = new_node('chaos', conf => q{
	log_line_prefix = '%m [%p] %b %e %q%a/%d '
	weir.restart_delay = '10ms'
	weir.build_chunk_rows = 20
	weir.batch_memory = '64kB'
	weir.max_retained_wal = -1
	wal_writer_delay = '500ms'
	deadlock_timeout = '200ms'
	log_lock_waits = on
	log_statement = 'none'
	max_wal_size = '4GB'
});
create_sources($node);
create_invariant_functions($node);
for my $name (sort keys %shapes)
{
	my $options = $shapes{$name}{options} // '{}';
	$node->safe_psql('postgres', "SELECT weir.create_operator('$name', '$shapes{$name}{first}', options => '$options')");
}
$node->safe_psql('postgres', q{SELECT weir.wait_for(timeout => '60 s')});

sub start_writing
{
	my ($round) = @_;
	start_child("writer $_", $seed + 100 * $round + $_, write_randomly($node)) for 1 .. 3;
	start_child("caller $_", $seed + 100 * $round + 10 + $_, operate_randomly($node)) for 1 .. 2;
	start_child('looker', $seed + 100 * $round + 20, look_at_totals($node));
	start_child('watcher', $seed + 100 * $round + 30, watch_invariants($node));
	return;
}

# ---- what must be true when it is quiet

sub definition_served
{
	my ($name) = @_;
	return $node->safe_psql('postgres', qq{
		SELECT v.definition FROM weir_internal.operator o JOIN weir_internal.serving s USING (operator_id)
		JOIN weir_internal.version v ON v.operator_id = s.operator_id AND v.version = s.version
		WHERE NOT o.dropped AND o.view_name = '$name'});
}

sub check_operator
{
	my ($name, $round) = @_;
	my $definition = definition_served($name);
	return if $definition eq '';
	$node->safe_psql('postgres', "SELECT weir.resume_operator('$name')");
	# Whatever was paused or waits to be asked goes on to its end.
	$node->safe_psql('postgres', "UPDATE weir_internal.upgrade SET paused = false, auto_advance = true
		WHERE operator_id = (SELECT operator_id FROM weir_internal.operator WHERE NOT dropped AND view_name = '$name')");
	my $settled = ok(poll_until($node, qq{SELECT count(*) = 0 FROM weir.upgrades
		WHERE operator = '$name'::regclass AND phase NOT IN ('observing', 'finalized', 'rolled_back')}, 't', 60),
		"round $round, $name: its upgrade has got somewhere");
	my ($status, $reached, $error) = $node->psql('postgres', "SELECT weir.wait_for('$name', timeout => '60 s')");
	is($error, '', '... it catches up');
	diag($node->safe_psql('postgres', "SELECT version, status, serving, strategy, stop_cause, sqlstate, message, detail, reader_id, processed_lsn FROM weir.versions WHERE operator = '$name'::regclass AND status NOT IN ('retired', 'rolled_back')"),
		"\n", $node->safe_psql('postgres', 'SELECT * FROM weir.readers')) if $status != 0 || !$settled;
	$definition = definition_served($name);
	my $columns = $node->safe_psql('postgres', "CREATE TEMP VIEW shape AS $definition;
		SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'shape'::regclass AND attnum > 0");
	is(differences($node, "(SELECT $columns FROM $name) AS served", $definition), '0', "... and equals its query");
	my $lockstep = $node->safe_psql('postgres', "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT broken_lockstep('$name'); COMMIT");
	is($lockstep, '', '... as does the other version');
	return;
}

sub check_all
{
	my ($round) = @_;
	check_operator($_, $round) for sort keys %shapes;
	is(ledger_faults($node), '', "round $round: the ledger tells how upgrades got where they are");
	ok(poll_until($node, 'SELECT count(*) = 0 FROM weir_internal.ledger WHERE hash IS NULL'),
		'... and each of its entries has a place in a chain');
	is($node->safe_psql('postgres', 'SELECT broken_now()'), '', '... and the invariants hold');
	return;
}

# ---- the run

my $rounds = 3;
my ($hits, $attempts, %died) = (0, 0);
for my $round (1 .. $rounds)
{
	start_writing($round);
	while ($hits < $kills * $round / $rounds && $attempts++ < 4 * $kills)
	{
		sleep rand 1.6;
		my ($what, $outcome) = kill_something($node);
		note(sprintf '%s: %s', $what, $outcome);
		$hits++ if $outcome eq 'hit';
		$died{$what}++ if $outcome eq 'hit';
		ok(0, "$what: it lives on") if $outcome eq 'survived';
		poll_until($node, 'SELECT 1', '1') or die "the server does not come back\n";
	}
	stop_children($node);
	check_all($round);
}
cmp_ok($hits, '>=', $kills, "$hits living processes were killed");
diag(join ', ', map { "$died{$_} $_" } sort keys %died);

# ... while something was under way.
my %upgrades = split /[|\n]/, $node->safe_psql('postgres', q{
	SELECT what, count(*) FROM (
		SELECT 'shifted' AS what FROM weir_internal.ledger WHERE to_phase = 'observing'
		UNION ALL SELECT 'rolled back afterwards' FROM weir_internal.ledger WHERE from_phase = 'observing' AND to_phase = 'rolled_back'
		UNION ALL SELECT to_phase FROM weir_internal.ledger WHERE to_phase IN ('preparing', 'rolled_back', 'finalized')
		UNION ALL SELECT event FROM weir_internal.ledger WHERE event <> 'phase') AS events GROUP BY what});
diag(join ', ', map { "$upgrades{$_} $_" } sort keys %upgrades);
cmp_ok($upgrades{shifted} // 0, '>=', $kills / 10, 'upgrades were shifted');
cmp_ok($upgrades{'rolled back afterwards'} // 0, '>=', 1, '... and rolled back afterwards');

my ($reported, %counts) = reports();
is($reported, '', 'nobody saw what must not be');
diag(join ', ', map { "$_: $counts{$_}" } sort keys %counts);
my $log = slurp_file($node->logfile);
# Workers end by order (57P01, 57014), are fenced (WE001), or meet what will pass: a slot, a
# row or a relation that is in use, a version to be reused that is paused.
my @errors = grep { !/ (?:57P01|57014|57P02|57P03|WE001|55006|55P03|55000|40P01) / }
  $log =~ /^(.* pg_weir \w+ \w{5} .*(?:ERROR|FATAL|PANIC): .*)$/mg;
is(join("\n", @errors), '', 'no worker failed with an error that does not pass');
my @internal = $log =~ /^.* (?:XX\d\d\d|WE00[2-7]) .*(?:ERROR|FATAL|PANIC): .*$/mg;
is(join("\n", @internal), '', '... no session with an internal one');
my @crashes = $log =~ /^.*(?:PANIC:|TRAP: |was terminated by signal (?!9)).*$/mg;
is(join("\n", @crashes), '', 'no process died that was not killed');

# ---- the end

for my $name (sort keys %shapes)
{
	next if definition_served($name) eq '';
	is($node->safe_psql('postgres', "SELECT missing, extra FROM weir.verify('$name')"), '0|0', "$name: verified");
	$node->safe_psql('postgres', "SELECT weir.drop_operator('$name')");
}
ok(poll_until($node, $nothing_left), 'nothing is left of the operators');
$node->safe_psql('postgres', 'DROP EXTENSION pg_weir CASCADE');
ok(wait_gone($node), '... nor of the extension');
$node->stop;
done_testing();
