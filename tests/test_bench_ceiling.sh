#!/bin/bash
# SPDX-License-Identifier: MIT
# ssdtf-bench hsm and crypto: exit codes and words, that a run of a moment has every figure that
# bench/ceiling/ceiling.h names, and that neither a folder nor a process is left, whatever way it
# ends. What is timed, the programs themselves prove right before. No test looks at a time.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/tap.sh

O=$(realpath "${O:-build}")
bench=$O/ssdtf-bench
module=/usr/lib/softhsm/libsofthsm2.so
scale=${HARNESS_TIMEOUT_SCALE:-1}
if [[ ! -x $bench || ! -x $O/ssdtf-hsmd || ! -r $module ]]; then
	echo '1..0 # SKIP ssdtf-bench, ssdtf-hsmd or SoftHSM is not there'
	exit 4
fi
work=$(mktemp -d) || exit 1
# Its folders are made here, and what it starts has this in its environment.
export TMPDIR=$work/tmp SSDTF_BENCH_TEST=$work
mkdir "$TMPDIR" "$work/tokens"
trap 'left | sed -n "s|^/proc/\([0-9]*\)/.*|\1|p" | xargs -r kill -KILL; rm -rf "$work"' EXIT

refuses() { # STATUS TEXT ARGUMENT...
	tap_refuses "$1" "$2" "$bench" "${@:3}"
}

# What is left of a run: processes (not zombies, which are their new parent's) and folders.
left() {
	local file name

	# shellcheck disable=SC2013 # no blanks in these names
	for file in $(grep -lzF "SSDTF_BENCH_TEST=$work" /proc/[0-9]*/environ 2>/dev/null); do
		{ read -r name <"${file%environ}comm"; } 2>/dev/null || continue
		grep -q '^State:.[ZX]' "${file%environ}status" 2>/dev/null && continue
		[[ $name == ssdtf-* || $name == softhsm* ]] && echo "$file: $name"
	done
	ls -A "$TMPDIR"
}

# Nothing is waited for: the program ends last.
gone() {
	[[ ! $(left) ]]
	tap $? "$1"
	left | tap_note
}

# --- words -------------------------------------------------------------------------------------
refuses 64 '--seconds: a number from 0.001 to 60' hsm --seconds 61
refuses 64 '--seconds: a number from 0.001 to 60' crypto --seconds nan
refuses 64 '--rounds: a number from 1 to 64' crypto --rounds 0
refuses 64 '--rounds: a number from 1 to 64' hsm --rounds 1e1
refuses 64 '--processes: a number from 1 to 64' hsm --processes 1,,2
refuses 64 'ascending, with commas between them' hsm --processes 2,1
refuses 64 '--module, --token and --pin-file go together' hsm --module $module
refuses 64 'not an option: "now"' crypto now
refuses 73 'No such file or directory' crypto --json "$work/none/json"
TMPDIR=$work/none refuses 73 'No such file or directory' hsm
"$bench" hsm --help >"$work/out" 2>"$work/err" && [[ ! -s $work/err ]] &&
	grep -q -- '--pin-file' "$work/out"
tap $? '--help lists the options'

# --- a token of one's own ----------------------------------------------------------------------
export SOFTHSM2_CONF=$work/softhsm2.conf
printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' \
	"$work/tokens" >"$SOFTHSM2_CONF"
softhsm2-util --init-token --free --label own --pin own-4711 --so-pin own-4711 >"$work/out" 2>&1 ||
	tap_note <"$work/out"
(umask 077 && echo own-4711 >"$work/pin" && echo another >"$work/bad-pin")
own=(hsm --module "$module" --token own --pin-file "$work/pin")
refuses 69 'cannot open shared object file' hsm --module "$work/none.so" --token own \
	--pin-file "$work/pin"
refuses 69 'no token labelled "other"' hsm --module $module --token other --pin-file "$work/pin"
refuses 77 'CKR_PIN_INCORRECT' hsm --module $module --token own --pin-file "$work/bad-pin"
refuses 78 'No such file or directory' hsm --module $module --token own --pin-file "$work/none"
refuses 78 'ssdtf-hsmd keygen' "${own[@]}"
chmod 644 "$work/pin"
refuses 77 'chmod 600' "${own[@]}"
chmod 600 "$work/pin"
gone 'nothing is left of those that were refused'

