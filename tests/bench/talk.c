// SPDX-License-Identifier: GPL-2.0
/*
 * talk: what it costs a program of a host and one of its guest to talk.
 *
 *	talk host IVSHMEM-SERVER VIRTIO-SERIAL-SOCKET WAY[:SIZE]...
 *	talk guest WAY[:SIZE]...
 *
 * The host's side runs where the clock counts instructions, in a VM in which
 * KVM runs the guest: so it counts all instructions of both sides, the kernels'
 * and QEMU's included. The host is given work, and no result depends on when.
 * It prints "WAY.WHAT VALUE" lines, of WAY the costs of messages and frames, of
 * WAY:SIZE those of transfers, and "WAY[:SIZE].done 1" behind them.
 *
 * All ways are used as a program would: calls that block, no busy loops.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "../../lib/libkvmfr-channel.h"

#define MB		(1ul << 20)
#define FRAME_SIZE	(8 * MB)
#define RING_SIZE	(MB / 4)	/* of the channel, each way */
#define PORT		1110		/* of vsock */
#define GUEST_CID	3
#define POLLING_US	200		/* as the examples do */
#define SHORT_MS	50
#define PATIENCE_MS	500		/* or millions of instructions, for one request */
#define ROUND_TRIPS	101
#define TIMES		2		/* for what a timer may strike in: the lowest counts */

enum op {
	ECHO,		/* answer at once */
	LATER,		/* answer after total milliseconds */
	TAKE,		/* read total bytes, size at a time */
	GIVE,		/* write total bytes, size at a time */
	DRAW,		/* draw a frame into private memory */
	FRAME,		/* draw a frame so that the host gets it */
	QUIT,
};

struct message {
	uint32_t op, size;
	uint64_t total;
	uint64_t wakeups;	/* of the answering side, so far */
	char rest[40];
};

_Static_assert(sizeof(struct message) == 64, "a message has 64 bytes");

/* One way to talk. A program's own end of it is in static variables. */
struct way {
	const char *name;
	void (*open)(void);
	void (*close)(void);
	void (*send)(const void *data, size_t size);
	void (*receive)(void *data, size_t size);
	bool stream;		/* can carry more than messages */
	unsigned int idle_ms;		/* how long nothing happens; polling makes it take long */
};

static bool is_host;
static const char *server, *serial_path;
static char *private_frame, *shared_frame;	/* the latter in an ivshmem-plain */
static char buffer[FRAME_SIZE];

static int must(int result, const char *what)
{
	if (result < 0)
		errx(1, "%s: %s", what, strerror(-result));
	return result;
}

static int must_errno(int result, const char *what)
{
	if (result < 0)
		err(1, "%s", what);
	return result;
}

static void pause_us(unsigned int us)
{
	const struct timespec t = { us / 1000000, us % 1000000 * 1000 };

	nanosleep(&t, NULL);
}

/* How often this process has gone to sleep, and so was woken. */
static uint64_t wakeups(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_nvcsw;
}

/* --- shared memory, by doorbell and by polling ------------------------------ */

/* The memory of the ivshmem-doorbell device. */
struct mail {
	_Atomic uint32_t host;	/* the host's id as a peer, plus one */
	struct {
		alignas(64) struct message message;
		_Atomic uint32_t number;	/* of the message, written last */
	} box[2];			/* [0]: for the guest, [1]: for the host */
};

static struct kvmfr_peer *peer;
static struct mail *mail;
static int other = -1;		/* the other's id */
static uint32_t received;

static void open_peer(void)
{
	char path[] = "/dev/kvmfr0";
	int ret;

	if (is_host) {
		must(kvmfr_peer_open(server, 0, 1, &peer), server);
		return;
	}
	/* The one of the devices that has doorbells. */
	for (; (ret = kvmfr_peer_open(path, 0, 1, &peer)) == -ENXIO; path[10]++)
		;
	must(ret, path);
}

