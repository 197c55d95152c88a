# Claim: weir.verify compares an operator with its source as of one position, exactly, while
# others write (no false alarm, no missed difference), blocks nobody, and leaves nothing: also
# when it is cancelled, when its session ends, or when the server crashes. Several run at
# once. It refuses at once where it would wait for itself (I11, I12).
use strict;
use warnings;
use Test::More;
use WeirTest;
use WeirSteps;

my $node = new_node('verify', conf => "weir.restart_delay = '50ms'\n");
create_sales($node, 5000);
create_sales_operator($node);
create_sales_operator($node, 'postgres', 'second');

my $leftovers = q{
	SELECT (SELECT count(*) FROM weir_internal.version WHERE purpose = 'verification'),
		(SELECT count(*) FROM weir.readers WHERE kind <> 'main'), (SELECT count(*) FROM pg_replication_slots),
		(SELECT count(*) FROM pg_class WHERE relnamespace = 'weir_state'::regnamespace AND relkind IN ('r', 'v'))};

# Two operators: one slot, and for each a definition view, a state table and one for its max.
sub at_rest
{
	my ($name) = @_;
	return ok(poll_until($node, $leftovers, '0|0|1|6', 30), $name);
}
at_rest('before any call');

# ---- the server crashes meanwhile; numbers of calls start anew, those of throwaways must not meet

my $writer = open_session($node);
$writer->query('BEGIN; CREATE TABLE elsewhere (a int)');
my $leaver = open_session($node);
$leaver->send(q{SELECT weir.verify('totals')});
ok(poll_until($node, 'SELECT count(*) = 1 FROM weir.readers WHERE waiting_since IS NOT NULL'), 'a call waits');
$node->stop('immediate');
eval { $leaver->finish };
eval { $writer->finish };
$node->start;
is($node->safe_psql('postgres', q{SELECT missing, extra FROM weir.verify('totals', timeout => '30 s')}), '0|0',
	'the first after a crash is right');
at_rest('... and what the crash left is gone');
is_exact($node, 'totals', $sales_query, 'the operator did not notice');

# ---- under constant writes

my $load = start_load($node, q{
\set key random(1, 5000)
\set amount random(1, 1000)
INSERT INTO sales (shop, amount) VALUES ('s' || :amount % 60, :amount);
UPDATE sales SET amount = amount + 1 WHERE id = :key;
DELETE FROM sales WHERE id = :key + 1;
}, 2);
my $wrong = '';
for my $round (1 .. 4)
{
	my $answer = $node->safe_psql('postgres', q{SELECT missing, extra, checked_lsn IS NOT NULL FROM weir.verify('totals')});
	$wrong .= "$answer " if $answer ne '0|0|t';
}
is($wrong, '', 'four times under load: no difference');
my @sessions = map { open_session($node) } 1 .. 3;
$sessions[0]->send(q{SELECT missing, extra FROM weir.verify('totals')});
$sessions[1]->send(q{SELECT missing, extra FROM weir.verify('totals')});
$sessions[2]->send(q{SELECT missing, extra FROM weir.verify('second')});
is(join(' ', map { $_->answer } @sessions), '0|0 0|0 0|0', 'three at once, two of them of one operator');
is(stop_load($load), '', 'the load did not notice');
is_exact($node, $_, $sales_query, "$_ is exact") for qw(totals second);
at_rest('nothing is left of them');

# ---- what it is for: a state that was tampered with, in each way

for my $case (
	[ "UPDATE weir_state.totals_v1 SET n = n + 1 WHERE shop = 's1'", '1|1', 'a value' ],
	[ "DELETE FROM weir_state.totals_v1 WHERE shop = 's2'", '1|0', 'a row too few' ])
{
	my ($sql, $expected, $name) = @$case;
	$node->safe_psql('postgres', "BEGIN; CREATE TABLE kept AS TABLE weir_state.totals_v1; $sql; COMMIT");
	is($node->safe_psql('postgres', q{SELECT missing, extra FROM weir.verify('totals')}), $expected, "found: $name");
	$node->safe_psql('postgres', 'BEGIN; DELETE FROM weir_state.totals_v1; INSERT INTO weir_state.totals_v1 TABLE kept; DROP TABLE kept; COMMIT');
}
is($node->safe_psql('postgres', q{SELECT missing, extra FROM weir.verify('totals')}), '0|0', 'put right');

# ---- cancelled: while it waits for a slot, which an old transaction delays

