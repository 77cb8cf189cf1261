// SPDX-License-Identifier: GPL-2.0
/* Makes the listening sockets that systemd doesn't pass. */
#include "kvmfrd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Removes the socket of a server that was killed, on which nobody listens. */
static bool remove_stale(const struct sockaddr_un *address, int type)
{
	struct stat st;
	int fd, ret;

	if (lstat(address->sun_path, &st))
		return true;
	if (!S_ISSOCK(st.st_mode)) {
		complain("%s: something that is not a socket is in its place",
			 address->sun_path);
		return false;
	}
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	ret = connect(fd, (const struct sockaddr *)address, sizeof(*address)) ? errno : 0;
	close(fd);
	if (ret == ECONNREFUSED && !unlink(address->sun_path))
		return true;
	if (ret == ECONNREFUSED)
		complain("%s: removing the socket of a server that has ended: %s",
			 address->sun_path, strerror(errno));
	else if (ret == EACCES)
		complain("%s: there is a socket of another user in its place", address->sun_path);
	else
		complain("%s: another server is using this socket", address->sun_path);
	return false;
}

/* Makes the last directory of the path, such as /run/kvmfr after a boot. */
static bool make_directory(const char *path)
{
	char directory[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char *end;

	strcpy(directory, path);
	end = strrchr(directory, '/');
	if (!end || end == directory)
		return true;
	*end = 0;
	if (!mkdir(directory, 0755) || errno == EEXIST)
		return true;
	complain("%s: making the socket's directory: %s", directory, strerror(errno));
	return false;
}

static bool set_owner(const char *path, const struct access *access)
{
	return (access->owner == (uid_t)-1 && access->group == (gid_t)-1) ||
	       !chown(path, access->owner, access->group);
}

static int start_listening(const struct sockaddr_un *address, int type,
			   const struct access *access)
{
	const char *path = address->sun_path, *what = "making the socket";
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool bound = false;

	/* Nobody can connect before listen(), so access is set in time. */
	if (fd >= 0 && !bind(fd, (const struct sockaddr *)address, sizeof(*address))) {
		bound = true;
		what = "setting its owner, group and mode";
		/* The mode first: after chown() the file may be another user's. */
		if (!chmod(path, access->mode) && set_owner(path, access)) {
			what = "listen";
			if (!listen(fd, SOMAXCONN))
				return fd;
		}
	}
	complain("%s: %s: %s", path, what, strerror(errno));
	if (bound)
		unlink(path);
	if (fd >= 0)
		close(fd);
	return -1;
}

int socket_listen(const char *path, int type, const struct access *access)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(address.sun_path)) {
		complain("%s: a socket's path has at most %zu bytes", path,
			 sizeof(address.sun_path) - 1);
		return -1;
	}
	strcpy(address.sun_path, path);
	if (!make_directory(path) || !remove_stale(&address, type))
		return -1;
	return start_listening(&address, type, access);
}

char *socket_path(int listener)
{
	struct sockaddr_un address = { 0 };
	socklen_t length = sizeof(address) - 1;	/* the NUL may be missing */
	char *path;

	if (getsockname(listener, (struct sockaddr *)&address, &length) ||
	    length <= sizeof(address.sun_family) || !address.sun_path[0])
		return NULL;
	path = strdup(address.sun_path);
	if (!path)
		die("out of memory");
	return path;
}
