// SPDX-License-Identifier: GPL-2.0
/*
 * There are no queues: what to tell a client next is derived from what it was told
 * and which peers there are. So a client that reads nothing for an hour costs no
 * memory, stays connected and catches up later. It never hears of a peer that came
 * and went meanwhile.
 */
#include "server.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define NOBODY	(-1)
#define IDS	65536

/* What a client was told about one place. */
struct told {
	unsigned int vectors;	/* how many of the peer that is there now */
	int gone;		/* id of a previous peer whose end must be told; or NOBODY */
};

struct peer {
	struct server *server;
	int id;			/* NOBODY: the place is free */
	pid_t pid;		/* who connected, 0 if unknown */
	int fd;			/* -1: the daemon itself */
	sd_event_source *source;
	unsigned int greeting;	/* messages of the greeting that were sent */
	int eventfd[SERVER_VECTORS];
	struct told told[SERVER_PEERS];
};

struct server {
	sd_event *event;
	int memory;
	unsigned int vectors;
	server_changed changed;
	void *data;
	server_gone gone;
	void *gone_data;
	int next_id;
	struct peer peers[SERVER_PEERS];
};

struct message {
	int64_t value;
	int fd;			/* -1: none */
};

static unsigned int place(const struct peer *peer)
{
	return peer - peer->server->peers;
}

/* The next message about other peers; false if there is none. */
static bool news_of_others(struct peer *client, struct message *message,
			   bool sent)
{
	struct server *server = client->server;

	for (unsigned int i = 0; i < SERVER_PEERS; i++) {
		struct told *told = &client->told[i];
		struct peer *peer = &server->peers[i];

		if (peer == client)
			continue;
		if (told->gone != NOBODY) {
			*message = (struct message){ told->gone, -1 };
			if (sent)
				told->gone = NOBODY;
			return true;
		}
		if (peer->id != NOBODY && told->vectors < server->vectors) {
			*message = (struct message){ peer->id,
						     peer->eventfd[told->vectors] };
			if (sent)
				told->vectors++;
			return true;
		}
	}
	return false;
}

/*
 * The next message for the client; false if there is none. @sent: it was sent, so
 * remember that. The own vectors come last, since they complete the greeting.
 */
static bool next_message(struct peer *client, struct message *message, bool sent)
{
	struct told *self = &client->told[place(client)];

	if (client->greeting < 3) {
		const struct message greeting[] = {
			{ 0, -1 },			/* protocol version */
			{ client->id, -1 },
			{ -1, client->server->memory },
		};

		*message = greeting[client->greeting];
		client->greeting += sent;
		return true;
	}
	if (news_of_others(client, message, sent))
		return true;
	if (self->vectors == client->server->vectors)
		return false;
	*message = (struct message){ client->id, client->eventfd[self->vectors] };
	self->vectors += sent;
	return true;
}

static int send_message(int fd, const struct message *message)
{
	uint64_t word = htole64(message->value);
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec part = { .iov_base = &word, .iov_len = sizeof(word) };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };
	ssize_t n;

	if (message->fd >= 0) {
		header.msg_control = &control;
		header.msg_controllen = sizeof(control);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &message->fd, sizeof(int));
	}
	n = sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0)
		return -errno;
	return n == sizeof(word) ? 0 : -EPIPE;	/* 8 bytes are sent at once or not at all */
}

/* Sends as much as the client takes. False: the connection has failed. */
static bool catch_up(struct peer *client)
{
	struct message message;
	int ret;

	if (client->fd < 0)
		return true;
	while (next_message(client, &message, false)) {
		ret = send_message(client->fd, &message);
		if (ret == -EAGAIN) {
			sd_event_source_set_io_events(client->source,
						      EPOLLIN | EPOLLOUT);
			return true;
		}
		if (ret)
			return false;
		next_message(client, &message, true);
	}
	sd_event_source_set_io_events(client->source, EPOLLIN);
	return true;
}

static void close_eventfds(struct peer *peer)
{
	for (unsigned int i = 0; i < peer->server->vectors; i++) {
		if (peer->eventfd[i] >= 0)
			close(peer->eventfd[i]);
		peer->eventfd[i] = -1;
	}
}

/* Removes a peer. Clients that know of it will be told. */
static void peer_close(struct peer *peer)
{
	struct server *server = peer->server;

	for (unsigned int i = 0; i < SERVER_PEERS; i++) {
		struct told *told = &server->peers[i].told[place(peer)];

		if (server->peers[i].id == NOBODY || &server->peers[i] == peer)
			continue;
		if (told->vectors)
			told->gone = peer->id;
		told->vectors = 0;
	}
	peer->source = sd_event_source_disable_unref(peer->source);
	if (peer->fd >= 0)
		close(peer->fd);
	close_eventfds(peer);
	if (server->gone)
		server->gone(server->gone_data, peer->id);
	peer->id = NOBODY;
}

/* Sends news to all clients. One that fails is removed, which is news again. */
static void tell_all(struct server *server)
{
	bool again;

	do {
		again = false;
		for (unsigned int i = 0; i < SERVER_PEERS; i++) {
			struct peer *peer = &server->peers[i];

			if (peer->id != NOBODY && !catch_up(peer)) {
				peer_close(peer);
				again = true;
			}
		}
	} while (again);
	server->changed(server->data);
}

