#!/bin/bash
# SPDX-License-Identifier: MIT
# tools/lint can fail: a small clean tree passes, and one fault put into it is found, by the rule
# meant for it and in the line where it stands. At the end lint looks at this repository itself.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/tap.sh

for tool in git clang-format cppcheck; do
	if ! command -v "$tool" >/dev/null; then
		echo "1..0 # SKIP $tool is not here; the source is the same on every machine"
		exit 4
	fi
done

repo=$PWD
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
# A hook's variables would lead git to the hook's own repository.
while read -r variable; do
	unset "$variable"
done < <(git rev-parse --local-env-vars)

tree=$work/tree
mkdir -p "$tree"/{userspace/{base,crypto,client/lib},hsm,tests/fuzz,bpf,tools,docs}
cd "$tree" || exit 1
git init -q .
cp "$repo/.clang-format" .

cat >Makefile <<'END'
# SPDX-License-Identifier: MIT
LAYERS := userspace/base userspace/crypto hsm \
	userspace/client/lib
DEPS_userspace/base := bpf
DEPS_userspace/crypto := userspace/base
DEPS_hsm := userspace/crypto userspace/base
DEPS_userspace/client/lib := userspace/base
TEST_OF_test_base := userspace/base
END
cat >userspace/base/bytes.h <<'END'
/* SPDX-License-Identifier: MIT */
#ifndef BYTES_H
#define BYTES_H

struct bytes {
	int n;
};

int bytes_twice(struct bytes b);

#endif
END
cat >userspace/base/bytes.c <<'END'
// SPDX-License-Identifier: MIT
#include "userspace/base/bytes.h"

/* Neither this system() nor "sprintf(" is a call, nor is fgets() one of gets(). */
int bytes_twice(struct bytes b)
{
	const char *s = "system(1)";

	return s[0] ? 2 * b.n : 0;
}
END
cat >userspace/crypto/hash.c <<'END'
// SPDX-License-Identifier: MIT
#include <openssl/evp.h>

#include "userspace/base/bytes.h"
END
sed 's/openssl\/evp/p11-kit\/pkcs11/' userspace/crypto/hash.c >hsm/token.c
sed '/openssl/,+1d' userspace/crypto/hash.c >userspace/client/lib/device.c
cp userspace/client/lib/device.c tests/test_base.c
sed '1i// FUZZ_OF: userspace/base' tests/test_base.c >tests/fuzz/fuzz_base.c
printf '/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */\n' >bpf/filter.bpf.c
printf '#!/bin/bash\n# SPDX-License-Identifier: MIT\necho\n' >tools/tool
printf '#!/usr/bin/python3\n# SPDX-License-Identifier: MIT\nprint()\n' >tools/other
printf '# Title\n\nText.\n' >docs/README.md
clean=$work/clean
cp -r "$tree" "$clean"

# after FILE LINE: standard input goes in behind that line.
after() {
	sed -i "$2r /dev/stdin" "$1"
}

# Output and status of lint on the tree, which then is made clean again.
lint() {
	output=$("$repo/tools/lint" --root "$tree" ${fast:+--fast} 2>&1)
	status=$?
	cd "$work" && rm -rf "$tree" && cp -r "$clean" "$tree" && cd "$tree" || exit 1
}

passes() {
	lint
	tap $status "passes $1"
	((status)) && tap_note <<<"$output"
}

# finds NAME RULE FILE LINE: this one thing and nothing else.
finds() {
	local expected="$3:$4: $2: "

	lint
	[[ $status == 1 && $output == "$expected"* && $output != *$'\n'* ]]
	status=$?
	tap $status "finds $1"
	((status)) && printf 'wanted %s..., got:\n%s\n' "$expected" "$output" | tap_note
}

fast=''
passes 'a clean tree'
fast=yes

after userspace/base/bytes.c 2 <<<'#include "userspace/crypto/hash.h"'
printf '/* SPDX-License-Identifier: MIT */\n' >userspace/crypto/hash.h
finds 'an upward include' layer userspace/base/bytes.c 3
after userspace/client/lib/device.c 1 <<<'#include <openssl/evp.h>'
finds 'OpenSSL outside crypto' layer userspace/client/lib/device.c 2
after userspace/crypto/hash.c 1 <<<'#include <p11-kit/pkcs11.h>'
finds 'PKCS#11 outside the token' layer userspace/crypto/hash.c 2
after userspace/base/bytes.c 1 <<<'#include "bytes.h"'
finds 'an include that is not from the root' include userspace/base/bytes.c 2

