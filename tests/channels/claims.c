// SPDX-License-Identifier: GPL-2.0
/*
 * What channels promise, in both directions: "near" is the host in one variant
 * of each test and the guest in the other. Where both sides are in one process,
 * nothing runs but what the test calls.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/wait.h>

#include "../ktap.h"
#include "../../lib/channel-format.h"
#include "ground.h"

#define IN	KVMFR_CHANNEL_IN
#define OUT	KVMFR_CHANNEL_OUT
#define HUP	KVMFR_CHANNEL_HUP
#define ERR	KVMFR_CHANNEL_ERR
#define END	KVMFR_CHANNEL_END
#define NOMORE	KVMFR_CHANNEL_EOF
#define SIZE	(4u << 20)
#define RING	8192u

static struct ground ground;
static struct view views[2];
static struct kvmfr_channels_backing backings[2];
static struct kvmfr_channels *sets[2];
static int near = HOST, far = GUEST;

static int attach_flags(int side, unsigned int flags)
{
	ground_back(&ground, &views[side], side, &backings[side]);
	return kvmfr_channels_attach(&sets[side], &backings[side], side, flags);
}

/* With the host's first time the memory is formatted. */
static void attach(int side)
{
	ASSERT_EQ(0, attach_flags(side, side == HOST ? KVMFR_CHANNELS_FORMAT : 0));
}

/* A memory, both sides, and a channel "one". */
static void both_sides(const char *variant)
{
	near = !strcmp(variant, "from_guest");
	far = !near;
	ASSERT_TRUE(ground_make(&ground, SIZE));
	attach(HOST);
	ASSERT_EQ(0, kvmfr_channel_create(sets[HOST], "one", RING, RING));
	attach(GUEST);
}

/* The same, and this process is neither side. */
static void no_side(const char *variant)
{
	both_sides(variant);
	kvmfr_channels_detach(sets[HOST]);
	kvmfr_channels_detach(sets[GUEST]);
}

static const struct ktap_fixture both = {
	.variants = (const char *const[]){ "from_host", "from_guest", NULL },
	.setup = both_sides,
};

static const struct ktap_fixture apart = {
	.variants = (const char *const[]){ "from_host", "from_guest", NULL },
	.setup = no_side,
};

static struct kvmfr_channel *open_name(int side, const char *name)
{
	struct kvmfr_channel *channel;

	ASSERT_EQ(0, kvmfr_channel_open(sets[side], name, KVMFR_CHANNEL_NONBLOCK, &channel));
	return channel;
}

static struct kvmfr_channel *open_one(int side)
{
	return open_name(side, "one");
}

/* Lets both ends notice each other: five steps are enough for any two states. */
static void settle(struct kvmfr_channel *a, struct kvmfr_channel *b)
{
	for (int i = 0; i < 5; i++) {
		kvmfr_channel_poll(a);
		kvmfr_channel_poll(b);
	}
}

static void connect_one(struct kvmfr_channel **a, struct kvmfr_channel **b)
{
	*a = open_one(near);
	*b = open_one(far);
	settle(*a, *b);
	ASSERT_EQ(OUT, kvmfr_channel_poll(*a));
	ASSERT_EQ(OUT, kvmfr_channel_poll(*b));
}

/* Byte i of a stream. */
static uint8_t pattern(uint64_t i)
{
	return (i * 2654435761u) >> 13;
}

/* Writes as much of it as there is room for, up to size, and answers how much. */
static size_t write_pattern(struct kvmfr_channel *channel, uint64_t from, size_t size)
{
	uint8_t data[2 * RING];
	ssize_t n;

	ASSERT_LE(size, sizeof(data));
	for (size_t i = 0; i < size; i++)
		data[i] = pattern(from + i);
	n = kvmfr_channel_write(channel, data, size);
	ASSERT_TRUE(n >= 0 || n == -EAGAIN);
	return n < 0 ? 0 : n;
}

/* Reads all there is, checks it, and answers how much it was. */
static size_t read_pattern(struct kvmfr_channel *channel, uint64_t from)
{
	uint8_t data[3000];
	size_t done = 0;
	ssize_t n;

	while ((n = kvmfr_channel_read(channel, data, sizeof(data))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			ASSERT_EQ(pattern(from + done + i), data[i]);
		done += n;
	}
	ASSERT_TRUE(n == 0 || n == -EAGAIN);
	return done;
}

/* A child process that attaches to a side, opens the channel, blocks, and ends. */
static pid_t child(int side, void (*run)(struct kvmfr_channel *channel))
{
	struct kvmfr_channel *channel;
	pid_t pid = fork();

	if (pid)
		return pid;
	attach(side);
	ASSERT_EQ(0, kvmfr_channel_open(sets[side], "one", 0, &channel));
	run(channel);
	kvmfr_channel_close(channel);
	kvmfr_channels_detach(sets[side]);
	_exit(KTAP_PASS);
}

static void child_passes(pid_t pid)
{
	int status;

	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
}

/* What the far side is told of an end of channel "one". */
static enum kvmfr_channel_state far_state(int side)
{
	struct kvmfr_channel_info info;

	ASSERT_EQ(1, kvmfr_channels_list(sets[far], &info, 1));
	return info.state[side];
}

/* --- the memory ------------------------------------------------------------ */

TEST(memory_that_is_not_in_the_format_is_refused_and_not_written)
{
	uint8_t *memory;

	ASSERT_TRUE(ground_make(&ground, SIZE));
	memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, ground.memory, 0);
	for (size_t i = 0; i < SIZE; i++)
		memory[i] = pattern(i);
	EXPECT_EQ(-EPROTO, attach_flags(HOST, 0));
	EXPECT_EQ(-EPROTO, attach_flags(HOST, KVMFR_CHANNELS_FORMAT));
	EXPECT_EQ(-EPROTO, attach_flags(GUEST, 0));
	EXPECT_TRUE(!strcmp("the memory is not in the format of channels",
			    kvmfr_channels_problem(memory, SIZE)));
	for (size_t i = 0; i < SIZE; i++)
		ASSERT_EQ(pattern(i), memory[i]);

	/* What is only at the end, as Looking Glass has it, counts as well. */
	memset(memory, 0, SIZE);
	memory[SIZE - 60000] = 1;
	EXPECT_EQ(-EPROTO, attach_flags(HOST, KVMFR_CHANNELS_FORMAT));
	EXPECT_EQ(0, attach_flags(HOST, KVMFR_CHANNELS_OVERWRITE));
	EXPECT_TRUE(!kvmfr_channels_problem(memory, SIZE));
}

