// SPDX-License-Identifier: GPL-2.0
/* The devices, as sysfs and /dev show them. */
#include "kvmfrctl.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum node_state node_look(const char *node, dev_t number, struct stat *st)
{
	if (stat(node, st))
		return NODE_MISSING;
	if (S_ISREG(st->st_mode))
		return NODE_REGULAR;
	if (!S_ISCHR(st->st_mode) || st->st_rdev != number)
		return NODE_FOREIGN;
	return NODE_OK;
}

/* The last part of what a symbolic link points to, "" if there is no link. */
static const char *link_name(const char *link)
{
	char target[4096];
	ssize_t n = readlink(link, target, sizeof(target) - 1);

	if (n < 0)
		return "";
	target[n] = 0;
	return text("%s", strrchr(target, '/') ? strrchr(target, '/') + 1 :
						 target);
}

/* The link in BY_NAME that points to the device, or NULL. */
static const char *device_link(const char *name)
{
	DIR *dir = opendir(path(BY_NAME));
	const char *found = NULL;
	struct dirent *entry;

	while (dir && !found && (entry = readdir(dir)))
		if (!strcmp(link_name(path(BY_NAME "%s", entry->d_name)), name))
			found = text("%s", entry->d_name);
	if (dir)
		closedir(dir);
	return found;
}

/* False if the device went away while it was looked at. */
static bool device_read(struct device *dev, const char *name)
{
	const char *sys = path("/sys/class/kvmfr/%s", name);
	unsigned int major, minor;
	uint64_t numa;
	char *s;

	memset(dev, 0, sizeof(*dev));
	dev->name = text("%s", name);

	s = file_line(text("%s/dev", sys));
	if (!s || sscanf(s, "%u:%u", &major, &minor) != 2)
		return false;
	dev->number = makedev(major, minor);

	s = file_line(text("%s/type", sys));
	dev->type = s ? s : "unknown";
	dev->pci = strcmp(dev->type, "pci") ? "" :
		   link_name(text("%s/device", sys));

	file_number(text("%s/size", sys), &dev->size);
	dev->huge_known = file_number(text("%s/huge_bytes", sys),
				      &dev->huge_bytes);
	dev->numa = file_number(text("%s/node", sys), &numa) ? (int)numa : -1;

	dev->link = device_link(name);
	dev->node = path("/dev/%s", name);
	dev->state = node_look(dev->node, dev->number, &dev->st);
	return true;
}

static int device_compare(const void *a, const void *b)
{
	return strverscmp(((const struct device *)a)->name,
			  ((const struct device *)b)->name);
}

int devices_find(struct device *devices, int max)
{
	DIR *dir = opendir(path("/sys/class/kvmfr"));
	struct dirent *entry;
	int n = 0;

	if (!dir)
		return 0;
	while (n < max && (entry = readdir(dir)))
		if (*entry->d_name != '.' &&
		    device_read(&devices[n], entry->d_name))
			n++;
	closedir(dir);

	qsort(devices, n, sizeof(*devices), device_compare);
	return n;
}

uint64_t huge_page_size(void)
{
	uint64_t size = 0;

	file_number(path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"),
		    &size);
	return size;
}

/*
 * QEMU maps a file that is not on hugetlbfs at a multiple of 4 KiB, and in
 * practice one page below a multiple of 2 MiB, where no huge page fits.
 */
uint64_t device_align(const struct device *dev)
{
	uint64_t huge = huge_page_size();

	return huge && dev->huge_bytes >= huge ? huge : 0;
}

bool system_is_image(void)
{
	return !access(path("/run/ostree-booted"), F_OK);
}

bool module_loaded(void)
{
	return !access(path("/sys/module/kvmfr"), F_OK);
}

const char *device_remedy(void)
{
	if (!module_loaded())
		return "the module is not loaded: 'modprobe kvmfr', and 'kvmfrctl doctor' if that fails";
	return "see 'kvmfrctl list' for those there are, 'kvmfrctl doctor' for what is missing";
}

bool device_find(const char *name, struct device *dev)
{
	static struct device devices[MAX_DEVICES];
	int n = devices_find(devices, MAX_DEVICES);

	if (!strncmp(name, BY_NAME, strlen(BY_NAME)))
		name += strlen(BY_NAME);
	else if (!strncmp(name, "/dev/", 5))
		name += 5;
	for (int i = 0; i < n; i++) {
		*dev = devices[i];
		if (!strcmp(dev->name, name) ||
		    (dev->link && !strcmp(dev->link, name)))
			return true;
	}
	return false;
}

void device_named(const char *name, struct device *dev)
{
	if (!device_find(name, dev))
		fail("there is no device '%s'; %s", printable(name), device_remedy());
	if (dev->state == NODE_REGULAR)
		fail("%s: a regular file is in the device's place; 'kvmfrctl doctor' tells how to mend that",
		     dev->node);
	if (dev->state != NODE_OK)
		fail("%s: the device's node is %s; 'modprobe -r kvmfr' and 'modprobe kvmfr' make it again",
		     dev->node,
		     dev->state == NODE_MISSING ? "missing" : "another's");
}
