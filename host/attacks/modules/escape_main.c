// SPDX-License-Identifier: GPL-2.0
/*
 * A hostile kernel wants a CPU that runs its code outside VMX, or in a state in which VMFUNC does more than it should: it
 * takes its other CPUs offline and starts them, and any that nobody listed, on a stub of its own (escape_stub.S). Then it
 * has the monitor flush all CPUs while their APICs are not as they were.
 */
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/stop_machine.h>
#include <asm/nmi.h>
#include <asm/trapnr.h>

#include "calls.h"
#include "compat.h"
#include "escape.h"
#include "tap.h"

#define XAPIC_IDS 255
#define INIT_MILLISECONDS 10
#define SIPI_MICROSECONDS 200
#define GATE_LINEAR 0xffffffff00000000ULL
#define GATE_TRIES 2000
#define EXIT_NMI 0
#define EXIT_CPUID 10

TAP_PARTS;

static_assert(STUB_IDENTIFY == HYPERPS_CALL_IDENTIFY && STUB_SIGNATURE == HYPERPS_SIGNATURE);
static_assert(offsetof(struct seen, ud) == SEEN_UD - STUB_SEEN && offsetof(struct seen, done) == SEEN_DONE - STUB_SEEN);
static_assert(offsetof(struct seen, obeyed) == SEEN_OBEYED - STUB_SEEN);

static u8 *low, *saved;
static struct seen *seen;
static atomic_t nmis;

static void send(u32 command, u32 apic_id)
{
	unsigned long flags;

	local_irq_save(flags);
	apic->icr_write(command, apic_id);
	local_irq_restore(flags);
}

static void send_sipi(u32 destination, u32 apic_id)
{
	send(destination | APIC_DM_STARTUP | STUB >> 12, apic_id);
	udelay(SIPI_MICROSECONDS);
}

/* INIT and SIPIs that lead to the stub: of those that wait, the emulator's broadcast reaches one more with each SIPI. */
static void start(u32 destination, u32 apic_id)
{
	u32 i;

	send(destination | APIC_DM_INIT | APIC_INT_ASSERT, apic_id);
	mdelay(INIT_MILLISECONDS);
	for (i = 0; i <= num_present_cpus(); i++)
		send_sipi(destination, apic_id);
}

static u32 stub_address(const char *label)
{
	return STUB + (label - escape_stub);
}

static bool prepare_stub(void)
{
	u64 table[] = { STUB_PD | 1, STUB_PDPT | 3, STUB_PD | 3, 0x83 };
	u32 real = stub_address(escape_ud_real), protected = stub_address(escape_ud_protected);
	u32 at = stub_address(escape_ud_long);

	low = memremap(STUB, STUB_PAGES * PAGE_SIZE, MEMREMAP_WB);
	saved = low ? kmemdup(low, STUB_PAGES * PAGE_SIZE, GFP_KERNEL) : NULL;
	if (!saved)
		return false;
	memset(low, 0, STUB_PAGES * PAGE_SIZE);
	memcpy(low, escape_stub, escape_stub_end - escape_stub);
	seen = (struct seen *)(low + STUB_SEEN);
	*(u32 *)(low + STUB_IDT_REAL - STUB + X86_TRAP_UD * 4) = (STUB >> 4) << 16 | (real - STUB);
	*(u64 *)(low + STUB_IDT_PROTECTED - STUB + X86_TRAP_UD * 8) =
		(protected & 0xffff) | 8 << 16 | 0x8eULL << 40 | (u64)(protected >> 16) << 48;
	*(u64 *)(low + STUB_IDT_LONG - STUB + X86_TRAP_UD * 16) =
		(at & 0xffff) | 24 << 16 | 0x8eULL << 40 | (u64)(at >> 16) << 48;
	memcpy(low + STUB_PAE - STUB, &table[0], 8);
	memcpy(low + STUB_PML4 - STUB, &table[1], 8);
	memcpy(low + STUB_PDPT - STUB, &table[2], 8);
	memcpy(low + STUB_PD - STUB, &table[3], 8);
	((u64 *)(low + STUB_PDPT - STUB))[3] = STUB_PD_APIC | 3;
	((u64 *)(low + STUB_PD_APIC - STUB))[pmd_index(APIC_DEFAULT_PHYS_BASE)] =
		(APIC_DEFAULT_PHYS_BASE & PMD_MASK) | 0x93;
	return true;
}

