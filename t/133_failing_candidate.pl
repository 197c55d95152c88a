# Claim: a new version that fails after the shift has looked at it and before the shift commits
# does not serve (I6): the shift fails at its commit, and the upgrade is rolled back.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirSteps;
use WeirTest;

my $node = new_node('new_fails', conf => "weir.restart_delay = '10ms'\n");
$node->safe_psql('postgres', q{
	CREATE TABLE readings (k int, v int);
	ALTER TABLE readings REPLICA IDENTITY FULL;
	CREATE FUNCTION checked(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		IF v = 13 THEN RAISE 'thirteen' USING ERRCODE = '22000'; END IF;
		RETURN v;
	END $$;
	INSERT INTO readings SELECT i % 5, i FROM generate_series(14, 100) i});
my $query = 'SELECT k, sum(v) AS total FROM public.readings GROUP BY k';
my $new_query = 'SELECT k, sum(public.checked(v)) AS total FROM public.readings GROUP BY k';
$node->safe_psql('postgres', qq{SELECT weir.create_operator('sums', \$\$$query\$\$)});
is_exact($node, 'sums', $query, 'an operator');

$node->append_conf('postgresql.conf', "weir.crash_point = 'stop\@shift-before-commit'");
$node->reload;
my $coordinator = worker_pid($node, 'coordinator');
$node->safe_psql('postgres', qq{SELECT weir.start_upgrade('sums', \$\$$new_query\$\$, gates => '{"observe": "0 s"}')});
ok(poll_until($node, "SELECT pg_read_file('/proc/$coordinator/stat', 0, 100) ~ '\\) T '"), 'the coordinator stands before the commit of the shift');
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (3, 13)');
ok(poll_until($node, q{SELECT status FROM weir.versions WHERE version = 2}, 'failed'), '... the new version fails');
is_exact($node, 'sums', $query, '... the old version goes on');
kill 'CONT', $coordinator;
ok(poll_until($node, q{SELECT phase FROM weir.upgrades}, 'rolled_back'), '... the upgrade is rolled back');
is($node->safe_psql('postgres', q{SELECT count(*) FROM weir.ledger WHERE to_phase = 'observing'}), '0', '... and the new version has never served');
like($node->safe_psql('postgres', 'SELECT reason FROM weir.upgrades'), qr/thirteen/, '... for the reason');
like(slurp_file($node->logfile), qr/shift of upgrade 1 of operator "sums" came too late/, '... the shift was refused');
is_exact($node, 'sums', $query, '... the old version serves and is exact');
ok(free_of_crashes($node), 'the server did not crash');
$node->stop;
done_testing();
