// SPDX-License-Identifier: GPL-2.0
/*
 * NMI, flush and INIT at every instruction of a call through the gate. Two CPUs agree on a tick; one makes the call
 * then, the other sends the event so many ticks earlier or later. In the emulator all CPUs execute one instruction in a
 * tick, if each looks for events after each instruction, as they do while a DMA request waits. That this is so is
 * checked, too: the interrupted addresses must be those of the gate page's instructions, each of them, in their order.
 */
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/vmalloc.h>
#include <asm/desc.h>
#include <asm/dma.h>
#include <asm/irq_vectors.h>
#include <asm/msr.h>
#include <asm/nmi.h>
#include <asm/special_insns.h>
#include <asm/trapnr.h>

#include "calls.h"
#include "compat.h"
#include "gate.h"
#include "gate_sweep.h"

#define AHEAD 1500 /* ticks from an agreement to its moment */
#define POINTS 320 /* moments that are tried, one tick apart */
#define AFTER 1500 /* ticks in which a second event would have come */
#define PATIENCE 1000000
#define AIRLOCK_INSTRUCTIONS 10
#define EXIT_NMI 0
#define EXIT_INIT 3
#define EXIT_CR 28
#define GPA 0x200000ULL

extern const u8 hyperps_gate_page[], sweep_start[], sweep_start_end[], sweep_start_cr3[], sweep_start_cr4[],
	sweep_start_stack[], sweep_start_entry[], sweep_run[], sweep_trap[];
struct gate_result sweep_nothing(u64, u64, u64, u64, u64, u64);

/* The gate page's instructions in the order of a call, by their offset from RETRY and from RETURN: gate_page.S. */
static const s8 way_in[] = { -25, -24, -23, -22, -21, -18, -17, -14, -7, -6, -3, 0, 2, 5 };
static const s8 way_back[] = { 0, 1, 4, 5, 8, 9, 12, 15, 16, 17 };

struct point {
	u64 rip; /* that the first NMI's handler saw */
	u64 exits, cr_exits; /* for the event; for loads of CR3 */
	u64 value, first, second; /* ticks: the first NMI arrived, the second was sent */
	s64 status;
	int arrived;
	bool entered, done;
};

static struct {
	struct point *points;
	struct point *point; /* the one under way */
	u64 moment, lead, delay; /* of the call and of the event: ticks behind the moment */
	u64 gap, ticks;
	bool flush; /* the event is no NMI, but a VM_SYNC of this VM */
	u64 handle;
	int wanted, ready, sent, target, monitor_instructions;
	bool failed;
} sweep;

struct sweep_cpu sweep_cpu;
struct desc_ptr sweep_idtr;

/*
 * A request of a DMA channel that nobody uses, masked before it is served. While it waits, a CPU that has had an event
 * since its last VM exit looks for others after each instruction.
 */
static void single_instructions(bool on)
{
	if (!on) {
		outb(1, DMA2_REQ_REG);
		return;
	}
	/* Channel 5, which is 1 of the second controller: from memory to a device, so many units that it does not end. */
	outb(0, DMA2_CLEAR_FF_REG);
	outb(0xff, IO_DMA2_BASE + 6);
	outb(0xff, IO_DMA2_BASE + 6);
	outb(8 | 1, DMA2_MODE_REG);
	outb(1, DMA2_MASK_REG);
	outb(4 | 1, DMA2_REQ_REG);
	outb(4 | 1, DMA2_MASK_REG);
}

static __always_inline void wait_ticks(u64 ticks)
{
	asm volatile("1: loop 1b" : "+c"(ticks));
}

static __always_inline void wait_until(u64 tick)
{
	wait_ticks(tick - rdtsc());
}

static u64 exits(unsigned int apic_id, unsigned int reason)
{
	u64 slot;

	for (slot = 0; read_word(HYPERPS_OBJECT_EXITS | slot << 32, 0) != apic_id; slot++)
		if (slot == NR_CPUS)
			return 0;
	return read_word(HYPERPS_OBJECT_EXITS | slot << 32, offsetof(struct hyperps_exits, reason[reason]));
}

static void send(u32 command, int apic_id)
{
	apic->icr_write(command, apic_id);
}

static void have_event(void)
{
	send(APIC_DEST_SELF | APIC_DM_FIXED | RESCHEDULE_VECTOR, 0);
	udelay(1);
}

static int on_nmi(unsigned int type, struct pt_regs *regs)
{
	struct point *point = READ_ONCE(sweep.point);

	if (!point || raw_smp_processor_id() != sweep.target)
		return NMI_DONE;
	if (!point->arrived++) {
		point->rip = regs->ip;
		point->first = rdtsc();
	}
	return NMI_HANDLED;
}

