// SPDX-License-Identifier: GPL-2.0
/* kvmfrctl memory search */
#include "memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE		64		/* bytes of a cache line */
#define LINE_EVERY	(64 * 1024)	/* one line is sampled of so many bytes */
#define RARE		64		/* a byte is rare if it is less than 1 of so many */

struct pattern {
	const char *bytes;
	size_t length;
	size_t rare;		/* index of a byte that is rare here; length: none is */
	bool found;
};

/* Text, or bytes as 0x and an even number of hexadecimal digits. */
static void pattern_parse(struct pattern *pattern, const char *s)
{
	size_t digits = strlen(s) - 2;
	char *bytes;

	pattern->length = strlen(s);
	pattern->bytes = bytes = text("%s", s);
	if (!*s)
		misuse("memory: search wants a pattern that is not empty");
	if (strncmp(s, "0x", 2))
		return;
	if (!digits || digits % 2 || strspn(s + 2, "0123456789abcdefABCDEF") != digits)
		misuse("memory: '%s' is not an even number of hexadecimal digits after 0x", s);
	pattern->length = digits / 2;
	for (size_t i = 0; i < pattern->length; i++)
		sscanf(s + 2 + 2 * i, "%2hhx", (unsigned char *)&bytes[i]);
	if (!*bytes && !memcmp(bytes, bytes + 1, pattern->length - 1))
		misuse("memory: search wants a pattern with a byte that is not 0");
}

/*
 * memchr() is as fast as the memory, but memmem() with a short pattern is not. So the
 * search is for the byte of the pattern that is rarest in a sample.
 */
static void pattern_sample(struct pattern *pattern, const char *data, uint64_t size)
{
	size_t counts[256] = { }, sampled = 0, least = SIZE_MAX;

	for (uint64_t at = 0; at + LINE <= size; at += LINE_EVERY, sampled += LINE)
		for (int i = 0; i < LINE; i++)
			counts[(unsigned char)data[at + i]]++;
	for (size_t i = 0; i < pattern->length; i++) {
		size_t count = counts[(unsigned char)pattern->bytes[i]];

		if (count < least) {
			least = count;
			pattern->rare = i;
		}
	}
	if (least > sampled / RARE)
		pattern->rare = pattern->length;
}

static const char *pattern_find(const struct pattern *pattern, const char *data,
				const char *end)
{
	const size_t rare = pattern->rare, rest = pattern->length - rare;
	const char *hit;

	if (rest == 0)
		return memmem(data, end - data, pattern->bytes, pattern->length);
	if ((size_t)(end - data) < pattern->length)
		return NULL;
	for (data += rare; (size_t)(end - data) >= rest; data = hit + 1) {
		hit = memchr(data, pattern->bytes[rare], end - data - rest + 1);
		if (!hit)
			return NULL;
		if (!memcmp(hit - rare, pattern->bytes, pattern->length))
			return hit - rare;
	}
	return NULL;
}

static void search_bytes(struct pattern *pattern, uint64_t address, const char *data,
			 uint64_t size)
{
	const char *hit, *from = data;

	pattern_sample(pattern, data, size);
	for (; (hit = pattern_find(pattern, from, data + size)); from = hit + 1) {
		printf("0x%" PRIx64 "\n", address + (hit - data));
		pattern->found = true;
	}
}

/* Searches for matches that begin in [@from, @end), which is in one range. */
static void search_part(const struct request *r, struct pattern *pattern, uint64_t from,
			uint64_t end)
{
	const uint64_t more = pattern->length - 1, total = memory_below(r, UINT64_MAX);
	uint64_t size;

	for (; from < end; from += size - more) {
		const char *data = memory_bytes(r, from, end - from + more, &size);

		search_bytes(pattern, from, data, size);
		progress("search", memory_below(r, from + size), total);
		if (size <= more)
			break;
	}
}

/* Searches for matches that begin in a range and end in the next one. */
static void search_edge(const struct request *r, struct pattern *pattern,
			const struct kvmfr_memory_range *before,
			const struct kvmfr_memory_range *behind)
{
	const uint64_t more = pattern->length - 1, edge = behind->address;
	uint64_t left = before->size < more ? before->size : more;
	uint64_t right = behind->size < more ? behind->size : more;
	char *data;

	if (before->address + before->size != edge || !more)
		return;
	data = malloc(left + right);
	if (!data)
		fail("out of memory");
	if (!kvmfr_memory_read(r->memory, edge - left, data, left + right))
		search_bytes(pattern, edge - left, data, left + right);
	free(data);
}

int memory_search(struct request *r)
{
	const struct kvmfr_memory_range *ranges;
	size_t i = 0, n = kvmfr_memory_ranges(r->memory, &ranges);
	uint64_t from = 0, next, done = 0, size, next_size;
	struct pattern pattern = { };
	bool more;

	pattern_parse(&pattern, r->arguments[0]);
	/*
	 * A match can begin or end with zeros in a hole of the file. Reading a hole
	 * allocates memory for it, so the next part is looked up before.
	 */
	more = kvmfr_memory_data(r->memory, &from, &size) == 1;
	for (; more; from = next, size = next_size) {
		uint64_t begin = from > pattern.length - 1 ? from - (pattern.length - 1) : 0;

		next = from + size;
		more = kvmfr_memory_data(r->memory, &next, &next_size) == 1;
		for (; from - ranges[i].address >= ranges[i].size; i++)
			search_edge(r, &pattern, &ranges[i], &ranges[i + 1]);
		if (begin < ranges[i].address)
			begin = ranges[i].address;
		if (begin < done)
			begin = done;
		done = from + size;
		search_part(r, &pattern, begin, done);
	}
	for (; i + 1 < n; i++)
		search_edge(r, &pattern, &ranges[i], &ranges[i + 1]);
	return !pattern.found;
}
