#!/bin/bash
# SPDX-License-Identifier: MIT
# ssdtf-bench run: its words, and a moment of each kind of scenario, plain and sealed, at each QoS:
# nothing may be lost, come twice, or out of order, and what receivers had must open. No test looks
# at a time.
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
	tap_refuses "$1" "$2" "${as[@]}" "$bench" run "${@:3}"
}

# --- words -------------------------------------------------------------------------------------
as=()
refuses 64 '--kind: connect, pairs, fan-in' --kind fan
refuses 64 '--server: plain, sealed or mosquitto' --server nanomq
refuses 64 '--clients: a number from 1 to' --clients 0
refuses 64 '--qos: a number from 0 to 2' --qos 3
refuses 64 '--payload: a number from 16 to' --payload 15
refuses 64 '--window: a number from 1 to' --window 0
refuses 64 '--rate: a number from 1 to' --rate nan
refuses 64 '--seconds: a number from 0.1 to' --seconds 0
refuses 64 '--batch: a number from 1 to' --batch 0
refuses 64 '--context: a number from 1 to 65536' --context 65537
refuses 64 'exclude each other' --rate 10 --window 10
refuses 64 '--rate: retained has none' --kind retained --rate 10
refuses 64 'only of ssdtf-broker' --server mosquitto --count-mallocs
refuses 64 'not an option: "now"' now
if ((EUID)); then
	refuses 77 'takes root'
	tap_skip 'the rest' 'needs root'
	tap_done
	exit
fi
refuses 73 'No such file or directory' --json "$work/none/json"
refuses 69 'is not there: make, or --programs DIR' --programs "$work"
as=(setpriv --bounding-set -sys_admin)
refuses 69 'run it as root with all capabilities' --seconds 0.1

# --- a moment of each --------------------------------------------------------------------------
seconds=0.1
((${HARNESS_TIMEOUT_SCALE:-1} > 1)) && seconds=1 # something should come on slow machines, too
as=()
"$bench" run --seconds 0.1 --clients 1 >"$work/out" 2>"$work/err"
if (($? == 69)); then
	tap_skip 'runs' "$(tail -n 1 "$work/err")"
	tap_done
	exit
fi

few='^(pairs|fan-out|an open loop|fan-in, sealed.*)$'
# moment NAME EXPRESSION OPTION...: a run ends well, and the expression holds of s, the scenario,
# and r, what came of it.
moment() {
	local name=$1 expression=$2 status

	shift 2
	# Where everything takes ten times as long, a few of them do.
	if [[ ${TESTS_EFFORT-} == low && ! $name =~ $few ]]; then
		return
	fi
	"$bench" run --seconds $seconds --window 5 --json "$work/json" "$@" \
		>"$work/out" 2>"$work/err"
	status=$?
	if ((status == 69)) && grep -q 'ASan runtime' "$work/err"; then
		tap_skip "$name" 'mallocs are not counted under a sanitizer'
		return
	fi
	((!status)) && /usr/bin/python3 - "$work/json" "$expression" <<'END' 2>>"$work/err"
import json, sys
with open(sys.argv[1], encoding="utf-8") as f:
    e = json.load(f)["entries"][0]
s, r = e["scenario"], e["rounds"][0]
good = eval("(" + sys.argv[2] + ")")
if not good:
    print(json.dumps(e), file=sys.stderr)
sys.exit(not good)
END
	status=$?
	tap $status "$name"
	((!status)) || tap_note <"$work/err"
}
clean="r['delivered'] > 0 and r['sent'] > 0 and
	r['lost'] == r['duplicated'] == r['disordered'] == r['wrong'] == 0 and
	{p['name'] for p in r['processes']} >= {'broker', 'clients'}"

moment 'connect' "$clean and r['mallocs'] > 0" --kind connect --clients 3 --count-mallocs
moment 'pairs' "$clean and r['rss_idle_kib'] >= r['rss_before_kib'] > 0" \
	--kind pairs --clients 3 --qos 1 --idle 20 --others 100
moment 'fan-in' "$clean" --kind fan-in --clients 5 --qos 2
moment 'fan-out' "$clean and r['delivered'] > r['sent']" --kind fan-out --clients 5 --payload 5000
moment 'retained' "$clean and r['delivered'] > r['sent']" \
	--kind retained --clients 2 --topics 100 --qos 1
moment 'ingress' "$clean and r['delivered'] <= r['sent'] + 15" --kind ingress --clients 3
moment 'an open loop' "$clean and
	0 < r['latency_us']['min'] <= r['latency_us']['p50'] <= r['latency_us']['p99'] <=
	r['latency_us']['p999'] <= r['latency_us']['max']" --rate 500 --clients 2 --qos 1
grep -q '^  latency, us: min ' "$work/out" && grep -q '^  deliveries a second  *[0-9]' "$work/out"
tap $? 'what it prints has them, too'
if [[ -x /usr/sbin/mosquitto ]]; then
	moment 'mosquitto' "${clean//broker/mosquitto}" --server mosquitto --clients 2 --qos 2
else
	tap_skip 'mosquitto' 'it is not installed'
fi

sealed="$clean and r['opened'] > 0 and r['signed_deliveries'] > 0 and r['signatures'] > 0 and
	r['token_packets'] > 0 and any(p['name'] == 'hsmd 0' for p in r['processes'])"
moment 'connect, sealed' "$clean and r['signatures'] > 0" --server sealed --kind connect --clients 2
moment 'pairs, sealed, two key processes' "$sealed and
	any(p['name'] == 'hsmd 1' for p in r['processes'])" \
	--server sealed --kind pairs --clients 1 --hsmd 2 --idle 1 --others 10
moment 'fan-in, sealed, E fresh each time' "$sealed and r['conversions'] > 0" \
	--server sealed --kind fan-in --clients 2 --context 1 --qos 1
moment 'fan-out, sealed, batches' "$sealed and r['capsule_hits'] + r['conversions'] > 0" \
	--server sealed --kind fan-out --clients 2 --context 7 --batch 5 --qos 2
moment 'ingress, sealed, batches' "$clean" \
	--server sealed --kind ingress --clients 2 --batch 5 --workers 1
moment 'retained, sealed' "$sealed" --server sealed --kind retained --clients 1 --topics 20

left=$(ls -A "$work" | grep -v '^\(out\|err\|json\)$')
[[ ! $left ]]
tap $? 'nothing is left'
tap_done
