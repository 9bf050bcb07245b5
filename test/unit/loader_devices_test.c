// SPDX-License-Identifier: MIT
/* host/loader/qemu.c and pci.c on models of QEMU's fw_cfg and of PCI's configuration space. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "instructions.h"
#include "../../host/loader/loader.h"

#define GIB (1ULL << 30)

/* fw_cfg: the item that was chosen, and how much of it has been read. */
static struct item {
	u16 number;
	const void *data;
	u32 bytes;
} items[8];
static struct item *item;
static u32 item_at;

/* Registers of each function of bus 0. */
static u32 functions[256][16];
static u32 chosen;

u32 port_in(u16 port, unsigned bytes)
{
	if (port == 0x511) {
		assert_int_equal(bytes, 1);
		return item && item_at < item->bytes ? ((const u8 *)item->data)[item_at++] : 0;
	}
	assert_int_equal(port, 0xcfc);
	assert_int_equal(bytes, 4);
	assert_int_equal(chosen & 0xff000003, 0x80000000);
	return functions[chosen >> 8 & 0xff][chosen >> 2 & 15];
}

void port_out(u16 port, unsigned bytes, u32 value)
{
	if (port == 0xcf8) {
		assert_int_equal(bytes, 4);
		chosen = value;
		return;
	}
	assert_int_equal(port, 0x510);
	assert_int_equal(bytes, 2);
	item = NULL;
	item_at = 0;
	for (u64 i = 0; i < ARRAY_SIZE(items); i++)
		if (items[i].data && items[i].number == value)
			item = &items[i];
}

static struct {
	u32 files;
	struct {
		u32 bytes;
		u16 item, reserved;
		char name[56];
	} file[3];
} directory;
static struct e820_entry map[4];

static int set_up(void **state)
{
	(void)state;
	directory.files = __builtin_bswap32(3);
	for (u64 i = 0; i < 3; i++) {
		directory.file[i].bytes = __builtin_bswap32(sizeof(map));
		directory.file[i].item = __builtin_bswap16(0x20 + i);
	}
	strcpy(directory.file[0].name, "etc/e820x");
	strcpy(directory.file[1].name, "etc/acpi/tables");
	strcpy(directory.file[2].name, "etc/e820");
	map[0] = (struct e820_entry){ 0, 2 * GIB, E820_RAM };
	map[1] = (struct e820_entry){ 0xfeffc000, 0x4000, E820_RESERVED };
	map[2] = (struct e820_entry){ 4 * GIB, GIB, E820_RAM };
	map[3] = (struct e820_entry){ 8 * GIB, GIB, E820_RESERVED };
	memset(items, 0, sizeof(items));
	items[0] = (struct item){ 0, "QEMU", 4 };
	items[1] = (struct item){ 0x19, &directory, sizeof(directory) };
	items[2] = (struct item){ 0x22, map, sizeof(map) };
	memset(functions, 0xff, sizeof(functions));
	return 0;
}

static void test_ram(void **state)
{
	struct ram ram;

	(void)state;
	assert_true(qemu_ram(&ram));
	assert_int_equal(ram.low_end, 2 * GIB);
	assert_int_equal(ram.high_end, 5 * GIB);
	map[2].type = E820_RESERVED;
	assert_true(qemu_ram(&ram));
	assert_int_equal(ram.high_end, 4 * GIB);
	map[0].type = E820_RESERVED;
	assert_false(qemu_ram(&ram));
}

static void test_no_ram(void **state)
{
	struct ram ram;

	strcpy(directory.file[2].name, "etc/e821");
	assert_false(qemu_ram(&ram));
	set_up(state);
	directory.files = ~0U;
	assert_false(qemu_ram(&ram));
	items[0].data = "QEMV";
	assert_false(qemu_ram(&ram));
	items[0].data = NULL;
	assert_false(qemu_ram(&ram));
}

/* A function without memory. */
static u32 *put_function(u64 number, u32 header)
{
	memset(functions[number], 0, sizeof(functions[number]));
	functions[number][0] = 0x12345678;
	functions[number][3] = header << 16;
	return functions[number];
}

static void test_pci(void **state)
{
	u32 *device;

	(void)state;
	assert_false(pci_is_above(1ULL << 39));
	put_function(0, 0);
	device = put_function(8 * 8, 0x80);
	device[4] = 0xfe000000; /* 32 bits */
	device[5] = 0xc001; /* I/O */
	device[6] = 0xc; /* 64 bits, prefetchable */
	device[7] = 0x7f;
	assert_false(pci_is_above(1ULL << 39));
	device[7] = 0x80;
	assert_true(pci_is_above(1ULL << 39));
	assert_false(pci_is_above(1ULL << 40));
	/* The upper half of one is no BAR of its own. */
	device[7] = 4;
	device[8] = 0x80;
	assert_false(pci_is_above(1ULL << 39));
	/* Its second function is looked at; that of a device with one is not. */
	device = put_function(8 * 8 + 1, 0);
	device[8] = 4;
	device[9] = 0x100;
	assert_true(pci_is_above(1ULL << 39));
	functions[8 * 8][3] = 0;
	assert_false(pci_is_above(1ULL << 39));
	/* Behind a bridge; what another kind of function has there means something else. */
	device = put_function(31 * 8, 1);
	device[11] = 0x80;
	assert_true(pci_is_above(1ULL << 39));
	device[3] = 0;
	assert_false(pci_is_above(1ULL << 39));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_ram, set_up),
		cmocka_unit_test_setup(test_no_ram, set_up),
		cmocka_unit_test_setup(test_pci, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
