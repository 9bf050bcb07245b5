#!/bin/bash
# SPDX-License-Identifier: MIT
# Sparse looks at each C file of the kernel modules, as TAP: address spaces, locks, byte orders, what should be static.
cd "$(dirname "$0")/.." || exit 1
count=0 failed=0
for modules in host attacks test; do
	log=build/sparse/$modules/kbuild.log
	make --no-print-directory "sparse-$modules" >/dev/null 2>&1
	files=$(grep -c '^  CHECK' "$log")
	found=$(grep -E '\.[ch]:[0-9]+:[0-9]+: (warning|error)' "$log")
	# Without sparse, or without headers, nothing is looked at.
	[ "$files" -ge 5 ] || found=$(tail -n 5 "$log")
	count=$((count + 1))
	if [ -z "$found" ]; then
		echo "ok $count - sparse: $modules ($files files)"
	else
		failed=$((failed + 1))
		echo "not ok $count - sparse: $modules ($files files)"
		printf '%s\n' "$found" | sed 's/^/# /'
	fi
done
echo "1..$count"
[ $failed -eq 0 ]
