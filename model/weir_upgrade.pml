/*
 * weir_upgrade.pml - the upgrade protocol, for Spin to walk through in every order.
 *
 * What it is of: one operator with an old and a new version, two shards, the stream's main reader and a process that was it
 * before and does not know (the zombie), the candidate's catch-up reader, the place of a stopped version, the coordinator,
 * two sessions, somebody who reads the view, and a server that crashes whenever it likes. model/check runs it; model/mutations
 * lists the guards that it removes to see an invariant fail. I1 to I8 are those of docs/architecture.md, checked in every
 * state, or, where they speak of a commit, at that commit. Each d_step is what is atomic in the code: a commit, a lock, a word
 * of shared memory, a slot written. The functions that take these steps are named beside them.
 *
 * How the server is seen: `cur` is the catalogs and state as committed, `dur` the part of it that is flushed. Commits are
 * asynchronous; a flush takes them in order, so dur is always an earlier cur. A crash makes cur dur, and takes processes,
 * locks and shared memory with it. Slots are files: neither transactional nor lost.
 *
 * What is left out, and why the invariants do not miss it:
 * - Rows, keys and folds. A state is the set of the commits that are in it. A batch writes all shards of a version in one
 *   transaction, so the set is the same for each; a shard is only who serves it (`split`). More shards are more equal steps.
 * - WAL positions are numbers of commits. What lies between two commits changes no state. Commit ONLY_NEW concerns a table
 *   that only the new version reads: the main reader can pass it with an empty batch. All COMMITS can be read from the
 *   start: one that comes later is one that is read later.
 * - COMMITS and MAX_UNFLUSHED are small: no step looks further back than the batch at hand. Crashes, kills, resumes, calls
 *   that are rolled back and failures of a catch-up reader are not counted: there can be any number of each.
 * - One version at a time has a place, once: a second stop is like the first, of the other version.
 * - An epoch is who claimed the row last: each live process has made one claim, and a crash leaves none alive.
 * - Readers that are killed are there again at once: without them less happens, not more. A zombie whose position is not
 *   the row's any more is taken away: the position alone refuses it.
 * - Slots are confirmed as soon and as far as they may be, which is the worst for I4.
 * - preparing, building, catching_up and validating are one phase: the status of the version tells them apart. Drift is not
 *   compared: versions that have the same commits agree, and that they have is I5.
 * - Catch-up readers apply commit by commit, in one step: nobody else writes to their row or state. Their slots are not
 *   confirmed: it is the main reader's code, and theirs serve nobody else.
 * - A slot that falls back at a crash is one that was confirmed later.
 * - A snapshot that outlives a shift or rollback is taken just before it; it does not matter since when it was there.
 * - A failed candidate is rolled back by a session, which may do so at any time, as the coordinator does. The same for the
 *   end of the safe window.
 * - The moment between the guard's look and the commit of a shift or rollback; see call().
 * - Gates, pauses of an upgrade and steps by hand: they only delay an edge. A failed gate is a rollback.
 * - Pauses (like stops), places that are given up, repairs, parked standbys, verification; liveness.
 */

#ifndef COMMITS
#define COMMITS 3
#endif
#define ONLY_NEW 2
#define SHARDS 2
#define MAX_UNFLUSHED 2

/* Versions, and none. */
#define OLD 0
#define NEW 1
#define NOBODY 2
#define BIT(version) (1 << (version))

/* Reader rows: the main reader's, the candidate's, the place of a stopped version. */
#define MAIN 0
#define CANDIDATE 1
#define PLACE 2

/* Status of rows. PENDING: stopped, and its slot is still to be copied. GONE: a place that is not used again. */
#define NONE 0
#define BUILDING 1
#define RUNNING 2
#define PENDING 3
#define STOPPED 4
#define ENDED 5
#define GONE 6
/* Status of versions: NONE, BUILDING, STOPPED and */
#define CATCHING_UP 7
#define LIVE 8
#define FAILED 9

/* Phases. UNDER_WAY: preparing to validating. */
#define IDLE 0
#define UNDER_WAY 1
#define SHIFTING 2
#define OBSERVING 3
#define FINALIZED 4
#define ROLLED_BACK 5

