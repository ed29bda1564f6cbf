#!/bin/bash
# SPDX-License-Identifier: MIT
# ssdtf-bench: its exit codes and words, that a run of a moment has all its figures, and that
# nothing of it is left, whatever way it ends. No test looks at a time.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/tap.sh

O=$(realpath "${O:-build}")
bench=$O/ssdtf-bench
scale=${HARNESS_TIMEOUT_SCALE:-1}
if [[ ! -x $bench ]]; then
	echo '1..0 # SKIP ssdtf-bench is not built'
	exit 4
fi
work=$(mktemp -d) || exit 1
# Its folders are made here, and what it starts has this in its environment.
export TMPDIR=$work/tmp SSDTF_BENCH_TEST=$work
mkdir "$TMPDIR"
chmod 711 "$work"
trap 'left | sed -n "s|^/proc/\([0-9]*\)/.*|\1|p" | xargs -r kill -KILL; rm -rf "$work"' EXIT

refuses() { # STATUS TEXT ARGUMENT...
	tap_refuses "$1" "$2" "${as[@]}" "$bench" "${@:3}"
}

# What is left of a run: processes (not zombies, which are their new parent's), mounts, folders.
left() {
	local file name

	# shellcheck disable=SC2013 # no blanks in these names
	for file in $(grep -lzF "SSDTF_BENCH_TEST=$work" /proc/[0-9]*/environ 2>/dev/null); do
		{ read -r name <"${file%environ}comm"; } 2>/dev/null || continue
		grep -q '^State:.[ZX]' "${file%environ}status" 2>/dev/null && continue
		[[ $name == ssdtf-* || $name == mosquitto ]] && echo "$file: $name"
	done
	grep -F "$work" /proc/self/mountinfo
	ls -A "$TMPDIR"
}

# gone NAME: nothing is left, or will be in a moment.
gone() {
	local i

	for ((i = 0; i < 20 * scale; i++)); do
		[[ $(left) ]] || break
		sleep 0.1
	done
	[[ ! $(left) ]]
	tap $? "$1"
	left | tap_note
}

# --- words -------------------------------------------------------------------------------------
as=()
refuses 64 'is no command' flod
refuses 64 '--rate: a number from 1 to' flood --rate 0
refuses 64 '--rate: a number from 1 to' flood --rate 1e4
refuses 64 '--seconds: a number from' flood --seconds 21
refuses 64 '--seconds: a number from' flood --seconds nan
refuses 64 '--kind: a list of garbage, connect' flood --kind garbage,,idle
refuses 64 '--filter: a list of on, checks, off' flood --filter maybe
refuses 64 '--rounds: a number from 1 to 16' flood --rounds 17
refuses 64 'takes 221 devices' flood --connects 1000 --devices 200
refuses 64 'too many connections at a time' flood --rate 200000 --hold-ms 1000
refuses 64 'not an option: "now"' flood now
"$bench" flood --help >"$work/out" 2>"$work/err" && [[ ! -s $work/err ]] &&
	grep -q -- '--price-pairs' "$work/out"
tap $? '--help lists the options'
"$bench" >"$work/out" 2>"$work/err"
[[ $? == 64 && ! -s $work/out ]] && grep -q '^Usage:' "$work/err"
tap $? 'without a command: usage, and 64'

if ((EUID)); then
	refuses 77 'takes root' flood
	tap_skip 'the rest' 'needs root'
	tap_done
	exit
fi
refuses 73 'No such file or directory' flood --json "$work/none/json"
refuses 69 'is not there: make, or --programs DIR' flood --programs "$work"
chmod 700 "$work"
refuses 73 'servers run as nobody' flood
chmod 711 "$work"
cp "$bench" "$work/ssdtf-bench" && bench=$work/ssdtf-bench
as=(setpriv --reuid 65534 --regid 65534 --clear-groups)
refuses 77 'takes root' flood
bench=$O/ssdtf-bench
as=(setpriv --bounding-set -sys_admin)
refuses 69 'run it as root with all capabilities' flood
gone 'nothing is left of one that was refused'

