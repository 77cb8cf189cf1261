// SPDX-License-Identifier: GPL-2.0
/* doctor: can guests with a doorbell reach its server? */
#include "doctor.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_DOORBELLS	16	/* of one QEMU */

/* An ivshmem-doorbell device of a QEMU. */
struct doorbell {
	const char *socket;
	const char *vectors;	/* as it is written, "1" if it isn't */
};

/* Who has a doorbell: a libvirt domain, or a running QEMU. */
struct owner {
	const char *name;		/* "domain win", "qemu-system-x86 (1234)" */
	const struct person *person;	/* who connects; NULL: not known */
	pid_t pid;			/* of a running QEMU; 0: a domain */
};

/* The path of the socket of QEMU's chardev with this id, or NULL. */
static const char *chardev_path(char **args, int n, const char *id)
{
	for (int i = 0; i < n; i++) {
		const char *value = option_in(args[i], "id");

		if (!strncmp(args[i], "socket,", 7) && value && !strcmp(value, id))
			return option_in(args[i], "path");
	}
	return NULL;
}

static int doorbells_in(char **args, int n, struct doorbell *bells, int max)
{
	int found = 0;

	for (int i = 0; i < n && found < max; i++) {
		const char *chardev, *socket, *vectors;

		if (!strstr(args[i], "ivshmem-doorbell"))
			continue;
		chardev = option_in(args[i], "chardev");
		socket = chardev ? chardev_path(args, n, chardev) : NULL;
		vectors = option_in(args[i], "vectors");
		if (socket)
			bells[found++] = (struct doorbell){ socket, vectors ? vectors : "1" };
	}
	return found;
}

int domain_sockets(const struct domain *domain, const char **sockets, int max)
{
	struct doorbell bells[MAX_DOORBELLS];
	int n = doorbells_in(domain->args, domain->n_args, bells,
			     max < MAX_DOORBELLS ? max : MAX_DOORBELLS);

	for (int i = 0; i < n; i++)
		sockets[i] = bells[i].socket;
	return n;
}

/* The quoted value after a text such as "path=" in XML, before @end; or NULL. */
static const char *attribute(const char *xml, const char *end, const char *name)
{
	const char *p = strstr(xml, name);

	if (!p || p >= end || (p[strlen(name)] != '\'' && p[strlen(name)] != '"'))
		return NULL;
	p += strlen(name);
	return strndup(p + 1, strcspn(p + 1, (char[]){ *p, 0 }));
}

/* Doorbells in libvirt's own element: <shmem> with <server path='...'/>. */
static int doorbells_of_shmem(const char *xml, struct doorbell *bells, int max)
{
	const char *end;
	int found = 0;

	for (; found < max && (xml = strstr(xml, "<shmem")); xml = end) {
		const char *socket, *msi, *vectors;

		end = strstr(xml, "</shmem>");
		if (!end)
			break;
		socket = attribute(xml, end, "<server path=");
		msi = strstr(xml, "<msi");
		vectors = msi && msi < end ? attribute(msi, end, "vectors=") : NULL;
		if (socket)
			bells[found++] = (struct doorbell){ socket, vectors ? vectors : "1" };
	}
	return found;
}

/*
 * Adds the command that starts the server, if systemd has its unit. It restarts the
 * socket unit, since systemd does not notice when a socket file is removed.
 */
static void mend_server(struct finding *finding, const struct server *server)
{
	static const char * const dirs[] = {
		"/etc/systemd/system", "/usr/local/lib/systemd/system",
		"/usr/lib/systemd/system", "/lib/systemd/system",
	};

	for (size_t i = 0; server->name && i < sizeof(dirs) / sizeof(*dirs); i++)
		if (!access(path("%s/kvmfrd@.socket", dirs[i]), F_OK)) {
			const char *unit = quoted(text("kvmfrd@%s.socket", server->name));

			mend(finding, "systemctl enable %s && systemctl restart %s",
			     unit, unit);
			return;
		}
}

/* What to do where systemd has no unit for it. */
static const char *start_text(const struct server *server)
{
	return text("start 'kvmfrd --socket %s', see kvmfrd(8)", server->socket);
}

/* Each of these returns false if it has reported something wrong. */
static bool check_listens(struct report *r, const struct owner *owner,
			  const struct server *server)
{
	const char *consequence = owner->pid ?
		"its guest is cut off from who comes later; start the server, then power the guest off and start it again" :
		"it will not start";
	struct finding *finding;

	if (server->listens)
		return true;
	if (server->exists && !S_ISSOCK(server->st.st_mode)) {
		wrong(r, "%s wants a doorbell server at %s, but that is not a socket",
		      owner->name, server->socket);
		return false;
	}
	finding = wrong(r, "%s wants a doorbell server at %s, where %s: %s",
			owner->name, server->socket, server->exists ?
			"nobody listens any more" : "there is none", consequence);
	mend_server(finding, server);
	if (!finding->command)
		finding->text = text("%s (%s)", finding->text, start_text(server));
	return false;
}

