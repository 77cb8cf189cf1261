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
#include <unistd.h>

/* The files of one process whose mappings are the device's. */
struct files {
	struct { dev_t fs; ino_t inode; } dmabuf[64];
	int n;
};

static void add_dmabuf(const struct device *dev, pid_t pid, const char *fd,
		       const struct stat *st, struct files *files,
		       struct user *user)
{
	char *info = file_read(path("/proc/%d/fdinfo/%s", pid, fd), NULL);
	const char *size = info ? strstr(info, "size:") : NULL;
	const char *name = info ? strstr(info, "exp_name:") : NULL;
	char exporter[32];

	if (!name || sscanf(name, "exp_name: %31s", exporter) != 1 ||
	    strcmp(exporter, dev->name))
		return;
	for (int i = 0; i < files->n; i++)
		if (files->dmabuf[i].inode == st->st_ino)
			return;		/* a second descriptor of it */
	user->dmabufs += size ? strtoull(size + strlen("size:"), NULL, 10) : 0;
	if (files->n < 64) {
		files->dmabuf[files->n].fs = st->st_dev;
		files->dmabuf[files->n++].inode = st->st_ino;
	}
}

/* False if the process may not be looked into. */
static bool look_for_descriptors(const struct device *dev, pid_t pid,
				 struct files *files, struct user *user)
{
	DIR *dir = opendir(path("/proc/%d/fd", pid));
	const char *dmabuf = path("/dmabuf:");
	struct dirent *entry;
	char target[4096];
	struct stat st;
	ssize_t n;

	if (!dir)
		return errno == ENOENT;
	while ((entry = readdir(dir))) {
		n = readlinkat(dirfd(dir), entry->d_name, target,
			       sizeof(target) - 1);
		if (n < 0 || fstatat(dirfd(dir), entry->d_name, &st, 0))
			continue;
		target[n] = 0;
		if (S_ISCHR(st.st_mode))
			user->open |= st.st_rdev == dev->number;
		else if (!strncmp(target, dmabuf, strlen(dmabuf)))
			add_dmabuf(dev, pid, entry->d_name, &st, files, user);
	}
	closedir(dir);
	return true;
}

/*
 * A mapping of the device is one of the node's file: the node in /dev, or one
 * of that name in a container. A regular file in the node's place has the name
 * too, but is not the device.
 */
static bool is_mapping(const struct device *dev, const struct files *files,
		       dev_t fs, ino_t inode, const char *line)
{
	const char *slash = strrchr(line, '/');

	for (int i = 0; i < files->n; i++)
		if (inode == files->dmabuf[i].inode &&
		    fs == files->dmabuf[i].fs)
			return true;
	if (dev->state != NODE_MISSING && inode == dev->st.st_ino &&
	    fs == dev->st.st_dev)
		return dev->state == NODE_OK;
	return slash && !strcmp(slash + 1, dev->name);
}

/*
 * Goes through maps or smaps, which has the lines of maps with what is known
 * of each mapping below it. False if the process may not be looked into.
 */
static bool look_for_mappings(const struct device *dev, const char *file,
			      const struct files *files, struct user *user)
{
	char *line = file_read(path("/proc/%d/%s", user->pid, file), NULL);
	uint64_t start, end, inode, kib;
	unsigned int major, minor;
	bool inside = false;
	char *next;

	if (!line)
		return errno == ENOENT || errno == ESRCH;

	user->mapped = 0;
	for (; line && *line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %*x %x:%x %" SCNu64,
			   &start, &end, &major, &minor, &inode) == 5) {
			inside = is_mapping(dev, files, makedev(major, minor),
					    inode, line);
			if (inside)
				user->mapped += end - start;
		} else if (inside && sscanf(line, "FilePmdMapped: %" SCNu64,
					    &kib) == 1) {
			user->huge += kib * 1024;
			/* The kernel counts no entries for a device's pages. */
			user->huge_known = !*dev->pci;
		}
	}
	return true;
}

static bool look_into(const struct device *dev, struct user *user)
{
	struct files files = { .n = 0 };

	if (!look_for_descriptors(dev, user->pid, &files, user) ||
	    !look_for_mappings(dev, "maps", &files, user))
		return false;
	/* It looks at every page table entry: only where it is needed. */
	return !user->mapped ||
	       look_for_mappings(dev, "smaps", &files, user);
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
		if (!look_into(dev, &user) && has_memory(user.pid))
			++*hidden;
		if (!user.open && !user.mapped && !user.dmabufs)
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
