// SPDX-License-Identifier: MIT
/* host/loader/acpi_copy.c: which tables are copied, what their copies lead to, that no byte is read twice; wrong and mangled tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../../host/loader/acpi_copy.c"

#define BASE 0x7000ULL /* of the firmware's memory */
#define BYTES 0x4000
#define AREA_ADDRESS 0xd00000ULL

/* Where the tables are, from BASE on. */
enum {
	RSDP = 0,
	XSDT = 0x100,
	RSDT = 0x400,
	FADT = 0x600,
	DSDT = 0x800,
	FACS = 0xa00,
	MADT = 0xb00,
	BGRT = 0xc00,
	SSDT = 0xd00
};

static u8 memory[BYTES], reads[BYTES];
static struct acpi_copy copy;
static u8 *area;

static bool read_memory(void *to, u64 address, u64 bytes)
{
	if (address < BASE || address - BASE > BYTES || bytes > BYTES - (address - BASE))
		return false;
	memcpy(to, memory + (address - BASE), bytes);
	for (u64 i = 0; i < bytes; i++)
		reads[address - BASE + i]++;
	return true;
}

static struct table *put(u64 at, const char *kind, u32 length)
{
	struct table *table = (struct table *)(memory + at);

	memset(table, (int)at, length);
	*table = (struct table){ .length = length };
	memcpy(table->signature, kind, 4);
	return table;
}

static void put_u64(u64 at, u64 value)
{
	memcpy(memory + at, &value, sizeof(value));
}

static void put_u32(u64 at, u32 value)
{
	memcpy(memory + at, &value, sizeof(value));
}

/* A machine of ACPI 2.0: FADT, MADT, a BGRT, an SSDT. */
static int set_up(void **state)
{
	struct fadt *fadt;

	(void)state;
	memset(memory, 0xee, sizeof(memory));
	memset(reads, 0, sizeof(reads));
	*(struct rsdp *)(memory + RSDP) = (struct rsdp){
		.signature = "RSD PTR ", .revision = 2, .rsdt = BASE + RSDT, .length = 36, .xsdt = BASE + XSDT
	};
	put(XSDT, "XSDT", 36 + 4 * 8);
	put(RSDT, "RSDT", 36 + 4);
	put_u32(RSDT + 36, BASE + MADT);
	put_u64(XSDT + 36, BASE + FADT);
	put_u64(XSDT + 44, BASE + MADT);
	put_u64(XSDT + 52, BASE + BGRT);
	put_u64(XSDT + 60, BASE + SSDT);
	fadt = (struct fadt *)put(FADT, "FACP", 244);
	fadt->facs = BASE + FACS;
	fadt->dsdt = 1;
	fadt->x_facs = 0;
	fadt->x_dsdt = BASE + DSDT;
	fadt->smi_command = 0xb2;
	fadt->acpi_enable = 2;
	fadt->pm1a_control = 0x604;
	put(DSDT, "DSDT", 0x123);
	put(FACS, "FACS", 64);
	put(MADT, "APIC", 0x78);
	put(BGRT, "BGRT", 56);
	put(SSDT, "SSDT", 0x55);
	free(area);
	area = malloc(0x3000);
	copy = (struct acpi_copy){ .read = read_memory, .area = area, .address = AREA_ADDRESS, .size = 0x3000 };
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(area);
	area = NULL;
	return 0;
}

static void *copied(u64 address)
{
	assert_in_range(address, AREA_ADDRESS, AREA_ADDRESS + copy.used - 1);
	return area + (address - AREA_ADDRESS);
}

/* The copy of entry i of the new XSDT, and its checks. */
static struct table *entry(u64 i)
{
	const struct rsdp *rsdp = (void *)area;
	const struct table *xsdt = copied(rsdp->xsdt);
	u64 address;

	assert_memory_equal(rsdp->signature, "RSD PTR ", 8);
	assert_int_equal(sum(rsdp, 20), 0);
	assert_int_equal(sum(rsdp, 36), 0);
	assert_int_equal(rsdp->rsdt, 0);
	assert_memory_equal(xsdt->signature, "XSDT", 4);
	assert_int_equal(sum(xsdt, xsdt->length), 0);
	if (36 + 8 * i >= xsdt->length)
		return NULL;
	memcpy(&address, (const u8 *)(xsdt + 1) + 8 * i, 8);
	return copied(address);
}

static void test_all(void **state)
{
	struct fadt *fadt;

	(void)state;
	assert_true(acpi_copy(&copy, BASE + RSDP));
	fadt = (struct fadt *)entry(0);
	assert_memory_equal(fadt->header.signature, "FACP", 4);
	assert_int_equal(sum(fadt, fadt->header.length), 0);
	assert_memory_equal(copied(fadt->dsdt), memory + DSDT, 0x123);
	assert_int_equal(fadt->x_dsdt, fadt->dsdt);
	assert_memory_equal(copied(fadt->facs), memory + FACS, 64);
	assert_int_equal(fadt->facs % 64, 0);
	assert_int_equal(fadt->x_facs, 0);
	assert_int_equal(fadt->smi_command, 0);
	assert_int_equal(fadt->acpi_enable, 0);
	assert_int_equal(fadt->pm1a_control, 0x604);
	assert_memory_equal(entry(1), memory + MADT, 0x78);
	/* The BGRT, which leads to more memory, is left out. */
	assert_memory_equal(entry(2), memory + SSDT, 0x55);
	assert_null(entry(3));
	for (u64 i = 0; i < BYTES; i++)
		assert_true(reads[i] <= 1);
}

