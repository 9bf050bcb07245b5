// SPDX-License-Identifier: MIT
/* SDM, "Instruction Format" and "Opcode Map". */
#include "decode.h"
#include "x86.h"

static u64 mask(unsigned bytes)
{
	return ~0ULL >> (64 - 8 * bytes);
}

static u64 sign_extended(u64 value, unsigned bytes)
{
	return (u64)((s64)(value << (64 - 8 * bytes)) >> (64 - 8 * bytes));
}

bool decode_mmio(const u8 *code, unsigned available, unsigned mode_bits, struct mmio_instruction *out)
{
	/* Code that is cut off is decoded as if zeros followed, and refused when its length is known. */
	u8 b[32] = { 0 };
	unsigned at = 0, rex = 0, operand = mode_bits == 16 ? 2 : 4, address = mode_bits / 8;
	unsigned opcode, wide, mod, rm;
	struct mmio_instruction m = { 0 };

	available = available < LONGEST_INSTRUCTION ? available : LONGEST_INSTRUCTION;
	__builtin_memcpy(b, code, available);
	for (; at < available; at++) {
		if (mode_bits == 64 && (b[at] & 0xf0) == 0x40) {
			rex = b[at];
			continue;
		}
		if (b[at] == 0x66)
			operand = mode_bits == 16 ? 4 : 2;
		else if (b[at] == 0x67)
			address = mode_bits == 32 ? 2 : 4;
		else if ((b[at] & 0xe7) != 0x26 && b[at] != 0x64 && b[at] != 0x65)
			break;
		rex = 0; /* one that is not the last prefix is ignored */
	}
	operand = rex & 8 ? 8 : operand;
	opcode = b[at++];
	if (opcode == 0x0f)
		opcode = 0x0f00 | b[at++];
	wide = opcode & 1;
	m.bytes = m.destination_bytes = wide ? operand : 1;

	switch (opcode) {
	case 0x88 ... 0x89: /* MOV r/m, r */
	case 0xa2 ... 0xa3: /* MOV moffs, rAX */
	case 0xc6 ... 0xc7: /* MOV r/m, imm */
		m.write = true;
		break;
	case 0x8a ... 0x8b: /* MOV r, r/m */
	case 0xa0 ... 0xa1: /* MOV rAX, moffs */
		break;
	case 0x63: /* MOVSXD r, r/m; outside 64-bit mode ARPL */
		if (mode_bits != 64)
			return false;
		m.bytes = operand < 4 ? operand : 4;
		m.sign_extend = true;
		break;
	case 0x0fb6 ... 0x0fb7: /* MOVZX r, r/m */
	case 0x0fbe ... 0x0fbf: /* MOVSX r, r/m */
		m.bytes = 1 + wide;
		m.destination_bytes = operand;
		m.sign_extend = opcode & 8;
		break;
	default:
		return false;
	}

	if ((opcode & ~3u) == 0xa0) {
		at += address;
	} else {
		mod = b[at] >> 6;
		rm = b[at] & 7;
		m.reg = b[at++] >> 3 & 7;
		if (mod == 3)
			return false;
		if (address != 2 && rm == 4)
			rm = b[at++] & 7; /* SIB: its base decides on the displacement */
		if (mod == 1)
			at++;
		else if (mod == 2 || rm == (address == 2 ? 6 : 5))
			at += address == 2 ? 2 : 4;
		m.immediate = (opcode & ~1u) == 0xc6;
		if (m.immediate) {
			unsigned n = m.bytes < 4 ? m.bytes : 4;

			if (m.reg != 0)
				return false;
			__builtin_memcpy(&m.value, b + at, n);
			m.value = sign_extended(m.value, n);
			at += n;
		} else if (m.destination_bytes == 1 && !rex && m.reg >= 4) {
			m.reg -= 4;
			m.high_byte = true;
		} else {
			m.reg |= (rex & 4) << 1;
		}
	}
	m.length = (u8)at;
	*out = m;
	return at <= available;
}

u64 mmio_write_value(const struct mmio_instruction *instruction, const u64 registers[16])
{
	u64 value = instruction->immediate ? instruction->value : registers[instruction->reg];

	return value >> (instruction->high_byte ? 8 : 0) & mask(instruction->bytes);
}

void mmio_read_result(const struct mmio_instruction *instruction, u64 value, u64 registers[16])
{
	unsigned bytes = instruction->destination_bytes, shift = instruction->high_byte ? 8 : 0;
	u64 *reg = &registers[instruction->reg], written = mask(bytes) << shift;

	value &= mask(instruction->bytes);
	if (instruction->sign_extend)
		value = sign_extended(value, instruction->bytes);
	/* A write of 32 bits zeroes the upper half ("General-Purpose Registers in 64-Bit Mode"); shorter ones keep the rest. */
	*reg = (bytes == 4 ? 0 : *reg & ~written) | (value << shift & written);
}
