// SPDX-License-Identifier: GPL-2.0
/* A VM in real mode: each exit and the registers that come with it; host state that no exit may load. */
#include <asm/cpufeature.h>
#include <asm/msr-index.h>
#include <asm/processor-flags.h>
#include <asm/trapnr.h>

#include "nested_vmx.h"

#define ENTRY_FAILED (BIT(31) | EXIT_REASON_INVALID_STATE)
#define ENTRY_FAILED_MSR (BIT(31) | EXIT_REASON_MSR_LOAD_FAIL)
#define NON_CANONICAL 0x8000000000000000ULL

static void fill_registers(struct vmx *v, u64 seed)
{
	unsigned int i;

	for (i = 0; i < REGISTERS; i++)
		v->registers[i] = seed + i * 0x0101010101010101ULL;
}

/* Whether all are as fill_registers() left them, RAX too. */
static bool same_registers(const struct vmx *v, u64 seed)
{
	unsigned int i;

	for (i = 0; i < REGISTERS; i++)
		if (i != RSP && v->registers[i] != seed + i * 0x0101010101010101ULL)
			return false;
	return true;
}

static void check_exit(struct seq_file *out, struct vmx *v, const char *code, u32 reason, const char *what)
{
	u64 rip = L2_CODE + (code - l2_code), seed = 0x1111111122222222ULL;
	bool same;

	fill_registers(v, seed);
	/* XCR0's, HLT's and others' operands need not be good ones. */
	vmx_call(v, code);
	same = same_registers(v, seed);
	tap_check(
		out, v->reason == reason && same && get(GUEST_RIP) == rip,
		"%s exits with reason %u, all registers as they were (reason %#x, result %#x, RIP %#llx, registers %s)",
		what, reason, v->reason, v->result, get(GUEST_RIP), same ? "kept" : "changed");
}

/* The exit of an instruction that the monitor's calls, its gate, or its refusals know. */
static void check_instructions(struct seq_file *out, struct vmx *v)
{
	static const u64 calls[] = { HYPERPS_CALL_IDENTIFY,    HYPERPS_CALL_READ,      HYPERPS_CALL_TAKE_CPUS,
				     HYPERPS_CALL_GATE_SET,    HYPERPS_CALL_VM_CREATE, HYPERPS_CALL_VM_MAP,
				     HYPERPS_CALL_POOL_DONATE, HYPERPS_CALL_VCPU_RUN };
	unsigned int i, exits = 0;

	set(CR0_GUEST_HOST_MASK, X86_CR0_TS);
	set(CR0_READ_SHADOW, 0);
	set(GUEST_CR4, get(GUEST_CR4) | X86_CR4_OSXSAVE);
	check_exit(out, v, l2_cpuid, EXIT_REASON_CPUID, "CPUID");
	check_exit(out, v, l2_hlt, EXIT_REASON_HLT, "HLT");
	check_exit(out, v, l2_out, EXIT_REASON_IO_INSTRUCTION, "OUT");
	tap_check(out, IO_PORT(get(EXIT_QUALIFICATION)) == PORT_DONE && get(VM_EXIT_INSTRUCTION_LEN) == 3,
		  "positive control: OUT's qualification has the port, and its length is told (%#llx, %llu)",
		  get(EXIT_QUALIFICATION), get(VM_EXIT_INSTRUCTION_LEN));
	check_exit(out, v, l2_vmcall, EXIT_REASON_VMCALL, "VMCALL");
	check_exit(out, v, l2_xsetbv, EXIT_REASON_XSETBV, "XSETBV");
	if (boot_cpu_has(X86_FEATURE_MWAIT))
		check_exit(out, v, l2_mwait, EXIT_REASON_MWAIT_INSTRUCTION, "MWAIT");
	check_exit(out, v, l2_wbinvd, EXIT_REASON_WBINVD, "WBINVD");
	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		v->registers[RAX] = calls[i];
		vmx_call(v, l2_vmcall);
		exits += v->reason == EXIT_REASON_VMCALL && v->registers[RAX] == calls[i];
	}
	tap_check(out, exits == i,
		  "VMCALL with a number of the monitor's calls is for the host's hypervisor, unanswered (%u of %u)",
		  exits, i);
	set(EXCEPTION_BITMAP, BIT(X86_TRAP_UD));
	for (i = exits = 0; i < 2; i++) {
		v->registers[RAX] = 0;
		v->registers[RCX] = i;
		vmx_call(v, l2_vmfunc);
		exits += v->reason == EXIT_REASON_EXCEPTION_NMI && (get(VM_EXIT_INTR_INFO) & 0xff) == X86_TRAP_UD;
	}
	tap_check(out, exits == 2, "VMFUNC raises exception 6 in the VM (%u of 2; last reason %#x)", exits, v->reason);
	vmx_call(v, l2_ud);
	tap_check(out, v->reason == EXIT_REASON_EXCEPTION_NMI && (get(VM_EXIT_INTR_INFO) & 0xff) == X86_TRAP_UD,
		  "positive control: so does UD2 (reason %#x)", v->reason);
	set(EXCEPTION_BITMAP, 0);
	vmx_call(v, l2_vmfunc);
	tap_check(out, v->reason == EXIT_REASON_IO_INSTRUCTION && IO_PORT(get(EXIT_QUALIFICATION)) == PORT_EVENT,
		  "and by the VM's own interrupt table if its hypervisor does not want it (reason %#x)", v->reason);
	set(GUEST_RSP, L2_STACK);
	set(GUEST_RFLAGS, 2);
	vmx_call(v, l2_cr0);
	tap_check(out, v->reason == EXIT_REASON_CR_ACCESS,
		  "a write of CR0 that changes a bit of the mask exits (reason %#x)", v->reason);
}

