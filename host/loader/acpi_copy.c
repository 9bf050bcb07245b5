// SPDX-License-Identifier: MIT
#include "acpi_copy.h"

#define TABLES 64
#define TABLE_BYTES_MAX (512 << 10)
#define FACS_BYTES 64

struct rsdp {
	char signature[8];
	u8 checksum;
	char oem[6];
	u8 revision;
	u32 rsdt;
	u32 length;
	u64 xsdt;
	u8 extended_checksum, reserved[3];
} __attribute__((packed));

#define RSDP_BYTES_1 20 /* of ACPI 1.0 */

struct table {
	char signature[4];
	u32 length;
	u8 revision, checksum;
	char oem[6], oem_table[8];
	u32 oem_revision, creator, creator_revision;
} __attribute__((packed));

struct fadt {
	struct table header;
	u32 facs, dsdt;
	u8 model, profile;
	u16 sci;
	u32 smi_command;
	u8 acpi_enable, acpi_disable, s4bios, pstate;
	u32 pm1a_event, pm1b_event, pm1a_control, pm1b_control;
	u8 unused[132 - 72];
	u64 x_facs, x_dsdt;
} __attribute__((packed));

#define FADT_BYTES_1 116 /* of ACPI 1.0: without the 64-bit addresses */

_Static_assert(offsetof(struct fadt, smi_command) == 48 && offsetof(struct fadt, pm1a_control) == 64 &&
		       offsetof(struct fadt, x_facs) == 132,
	       "FADT");

/* What the kernel is given. The FADT leads to DSDT and FACS; the rest has no addresses of further tables. */
static const char kinds[][5] = { "APIC", "FACP", "HMAT", "HPET", "MCFG", "MSCT",
				 "PPTT", "SLIT", "SPCR", "SRAT", "SSDT", "WAET" };

static bool refuse_tables(struct acpi_copy *copy, const char *error)
{
	copy->error = error;
	return false;
}

static u8 sum(const void *data, u64 bytes)
{
	u8 total = 0;

	for (u64 i = 0; i < bytes; i++)
		total += ((const u8 *)data)[i];
	return total;
}

/* `at` is the checksum's byte. */
static void set_checksum(const void *data, u64 bytes, u8 *at)
{
	*at = 0;
	*at = -sum(data, bytes);
}

static bool is_kind(const struct table *table, const char *kind)
{
	return !__builtin_memcmp(table->signature, kind, sizeof(table->signature));
}

/* Copies one table, whose header has been read, behind the others. NULL if that did not work. */
static void *take(struct acpi_copy *copy, u64 address, const struct table *header, u64 least)
{
	u64 at = ALIGN_UP(copy->used, FACS_BYTES);
	struct table *table = (struct table *)(copy->area + at);

	if (header->length < least || header->length > TABLE_BYTES_MAX) {
		refuse_tables(copy, "an ACPI table has a wrong length");
		return NULL;
	}
	if (at > copy->size || header->length > copy->size - at) {
		refuse_tables(copy, "the ACPI tables are too large");
		return NULL;
	}
	/* Of the part that has been read, the first reading counts. */
	*table = *header;
	if (!copy->read(table + 1, address + sizeof(*table), header->length - sizeof(*table))) {
		refuse_tables(copy, "an ACPI table lies where there is no memory");
		return NULL;
	}
	copy->used = at + header->length;
	return table;
}

static u64 address_of(const struct acpi_copy *copy, const void *table)
{
	return copy->address + (u64)((const u8 *)table - copy->area);
}

/* Copies a table that the FADT names; 0 if that did not work. */
static u64 take_named(struct acpi_copy *copy, u64 address, const char *kind, u64 least)
{
	struct table header, *table;

	if (!copy->read(&header, address, sizeof(header)) || !is_kind(&header, kind)) {
		refuse_tables(copy, "the FADT leads to no DSDT or FACS");
		return 0;
	}
	table = take(copy, address, &header, least);
	return table ? address_of(copy, table) : 0;
}

static bool take_fadt_tables(struct acpi_copy *copy, struct fadt *fadt)
{
	bool is_long = fadt->header.length >= sizeof(*fadt);
	u64 facs = is_long && fadt->x_facs ? fadt->x_facs : fadt->facs;
	u64 dsdt = is_long && fadt->x_dsdt ? fadt->x_dsdt : fadt->dsdt;

	fadt->dsdt = take_named(copy, dsdt, "DSDT", sizeof(struct table));
	if (!fadt->dsdt)
		return false;
	/* Hardware-reduced ACPI has none. */
	fadt->facs = facs ? take_named(copy, facs, "FACS", FACS_BYTES) : 0;
	if (facs && !fadt->facs)
		return false;
	if (is_long) {
		fadt->x_dsdt = fadt->dsdt;
		fadt->x_facs = 0;
	}
	/* An SMI would end a protected VM: ACPI mode is on already, and there is no way back. */
	fadt->smi_command = 0;
	fadt->acpi_enable = fadt->acpi_disable = fadt->s4bios = fadt->pstate = 0;
	set_checksum(fadt, fadt->header.length, &fadt->header.checksum);
	return true;
}

