/* SPDX-License-Identifier: MIT */
/* Writes JSON: commas, line breaks, indentation and quotes. */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define JSON_DEPTH 8

struct json {
	FILE *out;
	unsigned int depth;
	struct {
		char end;
		bool lines; /* an item a line */
		bool used; /* it has items already */
	} level[JSON_DEPTH];
};

/* An uint64_t of a struct. */
struct json_field {
	const char *key;
	size_t offset;
};

#define JSON_FIELD(type, name)                                                                                         \
	{                                                                                                              \
#name, offsetof(struct type, name)                                                                     \
	}

/* key: NULL in a list, and for the outermost value. */
void json_begin_lines(struct json *json, const char *key, char bracket); /* '{' or '[' */
void json_begin(struct json *json, const char *key, char bracket);
void json_end(struct json *json); /* of the outermost value: also of the line */
void json_number(struct json *json, const char *key, uint64_t value);
void json_decimal(struct json *json, const char *key, double value); /* two digits behind the point */
void json_bool(struct json *json, const char *key, bool value);
void json_text(struct json *json, const char *key, const char *text, size_t size); /* up to a NUL */
void json_text_or_null(struct json *json, const char *key, const char *text); /* null: NULL, or empty */
void json_fields(struct json *json, const void *object, const struct json_field *fields, size_t count);

#endif
