// SPDX-License-Identifier: GPL-2.0
/*
 * Another process overwrites the whole memory, with random and with chosen values,
 * while a side works. Whatever it reads is to be copied and checked: a value that
 * is loaded twice is another one the second time.
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "../../lib/channel-format.h"
#include "../ktap.h"
#include "ground.h"

#define SIZE	(16 * 4096u)	/* the rings fill it, so that a byte too much faults */
#define RING	8192u
#define ROUNDS	60000
#define CHANNELS 3

static struct ground ground;
static struct view view;
static struct kvmfr_channels_backing backing;
static struct kvmfr_channels *set;
static struct kvmfr_channel *channels[CHANNELS];
static int near;
static volatile uint32_t *progress;	/* of the hostile process, of the side */
static unsigned int reads, writes;	/* that moved bytes */

/* --- the hostile process --------------------------------------------------- */

static uint32_t random_word(void)
{
	return (uint32_t)random() << 16 ^ (uint32_t)random();
}

/* What is near a bound somewhere. */
static uint32_t chosen(const struct format_memory *memory)
{
	static const uint32_t values[] = {
		0, 1, 2, 3, 7, 8, 4095, 4096, RING - 1, RING, RING + 1, 1023, 1024, SIZE / 4096 - 1,
		SIZE / 4096, SIZE, FORMAT_RING_MAX, FORMAT_RING_MAX * 2, INT32_MAX, 1u << 31,
		UINT32_MAX - 1, UINT32_MAX,
	};
	const struct format_half *half = &memory->slot[random() % CHANNELS].half[random() & 1];

	switch (random() % 6) {
	case 0:
		return random_word();
	case 1:
		return half->writer.head + random() % 5 - 2;
	case 2:
		return half->reader.tail + RING + random() % 5 - 2;
	case 3:
		return half->end.state + random() % 9 - 4;
	case 4:
		return half->end.state >> FORMAT_STATE_BITS;
	default:
		return values[random() % ARRAY_SIZE(values)];
	}
}

/* An index that is near one that makes sense, or isn't. */
static uint32_t chosen_index(const struct format_half *half)
{
	uint32_t base = random() % 2 ? format_load(&half->writer.head) :
				       format_load(&half->reader.tail);

	return base + random() % 5 * RING + random() % 5 - 2;
}

static void overwrite(struct format_memory *memory)
{
	uint32_t *words = (uint32_t *)memory;
	uint32_t table = FORMAT_SLOTS_OFFSET / 4 + CHANNELS * sizeof(struct format_slot) / 4;
	uint32_t from = 0, count = 1;
	bool chosen_words = random() % 4;

	switch (random() % 1024) {
	case 0:		/* all of it */
		count = SIZE / 4;
		break;
	case 1 ... 4:	/* a row of words */
		from = random_word() % (SIZE / 4);
		count = random() % 2000;
		break;
	case 5 ... 8:	/* the header, the sides */
		from = random() % (384 / 4);
		break;
	case 9 ... 20:
		from = random_word() % table;
		break;
	case 21 ... 80:	/* a channel */
		from = (FORMAT_SLOTS_OFFSET + random() % (CHANNELS * sizeof(struct format_slot))) / 4;
		break;
	default:
		count = 0;
	}
	for (; count-- && from < SIZE / 4; from++)
		__atomic_store_n(&words[from], chosen_words ? chosen(memory) : random_word(),
				 __ATOMIC_RELAXED);
}

/* Where most is read is a connection, so the next step to one is made often. */
static void connect_to(const struct format_half *theirs, struct format_half *mine)
{
	uint32_t epoch = format_load(&theirs->end.ack);

	format_store(&mine->end.ack, format_load(&theirs->end.state) >> FORMAT_STATE_BITS);
	if (epoch) {
		format_store(&mine->end.state, FORMAT_STATE(epoch, STATE_CONNECTED));
		format_store(&mine->reader.tail, format_load(&theirs->writer.head) - random() % 2);
		format_store(&mine->writer.head, format_load(&theirs->reader.tail) + random() % 9);
		if (random() % 4 == 0)
			format_store(&mine->writer.head, chosen_index(theirs));
		if (random() % 4 == 0)
			format_store(&mine->reader.tail, chosen_index(theirs));
	} else if (format_load(&mine->end.state) % 8 != STATE_OPEN) {
		format_store(&mine->end.state, FORMAT_STATE(1 + random() % 8, STATE_OPEN));
	}
}

static _Noreturn void hostile(unsigned int seed)
{
	struct format_memory *memory = backing.memory;
	uint32_t rounds;

	srandom(seed);
	for (;;) {
		overwrite(memory);
		for (int i = 0; i < CHANNELS; i++)
			if (random() % 2)
				connect_to(&memory->slot[i].half[near], &memory->slot[i].half[!near]);
		format_store(&memory->side[!near].session, random() | 1);
		format_store(&memory->signal[!near][random() % (CHANNELS + 1)], random());
		ground_ring(&(struct view){ &ground, !near }, 10 + near, 0);
		__atomic_add_fetch(progress, 1, __ATOMIC_RELAXED);
		/* Mostly a few of its steps happen in between: nothing connects otherwise. */
		rounds = progress[1];
		for (int i = random() % 32; i && progress[1] - rounds < 8; i--)
			sched_yield();
	}
}

/* --- the side that works --------------------------------------------------- */

