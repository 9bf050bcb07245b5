/* SPDX-License-Identifier: MIT */
/*
 * The part of the firmware that the emulator lacks; test equipment, never part of the product.
 *
 * OVMF takes its ACPI tables from QEMU, so on Bochs there are none, and Linux would see one CPU and no way to switch
 * the machine off. This program installs a small set for the i440fx chipset that Bochs emulates, then starts the
 * product from its own volume. Where there are tables already it only starts the product.
 *
 * \EFI\FIRMWARE\next.txt may name something else to start (ASCII):
 *   line 1: path on this volume
 *   line 2: its load options
 *   line 3: words, in the first group only:
 *     lock-feature-control  lock IA32_FEATURE_CONTROL with VMX off, as some firmware does
 *     no-execute            let no code run in the first 2 MiB
 *     absent-cpu            list a CPU that is not there
 *     wild-table            the XSDT's first entry leads where no memory is
 *     damaged-dmar, absent-unit   a DMAR table whose only structure ends behind it, or names a unit that is not there
 *     many-cpus, too-many-cpus   list 500, or 600, that are not there
 *     mp-all, mp-one        have the MP services count all that are listed, or one CPU, instead of those that they found
 *     mtrr-hole, mtrr-off   have the MTRRs make the 512 MiB from 512 MiB on, or all memory, uncacheable
 *     screen-bar, screen-reserved, screen-ram   offer a screen, whose frame buffer is that of the PCI graphics card, in
 *                           reserved memory, or in memory that the host may use later
 *     boot-entry            line 1 names a file with the value of a variable Boot####: start what that names, as a boot
 *                           manager does
 * Further groups of three lines are started when the one before has come back.
 */
#include <efi.h>
#include <efilib.h>

#define DEFAULT_NEXT L"\\EFI\\HYPERPS\\hyperps.efi"
#define NEXT_FILE L"\\EFI\\FIRMWARE\\next.txt"
#define NEXT_SIZE 4096
#define MAX_CPUS 64
#define MAX_LISTED (MAX_CPUS + 600)
#define FILLERS 2 /* entries for no further CPU */
#define NOWHERE 0x7ffffff000ULL /* far above RAM */
#define FIRST_ABSENT 0x10000 /* x2APIC ID */
#define MTRR_HOLE (512ULL << 20) /* where it begins, and its size */
#define MTRR_VALID (1 << 11) /* of a mask */
#define SCREEN_WIDTH 800
#define SCREEN_HEIGHT 600
#define SCREEN_PITCH 1024
#define SCREEN_BYTES (SCREEN_PITCH * SCREEN_HEIGHT * 4)

struct processor_information {
	UINT64 apic_id;
	UINT32 status; /* bit 1: enabled */
	UINT32 location[3];
	UINT32 extended_location[6];
};

#define PROCESSOR_ENABLED 2

struct mp_services {
	EFI_STATUS(EFIAPI *get_number_of_processors)(struct mp_services *, UINTN *all, UINTN *enabled);
	EFI_STATUS(EFIAPI *get_processor_info)(struct mp_services *, UINTN number, struct processor_information *);
};

struct acpi_header {
	CHAR8 signature[4];
	UINT32 length;
	UINT8 revision;
	UINT8 checksum;
	CHAR8 oem_id[6];
	CHAR8 oem_table_id[8];
	UINT32 oem_revision;
	CHAR8 creator_id[4];
	UINT32 creator_revision;
} __attribute__((packed));

struct rsdp {
	CHAR8 signature[8];
	UINT8 checksum;
	CHAR8 oem_id[6];
	UINT8 revision;
	UINT32 rsdt;
	UINT32 length;
	UINT64 xsdt;
	UINT8 extended_checksum;
	UINT8 reserved[3];
} __attribute__((packed));

struct xsdt {
	struct acpi_header header;
	UINT64 entry[4];
} __attribute__((packed));

/* With one DMA-remapping unit for all devices. */
struct dmar {
	struct acpi_header header;
	UINT8 width, flags, reserved[10];
	UINT16 type, length; /* 0, 16 */
	UINT8 unit_flags, size;
	UINT16 segment;
	UINT64 base;
} __attribute__((packed));

struct facs {
	CHAR8 signature[4];
	UINT32 length;
	UINT8 unused[24];
	UINT8 version;
	UINT8 reserved[31];
} __attribute__((packed));

struct address {
	UINT8 space; /* 1: I/O port */
	UINT8 bits;
	UINT8 offset;
	UINT8 access; /* log2 of the bytes, plus one */
	UINT64 address;
} __attribute__((packed));

