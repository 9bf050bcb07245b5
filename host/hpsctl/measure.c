// SPDX-License-Identifier: MIT
#include "image.h"
#include "sha256.h"

static void add_number(struct sha256 *s, uint64_t number)
{
	uint8_t bytes[8];

	for (int i = 0; i < 8; i++)
		bytes[i] = number >> 8 * i;
	sha256_update(s, bytes, sizeof(bytes));
}

void guest_measure(const struct guest *guest, uint8_t digest[32])
{
	const struct image *image = &guest->image;
	struct sha256 s;

	sha256_init(&s);
	for (size_t i = 0; i < image->pages; i++) {
		add_number(&s, image->gpa[i]);
		sha256_update(&s, image->data + i * IMAGE_PAGE, IMAGE_PAGE);
	}
	for (size_t i = 0; i < guest->ranges; i++) {
		add_number(&s, guest->range[i].gpa);
		add_number(&s, guest->range[i].size);
		add_number(&s, guest->range[i].permissions);
	}
	for (size_t i = 0; i < guest->vcpus; i++) {
		add_number(&s, image->start.mode | image->start.argument);
		add_number(&s, image->start.entry);
		add_number(&s, image->start.cr3);
	}
	add_number(&s, guest->ranges);
	add_number(&s, guest->vcpus);
	sha256_final(&s, digest);
}
