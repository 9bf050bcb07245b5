// SPDX-License-Identifier: MIT
/* Which ports the loader finds in the FADT by which the machine is reset or put to sleep, and when it says that there are others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <efi.h>
#include <efilib.h>

EFI_SYSTEM_TABLE *ST;

#include "../../boot/acpi.c"

INTN CompareGuid(EFI_GUID *a, EFI_GUID *b)
{
	return memcmp(a, b, sizeof(*a));
}

INTN CompareMem(const VOID *a, const VOID *b, UINTN size)
{
	return memcmp(a, b, size);
}

VOID CopyMem(VOID *to, const VOID *from, UINTN size)
{
	memcpy(to, from, size);
}

static u64 unmapped; /* the only address that is not there */
static unsigned lines;

bool memory_is_mapped(UINT64 address, UINT64 bytes)
{
	return address != unmapped && bytes < 0x10000;
}

UINTN Print(const CHAR16 *format, ...)
{
	(void)format;
	return lines++;
}

static struct acpi_fadt fadt;
static struct {
	struct acpi_table header;
	u64 table;
} __attribute__((packed)) xsdt;
static struct acpi_rsdp rsdp;
static EFI_CONFIGURATION_TABLE configuration;
static EFI_SYSTEM_TABLE system_table;
static struct boot_end_port found[BOOT_END_PORTS + 1];

#define IO(port)                                                                                                       \
	{                                                                                                              \
		ACPI_SPACE_IO, 8, 0, 1, port                                                                           \
	}
#define MEMORY(address)                                                                                                \
	{                                                                                                              \
		0, 8, 0, 1, address                                                                                    \
	}

/* Of these tables: whether the loader thinks that it has found all. */
static bool look(const struct acpi_fadt *with, u32 length)
{
	fadt = *with;
	memcpy(fadt.header.signature, "FACP", 4);
	fadt.header.length = length;
	xsdt.header.length = sizeof(xsdt);
	xsdt.table = (u64)&fadt;
	rsdp = (struct acpi_rsdp){ .revision = 2, .xsdt = (u64)&xsdt };
	configuration = (EFI_CONFIGURATION_TABLE){ acpi_guids[0], &rsdp };
	system_table = (EFI_SYSTEM_TABLE){ .NumberOfTableEntries = 1, .ConfigurationTable = &configuration };
	ST = &system_table;
	memset(found, 0, sizeof(found));
	return acpi_end_ports(found);
}

/* The list has these ports behind the three that each PC has, and ends there. */
static void expect(unsigned number, const u16 *ports)
{
	assert_int_equal(found[0].port, 0xcf9);
	assert_int_equal(found[1].port, 0x92);
	assert_int_equal(found[2].port, 0x64);
	for (unsigned i = 0; i < number; i++)
		assert_int_equal(found[3 + i].port, ports[i]);
	assert_int_equal(found[3 + number].port, 0);
}

#define EXPECT(...) expect(sizeof((const u16[]){ __VA_ARGS__ }) / sizeof(u16), (const u16[]){ __VA_ARGS__ })

