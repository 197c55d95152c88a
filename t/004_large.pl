# Claim: size is a matter of time, not of memory or luck. A transaction of millions of rows, one
# of 20,000 subtransactions, a hundred operators on one stream, a source of hundreds of
# partitions, a table of 200 columns and keys so long that they are stored out of line: all
# exact (I7), with a reader whose memory is bounded. WEIR_LARGE=1 makes the transaction 10
# million rows long.
use strict;
use warnings;
use Test::More;
use Time::HiRes 'time';
use WeirTest;
use WeirSteps;

my $rows = $ENV{WEIR_LARGE} ? 10_000_000 : 2_000_000;
my $limit_kb = 400 * 1024;
# The server's defaults, but for the time that checkpoints take.
my $node = new_node('large', conf => "shared_buffers = 128MB\nlogical_decoding_work_mem = '64MB'\nmax_wal_size = 4GB\nautovacuum = off\nfsync = off\n");

# ---- one transaction of millions of rows

$node->safe_psql('postgres', q{
	CREATE TABLE clicks (page int, visitor int, ms int);
	ALTER TABLE clicks REPLICA IDENTITY FULL});
my $page_query = 'SELECT page, count(*) AS n, sum(ms) AS total FROM public.clicks GROUP BY page';
my $visitor_query = 'SELECT visitor, count(*) AS n, max(ms) AS slowest FROM public.clicks WHERE ms > 500 GROUP BY visitor';
$node->safe_psql('postgres', qq{SELECT weir.create_operator('pages', \$\$$page_query\$\$)});
$node->safe_psql('postgres', qq{SELECT weir.create_operator('visitors', \$\$$visitor_query\$\$)});
$node->safe_psql('postgres', q{SELECT weir.wait_for(timeout => '60 s')});
my $start = time;
$node->safe_psql('postgres', qq{INSERT INTO clicks SELECT i % 1000, i % 20000, i % 1009 FROM generate_series(1, $rows) i});
my $written = time - $start;
my $end = $node->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
my $reader = worker_pid($node, 'reader');
# Sampled while it works: what matters is its own memory, not the shared buffers it has touched.
my ($highest, $caught_up) = (0, 0);
my ($session, $watcher) = (open_session($node), open_session($node));
$session->send(q{SELECT weir.wait_for(timeout => '240 s')});
until ($caught_up)
{
	my ($kb) = process_memory_kb($reader);
	$highest = $kb if $kb > $highest;
	$caught_up = $watcher->query(qq{SELECT scanned_lsn >= '$end' FROM weir.readers WHERE kind = 'main'}) eq 't' || time - $start > 240;
	wait_idle(0.1);
}
unlike($session->answer, qr/ERROR/, "a transaction of $rows rows is applied");
note(sprintf('%d rows: written in %.1f s, visible after %.1f s, reader at most %d MB', $rows, $written, time - $start, $highest / 1024));
is_exact($node, 'pages', $page_query, 'by page');
is_exact($node, 'visitors', $visitor_query, 'by visitor');
cmp_ok($highest, '<', $limit_kb, 'the reader used less than 400 MB of its own');
is(worker_pid($node, 'reader'), $reader, 'it is the same reader');
# The same length of updates and deletes, which carry old rows.
$node->safe_psql('postgres', 'UPDATE clicks SET ms = ms + 1 WHERE visitor % 4 = 0');
$node->safe_psql('postgres', 'DELETE FROM clicks WHERE visitor % 3 = 0');
$node->safe_psql('postgres', q{SELECT weir.wait_for(timeout => '120 s')});
is_exact($node, 'pages', $page_query, 'after updates and deletes');
is_exact($node, 'visitors', $visitor_query, '... with max, which has to look for the next');
cmp_ok((process_memory_kb($reader))[0], '<', $limit_kb, '... within the same memory');
# Rolled back: decoded for nothing.
$node->safe_psql('postgres', 'BEGIN; INSERT INTO clicks SELECT i % 1000, 1, 1 FROM generate_series(1, 200000) i; ROLLBACK');
is_exact($node, 'pages', $page_query, 'a large transaction that was rolled back left no trace');

# ---- subtransactions

