-- Claim: the public face of the extension is exactly this: functions with these
-- signatures, views with these columns, these settings and roles, all of them
-- commented, with no rights for anybody beyond this list.
-- A change here is a change that users see: it belongs in CHANGELOG.md.
SELECT plan(22);

-- functions --------------------------------------------------------------------
PREPARE functions AS
SELECT p.oid::regprocedure::text, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid) FROM pg_proc p
WHERE pronamespace = 'weir'::regnamespace ORDER BY p.oid::regprocedure::text COLLATE "C";
SELECT results_eq('functions', $expected$ VALUES
    ('weir.advance_upgrade(regclass)', 'operator regclass',
        'void'),
    ('weir.check_upgrade(regclass,text,text)', 'operator regclass, definition text, migration text DEFAULT NULL::text, OUT aspect text, OUT verdict text, OUT reason text, OUT detail jsonb',
        'SETOF record'),
    ('weir.create_operator(text,text,text,jsonb)', 'name text, definition text, stream text DEFAULT ''main''::text, options jsonb DEFAULT ''{}''::jsonb, OUT operator regclass, OUT version integer, OUT stream text, OUT notes text[]',
        'record'),
    ('weir.doctor()', 'OUT severity text, OUT finding text, OUT fix text, OUT needs_restart boolean',
        'SETOF record'),
    ('weir.drop_operator(regclass,boolean)', 'operator regclass, cascade boolean DEFAULT false',
        'void'),
    ('weir.explain_definition(text)', 'definition text, OUT column_name text, OUT fold text, OUT exact_under text, OUT cost text, OUT objection text',
        'SETOF record'),
    ('weir.finalize_upgrade(regclass)', 'operator regclass',
        'void'),
    ('weir.pause_operator(regclass)', 'operator regclass',
        'void'),
    ('weir.pause_upgrade(regclass)', 'operator regclass',
        'void'),
    ('weir.rebuild_operator(regclass)', 'operator regclass, OUT upgrade_id bigint, OUT from_version integer, OUT to_version integer, OUT strategy text, OUT notes text[]',
        'record'),
    ('weir.resume_operator(regclass)', 'operator regclass',
        'void'),
    ('weir.resume_upgrade(regclass)', 'operator regclass',
        'void'),
    ('weir.rollback_upgrade(regclass,text)', 'operator regclass, reason text DEFAULT NULL::text, OUT upgrade_id bigint, OUT serving_version integer, OUT fence_lsn pg_lsn',
        'record'),
    ('weir.set_objective(regclass,jsonb)', 'operator regclass, objectives jsonb',
        'void'),
    ('weir.start_upgrade(regclass,text,text,text,integer[],jsonb,boolean,interval,jsonb)', 'operator regclass, definition text, migration text DEFAULT NULL::text, strategy text DEFAULT ''auto''::text, steps integer[] DEFAULT ''{100}''::integer[], gates jsonb DEFAULT ''{}''::jsonb, auto_advance boolean DEFAULT true, safe_window interval DEFAULT ''1 day''::interval, options jsonb DEFAULT ''{}''::jsonb, OUT upgrade_id bigint, OUT from_version integer, OUT to_version integer, OUT strategy text, OUT notes text[]',
        'record'),
    ('weir.verify(regclass,interval)', 'operator regclass, timeout interval DEFAULT ''00:10:00''::interval, OUT missing bigint, OUT extra bigint, OUT checked_lsn pg_lsn',
        'record'),
    ('weir.verify_ledger()', 'OUT ok boolean, OUT broken_at bigint',
        'record'),
    ('weir.wait_for(regclass,pg_lsn,interval)', 'operator regclass DEFAULT NULL::regclass, lsn pg_lsn DEFAULT pg_current_wal_insert_lsn(), timeout interval DEFAULT ''00:00:30''::interval',
        'pg_lsn'),
    ('weir.wait_for_upgrade(regclass,text,interval)', 'operator regclass, phase text, timeout interval DEFAULT ''00:05:00''::interval',
        'text')
$expected$, 'functions and their signatures');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace IN ('weir'::regnamespace, 'weir_internal'::regnamespace)
    AND obj_description(p.oid, 'pg_proc') IS NULL$$, 'every function is commented');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'weir'::regnamespace
    AND obj_description(p.oid, 'pg_proc') !~ '(Acts at once|Requests)'$$, 'every comment says whether the call acts or requests');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'weir'::regnamespace
    AND obj_description(p.oid, 'pg_proc') !~ '(changes nothing|[Aa]n error)'$$, 'every comment says what an error leaves behind');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'weir'::regnamespace
    AND (proisstrict OR provolatile <> 'v' OR proparallel <> 'u')$$, 'public functions are volatile, parallel unsafe and see NULLs');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = prolang
    WHERE pronamespace IN ('weir'::regnamespace, 'weir_internal'::regnamespace)
    AND (prosecdef OR lanname = 'sql' AND proconfig IS DISTINCT FROM '{"search_path=pg_catalog, pg_temp"}')$$,
    'no function is SECURITY DEFINER, SQL functions pin their search_path');

