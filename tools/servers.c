// SPDX-License-Identifier: GPL-2.0
/*
 * kvmfrd's servers: their sockets, and what their status files say. kvmfrctl never
 * connects to one, since that would make it a peer that the others are told of.
 */
#include "kvmfrctl.h"

#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The sockets of kvmfrd@NAME.socket are here. */
#define SOCKETS	"/run/kvmfr/"
#define SUFFIX	".sock"

/* Flag of a listening socket in /proc/net/unix (__SO_ACCEPTCON) */
#define LISTENS	0x10000

char *server_instance(const char *socket)
{
	const char *name = socket + strlen(SOCKETS);
	size_t length = strlen(socket);

	if (strncmp(socket, SOCKETS, strlen(SOCKETS)) || strchr(name, '/') ||
	    length <= strlen(SOCKETS SUFFIX) ||
	    strcmp(socket + length - strlen(SUFFIX), SUFFIX))
		return NULL;
	return text("%.*s", (int)(length - strlen(SOCKETS SUFFIX)), name);
}

/*
 * The path of the next listening socket in the lines of /proc/net/unix, or NULL.
 */
static char *next_listener(char **lines)
{
	unsigned int flags;
	char *line;
	int start;

	while ((line = strsep(lines, "\n"))) {
		start = 0;
		if (sscanf(line, "%*s %*s %*s %x %*s %*s %*s %n", &flags, &start) == 1 &&
		    start && flags & LISTENS && line[start] == '/')
			return line + start;
	}
	return NULL;
}

static bool is_listening(const char *socket)
{
	char *lines = file_read(path("/proc/net/unix"), NULL), *listener;

	while ((listener = next_listener(&lines)))
		if (!strcmp(listener, socket))
			return true;
	return false;
}

/* The status file: beside the socket, or where kvmfrd@.service has it written. */
static char *status_file(const char *socket)
{
	const char *file = path("%s.status", socket), *name = server_instance(socket);

	if (access(file, F_OK) && name)
		file = path("/run/kvmfrd/%s/status", name);
	return file_read(file, NULL);
}

static void status_line(struct server *server, const char *line)
{
	struct server_peer *peer = &server->peers[server->n_peers];

	if (sscanf(line, "PID=%d", &server->pid) == 1 ||
	    sscanf(line, "SIZE=%" SCNu64, &server->size) == 1 ||
	    sscanf(line, "VECTORS=%u", &server->vectors) == 1)
		return;
	if (!strncmp(line, "MEMORY=", 7))
		server->memory = printable(line + 7);
	else if (server->n_peers < SERVER_PEERS_MAX &&
		 sscanf(line, "PEER=%d %d", &peer->id, &peer->pid) == 2)
		server->n_peers++;
}

void server_look(const char *socket, struct server *server)
{
	char *lines, *line;

	*server = (struct server){
		.socket = text("%s", socket),
		.name = server_instance(socket),
		.memory = "",
	};
	server->exists = !stat(path("%s", socket), &server->st);
	server->listens = server->exists && S_ISSOCK(server->st.st_mode) &&
			  is_listening(socket);
	if (!server->listens)
		return;
	for (lines = status_file(socket); (line = strsep(&lines, "\n"));)
		status_line(server, line);
	/* A file that a dead server has left says nothing about this one. */
	server->runs = server->pid > 0 && *server->memory &&
		       !access(path("/proc/%d", server->pid), F_OK);
	if (!server->runs)
		server->n_peers = 0;
}

static int server_compare(const void *a, const void *b)
{
	return strverscmp(((const struct server *)a)->socket,
			  ((const struct server *)b)->socket);
}

static int add(struct server *servers, int n, const char *socket)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(servers[i].socket, socket))
			return n;
	if (n == MAX_SERVERS)
		return n;
	server_look(socket, &servers[n]);
	return n + 1;
}

int servers_find(struct server servers[MAX_SERVERS])
{
	char *lines = file_read(path("/proc/net/unix"), NULL), *listener;
	glob_t found;
	int n = 0;

	if (!glob(path(SOCKETS "*" SUFFIX), 0, NULL, &found))
		for (size_t i = 0; i < found.gl_pathc; i++)
			n = add(servers, n, found.gl_pathv[i] + strlen(root));
	while ((listener = next_listener(&lines)))
		if (!access(path("%s.status", listener), F_OK))
			n = add(servers, n, listener);
	qsort(servers, n, sizeof(*servers), server_compare);
	return n;
}