static void find_other(void)
{
	struct pollfd wait = { .fd = kvmfr_peer_fd(peer), .events = POLLIN };
	struct kvmfr_event event;

	if (!is_host) {
		while (!mail->host)
			pause_us(1000);
		other = mail->host - 1;
		return;
	}
	while (other < 0) {
		while (must(kvmfr_peer_event(peer, &event), "event") == 1)
			if (event.type == KVMFR_EVENT_PEER)
				other = event.peer;
		if (other < 0)
			must_errno(poll(&wait, 1, -1), "poll");
	}
	mail->host = kvmfr_peer_id(peer) + 1;
}

static void mail_open(void)
{
	if (mail)
		return;
	must(kvmfr_peer_map(peer, 0, kvmfr_peer_size(peer), (void **)&mail), "map");
	find_other();
}

static void mail_close(void)
{
}

static void mail_send(const void *data, size_t size)
{
	memcpy(&mail->box[is_host ? 0 : 1].message, data, size);
	atomic_fetch_add_explicit(&mail->box[is_host ? 0 : 1].number, 1, memory_order_release);
}

static bool has_mail(void)
{
	return atomic_load_explicit(&mail->box[is_host ? 1 : 0].number, memory_order_acquire) !=
	       received;
}

static void mail_take(void *data, size_t size)
{
	received++;
	memcpy(data, &mail->box[is_host ? 1 : 0].message, size);
}

static void doorbell_send(const void *data, size_t size)
{
	mail_send(data, size);
	must(kvmfr_peer_ring(peer, other, 0), "ring");
}

static void doorbell_receive(void *data, size_t size)
{
	struct pollfd wait = { .fd = kvmfr_peer_vector_fd(peer, 0), .events = POLLIN };

	while (!has_mail()) {
		must_errno(poll(&wait, 1, -1), "poll");
		must(kvmfr_peer_vector_clear(peer, 0), "clear");
	}
	mail_take(data, size);
}

static void polling_receive(void *data, size_t size)
{
	while (!has_mail())
		pause_us(POLLING_US);
	mail_take(data, size);
}

/* --- a channel, in the same memory after the mail ---------------------------- */

static struct kvmfr_channels_backing backing;
static struct kvmfr_channels *channels;
static struct kvmfr_channel *channel;

static void channel_open(void)
{
	int ret;

	if (!backing.memory)
		must(kvmfr_channels_back(&backing, peer), "back");
	if (is_host) {
		must(kvmfr_channels_attach(&channels, &backing, KVMFR_CHANNEL_HOST,
					   KVMFR_CHANNELS_OVERWRITE), "attach");
		must(kvmfr_channel_create(channels, "bench", RING_SIZE, RING_SIZE), "create");
	} else {
		while ((ret = kvmfr_channels_attach(&channels, &backing, KVMFR_CHANNEL_GUEST,
						    0)) == -EPROTO)
			pause_us(1000);
		must(ret, "attach");
	}
	while ((ret = kvmfr_channel_open(channels, "bench", 0, &channel)) == -ENOENT)
		pause_us(1000);
	must(ret, "open");
	must(kvmfr_channel_wait(channel, KVMFR_CHANNEL_OUT, -1), "connect");
}

static void channel_close(void)
{
	kvmfr_channels_detach(channels);
}

static void channel_send(const void *data, size_t size)
{
	must(kvmfr_channel_write(channel, data, size), "channel");
}

static void channel_receive(void *data, size_t size)
{
	for (ssize_t n, done = 0; (size_t)done < size; done += n) {
		n = must(kvmfr_channel_read(channel, (char *)data + done, size - done), "channel");
		if (!n)
			errx(1, "channel: the other end has gone");
	}
}

/* --- virtio-serial and vsock ------------------------------------------------- */

static int fd, listener;

static void fd_close(void)
{
	close(fd);
}

static void fd_send(const void *data, size_t size)
{
	for (ssize_t n, done = 0; (size_t)done < size; done += n)
		n = must_errno(write(fd, (const char *)data + done, size - done), "write");
}

