// SPDX-License-Identifier: GPL-2.0
/* kvmfrctl list: devices, servers and their users, as text or JSON. */
#include "kvmfrctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char * const node_states[] = {
	[NODE_OK] = "ok",
	[NODE_MISSING] = "missing",
	[NODE_REGULAR] = "regular file",
	[NODE_FOREIGN] = "foreign",
};

static const char *huge_text(const struct user *user)
{
	if (user->huge_missed)
		return column(YELLOW, 0, "NO HUGE PAGES: see 'kvmfrctl doctor mappings'");
	if (!user->huge_known)
		return "in huge pages or not: the kernel does not tell";
	if (!user->resident)
		return "not touched yet";
	return text("%s in huge pages", mebibytes(user->huge));
}

/* What a process has of a device, in words. */
static const char *user_text(const struct user *user)
{
	const char *have = user->open ? "open" : "";

	if (user->dmabufs)
		have = text("%s%sDMA-BUFs of %s", have, *have ? ", " : "",
			    mebibytes(user->dmabufs));
	if (user->mapped)
		have = text("%s%smapped %s (%s)", have, *have ? ", " : "",
			    mebibytes(user->mapped), huge_text(user));
	return have;
}

static void print_users(const struct device *dev, int *hidden)
{
	struct user *users;
	int n = users_find(dev, &users, hidden);

	for (int i = 0; i < n; i++)
		printf("    %s (%d, %s): %s\n", users[i].command, users[i].pid,
		       user_name(users[i].uid), user_text(&users[i]));
}

static void print_device(const struct device *dev, int *hidden)
{
	bool node = dev->state != NODE_MISSING;

	printf("%-12s %-7s %-9s %-9s %-13s %-14s %-4s %-4s %s\n", dev->node, dev->type,
	       mebibytes(dev->size),
	       dev->huge_known ? mebibytes(dev->huge_bytes) : "?",
	       *dev->pci ? dev->pci : "-",
	       node ? text("%s:%s", user_name(dev->st.st_uid),
			   group_name(dev->st.st_gid)) : "-",
	       node ? text("%04o", dev->st.st_mode & 07777) : "-",
	       dev->numa < 0 ? "-" : text("%d", dev->numa),
	       dev->link ? printable(dev->link) : "-");
	if (dev->state != NODE_OK)
		printf("    %s\n", column(RED, 0,
		       text("its node is %s: 'kvmfrctl doctor' tells how to mend that",
			    node_states[dev->state])));
	else
		print_users(dev, hidden);
}

static void print_server_line(const struct server *server)
{
	printf("%-28s %-12s %-9s %-7s %-14s %04o\n", printable(server->socket),
	       server->runs ? server->memory : "-",
	       server->runs ? mebibytes(server->size) : "-",
	       server->runs ? text("%u", server->vectors) : "-",
	       text("%s:%s", user_name(server->st.st_uid),
		    group_name(server->st.st_gid)),
	       server->st.st_mode & 07777);
}

/* A process by its id, as in "qemu-system-x86 (1234, libvirt-qemu)". */
static const char *process_text(pid_t pid)
{
	const char *command;
	uid_t uid;

	if (!pid)
		return "a process that is not known";
	if (!process_look(pid, &command, &uid))
		return text("? (%d)", pid);
	return text("%s (%d, %s)", command, pid, user_name(uid));
}

static void print_server(const struct server *server)
{
	print_server_line(server);
	if (!server->listens)
		printf("    %s\n", column(RED, 0,
		       "nobody listens there: 'kvmfrctl doctor servers' tells more"));
	else if (!server->runs)
		printf("    kvmfrd starts when the first client connects\n");
	for (int i = 0; i < server->n_peers; i++)
		printf("    peer %d: %s\n", server->peers[i].id,
		       process_text(server->peers[i].pid));
}

static void print_servers(const struct server *servers, int n)
{
	if (n)
		printf("%s\n", column(BOLD, 0, text("%-28s %-12s %-9s %-7s %-14s %s",
			"SERVER", "MEMORY", "SIZE", "VECTORS", "OWNER:GROUP", "MODE")));
	for (int i = 0; i < n; i++)
		print_server(&servers[i]);
}

/* A JSON string. A byte that is not UTF-8 becomes U+FFFD. */
static char *json(const char *s)
{
	char *out = text("\"");
	size_t n;

	for (; *s; s += n ?: 1) {
		unsigned char c = *s;

		n = utf8_length(s);
		if (!n)
			out = text("%s\\ufffd", out);
		else if (c == '"' || c == '\\')
			out = text("%s\\%c", out, c);
		else if (c < ' ')
			out = text("%s\\u%04x", out, c);
		else
			out = text("%s%.*s", out, (int)n, s);
	}
	return text("%s\"", out);
}

static void json_users(const struct device *dev)
{
	struct user *users;
	int hidden, n = users_find(dev, &users, &hidden);

	printf("    \"users\": [");
	for (int i = 0; i < n; i++) {
		struct user *user = &users[i];

		printf("%s\n      { \"pid\": %d, \"command\": %s, \"user\": %s, \"open\": %s, \"dmabufs\": %" PRIu64 ", \"mapped\": %" PRIu64 ", \"huge\": %s, \"huge_missed\": %s }",
		       i ? "," : "", user->pid, json(user->command),
		       json(user_name(user->uid)),
		       user->open ? "true" : "false", user->dmabufs,
		       user->mapped,
		       user->huge_known ? text("%" PRIu64, user->huge) : "null",
		       user->huge_missed ? "true" : "false");
	}
	printf("%s],\n    \"processes_not_seen\": %d\n", n ? "\n    " : "",
	       hidden);
}

