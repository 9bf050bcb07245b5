// SPDX-License-Identifier: MIT
/*
 * NMI, INIT, machine check, interrupt and the monitor's own NMI for a flush, at every moment of entries and exits of an L2: before
 * each instruction of L1 and L2, and in root before each instruction that has to do with a VMCS. Root's code is its own; L1
 * is a hypervisor that does what KVM does with an exit, L2 a guest that touches memory, takes an interrupt and executes CPUID.
 * What a CPU does is modelled after the SDM ("Event Injection", "VM Exits", "VMX-Preemption Timer").
 */
#include "nested_machine.h"
#include "../../base/flush.c"

bool exit_dispatch(struct registers *regs);
void entry_failed(void);
void latch_event(u64 vector);

const u64 exception_fixups[2], exception_fixups_end[2], exception_entries[32];
u32 gate_state;

enum event_type { NMI, INIT, MACHINE_CHECK, KICK, ENTRY_CHECK, INTERRUPT, TYPES };
static const char *const type_names[] = { "NMI", "INIT", "#MC", "flush", "#MC in VM entry", "interrupt" };

struct event {
	enum event_type type;
	unsigned time;
};

/* L1 and L2, by what they do next. */
enum l1_step { L1_ENTERS, L1_LOOKS, L1_WORKS, L1_ENDS };
enum l2_step { L2_FETCHES, L2_SPINS, L2_CPUID };

#define ROUNDS 3 /* VM entries that end with a CPUID */
#define L2_VECTOR 0x50 /* that L1 injects */
#define L1_VECTOR 0x30
#define HANDLER_STEPS 3 /* instructions of L1's NMI handler, with its IRET */
#define QUIET_STEPS 30
#define MOST_STEPS 400
#define UNTOUCHED 0x77

static const struct event *events;
static unsigned event_count, now, in_handler;
static bool in_root, nmi_blocked_in_root, nmi_pending, init_pending, check_pending, entry_check, interrupt_pending;
static bool timer_last; /* which of two events of the same boundary comes first */
static bool forgets; /* positive control: root forgets what is latched */
static bool refuses; /* the entry of VMCS02 is a VMfail */
static enum l1_step l1_step;
static enum l2_step l2_step;
static bool faulted; /* the delivery of L1's interrupt has met a violation */
static const char *broken;
static bool aborts, cleared; /* an MSR list fails; memory has been cleared */
static jmp_buf end_of_machine;

static struct {
	unsigned sent[TYPES], merged_kicks;
	unsigned nmis, checks, interrupts, resets, cpuids, l2_interrupts, injections, vmfails;
	unsigned end; /* time */
	bool nmi_after_handler;
} count;

static void complain(const char *what)
{
	if (!broken)
		broken = what;
}

void log_line(enum log_level level, const char *format, ...)
{
	if (level != LOG_WARNING || !aborts)
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

void clear_memory(const char *why)
{
	assert_string_equal(why, "VMX abort");
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

/* --- what nested/ calls of the others --- */

void nested_fail(struct nested *n, u32 error)
{
	(void)n;
	assert_int_equal(error, 7);
	count.vmfails++;
}

void nested_instruction(struct registers *regs, u32 reason)
{
	(void)regs;
	if ((reason == EXIT_VMLAUNCH) != !nested.page[VMCS12_LAUNCH_STATE])
		complain("the launch state of VMCS12 is wrong");
	nested_enter(&nested);
}

u32 nested_load_msrs(u64 gpa, u64 entries)
{
	(void)gpa;
	(void)entries;
	return 0;
}

u32 nested_store_msrs(u64 gpa, u64 entries)
{
	(void)gpa;
	(void)entries;
	return aborts;
}

void nested_merge_msrs(struct nested *n)
{
	(void)n;
}

void nested_drop_all(struct nested *n)
{
	(void)n;
}

void nested_flush(struct nested *n)
{
	(void)n;
}

void nested_fill_last_violation(struct nested *n)
{
	(void)n;
}

enum nested_next nested_ept_violation(struct nested *n, u32 *reason, u64 *qualification)
{
	(void)n;
	*reason = (u32)vmread(VMCS_EXIT_REASON);
	*qualification = vmread(VMCS_EXIT_QUALIFICATION);
	return NESTED_RESUME;
}

unsigned shadow_find(struct shadow *shadow, u64 eptp12)
{
	(void)shadow;
	(void)eptp12;
	return 0;
}

/* --- the CPU --- */

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
	if ((type == KICK && area.cpu.kicked) || (type == ENTRY_CHECK && entry_check) ||
	    (type == INTERRUPT && interrupt_pending))
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
	case INTERRUPT:
		interrupt_pending = true;
		break;
	default:
		if (in_root)
			latch_event(VECTOR_MC);
		else
			check_pending = true;
	}
	if (model_current && model_current->shadow && area.cpu.vmcs_current)
		complain("an NMI handler may write into what L1 reads");
	if (in_root)
		take_nmi_in_root();
	if (get02(VMCS_PRIMARY_CONTROLS) & PRIMARY_NMI_WINDOW_EXITING)
		complain("an NMI window is asked for in VMCS02");
	if (get01(VMCS_PREEMPTION_TIMER) != UNTOUCHED)
		complain("the timer of VMCS01 is written");
}

