// SPDX-License-Identifier: GPL-2.0
/*
 * kvmfrctl hook: run by libvirt's hook script. Makes a device in BY_NAME that a guest
 * has as memory before the guest starts, and removes it when the guest has ended.
 */
#include "doctor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The NUMA node of <numatune>, if it names a single one, else -1. */
static int domain_node(const struct domain *domain)
{
	static const char key[] = "nodeset=";
	const char *p = strstr(domain->xml, "<numatune>"), *end;
	char *rest;
	long node;

	end = p ? strstr(p, "</numatune>") : NULL;
	p = end ? strstr(p, "<memory ") : NULL;
	p = p ? strstr(p, key) : NULL;
	if (!p || p > end)
		return -1;
	node = strtol(p + strlen(key) + 1, &rest, 10);
	return *rest == '\'' || *rest == '"' ? node : -1;
}

static void prepare(const struct domain *domain, const char *name,
		    const char *argument)
{
	uint64_t size = domain_size(argument);
	struct device dev;

	if (!size || size % MIB)
		fail("domain %s: %s%s needs its size, in whole MiB: %s",
		     domain->name, BY_NAME, name, argument);
	if (!device_find(name, &dev))
		device_create(size / MIB, domain_node(domain), name);
	else if (dev.size != size)
		fail("domain %s: %s%s has %s already, not %s; 'kvmfrctl remove %s' takes it away",
		     domain->name, BY_NAME, name, mebibytes(dev.size),
		     mebibytes(size), name);
}

/* libvirt also calls this after prepare() has refused a device of another size. */
static void release(const char *name, const char *argument)
{
	struct device dev;

	if (device_find(name, &dev) && dev.size == domain_size(argument))
		device_remove(name);
}

int cmd_hook(int argc, char **argv)
{
	static const struct option options[] = { { } };
	struct domain domain = { };
	const char *name, *step;
	char *xml = NULL;
	size_t room = 0;

	option_next(argc, argv, options);
	if (argc - optind < 3)
		misuse("hook: wants what libvirt gives to its hook script");
	domain.name = argv[optind];
	step = text("%s %s", argv[optind + 1], argv[optind + 2]);
	if (strcmp(step, "prepare begin") && strcmp(step, "release end"))
		return 0;

	if (getdelim(&xml, &room, 0, stdin) < 0)
		fail("hook: no XML on standard input");
	domain.xml = xml;
	domain_parse(&domain);
	for (int i = 0; i < domain.n_args; i++) {
		name = domain_memory(domain.args[i]);
		if (!name || strncmp(name, BY_NAME, strlen(BY_NAME)))
			continue;
		name += strlen(BY_NAME);
		if (*step == 'p')
			prepare(&domain, name, domain.args[i]);
		else
			release(name, domain.args[i]);
	}
	return 0;
}