TEST(newer_major_version_is_refused_and_a_newer_minor_is_not)
{
	struct format_header *header;

	ASSERT_TRUE(ground_make(&ground, SIZE));
	attach(HOST);
	header = (struct format_header *)backings[HOST].memory;
	header->minor = 99;
	EXPECT_EQ(0, attach_flags(GUEST, 0));
	kvmfr_channels_detach(sets[GUEST]);
	header->major = 2;
	EXPECT_EQ(-EPROTO, attach_flags(GUEST, 0));
	EXPECT_TRUE(!strcmp("the channels in the memory are of a newer version of the format",
			    kvmfr_channels_problem(header, SIZE)));
}

TEST(header_with_numbers_that_make_no_sense_is_refused)
{
	static const struct { uint32_t slots, data, pages; } bad[] = {
		{ 0, 300, 1024 }, { 1024, 300, 1024 }, { 1000, 252, 1024 }, { 1000, 300, 1025 },
		{ 1000, 1025, 1024 }, { UINT32_MAX, UINT32_MAX, UINT32_MAX },
		{ 1000, UINT32_MAX, UINT32_MAX },
	};
	struct format_header *header;

	ASSERT_TRUE(ground_make(&ground, SIZE));
	attach(HOST);
	header = (struct format_header *)backings[HOST].memory;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		header->slots = bad[i].slots;
		header->data = bad[i].data;
		header->pages = bad[i].pages;
		EXPECT_EQ(-EPROTO, attach_flags(GUEST, 0));
	}
}

TEST(side_belongs_to_one_process, .fixture = &both)
{
	struct kvmfr_channels *set;
	pid_t pid = fork();

	if (!pid) {
		EXPECT_EQ(-EBUSY, kvmfr_channels_attach(&set, &backings[near], near, 0));
		EXPECT_EQ(0, kvmfr_channels_attach(&set, &backings[near], near,
						   KVMFR_CHANNELS_OBSERVE));
		_exit(ktap_failed ? KTAP_FAIL : KTAP_PASS);
	}
	child_passes(pid);
	kvmfr_channels_detach(sets[near]);
	EXPECT_EQ(0, attach_flags(near, 0));
}

TEST(no_memory_is_an_invalid_argument)
{
	struct kvmfr_channels_backing nowhere = { .size = 1 << 20, .fd = -1 };
	struct kvmfr_channels *set;

	EXPECT_EQ(-EINVAL, kvmfr_channels_attach(&set, &nowhere, HOST, 0));
	EXPECT_EQ(-EINVAL, kvmfr_channels_attach(&set, &nowhere, GUEST, 0));
}

/* --- the table ------------------------------------------------------------- */

TEST(names_are_checked)
{
	static const char *const bad[] = {
		"", "a/b", "/", ".", "..", "tab\t", "\x7f", "\xc3\xa4",
		"0123456789012345678901234567890123456789012345678901234567890123",
	};
	static const char *const good[] = {
		"a", "...", " ", "~!", "org.qemu.guest_agent.0",
		"012345678901234567890123456789012345678901234567890123456789012",
	};
	struct kvmfr_channel *channel;

	both_sides("from_host");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EINVAL, kvmfr_channel_create(sets[HOST], bad[i], 1, 1));
		EXPECT_EQ(-EINVAL, kvmfr_channel_remove(sets[HOST], bad[i]));
		EXPECT_EQ(-EINVAL, kvmfr_channel_open(sets[HOST], bad[i], 0, &channel));
	}
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		EXPECT_EQ(0, kvmfr_channel_create(sets[HOST], good[i], 1, 1));
		EXPECT_EQ(-EEXIST, kvmfr_channel_create(sets[HOST], good[i], 1, 1));
		EXPECT_TRUE(!kvmfr_channel_open(sets[GUEST], good[i], 0, &channel) &&
			    !strcmp(good[i], kvmfr_channel_name(channel)));
	}
}

TEST(only_the_host_creates_and_removes)
{
	both_sides("from_host");
	EXPECT_EQ(-EPERM, kvmfr_channel_create(sets[GUEST], "two", 1, 1));
	EXPECT_EQ(-EPERM, kvmfr_channel_remove(sets[GUEST], "one"));
}

TEST(channel_that_is_not_there_or_open_already, .fixture = &both)
{
	struct kvmfr_channel *channel;

	EXPECT_EQ(-ENOENT, kvmfr_channel_open(sets[near], "two", 0, &channel));
	EXPECT_EQ(0, kvmfr_channel_open(sets[near], "one", 0, &channel));
	EXPECT_EQ(-EBUSY, kvmfr_channel_open(sets[near], "one", 0, &channel));
	EXPECT_TRUE(!channel);
}

