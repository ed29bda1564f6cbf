#!/bin/bash
# SPDX-License-Identifier: MIT
# ssdtf-admin as its operator meets it: exit codes and words, real key files, a SoftHSM token in a
# temporary folder, bundles checked by somebody else's code, and kill -9 in the midst of everything.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/tap.sh

O=$(realpath "${O:-build}")
seed=${SSDTF_SEED:-$RANDOM}
RANDOM=$seed
echo "# seed $seed"
kills_each=$(tap_rounds 12)

for module in /usr/lib/softhsm/libsofthsm2.so /usr/lib64/pkcs11/libsofthsm2.so \
	/usr/local/lib/softhsm/libsofthsm2.so; do
	[[ -e $module ]] && break
done
if [[ ! -e $module || ! -x $O/ssdtf-admin ]]; then
	echo "1..0 # SKIP no SoftHSM, or ssdtf-admin is not built"
	exit 4
fi

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export SOFTHSM2_CONF=$work/softhsm2.conf SSDTF_ADMIN_DIR=$work/state
umask 077

# admin COMMAND...: its exit status in $status, what it said in ./out and ./err.
admin() {
	"$O/ssdtf-admin" "$@" >out 2>err </dev/null
	status=$?
}

# expect STATUS NAME [TEXT]: the last admin ended so, said TEXT, and an error in one line.
expect() {
	local bad=0

	((status == $1)) || bad=1
	[[ -z ${3-} ]] || grep -qF -- "$3" out err || bad=1
	if (($1 && $1 != 64)); then
		[[ $(wc -l <err) == 1 && ! -s out ]] || bad=1
	fi
	tap $bad "$2"
	((bad)) && { echo "status $status, wanted $1"; cat out err; } | tap_note
	return 0
}

