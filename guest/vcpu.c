// SPDX-License-Identifier: MIT
/* vCPUs: their two pages, and the state in which they start. */
#include "cpu_features.h"
#include "memory_service.h"
#include "monitor.h"
#include "policy.h"
#include "stop.h"
#include "vcpu.h"
#include "vmcs.h"

#define FIRST_GUEST_VPID 2 /* 0 is root, 1 the host */
#define FCW_RESET 0x37f
#define MXCSR_RESET 0x1f80
#define FPU_FCW 0 /* byte offsets in an XSAVE area */
#define FPU_MXCSR 24
#define MULTIBOOT_MAGIC 0x2badb002
#define ARGUMENT (BIT(46) - PAGE_SIZE)

static u8 *msr_bitmap;
u64 guest_xcr0;
u32 guest_xsave_bytes = 576; /* the legacy area and the header */

void guest_init(void)
{
	u64 wanted = XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_OPMASK | XCR0_ZMM_HI256 | XCR0_HI16_ZMM | XCR0_PKRU;

	msr_bitmap = page_pool_take(&monitor.pool);
	CHECK(msr_bitmap);
	msr_fill_bitmap(msr_bitmap, guest_msr_access);
	guest_xcr0 = wanted & monitor.boot->capabilities.xcr0;
	for (u32 i = 2; i < 32; i++) {
		struct cpuid_result area = cpuid(0xd, i);

		if ((guest_xcr0 & BIT(i)) && area.ebx + area.eax > guest_xsave_bytes)
			guest_xsave_bytes = area.ebx + area.eax;
	}
	CHECK(guest_xsave_bytes <= GUEST_FPU_BYTES);
	run_init();
}

static void write_start(struct vcpu *vcpu, const u64 start[3])
{
	enum hyperps_vcpu_mode mode = start[0] & (PAGE_SIZE - 1);
	struct boot_cpu_state state = reset_state;
	struct boot_segment *code = &state.segment[SEGMENT_CS];
	u64 *regs = vcpu->regs.value, argument = start[0] & ARGUMENT;
	bool is_long = mode == HYPERPS_VCPU_LONG;

	regs[REGISTER_RSI] = vcpu->index;
	regs[REGISTER_RDI] = argument;
	state.rip = start[1];
	state.cr3 = start[2];
	if (mode == HYPERPS_VCPU_REAL) {
		code->selector = state.rip >> 4 & 0xf000;
		code->base = (u64)code->selector << 4;
		state.rip &= 0xffff;
	} else {
		for (unsigned i = SEGMENT_ES; i <= SEGMENT_GS; i++)
			state.segment[i] =
				(struct boot_segment){ .limit = ~0U, .access_rights = 0xc093, .selector = 16 };
		code->access_rights = is_long ? 0xa09b : 0xc09b;
		code->selector = 8;
		state.cr0 |= CR0_PE;
	}
	if (mode == HYPERPS_VCPU_PROTECTED) {
		regs[REGISTER_RAX] = MULTIBOOT_MAGIC;
		regs[REGISTER_RBX] = argument;
		regs[REGISTER_RDI] = 0;
	}
	state.cr0 |= is_long ? CR0_PG | CR0_WP : 0;
	state.cr4 = CR4_MCE | (is_long ? CR4_PAE : 0);
	state.efer = is_long ? EFER_LME | EFER_LMA | EFER_NXE : 0;
	vmcs_write_state(&state);
	/* It reads MCE as 0 at first. */
	vmwrite(VMCS_CR4_READ_SHADOW, 0);
	vcpu->xcr0 = XCR0_X87;
	vcpu->state.dr6 = DR6_RESET;
	/* As XRSTOR's initial values; with FXRSTOR these are all that is not 0. */
	*(u16 *)(vcpu->fpu + FPU_FCW) = FCW_RESET;
	*(u32 *)(vcpu->fpu + FPU_MXCSR) = MXCSR_RESET;
}

/*
 * CR4 bits that this guest may not set: those that its CPUID does not know, and the monitor's. Also MCE, which is always
 * on: without it a machine check would shut the CPU down.
 */
static u64 cr4_owned(const struct vcpu *vcpu)
{
	const struct guest_cpuid_state state = { .xcr0_supported = guest_xcr0, .index = vcpu->index, .vcpus = 1 };
	struct cpuid_result leaf1 = cpuid(1, 0), leaf7 = cpuid_or_zero(7);

	guest_cpuid(1, 0, &state, &leaf1);
	guest_cpuid(7, 0, &state, &leaf7);
	return ~guest_cr4_allowed(leaf1.ecx, leaf1.edx, leaf7.ebx, leaf7.ecx) | CR4_MCE;
}

