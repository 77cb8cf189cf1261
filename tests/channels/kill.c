// SPDX-License-Identifier: GPL-2.0
/*
 * Both sides send to each other without end, and one of them is killed at a random
 * moment, a thousand times. What each has sent and got is written down outside the
 * channels; at the end every connection is compared with what docs/channels.rst,
 * "Death and restart", allows. SEED=N repeats a run's choices.
 */
#include <poll.h>

#include "../ktap.h"
#include "ground.h"

#define KILLS	1000
#define RING	4096u
#define PIECE	3000u
#define CONNECTIONS 4096

/* One connection in one direction. Positions count its bytes. */
struct connection {
	uint64_t sent, sending;		/* write() has returned, was asked for */
	bool known;			/* the writer has lived to see the end: sent is exact */
	bool ended;			/* the reader has come to the end, */
	uint64_t low, high;		/* … which is somewhere here */
};

/* What a reader leaves its successor. */
struct reading {
	uint32_t connection;
	uint64_t got, getting;
};

/* All processes see it. [side] is about what that side writes. */
struct notes {
	uint32_t count[2];
	struct connection connection[2][CONNECTIONS];
	struct reading reading[2];
	uint64_t bytes[2];
};

static struct ground ground;
static struct notes *notes;

static uint8_t byte_at(int side, uint32_t connection, uint64_t position)
{
	uint64_t x = ((uint64_t)connection << 33) + ((uint64_t)side << 32) + position;

	x = (x ^ x >> 29) * 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 31) * 0xbf58476d1ce4e5b9u;
	return x >> 56;
}

/* --- one side -------------------------------------------------------------- */

struct end {
	int mine, other;
	struct kvmfr_channels *set;
	struct kvmfr_channel *channel;
	bool connected;
	bool ended;			/* reading what is left */
	uint32_t number;		/* of the connection before this step, of the other side */
	/* where this may be in what the other side writes: low + i if possible[i] */
	uint64_t low;
	uint32_t width;
	bool possible[16 * PIECE];
};

static void place_at(struct end *end, uint64_t low, uint64_t high)
{
	ASSERT_TRUE(high - low < sizeof(end->possible));
	end->low = low;
	end->width = high - low + 1;
	memset(end->possible, true, sizeof(end->possible));
}

/* Leaves the places where these bytes are right. */
static void compare(struct end *end, const uint8_t *data, size_t size)
{
	uint32_t connection = notes->count[end->other], first = UINT32_MAX, last = 0;

	for (uint32_t i = 0; i < end->width; i++) {
		for (size_t j = 0; end->possible[i] && j < size; j++)
			end->possible[i] = data[j] == byte_at(end->other, connection,
							      end->low + i + j);
		if (!end->possible[i])
			continue;
		first = first < i ? first : i;
		last = i;
	}
	if (first > last)
		FAIL("side %d got bytes that are not in connection %u at %" PRIu64 " to %" PRIu64,
		     end->mine, connection, end->low, end->low + end->width - 1);
	memmove(end->possible, end->possible + first, last - first + 1);
	end->low += first + size;
	end->width = last - first + 1;
}

static void come_to_the_end(struct end *end)
{
	struct reading *reading = &notes->reading[end->other];
	struct connection *c = &notes->connection[end->other][end->number];

	if (!c->ended) {
		c->low = end->low;
		c->high = end->low + end->width - 1;
		c->ended = true;
	}
	reading->got = reading->getting = 0;
	end->connected = end->ended = false;
	place_at(end, 0, 0);
}

static void receive(struct end *end)
{
	struct reading *reading = &notes->reading[end->other];
	uint8_t data[PIECE];
	size_t size = 1 + random() % PIECE;
	ssize_t n;

	if (reading->connection != notes->count[end->other]) {
		reading->got = reading->getting = 0;
		reading->connection = notes->count[end->other];
	}
	reading->getting = end->low + end->width - 1 + size;
	n = kvmfr_channel_read(end->channel, data, size);
	if (n > 0) {
		compare(end, data, n);
		reading->got = end->low;
		reading->getting = end->low + end->width - 1;
		notes->bytes[end->other] += n;
	} else if (!n) {
		come_to_the_end(end);
	} else {
		ASSERT_EQ(-EAGAIN, n);
		reading->getting -= size;
	}
}

static void transmit(struct end *end)
{
	uint32_t number = notes->count[end->mine];
	struct connection *c = &notes->connection[end->mine][number];
	uint8_t data[PIECE];
	size_t size = 1 + random() % PIECE;
	ssize_t n;

	for (size_t i = 0; i < size; i++)
		data[i] = byte_at(end->mine, number, c->sent + i);
	c->sending = c->sent + size;
	n = kvmfr_channel_write(end->channel, data, size);
	if (n > 0)
		c->sent += n;
	else
		ASSERT_TRUE(n == -EAGAIN || n == -EPIPE);
	c->sending = c->sent;
}

/* Not kvmfr_channel_wait(): what it notices step() is to see. */
static void sleep_until_rung(struct end *end)
{
	struct pollfd wake = { .fd = kvmfr_channels_fd(end->set), .events = POLLIN };
	struct kvmfr_channel_event event;

	ASSERT_EQ(1, poll(&wake, 1, -1));
	while (kvmfr_channels_event(end->set, &event) == 1)
		;
}

