// SPDX-License-Identifier: GPL-2.0
/* Answers kvmfrctl on the control socket, see control.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channels.h"

#define CLIENTS	8	/* connected and silent; one more replaces the oldest */

struct control {
	sd_event *event;
	sd_event_source *accepting;
	struct host *host;
	sd_event_source *clients[CLIENTS];
	unsigned int next;
};

/* Sends the answer, with a descriptor unless that is -1. */
static void send_answer(int client, const struct control_answer *answer, int fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec part = { .iov_base = (void *)answer, .iov_len = sizeof(*answer) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	if (fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
	}
	sendmsg(client, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static int on_request(sd_event_source *source, int fd, uint32_t events, void *data)
{
	struct control *control = data;
	struct control_request request;
	struct control_answer answer = { .error = -EOPNOTSUPP };
	int memory = -1;

	(void)events;
	if (recv(fd, &request, sizeof(request), MSG_DONTWAIT) == sizeof(request)) {
		request.name[sizeof(request.name) - 1] = 0;
		if (control->host)
			memory = host_request(control->host, &request, &answer);
		send_answer(fd, &answer, memory);
	}
	for (unsigned int i = 0; i < CLIENTS; i++)
		if (control->clients[i] == source)
			control->clients[i] = sd_event_source_disable_unref(source);
	return 0;
}

static int on_accept(sd_event_source *source, int listener, uint32_t events, void *data)
{
	struct control *control = data;
	sd_event_source **client = &control->clients[control->next++ % CLIENTS];
	int fd;

	(void)source;
	(void)events;
	*client = sd_event_source_disable_unref(*client);
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return 0;
	if (sd_event_add_io(control->event, client, fd, EPOLLIN, on_request, control) < 0)
		close(fd);
	else
		sd_event_source_set_io_fd_own(*client, true);
	return 0;
}

struct control *control_new(sd_event *event, int listener, struct host *host)
{
	struct control *control = calloc(1, sizeof(*control));

	if (!control || sd_event_add_io(event, &control->accepting, listener, EPOLLIN, on_accept,
					control) < 0)
		die("out of memory");
	sd_event_source_set_io_fd_own(control->accepting, true);
	/* Without free descriptors accept() fails at once, again and again. */
	sd_event_source_set_ratelimit(control->accepting, 1000 * 1000, 20);
	control->event = event;
	control->host = host;
	return control;
}

void control_free(struct control *control)
{
	if (!control)
		return;
	for (unsigned int i = 0; i < CLIENTS; i++)
		sd_event_source_disable_unref(control->clients[i]);
	sd_event_source_disable_unref(control->accepting);
	free(control);
}
