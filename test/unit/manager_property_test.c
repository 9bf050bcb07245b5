// SPDX-License-Identifier: MIT
/*
 * mm/manager.c against an executable specification, written from manager.h alone, and against a model of what CPUs
 * cache: random and hostile requests; after each one every invariant that the interface and docs promise is looked at.
 *
 * The CPUs of the model cache translations and, separately, paging-structure entries (pointers to tables). A later
 * access may use either, so that a frame or a table page that changes its owner too early is caught, whatever the
 * manager believes. They also access memory from within mm_zero_frame(), that is, in the middle of a request.
 *
 * They also run VMs of the host's (L2) on EPT02s (mm/shadow.h), which are filled with whatever an L1 may name, and cache what
 * they walk there until their own INVEPT.
 *
 * And there are KVM VMs, which only this test makes: killed while vCPUs run, buried, their frames orphaned, returned, or
 * another's; the host reads zeros at some of their frames, and its CPUs keep that, too, as long as they may.
 *
 * HYPERPS_MANAGER_SEEDS=n runs n sequences instead of the default, HYPERPS_MANAGER_FIRST=n starts with seed n.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "host_view.h"
#include "manager.h"
#include "memory_type.h"

#define FRAMES 8192ULL
#define MEMORY_SIZE (FRAMES * PAGE_SIZE)
#define CHUNK 512ULL /* frames of a 2 MiB page */
#define CHUNKS (FRAMES / CHUNK)
#define CPUS 4
#define CACHE 48 /* entries of a CPU */
#define ROUNDS 3 /* flushes of all CPUs that may overlap */
#define HISTORY 1024 /* handles that a sequence has seen */
#define HOST_VIEW HYPERPS_VMS /* as a number of a view; the others are VM slots */
#define ENTRIES 512
#define TABLE_LEVELS 5
#define KVM_POOL (7 * CHUNK) /* first frame of the pages that EPT02s have for tables: a chunk of the monitor's */
#define KVM_SHARE (CHUNK * 3 / 4 / CPUS)
#define KVM_PAGES (KVM_POOL + CHUNK * 3 / 4) /* first frame of the pool that KVM VMs have */
#define MONITOR_POOL 1 /* frame.in_pool */
#define KVM_VMS_POOL 2
#define RETURNED 64ULL /* frames that mm_return_end() looks at */
/* Chunks of devices that no mark is for: in one a page is read-only and one hidden, the other is uncacheable. */
#define ODD_CHUNK (FRAMES + 5 * CHUNK)
#define READ_ONLY_PAGE (ODD_CHUNK + 7)
#define HIDDEN_PAGE (ODD_CHUNK + 9)
#define UC_CHUNK (FRAMES + 6 * CHUNK)
#define EPTPS 6 /* EPT12s that a CPU uses: more than it has roots */

#define SEQUENCES 300
#define STEPS 400
#define PROFILES 9

enum mutation {
	FAITHFUL = 0,
	CLAIM_FLUSH, /* mm->flushed moves, no CPU has flushed */
	CLAIM_LAST_CPU, /* ... the last CPU has not flushed */
	CLAIM_LATER_EPOCH, /* ... to the epoch at the flush's end instead of the one at its beginning */
	KEEP_CONTENT, /* mm_zero_frame() does nothing */
	NO_INVEPT, /* a CPU's INVEPT for its EPT02s does nothing */
};

enum kind {
	CREATE,
	MAP,
	SYNC,
	SEAL,
	DESTROY,
	RECLAIM,
	DONATE,
	QUERY,
	DECLARE,
	SHARE,
	UNSHARE,
	RELEASE,
	ENTER,
	LOOK_UP,
	CREATE_KVM,
	BURY,
	KILL, /* from here on none is refused */
	ABANDON,
	RETURN_BEGIN,
	RETURN_END,
	ZEROS,
	KINDS
};

static const char *const kind_name[KINDS] = { "create", "map",           "sync",          "seal",  "destroy", "reclaim",
					      "donate", "query",         "declare",       "share", "unshare", "release",
					      "enter",  "look up",       "create KVM VM", "bury",  "kill",    "orphan",
					      "return", "end of return", "zeros" };

static const char *const state_name[HYPERPS_FRAME_STATES] = { "DEVICE", "HOST",    "MONITOR",    "PRIVATE", "SHARED",
							      "TO_VM",  "TO_HOST", "TO_MONITOR", "ORPHAN" };

/* What is under test. */
static u8 *memory; /* of the fake machine; host-physical address 0 is its first byte */
static struct page_marks marks;
static struct page_pool pool, kvm_pool;
static struct ept host_view;
static struct mtrr_state mtrr;
static unsigned address_bits;
static struct mm mm;
static u64 mark_table[FRAMES];

/* What the specification knows. */
static struct frame {
	u8 state;
	u8 permissions; /* PRIVATE and TO_VM */
	u8 type; /* memory type */
	u8 in_pool; /* which pool's page it is, or is on its way into; 0: none */
	bool zeros; /* the host reads zeros there */
	bool unshared; /* TO_VM: the VM had it before, as SHARED */
	bool own_table; /* of the monitor's own page tables */
	u16 vm; /* PRIVATE, TO_VM and TO_HOST; MARK_NOBODY: TO_HOST, and was ORPHAN */
	u64 gpa;
	u64 epoch; /* in which it entered its quarantine */
	u64 stamp; /* content, at three places in the frame */
	u64 old_root, old_gpa; /* where CPUs may still have it from before it was ORPHAN; root 0: nowhere */
	u64 named; /* number of drops, and 1, when a leaf of an EPT02 last named it */
} frames[FRAMES];

static struct spec_vm {
	enum hyperps_vm_state state;
	bool kvm;
	bool reclaiming; /* mm_reclaim has begun: the view may be half taken down */
	u64 handle, root, epoch, base; /* base: gpa of frame 0 in the mappings that may become large */
	u64 count[HYPERPS_FRAME_STATES];
	u64 measured, measured_last; /* pages, and the gpa of the last one */
	unsigned running; /* vCPUs */
	unsigned idle; /* calls in a row that said "again" and did nothing */
	unsigned maps; /* runs added since nothing was pending */
	unsigned releases; /* since nothing was released */
	struct {
		u64 first, last, permissions; /* first and last page */
	} ranges[8];
	unsigned range_count;
} vms[HYPERPS_VMS];

static u64 count[HYPERPS_FRAME_STATES];
static u64 forbidden[CHUNKS]; /* frames that no host access may reach: PRIVATE, MONITOR */
static u64 shared[CHUNKS];
static u64 hidden[CHUNKS]; /* frames that are not in the host view */
static u8 chunk_type[CHUNKS]; /* memory type of all of it, or 0xff */
static bool dirty[CHUNKS]; /* a frame changed its state in the last request */
static u64 last_mark[FRAMES];
static u64 history[HISTORY];
static unsigned histories, donated; /* donated: 2 MiB pages */
static u64 spec_epoch, spec_flushed, free_pages, free_kvm_pages, zero_leaves;

/* Tables in use, as the last look at their view found them; valid if `pass` is that look's. */
static struct table_use {
	u64 pass;
	u64 base; /* address that its first entry maps */
	u16 view;
	u8 level;
} tables[FRAMES];
static u64 pass[HYPERPS_VMS + 1]; /* by view: number of the last look at it */
static struct {
	unsigned cpu;
	u64 gpa;
} l2_last; /* what an L2 has had just now */
static bool quiet; /* the last request was refused and no mark changed */

/* CPUs. */
struct cached {
	bool valid, table, writable;
	u8 level; /* of the leaf, or of the table pointed to */
	u64 tag, base, hpa; /* tag: root of the view; base: first address that it is good for */
	u64 eptp12; /* of an EPT02's: whose it was */
};

static struct cpu {
	struct cached entry[CACHE];
	int runs; /* VM slot, or -1: between mm_enter and mm_leave */
	struct shadow shadow;
	int l2; /* number of the root on which it runs an L2, or -1 */
	u64 l2_used[EPTPS + 1], l2_clock; /* when it last entered an L2 of an EPT12 */
	bool between; /* INVEPT is executed, shadow_restart() is not yet called */
} cpus[CPUS];

static struct round {
	bool open;
	bool flushed[CPUS];
	u64 epoch;
} rounds[ROUNDS];

/* The request under way. */
static struct {
	bool busy;
	enum kind kind;
	int vm; /* slot, or -1 */
	u64 handle, gpa, frame, count, permissions, tables, measured;
} now;

/* EPT02s. */
static u8 l2_owner[FRAMES]; /* of a root: 1 + CPU * SHADOW_ROOTS + its number */
static struct table_use l2_tables[CHUNK]; /* of kvm_pool; pass: of that CPU */
static u64 l2_pass[CPUS], l2_drops;
static bool l2_expect_drop; /* a frame that a leaf may name has left the host in this request */
static u64 l2_entries; /* in all roots before the request */
static u64 l2_calls[3], l2_stale, l2_kept, l2_resized, l2_large, l2_wrapped; /* how often */

static enum mutation mutation;
static char verdict[512], finding[600]; /* finding: the verdict and where it was */
static char trace[48][128];
static unsigned traces;
static u64 calls[KINDS][2]; /* refused, done */
static u64 zero_reads, stale_zeros, adopted, killed_running, from_dead; /* how often */
static u64 merged, stale_accesses, promotions, stale_tables, multiple, returned, half_sealed, kept_alive;

static u64 random_state;

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

/* The first finding is the verdict; the rest may follow from it. */
static __attribute__((format(printf, 1, 2))) void violation(const char *format, ...)
{
	va_list arguments;

	if (*verdict)
		return;
	va_start(arguments, format);
	vsnprintf(verdict, sizeof(verdict), format, arguments);
	va_end(arguments);
}

static __attribute__((format(printf, 1, 2))) void record(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(trace[traces++ % ARRAY_SIZE(trace)], sizeof(trace[0]), format, arguments);
	va_end(arguments);
}

static unsigned long long ll(u64 x)
{
	return x;
}

/* ---- Content of frames ---- */

static u64 *words(u64 frame)
{
	return (u64 *)(memory + frame * PAGE_SIZE);
}

static void write_stamp(u64 frame, u64 stamp)
{
	frames[frame].stamp = words(frame)[0] = words(frame)[255] = words(frame)[511] = stamp;
}

static bool is_zero(u64 frame)
{
	static const u8 zeros[PAGE_SIZE];

	return !memcmp(words(frame), zeros, PAGE_SIZE);
}

static void check_content(u64 frame)
{
	u64 stamp = frames[frame].stamp, *word = words(frame);

	if (frames[frame].state == HYPERPS_FRAME_MONITOR || frames[frame].in_pool)
		return;
	if (word[0] != stamp || word[255] != stamp || word[511] != stamp)
		violation("content of frame %#llx (%s) changed", ll(frame), state_name[frames[frame].state]);
}

/* ---- A walker that shares nothing with ept.c ---- */

static u64 span(unsigned level)
{
	return 1ULL << (12 + 9 * (level - 1));
}

static u64 root_of(const struct ept *view)
{
	return (u64)((u8 *)view->root - memory);
}

/* The next entry from i on that is not 0. Most are; the sanitizers' look at each would take half of the test's time. */
static __attribute__((no_sanitize("address", "undefined"))) unsigned next_entry(const u64 *table, unsigned i)
{
	while (i < ENTRIES && !table[i])
		i++;
	return i;
}

/* Whether a view's root is an EPT02's. */
static bool is_l2(u64 tag)
{
	return tag / PAGE_SIZE < FRAMES && l2_owner[tag / PAGE_SIZE];
}

static unsigned l2_cpu(u64 tag)
{
	return (l2_owner[tag / PAGE_SIZE] - 1U) / SHADOW_ROOTS;
}

static u64 l2_eptp12(u64 tag)
{
	return is_l2(tag) ? cpus[l2_cpu(tag)].shadow.eptp12[(l2_owner[tag / PAGE_SIZE] - 1U) % SHADOW_ROOTS] : 0;
}

/* Whether a table may be one of the view with that root. */
static bool may_be_table(u64 tag, u64 table)
{
	u64 share;

	if (table % PAGE_SIZE || table >= MEMORY_SIZE)
		return false;
	if (!is_l2(tag) || table == tag)
		return true;
	share = KVM_POOL + l2_cpu(tag) * KVM_SHARE;
	return table / PAGE_SIZE >= share && table / PAGE_SIZE < share + cpus[l2_cpu(tag)].shadow.count;
}

static void cache(struct cpu *cpu, struct cached entry)
{
	unsigned slot = (unsigned)below(CACHE);

	entry.eptp12 = l2_eptp12(entry.tag);
	for (unsigned i = 0; i < CACHE && entry.eptp12 && !entry.table; i++) {
		const struct cached *old = &cpu->entry[i];

		if (old->valid && !old->table && old->tag == entry.tag && old->level != entry.level &&
		    ALIGN_DOWN(old->base, PAGE_SIZE_2M) == ALIGN_DOWN(entry.base, PAGE_SIZE_2M))
			violation("N2: a CPU caches pages of two sizes for %#llx of an L2", ll(entry.base));
	}
	for (unsigned i = 0; i < CACHE; i++) {
		struct cached *old = &cpu->entry[i];

		if (!old->valid)
			slot = i;
		else if (old->eptp12 == entry.eptp12 && old->table == entry.table && old->level == entry.level &&
			 old->tag == entry.tag && old->base == entry.base && old->hpa == entry.hpa &&
			 old->writable == entry.writable)
			return;
	}
	entry.valid = true;
	cpu->entry[slot] = entry;
}

/*
 * Walks from a table of `level`; returns whether a leaf maps the address, in *leaf. A CPU, if given, caches what it
 * passes.
 */
static bool walk(u64 table, unsigned level, u64 tag, u64 address, struct cpu *cpu, struct cached *leaf)
{
	for (;; level--) {
		u64 entry;

		if (!may_be_table(tag, table)) {
			violation("%s: a table at %#llx, outside the pool", is_l2(tag) ? "N2" : "I2", ll(table));
			return false;
		}
		entry = words(table / PAGE_SIZE)[address >> (12 + 9 * (level - 1)) & 511];
		if (!(entry & EPT_RWX))
			return false;
		if (level == 1 || (entry & EPT_LARGE)) {
			*leaf = (struct cached){ .valid = true,
						 .writable = entry & EPT_WRITE,
						 .level = (u8)level,
						 .tag = tag,
						 .base = ALIGN_DOWN(address, span(level)),
						 .hpa = entry & EPT_ADDRESS };
			if (cpu)
				cache(cpu, *leaf);
			return true;
		}
		table = entry & EPT_ADDRESS;
		if (cpu)
			cache(cpu, (struct cached){ .table = true,
						    .level = (u8)(level - 1),
						    .tag = tag,
						    .base = ALIGN_DOWN(address, span(level)),
						    .hpa = table });
	}
}

static u64 leaf_frame(const struct cached *leaf, u64 address)
{
	return (leaf->hpa + (address - leaf->base)) / PAGE_SIZE;
}

/* ---- What a cached translation may reach ---- */

/* Whether a guest translation of gpa to the frame may exist in a CPU, for the view with that root. */
static bool guest_may_hold(u64 tag, u64 gpa, u64 frame)
{
	const struct frame *f = &frames[frame];

	if (frame < FRAMES && f->old_root == tag && f->old_gpa == gpa &&
	    (f->state == HYPERPS_FRAME_ORPHAN || f->state == HYPERPS_FRAME_TO_HOST || f->state == HYPERPS_FRAME_TO_VM))
		return true;
	return frame < FRAMES && f->vm < HYPERPS_VMS &&
	       (f->state == HYPERPS_FRAME_PRIVATE || f->state == HYPERPS_FRAME_SHARED ||
		f->state == HYPERPS_FRAME_TO_HOST || (f->state == HYPERPS_FRAME_TO_VM && f->unshared)) &&
	       vms[f->vm].root == tag && f->gpa == gpa;
}

/* A leaf of the host view by which a frame reads as zeros. */
static bool is_zero_leaf(const struct cached *leaf)
{
	return leaf->tag == root_of(&host_view) && leaf->hpa != leaf->base;
}

static void check_zero_leaf(unsigned cpu, const struct cached *leaf)
{
	u64 frame = leaf->base / PAGE_SIZE;
	u8 state = frame < FRAMES ? frames[frame].state : HYPERPS_FRAME_DEVICE;

	if (leaf->hpa != mm.zeros * PAGE_SIZE || leaf->level != 1 || leaf->writable)
		violation("host view: CPU %u has %#llx at %#llx", cpu, ll(leaf->hpa), ll(leaf->base));
	else if (state != HYPERPS_FRAME_PRIVATE && state != HYPERPS_FRAME_TO_VM && state != HYPERPS_FRAME_ORPHAN &&
		 state != HYPERPS_FRAME_TO_HOST)
		violation("P4: CPU %u reads zeros at frame %#llx (%s)", cpu, ll(frame), state_name[state]);
}

static void check_held(unsigned cpu, const struct cached *entry, bool only_dirty)
{
	u64 host_root = root_of(&host_view), first = entry->hpa / PAGE_SIZE, n = span(entry->level) / PAGE_SIZE;

	if (is_zero_leaf(entry)) {
		check_zero_leaf(cpu, entry);
		return;
	}
	for (u64 frame = first; frame < first + n && frame < FRAMES; frame++) {
		u64 chunk = frame / CHUNK;

		if (only_dirty && !dirty[chunk]) {
			frame = chunk * CHUNK + CHUNK - 1;
			continue;
		}
		if (is_l2(entry->tag)) {
			u8 state = frames[frame].state;

			if (!forbidden[chunk] && !shared[chunk])
				frame = chunk * CHUNK + CHUNK - 1;
			else if (state == HYPERPS_FRAME_PRIVATE || state == HYPERPS_FRAME_MONITOR ||
				 state == HYPERPS_FRAME_SHARED)
				violation("N2: CPU %u still reaches frame %#llx (%s) through an EPT02", cpu, ll(frame),
					  state_name[state]);
		} else if (entry->tag == host_root) {
			u8 state = frames[frame].state;

			if (!forbidden[chunk])
				frame = chunk * CHUNK + CHUNK - 1;
			else if (state == HYPERPS_FRAME_PRIVATE)
				violation("I1: CPU %u still reaches PRIVATE frame %#llx through the host", cpu,
					  ll(frame));
			else if (state == HYPERPS_FRAME_MONITOR)
				violation("I2: CPU %u still reaches MONITOR frame %#llx through the host", cpu,
					  ll(frame));
		} else if (!guest_may_hold(entry->tag, entry->base + (frame - first) * PAGE_SIZE, frame)) {
			violation("I4: CPU %u holds a guest translation of %#llx to frame %#llx (%s)", cpu,
				  ll(entry->base + (frame - first) * PAGE_SIZE), ll(frame),
				  state_name[frames[frame].state]);
		}
	}
	if (entry->tag != host_root && !is_l2(entry->tag) && first + n > FRAMES)
		violation("I1: CPU %u holds a guest translation past the end of memory", cpu);
}

