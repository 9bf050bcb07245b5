// SPDX-License-Identifier: GPL-2.0
/* VMX by hand: its instructions, a VM that begins in real mode, entering it. */
#include <linux/gfp.h>
#include <linux/irqflags.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <asm/cpufeature.h>
#include <asm/desc.h>
#include <asm/io.h>
#include <asm/msr-index.h>
#include <asm/processor-flags.h>
#include <asm/segment.h>
#include <asm/trapnr.h>

#include "nested_vmx.h"

#define CPUID_1_ECX_VMX BIT(5)
#define SEGMENT_CODE 0x9b /* accessed, present */
#define SEGMENT_DATA 0x93
#define SEGMENT_LARGE BIT(15) /* granularity */
#define SEGMENT_TSS 0x8b
#define SEGMENT_UNUSABLE BIT(16)

int vmx_result(u32 eax)
{
	u64 error = 0;

	if (!(eax & BIT(16)))
		return VMX_FAULT(eax);
	if (!(eax & BIT(8)))
		return eax & 1;
	asm volatile("vmread %1, %0" : "=r"(error) : "r"((u64)VM_INSTRUCTION_ERROR) : "cc");
	return VMX_FAIL(error);
}

int do_vmxon(u64 address)
{
	return VMX_DO("vmxon %1", "m"(address));
}

int do_vmclear(u64 address)
{
	return VMX_DO("vmclear %1", "m"(address));
}

int do_vmptrld(u64 address)
{
	return VMX_DO("vmptrld %1", "m"(address));
}

int do_vmptrst(u64 *address)
{
	return VMX_DO("vmptrst %1", "m"(*address));
}

int do_vmread(u64 field, u64 *value)
{
	u64 there = 0;
	int result = VMX_DO("vmread %1, (%2)", "r"(field), "r"(&there));

	*value = there;
	return result;
}

int do_vmwrite(u64 field, u64 value)
{
	return VMX_DO("vmwrite %2, %1", "r"(field), "r"(value));
}

int do_invept(u64 type, u64 eptp, u64 rest)
{
	u64 descriptor[2] = { eptp, rest };

	return VMX_DO("invept %1, %2", "m"(descriptor), "r"(type));
}

int do_invvpid(u64 type, u64 vpid, u64 address)
{
	u64 descriptor[2] = { vpid, address };

	return VMX_DO("invvpid %1, %2", "m"(descriptor), "r"(type));
}

u64 get(u64 field)
{
	u64 value;

	return do_vmread(field, &value) == VMX_OK ? value : ~0ULL;
}

void set(u64 field, u64 value)
{
	int result = do_vmwrite(field, value);

	if (result != VMX_OK)
		pr_debug("nested: VMWRITE of %#llx: %#x\n", field, result);
}

bool monitor_runs(void)
{
	static bool known, runs;
	u64 signature;

	/* Not in VMX operation, where VMCALL natively is another instruction. */
	if (!known)
		runs = !call(HYPERPS_CALL_IDENTIFY, 0, 0, 0, 0, &signature) && signature == HYPERPS_SIGNATURE;
	known = true;
	return runs;
}

bool vmx_is_offered(void)
{
	return cpuid_ecx(1) & CPUID_1_ECX_VMX;
}

static u64 read_msr(u32 msr)
{
	u64 value = 0;

	rdmsrq_safe(msr, &value);
	return value;
}

bool vmx_runs_real_mode(void)
{
	return vmx_is_offered() && read_msr(MSR_IA32_VMX_PROCBASED_CTLS2) >> 32 & SECONDARY_EXEC_UNRESTRICTED_GUEST;
}

static void *new_page(void)
{
	return (void *)get_zeroed_page(GFP_KERNEL);
}

struct vmx *vmx_create(void)
{
	struct vmx *v = kzalloc(sizeof(*v), GFP_KERNEL);
	unsigned int i;