struct fadt {
	struct acpi_header header;
	UINT32 facs;
	UINT32 dsdt;
	UINT8 reserved0;
	UINT8 profile;
	UINT16 sci_interrupt;
	UINT32 smi_command;
	UINT8 acpi_enable, acpi_disable, s4bios, pstate;
	UINT32 pm1a_event, pm1b_event, pm1a_control, pm1b_control, pm2_control, pm_timer, gpe0, gpe1;
	UINT8 pm1_event_length, pm1_control_length, pm2_control_length, pm_timer_length;
	UINT8 gpe0_length, gpe1_length, gpe1_base, cst;
	UINT16 c2_latency, c3_latency, flush_size, flush_stride;
	UINT8 duty_offset, duty_width, day_alarm, month_alarm, century;
	UINT16 boot_architecture;
	UINT8 reserved1;
	UINT32 flags;
	struct address reset_register;
	UINT8 reset_value;
	UINT8 reserved2[3];
	UINT64 x_facs, x_dsdt;
	struct address x_pm1a_event, x_pm1b_event, x_pm1a_control, x_pm1b_control, x_pm2_control, x_pm_timer, x_gpe0,
		x_gpe1;
} __attribute__((packed));

_Static_assert(sizeof(struct fadt) == 244, "FADT revision 4");

#define FADT_WBINVD (1 << 0)
#define FADT_RESET_REGISTER (1 << 10)
#define BOOT_LEGACY_DEVICES (1 << 0)
#define BOOT_8042 (1 << 1)

struct madt_local_apic {
	UINT8 type, length; /* 0, 8 */
	UINT8 processor, apic_id;
	UINT32 flags; /* bit 0: enabled */
} __attribute__((packed));

struct madt_local_x2apic {
	UINT8 type, length; /* 9, 16 */
	UINT16 reserved;
	UINT32 apic_id, flags, processor;
} __attribute__((packed));

struct madt_io_apic {
	UINT8 type, length; /* 1, 12 */
	UINT8 id, reserved;
	UINT32 address, first_interrupt;
} __attribute__((packed));

struct madt_override {
	UINT8 type, length; /* 2, 10 */
	UINT8 bus, source;
	UINT32 interrupt;
	UINT16 flags;
} __attribute__((packed));

struct madt_nmi {
	UINT8 type, length; /* 4, 6 */
	UINT8 processor; /* 255: all */
	UINT16 flags;
	UINT8 lint;
} __attribute__((packed));

struct madt {
	struct acpi_header header;
	UINT32 local_apic;
	UINT32 flags; /* bit 0: the machine also has two 8259s */
	struct madt_io_apic io_apic;
	struct madt_override timer, sci;
	struct madt_nmi nmi;
	struct madt_local_apic cpu[MAX_CPUS + FILLERS];
	struct madt_local_x2apic absent[MAX_LISTED - MAX_CPUS]; /* begin where `cpu` ends */
} __attribute__((packed));

/*
 * The DSDT's AML: S3 is sleep type 1 and soft-off 0, as the PIIX4 wants it, and there is a PCI bus. Without the bus object Linux
 * would find no PCI device at all.
 *
 *   Name (_S3, Package () { 1, 1, 0, 0 })
 *   Name (_S5, Package () { 0, 0, 0, 0 })
 *   Device (\_SB.PCI0) { Name (_HID, EisaId ("PNP0A03")) Name (_CRS, buffer of resource descriptors) }
 */
/* clang-format off */
static const UINT8 aml[] = {
	0x08, '_', 'S', '3', '_', 0x12, 6, 4, 1, 1, 0, 0,
	0x08, '_', 'S', '5', '_', 0x12, 6, 4, 0, 0, 0, 0,
	/* Device, length 0x8d in two bytes */
	0x5b, 0x82, 0x4d, 0x08, 0x2e, '_', 'S', 'B', '_', 'P', 'C', 'I', '0',
	0x08, '_', 'H', 'I', 'D', 0x0c, 0x41, 0xd0, 0x0a, 0x03,
	/* Buffer, length 0x72 in two bytes, of 0x6e bytes */
	0x08, '_', 'C', 'R', 'S', 0x11, 0x42, 0x07, 0x0a, 0x6e,
	/* buses 0 to 0xff */
	0x88, 0x0d, 0x00, 2, 0x0c, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 1,
	/* the configuration ports, 0xcf8 to 0xcff, which the bridge itself takes */
	0x47, 1, 0xf8, 0x0c, 0xf8, 0x0c, 1, 8,
	/* the other ports */
	0x88, 0x0d, 0x00, 1, 0x0c, 3, 0, 0, 0, 0, 0xf7, 0x0c, 0, 0, 0xf8, 0x0c,
	0x88, 0x0d, 0x00, 1, 0x0c, 3, 0, 0, 0, 0x0d, 0xff, 0xff, 0, 0, 0, 0xf3,
	/* memory 0xa0000 to 0xbffff, and 0x80000000 to 0xfbffffff */
	0x87, 0x17, 0x00, 0, 0x0c, 1, 0, 0, 0, 0, 0, 0, 0x0a, 0, 0xff, 0xff, 0x0b, 0, 0, 0, 0, 0, 0, 0, 2, 0,
	0x87, 0x17, 0x00, 0, 0x0c, 1, 0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0xff, 0xff, 0xfb, 0, 0, 0, 0, 0, 0, 0, 0x7c,
	/* end, no checksum */
	0x79, 0,
};
/* clang-format on */

