// SPDX-License-Identifier: MIT
/*
 * guest/decode.c: each form in each mode, code that is cut off, and what goes to and from registers. With an argument N
 * it prints N random instructions and what became of them, for a disassembler to compare (test/decode_bytes.py).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "decode.h"

#define LONGEST 15

static u64 seed = 88172645463325252ULL;

static u32 next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (u32)(seed >> 16);
}

/* The code in a buffer of just its size, so that ASan sees a read beyond it. */
static bool decode(const u8 *code, unsigned available, unsigned mode, struct mmio_instruction *m)
{
	u8 *copy = malloc(available);
	bool ok;

	memcpy(copy, code, available);
	ok = decode_mmio(copy, available, mode, m);
	free(copy);
	if (ok) {
		assert_in_range(m->length, 2, available);
		assert_true(m->bytes == 1 || m->bytes == 2 || m->bytes == 4 || m->bytes == 8);
		assert_true(m->destination_bytes >= m->bytes && m->destination_bytes <= 8);
		assert_in_range(m->reg, 0, mode == 64 ? 15 : 7);
	}
	return ok;
}

/* Hexadecimal text to bytes; returns how many. */
static unsigned parse(const char *text, u8 *code)
{
	unsigned n = 0, at, byte;

	for (; sscanf(text, "%2x%n", &byte, &at) == 1; text += at)
		code[n++] = (u8)byte;
	return n;
}

