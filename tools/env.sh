# Sourced by the scripts of this folder: which tree, which PostgreSQL, which user.
#
# Sets: tree, pg_config, pg_major, pg_bin, pg_share, pg_lib, pgxs_dir (after find_postgres).
# Nothing here changes the machine.

set -euo pipefail
export LC_ALL=C.UTF-8
# A make that called us must not steer the makes that we call.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES

tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
me=$(basename "$0")
runner=${WEIR_USER:-postgres}

say() { echo "$me: $*" >&2; }
die() { say "$*"; exit 2; }

# Name the PostgreSQL to use: $PG_CONFIG, else the newest one here that has its
# development files. False when there is none.
find_postgres() {
    local c
    pg_config=''
    for c in ${PG_CONFIG-} $(ls -vrd /usr/lib/postgresql/*/bin/pg_config 2>/dev/null) pg_config; do
        c=$(command -v "$c") || continue
        if [ -f "$("$c" --pgxs)" ] && [ -x "$("$c" --bindir)/postgres" ]; then pg_config=$c; break; fi
        [ -z "${PG_CONFIG-}" ] || break
    done
    [ -n "$pg_config" ] || return 1
    pg_major=$("$pg_config" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
    pg_bin=$("$pg_config" --bindir)
    pg_share=$("$pg_config" --sharedir)
    pg_lib=$("$pg_config" --pkglibdir)
    pgxs_dir=$(cd "$(dirname "$("$pg_config" --pgxs)")/.." && pwd -P)
    PG_CONFIG=$pg_config
    export PG_CONFIG
}

# Run a command as the user that may run a server: ourselves, or `postgres` when we
# are root, because initdb and postgres refuse root.
unprivileged() {
    if [ "$(id -u)" -ne 0 ]; then "$@"; return; fi
    # From a folder that user may be in; so "$@" must not depend on the current one.
    (cd / && exec setpriv --reuid="$runner" --regid="$runner" --init-groups -- env HOME="${TMPDIR:-/tmp}" "$@")
}

# make_folder VARIABLE: an own temporary folder that the unprivileged user may use.
# Short, because Unix sockets live in it.
make_folder() {
    local d
    d=$(mktemp -d "${TMPDIR:-/tmp}/weir.XXXXXX")
    own_folder "$d"
    printf -v "$1" %s "$d"
}

own_folder() {
    chmod 755 "$1"
    if [ "$(id -u)" -eq 0 ]; then chown "$runner:" "$1"; fi
}

# The files that belong to the tree, NUL-terminated: what git tracks or would track; in a
# tree without git, all that a build has not made.
list_tree() {
    if git -c safe.directory='*' -C "$tree" rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git -c safe.directory='*' -C "$tree" ls-files -z --cached --others --exclude-standard
    else
        (cd "$tree" && find . \( -name .git -o -path ./tmp_check -o -path ./results \) -prune -o -type f \
            ! -name '*.o' ! -name '*.so' ! -name '*.bc' ! -name '*.d' ! -name .build-flags -printf '%P\0')
    fi
}
