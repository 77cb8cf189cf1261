// SPDX-License-Identifier: GPL-2.0
/* The socket that clients connect to, where systemd doesn't make it. */
#include "kvmfrd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* A server that was killed leaves its socket behind, where nobody listens. */
static void remove_stale(const struct sockaddr_un *address)
{
	struct stat st;
	int fd;

	if (lstat(address->sun_path, &st))
		return;
	if (!S_ISSOCK(st.st_mode))
		die("%s: something that is not a socket is in its place",
		    address->sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		die("socket: %s", strerror(errno));
	if (!connect(fd, (const struct sockaddr *)address, sizeof(*address)) ||
	    errno != ECONNREFUSED)
		die("%s: another server is using this socket", address->sun_path);
	close(fd);
	unlink(address->sun_path);
}

/* /run/kvmfr isn't there after a boot. Others may exist, or be missing further up. */
static void make_directory(const char *path)
{
	char directory[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char *end;

	strcpy(directory, path);
	end = strrchr(directory, '/');
	if (!end || end == directory)
		return;
	*end = 0;
	if (mkdir(directory, 0755) && errno != EEXIST)
		die("%s: making the socket's directory: %s", directory, strerror(errno));
}

int socket_listen(const char *path, mode_t mode, gid_t group)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(address.sun_path))
		die("%s: a socket's path has at most %zu bytes", path,
		    sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	make_directory(path);
	remove_stale(&address);

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		die("socket: %s", strerror(errno));
	/* Nobody can connect before listen(), so this is no moment too late. */
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)))
		die("%s: %s", path, strerror(errno));
	if ((group != (gid_t)-1 && chown(path, -1, group)) || chmod(path, mode))
		die("%s: setting its group and mode: %s", path, strerror(errno));
	if (listen(fd, SOMAXCONN))
		die("%s: listen: %s", path, strerror(errno));
	return fd;
}