/* The handlers' own accesses are no moments of their own: what comes meanwhile waits. */
static void tick(void)
{
	static bool inside;

	if (inside)
		return;
	inside = true;
	now++;
	for (unsigned i = 0; i < event_count; i++)
		if (events[i].time == now)
			arrive(events[i].type);
	inside = false;
}

static bool in_l2(void)
{
	return model_current == model_vmcs(vmcs02);
}

/* Of the VMCS that is current. */
static u64 *here(vmcs_field_t field)
{
	return model_field(model_current, field);
}

/* What has to hold whenever the CPU leaves root. */
static void check_entry(void)
{
	const char *refused = model_refuses(model_vmcs(area.vmcs), cr0_fixed, cr4_fixed, PHYSICAL_BITS);

	if (refused)
		complain(refused);
	if (!area.cpu.vmcs_current || area.cpu.timer_wakes != in_l2() || (nested.state == NESTED_L2) != in_l2())
		complain("what root believes of the current VMCS is wrong");
	if (in_l2() && area.cpu.latched && get02(VMCS_PREEMPTION_TIMER))
		complain("something waits, and L2 runs on");
	if (!in_l2() && area.cpu.latched && get01(VMCS_GUEST_ACTIVITY_STATE) == ACTIVITY_ACTIVE &&
	    !(get01(VMCS_PRIMARY_CONTROLS) & PRIMARY_NMI_WINDOW_EXITING))
		complain("something waits, and L1 runs on");
}

static void enter_root(u64 reason)
{
	static struct registers regs;
	bool launch, was_entry_check;

	in_root = true;
	*here(VMCS_EXIT_REASON) = reason;
	launch = exit_dispatch(&regs);
	tick();
	if (forgets)
		area.cpu.latched = 0;
	else
		check_entry();
	if (in_l2() && refuses) {
		refuses = false;
		model_enter(launch, true);
		set02(VMCS_INSTRUCTION_ERROR, 7);
		entry_failed();
		tick();
		check_entry();
		launch = false;
		l1_step = L1_WORKS;
	}
	if (nmi_blocked_in_root)
		complain("NMIs stay blocked in root, for a hypervisor below that goes on with it");
	in_root = nmi_blocked_in_root = false;
	was_entry_check = entry_check;
	model_enter(launch, was_entry_check);
	if (was_entry_check) {
		entry_check = false;
		enter_root(EXIT_REASON_ENTRY_FAILURE | EXIT_ENTRY_FAILED_MACHINE_CHECK);
	} else if (!in_l2() && *here(VMCS_GUEST_RIP) == L1_EXIT_RIP) {
		*here(VMCS_GUEST_RIP) = L1_RIP;
		l1_step = L1_LOOKS;
	}
}

static void vm_exit(u64 reason, u64 information, u64 vectoring)
{
	*here(VMCS_ENTRY_INTERRUPTION_INFO) &= ~EVENT_VALID;
	*here(VMCS_EXIT_INTERRUPTION_INFO) = information;
	*here(VMCS_IDT_VECTORING_INFO) = vectoring;
	nmi_blocked_in_root = reason == EXIT_EXCEPTION_OR_NMI && (information & EVENT_TYPE) == EVENT_TYPE_NMI;
	enter_root(reason);
}

