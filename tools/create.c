// SPDX-License-Identifier: GPL-2.0
/*
 * kvmfrctl create, remove: devices come and go while the module is loaded.
 *
 * A write to static_size_mb replaces the whole list of sizes. The kernel keeps open
 * devices or changes nothing, so all devices that must stay are opened before.
 */
#include "kvmfrctl.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/mempolicy.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PARAMETER	"/sys/module/kvmfr/parameters/static_size_mb"
#define NODES		"/sys/devices/system/node/"
#define MAX_NODES	1024

/* --- the parameter ------------------------------------------------------- */

/* Opens the parameter and locks out another kvmfrctl. */
static int parameter_open(void)
{
	const char *name = path(PARAMETER);
	int fd = open(name, O_WRONLY | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		fail("the module is not loaded; 'modprobe kvmfr' loads it");
	if (fd < 0 && errno == EACCES)
		fail("%s: %s; run as root, with a kvmfr of this version", name,
		     strerror(errno));
	if (fd < 0 || flock(fd, LOCK_EX))
		fail("%s: %s", name, strerror(errno));
	return fd;
}

/* The list of sizes. Its order need not be that of the devices' numbers. */
static char *parameter_read(void)
{
	char *list = file_line(path(PARAMETER));

	if (!list)
		fail("%s: %s", path(PARAMETER), strerror(errno));
	return list;
}

/* Writes the list in one write(), which takes effect or changes nothing. 0 or an errno. */
static int parameter_write(int fd, const char *list)
{
	const char *line = text("%s\n", list);

	if (write(fd, line, strlen(line)) == (ssize_t)strlen(line))
		return 0;
	return errno ?: EIO;
}

/* The list without one entry of this size. */
static char *list_without(const char *list, uint64_t mib)
{
	char *copy = text("%s", list), *left = text("%s", ""), *entry;
	bool gone = false;

	while ((entry = strsep(&copy, ","))) {
		if (!gone && strtoull(entry, NULL, 10) == mib)
			gone = true;
		else
			left = text("%s%s%s", left, *left ? "," : "", entry);
	}
	return left;
}

/* Descriptors that keep devices from being removed. */
struct holds {
	int fds[MAX_DEVICES];
	int n;
};

/* Holds all static devices but @leave. */
static struct holds devices_hold(const struct device *devices, int n,
				 const struct device *leave)
{
	struct holds holds = { };
	int fd;

	for (int i = 0; i < n; i++) {
		if (strcmp(devices[i].type, "static") ||
		    (leave && !strcmp(devices[i].name, leave->name)))
			continue;
		fd = open(devices[i].node, O_RDONLY | O_CLOEXEC);
		/* Of several devices of a size, the kernel removes one that isn't open. */
		if (fd < 0 && leave && devices[i].size == leave->size)
			fail("%s: %s; it has to be held while %s is removed",
			     devices[i].node, strerror(errno), leave->name);
		if (fd >= 0)
			holds.fds[holds.n++] = fd;
	}
	return holds;
}

/* Ends a change: closes the devices, and unlocks the parameter for other kvmfrctls. */
static void change_end(int parameter, const struct holds *holds)
{
	for (int i = 0; i < holds->n; i++)
		close(holds->fds[i]);
	close(parameter);
}

/* Waits until udev has set permissions and made links. Does nothing without udev. */
static void udev_settle(void)
{
	if (!*root)
		program_run("udevadm", (const char *[]){ "udevadm", "settle",
						 "--timeout=120", NULL });
}

/* --- create --------------------------------------------------------------- */

/* "512", "512M", "8G", "1T": MiB. */
static uint64_t size_in_mib(const char *s)
{
	uint64_t mib, unit = 1;
	char *end;

	errno = 0;
	mib = strtoull(s, &end, 10);
	switch (toupper((unsigned char)*end)) {
	case 'T':
		unit *= 1024;
		/* fallthrough */
	case 'G':
		unit *= 1024;
		/* fallthrough */
	case 'M':
		end++;
	}
	if (*s < '1' || *s > '9' || *end || errno ||
	    __builtin_mul_overflow(mib, unit, &mib))
		misuse("create: '%s' is not a size, for example 512M or 8G", s);
	return mib;
}

static int node_number(const char *s)
{
	char *end;
	unsigned long node = strtoul(s, &end, 10);

	if (*s < '0' || *s > '9' || *end || node >= MAX_NODES)
		misuse("create: '%s' is not the number of a NUMA node", s);
	return node;
}

static void node_check(int node)
{
	if (node >= MAX_NODES || access(path(NODES "node%d", node), F_OK))
		fail("there is no NUMA node %d; this machine has %s", node,
		     file_line(path(NODES "online")) ?: "none");
}

/*
 * Makes the kernel allocate memory for this process from this node only. -1 ends
 * that.
 */
static void node_bind(int node)
{
	unsigned long mask[MAX_NODES / 8 / sizeof(long)] = { };

	if (node >= 0)
		mask[node / (8 * sizeof(long))] = 1UL << node % (8 * sizeof(long));
	if (syscall(SYS_set_mempolicy, node < 0 ? MPOL_DEFAULT : MPOL_BIND,
		    node < 0 ? NULL : mask, node < 0 ? 0 : MAX_NODES + 1))
		fail("NUMA node %d: %s", node, strerror(errno));
}

static void name_check(const char *name)
{
	static const char plain[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
		"0123456789-_.";

	if (!isalnum((unsigned char)*name) || name[strspn(name, plain)] ||
	    strlen(name) > 64 || !strncmp(name, "kvmfr", 5))
		misuse("create: '%s' is not a name: up to 64 letters, digits and '-_.', a letter or digit first, and not 'kvmfr'",
		       printable(name));
	if (!access(path(BY_NAME "%s", name), F_OK))
		fail("%s: there is a device of that name", name);
}

/* The value of a key in /proc/meminfo or in a node's meminfo, in bytes. */
static uint64_t meminfo(const char *file, const char *key)
{
	const char *s = file_read(path("%s", file), NULL);

	s = s ? strstr(s, key) : NULL;
	return s ? strtoull(s + strlen(key), NULL, 10) * 1024 : 0;
}

static uint64_t memory_available(void)
{
	return meminfo("/proc/meminfo", "MemAvailable:");
}

static void fail_to_create(uint64_t mib, int node, int err)
{
	const char *file = node < 0 ? "/proc/meminfo" : text(NODES "node%d/meminfo", node);
	uint64_t rest = meminfo(file, node < 0 ? "MemAvailable:" : "MemFree:");

	if (err == ENOMEM)
		fail("no memory for a device of %" PRIu64 " MiB: %s has %" PRIu64 " MiB %s; 'dmesg' says more",
		     mib, node < 0 ? "the machine" : text("NUMA node %d", node),
		     rest / (uint64_t)MIB, node < 0 ? "available" : "free");
	if (err == EBUSY)
		fail("another program has changed the devices at the same moment, so nothing was done; try again");
	fail("no device of %" PRIu64 " MiB: %s; 'dmesg' says why", mib,
	     strerror(err));
}

/*
 * Shows the progress of the allocation. This process waits for the kernel in write(),
 * so a child watches the available memory shrink, until progress_unwatch().
 */
static int progress_watch(uint64_t bytes)
{
	uint64_t begin = memory_available(), now;
	struct pollfd end = { .events = POLLIN };
	int fds[2];

	if (!isatty(STDERR_FILENO) || pipe(fds))
		return -1;
	if (fork()) {
		close(fds[0]);
		return fds[1];
	}
	close(fds[1]);
	end.fd = fds[0];
	while (!poll(&end, 1, 200)) {
		now = memory_available();
		progress("create", now < begin ? begin - now : 0, bytes);
	}
	progress("create", bytes, bytes);
	_exit(0);
}

static void progress_unwatch(int fd)
{
	if (fd < 0)
		return;
	close(fd);
	wait(NULL);
}

/* The device of @after that was not there before. */
static const struct device *device_new(const struct device *before, int n,
				       const struct device *after, int m,
				       uint64_t size)
{
	int k;

	for (int i = 0; i < m; i++) {
		for (k = 0; k < n && strcmp(before[k].name, after[i].name); k++)
			;
		if (k == n && after[i].size == size)
			return &after[i];
	}
	fail("the device was made, but another program has removed it at once");
}

static bool file_write(const char *name, int flags, const char *line)
{
	int fd = open(name, O_WRONLY | O_CLOEXEC | flags, 0644);
	bool done = fd >= 0 && write(fd, line, strlen(line)) == (ssize_t)strlen(line);

	if (fd >= 0)
		close(fd);
	return done;
}

/*
 * Tells udev the name, in a file. 99-kvmfr.rules finds the file by the UUID, which a
 * synthetic uevent can carry; the kernel allows no other word with a "-" there.
 */
static bool device_name(const struct device *dev, const char *name)
{
	const char *uuid = file_line("/proc/sys/kernel/random/uuid");
	const char *file = path("/run/kvmfr-%s", uuid);
	struct stat st;
	bool done;

	done = file_write(file, O_CREAT | O_EXCL, text("KVMFR_NAME=%s\n", name)) &&
	       file_write(path("/sys/class/kvmfr/%s/uevent", dev->name), 0,
			  text("change %s\n", uuid));
	udev_settle();
	unlink(file);
	return done && node_look(path(BY_NAME "%s", name), dev->number, &st) == NODE_OK;
}

const char *device_create(uint64_t mib, int node, const char *name)
{
	struct device before[MAX_DEVICES], after[MAX_DEVICES];
	const struct device *dev;
	const char *list, *wish;
	struct holds holds;
	int fd, watch, err, n, m;

	if (name)
		name_check(name);
	if (node >= 0)
		node_check(node);
	fd = parameter_open();
	n = devices_find(before, MAX_DEVICES);
	holds = devices_hold(before, n, NULL);
	list = parameter_read();
	wish = text("%s%s%" PRIu64, list, *list ? "," : "", mib);
	watch = progress_watch(mib * MIB);
	/* Only around the write: an allocation of our own on a full node would kill us. */
	if (node >= 0)
		node_bind(node);
	err = parameter_write(fd, wish);
	if (node >= 0)
		node_bind(-1);
	progress_unwatch(watch);
	if (err)
		fail_to_create(mib, node, err);

	m = devices_find(after, MAX_DEVICES);
	dev = device_new(before, n, after, m, mib * MIB);
	if (node >= 0 && dev->numa != node) {
		parameter_write(fd, list);
		fail("the kernel has taken memory of NUMA node %d, not of %d; nothing was changed",
		     dev->numa, node);
	}
	if (name && !device_name(dev, name)) {
		parameter_write(fd, list);
		fail("%s: udev has not made the link " BY_NAME "%s, for which 99-kvmfr.rules of this version has to be there; nothing was changed",
		     name, name);
	}
	if (!name)
		udev_settle();
	change_end(fd, &holds);
	return name ? path(BY_NAME "%s", name) : dev->node;
}

int cmd_create(int argc, char **argv)
{
	static const struct option options[] = {
		{ "node", required_argument, NULL, 'n' },
		{ "name", required_argument, NULL, 'a' },
		{ }
	};
	const char *name = NULL, *node = NULL;
	uint64_t mib;
	int c;

	while ((c = option_next(argc, argv, options)) != -1) {
		if (c == 'n')
			node = optarg;
		else
			name = optarg;
	}
	if (argc - optind != 1)
		misuse("create: wants one size, for example 'kvmfrctl create 8G'");
	mib = size_in_mib(argv[optind]);
	puts(device_create(mib, node ? node_number(node) : -1, name));
	return 0;
}

/* --- remove --------------------------------------------------------------- */

/* Who uses the device, for an error message. */
static const char *users_text(const struct device *dev)
{
	struct user *users;
	int hidden, n = users_find(dev, &users, &hidden);

	if (!n)
		return "'kvmfrctl list' says by whom";
	return text("by %s (%d)%s", users[0].command, users[0].pid,
		    n > 1 ? " and others" : "");
}

void device_remove(const char *name)
{
	struct device devices[MAX_DEVICES], device;
	struct holds holds;
	int fd, n, err;

	fd = parameter_open();
	device_named(name, &device);
	if (strcmp(device.type, "static"))
		fail("%s: an IVSHMEM device on PCI goes when it is unplugged", device.name);

	n = devices_find(devices, MAX_DEVICES);
	holds = devices_hold(devices, n, &device);
	err = parameter_write(fd, list_without(parameter_read(), device.size / MIB));
	if (err == EBUSY)
		fail("%s: in use, %s; nothing was changed", device.name,
		     users_text(&device));
	if (err)
		fail("%s: %s; 'dmesg' says why", device.name, strerror(err));
	udev_settle();
	change_end(fd, &holds);
}

int cmd_remove(int argc, char **argv)
{
	static const struct option options[] = { { } };

	option_next(argc, argv, options);
	if (argc - optind != 1)
		misuse("remove: wants one device, for example 'kvmfrctl remove kvmfr1'");
	device_remove(argv[optind]);
	return 0;
}
