// SPDX-License-Identifier: GPL-2.0
/* kvmfrctl clear: fills a device with zeros, so that no data is left in it. */
#include "kvmfrctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void refuse_if_mapped(const struct device *dev)
{
	struct user *users;
	int hidden, n = users_find(dev, &users, &hidden);

	for (int i = 0; i < n; i++)
		if (users[i].mapped)
			fail("%s: %s (%d) has it mapped; end that first, or --force",
			     dev->node, users[i].command, users[i].pid);
	if (hidden)
		fail("%s: %d processes of other users may have it mapped; run as root to look, or --force",
		     dev->node, hidden);
}

int cmd_clear(int argc, char **argv)
{
	static const struct option options[] = {
		{ "force", no_argument, NULL, 'f' },
		{ }
	};
	struct device dev;
	bool force = false;
	void *memory;
	int fd;

	while (option_next(argc, argv, options) != -1)
		force = true;
	if (argc - optind != 1)
		misuse("clear: wants one device, for example 'kvmfrctl clear /dev/kvmfr0'");
	device_named(argv[optind], &dev);

	fd = open(dev.node, O_RDWR | O_CLOEXEC);
	if (fd < 0 && errno == EACCES)
		fail("%s: %s; it is for %s:%s, mode %04o: 'usermod -aG %s USER' as root lets a user in after the next login",
		     dev.node, strerror(errno), user_name(dev.st.st_uid),
		     group_name(dev.st.st_gid), dev.st.st_mode & 07777,
		     group_name(dev.st.st_gid));
	if (fd < 0)
		fail("%s: %s", dev.node, strerror(errno));
	if (!force)
		refuse_if_mapped(&dev);

	memory = mmap(NULL, dev.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		fail("%s: cannot map its %s: %s", dev.node, mebibytes(dev.size),
		     strerror(errno));
	memset(memory, 0, dev.size);
	munmap(memory, dev.size);
	close(fd);

	printf("%s: %s cleared\n", dev.node, mebibytes(dev.size));
	return 0;
}
