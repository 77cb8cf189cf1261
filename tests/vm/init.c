// SPDX-License-Identifier: GPL-2.0
/*
 * PID 1 of a test VM.
 *
 * Does what the lines of /plan say, which "boot" wrote into the initramfs:
 *
 *	channel DEVICE		where verdicts go
 *	insmod FILE [OPTIONS]	load a module
 *	root			make the 9p share "root" the root file system
 *	out			mount the 9p share "out", which can be written
 *	run COMMAND		run it by the shell, stdout on the channel
 *	shell			an interactive shell on the console
 *
 * and powers the VM off.  On the channel a program's output appears as it is,
 * framed by lines of ours that begin with "## ":
 *
 *	## up
 *	## begin NUMBER COMMAND
 *	## end NUMBER exit STATUS | signal NUMBER
 *	## tainted BITS
 *	## failed REASON
 *	## done
 *
 * The kernel log and stderr go to the console, never to the channel: a panic,
 * a hang or a truncated log cannot look like "## done".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static int channel = -1;

static void say(const char *format, ...)
{
	va_list args;
	char *text;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = "out of memory";
	va_end(args);
	if (channel >= 0)
		dprintf(channel, "## %s\n", text);
	dprintf(STDERR_FILENO, "init: %s\n", text);
}

static _Noreturn void power_off(void)
{
	if (channel >= 0)
		tcdrain(channel);
	reboot(RB_POWER_OFF);
	/* a kernel that cannot switch off gets "-no-reboot" to end it */
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

static _Noreturn void die(const char *what)
{
	say("failed %s: %s", what, strerror(errno));
	power_off();
}

static void put_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;		/* not every kernel has every knob */
	if (write(fd, text, strlen(text)) < 0)
		say("could not write \"%s\" to %s", text, path);
	close(fd);
}

static void mount_or_die(const char *source, const char *target,
			 const char *type, unsigned long flags,
			 const char *options)
{
	if (mkdir(target, 0755) && errno != EEXIST)
		die(target);
	if (mount(source, target, type, flags, options))
		die(target);
}

static void mount_kernel_file_systems(void)
{
	mount_or_die("proc", "/proc", "proc", 0, NULL);
	mount_or_die("sysfs", "/sys", "sysfs", 0, NULL);
	mount_or_die("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount_or_die("devpts", "/dev/pts", "devpts", 0, "ptmxmode=0666");
	mount_or_die("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777");
	mount_or_die("tmpfs", "/run", "tmpfs", 0, "mode=755");
	/* absent when the kernel was built without */
	mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, NULL);
	/* what udevd would make */
	symlink("/proc/self/fd", "/dev/fd");
	symlink("/proc/self/fd/0", "/dev/stdin");
	symlink("/proc/self/fd/1", "/dev/stdout");
	symlink("/proc/self/fd/2", "/dev/stderr");
}

/* A root file system of ours has busybox alone, without its names. */
static void install_busybox(void)
{
	pid_t pid = fork();

	if (!pid) {
		execl("/bin/busybox", "busybox", "--install", "-s", "/bin",
		      NULL);
		_exit(127);
	}
	waitpid(pid, NULL, 0);
}

