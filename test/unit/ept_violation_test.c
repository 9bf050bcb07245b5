// SPDX-License-Identifier: MIT
/*
 * host_cpu/ept_violation.c: an access that the host view allows by now is no refusal: the CPU had another table in mind, of which
 * the exit has rid it. What the delivery of an event met is delivered again, and all else is as it was.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "event.h"
#include "host_cpu.h"
#include "log.h"
#include "memory_service.h"
#include "vmcs_words.h"

#define GPA_HERE 0x12345678
#define KERNEL_ADDRESS 0xffff888012345678ULL

static u64 may, asked_gpa, asked_access, cr2;
static unsigned refused, triple_faults;

void write_register(const char *name, u64 value)
{
	assert_string_equal(name, "cr2");
	cr2 = value;
}

bool memory_host_may(u64 gpa, u64 access)
{
	asked_gpa = gpa;
	asked_access = access;
	return may;
}

void log_refusal(enum refusal kind, const char *format, ...)
{
	(void)format;
	assert_int_equal(kind, REFUSED_MEMORY);
	refused++;
}

void exit_triple_fault(struct registers *regs)
{
	(void)regs;
	triple_faults++;
}

static u64 *field(vmcs_field_t field)
{
	return &vmcs[field.encoding];
}

static void violation(bool allowed, u64 qualification, u64 vectoring)
{
	struct registers regs = { { 0 } };

	memset(vmcs, 0, sizeof(vmcs));
	refused = triple_faults = 0;
	cr2 = 0;
	may = allowed;
	*field(VMCS_GUEST_IA32_EFER) = EFER_LMA;
	*field(VMCS_GUEST_CR0) = CR0_PE | CR0_PG;
	*field(VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_CS)) = ACCESS_RIGHTS_LONG;
	*field(VMCS_GUEST_PHYSICAL_ADDRESS) = GPA_HERE;
	*field(VMCS_GUEST_LINEAR_ADDRESS) = KERNEL_ADDRESS;
	*field(VMCS_EXIT_QUALIFICATION) = qualification;
	*field(VMCS_IDT_VECTORING_INFO) = vectoring;
	*field(VMCS_IDT_VECTORING_ERROR_CODE) = 0x1234;
	*field(VMCS_GUEST_RIP) = 0x1000;
	exit_ept_violation(&regs);
	assert_int_equal(asked_gpa, GPA_HERE);
	assert_int_equal(asked_access, qualification & EPT_RWX);
	assert_int_equal(*field(VMCS_GUEST_RIP), 0x1000);
	assert_int_equal(refused, !allowed);
}

static void allowed(void **state)
{
	const u64 access = EPT_VIOLATION_WRITE | EPT_VIOLATION_LINEAR | EPT_VIOLATION_TRANSLATED;

	(void)state;
	violation(true, access, 0);
	assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO), 0);
	assert_int_equal(*field(VMCS_GUEST_INTERRUPTIBILITY), 0);
	assert_int_equal(cr2, 0);
	/* An IRET had just ended the blocking of NMIs, and is executed again. */
	violation(true, access | EPT_VIOLATION_NMI_UNBLOCKED, 0);
	assert_int_equal(*field(VMCS_GUEST_INTERRUPTIBILITY), INTERRUPTIBILITY_NMI);
	violation(true, access, EVENT_VALID | EVENT_TYPE_EXTERNAL | 0x30);
	assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO), EVENT_VALID | EVENT_TYPE_EXTERNAL | 0x30);
	violation(true, access, EVENT_VALID | EVENT_TYPE_EXCEPTION | EVENT_ERROR_CODE | VECTOR_PF);
	assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO),
			 EVENT_VALID | EVENT_TYPE_EXCEPTION | EVENT_ERROR_CODE | VECTOR_PF);
	assert_int_equal(*field(VMCS_ENTRY_EXCEPTION_ERROR_CODE), 0x1234);
}

static void refusals_of_all_kinds(void **state)
{
	const u64 data = EPT_VIOLATION_LINEAR | EPT_VIOLATION_TRANSLATED;

	(void)state;
	violation(false, data | EPT_VIOLATION_READ, 0);
	assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VECTOR, VECTOR_PF);
	assert_int_equal(cr2, KERNEL_ADDRESS);
	violation(false, data | EPT_VIOLATION_FETCH, 0);
	assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VECTOR, VECTOR_GP);
	violation(false, data | EPT_VIOLATION_WRITE, EVENT_VALID | EVENT_TYPE_EXCEPTION | VECTOR_PF);
	assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VECTOR, VECTOR_DF);
	violation(false, data | EPT_VIOLATION_WRITE, EVENT_VALID | EVENT_TYPE_EXCEPTION | VECTOR_DF);
	assert_int_equal(triple_faults, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(allowed), cmocka_unit_test(refusals_of_all_kinds) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
