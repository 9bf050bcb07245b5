/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The monitor's public interface to guests.
 *
 * CPUID leaf 0x40000000 has "HyperPSguest" in EBX, ECX, EDX, and in EAX the highest such leaf.
 *
 * A hypercall is VMCALL at CPL 0, in 32-bit or 64-bit mode (from CPL 3 it raises #UD): RAX = number; RDI, RSI, RDX, R8,
 * R9, R10 = arguments, as far as the call has them. RAX = 0 or a negative error code (of Linux's errno); other
 * registers are kept, but for results. Addresses are guest-physical bytes, multiples of 4096; a count is of 4 KiB pages,
 * at most 512, all in private RAM that the guest has (for UNSHARE: that it shares), else EACCES.
 */
#ifndef HYPERPS_GUEST_H
#define HYPERPS_GUEST_H

#define HYPERPS_GUEST_LEAF 0x40000000

#define HYPERPS_GUEST_CONSOLE                                                                                          \
	0x48505380 /* RDI = 1 to 40 bytes, which lie in RSI, RDX, R8, R9, R10 (32-bit: 8, in ESI, EDX) */
#define HYPERPS_GUEST_SHARE                                                                                            \
	0x48505381 /* RDI = gpa, RSI = count: the host sees the pages, and can change them, from now on */
#define HYPERPS_GUEST_UNSHARE 0x48505382 /* likewise: they are private again, and zero */
#define HYPERPS_GUEST_RELEASE                                                                                          \
	0x48505383 /* likewise: gives them back, zeroed. Touched again they are there anew, and zero */
#define HYPERPS_GUEST_RANDOM                                                                                           \
	0x48505384 /* result: RDX = 64 random bits (32-bit: EDX); ENOSYS if the CPU has none, EAGAIN: ask again */
#define HYPERPS_GUEST_MEASUREMENT 0x48505385 /* results: RDI, RSI, RDX, R8 = its SHA-256, 8 bytes each (64-bit mode) */
#define HYPERPS_GUEST_SHUTDOWN 0x48505386 /* RDI = exit code, 0 to 255: this vCPU runs no more */

#ifndef __ASSEMBLER__
#include <stdint.h>

static inline int64_t hyperps_guest_call(uint64_t number, uint64_t argument1, uint64_t argument2)
{
	int64_t result;

	asm volatile("vmcall" : "=a"(result) : "a"(number), "D"(argument1), "S"(argument2) : "memory");
	return result;
}

/* Writes text to the console, up to 40 bytes; returns how many. 64-bit mode. */
static inline uint64_t hyperps_guest_console(const char *text, uint64_t bytes)
{
	uint64_t word[5] = { 0 }, n = bytes < sizeof(word) ? bytes : sizeof(word);
	int64_t result;

	for (uint64_t i = 0; i < n; i++)
		word[i / 8] |= (uint64_t)(uint8_t)text[i] << 8 * (i % 8);
	{
		register uint64_t r8 asm("r8") = word[2];
		register uint64_t r9 asm("r9") = word[3];
		register uint64_t r10 asm("r10") = word[4];

		asm volatile("vmcall"
			     : "=a"(result)
			     : "a"((uint64_t)HYPERPS_GUEST_CONSOLE), "D"(n), "S"(word[0]), "d"(word[1]), "r"(r8),
			       "r"(r9), "r"(r10)
			     : "memory");
	}
	return result ? 0 : n;
}

/* 64 random bits in *value; 0, or an error code. */
static inline int64_t hyperps_guest_random(uint64_t *value)
{
	int64_t result;

	asm volatile("vmcall" : "=a"(result), "=d"(*value) : "a"((uint64_t)HYPERPS_GUEST_RANDOM) : "memory");
	return result;
}

/* The measurement that the monitor took of this VM before it started; 0, or an error code. */
static inline int64_t hyperps_guest_measurement(uint64_t sha256[4])
{
	register uint64_t r8 asm("r8") = 0;
	int64_t result;

	asm volatile("vmcall"
		     : "=a"(result), "=D"(sha256[0]), "=S"(sha256[1]), "=d"(sha256[2]), "+r"(r8)
		     : "a"((uint64_t)HYPERPS_GUEST_MEASUREMENT)
		     : "memory");
	sha256[3] = r8;
	return result;
}

/*
 * A guest of the host's KVM asks for protection (docs/protected.md, "PROTECT"): VMCALL with EAX = this and EBX = gpa of a
 * list, in real mode. All little-endian; it lies in one page. What lies behind the ranges and runs that count must be 0.
 */
#define HYPERPS_GUEST_PROTECT 0x48505390
#define HYPERPS_PROTECT_VERSION 1
#define HYPERPS_PROTECT_RANGES 8
#define HYPERPS_PROTECT_RUNS 32

struct hyperps_protect_run {
	uint64_t gpa, pages;
};

struct hyperps_protect {
	uint32_t version, flags; /* 1, 0 */
	uint64_t entry, cr3; /* 64-bit mode; both in measured pages */
	uint64_t argument; /* RDI at the entry: a multiple of 4096 */
	uint64_t stub; /* gpa of the page that stays the host's, below 0xa0000, in no range */
	uint32_t shared_bit; /* its number */
	uint32_t ranges, runs; /* how many count */
	uint32_t apic_id; /* of the vCPU that asks */
	uint64_t forbidden[4]; /* bit v: interrupt vector v is never delivered */
	struct hyperps_protect_run range[HYPERPS_PROTECT_RANGES]; /* RAM, ascending */
	struct hyperps_protect_run run[HYPERPS_PROTECT_RUNS]; /* measured pages, ascending */
};
#endif

#endif
