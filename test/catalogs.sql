-- Claim: the catalogs refuse rows that cannot be, each by a constraint whose name says
-- which rule it is (I8 among them); and there is no constraint that nobody tested.
BEGIN;
SELECT plan(38);

CREATE TEMP TABLE violated (name text);
-- The constraint or index that refuses a statement, or what else happens.
CREATE FUNCTION pg_temp.refused_by(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    name text;
BEGIN
    EXECUTE statement;
    RETURN 'nothing';
EXCEPTION WHEN integrity_constraint_violation THEN
    GET STACKED DIAGNOSTICS name = CONSTRAINT_NAME;
    INSERT INTO violated VALUES (name);
    RETURN name;
END $$;

-- Never committed, so no worker sees them; ids are far from real ones.
INSERT INTO weir_internal.stream VALUES (1000, 'other', 'local');
INSERT INTO weir_internal.operator (operator_id, view_oid, view_name, stream_id, options, created_by)
    OVERRIDING SYSTEM VALUE VALUES (1000, 1000, 'o', 1000, '{}', 'x');
INSERT INTO weir_internal.version (operator_id, version, purpose, definition, query, definition_view, state_table, state_format, append_only, fingerprint, strategy)
    VALUES (1000, 1, 'serve', '', '', 0, 0, 1, false, '', 'fresh');
INSERT INTO weir_internal.serving (operator_id, version, view_versions) VALUES (1000, 1, '{1}');
INSERT INTO weir_internal.upgrade (upgrade_id, operator_id, from_version, to_version, strategy, phase, steps, gates, auto_advance, safe_window, options, compare_columns, started_by)
    OVERRIDING SYSTEM VALUE VALUES (1000, 1000, 1, 2, 'reuse', 'building', '{100}', '{}', true, '1 day', '{}', '{}', 'x');
INSERT INTO weir_internal.ledger (ledger_id, operator_id, operator, event, lsn, actor) OVERRIDING SYSTEM VALUE VALUES (1000000, 1000, 'o', 'create', '0/1', 'x');
INSERT INTO weir_internal.drift (upgrade_id, number, lsn) VALUES (1000, 1, '0/1');
INSERT INTO weir_internal.gate (upgrade_id, start, rows, apply_us, old_rows, old_apply_us) VALUES (1000, now(), 0, 0, 0, 0);
INSERT INTO weir_internal.compatibility (upgrade_id, ordinal, aspect, verdict, reason, detail, from_digest, to_digest) VALUES (1000, 1, 'key', 'reuse', 'x', '{}', '', '');
INSERT INTO weir_internal.reader (reader_id, stream_id, kind, status, system_identifier, timeline, database_oid)
    OVERRIDING SYSTEM VALUE VALUES (1000, 1000, 'main', 'running', 1, 1, 1);
INSERT INTO weir_internal.version_run (operator_id, version, reader_id, status) VALUES (1000, 1, 1000, 'live');
INSERT INTO weir_internal.version_stat (operator_id, version) VALUES (1000, 1);
INSERT INTO weir_internal.objective (operator_id, objectives, set_by) VALUES (1000, '{}', 'x');
INSERT INTO weir_internal.alert (alert_id, condition, operator_id, reader_id, message, hint, detail) OVERRIDING SYSTEM VALUE VALUES (1000, 'max_lag', 1000, 0, '', '', '{}');

SELECT is(pg_temp.refused_by(statement), name, name) FROM (VALUES
    ('stream_pkey', 'INSERT INTO weir_internal.stream VALUES (1000, ''third'', ''local'')'),
    ('stream_name_key', 'INSERT INTO weir_internal.stream VALUES (1001, ''other'', ''local'')'),
    ('stream_kind_check', 'INSERT INTO weir_internal.stream VALUES (1001, ''third'', ''distant'')'),
    ('operator_pkey', 'INSERT INTO weir_internal.operator (operator_id, view_oid, view_name, stream_id, options, created_by) OVERRIDING SYSTEM VALUE VALUES (1000, 1001, ''p'', 1000, ''{}'', ''x'')'),
    ('operator_view_oid_key', 'INSERT INTO weir_internal.operator (operator_id, view_oid, view_name, stream_id, options, created_by) OVERRIDING SYSTEM VALUE VALUES (1001, 1000, ''p'', 1000, ''{}'', ''x'')'),
    ('operator_desired_check', 'UPDATE weir_internal.operator SET desired = ''fly'' WHERE operator_id = 1000'),
    ('operator_ledger_head_check', 'UPDATE weir_internal.operator SET ledger_length = 1, ledger_last = 1 WHERE operator_id = 1000'),
    ('version_pkey', 'INSERT INTO weir_internal.version SELECT * FROM weir_internal.version WHERE operator_id = 1000'),
    ('version_purpose_check', 'UPDATE weir_internal.version SET purpose = ''decoration'' WHERE operator_id = 1000'),
    ('version_strategy_check', 'UPDATE weir_internal.version SET strategy = ''auto'' WHERE operator_id = 1000'),
    ('serving_pkey', 'INSERT INTO weir_internal.serving (operator_id, version, view_versions) VALUES (1000, 2, ''{2}'')'),
    ('serving_split_check', 'UPDATE weir_internal.serving SET candidate = 2, split = 65 WHERE operator_id = 1000'),
    ('serving_split_has_candidate_check', 'UPDATE weir_internal.serving SET split = 1 WHERE operator_id = 1000'),
    ('upgrade_pkey', 'INSERT INTO weir_internal.upgrade OVERRIDING SYSTEM VALUE SELECT u.* FROM weir_internal.upgrade u WHERE upgrade_id = 1000'),
    ('upgrade_phase_check', 'UPDATE weir_internal.upgrade SET phase = ''done'' WHERE upgrade_id = 1000'),
    ('upgrade_one_not_ended_per_operator', 'INSERT INTO weir_internal.upgrade (operator_id, from_version, to_version, strategy, phase, steps, gates, auto_advance, safe_window, options, compare_columns, started_by)
        VALUES (1000, 2, 3, ''reuse'', ''observing'', ''{100}'', ''{}'', true, ''1 day'', ''{}'', ''{}'', ''x'')'),
    ('drift_pkey', 'INSERT INTO weir_internal.drift SELECT * FROM weir_internal.drift WHERE upgrade_id = 1000'),
    ('gate_pkey', 'INSERT INTO weir_internal.gate SELECT * FROM weir_internal.gate WHERE upgrade_id = 1000'),
    ('compatibility_pkey', 'INSERT INTO weir_internal.compatibility SELECT * FROM weir_internal.compatibility WHERE upgrade_id = 1000'),
    ('compatibility_verdict_check', 'UPDATE weir_internal.compatibility SET verdict = ''perhaps'' WHERE upgrade_id = 1000'),
    ('ledger_pkey', 'INSERT INTO weir_internal.ledger OVERRIDING SYSTEM VALUE SELECT l.* FROM weir_internal.ledger l WHERE ledger_id = 1000000'),
    ('ledger_one_entry_per_place', 'INSERT INTO weir_internal.ledger (operator_id, operator, event, lsn, actor, sequence, hash) SELECT 1000, ''o'', ''create'', ''0/1'', ''x'', 1, '''' FROM generate_series(1, 2)'),
    ('ledger_place_is_hashed_check', 'INSERT INTO weir_internal.ledger (operator_id, operator, event, lsn, actor, sequence) VALUES (1000, ''o'', ''create'', ''0/1'', ''x'', 1)'),
    ('reader_pkey', 'INSERT INTO weir_internal.reader (reader_id, stream_id, kind, status, system_identifier, timeline, database_oid) OVERRIDING SYSTEM VALUE VALUES (1000, 1001, ''main'', ''new'', 1, 1, 1)'),
    ('reader_kind_check', 'UPDATE weir_internal.reader SET kind = ''slow'' WHERE reader_id = 1000'),
    ('reader_status_check', 'UPDATE weir_internal.reader SET status = ''lost'' WHERE reader_id = 1000'),
    ('reader_one_main_per_stream', 'INSERT INTO weir_internal.reader (reader_id, stream_id, kind, status, system_identifier, timeline, database_oid) OVERRIDING SYSTEM VALUE VALUES (1001, 1000, ''main'', ''new'', 1, 1, 1)'),
    ('version_run_pkey', 'INSERT INTO weir_internal.version_run (operator_id, version, reader_id, status) VALUES (1000, 1, 1001, ''live'')'),
    ('version_run_status_check', 'UPDATE weir_internal.version_run SET status = ''new'' WHERE operator_id = 1000'),
    ('version_run_stop_cause_check', 'UPDATE weir_internal.version_run SET stop_cause = ''boredom'' WHERE operator_id = 1000'),
    ('version_stat_pkey', 'INSERT INTO weir_internal.version_stat (operator_id, version) VALUES (1000, 1)'),
    ('objective_pkey', 'INSERT INTO weir_internal.objective (operator_id, objectives, set_by) VALUES (1000, ''{}'', ''x'')'),
    ('alert_pkey', 'INSERT INTO weir_internal.alert (alert_id, condition, operator_id, reader_id, message, hint, detail) OVERRIDING SYSTEM VALUE VALUES (1000, ''max_lag'', 1001, 0, '''', '''', ''{}'')'),
    ('alert_one_open_per_condition', 'INSERT INTO weir_internal.alert (condition, operator_id, reader_id, message, hint, detail) VALUES (''max_lag'', 1000, 0, '''', '''', ''{}'')'),
    ('alert_subject_check', 'INSERT INTO weir_internal.alert (condition, operator_id, reader_id, message, hint, detail) VALUES (''max_lag'', 0, 0, '''', '''', ''{}'')')) tests (name, statement);

-- Those that are allowed beside the refused ones.
SELECT lives_ok($$INSERT INTO weir_internal.operator (operator_id, view_oid, view_name, stream_id, options, created_by, dropped)
    OVERRIDING SYSTEM VALUE VALUES (1001, 1000, 'o', 1000, '{}', 'x', true), (1002, 0, 'a', 1000, '{}', 'x', false), (1003, 0, 'b', 1000, '{}', 'x', false)$$,
    'dropped operators and those without a view yet may be many');
SELECT lives_ok($$INSERT INTO weir_internal.upgrade (operator_id, from_version, to_version, strategy, phase, steps, gates, auto_advance, safe_window, options, compare_columns, started_by)
    VALUES (1000, 1, 2, 'reuse', 'finalized', '{100}', '{}', true, '1 day', '{}', '{}', 'x'), (1000, 1, 2, 'reuse', 'rolled_back', '{100}', '{}', true, '1 day', '{}', '{}', 'x')$$,
    'ended upgrades may be many');
SELECT bag_eq($$SELECT DISTINCT name FROM violated$$,
    $$SELECT conname::text FROM pg_constraint WHERE connamespace = 'weir_internal'::regnamespace AND contype <> 'n'
    UNION SELECT x.relname::text FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
        WHERE x.relnamespace = 'weir_internal'::regnamespace AND i.indisunique$$, 'no constraint is untested');
SELECT * FROM finish();
ROLLBACK;
