// SPDX-License-Identifier: MIT
/*
 * What runs once the VM is protected, in the copy at LOADER_ADDRESS. It believes nothing that is not private: what lies in shared memory
 * is read once, by read_shared(), and what the kernel gets of it is measured.
 */
#include "acpi_copy.h"
#include "loader.h"
#include "protect.h"
#include "digest.h"

#define TDX_LEAF 0x21
#define TDCALL_VP_INFO 1
#define TDCALL_RTMR_EXTEND 2

/* In the order in which they are filled: what of the machine, the kernel, what it is told to do. */
enum rtmr { RTMR_MACHINE, RTMR_KERNEL, RTMR_WORDS };

static struct handover handover;
static struct payload payload;
static struct boot_params header;
static struct ranges ram;
static bool is_protected;

static u64 tdcall(u64 leaf, u64 *rcx, u64 rdx)
{
	asm volatile(".byte 0x66, 0x0f, 0x01, 0xcc"
		     : "+a"(leaf), "+c"(*rcx), "+d"(rdx)
		     :
		     : "r8", "r9", "r10", "r11", "memory");
	return leaf;
}

static bool read_shared(void *to, u64 address, u64 bytes)
{
	if (address >= LIMIT_4G || bytes > LIMIT_4G - address)
		return false;
	memcpy(to, (const void *)(SHARED_WINDOW + address), bytes);
	return true;
}

static void measure(enum rtmr rtmr, const char *what, const void *data, u64 bytes)
{
	static u8 digest[SHA384_BYTES] __attribute__((aligned(64)));
	u64 address = (u64)digest;

	sha384(data, bytes, digest);
	print("HyperPS: RTMR");
	print_number(rtmr);
	print(" ");
	print(what);
	print(" ");
	print_hex(digest, sizeof(digest));
	print("\n");
	if (is_protected && tdcall(TDCALL_RTMR_EXTEND, &address, rtmr))
		give_up("the monitor does not extend a measurement register");
}

void refused(u64 unused, u64 error)
{
	static const struct {
		int code;
		const char *text;
	} errors[] = {
		{ -1000,
		  "not under HyperPS: KVM alone runs this VM, and there is no monitor below it. Start it on a host "
		  "where hpsctl status says that HyperPS runs, with kvm = on in its hyperps.conf" },
		{ -38, "the monitor of this host protects no VMs: its hyperps.conf wants kvm = on and protected = on" },
		{ -1, "the monitor refuses protection: the VM's KVM does not use unrestricted guest mode" },
		{ -16, "hyperps.ko is not loaded in the host: modprobe hyperps there" },
		{ -22, "the monitor does not take the memory map. If the VM has RAM or devices at high addresses, "
		       "start QEMU "
		       "with -cpu host,host-phys-bits-limit=N, N one less than the host's physical address bits" },
		{ -13, "memory of the VM is not the host's to give: start it with memory of its own (QEMU: "
		       "memory-backend-memfd,hugetlb=on)" },
		{ -12, "the monitor has no room for another protected VM: end one" },
		{ -11, "the monitor is still busy with an ended VM: try again" },
	};

	(void)unused;
	for (u64 i = 0; i < ARRAY_SIZE(errors); i++)
		if ((int)error == errors[i].code)
			give_up(errors[i].text);
	print("\nHyperPS: PROTECT answers -");
	print_number(-(u32)error);
	give_up("the monitor does not protect this VM");
}

/* Entry by entry, so that the set is in order whatever was handed over. */
static void take_ram(void)
{
	for (u64 i = 0; i < handover.ram.count && i < RANGES; i++)
		ranges_add(&ram, ALIGN_UP(handover.ram.range[i].start, PAGE_SIZE),
			   ALIGN_DOWN(handover.ram.range[i].end, PAGE_SIZE));
}

/* A protected VM's CPUID is the monitor's; that of another VM's host may say what it likes. Returns the shared bit. */
static u64 find_shared_bit(void)
{
	struct cpuid_result r = cpuid(TDX_LEAF, 0);
	u64 width = 0;

	is_protected = r.ebx == 0x65746e49 && r.edx == 0x5844546c && r.ecx == 0x20202020; /* "IntelTDX    " */
	if (!is_protected)
		return 0;
	if (tdcall(TDCALL_VP_INFO, &width, 0))
		give_up("the monitor does not say how wide an address is");
	return BIT((width & 63) - 1);
}

void protected_start(void)
{
	struct acpi_copy acpi = { .read = read_shared };
	struct layout layout;
	struct boot_params *parameters;
	const char *error;
	u64 shared_bit;

	shared_bit = find_shared_bit();
	map_memory(shared_bit);
	if (!is_protected)
		print("\nHyperPS: this VM is NOT protected: its image was made with --unprotected\n");
	else if (pci_is_above(shared_bit))
		give_up("a device lies where shared memory is seen: start QEMU with -cpu host,host-phys-bits-limit=N, "
			"N one "
			"less than the host's physical address bits");
	read_shared(&handover, HANDOVER_ADDRESS, sizeof(handover));
	if (!read_shared(&payload, handover.payload, sizeof(payload)) ||
	    !read_shared(&header, handover.payload + PAGE_SIZE, sizeof(header)))
		give_up("the image was not handed over: it is broken");
	take_ram();
	error = layout_find(&layout, &payload, &header);
	if (error)
		give_up(error);
	if (!ranges_contain(&ram, ACPI_ADDRESS, layout.end))
		give_up("the VM has too little memory for this image: give it more (QEMU: -m)");
	if (!read_shared((void *)layout.file, handover.payload + layout.kernel_offset, payload.kernel_bytes) ||
	    !read_shared((void *)layout.initrd, handover.payload + layout.initrd_offset, payload.initrd_bytes) ||
	    !read_shared((void *)layout.command_line, handover.payload + layout.command_line_offset,
			 payload.command_line_bytes) ||
	    memcmp((void *)layout.file, &header, sizeof(header)))
		give_up("the image changed while it was copied: it is broken");
	((char *)layout.command_line)[payload.command_line_bytes] = 0;
	acpi.area = (u8 *)layout.acpi;
	acpi.address = layout.acpi;
	acpi.size = ACPI_BYTES;
	memset(acpi.area, 0, acpi.size);
	if (!acpi_copy(&acpi, handover.rsdp))
		give_up(acpi.error);
	parameters = (struct boot_params *)layout.parameters;
	layout_parameters(&layout, &payload, &header, &ram, parameters);
	measure(RTMR_MACHINE, "parameters", parameters, sizeof(*parameters));
	measure(RTMR_MACHINE, "ACPI tables", acpi.area, acpi.used);
	measure(RTMR_KERNEL, "kernel", (void *)layout.file, payload.kernel_bytes);
	measure(RTMR_WORDS, "command line", (void *)layout.command_line, payload.command_line_bytes);
	measure(RTMR_WORDS, "initrd", (void *)layout.initrd, payload.initrd_bytes);
	enter_kernel(layout.entry, parameters);
}
