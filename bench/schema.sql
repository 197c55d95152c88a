-- What all parts work on: Nexmark's bids, as in the figures of others.
CREATE EXTENSION pg_weir;
CREATE SCHEMA bench;

CREATE TABLE bids (
    auction bigint, bidder bigint, price bigint, channel text, url text, date_time timestamptz, extra text
);

-- Rows to insert: channels are 100, prices 10,000, auctions as many as asked for.
CREATE FUNCTION bench.some_bids(count bigint, auctions bigint) RETURNS SETOF bids LANGUAGE sql VOLATILE AS $$
    SELECT floor(random() * auctions)::bigint, floor(random() * 10000)::bigint, floor(random() * 10000)::bigint,
        'channel-' || floor(random() * 100)::int, 'https://www.nexmark.com/item.htm?query=' || i, now(),
        repeat(chr(97 + (i % 26)::int), 60)
    FROM generate_series(1, count) i
$$;

-- A backlog of that many transactions with that many rows each.
CREATE PROCEDURE bench.load(transactions int, rows_each int, auctions bigint) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..transactions LOOP
        INSERT INTO bids SELECT * FROM bench.some_bids(rows_each, auctions);
        COMMIT;
    END LOOP;
END
$$;

-- Single rows: without generate_series, which would cost more than the insert.
CREATE PROCEDURE bench.load_single(transactions int, auctions bigint) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..transactions LOOP
        INSERT INTO bids VALUES (floor(random() * auctions), i, floor(random() * 10000),
            'channel-' || (i % 100), 'https://www.nexmark.com/item.htm?query=' || i, now(),
            'abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefgh');
        COMMIT;
    END LOOP;
END
$$;

-- CPU time that a process of the server has had.
CREATE FUNCTION bench.cpu_ms(pid int) RETURNS float8 LANGUAGE sql VOLATILE AS $$
    SELECT split_part(pg_read_file(format('/proc/%s/schedstat', pid)), ' ', 1)::float8 / 1e6
$$;

-- Waits without holding a snapshot, which weir.wait_for cannot; returns when it was reached.
CREATE PROCEDURE bench.wait_until_read(lsn pg_lsn, INOUT reached timestamptz DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
    reader bigint := (SELECT reader_id FROM weir.readers WHERE kind = 'main');
BEGIN
    COMMIT;
    LOOP
        reached := clock_timestamp();
        EXIT WHEN (SELECT a.scanned_lsn >= lsn FROM weir_internal.reader_activity(reader) a);
        COMMIT;
        PERFORM pg_sleep(0.002);
    END LOOP;
END
$$;
