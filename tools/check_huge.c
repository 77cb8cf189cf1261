// SPDX-License-Identifier: GPL-2.0
/* doctor: do the devices have huge pages, and do the processes get them? */
#include "doctor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void check_huge(struct report *r)
{
	uint64_t huge = huge_page_size();

	if (!huge) {
		elsewhere(r, "this kernel maps no huge pages");
		return;
	}
	for (int i = 0; i < n_devices; i++) {
		struct device *dev = &devices[i];
		uint64_t want = dev->size - dev->size % huge;
		struct finding *finding;

		if (!dev->huge_known || *dev->pci || !want)
			continue;
		if (dev->huge_bytes >= want) {
			right(r, "%s: all of it is in huge pages", dev->node);
			continue;
		}
		finding = wrong(r, "%s: only %s of %s are in huge pages, so it is slower; memory was fragmented when it was made, which is least likely at boot",
				dev->node, mebibytes(dev->huge_bytes),
				mebibytes(dev->size));
		mend(finding, "echo 1 > /proc/sys/vm/compact_memory && kvmfrctl remove %s && kvmfrctl create %" PRIu64 "%s",
		     dev->name, dev->size / (uint64_t)MIB, dev->link ?
		     text(" --name %s", quoted(dev->link)) : "");
	}
	if (!r->n)
		elsewhere(r, "no device is made of this machine's memory");
}

/* What to do so that a process's mapping gets huge pages. */
static const char *remap_remedy(const struct user *user)
{
	size_t len = 0;
	char *arguments = file_read(path("/proc/%d/cmdline", user->pid), &len);

	if (!arguments || !memmem(arguments, len, "memory-backend-file", 19))
		return "no huge page fits its address; kvmfr.h tells the program's author how to choose one";
	if (memmem(arguments, len, "guest=", 6))
		return "its domain lacks 'align'; 'kvmfrctl doctor --fix domains' adds it, then shut the guest down and start it again";
	return text("shut it down and start it with align=%s on its memory-backend-file, as 'kvmfrctl qemu' prints it",
		    qemu_size(huge_page_size()));
}

/* Do the processes that map a device get its huge pages? */
void check_mappings(struct report *r)
{
	int hidden = 0;

	for (int i = 0; i < n_devices; i++) {
		struct user *users;
		int n = users_find(&devices[i], &users, &hidden);

		for (int j = 0; j < n; j++)
			if (users[j].huge_missed)
				wrong(r, "%s (%d) maps %s in small pages only: %s",
				      users[j].command, users[j].pid,
				      devices[i].node, remap_remedy(&users[j]));
			else if (users[j].mapped)
				right(r, "%s (%d) maps %s at an address where huge pages fit",
				      users[j].command, users[j].pid,
				      devices[i].node);
	}
	if (hidden)
		unseen(r, "%d processes of other users were not looked into",
		       hidden);
	if (!r->n)
		elsewhere(r, "no process maps a device");
}
