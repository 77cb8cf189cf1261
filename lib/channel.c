// SPDX-License-Identifier: MIT
/*
 * One open end of a channel. docs/channels.rst, "Ends", has the protocol: how two
 * ends connect, and how each notices that the other was closed or opened again.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "channel-set.h"

#define STATE_MASK	((1u << FORMAT_STATE_BITS) - 1)

/* An open end goes through these in a cycle. */
enum phase {
	CONNECTING,		/* can be neither read nor written */
	CONNECTED,
	ENDED,			/* the other end has gone; what it wrote can be read */
};

struct kvmfr_channel {
	struct kvmfr_channels *set;
	struct slot *slot;
	char name[FORMAT_NAME_SIZE];
	bool nonblock;

	struct format_half *mine, *theirs;
	struct ring_writer writer;
	struct ring_reader reader;

	enum phase phase;
	uint32_t epoch;		/* this end's, in mine->end.state */
	uint32_t accepted;	/* the other end's, that this one is or will be connected with */
	bool finished;		/* shutdown() was called */
	bool inherited;		/* ENDED, from an earlier process; nothing was read of it here */
	int error;		/* -ENODEV, -EPROTO: the channel can only be closed */
};

/* --- the other end --------------------------------------------------------- */

struct other {
	uint32_t epoch;
	enum format_state state;
};

static struct other other_end(struct kvmfr_channel *channel)
{
	uint32_t word = kvmfr__channels_other_state(channel->set, &channel->theirs->end);

	return (struct other){ word >> FORMAT_STATE_BITS, word & STATE_MASK };
}

static void publish(struct kvmfr_channel *channel, enum format_state state)
{
	/* Release: the words that the state is about are stored before it. */
	format_store_release(&channel->mine->end.state, FORMAT_STATE(channel->epoch, state));
	kvmfr__channels_signal(channel->set, channel->slot - channel->set->slot);
}

static void ring(struct kvmfr_channel *channel)
{
	kvmfr__channels_signal(channel->set, channel->slot - channel->set->slot);
}

/* With an ack of 0 no later process takes the connection over, see inherit(). */
static void publish_closed(struct kvmfr_channel *channel)
{
	format_store(&channel->mine->end.ack, 0);
	publish(channel, STATE_CLOSED);
}

static int fail(struct kvmfr_channel *channel, int error)
{
	/* Memory that went away in the middle reads as zeros, see kvmfr_channels_fault(). */
	if (channel->set->error)
		return channel->error = -ENODEV;
	if (!channel->error) {
		channel->error = error;
		publish_closed(channel);
	}
	return channel->error;
}

void kvmfr__channel_gone(struct kvmfr_channel *channel)
{
	fail(channel, -ENODEV);
}

/*
 * Where the other end started to write in this epoch. False: it is just beginning
 * another epoch, and will signal that.
 */
static bool other_start(struct kvmfr_channel *channel, uint32_t epoch, uint32_t *start)
{
	*start = format_load(&channel->theirs->end.start);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return other_end(channel).epoch == epoch;
}

/* --- connecting ------------------------------------------------------------ */

/* Begins an epoch. Unread data of the one before is lost. */
static void begin(struct kvmfr_channel *channel)
{
	channel->phase = CONNECTING;
	channel->inherited = false;
	channel->accepted = 0;
	channel->epoch = channel->epoch % FORMAT_EPOCH_MAX + 1;
	format_store(&channel->mine->writer.wake, channel->writer.head - 1);
	format_store(&channel->mine->end.start, channel->writer.head);
	format_store(&channel->mine->end.serial, channel->slot->d.serial);
	__atomic_store_n(&channel->mine->writer.bytes, htole64(channel->writer.bytes),
			 __ATOMIC_RELAXED);
	format_store(&channel->mine->end.ack, 0);
	publish(channel, STATE_OPEN);
}

/* Accepts an open other end that has begun another epoch. */
static bool accept_other(struct kvmfr_channel *channel, uint32_t epoch)
{
	uint32_t start;

	if (!other_start(channel, epoch, &start))
		return false;
	channel->accepted = epoch;
	kvmfr__ring_skip(&channel->reader, start);
	format_store(&channel->mine->reader.wake, start);
	format_store_release(&channel->mine->end.ack, epoch);
	ring(channel);
	return true;
}