static void fd_receive(void *data, size_t size)
{
	for (ssize_t n, done = 0; (size_t)done < size; done += n) {
		n = must_errno(read(fd, (char *)data + done, size - done), "read");
		if (!n)
			pause_us(1000);		/* a port whose other end isn't open yet */
	}
}

static void serial_open(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (!is_host) {
		glob_t ports;

		if (glob("/dev/vport*p1", 0, NULL, &ports))
			errx(1, "there is no virtio-serial port");
		fd = must_errno(open(ports.gl_pathv[0], O_RDWR), ports.gl_pathv[0]);
		return;
	}
	strncpy(address.sun_path, serial_path, sizeof(address.sun_path) - 1);
	fd = must_errno(socket(AF_UNIX, SOCK_STREAM, 0), "socket");
	must_errno(connect(fd, (void *)&address, sizeof(address)), serial_path);
}

static void vsock_listen(void)
{
	const struct sockaddr_vm address = {
		.svm_family = AF_VSOCK, .svm_port = PORT, .svm_cid = VMADDR_CID_ANY,
	};

	listener = must_errno(socket(AF_VSOCK, SOCK_STREAM, 0), "vsock");
	must_errno(bind(listener, (void *)&address, sizeof(address)), "vsock");
	must_errno(listen(listener, 1), "vsock");
}

static void vsock_open(void)
{
	const struct sockaddr_vm address = {
		.svm_family = AF_VSOCK, .svm_port = PORT, .svm_cid = GUEST_CID,
	};

	if (is_host) {
		fd = must_errno(socket(AF_VSOCK, SOCK_STREAM, 0), "vsock");
		must_errno(connect(fd, (void *)&address, sizeof(address)), "vsock");
	} else {
		fd = must_errno(accept(listener, NULL, NULL), "vsock");
	}
}

static const struct way ways[] = {
	{ "doorbell", mail_open, mail_close, doorbell_send, doorbell_receive, false, 10000 },
	{ "polling", mail_open, mail_close, mail_send, polling_receive, false, 200 },
	{ "channel", channel_open, channel_close, channel_send, channel_receive, true, 10000 },
	{ "virtio_serial", serial_open, fd_close, fd_send, fd_receive, true, 10000 },
	{ "vsock", vsock_open, fd_close, fd_send, fd_receive, true, 10000 },
};

static const struct way *way;	/* the one that is used now */

static const struct way *find_way(const char *name)
{
	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++)
		if (!strncmp(ways[i].name, name, strcspn(name, ":")))
			return &ways[i];
	errx(2, "%s: no way to talk", name);
}

/* --- the guest --------------------------------------------------------------- */

/* What a program that draws does at least: one store for each eight bytes. */
static void draw(char *frame, uint64_t seed)
{
	volatile uint64_t *words = (void *)frame;

	for (size_t i = 0; i < FRAME_SIZE / 8; i++)
		words[i] = seed + i;
}

static void answer(struct message *m)
{
	switch (m->op) {
	case LATER:
		pause_us(m->total * 1000);
		break;
	case TAKE:
		for (uint64_t done = 0; done < m->total; done += m->size)
			way->receive(buffer, m->size);
		break;
	case GIVE:
		for (uint64_t done = 0; done < m->total; done += m->size)
			way->send(buffer, m->size);
		break;
	case DRAW:
		draw(private_frame, m->total);
		break;
	case FRAME:
		draw(way->stream ? private_frame : shared_frame, m->total);
		if (way->stream)
			way->send(private_frame, FRAME_SIZE);
		break;
	}
	m->wakeups = wakeups();
	way->send(m, sizeof(*m));
}

/* The device without doorbells. */
static char *map_frame(void)
{
	char path[] = "/dev/kvmfr0";
	struct kvmfr_peer *plain;
	void *memory;

	while (!must(kvmfr_peer_open(path, 0, 0, &plain), path) && kvmfr_peer_vectors(plain))
		path[10]++;
	must(kvmfr_peer_map(plain, 0, FRAME_SIZE, &memory), path);
	return memory;
}

