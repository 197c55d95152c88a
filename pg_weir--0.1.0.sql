/* pg_weir--0.1.0.sql - SQL objects of pg_weir, in the order: schemas, catalogs, functions, views, rights. */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pg_weir" to load this file. \quit

/* ---------------------------------------------------------------- schemas */
-- weir_state belongs to the extension; the tables in it are made by
-- weir.create_operator and weir.start_upgrade.

CREATE SCHEMA weir;
CREATE SCHEMA weir_internal;
CREATE SCHEMA weir_state;

COMMENT ON SCHEMA weir IS 'pg_weir: functions and views for people';
COMMENT ON SCHEMA weir_internal IS 'pg_weir: catalogs, the single source of truth; written by pg_weir only';
COMMENT ON SCHEMA weir_state IS 'pg_weir: one state table for each operator version; written by pg_weir only';

/*
 * --------------------------------------------------------------- catalogs
 * No foreign keys between them on purpose: a foreign key check takes a lock on
 * the referenced row, and a worker must never wait for a user's open
 * transaction. Two groups of tables: those that control calls write (stream,
 * operator, version, serving, upgrade, objective, ledger) and those that only
 * workers write (reader, version_run, version_stat; alert). Readers lock only
 * the latter.
 */

CREATE TABLE weir_internal.stream (
    stream_id int PRIMARY KEY,
    name text NOT NULL UNIQUE,
    kind text NOT NULL CHECK (kind IN ('local'))
);
INSERT INTO weir_internal.stream VALUES (1, 'main', 'local');

CREATE TABLE weir_internal.operator (
    operator_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    view_oid oid NOT NULL,
    view_name text NOT NULL,            -- as created; for messages after the view is gone
    stream_id int NOT NULL,
    options jsonb NOT NULL,
    desired text NOT NULL DEFAULT 'run' CHECK (desired IN ('run', 'pause')),
    resumed_at timestamptz,             -- what stopped before is to go on
    dropped boolean NOT NULL DEFAULT false,
    last_version int NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by name NOT NULL,
    -- Head of its chain in the ledger: without it, nobody would miss the last entries.
    ledger_length bigint NOT NULL DEFAULT 0,
    ledger_last bigint,
    ledger_hash bytea,
    CONSTRAINT operator_ledger_head_check CHECK (CASE ledger_length WHEN 0 THEN num_nulls(ledger_last, ledger_hash) = 2
        ELSE num_nulls(ledger_last, ledger_hash) = 0 END)
);
-- 0 until the view is made, at which creators of different operators must not meet.
CREATE UNIQUE INDEX operator_view_oid_key ON weir_internal.operator (view_oid) WHERE NOT dropped AND view_oid <> 0;

CREATE TABLE weir_internal.version (
    operator_id bigint NOT NULL,
    version int NOT NULL,
    purpose text NOT NULL CHECK (purpose IN ('serve', 'verification')),
    definition text NOT NULL,           -- as the user wrote it
    query text NOT NULL,                -- as analysed, fully qualified
    definition_view oid NOT NULL,       -- weir_state view that carries the dependencies
    state_table oid NOT NULL,
    extreme_tables oid[] NOT NULL DEFAULT '{}',
    state_format int NOT NULL,
    append_only boolean NOT NULL,
    fingerprint text NOT NULL,          -- of the functions it calls
    strategy text NOT NULL CHECK (strategy IN ('backfill', 'reuse', 'convert', 'fresh')),
    build_from int,                     -- reuse, convert: the version whose state it is derived from; verification: the one it checks
    migration text,                     -- convert: as the user wrote it
    migration_view oid NOT NULL DEFAULT 0,  -- the same as analysed, in weir_state; 0 once the state it reads is removed
    request_id bigint,                  -- verification: the waiting call, in shared memory
    -- definition_view and state_table are 0 once a retired version is removed
    retired boolean NOT NULL DEFAULT false,
    retired_xid xid8,                   -- older snapshots may still read its state
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (operator_id, version)
);

CREATE TABLE weir_internal.serving (
    operator_id bigint PRIMARY KEY,
    version int NOT NULL,
    shown_version int NOT NULL DEFAULT 0,   -- the same once the first version is built; before that the view is empty
    candidate int NOT NULL DEFAULT 0,   -- serves the shards below split, and sessions that ask for it; 0: none
    split int NOT NULL DEFAULT 0 CHECK (split BETWEEN 0 AND 64),
    view_versions int[] NOT NULL,       -- the branches that the operator's view has; 0: none that shows before it is built
    CONSTRAINT serving_split_has_candidate_check CHECK (split = 0 OR candidate <> 0)
) WITH (fillfactor = 50);

CREATE TABLE weir_internal.upgrade (
    upgrade_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    operator_id bigint NOT NULL,
    from_version int NOT NULL,
    to_version int NOT NULL,
    strategy text NOT NULL,
    phase text NOT NULL CHECK (phase IN ('preparing', 'building', 'catching_up', 'validating',
        'shifting', 'observing', 'finalized', 'rolling_back', 'rolled_back')),
    phase_since timestamptz NOT NULL DEFAULT clock_timestamp(),
    steps int[] NOT NULL,
    gates jsonb NOT NULL,
    gate_queries text[] NOT NULL DEFAULT '{}', -- those in gates, fully qualified
    auto_advance boolean NOT NULL,
    step int NOT NULL DEFAULT 0,        -- how many of steps were taken
    step_since timestamptz,
    advance_requested boolean NOT NULL DEFAULT false,
    paused boolean NOT NULL DEFAULT false,     -- takes no edge by itself
    safe_window interval NOT NULL,
    observing_until timestamptz,
    options jsonb NOT NULL,
    compare_columns text[] NOT NULL,    -- output columns on which drift is judged
    drift_missing bigint,
    drift_extra bigint,
    drift_lsn pg_lsn,
    drift_at timestamptz,
    shift_lsn pg_lsn,
    rollback_possible boolean NOT NULL DEFAULT true,
    rollback_obstacle text,
    reason text,                        -- why it ended, or why it waits
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_by name NOT NULL,
    ended_at timestamptz
);
CREATE UNIQUE INDEX upgrade_one_not_ended_per_operator ON weir_internal.upgrade (operator_id)
    WHERE phase NOT IN ('finalized', 'rolled_back');

-- What the gates were read as last, and what they are measured from.
CREATE TABLE weir_internal.gate (
    upgrade_id bigint PRIMARY KEY,
    start timestamptz NOT NULL,         -- of the phase or step that is judged, with both versions in lockstep
    waiting_since timestamptz,          -- from here the deadline counts; NULL: from the next look
    rows bigint NOT NULL,               -- counters at the start: of the new version,
    apply_us bigint NOT NULL,
    old_rows bigint NOT NULL,           -- and of the old one
    old_apply_us bigint NOT NULL,
    ready_since timestamptz,            -- nothing but the comparison is missing for the step; older comparisons do not count
    ask_at timestamptz,                 -- the user's queries are to be asked; answers to what was asked before do not count
    answered_at timestamptz,
    answers text[] NOT NULL DEFAULT '{}',
    answer_errors text[] NOT NULL DEFAULT '{}',
    readings jsonb NOT NULL DEFAULT '[]',
    read_at timestamptz,
    signature text,                     -- which gates did not pass, since when, and at the last entry in the ledger
    signature_since timestamptz,
    in_ledger text
) WITH (fillfactor = 50);

CREATE TABLE weir_internal.drift (
    upgrade_id bigint NOT NULL,
    number int NOT NULL,
    old_row jsonb,                      -- of the compared columns; NULL: that version has no such row
    new_row jsonb,
    lsn pg_lsn NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (upgrade_id, number)
);

CREATE TABLE weir_internal.compatibility (
    upgrade_id bigint NOT NULL,
    ordinal int NOT NULL,
    aspect text NOT NULL,
    verdict text NOT NULL CHECK (verdict IN ('identical', 'reuse', 'convert', 'backfill', 'refuse')),
    reason text NOT NULL,
    detail jsonb NOT NULL,
    from_digest text NOT NULL,          -- SHA-256 of the analysed definitions
    to_digest text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (upgrade_id, ordinal)
);

CREATE TABLE weir_internal.ledger (
    ledger_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    operator_id bigint NOT NULL,
    operator text NOT NULL,
    upgrade_id bigint,
    event text NOT NULL,
    from_phase text,
    to_phase text,
    from_version int,
    to_version int,
    lsn pg_lsn NOT NULL,
    actor name NOT NULL,                -- the role that called, or that of the worker
    reason text,
    detail jsonb NOT NULL DEFAULT '{}',
    -- Its place in the operator's chain, NULL until it has one: see src/catalog/ledger_catalog.c.
    sequence bigint,
    previous_hash bytea,                -- NULL in the first
    hash bytea,
    CONSTRAINT ledger_one_entry_per_place UNIQUE (operator_id, sequence),
    CONSTRAINT ledger_place_is_hashed_check CHECK ((sequence IS NULL) = (hash IS NULL))
);
CREATE INDEX ledger_not_chained_idx ON weir_internal.ledger (operator_id, ledger_id) WHERE hash IS NULL;