static u64 view_root(unsigned view)
{
	return view == HOST_VIEW ? root_of(&host_view) : vms[view].root;
}

static bool is_table(u64 frame)
{
	return tables[frame].pass && tables[frame].pass == pass[tables[frame].view];
}

static bool is_table_in_use(u64 tag, u64 hpa, unsigned level, u64 base)
{
	const struct table_use *use = &tables[hpa / PAGE_SIZE];

	return is_table(hpa / PAGE_SIZE) && view_root(use->view) == tag && use->level == level && use->base == base;
}

/*
 * The same in an EPT02. A table that is out of use stays as it is until the CPU's INVEPT: what it leads to may be in
 * quarantine, and neither it nor those below have become other tables.
 */
static void check_l2_table(unsigned cpu, u64 tag, u64 hpa, unsigned level, u64 base)
{
	const struct table_use *use;
	const u64 *table;

	if (!may_be_table(tag, hpa) || hpa == tag || l2_cpu(tag) != cpu) {
		violation("N2: CPU %u uses %#llx as a level-%u table of an EPT02", cpu, ll(hpa), level);
		return;
	}
	use = &l2_tables[hpa / PAGE_SIZE - KVM_POOL];
	table = words(hpa / PAGE_SIZE);
	if (use->pass == l2_pass[cpu] &&
	    (use->view != l2_owner[tag / PAGE_SIZE] || use->level != level || use->base != base))
		violation("N2: CPU %u uses a table of an EPT02, handed out anew, as the one for %#llx", cpu, ll(base));
	if (use->pass == l2_pass[cpu])
		return; /* check_shadow() has seen it */
	for (unsigned i = next_entry(table, 0); i < ENTRIES && !*verdict; i = next_entry(table, i + 1)) {
		u64 entry = table[i], address = base + i * span(level);
		struct cached leaf = { .level = (u8)level, .tag = tag, .base = address, .hpa = entry & EPT_ADDRESS };

		if ((entry & EPT_RWX) && (level == 1 || (entry & EPT_LARGE)))
			check_held(cpu, &leaf, false);
		else if (entry & EPT_RWX)
			check_l2_table(cpu, tag, entry & EPT_ADDRESS, level - 1, address);
	}
}

/* What a CPU can reach from a table pointer that it has cached and that is not in the view any more. */
static void check_stale_table(unsigned cpu, u64 tag, u64 hpa, unsigned level, u64 base)
{
	u64 frame = hpa / PAGE_SIZE;
	struct cached leaf;

	if (is_l2(tag)) {
		check_l2_table(cpu, tag, hpa, level, base);
		return;
	}
	if (hpa % PAGE_SIZE || frame >= FRAMES) {
		violation("I2: CPU %u holds a pointer to a table at %#llx", cpu, ll(hpa));
		return;
	}
	if (is_table_in_use(tag, hpa, level, base))
		return;
	if (frames[frame].state != HYPERPS_FRAME_TO_MONITOR) {
		violation("I2: CPU %u uses frame %#llx (%s) as a level-%u table for %#llx, out of use too early", cpu,
			  ll(frame), state_name[frames[frame].state], level, ll(base));
		return;
	}
	stale_tables++;
	for (unsigned i = 0; i < ENTRIES && !*verdict; i++) {
		u64 entry = words(frame)[i], address = base + i * span(level);

		if (!(entry & EPT_RWX))
			continue;
		leaf = (struct cached){ .level = (u8)level, .tag = tag, .base = address, .hpa = entry & EPT_ADDRESS };
		if (level == 1 || (entry & EPT_LARGE))
			check_held(cpu, &leaf, false);
		else
			check_stale_table(cpu, tag, entry & EPT_ADDRESS, level - 1, address);
	}
}

static void check_caches(void)
{
	for (unsigned c = 0; c < CPUS; c++) {
		for (unsigned i = 0; i < CACHE && !*verdict; i++) {
			const struct cached *entry = &cpus[c].entry[i];

			if (!entry->valid)
				continue;
			if (entry->table)
				check_stale_table(c, entry->tag, entry->hpa, entry->level, entry->base);
			else
				check_held(c, entry, true);
		}
	}
}

/* ---- Accesses ---- */

static bool covers(const struct cached *entry, u64 tag, u64 address)
{
	u64 bytes = entry->table ? span(entry->level + 1U) : span(entry->level);

	return entry->valid && entry->tag == tag && address >= entry->base && address - entry->base < bytes;
}

/* How the CPU translates an address now: by any cached translation, from any cached table, or from the root. */
static bool translate(struct cpu *cpu, u64 tag, unsigned levels, u64 address, struct cached *leaf, bool *cached)
{
	unsigned start = (unsigned)below(CACHE);

	*cached = true;
	for (unsigned i = 0; i < CACHE && chance(97); i++) {
		struct cached *entry = &cpu->entry[(start + i) % CACHE];

		if (!covers(entry, tag, address))
			continue;
		if (entry->eptp12 != l2_eptp12(tag))
			violation("N5: a CPU has in an L2 what it has cached in another one");
		if (!entry->table) {
			*leaf = *entry;
			return true;
		}
		if (chance(50))
			return walk(entry->hpa, entry->level, tag, address, cpu, leaf);
	}
	*cached = false;
	return walk(tag, levels, tag, address, cpu, leaf);
}

static void touch_host(unsigned c, u64 address)
{
	struct cached leaf;
	bool cached;
	u64 frame;
	u8 state;

	if (!translate(&cpus[c], root_of(&host_view), host_view.levels, address, &leaf, &cached))
		return;
	frame = leaf_frame(&leaf, address);
	if (is_zero_leaf(&leaf)) {
		check_held(c, &leaf, false);
		zero_reads++;
		stale_zeros += address < MEMORY_SIZE && frames[address / PAGE_SIZE].state == HYPERPS_FRAME_TO_HOST;
		if (!is_zero(mm.zeros))
			violation("I2: the frame of zeros has content");
		return;
	}
	if (frame != address / PAGE_SIZE) {
		violation("host view: CPU %u gets frame %#llx at %#llx", c, ll(frame), ll(address));
		return;
	}
	check_held(c, &leaf, false);
	if (frame >= FRAMES || *verdict)
		return;
	state = frames[frame].state;
	if (state == HYPERPS_FRAME_TO_VM || state == HYPERPS_FRAME_TO_HOST || state == HYPERPS_FRAME_TO_MONITOR)
		stale_accesses++;
	if (state == HYPERPS_FRAME_TO_HOST && now.busy && !cached && !is_zero(frame))
		violation("I4: frame %#llx is back in the host view before it is zero", ll(frame));
	if (!now.busy && !cached && state != HYPERPS_FRAME_HOST && state != HYPERPS_FRAME_DEVICE &&
	    state != HYPERPS_FRAME_SHARED)
		violation("host view maps frame %#llx (%s)", ll(frame), state_name[state]);
	/* In the middle of a request a write would be the host's right, but it would hide what the request does. */
	if (!now.busy && leaf.writable && state != HYPERPS_FRAME_DEVICE && !*verdict)
		write_stamp(frame, next_random() | 1);
}

static void touch_l2(unsigned c, u64 gpa);

static u64 guest_stale; /* accesses of a guest to what it has just given away */

static void touch_guest(unsigned c, unsigned slot, u64 gpa)
{
	struct cached leaf;
	struct frame *f;
	bool cached;
	u64 frame;

	if (!translate(&cpus[c], vms[slot].root, mm.vm[slot].view.levels, gpa, &leaf, &cached))
		return;
	frame = leaf_frame(&leaf, gpa);
	f = &frames[frame];
	if (frame >= FRAMES) {
		violation("I1: VM %u gets frame %#llx at %#llx", slot, ll(frame), ll(gpa));
		return;
	}
	if (f->vm == slot && f->gpa == gpa && f->state == HYPERPS_FRAME_TO_VM && now.busy && now.kind == SYNC &&
	    now.vm == (int)slot) {
		if (vms[slot].state == HYPERPS_VM_SEALED && !is_zero(frame))
			violation("I5: VM %u, sealed, sees frame %#llx before it is zero", slot, ll(frame));
		return;
	}
	if (cached && guest_may_hold(vms[slot].root, gpa, frame) && f->state != HYPERPS_FRAME_PRIVATE &&
	    f->state != HYPERPS_FRAME_SHARED)
		guest_stale++;
	else if ((f->state != HYPERPS_FRAME_PRIVATE && f->state != HYPERPS_FRAME_SHARED) || f->vm != slot ||
		 f->gpa != gpa) {
		violation("I1: VM %u gets frame %#llx (%s) at %#llx", slot, ll(frame), state_name[f->state], ll(gpa));
		return;
	}
	if (!now.busy && leaf.writable)
		write_stamp(frame, next_random() | 1);
}

/* A frame of a VM's, or -1. */
static s64 frame_of(unsigned slot)
{
	u64 start = below(FRAMES);

	if (!vms[slot].count[HYPERPS_FRAME_PRIVATE] && !vms[slot].count[HYPERPS_FRAME_TO_VM] &&
	    !vms[slot].count[HYPERPS_FRAME_SHARED])
		return -1;
	for (u64 i = 0; i < FRAMES; i++) {
		const struct frame *f = &frames[(start + i) % FRAMES];

		if ((f->state == HYPERPS_FRAME_PRIVATE || f->state == HYPERPS_FRAME_TO_VM ||
		     f->state == HYPERPS_FRAME_SHARED) &&
		    f->vm == slot)
			return (s64)((start + i) % FRAMES);
	}
	return -1;
}

static void touch(void)
{
	unsigned c = (unsigned)below(CPUS);
	int slot = cpus[c].runs;

	if (cpus[c].l2 >= 0 && chance(50)) {
		touch_l2(c, below(4) * PAGE_SIZE_2M + below(4) * PAGE_SIZE);
	} else if (slot >= 0 && chance(50)) {
		s64 frame = frame_of((unsigned)slot);
		u64 gpa = frame >= 0 && chance(90) ? frames[frame].gpa : below(1ULL << (MM_VIEW_BITS - 12)) * PAGE_SIZE;

		touch_guest(c, (unsigned)slot, gpa);
	} else {
		u64 pages = chance(90) ? FRAMES : 1ULL << (address_bits - 12);

		touch_host(c, below(pages) * PAGE_SIZE);
	}
}

/* ---- Flushes ---- */

static void end_rounds(void)
{
	for (unsigned r = 0; r < ROUNDS; r++) {
		bool all = true;

		for (unsigned c = 0; c < CPUS; c++)
			all = all && rounds[r].flushed[c];
		if (!rounds[r].open || !all)
			continue;
		rounds[r].open = false;
		if (mutation == CLAIM_LATER_EPOCH)
			rounds[r].epoch = mm.epoch;
		if (rounds[r].epoch > mm.flushed)
			mm.flushed = spec_flushed = rounds[r].epoch;
		record("    every CPU has flushed since epoch %llu", ll(rounds[r].epoch));
	}
}

static void flush(unsigned c)
{
	if (mutation != CLAIM_FLUSH && (mutation != CLAIM_LAST_CPU || c != CPUS - 1))
		for (unsigned i = 0; i < CACHE; i++)
			cpus[c].entry[i].valid = false;
	for (unsigned r = 0; r < ROUNDS; r++)
		rounds[r].flushed[c] = true;
	record("    CPU %u flushes", c);
	end_rounds();
}

static void begin_round(void)
{
	for (unsigned r = 0; r < ROUNDS; r++) {
		if (rounds[r].open)
			continue;
		rounds[r] = (struct round){ .open = true, .epoch = ++mm.epoch };
		record("    epoch %llu begins", ll(rounds[r].epoch));
		if (rounds[r].epoch != ++spec_epoch || mm.epoch != spec_epoch)
			violation("epoch: %llu, not %llu", ll(rounds[r].epoch), ll(spec_epoch));
		return;
	}
}

static void flush_all(void)
{
	begin_round();
	for (unsigned c = 0; c < CPUS; c++)
		flush(c);
}

/* ---- mm_zero_frame(): it is called in the middle of a request, and other CPUs go on meanwhile ---- */

/* Whether a walk of the host's from a table, of what is in memory, leads to the frame. */
static bool host_reaches(u64 table, unsigned level, u64 frame)
{
	struct cached leaf;

	return walk(table, level, root_of(&host_view), frame * PAGE_SIZE, NULL, &leaf) && !is_zero_leaf(&leaf);
}

void mm_zero_frame(u64 frame)
{
	u64 address = frame * PAGE_SIZE, host_root = root_of(&host_view);
	const struct frame *f = &frames[frame];
	struct cached leaf;

	if (frame >= FRAMES || !now.busy) {
		violation("mm_zero_frame(%#llx)", ll(frame));
		return;
	}
	for (unsigned c = 0; c < CPUS; c++) {
		for (unsigned i = 0; i < CACHE; i++) {
			const struct cached *entry = &cpus[c].entry[i];
			u64 first = entry->hpa / PAGE_SIZE, n = span(entry->level) / PAGE_SIZE;

			if (!entry->valid)
				continue;
			if (!entry->table && frame >= first && frame - first < n)
				violation("I4: frame %#llx (%s) is zeroed while CPU %u holds a translation to it",
					  ll(frame), state_name[f->state], c);
			if (entry->table && covers(entry, host_root, address) &&
			    host_reaches(entry->hpa, entry->level, frame))
				violation("I4: frame %#llx (%s) is zeroed while CPU %u reaches it through the host",
					  ll(frame), state_name[f->state], c);
		}
	}
	if (host_reaches(host_root, host_view.levels, frame))
		violation("I4: frame %#llx (%s) is in the host view before it is zeroed", ll(frame),
			  state_name[f->state]);
	switch (f->state) {
	case HYPERPS_FRAME_TO_HOST:
		if (f->vm == MARK_NOBODY ? now.kind != RETURN_END : now.kind != RECLAIM || now.vm != f->vm)
			violation("%s zeroes frame %#llx (TO_HOST)", kind_name[now.kind], ll(frame));
		break;
	case HYPERPS_FRAME_TO_VM:
		if (now.kind != SYNC || now.vm != f->vm || vms[f->vm].state != HYPERPS_VM_SEALED)
			violation("%s zeroes frame %#llx (TO_VM)", kind_name[now.kind], ll(frame));
		else if (walk(vms[f->vm].root, mm.vm[f->vm].view.levels, 0, f->gpa, NULL, &leaf))
			violation("I4: frame %#llx is in the guest's view before it is zeroed", ll(frame));
		break;
	case HYPERPS_FRAME_TO_MONITOR:
		if (f->epoch >= spec_flushed)
			violation("I2: frame %#llx leaves TO_MONITOR before it is flushed", ll(frame));
		break;
	default:
		violation("%s zeroes frame %#llx (%s)", kind_name[now.kind], ll(frame), state_name[f->state]);
		return;
	}
	if (mutation != KEEP_CONTENT) {
		memset(words(frame), 0, PAGE_SIZE);
		frames[frame].stamp = 0;
	}
	if (below(16) == 0)
		touch();
	/* The neighbour: a request goes through frames in order. */
	if (below(16) == 0)
		touch_host((unsigned)below(CPUS), (frame ? frame - 1 : 0) * PAGE_SIZE);
}

/* The VM must begin with all of its pages, each once, as nobody else can change them any more. */
void mm_measure_page(u64 slot, u64 gpa, u64 frame)
{
	if (!now.busy || now.kind != SEAL || now.vm < 0 || slot != (u64)now.vm || frame >= FRAMES) {
		violation("mm_measure_page(%llu, %#llx, %#llx)", ll(slot), ll(gpa), ll(frame));
		return;
	}
	if (frames[frame].state != HYPERPS_FRAME_PRIVATE || frames[frame].vm != slot || frames[frame].gpa != gpa)
		violation("VM %llu is measured with frame %#llx (%s) at %#llx", ll(slot), ll(frame),
			  state_name[frames[frame].state], ll(gpa));
	if (host_reaches(root_of(&host_view), host_view.levels, frame))
		violation("I1: frame %#llx is measured while it is in the host view", ll(frame));
	if (vms[slot].measured++ && gpa <= vms[slot].measured_last)
		violation("VM %llu: %#llx is measured after %#llx", ll(slot), ll(gpa), ll(vms[slot].measured_last));
	vms[slot].measured_last = gpa;
	now.measured++;
	check_content(frame);
	if (below(16) == 0)
		touch();
}

/* ---- After a request ---- */

static void set_state(u64 frame, u8 state)
{
	struct frame *f = &frames[frame];
	u64 chunk = frame / CHUNK;

	for (int sign = -1; sign <= 1; sign += 2) {
		u64 one = (u64)(s64)sign;

		if (sign > 0)
			f->state = state;
		count[f->state] += one;
		if (f->state == HYPERPS_FRAME_PRIVATE || f->state == HYPERPS_FRAME_MONITOR)
			forbidden[chunk] += one;
		if (f->state == HYPERPS_FRAME_SHARED)
			shared[chunk] += one;
		else if (f->state != HYPERPS_FRAME_HOST && f->state != HYPERPS_FRAME_DEVICE)
			hidden[chunk] += one;
		if (f->vm < HYPERPS_VMS && (f->state == HYPERPS_FRAME_SHARED || f->state == HYPERPS_FRAME_PRIVATE ||
					    f->state == HYPERPS_FRAME_TO_VM || f->state == HYPERPS_FRAME_TO_HOST))
			vms[f->vm].count[f->state] += one;
	}
	dirty[chunk] = true;
}