static void machine_check_exit(u64 vectoring)
{
	check_pending = false;
	vm_exit(EXIT_EXCEPTION_OR_NMI, EVENT_VALID | EVENT_TYPE_EXCEPTION | VECTOR_MC, vectoring);
}

static void begin_nmi_handler(void)
{
	count.nmis++;
	in_handler = HANDLER_STEPS;
}

/* The event that VM entry injects. Returns whether there was one. */
static bool deliver_injected(void)
{
	u64 event = *here(VMCS_ENTRY_INTERRUPTION_INFO);

	if (!(event & EVENT_VALID))
		return false;
	if (check_pending) {
		machine_check_exit(event);
		return true;
	}
	if (in_l2() && !faulted) {
		faulted = true;
		vm_exit(EXIT_EPT_VIOLATION, 0, event);
		return true;
	}
	*here(VMCS_ENTRY_INTERRUPTION_INFO) &= ~EVENT_VALID;
	if (in_l2()) {
		if (event != (EVENT_VALID | EVENT_TYPE_EXTERNAL | L2_VECTOR))
			complain("L2 gets an event that is not L1's");
		count.l2_interrupts++;
	} else if ((event & EVENT_TYPE) == EVENT_TYPE_NMI) {
		if (*here(VMCS_GUEST_INTERRUPTIBILITY) & INTERRUPTIBILITY_NMI)
			complain("an NMI in the handler of another");
		*here(VMCS_GUEST_INTERRUPTIBILITY) |= INTERRUPTIBILITY_NMI;
		begin_nmi_handler();
	} else if ((event & EVENT_VECTOR) == VECTOR_MC) {
		count.checks++;
	} else {
		complain("L1 gets an event that nobody sent");
	}
	return true;
}

static bool take_timer(void)
{
	if (!in_l2() || *here(VMCS_PREEMPTION_TIMER))
		return false;
	vm_exit(EXIT_PREEMPTION_TIMER, 0, 0);
	return true;
}

/* An event of this boundary between two instructions, if there is one. */
static bool take_event(void)
{
	if (check_pending) {
		machine_check_exit(0);
	} else if (init_pending) {
		init_pending = false;
		vm_exit(EXIT_INIT, 0, 0);
	} else if (!timer_last && take_timer()) {
		return true;
	} else if ((*here(VMCS_PRIMARY_CONTROLS) & PRIMARY_NMI_WINDOW_EXITING) &&
		   !(*here(VMCS_GUEST_INTERRUPTIBILITY) & INTERRUPTIBILITY_NMI)) {
		vm_exit(EXIT_NMI_WINDOW, 0, 0);
	} else if (nmi_pending) {
		nmi_pending = false;
		vm_exit(EXIT_EXCEPTION_OR_NMI, EVENT_VALID | EVENT_TYPE_NMI | VECTOR_NMI, 0);
	} else if (take_timer()) {
		return true;
	} else if (interrupt_pending && in_l2()) {
		interrupt_pending = false;
		vm_exit(EXIT_EXTERNAL_INTERRUPT, EVENT_VALID | EVENT_TYPE_EXTERNAL | L1_VECTOR, 0);
	} else if (interrupt_pending && !in_handler && l1_step == L1_WORKS) {
		interrupt_pending = false;
		count.interrupts++;
	} else {
		return false;
	}
	return true;
}

/* --- L1 and L2 --- */

static void look_at_exit(void)
{
	u64 reason = get12(VMCS_EXIT_REASON), information = get12(VMCS_EXIT_INTERRUPTION_INFO);
	u64 vectoring = get12(VMCS_IDT_VECTORING_INFO);

	l1_step = L1_WORKS;
	/* What the exit broke off is delivered at the next entry. */
	if (vectoring & EVENT_VALID)
		set12(VMCS_ENTRY_INTERRUPTION_INFO, vectoring & ~BIT(12));
	switch (reason) {
	case EXIT_EXCEPTION_OR_NMI:
		if ((information & EVENT_VECTOR) == VECTOR_MC) {
			count.checks++;
		} else {
			if (!(*here(VMCS_GUEST_INTERRUPTIBILITY) & INTERRUPTIBILITY_NMI))
				complain("NMIs are not blocked after an exit by one");
			begin_nmi_handler();
		}
		break;
	case EXIT_EXTERNAL_INTERRUPT:
		if (information != (EVENT_VALID | EVENT_TYPE_EXTERNAL | L1_VECTOR))
			complain("the vector of an interrupt is lost");
		count.interrupts++;
		break;
	case EXIT_CPUID:
		count.cpuids++;
		set12(VMCS_GUEST_RIP, get12(VMCS_GUEST_RIP) + 2);
		break;
	default:
		complain("an exit that is not L1's");
	}
}

