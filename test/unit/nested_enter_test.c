// SPDX-License-Identifier: MIT
/*
 * nested/enter.c and exit.c on VMCSs of a model: each field of VMCS12 arrives where docs/nested.md says, at an entry and at an
 * exit, and nothing else changes; what a failed check shows; and whatever VMCS12 holds, VMCS02 is the monitor's in all that
 * matters, and VMCS01 goes on.
 */
#include "nested_machine.h"

#define FUZZ_RUNS 100000
#define SOME 500
#define ENTRY_LIST 0x111000
#define EXIT_LIST 0x222000
#define STORE_LIST 0x333000
#define REFUSED_PERF 0x1234
#define FAILED(reason) (EXIT_REASON_ENTRY_FAILURE | (reason))

u64 idt[32][2];
static u32 failed_with; /* nested_fail()'s error */
static u64 bad_list; /* address of the MSR list whose entry 3 can't be switched */
static bool refill; /* nested_ept_violation() fills */
static bool kick; /* the NMI is one for a flush */
static u64 perf_global_ctrl, last_list_loaded, last_list_stored;
static unsigned ibpbs, invvpids, drops, flushes, fills, merges;
static u64 expected[MODEL_ENCODINGS];

void log_line(enum log_level level, const char *format, ...)
{
	(void)level;
	(void)format;
}

void panic_stop(void)
{
	fail_msg("panic");
	abort();
}

void nested_fail(struct nested *n, u32 error)
{
	assert_ptr_equal(n, &nested);
	assert_int_equal(model_current->address, (u64)area.vmcs);
	failed_with = error;
}

bool wrmsr_checked(u32 msr, u64 value)
{
	assert_int_equal(msr, MSR_IA32_PERF_GLOBAL_CTRL);
	if (value == REFUSED_PERF)
		return false;
	perf_global_ctrl = value;
	return true;
}

void wrmsr(u32 msr, u64 value)
{
	if (msr == MSR_IA32_PRED_CMD && value == PRED_CMD_IBPB)
		ibpbs++;
	else
		assert_true(wrmsr_checked(msr, value));
}

struct cpuid_result cpuid(u32 leaf, u32 subleaf)
{
	(void)subleaf;
	return (struct cpuid_result){ .eax = leaf ? 0 : 0xd, .edx = leaf == 7 ? BIT(CPUID_IBPB) : 0 };
}

void invvpid_all(void)
{
	invvpids++;
}

bool flush_take_kick(struct cpu *cpu)
{
	bool was = kick;

	(void)cpu;
	kick = false;
	return was;
}

u32 nested_load_msrs(u64 gpa, u64 count)
{
	last_list_loaded = gpa;
	return count && gpa == bad_list ? 3 : 0;
}

u32 nested_store_msrs(u64 gpa, u64 count)
{
	last_list_stored = gpa;
	return count && gpa == bad_list ? 3 : 0;
}

void nested_merge_msrs(struct nested *n)
{
	(void)n;
	merges++;
}

void nested_drop_all(struct nested *n)
{
	(void)n;
	drops++;
}

void nested_flush(struct nested *n)
{
	n->shadow.must_invept = false;
	flushes++;
}

void nested_fill_last_violation(struct nested *n)
{
	assert_false(n->shadow.must_invept); /* or it drops all of this CPU's */
	n->last_violation = NO_ADDRESS;
	fills++;
}

enum nested_next nested_ept_violation(struct nested *n, u32 *reason, u64 *qualification)
{
	(void)n;
	if (refill)
		return NESTED_RESUME;
	*reason = EXIT_EPT_MISCONFIGURATION;
	*qualification = 0;
	return NESTED_SHOWN;
}

unsigned shadow_find(struct shadow *shadow, u64 eptp12)
{
	unsigned i = 0;

	while (i < SHADOW_ROOTS && shadow->eptp12[i] != eptp12)
		i++;
	return i;
}

unsigned shadow_assign(struct shadow *shadow, u64 eptp12)
{
	unsigned i = shadow->clock++ % SHADOW_ROOTS;

	assert_int_equal(locks, 1);
	shadow->eptp12[i] = eptp12;
	shadow->must_invept = true;
	return i;
}

/* --- what is expected, by the lines of docs/nested.md --- */

static void expect(vmcs_field_t field, u64 value)
{
	assert_true(model_has(field.encoding));
	expected[field.encoding] = value;
}

static void expect_vmcs(const void *page)
{
	struct vmcs_model *vmcs = model_vmcs(page);

	for (u32 i = 0; i < MODEL_ENCODINGS; i++)
		if (vmcs->value[i] != expected[i])
			fail_msg("field %x is %lx, not %lx", i, vmcs->value[i], expected[i]);
}

/* Encodings of the table, one after the other. */
static u32 encodings[512];
static unsigned encoding_count;

static void list_encodings(void)
{
	encoding_count = 0;
	for (unsigned i = 0; i < nested_field_count; i++)
		for (u32 encoding = nested_fields[i].first; encoding <= nested_fields[i].last; encoding += 2)
			encodings[encoding_count++] = encoding;
}

#define FOR_EACH_ENCODING(encoding)                                                                                    \
	for (u32 i_ = 0, encoding; i_ < encoding_count && (encoding = encodings[i_], true); i_++)

/* Whether the table has a field of a kind, and of which flags. */
static bool is_of_kind(u32 encoding, enum nested_kind kind, unsigned flags)
{
	const struct nested_field *field = nested_field(encoding);

	return field && field->kind == kind && (field->flags & flags) == flags;
}

static void expect_control_register(vmcs_field_t guest, vmcs_field_t mask, vmcs_field_t shadow, u64 owned, u64 fixed)
{
	u64 value = get12(guest), l1_mask = get12(mask);

	expect(guest, (value & ~owned) | fixed);
	expect(mask, l1_mask | owned);
	expect(shadow, 0);
	for (u64 bit = 1; bit; bit <<= 1)
		expected[shadow.encoding] |= (l1_mask & bit ? get12(shadow) : value) & bit;
}

static void expect_vmcs02(const u64 *before)
{
	u64 entry = get12(VMCS_ENTRY_CONTROLS), secondary = get12(VMCS_SECONDARY_CONTROLS);

	memcpy(expected, before, sizeof(expected));
	FOR_EACH_ENCODING(encoding)
	if (is_of_kind(encoding, NESTED_COPY, 0) &&
	    ((encoding != 0x4020 && encoding != 0x4022) || (secondary & SECONDARY_PAUSE_LOOP_EXITING)))
		expect(VMCS_FIELD(encoding), get12(VMCS_FIELD(encoding)));
	expect(VMCS_PREEMPTION_TIMER, 0xffffffff);
	expect(VMCS_PRIMARY_CONTROLS, get12(VMCS_PRIMARY_CONTROLS) | PRIMARY_IO_EXITING | PRIMARY_USE_MSR_BITMAPS |
					      PRIMARY_SECONDARY_CONTROLS);
	expect(VMCS_SECONDARY_CONTROLS,
	       secondary | (secondary_may & (SECONDARY_EPT | SECONDARY_VPID | SECONDARY_ENCLS_EXITING)));
	expect(VMCS_ENTRY_CONTROLS,
	       ENTRY_MUST | ENTRY_LOAD_DEBUG | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER | (entry & ENTRY_IA32E_GUEST));
	expect(VMCS_EXCEPTION_BITMAP, get12(VMCS_EXCEPTION_BITMAP) | BIT(VECTOR_DB) | BIT(VECTOR_AC) | BIT(VECTOR_MC));
	expect(VMCS_EPTP, (u64)roots[nested.root] | 0x1e);
	expect(VMCS_GUEST_IA32_DEBUGCTL, get12(VMCS_GUEST_IA32_DEBUGCTL));
	expect(VMCS_GUEST_INTERRUPTIBILITY, get12(VMCS_GUEST_INTERRUPTIBILITY));
	expect(VMCS_GUEST_ACTIVITY_STATE, get12(VMCS_GUEST_ACTIVITY_STATE));
	expect(VMCS_ENTRY_INTERRUPTION_INFO, get12(VMCS_ENTRY_INTERRUPTION_INFO));
	expect(VMCS_GUEST_IA32_PAT, entry & ENTRY_LOAD_PAT ? get12(VMCS_GUEST_IA32_PAT) : get01(VMCS_GUEST_IA32_PAT));
	expect(VMCS_GUEST_IA32_EFER, entry & ENTRY_LOAD_EFER
					     ? get12(VMCS_GUEST_IA32_EFER)
					     : (get01(VMCS_GUEST_IA32_EFER) & ~(EFER_LME | EFER_LMA)) |
						       (entry & ENTRY_IA32E_GUEST ? EFER_LME | EFER_LMA : 0));
	expect_control_register(VMCS_GUEST_CR0, VMCS_CR0_MASK, VMCS_CR0_READ_SHADOW, CR0_NE | CR0_CD | CR0_NW, CR0_NE);
	expect_control_register(VMCS_GUEST_CR4, VMCS_CR4_MASK, VMCS_CR4_READ_SHADOW, CR4_OWNED, CR4_MCE | CR4_VMXE);
}

