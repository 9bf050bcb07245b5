// SPDX-License-Identifier: MIT
/* vCPUs: their two pages, the state in which they start, and the measurement of a VM. */
#include "core.h"
#include "host.h"
#include "manager.h"
#include "policy.h"
#include "vcpu.h"
#include "x86.h"

#define FIRST_GUEST_VPID 2 /* 0 is root, 1 the host */
#define FCW_RESET 0x37f
#define MXCSR_RESET 0x1f80
#define FPU_FCW 0 /* byte offsets in an XSAVE area */
#define FPU_MXCSR 24
#define MULTIBOOT_MAGIC 0x2badb002
#define ARGUMENT (BIT(46) - PAGE_SIZE)

static struct guest guests[HYPERPS_VMS];
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

struct guest *guest_of(u64 handle)
{
	return &guests[handle % HYPERPS_VMS];
}

static void write_start(struct vcpu *vcpu)
{
	enum hyperps_vcpu_mode mode = vcpu->start[0] & (PAGE_SIZE - 1);
	struct boot_cpu_state state = reset_state;
	struct boot_segment *code = &state.segment[SEGMENT_CS];
	u64 *regs = vcpu->regs.value, argument = vcpu->start[0] & ARGUMENT;
	bool is_long = mode == HYPERPS_VCPU_LONG;

	regs[REGISTER_RSI] = vcpu->index;
	regs[REGISTER_RDI] = argument;
	state.rip = vcpu->start[1];
	state.cr3 = vcpu->start[2];
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
static void make_vmcs(struct vcpu *vcpu, u64 slot, u64 eptp)
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
	vmwrite(VMCS_EPTP, eptp);
	if (capabilities->guest_secondary & SECONDARY_VPID)
		vmwrite(VMCS_VPID, FIRST_GUEST_VPID + slot * HYPERPS_VCPUS + vcpu->index);
	vmwrite(VMCS_CR0_MASK, HOST_CR0_OWNED);
	vmwrite(VMCS_CR4_MASK, cr4_owned(vcpu));
	vmwrite(VMCS_GUEST_IA32_PAT, PAT_RESET);
	/* Its TSC begins at 0: when the host started is no business of the guest's. */
	vcpu->tsc_offset = 0 - monitor_time();
	write_start(vcpu);
	vmclear(vcpu->vmcs);
	host_vmcs_load(cpu);
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
	struct guest *guest = guest_of(argument[0]);
	struct hyperps_vm vm;
	struct vcpu *vcpu;
	s64 result = HYPERPS_OK;
	u8 *vmcs;

	page_pool_refresh(mm->pool, mm->epoch, mm->flushed, MM_BATCH);
	mm_describe(mm, argument[0] % HYPERPS_VMS, &vm);
	if (vm.state == HYPERPS_VM_FREE || vm.handle != argument[0])
		result = HYPERPS_ERROR_NO_VM;
	else if (vm.state != HYPERPS_VM_OPEN)
		result = HYPERPS_ERROR_STATE;
	else if (guest->vcpus == HYPERPS_VCPUS || !start_is_valid(argument[1], argument[2], argument[3]))
		result = HYPERPS_ERROR_INVALID;
	else if (page_pool_available(mm->pool) < MM_POOL_RESERVE + 2)
		result = HYPERPS_ERROR_MEMORY;
	if (!result) {
		vmcs = page_pool_take(mm->pool);
		vcpu = page_pool_take(mm->pool);
		*(u32 *)vmcs = monitor.boot->capabilities.basic & VMX_BASIC_REVISION;
		vcpu->vmcs = page_pool_hpa(mm->pool, vmcs);
		vcpu->handle = argument[0];
		__builtin_memcpy(vcpu->start, &argument[1], sizeof(vcpu->start));
		vcpu->index = guest->vcpus;
		make_vmcs(vcpu, argument[0] % HYPERPS_VMS, vm.view_eptp);
		guest->vcpu[guest->vcpus++] = vcpu;
		*index = vcpu->index;
	}
	memory_unlock();
	return result;
}

s64 vcpu_create(const u64 argument[4], u64 *index)
{
	s64 result = create(argument, index);

	/* A flush may free pages of the pool. */
	return result == HYPERPS_ERROR_MEMORY && memory_flush() ? create(argument, index) : result;
}

void guest_end(u64 handle)
{
	struct guest *guest = guest_of(handle);

	for (u32 i = 0; i < guest->vcpus; i++) {
		page_pool_put(&monitor.pool, guest->vcpu[i]->vmcs.value >> PAGE_SHIFT);
		page_pool_put(&monitor.pool, page_pool_hpa(&monitor.pool, guest->vcpu[i]).value >> PAGE_SHIFT);
	}
	__builtin_memset(guest, 0, sizeof(*guest));
}

void measure_page(u64 slot, u64 gpa, const u8 *page)
{
	struct guest *guest = &guests[slot];

	if (!guest->sha256.bytes)
		sha256_init(&guest->sha256);
	sha256_update(&guest->sha256, &gpa, sizeof(gpa));
	sha256_update(&guest->sha256, page, PAGE_SIZE);
}

void measure_end(const struct mm *mm, u64 handle)
{
	struct guest *guest = guest_of(handle);
	const struct vm_range *range;
	u64 counts[2];
	u32 ranges;

	if (!guest->sha256.bytes)
		sha256_init(&guest->sha256);
	range = mm_ranges(mm, handle % HYPERPS_VMS, &ranges);
	for (u32 i = 0; i < ranges; i++) {
		const u64 words[] = { range[i].gpa, range[i].frames * PAGE_SIZE, range[i].permissions };

		sha256_update(&guest->sha256, words, sizeof(words));
	}
	for (u32 i = 0; i < guest->vcpus; i++)
		sha256_update(&guest->sha256, guest->vcpu[i]->start, sizeof(guest->vcpu[i]->start));
	counts[0] = ranges;
	counts[1] = guest->vcpus;
	sha256_update(&guest->sha256, counts, sizeof(counts));
	sha256_final(&guest->sha256, guest->digest);
	guest->measured = true;
}

void describe_measurement(u32 slot, struct hyperps_measurement *out)
{
	struct hyperps_vm vm;

	mm_describe(memory_lock(), slot, &vm);
	*out = (struct hyperps_measurement){ 0 };
	if (guests[slot].measured) {
		out->handle = vm.handle;
		out->sealed = 1;
		out->vcpus = guests[slot].vcpus;
		__builtin_memcpy(out->sha256, guests[slot].digest, sizeof(out->sha256));
	}
	memory_unlock();
}
