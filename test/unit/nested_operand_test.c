// SPDX-License-Identifier: MIT
/*
 * nested/operand.c: the address of each form of operand against a computation of the test's; where it is not canonical, crosses
 * pages, or leads to a page fault or to memory that is not the host's, what the host gets, and that nothing is read or
 * written then.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "log.h"
#include "memory_service.h"
#include "nested.h"
#include "paging.h"
#include "vmcs_words.h"

#define NO_EVENT 0
#define GPA_OF(linear) ((linear) ^ 0x5a5a5000) /* of the pages that are mapped */

static struct cpu cpu;
static u64 cr2, seed = 88172645463325252ULL;
static struct registers regs;
static unsigned refused, translations, accesses;

/* What the walk finds at first_page and the next one, and whether their frames are the host's. */
static u64 first_page;
static enum translation found[2];
static bool is_host[2], written;
static u8 data[2 * PAGE_SIZE]; /* of these pages */
static struct paging seen;

void *read_gs_0(void)
{
	return &cpu;
}

void write_register(const char *name, u64 value)
{
	assert_string_equal(name, "cr2");
	cr2 = value;
}

void log_refusal(enum refusal kind, const char *format, ...)
{
	(void)format;
	assert_int_equal(kind, REFUSED_MEMORY);
	refused++;
}

static u64 *field(vmcs_field_t field)
{
	return &vmcs[field.encoding];
}

static unsigned page_of(u64 linear)
{
	u64 page = (linear - first_page) / PAGE_SIZE;

	assert_in_range(page, 0, 1);
	return (unsigned)page;
}

enum translation host_translate(const struct paging *paging, u64 linear, bool write, u64 *gpa, u32 *error_code)
{
	unsigned page = page_of(linear);

	assert_int_equal(page, translations++);
	assert_int_equal(accesses, 0); /* first all of this */
	assert_int_equal(write, written);
	seen = *paging;
	*gpa = GPA_OF(linear);
	*error_code = 0x1000 + page;
	return found[page];
}

static unsigned access_host(u64 gpa, unsigned bytes)
{
	unsigned page = page_of(GPA_OF(gpa));

	assert_int_equal(page, accesses++);
	assert_in_range(bytes, 1, PAGE_SIZE - gpa % PAGE_SIZE);
	return page;
}

bool memory_read_host(u64 gpa, void *out, unsigned bytes)
{
	unsigned page = access_host(gpa, bytes);

	assert_false(written);
	memcpy(out, data + page * PAGE_SIZE + gpa % PAGE_SIZE, bytes);
	return is_host[page];
}

bool memory_write_host(u64 gpa, const void *in, unsigned bytes)
{
	unsigned page = access_host(gpa, bytes);

	assert_true(written);
	if (is_host[page])
		memcpy(data + page * PAGE_SIZE + gpa % PAGE_SIZE, in, bytes);
	return is_host[page];
}

static u64 next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void reset(void)
{
	memset(vmcs, 0, sizeof(vmcs));
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (u8)next();
	cr2 = refused = translations = accesses = 0;
	found[0] = found[1] = TRANSLATED;
	is_host[0] = is_host[1] = true;
	cpu.capabilities.physical_address_bits = 46;
	*field(VMCS_GUEST_CR0) = CR0_PE | CR0_PG | CR0_WP;
	*field(VMCS_GUEST_CR3) = 0x1234000;
	*field(VMCS_GUEST_CR4) = CR4_PAE | CR4_SMAP;
	*field(VMCS_GUEST_IA32_EFER) = EFER_LMA | EFER_NXE;
	*field(VMCS_GUEST_RFLAGS) = RFLAGS_AC;
	*field(VMCS_GUEST_RIP) = 0xffffffff81000000;
	/* Not to be taken for anything: RSP lies in the VMCS, segments but FS and GS have no base. */
	regs.value[REGISTER_RSP] = 0x6666666666666666;
	for (unsigned segment = 0; segment < SEGMENTS; segment++)
		*field(VMCS_GUEST_BASE(segment)) = 0x7777777777777777;
}

/* An operand of an instruction: its address is register + displacement (NO_BASE: displacement). */
static void set_operand(u64 address, unsigned segment)
{
	*field(VMCS_INSTRUCTION_INFO) = BIT(27) | BIT(22) | 2 << 7 | segment << 15;
	*field(VMCS_EXIT_QUALIFICATION) = address;
	first_page = address & ~0xfffULL;
}

