/* SPDX-License-Identifier: MIT */
/*
 * DMA-remapping units ("Intel Virtualization Technology for Directed I/O", legacy mode): devices reach what the host view
 * maps, as the host's CPUs do. docs/dma.md has the argument.
 */
#ifndef IOMMU_H
#define IOMMU_H

#include "types.h"
#include "hyperps/abi.h"

/* Takes pages of the pool for the units that the loader found. Once, on the boot CPU, before any other runs. */
void iommu_init(void);

/*
 * Switches all units on. Their registers must be out of the host view. False: one does not start, for which iommu_stop() is the
 * remedy. Once, when the firmware's boot services have ended.
 */
bool iommu_start(void);

/* Has no unit hold anything back, whatever state the firmware left it in: instead of iommu_start(), or when that failed. */
void iommu_stop(void);

/*
 * What devices could reach before this call by a translation that a unit has cached, and the host view does not have any
 * more, they reach no longer once it returns true. False: a unit did not answer in time. Takes iommu_lock. A unit that is not there
 * any more, or off, ends the machine's run.
 */
bool iommu_flush(void);

/* Has devices reach what has come into the host view, on units that may not notice by themselves. Takes iommu_lock. */
void iommu_add(void);

/* Units that are on. */
u32 iommu_count(void);

/* Counts what the units refused since the last time. Takes iommu_lock. */
void iommu_count_faults(void);

/* Fills in what status has of DMA. */
void iommu_describe(struct hyperps_status *status);

#endif