-- views ----------------------------------------------------------------------------
PREPARE columns AS
SELECT c.relname::text COLLATE "default", string_agg(format('%s %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum) COLLATE "default"
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = 'weir'::regnamespace GROUP BY c.relname ORDER BY c.relname::text COLLATE "C";
SELECT results_eq('columns', $expected$ VALUES
    ('alerts', 'alert_id bigint, condition text, operator regclass, version integer, reader_id bigint, message text, hint text, detail jsonb, raised_at timestamp with time zone, cleared_at timestamp with time zone'),
    ('batches', 'reader_id bigint, kind text, from_lsn pg_lsn, to_lsn pg_lsn, transactions bigint, rows bigint, operators regclass[], versions integer[], rows_changed bigint[], read_ms double precision, apply_ms double precision, commit_ms double precision, committed_at timestamp with time zone'),
    ('compatibility', 'operator regclass, upgrade_id bigint, from_version integer, to_version integer, aspect text, verdict text, reason text, detail jsonb, from_digest text, to_digest text, recorded_at timestamp with time zone'),
    ('drift', 'operator regclass, upgrade_id bigint, from_version integer, to_version integer, number integer, old_row jsonb, new_row jsonb, lsn pg_lsn, recorded_at timestamp with time zone'),
    ('ledger', 'ledger_id bigint, recorded_at timestamp with time zone, operator text, operator_id bigint, upgrade_id bigint, event text, from_phase text, to_phase text, from_version integer, to_version integer, lsn pg_lsn, actor name, reason text, detail jsonb, sequence bigint, previous_hash bytea, hash bytea'),
    ('operators', 'operator regclass, version integer, status text, stream text, owner name, options jsonb, upgrade_id bigint, upgrade_phase text, processed_lsn pg_lsn, objectives jsonb, message text, hint text, created_at timestamp with time zone'),
    ('progress', 'operator regclass, version integer, step text, rows_total bigint, rows_written bigint, percent numeric, waiting_since timestamp with time zone, waiting_for_pids integer[], lag_bytes numeric'),
    ('readers', 'reader_id bigint, stream text, kind text, status text, slot_name name, pid integer, epoch bigint, processed_lsn pg_lsn, scanned_lsn pg_lsn, lag_bytes numeric, retained_wal_bytes numeric, waiting_since timestamp with time zone, versions text[]'),
    ('stat_operators', 'operator regclass, version integer, serving boolean, rows bigint, folds bigint, rows_inserted bigint, rows_updated bigint, rows_deleted bigint, batches bigint, errors bigint, apply_ms double precision, drift_rows bigint, drift_lsn pg_lsn, stats_reset timestamp with time zone'),
    ('stat_readers', 'reader_id bigint, stream text, kind text, lag_bytes numeric, lag_time interval, retained_wal_bytes numeric, batches bigint, transactions bigint, rows bigint, longest_hold_ms double precision, last_commit_time timestamp with time zone, stats_reset timestamp with time zone'),
    ('streams', 'stream text, kind text, reader_id bigint, status text, slot_name name, processed_lsn pg_lsn, lag_bytes numeric, operators bigint'),
    ('upgrades', 'upgrade_id bigint, operator regclass, from_version integer, to_version integer, strategy text, phase text, phase_since timestamp with time zone, rows_total bigint, rows_written bigint, built_percent numeric, lag_bytes numeric, compare_columns text[], drift_missing bigint, drift_extra bigint, drift_lsn pg_lsn, gates jsonb, gate_readings jsonb, gates_read_at timestamp with time zone, steps integer[], step integer, step_since timestamp with time zone, percent integer, shards integer, shift_lsn pg_lsn, auto_advance boolean, paused boolean, safe_window interval, observing_until timestamp with time zone, rollback_possible boolean, rollback_obstacle text, reason text, sqlstate text, error_lsn pg_lsn, started_at timestamp with time zone, started_by name, ended_at timestamp with time zone'),
    ('versions', 'operator regclass, version integer, status text, serving boolean, strategy text, definition text, query text, migration text, state_table regclass, state_format integer, append_only boolean, reader_id bigint, rows_total bigint, rows_written bigint, build_lsn pg_lsn, processed_lsn pg_lsn, stop_cause text, sqlstate text, message text, detail text, hint text, error_lsn pg_lsn, created_at timestamp with time zone')
$expected$, 'views and their columns');
SELECT is_empty($$SELECT oid::regclass FROM pg_class WHERE relnamespace = 'weir'::regnamespace AND relkind <> 'v'$$,
    'schema weir has views only');
SELECT is_empty($$SELECT oid::regclass FROM pg_class WHERE relnamespace = 'weir'::regnamespace AND obj_description(oid, 'pg_class') IS NULL$$,
    'every view is commented');
SELECT is_empty($$SELECT attrelid::regclass, attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0
    WHERE relnamespace = 'weir'::regnamespace AND col_description(c.oid, attnum) IS NULL$$, 'every column of a view is commented');
SELECT lives_ok(format('SELECT * FROM weir.%I', relname), format('weir.%s can be read', relname)) FROM pg_class
WHERE relnamespace = 'weir'::regnamespace AND relname = 'operators';

-- rights ------------------------------------------------------------------------------
-- Everybody's but the owner's, who has them all.
PREPARE rights AS
SELECT object COLLATE "default", who COLLATE "default", string_agg(privilege_type, ', ' ORDER BY privilege_type) FROM (
    SELECT 'schema ' || n.nspname AS object, a.* FROM pg_namespace n, aclexplode(coalesce(nspacl, acldefault('n', nspowner))) a
    WHERE nspname LIKE 'weir%' AND a.grantee <> nspowner
    UNION ALL SELECT CASE relkind WHEN 'S' THEN 'sequence ' ELSE 'relation ' END || c.oid::regclass, a.*
    FROM pg_class c, aclexplode(coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))) a
    WHERE relnamespace::regnamespace::text LIKE 'weir%' AND relkind IN ('r', 'v', 'S') AND a.grantee <> relowner
    UNION ALL SELECT 'column ' || c.attrelid::regclass || '.' || attname, a.* FROM pg_attribute c, aclexplode(attacl) a
    WHERE attrelid::regclass::text LIKE 'weir%'
    UNION ALL SELECT 'function ' || p.oid::regproc, a.* FROM pg_proc p, aclexplode(coalesce(proacl, acldefault('f', proowner))) a
    WHERE pronamespace::regnamespace::text LIKE 'weir%' AND a.grantee <> proowner) x,
    LATERAL (SELECT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END) g (who)
