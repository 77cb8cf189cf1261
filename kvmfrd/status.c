// SPDX-License-Identifier: GPL-2.0
/*
 * A file that says what is served and which peers there are, for "kvmfrctl list",
 * since connecting to the server would make a peer. Anybody may read it. It is
 * replaced at each change, so nobody reads half of it.
 */
#include "kvmfrd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server.h"

/* "PATH.status" for a listening socket that is bound to PATH. */
static char *beside_socket(int listener)
{
	char *socket = socket_path(listener), *path = NULL;

	if (socket && asprintf(&path, "%s.status", socket) < 0)
		die("out of memory");
	free(socket);
	return path;
}

static void status_print(FILE *file, const struct status *status)
{
	fprintf(file, "PID=%d\n", getpid());
	fprintf(file, "MEMORY=%s\n", status->memory);
	fprintf(file, "SIZE=%" PRIu64 "\n", status->size);
	fprintf(file, "VECTORS=%u\n", status->vectors);
	for (unsigned int i = 0; i < server_peers(status->server); i++) {
		int id;
		pid_t pid;

		server_peer(status->server, i, &id, &pid);
		fprintf(file, "PEER=%d %d\n", id, pid);
	}
}

/* Returns 0 or an errno. Others may write to the directory, if it is /tmp for example. */
static int status_replace(const struct status *status)
{
	char *fresh;
	FILE *file;
	int fd, error;

	if (asprintf(&fresh, "%s.new", status->path) < 0)
		return ENOMEM;
	unlink(fresh);
	fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	file = fd < 0 ? NULL : fdopen(fd, "w");
	error = file ? 0 : errno;
	if (file) {
		fchmod(fd, 0644);	/* whatever the umask is */
		status_print(file, status);
		if (fclose(file) || rename(fresh, status->path)) {
			error = errno;
			unlink(fresh);
		}
	}
	free(fresh);
	return error;
}

void status_write(struct status *status)
{
	int error = status->path ? status_replace(status) : 0;

	if (error && !status->failed)
		fprintf(stderr, "kvmfrd: %s: %s; 'kvmfrctl list' can't tell who is there\n",
			status->path, strerror(error));
	status->failed = error;
}

void status_begin(struct status *status, const char *path, int listener)
{
	status->path = path ? strdup(path) : beside_socket(listener);
	status_write(status);
}

void status_end(struct status *status)
{
	if (status->path)
		unlink(status->path);
	free(status->path);
}
