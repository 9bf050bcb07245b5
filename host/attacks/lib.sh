# SPDX-License-Identifier: MIT
# For the test scripts: TAP lines without a plan. A script ends with summary. A check whose text begins with "setup: " says
# whether the test can be run at all; "positive control: " that what is refused elsewhere works where it may.
# shellcheck shell=dash
checks=0
failed=0
output=/tmp/output.$$
# Where this file, the programs and modules/ are; attacks/ has those that hpsctl attack runs.
tests=${0%/attacks/*}
[ "$tests" != "$0" ] || tests=${0%/*}

# result STATUS DESCRIPTION: print one check; STATUS 0 means passed
result() {
	checks=$((checks + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok - $2"
	else
		failed=$((failed + 1))
		echo "not ok - $2"
	fi
}

# check DESCRIPTION COMMAND...: passes if the command succeeds
check() {
	description=$1
	shift
	"$@" >/dev/null 2>&1
	result $? "$description"
}

# absorb COMMAND...: run a command that prints checks itself, and count them. Its output stays in $output.
absorb() {
	before_absorb=$checks
	"$@" >$output 2>&1
	code=$?
	while IFS= read -r line; do
		case $line in
		"ok - "*) result 0 "${line#ok - }" ;;
		"not ok - "*) result 1 "${line#not ok - }" ;;
		*) echo "# ${line#\# }" ;;
		esac
	done <$output
	[ "$checks" -ne "$before_absorb" ] || result 1 "'$*' gave no check (exit code $code)"
}

# load MODULE [PARAMETER=VALUE]...: load a test module
load() {
	module=$1
	shift
	check "setup: loading $module.ko" insmod "$tests/modules/$module.ko" "$@"
}

# on_each_cpu COMMAND...: absorb the command on each CPU that is online
on_each_cpu() {
	for cpu in $(online_cpus); do
		echo "# on CPU $cpu"
		absorb taskset -c "$cpu" "$@"
	done
}

online_cpus() {
	sed -n 's/^processor[[:space:]]*: //p' /proc/cpuinfo
}

# status_value KEY: a number or truth value of hpsctl status --json; nothing if HyperPS is not running
status_value() {
	hpsctl status --json 2>/dev/null | sed -n "s/^ *\"$1\": \([^,]*\),*\$/\1/p"
}

# frames_value STATE: how many frames are in this state
frames_value() {
	hpsctl frames --json | sed -n "s/^ *\"$1\": \([0-9]*\).*/\1/p"
}

# grew KEY BEFORE N: is the counter KEY of the status at least BEFORE + N?
grew() {
	now=$(status_value "$1")
	[ -n "$now" ] && [ -n "$2" ] && [ "$now" -ge $(($2 + $3)) ]
}

# What Linux writes when something is wrong with it; test/live/attacks.py and test/check.sh read this line, too.
complaints='BUG:|kernel BUG|Oops|WARNING: (CPU: |[^ ]*:[0-9]+ at )|UBSAN: |unchecked MSR|general protection|soft lockup|blocked for more than|rcu.*stall|NMI received for unknown reason'

# kernel_is_quiet PATTERN: has Linux neither crashed nor warned, but by lines that match? Prints the lines that say so.
kernel_is_quiet() {
	dmesg >/tmp/kernel_log
	check "the kernel's log can be read" test -s /tmp/kernel_log
	! grep -E "$complaints" /tmp/kernel_log | grep -vE "$1"
	result $? "no oops, warning or unchecked MSR access in the kernel's log"
}

# module NAME [PARAMETER=VALUE]...: all checks of a module, on CPU 0
module() {
	load "$@"
	absorb taskset -c 0 cat "/proc/$1"
	rmmod "$1"
}

# begin_attack: says in $gate how calls go, vmfunc or vmcall, and in $kvm whether VMX is the host's (`offered`, or empty), and has
# counted count from here on
begin_attack() {
	gate=vmcall
	[ "$(status_value gate)" != '"offered"' ] || gate=vmfunc
	kvm=
	[ "$(status_value kvm)" != '"on"' ] || kvm=offered
	for kind in memory msr instruction register gate dma; do
		eval "refused_$kind=$(status_value refused_$kind)"
	done
}

# counted KIND N PATTERN: the monitor has counted N refusals of that kind since begin_attack, and logged one
counted() {
	eval "old=\$refused_$1"
	now=$(status_value "refused_$1")
	[ $((${now:-0} - ${old:-0})) -ge "$2" ]
	result $? "the monitor counted it (refused_$1: $((${now:-0} - ${old:-0})))"
	hpsctl log | grep -iE "$3" | tail -n 1 >"$output"
	sed 's/^/# /' "$output"
	check "and logged it" test -s "$output"
}

# frames: how many are in which state, but for the monitor's pool
frames() {
	hpsctl frames --json | grep -v '"monitor"\|"to_monitor"'
}

# siege PARTS: these parts of vcpu_siege.ko, on CPU 0; its guest then runs on, on the last CPU, until end_siege
siege() {
	load vcpu_siege "parts=$1"
	absorb taskset -c 0 cat /proc/vcpu_siege
}

end_siege() {
	check "the guest's VM can't be ended while it runs, then ends, and its memory comes back zeroed" \
		taskset -c 0 sh -c 'echo 1 >/sys/module/vcpu_siege/parameters/end'
	dmesg | sed -n 's/.*vcpu_siege: the end/# the end/p' | tail -n 1
	rmmod vcpu_siege
}

# command_line_value WORD: the value of WORD=value on the kernel's command line
command_line_value() {
	tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"
}

summary() {
	rm -f $output
	echo "# failed $failed of $checks"
	[ $failed -eq 0 ] && [ $checks -ne 0 ]
	exit
}