TEST(full_memory_says_how_much_room_there_is)
{
	both_sides("from_host");
	ASSERT_EQ(0, kvmfr_channel_create(sets[HOST], "large", 1 << 20, 1 << 20));
	/* 4 MiB without two rings of 1 MiB, two of 8 KiB, and 67 pages of table */
	EXPECT_EQ((2 << 20) - 2 * RING - (3 + 64) * 4096, kvmfr_channels_room(sets[HOST]));
	EXPECT_EQ(-ENOSPC, kvmfr_channel_create(sets[HOST], "larger", 1 << 20, 1 << 20));
	EXPECT_EQ(-EINVAL, kvmfr_channel_create(sets[HOST], "larger", (1 << 30) + 1, 1));
	EXPECT_EQ(0, kvmfr_channel_remove(sets[HOST], "large"));
	EXPECT_EQ(0, kvmfr_channel_create(sets[HOST], "large2", 1 << 20, 1 << 20));
}

TEST(thousand_channels_at_once, .timeout = 120)
{
	struct kvmfr_channel *ends[2][1000];
	char name[32], data[32];

	ASSERT_TRUE(ground_make(&ground, 16 << 20));
	attach(HOST);
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "channel-%d", i);
		ASSERT_EQ(0, kvmfr_channel_create(sets[HOST], name, 4096, 4096));
	}
	EXPECT_EQ(-ENOSPC, kvmfr_channel_create(sets[HOST], "one more", 4096, 4096));
	EXPECT_EQ(0, kvmfr_channels_room(sets[HOST]));
	attach(GUEST);
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "channel-%d", i);
		ends[0][i] = open_name(HOST, name);
		ends[1][i] = open_name(GUEST, name);
		settle(ends[0][i], ends[1][i]);
		ASSERT_EQ((ssize_t)strlen(name),
			  kvmfr_channel_write(ends[i % 2][i], name, strlen(name)));
	}
	for (int i = 999; i >= 0; i--) {
		snprintf(name, sizeof(name), "channel-%d", i);
		ASSERT_EQ((ssize_t)strlen(name),
			  kvmfr_channel_read(ends[!(i % 2)][i], data, sizeof(data)));
		ASSERT_TRUE(!memcmp(name, data, strlen(name)));
	}
	EXPECT_EQ(1000, kvmfr_channels_list(sets[GUEST], NULL, 0));
}

static void expect_event(int side, enum kvmfr_channel_what what, const char *name)
{
	struct kvmfr_channel_event event;

	ASSERT_EQ(1, kvmfr_channels_event(sets[side], &event));
	EXPECT_EQ(what, event.what);
	EXPECT_TRUE(!strcmp(name, event.name));
}

static void drop_events(int side)
{
	struct kvmfr_channel_event event;

	while (kvmfr_channels_event(sets[side], &event) == 1)
		;
}

static bool woken(int side)
{
	struct pollfd wake = { .fd = kvmfr_channels_fd(sets[side]), .events = POLLIN };

	return poll(&wake, 1, 0) == 1;
}

TEST(guest_is_told_of_channels_that_come_and_go)
{
	struct kvmfr_channel_event event;
	struct kvmfr_channel *channel;
	char byte;

	both_sides("from_host");
	drop_events(GUEST);
	EXPECT_TRUE(!woken(GUEST));
	ASSERT_EQ(0, kvmfr_channel_create(sets[HOST], "two", 1, 1));
	EXPECT_TRUE(woken(GUEST));
	expect_event(GUEST, KVMFR_CHANNEL_ADDED, "two");
	drop_events(GUEST);
	channel = open_name(GUEST, "two");
	ASSERT_EQ(0, kvmfr_channel_remove(sets[HOST], "two"));
	expect_event(GUEST, KVMFR_CHANNEL_REMOVED, "two");
	EXPECT_EQ(0, kvmfr_channels_event(sets[GUEST], &event));
	EXPECT_EQ(-ENODEV, kvmfr_channel_read(channel, &byte, 1));
	EXPECT_EQ(-ENODEV, kvmfr_channel_write(channel, &byte, 1));
	EXPECT_EQ(IN | OUT | HUP | ERR, kvmfr_channel_poll(channel));
	kvmfr_channel_close(channel);
	EXPECT_EQ(1, kvmfr_channels_list(sets[GUEST], NULL, 0));
}

TEST(memory_of_a_removed_channel_waits_until_the_guest_has_closed_it)
{
	struct kvmfr_channel *guest;
	uint64_t room;

	both_sides("from_host");
	room = kvmfr_channels_room(sets[HOST]);
	guest = open_one(GUEST);
	ASSERT_EQ(0, kvmfr_channel_remove(sets[HOST], "one"));
	EXPECT_EQ(room, kvmfr_channels_room(sets[HOST]));
	kvmfr_channel_poll(guest);		/* notices */
	EXPECT_EQ(room + 2 * RING, kvmfr_channels_room(sets[HOST]));
	ASSERT_EQ(0, kvmfr_channel_create(sets[HOST], "one", RING, RING));
	EXPECT_EQ(-ENODEV, kvmfr_channel_write(guest, "x", 1));
}

/* --- open, close, poll ----------------------------------------------------- */

