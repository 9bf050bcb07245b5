// SPDX-License-Identifier: MIT
#include "cpu_features.h"
#include "gate_page.h"
#include "loader.h"
#include "page_mark.h"
#include "pagetable.h"

#define GATE_STEP (1ULL << 24)

#define LEGACY_MEMORY 0x100000

#define LOW_LIMIT                                                                                                      \
	0x8ffff /* highest byte of the trampoline's pages: from 0x90000 on, firmware keeps data of its own             \
		 */

static const UINTN alignment_pages = PAGE_SIZE_2M / PAGE_SIZE;

/* Whether the part of the region that will be free has pages at addresses as the VMFUNC gate needs them. */
static bool suits_gate(UINT64 region, const struct monitor_memory *memory)
{
	static UINT8 scratch[PAGE_SIZE];
	UINT64 found = 0;

	for (UINT64 at = memory->gate_offset; at < memory->region_size && found < memory->gate_roots; at += PAGE_SIZE)
		found += gate_root_is_safe(region + at, scratch);
	return found == memory->gate_roots;
}

/* limit: the highest byte address that it may have. */
static EFI_STATUS allocate_below(UINT64 limit, UINTN pages, EFI_PHYSICAL_ADDRESS *base)
{
	*base = limit;
	return BS->AllocatePages(AllocateMaxAddress, EfiReservedMemoryType, pages, base);
}

/* The highest place that suits the gate, if there is one. */
static EFI_STATUS allocate_for_gate(const struct monitor_memory *memory, UINTN pages, EFI_PHYSICAL_ADDRESS *base)
{
	EFI_PHYSICAL_ADDRESS limit = GATE_MEMORY_LIMIT - 1;
	EFI_STATUS status;

	for (;;) {
		status = allocate_below(limit, pages, base);
		if (EFI_ERROR(status) || suits_gate(ALIGN_UP(*base, PAGE_SIZE_2M), memory))
			return status;
		BS->FreePages(*base, pages);
		/* Mostly it is the highest byte of the address that does not suit. */
		limit = ALIGN_DOWN(*base + pages * PAGE_SIZE - 1, GATE_STEP) - 1;
		if (limit < pages * PAGE_SIZE)
			return EFI_NOT_FOUND;
	}
}

/* The first `size` bytes from a multiple of 2 MiB on in what was taken at base: alignment_pages - 1 pages more than that. */
static EFI_PHYSICAL_ADDRESS align(EFI_PHYSICAL_ADDRESS base, UINT64 size)
{
	EFI_PHYSICAL_ADDRESS aligned = ALIGN_UP(base, PAGE_SIZE_2M);
	UINTN head = (aligned - base) / PAGE_SIZE;

	if (head)
		BS->FreePages(base, head);
	if (head < alignment_pages - 1)
		BS->FreePages(aligned + size, alignment_pages - 1 - head);
	return aligned;
}

static EFI_STATUS take_region(struct monitor_memory *memory)
{
	UINTN pages = memory->region_size / PAGE_SIZE;
	EFI_PHYSICAL_ADDRESS base;
	EFI_STATUS status = allocate_for_gate(memory, pages + alignment_pages - 1, &base);

	if (EFI_ERROR(status))
		status = allocate_below(PAGE_MARK_LIMIT - 1, pages + alignment_pages - 1, &base);
	if (!EFI_ERROR(status))
		memory->region = align(base, memory->region_size);
	return status;
}

static void take_kvm_pool(struct monitor_memory *memory)
{
	UINTN pages = memory->kvm_pool_size / PAGE_SIZE + alignment_pages - 1;
	EFI_PHYSICAL_ADDRESS base;

	if (memory->kvm_pool_size && !EFI_ERROR(allocate_below(PAGE_MARK_LIMIT - 1, pages, &base)))
		memory->kvm_pool = align(base, memory->kvm_pool_size);
}

static EFI_STATUS take_low_pages(struct monitor_memory *memory)
{
	EFI_PHYSICAL_ADDRESS page_zero = 0;
	EFI_STATUS status;
	bool took_page_zero;

	/* A SIPI vector of 0 would be valid, but page 0 is where stray null pointers and old firmware tables are. */
	took_page_zero = !EFI_ERROR(BS->AllocatePages(AllocateAddress, EfiLoaderData, 1, &page_zero));
	memory->low = LOW_LIMIT;
	status = BS->AllocatePages(AllocateMaxAddress, EfiReservedMemoryType, memory->low_size / PAGE_SIZE,
				   &memory->low);
	if (took_page_zero)
		BS->FreePages(page_zero, 1);
	if (EFI_ERROR(status))
		memory->low = 0;
	return status;
}