/* A root table: where its entries are, how many and how wide. */
struct root {
	u64 entries, count, width;
};

static bool find_root(bool (*read)(void *to, u64 address, u64 bytes), u64 address, struct rsdp *rsdp, struct root *root)
{
	struct table header;
	u64 at;

	*rsdp = (struct rsdp){ 0 };
	if (!address || !read(rsdp, address, RSDP_BYTES_1) || __builtin_memcmp(rsdp->signature, "RSD PTR ", 8))
		return false;
	if (rsdp->revision >= 2 &&
	    !read((u8 *)rsdp + RSDP_BYTES_1, address + RSDP_BYTES_1, sizeof(*rsdp) - RSDP_BYTES_1))
		return false;
	at = rsdp->xsdt ? rsdp->xsdt : rsdp->rsdt;
	root->width = rsdp->xsdt ? sizeof(u64) : sizeof(u32);
	if (!read(&header, at, sizeof(header)) || !is_kind(&header, rsdp->xsdt ? "XSDT" : "RSDT") ||
	    header.length < sizeof(header))
		return false;
	root->entries = at + sizeof(header);
	root->count = (header.length - sizeof(header)) / root->width;
	if (root->count > TABLES)
		root->count = TABLES;
	return true;
}

bool acpi_copy(struct acpi_copy *copy, u64 rsdp_address)
{
	struct rsdp *rsdp = (struct rsdp *)copy->area;
	struct table *xsdt = (struct table *)(copy->area + FACS_BYTES);
	u8 *entry = (u8 *)(xsdt + 1);
	struct root root;

	copy->used = FACS_BYTES + sizeof(*xsdt) + TABLES * sizeof(u64);
	if (copy->size < copy->used)
		return refuse_tables(copy, "there is no room for ACPI tables");
	__builtin_memset(copy->area, 0, copy->used);
	if (!find_root(copy->read, rsdp_address, rsdp, &root))
		return refuse_tables(copy, "the firmware has no ACPI tables");
	for (u64 i = 0; i < root.count; i++) {
		struct table header, *table;
		u64 address = 0;
		bool is_wanted = false;

		if (!copy->read(&address, root.entries + i * root.width, root.width) ||
		    !copy->read(&header, address, sizeof(header)))
			return refuse_tables(copy, "an ACPI table lies where there is no memory");
		for (u64 k = 0; k < ARRAY_SIZE(kinds); k++)
			is_wanted |= is_kind(&header, kinds[k]);
		if (!is_wanted)
			continue;
		table = take(copy, address, &header, is_kind(&header, "FACP") ? FADT_BYTES_1 : sizeof(header));
		if (!table || (is_kind(&header, "FACP") && !take_fadt_tables(copy, (struct fadt *)table)))
			return false;
		address = address_of(copy, table);
		__builtin_memcpy(entry, &address, sizeof(address));
		entry += sizeof(address);
	}
	*xsdt = (struct table){ .signature = "XSDT", .length = entry - (u8 *)xsdt, .revision = 1, .oem = "HYPRPS" };
	set_checksum(xsdt, xsdt->length, &xsdt->checksum);
	*rsdp = (struct rsdp){ .signature = "RSD PTR ",
			       .oem = "HYPRPS",
			       .revision = 2,
			       .length = sizeof(*rsdp),
			       .xsdt = address_of(copy, xsdt) };
	set_checksum(rsdp, RSDP_BYTES_1, &rsdp->checksum);
	set_checksum(rsdp, sizeof(*rsdp), &rsdp->extended_checksum);
	return true;
}

bool acpi_find_enable(bool (*read)(void *to, u64 address, u64 bytes), u64 rsdp_address, struct acpi_enable *enable)
{
	struct rsdp rsdp;
	struct root root;
	struct fadt fadt;

	if (!find_root(read, rsdp_address, &rsdp, &root))
		return false;
	for (u64 i = 0; i < root.count; i++) {
		u64 address = 0;

		if (!read(&address, root.entries + i * root.width, root.width) || !read(&fadt, address, FADT_BYTES_1) ||
		    !is_kind(&fadt.header, "FACP"))
			continue;
		*enable = (struct acpi_enable){ fadt.smi_command, fadt.pm1a_control, fadt.acpi_enable };
		return true;
	}
	return false;
}
