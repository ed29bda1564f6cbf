#!/bin/bash
# SPDX-License-Identifier: MIT
# The demonstration holds, ends by itself, and leaves neither a process nor a folder behind, also
# where it is interrupted.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
. tests/tap.sh

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
export O=${O:-build} TMPDIR=$work

# Nothing of it runs or stands any more. Its programs are told by its folder in their arguments.
nothing_left() {
	! pgrep -af -- "$work/ssdtf-demo" | tap_note | grep . &&
		! ls -d "$work"/ssdtf-demo.* 2>/dev/null
}

tools/demo >"$work/out" 2>&1
tap $? 'it ends well'
[[ $(tail -n 1 "$work/out") == Done:* ]]
tap $? 'and says so'
[[ $(grep -c 'mutual authentication passed' "$work/out") == 3 ]]
tap $? 'three parties authenticated'
grep -q ' attempts with the PIN in hand, 0 went through' "$work/out"
tap $? 'the PIN was of no use'
nothing_left
tap $? 'nothing is left'

tools/demo >"$work/cut" 2>&1 &
demo=$!
for ((i = 0; i < 300; i++)); do
	grep -q '^4 ' "$work/cut" 2>/dev/null && break
	sleep 0.1
done
kill "$demo"
wait "$demo"
[[ $? == 143 ]]
tap $? 'it ends when it is told to'
nothing_left
tap $? 'and leaves nothing then'

tap_done