/* Takes over one frame's new state if the request may have caused it. */
static bool take_over(u64 frame, u8 state, s64 result)
{
	struct frame *f = &frames[frame];
	bool in_range = frame >= now.frame && frame - now.frame < now.count, done = result >= 0;
	bool own = now.vm >= 0 && f->vm == (u16)now.vm;
	bool by_guest = own && f->gpa >= now.gpa && (f->gpa - now.gpa) / PAGE_SIZE < now.count;

	if (f->state == HYPERPS_FRAME_TO_MONITOR && state == HYPERPS_FRAME_MONITOR) {
		if (f->epoch >= spec_flushed)
			return false;
		promotions++;
	} else if (f->state == HYPERPS_FRAME_MONITOR && state == HYPERPS_FRAME_TO_MONITOR) {
		if ((!done && now.kind != CREATE_KVM) || !f->in_pool)
			return false;
		merged++;
	} else if ((f->state == HYPERPS_FRAME_HOST || f->state == HYPERPS_FRAME_ORPHAN) &&
		   state == HYPERPS_FRAME_TO_VM) {
		if (!done || now.kind != MAP || !in_range || now.vm < 0)
			return false;
		if (f->state == HYPERPS_FRAME_ORPHAN && (!vms[now.vm].kvm || vms[now.vm].state != HYPERPS_VM_SEALED))
			return false;
		adopted += f->state == HYPERPS_FRAME_ORPHAN;
		f->vm = (u16)now.vm;
		f->gpa = now.gpa + (frame - now.frame) * PAGE_SIZE;
		f->permissions = (u8)now.permissions;
		f->unshared = false;
	} else if (f->state == HYPERPS_FRAME_HOST && state == HYPERPS_FRAME_TO_MONITOR) {
		if (!done || now.kind != DONATE || !in_range)
			return false;
		f->in_pool = MONITOR_POOL;
	} else if (f->state == HYPERPS_FRAME_TO_VM && state == HYPERPS_FRAME_PRIVATE) {
		if (!done || now.kind != SYNC || !own)
			return false;
		if (f->epoch >= spec_flushed)
			violation("I3: frame %#llx became PRIVATE; it left the host in epoch %llu, flushed is %llu",
				  ll(frame), ll(f->epoch), ll(spec_flushed));
		if (vms[f->vm].state == HYPERPS_VM_SEALED && !is_zero(frame))
			violation("I4: frame %#llx came into sealed VM %u with content", ll(frame), f->vm);
		f->old_root = 0;
	} else if (f->state == HYPERPS_FRAME_PRIVATE && state == HYPERPS_FRAME_SHARED) {
		if (!done || now.kind != SHARE || !by_guest)
			return false;
	} else if (f->state == HYPERPS_FRAME_SHARED && state == HYPERPS_FRAME_TO_VM) {
		if (!done || now.kind != UNSHARE || !by_guest)
			return false;
		f->unshared = true;
	} else if (f->state == HYPERPS_FRAME_PRIVATE && state == HYPERPS_FRAME_TO_HOST && now.kind == RELEASE) {
		if (!done || !by_guest)
			return false;
	} else if (state == HYPERPS_FRAME_ORPHAN) {
		if (f->vm >= HYPERPS_VMS || !vms[f->vm].kvm || vms[f->vm].state != HYPERPS_VM_DYING ||
		    vms[f->vm].running ||
		    (f->state != HYPERPS_FRAME_PRIVATE && f->state != HYPERPS_FRAME_TO_VM &&
		     f->state != HYPERPS_FRAME_TO_HOST))
			return false;
		if (!own || (now.kind != BURY && (now.kind != ABANDON || frame / CHUNK != now.frame / CHUNK)))
			return false;
		if (f->state != HYPERPS_FRAME_TO_VM) {
			f->old_root = vms[f->vm].root;
			f->old_gpa = f->gpa;
		}
	} else if (f->state == HYPERPS_FRAME_ORPHAN && state == HYPERPS_FRAME_TO_HOST) {
		if (now.kind != RETURN_BEGIN || frame / CHUNK != now.frame / CHUNK)
			return false;
		f->vm = MARK_NOBODY;
	} else if (f->state == HYPERPS_FRAME_TO_HOST && f->vm == MARK_NOBODY && state == HYPERPS_FRAME_HOST) {
		if (now.kind != RETURN_END || frame / RETURNED != now.frame / RETURNED)
			return false;
		if (!is_zero(frame))
			violation("I4: frame %#llx came back to the host with content", ll(frame));
		if (f->epoch >= spec_flushed)
			violation("I3: frame %#llx came back to the host before the flush", ll(frame));
		f->old_root = 0;
	} else if ((f->state == HYPERPS_FRAME_TO_VM || f->state == HYPERPS_FRAME_PRIVATE ||
		    f->state == HYPERPS_FRAME_SHARED) &&
		   state == HYPERPS_FRAME_TO_HOST) {
		if (!done || now.kind != DESTROY || !own)
			return false;
	} else if (f->state == HYPERPS_FRAME_TO_HOST && state == HYPERPS_FRAME_HOST) {
		if (!done || now.kind != RECLAIM || !own)
			return false;
		if (!is_zero(frame))
			violation("I4: frame %#llx came back to the host with content", ll(frame));
		if (f->epoch >= spec_flushed)
			violation("I3: frame %#llx came back to the host before the flush", ll(frame));
	} else {
		return false;
	}
	if (state == HYPERPS_FRAME_TO_HOST) {
		zero_leaves -= f->zeros;
		f->zeros = false;
	}
	l2_expect_drop = l2_expect_drop || (f->state == HYPERPS_FRAME_HOST && f->named == l2_drops + 1);
	f->epoch = spec_epoch;
	set_state(frame, state);
	check_content(frame);
	return true;
}

/* Looks at all marks that changed; returns how many frames went through the request's own transition. */
static u64 observe_marks(s64 result)
{
	u64 changed = 0;

	memset(dirty, 0, sizeof(dirty));
	for (u64 chunk = 0; chunk < CHUNKS && !*verdict; chunk++) {
		u64 first = chunk * CHUNK;

		if (!memcmp(&last_mark[first], &mark_table[first], CHUNK * sizeof(u64)))
			continue;
		for (u64 frame = first; frame < first + CHUNK && !*verdict; frame++) {
			u64 mark = mark_table[frame], slot = mark >> MARK_VM_SHIFT & MARK_VM;
			u8 state = mark & MARK_STATE, old = frames[frame].state;
			const struct frame *f = &frames[frame];

			if (mark == last_mark[frame])
				continue;
			last_mark[frame] = mark;
			if (state != old && !take_over(frame, state, result)) {
				violation("%s, result %lld: frame %#llx went from %s to %s", kind_name[now.kind],
					  (long long)result, ll(frame), state_name[old],
					  state < HYPERPS_FRAME_STATES ? state_name[state] : "?");
				break;
			}
			changed += state != old && old != HYPERPS_FRAME_MONITOR && state != HYPERPS_FRAME_MONITOR;
			if ((state == HYPERPS_FRAME_PRIVATE || state == HYPERPS_FRAME_TO_VM ||
			     state == HYPERPS_FRAME_SHARED || state == HYPERPS_FRAME_TO_HOST) &&
			    slot != f->vm)
				violation("mark of frame %#llx (%s): VM %llu, not %u", ll(frame), state_name[state],
					  ll(slot), f->vm);
			if ((state == HYPERPS_FRAME_PRIVATE || state == HYPERPS_FRAME_TO_VM ||
			     state == HYPERPS_FRAME_SHARED) &&
			    (mark >> MARK_PAGE_SHIFT & MARK_PAGE) != f->gpa / PAGE_SIZE)
				violation("mark of frame %#llx (%s): page %#llx, not %#llx", ll(frame),
					  state_name[state], ll(mark >> MARK_PAGE_SHIFT & MARK_PAGE),
					  ll(f->gpa / PAGE_SIZE));
		}
	}
	return changed;
}

static unsigned pool_of(unsigned view)
{
	return view != HOST_VIEW && vms[view].kvm ? KVM_VMS_POOL : MONITOR_POOL;
}

static u64 leaves[4], mapped; /* of the view that is being looked at */

static void check_host_leaf(unsigned level, u64 gpa, u64 entry)
{
	u64 type = MEMORY_TYPE_WB, frame = gpa / PAGE_SIZE, hides = 0, permissions = EPT_RWX;

	if (level == 1 && frame < FRAMES && frames[frame].zeros) {
		if (entry != (mm.zeros * PAGE_SIZE | EPT_READ | MEMORY_TYPE_WB << EPT_MEMORY_TYPE_SHIFT))
			violation("host view: %#llx where frame %#llx reads as zeros", ll(entry), ll(frame));
		return;
	}
	if (gpa < MEMORY_SIZE) {
		type = level == 1 ? frames[frame].type : chunk_type[frame / CHUNK];
		if (level == 1)
			hides = frames[frame].state != HYPERPS_FRAME_HOST &&
				frames[frame].state != HYPERPS_FRAME_DEVICE &&
				frames[frame].state != HYPERPS_FRAME_SHARED;
		else
			hides = level == 2 ? hidden[frame / CHUNK] + shared[frame / CHUNK] : 1;
		if (frames[frame].state == HYPERPS_FRAME_SHARED)
			permissions = EPT_READ | EPT_WRITE;
	} else {
		permissions = frame == READ_ONLY_PAGE ? EPT_READ : EPT_RWX;
		type = frame / CHUNK == UC_CHUNK / CHUNK ? MEMORY_TYPE_UC : MEMORY_TYPE_WB;
		hides = frame == HIDDEN_PAGE;
	}
	if (hides && frame >= FRAMES)
		violation("host view maps the hidden page of a device");
	else if (hides && level == 1)
		violation("%s: host view maps frame %#llx (%s)",
			  frames[frame].state == HYPERPS_FRAME_PRIVATE ? "I1" : "I2", ll(frame),
			  state_name[frames[frame].state]);
	else if (hides)
		violation("I1/I2: host view maps %#llx by a level-%u page with %llu frames that are not the host's",
			  ll(gpa), level, ll(hides));
	if (entry != (gpa | permissions | type << EPT_MEMORY_TYPE_SHIFT | (level > 1 ? EPT_LARGE : 0)))
		violation("host view: level-%u entry of %#llx is %#llx", level, ll(gpa), ll(entry));
}

static void check_guest_leaf(unsigned slot, unsigned level, u64 gpa, u64 entry)
{
	u64 first = (entry & EPT_ADDRESS) / PAGE_SIZE, n = span(level) / PAGE_SIZE;
	const u64 ipat = BIT(6), attributes = entry & ~EPT_ADDRESS & ~EPT_RWX & ~ipat;

	if (first % n || first + n > FRAMES ||
	    attributes != (MEMORY_TYPE_WB << EPT_MEMORY_TYPE_SHIFT | (level > 1 ? EPT_LARGE : 0)))
		violation("VM %u: level-%u entry of %#llx is %#llx", slot, level, ll(gpa), ll(entry));
	for (u64 i = 0; i < n && !*verdict; i++) {
		const struct frame *f = &frames[first + i];

		if ((f->state != HYPERPS_FRAME_PRIVATE && f->state != HYPERPS_FRAME_SHARED) || f->vm != slot ||
		    f->gpa != gpa + i * PAGE_SIZE)
			violation("%s: VM %u maps frame %#llx (%s) at %#llx",
				  f->state == HYPERPS_FRAME_PRIVATE ? "I1" : "I3", slot, ll(first + i),
				  state_name[f->state], ll(gpa + i * PAGE_SIZE));
		else if (f->permissions != (entry & EPT_RWX))
			violation("VM %u: %#llx has permissions %llu, not %u", slot, ll(gpa), ll(entry & EPT_RWX),
				  f->permissions);
	}
}

/* An entry that the CPU ignores is 0, or that of a frame on its way to the VM, or from it. */
static void check_absent_entry(unsigned view, u64 gpa, u64 entry)
{
	u64 frame = (entry & EPT_ADDRESS) / PAGE_SIZE;
	const struct frame *f = &frames[frame];

	if (view == HOST_VIEW || frame >= FRAMES ||
	    (f->state != HYPERPS_FRAME_TO_VM && f->state != HYPERPS_FRAME_TO_HOST) || f->vm != view || f->gpa != gpa)
		violation("view %u: absent entry of %#llx is %#llx", view, ll(gpa), ll(entry));
}

/* dead: of a view that no CPU runs any more only the tables count. */
static void check_table(unsigned view, const struct ept *ept, bool dead, u64 hpa, unsigned level, u64 base)
{
	u64 frame = hpa / PAGE_SIZE;

	if (hpa % PAGE_SIZE || frame >= FRAMES || frames[frame].state != HYPERPS_FRAME_MONITOR ||
	    frames[frame].in_pool != pool_of(view)) {
		violation("I2: view %u has a level-%u table at %#llx, not a page of the pool (%s)", view, level,
			  ll(hpa), frame < FRAMES ? state_name[frames[frame].state] : "?");
		return;
	}
	if (is_table(frame)) {
		violation("I2: frame %#llx is a table in two places, of views %u and %u", ll(frame), tables[frame].view,
			  view);
		return;
	}
	tables[frame] = (struct table_use){ .pass = pass[view], .base = base, .view = (u16)view, .level = (u8)level };
	for (unsigned i = 0; i < ENTRIES && !*verdict; i++) {
		u64 entry = words(frame)[i], address = base + i * span(level);

		if (!(entry & EPT_RWX)) {
			if (entry && !dead)
				check_absent_entry(view, address, entry);
			continue;
		}
		if (level > 1 && !(entry & EPT_LARGE)) {
			if ((entry & ~EPT_ADDRESS) != EPT_RWX)
				violation("view %u: table entry %#llx at %#llx", view, ll(entry), ll(address));
			else
				check_table(view, ept, dead, entry & EPT_ADDRESS, level - 1, address);
		} else if (level > ept->largest_leaf) {
			violation("view %u: leaf of level %u at %#llx", view, level, ll(address));
		} else if (!dead) {
			leaves[level]++;
			mapped += span(level) / PAGE_SIZE;
			if (view == HOST_VIEW)
				check_host_leaf(level, address, entry);
			else
				check_guest_leaf(view, level, address, entry);
		}
	}
}

static void check_view(unsigned view, const struct ept *ept, bool dead)
{
	memset(leaves, 0, sizeof(leaves));
	mapped = 0;
	pass[view]++;
	if (root_of(ept) != view_root(view)) {
		violation("view %u has another root", view);
		return;
	}
	check_table(view, ept, dead, root_of(ept), ept->levels, 0);
}

/* reclaiming: some tables are not counted. */
static void check_pool(const struct page_pool *which, u64 *unused, bool reclaiming)
{
	u64 available = page_pool_available(which);

	if (!reclaiming && *unused != available)
		violation("pool: %llu pages are not in use, %llu available", ll(*unused), ll(available));
	if (reclaiming && available < *unused)
		*unused = available;
}

static void check_views(void)
{
	u64 hides = 1, reclaiming[2] = { 0 }; /* one is no RAM */

	for (unsigned chunk = 0; chunk < CHUNKS; chunk++)
		hides += hidden[chunk];
	check_view(HOST_VIEW, &host_view, false);
	if (mapped != (1ULL << (address_bits - 12)) - hides + zero_leaves)
		violation("host view lacks %lld frames of the host's",
			  (long long)((1ULL << (address_bits - 12)) - hides + zero_leaves - mapped));
	for (unsigned level = 1; level <= 3; level++)
		if (leaves[level] != host_view.leaves[level])
			violation("host view counts %llu leaves of level %u, has %llu", ll(host_view.leaves[level]),
				  level, ll(leaves[level]));
	for (unsigned slot = 0; slot < HYPERPS_VMS && !*verdict; slot++) {
		bool dead = vms[slot].state == HYPERPS_VM_DYING || vms[slot].state == HYPERPS_VM_DEAD;

		reclaiming[vms[slot].kvm] += vms[slot].reclaiming;
		if (vms[slot].state == HYPERPS_VM_FREE || vms[slot].reclaiming) {
			pass[slot]++;
			continue;
		}
		/* A request has to do with one VM. */
		if ((int)slot != now.vm && pass[slot] && !chance(10))
			continue;
		check_view(slot, &mm.vm[slot].view, dead);
		if (!dead && mapped != vms[slot].count[HYPERPS_FRAME_PRIVATE] + vms[slot].count[HYPERPS_FRAME_SHARED])
			violation("VM %u: %llu frames mapped, %llu are PRIVATE", slot, ll(mapped),
				  ll(vms[slot].count[HYPERPS_FRAME_PRIVATE]));
	}
	free_pages = free_kvm_pages = 0;
	for (u64 frame = 0; frame < FRAMES && !*verdict; frame++) {
		const struct frame *f = &frames[frame];

		if (!forbidden[frame / CHUNK])
			frame = frame / CHUNK * CHUNK + CHUNK - 1;
		if (f->state != HYPERPS_FRAME_MONITOR || !f->in_pool || f->own_table || is_table(frame))
			continue;
		*(f->in_pool == KVM_VMS_POOL ? &free_kvm_pages : &free_pages) += 1;
	}
	check_pool(&pool, &free_pages, reclaiming[false]);
	check_pool(&kvm_pool, &free_kvm_pages, reclaiming[true]);
}

static void check_counters(void)
{
	u64 kvm_vms = 0;

	for (unsigned state = 0; state < HYPERPS_FRAME_STATES; state++)
		if (marks.count[state] != count[state])
			violation("marks count %llu frames %s, there are %llu", ll(marks.count[state]),
				  state_name[state], ll(count[state]));
	for (unsigned slot = 0; slot < HYPERPS_VMS; slot++) {
		const struct vm *vm = &mm.vm[slot];
		const u64 *n = vms[slot].count;
		u64 pending = 0, released = 0;

		if (vm->state != vms[slot].state)
			violation("VM %u is in state %d, not %d", slot, vm->state, vms[slot].state);
		if (vms[slot].state == HYPERPS_VM_FREE)
			continue;
		if (vm->kvm.is_kvm != vms[slot].kvm)
			violation("VM %u is of the wrong kind", slot);
		kvm_vms += vms[slot].kvm;
		if (vm->frames != n[HYPERPS_FRAME_PRIVATE] + n[HYPERPS_FRAME_SHARED] + n[HYPERPS_FRAME_TO_VM] +
					  n[HYPERPS_FRAME_TO_HOST])
			violation("VM %u counts %llu frames", slot, ll(vm->frames));
		if (vm->running != vms[slot].running)
			violation("VM %u: %u vCPUs run, not %u", slot, vm->running, vms[slot].running);
		if (vms[slot].state == HYPERPS_VM_DYING || vms[slot].state == HYPERPS_VM_DEAD)
			continue;
		if (vm->pending.count > MM_PENDING || vm->released.count > MM_PENDING)
			violation("VM %u has %u and %u runs", slot, vm->pending.count, vm->released.count);
		for (u32 i = 0; i < vm->pending.count && i < MM_PENDING; i++)
			pending += vm->pending.run[i].frames;
		for (u32 i = 0; i < vm->released.count && i < MM_PENDING; i++)
			released += vm->released.run[i].frames;
		if (released != n[HYPERPS_FRAME_TO_HOST])
			violation("VM %u has %llu frames released, not %llu", slot, ll(released),
				  ll(n[HYPERPS_FRAME_TO_HOST]));
		if (pending != n[HYPERPS_FRAME_TO_VM])
			violation("VM %u has %llu frames pending, not %llu", slot, ll(pending),
				  ll(n[HYPERPS_FRAME_TO_VM]));
	}
	if (mm.kvm_vms != kvm_vms)
		violation("%u KVM VMs are counted, not %llu", mm.kvm_vms, ll(kvm_vms));
	if (mm.epoch != spec_epoch || mm.flushed != spec_flushed)
		violation("a request moved the epochs");
}