TEST(end_alone_reads_0_and_cannot_write, .fixture = &both)
{
	struct kvmfr_channel *a = open_one(near);
	char byte;

	EXPECT_EQ(0, kvmfr_channel_read(a, &byte, 1));
	EXPECT_EQ(-EAGAIN, kvmfr_channel_write(a, "x", 1));
	EXPECT_EQ(IN | HUP, kvmfr_channel_poll(a));
}

TEST(each_end_is_told_when_the_other_opens_and_closes, .fixture = &both)
{
	struct kvmfr_channel_event event;
	struct kvmfr_channel *a, *b;
	char byte;

	a = open_one(near);
	drop_events(near);
	b = open_one(far);
	EXPECT_TRUE(woken(near));
	ASSERT_EQ(1, kvmfr_channels_event(sets[near], &event));
	EXPECT_EQ(KVMFR_CHANNEL_CHANGED, event.what);
	EXPECT_EQ(KVMFR_CHANNEL_OPEN, event.other);
	EXPECT_TRUE(event.channel == a);
	settle(a, b);
	EXPECT_EQ(OUT, kvmfr_channel_poll(a));
	drop_events(near);
	kvmfr_channel_close(b);
	EXPECT_TRUE(woken(near));
	ASSERT_EQ(1, kvmfr_channels_event(sets[near], &event));
	EXPECT_EQ(KVMFR_CHANNEL_CLOSED, event.other);
	EXPECT_EQ(IN | HUP | END | NOMORE, kvmfr_channel_poll(a));
	EXPECT_EQ(-EPIPE, kvmfr_channel_write(a, "x", 1));
	EXPECT_EQ(0, kvmfr_channel_read(a, &byte, 1));
	EXPECT_EQ(IN | HUP, kvmfr_channel_poll(a));
	EXPECT_EQ(-EAGAIN, kvmfr_channel_write(a, "x", 1));
}

TEST(detaching_closes_what_is_open, .fixture = &both)
{
	struct kvmfr_channel_info info;
	struct kvmfr_channel *a, *b;

	connect_one(&a, &b);
	ASSERT_EQ(1, kvmfr_channels_list(sets[near], &info, 1));
	EXPECT_EQ(KVMFR_CHANNEL_CONNECTED, info.state[near]);
	EXPECT_EQ(KVMFR_CHANNEL_CONNECTED, info.state[far]);
	kvmfr_channels_detach(sets[far]);
	EXPECT_EQ(IN | HUP | END | NOMORE, kvmfr_channel_poll(a));
	ASSERT_EQ(1, kvmfr_channels_list(sets[near], &info, 1));
	EXPECT_EQ(KVMFR_CHANNEL_ABSENT, info.state[far]);
	EXPECT_EQ(KVMFR_CHANNEL_OPEN, info.state[near]);
}

TEST(server_says_that_the_peer_has_gone, .fixture = &both)
{
	struct kvmfr_channel *a, *b;

	connect_one(&a, &b);
	drop_events(near);
	kvmfr_channels_peer_gone(sets[near], 77);
	EXPECT_EQ(OUT, kvmfr_channel_poll(a));
	kvmfr_channels_peer_gone(sets[near], 10 + far);
	EXPECT_EQ(IN | HUP | END | NOMORE, kvmfr_channel_poll(a));
	expect_event(near, KVMFR_CHANNEL_CHANGED, "one");
}

TEST(poll_in_every_state, .fixture = &both)
{
	struct kvmfr_channel *a, *b;
	uint8_t data[RING];

	a = open_one(near);
	EXPECT_EQ(IN | HUP, kvmfr_channel_poll(a));
	b = open_one(far);
	settle(a, b);
	EXPECT_EQ(OUT, kvmfr_channel_poll(a));
	EXPECT_EQ(RING, write_pattern(a, 0, RING));
	EXPECT_EQ(0, kvmfr_channel_poll(a));
	EXPECT_EQ(IN | OUT, kvmfr_channel_poll(b));
	EXPECT_EQ(1, kvmfr_channel_read(b, data, 1));
	EXPECT_EQ(OUT, kvmfr_channel_poll(a));
	EXPECT_EQ(RING - 1, read_pattern(b, 1));
	EXPECT_EQ(OUT, kvmfr_channel_poll(b));
	EXPECT_EQ(0, kvmfr_channel_shutdown(a));
	EXPECT_EQ(-EPIPE, kvmfr_channel_write(a, "x", 1));
	EXPECT_EQ(0, kvmfr_channel_poll(a));
	EXPECT_EQ(IN | OUT | NOMORE, kvmfr_channel_poll(b));
	EXPECT_EQ(0, kvmfr_channel_read(b, data, 1));
	EXPECT_EQ(1, kvmfr_channel_write(b, "x", 1));
	EXPECT_EQ(IN, kvmfr_channel_poll(a));
	kvmfr_channel_close(b);
	EXPECT_EQ(IN | HUP | END, kvmfr_channel_poll(a));
	EXPECT_EQ(1, kvmfr_channel_read(a, data, 2));
	EXPECT_EQ(0, kvmfr_channel_read(a, data, 2));
	EXPECT_EQ(IN | HUP, kvmfr_channel_poll(a));
}