GROUP BY object, who ORDER BY object COLLATE "C", who COLLATE "C";
SELECT results_eq('rights', $expected$ VALUES
    ('function weir.advance_upgrade', 'PUBLIC', 'EXECUTE'),
    ('function weir.check_upgrade', 'PUBLIC', 'EXECUTE'),
    ('function weir.create_operator', 'PUBLIC', 'EXECUTE'),
    ('function weir.doctor', 'PUBLIC', 'EXECUTE'),
    ('function weir.drop_operator', 'PUBLIC', 'EXECUTE'),
    ('function weir.explain_definition', 'PUBLIC', 'EXECUTE'),
    ('function weir.finalize_upgrade', 'PUBLIC', 'EXECUTE'),
    ('function weir.pause_operator', 'PUBLIC', 'EXECUTE'),
    ('function weir.pause_upgrade', 'PUBLIC', 'EXECUTE'),
    ('function weir.rebuild_operator', 'PUBLIC', 'EXECUTE'),
    ('function weir.resume_operator', 'PUBLIC', 'EXECUTE'),
    ('function weir.resume_upgrade', 'PUBLIC', 'EXECUTE'),
    ('function weir.rollback_upgrade', 'PUBLIC', 'EXECUTE'),
    ('function weir.set_objective', 'PUBLIC', 'EXECUTE'),
    ('function weir.start_upgrade', 'PUBLIC', 'EXECUTE'),
    ('function weir.verify', 'PUBLIC', 'EXECUTE'),
    ('function weir.verify_ledger', 'PUBLIC', 'EXECUTE'),
    ('function weir.wait_for', 'PUBLIC', 'EXECUTE'),
    ('function weir.wait_for_upgrade', 'PUBLIC', 'EXECUTE'),
    ('function weir_internal.may_see_errors', 'PUBLIC', 'EXECUTE'),
    ('function weir_internal.reader_activity', 'PUBLIC', 'EXECUTE'),
    ('function weir_internal.recent_batches', 'PUBLIC', 'EXECUTE'),
    ('function weir_internal.stream_lag', 'PUBLIC', 'EXECUTE'),
    ('function weir_internal.wal_end', 'PUBLIC', 'EXECUTE'),
    ('relation weir.alerts', 'PUBLIC', 'SELECT'),
    ('relation weir.batches', 'PUBLIC', 'SELECT'),
    ('relation weir.compatibility', 'PUBLIC', 'SELECT'),
    ('relation weir.drift', 'PUBLIC', 'SELECT'),
    ('relation weir.ledger', 'PUBLIC', 'SELECT'),
    ('relation weir.operators', 'PUBLIC', 'SELECT'),
    ('relation weir.progress', 'PUBLIC', 'SELECT'),
    ('relation weir.readers', 'PUBLIC', 'SELECT'),
    ('relation weir.stat_operators', 'PUBLIC', 'SELECT'),
    ('relation weir.stat_readers', 'PUBLIC', 'SELECT'),
    ('relation weir.streams', 'PUBLIC', 'SELECT'),
    ('relation weir.upgrades', 'PUBLIC', 'SELECT'),
    ('relation weir.versions', 'PUBLIC', 'SELECT'),
    ('relation weir_internal.serving', 'PUBLIC', 'SELECT'),
    ('schema weir', 'PUBLIC', 'USAGE'),
    ('schema weir_internal', 'PUBLIC', 'USAGE'),
    ('schema weir_state', 'PUBLIC', 'USAGE')
$expected$, 'rights of others than the owner');
SELECT is_empty($$SELECT defaclobjtype, defaclnamespace::regnamespace FROM pg_default_acl$$, 'no default privileges');

