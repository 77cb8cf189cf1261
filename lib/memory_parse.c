// SPDX-License-Identifier: MIT
/*
 * Reads what QEMU's "info mtree -f" prints (softmmu/memory.c, mtree_print_flatview()):
 *
 *	FlatView #1
 *	 AS "memory", root: system
 *	 Root memory region: system
 *	  0000000000100000-000000007fffffff (prio 0, ram): pc.ram @0000000000100000 KVM
 *
 * A view is shared by all address spaces that look the same and ends with an
 * empty line.
 */
#include "memory.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool starts(const char *s, const char *with)
{
	return !strncmp(s, with, strlen(with));
}

/* Exactly sixteen hexadecimal digits, as QEMU writes addresses. */
static bool parse_address(const char *s, uint64_t *value)
{
	if (strspn(s, "0123456789abcdef") != 16)
		return false;
	*value = strtoull(s, NULL, 16);
	return true;
}

/* Parses what follows "): ": the block's name, then perhaps " @OFFSET" and " KVM". */
static int parse_block(const char *s, const char *end,
		       struct kvmfr_memory_range *range)
{
	const char *name_end = end;

	for (const char *p = s; p + 18 <= end; p++)
		if (starts(p, " @") && parse_address(p + 2, &range->offset))
			name_end = p;
	if (name_end == end && end - s > 4 && starts(end - 4, " KVM"))
		name_end -= 4;
	if (name_end == s)
		return -EPROTO;
	range->block = strndup(s, name_end - s);
	return range->block ? 0 : -ENOMEM;
}

/* One line of a view. 1: a range, whose name the caller frees; 0: neither RAM nor ROM. */
static int parse_line(const char *line, const char *end,
		      struct kvmfr_memory_range *range)
{
	const char *kind, *block;
	uint64_t last;
	int err;

	*range = (struct kvmfr_memory_range) { };
	line += strspn(line, " ");
	if (!parse_address(line, &range->address) || line[16] != '-' ||
	    !parse_address(line + 17, &last))
		return 0;
	kind = strstr(line, ", ");
	block = strstr(line, "): ");
	if (!kind || !block || block > end || kind > block ||
	    last < range->address || last - range->address == UINT64_MAX)
		return -EPROTO;
	range->rom = starts(kind, ", rom)");
	if (!range->rom && !starts(kind, ", ram)"))
		return 0;

	range->size = last - range->address + 1;
	err = parse_block(block + 3, end, range);
	if (err)
		return err;
	if (range->offset + range->size < range->size) {
		free((char *)range->block);
		return -EPROTO;
	}
	return 1;
}

static int append(struct kvmfr_memory_range **ranges, size_t *count,
		  const struct kvmfr_memory_range *range)
{
	const struct kvmfr_memory_range *last = *count ? *ranges + *count - 1 : NULL;
	struct kvmfr_memory_range *more;

	if (*count == MEMORY_RANGES_MAX)
		return -EPROTO;
	if (last && (range->address < last->address ||
		     range->address - last->address < last->size))
		return -EPROTO;
	more = realloc(*ranges, (*count + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	more[(*count)++] = *range;
	*ranges = more;
	return 0;
}

void kvmfr__memory_ranges_free(struct kvmfr_memory_range *ranges, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free((char *)ranges[i].block);
	free(ranges);
}

int kvmfr__memory_parse(const char *text, struct kvmfr_memory_range **ranges,
			size_t *count)
{
	const char *line = strstr(text, "\n AS \"memory\",");
	struct kvmfr_memory_range range;
	int err = 0;

	*ranges = NULL;
	*count = 0;
	while (line && line[1] && !err) {
		const char *end;

		line++;
		end = line + strcspn(line, "\r\n");
		if (end == line)
			break;
		err = parse_line(line, end, &range);
		if (err == 1) {
			err = append(ranges, count, &range);
			if (err)
				free((char *)range.block);
		}
		line = strchr(line, '\n');
	}
	if (!err && !*count)
		err = -EPROTO;
	if (err) {
		kvmfr__memory_ranges_free(*ranges, *count);
		*ranges = NULL;
		*count = 0;
	}
	return err;
}
