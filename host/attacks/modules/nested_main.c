// SPDX-License-Identifier: GPL-2.0
/*
 * A hostile kernel with VMX: where the monitor offers it (kvm = on), its instructions, VMs and their page tables against all that is
 * not the host's; where it does not, that there is none. Natively the same code is the control: it does what the SDM says.
 */
#include <linux/irqflags.h>
#include <linux/mm.h>
#include <linux/vmalloc.h>
#include <asm/cpufeature.h>
#include <asm/msr-index.h>
#include <asm/processor-flags.h>
#include <asm/trapnr.h>

#include "nested_vmx.h"

#define MSR_VMX_FIRST MSR_IA32_VMX_BASIC
#define MSR_VMX_LAST 0x493
#define MISC_WRITES_ALL BIT(29)
#define UNSUPPORTED 0x6bf0 /* no field has that */
#define NON_CANONICAL 0x8000000000000000ULL

TAP_PARTS;
unsigned long refuse[16];
unsigned int refuse_count;
module_param_array(refuse, ulong, &refuse_count, 0400);
MODULE_PARM_DESC(refuse, "physical addresses of frames that are not the host's");
unsigned int count = 20000;
module_param(count, uint, 0400);
MODULE_PARM_DESC(count, "how many instructions at random");

static bool end_machine;
module_param_named(abort, end_machine, bool, 0400);
MODULE_PARM_DESC(abort, "reading /proc/nested ends the machine by a VMX abort, at the first of the frames in refuse");

static struct vmx *held;

/* Linux does not know of CR4.VMXE: without INVPCID it would write CR4 to flush the TLB. */
static int set_held(const char *value, const struct kernel_param *parameter)
{
	bool on;

	if (kstrtobool(value, &on) || on == !!held || !vmx_is_offered() || !boot_cpu_has(X86_FEATURE_INVPCID))
		return -EINVAL;
	if (on) {
		held = vmx_create();
		if (!held)
			return -ENOMEM;
		if (vmx_on(held)) {
			local_irq_enable();
			return 0;
		}
		vmx_free(held);
		held = NULL;
		return -EIO;
	}
	local_irq_disable();
	vmx_off(held);
	vmx_free(held);
	held = NULL;
	return 0;
}

static const struct kernel_param_ops hold_ops = { .set = set_held };
module_param_cb(hold, &hold_ops, NULL, 0200);
MODULE_PARM_DESC(hold, "1: VMX operation, with a current VMCS, on the CPU that writes this; 0: no more");

static unsigned long get_cr4(void)
{
	unsigned long value;

	asm volatile("mov %%cr4, %0" : "=r"(value)::"memory");
	return value;
}

static void set_vmxe(bool on)
{
	unsigned long cr4 = get_cr4() & ~X86_CR4_VMXE;

	asm volatile("mov %0, %%cr4" ::"r"(on ? cr4 | X86_CR4_VMXE : cr4) : "memory");
}

static int read_msr(u32 msr)
{
	u64 value;

	return rdmsrq_safe(msr, &value);
}

/* How many of a group were not as the SDM has it; each of these is said. */
struct group {
	struct seq_file *out;
	unsigned int tried, wrong;
};

static void wants(struct group *group, int result, int wanted, const char *what)
{
	group->tried++;
	if (result == wanted)
		return;
	group->wrong++;
	seq_printf(group->out, "# %s: %#x, not %#x\n", what, result, wanted);
}

static void end_group(struct group *group, const char *what)
{
	tap_check(group->out, group->tried && !group->wrong, "%s (%u of %u)", what, group->tried - group->wrong,
		  group->tried);
	group->tried = group->wrong = 0;
}

static void want_all_undefined(struct group *group, u64 address, bool also_vmxon)
{
	u64 value;

	if (also_vmxon)
		wants(group, do_vmxon(address), UD, "VMXON");
	wants(group, do_vmclear(address), UD, "VMCLEAR");
	wants(group, do_vmptrld(address), UD, "VMPTRLD");
	wants(group, do_vmptrst(&value), UD, "VMPTRST");
	wants(group, do_vmread(GUEST_RIP, &value), UD, "VMREAD");
	wants(group, do_vmwrite(GUEST_RIP, 0), UD, "VMWRITE");
	wants(group, do_invept(2, 0, 0), UD, "INVEPT");
	wants(group, do_invvpid(2, 0, 0), UD, "INVVPID");
	wants(group, VMX_DO("vmlaunch", "d"(0)), UD, "VMLAUNCH");
	wants(group, VMX_DO("vmresume", "d"(0)), UD, "VMRESUME");
	wants(group, VMX_DO("vmxoff", "d"(0)), UD, "VMXOFF");
}

