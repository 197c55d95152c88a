# Sourced by the parts: running SQL, recording figures, and the operators all of them measure.
set -euo pipefail
bench=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
part=$(basename "$0")

sql() { psql -XAtq -v ON_ERROR_STOP=1 "$@"; }

# record CASE MEASURE UNIT ROUND VALUE
record() {
    [ -n "$5" ] || { echo "$part: no figure for $1: $2" >&2; exit 1; }
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$part" "$@" >> "$BENCH_RESULTS/figures.tsv"
    printf '%s: %s: %s = %s %s (round %s)\n' "$part" "$1" "$2" "$5" "$3" "$4" >&2
}

# by_size QUICK NORMAL FULL
by_size() {
    case $BENCH_SIZE in quick) echo "$1" ;; normal) echo "$2" ;; full) echo "$3" ;; esac
}

calculate() { perl -e "printf '%.6g', $1"; }

# definition NAME: by channel (100 groups) or by auction, with or without an extreme
definition() {
    case $1 in
        channel) echo "SELECT channel, count(*) AS n, sum(price) AS total, max(price) AS highest FROM bids GROUP BY channel" ;;
        channel_sums) echo "SELECT channel, count(*) AS n, sum(price) AS total FROM bids GROUP BY channel" ;;
        auction) echo "SELECT auction, count(*) AS n, sum(price) AS total, max(price) AS highest FROM bids GROUP BY auction" ;;
        auction_sums) echo "SELECT auction, count(*) AS n, sum(price) AS total FROM bids GROUP BY auction" ;;
    esac
}

# create_operator DEFINITION MODE: the operator "busy", live; MODE is append_only or full
create_operator() {
    local append_only=false identity=full
    if [ "$2" = append_only ]; then append_only=true identity=default; fi
    sql -c "ALTER TABLE bids REPLICA IDENTITY $identity" \
        -c "SELECT weir.create_operator('busy', \$d\$$(definition "$1")\$d\$, options => '{\"append_only\": $append_only}')" \
        -c "SELECT weir.wait_for('busy', timeout => '10 min')" >/dev/null
}

drop_operator() { sql -c "SELECT weir.drop_operator('busy')" >/dev/null; }

# check_view VIEW DEFINITION: a figure of something that computes wrongly is worth nothing
check_view() {
    local columns differing
    columns=$(definition "$2" | sed -E 's/^SELECT //; s/ FROM .*//; s/[a-z]+\([a-z*]*\) AS //g')
    differing=$(sql -c "SET work_mem = '2GB'" \
        -c "SELECT count(*) FROM ((SELECT $columns FROM $1 EXCEPT ALL ($(definition "$2"))) UNION ALL (($(definition "$2")) EXCEPT ALL SELECT $columns FROM $1)) d")
    [ "$differing" = 0 ] || { echo "$part: $1 differs from $2 in $differing rows" >&2; exit 1; }
}

# check_operator DEFINITION
check_operator() {
    check_view busy "$1"
}

reader_pid() { sql -c "SELECT pid FROM weir.readers WHERE kind = 'main'"; }
