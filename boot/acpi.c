// SPDX-License-Identifier: MIT
#include "acpi.h"
#include "loader.h"

/* ACPI 2.0 and later, and 1.0 */
static EFI_GUID acpi_guids[] = { { 0x8868e871, 0xe4f1, 0x11d3, { 0xbc, 0x22, 0x00, 0x80, 0xc7, 0x3c, 0x88, 0x81 } },
				 { 0xeb9d2d30, 0x2d88, 0x11d3, { 0x9a, 0x16, 0x00, 0x90, 0x27, 0x3f, 0xc1, 0x4d } } };

struct acpi_rsdp {
	char signature[8];
	u8 checksum;
	char oem[6];
	u8 revision;
	u32 rsdt;
	u32 length;
	u64 xsdt;
} __attribute__((packed));

/* Generic address structure. */
struct acpi_address {
	u8 space, bits, offset, access;
	u64 address;
} __attribute__((packed));

#define ACPI_SPACE_IO 1

/* Fixed ACPI description table, signature FACP; the fields in between don't matter here. */
struct acpi_fadt {
	struct acpi_table header;
	u8 unused1[12];
	u32 smi_command;
	u8 unused2[12];
	u32 pm1a_control, pm1b_control;
	u8 unused3[40];
	u32 flags;
	struct acpi_address reset;
	u8 reset_value;
	u8 unused4[43];
	struct acpi_address x_pm1a_control, x_pm1b_control;
	u8 unused5[48];
	struct acpi_address sleep_control;
} __attribute__((packed));

_Static_assert(offsetof(struct acpi_fadt, smi_command) == 48 && offsetof(struct acpi_fadt, flags) == 112 &&
		       offsetof(struct acpi_fadt, x_pm1a_control) == 172 &&
		       offsetof(struct acpi_fadt, sleep_control) == 244,
	       "FADT");

#define FADT_RESET_REGISTER BIT(10)
#define FADT_HARDWARE_REDUCED BIT(20)
#define SLEEP_ENABLE 0x20 /* SLP_EN, in the byte that holds it */

u32 acpi_read_u32(const u8 *p)
{
	return p[0] | p[1] << 8 | p[2] << 16 | (u32)p[3] << 24;
}

/* The table at an address that the firmware's tables name; NULL, with a line, if the loader could not read all of it. */
static const struct acpi_table *readable(u64 address)
{
	const struct acpi_table *table = (const void *)address;
	static u64 told;

	if (!address)
		return NULL;
	if (memory_is_mapped(address, sizeof(*table)) && table->length >= sizeof(*table) &&
	    memory_is_mapped(address, table->length))
		return table;
	if (address != told)
		Print(L"HyperPS: the firmware names an ACPI table at 0x%lx, where none can be read. It is left "
		      L"out.\r\n",
		      address);
	told = address;
	return NULL;
}

const struct acpi_table *acpi_table(const char *signature)
{
	const struct acpi_rsdp *rsdp = NULL;
	const struct acpi_table *root;
	UINTN width;

	for (UINTN g = 0; g < ARRAY_SIZE(acpi_guids) && !rsdp; g++)
		for (UINTN i = 0; i < ST->NumberOfTableEntries; i++)
			if (CompareGuid(&ST->ConfigurationTable[i].VendorGuid, &acpi_guids[g]) == 0)
				rsdp = ST->ConfigurationTable[i].VendorTable;
	if (!rsdp)
		return NULL;
	width = rsdp->revision >= 2 && rsdp->xsdt ? sizeof(u64) : sizeof(u32);
	root = readable(width == sizeof(u64) ? rsdp->xsdt : rsdp->rsdt);
	if (!root)
		return NULL;
	for (UINTN at = sizeof(*root); at + width <= root->length; at += width) {
		const u8 *pointer = (const u8 *)root + at;
		u64 address =
			acpi_read_u32(pointer) | (width == sizeof(u64) ? (u64)acpi_read_u32(pointer + 4) << 32 : 0);
		const struct acpi_table *table = readable(address);

		if (table && CompareMem(table->signature, signature, sizeof(table->signature)) == 0)
			return table;
	}
	return NULL;
}

static void add(struct boot_end_port **end, u64 port, u8 mask, u8 value, bool sleep)
{
	if (port && port <= 0xffff)
		*(*end)++ = (struct boot_end_port){ (u16)port, mask, value, sleep };
}

/*
 * A register that a generic address structure names, if there is one, but not where `known` is: offset is that of the byte with
 * the bits. False if it is there, and not an I/O port.
 */
static bool add_register(struct boot_end_port **end, const struct acpi_address *address, u64 known, u64 offset, u8 mask,
			 u8 value, bool sleep)
{
	if (!address->address)
		return true;
	if (address->space != ACPI_SPACE_IO || address->address > 0xffff - offset)
		return false;
	if (address->address != known)
		add(end, address->address + offset, mask, value, sleep);
	return true;
}

bool acpi_end_ports(struct boot_end_port *end)
{
	const struct acpi_table *table = acpi_table("FACP");
	static struct acpi_fadt fadt; /* with zeros where the firmware's is shorter */
	bool all, can_sleep;

	/* The reset register of the chipset, INIT by system control port A, and the keyboard controller's pulses. */
	add(&end, 0xcf9, BIT(2), BIT(2), false);
	add(&end, 0x92, BIT(0), BIT(0), false);
	add(&end, 0x64, 0xf1, 0xf0, false);
	if (!table)
		return false;
	CopyMem(&fadt, (void *)table, table->length < sizeof(fadt) ? table->length : sizeof(fadt));
	/* A firmware that gives both addresses may mean either. */
	add(&end, fadt.pm1a_control ? fadt.pm1a_control + 1ULL : 0, SLEEP_ENABLE, SLEEP_ENABLE, true);
	add(&end, fadt.pm1b_control ? fadt.pm1b_control + 1ULL : 0, SLEEP_ENABLE, SLEEP_ENABLE, true);
	all = add_register(&end, &fadt.x_pm1a_control, fadt.pm1a_control, 1, SLEEP_ENABLE, SLEEP_ENABLE, true);
	all = add_register(&end, &fadt.x_pm1b_control, fadt.pm1b_control, 1, SLEEP_ENABLE, SLEEP_ENABLE, true) && all;
	all = all && fadt.pm1a_control < 0xffff && fadt.pm1b_control < 0xffff;
	can_sleep = fadt.pm1a_control || fadt.x_pm1a_control.address;
	/* Commands to SMM, which looks at more registers than the monitor would have there, pass. */
	if ((fadt.flags & FADT_RESET_REGISTER) && fadt.reset.space == ACPI_SPACE_IO && fadt.reset.address &&
	    fadt.reset.address == fadt.smi_command)
		all = false;
	else if (fadt.flags & FADT_RESET_REGISTER)
		all = add_register(&end, &fadt.reset, 0, 0, 0xff, fadt.reset_value, false) && all;
	if (fadt.flags & FADT_HARDWARE_REDUCED) {
		all = add_register(&end, &fadt.sleep_control, 0, 0, SLEEP_ENABLE, SLEEP_ENABLE, true) && all;
		can_sleep = can_sleep || fadt.sleep_control.address;
	}
	return all && can_sleep;
}
