// SPDX-License-Identifier: GPL-2.0
/* kvmfrctl without a command: how this machine stands, in ten lines. */
#include "doctor.h"

#include <stdio.h>
#include <unistd.h>

#define MAX_SHOWN	3
#define LABEL		12

static void line(enum colour colour, const char *label, const char *what)
{
	printf("%s ", column(colour, LABEL, label));
	print_below(LABEL + 1, what);
}

static const char *module_state(void)
{
	const char *version = file_line(path("/sys/module/kvmfr/version"));

	if (!module_loaded())
		return "not loaded";
	return text("loaded, version %s", version ? version : "unknown");
}

/* "qemu-system-x86 (1234) and 2 others"; NULL for nobody. */
static const char *used_by(const struct device *dev)
{
	struct user *users;
	int hidden, n = users_find(dev, &users, &hidden);

	if (!n)
		return NULL;
	return text("%s (%d)%s", users[0].command, users[0].pid,
		    n == 1 ? "" : text(" and %d more", n - 1));
}

static void print_device(const struct device *dev)
{
	const char *by = used_by(dev);

	line(BOLD, dev->node, text("%s %s%s%s", mebibytes(dev->size),
				   *dev->pci ? "of IVSHMEM device " :
					       "of this machine's memory",
				   dev->pci,
				   by ? text(", used by %s", by) : ", unused"));
}

static void print_devices(void)
{
	const char *source, *size;

	for (int i = 0; i < n_devices && i < MAX_SHOWN; i++)
		print_device(&devices[i]);
	if (n_devices > MAX_SHOWN)
		line(BOLD, "", text("and %d more: kvmfrctl list",
				    n_devices - MAX_SHOWN));
	if (n_devices)
		return;
	size = size_configured(&source);
	line(BOLD, "devices", !size ? "none, and no size is set" :
	     text("none; %s has static_size_mb=%s", source, size));
}

static const char *as_root(const char *command)
{
	return text("%s%s", geteuid() ? "sudo " : "", command);
}

static const char *next_step(const struct finding *wrong)
{
	const char *source;

	if (wrong->command)
		return text("%s: it asks before each change%s",
			    as_root("kvmfrctl doctor --fix"),
			    n_devices || size_configured(&source) ? "" :
			    "; it takes 128 MiB for a device, kvmfrctl size tells how much a screen needs");
	if (wrong->text)
		return "what the line above says; kvmfrctl doctor has the whole list";
	for (int i = 0; i < n_devices; i++)
		if (used_by(&devices[i]))
			return "nothing, it is in use; kvmfrctl list shows by whom";
	if (n_devices && *devices[0].pci)
		return text("looking-glass-client -f %s, or another program that opens it",
			    devices[0].node);
	return "kvmfrctl libvirt /dev/kvmfr0, or kvmfrctl qemu /dev/kvmfr0: they print what gives it to a guest";
}

int summary(void)
{
	struct diagnosis d;

	diagnose(&d);
	line(BOLD, "kvmfrctl", VERSION);
	line(BOLD, "module", module_state());
	print_devices();
	line(BOLD, "checks", text("%d right, %d wrong%s", d.count[RIGHT],
				  d.count[WRONG], !d.count[UNSEEN] ? "" :
				  text(", %d for root to see", d.count[UNSEEN])));
	if (d.first_wrong.text)
		line(RED, "WRONG", d.first_wrong.text);
	line(GREEN, "next", next_step(&d.first_wrong));
	line(BOLD, "more", "kvmfrctl --help, man kvmfrctl");
	return 0;
}