static void step(struct end *end)
{
	unsigned int bits;

	/* poll() may begin another connection at once, and the other side count it */
	end->number = notes->count[end->other];
	bits = kvmfr_channel_poll(end->channel);
	ASSERT_EQ(0, bits & KVMFR_CHANNEL_ERR);
	/* What a predecessor left ends without a word if nothing is left. */
	if (end->ended && !(bits & KVMFR_CHANNEL_END))
		come_to_the_end(end);
	end->ended = bits & KVMFR_CHANNEL_END;
	if (!(bits & KVMFR_CHANNEL_HUP) && !end->connected) {
		ASSERT_TRUE(++notes->count[end->mine] < CONNECTIONS);
		end->connected = true;
	}
	if ((bits & KVMFR_CHANNEL_END) && end->connected)
		notes->connection[end->mine][notes->count[end->mine]].known = true;
	if ((bits & KVMFR_CHANNEL_IN) && (bits & KVMFR_CHANNEL_END || !(bits & KVMFR_CHANNEL_HUP)))
		receive(end);
	/* not if receive() has come to the end: then it may be another connection */
	if ((bits & KVMFR_CHANNEL_OUT) && end->connected)
		transmit(end);
	/* open and not connected: always IN, and nothing to be read */
	if (bits == (KVMFR_CHANNEL_IN | KVMFR_CHANNEL_HUP) ||
	    !(bits & (KVMFR_CHANNEL_IN | KVMFR_CHANNEL_OUT)))
		sleep_until_rung(end);
}

static _Noreturn void live(int side, unsigned int seed)
{
	struct end end = { .mine = side, .other = !side };
	struct reading *reading = &notes->reading[!side];
	struct kvmfr_channels_backing backing;
	struct view view;

	srandom(seed);
	ground_back(&ground, &view, side, &backing);
	ASSERT_EQ(0, kvmfr_channels_attach(&end.set, &backing, side, 0));
	ASSERT_EQ(0, kvmfr_channel_open(end.set, "one", KVMFR_CHANNEL_NONBLOCK, &end.channel));
	if (reading->connection != notes->count[!side])
		place_at(&end, 0, 0);
	else
		place_at(&end, reading->got, reading->getting);
	/* step() finds out whether anything is left of the one before. */
	end.ended = true;
	for (;;)
		step(&end);
}

/* --- the test -------------------------------------------------------------- */

static pid_t start(int side)
{
	unsigned int seed = random();
	pid_t pid = fork();

	ASSERT_TRUE(pid >= 0);
	if (!pid)
		live(side, seed);
	return pid;
}

static void end(pid_t pid)
{
	int status;

	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	/* else it has found something wrong, and said so */
	ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* Answers whether the connection could be compared. */
static bool check(int side, uint32_t number)
{
	const struct connection *c = &notes->connection[side][number];

	if (!c->ended)
		return false;
	if (c->known ? c->sent < c->low || c->sent > c->high :
	    c->sending < c->low || c->sent > c->high)
		FAIL("connection %u of side %d: sent %" PRIu64 " to %" PRIu64 ", got %" PRIu64
		     " to %" PRIu64, number, side, c->sent, c->sending, c->low, c->high);
	return true;
}

TEST(what_a_process_that_is_killed_loses_is_what_the_text_allows, .timeout = 300)
{
	struct kvmfr_channels_backing backing;
	struct kvmfr_channels *set;
	uint32_t compared[2] = { 0 };
	struct view view;
	pid_t pid[2];
	const char *seed = getenv("SEED");
	unsigned int n = seed ? strtoul(seed, NULL, 0) : (unsigned int)time(NULL);

	ktap_note("SEED=%u", n);
	srandom(n);
	notes = mmap(NULL, sizeof(*notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_TRUE(notes != MAP_FAILED);
	ASSERT_TRUE(ground_make(&ground, 1 << 20));
	ground_back(&ground, &view, HOST, &backing);
	ASSERT_EQ(0, kvmfr_channels_attach(&set, &backing, HOST, KVMFR_CHANNELS_FORMAT));
	ASSERT_EQ(0, kvmfr_channel_create(set, "one", RING, RING));
	kvmfr_channels_detach(set);

	for (int side = 0; side < 2; side++)
		pid[side] = start(side);
	for (int i = 0; i < KILLS; i++) {
		int side = random() & 1;

		usleep(random() % 4000);
		end(pid[side]);
		pid[side] = start(side);
	}
	for (int side = 0; side < 2; side++)
		end(pid[side]);

	for (int side = 0; side < 2; side++) {
		for (uint32_t i = 1; i <= notes->count[side]; i++)
			compared[side] += check(side, i);
		ktap_note("side %d wrote: %u connections, %u compared, %" PRIu64 " bytes read", side,
			  notes->count[side], compared[side], notes->bytes[side]);
		EXPECT_LE(1, compared[side]);
		EXPECT_LE(1, notes->bytes[side]);
	}
}
