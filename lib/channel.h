/* SPDX-License-Identifier: MIT */
/* Channels: what lies in the memory, see docs/channels.rst. */
#ifndef KVMFR_CHANNEL_FORMAT_H
#define KVMFR_CHANNEL_FORMAT_H

#include <endian.h>

#include "libkvmfr-channel.h"

#define CHANNEL_MAGIC	"KVMFRCHN"
#define CHANNEL_MAJOR	1u
#define CHANNEL_TABLE	4096u	/* bytes, where the table begins */

/* One end's line. Only that end writes to it while the channel exists. */
struct channel_line {
	uint32_t state;		/* enum kvmfr_channel_state */
	uint32_t epoch;		/* one more with each opening */
	uint32_t head;		/* bytes written to the own ring, modulo 2^32 */
	uint32_t tail;		/* bytes taken from the other's ring */
	uint32_t want_data;	/* ring when there is something to read */
	uint32_t want_room;	/* ring when there is room to write */
	uint32_t reserved[10];
};

struct channel_slot {
	char name[64];
	uint32_t used;		/* 1: everything else of the slot is valid */
	uint32_t ring;
	uint64_t offset;	/* of the offering side's ring; the other's follows */
	uint32_t reserved[12];
	struct channel_line line[2];
};

struct channel_header {
	char magic[8];
	uint32_t major, minor;
	uint64_t size;
	uint32_t reserved[10];
};

_Static_assert(sizeof(struct channel_slot) == 256, "docs/channels.rst");
_Static_assert(sizeof(struct channel_header) == 64, "docs/channels.rst");

#define CHANNEL_DATA	(CHANNEL_TABLE + KVMFR_CHANNELS_MAX * 256u)

struct kvmfr_channels {
	unsigned char *memory;
	uint64_t size;
	int side;
	kvmfr_channel_notify notify;
	void *argument;
	uint32_t gone[KVMFR_CHANNELS_MAX];	/* epochs of ends that died, 0: none */
};

/* A slot as it was read, with everything in bounds. */
struct channel_place {
	char name[64];
	uint32_t ring;
	uint64_t offset;
};

static inline uint32_t word_read(const uint32_t *word)
{
	return le32toh(__atomic_load_n(word, __ATOMIC_ACQUIRE));
}

static inline void word_write(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, htole32(value), __ATOMIC_RELEASE);
}

static inline struct channel_slot *slot_at(const struct kvmfr_channels *c, unsigned int i)
{
	return (struct channel_slot *)(c->memory + CHANNEL_TABLE) + i;
}

int channel_place_read(const struct kvmfr_channels *c, unsigned int i,
		       struct channel_place *place);
int channel_find(const struct kvmfr_channels *c, const char *name,
		 struct channel_place *place);
uint32_t channel_state(const struct kvmfr_channels *c, unsigned int i, int side,
		       uint32_t *epoch);

#endif
