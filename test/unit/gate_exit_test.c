// SPDX-License-Identifier: MIT
/*
 * NMI, INIT, machine check and the monitor's own NMI for a flush, at every moment of a call through the gate: before each
 * instruction, and in root before each access to the VMCS. What root does is its own code, on a VMCS that is an array;
 * what a CPU does is modelled here after the SDM ("Event Injection", "VMX Non-Root Operation", "VM Exits").
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "choose_capabilities.h"
#include "emulate.h"
#include "event.h"
#include "gate_view.h"
#include "host_cpu.h"
#include "monitor.h"
#include "stop.h"
#include "../../base/flush.c"

bool exit_dispatch(struct registers *regs);
void latch_event(u64 vector);

const u64 exception_fixups[2], exception_fixups_end[2], exception_entries[32];
u32 gate_state;

enum event_type { NMI, INIT, MACHINE_CHECK, KICK, ENTRY_CHECK, BROKEN_INTERRUPT, TYPES };
static const char *const type_names[] = { "NMI", "INIT", "#MC", "flush", "#MC in VM entry", "interrupt with #MC" };

struct event {
	enum event_type type;
	unsigned time;
};

/* The instructions of a call that matter, in the order of their addresses; RETRY is at HYPERPS_GATE_RETRY. */
enum step {
	BEFORE,
	LOAD_GATE_CR3,
	RETRY,
	ENTER, /* VMFUNC: airlock */
	FILL,
	LOAD_CR3_IN_AIRLOCK,
	OPEN, /* VMFUNC: monitor view */
	LANDING,
	SERVE,
	LEAVE, /* VMFUNC: host view */
	BACK,
	LOAD_OWN_CR3,
	AFTER,
	END,
};

#define GATE 0xffffffff80000000ULL
#define HOST_EPTP 0x1000
#define AIRLOCK_EPTP 0x2000
#define MONITOR_EPTP 0x3000
#define PRIMARY (PRIMARY_SECONDARY_CONTROLS | PRIMARY_USE_MSR_BITMAPS)
#define HANDLER_STEPS 3 /* instructions of the host's NMI handler, with its IRET */
#define SIPI_STEPS 3
#define QUIET_STEPS 40
#define MOST_STEPS 400

struct monitor monitor;
static struct cpu_area area;
static u64 vmcs[0x7000];
static const struct event *events;
static unsigned event_count, now, sipi_after, in_handler;
static bool in_root, nmi_blocked_in_root, nmi_pending, init_pending, check_pending, entry_check, interrupt_pending;
static bool forgets; /* positive control: root forgets what is latched */
static bool without_mce, cleared; /* the host's CR4.MCE is 0; memory has been cleared */
static jmp_buf end_of_machine;
static const char *broken; /* what is wrong with this run */

static struct {
	unsigned sent[TYPES], merged_kicks;
	unsigned nmis, checks, interrupts, resets, landings, serves;
	unsigned end; /* time */
	bool nmi_after_handler; /* one was sent after the first handler had begun */
} count;

static void complain(const char *what)
{
	if (!broken)
		broken = what;
}

void *read_gs_0(void)
{
	return &area.cpu;
}

void log_line(enum log_level level, const char *format, ...)
{
	(void)level;
	complain(format);
}

void log_refusal(enum refusal kind, const char *format, ...)
{
	(void)kind;
	complain(format);
}

void stop_if_asked(void)
{
}

void stop_other_cpus(void)
{
}

void clear_memory(const char *why)
{
	(void)why;
	cleared = true;
}

void reset_machine(void)
{
	longjmp(end_of_machine, 1);
}

void panic_stop(void)
{
	fail_msg("panic: %s", broken);
	abort();
}

bool xsetbv_checked(u32 number, u64 value)
{
	return !number && value;
}

/* As in service/gate_view.c. */
void gate_reset_list(struct cpu *cpu)
{
	memset(area.gate.list, 0, sizeof(area.gate.list));
	area.gate.list[0] = HOST_EPTP;
	area.gate.list[1] = cpu->gate.airlock_eptp;
}