/*
 * Memory-protecting firmware may make reserved memory non-executable; the boot CPU's first steps are in the low pages.
 */
static void make_executable(EFI_PHYSICAL_ADDRESS base, UINT64 size)
{
	static EFI_GUID guid = { 0xf4560cf6, 0x40ec, 0x4b4a, { 0xa1, 0x92, 0xbf, 0x1d, 0x57, 0xd0, 0xb1, 0x89 } };
	struct memory_attribute {
		EFI_STATUS(EFIAPI *get)(struct memory_attribute *, EFI_PHYSICAL_ADDRESS, UINT64, UINT64 *);
		EFI_STATUS(EFIAPI *set)(struct memory_attribute *, EFI_PHYSICAL_ADDRESS, UINT64, UINT64);
		EFI_STATUS(EFIAPI *clear)(struct memory_attribute *, EFI_PHYSICAL_ADDRESS, UINT64, UINT64);
	} * attribute;

	if (!EFI_ERROR(BS->LocateProtocol(&guid, NULL, (void **)&attribute)))
		attribute->clear(attribute, base, size, EFI_MEMORY_XP);
}

UINT64 memory_rights(UINT64 address)
{
	const UINT64 *table = (const void *)(READ_REGISTER(cr3) & PTE_ADDRESS);
	UINT64 rights = PTE_PRESENT | PTE_WRITE;

	if (address >> 47)
		return 0;
	for (unsigned shift = 39;; shift -= 9) {
		UINT64 entry = table[address >> shift & 511];

		rights = (rights & entry) | ((rights | entry) & PTE_NX);
		if (!(entry & PTE_PRESENT))
			return 0;
		if (shift == PAGE_SHIFT || (entry & PTE_LARGE))
			return rdmsr(MSR_IA32_EFER) & EFER_NXE ? rights : rights & ~PTE_NX;
		table = (const void *)(entry & PTE_ADDRESS);
	}
}

EFI_STATUS memory_take(struct monitor_memory *memory)
{
	EFI_STATUS status = take_region(memory);

	if (EFI_ERROR(status)) {
		memory->region = 0;
		return unfit(status,
			     L"not enough free memory: the monitor needs %ld MiB in one piece (%r). Add memory, or "
			     L"lower memory "
			     L"in hyperps.conf",
			     memory->region_size >> 20, status);
	}
	status = take_low_pages(memory);
	if (EFI_ERROR(status)) {
		memory_give_back(memory);
		return unfit(status,
			     L"no free memory below 0x90000 to start CPUs from (%r). Switch legacy boot (CSM) off",
			     status);
	}
	make_executable(memory->low, PAGE_SIZE);
	if (memory_rights(memory->low) & PTE_NX) {
		memory_give_back(memory);
		return unfit(EFI_UNSUPPORTED,
			     L"the firmware lets no code run in reserved memory. Switch its memory protection "
			     L"off, or update it");
	}
	take_kvm_pool(memory);
	return EFI_SUCCESS;
}

void memory_give_back(struct monitor_memory *memory)
{
	if (memory->low)
		BS->FreePages(memory->low, memory->low_size / PAGE_SIZE);
	if (memory->region)
		BS->FreePages(memory->region, memory->region_size / PAGE_SIZE);
	if (memory->kvm_pool)
		BS->FreePages(memory->kvm_pool, memory->kvm_pool_size / PAGE_SIZE);
	memory->low = memory->region = memory->kvm_pool = 0;
}

static EFI_STATUS get_memory_map(EFI_MEMORY_DESCRIPTOR **map, UINTN *size, UINTN *descriptor_size)
{
	EFI_STATUS status;
	UINT32 version;
	UINTN key;

	*map = NULL;
	*size = 0;
	for (;;) {
		status = BS->GetMemoryMap(size, *map, &key, descriptor_size, &version);
		if (*map && status != EFI_SUCCESS) {
			FreePool(*map);
			*map = NULL;
		}
		if (status != EFI_BUFFER_TOO_SMALL)
			return *map || EFI_ERROR(status) ? status : EFI_DEVICE_ERROR; /* a mere warning gives no map */
		*size += 8 * *descriptor_size; /* allocating the buffer changes the map */
		*map = AllocatePool(*size);
		if (!*map)
			return EFI_OUT_OF_RESOURCES;
	}
}

