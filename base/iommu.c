// SPDX-License-Identifier: MIT
/*
 * Each unit has one root table, whose entries all name one context table, whose entries all name the host view's table.
 * So there is one domain, and what is true of one device is true of all. Names of registers and fields are those of the
 * specification, chapter "Register Descriptions".
 */
#include "iommu.h"
#include "address_space.h"
#include "ept.h"
#include "monitor.h"
#include "spinlock.h"
#include "stop.h"

#define ANSWER_LIMIT_US 100000

#define REGISTER_VERSION 0x00
#define REGISTER_CAPABILITY 0x08
#define REGISTER_GLOBAL_COMMAND 0x18
#define REGISTER_GLOBAL_STATUS 0x1c
#define REGISTER_ROOT_TABLE_ADDRESS 0x20
#define REGISTER_FAULT_STATUS 0x34
#define REGISTER_FAULT_EVENT_CONTROL 0x38
#define REGISTER_PROTECTED_MEMORY_ENABLE 0x64
#define REGISTER_QUEUE_HEAD 0x80
#define REGISTER_QUEUE_TAIL 0x88
#define REGISTER_QUEUE_ADDRESS 0x90

/* Global command and status. */
#define TRANSLATION_ENABLE BIT(31)
#define SET_ROOT_TABLE BIT(30)
#define WRITE_BUFFER_FLUSH BIT(27)
#define QUEUE_ENABLE BIT(26)
#define INTERRUPT_REMAPPING BIT(25)
#define COMMAND_KEEPS 0x86ffffffU /* of the status; others are commands that are done once, or write a log to memory */

#define CAPABILITY_WRITE_BUFFER BIT(4)
#define CAPABILITY_PROTECTED_MEMORY (BIT(5) | BIT(6))
#define CAPABILITY_CACHING_MODE BIT(7)
#define CAPABILITY_LEVELS(capability, levels) ((capability) >> (8 + (levels)-2) & 1)
#define CAPABILITY_FAULT_OFFSET(capability) ((u32)((capability) >> 24 & 0x3ff) * 16)
#define CAPABILITY_FAULT_RECORDS(capability) ((u32)((capability) >> 40 & 0xff) + 1)

#define ROOT_TABLE_MODE (BIT(10) | BIT(11)) /* 0: legacy */
#define PROTECTED_MEMORY_STATUS BIT(0)
#define FAULT_INTERRUPT_MASK BIT(31)
#define FAULT_OVERFLOW BIT(0)
#define FAULT_ERRORS (FAULT_OVERFLOW | BIT(4) | BIT(5) | BIT(6)) /* and those of the queue, which stop it */
#define FAULT_PENDING BIT(1)
#define FAULT_VALID BIT(63) /* of a record's second half */
#define FAULT_READ BIT(62)

#define PRESENT BIT(0)
#define DOMAIN (1ULL << 8) /* of a context entry's second half; 0 is reserved where CM is set */

/* Descriptors, "Invalidation Queue Descriptors": both drain what is under way. */
#define QUEUE_ENTRIES 256
#define INVALIDATE_CONTEXTS (1 | 1ULL << 4) /* of all */
#define INVALIDATE_TRANSLATIONS                                                                                        \
	(2 | 1ULL << 4 | BIT(6) | BIT(7)) /* IOTLB and paging structures, of all; drain writes, reads */
#define WAIT_AND_WRITE (5 | BIT(5))

struct iommu {
	u64 base; /* hpa of the registers */
	u64 *queue, *root;
	u32 version, tail, sequence;
	u32 fault_offset, fault_records;
	bool has_write_buffer, has_protected_memory;
	bool begun, failed; /* the last invalidation */
	volatile u32 done; /* the sequence number of the last wait descriptor that is done; the unit writes it */
};

static struct iommu units[BOOT_IOMMUS];
static u32 found, on;
static bool additions_wait; /* a unit may cache that there was nothing, or buffers what is written */
/* Guards the registers and queues. Not held together with mm_lock or flush_lock; above log_lock in the lock order. */
static struct spinlock iommu_lock;

