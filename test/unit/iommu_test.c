// SPDX-License-Identifier: MIT
/*
 * base/iommu.c, and the write-back of mm/ept.c, against a model of DMA-remapping units that is written from the specification
 * ("Intel Virtualization Technology for Directed I/O", legacy mode), not from the monitor: registers and their protocol,
 * invalidation queue, caches that keep what they may, memory as each unit sees it, requests that are under way. Devices make requests
 * between any two accesses of the monitor's to a register, and any two cache lines that it writes back, while the memory calls and
 * those of guests run as in the monitor. At each moment: what devices reach is the host's, or was until the last flush;
 * what has been the host's all the time, they reach.
 *
 * Of write buffers (CAP.RWBF) the model assumes that what is written first is visible first.
 *
 * HYPERPS_IOMMU_SEEDS=n runs n sequences instead of the default, HYPERPS_IOMMU_FIRST=n starts with seed n (100).
 * HYPERPS_IOMMU_TEST=name runs this test alone.
 */
#define random guest_random /* stdlib.h has another */
#include "iommu.c"
#include "memory_service.c"
#include "hypercall.c"
#undef random
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "host_view.h"
#include "memory_type.h"

#define FRAMES 4096ULL
#define MEMORY_SIZE (FRAMES * PAGE_SIZE)
#define CHUNK 512ULL /* frames of a 2 MiB page */
#define IMAGE 0xc0000000ULL /* hpa of what the monitor has outside `memory` */
#define REGISTERS 0xfed90000ULL /* of the first unit */
#define REGISTER_PAGES 2
#define ADDRESS_BITS 39
#define FIRMWARE_FRAME(u) (0x20 + 16 * number(u)) /* its tables and its queue */
#define UNITS 4
#define DEVICES 3
#define CACHE 32
#define REQUESTS 8 /* of devices, under way */
#define RECORDS 8
#define FETCHED 512

#define SEQUENCES 60
#define STEPS 60

/* ---- The specification: offsets and bits, chapter "Register Descriptions" and those of queue and structures ---- */

enum { VER = 0x00, CAP = 0x08, ECAP = 0x10, GCMD = 0x18, GSTS = 0x1c, RTADDR = 0x20, FSTS = 0x34, FECTL = 0x38 };
enum { PMEN = 0x64, IQH = 0x80, IQT = 0x88, IQA = 0x90 };

#define TE 0x80000000U
#define SRTP 0x40000000U
#define WBF 0x08000000U
#define QIE 0x04000000U
#define IRE 0x02000000U
#define ONE_SHOT 0x69000000U /* SRTP, SFL, WBF, SIRTP */
#define PERSISTENT 0x96800000U /* TE, EAFL, QIE, IRE, CFI */

#define FSTS_PFO 0x01U
#define FSTS_PPF 0x02U
#define FSTS_IQE 0x10U
#define FSTS_CLEARED 0x71U /* by writing 1: PFO, IQE, ICE, ITE */
#define F (1ULL << 63)
#define EPM (1U << 31)
#define PRS 1U

enum reason { ROOT_ABSENT = 1, CONTEXT_ABSENT = 2, BEYOND_WIDTH = 4, NO_WRITE = 5, NO_READ = 6 };

struct context {
	bool valid;
	u16 device; /* bus, device, function */
	u16 domain;
	unsigned levels;
	u64 table;
};

/* Of the IOTLB: a leaf, or that there is none (CM). Of the paging-structure caches: a table of `level`. */
struct cached {
	bool valid, absent;
	u8 permissions;
	u16 domain;
	unsigned level;
	u64 base, hpa;
};

struct request {
	bool valid, write;
	u64 frame;
};

struct record {
	u64 low, high;
	bool counted;
};

enum hang { ANSWERS, FETCHES_NOTHING, FINISHES_NOTHING, IGNORES_COMMANDS, IGNORES_PMEN };

struct unit {
	u64 base, cap, ecap, rtaddr, iqh, iqt, iqa, root;
	u32 ver, gsts, fsts, fectl, pmen;
	unsigned levels, records, next_record;
	u32 record_offset;
	bool coherent, buffered, caching, scalable, has_root;
	bool contexts_invalidated, translations_invalidated; /* since the root was set */
	bool buffer_flushed; /* since the tables were made */
	bool gone; /* reads all ones */
	enum hang hang;
	u32 ignores; /* commands that it never finishes: after one of them none */
	bool stuck;
	u32 pending, pending_value; /* a command under way */
	unsigned wait, pmen_wait; /* reads until it is done */
	struct context context[DEVICES];
	struct cached leaf[CACHE], table[CACHE];
	struct request request[REQUESTS];
	struct record record[RECORDS];
	u64 fetched[FETCHED][2];
	unsigned fetched_first, fetched_count;
	u8 *memory; /* as it sees it; its own with write buffers */
	u8 *buffer;
};

static struct unit model[UNITS];
static unsigned count; /* units */
static const u16 device[DEVICES] = { 0x0010, 0x00fa, 0x0308 };

/* ---- The machine ---- */

