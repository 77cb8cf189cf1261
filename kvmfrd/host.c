// SPDX-License-Identifier: GPL-2.0
/* The host's side of channels in the memory of an ivshmem server. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "channels.h"
#include "server.h"

#define RETRY	(1000 * 1000)	/* microseconds */

struct host {
	struct server *server;
	struct kvmfr_channels_backing backing;
	struct channels_options options;
	struct channels *channels;	/* NULL: the memory can't be used now … */
	bool left;			/* … as another host has it, until it is told to attach */
	struct control *control;
	char *directory, *control_path;
	sd_event_source *retry;
	uint64_t attached;		/* when, by the monotonic clock, in microseconds */
};

static int clear(void *opaque)
{
	struct host *host = opaque;
	uint64_t rings;

	if (read(host->backing.wake, &rings, sizeof(rings)) == sizeof(rings))
		return 1;
	return errno == EAGAIN ? 0 : -errno;
}

static int ring(void *opaque, uint32_t peer, uint32_t vector)
{
	struct host *host = opaque;

	return server_ring(host->server, peer, vector);
}

static void on_gone(void *data, unsigned int id)
{
	struct host *host = data;

	if (host->channels)
		channels_peer_gone(host->channels, id);
}

/*
 * The memory was formatted anew, or is that of another machine now. A guest can
 * do this again and again, so once a second at most.
 */
static void on_ended(void *data, int error)
{
	struct host *host = data;

	(void)error;
	sd_event_source_set_time(host->retry, host->attached + RETRY);
	sd_event_source_set_enabled(host->retry, SD_EVENT_ONESHOT);
}

static int attach(struct host *host, unsigned int flags)
{
	sd_event_now(host->options.event, CLOCK_MONOTONIC, &host->attached);
	host->options.flags = flags;
	return channels_new(&host->channels, &host->options);
}

static int on_retry(sd_event_source *source, uint64_t time, void *data)
{
	struct host *host = data;
	int ret;

	(void)source;
	(void)time;
	channels_free(host->channels);
	host->channels = NULL;
	ret = attach(host, KVMFR_CHANNELS_FORMAT);
	if (ret == -EPROTO) {
		/* It was for channels until a moment ago. */
		complain("channels: a guest has damaged them; formatting the memory anew");
		ret = attach(host, KVMFR_CHANNELS_OVERWRITE);
	}
	if (ret)
		on_ended(host, ret);
	return 0;
}

static void back(struct host *host, int memory)
{
	struct stat st;

	if (fstat(memory, &st))
		die("the memory: %s", strerror(errno));
	host->backing = (struct kvmfr_channels_backing){
		.memory = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0),
		.size = st.st_size,
		.fd = memory,
		.id = SERVER_SELF,
		.wake = server_join(host->server, on_gone, host),
		.clear = clear,
		.ring = ring,
		.opaque = host,
	};
	if (host->backing.memory == MAP_FAILED)
		die("mapping the memory: %s", strerror(errno));
	if (host->backing.wake < 0)
		die("making doorbells: %s", strerror(-host->backing.wake));
}

/* The server's socket without ".sock". */
static char *beside_socket(int listener)
{
	char *path = socket_path(listener), *end = path ? strrchr(path, '.') : NULL;

	if (!end || strcmp(end, ".sock"))
		die("--channels: --directory is missing, and the server's socket %s doesn't end in .sock",
		    path ?: "has no path and");
	*end = 0;
	return path;
}

/* "vm1" of "/run/kvmfr/vm1" */
static const char *vm_name(const char *directory)
{
	const char *slash = strrchr(directory, '/');

	return slash ? slash + 1 : directory;
}

static void list_peers(const struct host *host, struct control_answer *answer)
{
	while (answer->n_peers < CONTROL_PEERS && answer->n_peers < server_peers(host->server)) {
		pid_t pid;
		int id;

		server_peer(host->server, answer->n_peers, &id, &pid);
		answer->peers[answer->n_peers++] = id;
	}
}

/* Another host goes on with what is in the memory, on the machine that the guest migrates to. */
static void leave(struct host *host)
{
	channels_free(host->channels);
	host->channels = NULL;
	host->left = true;
	sd_event_source_set_enabled(host->retry, SD_EVENT_OFF);
}

static int attach_again(struct host *host)
{
	int ret;

	if (host->channels) {
		channels_look(host->channels);
		return 0;
	}
	if (!host->left)
		return -EAGAIN;		/* on_retry() is about to attach */
	ret = attach(host, KVMFR_CHANNELS_FORMAT);
	host->left = ret;
	return ret;
}

int host_request(struct host *host, const struct control_request *request,
		 struct control_answer *answer)
{
	switch (request->what) {
	case CONTROL_LOOK:
		answer->error = 0;
		list_peers(host, answer);
		return host->backing.fd;
	case CONTROL_LEAVE:
		leave(host);
		answer->error = 0;
		break;
	case CONTROL_ATTACH:
		answer->error = attach_again(host);
		break;
	default:
		answer->error = host->left ? -ENOTCONN : -EAGAIN;
		if (host->channels)
			channels_request(host->channels, request, answer);
	}
	return -1;
}

static int open_control(struct host *host, const struct access *access)
{
	if (asprintf(&host->control_path, "%s.control", host->directory) < 0)
		die("out of memory");
	return socket_listen(host->control_path, SOCK_SEQPACKET, access);
}

struct host *host_new(sd_event *event, struct server *server, int memory, int listener,
		      int control, const struct host_options *options)
{
	struct host *host = calloc(1, sizeof(*host));
	int ret;

	if (!host)
		die("out of memory");
	host->server = server;
	host->directory = options->directory ? strdup(options->directory) :
					       beside_socket(listener);
	back(host, memory);
	host->options = (struct channels_options){
		.event = event,
		.backing = &host->backing,
		.side = KVMFR_CHANNEL_HOST,
		.flags = options->overwrite ? KVMFR_CHANNELS_OVERWRITE : KVMFR_CHANNELS_FORMAT,
		.directory = host->directory,
		.config = config_read(options->config, vm_name(host->directory)),
		.restarted = true,
		.ended = on_ended,
		.data = host,
	};
	ret = channels_new(&host->channels, &host->options);
	if (ret == -EPROTO)
		die("--channels: %s, and it isn't empty; --overwrite would lose what is in it",
		    kvmfr_channels_problem(host->backing.memory, host->backing.size) ?:
		    "the memory is not in the format of channels");
	if (ret == -EBUSY)
		die("--channels: another program is the host's side of this memory");
	if (ret)
		die("--channels: %s", strerror(-ret));
	/* What comes from another machine stays. */
	host->options.restarted = false;
	if (sd_event_add_time(event, &host->retry, CLOCK_MONOTONIC, 0, 0, on_retry, host) < 0 ||
	    sd_event_source_set_enabled(host->retry, SD_EVENT_OFF) < 0)
		die("out of memory");
	if (control < 0)
		control = open_control(host, &options->access);
	if (control < 0)
		exit(1);
	host->control = control_new(event, control, host);
	return host;
}

void host_free(struct host *host)
{
	if (!host)
		return;
	control_free(host->control);
	if (host->control_path)
		unlink(host->control_path);
	channels_free(host->channels);
	config_free(host->options.config);
	sd_event_source_disable_unref(host->retry);
	munmap(host->backing.memory, host->backing.size);
	rmdir(host->directory);
	free(host->directory);
	free(host->control_path);
	free(host);
}