static const struct {
	unsigned mode;
	const char *code;
	struct mmio_instruction m; /* its length is that of the code */
} forms[] = {
#define READ(n, to, r)                                                                                                 \
	{                                                                                                              \
		.bytes = n, .destination_bytes = to, .reg = r                                                          \
	}
#define READ_SIGNED(n, to, r)                                                                                          \
	{                                                                                                              \
		.bytes = n, .destination_bytes = to, .reg = r, .sign_extend = true                                     \
	}
#define WRITE(n, r)                                                                                                    \
	{                                                                                                              \
		.bytes = n, .destination_bytes = n, .reg = r, .write = true                                            \
	}
#define WRITE_VALUE(n, v)                                                                                              \
	{                                                                                                              \
		.bytes = n, .destination_bytes = n, .write = true, .immediate = true, .value = (u64)(v)                \
	}
	/* MOV r/m, r */
	{ 64, "88 07", WRITE(1, 0) }, /* mov [rdi], al */
	{ 64, "88 27", { .bytes = 1, .destination_bytes = 1, .reg = 0, .high_byte = true, .write = true } }, /* ah */
	{ 64, "88 3f", { .bytes = 1, .destination_bytes = 1, .reg = 3, .high_byte = true, .write = true } }, /* bh */
	{ 64, "40 88 27", WRITE(1, 4) }, /* spl */
	{ 64, "40 88 3f", WRITE(1, 7) }, /* dil */
	{ 64, "44 88 3f", WRITE(1, 15) }, /* r15b */
	{ 64, "89 07", WRITE(4, 0) }, /* mov [rdi], eax */
	{ 64, "66 89 07", WRITE(2, 0) },
	{ 64, "48 89 07", WRITE(8, 0) },
	{ 64, "66 48 89 07", WRITE(8, 0) }, /* REX.W wins */
	{ 64, "48 66 89 07", WRITE(2, 0) }, /* REX is ignored but right before the opcode */
	{ 64, "48 44 89 07", WRITE(4, 8) }, /* likewise the first of two */
	{ 64, "4d 89 0f", WRITE(8, 9) }, /* mov [r15], r9 */
	{ 32, "89 07", WRITE(4, 0) },
	{ 32, "66 89 07", WRITE(2, 0) },
	{ 16, "89 07", WRITE(2, 0) }, /* mov [bx], ax */
	{ 16, "66 89 07", WRITE(4, 0) },
	/* MOV r, r/m */
	{ 64, "8a 0f", READ(1, 1, 1) }, /* mov cl, [rdi] */
	{ 64, "8a 2f", { .bytes = 1, .destination_bytes = 1, .reg = 1, .high_byte = true } }, /* ch */
	{ 64, "8b 0f", READ(4, 4, 1) },
	{ 64, "4c 8b 27", READ(8, 8, 12) },
	{ 32, "66 8b 0f", READ(2, 2, 1) },
	{ 16, "8b 0f", READ(2, 2, 1) },
	/* MOV with moffs: the address has the address size. */
	{ 64, "a0 11 22 33 44 55 66 77 88", READ(1, 1, 0) },
	{ 64, "a1 11 22 33 44 55 66 77 88", READ(4, 4, 0) },
	{ 64, "48 a1 11 22 33 44 55 66 77 88", READ(8, 8, 0) },
	{ 64, "67 a1 11 22 33 44", READ(4, 4, 0) },
	{ 64, "4f a3 11 22 33 44 55 66 77 88", WRITE(8, 0) }, /* always RAX */
	{ 64, "a2 11 22 33 44 55 66 77 88", WRITE(1, 0) },
	{ 32, "a1 11 22 33 44", READ(4, 4, 0) },
	{ 32, "67 a3 11 22", WRITE(4, 0) },
	{ 32, "66 a3 11 22 33 44", WRITE(2, 0) },
	{ 16, "a1 11 22", READ(2, 2, 0) },
	{ 16, "67 a2 11 22 33 44", WRITE(1, 0) },
	{ 16, "66 a1 11 22", READ(4, 4, 0) },
	/* MOV r/m, imm: at most 4 bytes, sign-extended. */
	{ 64, "c6 07 80", WRITE_VALUE(1, -0x80) },
	{ 64, "c7 07 11 22 33 84", WRITE_VALUE(4, (s64)0xffffffff84332211) },
	{ 64, "66 c7 07 11 82", WRITE_VALUE(2, (s64)0xffffffffffff8211) },
	{ 64, "48 c7 07 11 22 33 84", WRITE_VALUE(8, (s64)0xffffffff84332211) },
	{ 64, "4c c7 07 11 22 33 44", WRITE_VALUE(8, 0x44332211) }, /* REX.R means nothing here */
	{ 64, "c7 44 24 10 11 22 33 44", WRITE_VALUE(4, 0x44332211) }, /* [rsp + 0x10] */
	{ 64, "c7 05 01 02 03 04 11 22 33 44", WRITE_VALUE(4, 0x44332211) }, /* [rip + ...] */
	{ 16, "c7 06 01 02 11 22", WRITE_VALUE(2, 0x2211) },
	{ 16, "66 c7 06 01 02 11 22 33 44", WRITE_VALUE(4, 0x44332211) },
	/* MOVZX, MOVSX, MOVSXD */
	{ 64, "0f b6 07", READ(1, 4, 0) },
	{ 64, "66 0f b6 27", READ(1, 2, 4) }, /* movzx sp, byte: no high byte */
	{ 64, "48 0f b6 07", READ(1, 8, 0) },
	{ 64, "0f b7 07", READ(2, 4, 0) },
	{ 64, "4c 0f b7 07", READ(2, 8, 8) },
	{ 64, "66 0f b7 07", READ(2, 2, 0) },
	{ 64, "0f be 07", READ_SIGNED(1, 4, 0) },
	{ 64, "48 0f be 07", READ_SIGNED(1, 8, 0) },
	{ 64, "48 0f bf 07", READ_SIGNED(2, 8, 0) },
	{ 32, "0f b7 07", READ(2, 4, 0) },
	{ 16, "0f b6 07", READ(1, 2, 0) },
	{ 16, "66 0f be 07", READ_SIGNED(1, 4, 0) },
	{ 64, "48 63 07", READ_SIGNED(4, 8, 0) },
	{ 64, "63 07", READ_SIGNED(4, 4, 0) },
	{ 64, "66 63 07", READ_SIGNED(2, 2, 0) },
	/* Addressing. */
	{ 64, "8b 47 11", READ(4, 4, 0) }, /* disp8 */
	{ 64, "8b 87 11 22 33 44", READ(4, 4, 0) }, /* disp32 */
	{ 64, "8b 05 11 22 33 44", READ(4, 4, 0) }, /* RIP-relative */
	{ 64, "67 8b 05 11 22 33 44", READ(4, 4, 0) },
	{ 64, "8b 04 08", READ(4, 4, 0) }, /* SIB */
	{ 64, "8b 04 25 11 22 33 44", READ(4, 4, 0) }, /* no base */
	{ 64, "41 8b 04 25 11 22 33 44", READ(4, 4, 0) }, /* nor with REX.B */
	{ 64, "8b 44 25 11", READ(4, 4, 0) }, /* RBP as base */
	{ 64, "8b 84 25 11 22 33 44", READ(4, 4, 0) },
	{ 64, "41 8b 04 24", READ(4, 4, 0) }, /* [r12] */
	{ 64, "41 8b 45 00", READ(4, 4, 0) }, /* [r13] */
	{ 32, "8b 05 11 22 33 44", READ(4, 4, 0) }, /* [disp32] */
	{ 32, "8b 45 11", READ(4, 4, 0) },
	{ 32, "8b 04 25 11 22 33 44", READ(4, 4, 0) },
	{ 32, "67 8b 04", READ(4, 4, 0) }, /* [si] */
	{ 32, "67 8b 05", READ(4, 4, 0) }, /* [di] */
	{ 32, "67 8b 06 11 22", READ(4, 4, 0) }, /* [disp16] */
	{ 16, "8b 04", READ(2, 2, 0) },
	{ 16, "8b 46 11", READ(2, 2, 0) }, /* [bp + disp8] */
	{ 16, "8b 86 11 22", READ(2, 2, 0) },
	{ 16, "67 8b 04 25 11 22 33 44", READ(2, 2, 0) },
	/* Segments; the longest instruction there is. */
	{ 64, "65 8b 04 25 11 22 33 44", READ(4, 4, 0) },
	{ 32, "26 2e 36 3e 64 65 8b 07", READ(4, 4, 0) },
	{ 64, "2e 2e 48 c7 84 25 11 22 33 44 55 66 77 08", WRITE_VALUE(8, 0x08776655) },
	{ 64, "2e 2e 2e 48 c7 84 25 11 22 33 44 55 66 77 08", WRITE_VALUE(8, 0x08776655) },
};

