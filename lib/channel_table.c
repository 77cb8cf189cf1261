// SPDX-License-Identifier: MIT
/* Channels: the format's header and table. */
#include "channel.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool name_valid(const char *name)
{
	size_t length = strnlen(name, KVMFR_CHANNEL_NAME_MAX + 1);

	for (size_t i = 0; i < length; i++)
		if (name[i] < ' ' || name[i] > '~' || name[i] == '/')
			return false;
	return length && length <= KVMFR_CHANNEL_NAME_MAX;
}

static bool ring_valid(uint32_t ring)
{
	return ring >= KVMFR_CHANNEL_RING_MIN && ring <= KVMFR_CHANNEL_RING_MAX &&
	       !(ring & (ring - 1));
}

/* 0: this format. 1: another. -EPROTO: a newer or damaged one. */
static int header_check(const void *memory, uint64_t size)
{
	struct channel_header header;

	memcpy(&header, memory, sizeof(header));
	if (memcmp(header.magic, CHANNEL_MAGIC, sizeof(header.magic)))
		return 1;
	if (le32toh(header.major) != CHANNEL_MAJOR || le64toh(header.size) > size ||
	    le64toh(header.size) < CHANNEL_DATA)
		return -EPROTO;
	return 0;
}

static bool all_zero(const unsigned char *memory, size_t size)
{
	return !memory[0] && !memcmp(memory, memory + 1, size - 1);
}