/* All tables in one allocation. */
struct tables {
	struct facs facs; /* first, for its alignment to 64 bytes */
	struct rsdp rsdp;
	struct xsdt xsdt;
	struct fadt fadt;
	struct madt madt;
	struct dmar dmar;
	struct acpi_header dsdt;
	UINT8 dsdt_code[sizeof(aml)];
} __attribute__((packed));

static EFI_SYSTEM_TABLE *system_table;
static EFI_BOOT_SERVICES *boot;

static void print(const CHAR16 *text)
{
	system_table->ConOut->OutputString(system_table->ConOut, (CHAR16 *)text);
}

static void print_hex(UINT64 value)
{
	CHAR16 text[19] = L"0x";
	UINTN digit;

	for (digit = 0; digit < 16; digit++)
		text[2 + digit] = L"0123456789abcdef"[(value >> (60 - 4 * digit)) & 15];
	print(text);
}

static void copy(void *to, const void *from, UINTN size)
{
	boot->CopyMem(to, (void *)from, size);
}

static BOOLEAN same_guid(const EFI_GUID *a, const EFI_GUID *b)
{
	const UINT64 *x = (const UINT64 *)a, *y = (const UINT64 *)b;

	return x[0] == y[0] && x[1] == y[1];
}

static BOOLEAN has_acpi_tables(void)
{
	EFI_GUID acpi = ACPI_20_TABLE_GUID;
	UINTN i;

	for (i = 0; i < system_table->NumberOfTableEntries; i++) {
		if (same_guid(&system_table->ConfigurationTable[i].VendorGuid, &acpi))
			return TRUE;
	}
	return FALSE;
}

static BOOLEAN has_word(const CHAR16 *line, const char *word)
{
	for (; *line; line++) {
		UINTN i = 0;

		while (word[i] && line[i] == (CHAR16)word[i])
			i++;
		if (!word[i])
			return TRUE;
	}
	return FALSE;
}

static UINT8 checksum(const void *data, UINTN size)
{
	const UINT8 *byte = data;
	UINT8 sum = 0;

	while (size--)
		sum += *byte++;
	return -sum;
}

static void finish_table(struct acpi_header *header, const char *signature, UINT8 revision, UINTN length)
{
	copy(header->signature, signature, 4);
	header->length = length;
	header->revision = revision;
	copy(header->oem_id, "HYPPS ", 6);
	copy(header->oem_table_id, "HARNESS ", 8);
	header->oem_revision = 1;
	copy(header->creator_id, "HYPS", 4);
	header->creator_revision = 1;
	header->checksum = 0;
	header->checksum = checksum(header, length);
}

static UINT32 read_pci(UINT32 device, UINT32 function, UINT32 offset)
{
	UINT32 value;

	__asm__ volatile("outl %0, %w1" ::"a"(0x80000000 | device << 11 | function << 8 | offset), "d"(0xcf8));
	__asm__ volatile("inl %w1, %0" : "=a"(value) : "d"(0xcfc));
	return value;
}

static void write_vbe(UINT16 index, UINT16 value)
{
	__asm__ volatile("outw %0, %w1" ::"a"(index), "d"(0x1ce));
	__asm__ volatile("outw %0, %w1" ::"a"(value), "d"(0x1cf));
}

/* Where the graphics card has its frame buffer, which is switched on. 0: there is none. */
static EFI_PHYSICAL_ADDRESS card_frame_buffer(void)
{
	UINT32 device;

	for (device = 0; device < 32; device++) {
		if (read_pci(device, 0, 0) != 0x11111234)
			continue;
		read_pci(device, 0, 4); /* leaves the address of the command register */
		__asm__ volatile("outl %0, %w1" ::"a"(3), "d"(0xcfc));
		write_vbe(4, 0);
		write_vbe(1, SCREEN_PITCH);
		write_vbe(2, SCREEN_HEIGHT);
		write_vbe(3, 32);
		write_vbe(4, 0x41); /* on, with the linear frame buffer */
		return read_pci(device, 0, 0x10) & ~15;
	}
	return 0;
}

/* Nobody but the loader is to use the screen. */
static EFI_STATUS EFIAPI refuse(void)
{
	return EFI_UNSUPPORTED;
}