#define FOR_EACH_IOMMU(unit, count) for (struct iommu *unit = units; (unit) < units + (count); (unit)++)

/* A register, in this CPU's window. */
static u8 *map_register(const struct iommu *unit, u32 offset)
{
	return set_window((unit->base + offset) >> PAGE_SHIFT, PTE_RW | PTE_UNCACHED) + offset % PAGE_SIZE;
}

#define read32(unit, offset) mmio_read32(map_register(unit, offset))
#define read64(unit, offset) mmio_read64(map_register(unit, offset))
#define write32(unit, offset, value) mmio_write32(map_register(unit, offset), value)
#define write64(unit, offset, value) mmio_write64(map_register(unit, offset), value)

static bool wait_for(const struct iommu *unit, u32 offset, u32 mask, u32 value)
{
	for (u32 i = 0; i < ANSWER_LIMIT_US; i++, delay_us(1))
		if ((read32(unit, offset) & mask) == value)
			return true;
	return false;
}

/* Sets or clears a bit of the global command register, and waits until the status has it, or has it no more. */
static bool command(const struct iommu *unit, u32 bit, bool set, bool expected)
{
	u32 value = read32(unit, REGISTER_GLOBAL_STATUS) & COMMAND_KEEPS;

	write32(unit, REGISTER_GLOBAL_COMMAND, set ? value | bit : value & ~bit);
	return wait_for(unit, REGISTER_GLOBAL_STATUS, bit, expected ? bit : 0);
}

static void put_descriptor(struct iommu *unit, u64 low, u64 high)
{
	u64 *descriptor = unit->queue + 2 * (u64)unit->tail;

	descriptor[0] = low;
	descriptor[1] = high;
	unit->tail = (unit->tail + 1) % QUEUE_ENTRIES;
}

/* Begins an invalidation of all translations. False: an earlier one is not done. */
static bool begin_invalidation(struct iommu *unit, bool contexts)
{
	if (read64(unit, REGISTER_QUEUE_HEAD) != (u64)unit->tail << 4 ||
	    (unit->has_write_buffer && !command(unit, WRITE_BUFFER_FLUSH, true, false)))
		return false;
	if (contexts)
		put_descriptor(unit, INVALIDATE_CONTEXTS, 0);
	put_descriptor(unit, INVALIDATE_TRANSLATIONS, 0);
	put_descriptor(unit, WAIT_AND_WRITE | (u64)++unit->sequence << 32, hpa_of((const void *)&unit->done).value);
	write64(unit, REGISTER_QUEUE_TAIL, (u64)unit->tail << 4);
	return true;
}

/* Waits for the end of the last invalidation, as long as *left microseconds are left. */
static bool end_invalidation(const struct iommu *unit, u32 *left)
{
	for (; unit->done != unit->sequence; --*left, delay_us(1))
		if (!*left)
			return false;
	return true;
}

/* Reads and clears the fault records. Only what is there when it begins: a device can't keep a CPU here. */
static void take_faults(const struct iommu *unit, bool count)
{
	u32 status = read32(unit, REGISTER_FAULT_STATUS);

	if (!(status & (FAULT_OVERFLOW | FAULT_PENDING)) || status == ~0U)
		return;
	for (u32 i = 0; i < unit->fault_records; i++) {
		u32 offset = unit->fault_offset + 16 * i;
		/* In this order: the half with FAULT_VALID is written last. */
		u64 high = read64(unit, offset + 8), low = read64(unit, offset);

		if (!(high & FAULT_VALID))
			continue;
		if (count)
			log_refusal(REFUSED_DMA, "device %02x:%02x.%u: %s at %lx refused, reason %x of the unit at %lx",
				    (u32)high >> 8 & 0xff, (u32)high >> 3 & 0x1f, (u32)high & 7,
				    high & FAULT_READ ? "DMA read" : "DMA write", ALIGN_DOWN(low, PAGE_SIZE),
				    (u32)(high >> 32) & 0xff, unit->base);
		write32(unit, offset + 12, FAULT_VALID >> 32);
	}
	write32(unit, REGISTER_FAULT_STATUS, FAULT_OVERFLOW);
}

