// SPDX-License-Identifier: MIT
/* Before PROTECT: everything is put where the protected loader finds it. Nothing here is trusted by anybody. */
#include "acpi_copy.h"
#include "cpu_features.h"
#include "efi_start.h"
#include "protect.h"

#define CPUID_X2APIC 21 /* leaf 1, ECX */
#define KVM_SIGNATURE_LEAF 0x40000000
#define KVM_FEATURES_LEAF 0x40000001
#define ACPI_ENABLED BIT(0)
#define ACPI_TRIES 300000
#define LOWEST_IMAGE (1 << 20)

static struct machine boot_machine;

const struct payload *image_payload(void)
{
	return (const struct payload *)payload_start;
}

static bool is_kvm(void)
{
	struct cpuid_result r = cpuid(KVM_SIGNATURE_LEAF, 0);

	return r.ebx == 0x4b4d564b && r.ecx == 0x564b4d56 && r.edx == 0x4d; /* "KVMKVMKVM" */
}

const char *machine_unfit(void)
{
	const struct payload *payload = image_payload();
	struct layout layout;
	const char *error = layout_find(&layout, payload, (const void *)(payload_start + PAGE_SIZE));
	struct cpuid_result features = cpuid(1, 0);

	if (error || (payload->flags & PAYLOAD_UNPROTECTED))
		return error;
	if (!is_kvm())
		return "not under HyperPS: this VM is not run by KVM. Start it with -accel kvm, on a host where "
		       "HyperPS "
		       "runs";
	if (!(features.ecx & BIT(CPUID_RDRAND)))
		return "the VM's CPU has no RDRAND, which protected Linux needs: start QEMU with -cpu host";
	if (!(features.ecx & BIT(CPUID_X2APIC)))
		return "the VM's CPU has no x2APIC, which protected Linux needs: start QEMU with -cpu host";
	return NULL;
}

bool machine_add(struct machine *machine, u64 start, u64 end, u32 type)
{
	if (end < start)
		return true;
	if (type == E820_RAM)
		return ranges_add(&machine->free, ALIGN_UP(start, PAGE_SIZE), ALIGN_DOWN(end, PAGE_SIZE));
	return ranges_remove(&machine->free, ALIGN_DOWN(start, PAGE_SIZE), ALIGN_UP(end, PAGE_SIZE));
}

/* The RSDP where a BIOS has it. */
static u64 bios_rsdp(void)
{
	for (u64 at = 0xe0000; at < 0x100000; at += 16)
		if (!memcmp((const void *)at, "RSD PTR ", 8))
			return at;
	return 0;
}

void boot_start(struct boot_params *parameters)
{
	u64 system_table = parameters->efi_system_table | (u64)parameters->efi_system_table_high << 32;
	const char *unfit = machine_unfit();
	u64 count = parameters->e820_entries;
	bool fits = true;

	if (unfit)
		give_up(unfit);
	for (u64 pass = 0; pass < 2; pass++)
		for (u64 i = 0; i < count && i < E820_ENTRIES; i++) {
			const struct e820_entry *entry = &parameters->e820[i];

			if ((entry->type != E820_RAM) == pass)
				fits = fits && machine_add(&boot_machine, entry->address, entry->address + entry->bytes,
							   entry->type);
		}
	if (!fits)
		give_up("the firmware's memory map has too many entries");
	boot_machine.rsdp = parameters->acpi_rsdp_addr;
	if (!boot_machine.rsdp && parameters->efi_signature == EFI_LOADER_SIGNATURE && system_table < LIMIT_4G)
		boot_machine.rsdp = efi_rsdp((const void *)system_table);
	prepare(&boot_machine);
}

static bool read_memory(void *to, u64 address, u64 bytes)
{
	if (address >= LIMIT_4G || bytes > LIMIT_4G - address)
		return false;
	memcpy(to, (const void *)address, bytes);
	return true;
}

/* The command that does it raises an SMI, of which a protected VM would die. */
static void enable_acpi(u64 rsdp)
{
	struct acpi_enable enable;

	if (!acpi_find_enable(read_memory, rsdp, &enable) || !enable.control_port || !enable.command_port ||
	    !enable.value)
		return;
	if (inw(enable.control_port) & ACPI_ENABLED)
		return;
	outb(enable.command_port, enable.value);
	for (u64 i = 0; i < ACPI_TRIES && !(inw(enable.control_port) & ACPI_ENABLED); i++)
		pause();
}

/* KVM would go on to write into pages that it takes for the guest's. */
static void disable_kvm_pages(void)
{
	static const struct {
		u32 feature, msr;
	} pages[] = {
		{ BIT(0), 0x12 }, /* kvmclock, old */
		{ BIT(3), 0x4b564d01 }, /* kvmclock */
		{ BIT(4), 0x4b564d02 }, /* asynchronous page faults */
		{ BIT(5), 0x4b564d03 }, /* steal time */
		{ BIT(6), 0x4b564d04 }, /* end of interrupt */
	};
	u32 features = is_kvm() ? cpuid(KVM_FEATURES_LEAF, 0).eax : 0;

	for (u64 i = 0; i < ARRAY_SIZE(pages); i++)
		if (features & pages[i].feature)
			wrmsr(pages[i].msr, 0);
}

/* Linux takes the xAPIC's page for memory of its own. */
static void enable_x2apic(void)
{
	if (cpuid(1, 0).ecx & BIT(CPUID_X2APIC))
		wrmsr(MSR_IA32_APIC_BASE, rdmsr(MSR_IA32_APIC_BASE) | APIC_BASE_ENABLE | APIC_BASE_X2APIC);
}