/* Of L1's host state; before: VMCS01 when L1 executed VMLAUNCH. */
static void expect_vmcs01(const u64 *before, u64 pat, u64 efer, u64 interruptibility)
{
	u64 exit = get12(VMCS_EXIT_CONTROLS), cr4 = get12(VMCS_HOST_CR4);

	memcpy(expected, before, sizeof(expected));
	for (unsigned i = SEGMENT_ES; i <= SEGMENT_GS; i++) {
		u64 selector = get12(VMCS_HOST_SELECTOR(i));

		expect(VMCS_GUEST_SELECTOR(i), selector);
		expect(VMCS_GUEST_LIMIT(i), 0xffffffff);
		expect(VMCS_GUEST_BASE(i), i == SEGMENT_FS   ? get12(VMCS_HOST_FS_BASE)
					   : i == SEGMENT_GS ? get12(VMCS_HOST_GS_BASE)
							     : 0);
		expect(VMCS_GUEST_ACCESS_RIGHTS(i), i == SEGMENT_CS               ? 0xa09b
						    : selector || i == SEGMENT_SS ? 0xc093
										  : 0x10000);
	}
	expect(VMCS_GUEST_SELECTOR(SEGMENT_LDTR), 0); /* and base and limit are undefined */
	expect(VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_LDTR), 0x10000);
	expect(VMCS_GUEST_SELECTOR(SEGMENT_TR), get12(VMCS_HOST_TR_SELECTOR));
	expect(VMCS_GUEST_BASE(SEGMENT_TR), get12(VMCS_HOST_TR_BASE));
	expect(VMCS_GUEST_LIMIT(SEGMENT_TR), 0x67);
	expect(VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_TR), 0x8b);
	expect(VMCS_GUEST_GDTR_BASE, get12(VMCS_HOST_GDTR_BASE));
	expect(VMCS_GUEST_IDTR_BASE, get12(VMCS_HOST_IDTR_BASE));
	expect(VMCS_GUEST_GDTR_LIMIT, 0xffff);
	expect(VMCS_GUEST_IDTR_LIMIT, 0xffff);
	expect(VMCS_GUEST_CR0, (get12(VMCS_HOST_CR0) & ~(CR0_CD | CR0_NW)) | CR0_NE);
	expect(VMCS_CR0_READ_SHADOW, get12(VMCS_HOST_CR0));
	expect(VMCS_GUEST_CR3, get12(VMCS_HOST_CR3));
	expect(VMCS_GUEST_CR4, cr4 | CR4_MCE | CR4_VMXE);
	expect(VMCS_CR4_READ_SHADOW, cr4);
	expect(VMCS_GUEST_IA32_EFER, exit & EXIT_LOAD_EFER ? get12(VMCS_HOST_IA32_EFER) : efer | EFER_LME | EFER_LMA);
	expect(VMCS_GUEST_IA32_PAT, exit & EXIT_LOAD_PAT ? get12(VMCS_HOST_IA32_PAT) : pat);
	expect(VMCS_ENTRY_CONTROLS, before[VMCS_ENTRY_CONTROLS.encoding] | ENTRY_IA32E_GUEST);
	expect(VMCS_GUEST_SYSENTER_CS, get12(VMCS_HOST_SYSENTER_CS));
	expect(VMCS_GUEST_SYSENTER_ESP, get12(VMCS_HOST_SYSENTER_ESP));
	expect(VMCS_GUEST_SYSENTER_EIP, get12(VMCS_HOST_SYSENTER_EIP));
	expect(VMCS_GUEST_RSP, get12(VMCS_HOST_RSP));
	expect(VMCS_GUEST_RIP, get12(VMCS_HOST_RIP));
	expect(VMCS_GUEST_RFLAGS, 2);
	expect(VMCS_GUEST_DR7, 0x400);
	expect(VMCS_GUEST_IA32_DEBUGCTL, 0);
	expect(VMCS_GUEST_INTERRUPTIBILITY, interruptibility);
	expect(VMCS_GUEST_PENDING_DEBUG, 0);
	expect(VMCS_GUEST_ACTIVITY_STATE, 0);
	expect(VMCS_ENTRY_INTERRUPTION_INFO, 0);
	expect_vmcs(area.vmcs);
}

/* --- entries and exits --- */

static void start(void)
{
	list_encodings();
	start_machine();
	valid_vmcs12();
	failed_with = 0;
	bad_list = 0;
	kick = false;
	refill = false;
}

/* Values of fields that no check of the monitor's looks at; and, of those that it does, several that pass. */
static void vary_vmcs12(void)
{
	FOR_EACH_ENCODING(encoding)
	if (is_of_kind(encoding, NESTED_COPY, 0) || is_of_kind(encoding, NESTED_INFO, 0) ||
	    is_of_kind(encoding, NESTED_KEEP, 0))
		set12(VMCS_FIELD(encoding), random64());
	set12(VMCS_CR0_MASK, random64() & random64());
	set12(VMCS_CR0_READ_SHADOW, random64());
	set12(VMCS_CR4_MASK, random64() & random64());
	set12(VMCS_CR4_READ_SHADOW, random64());
	set12(VMCS_GUEST_CR0, (random64() & 0xffffffff) | CR0_NE);
	set12(VMCS_GUEST_CR4, (random64() & CR4_ALLOWED & cr4_fixed[1]) | CR4_VMXE);
	set12(VMCS_EXCEPTION_BITMAP, random64());
	set12(VMCS_GUEST_INTERRUPTIBILITY, random64() & 11);
	set12(VMCS_GUEST_ACTIVITY_STATE, random64() & 1);
	set12(VMCS_GUEST_IA32_DEBUGCTL, random64() & 3);
	set12(VMCS_EPTP, chance(6) << 12 | 0x1e);
	set12(VMCS_HOST_RSP, random64());
	set12(VMCS_HOST_SELECTOR(SEGMENT_DS), chance(2) * 0x18);
	set12(VMCS_HOST_SELECTOR(SEGMENT_SS), chance(2) * 0x18);
	set12(VMCS_HOST_SELECTOR(SEGMENT_FS), chance(2) * 0x18);
	set12(VMCS_HOST_CR0, l1.cr0 | (chance(2) ? CR0_CD | CR0_NW : 0));
	set12(VMCS_HOST_CR4, CR4_VMXE | CR4_PAE | CR4_SMEP | CR4_SMAP | (chance(2) ? CR4_MCE : 0));
	set12(VMCS_SECONDARY_CONTROLS,
	      get12(VMCS_SECONDARY_CONTROLS) | (random64() & secondary_may & ~SECONDARY_ENCLS_EXITING));
	set12(VMCS_ENTRY_CONTROLS,
	      get12(VMCS_ENTRY_CONTROLS) ^ (random64() & (ENTRY_LOAD_PAT | ENTRY_LOAD_EFER | ENTRY_IA32E_GUEST)));
	set12(VMCS_EXIT_CONTROLS, get12(VMCS_EXIT_CONTROLS) ^ (random64() & (EXIT_SAVE_PAT | EXIT_LOAD_PAT |
									     EXIT_SAVE_EFER | EXIT_LOAD_EFER)));
}

static enum nested_next exit_l2(u32 reason, u64 qualification, struct registers *regs)
{
	enum nested_next next;

	model_enter(!nested.launched, reason & EXIT_REASON_ENTRY_FAILURE);
	/* SDM, "Updating VM-Entry Control Fields": not by an entry that fails. */
	if (!(reason & EXIT_REASON_ENTRY_FAILURE))
		set02(VMCS_ENTRY_INTERRUPTION_INFO, get02(VMCS_ENTRY_INTERRUPTION_INFO) & ~EVENT_VALID);
	set02(VMCS_EXIT_REASON, reason);
	set02(VMCS_EXIT_QUALIFICATION, qualification);
	next = nested_exit(&area.cpu, regs);
	assert_int_equal(locks, 0);
	if (next == NESTED_RESUME) {
		assert_ptr_equal(model_current, model_vmcs(vmcs02));
		assert_int_equal(nested.state, NESTED_L2);
		assert_true(area.cpu.timer_wakes && area.cpu.vmcs_current);
	} else {
		assert_ptr_equal(model_current, model_vmcs(area.vmcs));
		assert_false(area.cpu.timer_wakes);
		assert_true(area.cpu.vmcs_current);
		model_enter(false, false);
	}
	return next;
}

