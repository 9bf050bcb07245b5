// SPDX-License-Identifier: MIT
/* RDMSR and WRMSR of the host that exit: validated here, and never executed with a value that was not looked at. */
#include "cpu_features.h"
#include "emulate.h"
#include "event.h"
#include "host_cpu.h"
#include "log.h"
#include "monitor.h"
#include "msr_policy.h"
#include "nested.h"
#include "vmcs.h"

#define MISC_ENABLE_NO_BTS BIT(11)
#define MISC_ENABLE_NO_PEBS BIT(12)
/* Fast strings, thermal control, SpeedStep, MONITOR, turbo: what kernels are known to change. */
#define MISC_ENABLE_WRITABLE (BIT(0) | BIT(3) | BIT(16) | BIT(18) | BIT(38))
/* CPUID limit and XD disable, which would hit root, too: kernels only switch them off. */
#define MISC_ENABLE_CLEARABLE (BIT(22) | BIT(34))
/* Switch off mitigations (RNGDS, FB_CLEAR, GDS) that also keep the monitor's data from the host. */
#define MCU_OPT_CTRL_DISABLE (BIT(0) | BIT(3) | BIT(4))

/* NULL: the CPU has no such MTRR, or it is none. */
static u64 *mtrr_register(struct mtrr_state *mtrr, u32 msr)
{
	u32 n = msr - MSR_IA32_MTRR_PHYSBASE0;

	if (!msr_is_mtrr(msr) || (msr < MSR_IA32_MTRR_FIX64K_00000 && n / 2 >= (mtrr->capability & MTRRCAP_COUNT)))
		return NULL;
	return &mtrr->msr[n];
}

static bool write_efer(struct cpu *cpu, u64 value)
{
	u64 old = vmread(VMCS_GUEST_IA32_EFER);

	if (value & ~EFER_ALLOWED)
		return false;
	/* LMA is read-only, LME fixed while paging is on. */
	value = (value & ~EFER_LMA) | (old & EFER_LMA);
	if ((vmread(VMCS_GUEST_CR0) & CR0_PG) && ((value ^ old) & EFER_LME))
		return false;
	if (cpu->gate.on && !(value & EFER_NXE))
		gate_off(cpu);
	vmwrite(VMCS_GUEST_IA32_EFER, value);
	return true;
}

/* The base and the BSP flag stay; x2APIC mode and the global enable may change as the CPU itself allows. */
static bool write_apic_base(u64 value)
{
	u64 old = rdmsr(MSR_IA32_APIC_BASE), may_change = APIC_BASE_ENABLE | APIC_BASE_X2APIC;

	return !((value ^ old) & ~may_change) && wrmsr_checked(MSR_IA32_APIC_BASE, value);
}

static bool write_misc_enable(u64 value)
{
	u64 old = rdmsr(MSR_IA32_MISC_ENABLE);

	value = (value & ~(MISC_ENABLE_NO_BTS | MISC_ENABLE_NO_PEBS)) |
		(old & (MISC_ENABLE_NO_BTS | MISC_ENABLE_NO_PEBS));
	if (((value ^ old) & ~(MISC_ENABLE_WRITABLE | MISC_ENABLE_CLEARABLE)) || (value & ~old & MISC_ENABLE_CLEARABLE))
		return false;
	return wrmsr_checked(MSR_IA32_MISC_ENABLE, value);
}

static bool write_debugctl(struct cpu *cpu, u64 value)
{
	/* VM entry would fail on a bit that this CPU lacks, so it is tried here. Root itself runs with 0. */
	if ((value & ~DEBUGCTL_ALLOWED) || !wrmsr_checked(MSR_IA32_DEBUGCTL, value))
		return false;
	wrmsr(MSR_IA32_DEBUGCTL, 0);
	if (cpu->gate.on && (value & GATE_DEBUGCTL_REFUSED))
		gate_off(cpu);
	vmwrite(VMCS_GUEST_IA32_DEBUGCTL, value);
	return true;
}

/* Both move the TSC of this CPU; monitor_time() takes it off again. */
static bool write_tsc(struct cpu *cpu, u32 msr, u64 value)
{
	/*
	 * What a write of the TSC adds to it the CPU adds to IA32_TSC_ADJUST, too: that is exact, however long the write takes.
	 * Old CPUs lack that register.
	 */
	u32 moved = cpuid_or_zero(7).ebx & BIT(CPUID_TSC_ADJUST) ? MSR_IA32_TSC_ADJUST : msr;
	u64 old;

	if (!rdmsr_checked(moved, &old) || !wrmsr_checked(msr, value))
		return false;
	cpu->tsc_written += (moved == msr ? value : rdmsr(moved)) - old;
	return true;
}