struct monitor monitor;
u64 refusals[REFUSALS];
static struct boot_info boot;
static u8 *memory; /* hpa 0 is its first byte */
static u8 *written_back; /* the same without what is in the CPUs' caches */
static u64 mark_table[FRAMES];
static struct mtrr_state mtrr;
static u8 window[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static u64 window_frame, own_entry;
static bool window_open, flood;
static struct record *record_read;
static const struct unit *record_unit;
static struct vcpu vcpu;

static bool strict; /* the units are on: devices are held back */
static s64 left[FRAMES]; /* epoch in which devices lost the frame, or -1 */
static bool had[FRAMES], settled[FRAMES]; /* devices may reach it; must */
static bool donated[FRAMES / CHUNK];
static u64 interesting[32];
static u64 deferred[64];
static unsigned deferred_count, refused, warnings;
static bool unsettled; /* a unit did not answer when something had come into the host view */
static jmp_buf end;
static bool may_end, cleared;

/* The request under way. */
enum kind { NONE, CREATE, MAP, SYNC, SEAL, DESTROY, RECLAIM, DONATE, SHARE, UNSHARE, RELEASE, HIDE, KINDS };
static enum kind kind;
static u64 busy_first, busy_count, busy_vm;
static u64 calls[KINDS][2];
static u64 accesses, faults, landed, register_accesses;
static bool devices_rest; /* no requests, and commands are done at once: what a flush takes at least */

static u64 random_state, sequence;
static unsigned steps; /* of the sequence */
static unsigned idle;
static u64 last_flushed;

static u64 next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static u64 below(u64 n)
{
	return (next_random() >> 11) % n;
}

static bool chance(u64 percent)
{
	return below(100) < percent;
}

static unsigned long long ll(u64 x)
{
	return x;
}

/* Ends the test. */
static __attribute__((format(printf, 1, 2), noreturn)) void violation(const char *format, ...)
{
	char text[400];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	fail_msg("seed %llu, step %u: %s", ll(sequence), steps, text);
	abort();
}

static unsigned number(const struct unit *u)
{
	return (unsigned)(u - model);
}

static const char *describe(const struct unit *u)
{
	static char text[64];

	snprintf(text, sizeof(text), "%u levels%s%s%s", u->levels, u->coherent ? "" : ", not coherent",
		 u->buffered ? ", write buffer" : "", u->caching ? ", caching mode" : "");
	return text;
}

/* ---- What devices may reach ---- */

static bool is_accessible(u64 frame)
{
	u64 state = page_mark_state(&monitor.marks, frame), first = REGISTERS / PAGE_SIZE;

	if (frame >= first && frame < first + (u64)count * REGISTER_PAGES)
		return false;
	return state == HYPERPS_FRAME_HOST || state == HYPERPS_FRAME_SHARED || state == HYPERPS_FRAME_DEVICE;
}

static u64 vm_of(u64 frame)
{
	return monitor.marks.mark[frame] >> MARK_VM_SHIFT & MARK_VM;
}

static void note_departure(u64 frame)
{
	if (had[frame] && !is_accessible(frame)) {
		had[frame] = settled[frame] = false;
		left[frame] = (s64)mm.epoch;
	}
}

static void note_departures(void)
{
	for (u64 frame = 0; frame < FRAMES; frame++)
		note_departure(frame);
}

static bool may_reach(u64 frame)
{
	if (frame >= FRAMES || is_accessible(frame))
		return is_accessible(frame);
	note_departure(frame);
	return left[frame] >= 0 && mm.flushed <= (u64)left[frame];
}

static void check_reach(const struct unit *u, u64 frame, const char *how)
{
	if (!strict || may_reach(frame))
		return;
	/* The view comes before the mark; whether the mark has come, the request's end tells. */
	if (kind == SHARE && frame < FRAMES && page_mark_state(&monitor.marks, frame) == HYPERPS_FRAME_PRIVATE &&
	    vm_of(frame) == busy_vm && deferred_count < ARRAY_SIZE(deferred)) {
		deferred[deferred_count++] = frame;
		return;
	}
	violation("unit %u (%s): %s reaches frame %#llx in state %llu, flushed %llu, left %lld", number(u), describe(u),
		  how, ll(frame), ll(page_mark_state(&monitor.marks, frame)), ll(mm.flushed),
		  frame < FRAMES ? (long long)left[frame] : -1);
}

static bool must_reach(u64 frame)
{
	if (!strict || frame >= FRAMES || !settled[frame] || !is_accessible(frame))
		return false;
	if ((kind == MAP || kind == DONATE) && frame - busy_first < busy_count)
		return false;
	return (kind != UNSHARE && kind != DESTROY) || page_mark_state(&monitor.marks, frame) != HYPERPS_FRAME_SHARED ||
	       vm_of(frame) != busy_vm;
}

/* ---- Memory as units see it ---- */

static bool is_table_page(u64 frame)
{
	u64 first = monitor.pool.base.value / PAGE_SIZE;

	return frame - first < monitor.pool.used / PAGE_SIZE || donated[frame / CHUNK];
}

static const u8 *source_of(const struct unit *u)
{
	return u->coherent ? memory : written_back;
}

/* The write buffer is empty now. */
static void drain_buffer(struct unit *u)
{
	if (!u->buffered)
		return;
	for (u64 frame = 0; frame < FRAMES; frame++)
		if (is_table_page(frame))
			memcpy(u->buffer + frame * PAGE_SIZE, source_of(u) + frame * PAGE_SIZE, PAGE_SIZE);
}

/* A cache writes lines back whenever it likes. */
static void evict(void)
{
	for (u64 frame = 0; frame < FRAMES; frame++) {
		u64 offset = frame * PAGE_SIZE;

		if (!is_table_page(frame) || !memcmp(memory + offset, written_back + offset, PAGE_SIZE))
			continue;
		for (u64 line = 0; line < PAGE_SIZE; line += CACHE_LINE)
			if (chance(30))
				memcpy(written_back + offset + line, memory + offset + line, CACHE_LINE);
	}
}

/* Writes to memory what is in no cache: by the firmware, or by a host. */
static void put_word(u64 hpa, u64 value)
{
	memcpy(memory + hpa, &value, sizeof(value));
	memcpy(written_back + hpa, &value, sizeof(value));
	for (unsigned i = 0; i < count; i++)
		memcpy(model[i].buffer + hpa, &value, sizeof(value));
}

static u64 get_word(const struct unit *u, u64 hpa)
{
	u64 value = 0;

	if (hpa > MEMORY_SIZE - sizeof(value))
		violation("unit %u reads a table at %#llx", number(u), ll(hpa));
	else
		memcpy(&value, u->memory + hpa, sizeof(value));
	return value;
}

/* Queue and status are always coherent. */
static u8 *queue_memory(const struct unit *u, u64 hpa, u64 size)
{
	if (hpa <= MEMORY_SIZE - size)
		return memory + hpa;
	if (hpa >= IMAGE && hpa + size <= IMAGE + sizeof(units))
		return (u8 *)units + (hpa - IMAGE);
	violation("unit %u uses a queue or a status at %#llx", number(u), ll(hpa));
	return memory;
}

/* ---- Faults ---- */

static void fault(struct unit *u, u16 who, u64 address, bool write, enum reason reason)
{
	struct record *record = &u->record[u->next_record];

	faults++;
	if (u->fsts & FSTS_PFO)
		return;
	if (record->high & F) {
		u->fsts |= FSTS_PFO;
		return;
	}
	*record = (struct record){ .low = ALIGN_DOWN(address, PAGE_SIZE),
				   .high = F | (write ? 0 : 1ULL << 62) | (u64)reason << 32 | who };
	u->next_record = (u->next_record + 1) % u->records;
}

static u32 fault_status(const struct unit *u)
{
	u32 status = u->fsts | u->next_record << 8;

	for (unsigned i = 0; i < u->records; i++)
		status |= u->record[i].high & F ? FSTS_PPF : 0;
	return status;
}

/* ---- Translation ---- */

static u64 span(unsigned level)
{
	return 1ULL << (12 + 9 * (level - 1));
}

static void keep(struct cached *cache, struct cached entry)
{
	unsigned slot = (unsigned)below(CACHE);

	for (unsigned i = 0; i < CACHE; i++) {
		if (!cache[i].valid)
			slot = i;
		else if (cache[i].level == entry.level && cache[i].base == entry.base && cache[i].hpa == entry.hpa &&
			 cache[i].domain == entry.domain && cache[i].absent == entry.absent)
			return;
	}
	entry.valid = true;
	cache[slot] = entry;
}

static const struct cached *look_up(const struct cached *cache, u16 domain, u64 address)
{
	unsigned first = (unsigned)below(CACHE);

	for (unsigned i = 0; i < CACHE; i++) {
		const struct cached *entry = &cache[(first + i) % CACHE];

		if (entry->valid && entry->domain == domain &&
		    address - entry->base < (entry->level ? span(entry->level) : 0))
			return entry;
	}
	return NULL;
}

/* Root and context entry of a device. 0, or the reason of the fault. */
static int find_context(struct unit *u, unsigned who, struct context *context)
{
	u64 low, high, width = (1ULL << ADDRESS_BITS) - 1, bus = device[who] >> 8, function = device[who] & 0xff;

	if (u->context[who].valid && chance(90)) {
		*context = u->context[who];
		return 0;
	}
	low = get_word(u, u->root + bus * 16);
	high = get_word(u, u->root + bus * 16 + 8);
	if (!(low & 1))
		return ROOT_ABSENT;
	if ((low & (0xffe | ~width)) || high) {
		violation("unit %u: reserved bits in root entry %llx %llx", number(u), ll(high), ll(low));
		return ROOT_ABSENT;
	}
	u64 table = ALIGN_DOWN(low, PAGE_SIZE);
	low = get_word(u, table + function * 16);
	high = get_word(u, table + function * 16 + 8);
	if (!(low & 1))
		return CONTEXT_ABSENT;
	*context = (struct context){ .valid = true,
				     .device = device[who],
				     .domain = (u16)(high >> 8),
				     .levels = (unsigned)(high & 7) + 2,
				     .table = ALIGN_DOWN(low, PAGE_SIZE) };
	/* Translation type 0: of untranslated requests alone. FPD 0. */
	if ((low & (0xffe | ~width)) || (high & 0xffffffffff000080ULL))
		violation("unit %u: context entry %llx %llx", number(u), ll(high), ll(low));
	if (!(u->cap >> (8 + (high & 7)) & 1) || (high & 7) > 4)
		violation("unit %u: address width %llu that it does not have", number(u), ll(high & 7));
	if (!context->domain && u->caching)
		violation("unit %u: domain 0 with caching mode", number(u));
	if (chance(80))
		u->context[who] = *context;
	return 0;
}

/* 0 and the address, or the reason of the fault. */
static int translate(struct unit *u, unsigned who, u64 address, bool write, u64 *hpa)
{
	struct context context;
	const struct cached *entry;
	unsigned level;
	u64 table;
	int reason = find_context(u, who, &context);

	if (reason)
		return reason;
	if (address >= span(context.levels + 1))
		return BEYOND_WIDTH;
	entry = look_up(u->leaf, context.domain, address);
	if (entry && chance(90)) {
		if (entry->absent || !(entry->permissions & (write ? 2 : 1)))
			return write ? NO_WRITE : NO_READ;
		*hpa = entry->hpa + (address - entry->base);
		return 0;
	}
	level = context.levels;
	table = context.table;
	entry = look_up(u->table, context.domain, address);
	if (entry && chance(70)) {
		/* The table, a level below what the entry maps. */
		level = entry->level - 1;
		table = entry->hpa;
	}
	for (;; level--) {
		u64 value = get_word(u, table + (address >> (12 + 9 * (level - 1)) & 511) * 8);
		bool large = level > 1 && (value & 0x80);
		u64 reserved = ~((1ULL << ADDRESS_BITS) - 1) & ~0xbff0000000000000ULL;
		struct cached found = { .permissions = value & 3,
					.domain = context.domain,
					.level = level,
					.base = ALIGN_DOWN(address, span(level)),
					.hpa = value & 0x000ffffffffff000ULL };

		if (!(value & 3)) {
			found.absent = true;
			found.hpa = 0;
			if (u->caching && chance(90))
				keep(u->leaf, found);
			return write ? NO_WRITE : NO_READ;
		}
		reserved |= 0x800 | (large ? span(level) - PAGE_SIZE : 0) | (level > 3 ? 0x80 : 0) |
			    (level == 3 && !(u->cap >> 35 & 1) ? 0x80 : 0);
		if (value & reserved)
			violation("unit %u: reserved bits in entry %llx of level %u", number(u), ll(value), level);
		if (level == 1 || large) {
			if (!(value & (write ? 2 : 1)))
				return write ? NO_WRITE : NO_READ;
			if (chance(90))
				keep(u->leaf, found);
			*hpa = found.hpa + (address - found.base);
			return 0;
		}
		table = found.hpa;
		if (chance(70))
			keep(u->table, found);
	}
}

static void land(struct unit *u, struct request *request)
{
	request->valid = false;
	landed++;
	check_reach(u, request->frame, request->write ? "a write that was under way" : "a read that was under way");
}

static void access_frame(struct unit *u, u64 frame, bool write)
{
	unsigned who = (unsigned)below(DEVICES);
	u64 hpa = 0, address = frame * PAGE_SIZE;
	int reason;

	if (!(u->gsts & TE) || !u->has_root)
		return;
	accesses++;
	reason = translate(u, who, address, write, &hpa);
	if (reason) {
		if (must_reach(frame))
			violation("unit %u (%s): a request to frame %#llx, state %llu, faults: %d; in call %d",
				  number(u), describe(u), ll(frame), ll(page_mark_state(&monitor.marks, frame)), reason,
				  kind);
		fault(u, device[who], address, write, (enum reason)reason);
		return;
	}
	if (strict && hpa != address)
		violation("unit %u (%s): %#llx goes to %#llx, in call %d", number(u), describe(u), ll(address), ll(hpa),
			  kind);
	check_reach(u, hpa / PAGE_SIZE, write ? "a write" : "a read");
	if (chance(50))
		u->request[below(REQUESTS)] = (struct request){ true, write, hpa / PAGE_SIZE };
}

static void note_interesting(u64 frame)
{
	interesting[below(ARRAY_SIZE(interesting))] = frame % FRAMES;
}

static u64 pick_target(void)
{
	u64 frame = interesting[below(ARRAY_SIZE(interesting))];

	if (chance(60))
		return frame;
	if (chance(5))
		return REGISTERS / PAGE_SIZE + below((u64)count * REGISTER_PAGES);
	return chance(60) ? (frame + below(24) - 12) % FRAMES : below(FRAMES);
}

/* ---- The invalidation queue ---- */

static bool is_valid(const u64 *descriptor)
{
	u64 low = descriptor[0], high = descriptor[1];

	switch (low & 0xf) {
	case 1: /* context cache */
		return (low >> 4 & 3) && !(low & 0xfffc00000000ffc0ULL) && !high;
	case 2: /* IOTLB and paging structures; page-selective is not used */
		return ((low >> 4 & 3) == 1 || (low >> 4 & 3) == 2) && !(low & 0xffffffff0000ff00ULL) && !high;
	case 5: /* wait */
		return !(low & 0xffffff80ULL) && !(high & 3);
	}
	return false;
}

static void execute(struct unit *u, const u64 *descriptor)
{
	u64 low = descriptor[0], domain = low >> 16 & 0xffff;
	bool all = (low >> 4 & 3) == 1;

	switch (low & 0xf) {
	case 1:
		for (unsigned i = 0; i < DEVICES; i++)
			if (all || u->context[i].domain == domain)
				u->context[i].valid = false;
		u->contexts_invalidated |= all;
		u->translations_invalidated = false; /* they may come from old contexts */
		break;
	case 2:
		for (unsigned i = 0; i < CACHE; i++) {
			if (all || u->leaf[i].domain == domain)
				u->leaf[i].valid = false;
			if (all || u->table[i].domain == domain)
				u->table[i].valid = false;
		}
		for (unsigned i = 0; i < REQUESTS; i++)
			if (u->request[i].valid && (low >> (u->request[i].write ? 6 : 7) & 1))
				land(u, &u->request[i]);
		u->translations_invalidated |= all && u->contexts_invalidated;
		break;
	default:
		if (low & 0x20) {
			u32 status = (u32)(low >> 32);

			memcpy(queue_memory(u, descriptor[1], 4), &status, sizeof(status));
		}
	}
}

static void run_queue(struct unit *u)
{
	if ((u->gsts & QIE) && !(u->fsts & FSTS_IQE) && u->hang != FETCHES_NOTHING && u->iqh != u->iqt &&
	    u->fetched_count < FETCHED && chance(50)) {
		u64 *descriptor = u->fetched[(u->fetched_first + u->fetched_count) % FETCHED];

		memcpy(descriptor, queue_memory(u, ALIGN_DOWN(u->iqa, PAGE_SIZE) + u->iqh, 16), 16);
		if (!is_valid(descriptor)) {
			violation("unit %u: descriptor %llx %llx", number(u), ll(descriptor[1]), ll(descriptor[0]));
			u->fsts |= FSTS_IQE;
			return;
		}
		u->fetched_count++;
		u->iqh = (u->iqh + 16) % PAGE_SIZE;
	}
	if (u->fetched_count && u->hang != FINISHES_NOTHING && chance(50)) {
		execute(u, u->fetched[u->fetched_first]);
		u->fetched_first = (u->fetched_first + 1) % FETCHED;
		u->fetched_count--;
	}
}

/* ---- Anything that goes on beside the CPU ---- */

static void one_access(void)
{
	access_frame(&model[below(count)], pick_target(), chance(50));
}

static void tick(void)
{
	struct unit *u = &model[below(count)];
	struct request *request = &u->request[below(REQUESTS)];

	run_queue(u);
	if (devices_rest)
		return;
	if (chance(40))
		one_access();
	if (request->valid && chance(10))
		land(u, request);
	if (chance(2))
		evict();
	if (chance(2))
		drain_buffer(u);
}

/* What units hold, each entry. */
static void check_caches(void)
{
	for (struct unit *u = model; u < model + count; u++) {
		for (unsigned i = 0; i < CACHE; i++) {
			const struct cached *leaf = &u->leaf[i], *table = &u->table[i];
			u64 first = leaf->hpa / PAGE_SIZE;

			if (leaf->valid && !leaf->absent)
				for (u64 n = first; n < first + span(leaf->level) / PAGE_SIZE && n < FRAMES; n++)
					check_reach(u, n, "a cached translation");
			for (unsigned n = 0; table->valid && n < 2; n++) {
				u64 frame = table->base / PAGE_SIZE +
					    (pick_target() & (span(table->level) / PAGE_SIZE - 1));

				access_frame(u, frame % FRAMES, n);
			}
		}
		for (unsigned i = 0; i < REQUESTS; i++)
			if (u->request[i].valid)
				check_reach(u, u->request[i].frame, "a request that is under way");
	}
}

/* ---- Registers ---- */

static void finish_command(struct unit *u)
{
	u32 command = u->pending;

	u->pending = 0;
	switch (command) {
	case SRTP:
		if ((u->gsts & TE) && (u->rtaddr & 0xc00) != (u->scalable ? 0x400U : 0))
			violation("unit %u: the root table's mode changes while translation is on", number(u));
		u->root = ALIGN_DOWN(u->rtaddr, PAGE_SIZE);
		u->scalable = u->rtaddr & 0x400;
		u->has_root = true;
		u->contexts_invalidated = u->translations_invalidated = false;
		u->gsts |= SRTP;
		break;
	case WBF:
		drain_buffer(u);
		u->buffer_flushed = true;
		u->gsts &= ~WBF;
		break;
	case QIE:
		/* What it has fetched, it finishes first. */
		for (; u->fetched_count; u->fetched_count--) {
			execute(u, u->fetched[u->fetched_first]);
			u->fetched_first = (u->fetched_first + 1) % FETCHED;
		}
		u->iqh = 0;
		__attribute__((fallthrough));
	default:
		u->gsts = (u->gsts & ~command) | (u->pending_value & command);
	}
}

static void write_command(struct unit *u, u32 value)
{
	u32 changed = ((value ^ u->gsts) & PERSISTENT) | (value & ONE_SHOT);

	u->stuck |= (u->ignores & changed) || (changed && u->hang == IGNORES_COMMANDS);
	if (u->stuck) {
		u->pending = changed;
		u->pending_value = value;
		u->gsts = (u->gsts & ~(changed & SRTP)) | (changed & WBF);
		return;
	}
	if (u->pending)
		violation("unit %u: command %#x while %#x is pending", number(u), value, u->pending);
	if (value & ~(ONE_SHOT | PERSISTENT))
		violation("unit %u: reserved bits in command %#x", number(u), value);
	if (changed & (changed - 1))
		violation("unit %u: command %#x changes more than one thing (%#x)", number(u), value, changed);
	if (changed & ~(TE | SRTP | WBF | QIE | IRE))
		violation("unit %u: command %#x", number(u), value);
	if ((changed & value & TE) &&
	    (!u->has_root || !u->contexts_invalidated || !u->translations_invalidated || u->scalable))
		violation("unit %u: translation on without a root, or with what caches hold of another", number(u));
	if ((changed & WBF) && !u->buffered)
		violation("unit %u has no write buffer", number(u));
	if ((changed & value & QIE) && u->iqt)
		violation("unit %u: queue on with a tail", number(u));
	if ((changed & ~value & QIE) && u->iqh != u->iqt)
		violation("unit %u: queue off with something in it", number(u));
	if ((changed & SRTP) && (u->rtaddr & 0xfff))
		violation("unit %u: root table %#llx", number(u), ll(u->rtaddr));
	if (strict && (changed & (TE | QIE | SRTP)))
		violation("unit %u: command %#x once devices are held back", number(u), value);
	if ((changed & SRTP) && u->buffered && !u->buffer_flushed)
		violation("unit %u: the root table is set, and may still be in the write buffer", number(u));
	if (!changed)
		return;
	u->pending = changed;
	u->pending_value = value;
	if (changed == SRTP)
		u->gsts &= ~SRTP;
	if (changed == WBF)
		u->gsts |= WBF;
	u->wait = devices_rest ? 0 : (unsigned)below(4);
	if (!u->wait)
		finish_command(u);
}

static struct unit *find_register(const u8 *address, unsigned size, u64 *offset)
{
	u64 unit = (window_frame - REGISTERS / PAGE_SIZE) / REGISTER_PAGES, in_window = (u64)(address - window);

	if (!window_open || in_window >= PAGE_SIZE || unit >= count || in_window % size)
		fail_msg("an access outside the registers, or not aligned");
	*offset = (window_frame - REGISTERS / PAGE_SIZE) % REGISTER_PAGES * PAGE_SIZE + in_window;
	return &model[unit];
}

static u64 read_register_of(struct unit *u, u64 offset, unsigned size)
{
	u64 record = (offset - u->record_offset) / 16;

	tick();
	register_accesses++;
	if (u->gone)
		return ~0ULL;
	if (offset - u->record_offset < 16ULL * u->records) {
		u64 half = offset % 16 / 8 ? u->record[record].high : u->record[record].low;

		record_read = &u->record[record];
		record_unit = u;
		if (flood)
			fault(u, device[0], 0, true, NO_WRITE);
		return half >> offset % 8 * 8;
	}
	switch (offset) {
	case VER:
		return u->ver;
	case CAP:
	case CAP + 4:
		return u->cap >> (offset - CAP) * 8;
	case ECAP:
	case ECAP + 4:
		return u->ecap >> (offset - ECAP) * 8;
	case GSTS:
		if (u->pending && !u->stuck && !u->wait--)
			finish_command(u);
		return u->gsts;
	case RTADDR:
	case RTADDR + 4:
		return u->rtaddr >> (offset - RTADDR) * 8;
	case FSTS:
		return fault_status(u);
	case FECTL:
		return u->fectl;
	case PMEN:
		if (!(u->cap >> 5 & 3))
			violation("unit %u has no protected memory", number(u));
		if (!(u->pmen & EPM) && u->hang != IGNORES_PMEN && (!u->pmen_wait || !u->pmen_wait--))
			u->pmen &= ~PRS;
		return u->pmen;
	case IQH:
	case IQT:
	case IQA:
		return offset == IQH ? u->iqh : offset == IQT ? u->iqt : u->iqa;
	default:
		violation("unit %u: register %#llx is read, %u bytes", number(u), ll(offset), size);
		return 0;
	}
}

static void write_register_of(struct unit *u, u64 offset, u64 value, unsigned size)
{
	u64 record = (offset - u->record_offset) / 16;

	tick();
	register_accesses++;
	if (u->gone)
		return;
	if (offset - u->record_offset < 16ULL * u->records) {
		if (offset % 16 != 12 || size != 4 || value != 1ULL << 31)
			violation("unit %u: %#llx is written to a fault record", number(u), ll(value));
		if (strict && (u->record[record].high & F) && !u->record[record].counted)
			violation("unit %u: a fault is lost", number(u));
		u->record[record].high &= ~F;
		return;
	}
	switch (offset | (u64)size << 32) {
	case GCMD | 4ULL << 32:
		write_command(u, (u32)value);
		break;
	case FSTS | 4ULL << 32:
		if (value & ~(u64)FSTS_CLEARED)
			violation("unit %u: fault status %#llx", number(u), ll(value));
		u->fsts &= ~(u32)value;
		break;
	case FECTL | 4ULL << 32:
		if (value & 0x3fffffff)
			violation("unit %u: fault event control %#llx", number(u), ll(value));
		u->fectl = (u32)value & 0x80000000U;
		break;
	case PMEN | 4ULL << 32:
		if (!(u->cap >> 5 & 3) || (value & 0x7ffffffe))
			violation("unit %u: protected memory %#llx", number(u), ll(value));
		u->pmen = (u32)(value & EPM) | (u->pmen & PRS);
		u->pmen_wait = (unsigned)below(4);
		break;
	case RTADDR | 8ULL << 32:
		if ((value & 0x3ff) || value >> ADDRESS_BITS || u->pending)
			violation("unit %u: root table %#llx", number(u), ll(value));
		u->rtaddr = value;
		break;
	case IQT | 8ULL << 32:
		if (value & 0xf || value >= PAGE_SIZE)
			violation("unit %u: tail %#llx of a queue of 4 KiB", number(u), ll(value));
		u->iqt = value;
		break;
	case IQA | 8ULL << 32:
		if ((u->gsts & QIE) || (value & 0xfff) || value >> ADDRESS_BITS)
			violation("unit %u: queue %#llx", number(u), ll(value));
		u->iqa = value;
		break;
	default:
		violation("unit %u: register %#llx is written, %u bytes", number(u), ll(offset), size);
	}
}

u32 mmio_read32(const u8 *address)
{
	u64 offset;
	struct unit *u = find_register(address, 4, &offset);

	return (u32)read_register_of(u, offset, 4);
}

u64 mmio_read64(const u8 *address)
{
	u64 offset;
	struct unit *u = find_register(address, 8, &offset);

	if (offset == VER || offset == GSTS || offset == FSTS || offset == FECTL || offset == PMEN)
		violation("unit %u: register %#llx has 4 bytes", number(u), ll(offset));
	return read_register_of(u, offset, 8);
}

void mmio_write32(u8 *address, u32 value)
{
	u64 offset;
	struct unit *u = find_register(address, 4, &offset);

	write_register_of(u, offset, value, 4);
}

void mmio_write64(u8 *address, u64 value)
{
	u64 offset;
	struct unit *u = find_register(address, 8, &offset);

	write_register_of(u, offset, value, 8);
}

/* ---- What else the monitor uses ---- */

u8 *set_window(u64 frame, u64 flags)
{
	window_open = false;
	if (!flags)
		return NULL;
	if (frame < FRAMES) {
		assert_int_equal(flags, PTE_RW);
		/* It is about to be zeroed, or measured. */
		note_interesting(frame);
		for (unsigned i = 0; i < count; i++) {
			access_frame(&model[i], frame, false);
			access_frame(&model[i], frame, true);
		}
		return memory + frame * PAGE_SIZE;
	}
	if (flags != (PTE_RW | PTE_UNCACHED))
		violation("registers are mapped with %#llx", ll(flags));
	window_frame = frame;
	window_open = true;
	return window;
}

void clflush(u8 *line)
{
	u64 offset = (u64)(line - memory);

	if (offset >= MEMORY_SIZE)
		return;
	assert_int_equal(offset % CACHE_LINE, 0);
	/* What is about to be written back is not yet: others may be. */
	if (is_table_page(offset / PAGE_SIZE) ? chance(30) : chance(1))
		tick();
	memcpy(written_back + offset, line, CACHE_LINE);
	if (is_table_page(offset / PAGE_SIZE) ? chance(30) : chance(1))
		tick();
}

void wbinvd(void)
{
	memcpy(written_back, memory, MEMORY_SIZE);
	for (unsigned i = 0; i < count; i++)
		model[i].buffer_flushed = false;
}

hpa_t hpa_of(const void *object)
{
	u64 offset = (u64)((const u8 *)object - memory);

	return HPA(offset < MEMORY_SIZE ? offset : IMAGE + (u64)((const u8 *)object - (const u8 *)units));
}

void delay_us(u64 microseconds)
{
	(void)microseconds;
	if (++idle % 64 < 16)
		run_queue(&model[below(count)]);
	if (idle % 64 < 2)
		tick();
}

bool flush_all_cpus(u64 epoch)
{
	(void)epoch;
	note_departures();
	/* Seldom, one does not answer. */
	return !chance(2);
}

void flush_this_cpu(struct cpu *cpu)
{
	(void)cpu;
}

volatile u64 *own_page_entry(u64 linear, unsigned last, bool make)
{
	(void)linear;
	(void)last;
	(void)make;
	return &own_entry;
}

bool gate_uses(hpa_t hpa)
{
	(void)hpa;
	return false;
}

void gate_add_memory(hpa_t hpa)
{
	(void)hpa;
}

void log_line(enum log_level level, const char *format, ...)
{
	(void)format;
	warnings += level <= LOG_WARNING;
}

/* Each record is counted once, as it is. */
void log_refusal(enum refusal refusal, const char *format, ...)
{
	va_list arguments;
	u32 bus, slot, function, reason;
	u64 address, base;
	bool read;

	refusals[refusal]++;
	if (refusal != REFUSED_DMA)
		return;
	refused++;
	va_start(arguments, format);
	bus = va_arg(arguments, u32);
	slot = va_arg(arguments, u32);
	function = va_arg(arguments, u32);
	read = strstr(va_arg(arguments, const char *), "read");
	address = va_arg(arguments, u64);
	reason = va_arg(arguments, u32);
	base = va_arg(arguments, u64);
	va_end(arguments);
	/* The one that was read last. */
	if (record_read && record_unit->base == base && record_read->low == address && !record_read->counted &&
	    record_read->high == (F | (read ? 1ULL << 62 : 0) | (u64)reason << 32 | bus << 8 | slot << 3 | function)) {
		record_read->counted = true;
		return;
	}
	violation("a fault is counted that there is not: %02x:%02x.%u at %#llx", bus, slot, function, ll(address));
}

void stop_other_cpus(void)
{
}

void panic_stop(void)
{
	fail_msg("panic");
	abort();
}

void clear_memory(const char *why)
{
	(void)why;
	cleared = true;
}

void reset_machine(void)
{
	if (!may_end || !cleared)
		fail_msg("the machine is reset");
	longjmp(end, 1);
}

/* ---- Set-up ---- */

/* Entries that lead to all memory: what a unit may find where it should not look. */
static void fill_with_traps(u64 frame)
{
	for (u64 i = 0; i < 512; i++)
		put_word(frame * PAGE_SIZE + i * 8, below(FRAMES) << PAGE_SHIFT | 3);
}

static void firmware_tables(const struct unit *u)
{
	unsigned levels = u->levels;
	u64 root = FIRMWARE_FRAME(u) * PAGE_SIZE, context = root + PAGE_SIZE, table = context + PAGE_SIZE;

	for (u64 i = 0; i < 512; i += 2) {
		put_word(root + i * 8, context | 1);
		put_word(root + i * 8 + 8, 0);
		put_word(context + i * 8, (table + (5 - levels) * PAGE_SIZE) | 1);
		put_word(context + i * 8 + 8, 3 << 8 | (levels - 2));
	}
	for (unsigned level = 5; level > 1; level--, table += PAGE_SIZE)
		for (u64 i = 0; i < 512; i++)
			put_word(table + i * 8, level == 2 ? i << 21 | 0x83 : i ? 0 : (table + PAGE_SIZE) | 3);
}

/* The firmware has used the unit, and left it in any state. */
static void firmware_leaves(struct unit *u)
{
	u64 root = FIRMWARE_FRAME(u) * PAGE_SIZE;
	unsigned translation = (unsigned)below(4);

	firmware_tables(u);
	if (chance(30))
		return;
	u->rtaddr = u->root = root;
	u->gsts = TE | SRTP;
	u->has_root = true;
	for (unsigned i = 0; i < 200; i++)
		access_frame(u, chance(50) ? monitor.pool.base.value / PAGE_SIZE + below(64) : below(FRAMES),
			     chance(50));
	if (translation == 0) {
		u->gsts &= ~TE;
	} else if (translation == 1) {
		u->scalable = true;
		u->rtaddr |= 0x400;
	}
	if (chance(50)) {
		u64 queue = root + 8 * PAGE_SIZE;

		/* Waits whose status goes to the next page. */
		for (u64 i = 0; i < 256; i++) {
			put_word(queue + i * 16, 5 | 0x20);
			put_word(queue + i * 16 + 8, queue + PAGE_SIZE);
		}
		u->iqa = queue;
		u->iqh = below(256) * 16;
		u->iqt = chance(50) ? u->iqh : below(256) * 16;
		u->gsts |= QIE;
	} else if (chance(50)) {
		u->iqt = below(256) * 16;
	}
	if ((u->ecap & 8) && chance(50))
		u->gsts |= IRE;
	if ((u->cap >> 5 & 3) && chance(50))
		u->pmen = EPM | PRS;
	if (chance(50))
		u->fectl = 0;
	for (u64 i = below(12); i; i--)
		fault(u, device[0], below(FRAMES) * PAGE_SIZE, chance(50), NO_READ);
	if (!(u->gsts & QIE) && chance(30))
		u->fsts |= 0x70;
}

static void make_unit(struct unit *u, bool giant)
{
	static const u8 offsets[] = { 0x22, 0x40, 0xf0 };
	u8 *buffer = u->buffer;
	u32 offset = chance(25) ? 0x101 : offsets[below(ARRAY_SIZE(offsets))];
	static const u8 widths[] = { 2, 4, 6, 12, 14 }; /* SAGAW: 3 levels, 4, both, 4 and 5, all */
	u64 width = widths[below(ARRAY_SIZE(widths))];

	*u = (struct unit){ .base = REGISTERS + number(u) * REGISTER_PAGES * PAGE_SIZE, .buffer = buffer };
	u->ver = 0x10 + (u32)below(0x50);
	u->coherent = chance(40);
	u->buffered = chance(40);
	u->caching = chance(40);
	u->records = 1 + (unsigned)below(RECORDS);
	u->record_offset = offset * 16;
	u->cap = below(7) | (u->buffered ? 0x10 : 0) | (chance(50) ? 0x20 | below(2) << 6 : 0) |
		 (u->caching ? 0x80 : 0) | width << 8 | 47ULL << 16 | (u64)offset << 24 | 1ULL << 34 |
		 (u64)giant << 35 | (u64)(u->records - 1) << 40 | 3ULL << 54;
	u->ecap = u->coherent | 2 | below(2) << 3 | below(2) << 43;
	u->levels = width & 2 ? 3 : 4;
	u->fectl = 0x80000000U;
	u->memory = u->buffered ? u->buffer : u->coherent ? memory : written_back;
}

static void prepare(u64 seed)
{
	const struct boot_memory_range map[] = { { 0, 0xa0000, 7, 0 },
						 { 0x100000, MEMORY_SIZE - 0x100000, 7, 0 },
						 { 0x700000, 0x10000, 6, 0 } };
	u64 region, image, pages;
	bool giant;
	struct ept *view = &monitor.host_view;

	random_state = seed * 0x9e3779b97f4a7c15ULL + 1;
	for (unsigned i = 0; i < 8; i++)
		next_random();
	region = (1 + below(6)) * PAGE_SIZE_2M;
	image = below(64) * PAGE_SIZE;
	pages = 80 + below(200);
	giant = chance(50);
	sequence = seed;
	steps = idle = warnings = 0;
	last_flushed = 0;
	strict = flood = unsettled = may_end = cleared = window_open = devices_rest = false;
	kind = NONE;
	deferred_count = 0;
	memset(units, 0, sizeof(units));
	found = on = 0;
	additions_wait = false;
	iommu_lock = mm_lock = (struct spinlock){ 0 };
	memset(refusals, 0, sizeof(refusals));
	memset(&mm, 0, sizeof(mm));
	memset(donated, 0, sizeof(donated));
	boot = (struct boot_info){ .dma.held_back = true, .dma.text = "held back" };
	monitor = (struct monitor){ .boot = &boot };
	mtrr = (struct mtrr_state){ .capability = 1, .msr[MTRR_DEFAULT] = MTRR_ENABLE | MEMORY_TYPE_WB };
	page_marks_init(&monitor.marks, mark_table, map, ARRAY_SIZE(map), &mtrr, ADDRESS_BITS);
	page_marks_set(&monitor.marks, region / PAGE_SIZE, CHUNK, HYPERPS_FRAME_MONITOR);
	monitor.pool = (struct page_pool){ .linear = memory + region + image,
					   .base = HPA(region + image),
					   .size = pages * PAGE_SIZE,
					   .direct = memory,
					   .marks = &monitor.marks };
	count = 1 + (unsigned)below(UNITS);
	for (unsigned i = 0; i < count; i++) {
		make_unit(&model[i], giant);
		boot.dma.unit[i] = model[i].base | REGISTER_PAGES;
	}
	for (u64 frame = (region + image) / PAGE_SIZE; frame < (region + image) / PAGE_SIZE + pages; frame++)
		fill_with_traps(frame);
	assert_true(ept_init(view, &monitor.pool, 4 + (unsigned)below(2), giant ? 3 : 2));
	for (unsigned i = 0; i < count; i++)
		view->write_back |= !model[i].coherent;
	assert_true(ept_map(view, GPA(0), HPA(0), region, EPT_RWX, MEMORY_TYPE_WB));
	region += PAGE_SIZE_2M;
	assert_true(ept_map(view, GPA(region), HPA(region), PAGE_SIZE_1G - region, EPT_RWX, MEMORY_TYPE_WB));
	assert_true(ept_map(view, GPA(3 * PAGE_SIZE_1G), HPA(3 * PAGE_SIZE_1G), PAGE_SIZE_1G, EPT_RWX, 0));
	memory_init();
	monitor.other_cpus_taken = true;
	for (u64 frame = 0; frame < FRAMES; frame++) {
		had[frame] = settled[frame] = is_accessible(frame);
		left[frame] = -1;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(interesting); i++)
		interesting[i] = below(FRAMES);
	for (unsigned i = 0; i < count; i++)
		firmware_leaves(&model[i]);
}

/* What iommu_start() has left. */
static void check_started(void)
{
	for (struct unit *u = model; u < model + count; u++) {
		u64 frame = u->root / PAGE_SIZE;

		if (!(u->gsts & TE) || !(u->gsts & QIE) || (u->gsts & IRE) || u->pending || u->scalable)
			violation("unit %u: status %#x", number(u), u->gsts);
		if (!u->contexts_invalidated || !u->translations_invalidated)
			violation("unit %u may go on with another root's entries", number(u));
		if (frame >= FRAMES || page_mark_state(&monitor.marks, frame) != HYPERPS_FRAME_MONITOR)
			violation("unit %u: root table at %#llx", number(u), ll(u->root));
		if (!(u->fectl & 0x80000000U) || u->pmen || (u->fsts & FSTS_CLEARED & ~FSTS_PFO))
			violation("unit %u: fault event control %#x, protected memory %#x, fault status %#x", number(u),
				  u->fectl, u->pmen, u->fsts);
	}
	if (iommu_count() != count)
		violation("%u units of %u are on", iommu_count(), count);
}

static void start_units(void)
{
	iommu_init();
	kind = HIDE;
	for (unsigned i = 0; i < count; i++)
		assert_true(memory_hide(HPA(model[i].base), REGISTER_PAGES));
	kind = NONE;
	refused = 0;
	if (!iommu_start())
		violation("the units do not start");
	if (refused)
		violation("faults of the firmware's time are counted");
	check_started();
	strict = true;
	check_caches();
}

/* ---- Requests ---- */

static void end_request(s64 result)
{
	bool hangs = false;

	calls[kind][result >= 0]++;
	for (unsigned i = 0; i < deferred_count; i++)
		if (!is_accessible(deferred[i]))
			violation("a device reaches frame %#llx, which has not become shared", ll(deferred[i]));
	deferred_count = 0;
	note_departures();
	for (unsigned i = 0; i < count; i++)
		hangs |= model[i].hang != ANSWERS;
	if (hangs)
		unsettled = true;
	else if (mm.flushed != last_flushed)
		unsettled = false;
	kind = NONE;
	for (u64 frame = 0; frame < FRAMES; frame++) {
		had[frame] = is_accessible(frame);
		if (had[frame] && !unsettled)
			settled[frame] = true;
	}
	if (mm.flushed != last_flushed || chance(10))
		check_caches();
	last_flushed = mm.flushed;
	for (u64 i = below(24); i; i--)
		one_access();
}

static s64 memory_call(enum kind which, u64 call, u64 a, u64 b, u64 c, u64 d, u64 *value)
{
	const u64 arguments[] = { a, b, c, d };
	s64 result;

	kind = which;
	busy_vm = a & 0xffffffff;
	result = serve_memory_call(call, arguments, value);
	end_request(result);
	return result;
}

static s64 simple_call(enum kind which, u64 call, u64 handle, u64 *value)
{
	return memory_call(which, call, handle, 0, 0, 0, value);
}

static struct vm *pick_vm(u64 states)
{
	u64 first = below(HYPERPS_VMS);

	for (u64 i = 0; i < HYPERPS_VMS; i++) {
		struct vm *vm = &mm.vm[(first + i) % HYPERPS_VMS];

		if (states >> vm->state & 1)
			return vm;
	}
	return NULL;
}

static u64 handle_of(const struct vm *vm)
{
	return (u64)vm->generation << 32 | (u64)(vm - mm.vm);
}

static u64 pick_frame(u64 state, const struct vm *vm)
{
	u64 first = chance(50) ? interesting[below(ARRAY_SIZE(interesting))] : below(FRAMES);

	for (u64 i = 0; i < FRAMES; i++) {
		u64 frame = (first + i) % FRAMES;

		if (page_mark_state(&monitor.marks, frame) == state && (!vm || vm_of(frame) == (u64)(vm - mm.vm)))
			return frame;
	}
	return first;
}

static void do_map(const struct vm *vm, bool large)
{
	u64 frame = pick_frame(HYPERPS_FRAME_HOST, NULL), n = large ? CHUNK : 1 + below(12), value = 0;

	if (large)
		frame = ALIGN_DOWN(frame, CHUNK);
	busy_first = frame;
	busy_count = n;
	note_interesting(frame);
	note_interesting(frame + n - 1);
	for (unsigned i = 0; i < count; i++)
		access_frame(&model[i], frame, chance(50));
	memory_call(MAP, HYPERPS_CALL_VM_MAP, handle_of(vm), frame << PAGE_SHIFT, frame, n, &value);
}

static void do_guest(const struct vm *vm, enum kind which)
{
	u64 words[8] = { 0 }, frame = pick_frame(which == UNSHARE ? HYPERPS_FRAME_SHARED : HYPERPS_FRAME_PRIVATE, vm);
	u64 gpa = (monitor.marks.mark[frame] >> MARK_PAGE_SHIFT & MARK_PAGE) << PAGE_SHIFT, n = 1 + below(6);

	kind = which;
	busy_vm = (u64)(vm - mm.vm);
	vcpu.handle = handle_of(vm);
	note_interesting(frame);
	for (unsigned i = 0; i < count; i++)
		access_frame(&model[i], frame, chance(50));
	end_request(memory_request(&vcpu, (u64)HYPERPS_GUEST_SHARE + (which - SHARE), gpa, n, words));
}

static void do_destroy(const struct vm *vm)
{
	u64 value = 1, handle = handle_of(vm);

	for (unsigned i = 0; i < 50 && value; i++)
		if (simple_call(DESTROY, HYPERPS_CALL_VM_DESTROY, handle, &value))
			return;
	value = 1;
	for (unsigned i = 0; i < 50 && value && chance(95); i++)
		if (simple_call(RECLAIM, HYPERPS_CALL_VM_RECLAIM, handle, &value))
			return;
}

static void do_donate(void)
{
	u64 frame = ALIGN_DOWN(pick_frame(HYPERPS_FRAME_HOST, NULL), CHUNK), value;

	if (!page_marks_are(&monitor.marks, frame, CHUNK, HYPERPS_FRAME_HOST))
		return;
	busy_first = frame;
	busy_count = CHUNK;
	for (u64 i = frame; i < frame + CHUNK; i++)
		fill_with_traps(i);
	donated[frame / CHUNK] = true;
	note_interesting(frame + below(CHUNK));
	if (memory_call(DONATE, HYPERPS_CALL_POOL_DONATE, frame, 0, 0, 0, &value) < 0)
		donated[frame / CHUNK] = false;
}

static void do_create(void)
{
	u64 handle, value;

	if (simple_call(CREATE, HYPERPS_CALL_VM_CREATE, 0, &handle))
		return;
	memory_call(NONE, HYPERPS_CALL_VM_DECLARE, handle, EPT_RWX, FRAMES, 0, &value);
	for (u64 i = 1 + below(3); i; i--)
		do_map(&mm.vm[handle & 0xffffffff], false);
	simple_call(SYNC, HYPERPS_CALL_VM_SYNC, handle, &value);
	value = 1;
	for (unsigned i = 0; i < 20 && value && chance(90); i++)
		if (simple_call(SEAL, HYPERPS_CALL_VM_SEAL, handle, &value))
			return;
}

static void step(void)
{
	struct vm *live = pick_vm(BIT(HYPERPS_VM_OPEN) | BIT(HYPERPS_VM_SEALED)),
		  *sealed = pick_vm(BIT(HYPERPS_VM_SEALED));
	struct vm *any = pick_vm(BIT(HYPERPS_VM_OPEN) | BIT(HYPERPS_VM_SEALING) | BIT(HYPERPS_VM_SEALED) |
				 BIT(HYPERPS_VM_DYING) | BIT(HYPERPS_VM_DEAD));
	u64 dice = below(100), value;

	if (!sealed || dice < 5) {
		if (any && chance(30))
			do_destroy(any);
		do_create();
	} else if (dice < 25) {
		do_map(live, chance(15));
	} else if (dice < 40) {
		simple_call(SYNC, HYPERPS_CALL_VM_SYNC, handle_of(live), &value);
	} else if (dice < 58) {
		do_guest(sealed, SHARE);
	} else if (dice < 70) {
		do_guest(sealed, UNSHARE);
	} else if (dice < 80) {
		do_guest(sealed, RELEASE);
	} else if (dice < 90) {
		simple_call(RECLAIM, HYPERPS_CALL_VM_RECLAIM, handle_of(sealed), &value);
	} else if (dice < 92) {
		do_donate();
	} else if (dice < 95) {
		do_destroy(any);
	} else {
		memory_flush();
		end_request(0);
	}
}

static void hang(struct unit *u)
{
	u64 flushed;

	u->hang = (enum hang)(FETCHES_NOTHING + below(u->buffered ? 3 : 2));
	note_departures();
	flushed = mm.flushed;
	for (u64 i = 1 + below(3); i; i--) {
		if (chance(50))
			do_map(pick_vm(BIT(HYPERPS_VM_SEALED)) ?: &mm.vm[0], false);
		if (memory_flush() || iommu_flush())
			violation("unit %u does not answer (%d), and the flush is done", number(u), u->hang);
		step();
	}
	if (mm.flushed != flushed)
		violation("unit %u does not answer (%d), and the epoch counts", number(u), u->hang);
	u->hang = ANSWERS;
	u->stuck = false;
	if (u->pending)
		finish_command(u);
	for (unsigned i = 0; i < 3 && !iommu_flush(); i++)
		if (i == 2)
			violation("unit %u answers again, and no flush succeeds", number(u));
	unsettled = true;
	memory_flush();
	end_request(0);
}

static unsigned long from_environment(const char *name, unsigned long otherwise)
{
	const char *value = getenv(name);

	return value ? strtoul(value, NULL, 0) : otherwise;
}

static void random_sequences(void **state)
{
	u64 first = from_environment("HYPERPS_IOMMU_FIRST", 100);
	u64 last = first + from_environment("HYPERPS_IOMMU_SEEDS", SEQUENCES);

	(void)state;
	memset(calls, 0, sizeof(calls));
	for (u64 seed = first; seed < last; seed++) {
		prepare(seed);
		start_units();
		for (; steps < STEPS; steps++) {
			step();
			if (steps == 40)
				hang(&model[below(count)]);
		}
	}
	for (unsigned i = CREATE; i < HIDE; i++) {
		print_message("call %u: %llu done, %llu refused\n", i, ll(calls[i][1]), ll(calls[i][0]));
		if (last - first >= SEQUENCES)
			assert_true(calls[i][1]);
	}
	print_message("%llu requests of devices, %llu faults, %llu under way\n", ll(accesses), ll(faults), ll(landed));
}

/* What a unit knows of a page table whose place a large page takes must not keep it from what is the host's again. */
static void reaches_what_comes_back(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 30; seed++) {
		u64 chunk, handle, value, gpa;

		prepare(seed);
		start_units();
		do
			chunk = below(FRAMES / CHUNK) * CHUNK;
		while (!page_marks_are(&monitor.marks, chunk, CHUNK, HYPERPS_FRAME_HOST));
		gpa = chunk << PAGE_SHIFT;
		assert_int_equal(simple_call(CREATE, HYPERPS_CALL_VM_CREATE, 0, &handle), HYPERPS_OK);
		memory_call(NONE, HYPERPS_CALL_VM_DECLARE, handle, EPT_RWX, FRAMES, 0, &value);
		for (busy_first = chunk, busy_count = CHUNK / 2; busy_first < chunk + CHUNK; busy_first += busy_count)
			memory_call(MAP, HYPERPS_CALL_VM_MAP, handle, gpa + (busy_first - chunk) * PAGE_SIZE,
				    busy_first, busy_count, &value);
		simple_call(SYNC, HYPERPS_CALL_VM_SYNC, handle, &value);
		simple_call(DESTROY, HYPERPS_CALL_VM_DESTROY, handle, &value);
		memory_flush();
		for (unsigned i = 0; i < count * 20; i++)
			access_frame(&model[i % count], chunk + below(CHUNK), chance(50));
		for (unsigned i = 0; i < 20 && !simple_call(RECLAIM, HYPERPS_CALL_VM_RECLAIM, handle, &value); i++)
			for (unsigned n = 0; n < count * 20; n++)
				access_frame(&model[n % count], chunk + below(CHUNK), chance(50));
		assert_true(settled[chunk] && settled[chunk + CHUNK - 1]);
	}
}