/* The current VMCS12 with all that L1 has written. */
static void copy_page(u64 *page)
{
	nested_shadow_off(&area.cpu, &nested);
	memcpy(page, nested.page, sizeof(vmcs12[0]));
	nested_shadow_on(&area.cpu, &nested);
}

static void enter(void)
{
	nested_enter(&nested);
	assert_int_equal(locks, 0);
	assert_int_equal(failed_with, 0);
	assert_int_equal(nested.state, NESTED_L2);
	assert_ptr_equal(model_current, model_vmcs(vmcs02));
	assert_true(area.cpu.timer_wakes && area.cpu.vmcs_current);
}

static void test_begin(void **state)
{
	(void)state;
	drops = invvpids = 0;
	start();
	assert_int_equal(drops, 1);
	assert_int_equal(invvpids, 1);
	assert_ptr_equal(model_current, model_vmcs(area.vmcs));
	assert_true(area.cpu.vmcs_current && !area.cpu.timer_wakes);
	assert_int_equal(get02(VMCS_HOST_RIP), (u64)nested_exit_entry);
	assert_int_equal(get02(VMCS_HOST_RSP), get01(VMCS_HOST_RSP));
	assert_int_equal(get02(VMCS_PIN_CONTROLS), boot.capabilities.guest_pin);
	assert_int_equal(get02(VMCS_EXIT_CONTROLS), boot.capabilities.exit | EXIT_ACKNOWLEDGE_INTERRUPT);
	assert_int_equal(get02(VMCS_MSR_BITMAP), (u64)bitmap);
	assert_int_equal(get02(VMCS_VPID), NESTED_VPID);
	assert_int_equal(get02(VMCS_LINK_POINTER), ~0ULL);
	assert_int_equal(get02(VMCS_ENCLS_EXITING_BITMAP), ~0ULL);
	assert_int_equal(get02(VMCS_XSS_EXITING_BITMAP), 0);
	for (u32 encoding = 0x6c00; encoding <= 0x6c16; encoding += 2)
		if (encoding != VMCS_HOST_RIP.encoding)
			assert_int_equal(get02(VMCS_FIELD(encoding)), get01(VMCS_FIELD(encoding)));
	/* A second VMXON finds it as it is: VMCLEAR would make the next VMRESUME fail. */
	enter();
	exit_l2(EXIT_CPUID, 0, NULL);
	nested_end(&nested);
	nested_begin(&area.cpu);
	assert_true(model_vmcs(vmcs02)->launched && nested.launched);
}

/* Each field of VMCS12, at an entry, and at an exit. */
static void test_fields(void **state)
{
	static u64 before01[MODEL_ENCODINGS], before02[MODEL_ENCODINGS], old12[VMCS12_WORDS];
	struct registers regs = { { 0 } };

	(void)state;
	start();
	for (unsigned i = 0; i < SOME; i++) {
		u64 pat, efer, cr0, cr4;

		vary_vmcs12();
		memcpy(before01, model_vmcs(area.vmcs)->value, sizeof(before01));
		memcpy(before02, model_vmcs(vmcs02)->value, sizeof(before02));
		set02(VMCS_PREEMPTION_TIMER, 0);
		enter();
		expect_vmcs02(before02);
		expect_vmcs(vmcs02);
		memcpy(expected, before01, sizeof(expected));
		expect_vmcs(area.vmcs);

		/* L2 has run: all that the CPU saves is other. */
		FOR_EACH_ENCODING(encoding)
		if (is_of_kind(encoding, NESTED_COPY, NESTED_SAVED) ||
		    (is_of_kind(encoding, NESTED_INFO, 0) && model_has(encoding)))
			set02(VMCS_FIELD(encoding), random64());
		set02(VMCS_GUEST_INTERRUPTIBILITY, 8);
		set02(VMCS_GUEST_IA32_DEBUGCTL, 2);
		set02(VMCS_GUEST_CR0, random64() | CR0_NE);
		set02(VMCS_GUEST_CR4, random64() | CR4_VMXE);
		set02(VMCS_CR0_READ_SHADOW, get02(VMCS_CR0_READ_SHADOW) ^ (CR0_CD & ~get12(VMCS_CR0_MASK)));
		set02(VMCS_CR4_READ_SHADOW, get02(VMCS_CR4_READ_SHADOW) ^ (CR4_MCE & ~get12(VMCS_CR4_MASK)));
		set02(VMCS_GUEST_IA32_PAT, 0x0505050505050505);
		set02(VMCS_GUEST_IA32_EFER, EFER_NXE);
		set02(VMCS_ENTRY_CONTROLS, get02(VMCS_ENTRY_CONTROLS) ^ ENTRY_IA32E_GUEST);
		set02(VMCS_EXIT_INTERRUPTION_INFO, random64());
		memcpy(old12, nested.page, sizeof(old12));
		cr0 = get12(VMCS_GUEST_CR0);
		cr4 = get12(VMCS_GUEST_CR4);
		pat = get12(VMCS_EXIT_CONTROLS) & EXIT_SAVE_PAT ? 0x0505050505050505 : get12(VMCS_GUEST_IA32_PAT);
		efer = get12(VMCS_EXIT_CONTROLS) & EXIT_SAVE_EFER ? EFER_NXE : get12(VMCS_GUEST_IA32_EFER);
		last_list_stored = ibpbs = 0;
		assert_int_equal(exit_l2(EXIT_HLT, 0x55, &regs), NESTED_SHOWN);
		expect_vmcs01(before01, 0x0505050505050505, EFER_NXE, 0);
		assert_int_equal(ibpbs, 1);

		FOR_EACH_ENCODING(encoding)
		{
			const struct nested_field *field = nested_field(encoding);
			vmcs_field_t f = VMCS_FIELD(encoding);
			struct nested old = { .page = old12 };

			if (is_of_kind(encoding, NESTED_COPY, NESTED_SAVED)) {
				assert_int_equal(get12(f),
						 get02(f) &
							 (encoding >= 0x4814 && encoding <= 0x4822 ? 0x1f0ff : ~0ULL));
			} else if (encoding == VMCS_EXIT_REASON.encoding) {
				assert_int_equal(get12(f), EXIT_HLT);
			} else if (encoding == VMCS_EXIT_QUALIFICATION.encoding) {
				assert_int_equal(get12(f), 0x55);
			} else if (field->kind == NESTED_INFO && model_has(encoding) &&
				   encoding != VMCS_INSTRUCTION_ERROR.encoding) {
				assert_int_equal(get12(f), get02(f));
			} else if (encoding == VMCS_GUEST_CR0.encoding) {
				for (u64 bit = 1; bit; bit <<= 1)
					assert_int_equal(get12(f) & bit,
							 (!(CR0_OWNED & bit)           ? get02(f)
							  : get12(VMCS_CR0_MASK) & bit ? cr0
										       : get02(VMCS_CR0_READ_SHADOW)) &
								 bit);
			} else if (encoding == VMCS_GUEST_CR4.encoding) {
				for (u64 bit = 1; bit; bit <<= 1)
					assert_int_equal(get12(f) & bit,
							 (!(CR4_OWNED & bit)           ? get02(f)
							  : get12(VMCS_CR4_MASK) & bit ? cr4
										       : get02(VMCS_CR4_READ_SHADOW)) &
								 bit);
			} else if (encoding == VMCS_GUEST_IA32_PAT.encoding) {
				assert_int_equal(get12(f), pat);
			} else if (encoding == VMCS_GUEST_IA32_EFER.encoding) {
				assert_int_equal(get12(f), efer);
			} else if (encoding == VMCS_GUEST_INTERRUPTIBILITY.encoding) {
				assert_int_equal(get12(f), 8);
			} else if (encoding == VMCS_GUEST_IA32_DEBUGCTL.encoding) {
				assert_int_equal(get12(f), 2);
			} else if (encoding == VMCS_ENTRY_CONTROLS.encoding) {
				assert_int_equal(get12(f), nested_get(&old, f) ^ ENTRY_IA32E_GUEST);
			} else if (encoding == VMCS_ENTRY_INTERRUPTION_INFO.encoding) {
				assert_int_equal(get12(f), nested_get(&old, f) & ~EVENT_VALID);
			} else {
				assert_int_equal(get12(f), nested_get(&old, f));
			}
		}
		assert_int_equal(nested.page[VMCS12_LAUNCH_STATE], 1);
		assert_int_equal(nested.page[0], VMCS12_REVISION);
		assert_int_equal(nested.state, NESTED_ROOT);
		valid_vmcs12();
	}
}