void host_load_sipi_state(u64 vector, u64 cr0_kept)
{
	(void)vector;
	(void)cr0_kept;
	vmwrite(VMCS_GUEST_INTERRUPTIBILITY, 0);
	vmwrite(VMCS_ENTRY_INTERRUPTION_INFO, 0);
}

/* SDM, "Non-Maskable Interrupts": one is remembered while they are blocked. */
static void take_nmi_in_root(void)
{
	while (nmi_pending && !nmi_blocked_in_root) {
		nmi_pending = false;
		nmi_blocked_in_root = true;
		latch_event(VECTOR_NMI);
		nmi_blocked_in_root = false;
	}
}

void unblock_nmi(void)
{
	nmi_blocked_in_root = false;
	take_nmi_in_root();
}

static void arrive(enum event_type type)
{
	/* The monitor sends one at a time. Of the others one waits at most. */
	if ((type == KICK && area.cpu.kicked) || (type == ENTRY_CHECK && entry_check) ||
	    (type == BROKEN_INTERRUPT && interrupt_pending))
		return;
	count.sent[type]++;
	switch (type) {
	case KICK:
		requested++;
		area.cpu.kicked = true;
		count.merged_kicks += nmi_pending;
		nmi_pending = true;
		break;
	case NMI:
		count.merged_kicks += nmi_pending && area.cpu.kicked;
		count.nmi_after_handler |= count.nmis != 0;
		nmi_pending = true;
		break;
	case INIT:
		init_pending = true;
		break;
	case ENTRY_CHECK:
		entry_check = true;
		break;
	case BROKEN_INTERRUPT:
		interrupt_pending = true;
		break;
	default:
		if (in_root)
			latch_event(VECTOR_MC);
		else
			check_pending = true;
	}
	if (in_root)
		take_nmi_in_root();
}

static void tick(void)
{
	now++;
	for (unsigned i = 0; i < event_count; i++)
		if (events[i].time == now)
			arrive(events[i].type);
}

u64 vmread(vmcs_field_t field)
{
	tick();
	return vmcs[field.encoding];
}

void vmwrite(vmcs_field_t field, u64 value)
{
	tick();
	vmcs[field.encoding] = value;
}

static u64 *field(vmcs_field_t field)
{
	return &vmcs[field.encoding];
}

static enum step step_now(void)
{
	return (enum step)(*field(VMCS_GUEST_RIP) - GATE - HYPERPS_GATE_RETRY + RETRY);
}

static void set_step(enum step step)
{
	*field(VMCS_GUEST_RIP) = GATE + HYPERPS_GATE_RETRY + step - RETRY;
}

