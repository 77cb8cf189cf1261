// SPDX-License-Identifier: GPL-2.0
/*
 * A libFuzzer target: both sides of a small memory, into which anything is written
 * between their calls.
 *
 * The input is a row of commands of 8 bytes: what, where or which channel, and a
 * value. Whatever it is, each call ends, answers what the header says, touches
 * nothing outside the memory and writes no word of the other side.
 */
#include <stdlib.h>
#include <string.h>

#include "../../lib/channel-set.h"
#include "ground.h"

#define COMMAND	8
#define PAGES	24u
#define SLOTS	(PAGES / 4)	/* as format() makes them */
#define DATA	(3 + (SLOTS + 3) / 4)

static struct ground ground;
static struct view views[2];
static struct kvmfr_channels_backing backings[2];
static struct kvmfr_channels *sets[2];
static struct kvmfr_channel *channels[2][SLOTS];

static const char *const names[] = { "a", "b", "c", "", "x/y", "a" };

static struct format_memory *memory(int side)
{
	return backings[side].memory;
}

static void expect(bool true_thing)
{
	if (!true_thing)
		abort();
}

/* --- what no call may change: the words of the other side ------------------ */

struct words {
	struct format_side side;
	struct format_half half[SLOTS];
	uint32_t signal[1 + SLOTS];
};

static void copy_words(int side, struct words *words)
{
	struct format_memory *m = memory(HOST);

	words->side = m->side[side];
	for (unsigned int i = 0; i < SLOTS; i++)
		words->half[i] = m->slot[i].half[side];
	memcpy(words->signal, m->signal[side], sizeof(words->signal));
}

/* --- the calls ------------------------------------------------------------- */

static void close_all(int side)
{
	memset(channels[side], 0, sizeof(channels[side]));
}

static void attach(int side, unsigned int flags)
{
	int ret;

	kvmfr_channels_detach(sets[side]);
	close_all(side);
	ret = kvmfr_channels_attach(&sets[side], &backings[side], side, flags);
	expect(ret == 0 || ret == -EPROTO || ret == -EINVAL);
	expect(!ret == !!sets[side]);
}

/* Every channel that a side believes in has its rings in the memory, behind the table. */
static void check_rings(const struct kvmfr_channels *set)
{
	for (unsigned int i = 0; set && i < set->slots; i++) {
		const struct descriptor *d = &set->slot[i].d;

		for (int j = 0; set->slot[i].exists && j < 2; j++)
			expect(d->page[j] >= DATA && d->page[j] < PAGES &&
			       d->size[j] && d->size[j] <= (PAGES - d->page[j]) * 4096);
	}
}

static void read_some(struct kvmfr_channel *channel, size_t size)
{
	uint8_t *data = malloc(size);	/* so that AddressSanitizer knows its end */
	ssize_t n = kvmfr_channel_read(channel, data, size);

	expect(n <= (ssize_t)size);
	expect(n >= 0 || n == -EAGAIN || n == -ENODEV || n == -EPROTO);
	free(data);
}

static void write_some(struct kvmfr_channel *channel, size_t size)
{
	uint8_t *data = calloc(1, size);
	ssize_t n = kvmfr_channel_write(channel, data, size);

	expect(n <= (ssize_t)size);
	expect(n >= 0 || n == -EAGAIN || n == -EPIPE || n == -ENODEV || n == -EPROTO);
	free(data);
}

static void call_set(int side, unsigned int what, const char *name, uint32_t value)
{
	struct kvmfr_channel_info infos[SLOTS];
	struct kvmfr_channel_event event;
	struct kvmfr_channel *channel;
	int ret;

	switch (what) {
	case 0:
		ret = kvmfr_channel_create(sets[side], name, value & 0x7fff, value >> 16);
		expect(ret != -ENODEV || kvmfr_channels_event(sets[side], &event) < 0);
		expect(ret != 0 || side == HOST);
		break;
	case 1:
		kvmfr_channel_remove(sets[side], name);
		break;
	case 2:
		ret = kvmfr_channels_list(sets[side], infos, SLOTS);
		expect(ret <= (int)SLOTS);
		for (int i = 0; i < ret; i++)
			for (int j = 0; j < 2; j++)
				expect(infos[i].waiting[j] <= infos[i].size[j] &&
				       infos[i].size[j] <= PAGES * 4096);
		break;
	case 3:
		expect(side == GUEST || kvmfr_channels_room(sets[side]) <= (PAGES - DATA) * 4096);
		break;
	case 4:
		ret = kvmfr_channels_event(sets[side], &event);
		expect(ret <= 1);
		expect(ret != 1 || strnlen(event.name, sizeof(event.name)) < sizeof(event.name));
		break;
	case 5:
		kvmfr_channels_peer_gone(sets[side], value & 0xff);
		break;
	case 6:
		if (kvmfr_channel_open(sets[side], name, KVMFR_CHANNEL_NONBLOCK, &channel))
			break;
		expect(!strcmp(name, kvmfr_channel_name(channel)));
		for (unsigned int i = 0; i < SLOTS; i++) {
			if (channels[side][i])
				continue;
			channels[side][i] = channel;
			return;
		}
		abort();	/* more open ends than slots */
	default:
		if (value & 1)
			kvmfr_channels_leave(sets[side]);
		else
			kvmfr_channels_detach(sets[side]);
		sets[side] = NULL;
		close_all(side);
	}
}

