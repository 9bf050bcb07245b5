// SPDX-License-Identifier: MIT
#include "gate_page.h"
#include "hyperps/abi.h"

#define INT3 0xcc
#define LONGEST_INSTRUCTION 15
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

/* Intel SDM, appendix "Opcode Map": one-byte opcodes in 64-bit mode, by what a hostile caller could do with them. */
enum kind {
	REFUSED = 0,
	HARMLESS, /* registers and loads only, a jump that stores nothing, or an exception, whatever follows */
	NO_MEMORY, /* stores to its ModRM operand, so that must be a register */
	PREFIX,
};

static enum kind kind_of(u8 opcode, u8 modrm)
{
	unsigned reg = modrm >> 3 & 7;

	switch (opcode) {
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x40 ... 0x4f:
	case 0x64 ... 0x67:
	case 0xf2:
	case 0xf3:
		return PREFIX;
	case 0x1e: /* #UD */
	case 0xd4:
	case 0x58 ... 0x5f: /* POP */
	case 0x63: /* MOVSXD, IMUL */
	case 0x69:
	case 0x6b:
	case 0x70 ... 0x7f: /* Jcc */
	case 0x84: /* TEST */
	case 0x85:
	case 0x8a: /* loads */
	case 0x8b:
	case 0x90 ... 0x99: /* XCHG with RAX, CBW, CWD */
	case 0x9e: /* SAHF, LAHF */
	case 0x9f:
	case 0xa8: /* TEST with an immediate */
	case 0xa9:
	case 0xb0 ... 0xbf: /* MOV of an immediate */
	case INT3:
	case 0xd8: /* x87 arithmetic on a memory operand or registers */
	case 0xe0 ... 0xe3: /* LOOP, JRCXZ */
	case 0xe9: /* JMP */
	case 0xeb:
	case 0xf5: /* flags */
	case 0xf8 ... 0xfa:
	case 0xfc:
	case 0xfd:
		return HARMLESS;
	case 0x00 ... 0x05:
	case 0x08 ... 0x0d:
	case 0x10 ... 0x15:
	case 0x18 ... 0x1d:
	case 0x20 ... 0x25:
	case 0x28 ... 0x2d:
	case 0x30 ... 0x35:
		return (opcode & 7) < 2 ? NO_MEMORY : HARMLESS;
	case 0x38 ... 0x3d: /* CMP */
		return HARMLESS;
	case 0x80:
	case 0x81:
	case 0x83:
	case 0x86 ... 0x89:
	case 0xc0:
	case 0xc1:
	case 0xd0 ... 0xd3:
	case 0xf6:
	case 0xf7:
		return NO_MEMORY;
	case 0x8d: /* LEA; with a register it is undefined */
		return modrm < 0xc0 ? HARMLESS : REFUSED;
	case 0xc6: /* not XABORT, XBEGIN; not what is no INC or DEC */
	case 0xc7:
		return reg == 0 ? NO_MEMORY : REFUSED;
	case 0xfe:
	case 0xff:
		return reg < 2 ? NO_MEMORY : REFUSED;
	default:
		return REFUSED;
	}
}

/* One instruction at any offset. at has LONGEST_INSTRUCTION + 1 bytes. */
static bool is_harmless(const u8 *at)
{
	for (unsigned i = 0; i < LONGEST_INSTRUCTION; i++) {
		enum kind kind = kind_of(at[i], at[i + 1]);

		if (kind != PREFIX)
			return kind == HARMLESS || (kind == NO_MEMORY && at[i + 1] >= 0xc0);
	}
	return true; /* too long: #GP */
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