/* No CPU may be in the stub any more. */
static void remove_stub(void)
{
	if (saved)
		memcpy(low, saved, STUB_PAGES * PAGE_SIZE);
	kfree(saved);
	if (low)
		memunmap(low);
}

/* VM exits of all CPUs but this one, by reason. */
static u64 exits_of_others(u32 reason)
{
	u64 at = offsetof(struct hyperps_exits, reason) + reason * sizeof(u64), words[8], total = 0, slot, object;
	u32 own = cpuid_ebx(1) >> 24;

	for (slot = 0; slot < NR_CPUS; slot++) {
		object = HYPERPS_OBJECT_EXITS | slot << 32;
		if (read_words(object, 0, words))
			break;
		if ((u8)words[0] != own && !read_words(object, at / 64 * 64, words))
			total += words[at % 64 / 8];
	}
	return total;
}

static bool stop_others(void)
{
	int cpu;

	for_each_present_cpu(cpu) if (cpu && cpu_online(cpu) && remove_cpu(cpu)) return false;
	mdelay(20);
	return true;
}

static int start_others(void)
{
	int cpu, error = 0;

	for_each_present_cpu(cpu) error = error ?: cpu_online(cpu) ? 0 : start_cpu(cpu);
	return error;
}

static bool reach(const u32 *counter, u32 count)
{
	int waited;

	for (waited = 0; waited < 2000 && READ_ONCE(*counter) < count; waited++)
		mdelay(1);
	return READ_ONCE(*counter) == count;
}

static int on_nmi(unsigned int type, struct pt_regs *regs)
{
	atomic_inc(&nmis);
	return NMI_HANDLED;
}

/* The code that sends IPIs works, also where there is no other CPU. */
static void check_sending(struct seq_file *out)
{
	if (register_nmi_handler(NMI_LOCAL, on_nmi, 0, "escape"))
		return;
	atomic_set(&nmis, 0);
	send(APIC_DM_NMI, per_cpu(x86_cpu_to_apicid, raw_smp_processor_id()));
	mdelay(10);
	tap_check(out, atomic_read(&nmis) == 1, "positive control: an NMI that is sent by the same code arrives (%d)",
		  atomic_read(&nmis));
	unregister_nmi_handler(NMI_LOCAL, "escape");
}

/* On this CPU, and never used: whichever frame makes safe code will do as its table. */
static void switch_gate_on(void *count)
{
	u64 frames = min_t(u64, totalram_pages(), BIT_ULL(32 - PAGE_SHIFT)), i;
	s64 error = HYPERPS_ERROR_AGAIN;

	for (i = 1; i < GATE_TRIES && error && error != HYPERPS_ERROR_PERMISSION; i++)
		error = call(HYPERPS_CALL_GATE_SET, GATE_LINEAR, (i * 40503 % frames) << PAGE_SHIFT, 0, 0, NULL);
	if (!error && fault_of("vmfunc", 0, "c"(0)) == VECTOR_NONE)
		atomic_inc(count);
}

/* VMFUNC works on these CPUs before they are reset, where there is a gate at all. */
static void check_gates(struct seq_file *out, u32 others)
{
	atomic_t count = ATOMIC_INIT(0);

	if (call(HYPERPS_CALL_GATE_SET, GATE_LINEAR, 1, 0, 0, NULL) == HYPERPS_ERROR_PERMISSION)
		return;
	smp_call_function(switch_gate_on, &count, 1);
	tap_check(out, atomic_read(&count) == others, "positive control: VMFUNC works there before (%d of %u)",
		  atomic_read(&count), others);
}