static int guest(char **names)
{
	vsock_listen();
	for (; *names; names++) {
		struct message m;

		way = find_way(*names);
		way->open();
		do {
			way->receive(&m, sizeof(m));
			answer(&m);
		} while (m.op != QUIT);
		way->close();
	}
	printf("KTAP version 1\n1..1\nok 1 talk.guest\n");
	return 0;
}

/* --- the host ---------------------------------------------------------------- */

/*
 * With -icount the time stamp counter counts the instructions of the CPU, and
 * jumps when that is idle. So that it never is, a child goes round in a loop of
 * two instructions when nobody else wants to run, and counts the rounds.
 */
static volatile uint64_t *loops;
static pid_t idler;

static void start_idler(void)
{
	const struct sched_param param = { 0 };

	loops = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	idler = must_errno(fork(), "fork");
	if (idler)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	raise(SIGSTOP);
	must_errno(sched_setscheduler(0, SCHED_IDLE, &param), "SCHED_IDLE");
	asm volatile("1: incq %0; jmp 1b" : "+m" (*loops));
	__builtin_unreachable();
}

static uint64_t now(void)
{
	return __rdtsc() - 2 * *loops;
}

/* A guest that hangs, see "talk", ends this program. Only while the clock doesn't jump. */
static struct itimerval patience;

/* Until busy(false), which is not to be measured, the clock counts and doesn't jump. */
static void busy(bool is)
{
	patience.it_value.tv_usec = is ? PATIENCE_MS * 1000 : 0;
	kill(idler, is ? SIGCONT : SIGSTOP);
}

/* KVM's counter of the one VM there is. Which of the files there is depends on the kernel. */
static uint64_t exits(void)
{
	uint64_t sum = 0, n;
	glob_t files = { 0 };

	glob("/sys/kernel/debug/kvm/*-*/exits", 0, NULL, &files);
	glob("/sys/kernel/debug/kvm/*-*/vcpu*/exits", GLOB_APPEND, NULL, &files);
	for (size_t i = 0; i < files.gl_pathc; i++) {
		FILE *file = fopen(files.gl_pathv[i], "r");

		if (!file || fscanf(file, "%" SCNu64, &n) != 1)
			err(1, "%s", files.gl_pathv[i]);
		sum += n;
		fclose(file);
	}
	globfree(&files);
	return sum;
}

static void result(const char *what, double value)
{
	printf("%s.%s %.10g\n", way->name, what, value);
	fflush(stdout);
}

static struct message ask(enum op op, uint32_t size, uint64_t total)
{
	struct message m = { .op = op, .size = size, .total = total };

