// SPDX-License-Identifier: MIT
#include "loader.h"

#define ADDRESS_PORT 0xcf8
#define DATA_PORT 0xcfc
#define FUNCTIONS 256 /* of a bus: 32 devices of 8 */
#define HEADER_TYPE 0x0c /* in bits 22:16 */
#define HEADER_MULTIFUNCTION BIT(23)
#define HEADER_BRIDGE 1
#define BARS 0x10
#define BRIDGE_LIMIT_UPPER 0x2c /* of prefetchable memory behind it */
#define BAR_IO BIT(0)
#define BAR_64BIT BIT(2)

static u32 read_config(u64 function, u64 offset)
{
	outl(ADDRESS_PORT, 1U << 31 | function << 8 | offset);
	return inl(DATA_PORT);
}

static bool is_function_above(u64 function, u64 limit)
{
	bool is_bridge = (read_config(function, HEADER_TYPE) >> 16 & 0x7f) == HEADER_BRIDGE;

	for (u64 offset = BARS; offset < BARS + (is_bridge ? 8 : 24); offset += 4) {
		u32 low = read_config(function, offset);

		if ((low & BAR_IO) || !(low & BAR_64BIT))
			continue;
		offset += 4;
		if ((u64)read_config(function, offset) << 32 >= limit)
			return true;
	}
	return is_bridge && (u64)read_config(function, BRIDGE_LIMIT_UPPER) << 32 >= limit;
}

bool pci_is_above(u64 limit)
{
	for (u64 function = 0; function < FUNCTIONS; function++) {
		if (read_config(function, 0) != ~0U && is_function_above(function, limit))
			return true;
		if (function % 8 == 0 && !(read_config(function, HEADER_TYPE) & HEADER_MULTIFUNCTION))
			function += 7;
	}
	return false;
}