/* All other CPUs, and any that nobody listed, by one broadcast. */
static void check_others(struct seq_file *out)
{
	u32 others = num_present_cpus() - 1;
	u64 cpuids;

	if (!others) {
		tap_check(out, true, "code of the attacker's on another CPU # SKIP there is one CPU only");
		return;
	}
	if (part("modes"))
		check_gates(out, others);
	if (!stop_others()) {
		tap_check(out, false, "setup: taking the other CPUs offline");
		return;
	}
	cpuids = exits_of_others(EXIT_CPUID);
	start(APIC_DEST_ALLBUT, 0);
	reach(&seen->done, others);
	/* In case there is one more. */
	mdelay(100);
	cpuids = exits_of_others(EXIT_CPUID) - cpuids;
	tap_check(out, seen->runs && seen->done == seen->runs,
		  "positive control: INIT and SIPI start the attacker's code on other CPUs (%u, %u got through)",
		  seen->runs, seen->done);
	tap_check(out, seen->runs == others, "on the %u that the monitor has, and no other (%u)", others, seen->runs);
	if (part("cpus")) {
		tap_check(out, !seen->vmx && cpuids == seen->runs,
			  "each is in VMX: its CPUID exits (%llu) and reports no VMX (%u reported it)", cpuids,
			  seen->vmx);
		tap_check(out, seen->answers == seen->runs, "each gets the monitor's answer to VMCALL (%u)",
			  seen->answers);
	}
	if (part("modes"))
		tap_check(
			out,
			seen->ud[0] == others && seen->ud[1] == others && seen->ud[2] == others &&
				seen->ud[3] == others,
			"VMFUNC raises #UD in real mode, unpaged, under PAE paging, in 64-bit mode (%u %u %u %u of %u)",
			seen->ud[0], seen->ud[1], seen->ud[2], seen->ud[3], others);
}

static bool is_taken(u32 apic_id)
{
	int cpu;

	for_each_present_cpu(cpu) if (per_cpu(x86_cpu_to_apicid, cpu) == apic_id) return true;
	return false;
}

/* No CPU has these APIC IDs: Linux knows all CPUs that the monitor has. */
static void check_unlisted(struct seq_file *out)
{
	u32 id, round, tried = 0, before = seen->runs;

	for (id = 0; id < XAPIC_IDS; id++) {
		if (is_taken(id))
			continue;
		send(APIC_DM_INIT | APIC_INT_ASSERT, id);
		tried++;
	}
	mdelay(INIT_MILLISECONDS);
	for (round = 0; round < 2; round++)
		for (id = 0; id < XAPIC_IDS; id++)
			if (!is_taken(id))
				send_sipi(0, id);
	mdelay(100);
	tap_check(out, seen->runs == before, "INIT and SIPI to %u APIC IDs that no CPU has start nothing (%u)", tried,
		  seen->runs - before);
}

static void count(void *counter)
{
	atomic_inc(counter);
}

/* A SIPI without an INIT. */
static void check_running(struct seq_file *out)
{
	u32 before = seen->runs;
	atomic_t alive = ATOMIC_INIT(0);
	int cpu;

	for_each_online_cpu(cpu) send(APIC_DM_STARTUP | STUB >> 12, per_cpu(x86_cpu_to_apicid, cpu));
	mdelay(10);
	on_each_cpu(count, &alive, 1);
	tap_check(out, seen->runs == before && atomic_read(&alive) == num_present_cpus(),
		  "a SIPI to a CPU that runs changes nothing (%d of %u CPUs go on)", atomic_read(&alive),
		  num_present_cpus());
}

static bool command(u32 number)
{
	int waited;

	WRITE_ONCE(seen->command, number);
	for (waited = 0; waited < 2000 && READ_ONCE(seen->obeyed) != number; waited++)
		mdelay(1);
	return READ_ONCE(seen->obeyed) == number;
}

static bool is_x2apic(void)
{
	u64 base;

	rdmsrq(MSR_IA32_APICBASE, base);
	return base & X2APIC_ENABLE;
}