	if (!v)
		return NULL;
	v->vmxon = new_page();
	v->vmcs = new_page();
	v->bitmap = new_page();
	v->lists = new_page();
	v->spare = new_page();
	v->pml4 = new_page();
	v->pdpt = new_page();
	v->pd = new_page();
	v->pt = new_page();
	v->low = (void *)__get_free_pages(GFP_KERNEL | __GFP_ZERO, order_base_2(L2_LOW_PAGES));
	if (!v->vmxon || !v->vmcs || !v->bitmap || !v->lists || !v->spare || !v->pml4 || !v->pdpt || !v->pd || !v->pt ||
	    !v->low) {
		vmx_free(v);
		return NULL;
	}
	*(u32 *)v->vmxon = *(u32 *)v->vmcs = read_msr(MSR_IA32_VMX_BASIC);
	v->pml4[0] = __pa(v->pdpt) | 7;
	v->pdpt[0] = __pa(v->pd) | 7;
	v->pd[0] = __pa(v->pt) | 7;
	for (i = 0; i < L2_LOW_PAGES; i++)
		v->pt[i] = LEAF(__pa(v->low) + i * PAGE_SIZE, 7);
	/* Every interrupt of its goes to one place. */
	for (i = 0; i < 256; i++)
		((u32 *)v->low)[i] = L2_CODE + (l2_handler - l2_code);
	memcpy(v->low + L2_CODE, l2_code, l2_code_end - l2_code);
	return v;
}

void vmx_free(struct vmx *v)
{
	void *pages[] = { v->vmxon, v->vmcs, v->bitmap, v->lists, v->spare, v->pml4, v->pdpt, v->pd, v->pt };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(pages); i++)
		free_page((unsigned long)pages[i]);
	free_pages((unsigned long)v->low, order_base_2(L2_LOW_PAGES));
	kfree(v);
}

static unsigned long get_cr4(void)
{
	unsigned long value;

	asm volatile("mov %%cr4, %0" : "=r"(value)::"memory");
	return value;
}

static u16 selector(unsigned int which)
{
	u16 value;

	switch (which) {
	case 0:
		asm volatile("mov %%es, %0" : "=rm"(value));
		return value;
	case 1:
		asm volatile("mov %%ds, %0" : "=rm"(value));
		return value;
	}
	asm volatile("str %0" : "=rm"(value));
	return value;
}

static u64 tss_base(unsigned long gdt)
{
	const u64 *descriptor = (u64 *)(gdt + (selector(2) & ~7UL));

	return (descriptor[0] >> 16 & 0xffffff) | (descriptor[0] >> 56) << 24 | descriptor[1] << 32;
}

void vmx_host_state(void)
{
	struct desc_ptr gdt, idt;
	unsigned long cr0, cr3;

	asm volatile("mov %%cr0, %0" : "=r"(cr0)::"memory");
	asm volatile("mov %%cr3, %0" : "=r"(cr3)::"memory");
	asm volatile("sgdt %0" : "=m"(gdt));
	asm volatile("sidt %0" : "=m"(idt));
	set(HOST_CR0, cr0);
	set(HOST_CR3, cr3);
	set(HOST_CR4, get_cr4());
	set(HOST_ES_SELECTOR, selector(0));
	set(HOST_CS_SELECTOR, __KERNEL_CS);
	set(HOST_SS_SELECTOR, __KERNEL_DS);
	set(HOST_DS_SELECTOR, selector(1));
	set(HOST_FS_SELECTOR, 0);
	set(HOST_GS_SELECTOR, 0);
	set(HOST_TR_SELECTOR, selector(2));
	set(HOST_FS_BASE, read_msr(MSR_FS_BASE));
	set(HOST_GS_BASE, read_msr(MSR_GS_BASE));
	set(HOST_TR_BASE, tss_base(gdt.address));
	set(HOST_GDTR_BASE, gdt.address);
	set(HOST_IDTR_BASE, idt.address);
	set(HOST_IA32_SYSENTER_CS, read_msr(MSR_IA32_SYSENTER_CS));
	set(HOST_IA32_SYSENTER_ESP, read_msr(MSR_IA32_SYSENTER_ESP));
	set(HOST_IA32_SYSENTER_EIP, read_msr(MSR_IA32_SYSENTER_EIP));
	set(HOST_IA32_EFER, read_msr(MSR_EFER));
	set(HOST_IA32_PAT, read_msr(MSR_IA32_CR_PAT));
}

