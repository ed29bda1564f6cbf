#!/bin/bash
# SPDX-License-Identifier: MIT
# Enrolment in bulk, tracing and the audit log on ssdtf-admin's command line: exit codes and words,
# QR codes read by a reader of our own, and kill -9 while a file is taken.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/tap.sh

here=$PWD
O=$(realpath "${O:-build}")
seed=${SSDTF_SEED:-$RANDOM}
RANDOM=$seed
echo "# seed $seed"

for module in /usr/lib/softhsm/libsofthsm2.so /usr/lib64/pkcs11/libsofthsm2.so \
	/usr/local/lib/softhsm/libsofthsm2.so; do
	[[ -e $module ]] && break
done
if [[ ! -e $module || ! -x $O/ssdtf-admin ]]; then
	echo "1..0 # SKIP no SoftHSM, or ssdtf-admin is not built"
	exit 4
fi

# In memory where that can be: each command syncs what it wrote.
work=$(mktemp -d -p "$([[ -w /dev/shm ]] && echo /dev/shm || echo /tmp)") || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export SOFTHSM2_CONF=$work/softhsm2.conf SSDTF_ADMIN_DIR=$work/state
umask 077
admin=$O/ssdtf-admin

# says TEXT COMMAND...: it succeeds, and its output has TEXT in it.
says() {
	local text=$1 bad=0

	shift
	"$@" >out 2>err </dev/null || bad=1
	grep -qF -- "$text" out || bad=1
	tap $bad "says \"$text\": ${*//"$O/"/}"
	((!bad)) || cat out err | tap_note
}

# usage TEXT COMMAND...: argp refuses it so, in lines of its own.
usage() {
	local text=$1 bad=0

	shift
	"$@" >out 2>err </dev/null
	[[ $? == 64 ]] && grep -qF -- "$text" err && [[ ! -s out ]] || bad=1
	tap $bad "refused for its form: $text"
	((!bad)) || cat out err | tap_note
}

# sql FILE STATEMENT: what it selects.
sql() {
	/usr/bin/python3 -c 'import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as db:
    for row in db.execute(sys.argv[2]):
        print(*row)' "$@"
}

ec_public() {
	openssl ecparam -name prime256v1 -genkey -noout 2>/dev/null | openssl pkey -pubout
}