static bool is_over(const struct kvmfr_channel *channel, struct other other)
{
	return other.epoch != channel->accepted || other.state == STATE_CLOSED ||
	       other.state == STATE_ENDED;
}

/* One step towards being connected; false if there was none to take. */
static bool connect_step(struct kvmfr_channel *channel)
{
	struct other other = other_end(channel);
	uint32_t ack;

	if (other.epoch != channel->accepted)
		return other.state == STATE_OPEN && accept_other(channel, other.epoch);
	ack = format_load_acquire(&channel->theirs->end.ack);
	/* If the epoch is still the same, the ack belongs to it: begin() resets the ack. */
	if (ack != channel->epoch || is_over(channel, other_end(channel)))
		return false;
	channel->phase = CONNECTED;
	publish(channel, channel->finished ? STATE_FINISHED : STATE_CONNECTED);
	return true;
}

/* Is the other end connected with this one? Only then may be written. */
static bool is_listening(const struct kvmfr_channel *channel, struct other other)
{
	return channel->phase == CONNECTED && other.epoch == channel->accepted &&
	       (other.state == STATE_CONNECTED || other.state == STATE_FINISHED);
}

/*
 * The index up to which there is data. *@final: the other end writes no more on
 * this connection.
 */
static uint32_t limit(struct kvmfr_channel *channel, bool *final)
{
	struct other other = other_end(channel);
	uint32_t start;

	/*
	 * The head is loaded after the state, so a final state comes with the final
	 * head. If this end is ENDED, an other end that is still OPEN wrote nothing:
	 * it never got connected.
	 */
	if (other.epoch == channel->accepted) {
		*final = is_over(channel, other) || other.state == STATE_FINISHED ||
			 (channel->phase == ENDED && other.state == STATE_OPEN);
		return kvmfr__ring_head(&channel->reader);
	}
	*final = other_start(channel, other.epoch, &start);
	return *final ? start : channel->reader.tail;
}

/* Follows whatever the other end did. Returns 0 or a negative errno. */
static int update(struct kvmfr_channel *channel)
{
	struct other other;
	bool final;

	if (channel->set->error)
		return channel->error = -ENODEV;
	kvmfr__channels_refresh(channel->set, channel->slot);
	if (channel->error)
		return channel->error;
	other = other_end(channel);
	if (other.state > STATE_ENDED)
		return fail(channel, -EPROTO);

	if (channel->phase == CONNECTED && is_over(channel, other)) {
		channel->phase = ENDED;
		publish(channel, STATE_ENDED);
	}
	/* An inherited connection without unread data gives no end of file. */
	if (channel->phase == ENDED && channel->inherited &&
	    limit(channel, &final) == channel->reader.tail && final)
		begin(channel);
	/* At most two steps: accepting, being accepted. */
	if (channel->phase == CONNECTING && connect_step(channel))
		connect_step(channel);
	return 0;
}

/* --- reading and writing --------------------------------------------------- */

/* Reads piece after piece. Returns the bytes read, or -EPROTO or -ENODEV. */
static ssize_t read_some(struct kvmfr_channel *channel, uint8_t *data, size_t size,
			 uint32_t until)
{
	size_t done = 0;

	while (done < size) {
		bool wake = false;
		ssize_t n = kvmfr__ring_read(&channel->reader, data + done, size - done, until,
					     &wake);

		if (n < 0)
			return fail(channel, n);
		if (channel->set->error)
			return done ? (ssize_t)done : -ENODEV;
		if (!n)
			break;
		done += n;
		channel->inherited = false;
		if (wake)
			ring(channel);
	}
	return done;
}

/* kvmfr_channel_read() of a channel that is NONBLOCK. */
static ssize_t read_now(struct kvmfr_channel *channel, void *data, size_t size)
{
	int ret = update(channel);
	uint32_t until;
	bool final;
	ssize_t n;

	if (ret)
		return ret;
	if (channel->phase == CONNECTING || !size)
		return 0;
	until = limit(channel, &final);
	n = read_some(channel, data, size, until);
	if (n)
		return n;
	if (final && channel->phase == ENDED) {
		channel->finished = false;
		begin(channel);
	}
	return final ? 0 : -EAGAIN;
}