bool vmx_on(struct vmx *v)
{
	local_irq_disable();
	asm volatile("mov %0, %%cr4" ::"r"(get_cr4() | X86_CR4_VMXE) : "memory");
	if (do_vmxon(__pa(v->vmxon)) != VMX_OK || do_vmclear(__pa(v->vmcs)) != VMX_OK ||
	    do_vmptrld(__pa(v->vmcs)) != VMX_OK) {
		vmx_off(v);
		return false;
	}
	v->launched = false;
	vmx_host_state();
	return true;
}

void vmx_off(struct vmx *v)
{
	do_vmclear(__pa(v->vmcs));
	VMX_DO("vmxoff", "d"(0));
	asm volatile("mov %0, %%cr4" ::"r"(get_cr4() & ~X86_CR4_VMXE) : "memory");
	v->launched = false;
	local_irq_enable();
}

/* A word of controls: what is wanted, and what must be. */
static void set_controls(u64 field, u32 msr, u32 wanted)
{
	u64 offer = read_msr(msr);

	set(field, (wanted & offer >> 32) | (u32)offer);
}

u64 vmx_eptp(const struct vmx *v)
{
	return __pa(v->pml4) | VMX_EPTP_PWL_4 | VMX_EPTP_MT_WB;
}

void vmx_setup(struct vmx *v)
{
	unsigned int i;
	u64 efer;

	set_controls(PIN_BASED_VM_EXEC_CONTROL, MSR_IA32_VMX_TRUE_PINBASED_CTLS,
		     PIN_BASED_EXT_INTR_MASK | PIN_BASED_NMI_EXITING | PIN_BASED_VIRTUAL_NMIS);
	set_controls(CPU_BASED_VM_EXEC_CONTROL, MSR_IA32_VMX_TRUE_PROCBASED_CTLS,
		     CPU_BASED_HLT_EXITING | CPU_BASED_UNCOND_IO_EXITING | CPU_BASED_USE_MSR_BITMAPS |
			     CPU_BASED_MWAIT_EXITING | CPU_BASED_ACTIVATE_SECONDARY_CONTROLS);
	set_controls(SECONDARY_VM_EXEC_CONTROL, MSR_IA32_VMX_PROCBASED_CTLS2,
		     SECONDARY_EXEC_ENABLE_EPT | SECONDARY_EXEC_UNRESTRICTED_GUEST | SECONDARY_EXEC_WBINVD_EXITING |
			     SECONDARY_EXEC_ENABLE_VPID);
	set_controls(VM_EXIT_CONTROLS, MSR_IA32_VMX_TRUE_EXIT_CTLS,
		     VM_EXIT_HOST_ADDR_SPACE_SIZE | VM_EXIT_ACK_INTR_ON_EXIT | VM_EXIT_SAVE_IA32_EFER |
			     VM_EXIT_LOAD_IA32_EFER);
	set_controls(VM_ENTRY_CONTROLS, MSR_IA32_VMX_TRUE_ENTRY_CTLS, VM_ENTRY_LOAD_IA32_EFER);
	set(VIRTUAL_PROCESSOR_ID, 7);
	set(EPT_POINTER, vmx_eptp(v));
	set(MSR_BITMAP, __pa(v->bitmap));
	set(EXCEPTION_BITMAP, 0);
	set(CR3_TARGET_COUNT, 0);
	set(PAGE_FAULT_ERROR_CODE_MASK, 0);
	set(PAGE_FAULT_ERROR_CODE_MATCH, 0);
	set(VM_EXIT_MSR_STORE_COUNT, 0);
	set(VM_EXIT_MSR_LOAD_COUNT, 0);
	set(VM_ENTRY_MSR_LOAD_COUNT, 0);
	set(VM_ENTRY_INTR_INFO_FIELD, 0);
	set(VMCS_LINK_POINTER, ~0ULL);
	set(TSC_OFFSET, 0);
	/* SDM, "Guest-State Area". Segments with 4 GiB, for addresses of 32 bits; CS as a CPU has it in real mode. */
	for (i = 0; i < 8; i++) {
		bool data = i == 0 || (i >= 2 && i <= 5);

		set(GUEST_ES_SELECTOR + 2 * i, 0);
		set(GUEST_ES_BASE + 2 * i, 0);
		set(GUEST_ES_LIMIT + 2 * i, data ? 0xffffffff : 0xffff);
		set(GUEST_ES_AR_BYTES + 2 * i, i == 1   ? SEGMENT_CODE
					       : data   ? SEGMENT_DATA | SEGMENT_LARGE
					       : i == 6 ? SEGMENT_UNUSABLE
							: SEGMENT_TSS);
	}
	set(GUEST_GDTR_BASE, 0);
	set(GUEST_GDTR_LIMIT, 0xffff);
	set(GUEST_IDTR_BASE, 0);
	set(GUEST_IDTR_LIMIT, 0x3ff);
	set(CR0_GUEST_HOST_MASK, 0);
	set(CR4_GUEST_HOST_MASK, 0);
	set(CR0_READ_SHADOW, 0);
	set(CR4_READ_SHADOW, 0);
	set(GUEST_CR0, read_msr(MSR_IA32_VMX_CR0_FIXED0) & ~(X86_CR0_PE | X86_CR0_PG));
	set(GUEST_CR3, 0);
	set(GUEST_CR4, read_msr(MSR_IA32_VMX_CR4_FIXED0));
	set(GUEST_DR7, 0x400);
	set(GUEST_RSP, L2_STACK);
	set(GUEST_RFLAGS, 2);
	set(GUEST_IA32_DEBUGCTL, 0);
	set(GUEST_INTERRUPTIBILITY_INFO, 0);
	set(GUEST_ACTIVITY_STATE, 0);
	set(GUEST_PENDING_DBG_EXCEPTIONS, 0);
	set(GUEST_SYSENTER_CS, 0);
	set(GUEST_SYSENTER_ESP, 0);
	set(GUEST_SYSENTER_EIP, 0);
	efer = read_msr(MSR_EFER) & EFER_NX;
	set(GUEST_IA32_EFER, efer);
}

