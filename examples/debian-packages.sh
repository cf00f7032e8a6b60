#!/usr/bin/env bash
# Loads every package of this machine's Debian package index (tens of thousands of records) into a node
# through the etcd API, reads all of it back, then queries a prefix, watches a key, swaps it by
# compare-and-swap and reads an old revision. With etcdctl installed it asks the same from there.
#
#   examples/debian-packages.sh                          # starts a node of its own, in a temporary directory
#   examples/debian-packages.sh --engine rocksdb         # the same, with its data on disk (compiles RocksDB)
#   examples/debian-packages.sh http://127.0.0.1:2379    # uses a running server, ours or etcd
#
# Needs: a Debian or Ubuntu machine; Rust. Without a downloaded index (`apt-get update`) it takes the
# installed packages instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n--- %s\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }
target=${CARGO_TARGET_DIR:-target}
engine=memory endpoint=
case ${1-} in
'') ;;
--engine) engine=${2:?--engine memory, or --engine rocksdb} ;;
http://*) endpoint=$1 ;;
*) fail "usage: $0 [--engine memory|rocksdb | http://HOST:PORT]" ;;
esac

say "build"
features=()
if [ "$engine" != memory ]; then features=(--features "$engine"); fi
cargo build --release --quiet --package chronolith "${features[@]}" --bin chronolith --example load_debian_packages

directory=$(mktemp -d)
node=
clean_up() {
    if [ -n "$node" ]; then kill "$node" 2>/dev/null || true; wait "$node" || true; fi
    rm -rf "$directory"
}
trap clean_up EXIT

if [ -z "$endpoint" ]; then
    endpoint=http://127.0.0.1:23799
    if (exec 3<>"/dev/tcp/127.0.0.1/23799") 2>/dev/null; then fail "port 23799 is taken: stop what listens there"; fi
    "$target/release/chronolith" serve --engine "$engine" --data-dir "$directory/data" --listen-client-urls "$endpoint" &
    node=$!
    for _ in $(seq 100); do
        (exec 3<>"/dev/tcp/127.0.0.1/23799") 2>/dev/null && break
        kill -0 "$node" 2>/dev/null || fail "the node did not start"
        sleep 0.1
    done
fi

index=$directory/index
if command -v apt-cache >/dev/null; then apt-cache dumpavail >"$index"; fi
if [ ! -s "$index" ]; then
    say "no package index here; taking the installed packages (apt-get update fetches the index)"
    cp /var/lib/dpkg/status "$index"
fi

say "load $(grep -c '^Package:' "$index") records into $endpoint"
"$target/release/examples/load_debian_packages" "$endpoint" <"$index"

if ! command -v etcdctl >/dev/null; then
    say "etcdctl is not installed (apt install etcd-client); that was all"
    exit 0
fi
# Without "http://": etcdctl 3.4 would send the whole URL as the authority of some requests.
export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=${endpoint#http://}
run() { printf '\n$ %s\n' "$*"; "$@"; }
run etcdctl get --prefix --keys-only --limit 3 /debian/linux-image
revision=$(etcdctl get / --write-out json | sed 's/.*"revision":\([0-9]*\).*/\1/')
run etcdctl put /debian/example/1/all "first"
run etcdctl put /debian/example/1/all "second"
printf '\n$ etcdctl txn      # if value = "second" then put "third"\n'
printf 'value("/debian/example/1/all") = "second"\n\nput /debian/example/1/all third\n\nget /debian/example/1/all\n\n' | etcdctl txn
run etcdctl get --rev $((revision + 1)) /debian/example/1/all
printf '\n$ etcdctl watch --rev %s /debian/example/1/all\n' $((revision + 1))
timeout 2 etcdctl watch --rev $((revision + 1)) /debian/example/1/all || [ $? = 124 ]
run etcdctl endpoint status --write-out table
