/* SPDX-License-Identifier: MIT */
/*
 * What the monitor finds made in its memory: the page marks and the host view. Of the firmware's memory map and the
 * MTRRs' values; no EFI calls.
 */
#ifndef HOST_VIEW_H
#define HOST_VIEW_H

#include "boot_info.h"

/* One range of the firmware's memory map, type as in the UEFI specification (EFI_MEMORY_TYPE). */
struct boot_memory_range {
	u64 base;
	u64 size;
	u32 type;
	u32 reserved;
};

#define BOOT_MEMORY_RANGES 512

/* Bytes of the page marks for this memory map, a multiple of the page size. */
u64 page_marks_bytes(const struct boot_memory_range *ranges, u32 count);

/*
 * Fills the table at `table` (page_marks_bytes() long) from the firmware's map: boot-time and conventional memory is
 * HOST, all else DEVICE. Where ranges overlap, DEVICE wins; a page that is only partly RAM is DEVICE, and so is RAM that
 * the MTRRs don't make write-back: what may be given away has one memory type in all views. bits: the physical-address
 * width.
 */
void page_marks_init(struct page_marks *marks, u64 *table, const struct boot_memory_range *ranges, u32 count,
		     const struct mtrr_state *mtrr, unsigned bits);

/* Gives each of the frames [frame, frame + count) the state, and no owner. Frames past the table's end are left out. */
void page_marks_set(struct page_marks *marks, u64 frame, u64 count, u64 state);

/*
 * Maps [gpa, gpa + size) to [hpa, hpa + size) with the largest pages that fit. All three page-aligned; permissions is
 * an OR of EPT_READ, EPT_WRITE, EPT_EXECUTE; memory_type as in an MTRR. The range must not be mapped yet. Returns
 * false, with a part of the range possibly mapped, if the pool is dry or something is mapped there. Does not flush:
 * nothing was mapped before.
 */
bool ept_map(struct ept *ept, gpa_t gpa, hpa_t hpa, u64 size, u64 permissions, u64 memory_type);

/*
 * Builds the host view, every address to itself but for the monitor's memory, from pages of the pool that begins at
 * info->free, and fills info->pool, ->marks and ->host_view with the monitor's own addresses. The page marks lie at
 * `table`, in the region. largest_leaf as in struct ept. Needs the region, the low pages, kvm_pool and the MTRRs in *info.
 * False: the region is too small, or it or kvm_pool lies above all RAM of the map.
 */
bool host_view_build(struct boot_info *info, const struct vmx_capabilities *capabilities, unsigned largest_leaf,
		     u64 *table, const struct boot_memory_range *ranges, u32 count);

#endif