/* ---- Requests: what each may answer ---- */

#define ERROR(name) BIT(-HYPERPS_ERROR_##name)
#define ANY_ERROR                                                                                                      \
	(ERROR(NO_VM) | ERROR(STATE) | ERROR(INVALID) | ERROR(OWNER) | ERROR(MEMORY) | ERROR(AGAIN) | ERROR(PERMISSION))

/* must: errors of which one must be answered; may: errors that are allowed besides. */
static void judge(s64 result, u64 must, u64 may)
{
	if (result < 0 && (result < -63 || !((must | may) >> -result & 1)))
		violation("%s: error %lld, allowed are %#llx, must %#llx", kind_name[now.kind], (long long)result,
			  ll(may), ll(must));
	if (result >= 0 && must)
		violation("%s: succeeded with %lld, must fail (%#llx)", kind_name[now.kind], (long long)result,
			  ll(must));
}

static int slot_of(u64 handle)
{
	for (int slot = 0; slot < HYPERPS_VMS; slot++)
		if (vms[slot].state != HYPERPS_VM_FREE && vms[slot].handle == handle)
			return slot;
	return -1;
}

static u64 count_l2_entries(void)
{
	u64 n = 0;

	for (unsigned c = 0; c < CPUS; c++)
		for (unsigned r = 0; r < SHADOW_ROOTS; r++)
			for (unsigned i = 0; (i = next_entry(cpus[c].shadow.root[r], i)) < ENTRIES; i++)
				n++;
	return n;
}

/* A leaf: where it is in an EPT02, and what it may name. */
static void check_l2_leaf(unsigned level, u64 address, u64 entry)
{
	u64 first = (entry & EPT_ADDRESS) / PAGE_SIZE, n = span(level) / PAGE_SIZE,
	    type = entry >> EPT_MEMORY_TYPE_SHIFT & 7;
	u8 state = first < FRAMES ? frames[first].state : HYPERPS_FRAME_DEVICE;

	if (level > 2 || first % n || !(entry & EPT_READ) ||
	    (entry & ~(EPT_ADDRESS | EPT_RWX | 7 << EPT_MEMORY_TYPE_SHIFT)) != (level > 1 ? EPT_LARGE : 0))
		violation("N2: level-%u entry %#llx for %#llx of an L2", level, ll(entry), ll(address));
	for (u64 i = first; i < first + n && i < FRAMES && !*verdict; i++)
		if (frames[i].state != state || (state != HYPERPS_FRAME_HOST && state != HYPERPS_FRAME_DEVICE))
			violation("N2: an EPT02 names frame %#llx (%s)", ll(i), state_name[frames[i].state]);
		else if (frames[i].type != MEMORY_TYPE_WB && type != frames[i].type)
			violation("N2: an EPT02 has type %llu for frame %#llx", ll(type), ll(i));
}

static void check_shadow_table(unsigned c, u64 root, u64 hpa, unsigned level, u64 base)
{
	const u64 *table = words(hpa / PAGE_SIZE);

	if (level < 4) {
		struct table_use *use = &l2_tables[hpa / PAGE_SIZE - KVM_POOL];

		if (!may_be_table(root, hpa) || hpa == root) {
			violation("N2: an EPT02 of CPU %u has a table at %#llx", c, ll(hpa));
			return;
		}
		if (use->pass == l2_pass[c])
			violation("N2: %#llx is a table in two places of EPT02s", ll(hpa));
		*use = (struct table_use){ l2_pass[c], base, l2_owner[root / PAGE_SIZE], (u8)level };
	}
	for (unsigned i = next_entry(table, 0); i < ENTRIES && !*verdict; i = next_entry(table, i + 1)) {
		u64 entry = table[i], address = base + i * span(level);

		if (level == 1 || (entry & EPT_LARGE))
			check_l2_leaf(level, address, entry);
		else if ((entry & ~EPT_ADDRESS) != EPT_RWX)
			violation("N2: table entry %#llx for %#llx of an L2", ll(entry), ll(address));
		else
			check_shadow_table(c, root, entry & EPT_ADDRESS, level - 1, address);
	}
}

/* All that CPU's EPT02s lead to. */
static void check_shadow(unsigned c)
{
	l2_pass[c] += CPUS; /* no two CPUs have the same */
	for (unsigned i = 0; i < SHADOW_ROOTS && !*verdict; i++) {
		u64 root = (u64)((u8 *)cpus[c].shadow.root[i] - memory);

		check_shadow_table(c, root, root, 4, 0);
	}
}

static void begin(enum kind kind, u64 handle)
{
	l2_expect_drop = false;
	l2_entries = count_l2_entries();
	memset(&now, 0, sizeof(now));
	now.kind = kind;
	now.handle = handle;
	now.vm = slot_of(handle);
	now.busy = true;
}

/* Everything that is looked at after any request. Returns how many frames the request moved. */
static u64 end(s64 result)
{
	u64 changed;

	now.busy = false;
	calls[now.kind][result >= 0]++;
	record("%s(handle %#llx [VM %d], gpa %#llx, frame %#llx, %llu, %llu) = %lld", kind_name[now.kind],
	       ll(now.handle), now.vm, ll(now.gpa), ll(now.frame), ll(now.count), ll(now.permissions),
	       (long long)result);
	quiet = (result < 0 || now.kind == SEAL || now.kind == ENTER) &&
		!memcmp(last_mark, mark_table, sizeof(last_mark));
	changed = observe_marks(result);
	if (result < 0 && changed)
		violation("%s: error %lld, but %llu frames changed", kind_name[now.kind], (long long)result,
			  ll(changed));
	if (l2_expect_drop) {
		l2_drops++;
		l2_wrapped += mm.shadow_generation == 1;
		if (count_l2_entries())
			violation("N2: a frame that an EPT02 may name has left the host, and they are not empty");
		for (unsigned c = 0; c < CPUS; c++)
			if (!cpus[c].shadow.must_invept)
				violation("N2: CPU %u is not told of a drop", c);
	} else if (l2_entries && !count_l2_entries()) {
		violation("EPT02s are dropped for frames that none of them names");
	} else {
		l2_kept += l2_entries && changed;
	}
	return changed;
}

static void check_all(void)
{
	if (!*verdict)
		check_counters();
	if (!*verdict && (!quiet || chance(25)))
		check_views();
	for (unsigned c = 0; c < CPUS && !*verdict && !quiet; c++)
		check_shadow(c);
	if (!*verdict)
		check_caches();
	for (unsigned i = 0; i < 4 && !*verdict; i++)
		check_content(below(FRAMES));
}

/* For requests that take pages of the pool: to be called after check_all(), which counts the free ones. */
static u64 memory_error(void)
{
	bool is_kvm = now.kind == CREATE_KVM || (now.vm >= 0 && vms[now.vm].kvm);

	return free_pages < MM_POOL_RESERVE || (is_kvm && free_kvm_pages < MM_POOL_RESERVE) ? ERROR(MEMORY) : 0;
}

static void do_create(void)
{
	unsigned live = 0;
	int slot = -1;
	s64 result;

	begin(CREATE, 0);
	for (unsigned i = 0; i < HYPERPS_VMS; i++)
		live += vms[i].state != HYPERPS_VM_FREE;
	now.vm = -1;
	result = mm_create(&mm);
	end(result);
	for (int i = 0; i < HYPERPS_VMS && result >= 0; i++) {
		if (vms[i].state != HYPERPS_VM_FREE || mm.vm[i].state == HYPERPS_VM_FREE)
			continue;
		now.vm = slot = i;
		vms[i] = (struct spec_vm){ .state = HYPERPS_VM_OPEN,
					   .handle = (u64)result,
					   .root = root_of(&mm.vm[i].view),
					   .base = below(64) * PAGE_SIZE_1G + below(64) * PAGE_SIZE_2M };
		if (vms[i].root % PAGE_SIZE || vms[i].root >= MEMORY_SIZE)
			violation("create: root at %#llx", ll(vms[i].root));
		break;
	}
	if (result >= 0 && slot < 0)
		violation("create: no new VM");
	for (unsigned i = 0; i < histories && result >= 0; i++)
		if (history[i] == (u64)result)
			violation("create: handle %#llx was used before", ll((u64)result));
	if (result >= 0 && histories < HISTORY)
		history[histories++] = (u64)result;
	if (!*verdict)
		check_all();
	/* The header does not say with which error a 65th VM is refused. */
	judge(result, live == HYPERPS_VMS ? ANY_ERROR : 0, memory_error());
}

static u64 handle_errors(bool state_fits)
{
	if (now.vm < 0)
		return ERROR(NO_VM);
	return state_fits ? 0 : ERROR(STATE);
}

/* Errors of a run of frames that must all be in one state, and at most `most`. */
static u64 run_errors(u64 frame, u64 n, u64 most, u8 state)
{
	const u64 limit = 1ULL << (address_bits - 12);
	u64 errors = 0;

	if (!n || n > most || frame >= limit || n > limit - frame)
		errors |= ERROR(INVALID);
	if (n > FRAMES || frame >= FRAMES || n > FRAMES - frame) {
		/* Past the table all is DEVICE; the header leaves open whether that is an end. */
		errors |= ERROR(INVALID) | ERROR(OWNER);
		n = frame < FRAMES ? FRAMES - frame : 0;
	}
	for (u64 i = frame; i < frame + n; i++)
		if (frames[i].state != state)
			return errors | ERROR(OWNER);
	return errors;
}

static void do_declare(u64 handle, u64 gpa, u64 n, u64 permissions)
{
	const u64 pages = 1ULL << (MM_VIEW_BITS - 12);
	u64 must, first = gpa / PAGE_SIZE;
	s64 result;

	begin(DECLARE, handle);
	now.gpa = gpa;
	now.count = n;
	now.permissions = permissions;
	must = handle_errors(now.vm >= 0 && vms[now.vm].state == HYPERPS_VM_OPEN);
	if (gpa % PAGE_SIZE || !n || n > pages || first >= pages || first + n > pages)
		must |= ERROR(INVALID);
	if (permissions != 1 && permissions != 3 && permissions != 5 && permissions != 7 && permissions != 8)
		must |= ERROR(INVALID);
	if (now.vm >= 0 && vms[now.vm].range_count == 8)
		must |= ERROR(INVALID);
	for (unsigned i = 0; now.vm >= 0 && i < vms[now.vm].range_count; i++)
		if (n && first + (n - 1) >= vms[now.vm].ranges[i].first && first <= vms[now.vm].ranges[i].last)
			must |= ERROR(OWNER);
	result = mm_declare(&mm, handle, gpa, n, permissions);
	end(result);
	if (result >= 0 && !must) {
		struct spec_vm *vm = &vms[now.vm];

		vm->ranges[vm->range_count].first = first;
		vm->ranges[vm->range_count].last = first + (n - 1);
		vm->ranges[vm->range_count++].permissions = permissions;
		if (result != vm->range_count)
			violation("declare: result %lld, not %u", (long long)result, vm->range_count);
	}
	check_all();
	judge(result, must, 0);
}

/* Permissions of the range that holds all of [gpa, gpa + n pages), 8 for MMIO, or 0. */
static u64 declared(int slot, u64 gpa, u64 n)
{
	for (unsigned i = 0; i < vms[slot].range_count && n && n <= 1 << 18; i++)
		if (gpa / PAGE_SIZE >= vms[slot].ranges[i].first &&
		    gpa / PAGE_SIZE + (n - 1) <= vms[slot].ranges[i].last)
			return vms[slot].ranges[i].permissions;
	return 0;
}

static bool is_of_vm(u64 frame)
{
	u8 state = frames[frame].state;

	return state == HYPERPS_FRAME_PRIVATE || state == HYPERPS_FRAME_SHARED || state == HYPERPS_FRAME_TO_VM ||
	       state == HYPERPS_FRAME_TO_HOST;
}

static bool is_gpa_taken(int slot, u64 gpa)
{
	for (u64 i = 0; i < FRAMES; i++)
		if (is_of_vm(i) && frames[i].vm == (u16)slot && frames[i].gpa == gpa)
			return true;
	return false;
}

static void do_map(u64 handle, u64 gpa, u64 frame, u64 n)
{
	const u64 limit = 1ULL << MM_VIEW_BITS;
	u64 must, may = 0, changed, first = n;
	u8 wanted = HYPERPS_FRAME_HOST;
	bool full = false, dry;
	s64 result;

	begin(MAP, handle);
	now.gpa = gpa;
	now.frame = frame;
	now.count = n;
	must = handle_errors(now.vm >= 0 &&
			     (vms[now.vm].state == HYPERPS_VM_OPEN || vms[now.vm].state == HYPERPS_VM_SEALED));
	if (now.vm >= 0 && vms[now.vm].kvm && vms[now.vm].state == HYPERPS_VM_SEALED && frame < FRAMES &&
	    frames[frame].state == HYPERPS_FRAME_ORPHAN)
		wanted = HYPERPS_FRAME_ORPHAN;
	/* Of more than 512 only what lies in the first 2 MiB of gpa must be right for a success. */
	if (n > MM_BATCH)
		first = CHUNK - gpa / PAGE_SIZE % CHUNK;
	must |= n > 1 << 18 ? ERROR(INVALID) | ERROR(OWNER) : run_errors(frame, first, MM_BATCH, wanted);
	if (gpa % PAGE_SIZE || gpa >= limit || !n || n > (limit - gpa) / PAGE_SIZE)
		must |= ERROR(INVALID);
	if (now.vm >= 0) {
		now.permissions = declared(now.vm, gpa, n);
		if (!now.permissions || now.permissions == 8)
			must |= ERROR(PERMISSION);
		full = mm.vm[now.vm].pending.count == MM_PENDING && vms[now.vm].maps >= MM_PENDING;
		for (u64 i = 0; i < FRAMES; i++)
			if (is_of_vm(i) && frames[i].vm == (u16)now.vm && frames[i].gpa >= ALIGN_DOWN(gpa, PAGE_SIZE) &&
			    (frames[i].gpa - ALIGN_DOWN(gpa, PAGE_SIZE)) / PAGE_SIZE < first)
				must |= ERROR(OWNER);
	}
	if (full)
		may |= ERROR(AGAIN);
	/* As mm_map() does first. */
	page_pool_refresh(&kvm_pool, mm.epoch, mm.flushed, MM_BATCH);
	dry = now.vm >= 0 && vms[now.vm].kvm && page_pool_available(&kvm_pool) < MM_POOL_RESERVE;
	result = mm_map(&mm, handle, gpa, frame, n);
	changed = end(result);
	if (result >= 0 && dry)
		violation("map: the pool of the KVM VMs had less than the reserve");
	if (result >= 0 && !must) {
		if ((u64)result != changed || changed < first || changed > n || changed > MM_MAP_BATCHES * MM_BATCH)
			violation("map: result %lld, %llu frames changed, of %llu", (long long)result, ll(changed),
				  ll(n));
		/* It stops early only where it has done much, or where the next step would fail. */
		for (u64 i = changed; i < n && i < changed + CHUNK && *verdict == 0; i++)
			full = full || frame + i >= FRAMES || frames[frame + i].state != HYPERPS_FRAME_HOST ||
			       is_gpa_taken(now.vm, gpa + i * PAGE_SIZE);
		if (changed < n && changed <= (MM_MAP_BATCHES - 1) * MM_BATCH && !full &&
		    free_pages > 4 * MM_POOL_RESERVE && !vms[now.vm].kvm)
			violation("map: stops after %llu of %llu frames without need", ll(changed), ll(n));
		for (u64 i = 0; i < changed; i++)
			if (frames[frame + i].state != HYPERPS_FRAME_TO_VM)
				violation("map: not the first %llu frames", ll(changed));
		multiple += n > MM_BATCH && changed > CHUNK;
		vms[now.vm].epoch = spec_epoch;
		vms[now.vm].maps++;
	}
	check_all();
	judge(result, must, may | memory_error());
}

static void do_sync(u64 handle)
{
	u64 must, pending = 0, changed;
	s64 result;

	begin(SYNC, handle);
	must = handle_errors(now.vm >= 0 &&
			     (vms[now.vm].state == HYPERPS_VM_OPEN || vms[now.vm].state == HYPERPS_VM_SEALED));
	if (now.vm >= 0 && !must) {
		pending = vms[now.vm].count[HYPERPS_FRAME_TO_VM];
		if (pending && vms[now.vm].epoch >= spec_flushed)
			must |= ERROR(AGAIN);
	}
	result = mm_sync(&mm, handle);
	changed = end(result);
	if (result >= 0 && !must) {
		if ((u64)result != pending - changed || changed > MM_BATCH || (pending && !changed))
			violation("sync: result %lld, %llu of %llu frames synced", (long long)result, ll(changed),
				  ll(pending));
		if (!result)
			vms[now.vm].maps = 0;
	}
	check_all();
	judge(result, must, memory_error());
}

/* Calls that go on until 0: they must get somewhere. */
static void check_progress(u64 changed, s64 result)
{
	struct spec_vm *vm = &vms[now.vm];

	vm->idle = changed || !result ? 0 : vm->idle + 1;
	if (changed > MM_BATCH || result > 1 || vm->idle > 64)
		violation("%s: result %lld, %llu frames, %u calls without progress", kind_name[now.kind],
			  (long long)result, ll(changed), vm->idle);
}

