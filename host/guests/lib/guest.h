/* SPDX-License-Identifier: MIT */
/* What the 64-bit guests share: output, exit code, exceptions, vCPUs. A guest's entry is guest_main(). */
#ifndef GUEST_LIB_H
#define GUEST_LIB_H

#include "hyperps/abi.h"
#include "hyperps/guest.h"
#include "cpu_features.h"

/* Bits that the monitor has no name for. */
#define CR0_AM BIT(18)
#define CR4_SMXE BIT(14)
#define FEATURE_CONTROL_VMX_IN_SMX BIT(1)
#define XCR0_BNDREGS BIT(3)
#define XCR0_BNDCSR BIT(4)
#define XCR0_TILECFG BIT(17)
#define XCR0_TILEDATA BIT(18)

#define VECTOR_NONE (-1)
#define VECTOR_USER_RETURN 0x80
#define USER_ALIAS (1ULL << 39) /* where ring 3 finds the memory that ring 0 has from 0 on */
#define CODE_64 0x8
#define DATA 0x10
#define USER_DATA 0x23
#define USER_CODE 0x2b
#define TSS 0x30

struct gate {
	u64 low, high;
};

struct descriptor_table {
	u16 limit;
	u64 base;
} __attribute__((packed));

/* As start.asm pushes it. */
struct frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
	u64 vector, error_code, rip, cs, rflags, rsp, ss;
};

/* At the bottom of a vCPU's stacks, and found from RSP alone: no register and no MSR is taken from the tests. */
struct cpu {
	u64 recover_rsp; /* offset known to start.asm */
	u64 index;
	/* The last exception, as caught() and fault_of() leave it. */
	u64 vector, error_code, rip, cr2, rflags;
	u64 interrupts[256]; /* of vectors from 32 on, and NMIs */
	bool (*hook)(struct frame *frame); /* sees each exception first; true: go on where the frame says */
	struct gate idt[256];
	u64 gdt[8];
	u32 tss[26];
	u8 stacks[];
} __attribute__((aligned(1 << 15)));

_Static_assert(sizeof(struct cpu) == 1 << 15, "start.asm finds a vCPU's stack by this size");
_Static_assert(offsetof(struct cpu, stacks) < 2 << 12, "there is room for the stacks");

extern struct cpu cpus[];
extern char image_end[];

/* The guest itself. Returns the exit code, which is vCPU 0's; the others wait for ever when they have returned. */
int guest_main(u64 index, const char *command_line);

static inline struct cpu *this_cpu(void)
{
	u64 rsp;

	asm volatile("mov %%rsp, %0" : "=r"(rsp));
	return (struct cpu *)(rsp & -(u64)sizeof(struct cpu));
}

/* %s %c %d %u %x and 0 and a width before, each with l or z; one line goes out in one piece. */
__attribute__((format(printf, 1, 2))) void print(const char *format, ...);
void serial_print(const char *text);
__attribute__((noreturn)) void shut_down(int code);

/* Under HyperPS, not on a bare machine. */
bool has_hypercalls(void);

/* One check of a test: prints it if it fails, and counts. */
__attribute__((format(printf, 2, 3))) bool check(bool passed, const char *format, ...);
extern u64 checks, failures;

/*
 * The vector that a function raises, or VECTOR_NONE. It may be anything, also an address that can't be fetched.
 * expect() checks that it is this one.
 */
int caught(void (*function)(u64), u64 argument);
bool expect(int vector, void (*function)(u64), u64 argument);
/* Likewise in ring 3 with these flags. VECTOR_USER_RETURN: it raised none. The function may touch USER_ALIAS only. */
int caught_in_user(void (*function)(u64), u64 argument, u64 rflags);

/* The vector that one instruction raises, or VECTOR_NONE; operands as for asm(). */
#define fault_of(instruction, outputs, ...)                                                                            \
	({                                                                                                             \
		this_cpu()->vector = (u64)VECTOR_NONE;                                                                 \
		asm volatile("1: " instruction "\n"                                                                    \
			     "2:\n"                                                                                    \
			     ".pushsection .fixups, \"a\"\n"                                                           \
			     ".quad 1b, 2b\n"                                                                          \
			     ".popsection"                                                                             \
			     : outputs:__VA_ARGS__                                                                     \
			     : "memory", "cc");                                                                        \
		(int)*(volatile u64 *)&this_cpu()->vector;                                                             \
	})
#define BOTH(first, second) first, second

/* All vCPUs meet; `count` of them. */
void barrier(u64 count);

/* The value of word=NUMBER in the command line (decimal or 0x), else otherwise. A bare word has the value 1. */
u64 argument(const char *command_line, const char *word, u64 otherwise);
/* The n-th number of the command line that is no word=..., else otherwise. */
u64 number_argument(const char *command_line, u64 n, u64 otherwise);

/* A random number, from the monitor, or by RDRAND where that has none; false if the CPU has none. */
bool random_word(u64 *value);

/* A pseudo-random sequence. */
u64 next_random(u64 *state);

void *memcpy(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

#endif
