# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# TAP 13 for shell tests, sourced. tap STATUS NAME reports one test; tap_done prints the plan and
# gives the exit status.
tap_count=0
tap_failed=0
echo 'TAP version 13'

tap() {
	((++tap_count))
	if (($1)); then
		((++tap_failed))
		echo "not ok $tap_count - $2"
	else
		echo "ok $tap_count - $2"
	fi
}

tap_skip() {
	((++tap_count))
	echo "ok $tap_count - $1 # SKIP $2"
}

# tap_rounds FULL: how often to do what is done FULL times, as harness_rounds() of tests/harness.h.
tap_rounds() {
	if [[ ${TESTS_EFFORT-} == low ]]; then
		echo $(($1 < 4 ? 1 : $1 / 4))
	else
		echo "$1"
	fi
}

# Standard input as comments.
tap_note() {
	sed 's/^/# /'
}

# tap_refuses STATUS TEXT COMMAND...: it ends so, with one line of complaint that has TEXT in it,
# and no output. $work is a folder to write to, $O where programs are: neither stands in the name.
tap_refuses() {
	local status=$1 text=$2 bad=0 said

	shift 2
	said=${*//"$work"/.}
	"$@" >"$work/out" 2>"$work/err" </dev/null
	[[ $? == "$status" ]] || bad=1
	grep -qF -- "$text" "$work/err" || bad=1
	[[ $(wc -l <"$work/err") == 1 && ! -s $work/out ]] || bad=1
	tap $bad "refused with $status: ${said//"$O/"/}"
	((!bad)) || tap_note <"$work/err"
}

tap_done() {
	echo "1..$tap_count"
	((!tap_failed))
}
