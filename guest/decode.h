/* SPDX-License-Identifier: MIT */
/* Decodes the instruction that made an MMIO access, and does its register part. Pure. */
#ifndef DECODE_H
#define DECODE_H

#include "types.h"

struct mmio_instruction {
	u8 length;
	u8 bytes; /* of the access: 1, 2, 4, 8 */
	bool write;
	bool sign_extend;
	u8 destination_bytes; /* of the register that a read fills: more than `bytes` for MOVZX, MOVSX, MOVSXD */
	u8 reg; /* 0 to 15, in hardware encoding: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15 */
	bool high_byte; /* AH, CH, DH, BH: bits 15:8 of `reg` */
	bool immediate; /* the write is of `value` */
	u64 value; /* sign-extended */
};

/*
 * Decodes MOV, MOVZX, MOVSX or MOVSXD between memory and a general-purpose register, or MOV of an immediate to memory.
 * `available`: how many bytes of code there are; mode_bits: 16, 32 or 64, the code segment's default size. False: it is
 * something else, or there are too few bytes.
 */
bool decode_mmio(const u8 *code, unsigned available, unsigned mode_bits, struct mmio_instruction *out);

/* The value that the instruction writes, of `bytes` bytes. */
u64 mmio_write_value(const struct mmio_instruction *instruction, const u64 registers[16]);

/* Gives the instruction's register what was read; of `value` only `bytes` bytes count. */
void mmio_read_result(const struct mmio_instruction *instruction, u64 value, u64 registers[16]);

#endif
