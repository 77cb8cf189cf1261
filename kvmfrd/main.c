// SPDX-License-Identifier: GPL-2.0
/* kvmfrd: the ivshmem server. Options, systemd, the event loop. */
#include "kvmfrd.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "server.h"

#define MIB		(1024ull * 1024)
#define MEMORY_NAME	"memory"	/* in systemd's store of descriptors */

struct daemon {
	const char *device, *path, *status_path;
	uint64_t size;
	unsigned int vectors;
	mode_t mode;
	gid_t group;

	int memory, listener;
	sd_event *event;
	sd_event_source *accepting;
	struct server *server;
	struct status status;
};

void die(const char *fmt, ...)
{
	va_list args;

	fputs("kvmfrd: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static void usage(FILE *out)
{
	fputs("usage: kvmfrd --device /dev/kvmfrN | --size MIB [OPTION...]\n"
	      "  --device PATH   share the memory of this device\n"
	      "  --size MIB      share memory of its own, a power of two\n"
	      "  --vectors N     doorbells of each peer, 1 to 64 (1)\n"
	      "  --socket PATH   where clients connect; not with socket activation\n"
	      "  --mode MODE     of the socket, octal (0660)\n"
	      "  --group NAME    of the socket (the one it runs as)\n"
	      "  --status PATH   a file that says who is there (the socket's path + .status)\n"
	      "  --version, --help\n", out);
}

static unsigned long number(const char *option, const char *value, int base,
			    unsigned long min, unsigned long max)
{
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(value, &end, base);
	if (errno || *value < '0' || *value > '9' || *end || n < min || n > max)
		die(base == 8 ? "--%s %s: expected an octal number from %lo to %lo" :
				"--%s %s: expected a number from %lu to %lu",
		    option, value, min, max);
	return n;
}

static gid_t group_number(const char *name)
{
	struct group *group = getgrnam(name);

	if (!group)
		die("--group %s: there is no such group", name);
	return group->gr_gid;
}

static void parse(struct daemon *d, int argc, char **argv)
{
	static const struct option options[] = {
		{ "device", required_argument, NULL, 'd' },
		{ "size", required_argument, NULL, 's' },
		{ "vectors", required_argument, NULL, 'v' },
		{ "socket", required_argument, NULL, 'p' },
		{ "mode", required_argument, NULL, 'm' },
		{ "group", required_argument, NULL, 'g' },
		{ "status", required_argument, NULL, 't' },
		{ "version", no_argument, NULL, 'V' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'd':
			d->device = optarg;
			break;
		case 's':
			d->size = number("size", optarg, 10, 1, 1 << 20) * MIB;
			if (d->size & (d->size - 1))
				die("--size %s: a guest sees it as a PCI BAR, so it has to be a power of two",
				    optarg);
			break;
		case 'v':
			d->vectors = number("vectors", optarg, 10, 1, SERVER_VECTORS);
			break;
		case 'p':
			d->path = optarg;
			break;
		case 'm':
			d->mode = number("mode", optarg, 8, 0, 0777);
			break;
		case 'g':
			d->group = group_number(optarg);
			break;
		case 't':
			d->status_path = optarg;
			break;
		case 'V':
			puts("kvmfrd " VERSION);
			exit(0);
		case 'h':
			usage(stdout);
			exit(0);
		default:
			usage(stderr);
			exit(2);
		}
	}
	if (optind < argc || !d->device == !d->size) {
		usage(stderr);
		exit(2);
	}
}

/* What systemd has: the socket, and the memory of the run before this one. */
static void take_from_systemd(struct daemon *d)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names);

	for (int i = 0; i < n; i++) {
		int fd = SD_LISTEN_FDS_START + i;
		struct stat st;

		if (!strcmp(names[i], MEMORY_NAME)) {
			if (d->memory >= 0 || !d->size || fstat(fd, &st) ||
			    st.st_size != (off_t)d->size)
				close(fd);
			else
				d->memory = fd;
		} else if (d->listener < 0 &&
			   sd_is_socket(fd, AF_UNIX, SOCK_STREAM, 1) > 0) {
			d->listener = fd;
			if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK))
				die("the socket of systemd: %s", strerror(errno));
		} else {
			die("systemd passes something that is not a listening UNIX stream socket");
		}
		free(names[i]);
	}
	free(names);
}

