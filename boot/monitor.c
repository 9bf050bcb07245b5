// SPDX-License-Identifier: MIT
#include "acpi.h"
#include "choose_capabilities.h"
#include "loader.h"
#include "pagetable.h"
#include "trampoline.h"
#include "cpu_features.h"
#include "hyperps/abi.h"

#define SPARE_CPU_SLOTS 4 /* for CPUs that the firmware does not list */
#define SPARE_MEMORY PAGE_SIZE_2M
#define SPARE_MEMORY_PER_CPU (16 * PAGE_SIZE) /* of which one page has to be at an address that suits the gate */
#define KVM_PAGES_PER_CPU 8 /* struct nested, VMCS02, MSR bitmap, four roots, one to spare */
#define KVM_PAGES 8 /* the monitor's tables for kvm_pool, besides one for each GiB; those that the host view has more */
#define LOW_TABLES 2 /* index of the boot page tables in the low pages */
#define LOW_PAGES (LOW_TABLES + PAGETABLE_BOOT_PAGES)
#define PORT_COM1 0x3f8
#define UART_DIVISOR_LOW 0
#define UART_INTERRUPT_ENABLE 1
#define UART_FIFO_CONTROL 2
#define UART_LINE_CONTROL 3
#define UART_SCRATCH 7
#define UART_CLOCK 115200

/* The mark of a running monitor among the firmware's configuration tables: its vendor table is a struct mark. */
static EFI_GUID mark_guid = { 0x8b1ad6a5, 0x35f4, 0x4c3e, { 0x9d, 0x6c, 0x51, 0x7e, 0x02, 0xc9, 0x4a, 0x13 } };

struct mark {
	u64 abi_version;
};

bool monitor_is_running(void)
{
	for (UINTN i = 0; i < ST->NumberOfTableEntries; i++)
		if (CompareGuid(&ST->ConfigurationTable[i].VendorGuid, &mark_guid) == 0)
			return true;
	return false;
}

static EFI_STATUS check_cpu(struct vmx_capabilities *capabilities)
{
	const char *missing = choose_capabilities(capabilities);

	if (missing)
		return unfit(EFI_UNSUPPORTED, L"%a", missing);
	if (cpuid(0x80000000, 0).eax < 0x80000001 || !(cpuid(0x80000001, 0).edx & BIT(20)))
		return unfit(EFI_UNSUPPORTED,
			     L"the CPU's execute-disable bit is off. Switch it on (XD, NX) in the firmware setup");
	if (READ_REGISTER(cr4) & CR4_LA57)
		return unfit(EFI_UNSUPPORTED, L"the firmware runs with 5-level paging. Switch 5-level paging (LA57) "
					      L"off in the firmware setup");
	if (READ_REGISTER(cr4) & (CR4_PCIDE | CR4_VMXE))
		return unfit(EFI_UNSUPPORTED, L"something else uses VMX or PCIDs already. Start this loader first, "
					      L"straight from the firmware");
	return EFI_SUCCESS;
}

/* The image inside the loader, NULL if the build went wrong. */
static const struct image_header *find_image(void)
{
	const struct image_header *h = (const void *)monitor_image_start;
	u64 file_size = monitor_image_end - monitor_image_start;

	if (file_size < sizeof(*h) || h->magic != IMAGE_MAGIC || h->file_size != file_size)
		return NULL;
	if ((h->text_end | h->rodata_end | h->image_size | h->cpu_area_size) % PAGE_SIZE)
		return NULL;
	if (h->entry < sizeof(*h) || h->entry >= h->text_end || h->text_end > h->rodata_end ||
	    h->rodata_end > h->file_size || h->file_size > h->image_size || h->image_size > PAGETABLE_SMALL_PAGES ||
	    !h->cpu_area_size)
		return NULL;
	return h;
}

/* Offsets in the region: the image at 0, then boot_info. */
struct layout {
	u64 boot_info, cpu_area, log, small, tables, marks;
};

static struct layout lay_out(const struct image_header *image, u32 cpu_slots, u64 region_size)
{
	struct layout l;