	setitimer(ITIMER_REAL, &patience, NULL);
	way->send(&m, sizeof(m));
	if (op == TAKE)
		for (uint64_t done = 0; done < total; done += size)
			way->send(buffer, size);
	if (op == GIVE)
		for (uint64_t done = 0; done < total; done += size)
			way->receive(buffer, size);
	if (op == FRAME && way->stream)
		way->receive(buffer, FRAME_SIZE);
	way->receive(&m, sizeof(m));
	return m;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void round_trip(void)
{
	uint64_t costs[ROUND_TRIPS], before;

	for (int i = 0; i < 10; i++)
		ask(ECHO, 0, 0);
	before = exits();
	for (int i = 0; i < ROUND_TRIPS; i++) {
		uint64_t start = now();

		ask(ECHO, 0, 0);
		costs[i] = now() - start;
	}
	result("exits", (double)(exits() - before) / ROUND_TRIPS);
	qsort(costs, ROUND_TRIPS, sizeof(*costs), compare);
	result("round_trip", costs[ROUND_TRIPS / 2]);
}

/* Half of the bytes go each way. */
static void transfers(const char *size_name, uint32_t size, uint64_t total)
{
	uint64_t least = UINT64_MAX, before = exits();
	char name[32];

	for (int i = 0; i < TIMES; i++) {
		uint64_t start = now(), cost;

		ask(TAKE, size, total / 2);
		ask(GIVE, size, total / 2);
		cost = now() - start;
		least = cost < least ? cost : least;
	}
	snprintf(name, sizeof(name), "bytes_%s", size_name);
	result(name, total * 1e6 / least);
	snprintf(name, sizeof(name), "exits_%s", size_name);
	result(name, (double)(exits() - before) * MB / (TIMES * total));
}

/* A word of each page: the frame that the guest has drawn, and all of it. */
static void check_frame(const char *frame, uint64_t seed)
{
	for (size_t i = 0; i < FRAME_SIZE / 8; i += 512)
		if (((volatile uint64_t *)frame)[i] != seed + i)
			errx(1, "%s: word %zu of frame %" PRIu64 " is wrong", way->name, i, seed);
}

static void frames(void)
{
	uint64_t drawing = UINT64_MAX, all = UINT64_MAX;

	for (uint64_t seed = 1; seed <= TIMES; seed++) {
		uint64_t start = now(), cost;

		ask(DRAW, 0, seed);
		cost = now() - start;
		drawing = cost < drawing ? cost : drawing;

		start = now();
		ask(FRAME, 0, seed);
		cost = now() - start;
		all = cost < all ? cost : all;
		check_frame(way->stream ? buffer : shared_frame, seed);
	}
	result("drawing", drawing);
	result("frame", all);
}

/* How often the guest is woken while the host lets it wait so long, and once asks. */
static uint64_t guest_wakeups(unsigned int ms)
{
	uint64_t before = ask(ECHO, 0, 0).wakeups;

	pause_us(ms * 1000);
	return ask(ECHO, 0, 0).wakeups - before;
}

static uint64_t host_wakeups(unsigned int ms)
{
	uint64_t before = wakeups();

	ask(LATER, 0, ms);
	return wakeups() - before;
}

/* What a side is woken for while nothing happens: more in a longer time. */
static void idle(const char *what, uint64_t (*measure)(unsigned int ms))
{
	const uint64_t moment = measure(SHORT_MS), longer = measure(SHORT_MS + way->idle_ms);

	result(what, longer > moment ? (longer - moment) * 1e3 / way->idle_ms : 0);
}

static const struct {
	const char *name;
	uint32_t size;
	uint64_t total;
} sizes[] = {
	{ "64", 64, MB / 4 },
	{ "4k", 4096, 4 * MB },
	{ "1m", MB, 8 * MB },
};

static void measure_messages(void)
{
	idle("idle_guest", guest_wakeups);	/* the clock may jump */
	idle("idle_host", host_wakeups);
	busy(true);
	round_trip();
	if (way->receive != polling_receive)
		frames();
	busy(false);
}

static void measure_transfers(const char *name)
{
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		if (strcmp(sizes[i].name, name))
			continue;
		busy(true);
		transfers(name, sizes[i].size, sizes[i].total);
		busy(false);
		return;
	}
	errx(2, "%s: no such size", name);
}

static void measure(const char *name)
{
	const char *size = strchr(name, ':');

	way = find_way(name);
	way->open();
	ask(ECHO, 0, 0);			/* the guest has booted */
	if (size)
		measure_transfers(size + 1);
	else
		measure_messages();
	ask(QUIT, 0, 0);
	way->close();
	printf("%s.done 1\n", name);
	fflush(stdout);
}

static int host(char **names)
{
	start_idler();
	for (; *names; names++)
		measure(*names);
	kill(idler, SIGKILL);
	return 0;
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	memset(buffer, 0x5a, sizeof(buffer));
	private_frame = aligned_alloc(4096, FRAME_SIZE);
	if (argc > 4 && !strcmp(argv[1], "host")) {
		is_host = true;
		server = argv[2];
		serial_path = argv[3];
	} else if (argc < 3 || strcmp(argv[1], "guest")) {
		errx(2, "usage: talk host SERVER SERIAL WAY... | talk guest WAY...");
	}
	open_peer();
	shared_frame = map_frame();
	return is_host ? host(argv + 4) : guest(argv + 2);
}