static void every_form(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		struct mmio_instruction expected = forms[i].m, m, untouched;
		u8 code[LONGEST + 5] = { 0 };
		unsigned n = parse(forms[i].code, code);

		expected.length = (u8)n;
		memset(&m, 0, sizeof(m));
		if (!decode(code, n, forms[i].mode, &m))
			fail_msg("%u-bit %s is refused", forms[i].mode, forms[i].code);
		if (memcmp(&m, &expected, sizeof(m)) != 0)
			fail_msg("%u-bit %s: length %u bytes %u to %u register %u", forms[i].mode, forms[i].code,
				 m.length, m.bytes, m.destination_bytes, m.reg);
		assert_true(decode(code, LONGEST, forms[i].mode, &m) && m.length == n);
		assert_true(decode(code, LONGEST + 5, forms[i].mode, &m) && m.length == n);
		for (unsigned cut = 0; cut < n; cut++)
			assert_false(decode(code, cut, forms[i].mode, &untouched));
	}
}

static void anything_else_is_refused(void **state)
{
	static const struct {
		unsigned mode;
		const char *code;
	} others[] = {
		{ 64, "f0 89 07" }, /* LOCK: #UD */
		{ 64, "f2 89 07" }, /* XACQUIRE */
		{ 64, "f3 89 07" }, /* XRELEASE */
		{ 64, "89 c7" },
		{ 64, "8b c7" },
		{ 64, "c7 c0 11 22 33 44" },
		{ 64, "0f b6 c0" },
		{ 64, "48 63 c0" },
		{ 64, "c7 0f 11 22 33 44" },
		{ 64, "c6 3f 11" }, /* undefined members of the group */
		{ 64, "c6 f8 11" },
		{ 64, "c7 f8 11 22 33 44" }, /* XABORT, XBEGIN */
		{ 32, "63 07" },
		{ 16, "63 07" }, /* ARPL */
		{ 32, "48 89 07" },
		{ 16, "48 89 07" }, /* DEC EAX */
		{ 64, "8c 07" },
		{ 64, "8e 07" },
		{ 64, "8d 07" }, /* segment registers; LEA */
		{ 64, "01 07" },
		{ 64, "87 07" },
		{ 64, "a4" },
		{ 64, "aa" },
		{ 64, "ff 07" },
		{ 64, "0f b0 07" },
		{ 64, "0f 7f 07" },
		{ 64, "66 0f 6f 07" },
		{ 64, "0f c3 07" },
		{ 64, "0f 38 f0 07" },
		{ 64, "0f 20 07" },
		{ 64, "c5 fe 6f 07" },
		{ 64, "62 f1 7c 48 10 07" },
		{ 64, "8f e9 78 01 07" },
		{ 64, "b8 11 22 33 44" },
		{ 64, "2e 2e 2e 2e 48 c7 84 25 11 22 33 44 55 66 77 08" }, /* 16 bytes: #GP */
		{ 64, "66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 66" },
		{ 64, "" },
	};
	struct mmio_instruction m;
	u8 code[20];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		if (decode(code, parse(others[i].code, code), others[i].mode, &m))
			fail_msg("%u-bit %s is accepted", others[i].mode, others[i].code);
}