/* Entry after entry of one VMCS12, whose hot fields alone are written: what is cold stays L2's, and L1 finds it at last. */
static void test_hot(void **state)
{
	static u64 before[MODEL_ENCODINGS];
	struct registers regs = { { 0 } };

	(void)state;
	start();
	enter();
	for (unsigned i = 0; i < SOME; i++) {
		bool dirty;
		u64 event;

		FOR_EACH_ENCODING(encoding)
		if (is_of_kind(encoding, NESTED_COPY, NESTED_SAVED) ||
		    (is_of_kind(encoding, NESTED_INFO, 0) && model_has(encoding)))
			set02(VMCS_FIELD(encoding), random64());
		set02(VMCS_GUEST_ACTIVITY_STATE, random64() & 1);
		memcpy(before, model_vmcs(vmcs02)->value, sizeof(before));
		assert_int_equal(exit_l2(EXIT_HLT, 0, &regs), NESTED_SHOWN);
		assert_true(nested.cold_in_02 && !nested.dirty);
		/* What L1 reads without an exit where the CPU has VMCS shadowing. */
		FOR_EACH_ENCODING(encoding)
		if (is_of_kind(encoding, NESTED_COPY, NESTED_SAVED | NESTED_SHADOW_READ))
			assert_int_equal(nested_get(&nested, VMCS_FIELD(encoding)),
					 before[encoding] &
						 (encoding >= 0x4814 && encoding <= 0x4822 ? 0x1f0ff : ~0ULL));
		if (chance(8)) {
			FOR_EACH_ENCODING(encoding)
			if (is_of_kind(encoding, NESTED_COPY, NESTED_SHADOW_WRITE))
				set12(VMCS_FIELD(encoding), before[encoding] = random64());
			set12(VMCS_GUEST_INTERRUPTIBILITY, random64() & 3);
			set12(VMCS_PRIMARY_CONTROLS,
			      get12(VMCS_PRIMARY_CONTROLS) ^ (random64() & PRIMARY_INTERRUPT_WINDOW_EXITING));
			set12(VMCS_HOST_FS_BASE, random64() >> 20);
			set12(VMCS_HOST_SELECTOR(SEGMENT_GS), chance(2) * 0x28);
		} else if (chance(2)) {
			set12(VMCS_TSC_OFFSET, random64());
		}
		FOR_EACH_ENCODING(encoding)
		if (is_of_kind(encoding, NESTED_COPY, NESTED_SAVED) &&
		    !is_of_kind(encoding, NESTED_COPY, NESTED_SHADOW_WRITE))
			assert_true(nested.cold_in_02 ||
				    nested_get(&nested, VMCS_FIELD(encoding)) ==
					    (before[encoding] &
					     (encoding >= 0x4814 && encoding <= 0x4822 ? 0x1f0ff : ~0ULL)));
		event = chance(2) ? EVENT_VALID | EVENT_TYPE_EXCEPTION | EVENT_ERROR_CODE | VECTOR_GP : 0;
		set12(VMCS_ENTRY_INTERRUPTION_INFO, event);
		dirty = nested.dirty;
		memcpy(before, model_vmcs(vmcs02)->value, sizeof(before));
		enter();
		/* The rest of VMCS02 is as it was, but for what access rights can't have. */
		memcpy(expected, before, sizeof(expected));
		for (u32 encoding = 0x4814; !nested.cold_in_02 && encoding <= 0x4822; encoding += 2)
			expected[encoding] &= 0x1f0ff;
		FOR_EACH_ENCODING(encoding)
		/* Error code and length are those of an event. */
		if (is_of_kind(encoding, NESTED_COPY, NESTED_SHADOW_WRITE) &&
		    (dirty || event || (encoding != 0x4018 && encoding != 0x401a)))
			expect(VMCS_FIELD(encoding), nested_get(&nested, VMCS_FIELD(encoding)));
		expect(VMCS_TSC_OFFSET, nested_get(&nested, VMCS_TSC_OFFSET));
		expect(VMCS_PREEMPTION_TIMER, 0xffffffff);
		expect(VMCS_ENTRY_INTERRUPTION_INFO, event);
		expect(VMCS_PRIMARY_CONTROLS, nested_get(&nested, VMCS_PRIMARY_CONTROLS) | PRIMARY_IO_EXITING |
						      PRIMARY_USE_MSR_BITMAPS | PRIMARY_SECONDARY_CONTROLS);
		expect(VMCS_GUEST_INTERRUPTIBILITY, nested_get(&nested, VMCS_GUEST_INTERRUPTIBILITY));
		expect_vmcs(vmcs02);
	}
	/* Another VMCS12 becomes current: L2's state goes with the old one. */
	set02(VMCS_GUEST_BASE(SEGMENT_ES), 0x1234);
	exit_l2(EXIT_HLT, 0, &regs);
	nested_fetch(&nested);
	assert_int_equal(nested_get(&nested, VMCS_GUEST_BASE(SEGMENT_ES)), 0x1234);
	assert_ptr_equal(model_current, model_vmcs(area.vmcs));
	/* An entry that fails has changed nothing, and all is written again. */
	enter();
	exit_l2(EXIT_HLT, 0, &regs);
	enter();
	exit_l2(FAILED(EXIT_ENTRY_FAILED_GUEST_STATE), 0, &regs);
	assert_true(nested.dirty);
	set02(VMCS_TSC_OFFSET, 1);
	enter();
	assert_int_equal(get02(VMCS_TSC_OFFSET), nested_get(&nested, VMCS_TSC_OFFSET));
	assert_int_equal(get02(VMCS_GUEST_BASE(SEGMENT_ES)), 0x1234);
}

/* An event to inject is written at each entry, whatever VMCS02 has of it. */
static void test_injection(void **state)
{
	u64 event = EVENT_VALID | EVENT_TYPE_EXCEPTION | EVENT_ERROR_CODE | VECTOR_PF;

	(void)state;
	start();
	for (unsigned i = 0; i < 2; i++) {
		set12(VMCS_ENTRY_INTERRUPTION_INFO, event);
		set12(VMCS_ENTRY_EXCEPTION_ERROR_CODE, 5);
		set12(VMCS_ENTRY_INSTRUCTION_LENGTH, 2);
		enter();
		assert_int_equal(get02(VMCS_ENTRY_INTERRUPTION_INFO), event);
		assert_int_equal(get02(VMCS_ENTRY_EXCEPTION_ERROR_CODE), 5);
		assert_int_equal(get02(VMCS_ENTRY_INSTRUCTION_LENGTH), 2);
		set02(VMCS_ENTRY_EXCEPTION_ERROR_CODE, 77);
		exit_l2(EXIT_CPUID, 0, NULL);
		assert_int_equal(get12(VMCS_ENTRY_INTERRUPTION_INFO), event & ~EVENT_VALID);
	}
}

static void test_vpid(void **state)
{
	(void)state;
	start();
	invvpids = 0;
	for (unsigned i = 0; i < 3; i++) {
		enter();
		exit_l2(EXIT_CPUID, 0, NULL);
		assert_int_equal(invvpids, 1);
	}
	set12(VMCS_VPID, 8);
	enter();
	assert_int_equal(invvpids, 2);
	exit_l2(EXIT_CPUID, 0, NULL);
	set12(VMCS_SECONDARY_CONTROLS, SECONDARY_EPT | SECONDARY_UNRESTRICTED_GUEST);
	for (unsigned i = 0; i < 2; i++) {
		enter();
		assert_int_equal(invvpids, 3 + 2 * i);
		exit_l2(EXIT_CPUID, 0, NULL);
		assert_int_equal(invvpids, 4 + 2 * i);
	}
}

/* A failed entry: L1 goes on at its host RIP, and of VMCS12 only reason and qualification are other. */
static void expect_failed_entry(u32 reason, u64 qualification, const u64 *before01, const u64 *page)
{
	u64 now[VMCS12_WORDS];

	assert_int_equal(nested.state, NESTED_ROOT);
	assert_int_equal(get12(VMCS_EXIT_REASON), FAILED(reason));
	assert_int_equal(get12(VMCS_EXIT_QUALIFICATION), qualification);
	expect_vmcs01(before01, before01[VMCS_GUEST_IA32_PAT.encoding], before01[VMCS_GUEST_IA32_EFER.encoding], 0);
	nested_shadow_off(&area.cpu, &nested);
	memcpy(now, nested.page, sizeof(now));
	memcpy(nested.page, page, sizeof(now));
	nested_set(&nested, VMCS_EXIT_REASON, FAILED(reason));
	nested_set(&nested, VMCS_EXIT_QUALIFICATION, qualification);
	assert_memory_equal(now, nested.page, sizeof(now));
	nested_shadow_on(&area.cpu, &nested);
}