/* Where a process is; AWAY: there is none. OWES_POSITION only in mutation one_transaction. */
#define AWAY 0
#define READING 1
#define IN_BATCH 2
#define OWES_POSITION 3
#define SLOT_MADE 4
#define ROWS_READ 5
#define MOVING 6

/* Transactions that have the operator's row lock. */
#define START 1
#define ROLLBACK 2
#define STEP 3
/* Whose they are: sessions 0 and 1, and */
#define COORDINATOR 2

/* The commits up to a position, and those after one up to another. */
#define UP_TO(position) ((1 << (position)) - 1)
#define BETWEEN(from, upto) (UP_TO(upto) & ~UP_TO(from))

typedef Catalog {
	byte has[2];				/* a version's state: the commits in it */
	byte status[2];
	byte reader[2];				/* the row that a version belongs to */
	bool retired[2];
	byte row[3];
	byte position[3];			/* of a row: processed_lsn */
	byte phase;
	byte split;					/* so many shards are served by the new version */
	byte upgrades				/* that have not ended */
}
Catalog cur;
Catalog dur;
byte unflushed;					/* commits */
bool dropped[2];				/* state tables; a DROP is flushed at once */
bool slot[3];
byte confirmed[3];

typedef Process {
	byte state;
	byte at;					/* its processed_lsn */
	byte scan;					/* it has read up to here */
	byte loaded;				/* for these versions */
	byte set					/* versions found in the batch transaction */
}
Process reader;					/* has the slot and the entry in shared memory */
Process zombie;
#define NO_FLOOR 15
byte floor = NO_FLOOR;			/* the reader's memory of a pending place */
bool superseded;				/* the next process has claimed the row: the epoch is not the reader's any more */
byte row_lock;					/* on the main reader's row */
#define READER_LOCK 3
#define ZOMBIE_LOCK 4			/* 1 and 2: the catch-up reader of that row */
byte held_for;					/* the catch-up reader of that row */

byte catch_up[3];
byte rows_read;					/* by a build, and the position that goes with it */
byte rows_position;
bool copied;					/* the slot of a pending place; the coordinator has yet to record it */
byte open[3];
byte snapshot;					/* of somebody who reads: 1 + split */

byte upto;						/* within a step only, as is */
byte allowed;

/* Set by init from the environment and never changed: the guard to do without, the invariants to check. */
byte without;
bool I1, I2, I3, I4, I5, I6, I7, I8;
#define CLAIM(invariant, condition) assert(!invariant || (condition))

/* The guards, by their names in model/mutations. One that is removed holds always. */
#define epoch				1
#define row_lock_held		2
#define one_transaction		3
#define set_compared		4
#define still_held			5
#define lock_after_hold		6
#define lock_at_start		7
#define caught_up			8
#define confirm_flushed		9
#define pending_floor		10
#define floor_at_start		11
#define copy_flushed		12
#define resume_after_copy	13
#define end_flushed	14
#define slot_before_rows	15
#define one_build_snapshot	16
#define slots_own_snapshot	17
#define reuse_of_live		18
#define guard_of_shift		19
#define guard_of_rollback	20
#define phase_of_rollback	21
#define operator_locked		22
#define one_upgrade			23
#define old_snapshots		24
#define one_read_snapshot	25
#define position_compared	26
#define KEPT(name) (without != name)
#define GUARD(name, condition) (!KEPT(name) || (condition))

inline copy_catalog(target, origin)
{
	target.has[OLD] = origin.has[OLD]; target.has[NEW] = origin.has[NEW];
	target.status[OLD] = origin.status[OLD]; target.status[NEW] = origin.status[NEW];
	target.reader[OLD] = origin.reader[OLD]; target.reader[NEW] = origin.reader[NEW];
	target.retired[OLD] = origin.retired[OLD]; target.retired[NEW] = origin.retired[NEW];
	target.row[CANDIDATE] = origin.row[CANDIDATE]; target.row[PLACE] = origin.row[PLACE];
	target.position[MAIN] = origin.position[MAIN];
	target.position[CANDIDATE] = origin.position[CANDIDATE];
	target.position[PLACE] = origin.position[PLACE];
	target.phase = origin.phase; target.split = origin.split; target.upgrades = origin.upgrades
}

