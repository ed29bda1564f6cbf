#!/bin/bash
# SPDX-License-Identifier: MIT
# ssdtf-bench page: what it refuses, and that its page has every figure it was given, says what it
# was not given, names nothing outside and cannot be written on by the files it is made of. Then a
# moment of compare and grow, where there is root. tests/bench/ has files of results, made up.
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
chmod 711 "$work"
trap 'rm -rf "$work"' EXIT
results=(tests/bench/{compare,grow,crypto}.json)

# refuses STATUS TEXT ARGUMENT...: it ends so, with one line that has TEXT in it, and no page.
refuses() {
	local status=$1 text=$2 bad=0

	shift 2
	rm -f "$work/page"
	"${as[@]}" "$bench" "$@" >"$work/out" 2>"$work/err" </dev/null
	[[ $? == "$status" ]] || bad=1
	grep -qF -- "$text" "$work/err" || bad=1
	[[ $(wc -l <"$work/err") == 1 && ! -s $work/out && ! -e $work/page ]] || bad=1
	tap $bad "refused with $status: $text"
	((!bad)) || tap_note <"$work/err"
}

# spoilt PYTHON: tests/bench/grow.json after that was done to d, in $work/spoilt.
spoilt() {
	/usr/bin/python3 - "$1" >"$work/spoilt" <<'END'
import json, sys
with open("tests/bench/grow.json", encoding="utf-8") as f:
    d = json.load(f)
exec(sys.argv[1])
json.dump(d, sys.stdout)
END
}

as=()

# --- what it refuses ---------------------------------------------------------------------------
out=(page --out "$work/page")
refuses 64 '--out FILE and at least one file' page --out "$work/page"
refuses 64 '--out FILE and at least one file' page tests/bench/grow.json
refuses 66 "$work/none: No such file" "${out[@]}" "$work/none"
refuses 73 'No such file or directory' page --out "$work/none/page" tests/bench/grow.json
printf '{ "tool": "grow",\n  "entries": [ }' >"$work/spoilt"
refuses 65 "$work/spoilt: line 2, column " "${out[@]}" "$work/spoilt"
head -c 5000 tests/bench/grow.json >"$work/spoilt"
refuses 65 "$work/spoilt: line " "${out[@]}" "$work/spoilt"
echo '[]' >"$work/spoilt"
refuses 65 "$work/spoilt: no results of ssdtf-bench" "${out[@]}" "$work/spoilt"
spoilt 'd["entries"] = {}'
refuses 65 "$work/spoilt: \"entries\" is no list" "${out[@]}" "$work/spoilt"
spoilt 'd["entries"][3]["scenario"]["kind"] = "fan-up"'
refuses 65 "$work/spoilt: entry 4: \"fan-up\" is no kind" "${out[@]}" "$work/spoilt"
spoilt 'd["entries"][2]["rounds"][0]["delivered"] = -1'
refuses 65 "$work/spoilt: entry 3, round 1: \"delivered\" is no count" "${out[@]}" "$work/spoilt"
spoilt 'd["entries"][2]["rounds"][0]["seconds"] = "3"'
refuses 65 "$work/spoilt: entry 3, round 1: \"seconds\" is no number" "${out[@]}" "$work/spoilt"
spoilt 'del d["entries"][0]["rounds"][0]["latency_us"]'
refuses 65 "$work/spoilt: entry 1, round 1: \"n\" is no count" "${out[@]}" "$work/spoilt"
spoilt 'd["entries"][0]["rounds"] = 7'
refuses 65 "$work/spoilt: entry 1: \"rounds\" is no list" "${out[@]}" "$work/spoilt"
spoilt 'd["entries"] = [{"kind": "speed", "name": "p256 verify"}]'
refuses 65 "$work/spoilt: entry 1: a speed without" "${out[@]}" "$work/spoilt"
spoilt 'd["entries"] = [{"kind": "reach", "name": "conversions", "value": None}]'
refuses 65 "$work/spoilt: entry 1: a reach without" "${out[@]}" "$work/spoilt"
refuses 64 '--rounds: a number from 1 to' compare --rounds 0
refuses 64 '--seconds: a number from 0.2 to' grow --seconds nan
refuses 64 '--series: a list of connections' grow --series receivers,load,
refuses 64 'no scenario is left' compare --only nothing
refuses 64 'not an option: "now"' compare now

# --- the page ----------------------------------------------------------------------------------
if ! command -v gnuplot >/dev/null; then
	tap_skip 'a page' 'gnuplot is not installed'
	tap_done
	exit
fi
refuses 73 'Is a directory' page --out "$work" tests/bench/grow.json
as=(env PATH="$work")
refuses 69 'gnuplot is not there: apt install' "${out[@]}" "${results[@]}"
as=()
"$bench" "${out[@]}" "${results[@]}" >"$work/out" 2>"$work/err"
[[ $? == 0 && ! -s $work/out && -s $work/page ]]
tap $? 'a page is made'
tap_note <"$work/err"

