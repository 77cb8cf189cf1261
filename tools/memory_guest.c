// SPDX-License-Identifier: GPL-2.0
/* kvmfrctl memory: finds a QEMU process and reads its command line. */
#include "memory.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct arguments {
	char *data;
	size_t size;
};

static bool arguments_read(pid_t pid, struct arguments *arguments)
{
	arguments->data = file_read(path("/proc/%d/cmdline", pid), &arguments->size);
	return arguments->data && arguments->size;
}

/* The next argument, after @previous; NULL after the last one. */
static const char *arguments_next(const struct arguments *arguments, const char *previous)
{
	const char *next = previous ? previous + strlen(previous) + 1 : arguments->data;

	return next < arguments->data + arguments->size ? next : NULL;
}

/*
 * The last value of a suboption: "4G" for @option "m" and @key "size" in
 * "-m size=4G,slots=2", and in "-m 4G" if the key may be left out as the @first
 * suboption. NULL if it isn't there.
 */
static const char *arguments_value(const struct arguments *arguments, const char *option,
				   const char *key, bool first)
{
	const char *argument = NULL, *value = NULL, *part;

	while ((argument = arguments_next(arguments, argument))) {
		bool found = *argument == '-' && !strcmp(argument + 1 + (argument[1] == '-'), option);

		if (!found || !(argument = arguments_next(arguments, argument)))
			continue;
		for (part = argument; part; part = strchr(part, ',')) {
			size_t n;

			part += part > argument;
			n = strcspn(part, ",=");
			if (part[n] == '=' && n == strlen(key) && !strncmp(part, key, n))
				value = strndup(part + n + 1, strcspn(part + n + 1, ","));
			else if (first && part == argument && part[n] != '=')
				value = strndup(part, n);
		}
	}
	return value;
}

static bool is_qemu(const struct arguments *arguments)
{
	const char *program = strrchr(arguments->data, '/');

	program = program ? program + 1 : arguments->data;
	return strstr(program, "qemu") || !strcmp(program, "kvm");
}

pid_t guest_named(const char *name)
{
	struct arguments arguments;
	struct dirent *entry;
	pid_t found = 0;
	DIR *proc;

	proc = opendir(path("/proc"));
	while (proc && (entry = readdir(proc))) {
		const char *value;

		if (!isdigit(*entry->d_name) || !arguments_read(atoi(entry->d_name), &arguments))
			continue;
		value = arguments_value(&arguments, "name", "guest", true);
		if (!is_qemu(&arguments) || !value || strcmp(value, name))
			continue;
		if (found)
			fail("processes %d and %s are both a QEMU with '-name %s'; --pid says which",
			     found, entry->d_name, name);
		found = atoi(entry->d_name);
	}
	if (proc)
		closedir(proc);
	if (!found)
		fail("no QEMU with '-name %s' runs here", name);
	return found;
}

uint64_t guest_size(const char *s, uint64_t unit)
{
	static const char units[] = "BKMGTP";
	uint64_t size;
	const char *p;
	char *end;

	errno = 0;
	size = strtoull(s, &end, 10);
	p = *end ? strchr(units, toupper(*end)) : NULL;
	if (p) {
		unit = 1ULL << (10 * (p - units));
		end++;
	}
	if (*s < '0' || *s > '9' || *end || errno || !size || __builtin_mul_overflow(size, unit, &size))
		misuse("memory: '%s' is not a size, for example 512M or 8G", s);
	return size;
}

void guest_machine(pid_t pid, const char **machine, uint64_t *size)
{
	struct arguments arguments;
	const char *value;

	if (!arguments_read(pid, &arguments))
		fail("process %d: %s", pid, errno == ENOENT ? "there is none" :
		     "no command line to take the machine type from");
	if (!is_qemu(&arguments))
		fail("process %d is no QEMU but %s: '--machine' and '--size' say what to expect of it, or '--qmp'",
		     pid, printable(arguments.data));
	if (arguments_value(&arguments, "machine", "max-ram-below-4g", false))
		fail("process %d has max-ram-below-4g; only '--qmp' tells its map", pid);
	value = arguments_value(&arguments, "machine", "type", true) ?:
		arguments_value(&arguments, "M", "type", true);
	*machine = value ?: "pc";
	value = arguments_value(&arguments, "m", "size", true);
	*size = guest_size(value ?: "128", MIB);
}

const char *guest_permission(pid_t pid)
{
	struct stat st;
	uint64_t scope;

	if (!stat(path("/proc/%d", pid), &st) && geteuid() && st.st_uid != geteuid())
		return text("it is %s's; run as root%s%s", user_name(st.st_uid),
			    st.st_uid ? " or as " : "",
			    st.st_uid ? user_name(st.st_uid) : "");
	if (file_number(path("/proc/sys/kernel/yama/ptrace_scope"), &scope) && scope)
		return text("kernel.yama.ptrace_scope is %" PRIu64 ", and CAP_SYS_PTRACE is missing",
			    scope);
	return "CAP_SYS_PTRACE is missing, or a security module refuses";
}