static void execute_l1(void)
{
	if (in_handler) {
		if (!--in_handler)
			*here(VMCS_GUEST_INTERRUPTIBILITY) &= ~INTERRUPTIBILITY_NMI;
		return;
	}
	switch (l1_step) {
	case L1_LOOKS:
		look_at_exit();
		break;
	case L1_WORKS:
		l1_step = count.cpuids == ROUNDS ? L1_ENDS : L1_ENTERS;
		if (count.cpuids == 1 && !count.injections) {
			count.injections++;
			set12(VMCS_ENTRY_INTERRUPTION_INFO, EVENT_VALID | EVENT_TYPE_EXTERNAL | L2_VECTOR);
		}
		break;
	case L1_ENTERS:
		vm_exit(nested.page[VMCS12_LAUNCH_STATE] ? EXIT_VMRESUME : EXIT_VMLAUNCH, 0, 0);
		break;
	case L1_ENDS:
		if (interrupt_pending) {
			interrupt_pending = false;
			count.interrupts++;
		}
		break;
	}
}

static void execute_l2(void)
{
	if (*here(VMCS_GUEST_RIP) != 0x100000 + 2ULL * count.cpuids)
		complain("L2 is somewhere else");
	switch (l2_step) {
	case L2_FETCHES:
		l2_step = L2_SPINS;
		vm_exit(EXIT_EPT_VIOLATION, 0, 0);
		break;
	case L2_SPINS:
		l2_step = L2_CPUID;
		break;
	case L2_CPUID:
		l2_step = L2_FETCHES;
		vm_exit(EXIT_CPUID, 0, 0);
		break;
	}
}

static void run_step(void)
{
	tick();
	if (deliver_injected() || take_event())
		return;
	if (in_l2())
		execute_l2();
	else
		execute_l1();
}

static void check_end(void)
{
	unsigned nmis = count.sent[NMI], checks = count.sent[MACHINE_CHECK] + count.sent[ENTRY_CHECK];

	if (area.cpu.kicked || area.cpu.flushed != requested)
		complain("a flush was not acknowledged");
	if (!count.resets != !count.sent[INIT])
		complain("an INIT is lost");
	if (count.nmis > nmis || count.checks > checks || count.interrupts > count.sent[INTERRUPT])
		complain("an event came twice");
	if (count.l2_interrupts > count.injections)
		complain("L2's interrupt came twice");
	if (count.resets) {
		if (nested.state != NESTED_OFF || nested.current != NO_ADDRESS || in_l2() || area.cpu.timer_wakes)
			complain("VMX operation goes on after INIT");
		if (get01(VMCS_LINK_POINTER) != ~0ULL || (get01(VMCS_SECONDARY_CONTROLS) & SECONDARY_VMCS_SHADOWING))
			complain("VMCS shadowing is on after INIT");
		return;
	}
	if (area.cpu.latched)
		complain("something is latched for ever");
	if (get01(VMCS_PRIMARY_CONTROLS) != boot.capabilities.primary)
		complain("a control stays set");
	if (count.cpuids != ROUNDS || count.l2_interrupts != count.injections)
		complain("L2 has lost something");
	/* An NMI of the host's that waits together with the monitor's can't be told from it. */
	if (!count.nmis != !nmis && !count.merged_kicks)
		complain("an NMI is lost");
	if (nmis == 2 && count.nmis == 1 && count.nmi_after_handler && !count.merged_kicks)
		complain("an NMI is lost that came after the handler of the first had begun");
	if (!count.checks != !checks)
		complain("a machine check is lost");
	if (count.interrupts != count.sent[INTERRUPT])
		complain("an interrupt is lost");
}

