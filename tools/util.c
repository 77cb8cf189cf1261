// SPDX-License-Identifier: GPL-2.0
/* Messages, strings and small files. */
#include "kvmfrctl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

const char *root = "";

/* progress() has a line on the terminal. */
static bool progressing;

void progress_clear(void)
{
	if (progressing)
		fputs("\r\033[K", stderr);
	fflush(stderr);
	progressing = false;
}

static void message(const char *fmt, va_list args)
{
	progress_clear();
	fflush(stdout);
	fputs("kvmfrctl: ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
}

void fail(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	message(fmt, args);
	exit(1);
}

void misuse(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	message(fmt, args);
	exit(2);
}

void warn(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	message(fmt, args);
	va_end(args);
}

char *format(const char *fmt, va_list args)
{
	char *s;

	if (vasprintf(&s, fmt, args) < 0)
		fail("out of memory");
	return s;
}

char *text(const char *fmt, ...)
{
	va_list args;
	char *s;

	va_start(args, fmt);
	s = format(fmt, args);
	va_end(args);
	return s;
}

char *path(const char *fmt, ...)
{
	va_list args;
	char *s;

	va_start(args, fmt);
	s = format(fmt, args);
	va_end(args);
	return text("%s%s", root, s);
}

char *quoted(const char *word)
{
	static const char safe[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
		"0123456789@%+=:,./-_";
	char *out, *p;

	if (*word && !word[strspn(word, safe)])
		return text("%s", word);

	/* A quote becomes '\'': end the quoted part, add a quote, begin another part. */
	p = out = calloc(4, strlen(word) + 2);
	if (!out)
		fail("out of memory");
	*p++ = '\'';
	for (; *word; word++) {
		if (*word == '\'')
			p = stpcpy(p, "'\\''");
		else
			*p++ = *word;
	}
	*p = '\'';
	return out;
}

static bool on_terminal(void)
{
	return isatty(STDOUT_FILENO);
}

static bool colourful(void)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

	return on_terminal() && !(no && *no) && term && strcmp(term, "dumb");
}

char *column(enum colour colour, int width, const char *s)
{
	static const char * const codes[] = {
		[BOLD] = "1", [DIM] = "2", [RED] = "1;31", [GREEN] = "32",
		[YELLOW] = "33",
	};

	if (colour == PLAIN || !colourful())
		return text("%-*s", width, s);
	return text("\033[%sm%-*s\033[0m", codes[colour], width, s);
}

/* 0 if standard output is not a terminal. */
static int terminal_width(void)
{
	struct winsize size;

	if (!on_terminal() || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size))
		return 0;
	return size.ws_col;
}

void print_below(int indent, const char *s)
{
	int room = terminal_width() - indent;

	while (room >= 20 && (int)strlen(s) > room) {
		int n = room;

		while (n && s[n] != ' ')
			n--;
		if (!n)
			break;
		printf("%.*s\n%*s", n, s, indent, "");
		s += n + 1;
	}
	printf("%s\n", s);
}

size_t utf8_length(const char *s)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t n = *p < 0x80 ? 1 : *p < 0xc2 ? 0 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : *p < 0xf5 ? 4 : 0;

	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	/* Longer than need be, a surrogate, or above U+10FFFF. */
	if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) ||
	    (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

char *printable(const char *s)
{
	char *copy = text("%s", s);
	size_t n;

	for (char *p = copy; *p; p += n) {
		unsigned char c = p[0], next = p[1];

		n = utf8_length(p);
		/* U+0080 to U+009F are control characters, too. */
		if (!n || c < ' ' || c == 0x7f || (c == 0xc2 && next < 0xa0)) {
			n = 1;
			*p = '?';
		}
	}
	return copy;
}

char *mebibytes(uint64_t bytes)
{
	if (bytes % MIB)
		return text("%" PRIu64 " bytes", bytes);
	return text("%" PRIu64 " MiB", bytes / (uint64_t)MIB);
}

char *qemu_size(uint64_t bytes)
{
	if (bytes % MIB)
		return text("%" PRIu64, bytes);
	return text("%" PRIu64 "M", bytes / (uint64_t)MIB);
}

char *file_read(const char *name, size_t *len)
{
	size_t size = 0, room = 4096;
	char *data = NULL;
	ssize_t n;
	int fd;

	fd = open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return NULL;

	for (;;) {
		char *more = realloc(data, room);

		if (!more)
			fail("out of memory");
		data = more;
		n = read(fd, data + size, room - size - 1);
		if (n <= 0)
			break;
		size += n;
		if (size == room - 1)
			room *= 2;
	}
	close(fd);
	if (n < 0) {
		free(data);
		return NULL;
	}
	data[size] = 0;
	if (len)
		*len = size;
	return data;
}

char *file_line(const char *name)
{
	char *s = file_read(name, NULL);

	if (s)
		s[strcspn(s, "\n")] = 0;
	return s;
}

bool file_number(const char *name, uint64_t *value)
{
	char *s = file_line(name), *end;

	if (!s || *s < '0' || *s > '9')
		return false;
	errno = 0;
	*value = strtoull(s, &end, 10);
	return !errno && !*end;
}

/* Calls misuse() for what getopt_long() did not understand. */
static void option_wrong(int argc, char **argv)
{
	const char *word = argv[optind - 1], *next = optind < argc ? argv[optind] : "";

	/* optopt: a letter, or what belongs to a long option that was given a value, or 0 */
	if (optopt && (strncmp(word, "--", 2) || (*next == '-' && next[1] == optopt)))
		misuse("%s: unknown option '-%c', see 'kvmfrctl --help'", argv[0], optopt);
	if (optopt)
		misuse("%s: option '%.*s' takes no value", argv[0],
		       (int)strcspn(word, "="), word);
	misuse("%s: unknown option '%s', see 'kvmfrctl --help'", argv[0], word);
}

int option_next(int argc, char **argv, const struct option *options)
{
	int c;

	/* The ":" makes getopt_long() return ':' for a missing value. */
	opterr = 0;
	c = getopt_long(argc, argv, ":", options, NULL);
	if (c == '?')
		option_wrong(argc, argv);
	if (c == ':')
		misuse("%s: option '%s' wants a value", argv[0],
		       argv[optind - 1]);
	return c;
}

void progress(const char *what, uint64_t done, uint64_t total)
{
	static uint64_t shown = UINT64_MAX;
	uint64_t percent = done / (total / 100 + 1);

	if (total < PROGRESS_FROM || percent == shown || !isatty(STDERR_FILENO))
		return;
	shown = percent;
	/* What was written to the same terminal stays above the line. */
	progress_clear();
	fflush(stdout);
	if (done >= total)
		return;
	fprintf(stderr, "%s: %" PRIu64 " %% of %" PRIu64 " MiB", what, percent,
		total / (uint64_t)MIB);
	fflush(stderr);
	progressing = true;
}

int program_run(const char *program, const char *const argv[])
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		fail("cannot start %s", program);
	if (!pid) {
		execvp(program, (char *const *)argv);
		_exit(127);
	}
	if (waitpid(pid, &status, 0) < 0)
		fail("cannot wait for %s", program);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}
