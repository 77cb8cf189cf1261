// SPDX-License-Identifier: MIT
/*
 * Channels: one end of a channel.
 *
 * Own indices are kept here and only written to the memory, so that the other
 * side can't change them. Its own are read once for each use and bounded.
 */
#include "channel.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct kvmfr_channel {
	struct kvmfr_channels *channels;
	unsigned int index;
	struct channel_line *own, *other;
	unsigned char *out, *in;	/* the rings */
	uint32_t ring;			/* bytes of each */
	uint32_t head, tail;		/* of the own line */
	uint32_t peer_epoch;		/* the other end's when it was last looked at */
	bool want_data, want_room;	/* what the own line says */
	bool broken;
};

static void channel_notify(const struct kvmfr_channel *ch)
{
	ch->channels->notify(ch->channels->argument);
}

/* The other side broke the format: nothing of this channel is used any more. */
static int channel_break(struct kvmfr_channel *ch)
{
	if (!ch->broken) {
		ch->broken = true;
		word_write(&ch->own->state, KVMFR_CHANNEL_CLOSED);
		channel_notify(ch);
	}
	return -EPROTO;
}

/* Bytes that can be read; negative if the other's index is out of bounds. */
static int64_t data_waiting(const struct kvmfr_channel *ch)
{
	uint32_t waiting = word_read(&ch->other->head) - ch->tail;

	return waiting <= ch->ring ? (int64_t)waiting : -EPROTO;
}

static int64_t room_left(const struct kvmfr_channel *ch)
{
	uint32_t waiting = ch->head - word_read(&ch->other->tail);

	return waiting <= ch->ring ? (int64_t)(ch->ring - waiting) : -EPROTO;
}

/*
 * Says what is waited for. The barrier is one half of the wake-up rule: look at
 * the other's index after it. channel_wake() is the other half.
 */
static void want(struct kvmfr_channel *ch, bool data, bool room)
{
	if (data == ch->want_data && room == ch->want_room)
		return;
	if (data != ch->want_data)
		word_write(&ch->own->want_data, data);
	if (room != ch->want_room)
		word_write(&ch->own->want_room, room);
	ch->want_data = data;
	ch->want_room = room;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* After an own index was written: rings if the other end waits for it. */
static void channel_wake(const struct kvmfr_channel *ch, const uint32_t *wanted)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (word_read(wanted))
		channel_notify(ch);
}

static bool peer_open(const struct kvmfr_channel *ch, uint32_t *epoch)
{
	const struct kvmfr_channels *c = ch->channels;

	return channel_state(c, ch->index, !c->side, epoch) == KVMFR_CHANNEL_OPEN;
}

int kvmfr_channel_open(struct kvmfr_channels *c, const char *name, unsigned int flags,
		       struct kvmfr_channel **channel)
{
	struct channel_place place;
	struct kvmfr_channel *ch;
	uint32_t epoch;
	int index;

	*channel = NULL;
	if (flags & ~KVMFR_CHANNEL_TAKE)
		return -EINVAL;
	index = channel_find(c, name, &place);
	if (index < 0)
		return index;
	if (channel_state(c, index, c->side, &epoch) == KVMFR_CHANNEL_OPEN &&
	    !(flags & KVMFR_CHANNEL_TAKE))
		return -EBUSY;
	ch = calloc(1, sizeof(*ch));
	if (!ch)
		return -ENOMEM;
	ch->channels = c;
	ch->index = index;
	ch->own = &slot_at(c, index)->line[c->side];
	ch->other = &slot_at(c, index)->line[!c->side];
	ch->ring = place.ring;
	ch->out = c->memory + place.offset + (c->side ? place.ring : 0);
	ch->in = c->memory + place.offset + (c->side ? 0 : place.ring);
	ch->head = word_read(&ch->own->head);
	ch->tail = word_read(&ch->own->tail);
	if (data_waiting(ch) < 0 || room_left(ch) < 0) {
		free(ch);
		return -EPROTO;
	}
	peer_open(ch, &ch->peer_epoch);
	/* 0 is left out: it stands for "never opened". */
	word_write(&ch->own->epoch, epoch + 1 ? epoch + 1 : 1);
	word_write(&ch->own->want_data, 0);
	word_write(&ch->own->want_room, 0);
	word_write(&ch->own->state, KVMFR_CHANNEL_OPEN);
	channel_notify(ch);
	*channel = ch;
	return 0;
}