TEST(nothing_is_rung_without_need, .fixture = &both)
{
	struct kvmfr_channel *a, *b;
	uint64_t rings;
	uint8_t byte;

	connect_one(&a, &b);
	rings = ground.rings[far];
	/* b sleeps: the first byte rings, the others don't */
	for (int i = 0; i < 100; i++)
		ASSERT_EQ(1, write_pattern(a, i, 1));
	EXPECT_EQ(rings + 1, ground.rings[far]);
	/* b is awake: nothing rings until it has to wait again */
	for (int i = 0; i < 50; i++)
		ASSERT_EQ(1, kvmfr_channel_read(b, &byte, 1));
	EXPECT_EQ(1, write_pattern(a, 100, 1));
	EXPECT_EQ(rings + 1, ground.rings[far]);
	EXPECT_EQ(51, read_pattern(b, 50));
	EXPECT_EQ(1, write_pattern(a, 101, 1));
	EXPECT_EQ(rings + 2, ground.rings[far]);

	/* a waits for room: it is rung once, when half of the ring is free */
	EXPECT_EQ(1, read_pattern(b, 101));
	EXPECT_EQ(RING, write_pattern(a, 0, RING + 1));
	rings = ground.rings[near];
	for (unsigned int i = 0; i < RING / 2 - 1; i++)
		ASSERT_EQ(1, kvmfr_channel_read(b, &byte, 1));
	EXPECT_EQ(rings, ground.rings[near]);
	EXPECT_EQ(RING / 2 + 1, read_pattern(b, RING / 2 - 1));
	EXPECT_EQ(rings + 1, ground.rings[near]);
}

/* --- data ------------------------------------------------------------------ */

TEST(what_was_written_before_closing_can_be_read, .fixture = &both)
{
	struct kvmfr_channel *a, *b;
	char data[8] = "";

	connect_one(&a, &b);
	EXPECT_EQ(5, kvmfr_channel_write(a, "first", 5));
	kvmfr_channel_close(a);
	a = open_one(near);
	settle(a, b);
	/* b hasn't seen the end: the new connection waits for that */
	EXPECT_EQ(-EAGAIN, kvmfr_channel_write(a, "second", 6));
	EXPECT_EQ(IN | HUP | END, kvmfr_channel_poll(b));
	EXPECT_EQ(5, kvmfr_channel_read(b, data, 8));
	EXPECT_TRUE(!memcmp(data, "first", 5));
	EXPECT_EQ(0, kvmfr_channel_read(b, data, 8));
	settle(a, b);
	EXPECT_EQ(6, kvmfr_channel_write(a, "second", 6));
	EXPECT_EQ(6, kvmfr_channel_read(b, data, 8));
	EXPECT_TRUE(!memcmp(data, "second", 6));
}

TEST(what_nobody_read_before_closing_is_not_read_by_the_next, .fixture = &both)
{
	struct kvmfr_channel *a, *b;
	char data[8];

	connect_one(&a, &b);
	EXPECT_EQ(3, kvmfr_channel_write(a, "old", 3));
	kvmfr_channel_close(b);
	b = open_one(far);
	settle(a, b);
	EXPECT_EQ(0, kvmfr_channel_read(a, data, 8));
	settle(a, b);
	EXPECT_EQ(-EAGAIN, kvmfr_channel_read(b, data, 8));
	EXPECT_EQ(3, kvmfr_channel_write(a, "new", 3));
	EXPECT_EQ(3, kvmfr_channel_read(b, data, 8));
	EXPECT_TRUE(!memcmp(data, "new", 3));
}

TEST(full_channel_holds_up_no_other, .fixture = &both)
{
	struct kvmfr_channel *a, *b, *c, *d;
	uint8_t data[8];

	ASSERT_EQ(0, kvmfr_channel_create(sets[HOST], "two", RING, RING));
	connect_one(&a, &b);
	c = open_name(near, "two");
	d = open_name(far, "two");
	settle(c, d);
	EXPECT_EQ(RING, write_pattern(a, 0, 2 * RING));
	EXPECT_EQ(RING, write_pattern(b, 0, 2 * RING));
	for (int i = 0; i < 10000; i++) {
		ASSERT_EQ(8, kvmfr_channel_write(c, "12345678", 8));
		ASSERT_EQ(8, kvmfr_channel_read(d, data, 8));
	}
	EXPECT_EQ(RING, read_pattern(b, 0));
}

TEST(indices_wrap_around, .fixture = &both)
{
	struct format_memory *memory = backings[HOST].memory;
	struct kvmfr_channel *a, *b;
	uint64_t done = 0;

	/* as after 4 GiB less 5000 bytes */
	for (int i = 0; i < 2; i++) {
		memory->slot[0].half[i].writer.head = -5000;
		memory->slot[0].half[i].reader.tail = -5000;
	}
	connect_one(&a, &b);
	while (done < 40000) {
		size_t n = write_pattern(a, done, 3333);

		ASSERT_EQ(n, read_pattern(b, done));
		done += n;
	}
	EXPECT_TRUE(memory->slot[0].half[near].writer.head < 40000);
}

#define MANY	(32ull << 20)

static void writes_many(struct kvmfr_channel *channel)
{
	uint8_t data[10007];
	uint64_t done = 0;

	while (done < MANY) {
		size_t n = MANY - done < sizeof(data) ? MANY - done : sizeof(data);

		for (size_t i = 0; i < n; i++)
			data[i] = pattern(done + i);
		ASSERT_EQ((ssize_t)n, kvmfr_channel_write(channel, data, n));
		done += n;
	}
}