static void call_channel(int side, unsigned int what, unsigned int number, uint32_t value)
{
	struct kvmfr_channel **channel = &channels[side][number % SLOTS];

	if (!*channel)
		return;
	switch (what) {
	case 0:
	case 1:
		read_some(*channel, 1 + value % 20000);
		break;
	case 2:
	case 3:
		write_some(*channel, 1 + value % 20000);
		break;
	case 4:
		kvmfr_channel_shutdown(*channel);
		break;
	case 5:
		kvmfr_channel_close(*channel);
		*channel = NULL;
		break;
	default:
		expect(kvmfr_channel_poll(*channel) < 0x40);
	}
}

/* --- what is written in between -------------------------------------------- */

static uint32_t *word_at(uint8_t where, uint8_t number)
{
	static const size_t half[] = { 0, 4, 8, 12, 128, 132, 136, 256, 260 };
	static const size_t descriptor[] = { 0, 8, 12, 16, 20, 64 };
	uint8_t *p = (uint8_t *)memory(HOST);
	uint8_t *slot = p + FORMAT_SLOTS_OFFSET + number % SLOTS * sizeof(struct format_slot);

	if (where < 8)
		return (uint32_t *)(p + where * 4);
	if (where < 16)
		return (uint32_t *)(p + 128 + (where & 1) * 128 + (where / 2 % 3) * 4);
	if (where < 20)
		return (uint32_t *)(p + 4096 * (1 + (where & 1)) + number % (SLOTS + 1) * 4);
	if (where < 40)
		return (uint32_t *)(slot + descriptor[where % 6]);
	return (uint32_t *)(slot + 128 + (where & 1) * 384 + half[where / 2 % 9]);
}

/* A descriptor of a channel "a" with rings that are, as often as not, outside. */
static void write_descriptor(const uint8_t *command)
{
	static const uint32_t pages[] = { 0, DATA, PAGES - 1, PAGES, PAGES + 1, UINT32_MAX };
	static const uint32_t sizes[] = { 0, 4096, 8192, 1u << 30, 1u << 31, 4095 };
	struct format_slot *slot = &memory(HOST)->slot[command[3] % SLOTS];

	for (int i = 0; i < 2; i++) {
		slot->descriptor.ring[i].page = pages[command[4 + i] % 6];
		slot->descriptor.ring[i].size = sizes[command[6 + i] % 6];
	}
	memcpy(slot->descriptor.name, "a", 2);
	slot->descriptor.serial += 1 + (command[2] & 1);
	if (command[2] & 2)
		slot->half[GUEST].end.state = FORMAT_STATE(1, STATE_ENDED);
}

static void write_word(const uint8_t *command)
{
	uint32_t *word = word_at(command[2], command[3]), value;

	memcpy(&value, command + 4, 4);
	/* Another descriptor is looked at only with another serial. */
	if (command[1] & 0x40)
		memory(HOST)->slot[command[3] % SLOTS].descriptor.serial += 2;
	switch (command[1] % 4) {
	case 0:
		*word = value;
		break;
	case 1:
		*word += (int8_t)value;
		break;
	case 2:
		*word ^= 1u << (value & 31);
		break;
	default:	/* what is somewhere else, and a bit more */
		*word = *word_at(value, value >> 8) + (int8_t)(value >> 16);
	}
}

static void do_command(const uint8_t *command)
{
	int side = command[0] & 1;
	unsigned int what = command[1] % 8;
	static struct words before, after;	/* their padding is zero */
	uint32_t value;

	memcpy(&value, command + 4, 4);
	if (command[0] / 2 % 4 == 3) {
		if (command[0] & 8)
			write_descriptor(command);
		else
			write_word(command);
		return;
	}
	copy_words(!side, &before);
	if (!sets[side])
		attach(side, side == GUEST ? 0 : command[0] & 64 ? KVMFR_CHANNELS_OVERWRITE : 0);
	else if (command[0] / 2 % 4 == 2)
		call_set(side, what, names[command[2] % 6], value);
	else
		call_channel(side, what, command[2], value);
	check_rings(sets[side]);
	copy_words(!side, &after);
	/* Formatting zeroes what is the guest's, and writes nothing else there. */
	if (memcmp(&before, &after, sizeof(before)))
		for (size_t i = 0; i < sizeof(after); i++)
			expect(side == HOST && (command[0] & 64) && !((uint8_t *)&after)[i]);
}

static void prepare(void)
{
	if (!ground.size) {
		expect(ground_make(&ground, PAGES * 4096));
		for (int side = 0; side < 2; side++) {
			ground_back(&ground, &views[side], side, &backings[side]);
			backings[side].fd = -1;
		}
	}
	memset(memory(HOST), 0, DATA * 4096);
	for (int side = 0; side < 2; side++) {
		close_all(side);
		attach(side, side == HOST ? KVMFR_CHANNELS_OVERWRITE : 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	prepare();
	/* Most inputs begin where it is interesting: two channels, one connected. */
	if (size && data[0] & 0x80) {
		kvmfr_channel_create(sets[HOST], "a", 4096, 8192);
		kvmfr_channel_create(sets[HOST], "b", 4096, 4096);
		for (int side = 0; side < 2; side++)
			call_set(side, 6, "a", 0);
		for (int i = 0; i < 6; i++)
			kvmfr_channel_poll(channels[i & 1][0]);
	}
	for (; size >= COMMAND; data += COMMAND, size -= COMMAND)
		do_command(data);
	for (int side = 0; side < 2; side++) {
		kvmfr_channels_detach(sets[side]);
		sets[side] = NULL;
	}
	return 0;
}