static void open_memory(struct daemon *d)
{
	if (d->memory >= 0)
		return;
	if (d->device) {
		d->memory = memory_of_device(d->device);
		return;
	}
	d->memory = memory_of_size(d->size);
	/* A restart finds it there, so host programs come back to their data. */
	sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=" MEMORY_NAME, &d->memory, 1);
}

/* Room for every peer's eventfds, and a few. */
static void raise_limit(const struct daemon *d)
{
	rlim_t want = SERVER_PEERS * (1 + d->vectors) + 64;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= want)
		return;
	limit.rlim_cur = limit.rlim_max < want ? limit.rlim_max : want;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur < want)
		fprintf(stderr, "kvmfrd: %u peers of %u vectors take %lu descriptors, the limit (ulimit -n) is %lu: there will be room for fewer\n",
			SERVER_PEERS, d->vectors, (unsigned long)want,
			(unsigned long)limit.rlim_cur);
}

/* A place is free again: who waits to be accepted can be. */
static void on_change(void *data)
{
	struct daemon *d = data;
	unsigned int n = server_peers(d->server);

	sd_event_source_set_enabled(d->accepting, SD_EVENT_ON);
	sd_notifyf(0, "STATUS=%u of %u peers", n, SERVER_PEERS);
	status_write(&d->status);
}

static int on_connect(sd_event_source *source, int listener, uint32_t events,
		      void *data)
{
	struct daemon *d = data;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int ret = fd < 0 ? -errno : server_accept(d->server, fd);

	(void)events;
	switch (ret) {
	case -EMFILE:
	case -ENFILE:
	case -ENOMEM:
		/* until somebody leaves, instead of being told again and again */
		sd_event_source_set_enabled(source, server_peers(d->server) ?
					    SD_EVENT_OFF : SD_EVENT_ON);
		/* fall through */
	case -ENOSPC:
		fprintf(stderr, "kvmfrd: there is no room for another client: %s\n",
			ret == -ENOSPC ? "all 64 places are taken" : strerror(-ret));
	}
	return 0;
}

static void start(struct daemon *d)
{
	static const int signals[] = { SIGTERM, SIGINT };
	sigset_t mask;
	int ret;

	ret = sd_event_default(&d->event);
	if (ret < 0)
		die("the event loop: %s", strerror(-ret));
	sigemptyset(&mask);
	for (unsigned int i = 0; i < 2; i++)
		sigaddset(&mask, signals[i]);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	for (unsigned int i = 0; i < 2 && ret >= 0; i++)
		ret = sd_event_add_signal(d->event, NULL, signals[i], NULL, NULL);
	if (ret >= 0)
		ret = sd_event_add_io(d->event, &d->accepting, d->listener, EPOLLIN,
				      on_connect, d);
	/* Who has gone is seen before who came after it, or ids don't begin at 0. */
	if (ret >= 0)
		ret = sd_event_source_set_priority(d->accepting,
						   SD_EVENT_PRIORITY_NORMAL + 1);
	if (ret < 0)
		die("the event loop: %s", strerror(-ret));
	d->server = server_new(d->event, d->memory, d->vectors, on_change, d);
	if (!d->server)
		die("out of memory");
}

static void tell_status(struct daemon *d)
{
	struct stat st;

	if (fstat(d->memory, &st))
		die("the size of the memory: %s", strerror(errno));
	d->status = (struct status){
		.memory = d->device ? d->device : "memfd",
		.size = st.st_size,
		.vectors = d->vectors,
		.server = d->server,
	};
	status_begin(&d->status, d->status_path, d->listener);
}

int main(int argc, char **argv)
{
	struct daemon d = {
		.vectors = 1,
		.mode = 0660,
		.group = -1,
		.memory = -1,
		.listener = -1,
	};
	int ret;

	parse(&d, argc, argv);
	take_from_systemd(&d);
	if (d.listener >= 0 && d.path)
		die("systemd passes the socket, so --socket makes no sense");
	if (d.listener < 0 && !d.path)
		die("--socket is missing, and systemd passes none");
	raise_limit(&d);
	open_memory(&d);
	if (d.listener < 0)
		d.listener = socket_listen(d.path, d.mode, d.group);
	start(&d);
	tell_status(&d);
	sd_notifyf(0, "READY=1\nSTATUS=0 of %u peers", SERVER_PEERS);
	ret = sd_event_loop(d.event);

	sd_notify(0, "STOPPING=1");
	status_end(&d.status);
	server_free(d.server);
	sd_event_source_disable_unref(d.accepting);
	sd_event_unref(d.event);
	if (d.path)
		unlink(d.path);
	return ret < 0;
}