ssize_t kvmfr_channel_read(struct kvmfr_channel *channel, void *data, size_t size)
{
	for (;;) {
		ssize_t n = read_now(channel, data, size);
		int ret;

		if (n != -EAGAIN)
			return n;
		if (kvmfr__ring_await_data(&channel->reader) != channel->reader.tail)
			n = read_now(channel, data, size);
		if (n != -EAGAIN || channel->nonblock)
			return n;
		ret = kvmfr_channel_wait(channel, KVMFR_CHANNEL_IN, -1);
		if (ret < 0)
			return ret;
	}
}

/* Writes piece after piece while there is room. Returns the bytes written, or -EPROTO. */
static ssize_t write_some(struct kvmfr_channel *channel, const uint8_t *data, size_t size)
{
	bool full = false;
	size_t done = 0;

	while (done < size) {
		bool wake = false;
		ssize_t n = kvmfr__ring_write(&channel->writer, data + done, size - done, &wake);

		if (n < 0)
			return fail(channel, n);
		/* Only once: a hostile tail that goes to and fro must not keep us here. */
		if (!n && (full || kvmfr__ring_await_room(&channel->writer) <= 0))
			break;
		full = !n;
		done += n;
		if (wake)
			ring(channel);
	}
	return done;
}

/* kvmfr_channel_write() of a channel that is NONBLOCK, with 0 for -EAGAIN. */
static ssize_t write_now(struct kvmfr_channel *channel, const void *data, size_t size)
{
	int ret = update(channel);

	if (ret)
		return ret;
	if (channel->phase == ENDED || channel->finished)
		return -EPIPE;
	if (!is_listening(channel, other_end(channel)))
		return 0;
	return write_some(channel, data, size);
}

ssize_t kvmfr_channel_write(struct kvmfr_channel *channel, const void *data, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = write_now(channel, (const uint8_t *)data + done, size - done);

		if (n < 0)
			return done ? (ssize_t)done : n;
		done += n;
		if (done == size)
			break;
		if (channel->nonblock)
			return done ? (ssize_t)done : -EAGAIN;
		n = kvmfr_channel_wait(channel, KVMFR_CHANNEL_OUT, -1);
		if (n < 0)
			return done ? (ssize_t)done : n;
	}
	return done;
}

int kvmfr_channel_shutdown(struct kvmfr_channel *channel)
{
	int ret = update(channel);

	if (ret)
		return ret;
	if (channel->phase == ENDED)
		return -EPIPE;
	channel->finished = true;
	if (channel->phase == CONNECTED)
		publish(channel, STATE_FINISHED);
	return 0;
}

/* --- waiting --------------------------------------------------------------- */

static unsigned int poll_in(struct kvmfr_channel *channel)
{
	bool final;
	uint32_t until = limit(channel, &final);

	if (until == channel->reader.tail && !final)
		until = kvmfr__ring_await_data(&channel->reader);
	if (until != channel->reader.tail)
		return KVMFR_CHANNEL_IN;
	return final ? KVMFR_CHANNEL_IN | KVMFR_CHANNEL_EOF : 0;
}

static unsigned int poll_out(struct kvmfr_channel *channel)
{
	int64_t room;

	if (channel->finished || !is_listening(channel, other_end(channel)))
		return 0;
	room = kvmfr__ring_room(&channel->writer);
	if (!room)
		room = kvmfr__ring_await_room(&channel->writer);
	return room ? KVMFR_CHANNEL_OUT : 0;
}

unsigned int kvmfr_channel_poll(struct kvmfr_channel *channel)
{
	if (update(channel))
		return KVMFR_CHANNEL_IN | KVMFR_CHANNEL_OUT | KVMFR_CHANNEL_HUP |
		       KVMFR_CHANNEL_ERR;
	switch (channel->phase) {
	case CONNECTING:
		return KVMFR_CHANNEL_IN | KVMFR_CHANNEL_HUP;
	case CONNECTED:
		return poll_in(channel) | poll_out(channel);
	default:
		return poll_in(channel) | KVMFR_CHANNEL_HUP | KVMFR_CHANNEL_END;
	}
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ll + now.tv_nsec / 1000000;
}