# holds NAME EXPRESSION: over the page, read as a browser reads it: its tags (name, attributes),
# its words, its figures by id (plots: drawings in it; text).
holds() {
	/usr/bin/python3 - "$work/page" "$2" <<'END' 2>"$work/why"
import collections, html.parser, re, sys

VOID = {"meta", "br", "link", "img", "input", "hr"}
ALONE = {"path", "circle", "rect", "use"}  # in SVG they close themselves

class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags, self.bad, self.words, self.figures = [], [], [], [], {}
        self.figure = None
    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "figure":
            self.figure = dict(attributes)["id"]
            self.figures[self.figure] = {"plots": 0, "text": ""}
        if tag == "svg" and dict(attributes).get("class") == "plot":
            self.figures[self.figure]["plots"] += 1
        if tag not in VOID:
            self.open.append(tag)
    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ALONE:
            self.bad.append(f"<{tag}/>")
    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.bad.append(f"</{tag}> at {self.getpos()}")
    def handle_data(self, text):
        if self.open[-1:] != ["style"]:
            self.words.append(text)
            if "figure" in self.open:
                self.figures[self.figure]["text"] += text

with open(sys.argv[1], encoding="utf-8") as f:
    text = f.read()
page = Page()
page.feed(text)
page.close()
tags, figures = page.tags, page.figures
words = re.sub(r"\s+", " ", "".join(page.words))
ids = [a["id"] for t, a in tags if "id" in a]
good = eval("(" + sys.argv[2] + ")")
if not good:
    print(page.bad[:5], page.open, sorted(figures), words[:3000], file=sys.stderr)
sys.exit(not good)
END
	tap $? "$1"
	tap_note <"$work/why"
}
holds 'every element is closed, in order' 'not page.bad and not page.open'
holds 'no name is used twice, and every reference leads somewhere' "
	len(ids) == len(set(ids)) and
	all(a['href'][1:] in ids for t, a in tags if a.get('href', '').startswith('#'))"
holds 'it names nothing outside, and runs nothing' "not re.search(
	r'(?i)https?:|//[a-z]|@import|url\((?!#)|data:', text) and not any(
	t in ('script', 'link', 'img', 'iframe', 'object') or any(k.startswith('on') or k == 'src'
	for k in a) for t, a in tags)"
holds 'what the files say is text: no element of theirs, no end of an attribute' "
	not any(t in ('b', 'i', 'img') and a for t, a in tags) and
	'<bold>' not in text and '<b>bold' not in text and '<i>other' not in text and
	all(w in words for w in ('A & B \"quoted\" <b>bold</b>', '\"></style><img src=x>',
	'--only \'<script>alert(1)</script>\'', 'other</i>'))"
holds 'it says machine, kernel, distribution, programs, commit, date and command' "all(w in words
	for w in ('2 CPUs', 'Linux 6.18.44 x86_64', 'bookworm', 'OpenSSL 3.0.22',
	'mosquitto version 2.0.11', 'commit made-up', '2026-11-26T01:15:00Z',
	'ssdtf-bench compare --only'))"
missing="('cost-subscriptions', 'hsmd-rate')"
holds 'one drawing for each figure, and none for what was not measured' "len(figures) == 10 and all(
	f['plots'] == (0 if k in $missing else 1) for k, f in figures.items())"
holds 'what was not measured is named, with the command that does it' "all(
	'Not measured. ssdtf-bench grow --series ' + s in figures[k]['text']
	for k, s in zip($missing, ('subscriptions', 'hsmd')))"
holds 'a curve that was not measured is named' "all(
	'mosquitto' + s + ': not measured' in figures[k]['text']
	for k, s in (('load-rate', ''), ('load-latency', ', 99th percentile')))"
holds 'targets: met where all scenarios keep them, else not; not measured is neither' "
	len(re.findall('✓.met', words)) == 4 and len(re.findall('✗.not met', words)) == 2 and
	re.search('under one signature of the token ?wanted: at most 3.µs ?3.40.µs.{0,20}✗.not met',
	words) and re.search(
	'connects a second, ssdtf-broker / mosquitto ?wanted: at least 1.5.× ?not measured', words)"
holds 'ceilings and other ways are there' "all(w in words for w in ('umbral, check and proof',
	'p256 verify', 'of the bare PKCS#11 loop', 'umbral, proof / ours, E fresh, in process'))"
holds 'lost messages are told of' "'10 pairs, plain' in words and ': 3 messages' in words"

