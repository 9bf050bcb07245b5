// SPDX-License-Identifier: MIT
/* VMFUNC from ring 3 while the gate is on: SIGILL for every leaf and index but the view that the host is in. */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096
#define INDICES 513
#define LEAVES 63
#define COMPATIBILITY_SELECTOR 0x23
#define LDT_SELECTOR 7

static sigjmp_buf recovery;
static int checks, failed;

static void on_signal(int number)
{
	siglongjmp(recovery, number);
}

static void check(int passed, const char *name, int wrong)
{
	checks++;
	failed += !passed;
	printf("%s - ring 3: %s (%d not)\n", passed ? "ok" : "not ok", name, wrong);
}

/* The signal, 0 for none. */
static int vmfunc(uint32_t leaf, uint32_t index)
{
	int seen = sigsetjmp(recovery, 1);

	if (!seen)
		asm volatile("vmfunc" ::"a"(leaf), "c"(index) : "memory");
	return seen;
}

/* VMFUNC and INT3 at selector:offset. */
static int far_vmfunc(uint32_t offset, uint16_t selector, uint32_t index)
{
	struct {
		uint32_t offset;
		uint16_t selector;
	} __attribute__((packed)) target = { offset, selector };
	int seen = sigsetjmp(recovery, 1);

	if (!seen)
		asm volatile("ljmp *%0" ::"m"(target), "a"(0), "c"(index) : "memory");
	return seen;
}

int main(void)
{
	/* 32-bit code need not keep the upper half of RSP. */
	static uint8_t signal_stack[65536];
	stack_t stack = { .ss_sp = signal_stack, .ss_size = sizeof(signal_stack) };
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK };
	uint8_t *code =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	struct user_desc segment = { .base_addr = (uint32_t)(uintptr_t)code, .limit = PAGE - 1, .contents = 2 };
	int wrong = 0, i;

	sigaltstack(&stack, NULL);
	sigaction(SIGILL, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGTRAP, &action, NULL);
	check(vmfunc(0, 0) == 0, "positive control: VMFUNC to the view that the host is in does nothing", 0);
	for (i = 1; i <= INDICES; i++)
		wrong += vmfunc(0, i) != SIGILL;
	check(!wrong, "VMFUNC to any other view raises SIGILL", wrong);
	wrong = 0;
	for (i = 1; i <= LEAVES; i++)
		wrong += (vmfunc(i, 0) != SIGILL) + (vmfunc(i, 1) != SIGILL);
	check(!wrong, "VMFUNC with any other leaf raises SIGILL", wrong);

	memcpy(code, "\x0f\x01\xd4\xcc", 4);
	check(far_vmfunc((uint32_t)(uintptr_t)code, COMPATIBILITY_SELECTOR, 0) == SIGTRAP,
	      "positive control: 32-bit code reaches what follows VMFUNC", 0);
	wrong = 0;
	for (i = 1; i <= INDICES; i++)
		wrong += far_vmfunc((uint32_t)(uintptr_t)code, COMPATIBILITY_SELECTOR, i) != SIGILL;
	check(!wrong, "VMFUNC from 32-bit code raises SIGILL", wrong);
	if (syscall(SYS_modify_ldt, 1, &segment, sizeof(segment))) {
		printf("# no 16-bit segment: modify_ldt is not offered\n");
	} else {
		check(far_vmfunc(0, LDT_SELECTOR, 0) == SIGTRAP,
		      "positive control: 16-bit code reaches what follows VMFUNC", 0);
		wrong = 0;
		for (i = 1; i <= INDICES; i++)
			wrong += far_vmfunc(0, LDT_SELECTOR, i) != SIGILL;
		check(!wrong, "VMFUNC from 16-bit code raises SIGILL", wrong);
	}
	printf("# failed %d of %d\n", failed, checks);
	return failed != 0;
}