static void do_seal(u64 handle)
{
	s64 result;
	u64 must;

	begin(SEAL, handle);
	must = handle_errors(now.vm >= 0 &&
			     (vms[now.vm].state == HYPERPS_VM_OPEN || vms[now.vm].state == HYPERPS_VM_SEALING));
	/* "Needs nothing pending": by which error it says so is open. */
	if (now.vm >= 0 && vms[now.vm].count[HYPERPS_FRAME_TO_VM])
		must |= ERROR(AGAIN) | ERROR(STATE);
	result = mm_seal(&mm, handle);
	end(result);
	if (result >= 0 && !must) {
		struct spec_vm *vm = &vms[now.vm];

		vm->state = result ? HYPERPS_VM_SEALING : HYPERPS_VM_SEALED;
		half_sealed += result == 1;
		if (now.measured > MM_SEAL_PAGES)
			violation("seal: measures %llu pages", ll(now.measured));
		if (!result && vm->measured != vm->count[HYPERPS_FRAME_PRIVATE])
			violation("seal: %llu pages measured, VM %d has %llu", ll(vm->measured), now.vm,
				  ll(vm->count[HYPERPS_FRAME_PRIVATE]));
		check_progress(now.measured, result);
	}
	check_all();
	judge(result, must, 0);
}

static void do_enter(unsigned c, u64 handle)
{
	s64 result;
	u64 must;

	begin(ENTER, handle);
	must = handle_errors(now.vm >= 0 && vms[now.vm].state == HYPERPS_VM_SEALED);
	result = mm_enter(&mm, handle);
	end(result);
	if (result >= 0 && !must) {
		cpus[c].runs = now.vm;
		vms[now.vm].running++;
		if (result)
			violation("enter: result %lld", (long long)result);
	}
	check_all();
	judge(result, must, 0);
}

static void leave(unsigned c)
{
	if (cpus[c].runs < 0)
		return;
	record("    CPU %u leaves VM %d", c, cpus[c].runs);
	mm_leave(&mm, vms[cpus[c].runs].handle);
	vms[cpus[c].runs].running--;
	cpus[c].runs = -1;
}

static void leave_all(int slot)
{
	for (unsigned c = 0; c < CPUS; c++)
		if (cpus[c].runs == slot)
			leave(c);
}

/* ---- KVM VMs: what the monitor itself asks for ---- */

static void do_create_kvm(void)
{
	u64 frame = below(FRAMES), pages = 1 + below(FRAMES),
	    base = below(64) * PAGE_SIZE_1G + below(64) * PAGE_SIZE_2M;
	struct hyperps_protect list = { .ranges = 1, .range = { { 0, BIT(MM_VIEW_BITS - 12) } } };
	unsigned slots = 0;
	bool bad = false;
	s64 result;

	if (chance(30)) {
		list.range[0] = (struct hyperps_protect_run){ base, pages };
		list.range[1] = (struct hyperps_protect_run){ base + (pages + frame) * PAGE_SIZE, FRAMES };
		list.ranges = 2;
	}
	if (chance(10)) {
		bad = true;
		list.range[list.ranges++] =
			chance(50) ? list.range[0] : (struct hyperps_protect_run){ BIT(MM_VIEW_BITS), 1 };
	}
	begin(CREATE_KVM, 0);
	now.vm = -1;
	for (unsigned i = 0; i < HYPERPS_VMS; i++)
		slots += vms[i].state == HYPERPS_VM_FREE;
	result = mm_create_kvm(&mm, &list, 1);
	end(result);
	for (int i = 0; i < HYPERPS_VMS && result >= 0; i++) {
		if (vms[i].state != HYPERPS_VM_FREE || mm.vm[i].state == HYPERPS_VM_FREE)
			continue;
		now.vm = i;
		vms[i] = (struct spec_vm){ .state = HYPERPS_VM_OPEN,
					   .kvm = true,
					   .handle = (u64)result,
					   .root = root_of(&mm.vm[i].view),
					   .base = base,
					   .range_count = list.ranges };
		for (unsigned k = 0; k < list.ranges; k++) {
			vms[i].ranges[k].first = list.range[k].gpa / PAGE_SIZE;
			vms[i].ranges[k].last = vms[i].ranges[k].first + list.range[k].pages - 1;
			vms[i].ranges[k].permissions = EPT_RWX;
		}
		break;
	}
	for (unsigned i = 0; i < histories && result >= 0; i++)
		if (history[i] == (u64)result)
			violation("create: handle %#llx was used before", ll((u64)result));
	if (result >= 0 && histories < HISTORY)
		history[histories++] = (u64)result;
	check_all();
	judge(result, bad || !slots ? ANY_ERROR : 0, memory_error());
}

static void do_kill(int slot)
{
	struct spec_vm *vm = &vms[slot];
	bool dies = vm->kvm && vm->state != HYPERPS_VM_DYING && vm->state != HYPERPS_VM_DEAD;
	u32 bindings = mm.bindings;

	begin(KILL, vm->handle);
	mm_kill(&mm, (u64)slot);
	end(0);
	if (dies) {
		vm->state = HYPERPS_VM_DYING;
		vm->idle = 0;
		killed_running += vm->running != 0;
		if (mm.bindings == bindings)
			violation("kill: nobody is told");
	}
	check_all();
}

/* slot -1: whichever is first. */
static void do_bury(int slot)
{
	bool next = slot < 0;
	u64 must, changed;
	s64 result;

	for (int i = 0; next && i < HYPERPS_VMS && slot < 0; i++)
		if (vms[i].kvm &&
		    (vms[i].state == HYPERPS_VM_DEAD || (vms[i].state == HYPERPS_VM_DYING && !vms[i].running)))
			slot = i;
	begin(BURY, slot >= 0 ? vms[slot].handle : ~0ULL);
	if (slot < 0)
		must = ERROR(NO_VM);
	else if (!vms[slot].kvm || (vms[slot].state != HYPERPS_VM_DYING && vms[slot].state != HYPERPS_VM_DEAD) ||
		 vms[slot].running)
		must = ERROR(STATE);
	else
		must = vms[slot].state == HYPERPS_VM_DEAD && vms[slot].epoch >= spec_flushed ? ERROR(AGAIN) : 0;
	result = next ? mm_bury_next(&mm) : mm_bury(&mm, (u64)slot);
	changed = end(result);
	if (result >= 0 && !must) {
		struct spec_vm *vm = &vms[slot];

		check_progress(changed, result);
		if (vm->state == HYPERPS_VM_DYING && mm.vm[slot].state == HYPERPS_VM_DEAD) {
			vm->state = HYPERPS_VM_DEAD;
			vm->epoch = spec_epoch;
			vm->idle = 0;
			if (vm->count[HYPERPS_FRAME_PRIVATE] || vm->count[HYPERPS_FRAME_TO_VM] ||
			    vm->count[HYPERPS_FRAME_TO_HOST])
				violation("bury: VM %d is dead and has frames", slot);
		} else if (vm->state == HYPERPS_VM_DEAD && !result) {
			*vm = (struct spec_vm){ .state = HYPERPS_VM_FREE };
		} else if (vm->state == HYPERPS_VM_DEAD) {
			vm->reclaiming = true;
		} else if (!result) {
			violation("bury: VM %d is gone, and has not been dead", slot);
		}
	}
	check_all();
	judge(result, must, memory_error());
}

static void do_orphan(u64 frame)
{
	u16 slot = frame < FRAMES && is_of_vm(frame) ? frames[frame].vm : (u16)MARK_NOBODY;
	bool goes = slot < HYPERPS_VMS && vms[slot].kvm && vms[slot].state == HYPERPS_VM_DYING && !vms[slot].running;

	begin(ABANDON, slot < HYPERPS_VMS ? vms[slot].handle : ~0ULL);
	now.frame = frame;
	mm_orphan(&mm, frame);
	end(0);
	for (u64 i = ALIGN_DOWN(frame, CHUNK); goes && i < ALIGN_DOWN(frame, CHUNK) + CHUNK; i++)
		if (is_of_vm(i) && frames[i].vm == slot)
			violation("orphan: frame %#llx stays", ll(i));
	check_all();
}

static void do_return_begin(u64 frame)
{
	begin(RETURN_BEGIN, ~0ULL);
	now.frame = frame;
	mm_return_begin(&mm, frame);
	end(0);
	for (u64 i = ALIGN_DOWN(frame, CHUNK); frame < FRAMES && i < ALIGN_DOWN(frame, CHUNK) + CHUNK; i++)
		if (frames[i].state == HYPERPS_FRAME_ORPHAN)
			violation("return: frame %#llx stays", ll(i));
	check_all();
}

static void do_return_end(u64 frame)
{
	u64 first = ALIGN_DOWN(frame, RETURNED), left = 0;
	bool done, nobodys;

	begin(RETURN_END, ~0ULL);
	now.frame = frame;
	done = mm_return_end(&mm, frame);
	end(0);
	for (u64 i = first; frame < FRAMES && i < first + RETURNED; i++)
		left += frames[i].state == HYPERPS_FRAME_TO_HOST && frames[i].vm == MARK_NOBODY &&
			frames[i].epoch < spec_flushed;
	nobodys = frame < FRAMES && frames[frame].state == HYPERPS_FRAME_TO_HOST && frames[frame].vm == MARK_NOBODY;
	check_all();
	if (left && free_pages >= MM_POOL_RESERVE)
		violation("end of return: %llu frames stay", ll(left));
	if (done && nobodys)
		violation("end of return: frame %#llx is not the host's", ll(frame));
	if (!done && !nobodys)
		violation("end of return: frame %#llx is waited for", ll(frame));
}

static void do_zeros(u64 frame)
{
	bool done;

	begin(ZEROS, vms[frames[frame].vm].handle);
	now.frame = frame;
	done = mm_read_zeros(&mm, frame);
	if (done) {
		zero_leaves += !frames[frame].zeros;
		frames[frame].zeros = true;
	}
	end(0);
	check_all();
	if (!done && free_pages >= MM_POOL_RESERVE)
		violation("zeros: refused at frame %#llx", ll(frame));
	for (u64 i = below(3); i; i--)
		touch_host((unsigned)below(CPUS), frame * PAGE_SIZE);
}

static void do_destroy(u64 handle)
{
	u64 must, may = 0, changed;
	s64 result;

	if (slot_of(handle) >= 0 && vms[slot_of(handle)].kvm) {
		int slot = slot_of(handle);

		if (vms[slot].state == HYPERPS_VM_DYING)
			do_bury(slot);
		else
			do_kill(slot);
		return;
	}
	begin(DESTROY, handle);
	must = handle_errors(now.vm >= 0);
	if (now.vm >= 0 && vms[now.vm].state == HYPERPS_VM_DEAD)
		may |= ERROR(STATE);
	if (now.vm >= 0 && vms[now.vm].running) {
		must |= ERROR(STATE);
		kept_alive++;
	}
	result = mm_destroy(&mm, handle);
	changed = end(result);
	if (result >= 0 && !must) {
		struct spec_vm *vm = &vms[now.vm];
		bool left = vm->count[HYPERPS_FRAME_PRIVATE] || vm->count[HYPERPS_FRAME_SHARED] ||
			    vm->count[HYPERPS_FRAME_TO_VM];

		if (vm->state != HYPERPS_VM_DEAD)
			vm->epoch = spec_epoch;
		vm->state = result ? HYPERPS_VM_DYING : HYPERPS_VM_DEAD;
		if (!result && left)
			violation("destroy: ended, but not all frames are TO_HOST");
		check_progress(changed, result);
	}
	check_all();
	judge(result, must, may);
}

static void do_reclaim(u64 handle)
{
	u64 must, changed;
	bool lives;
	s64 result;

	if (slot_of(handle) >= 0 && vms[slot_of(handle)].kvm && vms[slot_of(handle)].state == HYPERPS_VM_DEAD) {
		do_bury(slot_of(handle));
		return;
	}
	begin(RECLAIM, handle);
	lives = now.vm >= 0 && vms[now.vm].state != HYPERPS_VM_DEAD;
	must = handle_errors(now.vm >= 0 && (!lives || (vms[now.vm].state == HYPERPS_VM_SEALED &&
							vms[now.vm].count[HYPERPS_FRAME_TO_HOST])));
	if (now.vm >= 0 && !must && vms[now.vm].epoch >= spec_flushed)
		must |= ERROR(AGAIN);
	result = mm_reclaim(&mm, handle);
	changed = end(result);
	if (result >= 0 && !must) {
		struct spec_vm *vm = &vms[now.vm];

		check_progress(changed, result);
		vm->reclaiming = result && !lives;
		if (!result) {
			vm->releases = 0;
			if (vm->count[HYPERPS_FRAME_TO_HOST])
				violation("reclaim: ended, but frames are left");
			if (!lives)
				*vm = (struct spec_vm){ .state = HYPERPS_VM_FREE };
			returned += lives;
		}
	}
	check_all();
	judge(result, must, memory_error());
}

/* The guest's requests: kind, from which state, to which. */
static const struct guest_request {
	u8 from, to;
} guest_requests[KINDS] = { [SHARE] = { HYPERPS_FRAME_PRIVATE, HYPERPS_FRAME_SHARED },
			    [UNSHARE] = { HYPERPS_FRAME_SHARED, HYPERPS_FRAME_TO_VM },
			    [RELEASE] = { HYPERPS_FRAME_PRIVATE, HYPERPS_FRAME_TO_HOST } };

static void do_guest(enum kind kind, u64 handle, u64 gpa, u64 n)
{
	const u64 pages = 1ULL << (MM_VIEW_BITS - 12);
	u64 must, may = 0, changed, have = 0;
	struct spec_vm *vm;
	s64 result;

	/* What a KVM VM's guest shares it gives back. */
	if (kind != RELEASE && slot_of(handle) >= 0 && vms[slot_of(handle)].kvm)
		return;
	begin(kind, handle);
	now.gpa = gpa;
	now.count = n;
	vm = now.vm >= 0 ? &vms[now.vm] : NULL;
	must = handle_errors(vm && vm->state == HYPERPS_VM_SEALED);
	if (gpa % PAGE_SIZE || !n || n > MM_BATCH || gpa / PAGE_SIZE >= pages || gpa / PAGE_SIZE + n > pages)
		must |= ERROR(INVALID);
	for (u64 i = 0; vm && i < FRAMES; i++)
		have += frames[i].state == guest_requests[kind].from && frames[i].vm == (u16)now.vm &&
			frames[i].gpa >= gpa && (frames[i].gpa - gpa) / PAGE_SIZE < n;
	if (have != n)
		must |= ERROR(OWNER);
	if (vm && ((kind == UNSHARE && vm->maps >= MM_PENDING) || (kind == RELEASE && vm->releases >= MM_PENDING)))
		may |= ERROR(AGAIN);
	result = mm_guest_move(&mm, handle, gpa, n, guest_requests[kind].to);
	changed = end(result);
	if (result >= 0 && !must) {
		if (result || changed != n)
			violation("%s: result %lld, %llu frames changed, not %llu", kind_name[kind], (long long)result,
				  ll(changed), ll(n));
		if (kind != SHARE)
			vm->epoch = spec_epoch;
		vm->maps += kind == UNSHARE;
		vm->releases += kind == RELEASE;
	}
	check_all();
	judge(result, must, may | memory_error());
}

/* The monitor's own tables take up to two pages, in the middle of the request. */
bool mm_map_donated(u64 frame)
{
	if (!now.busy || now.kind != DONATE || frame != now.frame || now.tables)
		violation("mm_map_donated(%#llx)", ll(frame));
	now.tables = 1;
	for (u64 i = chance(50) ? below(MM_DIRECT_TABLES + 1) : 0; i; i--) {
		u8 *page = page_pool_take(&pool);

		if (!page) {
			violation("mm_map_donated: no page left");
			return false;
		}
		frames[(u64)(page - memory) / PAGE_SIZE].own_table = true;
	}
	return true;
}

static void do_donate(u64 frame)
{
	u64 must, changed, n = CHUNK;
	s64 result;

	begin(DONATE, 0);
	now.vm = -1;
	now.frame = frame;
	now.count = n;
	must = run_errors(frame, n, n, HYPERPS_FRAME_HOST);
	if (frame % CHUNK || frame >= 1ULL << 30)
		must |= ERROR(INVALID);
	result = mm_donate(&mm, frame);
	changed = end(result);
	donated += result >= 0;
	if (result >= 0 && !must && ((u64)result != n || changed != n || !now.tables))
		violation("donate: result %lld, %llu frames changed, not %llu", (long long)result, ll(changed), ll(n));
	check_all();
	judge(result, must, memory_error());
}

static void do_query(u64 handle, u64 frame)
{
	u64 must = 0, may = 0;
	s64 result, expected;

	begin(QUERY, handle);
	now.frame = frame;
	expected = frame < FRAMES ? frames[frame].state : HYPERPS_FRAME_DEVICE;
	if (expected == HYPERPS_FRAME_MONITOR || expected == HYPERPS_FRAME_TO_MONITOR ||
	    expected == HYPERPS_FRAME_ORPHAN)
		must = ERROR(OWNER);
	else if (expected > HYPERPS_FRAME_HOST && (now.vm < 0 || frames[frame].vm != (u16)now.vm))
		must = ERROR(OWNER);
	if (now.vm < 0)
		may |= ERROR(NO_VM); /* for the host's own frames, too? */
	result = mm_query(&mm, handle, frame);
	end(result);
	judge(result, must, may);
	if (result >= 0 && result != expected)
		violation("query: frame %#llx is %lld, not %lld", ll(frame), (long long)result, (long long)expected);
}

/* What is at an address of a VM: range, frame; and what is known of the VM as a whole. */
static void do_look_up(u64 handle, u64 gpa)
{
	s64 result, expected = -1;
	u64 must, permissions;

	begin(LOOK_UP, handle);
	now.gpa = gpa;
	must = handle_errors(now.vm >= 0 && vms[now.vm].state == HYPERPS_VM_SEALED);
	for (s64 i = 0; now.vm >= 0 && i < (s64)FRAMES; i++)
		if ((frames[i].state == HYPERPS_FRAME_PRIVATE || frames[i].state == HYPERPS_FRAME_SHARED) &&
		    frames[i].vm == (u16)now.vm && frames[i].gpa == ALIGN_DOWN(gpa, PAGE_SIZE))
			expected = i;
	if (!must && expected < 0)
		must = ERROR(OWNER);
	result = mm_guest_frame(&mm, handle, gpa);
	end(result);
	judge(result, must, 0);
	if (result >= 0 && result != expected)
		violation("VM %d has frame %lld at %#llx, not %lld", now.vm, (long long)expected, ll(gpa),
			  (long long)result);
	permissions = now.vm >= 0 ? declared(now.vm, gpa, 1) : 0;
	if (mm_range(&mm, handle, gpa) != permissions)
		violation("range of %#llx: %llu, not %llu", ll(gpa), ll(mm_range(&mm, handle, gpa)), ll(permissions));
	if (now.vm >= 0) {
		const struct spec_vm *vm = &vms[now.vm];
		const struct vm_range *ranges = mm.vm[now.vm].range;
		u32 n = mm.vm[now.vm].range_count;

		if (n != vm->range_count)
			violation("VM %d has %u ranges, not %u", now.vm, n, vm->range_count);
		for (u32 i = 0; i < n && i < vm->range_count; i++)
			if (ranges[i].gpa / PAGE_SIZE != vm->ranges[i].first ||
			    ranges[i].frames != vm->ranges[i].last - vm->ranges[i].first + 1 ||
			    ranges[i].permissions != vm->ranges[i].permissions)
				violation("VM %d: range %u is another", now.vm, i);
		if (!vm->reclaiming && ept_pointer(&mm.vm[now.vm].view) != (vm->root | 3 << 3 | 6))
			violation("VM %d: pointer to its view %#llx", now.vm, ll(ept_pointer(&mm.vm[now.vm].view)));
	}
}

