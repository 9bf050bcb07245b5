// SPDX-License-Identifier: MIT
/* boot/dma.c: what it says of PCI devices and x2APIC, and the renamed table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <efi.h>
#include <efilib.h>

EFI_BOOT_SERVICES *BS;
EFI_GUID gEfiPciIoProtocolGuid;

#include "../../boot/dma.c"

/* PCI devices with 256 bytes of configuration space. */
static struct device {
	EFI_PCI_IO_PROTOCOL protocol;
	UINTN segment, bus, device, function;
	u8 config[256];
	bool broken;
} devices[ARRAY_SIZE(functions) + 1];
static unsigned device_count;
static struct acpi_table dmar[2];
static unsigned tables;
static u64 rights, cr0, cr4, arch_capabilities, xapic_disable;
static bool hypervisor;
static unsigned priority;

static EFI_STATUS EFIAPI config_read(EFI_PCI_IO_PROTOCOL *this, EFI_PCI_IO_PROTOCOL_WIDTH width, UINT32 offset,
				     UINTN count, VOID *to)
{
	UINTN size = count << width;

	assert_true(offset % (1 << width) == 0 && offset + size <= 256);
	if (((struct device *)this)->broken)
		return EFI_DEVICE_ERROR;
	memcpy(to, ((struct device *)this)->config + offset, size);
	return EFI_SUCCESS;
}

static EFI_STATUS EFIAPI location(EFI_PCI_IO_PROTOCOL *this, UINTN *segment, UINTN *bus, UINTN *device, UINTN *function)
{
	struct device *d = (struct device *)this;

	*segment = d->segment;
	*bus = d->bus;
	*device = d->device;
	*function = d->function;
	return EFI_SUCCESS;
}

static struct device *add(u32 id, u8 class, UINTN device)
{
	struct device *d = &devices[device_count++];

	*d = (struct device){ .device = device };
	d->protocol.Pci.Read = config_read;
	d->protocol.GetLocation = location;
	memcpy(d->config, &id, sizeof(id));
	d->config[11] = class;
	return d;
}

EFI_STATUS LibLocateHandle(EFI_LOCATE_SEARCH_TYPE type, EFI_GUID *guid, VOID *key, UINTN *count, EFI_HANDLE **handles)
{
	(void)type;
	(void)guid;
	(void)key;
	*count = device_count;
	*handles = calloc(device_count + 1, sizeof(**handles));
	for (unsigned i = 0; i < device_count; i++)
		(*handles)[i] = &devices[i];
	return EFI_SUCCESS;
}

static EFI_STATUS EFIAPI handle_protocol(EFI_HANDLE handle, EFI_GUID *guid, VOID **interface)
{
	(void)guid;
	*interface = handle;
	return EFI_SUCCESS;
}

static EFI_TPL EFIAPI raise_priority(EFI_TPL to)
{
	priority = to;
	return TPL_APPLICATION;
}

static VOID EFIAPI restore_priority(EFI_TPL to)
{
	priority = to;
}

VOID FreePool(VOID *memory)
{
	free(memory);
}

VOID CopyMem(VOID *to, const VOID *from, UINTN size)
{
	assert_int_equal(priority, TPL_HIGH_LEVEL);
	assert_true((rights & PTE_WRITE) || !(cr0 & CR0_WP));
	memcpy(to, from, size);
}

const struct acpi_table *acpi_table(const char *signature)
{
	for (unsigned i = 0; i < tables; i++)
		if (memcmp(dmar[i].signature, signature, 4) == 0)
			return &dmar[i];
	return NULL;
}

u32 processors_largest_apic_id(void)
{
	return 77;
}

UINT64 memory_rights(UINT64 address)
{
	(void)address;
	return rights;
}

u64 read_register(const char *name)
{
	return strcmp(name, "cr0") ? cr4 : cr0;
}

void write_register(const char *name, u64 value)
{
	assert_string_equal(name, "cr0");
	assert_false(cr4 & CR4_CET);
	cr0 = value;
}

struct cpuid_result cpuid(u32 leaf, u32 subleaf)
{
	(void)subleaf;
	return leaf == 0   ? (struct cpuid_result){ .eax = 7 }
	       : leaf == 1 ? (struct cpuid_result){ .eax = 0x506e3, .ecx = hypervisor ? 1U << CPUID_HYPERVISOR : 0 }
	       : leaf == 7 ? (struct cpuid_result){ .edx = arch_capabilities ? 1U << CPUID_ARCH_CAPABILITIES : 0 }
			   : (struct cpuid_result){ 0 };
}

u64 rdmsr(u32 msr)
{
	assert_true(arch_capabilities);
	assert_true(msr == MSR_IA32_ARCH_CAPABILITIES || (arch_capabilities & ARCH_CAP_XAPIC_DISABLE));
	return msr == MSR_IA32_ARCH_CAPABILITIES ? arch_capabilities : xapic_disable;
}

static EFI_BOOT_SERVICES services = { .HandleProtocol = handle_protocol,
				      .RaiseTPL = raise_priority,
				      .RestoreTPL = restore_priority };

static struct dmar_machine look(void)
{
	struct dmar_machine m = { 0 };

	dma_look(&m);
	return m;
}