/* SDM, "VMCLEAR", "VMPTRLD": the memory image is complete, and no CPU has the VMCS, after VMCLEAR. */
static void make_vmcs(struct vcpu *vcpu, const u64 start[3])
{
	const struct vmx_capabilities *capabilities = &monitor.boot->capabilities;
	struct cpu *cpu = this_cpu();

	cpu->vmcs_current = false;
	vmclear(vcpu->vmcs);
	vmptrld(vcpu->vmcs);
	/* All but the fields of root's state, which each run writes. */
	vmcs_write_defaults(capabilities->guest_secondary);
	vmwrite(VMCS_PIN_CONTROLS, capabilities->guest_pin);
	vmwrite(VMCS_PRIMARY_CONTROLS, capabilities->guest_primary);
	/* #AC and #DB, since a guest can make their delivery raise them again for ever, without ever leaving. */
	vmwrite(VMCS_EXCEPTION_BITMAP, BIT(VECTOR_DB) | BIT(VECTOR_AC) | BIT(VECTOR_MC));
	vmwrite(VMCS_MSR_BITMAP, hpa_of(msr_bitmap).value);
	vmwrite(VMCS_EPTP, ept_pointer(&vcpu->vm->view));
	if (capabilities->guest_secondary & SECONDARY_VPID)
		vmwrite(VMCS_VPID, FIRST_GUEST_VPID + vcpu->handle % HYPERPS_VMS * HYPERPS_VCPUS + vcpu->index);
	vmwrite(VMCS_CR0_MASK, CR0_OWNED);
	vmwrite(VMCS_CR4_MASK, cr4_owned(vcpu));
	vmwrite(VMCS_GUEST_IA32_PAT, PAT_RESET);
	/* Its TSC begins at 0: when the host started is no business of the guest's. */
	vcpu->tsc_offset = 0 - monitor_time();
	write_start(vcpu, start);
	vmclear(vcpu->vmcs);
	vmcs_load_host(cpu);
}

static bool start_is_valid(u64 mode_and_argument, u64 entry, u64 cr3)
{
	u64 mode = mode_and_argument & (PAGE_SIZE - 1);

	if (mode_and_argument & ~(ARGUMENT | (PAGE_SIZE - 1)))
		return false;
	switch (mode) {
	case HYPERPS_VCPU_REAL:
		return entry < BIT(20) && !cr3;
	case HYPERPS_VCPU_PROTECTED:
		return entry < BIT(32) && !cr3;
	case HYPERPS_VCPU_LONG:
		return (u64)((s64)(entry << 16) >> 16) == entry && !(cr3 & ~ARGUMENT) &&
		       !(cr3 >> monitor.boot->capabilities.physical_address_bits);
	default:
		return false;
	}
}

static s64 create(const u64 argument[4], u64 *index)
{
	struct mm *mm = memory_lock();
	const struct vm *vm = mm_find_vm(mm, argument[0]);
	struct vm_vcpu *pages;
	s64 result = !start_is_valid(argument[1], argument[2], argument[3]) ? HYPERPS_ERROR_INVALID
		     : vm && vm->kvm.is_kvm                                 ? HYPERPS_ERROR_STATE
					    : mm_add_vcpu(mm, argument[0], &argument[1], &pages);

	if (result >= 0) {
		struct vcpu *vcpu = pages->state;

		*(u32 *)pages->vmcs = monitor.boot->capabilities.basic & VMX_BASIC_REVISION;
		__builtin_memcpy(vcpu->start, pages->start, sizeof(vcpu->start));
		vcpu->vmcs = hpa_of(pages->vmcs);
		vcpu->handle = argument[0];
		vcpu->vm = mm_find_vm(mm, argument[0]);
		vcpu->index = (u32)result;
		make_vmcs(vcpu, pages->start);
		*index = vcpu->index;
	}
	memory_unlock();
	return result < 0 ? result : HYPERPS_OK;
}

s64 vcpu_create(const u64 argument[4], u64 *index)
{
	s64 result = create(argument, index);

	/* A flush may free pages of the pool. */
	return result == HYPERPS_ERROR_MEMORY && memory_flush() ? create(argument, index) : result;
}

void guest_describe_exits(u32 slot, struct hyperps_vm_exits *out)
{
	struct mm *mm = memory_lock();
	const struct vm *vm = &mm->vm[slot];
	struct hyperps_vm description;

	mm_describe(mm, slot, &description);
	*out = (struct hyperps_vm_exits){ .handle = description.handle };
	/* A KVM VM's outlive their pages. */
	for (u32 i = 0; i < vm->vcpus && vm->vcpu[i].state; i++) {
		const struct vcpu *vcpu = vm->vcpu[i].state;

		for (u32 reason = 0; reason < HYPERPS_EXIT_REASONS; reason++) {
			out->reason[reason] += vcpu->exits[reason];
			out->total += vcpu->exits[reason];
		}
	}
	memory_unlock();
}