-- settings -------------------------------------------------------------------------------
PREPARE settings AS
SELECT name, vartype, unit, context, boot_val, min_val, max_val FROM pg_settings
WHERE name LIKE 'weir.%' AND name <> 'weir.crash_point' ORDER BY name COLLATE "C";   -- that one only in builds for tests
SELECT results_eq('settings', $expected$ VALUES
    ('weir.batch_memory', 'integer', 'kB', 'sighup', '65536', '64', '2147483647'),
    ('weir.build_chunk_rows', 'integer', NULL, 'sighup', '20000', '1', '1073741823'),
    ('weir.key_cache', 'integer', 'kB', 'sighup', '65536', '0', '2147483647'),
    ('weir.max_batch_rows', 'integer', NULL, 'sighup', '1000000', '1', '1073741823'),
    ('weir.max_batch_time', 'integer', 'ms', 'sighup', '2000', '1', '60000'),
    ('weir.max_hold', 'integer', 'ms', 'sighup', '200', '1', '10000'),
    ('weir.max_retained_wal', 'integer', 'MB', 'sighup', '10240', '-1', '2147483647'),
    ('weir.poll_interval', 'integer', 'ms', 'sighup', '200', '10', '60000'),
    ('weir.read_version', 'enum', NULL, 'user', 'serving', NULL, NULL),
    ('weir.restart_delay', 'integer', 'ms', 'sighup', '1000', '10', '60000')
$expected$, 'settings, their defaults and limits');
SELECT cmp_ok((SELECT count(*) FROM pg_settings WHERE name LIKE 'weir.%')::int, '<=', 15, 'few settings');
SELECT is_empty($$SELECT name FROM pg_settings WHERE name LIKE 'weir.%' AND coalesce(short_desc, '') = ''$$, 'every setting is described');
SELECT throws_ok('SET weir.no_such_setting = 1', '42602', NULL, 'names of settings are reserved');

