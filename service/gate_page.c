// SPDX-License-Identifier: MIT
#include "gate_page.h"
#include "hyperps/abi.h"
#include "x86.h"

#define INT3 0xcc
#define SLOT_2 16 /* byte offset in the EPTP list */
#define ROOT_FLAGS 0x1eu /* of an EPT pointer: write-back, four levels, no accessed and dirty flags */

/* Offsets from HYPERPS_GATE_ENTRY. */
enum {
	FILL = 0,
	FILL_IMMEDIATE = 7,
	CLI = 11,
	LOAD_CR3_IMMEDIATE = 13,
	LOAD_CR3 = 18,
	CLEAR_DR7 = 25,
	VMFUNC = 31,
	END = 34,
};

/*
 * The instructions, and what stands between them: a byte in front of an immediate's last byte that makes it a register
 * operand if the byte before is taken for an opcode (0xfa, 0xf8).
 */
static const u8 code[END] = {
	0x48, 0xc7, 0x05, 0x90, 0x98, 0x90, 0x90, 0, 0, 0, 0, /* mov qword [rip + displacement], monitor_eptp */
	0xfa, /* cli */
	0xb8, 0,    0,    0,    0, /* mov eax, cr3 */
	0xf8, /* clc */
	0x0f, 0x22, 0xd8, /* mov cr3, rax */
	0x31, 0xc0, /* xor eax, eax */
	0xf3, 0x90, /* pause: aborts a transaction, whether or not CPUID tells of TSX */
	0x0f, 0x23, 0xf8, /* mov dr7, rax */
	0x8d, 0x48, 0x02, /* lea ecx, [rax + 2] */
	0x0f, 0x01, 0xd4, /* vmfunc */
};
_Static_assert(HYPERPS_GATE_ENTRY + END == GATE_LANDING, "the landing follows the last VMFUNC");

static void put32(u8 *at, u32 value)
{
	for (unsigned i = 0; i < 4; i++)
		at[i] = (u8)(value >> 8 * i);
}

static u32 get32(const u8 *at)
{
	return at[0] | at[1] << 8 | at[2] << 16 | (u32)at[3] << 24;
}

u64 gate_list_linear(u64 gate)
{
	return gate + HYPERPS_GATE_ENTRY + CLI + (u64)(s64)(int32_t)GATE_DISPLACEMENT - SLOT_2;
}

void gate_page_fill(u8 page[PAGE_SIZE], u32 cr3, u32 monitor_eptp)
{
	u8 *entry = page + HYPERPS_GATE_ENTRY;

	for (u32 i = 0; i < PAGE_SIZE; i++)
		page[i] = INT3;
	for (u32 i = 0; i < END; i++)
		entry[i] = code[i];
	put32(entry + FILL_IMMEDIATE, monitor_eptp);
	put32(entry + LOAD_CR3_IMMEDIATE, cr3);
}

/*
 * Intel SDM, appendix "Opcode Map": one-byte opcodes in 64-bit mode, by what a hostile caller could do with them. A row
 * for each upper half:
 *
 *   .  refused
 *   h  harmless, whatever follows: registers and loads only, a jump that stores nothing, or an exception
 *   p  prefix
 *   r  stores to its ModRM operand, so that must be a register
 *   m  likewise, and ModRM.reg must be 0: not XABORT, not XBEGIN
 *   i  likewise, and ModRM.reg must be 0 or 1: INC and DEC
 *   l  LEA; with a register it is undefined
 */
static const char kinds[] = "rrhhhh..rrhhhh.." /* ADD, OR */
			    "rrhhhh..rrhhhhh." /* ADC, SBB; 1e: #UD */
			    "rrhhhhp.rrhhhhp." /* AND, SUB */
			    "rrhhhhp.hhhhhhp." /* XOR, CMP */
			    "pppppppppppppppp" /* REX */
			    "........hhhhhhhh" /* POP */
			    "...hpppp.h.h...." /* MOVSXD, IMUL */
			    "hhhhhhhhhhhhhhhh" /* Jcc */
			    "rr.rhhrrrrhh.l.." /* arithmetic, TEST, XCHG, MOV, LEA */
			    "hhhhhhhhhh....hh" /* XCHG with RAX, CBW, CWD, SAHF, LAHF */
			    "........hh......" /* TEST */
			    "hhhhhhhhhhhhhhhh" /* MOV of an immediate */
			    "rr....mm....h..." /* shifts, MOV of an immediate, INT3 */
			    "rrrrh...h......." /* shifts; d4: #UD; d8: x87 arithmetic with memory or registers */
			    "hhhh.....h.h...." /* LOOP, JRCXZ, JMP */
			    "..pp.hrrhhh.hhii" /* TEST and others, flags, INC, DEC */;

/* One instruction at any offset. at has LONGEST_INSTRUCTION + 1 bytes. */
static bool is_harmless(const u8 *at)
{
	unsigned i = 0, modrm, reg;

	while (kinds[at[i]] == 'p')
		if (++i == LONGEST_INSTRUCTION)
			return true; /* too long: #GP */
	modrm = at[i + 1];
	reg = modrm >> 3 & 7;
	switch (kinds[at[i]]) {
	case 'h':
		return true;
	case 'l':
		return modrm < 0xc0;
	case 'r':
		return modrm >= 0xc0;
	case 'm':
		return modrm >= 0xc0 && reg == 0;
	case 'i':
		return modrm >= 0xc0 && reg < 2;
	default:
		return false;
	}
}

bool gate_page_is_safe(const u8 page[PAGE_SIZE], u32 cr3, u32 monitor_eptp)
{
	const u8 *entry = page + HYPERPS_GATE_ENTRY;

	/* The fill must be an EPT pointer that is useless as a page-table entry, and whose sign extension is itself. */
	if (monitor_eptp >> 31 || (monitor_eptp & (PAGE_SIZE - 1)) != ROOT_FLAGS ||
	    (cr3 & (PAGE_SIZE - 1)) != GATE_PCID)
		return false;
	for (u32 i = 0; i < PAGE_SIZE; i++) {
		u32 offset = i - HYPERPS_GATE_ENTRY;
		u8 expected = i < HYPERPS_GATE_ENTRY || offset >= END ? INT3 : code[offset];

		if (offset - FILL_IMMEDIATE < 4 || offset - LOAD_CR3_IMMEDIATE < 4)
			continue;
		if (page[i] != expected)
			return false;
	}
	if (get32(entry + FILL_IMMEDIATE) != monitor_eptp || get32(entry + LOAD_CR3_IMMEDIATE) != cr3)
		return false;
	/* The page's ends are INT3, one byte long: no instruction crosses them. */
	for (u32 offset = 0; offset < END; offset++) {
		/* The fill, with and without its REX prefix (the upper half of the slot is 0 anyway), and what is meant. */
		if (offset == FILL || offset == FILL + 1 || offset == LOAD_CR3 || offset == CLEAR_DR7 ||
		    offset == VMFUNC)
			continue;
		if (!is_harmless(entry + offset))
			return false;
	}
	return true;
}

bool gate_root_is_safe(u64 root, u8 scratch[PAGE_SIZE])
{
	u32 harmless_cr3 = 0x90909000 | GATE_PCID, eptp = (u32)root | ROOT_FLAGS;

	if (root >> 31 || root % PAGE_SIZE)
		return false;
	gate_page_fill(scratch, harmless_cr3, eptp);
	return gate_page_is_safe(scratch, harmless_cr3, eptp);
}