/* What the CPU would refuse: reserved bits and memory types that do not exist. */
static bool mtrr_value_is_valid(const struct cpu *cpu, u32 msr, u64 value)
{
	u64 above = ~(BIT(cpu->capabilities.physical_address_bits) - 1);

	if (msr == MSR_IA32_MTRR_DEF_TYPE)
		return memory_type_is_defined(value & MTRR_DEF_TYPE) &&
		       !(value & ~(MTRR_DEF_TYPE | MTRR_FIXED_ENABLE | MTRR_ENABLE));
	if (msr >= MSR_IA32_MTRR_FIX64K_00000) {
		for (unsigned i = 0; i < 8; i++)
			if (!memory_type_is_defined(value >> 8 * i & 0xff))
				return false;
		return true;
	}
	if (msr % 2)
		return !(value & (above | 0x7ff));
	return memory_type_is_defined(value & 0xff) && !(value & (above | 0xf00));
}

static bool write_mtrr(struct cpu *cpu, u32 msr, u64 value)
{
	u64 *entry = mtrr_register(&cpu->mtrr, msr);

	if (!entry || !mtrr_value_is_valid(cpu, msr, value))
		return false;
	*entry = value;
	return true;
}

static bool handle_write(struct cpu *cpu, u32 msr, u64 value)
{
	switch (msr) {
	case MSR_IA32_EFER:
		return write_efer(cpu, value);
	case MSR_IA32_APIC_BASE:
		return write_apic_base(value);
	case MSR_IA32_MISC_ENABLE:
		return write_misc_enable(value);
	case MSR_IA32_BIOS_UPDT_TRIG:
		/* As if the update had not matched the CPU: the revision stays, and Linux says so. */
		log_refusal(REFUSED_MSR, "microcode update refused");
		return true;
	case MSR_IA32_DEBUGCTL:
		return write_debugctl(cpu, value);
	case MSR_IA32_TSC:
	case MSR_IA32_TSC_ADJUST:
		return write_tsc(cpu, msr, value);
	case MSR_IA32_MCU_OPT_CTRL:
		return wrmsr_checked(msr, value & ~MCU_OPT_CTRL_DISABLE);
	case MSR_IA32_MCG_STATUS:
		return value == 0 && wrmsr_checked(msr, 0);
	case MSR_IA32_XSS:
	case MSR_IA32_PEBS_ENABLE:
	case MSR_IA32_DS_AREA:
		return value == 0;
	case MSR_UNCORE_FIRST ... MSR_UNCORE_LAST:
		return wrmsr_checked(msr, value);
	default:
		return write_mtrr(cpu, msr, value);
	}
}

static bool handle_read(struct cpu *cpu, u32 msr, u64 *value)
{
	u64 *entry;

	switch (msr) {
	case MSR_IA32_FEATURE_CONTROL:
		*value = FEATURE_CONTROL_LOCK | (monitor.kvm ? FEATURE_CONTROL_VMX : 0);
		return true;
	case MSR_IA32_VMX_FIRST ... MSR_IA32_VMX_LAST:
		return monitor.kvm && nested_msr(msr, value);
	case MSR_IA32_MISC_ENABLE:
		*value = rdmsr(MSR_IA32_MISC_ENABLE) | MISC_ENABLE_NO_BTS | MISC_ENABLE_NO_PEBS;
		return true;
	case MSR_UNCORE_FIRST ... MSR_UNCORE_LAST:
		return rdmsr_checked(msr, value);
	default:
		entry = mtrr_register(&cpu->mtrr, msr);
		if (!entry)
			return false;
		*value = *entry;
		return true;
	}
}

static void refuse(u32 msr, const char *what)
{
	log_refusal(REFUSED_MSR, "%s of MSR %x refused, at %016lx", what, msr, vmread(VMCS_GUEST_RIP));
	inject_exception(VECTOR_GP);
}

void exit_rdmsr(struct registers *regs)
{
	u32 msr = (u32)regs->value[REGISTER_RCX];
	u64 value;

	if (host_msr_access(msr, false) != MSR_HANDLE || !handle_read(this_cpu(), msr, &value)) {
		refuse(msr, "read");
		return;
	}
	regs->value[REGISTER_RAX] = (u32)value;
	regs->value[REGISTER_RDX] = value >> 32;
	skip_instruction();
}

void exit_wrmsr(struct registers *regs)
{
	u32 msr = (u32)regs->value[REGISTER_RCX];
	u64 value = edx_eax(regs);

	/* Until the firmware's boot services end, its drivers still set up the machine and are as trusted as before. */
	if (!monitor.boot_services_ended && host_msr_access(msr, true) == MSR_DENY &&
	    host_msr_access(msr, false) == MSR_PASS && wrmsr_checked(msr, value)) {
		log_line(LOG_DEBUG, "the firmware wrote %lx to MSR %x", value, msr);
	} else if (host_msr_access(msr, true) != MSR_HANDLE || !handle_write(this_cpu(), msr, value)) {
		refuse(msr, "write");
		return;
	}
	skip_instruction();
}