static void assert_exception(unsigned vector, u64 error_code)
{
	assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO), BIT(31) | BIT(11) | 3 << 8 | vector);
	assert_int_equal(*field(VMCS_ENTRY_EXCEPTION_ERROR_CODE), error_code);
	if (vector != VECTOR_PF)
		assert_int_equal(cr2, 0);
}

static bool canonical(u64 address, unsigned bits)
{
	return address < BIT(bits - 1) || address >= 0 - BIT(bits - 1);
}

/* Reads or writes; true: done, and the right bytes. */
static bool run(u64 address, unsigned bytes, bool write)
{
	u8 out[16] = { 0 }, before[2 * PAGE_SIZE];
	u64 value = next(), offset = address % PAGE_SIZE;
	bool done;

	translations = accesses = 0;
	*field(VMCS_ENTRY_INTERRUPTION_INFO) = NO_EVENT;
	first_page = address & ~0xfffULL;
	written = write;
	memcpy(before, data, sizeof(data));
	done = write ? operand_write(&regs, value) : operand_read(&regs, out, bytes);
	if (done) {
		assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO), NO_EVENT);
		assert_int_equal(translations, offset + bytes > PAGE_SIZE ? 2 : 1);
		assert_int_equal(accesses, translations);
		if (write)
			memcpy(before + offset, &value, 8);
		else
			assert_memory_equal(out, data + offset, bytes);
	}
	if (done || !accesses)
		assert_memory_equal(before, data, sizeof(data));
	return done;
}

/* All forms of address, with registers at random. */
static void each_form(void **state)
{
	unsigned good = 0, bad = 0;

	(void)state;
	for (unsigned round = 0; round < 200000; round++) {
		u64 info = (next() & 0xffffffff) & ~(7ULL << 7), qualification = next(), address, value;
		unsigned segment = (unsigned)(next() >> 20) % 6, bits = next() & BIT(30) ? 57 : 48;
		unsigned bytes = next() & BIT(20) ? 16 : 8, size = next() & BIT(21) ? 1 : 2;
		bool write = bytes == 8 && (next() & BIT(22));

		if (round % 64 == 0)
			reset();
		*field(VMCS_GUEST_CR4) = bits == 57 ? CR4_LA57 : 0;
		info = (info & ~(7ULL << 15)) | (u64)segment << 15 | size << 7;
		for (unsigned i = 0; i < 16; i++)
			regs.value[i] = i == REGISTER_RSP ? next() : next() >> 16 << (next() & 7);
		*field(VMCS_GUEST_RSP) = next() >> 17;
		*field(VMCS_GUEST_BASE(SEGMENT_FS)) = next() >> 17;
		*field(VMCS_GUEST_BASE(SEGMENT_GS)) = ~(next() >> 17);
		qualification = next() & BIT(23) ? qualification >> 32 : (u64)(s64)(int)qualification;
		*field(VMCS_INSTRUCTION_INFO) = info;
		*field(VMCS_EXIT_QUALIFICATION) = qualification;

		address = qualification;
		if (!(info >> 27 & 1)) {
			value = regs.value[info >> 23 & 15];
			if ((info >> 23 & 15) == 4)
				value = *field(VMCS_GUEST_RSP);
			address += value;
		}
		if (!(info >> 22 & 1)) {
			value = regs.value[info >> 18 & 15];
			if ((info >> 18 & 15) == 4)
				value = *field(VMCS_GUEST_RSP);
			for (unsigned i = 0; i < (info & 3); i++)
				value += value;
			address += value;
		}
		if (size == 1)
			address %= 1ULL << 32;
		if (segment == 4)
			address += *field(VMCS_GUEST_BASE(SEGMENT_FS));
		if (segment == 5)
			address += *field(VMCS_GUEST_BASE(SEGMENT_GS));
		if (canonical(address, bits) && canonical(address + bytes - 1, bits)) {
			assert_true(run(address, bytes, write));
			good++;
		} else {
			assert_false(run(address, bytes, write));
			assert_exception(segment == 2 ? 12 : 13, 0);
			assert_int_equal(translations + accesses, 0);
			bad++;
		}
	}
	assert_in_range(good, 50000, 190000);
	assert_true(bad > 10000);
	assert_int_equal(refused, 0);
}

