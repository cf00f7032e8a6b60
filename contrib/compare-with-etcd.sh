#!/usr/bin/env bash
# Compares this node with a real etcd: the same load on both, one after the other, in several rounds on
# fresh data directories of one file system; prints the medians as a Markdown table.
#
#   LOADGEN=/path/to/loadgen contrib/compare-with-etcd.sh        # its source directory, or the built program
#   ROUNDS=5 ENGINE=rocksdb LOADGEN=… contrib/compare-with-etcd.sh
#   contrib/compare-with-etcd.sh                                 # without it: `chronolith bench server` on both
#
# loadgen is a closed-loop load generator for the etcd v3 API that prints one JSON object a run. Load and
# server share the machine, so compare ratios and operations per server CPU-second, not absolute rates.
# Needs: etcd on the PATH (Debian: apt install etcd-server), awk, Rust. About 35 s a round.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rounds=${ROUNDS:-3}
engine=${ENGINE:-memory}
secs=${SECS:-5}
target=${CARGO_TARGET_DIR:-target}
node=${CHRONOLITH:-$target/release/chronolith}
port=23890
endpoint=http://127.0.0.1:$port
scratch=$(mktemp -d "${TMPDIR:-/tmp}/chronolith-compare-XXXXXX")
server=
stop() { if [ -n "$server" ]; then kill -9 "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; server=; fi; }
trap 'stop; rm -rf "$scratch"' EXIT

command -v etcd >/dev/null || { echo "etcd is not on the PATH (apt install etcd-server)" >&2; exit 1; }
if [ -z "${CHRONOLITH:-}" ]; then
    features=$([ "$engine" = memory ] || echo "--features $engine")
    # shellcheck disable=SC2086 # the features are two words or none
    cargo build --release --quiet --package chronolith $features
fi
loadgen=${LOADGEN:-}
if [ -n "$loadgen" ] && [ -d "$loadgen" ]; then
    cargo build --release --quiet --manifest-path "$loadgen/Cargo.toml" --target-dir "$scratch/loadgen"
    loadgen=$scratch/loadgen/release/loadgen
fi

start() { # NAME DIRECTORY
    case $1 in
        chronolith) exec "$node" serve --engine "$engine" --data-dir "$2" --listen-client-urls "$endpoint" ;;
        etcd) exec etcd --data-dir "$2" --listen-client-urls "$endpoint" --advertise-client-urls "$endpoint" \
            --listen-peer-urls "http://127.0.0.1:$((port + 1))" --initial-advertise-peer-urls "http://127.0.0.1:$((port + 1))" \
            --initial-cluster "default=http://127.0.0.1:$((port + 1))" ;;
    esac >"$scratch/$1.log" 2>&1 &
    server=$!
    for _ in $(seq 100); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then sleep 1; return; fi
        sleep 0.1
    done
    echo "$1 does not open port $port:" >&2; tail -5 "$scratch/$1.log" >&2; exit 1
}

measure() { # NAME
    local common="--endpoints $endpoint --pids $server --label $1 --conns 10 --val 256"
    # shellcheck disable=SC2086 # the options are words
    {
        "$loadgen" put $common --clients 100 --secs "$secs"
        "$loadgen" get $common --clients 100 --secs "$secs" --keys 10000 --preload 10000
        "$loadgen" txn $common --clients 10 --total 10000 --prefix /txn/
        "$loadgen" watch $common --watchers 100 --total 1000 --clients 10 --prefix /watch/
    } >>"$scratch/results"
}

for round in $(seq "$rounds"); do
    # Who goes first changes from round to round.
    names=$([ $((round % 2)) = 1 ] && echo "chronolith etcd" || echo "etcd chronolith")
    for name in $names; do
        echo "round $round of $rounds: $name" >&2
        start "$name" "$scratch/$name-$round"
        if [ -n "$loadgen" ]; then
            measure "$name"
        else
            "$node" bench server --endpoint "$endpoint" --pid "$server" --quick --secs "$secs"
        fi
        stop
        rm -rf "$scratch/$name-$round"
    done
done
[ -n "$loadgen" ] || exit 0
if [ -n "${RESULTS:-}" ]; then cp "$scratch/results" "$RESULTS"; fi

printf '%s, %s CPUs, %s, %s rounds; chronolith: %s engine; %s\n\n' "$(date -u +%F)" "$(nproc)" "$(uname -sr)" "$rounds" \
    "$engine" "$(etcd --version | head -1)"
awk '
function field(name,  rest) {
    rest = $0
    if (!sub(".*\"" name "\":\"?", "", rest)) return ""
    sub("[,\"}].*", "", rest)
    return rest
}
function median(key,  n, i, j, t, v) {
    n = split(values[key], v, " ")
    for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j - 1] + 0 > v[j] + 0; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}
{
    work = field("work"); label = field("label")
    if (!(work in seen)) { seen[work] = ++works; order[works] = work }
    for (i = 1; i <= split("ops_s ops_per_srv_cpu_s p50_ms p99_ms srv_rss_mib errs", names, " "); i++)
        values[work, label, names[i]] = values[work, label, names[i]] " " field(names[i])
}
END {
    print "| work | server | op/s | op / server CPU-s | ratio | p50 ms | p99 ms | p99 ratio | RSS MiB |"
    print "|---|---|--:|--:|--:|--:|--:|--:|--:|"
    for (w = 1; w <= works; w++) {
        work = order[w]
        split("chronolith etcd", labels, " ")
        for (l = 1; l <= 2; l++) {
            label = labels[l]
            cpu = p99 = ""
            if (l == 1) {
                cpu = sprintf("%.2f", median(work SUBSEP "chronolith" SUBSEP "ops_per_srv_cpu_s") / median(work SUBSEP "etcd" SUBSEP "ops_per_srv_cpu_s"))
                p99 = sprintf("%.2f", median(work SUBSEP "chronolith" SUBSEP "p99_ms") / median(work SUBSEP "etcd" SUBSEP "p99_ms"))
            }
            key = work SUBSEP label SUBSEP
            printf "| %s | %s | %.0f | %.0f | %s | %.2f | %.2f | %s | %.0f |\n", work, label, median(key "ops_s"), median(key "ops_per_srv_cpu_s"), cpu, median(key "p50_ms"), median(key "p99_ms"), p99, median(key "srv_rss_mib")
        }
    }
}' "$scratch/results"
if grep -qv '"errs":0' "$scratch/results"; then echo; echo "THERE WERE ERRORS:"; grep -v '"errs":0' "$scratch/results"; exit 1; fi
