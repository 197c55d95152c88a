# What must hold at any moment, as functions of the tested database and as queries: the
# invariants of the design that can be looked at from outside (I1, I3, I4, I5, I8, I10, I12).
#
# Each answer is a text that says what is wrong, '' when nothing is.
package WeirInvariants;

use strict;
use warnings;
use Cwd 'abs_path';
use Exporter 'import';
use File::Basename;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(phase_successors ledger_faults create_invariant_functions $nothing_left);

# Phases with what may follow them, from the table that the code is made of.
sub phase_successors
{
	my %successors;
	my $tree = dirname(dirname(dirname(abs_path(__FILE__))));
	my $text = slurp_file("$tree/src/catalog/phases.h");
	while ($text =~ /^\s*X\((\w+), "(\w+)", (.*?)\)(?: \\)?$/mg)
	{
		my ($name, $list) = ($2, $3);
		$successors{$name} = [ map { lc } $list =~ /WEIR_TO\((\w+)/g ];
	}
	die "no phases found\n" unless %successors;
	return %successors;
}

# I10: each upgrade's rows in the ledger are a legal way to the phase it is in; the chains hold.
sub ledger_faults
{
	my ($node) = @_;
	my %successors = phase_successors();
	my $edges = join ',', map { my $from = $_; map { "('$from','$_')" } @{ $successors{$from} } } sort keys %successors;
	return $node->safe_psql('postgres', qq{
		WITH edge (a, b) AS (VALUES $edges),
		path AS (SELECT upgrade_id, from_phase, to_phase, lag(to_phase) OVER w AS before,
				row_number() OVER w AS n, count(*) OVER (PARTITION BY upgrade_id) AS last
			FROM weir_internal.ledger WHERE upgrade_id IS NOT NULL AND to_phase IS NOT NULL
			WINDOW w AS (PARTITION BY upgrade_id ORDER BY ledger_id))
		SELECT coalesce(string_agg(fault, '; '), '') FROM (
			SELECT format('upgrade %s begins with %s', upgrade_id, to_phase) AS fault
			FROM path WHERE n = 1 AND (from_phase IS NOT NULL OR to_phase <> 'preparing')
			UNION ALL SELECT format('upgrade %s goes from %s (%s) to %s', upgrade_id, from_phase, before, to_phase)
			FROM path WHERE n > 1 AND
				(from_phase IS DISTINCT FROM before OR (from_phase, to_phase) NOT IN (SELECT a, b FROM edge))
			UNION ALL SELECT format('upgrade %s is %s, its ledger says %s', u.upgrade_id, u.phase, p.to_phase)
			FROM weir_internal.upgrade u LEFT JOIN path p ON p.upgrade_id = u.upgrade_id AND p.n = p.last
			WHERE p.to_phase IS DISTINCT FROM u.phase
			UNION ALL SELECT format('the ledger is broken at entry %s', broken_at) FROM weir.verify_ledger() WHERE NOT ok) AS faults});
}

# I12, when the last operator has been dropped: neither slots nor state nor readers.
our $nothing_left = q{
	SELECT (SELECT count(*) FROM pg_replication_slots) = 0
		AND (SELECT count(*) FROM pg_class WHERE relnamespace = 'weir_state'::regnamespace) = 0
		AND (SELECT count(*) FROM weir_internal.reader) = 0
		AND (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_weir reader') = 0};

# In schema public of the tested database:
#   broken_now()       I1, I4, I8; each statement in it has a snapshot of its own
#   broken_lockstep()  I5; in a REPEATABLE READ transaction
sub create_invariant_functions
{
	my ($node) = @_;
	$node->safe_psql('postgres', q{
		CREATE FUNCTION broken_now() RETURNS text LANGUAGE plpgsql AS $$
		DECLARE
			slots text[];
			lsns pg_lsn[];
			found text;
		BEGIN
			-- Slots first: then a position that is behind one of them really was.
			SELECT array_agg(slot_name ORDER BY slot_name), array_agg(confirmed_flush_lsn ORDER BY slot_name)
			INTO slots, lsns FROM pg_catalog.pg_replication_slots WHERE slot_name LIKE 'weir%';
			SELECT string_agg(format('I4: slot %s is at %s, reader %s (%s, %s) at %s', s.name, s.lsn, r.reader_id,
				r.kind, r.status, r.processed_lsn), '; ') INTO found
			FROM weir_internal.reader r JOIN unnest(slots, lsns) AS s (name, lsn) ON s.name = r.slot_name
			WHERE s.lsn > r.processed_lsn AND r.status = 'running';
			IF found IS NOT NULL THEN RETURN found; END IF;

			SELECT string_agg(format('I8: operator %s has %s live upgrades', operator_id, n), '; ') INTO found
			FROM (SELECT operator_id, count(*) AS n FROM weir_internal.upgrade
				WHERE phase NOT IN ('finalized', 'rolled_back') GROUP BY operator_id) AS live WHERE n > 1;
			IF found IS NOT NULL THEN RETURN found; END IF;

			SELECT string_agg(format('I1: operator %s is served by version %s, retired: %s, view: %s', o.view_name,
				s.version, v.retired, s.view_versions), '; ') INTO found
			FROM weir_internal.operator o LEFT JOIN weir_internal.serving s USING (operator_id)
			LEFT JOIN weir_internal.version v ON v.operator_id = s.operator_id AND v.version = s.version
			WHERE NOT o.dropped AND (v.version IS NULL OR v.retired OR NOT s.version = ANY (s.view_versions));
			IF found IS NOT NULL THEN RETURN found; END IF;

			SELECT string_agg(format('I1: %s of 64 shards of operator %s are given to version %s, retired: %s, of upgrade %s (%s), step %s of %s, view: %s',
				s.split, o.view_name, s.candidate, v.retired, u.upgrade_id, u.phase, u.step, u.steps, s.view_versions), '; ') INTO found
			FROM weir_internal.operator o JOIN weir_internal.serving s USING (operator_id)
			LEFT JOIN weir_internal.version v ON v.operator_id = s.operator_id AND v.version = s.candidate
			LEFT JOIN weir_internal.upgrade u ON u.operator_id = s.operator_id AND u.phase NOT IN ('finalized', 'rolled_back')
			WHERE NOT o.dropped AND s.candidate <> 0 AND (v.retired IS NOT FALSE OR u.to_version IS DISTINCT FROM s.candidate
				OR u.phase NOT IN ('validating', 'shifting') OR NOT s.candidate = ANY (s.view_versions)
				OR s.split > 0 AND (u.phase <> 'shifting' OR s.split <> ceil(u.steps[u.step] * 0.64)));
			RETURN coalesce(found, '');
		END $$;

		-- Columns that both versions have; which compare equal, because the tests' upgrades only add columns.
		CREATE FUNCTION broken_lockstep(view_name text) RETURNS text LANGUAGE plpgsql AS $$
		DECLARE
			pair record;
			columns text;
			differing bigint;
		BEGIN
			SELECT u.upgrade_id, a.state_table AS old, b.state_table AS new INTO pair
			FROM weir_internal.operator o JOIN weir_internal.upgrade u USING (operator_id)
			JOIN weir_internal.version a ON a.operator_id = u.operator_id AND a.version = u.from_version
			JOIN weir_internal.version b ON b.operator_id = u.operator_id AND b.version = u.to_version
			JOIN weir_internal.version_run ra ON ra.operator_id = u.operator_id AND ra.version = u.from_version
			JOIN weir_internal.version_run rb ON rb.operator_id = u.operator_id AND rb.version = u.to_version
			WHERE NOT o.dropped AND o.view_name = broken_lockstep.view_name
			AND u.phase NOT IN ('finalized', 'rolled_back') AND ra.status = 'live' AND rb.status = 'live';
			IF NOT FOUND THEN RETURN NULL; END IF;
			SELECT string_agg(quote_ident(x.attname), ', ') INTO columns
			FROM pg_attribute x JOIN pg_attribute y USING (attname)
			WHERE x.attrelid = pair.old AND y.attrelid = pair.new AND x.attnum > 0 AND y.attnum > 0
			AND NOT x.attisdropped AND x.attname NOT LIKE '\_weir\_%' AND x.attname <> 'shard';
			EXECUTE format('SELECT count(*) FROM ((SELECT %1$s FROM %2$s EXCEPT ALL SELECT %1$s FROM %3$s) UNION ALL '
				'(SELECT %1$s FROM %3$s EXCEPT ALL SELECT %1$s FROM %2$s)) AS d',
				columns, pair.old::regclass, pair.new::regclass) INTO differing;
			IF differing = 0 THEN RETURN ''; END IF;
			RETURN format('I5: the versions of upgrade %s differ in %s rows of (%s)', pair.upgrade_id, differing, columns);
		END $$});
	return;
}

1;
