// SPDX-License-Identifier: GPL-2.0
/* kvmfrctl: the command line. Each command has a file of its own. */
#include "kvmfrctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *arguments;
	const char *what;
} commands[] = {
	{ "list", cmd_list, "[--servers] [--json]",
	  "list the devices, the doorbell servers, and who uses them" },
	{ "doctor", cmd_doctor, "[--fix [--yes]] [--user NAME] [CHECK...]",
	  "find out what keeps them from working, and repair it" },
	{ "size", cmd_size, "[--b7 [--hdr]] WIDTHxHEIGHT",
	  "say how much memory Looking Glass needs for a screen" },
	{ "qemu", cmd_qemu, "[--ram] [--doorbell SERVER [--vectors N]] DEVICE",
	  "print the arguments that give a device to QEMU" },
	{ "libvirt", cmd_libvirt,
	  "[--ram] [--legacy] [--doorbell SERVER [--vectors N]] DEVICE",
	  "print the same for a libvirt domain" },
	{ "clear", cmd_clear, "[--force] DEVICE",
	  "fill a device's memory with zeros" },
	{ "create", cmd_create, "[--node N] [--name NAME] SIZE",
	  "make a device, which stays until the module is unloaded" },
	{ "remove", cmd_remove, "DEVICE",
	  "remove a device that nobody uses" },
	{ "hook", cmd_hook, "GUEST OPERATION SUB-OPERATION EXTRA",
	  "make and remove devices with a guest, for libvirt's hook script" },
	{ "memory", cmd_memory,
	  "map|read ADDRESS LENGTH|write ADDRESS|search PATTERN|core FILE --qmp SOCKET|--pid PID|--name NAME|--machine TYPE [--size SIZE] [--file [BLOCK=]PATH]... [--json|--memmap]",
	  "read, write, search or dump a guest's physical memory" },
	{ "channel", cmd_channel,
	  "list [--json]|create NAME [SIZE]|remove NAME|connect NAME|leave|attach [--vm NAME|--device DEVICE]",
	  "named byte streams between a host and its guest" },
};

#define N_COMMANDS	(sizeof(commands) / sizeof(*commands))

static void help(void)
{
	printf("Usage: kvmfrctl [--root DIR] [COMMAND]\n\n");
	printf("Without a command: how this machine stands, and the next step.\n\n");
	for (size_t i = 0; i < N_COMMANDS; i++)
		printf("  %s %s\n        %s\n", commands[i].name,
		       commands[i].arguments, commands[i].what);
	printf("\nSee kvmfrctl(8).\n");
}

static bool asks_for_help(char **argv)
{
	for (; *argv && strcmp(*argv, "--"); argv++)
		if (!strcmp(*argv, "--help"))
			return true;
	return false;
}

static int run(int argc, char **argv)
{
	for (size_t i = 0; i < N_COMMANDS; i++) {
		if (strcmp(argv[0], commands[i].name))
			continue;
		if (asks_for_help(argv)) {
			printf("Usage: kvmfrctl %s %s\n\n%s; see kvmfrctl(8)\n", commands[i].name,
			       commands[i].arguments, commands[i].what);
			return 0;
		}
		optind = 1;
		return commands[i].run(argc, argv);
	}
	misuse("there is no command '%s', see 'kvmfrctl --help'", argv[0]);
}

/* Fails if the output could not be written, for example to a full disk. */
static int finish(int status)
{
	if (fflush(stdout))
		fail("cannot write the output: %s", strerror(errno));
	return status;
}

/*
 * Reading or writing a standard descriptor that was closed is an error, as it should be,
 * until a file or a socket is opened and gets its number.
 */
static void keep_closed_descriptors(void)
{
	int fd;

	do {
		fd = open("/", O_PATH | O_CLOEXEC);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	close(fd);
}

int main(int argc, char **argv)
{
	int i = 1;

	keep_closed_descriptors();
	for (; i < argc && *argv[i] == '-'; i++) {
		if (!strcmp(argv[i], "--help")) {
			help();
			return finish(0);
		}
		if (!strcmp(argv[i], "--version")) {
			printf("kvmfrctl %s\n", VERSION);
			return finish(0);
		}
		if (strcmp(argv[i], "--root"))
			misuse("unknown option '%s', see 'kvmfrctl --help'",
			       argv[i]);
		if (!argv[++i])
			misuse("--root wants a directory");
		root = strcmp(argv[i], "/") ? argv[i] : "";
	}
	if (*root && access(path("/."), X_OK))
		fail("--root %s: %s", root, strerror(errno));
	return finish(i == argc ? summary() : run(argc - i, argv + i));
}
