// SPDX-License-Identifier: MIT
/* EPT12, the page tables that L1 made for L2: walked at EPT violations, to fill EPT02. docs/nested.md, "Walk of EPT12". */
#include "log.h"
#include "memory_service.h"
#include "nested.h"

/* Entries of a page table that are read, and filled, at once. Behind an exit that L1 has seen the others are there already. */
#define AROUND 64ULL
#define EPT12_LIMIT_SHIFT 48 /* bits that four levels translate */
#define TABLE_RESERVED 0xf8ULL /* of an entry that names a table */

enum walk_result { WALK_ABSENT, WALK_MISCONFIGURED, WALK_LEAF };

struct walk {
	struct leaf12 leaf; /* rights: those of all levels; 0 if absent */
	u8 above; /* rights of the levels above */
	u64 entry; /* where the last one lies */
};

/* SDM, "EPT Misconfigurations". True of an absent entry, too. */
static bool is_misconfigured(u64 entry, unsigned level)
{
	u64 beyond = EPT_ADDRESS & ~(BIT(this_cpu()->capabilities.physical_address_bits) - 1);

	if (!(entry & EPT_READ) || (entry & beyond))
		return true;
	if (level > 2 || (level == 2 && !(entry & EPT_LARGE)))
		return entry & TABLE_RESERVED;
	return !memory_type_is_defined(entry >> EPT_MEMORY_TYPE_SHIFT & 7) ||
	       (level == 2 && (entry & EPT_ADDRESS) % PAGE_SIZE_2M);
}

static struct leaf12 leaf_of(u64 entry, u64 gpa, unsigned level, u64 above)
{
	return (struct leaf12){ .gpa = ALIGN_DOWN(gpa, level == 1 ? PAGE_SIZE : PAGE_SIZE_2M),
				.hpa = entry & EPT_ADDRESS,
				.rights = entry & above & EPT_RWX,
				.type = entry >> EPT_MEMORY_TYPE_SHIFT & 7,
				.level = level };
}

static enum walk_result walk12(const struct nested *n, u64 gpa, struct walk *walk)
{
	u64 entry = nested_get(n, VMCS_EPTP);

	*walk = (struct walk){ .above = EPT_RWX };
	if (gpa >> EPT12_LIMIT_SHIFT)
		return WALK_ABSENT;
	for (unsigned level = 4;; level--) {
		walk->entry = (entry & EPT_ADDRESS) + (gpa >> (3 + 9 * level) & 511) * sizeof(entry);
		if (!memory_read_host(walk->entry, n->second, sizeof(entry)))
			return WALK_MISCONFIGURED;
		entry = n->second[0];
		if (!(entry & EPT_RWX))
			return WALK_ABSENT;
		if (is_misconfigured(entry, level))
			return WALK_MISCONFIGURED;
		if (level == 1 || (entry & EPT_LARGE)) {
			walk->leaf = leaf_of(entry, gpa, level, walk->above);
			return WALK_LEAF;
		}
		walk->above &= entry;
	}
}

/* around: also of the entries beside it, which are a guess, and take what they get. */
static enum shadow_result fill(struct nested *n, const struct walk *walk, u64 gpa, u64 access, bool around)
{
	u64 bytes = AROUND * sizeof(*n->second), first = ALIGN_DOWN(gpa, AROUND * PAGE_SIZE);
	enum shadow_result result;
	struct mm *mm;

	around = around && walk->leaf.level == 1 &&
		 memory_read_host(ALIGN_DOWN(walk->entry, bytes), n->second, (unsigned)bytes);
	mm = memory_lock();
	result = shadow_fill(mm, &n->shadow, n->root, &walk->leaf, gpa, access);
	if (result == SHADOW_DRY) {
		shadow_reset(&n->shadow);
		invept_all();
		shadow_restart(&n->shadow);
		result = shadow_fill(mm, &n->shadow, n->root, &walk->leaf, gpa, access);
	}
	for (unsigned i = 0; result == SHADOW_FILLED && around && i < AROUND; i++) {
		u64 entry = n->second[i], at = first + i * PAGE_SIZE;
		struct leaf12 leaf = leaf_of(entry, at, 1, walk->above);

		if (at != walk->leaf.gpa && !is_misconfigured(entry, 1) &&
		    shadow_fill(mm, &n->shadow, n->root, &leaf, at, 0) == SHADOW_DRY)
			break;
	}
	memory_unlock();
	nested_flush(n);
	return result;
}

enum nested_next nested_ept_violation(struct nested *n, u32 *reason, u64 *qualification)
{
	u64 gpa = vmread(VMCS_GUEST_PHYSICAL_ADDRESS), access = vmread(VMCS_EXIT_QUALIFICATION);
	struct walk walk;
	enum walk_result result = walk12(n, gpa, &walk);

	*qualification = 0;
	if (result == WALK_MISCONFIGURED) {
		*reason = EXIT_EPT_MISCONFIGURATION;
		return NESTED_SHOWN;
	}
	if (result == WALK_ABSENT || (access & EPT_RWX & ~walk.leaf.rights)) {
		*reason = EXIT_EPT_VIOLATION;
		*qualification = (access & (EPT_RWX | EPT_VIOLATION_LINEAR | EPT_VIOLATION_TRANSLATED |
					    EPT_VIOLATION_NMI_UNBLOCKED)) |
				 (u64)walk.leaf.rights << EPT_VIOLATION_RIGHTS_SHIFT;
		n->last_violation = gpa;
		return NESTED_SHOWN;
	}
	if (fill(n, &walk, gpa, access & EPT_RWX, true) != SHADOW_REFUSED)
		return NESTED_RESUME;
	/* As on a machine whose memory is not there. KVM would repeat a violation for ever. */
	n->refused_fills++;
	log_refusal(REFUSED_MEMORY, "memory of a KVM VM refused: %lx, for its %lx",
		    walk.leaf.hpa + (gpa - walk.leaf.gpa), gpa);
	*reason = EXIT_TRIPLE_FAULT;
	return NESTED_SHOWN;
}

void nested_fill_last_violation(struct nested *n)
{
	u64 gpa = n->last_violation;
	struct walk walk;

	n->last_violation = NO_ADDRESS;
	/* What is refused L2 meets itself. */
	if (gpa != NO_ADDRESS && walk12(n, gpa, &walk) == WALK_LEAF)
		(void)fill(n, &walk, gpa, 0, false);
}

void nested_drop_all(struct nested *n)
{
	(void)memory_lock();
	shadow_reset(&n->shadow);
	memory_unlock();
	nested_flush(n);
}

void nested_drop(struct nested *n, u64 eptp12)
{
	unsigned root = shadow_find(&n->shadow, eptp12);

	/* Of one that has no root nothing is cached: INVEPT came between the drop of its last and the next entry. */
	if (root == SHADOW_ROOTS)
		return;
	(void)memory_lock();
	shadow_drop(&n->shadow, root);
	memory_unlock();
	nested_flush(n);
}

void nested_flush(struct nested *n)
{
	/* Whoever sets it after this look, flushes all CPUs, too. */
	if (!n->shadow.must_invept)
		return;
	invept_all();
	(void)memory_lock();
	shadow_restart(&n->shadow);
	memory_unlock();
}