/* weir_reader_confirm: what is flushed, not past a pending place. */
inline confirm()
{
	allowed = ((KEPT(confirm_flushed) && dur.position[MAIN] < reader.at) -> dur.position[MAIN] : reader.at);
	if :: KEPT(pending_floor) && floor < allowed -> allowed = floor :: else fi;
	if :: allowed > confirmed[MAIN] -> confirmed[MAIN] = allowed :: else fi;
	allowed = 0
}

inline flush()
{
	copy_catalog(dur, cur); unflushed = 0;
	confirm()
}

/* pending_floor(): lifted when the row is not pending any more. */
inline lift_floor()
{
	floor = NO_FLOOR; confirm()
}

/* First in each transaction: a flush of those before it is due. */
inline transaction()
{
	if :: unflushed == MAX_UNFLUSHED -> flush() :: else fi;
	unflushed++
}

/* ---------------------------------------------------------------- the main reader */

#define MEMBER(version) (cur.status[version] == LIVE && !cur.retired[version])
#define MEMBERS ((MEMBER(OLD) -> BIT(OLD) : 0) | (MEMBER(NEW) -> BIT(NEW) : 0))
/* What a process's batch consists of, and where it ends. */
#define CONCERNING(versions) ((versions & BIT(NEW)) -> 255 : ((versions & BIT(OLD)) -> 255 - (1 << (ONLY_NEW - 1)) : 0))
#define BATCH(p) (BETWEEN(p.at, p.scan) & CONCERNING(p.loaded))
#define BATCH_END(p) ((BATCH(p) & (1 << (p.scan - 1))) -> p.scan : p.scan - 1)
#define IS_FREE (reader.state == READING && held_for == 0)

inline clear(p)
{
	p.state = AWAY; p.at = 0; p.scan = 0; p.loaded = 0; p.set = 0
}

inline read_from_position()
{
	reader.state = READING; reader.at = cur.position[MAIN]; reader.scan = reader.at;
	reader.loaded = MEMBERS; reader.set = 0
}

inline look_for_floor()
{
	floor = ((KEPT(floor_at_start) && cur.row[PLACE] == PENDING) -> cur.position[PLACE] : NO_FLOOR)
}

inline add_commits(version, from, upto)
{
	CLAIM(I7, (cur.has[version] & BETWEEN(from, upto)) == 0);
	cur.has[version] = cur.has[version] | BETWEEN(from, upto)
}

inline set_position(p, position_to_set)
{
	CLAIM(I3, cur.position[MAIN] <= position_to_set);
	cur.position[MAIN] = position_to_set; p.at = position_to_set;
	confirm();
	if :: zombie.state == READING && zombie.at != cur.position[MAIN] -> clear(zombie) :: else fi
}

/* apply_in_transaction: the fence, then weir_reader_set_read. */
inline begin_batch(p, has_epoch, lock)
{
	if
	:: !(GUARD(epoch, has_epoch) && GUARD(position_compared, cur.position[MAIN] == p.at)) -> p.scan = p.at
	:: else ->
		if
		:: (MEMBERS & ~p.loaded) && KEPT(set_compared) -> p.scan = p.at; p.loaded = MEMBERS	/* SET_CHANGED */
		:: else ->
			p.set = MEMBERS; p.state = IN_BATCH;
			if :: KEPT(row_lock_held) -> row_lock = lock :: else fi
		fi
	fi
}

/* keeps_its_place: a candidate that others stand in for keeps nothing. */
#define KEEPS_PLACE(version) (version == OLD || cur.status[OLD] != LIVE)
#define CAN_STOP(version) ((reader.set & BIT(version)) && cur.phase >= UNDER_WAY && cur.phase <= OBSERVING && \
	(!KEEPS_PLACE(version) || cur.row[PLACE] == NONE))

/* weir_reader_stop_version: the place is the position before the batch. */
inline stop_version(p, version)
{
	if
	:: version == NOBODY
	:: else ->
		if
		:: KEEPS_PLACE(version) ->
			cur.status[version] = STOPPED; cur.reader[version] = PLACE;
			cur.row[PLACE] = PENDING; cur.position[PLACE] = p.at; floor = p.at
		:: else -> cur.status[version] = FAILED
		fi;
		p.set = p.set & ~BIT(version)
	fi
}