/* The table that translates for a unit with so many levels as it has: the host view's, or that of its lowest addresses. */
static u64 second_level_table(u64 capability, unsigned *levels)
{
	u64 *table = monitor.host_view.root;

	for (*levels = monitor.host_view.levels; !CAPABILITY_LEVELS(capability, *levels); --*levels) {
		CHECK(*levels > 3);
		table = page_pool_linear(&monitor.pool, HPA(table[0] & EPT_ADDRESS));
	}
	return hpa_of(table).value;
}

void iommu_init(void)
{
	for (const u64 *boot = monitor.boot->dma.unit; found < BOOT_IOMMUS && *boot; boot++, found++) {
		struct iommu *unit = &units[found];
		u64 *context = page_pool_take(&monitor.pool), capability, table;
		unsigned levels;

		unit->base = ALIGN_DOWN(*boot, PAGE_SIZE);
		unit->root = page_pool_take(&monitor.pool);
		unit->queue = page_pool_take(&monitor.pool);
		CHECK(context && unit->root && unit->queue);
		capability = read64(unit, REGISTER_CAPABILITY);
		unit->version = read32(unit, REGISTER_VERSION);
		unit->has_write_buffer = capability & CAPABILITY_WRITE_BUFFER;
		unit->has_protected_memory = capability & CAPABILITY_PROTECTED_MEMORY;
		unit->fault_offset = CAPABILITY_FAULT_OFFSET(capability);
		unit->fault_records = CAPABILITY_FAULT_RECORDS(capability);
		additions_wait |= (capability & (CAPABILITY_CACHING_MODE | CAPABILITY_WRITE_BUFFER)) != 0;
		table = second_level_table(capability, &levels);
		for (u32 i = 0; i < PAGE_SIZE / sizeof(u64); i += 2) {
			unit->root[i] = hpa_of(context).value | PRESENT;
			context[i] = table | PRESENT;
			context[i + 1] = DOMAIN | (levels - 2);
		}
	}
}

/* Memory that the firmware had kept from all devices. */
static bool unprotect(const struct iommu *unit)
{
	if (!unit->has_protected_memory)
		return true;
	write32(unit, REGISTER_PROTECTED_MEMORY_ENABLE, 0);
	return wait_for(unit, REGISTER_PROTECTED_MEMORY_ENABLE, PROTECTED_MEMORY_STATUS, 0);
}

/* The firmware may have used the unit, and may have left it on. */
static bool start(struct iommu *unit)
{
	u32 status = read32(unit, REGISTER_GLOBAL_STATUS), left = ANSWER_LIMIT_US;

	write32(unit, REGISTER_FAULT_EVENT_CONTROL, FAULT_INTERRUPT_MASK);
	take_faults(unit, false);
	write32(unit, REGISTER_FAULT_STATUS, FAULT_ERRORS);

	if ((status & INTERRUPT_REMAPPING) && !command(unit, INTERRUPT_REMAPPING, false, false))
		return false;
	/* The mode of the root table can't change while translation is on. */
	if ((status & TRANSLATION_ENABLE) && (read64(unit, REGISTER_ROOT_TABLE_ADDRESS) & ROOT_TABLE_MODE) &&
	    !command(unit, TRANSLATION_ENABLE, false, false))
		return false;
	if ((status & QUEUE_ENABLE) && (!wait_for(unit, REGISTER_QUEUE_HEAD, ~0U, read32(unit, REGISTER_QUEUE_TAIL)) ||
					!command(unit, QUEUE_ENABLE, false, false)))
		return false;
	write64(unit, REGISTER_QUEUE_TAIL, 0);
	write64(unit, REGISTER_QUEUE_ADDRESS, hpa_of(unit->queue).value);
	write64(unit, REGISTER_ROOT_TABLE_ADDRESS, hpa_of(unit->root).value);
	if ((unit->has_write_buffer && !command(unit, WRITE_BUFFER_FLUSH, true, false)) ||
	    !command(unit, QUEUE_ENABLE, true, true) || !command(unit, SET_ROOT_TABLE, true, true) ||
	    !begin_invalidation(unit, true) || !end_invalidation(unit, &left) ||
	    !command(unit, TRANSLATION_ENABLE, true, true))
		return false;
	return unprotect(unit);
}

