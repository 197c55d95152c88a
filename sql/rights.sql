-- Claim: an operator's owner needs no more than the right to read its source; nobody
-- else can change it, see its error texts, or write where only pg_weir writes; and what a
-- definition calls runs as the owner, restricted, in a worker that is a superuser's (I11).
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_weir;
CREATE SCHEMA rights;
SET search_path = rights;
\pset format unaligned
\pset tuples_only on

CREATE FUNCTION attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'done';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ': ' || SQLERRM;
END $$;
CREATE FUNCTION attempt_code(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'done';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;
CREATE PROCEDURE await(condition text) LANGUAGE plpgsql AS $$
DECLARE
    deadline timestamptz := clock_timestamp() + interval '30 s';
    reached boolean;
BEGIN
    LOOP
        EXECUTE condition INTO reached;
        EXIT WHEN reached;
        IF clock_timestamp() > deadline THEN RAISE 'not reached: %', condition; END IF;
        COMMIT;
    END LOOP;
END $$;

CREATE ROLE regress_weir_owner;
CREATE ROLE regress_weir_other;
CREATE ROLE regress_weir_monitor IN ROLE weir_monitor;
CREATE ROLE regress_weir_admin IN ROLE weir_admin;
CREATE ROLE regress_weir_group;
CREATE ROLE regress_weir_member IN ROLE regress_weir_group;
GRANT USAGE ON SCHEMA rights TO PUBLIC;
CREATE SCHEMA shop AUTHORIZATION regress_weir_owner;
GRANT USAGE ON SCHEMA shop TO PUBLIC;
CREATE TABLE sales (id int PRIMARY KEY, item text, amount int);
ALTER TABLE sales REPLICA IDENTITY FULL;
INSERT INTO sales SELECT i, 'i' || i % 5, i FROM generate_series(1, 50) i;
CREATE TABLE secret (id int PRIMARY KEY, v int);
ALTER TABLE secret REPLICA IDENTITY FULL;
SET search_path = rights, shop;

-- create: the right to read the source, and a schema of one's own --------------------
SET ROLE regress_weir_owner;
SELECT attempt($$SELECT weir.create_operator('shop.by_item', 'SELECT item, sum(amount) AS total FROM rights.sales GROUP BY item')$$);
RESET ROLE;
GRANT SELECT (item) ON sales TO regress_weir_owner;
SET ROLE regress_weir_owner;
SELECT attempt($$SELECT weir.create_operator('shop.by_item', 'SELECT item, sum(amount) AS total FROM rights.sales GROUP BY item')$$);
RESET ROLE;
GRANT SELECT ON sales TO regress_weir_owner;
SET ROLE regress_weir_owner;
SELECT attempt($$SELECT weir.create_operator('rights.by_item', 'SELECT item, sum(amount) AS total FROM rights.sales GROUP BY item')$$);
SELECT operator, version FROM weir.create_operator('shop.by_item', 'SELECT item, sum(amount) AS total FROM rights.sales GROUP BY item');
SELECT weir.wait_for('by_item') IS NOT NULL;
SELECT count(*), sum(total) FROM by_item;
SELECT status, owner FROM weir.operators WHERE operator = 'by_item'::regclass;
RESET ROLE;
SELECT relname, relowner = (SELECT extowner FROM pg_extension WHERE extname = 'pg_weir') AS not_his, relacl::text LIKE '%regress_weir_owner=r/%' AS readable FROM pg_class
WHERE relnamespace = 'weir_state'::regnamespace AND relname LIKE 'by\_item%' AND relkind IN ('r', 'v') ORDER BY relname COLLATE "C";

-- the owner reads, and writes nothing --------------------------------------------------
SET ROLE regress_weir_owner;
SELECT attempt('SELECT * FROM weir_state.by_item_v1');
SELECT attempt('UPDATE weir_state.by_item_v1 SET total = 0');
SELECT attempt('DELETE FROM weir_state.by_item_v1');
SELECT attempt('TRUNCATE weir_state.by_item_v1');
SELECT attempt('INSERT INTO by_item VALUES (''x'', 1)');
SELECT attempt('UPDATE by_item SET total = 0');
SELECT attempt('DELETE FROM by_item');
SELECT attempt('CREATE INDEX ON weir_state.by_item_v1 (total)');
SELECT attempt('ALTER TABLE weir_state.by_item_v1 ADD COLUMN x int');
SELECT attempt('CREATE TRIGGER t BEFORE INSERT ON weir_state.by_item_v1 EXECUTE FUNCTION suppress_redundant_updates_trigger()');
SELECT attempt('DROP VIEW weir_state.by_item_v1_definition');
SELECT attempt('SELECT * FROM weir_state.by_item_v1_definition');
SELECT attempt('CREATE TABLE weir_state.mine ()');
SELECT attempt('CREATE TABLE weir.mine ()');
SELECT attempt('CREATE TABLE weir_internal.mine ()');

-- the catalogs: through the views only ---------------------------------------------------
SET ROLE regress_weir_other;
SELECT c.relname, attempt(format('SELECT * FROM %s', c.oid::regclass)) AS read, attempt(format('DELETE FROM %s', c.oid::regclass)) AS write
FROM pg_class c WHERE relnamespace = 'weir_internal'::regnamespace AND relkind = 'r' ORDER BY relname COLLATE "C";
SELECT c.relname, attempt_code(format('SELECT * FROM %s', c.oid::regclass)) AS read, attempt_code(format('DELETE FROM %s', c.oid::regclass)) AS write
FROM pg_class c WHERE relnamespace = 'weir'::regnamespace AND relkind = 'v' ORDER BY relname COLLATE "C";
SELECT c.relname, attempt_code(format('SELECT nextval(%L)', c.oid::regclass)) FROM pg_class c WHERE relnamespace = 'weir_internal'::regnamespace AND relkind = 'S' ORDER BY relname COLLATE "C";

-- another role can do nothing to it ---------------------------------------------------------
SELECT attempt('SELECT * FROM shop.by_item');
SELECT name, attempt(format('SELECT weir.%s(''shop.by_item''%s)', name, more)) FROM (VALUES ('drop_operator', ''), ('drop_operator', ', true'),
    ('pause_operator', ''), ('resume_operator', ''), ('rebuild_operator', ''), ('set_objective', ', ''{}'''),
    ('start_upgrade', ', ''SELECT item, sum(amount) AS total FROM rights.sales GROUP BY item'''), ('advance_upgrade', ''), ('pause_upgrade', ''), ('resume_upgrade', ''),
    ('rollback_upgrade', ''), ('finalize_upgrade', ''), ('wait_for_upgrade', ', ''observing'''), ('verify', '')) calls (name, more);
-- but see that it is there, and wait
SELECT operator, status FROM weir.operators WHERE operator = 'shop.by_item'::regclass;
SELECT weir.wait_for('shop.by_item') IS NOT NULL;
RESET ROLE;
SELECT count(*) FROM weir.ledger WHERE operator = 'by_item' AND event <> 'create';

-- a member of the owning role can, and so can weir_admin, but for what would run as the owner -------
ALTER VIEW shop.by_item OWNER TO regress_weir_group;
GRANT CREATE ON SCHEMA shop TO regress_weir_group;
GRANT SELECT ON sales TO regress_weir_group;
SET ROLE regress_weir_owner;
SELECT attempt($$SELECT weir.pause_operator('shop.by_item')$$);
SET ROLE regress_weir_member;
SELECT attempt($$SELECT weir.pause_operator('shop.by_item')$$);
SELECT attempt($$SELECT weir.resume_operator('shop.by_item')$$);
RESET ROLE;
ALTER VIEW shop.by_item OWNER TO regress_weir_owner;
SET ROLE regress_weir_monitor;
SELECT attempt($$SELECT weir.pause_operator('shop.by_item')$$);
SET ROLE regress_weir_admin;
SELECT attempt($$SELECT weir.pause_operator('shop.by_item')$$);
SELECT attempt($$SELECT weir.resume_operator('shop.by_item')$$);
SELECT attempt($$SELECT weir.start_upgrade('shop.by_item', 'SELECT item, sum(amount) AS total, 1 AS one FROM rights.sales GROUP BY item', gates => '{"observe": "0 s"}')$$);
SELECT attempt($$SELECT weir.rebuild_operator('shop.by_item')$$);
SELECT weir.wait_for_upgrade('shop.by_item', 'finalized');
RESET ROLE;

-- the owner upgrades, rolls back, finalizes ---------------------------------------------------------
SET ROLE regress_weir_owner;
SELECT to_version, strategy FROM weir.start_upgrade('by_item', 'SELECT item, sum(amount) AS total, max(amount) AS highest FROM rights.sales GROUP BY item', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('by_item', 'observing');
SELECT count(*), sum(total), max(highest) FROM by_item;
SELECT serving_version FROM weir.rollback_upgrade('by_item');
SELECT count(*), sum(total), max(highest) FROM by_item;
SELECT strategy FROM weir.start_upgrade('by_item', 'SELECT item, sum(amount) AS total, count(*) AS n FROM rights.sales GROUP BY item', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('by_item', 'observing');
SELECT weir.finalize_upgrade('by_item');
SELECT missing, extra FROM weir.verify('by_item');
RESET ROLE;
GRANT SELECT ON shop.by_item TO regress_weir_other;
SET ROLE regress_weir_other;
SELECT count(*), sum(total), sum(n) FROM shop.by_item;
RESET ROLE;

-- reuse reads the side tables of extremes as the owner, too --------------------------------------
SET ROLE regress_weir_owner;
SELECT strategy FROM weir.start_upgrade('by_item', 'SELECT item, sum(amount) AS total, count(*) AS n, min(amount) AS lowest FROM rights.sales GROUP BY item', safe_window => '0', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('by_item', 'finalized');
SELECT strategy FROM weir.start_upgrade('by_item', 'SELECT item, sum(amount) AS total, count(*) AS n, min(amount) AS lowest, min(amount) + 1 AS above FROM rights.sales GROUP BY item', strategy => 'reuse', safe_window => '0', gates => '{"observe": "0 s"}');
SELECT weir.wait_for_upgrade('by_item', 'finalized');
SELECT missing, extra FROM weir.verify('by_item');
RESET ROLE;

-- the owner loses the right to read the source: nothing new is read, and what there is stays --------
REVOKE SELECT ON sales FROM regress_weir_owner;
INSERT INTO sales VALUES (101, 'new', 1);
CALL await($$SELECT status = 'stopped' FROM weir.operators WHERE operator = 'by_item'::regclass$$);
SELECT status, message, hint FROM weir.operators WHERE operator = 'by_item'::regclass;
SELECT count(*) > 0 AS shown, count(*) FILTER (WHERE item = 'new') AS new FROM by_item;
SET ROLE regress_weir_owner;
SELECT attempt($$SELECT weir.start_upgrade('by_item', 'SELECT item, sum(amount) AS total FROM rights.sales GROUP BY item', gates => '{"observe": "0 s"}')$$);
SELECT attempt($$SELECT weir.verify('by_item')$$);
SELECT attempt($$SELECT weir.rebuild_operator('by_item')$$);
RESET ROLE;
CALL await($$SELECT NOT EXISTS (SELECT FROM weir.upgrades WHERE operator = 'by_item'::regclass AND ended_at IS NULL)$$);
SELECT phase, reason FROM weir.upgrades WHERE operator = 'by_item'::regclass ORDER BY upgrade_id DESC LIMIT 1;
GRANT SELECT ON sales TO regress_weir_owner;
SELECT weir.resume_operator('by_item');
SELECT weir.wait_for('by_item') IS NOT NULL;
SELECT total FROM by_item WHERE item = 'new';

-- error texts: for the owner, monitors and administrators -------------------------------------------
SET ROLE regress_weir_owner;
SELECT operator FROM weir.create_operator('shop.fragile', 'SELECT item, max((1000 / (amount - 7777))::text || ''secret'') AS m, sum(amount::text::int4) AS s FROM rights.sales GROUP BY item');
SELECT weir.wait_for('fragile') IS NOT NULL;
RESET ROLE;
INSERT INTO sales VALUES (102, 'new', 7777);
SELECT weir.wait_for('by_item') IS NOT NULL;
SET ROLE regress_weir_owner;
SELECT status, message, hint FROM weir.operators WHERE operator = 'shop.fragile'::regclass;
SET ROLE regress_weir_other;
SELECT status, message, hint FROM weir.operators WHERE operator = 'shop.fragile'::regclass;
SELECT status, sqlstate, message, detail, hint FROM weir.versions WHERE operator = 'shop.fragile'::regclass;
SELECT event, reason FROM weir.ledger WHERE operator = 'fragile' ORDER BY ledger_id;
SELECT reason FROM weir.upgrades WHERE operator = 'shop.by_item'::regclass AND reason IS NOT NULL;
SELECT attempt($$SELECT weir.wait_for('shop.fragile')$$);
SET ROLE regress_weir_monitor;
SELECT status, message FROM weir.operators WHERE operator = 'shop.fragile'::regclass;
SELECT event, reason FROM weir.ledger WHERE operator = 'fragile' ORDER BY ledger_id;
SET ROLE regress_weir_admin;
SELECT status, message FROM weir.operators WHERE operator = 'shop.fragile'::regclass;
RESET ROLE;
SELECT weir.drop_operator('fragile');
DELETE FROM sales WHERE id = 102;

-- what a definition calls -------------------------------------------------------------------------------
CREATE TABLE commands (id int PRIMARY KEY, command text);
ALTER TABLE commands REPLICA IDENTITY FULL;
GRANT SELECT ON commands TO regress_weir_owner;
SET ROLE regress_weir_owner;
CREATE TABLE shop.trace (who name);
CREATE FUNCTION shop.run(command text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    answer text := 'done';
BEGIN
    IF command ~ '^SELECT' THEN EXECUTE command INTO answer; ELSE EXECUTE command; END IF;
    RETURN answer;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;
CREATE FUNCTION shop.harmless(command text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN shop.run(command); END $$;
CREATE FUNCTION shop.raw(command text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$ BEGIN EXECUTE command; RETURN 'done'; END $$;
CREATE FUNCTION shop.open(command text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN shop.raw(command); END $$;
-- a deferred trigger would run at the worker's commit, as the worker's user
CREATE FUNCTION shop.later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ALTER ROLE regress_weir_owner SUPERUSER; RETURN NULL; END $$;
CREATE TABLE shop.deferred (v int);
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON shop.deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION shop.later();
SELECT operator FROM weir.create_operator('shop.answers', 'SELECT id, max(shop.harmless(command)) AS answer FROM rights.commands GROUP BY id');
SELECT operator FROM weir.create_operator('shop.attack', 'SELECT count(shop.open(command)) AS n FROM rights.commands WHERE id > 100');
SELECT weir.wait_for('answers') IS NOT NULL, weir.wait_for('attack') IS NOT NULL;
RESET ROLE;
INSERT INTO commands VALUES
    (1, 'SELECT current_user'), (2, 'SELECT current_setting(''search_path'')'), (3, 'ALTER ROLE regress_weir_owner SUPERUSER'),
    (4, 'SET ROLE regress_weir_admin'), (5, 'RESET ROLE'), (6, 'SET SESSION AUTHORIZATION DEFAULT'), (7, 'SELECT set_config(''role'', ''none'', false)'),
    (8, (SELECT format('UPDATE %s SET total = 0', state_table) FROM weir.versions WHERE operator = 'by_item'::regclass AND serving)), (9, 'DELETE FROM weir_internal.reader'), (10, 'CREATE TEMP TABLE x ()'),
    (11, 'LISTEN x'), (12, 'SELECT count(*) FROM rights.secret'), (13, 'COPY (SELECT 1) TO PROGRAM ''true'''),
    (14, 'INSERT INTO shop.trace VALUES (current_user)'), (18, 'SELECT set_config(''session_replication_role'', ''replica'', false)'),
    (19, 'CREATE ROLE regress_weir_intruder'), (20, 'COMMIT');
SELECT weir.wait_for('answers') IS NOT NULL;
INSERT INTO commands VALUES (15, 'SELECT set_config(''search_path'', ''shop'', false)'),
    (16, 'SELECT set_config(''statement_timeout'', ''1'', false)'), (17, 'SELECT set_config(''default_transaction_read_only'', ''on'', false)');
SELECT weir.wait_for('answers') IS NOT NULL;
SELECT c.id, c.command, a.answer FROM commands c LEFT JOIN answers a USING (id) ORDER BY id;
-- settings that it changed end with the call
INSERT INTO commands VALUES (31, 'SELECT current_setting(''search_path'')'), (32, 'SELECT current_setting(''statement_timeout'')'), (33, 'SELECT current_user');
SELECT weir.wait_for('answers') IS NOT NULL;
SELECT c.id, c.command, a.answer FROM commands c LEFT JOIN answers a USING (id) WHERE id > 30 ORDER BY id;
-- one that does not catch its error stops its operator, and nobody else
INSERT INTO commands VALUES (101, 'ALTER ROLE regress_weir_owner SUPERUSER');
SELECT weir.wait_for('answers') IS NOT NULL, weir.wait_for('by_item') IS NOT NULL;
SELECT o.status, v.sqlstate FROM weir.operators o JOIN weir.versions v USING (operator) WHERE operator = 'attack'::regclass;
SELECT weir.drop_operator('attack');
-- the deferred trigger is refused when its row is queued
SET ROLE regress_weir_owner;
SELECT operator FROM weir.create_operator('shop.attack', 'SELECT count(shop.open(command)) AS n FROM rights.commands WHERE id > 200');
SELECT weir.wait_for('attack') IS NOT NULL;
RESET ROLE;
INSERT INTO commands VALUES (201, 'INSERT INTO shop.deferred VALUES (1)');
SELECT weir.wait_for('by_item') IS NOT NULL;
SELECT o.status, o.message FROM weir.operators o WHERE operator = 'attack'::regclass;
-- while it is built, too
SET ROLE regress_weir_owner;
SELECT attempt($$SELECT weir.rebuild_operator('answers')$$);
SELECT weir.wait_for_upgrade('answers', 'finalized');
SELECT id, answer FROM answers WHERE id IN (1, 3, 5, 33) ORDER BY id;
RESET ROLE;
SELECT rolsuper FROM pg_roles WHERE rolname = 'regress_weir_owner';
SELECT count(*) FROM pg_roles WHERE rolname = 'regress_weir_intruder';
SELECT DISTINCT who FROM shop.trace;
SELECT weir.drop_operator('attack'), weir.drop_operator('answers');

-- the owner drops; a role that owns an operator can be dropped only after it ----------------------------
SELECT attempt_code('DROP ROLE regress_weir_owner');
SET ROLE regress_weir_owner;
SELECT weir.drop_operator('by_item');
RESET ROLE;
CALL await($$SELECT NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = 'weir_state'::regnamespace AND relname ~ '^(by_item|answers|attack|fragile)_')$$);
SET client_min_messages = error;
DROP SCHEMA rights, shop CASCADE;
DROP OWNED BY regress_weir_owner, regress_weir_other, regress_weir_monitor, regress_weir_admin, regress_weir_group, regress_weir_member;
DROP ROLE regress_weir_owner, regress_weir_other, regress_weir_monitor, regress_weir_admin, regress_weir_group, regress_weir_member;