$node->safe_psql('postgres', q{DO $$
	BEGIN
		FOR i IN 1 .. 20000 LOOP
			BEGIN
				INSERT INTO public.clicks VALUES (i % 1000, 7, 900);
				IF i % 5 = 0 THEN RAISE division_by_zero; END IF;
			EXCEPTION WHEN division_by_zero THEN NULL;
			END;
		END LOOP;
	END $$});
$node->safe_psql('postgres', q{SELECT weir.wait_for(timeout => '60 s')});
is_exact($node, 'pages', $page_query, '20000 subtransactions, every fifth rolled back');
is_exact($node, 'visitors', $visitor_query, '... by visitor');
$node->safe_psql('postgres', q{SELECT weir.drop_operator(operator) FROM weir.operators});

# ---- a hundred operators on one stream

create_sales($node, 500);
$start = time;
$node->safe_psql('postgres', q{
	SELECT weir.create_operator('many_' || i, format('SELECT shop, count(*) AS n, sum(amount + %s) AS total FROM public.sales GROUP BY shop', i))
	FROM generate_series(1, 100) i});
my ($status, undef, $stderr) = $node->psql('postgres', q{SELECT weir.wait_for(timeout => '120 s')});
is($stderr, '', 'a hundred operators are built');
note(sprintf('a hundred operators built in %.1f s', time - $start));
$start = time;
$node->safe_psql('postgres', q{INSERT INTO sales (shop, amount) VALUES ('s1', 1)});
$node->safe_psql('postgres', q{UPDATE sales SET amount = amount * 2 WHERE id % 7 = 0});
$node->safe_psql('postgres', q{SELECT weir.wait_for(timeout => '60 s')});
note(sprintf('two changes in a hundred operators took %.2f s', time - $start));
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM generate_series(1, 100) i, LATERAL (
		SELECT query_to_xml(format('SELECT count(*) AS c FROM ((TABLE many_%s EXCEPT ALL SELECT shop, count(*), sum(amount + %s) FROM sales GROUP BY shop)
			UNION ALL (SELECT shop, count(*), sum(amount + %s) FROM sales GROUP BY shop EXCEPT ALL TABLE many_%s)) d', i, i, i, i), false, false, '')::text AS x) AS t
	WHERE x NOT LIKE '%<c>0</c>%'}), '0', '... each of them exact');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_replication_slots}), '1', '... and one slot for all');
$node->safe_psql('postgres', q{SELECT weir.drop_operator(operator) FROM weir.operators});
ok(poll_until($node, q{SELECT count(*) FROM pg_class WHERE relnamespace = 'weir_state'::regnamespace}, '0', 60), 'dropped all at once');

# ---- partitions

my $partitions = 300;
$node->safe_psql('postgres', qq{
	CREATE TABLE events (day int, kind text, amount int) PARTITION BY LIST (day);
	ALTER TABLE events REPLICA IDENTITY FULL;
	SELECT format('CREATE TABLE events_%s PARTITION OF events FOR VALUES IN (%s)', i, i) FROM generate_series(1, $partitions) i \\gexec
	SELECT format('ALTER TABLE events_%s REPLICA IDENTITY FULL', i) FROM generate_series(1, $partitions) i \\gexec
	INSERT INTO events SELECT 1 + i % $partitions, 'k' || i % 3, i FROM generate_series(1, 3000) i});
my $event_query = 'SELECT kind, count(*) AS n, sum(amount) AS total, max(day) AS latest FROM public.events GROUP BY kind';
my ($code, $error) = sqlstate_of($node, qq{SELECT weir.create_operator('by_kind', \$\$$event_query\$\$)});
is($error, '', "an operator over $partitions partitions");
if ($code eq '')
{
	is_exact($node, 'by_kind', $event_query, '... is built');
	$node->safe_psql('postgres', qq{
		INSERT INTO events SELECT 1 + i % $partitions, 'k' || i % 4, i FROM generate_series(1, 3000) i;
		UPDATE events SET day = 1 + (day + 1) % $partitions WHERE amount % 10 = 0;
		DELETE FROM events WHERE day % 50 = 3});
	is_exact($node, 'by_kind', $event_query, '... and follows all of them, rows that move between them too');
	$node->safe_psql('postgres', q{SELECT weir.drop_operator('by_kind')});
}

