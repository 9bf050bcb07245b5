// SPDX-License-Identifier: MIT
#include "loader.h"
#include "x86.h"

/* The part of EFI_MP_SERVICES_PROTOCOL that is called here ("MP Services Protocol", UEFI Platform Initialization). */
struct mp_services {
	EFI_STATUS(EFIAPI *get_number_of_processors)(struct mp_services *this, UINTN *count, UINTN *enabled);
};

static EFI_GUID mp_services_guid = { 0x3fdda605, 0xa76e, 0x4f46, { 0xad, 0x29, 0x12, 0xf4, 0x53, 0x1b, 0x3d, 0x08 } };
static EFI_GUID acpi_20_guid = { 0x8868e871, 0xe4f1, 0x11d3, { 0xbc, 0x22, 0x00, 0x80, 0xc7, 0x3c, 0x88, 0x81 } };

struct acpi_rsdp {
	char signature[8];
	u8 checksum;
	char oem[6];
	u8 revision;
	u32 rsdt;
	u32 length;
	u64 xsdt;
} __attribute__((packed));

struct acpi_table {
	char signature[4];
	u32 length;
	u8 revision, checksum;
	char oem[6], oem_table[8];
	u32 oem_revision, creator, creator_revision;
} __attribute__((packed));

struct acpi_madt {
	struct acpi_table header;
	u32 local_apic, flags;
	u8 entries[];
} __attribute__((packed));

#define MADT_LOCAL_APIC 0 /* 8 bytes, flags at 4 */
#define MADT_LOCAL_X2APIC 9 /* 16 bytes, ID at 4, flags at 8 */
#define MADT_ENABLED BIT(0)

static u32 read_u32(const u8 *p)
{
	return p[0] | p[1] << 8 | p[2] << 16 | (u32)p[3] << 24;
}

static UINT32 count_madt(const struct acpi_madt *madt)
{
	UINT32 apics = 0, x2apics = 0, high_x2apics = 0;
	u32 size;

	if (madt->header.length < sizeof(*madt))
		return 0;
	size = madt->header.length - sizeof(*madt);
	for (u32 at = 0; at + 2 <= size;) {
		const u8 *entry = madt->entries + at;
		u8 length = entry[1];

		if (length < 2 || length > size - at)
			break;
		if (entry[0] == MADT_LOCAL_APIC && length >= 8) {
			apics += read_u32(entry + 4) & MADT_ENABLED;
		} else if (entry[0] == MADT_LOCAL_X2APIC && length >= 16 && (read_u32(entry + 8) & MADT_ENABLED)) {
			x2apics++;
			high_x2apics += read_u32(entry + 4) >= 255;
		}
		at += length;
	}
	/* Some firmware lists one CPU both ways; only IDs from 255 on must be in an x2APIC entry. */
	return apics + high_x2apics > x2apics ? apics + high_x2apics : x2apics;
}

static UINT32 count_acpi(void)
{
	const struct acpi_rsdp *rsdp = NULL;
	const struct acpi_table *root;
	UINTN width;

	for (UINTN i = 0; i < ST->NumberOfTableEntries; i++)
		if (CompareGuid(&ST->ConfigurationTable[i].VendorGuid, &acpi_20_guid) == 0)
			rsdp = ST->ConfigurationTable[i].VendorTable;
	if (!rsdp)
		return 0;
	width = rsdp->revision >= 2 && rsdp->xsdt ? sizeof(u64) : sizeof(u32);
	root = (const void *)(width == sizeof(u64) ? rsdp->xsdt : rsdp->rsdt);
	if (!root || root->length < sizeof(*root))
		return 0;
	for (UINTN at = sizeof(*root); at + width <= root->length; at += width) {
		const u8 *pointer = (const u8 *)root + at;
		u64 address = read_u32(pointer) | (width == sizeof(u64) ? (u64)read_u32(pointer + 4) << 32 : 0);
		const struct acpi_table *table = (const void *)address;

		if (table && CompareMem(table->signature, "APIC", sizeof(table->signature)) == 0)
			return count_madt((const struct acpi_madt *)table);
	}
	return 0;
}

UINT32 processors_count(void)
{
	UINT32 listed = count_acpi();
	struct mp_services *mp;
	UINTN count, enabled;

	if (!listed)
		listed = 1;
	if (!EFI_ERROR(BS->LocateProtocol(&mp_services_guid, NULL, (void **)&mp)) &&
	    !EFI_ERROR(mp->get_number_of_processors(mp, &count, &enabled)) && enabled > listed)
		listed = enabled;
	return listed;
}

/* What CPUID says, 0 if nothing. */
static UINT64 tsc_hz_by_cpuid(void)
{
	struct cpuid_result ratio;

	if (cpuid(0, 0).eax < 0x15)
		return 0;
	ratio = cpuid(0x15, 0);
	if (ratio.eax && ratio.ebx && ratio.ecx)
		return (UINT64)ratio.ecx * ratio.ebx / ratio.eax;
	if (cpuid(0, 0).eax < 0x16)
		return 0;
	return (UINT64)(cpuid(0x16, 0).eax & 0xffff) * 1000000;
}

UINT64 processors_tsc_hz(void)
{
	UINT64 said = tsc_hz_by_cpuid(), measured, start = rdtsc();

	BS->Stall(20000);
	measured = (rdtsc() - start) * 50;
	/*
	 * CPUID is exact where it is right; emulators and outer hypervisors report a frequency that they don't run at.
	 */
	return said > measured - measured / 20 && said < measured + measured / 20 ? said : measured;
}
