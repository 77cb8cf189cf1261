// SPDX-License-Identifier: GPL-2.0
/* The guest's side of channels in the memory of a kvmfr device. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "channels.h"

#define RETRY	(1000 * 1000)	/* microseconds */

struct guest {
	const char *device;
	sd_event *event;
	struct kvmfr_peer *peer;
	struct kvmfr_channels_backing backing;
	struct channels_options options;
	struct channels *channels;	/* NULL: not now */
	sd_event_source *retry;
};

/* For on_sigbus(). */
static struct guest *the_guest;

/* The device was unplugged during an access to its memory. */
static void on_sigbus(int signal)
{
	(void)signal;
	if (the_guest->channels)
		channels_unlink(the_guest->channels);
	_exit(0);
}

static void retry_later(struct guest *guest)
{
	uint64_t now;

	sd_event_now(guest->event, CLOCK_MONOTONIC, &now);
	sd_event_source_set_time(guest->retry, now + RETRY);
	sd_event_source_set_enabled(guest->retry, SD_EVENT_ONESHOT);
}

/* Unplugged: end. Formatted anew (-ESTALE): attach again, when that is complete. */
static void on_ended(void *data, int error)
{
	struct guest *guest = data;

	if (error == -ESTALE) {
		retry_later(guest);
		return;
	}
	complain("%s: %s", guest->device,
		 error == -ENODEV ? "the device was unplugged" : strerror(-error));
	sd_event_exit(guest->event, error == -ENODEV ? 0 : 1);
}

static int on_retry(sd_event_source *source, uint64_t time, void *data)
{
	struct guest *guest = data;

	(void)source;
	(void)time;
	channels_free(guest->channels);
	guest->channels = NULL;
	if (channels_new(&guest->channels, &guest->options))
		retry_later(guest);
	return 0;
}

/* Peers come and go; only if the "device" is a server's socket on a host. */
static int on_peers(sd_event_source *source, int fd, uint32_t events, void *data)
{
	struct guest *guest = data;
	struct kvmfr_event event;
	int ret;

	(void)source;
	(void)fd;
	(void)events;
	while ((ret = kvmfr_peer_event(guest->peer, &event)) > 0)
		if (event.type == KVMFR_EVENT_PEER && !event.vectors && guest->channels)
			channels_peer_gone(guest->channels, event.peer);
	if (ret < 0) {
		complain("%s: the server: %s", guest->device, strerror(-ret));
		sd_event_exit(guest->event, 1);
	}
	return 0;
}

/* Explains an error of kvmfr_peer_open() or kvmfr_channels_attach(), and ends. */
static void fail(const char *device, int error)
{
	switch (error) {
	case -ENXIO:
		die("%s: the device has no doorbells, so it is no ivshmem-doorbell", device);
	case -ENODEV:
		die("%s: neither a kvmfr device nor the socket of a server, or it is being unplugged",
		    device);
	case -ENOENT:
		die("%s: %s; 'kvmfrctl doctor' tells what is missing", device, strerror(-error));
	case -EBUSY:
		die("%s: another program is the guest's side of its channels", device);
	default:
		die("%s: %s", device, strerror(-error));
	}
}

/* Ends with success: the doorbell device is used for something else than channels. */
static void leave(const char *device, const char *problem)
{
	complain("%s: %s, so there is nothing to do", device, problem);
	/* systemd calls it a failure when a service ends before it was ready */
	sd_notify(0, "READY=1");
	exit(0);
}

static void attach(struct guest *guest)
{
	const char *problem;
	int ret;

	if (sd_event_add_io(guest->event, NULL, kvmfr_peer_fd(guest->peer), EPOLLIN, on_peers,
			    guest) < 0 ||
	    sd_event_add_time(guest->event, &guest->retry, CLOCK_MONOTONIC, 0, 0, on_retry,
			      guest) < 0 ||
	    sd_event_source_set_enabled(guest->retry, SD_EVENT_OFF) < 0)
		die("out of memory");
	on_peers(NULL, -1, 0, guest);
	ret = kvmfr_channels_back(&guest->backing, guest->peer);
	if (ret)
		fail(guest->device, ret);
	problem = kvmfr_channels_problem(guest->backing.memory, guest->backing.size);
	if (problem)
		leave(guest->device, problem);
	ret = channels_new(&guest->channels, &guest->options);
	if (ret)
		fail(guest->device, ret);
}

int guest_run(const char *device, const char *directory, const char *config)
{
	struct guest guest = { .device = device, .event = event_loop() };
	int ret;

	descriptors_want(CHANNELS_DESCRIPTORS);
	the_guest = &guest;
	signal(SIGBUS, on_sigbus);
	guest.options = (struct channels_options){
		.event = guest.event,
		.backing = &guest.backing,
		.side = KVMFR_CHANNEL_GUEST,
		.directory = directory ?: "/run/kvmfr",
		.config = config_read(config, NULL),
		.ended = on_ended,
		.data = &guest,
	};
	ret = kvmfr_peer_open(device, KVMFR_PEER_SEALED, 1, &guest.peer);
	if (ret)
		fail(device, ret);
	attach(&guest);
	sd_notify(0, "READY=1");
	ret = sd_event_loop(guest.event);

	sd_notify(0, "STOPPING=1");
	channels_free(guest.channels);
	config_free(guest.options.config);
	kvmfr_channels_unback(&guest.backing);
	kvmfr_peer_close(guest.peer);
	sd_event_source_disable_unref(guest.retry);
	sd_event_unref(guest.event);
	return ret != 0;
}