static int begin(void **state)
{
	(void)state;
	BS = &services;
	device_count = 0;
	tables = 1;
	memcpy(dmar[0].signature, "DMAR", 4);
	memcpy(dmar[1].signature, "DMAR", 4);
	rights = PTE_PRESENT | PTE_WRITE;
	cr0 = CR0_WP;
	cr4 = arch_capabilities = xapic_disable = 0;
	hypervisor = false;
	return 0;
}

static void without_table(void **state)
{
	struct dmar_machine m;

	(void)state;
	tables = 0;
	hypervisor = true;
	add(0x191f8086, 6, 0);
	m = look();
	assert_true(!m.dmar && m.read && m.hypervisor && !m.function_count);
}

static void chipset(void **state)
{
	struct dmar_machine m;

	(void)state;
	add(0x191f8086, 6, 0);
	add(0x19128086, 3, 2);
	add(0x10de, 3, 2)->bus = 1;
	m = look();
	assert_int_equal(m.host_bridge, 0x191f8086);
	assert_int_equal(m.graphics, 0x19128086);
	assert_true(m.dmar == dmar && !m.mcfg && !m.cxl && m.largest_apic_id == 77 && m.cpu == 0x506e3 &&
		    !m.more_functions);
	/* Another maker's, no display, another segment. */
	begin(NULL);
	add(0x10de, 3, 2);
	assert_int_equal(look().graphics, 0);
	begin(NULL);
	add(0x19128086, 2, 2);
	assert_int_equal(look().graphics, 0);
	begin(NULL);
	add(0x19128086, 3, 2)->segment = 1;
	add(0x191f8086, 6, 0)->segment = 1;
	assert_int_equal(look().graphics, 0);
	assert_int_equal(look().host_bridge, 0);
}

/* Whatever is missing is said. */
static void pci_functions(void **state)
{
	struct dmar_machine m;
	struct device *d;

	(void)state;
	add(0x191f8086, 6, 0);
	d = add(0x19018086, 6, 1);
	d->segment = 3;
	d->bus = 0x40;
	d->function = 5;
	d->config[PCI_HEADER_TYPE] = 0x81;
	memcpy(d->config + 0x18, (u8[]){ 0x40, 0x41, 0x4f }, 3);
	m = look();
	assert_true(m.function_count == 2 && !m.more_functions);
	assert_memory_equal(&m.functions[1], (&(struct dmar_function){ 3, 0x40, 1, 5, 0x41, 0x4f }), 7);
	assert_int_equal(m.functions[0].secondary, 0);
	d->broken = true;
	m = look();
	assert_true(m.function_count == 1 && m.more_functions);
	begin(NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(functions); i++)
		add(0x191f8086, 6, i % 32);
	m = look();
	assert_true(m.function_count == ARRAY_SIZE(functions) && !m.more_functions);
	add(0x191f8086, 6, 0);
	m = look();
	assert_true(m.function_count == ARRAY_SIZE(functions) && m.more_functions);
}

static void x2apic(void **state)
{
	(void)state;
	assert_false(look().x2apic_locked);
	arch_capabilities = 1;
	xapic_disable = 1;
	assert_false(look().x2apic_locked);
	arch_capabilities |= ARCH_CAP_XAPIC_DISABLE;
	assert_true(look().x2apic_locked);
	xapic_disable = 2;
	assert_false(look().x2apic_locked);
}

static void unit(void **state)
{
	static u64 page[512] = { 0x10, 0x1234, 0x5678 };
	struct dmar_registers r;

	(void)state;
	assert_true(look().read((u64)page, &r));
	assert_true(r.version == 0x10 && r.capability == 0x1234 && r.extended_capability == 0x5678);
	rights = 0;
	assert_false(look().read(0xfed90000, &r)); /* where nothing is */
}

static u8 sum(const struct acpi_table *table)
{
	u8 all = 0;

	for (unsigned i = 0; i < sizeof(*table); i++)
		all += ((const u8 *)table)[i];
	return all;
}

static void renamed(void **state)
{
	u8 before;

	(void)state;
	tables = 2;
	dmar[0].checksum = 250;
	before = sum(&dmar[0]);
	dma_hide_table();
	for (unsigned i = 0; i < 2; i++)
		assert_memory_equal(dmar[i].signature, "XMAR", 4);
	assert_int_equal(sum(&dmar[0]), before);
	assert_int_equal(priority, TPL_APPLICATION);
	begin(NULL);
	rights = PTE_PRESENT;
	dma_hide_table();
	assert_memory_equal(dmar[0].signature, "XMAR", 4);
	assert_int_equal(cr0, CR0_WP);
	begin(NULL);
	rights = PTE_PRESENT;
	cr4 = CR4_CET;
	dma_hide_table();
	assert_memory_equal(dmar[0].signature, "DMAR", 4);
	/* Then it is no use to switch units on: Linux would look for them. */
	assert_true(look().fixed);
	cr4 = 0;
	assert_false(look().fixed);
	assert_memory_equal(dmar[0].signature, "DMAR", 4);
}

#define TEST(name) cmocka_unit_test_setup(name, begin)

int main(void)
{
	const struct CMUnitTest tests[] = { TEST(without_table), TEST(chipset), TEST(pci_functions),
					    TEST(x2apic),        TEST(unit),    TEST(renamed) };

	return cmocka_run_group_tests_name("dma", tests, NULL, NULL);
}