/* kvm = off, or a CPU that has no VMX. */
static void check_hidden(struct seq_file *out)
{
	struct group group = { .out = out };
	unsigned long cr4;
	int same, vmxe;
	u32 msr;

	local_irq_disable();
	cr4 = get_cr4();
	same = fault_of("mov %1, %%cr4", 0, "r"(cr4));
	vmxe = fault_of("mov %1, %%cr4", 0, "r"(cr4 | X86_CR4_VMXE));
	local_irq_enable();
	tap_check(out, same == VECTOR_NONE && !read_msr(MSR_EFER),
		  "positive control: CR4 takes its own value, and an MSR that is there can be read");
	tap_check(out, !(cr4 & X86_CR4_VMXE) && vmxe == X86_TRAP_GP,
		  "VMX is not offered: CR4.VMXE reads as 0, and can't be set (exception %d)", vmxe);
	for (msr = MSR_VMX_FIRST; msr <= MSR_VMX_LAST; msr++)
		wants(&group, read_msr(msr) != 0, true, "reading a VMX MSR");
	end_group(&group, "no VMX capability MSR can be read");
	want_all_undefined(&group, 0, true);
	end_group(&group, "each VMX instruction raises exception 6");
}

static void no_current(struct group *group, struct vmx *v)
{
	u64 value = 0;

	wants(group, do_vmxon(__pa(v->vmxon)), VMX_FAIL_INVALID, "VMXON once more");
	wants(group, do_vmptrst(&value), VMX_OK, "VMPTRST");
	wants(group, value == ~0ULL, true, "VMPTRST gives ~0");
	wants(group, do_vmread(GUEST_RIP, &value), VMX_FAIL_INVALID, "VMREAD");
	wants(group, do_vmwrite(GUEST_RIP, 0), VMX_FAIL_INVALID, "VMWRITE");
	wants(group, VMX_DO("vmlaunch", "d"(0)), VMX_FAIL_INVALID, "VMLAUNCH");
	wants(group, VMX_DO("vmresume", "d"(0)), VMX_FAIL_INVALID, "VMRESUME");
	wants(group, do_vmclear(__pa(v->vmcs) + 8), VMX_FAIL_INVALID, "VMCLEAR, misaligned");
	wants(group, do_vmclear(__pa(v->vmxon)), VMX_FAIL_INVALID, "VMCLEAR of the VMXON region");
	wants(group, do_vmptrld(__pa(v->vmxon)), VMX_FAIL_INVALID, "VMPTRLD of the VMXON region");
	wants(group, do_vmptrld(__pa(v->spare)), VMX_FAIL_INVALID, "VMPTRLD of another revision");
	wants(group, do_invept(0, 0, 0), VMX_FAIL_INVALID, "INVEPT of type 0");
}