int kvmfr_channel_wait(struct kvmfr_channel *channel, unsigned int events, int timeout)
{
	struct pollfd wake = { .fd = channel->set->backing.wake, .events = POLLIN };
	int64_t end = timeout < 0 ? 0 : now_ms() + timeout;
	unsigned int bits = kvmfr_channel_poll(channel);
	unsigned int until = events | KVMFR_CHANNEL_ERR;

	/* If a connection has come and gone, write() returns -EPIPE at once. */
	if (events & KVMFR_CHANNEL_OUT)
		until |= KVMFR_CHANNEL_END;
	while (!(bits & until)) {
		if (!(bits & KVMFR_CHANNEL_HUP))
			until |= KVMFR_CHANNEL_HUP;
		int left = timeout < 0 ? -1 : end - now_ms();
		int n = timeout >= 0 && left <= 0 ? 0 : poll(&wake, 1, left);

		if (n < 0)
			return -errno;
		if (!n)
			return 0;
		kvmfr__channels_look(channel->set);
		bits = kvmfr_channel_poll(channel);
	}
	return bits;
}

/* --- opening and closing --------------------------------------------------- */

/* Takes over the connection of an earlier process, to read the rest of it. */
static void inherit(struct kvmfr_channel *channel)
{
	channel->phase = ENDED;
	channel->inherited = true;
	channel->accepted = format_load(&channel->mine->end.ack);
	channel->reader.tail = format_load(&channel->mine->reader.tail);
	publish(channel, STATE_ENDED);
}

static struct kvmfr_channel *channel_new(struct kvmfr_channels *set, struct slot *slot)
{
	struct format_slot *memory = kvmfr__channels_slot(set, slot);
	struct format_half *mine = &memory->half[set->mine], *theirs = &memory->half[set->other];
	struct kvmfr_channel *channel = calloc(1, sizeof(*channel));
	uint8_t *base = set->backing.memory;

	if (!channel)
		return NULL;
	channel->set = set;
	channel->slot = slot;
	memcpy(channel->name, slot->d.name, sizeof(channel->name));
	channel->mine = mine;
	channel->theirs = theirs;
	channel->writer = (struct ring_writer){
		.data = base + slot->d.page[set->mine] * (size_t)FORMAT_PAGE,
		.size = slot->d.size[set->mine],
		.head = format_load(&mine->writer.head),
		.bytes = kvmfr__channels_bytes(slot, mine),
		.mine = &mine->writer,
		.theirs = &theirs->reader,
	};
	channel->reader = (struct ring_reader){
		.data = base + slot->d.page[set->other] * (size_t)FORMAT_PAGE,
		.size = slot->d.size[set->other],
		.mine = &mine->reader,
		.theirs = &theirs->writer,
	};
	channel->epoch = format_load(&mine->end.state) >> FORMAT_STATE_BITS;
	return channel;
}

static struct slot *slot_by_name(struct kvmfr_channels *set, const char *name)
{
	for (uint32_t i = 0; i < set->slots; i++) {
		struct slot *slot = &set->slot[i];

		kvmfr__channels_refresh(set, slot);
		if (slot->exists && !strcmp(slot->d.name, name))
			return slot;
	}
	return NULL;
}

int kvmfr_channel_open(struct kvmfr_channels *set, const char *name, unsigned int flags,
		       struct kvmfr_channel **result)
{
	struct kvmfr_channel *channel;
	struct slot *slot;

	*result = NULL;
	if (set->observe)
		return -EPERM;
	if (set->error)
		return -ENODEV;
	if (!kvmfr_channel_name_is_valid(name) || (flags & ~KVMFR_CHANNEL_NONBLOCK))
		return -EINVAL;
	slot = slot_by_name(set, name);
	if (!slot)
		return -ENOENT;
	if (slot->open)
		return -EBUSY;
	channel = channel_new(set, slot);
	if (!channel)
		return -ENOMEM;
	channel->nonblock = flags & KVMFR_CHANNEL_NONBLOCK;
	slot->open = channel;
	if (slot->left_open)
		inherit(channel);
	else
		begin(channel);
	slot->left_open = false;

	/* Was it removed meanwhile? kvmfr__channels_signal() has the fence for this. */
	kvmfr__channels_refresh(set, slot);
	if (channel->error) {
		kvmfr_channel_close(channel);
		return -ENOENT;
	}
	*result = channel;
	return 0;
}

void kvmfr_channel_close(struct kvmfr_channel *channel)
{
	if (!channel)
		return;
	if (!channel->error && !channel->set->error)
		publish_closed(channel);
	channel->slot->open = NULL;
	free(channel);
}

const char *kvmfr_channel_name(const struct kvmfr_channel *channel)
{
	return channel->name;
}