# figures NAME EXPRESSION: over d, the JSON, of(kind), its entries of that kind, and hsm and crypto,
# the names that ceiling.h promises.
figures() {
	/usr/bin/python3 - "$work/json" "$2" <<'END' 2>"$work/why"
import json, re, sys
with open(sys.argv[1], encoding="utf-8") as f:
    d = json.load(f)
with open("bench/ceiling/ceiling.h", encoding="utf-8") as f:
    named = re.search(r"Names, with.*?\*/", f.read(), re.S)[0]
named = named.split("What needs a token")[0].split("\n *   crypto ")
hsm, crypto = (set(re.findall(r'"([^"]+)"', part)) for part in named)
def of(kind):
    return [e for e in d["entries"] if e["kind"] == kind]
def names(processes):
    return {e["name"] for e in of("speed") if e["processes"] == processes}
def sound(figure, n):
    return figure["n"] == n and 0 < figure["min"] <= figure["median"] <= figure["max"]
good = eval(sys.argv[2])
if not good:
    for e in d["entries"]:
        print(json.dumps(e), file=sys.stderr)
sys.exit(not good)
END
	tap $? "$1"
	tap_note <"$work/why"
}

# run NAME COMMAND...: a moment of it, with tables and JSON.
run() {
	local name=$1 status

	shift
	"$bench" "$@" --json "$work/json" >"$work/out" 2>"$work/err" </dev/null
	status=$?
	[[ $status == 0 ]] && grep -q 'CPU us each' "$work/out" &&
		grep -q 'CPU time, one by the other' "$work/out"
	tap $? "$name"
	((!status)) || tap_note <"$work/err"
	gone "nothing is left of it: $name"
}

"$O/ssdtf-hsmd" keygen --module $module --token own --pin-file "$work/pin" \
	--public "$work/public" >"$work/out" 2>&1 || tap_note <"$work/out"
find "$work/tokens" -name '*.object' | sort >"$work/before"
run 'hsm, a token of ours' "${own[@]}" --seconds 0.01 --rounds 2 --processes 1,3
find "$work/tokens" -name '*.object' | sort | cmp -s - "$work/before"
tap $? 'no object is left in the token'
figures 'hsm has every figure, for each number of processes' 'names(1) == names(3) == hsm'
figures 'hsm: figures are of two rounds, and above nothing' \
	"all(sound(e[k], 2) for e in of('speed') for k in ('per_second', 'cpu_us')) and \
	 all(sound(e['ratio'], 2) for e in of('ratio')) and len(of('ratio')) == 4"
figures 'hsm: the growth of memory' "[e['name'] for e in of('memory')] == ['convert'] * 2"
figures 'hsm: where the figures are from' \
	"d['command'][:4] == ['ssdtf-bench', 'hsm', '--module', '$module'] and \
	 d['module'] == '$module' and d['machine']['cpus'] > 0 and d['commit'] and d['date']"

# --- in process --------------------------------------------------------------------------------
run 'crypto' crypto --seconds 0.001 --rounds 1 --processes 1,2
figures 'crypto has every figure, for each number of processes' 'names(1) == names(2) == crypto'
figures 'crypto: figures are above nothing' \
	"all(sound(e[k], 1) for e in of('speed') for k in ('per_second', 'cpu_us')) and \
	 all(sound(e['ratio'], 1) for e in of('ratio'))"
figures 'crypto: sizes, batches and contexts are told apart' \
	"len({(e['name'], e.get('bytes'), e.get('batch'), e.get('context'), e['processes']) \
	 for e in of('speed')}) == len(of('speed'))"
figures 'crypto: nothing to compare is missing' \
	"{e['of'] for e in of('ratio')} | {e['to'] for e in of('ratio')} <= crypto and \
	 len(of('ratio')) == len({(e['name'], e['processes']) for e in of('ratio')}) == 44"

# --- an end before the end ---------------------------------------------------------------------
# interrupted SIGNAL CONDITION WHEN OPTION...: hsm, as soon as the condition holds.
interrupted() {
	local signal=$1 condition=$2 when=$3 pid i

	shift 3
	set -m # else bash has it ignore SIGINT
	"$bench" hsm --seconds 20 --rounds 1 --processes 2 "$@" >"$work/out" 2>"$work/err" \
		</dev/null &
	pid=$!
	set +m
	for ((i = 0; i < 600 * scale; i++)); do
		eval "$condition" && break
		sleep 0.05
	done
	kill "-$signal" $pid
	wait $pid 2>/dev/null
	[[ $? == $((128 + $(kill -l "$signal"))) && $i -lt $((600 * scale)) ]]
	tap $? "$signal ends it: $when"
	gone "nothing is left after $signal: $when"
}
# shellcheck disable=SC2016 # for eval
interrupted INT '[[ -e $(echo "$TMPDIR"/*/pin) ]]' 'while the keys of a throw-away token are made'
# shellcheck disable=SC2016
interrupted TERM 'grep -q "round 1 of 1" "$work/err"' 'in the midst of a round' "${own[@]:1}"
tap_done