/* Where the payload can stay, or be moved to, so that the kernel's memory and the low memory don't overlap it. */
static u64 find_place(const struct machine *machine, const struct layout *layout)
{
	static struct ranges free;
	u64 start = (u64)payload_start, end = start + layout->payload_bytes;

	if (end <= ACPI_ADDRESS || (start >= layout->end && end <= LIMIT_4G))
		return start;
	free = machine->free;
	if (!ranges_remove(&free, 0, LOWEST_IMAGE) || !ranges_remove(&free, ACPI_ADDRESS, layout->end) ||
	    !ranges_remove(&free, (u64)loader_start, start))
		return 0;
	return ranges_highest(&free, layout->payload_bytes, LIMIT_4G);
}

/* The stub page: what KVM's emulator executes for the guest, each instruction at its place. */
static void write_stub(void)
{
	static const struct {
		u8 offset, bytes[5];
	} instructions[] = {
		/* NOP; then CLI, HLT, JMP back, for a VM that died and was forgotten while it was paused. */
		{ 0x00, { 0x90, 0xfa, 0xf4, 0xeb, 0xfc } },
		{ 0x10, { 0x88, 0x07 } }, /* MOV [BX], AL */
		{ 0x14, { 0x89, 0x07 } }, /* MOV [BX], AX */
		{ 0x18, { 0x66, 0x89, 0x07 } }, /* MOV [BX], EAX */
		{ 0x20, { 0x8a, 0x07 } }, /* MOV AL, [BX] */
		{ 0x24, { 0x8b, 0x07 } }, /* MOV AX, [BX] */
		{ 0x28, { 0x66, 0x8b, 0x07 } }, /* MOV EAX, [BX] */
	};

	for (u64 i = 0; i < ARRAY_SIZE(instructions); i++)
		memcpy((u8 *)STUB_ADDRESS + instructions[i].offset, instructions[i].bytes,
		       sizeof(instructions[i].bytes));
}

/* The ends of what is free, where QEMU does not say how much RAM there is. */
static void find_ram(const struct machine *machine, struct ram *ram)
{
	if (qemu_ram(ram))
		return;
	for (u64 i = 0; i < machine->free.count; i++) {
		if (machine->free.range[i].end <= LIMIT_4G)
			ram->low_end = machine->free.range[i].end;
		else
			ram->high_end = machine->free.range[i].end;
	}
}

/* The list, and what the kernel will have as RAM. */
static void write_list(const struct machine *machine, struct handover *handover)
{
	struct protect_list *list = (struct protect_list *)LIST_ADDRESS;
	struct range range[RAM_RANGES];
	struct ram ram;
	u64 count;

	find_ram(machine, &ram);
	protect_fill(list, (const struct loader_table *)(loader_start + LOADER_TABLE_OFFSET), &ram);
	list->apic_id = cpuid(0xb, 0).edx;
	count = layout_ranges(&ram, range);
	handover->ram.count = 0;
	for (u64 i = 0; i < count; i++)
		ranges_add(&handover->ram, range[i].start, range[i].end);
}

static void check_memory(const struct machine *machine, const struct layout *layout, u64 place)
{
	if (place && ranges_contain(&machine->free, ACPI_ADDRESS, layout->end) &&
	    ranges_contain(&machine->free, LOW_START, LOW_END))
		return;
	print("\nHyperPS: the image needs free memory from ");
	print_number(LOW_START >> 10);
	print(" to ");
	print_number(LOW_END >> 10);
	print(" KiB, from ");
	print_number(ACPI_ADDRESS >> 20);
	print(" to ");
	print_number((layout->end >> 20) + 1);
	print(" MiB, and ");
	print_number((layout->payload_bytes >> 20) + 1);
	print(" MiB elsewhere below 4 GiB");
	give_up("the VM has too little memory for this image: give it more (QEMU: -m)");
}

void prepare(struct machine *machine)
{
	const struct payload *payload = image_payload();
	struct handover *handover = (struct handover *)HANDOVER_ADDRESS;
	struct layout layout;
	u64 place;

	map_memory(0);
	load_segments();
	/* Without PCIDE, which can't be on outside of 64-bit mode, and CET. */
	WRITE_REGISTER(cr4, CR4_PAE);
	layout_find(&layout, payload, (const void *)(payload_start + PAGE_SIZE));
	if ((u64)loader_start < LOWEST_IMAGE || (u64)payload_start >= LIMIT_4G)
		give_up("the image was loaded below 1 MiB or above 4 GiB: start it by QEMU's -kernel or as an EFI "
			"program");
	place = find_place(machine, &layout);
	check_memory(machine, &layout, place);
	if (!machine->rsdp)
		machine->rsdp = bios_rsdp();
	if (place != (u64)payload)
		memmove((void *)place, payload, layout.payload_bytes);
	payload = (const struct payload *)place;
	enable_acpi(machine->rsdp);
	disable_kvm_pages();
	enable_x2apic();
	memset((void *)LOW_START, 0, LOW_END - LOW_START);
	write_stub();
	*handover = (struct handover){ .payload = place, .rsdp = machine->rsdp };
	write_list(machine, handover);
	memcpy((void *)LOADER_ADDRESS, loader_start, measured_end - loader_start);
	descend(payload->flags & PAYLOAD_UNPROTECTED ? 0 : LIST_ADDRESS);
}
