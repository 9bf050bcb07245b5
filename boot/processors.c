// SPDX-License-Identifier: MIT
#include "acpi.h"
#include "loader.h"
#include "cpu_features.h"

/* The part of EFI_MP_SERVICES_PROTOCOL that is called here ("MP Services Protocol", UEFI Platform Initialization). */
struct mp_services {
	EFI_STATUS(EFIAPI *get_number_of_processors)(struct mp_services *this, UINTN *count, UINTN *enabled);
};

static EFI_GUID mp_services_guid = { 0x3fdda605, 0xa76e, 0x4f46, { 0xad, 0x29, 0x12, 0xf4, 0x53, 0x1b, 0x3d, 0x08 } };
struct acpi_madt {
	struct acpi_table header;
	u32 local_apic, flags;
	u8 entries[];
} __attribute__((packed));

#define MADT_LOCAL_APIC 0 /* 8 bytes, ID at 3, flags at 4 */
#define MADT_LOCAL_X2APIC 9 /* 16 bytes, ID at 4, flags at 8 */
#define MADT_ENABLED BIT(0)
#define NO_LOCAL_APIC 0xff /* IDs that name no CPU but all: firmware fills unused entries with them */
#define NO_X2APIC 0xffffffff

/* The APIC ID of the next CPU that is listed as enabled, from the entry at *at on. False at the table's end. */
static bool next_cpu(const struct acpi_madt *madt, u32 *at, u32 *id)
{
	u32 size = madt->header.length - sizeof(*madt);

	while (*at + 2 <= size) {
		const u8 *entry = madt->entries + *at;
		u8 length = entry[1];

		if (length < 2 || length > size - *at)
			return false;
		*at += length;
		if (entry[0] == MADT_LOCAL_APIC && length >= 8 && (acpi_read_u32(entry + 4) & MADT_ENABLED)) {
			*id = entry[3];
			if (*id != NO_LOCAL_APIC)
				return true;
		} else if (entry[0] == MADT_LOCAL_X2APIC && length >= 16 && (acpi_read_u32(entry + 8) & MADT_ENABLED)) {
			*id = acpi_read_u32(entry + 4);
			if (*id != NO_X2APIC)
				return true;
		}
	}
	return false;
}

/* Some firmware lists a CPU twice, or both ways. */
static UINT32 count_madt(const struct acpi_madt *madt)
{
	UINT32 count = 0;
	u32 id, other;

	for (u32 at = 0; madt && next_cpu(madt, &at, &id);) {
		bool seen = false;

		for (u32 before = 0; !seen && next_cpu(madt, &before, &other) && before < at;)
			seen = other == id;
		count += !seen;
	}
	return count;
}

static const struct acpi_madt *find_madt(void)
{
	const struct acpi_madt *madt = (const struct acpi_madt *)acpi_table("APIC");

	return madt && madt->header.length >= sizeof(*madt) ? madt : NULL;
}

u32 processors_largest_apic_id(void)
{
	const struct acpi_madt *madt = find_madt();
	u32 id, largest = 0;

	for (u32 at = 0; madt && next_cpu(madt, &at, &id);)
		if (id > largest)
			largest = id;
	return largest;
}

struct processors processors_count(void)
{
	UINT32 madt = count_madt(find_madt());
	struct processors cpus = { .listed = madt ? madt : 1, .existing = madt ? madt : 1 };
	struct mp_services *mp;
	UINTN count, enabled;

	if (EFI_ERROR(BS->LocateProtocol(&mp_services_guid, NULL, (void **)&mp)) ||
	    EFI_ERROR(mp->get_number_of_processors(mp, &count, &enabled)) || !count || enabled > count)
		return cpus;
	/* They count what has answered, the table lists what it likes. What they have disabled it may rightly leave out. */
	if (cpus.existing > count)
		cpus.existing = (UINT32)count;
	if (cpus.existing < enabled)
		cpus.existing = (UINT32)enabled;
	if (cpus.listed < count)
		cpus.listed = (UINT32)count;
	return cpus;
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