CREATE TABLE weir_internal.reader (
    reader_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream_id int NOT NULL,
    kind text NOT NULL CHECK (kind IN ('main', 'catch_up', 'stopped')),
    status text NOT NULL CHECK (status IN ('new', 'building', 'running', 'ended')),
    slot_name name,
    slot_pending boolean NOT NULL DEFAULT false,  -- a copy of the main slot at or before processed_lsn is still to be made
    epoch bigint NOT NULL DEFAULT 0,
    processed_lsn pg_lsn,
    last_commit_time timestamptz,
    system_identifier bigint NOT NULL,  -- identity of what its LSNs mean
    timeline int NOT NULL,
    database_oid oid NOT NULL,
    batches bigint NOT NULL DEFAULT 0,
    transactions bigint NOT NULL DEFAULT 0,
    rows bigint NOT NULL DEFAULT 0,
    stats_reset timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 30);
CREATE UNIQUE INDEX reader_one_main_per_stream ON weir_internal.reader (stream_id) WHERE kind = 'main';

CREATE TABLE weir_internal.version_run (
    operator_id bigint NOT NULL,
    version int NOT NULL,
    reader_id bigint NOT NULL,
    status text NOT NULL CHECK (status IN ('building', 'catching_up', 'live', 'stopped', 'failed', 'lost')),
    stop_cause text CHECK (stop_cause IN ('error', 'pause', 'stale', 'lock')),
    rows_total bigint,
    rows_written bigint,
    build_lsn pg_lsn,                   -- the state was computed as of this position
    build_checksum bigint,              -- of the rows written, found again in the tables
    sqlstate text,
    message text,
    detail text,
    hint text,
    error_lsn pg_lsn,
    status_since timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (operator_id, version)
) WITH (fillfactor = 50);

CREATE TABLE weir_internal.version_stat (
    operator_id bigint NOT NULL,
    version int NOT NULL,
    rows bigint NOT NULL DEFAULT 0,
    folds bigint NOT NULL DEFAULT 0,
    rows_inserted bigint NOT NULL DEFAULT 0,
    rows_updated bigint NOT NULL DEFAULT 0,
    rows_deleted bigint NOT NULL DEFAULT 0,
    batches bigint NOT NULL DEFAULT 0,
    errors bigint NOT NULL DEFAULT 0,
    apply_us bigint NOT NULL DEFAULT 0,
    stats_reset timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (operator_id, version)
) WITH (fillfactor = 30);

CREATE TABLE weir_internal.objective (
    operator_id bigint PRIMARY KEY,
    objectives jsonb NOT NULL,          -- as given; what they mean:
    max_lag interval,
    max_lag_bytes bigint,
    max_retained_wal bigint,
    set_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    set_by name NOT NULL
);

CREATE TABLE weir_internal.alert (
    alert_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    condition text NOT NULL,
    operator_id bigint NOT NULL,        -- 0: of a reader with several
    reader_id bigint NOT NULL,          -- 0: of an operator, whoever reads for it
    version int,
    message text NOT NULL,
    hint text NOT NULL,
    detail jsonb NOT NULL,              -- measured values, when it was raised
    raised_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    cleared_at timestamptz,
    CONSTRAINT alert_subject_check CHECK (operator_id <> 0 OR reader_id <> 0)
);
CREATE UNIQUE INDEX alert_one_open_per_condition ON weir_internal.alert (condition, operator_id, reader_id)
    WHERE cleared_at IS NULL;

/* ------------------------------------------------------------------ roles */
-- Cluster-wide, so another database may have made them already.

DO $roles$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'weir_monitor') THEN
        CREATE ROLE weir_monitor NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'weir_admin') THEN
        CREATE ROLE weir_admin NOLOGIN;
    END IF;
END
$roles$;

/* -------------------------------------------------------------- functions */

CREATE FUNCTION weir.create_operator(name text, definition text, stream text DEFAULT 'main',
    options jsonb DEFAULT '{}',
    OUT operator regclass, OUT version int, OUT stream text, OUT notes text[])
AS 'MODULE_PATHNAME', 'weir_create_operator' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.create_operator(text, text, text, jsonb) IS
'Creates an operator: a view that is kept equal to the definition. Requests: rows appear when it is built after commit (weir.wait_for). An error leaves nothing behind.';

CREATE FUNCTION weir.drop_operator(operator regclass, cascade boolean DEFAULT false) RETURNS void
AS 'MODULE_PATHNAME', 'weir_drop_operator' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.drop_operator(regclass, boolean) IS
'Drops an operator. Acts at once on the view; its state tables and slot are removed after commit. An error leaves it as it was.';

CREATE FUNCTION weir.pause_operator(operator regclass) RETURNS void
AS 'MODULE_PATHNAME', 'weir_pause_operator' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.pause_operator(regclass) IS
'Requests that an operator stops applying changes; it keeps its position and the WAL after it, up to weir.max_retained_wal. An error leaves it as it was.';

CREATE FUNCTION weir.resume_operator(operator regclass) RETURNS void
AS 'MODULE_PATHNAME', 'weir_resume_operator' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.resume_operator(regclass) IS
'Requests that a paused or stopped operator goes on from its position (weir.wait_for). An error leaves it as it was.';

CREATE FUNCTION weir.set_objective(operator regclass, objectives jsonb) RETURNS void
AS 'MODULE_PATHNAME', 'weir_set_objective' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.set_objective(regclass, jsonb) IS
'Sets an operator''s service-level objectives in place of those it had; {} removes them. Acts at once; weir.alerts follows within seconds. An error leaves them as they were.';

CREATE FUNCTION weir.rebuild_operator(operator regclass,
    OUT upgrade_id bigint, OUT from_version int, OUT to_version int, OUT strategy text, OUT notes text[])
AS 'MODULE_PATHNAME', 'weir_rebuild_operator' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.rebuild_operator(regclass) IS
'Requests that an operator is computed again from its source beside the serving state, then swapped in (weir.wait_for_upgrade with phase finalized). An error leaves it as it was.';

CREATE FUNCTION weir.check_upgrade(operator regclass, definition text, migration text DEFAULT NULL,
    OUT aspect text, OUT verdict text, OUT reason text, OUT detail jsonb)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'weir_check_upgrade' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.check_upgrade(regclass, text, text) IS
'Tells aspect by aspect what an upgrade to a definition would reuse, compute again or refuse, and what it costs. Acts at once; changes nothing.';

CREATE FUNCTION weir.start_upgrade(operator regclass, definition text, migration text DEFAULT NULL,
    strategy text DEFAULT 'auto', steps int[] DEFAULT '{100}', gates jsonb DEFAULT '{}',
    auto_advance boolean DEFAULT true, safe_window interval DEFAULT '1 day', options jsonb DEFAULT '{}',
    OUT upgrade_id bigint, OUT from_version int, OUT to_version int, OUT strategy text, OUT notes text[])
AS 'MODULE_PATHNAME', 'weir_start_upgrade' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.start_upgrade(regclass, text, text, text, int[], jsonb, boolean, interval, jsonb) IS
'Requests an upgrade to a new definition: built beside the serving version, run in lockstep, compared, shifted (weir.wait_for_upgrade). An error leaves nothing behind.';

CREATE FUNCTION weir.advance_upgrade(operator regclass) RETURNS void
AS 'MODULE_PATHNAME', 'weir_advance_upgrade' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.advance_upgrade(regclass) IS
'Requests the next step of an upgrade that was started with auto_advance => false (weir.wait_for_upgrade). An error leaves it as it was.';

CREATE FUNCTION weir.pause_upgrade(operator regclass) RETURNS void
AS 'MODULE_PATHNAME', 'weir_pause_upgrade' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.pause_upgrade(regclass) IS
'Keeps an upgrade in the phase it is in until weir.resume_upgrade; both versions go on to be kept up to date. Acts at once, in this transaction. An error leaves it as it was.';

CREATE FUNCTION weir.resume_upgrade(operator regclass) RETURNS void
AS 'MODULE_PATHNAME', 'weir_resume_upgrade' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.resume_upgrade(regclass) IS
'Requests that a paused upgrade goes on (weir.wait_for_upgrade). An error leaves it as it was.';

CREATE FUNCTION weir.rollback_upgrade(operator regclass, reason text DEFAULT NULL,
    OUT upgrade_id bigint, OUT serving_version int, OUT fence_lsn pg_lsn)