static void json_device(const struct device *dev)
{
	bool node = dev->state != NODE_MISSING;

	printf("  {\n");
	printf("    \"name\": %s,\n", json(dev->name));
	printf("    \"node\": %s,\n", json(dev->node));
	printf("    \"node_state\": %s,\n", json(node_states[dev->state]));
	printf("    \"type\": %s,\n", json(dev->type));
	printf("    \"size\": %" PRIu64 ",\n", dev->size);
	printf("    \"huge_bytes\": %s,\n", dev->huge_known ?
	       text("%" PRIu64, dev->huge_bytes) : "null");
	printf("    \"pci\": %s,\n", *dev->pci ? json(dev->pci) : "null");
	printf("    \"owner\": %s,\n", node ?
	       json(user_name(dev->st.st_uid)) : "null");
	printf("    \"group\": %s,\n", node ?
	       json(group_name(dev->st.st_gid)) : "null");
	printf("    \"mode\": %s,\n", node ?
	       text("\"%04o\"", dev->st.st_mode & 07777) : "null");
	printf("    \"numa_node\": %s,\n", dev->numa < 0 ? "null" :
	       text("%d", dev->numa));
	printf("    \"link\": %s,\n", dev->link ?
	       json(path(BY_NAME "%s", dev->link)) : "null");
	json_users(dev);
	printf("  }");
}

static void json_peers(const struct server *server)
{
	printf("    \"peers\": [");
	for (int i = 0; i < server->n_peers; i++) {
		const struct server_peer *peer = &server->peers[i];
		const char *command;
		uid_t uid;
		bool known = process_look(peer->pid, &command, &uid);

		printf("%s\n      { \"id\": %d, \"pid\": %s, \"command\": %s, \"user\": %s }",
		       i ? "," : "", peer->id,
		       peer->pid ? text("%d", peer->pid) : "null",
		       known ? json(command) : "null",
		       known ? json(user_name(uid)) : "null");
	}
	printf("%s]\n", server->n_peers ? "\n    " : "");
}

static void json_server(const struct server *server)
{
	printf("  {\n");
	printf("    \"socket\": %s,\n", json(server->socket));
	printf("    \"name\": %s,\n", server->name ? json(server->name) : "null");
	printf("    \"listens\": %s,\n", server->listens ? "true" : "false");
	printf("    \"pid\": %s,\n", server->runs ? text("%d", server->pid) : "null");
	printf("    \"memory\": %s,\n", server->runs ? json(server->memory) : "null");
	printf("    \"size\": %s,\n", server->runs ?
	       text("%" PRIu64, server->size) : "null");
	printf("    \"vectors\": %s,\n", server->runs ?
	       text("%u", server->vectors) : "null");
	printf("    \"owner\": %s,\n", json(user_name(server->st.st_uid)));
	printf("    \"group\": %s,\n", json(group_name(server->st.st_gid)));
	printf("    \"mode\": \"%04o\",\n", server->st.st_mode & 07777);
	json_peers(server);
	printf("  }");
}

static void json_devices(const struct device *devices, int n)
{
	printf("[\n");
	for (int i = 0; i < n; i++) {
		json_device(&devices[i]);
		printf(i < n - 1 ? ",\n" : "\n");
	}
	printf("]\n");
}

static void json_servers(const struct server *servers, int n)
{
	printf("[\n");
	for (int i = 0; i < n; i++) {
		json_server(&servers[i]);
		printf(i < n - 1 ? ",\n" : "\n");
	}
	printf("]\n");
}

static void print_devices(const struct device *devices, int n, int *hidden)
{
	if (n)
		printf("%s\n", column(BOLD, 0, text("%-12s %-7s %-9s %-9s %-13s %-14s %-4s %-4s %s",
			"NODE", "TYPE", "SIZE", "HUGE", "PCI", "OWNER:GROUP", "MODE",
			"NUMA", "NAME")));
	for (int i = 0; i < n; i++)
		print_device(&devices[i], hidden);
}

int cmd_list(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "servers", no_argument, NULL, 's' },
		{ }
	};
	static struct server servers[MAX_SERVERS];
	struct device devices[MAX_DEVICES];
	bool as_json = false, only_servers = false;
	int c, n, n_servers, hidden = 0;

	while ((c = option_next(argc, argv, options)) != -1) {
		if (c == 'j')
			as_json = true;
		else
			only_servers = true;
	}
	if (optind < argc)
		misuse("list: unexpected argument '%s'", argv[optind]);

	n = only_servers ? 0 : devices_find(devices, MAX_DEVICES);
	n_servers = servers_find(servers);
	if (as_json && only_servers)
		json_servers(servers, n_servers);
	else if (as_json)
		json_devices(devices, n);
	/* No server is no error, no device is. */
	if (!n && !only_servers && (as_json || !n_servers))
		fail("there is no kvmfr device; %s", module_loaded() ?
		     "'kvmfrctl doctor' tells what is missing" :
		     device_remedy());
	if (as_json)
		return 0;

	print_devices(devices, n, &hidden);
	print_servers(servers, n_servers);
	if (hidden)
		warn("list: %d processes of other users were not looked into: run as root to see all",
		     hidden);
	return 0;
}
