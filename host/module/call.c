// SPDX-License-Identifier: GPL-2.0
/* No state, no locks. */
#include <linux/errno.h>
#include <linux/err.h>
#include <linux/string.h>

#include "call.h"
#include "gate.h"

#define HANDLE_SLOT 0xffffffffULL

long hyperps_call(u64 number, const u64 argument[HYPERPS_ARGUMENTS], u64 result[HYPERPS_RESULTS])
{
	u64 value;
	/* The gate itself says what it does not serve (-EOPNOTSUPP); this only spares the attempt. */
	long error = hyperps_gate_serves(number) ? hyperps_gate_call(number, argument, &value) : -EOPNOTSUPP;

	if (error == -EOPNOTSUPP) {
		error = hyperps_vmcall(number, argument, result);
		return error > 0 || error < -MAX_ERRNO ? -ENODEV : error;
	}
	if (!error) {
		memset(result, 0, HYPERPS_RESULTS * sizeof(u64));
		result[0] = value;
	}
	return error;
}

long vm_call(u64 number, u64 handle, u64 a, u64 b, u64 c)
{
	const u64 argument[HYPERPS_ARGUMENTS] = { handle, a, b, c };
	u64 result[HYPERPS_RESULTS];
	long error = hyperps_call(number, argument, result);

	return error ? error : (long)result[0];
}

long vm_read_object(u64 slot_or_handle, u64 object, void *out)
{
	const u64 argument[HYPERPS_ARGUMENTS] = { object | (slot_or_handle & HANDLE_SLOT) << 32 };

	return hyperps_call(HYPERPS_CALL_READ, argument, out);
}
