// SPDX-License-Identifier: GPL-2.0
/*
 * A channel as a UNIX socket, in one of two ways. Either programs connect to a socket
 * of ours, one at a time while the others wait in its backlog, and the channel's end is
 * open as long as one is connected. Or a program listens on a socket of its own
 * ("connect" in the configuration); then the end is always open, and when the other end
 * is opened, we connect to the program.
 *
 * Data that can't be passed on stays in the channel or in the socket, but for at most
 * one buffer in each direction.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "channels.h"

#define BUFFER	(32 * 1024)
#define TURNS	16		/* buffers in a row, then others take their turn */
#define RETRY	(1000 * 1000)	/* microseconds */

/* Bytes between channel and socket: data[begin] to data[end - 1]. */
struct buffer {
	size_t begin, end;
	char data[BUFFER];
};

struct connection {
	int fd;				/* -1: not yet */
	sd_event_source *source;
	bool gone;			/* the program has closed its socket */
	bool heard_all;			/* the program sends no more … */
	bool told;			/* … and our end was shut down for writing */
	bool deaf;			/* the channel takes no more from the program */
	bool finished;			/* the socket was shut down for writing */
	struct buffer to_channel, to_program;
};

struct link {
	sd_event *event;
	struct kvmfr_channels *set;
	const struct channel_config *config;
	struct sockaddr_un address;
	char name[KVMFR_CHANNEL_NAME_SIZE];

	int listener;			/* -1: a program listens */
	sd_event_source *accepting;
	sd_event_source *again;		/* there is more to do */
	sd_event_source *retry;		/* a second later */
	bool complained;		/* an error was reported since the last success */

	struct kvmfr_channel *end;
	bool connected;			/* the end is connected with the other end */
	bool inherited;			/* the end took over an earlier process's connection */
	struct connection *connection;
};

/* The result of moving bytes. */
enum outcome {
	WAITING,	/* nothing to do until something happens */
	BUSY,		/* there may be more to do */
	OVER,		/* the connection has ended */
	BROKEN,		/* the channel was removed, or the other side breaks the protocol */
};

static void complain_once(struct link *link, const char *what, int error)
{
	if (!link->complained)
		complain("channel %s: %s: %s", link->name, what, strerror(error));
	link->complained = true;
}

/* --- moving bytes ---------------------------------------------------------- */

static bool is_empty(const struct buffer *buffer)
{
	return buffer->begin == buffer->end;
}

static void filled(struct buffer *buffer, size_t n)
{
	buffer->begin = 0;
	buffer->end = n;
}

/* Moves one buffer from the channel to the program. */
static enum outcome to_program(struct link *link)
{
	struct connection *c = link->connection;
	struct buffer *buffer = &c->to_program;
	unsigned int bits;
	ssize_t n;

	if (is_empty(buffer)) {
		bits = kvmfr_channel_poll(link->end);
		if (bits & KVMFR_CHANNEL_ERR)
			return BROKEN;
		if (bits & KVMFR_CHANNEL_EOF) {
			/* Don't read this end of file: that would begin the next connection. */
			if (bits & KVMFR_CHANNEL_END)
				return OVER;
			if (!c->finished)
				shutdown(c->fd, SHUT_WR);
			c->finished = true;
			return c->told ? OVER : WAITING;
		}
		if (!(bits & KVMFR_CHANNEL_IN))
			return WAITING;
		n = kvmfr_channel_read(link->end, buffer->data, BUFFER);
		if (n < 0)
			return n == -EAGAIN ? WAITING : BROKEN;
		filled(buffer, n);
	}
	n = c->gone ? -1 : send(c->fd, buffer->data + buffer->begin,
				buffer->end - buffer->begin, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && !c->gone && (errno == EAGAIN || errno == EINTR))
		return WAITING;
	if (n < 0) {
		/* The program has gone: drop the data. */
		c->gone = true;
		n = buffer->end - buffer->begin;
	}
	buffer->begin += n;
	return BUSY;
}

/* Fills the buffer from the socket. False: nothing has come. */
static bool receive(struct connection *c)
{
	ssize_t n = recv(c->fd, c->to_channel.data, BUFFER, MSG_DONTWAIT);

	if (n > 0) {
		filled(&c->to_channel, n);
		return true;
	}
	if (!n || (errno != EAGAIN && errno != EINTR))
		c->heard_all = true;
	if (n < 0 && c->heard_all)
		c->gone = true;
	return false;
}

/* Moves one buffer from the program to the channel. */
static enum outcome to_channel(struct link *link)
{
	struct connection *c = link->connection;
	struct buffer *buffer = &c->to_channel;
	ssize_t n;

	if (c->deaf)
		return c->gone ? OVER : WAITING;
	if (is_empty(buffer) && (c->heard_all || !receive(c))) {
		if (!c->heard_all)
			return WAITING;
		if (c->gone)
			return OVER;	/* all that it sent is in the channel */
		if (!c->told && kvmfr_channel_shutdown(link->end) == 0)
			c->told = true;
		return c->told && c->finished ? OVER : WAITING;
	}
	n = kvmfr_channel_write(link->end, buffer->data + buffer->begin,
				buffer->end - buffer->begin);
	if (n == -EAGAIN)
		return WAITING;
	if (n == -EPIPE) {
		c->deaf = true;
		filled(buffer, 0);
		return BUSY;
	}
	if (n < 0)
		return BROKEN;
	buffer->begin += n;
	return BUSY;
}

