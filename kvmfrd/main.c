// SPDX-License-Identifier: GPL-2.0
/*
 * kvmfrd: the ivshmem server, and either side of channels. Options, systemd, the
 * event loop.
 */
#include "channels.h"

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
#define MEMORY_NAME	"memory"	/* in systemd's file descriptor store */

struct daemon {
	const char *device, *path, *status_path;
	uint64_t size;
	unsigned int vectors;
	struct access access;
	const char *guest;		/* a device: in a guest there is no server */
	struct host_options channels;

	int memory, listener, control;
	sd_event *event;
	sd_event_source *accepting;
	struct server *server;
	struct status status;
	struct host *host;		/* of channels, or NULL */
	struct control *refusing;	/* without channels: answers kvmfrctl that there are none */
	int turned_away;		/* why the last client was, a negative errno */
};

static void message(const char *fmt, va_list args)
{
	fputs("kvmfrd: ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
}

void die(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	message(fmt, args);
	exit(1);
}

void complain(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	message(fmt, args);
	va_end(args);
}

/* Arguments that make no sense. */
static __attribute__((noreturn, format(printf, 1, 2))) void refuse(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	message(fmt, args);
	exit(2);
}

static void usage(FILE *out)
{
	fputs("usage: kvmfrd --device /dev/kvmfrN | --size MIB [OPTION...]\n"
	      "       kvmfrd --guest /dev/kvmfrN [--directory PATH] [--config FILE]\n"
	      "  --device PATH   share the memory of this device\n"
	      "  --size MIB      share memory of its own, a power of two\n"
	      "  --vectors N     doorbells of each peer, 1 to 64 (1)\n"
	      "  --socket PATH   where clients connect; not with socket activation\n"
	      "  --mode MODE     of the socket, octal (0660)\n"
	      "  --group NAME    of the socket (the one it runs as)\n"
	      "  --status PATH   a file that says who is there (the socket's path + .status)\n"
	      "  --channels      be the host's side of channels in the memory\n"
	      "  --overwrite     make it one for channels, whatever is in it\n"
	      "  --guest PATH    be the guest's side of channels in this device\n"
	      "  --directory PATH  of the channels' sockets (that of the server's socket\n"
	      "                  without .sock; in a guest /run/kvmfr)\n"
	      "  --config FILE   of channels (" CHANNELS_CONFIG ")\n"
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
		refuse(base == 8 ? "--%s %s: expected an octal number from %lo to %lo" :
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

/* Those that would do nothing are refused, too. */
static void check_options(const struct daemon *d)
{
	if (!!d->device + !!d->size + !!d->guest != 1)
		refuse("one of --device, --size and --guest has to be given, and not two; 'kvmfrd --help' says more");
	if (d->guest && (d->path || d->status_path || d->channels.wanted || d->channels.overwrite))
		refuse("--guest goes with --directory and --config only: there is no server in a guest");
	if (!d->guest && !d->channels.wanted &&
	    (d->channels.overwrite || d->channels.directory || d->channels.config))
		refuse("--overwrite, --directory and --config want --channels");
	if (d->path && !*d->path)
		refuse("--socket: the path is empty");
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
		{ "channels", no_argument, NULL, 'c' },
		{ "overwrite", no_argument, NULL, 'o' },
		{ "guest", required_argument, NULL, 'G' },
		{ "directory", required_argument, NULL, 'D' },
		{ "config", required_argument, NULL, 'C' },
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
				refuse("--size %s: a guest sees it as a PCI BAR, so it has to be a power of two",
				       optarg);
			break;
		case 'v':
			d->vectors = number("vectors", optarg, 10, 1, SERVER_VECTORS);
			break;
		case 'p':
			d->path = optarg;
			break;
		case 'm':
			d->access.mode = number("mode", optarg, 8, 0, 0777);
			break;
		case 'g':
			d->access.group = group_number(optarg);
			break;
		case 'c':
			d->channels.wanted = true;
			break;
		case 'o':
			d->channels.overwrite = true;
			break;
		case 'G':
			d->guest = optarg;
			break;
		case 'D':
			d->channels.directory = optarg;
			break;
		case 'C':
			d->channels.config = optarg;
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
			refuse("'kvmfrd --help' lists the options");
		}
	}
	if (optind < argc)
		refuse("%s: not an option; 'kvmfrd --help' lists them", argv[optind]);
	check_options(d);
}

static int nonblocking(int fd)
{
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK))
		die("a socket of systemd: %s", strerror(errno));
	return fd;
}

/* Takes what systemd passes: the sockets, and the memory of a previous run. */
static void take_from_systemd(struct daemon *d)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names);

	for (int i = 0; i < n; i++) {
		int fd = SD_LISTEN_FDS_START + i;
		struct stat st;

		if (!strcmp(names[i], MEMORY_NAME)) {
			if (d->memory < 0 && d->size && !fstat(fd, &st) &&
			    st.st_size == (off_t)d->size) {
				d->memory = fd;
			} else {
				/* The options have changed. systemd keeps one memory only. */
				sd_notify(0, "FDSTOREREMOVE=1\nFDNAME=" MEMORY_NAME);
				close(fd);
			}
		} else if (d->listener < 0 &&
			   sd_is_socket(fd, AF_UNIX, SOCK_STREAM, 1) > 0) {
			d->listener = nonblocking(fd);
		} else if (d->control < 0 &&
			   sd_is_socket(fd, AF_UNIX, SOCK_SEQPACKET, 1) > 0) {
			d->control = nonblocking(fd);
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
		d->memory = memory_of_device(d->device, d->channels.wanted);
		return;
	}
	d->memory = memory_of_size(d->size);
	/* A restarted kvmfrd gets it back, so host programs find their data again. */
	sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=" MEMORY_NAME, &d->memory, 1);
}