AS 'MODULE_PATHNAME', 'weir_rollback_upgrade' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.rollback_upgrade(regclass, text) IS
'Rolls an upgrade back: the old version serves again, with everything that came in since. Acts at once, in this transaction. An error leaves it as it was.';

CREATE FUNCTION weir.finalize_upgrade(operator regclass) RETURNS void
AS 'MODULE_PATHNAME', 'weir_finalize_upgrade' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.finalize_upgrade(regclass) IS
'Ends the safe window of an upgrade: the old version leaves lockstep. Acts at once; its state is dropped after commit. An error leaves it as it was.';

CREATE FUNCTION weir.wait_for(operator regclass DEFAULT NULL, lsn pg_lsn DEFAULT pg_current_wal_insert_lsn(),
    timeout interval DEFAULT '30 s') RETURNS pg_lsn
AS 'MODULE_PATHNAME', 'weir_wait_for' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.wait_for(regclass, pg_lsn, interval) IS
'Waits until an operator (NULL: all) has applied every commit up to lsn: read your writes. Acts at once; changes nothing.';

CREATE FUNCTION weir.wait_for_upgrade(operator regclass, phase text, timeout interval DEFAULT '5 min') RETURNS text
AS 'MODULE_PATHNAME', 'weir_wait_for_upgrade' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.wait_for_upgrade(regclass, text, interval) IS
'Waits until the latest upgrade of an operator has reached or passed a phase. Acts at once; changes nothing.';

CREATE FUNCTION weir.verify(operator regclass, timeout interval DEFAULT '10 min',
    OUT missing bigint, OUT extra bigint, OUT checked_lsn pg_lsn)
AS 'MODULE_PATHNAME', 'weir_verify' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.verify(regclass, interval) IS
'Recomputes an operator beside the serving version and compares the two both ways at one position, exact under writes. Acts at once; an error or cancel removes the copy.';

CREATE FUNCTION weir.verify_ledger(OUT ok boolean, OUT broken_at bigint)
AS 'MODULE_PATHNAME', 'weir_verify_ledger' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.verify_ledger() IS
'Recomputes the hash chain of every operator in the ledger: whether all hold, and the first entry at which one breaks. Acts at once; changes nothing.';

CREATE FUNCTION weir.doctor(OUT severity text, OUT finding text, OUT fix text, OUT needs_restart boolean)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'weir_doctor' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.doctor() IS
'Tells whether this server is set up for pg_weir, with the exact line for what is missing. Acts at once; changes nothing.';

