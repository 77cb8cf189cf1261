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

/* A descriptor as it was copied and checked; nobody else can change it. */
struct descriptor {
	uint32_t serial;
	uint32_t page[2], size[2];	/* as in format_descriptor.ring */
	char name[FORMAT_NAME_SIZE];
};

struct slot {
	bool exists;
	struct descriptor d;

	uint32_t seen;			/* the other side's signal word, last time */
	bool look;			/* something has happened: kvmfr_channels_event() */
	bool added, removed;		/* not yet told */
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
	int error;			/* of the backing; nothing works any more */
	uint32_t data, pages, identity;	/* checked copies of the header's words */
	uint32_t session;		/* what this side's word was set to */

	uint32_t seen;			/* the other side's signal for the table */
	bool gone;			/* the other side, says the doorbell's server, … */
	uint32_t gone_session;		/* … that had this session */
	uint32_t cursor;		/* the slot that is asked next for an event */
	uint32_t slots;
	struct slot slot[];
};

/* Tell the other side that there is something new in a slot, or in the table (-1). */
void kvmfr__channels_signal(struct kvmfr_channels *set, int slot);

/*
 * Look at the doorbell, and at the signal words if it was rung. Returns a
 * negative errno if the doorbell is no more.
 */
int kvmfr__channels_look(struct kvmfr_channels *set);

/* The guest's copy of a slot becomes what the table says. */
void kvmfr__channels_refresh(struct kvmfr_channels *set, struct slot *slot);

/* An open end's channel was removed. */
void kvmfr__channel_gone(struct kvmfr_channel *channel);

/* The state word of the other side's end. */
uint32_t kvmfr__channels_other_state(struct kvmfr_channels *set, struct format_end *end);

struct format_slot *kvmfr__channels_slot(struct kvmfr_channels *set, const struct slot *slot);

bool kvmfr__channel_name_is_valid(const char *name);

#endif
