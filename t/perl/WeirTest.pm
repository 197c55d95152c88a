# What the TAP tests share: servers that have pg_weir loaded, and waiting for facts.
#
# Only methods of PostgreSQL::Test::Cluster that 15, 17 and 18 all have are used.
package WeirTest;

use strict;
use warnings;
use Exporter 'import';
use File::Basename;
use Cwd 'abs_path';
use Time::HiRes qw(sleep time);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More ();

our @EXPORT = qw(new_node new_standby poll_until);

my $tree = dirname(dirname(dirname(abs_path(__FILE__))));

# The settings of test/weir.conf, and where the staged extension is. Under `make
# installcheck` nothing is staged: the extension is in the server's own folders.
sub weir_settings
{
	my $settings = PostgreSQL::Test::Utils::slurp_file("$tree/test/weir.conf");
	if (my $stage = $ENV{WEIR_STAGE})
	{
		my $paths = `'$tree/tools/stage-settings' '$stage'`;
		die "tools/stage-settings failed\n" if $? != 0;
		$settings .= $paths;
	}
	return $settings;
}

# new_node(NAME, %options): a running server.
#   conf      => text added to postgresql.conf, after all else
#   extension => 0: do not create the extension in database postgres
#   start     => 0: initialised, not started; the extension is not created either
#   init      => [ further arguments of Cluster's init ]
sub new_node
{
	my ($name, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(allows_streaming => 'logical', @{ $options{init} || [] });
	$node->append_conf('postgresql.conf', weir_settings());
	$node->append_conf('postgresql.conf', $options{conf}) if defined $options{conf};
	if ($options{start} // 1)
	{
		$node->start;
		$node->safe_psql('postgres', 'CREATE EXTENSION pg_weir')
		  if $options{extension} // 1;
	}
	return $node;
}

# new_standby(PRIMARY, NAME, %options): a running physical standby, with the primary's
# settings. Options: conf, start, as above.
sub new_standby
{
	my ($primary, $name, %options) = @_;
	my $backup = "for_$name";
	$primary->backup($backup);
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init_from_backup($primary, $backup, has_streaming => 1);
	$node->append_conf('postgresql.conf', $options{conf}) if defined $options{conf};
	$node->start if $options{start} // 1;
	return $node;
}

# poll_until(NODE, SQL, EXPECTED = 't', TIMEOUT = the suite's default, DATABASE = 'postgres'):
# repeat SQL until it gives exactly EXPECTED. False, with the last answer as a diagnostic,
# when that does not happen; errors of SQL count as another answer, so it also waits for
# servers that are restarting.
sub poll_until
{
	my ($node, $sql, $expected, $timeout, $database) = @_;
	$expected = 't' unless defined $expected;
	$timeout = $PostgreSQL::Test::Utils::timeout_default unless defined $timeout;
	my $end = time + $timeout;
	my ($status, $answer, $error);
	do
	{
		# A psql that is refused may be gone before it is given the statement, which is an exception.
		eval { ($status, $answer, $error) = $node->psql($database // 'postgres', $sql); 1 }
		  or ($status, $answer, $error) = (2, '', $@);
		return 1 if $status == 0 && $answer eq $expected;
		sleep 0.05;
	} while (time < $end);
	Test::More::diag("waited $timeout s for \"$expected\" from: $sql\n"
		  . "last answer: \"" . ($answer // '') . "\" " . ($error // ''));
	return 0;
}

1;