static void enter_root(u64 reason)
{
	static struct registers regs;

	in_root = true;
	*field(VMCS_EXIT_REASON) = reason;
	assert_false(exit_dispatch(&regs));
	tick();
	if (forgets)
		area.cpu.latched = 0;
	if (nmi_blocked_in_root)
		complain("NMIs stay blocked in root, for a hypervisor below that goes on with it");
	in_root = nmi_blocked_in_root = false;
	if (*field(VMCS_EPTP) == HOST_EPTP && area.gate.list[2])
		complain("slot 2 is filled in the host view");
	/* SDM, "Checks on Guest Non-Register State". */
	if (*field(VMCS_GUEST_ACTIVITY_STATE) == ACTIVITY_WAIT_FOR_SIPI &&
	    (*field(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VALID))
		complain("an event is injected into a CPU that waits for a SIPI");
	/* SDM, "VM-Entry Failures": neither the fields for an event to inject nor those of the guest's state change. */
	if (entry_check) {
		entry_check = false;
		enter_root(EXIT_REASON_ENTRY_FAILURE | EXIT_ENTRY_FAILED_MACHINE_CHECK);
	}
}

static void vm_exit(u64 reason, u64 information, u64 vectoring)
{
	*field(VMCS_ENTRY_INTERRUPTION_INFO) &= ~EVENT_VALID;
	*field(VMCS_EXIT_INTERRUPTION_INFO) = information;
	*field(VMCS_IDT_VECTORING_INFO) = vectoring;
	nmi_blocked_in_root = reason == EXIT_EXCEPTION_OR_NMI && (information & EVENT_TYPE) == EVENT_TYPE_NMI;
	enter_root(reason);
}

static void machine_check_exit(u64 vectoring)
{
	check_pending = false;
	vm_exit(EXIT_EXCEPTION_OR_NMI, EVENT_VALID | EVENT_TYPE_EXCEPTION | VECTOR_MC, vectoring);
}

/* The event that VM entry injects. Returns whether there was one. */
static bool deliver_injected(void)
{
	u64 *information = field(VMCS_ENTRY_INTERRUPTION_INFO), event = *information;

	if (!(event & EVENT_VALID))
		return false;
	if (*field(VMCS_EPTP) != HOST_EPTP)
		complain("injected outside the host view");
	if ((event & EVENT_TYPE) == EVENT_TYPE_NMI) {
		if (*field(VMCS_GUEST_INTERRUPTIBILITY) & INTERRUPTIBILITY_NMI)
			complain("an NMI in the handler of another");
		*field(VMCS_GUEST_INTERRUPTIBILITY) |= INTERRUPTIBILITY_NMI;
	}
	if (check_pending && (*field(VMCS_EXCEPTION_BITMAP) & BIT(VECTOR_MC))) {
		machine_check_exit(event);
		return true;
	}
	*information = 0;
	if ((event & EVENT_TYPE) == EVENT_TYPE_NMI) {
		count.nmis++;
		in_handler = HANDLER_STEPS;
	} else if ((event & EVENT_VECTOR) == VECTOR_MC) {
		count.checks++;
	} else {
		count.interrupts++;
	}
	return true;
}

/* An event of this boundary between two instructions, if there is one, by priority. */
static bool take_event(void)
{
	u64 controls = *field(VMCS_PRIMARY_CONTROLS);
	bool blocked = *field(VMCS_GUEST_INTERRUPTIBILITY) & INTERRUPTIBILITY_NMI;

	if (check_pending && (*field(VMCS_EXCEPTION_BITMAP) & BIT(VECTOR_MC))) {
		machine_check_exit(0);
	} else if (check_pending) {
		check_pending = false;
		count.checks++;
	} else if (init_pending) {
		init_pending = false;
		vm_exit(EXIT_INIT, 0, 0);
	} else if ((controls & PRIMARY_NMI_WINDOW_EXITING) && !blocked) {
		vm_exit(EXIT_NMI_WINDOW, 0, 0);
	} else if (nmi_pending) {
		nmi_pending = false;
		vm_exit(EXIT_EXCEPTION_OR_NMI, EVENT_VALID | EVENT_TYPE_NMI | VECTOR_NMI, 0);
	} else if (interrupt_pending && area.cpu.gate.on && !in_handler &&
		   (step_now() == BEFORE || step_now() >= AFTER)) {
		interrupt_pending = false;
		machine_check_exit(EVENT_VALID | EVENT_TYPE_EXTERNAL | 0x30);
	} else {
		return false;
	}
	return true;
}

static void load_cr3(enum step step)
{
	if (*field(VMCS_PRIMARY_CONTROLS) & PRIMARY_CR3_LOAD_EXITING) {
		*field(VMCS_EXIT_QUALIFICATION) = 3; /* MOV to CR3 from RAX */
		vm_exit(EXIT_CR_ACCESS, 0, 0);
	} else {
		set_step(step + 1);
	}
}

static void switch_view(enum step step, u64 eptp)
{
	*field(VMCS_EPTP) = eptp;
	set_step(step + 1);
}

static void execute(void)
{
	enum step step = step_now();

	if (in_handler) {
		if (!--in_handler)
			*field(VMCS_GUEST_INTERRUPTIBILITY) &= ~INTERRUPTIBILITY_NMI;
		return;
	}
	switch (step) {
	case LOAD_GATE_CR3:
	case LOAD_CR3_IN_AIRLOCK:
	case LOAD_OWN_CR3:
		load_cr3(step);
		break;
	case ENTER:
		switch_view(step, AIRLOCK_EPTP);
		break;
	case FILL:
		area.gate.list[2] = MONITOR_EPTP;
		set_step(step + 1);
		break;
	case OPEN:
		if (area.gate.list[2] != MONITOR_EPTP)
			complain("slot 2 is empty at the VMFUNC");
		switch_view(step, MONITOR_EPTP);
		break;
	case LANDING:
		area.gate.list[2] = 0;
		count.landings++;
		set_step(step + 1);
		break;
	case SERVE:
		count.serves++;
		set_step(step + 1);
		break;
	case LEAVE:
		switch_view(step, HOST_EPTP);
		break;
	case END:
		break;
	default:
		set_step(step + 1);
	}
}

/* One instruction, or one event. */
static void run_step(void)
{
	tick();
	if (*field(VMCS_GUEST_ACTIVITY_STATE) == ACTIVITY_WAIT_FOR_SIPI) {
		if (sipi_after-- == 0) {
			in_handler = 0;
			count.resets++;
			*field(VMCS_EXIT_QUALIFICATION) = 8;
			vm_exit(EXIT_SIPI, 0, 0);
			set_step(END);
		}
		return;
	}
	sipi_after = SIPI_STEPS;
	if (!deliver_injected() && !take_event())
		execute();
}

static void check_end(void)
{
	unsigned checks = count.sent[MACHINE_CHECK] + count.sent[ENTRY_CHECK] + count.sent[BROKEN_INTERRUPT];
	unsigned nmis = count.sent[NMI];

	if (step_now() != END || *field(VMCS_GUEST_ACTIVITY_STATE) != ACTIVITY_ACTIVE)
		complain("the CPU does not come to the end");
	if (area.cpu.latched || (*field(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VALID) || nmi_pending || init_pending)
		complain("something waits for ever");
	if (*field(VMCS_EPTP) != HOST_EPTP || area.gate.list[2])
		complain("not in the host view");
	if (area.cpu.kicked || area.cpu.flushed != requested || area.cpu.parked)
		complain("a flush is not answered");
	if (count.nmis > nmis || count.checks > checks || count.resets > count.sent[INIT])
		complain("an event was delivered twice");
	if (!count.resets != !count.sent[INIT])
		complain("an INIT is lost");
	if (count.landings > 1 || count.serves > count.landings)
		complain("a call was made twice");
	if (count.resets)
		return; /* what waited when it came is nobody's */
	if (*field(VMCS_PRIMARY_CONTROLS) != PRIMARY)
		complain("a control stays set");
	if (count.serves != 1)
		complain("the call was not made");
	/* An NMI of the host's that waits together with the monitor's can't be told from it. */
	if (!count.nmis != !nmis && !count.merged_kicks)
		complain("an NMI is lost");
	if (nmis == 2 && count.nmis == 1 && count.nmi_after_handler && !count.merged_kicks)
		complain("an NMI is lost that came after the handler of the first had begun");
	if (!count.checks != !checks || (checks == 1 && count.checks != 1))
		complain("a machine check is lost");
	if (!count.interrupts != !count.sent[BROKEN_INTERRUPT])
		complain("an interrupt is lost");
}

/* One call with these events. Returns what is wrong, or NULL. */
static const char *run(const struct event *with, unsigned number)
{
	unsigned quiet = 0;

	memset(vmcs, 0, sizeof(vmcs));
	memset(&count, 0, sizeof(count));
	memset(area.gate.list, 0, sizeof(area.gate.list));
	area.cpu = (struct cpu){
		.vmcs_current = true,
		.primary = PRIMARY,
		.capabilities.primary = PRIMARY,
		.gate = { .on = true, .linear = GATE, .airlock_eptp = AIRLOCK_EPTP, .monitor_eptp = MONITOR_EPTP }
	};
	monitor.host_eptp = HOST_EPTP;
	*field(VMCS_PRIMARY_CONTROLS) = PRIMARY;
	*field(VMCS_EXCEPTION_BITMAP) = BIT(VECTOR_MC);
	*field(VMCS_CR4_READ_SHADOW) = without_mce ? 0 : CR4_MCE;
	*field(VMCS_EPTP) = HOST_EPTP;
	*field(VMCS_GUEST_IA32_EFER) = EFER_LMA;
	*field(VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_CS)) = ACCESS_RIGHTS_LONG;
	set_step(BEFORE);
	in_root = nmi_blocked_in_root = nmi_pending = init_pending = check_pending = entry_check = interrupt_pending =
		false;
	requested = now = in_handler = 0;
	sipi_after = SIPI_STEPS;
	broken = NULL;
	events = with;
	event_count = number;
	for (unsigned i = 0; i < MOST_STEPS && quiet < QUIET_STEPS; i++) {
		bool waits = false;

		for (unsigned j = 0; j < number; j++)
			waits |= with[j].time > now;
		quiet = step_now() == END && !waits ? quiet + 1 : 0;
		if (step_now() == END && !count.end)
			count.end = now;
		run_step();
	}
	/* What comes in a VM entry that does not happen any more, or with an interrupt when the gate is off, is none. */
	count.sent[ENTRY_CHECK] -= entry_check;
	count.sent[BROKEN_INTERRUPT] -= interrupt_pending;
	check_end();
	return broken;
}

static void expect_good(const struct event *with, unsigned number)
{
	const char *wrong = run(with, number);

	if (!wrong)
		return;
	for (unsigned i = 0; i < number; i++)
		print_error("%s at %u\n", type_names[with[i].type], with[i].time);
	fail_msg("%s (%u NMIs, %u #MC, %u resets, %u calls)", wrong, count.nmis, count.checks, count.resets,
		 count.serves);
}

static void test_one(void **state)
{
	unsigned runs = 0;

	(void)state;
	expect_good(NULL, 0);
	for (enum event_type type = 0; type < TYPES; type++) {
		bool over = false;

		for (unsigned time = 1; !over; time++, runs++) {
			expect_good(&(struct event){ type, time }, 1);
			over = time > count.end + QUIET_STEPS;
		}
	}
	print_message("%u runs\n", runs);
}

static void test_two(void **state)
{
	unsigned runs = 0;

	(void)state;
	for (unsigned types = 0; types < TYPES * TYPES; types++) {
		bool over = false;

		for (unsigned first = 1; first <= END; first++) {
			over = false;
			for (unsigned second = first; !over; second++, runs++) {
				const struct event two[] = { { types % TYPES, first }, { types / TYPES, second } };

				expect_good(two, 2);
				over = second > count.end + QUIET_STEPS;
			}
		}
	}
	print_message("%u runs\n", runs);
}

static void test_many(void **state)
{
	u64 seed = 88172645463325252ULL;

	(void)state;
	for (unsigned runs = 0; runs < 200000; runs++) {
		struct event many[4];

		for (unsigned i = 0; i < ARRAY_SIZE(many); i++) {
			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			many[i] = (struct event){ (seed >> 32) % TYPES, 1 + (seed >> 8) % 120 };
		}
		expect_good(many, 3 + runs % 2);
	}
}

/* Positive control: the checks complain of a root that forgets. */
static void test_forgets(void **state)
{
	unsigned wrong[TYPES] = { 0 };

	(void)state;
	forgets = true;
	for (enum event_type type = 0; type < TYPES; type++)
		for (unsigned time = 1; time < 40; time++)
			wrong[type] += run(&(struct event){ type, time }, 1) != NULL;
	forgets = false;
	assert_true(wrong[NMI] && wrong[INIT] && wrong[MACHINE_CHECK]);
	assert_false(wrong[KICK]);
}

/* A machine check shuts down a CPU without CR4.MCE: memory is cleared, and the machine reset, whenever it comes. */
static void test_without_mce(void **state)
{
	static volatile unsigned time;

	(void)state;
	without_mce = true;
	for (time = 1; time < 2 * END; time++) {
		cleared = false;
		if (!setjmp(end_of_machine)) {
			run(&(struct event){ MACHINE_CHECK, time }, 1);
			fail_msg("the machine goes on after a machine check at %u", time);
		}
		assert_true(cleared);
	}
	without_mce = false;
}

/* MOV to CR4: MCE is what the host believes, whatever lies above a 32-bit operand; a bit that it may not set is #GP. */
static void test_mce(void **state)
{
	struct registers registers = { { 0 } };

	(void)state;
	expect_good(NULL, 0);
	area.cpu.gate.on = false;
	*field(VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_CS)) = 0;
	*field(VMCS_CR4_READ_SHADOW) = CR4_MCE;
	*field(VMCS_EXIT_QUALIFICATION) = 4;
	registers.value[REGISTER_RAX] = BIT(40) | CR4_PAE;
	exit_cr_access(&registers);
	assert_int_equal(*field(VMCS_CR4_READ_SHADOW), 0);
	assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VALID, 0);
	registers.value[REGISTER_RAX] = CR4_MCE | CR4_VMXE;
	exit_cr_access(&registers);
	assert_int_equal(*field(VMCS_CR4_READ_SHADOW), 0);
	assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VECTOR, VECTOR_GP);
}