	l.boot_info = image->image_size;
	l.cpu_area = l.boot_info + ALIGN_UP(sizeof(struct boot_info), PAGE_SIZE);
	l.log = l.cpu_area + cpu_slots * image->cpu_area_size;
	/* So that each stack can have a guard page. */
	l.small = l.log < PAGETABLE_SMALL_PAGES ? PAGETABLE_SMALL_PAGES : ALIGN_UP(l.log, PAGE_SIZE_2M);
	l.tables = l.log + ALIGN_UP(image->log_size, PAGE_SIZE);
	l.marks = l.tables + pagetable_pages(region_size, l.small) * PAGE_SIZE;
	return l;
}

/* More ranges than the firmware's map may have: the region, kvm_pool, and what devices use. */
static struct boot_memory_range memory_map[BOOT_MEMORY_RANGES + 2 + DMAR_RESERVED_MAX];
static struct dmar_machine dma_machine;
static struct dmar_choice dma;

/* What becomes of the units, by what is known by now. */
static EFI_STATUS choose_dma(const struct conf *conf, const struct vmx_capabilities *capabilities, u32 ranges)
{
	dma_machine.wanted = conf->dma;
	dma_machine.ranges = memory_map;
	dma_machine.range_count = ranges;
	dma_machine.address_bits = capabilities->physical_address_bits;
	dma_machine.ept_levels = capabilities->ept_levels;
	dma_machine.largest_leaf = capabilities->feature[HYPERPS_FEATURE_EPT_1G] ? 3 : 2;
	dmar_choose(&dma_machine, &dma);
	if (dma.dma.required && !dma.dma.held_back)
		return unfit(EFI_UNSUPPORTED,
			     L"hyperps.conf says dma = require, but %a. To start all the same, write dma = auto",
			     dma.dma.text);
	return EFI_SUCCESS;
}

/* Bytes of kvm_pool, and of monitor memory that it costs. marks: bytes of the page marks, of which 4 KiB of RAM take 8. */
static u64 choose_kvm_pool(const struct conf *conf, u32 cpu_slots, u64 marks, struct monitor_memory *memory)
{
	u64 size = conf->kvm_pool ? conf->kvm_pool : marks * 2, least = cpu_slots * KVM_POOL_PER_CPU;

	if (!conf->kvm)
		return 0;
	memory->kvm_pool_size = ALIGN_UP(size > least ? size : least, PAGE_SIZE_2M);
	return (cpu_slots * KVM_PAGES_PER_CPU + KVM_PAGES + memory->kvm_pool_size / PAGE_SIZE_1G) * PAGE_SIZE;
}

static EFI_STATUS choose_region_size(const struct conf *conf, const struct image_header *image, u32 cpu_slots,
				     const struct vmx_capabilities *capabilities, struct monitor_memory *memory)
{
	u32 ranges;
	u64 ept, marks, kvm, others, least;
	EFI_STATUS status = memory_map_read(memory_map, &ranges);

	if (!EFI_ERROR(status))
		status = choose_dma(conf, capabilities, ranges);
	if (EFI_ERROR(status))
		return status;
	ept = pagetable_ept_pages(capabilities->physical_address_bits, dma.largest_leaf == 3);
	if (cpu_slots > MONITOR_WINDOWS)
		return unfit(EFI_UNSUPPORTED,
			     L"this machine has more than %d CPUs. Switch some off in the firmware setup",
			     MONITOR_WINDOWS - SPARE_CPU_SLOTS);
	marks = page_marks_bytes(memory_map, ranges);
	kvm = choose_kvm_pool(conf, cpu_slots, marks, memory);
	others = ept * PAGE_SIZE + marks + SPARE_MEMORY + cpu_slots * SPARE_MEMORY_PER_CPU + kvm;
	/* One GiB more than the rest covers the page tables' own share. */
	least = lay_out(image, cpu_slots, others + PAGE_SIZE_1G).marks + others;
	least = ALIGN_UP(least, PAGE_SIZE_2M);
	if (least > CONF_MEMORY_MAX)
		return unfit(EFI_OUT_OF_RESOURCES,
			     L"the monitor would need %ld MiB for this CPU's address width and memory. Use a CPU with "
			     L"1 GiB pages in EPT",
			     least >> 20);
	if (conf->memory && conf->memory < least)
		return unfit(EFI_INVALID_PARAMETER,
			     L"memory = %ldM in hyperps.conf is too little. Write memory = auto, or %ldM at least",
			     conf->memory >> 20, least >> 20);
	memory->region_size = ALIGN_UP(conf->memory > least ? conf->memory : least, PAGE_SIZE_2M);
	memory->gate_roots = cpu_slots;
	/* What comes before the gate's roots: nested_init() takes its pages first. */
	memory->gate_offset = lay_out(image, cpu_slots, memory->region_size).marks + marks + ept * PAGE_SIZE + kvm;
	return EFI_SUCCESS;
}