# token LABEL: a fresh one, in ./tokens. Its token.object is made read-only, see hsm/override.h.
token() {
	mkdir -p tokens
	printf 'directories.tokendir = %s/tokens\nobjectstore.backend = file\n' "$work" \
		>softhsm2.conf
	softhsm2-util --init-token --free --label "$1" --pin 1234 --so-pin 5678 >/dev/null
	chmod 400 tokens/*/token.object
}

init() {
	admin init --module "$module" --token mgr --pin-file pin
}

ec_key() { # NAME [CURVE]
	openssl ecparam -name "${2:-prime256v1}" -genkey -noout -out "$1.key" 2>/dev/null &&
		openssl pkey -in "$1.key" -pubout -out "$1.pub"
}

# --- before there is anything ----------------------------------------------------------------
token mgr
echo 1234 >pin
echo 9999 >wrong-pin

admin
expect 64 'no command'
admin frobnicate all
expect 64 'unknown command' '"frobnicate all" is no command'
admin list parties
expect 78 'not initialised' 'run init first'
admin --help
expect 0 'help' 'bundle gateway'
admin grant --help
expect 0 'help of a command' '--receiver'
admin init --module "$module" --token mgr
expect 64 'an option is missing' '--pin-file is missing'
admin init --module "$module" --token mgr --pin-file none
expect 66 'no PIN file'
admin init --module /nowhere/module.so --token mgr --pin-file pin
expect 69 'no module'
admin init --module "$module" --token other --pin-file pin
expect 69 'no such token'
tap "$([[ ! -e state ]]; echo $?)" 'an init that failed leaves nothing'
admin init --module "$module" --token mgr --pin-file wrong-pin
expect 77 'wrong PIN'
admin list parties
expect 78 'and still not initialised'
rm -rf state
mkdir -m 755 state
init
expect 77 'a directory that others may enter' 'chmod 700'
rm -rf state
init
expect 0 'init' "$work/state/manager.pub"
cp state/manager.pub first.pub
init
expect 0 'init again'
tap "$(cmp -s first.pub state/manager.pub; echo $?)" 'the manager is still the same'
openssl pkey -pubin -in state/manager.pub -text -noout | grep -q prime256v1
tap $? 'manager.pub is a P-256 key for others'
tap "$([[ $(stat -c %a state state/registry.db | xargs) == '700 600' ]]; echo $?)" 'modes'
admin show manager
expect 0 'show manager' "pin_file=$work/pin"
admin init --module "$module" --token mgr --pin-file pin --dir elsewhere
expect 65 'a second registry over the same keys' '--adopt'

# --- enrolment -------------------------------------------------------------------------------
for name in dev broker sign seal; do
	ec_key "$name"
done
ec_key p384 secp384r1
openssl genrsa -out rsa.key 3072 2>/dev/null
openssl pkey -in rsa.key -pubout -out rsa.pub
cat broker.pub rsa.pub >gateway.pub

admin enrol device --id dev-1 --public dev.pub
expect 0 'enrol a device' 'enrolled id=dev-1 roles=device'
admin enrol device --id dev-1 --public dev.pub
expect 0 'again' 'unchanged id=dev-1'
admin enrol device --id dev-1 --public sign.pub
expect 65 'with another key' 'revoke it first'
admin enrol device --id dev-2 --public dev.key
expect 65 'a private key by mistake' 'openssl pkey -in FILE -pubout'
admin enrol device --id dev-2 --public p384.pub
expect 65 'another curve' 'P-256'
admin enrol device --id dev-2 --public rsa.pub
expect 65 'an RSA key'
admin enrol device --id dev-2 --public none.pub
expect 66 'no such file' 'No such file'
admin enrol device --id dev-2 --public /dev/urandom
expect 66 'no regular file'
head -c 20000 /dev/urandom >noise
admin enrol device --id dev-2 --public noise
expect 65 'noise'
admin enrol device --id dev-2 --public .
expect 66 'a folder'
admin enrol device --id 'dev 2' --public sign.pub
expect 65 'no id'
admin enrol device --id dev-2 --public sign.pub --generate new
expect 64 'two ways at once' 'exclude each other'
admin enrol device --id dev-2
expect 64 'neither way' '--public or --generate is missing'
admin enrol device --id dev-2 --id dev-3 --generate new
expect 64 'an option twice' '--id: twice'
admin enrol device --id dev-2 --generate new extra
expect 64 'an argument too many'
admin enrol receiver --id r-1 --public sign.pub
expect 64 'a receiver needs two keys' '--encryption'
admin enrol receiver --id r-1 --public sign.pub --encryption seal.pub
expect 0 'enrol a receiver'
admin enrol receiver --id r-2 --generate r-2
expect 0 'enrol a receiver and make its keys'
tap "$([[ $(stat -c %a r-2/signing.pem r-2/encryption.pem | xargs) == '600 600' ]]; echo $?)" \
	'its keys are its own'
openssl pkey -in r-2/encryption.pem -noout && openssl pkey -in r-2/signing.pem -noout
tap $? 'and real ones'
admin enrol device --id sleepy --generate sleepy --no-clock
expect 0 'a device without a clock'
admin enrol device --id blocked --generate /dev/null/x
expect 73 'a folder that cannot be'
admin enrol gateway --id gw --public broker.pub
expect 65 'half a gateway' 'ssdtf-hsmd keygen'
admin enrol gateway --id gw --public gateway.pub
expect 0 'enrol a gateway'
admin list parties
expect 0 'list parties' 'id=sleepy roles=device clock=no'

# --- scopes and grants -----------------------------------------------------------------------
admin scope add --name hall --filter 'hall/+/temperature' 'hall/+/humidity'
expect 0 'scope add' 'added scope=hall key_id='
cp out first.out
admin scope add --name hall --filter 'hall/+/humidity' --filter 'hall/+/temperature'
expect 0 'again, in another order' "unchanged $(cut -d' ' -f2- first.out)"
admin scope add --name hall --filter 'hall/#'
expect 65 'other terms'
admin scope add --name yard --filter 'hall/+/humidity'
expect 65 'another scope'\''s filter' 'scope "hall"'
admin scope add --name yard --filter 'hall/#/x'
expect 65 'no filter'
admin scope add --name yard
expect 64 'none at all'
admin scope add --name yard --filter yard --suite 3
expect 64 'no such suite' 'no number from 1 to 2'
admin scope add --name yard --filter yard --rekey-seconds 3601
expect 64 'a context of more than an hour'
admin scope add --name yard --filter yard --rekey-messages 10x
expect 64 'no number'
admin scope add --name yard --filter yard --suite 2 --valid-days 30
expect 0 'a second scope'
admin scope allow --scope hall --device dev-1
expect 0 'scope allow'
admin scope allow --scope hall --device r-1
expect 67 'to a receiver' 'not as a device'
admin scope allow --scope garden --device dev-1
expect 67 'no such scope'
admin grant --scope hall --receiver r-1
expect 0 'grant' 'granted grant='
cp out first.out
admin grant --scope hall --receiver r-1
expect 0 'again' "unchanged $(cut -d' ' -f2- first.out)"
admin grant --scope hall --receiver r-1 --no-proof
expect 65 'on other terms'
admin grant --scope hall --receiver r-2
expect 0 'to another'
tap "$([[ $(cut -d' ' -f2 out) != $(cut -d' ' -f2 first.out) ]]; echo $?)" 'is another grant'
admin grant --scope hall --receiver dev-1
expect 67 'to a device' 'not as a receiver'
admin show scope hall
expect 0 'show scope' 'receivers=r-1,r-2'
admin show party dev-1
expect 0 'show party' 'publishes=hall'
! grep -q k_adm out
tap $? 'shows no admission key'

# --- distribution ----------------------------------------------------------------------------
ec_key dist
ec_key opening
cat dist.pub rsa.pub opening.pub >dist.keys
admin enrol distributor --id dist --public dist.pub
expect 65 'half a distributor' 'ssdtf-hsmd keygen'
admin enrol distributor --id dist --generate dist
expect 64 'whose keys are made elsewhere'
admin enrol distributor --id dist --public dist.keys
expect 0 'enrol a distributor' 'roles=distributor'
admin outlet add --name out --scope hall --distributor dist --topic public
expect 67 'an outlet without a hop' 'hop --scope hall --distributor dist'
admin bundle distributor --id dist --out dist.bundle
expect 67 'a bundle without a hop'
admin hop --scope hall --distributor dev-1
expect 67 'a hop to a device' 'not as a distributor'
admin hop --scope hall --distributor dist
expect 0 'hop' 'added hop='
admin hop --scope hall --distributor dist --no-proof
expect 65 'on other terms'
admin outlet add --name out --scope hall --distributor dist --topic hall/out
expect 65 'where devices publish' 'meets topics of scope "hall"'
admin outlet add --name out --scope hall --distributor dist --topic 'public/#'
expect 65 'no topic'
admin outlet add --name out --scope hall --distributor dist --topic public --rotate-seconds 0
expect 64 'ids that change all the time'
admin outlet add --name out --scope hall --distributor dist --topic public --ids shared \
	--rotate-seconds 3600
expect 0 'outlet add' 'topics=public/#'
admin outlet add --name mine --scope hall --distributor dist --topic private --receiver r-2
expect 0 'an outlet for one receiver'
admin scope add --name wide --filter '#'
expect 65 'a scope that would take its topics' 'outlet'
admin grant --outlet out --receiver r-1
expect 0 'a grant behind it' 'outlet=out'
admin grant --outlet out --scope hall --receiver r-1
expect 64 'behind it and not' 'exclude each other'
admin grant --outlet out --receiver r-1 --no-proof
expect 65 'there is no proof behind it'
admin grant --outlet mine --receiver r-1
expect 65 'behind one for another' 'alone'
admin list outlets
expect 0 'list outlets' 'outlet=out scope=hall distributor=dist gateway=gw ids=shared'
admin show outlet mine
expect 0 'show outlet' 'receivers=r-2'
admin list grants
expect 0 'list grants' 'kind=behind-outlet outlet=out'

# --- bundles ---------------------------------------------------------------------------------
cat >verify.py <<'END'
# A stranger's reading of the statement format: MANAGER.PUB FILE KIND; prints the serial.
import struct, sys
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
key = serialization.load_pem_public_key(open(sys.argv[1], "rb").read())
whole = open(sys.argv[2], "rb").read()
kinds = {"gateway": 4, "bundle": 5, "distributor": 7}
magic, version, kind, serial, begin, end, n = struct.unpack(">HBBQQQI", whole[:32])
assert (magic, version, kind) == (0x5D7E, 1, kinds[sys.argv[3]])
assert len(whole) == 32 + n + 64
r, s = (int.from_bytes(whole[a:b], "big") for a, b in ((-64, -32), (-32, None)))
key.verify(utils.encode_dss_signature(r, s),
           b"ssdtf-stmt-" + sys.argv[3].encode() + b"-1" + whole[:-64], ec.ECDSA(hashes.SHA256()))
print(serial)
END
verify() { # FILE KIND
	/usr/bin/python3 verify.py state/manager.pub "$1" "$2" 2>verify.err
}
have_python=0
/usr/bin/python3 -c 'import cryptography' 2>/dev/null && have_python=1

admin bundle gateway --id gw --out gw.bundle
expect 0 'bundle gateway' 'serial='
tap "$([[ $(stat -c %a gw.bundle) == 600 ]]; echo $?)" 'mode of a bundle'
admin bundle party --id r-1 --out r-1.bundle
expect 0 'bundle party'
admin bundle distributor --id dist --out dist.bundle
expect 0 'bundle distributor'
admin bundle distributor --id r-1 --out x
expect 67 'of no distributor'
if ((have_python)); then
	one=$(verify gw.bundle gateway) && two=$(verify r-1.bundle bundle) && ((two > one))
	tap $? 'both hold under manager.pub, the later serial is higher'
	verify dist.bundle distributor >/dev/null
	tap $? 'and so does the distributor'\''s'
	printf '\001' | dd of=r-1.bundle bs=1 seek=33 conv=notrunc 2>/dev/null
	! verify r-1.bundle bundle >/dev/null
	tap $? 'a bent one does not'
else
	tap_skip 'bundles hold under manager.pub' 'no python3-cryptography'
fi
admin bundle all --out-dir all
expect 0 'bundle all'
files=$(cd all && echo -- *)
want='-- distributor-dist.bundle gateway-gw.bundle party-dev-1.bundle party-r-1.bundle'
want+=' party-r-2.bundle party-sleepy.bundle'
tap "$([[ $files == "$want" ]]; echo $?)" 'one file each'
admin bundle party --id nobody --out x
expect 67 'of nobody'
admin bundle gateway --id gw --out no/such/folder
expect 73 'into nowhere'
mkfifo pipe
admin bundle gateway --id gw --out pipe
expect 73 'onto a pipe' 'no regular file'
tap "$([[ -p pipe ]]; echo $?)" 'which is still there'
ln -s gw.bundle link
admin bundle gateway --id gw --out link
expect 73 'onto a link, such as /dev/stdout'
tap "$([[ -L link ]]; echo $?)" 'which is still there'
"$O/ssdtf-admin" list scopes >/dev/full 2>err
tap "$(($? != 74))" 'standard output is full'

# --- rotation --------------------------------------------------------------------------------
admin list scopes
cp out scopes.before
admin rotate scope --name hall --dry-run
expect 0 'rotate scope, dry' 'dry run: nothing is changed'
grep -q '^replaced grant=' out && grep -q '^rotated scope=hall .*epoch=2' out
tap $? 'says what would change'
admin list scopes
cmp -s out scopes.before
tap $? 'and changes nothing'
admin rotate scope --name hall --overlap-hours 1
expect 0 'rotate scope' 'epoch=2 grants=6'
admin rotate scope --name hall
expect 75 'again, too early' 'rotate it again after that'
admin rotate scope --name none
expect 67 'no such scope'
admin rotate party --id dev-1
expect 65 'rotate party with nothing new' '--public, --encryption or --generate'
admin rotate party --id dev-1 --public dev.pub
expect 65 'with its own key' 'no key is new'
ec_key dev2
admin rotate party --id dev-1 --public dev2.pub
expect 0 'rotate party' 'signing=yes encryption=no'
ec_key dev3
admin rotate party --id dev-1 --public dev3.pub
expect 75 'again, too early' 'its previous key holds'
admin rotate party --id r-2 --generate r-2
expect 65 'new keys in the folder of the old' 'no key is new'
admin rotate party --id r-2 --generate r-2-new --dry-run
expect 0 'rotate a receiver, dry' 'signing=yes encryption=yes'
tap "$([[ ! -e r-2-new ]]; echo $?)" 'makes no folder'
admin rotate party --id r-2 --generate r-2-new
expect 0 'rotate a receiver' 'encryption=yes'
openssl pkey -in r-2-new/encryption.pem -noout
tap $? 'its new key is there'
admin rotate admission --id dev-1
expect 0 'rotate admission' 'rotated admission=dev-1'
admin rotate admission --all
expect 75 'of all, too early for one' 'dev-1'
admin rotate admission
expect 64 'of whom' '--id or --all is missing'
ec_key broker2
cat broker2.pub rsa.pub >gateway2.pub
admin rotate gateway --id gw --public gateway2.pub
expect 64 'rotate gateway' '--from or --in-hours is missing'
admin rotate gateway --id gw --public gateway2.pub --from tomorrow
expect 65 'at no time' '2027-01-31T23:59:59Z'
admin rotate gateway --id gw --public gateway2.pub --in-hours 0
expect 65 'at once' 'before it signs'
admin rotate gateway --id gw --public gateway2.pub --in-hours 2
expect 0 'rotate gateway' 'unwrapping=no'
admin show gateway gw
expect 0 'show gateway' 'next_from='
admin set --update-days 7
expect 0 'set'
admin bundle gateway --id gw --out rotated.bundle
expect 0 'a bundle that says so'
admin check
expect 0 'check'

# --- revocation ------------------------------------------------------------------------------
admin revoke grant --outlet out --receiver r-1
expect 0 'revoke a grant behind an outlet' 'grants=2'
admin revoke grant --outlet mine --receiver r-2
expect 65 'the only one' 'revoke the outlet'
admin revoke outlet mine
expect 0 'revoke an outlet' 'outlet=mine'
admin revoke hop --scope hall --distributor dist
expect 0 'revoke a hop, with what is behind it' 'hop=dist/hall'
admin list outlets
tap "$([[ ! -s out ]]; echo $?)" 'no outlet is left'
admin revoke hop --scope hall --distributor dist
expect 0 'again' 'unchanged'
admin revoke grant --scope hall --receiver r-2
expect 0 'revoke a grant' 'grants='
admin revoke grant --scope hall --receiver r-2
expect 0 'again' 'unchanged'
admin revoke grant --scope yard --receiver r-2
expect 67 'one that never was'
admin revoke receiver r-1
expect 0 'revoke a receiver'
admin revoke receiver r-1
expect 0 'again' 'unchanged'
admin revoke receiver r-11
expect 67 'a mistyped one' 'no receiver "r-11"'
admin revoke receiver
expect 64 'nobody' 'ID is missing'
admin grant --scope hall --receiver r-1
expect 67 'no grant for who is revoked'
admin list history
expect 0 'history' 'revoke receiver r-1'
admin check
expect 0 'check' 'whole'

# --- others at work --------------------------------------------------------------------------
exec 8>>state/lock
flock 8
admin scope deny --scope hall --device dev-1
expect 75 'another ssdtf-admin is at work' 'another ssdtf-admin'
admin list scopes
expect 0 'but reading goes on'
exec 8>&-
/usr/bin/python3 - <<'END' &
import sqlite3, time
db = sqlite3.connect("state/registry.db", isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
open("held", "w").close()
time.sleep(60)
END
holder=$!
until [[ -e held ]]; do sleep 0.05; done
admin scope deny --scope hall --device dev-1
expect 75 'another program holds the registry' 'another program'
kill "$holder"
wait "$holder" 2>/dev/null

pids=()
for i in 1 2 3 4 5 6; do
	"$O/ssdtf-admin" enrol device --id "crowd-$i" --generate "crowd-$i" >>crowd.out 2>&1 &
	pids+=($!)
done
bad=0
for pid in "${pids[@]}"; do
	wait "$pid" || bad=1
done
tap $bad 'six at once wait for each other'
((bad)) && tap_note <crowd.out

# --- kill -9 ---------------------------------------------------------------------------------
# killed COMMAND...: the command, killed somewhere between its start and its usual end, which is
# $usual tenths of a millisecond away. $killed counts those that did not end by themselves before.
killed=0
killed() {
	local pid

	"$O/ssdtf-admin" "$@" >/dev/null 2>&1 </dev/null &
	pid=$!
	sleep "$(printf '0.%04d' $((RANDOM % usual)))"
	kill -9 "$pid" 2>/dev/null
	wait "$pid" 2>/dev/null
	(($? == 137)) && ((++killed))
	return 0
}

# survives NAME COMMAND...: rounds of a kill, the same command again, and a check of everything. An
# N in the command is the round's number.
survives() {
	local name=$1 round start bad=0
	shift

	for ((round = 0; round <= kills_each; round++)); do
		# The first is not killed: it tells how long one takes.
		((round)) && killed "${@//N/$round}"
		start=$(date +%s%N)
		admin "${@//N/$round}"
		((round)) || usual=$((($(date +%s%N) - start) / 100000 + 1))
		((usual < 9999)) || usual=9999
		((status)) || admin check
		if ((status)) || [[ -n $(find . -name '*.tmp') ]]; then
			bad=1
			cat out err | tap_note
		fi
	done
	tap $bad "killed and repeated: $name"
}

admin enrol receiver --id keep --generate keep
survives enrol enrol receiver --id k-N --generate k-N
survives 'scope add' scope add --name k-N --filter t/N
survives grant grant --scope k-N --receiver keep
admin hop --scope k-1 --distributor dist
survives 'outlet add' outlet add --name k-N --scope k-1 --distributor dist --topic public/N
survives 'rotate scope' rotate scope --name k-1 --overlap-hours 0
survives allow scope allow --scope k-N --device dev-1
survives 'bundle gateway' bundle gateway --id gw --out killed.bundle
((have_python)) && one=$(verify killed.bundle gateway)
survives 'bundle all' bundle all --out-dir later
if ((have_python)); then
	bad=0
	for file in later/*.bundle; do
		kind=bundle
		[[ $file == later/gateway* ]] && kind=gateway
		[[ $file == later/distributor* ]] && kind=distributor
		two=$(verify "$file" $kind) && ((two > one)) || bad=1
	done
	tap $bad 'every bundle holds, and none has a serial of before'
fi
survives 'revoke grant' revoke grant --scope k-N --receiver keep
survives 'revoke receiver' revoke receiver k-N

# init has a token to set up besides: a fresh one for each round.
bad=0
rm -rf tokens state
token mgr
start=$(date +%s%N)
init
usual=$((($(date +%s%N) - start) / 100000 + 1))
for ((round = 1; round <= kills_each; round++)); do
	rm -rf tokens state
	token mgr
	killed init --module "$module" --token mgr --pin-file pin
	init
	((status)) || admin scope add --name first --filter t
	((status)) || admin check
	if ((status)); then
		bad=1
		tap_note <err
	fi
done
tap $bad 'killed and repeated: init'
echo "# $killed killed of $((kills_each * 11))"
tap "$((killed * 4 < kills_each * 11))" 'kills did meet commands at work'

tap_done
