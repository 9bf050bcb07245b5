// SPDX-License-Identifier: MIT
/*
 * base/exception.asm and base/cpu.c: a machine check in a load that may meet one is latched, and the load fails; anywhere else
 * the interrupted code goes on. The assembly is the monitor's own, entered as a CPU enters it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "flush.h"
#include "log.h"
#include "monitor.h"
#include "stop.h"

struct monitor monitor;
extern const u64 exception_entries[32];
extern const u8 some_code[], some_load[], some_wrmsr[];
static struct cpu cpu;
static jmp_buf panicked;

/*
 * u64 interrupt(entry, has_error_code, rip): the code at rip is interrupted before its first instruction. It gives 1 if its
 * registers are as they were, else 0; what the fix-ups lead to gives 2 and 3.
 */
u64 interrupt(u64 entry, bool has_error_code, const u8 *rip);
asm(".pushsection .text\n"
    "interrupt:\n"
    "	mov	%rsp, %rax\n"
    "	lea	-1024(%rsp), %rsp\n"
    "	and	$-16, %rsp\n"
    "	mov	%ss, %ecx\n"
    "	push	%rcx\n"
    "	push	%rax\n"
    "	pushfq\n"
    "	mov	%cs, %ecx\n"
    "	push	%rcx\n"
    "	push	%rdx\n"
    "	test	%esi, %esi\n"
    "	mov	$0x1234, %esi\n"
    "	mov	$0x5678, %r11d\n"
    "	jz	1f\n"
    "	push	$0\n"
    "1:	jmp	*%rdi\n"
    "some_code:	jmp	intact\n"
    "some_load:	jmp	intact\n"
    "some_wrmsr:	jmp	intact\n"
    "intact:\n"
    "	xor	%eax, %eax\n"
    "	cmp	$0x1234, %esi\n"
    "	jne	1f\n"
    "	cmp	$0x5678, %r11d\n"
    "	sete	%al\n"
    "1:	ret\n"
    "load_failed:\n"
    "	mov	$2, %eax\n"
    "	ret\n"
    "wrmsr_failed:\n"
    "	mov	$3, %eax\n"
    "	ret\n"
    ".popsection\n"
    /* As FAULTING_INSTRUCTION makes them. */
    ".pushsection .data\n"
    ".globl exception_fixups, exception_fixups_end\n"
    "exception_fixups:\n"
    "	.quad some_wrmsr, wrmsr_failed, 13, some_load, load_failed, 18\n"
    "exception_fixups_end:\n"
    ".popsection\n");

void *read_gs_0(void)
{
	return &cpu;
}

bool flush_take_kick(struct cpu *self)
{
	(void)self;
	return false;
}

void log_line(enum log_level level, const char *format, ...)
{
	(void)level;
	(void)format;
}

void stop_other_cpus(void)
{
}

void panic_stop(void)
{
	longjmp(panicked, 1);
}

#define PANIC 100

/* What comes of the exception at that place, and what is latched then. */
static void assert_exception(unsigned vector, const u8 *rip, u64 result, u32 latched)
{
	cpu.latched = 0;
	if (setjmp(panicked))
		assert_int_equal(result, PANIC);
	else
		assert_int_equal(interrupt(exception_entries[vector], vector == VECTOR_GP, rip), result);
	assert_int_equal(cpu.latched, latched);
}

static void exceptions_at_each_place(void **state)
{
	(void)state;
	assert_exception(VECTOR_MC, some_load, 2, LATCHED_MACHINE_CHECK);
	assert_exception(VECTOR_MC, some_code, 1, LATCHED_MACHINE_CHECK);
	/* One that has nothing to do with the instruction at which it comes: that is executed. */
	assert_exception(VECTOR_MC, some_wrmsr, 1, LATCHED_MACHINE_CHECK);
	assert_exception(VECTOR_NMI, some_load, 1, LATCHED_NMI);
	assert_exception(VECTOR_NMI, some_code, 1, LATCHED_NMI);
	assert_exception(VECTOR_GP, some_wrmsr, 3, 0);
	assert_exception(VECTOR_GP, some_load, PANIC, 0);
	assert_exception(VECTOR_GP, some_code, PANIC, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(exceptions_at_each_place) };

	return cmocka_run_group_tests_name("machine_check", tests, NULL, NULL);
}