static bool uart_answers(u16 port)
{
	static const u8 patterns[] = { 0x5a, 0xa5 };
	u8 old = inb(port + UART_SCRATCH);
	bool answers = true;

	for (unsigned i = 0; i < ARRAY_SIZE(patterns); i++) {
		outb(port + UART_SCRATCH, patterns[i]);
		answers = answers && inb(port + UART_SCRATCH) == patterns[i];
	}
	outb(port + UART_SCRATCH, old);
	return answers;
}

/* 8 bits, no parity, one stop bit, no interrupts. */
static void uart_set_speed(u16 port, u32 baud)
{
	u32 divisor = UART_CLOCK / baud;

	outb(port + UART_INTERRUPT_ENABLE, 0);
	outb(port + UART_LINE_CONTROL, 0x83); /* divisor latch */
	outb(port + UART_DIVISOR_LOW, (u8)divisor);
	outb(port + UART_DIVISOR_LOW + 1, (u8)(divisor >> 8));
	outb(port + UART_LINE_CONTROL, 0x03);
	outb(port + UART_FIFO_CONTROL, 0x01);
}

static void choose_serial(const struct conf *conf, struct boot_info *info)
{
	u16 port = conf->serial == CONF_SERIAL_PORT ? conf->serial_port : PORT_COM1;

	if (conf->serial == CONF_SERIAL_NONE)
		return;
	if (!uart_answers(port)) {
		if (conf->serial == CONF_SERIAL_PORT)
			Print(L"HyperPS: no serial port answers at 0x%x; the monitor's messages go to its log "
			      L"only.\r\n",
			      port);
		return;
	}
	info->serial_port = port;
}

/* The first screen of the firmware's that the monitor can draw on. None is no fault: the serial port remains. */
static void choose_screen(struct boot_screen *screen)
{
	EFI_GRAPHICS_OUTPUT_PROTOCOL *output;
	EFI_HANDLE *handles;
	UINTN count;

	if (EFI_ERROR(LibLocateHandle(ByProtocol, &GraphicsOutputProtocol, NULL, &count, &handles)))
		return;
	for (UINTN i = 0; i < count && !screen->width; i++) {
		const EFI_GRAPHICS_OUTPUT_MODE_INFORMATION *mode;

		if (EFI_ERROR(BS->HandleProtocol(handles[i], &GraphicsOutputProtocol, (void **)&output)))
			continue;
		mode = output->Mode->Info;
		if ((mode->PixelFormat == PixelRedGreenBlueReserved8BitPerColor ||
		     mode->PixelFormat == PixelBlueGreenRedReserved8BitPerColor) &&
		    output->Mode->FrameBufferBase % sizeof(u32) == 0 &&
		    mode->HorizontalResolution <= mode->PixelsPerScanLine &&
		    (u64)mode->VerticalResolution * mode->PixelsPerScanLine * sizeof(u32) <=
			    output->Mode->FrameBufferSize)
			*screen = (struct boot_screen){ output->Mode->FrameBufferBase, mode->HorizontalResolution,
							mode->VerticalResolution, mode->PixelsPerScanLine, 0 };
	}
	FreePool(handles);
}

