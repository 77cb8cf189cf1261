// SPDX-License-Identifier: GPL-2.0
/*
 * svirt PATH...: what may a process in SELinux's domain of libvirt's guests do
 * with these, which are nodes of devices or sockets of ivshmem servers? Prints,
 * for each, "PATH: has the memory" or what refused it.
 *
 * A child enters the domain and has the policy enforced while it tries; before
 * and after that it is permissive, so that nothing else in the VM needs labels.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../lib/libkvmfr.h"

/* As libvirt starts a guest: with two categories of its own. */
#define DOMAIN	"system_u:system_r:svirt_t:s0:c107,c434"

static void put(int fd, const char *text)
{
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		err(2, "writing '%s'", text);
}

/* As QEMU's memory-backend-file does. */
static int try_node(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	void *memory;

	if (fd < 0)
		return errno;
	memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return memory == MAP_FAILED ? errno : 0;
}

static int try_socket(const char *path)
{
	struct kvmfr_peer *peer;
	void *memory;
	int ret;

	ret = kvmfr_peer_open(path, 0, 0, &peer);
	if (ret)
		return -ret;
	ret = kvmfr_peer_map(peer, 0, 4096, &memory);
	kvmfr_peer_close(peer);
	return -ret;
}

/* 0 if its memory can be mapped, or the errno that refused it. */
static int try(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return errno;
	return S_ISSOCK(st.st_mode) ? try_socket(path) : try_node(path);
}

int main(int argc, char **argv)
{
	int *results = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int enforce = open("/sys/fs/selinux/enforce", O_RDWR | O_CLOEXEC);
	int status;

	if (results == MAP_FAILED || enforce < 0)
		err(2, "SELinux is not there");
	if (!fork()) {
		int domain = open("/proc/self/attr/current", O_RDWR | O_CLOEXEC);

		put(domain, DOMAIN);
		put(enforce, "1");
		for (int i = 1; i < argc; i++)
			results[i] = try(argv[i]);
		_exit(0);
	}
	wait(&status);
	put(enforce, "0");
	if (status)
		errx(2, "the child did not come to its end");
	for (int i = 1; i < argc; i++)
		printf("%s: %s\n", argv[i], results[i] ? strerror(results[i]) : "has the memory");
	return 0;
}