# ---- 200 columns, of which two count; long keys

my $columns = join ', ', map { "c$_ int DEFAULT $_" } 1 .. 200;
$node->safe_psql('postgres', qq{
	CREATE TABLE wide (id int, $columns);
	ALTER TABLE wide REPLICA IDENTITY FULL;
	INSERT INTO wide (id, c100) SELECT i, i % 9 FROM generate_series(1, 3000) i});
my $wide_query = 'SELECT c100, count(*) AS n, sum(c200) AS total FROM public.wide GROUP BY c100';
my $all_query = 'SELECT ' . join(', ', map { "sum(c$_) AS s$_" } 1 .. 200) . ' FROM public.wide';
$node->safe_psql('postgres', qq{SELECT weir.create_operator('wide_some', \$\$$wide_query\$\$)});
$node->safe_psql('postgres', qq{SELECT weir.create_operator('wide_all', \$\$$all_query\$\$)});
$node->safe_psql('postgres', q{SELECT weir.wait_for(timeout => '60 s')});
$node->safe_psql('postgres', 'UPDATE wide SET c200 = id WHERE id % 3 = 0; DELETE FROM wide WHERE id % 11 = 0');
is_exact($node, 'wide_some', $wide_query, 'three columns of 200');
is_exact($node, 'wide_all', $all_query, 'an operator with 200 columns of its own');

$node->safe_psql('postgres', q{
	CREATE TABLE documents (id int, title text, body text, size int);
	ALTER TABLE documents REPLICA IDENTITY FULL;
	ALTER TABLE documents ALTER body SET STORAGE EXTERNAL, ALTER title SET STORAGE EXTERNAL;
	INSERT INTO documents SELECT i, repeat('t' || i % 5, 500), repeat('b' || i, 2000), i FROM generate_series(1, 200) i});
my $title_query = 'SELECT title, count(*) AS n, sum(size) AS total FROM public.documents GROUP BY title';
my $body_query = 'SELECT max(body) AS last, min(length(body)) AS shortest FROM public.documents';
$node->safe_psql('postgres', qq{SELECT weir.create_operator('titles', \$\$$title_query\$\$)});
$node->safe_psql('postgres', qq{SELECT weir.create_operator('bodies', \$\$$body_query\$\$)});
$node->safe_psql('postgres', q{SELECT weir.wait_for(timeout => '60 s')});
# The long values are not written again by an UPDATE of another column; the old row has them all the same.
$node->safe_psql('postgres', 'UPDATE documents SET size = size + 1 WHERE id % 2 = 0');
$node->safe_psql('postgres', q{UPDATE documents SET title = title || 'x' WHERE id % 5 = 1});
$node->safe_psql('postgres', 'DELETE FROM documents WHERE id > 150');
$node->safe_psql('postgres', q{INSERT INTO documents SELECT i, repeat('t' || i % 7, 500), repeat('z' || i, 3000), i FROM generate_series(201, 260) i});
is_exact($node, 'titles', $title_query, 'keys stored out of line');
is_exact($node, 'bodies', $body_query, 'values stored out of line');
($code, $error) = sqlstate_of($node, q{INSERT INTO documents SELECT 999, string_agg(md5(i::text), ''), 'b', 1 FROM generate_series(1, 1000) i});
is($code, '', 'a key too long for an index is the writer\'s good right');
my ($shown) = poll_until($node, q{SELECT status <> 'live' FROM weir.operators WHERE operator = 'titles'::regclass}, 't', 10);
if ($shown)
{
	like($node->safe_psql('postgres', q{SELECT sqlstate FROM weir.versions WHERE operator = 'titles'::regclass}), qr/^54000$/,
		'... at which the operator stops and says so');
	is_exact($node, 'bodies', $body_query, '... and the others go on');
}
else
{
	is_exact($node, 'titles', $title_query, '... and is kept');
}

ok(free_of_crashes($node), 'no process crashed');
$_->finish for $session, $watcher;
$node->stop;
done_testing();