bool iommu_start(void)
{
	if (!found)
		return true;
	/* Whatever the loader and the monitor have written so far, units see it in memory. */
	wbinvd();
	FOR_EACH_IOMMU (unit, found) {
		if (start(unit))
			continue;
		log_line(LOG_WARNING, "the DMA-remapping unit at %lx does not start: status %x, fault status %x",
			 unit->base, read32(unit, REGISTER_GLOBAL_STATUS), read32(unit, REGISTER_FAULT_STATUS));
		return false;
	}
	on = found;
	set_window(0, 0);
	return true;
}

void iommu_stop(void)
{
	FOR_EACH_IOMMU (unit, found) {
		command(unit, TRANSLATION_ENABLE, false, false);
		unprotect(unit);
	}
	set_window(0, 0);
}

/* Software can move the registers of some chipsets: then nothing holds devices back. */
static void check_unit(const struct iommu *unit)
{
	u32 status = TRANSLATION_ENABLE | QUEUE_ENABLE;

	if (read32(unit, REGISTER_VERSION) == unit->version &&
	    (read32(unit, REGISTER_GLOBAL_STATUS) & status) == status &&
	    read64(unit, REGISTER_ROOT_TABLE_ADDRESS) == hpa_of(unit->root).value &&
	    read64(unit, REGISTER_QUEUE_ADDRESS) == hpa_of(unit->queue).value)
		return;
	log_line(LOG_ERROR, "the DMA-remapping unit at %lx is gone, or off", unit->base);
	clear_memory("devices are held back no longer");
	reset_machine();
}

bool iommu_flush(void)
{
	u32 left = ANSWER_LIMIT_US;
	bool all = true;

	spin_lock(&iommu_lock);
	FOR_EACH_IOMMU (unit, on) {
		check_unit(unit);
		unit->begun = begin_invalidation(unit, false);
	}
	FOR_EACH_IOMMU (unit, on) {
		bool done = end_invalidation(unit, &left) && unit->begun;

		if (!done && !unit->failed)
			log_line(LOG_WARNING, "the DMA-remapping unit at %lx does not answer: fault status %x",
				 unit->base, read32(unit, REGISTER_FAULT_STATUS));
		unit->failed = !done;
		all = all && done;
		take_faults(unit, true);
	}
	set_window(0, 0);
	spin_unlock(&iommu_lock);
	return all;
}

void iommu_add(void)
{
	if (additions_wait)
		iommu_flush();
}

u32 iommu_count(void)
{
	return on;
}

void iommu_count_faults(void)
{
	spin_lock(&iommu_lock);
	FOR_EACH_IOMMU (unit, on)
		take_faults(unit, true);
	set_window(0, 0);
	spin_unlock(&iommu_lock);
}

void iommu_describe(struct hyperps_status *status)
{
	static const char off[] = "DMA is not held back: the DMA-remapping units could not be switched on";

	spin_lock(&iommu_lock);
	FOR_EACH_IOMMU (unit, on)
		take_faults(unit, true);
	spin_unlock(&iommu_lock);
	status->dma_units = on;
	status->refused_dma = refusals[REFUSED_DMA];
	if (on && monitor.boot->dma.held_back)
		status->flags |= HYPERPS_FLAG_DMA_PROTECTED;
	if (on == found)
		__builtin_memcpy(status->dma, monitor.boot->dma.text, sizeof(monitor.boot->dma.text));
	else
		__builtin_memcpy(status->dma, off, sizeof(off));
}