static void with_current(struct group *group, struct vmx *v, u64 wide)
{
	u64 value = 0, misc = 0;

	rdmsrq_safe(MSR_IA32_VMX_MISC, &misc);
	wants(group, do_vmclear(__pa(v->vmcs)), VMX_OK, "VMCLEAR");
	wants(group, do_vmptrld(__pa(v->vmcs)), VMX_OK, "VMPTRLD");
	wants(group, do_vmxon(__pa(v->vmxon)), VMX_FAIL(15), "VMXON once more");
	wants(group, do_vmclear(__pa(v->vmcs) + 8), VMX_FAIL(2), "VMCLEAR, misaligned");
	wants(group, do_vmclear(wide), VMX_FAIL(2), "VMCLEAR, too wide");
	wants(group, do_vmclear(__pa(v->vmxon)), VMX_FAIL(3), "VMCLEAR of the VMXON region");
	wants(group, do_vmptrld(__pa(v->vmcs) + 8), VMX_FAIL(9), "VMPTRLD, misaligned");
	wants(group, do_vmptrld(wide), VMX_FAIL(9), "VMPTRLD, too wide");
	wants(group, do_vmptrld(__pa(v->vmxon)), VMX_FAIL(10), "VMPTRLD of the VMXON region");
	wants(group, do_vmptrld(__pa(v->spare)), VMX_FAIL(11), "VMPTRLD of another revision");
	wants(group, do_vmptrst(&value), VMX_OK, "VMPTRST");
	wants(group, value == __pa(v->vmcs), true, "VMPTRST gives what was current before the refusals");
	wants(group, do_vmread(UNSUPPORTED, &value), VMX_FAIL(12), "VMREAD of no field");
	wants(group, do_vmwrite(UNSUPPORTED, 0), VMX_FAIL(12), "VMWRITE of no field");
	wants(group, do_vmread(1ULL << 32 | GUEST_RIP, &value), VMX_FAIL(12), "VMREAD of a field with bit 32");
	wants(group, do_vmwrite(VM_EXIT_REASON, 0), misc & MISC_WRITES_ALL ? VMX_OK : VMX_FAIL(13),
	      "VMWRITE of a read-only field");
	wants(group, VMX_DO("vmresume", "d"(0)), VMX_FAIL(5), "VMRESUME of a clear VMCS");
	wants(group, do_vmwrite(GUEST_RIP, 0x123456789abcdef0), VMX_OK, "VMWRITE");
	wants(group, do_vmwrite(GUEST_ES_SELECTOR, 0x12345678), VMX_OK, "VMWRITE of more than the width");
	wants(group, do_vmclear(__pa(v->vmcs)), VMX_OK, "VMCLEAR");
	wants(group, do_vmread(GUEST_RIP, &value), VMX_FAIL_INVALID, "VMREAD after VMCLEAR");
	wants(group, do_vmptrld(__pa(v->vmcs)), VMX_OK, "VMPTRLD");
	wants(group, get(GUEST_RIP) == 0x123456789abcdef0, true, "a field keeps its value over VMCLEAR");
	wants(group, get(GUEST_ES_SELECTOR) == 0x5678, true, "a field is cut to its width");
	wants(group, do_invept(0, 0, 0), VMX_FAIL(28), "INVEPT of type 0");
	wants(group, do_invept(3, 0, 0), VMX_FAIL(28), "INVEPT of type 3");
	wants(group, do_invept(1, 7, 0), VMX_FAIL(28), "INVEPT of no EPT pointer");
	wants(group, do_invept(1, vmx_eptp(v), 0), VMX_OK, "INVEPT of one");
	wants(group, do_invept(2, 0, 0), VMX_OK, "INVEPT of all");
	wants(group, do_invvpid(4, 1, 0), VMX_FAIL(28), "INVVPID of type 4");
	wants(group, do_invvpid(1, 0, 0), VMX_FAIL(28), "INVVPID of VPID 0");
	wants(group, do_invvpid(1, 0x10001, 0), VMX_FAIL(28), "INVVPID with a reserved bit");
	wants(group, do_invvpid(0, 1, NON_CANONICAL), VMX_FAIL(28), "INVVPID of an address that is not canonical");
	wants(group, do_invvpid(1, 1, 0), VMX_OK, "INVVPID of one");
	wants(group, do_invvpid(2, 0, 0), VMX_OK, "INVVPID of all");
	set(PIN_BASED_VM_EXEC_CONTROL, 0);
	wants(group, VMX_DO("vmlaunch", "d"(0)), VMX_FAIL(7), "VMLAUNCH without what must be on");
	set(PIN_BASED_VM_EXEC_CONTROL, ~0U);
	wants(group, VMX_DO("vmlaunch", "d"(0)), VMX_FAIL(7), "VMLAUNCH with what may not be on");
}

/* memory: a page, behind which nothing is mapped. */
static void with_operands(struct group *group, struct vmx *v, u8 *memory)
{
	u64 *last = (u64 *)(memory + PAGE_SIZE - 8), *beyond = (u64 *)(memory + PAGE_SIZE),
	    *across = (u64 *)(memory + PAGE_SIZE - 4);

	*last = __pa(v->vmcs);
	wants(group, VMX_DO("vmptrld (%1)", "d"(last)), VMX_OK, "VMPTRLD by the last bytes of a page");
	wants(group, VMX_DO("vmptrld (%1)", "d"(beyond)), VMX_FAULT(X86_TRAP_PF), "VMPTRLD by what is not mapped");
	wants(group, VMX_DO("vmptrst (%1)", "d"(across)), VMX_FAULT(X86_TRAP_PF), "VMPTRST across the end");
	wants(group, *last == __pa(v->vmcs), true, "which wrote nothing");
	wants(group, VMX_DO("vmread %1, (%2)", "r"((u64)GUEST_RIP), "d"(beyond)), VMX_FAULT(X86_TRAP_PF),
	      "VMREAD to what is not mapped");
	wants(group, VMX_DO("vmwrite (%2), %1", "r"((u64)GUEST_RIP), "d"(beyond)), VMX_FAULT(X86_TRAP_PF),
	      "VMWRITE from what is not mapped");
	wants(group, VMX_DO("invept (%2), %1", "r"(2ULL), "d"(beyond)), VMX_FAULT(X86_TRAP_PF),
	      "INVEPT by what is not mapped");
	wants(group, VMX_DO("vmptrld (%1)", "d"(NON_CANONICAL)), GP, "VMPTRLD by an address that is not canonical");
	wants(group, VMX_DO("vmptrst (%1)", "d"(l2_code)), VMX_FAULT(X86_TRAP_PF), "VMPTRST to read-only memory");
	wants(group, VMX_DO("vmptrst 8(%1, %2, 8)", "d"(last), "c"(-1L)), VMX_OK,
	      "VMPTRST by base, index and displacement");
}

