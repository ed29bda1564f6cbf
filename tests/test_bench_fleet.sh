#!/bin/bash
# SPDX-License-Identifier: MIT
# ssdtf-bench fleet: exit codes and words, and that a small run has every figure that
# bench/fleet/fleet.h names. No test looks at a time.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/tap.sh

O=$(realpath "${O:-build}")
bench=$O/ssdtf-bench
if [[ ! -x $bench || ! -x $O/ssdtf-hsmd || ! -r /usr/lib/softhsm/libsofthsm2.so ]]; then
	echo '1..0 # SKIP ssdtf-bench, ssdtf-hsmd or SoftHSM is not there'
	exit 4
fi
work=$(mktemp -d) || exit 1
chmod o+x "$work" # servers run as nobody
export TMPDIR=$work/tmp
mkdir "$TMPDIR"
trap 'rm -rf "$work"' EXIT

refuses() { # STATUS TEXT ARGUMENT...
	tap_refuses "$1" "$2" "$bench" fleet "${@:3}"
}

refuses 64 '--devices: a number from 100 to 200000' --devices 99
refuses 64 '--devices: numbers with commas between them' --devices 100:200
refuses 64 '--devices: at most 8 numbers' --devices 100,100,100,100,100,100,100,100,100
refuses 64 '--rounds: a number from 1 to 16' --rounds 17
refuses 64 'not an option: "now"' now
refuses 69 'ssdtf-admin is not there' --programs "$work"

if ((EUID)) || ! unshare --net --pid --mount --fork true 2>/dev/null; then
	tap_skip 'a small run has every figure' 'it takes root and namespaces'
	tap_done
	exit
fi
refuses 73 'No such file or directory' --json "$work/none/json"
rounds=$(tap_rounds 2)
"$bench" fleet --devices 100,300 --rounds "$rounds" --json "$work/json" >"$work/out" \
	2>"$work/err" &&
	/usr/bin/python3 - "$work/json" "$rounds" <<'END'
import json, sys
with open(sys.argv[1], encoding="utf-8") as f:
    j = json.load(f)
assert [e["devices"] for e in j["entries"]] == [100, 300], j["entries"]
for e in j["entries"]:
    assert e["grants"] == e["devices"] and e["bundle_bytes"] > 600 * e["devices"], e
    for name in ("start_s", "reload_s", "rss_kib", "reloaded_rss_kib"):
        f = e[name]
        assert f["n"] == int(sys.argv[2]) and 0 < f["min"] <= f["median"] <= f["max"], (name, f)
assert j["command"][:2] == ["ssdtf-bench", "fleet"] and j["rounds"] == int(sys.argv[2]), j
END
tap $? 'a small run has every figure'
tap_note <"$work/err"
[[ ! $(ls -A "$TMPDIR") ]]
tap $? 'no folder is left of it'
tap_done
