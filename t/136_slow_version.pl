# Claim: a version that does not serve and is slow holds up the serving ones only for its budget,
# then it is stopped like a failing one (I11): a candidate is rolled back, an old version leaves
# lockstep, also when a function catches one cancel. A slow version that serves has no budget.
use strict;
use warnings;
use Test::More;
use WeirSteps;
use WeirTest;

my $node = new_node('slow', conf => "weir.restart_delay = '10ms'\nweir.max_batch_time = '200ms'\n");
$node->safe_psql('postgres', q{
	CREATE TABLE readings (k int, v int);
	ALTER TABLE readings REPLICA IDENTITY FULL;
	CREATE FUNCTION endless(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		WHILE v = 13 LOOP END LOOP;
		RETURN v;
	END $$;
	CREATE FUNCTION stubborn(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		BEGIN
			WHILE v = 13 LOOP END LOOP;
		EXCEPTION WHEN query_canceled THEN NULL;
		END;
		WHILE v = 13 LOOP END LOOP;
		RETURN v;
	END $$;
	CREATE FUNCTION second(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
	DECLARE start timestamptz := clock_timestamp();
	BEGIN
		WHILE v = 14 AND clock_timestamp() < start + interval '1 s' LOOP END LOOP;
		RETURN v;
	END $$;
	INSERT INTO readings SELECT i % 5, i FROM generate_series(20, 100) i});
my $query = 'SELECT k, sum(v) AS total FROM public.readings GROUP BY k';

sub with_function
{
	my ($name) = @_;
	return "SELECT k, sum(public.$name(v)) AS total FROM public.readings GROUP BY k";
}

$node->safe_psql('postgres', qq{SELECT weir.create_operator('sums', \$\$$query\$\$)});
is_exact($node, 'sums', $query, 'an operator');

# A candidate, before the shift.
for my $function (qw(endless stubborn))
{
	$node->safe_psql('postgres', "SELECT weir.start_upgrade('sums', \$\$" . with_function($function) . q{$$, auto_advance => false, gates => '{"observe": "0 s"}')});
	wait_phase($node, 'sums', 'validating');
	$node->safe_psql('postgres', 'INSERT INTO readings VALUES (3, 13), (4, 400)');
	is_exact($node, 'sums', $query, "$function candidate: the old version goes on");
	ok(poll_until($node, q{SELECT phase FROM weir.upgrades ORDER BY upgrade_id DESC LIMIT 1}, 'rolled_back'), '... the upgrade is rolled back');
	like($node->safe_psql('postgres', 'SELECT reason FROM weir.upgrades ORDER BY upgrade_id DESC LIMIT 1'),
		qr/longer than its budget of \d+ ms/, '... for its time');
	$node->safe_psql('postgres', 'DELETE FROM readings WHERE v = 13');
}

# It serves: slow, but nobody else can.
$node->safe_psql('postgres', "SELECT weir.start_upgrade('sums', \$\$" . with_function('second') . q{$$, gates => '{"observe": "0 s"}')});
wait_phase($node, 'sums', 'observing');
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (4, 14)');
is_exact($node, 'sums', $query, 'a slow version that serves goes on');
is($node->safe_psql('postgres', q{SELECT phase, rollback_possible FROM weir.upgrades ORDER BY upgrade_id DESC LIMIT 1}), 'observing|t', '... and stays');
$node->safe_psql('postgres', q{SELECT weir.finalize_upgrade('sums')});

# The old version, after the shift.
$node->safe_psql('postgres', "SELECT weir.start_upgrade('sums', \$\$" . with_function('endless') . q{$$, gates => '{"observe": "0 s"}')});
wait_phase($node, 'sums', 'observing');
$node->safe_psql('postgres', q{SELECT weir.finalize_upgrade('sums')});
$node->safe_psql('postgres', qq{SELECT weir.start_upgrade('sums', \$\$$query\$\$, gates => '{"observe": "0 s"}')});
wait_phase($node, 'sums', 'observing');
$node->safe_psql('postgres', 'INSERT INTO readings VALUES (3, 13)');
is_exact($node, 'sums', $query, 'slow old version: the new one goes on');
like($node->safe_psql('postgres', q{SELECT rollback_obstacle FROM weir.upgrades ORDER BY upgrade_id DESC LIMIT 1}),
	qr/is stopped since .*longer than its budget/, '... and there is no way back at this moment');
is($node->safe_psql('postgres', q{SELECT sqlstate FROM weir.versions WHERE status = 'stopped'}), '57014', '... with its SQLSTATE');
ok(free_of_crashes($node), 'the server did not crash');
$node->stop;
done_testing();