#define APPLIES(p, version) ((p.set & p.loaded & BIT(version)) && !dropped[version])

/* The rest of the batch transaction. */
inline commit_batch(p, has_epoch, lock, failing)
{
	CLAIM(I2, has_epoch);
	transaction();
	upto = BATCH_END(p);
	if :: APPLIES(p, OLD) && failing != OLD -> add_commits(OLD, p.at, upto) :: else fi;
	if :: APPLIES(p, NEW) && failing != NEW -> add_commits(NEW, p.at, upto) :: else fi;
	stop_version(p, failing);
	if
	:: KEPT(one_transaction) -> p.state = READING; p.loaded = p.set; set_position(p, upto)
	:: else -> p.state = OWES_POSITION
	fi;
	p.set = 0; upto = 0;
	if :: row_lock == lock -> row_lock = 0 :: else fi
}

/* advance_position: over commits that concern no loaded version. Whoever is not loaded misses them. */
inline advance_to_scanned()
{
	transaction();
	if :: MEMBER(OLD) && (reader.loaded & BIT(OLD)) -> add_commits(OLD, reader.at, reader.scan) :: else fi;
	if :: MEMBER(NEW) && (reader.loaded & BIT(NEW)) -> add_commits(NEW, reader.at, reader.scan) :: else fi;
	set_position(reader, reader.scan)
}
#define CAN_ADVANCE (row_lock == 0 && !superseded && cur.position[MAIN] == reader.at)

#define VERSION_OF(r) ((r == CANDIDATE || cur.reader[OLD] != PLACE) -> NEW : OLD)
#define IS_CATCHING_UP(r) (catch_up[r] == READING && cur.row[r] == RUNNING && !cur.retired[VERSION_OF(r)])

/* weir_reader_hold_if_asked; to ask alone changes nothing. */
#define CAN_HOLD(r) (IS_FREE && IS_CATCHING_UP(r) && !BATCH(reader) && (reader.scan == reader.at || CAN_ADVANCE))
inline hold(r)
{
	if :: reader.scan > reader.at -> advance_to_scanned() :: else fi;
	held_for = r
}

/* weir_reader_claim, weir_reader_attach, weir_reader_reopen: what the process before has decoded, the zombie has. */
inline start_anew()
{
	if
	:: BATCH(reader) && zombie.state == AWAY && reader.state != OWES_POSITION ->
		zombie.state = reader.state; zombie.at = reader.at; zombie.scan = reader.scan;
		zombie.loaded = reader.loaded; zombie.set = reader.set
	:: else
	fi;
	superseded = false; held_for = 0;
	read_from_position(); look_for_floor()
}

proctype main_reader()
{
	do
	:: d_step {				/* weir_source_read: one commit more */
		IS_FREE && reader.scan < COMMITS -> reader.scan++
	}
	:: d_step { IS_FREE && BATCH(reader) && row_lock == 0 -> begin_batch(reader, !superseded, READER_LOCK) }
	:: d_step { reader.state == IN_BATCH -> commit_batch(reader, !superseded, READER_LOCK, NOBODY) }
	:: d_step { reader.state == IN_BATCH && CAN_STOP(OLD) -> commit_batch(reader, !superseded, READER_LOCK, OLD) }
	:: d_step { reader.state == IN_BATCH && CAN_STOP(NEW) -> commit_batch(reader, !superseded, READER_LOCK, NEW) }
	:: d_step { reader.state == OWES_POSITION ->
		upto = BATCH_END(reader); reader.state = READING; set_position(reader, upto); upto = 0
	}
	:: d_step {				/* weir_reader_idle_advance */
		IS_FREE && !BATCH(reader) && reader.scan > reader.at && CAN_ADVANCE -> advance_to_scanned()
	}
	:: d_step { CAN_HOLD(CANDIDATE) -> hold(CANDIDATE) }
	:: d_step { CAN_HOLD(PLACE) -> hold(PLACE) }
	:: d_step {				/* its end: released, or weir.max_hold is over; then weir_reader_lock, weir_reader_set_load */
		held_for != 0 && GUARD(lock_after_hold, row_lock == 0) ->
		held_for = 0; reader.loaded = MEMBERS
	}
	:: d_step {				/* start_reader, weir_reader_claim, while the one before holds */
		held_for != 0 && !superseded && row_lock == 0 -> superseded = true
	}
	:: d_step { superseded && GUARD(lock_at_start, row_lock == 0) -> start_anew() }
	:: d_step { held_for == 0 && row_lock == 0 -> start_anew() }
	:: d_step { row_lock == READER_LOCK -> row_lock = 0; read_from_position(); start_anew() }
	od
}

