/* SPDX-License-Identifier: MIT */
/*
 * What channels.c (a side and its table) and channel.c (one open end) share.
 */
#ifndef KVMFR_CHANNEL_SET_H
#define KVMFR_CHANNEL_SET_H

#include <stdbool.h>

#include "channel-format.h"
#include "channel-ring.h"
#include "libkvmfr-channel.h"

/* A checked copy of a descriptor, which the other side can't change. */
struct descriptor {
	uint32_t serial;
	uint32_t page[2], size[2];	/* as in format_descriptor.ring */
	char name[FORMAT_NAME_SIZE];
};

struct slot {
	bool exists;
	struct descriptor d;

	uint32_t seen;			/* the other side's signal word when it was last read */
	bool look;			/* it has changed: an event is due */
	bool added, removed;		/* these events are due */
	char removed_name[FORMAT_NAME_SIZE];

	bool left_open;			/* by a process before this one, see "Death and restart" */
	struct kvmfr_channel *open;
};

struct kvmfr_channels {
	struct kvmfr_channels_backing backing;
	struct format_memory *memory;
	int mine, other;		/* indices of the sides: 0 is the host's */
	bool observe;
	int lock;			/* a descriptor, or -1 */
	int error;			/* negative errno: the set can't be used any more */
	uint32_t data, pages, identity;	/* checked copies of the header's words */
	uint32_t session;		/* of this side, as it was stored */

	uint32_t seen;			/* the other side's signal word for the table */
	bool gone;			/* the server says that the other side has left … */
	uint32_t gone_session;		/* … in this session */
	uint32_t cursor;		/* the slot whose turn for an event is next */
	uint32_t slots;
	struct slot slot[];
};

/* Signals a change of a slot, or of the table (-1), to the other side. */
void kvmfr__channels_signal(struct kvmfr_channels *set, int slot);

/*
 * Clears the doorbell and, if it was rung, reads the other side's signal words.
 * Returns 0 or set->error.
 */
int kvmfr__channels_look(struct kvmfr_channels *set);

/* Brings the copy of a slot up to date with the table, unless this is the host. */
void kvmfr__channels_refresh(struct kvmfr_channels *set, struct slot *slot);

/* Marks an open channel as removed. */
void kvmfr__channel_gone(struct kvmfr_channel *channel);

/* The state word of the other side's end. */
uint32_t kvmfr__channels_other_state(struct kvmfr_channels *set, struct format_end *end);

struct format_slot *kvmfr__channels_slot(struct kvmfr_channels *set, const struct slot *slot);

/* The bytes that a half has written to the channel that is in the slot now. */
uint64_t kvmfr__channels_bytes(const struct slot *slot, const struct format_half *half);

#endif