static void check_registers(struct seq_file *out, struct vmx *v)
{
	static const u8 inverted[] = { RAX, RCX, RDX, RBX, RBP, RSI, RDI };
	unsigned int i, good = 0;

	fill_registers(v, 0x7654321076543210ULL);
	vmx_call(v, l2_invert);
	for (i = 0; i < ARRAY_SIZE(inverted); i++)
		good += (u32)v->registers[inverted[i]] ==
			(u32) ~(0x7654321076543210ULL + inverted[i] * 0x0101010101010101ULL);
	for (i = 8; i < REGISTERS; i++)
		good += v->registers[i] == 0x7654321076543210ULL + i * 0x0101010101010101ULL;
	tap_check(out, v->reason == EXIT_REASON_IO_INSTRUCTION && good == 15,
		  "positive control: registers that the VM changes come out changed, and no other (%u of 15)", good);
}

static bool is_passed(u32 msr, bool write)
{
	switch (msr) {
	case 0x10:
	case 0xe7:
	case 0xe8:
	case 0x3fc ... 0x3fe:
	case 0x660:
		return !write;
	case 0x49:
	case 0x10b:
		return write;
	case 0x48:
	case 0x174 ... 0x176:
	case 0x1c4 ... 0x1c5:
	case 0xc0000100 ... 0xc0000102:
		return true;
	}
	return false;
}