int kvmfr_channels_format(void *memory, size_t size, unsigned int flags)
{
	struct channel_header header = {
		.major = htole32(CHANNEL_MAJOR), .size = htole64(size),
	};
	int err;

	if ((uintptr_t)memory % 64 || flags & ~KVMFR_CHANNELS_FORCE)
		return -EINVAL;
	if (size < CHANNEL_DATA)
		return -ENOSPC;
	err = header_check(memory, size);
	if (!(flags & KVMFR_CHANNELS_FORCE)) {
		if (err < 0)
			return err;
		if (err && !all_zero(memory, size))
			return -EBUSY;
	}
	memset(memory, 0, CHANNEL_DATA);
	memcpy(memory, &header, sizeof(header));
	/* Who sees the magic sees all that is above. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	memcpy(memory, CHANNEL_MAGIC, sizeof(header.magic));
	return 0;
}

int kvmfr_channels_attach(void *memory, size_t size, enum kvmfr_channel_side side,
			  kvmfr_channel_notify notify, void *argument,
			  struct kvmfr_channels **channels)
{
	struct kvmfr_channels *c;

	*channels = NULL;
	if ((uintptr_t)memory % 64 || !notify ||
	    (side != KVMFR_CHANNEL_OFFERING && side != KVMFR_CHANNEL_OTHER))
		return -EINVAL;
	if (size < CHANNEL_DATA || header_check(memory, size))
		return -EPROTO;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->memory = memory;
	c->size = size;
	c->side = side;
	c->notify = notify;
	c->argument = argument;
	*channels = c;
	return 0;
}

void kvmfr_channels_detach(struct kvmfr_channels *channels)
{
	free(channels);
}

/* Copies a slot, each word once. 1: a channel; 0: none; -EPROTO: damaged. */
int channel_place_read(const struct kvmfr_channels *c, unsigned int i,
		       struct channel_place *place)
{
	const struct channel_slot *slot = slot_at(c, i);

	if (!word_read(&slot->used))
		return 0;
	memcpy(place->name, slot->name, sizeof(place->name));
	place->ring = word_read(&slot->ring);
	place->offset = le64toh(__atomic_load_n(&slot->offset, __ATOMIC_ACQUIRE));
	if (place->name[KVMFR_CHANNEL_NAME_MAX] || !name_valid(place->name) ||
	    !ring_valid(place->ring) || place->offset % 64 ||
	    place->offset < CHANNEL_DATA || place->offset > c->size ||
	    c->size - place->offset < 2ull * place->ring)
		return -EPROTO;
	return 1;
}

/* The index of a name. */
int channel_find(const struct kvmfr_channels *c, const char *name,
		 struct channel_place *place)
{
	if (!name_valid(name))
		return -EINVAL;
	for (unsigned int i = 0; i < KVMFR_CHANNELS_MAX; i++)
		if (channel_place_read(c, i, place) == 1 && !strcmp(place->name, name))
			return i;
	return -ENOENT;
}

/* An end's state and epoch; an end that died is closed. */
uint32_t channel_state(const struct kvmfr_channels *c, unsigned int i, int side,
		       uint32_t *epoch)
{
	const struct channel_line *line = &slot_at(c, i)->line[side];
	uint32_t state = word_read(&line->state);

	*epoch = word_read(&line->epoch);
	if (state > KVMFR_CHANNEL_CLOSED ||
	    (side != c->side && *epoch && *epoch == c->gone[i]))
		return KVMFR_CHANNEL_CLOSED;
	return state;
}

/* First fit for two rings; 0 if there is no room. */
static uint64_t space_find(const struct kvmfr_channels *c, uint32_t ring,
			   const struct channel_place *places, unsigned int count)
{
	uint64_t at = CHANNEL_DATA, need = 2ull * ring;
	unsigned int i = 0;

	/* Every hit moves on behind that place, so there are at most count. */
	while (i < count && at <= c->size && c->size - at >= need) {
		uint64_t end = places[i].offset + 2ull * places[i].ring;

		if (at < end && places[i].offset < at + need) {
			at = end;
			i = 0;
		} else {
			i++;
		}
	}
	return at <= c->size && c->size - at >= need ? at : 0;
}

static int slot_fill(struct kvmfr_channels *c, unsigned int i, const char *name,
		     uint32_t ring, uint64_t offset)
{
	struct channel_slot *slot = slot_at(c, i);

	memset(slot->name, 0, sizeof(slot->name));
	memcpy(slot->name, name, strlen(name));
	word_write(&slot->ring, ring);
	__atomic_store_n(&slot->offset, htole64(offset), __ATOMIC_RELEASE);
	for (int side = 0; side < 2; side++) {
		uint32_t epoch = word_read(&slot->line[side].epoch);

		memset(&slot->line[side], 0, sizeof(slot->line[side]));
		word_write(&slot->line[side].epoch, epoch);
	}
	/* The release: who sees it used sees all that is above. */
	word_write(&slot->used, 1);
	c->notify(c->argument);
	return 0;
}

int kvmfr_channels_create(struct kvmfr_channels *c, const char *name, uint32_t ring,
			  uint32_t *room)
{
	struct channel_place *places, unused;
	unsigned int count = 0, free_slot = KVMFR_CHANNELS_MAX;
	uint64_t offset = 0;
	int err;

	if (c->side != KVMFR_CHANNEL_OFFERING)
		return -EPERM;
	err = ring_valid(ring) ? channel_find(c, name, &unused) : -EINVAL;
	if (err != -ENOENT)
		return err < 0 ? err : -EEXIST;
	places = calloc(KVMFR_CHANNELS_MAX, sizeof(*places));
	if (!places)
		return -ENOMEM;
	for (unsigned int i = 0; i < KVMFR_CHANNELS_MAX; i++) {
		err = channel_place_read(c, i, &places[count]);
		if (err == 1)
			count++;
		else if (!err && free_slot == KVMFR_CHANNELS_MAX)
			free_slot = i;
	}
	if (free_slot < KVMFR_CHANNELS_MAX)
		offset = space_find(c, ring, places, count);
	if (offset) {
		err = slot_fill(c, free_slot, name, ring, offset);
	} else {
		err = -ENOSPC;
		if (free_slot == KVMFR_CHANNELS_MAX)
			ring = 0;
		while (ring >= KVMFR_CHANNEL_RING_MIN && !space_find(c, ring, places, count))
			ring /= 2;
		if (room)
			*room = ring >= KVMFR_CHANNEL_RING_MIN ? ring : 0;
	}
	free(places);
	return err;
}

int kvmfr_channels_remove(struct kvmfr_channels *c, const char *name)
{
	struct channel_place place;
	uint32_t epoch;
	int i;

	if (c->side != KVMFR_CHANNEL_OFFERING)
		return -EPERM;
	i = channel_find(c, name, &place);
	if (i < 0)
		return i;
	for (int side = 0; side < 2; side++)
		if (channel_state(c, i, side, &epoch) == KVMFR_CHANNEL_OPEN)
			return -EBUSY;
	word_write(&slot_at(c, i)->used, 0);
	c->notify(c->argument);
	return 0;
}

int kvmfr_channels_info(struct kvmfr_channels *c, unsigned int index,
			struct kvmfr_channel_info *info)
{
	struct channel_place place;
	uint32_t epoch;
	int err;

	if (index >= KVMFR_CHANNELS_MAX)
		return -EINVAL;
	err = channel_place_read(c, index, &place);
	if (err != 1)
		return err;
	memcpy(info->name, place.name, sizeof(info->name));
	info->ring = place.ring;
	for (int side = 0; side < 2; side++) {
		const struct channel_line *line = slot_at(c, index)->line;
		uint32_t waiting = word_read(&line[side].head) - word_read(&line[!side].tail);

		info->state[side] = channel_state(c, index, side, &epoch);
		info->waiting[side] = waiting < place.ring ? waiting : place.ring;
	}
	return 1;
}

void kvmfr_channels_peer_gone(struct kvmfr_channels *c)
{
	for (unsigned int i = 0; i < KVMFR_CHANNELS_MAX; i++)
		c->gone[i] = word_read(&slot_at(c, i)->line[!c->side].epoch);
}