/* OVMF has no driver that takes the emulator's graphics card. */
static EFI_STATUS install_screen(EFI_PHYSICAL_ADDRESS base, EFI_MEMORY_TYPE type)
{
	static EFI_GRAPHICS_OUTPUT_MODE_INFORMATION information = { .HorizontalResolution = SCREEN_WIDTH,
								    .VerticalResolution = SCREEN_HEIGHT,
								    .PixelsPerScanLine = SCREEN_PITCH };
	static EFI_GRAPHICS_OUTPUT_PROTOCOL_MODE mode = { .MaxMode = 1, .FrameBufferSize = SCREEN_BYTES };
	static EFI_GRAPHICS_OUTPUT_PROTOCOL screen;
	EFI_GUID guid = EFI_GRAPHICS_OUTPUT_PROTOCOL_GUID;
	EFI_HANDLE handle = NULL;
	EFI_STATUS status = EFI_SUCCESS;

	if (!base)
		status = boot->AllocatePages(AllocateAnyPages, type, EFI_SIZE_TO_PAGES(SCREEN_BYTES), &base);
	if (EFI_ERROR(status))
		return status;
	boot->SetMem((void *)base, SCREEN_BYTES, 0x20);
	print(L"firmware: screen at ");
	print_hex(base);
	print(L"\r\n");
	information.PixelFormat = PixelBlueGreenRedReserved8BitPerColor;
	mode.FrameBufferBase = base;
	mode.Info = &information;
	mode.SizeOfInfo = sizeof(information);
	screen.QueryMode = (EFI_GRAPHICS_OUTPUT_PROTOCOL_QUERY_MODE)(UINTN)refuse;
	screen.SetMode = (EFI_GRAPHICS_OUTPUT_PROTOCOL_SET_MODE)(UINTN)refuse;
	screen.Blt = (EFI_GRAPHICS_OUTPUT_PROTOCOL_BLT)(UINTN)refuse;
	screen.Mode = &mode;
	return boot->InstallProtocolInterface(&handle, &guid, EFI_NATIVE_INTERFACE, &screen);
}

static struct address io_port(UINT32 port, UINT8 bytes)
{
	struct address address = { 1, bytes * 8, 0, bytes == 4 ? 3 : bytes, port };

	return address;
}

static void fill_fadt(struct tables *tables)
{
	struct fadt *fadt = &tables->fadt;
	UINT32 base = read_pci(1, 3, 0x40) & 0xffc0; /* where OVMF put the PIIX4's power management block */

	fadt->facs = (UINTN)&tables->facs;
	fadt->dsdt = (UINTN)&tables->dsdt;
	fadt->sci_interrupt = 9;
	fadt->pm1a_event = base;
	fadt->pm1a_control = base + 4;
	fadt->pm_timer = base + 8;
	fadt->pm1_event_length = 4;
	fadt->pm1_control_length = 2;
	fadt->pm_timer_length = 4;
	fadt->c2_latency = fadt->c3_latency = 0xffff; /* neither state exists */
	fadt->century = 0x32;
	fadt->boot_architecture = BOOT_LEGACY_DEVICES | BOOT_8042;
	fadt->flags = FADT_WBINVD | FADT_RESET_REGISTER;
	fadt->reset_register = io_port(0xcf9, 1);
	fadt->reset_value = 6;
	fadt->x_dsdt = (UINTN)&tables->dsdt;
	fadt->x_pm1a_event = io_port(base, 4);
	fadt->x_pm1a_control = io_port(base + 4, 2);
	fadt->x_pm_timer = io_port(base + 8, 4);
	finish_table(&fadt->header, "FACP", 4, sizeof(*fadt));
}

/* The boot CPU's local APIC id, for a firmware that does not tell. */
static UINT8 own_apic_id(void)
{
	UINT32 eax = 1, ebx, ecx = 0, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	return ebx >> 24;
}

static UINTN told_cpus; /* by the MP services, unless 0 */

static EFI_STATUS EFIAPI tell_number_of_processors(struct mp_services *this, UINTN *all, UINTN *enabled)
{
	(void)this;
	*all = *enabled = told_cpus;
	return EFI_SUCCESS;
}