/* ---- Set-up: the one place that knows how the parts are put together ---- */

static void set_host_leaf(u64 frame, unsigned level, u64 value)
{
	u64 *entry = ept_entry(&host_view, GPA(frame * PAGE_SIZE), level);

	assert_non_null(entry);
	ept_set_entry(&host_view, entry, level, value);
}

static void set_up_shadows(void)
{
	u64 most = chance(70) ? 3 + below(6) : 3 + below(KVM_SHARE - 3);

	memset(l2_owner, 0, sizeof(l2_owner));
	memset(l2_tables, 0, sizeof(l2_tables));
	l2_drops = 0;
	for (unsigned c = 0; c < CPUS; c++) {
		struct shadow *shadow = &cpus[c].shadow;
		u64 first = KVM_POOL + c * KVM_SHARE;

		l2_pass[c] = c + 1;
		*shadow =
			(struct shadow){ .tables = words(first), .tables_hpa = HPA(first * PAGE_SIZE), .count = most };
		for (unsigned i = 0; i < SHADOW_ROOTS; i++) {
			u64 frame;

			shadow->root[i] = page_pool_take(&pool);
			assert_non_null(shadow->root[i]);
			frame = (u64)((u8 *)shadow->root[i] - memory) / PAGE_SIZE;
			l2_owner[frame] = (u8)(1 + c * SHADOW_ROOTS + i);
			frames[frame].own_table = true;
		}
		shadow_add(&mm, shadow);
	}
	if (chance(50))
		mm.shadow_generation = MARK_SHADOW - below(3);
}

static void set_up(unsigned profile)
{
	static const u8 region_chunks[] = { 1, 2, 5, 9, 14, 15 };
	u64 region = region_chunks[below(ARRAY_SIZE(region_chunks))] * PAGE_SIZE_2M, image = below(64) * PAGE_SIZE;
	u64 pages = chance(25) ? 20 + below(30) : 64 + below(364);
	u64 kvm_pages = chance(25) ? MM_POOL_RESERVE + below(10) : CHUNK / 4;
	bool large = chance(50), mixed_types = chance(50);
	const struct boot_memory_range map[] = {
		{ 0, 0xa0000, 7, 0 },
		{ 0x100000, MEMORY_SIZE - 0x100000, 7, 0 },
		{ 0x700000, 0x10000, 6, 0 }, /* runtime data: DEVICE */
		{ 0x1234000, 0x3000, 10, 0 }, /* ACPI NVS: DEVICE */
		{ region, PAGE_SIZE_2M, 0, 0 },
		{ KVM_POOL * PAGE_SIZE, PAGE_SIZE_2M, 0, 0 },
		{ 0xe0000000, 0x10000000, 11, 0 },
	};
	u64 top, end, next;

	if (profile == 5)
		pages = MM_POOL_RESERVE + 4 + below(10);
	pages += CPUS * SHADOW_ROOTS + 4;
	mm = (struct mm){ 0 };
	address_bits = large ? 36 : 32;
	top = 1ULL << address_bits;
	mtrr = (struct mtrr_state){ .capability = 1, .msr[MTRR_DEFAULT] = MTRR_ENABLE | MEMORY_TYPE_WB };
	if (mixed_types) {
		mtrr.msr[MTRR_BASE(0)] = 0x1900000 | MEMORY_TYPE_UC; /* 1 MiB in chunk 12 */
		mtrr.msr[MTRR_MASK(0)] = (top - 0x100000) | MTRR_MASK_VALID;
	}
	assert_true(page_marks_bytes(map, ARRAY_SIZE(map)) <= sizeof(mark_table));
	page_marks_init(&marks, mark_table, map, ARRAY_SIZE(map), &mtrr, address_bits);
	page_marks_set(&marks, region / PAGE_SIZE, CHUNK, HYPERPS_FRAME_MONITOR);
	page_marks_set(&marks, KVM_POOL, CHUNK, HYPERPS_FRAME_MONITOR);
	pool = (struct page_pool){ .linear = memory + region + image,
				   .base = HPA(region + image),
				   .size = pages * PAGE_SIZE,
				   .direct = memory,
				   .marks = &marks };
	assert_true(ept_init(&host_view, &pool, large ? 4 + (unsigned)below(2) : 4, large ? 3 : 2));
	for (u64 address = 0; address < top; address = end) {
		u64 type = memory_type_at(&mtrr, address_bits, HPA(address), &end);

		while (end < top && end != region && memory_type_at(&mtrr, address_bits, HPA(end), &next) == type)
			end = next;
		if (address == region) {
			end = region + PAGE_SIZE_2M;
			continue;
		}
		if (address < region && end > region)
			end = region;
		assert_true(ept_map(&host_view, GPA(address), HPA(address), end - address, EPT_RWX, type));
	}
	kvm_pool = (struct page_pool){ .linear = memory + KVM_PAGES * PAGE_SIZE,
				       .base = HPA(KVM_PAGES * PAGE_SIZE),
				       .size = kvm_pages * PAGE_SIZE,
				       .direct = memory,
				       .marks = &marks };
	mm.kvm_pages = &kvm_pool;
	mm.zeros = region / PAGE_SIZE + CHUNK - 1;
	memset(words(mm.zeros), 0, PAGE_SIZE);
	mm.marks = &marks;
	mm.pool = &pool;
	mm.host_view = &host_view;
	mm.epoch = 1;
	set_host_leaf(KVM_POOL, 2, 0);
	set_host_leaf(HIDDEN_PAGE, 1, 0);
	set_host_leaf(READ_ONLY_PAGE, 1,
		      READ_ONLY_PAGE * PAGE_SIZE | EPT_READ | MEMORY_TYPE_WB << EPT_MEMORY_TYPE_SHIFT);
	set_host_leaf(UC_CHUNK, 2, UC_CHUNK * PAGE_SIZE | EPT_RWX | EPT_LARGE);

	memset(frames, 0, sizeof(frames));
	for (u64 frame = 0; frame < FRAMES; frame++) {
		u64 address = frame * PAGE_SIZE, state = HYPERPS_FRAME_HOST;

		frames[frame].type = memory_type_at(&mtrr, address_bits, HPA(address), &end);
		if ((address >= 0xa0000 && address < 0x100000) || (address >= 0x700000 && address < 0x710000) ||
		    (address >= 0x1234000 && address < 0x1237000))
			state = HYPERPS_FRAME_DEVICE;
		frames[frame].in_pool = address >= region + image && address < region + image + pages * PAGE_SIZE;
		if (frame >= KVM_PAGES && frame < KVM_PAGES + kvm_pages)
			frames[frame].in_pool = KVM_VMS_POOL;
		if (frames[frame].type != MEMORY_TYPE_WB)
			state = HYPERPS_FRAME_DEVICE;
		if ((address >= region && address < region + PAGE_SIZE_2M) || frame / CHUNK == KVM_POOL / CHUNK)
			state = HYPERPS_FRAME_MONITOR;
		if (frame % CHUNK == 0)
			chunk_type[frame / CHUNK] = frames[frame].type;
		if (chunk_type[frame / CHUNK] != frames[frame].type)
			chunk_type[frame / CHUNK] = 0xff;
		count[HYPERPS_FRAME_DEVICE]++;
		set_state(frame, (u8)state);
		if (page_mark_state(&marks, frame) != state)
			violation("set-up: frame %#llx is not %s", ll(frame), state_name[state]);
		if (state != HYPERPS_FRAME_MONITOR)
			write_stamp(frame, next_random() | 1);
	}
	set_up_shadows();
	memcpy(last_mark, mark_table, sizeof(last_mark));
	spec_epoch = 1;
	spec_flushed = 0;
	record("region %#llx, pool of %llu pages at %#llx, %u address bits, %u levels", ll(region), ll(pages),
	       ll(region + image), address_bits, host_view.levels);
}

static void reset(void)
{
	memset(vms, 0, sizeof(vms));
	memset(count, 0, sizeof(count));
	memset(forbidden, 0, sizeof(forbidden));
	memset(shared, 0, sizeof(shared));
	memset(hidden, 0, sizeof(hidden));
	memset(cpus, 0, sizeof(cpus));
	memset(rounds, 0, sizeof(rounds));
	memset(&now, 0, sizeof(now));
	memset(tables, 0, sizeof(tables));
	for (unsigned c = 0; c < CPUS; c++)
		cpus[c].runs = cpus[c].l2 = -1;
	histories = traces = donated = 0;
	zero_leaves = 0;
	quiet = false;
	memset(pass, 0, sizeof(pass));
	*verdict = 0;
}

/* ---- Random requests ---- */

static u64 hostile(void)
{
	static const u64 values[] = { 0,
				      1,
				      PAGE_SIZE - 1,
				      PAGE_SIZE_2M - PAGE_SIZE,
				      MM_BATCH,
				      MM_BATCH + 1,
				      FRAMES - 1,
				      FRAMES,
				      BIT(20),
				      BIT(24),
				      BIT(31),
				      BIT(32),
				      BIT(34),
				      BIT(36),
				      BIT(40),
				      BIT(MM_VIEW_BITS) - PAGE_SIZE,
				      BIT(MM_VIEW_BITS),
				      BIT(47),
				      BIT(48),
				      BIT(52) - 1,
				      BIT(52),
				      BIT(63),
				      ~0xfffULL,
				      ~0ULL - 511,
				      ~0ULL };
	u64 value = values[below(ARRAY_SIZE(values))];

	switch (below(4)) {
	case 0:
		return value - below(3) * PAGE_SIZE;
	case 1:
		return value + below(600);
	case 2:
		return chance(50) ? next_random() : next_random() >> below(64);
	default:
		return value;
	}
}

/* ---- VMs of the host's, on EPT02s ---- */

static u64 pick_chunk(void);
static void pick_run(u64 n, u64 *frame, u64 *length);
static int pick_vm(unsigned wanted_states);

static u64 l2_root(unsigned c, unsigned root)
{
	return (u64)((u8 *)cpus[c].shadow.root[root] - memory);
}

/* The entry for gpa in an EPT02 where a walk ends, its level, and how many tables are missing for a leaf of a level. */
static u64 *l2_entry(unsigned c, unsigned root, u64 gpa, unsigned *level, unsigned wanted, unsigned *missing)
{
	u64 table = l2_root(c, root);

	for (*level = 4;; --*level) {
		u64 *entry = &words(table / PAGE_SIZE)[gpa >> (12 + 9 * (*level - 1)) & 511];

		if (!*entry || *level == 1 || (*entry & EPT_LARGE)) {
			*missing = *level > wanted ? *level - wanted : 0;
			return entry;
		}
		if (!may_be_table(l2_root(c, root), *entry & EPT_ADDRESS)) {
			violation("N2: a table at %#llx", ll(*entry));
			return entry;
		}
		table = *entry & EPT_ADDRESS;
	}
}

/* What must come of a fill: the entry and its level; or 0, refused. */
static u64 l2_expected(const struct leaf12 *leaf, u64 gpa, u64 access, unsigned *level)
{
	u64 rights = leaf->rights & EPT_RWX, size = leaf->level == 2 ? PAGE_SIZE_2M : PAGE_SIZE, first, n,
	    type = MEMORY_TYPE_WB;
	u8 state;

	if ((leaf->level != 1 && leaf->level != 2) || gpa >> 48 || leaf->gpa % size || leaf->hpa % size ||
	    gpa < leaf->gpa || gpa - leaf->gpa >= size || leaf->hpa >> address_bits)
		return 0;
	if ((leaf->type != 0 && leaf->type != 1 && leaf->type != 4 && leaf->type != 5 && leaf->type != 6) ||
	    !(rights & EPT_READ))
		return 0;
	first = leaf->hpa / PAGE_SIZE;
	*level = leaf->level;
	for (u64 i = 1; i < size / PAGE_SIZE && first < FRAMES; i++)
		if (frames[first + i].state != frames[first].state || frames[first + i].type != frames[first].type)
			*level = 1;
	if (first < FRAMES && frames[first].state != HYPERPS_FRAME_HOST && frames[first].state != HYPERPS_FRAME_DEVICE)
		*level = 1;
	if (first == ODD_CHUNK)
		*level = 1;
	n = *level == 1 ? (gpa - leaf->gpa) / PAGE_SIZE : 0;
	state = first < FRAMES ? frames[first + n].state : HYPERPS_FRAME_DEVICE;
	if (state != HYPERPS_FRAME_HOST && state != HYPERPS_FRAME_DEVICE)
		return 0;
	if (first < FRAMES)
		type = frames[first + n].type;
	if (ALIGN_DOWN(first, CHUNK) == UC_CHUNK)
		type = MEMORY_TYPE_UC;
	if (first + n == READ_ONLY_PAGE)
		rights &= EPT_READ;
	if (first + n == HIDDEN_PAGE || (access & ~rights))
		return 0;
	if (type == MEMORY_TYPE_WB)
		type = leaf->type;
	return (first + n) * PAGE_SIZE | rights | type << EPT_MEMORY_TYPE_SHIFT | (*level == 2 ? EPT_LARGE : 0);
}

/* INVEPT. What the CPU has cached of the host's and of guests' VMs stays, so that nothing rests on its going, too. */
static void l2_invept(unsigned c)
{
	for (unsigned i = 0; i < CACHE && mutation != NO_INVEPT; i++)
		if (is_l2(cpus[c].entry[i].tag))
			cpus[c].entry[i].valid = false;
	cpus[c].between = true;
}

static void l2_restart(unsigned c)
{
	cpus[c].between = false;
	shadow_restart(&cpus[c].shadow);
	if (cpus[c].shadow.must_invept)
		violation("N2: INVEPT is not enough for CPU %u", c);
}

static enum shadow_result l2_fill(unsigned c, unsigned root, const struct leaf12 *leaf, u64 gpa, u64 access)
{
	struct shadow *shadow = &cpus[c].shadow;
	bool must_invept = shadow->must_invept, resized = false;
	unsigned level = 0, old_level, missing = 0;
	u64 wanted = l2_expected(leaf, gpa, access, &level), *entry, first, n;
	enum shadow_result result;

	if (wanted) {
		entry = l2_entry(c, root, gpa, &old_level, level, &missing);
		/* Where a table has been, there may be small pages in the TLB, even if none is mapped any more. */
		resized = old_level < level || (*entry && old_level > level);
	}
	result = shadow_fill(&mm, shadow, root, leaf, gpa, access);
	record("    CPU %u fills root %u: %#llx by level %u %#llx -> %#llx, rights %u, type %u, access %llu: %d", c,
	       root, ll(gpa), leaf->level, ll(leaf->gpa), ll(leaf->hpa), leaf->rights, leaf->type, ll(access), result);
	l2_calls[result]++;
	if (result == SHADOW_DRY && !must_invept && (!wanted || shadow->used + missing <= shadow->count))
		violation("fill: dry with %llu of %llu tables", ll(shadow->used), ll(shadow->count));
	if (result != SHADOW_DRY && must_invept)
		violation("N2: a fill before INVEPT");
	if (result == SHADOW_REFUSED && wanted)
		violation("fill: %#llx is refused", ll(wanted));
	if (result != SHADOW_FILLED)
		return result;
	if (!wanted) {
		violation("N2: a fill of %#llx with %#llx is not refused", ll(gpa), ll(leaf->hpa));
		return result;
	}
	entry = l2_entry(c, root, gpa, &old_level, level, &missing);
	if (*entry != wanted || old_level != level)
		violation("N2: the fill of %#llx gives %#llx, not %#llx", ll(gpa), ll(*entry), ll(wanted));
	if (shadow->must_invept != resized)
		violation("N2: a page of %s size needs %sINVEPT", resized ? "another" : "the same",
			  resized ? "" : "no ");
	l2_resized += resized;
	l2_large += level == 2;
	first = (wanted & EPT_ADDRESS) / PAGE_SIZE;
	n = span(level) / PAGE_SIZE;
	for (u64 i = first; i < first + n && i < FRAMES; i++) {
		frames[i].named = l2_drops + 1;
		if ((mark_table[i] ^ last_mark[i]) & (BIT(MARK_SHADOW_SHIFT) - 1))
			violation("a fill changes the mark of frame %#llx", ll(i));
		last_mark[i] = mark_table[i];
	}
	check_shadow(c);
	return result;
}

static u64 l2_gpa(void)
{
	u64 gpa = below(3) * PAGE_SIZE_2M + below(4) * PAGE_SIZE + below(PAGE_SIZE);

	if (chance(20))
		gpa += below(3) << 30;
	if (chance(10))
		gpa += (chance(50) ? below(512) : 511) << 39;
	return chance(3) ? hostile() : gpa;
}

/* A leaf that an L1 may have made for gpa. */
static struct leaf12 l2_leaf(u64 gpa, u64 frame)
{
	static const u8 types[] = { 0, 1, 4, 5, 6, 2, 3, 7, 8, 14, 70 };
	unsigned level = 1 + (unsigned)below(2);
	struct leaf12 leaf = { .gpa = ALIGN_DOWN(gpa, span(level)),
			       .hpa = ALIGN_DOWN(frame * PAGE_SIZE, span(level)),
			       .rights = EPT_RWX,
			       .type = MEMORY_TYPE_WB,
			       .level = (u8)level };

	if (chance(20))
		leaf.rights = (u8)below(chance(80) ? 8 : 256);
	if (chance(20))
		leaf.type = types[below(chance(80) ? 5 : ARRAY_SIZE(types))];
	if (chance(90))
		return leaf;
	switch (below(5)) {
	case 0:
		leaf.level = (u8)(chance(70) ? below(6) : below(256));
		break;
	case 1:
		leaf.gpa += PAGE_SIZE << below(10);
		break;
	case 2:
		leaf.hpa += 1 << below(21);
		break;
	case 3:
		leaf.hpa = hostile();
		break;
	default:
		leaf.gpa = hostile();
	}
	return leaf;
}

