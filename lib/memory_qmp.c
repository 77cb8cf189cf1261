// SPDX-License-Identifier: MIT
/* Asks a QEMU for its memory map. json-c reads QMP's JSON. */
#include "memory.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_SECONDS	5

struct qmp {
	int fd;
	struct json_tokener *tokener;
	size_t received;	/* bytes so far, up to MEMORY_TEXT_MAX */
	size_t begin, end;	/* what of data has not been parsed */
	char data[4096];
};

static int qmp_connect(const char *path)
{
	struct timeval wait = { .tv_sec = ANSWER_SECONDS };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, err;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) ||
	    connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		err = errno == EAGAIN ? -ETIMEDOUT : -errno;
		close(fd);
		return err;
	}
	return fd;
}

static int qmp_fill(struct qmp *qmp)
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

/* The next object, to be put by the caller. */
static int qmp_receive(struct qmp *qmp, struct json_object **object)
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

/* Waits for the object that has one of the members; passes over events. */
static int qmp_expect(struct qmp *qmp, const char *member, char **string)
{
	struct json_object *object, *value;
	int err;

	for (;;) {
		err = qmp_receive(qmp, &object);
		if (err)
			return err;
		if (json_object_object_get_ex(object, member, &value))
			break;
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

static int qmp_command(struct qmp *qmp, const char *command, char **string)
{
	ssize_t n = send(qmp->fd, command, strlen(command), MSG_NOSIGNAL);

	if (n < 0)
		return errno == EPIPE ? -ECONNRESET : -errno;
	if ((size_t)n != strlen(command))
		return -ETIMEDOUT;
	return qmp_expect(qmp, "return", string);
}

int memory_ask_qmp(const char *path, char **text)
{
	struct qmp qmp = { };
	int err;

	*text = NULL;
	qmp.fd = qmp_connect(path);
	if (qmp.fd < 0)
		return qmp.fd;
	err = -ENOMEM;
	qmp.tokener = json_tokener_new();
	if (!qmp.tokener)
		goto err_close;

	err = qmp_expect(&qmp, "QMP", NULL);
	if (!err)
		err = qmp_command(&qmp, "{\"execute\":\"qmp_capabilities\"}\n", NULL);
	if (!err)
		err = qmp_command(&qmp,
				  "{\"execute\":\"human-monitor-command\",\"arguments\":"
				  "{\"command-line\":\"info mtree -f\"}}\n", text);
	json_tokener_free(qmp.tokener);
err_close:
	close(qmp.fd);
	return err;
}