static void fill_madt(struct tables *tables, UINTN absent_cpus, const CHAR16 *words)
{
	EFI_GUID guid = { 0x3fdda605, 0xa76e, 0x4f46, { 0xad, 0x29, 0x12, 0xf4, 0x53, 0x1b, 0x3d, 0x08 } };
	struct madt *madt = &tables->madt;
	struct mp_services *mp;
	struct madt_local_x2apic *absent;
	UINTN all = 1, enabled, number, count = 0;

	madt->local_apic = 0xfee00000;
	madt->flags = 1;
	madt->io_apic = (struct madt_io_apic){ 1, sizeof(madt->io_apic), MAX_CPUS, 0, 0xfec00000, 0 };
	madt->timer = (struct madt_override){ 2, sizeof(madt->timer), 0, 0, 2, 0 };
	madt->sci = (struct madt_override){ 2, sizeof(madt->sci), 0, 9, 9, 0xd }; /* level, active high */
	madt->nmi = (struct madt_nmi){ 4, sizeof(madt->nmi), 255, 0, 1 };
	if (EFI_ERROR(boot->LocateProtocol(&guid, NULL, (void **)&mp)))
		mp = NULL;
	else
		mp->get_number_of_processors(mp, &all, &enabled);
	for (number = 0; number < all && count < MAX_CPUS; number++) {
		struct processor_information info = { .apic_id = own_apic_id(), .status = PROCESSOR_ENABLED };

		if (mp && EFI_ERROR(mp->get_processor_info(mp, number, &info)))
			continue;
		if (info.status & PROCESSOR_ENABLED) {
			madt->cpu[count] = (struct madt_local_apic){ 0, 8, count, info.apic_id, 1 };
			count++;
		}
	}
	/* As in the field: an entry that names no CPU, and one that names a CPU again. */
	madt->cpu[count] = (struct madt_local_apic){ 0, 8, count, 0xff, 1 };
	madt->cpu[count + 1] = (struct madt_local_apic){ 0, 8, count + 1, madt->cpu[0].apic_id, 1 };
	absent = (struct madt_local_x2apic *)&madt->cpu[count + FILLERS];
	for (number = 0; number < absent_cpus; number++, absent++)
		*absent = (struct madt_local_x2apic){ 9, 16, 0, FIRST_ABSENT + number, 1, count + FILLERS + number };
	finish_table(&madt->header, "APIC", 3, (UINTN)absent - (UINTN)madt);
	told_cpus = has_word(words, "mp-all") ? count + absent_cpus : has_word(words, "mp-one");
	if (mp && told_cpus)
		mp->get_number_of_processors = tell_number_of_processors;
}

static void fill_dmar(struct dmar *dmar, BOOLEAN damaged)
{
	dmar->width = 38;
	dmar->length = damaged ? 40 : 16;
	dmar->unit_flags = 1;
	dmar->base = 0xfed90000;
	finish_table(&dmar->header, "DMAR", 1, sizeof(*dmar));
}

static EFI_STATUS install_acpi_tables(UINTN absent_cpus, const CHAR16 *words)
{
	UINTN entries = 0;
	EFI_GUID guid = ACPI_20_TABLE_GUID;
	EFI_PHYSICAL_ADDRESS where = 0xffffffff; /* some of the pointers have 32 bits */
	struct tables *tables;
	struct rsdp *rsdp;
	EFI_STATUS status;

	status = boot->AllocatePages(AllocateMaxAddress, EfiACPIReclaimMemory, EFI_SIZE_TO_PAGES(sizeof(*tables)),
				     &where);
	if (EFI_ERROR(status))
		return status;
	tables = (struct tables *)where;
	boot->SetMem(tables, sizeof(*tables), 0);

	copy(tables->facs.signature, "FACS", 4);
	tables->facs.length = sizeof(tables->facs);
	tables->facs.version = 2;
	copy(tables->dsdt_code, aml, sizeof(aml));
	finish_table(&tables->dsdt, "DSDT", 2, sizeof(tables->dsdt) + sizeof(aml));
	fill_fadt(tables);
	fill_madt(tables, absent_cpus, words);
	if (has_word(words, "wild-table"))
		tables->xsdt.entry[entries++] = NOWHERE;
	tables->xsdt.entry[entries++] = (UINTN)&tables->fadt;
	tables->xsdt.entry[entries++] = (UINTN)&tables->madt;
	if (has_word(words, "damaged-dmar") || has_word(words, "absent-unit")) {
		fill_dmar(&tables->dmar, has_word(words, "damaged-dmar"));
		tables->xsdt.entry[entries++] = (UINTN)&tables->dmar;
	}
	finish_table(&tables->xsdt.header, "XSDT", 1, (UINTN)&tables->xsdt.entry[entries] - (UINTN)&tables->xsdt);

	rsdp = &tables->rsdp;
	copy(rsdp->signature, "RSD PTR ", 8);
	copy(rsdp->oem_id, "HYPPS ", 6);
	rsdp->revision = 2;
	rsdp->length = sizeof(*rsdp);
	rsdp->xsdt = (UINTN)&tables->xsdt;
	rsdp->checksum = checksum(rsdp, 20);
	rsdp->extended_checksum = checksum(rsdp, sizeof(*rsdp));
	return boot->InstallConfigurationTable(&guid, rsdp);
}