static u64 l2_frame(void)
{
	int slot = pick_vm(1 << HYPERPS_VM_SEALED);
	u64 frame, n;

	if (chance(10))
		return ODD_CHUNK + below(chance(50) ? 12 : 2 * CHUNK);
	if (chance(5)) /* where no mark is */
		return FRAMES + below((1ULL << (address_bits - 12)) - FRAMES + CHUNK);
	if (chance(30))
		return pick_chunk() + below(CHUNK);
	if (slot >= 0 && chance(15)) {
		s64 own = frame_of((unsigned)slot);

		return own >= 0 ? (u64)own : 0;
	}
	pick_run(1, &frame, &n);
	return chance(60) ? frame : below(FRAMES);
}

/* Before it enters, or hands out a table again. Often something comes between INVEPT and what follows from it. */
static bool l2_flush(unsigned c)
{
	if (!cpus[c].between)
		l2_invept(c);
	if (chance(30))
		return false;
	l2_restart(c);
	return true;
}

/* The violation of an L2, as its CPU handles it. */
static void l2_violation(unsigned c, unsigned root, u64 gpa, u64 frame)
{
	struct leaf12 leaf = l2_leaf(gpa, frame);
	u64 access = chance(80) ? 1ULL << below(3) : below(10);
	enum shadow_result result = l2_fill(c, root, &leaf, gpa, access);

	for (unsigned i = 0; result == SHADOW_DRY && !*verdict; i++) {
		shadow_reset(&cpus[c].shadow);
		cpus[c].between = false;
		if (!l2_flush(c))
			return;
		result = l2_fill(c, root, &leaf, gpa, access);
		if (result == SHADOW_DRY)
			violation("N6: CPU %u has no tables after INVEPT", c);
	}
	/* Some of its neighbours. */
	for (u64 i = below(4); i && !*verdict; i--) {
		u64 next = ALIGN_DOWN(gpa, PAGE_SIZE_2M) + below(4) * PAGE_SIZE;

		leaf = l2_leaf(next, frame + below(4));
		if (l2_fill(c, root, &leaf, next, 0) == SHADOW_DRY)
			break;
	}
}

static void l2_enter(unsigned c)
{
	struct shadow *shadow = &cpus[c].shadow;
	u64 eptp12 = (1 + below(EPTPS)) << 12 | 0x1e, before[SHADOW_ROOTS];
	struct cpu *cpu = &cpus[c];
	unsigned root;

	if (cpus[c].between)
		l2_restart(c);
	root = shadow_find(shadow, eptp12);
	if (root == SHADOW_ROOTS) {
		memcpy(before, shadow->eptp12, sizeof(before));
		root = shadow_assign(shadow, eptp12);
		for (unsigned i = 0; i < SHADOW_ROOTS && root < SHADOW_ROOTS; i++)
			if (cpu->l2_used[before[i] >> 12] < cpu->l2_used[before[root] >> 12])
				violation("root %u is replaced, root %u was used before", root, i);
		if (root < SHADOW_ROOTS && next_entry(shadow->root[root], 0) < ENTRIES)
			violation("N5: an EPT12 gets another's EPT02");
		if (root >= SHADOW_ROOTS || shadow_find(shadow, eptp12) != root)
			violation("no root for an EPT12");
	}
	if (*verdict || shadow->eptp12[root] != eptp12)
		violation("the root of another EPT12");
	cpu->l2_used[eptp12 >> 12] = ++cpu->l2_clock;
	if (shadow->must_invept && !l2_flush(c))
		return;
	cpus[c].l2 = (int)root;
}

/* In the middle of a request, and so under mm_lock: what would exit waits. */
static void touch_l2(unsigned c, u64 gpa)
{
	unsigned root = (unsigned)cpus[c].l2;
	struct cached leaf;
	bool cached;
	u64 frame;
	u8 state;

	if (gpa < BIT(48) && translate(&cpus[c], l2_root(c, root), 4, gpa, &leaf, &cached)) {
		check_held(c, &leaf, false);
		frame = leaf_frame(&leaf, gpa);
		if (frame >= FRAMES || *verdict)
			return;
		state = frames[frame].state;
		l2_stale += state != HYPERPS_FRAME_HOST && state != HYPERPS_FRAME_DEVICE;
		if (!now.busy && leaf.writable && state != HYPERPS_FRAME_DEVICE)
			write_stamp(frame, next_random() | 1);
		return;
	}
	if (now.busy || *verdict)
		return;
	cpus[c].l2 = -1;
	l2_violation(c, root, gpa, l2_frame());
	if (!cpus[c].between && (!cpus[c].shadow.must_invept || l2_flush(c)))
		cpus[c].l2 = (int)root;
}

/* An INVEPT of L1's, of one EPT12 or of all. */
static void l2_drop(unsigned c)
{
	struct shadow *shadow = &cpus[c].shadow;
	u64 eptp12 = (1 + below(EPTPS)) << 12 | 0x1e;
	unsigned root = shadow_find(shadow, eptp12);

	if (root != SHADOW_ROOTS)
		cpus[c].l2_used[eptp12 >> 12] = ++cpus[c].l2_clock;
	cpus[c].l2 = -1;
	if (root == SHADOW_ROOTS)
		shadow_reset(shadow);
	else
		shadow_drop(shadow, root);
	for (unsigned i = 0; i < SHADOW_ROOTS; i++)
		if ((root == SHADOW_ROOTS || i == root) && next_entry(shadow->root[i], 0) < ENTRIES)
			violation("N5: an EPT02 is not empty after INVEPT");
	l2_invept(c);
	l2_flush(c);
}

static void l2_step(void)
{
	unsigned c = (unsigned)below(CPUS);

	if (cpus[c].l2 < 0)
		l2_enter(c);
	else if (chance(10))
		l2_drop(c);
	else if (chance(10))
		cpus[c].l2 = -1;
	else
		touch_l2(c, l2_gpa());
}

/* Some L2 has the frame just now, as a page or part of one. */
static void l2_name(u64 frame)
{
	unsigned c = (unsigned)below(CPUS);
	u64 gpa = l2_gpa();

	if (cpus[c].l2 < 0)
		l2_enter(c);
	if (cpus[c].l2 < 0 || *verdict)
		return;
	if (!cpus[c].shadow.must_invept)
		l2_violation(c, (unsigned)cpus[c].l2, gpa, frame);
	if (cpus[c].between || cpus[c].shadow.must_invept)
		cpus[c].l2 = -1;
	for (u64 i = 1 + below(3); i && cpus[c].l2 >= 0 && !*verdict; i--)
		touch_l2(c, chance(50) ? gpa : ALIGN_DOWN(gpa, PAGE_SIZE_2M) + below(4) * PAGE_SIZE);
	l2_last.cpu = c;
	l2_last.gpa = gpa;
}

/* A live VM, preferably in a state; -1 if there is none. Often one that has frames, if there is one. */
static int pick_vm(unsigned wanted_states)
{
	unsigned start = (unsigned)below(HYPERPS_VMS);
	bool filled = chance(50);
	int any = -1;

	for (unsigned i = 0; i < HYPERPS_VMS; i++) {
		int slot = (int)((start + i) % HYPERPS_VMS);

		if (vms[slot].state == HYPERPS_VM_FREE)
			continue;
		if (wanted_states >> vms[slot].state & 1) {
			if (!filled || vms[slot].count[HYPERPS_FRAME_PRIVATE])
				return slot;
			any = slot;
		}
		if (any < 0)
			any = slot;
	}
	return any;
}

static u64 pick_handle(unsigned wanted_states)
{
	int slot = chance(4) ? pick_vm(0) : pick_vm(wanted_states);

	if (histories && chance(2))
		return history[below(histories)];
	if (slot < 0 || chance(2))
		return hostile();
	return chance(1) ? vms[slot].handle ^ BIT(below(64)) : vms[slot].handle;
}

/* A run of up to n frames of the host's. */
static void pick_run(u64 n, u64 *frame, u64 *length)
{
	u64 start = below(FRAMES), i = 0;

	while (i < FRAMES && frames[(start + i) % FRAMES].state != HYPERPS_FRAME_HOST)
		i++;
	*frame = (start + i) % FRAMES;
	*length = 0;
	while (*length < n && *frame + *length < FRAMES && frames[*frame + *length].state == HYPERPS_FRAME_HOST)
		++*length;
	if (!*length || chance(4))
		*length = n;
}

static void random_map(unsigned profile)
{
	u64 handle = pick_handle(1 << HYPERPS_VM_OPEN | 1 << HYPERPS_VM_SEALED), frame, n, gpa;
	int slot = slot_of(handle);
	u64 style = below(16);

	if ((profile == 2 || profile == 5) && style > 4)
		style = below(4);
	if (profile == 3)
		style = 7;
	if (style < 3) { /* a whole 2 MiB page */
		frame = below(CHUNKS) * CHUNK;
		n = CHUNK;
	} else if (style == 15) { /* many */
		pick_run(MM_BATCH + below(12 * MM_BATCH), &frame, &n);
	} else if (style < 5) { /* what is left of one */
		pick_run(CHUNK, &frame, &n);
		if (n > CHUNK - frame % CHUNK)
			n = CHUNK - frame % CHUNK;
	} else if (style < 7) {
		pick_run(chance(70) ? 1 + below(MM_BATCH) : CHUNK - 2 + below(6), &frame, &n);
	} else if (style < 14) {
		pick_run(1 + below(8), &frame, &n);
	} else {
		frame = below(FRAMES);
		n = 1 + below(20);
	}
	gpa = (slot >= 0 ? vms[slot].base : 0) + frame * PAGE_SIZE;
	if (chance(profile == 5 ? 50 : 20))
		gpa = below(FRAMES) * PAGE_SIZE;
	if (n >= CHUNK && chance(50)) /* aligned, as the frame may not be */
		gpa = ALIGN_DOWN(gpa, PAGE_SIZE_2M);
	if (chance(5))
		gpa = BIT(MM_VIEW_BITS) - below(n + 2) * PAGE_SIZE;
	if (slot >= 0 && chance(5)) {
		s64 own = frame_of((unsigned)slot);

		if (own >= 0)
			gpa = frames[own].gpa - below(n + 1) * PAGE_SIZE;
	}
	if (chance(8)) { /* hostile */
		switch (below(4)) {
		case 0:
			gpa = hostile();
			break;
		case 1:
			frame = hostile();
			break;
		case 2:
			n = hostile();
			break;
		default:
			gpa = hostile();
			frame = hostile();
			n = hostile();
		}
	}
	if (frame < FRAMES && n <= MM_BATCH && chance(40))
		l2_name((frame + below(n + 1)) % FRAMES);
	/* Some CPU has the frame in its TLB just now. */
	if (frame < FRAMES && n <= MM_BATCH && chance(60))
		touch_host((unsigned)below(CPUS), (frame + below(n + 1)) % FRAMES * PAGE_SIZE);
	do_map(handle, gpa, frame, n);
}

static u64 random_permissions(void)
{
	if (chance(6))
		return 8; /* MMIO */
	return chance(60) ? EPT_RWX : 1 | below(4) << 1;
}

/* Ranges of a new VM: all of the view; or where random_map() aims at, in pieces and with gaps. */
static void declare_some(int slot)
{
	u64 handle = vms[slot].handle, cut = 1 + below(FRAMES - 1), base = vms[slot].base;

	switch (below(8)) {
	case 0:
		return;
	case 1 ... 5:
		do_declare(handle, 0, 1ULL << (MM_VIEW_BITS - 12), random_permissions());
		return;
	default:
		do_declare(handle, base, cut - below(2), random_permissions());
		do_declare(handle, base + cut * PAGE_SIZE, FRAMES - cut, random_permissions());
		do_declare(handle, 0, 1 + below(FRAMES), random_permissions());
		do_declare(handle, BIT(MM_VIEW_BITS) - CHUNK * PAGE_SIZE, CHUNK, random_permissions());
	}
}

/* Pages far apart, so that walks are long. */
static void scatter(int slot)
{
	u64 frame, n;

	for (u64 i = 0; i < 8 && !*verdict; i++) {
		pick_run(1, &frame, &n);
		do_map(vms[slot].handle, below(32) << 41, frame, 1);
	}
}

static void random_declare(void)
{
	u64 handle = pick_handle(1 << HYPERPS_VM_OPEN), gpa = below(FRAMES) * PAGE_SIZE, n = 1 + below(FRAMES / 4);
	u64 permissions = random_permissions();
	int slot = slot_of(handle);

	if (slot >= 0 && chance(70))
		gpa += vms[slot].base;
	if (slot >= 0 && vms[slot].range_count && chance(50)) { /* at an edge of another one, or a page over it */
		unsigned i = (unsigned)below(vms[slot].range_count);

		if (chance(50))
			gpa = (vms[slot].ranges[i].last + below(2)) * PAGE_SIZE;
		else
			gpa = (vms[slot].ranges[i].first - n + below(2)) * PAGE_SIZE;
	}
	if (chance(20))
		gpa = hostile();
	if (chance(20))
		n = hostile();
	if (chance(10))
		permissions = chance(50) ? below(16) : hostile();
	do_declare(handle, gpa, n, permissions);
}

/* A 2 MiB page that is the host's, preferably. */
static u64 pick_chunk(void)
{
	u64 chunk = below(CHUNKS);

	for (u64 i = 0, frame; i < CHUNKS; i++, chunk = (chunk + 1) % CHUNKS) {
		for (frame = 0; frame < CHUNK && frames[chunk * CHUNK + frame].state == HYPERPS_FRAME_HOST; frame++)
			;
		if (frame == CHUNK)
			break;
	}
	return chunk * CHUNK;
}

static void random_guest(enum kind kind)
{
	u64 handle = pick_handle(1 << HYPERPS_VM_SEALED), n = chance(60) ? 1 + below(8) : 1 + below(MM_BATCH + 4),
	    start = below(FRAMES);
	u64 gpa = below(FRAMES) * PAGE_SIZE, length = 0, first = 0;
	int slot = slot_of(handle);

	for (unsigned i = 0; i < 8 && slot >= 0 && !vms[slot].count[guest_requests[kind].from]; i++) {
		handle = pick_handle(1 << HYPERPS_VM_SEALED);
		slot = slot_of(handle);
	}
	/* A run of frames that fits, in the order of frames. */
	for (u64 i = 0; slot >= 0 && i < FRAMES; i++) {
		const struct frame *f = &frames[(start + i) % FRAMES];

		if (f->state != guest_requests[kind].from || f->vm != (u16)slot)
			continue;
		gpa = f->gpa;
		first = (start + i) % FRAMES;
		while (length < n && start + i + length < FRAMES && f[length].state == f->state &&
		       f[length].vm == f->vm && f[length].gpa == gpa + length * PAGE_SIZE)
			length++;
		break;
	}
	if (length && chance(90))
		n = length;
	if (chance(15)) { /* perhaps all of a large page */
		gpa = ALIGN_DOWN(gpa, PAGE_SIZE_2M);
		n = CHUNK;
	}
	if (chance(4))
		gpa = hostile();
	if (chance(4))
		n = hostile();
	if (slot >= 0 && vms[slot].state == HYPERPS_VM_SEALED)
		for (u64 i = below(4); i; i--)
			touch_guest((unsigned)below(CPUS), (unsigned)slot,
				    (ALIGN_DOWN(gpa, PAGE_SIZE) + below(n ? n : 1) * PAGE_SIZE) % BIT(MM_VIEW_BITS));
	/* The host has read one of them, or does still. */
	if (slot >= 0 && vms[slot].kvm && vms[slot].state == HYPERPS_VM_SEALED && length && kind == RELEASE &&
	    chance(70)) {
		do_zeros(first);
		do_zeros(first + length - 1);
	}
	do_guest(kind, handle, gpa, n);
	for (unsigned c = 0; c < CPUS && length; c++)
		touch_host(c, first * PAGE_SIZE);
	if (chance(20))
		do_look_up(handle, gpa + below(PAGE_SIZE));
}

static void random_donate(unsigned profile)
{
	u64 frame = below(CHUNKS) * CHUNK;

	/* Some must be left for the VMs. */
	if (donated < (profile == 4 ? 8 : 3) && chance(50))
		frame = pick_chunk();
	else if (donated >= CHUNKS / 2 || chance(60))
		frame = chance(50) ? below(FRAMES) | 1 : hostile();
	if (frame < FRAMES && chance(60))
		l2_name((frame + below(CHUNK + 1)) % FRAMES);
	if (frame < FRAMES && chance(60))
		touch_host((unsigned)below(CPUS), (frame + below(CHUNK + 1)) % FRAMES * PAGE_SIZE);
	do_donate(frame);
}

static void random_query(void)
{
	u64 handle = pick_handle(~0U), frame = chance(95) ? below(FRAMES) : hostile();
	int slot = slot_of(handle);
	s64 own = slot >= 0 && chance(50) ? frame_of((unsigned)slot) : -1;

	do_query(handle, own >= 0 ? (u64)own : frame);
}

static void random_look_up(u64 handle)
{
	u64 gpa = below(FRAMES) * PAGE_SIZE + below(PAGE_SIZE);
	int slot = slot_of(handle);
	s64 own = slot >= 0 && chance(60) ? frame_of((unsigned)slot) : -1;

	if (slot >= 0)
		gpa += vms[slot].base;
	if (own >= 0)
		gpa = frames[own].gpa + below(PAGE_SIZE);
	if (slot >= 0 && vms[slot].range_count && chance(30)) { /* an edge */
		unsigned i = (unsigned)below(vms[slot].range_count);

		gpa = (chance(50) ? vms[slot].ranges[i].first : vms[slot].ranges[i].last + 1) * PAGE_SIZE - below(2);
	}
	do_look_up(handle, chance(20) ? hostile() : gpa);
}

/* As a rule all the way; sometimes with a try in between to change what is being measured. */
static void random_seal(u64 handle)
{
	do {
		do_seal(handle);
		if (!*verdict && now.vm >= 0 && chance(15))
			do_declare(handle, vms[now.vm].base + below(2 * FRAMES) * PAGE_SIZE, 1 + below(4),
				   random_permissions());
	} while (!*verdict && now.vm >= 0 && vms[now.vm].state == HYPERPS_VM_SEALING && chance(99));
}

static void random_run(void)
{
	unsigned c = (unsigned)below(CPUS);

	leave(c);
	if (chance(80))
		do_enter(c, pick_handle(1 << HYPERPS_VM_SEALED));
	for (u64 i = below(4); i && cpus[c].runs >= 0; i--)
		random_look_up(vms[cpus[c].runs].handle);
}