/* A random instruction, mostly one that is almost right. Returns its size, which need not be that of its bytes. */
static unsigned random_code(u8 code[LONGEST])
{
	static const u8 prefixes[] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0x66, 0x67, 0xf0, 0xf2, 0xf3 };
	static const u8 opcodes[] = {
		0x63, 0x88, 0x89, 0x8a, 0x8b, 0xa0, 0xa1, 0xa2, 0xa3, 0xc6, 0xc7, 0x0f, 0x0f, 0x0f
	};
	static const u8 seconds[] = { 0xb6, 0xb7, 0xbe, 0xbf };
	unsigned at = 0, random = next_random();

	for (unsigned i = 0; i < LONGEST; i++)
		code[i] = (u8)next_random();
	for (unsigned n = random % 4; at < n;)
		code[at++] = prefixes[next_random() % (random & 16 ? ARRAY_SIZE(prefixes) : ARRAY_SIZE(prefixes) - 3)];
	if (random & 64)
		code[at++] = 0x40 | next_random() % 16;
	if (random & 0xf00)
		code[at++] = opcodes[next_random() % ARRAY_SIZE(opcodes)];
	if (at && code[at - 1] == 0x0f && (random & 0xf000))
		code[at++] = seconds[next_random() % ARRAY_SIZE(seconds)];
	if (at && (code[at - 1] & 0xfe) == 0xc6 && (random & 0xf0000))
		code[at] &= 0xc7;
	return random & 0x100000 ? LONGEST : next_random() % (LONGEST + 1);
}

static void random_code_is_decoded_within_bounds(void **state)
{
	unsigned accepted = 0;

	(void)state;
	for (unsigned i = 0; i < 300000; i++) {
		u8 code[LONGEST];
		unsigned n = random_code(code), mode = 16u << i % 3;
		struct mmio_instruction m, again;

		if (!decode(code, n, mode, &m))
			continue;
		accepted++;
		assert_true(decode(code, m.length, mode, &again));
		assert_memory_equal(&m, &again, sizeof(m));
		assert_false(decode(code, m.length - 1u, mode, &again));
	}
	assert_in_range(accepted, 10000, 290000);
}

#define OLD 0x1122334455667788ULL

static u64 written(struct mmio_instruction m)
{
	u64 registers[16];

	for (unsigned i = 0; i < 16; i++)
		registers[i] = OLD + i;
	m.write = true;
	return mmio_write_value(&m, registers);
}

/* What a read gives to its register; all others must keep their value. */
static u64 got(struct mmio_instruction m, u64 value)
{
	u64 registers[16];

	for (unsigned i = 0; i < 16; i++)
		registers[i] = OLD;
	mmio_read_result(&m, value, registers);
	for (unsigned i = 0; i < 16; i++)
		if (i != m.reg)
			assert_int_equal(registers[i], OLD);
	return registers[m.reg];
}

#define ASSERT_U64(a, b) assert_true((a) == (b))

static void values_written(void **state)
{
	(void)state;
	for (u8 reg = 0; reg < 16; reg++) {
		ASSERT_U64(written((struct mmio_instruction){ .bytes = 8, .reg = reg }), OLD + reg);
		ASSERT_U64(written((struct mmio_instruction){ .bytes = 4, .reg = reg }), 0x55667788u + reg);
		ASSERT_U64(written((struct mmio_instruction){ .bytes = 2, .reg = reg }), 0x7788u + reg);
		ASSERT_U64(written((struct mmio_instruction){ .bytes = 1, .reg = reg }), 0x88u + reg);
	}
	ASSERT_U64(written((struct mmio_instruction){ .bytes = 1, .reg = 3, .high_byte = true }), 0x77);
	ASSERT_U64(written((struct mmio_instruction)WRITE_VALUE(1, -2)), 0xfe);
	ASSERT_U64(written((struct mmio_instruction)WRITE_VALUE(2, -2)), 0xfffe);
	ASSERT_U64(written((struct mmio_instruction)WRITE_VALUE(4, -2)), 0xfffffffe);
	ASSERT_U64(written((struct mmio_instruction)WRITE_VALUE(8, -2)), 0xfffffffffffffffe);
}