void vmx_go_to(const char *code)
{
	set(GUEST_RIP, L2_CODE + (code - l2_code));
}

/* Leaves VMX operation, since Linux does not know of it, for the handler and whoever is to run next. */
static bool give_interrupt(struct vmx *v, u64 vector)
{
	do_vmclear(__pa(v->vmcs));
	VMX_DO("vmxoff", "d"(0));
	asm volatile("mov %0, %%cr4" ::"r"(get_cr4() & ~X86_CR4_VMXE) : "memory");
	nested_interrupt(vector);
	local_irq_enable();
	cond_resched();
	return vmx_on(v);
}

u32 vmx_run(struct vmx *v)
{
	struct desc_ptr gdt, idt;
	u64 event;
	u32 eax;

	for (;;) {
		asm volatile("sgdt %0" : "=m"(gdt));
		asm volatile("sidt %0" : "=m"(idt));
		v->result = 0;
		eax = nested_enter(v->registers, !v->launched);
		/* An exit leaves limits of 64 KiB. */
		asm volatile("lgdt %0" ::"m"(gdt));
		asm volatile("lidt %0" ::"m"(idt));
		if (eax) {
			v->result = vmx_result(eax);
			v->reason = ~0U;
			return v->reason;
		}
		v->entries++;
		v->reason = get(VM_EXIT_REASON);
		if (!(v->reason & BIT(31)))
			v->launched = true;
		event = get(VM_EXIT_INTR_INFO);
		if (v->reason == EXIT_REASON_EXTERNAL_INTERRUPT ||
		    (v->reason == EXIT_REASON_EXCEPTION_NMI && (event & 0x7ff) == 0x202)) {
			v->interrupts += v->reason == EXIT_REASON_EXTERNAL_INTERRUPT;
			if (!(event & BIT(31)) || !give_interrupt(v, event & 0xff)) {
				v->result = -1;
				v->reason = ~0U;
				return v->reason;
			}
			if (v->one_interrupt)
				return EXIT_REASON_EXTERNAL_INTERRUPT;
			continue;
		}
		return v->reason;
	}
}

u32 vmx_call(struct vmx *v, const char *code)
{
	vmx_go_to(code);
	return vmx_run(v);
}
