# Claim: when the slot of a running reader is gone, its operators say so and show what they had,
# an upgrade under way is rolled back, and weir.rebuild_operator mends each (traps of I4; I7, I12).
use strict;
use warnings;
use lib 't/perl';
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;
use WeirSteps;

my $node = new_node('main', conf => "weir.restart_delay = 5s\n");
create_sales($node, 1000);
create_sales_operator($node);
create_sales_operator($node, 'postgres', 'others');
$node->safe_psql('postgres', qq{
	SELECT weir.start_upgrade('totals', \$\$SELECT shop, count(*) AS n, sum(amount) AS total, max(amount) AS highest,
		min(amount) AS lowest FROM public.sales GROUP BY shop\$\$, auto_advance => false, gates => '{"observe": "0 s"}')});
$node->safe_psql('postgres', q{SELECT weir.wait_for_upgrade('totals', 'validating', '60 s')});
my $rows = $node->safe_psql('postgres', 'SELECT count(*), sum(total) FROM totals');

# The delay leaves time between the reader's end and its next start.
my $slot = $node->safe_psql('postgres', q{SELECT slot_name FROM weir.readers WHERE kind = 'main'});
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM weir.readers WHERE kind = 'main'});
ok(poll_until($node, qq{SELECT active FROM pg_replication_slots WHERE slot_name = '$slot'}, 'f'), 'the reader is gone');
$node->safe_psql('postgres', qq{SELECT pg_drop_replication_slot('$slot')});
$node->safe_psql('postgres', q{INSERT INTO sales (shop, amount) VALUES ('later', 1)});

ok(poll_until($node, q{SELECT string_agg(status, ' ') FROM weir.operators}, 'lost lost'), 'its operators are lost');
is($node->safe_psql('postgres', 'SELECT count(*), sum(total) FROM totals'), $rows, '... and show what they had');
my ($code, $said) = sqlstate_of($node, q{SELECT weir.wait_for('totals')});
is($code, '55000', 'waiting for one is refused');
like($said, qr/rebuild_operator\('public\.totals'\)/, '... with what mends it');
is((sqlstate_of($node, q{SELECT weir.resume_operator('totals')}))[0], '55000', 'resuming is refused');
ok(poll_until($node, q{SELECT phase FROM weir.upgrades}, 'rolled_back'), 'the upgrade is rolled back');

for my $operator ('totals', 'others')
{
	$node->safe_psql('postgres', "SELECT weir.rebuild_operator('$operator')");
	is($node->safe_psql('postgres', "SELECT weir.wait_for_upgrade('$operator', 'finalized', '60 s')"),
		'finalized', "$operator is rebuilt");
}
$node->safe_psql('postgres', q{INSERT INTO sales (shop, amount) VALUES ('later', 2)});
is_exact($node, "$_ (shop, n, total, highest)", $sales_query, "$_ follows again") for 'totals', 'others';
is($node->safe_psql('postgres', q{SELECT count(*) FROM weir.ledger WHERE event = 'lost'}), '3',
	'each loss is in the ledger once');

$node->safe_psql('postgres', 'DROP EXTENSION pg_weir CASCADE');
ok(poll_until($node, 'SELECT count(*) FROM pg_replication_slots', '0'), 'no slot is left');
$node->stop;
done_testing();