# --- a moment of each --------------------------------------------------------------------------
"$bench" flood --kind garbage,idle --filter on,off --mosquitto none --rate 300 --seconds 0.2 \
	--rounds 1 --devices 30 --clients 4 --connects 50 --price-pairs 1 \
	--json "$work/json" >"$work/out" 2>"$work/err"
status=$?
if ((status == 69)); then
	tap_skip 'a run' "$(tail -n 1 "$work/err")"
	tap_done
	exit
fi
((!status))
tap $? 'a run of a moment ends with 0'
((!status)) || tap_note <"$work/err"
gone 'nothing is left of it'
grep -q '^garbage ' "$work/out" && grep -q '^idle ' "$work/out" &&
	grep -q 'full sockets, each' "$work/out"
tap $? 'it prints its table'

# figures NAME EXPRESSION: over d, the JSON, and of(kind, server), a trial.
figures() {
	/usr/bin/python3 - "$work/json" "$2" <<'END' 2>"$work/why"
import json, sys
with open(sys.argv[1], encoding="utf-8") as f:
    d = json.load(f)
def of(kind, server):
    return next(t for t in d["trials"] if (t["kind"], t["server"]) == (kind, server))
good = eval(sys.argv[2])
if not good:
    print(json.dumps(d["trials"], indent=1), file=sys.stderr)
sys.exit(not good)
END
	tap $? "$1"
	tap_note <"$work/why"
}
numbers='reached_per_second server_us core_us machine_us full_sockets syn_recv
	idle_connects_per_second flood_connects_per_second'
figures 'every trial has its figures' \
	"all(isinstance(t[k], (int, float)) for t in d['trials'] for k in '''$numbers'''.split())"
figures 'bogus connections were made, and good ones' \
	"all(t['bogus'] > 0 and t['idle_open']['done'] > 0 for t in d['trials'])"
figures 'without admission every kind gets a socket' \
	"of('garbage', 'off')['full_sockets'] > 0 and of('idle', 'off')['full_sockets'] > 0"
if grep -q 'filter is left out' "$work/err"; then
	why=$(sed -n 's/.*filter is left out: //p' "$work/err")
	tap_skip 'with the filter who says nothing gets none' "$why"
	tap_skip 'with the filter garbage gets none, but to be told why' "$why"
else
	figures 'with the filter who says nothing gets none' \
		"of('idle', 'filter')['full_sockets'] == 0"
	figures 'with the filter garbage gets none, but to be told why' \
		"of('garbage', 'filter')['full_sockets'] <= of('garbage', 'filter')['told']"
fi

# --- an end before the end ---------------------------------------------------------------------
# interrupted SIGNAL: in the midst of a flood.
interrupted() {
	local pid i

	"$bench" flood --kind connect --filter off --mosquitto none --rate 100 --seconds 20 \
		--rounds 1 --devices 20 --connects 10 >"$work/out" 2>"$work/err" &
	pid=$!
	for ((i = 0; i < 300 * scale; i++)); do
		grep -q '1 of 1: connect' "$work/err" && break
		sleep 0.1
	done
	sleep 0.5
	kill "-$1" $pid
	wait $pid 2>/dev/null
	[[ $? == $((128 + $(kill -l "$1"))) && $i -lt $((300 * scale)) ]]
	tap $? "$1 ends it"
}
interrupted TERM
gone 'nothing is left after TERM'
interrupted KILL
# Nobody was there any more to remove the folder; it is empty, which is all that rmdir takes.
for ((i = 0; i < 20 * scale; i++)); do
	rmdir "$TMPDIR"/ssdtf-bench.* 2>/dev/null && break
	sleep 0.1
done
gone 'no process and no mount is left after KILL, and the folder is empty'
tap_done