/*
 * Firmware that overwrites the memory on request has two variables for that. OVMF lets nobody create them, so they are
 * played here while boot services run; what is written to them is printed.
 */
static const EFI_GUID overwrite_guids[] = {
	{ 0xe20939be, 0x32d4, 0x41be, { 0xa1, 0x50, 0x89, 0x7f, 0x85, 0xd4, 0x98, 0x29 } }, /* ...RequestControl */
	{ 0xbb983ccf, 0x151d, 0x40e1, { 0xa0, 0x7b, 0x4a, 0x17, 0xbe, 0x16, 0x82, 0x92 } }, /* ...RequestControlLock */
};
static UINT8 overwrite_values[2];
static EFI_GET_VARIABLE get_variable;
static EFI_SET_VARIABLE set_variable;

static UINT8 *find_overwrite_value(const EFI_GUID *guid)
{
	UINTN i;

	for (i = 0; i < 2; i++)
		if (same_guid(guid, &overwrite_guids[i]))
			return &overwrite_values[i];
	return NULL;
}

static EFI_STATUS EFIAPI get_overwrite(CHAR16 *name, EFI_GUID *guid, UINT32 *attributes, UINTN *size, VOID *data)
{
	UINT8 *value = find_overwrite_value(guid);

	if (!value)
		return get_variable(name, guid, attributes, size, data);
	if (attributes)
		*attributes = EFI_VARIABLE_NON_VOLATILE | EFI_VARIABLE_BOOTSERVICE_ACCESS | EFI_VARIABLE_RUNTIME_ACCESS;
	*size = 1;
	*(UINT8 *)data = *value;
	return EFI_SUCCESS;
}

static EFI_STATUS EFIAPI set_overwrite(CHAR16 *name, EFI_GUID *guid, UINT32 attributes, UINTN size, VOID *data)
{
	UINT8 *value = find_overwrite_value(guid);

	if (!value)
		return set_variable(name, guid, attributes, size, data);
	/* Once it is locked nothing changes. */
	if (overwrite_values[1] || size != 1 || attributes != 7)
		return EFI_ACCESS_DENIED;
	*value = *(UINT8 *)data;
	print(name);
	print(L" is ");
	print_hex(*value);
	print(L"\r\n");
	return EFI_SUCCESS;
}

static VOID EFIAPI end_overwrite(EFI_EVENT event, VOID *context)
{
	(void)event;
	(void)context;
	system_table->RuntimeServices->GetVariable = get_variable;
	system_table->RuntimeServices->SetVariable = set_variable;
}

static void offer_memory_overwrite(void)
{
	EFI_RUNTIME_SERVICES *runtime = system_table->RuntimeServices;
	EFI_EVENT event;

	get_variable = runtime->GetVariable;
	set_variable = runtime->SetVariable;
	if (boot->CreateEvent(EVT_SIGNAL_EXIT_BOOT_SERVICES, TPL_NOTIFY, end_overwrite, NULL, &event))
		return;
	runtime->GetVariable = get_overwrite;
	runtime->SetVariable = set_overwrite;
}

static void lock_feature_control(void)
{
	UINT32 eax = 1, ebx, ecx = 0, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	if (ecx & (1 << 5)) /* VMX: else there is no such register */
		__asm__ volatile("wrmsr" ::"c"(0x3a), "a"(1), "d"(0));
}

static UINT64 read_msr(UINT32 msr)
{
	UINT32 low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (UINT64)high << 32 | low;
}

static void write_msr(UINT32 msr, UINT64 value)
{
	__asm__ volatile("wrmsr" ::"c"(msr), "a"((UINT32)value), "d"((UINT32)(value >> 32)));
}

/* By a variable range that is not in use; the boot CPU's only. */
static EFI_STATUS make_mtrr_hole(void)
{
	UINT32 eax = 0x80000008, ebx, ecx = 0, edx, base, count = read_msr(0xfe) & 0xff;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	for (base = 0x200; base < 0x200 + 2 * count; base += 2)
		if (!(read_msr(base + 1) & MTRR_VALID)) {
			write_msr(base, MTRR_HOLE);
			write_msr(base + 1, ((1ULL << (eax & 0xff)) - MTRR_HOLE) | MTRR_VALID);
			return EFI_SUCCESS;
		}
	return EFI_OUT_OF_RESOURCES;
}

/* As firmware with a strict memory policy does. The entry may lie in a page that can't be written. */
static void forbid_execution(void)
{
	UINT64 cr0, cr3, *table;
	UINTN level;

	__asm__ volatile("mov %%cr0, %0; mov %%cr3, %1" : "=r"(cr0), "=r"(cr3));
	table = (UINT64 *)(cr3 & ~0xfffULL);
	for (level = 4; level > 2; level--)
		table = (UINT64 *)(table[0] & 0x000ffffffffff000ULL);
	__asm__ volatile("mov %0, %%cr0" ::"r"(cr0 & ~(1ULL << 16)) : "memory");
	table[0] |= 1ULL << 63;
	__asm__ volatile("mov %0, %%cr0; mov %1, %%cr3" ::"r"(cr0), "r"(cr3) : "memory");
}