static void random_destroy(void)
{
	const unsigned alive = 1 << HYPERPS_VM_OPEN | 1 << HYPERPS_VM_SEALING | 1 << HYPERPS_VM_SEALED;
	u64 handle = pick_handle(chance(50) ? 1 << HYPERPS_VM_DYING : alive);
	int slot = slot_of(handle);

	if (slot >= 0 && chance(70))
		leave_all(slot);
	do_destroy(handle);
}

/* Some frame in a state, of a KVM VM in some state where it is a VM's; or any. */
static u64 kvm_frame(unsigned frame_states, unsigned vm_states)
{
	u64 start = below(FRAMES);

	for (u64 i = 0; i < FRAMES; i++) {
		const struct frame *f = &frames[(start + i) % FRAMES];

		if (!(frame_states >> f->state & 1))
			continue;
		if (is_of_vm((start + i) % FRAMES) && f->vm != MARK_NOBODY &&
		    (!vms[f->vm].kvm || !(vm_states >> vms[f->vm].state & 1)))
			continue;
		return (start + i) % FRAMES;
	}
	return start;
}

static int pick_kvm(unsigned wanted_states)
{
	unsigned start = (unsigned)below(HYPERPS_VMS);

	for (unsigned i = 0; i < HYPERPS_VMS; i++)
		if (vms[(start + i) % HYPERPS_VMS].kvm && wanted_states >> vms[(start + i) % HYPERPS_VMS].state & 1)
			return (int)((start + i) % HYPERPS_VMS);
	return -1;
}

#define ALIVE (1U << HYPERPS_VM_OPEN | 1U << HYPERPS_VM_SEALING | 1U << HYPERPS_VM_SEALED)
#define ENDING (1U << HYPERPS_VM_DYING | 1U << HYPERPS_VM_DEAD)

/* First touch of what a dead VM has left. */
static void random_adopt(void)
{
	int slot = pick_kvm(1U << HYPERPS_VM_SEALED);
	u64 frame = kvm_frame(1U << HYPERPS_FRAME_ORPHAN, 0), n = 0;

	if (slot < 0 || chance(10))
		slot = pick_vm(ALIVE);
	while (n < 64 && frame + n < FRAMES && frames[frame + n].state == HYPERPS_FRAME_ORPHAN)
		n++;
	if (slot < 0 || !n)
		return;
	if (chance(30))
		n = 1 + below(n + 2);
	from_dead++;
	do_map(vms[slot].handle, vms[slot].base + frame * PAGE_SIZE, frame, n);
}

static void kvm_step(void)
{
	const unsigned held = 1U << HYPERPS_FRAME_PRIVATE | 1U << HYPERPS_FRAME_TO_VM;
	unsigned c = (unsigned)below(CPUS);
	u64 frame;
	int slot;

	switch (below(16)) {
	case 0 ... 1:
		do_create_kvm();
		break;
	case 2:
		slot = chance(5) ? (int)below(HYPERPS_VMS) : pick_kvm(ALIVE);
		if (slot >= 0)
			do_kill(slot);
		break;
	case 3 ... 5:
		slot = chance(5) ? (int)below(HYPERPS_VMS) : chance(50) ? pick_kvm(ENDING) : -1;
		if (slot >= 0 && chance(50))
			leave_all(slot);
		do_bury(slot);
		break;
	case 6 ... 7:
		frame = kvm_frame(held | 1U << HYPERPS_FRAME_TO_HOST, chance(90) ? 1U << HYPERPS_VM_DYING : ~0U);
		if (chance(50) && is_of_vm(frame) && frames[frame].vm < HYPERPS_VMS)
			leave_all(frames[frame].vm);
		do_orphan(chance(3) ? hostile() : frame);
		break;
	case 8:
		frame = kvm_frame(1U << HYPERPS_FRAME_ORPHAN, 0);
		for (u64 i = frame; i < FRAMES && !frames[frame].zeros; i++)
			frame = frames[i].zeros && frames[i].state == HYPERPS_FRAME_ORPHAN ? i : frame;
		touch_host(c, frame * PAGE_SIZE);
		do_return_begin(chance(3) ? FRAMES + below(FRAMES) : frame);
		touch_host(c, frame * PAGE_SIZE);
		break;
	case 9 ... 10:
		if (chance(30))
			flush_all();
		do_return_end(chance(3) ? hostile() : kvm_frame(1U << HYPERPS_FRAME_TO_HOST, 0));
		break;
	case 11 ... 13:
		frame = kvm_frame(held, ALIVE);
		if (held >> frames[frame].state & 1 && vms[frames[frame].vm].kvm &&
		    ALIVE >> vms[frames[frame].vm].state & 1)
			do_zeros(frame);
		break;
	default:
		random_adopt();
	}
}

enum operation { OP_FLUSH = KINDS, OP_FLUSH_ALL, OP_EPOCH, OPERATIONS };

static void step(unsigned profile)
{
	/*
	 * create map sync seal destroy reclaim donate query declare share unshare release enter look-up flush flush-all
	 * epoch
	 */
	static const u8 weights[PROFILES][LOOK_UP + 1 + OPERATIONS - KINDS] = {
		{ 5, 22, 12, 10, 4, 8, 2, 6, 3, 8, 6, 5, 6, 4, 20, 4, 8 }, /* a bit of everything */
		{ 40, 16, 8, 3, 3, 8, 4, 4, 3, 2, 2, 2, 5, 3, 10, 3, 4 }, /* many VMs */
		{ 3, 30, 18, 8, 5, 14, 1, 2, 3, 8, 5, 6, 6, 3, 14, 10, 6 }, /* large pages */
		{ 2, 50, 6, 3, 1, 3, 1, 2, 3, 6, 6, 10, 5, 2, 6, 1, 3 }, /* many small runs */
		{ 4, 18, 10, 8, 4, 8, 14, 4, 3, 4, 3, 3, 5, 3, 20, 5, 8 }, /* donations */
		{ 4, 26, 14, 6, 9, 14, 1, 2, 3, 5, 4, 5, 6, 2, 14, 10, 6 }, /* a pool just above its reserve */
		{ 3, 30, 40, 8, 3, 6, 2, 1, 3, 8, 8, 8, 5, 2, 20, 0, 20 }, /* flushes that overlap */
		{ 2, 22, 20, 8, 1, 12, 1, 1, 1, 24, 16, 12, 9, 4, 10, 8, 4 }, /* guests that share and release */
		{ 1, 22, 20, 10, 1, 6, 1, 2, 1, 1, 1, 12, 9, 4, 14, 8, 8 }, /* KVM VMs */
	};
	u64 total = 0, dice;
	unsigned operation = 0;

	for (u64 i = below(profile == 6 ? 12 : 4); i; i--)
		touch();
	if (cpus[l2_last.cpu].l2 >= 0 && chance(70))
		touch_l2(l2_last.cpu, l2_last.gpa);
	for (u64 i = below(6); i && !*verdict; i--)
		l2_step();
	if (*verdict)
		return;
	if (chance(profile == 8 ? 40 : 8)) {
		kvm_step();
		return;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(weights[0]); i++)
		total += weights[profile][i];
	dice = below(total);
	while (dice >= weights[profile][operation])
		dice -= weights[profile][operation++];
	if (operation > LOOK_UP)
		operation += OP_FLUSH - LOOK_UP - 1;
	if (count[HYPERPS_FRAME_HOST] < FRAMES / 4 && operation == MAP && chance(40))
		operation = chance(30) ? DESTROY : RECLAIM;
	switch (operation) {
	case CREATE:
		do_create();
		if (now.vm >= 0)
			declare_some(now.vm);
		if (now.vm >= 0 && chance(10))
			scatter(now.vm);
		break;
	case MAP:
		random_map(profile);
		break;
	case SYNC:
		do_sync(pick_handle(1 << HYPERPS_VM_OPEN | 1 << HYPERPS_VM_SEALED));
		if (profile == 7 && now.vm >= 0 && vms[now.vm].count[HYPERPS_FRAME_PRIVATE] && chance(30))
			random_seal(now.handle);
		break;
	case SEAL:
		random_seal(pick_handle(1 << HYPERPS_VM_OPEN | 1 << HYPERPS_VM_SEALING));
		break;
	case DESTROY:
		random_destroy();
		break;
	case RECLAIM:
		do_reclaim(pick_handle(chance(70) ? 1 << HYPERPS_VM_DEAD : 1 << HYPERPS_VM_SEALED));
		break;
	case DONATE:
		random_donate(profile);
		break;
	case QUERY:
		random_query();
		break;
	case DECLARE:
		random_declare();
		break;
	case SHARE:
	case UNSHARE:
	case RELEASE:
		random_guest((enum kind)operation);
		break;
	case OP_FLUSH:
		flush((unsigned)below(CPUS));
		break;
	case OP_FLUSH_ALL:
		flush_all();
		break;
	case ENTER:
		random_run();
		break;
	case LOOK_UP:
		random_look_up(pick_handle(1 << HYPERPS_VM_SEALED));
		break;
	default:
		begin_round();
	}
}

/* All VMs go; then all RAM but the monitor's is the host's, and what was ever a VM's was zero when it came back. */
static void wind_down(void)
{
	u64 monitors = 0, hosts = 0, frame;

	for (unsigned try = 0; try < 1000 && !*verdict; try++) {
		int slot = pick_vm(1 << HYPERPS_VM_OPEN | 1 << HYPERPS_VM_SEALING | 1 << HYPERPS_VM_SEALED |
				   1 << HYPERPS_VM_DYING);

		if (slot < 0)
			break;
		leave_all(slot);
		if (vms[slot].state != HYPERPS_VM_DEAD) {
			do_destroy(vms[slot].handle);
		} else {
			flush_all();
			do_reclaim(vms[slot].handle);
			/* The pool may be too small by now. */
			frame = pick_chunk();
			if (free_pages < MM_POOL_RESERVE && frames[frame].state == HYPERPS_FRAME_HOST)
				do_donate(frame);
		}
	}
	if (!*verdict && pick_vm(0) >= 0)
		violation("VM %d can't be destroyed and reclaimed; %llu pages free", pick_vm(0), ll(free_pages));
	for (frame = 0; frame < FRAMES && !*verdict; frame++) {
		if (frames[frame].state == HYPERPS_FRAME_ORPHAN)
			do_return_begin(frame);
		for (unsigned try = 0; try < 4 && frames[frame].state == HYPERPS_FRAME_TO_HOST && !*verdict; try++) {
			flush_all();
			do_return_end(frame);
			if (free_pages < MM_POOL_RESERVE && frames[pick_chunk()].state == HYPERPS_FRAME_HOST)
				do_donate(pick_chunk());
		}
	}
	if (!*verdict && !is_zero(mm.zeros))
		violation("I2: the frame of zeros has content");
	/* "any request" empties the pool's quarantine */
	for (unsigned try = 0; try < 200 && !*verdict && count[HYPERPS_FRAME_TO_MONITOR]; try++) {
		flush_all();
		do_create();
		do_sync(~0ULL);
		for (int slot = 0; slot < HYPERPS_VMS; slot++)
			if (vms[slot].state == HYPERPS_VM_OPEN && try < 4)
				do_destroy(vms[slot].handle);
	}
	if (!*verdict && count[HYPERPS_FRAME_TO_MONITOR])
		violation("%llu frames stay TO_MONITOR", ll(count[HYPERPS_FRAME_TO_MONITOR]));
	for (frame = 0; frame < FRAMES; frame++) {
		monitors += frames[frame].state == HYPERPS_FRAME_MONITOR;
		hosts += frames[frame].state == HYPERPS_FRAME_HOST;
		check_content(frame);
	}
	if (!*verdict && monitors + hosts + count[HYPERPS_FRAME_DEVICE] != FRAMES)
		violation("%llu frames are nobody's", ll(FRAMES - monitors - hosts - count[HYPERPS_FRAME_DEVICE]));
}

/* One sequence; NULL, or what went wrong. */
static const char *run(u64 seed, enum mutation kind, unsigned profile)
{
	unsigned i;

	random_state = seed * 0x9e3779b97f4a7c15ULL + 1;
	for (i = 0; i < 8; i++)
		next_random();
	mutation = kind;
	reset();
	set_up(profile);
	check_all();
	for (i = 0; i < STEPS && !*verdict; i++)
		step(profile);
	if (!*verdict)
		wind_down();
	if (!*verdict)
		return NULL;
	snprintf(finding, sizeof(finding), "seed %llu, profile %u, step %u: %s", ll(seed), profile, i, verdict);
	return finding;
}

/* ---- The tests ---- */

static u64 from_environment(const char *name, u64 otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

static void random_sequences(void **state)
{
	u64 first = from_environment("HYPERPS_MANAGER_FIRST", 1);
	u64 last = first + from_environment("HYPERPS_MANAGER_SEEDS", SEQUENCES);

	(void)state;
	memset(calls, 0, sizeof(calls));
	for (u64 seed = first; seed < last; seed++) {
		const char *found = run(seed, FAITHFUL, (unsigned)(seed % PROFILES));

		if (!found)
			continue;
		for (unsigned i = traces > ARRAY_SIZE(trace) ? traces - (unsigned)ARRAY_SIZE(trace) : 0; i < traces;
		     i++)
			print_error("%s\n", trace[i % ARRAY_SIZE(trace)]);
		fail_msg("%s", found);
	}
	for (unsigned kind = 0; kind < KINDS; kind++) {
		print_message("%s: %llu done, %llu refused\n", kind_name[kind], ll(calls[kind][1]), ll(calls[kind][0]));
		/* A test in which nothing succeeds, or nothing fails, tests nothing. */
		if (last - first >= SEQUENCES)
			assert_true((calls[kind][0] || kind >= KILL) && calls[kind][1]);
	}
	print_message(
		"%llu table pages given back, %llu pages came into the pool, %llu stale accesses, %llu stale tables\n",
		ll(merged), ll(promotions), ll(stale_accesses), ll(stale_tables));
	print_message(
		"%llu zeros read, %llu by a stale leaf; %llu frames from the dead to KVM VMs, %llu tries; %llu killed "
		"while a vCPU ran\n",
		ll(zero_reads), ll(stale_zeros), ll(adopted), ll(from_dead), ll(killed_running));
	if (last - first >= SEQUENCES)
		assert_true(zero_reads && stale_zeros && adopted && killed_running);
	print_message("%llu reclaims of living VMs, %llu stale accesses of guests\n", ll(returned), ll(guest_stale));
	print_message("%llu maps of more than one batch, %llu steps of sealing, %llu VMs kept alive by a vCPU\n",
		      ll(multiple), ll(half_sealed), ll(kept_alive));
	print_message("%llu EPT02 fills, %llu dry, %llu refused; %llu large, %llu of another size; %llu stale accesses "
		      "of L2s\n",
		      ll(l2_calls[SHADOW_FILLED]), ll(l2_calls[SHADOW_DRY]), ll(l2_calls[SHADOW_REFUSED]), ll(l2_large),
		      ll(l2_resized), ll(l2_stale));
	print_message("EPT02s stay in %llu requests, the generation begins anew %llu times\n", ll(l2_kept),
		      ll(l2_wrapped));
	if (last - first >= SEQUENCES)
		assert_true(l2_calls[SHADOW_FILLED] && l2_calls[SHADOW_DRY] && l2_calls[SHADOW_REFUSED] && l2_large &&
			    l2_resized && l2_stale && l2_kept && l2_wrapped);
	if (last - first >= SEQUENCES)
		assert_true(multiple && half_sealed && kept_alive && returned && guest_stale && merged && promotions &&
			    stale_accesses && stale_tables);
}

/* The test must be able to fail: each lie of the model's must be found, and for the right reason. */
static void assert_found(enum mutation kind, const char *const *reasons, unsigned least)
{
	unsigned found = 0;

	for (u64 seed = 1; seed <= 20; seed++) {
		const char *reason = run(seed, kind, (unsigned)(seed % PROFILES));
		bool right = !reason;

		found += reason != NULL;
		for (unsigned i = 0; reasons[i] && !right; i++)
			right = strstr(reason, reasons[i]);
		if (!right)
			fail_msg("mutation %d: %s", kind, reason);
	}
	if (found < least)
		fail_msg("mutation %d: found by %u sequences of 20", kind, found);
}

static void finds_claimed_flushes(void **state)
{
	static const char *const reasons[] = { ": I1:", ": I2:", ": I3:", ": I4:", ": N2:", ": P4:", NULL };

	(void)state;
	assert_found(CLAIM_FLUSH, reasons, 15);
	assert_found(CLAIM_LAST_CPU, reasons, 15);
}

/* A frame leaves the host between the beginnings of two flushes that overlap; the first one's end is not enough for it.
 */
static const char *overlapping_flushes(enum mutation kind)
{
	const u64 frame = 0x800; /* the host's in every set-up */

	random_state = 1;
	mutation = kind;
	reset();
	set_up(0);
	do_create();
	begin_round();
	flush(0);
	touch_host(0, frame * PAGE_SIZE);
	do_declare(history[0], 0, 1, EPT_RWX);
	do_map(history[0], 0, frame, 1);
	begin_round();
	for (unsigned c = 1; c < CPUS; c++)
		flush(c);
	do_sync(history[0]); /* the specification expects _AGAIN */
	return *verdict ? verdict : NULL;
}

static void finds_claimed_later_epoch(void **state)
{
	const char *found = overlapping_flushes(FAITHFUL);

	(void)state;
	if (found)
		fail_msg("%s", found);
	found = overlapping_flushes(CLAIM_LATER_EPOCH);
	assert_non_null(found);
	assert_memory_equal(found, "I1: CPU 0 still reaches", 23);
}

static void finds_kept_content(void **state)
{
	static const char *const reasons[] = { ": I4:", ": I5:", NULL };

	(void)state;
	assert_found(KEEP_CONTENT, reasons, 10);
}

static void finds_forgotten_invepts(void **state)
{
	static const char *const reasons[] = { ": N2:", ": N5:", NULL };

	(void)state;
	assert_found(NO_INVEPT, reasons, 18);
}

static int setup(void **state)
{
	(void)state;
	memory = aligned_alloc(PAGE_SIZE_2M, MEMORY_SIZE);
	memset(memory, 0x5a, MEMORY_SIZE);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(memory);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_sequences),          cmocka_unit_test(finds_claimed_flushes),
		cmocka_unit_test(finds_claimed_later_epoch), cmocka_unit_test(finds_kept_content),
		cmocka_unit_test(finds_forgotten_invepts),
	};

	return cmocka_run_group_tests_name("manager_property", tests, setup, teardown);
}