static enum outcome move(struct link *link)
{
	enum outcome in = BUSY, out = BUSY;

	for (unsigned int i = 0; i < TURNS && (in == BUSY || out == BUSY); i++) {
		out = to_channel(link);
		if (out > BUSY)
			return out;
		in = to_program(link);
		if (in > BUSY)
			return in;
	}
	return in == BUSY || out == BUSY ? BUSY : WAITING;
}

/* Polls the socket only for events that can be acted on now. */
static void set_interest(struct link *link)
{
	struct connection *c = link->connection;
	uint32_t events = 0;

	/* A closed socket would report EPOLLHUP for ever. */
	if (c->gone) {
		sd_event_source_set_enabled(c->source, SD_EVENT_OFF);
		return;
	}
	if (link->connected && !c->heard_all && !c->deaf && is_empty(&c->to_channel))
		events |= EPOLLIN;
	if (!is_empty(&c->to_program))
		events |= EPOLLOUT;
	sd_event_source_set_io_events(c->source, events);
}

/* --- connections come and go ----------------------------------------------- */

static void pump(struct link *link);

static int on_program(sd_event_source *source, int fd, uint32_t events, void *data)
{
	struct link *link = data;

	(void)source;
	(void)fd;
	if (events & (EPOLLHUP | EPOLLERR))
		link->connection->gone = true;
	pump(link);
	return 0;
}

static void retry_later(struct link *link)
{
	uint64_t now;

	sd_event_now(link->event, CLOCK_MONOTONIC, &now);
	sd_event_source_set_time(link->retry, now + RETRY);
	sd_event_source_set_enabled(link->retry, SD_EVENT_ONESHOT);
}

/* Makes a connection, which owns the socket. On error the socket is closed. */
static int connection_new(struct link *link, int fd)
{
	struct connection *c = calloc(1, sizeof(*c));
	int ret = c ? 0 : -ENOMEM;

	if (c)
		ret = sd_event_add_io(link->event, &c->source, fd, 0, on_program, link);
	if (ret < 0) {
		free(c);
		close(fd);
		return ret;
	}
	c->fd = fd;
	link->connection = c;
	return 0;
}

/*
 * What was read of the channel can't be put back, so it goes into the socket, even if that
 * is full: to set the size that it has doubles it.
 */
