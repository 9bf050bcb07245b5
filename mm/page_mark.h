/* SPDX-License-Identifier: MIT */
/*
 * Page marks: one 8-byte mark for each 4 KiB frame of RAM says who owns it and in which state it is. With the VM marks
 * they are the only authority; an EPT is derived from them.
 */
#ifndef PAGE_MARK_H
#define PAGE_MARK_H

#include "handover.h"

/* State of a frame: HYPERPS_FRAME_* of the public interface. A frame past the table's end is HYPERPS_FRAME_DEVICE. */
#define MARK_STATE 0xfULL
#define MARK_VM_SHIFT 4 /* bits 15:4: VM slot, of a frame that is or was a VM's */
#define MARK_VM 0xfffULL
#define MARK_NOBODY                                                                                                    \
	0xfffULL /* as a slot: a TO_HOST frame that was ORPHAN. Its page field has the epoch's low 36 bits */
#define MARK_PAGE_SHIFT 16 /* bits 51:16: guest-physical frame number; or the next frame of a list of the pool's */
#define MARK_PAGE 0xfffffffffULL
#define MARK_SHADOW_SHIFT 52 /* bits 63:52, of a HOST frame: in which generation of shadows a leaf last named it */
#define MARK_SHADOW 0xfffULL

/* The table ends at the last RAM that can be given away; RAM above this limit counts as DEVICE. */
#define PAGE_MARK_LIMIT (4ULL << 40) /* bytes */

/*
 * Sets the mark of a frame in the table, and the counters. page: guest-physical frame number, or the next frame of a
 * list.
 */
void page_mark_set(struct page_marks *marks, u64 frame, u64 state, u64 vm, u64 page);

/*
 * Frames [frame, frame + count), all in the table and in state `from`, go to state `to` and to the VM in slot `vm`,
 * with consecutive guest-physical frame numbers from `page` on.
 */
void page_marks_move(struct page_marks *marks, u64 frame, u64 count, u64 from, u64 to, u64 vm, u64 page);

/* How many of the frames from `frame` on, at most count, have the state of the first. All are in the table. */
u64 page_marks_same(const struct page_marks *marks, u64 frame, u64 count);

/* Whether all of [frame, frame + count) are in the table and in that state. */
bool page_marks_are(const struct page_marks *marks, u64 frame, u64 count, u64 state);

/* A leaf of an EPT02 names the frames (mm/shadow.h): the HOST ones of them get the generation. Any frame numbers. */
void page_marks_name(struct page_marks *marks, u64 frame, u64 count, u64 generation);

/* Whether one of the frames, all in the table, has the generation. */
bool page_marks_are_named(const struct page_marks *marks, u64 frame, u64 count, u64 generation);

/* State of a frame, HYPERPS_FRAME_*. Any frame number is allowed. */
u64 page_mark_state(const struct page_marks *marks, u64 frame);

#endif
