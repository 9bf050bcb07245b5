// SPDX-License-Identifier: GPL-2.0
/* Instructions, VMCS contents and page tables at random, and what another CPU changes under an entry. */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/sched.h>
#include <linux/vmalloc.h>
#include <asm/cpufeature.h>
#include <asm/msr-index.h>
#include <asm/processor-flags.h>
#include <asm/trapnr.h>

#include "nested_vmx.h"

#define MISC_WRITES_ALL BIT(29)
#define OTHER_MEMORY 0x2badf00dU /* in the second frame that page tables may name */

static u64 seed;

static u64 next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* What may come of a VM entry whose VMCS, tables and bitmap anybody may have changed. */
static bool is_defined(const struct vmx *v)
{
	if (v->reason == ~0U)
		return v->result == VMX_FAIL(7) || v->result == VMX_FAIL(8) || v->result == VMX_FAIL(4) ||
		       v->result == VMX_FAIL(5);
	switch (v->reason & ~BIT(31)) {
	case EXIT_REASON_EPT_VIOLATION:
	case EXIT_REASON_EPT_MISCONFIG:
		return !(v->reason & BIT(31));
	case EXIT_REASON_INVALID_STATE:
	case EXIT_REASON_MSR_LOAD_FAIL:
		return v->reason & BIT(31);
	case EXIT_REASON_EXCEPTION_NMI:
	case EXIT_REASON_EXTERNAL_INTERRUPT:
	case EXIT_REASON_TRIPLE_FAULT:
	case EXIT_REASON_INTERRUPT_WINDOW:
	case EXIT_REASON_NMI_WINDOW:
	case EXIT_REASON_TASK_SWITCH ... EXIT_REASON_VMCALL:
	case EXIT_REASON_CR_ACCESS ... EXIT_REASON_MSR_WRITE:
	case EXIT_REASON_MWAIT_INSTRUCTION:
	case EXIT_REASON_MONITOR_INSTRUCTION:
	case EXIT_REASON_PAUSE_INSTRUCTION:
	case EXIT_REASON_WBINVD:
	case EXIT_REASON_XSETBV:
		return !(v->reason & BIT(31));
	}
	return false;
}

/* Whether the CPU has what exits load, and EFER as Linux had it. */
static bool host_is_whole(u64 efer)
{
	unsigned long cr0, cr4;
	u64 now = 0;

	rdmsrq_safe(MSR_EFER, &now);
	asm volatile("mov %%cr0, %0" : "=r"(cr0)::"memory");
	asm volatile("mov %%cr4, %0" : "=r"(cr4)::"memory");
	return now == efer && (cr0 & X86_CR0_WP) && (cr4 & X86_CR4_PAE);
}

/*
 * A second CPU that changes what an entry reads. Natively only page-table entries, since a VMCS in use is the CPU's: there they
 * show both frames, which is the control.
 */
struct flipper {
	struct vmx *v;
	u64 leaves[6];
	unsigned int leaf_count;
	bool stop, vmcs;
	u64 flips, seed;
	struct task_struct *task;
};

static u64 next_flip(struct flipper *f)
{
	f->seed ^= f->seed << 13;
	f->seed ^= f->seed >> 7;
	f->seed ^= f->seed << 17;
	return f->seed;
}

/*
 * Words of the monitor's VMCS12 that are guest state, controls and what exits say: width << 7 | type << 5 | index; but for the lists
 * of MSRs, exit controls, and the EPT pointer. All others are what the host itself needs to live.
 */
static unsigned int a_word(struct flipper *f)
{
	static const u8 kept[] = { 0x02, 0x03, 0x04, 0x05, 0x0d }; /* of 64 bits */
	unsigned int word, i;

	do {
		word = next_flip(f) % 512;
		for (i = 0; i < ARRAY_SIZE(kept); i++)
			if (word == 0x80 + kept[i])
				word = 0;
		/* Exit controls, and counts of the lists. */
		if (word >= 0x106 && word <= 0x10a)
			word = 0;
	} while (!word || (word >> 5 & 3) == 3);
	return word;
}