-- roles ------------------------------------------------------------------------------------
SELECT results_eq($$SELECT rolname::text COLLATE "default", rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles
    WHERE rolname LIKE 'weir%' ORDER BY rolname::text COLLATE "C"$$,
    $$VALUES ('weir_admin', false, false, false, false, false, false), ('weir_monitor', false, false, false, false, false, false)$$,
    'roles, with nothing of their own');

-- what belongs to the extension, and what is on purpose not there ---------------------------
SELECT is_empty($$SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend d
    WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_weir')
    AND NOT (classid = 'pg_namespace'::regclass
        OR classid = 'pg_class'::regclass AND objid IN (SELECT oid FROM pg_class WHERE relnamespace::regnamespace::text LIKE 'weir%')
        OR classid = 'pg_type'::regclass AND objid IN (SELECT oid FROM pg_type WHERE typnamespace::regnamespace::text LIKE 'weir%')
        OR classid = 'pg_proc'::regclass AND objid IN (SELECT oid FROM pg_proc WHERE pronamespace::regnamespace::text LIKE 'weir%'))$$,
    'nothing of it is outside of its schemas');
SELECT is_empty($$SELECT conname FROM pg_constraint WHERE contype = 'f' AND connamespace::regnamespace::text LIKE 'weir%'$$,
    'no foreign keys: they would make workers wait for users');
SELECT set_eq($$SELECT tgname::text, tgrelid::regclass::text, tgenabled::text FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
    WHERE relnamespace::regnamespace::text LIKE 'weir%'$$,
    $$VALUES ('ledger_refuse_update', 'weir_internal.ledger', 'A'), ('ledger_refuse_delete', 'weir_internal.ledger', 'A'),
    ('ledger_refuse_truncate', 'weir_internal.ledger', 'A')$$,
    'no triggers but those that keep the ledger as it is');
SELECT results_eq($$SELECT extversion COLLATE "default", extrelocatable, extnamespace::regnamespace::text COLLATE "default" FROM pg_extension WHERE extname = 'pg_weir'$$,
    $$VALUES ('0.1.0', 'f'::bool, 'pg_catalog')$$, 'the extension itself');
SELECT * FROM finish();
