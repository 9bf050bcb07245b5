# SPDX-License-Identifier: MIT
# For the scripts that use the stock kernel's KVM; behind lib.sh.
# shellcheck shell=dash
PROBE=/test/kvm_probe
MODULES=/test/modules

load_kvm() {
	for name in irqbypass kvm; do
		if [ -s $MODULES/$name.ko ] && ! grep -q "^$name " /proc/modules; then
			check "$name loads" insmod $MODULES/$name.ko
		fi
	done
	load_intel
}

# Bochs wants descriptors of posted interrupts to be page-aligned, as KVM's are not.
load_intel() {
	check "kvm_intel loads" insmod $MODULES/kvm-intel.ko enable_apicv=0
	check "there is /dev/kvm" test -c /dev/kvm
}

# What is left of a VM whose process was killed goes a moment later.
remove_intel() {
	tries=0
	while ! rmmod kvm_intel 2>/dev/null && [ $tries -lt 50 ]; do
		tries=$((tries + 1))
		sleep 0.1
	done
	! grep -q "^kvm_intel " /proc/modules
	result $? "kvm_intel can be removed"
}

# start_endless CPU: a VM runs there, until stop_endless, perhaps of another script
start_endless() {
	taskset -c "$1" $PROBE endless >/tmp/endless 2>&1 &
	endless=$!
	echo $endless >/tmp/endless.pid
	tries=0
	while ! grep -q "^ok" /tmp/endless && [ $tries -lt 50 ]; do
		tries=$((tries + 1))
		sleep 0.1
	done
	check "a VM runs on the last CPU" grep -q "^ok" /tmp/endless
}

stop_endless() {
	endless=$(cat /tmp/endless.pid)
	check "it has not ended" kill -0 "$endless"
	kill -9 "$endless"
	wait "$endless" 2>/dev/null
}

# KVM works on each CPU, as it does where nothing was before.
kvm_is_fresh() {
	load_kvm
	on_each_cpu $PROBE real long
	absorb $PROBE smp
	remove_intel
}
