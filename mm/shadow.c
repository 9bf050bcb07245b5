// SPDX-License-Identifier: MIT
#include "shadow.h"
#include "manager.h"

#define ENTRIES 512
#define LEVELS 4
#define TYPES 0x73U /* bit n: there is a memory type n; any other makes the CPU call a leaf misconfigured */

void shadow_drop(struct shadow *shadow, unsigned root)
{
	/* Each entry by one store: its CPU may be walking there. */
	volatile u64 *entry = shadow->root[root];

	for (unsigned i = shadow->first[root]; i <= shadow->last[root]; i++)
		entry[i] = 0;
	shadow->first[root] = ENTRIES;
	shadow->last[root] = 0;
	shadow->must_invept = true;
}

void shadow_reset(struct shadow *shadow)
{
	for (unsigned i = 0; i < SHADOW_ROOTS; i++)
		shadow_drop(shadow, i);
}

void shadow_drop_all(struct mm *mm)
{
	for (struct shadow *shadow = mm->shadows; shadow; shadow = shadow->next)
		shadow_reset(shadow);
	/* From 1 to MARK_SHADOW: a mark that no leaf has named has 0. */
	mm->shadow_generation = mm->shadow_generation % MARK_SHADOW + 1;
}

void shadow_add(struct mm *mm, struct shadow *shadow)
{
	shadow_reset(shadow);
	shadow->next = mm->shadows;
	mm->shadows = shadow;
	mm->shadow_generation = 1;
}

unsigned shadow_find(struct shadow *shadow, u64 eptp12)
{
	unsigned i = 0;

	while (i < SHADOW_ROOTS && shadow->eptp12[i] != eptp12)
		i++;
	if (i < SHADOW_ROOTS)
		shadow->age[i] = ++shadow->clock;
	return i;
}

unsigned shadow_assign(struct shadow *shadow, u64 eptp12)
{
	unsigned oldest = 0;

	for (unsigned i = 1; i < SHADOW_ROOTS; i++)
		if (shadow->age[i] < shadow->age[oldest])
			oldest = i;
	shadow_drop(shadow, oldest);
	shadow->eptp12[oldest] = eptp12;
	shadow->age[oldest] = ++shadow->clock;
	return oldest;
}

void shadow_restart(struct shadow *shadow)
{
	bool empty = true;

	shadow->must_invept = false;
	for (unsigned i = 0; i < SHADOW_ROOTS; i++)
		empty = empty && shadow->first[i] > shadow->last[i];
	if (empty)
		shadow->used = 0;
}

/* Whether frames that the host view maps are all HOST, or all DEVICE. */
static bool are_hosts(const struct page_marks *marks, u64 frame, u64 count)
{
	u64 state = page_mark_state(marks, frame);

	for (u64 i = 1; i < count; i++)
		if (page_mark_state(marks, frame + i) != state)
			return false;
	return state == HYPERPS_FRAME_HOST || state == HYPERPS_FRAME_DEVICE;
}

/* The largest page around gpa that leaf, marks and host view allow, with what may be done in it: its leaf, or 0. */
static u64 leaf02(const struct mm *mm, const struct leaf12 *leaf, u64 gpa, unsigned *level)
{
	for (*level = leaf->level; *level; --*level) {
		u64 size = ept_level_size(*level), hpa = leaf->hpa + ALIGN_DOWN(gpa, size) - leaf->gpa, type;
		struct ept_run run = ept_run(mm->host_view, GPA(hpa), size / PAGE_SIZE);

		if (run.frames != size / PAGE_SIZE || !are_hosts(mm->marks, run.frame, run.frames))
			continue;
		type = run.entry >> EPT_MEMORY_TYPE_SHIFT & 7;
		if (type == MEMORY_TYPE_WB)
			type = leaf->type;
		return run.frame << PAGE_SHIFT | (run.entry & leaf->rights & EPT_RWX) | type << EPT_MEMORY_TYPE_SHIFT |
		       (*level > 1 ? EPT_LARGE : 0);
	}
	return 0;
}

/* The table to which an entry points; if it does not yet, a new one. NULL: they are used up. */
static u64 *next_table(struct shadow *shadow, u64 *entry)
{
	u64 *table = shadow->tables + shadow->used * ENTRIES;

	if (*entry && !(*entry & EPT_LARGE))
		return shadow->tables + ((*entry & EPT_ADDRESS) - shadow->tables_hpa.value) / sizeof(u64);
	if (shadow->used >= shadow->count)
		return NULL;
	for (unsigned i = 0; i < ENTRIES; i++)
		table[i] = 0;
	/* A large page becomes small ones: the CPU must not have both sizes in its TLBs. */
	if (*entry)
		shadow->must_invept = true;
	*entry = (shadow->tables_hpa.value + shadow->used++ * PAGE_SIZE) | EPT_RWX;
	return table;
}

enum shadow_result shadow_fill(struct mm *mm, struct shadow *shadow, unsigned root, const struct leaf12 *leaf, u64 gpa,
			       u64 access)
{
	u64 *table = shadow->root[root], *entry, value, size;
	unsigned level;
	u16 index;

	if (shadow->must_invept)
		return SHADOW_DRY;
	if (leaf->level < 1 || leaf->level > 2 || gpa >= BIT(48) || leaf->type > 7 || !(TYPES >> leaf->type & 1))
		return SHADOW_REFUSED;
	size = ept_level_size(leaf->level);
	if (leaf->gpa != ALIGN_DOWN(gpa, size) || leaf->hpa % size)
		return SHADOW_REFUSED;
	value = leaf02(mm, leaf, gpa, &level);
	if (!(value & EPT_READ) || (access & ~(value & EPT_RWX)))
		return SHADOW_REFUSED;
	index = (u16)(gpa / ept_level_size(LEVELS));
	if (index < shadow->first[root])
		shadow->first[root] = index;
	if (index > shadow->last[root])
		shadow->last[root] = index;
	for (unsigned at = LEVELS;; at--) {
		entry = &table[gpa / ept_level_size(at) % ENTRIES];
		if (at == level)
			break;
		table = next_table(shadow, entry);
		if (!table)
			return SHADOW_DRY;
	}
	if (level == 2 && *entry && !(*entry & EPT_LARGE))
		shadow->must_invept = true; /* small pages become a large one */
	page_marks_name(mm->marks, (value & EPT_ADDRESS) >> PAGE_SHIFT, ept_level_size(level) / PAGE_SIZE,
			mm->shadow_generation);
	*entry = value;
	return SHADOW_FILLED;
}
