# Claim: wherever a worker dies, the server comes back, everything that was asked for is done
# in the end, and what is served equals its query; nothing is left behind (I3, I4, I5, I7, I10,
# I12). "Wherever" is every crash point in the source, each reached in every way that the
# cases below know; a new crash point without a case fails this test.
#
# One server. A case sets weir.crash_point, acts, sees the point fire and the server restart,
# waits for the outcome, compares, and drops its operator: so each begins without a main reader.
use strict;
use warnings;
use File::Basename;
use Cwd 'abs_path';
use Time::HiRes 'time';
use PostgreSQL::Test::Utils;
use Test::More;
use WeirInvariants;
use WeirSteps;
use WeirTest;

my $tree = dirname(dirname(abs_path(__FILE__)));

# ---- which points there are

sub read_sources
{
	my $text = '';
	$text .= slurp_file($_) for sort glob("$tree/src/*.c $tree/src/*/*.c");
	return $text;
}

my $sources = read_sources();
my %successors = phase_successors();
# No edge leads to it before standbys are parked.
delete $successors{rolling_back} if $sources !~ /enter_phase\([^;]*WEIR_PHASE_ROLLING_BACK/;

my @points;
for my $point ($sources =~ /WEIR_CRASH_POINT\((?:psprintf\()?"([^"]+)"/g)
{
	my @from = grep { @{ $successors{$_} } } sort keys %successors;
	my %to = map { $_ => 1 } grep { exists $successors{$_} } map { @$_ } values %successors;
	if ($point eq 'edge-from-%s') { push @points, map { "edge-from-$_" } @from }
	elsif ($point eq 'edge-to-%s') { push @points, map { "edge-to-$_" } sort keys %to }
	else { push @points, $point }
}
my %seen;
@points = grep { !$seen{$_}++ } @points;

# ---- how each is reached: scenario, and at which hit if not the first

my %cases = (
	'slot-intent' => ['create'],
	'slot-created' => ['create'],
	'slot-recorded' => ['create'],
	'build-intent' => [ 'create', 'reuse' ],
	'build-slot-created' => [ 'create', 'reuse' ],
	'build-read' => [ 'create', 'reuse', 'convert' ],
	'build-chunk' => [ 'create', 'create:3', 'reuse:2', 'backfill:2', 'convert:2' ],
	'build-before-commit' => [ 'create', 'reuse', 'backfill' ],
	'build-committed' => [ 'create', 'reuse', 'verify' ],
	'handover-locked' => [ 'create', 'reuse', 'resume' ],
	'comparison-before-commit' => ['reuse'],
	'handover-before-commit' => [ 'create', 'backfill', 'resume' ],
	'handover-committed' => [ 'create', 'reuse', 'backfill', 'resume' ],
	'batch-before-apply' => [ 'write', 'resume' ],
	'batch-fenced' => [ 'write', 'resume' ],
	'batch-version-applied' => [ 'write', 'lockstep', 'lockstep:2', 'resume' ],
	'batch-before-commit' => [ 'write', 'lockstep', 'resume', 'canary_fails' ],
	'batch-committed' => [ 'write', 'write:3', 'lockstep', 'resume' ],
	'confirm-before' => ['write'],
	'confirm-after' => [ 'write', 'lockstep' ],
	'pause-before-commit' => ['pause'],
	'pause-committed' => ['pause'],
	'stopped-slot-copied' => ['pause'],
	'view-replaced' => ['reuse'],
	'step-before-commit' => [ 'canary', 'canary:2' ],
	'shift-before-commit' => [ 'reuse', 'backfill' ],
	'edge-from-preparing' => ['reuse'],
	'edge-from-building' => ['backfill'],
	'edge-from-catching_up' => ['reuse'],
	'edge-from-validating' => ['backfill'],
	'edge-from-shifting' => ['reuse'],
	'edge-from-observing' => [ 'finalize', 'fail' ],
	'edge-to-building' => ['reuse'],
	'edge-to-catching_up' => ['backfill'],
	'edge-to-validating' => [ 'reuse', 'reuse:2' ],
	'edge-to-shifting' => [ 'backfill', 'canary:2' ],
	'edge-to-observing' => ['reuse'],
	'edge-to-finalized' => ['finalize'],
	'edge-to-rolled_back' => ['fail']);

is(join(' ', grep { !$cases{$_} } @points), '', 'every crash point in the source has a case');
is(join(' ', grep { !$seen{$_} } sort keys %cases), '', '... and every case a crash point');

# ---- the server

my $node = new_node('crash', conf => "weir.restart_delay = '10ms'\nweir.build_chunk_rows = 50\n");
if ($node->safe_psql('postgres', q{SELECT count(*) FROM pg_settings WHERE name = 'weir.crash_point'}) == 0)
{
	if ($ENV{WEIR_WITHOUT_CRASH_POINTS})
	{
		diag('NOT TESTED: crash points, because this build has none');
	}
	else
	{
		fail('this build has crash points (WEIR_TEST=1; set WEIR_WITHOUT_CRASH_POINTS to go on without)');
	}
	$node->stop;
	done_testing();
	exit;
}

$node->safe_psql('postgres', q{
	CREATE TABLE facts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, k int, v numeric, divisor int DEFAULT 1);
	ALTER TABLE facts REPLICA IDENTITY FULL});

my $columns = 'k, count(*) AS n, sum(v) AS total, max(v) AS highest';
my $first = "SELECT $columns FROM public.facts GROUP BY k";
my %next = (
	reuse => "SELECT $columns, sum(v) / count(*) AS mean FROM public.facts GROUP BY k",
	backfill => "SELECT $columns, min(v) AS lowest FROM public.facts GROUP BY k",
	convert => 'SELECT k % 150 AS k, count(*) AS n, sum(v) AS total FROM public.facts GROUP BY k % 150',
	fail => "SELECT $columns, sum(10 / divisor) AS share FROM public.facts GROUP BY k");

# A session that the server may throw out; what it was asked for is repeated by those who need it.
sub try_psql
{
	my (@statements) = @_;
	return eval { ($node->psql('postgres', join(";\n", @statements)))[0] == 0 };
}

my $writes = 0;

# Transactions of different shapes, over 200 keys.
sub write_facts
{
	$writes++;
	return try_psql(
		"INSERT INTO facts (k, v) SELECT i % 200, i + $writes * 0.5 FROM generate_series(1, 300) i",
		"UPDATE facts SET v = v + 1 WHERE k % 7 = $writes % 7",
		"DELETE FROM facts WHERE k % 11 = $writes % 11 AND id % 2 = 0",
		"BEGIN; DELETE FROM facts WHERE k < 3; ROLLBACK");
}

# Every process that runs now has it when this returns: a new session is as late as the signal to all.
my $armed = 0;

sub arm
{
	my ($point, $hit) = @_;
	my $setting = "$point:$hit#" . ++$armed;
	$node->safe_psql('postgres', "ALTER SYSTEM SET weir.crash_point = '$setting'");
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	poll_until($node, 'SHOW weir.crash_point', $setting) or die "weir.crash_point was not set\n";
	return $setting;
}

sub latest_phase
{
	return "(SELECT phase FROM weir.upgrades WHERE operator = 'sums'::regclass ORDER BY upgrade_id DESC LIMIT 1)";
}

sub live { return poll_until($node, q{SELECT count(*) = 1 FROM weir.versions WHERE serving AND status = 'live'}) }

sub create_sums
{
	write_facts();
	$node->safe_psql('postgres', "SELECT weir.create_operator('sums', '$first')");
	live() or die "operator does not get live\n";
	return;
}

sub start_upgrade
{
	my ($kind, $arguments) = @_;
	my $strategy = $kind eq 'fail' ? 'backfill' : $kind;
	my $migration = $kind ne 'convert' ? 'NULL' :
	  q{'SELECT k % 150 AS k, sum(n)::bigint AS n, sum(total) AS total, sum(_weir_s1_scales) AS _weir_s1_scales, sum(_weir_c2)::bigint AS _weir_c2 FROM old GROUP BY 1'};
	try_psql("SELECT weir.start_upgrade('sums', '$next{$kind}', migration => $migration, strategy => '$strategy' $arguments, gates => '{\"observe\": \"0 s\"}')");
	return;
}

# After a rollback: columns that the new version brought stay in the view.
sub old_is_exact
{
	my ($name) = @_;
	$node->safe_psql('postgres', q{SELECT weir.wait_for('sums', timeout => '60 s')});
	return is(differences($node, '(SELECT k, n, total, highest FROM sums) AS kept', $first), '0', $name);
}

# What an upgrade must come to.
sub observes
{
	my ($kind) = @_;
	ok(poll_until($node, 'SELECT ' . latest_phase() . " = 'observing'"), '... the upgrade shifts');
	$node->safe_psql('postgres', q{SELECT weir.wait_for('sums', timeout => '60 s')});
	# The view keeps the column that a conversion leaves out.
	my $rows = $kind eq 'convert' ? '(SELECT k, n, total FROM sums) AS converted' : 'sums';
	is(differences($node, $rows, $next{$kind}), '0', '... to rows that are right');
	$node->safe_psql('postgres', q{SELECT weir.rollback_upgrade('sums')});
	old_is_exact('... and those of the old version are right, too');
	return;
}

# What must come of an upgrade whose new version fails.
sub failed_back
{
	ok(poll_until($node, 'SELECT ' . latest_phase() . " = 'rolled_back'"), '... the upgrade is rolled back');
	old_is_exact('... to the old version, which is right');
	$node->safe_psql('postgres', 'DELETE FROM facts WHERE divisor = 0');
	return;
}

sub stopped_place
{
	return q{SELECT status = 'stopped' AND reader_id IN (SELECT reader_id FROM weir.readers
		WHERE kind = 'stopped' AND slot_name IS NOT NULL) FROM weir.versions WHERE serving};
}

# Before the point is set; what reaches it; what must have come of it.
my %scenarios = (
	create => {
		prepare => sub { write_facts() },
		act => sub { try_psql("SELECT weir.create_operator('sums', '$first')"); write_facts() },
		outcome => sub { is_exact($node, 'sums', $first, '... the operator is built and right') },
	},
	write => {
		prepare => \&create_sums,
		act => \&write_facts,
		outcome => sub { is_exact($node, 'sums', $first, '... the operator is right') },
	},
	reuse => {
		prepare => \&create_sums,
		act => sub { start_upgrade('reuse', ''); write_facts() },
		outcome => sub { observes('reuse') },
	},
	backfill => {
		prepare => \&create_sums,
		act => sub { start_upgrade('backfill', ''); write_facts() },
		outcome => sub { observes('backfill') },
	},
	convert => {
		prepare => \&create_sums,
		act => sub { start_upgrade('convert', ''); write_facts() },
		outcome => sub { observes('convert') },
	},
	canary => {
		prepare => \&create_sums,
		act => sub { start_upgrade('reuse', q{, steps => '{10, 50, 100}'}); write_facts() },
		outcome => sub { observes('reuse') },
	},
	canary_fails => {
		prepare => sub {
			create_sums();
			start_upgrade('fail', q{, steps => '{10, 100}', auto_advance => false});
			$node->safe_psql('postgres', q{SELECT weir.advance_upgrade('sums')});
			poll_until($node, 'SELECT shards = 7 FROM weir.upgrades ORDER BY upgrade_id DESC LIMIT 1') or die "no step is taken\n";
		},
		act => sub { try_psql('INSERT INTO facts (k, v, divisor) VALUES (1, 1, 0)'); write_facts() },
		outcome => sub { failed_back() },
	},
	lockstep => {
		prepare => sub {
			create_sums();
			start_upgrade('reuse', '');
			wait_phase($node, 'sums', 'observing');
		},
		act => \&write_facts,
		outcome => sub { observes('reuse') },
	},
	finalize => {
		prepare => \&create_sums,
		act => sub { start_upgrade('reuse', ", safe_window => '0'"); write_facts() },
		outcome => sub {
			ok(poll_until($node, 'SELECT ' . latest_phase() . " = 'finalized'"), '... the upgrade is finalized');
			is_exact($node, 'sums', $next{reuse}, '... and right');
		},
	},
	fail => {
		prepare => sub {
			create_sums();
			start_upgrade('fail', '');
			wait_phase($node, 'sums', 'observing');
		},
		act => sub { try_psql('INSERT INTO facts (k, v, divisor) VALUES (1, 1, 0)'); write_facts() },
		outcome => sub { failed_back() },
	},
	pause => {
		prepare => \&create_sums,
		# A batch that came first would take the version out.
		is_quiet => 1,
		act => sub { try_psql(q{SELECT weir.pause_operator('sums')}) },
		outcome => sub {
			ok(poll_until($node, stopped_place()), '... the operator keeps its place');
			write_facts();
			$node->safe_psql('postgres', q{SELECT weir.resume_operator('sums')});
			live();
			is_exact($node, 'sums', $first, '... and is right once it goes on');
		},
	},
	resume => {
		prepare => sub {
			create_sums();
			$node->safe_psql('postgres', q{SELECT weir.pause_operator('sums')});
			write_facts();
			poll_until($node, stopped_place());
			write_facts() for 1 .. 3;
		},
		act => sub { try_psql(q{SELECT weir.resume_operator('sums')}) },
		outcome => sub { live(); is_exact($node, 'sums', $first, '... the operator goes on and is right') },
	},
	verify => {
		prepare => \&create_sums,
		act => sub { try_psql(q{SELECT weir.verify('sums')}) },
		outcome => sub {
			ok(poll_until($node, q{SELECT count(*) = 0 FROM weir_internal.version WHERE purpose = 'verification'}),
				'... the copy to verify with is gone');
			is($node->safe_psql('postgres', q{SELECT missing, extra FROM weir.verify('sums')}), '0|0', '... and it can be verified');
			is_exact($node, 'sums', $first, '... the operator is right');
		},
	});

# ---- a case

sub run_case
{
	my ($point, $case) = @_;
	my ($name, $hit) = split /:/, $case;
	my $scenario = $scenarios{$name} or die "no scenario $name\n";

	$scenario->{prepare}->();
	# Some points are reached as soon as they are armed.
	my $log_offset = -s $node->logfile;
	my $setting = arm($point, $hit // 1);
	$scenario->{act}->();
	my $end = time + 30;
	my $fired = 0;
	until ($fired || time > $end)
	{
		# The point reports itself before it kills: the server may still answer then.
		$fired = slurp_file($node->logfile, $log_offset) =~ /crash point \Q$point\E reached.*reinitializing/s;
		# More to do, for points that want several batches.
		next if $fired;
		$scenario->{is_quiet} ? wait_idle(0.02) : write_facts();
	}
	ok($fired, "$point ($case) is reached");
	ok(poll_until($node, 'SELECT 1', '1'), '... and the server restarts');
	is(slurp_file($node->data_dir . '/pg_weir.crash_point'), $setting, '... the process had left its mark');
	write_facts();
	$scenario->{outcome}->();
	is(ledger_faults($node), '', '... the ledger tells how it got there');
	my $restarts = () = slurp_file($node->logfile, $log_offset) =~ /all server processes terminated; reinitializing/g;
	is($restarts, $fired ? 1 : 0, '... the server crashed once');
	$node->safe_psql('postgres', q{SELECT weir.drop_operator('sums')});
	ok(poll_until($node, $nothing_left), '... and nothing is left of it');
	$node->safe_psql('postgres', 'DELETE FROM facts');
	return;
}

my $only = $ENV{WEIR_CRASH_POINT};
for my $point (@points)
{
	next if defined $only && $point !~ /$only/;
	run_case($point, $_) for @{ $cases{$point} // [] };
}

$node->stop;
done_testing();
