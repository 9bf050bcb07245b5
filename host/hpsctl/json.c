// SPDX-License-Identifier: MIT
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "json.h"

static void print_string(FILE *out, const char *text, size_t size)
{
	fputc('"', out);
	for (size_t i = 0; i < size && text[i]; i++) {
		if (text[i] == '"' || text[i] == '\\')
			fputc('\\', out);
		fputc(isprint((unsigned char)text[i]) ? text[i] : '?', out);
	}
	fputc('"', out);
}

static void new_line(const struct json *json)
{
	fprintf(json->out, "\n%*s", 2 * (int)json->depth, "");
}

static void begin_item(struct json *json, const char *key)
{
	if (json->depth) {
		if (json->level[json->depth - 1].used)
			fputc(',', json->out);
		if (json->level[json->depth - 1].lines)
			new_line(json);
		else if (json->level[json->depth - 1].used)
			fputc(' ', json->out);
		json->level[json->depth - 1].used = true;
	}
	if (!key)
		return;
	print_string(json->out, key, strlen(key));
	fputs(": ", json->out);
}

static void begin(struct json *json, const char *key, char bracket, bool lines)
{
	begin_item(json, key);
	fputc(bracket, json->out);
	json->level[json->depth].end = bracket == '{' ? '}' : ']';
	json->level[json->depth].lines = lines;
	json->level[json->depth++].used = false;
}

void json_begin_lines(struct json *json, const char *key, char bracket)
{
	begin(json, key, bracket, true);
}

void json_begin(struct json *json, const char *key, char bracket)
{
	begin(json, key, bracket, false);
}

void json_end(struct json *json)
{
	json->depth--;
	if (json->level[json->depth].lines)
		new_line(json);
	fputc(json->level[json->depth].end, json->out);
	if (!json->depth)
		fputc('\n', json->out);
}

void json_number(struct json *json, const char *key, uint64_t value)
{
	begin_item(json, key);
	fprintf(json->out, "%" PRIu64, value);
}

void json_decimal(struct json *json, const char *key, double value)
{
	begin_item(json, key);
	fprintf(json->out, "%.2f", value);
}

void json_bool(struct json *json, const char *key, bool value)
{
	begin_item(json, key);
	fputs(value ? "true" : "false", json->out);
}

void json_text(struct json *json, const char *key, const char *text, size_t size)
{
	begin_item(json, key);
	print_string(json->out, text, size);
}

void json_text_or_null(struct json *json, const char *key, const char *text)
{
	begin_item(json, key);
	if (text && *text)
		print_string(json->out, text, strlen(text));
	else
		fputs("null", json->out);
}

void json_fields(struct json *json, const void *object, const struct json_field *fields, size_t count)
{
	uint64_t value;

	for (size_t i = 0; i < count; i++) {
		memcpy(&value, (const char *)object + fields[i].offset, sizeof(value));
		json_number(json, fields[i].key, value);
	}
}