/* Fills the low pages: code with its parameters, data, boot page tables. */
static bool place_trampoline(const struct boot_info *info, const struct image_header *image, u64 boot_info_offset,
			     const struct pagetable_layout *layout)
{
	struct trampoline_parameters *p = (void *)(info->low_base + TRAMPOLINE_PARAMETERS);
	struct trampoline_data *data = (void *)(info->low_base + PAGE_SIZE);
	u64 tables = info->low_base + LOW_TABLES * PAGE_SIZE;
	struct pagetable_pool pool = { (void *)tables, tables, PAGETABLE_BOOT_PAGES, 0 };

	SetMem((void *)info->low_base, info->low_size, 0);
	CopyMem((void *)info->low_base, (void *)trampoline_start, trampoline_end - trampoline_start);
	p->entry = MONITOR_VA + image->entry;
	p->boot_info = MONITOR_VA + boot_info_offset;
	p->cpu_slots = info->cpu_slots;
	p->boot_entry += info->low_base;
	p->protected_entry += info->low_base;
	p->long_entry += info->low_base;
	p->gdt_base += info->low_base;
	data->next_slot = 1;
	p->cr3 = pagetable_build_boot(&pool, layout, (const u64 *)info->final_cr3);
	return p->cr3;
}

/* Whether the gate is offered, and what the monitor's log says about it. */
static void choose_gate(const struct conf *conf, const struct vmx_capabilities *capabilities, struct boot_info *info)
{
	const char *text = "calls by VMFUNC, where the host switches the gate on";

	info->gate = HYPERPS_GATE_OFFERED;
	info->gate_level = 2;
	if (conf->gate == CONF_GATE_VMCALL) {
		info->gate = HYPERPS_GATE_CONF;
		text = "calls by VMCALL: gate = vmcall in hyperps.conf";
	} else if (!capabilities->gate) {
		info->gate = HYPERPS_GATE_CPU;
		text = "calls by VMCALL: the CPU lacks VMFUNC, execute-only pages, SMEP or SMAP";
	} else if (!capabilities->feature[HYPERPS_FEATURE_RDCL_NO] && conf->gate == CONF_GATE_AUTO) {
		info->gate = HYPERPS_GATE_L1;
		text = "calls by VMCALL: the CPU leaks L1 data (no RDCL_NO); gate = vmfunc in hyperps.conf offers it "
		       "all "
		       "the same";
	} else if (info->region_base + info->region_size > GATE_MEMORY_LIMIT) {
		info->gate = HYPERPS_GATE_MEMORY;
		text = "calls by VMCALL: the monitor's memory lies where the gate's code would not be safe";
	} else if (!capabilities->feature[HYPERPS_FEATURE_RDCL_NO]) {
		info->gate_level = 1;
		text = "calls by VMFUNC although the CPU leaks L1 data: gate = vmfunc in hyperps.conf";
	}
	if (info->gate != HYPERPS_GATE_OFFERED && conf->gate == CONF_GATE_VMFUNC)
		info->gate_level = 1;
	CopyMem(info->gate_text, (void *)text, strlena((const CHAR8 *)text));
}

/* kvm_pool, or what the monitor's log says where there is none. */
static void choose_kvm(const struct conf *conf, const struct monitor_memory *memory, struct boot_info *info)
{
	const char *text = "kvm = off in hyperps.conf";

	if (memory->kvm_pool) {
		info->kvm_pool_base = memory->kvm_pool;
		info->kvm_pool_size = memory->kvm_pool_size;
		return;
	}
	info->kvm_level = 2;
	if (conf->kvm) {
		info->kvm_level = 1;
		text = "not enough free memory in one piece. Add memory, or lower kvm_pool in hyperps.conf";
	}
	CopyMem(info->kvm_text, (void *)text, strlena((const CHAR8 *)text));
}