/* Reads a file, and puts a NUL behind it. */
static EFI_STATUS read_file(EFI_HANDLE volume, CHAR16 *path, CHAR8 *text, UINTN size)
{
	EFI_GUID guid = SIMPLE_FILE_SYSTEM_PROTOCOL;
	EFI_FILE_IO_INTERFACE *filesystem;
	EFI_FILE_HANDLE root, file;
	EFI_STATUS status;

	status = boot->HandleProtocol(volume, &guid, (void **)&filesystem);
	if (!EFI_ERROR(status))
		status = filesystem->OpenVolume(filesystem, &root);
	if (!EFI_ERROR(status))
		status = root->Open(root, &file, path, EFI_FILE_MODE_READ, 0);
	if (EFI_ERROR(status))
		return status;
	size--;
	status = file->Read(file, &size, text);
	text[EFI_ERROR(status) ? 0 : size] = 0;
	file->Close(file);
	return status;
}

/* Widens one line into a terminated string; returns the start of the next line. */
static const CHAR8 *take_line(const CHAR8 *from, CHAR16 *line)
{
	while (*from && *from != '\n') {
		if (*from != '\r')
			*line++ = *from;
		from++;
	}
	*line = 0;
	return *from ? from + 1 : from;
}

/* What line 3 of next.txt asks for, and the ACPI tables. */
static EFI_STATUS prepare(const CHAR16 *words)
{
	EFI_STATUS status = EFI_SUCCESS;

	if (has_word(words, "lock-feature-control"))
		lock_feature_control();
	if (has_word(words, "no-execute"))
		forbid_execution();
	if (has_word(words, "mtrr-hole"))
		status = make_mtrr_hole();
	if (has_word(words, "mtrr-off"))
		write_msr(0x2ff, 0);
	if (has_word(words, "screen-bar"))
		status = install_screen(card_frame_buffer(), EfiReservedMemoryType);
	if (has_word(words, "screen-reserved"))
		status = install_screen(0, EfiReservedMemoryType);
	if (has_word(words, "screen-ram"))
		status = install_screen(0, EfiBootServicesData);
	if (!EFI_ERROR(status) && !has_acpi_tables())
		status = install_acpi_tables(has_word(words, "too-many-cpus") ? 600
					     : has_word(words, "many-cpus")   ? 500
									      : has_word(words, "absent-cpu"),
					     words);
	return status;
}

static UINTN size_of(const CHAR16 *text)
{
	UINTN length = 0;

	while (text[length])
		length++;
	return (length + 1) * sizeof(CHAR16);
}

/* The device path of a file on a volume: the volume's own, one node for the path, the end node. */
static EFI_STATUS file_device_path(EFI_HANDLE volume, const CHAR16 *path, EFI_DEVICE_PATH **result)
{
	EFI_GUID guid = DEVICE_PATH_PROTOCOL;
	EFI_DEVICE_PATH *first, *node;
	UINTN before, path_size = size_of(path);
	EFI_STATUS status;

	status = boot->HandleProtocol(volume, &guid, (void **)&first);
	if (EFI_ERROR(status))
		return status;
	for (node = first; !IsDevicePathEnd(node); node = NextDevicePathNode(node))
		;
	before = (UINTN)node - (UINTN)first;
	status = boot->AllocatePool(EfiBootServicesData, before + 2 * sizeof(*node) + path_size, (void **)result);
	if (EFI_ERROR(status))
		return status;
	copy(*result, first, before);
	node = (EFI_DEVICE_PATH *)((UINTN)*result + before);
	node->Type = MEDIA_DEVICE_PATH;
	node->SubType = MEDIA_FILEPATH_DP;
	SetDevicePathNodeLength(node, sizeof(*node) + path_size);
	copy(node + 1, path, path_size);
	node = NextDevicePathNode(node);
	SetDevicePathEndNode(node);
	return EFI_SUCCESS;
}

static BOOLEAN same_node(const EFI_DEVICE_PATH *a, const EFI_DEVICE_PATH *b)
{
	const UINT8 *x = (const UINT8 *)a, *y = (const UINT8 *)b;
	UINTN left = DevicePathNodeLength(a);

	if (left != (UINTN)DevicePathNodeLength(b))
		return FALSE;
	while (left && *x++ == *y++)
		left--;
	return !left;
}

