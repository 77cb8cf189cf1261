/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One side of a memory with channels, each of which is a UNIX socket: one that
 * programs connect to, or one that a program listens on.
 */
#ifndef KVMFRD_CHANNELS_H
#define KVMFRD_CHANNELS_H

#include <systemd/sd-event.h>

#include "../lib/libkvmfr-channel.h"
#include "control.h"
#include "kvmfrd.h"

#define CHANNELS_CONFIG	"/etc/kvmfr/channels.conf"
#define CHANNELS_DESCRIPTORS 2112	/* that 1023 channels take, and a few */

/* config.c: a section of the configuration file. */
struct channel_config {
	struct channel_config *next;
	char name[KVMFR_CHANNEL_NAME_SIZE];
	bool for_vm;			/* only for the VM that was asked for */
	uint64_t to_guest, to_host;	/* sizes of the rings, in bytes */
	struct access access;
	char *connect;			/* a socket that a program listens on; or NULL */
};

/*
 * The sections for a VM and for all, in their order; in a guest, where vm is
 * NULL, those for all. path may be NULL: CHANNELS_CONFIG, if that exists. Calls
 * die() for what makes no sense.
 */
struct channel_config *config_read(const char *path, const char *vm);
void config_free(struct channel_config *sections);

/* The channel's section, that of the VM first, or one with what is the default. */
const struct channel_config *config_find(const struct channel_config *sections, const char *name);

/* channels.c */
struct channels;

/* Is called when the memory can't be used any more: a negative errno. */
typedef void (*channels_ended)(void *data, int error);

/*
 * Attaches to the memory and makes the sockets in the directory. The host
 * creates the channels of the configuration. What is passed stays the caller's
 * and has to outlive the result. Answers 0 or what kvmfr_channels_attach() does.
 */
struct channels_options {
	sd_event *event;
	const struct kvmfr_channels_backing *backing;
	enum kvmfr_channel_side side;
	unsigned int flags;		/* of kvmfr_channels_attach() */
	const char *directory;
	struct channel_config *config;
	bool restarted;			/* remove what an earlier configuration has made */
	channels_ended ended;
	void *data;			/* for ended() */
};

int channels_new(struct channels **channels, const struct channels_options *options);
/*
 * Removes the sockets and leaves: what hasn't been read is for who attaches next. What
 * has been read goes to the programs.
 */
void channels_free(struct channels *channels);

void channels_peer_gone(struct channels *channels, uint32_t id);

/* Asks whether the memory is still the same one; if not, ended() is called. */
void channels_look(struct channels *channels);

/* What kvmfrctl asks the host's side for. */
void channels_request(struct channels *channels, const struct control_request *request,
		      struct control_answer *answer);

/* Only removes the sockets: for a signal handler. */
void channels_unlink(const struct channels *channels);

/* link.c: a channel and its socket. */
struct link;

/* NULL: there can't be a socket for it; that has been said on standard error. */
struct link *link_new(sd_event *event, struct kvmfr_channels *set, const char *directory,
		      const struct channel_config *config, const char *name);
void link_free(struct link *link);
/* The same, but its end stays open until kvmfr_channels_leave(). */
void link_leave(struct link *link);
/* Something may have happened at its other end. */
void link_look(struct link *link);
const char *link_name(const struct link *link);
void link_unlink(const struct link *link);

/* host.c: the host's side beside a server. */
struct server;
struct host;

struct host_options {
	bool wanted;			/* at all */
	bool overwrite;			/* what is in the memory */
	const char *directory;		/* of the sockets; NULL: beside the server's socket */
	const char *config;		/* NULL: CHANNELS_CONFIG, if there is one */
	struct access access;		/* of the control socket, if it has to be made */
};

/*
 * Joins the server and serves channels in its memory. control is a listening
 * socket for kvmfrctl, -1: it is made. Calls die() if the memory has something
 * else in it.
 */
struct host *host_new(sd_event *event, struct server *server, int memory, int listener,
		      int control, const struct host_options *options);
void host_free(struct host *host);
/* Fills the answer; the result is a descriptor that goes with it and stays the host's, or -1. */
int host_request(struct host *host, const struct control_request *request,
		 struct control_answer *answer);

/* control.c: answers kvmfrctl on a listening socket; host NULL: refuses everything. */
struct control;
struct control *control_new(sd_event *event, int listener, struct host *host);
void control_free(struct control *control);

/* guest.c: the whole of kvmfrd in a guest; the result is the exit status. */
int guest_run(const char *device, const char *directory, const char *config);

#endif
