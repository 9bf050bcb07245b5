// SPDX-License-Identifier: MIT
/* nested/fields.c: the table of docs/nested.md, "Fields", is that of the code; where a field lies in the page, and how wide it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "nested.h"

#define ENCODINGS 0x8000
#define DOCUMENT "docs/nested.md"

static const char *const kinds[] = {
	[NESTED_COPY] = "copy", [NESTED_MASK] = "mask", [NESTED_OWN] = "own",
	[NESTED_HOST] = "host", [NESTED_INFO] = "info", [NESTED_KEEP] = "keep",
};

/* What the document says of an encoding; kind -1: nothing. */
static struct {
	int kind;
	u8 flags;
} documented[ENCODINGS];

static u64 page[VMCS12_WORDS];
static struct nested nested = { .page = page };

/* The cells of a row, without the blanks around. Returns how many there are. */
static unsigned split(char *line, char *cell[], unsigned most)
{
	unsigned count = 0;

	for (char *next = strchr(line, '|'); next && next[1] && next[1] != '\n' && count < most; count++) {
		char *end = strchr(next + 1, '|');

		cell[count] = next + 1 + strspn(next + 1, " ");
		if (!end)
			break;
		*end = 0;
		for (char *last = end - 1; last >= cell[count] && *last == ' '; last--)
			*last = 0;
		*end = 0;
		next = end;
	}
	return count;
}

static void read_row(char *line)
{
	unsigned first, last, flags = 0;
	char *cell[6];
	int kind = -1;

	if (split(line, cell, 6) != 6)
		fail_msg("a row without six cells: %s", line);
	if (sscanf(cell[0], "0x%x-0x%x", &first, &last) < 2)
		last = first;
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(cell[2], kinds[i]))
			kind = (int)i;
	assert_true(kind >= 0 && last < ENCODINGS && first <= last);
	assert_true(!strcmp(cell[3], "hot") || !strcmp(cell[3], "cold") || !cell[3][0]);
	assert_true(!strcmp(cell[4], "r") || !strcmp(cell[4], "rw") || !cell[4][0]);
	if (cell[4][0])
		flags |= NESTED_SHADOW_READ;
	if (!strcmp(cell[4], "rw"))
		flags |= NESTED_SHADOW_WRITE;
	/* Guest state that VMCS02 has from L1 ("Field Encoding in VMCS": type 2). */
	if ((first >> 10 & 3) == 2 && (kind == NESTED_COPY || kind == NESTED_MASK) && cell[3][0])
		flags |= NESTED_SAVED;
	for (; first <= last; first += 2) {
		assert_int_equal(documented[first].kind, -1);
		documented[first].kind = kind;
		documented[first].flags = flags;
	}
}

static int read_document(void **state)
{
	FILE *file = fopen(DOCUMENT, "r");
	bool inside = false;
	char line[1024];
	unsigned rows = 0;

	(void)state;
	for (unsigned i = 0; i < ENCODINGS; i++)
		documented[i].kind = -1;
	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file)) {
		if (line[0] == '#')
			inside = !strcmp(line, "### Fields\n");
		if (inside && !strncmp(line, "| 0x", 4)) {
			read_row(line);
			rows++;
		}
	}
	fclose(file);
	return rows > 70 ? 0 : -1;
}

static void document_and_code_agree(void **state)
{
	(void)state;
	for (unsigned encoding = 0; encoding < ENCODINGS; encoding++) {
		const struct nested_field *field = nested_field(encoding);

		if (!field != (documented[encoding].kind < 0))
			fail_msg("%#x is in one of document and code", encoding);
		if (!field)
			continue;
		if (field->kind != documented[encoding].kind || field->flags != documented[encoding].flags)
			fail_msg("%#x: %s, flags %x, in the document %s, %x", encoding, kinds[field->kind],
				 field->flags, kinds[documented[encoding].kind], documented[encoding].flags);
	}
	/* An encoding is what L1 has in a register of 64 bits. */
	for (unsigned bit = 15; bit < 64; bit++)
		for (unsigned encoding = 0; encoding < ENCODINGS; encoding++)
			if (nested_field(encoding | BIT(bit)))
				fail_msg("%#x with bit %u is a field", encoding, bit);
}

static void order(void **state)
{
	(void)state;
	for (unsigned i = 0; i < nested_field_count; i++) {
		const struct nested_field *field = &nested_fields[i];

		assert_true(field->first <= field->last && field->first % 2 == 0 && field->last % 2 == 0);
		assert_true(!i || field->first > field[-1].last);
		/* A range is of one width and type. */
		assert_int_equal(field->first >> 10, field->last >> 10);
	}
}

static u64 width_of(u32 encoding)
{
	if (encoding >= 0x4814 && encoding <= 0x4822)
		return 0x1f0ff;
	switch (encoding >> 13) {
	case 0:
		return 0xffff;
	case 2:
		return 0xffffffff;
	default:
		return ~0ULL;
	}
}

/* Each field has a word of its own, the document's, and its width, whatever L1 wrote into the page. */
static void words(void **state)
{
	static bool used[VMCS12_WORDS];

	(void)state;
	memset(used, 0, sizeof(used));
	used[0] = used[VMCS12_LAUNCH_STATE] = true;
	for (u32 encoding = 0; encoding < ENCODINGS; encoding++) {
		u32 word = encoding ? encoding >> 13 << 7 | (encoding >> 10 & 3) << 5 | (encoding >> 1 & 0x1ff) : 31;

		if (!nested_field(encoding))
			continue;
		assert_true((encoding >> 1 & 0x1ff) <= 31);
		assert_false(used[word]);
		used[word] = true;
		memset(page, 0, sizeof(page));
		nested_set(&nested, VMCS_FIELD(encoding), ~0ULL);
		for (unsigned i = 0; i < VMCS12_WORDS; i++)
			assert_int_equal(page[i], i == word ? width_of(encoding) : 0);
		memset(page, 0xff, sizeof(page));
		assert_int_equal(nested_get(&nested, VMCS_FIELD(encoding)), width_of(encoding));
		nested_set(&nested, VMCS_FIELD(encoding), 0);
		assert_int_equal(nested_get(&nested, VMCS_FIELD(encoding)), 0);
		for (unsigned i = 0; i < VMCS12_WORDS; i++)
			assert_int_equal(page[i], i == word ? 0 : ~0ULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(document_and_code_agree),
		cmocka_unit_test(order),
		cmocka_unit_test(words),
	};

	return cmocka_run_group_tests(tests, read_document, NULL);
}