static void attach_again(void)
{
	unsigned int flags = near == HOST ? KVMFR_CHANNELS_OVERWRITE : 0;
	char name[] = "0";
	int ret;

	if (random() % 2)
		kvmfr_channels_leave(set);
	else
		kvmfr_channels_detach(set);
	memset(channels, 0, sizeof(channels));
	ret = kvmfr_channels_attach(&set, &backing, near, random() % 2 ? flags : 0);
	ASSERT_TRUE(ret == 0 || ret == -EPROTO);
	for (name[0] = '0'; set && near == HOST && name[0] < '0' + CHANNELS; name[0]++)
		kvmfr_channel_create(set, name, RING, RING);
}

/* One call, chosen at random; what it answers is possible. */
static void work(void)
{
	struct kvmfr_channel **channel = &channels[random() % CHANNELS];
	struct kvmfr_channel_info infos[CHANNELS];
	struct kvmfr_channel_event event;
	uint8_t data[3 * RING];
	ssize_t n;

	switch (random() % 12) {
	case 0:
		n = kvmfr_channels_event(set, &event);
		EXPECT_LE(n, 1);
		if (n == 1)
			EXPECT_TRUE(strnlen(event.name, sizeof(event.name)) < sizeof(event.name));
		else if (n < 0)
			attach_again();
		break;
	case 1:
		n = kvmfr_channels_list(set, infos, CHANNELS);
		EXPECT_LE(n, (int)FORMAT_SLOTS_MAX);
		for (int i = 0; i < n && i < CHANNELS; i++)
			EXPECT_TRUE(infos[i].waiting[0] <= infos[i].size[0] &&
				    infos[i].size[0] <= SIZE);
		break;
	case 2:
		kvmfr_channels_room(set);
		if (random() % 64 == 0)
			kvmfr_channels_peer_gone(set, random() % 20);
		break;
	case 3:
		if (random() % 16 == 0)
			attach_again();
		break;
	case 4:
		kvmfr_channel_close(*channel);
		*channel = NULL;
		break;
	case 5:
		if (near == HOST && random() % 16 == 0 && !*channel)
			kvmfr_channel_remove(set, (char[]){ '0' + (channel - channels), 0 });
		break;
	default:
		if (!*channel)
			kvmfr_channel_open(set, (char[]){ '0' + (channel - channels), 0 },
					   KVMFR_CHANNEL_NONBLOCK, channel);
		if (!*channel)
			break;
		EXPECT_LE(kvmfr_channel_poll(*channel), 0x3f);
		n = kvmfr_channel_read(*channel, data, 1 + random() % sizeof(data));
		reads += n > 0;
		EXPECT_TRUE(n >= 0 || n == -EAGAIN || n == -EPROTO || n == -ENODEV);
		n = kvmfr_channel_write(*channel, data, 1 + random() % sizeof(data));
		writes += n > 0;
		EXPECT_TRUE(n >= 0 || n == -EAGAIN || n == -EPROTO || n == -ENODEV ||
			    n == -EPIPE);
	}
}

static void begin(const char *variant)
{
	const char *seed = getenv("SEED");
	unsigned int n = seed ? strtoul(seed, NULL, 0) : (unsigned int)time(NULL);

	ktap_note("SEED=%u", n);
	srandom(n);
	near = !strcmp(variant, "guest") ? GUEST : HOST;
	progress = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_TRUE(progress != MAP_FAILED && ground_make(&ground, SIZE));
}

static const struct ktap_fixture victim = {
	.variants = (const char *const[]){ "host", "guest", NULL },
	.setup = begin,
};

/* A host that formats; the guest, if it is to be the victim, has it done for it. */
static void format_memory(void)
{
	char name[] = "0";

	ground_back(&ground, &view, HOST, &backing);
	ASSERT_EQ(0, kvmfr_channels_attach(&set, &backing, HOST, KVMFR_CHANNELS_OVERWRITE));
	for (name[0] = '0'; name[0] < '0' + CHANNELS; name[0]++)
		ASSERT_EQ(0, kvmfr_channel_create(set, name, RING, RING));
}

TEST(side_survives_a_process_that_overwrites_all_of_the_memory, .fixture = &victim, .timeout = 300)
{
	unsigned int seed = random();
	uint32_t done = 0;
	pid_t pid;

	format_memory();
	pid = fork();
	if (!pid)
		hostile(seed);
	/* Until both have had their turn, and there were connections that moved bytes. */
	for (uint32_t i = 0; i < ROUNDS || done < ROUNDS / 30 || reads < 100 || writes < 100; i++) {
		if (!set || i % 200 == 0) {
			kvmfr_channels_detach(set);
			memset(channels, 0, sizeof(channels));
			kill(pid, SIGSTOP);
			format_memory();
			if (near == GUEST) {
				kvmfr_channels_detach(set);
				ground_back(&ground, &view, GUEST, &backing);
				ASSERT_EQ(0, kvmfr_channels_attach(&set, &backing, GUEST, 0));
			}
			kill(pid, SIGCONT);
		}
		work();
		progress[1] = i;
		if (i % 8 == 0)
			sched_yield();
		done = __atomic_load_n(progress, __ATOMIC_RELAXED);
	}
	kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	ktap_note("the memory was overwritten %u times, in %u reads and %u writes", done, reads, writes);
	kvmfr_channels_detach(set);
	format_memory();
	ASSERT_EQ(CHANNELS, kvmfr_channels_list(set, NULL, 0));
}
