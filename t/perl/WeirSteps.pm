# Steps that several TAP files take: a source with an operator, the oracle, what is left
# of pg_weir, its processes, sessions that stay open, and load in the background.
#
# Uses nothing of PostgreSQL::Test::Cluster that 15, 17 and 18 do not share; so open sessions
# are made here.
package WeirSteps;

use strict;
use warnings;
use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More ();
use Time::HiRes qw(sleep time);
use WeirTest;

our @EXPORT = qw(create_sales create_sales_operator $sales_query differences is_exact sqlstate_of
  leftovers wait_gone worker_pid wait_new_worker kill_worker open_session start_load stop_load
  process_memory_kb cpu_seconds wait_phase wait_log wait_idle free_of_crashes);

# What the operator "totals" of create_sales_operator computes.
our $sales_query = 'SELECT shop, count(*) AS n, sum(amount) AS total, max(amount) AS highest '
  . 'FROM public.sales GROUP BY shop';

# A source table of ROWS rows over 50 keys.
sub create_sales
{
	my ($node, $rows, $database) = @_;
	$node->safe_psql($database // 'postgres', qq{
		CREATE TABLE sales (id bigint GENERATED ALWAYS AS IDENTITY, shop text, amount bigint);
		ALTER TABLE sales REPLICA IDENTITY FULL;
		INSERT INTO sales (shop, amount) SELECT 's' || i % 50, i FROM generate_series(1, $rows) i});
	return;
}

# The operator "totals" over it, or NAME, live.
sub create_sales_operator
{
	my ($node, $database, $name) = @_;
	$database //= 'postgres';
	$name //= 'totals';
	$node->safe_psql($database, "SELECT weir.create_operator('$name', \$\$$sales_query\$\$)");
	$node->safe_psql($database, "SELECT weir.wait_for('$name', timeout => '60 s')");
	return;
}

# Rows in which the relation and the query differ, both ways.
sub differences
{
	my ($node, $relation, $query, $database) = @_;
	return $node->safe_psql($database // 'postgres', qq{
		SELECT count(*) FROM (
			(SELECT * FROM $relation EXCEPT ALL ($query)) UNION ALL
			(($query) EXCEPT ALL SELECT * FROM $relation)) AS differing});
}

# The oracle: once caught up, the operator is what its query gives now.
# OPERATOR is a view, or "view (column, ...)" when it may have more columns than the query.
sub is_exact
{
	my ($node, $operator, $query, $name, $database) = @_;
	my $relation = $operator =~ s/ \((.*)\)$// ? "(SELECT $1 FROM $operator) AS named" : $operator;
	my ($status, $answer, $error) =
	  $node->psql($database // 'postgres', "SELECT weir.wait_for('$operator', timeout => '60 s')");
	return Test::More::is($error, '', "$name: caught up") if $status != 0;
	my $count = differences($node, $relation, $query, $database);
	Test::More::diag($node->safe_psql($database // 'postgres', qq{
		(SELECT 'is', d::text FROM (SELECT * FROM $relation EXCEPT ALL ($query)) AS d) UNION ALL
		(SELECT 'should be', d::text FROM (($query) EXCEPT ALL SELECT * FROM $relation) AS d) ORDER BY 2 LIMIT 20}))
	  if $count != 0;
	return Test::More::is($count, '0', $name);
}

