# Sessions and deaths for the chaos test: processes that write, that operate, that look, and
# what kills workers and servers. Each runs as a child of the test until it is told to stop;
# what it saw that must not be is a line in its report.
#
# Everything random comes from the seed, but not when it happens: a seed gives the same
# statements in the same order in each child, and never the same run.
package WeirChaos;

use strict;
use warnings;
use Exporter 'import';
use POSIX ();
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep time);
use WeirInvariants;
use WeirSteps;
use WeirTest;

our @EXPORT = qw(create_sources %shapes start_child stop_children reports write_randomly operate_randomly
  look_at_totals watch_invariants kill_something one_of);

# ---- sources and operators

sub create_sources
{
	my ($node) = @_;
	$node->safe_psql('postgres', q{
		CREATE TABLE plain (id bigint GENERATED ALWAYS AS IDENTITY, k text, v int, price numeric(12,2), f float8);
		CREATE TABLE parts (k int, v int, price numeric(12,2), f float8) PARTITION BY RANGE (k);
		CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (20);
		CREATE TABLE parts_high (f float8, gone int, price numeric(12,2), v int, k int);
		ALTER TABLE parts_high DROP COLUMN gone;
		ALTER TABLE parts ATTACH PARTITION parts_high FOR VALUES FROM (20) TO (1000);
		CREATE TABLE log (k int, v int, f float8);
		CREATE TABLE bank (id int PRIMARY KEY, balance bigint);
		ALTER TABLE plain REPLICA IDENTITY FULL;
		ALTER TABLE parts_low REPLICA IDENTITY FULL;
		ALTER TABLE parts_high REPLICA IDENTITY FULL;
		ALTER TABLE parts REPLICA IDENTITY FULL;
		ALTER TABLE bank REPLICA IDENTITY FULL;
		INSERT INTO bank SELECT i, 0 FROM generate_series(1, 100) i;
		INSERT INTO plain (k, v, price, f) SELECT 'k' || i % 30, i % 100, i * 0.25, i * 0.5 FROM generate_series(1, 1000) i;
		INSERT INTO parts SELECT i % 40, i % 100, i * 0.25, i * 0.5 FROM generate_series(1, 1000) i});
	return;
}

# Shape => what is common to its definitions, then what each of them adds: the first is
# created, the second can be reused from it, the third needs a backfill. Sums of floats are
# of multiples of a quarter, which are exact in any order.
our %shapes = (
	keyed => { columns => 'k, count(*) AS n, sum(v) AS total, avg(price) AS mean', from => 'plain', group => 'k',
		reuse => 'sum(v) * 2 AS twice', backfill => 'max(v) AS highest' },
	whole => { columns => 'count(*) AS n, sum(v) AS total, max(price) AS highest', from => 'plain',
		reuse => 'max(price) - sum(v) AS rest', backfill => 'min(v) AS lowest' },
	expression => { columns => 'v % 7 AS week, upper(k) AS name, sum(price) AS total, count(k) AS named', from => 'plain',
		group => 'v % 7, upper(k)', reuse => 'sum(price) / (1 + count(k)) AS share', backfill => 'avg(v) AS mean' },
	filtered => { columns => 'k, count(*) FILTER (WHERE price > 50) AS dear, sum(price) AS total', from => 'plain',
		where => 'v > 40', group => 'k', reuse => 'sum(price) + 1 AS more', backfill => 'sum(v) FILTER (WHERE k IS NULL) AS nameless' },
	extremes => { columns => 'k, min(v) AS lowest, max(v) AS highest, max(price) AS dearest', from => 'parts', group => 'k',
		reuse => 'max(v) - min(v) AS span', backfill => 'min(price) AS cheapest' },
	decimal => { columns => 'v / 10 AS tens, sum(price) AS total, avg(price) AS mean, count(*) AS n', from => 'parts',
		group => 'v / 10', reuse => 'sum(price) * 0.01 AS cents', backfill => 'max(k) AS last' },
	floating => { columns => 'k % 5 AS fifth, sum(f) AS total, count(f) AS n', from => 'parts', group => 'k % 5',
		reuse => 'sum(f) / 2 AS half', backfill => 'max(f) AS highest' },
	appended => { columns => 'k, count(*) AS n, min(v) AS lowest, max(v) AS highest, sum(f) AS total', from => 'log', group => 'k',
		options => '{"append_only": true}', reuse => 'max(v) + min(v) AS both', backfill => 'sum(v) AS sum' },
	# Never dropped: what look_at_totals knows about them holds in every snapshot.
	branches => { columns => 'id % 10 AS branch, count(*) AS n, sum(balance) AS total', from => 'bank', group => 'id % 10',
		reuse => 'sum(balance) / count(*) AS mean', backfill => 'max(balance) AS highest', stays => 1 },
	logged => { columns => 'count(*) AS n', from => 'log', options => '{"append_only": true}',
		reuse => 'count(*) * 2 AS twice', backfill => 'max(v) AS highest', stays => 1 });

