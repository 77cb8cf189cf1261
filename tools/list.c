// SPDX-License-Identifier: GPL-2.0
/* kvmfrctl list: the devices and their users, for people and for programs. */
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

	printf("%-12s %-7s %-9s %-9s %-13s %-14s %s\n", dev->node, dev->type,
	       mebibytes(dev->size),
	       dev->huge_known ? mebibytes(dev->huge_bytes) : "?",
	       *dev->pci ? dev->pci : "-",
	       node ? text("%s:%s", user_name(dev->st.st_uid),
			   group_name(dev->st.st_gid)) : "-",
	       node ? text("%04o", dev->st.st_mode & 07777) : "-");
	if (dev->state != NODE_OK)
		printf("    %s\n", column(RED, 0,
		       text("its node is %s: 'kvmfrctl doctor' tells how to mend that",
			    node_states[dev->state])));
	else
		print_users(dev, hidden);
}

/* A JSON string; what is not ASCII is passed on as it is. */
static char *json(const char *s)
{
	char *out = text("\"");

	for (; *s; s++) {
		unsigned char c = *s;

		if (c == '"' || c == '\\')
			out = text("%s\\%c", out, c);
		else if (c < ' ')
			out = text("%s\\u%04x", out, c);
		else
			out = text("%s%c", out, c);
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
	json_users(dev);
	printf("  }");
}

int cmd_list(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ }
	};
	struct device devices[MAX_DEVICES];
	bool as_json = false;
	int n, hidden = 0;

	while (option_next(argc, argv, options) != -1)
		as_json = true;
	if (optind < argc)
		misuse("list: unexpected argument '%s'",
		       argv[optind]);

	n = devices_find(devices, MAX_DEVICES);
	if (as_json) {
		printf("[\n");
		for (int i = 0; i < n; i++) {
			json_device(&devices[i]);
			printf(i < n - 1 ? ",\n" : "\n");
		}
		printf("]\n");
	}
	if (!n)
		fail("there is no kvmfr device; %s", module_loaded() ?
		     "'kvmfrctl doctor' tells what is missing" :
		     device_remedy());
	if (as_json)
		return 0;

	printf("%s\n", column(BOLD, 0, text("%-12s %-7s %-9s %-9s %-13s %-14s %s",
		"NODE", "TYPE", "SIZE", "HUGE", "PCI", "OWNER:GROUP", "MODE")));
	for (int i = 0; i < n; i++)
		print_device(&devices[i], &hidden);
	if (hidden)
		warn("list: %d processes of other users were not looked into: run as root to see all",
		     hidden);
	return 0;
}