$writer = open_session($node);
$writer->query('BEGIN; CREATE TABLE elsewhere (a int)');
my ($code, $error) = sqlstate_of($node, q{SET statement_timeout = '500ms'; SELECT weir.verify('totals')});
is($code, '57014', 'statement_timeout cancels it');
at_rest('... and the throwaway is gone, though the transaction it waited for is still open');
($code, $error) = sqlstate_of($node, q{SELECT weir.verify('totals', timeout => '300 ms')});
is($code, '57014', 'its own timeout');
like($error, qr/not verified in time/, '... says so');
at_rest('... and leaves nothing');
$leaver = open_session($node);
$leaver->send(q{SELECT weir.verify('totals')});
ok(poll_until($node, 'SELECT count(*) = 1 FROM weir.readers WHERE waiting_since IS NOT NULL'), 'one more waits');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT weir.verify%' AND pid <> pg_backend_pid()});
at_rest('a session that ends leaves nothing');
eval { $leaver->finish };
$writer->query('ROLLBACK');

# ---- where it would wait for itself, or for nothing

is((sqlstate_of($node, q{BEGIN; INSERT INTO sales (shop, amount) VALUES ('s1', 1); SELECT weir.verify('totals')}))[0], '25001',
	'refused in a transaction that has written');
is($node->safe_psql('postgres', q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) > 0 FROM sales; SELECT missing, extra FROM weir.verify('totals'); COMMIT}),
	"t\n0|0", 'allowed in one that has read');
$node->safe_psql('postgres', q{SELECT weir.pause_operator('second')});
is((sqlstate_of($node, q{SELECT weir.verify('second')}))[0], '55000', 'refused for one that is paused');
$node->safe_psql('postgres', q{SELECT weir.resume_operator('second')});
$node->safe_psql('postgres', q{SELECT weir.wait_for('second', timeout => '60 s')});
$node->safe_psql('postgres', 'ALTER TABLE sales ADD COLUMN note text');
is($node->safe_psql('postgres', q{SELECT missing, extra FROM weir.verify('second')}), '0|0', 'after DDL on the source');

# ---- another version takes over while it is verified, with a column more, and is let go

my $wider = $sales_query =~ s/ FROM/, max(amount) * 2 AS twice FROM/r;
for my $case ([ 'finalize_upgrade', 'ERROR:  55000: operator "totals" could not be verified: version 1 ', $wider ], [ '', '^0\|0$', $wider ])
{
	my ($end, $expected, $query) = @$case;
	my $name = $end eq '' ? 'shifted' : 'finalized';
	$writer = open_session($node);
	$writer->query('BEGIN; CREATE TABLE elsewhere (a int)');
	$leaver = open_session($node);
	$leaver->send(q{SELECT missing, extra FROM weir.verify('totals')});
	ok(poll_until($node, 'SELECT count(*) = 1 FROM weir.readers WHERE waiting_since IS NOT NULL'), "$name: a call waits");
	$node->safe_psql('postgres', "SELECT weir.start_upgrade('totals', '$query', gates => '{\"observe\": \"0 s\"}')");
	wait_phase($node, 'totals', 'observing');
	$node->safe_psql('postgres', "SELECT weir.$end('totals')") if $end ne '';
	$writer->query('ROLLBACK');
	like($leaver->answer, qr/$expected/s, '... and is answered for the version that it was made for');
	$_->finish for $writer, $leaver;
	$wider =~ s/\* 2 AS twice/* 3 AS thrice/;
}

# ---- dropped while it is verified

$writer = open_session($node);
$writer->query('BEGIN; CREATE TABLE elsewhere (a int)');
$leaver = open_session($node);
$leaver->send(q{SELECT weir.verify('second')});
ok(poll_until($node, 'SELECT count(*) = 1 FROM weir.readers WHERE waiting_since IS NOT NULL'), 'a call waits');
$node->safe_psql('postgres', q{SELECT weir.drop_operator('second')});
like($leaver->answer, qr/ERROR:  (?:55000|42704|57014)/, 'dropping the operator ends it with an error');
$writer->query('ROLLBACK');
$_->finish for $writer, $leaver, @sessions;
ok(poll_until($node, q{SELECT count(*) FROM weir_internal.version WHERE purpose = 'verification'}, '0'), 'nothing is left');
$node->safe_psql('postgres', q{SELECT weir.wait_for('totals', timeout => '60 s')});
is(differences($node, '(SELECT shop, n, total, highest FROM totals) AS kept', $sales_query), '0', 'the other operator goes on');
$node->stop;
done_testing();
