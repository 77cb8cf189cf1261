// SPDX-License-Identifier: MIT
/* Asks a QEMU about its guest's memory. json-c reads QMP's JSON. */
#include "memory.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_SECONDS	5
#define DUMP_SECONDS	60	/* a guest that runs has to stop, with its disks */

struct memory_qmp {
	int fd;
	pid_t pid;
	struct json_tokener *tokener;
	unsigned int events;	/* MEMORY_EVENT_* */
	size_t received;	/* bytes of this answer, at most MEMORY_TEXT_MAX */
	size_t begin, end;	/* the part of data that was not parsed yet */
	char data[4096];
};

/* Sets how long to wait for QEMU from now on. */
static int qmp_wait(int fd, int seconds)
{
	struct timeval wait = { .tv_sec = seconds };

	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)))
		return -errno;
	return 0;
}

static int qmp_connect(struct memory_qmp *qmp, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct ucred peer;
	socklen_t size = sizeof(peer);
	int err;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	qmp->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (qmp->fd < 0)
		return -errno;
	err = qmp_wait(qmp->fd, ANSWER_SECONDS);
	if (err)
		return err;
	if (connect(qmp->fd, (struct sockaddr *)&address, sizeof(address)))
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	if (getsockopt(qmp->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size))
		return -errno;
	qmp->pid = peer.pid;
	return 0;
}