static void reads_many(struct kvmfr_channel *channel)
{
	uint8_t data[7001];
	uint64_t done = 0;
	ssize_t n;

	/* until then a read would answer 0 */
	while (kvmfr_channel_poll(channel) == (IN | HUP))
		kvmfr_channel_wait(channel, OUT, 100);
	while ((n = kvmfr_channel_read(channel, data, sizeof(data))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			ASSERT_EQ(pattern(done + i), data[i]);
		done += n;
	}
	ASSERT_EQ(0, n);
	ASSERT_EQ(MANY, done);
}

TEST(large_transfer_between_processes_that_block, .fixture = &apart, .timeout = 240)
{
	pid_t writer = child(near, writes_many), reader = child(far, reads_many);

	child_passes(reader);
	child_passes(writer);
}

static void writes_few(struct kvmfr_channel *channel)
{
	ASSERT_EQ(5, kvmfr_channel_write(channel, "apple", 5));
}

TEST(writer_waits_until_the_reader_opens_and_nothing_is_lost, .fixture = &apart)
{
	pid_t writer = child(near, writes_few);
	struct kvmfr_channel *b;
	char data[8];

	attach(far);
	/* it has the channel open, before this end has */
	ASSERT_TRUE(WAIT_FOR(far_state(near) == KVMFR_CHANNEL_OPEN));
	ASSERT_EQ(0, kvmfr_channel_open(sets[far], "one", 0, &b));
	kvmfr_channel_wait(b, OUT, -1);
	EXPECT_EQ(5, kvmfr_channel_read(b, data, 8));
	EXPECT_TRUE(!memcmp(data, "apple", 5));
	EXPECT_EQ(0, kvmfr_channel_read(b, data, 8));
	child_passes(writer);
}

TEST(waiting_to_write_ends_with_the_connection, .fixture = &both)
{
	struct kvmfr_channel *a, *b;

	connect_one(&a, &b);
	EXPECT_EQ(1, kvmfr_channel_write(b, "x", 1));
	kvmfr_channel_close(b);
	ASSERT_EQ(IN | HUP | END, kvmfr_channel_poll(a));
	EXPECT_EQ(IN | HUP | END, kvmfr_channel_wait(a, OUT, 0));
	EXPECT_EQ(-EPIPE, kvmfr_channel_write(a, "x", 1));
}

static void on_alarm(int sig)
{
	(void)sig;
}

TEST(signal_interrupts_what_blocks, .fixture = &both)
{
	const struct sigaction action = { .sa_handler = on_alarm };
	struct kvmfr_channel *a, *b;
	uint8_t data[RING] = { 0 };

	b = open_one(far);
	ASSERT_EQ(0, kvmfr_channel_open(sets[near], "one", 0, &a));
	settle(a, b);
	sigaction(SIGALRM, &action, NULL);
	ualarm(20000, 20000);
	EXPECT_EQ(-EINTR, kvmfr_channel_read(a, data, 1));
	EXPECT_EQ(RING, kvmfr_channel_write(a, data, RING));
	EXPECT_EQ(-EINTR, kvmfr_channel_write(a, data, 1));
	EXPECT_EQ(-EINTR, kvmfr_channel_wait(a, IN, -1));
	ualarm(0, 0);
	EXPECT_EQ(0, kvmfr_channel_wait(a, IN, 10));
}

/* --- a process that dies, and one that breaks the protocol ----------------- */

/* Attaches to a side whose process is, by the test's word, dead. */
static void succeed(int side)
{
	ground_back(&ground, &views[side], side, &backings[side]);
	backings[side].fd = -1;
	ASSERT_EQ(0, kvmfr_channels_attach(&sets[side], &backings[side], side, 0));
}

/* What is left of "apple", after the first byte, and the end of the connection */
static void reads_the_rest(struct kvmfr_channel *end)
{
	char data[16];

	EXPECT_EQ(4, kvmfr_channel_read(end, data, 16));
	EXPECT_TRUE(!memcmp(data, "pple", 4));
	EXPECT_EQ(0, kvmfr_channel_read(end, data, 16));
}

TEST(successor_reads_what_a_dead_process_did_not, .fixture = &both)
{
	struct kvmfr_channel *a, *b;
	char data[16];

	connect_one(&a, &b);
	EXPECT_EQ(5, kvmfr_channel_write(a, "apple", 5));
	EXPECT_EQ(1, kvmfr_channel_read(b, data, 1));
	EXPECT_EQ(3, kvmfr_channel_write(b, "nut", 3));
	/* far has a successor, and never said that it ends (nor is its lock asked) */
	succeed(far);
	EXPECT_EQ(IN | HUP | END, kvmfr_channel_poll(a));
	b = open_one(far);
	reads_the_rest(b);
	EXPECT_EQ(3, kvmfr_channel_read(a, data, 16));
	EXPECT_TRUE(!memcmp(data, "nut", 3));
	EXPECT_EQ(0, kvmfr_channel_read(a, data, 16));
	settle(a, b);
	EXPECT_EQ(OUT, kvmfr_channel_poll(a));
	EXPECT_EQ(OUT, kvmfr_channel_poll(b));
	EXPECT_EQ(4, kvmfr_channel_write(a, "pear", 4));
	EXPECT_EQ(4, kvmfr_channel_read(b, data, 16));
}

TEST(successor_of_a_process_that_left_or_of_two_that_died, .fixture = &both)
{
	struct kvmfr_channel *a, *b;
	char data[16];

	connect_one(&a, &b);
	EXPECT_EQ(5, kvmfr_channel_write(a, "apple", 5));
	EXPECT_EQ(3, kvmfr_channel_write(b, "nut", 3));
	EXPECT_EQ(1, kvmfr_channel_read(b, data, 1));
	kvmfr_channels_leave(sets[far]);
	EXPECT_EQ(IN | HUP | END, kvmfr_channel_poll(a));
	EXPECT_EQ(-EPIPE, kvmfr_channel_write(a, "x", 1));
	EXPECT_EQ(3, kvmfr_channel_read(a, data, 16));
	EXPECT_EQ(0, kvmfr_channel_read(a, data, 16));
	succeed(far);
	/* which dies before it opened anything, and so does this one */
	succeed(far);
	succeed(far);
	b = open_one(far);
	reads_the_rest(b);
	settle(a, b);
	EXPECT_EQ(OUT, kvmfr_channel_poll(a));
	EXPECT_EQ(OUT, kvmfr_channel_poll(b));
}

TEST(successor_of_a_process_that_died_before_the_other_end_knew, .fixture = &both)
{
	struct kvmfr_channel *a, *b;

	a = open_one(near);
	b = open_one(far);
	kvmfr_channel_poll(a);
	kvmfr_channel_poll(b);		/* connected, and dies; a has not seen it */
	EXPECT_EQ(0, kvmfr_channel_poll(b) & HUP);
	succeed(far);
	b = open_one(far);
	settle(a, b);
	EXPECT_EQ(OUT, kvmfr_channel_poll(a));
	EXPECT_EQ(OUT, kvmfr_channel_poll(b));
}

TEST(successor_gets_nothing_of_another_channel_in_the_same_place)
{
	struct kvmfr_channel *a, *b;
	char data[16];

	both_sides("from_host");
	connect_one(&a, &b);
	EXPECT_EQ(5, kvmfr_channel_write(a, "apple", 5));
	/* the guest dies, is known to have, and its channel is replaced */
	kvmfr_channels_peer_gone(sets[HOST], 11);
	ASSERT_EQ(0, kvmfr_channel_remove(sets[HOST], "one"));
	kvmfr_channel_close(a);
	ASSERT_EQ(0, kvmfr_channel_create(sets[HOST], "two", RING, RING));
	succeed(GUEST);
	drop_events(HOST);
	a = open_name(HOST, "two");
	b = open_name(GUEST, "two");
	settle(a, b);
	EXPECT_EQ(OUT, kvmfr_channel_poll(b));
	EXPECT_EQ(-EAGAIN, kvmfr_channel_read(b, data, 16));
}

TEST(bytes_of_a_channel_before_in_the_same_place_are_not_counted)
{
	struct kvmfr_channel_info info;
	struct kvmfr_channel *a, *b;

	both_sides("from_host");
	connect_one(&a, &b);
	EXPECT_EQ(5, kvmfr_channel_write(a, "apple", 5));
	EXPECT_EQ(4, kvmfr_channel_write(b, "pear", 4));
	kvmfr_channel_close(a);
	kvmfr_channel_close(b);
	ASSERT_EQ(0, kvmfr_channel_remove(sets[HOST], "one"));
	ASSERT_EQ(0, kvmfr_channel_create(sets[HOST], "two", RING, RING));
	drop_events(GUEST);
	ASSERT_EQ(1, kvmfr_channels_list(sets[GUEST], &info, 1));
	EXPECT_EQ(0, info.bytes[HOST]);
	EXPECT_EQ(0, info.bytes[GUEST]);
	a = open_name(HOST, "two");
	b = open_name(GUEST, "two");
	settle(a, b);
	EXPECT_EQ(3, kvmfr_channel_write(a, "fig", 3));
	ASSERT_EQ(1, kvmfr_channels_list(sets[HOST], &info, 1));
	EXPECT_EQ(3, info.bytes[HOST]);
	EXPECT_EQ(0, info.bytes[GUEST]);
}

TEST(memory_that_is_unplugged_in_the_middle_answers_enodev, .fixture = &both)
{
	struct kvmfr_channel_event event;
	struct kvmfr_channel *a, *b;
	uint8_t data[RING] = { 1 };

	connect_one(&a, &b);
	EXPECT_EQ(RING, kvmfr_channel_write(b, data, RING));
	EXPECT_EQ(10, kvmfr_channel_read(a, data, 10));
	EXPECT_EQ(0, kvmfr_channels_fault(sets[near], data));
	EXPECT_EQ(0, kvmfr_channels_fault(sets[near], backings[far].memory));
	EXPECT_EQ(1, kvmfr_channels_fault(sets[near], backings[near].memory + SIZE - 1));
	EXPECT_EQ(-ENODEV, kvmfr_channel_read(a, data, 10));
	EXPECT_EQ(-ENODEV, kvmfr_channel_write(a, data, 10));
	EXPECT_EQ(IN | OUT | HUP | ERR, kvmfr_channel_poll(a));
	EXPECT_EQ(-ENODEV, kvmfr_channels_event(sets[near], &event));
	/* the other side has lost nothing of its own */
	EXPECT_EQ(OUT, kvmfr_channel_poll(b));
	kvmfr_channels_detach(sets[near]);
	EXPECT_EQ(0, attach_flags(near, 0));
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	if (!kvmfr_channels_fault(sets[near], info->si_addr))
		_exit(KTAP_FAIL);
}

TEST(handler_of_sigbus_keeps_what_was_read_true, .fixture = &both)
{
	const struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };
	struct kvmfr_channel *a, *b;
	uint8_t data[RING];

	connect_one(&a, &b);
	EXPECT_EQ(RING, write_pattern(b, 0, RING));
	ASSERT_EQ(0, sigaction(SIGBUS, &action, NULL));
	/* The rings are gone, the table isn't: it is the copying that faults. */
	ASSERT_EQ(0, ftruncate(ground.memory, 67 * 4096));
	memset(data, 0x55, sizeof(data));
	EXPECT_EQ(-ENODEV, kvmfr_channel_read(a, data, sizeof(data)));
	EXPECT_EQ(-ENODEV, kvmfr_channel_write(a, data, sizeof(data)));
}