/* Unit by unit, and what can be lost of it: the machine's run ends, after memory is cleared. */
static void ends_without_a_unit(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 60; i++) {
		struct unit *u;

		prepare(i + 1);
		u = &model[below(count)];
		start_units();
		for (unsigned n = (unsigned)below(3); n; n--)
			assert_true(iommu_flush());
		switch (i % 6) {
		case 0:
			u->gone = true;
			break;
		case 1:
			u->ver ^= 1U << below(8);
			break;
		case 2:
			u->gsts &= ~TE;
			break;
		case 3:
			u->gsts &= ~QIE;
			break;
		case 4:
			u->rtaddr ^= PAGE_SIZE;
			break;
		default:
			u->iqa ^= PAGE_SIZE;
		}
		may_end = true;
		if (!setjmp(end)) {
			iommu_flush();
			fail_msg("seed %u: a flush goes on without unit %u of %u", i + 1, number(u), count);
		}
		assert_true(cleared);
	}
}

/* A unit that does not do what it is told, at whatever step: all are off again, and status says so. */
static void starts_all_or_none(void **state)
{
	static const u32 ignored[] = { TE, SRTP, QIE, IRE, WBF };
	struct hyperps_status status;
	unsigned failed = 0;

	(void)state;
	for (unsigned i = 0; i < 40; i++) {
		struct unit *u;
		bool started, bad;
		u64 before;

		prepare(i + 1);
		u = &model[below(count)];
		if (i % 8 < ARRAY_SIZE(ignored))
			u->ignores = ignored[i % 8];
		else
			u->hang = (const enum hang[]){ FETCHES_NOTHING, FINISHES_NOTHING, IGNORES_PMEN }[i % 8 - 5];
		bad = u->hang == FETCHES_NOTHING || u->hang == FINISHES_NOTHING || (u->hang == IGNORES_PMEN && u->pmen);
		iommu_init();
		started = iommu_start();
		bad |= u->stuck;
		if (started == bad)
			fail_msg("seed %u: unit %u of %u, ignores %#x, hang %d: start says %d", i + 1, number(u), count,
				 u->ignores, u->hang, started);
		if (started)
			continue;
		iommu_stop();
		failed++;
		assert_true(warnings);
		for (unsigned n = 0; n < count; n++)
			if (!model[n].stuck &&
			    ((model[n].gsts & TE) || (model[n].pmen && model[n].hang != IGNORES_PMEN)))
				fail_msg("seed %u: unit %u of %u does not start, and %u is left on", i + 1, number(u),
					 count, n);
		before = register_accesses;
		assert_int_equal(iommu_count(), 0);
		assert_true(iommu_flush());
		iommu_add();
		memset(&status, 0xff, sizeof(status));
		status.flags = 0;
		iommu_describe(&status);
		assert_int_equal(register_accesses, before);
		assert_int_equal(status.flags & HYPERPS_FLAG_DMA_PROTECTED, 0);
		assert_int_equal(status.dma_units, 0);
		assert_memory_equal(status.dma, "DMA is not held back", 20);
	}
	assert_true(failed > 20);
}

