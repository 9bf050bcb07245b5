// SPDX-License-Identifier: MIT
/* The image as an EFI program, and what EFI left behind for a loader that has ended it. */
#include <efi.h>

#include "efi_start.h"

#define MAP_BYTES (64 << 10)

static const EFI_GUID acpi_guids[] = { ACPI_20_TABLE_GUID, ACPI_TABLE_GUID };
static struct machine machine;
static u8 map[MAP_BYTES] __attribute__((aligned(16)));

u64 efi_rsdp(const void *system_table)
{
	const EFI_SYSTEM_TABLE *efi = system_table;

	for (u64 g = 0; g < ARRAY_SIZE(acpi_guids); g++)
		for (u64 i = 0; i < efi->NumberOfTableEntries; i++)
			if (!memcmp(&efi->ConfigurationTable[i].VendorGuid, &acpi_guids[g], sizeof(EFI_GUID)))
				return (u64)efi->ConfigurationTable[i].VendorTable;
	return 0;
}

static u32 e820_type(u32 efi_type)
{
	switch (efi_type) {
	case EfiLoaderCode:
	case EfiLoaderData:
	case EfiBootServicesCode:
	case EfiBootServicesData:
	case EfiConventionalMemory:
		return E820_RAM;
	case EfiACPIReclaimMemory:
		return E820_ACPI;
	case EfiACPIMemoryNVS:
		return E820_NVS;
	default:
		return E820_RESERVED;
	}
}

static void go_on(void *unused)
{
	(void)unused;
	prepare(&machine);
}

/* All of the image, once more, below 4 GiB. */
static EFI_STATUS start_low(EFI_HANDLE image, EFI_SYSTEM_TABLE *system_table, u64 bytes)
{
	EFI_PHYSICAL_ADDRESS low = LIMIT_4G - 1;
	EFI_STATUS(EFIAPI * start)(EFI_HANDLE, EFI_SYSTEM_TABLE *);
	EFI_STATUS status = system_table->BootServices->AllocatePages(AllocateMaxAddress, EfiLoaderCode,
								      (bytes + PAGE_SIZE - 1) / PAGE_SIZE, &low);

	if (EFI_ERROR(status)) {
		print("\nHyperPS: the firmware has no room for the image below 4 GiB: give the VM more memory\n");
		return status;
	}
	memcpy((void *)low, image_start, bytes);
	start = (void *)(low + ((u64)efi_start - (u64)image_start));
	return start(image, system_table);
}

EFI_STATUS EFIAPI efi_start(EFI_HANDLE image, EFI_SYSTEM_TABLE *system_table)
{
	UINTN bytes, key, size = 0;
	struct layout layout;
	EFI_STATUS status;
	UINT32 version;
	const char *unfit;
	u64 end;

	console_use_efi(system_table);
	unfit = machine_unfit();
	if (unfit) {
		print("\nHyperPS: ");
		print(unfit);
		print("\n");
		return EFI_UNSUPPORTED;
	}
	layout_find(&layout, image_payload(), (const void *)(payload_start + PAGE_SIZE));
	end = (u64)payload_start + layout.payload_bytes;
	if (end > LIMIT_4G)
		return start_low(image, system_table, end - (u64)image_start);
	machine.rsdp = efi_rsdp(system_table);
	/* The map may have changed meanwhile; then once more. */
	for (int tries = 0; tries < 4; tries++) {
		bytes = sizeof(map);
		status = system_table->BootServices->GetMemoryMap(&bytes, (EFI_MEMORY_DESCRIPTOR *)map, &key, &size,
								  &version);
		if (EFI_ERROR(status))
			break;
		status = system_table->BootServices->ExitBootServices(image, key);
		if (!EFI_ERROR(status))
			break;
	}
	if (EFI_ERROR(status)) {
		print("\nHyperPS: the firmware does not give its memory map or does not end its boot services\n");
		return status;
	}
	console_use_efi(NULL);
	for (u64 at = 0; at + size <= bytes; at += size) {
		const EFI_MEMORY_DESCRIPTOR *entry = (const void *)(map + at);

		if (!machine_add(&machine, entry->PhysicalStart,
				 entry->PhysicalStart + entry->NumberOfPages * PAGE_SIZE, e820_type(entry->Type)))
			give_up("the firmware's memory map has too many entries");
	}
	asm volatile("cli");
	run_on(go_on, NULL);
}
