#!/bin/bash
# SPDX-License-Identifier: MIT
# ssdtf-bench reach: its words, and a moment of it: every figure that bench/reach/reach.h names is
# there and above nothing, and nothing is lost or left. No test looks at a ratio, nor at a time.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/tap.sh

O=$(realpath "${O:-build}")
bench=$O/ssdtf-bench
if [[ ! -x $bench ]]; then
	echo '1..0 # SKIP ssdtf-bench is not built'
	exit 4
fi
work=$(mktemp -d) || exit 1
export TMPDIR=$work
chmod 711 "$work"
trap 'rm -rf "$work"' EXIT

refuses() { # STATUS TEXT ARGUMENT...
	tap_refuses "$1" "$2" "$bench" reach "${@:3}"
}

refuses 64 '--seconds: a number from 0.2 to 60' --seconds 0.1
refuses 64 '--seconds: a number from 0.2 to 60' --seconds nan
refuses 64 '--rounds: a number from 1 to 16' --rounds 17
refuses 64 '--receivers: a number from 1 to 1000' --receivers 0
refuses 64 '--only leaves nothing' --only mosquitto
refuses 64 'not an option: "now"' now
if ((EUID)); then
	refuses 77 'takes root'
	tap_skip 'the rest' 'needs root'
	tap_done
	exit
fi
refuses 73 'No such file or directory' --json "$work/none/json"

# What takes the most here is sealing ahead for ingress: it is left out where all is slow.
export only='*'
[[ ${TESTS_EFFORT-} == low ]] && only='e[gr][rs]' # conversions and egress
seconds=0.2
((${HARNESS_TIMEOUT_SCALE:-1} > 1)) && seconds=4 # something should come on slow machines, too
"$bench" reach --seconds $seconds --rounds 1 --receivers 4 --only "$only" --json "$work/json" \
	>"$work/out" 2>"$work/err" </dev/null
status=$?
if ((status == 69)) && grep -q 'SoftHSM\|run it as root' "$work/err"; then
	tap_skip 'a moment of it' "$(tail -n 1 "$work/err")"
	tap_done
	exit
fi
tap $status 'a moment of it'
((!status)) || tap_note <"$work/err"

# figures NAME EXPRESSION: over d, the JSON, e, its entries, and named, the names of reach.h.
figures() {
	/usr/bin/python3 - "$work/json" "$2" <<'END' 2>"$work/why"
import fnmatch, json, os, re, sys
with open(sys.argv[1], encoding="utf-8") as f:
    d = json.load(f)
with open("bench/reach/reach.h", encoding="utf-8") as f:
    text = re.search(r"Names:.*?\*/", f.read(), re.S)[0]
named = {n for n in re.findall(r'"([^"]+)"', text)
         if fnmatch.fnmatch(n, f"*{os.environ['only']}*")}
e = d["entries"]
def sound(figure):
    return figure["n"] == 1 and 0 < figure["min"] <= figure["median"] <= figure["max"]
good = eval("(" + sys.argv[2] + ")")
if not good:
    print(json.dumps(d), file=sys.stderr)
sys.exit(not good)
END
	tap $? "$1"
	tap_note <"$work/why"
}

figures 'every figure is there' "{x['name'] for x in e} == named and
	all(x['kind'] == 'reach' and x['cpus'] > 0 and x['bad'] == 0 for x in e)"
# What sealing adds may come out below nothing in a moment on a busy machine.
figures 'figures are above nothing' "all(sound(x['value']) for x in e if 'added' not in x['name'])"
figures 'a ratio is of what was reached, to what is done alone' "
	{x['name'] for x in e if x['unit'] == 'x'} == {x for x in named if 'egress' not in x} and
	all(sound(x[k]) for x in e if x['unit'] == 'x' for k in ('reached', 'alone')) and
	all(abs(x['reached']['median'] / x['alone']['median'] / x['value']['median'] - 1) < 1e-6
		for x in e if x['unit'] == 'x')"
figures 'what was to be the limit did something' \
	"all(x['busy'] and sound(x['busy']['given']) for x in e if x['unit'] == 'x')"
figures 'targets, and whether they are met' "
	{x['name']: x['wanted'] for x in e if x['wanted']} == {k: v for k, v in {
		'conversions, E fresh': {'at_least': 0.9},
		'ingress, a signature each': {'at_least': 0.9},
		'ingress, a signature for 64': {'at_least': 10},
		'egress, a signature for 64': {'at_most': 3},
		'egress, a signature for 256': {'at_most': 3}}.items() if k in named} and
	all(x['met'] == (x['value']['median'] >= x['wanted']['at_least']
		if 'at_least' in x['wanted'] else x['value']['median'] <= x['wanted']['at_most'])
		if x['wanted'] else x['met'] is None for x in e)"
figures 'where the figures are from' "d['tool'] == 'reach' and d['rounds'] == 1 and
	d['receivers'] == 4 and d['machine']['cpus'] > 0 and d['commit'] and d['date']"
grep -q '^conversions, E fresh .* >= 0.9: \(NOT MET\|met\)' "$work/out" &&
	grep -q '^egress under load, added  *-\?[0-9]' "$work/out"
tap $? 'what it prints has them, too'

left=$(ls -A "$work" | grep -v '^\(out\|err\|json\|why\)$')
[[ ! $left ]]
tap $? 'nothing is left'
tap_done
