// SPDX-License-Identifier: GPL-2.0
/* The gate from the host's side: a gate of this module's own, calls through it, and what it costs. */
#include <linux/preempt.h>
#include <asm/msr.h>

#include "calls.h"
#include "gate.h"
#include "gate_storm.h"
#include "gate_sweep.h"
#include "tap.h"

#define CALLS 10000

/* The reading itself is one of them. */
static u64 exits_of(u64 slot)
{
	return read_word(HYPERPS_OBJECT_EXITS | slot << 32, offsetof(struct hyperps_exits, total));
}

static void check_calls(struct seq_file *out)
{
	static const u64 none[4];
	u64 cr3, value = 0, before, after, start, ticks, i, failed = 0;
	unsigned int slot = 0;

	tap_check(out, hyperps_gate_call(HYPERPS_CALL_IDENTIFY, none, &value) == 0 && value == HYPERPS_SIGNATURE,
		  "identify through the gate gives the signature (%llx)", value);
	tap_check(out, hyperps_gate_call(0x12345, none, &value) == HYPERPS_ERROR_USE_VMCALL,
		  "an unknown call is left to VMCALL");
	tap_check(out, hyperps_gate_call(HYPERPS_CALL_VM_SYNC, none, &value) == HYPERPS_ERROR_USE_VMCALL,
		  "a call that needs a flush is left to VMCALL");
	preempt_disable();
	before = exits_of(slot);
	for (i = 0; i < CALLS; i++)
		failed += hyperps_gate_call(HYPERPS_CALL_IDENTIFY, none, &value) != 0;
	after = exits_of(slot);
	preempt_enable();
	tap_check(out, !failed && after - before == 1,
		  "%d calls: %llu failed, %llu VM exits but for the reading itself", CALLS, failed, after - before - 1);
	/* Alone: arguments and results in registers, as the gate wants them. */
	cr3 = hyperps_gate_cr3();
	local_irq_disable();
	start = rdtsc();
	for (i = 0; i < CALLS; i++)
		hyperps_gate_enter(0, 0, 0, cr3, 0, HYPERPS_CALL_IDENTIFY);
	ticks = rdtsc() - start;
	local_irq_enable();
	seq_printf(out, "bench gate.vmfunc %llu\nbench-exits gate.vmfunc %llu\n", ticks / CALLS, after - before - 1);
}

static bool keep;
module_param(keep, bool, 0600);
MODULE_PARM_DESC(keep, "leave the gate on: the next reader without it switches it off");
static bool storm;
module_param(storm, bool, 0600);
MODULE_PARM_DESC(storm, "all CPUs in the gate at once, too");
static bool sweep;
module_param(sweep, bool, 0400);
MODULE_PARM_DESC(sweep, "events at each instruction of a call, and nothing else");

static int show_gate(struct seq_file *out, void *unused)
{
	static bool kept;
	int error = kept ? 0 : hyperps_gate_start();

	tap_check(out, !error, "the gate is switched on (%d)", error);
	if (error)
		return 0;
	if (sweep)
		check_sweeps(out);
	else
		check_calls(out);
	if (storm) {
		check_storms(out);
		hyperps_gate_stop();
		error = hyperps_gate_start();
		tap_check(out, !error, "after that the gate is switched on again (%d)", error);
	}
	kept = keep;
	if (!kept)
		hyperps_gate_stop();
	return 0;
}

TAP_MODULE("gate_probe", show_gate, "Calls the monitor through the gate");
