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

# Standard input as comments.
tap_note() {
	sed 's/^/# /'
}

tap_done() {
	echo "1..$tap_count"
	((!tap_failed))
}