/* What it decoded when it was the main reader, it tries to commit. */
proctype zombie_reader()
{
	do
	:: d_step {
		zombie.state == READING && row_lock == 0 ->
		begin_batch(zombie, false, ZOMBIE_LOCK);
		if :: zombie.state == READING -> clear(zombie) :: else fi
	}
	:: d_step { zombie.state == IN_BATCH -> commit_batch(zombie, false, ZOMBIE_LOCK, NOBODY); clear(zombie) }
	od
}

/* ---------------------------------------------------------------- catch-up readers */

#define BUILDS(r, where) (r == CANDIDATE && cur.row[r] == BUILDING && catch_up[r] == where)

inline read_again(r)
{
	if :: row_lock == r -> row_lock = 0 :: else fi;
	if :: r == CANDIDATE -> rows_read = 0; rows_position = 0 :: else fi;
	catch_up[r] = READING
}

inline read_old_version()
{
	rows_read = cur.has[OLD]; rows_position = cur.position[MAIN]
}

inline copy_main_slot(r)
{
	slot[r] = true; confirmed[r] = confirmed[MAIN]
}

inline backfill(snapshot_position)
{
	slot[CANDIDATE] = true; confirmed[CANDIDATE] = snapshot_position;
	rows_read = UP_TO(snapshot_position); rows_position = snapshot_position; catch_up[CANDIDATE] = ROWS_READ
}

proctype catch_up_reader(byte r)
{
	do
	:: d_step { catch_up[r] != READING -> read_again(r) }		/* killed in the middle of something */

	/* weir_reader_build by reuse: the slot's copy, then the old version's state; mutation slot_before_rows the other way round. */
	:: d_step { BUILDS(r, READING) && KEPT(slot_before_rows) -> copy_main_slot(r); catch_up[r] = SLOT_MADE }
	:: d_step {
		BUILDS(r, SLOT_MADE) && KEPT(slot_before_rows) && GUARD(reuse_of_live, MEMBER(OLD)) ->
		read_old_version(); catch_up[r] = ROWS_READ
	}
	:: d_step { BUILDS(r, READING) && !KEPT(slot_before_rows) && MEMBER(OLD) -> read_old_version(); catch_up[r] = SLOT_MADE }
	:: d_step { BUILDS(r, SLOT_MADE) && !KEPT(slot_before_rows) -> copy_main_slot(r); catch_up[r] = ROWS_READ }
	:: d_step { BUILDS(r, ROWS_READ) && !KEPT(one_build_snapshot) -> rows_position = cur.position[MAIN] }
	/* By backfill, at whatever has been committed by then: under the snapshot that comes with the slot. */
	:: d_step { BUILDS(r, READING) -> backfill(reader.scan) }
	:: d_step { BUILDS(r, READING) && reader.scan < COMMITS -> backfill(COMMITS) }
	:: d_step { BUILDS(r, ROWS_READ) && !KEPT(slots_own_snapshot) -> rows_read = UP_TO(COMMITS) }
	:: d_step {				/* finish() */
		BUILDS(r, ROWS_READ) ->
		cur.has[NEW] = rows_read; cur.position[r] = rows_position; cur.row[r] = RUNNING; cur.status[NEW] = CATCHING_UP;
		flush(); read_again(r)
	}

	:: d_step {				/* a batch, never past the main reader's position */
		IS_CATCHING_UP(r) && cur.position[r] < cur.position[MAIN] ->
		transaction();
		add_commits(VERSION_OF(r), cur.position[r], cur.position[r] + 1);
		cur.position[r] = cur.position[r] + 1
	}
	:: d_step {				/* one that fails: weir_reader_stop_at, or the end of the candidate */
		IS_CATCHING_UP(r) && cur.position[r] < cur.position[MAIN] && cur.phase >= UNDER_WAY && cur.phase <= OBSERVING ->
		transaction();
		if
		:: KEEPS_PLACE(VERSION_OF(r)) -> cur.status[VERSION_OF(r)] = STOPPED; cur.row[r] = STOPPED
		:: else -> cur.status[VERSION_OF(r)] = FAILED
		fi
	}
	:: d_step {				/* move_versions, with both rows locked */
		IS_CATCHING_UP(r) && row_lock == 0 && GUARD(still_held, held_for == r) &&
			GUARD(caught_up, cur.position[r] == cur.position[MAIN]) ->
		row_lock = r; catch_up[r] = MOVING
	}
	:: d_step {				/* its commit, flushed */
		catch_up[r] == MOVING ->
		cur.status[VERSION_OF(r)] = LIVE;
		if :: VERSION_OF(r) == NEW -> cur.reader[NEW] = MAIN :: else -> cur.reader[OLD] = MAIN fi;
		cur.row[r] = ENDED;
		flush(); read_again(r)
	}
	od
}

