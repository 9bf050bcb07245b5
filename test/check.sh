#!/bin/bash
# SPDX-License-Identifier: MIT
# Checks of the source tree, as TAP: formatting, headers that stand alone, scripts, no file without a licence, the list of MSRs.
cd "$(dirname "$0")/.." || exit 1
count=0 failed=0

result() # STATUS TEXT [DETAILS]
{
	count=$((count + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $count - $2"
	else
		failed=$((failed + 1))
		echo "not ok $count - $2"
		[ -z "${3:-}" ] || printf '%s\n' "$3" | sed 's/^/# /' | head -40
	fi
}

mapfile -t files < <(git ls-files '*.[ch]' '*.cc')
[ ${#files[@]} -gt 10 ]
result $? "there are C files to check (${#files[@]})"
details=$(clang-format-14 --dry-run -Werror "${files[@]}" 2>&1)
result $? "formatting is .clang-format's" "$details"

read -ra layers < <(sed -n 's/^LAYERS := //p' startup/monitor.mk)
includes=(-Iinclude "${layers[@]/#/-I}" -Iboot -Ihost/hpsctl -Ihost/module)
for header in $(git ls-files 'include/*.h' "${layers[@]/%//*.h}" boot/conf.h boot/pagetable.h); do
	details=$(gcc -std=gnu11 -Wall -Wextra -Werror -Wno-unused-function -ffreestanding -mgeneral-regs-only "${includes[@]}" \
		-fsyntax-only -x c -include "$header" /dev/null 2>&1)
	result $? "$header compiles alone" "$details"
done

details=$(git ls-files '*.[ch]' '*.cc' '*.asm' '*.sh' '*.pl' '*.py' '*.mk' Makefile linker.ld | xargs grep -L SPDX-License-Identifier)
[ -z "$details" ]
result $? "every source file names its licence" "$details"

# linter TOOL COMMAND...: a check that counts as skipped where the tool is not installed.
linter()
{
	local tool=$1
	shift
	if command -v "$tool" >/dev/null; then
		details=$("$@" 2>&1)
		result $? "$tool" "$details"
	else
		count=$((count + 1))
		echo "ok $count # SKIP $tool is not installed"
	fi
}

mapfile -t files < <(git ls-files | xargs grep -lE '^#!/bin/(ba)?sh')
linter shellcheck shellcheck -x "${files[@]}"
mapfile -t files < <(git ls-files '*.py'; git ls-files | grep -v '\.py$' | xargs grep -lE '^#!.*python3')
linter pylint pylint --score=n -j 2 "${files[@]}"
# Not the jobs of the make that runs this test.
linter clang-tidy-14 env -u MAKEFLAGS make -s -k -j2 tidy
details=$(env -u MAKEFLAGS make -s -j2 BUILD=build/clang MONITOR_CC=clang build/clang/monitor.bin 2>&1)
result $? "the monitor compiles with clang" "$details"
details=$(grep -rnE --include='*.c' '\b(malloc|alloca)\(' "${layers[@]/%//}")
[ -z "$details" ]
result $? "the monitor allocates nothing at run time" "$details"
details=$(sed '1,/^static const struct msr_range writes/d; /^}/,$d' vmx/msr_policy.c | perl -ne '
	/^\t\{ (0x\w+), (0x\w+), MSR_(PASS|HANDLE) \}, \/\* .+ \*\/$/ or print "no reason: $_";
	hex $1 > ($last // 0) && hex $2 >= hex $1 or print "order: $_";
	$last = hex $2;
	END { print "only $. lines" if $. < 50 }')
[ -z "$details" ]
result $? "each MSR that the host may write is listed once, with a reason" "$details"
complaints=$(sed -n "s/^complaints='\(.*\)'$/\1/p" host/attacks/lib.sh)
details=$(grep -vE "$complaints" <<'END'
WARNING: CPU: 0 PID: 1 at kernel/a.c:1 f+0x1/0x2
WARNING: kernel/a.c:1 at f+0x1/0x2, CPU#0: sh/1
UBSAN: shift-out-of-bounds in kernel/a.c:1:2
kernel BUG at kernel/a.c:1!
BUG: unable to handle page fault for address: 0000000000000000
INFO: task sh:1 blocked for more than 120 seconds.
END
)
details+=$(grep -E "$complaints" <<<"RETBleed: WARNING: Spectre v2 mitigation leaves CPU vulnerable to RETBleed attacks")
[ -n "$complaints" ] && [ -z "$details" ]
result $? "the tests notice each of Linux's own complaints" "$details"
echo "1..$count"
[ $failed -eq 0 ]
