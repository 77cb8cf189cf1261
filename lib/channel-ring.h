/* SPDX-License-Identifier: MIT */
/*
 * One ring of bytes, seen from its writer or its reader. Indices count bytes modulo
 * 2^32. docs/channels.rst, "Rings" and "Ordering", explains every barrier.
 */
#ifndef KVMFR_CHANNEL_RING_H
#define KVMFR_CHANNEL_RING_H

#include <stdbool.h>
#include <sys/types.h>

#include "channel-format.h"

struct ring_writer {
	uint8_t *data;
	uint32_t size;			/* a power of two */
	uint32_t head;			/* what mine->head was last set to */
	uint64_t bytes;
	struct format_writer *mine;
	const struct format_reader *theirs;
};

struct ring_reader {
	const uint8_t *data;
	uint32_t size;
	uint32_t tail;			/* what mine->tail was last set to */
	struct format_reader *mine;
	const struct format_writer *theirs;
};

/* Bytes that can be written, or -EPROTO if the reader's tail makes no sense. */
int64_t kvmfr__ring_room(const struct ring_writer *writer);

/*
 * Writes one piece of at most a quarter of the ring, and publishes it. Returns
 * the bytes written, 0 if the ring is full, or -EPROTO. *@ring is set to true if
 * the reader must be rung now, else unchanged.
 */
ssize_t kvmfr__ring_write(struct ring_writer *writer, const void *data, size_t size, bool *ring);

/*
 * Asks to be rung when half of the ring is free, then looks again. Returns as
 * kvmfr__ring_room(); sleep only if that is 0.
 */
int64_t kvmfr__ring_await_room(struct ring_writer *writer);

/*
 * Reads one piece of at most a quarter of the ring, up to index @limit. Returns as
 * kvmfr__ring_write(); *@ring: the writer must be rung.
 */
ssize_t kvmfr__ring_read(struct ring_reader *reader, void *data, size_t size, uint32_t limit,
			 bool *ring);

/* The writer's head: the limit for kvmfr__ring_read() while the writer goes on. */
uint32_t kvmfr__ring_head(const struct ring_reader *reader);

/*
 * Asks to be rung when the head passes the tail, then looks again. Returns as
 * kvmfr__ring_head(); sleep only if that equals the tail.
 */
uint32_t kvmfr__ring_await_data(struct ring_reader *reader);

/* Skips to @tail. */
void kvmfr__ring_skip(struct ring_reader *reader, uint32_t tail);

#endif
