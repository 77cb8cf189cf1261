// SPDX-License-Identifier: GPL-2.0
/* Where kvmfrctl asks for a channel more or less. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channels.h"

#define CLIENTS	8	/* that have not asked yet; one more ends the oldest */

struct control {
	sd_event *event;
	sd_event_source *accepting;
	struct channels **channels;
	sd_event_source *clients[CLIENTS];
	unsigned int next;
};

static int on_request(sd_event_source *source, int fd, uint32_t events, void *data)
{
	struct control *control = data;
	struct control_request request;
	struct control_answer answer = { .error = -EAGAIN };

	(void)events;
	if (recv(fd, &request, sizeof(request), MSG_DONTWAIT) == sizeof(request)) {
		request.name[sizeof(request.name) - 1] = 0;
		if (!control->channels)
			answer.error = -EOPNOTSUPP;
		else if (*control->channels)
			channels_request(*control->channels, &request, &answer);
		send(fd, &answer, sizeof(answer), MSG_DONTWAIT | MSG_NOSIGNAL);
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

struct control *control_new(sd_event *event, int listener, struct channels **channels)
{
	struct control *control = calloc(1, sizeof(*control));

	if (!control || sd_event_add_io(event, &control->accepting, listener, EPOLLIN, on_accept,
					control) < 0)
		die("out of memory");
	sd_event_source_set_io_fd_own(control->accepting, true);
	/* Where there is no descriptor left, accept() fails again and again. */
	sd_event_source_set_ratelimit(control->accepting, 1000 * 1000, 20);
	control->event = event;
	control->channels = channels;
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