/* Copies the image to the region, builds the page tables and fills the boot information; *out points to it there. */
static EFI_STATUS place(const struct conf *conf, const struct image_header *image,
			const struct vmx_capabilities *capabilities, const struct monitor_memory *memory,
			const struct processors *cpus, u32 cpu_slots, struct boot_info **out)
{
	struct layout l = lay_out(image, cpu_slots, memory->region_size);
	struct pagetable_layout tables = { .region_base = memory->region,
					   .region_size = memory->region_size,
					   .text_end = image->text_end,
					   .rodata_end = image->rodata_end,
					   .apic = rdmsr(MSR_IA32_APIC_BASE) & PTE_ADDRESS,
					   .trampoline = memory->low,
					   .small_size = l.small };
	struct pagetable_pool pool = { (void *)(memory->region + l.tables), memory->region + l.tables,
				       pagetable_pages(memory->region_size, l.small), 0 };
	struct boot_info *info = (void *)(memory->region + l.boot_info);
	u64 marks;
	u32 ranges;
	EFI_STATUS status = memory_map_read(memory_map, &ranges);

	/* Once more, now that it is known where the monitor is. */
	dma_machine.own[0] = (struct boot_memory_range){ memory->region, memory->region_size, 0, 0 };
	dma_machine.own[1] = (struct boot_memory_range){ memory->low, memory->low_size, 0, 0 };
	if (memory->kvm_pool)
		dma_machine.own[2] = (struct boot_memory_range){ memory->kvm_pool, memory->kvm_pool_size, 0, 0 };
	if (!EFI_ERROR(status))
		status = choose_dma(conf, capabilities, ranges);
	if (EFI_ERROR(status))
		return status;
	/* The page marks end with the last RAM: what is taken may lie above all that is free. */
	memory_map[ranges++] = (struct boot_memory_range){ memory->region, memory->region_size, EfiLoaderData, 0 };
	if (memory->kvm_pool)
		memory_map[ranges++] =
			(struct boot_memory_range){ memory->kvm_pool, memory->kvm_pool_size, EfiLoaderData, 0 };
	for (u32 i = 0; i < dma.reserved_count; i++)
		memory_map[ranges++] = dma.reserved[i];
	marks = page_marks_bytes(memory_map, ranges);
	CopyMem((void *)memory->region, (void *)image, image->file_size);
	SetMem((void *)(memory->region + image->file_size), l.marks - image->file_size, 0);
	info->region_base = memory->region;
	info->region_size = memory->region_size;
	info->cpu_area = l.cpu_area;
	info->log = l.log;
	info->free = l.marks + marks;
	info->capabilities = *capabilities;
	info->final_cr3 = pagetable_build_final(&pool, &tables);
	info->low_base = memory->low;
	info->low_size = memory->low_size;
	info->cpu_count = cpus->existing;
	info->cpus_listed = cpus->listed;
	info->cpu_slots = cpu_slots;
	info->tsc_hz = processors_tsc_hz();
	info->log_level = conf->log_level;
	info->unfit_continue = conf->unfit_continue;
	choose_serial(conf, info);
	if (!acpi_end_ports(info->end_port))
		Print(L"HyperPS: this machine can also be reset, or put to sleep, in a way that the monitor does not "
		      L"see: guests' memory may stay in the RAM then.\r\n");
	choose_screen(&info->screen);
	choose_gate(conf, capabilities, info);
	choose_kvm(conf, memory, info);
	info->dma = dma.dma;
	if (dma.has_fault)
		Print(L"HyperPS: DMA is not held back: %a.\r\n", dma.reason);
	mtrr_capture(&info->mtrr);
	if (!info->final_cr3 || !place_trampoline(info, image, l.boot_info, &tables))
		return unfit(EFI_LOAD_ERROR, L"the monitor's page tables did not fit. Report this to the project");
	if (info->free > info->region_size || !host_view_build(info, capabilities, dma.largest_leaf,
							       (u64 *)(memory->region + l.marks), memory_map, ranges))
		return unfit(EFI_OUT_OF_RESOURCES,
			     L"the host view does not fit into %ld MiB of monitor memory. Set memory in hyperps.conf "
			     L"to more",
			     info->region_size >> 20);
	info->host_view.write_back = dma.write_back;
	*out = info;
	return EFI_SUCCESS;
}

/* Both outlive the loader: if a chainloaded program returns, the monitor stays and another program may be started. */
struct takeover {
	void *hook; /* a copy of exit_boot_hook */
	struct mark *mark;
};

static void takeover_give_up(struct takeover *takeover)
{
	BS->InstallConfigurationTable(&mark_guid, NULL);
	if (takeover->mark)
		FreePool(takeover->mark);
	if (takeover->hook)
		FreePool(takeover->hook);
}