/* The host's bitmap refuses nothing. */
static void check_msrs(struct seq_file *out, struct vmx *v)
{
	static const u32 known[] = { 0x10,       0x1b,       0x3a,       0x79,       0x8b,       0xfe,      0x174,
				     0x1a0,      0x1d9,      0x200,      0x250,      0x277,      0x2ff,     0x38f,
				     0x480,      0x48b,      0x570,      0x802,      0x830,      0xc80,     0xda0,
				     0xc0000080, 0xc0000081, 0xc0000082, 0xc0000084, 0xc0000100, 0xc0000103 };
	unsigned int i, tried = 0, exits = 0, passed = 0, wrong = 0;
	bool below = monitor_runs();
	u32 msr;

	set(EXCEPTION_BITMAP, BIT(X86_TRAP_GP));
	for (i = 0; i < ARRAY_SIZE(known) + 256; i++) {
		msr = i < ARRAY_SIZE(known) ? known[i]
					    : (i - ARRAY_SIZE(known)) * 61 % 0x2000 + (i & 1 ? 0xc0000000 : 0);
		v->registers[RCX] = msr;
		vmx_call(v, l2_rdmsr);
		if (v->reason == EXIT_REASON_MSR_READ)
			exits++;
		else if (v->reason == EXIT_REASON_IO_INSTRUCTION)
			passed++;
		tried++;
		if (below && (v->reason == EXIT_REASON_MSR_READ) == is_passed(msr, false)) {
			seq_printf(out, "# RDMSR of %#x: reason %#x\n", msr, v->reason);
			wrong++;
		}
		/* Natively it would be done. */
		if (!below || is_passed(msr, true))
			continue;
		v->registers[RAX] = v->registers[RDX] = 0;
		vmx_call(v, l2_wrmsr);
		tried++;
		exits += v->reason == EXIT_REASON_MSR_WRITE;
		if (v->reason != EXIT_REASON_MSR_WRITE) {
			seq_printf(out, "# WRMSR of %#x: reason %#x\n", msr, v->reason);
			wrong++;
		}
	}
	set(EXCEPTION_BITMAP, 0);
	tap_check(out, passed >= 2 && (below || !exits),
		  "positive control: an MSR of the VM's own is read without an exit (%u)", passed);
	if (below)
		tap_check(out, !wrong && exits,
			  "an MSR that is not the VM's exits, though the bitmap says no (%u of %u; %u wrong)", exits,
			  tried, wrong);
	memset(v->bitmap, 0xff, PAGE_SIZE);
	v->registers[RCX] = 0x10;
	vmx_call(v, l2_rdmsr);
	memset(v->bitmap, 0, PAGE_SIZE);
	tap_check(out, v->reason == EXIT_REASON_MSR_READ, "with the bitmap all ones every MSR exits (reason %#x)",
		  v->reason);
}

static void check_events(struct seq_file *out, struct vmx *v)
{
	u16 *stack = (u16 *)(v->low + L2_STACK - 6);
	u64 interrupts = v->interrupts;

	set(GUEST_RSP, L2_STACK);
	set(GUEST_RFLAGS, 2 | X86_EFLAGS_IF);
	set(VM_ENTRY_INTR_INFO_FIELD, BIT(31) | 0x21);
	vmx_call(v, l2_spin);
	tap_check(out,
		  v->reason == EXIT_REASON_IO_INSTRUCTION && IO_PORT(get(EXIT_QUALIFICATION)) == PORT_EVENT &&
			  *stack == L2_CODE + (l2_spin - l2_code) && !(get(VM_ENTRY_INTR_INFO_FIELD) & BIT(31)),
		  "positive control: an interrupt that is injected is taken, once (reason %#x, return address %#x)",
		  v->reason, *stack);
	set(GUEST_RSP, L2_STACK);
	set(GUEST_RFLAGS, 2);
	v->one_interrupt = true;
	vmx_call(v, l2_spin);
	v->one_interrupt = false;
	tap_check(out,
		  v->reason == EXIT_REASON_EXTERNAL_INTERRUPT && v->interrupts > interrupts &&
			  get(GUEST_RIP) == L2_CODE + (l2_spin - l2_code),
		  "positive control: a VM that spins with interrupts off ends by the host's interrupt (reason %#x, RIP "
		  "%#llx)",
		  v->reason, get(GUEST_RIP));
	set(GUEST_IDTR_LIMIT, 0);
	vmx_call(v, l2_ud);
	set(GUEST_IDTR_LIMIT, 0x3ff);
	tap_check(out, v->reason == EXIT_REASON_TRIPLE_FAULT, "positive control: a triple fault exits (reason %#x)",
		  v->reason);
}

