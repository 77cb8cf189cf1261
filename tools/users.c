// SPDX-License-Identifier: GPL-2.0
/* Who uses a device, from /proc. */
#include "kvmfrctl.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

/* False if the process may not be looked into. */
static bool look_for_descriptors(const struct device *dev, pid_t pid,
				 struct user *user)
{
	DIR *dir = opendir(path("/proc/%d/fd", pid));
	struct dirent *entry;
	struct stat st;

	if (!dir)
		return errno == ENOENT;
	while (!user->open && (entry = readdir(dir))) {
		if (*entry->d_name == '.' ||
		    fstatat(dirfd(dir), entry->d_name, &st, 0))
			continue;
		user->open = S_ISCHR(st.st_mode) && st.st_rdev == dev->number;
	}
	closedir(dir);
	return true;
}

/*
 * A mapping, of the device or of a DMA-BUF of it, is one of the node's file:
 * the node in /dev, or one of that name in a container. A regular file in the
 * node's place has the name too, but is not the device.
 */
static bool is_mapping(const struct device *dev, dev_t fs, uint64_t inode,
		       const char *line)
{
	const char *slash = strrchr(line, '/');

	if (dev->state != NODE_MISSING && inode == dev->st.st_ino &&
	    fs == dev->st.st_dev)
		return dev->state == NODE_OK;
	return slash && !strcmp(slash + 1, dev->name);
}

static bool look_for_mappings(const struct device *dev, pid_t pid,
			      struct user *user)
{
	/* smaps looks at every page table entry: only where it is needed. */
	static const char * const files[] = { "maps", "smaps" };
	unsigned int major, minor;
	uint64_t start, end, inode, kib;
	char *line, *next;

	for (int i = 0; i < 2; i++) {
		bool inside = false;

		line = file_read(path("/proc/%d/%s", pid, files[i]), NULL);
		if (!line)
			return errno == ENOENT || errno == ESRCH;

		user->mapped = 0;
		for (; line && *line; line = next) {
			next = strchr(line, '\n');
			if (next)
				*next++ = 0;
			if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %*x %x:%x %" SCNu64,
				   &start, &end, &major, &minor, &inode) == 5) {
				inside = is_mapping(dev, makedev(major, minor),
						    inode, line);
				if (inside)
					user->mapped += end - start;
			} else if (inside && sscanf(line, "FilePmdMapped: %" SCNu64, &kib) == 1) {
				user->huge += kib * 1024;
				user->huge_known = true;
			}
		}
		if (!user->mapped)
			return true;
	}
	/* The kernel does not count entries that map a device's own memory. */
	if (*dev->pci)
		user->huge_known = false;
	return true;
}

/* Kernel threads and what is left of dead processes have no arguments. */
static bool has_memory(pid_t pid)
{
	char *arguments = file_line(path("/proc/%d/cmdline", pid));

	return arguments && *arguments;
}

int users_find(const struct device *dev, struct user **users, int *hidden)
{
	DIR *dir = opendir(path("/proc"));
	struct dirent *entry;
	int n = 0;

	*users = NULL;
	*hidden = 0;
	if (!dir)
		fail("%s: %s", path("/proc"), strerror(errno));

	while ((entry = readdir(dir))) {
		struct user user = { .pid = atoi(entry->d_name) };
		struct stat st;
		char *command;

		if (!isdigit(*entry->d_name))
			continue;
		if ((!look_for_descriptors(dev, user.pid, &user) ||
		     !look_for_mappings(dev, user.pid, &user)) &&
		    has_memory(user.pid))
			++*hidden;
		if (!user.open && !user.mapped)
			continue;

		if (!stat(path("/proc/%d", user.pid), &st))
			user.uid = st.st_uid;
		command = file_line(path("/proc/%d/comm", user.pid));
		user.command = command ? command : "?";
		*users = realloc(*users, (n + 1) * sizeof(user));
		if (!*users)
			fail("out of memory");
		(*users)[n++] = user;
	}
	closedir(dir);
	return n;
}
