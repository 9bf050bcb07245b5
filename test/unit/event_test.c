// SPDX-License-Identifier: MIT
/* vmx/event.c: a #DB or #AC that made a CPU exit is raised as if it had not; another event is left to the caller. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "event.h"
#include "vmcs_words.h"

#define DR7_HERE 0x2703ULL /* general detect, a breakpoint */
#define RESERVED 0xffff0ff0ULL
#define GENERAL_DETECT BIT(13)
#define SINGLE_STEP BIT(14)

static u64 dr6;
static unsigned dr6_writes;

u64 read_register(const char *name)
{
	assert_string_equal(name, "dr6");
	return dr6;
}

void write_register(const char *name, u64 value)
{
	assert_string_equal(name, "dr6");
	dr6 = value;
	dr6_writes++;
}

static u64 *field(vmcs_field_t field)
{
	return &vmcs[field.encoding];
}

static bool reflect(u64 information, u64 qualification)
{
	memset(vmcs, 0, sizeof(vmcs));
	dr6_writes = 0;
	*field(VMCS_EXIT_INTERRUPTION_INFO) = EVENT_VALID | information;
	*field(VMCS_EXIT_QUALIFICATION) = qualification;
	*field(VMCS_EXIT_INSTRUCTION_LENGTH) = 1;
	*field(VMCS_GUEST_DR7) = DR7_HERE;
	*field(VMCS_GUEST_CR0) = CR0_PE;
	*field(VMCS_GUEST_INTERRUPTIBILITY) = INTERRUPTIBILITY_MOV_SS | INTERRUPTIBILITY_NMI;
	return reflect_exception();
}

/* Its causes take the place of earlier breakpoints and join earlier steps, which software clears. */
static void debug_exceptions(void **state)
{
	(void)state;
	dr6 = RESERVED | 0x5;
	assert_true(reflect(EVENT_TYPE_EXCEPTION | VECTOR_DB, SINGLE_STEP | 0x2 | BIT(12) | BIT(16)));
	assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO), EVENT_VALID | EVENT_TYPE_EXCEPTION | VECTOR_DB);
	assert_int_equal(dr6, RESERVED | SINGLE_STEP | 0x2);
	assert_int_equal(*field(VMCS_GUEST_DR7), DR7_HERE & ~BIT(13));
	assert_int_equal(*field(VMCS_GUEST_INTERRUPTIBILITY), INTERRUPTIBILITY_NMI);
	assert_true(reflect(EVENT_TYPE_EXCEPTION | VECTOR_DB, GENERAL_DETECT));
	assert_int_equal(dr6, RESERVED | SINGLE_STEP | GENERAL_DETECT);
}

static void int1(void **state)
{
	const u64 privileged_software = 5ULL << 8;

	(void)state;
	assert_true(reflect(privileged_software | VECTOR_DB, 0xf));
	assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO), EVENT_VALID | privileged_software | VECTOR_DB);
	assert_int_equal(*field(VMCS_ENTRY_INSTRUCTION_LENGTH), 1);
	assert_int_equal(*field(VMCS_GUEST_DR7), DR7_HERE);
	assert_int_equal(dr6_writes, 0);
}

static void alignment_checks(void **state)
{
	(void)state;
	assert_true(reflect(EVENT_TYPE_EXCEPTION | EVENT_ERROR_CODE | VECTOR_AC, 0));
	assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO),
			 EVENT_VALID | EVENT_TYPE_EXCEPTION | EVENT_ERROR_CODE | VECTOR_AC);
	assert_int_equal(*field(VMCS_ENTRY_EXCEPTION_ERROR_CODE), 0);
	assert_int_equal(*field(VMCS_GUEST_RFLAGS), RFLAGS_RF);
	assert_int_equal(dr6_writes, 0);
}

static void others(void **state)
{
	(void)state;
	assert_false(reflect(EVENT_TYPE_NMI | VECTOR_NMI, 0));
	assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO), 0);
	assert_false(reflect(EVENT_TYPE_EXCEPTION | VECTOR_MC, 0));
	assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO), 0);
	assert_int_equal(dr6_writes, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(debug_exceptions), cmocka_unit_test(int1),
					    cmocka_unit_test(alignment_checks), cmocka_unit_test(others) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