static void check_memory(struct seq_file *out, struct vmx *v)
{
	u64 *entry = &v->pt[L2_WINDOW / PAGE_SIZE];

	*(u32 *)v->spare = PATTERN_LOW;
	*entry = LEAF(__pa(v->spare), VMX_EPT_RWX_MASK);
	do_invept(1, vmx_eptp(v), 0);
	v->registers[RDI] = L2_WINDOW;
	v->registers[RAX] = 0;
	vmx_call(v, l2_read);
	tap_check(out, v->reason == EXIT_REASON_IO_INSTRUCTION && (u32)v->registers[RAX] == PATTERN_LOW,
		  "positive control: the VM reads a page that its tables name (reason %#x, %#llx)", v->reason,
		  v->registers[RAX]);
	v->registers[RAX] = 0x12345678;
	vmx_call(v, l2_write);
	tap_check(out, v->reason == EXIT_REASON_IO_INSTRUCTION && *(u32 *)v->spare == 0x12345678,
		  "positive control: and writes it (reason %#x)", v->reason);
	*entry = LEAF(__pa(v->spare), VMX_EPT_READABLE_MASK);
	do_invept(1, vmx_eptp(v), 0);
	vmx_call(v, l2_write);
	tap_check(out,
		  v->reason == EXIT_REASON_EPT_VIOLATION && get(GUEST_PHYSICAL_ADDRESS) == L2_WINDOW &&
			  (get(EXIT_QUALIFICATION) & 0x3f) == 0xa,
		  "a write without the right exits (reason %#x, qualification %#llx)", v->reason,
		  get(EXIT_QUALIFICATION));
	*entry = 0;
	do_invept(2, 0, 0);
	vmx_call(v, l2_read);
	tap_check(out,
		  v->reason == EXIT_REASON_EPT_VIOLATION && get(GUEST_PHYSICAL_ADDRESS) == L2_WINDOW &&
			  (get(EXIT_QUALIFICATION) & 0x3f) == 1,
		  "a page that is not there exits (reason %#x, qualification %#llx)", v->reason,
		  get(EXIT_QUALIFICATION));
	*entry = LEAF(__pa(v->spare), VMX_EPT_WRITABLE_MASK);
	vmx_call(v, l2_read);
	tap_check(out, v->reason == EXIT_REASON_EPT_MISCONFIG && get(GUEST_PHYSICAL_ADDRESS) == L2_WINDOW,
		  "an entry that no CPU takes is a misconfiguration (reason %#x)", v->reason);
	/* Without an INVEPT: SDM, "Operations that Invalidate Cached Mappings": the exit has done it. */
	*entry = LEAF(__pa(v->spare), VMX_EPT_RWX_MASK);
	vmx_call(v, l2_read);
	tap_check(out, v->reason == EXIT_REASON_IO_INSTRUCTION && (u32)v->registers[RAX] == 0x12345678,
		  "positive control: what has become present is there after the exit (reason %#x)", v->reason);
}

void attack_l2(struct seq_file *out)
{
	struct vmx *v = vmx_create();

	if (!v || !vmx_on(v)) {
		tap_check(out, false, "setup: VMX operation");
		return;
	}
	vmx_setup(v);
	check_instructions(out, v);
	check_registers(out, v);
	check_msrs(out, v);
	check_events(out, v);
	check_memory(out, v);
	vmx_off(v);
	seq_printf(out, "# %llu entries, %llu interrupts\n", v->entries, v->interrupts);
	vmx_free(v);
}

static void check_refused(struct seq_file *out, struct vmx *v, u64 field, u64 value, int result, u32 reason,
			  unsigned int *wrong)
{
	u64 old = get(field);

	set(field, value);
	vmx_call(v, l2_cpuid);
	if (result ? v->result != result : v->reason != reason) {
		(*wrong)++;
		seq_printf(out, "# field %#llx = %#llx: reason %#x, result %#x\n", field, value, v->reason, v->result);
	}
	set(field, old);
}

static unsigned long get_cr4(void)
{
	unsigned long value;

	asm volatile("mov %%cr4, %0" : "=r"(value)::"memory");
	return value;
}