/*
 * From the file of a boot entry to what it starts. Its path is of the short form, with a partition in front, which is to be
 * found among the machine's; a file is all that may follow, and no options.
 */
static EFI_STATUS find_entry(EFI_HANDLE *volume, CHAR16 *path)
{
	static UINT8 entry[NEXT_SIZE];
	EFI_GUID file_system = SIMPLE_FILE_SYSTEM_PROTOCOL, device_path = DEVICE_PATH_PROTOCOL;
	EFI_DEVICE_PATH *partition, *node;
	EFI_HANDLE *handles;
	UINTN count, i;
	EFI_STATUS status;

	status = read_file(*volume, path, entry, sizeof(entry));
	if (!EFI_ERROR(status))
		status = boot->LocateHandleBuffer(ByProtocol, &file_system, NULL, &count, &handles);
	if (EFI_ERROR(status))
		return status;
	/* Attributes, length of the path, description. */
	partition = (EFI_DEVICE_PATH *)(entry + 6 + size_of((CHAR16 *)(entry + 6)));
	for (i = 0; i < count; i++) {
		if (EFI_ERROR(boot->HandleProtocol(handles[i], &device_path, (void **)&node)))
			continue;
		while (!IsDevicePathEnd(node) && !same_node(node, partition))
			node = NextDevicePathNode(node);
		if (IsDevicePathEnd(node))
			continue;
		node = NextDevicePathNode(partition);
		copy(path, node + 1, DevicePathNodeLength(node) - sizeof(*node));
		*volume = handles[i];
		return EFI_SUCCESS;
	}
	return EFI_NOT_FOUND;
}

static EFI_STATUS start(EFI_HANDLE self, EFI_HANDLE volume, const CHAR16 *path, CHAR16 *options)
{
	EFI_GUID guid = LOADED_IMAGE_PROTOCOL;
	EFI_DEVICE_PATH *device_path;
	EFI_LOADED_IMAGE *loaded;
	EFI_HANDLE image;
	EFI_STATUS status;

	/* From here on `make bench` counts; the same point with and without the monitor. */
	print(L"firmware: LoadImage at tick ");
	print_hex(__builtin_ia32_rdtsc());
	print(L"\r\n");
	status = file_device_path(volume, path, &device_path);
	if (!EFI_ERROR(status))
		status = boot->LoadImage(FALSE, self, device_path, NULL, 0, &image);
	if (!EFI_ERROR(status))
		status = boot->HandleProtocol(image, &guid, (void **)&loaded);
	if (EFI_ERROR(status)) {
		print(L"firmware: cannot load ");
		return status;
	}
	if (*options) {
		loaded->LoadOptions = options;
		loaded->LoadOptionsSize = size_of(options);
	}
	status = boot->StartImage(image, NULL, NULL);
	print(L"firmware: back from ");
	return status;
}

EFI_STATUS efi_main(EFI_HANDLE self, EFI_SYSTEM_TABLE *table)
{
	EFI_GUID guid = LOADED_IMAGE_PROTOCOL;
	EFI_LOADED_IMAGE *loaded;
	EFI_HANDLE volume;
	CHAR8 *text;
	const CHAR8 *next;
	CHAR16 *path, *options, *words;
	EFI_STATUS status;

	system_table = table;
	boot = table->BootServices;
	offer_memory_overwrite();
	status = boot->HandleProtocol(self, &guid, (void **)&loaded);
	if (!EFI_ERROR(status))
		status = boot->AllocatePool(EfiBootServicesData, NEXT_SIZE * (1 + 3 * sizeof(CHAR16)), (void **)&text);
	if (EFI_ERROR(status))
		return status;
	path = (CHAR16 *)(text + NEXT_SIZE);
	options = path + NEXT_SIZE;
	words = options + NEXT_SIZE;
	if (EFI_ERROR(read_file(loaded->DeviceHandle, NEXT_FILE, text, NEXT_SIZE)))
		text[0] = 0;
	next = text;
	do {
		next = take_line(take_line(take_line(next, path), options), words);
		if (!*path)
			copy(path, DEFAULT_NEXT, sizeof(DEFAULT_NEXT));
		status = prepare(words);
		if (EFI_ERROR(status)) {
			print(L"firmware: cannot prepare the machine: ");
			print_hex(status);
			print(L"\r\n");
			return status;
		}
		volume = loaded->DeviceHandle;
		if (has_word(words, "boot-entry"))
			status = find_entry(&volume, path);
		if (!EFI_ERROR(status))
			status = start(self, volume, path, options);
		print(path);
		print(L": status ");
		print_hex(status);
		print(L"\r\n");
	} while (*next);
	/* Off, for an emulator that ends instead of waiting in the firmware's shell for a human. */
	table->RuntimeServices->ResetSystem(EfiResetShutdown, status, 0, NULL);
	return status;
}
