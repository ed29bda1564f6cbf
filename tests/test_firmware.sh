#!/bin/bash
# SPDX-License-Identifier: MIT
# The C on docs/firmware.md is true: its pieces, put together, compile as the C99 they claim to be,
# with the real header, and all that they call exists in libssdtf.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/tap.sh

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
compile=("${CC:-gcc}" -std=c99 -D_GNU_SOURCE -I. -O1 -Wall -Wextra -Werror
	-Wno-unused-function -Wno-unused-parameter)

pieces() {
	awk '/^```c$/ { on = 1; print "#line " NR + 1 " \"docs/firmware.md\""; next }
	     /^```$/ { on = 0 } on' docs/firmware.md
}

pieces >"$work/firmware.c"
[[ $(grep -c . "$work/firmware.c") -gt 150 ]]
tap $? 'the page has its pieces of C'

"${compile[@]}" -c -o "$work/firmware.o" "$work/firmware.c" 2>"$work/errors"
tap $? 'they compile as C99 without a warning'
tap_note <"$work/errors"

# What the page's own prototypes promise (a board, an MQTT library), the archive need not have.
nm -u "$work/firmware.o" | awk '/ssdtf_|bytes_/ { print $2 }' | sort >"$work/wanted"
nm --defined-only "${O:-build}/libssdtf.a" 2>/dev/null | awk 'NF == 3 { print $3 }' |
	sort >"$work/had"
missing=$(comm -23 "$work/wanted" "$work/had")
[[ -z $missing ]]
tap $? 'what they call is in libssdtf.a'
tap_note <<<"$missing"

# A line that must not compile shows that the compiler looks at all.
{
	cat "$work/firmware.c"
	echo 'int wrong(void) { return ssdtf_seal(&client); }'
} >"$work/wrong.c"
! "${compile[@]}" -c -o "$work/wrong.o" "$work/wrong.c" 2>"$work/errors"
tap $? 'a wrong call would not compile'
tap_done