static void flip(struct flipper *f)
{
	struct vmx *v = f->v;
	u64 r = next_flip(f), value = f->leaves[r % f->leaf_count];

	switch (r >> 8 & 7) {
	case 0:
		WRITE_ONCE(v->pd[1], (r & BIT(16) ? (value & PMD_MASK) | LEAF(0, 1) : value) | LEAF_LARGE);
		break;
	case 1:
		WRITE_ONCE(((u64 *)v->bitmap)[r >> 16 & 511], r & BIT(40) ? ~0ULL : 0);
		break;
	case 2:
		/* Natively the CPU would load the one, but never the other. */
		WRITE_ONCE(((u64 *)v->lists)[0], r & BIT(16) ? MSR_KERNEL_GS_BASE
						 : f->vmcs   ? MSR_IA32_APICBASE
							     : MSR_FS_BASE);
		break;
	case 3:
		if (f->vmcs)
			WRITE_ONCE(((u64 *)v->vmcs)[a_word(f)], r & BIT(17) ? r : r & BIT(18) ? 0 : value);
		break;
	default:
		WRITE_ONCE(v->pt[L2_WINDOW / PAGE_SIZE], value);
	}
	f->flips++;
}

static int flip_all(void *data)
{
	struct flipper *f = data;
	unsigned int i;

	while (!READ_ONCE(f->stop)) {
		for (i = 0; i < 1000 && !READ_ONCE(f->stop); i++)
			flip(f);
		cond_resched();
	}
	while (!kthread_should_stop())
		msleep(1);
	return 0;
}

static struct vmx *vmx_start(struct seq_file *out)
{
	struct vmx *v = vmx_create();

	if (!v || !vmx_on(v)) {
		tap_check(out, false, "setup: VMX operation");
		return NULL;
	}
	vmx_setup(v);
	return v;
}

void attack_flips(struct seq_file *out)
{
	unsigned int other = cpumask_any_but(cpu_online_mask, raw_smp_processor_id()), i, seen[3] = {}, undefined = 0;
	bool alone = other >= nr_cpu_ids;
	struct flipper f = { .vmcs = monitor_runs(), .seed = 88172645463325252ULL };
	u32 *second = (void *)get_zeroed_page(GFP_KERNEL);
	struct vmx *v = second ? vmx_start(out) : NULL;
	u64 efer = 0, broken = 0;

	if (!v)
		return;
	f.v = v;
	rdmsrq_safe(MSR_EFER, &efer);
	*(u32 *)v->spare = PATTERN_LOW;
	*second = OTHER_MEMORY;
	f.leaves[f.leaf_count++] = LEAF(__pa(v->spare), 5);
	f.leaves[f.leaf_count++] = LEAF(__pa(second), 5);
	f.leaves[f.leaf_count++] = 0;
	f.leaves[f.leaf_count++] = LEAF(__pa(v->spare), 2);
	for (i = 0; i < refuse_count && f.leaf_count < ARRAY_SIZE(f.leaves); i++)
		f.leaves[f.leaf_count++] = LEAF(refuse[i] & PAGE_MASK, 7);
	((u64 *)v->lists)[0] = MSR_KERNEL_GS_BASE;
	rdmsrq_safe(MSR_KERNEL_GS_BASE, (u64 *)v->lists + 1);
	v->one_interrupt = true;
	vmx_off(v);
	if (!alone) {
		f.task = kthread_create(flip_all, &f, "nested/%u", other);
		if (IS_ERR(f.task))
			return;
		kthread_bind(f.task, other);
		wake_up_process(f.task);
	}
	for (i = 0; i < max(count / 10, 100U); i++) {
		if (alone)
			flip(&f);
		/* The copy is made here; what would let no entry be tried is put right. */
		if (!vmx_on(v)) {
			if (!f.vmcs)
				undefined++;
			continue;
		}
		if (f.vmcs && i % 4)
			vmx_setup(v);
		set(VM_ENTRY_MSR_LOAD_ADDR, __pa(v->lists));
		set(VM_ENTRY_MSR_LOAD_COUNT, i & 1);
		set(VM_EXIT_MSR_LOAD_COUNT, 0);
		set(VM_EXIT_MSR_STORE_COUNT, 0);
		set(MSR_BITMAP, __pa(v->bitmap));
		set(EPT_POINTER, vmx_eptp(v));
		do_invept(2, 0, 0);
		v->registers[RDI] =
			i & 2 ? L2_WINDOW : L2_LARGE + ((i & 4 ? __pa(v->spare) : __pa(second)) & ~PMD_MASK);
		v->registers[RAX] = 0;
		v->registers[RCX] = 0x10;
		vmx_call(v, i & 8 ? l2_rdmsr : l2_read);
		broken += !host_is_whole(efer);
		if ((i & 3) && !(i & 8) && v->reason == EXIT_REASON_IO_INSTRUCTION &&
		    IO_PORT(get(EXIT_QUALIFICATION)) == PORT_DONE) {
			u32 value = v->registers[RAX];

			/* L2_LARGE leads to what is around, which is the host's own. */
			seen[value == PATTERN_LOW    ? 0
			     : value == OTHER_MEMORY ? 1
						     : 2] += i & 2 || value == PATTERN_LOW || value == OTHER_MEMORY;
		}
		if (!is_defined(v)) {
			if (!undefined++)
				seq_printf(out, "# round %u: reason %#x, result %#x\n", i, v->reason, v->result);
		}
		vmx_off(v);
		cond_resched();
	}
	WRITE_ONCE(f.stop, true);
	if (!alone)
		kthread_stop(f.task);
	tap_check(out, seen[0] && seen[1],
		  "positive control: what is changed under an entry counts: both frames are read (%u, %u times; %llu "
		  "changes)",
		  seen[0], seen[1], f.flips);
	tap_check(out, !seen[2], "and nothing else (%u times)", seen[2]);
	tap_check(out, !undefined && !broken, "each entry ends in one of the ways that the SDM has (%u of %u not)",
		  undefined, i);
	vmx_free(v);
	free_page((unsigned long)second);
}

