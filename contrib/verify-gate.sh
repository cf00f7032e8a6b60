#!/usr/bin/env bash
# What the log of the history costs a served node: the same scenarios with --verify off and async, in turn.
# Fails if the median of operations a second, or of operations per second of the server's CPU time, falls below
# nine tenths with verification on.
#
#   cargo build --release && contrib/verify-gate.sh [rounds] [seconds] [scenarios]
set -euo pipefail
rounds=${1:-3} secs=${2:-5} scenarios=${3:-large-scale,sustained,transactions}
program=${CHRONOLITH:-target/release/chronolith}
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
run() {
    CHRONOLITH_VERIFY=$1 "$program" bench server --spawn --scenario "$scenarios" --secs "$secs" --json \
        > "$results/$1.$2.json"
}
for round in $(seq "$rounds"); do
    # Each mode goes first as often as the other.
    if ((round % 2)); then run off "$round"; run async "$round"; else run async "$round"; run off "$round"; fi
done
python3 - "$results" <<'PYTHON'
import collections, glob, json, os, statistics, sys

found = collections.defaultdict(list)
for path in glob.glob(os.path.join(sys.argv[1], "*.json")):
    mode = os.path.basename(path).split(".")[0]
    for row in json.load(open(path))["rows"]:
        for unit in ("per_second", "per_server_cpu_second"):
            found[row["name"], unit, mode].append(row[unit])
failed = False
for name, unit in dict.fromkeys((name, unit) for name, unit, _ in found):
    off, on = (statistics.median(found[name, unit, mode]) for mode in ("off", "async"))
    failed |= on < 0.9 * off
    print(f"{name:36} {unit:20} off {off:10.0f}  async {on:10.0f}  {100 * on / off:6.1f} %")
sys.exit(1 if failed else 0)
PYTHON