static u64 records_of_all(void)
{
	u64 records = 0;

	for (unsigned i = 0; i < count; i++)
		records += model[i].records;
	return records;
}

/* Each record once, at most all of them in one call, however many there are to come. */
static void counts_faults(void **state)
{
	struct hyperps_status status = { 0 };

	(void)state;
	for (unsigned seed = 1; seed <= 20; seed++) {
		prepare(seed);
		start_units();
		assert_true(iommu_flush());
		for (unsigned i = 0; i < 300; i++) {
			struct unit *u = &model[below(count)];

			for (u64 n = below(RECORDS + 3); n; n--)
				fault(u, device[0], below(FRAMES) * PAGE_SIZE, chance(50), NO_READ);
			flood = chance(30);
			refused = 0;
			if (chance(50))
				assert_true(iommu_flush());
			else
				iommu_count_faults();
			assert_true(refused <= records_of_all());
			flood = false;
		}
		/* Nothing is left of an overflow: what comes next has a record. */
		iommu_count_faults();
		iommu_count_faults();
		iommu_describe(&status);
		for (unsigned i = 0; i < count; i++)
			assert_int_equal(model[i].fsts & FSTS_PFO, 0);
		assert_int_equal(status.refused_dma, refusals[REFUSED_DMA]);
		assert_int_equal(status.dma_units, count);
		assert_true(status.flags & HYPERPS_FLAG_DMA_PROTECTED);
		assert_string_equal(status.dma, "held back");
	}
}