static u64 status(size_t offset)
{
	return read_word(HYPERPS_OBJECT_STATUS, offset);
}

void attack_host_state(struct seq_file *out)
{
	static const u32 canonical[] = { HOST_FS_BASE,   HOST_GS_BASE,           HOST_TR_BASE,          HOST_GDTR_BASE,
					 HOST_IDTR_BASE, HOST_IA32_SYSENTER_ESP, HOST_IA32_SYSENTER_EIP };
	static const u32 selectors[] = { HOST_ES_SELECTOR, HOST_CS_SELECTOR, HOST_SS_SELECTOR, HOST_DS_SELECTOR,
					 HOST_FS_SELECTOR, HOST_GS_SELECTOR, HOST_TR_SELECTOR };
	const u64 wide = 1ULL << 52;
	unsigned int i, wrong = 0, off = 0;
	struct vmx *v = vmx_create();
	unsigned long cr4;

	if (!v || !vmx_on(v)) {
		tap_check(out, false, "setup: VMX operation");
		return;
	}
	vmx_setup(v);
	for (i = 0; i < ARRAY_SIZE(canonical); i++)
		check_refused(out, v, canonical[i], NON_CANONICAL, VMX_FAIL(8), 0, &wrong);
	for (i = 0; i < ARRAY_SIZE(selectors); i++) {
		check_refused(out, v, selectors[i], get(selectors[i]) | 1, VMX_FAIL(8), 0, &wrong);
		check_refused(out, v, selectors[i], get(selectors[i]) | 4, VMX_FAIL(8), 0, &wrong);
	}
	check_refused(out, v, HOST_CS_SELECTOR, 0, VMX_FAIL(8), 0, &wrong);
	check_refused(out, v, HOST_TR_SELECTOR, 0, VMX_FAIL(8), 0, &wrong);
	check_refused(out, v, HOST_CR0, get(HOST_CR0) & ~X86_CR0_NE, VMX_FAIL(8), 0, &wrong);
	check_refused(out, v, HOST_CR0, get(HOST_CR0) & ~X86_CR0_PG, VMX_FAIL(8), 0, &wrong);
	check_refused(out, v, HOST_CR0, get(HOST_CR0) | wide, VMX_FAIL(8), 0, &wrong);
	check_refused(out, v, HOST_CR3, get(HOST_CR3) | wide, VMX_FAIL(8), 0, &wrong);
	check_refused(out, v, HOST_CR4, get(HOST_CR4) & ~X86_CR4_PAE, VMX_FAIL(8), 0, &wrong);
	check_refused(out, v, HOST_CR4, get(HOST_CR4) & ~X86_CR4_VMXE, VMX_FAIL(8), 0, &wrong);
	check_refused(out, v, HOST_CR4, get(HOST_CR4) | BIT(31), VMX_FAIL(8), 0, &wrong);
	check_refused(out, v, HOST_IA32_EFER, 0, VMX_FAIL(8), 0, &wrong);
	check_refused(out, v, HOST_IA32_EFER, get(HOST_IA32_EFER) | BIT(1), VMX_FAIL(8), 0, &wrong);
	tap_check(out, !wrong, "host state that is no such thing is refused (error 8; %u not)", wrong);
	wrong = 0;
	check_refused(out, v, EPT_POINTER, vmx_eptp(v) | BIT(7), VMX_FAIL(7), 0, &wrong);
	check_refused(out, v, EPT_POINTER, vmx_eptp(v) | wide, VMX_FAIL(7), 0, &wrong);
	check_refused(out, v, EPT_POINTER, vmx_eptp(v) ^ BIT(3), VMX_FAIL(7), 0, &wrong);
	check_refused(out, v, MSR_BITMAP, __pa(v->bitmap) + 8, VMX_FAIL(7), 0, &wrong);
	check_refused(out, v, MSR_BITMAP, wide, VMX_FAIL(7), 0, &wrong);
	check_refused(out, v, VM_ENTRY_INTR_INFO_FIELD, BIT(31) | BIT(12), VMX_FAIL(7), 0, &wrong);
	check_refused(out, v, VM_ENTRY_INTR_INFO_FIELD, BIT(31) | 1 << 8, VMX_FAIL(7), 0, &wrong);
	check_refused(out, v, VM_EXIT_CONTROLS, get(VM_EXIT_CONTROLS) & ~VM_EXIT_HOST_ADDR_SPACE_SIZE,
		      VMX_FAIL(monitor_runs() ? 7 : 8), 0, &wrong);
	check_refused(out, v, CPU_BASED_VM_EXEC_CONTROL, 0, VMX_FAIL(7), 0, &wrong);
	check_refused(out, v, VIRTUAL_PROCESSOR_ID, 0,
		      get(SECONDARY_VM_EXEC_CONTROL) & SECONDARY_EXEC_ENABLE_VPID ? VMX_FAIL(7) : 0, EXIT_REASON_CPUID,
		      &wrong);
	set(VM_ENTRY_MSR_LOAD_COUNT, 1);
	check_refused(out, v, VM_ENTRY_MSR_LOAD_ADDR, __pa(v->lists) + 8, VMX_FAIL(7), 0, &wrong);
	/* An MSR that no list may have: FS base. */
	((u64 *)v->lists)[0] = MSR_FS_BASE;
	check_refused(out, v, VM_ENTRY_MSR_LOAD_ADDR, __pa(v->lists), 0, ENTRY_FAILED_MSR, &wrong);
	set(VM_ENTRY_MSR_LOAD_COUNT, 0);
	set(VM_ENTRY_INTR_INFO_FIELD, 0);
	tap_check(out, !wrong, "controls that are not offered are refused (error 7; %u not)", wrong);
	wrong = 0;
	check_refused(out, v, GUEST_CR0, 0, 0, ENTRY_FAILED, &wrong);
	check_refused(out, v, GUEST_CR4, 0, 0, ENTRY_FAILED, &wrong);
	check_refused(out, v, GUEST_ACTIVITY_STATE, 4, 0, ENTRY_FAILED, &wrong);
	check_refused(out, v, GUEST_INTERRUPTIBILITY_INFO, BIT(5), 0, ENTRY_FAILED, &wrong);
	check_refused(out, v, GUEST_IA32_EFER, BIT(1), 0, ENTRY_FAILED, &wrong);
	check_refused(out, v, GUEST_RFLAGS, 0, 0, ENTRY_FAILED, &wrong);
	check_refused(out, v, GUEST_CS_AR_BYTES, 0, 0, ENTRY_FAILED, &wrong);
	check_refused(out, v, GUEST_TR_AR_BYTES, BIT(16), 0, ENTRY_FAILED, &wrong);
	tap_check(out, !wrong, "guest state that is no such thing makes the entry fail (%u not)", wrong);
	vmx_call(v, l2_cpuid);
	tap_check(out, v->reason == EXIT_REASON_CPUID,
		  "positive control: after all these the same VM runs (reason %#x, result %#x)", v->reason, v->result);
	/* What the gate needs goes, by an exit: the CPU must have lost the gate. */
	cr4 = get_cr4();
	set(HOST_CR4, cr4 & ~(unsigned long)(X86_CR4_SMEP | X86_CR4_SMAP));
	for (i = 0; i < 3 && !off; i++) {
		vmx_call(v, l2_cpuid);
		off = !(get_cr4() & (X86_CR4_SMEP | X86_CR4_SMAP));
	}
	asm volatile("mov %0, %%cr4" ::"r"(cr4) : "memory");
	set(HOST_CR4, cr4);
	tap_check(out, off && v->reason == EXIT_REASON_CPUID,
		  "positive control: an exit loads CR4 without SMEP and SMAP (reason %#x)", v->reason);
	vmx_off(v);
	if (monitor_runs())
		seq_printf(out, "# the gate is on on %llu CPUs now\n",
			   status(offsetof(struct hyperps_status, gate_cpus)));
	vmx_free(v);
}
