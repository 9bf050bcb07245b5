// SPDX-License-Identifier: MIT
/*
 * From ring 3, VMX instructions raise #UD (SIGILL), as on a CPU without VT-x; privileged ones #GP (SIGSEGV). With the argument `vmx`
 * the kernel is in VMX operation on this CPU: then VMX instructions raise #GP, too. With `offered` it is not, but could be.
 */
#include <cpuid.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define CPUID_1_ECX_VMX (1U << 5)

static sigjmp_buf recovery;
static int checks, failed;

static void on_signal(int number)
{
	siglongjmp(recovery, number);
}

static void check(int signal_seen, int expected, const char *name)
{
	checks++;
	failed += signal_seen != expected;
	printf("%s - ring 3: %s raises signal %d", signal_seen == expected ? "ok" : "not ok", name, expected);
	if (signal_seen != expected)
		printf(": it raised %d", signal_seen);
	putchar('\n');
}

/* Run one instruction and check the signal. A macro, as the instruction must be a literal. */
#define CHECK(expected, name, instruction, ...)                                                                        \
	do {                                                                                                           \
		int seen = sigsetjmp(recovery, 1);                                                                     \
		if (!seen)                                                                                             \
			asm volatile(instruction : : __VA_ARGS__ : "memory", "cc");                                    \
		check(seen, expected, name);                                                                           \
	} while (0)

int main(int argc, char **argv)
{
	volatile bool is_on = argc > 1 && !strcmp(argv[1], "vmx"), is_offered = argc > 1 && !strcmp(argv[1], "offered");
	bool good;
	volatile int vmx = is_on ? SIGSEGV : SIGILL;
	static uint64_t region, descriptor[2];
	struct sigaction action = { .sa_handler = on_signal };
	unsigned int eax, ebx, ecx, edx;

	sigaction(SIGILL, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);

	/* Natively #GP in VMX operation. */
	if (!is_on)
		CHECK(SIGILL, "VMCALL", "vmcall", "a"(0x48505300UL));
	CHECK(SIGILL, "VMFUNC leaf 0", "vmfunc", "a"(0UL), "c"(0UL));
	CHECK(SIGILL, "VMFUNC leaf 1", "vmfunc", "a"(1UL), "c"(1UL));
	CHECK(vmx, "VMXON", "vmxon %0", "m"(region));
	CHECK(vmx, "VMXOFF", "vmxoff", "a"(0));
	CHECK(vmx, "VMCLEAR", "vmclear %0", "m"(region));
	CHECK(vmx, "VMPTRLD", "vmptrld %0", "m"(region));
	CHECK(vmx, "VMPTRST", "vmptrst %0", "m"(region));
	CHECK(vmx, "VMREAD", "vmread %%rdx, %%rdx", "d"(0UL));
	CHECK(vmx, "VMWRITE", "vmwrite %%rdx, %%rdx", "d"(0UL));
	CHECK(vmx, "VMLAUNCH", "vmlaunch", "a"(0));
	CHECK(vmx, "VMRESUME", "vmresume", "a"(0));
	CHECK(vmx, "INVEPT", "invept %0, %1", "m"(descriptor), "r"(2UL));
	CHECK(vmx, "INVVPID", "invvpid %0, %1", "m"(descriptor), "r"(2UL));
	CHECK(SIGILL, "GETSEC", "getsec", "a"(0), "b"(0));
	CHECK(SIGSEGV, "XSETBV", "xsetbv", "a"(1), "c"(0), "d"(0));
	CHECK(SIGSEGV, "RDMSR", "rdmsr", "c"(0x480));
	CHECK(SIGSEGV, "INVD", "invd", "a"(0));
	CHECK(SIGSEGV, "MOV to CR4", "mov %0, %%cr4", "r"(0UL));

	if (is_on) {
		printf("# failed %d of %d\n", failed, checks);
		return failed != 0;
	}
	checks++;
	good = __get_cpuid(1, &eax, &ebx, &ecx, &edx) && !!(ecx & CPUID_1_ECX_VMX) == is_offered;
	failed += !good;
	printf("%sok - ring 3: CPUID reports %sVMX\n", good ? "" : "not ", is_offered ? "" : "no ");
	printf("# failed %d of %d\n", failed, checks);
	return failed != 0;
}