static void flush(struct connection *c)
{
	const struct buffer *buffer = &c->to_program;
	int size = BUFFER;
	socklen_t length = sizeof(size);

	if (is_empty(buffer) || c->gone)
		return;
	getsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &size, &length);
	setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	send(c->fd, buffer->data + buffer->begin, buffer->end - buffer->begin,
	     MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void connection_free(struct link *link)
{
	struct connection *c = link->connection;

	if (!c)
		return;
	flush(c);
	sd_event_source_disable_unref(c->source);
	close(c->fd);
	free(c);
	link->connection = NULL;
}

static int end_open(struct link *link)
{
	int ret = kvmfr_channel_open(link->set, link->name, KVMFR_CHANNEL_NONBLOCK, &link->end);

	link->connected = false;
	/* A connection that we began can't be over already. */
	link->inherited = !ret && kvmfr_channel_poll(link->end) & KVMFR_CHANNEL_END;
	return ret;
}

static void end_close(struct link *link)
{
	kvmfr_channel_close(link->end);
	link->end = NULL;
}

/* Both ends of the connection are closed; the next may come. */
static void finish(struct link *link, enum outcome outcome)
{
	connection_free(link);
	end_close(link);
	if (link->listener >= 0)
		sd_event_source_set_enabled(link->accepting, SD_EVENT_ON);
	/* Not at once after BROKEN, since that may repeat. */
	else if (outcome == BROKEN || end_open(link))
		retry_later(link);
	else
		sd_event_source_set_enabled(link->again, SD_EVENT_ONESHOT);
}

/* Connects to the program that listens. Returns 0 or a negative errno. */
static int reach_program(struct link *link)
{
	const struct sockaddr *address = (const struct sockaddr *)&link->address;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int ret;

	if (fd >= 0 && !connect(fd, address, sizeof(link->address)))
		return connection_new(link, fd);
	ret = -errno;
	if (fd >= 0)
		close(fd);
	return ret;
}

/* Is the other end open? Then begins the connection. */
static enum outcome look_at_other_end(struct link *link)
{
	unsigned int bits = kvmfr_channel_poll(link->end);
	int ret;

	if (bits & KVMFR_CHANNEL_ERR)
		return BROKEN;
	/* The other end has come and gone, and left no data for a program of ours. */
	if (bits & KVMFR_CHANNEL_END &&
	    (bits & KVMFR_CHANNEL_EOF || (!link->connection && !link->inherited)))
		return OVER;
	if (bits & KVMFR_CHANNEL_HUP && !(bits & KVMFR_CHANNEL_END))
		return link->connection && link->connection->gone ? OVER : WAITING;
	if (!link->connection) {
		ret = reach_program(link);
		if (ret) {
			complain_once(link, link->address.sun_path, -ret);
			retry_later(link);
			return WAITING;
		}
	}
	link->connected = true;
	link->complained = false;
	return BUSY;
}

/* Does what can be done now, and arranges for the rest. */
static void pump(struct link *link)
{
	enum outcome outcome = BUSY;

	if (!link->end)
		return;
	if (!link->connected)
		outcome = look_at_other_end(link);
	if (outcome == BUSY)
		outcome = move(link);
	if (outcome == BROKEN && kvmfr_channel_read(link->end, NULL, 0) == -EPROTO)
		complain_once(link, "the other side breaks its rules", EPROTO);
	if (outcome > BUSY) {
		finish(link, outcome);
		return;
	}
	if (outcome == BUSY)
		sd_event_source_set_enabled(link->again, SD_EVENT_ONESHOT);
	if (link->connection)
		set_interest(link);
}

void link_look(struct link *link)
{
	pump(link);
}

static int on_again(sd_event_source *source, void *data)
{
	(void)source;
	pump(data);
	return 0;
}

static int on_accept(sd_event_source *source, int listener, uint32_t events, void *data)
{
	struct link *link = data;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int ret = fd < 0 ? -errno : connection_new(link, fd);

	(void)events;
	if (ret == -EAGAIN || ret == -ECONNABORTED)
		return 0;
	if (!ret) {
		ret = end_open(link);
		if (ret)
			connection_free(link);
	}
	sd_event_source_set_enabled(source, SD_EVENT_OFF);
	if (ret) {
		complain_once(link, "a client", -ret);
		retry_later(link);
		return 0;
	}
	pump(link);
	return 0;
}

static int on_retry(sd_event_source *source, uint64_t time, void *data)
{
	struct link *link = data;

	(void)source;
	(void)time;
	if (link->listener >= 0)
		sd_event_source_set_enabled(link->accepting, SD_EVENT_ON);
	else if (!link->end && end_open(link))
		retry_later(link);
	pump(link);
	return 0;
}

/* --- links ----------------------------------------------------------------- */

static int add_sources(struct link *link)
{
	int ret = sd_event_add_defer(link->event, &link->again, on_again, link);

	if (ret >= 0)
		ret = sd_event_source_set_enabled(link->again, SD_EVENT_OFF);
	if (ret >= 0)
		ret = sd_event_add_time(link->event, &link->retry, CLOCK_MONOTONIC, 0, 0, on_retry,
					link);
	if (ret >= 0)
		ret = sd_event_source_set_enabled(link->retry, SD_EVENT_OFF);
	if (ret >= 0 && link->listener >= 0)
		ret = sd_event_add_io(link->event, &link->accepting, link->listener, EPOLLIN,
				      on_accept, link);
	if (ret >= 0 && link->listener < 0) {
		ret = end_open(link);
		pump(link);
	}
	return ret;
}

/* Sets the path of the socket. False, after a message, if it is too long. */
static bool set_address(struct link *link, const char *directory)
{
	const char *connect = link->config->connect;
	char *path = link->address.sun_path;
	size_t room = sizeof(link->address.sun_path);
	int n = connect ? snprintf(path, room, "%s", connect) :
			  snprintf(path, room, "%s/%s", directory, link->name);

	if (n < 0 || (size_t)n >= room)
		complain("channel %s: a socket's path has at most %zu bytes, so it gets none",
			 link->name, room - 1);
	return n >= 0 && (size_t)n < room;
}

struct link *link_new(sd_event *event, struct kvmfr_channels *set, const char *directory,
		      const struct channel_config *config, const char *name)
{
	struct link *link = calloc(1, sizeof(*link));

	if (!link)
		return NULL;
	link->event = event;
	link->set = set;
	link->config = config;
	link->address.sun_family = AF_UNIX;
	link->listener = -1;
	strcpy(link->name, name);
	if (!set_address(link, directory)) {
		free(link);
		return NULL;
	}
	if (!config->connect)
		link->listener = socket_listen(link->address.sun_path, SOCK_STREAM, &config->access);
	if ((!config->connect && link->listener < 0) || add_sources(link) < 0) {
		link_free(link);
		return NULL;
	}
	return link;
}

void link_unlink(const struct link *link)
{
	if (link->listener >= 0)
		unlink(link->address.sun_path);
}

void link_free(struct link *link)
{
	connection_free(link);
	end_close(link);
	sd_event_source_disable_unref(link->accepting);
	sd_event_source_disable_unref(link->again);
	sd_event_source_disable_unref(link->retry);
	link_unlink(link);
	if (link->listener >= 0)
		close(link->listener);
	free(link);
}

void link_leave(struct link *link)
{
	link->end = NULL;
	link_free(link);
}

const char *link_name(const struct link *link)
{
	return link->name;
}