/*
 * CPU 1 is in the stub, and switches its APIC off. Then a flush of all CPUs may pass only if that CPU took an NMI all the same,
 * as it does on most if only its spurious-interrupt register has switched it off. A frame that waits for it is not the VM's yet.
 */
static s64 sync_without_apic(struct seq_file *out, u64 pfn, u32 how)
{
	bool globally = how == COMMAND_APIC_GLOBALLY_OFF;
	u64 handle, state = 0, nmi_exits;
	s64 error = create(0, VIEW_PAGES, &handle) ?: map(handle, 0, pfn, 1);

	if (error || !command(how)) {
		tap_check(out, false, "setup: a VM, and a CPU without its APIC (%lld)", error);
		return error ?: -EIO;
	}
	nmi_exits = exits_of_others(EXIT_NMI);
	error = finish(HYPERPS_CALL_VM_SYNC, handle);
	nmi_exits = exits_of_others(EXIT_NMI) - nmi_exits;
	call(HYPERPS_CALL_FRAME_QUERY, handle, pfn, 0, 0, &state);
	tap_check(out,
		  error == HYPERPS_ERROR_AGAIN ? state == HYPERPS_FRAME_TO_VM
					       : !globally && !error && nmi_exits >= num_present_cpus() - 1,
		  "VM_SYNC while its APIC is off%s does not pass without its flush (%lld; frame %llu; %llu NMIs)",
		  globally ? " by IA32_APIC_BASE" : "", error, state, nmi_exits);
	error = command(COMMAND_APIC_ON) ? finish(HYPERPS_CALL_VM_SYNC, handle) : -EIO;
	return error ?: finish(HYPERPS_CALL_VM_DESTROY, handle) ?: finish(HYPERPS_CALL_VM_RECLAIM, handle);
}

static void check_apic_off(struct seq_file *out)
{
	struct page *page = alloc_page(GFP_KERNEL);
	u64 handle;
	s64 error, after;

	if (num_present_cpus() < 2 || is_x2apic() || !page) {
		tap_check(out, true, "a flush while a CPU's APIC is off # SKIP one CPU only, or x2APIC mode");
		return;
	}
	memset(seen, 0, sizeof(*seen));
	if (remove_cpu(1)) {
		tap_check(out, false, "setup: taking CPU 1 offline");
		return;
	}
	mdelay(20);
	start(0, per_cpu(x86_cpu_to_apicid, 1));
	error = reach(&seen->done, 1) ? create(0, VIEW_PAGES, &handle) : -EIO;
	error = error ?: map(handle, 0, page_to_pfn(page), 1) ?: finish(HYPERPS_CALL_VM_SYNC, handle);
	tap_check(out, !error, "positive control: VM_SYNC while CPU 1 runs the attacker's code (%lld)", error);
	after = error ?: finish(HYPERPS_CALL_VM_DESTROY, handle) ?: finish(HYPERPS_CALL_VM_RECLAIM, handle);
	after = after ?: sync_without_apic(out, page_to_pfn(page), COMMAND_APIC_OFF);
	after = after ?: sync_without_apic(out, page_to_pfn(page), COMMAND_APIC_GLOBALLY_OFF);
	error = start_cpu(1);
	tap_check(out, !error && !after, "the VMs end, and CPU 1 is Linux's again (%lld, %lld)", after, error);
	if (!after)
		__free_page(page);
}

/* The machine ends by a reset of CPU 1, whose APIC is off. Comes back only if that fails. */
static void reset_without_apic(struct seq_file *out)
{
	if (!remove_cpu(1)) {
		mdelay(20);
		start(0, per_cpu(x86_cpu_to_apicid, 1));
		if (reach(&seen->done, 1) && command(COMMAND_APIC_GLOBALLY_OFF))
			command(COMMAND_RESET);
	}
	tap_check(out, false, "a reset by a CPU without its APIC");
}