static int send_events(void *unused)
{
	int apic_id = per_cpu(x86_cpu_to_apicid, sweep.target), number;

	for (number = 1; !kthread_should_stop(); number++) {
		while (READ_ONCE(sweep.wanted) != number && !kthread_should_stop())
			cond_resched();
		if (kthread_should_stop())
			break;
		have_event();
		local_irq_disable();
		WRITE_ONCE(sweep.ready, number);
		while (!READ_ONCE(sweep.moment))
			;
		wait_until(sweep.moment + sweep.delay);
		if (sweep.flush)
			sweep.failed |= !!call(HYPERPS_CALL_VM_SYNC, sweep.handle, 0, 0, 0, NULL);
		else
			send(APIC_DM_NMI, apic_id);
		if (sweep.gap) {
			wait_ticks(sweep.gap);
			sweep.point->second = rdtsc();
			send(APIC_DM_NMI, apic_id);
		}
		WRITE_ONCE(sweep.sent, number);
		local_irq_enable();
	}
	return 0;
}

/* How many instructions more than nothing a call takes, while the other CPU executes one in each tick, too. */
static u64 ticks_of(u64 call_number, const u64 *argument)
{
	typeof(&hyperps_gate_enter) volatile enter[] = { hyperps_gate_enter, sweep_nothing };
	u64 cr3 = hyperps_gate_cr3(), start, ticks[2];
	int i;

	for (i = 0; i < 2; i++) {
		start = rdtsc();
		enter[i](argument[0], argument[1], argument[2], cr3, argument[3], call_number);
		ticks[i] = rdtsc() - start;
	}
	return ticks[0] - ticks[1];
}

/* One call while the other CPU sends its event. */
static void take_event(struct point *point, u64 call_number, const u64 *argument)
{
	int apic_id = per_cpu(x86_cpu_to_apicid, sweep.target), waited, number = sweep.wanted + 1;
	u64 cr3 = hyperps_gate_cr3();
	struct gate_result result;

	sweep.point = point;
	sweep.moment = 0;
	point->exits = exits(apic_id, EXIT_NMI);
	point->cr_exits = exits(apic_id, EXIT_CR);
	WRITE_ONCE(sweep.wanted, number);
	for (waited = 0; READ_ONCE(sweep.ready) != number && waited < PATIENCE; waited++)
		udelay(1);
	have_event();
	local_irq_disable();
	if (call_number == HYPERPS_CALL_IDENTIFY)
		sweep.ticks = ticks_of(call_number, argument);
	WRITE_ONCE(sweep.moment, rdtsc() + AHEAD);
	wait_until(sweep.moment + sweep.lead);
	result = hyperps_gate_enter(argument[0], argument[1], argument[2], cr3, argument[3], call_number);
	for (waited = 0; READ_ONCE(sweep.sent) != number && waited < PATIENCE; waited++)
		;
	wait_ticks(AFTER);
	local_irq_enable();
	point->status = result.status;
	point->value = result.value;
	point->exits = exits(apic_id, EXIT_NMI) - point->exits;
	point->cr_exits = exits(apic_id, EXIT_CR) - point->cr_exits;
}

struct found {
	int in, airlock, monitor, back; /* points in a row */
};

/* The points in a row at which the host's own instructions were interrupted, as in the table. */
static int count_way(int from, u64 linear, const s8 *offsets, int count)
{
	int i;

	for (i = 0; i < count && from + i < POINTS; i++)
		if (sweep.points[from + i].rip != linear + offsets[i] || sweep.points[from + i].cr_exits)
			break;
	return i;
}

static struct found find_parts(void)
{
	u64 retry = (u64)hyperps_gate_page + HYPERPS_GATE_RETRY, back = (u64)hyperps_gate_page + HYPERPS_GATE_RETURN;
	struct found found = {};
	int i = 0;

	while (i < POINTS && sweep.points[i].rip != retry + way_in[0])
		i++;
	found.in = count_way(i, retry, way_in, ARRAY_SIZE(way_in));
	i += found.in;
	for (; i < POINTS && sweep.points[i].rip == retry && !sweep.points[i].cr_exits; i++)
		found.airlock++;
	/* Delivered where the host loads its own CR3. */
	for (; i < POINTS && sweep.points[i].rip == back + way_back[1] && sweep.points[i].cr_exits == 1; i++)
		found.monitor++;
	found.back = count_way(i, back, way_back, ARRAY_SIZE(way_back));
	return found;
}