/* ROUNDS entries with these events. Returns what is wrong, or NULL. */
static const char *run(const struct event *with, unsigned number)
{
	unsigned quiet = 0;

	memset(&count, 0, sizeof(count));
	in_root = nmi_blocked_in_root = nmi_pending = init_pending = check_pending = entry_check = interrupt_pending =
		false;
	requested = now = in_handler = 0;
	broken = NULL;
	faulted = false;
	l1_step = L1_WORKS;
	l2_step = L2_FETCHES;
	model_hook = NULL;
	start_machine();
	valid_vmcs12();
	*model_field(model_vmcs(area.vmcs), VMCS_PREEMPTION_TIMER) = UNTOUCHED;
	events = with;
	event_count = number;
	model_hook = tick;
	/* VMXON. */
	in_root = true;
	nested.ready = false;
	nested_begin(&area.cpu);
	if (area.cpu.latched)
		host_deliver_latched(&area.cpu);
	check_entry();
	in_root = false;
	for (unsigned i = 0; i < MOST_STEPS && quiet < QUIET_STEPS; i++) {
		bool waits = false;

		if (!in_l2() && *here(VMCS_GUEST_ACTIVITY_STATE) == ACTIVITY_WAIT_FOR_SIPI) {
			count.resets++;
			break;
		}
		for (unsigned j = 0; j < number; j++)
			waits |= with[j].time > now;
		quiet = l1_step == L1_ENDS && !waits ? quiet + 1 : 0;
		if (l1_step == L1_ENDS && !count.end)
			count.end = now;
		run_step();
	}
	model_hook = NULL;
	/* A flush's NMI reaches a parked CPU later, and counts as taken. */
	if (count.resets && area.cpu.parked) {
		area.cpu.kicked = false;
		area.cpu.flushed = requested;
	}
	count.sent[ENTRY_CHECK] -= entry_check;
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
	fail_msg("%s (%u NMIs, %u #MC, %u interrupts, %u resets, %u CPUIDs, %u of %u for L2)", wrong, count.nmis,
		 count.checks, count.interrupts, count.resets, count.cpuids, count.l2_interrupts, count.injections);
}

static unsigned moments(void)
{
	expect_good(NULL, 0);
	return count.end;
}

static void test_one(void **state)
{
	unsigned runs = 0, end = moments();

	(void)state;
	for (enum event_type type = 0; type < TYPES; type++) {
		for (unsigned time = 1; time < end + QUIET_STEPS; time++, runs++)
			expect_good(&(struct event){ type, time }, 1);
	}
	print_message("%u runs, %u moments\n", runs, end);
}

static void test_two(void **state)
{
	unsigned end = moments();

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		const struct event two[] = { { chance(TYPES), 1 + chance(end) }, { chance(TYPES), 1 + chance(end) } };

		timer_last = chance(2);
		expect_good(two, 2);
	}
	timer_last = false;
}

/* Two, close together: within one entry or exit. */
static void test_near(void **state)
{
	unsigned end = moments();

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		unsigned first = 1 + chance(end);
		const struct event two[] = { { chance(TYPES), first }, { chance(TYPES), first + chance(30) } };

		timer_last = chance(2);
		expect_good(two, 2);
	}
	timer_last = false;
}

static void test_many(void **state)
{
	unsigned end = moments();

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		struct event many[4];

		for (unsigned j = 0; j < ARRAY_SIZE(many); j++)
			many[j] = (struct event){ chance(TYPES), 1 + chance(end) };
		expect_good(many, 3 + i % 2);
	}
}

/* An entry that is a VMfail: L1 goes on behind it, and what comes at any moment of that is not lost. */
static void test_vmfail(void **state)
{
	unsigned end = moments();

	(void)state;
	for (enum event_type type = 0; type < TYPES; type++) {
		for (unsigned time = 1; time < end; time++) {
			refuses = true;
			expect_good(&(struct event){ type, time }, 1);
			if (!count.resets)
				assert_int_equal(count.vmfails, 1);
		}
	}
	refuses = false;
}

static void exit_with(u64 reason)
{
	struct registers regs = { { 0 } };

	*here(VMCS_EXIT_REASON) = reason;
	model_enter(exit_dispatch(&regs), false);
}