EFI_STATUS memory_map_read(struct boot_memory_range *ranges, u32 *count)
{
	EFI_MEMORY_DESCRIPTOR *map;
	UINTN size, descriptor_size;
	EFI_STATUS status = get_memory_map(&map, &size, &descriptor_size);
	struct boot_memory_range *last = NULL;

	if (EFI_ERROR(status))
		return unfit(status, L"the firmware does not give its memory map (%r). Update the firmware", status);
	*count = 0;
	for (UINTN at = 0; at + descriptor_size <= size; at += descriptor_size) {
		const EFI_MEMORY_DESCRIPTOR *d = (const void *)((const char *)map + at);
		UINT64 bytes = d->NumberOfPages * PAGE_SIZE;

		if (last && last->type == d->Type && last->base + last->size == d->PhysicalStart) {
			last->size += bytes;
			continue;
		}
		if (*count == BOOT_MEMORY_RANGES) {
			FreePool(map);
			return unfit(EFI_BUFFER_TOO_SMALL,
				     L"the firmware's memory map has more than %d ranges. Report this machine to the "
				     L"project",
				     BOOT_MEMORY_RANGES);
		}
		last = &ranges[(*count)++];
		*last = (struct boot_memory_range){ d->PhysicalStart, bytes, d->Type, 0 };
	}
	FreePool(map);
	return EFI_SUCCESS;
}

bool memory_is_mapped(UINT64 address, UINT64 bytes)
{
	bool found = address < LEGACY_MEMORY && bytes <= LEGACY_MEMORY - address;
	EFI_MEMORY_DESCRIPTOR *map;
	UINTN size, descriptor_size;

	if (found || EFI_ERROR(get_memory_map(&map, &size, &descriptor_size)))
		return found;
	for (UINTN at = 0; at + descriptor_size <= size && !found; at += descriptor_size) {
		const EFI_MEMORY_DESCRIPTOR *d = (const void *)((const char *)map + at);
		UINT64 offset = address - d->PhysicalStart, length = d->NumberOfPages * PAGE_SIZE;

		found = offset < length && bytes <= length - offset;
	}
	FreePool(map);
	return found;
}

/*
 * TCG, "Platform Reset Attack Mitigation Specification". Firmware that has the control variable clears the memory at its
 * next start if bit 0 is set; bit 4 says that an orderly shutdown is no reason not to. The lock, where there is one,
 * keeps the host from taking it back.
 */
void memory_request_overwrite(void)
{
	static EFI_GUID control = { 0xe20939be, 0x32d4, 0x41be, { 0xa1, 0x50, 0x89, 0x7f, 0x85, 0xd4, 0x98, 0x29 } };
	static EFI_GUID lock = { 0xbb983ccf, 0x151d, 0x40e1, { 0xa0, 0x7b, 0x4a, 0x17, 0xbe, 0x16, 0x82, 0x92 } };
	static CHAR16 control_name[] = L"MemoryOverwriteRequestControl";
	static CHAR16 lock_name[] = L"MemoryOverwriteRequestControlLock";
	UINTN size = sizeof(UINT8);
	UINT8 value;
	UINT32 attributes;

	if (EFI_ERROR(RT->GetVariable(control_name, &control, &attributes, &size, &value)))
		return;
	value = 0x11;
	if (EFI_ERROR(RT->SetVariable(control_name, &control, attributes, sizeof(value), &value))) {
		Print(L"HyperPS: the firmware refuses to overwrite the memory at its next start.\r\n");
		return;
	}
	Print(L"HyperPS: the firmware will overwrite the memory at its next start.\r\n");
	size = sizeof(value);
	if (!EFI_ERROR(RT->GetVariable(lock_name, &lock, &attributes, &size, &value)) && !value) {
		value = 1;
		RT->SetVariable(lock_name, &lock, attributes, sizeof(value), &value);
	}
}