static void open_console(void)
{
	int fd = open("/dev/console", O_RDWR);

	if (fd < 0)
		return;
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

static void open_channel(const char *device)
{
	struct termios tty;

	channel = open(device, O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (channel < 0)
		die(device);
	if (!tcgetattr(channel, &tty)) {
		cfmakeraw(&tty);
		tcsetattr(channel, TCSANOW, &tty);
	}
	say("up");
}

static void load_module(char *line)
{
	char *options = strchr(line, ' ');
	int fd;

	if (options)
		*options++ = '\0';
	fd = open(line, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die(line);
	if (syscall(SYS_finit_module, fd, options ? options : "", 0) &&
	    errno != EEXIST)
		die(line);
	close(fd);
}

static void mount_9p(const char *tag, const char *target, unsigned long flags,
		     const char *cache)
{
	char options[100];

	snprintf(options, sizeof(options),
		 "trans=virtio,version=9p2000.L,msize=262144,cache=%s", cache);
	mount_or_die(tag, target, "9p", flags, options);
}

static void mount_overlay(const char *name, const char *lower,
			  const char *target)
{
	char upper[50], work[50], options[200];

	snprintf(upper, sizeof(upper), "/rw/%s", name);
	snprintf(work, sizeof(work), "/rw/%s-work", name);
	snprintf(options, sizeof(options), "lowerdir=%s,upperdir=%s,workdir=%s",
		 lower, upper, work);
	mkdir(upper, 0755);
	mkdir(work, 0755);
	mount_or_die("overlay", target, "overlay", 0, options);
}

/*
 * The share is read-only, what is written in the VM stays in its memory.  On
 * top of the share lies /overlay of the initramfs: the files for this VM.  And
 * on the share's /lib/modules lie the modules of this VM's kernel; the share's
 * own remain visible for the "build" links in them.
 */
static void change_root(void)
{
	mount_9p("root", "/share", MS_RDONLY, "loose");
	mount_9p("modules", "/share-modules", MS_RDONLY, "loose");
	mount_or_die("tmpfs", "/rw", "tmpfs", 0, NULL);
	mkdir("/overlay", 0755);
	mount_overlay("root", "/overlay:/share", "/root");
	mkdir("/root/lib/modules", 0755);
	mount_overlay("modules",
		      access("/share/lib/modules", F_OK) ? "/share-modules" :
		      "/share-modules:/share/lib/modules", "/root/lib/modules");

	if (chdir("/root") || mount(".", "/", NULL, MS_MOVE, NULL) ||
	    chroot(".") || chdir("/"))
		die("change of root");
	mount_kernel_file_systems();
	open_console();
}

static pid_t start(const char *command, int output)
{
	pid_t pid = fork();
	int null;

	if (pid < 0)
		die("fork");
	if (pid > 0)
		return pid;

	setsid();
	if (output == STDIN_FILENO) {
		ioctl(STDIN_FILENO, TIOCSCTTY, 1);
	} else {
		null = open("/dev/null", O_RDONLY);
		dup2(null, STDIN_FILENO);
		close(null);
		dup2(output, STDOUT_FILENO);
	}
	if (mkdir("/tests", 0755) && errno != EEXIST)
		die("/tests");
	if (chdir("/tests"))
		die("/tests");
	execl("/bin/sh", "sh", "-c", command, NULL);
	die("/bin/sh");
}

/* Wait for PID, and take in the orphans that end in the meantime. */
static int wait_for(pid_t pid)
{
	int status;
	pid_t ended;

	do {
		ended = wait(&status);
	} while (ended != pid && !(ended < 0 && errno == ECHILD));

	/* What a program leaves running must not disturb the next one. */
	kill(-1, SIGKILL);
	while (wait(NULL) > 0 || errno == EINTR)
		;
	return status;
}

static void run(int number, const char *command)
{
	char *note;
	int status;

	say("begin %d %s", number, command);
	if (asprintf(&note, "<4>vm: begin %d %s\n", number, command) > 0)
		put_file("/dev/kmsg", note);	/* for the reader of the log */
	status = wait_for(start(command, channel));
	/* the newline is for a program that died within a line */
	dprintf(channel, "\n");
	if (WIFSIGNALED(status))
		say("end %d signal %d", number, WTERMSIG(status));
	else
		say("end %d exit %d", number, WEXITSTATUS(status));
}

static void report_taint(void)
{
	char bits[32] = "unknown";
	int fd = open("/proc/sys/kernel/tainted", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, bits, sizeof(bits) - 1);

	if (n > 0)
		bits[strcspn(bits, "\n")] = '\0';
	close(fd);
	say("tainted %s", bits);
}

static void obey(char *line)
{
	static int number;
	char *arg = strchr(line, ' ');

	if (arg)
		*arg++ = '\0';
	if (!strcmp(line, "channel"))
		open_channel(arg);
	else if (!strcmp(line, "insmod"))
		load_module(arg);
	else if (!strcmp(line, "root"))
		change_root();
	else if (!strcmp(line, "out"))
		mount_9p("out", "/out", 0, "none");
	else if (!strcmp(line, "run"))
		run(++number, arg);
	else if (!strcmp(line, "shell"))
		wait_for(start("exec /bin/sh -i", STDIN_FILENO));
	else
		say("failed unknown line in the plan: %s", line);
}

int main(void)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t len;
	FILE *plan;

	umask(0);
	mkdir("/tmp", 01777);
	umask(022);
	mount_kernel_file_systems();
	open_console();
	install_busybox();
	setenv("PATH", "/tests:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/tmp", 1);
	setenv("KVMFR_KO", "/lib/kvmfr/kvmfr.ko", 1);
	setenv("KVMFR_IMPORTER_KO", "/lib/kvmfr/kvmfr_importer.ko", 1);
	/* tests panic and crash on purpose; a program's core helps nobody */
	put_file("/proc/sys/kernel/sysrq", "1");
	put_file("/proc/sys/kernel/core_pattern", "/dev/null");

	plan = fopen("/plan", "re");
	if (!plan)
		die("/plan");
	while ((len = getline(&line, &size, plan)) > 0) {
		if (line[len - 1] == '\n')
			line[len - 1] = '\0';
		obey(line);
	}
	report_taint();
	say("done");
	power_off();
}
