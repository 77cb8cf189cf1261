// SPDX-License-Identifier: MIT
#include "channel-ring.h"

#include <errno.h>
#include <string.h>

/* Did an index that moved from old to new pass wake? */
static bool passed(uint32_t old, uint32_t new, uint32_t wake)
{
	return new - wake - 1 < new - old;
}

static uint32_t piece(uint32_t size, uint32_t available, size_t wanted)
{
	uint32_t n = available < size / 4 ? available : size / 4;

	return wanted < n ? wanted : n;
}

int64_t kvmfr__ring_room(const struct ring_writer *writer)
{
	/* Acquire: the reader's loads come before our stores to what it has freed. */
	uint32_t used = writer->head - format_load_acquire(&writer->theirs->tail);

	return used > writer->size ? -EPROTO : (int64_t)(writer->size - used);
}

ssize_t kvmfr__ring_write(struct ring_writer *writer, const void *data, size_t size, bool *ring)
{
	uint32_t old = writer->head, offset = old & (writer->size - 1);
	int64_t room = kvmfr__ring_room(writer);
	uint32_t n, first;

	if (room <= 0)
		return room;
	n = piece(writer->size, room, size);
	first = n < writer->size - offset ? n : writer->size - offset;
	memcpy(writer->data + offset, data, first);
	memcpy(writer->data, (const uint8_t *)data + first, n - first);

	writer->head = old + n;
	writer->bytes += n;
	__atomic_store_n(&writer->mine->bytes, htole64(writer->bytes), __ATOMIC_RELAXED);
	/* Release: the bytes are stored before the head. */
	format_store_release(&writer->mine->head, writer->head);
	/* Either the reader sees this head before it sleeps, or we see its wake. */
	format_fence();
	if (passed(old, writer->head, format_load(&writer->theirs->wake)))
		*ring = true;
	return n;
}

int64_t kvmfr__ring_await_room(struct ring_writer *writer)
{
	format_store(&writer->mine->wake, writer->head - writer->size / 2 - 1);
	format_fence();
	return kvmfr__ring_room(writer);
}

ssize_t kvmfr__ring_read(struct ring_reader *reader, void *data, size_t size, uint32_t limit,
			 bool *ring)
{
	uint32_t old = reader->tail, offset = old & (reader->size - 1);
	uint32_t available = limit - old, n, first;

	if (available > reader->size)
		return -EPROTO;
	n = piece(reader->size, available, size);
	if (!n)
		return 0;
	first = n < reader->size - offset ? n : reader->size - offset;
	memcpy(data, reader->data + offset, first);
	memcpy((uint8_t *)data + first, reader->data, n - first);

	reader->tail = old + n;
	/* Release: the bytes are copied before the writer may overwrite them. */
	format_store_release(&reader->mine->tail, reader->tail);
	format_fence();
	if (passed(old, reader->tail, format_load(&reader->theirs->wake)))
		*ring = true;
	return n;
}

uint32_t kvmfr__ring_head(const struct ring_reader *reader)
{
	/* Acquire: the bytes are loaded after the head. */
	return format_load_acquire(&reader->theirs->head);
}

uint32_t kvmfr__ring_await_data(struct ring_reader *reader)
{
	format_store(&reader->mine->wake, reader->tail);
	format_fence();
	return kvmfr__ring_head(reader);
}

void kvmfr__ring_skip(struct ring_reader *reader, uint32_t tail)
{
	reader->tail = tail;
	format_store_release(&reader->mine->tail, tail);
}