void attack_instructions(struct seq_file *out)
{
	u64 wide = 1ULL << (boot_cpu_data.x86_phys_bits < 52 ? boot_cpu_data.x86_phys_bits : 52);
	struct group group = { .out = out };
	struct vmx *v = vmx_create();
	u8 *memory = vmalloc(PAGE_SIZE);

	if (!v || !memory) {
		tap_check(out, false, "setup: memory");
		return;
	}
	*memory = 0;
	*(u32 *)v->spare = *(u32 *)v->vmcs ^ 1;
	local_irq_disable();
	want_all_undefined(&group, __pa(v->vmxon), true);
	end_group(&group, "without CR4.VMXE each VMX instruction raises exception 6");
	set_vmxe(true);
	want_all_undefined(&group, __pa(v->vmxon), false);
	wants(&group, do_vmxon(__pa(v->vmxon) + 8), VMX_FAIL_INVALID, "VMXON, misaligned");
	wants(&group, do_vmxon(wide), VMX_FAIL_INVALID, "VMXON, too wide");
	wants(&group, do_vmxon(__pa(v->spare)), VMX_FAIL_INVALID, "VMXON of another revision");
	*(u32 *)v->spare = *(u32 *)v->vmcs | BIT(31);
	wants(&group, do_vmxon(__pa(v->spare)), VMX_FAIL_INVALID, "VMXON of a shadow VMCS");
	*(u32 *)v->spare = *(u32 *)v->vmcs ^ 1;
	end_group(&group, "outside VMX operation each is refused, and so is VMXON of a wrong region");
	wants(&group, do_vmxon(__pa(v->vmxon)), VMX_OK, "VMXON");
	end_group(&group, "positive control: VMXON works");
	wants(&group, fault_of("mov %1, %%cr4", 0, "r"(get_cr4() & ~X86_CR4_VMXE)), X86_TRAP_GP, "clearing CR4.VMXE");
	wants(&group, !!(get_cr4() & X86_CR4_VMXE), true, "CR4.VMXE");
	no_current(&group, v);
	end_group(&group, "without a current VMCS all is refused as the SDM says");
	with_current(&group, v, wide);
	end_group(&group, "positive control: with a current VMCS each result is the SDM's");
	with_operands(&group, v, memory);
	end_group(&group, "memory operands fault as for any other instruction");
	wants(&group, VMX_DO("vmxoff", "d"(0)), VMX_OK, "VMXOFF");
	want_all_undefined(&group, __pa(v->vmxon), false);
	set_vmxe(false);
	wants(&group, !!(get_cr4() & X86_CR4_VMXE), false, "CR4.VMXE");
	local_irq_enable();
	end_group(&group, "after VMXOFF each is refused again");
	vfree(memory);
	vmx_free(v);
}

static int show_nested(struct seq_file *out, void *unused)
{
	static const struct {
		const char *name;
		void (*run)(struct seq_file *out);
		bool real_mode;
	} attacks[] = {
		{ "instructions", attack_instructions, false },
		{ "l2", attack_l2, true },
		{ "host", attack_host_state, true },
		{ "frames", attack_frames, true },
		{ "siege", attack_siege, true },
		{ "flips", attack_flips, true },
		{ "random", attack_random, true },
	};
	unsigned int i;

	monitor_runs();
	if (!vmx_is_offered()) {
		check_hidden(out);
		return 0;
	}
	if (end_machine && refuse_count) {
		attack_abort(out);
		return 0;
	}
	for (i = 0; i < ARRAY_SIZE(attacks); i++) {
		if (!part(attacks[i].name))
			continue;
		if (attacks[i].real_mode && !vmx_runs_real_mode())
			tap_check(out, true, "%s # SKIP the CPU has no VMs that begin in real mode", attacks[i].name);
		else
			attacks[i].run(out);
	}
	return 0;
}

TAP_MODULE("nested", show_nested, "A hypervisor of a hostile host's");
