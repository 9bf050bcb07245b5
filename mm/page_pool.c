// SPDX-License-Identifier: MIT
#include "page_pool.h"

static void push(struct page_pool *pool, struct page_list *list, u64 frame, u64 state)
{
	page_mark_set(pool->marks, frame, state, 0, list->head);
	list->head = frame;
	list->count++;
}

static u64 pop(struct page_pool *pool, struct page_list *list)
{
	u64 frame = list->head;

	list->head = pool->marks->mark[frame] >> MARK_PAGE_SHIFT & MARK_PAGE;
	list->count--;
	return frame;
}

void *page_pool_take(struct page_pool *pool)
{
	u64 *page;

	if (pool->free.count) {
		page = page_pool_linear(pool, HPA(pop(pool, &pool->free) << PAGE_SHIFT));
	} else if (pool->size - pool->used >= PAGE_SIZE) {
		page = (u64 *)(pool->linear + pool->used);
		pool->used += PAGE_SIZE;
	} else {
		return NULL;
	}
	for (unsigned i = 0; i < PAGE_SIZE / sizeof(u64); i++)
		page[i] = 0;
	return page;
}

void page_pool_put(struct page_pool *pool, u64 frame)
{
	push(pool, &pool->incoming, frame, HYPERPS_FRAME_TO_MONITOR);
}

void page_pool_refresh(struct page_pool *pool, u64 epoch, u64 flushed, u64 batch)
{
	for (; batch && pool->waiting.count && flushed > pool->waiting_epoch; batch--)
		push(pool, &pool->free, pop(pool, &pool->waiting), HYPERPS_FRAME_MONITOR);
	/* The whole list counts from the youngest of its pages, so a new one is begun only when the last is through. */
	if (!pool->waiting.count && pool->incoming.count) {
		pool->waiting = pool->incoming;
		pool->waiting_epoch = epoch;
		pool->incoming = (struct page_list){ 0 };
	}
}

u64 page_pool_available(const struct page_pool *pool)
{
	return pool->free.count + (pool->size - pool->used) / PAGE_SIZE;
}

void *page_pool_linear(const struct page_pool *pool, hpa_t hpa)
{
	u64 offset = hpa.value - pool->base.value;

	return hpa.value >= pool->base.value && offset < pool->size ? pool->linear + offset : pool->direct + hpa.value;
}

hpa_t page_pool_hpa(const struct page_pool *pool, const void *page)
{
	u64 offset = (u64)page - (u64)pool->linear;

	return (u64)page >= (u64)pool->linear && offset < pool->size ? HPA(pool->base.value + offset)
								     : HPA((u64)page - (u64)pool->direct);
}