static void test_failures(void **state)
{
	static u64 before01[MODEL_ENCODINGS];
	u64 page[VMCS12_WORDS];

	(void)state;
	start();
	memcpy(before01, model_vmcs(area.vmcs)->value, sizeof(before01));
	set12(VMCS_PIN_CONTROLS, 0x7f);
	nested_enter(&nested);
	assert_int_equal(failed_with, 7);
	memcpy(expected, before01, sizeof(expected));
	expect_vmcs(area.vmcs);
	set12(VMCS_PIN_CONTROLS, 0x3f);
	set12(VMCS_HOST_CR3, ~0ULL);
	nested_enter(&nested);
	assert_int_equal(failed_with, 8);
	expect_vmcs(area.vmcs);
	assert_int_equal(nested.state, NESTED_ROOT);

	for (unsigned i = 0; i < 4; i++) {
		start();
		memcpy(before01, model_vmcs(area.vmcs)->value, sizeof(before01));
		last_list_stored = 0;
		last_list_loaded = 0;
		set12(VMCS_EXIT_MSR_LOAD_ADDRESS, EXIT_LIST);
		set12(VMCS_EXIT_MSR_STORE_ADDRESS, STORE_LIST);
		switch (i) {
		case 0:
			set12(VMCS_LINK_POINTER, 0x1000);
			copy_page(page);
			nested_enter(&nested);
			expect_failed_entry(EXIT_ENTRY_FAILED_GUEST_STATE, 4, before01, page);
			break;
		case 1:
			set12(VMCS_ENTRY_CONTROLS, get12(VMCS_ENTRY_CONTROLS) | ENTRY_LOAD_PERF_GLOBAL_CTRL);
			set12(VMCS_EXIT_CONTROLS, get12(VMCS_EXIT_CONTROLS) | EXIT_LOAD_PERF_GLOBAL_CTRL);
			set12(VMCS_GUEST_IA32_PERF_GLOBAL_CTRL, REFUSED_PERF);
			set12(VMCS_HOST_IA32_PERF_GLOBAL_CTRL, 0xf);
			copy_page(page);
			perf_global_ctrl = 0;
			nested_enter(&nested);
			expect_failed_entry(EXIT_ENTRY_FAILED_GUEST_STATE, 0, before01, page);
			assert_int_equal(perf_global_ctrl, 0xf);
			break;
		case 2:
			set12(VMCS_ENTRY_MSR_LOAD_ADDRESS, bad_list = ENTRY_LIST);
			set12(VMCS_ENTRY_MSR_LOAD_COUNT, 5);
			copy_page(page);
			nested_enter(&nested);
			expect_failed_entry(EXIT_ENTRY_FAILED_MSRS, 3, before01, page);
			break;
		default: /* the CPU found it */
			set12(VMCS_ENTRY_INTERRUPTION_INFO, EVENT_VALID | EVENT_TYPE_NMI | VECTOR_NMI);
			copy_page(page);
			enter();
			set02(VMCS_GUEST_IA32_PAT, before01[VMCS_GUEST_IA32_PAT.encoding]);
			set02(VMCS_GUEST_IA32_EFER, before01[VMCS_GUEST_IA32_EFER.encoding]);
			set02(VMCS_EXIT_REASON, FAILED(EXIT_ENTRY_FAILED_GUEST_STATE));
			set02(VMCS_EXIT_QUALIFICATION, 2);
			assert_int_equal(nested_exit(&area.cpu, NULL), NESTED_SHOWN);
			expect_failed_entry(EXIT_ENTRY_FAILED_GUEST_STATE, 2, before01, page);
			assert_false(nested.launched);
			assert_int_equal(area.cpu.latched, 0);
			enter();
			model_enter(!nested.launched, false);
		}
		if (i <= 2) {
			assert_int_equal(last_list_loaded, EXIT_LIST);
			assert_int_equal(last_list_stored, 0);
		}
	}
}

/* A machine check in the entry is shown behind it; a RIP that an exit left above 4 GiB is cut, one of L1's is its mistake. */
static void test_entered_again(void **state)
{
	(void)state;
	start();
	enter();
	set02(VMCS_EXIT_REASON, FAILED(EXIT_ENTRY_FAILED_MACHINE_CHECK));
	assert_int_equal(nested_exit(&area.cpu, NULL), NESTED_RESUME);
	assert_false(nested.launched);
	assert_int_equal(get02(VMCS_PREEMPTION_TIMER), 0);
	assert_int_equal(exit_l2(EXIT_PREEMPTION_TIMER, 0, NULL), NESTED_SHOWN);
	assert_int_equal(get12(VMCS_EXIT_INTERRUPTION_INFO), 0x80000312);

	set12(VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_CS), 0xc09b);
	enter();
	set02(VMCS_GUEST_RIP, BIT(32) + 5);
	set02(VMCS_EXIT_REASON, FAILED(EXIT_ENTRY_FAILED_GUEST_STATE));
	assert_int_equal(nested_exit(&area.cpu, NULL), NESTED_RESUME);
	assert_int_equal(get02(VMCS_GUEST_RIP), 5);
	exit_l2(EXIT_CPUID, 0, NULL);
	set12(VMCS_GUEST_RIP, BIT(32) + 5);
	enter();
	set02(VMCS_EXIT_REASON, FAILED(EXIT_ENTRY_FAILED_GUEST_STATE));
	assert_int_equal(nested_exit(&area.cpu, NULL), NESTED_SHOWN);
}

/* SDM, "VM-Entry Failures During or After Loading Guest State": blocking by NMI is what it was before the entry. */
static void test_nmi_blocking(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		bool blocked = i & 1, failed = i & 2;

		start();
		vmwrite(VMCS_GUEST_INTERRUPTIBILITY, (blocked ? INTERRUPTIBILITY_NMI : 0) | INTERRUPTIBILITY_STI);
		if (i & 4) {
			set12(VMCS_LINK_POINTER, failed ? 0 : NO_ADDRESS);
			nested_enter(&nested);
		} else {
			enter();
			set02(VMCS_EXIT_REASON, FAILED(EXIT_ENTRY_FAILED_GUEST_STATE));
			if (failed)
				assert_int_equal(nested_exit(&area.cpu, NULL), NESTED_SHOWN);
		}
		if (!failed)
			exit_l2(EXIT_CPUID, 0, NULL);
		assert_int_equal(get01(VMCS_GUEST_INTERRUPTIBILITY), failed && blocked ? INTERRUPTIBILITY_NMI : 0);
	}
}

/* An L2 that has run has been launched, whether L1 has seen an exit of it or not. */
static void test_launch_state(void **state)
{
	(void)state;
	start();
	enter();
	refill = true;
	assert_int_equal(exit_l2(EXIT_EPT_VIOLATION, 0, NULL), NESTED_RESUME);
	set02(VMCS_EXIT_REASON, FAILED(EXIT_ENTRY_FAILED_GUEST_STATE));
	assert_int_equal(nested_exit(&area.cpu, NULL), NESTED_SHOWN);
	assert_int_equal(nested.page[VMCS12_LAUNCH_STATE], 1);
}

/* VMfail of the entry itself. */
static void test_vmfail(void **state)
{
	(void)state;
	start();
	assert_false(nested_entry_failed(&area.cpu));
	enter();
	model_enter(!nested.launched, true);
	set02(VMCS_INSTRUCTION_ERROR, 5);
	assert_false(nested_entry_failed(&area.cpu));
	set02(VMCS_INSTRUCTION_ERROR, 7);
	assert_true(nested_entry_failed(&area.cpu));
	assert_int_equal(failed_with, 7);
	assert_int_equal(nested.state, NESTED_ROOT);
	assert_ptr_equal(model_current, model_vmcs(area.vmcs));
	assert_false(area.cpu.timer_wakes);
	assert_int_equal(get01(VMCS_GUEST_RIP), L1_RIP);
	failed_with = 0;
	enter();
	model_enter(!nested.launched, false);
	area.cpu.nested = NULL;
	assert_false(nested_entry_failed(&area.cpu));
}

static void test_abort(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		start();
		set12(VMCS_EXIT_MSR_LOAD_ADDRESS, EXIT_LIST);
		set12(VMCS_EXIT_MSR_STORE_ADDRESS, STORE_LIST);
		set12(i & 1 ? VMCS_EXIT_MSR_LOAD_COUNT : VMCS_EXIT_MSR_STORE_COUNT, 3);
		enter();
		bad_list = i == 0 ? STORE_LIST : i == 1 ? EXIT_LIST : 0;
		assert_int_equal(exit_l2(EXIT_CPUID, 0, NULL), NESTED_SHOWN);
		assert_int_equal(nested.state, i < 2 ? NESTED_ABORTED : NESTED_ROOT);
	}
	/* What the CPU refuses of PERF_GLOBAL_CTRL all the same is 0. check_host() has tried another value. */
	start();
	set12(VMCS_EXIT_CONTROLS, get12(VMCS_EXIT_CONTROLS) | EXIT_LOAD_PERF_GLOBAL_CTRL);
	enter();
	set12(VMCS_HOST_IA32_PERF_GLOBAL_CTRL, REFUSED_PERF);
	perf_global_ctrl = 9;
	exit_l2(EXIT_CPUID, 0, NULL);
	assert_int_equal(perf_global_ctrl, 0);
	assert_int_equal(nested.state, NESTED_ROOT);
}

