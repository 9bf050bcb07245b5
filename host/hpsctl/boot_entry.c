// SPDX-License-Identifier: MIT
#include <string.h>

#include "boot_entry.h"

#define ACTIVE 1
/* Device path nodes: type, subtype, 16 bits of length. */
#define NODE_HEADER 4
#define NODE_MEDIA 4
#define MEDIA_PARTITION 1
#define MEDIA_FILE 4
#define PARTITION_NODE 42
#define NODE_END 0x7f

static uint64_t read_number(const uint8_t *from, size_t bytes)
{
	uint64_t value = 0;

	while (bytes--)
		value = value << 8 | from[bytes];
	return value;
}

/*
 * Copies UCS-2 up to its NUL, or to the end of `size` bytes, as ASCII. False: it did not fit, or is not all printable ASCII;
 * the others are '?' then.
 */
static bool narrow(const uint8_t *from, size_t size, char *to, size_t room)
{
	bool good = true;
	size_t used = 0;

	for (; size >= 2 && read_number(from, 2); from += 2, size -= 2) {
		uint16_t c = read_number(from, 2);

		if (used + 1 == room) {
			good = false;
			break;
		}
		good &= c >= ' ' && c <= '~';
		to[used++] = c >= ' ' && c <= '~' ? c : '?';
	}
	to[used] = 0;
	return good;
}

static void parse_path(const uint8_t *node, size_t left, struct boot_entry *entry)
{
	while (left >= NODE_HEADER && node[0] != NODE_END) {
		size_t length = read_number(node + 2, 2), used = strlen(entry->path);

		if (length < NODE_HEADER || length > left)
			return;
		if (node[0] == NODE_MEDIA && node[1] == MEDIA_PARTITION && length == PARTITION_NODE) {
			entry->has_partition = true;
			entry->partition.number = read_number(node + 4, 4);
			entry->partition.start = read_number(node + 8, 8);
			entry->partition.size = read_number(node + 16, 8);
		} else if (node[0] == NODE_MEDIA && node[1] == MEDIA_FILE &&
			   !narrow(node + NODE_HEADER, length - NODE_HEADER, entry->path + used,
				   sizeof(entry->path) - used)) {
			entry->path[0] = 0;
			return;
		}
		node += length;
		left -= length;
	}
}

bool boot_entry_parse(const uint8_t *data, size_t size, struct boot_entry *entry)
{
	size_t paths, at = 6;

	*entry = (struct boot_entry){ 0 };
	if (size < at)
		return false;
	entry->active = data[0] & ACTIVE;
	paths = read_number(data + 4, 2);
	narrow(data + at, size - at, entry->description, sizeof(entry->description));
	while (at + 2 <= size && read_number(data + at, 2))
		at += 2;
	at += 2;
	if (at > size || paths > size - at)
		return false;
	parse_path(data + at, paths, entry);
	at += paths;
	if (!narrow(data + at, size - at, entry->options, sizeof(entry->options)))
		entry->options[0] = 0;
	return true;
}