results+=(tests/bench/reach.json)
"$bench" "${out[@]}" "${results[@]}" 2>"$work/err"
tap $? 'a page with ceilings and what reached them, measured in turn'
holds 'each is there, and whether it is met, by its median' "re.search(
	'conversions, E fresh, 1 CPU ?the bare PKCS#11 loop ?4.65.k ?5.00.k ?0.93.{0,25}' +
	'at least 0.9.× ?✓.met', words) and 'OpenSSL <i>alone</i>' in words and
	'<i>alone' not in text and
	len(re.findall('✓.met', words)) == 6 and len(re.findall('✗.not met', words)) == 3"

spoilt 'for i, v in enumerate((1e-300, 1e300, 0, None)):
    d["entries"][i]["rounds"][0]["server_s"] = v
    d["entries"][i]["scenario"]["idle"] = 1 << 31'
timeout $((20 * ${HARNESS_TIMEOUT_SCALE:-1})) "$bench" "${out[@]}" "$work/spoilt" 2>"$work/err"
tap $? 'a page of figures beyond all measure'
tap_note <"$work/err"

spoilt 'd["entries"] = []'
results=("$work/spoilt")
"$bench" "${out[@]}" "${results[@]}" 2>"$work/err"
tap $? 'a page of nothing'
holds 'it has no drawing, and says of everything that it was not measured' "
	all(f['plots'] == 0 for f in figures.values()) and len(figures) == 10 and
	'✗' not in words and '✓' not in words and words.count('ot measured') > 25"

# --- a moment of compare and grow ----------------------------------------------------------------
if ((EUID)); then
	refuses 77 'takes root' compare
	tap_skip 'compare and grow' 'needs root'
	tap_done
	exit
fi
refuses 73 'No such file or directory' compare --json "$work/none/json"

# moment NAME ARGUMENT...: such a run ends with 0 and writes $work/NAME.json; false where it cannot
# be done here.
moment() {
	local name=$1 status

	shift
	"$bench" "$name" "$@" --json "$work/$name.json" >"$work/$name.out" 2>"$work/err"
	status=$?
	if ((status == 69)); then
		tap_skip "a moment of $name" "$(tail -n 1 "$work/err")"
		return 1
	fi
	tap "$status" "a moment of $name ends with 0"
	((!status)) || tap_note <"$work/err"
	return "$status"
}

# figures NAME FILE EXPRESSION: over d, the JSON, and e, its entries.
figures() {
	/usr/bin/python3 - "$2" "$3" <<'END' 2>"$work/why"
import json, sys
with open(sys.argv[1], encoding="utf-8") as f:
    d = json.load(f)
e = d["entries"]
good = eval("(" + sys.argv[2] + ")")
if not good:
    print(json.dumps(e, indent=1), file=sys.stderr)
sys.exit(not good)
END
	tap $? "$1"
	tap_note <"$work/why"
}

results=()
rounds=$(tap_rounds 2)
if moment compare --only '10 pairs, QoS 0, 64 B, 1 in' --seconds 0.2 --quick \
	--rounds "$rounds"; then
	results+=("$work/compare.json")
	figures 'ssdtf-broker took its turn in every round' "$work/compare.json" "
		e[0]['scenario']['server'] == 'plain' and len(e[0]['rounds']) == $rounds and
		all(r['delivered'] > 0 and r['values']['server_us'] > 0 for r in e[0]['rounds'])"
	figures 'the head says what it is of' "$work/compare.json" "
		d['tool'] == 'compare' and d['command'][1:3] == ['compare', '--only'] and
		all(d['machine'][k] for k in ('cpu', 'cpus', 'memory_mib', 'kernel', 'openssl')) and
		d['commit'] and d['date'].endswith('Z')"
	grep -q '^10 pairs, QoS 0, 64 B, 1 in flight  *[0-9.]*[0-9]' "$work/compare.out" &&
		grep -q '^CPU per delivery.*one in flight .* >= 2 x: ' "$work/compare.out"
	tap $? 'its table has the scenario, and the targets'
	if grep -q 'mosquitto is left out' "$work/err"; then
		tap_skip 'mosquitto took its turn too' 'no mosquitto here'
	else
		figures 'mosquitto took its turn too' "$work/compare.json" "
			e[1]['scenario']['server'] == 'mosquitto' and
			len(e[1]['rounds']) == $rounds"
	fi
fi
if moment grow --series payload --seconds 0.2 --rounds 1 \
	--only 'plain*, 4096 B'; then
	results+=("$work/grow.json")
	figures 'the payload that was asked for was measured' "$work/grow.json" "
		[x['scenario']['payload'] for x in e] == [4096] and
		all(r['delivered'] > 0 for x in e for r in x['rounds'])"
fi
if ((${#results[@]})); then
	"$bench" "${out[@]}" "${results[@]}" 2>"$work/err"
	tap $? 'a page of both'
	tap_note <"$work/err"
fi
tap_done
