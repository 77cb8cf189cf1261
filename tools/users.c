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

/* The DMA-BUFs of the device that a process has, to recognise their mappings. */
struct files {
	struct { dev_t fs; ino_t inode; } dmabuf[64];
	int n;
};

/*
 * How many bytes of whole huge pages a process's mappings contain, at addresses where
 * the kernel can map them as huge pages and at others.
 */
struct room {
	uint64_t fits;
	uint64_t misaligned;
};

/*
 * The kernel can map a huge page as one if the address and the offset in the
 * device are the same modulo its size.
 */
static void add_room(const struct device *dev, uint64_t start, uint64_t end,
		     uint64_t offset, struct room *room)
{
	uint64_t huge = device_align(dev), first, last;

	if (!huge)
		return;
	first = (offset + huge - 1) / huge * huge;
	last = (offset + end - start) / huge * huge;
	if (first >= last)
		return;
	if ((start - offset) % huge)
		room->misaligned += last - first;
	else
		room->fits += last - first;
}

/*
 * Does the process have only small pages where huge ones were possible? A process
 * that has not touched its mapping yet has neither, which is fine.
 */
static bool huge_missed(const struct device *dev, const struct user *user,
			const struct room *room)
{
	uint64_t small = user->mapped - room->fits +
			 dev->size - dev->huge_bytes;

	if (user->huge)
		return false;
	if (!room->fits)
		return room->misaligned;
	/* More than the part of the mapping that cannot be in huge pages. */
	return user->huge_known && user->resident > small;
}

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
 * Is a line of maps a mapping of the device? That is one of its node: the one in /dev,
 * or one of that name in a container. A regular file in the node's place has the
 * name, too, but is not the device.
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
	char *lines = file_read(path("/proc/%d/%s", user->pid, file), NULL), *line;
	uint64_t start, end, offset, inode, kib;
	struct room room = { .fits = 0 };
	unsigned int major, minor;
	bool inside = false;

	if (!lines)
		return errno == ENOENT || errno == ESRCH;

	user->mapped = 0;
	while ((line = strsep(&lines, "\n"))) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %x:%x %" SCNu64,
			   &start, &end, &offset, &major, &minor,
			   &inode) == 6) {
			inside = is_mapping(dev, files, makedev(major, minor),
					    inode, line);
			if (inside) {
				user->mapped += end - start;
				add_room(dev, start, end, offset, &room);
			}
		} else if (inside && sscanf(line, "Rss: %" SCNu64,
					    &kib) == 1) {
			user->resident += kib * 1024;
		} else if (inside && sscanf(line, "FilePmdMapped: %" SCNu64,
					    &kib) == 1) {
			user->huge += kib * 1024;
			/* The kernel counts no entries for a device's pages. */
			user->huge_known = !*dev->pci;
		}
	}
	user->huge_missed = huge_missed(dev, user, &room);
	return true;
}

static bool look_into(const struct device *dev, struct user *user)
{
	struct files files = { .n = 0 };

	if (!look_for_descriptors(dev, user->pid, &files, user) ||
	    !look_for_mappings(dev, "maps", &files, user))
		return false;
	/* smaps walks every page table entry, so it is read only where needed. */
	return !user->mapped ||
	       look_for_mappings(dev, "smaps", &files, user);
}

/* False for kernel threads and zombies, which have no arguments. */
static bool has_memory(pid_t pid)
{
	char *arguments = file_line(path("/proc/%d/cmdline", pid));

	return arguments && *arguments;
}

bool process_look(pid_t pid, const char **command, uid_t *uid)
{
	const char *name = file_line(path("/proc/%d/comm", pid));
	struct stat st;

	if (!name || stat(path("/proc/%d", pid), &st))
		return false;
	*command = printable(name);	/* a process can call itself anything */
	*uid = st.st_uid;
	return true;
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

		/* The name comes first: a process that has ended no longer has one. */
		if (!isdigit(*entry->d_name) ||
		    !process_look(user.pid, &user.command, &user.uid))
			continue;
		if (!look_into(dev, &user) && has_memory(user.pid))
			++*hidden;
		if (!user.open && !user.mapped && !user.dmabufs)
			continue;

		*users = realloc(*users, (n + 1) * sizeof(user));
		if (!*users)
			fail("out of memory");
		(*users)[n++] = user;
	}
	closedir(dir);
	return n;
}