/* --- exits, by reason --- */

static void test_reasons(void **state)
{
	struct registers regs = { { 0 } };

	(void)state;
	start();
	for (u32 reason = 0; reason < 100; reason++) {
		bool refused =
			reason == 59 || reason == 60 || reason == 76 || reason == 77 || reason == 84 || reason == 85;

		if (reason == EXIT_INIT || reason == EXIT_EPT_MISCONFIGURATION || reason == EXIT_PREEMPTION_TIMER)
			continue;
		valid_vmcs12();
		set12(VMCS_EXCEPTION_BITMAP, ~BIT(VECTOR_UD));
		enter();
		set02(VMCS_EXIT_INTERRUPTION_INFO, EVENT_VALID | EVENT_TYPE_EXCEPTION | VECTOR_GP);
		assert_int_equal(exit_l2(reason, 3, &regs), refused ? NESTED_RESUME : NESTED_SHOWN);
		if (refused) {
			assert_int_equal(get02(VMCS_ENTRY_INTERRUPTION_INFO),
					 EVENT_VALID | EVENT_TYPE_EXCEPTION | VECTOR_UD);
			exit_l2(EXIT_HLT, 0, &regs);
		} else {
			assert_int_equal(get12(VMCS_EXIT_REASON),
					 reason == EXIT_EPT_VIOLATION ? EXIT_EPT_MISCONFIGURATION : reason);
		}
	}
	assert_int_equal(nested.exits[EXIT_CPUID], 1);
}

static enum nested_next exit_exception(u64 information, u64 vectoring)
{
	set02(VMCS_EXIT_INTERRUPTION_INFO, EVENT_VALID | information);
	set02(VMCS_IDT_VECTORING_INFO, vectoring);
	return exit_l2(EXIT_EXCEPTION_OR_NMI, 0, NULL);
}

/* #DB and #AC are L2's own, unless L1 asks for them. */
static void test_exceptions(void **state)
{
	static const u32 vectors[] = { VECTOR_DB, VECTOR_AC };

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		u64 event = EVENT_TYPE_EXCEPTION | vectors[i & 1];

		start();
		set12(VMCS_EXCEPTION_BITMAP, i & 2 ? BIT(vectors[i & 1]) : 0);
		enter();
		assert_int_equal(exit_exception(event, 0), i & 2 ? NESTED_SHOWN : NESTED_RESUME);
		if (i & 2)
			assert_int_equal(get12(VMCS_EXIT_INTERRUPTION_INFO), EVENT_VALID | event);
		else
			assert_int_equal(get02(VMCS_ENTRY_INTERRUPTION_INFO) & ~EVENT_ERROR_CODE, EVENT_VALID | event);
	}
}

/* SDM, "Exceptions": by mask and match a page fault exits though its bit is 0, too. It is L1's, and not lost. */
static void test_page_fault(void **state)
{
	(void)state;
	start();
	set12(VMCS_EXCEPTION_BITMAP, 0);
	set12(VMCS_PAGE_FAULT_MATCH, 1);
	enter();
	assert_int_equal(exit_exception(EVENT_TYPE_EXCEPTION | EVENT_ERROR_CODE | VECTOR_PF, 0), NESTED_SHOWN);
	assert_int_equal(get12(VMCS_EXIT_INTERRUPTION_INFO),
			 EVENT_VALID | EVENT_TYPE_EXCEPTION | EVENT_ERROR_CODE | VECTOR_PF);
}

/* What the monitor refuses is an exception of L2's like any other: L1 sees it if it asks for it. */
static void test_refused(void **state)
{
	struct registers regs = { { [REGISTER_RAX] = CR4_PAE } };
	static const u64 events[] = { EVENT_VALID | EVENT_TYPE_EXCEPTION | VECTOR_UD,
				      EVENT_VALID | EVENT_TYPE_EXCEPTION | EVENT_ERROR_CODE | VECTOR_GP };

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		u64 event = events[i & 1];

		start();
		set12(VMCS_EXCEPTION_BITMAP, i & 2 ? BIT(event & EVENT_VECTOR) : ~BIT(event & EVENT_VECTOR));
		enter();
		set02(VMCS_EXIT_INTERRUPTION_ERROR_CODE, 0x77);
		assert_int_equal(exit_l2(i & 1 ? EXIT_CR_ACCESS : EXIT_ENCLS, i & 1 ? 4 : 0, &regs),
				 i & 2 ? NESTED_SHOWN : NESTED_RESUME);
		if (!(i & 2)) {
			assert_int_equal(get02(VMCS_ENTRY_INTERRUPTION_INFO), event);
			continue;
		}
		assert_int_equal(get12(VMCS_EXIT_REASON), EXIT_EXCEPTION_OR_NMI);
		assert_int_equal(get12(VMCS_EXIT_QUALIFICATION), 0);
		assert_int_equal(get12(VMCS_EXIT_INTERRUPTION_INFO), event);
		assert_int_equal(get12(VMCS_EXIT_INTERRUPTION_ERROR_CODE), 0);
		assert_int_equal(get12(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VALID, 0);
		assert_int_equal(get12(VMCS_GUEST_RFLAGS), 2 | RFLAGS_RF);
	}
}

/* NMI and machine check of the CPU are L1's, a flush's NMI nobody's; with what they have broken off. */
static void test_nmi(void **state)
{
	u64 vectoring = EVENT_VALID | EVENT_TYPE_EXTERNAL | 0x30;

	(void)state;
	start();
	set12(VMCS_EXCEPTION_BITMAP, 0);
	enter();
	kick = true;
	assert_int_equal(exit_exception(EVENT_TYPE_NMI | VECTOR_NMI, vectoring), NESTED_RESUME);
	assert_int_equal(get02(VMCS_ENTRY_INTERRUPTION_INFO), vectoring);
	assert_int_equal(exit_exception(EVENT_TYPE_NMI | VECTOR_NMI, vectoring), NESTED_SHOWN);
	assert_int_equal(get12(VMCS_EXIT_INTERRUPTION_INFO), EVENT_VALID | EVENT_TYPE_NMI | VECTOR_NMI);
	assert_int_equal(get12(VMCS_IDT_VECTORING_INFO), vectoring);
	assert_int_equal(get01(VMCS_GUEST_INTERRUPTIBILITY), INTERRUPTIBILITY_NMI);
	assert_int_equal(area.cpu.latched, 0);
	enter();
	assert_int_equal(exit_exception(EVENT_TYPE_EXCEPTION | VECTOR_MC, vectoring), NESTED_SHOWN);
	assert_int_equal(get12(VMCS_EXIT_INTERRUPTION_INFO), EVENT_VALID | EVENT_TYPE_EXCEPTION | VECTOR_MC);
	assert_int_equal(get12(VMCS_IDT_VECTORING_INFO), vectoring);
	assert_int_equal(get01(VMCS_GUEST_INTERRUPTIBILITY), 0);
	assert_int_equal(area.cpu.latched, 0);
}

/* What waits is shown by the timer's exit, a machine check first; if nothing waits, L2 goes on and the timer is off. */
static void test_timer(void **state)
{
	(void)state;
	start();
	area.cpu.latched = LATCHED_NMI | LATCHED_MACHINE_CHECK;
	enter();
	assert_int_equal(get02(VMCS_PREEMPTION_TIMER), 0);
	assert_int_equal(exit_l2(EXIT_PREEMPTION_TIMER, 0, NULL), NESTED_SHOWN);
	assert_int_equal(get12(VMCS_EXIT_REASON), 0);
	assert_int_equal(get12(VMCS_EXIT_INTERRUPTION_INFO), 0x80000312);
	assert_int_equal(area.cpu.latched, LATCHED_NMI);
	enter();
	assert_int_equal(exit_l2(EXIT_PREEMPTION_TIMER, 0, NULL), NESTED_SHOWN);
	assert_int_equal(get12(VMCS_EXIT_INTERRUPTION_INFO), 0x80000202);
	assert_int_equal(get01(VMCS_GUEST_INTERRUPTIBILITY), INTERRUPTIBILITY_NMI);
	assert_int_equal(area.cpu.latched, 0);
	enter();
	set02(VMCS_PREEMPTION_TIMER, 0);
	assert_int_equal(exit_l2(EXIT_PREEMPTION_TIMER, 0, NULL), NESTED_RESUME);
	assert_int_equal(get02(VMCS_PREEMPTION_TIMER), NESTED_TIMER_OFF);
	/* It came while the monitor did something else for L2. */
	area.cpu.latched = LATCHED_NMI;
	refill = true;
	assert_int_equal(exit_l2(EXIT_EPT_VIOLATION, 0, NULL), NESTED_RESUME);
	assert_int_equal(get02(VMCS_PREEMPTION_TIMER), 0);
}

