// SPDX-License-Identifier: GPL-2.0
/* kvmfrctl qemu and libvirt: how to give a device to a guest. */
#include "kvmfrctl.h"

#include <inttypes.h>
#include <stdio.h>

/* The one argument of these commands, as a device that QEMU can use. */
static void guest_device(int argc, char **argv, struct device *dev)
{
	uint64_t fits = MIB;

	if (argc - optind != 1)
		misuse("%s: wants one device, for example 'kvmfrctl %s /dev/kvmfr0'",
		       argv[0], argv[0]);
	device_named(argv[optind], dev);

	/* The guest sees the memory as a PCI BAR. */
	while (fits < dev->size)
		fits *= 2;
	if (fits != dev->size)
		fail("%s: it has %s, but an IVSHMEM device has a power of two; load the module with static_size_mb=%" PRIu64,
		     dev->node, mebibytes(dev->size), fits / (uint64_t)MIB);
}

static char *object(const struct device *dev)
{
	uint64_t align = device_align(dev);

	return text("memory-backend-file,id=%s,mem-path=/dev/%s,size=%" PRIu64 ",share=on%s",
		    dev->name, dev->name, dev->size,
		    align ? text(",align=%s", qemu_size(align)) : "");
}

static char *object_json(const struct device *dev)
{
	uint64_t align = device_align(dev);

	return text("{\"qom-type\":\"memory-backend-file\",\"id\":\"%s\",\"mem-path\":\"/dev/%s\",\"size\":%" PRIu64 ",\"share\":true%s}",
		    dev->name, dev->name, dev->size,
		    align ? text(",\"align\":%" PRIu64, align) : "");
}

static char *ivshmem(const struct device *dev)
{
	return text("ivshmem-plain,id=%s-ivshmem,memdev=%s", dev->name,
		    dev->name);
}

int cmd_qemu(int argc, char **argv)
{
	static const struct option options[] = { { } };
	struct device dev;

	option_next(argc, argv, options);
	guest_device(argc, argv, &dev);
	printf("-object %s -device %s\n", object(&dev), ivshmem(&dev));
	return 0;
}

static void print_argument(const char *value)
{
	printf("  <qemu:arg value='%s'/>\n", value);
}

int cmd_libvirt(int argc, char **argv)
{
	static const struct option options[] = {
		{ "legacy", no_argument, NULL, 'l' },
		{ }
	};
	struct device dev;
	bool legacy = false;

	while (option_next(argc, argv, options) != -1)
		legacy = true;
	guest_device(argc, argv, &dev);

	/* The namespace stands here, so that it need not be in <domain>. */
	printf("<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n");
	print_argument("-object");
	print_argument(legacy ? object(&dev) : object_json(&dev));
	print_argument("-device");
	print_argument(legacy ? ivshmem(&dev) :
		text("{\"driver\":\"ivshmem-plain\",\"id\":\"%s-ivshmem\",\"memdev\":\"%s\"}",
		     dev.name, dev.name));
	printf("</qemu:commandline>\n");
	return 0;
}