static int on_client(sd_event_source *source, int fd, uint32_t events, void *data)
{
	struct peer *peer = data;

	(void)source;
	(void)fd;
	/* A client never sends: readable means that it has closed, or breaks the protocol. */
	if (events & (EPOLLHUP | EPOLLERR | EPOLLIN) || !catch_up(peer)) {
		if (events & EPOLLIN && !(events & (EPOLLHUP | EPOLLERR)))
			fprintf(stderr, "kvmfrd: peer %d has closed its connection, or sent something, which clients must not\n",
				peer->id);
		peer_close(peer);
		tell_all(peer->server);
	}
	return 0;
}

/* Is the id a peer's, or was a client not told yet that its peer has gone? */
static bool id_in_use(const struct server *server, int id)
{
	for (unsigned int i = 0; i < SERVER_PEERS; i++) {
		const struct peer *peer = &server->peers[i];

		if (peer->id == id)
			return true;
		for (unsigned int j = 0; peer->id != NOBODY && j < SERVER_PEERS; j++)
			if (peer->told[j].gone == id)
				return true;
	}
	return false;
}

/*
 * Ids are given out in turn, so that one is reused as late as possible: a guest may
 * still ring an old one. Without clients nobody can, and the next id is 0, which QEMU
 * needs for master=on.
 */
static int new_id(struct server *server)
{
	int id;

	if (!server_peers(server))
		server->next_id = 0;
	do {
		id = server->next_id;
		server->next_id = (id + 1) % IDS;
	} while (id_in_use(server, id));
	return id;
}

/* Prepares a place for a peer that was told nothing yet. */
static int peer_prepare(struct peer *peer)
{
	peer->greeting = 0;
	for (unsigned int i = 0; i < SERVER_PEERS; i++)
		peer->told[i] = (struct told){ .gone = NOBODY };
	for (unsigned int i = 0; i < peer->server->vectors; i++) {
		peer->eventfd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (peer->eventfd[i] < 0)
			return -errno;
	}
	return 0;
}

static int peer_open(struct peer *peer, int fd)
{
	struct server *server = peer->server;
	struct ucred credentials;
	socklen_t length = sizeof(credentials);
	int small = 1, ret = peer_prepare(peer);

	if (ret)
		return ret;
	/*
	 * Descriptors in flight count against this process's user, so a client that
	 * doesn't read must not have many of them.
	 */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)))
		return -errno;
	peer->pid = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) ?
		    0 : credentials.pid;
	return sd_event_add_io(server->event, &peer->source, fd, EPOLLIN, on_client,
			       peer);
}

int server_accept(struct server *server, int fd)
{
	struct peer *peer = server->peers;
	int ret;

	while (peer < server->peers + SERVER_PEERS && peer->id != NOBODY)
		peer++;
	if (peer == server->peers + SERVER_PEERS) {
		close(fd);
		return -EUSERS;
	}
	ret = peer_open(peer, fd);
	if (ret < 0) {
		close_eventfds(peer);
		close(fd);
		return ret;
	}
	peer->fd = fd;
	peer->id = new_id(server);
	ret = peer->id;
	tell_all(server);
	return ret;
}

int server_join(struct server *server, server_gone gone, void *data)
{
	struct peer *self = &server->peers[SERVER_PEERS - 1];
	int ret = peer_prepare(self);

	if (ret) {
		close_eventfds(self);
		return ret;
	}
	self->fd = -1;
	self->id = SERVER_SELF;
	server->gone = gone;
	server->gone_data = data;
	return self->eventfd[0];
}

int server_ring(struct server *server, unsigned int id, unsigned int vector)
{
	static const uint64_t one = 1;

	for (unsigned int i = 0; i < SERVER_PEERS && vector < server->vectors; i++) {
		const struct peer *peer = &server->peers[i];
		struct pollfd room = { .fd = peer->eventfd[vector], .events = POLLOUT };

		if (peer->id == NOBODY || peer->id != (int)id)
			continue;
		/* The eventfd was made O_NONBLOCK, but a client can undo that. */
		if (poll(&room, 1, 0) != 1)
			return -EAGAIN;
		return write(room.fd, &one, sizeof(one)) < 0 ? -errno : 0;
	}
	return -ENOENT;
}

unsigned int server_peers(const struct server *server)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < SERVER_PEERS; i++)
		n += server->peers[i].id != NOBODY && server->peers[i].fd >= 0;
	return n;
}

void server_peer(const struct server *server, unsigned int n, int *id, pid_t *pid)
{
	for (unsigned int i = 0; i < SERVER_PEERS; i++) {
		if (server->peers[i].id == NOBODY || server->peers[i].fd < 0 || n--)
			continue;
		*id = server->peers[i].id;
		*pid = server->peers[i].pid;
		return;
	}
}

struct server *server_new(sd_event *event, int memory, unsigned int vectors,
			  server_changed changed, void *data)
{
	struct server *server = calloc(1, sizeof(*server));

	if (!server)
		return NULL;
	server->event = event;
	server->memory = memory;
	server->vectors = vectors;
	server->changed = changed;
	server->data = data;
	for (unsigned int i = 0; i < SERVER_PEERS; i++) {
		server->peers[i].server = server;
		server->peers[i].id = NOBODY;
		for (unsigned int j = 0; j < SERVER_VECTORS; j++)
			server->peers[i].eventfd[j] = -1;
	}
	return server;
}

void server_free(struct server *server)
{
	server->gone = NULL;
	for (unsigned int i = 0; i < SERVER_PEERS; i++)
		if (server->peers[i].id != NOBODY)
			peer_close(&server->peers[i]);
	free(server);
}