static int qmp_fill(struct memory_qmp *qmp)
{
	ssize_t n;

	do {
		n = recv(qmp->fd, qmp->data, sizeof(qmp->data), 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	if (!n)
		return -ECONNRESET;
	qmp->received += n;
	if (qmp->received > MEMORY_TEXT_MAX)
		return -EPROTO;
	qmp->begin = 0;
	qmp->end = n;
	return 0;
}

/* Receives the next object; the caller calls json_object_put(). */
static int qmp_receive(struct memory_qmp *qmp, struct json_object **object)
{
	int err;

	for (;;) {
		if (qmp->begin == qmp->end) {
			err = qmp_fill(qmp);
			if (err)
				return err;
		}
		*object = json_tokener_parse_ex(qmp->tokener,
						qmp->data + qmp->begin,
						qmp->end - qmp->begin);
		qmp->begin += json_tokener_get_parse_end(qmp->tokener);
		switch (json_tokener_get_error(qmp->tokener)) {
		case json_tokener_success:
			if (json_object_is_type(*object, json_type_object))
				return 0;
			json_object_put(*object);
			return -EPROTO;
		case json_tokener_continue:
			break;
		default:
			return -EPROTO;
		}
	}
}

static void qmp_event(struct memory_qmp *qmp, struct json_object *object)
{
	struct json_object *event;
	const char *name;

	if (!json_object_object_get_ex(object, "event", &event))
		return;
	name = json_object_get_string(event) ?: "";
	if (!strcmp(name, "RESET"))
		qmp->events |= MEMORY_EVENT_RESET;
	if (!strcmp(name, "MEMORY_DEVICE_SIZE_CHANGE"))
		qmp->events |= MEMORY_EVENT_RESIZED;
}

/* Waits for an object with this member; handles the events before it. */
static int qmp_expect(struct memory_qmp *qmp, const char *member, char **string)
{
	struct json_object *object, *value;
	int err;

	for (;;) {
		err = qmp_receive(qmp, &object);
		if (err)
			return err;
		if (json_object_object_get_ex(object, member, &value))
			break;
		qmp_event(qmp, object);
		err = json_object_object_get_ex(object, "error", &value) ? -EPROTO : 0;
		json_object_put(object);
		if (err)
			return err;
	}
	if (string) {
		if (json_object_is_type(value, json_type_string))
			*string = strdup(json_object_get_string(value));
		else
			err = -EPROTO;
		if (!err && !*string)
			err = -ENOMEM;
	}
	json_object_put(object);
	return err;
}

/* Sends a command, with a descriptor unless that is -1, and receives the answer. */
static int qmp_command(struct memory_qmp *qmp, struct json_object *command, int fd,
		       char **string)
{
	const char *text = json_object_to_json_string(command);
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { .header = {
		.cmsg_len = CMSG_LEN(sizeof(int)),
		.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS,
	} };
	struct iovec part = { (char *)text, strlen(text) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	ssize_t n;

	if (fd >= 0) {
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
	}
	n = sendmsg(qmp->fd, &message, MSG_NOSIGNAL);
	if (n < 0)
		return errno == EPIPE ? -ECONNRESET : -errno;
	if ((size_t)n != part.iov_len)
		return -ETIMEDOUT;
	qmp->received = 0;
	n = qmp_expect(qmp, "return", string);
	/* A late answer must not be taken for that of the next command. */
	if (n == -ETIMEDOUT)
		shutdown(qmp->fd, SHUT_RDWR);
	return n;
}

/* A command's object; @arguments, unless NULL, is set to an object to be filled in. */
static struct json_object *qmp_object(const char *name, struct json_object **arguments)
{
	struct json_object *command = json_object_new_object();

	json_object_object_add(command, "execute", json_object_new_string(name));
	if (arguments) {
		*arguments = json_object_new_object();
		json_object_object_add(command, "arguments", *arguments);
	}
	return command;
}

int kvmfr__memory_qmp_open(const char *path, struct memory_qmp **qmp)
{
	struct memory_qmp *q = calloc(1, sizeof(*q));
	struct json_object *command;
	int err;

	*qmp = NULL;
	if (!q)
		return -ENOMEM;
	err = qmp_connect(q, path);
	if (err)
		goto err_close;
	err = -ENOMEM;
	q->tokener = json_tokener_new();
	if (!q->tokener)
		goto err_close;
	err = qmp_expect(q, "QMP", NULL);
	if (err)
		goto err_close;
	command = qmp_object("qmp_capabilities", NULL);
	err = qmp_command(q, command, -1, NULL);
	json_object_put(command);
	if (err)
		goto err_close;
	*qmp = q;
	return 0;

err_close:
	kvmfr__memory_qmp_close(q);
	return err;
}

void kvmfr__memory_qmp_close(struct memory_qmp *qmp)
{
	if (!qmp)
		return;
	if (qmp->tokener)
		json_tokener_free(qmp->tokener);
	if (qmp->fd >= 0)
		close(qmp->fd);
	free(qmp);
}

pid_t kvmfr__memory_qmp_pid(const struct memory_qmp *qmp)
{
	return qmp->pid;
}

unsigned int kvmfr__memory_qmp_events(const struct memory_qmp *qmp)
{
	return qmp->events;
}

int kvmfr__memory_qmp_monitor(struct memory_qmp *qmp, const char *line, char **text)
{
	struct json_object *arguments, *command;
	int err;

	*text = NULL;
	command = qmp_object("human-monitor-command", &arguments);
	json_object_object_add(arguments, "command-line", json_object_new_string(line));
	err = qmp_command(qmp, command, -1, text);
	json_object_put(command);
	return err;
}

int kvmfr__memory_qmp_dump(struct memory_qmp *qmp, int fd, uint64_t address, uint64_t size)
{
	struct json_object *arguments, *command;
	int err;

	command = qmp_object("getfd", &arguments);
	json_object_object_add(arguments, "fdname", json_object_new_string("kvmfr"));
	err = qmp_command(qmp, command, fd, NULL);
	json_object_put(command);
	if (err)
		return err;

	command = qmp_object("dump-guest-memory", &arguments);
	json_object_object_add(arguments, "paging", json_object_new_boolean(false));
	json_object_object_add(arguments, "protocol", json_object_new_string("fd:kvmfr"));
	json_object_object_add(arguments, "begin", json_object_new_uint64(address));
	json_object_object_add(arguments, "length", json_object_new_uint64(size));
	err = qmp_wait(qmp->fd, DUMP_SECONDS);
	if (!err)
		err = qmp_command(qmp, command, -1, NULL);
	json_object_put(command);
	qmp_wait(qmp->fd, ANSWER_SECONDS);
	return err == -EPROTO ? -EBUSY : err;
}
