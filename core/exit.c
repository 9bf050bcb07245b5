// SPDX-License-Identifier: MIT
/* VM exits of the host, dispatched by reason. */
#include "core.h"
#include "host.h"
#include "x86.h"

void exit_dispatch(struct guest_registers *regs);
void entry_failed(void) __attribute__((noreturn));

void entry_failed(void)
{
	panic("VM entry failed");
}

static void handle_exit(struct cpu *cpu, struct guest_registers *regs, u32 reason)
{
	stop_if_asked();
	switch (reason) {
	case EXIT_CPUID: /* what vmx/exit.asm did not answer */
		exit_cpuid(regs);
		break;
	case EXIT_RDMSR:
		exit_rdmsr(cpu, regs);
		break;
	case EXIT_WRMSR:
		exit_wrmsr(cpu, regs);
		break;
	case EXIT_CR_ACCESS:
		exit_cr_access(cpu, regs);
		break;
	case EXIT_XSETBV:
		exit_xsetbv(regs);
		break;
	case EXIT_INIT:
		exit_init(cpu, regs);
		break;
	case EXIT_SIPI:
		exit_sipi(cpu, regs);
		break;
	case EXIT_TRIPLE_FAULT:
		exit_triple_fault();
		break;
	case EXIT_IO_INSTRUCTION:
		exit_io(regs);
		break;
	case EXIT_EPT_VIOLATION:
		exit_ept_violation();
		break;
	case EXIT_EXCEPTION_OR_NMI:
		exit_exception_or_nmi(cpu);
		break;
	case EXIT_NMI_WINDOW:
		exit_nmi_window(cpu);
		break;
	case EXIT_VMCALL: /* from elsewhere than the kernel */
	case EXIT_TASK_SWITCH:
	case EXIT_INVD:
		exit_refused_instruction(reason);
		break;
	default:
		if (!is_undefined_instruction(reason))
			panic("unexpected VM exit, reason %u", reason);
		exit_refused_instruction(reason);
	}
}

void exit_dispatch(struct guest_registers *regs)
{
	struct cpu *cpu = this_cpu();
	u64 full_reason = vmread(VMCS_EXIT_REASON);
	u32 reason = full_reason & 0xffff;

	if (full_reason == (EXIT_REASON_ENTRY_FAILURE | EXIT_ENTRY_FAILED_MACHINE_CHECK)) {
		__atomic_fetch_or(&cpu->latched, LATCHED_MACHINE_CHECK, __ATOMIC_SEQ_CST);
		if (cpu->gate.on && vmread(VMCS_EPTP) != monitor.host_eptp)
			gate_wait_for_cr3(cpu);
		else
			host_deliver_latched(cpu);
		return;
	}
	/*
	 * Outside 64-bit mode the next fetch wraps at 4 GiB, but an event before it can leave RIP above, which VM entry refuses.
	 * It has changed nothing (SDM, "VM-Entry Failures During or After Loading Guest State"): once more.
	 */
	if (full_reason == (EXIT_REASON_ENTRY_FAILURE | EXIT_ENTRY_FAILED_GUEST_STATE) && !is_64bit() &&
	    vmread(VMCS_GUEST_RIP) >> 32) {
		vmwrite(VMCS_GUEST_RIP, (u32)vmread(VMCS_GUEST_RIP));
		return;
	}
	if (full_reason & EXIT_REASON_ENTRY_FAILURE)
		panic("VM entry refused by the CPU: reason %u", reason);
	if (reason < HYPERPS_EXIT_REASONS)
		cpu->exits[reason]++;

	if (cpu->gate.on && vmread(VMCS_EPTP) != monitor.host_eptp && gate_exit(cpu, reason))
		return;
	/* First: it is what a host waits for. */
	if (reason == EXIT_VMCALL && is_64bit_ring0()) {
		cpu->exits_vmcall++;
		serve_call(regs);
		skip_instruction();
		if (monitor.flush_l1)
			wrmsr(MSR_IA32_FLUSH_CMD, FLUSH_CMD_L1D);
		if (__builtin_expect(!cpu->latched, true))
			return;
	} else {
		handle_exit(cpu, regs, reason);
	}
	if (cpu->latched & LATCHED_INIT) {
		__atomic_fetch_and(&cpu->latched, ~LATCHED_INIT, __ATOMIC_SEQ_CST);
		exit_init(cpu, regs);
	}
	if (cpu->latched)
		host_deliver_latched(cpu);
}
