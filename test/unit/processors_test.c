// SPDX-License-Identifier: MIT
/* boot/processors.c: which entries of the MADT are CPUs. Firmware in the field has such that name none, and one CPU twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <efi.h>
#include <efilib.h>

EFI_BOOT_SERVICES *BS;

#include "../../boot/processors.c"

static u8 table[4096];
static UINTN mp_count, mp_enabled;

static EFI_STATUS EFIAPI no_protocol(EFI_GUID *guid, VOID *registration, VOID **interface)
{
	(void)guid;
	(void)registration;
	(void)interface;
	return EFI_NOT_FOUND;
}

static EFI_STATUS EFIAPI number_of_processors(struct mp_services *this, UINTN *count, UINTN *enabled)
{
	(void)this;
	*count = mp_count;
	*enabled = mp_enabled;
	return EFI_SUCCESS;
}

static struct mp_services mp_services = { number_of_processors };

static EFI_STATUS EFIAPI has_protocol(EFI_GUID *guid, VOID *registration, VOID **interface)
{
	(void)guid;
	(void)registration;
	*interface = &mp_services;
	return EFI_SUCCESS;
}

static EFI_BOOT_SERVICES services = { .LocateProtocol = no_protocol };

const struct acpi_table *acpi_table(const char *signature)
{
	assert_memory_equal(signature, "APIC", 4);
	return (const struct acpi_table *)table;
}

u32 acpi_read_u32(const u8 *p)
{
	u32 value;

	memcpy(&value, p, sizeof(value));
	return value;
}

static void put_apic(u8 id, u32 flags)
{
	struct acpi_madt *madt = (struct acpi_madt *)table;
	u8 *entry = table + madt->header.length;

	memcpy(entry, (const u8[8]){ 0, 8, 0, id, (u8)flags }, 8);
	madt->header.length += 8;
}

static void put_x2apic(u32 id, u32 flags)
{
	struct acpi_madt *madt = (struct acpi_madt *)table;
	u8 *entry = table + madt->header.length;

	memcpy(entry, (const u8[16]){ 9, 16 }, 16);
	memcpy(entry + 4, &id, 4);
	memcpy(entry + 8, &flags, 4);
	madt->header.length += 16;
}

static int setup(void **state)
{
	(void)state;
	memset(table, 0, sizeof(table));
	((struct acpi_madt *)table)->header.length = sizeof(struct acpi_madt);
	services.LocateProtocol = no_protocol;
	BS = &services;
	return 0;
}

/* Without MP services the table counts. */
static void assert_count(UINT32 count)
{
	struct processors cpus = processors_count();

	assert_int_equal(cpus.existing, count);
	assert_int_equal(cpus.listed, count);
}

static void entries(void **state)
{
	(void)state;
	assert_count(1);
	put_apic(0, 1);
	put_apic(2, 1);
	assert_count(2);
	put_apic(4, 0); /* not enabled */
	put_apic(6, 2); /* can be brought online later */
	assert_count(2);
	put_x2apic(0x100, 1);
	assert_count(3);
}

static void no_cpus(void **state)
{
	(void)state;
	put_apic(0, 1);
	for (unsigned i = 0; i < 16; i++) {
		put_apic(0xff, 1);
		put_x2apic(0xffffffff, 1);
	}
	assert_count(1);
	/* In an x2APIC entry 255 is an ID like others. */
	put_x2apic(0xff, 1);
	assert_count(2);
}

static void twice(void **state)
{
	(void)state;
	put_apic(0, 1);
	put_apic(2, 1);
	put_apic(0, 1);
	put_x2apic(2, 1);
	put_x2apic(3, 1);
	put_x2apic(3, 1);
	assert_count(3);
}

/* The table ends in the middle of an entry, or an entry has no length. */
static void broken(void **state)
{
	struct acpi_madt *madt = (struct acpi_madt *)table;

	(void)state;
	put_apic(0, 1);
	put_apic(2, 1);
	madt->header.length -= 1;
	assert_count(1);
	madt->header.length += 1;
	table[sizeof(*madt) + 9] = 0;
	assert_count(1);
	madt->header.length = 10;
	assert_count(1);
}

static void assert_with_mp(UINTN count, UINTN enabled, UINT32 existing, UINT32 listed)
{
	struct processors cpus;

	services.LocateProtocol = has_protocol;
	mp_count = count;
	mp_enabled = enabled;
	cpus = processors_count();
	assert_int_equal(cpus.existing, existing);
	assert_int_equal(cpus.listed, listed);
}

static void firmware_that_knows_more(void **state)
{
	(void)state;
	put_apic(0, 1);
	assert_with_mp(4, 4, 4, 4);
	/* Two of them are disabled. */
	assert_with_mp(4, 2, 2, 4);
}

/* IDs in the table that look valid, but the firmware found no such CPU. */
static void table_that_lists_more(void **state)
{
	(void)state;
	for (u8 id = 0; id < 8; id++)
		put_apic(id, 1);
	assert_with_mp(2, 2, 2, 8);
	assert_with_mp(1, 1, 1, 8);
	assert_with_mp(9, 9, 9, 9);
	/* The table lists one of two that the firmware disabled: they exist. */
	assert_with_mp(9, 7, 8, 9);
	assert_with_mp(6, 4, 6, 8);
	/* No numbers of CPUs. */
	assert_with_mp(0, 0, 8, 8);
	assert_with_mp(1, 2, 8, 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(entries, setup),
		cmocka_unit_test_setup(no_cpus, setup),
		cmocka_unit_test_setup(twice, setup),
		cmocka_unit_test_setup(broken, setup),
		cmocka_unit_test_setup(firmware_that_knows_more, setup),
		cmocka_unit_test_setup(table_that_lists_more, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
