// SPDX-License-Identifier: GPL-2.0
/*
 * What a kernel that kexec starts, above all a crash kernel, needs of this one: that what it reads before it knows of the
 * monitor is not a VM's; and of itself, that /proc/vmcore has zeros for what it can't read.
 *
 * What Linux reads early by addresses that it does not hand on itself are the tables that the EFI system table names: some
 * of them (the EFI stub's INITRD) lie in memory that Linux has freed. It reads the beginning of each, and keeps the rest
 * of those that it needs for longer.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/crash_dump.h>
#include <linux/efi.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/pfn.h>
#include <asm/bootparam.h>

#include "call.h"
#include "crash.h"

#define TABLES_LIMIT 128
#define NO_VM (~0ULL) /* the handle of none */

/* Frames that are never lent. Once Linux gives one to this module it is kept. */
static struct early {
	unsigned long frame;
	struct page *page;
} early[2 * TABLES_LIMIT];
static unsigned int early_count;

static ssize_t read_sysfs(const char *path, loff_t offset, void *buffer, size_t size)
{
	struct file *file = filp_open(path, O_RDONLY, 0);
	ssize_t result;

	if (IS_ERR(file))
		return PTR_ERR(file);
	result = kernel_read(file, buffer, size, &offset);
	filp_close(file, NULL);
	return result;
}

static struct early *find_early(unsigned long frame, unsigned long count)
{
	unsigned int i;

	for (i = 0; i < early_count; i++)
		if (early[i].frame - frame < count)
			return &early[i];
	return NULL;
}

static void add_early(unsigned long frame)
{
	if (!find_early(frame, 1))
		early[early_count++].frame = frame;
}

/*
 * Nothing that modules may use tells where the tables are; nor does the system table, since the firmware took over virtual
 * addresses.
 */
static bool find_tables(u64 *tables, unsigned long *count)
{
	efi_system_table_t *system;
	struct efi_info info;
	char text[24] = "";

	if (read_sysfs("/sys/kernel/boot_params/data", offsetof(struct boot_params, efi_info), &info, sizeof(info)) !=
		    sizeof(info) ||
	    read_sysfs("/sys/firmware/efi/config_table", 0, text, sizeof(text) - 1) <= 0 ||
	    kstrtou64(strim(text), 0, tables))
		return false;
	system = memremap(info.efi_systab | (u64)info.efi_systab_hi << 32, sizeof(*system), MEMREMAP_WB);
	if (!system)
		return false;
	*count = system->hdr.signature == EFI_SYSTEM_TABLE_SIGNATURE ? system->nr_tables : 0;
	memunmap(system);
	return *count && *count <= TABLES_LIMIT;
}

static bool read_tables(void)
{
	efi_config_table_64_t *table;
	unsigned long count, i;
	u64 tables;

	if (!find_tables(&tables, &count))
		return false;
	table = memremap(tables, count * sizeof(*table), MEMREMAP_WB);
	if (!table)
		return false;
	for (i = 0; i < count; i++) {
		add_early(PFN_DOWN(table[i].table));
		add_early(PFN_DOWN(table[i].table) + 1);
	}
	memunmap(table);
	return true;
}

struct page *hyperps_alloc_pages(gfp_t flags, unsigned int order)
{
	struct page *page;
	unsigned long i;

	while ((page = alloc_pages(flags, order)) && find_early(page_to_pfn(page), 1UL << order)) {
		if (order)
			split_page(page, order);
		for (i = 0; i < 1UL << order; i++) {
			struct early *found = find_early(page_to_pfn(page + i), 1);

			if (!found) {
				__free_page(page + i);
				continue;
			}
			found->page = page + i;
			pr_info("frame %lx is not lent: another kernel would read it\n", found->frame);
		}
	}
	return page;
}

#ifdef CONFIG_PROC_VMCORE
/* Of the dead kernel's. What is a VM's or the monitor's can't be read; the dump has zeros for it. */
static bool is_readable(struct vmcore_cb *block, unsigned long frame)
{
	return vm_call(HYPERPS_CALL_FRAME_QUERY, NO_VM, frame, 0, 0) != -EACCES;
}

static struct vmcore_cb vmcore_block = { .pfn_is_ram = is_readable };

static void vmcore_start(void)
{
	if (is_kdump_kernel())
		register_vmcore_cb(&vmcore_block);
}

static void vmcore_stop(void)
{
	if (is_kdump_kernel())
		unregister_vmcore_cb(&vmcore_block);
}
#else
static void vmcore_start(void)
{
}

static void vmcore_stop(void)
{
}
#endif

void hyperps_crash_start(void)
{
	if (efi_enabled(EFI_BOOT) && !read_tables())
		pr_warn("the tables of the firmware are not found: a crash kernel may not come up while VMs are "
			"there\n");
	vmcore_start();
}

void hyperps_crash_stop(void)
{
	unsigned int i;

	vmcore_stop();
	for (i = 0; i < early_count; i++)
		if (early[i].page)
			__free_page(early[i].page);
}