/* ---------------------------------------------------------------- the coordinator */

#define BELONGS(version, r) (cur.reader[version] == r && !cur.retired[version] && \
	(cur.status[version] == BUILDING || cur.status[version] == CATCHING_UP || cur.status[version] == STOPPED))
#define IS_IDLE(r) (cur.row[r] >= BUILDING && cur.row[r] <= STOPPED && !BELONGS(OLD, r) && !BELONGS(NEW, r) && catch_up[r] != MOVING)
#define NO_CALL (open[0] == 0 && open[1] == 0 && open[COORDINATOR] == 0)

/* end_readers: flushed before anybody acts on it. */
inline end_reader(r)
{
	transaction(); cur.row[r] = ENDED;
	if :: KEPT(end_flushed) -> flush() :: else fi
}

/* remove_ended */
inline drop_slot(r)
{
	transaction();
	slot[r] = false; confirmed[r] = 0;
	cur.row[r] = GONE; cur.position[r] = 0
}

/* weir_version_try_drop */
#define CAN_DROP(version) (cur.retired[version] && !dropped[version] && GUARD(old_snapshots, snapshot == 0) && row_lock == 0)
inline drop_tables(version)
{
	dropped[version] = true; cur.has[version] = 0;
	flush()
}

proctype coordinator()
{
	do
	:: d_step {				/* give_readers */
		cur.phase == UNDER_WAY && cur.status[NEW] == NONE ->
		transaction();
		cur.status[NEW] = BUILDING; cur.reader[NEW] = CANDIDATE; cur.row[CANDIDATE] = BUILDING
	}
	:: d_step { IS_IDLE(CANDIDATE) -> end_reader(CANDIDATE) }
	:: d_step { IS_IDLE(PLACE) -> end_reader(PLACE); lift_floor() }
	:: d_step { cur.row[CANDIDATE] == ENDED && catch_up[CANDIDATE] == READING -> drop_slot(CANDIDATE) }
	:: d_step { cur.row[PLACE] == ENDED && catch_up[PLACE] == READING -> drop_slot(PLACE) }
	:: d_step {				/* copy_slot */
		cur.row[PLACE] == PENDING && !copied ->
		copy_main_slot(PLACE); copied = true;
		CLAIM(I4, confirmed[PLACE] <= cur.position[PLACE])
	}
	:: d_step {				/* and its record, flushed before others see it */
		copied ->
		copied = false;
		if
		:: cur.row[PLACE] == PENDING ->
			transaction(); cur.row[PLACE] = STOPPED;
			if :: KEPT(copy_flushed) -> flush() :: else fi;
			lift_floor()
		:: else
		fi
	}
	:: d_step {				/* weir_reconcile_resumed */
		(cur.row[PLACE] == STOPPED || (!KEPT(resume_after_copy) && cur.row[PLACE] == PENDING)) && !cur.retired[VERSION_OF(PLACE)] ->
		transaction();
		cur.row[PLACE] = RUNNING; cur.status[VERSION_OF(PLACE)] = CATCHING_UP
	}
	:: d_step {
		cur.row[CANDIDATE] == STOPPED && !cur.retired[NEW] ->
		transaction();
		cur.row[CANDIDATE] = RUNNING; cur.status[NEW] = CATCHING_UP
	}
	:: d_step {				/* walk_validating */
		NO_CALL && cur.phase == UNDER_WAY && MEMBER(OLD) && MEMBER(NEW) -> transaction(); cur.phase = SHIFTING
	}
	:: d_step { CAN_DROP(OLD) -> drop_tables(OLD) }		/* weir_reconcile_retired */
	:: d_step { CAN_DROP(NEW) -> drop_tables(NEW) }
	od
}