/* The machine ends by a reset of the boot CPU, which CPU 1, where this runs, has taken from Linux. It is in VMX as before. */
static void reset_by_boot_cpu(struct seq_file *out)
{
	unsigned long flags;
	int tries;

	local_irq_save(flags);
	if (smp_processor_id() == 1) {
		/* The emulator loses an INIT that comes while the CPU is in VMX root, on behalf of a guest, say. */
		for (tries = 0; tries < 20 && !READ_ONCE(seen->done); tries++) {
			start(0, per_cpu(x86_cpu_to_apicid, 0));
			mdelay(50);
		}
		if (seen->done == 1 && !seen->vmx && seen->answers == 1 && seen->ud[STUB_MODES - 1] == 1)
			command(COMMAND_RESET);
	}
	local_irq_restore(flags);
	tap_check(out, false, "a reset by the boot CPU (%u runs, %u answers)", seen->runs, seen->answers);
}

struct disturbed {
	u64 handle;
	s64 error;
	u32 id, high;
};

/* All others stand still, with interrupts off: what they would send to this CPU would get lost. */
static int with_disturbed_apic(void *data)
{
	u32 id = local_apic_read(APIC_ID), high = local_apic_read(APIC_ICR2);
	struct disturbed *got = data;
	u64 left;

	local_apic_write(APIC_ID, id ^ 0x70 << 24);
	local_apic_write(APIC_ICR2, 0x5a << 24);
	got->id = (local_apic_read(APIC_ID) ^ id) >> 24;
	do
		got->error = call(HYPERPS_CALL_VM_SYNC, got->handle, 0, 0, 0, &left);
	while (!got->error && left);
	got->high = local_apic_read(APIC_ICR2) >> 24;
	local_apic_write(APIC_ID, id);
	local_apic_write(APIC_ICR2, high);
	return 0;
}

/* A flush from a CPU that has another APIC ID, and is between the two halves of a command of its own. */
static void check_disturbed(struct seq_file *out)
{
	struct page *page = alloc_page(GFP_KERNEL);
	struct disturbed got = { .error = -EIO };
	u64 state = 0;
	s64 error;

	if (is_x2apic() || !page) {
		tap_check(out, true, "a flush under another APIC ID # SKIP x2APIC mode: neither can be written");
		return;
	}
	error = create(0, VIEW_PAGES, &got.handle) ?: map(got.handle, 0, page_to_pfn(page), 1);
	error = error ?: stop_machine(with_disturbed_apic, &got, cpumask_of(raw_smp_processor_id()));
	call(HYPERPS_CALL_FRAME_QUERY, got.handle, page_to_pfn(page), 0, 0, &state);
	tap_check(out, !error && !got.error && state == HYPERPS_FRAME_PRIVATE && !cpus_with_access(page_address(page)),
		  "VM_SYNC with another APIC ID (by %#x) flushes all CPUs (%lld, %lld; frame %llu)", got.id, error,
		  got.error, state);
	tap_check(out, got.high == 0x5a, "and leaves the upper half of the host's own command alone (%#x)", got.high);
	error = finish(HYPERPS_CALL_VM_DESTROY, got.handle) ?: finish(HYPERPS_CALL_VM_RECLAIM, got.handle);
	tap_check(out, !error, "the VM ends (%lld)", error);
	if (!error)
		__free_page(page);
}

static int show_escape(struct seq_file *out, void *unused)
{
	int error;

	if (!prepare_stub()) {
		tap_check(out, false, "setup: a page below 1 MiB");
		remove_stub();
		return 0;
	}
	if (part("cpus") || part("modes"))
		check_others(out);
	if (part("cpus")) {
		check_sending(out);
		check_unlisted(out);
	}
	error = start_others();
	tap_check(out, !error && num_online_cpus() == num_present_cpus(), "all CPUs are Linux's again (%d)", error);
	if (part("cpus"))
		check_running(out);
	if (part("apic")) {
		check_apic_off(out);
		check_disturbed(out);
	}
	if (!strcmp(parts, "reset"))
		reset_without_apic(out);
	if (!strcmp(parts, "boot_cpu"))
		reset_by_boot_cpu(out);
	remove_stub();
	return 0;
}

TAP_MODULE("escape", show_escape, "Starts CPUs on code of its own");