unsigned long descriptors_want(unsigned long want)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= want)
		return want;
	limit.rlim_cur = limit.rlim_max < want ? limit.rlim_max : want;
	setrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur;
}

/* Descriptors for every peer's socket and eventfds, and a few more. */
static void raise_limit(const struct daemon *d)
{
	unsigned long want = SERVER_PEERS * (1 + d->vectors) + 64 +
			     (d->channels.wanted ? CHANNELS_DESCRIPTORS : 0);
	unsigned long have = descriptors_want(want);

	if (have < want)
		complain("%u peers of %u vectors%s take %lu descriptors, the limit (ulimit -n) is %lu: there will be room for fewer",
			 SERVER_PEERS, d->vectors,
			 d->channels.wanted ? " and 1000 channels" : "", want, have);
}

static void on_change(void *data)
{
	struct daemon *d = data;

	sd_notifyf(0, "STATUS=%u of %u peers", server_peers(d->server), SERVER_PEERS);
	status_write(&d->status);
}

static int on_connect(sd_event_source *source, int listener, uint32_t events,
		      void *data)
{
	struct daemon *d = data;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int ret = fd < 0 ? -errno : server_accept(d->server, fd);

	(void)source;
	(void)events;
	if (ret == -EAGAIN || ret == -ECONNABORTED)	/* it has gone again */
		return 0;
	/* Said once, since who is turned away may try again and again. */
	if (ret < 0 && ret != d->turned_away)
		complain("there is no room for another client: %s",
			 ret == -EUSERS ? "all 64 places are taken" : strerror(-ret));
	d->turned_away = ret;
	return 0;
}

sd_event *event_loop(void)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
	struct sigaction action;
	sd_event *event;
	sigset_t mask;
	int ret;

	ret = sd_event_default(&event);
	for (unsigned int i = 0; i < sizeof(signals) / sizeof(*signals) && ret >= 0; i++) {
		/* nohup has SIGHUP ignored */
		if (signals[i] == SIGHUP && !sigaction(SIGHUP, NULL, &action) &&
		    action.sa_handler == SIG_IGN)
			continue;
		sigemptyset(&mask);
		sigaddset(&mask, signals[i]);
		sigprocmask(SIG_BLOCK, &mask, NULL);
		ret = sd_event_add_signal(event, NULL, signals[i], NULL, NULL);
	}
	/* Makes the timerfd now: a rate limit that finds no descriptor for it ends the loop. */
	if (ret >= 0)
		ret = sd_event_add_time(event, NULL, CLOCK_MONOTONIC, UINT64_MAX, 0, NULL, NULL);
	if (ret < 0)
		die("the event loop: %s", strerror(-ret));
	return event;
}

static void start(struct daemon *d)
{
	int ret;

	d->event = event_loop();
	d->server = server_new(d->event, d->memory, d->vectors, on_change, d);
	if (!d->server)
		die("out of memory");
	if (d->channels.wanted)
		d->host = host_new(d->event, d->server, d->memory, d->listener, d->control,
				   &d->channels);
	else if (d->control >= 0)
		d->refusing = control_new(d->event, d->control, NULL);
	ret = sd_event_add_io(d->event, &d->accepting, d->listener, EPOLLIN, on_connect, d);
	/* Ends are handled before new connections, so that ids begin at 0 again. */
	if (ret >= 0)
		ret = sd_event_source_set_priority(d->accepting,
						   SD_EVENT_PRIORITY_NORMAL + 1);
	/* Without free descriptors accept() fails at once, again and again. */
	if (ret >= 0)
		ret = sd_event_source_set_ratelimit(d->accepting, 1000 * 1000, 100);
	if (ret < 0)
		die("the event loop: %s", strerror(-ret));
}

static void open_listener(struct daemon *d)
{
	if (d->listener >= 0 && d->path)
		die("systemd passes the socket, so --socket makes no sense");
	if (d->listener < 0 && !d->path)
		die("--socket is missing, and systemd passes none");
	if (d->listener < 0)
		d->listener = socket_listen(d->path, SOCK_STREAM, &d->access);
	if (d->listener < 0)
		exit(1);
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
		.access = { -1, -1, 0660 },
		.memory = -1,
		.listener = -1,
		.control = -1,
	};
	int ret;

	parse(&d, argc, argv);
	if (d.guest)
		return guest_run(d.guest, d.channels.directory, d.channels.config);
	take_from_systemd(&d);
	raise_limit(&d);
	open_memory(&d);
	open_listener(&d);
	d.channels.access = d.access;
	start(&d);
	tell_status(&d);
	sd_notifyf(0, "READY=1\nSTATUS=0 of %u peers", SERVER_PEERS);
	ret = sd_event_loop(d.event);

	sd_notify(0, "STOPPING=1");
	status_end(&d.status);
	host_free(d.host);
	control_free(d.refusing);
	server_free(d.server);
	sd_event_source_disable_unref(d.accepting);
	sd_event_unref(d.event);
	if (d.path)
		unlink(d.path);
	return ret < 0;
}