# SQLSTATE and message of a statement that fails, '' of one that does not. All of what psql
# said about it as the second value.
sub sqlstate_of
{
	my ($node, $sql, $database) = @_;
	my ($status, $answer, $error) =
	  $node->psql($database // 'postgres', "\\set VERBOSITY verbose\n$sql");
	my ($code) = ($error // '') =~ /(?:ERROR|FATAL):  ([0-9A-Z]{5}):/;
	return wantarray ? ($code // '', $error) : $code // '';
}

my $leftover_sql = q{
	SELECT coalesce(string_agg(what, ', ' ORDER BY what), 'nothing') FROM (
		SELECT 'slot ' || slot_name AS what FROM pg_replication_slots WHERE slot_name LIKE 'weir\_%' %SLOTS%
		UNION ALL SELECT 'worker ' || backend_type FROM pg_stat_activity
			WHERE backend_type LIKE 'pg_weir %' AND backend_type <> 'pg_weir launcher' %WORKERS%
		UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE 'weir%' %SCHEMAS%) AS found};

# Slots and workers of pg_weir on the server (of DATABASE when given), and its schemas in
# the database connected to (postgres).
sub leftovers
{
	my ($node, $database) = @_;
	my $sql = $leftover_sql;
	my $slots = $database ? "AND database = '$database'" : '';
	my $workers = $database ? "AND datname = '$database'" : '';
	my $schemas = $database ? 'AND false' : '';
	$sql =~ s/%SLOTS%/$slots/;
	$sql =~ s/%WORKERS%/$workers/;
	$sql =~ s/%SCHEMAS%/$schemas/;
	return $node->safe_psql('postgres', $sql);
}

# True when nothing is left within the time.
sub wait_gone
{
	my ($node, $database, $timeout) = @_;
	my $end = time + ($timeout // 30);
	my $left;
	do
	{
		$left = leftovers($node, $database);
		return 1 if $left eq 'nothing';
		sleep 0.05;
	} while (time < $end);
	Test::More::diag("left: $left");
	return 0;
}

# PID of a worker of pg_weir ("reader": the main one), '' when it does not run.
sub worker_pid
{
	my ($node, $type, $database) = @_;
	$database //= 'postgres';
	my $where = $type eq 'launcher' ? '' : "AND datname = '$database'";
	my $sql = $type eq 'reader' ? q{SELECT pid FROM weir.readers WHERE kind = 'main'} :
	  "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_weir $type' $where";
	my ($status, $pid) = $node->psql($database, $sql);
	return $status == 0 ? $pid : '';	# the server may be restarting
}

# The PID of that worker once it is another one than OLD; '' when none came.
sub wait_new_worker
{
	my ($node, $type, $old, $database, $timeout) = @_;
	my $end = time + ($timeout // 60);
	do
	{
		my $pid = worker_pid($node, $type, $database);
		return $pid if $pid ne '' && $pid ne $old;
		sleep 0.05;
	} while (time < $end);
	return '';
}

# Ends that worker with pg_terminate_backend; returns its PID.
sub kill_worker
{
	my ($node, $type, $database) = @_;
	my $pid = worker_pid($node, $type, $database);
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)") if $pid ne '';
	return $pid;
}

# Waits for a phase of the operator's latest upgrade.
sub wait_phase
{
	my ($node, $operator, $phase, $timeout) = @_;
	$timeout //= 60;
	return $node->safe_psql('postgres',
		"SELECT weir.wait_for_upgrade('$operator', '$phase', '$timeout s')");
}

# A psql that stays open: ->query(SQL) waits for its answer, ->send(SQL) does not,
# ->answer gives what has come and been waited for since the last call, ->finish ends it.
sub open_session
{
	my ($node, $database) = @_;
	my $self = bless { in => '', out => '', mark => 0 }, 'WeirSteps::Session';
	$self->{run} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr($database // 'postgres'), '-f', '-' ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{out},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $self;
}

# Load in the background: pgbench runs SCRIPT in CLIENTS sessions until stop_load.
my $loads = 0;

sub start_load
{
	my ($node, $script, $clients, $database) = @_;
	my $load = { out => '' };
	my $file = PostgreSQL::Test::Utils::tempdir_short() . '/load' . ++$loads . '.sql';
	PostgreSQL::Test::Utils::append_to_file($file, $script);
	$load->{run} = IPC::Run::start(
		[
			'pgbench', '-n', '-f', $file, '-c', $clients // 2, '-T', 300, '-h', $node->host, '-p', $node->port,
			'-U', 'postgres', $database // 'postgres'
		],
		'<', \undef, '>', \$load->{out}, '2>', \$load->{out});
	return $load;
}

# Ends it; returns what it said about errors of the server, '' if nothing.
sub stop_load
{
	my ($load) = @_;
	$load->{run}->signal('INT');
	$load->{run}->finish;
	return join "\n", grep { /ERROR|FATAL|PANIC/ } split /\n/, $load->{out};
}

# Resident memory of a process and its highest value, less what is shared, in kB.
sub process_memory_kb
{
	my ($pid) = @_;
	my %value = PostgreSQL::Test::Utils::slurp_file("/proc/$pid/status") =~ /^(\w+):\s*(\d+) kB/mg;
	return ($value{RssAnon}, $value{VmHWM});
}

# Seconds of CPU that the processes have used so far.
sub cpu_seconds
{
	my $ticks = 0;
	for my $pid (@_)
	{
		my ($rest) = PostgreSQL::Test::Utils::slurp_file("/proc/$pid/stat") =~ /^\d+ \(.*\) (.*)$/s;
		my @fields = split / /, $rest;
		$ticks += $fields[11] + $fields[12];
	}
	return $ticks / 100;
}

# Lets that many seconds pass: only to measure what happens in them, never to wait for something.
sub wait_idle
{
	my ($seconds) = @_;
	sleep $seconds;
	return;
}

# True once the server's log has a line like PATTERN.
sub wait_log
{
	my ($node, $pattern, $timeout) = @_;
	my $end = time + ($timeout // 30);
	do
	{
		return 1 if PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ $pattern;
		sleep 0.05;
	} while (time < $end);
	return 0;
}

# True when no process of the server died on its own since OFFSET of its log.
sub free_of_crashes
{
	my ($node, $offset) = @_;
	my $log = substr(PostgreSQL::Test::Utils::slurp_file($node->logfile), $offset // 0);
	my @bad = $log =~ /^.*(?:PANIC:|TRAP: |was terminated by signal).*$/mg;
	Test::More::diag(join "\n", @bad) if @bad;
	return !@bad;
}

package WeirSteps::Session;

use strict;
use warnings;

sub send
{
	my ($self, $sql) = @_;
	$self->{in} .= "$sql;\n\\echo end-of-answer-" . ++$self->{mark} . "\n";
	$self->{run}->pump_nb;
	return;
}

sub answer
{
	my ($self) = @_;
	my $end = "end-of-answer-$self->{mark}\n";
	$self->{run}->pump until $self->{out} =~ /\Q$end\E/ || !$self->{run}->pumpable;
	my $answer = $self->{out};
	$self->{out} = '';
	$answer =~ s/end-of-answer-\d+\n//g;
	chomp $answer;
	return $answer;
}

sub query
{
	my ($self, $sql) = @_;
	$self->send($sql);
	return $self->answer;
}

# Ends the session, also one that waits; what it held is released when this returns.
sub finish
{
	my ($self) = @_;
	$self->{in} .= "\\q\n";
	eval { $self->{run}->finish; 1 } or $self->{run}->kill_kill;
	return;
}

1;
