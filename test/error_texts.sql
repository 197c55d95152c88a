-- Claim: whatever an error says, which may be values of rows, is seen through the views by
-- the operator's owner, by weir_monitor and by weir_admin, and by nobody else.
BEGIN;
SELECT plan(45);

-- Rows as a failing upgrade leaves them; never committed, so no worker sees them.
CREATE ROLE regress_weir_owner;
CREATE ROLE regress_weir_other;
CREATE ROLE regress_weir_monitor IN ROLE weir_monitor;
CREATE ROLE regress_weir_admin IN ROLE weir_admin;
GRANT USAGE ON SCHEMA public TO PUBLIC;
CREATE VIEW failing AS SELECT 1 AS one;
ALTER VIEW failing OWNER TO regress_weir_owner;
INSERT INTO weir_internal.operator (operator_id, view_oid, view_name, stream_id, options, created_by)
    OVERRIDING SYSTEM VALUE VALUES (1000, 'failing'::regclass, 'failing', 1, '{}', 'x');
INSERT INTO weir_internal.version (operator_id, version, purpose, definition, query, definition_view, state_table, state_format, append_only, fingerprint, strategy)
    SELECT 1000, v, 'serve', '', '', 'failing'::regclass, 0, 1, false, '', 'fresh' FROM generate_series(1, 2) v;
INSERT INTO weir_internal.serving (operator_id, version, view_versions) VALUES (1000, 1, '{1}');
INSERT INTO weir_internal.upgrade (operator_id, from_version, to_version, strategy, phase, steps, gates, auto_advance, safe_window, options, compare_columns, started_by, rollback_possible, rollback_obstacle, reason)
    VALUES (1000, 1, 2, 'reuse', 'observing', '{100}', '{}', true, '1 day', '{}', '{}', 'x', false, 'SECRET', 'SECRET');
INSERT INTO weir_internal.ledger (operator_id, operator, event, lsn, actor, reason, sequence, previous_hash, hash) VALUES (1000, 'failing', 'stop', '0/1', 'x', 'SECRET', 2, '\x01', '\x02');
INSERT INTO weir_internal.ledger (operator_id, operator, event, lsn, actor, detail) VALUES (1000, 'failing', 'gate', '0/1', 'x', '[{"error": "SECRET"}]');
INSERT INTO weir_internal.drift (upgrade_id, number, old_row, new_row, lsn)
    SELECT upgrade_id, 1, '{"a": "SECRET"}', '{"a": "SECRET"}', '0/1' FROM weir_internal.upgrade WHERE operator_id = 1000;
INSERT INTO weir_internal.gate (upgrade_id, start, rows, apply_us, old_rows, old_apply_us, readings)
    SELECT upgrade_id, now(), 0, 0, 0, 0, '[{"error": "SECRET"}]' FROM weir_internal.upgrade WHERE operator_id = 1000;
INSERT INTO weir_internal.reader (reader_id, stream_id, kind, status, system_identifier, timeline, database_oid)
    OVERRIDING SYSTEM VALUE VALUES (1000, 1, 'stopped', 'running', 1, 1, 1);
INSERT INTO weir_internal.version_run (operator_id, version, reader_id, status, stop_cause, sqlstate, message, detail, hint)
    SELECT 1000, v, 1000, 'stopped', 'error', '22012', 'SECRET', 'SECRET', 'SECRET' FROM generate_series(1, 2) v;
INSERT INTO weir_internal.version_stat (operator_id, version) VALUES (1000, 1);
INSERT INTO weir_internal.alert (condition, operator_id, reader_id, version, message, hint, detail) VALUES ('operator_stopped', 1000, 0, 1, 'SECRET', 'SECRET', '{}');

-- Columns of a view, in which the current role finds the text.
CREATE FUNCTION public.leaks(view text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    found text;
BEGIN
    EXECUTE format('SELECT string_agg(DISTINCT key, '', '' ORDER BY key) FROM weir.%I v, jsonb_each_text(to_jsonb(v)) WHERE value LIKE ''%%SECRET%%''', view) INTO found;
    RETURN found;
END $$;
CREATE TEMP TABLE expected (view text, columns text);
GRANT SELECT ON expected TO PUBLIC;
INSERT INTO expected SELECT relname, NULL FROM pg_class WHERE relnamespace = 'weir'::regnamespace;
UPDATE expected SET columns = 'hint, message' WHERE view = 'operators';
UPDATE expected SET columns = 'detail, hint, message' WHERE view = 'versions';
UPDATE expected SET columns = 'gate_readings, reason, rollback_obstacle' WHERE view = 'upgrades';
UPDATE expected SET columns = 'new_row, old_row' WHERE view = 'drift';
UPDATE expected SET columns = 'detail, reason' WHERE view = 'ledger';
UPDATE expected SET columns = 'hint, message' WHERE view = 'alerts';

SELECT set_eq('SELECT view FROM expected', $$VALUES ('operators'), ('versions'), ('readers'), ('streams'), ('upgrades'), ('progress'), ('ledger'), ('drift'), ('compatibility'), ('stat_operators'), ('stat_readers'), ('batches'), ('alerts')$$,
    'every view is looked at');
SET ROLE regress_weir_other;
SELECT is(leaks(view), NULL, format('others see no text in weir.%s', view)) FROM expected ORDER BY view;
SELECT is((SELECT status FROM weir.operators WHERE operator = 'failing'::regclass), 'stopped', 'but that it stopped');
SELECT is((SELECT num_nulls(previous_hash, hash) FROM weir.ledger WHERE operator_id = 1000 AND event = 'stop'), 2, 'and no hash that would confirm a guess');
SET ROLE regress_weir_owner;
SELECT is((SELECT num_nulls(previous_hash, hash) FROM weir.ledger WHERE operator_id = 1000 AND event = 'stop'), 0, 'the owner sees the hashes');
SELECT is(leaks(view), columns, format('the owner in weir.%s', view)) FROM expected ORDER BY view;
SET ROLE regress_weir_monitor;
SELECT is(leaks(view), columns, format('weir_monitor in weir.%s', view)) FROM expected ORDER BY view;
SET ROLE regress_weir_admin;
SELECT ok(bool_and(leaks(view) IS NOT DISTINCT FROM columns), 'weir_admin in all of them') FROM expected;
RESET ROLE;
SELECT is(leaks('versions'), 'detail, hint, message', 'a superuser');
SELECT * FROM finish();
ROLLBACK;