/* A model of what the SDM says of VMX state. */
#define PAGES 2
#define FIELDS 5
static const u32 fields[FIELDS] = { TSC_OFFSET, PAGE_FAULT_ERROR_CODE_MASK, PAGE_FAULT_ERROR_CODE_MATCH,
				    CR0_READ_SHADOW, CR4_READ_SHADOW };
static const u64 field_masks[FIELDS] = { ~0ULL, ~0U, ~0U, ~0ULL, ~0ULL };

struct model {
	bool on, launched[PAGES], writes_all;
	int current_page; /* -1: none */
	u64 values[PAGES][FIELDS];
	struct vmx *pages[PAGES], *wild;
	u8 *beyond; /* not mapped */
	u64 wide, efer;
	unsigned int wrong, entries, faults, wilds, undefined, leaks, reasons[72];
};

enum kind { OWN_0, OWN_1, REGION, MISALIGNED, WIDE, WRONG_REVISION, NOT_MAPPED, KINDS };

static u64 address_of(const struct model *m, enum kind kind)
{
	switch (kind) {
	case OWN_0:
	case OWN_1:
		return __pa(m->pages[kind]->vmcs);
	case REGION:
		return __pa(m->pages[0]->vmxon);
	case MISALIGNED:
		return __pa(m->pages[0]->vmcs) + 8 * (1 + next() % 511);
	case WIDE:
		return m->wide | (next() & 0xfffff000);
	default:
		return __pa(m->pages[0]->lists);
	}
}

static int failed(const struct model *m, u32 error)
{
	return m->current_page < 0 ? VMX_FAIL_INVALID : VMX_FAIL(error);
}

static int pointer_result(const struct model *m, enum kind kind, u32 error)
{
	if (kind == MISALIGNED || kind == WIDE)
		return failed(m, error);
	return kind == REGION ? failed(m, error + 1) : VMX_OK;
}

static int run_pointer(struct model *m, unsigned int instruction, enum kind kind, int *wanted)
{
	u64 address = address_of(m, kind);
	int result;

	if (kind == NOT_MAPPED) {
		*wanted = m->on ? VMX_FAULT(X86_TRAP_PF) : UD;
		/* VMXON in VMX operation does not look at its operand. */
		if (instruction == 2)
			*wanted = m->on ? failed(m, 15) : VMX_FAULT(X86_TRAP_PF);
		m->faults++;
		return instruction == 0   ? VMX_DO("vmclear (%1)", "d"(m->beyond))
		       : instruction == 1 ? VMX_DO("vmptrld (%1)", "d"(m->beyond))
					  : VMX_DO("vmxon (%1)", "d"(m->beyond));
	}
	switch (instruction) {
	case 0:
		/* Whatever the revision. */
		*wanted = m->on ? pointer_result(m, kind, 2) : UD;
		result = do_vmclear(address);
		if (result == VMX_OK && *wanted == VMX_OK && kind <= OWN_1) {
			m->launched[kind] = false;
			if (m->current_page == kind)
				m->current_page = -1;
		}
		return result;
	case 1:
		*wanted = !m->on ? UD : kind == WRONG_REVISION ? failed(m, 11) : pointer_result(m, kind, 9);
		result = do_vmptrld(address);
		if (result == VMX_OK && *wanted == VMX_OK)
			m->current_page = kind;
		return result;
	}
	if (!m->on && kind <= OWN_1)
		kind = REGION, address = address_of(m, kind);
	*wanted = m->on ? failed(m, 15) : kind == REGION ? VMX_OK : VMX_FAIL_INVALID;
	result = do_vmxon(address);
	if (result == VMX_OK && *wanted == VMX_OK) {
		m->on = true;
		m->current_page = -1;
	}
	return result;
}