/* May that user connect? */
static bool check_connect(struct report *r, const char *name,
			  const struct person *person,
			  const struct server *server)
{
	const char *dir = person_is_kept_out(person, server->socket);
	struct finding *finding;

	if (dir) {
		wrong(r, "%s: %s may not connect to %s, because of the directory %s",
		      name, person->name, server->socket, dir);
		return false;
	}
	if (person_may(person, path("%s", server->socket), &server->st, W_OK))
		return true;
	finding = wrong(r, "%s: %s may not connect: %s", name, person->name,
			access_text(server->socket, &server->st));
	mend_group(finding, &server->st, person->name);
	return false;
}

/* QEMU prints "Too many eventfd received", or nothing, and goes on without some vectors. */
static bool check_vectors(struct report *r, const struct owner *owner,
			  const struct doorbell *bell,
			  const struct server *server)
{
	if (!server->runs || strtoul(bell->vectors, NULL, 0) == server->vectors)
		return true;
	wrong(r, "%s has vectors=%s, but the server at %s has %u: nothing rings those that only one of them has",
	      owner->name, bell->vectors, server->socket, server->vectors);
	return false;
}

/* Is a running QEMU still a peer? It doesn't connect again to a restarted server. */
static bool check_peer(struct report *r, const struct owner *owner,
		       const struct server *server)
{
	if (!server->runs || !owner->pid)
		return true;
	for (int i = 0; i < server->n_peers; i++)
		if (server->peers[i].pid == owner->pid || !server->peers[i].pid)
			return true;
	wrong(r, "%s is not connected to the server at %s, which was started after it: power its guest off and start it again",
	      owner->name, server->socket);
	return false;
}

static void check_doorbell(struct report *r, const struct owner *owner,
			   const struct doorbell *bell)
{
	struct server server;

	server_look(bell->socket, &server);
	if (!check_listens(r, owner, &server))
		return;
	if (owner->person && !check_connect(r, owner->name, owner->person, &server))
		return;
	if (check_vectors(r, owner, bell, &server) && check_peer(r, owner, &server))
		right(r, "%s %s its doorbell server at %s", owner->name,
		      owner->pid ? "has" : "finds", bell->socket);
}

static void check_domain(struct report *r, const struct domain *domain)
{
	struct doorbell bells[2 * MAX_DOORBELLS];
	struct owner owner = { .name = text("domain %s", domain->name) };
	char *conf = file_read(path("/etc/libvirt/qemu.conf"), NULL);
	struct person person;
	int n;

	if (!strcmp(domain->uri, "qemu:///system") &&
	    qemu_person(conf ? conf : "", &person))
		owner.person = &person;
	n = doorbells_in(domain->args, domain->n_args, bells, MAX_DOORBELLS);
	n += doorbells_of_shmem(domain->xml, bells + n, MAX_DOORBELLS);
	for (int i = 0; i < n; i++)
		check_doorbell(r, &owner, &bells[i]);
}

static void check_process(struct report *r, pid_t pid)
{
	struct doorbell bells[MAX_DOORBELLS];
	struct owner owner = { .pid = pid };
	const char *command;
	size_t length = 0;
	char *cmdline = file_read(path("/proc/%d/cmdline", pid), &length);
	char *args[1024];
	uid_t uid;
	int n = 0;

	for (size_t at = 0; cmdline && at < length && n < 1024; at += strlen(cmdline + at) + 1)
		args[n++] = cmdline + at;
	n = doorbells_in(args, n, bells, MAX_DOORBELLS);
	if (!n || !process_look(pid, &command, &uid))
		return;
	owner.name = text("%s (%d)", command, pid);
	for (int i = 0; i < n; i++)
		check_doorbell(r, &owner, &bells[i]);
}

static void check_processes(struct report *r)
{
	glob_t found;

	if (glob(path("/proc/[0-9]*"), GLOB_NOSORT, NULL, &found))
		return;
	for (size_t i = 0; i < found.gl_pathc; i++)
		check_process(r, atoi(strrchr(found.gl_pathv[i], '/') + 1));
}

/* May the user connect to the units' sockets? Others need not be for this user. */
static void check_user_of(struct report *r, const struct server *server)
{
	struct person person;

	if (!server->name)
		return;
	if (!server->listens) {
		mend_server(wrong(r, "nobody listens at %s: its server has ended",
				  server->socket), server);
		return;
	}
	if (!doctor_user)
		person_current(&person);
	else
		person_by_name(doctor_user, &person);
	if (check_connect(r, text("server %s", server->name), &person, server))
		right(r, "%s may connect to the server at %s", person.name,
		      server->socket);
}

void check_servers(struct report *r)
{
	static struct server servers[MAX_SERVERS];
	int n;

	domains_each(r, check_domain);
	check_processes(r);
	n = servers_find(servers);
	for (int i = 0; i < n; i++)
		check_user_of(r, &servers[i]);
	if (!r->n)
		elsewhere(r, "nobody has a doorbell, and there is no server for one");
}
