// SPDX-License-Identifier: GPL-2.0
/* kvmfrctl qemu and libvirt: print how to give a device to a guest. */
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

/* What the command line asks for. */
struct guest {
	struct device dev;
	struct doorbell bell;
	bool ram;		/* the device is all of the guest's RAM */
	bool legacy;		/* in the syntax before JSON */
};

/* The name of a machine's only device. */
static const char *only_device(const char *command)
{
	struct device devices[MAX_DEVICES];
	int n = devices_find(devices, MAX_DEVICES);

	if (!n)
		fail("there is no kvmfr device; %s", device_remedy());
	if (n > 1)
		misuse("%s: there are %d devices; name one", command, n);
	return devices[0].name;
}

/* The options of both commands, and the device, as QEMU can use it. */
static void guest_parse(int argc, char **argv, const struct option *options,
			struct guest *guest)
{
	struct device *dev = &guest->dev;
	uint64_t fits = MIB;
	int c;

	*guest = (struct guest){ };
	while ((c = option_next(argc, argv, options)) != -1) {
		if (c == 'd')
			guest->bell.socket = doorbell_socket(argv[0], optarg);
		else if (c == 'v')
			guest->bell.vectors = doorbell_vectors(argv[0], optarg);
		else if (c == 'r')
			guest->ram = true;
		else
			guest->legacy = true;
	}
	if (guest->bell.vectors && !guest->bell.socket)
		misuse("%s: --vectors goes with --doorbell", argv[0]);
	if (!guest->bell.vectors)
		guest->bell.vectors = 1;
	if (argc - optind != 1 && !(guest->ram && argc == optind))
		misuse("%s: wants one device, for example 'kvmfrctl %s /dev/kvmfr0'",
		       argv[0], argv[0]);
	device_named(argc == optind ? only_device(argv[0]) : argv[optind], dev);
	if (guest->ram)
		return;

	/* The guest sees the memory as a PCI BAR. */
	while (fits < dev->size)
		fits *= 2;
	if (fits != dev->size)
		fail("%s: it has %s, but an IVSHMEM device has a power of two; load the module with static_size_mb=%" PRIu64,
		     dev->node, mebibytes(dev->size), fits / (uint64_t)MIB);
}

/* The device's link, which stays the same when devices are renumbered, or its node. */
static const char *mem_path(const struct device *dev)
{
	return dev->link ? text(BY_NAME "%s", dev->link) :
			   text("/dev/%s", dev->name);
}

static char *object(const struct device *dev, const char *id)
{
	uint64_t align = device_align(dev);

	return text("memory-backend-file,id=%s,mem-path=%s,size=%" PRIu64 ",share=on%s",
		    id, mem_path(dev), dev->size,
		    align ? text(",align=%s", qemu_size(align)) : "");
}

static char *object_json(const struct device *dev, const char *id)
{
	uint64_t align = device_align(dev);

	return text("{\"qom-type\":\"memory-backend-file\",\"id\":\"%s\",\"mem-path\":\"%s\",\"size\":%" PRIu64 ",\"share\":true%s}",
		    id, mem_path(dev), dev->size,
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
		{ "ram", no_argument, NULL, 'r' },
		{ }
	};
	struct guest guest;
	struct device *dev = &guest.dev;

	guest_parse(argc, argv, options, &guest);
	if (guest.ram)
		/* QEMU's own name for a PC's RAM, which other programs look for */
		printf("-m %s -object %s -machine memory-backend=pc.ram",
		       qemu_size(dev->size), object(dev, "pc.ram"));
	else
		printf("-object %s -device %s", object(dev, dev->name), ivshmem(dev));
	if (guest.bell.socket)
		printf(" -chardev %s -device %s", doorbell_chardev(dev, &guest.bell),
		       doorbell_device(dev, &guest.bell));
	printf("\n");
	return 0;
}

static void print_argument(const char *value)
{
	printf("  <qemu:arg value='%s'/>\n", value);
}

/* libvirt adds a "pc.ram" of its own, which QEMU ignores then. */
static void print_ram(const struct guest *guest)
{
	print_argument("-machine");
	print_argument(text("memory-backend=%s", guest->dev.name));
}

static void print_ivshmem(const struct guest *guest)
{
	const struct device *dev = &guest->dev;

	print_argument("-device");
	print_argument(guest->legacy ? ivshmem(dev) :
		text("{\"driver\":\"ivshmem-plain\",\"id\":\"%s-ivshmem\",\"memdev\":\"%s\"}",
		     dev->name, dev->name));
}

int cmd_libvirt(int argc, char **argv)
{
	static const struct option options[] = {
		{ "legacy", no_argument, NULL, 'l' },
		{ "doorbell", required_argument, NULL, 'd' },
		{ "vectors", required_argument, NULL, 'v' },
		{ "ram", no_argument, NULL, 'r' },
		{ }
	};
	struct guest guest;
	struct device *dev = &guest.dev;

	guest_parse(argc, argv, options, &guest);
	if (guest.ram)
		printf("<memory unit='b'>%" PRIu64 "</memory>\n", dev->size);

	/* With the namespace here, <domain> need not declare it. */
	printf("<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n");
	print_argument("-object");
	print_argument(guest.legacy ? object(dev, dev->name) : object_json(dev, dev->name));
	if (guest.ram)
		print_ram(&guest);
	else
		print_ivshmem(&guest);
	if (guest.bell.socket) {
		print_argument("-chardev");
		print_argument(doorbell_chardev(dev, &guest.bell));
		print_argument("-device");
		print_argument(guest.legacy ? doorbell_device(dev, &guest.bell) :
			       doorbell_device_json(dev, &guest.bell));
	}
	printf("</qemu:commandline>\n");
	return 0;
}