for my $shape (values %shapes)
{
	my $rest = " FROM public.$shape->{from}" . ($shape->{where} ? " WHERE $shape->{where}" : '')
	  . ($shape->{group} ? " GROUP BY $shape->{group}" : '');
	$shape->{first} = "SELECT $shape->{columns}$rest";
	$shape->{$_} = "SELECT $shape->{columns}, $shape->{$_}$rest" for qw(reuse backfill);
}

sub one_of { return $_[ rand @_ ] }
sub up_to { return 1 + int rand $_[0] }

# ---- children

my %children;
my $reports = PostgreSQL::Test::Utils::tempdir();
my $stop_file = "$reports/stop";

# Runs CODE->(report) again and again until stop_children; report->(text) is for what must not be.
sub start_child
{
	my ($name, $seed, $code) = @_;
	unlink $stop_file;
	my $parent = $$;
	my $pid = fork // die "fork: $!\n";
	if ($pid == 0)
	{
		srand $seed;
		my $count = 0;
		my $report = sub { append_to_file("$reports/$name", "$name: $_[0]\n") };
		until (-e $stop_file || getppid() != $parent)
		{
			# A psql that is refused, or ended, does not read what it is given, which is an exception.
			eval { $code->($report); 1 } or $@ =~ /Broken pipe|process ended prematurely/ or $report->("died: $@");
			$count++;
		}
		append_to_file("$reports/$name.count", "$count\n");
		# Without END blocks, which would stop the server.
		POSIX::_exit(0);
	}
	$children{$pid} = $name;
	return;
}

sub stop_children
{
	my ($node) = @_;
	append_to_file($stop_file, '');
	while (%children)
	{
		# Some may wait for what a session prepared that was killed.
		end_prepared($node, 0);
		for my $pid (keys %children) { delete $children{$pid} if waitpid($pid, POSIX::WNOHANG()) != 0 }
		sleep 0.05;
	}
	return;
}

# Prepared transactions whose session died keep locks, and slots from being made, for ever.
sub end_prepared
{
	my ($node, $seconds) = @_;
	my ($gids) = run_sql($node, "SELECT gid FROM pg_prepared_xacts WHERE prepared <= now() - interval '$seconds s';\n");
	run_sql($node, one_of('COMMIT', 'ROLLBACK') . " PREPARED '$_';\n") for split /\n/, $gids;
	return;
}

# All that was reported, and how often each child ran its code.
sub reports
{
	my ($text, %counts) = ('');
	for my $file (sort glob "$reports/*")
	{
		my ($name) = $file =~ m{/([^/]+)$};
		if ($name =~ /^(.*)\.count$/) { $counts{$1} += $_ for split /\n/, slurp_file($file) }
		elsif ($name ne 'stop') { $text .= slurp_file($file) }
	}
	return ($text, %counts);
}

# SQLSTATEs of a server that is being stopped, crashes or restarts, and of a session that was ended.
my $server_gone = qr/^(?:57P0[1-5]|08...)$/;

