/* SPDX-License-Identifier: MIT */
/*
 * The layout of memory with channels, as docs/channels.rst describes it.
 *
 * Every word is 32 bits, little-endian, and has one writer: the side whose part it
 * is in, or the host. But the other side may write anything anywhere, so a word is
 * read once, by format_load*(), into a variable, and the variable is checked.
 */
#ifndef KVMFR_CHANNEL_FORMAT_H
#define KVMFR_CHANNEL_FORMAT_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>

#define FORMAT_MAGIC		"KVMFRCHN"
#define FORMAT_MAJOR		1
#define FORMAT_MINOR		0
#define FORMAT_PAGE		4096u
#define FORMAT_SLOTS_MAX	1023u
#define FORMAT_SLOTS_OFFSET	(3 * FORMAT_PAGE)
#define FORMAT_RING_MIN		4096u
#define FORMAT_RING_MAX		(1u << 30)
#define FORMAT_NAME_SIZE	64
#define FORMAT_LINE		128	/* at least a cache line, on any machine */

/* format_end.state combines an epoch with one of these, see FORMAT_STATE(). */
enum format_state {
	STATE_CLOSED	= 0,
	STATE_OPEN	= 1,	/* open, but not connected with the other end */
	STATE_CONNECTED	= 2,
	STATE_FINISHED	= 3,	/* connected, and will write no more */
	STATE_ENDED	= 4,	/* open; the connection of this epoch is over */
};

#define FORMAT_STATE_BITS	3
#define FORMAT_STATE(epoch, state) ((epoch) << FORMAT_STATE_BITS | (state))
#define FORMAT_EPOCH_MAX	(UINT32_MAX >> FORMAT_STATE_BITS)

#define FORMAT_ALIGNED __attribute__((aligned(FORMAT_LINE)))

struct format_header {
	char magic[8];
	uint32_t major;
	uint32_t minor;
	uint32_t slots;		/* how many, 1 to FORMAT_SLOTS_MAX */
	uint32_t data;		/* the first page that rings may use */
	uint32_t pages;		/* the size of the memory */
	uint32_t identity;	/* changes whenever the memory is formatted */
} FORMAT_ALIGNED;

struct format_side {
	uint32_t session;	/* odd: a process is attached; changes each time */
	uint32_t peer;		/* its id as a peer of the doorbell device */
	uint32_t vectors;	/* how many vectors it listens to */
} FORMAT_ALIGNED;

struct format_descriptor {
	uint32_t serial;	/* odd: there is a channel; changes each time */
	uint32_t tag;		/* the host's, means nothing to the guest */
	struct {
		uint32_t page;
		uint32_t size;	/* bytes, a power of two */
	} ring[2];		/* the ring that the host writes, that the guest writes */
	uint8_t padding[FORMAT_NAME_SIZE - 24];
	char name[FORMAT_NAME_SIZE];	/* padded with zeros, at least one */
} FORMAT_ALIGNED;

struct format_end {
	uint32_t state;
	uint32_t ack;		/* the epoch of the other end that this one accepted, or 0 */
	uint32_t start;		/* the writer's head at the start of this epoch */
	uint32_t serial;	/* of the channel in this epoch */
} FORMAT_ALIGNED;

struct format_writer {
	uint32_t head;		/* bytes ever written, modulo 2^32 */
	uint32_t wake;		/* ring me when the reader's tail passes this */
	uint64_t bytes;		/* written to this channel; only for display */
} FORMAT_ALIGNED;

struct format_reader {
	uint32_t tail;		/* bytes ever read, modulo 2^32 */
	uint32_t wake;		/* ring me when the writer's head passes this */
} FORMAT_ALIGNED;

/* What one side writes of a channel. */
struct format_half {
	struct format_end end;
	struct format_writer writer;
	struct format_reader reader;
};

struct format_slot {
	struct format_descriptor descriptor;
	struct format_half half[2];	/* the host's, the guest's */
	uint8_t reserved[FORMAT_LINE];
};

struct format_memory {
	struct format_header header;
	struct format_side side[2];	/* the host's, the guest's */
	uint8_t padding[FORMAT_PAGE - 3 * FORMAT_LINE];
	/* Written by the host, by the guest: [0] for the table, [1 + slot] for a channel. */
	uint32_t signal[2][FORMAT_PAGE / sizeof(uint32_t)];
	struct format_slot slot[];
};

_Static_assert(sizeof(struct format_descriptor) == 128, "docs/channels.rst");
_Static_assert(offsetof(struct format_descriptor, name) == 64, "docs/channels.rst");
_Static_assert(sizeof(struct format_half) == 384, "docs/channels.rst");
_Static_assert(sizeof(struct format_slot) == 1024, "docs/channels.rst");
_Static_assert(offsetof(struct format_memory, signal) == FORMAT_PAGE, "docs/channels.rst");
_Static_assert(offsetof(struct format_memory, slot) == FORMAT_SLOTS_OFFSET, "docs/channels.rst");

static inline uint32_t format_load(const uint32_t *word)
{
	return le32toh(__atomic_load_n(word, __ATOMIC_RELAXED));
}

static inline uint32_t format_load_acquire(const uint32_t *word)
{
	return le32toh(__atomic_load_n(word, __ATOMIC_ACQUIRE));
}

static inline void format_store(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, htole32(value), __ATOMIC_RELAXED);
}

static inline void format_store_release(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, htole32(value), __ATOMIC_RELEASE);
}

/* Keeps a store and a later load from being reordered. */
static inline void format_fence(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

#endif