static void test_usual(void **state)
{
	(void)state;
	assert_true(look(
		&(struct acpi_fadt){
			.pm1a_control = 0x1804, .flags = FADT_RESET_REGISTER, .reset = IO(0xcf9), .reset_value = 6 },
		sizeof(fadt)));
	EXPECT(0x1805, 0xcf9);
	assert_true(found[3].sleep && !found[4].sleep);
	assert_int_equal(found[4].value, 6);
	/* Both addresses, the same or not. */
	assert_true(look(
		&(struct acpi_fadt){ .pm1a_control = 0x404, .x_pm1a_control = IO(0x404), .x_pm1b_control = IO(0x604) },
		sizeof(fadt)));
	EXPECT(0x405, 0x605);
	assert_true(look(&(struct acpi_fadt){ .pm1a_control = 0x404, .x_pm1a_control = IO(0x504) }, sizeof(fadt)));
	EXPECT(0x405, 0x505);
	assert_true(
		look(&(struct acpi_fadt){ .flags = FADT_HARDWARE_REDUCED, .sleep_control = IO(0x700) }, sizeof(fadt)));
	EXPECT(0x700);
	/* The reset register is said to be there, and is not. */
	assert_true(look(&(struct acpi_fadt){ .pm1a_control = 0x404, .flags = FADT_RESET_REGISTER }, sizeof(fadt)));
	/* A table of ACPI 1.0: what lies behind its end counts as 0. */
	assert_true(look(&(struct acpi_fadt){ .pm1a_control = 0x404, .x_pm1a_control = MEMORY(0xfed00000) }, 116));
	EXPECT(0x405);
	/* All of them at once fit into the list. */
	assert_true(look(&(struct acpi_fadt){ .pm1a_control = 0x404,
					      .pm1b_control = 0x504,
					      .x_pm1a_control = IO(0x604),
					      .x_pm1b_control = IO(0x704),
					      .flags = FADT_RESET_REGISTER | FADT_HARDWARE_REDUCED,
					      .reset = IO(0x10),
					      .sleep_control = IO(0x20) },
			 sizeof(fadt)));
	EXPECT(0x405, 0x505, 0x605, 0x705, 0x10, 0x20);
}

static void test_unseen(void **state)
{
	const struct acpi_fadt others[] = {
		{ .pm1a_control = 0x404, .flags = FADT_RESET_REGISTER, .reset = MEMORY(0xfed00000) },
		{ .pm1a_control = 0x404, .x_pm1a_control = MEMORY(0xfed00000) },
		{ .pm1a_control = 0x404, .x_pm1b_control = MEMORY(0xfed00000) },
		{ .pm1a_control = 0x404, .flags = FADT_HARDWARE_REDUCED, .sleep_control = MEMORY(0xfed00000) },
		{ .x_pm1a_control = IO(0xffff) },
		{ .pm1a_control = 0x10404 },
		{ .pm1a_control = 0x404, .pm1b_control = 0xffff },
		{ .flags = 0 },
		/* The port of SMM's commands: they pass. */
		{ .pm1a_control = 0x404, .smi_command = 0xb2, .flags = FADT_RESET_REGISTER, .reset = IO(0xb2) },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
		assert_false(look(&others[i], sizeof(fadt)));
		for (unsigned j = 0; j < ARRAY_SIZE(found); j++)
			assert_int_not_equal(found[j].port, 0xb2);
	}
	/* No tables at all; those of ACPI 1.0, by their name. */
	system_table.NumberOfTableEntries = 0;
	memset(found, 0, sizeof(found));
	assert_false(acpi_end_ports(found));
	assert_true(look(&(struct acpi_fadt){ .pm1a_control = 0x404 }, sizeof(fadt)));
	configuration.VendorGuid = acpi_guids[1];
	memset(found, 0, sizeof(found));
	assert_true(acpi_end_ports(found));
	EXPECT(0x405);
}

/* What the loader can't read is left out, with a line; all else is found. */
static void test_unmapped(void **state)
{
	const struct acpi_fadt usual = { .pm1a_control = 0x404 };

	(void)state;
	lines = 0;
	assert_true(look(&usual, sizeof(fadt)));
	assert_int_equal(lines, 0);
	unmapped = (u64)&fadt;
	assert_false(look(&usual, sizeof(fadt)));
	assert_int_equal(lines, 1);
	unmapped = (u64)&xsdt;
	assert_false(look(&usual, sizeof(fadt)));
	assert_int_equal(lines, 2);
	unmapped = 0;
	/* Shorter than a header, or past the end of what is mapped. */
	assert_false(look(&usual, sizeof(struct acpi_table) - 1));
	assert_int_equal(lines, 3);
	/* One line for a table, however often it is met. */
	assert_false(look(&usual, 0x10000));
	assert_int_equal(lines, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_usual), cmocka_unit_test(test_unseen),
					    cmocka_unit_test(test_unmapped) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