# Runs statements; SQLSTATEs of its errors. A lost connection is "08006".
sub run_sql
{
	my ($node, $sql) = @_;
	my ($stdout, $stderr) = ('', '');
	my $run = eval {
		IPC::Run::run([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'), '-f', '-' ],
			'<', \$sql, '>', \$stdout, '2>', \$stderr, IPC::Run::timeout(170));
		1;
	};
	# A psql whose server went away does not read the rest, which is an exception, too.
	return ($stdout, 'hangs: ' . substr($sql, 0, 200)) if !$run && $@ =~ /timeout/;
	my @errors = $stderr =~ /(?:ERROR|FATAL|PANIC):  (\w{5}): (.*)/g;
	my @codes;
	while (my ($code, $message) = splice @errors, 0, 2) { push @codes, "$code $message" }
	push @codes, '08006 connection lost' if $stderr =~ /connection to server|server closed the connection|terminating connection/ && !@codes;
	return ($stdout, @codes);
}

# ---- writing

sub values_of
{
	my ($table, $rows) = @_;
	my $base = up_to(100000);
	# A tenth of the keys is NULL; infinities and NaN come and go.
	return "SELECT nullif('k' || (i::bigint * $base) % 33, 'k5'), (i::bigint * $base) % 100, (i::bigint * $base % 5000) * 0.25, "
	  . "CASE i::bigint * $base % 97 WHEN 1 THEN 'NaN' WHEN 2 THEN 'Infinity' ELSE (i::bigint * $base % 4000) * 0.25 END "
	  . "FROM generate_series(1, $rows) i" if $table eq 'plain';
	return "SELECT (i::bigint * $base) % 45, (i::bigint * $base) % 100, (i::bigint * $base % 5000) * 0.25, "
	  . "CASE i::bigint * $base % 97 WHEN 1 THEN '-Infinity' ELSE (i::bigint * $base % 4000) * 0.25 END FROM generate_series(1, $rows) i" if $table eq 'parts';
	return "SELECT (i::bigint * $base) % 50, (i::bigint * $base) % 1000, (i::bigint * $base % 4000) * 0.25 FROM generate_series(1, $rows) i";
}

my %insert_columns = (plain => '(k, v, price, f)', parts => '(k, v, price, f)', log => '(k, v, f)');

sub insert_into
{
	my ($table, $rows) = @_;
	return "INSERT INTO $table $insert_columns{$table} " . values_of($table, $rows);
}

sub copy_into
{
	my ($table) = @_;
	my $lines = '';
	for (1 .. up_to(200))
	{
		my @row = (int rand 45, int rand 100, 0.25 * int rand 4000, 0.25 * int rand 4000);
		$row[0] = rand() < 0.1 ? '\N' : "k$row[0]" if $table eq 'plain';
		splice @row, 2, 1 if $table eq 'log';
		$lines .= join("\t", @row) . "\n";
	}
	return "COPY $table $insert_columns{$table} FROM STDIN;\n$lines\\.\n";
}

sub change_plain
{
	my $k = "'k" . int(rand 33) . "'";
	return one_of(
		"UPDATE plain SET v = (v + 7) % 100 WHERE k = $k",
		"UPDATE plain SET k = nullif('k' || id % 33, $k), price = price + 0.5 WHERE k IS NOT DISTINCT FROM nullif($k, 'k5')",
		"UPDATE plain SET f = CASE WHEN f = 'NaN' THEN 1 ELSE f + 0.25 END WHERE id % 20 = " . int(rand 20),
		"DELETE FROM plain WHERE k = $k",
		"DELETE FROM plain WHERE id % 9 = " . int(rand 9));
}

sub change_parts
{
	my $k = int rand 45;
	return one_of(
		"UPDATE parts SET v = (v * 3 + 1) % 100 WHERE k = $k",
		"UPDATE parts SET k = (k + 17) % 45 WHERE v % 10 = " . int(rand 10),    # many change the partition
		"UPDATE parts SET price = price + 1, f = f + 0.25 WHERE k % 9 = $k % 9",
		"DELETE FROM parts WHERE k = $k",
		"DELETE FROM parts WHERE v % 6 = " . int(rand 6));
}

sub transfer
{
	my ($from, $to) = sort { $a <=> $b } up_to(100), up_to(100);
	my $amount = int(rand 2000) - 1000;
	return "BEGIN;\nUPDATE bank SET balance = balance - $amount WHERE id = $from;\n"
	  . "UPDATE bank SET balance = balance + $amount WHERE id = $to;\nCOMMIT";
}

sub small_change
{
	return one_of(
		insert_into('plain', up_to(20)), insert_into('parts', up_to(20)), insert_into('log', up_to(20)),
		change_plain(), change_parts(), copy_into(one_of('plain', 'parts', 'log')));
}

my $prepared = 0;

# One transaction, or what becomes none.
sub transaction
{
	my $dice = rand;
	return transfer() if $dice < 0.30;
	return small_change() if $dice < 0.60;
	return "BEGIN;\n" . join(";\n", map { small_change() } 1 .. up_to(5)) . ";\n" . one_of('COMMIT', 'COMMIT', 'ROLLBACK') if $dice < 0.72;
	return "BEGIN;\n" . small_change() . ";\nSAVEPOINT a;\n" . small_change() . ";\nSAVEPOINT b;\n" . small_change()
	  . ";\nROLLBACK TO b;\n" . small_change() . ";\n" . one_of('ROLLBACK TO a', 'RELEASE a') . ";\n" . small_change() . ";\nCOMMIT" if $dice < 0.80;
	return "BEGIN;\n" . small_change() . ";\nSELECT 1/0;\nCOMMIT" if $dice < 0.82;
	# Long: others commit meanwhile, and slots have to wait for it.
	return "BEGIN;\n" . small_change() . ";\nSELECT pg_sleep(" . rand(1.5) . ");\n" . small_change() . ";\n" . one_of('COMMIT', 'ROLLBACK') if $dice < 0.88;
	return "BEGIN;\nTRUNCATE " . one_of('plain', 'parts') . ";\n" . small_change() . ";\n" . one_of('COMMIT', 'ROLLBACK') if $dice < 0.91;
	return "BEGIN;\n" . small_change() . ";\nTRUNCATE " . one_of('plain', 'parts', 'plain, parts') . ";\n" . small_change() . ";\nCOMMIT" if $dice < 0.93;
	return "SET synchronous_commit = off;\n" . small_change() . ";\nRESET synchronous_commit" if $dice < 0.97;
	if ($dice < 0.985)
	{
		my $name = "p$$" . '_' . ++$prepared;
		return "BEGIN;\n" . small_change() . ";\nPREPARE TRANSACTION '$name';\n" . small_change() . ";\n" . one_of('COMMIT', 'ROLLBACK') . " PREPARED '$name'";
	}
	# Large.
	return one_of(
		insert_into('log', 50000),
		"BEGIN;\n" . insert_into('plain', 50000) . ";\nDELETE FROM plain WHERE id % 50 <> 0;\nCOMMIT",
		"BEGIN;\n" . insert_into('parts', 50000) . ";\nDELETE FROM parts WHERE v <> 3;\nROLLBACK",
		'UPDATE parts SET v = (v + 1) % 100, f = f + 1');
}

# What writers may meet: other writers, the division above, a server that goes.
my $writers_may = qr/^(?:40P01|40001|22012|25P02|25001|3B001|42704|57P0[1-5]|08...|55000)/;

sub write_randomly
{
	my ($node) = @_;
	return sub {
		my ($report) = @_;
		my ($out, @errors) = run_sql($node, join(";\n", map { transaction() } 1 .. 8) . ";\n");
		$report->($_) for grep { !/$writers_may/ } @errors;
		# A server that restarts is not worth asking all the time.
		sleep 0.05 if @errors;
	};
}

# ---- operating

# Refusals that a call may get from another call or from what the operator is in at the time.
my $callers_may = qr/^(?:55000|55006|55P03|57014|42P01|42P07|42809|40P01|25P02|53400|57P0[1-5]|08...)/;

sub operate_once
{
	my ($name) = @_;
	my $shape = $shapes{$name};
	my $dice = rand;
	my $options = $shape->{options} // '{}';
	my $create = "SELECT weir.create_operator('$name', '$shape->{first}', options => '$options')";

	return $create if $dice < 0.25;
	# All at once, in steps by itself, or in steps that somebody asks for.
	my $how = one_of('', '', q{, steps => '{5, 40, 100}'}, q{, steps => '{2, 50, 100}', auto_advance => false});
	return "SELECT weir.start_upgrade('$name', \$\$$shape->{reuse}\$\$$how, gates => '{\"observe\": \"0 s\"}')" if $dice < 0.37;
	return "SELECT weir.start_upgrade('$name', \$\$$shape->{backfill}\$\$$how, gates => '{\"observe\": \"0 s\"}')" if $dice < 0.49;
	return "SELECT weir.start_upgrade('$name', \$\$$shape->{first}\$\$, strategy => 'backfill', safe_window => '0', gates => '{\"observe\": \"0 s\"}')" if $dice < 0.54;
	return "SELECT weir.rollback_upgrade('$name', 'chaos')" if $dice < 0.66;
	return "SELECT weir.finalize_upgrade('$name')" if $dice < 0.72;
	return "SELECT weir.advance_upgrade('$name')" if $dice < 0.76;
	return "SELECT weir.pause_upgrade('$name')" if $dice < 0.77;
	return "SELECT weir.resume_upgrade('$name')" if $dice < 0.79;
	return "SELECT weir.pause_operator('$name')" if $dice < 0.83;
	return "SELECT weir.resume_operator('$name')" if $dice < 0.90;
	return "SELECT weir.verify('$name', timeout => '3 s')" if $dice < 0.92;
	return "SELECT weir.wait_for('$name', timeout => '1 s')" if $dice < 0.94;
	return $shape->{stays} ? $create : "SELECT weir.drop_operator('$name')";
}

sub operate_randomly
{
	my ($node) = @_;
	return sub {
		my ($report) = @_;
		my $call = operate_once(one_of(sort keys %shapes));
		$call = "BEGIN;\n$call;\nROLLBACK" if rand() < 0.1;
		my ($out, @errors) = run_sql($node, "$call;\n");
		$report->("$_ <- $call") for grep { !/$callers_may/ } @errors;
		end_prepared($node, 1) if rand() < 0.1;
		sleep rand 0.2;
	};
}

# ---- looking

# One session, in which nothing served may go back; a crash, which may take back, ends it.
sub look_at_totals
{
	my ($node) = @_;
	return sub {
		my ($report) = @_;
		my $session = open_session($node);
		my $end = time + 20;
		my $most = 0;
		my $look = sub {
			my ($sql, $expected, $what) = @_;
			my $answer = $session->query($sql);
			return undef if !defined $answer || $answer =~ /(?:FATAL|ERROR|PANIC):  (?:57P|08)|connection|^$/;
			$report->("$what: $answer, not $expected") if defined $expected && $answer !~ /^(?:$expected)$/;
			return $answer;
		};
		my $branches = 'SELECT sum(n), sum(total) FROM branches';
		while (time < $end && !-e $stop_file)
		{
			last unless defined $look->($branches, '100\|0', 'I1: totals of branches');
			my $n = $look->('SELECT n FROM logged', '\d+', 'I1: rows logged');
			last unless defined $n;
			$report->("I7: rows logged went from $most back to $n") if $n =~ /^\d+$/ && $n < $most;
			$most = $n if $n =~ /^\d+$/;
			next if rand() < 0.8;

			# One snapshot, across whatever is shifted, rolled back and dropped meanwhile.
			last unless defined $look->('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current() > 0');
			my $first = $look->($branches, '100\|0', 'I1: totals of branches in a snapshot');
			my $logged = $look->('SELECT n FROM logged', '\d+', 'I1: rows logged in a snapshot');
			sleep rand 1;
			last unless defined $first && defined $logged;
			last unless defined $look->($branches, quotemeta $first, 'I1: totals of branches later in a snapshot');
			last unless defined $look->('SELECT n FROM logged', $logged, 'I1: rows logged later in a snapshot');
			last unless defined $look->('COMMIT; SELECT 1');
		}
		$session->finish;
		sleep 0.05;
	};
}

# I1, I4, I5, I8 at many moments; I3 within a session, because a crash takes asynchronous commits back.
sub watch_invariants
{
	my ($node) = @_;
	return sub {
		my ($report) = @_;
		my $session = open_session($node);
		my $end = time + 20;
		my %position;
		my $failed = qr/(?:FATAL|ERROR|PANIC):  |connection/;
		my $expected_failure = qr/(?:FATAL|ERROR|PANIC):  (?:57P|08)|connection/;
		while (time < $end && !-e $stop_file)
		{
			my $broken = $session->query('SELECT broken_now()');
			$report->($broken) if $broken ne '' && $broken !~ $expected_failure;
			last if $broken =~ $failed;

			my $rows = $session->query('SELECT reader_id, processed_lsn - \'0/0\' FROM weir_internal.reader WHERE processed_lsn IS NOT NULL');
			last if $rows =~ $failed;
			for my $row (split /\n/, $rows)
			{
				my ($reader, $lsn) = split /\|/, $row;
				$report->("I3: reader $reader went from $position{$reader} back to $lsn")
				  if defined $position{$reader} && $lsn < $position{$reader};
				$position{$reader} = $lsn;
			}

			my $name = one_of(qw(branches logged));
			my $lockstep = $session->query(
				"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT broken_lockstep('$name'); COMMIT");
			$report->("$name: $lockstep") if $lockstep ne '' && $lockstep !~ $expected_failure;
			last if $lockstep =~ $failed;
			sleep 0.02;
		}
		$session->finish;
		sleep 0.05;
	};
}

# ---- killing

# What kills and, for a process, which: name => [weight, SQL that gives a PID, how].
my %deaths = (
	'main reader, terminated' => [ 20, q{SELECT pid FROM weir.readers WHERE kind = 'main' AND pid IS NOT NULL}, 'TERM' ],
	'catch-up reader, terminated' => [ 16, q{SELECT pid FROM weir.readers WHERE kind = 'catch_up' AND pid IS NOT NULL}, 'TERM' ],
	'coordinator, terminated' => [ 12, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_weir coordinator'}, 'TERM' ],
	'launcher, terminated' => [ 4, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_weir launcher'}, 'TERM' ],
	'session, terminated' => [ 6, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()}, 'TERM' ],
	'main reader, killed' => [ 10, q{SELECT pid FROM weir.readers WHERE kind = 'main' AND pid IS NOT NULL}, 'KILL' ],
	'catch-up reader, killed' => [ 10, q{SELECT pid FROM weir.readers WHERE kind = 'catch_up' AND pid IS NOT NULL}, 'KILL' ],
	'coordinator, killed' => [ 6, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_weir coordinator'}, 'KILL' ],
	'launcher, killed' => [ 3, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_weir launcher'}, 'KILL' ],
	'session, killed' => [ 3, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()}, 'KILL' ],
	'server, stopped immediately' => [ 6, undef, 'immediate' ],
	'server, restarted' => [ 2, undef, 'fast' ],
	# These do not count as deaths.
	'reader, cancelled' => [ 5, q{SELECT pid FROM weir.readers WHERE pid IS NOT NULL}, 'INT' ],
	'checkpoint' => [ 4, undef, 'checkpoint' ]);

sub choose_death
{
	my $sum = 0;
	$sum += $_->[0] for values %deaths;
	my $dice = rand $sum;
	for my $name (sort keys %deaths)
	{
		$dice -= $deaths{$name}[0];
		return $name if $dice < 0;
	}
	return 'checkpoint';
}

sub wait_for_end
{
	my ($pid) = @_;
	my $end = time + 30;
	while (time < $end)
	{
		return 1 unless kill 0, $pid;
		sleep 0.01;
	}
	return 0;
}

# Something dies, or not, when there was nothing of that kind. Returns what, and whether a
# process that lived is gone ("hit"), nothing was there ("missed"), or it lives on ("survived").
sub kill_something
{
	my ($node) = @_;
	my $name = choose_death();
	my ($weight, $sql, $how) = @{ $deaths{$name} };
	if ($how eq 'checkpoint')
	{
		run_sql($node, "CHECKPOINT;\n");
		return ($name, 'none');
	}
	if (!defined $sql)
	{
		my $pid = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
		my $lived = kill 0, $pid;
		$node->stop($how);
		$node->start;
		return ($name, $lived ? 'hit' : 'missed');
	}
	my ($pids) = run_sql($node, "$sql;\n");
	my @pids = split /\n/, $pids;
	return ($name, 'missed') unless @pids;
	my $pid = one_of(@pids);
	return ($name, 'missed') unless kill $how, $pid;
	return ($name, 'none') if $how eq 'INT';
	return ($name, wait_for_end($pid) ? 'hit' : 'survived');
}

1;
