// SPDX-License-Identifier: MIT
/* SDM, "Paging"; five levels are not offered to guests. */
#include "paging.h"
#include "memory_service.h"
#include "x86.h"

#define ENTRY_PRESENT BIT(0)
#define ENTRY_WRITABLE BIT(1)
#define ENTRY_USER BIT(2)
#define ENTRY_LARGE BIT(7)
#define ENTRY_ADDRESS 0x000ffffffffff000ULL
#define ENTRY_NX BIT(63)
#define LEGACY_RESERVED 0x7ff0000000000000ULL /* outside IA-32e mode */
#define PDPTE_RESERVED 0x80000000000001e6ULL /* in PAE paging */

bool guest_translate(u64 handle, u64 linear, u64 cr0, u64 cr3, u64 cr4, u64 efer, u64 *gpa)
{
	bool long_mode = efer & EFER_LMA, pae = cr4 & CR4_PAE;
	unsigned level = long_mode ? 4 : pae ? 3 : 2, bits = pae ? 9 : 10, entry_bytes = pae ? 8 : 4;
	u64 reserved = (long_mode ? 0 : LEGACY_RESERVED) | (efer & EFER_NXE ? 0 : ENTRY_NX), entry = 0;
	u64 table = cr3 & (long_mode ? ENTRY_ADDRESS : pae ? 0xffffffe0 : 0xfffff000);

	linear = long_mode ? linear : (u32)linear;
	if (!(cr0 & CR0_PG)) {
		*gpa = linear;
		return true;
	}
	for (;; level--) {
		unsigned shift = PAGE_SHIFT + bits * (level - 1);
		u64 offset = BIT(shift) - 1, at = table + (linear >> shift & (BIT(bits) - 1)) * entry_bytes;

		if (!memory_read_guest(handle, at, &entry, entry_bytes) || !(entry & ENTRY_PRESENT) ||
		    (entry & reserved) || (level == 3 && !long_mode && (entry & PDPTE_RESERVED)))
			return false;
		table = entry & ENTRY_ADDRESS;
		if (level > 1 && !((entry & ENTRY_LARGE) && (pae || (cr4 & CR4_PSE))))
			continue;
		/* Bit 12 of a large page's entry is PAT; of a 4-byte one's, bits 20:13 are address bits 39:32. */
		if (level == 4 || (entry & offset & (pae ? ~0x1fffULL : BIT(21))))
			return false;
		*gpa = (table & ~offset) | (linear & offset) | (pae || level == 1 ? 0 : (entry & 0x1fe000) << 19);
		return true;
	}
}

enum translation host_translate(const struct paging *paging, u64 linear, bool write, u64 *gpa, u32 *error_code)
{
	u64 entry, rights = ENTRY_WRITABLE | ENTRY_USER, table = paging->cr3 & ENTRY_ADDRESS;
	u64 reserved =
		(ENTRY_ADDRESS & ~(BIT(paging->physical_address_bits) - 1)) | (paging->efer & EFER_NXE ? 0 : ENTRY_NX);

	*error_code = write ? PF_WRITE : 0;
	for (unsigned level = paging->cr4 & CR4_LA57 ? 5 : 4;; level--) {
		unsigned shift = PAGE_SHIFT + 9 * (level - 1);
		u64 offset = BIT(shift) - 1;
		bool leaf;

		*gpa = table + (linear >> shift) % 512 * sizeof(entry);
		if (!memory_read_host(*gpa, &entry, sizeof(entry)))
			return TRANSLATION_REFUSED;
		if (!(entry & ENTRY_PRESENT))
			return TRANSLATION_FAULT;
		leaf = level == 1 || (entry & ENTRY_LARGE);
		/* Of a large page's address bit 12 is PAT. */
		if ((entry & reserved) || (leaf && (level > 3 || (entry & offset & ~0x1fffULL)))) {
			*error_code |= PF_PRESENT | PF_RESERVED;
			return TRANSLATION_FAULT;
		}
		rights &= entry;
		table = entry & ENTRY_ADDRESS;
		if (!leaf)
			continue;
		if ((write && (paging->cr0 & CR0_WP) && !(rights & ENTRY_WRITABLE)) ||
		    ((rights & ENTRY_USER) && (paging->cr4 & CR4_SMAP) && !(paging->rflags & RFLAGS_AC))) {
			*error_code |= PF_PRESENT;
			return TRANSLATION_FAULT;
		}
		*gpa = (table & ~offset) | (linear & offset);
		return TRANSLATED;
	}
}
