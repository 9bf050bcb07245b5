/* SPDX-License-Identifier: MIT */
/* Basic types. Addresses of different spaces are distinct struct types, so that mixing them does not compile. */
#ifndef TYPES_H
#define TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;

/* Host-physical byte address: what a leaf of an EPT, a VMCS address field or the monitor's CR3 holds. */
typedef struct {
	u64 value;
} hpa_t;

/* Guest-physical byte address: what the de-privileged host, or a guest, calls a physical address. */
typedef struct {
	u64 value;
} gpa_t;

/* Linear address in the de-privileged host or in a guest. The monitor never dereferences one. */
typedef struct {
	u64 value;
} gva_t;

#define HPA(x) ((hpa_t){ (x) })
#define GPA(x) ((gpa_t){ (x) })

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096ULL
#define PAGE_SIZE_2M (1ULL << 21)
#define PAGE_SIZE_1G (1ULL << 30)

#define BIT(n) (1ULL << (n))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define ALIGN_UP(x, a) (((x) + (a)-1) & ~((u64)(a)-1))
#define ALIGN_DOWN(x, a) ((x) & ~((u64)(a)-1))

#endif