/* The operand's bytes around each end of what is canonical, and around the end of all. */
static void ends_of_the_address_space(void **state)
{
	static const unsigned widths[] = { 48, 57 };

	(void)state;
	for (unsigned w = 0; w < 2; w++) {
		u64 low_end = BIT(widths[w] - 1), high = 0 - low_end;

		for (u64 before = 1; before < 24; before++) {
			for (unsigned segment = 0; segment < 4; segment++) {
				reset();
				*field(VMCS_GUEST_CR4) |= widths[w] == 57 ? CR4_LA57 : 0;
				set_operand(low_end - before, segment);
				assert_int_equal(run(low_end - before, 16, false), before >= 16);
				if (before < 16)
					assert_exception(segment == SEGMENT_SS ? VECTOR_SS : VECTOR_GP, 0);
				set_operand(high - before, segment);
				assert_false(run(high - before, 16, false));
				assert_exception(segment == SEGMENT_SS ? VECTOR_SS : VECTOR_GP, 0);
				set_operand(high + before - 1, segment);
				assert_true(run(high + before - 1, 16, false));
				/* The byte behind the last is the first. */
				set_operand(0 - before, segment);
				assert_true(run(0 - before, 16, false));
				assert_int_equal(translations, before < 16 ? 2 : 1);
			}
		}
		/* FS and GS are no stack. */
		reset();
		*field(VMCS_GUEST_BASE(SEGMENT_GS)) = 0;
		set_operand(BIT(60), SEGMENT_GS);
		assert_false(run(BIT(60), 8, false));
		assert_exception(VECTOR_GP, 0);
	}
}

#define HERE 0xffffc90000123ff8ULL

/* Each page's translation and frame, for reading and for writing, in one page and in two. */
static void faults_and_refusals(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 72 * 8; how++) {
		bool write = how & 1, done;
		u64 address = HERE + how / 72, second = (HERE & ~0xfffULL) + PAGE_SIZE;
		bool two = address + 8 > second;

		reset();
		is_host[0] = how & 2;
		is_host[1] = how & 4;
		found[0] = (enum translation)(how / 8 % 3);
		found[1] = (enum translation)(how / 24 % 3);
		set_operand(address, SEGMENT_DS);
		done = run(address, 8, write);
		if (found[0] == TRANSLATION_FAULT || (two && found[0] == TRANSLATED && found[1] == TRANSLATION_FAULT)) {
			bool first = found[0] == TRANSLATION_FAULT;

			assert_false(done);
			assert_exception(VECTOR_PF, first ? 0x1000 : 0x1001);
			assert_true(cr2 == (first ? address : second));
			assert_int_equal(accesses + refused, 0);
		} else if (found[0] == TRANSLATION_REFUSED || (two && found[1] == TRANSLATION_REFUSED)) {
			assert_false(done);
			assert_exception(VECTOR_GP, 0);
			assert_int_equal(accesses, 0);
			assert_int_equal(refused, 1);
		} else if (!is_host[0] || (two && !is_host[1])) {
			assert_false(done);
			assert_exception(VECTOR_GP, 0);
			assert_int_equal(accesses, is_host[0] ? 2 : 1);
			assert_int_equal(refused, 1);
		} else {
			assert_true(done);
			assert_int_equal(refused, 0);
		}
	}
}

static void what_decides_is_the_hosts(void **state)
{
	(void)state;
	reset();
	set_operand(HERE, SEGMENT_DS);
	assert_true(run(HERE, 8, false));
	assert_int_equal(seen.cr0, CR0_PE | CR0_PG | CR0_WP);
	assert_int_equal(seen.cr3, 0x1234000);
	assert_int_equal(seen.cr4, CR4_PAE | CR4_SMAP);
	assert_int_equal(seen.efer, EFER_LMA | EFER_NXE);
	assert_int_equal(seen.rflags, RFLAGS_AC);
	assert_int_equal(seen.physical_address_bits, 46);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_form),
		cmocka_unit_test(ends_of_the_address_space),
		cmocka_unit_test(faults_and_refusals),
		cmocka_unit_test(what_decides_is_the_hosts),
	};

	return cmocka_run_group_tests_name("nested_operand", tests, NULL, NULL);
}