/* VM_DECLARE changes something: done twice it would be refused, or leave two ranges. */
static s64 declared_once(u64 handle)
{
	return read_word(HYPERPS_OBJECT_VM | (u64)(u32)handle << 32, offsetof(struct hyperps_vm, ranges)) == 1 ? 0
													       : -EIO;
}

static struct task_struct *start_events(u64 gap, bool flush)
{
	struct task_struct *task = kthread_create(send_events, NULL, "gate_sweep");

	memset(sweep.points, 0, POINTS * sizeof(*sweep.points));
	sweep.wanted = sweep.ready = sweep.sent = 0;
	sweep.lead = SWEEP_LEAD;
	sweep.gap = gap;
	sweep.flush = flush;
	if (IS_ERR(task))
		return NULL;
	kthread_bind(task, cpumask_last(cpu_online_mask));
	wake_up_process(task);
	return task;
}

/* All moments, with the second NMI so many ticks later, or without. Returns how many calls went wrong. */
static int try_all(u64 call_number, u64 expected, u64 gap)
{
	struct task_struct *task = start_events(gap, false);
	u64 argument[4] = {};
	int number, wrong = 0;

	if (!task)
		return POINTS;
	for (number = 0; number < POINTS; number++) {
		struct point *point = &sweep.points[number];
		u64 handle = 0;

		if (call_number == HYPERPS_CALL_VM_DECLARE) {
			wrong += !!call(HYPERPS_CALL_VM_CREATE, 0, 0, 0, 0, &handle);
			argument[0] = handle;
			argument[1] = GPA | READ_WRITE_EXECUTE;
			argument[2] = 1;
		}
		sweep.delay = number + 1;
		take_event(point, call_number, argument);
		wrong += point->status || point->value != expected;
		if (call_number == HYPERPS_CALL_VM_DECLARE)
			wrong += declared_once(handle) || finish(HYPERPS_CALL_VM_DESTROY, handle) ||
				 finish(HYPERPS_CALL_VM_RECLAIM, handle);
	}
	kthread_stop(task);
	return wrong;
}

static void sweep_nmi(struct seq_file *out, u64 call_number, const char *name, u64 expected)
{
	int number, wrong = try_all(call_number, expected, 0), once = 0;
	struct found found = find_parts();

	for (number = 0; number < POINTS; number++)
		once += sweep.points[number].arrived == 1 && sweep.points[number].exits == 1;
	tap_check(out, !wrong && once == POINTS, "%s, an NMI at each of %d ticks: %d arrived once, %d results wrong",
		  name, POINTS, once, wrong);
	tap_check(out, found.in == ARRAY_SIZE(way_in) && found.back == ARRAY_SIZE(way_back),
		  "%s: before each of the host's instructions: %d on the way in, %d back", name, found.in, found.back);
	tap_check(out, found.airlock == AIRLOCK_INSTRUCTIONS, "%s: before each of the airlock's: %d", name,
		  found.airlock);
	if (call_number == HYPERPS_CALL_IDENTIFY) {
		sweep.monitor_instructions = found.monitor;
		/* The comparison has a RET, too. */
		number = found.in + found.airlock + found.monitor + found.back - 1;
		tap_check(out, sweep.ticks == number, "%s: before each of a call's instructions: %d of %llu", name,
			  number + 1, sweep.ticks + 1);
	}
	tap_check(out, found.monitor > 0, "%s: %d of these in the monitor view", name, found.monitor);
}

/* One may wait while the other is handled, and none is lost that was sent after the handler had begun. */
static void sweep_two_nmis(struct seq_file *out)
{
	static const u16 gaps[] = { 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987 };
	int number, i, wrong = 0, lost = 0, both = 0, more = 0;

	for (i = 0; i < ARRAY_SIZE(gaps); i++) {
		wrong += try_all(HYPERPS_CALL_IDENTIFY, HYPERPS_SIGNATURE, gaps[i]);
		for (number = 0; number < POINTS; number++) {
			struct point *point = &sweep.points[number];

			both += point->arrived == 2;
			more += point->arrived > 2;
			lost += !point->arrived || (point->arrived == 1 && point->second > point->first);
		}
	}
	tap_check(out, !wrong && !lost && !more && both,
		  "two NMIs, up to %d ticks apart: %d times both arrived, %d lost, %d too many, %d results wrong",
		  gaps[i - 1], both, lost, more, wrong);
}