static void test_first_version(void **state)
{
	(void)state;
	((struct rsdp *)(memory + RSDP))->revision = 0;
	assert_true(acpi_copy(&copy, BASE + RSDP));
	assert_memory_equal(entry(0), memory + MADT, 0x78);
	assert_null(entry(1));
}

static void test_short_fadt(void **state)
{
	struct fadt *fadt;

	(void)state;
	fadt = (struct fadt *)put(FADT, "FACP", 116);
	fadt->dsdt = BASE + DSDT;
	fadt->facs = 0;
	assert_true(acpi_copy(&copy, BASE + RSDP));
	fadt = (struct fadt *)entry(0);
	assert_memory_equal(copied(fadt->dsdt), memory + DSDT, 0x123);
	assert_int_equal(fadt->facs, 0);
}

static void refused(const char *error)
{
	assert_false(acpi_copy(&copy, BASE + RSDP));
	assert_string_equal(copy.error, error);
}

static void test_refused(void **state)
{
	struct fadt *fadt = (struct fadt *)(memory + FADT);

	assert_false(acpi_copy(&copy, 0));
	memory[RSDP] = 'X';
	refused("the firmware has no ACPI tables");
	set_up(state);
	memory[XSDT] = 'R';
	refused("the firmware has no ACPI tables");
	set_up(state);
	put(XSDT, "XSDT", 35);
	refused("the firmware has no ACPI tables");
	set_up(state);
	put_u64(XSDT + 44, BASE + BYTES - 8);
	refused("an ACPI table lies where there is no memory");
	set_up(state);
	put(MADT, "APIC", 35);
	refused("an ACPI table has a wrong length");
	set_up(state);
	put_u32(MADT + 4, TABLE_BYTES_MAX + 1);
	refused("an ACPI table has a wrong length");
	set_up(state);
	put_u32(FADT + 4, 115);
	refused("an ACPI table has a wrong length");
	set_up(state);
	put_u32(MADT + 4, 0x3000);
	refused("the ACPI tables are too large");
	set_up(state);
	put_u32(MADT + 4, BYTES - MADT + 1);
	copy.size = 0x8000;
	area = copy.area = realloc(area, 0x8000);
	refused("an ACPI table lies where there is no memory");
	set_up(state);
	fadt->x_dsdt = BASE + MADT;
	refused("the FADT leads to no DSDT or FACS");
	set_up(state);
	fadt->facs = BASE + DSDT;
	refused("the FADT leads to no DSDT or FACS");
	set_up(state);
	copy.size = 64;
	refused("there is no room for ACPI tables");
}

/* A root table that says that it has more entries than the copy has room for. */
static void test_many(void **state)
{
	(void)state;
	put(XSDT + 0x1000, "XSDT", 36 + 100 * 8);
	((struct rsdp *)(memory + RSDP))->xsdt = BASE + XSDT + 0x1000;
	for (u64 i = 0; i < 100; i++)
		put_u64(XSDT + 0x1000 + 36 + 8 * i, BASE + SSDT);
	copy.size = 0x8000;
	area = copy.area = realloc(area, 0x8000);
	assert_true(acpi_copy(&copy, BASE + RSDP));
	assert_non_null(entry(TABLES - 1));
	assert_null(entry(TABLES));
}

static void test_enable(void **state)
{
	struct acpi_enable enable;

	(void)state;
	assert_true(acpi_find_enable(read_memory, BASE + RSDP, &enable));
	assert_int_equal(enable.command_port, 0xb2);
	assert_int_equal(enable.value, 2);
	assert_int_equal(enable.control_port, 0x604);
	memory[FADT] = 'X';
	assert_false(acpi_find_enable(read_memory, BASE + RSDP, &enable));
	assert_false(acpi_find_enable(read_memory, 0, &enable));
}

/* Whatever the firmware's memory has in it, the copy stays in its area; the sanitizer looks. */
static void test_mangled(void **state)
{
	srandom(1);
	for (int i = 0; i < 20000; i++) {
		set_up(state);
		for (long n = random() % 8; n >= 0; n--)
			memory[random() % (SSDT + 64)] = (u8)random();
		if (acpi_copy(&copy, BASE + RSDP))
			assert_true(copy.used <= copy.size);
		else
			assert_non_null(copy.error);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_all, set_up),
		cmocka_unit_test_setup(test_first_version, set_up),
		cmocka_unit_test_setup(test_short_fadt, set_up),
		cmocka_unit_test_setup(test_refused, set_up),
		cmocka_unit_test_setup(test_many, set_up),
		cmocka_unit_test_setup(test_enable, set_up),
		cmocka_unit_test_setup_teardown(test_mangled, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
