// SPDX-License-Identifier: GPL-2.0
/* kvmfrctl qemu and libvirt: how to give a device to a guest. */
#include "kvmfrctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A doorbell device beside the plain one; socket is NULL without --doorbell. */
struct doorbell {
	const char *socket;
	unsigned long vectors;
};

/* What --doorbell names: a path, or an instance of kvmfrd@.service. */
static const char *doorbell_socket(const char *command, const char *name)
{
	static const char plain[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
		"0123456789@%+:./-_";

	if (!*name || name[strspn(name, plain)])
		misuse("%s: --doorbell wants the name or the socket's path of a kvmfrd, without blanks, commas and quotes",
		       command);
	return strchr(name, '/') ? name : text("/run/kvmfr/%s.sock", name);
}

static unsigned long doorbell_vectors(const char *command, const char *value)
{
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(value, &end, 10);
	if (errno || *end || *value < '0' || *value > '9' || !n || n > 64)
		misuse("%s: --vectors wants a number from 1 to 64, as kvmfrd has it",
		       command);
	return n;
}

static char *doorbell_chardev(const struct device *dev,
			      const struct doorbell *bell)
{
	return text("socket,id=%s-server,path=%s", dev->name, bell->socket);
}

static char *doorbell_device(const struct device *dev,
			     const struct doorbell *bell)
{
	return text("ivshmem-doorbell,id=%s-doorbell,chardev=%s-server,vectors=%lu",
		    dev->name, dev->name, bell->vectors);
}

static char *doorbell_device_json(const struct device *dev,
				  const struct doorbell *bell)
{
	return text("{\"driver\":\"ivshmem-doorbell\",\"id\":\"%s-doorbell\",\"chardev\":\"%s-server\",\"vectors\":%lu}",
		    dev->name, dev->name, bell->vectors);
}

/* The options of both commands; true: --legacy was among them. */
static bool guest_options(int argc, char **argv, const struct option *options,
			  struct doorbell *bell)
{
	bool legacy = false;
	int c;

	*bell = (struct doorbell){ .vectors = 1 };
	while ((c = option_next(argc, argv, options)) != -1) {
		if (c == 'd')
			bell->socket = doorbell_socket(argv[0], optarg);
		else if (c == 'v')
			bell->vectors = doorbell_vectors(argv[0], optarg);
		else
			legacy = true;
	}
	return legacy;
}

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
	static const struct option options[] = {
		{ "doorbell", required_argument, NULL, 'd' },
		{ "vectors", required_argument, NULL, 'v' },
		{ }
	};
	struct doorbell bell;
	struct device dev;

	guest_options(argc, argv, options, &bell);
	guest_device(argc, argv, &dev);
	printf("-object %s -device %s", object(&dev), ivshmem(&dev));
	if (bell.socket)
		printf(" -chardev %s -device %s", doorbell_chardev(&dev, &bell),
		       doorbell_device(&dev, &bell));
	printf("\n");
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
		{ "doorbell", required_argument, NULL, 'd' },
		{ "vectors", required_argument, NULL, 'v' },
		{ }
	};
	struct doorbell bell;
	struct device dev;
	bool legacy;

	legacy = guest_options(argc, argv, options, &bell);
	guest_device(argc, argv, &dev);

	/* The namespace stands here, so that it need not be in <domain>. */
	printf("<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n");
	print_argument("-object");
	print_argument(legacy ? object(&dev) : object_json(&dev));
	print_argument("-device");
	print_argument(legacy ? ivshmem(&dev) :
		text("{\"driver\":\"ivshmem-plain\",\"id\":\"%s-ivshmem\",\"memdev\":\"%s\"}",
		     dev.name, dev.name));
	if (bell.socket) {
		print_argument("-chardev");
		print_argument(doorbell_chardev(&dev, &bell));
		print_argument("-device");
		print_argument(legacy ? doorbell_device(&dev, &bell) :
			       doorbell_device_json(&dev, &bell));
	}
	printf("</qemu:commandline>\n");
	return 0;
}