/* A call while the other CPU has all CPUs flush, with a VM that waits for that. Returns whether all went well. */
static bool take_flush(struct point *point, u64 frame)
{
	static const u64 none[4];
	bool good = !create(GPA, 1, &sweep.handle) && !map(sweep.handle, GPA, frame, 1);

	point->arrived = 0;
	take_event(point, HYPERPS_CALL_IDENTIFY, none);
	return good && !finish(HYPERPS_CALL_VM_DESTROY, sweep.handle) &&
	       !finish(HYPERPS_CALL_VM_RECLAIM, sweep.handle) && !point->status && point->value == HYPERPS_SIGNATURE &&
	       !point->arrived && point->exits == 1;
}

/* The monitor's own NMI. What the other CPU does before it sends it takes its time: that is found out first. */
static void sweep_flush(struct seq_file *out)
{
	struct task_struct *task = start_events(0, true);
	u64 frame = page_to_pfn(alloc_page(GFP_KERNEL));
	struct point *point = sweep.points;
	int number, good = 0, monitor = 0;

	if (!task)
		return;
	sweep.delay = POINTS / 2;
	for (sweep.lead = 0; sweep.lead < 20000 && !point->cr_exits; sweep.lead += 20)
		take_flush(point, frame);
	for (number = 0; number < POINTS; number++) {
		sweep.delay = number + 1;
		good += take_flush(&sweep.points[number], frame);
		monitor += sweep.points[number].cr_exits == 1;
	}
	kthread_stop(task);
	tap_check(out, good == POINTS && monitor == sweep.monitor_instructions && !sweep.failed,
		  "a flush of all CPUs at each of %d ticks, %d of them in the monitor view: %d answered, the host saw "
		  "none",
		  POINTS, monitor, good);
	__free_page(pfn_to_page(frame));
}

static bool wait_for_cpu(u64 ready)
{
	int waited;

	for (waited = 0; READ_ONCE(sweep_cpu.ready) != ready && waited < PATIENCE; waited++)
		udelay(1);
	return READ_ONCE(sweep_cpu.ready) == ready && !sweep_cpu.error;
}

/* INIT on the CPU's way through the gate, then SIPI. Returns whether the CPU came back, once. */
static bool take_init(int number, int apic_id)
{
	struct point *point = &sweep.points[number - 1];
	u64 ready = sweep_cpu.ready;
	unsigned long flags;

	sweep_cpu.entered = sweep_cpu.done = sweep_cpu.value = 0;
	point->exits = exits(apic_id, EXIT_INIT);
	point->cr_exits = exits(apic_id, EXIT_CR);
	have_event();
	local_irq_save(flags);
	WRITE_ONCE(sweep_cpu.moment, rdtsc() + AHEAD);
	wait_until(sweep_cpu.moment + number);
	send(APIC_DM_INIT | APIC_INT_ASSERT, apic_id);
	wait_ticks(AFTER);
	local_irq_restore(flags);
	point->exits = exits(apic_id, EXIT_INIT) - point->exits;
	point->cr_exits = exits(apic_id, EXIT_CR) - point->cr_exits;
	point->entered = sweep_cpu.entered;
	point->done = sweep_cpu.done;
	point->status = sweep_cpu.status;
	point->value = sweep_cpu.value;
	sweep_cpu.moment = 0;
	send(APIC_DM_STARTUP | SWEEP_PAGE >> PAGE_SHIFT, apic_id);
	return wait_for_cpu(ready + 1);
}

static void count_inits(struct seq_file *out, int tried)
{
	int i = 0, before = 0, monitor = 0, back = 0, wrong = 0, once = 0;

	while (i < tried && !sweep.points[i].entered)
		i++;
	for (; i < tried && !sweep.points[i].cr_exits && !sweep.points[i].done; i++)
		before++;
	for (; i < tried && sweep.points[i].cr_exits == 1 && !sweep.points[i].done; i++)
		monitor++;
	for (; i < tried && !sweep.points[i].cr_exits && !sweep.points[i].done; i++)
		back++;
	for (; i < tried; i++)
		wrong += !sweep.points[i].done || sweep.points[i].status || sweep.points[i].value != HYPERPS_SIGNATURE;
	for (i = 0; i < tried; i++)
		once += sweep.points[i].exits == 1;
	tap_check(out, tried == POINTS && once == tried && !wrong,
		  "an INIT at each of %d ticks: the CPU came back by SIPI after %d, %d of them came once, %d results "
		  "wrong",
		  POINTS, tried, once, wrong);
	/* The CALL is one of them; and behind the gate it stores what came of it. */
	tap_check(out,
		  before == 1 + ARRAY_SIZE(way_in) + AIRLOCK_INSTRUCTIONS && monitor == sweep.monitor_instructions &&
			  back == ARRAY_SIZE(way_back) + 3,
		  "before each of a call's instructions: %d, then %d in the monitor view, then %d", before, monitor,
		  back);
}