/* A violation that the monitor fills: what it broke off is delivered again. */
static void test_violation(void **state)
{
	u64 vectoring = EVENT_VALID | EVENT_TYPE_EXTERNAL | 0x30;

	(void)state;
	start();
	refill = true;
	enter();
	set02(VMCS_IDT_VECTORING_INFO, vectoring);
	exit_l2(EXIT_EPT_VIOLATION, EPT_VIOLATION_NMI_UNBLOCKED, NULL);
	assert_int_equal(get02(VMCS_ENTRY_INTERRUPTION_INFO), vectoring);
	assert_int_equal(get02(VMCS_GUEST_INTERRUPTIBILITY), 0);
	set02(VMCS_IDT_VECTORING_INFO, 0);
	exit_l2(EXIT_EPT_VIOLATION, EPT_VIOLATION_NMI_UNBLOCKED, NULL);
	assert_int_equal(get02(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VALID, 0);
	assert_int_equal(get02(VMCS_GUEST_INTERRUPTIBILITY), INTERRUPTIBILITY_NMI);
	refill = false;
	set02(VMCS_IDT_VECTORING_INFO, vectoring);
	set02(VMCS_GUEST_PHYSICAL_ADDRESS, 0xabc000);
	assert_int_equal(exit_l2(EXIT_EPT_VIOLATION, 0x181, NULL), NESTED_SHOWN);
	assert_int_equal(get12(VMCS_EXIT_REASON), EXIT_EPT_MISCONFIGURATION);
	assert_int_equal(get12(VMCS_EXIT_QUALIFICATION), 0);
	assert_int_equal(get12(VMCS_GUEST_PHYSICAL_ADDRESS), 0xabc000);
	assert_int_equal(get12(VMCS_IDT_VECTORING_INFO), vectoring);
	assert_int_equal(get12(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VALID, 0);
}

/*
 * MOV to CR0 and CR4, against what a CPU would do with L1's VMCS: an exit if a bit of L1's mask leaves L1's shadow; else it is
 * done, and read back, or refused.
 */
static void test_control_registers(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 20 * SOME; i++) {
		u64 number = chance(2) * 4, reg = chance(16), value, mask, allowed, qualification = number | reg << 8;
		vmcs_field_t guest = number ? VMCS_GUEST_CR4 : VMCS_GUEST_CR0;
		vmcs_field_t shadow = number ? VMCS_CR4_READ_SHADOW : VMCS_CR0_READ_SHADOW;
		struct registers regs;
		u64 before, shadow02;

		start();
		mask = random64() & random64() & random64();
		set12(number ? VMCS_CR4_MASK : VMCS_CR0_MASK, mask);
		set12(shadow, random64());
		set12(guest, number ? (random64() & CR4_ALLOWED & cr4_fixed[1]) | CR4_VMXE
				    : (random64() & 0xffffffff) | CR0_NE);
		enter();
		before = get12(guest);
		shadow02 = get02(shadow);
		/* From what L2 reads, up to two bits away. */
		value = shadow02 ^ (chance(3) ? BIT(chance(32)) : 0) ^ (chance(3) ? BIT(chance(32)) : 0);
		if (!chance(3))
			value ^= number ? CR4_MCE : chance(2) ? CR0_CD : CR0_CD | CR0_NW;
		memset(&regs, 0x77, sizeof(regs));
		regs.value[reg] = value;
		if (reg == REGISTER_RSP)
			set02(VMCS_GUEST_RSP, value);
		/* SDM, "Instructions That Cause VM Exits Conditionally": by the masks of VMCS02. */
		if (!((value ^ shadow02) & get02(number ? VMCS_CR4_MASK : VMCS_CR0_MASK)))
			continue;
		if ((value ^ get12(shadow)) & mask) {
			assert_int_equal(exit_l2(EXIT_CR_ACCESS, qualification, &regs), NESTED_SHOWN);
			assert_int_equal(get12(guest), before);
			continue;
		}
		assert_int_equal(exit_l2(EXIT_CR_ACCESS, qualification, &regs), NESTED_RESUME);
		allowed = number ? !((value ^ before) & ~mask & ~CR4_ALLOWED)
				 : (value & CR0_NE) == (shadow02 & CR0_NE) && (!(value & CR0_NW) || (value & CR0_CD));
		if (!allowed) {
			assert_int_equal(get02(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VECTOR, VECTOR_GP);
			assert_int_equal(get02(shadow), shadow02);
			continue;
		}
		assert_int_equal(get02(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VALID, 0);
		/* Now it does not exit. */
		assert_int_equal((value ^ get02(shadow)) & get02(number ? VMCS_CR4_MASK : VMCS_CR0_MASK), 0);
	}
	/* Others are L1's: MOV to CR3, MOV from CR8, CLTS, LMSW. */
	for (unsigned i = 0; i < 4; i++) {
		struct registers regs = { { 0 } };

		start();
		enter();
		assert_int_equal(
			exit_l2(EXIT_CR_ACCESS, (const u64[]){ 3, 8 | 1 << 4, 2 << 4, 3 << 4 | 1 << 16 }[i], &regs),
			NESTED_SHOWN);
	}
}

/* INIT: outside VMX operation, nothing shown. Also while L1 runs. An INIT of the gate's comes before an entry. */
static void test_init(void **state)
{
	u64 page[VMCS12_WORDS];

	(void)state;
	start();
	enter();
	memcpy(page, nested.page, sizeof(page));
	page[VMCS12_LAUNCH_STATE] = 1;
	assert_int_equal(exit_l2(EXIT_INIT, 0, NULL), NESTED_EVENT);
	assert_int_equal(nested.state, NESTED_OFF);
	assert_int_equal(nested.current, NO_ADDRESS);
	assert_memory_equal(nested.page, page, sizeof(page));
	start();
	nested_reset(&area.cpu);
	assert_int_equal(nested.state, NESTED_OFF);
	assert_ptr_equal(model_current, model_vmcs(area.vmcs));
	start();
	area.cpu.latched = LATCHED_INIT;
	merges = 0;
	nested_enter(&nested);
	assert_int_equal(nested.state, NESTED_ROOT);
	assert_ptr_equal(model_current, model_vmcs(area.vmcs));
	assert_int_equal(merges, 0);
}

/* The root is that of the EPT12, and a new one is not entered before the flush that it asks for. */
static void test_root(void **state)
{
	(void)state;
	start();
	for (unsigned i = 0; i < 20; i++) {
		u64 eptp12 = chance(3) << 12 | 0x1e;

		set12(VMCS_EPTP, eptp12);
		nested.last_violation = 0x5000;
		fills = 0;
		enter();
		assert_false(nested.shadow.must_invept);
		assert_int_equal(fills, 1);
		assert_int_equal(nested.shadow.eptp12[nested.root], eptp12);
		assert_int_equal(get02(VMCS_EPTP), (u64)roots[nested.root] | 0x1e);
		exit_l2(EXIT_CPUID, 0, NULL);
	}
}

/* --- whatever L1 writes --- */

static void fuzz_vmcs12(void)
{
	unsigned changes = chance(8);

	/* On top of what the last run has left, which VMCS02 then has. */
	if (chance(3) == 0) {
		for (unsigned i = 0; i < changes; i++) {
			u32 encoding = encodings[chance(encoding_count)];

			if (nested_field(encoding)->flags & NESTED_SHADOW_WRITE)
				set12(VMCS_FIELD(encoding), get12(VMCS_FIELD(encoding)) ^ BIT(chance(64)));
		}
		return;
	}
	valid_vmcs12();
	if (chance(4) == 0)
		vary_vmcs12();
	if (chance(50) == 0) {
		nested_shadow_off(&area.cpu, &nested);
		for (unsigned i = 0; i < VMCS12_WORDS; i++)
			nested.page[i] = random64();
		nested_shadow_on(&area.cpu, &nested);
	}
	for (unsigned i = 0; i < changes; i++) {
		const struct nested_field *f = &nested_fields[chance(nested_field_count)];
		u64 *word = &nested.page[chance(VMCS12_WORDS)], bit = BIT(chance(64));

		if (chance(8)) {
			vmcs_field_t field = VMCS_FIELD(f->first + 2 * (u32)chance((f->last - f->first) / 2 + 1));
			u64 value = get12(field);

			set12(field, chance(3) ? value ^ bit : chance(2) ? random64() : random64() & random64());
		} else {
			nested_shadow_off(&area.cpu, &nested);
			*word ^= bit;
			nested_shadow_on(&area.cpu, &nested);
		}
	}
}

static const u64 *before_fuzz;

/* Host state, pointers, controls: what every VMCS02 has. */
static void expect_monitors_own(void)
{
	static const u32 same[] = { 0x0000, 0x2004, 0x2800, 0x202c, 0x202e, 0x2c00, 0x2c02,
				    0x4000, 0x400a, 0x400c, 0x400e, 0x4010, 0x4014, 0x4c00 };
	u64 primary = get02(VMCS_PRIMARY_CONTROLS), secondary = get02(VMCS_SECONDARY_CONTROLS);
	u64 eptp = get02(VMCS_EPTP), activity = get02(VMCS_GUEST_ACTIVITY_STATE);

	for (unsigned i = 0; i < ARRAY_SIZE(same); i++)
		assert_int_equal(get02(VMCS_FIELD(same[i])), before_fuzz[same[i]]);
	for (u32 encoding = 0x0c00; encoding <= 0x0c0c; encoding += 2)
		assert_int_equal(get02(VMCS_FIELD(encoding)), before_fuzz[encoding]);
	for (u32 encoding = 0x6c00; encoding <= 0x6c16; encoding += 2)
		assert_int_equal(get02(VMCS_FIELD(encoding)), before_fuzz[encoding]);
	assert_true((eptp & 0xfff) == 0x1e && eptp - 0x1e - (u64)roots < sizeof(roots));
	assert_int_equal(primary & (PRIMARY_IO_EXITING | PRIMARY_USE_MSR_BITMAPS | PRIMARY_SECONDARY_CONTROLS |
				    PRIMARY_USE_IO_BITMAPS | BIT(21) | BIT(27) | BIT(17)),
			 PRIMARY_IO_EXITING | PRIMARY_USE_MSR_BITMAPS | PRIMARY_SECONDARY_CONTROLS);
	assert_int_equal(primary & PRIMARY_MUST, PRIMARY_MUST);
	assert_int_equal(secondary & (SECONDARY_EPT | SECONDARY_VPID | SECONDARY_ENCLS_EXITING),
			 SECONDARY_EPT | SECONDARY_VPID | SECONDARY_ENCLS_EXITING);
	assert_int_equal(secondary & ~(u64)secondary_may, 0);
	assert_int_equal(get02(VMCS_ENTRY_CONTROLS) | ENTRY_IA32E_GUEST, boot.capabilities.entry);
	assert_int_equal(~get02(VMCS_CR0_MASK) & CR0_OWNED, 0);
	assert_int_equal(~get02(VMCS_CR4_MASK) & CR4_OWNED, 0);
	assert_int_equal(get02(VMCS_GUEST_CR0) & (CR0_NE | CR0_CD | CR0_NW), CR0_NE);
	assert_int_equal(get02(VMCS_GUEST_CR4) & CR4_OWNED, CR4_VMXE | CR4_MCE);
	assert_int_equal(~get02(VMCS_EXCEPTION_BITMAP) & (BIT(VECTOR_DB) | BIT(VECTOR_AC) | BIT(VECTOR_MC)), 0);
	assert_true(activity <= ACTIVITY_HLT);
	assert_int_equal(get02(VMCS_GUEST_IA32_EFER) & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE), 0);
	assert_true(get02(VMCS_PREEMPTION_TIMER) == (area.cpu.latched ? 0 : 0xffffffff));
}

static void test_fuzz(void **state)
{
	static u64 before[MODEL_ENCODINGS], page[VMCS12_WORDS];
	unsigned entered = 0, vmfailed = 0, shown = 0;
	struct registers regs;

	(void)state;
	start();
	memcpy(before, model_vmcs(vmcs02)->value, sizeof(before));
	before_fuzz = before;
	for (unsigned i = 0; i < FUZZ_RUNS; i++) {
		const char *refused;

		fuzz_vmcs12();
		if (nested.dirty)
			nested_fetch(&nested);
		copy_page(page);
		failed_with = 0;
		bad_list = chance(8) ? 0 : get12(VMCS_ENTRY_MSR_LOAD_ADDRESS);
		area.cpu.latched = chance(20) ? 0 : LATCHED_NMI;
		nested_enter(&nested);
		if (nested.state == NESTED_L2) {
			entered++;
			expect_monitors_own();
			for (unsigned j = 0; j < 4 && nested.state == NESTED_L2; j++) {
				for (u32 e = 0x4404; e <= 0x440e; e += 2)
					set02(VMCS_FIELD(e), random64());
				set02(VMCS_GUEST_IA32_PAT, 0x0007040600070406);
				refill = chance(2);
				for (unsigned k = 0; k < ARRAY_SIZE(regs.value); k++)
					regs.value[k] = random64();
				u32 reason = (u32)chance(90);

				if (reason == EXIT_EPT_MISCONFIGURATION || reason == EXIT_INIT)
					reason = EXIT_CR_ACCESS;
				exit_l2(reason | (chance(10) ? 0 : EXIT_REASON_ENTRY_FAILURE), random64() & 0xfff,
					&regs);
				if (nested.state == NESTED_L2)
					assert_int_equal(get02(VMCS_GUEST_CR4) & CR4_VMXE, CR4_VMXE);
			}
			if (nested.state == NESTED_L2)
				exit_l2(EXIT_TRIPLE_FAULT, 0, &regs);
		} else if (failed_with) {
			vmfailed++;
			assert_memory_equal(page, nested.page, sizeof(page));
		} else {
			shown++;
			assert_true(get12(VMCS_EXIT_REASON) & EXIT_REASON_ENTRY_FAILURE);
		}
		assert_int_equal(locks, 0);
		assert_true(nested.state == NESTED_ROOT || nested.state == NESTED_ABORTED);
		assert_ptr_equal(model_current, model_vmcs(area.vmcs));
		refused = model_refuses(model_current, cr0_fixed, cr4_fixed, PHYSICAL_BITS);
		if (refused)
			fail_msg("run %u: VM entry of VMCS01 refuses: %s", i, refused);
		assert_int_equal(get01(VMCS_LINK_POINTER), model_shadowing ? (u64)shadow_page : ~0ULL);
		assert_int_equal(get01(VMCS_EPTP), monitor.host_eptp);
		nested.state = NESTED_ROOT;
	}
	print_message("%u entered, %u VMfail, %u failed entries\n", entered, vmfailed, shown);
	assert_true(entered > FUZZ_RUNS / 20 && vmfailed > FUZZ_RUNS / 20 && shown > FUZZ_RUNS / 50);
}

/* A CPU that lacks what only some have: no field of it is written. */
static void test_old_cpu(void **state)
{
	static const u16 missing[] = { 0x0000, 0x2018, 0x2024, 0x202c, 0x202e, 0x4020, 0x4022, 0xffff };
	u32 whole = secondary_may;

	secondary_may = SECONDARY_EPT | SECONDARY_UNRESTRICTED_GUEST | SECONDARY_RDTSCP | SECONDARY_WBINVD_EXITING;
	model_missing = missing;
	start();
	set12(VMCS_SECONDARY_CONTROLS, SECONDARY_EPT | SECONDARY_UNRESTRICTED_GUEST);
	invvpids = 0;
	enter();
	exit_l2(EXIT_CPUID, 0, NULL);
	assert_int_equal(nested.state, NESTED_ROOT);
	assert_int_equal(invvpids, 0);
	model_missing = NULL;
	secondary_may = whole;
	(void)state;
}

/* What takes no exit is what the table says: each encoding. */
static void test_bitmaps(void **state)
{
	(void)state;
	start();
	for (u32 encoding = 0; model_shadowing && encoding < 0x8000; encoding++) {
		const struct nested_field *field = nested_field(encoding);
		unsigned flags = field ? field->flags : 0;

		for (unsigned write = 0; write < 2; write++) {
			vmcs_field_t address = write ? VMCS_VMWRITE_BITMAP : VMCS_VMREAD_BITMAP;
			const u8 *bits = (const u8 *)get01(address);

			assert_int_equal(bits[encoding / 8] >> encoding % 8 & 1,
					 !(flags & (write ? NESTED_SHADOW_WRITE : NESTED_SHADOW_READ)));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH_WAYS(test_bitmaps),       BOTH_WAYS(test_begin),
		BOTH_WAYS(test_fields),        BOTH_WAYS(test_hot),
		BOTH_WAYS(test_injection),     BOTH_WAYS(test_vpid),
		BOTH_WAYS(test_failures),      BOTH_WAYS(test_vmfail),
		BOTH_WAYS(test_entered_again), BOTH_WAYS(test_abort),
		BOTH_WAYS(test_reasons),       BOTH_WAYS(test_exceptions),
		BOTH_WAYS(test_nmi_blocking),  BOTH_WAYS(test_launch_state),
		BOTH_WAYS(test_page_fault),    BOTH_WAYS(test_refused),
		BOTH_WAYS(test_nmi),           BOTH_WAYS(test_timer),
		BOTH_WAYS(test_violation),     BOTH_WAYS(test_control_registers),
		BOTH_WAYS(test_init),          BOTH_WAYS(test_root),
		BOTH_WAYS(test_fuzz),          BOTH_WAYS(test_old_cpu),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
