# Claim: a function whose body changes under a version that calls it is never absorbed silently (I7): whether
# changes flow, nothing comes, or the server restarts in between, the operator stops as stale, names the function,
# and goes on exactly: rebuilt with the new body, or resumed once the former one is back.
use strict;
use warnings;
use lib 't/perl';
use Test::More;
use WeirTest;
use WeirSteps;

my $node = new_node('main');
my $query = 'SELECT shop, sum(public.price(amount)) AS s FROM public.sales GROUP BY shop';

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub give_body
{
	my ($body) = @_;
	return sql("CREATE OR REPLACE FUNCTION public.price(bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $body; END'");
}

sub becomes_stale
{
	my ($name) = @_;
	ok(poll_until($node, q{SELECT status || ': ' || message FROM weir.operators WHERE operator = 'priced'::regclass},
		'stale: the body of function public.price(bigint) has changed'), $name);
	return;
}

sub rebuild
{
	my ($name) = @_;
	sql(q{SELECT weir.rebuild_operator('priced')});
	sql(q{SELECT weir.wait_for_upgrade('priced', 'finalized', '60 s')});
	is_exact($node, 'priced', $query, $name);
	return;
}

create_sales($node, 300);
give_body('$1');
sql("SELECT weir.create_operator('priced', '$query')");
sql(q{SELECT weir.wait_for('priced', timeout => '60 s')});
is_exact($node, 'priced', $query, 'at first');

# Nothing comes.
my $shown = sql('SELECT sum(s) FROM priced');
give_body('$1 + 1');
becomes_stale('noticed although nothing comes');
is(sql(q{SELECT hint FROM weir.operators WHERE operator = 'priced'::regclass}),
	q{SELECT * FROM weir.rebuild_operator('public.priced'); or give the function its former body and SELECT weir.resume_operator('public.priced');},
	'... with both ways on');
sql(q{INSERT INTO sales (shop, amount) VALUES ('s1', 5)});
is(sql('SELECT sum(s) FROM priced'), $shown, '... and what was there is shown');
rebuild('rebuilt with the new body');

# The former body is back.
give_body('$1 + 2');
becomes_stale('noticed again');
sql(q{INSERT INTO sales (shop, amount) VALUES ('s2', 7)});
give_body('$1 + 1');
sql(q{SELECT weir.resume_operator('priced')});
sql(q{SELECT weir.wait_for('priced', timeout => '60 s')});
is_exact($node, 'priced', $query, 'resumed with the former body');

# While changes flow: no state has rows of both.
my $load = start_load($node, q{INSERT INTO sales (shop, amount) VALUES ('s3', 1);}, 1);
ok(poll_until($node, q{SELECT batches > 3 FROM weir.stat_operators WHERE operator = 'priced'::regclass AND serving}), 'changes flow');
give_body('$1 + 1000');
becomes_stale('noticed while changes flow');
is(stop_load($load), '', 'the load did not notice');
is(sql(q{SELECT count(*) FROM priced WHERE s >= 1000 + (SELECT sum(amount + 1) FROM sales WHERE sales.shop = priced.shop)}), '0',
	'nothing was counted with the new body');
rebuild('rebuilt afterwards');

# A restart comes before anybody looked.
sql(q{CREATE OR REPLACE FUNCTION public.price(bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 + 3; END';
	INSERT INTO sales (shop, amount) VALUES ('s1', 11)});
$node->stop('immediate');
$node->start;
becomes_stale('noticed after a crash');
rebuild('rebuilt after a crash');

# What a function is called with is a part of it; its comment is not.
sql(q{COMMENT ON FUNCTION public.price(bigint) IS 'anything'; INSERT INTO sales (shop, amount) VALUES ('s1', 13)});
sql(q{SELECT weir.wait_for('priced', timeout => '60 s')});
is_exact($node, 'priced', $query, 'a comment changes nothing');
sql(q{ALTER FUNCTION public.price(bigint) SET search_path = pg_temp});
becomes_stale('a setting of the function counts as its body');
sql(q{ALTER FUNCTION public.price(bigint) RESET ALL; SELECT weir.resume_operator('priced')});
is_exact($node, 'priced', $query, '... resumed without it');
sql(q{ALTER FUNCTION public.price(bigint) STRICT});
becomes_stale('so does what it does with NULL');
sql(q{ALTER FUNCTION public.price(bigint) CALLED ON NULL INPUT; SELECT weir.resume_operator('priced')});
is_exact($node, 'priced', $query, '... resumed as it was');
sql(q{ALTER FUNCTION public.price(bigint) STABLE});
becomes_stale('so does that it is not immutable any more');
sql(q{ALTER FUNCTION public.price(bigint) IMMUTABLE; SELECT weir.drop_operator('priced')});

# An argument that the definition leaves to its default.
$query = 'SELECT shop, sum(public.price_of(amount)) AS s FROM public.sales GROUP BY shop';
sql(q{CREATE FUNCTION public.price_of(a bigint, b bigint DEFAULT 1) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 * $2; END'});
sql("SELECT weir.create_operator('priced', '$query')");
sql(q{SELECT weir.wait_for('priced', timeout => '60 s')});
sql(q{CREATE OR REPLACE FUNCTION public.price_of(a bigint, b bigint DEFAULT 100) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 * $2; END'});
ok(poll_until($node, q{SELECT status || ': ' || message FROM weir.operators WHERE operator = 'priced'::regclass},
	'stale: the body of function public.price_of(bigint,bigint) has changed'), 'another default is another function');
$node->stop;
done_testing();