/* Ends the connection of one test, so that the next begins with nothing. */
static void close_both(struct kvmfr_channel *a, struct kvmfr_channel *b)
{
	kvmfr_channel_close(a);
	kvmfr_channel_close(b);
}

TEST(words_that_make_no_sense_close_the_channel, .fixture = &both)
{
	struct format_memory *memory = backings[HOST].memory;
	struct format_half *theirs = &memory->slot[0].half[far];
	struct kvmfr_channel *a, *b;
	char data[16] = "";

	connect_one(&a, &b);
	theirs->writer.head += RING + 1;
	EXPECT_EQ(-EPROTO, kvmfr_channel_read(a, data, 16));
	EXPECT_EQ(-EPROTO, kvmfr_channel_write(a, data, 16));
	EXPECT_EQ(IN | OUT | HUP | ERR, kvmfr_channel_poll(a));
	close_both(a, b);

	connect_one(&a, &b);
	theirs->reader.tail += 1;
	EXPECT_EQ(-EPROTO, kvmfr_channel_write(a, data, 16));
	close_both(a, b);

	connect_one(&a, &b);
	theirs->end.state |= 7;
	EXPECT_EQ(-EPROTO, kvmfr_channel_write(a, data, 16));
	close_both(a, b);

	connect_one(&a, &b);
	EXPECT_EQ(16, kvmfr_channel_write(a, data, 16));
	EXPECT_EQ(16, kvmfr_channel_read(b, data, 16));
}