after userspace/crypto/hash.c 1 <<<'#include <sys/socket.h>'
finds 'a socket header in an engine' engine userspace/crypto/hash.c 2
after userspace/crypto/hash.c 4 <<<'#define NOW time(NULL)'
finds 'an engine that reads the clock' engine userspace/crypto/hash.c 5
after userspace/client/lib/device.c 2 <<<'#define NEW malloc(1)'
finds 'malloc in libssdtf' malloc userspace/client/lib/device.c 3

for call in sprintf strcpy strcat strncpy gets atoi atol strtok system popen alloca assert; do
	sed -i "s/return s/(void)$call(s);\n\treturn s/" userspace/base/bytes.c
	finds "$call()" banned userspace/base/bytes.c 9
done
after userspace/base/bytes.c 2 <<<'typedef struct bytes view;'
finds 'a struct in a typedef' typedef userspace/base/bytes.c 3
printf '#ifdef A\n#endif\n' | after userspace/base/bytes.c 8
finds '#if inside a function' if userspace/base/bytes.c 9
yes '	;' | head -n 70 | after userspace/base/bytes.c 8
finds 'a long function' length userspace/base/bytes.c 6
yes '	;' | head -n 65 | after userspace/base/bytes.c 8
passes 'a function of 70 lines'

printf '/*%0101d */\n' 0 | after userspace/base/bytes.c 1
finds 'a long line' columns userspace/base/bytes.c 2
printf '/*\t\t\t\t\t\t\t\t\t\t\t\t12345*/\n' | after userspace/base/bytes.c 1
finds 'a long line by its tabs' columns userspace/base/bytes.c 2
sed -i '3s/$/ /' docs/README.md
finds 'trailing white space' whitespace docs/README.md 3
printf 'See /%s/someone/x.\n' home | after docs/README.md 2
finds "a path of somebody's machine" path docs/README.md 3
sed -i 1d userspace/base/bytes.c
finds 'a C file without a licence' spdx userspace/base/bytes.c 1
sed -i 2d tools/tool
finds 'a script without a licence' spdx tools/tool 1
sed -i 's/(MIT OR GPL-2.0-only)/MIT/' bpf/filter.bpf.c
finds 'another licence in bpf' spdx bpf/filter.bpf.c 1
echo 'if' >>tools/tool
finds 'a shell script that does not parse' syntax tools/tool 1
echo 'if' >>tools/other
finds 'a Python script that does not parse' syntax tools/other 1

cp bpf/filter.bpf.c tools/lost.c && sed -i 's/(.*)/MIT/' tools/lost.c
finds 'a source in no folder of the build' dead tools/lost.c 1
cp tests/test_base.c tests/test_lost.c
finds 'a test that is not built' dead tests/test_lost.c 1
sed -i '/FUZZ_OF/d' tests/fuzz/fuzz_base.c
finds 'a fuzzer of nothing' dead tests/fuzz/fuzz_base.c 1
cp userspace/base/bytes.h userspace/base/lost.h
sed 's/bytes.h/lost.h/' userspace/base/bytes.c >userspace/base/lost.c
finds 'a header for its own source only' dead userspace/base/lost.h 1
echo lost.h >.gitignore && cp userspace/base/bytes.h userspace/base/lost.h
passes 'what git ignores'

fast=''
sed -i 's/s\[0\] ? /s[0]?/' userspace/base/bytes.c
finds 'what clang-format would change' format userspace/base/bytes.c 9
sed -i 's/\treturn s/\tint a[2];\n\n\ta[2] = b.n;\n\treturn s/' userspace/base/bytes.c
finds 'what cppcheck finds' cppcheck userspace/base/bytes.c 11

output=$("$repo/tools/lint" --root "$repo" 2>&1)
tap $? 'passes this repository'
[[ $output ]] && tap_note <<<"$output"
tap_done
