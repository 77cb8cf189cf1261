/* SPDX-License-Identifier: GPL-2.0 */
/* What is sent through channels between machines: byte n is a function of n. */
#ifndef CHANNELS_PATTERN_H
#define CHANNELS_PATTERN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PATTERN_BYTES	(4u << 20)

static inline uint8_t pattern_at(uint64_t n)
{
	return (n * 2654435761u ^ n >> 7) >> 13;
}

static inline void pattern_fill(uint8_t *data, uint64_t from, size_t size)
{
	for (size_t i = 0; i < size; i++)
		data[i] = pattern_at(from + i);
}

/* The first byte that isn't what it should be, or -1. */
static inline ssize_t pattern_compare(const uint8_t *data, uint64_t from, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (data[i] != pattern_at(from + i))
			return i;
	return -1;
}

#endif
