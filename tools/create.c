// SPDX-License-Identifier: GPL-2.0
/*
 * kvmfrctl create, remove: devices come and go while the module is loaded.
 *
 * What is written to static_size_mb is what there shall be, so both write the
 * whole list. Devices whose size is in it stay.
 */
#include "kvmfrctl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* Opens the parameter and locks out another kvmfrctl. */
static int parameter_open(void)
{
	const char *name = path("/sys/module/kvmfr/parameters/static_size_mb");
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

/* The kernel takes a list in one write, all of it or nothing. */
static int parameter_write(int fd, const char *list)
{
	const char *line = text("%s\n", list);

	if (write(fd, line, strlen(line)) == (ssize_t)strlen(line))
		return 0;
	return errno ?: EIO;
}

/* The sizes of the static devices in MiB, but not that of @without. */
static char *sizes(const struct device *devices, int n, const char *without)
{
	char *list = text("%s", "");

	for (int i = 0; i < n; i++)
		if (!strcmp(devices[i].type, "static") &&
		    (!without || strcmp(devices[i].name, without)))
			list = text("%s%s%llu", list, *list ? "," : "",
				    devices[i].size / MIB);
	return list;
}

/* "512", "512M", "8G": MiB. */
static uint64_t size_in_mib(const char *s)
{
	uint64_t mib;
	char *end;

	errno = 0;
	mib = strtoull(s, &end, 10);
	if (*end == 'G' && __builtin_mul_overflow(mib, 1024, &mib))
		errno = ERANGE;
	if (*end == 'G' || *end == 'M')
		end++;
	if (*s < '1' || *s > '9' || *end || errno)
		misuse("create: '%s' is not a size, for example 512M or 8G", s);
	return mib;
}

int cmd_create(int argc, char **argv)
{
	static const struct option options[] = { { } };
	struct device before[MAX_DEVICES], after[MAX_DEVICES];
	int fd, err, n, m, k;
	uint64_t mib;
	char *list;

	option_next(argc, argv, options);
	if (argc - optind != 1)
		misuse("create: wants one size, for example 'kvmfrctl create 8G'");
	mib = size_in_mib(argv[optind]);
	fd = parameter_open();
	n = devices_find(before, MAX_DEVICES);
	list = sizes(before, n, NULL);
	err = parameter_write(fd, text("%s%s%" PRIu64, list, *list ? "," : "", mib));
	if (err)
		fail("no device of %" PRIu64 " MiB: %s; 'dmesg' says why", mib,
		     strerror(err));

	m = devices_find(after, MAX_DEVICES);
	for (int i = 0; i < m; i++) {
		for (k = 0; k < n && strcmp(before[k].name, after[i].name); k++)
			;
		if (k == n)
			printf("%s\n", after[i].node);
	}
	return 0;
}

int cmd_remove(int argc, char **argv)
{
	static const struct option options[] = { { } };
	struct device devices[MAX_DEVICES], device;
	int fd, n, err;

	option_next(argc, argv, options);
	if (argc - optind != 1)
		misuse("remove: wants one device, for example 'kvmfrctl remove kvmfr1'");
	fd = parameter_open();
	device_named(argv[optind], &device);
	if (strcmp(device.type, "static"))
		fail("%s: an IVSHMEM device on PCI goes when it is unplugged", device.name);

	/* Of several with the same size the kernel takes one that nobody uses. */
	n = devices_find(devices, MAX_DEVICES);
	for (int i = 0; i < n; i++)
		if (strcmp(devices[i].name, device.name) && devices[i].size == device.size &&
		    !strcmp(devices[i].type, "static") &&
		    open(devices[i].node, O_RDONLY | O_CLOEXEC) < 0)
			fail("%s: %s; it has to be held while %s is removed",
			     devices[i].node, strerror(errno), device.name);
	err = parameter_write(fd, sizes(devices, n, device.name));
	if (err == EBUSY)
		fail("%s: in use; 'kvmfrctl list' says by whom. Nothing was changed",
		     device.name);
	if (err)
		fail("%s: %s; 'dmesg' says why", device.name, strerror(err));
	return 0;
}