static u64 *new_table(gfp_t flags)
{
	return (u64 *)get_zeroed_page(GFP_KERNEL | flags);
}

/* The CPU's page tables: the kernel's half, and SWEEP_PAGE at its own address. */
static u64 *build_tables(void)
{
	u64 *tables[4];
	int i;

	for (i = 0; i < 4; i++) {
		tables[i] = new_table(GFP_DMA32);
		if (!tables[i])
			return NULL;
		if (i)
			tables[i - 1][0] = virt_to_phys(tables[i]) | _KERNPG_TABLE;
	}
	memcpy(tables[0] + 256, (u64 *)__va(read_cr3_pa()) + 256, 256 * sizeof(u64));
	tables[3][SWEEP_PAGE >> PAGE_SHIFT] = SWEEP_PAGE | _KERNPG_TABLE;
	return tables[0];
}

static void put(u8 *page, const u8 *where, u64 value)
{
	memcpy(page + (where - sweep_start), &value, sizeof(value));
}

static void sweep_init(struct seq_file *out)
{
	u8 *page = memremap(SWEEP_PAGE, PAGE_SIZE, MEMREMAP_WB), *saved = (u8 *)new_table(0);
	int cpu = cpumask_last(cpu_online_mask), apic_id = per_cpu(x86_cpu_to_apicid, cpu), tried = 0, error;
	u64 *tables = build_tables(), *stack = new_table(0);
	gate_desc *idt = (gate_desc *)new_table(0);

	if (!page || !saved || !tables || !stack || !idt || remove_cpu(cpu)) {
		tap_check(out, false, "memory, and CPU %d offline", cpu);
		return;
	}
	memcpy(saved, page, PAGE_SIZE);
	memcpy(page, sweep_start, sweep_start_end - sweep_start);
	put(page, sweep_start_cr3, virt_to_phys(tables));
	put(page, sweep_start_cr4,
	    __read_cr4() & (X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PCIDE | X86_CR4_SMEP | X86_CR4_SMAP));
	put(page, sweep_start_stack, (u64)stack + PAGE_SIZE);
	put(page, sweep_start_entry, (u64)sweep_run);
	pack_gate(&idt[X86_TRAP_DB], GATE_INTERRUPT, (u64)sweep_trap, 0, 0, __KERNEL_CS);
	sweep_idtr = (struct desc_ptr){ PAGE_SIZE - 1, (u64)idt };
	sweep_cpu = (struct sweep_cpu){ .top = hyperps_gate_cr3() & PAGE_MASK,
					.set_number = HYPERPS_CALL_GATE_SET,
					.call_number = HYPERPS_CALL_IDENTIFY };
	mdelay(20);
	memset(sweep.points, 0, POINTS * sizeof(*sweep.points));
	send(APIC_DM_INIT | APIC_INT_ASSERT, apic_id);
	mdelay(1);
	send(APIC_DM_STARTUP | SWEEP_PAGE >> PAGE_SHIFT, apic_id);
	if (wait_for_cpu(1))
		while (tried < POINTS && take_init(tried + 1, apic_id))
			tried++;
	count_inits(out, tried);
	send(APIC_DM_INIT | APIC_INT_ASSERT, apic_id);
	mdelay(1);
	error = start_cpu(cpu);
	tap_check(out, !error && cpu_online(cpu), "then CPU %d works as before (%d)", cpu, error);
	memcpy(page, saved, PAGE_SIZE);
	memunmap(page);
}

void check_sweeps(struct seq_file *out)
{
	if (num_online_cpus() != 2) {
		tap_check(out, true, "events at each instruction # SKIP only with two CPUs");
		return;
	}
	sweep.target = raw_smp_processor_id();
	sweep.points = vzalloc(POINTS * sizeof(*sweep.points));
	if (!sweep.points || register_nmi_handler(NMI_LOCAL, on_nmi, 0, "gate_sweep"))
		return;
	single_instructions(true);
	sweep_nmi(out, HYPERPS_CALL_IDENTIFY, "IDENTIFY", HYPERPS_SIGNATURE);
	sweep_nmi(out, HYPERPS_CALL_VM_DECLARE, "VM_DECLARE", 1);
	sweep_two_nmis(out);
	sweep_flush(out);
	sweep.point = NULL;
	sweep_init(out);
	single_instructions(false);
	unregister_nmi_handler(NMI_LOCAL, "gate_sweep");
	vfree(sweep.points);
	sweep.points = NULL;
}