/* ---------------------------------------------------------------- transactions under the operator's lock */

/* weir_operator_lock, weir_operator_try_lock. */
#define LOCK_IS_FREE(k) (open[k] == 0 && GUARD(operator_locked, NO_CALL))
#define IS_LIVE(version) (cur.status[version] == LIVE)
/* What a version that is to serve lacks of the other. */
#define LACKS(to_serve, serving) (cur.has[serving] & ~cur.has[to_serve])

/*
 * Begin, perhaps stay open for long, then commit; or roll back, and nothing happened. Whoever makes a version serve looks at
 * it again before its commit (serving_guard.c). Here both are one step; what a version does that stops in the moment between
 * them is said there.
 */
proctype call(byte k)
{
	do
	:: d_step {				/* weir_start_upgrade */
		k != COORDINATOR && open[k] == 0 && cur.phase == IDLE && (NO_CALL || !KEPT(operator_locked) || !KEPT(one_upgrade)) ->
		open[k] = START
	}
	:: d_step {
		open[k] == START ->
		open[k] = 0;
		if
		:: GUARD(one_upgrade, cur.upgrades == 0) -> transaction(); cur.upgrades++; cur.phase = UNDER_WAY
		:: else
		fi
	}
	:: d_step {				/* weir_upgrade_finalize */
		k == 0 && LOCK_IS_FREE(k) && cur.phase == OBSERVING ->
		transaction();
		cur.retired[OLD] = true; cur.phase = FINALIZED; cur.upgrades--
	}
	:: d_step {				/* weir_upgrade_roll_back */
		k == 1 && LOCK_IS_FREE(k) && cur.phase != IDLE && cur.phase != ROLLED_BACK &&
			GUARD(phase_of_rollback, cur.phase != FINALIZED) && (cur.split == 0 || IS_LIVE(OLD)) ->
		open[k] = ROLLBACK
	}
	:: d_step {
		open[k] == ROLLBACK && (cur.split == 0 || GUARD(guard_of_rollback, IS_LIVE(OLD))) ->
		CLAIM(I6, cur.split == 0 || LACKS(OLD, NEW) == 0);
		transaction();
		cur.split = 0; cur.retired[NEW] = true; cur.phase = ROLLED_BACK; cur.upgrades--; open[k] = 0
	}
	:: d_step {				/* walk_shifting */
		k == COORDINATOR && LOCK_IS_FREE(k) && cur.phase == SHIFTING && IS_LIVE(OLD) && IS_LIVE(NEW) -> open[k] = STEP
	}
	:: d_step {
		open[k] == STEP && GUARD(guard_of_shift, IS_LIVE(NEW)) ->
		CLAIM(I7, LACKS(NEW, OLD) == 0);
		transaction();
		cur.split++; open[k] = 0;
		if :: cur.split == SHARDS -> cur.phase = OBSERVING :: else fi
	}
	:: d_step { open[k] != 0 -> open[k] = 0 }
	od
}

/* ---------------------------------------------------------------- who reads, and the server */

/* A query on the view: shards from split on are shown by the old version's branch, those before it by the new one's. */
proctype query()
{
	do
	:: d_step { snapshot == 0 && (open[COORDINATOR] == STEP || open[1] == ROLLBACK) -> snapshot = 1 + cur.split }
	:: d_step {
		snapshot != 0 ->
		CLAIM(I1, KEPT(one_read_snapshot) || cur.split == snapshot - 1);
		CLAIM(I1, !dropped[OLD] || snapshot == 1 + SHARDS);
		CLAIM(I1, !dropped[NEW] || snapshot == 1);
		snapshot = 0
	}
	od
}

