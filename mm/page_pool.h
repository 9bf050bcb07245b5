/* SPDX-License-Identifier: MIT */
/*
 * The monitor's pool of 4 KiB pages for tables. It begins as one range of the monitor's memory; the host can donate
 * more. A page that comes in, or comes back, waits in quarantine until every CPU has flushed: a stale translation of
 * the host's may reach it, or a stale paging-structure entry may use it as a table. So its lists are kept in the page
 * marks, never in the pages.
 */
#ifndef PAGE_POOL_H
#define PAGE_POOL_H

#include "page_mark.h"

/* A zeroed page from the pool: its linear address, or NULL if the pool is dry. */
void *page_pool_take(struct page_pool *pool);

/* Gives a page back: the frame's mark becomes TO_MONITOR. Also for a frame that the host donates. */
void page_pool_put(struct page_pool *pool, u64 frame);

/* Frees what waited long enough, at most `batch` pages; see struct mm for epoch and flushed. */
void page_pool_refresh(struct page_pool *pool, u64 epoch, u64 flushed, u64 batch);

/* Pages that page_pool_take() could give. */
u64 page_pool_available(const struct page_pool *pool);

/* Linear address of a page that came from the pool. */
void *page_pool_linear(const struct page_pool *pool, hpa_t hpa);

/* Host-physical address of a page that came from the pool. */
hpa_t page_pool_hpa(const struct page_pool *pool, const void *page);

#endif