static int run_field(struct model *m, int *wanted)
{
	unsigned int i = next() % (FIELDS + 2);
	u64 value = next(), there = 0;
	bool write = next() & 1;
	int result;

	*wanted = !m->on ? UD : m->current_page < 0 ? VMX_FAIL_INVALID : VMX_OK;
	if (i == FIELDS) {
		*wanted = *wanted ?: VMX_FAIL(12);
		return write ? do_vmwrite(0x6bf0, value) : do_vmread(0x6bf0, &there);
	}
	if (i == FIELDS + 1) {
		*wanted = *wanted ?: write && !m->writes_all ? VMX_FAIL(13) : VMX_OK;
		return write ? do_vmwrite(VM_EXIT_REASON, value) : do_vmread(VM_EXIT_REASON, &there);
	}
	if (write) {
		result = do_vmwrite(fields[i], value);
		if (result == VMX_OK && *wanted == VMX_OK)
			m->values[m->current_page][i] = value & field_masks[i];
		return result;
	}
	result = do_vmread(fields[i], &there);
	if (result == VMX_OK && *wanted == VMX_OK && there != m->values[m->current_page][i])
		return -1;
	return result;
}

static void leave(struct model *m)
{
	m->on = false;
	m->current_page = -1;
}

static int run_entry(struct model *m, int *wanted)
{
	static const struct {
		const char *code;
		u32 reason;
	} known[] = { { l2_cpuid, EXIT_REASON_CPUID },
		      { l2_hlt, EXIT_REASON_HLT },
		      { l2_out, EXIT_REASON_IO_INSTRUCTION },
		      { l2_vmcall, EXIT_REASON_VMCALL },
		      { l2_spin, EXIT_REASON_EXTERNAL_INTERRUPT },
		      { l2_invert, EXIT_REASON_IO_INSTRUCTION } };
	unsigned int i = next() % ARRAY_SIZE(known);
	bool resume = next() & 1;
	struct vmx *v;
	u32 reason;

	if (m->current_page < 0) {
		*wanted = m->on ? VMX_FAIL_INVALID : UD;
		return resume ? VMX_DO("vmresume", "d"(0)) : VMX_DO("vmlaunch", "d"(0));
	}
	v = m->pages[m->current_page];
	*wanted = m->launched[m->current_page] == resume ? VMX_OK : VMX_FAIL(resume ? 5 : 4);
	if (*wanted != VMX_OK)
		return resume ? VMX_DO("vmresume", "d"(0)) : VMX_DO("vmlaunch", "d"(0));
	/* A VM that spins costs a tick: not too often. */
	if (known[i].code == l2_spin && next() % 16)
		i = 0;
	vmx_host_state();
	v->launched = resume;
	v->one_interrupt = true;
	reason = vmx_call(v, known[i].code);
	if (reason == ~0U)
		return v->result;
	m->entries++;
	m->launched[m->current_page] = true;
	if (reason == EXIT_REASON_EXTERNAL_INTERRUPT) {
		/* Linux has run, outside VMX operation, after a VMCLEAR. */
		m->launched[m->current_page] = false;
		return VMX_OK;
	}
	return reason == known[i].reason ? VMX_OK : -2;
}