TEST(memory_that_was_replaced_is_told, .fixture = &both)
{
	struct format_memory *memory = backings[HOST].memory;
	struct kvmfr_channel_event event;
	struct kvmfr_channel *a, *b;

	connect_one(&a, &b);
	drop_events(near);
	memory->side[near].session += 2;
	kvmfr_channels_detach(sets[far]);
	EXPECT_EQ(-ESTALE, kvmfr_channels_event(sets[near], &event));
	EXPECT_EQ(-ENODEV, kvmfr_channel_write(a, "x", 1));
	kvmfr_channels_detach(sets[near]);
	EXPECT_EQ(0, attach_flags(near, 0));
}

TEST(guest_is_told_when_the_memory_is_formatted_anew)
{
	struct kvmfr_channel_event event;

	both_sides("from_host");
	kvmfr_channels_detach(sets[HOST]);
	drop_events(GUEST);
	EXPECT_TRUE(!woken(GUEST));
	ASSERT_EQ(0, attach_flags(HOST, KVMFR_CHANNELS_OVERWRITE));
	EXPECT_TRUE(woken(GUEST));
	EXPECT_EQ(-ESTALE, kvmfr_channels_event(sets[GUEST], &event));
	kvmfr_channels_detach(sets[GUEST]);
	attach(GUEST);
	EXPECT_EQ(0, kvmfr_channels_list(sets[GUEST], NULL, 0));
}

TEST(host_that_comes_back_puts_no_ring_outside_the_memory)
{
	static const struct { uint32_t page, size; } bad[] = {
		{ 67, 1u << 30 }, { 0, 4096 }, { 1023, 8192 }, { 1024, 4096 },
		{ UINT32_MAX, 4096 }, { UINT32_MAX - 1, UINT32_MAX }, { 67, 1u << 31 },
	};
	struct format_memory *memory;
	uint64_t room;

	both_sides("from_host");
	memory = backings[GUEST].memory;
	kvmfr_channels_detach(sets[HOST]);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		for (int slot = 0; slot < 8; slot++) {
			struct format_descriptor *d = &memory->slot[slot].descriptor;

			d->serial = slot & 1;
			d->ring[0].page = d->ring[1].page = bad[i].page;
			d->ring[0].size = d->ring[1].size = bad[i].size;
			memory->slot[slot].half[GUEST].end.state = 1 << 3 | 2;
		}
		attach(HOST);
		room = kvmfr_channels_room(sets[HOST]);
		EXPECT_EQ((1024 - 67) * 4096, room);
		EXPECT_EQ(0, kvmfr_channel_create(sets[HOST], "a", 4096, 4096));
		EXPECT_EQ(67, memory->slot[0].descriptor.ring[0].page);
		EXPECT_EQ(68, memory->slot[0].descriptor.ring[1].page);
		EXPECT_EQ(-ENOSPC, kvmfr_channel_create(sets[HOST], "b", 2 << 20, 2 << 20));
		EXPECT_EQ(0, kvmfr_channel_remove(sets[HOST], "a"));
		kvmfr_channels_detach(sets[HOST]);
	}
}

TEST(busy_channel_does_not_hide_the_events_of_others, .fixture = &both)
{
	struct kvmfr_channel_event event;
	struct kvmfr_channel *a, *b, *d;
	char byte;
	int i;

	ASSERT_EQ(0, kvmfr_channel_create(sets[HOST], "two", RING, RING));
	connect_one(&a, &b);
	drop_events(near);
	d = open_name(far, "two");
	for (i = 0; i < 2; i++) {
		/* "one" has something new before each look */
		EXPECT_EQ(1, kvmfr_channel_write(b, "x", 1));
		ASSERT_EQ(1, kvmfr_channels_event(sets[near], &event));
		if (!strcmp(event.name, "two"))
			break;
		EXPECT_EQ(1, kvmfr_channel_read(a, &byte, 1));
		EXPECT_EQ(-EAGAIN, kvmfr_channel_read(a, &byte, 1));
	}
	EXPECT_EQ(1, i);
	kvmfr_channel_close(d);
}