CREATE FUNCTION weir.explain_definition(definition text,
    OUT column_name text, OUT fold text, OUT exact_under text, OUT cost text, OUT objection text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'weir_explain_definition' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.explain_definition(text) IS
'Tells how a definition would be kept up to date, column by column, or everything that stands against it. Acts at once; changes nothing.';

CREATE FUNCTION weir_internal.reader_activity(reader_id bigint, OUT pid int, OUT processed_lsn pg_lsn,
    OUT scanned_lsn pg_lsn, OUT longest_hold_ms double precision, OUT waiting_since timestamptz, OUT gives_way boolean)
AS 'MODULE_PATHNAME', 'weir_reader_activity' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir_internal.reader_activity(bigint) IS
'What a running reader publishes in shared memory; NULL columns when it does not run.';

CREATE FUNCTION weir_internal.stream_lag() RETURNS interval
AS 'MODULE_PATHNAME', 'weir_stream_lag' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir_internal.stream_lag() IS
'Age of the oldest moment since which the main reader may not have applied every commit; NULL when nobody looks after the database.';

CREATE FUNCTION weir_internal.recent_batches(OUT reader_id bigint, OUT kind text, OUT from_lsn pg_lsn, OUT to_lsn pg_lsn,
    OUT transactions bigint, OUT rows bigint, OUT operator_ids bigint[], OUT versions int[], OUT rows_changed bigint[],
    OUT read_ms double precision, OUT apply_ms double precision, OUT commit_ms double precision, OUT committed_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'weir_recent_batches' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir_internal.recent_batches() IS
'Batches of this database that shared memory still holds, as far as the current role may see them.';

CREATE FUNCTION weir_internal.wal_end() RETURNS pg_lsn LANGUAGE sql VOLATILE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END$$;
COMMENT ON FUNCTION weir_internal.wal_end() IS 'End of the WAL, on a primary or a standby.';

CREATE PROCEDURE weir_internal.drain_raw(slot_name name, stop_lsn pg_lsn,
    INOUT records bigint DEFAULT NULL, INOUT transactions bigint DEFAULT NULL,
    INOUT changes bigint DEFAULT NULL, INOUT milliseconds double precision DEFAULT NULL)
AS 'MODULE_PATHNAME', 'weir_drain_raw' LANGUAGE C;
COMMENT ON PROCEDURE weir_internal.drain_raw(name, pg_lsn, bigint, bigint, bigint, double precision) IS
'For measurements: decodes a slot''s backlog up to stop_lsn and drops every change. Superusers only; confirms nothing.';
REVOKE ALL ON PROCEDURE weir_internal.drain_raw(name, pg_lsn, bigint, bigint, bigint, double precision) FROM PUBLIC;

CREATE FUNCTION weir_internal.refuse_ledger_change() RETURNS trigger
AS 'MODULE_PATHNAME', 'weir_refuse_ledger_change' LANGUAGE C;
COMMENT ON FUNCTION weir_internal.refuse_ledger_change() IS 'Refuses what would rewrite the ledger.';
REVOKE ALL ON FUNCTION weir_internal.refuse_ledger_change() FROM PUBLIC;

-- An entry without a place in its chain may be given one, and nothing else.
CREATE TRIGGER ledger_refuse_update BEFORE UPDATE ON weir_internal.ledger FOR EACH ROW
WHEN (OLD.hash IS NOT NULL OR NEW.hash IS NULL
    OR (NEW.ledger_id, NEW.recorded_at, NEW.operator_id, NEW.operator, NEW.upgrade_id, NEW.event, NEW.from_phase,
        NEW.to_phase, NEW.from_version, NEW.to_version, NEW.lsn, NEW.actor, NEW.reason, NEW.detail)
    IS DISTINCT FROM
       (OLD.ledger_id, OLD.recorded_at, OLD.operator_id, OLD.operator, OLD.upgrade_id, OLD.event, OLD.from_phase,
        OLD.to_phase, OLD.from_version, OLD.to_version, OLD.lsn, OLD.actor, OLD.reason, OLD.detail))
EXECUTE FUNCTION weir_internal.refuse_ledger_change();
CREATE TRIGGER ledger_refuse_delete BEFORE DELETE ON weir_internal.ledger FOR EACH ROW
EXECUTE FUNCTION weir_internal.refuse_ledger_change();
CREATE TRIGGER ledger_refuse_truncate BEFORE TRUNCATE ON weir_internal.ledger FOR EACH STATEMENT
EXECUTE FUNCTION weir_internal.refuse_ledger_change();
-- Also under session_replication_role = replica.
ALTER TABLE weir_internal.ledger ENABLE ALWAYS TRIGGER ledger_refuse_update;
ALTER TABLE weir_internal.ledger ENABLE ALWAYS TRIGGER ledger_refuse_delete;
ALTER TABLE weir_internal.ledger ENABLE ALWAYS TRIGGER ledger_refuse_truncate;

-- Error texts may hold values of rows: for the owner and for monitors only.
CREATE FUNCTION weir_internal.may_see_errors(operator oid) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$SELECT EXISTS (SELECT FROM pg_roles r WHERE r.rolname IN ('weir_monitor', 'weir_admin') AND pg_has_role(r.oid, 'USAGE'))
    OR coalesce((SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = operator), false)$$;
COMMENT ON FUNCTION weir_internal.may_see_errors(oid) IS
'Whether the current role may see error texts of an operator.';

/* ------------------------------------------------------------------ views */

CREATE VIEW weir.operators AS
SELECT o.view_oid::regclass AS operator, s.version,
    CASE WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_class d WHERE d.oid = v.definition_view) THEN 'stale'
         WHEN o.desired = 'pause' OR r.status = 'stopped' AND r.stop_cause = 'pause' THEN 'paused'
         WHEN r.status IN ('stopped', 'failed') AND r.stop_cause = 'stale' THEN 'stale'
         ELSE coalesce(r.status, 'new') END AS status,
    st.name AS stream, a.rolname AS owner, o.options, u.upgrade_id, u.phase AS upgrade_phase,
    coalesce(act.processed_lsn, rd.processed_lsn) AS processed_lsn, j.objectives,
    CASE WHEN weir_internal.may_see_errors(o.view_oid) THEN r.message END AS message,
    CASE WHEN weir_internal.may_see_errors(o.view_oid) THEN
        CASE WHEN o.desired = 'pause' OR r.status = 'stopped'
             THEN coalesce(r.hint, format('SELECT weir.resume_operator(%L);', o.view_oid::regclass))
             WHEN r.status IN ('failed', 'lost')
             THEN coalesce(r.hint, format('SELECT * FROM weir.rebuild_operator(%L);', o.view_oid::regclass)) END END AS hint,
    o.created_at
FROM weir_internal.operator o
JOIN weir_internal.stream st USING (stream_id)
JOIN weir_internal.serving s USING (operator_id)
LEFT JOIN pg_catalog.pg_class c ON c.oid = o.view_oid
LEFT JOIN pg_catalog.pg_roles a ON a.oid = c.relowner
JOIN weir_internal.version v ON v.operator_id = o.operator_id AND v.version = s.version
LEFT JOIN weir_internal.version_run r ON r.operator_id = o.operator_id AND r.version = s.version
LEFT JOIN weir_internal.reader rd ON rd.reader_id = r.reader_id
LEFT JOIN LATERAL weir_internal.reader_activity(rd.reader_id) act ON true
LEFT JOIN weir_internal.upgrade u ON u.operator_id = o.operator_id AND u.phase NOT IN ('finalized', 'rolled_back')
LEFT JOIN weir_internal.objective j ON j.operator_id = o.operator_id
WHERE NOT o.dropped;
COMMENT ON VIEW weir.operators IS 'Operators of this database, with the version that serves and its status.';
COMMENT ON COLUMN weir.operators.operator IS 'The operator: its view.';
COMMENT ON COLUMN weir.operators.version IS 'Version that serves; while an upgrade shifts, the one that it leaves.';
COMMENT ON COLUMN weir.operators.status IS 'new, building, catching_up, live, paused, stopped, stale, lost or failed.';
COMMENT ON COLUMN weir.operators.stream IS 'Stream whose changes it folds.';
COMMENT ON COLUMN weir.operators.owner IS 'Owner of the view; its definition runs with this role''s rights.';
COMMENT ON COLUMN weir.operators.options IS 'Options given at creation.';
COMMENT ON COLUMN weir.operators.upgrade_id IS 'Upgrade under way, if any.';
COMMENT ON COLUMN weir.operators.upgrade_phase IS 'Phase of that upgrade.';
COMMENT ON COLUMN weir.operators.processed_lsn IS 'Every commit that ends at or before it has been applied.';
COMMENT ON COLUMN weir.operators.objectives IS 'What weir.set_objective was given last; NULL: nothing.';
COMMENT ON COLUMN weir.operators.message IS 'Why it stopped (owner and monitors only).';
COMMENT ON COLUMN weir.operators.hint IS 'Command that mends it (owner and monitors only).';
COMMENT ON COLUMN weir.operators.created_at IS 'When it was created.';

CREATE VIEW weir.versions AS
SELECT o.view_oid::regclass AS operator, v.version,
    CASE WHEN v.retired AND u.phase = 'rolled_back' THEN 'rolled_back'
         WHEN v.retired THEN 'retired'
         ELSE coalesce(r.status, 'new') END AS status,
    s.version = v.version OR s.candidate = v.version AND s.split > 0 AS serving, v.strategy, v.definition, v.query, v.migration,
    nullif(v.state_table, 0)::regclass AS state_table, v.state_format, v.append_only,
    rd.reader_id, r.rows_total, r.rows_written, r.build_lsn, rd.processed_lsn, r.stop_cause, r.sqlstate,
    CASE WHEN weir_internal.may_see_errors(o.view_oid) THEN r.message END AS message,
    CASE WHEN weir_internal.may_see_errors(o.view_oid) THEN r.detail END AS detail,
    CASE WHEN weir_internal.may_see_errors(o.view_oid) THEN r.hint END AS hint,
    r.error_lsn, v.created_at
FROM weir_internal.version v
JOIN weir_internal.operator o USING (operator_id)
JOIN weir_internal.serving s USING (operator_id)
LEFT JOIN weir_internal.version_run r ON r.operator_id = v.operator_id AND r.version = v.version
LEFT JOIN weir_internal.reader rd ON rd.reader_id = r.reader_id AND NOT v.retired
LEFT JOIN weir_internal.upgrade u ON u.operator_id = v.operator_id AND u.to_version = v.version
WHERE NOT o.dropped AND v.purpose = 'serve';
COMMENT ON VIEW weir.versions IS 'Versions of operators: definitions, state tables, progress and errors.';
COMMENT ON COLUMN weir.versions.operator IS 'The operator.';
COMMENT ON COLUMN weir.versions.version IS 'Number of the version, from 1.';
COMMENT ON COLUMN weir.versions.status IS 'new, building, catching_up, live, stopped, failed, lost, retired or rolled_back.';
COMMENT ON COLUMN weir.versions.serving IS 'Whether users see this version''s rows, or some shards of them.';
COMMENT ON COLUMN weir.versions.strategy IS 'How its first state was made: backfill, reuse, convert or fresh.';
COMMENT ON COLUMN weir.versions.definition IS 'Definition as written.';
COMMENT ON COLUMN weir.versions.query IS 'Definition as analysed.';
COMMENT ON COLUMN weir.versions.migration IS 'Query that made its first state of the one before, as written; NULL but for convert.';
COMMENT ON COLUMN weir.versions.state_table IS 'Table that holds its state; NULL once it is removed.';
COMMENT ON COLUMN weir.versions.state_format IS 'Layout of the hidden state columns.';
COMMENT ON COLUMN weir.versions.append_only IS 'Whether its source may only be inserted into.';
COMMENT ON COLUMN weir.versions.reader_id IS 'Reader that applies it.';
COMMENT ON COLUMN weir.versions.rows_total IS 'Rows that building has to write.';
COMMENT ON COLUMN weir.versions.rows_written IS 'Rows that building has written.';
COMMENT ON COLUMN weir.versions.build_lsn IS 'Position of the snapshot it was built from.';
COMMENT ON COLUMN weir.versions.processed_lsn IS 'Committed position of its reader.';
COMMENT ON COLUMN weir.versions.stop_cause IS 'error, pause, stale or lock when it stopped.';
COMMENT ON COLUMN weir.versions.sqlstate IS 'SQLSTATE of the error that stopped it.';
COMMENT ON COLUMN weir.versions.message IS 'Message of that error (owner and monitors only).';
COMMENT ON COLUMN weir.versions.detail IS 'Detail of that error (owner and monitors only).';
COMMENT ON COLUMN weir.versions.hint IS 'Command that mends it (owner and monitors only).';
COMMENT ON COLUMN weir.versions.error_lsn IS 'Position at which it stopped.';
COMMENT ON COLUMN weir.versions.created_at IS 'When it was created.';

CREATE VIEW weir.readers AS
SELECT r.reader_id, st.name AS stream, r.kind, r.status, r.slot_name, act.pid, r.epoch,
    coalesce(act.processed_lsn, r.processed_lsn) AS processed_lsn, act.scanned_lsn,
    greatest(weir_internal.wal_end() - coalesce(act.scanned_lsn, r.processed_lsn), 0) AS lag_bytes,
    weir_internal.wal_end() - sl.restart_lsn AS retained_wal_bytes, act.waiting_since,
    (SELECT array_agg(format('%s v%s', o.view_name, x.version) ORDER BY o.view_name, x.version)
     FROM weir_internal.version_run x JOIN weir_internal.operator o USING (operator_id)
     JOIN weir_internal.version v ON v.operator_id = x.operator_id AND v.version = x.version
     WHERE x.reader_id = r.reader_id AND NOT o.dropped AND NOT v.retired AND x.status NOT IN ('failed', 'lost')) AS versions
FROM weir_internal.reader r
JOIN weir_internal.stream st USING (stream_id)
LEFT JOIN pg_catalog.pg_replication_slots sl ON sl.slot_name = r.slot_name
LEFT JOIN LATERAL weir_internal.reader_activity(r.reader_id) act ON true;
COMMENT ON VIEW weir.readers IS 'Readers: the main one, catch-up readers, and the places of stopped versions.';
COMMENT ON COLUMN weir.readers.reader_id IS 'Number of the reader.';
COMMENT ON COLUMN weir.readers.stream IS 'Stream it reads.';
COMMENT ON COLUMN weir.readers.kind IS 'main, catch_up, or stopped (a place without a process).';
COMMENT ON COLUMN weir.readers.status IS 'new, building, running or ended.';
COMMENT ON COLUMN weir.readers.slot_name IS 'Replication slot.';
COMMENT ON COLUMN weir.readers.pid IS 'Process, when it runs.';
COMMENT ON COLUMN weir.readers.epoch IS 'Fence: the newest process holds the highest.';
COMMENT ON COLUMN weir.readers.processed_lsn IS 'Committed position.';
COMMENT ON COLUMN weir.readers.scanned_lsn IS 'Everything before it was read; no commit in between is unapplied.';
COMMENT ON COLUMN weir.readers.lag_bytes IS 'WAL not read yet, in bytes.';
COMMENT ON COLUMN weir.readers.retained_wal_bytes IS 'WAL that its slot keeps, in bytes.';
COMMENT ON COLUMN weir.readers.waiting_since IS 'Since when it waits for older transactions to end (making a slot).';
COMMENT ON COLUMN weir.readers.versions IS 'Versions it applies, or whose place it keeps.';

CREATE VIEW weir.streams AS
SELECT st.name AS stream, st.kind, r.reader_id, r.status, r.slot_name, r.processed_lsn, r.lag_bytes,
    (SELECT count(*) FROM weir_internal.operator o WHERE o.stream_id = st.stream_id AND NOT o.dropped) AS operators
FROM weir_internal.stream st
LEFT JOIN weir.readers r ON r.stream = st.name AND r.kind = 'main';
COMMENT ON VIEW weir.streams IS 'Streams of this database with their main readers.';
COMMENT ON COLUMN weir.streams.stream IS 'Name of the stream.';
COMMENT ON COLUMN weir.streams.kind IS 'local: the WAL of this server.';
COMMENT ON COLUMN weir.streams.reader_id IS 'Its main reader; NULL while it has no operators.';
COMMENT ON COLUMN weir.streams.status IS 'Status of the main reader.';
COMMENT ON COLUMN weir.streams.slot_name IS 'Replication slot of the main reader.';
COMMENT ON COLUMN weir.streams.processed_lsn IS 'Position of the main reader.';
COMMENT ON COLUMN weir.streams.lag_bytes IS 'WAL that it has not read yet, in bytes.';
COMMENT ON COLUMN weir.streams.operators IS 'Number of operators on the stream.';

CREATE VIEW weir.progress AS
SELECT o.view_oid::regclass AS operator, v.version,
    CASE WHEN r.status IS NULL OR act.pid IS NULL THEN 'queued'
         WHEN r.status = 'catching_up' THEN 'catching up'
         WHEN act.waiting_since IS NOT NULL THEN 'waiting for older transactions'
         WHEN r.rows_total IS NULL THEN 'reading'
         WHEN act.gives_way THEN 'giving way'
         ELSE 'writing' END AS step,
    r.rows_total, r.rows_written,
    CASE WHEN r.rows_total > 0 THEN round(100.0 * r.rows_written / r.rows_total, 1) END AS percent,
    act.waiting_since,
    CASE WHEN act.waiting_since IS NOT NULL THEN ARRAY(SELECT a.pid FROM pg_catalog.pg_stat_activity a
        WHERE a.backend_xid IS NOT NULL AND a.pid <> act.pid AND a.xact_start < act.waiting_since
        ORDER BY a.xact_start) END AS waiting_for_pids,
    rd.lag_bytes
FROM weir_internal.version v
JOIN weir_internal.operator o USING (operator_id)
LEFT JOIN weir_internal.version_run r ON r.operator_id = v.operator_id AND r.version = v.version
LEFT JOIN weir.readers rd ON rd.reader_id = r.reader_id
LEFT JOIN LATERAL weir_internal.reader_activity(rd.reader_id) act ON true
WHERE NOT o.dropped AND NOT v.retired AND coalesce(r.status, 'building') IN ('building', 'catching_up');
COMMENT ON VIEW weir.progress IS 'Versions that are being built or catching up (throwaways of weir.verify have numbers below zero).';
COMMENT ON COLUMN weir.progress.operator IS 'The operator.';
COMMENT ON COLUMN weir.progress.version IS 'Version that is being built.';
COMMENT ON COLUMN weir.progress.step IS 'queued, waiting for older transactions, reading, writing, giving way or catching up.';
COMMENT ON COLUMN weir.progress.rows_total IS 'Rows to write; known once the source has been read.';
COMMENT ON COLUMN weir.progress.rows_written IS 'Rows written.';
COMMENT ON COLUMN weir.progress.percent IS 'Share of the rows written, in percent.';
COMMENT ON COLUMN weir.progress.waiting_since IS 'Since when it waits for transactions that were open before.';
COMMENT ON COLUMN weir.progress.waiting_for_pids IS 'Processes of those transactions, oldest first.';
COMMENT ON COLUMN weir.progress.lag_bytes IS 'WAL that it has not read yet, in bytes.';

CREATE VIEW weir.upgrades AS
SELECT u.upgrade_id, o.view_oid::regclass AS operator, u.from_version, u.to_version, u.strategy, u.phase,
    u.phase_since, r.rows_total, r.rows_written,
    CASE WHEN r.rows_total > 0 THEN round(100.0 * r.rows_written / r.rows_total, 1) END AS built_percent,
    rd.lag_bytes, u.compare_columns, u.drift_missing, u.drift_extra, u.drift_lsn, u.gates,
    CASE WHEN weir_internal.may_see_errors(o.view_oid) THEN g.readings END AS gate_readings, g.read_at AS gates_read_at,
    u.steps, u.step, u.step_since, coalesce(u.steps[u.step], 0) AS percent,
    CASE WHEN s.version = u.to_version THEN 64 WHEN s.candidate = u.to_version THEN s.split ELSE 0 END AS shards, u.shift_lsn,
    u.auto_advance, u.paused, u.safe_window, u.observing_until,
    u.rollback_possible AND (s.version <> u.to_version AND s.split = 0 OR coalesce(old.status = 'live', false)) AS rollback_possible,
    CASE WHEN weir_internal.may_see_errors(o.view_oid) THEN
        CASE WHEN u.rollback_obstacle IS NULL AND u.ended_at IS NULL AND (s.version = u.to_version OR s.split > 0) AND old.status <> 'live'
             THEN format('version %s is %s', old.version, old.status) || coalesce(' since ' || old.error_lsn, '') || coalesce(': ' || old.message, '')
             ELSE u.rollback_obstacle END END AS rollback_obstacle,
    CASE WHEN weir_internal.may_see_errors(o.view_oid) THEN u.reason END AS reason, r.sqlstate, r.error_lsn,
    u.started_at, u.started_by, u.ended_at
FROM weir_internal.upgrade u
JOIN weir_internal.operator o USING (operator_id)
JOIN weir_internal.serving s USING (operator_id)
LEFT JOIN weir_internal.version_run r ON r.operator_id = u.operator_id AND r.version = u.to_version
LEFT JOIN weir_internal.version_run old ON old.operator_id = u.operator_id AND old.version = u.from_version
LEFT JOIN weir.readers rd ON rd.reader_id = r.reader_id AND u.ended_at IS NULL
LEFT JOIN weir_internal.gate g ON g.upgrade_id = u.upgrade_id
WHERE NOT o.dropped;
COMMENT ON VIEW weir.upgrades IS 'Upgrades, under way and ended.';
COMMENT ON COLUMN weir.upgrades.upgrade_id IS 'Number of the upgrade.';
COMMENT ON COLUMN weir.upgrades.operator IS 'The operator.';
COMMENT ON COLUMN weir.upgrades.from_version IS 'Version that served before.';
COMMENT ON COLUMN weir.upgrades.to_version IS 'Version that is to serve.';
COMMENT ON COLUMN weir.upgrades.strategy IS 'How the new state is made: reuse, convert, backfill or fresh.';
COMMENT ON COLUMN weir.upgrades.phase IS 'preparing, building, catching_up, validating, shifting, observing, finalized, rolling_back or rolled_back.';
COMMENT ON COLUMN weir.upgrades.phase_since IS 'When the phase began.';
COMMENT ON COLUMN weir.upgrades.rows_total IS 'Rows that building has to write.';
COMMENT ON COLUMN weir.upgrades.rows_written IS 'Rows that building has written.';
COMMENT ON COLUMN weir.upgrades.built_percent IS 'Share of the rows written, in percent.';
COMMENT ON COLUMN weir.upgrades.lag_bytes IS 'WAL that the new version''s reader has not read yet, in bytes.';
COMMENT ON COLUMN weir.upgrades.compare_columns IS 'Output columns on which the versions are compared.';
COMMENT ON COLUMN weir.upgrades.drift_missing IS 'Rows of the old version that the new one lacked.';
COMMENT ON COLUMN weir.upgrades.drift_extra IS 'Rows of the new version that the old one lacked.';
COMMENT ON COLUMN weir.upgrades.drift_lsn IS 'Position at which they were compared.';
COMMENT ON COLUMN weir.upgrades.gates IS 'Limits of its gates, with the defaults that held when it was started.';
COMMENT ON COLUMN weir.upgrades.gate_readings IS 'What the gates were read as last: outcome, limit and measured value of each (owner and monitors only).';
COMMENT ON COLUMN weir.upgrades.gates_read_at IS 'When.';
COMMENT ON COLUMN weir.upgrades.steps IS 'Percent of the shards that the new version serves after each step.';
COMMENT ON COLUMN weir.upgrades.step IS 'Steps taken.';
COMMENT ON COLUMN weir.upgrades.step_since IS 'When the last of them was taken.';
COMMENT ON COLUMN weir.upgrades.percent IS 'Percent of the last of them.';
COMMENT ON COLUMN weir.upgrades.shards IS 'Shards, of 64, that the new version serves now.';
COMMENT ON COLUMN weir.upgrades.shift_lsn IS 'Position at which the new version began to serve all of them.';
COMMENT ON COLUMN weir.upgrades.auto_advance IS 'Whether steps are taken without weir.advance_upgrade.';
COMMENT ON COLUMN weir.upgrades.paused IS 'Whether it was told to stay in its phase: weir.resume_upgrade.';
COMMENT ON COLUMN weir.upgrades.safe_window IS 'How long the old version stays in lockstep after the last step.';
COMMENT ON COLUMN weir.upgrades.observing_until IS 'End of the safe window.';
COMMENT ON COLUMN weir.upgrades.rollback_possible IS 'Whether weir.rollback_upgrade restores the old version in one transaction, now.';
COMMENT ON COLUMN weir.upgrades.rollback_obstacle IS 'Why it does not (owner and monitors only).';
COMMENT ON COLUMN weir.upgrades.reason IS 'Why it ended or waits (owner and monitors only).';
COMMENT ON COLUMN weir.upgrades.sqlstate IS 'SQLSTATE of the error that stopped the new version.';
COMMENT ON COLUMN weir.upgrades.error_lsn IS 'Position at which it stopped.';
COMMENT ON COLUMN weir.upgrades.started_at IS 'When it was started.';
COMMENT ON COLUMN weir.upgrades.started_by IS 'Role that started it.';
COMMENT ON COLUMN weir.upgrades.ended_at IS 'When it was finalized or rolled back.';

CREATE VIEW weir.compatibility AS
SELECT o.view_oid::regclass AS operator, c.upgrade_id, u.from_version, u.to_version, c.aspect, c.verdict, c.reason,
    c.detail, c.from_digest, c.to_digest, c.recorded_at
FROM weir_internal.compatibility c
JOIN weir_internal.upgrade u USING (upgrade_id)
JOIN weir_internal.operator o USING (operator_id)
WHERE NOT o.dropped
ORDER BY c.upgrade_id, c.ordinal;
COMMENT ON VIEW weir.compatibility IS 'Verdicts on which upgrades were started, aspect by aspect.';
COMMENT ON COLUMN weir.compatibility.operator IS 'The operator.';
COMMENT ON COLUMN weir.compatibility.upgrade_id IS 'Number of the upgrade.';
COMMENT ON COLUMN weir.compatibility.from_version IS 'Version that served before.';
COMMENT ON COLUMN weir.compatibility.to_version IS 'Version that is to serve.';
COMMENT ON COLUMN weir.compatibility.aspect IS 'What was compared: inputs, filter, key, an output, hidden state, functions called, retention, or the whole.';
COMMENT ON COLUMN weir.compatibility.verdict IS 'identical, reuse, convert, backfill or refuse.';
COMMENT ON COLUMN weir.compatibility.reason IS 'Why.';
COMMENT ON COLUMN weir.compatibility.detail IS 'What it was before and is to be, and measured values.';
COMMENT ON COLUMN weir.compatibility.from_digest IS 'SHA-256 of the old definition as analysed.';
COMMENT ON COLUMN weir.compatibility.to_digest IS 'SHA-256 of the new definition as analysed.';
COMMENT ON COLUMN weir.compatibility.recorded_at IS 'When the upgrade was started.';

CREATE VIEW weir.drift AS
SELECT o.view_oid::regclass AS operator, d.upgrade_id, u.from_version, u.to_version, d.number,
    CASE WHEN weir_internal.may_see_errors(o.view_oid) THEN d.old_row END AS old_row,
    CASE WHEN weir_internal.may_see_errors(o.view_oid) THEN d.new_row END AS new_row, d.lsn, d.recorded_at
FROM weir_internal.drift d
JOIN weir_internal.upgrade u USING (upgrade_id)
JOIN weir_internal.operator o USING (operator_id)
WHERE NOT o.dropped
ORDER BY d.upgrade_id, d.number;
COMMENT ON VIEW weir.drift IS 'Samples of rows in which the versions of an upgrade differed.';
COMMENT ON COLUMN weir.drift.operator IS 'The operator.';
COMMENT ON COLUMN weir.drift.upgrade_id IS 'Number of the upgrade.';
COMMENT ON COLUMN weir.drift.from_version IS 'The old version.';
COMMENT ON COLUMN weir.drift.to_version IS 'The new version.';
COMMENT ON COLUMN weir.drift.number IS 'Number of the sample, from 1.';
COMMENT ON COLUMN weir.drift.old_row IS 'Compared columns of the old version''s row, values as text; NULL when it has none (owner and monitors only).';
COMMENT ON COLUMN weir.drift.new_row IS 'The same of the new version''s row (owner and monitors only).';
COMMENT ON COLUMN weir.drift.lsn IS 'Position at which they were compared.';
COMMENT ON COLUMN weir.drift.recorded_at IS 'When it was recorded.';

CREATE VIEW weir.ledger AS
SELECT l.ledger_id, l.recorded_at, l.operator, l.operator_id, l.upgrade_id, l.event, l.from_phase, l.to_phase,
    l.from_version, l.to_version, l.lsn, l.actor,
    CASE WHEN weir_internal.may_see_errors(o.view_oid) THEN l.reason END AS reason,
    -- Of gates it has the owner's queries and their errors.
    CASE WHEN l.event <> 'gate' OR weir_internal.may_see_errors(o.view_oid) THEN l.detail END AS detail, l.sequence,
    -- The other columns being known, a hash would confirm a guess at the reason.
    CASE WHEN weir_internal.may_see_errors(o.view_oid) THEN l.previous_hash END AS previous_hash,
    CASE WHEN weir_internal.may_see_errors(o.view_oid) THEN l.hash END AS hash
FROM weir_internal.ledger l
LEFT JOIN weir_internal.operator o USING (operator_id);
COMMENT ON VIEW weir.ledger IS 'Every decision about operators; only ever appended to, in one hash chain for each operator.';
COMMENT ON COLUMN weir.ledger.ledger_id IS 'Number of the entry.';
COMMENT ON COLUMN weir.ledger.recorded_at IS 'When it was recorded.';
COMMENT ON COLUMN weir.ledger.operator IS 'Name of the operator at that time.';
COMMENT ON COLUMN weir.ledger.operator_id IS 'Number of the operator.';
COMMENT ON COLUMN weir.ledger.upgrade_id IS 'Upgrade it belongs to, if any.';
COMMENT ON COLUMN weir.ledger.event IS 'create, drop, pause, resume, objective, stop, lost, phase, step, gate, pause_upgrade, resume_upgrade or rollback_impossible.';
COMMENT ON COLUMN weir.ledger.from_phase IS 'Phase before.';
COMMENT ON COLUMN weir.ledger.to_phase IS 'Phase after.';
COMMENT ON COLUMN weir.ledger.from_version IS 'Version before.';
COMMENT ON COLUMN weir.ledger.to_version IS 'Version after.';
COMMENT ON COLUMN weir.ledger.lsn IS 'Position it refers to.';
COMMENT ON COLUMN weir.ledger.actor IS 'Role that decided; for pg_weir''s own decisions the workers'' role.';
COMMENT ON COLUMN weir.ledger.reason IS 'Why (owner and monitors only).';
COMMENT ON COLUMN weir.ledger.detail IS 'Measured values that the decision was based on (those of gates: owner and monitors only).';
COMMENT ON COLUMN weir.ledger.sequence IS 'Place in the operator''s chain, from 1 without gaps; NULL for a moment after a worker''s entry.';
COMMENT ON COLUMN weir.ledger.previous_hash IS 'Hash of the operator''s entry before (owner and monitors only).';
COMMENT ON COLUMN weir.ledger.hash IS 'SHA-256 of this entry with previous_hash (owner and monitors only).';

CREATE VIEW weir.stat_operators AS
SELECT o.view_oid::regclass AS operator, x.version, s.version = x.version OR s.candidate = x.version AND s.split > 0 AS serving, x.rows, x.folds,
    x.rows_inserted, x.rows_updated, x.rows_deleted, x.batches, x.errors,
    x.apply_us / 1000.0::double precision AS apply_ms, d.drift_rows, d.drift_lsn, x.stats_reset
FROM weir_internal.version_stat x
JOIN weir_internal.operator o USING (operator_id)
JOIN weir_internal.serving s USING (operator_id)
LEFT JOIN LATERAL (SELECT u.drift_missing + u.drift_extra AS drift_rows, u.drift_lsn FROM weir_internal.upgrade u
    WHERE u.operator_id = x.operator_id AND u.to_version = x.version AND u.drift_lsn IS NOT NULL) d ON true
WHERE NOT o.dropped AND x.version > 0 AND weir_internal.may_see_errors(o.view_oid);
COMMENT ON VIEW weir.stat_operators IS 'Work done per version since stats_reset (owner and monitors only); written at most once a second.';
COMMENT ON COLUMN weir.stat_operators.operator IS 'The operator.';
COMMENT ON COLUMN weir.stat_operators.version IS 'The version.';
COMMENT ON COLUMN weir.stat_operators.serving IS 'Whether it serves, or some shards of it.';
COMMENT ON COLUMN weir.stat_operators.rows IS 'Source rows offered to it.';
COMMENT ON COLUMN weir.stat_operators.folds IS 'Keys folded, counted once per batch.';
COMMENT ON COLUMN weir.stat_operators.rows_inserted IS 'State rows inserted.';
COMMENT ON COLUMN weir.stat_operators.rows_updated IS 'State rows updated.';
COMMENT ON COLUMN weir.stat_operators.rows_deleted IS 'State rows deleted.';
COMMENT ON COLUMN weir.stat_operators.batches IS 'Batches applied.';
COMMENT ON COLUMN weir.stat_operators.errors IS 'Errors that stopped it.';
COMMENT ON COLUMN weir.stat_operators.apply_ms IS 'Time spent applying, in milliseconds.';
COMMENT ON COLUMN weir.stat_operators.drift_rows IS 'Rows in which it differed from the version before it, at the last comparison; NULL when they were not compared.';
COMMENT ON COLUMN weir.stat_operators.drift_lsn IS 'Position of that comparison.';
COMMENT ON COLUMN weir.stat_operators.stats_reset IS 'Since when it is counted.';

CREATE VIEW weir.stat_readers AS
SELECT v.reader_id, v.stream, v.kind, v.lag_bytes,
    CASE WHEN v.lag_bytes > 0 THEN coalesce(CASE v.kind WHEN 'main' THEN weir_internal.stream_lag() END,
        clock_timestamp() - r.last_commit_time) ELSE interval '0' END AS lag_time,
    v.retained_wal_bytes, r.batches, r.transactions, r.rows, act.longest_hold_ms, r.last_commit_time, r.stats_reset
FROM weir.readers v
JOIN weir_internal.reader r USING (reader_id)
LEFT JOIN LATERAL weir_internal.reader_activity(r.reader_id) act ON true;
COMMENT ON VIEW weir.stat_readers IS 'Work and lag of each reader since stats_reset.';
COMMENT ON COLUMN weir.stat_readers.reader_id IS 'Number of the reader.';
COMMENT ON COLUMN weir.stat_readers.stream IS 'Stream it reads.';
COMMENT ON COLUMN weir.stat_readers.kind IS 'main, catch_up or stopped.';
COMMENT ON COLUMN weir.stat_readers.lag_bytes IS 'WAL not read yet, in bytes.';
COMMENT ON COLUMN weir.stat_readers.lag_time IS 'How old the oldest commit that is not applied can be.';
COMMENT ON COLUMN weir.stat_readers.retained_wal_bytes IS 'WAL that its slot keeps, in bytes.';
COMMENT ON COLUMN weir.stat_readers.batches IS 'Batches committed, and moves of the position over WAL without commits.';
COMMENT ON COLUMN weir.stat_readers.transactions IS 'Source transactions applied.';
COMMENT ON COLUMN weir.stat_readers.rows IS 'Source rows applied.';
COMMENT ON COLUMN weir.stat_readers.longest_hold_ms IS 'Longest handover hold of the running process, in milliseconds.';
COMMENT ON COLUMN weir.stat_readers.last_commit_time IS 'Commit time of the last applied transaction.';
COMMENT ON COLUMN weir.stat_readers.stats_reset IS 'Since when it is counted.';

CREATE VIEW weir.batches AS
SELECT b.reader_id, b.kind, b.from_lsn, b.to_lsn, b.transactions, b.rows,
    CASE WHEN b.operator_ids IS NOT NULL THEN ARRAY(SELECT o.view_oid::regclass
        FROM unnest(b.operator_ids) WITH ORDINALITY u (operator_id, place)
        LEFT JOIN weir_internal.operator o USING (operator_id) ORDER BY u.place) END AS operators,
    b.versions, b.rows_changed, b.read_ms, b.apply_ms, b.commit_ms, b.committed_at
FROM weir_internal.recent_batches() b;
COMMENT ON VIEW weir.batches IS 'The last batches of this database (those with a version of one''s own; monitors: all). In memory: bounded, and lost when the server restarts.';
COMMENT ON COLUMN weir.batches.reader_id IS 'Reader that applied it.';
COMMENT ON COLUMN weir.batches.kind IS 'Kind of that reader: main or catch_up.';
COMMENT ON COLUMN weir.batches.from_lsn IS 'Position before the batch.';
COMMENT ON COLUMN weir.batches.to_lsn IS 'Position after it.';
COMMENT ON COLUMN weir.batches.transactions IS 'Source transactions in it.';
COMMENT ON COLUMN weir.batches.rows IS 'Source rows in it.';
COMMENT ON COLUMN weir.batches.operators IS 'Operators to which it brought rows; NULL when that is no longer known.';
COMMENT ON COLUMN weir.batches.versions IS 'Their versions, in the same order.';
COMMENT ON COLUMN weir.batches.rows_changed IS 'State rows inserted, updated or deleted, in the same order.';
COMMENT ON COLUMN weir.batches.read_ms IS 'Time spent reading it from the WAL, in milliseconds.';
COMMENT ON COLUMN weir.batches.apply_ms IS 'Time spent applying it to all versions, in milliseconds.';
COMMENT ON COLUMN weir.batches.commit_ms IS 'Time spent committing it, in milliseconds.';
COMMENT ON COLUMN weir.batches.committed_at IS 'When it was committed.';

-- What needs a person now. The coordinator compares it with the alerts that are open. An objective or a limit that was
-- passed counts until the value is a fifth below it, so that one that swings about it is one alert.
CREATE VIEW weir_internal.condition_now AS
WITH open AS (SELECT condition, operator_id, reader_id FROM weir_internal.alert WHERE cleared_at IS NULL),
reading AS (SELECT sr.*, r.status, r.slot_name FROM weir.stat_readers sr JOIN weir_internal.reader r USING (reader_id)),
standing AS (
    SELECT o.operator_id, o.view_oid::regclass AS operator, s.version, r.status, r.stop_cause, r.sqlstate, r.message,
        r.hint, r.error_lsn, r.status_since, coalesce(o.resumed_at > r.status_since, false) AS is_resuming,
        NOT EXISTS (SELECT FROM pg_catalog.pg_class d WHERE d.oid = v.definition_view) AS source_dropped,
        CASE WHEN r.status IN ('live', 'catching_up') THEN sr.lag_time
             WHEN r.status IN ('stopped', 'failed', 'lost') THEN clock_timestamp() - r.status_since END AS lag_time,
        sr.lag_bytes, sr.retained_wal_bytes
    FROM weir_internal.operator o
    JOIN weir_internal.serving s USING (operator_id)
    JOIN weir_internal.version v ON v.operator_id = o.operator_id AND v.version = s.version
    LEFT JOIN weir_internal.version_run r ON r.operator_id = o.operator_id AND r.version = s.version
    LEFT JOIN reading sr ON sr.reader_id = r.reader_id
    WHERE NOT o.dropped)
SELECT x.condition, st.operator_id, 0::bigint AS reader_id, st.version,
    format('version %s: %s', st.version, coalesce(st.message, 'the source was dropped')) AS message,
    coalesce(st.hint, format(CASE x.condition WHEN 'operator_stopped' THEN 'SELECT weir.resume_operator(%L);'
        ELSE 'SELECT * FROM weir.rebuild_operator(%L);' END, st.operator)) AS hint,
    jsonb_build_object('sqlstate', st.sqlstate, 'lsn', st.error_lsn, 'since', st.status_since) AS detail
FROM standing st, LATERAL (SELECT CASE
    WHEN st.source_dropped OR st.status IN ('stopped', 'failed') AND st.stop_cause = 'stale' THEN 'operator_stale'
    WHEN st.status = 'stopped' AND st.stop_cause = 'error' THEN 'operator_stopped'
    WHEN st.status IN ('failed', 'lost') THEN 'operator_' || st.status END) x (condition)
WHERE x.condition IS NOT NULL AND (st.status <> 'stopped' OR NOT st.is_resuming)
UNION ALL
SELECT x.condition, st.operator_id, 0, st.version,
    CASE x.condition WHEN 'max_lag' THEN format('changes are applied %s s late; the objective is %s s', round(x.measured, 1), x.most)
         ELSE format('%s is %s; the objective is %s', x.what, pg_size_pretty(x.measured), pg_size_pretty(x.most)) END,
    'SELECT * FROM weir.stat_readers; SELECT * FROM weir.batches ORDER BY committed_at DESC LIMIT 20;',
    jsonb_build_object('measured', x.measured, 'objective', x.most)
FROM weir_internal.objective j
JOIN standing st USING (operator_id), LATERAL (VALUES
    ('max_lag', NULL, extract(epoch FROM st.lag_time), trim_scale(extract(epoch FROM j.max_lag))),
    ('max_lag_bytes', 'WAL not read yet', st.lag_bytes, j.max_lag_bytes),
    ('max_retained_wal', 'WAL kept', st.retained_wal_bytes, j.max_retained_wal)) x (condition, what, measured, most)
WHERE CASE WHEN EXISTS (SELECT FROM open a WHERE a.operator_id = st.operator_id AND a.condition = x.condition)
    -- Not known for a moment, as when a reader starts, is no end.
    THEN x.most IS NOT NULL AND coalesce(x.measured > 0.8 * x.most, true) ELSE x.measured > x.most END
UNION ALL
SELECT 'reader_down', 0, v.reader_id, NULL, 'the main reader of the stream does not run',
    'SELECT * FROM weir.doctor(); and look for "pg_weir reader" in the server log',
    jsonb_build_object('lag_bytes', v.lag_bytes, 'last_commit_time', v.last_commit_time)
FROM reading v
WHERE v.kind = 'main' AND v.status <> 'ended' AND (SELECT act.pid IS NULL FROM weir_internal.reader_activity(v.reader_id) act)
    AND (weir_internal.stream_lag() > '5 s' OR EXISTS (SELECT FROM open a WHERE a.condition = 'reader_down'))
UNION ALL
SELECT 'slot_near_limit', coalesce(x.operator_id, 0), v.reader_id, x.version,
    format('slot "%s" keeps %s of WAL; at %s it is given up', v.slot_name, pg_size_pretty(v.retained_wal_bytes), pg_size_pretty(m.most)),
    CASE WHEN x.operator IS NULL THEN 'SELECT * FROM weir.stat_readers;' ELSE format('SELECT weir.resume_operator(%L);', x.operator) END,
    jsonb_build_object('measured', v.retained_wal_bytes, 'limit', m.most)
FROM reading v
LEFT JOIN LATERAL (SELECT o.operator_id, o.view_oid::regclass AS operator, r.version FROM weir_internal.version_run r
    JOIN weir_internal.operator o USING (operator_id) WHERE r.reader_id = v.reader_id AND v.kind = 'stopped' AND NOT o.dropped LIMIT 1) x ON true,
LATERAL (SELECT least(nullif(pg_size_bytes(current_setting('max_slot_wal_keep_size')), -1),
    CASE v.kind WHEN 'stopped' THEN nullif(pg_size_bytes(current_setting('weir.max_retained_wal', true)), -1) END)::numeric) m (most)
WHERE v.status = 'running' AND v.retained_wal_bytes > m.most * CASE WHEN EXISTS (SELECT FROM open a
    WHERE a.reader_id = v.reader_id AND a.condition = 'slot_near_limit') THEN 0.64 ELSE 0.8 END
UNION ALL
SELECT 'rollback_impossible', u.operator_id, 0, old.version,
    format('version %s, to which upgrade %s could be rolled back, is %s: %s', old.version, u.upgrade_id, old.status, old.message),
    coalesce(old.hint, format(CASE old.status WHEN 'stopped' THEN 'SELECT weir.resume_operator(%L);' ELSE 'SELECT weir.finalize_upgrade(%L);' END, st.operator)),
    jsonb_build_object('upgrade_id', u.upgrade_id, 'status', old.status, 'lsn', old.error_lsn)
FROM weir_internal.upgrade u
JOIN standing st USING (operator_id)
JOIN weir_internal.version_run old ON old.operator_id = u.operator_id AND old.version = u.from_version
JOIN weir_internal.operator o ON o.operator_id = u.operator_id
-- A rebuild has no safe window: it is finalized in the next turn.
WHERE u.phase IN ('shifting', 'observing') AND u.safe_window > interval '0' AND st.version = u.to_version AND (old.status IN ('failed', 'lost')
    OR old.status = 'stopped' AND old.stop_cause <> 'lock' AND NOT coalesce(o.resumed_at > old.status_since, false))
UNION ALL
SELECT 'gates_overdue', u.operator_id, 0, u.to_version,
    format('upgrade %s is paused: its gates have waited past their deadline', u.upgrade_id),
    format('SELECT weir.resume_upgrade(%1$L); or SELECT * FROM weir.rollback_upgrade(%1$L);', st.operator),
    jsonb_build_object('upgrade_id', u.upgrade_id, 'gates_read_at', g.read_at)
FROM weir_internal.upgrade u
JOIN standing st USING (operator_id)
JOIN weir_internal.gate g USING (upgrade_id)
WHERE u.paused AND g.waiting_since IS NULL AND u.phase NOT IN ('finalized', 'rolled_back')
UNION ALL
SELECT 'safe_window_ending', u.operator_id, 0, u.from_version,
    format('upgrade %s is finalized at %s; then there is no way back to version %s', u.upgrade_id, u.observing_until, u.from_version),
    format('SELECT weir.finalize_upgrade(%1$L); or SELECT * FROM weir.rollback_upgrade(%1$L);', st.operator),
    jsonb_build_object('upgrade_id', u.upgrade_id, 'observing_until', u.observing_until)
FROM weir_internal.upgrade u
JOIN standing st USING (operator_id)
WHERE u.phase = 'observing' AND u.safe_window > interval '0' AND clock_timestamp() > u.observing_until - least(u.safe_window / 10, interval '1 hour');
COMMENT ON VIEW weir_internal.condition_now IS 'What needs a person now, whether or not an alert is open for it.';

CREATE VIEW weir.alerts AS
SELECT a.alert_id, a.condition, o.view_oid::regclass AS operator, a.version, nullif(a.reader_id, 0) AS reader_id,
    CASE WHEN weir_internal.may_see_errors(o.view_oid) THEN a.message END AS message,
    CASE WHEN weir_internal.may_see_errors(o.view_oid) THEN a.hint END AS hint, a.detail, a.raised_at, a.cleared_at
FROM weir_internal.alert a
LEFT JOIN weir_internal.operator o USING (operator_id)
WHERE NOT coalesce(o.dropped, false);
COMMENT ON VIEW weir.alerts IS 'Conditions that need a person, and the last that have ended; each change is also a NOTIFY on channel weir_alert.';
COMMENT ON COLUMN weir.alerts.alert_id IS 'Number of the alert.';
COMMENT ON COLUMN weir.alerts.condition IS 'What is the case: operator_stopped, operator_stale, operator_failed, operator_lost, max_lag, max_lag_bytes, max_retained_wal, reader_down, slot_near_limit, rollback_impossible or safe_window_ending.';
COMMENT ON COLUMN weir.alerts.operator IS 'The operator; NULL when it is about a main reader.';
COMMENT ON COLUMN weir.alerts.version IS 'Version it is about.';
COMMENT ON COLUMN weir.alerts.reader_id IS 'Reader it is about, if any.';
COMMENT ON COLUMN weir.alerts.message IS 'What was found (owner and monitors only).';
COMMENT ON COLUMN weir.alerts.hint IS 'What to run (owner and monitors only).';
COMMENT ON COLUMN weir.alerts.detail IS 'Measured values when it was raised.';
COMMENT ON COLUMN weir.alerts.raised_at IS 'When it was noticed.';
COMMENT ON COLUMN weir.alerts.cleared_at IS 'When its end was noticed; NULL while it lasts.';

/* ----------------------------------------------------------------- rights */

REVOKE ALL ON ALL TABLES IN SCHEMA weir_internal FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA weir_internal FROM PUBLIC;
GRANT USAGE ON SCHEMA weir, weir_state, weir_internal TO PUBLIC;
-- The operators' views read it with their owners' rights; it holds numbers only.
GRANT SELECT ON weir_internal.serving TO PUBLIC;
GRANT SELECT ON ALL TABLES IN SCHEMA weir TO PUBLIC;