static int run_invalidation(struct model *m, int *wanted)
{
	u64 type = next() % 6, vpid = next() % 4 ? next() & 0xffff : 0;

	*wanted = m->on ? VMX_OK : UD;
	if (next() & 1) {
		u64 eptp = next() & 1 ? vmx_eptp(m->pages[0]) : next() & 1 ? next() | m->wide : 7;

		if (m->on && ((type != 1 && type != 2) || (type == 1 && eptp != vmx_eptp(m->pages[0]))))
			*wanted = failed(m, 28);
		return do_invept(type, eptp, 0);
	}
	if (m->on && (type > 3 || (type != 2 && !vpid)))
		*wanted = failed(m, 28);
	return do_invvpid(type, vpid, 0);
}

/* Fields that L1 may leave at random, and live: no host state, no lists, no EPT pointer, no exit controls. */
static u64 wild_field(void)
{
	u64 field;

	do
		field = (next() & 3) << 13 | next() % 3 << 10 | next() % 32 << 1;
	while (field == VM_EXIT_MSR_STORE_ADDR || field == VM_EXIT_MSR_LOAD_ADDR || field == VM_ENTRY_MSR_LOAD_ADDR ||
	       field == VM_EXIT_MSR_LOAD_COUNT || field == VM_EXIT_CONTROLS || field == EPT_POINTER ||
	       field == MSR_BITMAP);
	return field;
}

/* A VMCS and page tables with a few things at random. Natively that would try the CPU, not the monitor. */
static void run_wild(struct model *m)
{
	struct vmx *v = m->wild;
	unsigned int i;

	if (m->on && VMX_DO("vmxoff", "d"(0)) != VMX_OK)
		m->wrong++;
	leave(m);
	asm volatile("mov %%cr4, %%rax\n\tbtr $13, %%rax\n\tmov %%rax, %%cr4" ::: "rax", "memory", "cc");
	if (!vmx_on(v)) {
		m->wrong++;
		return;
	}
	vmx_setup(v);
	/* It may be one that spins. */
	v->one_interrupt = true;
	set(VM_ENTRY_MSR_LOAD_ADDR, __pa(v->lists));
	set(VM_EXIT_MSR_STORE_ADDR, __pa(v->lists));
	set(VM_EXIT_MSR_LOAD_ADDR, __pa(v->lists));
	vmx_go_to(next() & 1 ? l2_read : l2_code + next() % (l2_code_end - l2_code));
	for (i = next() % 6; i; i--) {
		u64 r = next();

		do_vmwrite(wild_field(), r & 1 ? BIT_ULL(r >> 8 & 63) : r & 2 ? next() : r & 4 ? next() & 0xff : 0);
	}
	for (i = 0; i < 4; i++) {
		u64 r = next(),
		    frame = refuse_count && (r & 1) ? refuse[(r >> 8) % refuse_count] & PAGE_MASK : __pa(v->spare);

		v->pt[L2_WINDOW / PAGE_SIZE + i] =
			r & 2 ? LEAF(frame, r >> 16 & 7) : frame | (r >> 16 & 0x7f) | (r >> 32 & 0xf) << 48;
		/* A table that the VM can write would give it all of the host. */
		v->pd[2 + i] = !(r & 1) ? __pa(v->pt) | (r >> 16 & 7)
			       : r & 4  ? frame | 7
					: LEAF(frame & PMD_MASK, 1) | LEAF_LARGE;
	}
	v->registers[RDI] =
		next() & 3 ? L2_WINDOW + (next() & 0x3ffc) : L2_LARGE * (2 + (next() & 3)) + (next() & 0x1ffffc);
	v->registers[RAX] = 0;
	vmx_run(v);
	m->wilds++;
	if (v->reason != ~0U)
		m->reasons[(v->reason & 0x7fff) % ARRAY_SIZE(m->reasons)]++;
	if (!is_defined(v) || !host_is_whole(m->efer))
		m->undefined++;
	vmx_off(v);
	local_irq_disable();
	asm volatile("mov %%cr4, %%rax\n\tbts $13, %%rax\n\tmov %%rax, %%cr4" ::: "rax", "memory", "cc");
}