void kvmfr_channel_close(struct kvmfr_channel *ch)
{
	if (!ch)
		return;
	if (!ch->broken) {
		word_write(&ch->own->want_data, 0);
		word_write(&ch->own->want_room, 0);
		word_write(&ch->own->state, KVMFR_CHANNEL_CLOSED);
		channel_notify(ch);
	}
	free(ch);
}

/* Copies between the caller's bytes and a ring, in one or two pieces. */
static void ring_copy_in(const struct kvmfr_channel *ch, unsigned char *data, uint32_t size)
{
	uint32_t at = ch->tail & (ch->ring - 1);
	uint32_t first = size < ch->ring - at ? size : ch->ring - at;

	memcpy(data, ch->in + at, first);
	memcpy(data + first, ch->in, size - first);
}

static void ring_copy_out(const struct kvmfr_channel *ch, const unsigned char *data,
			  uint32_t size)
{
	uint32_t at = ch->head & (ch->ring - 1);
	uint32_t first = size < ch->ring - at ? size : ch->ring - at;

	memcpy(ch->out + at, data, first);
	memcpy(ch->out, data + first, size - first);
}

ssize_t kvmfr_channel_read(struct kvmfr_channel *ch, void *data, size_t size)
{
	int64_t waiting;
	uint32_t epoch;
	bool open;

	if (ch->broken)
		return -EPROTO;
	waiting = data_waiting(ch);
	if (!waiting && size) {
		want(ch, true, ch->want_room);
		/* The state before the index: what came before a close is read. */
		open = peer_open(ch, &epoch);
		waiting = data_waiting(ch);
		if (!waiting)
			return open ? -EAGAIN : 0;
	}
	if (waiting < 0)
		return channel_break(ch);
	if ((uint64_t)waiting < size)
		size = waiting;
	ring_copy_in(ch, data, size);
	ch->tail += size;
	word_write(&ch->own->tail, ch->tail);
	want(ch, false, ch->want_room);
	channel_wake(ch, &ch->other->want_room);
	return size;
}

ssize_t kvmfr_channel_write(struct kvmfr_channel *ch, const void *data, size_t size)
{
	int64_t room;

	if (ch->broken)
		return -EPROTO;
	room = room_left(ch);
	if (!room && size) {
		want(ch, ch->want_data, true);
		room = room_left(ch);
		if (!room)
			return -EAGAIN;
	}
	if (room < 0)
		return channel_break(ch);
	if ((uint64_t)room < size)
		size = room;
	ring_copy_out(ch, data, size);
	ch->head += size;
	word_write(&ch->own->head, ch->head);
	want(ch, ch->want_data, false);
	channel_wake(ch, &ch->other->want_data);
	return size;
}

int kvmfr_channel_poll(struct kvmfr_channel *ch)
{
	int64_t waiting, room;
	int states = 0;
	uint32_t epoch;

	if (ch->broken)
		return -EPROTO;
	want(ch, !data_waiting(ch), !room_left(ch));
	/* An end that was closed and opened since shows as one HUP. */
	if (!peer_open(ch, &epoch))
		states |= KVMFR_CHANNEL_HUP | KVMFR_CHANNEL_IN;
	else if (ch->peer_epoch && epoch != ch->peer_epoch)
		states |= KVMFR_CHANNEL_HUP;
	ch->peer_epoch = epoch;
	waiting = data_waiting(ch);
	room = room_left(ch);
	if (waiting < 0 || room < 0)
		return channel_break(ch);
	if (waiting)
		states |= KVMFR_CHANNEL_IN;
	if (room)
		states |= KVMFR_CHANNEL_OUT;
	return states;
}
