// SPDX-License-Identifier: GPL-2.0
/* How hyperps.ko calls the monitor: through the gate, or by VMCALL. No state, no locks. */
#include <linux/errno.h>
#include <linux/err.h>
#include <linux/string.h>
#include <asm/asm.h>

#include "gate.h"
#include "hyperps.h"

static long call_by_vmcall(u64 number, const u64 argument[HYPERPS_ARGUMENTS], u64 result[HYPERPS_RESULTS])
{
	long rax = number;
	u64 rbx, rdx = argument[2], rsi = argument[1], rdi = argument[0];
	register u64 r8 asm("r8") = argument[3];
	register u64 r9 asm("r9");
	register u64 r10 asm("r10");
	register u64 r11 asm("r11");

	/* On a fault the exception table's handler leaves the vector, a positive number, in RAX. */
	asm volatile("1: vmcall\n"
		     "2:\n" _ASM_EXTABLE_FAULT(1b, 2b)
		     : "+a"(rax), "=b"(rbx), "+d"(rdx), "+S"(rsi), "+D"(rdi), "+r"(r8), "=r"(r9), "=r"(r10), "=r"(r11)
		     :
		     : "memory", "cc");
	if (rax)
		return rax > 0 || rax < -MAX_ERRNO ? -ENODEV : rax;
	result[0] = rbx;
	result[1] = rdx;
	result[2] = rsi;
	result[3] = rdi;
	result[4] = r8;
	result[5] = r9;
	result[6] = r10;
	result[7] = r11;
	return 0;
}

long hyperps_vmcall(u64 number, const u64 argument[HYPERPS_ARGUMENTS], u64 *value)
{
	u64 result[HYPERPS_RESULTS];
	long error = call_by_vmcall(number, argument, result);

	if (!error)
		*value = result[0];
	return error;
}

long hyperps_call(u64 number, const u64 argument[HYPERPS_ARGUMENTS], u64 result[HYPERPS_RESULTS])
{
	u64 value;
	/* The gate itself says what it does not serve (-EOPNOTSUPP); this only spares the attempt. */
	long error = hyperps_gate_serves(number) ? hyperps_gate_call(number, argument, &value) : -EOPNOTSUPP;

	if (error == -EOPNOTSUPP)
		return call_by_vmcall(number, argument, result);
	if (!error) {
		memset(result, 0, HYPERPS_RESULTS * sizeof(u64));
		result[0] = value;
	}
	return error;
}