proctype server()
{
	do
	:: d_step { unflushed > 0 -> flush() }
	:: d_step {				/* a crash, and the processes of the next start; slots that no row names are dropped */
		true ->
		copy_catalog(cur, dur); unflushed = 0;
		row_lock = 0; superseded = false; held_for = 0; clear(zombie);
		read_from_position(); look_for_floor();
		read_again(CANDIDATE); read_again(PLACE); copied = false;
		if :: cur.row[CANDIDATE] == NONE -> slot[CANDIDATE] = false; confirmed[CANDIDATE] = 0 :: else fi;
		if :: cur.row[PLACE] == NONE -> slot[PLACE] = false; confirmed[PLACE] = 0 :: else fi;
		open[0] = 0; open[1] = 0; open[COORDINATOR] = 0; snapshot = 0
	}
	od
}

/* ---------------------------------------------------------------- invariants of every state */

#define EXISTS(catalog, version) (!catalog.retired[version] && !dropped[version])
#define ONE_SERVES(catalog) ((catalog.split == SHARDS || EXISTS(catalog, OLD)) && (catalog.split == 0 || EXISTS(catalog, NEW)))

/* A failed version's state is where it was; nothing goes on from it. */
#define HAS_POSITION(version) (!cur.retired[version] && \
	(cur.status[version] == LIVE || cur.status[version] == CATCHING_UP || cur.status[version] == STOPPED))
#define ITS_COMMITS(version) UP_TO(cur.position[cur.reader[version]])
#define IS_AT_POSITION(version) (!HAS_POSITION(version) || cur.has[version] == ITS_COMMITS(version))
#define LACKS_NOTHING(version) (!HAS_POSITION(version) || (ITS_COMMITS(version) & ~cur.has[version]) == 0)

/* With what a crash would leave. */
#define SLOT_SERVES(r) ((dur.row[r] != RUNNING && dur.row[r] != STOPPED) || (slot[r] && confirmed[r] <= dur.position[r]))
#define SLOTS_SERVE (confirmed[MAIN] <= dur.position[MAIN] && SLOT_SERVES(CANDIDATE) && SLOT_SERVES(PLACE) && \
	(dur.row[PLACE] != PENDING || confirmed[MAIN] <= dur.position[PLACE]))

#define CAN_GO_BACK (cur.phase < SHIFTING || cur.phase > OBSERVING || cur.split == 0 || !IS_LIVE(OLD) || \
	(EXISTS(cur, OLD) && LACKS(OLD, NEW) == 0))

proctype monitor()
{
	do
	:: I1 && !(ONE_SERVES(cur) && ONE_SERVES(dur)) -> assert(!I1)
	:: I3 && !(IS_AT_POSITION(OLD) && IS_AT_POSITION(NEW)) -> assert(!I3)
	:: I4 && !SLOTS_SERVE -> assert(!I4)
	:: I5 && MEMBER(OLD) && MEMBER(NEW) && cur.has[OLD] != cur.has[NEW] -> assert(!I5)
	:: I6 && !CAN_GO_BACK -> assert(!I6)
	:: I7 && !((cur.split == SHARDS || LACKS_NOTHING(OLD)) && (cur.split == 0 || LACKS_NOTHING(NEW))) -> assert(!I7)
	:: I8 && cur.upgrades > 1 -> assert(!I8)
	od
}

/* WITHOUT: the number of a guard. INVARIANT: the only one to check. */
init
{
	d_step {
		c_code {
			const char *guard = getenv("WITHOUT");
			const char *invariant = getenv("INVARIANT");
			int only = invariant ? atoi(invariant) : 0;

			now.without = guard ? atoi(guard) : 0;
			now.I1 = only == 0 || only == 1;
			now.I2 = only == 0 || only == 2;
			now.I3 = only == 0 || only == 3;
			now.I4 = only == 0 || only == 4;
			now.I5 = only == 0 || only == 5;
			now.I6 = only == 0 || only == 6;
			now.I7 = only == 0 || only == 7;
			now.I8 = only == 0 || only == 8;
		};
		cur.status[OLD] = LIVE;
		slot[MAIN] = true;
		catch_up[CANDIDATE] = READING; catch_up[PLACE] = READING;
		read_from_position();
		flush()
	};
	atomic {
		run main_reader(); run zombie_reader(); run catch_up_reader(CANDIDATE); run catch_up_reader(PLACE);
		run coordinator(); run call(0); run call(1); run call(COORDINATOR); run query(); run server(); run monitor()
	}
}