/* A debug trap that waits comes before the NMI: an event that is injected would make it vanish. And that ends the shadow of STI. */
static void test_debug_trap(void **state)
{
	(void)state;
	expect_good(NULL, 0);
	area.cpu.latched = LATCHED_NMI;
	*field(VMCS_GUEST_PENDING_DEBUG) = PENDING_DEBUG_BS;
	*field(VMCS_GUEST_INTERRUPTIBILITY) = INTERRUPTIBILITY_STI;
	host_deliver_latched(&area.cpu);
	assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VALID, 0);
	assert_int_equal(*field(VMCS_PRIMARY_CONTROLS), PRIMARY | PRIMARY_NMI_WINDOW_EXITING);
	*field(VMCS_GUEST_PENDING_DEBUG) = 0;
	host_deliver_latched(&area.cpu);
	assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO), EVENT_VALID | EVENT_TYPE_NMI | VECTOR_NMI);
	assert_int_equal(*field(VMCS_GUEST_INTERRUPTIBILITY), 0);
}

/* VM entry refuses what lies above 4 GiB outside 64-bit mode: it is done once more, with RIP as the CPU would have it. */
static void test_rip_wraps(void **state)
{
	struct registers registers = { { 0 } };

	(void)state;
	expect_good(NULL, 0);
	*field(VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_CS)) = 0;
	*field(VMCS_EXIT_REASON) = EXIT_REASON_ENTRY_FAILURE | EXIT_ENTRY_FAILED_GUEST_STATE;
	*field(VMCS_GUEST_RIP) = BIT(32) + 5;
	*field(VMCS_ENTRY_INTERRUPTION_INFO) = EVENT_VALID | EVENT_TYPE_NMI | VECTOR_NMI;
	exit_dispatch(&registers);
	assert_int_equal(*field(VMCS_GUEST_RIP), 5);
	assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO), EVENT_VALID | EVENT_TYPE_NMI | VECTOR_NMI);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one),        cmocka_unit_test(test_two),         cmocka_unit_test(test_many),
		cmocka_unit_test(test_forgets),    cmocka_unit_test(test_without_mce), cmocka_unit_test(test_rip_wraps),
		cmocka_unit_test(test_debug_trap), cmocka_unit_test(test_mce),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