static void values_read(void **state)
{
	const u64 value = 0xf8e8d8c8b8a89888;

	(void)state;
	for (u8 reg = 0; reg < 16; reg++) {
		ASSERT_U64(got((struct mmio_instruction)READ(8, 8, reg), value), value);
		ASSERT_U64(got((struct mmio_instruction)READ(4, 4, reg), value), 0xb8a89888);
		ASSERT_U64(got((struct mmio_instruction)READ(2, 2, reg), value), 0x1122334455669888);
		ASSERT_U64(got((struct mmio_instruction)READ(1, 1, reg), value), 0x1122334455667788);
		ASSERT_U64(got((struct mmio_instruction)READ(1, 1, reg), 0x99), 0x1122334455667799);
		ASSERT_U64(got((struct mmio_instruction)READ(1, 2, reg), value), 0x1122334455660088);
		ASSERT_U64(got((struct mmio_instruction)READ(1, 4, reg), value), 0x88);
		ASSERT_U64(got((struct mmio_instruction)READ(1, 8, reg), value), 0x88);
		ASSERT_U64(got((struct mmio_instruction)READ(2, 4, reg), value), 0x9888);
		ASSERT_U64(got((struct mmio_instruction)READ(2, 8, reg), value), 0x9888);
		ASSERT_U64(got((struct mmio_instruction)READ_SIGNED(1, 2, reg), value), 0x112233445566ff88);
		ASSERT_U64(got((struct mmio_instruction)READ_SIGNED(1, 4, reg), value), 0xffffff88);
		ASSERT_U64(got((struct mmio_instruction)READ_SIGNED(1, 8, reg), value), 0xffffffffffffff88);
		ASSERT_U64(got((struct mmio_instruction)READ_SIGNED(1, 8, reg), 0x77), 0x77);
		ASSERT_U64(got((struct mmio_instruction)READ_SIGNED(2, 4, reg), value), 0xffff9888);
		ASSERT_U64(got((struct mmio_instruction)READ_SIGNED(2, 8, reg), value), 0xffffffffffff9888);
		ASSERT_U64(got((struct mmio_instruction)READ_SIGNED(4, 8, reg), value), 0xffffffffb8a89888);
		ASSERT_U64(got((struct mmio_instruction)READ_SIGNED(4, 4, reg), value), 0xb8a89888);
		ASSERT_U64(got((struct mmio_instruction)READ_SIGNED(2, 2, reg), value), 0x1122334455669888);
	}
	for (u8 reg = 0; reg < 4; reg++)
		ASSERT_U64(got(
				   (struct mmio_instruction){
					   .bytes = 1, .destination_bytes = 1, .reg = reg, .high_byte = true },
				   0xabcd),
			   0x112233445566cd88);
}

static void print_samples(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct mmio_instruction m = { 0 };
		unsigned mode = 16u << i % 3;
		u8 code[LONGEST];
		bool ok;

		random_code(code);
		ok = decode(code, LONGEST, mode, &m);
		printf("%u ", mode);
		for (unsigned k = 0; k < LONGEST; k++)
			printf("%02x", code[k]);
		if (ok)
			printf(" %u %u %u %u %u %u %u %u %llx", m.length, m.bytes, m.write, m.sign_extend,
			       m.destination_bytes, m.reg, m.high_byte, m.immediate, (unsigned long long)m.value);
		printf("\n");
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_form),
		cmocka_unit_test(anything_else_is_refused),
		cmocka_unit_test(random_code_is_decoded_within_bounds),
		cmocka_unit_test(values_written),
		cmocka_unit_test(values_read),
	};

	if (argc > 1) {
		print_samples((unsigned)atoi(argv[1]));
		return 0;
	}
	return cmocka_run_group_tests_name("decode", tests, NULL, NULL);
}
