// SPDX-License-Identifier: MIT
/* What the loader must know of the machine to choose what becomes of its DMA-remapping units, and what it does for that. */
#include "cpu_features.h"
#include "dmar.h"
#include "loader.h"
#include "pagetable.h"

#define CR4_CET BIT(23)
#define ARCH_CAP_XAPIC_DISABLE BIT(21)
#define LEGACY_XAPIC_DISABLED BIT(0) /* of IA32_XAPIC_DISABLE_STATUS */

/* PCI configuration space. */
#define PCI_IDS 0
#define PCI_CLASS 8 /* with the class itself in bits 31:24 */
#define PCI_HEADER_TYPE 0xe
#define PCI_SECONDARY_BUS 0x19 /* of a bridge, the subordinate one's behind it */
#define PCI_INTEL 0x8086
#define PCI_DISPLAY 3
#define DEVICE_GRAPHICS 2

/* Offsets of a unit's registers. */
#define UNIT_VERSION 0
#define UNIT_CAPABILITY 8
#define UNIT_EXTENDED_CAPABILITY 0x10

static bool read_unit(u64 base, struct dmar_registers *r)
{
	if (!memory_rights(base))
		return false;
	r->version = *(const volatile u32 *)(base + UNIT_VERSION);
	r->capability = *(const volatile u64 *)(base + UNIT_CAPABILITY);
	r->extended_capability = *(const volatile u64 *)(base + UNIT_EXTENDED_CAPABILITY);
	return true;
}

static struct dmar_function functions[1024];

static void look_at_device(EFI_PCI_IO_PROTOCOL *pci, struct dmar_machine *m)
{
	UINTN segment, bus, device, function;
	u8 header, buses[2] = { 0 };
	u32 id, class;

	if (m->function_count == ARRAY_SIZE(functions) ||
	    EFI_ERROR(pci->GetLocation(pci, &segment, &bus, &device, &function)) ||
	    EFI_ERROR(pci->Pci.Read(pci, EfiPciIoWidthUint32, PCI_IDS, 1, &id)) ||
	    EFI_ERROR(pci->Pci.Read(pci, EfiPciIoWidthUint32, PCI_CLASS, 1, &class)) ||
	    EFI_ERROR(pci->Pci.Read(pci, EfiPciIoWidthUint8, PCI_HEADER_TYPE, 1, &header)) ||
	    ((header & 0x7f) &&
	     EFI_ERROR(pci->Pci.Read(pci, EfiPciIoWidthUint8, PCI_SECONDARY_BUS, ARRAY_SIZE(buses), buses)))) {
		m->more_functions = true;
		return;
	}
	functions[m->function_count++] =
		(struct dmar_function){ (u16)segment, (u8)bus, (u8)device, (u8)function, buses[0], buses[1] };
	if (segment || bus || function)
		return;
	if (!device)
		m->host_bridge = id;
	if (device == DEVICE_GRAPHICS && (id & 0xffff) == PCI_INTEL && class >> 24 == PCI_DISPLAY)
		m->graphics = id;
}

static void look_at_devices(struct dmar_machine *m)
{
	EFI_PCI_IO_PROTOCOL *pci;
	EFI_HANDLE *handles;
	UINTN count;

	m->functions = functions;
	m->function_count = 0;
	if (EFI_ERROR(LibLocateHandle(ByProtocol, &PciIoProtocol, NULL, &count, &handles)))
		return;
	for (UINTN i = 0; i < count; i++)
		if (!EFI_ERROR(BS->HandleProtocol(handles[i], &PciIoProtocol, (void **)&pci)))
			look_at_device(pci, m);
	FreePool(handles);
}

/*
 * Gives a table a name, and says whether it has it now. Firmware may have made its tables read-only; with CET, CR0.WP can't be
 * cleared.
 */
static bool rename(struct acpi_table *table, const char *name)
{
	bool writable = memory_rights((u64)table) & PTE_WRITE;
	u64 cr0 = READ_REGISTER(cr0);
	UINTN priority;

	if (!writable && (READ_REGISTER(cr4) & CR4_CET))
		return false;
	/* No interrupts. */
	priority = BS->RaiseTPL(TPL_HIGH_LEVEL);
	if (!writable)
		WRITE_REGISTER(cr0, cr0 & ~CR0_WP);
	for (unsigned i = 0; i < sizeof(table->signature); i++) {
		table->checksum += (u8)(table->signature[i] - name[i]);
		table->signature[i] = name[i];
	}
	if (!writable)
		WRITE_REGISTER(cr0, cr0);
	BS->RestoreTPL(priority);
	for (unsigned i = 0; i < sizeof(table->signature); i++)
		if (table->signature[i] != name[i])
			return false;
	return true;
}

void dma_look(struct dmar_machine *m)
{
	m->read = read_unit;
	m->dmar = acpi_table("DMAR");
	m->hypervisor = cpuid(1, 0).ecx & BIT(CPUID_HYPERVISOR);
	/* Nothing else matters then. */
	if (!m->dmar || m->wanted == CONF_DMA_OFF)
		return;
	m->fixed = !rename((struct acpi_table *)m->dmar, "XMAR") || !rename((struct acpi_table *)m->dmar, "DMAR");
	m->mcfg = acpi_table("MCFG");
	m->cxl = acpi_table("CEDT");
	m->cpu = cpuid(1, 0).eax;
	m->largest_apic_id = processors_largest_apic_id();
	/* A hypervisor may say that it has the second register, and not have it. */
	m->x2apic_locked = !m->hypervisor && (cpuid_or_zero(7).edx & BIT(CPUID_ARCH_CAPABILITIES)) &&
			   (rdmsr(MSR_IA32_ARCH_CAPABILITIES) & ARCH_CAP_XAPIC_DISABLE) &&
			   (rdmsr(MSR_IA32_XAPIC_DISABLE_STATUS) & LEGACY_XAPIC_DISABLED);
	look_at_devices(m);
}

void dma_hide_table(void)
{
	struct acpi_table *table, *last = NULL;

	/* One that is still there lies in memory that can't be written. */
	while ((table = (struct acpi_table *)acpi_table("DMAR")) && table != last && rename(table, "XMAR"))
		last = table;
}