void attack_random(struct seq_file *out)
{
	struct model m = { .current_page = -1, .wide = 1ULL << min(boot_cpu_data.x86_phys_bits, (u8)51) };
	u8 *memory = vmalloc(PAGE_SIZE), *other_region;
	unsigned int i, j, kinds = 0;
	bool below = monitor_runs();
	u64 misc = 0;

	seed = 0x853c49e6748fea9bULL + raw_smp_processor_id();
	m.beyond = memory + PAGE_SIZE;
	rdmsrq_safe(MSR_IA32_VMX_MISC, &misc);
	rdmsrq_safe(MSR_EFER, &m.efer);
	m.writes_all = misc & MISC_WRITES_ALL;
	m.wild = vmx_create();
	for (i = 0; i < PAGES; i++) {
		struct vmx *v = m.pages[i] = vmx_create();

		if (!m.wild || !memory || !v || !vmx_on(v)) {
			tap_check(out, false, "setup: VMX operation");
			return;
		}
		vmx_setup(v);
		for (j = 0; j < FIELDS; j++)
			set(fields[j], 0);
		vmx_off(v);
	}
	/* Of wrong revision, and no wild VM's business. */
	*(u32 *)m.pages[0]->lists = 0x7fffffff;
	/* There is one region on a CPU. */
	other_region = m.pages[1]->vmxon;
	m.pages[1]->vmxon = m.pages[0]->vmxon;
	local_irq_disable();
	asm volatile("mov %%cr4, %%rax\n\tbts $13, %%rax\n\tmov %%rax, %%cr4" ::: "rax", "memory", "cc");
	for (i = 0; i < count && m.wrong < 10; i++) {
		unsigned int what = next() % 16;
		int wanted = 0, result = 0;

		/* Or hardly an entry would find all that it needs. */
		if (!m.on && (next() & 1))
			result = run_pointer(&m, 2, REGION, &wanted);
		else if (m.on && m.current_page < 0 && (next() & 1))
			result = run_pointer(&m, 1, next() % PAGES, &wanted);
		else if (what < 2)
			result = run_pointer(&m, 0, next() % KINDS, &wanted);
		else if (what < 5)
			result = run_pointer(&m, 1, next() % KINDS, &wanted);
		else if (what < 6)
			result = run_pointer(&m, 2, next() % KINDS, &wanted);
		else if (what < 9)
			result = run_field(&m, &wanted);
		else if (what < 12)
			result = run_entry(&m, &wanted);
		else if (what < 14)
			result = run_invalidation(&m, &wanted);
		else if (what == 14 && below)
			run_wild(&m);
		else if (next() % 32 == 0) {
			wanted = m.on ? VMX_OK : UD;
			result = VMX_DO("vmxoff", "d"(0));
			leave(&m);
		} else {
			u64 value = 0, now = m.current_page < 0 ? ~0ULL : __pa(m.pages[m.current_page]->vmcs);

			wanted = m.on ? VMX_OK : UD;
			result = do_vmptrst(&value);
			if (result == VMX_OK && value != now)
				result = -3;
		}
		if (result != wanted) {
			m.wrong++;
			seq_printf(out, "# instruction %u, kind %u: %#x, not %#x (in VMX operation %d, current %d)\n",
				   i, what, result, wanted, m.on, m.current_page);
		}
		if (i % 64 == 63) {
			/* Linux runs outside VMX operation. */
			if (m.on)
				VMX_DO("vmxoff", "d"(0));
			leave(&m);
			asm volatile("mov %%cr4, %%rax\n\tbtr $13, %%rax\n\tmov %%rax, %%cr4" ::
					     : "rax", "memory", "cc");
			local_irq_enable();
			cond_resched();
			local_irq_disable();
			asm volatile("mov %%cr4, %%rax\n\tbts $13, %%rax\n\tmov %%rax, %%cr4" ::
					     : "rax", "memory", "cc");
		}
	}
	if (m.on)
		VMX_DO("vmxoff", "d"(0));
	asm volatile("mov %%cr4, %%rax\n\tbtr $13, %%rax\n\tmov %%rax, %%cr4" ::: "rax", "memory", "cc");
	local_irq_enable();
	tap_check(out, !m.wrong && m.entries && m.faults,
		  "positive control: %u instructions at random do what the SDM says (%u not; %u entries)", i, m.wrong,
		  m.entries);
	for (j = 0; j < ARRAY_SIZE(m.reasons); j++)
		kinds += m.reasons[j] != 0;
	if (below)
		tap_check(out, m.wilds && !m.undefined && kinds > 4,
			  "%u VMs at random end in a way that the SDM has (%u not; %u reasons)", m.wilds, m.undefined,
			  kinds);
	m.pages[1]->vmxon = other_region;
	for (i = 0; i < PAGES; i++)
		vmx_free(m.pages[i]);
	vmx_free(m.wild);
	vfree(memory);
}
