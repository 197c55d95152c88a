/*
 * reader_catalog.c - rows of weir_internal.reader: slot, position, epoch.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"

#include "catalog/catalog_query.h"
#include "catalog/reader_catalog.h"

static const char *const kind_names[] = {"main", "catch_up", "stopped"};
static const char *const status_names[] = {"new", "building", "running", "ended"};

#define READER_COLUMNS \
	"reader_id, stream_id, kind, status, slot_name, slot_pending, epoch, processed_lsn, " \
	"system_identifier, timeline, database_oid"

static int
name_index(const char *name, const char *const *names, int count)
{
	for (int i = 0; i < count; i++)
		if (strcmp(name, names[i]) == 0)
			return i;
	elog(ERROR, "unknown reader attribute \"%s\"", name);
	return -1;
}

void
weir_reader_identity(int64 *system_identifier, int *timeline)
{
	*system_identifier = (int64) GetSystemIdentifier();
	*timeline = (int) GetWALInsertionTimeLine();
}

static WeirReaderRow *
reader_from_result(uint64 row)
{
	WeirReaderRow *reader = palloc(sizeof(WeirReaderRow));
	int64		system_identifier;
	int			timeline;

	reader->reader_id = weir_result_int64(row, 1);
	reader->stream_id = weir_result_int(row, 2);
	reader->kind = name_index(weir_result_text(row, 3), kind_names, lengthof(kind_names));
	reader->status = name_index(weir_result_text(row, 4), status_names, lengthof(status_names));
	reader->slot_name = weir_result_text(row, 5);
	reader->slot_pending = weir_result_bool(row, 6);
	reader->epoch = weir_result_int64(row, 7);
	reader->processed_lsn = weir_result_lsn(row, 8);
	weir_reader_identity(&system_identifier, &timeline);
	reader->is_ours = weir_result_int64(row, 9) == system_identifier &&
		weir_result_int(row, 10) == timeline && weir_result_oid(row, 11) == MyDatabaseId;
	return reader;
}

int64
weir_reader_insert(int stream_id, WeirReaderKind kind, WeirReaderStatus status,
				   XLogRecPtr processed_lsn, bool slot_pending)
{
	int64		system_identifier;
	int			timeline;

	weir_reader_identity(&system_identifier, &timeline);
	weir_query(NULL,
			   "INSERT INTO weir_internal.reader (stream_id, kind, status, processed_lsn, slot_pending, "
			   "system_identifier, timeline, database_oid) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) "
			   "RETURNING reader_id",
			   "ittpblio", stream_id, kind_names[kind], status_names[status], processed_lsn,
			   (int) slot_pending, system_identifier, timeline, MyDatabaseId);
	return weir_result_int64(0, 1);
}

WeirReaderRow *
weir_reader_get(int64 reader_id)
{
	if (weir_query(NULL, "SELECT " READER_COLUMNS " FROM weir_internal.reader WHERE reader_id = $1",
				   "l", reader_id) == 0)
		return NULL;
	return reader_from_result(0);
}

WeirReaderRow *
weir_reader_get_main(int stream_id)
{
	if (weir_query(NULL, "SELECT " READER_COLUMNS " FROM weir_internal.reader "
				   "WHERE stream_id = $1 AND kind = 'main'", "i", stream_id) == 0)
		return NULL;
	return reader_from_result(0);
}

List *
weir_reader_list(void)
{
	uint64		count = weir_query(NULL, "SELECT " READER_COLUMNS
								   " FROM weir_internal.reader ORDER BY reader_id", "");
	List	   *result = NIL;

	for (uint64 row = 0; row < count; row++)
		result = lappend(result, reader_from_result(row));
	return result;
}

WeirReaderRow *
weir_reader_claim(int64 reader_id)
{
	if (weir_query(NULL,
				   "UPDATE weir_internal.reader SET epoch = epoch + 1 "
				   "WHERE reader_id = $1 AND status <> 'ended' AND kind <> 'stopped' RETURNING " READER_COLUMNS,
				   "l", reader_id) == 0)
		return NULL;
	return reader_from_result(0);
}

void
weir_reader_set_slot(int64 reader_id, WeirReaderStatus status, const char *slot_name)
{
	weir_query(NULL, "UPDATE weir_internal.reader SET status = $2, slot_name = $3 WHERE reader_id = $1",
			   "ltn", reader_id, status_names[status], slot_name);
}

void
weir_reader_start_at(int64 reader_id, XLogRecPtr processed_lsn)
{
	weir_query(NULL,
			   "UPDATE weir_internal.reader SET status = 'running', processed_lsn = $2 WHERE reader_id = $1",
			   "lp", reader_id, processed_lsn);
}

void
weir_reader_set_kind(int64 reader_id, WeirReaderKind kind)
{
	weir_query(NULL, "UPDATE weir_internal.reader SET kind = $2 WHERE reader_id = $1",
			   "lt", reader_id, kind_names[kind]);
}

void
weir_reader_stop_at(int64 reader_id, XLogRecPtr processed_lsn)
{
	weir_query(NULL,
			   "UPDATE weir_internal.reader SET kind = 'stopped', processed_lsn = $2 WHERE reader_id = $1",
			   "lp", reader_id, processed_lsn);
}

void
weir_reader_slot_copied(int64 reader_id, const char *slot_name)
{
	weir_query(NULL,
			   "UPDATE weir_internal.reader SET slot_name = $2, slot_pending = false WHERE reader_id = $1",
			   "ln", reader_id, slot_name);
}

void
weir_reader_end(int64 reader_id)
{
	weir_query(NULL,
			   "UPDATE weir_internal.reader SET status = 'ended', epoch = epoch + 1, slot_pending = false, "
			   "kind = CASE kind WHEN 'main' THEN 'stopped' ELSE kind END WHERE reader_id = $1",
			   "l", reader_id);
}

void
weir_reader_delete(int64 reader_id)
{
	weir_query(NULL, "DELETE FROM weir_internal.reader WHERE reader_id = $1", "l", reader_id);
}

void
weir_reader_lock(int64 reader_id)
{
	weir_query(NULL, "SELECT 1 FROM weir_internal.reader WHERE reader_id = $1 FOR UPDATE", "l", reader_id);
}

bool
weir_reader_try_lock(int64 reader_id)
{
	return weir_query(NULL, "SELECT 1 FROM weir_internal.reader WHERE reader_id = $1 FOR UPDATE SKIP LOCKED",
					  "l", reader_id) > 0;
}

bool
weir_reader_lock_two(int64 first, int64 second, XLogRecPtr *first_lsn, XLogRecPtr *second_lsn)
{
	uint64		count = weir_query(NULL,
								   "SELECT reader_id, processed_lsn FROM weir_internal.reader "
								   "WHERE reader_id IN ($1, $2) AND status = 'running' "
								   "ORDER BY reader_id FOR UPDATE", "ll", first, second);

	if (count != 2)
		return false;
	for (uint64 row = 0; row < count; row++)
	{
		if (weir_result_int64(row, 1) == first)
			*first_lsn = weir_result_lsn(row, 2);
		else
			*second_lsn = weir_result_lsn(row, 2);
	}
	return true;
}

XLogRecPtr
weir_reader_pending_floor(int stream_id)
{
	weir_query(NULL,
			   "SELECT min(processed_lsn) FROM weir_internal.reader WHERE stream_id = $1 AND slot_pending",
			   "i", stream_id);
	return weir_result_lsn(0, 1);
}

bool
weir_reader_advance(int64 reader_id, int64 epoch, XLogRecPtr from, XLogRecPtr to,
					TimestampTz commit_time, int64 transactions, int64 rows)
{
	static SPIPlanPtr plan = NULL;

	return weir_query(&plan,
					  "UPDATE weir_internal.reader SET processed_lsn = $4, "
					  "last_commit_time = coalesce($5, last_commit_time), batches = batches + 1, "
					  "transactions = transactions + $6, rows = rows + $7 "
					  "WHERE reader_id = $1 AND epoch = $2 AND processed_lsn = $3 AND status = 'running' "
					  "AND kind <> 'stopped'",
					  "llppzll", reader_id, epoch, from, to, commit_time, transactions, rows) == 1;
}