/* An exit, or an entry that fails, loads state of L1's that the gate may not be on with. */
static void test_gate(void **state)
{
	static const struct {
		vmcs_field_t field;
		u64 bit; /* changed */
		bool stays;
	} changes[] = {
		{ VMCS_HOST_CR4, CR4_PGE, true },        { VMCS_HOST_CR4, CR4_SMEP, false },
		{ VMCS_HOST_CR4, CR4_SMAP, false },      { VMCS_HOST_CR4, CR4_LA57, false },
		{ VMCS_HOST_CR0, CR0_WP, false },        { VMCS_HOST_IA32_EFER, EFER_NXE, false },
		{ VMCS_HOST_IA32_EFER, EFER_SCE, true },
	};

	(void)state;
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(changes); i++) {
		start_machine();
		valid_vmcs12();
		area.cpu.gate.on = true;
		vmwrite(VMCS_EPTP, monitor.host_eptp);
		set12(changes[i / 2].field, get12(changes[i / 2].field) ^ changes[i / 2].bit);
		if (i & 1)
			set12(VMCS_LINK_POINTER, 0);
		exit_with(EXIT_VMLAUNCH);
		if (!(i & 1)) {
			assert_true(in_l2() && area.cpu.gate.on);
			exit_with(EXIT_CPUID);
		}
		assert_false(in_l2());
		assert_int_equal(area.cpu.gate.on, changes[i / 2].stays);
		/* What else is in the same word stays. */
		if (!area.cpu.gate.on)
			assert_int_equal(get01(VMCS_SECONDARY_CONTROLS) ^ boot.capabilities.secondary,
					 model_shadowing ? SECONDARY_VMCS_SHADOWING : 0);
	}
	area.cpu.gate.on = false;
}

/* INIT came in the gate, and L1 enters an L2 instead of leaving it. */
static void test_latched_init(void **state)
{
	(void)state;
	start_machine();
	valid_vmcs12();
	area.cpu.latched = LATCHED_INIT;
	exit_with(EXIT_VMLAUNCH);
	assert_false(in_l2());
	assert_int_equal(get01(VMCS_GUEST_ACTIVITY_STATE), ACTIVITY_WAIT_FOR_SIPI);
	assert_int_equal(nested.state, NESTED_OFF);
}

/* A VMX abort ends the machine, and nothing else does. */
static void test_abort(void **state)
{
	(void)state;
	cleared = false;
	start_machine();
	valid_vmcs12();
	exit_with(EXIT_VMLAUNCH);
	aborts = true;
	if (!setjmp(end_of_machine)) {
		exit_with(EXIT_CPUID);
		fail_msg("the machine goes on after a VMX abort");
	}
	assert_true(cleared);
	aborts = false;
}

/* VMX instructions are #UD until VMX is offered, and all CPUs are taken. */
static void test_offered(void **state)
{
	struct nested *n = &nested;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		start_machine();
		valid_vmcs12();
		broken = NULL;
		monitor.kvm = i != 0;
		monitor.other_cpus_taken = i != 1;
		area.cpu.nested = i == 2 ? NULL : n;
		exit_with(EXIT_VMLAUNCH);
		assert_non_null(broken);
		assert_false(in_l2());
		assert_int_equal(get01(VMCS_ENTRY_INTERRUPTION_INFO), EVENT_VALID | EVENT_TYPE_EXCEPTION | VECTOR_UD);
	}
}

/* Positive control: the checks complain of a root that forgets. */
static void test_forgets(void **state)
{
	unsigned wrong[TYPES] = { 0 }, end = moments();

	(void)state;
	forgets = true;
	for (enum event_type type = 0; type < TYPES; type++)
		for (unsigned time = 1; time < end; time++)
			wrong[type] += run(&(struct event){ type, time }, 1) != NULL;
	forgets = false;
	assert_true(wrong[NMI] && wrong[MACHINE_CHECK]);
	assert_false(wrong[KICK] || wrong[INTERRUPT]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH_WAYS(test_one),          BOTH_WAYS(test_two),     BOTH_WAYS(test_near), BOTH_WAYS(test_many),
		BOTH_WAYS(test_vmfail),       BOTH_WAYS(test_forgets), BOTH_WAYS(test_gate), BOTH_WAYS(test_abort),
		BOTH_WAYS(test_latched_init), BOTH_WAYS(test_offered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