/*
 * What a flush costs on a machine is mostly its accesses to registers, which no cache holds: version, status, root table, queue,
 * head, tail, fault status; with a write buffer status, command and status besides. `make bench` takes the figures from here.
 */
static void flushes_in_few_accesses(void **state)
{
	static const char *const names[UNITS + 1] = { [1] = "one", [4] = "four" };
	bool seen[UNITS + 1] = { false };

	(void)state;
	for (unsigned seed = 1; seed <= 2000 && !(seen[1] && seen[UNITS]); seed++) {
		u64 expected = 0, buffers = 0;

		prepare(seed);
		start_units();
		devices_rest = true;
		/* Of those that went before: faults, an overflow. */
		for (unsigned i = 0; i < 3; i++)
			iommu_count_faults();
		for (unsigned i = 0; i < count; i++) {
			expected += model[i].buffered ? 10 : 7;
			buffers += model[i].buffered;
		}
		register_accesses = 0;
		assert_true(iommu_flush());
		assert_int_equal(register_accesses, expected);
		if (!buffers && !seen[count] && names[count])
			print_message("bench dma.flush.%s.register_accesses %llu\n", names[count],
				      ll(register_accesses));
		seen[count] |= !buffers;
	}
	assert_true(seen[1] && seen[UNITS]);
}

static int setup(void **state)
{
	(void)state;
	memory = aligned_alloc(PAGE_SIZE_2M, MEMORY_SIZE);
	written_back = aligned_alloc(PAGE_SIZE_2M, MEMORY_SIZE);
	memset(memory, 0x5a, MEMORY_SIZE);
	memset(written_back, 0x5a, MEMORY_SIZE);
	for (unsigned i = 0; i < UNITS; i++) {
		model[i].buffer = aligned_alloc(PAGE_SIZE_2M, MEMORY_SIZE);
		memset(model[i].buffer, 0x5a, MEMORY_SIZE);
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(memory);
	free(written_back);
	for (unsigned i = 0; i < UNITS; i++)
		free(model[i].buffer);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reaches_what_comes_back), cmocka_unit_test(ends_without_a_unit),
		cmocka_unit_test(starts_all_or_none),      cmocka_unit_test(counts_faults),
		cmocka_unit_test(flushes_in_few_accesses), cmocka_unit_test(random_sequences),
	};

	cmocka_set_test_filter(getenv("HYPERPS_IOMMU_TEST"));
	return cmocka_run_group_tests_name("iommu", tests, setup, teardown);
}