/* Makes the hook for ExitBootServices, and leaves the mark. */
static EFI_STATUS takeover_prepare(struct takeover *takeover)
{
	UINTN size = exit_boot_hook_end - exit_boot_hook;
	EFI_STATUS status = BS->AllocatePool(EfiBootServicesCode, size, &takeover->hook);

	if (!EFI_ERROR(status))
		status = BS->AllocatePool(EfiACPIReclaimMemory, sizeof(*takeover->mark), (void **)&takeover->mark);
	if (!EFI_ERROR(status))
		status = BS->InstallConfigurationTable(&mark_guid, takeover->mark);
	if (EFI_ERROR(status)) {
		takeover_give_up(takeover);
		return unfit(status, L"no memory for the hook of ExitBootServices (%r). Add memory", status);
	}
	takeover->mark->abi_version = HYPERPS_ABI_VERSION;
	CopyMem(takeover->hook, (void *)exit_boot_hook, size);
	*(EFI_EXIT_BOOT_SERVICES *)((char *)takeover->hook + (exit_boot_hook_original - exit_boot_hook)) =
		BS->ExitBootServices;
	return EFI_SUCCESS;
}

static void takeover_hook(const struct takeover *takeover)
{
	UINT32 crc;

	BS->ExitBootServices = (EFI_EXIT_BOOT_SERVICES)takeover->hook;
	BS->Hdr.CRC32 = 0;
	if (!EFI_ERROR(BS->CalculateCrc32(BS, BS->Hdr.HeaderSize, &crc)))
		BS->Hdr.CRC32 = crc;
}

EFI_STATUS monitor_start(const struct conf *conf)
{
	const struct image_header *image = find_image();
	struct monitor_memory memory = { .low_size = LOW_PAGES * PAGE_SIZE };
	struct takeover takeover = { 0 };
	struct vmx_capabilities capabilities;
	struct boot_info *info = NULL;
	struct processors cpus;
	u32 cpu_slots;
	EFI_STATUS status = check_cpu(&capabilities);

	if (EFI_ERROR(status))
		return status;
	if (!image)
		return unfit(EFI_LOAD_ERROR, L"the monitor image in this file is damaged. Install hyperps.efi anew");
	cpus = processors_count();
	dma_machine.wanted = conf->dma;
	dma_look(&dma_machine);
	cpu_slots = cpus.listed + SPARE_CPU_SLOTS;
	/* No slots for what is listed but was not found are no reason to refuse the machine. */
	if (cpu_slots > MONITOR_WINDOWS && cpus.existing + SPARE_CPU_SLOTS <= MONITOR_WINDOWS)
		cpu_slots = MONITOR_WINDOWS;
	status = choose_region_size(conf, image, cpu_slots, &capabilities, &memory);
	if (!EFI_ERROR(status))
		status = memory_take(&memory);
	if (EFI_ERROR(status))
		return status;
	status = place(conf, image, &capabilities, &memory, &cpus, cpu_slots, &info);
	if (!EFI_ERROR(status))
		status = takeover_prepare(&takeover);
	if (EFI_ERROR(status)) {
		memory_give_back(&memory);
		return status;
	}

	Print(L"HyperPS: monitor at 0x%lx, %ld MiB, %d CPUs\r\n", memory.region, memory.region_size >> 20,
	      cpus.existing);
	/* Now that the firmware's console has no more to say. */
	/* place() fills it unless it fails. NOLINTNEXTLINE(clang-analyzer-core.NullDereference) */
	if (info->serial_port && conf->serial_baud)
		uart_set_speed((u16)info->serial_port, conf->serial_baud);
	cpu_state_capture(&info->boot_cpu);
	enter_monitor(info, ((const struct trampoline_parameters *)(memory.low + TRAMPOLINE_PARAMETERS))->boot_entry);
	/* From here on this code runs de-privileged. */
	takeover_hook(&takeover);
	if (dma.dma.unit[0])
		dma_hide_table();
	memory_request_overwrite();
	return EFI_SUCCESS;
}