mkdir tokens codes
printf 'directories.tokendir = %s/tokens\nobjectstore.backend = file\n' "$work" >softhsm2.conf
softhsm2-util --init-token --free --label mgr --pin 1234 --so-pin 5678 >/dev/null
chmod 400 tokens/*/token.object
echo 1234 >pin
{
	ec_public
	openssl genrsa 3072 2>/dev/null | openssl pkey -pubout
} >gw.pub
ec_public >b.pem
"$admin" init --module "$module" --token mgr --pin-file pin >/dev/null &&
	"$admin" enrol gateway --id gw --public gw.pub >/dev/null &&
	"$admin" scope add --name heat 'heat/#' >/dev/null
tap $? 'a manager, a gateway, a scope'

# --- a file of devices -----------------------------------------------------------------------
long=a-device-whose-id-has-sixty-four-characters-which-is-the-most.01
printf 'id,scopes,clock,keys\r\ndev-a,heat,yes,\r\ndev:b,heat,no,b.pem\r\n%s,,yes,\r\n' "$long" \
	>devices.csv
printf 'id,scopes,clock,keys\ndev-a,cold,yes,\n"dev-b,heat,yes,\n' >bad.csv

usage 'FILE is missing' "$admin" enrol csv --out-dir codes
usage '--out-dir is missing' "$admin" enrol csv devices.csv
tap_refuses 66 'none.csv: cannot read: No such file' "$admin" enrol csv none.csv --out-dir codes
tap_refuses 73 'none: cannot write to' "$admin" enrol csv devices.csv --out-dir none
tap_refuses 67 'nowhere' "$admin" enrol csv devices.csv --out-dir codes --gateway nowhere
"$admin" enrol csv bad.csv --out-dir codes >out 2>err
tap $(($? != 65)) 'a bad file ends with 65'
tap "$(grep -q 'bad.csv:2: scope "cold"' err && grep -q 'bad.csv:3: has a quote' err &&
	grep -q '2 complaints; nobody was enrolled' err && [[ ! -s out ]]; echo $?)" \
	'and each line is named'
says 'dry-run enrolled=3' "$admin" enrol csv devices.csv --out-dir codes --dry-run
tap "$([[ -z $(ls codes) && -z $("$admin" list parties) ]]; echo $?)" 'a dry run does nothing'
says 'enrolled=3 changed=0 unchanged=0 codes=2 labels=2' \
	"$admin" enrol csv devices.csv --out-dir codes
says 'enrolled=0 changed=0 unchanged=3 codes=0 labels=2' \
	"$admin" enrol csv devices.csv --out-dir codes
says 'id=dev-a gateway=gw state=waiting made=' "$admin" claims
tap "$([[ -z $(find codes -type f ! -perm 600) ]]; echo $?)" 'codes and labels are for one alone'

# --- labels ----------------------------------------------------------------------------------
reads() {
	/usr/bin/python3 "$here/tests/qr_read.py" "codes/$1.svg" | cmp -s - "codes/$1.claim"
	tap $? "the QR code of $1 is its claim code"
}
reads dev-a
reads "$long"
tap "$(grep -c '<figure><img src="./.*.svg"' codes/labels.html | grep -qx 2; echo $?)" \
	'the sheet has two of them'
cp codes/dev-a.claim old.claim
says 'renewed id=dev-a gateway=gw code=codes/dev-a.claim' \
	"$admin" claim renew --id dev-a --out-dir codes
tap "$(! cmp -s old.claim codes/dev-a.claim; echo $?)" 'a new code'
reads dev-a
cp codes/dev-a.claim new.claim
cp old.claim codes/dev-a.claim
says 'labels=1' "$admin" enrol csv devices.csv --out-dir codes
tap "$(! grep -q dev-a codes/labels.html; echo $?)" 'a void code is not printed'
tap_refuses 67 'without a claim code' "$admin" claim renew --id dev:b --out-dir codes
usage '--id is missing' "$admin" claim renew --out-dir codes

# --- kill -9 ---------------------------------------------------------------------------------
# All are enrolled or none, and the next run makes it whole, with the codes that lie there.
lines=$(tap_rounds 120)
bad=0
for ((round = 0; round < $(tap_rounds 8); round++)); do
	{
		echo id,scopes,clock,keys
		for ((i = 0; i < lines; i++)); do
			echo "kill-$round-$i,heat,yes,"
		done
	} >kill.csv
	"$admin" enrol csv kill.csv --out-dir codes >/dev/null 2>&1 &
	sleep "0.0$((RANDOM % 8))$((RANDOM % 10))"
	kill -9 $! 2>/dev/null
	wait $! 2>/dev/null
	n=$(sql state/registry.db "SELECT count(*) FROM claim WHERE party LIKE 'kill-$round-%'")
	[[ $n == 0 || $n == "$lines" ]] || bad=1
	codes=$(find codes -name "kill-$round-*.claim" | wc -l)
	echo "# killed with $n of $lines enrolled, $codes codes"
	"$admin" enrol csv kill.csv --out-dir codes >out 2>err || bad=1
	grep -q "labels=$lines" out || bad=1
	((bad)) && cat out err | tap_note
done
tap $bad 'killed at any moment: all or none, and whole when it is run again'
says 'registry and token are whole' "$admin" check

# --- tracing, and who traced -----------------------------------------------------------------
id=00112233445566778899aabbccddeeff
usage 'EXTERNAL-ID is missing' "$admin" trace --reason x --table t
usage '--reason is missing' "$admin" trace $id --table t
usage '--table is missing' "$admin" trace $id --reason x
says 'whole entries=0' "$admin" audit verify
tap_refuses 66 't: cannot read: No such file' "$admin" trace $id --reason x --table t
tap_refuses 65 'say why' "$admin" trace $id --reason '' --table t
tap_refuses 65 '32 hexadecimal digits' "$admin" trace 0011 --reason x --table t
tap_refuses 65 'is no distributor' "$admin" trace $id --reason x --table state/registry.db
echo 9999 >wrong-pin
tap_refuses 77 'PIN' "$admin" trace $id --reason guess --table t --pin-file wrong-pin
says 'whole entries=5 signed=4 uncovered=1 head=4' "$admin" audit verify
says 'reason="guess"' "$admin" audit list
"$admin" audit list --json | /usr/bin/python3 -c '
import json, sys
log = json.load(sys.stdin)
assert [e["number"] for e in log] == [1, 2, 3, 4, 5]
assert [e["signed"] for e in log] == [True] * 4 + [False]
assert all(a["hash"] == b["previous"] for a, b in zip(log, log[1:]))
assert all(e["result"] == "failed" and e["action"] == "trace" for e in log)'
tap $? 'audit list --json is JSON, and a chain'
bad=0
for ((round = 0; round < $(tap_rounds 8); round++)); do
	"$admin" trace $id --reason kill --table t >/dev/null 2>&1 &
	sleep "0.0$((RANDOM % 10))$((RANDOM % 10))"
	kill -9 $! 2>/dev/null
	wait $! 2>/dev/null
	"$admin" audit verify >out 2>err || bad=1
	((bad)) && tap_note <err
done
tap $bad 'killed at any moment, the log is whole'
sql state/audit.db "UPDATE entry SET reason = x'6f6b' WHERE number = 2"
tap_refuses 65 'audit.db: entry 2 was changed' "$admin" audit verify
tap "$([[ $(stat -c %a state/audit.db) == 600 ]]; echo $?)" 'the log is for one alone'

tap_done
