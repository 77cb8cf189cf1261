// SPDX-License-Identifier: GPL-2.0
/*
 * A fuzzer with a model: random sequences of everything that can be done to /dev/kvmfrN, by several
 * processes of several threads, while IVSHMEM and static devices come and go. The model knows what
 * every page of every mapping must contain and what every call must return; the fuzzer stops at the
 * first difference.
 *
 *	fuzz [--seed N] [--ops N] [--procs N] [--threads N] [--replay WORKER] [--keep]
 *
 * What a worker does next depends on the seed, the worker's number and the operation's number, on
 * nothing else. So the same seed repeats the same operations, though not the way they interleave;
 * --replay runs one worker alone and prints each operation before it is done. --keep leaves the
 * module loaded.
 *
 * How the contents are known: every 8-byte word that is looked at holds its device, its page and a
 * counter. A worker writes only to its own pages (page modulo number of workers) and remembers
 * what; other pages it can at least identify. How the answers are known though a device may vanish
 * at any moment: see struct plug.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/dma-buf.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../kvmfr.h"

#define PAGE		page_size
#define HUGE		(PAGE * PAGE / 8)	/* what a table of 8-byte entries maps */
#define MAX_DEVICES	8
#define MAX_WORKERS	64
#define MAX_PAGES	8192		/* of one device */
#define ARENA		2048		/* pages of a worker's address space */
#define FILES		8
#define BUFFERS		8

/* <drm/drm.h> comes with a library that nothing else here needs */
struct drm_prime { uint32_t handle, flags; int32_t fd; };
struct drm_gem { uint32_t handle, pad; };
#define DRM_PRIME_FD_TO_HANDLE	_IOWR('d', 0x2e, struct drm_prime)
#define DRM_GEM_CLOSE		_IOW('d', 0x09, struct drm_gem)

/* What user space is younger than */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#define MADV_POPULATE_WRITE	23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif

/*
 * The life of a device, in generations that only the plugging thread advances: @begun before an
 * unbind starts, @ended after it has returned, @back after a bind has. A descriptor of generation g
 * is certainly alive as long as @begun == g, certainly dead once @ended > g, and in between nobody
 * can tell.
 */
struct plug {
	atomic_uint begun, ended, back;
};

enum life { ALIVE, DYING, DEAD };

struct device {
	char node[32];
	char address[32];		/* PCI address, "" for a static device */
	uint32_t pages;
	bool dmabuf;			/* DMA-BUFs can be made of it */
	bool pins;			/* any mapping of it can be pinned */
	uint32_t vectors;		/* of its doorbell, 0: it has none */
};

/* What all processes share */
struct shared {
	struct plug plug[MAX_DEVICES];
	atomic_ulong ops, cycles, done[MAX_WORKERS];
	atomic_bool failed, stop;
	char report[640];
	struct tally { atomic_ulong ok, refused; } tally[64], resize;
	/* counters of what was last written, by device, page and word; each entry has one writer */
	uint32_t written[MAX_DEVICES][MAX_PAGES][4];
};

/* One page of the arena */
struct page {
	bool mapped;
	bool may_write;			/* mprotect may make it writable */
	uint8_t dev;
	uint8_t prot;
	uint32_t page;			/* of the device */
	uint32_t low, high;		/* which pages its owner may show at all */
	unsigned int gen;
	unsigned int vma;		/* pages of the same VMA have the same, others may */
};

struct file {
	int fd;				/* -1: none */
	uint8_t dev;
	int mode;			/* O_RDONLY … */
	unsigned int gen;
};

struct buffer {
	int fd;
	uint8_t dev;
	uint32_t first, pages;
	unsigned int gen;
	uint32_t handle;		/* of vgem, 0: none */
};

struct worker {
	unsigned int id;
	unsigned long op, ops;
	uint64_t random;
	pthread_t thread;
	int drm;
	int event;
	int pipe[2];
	unsigned int vmas;
	char *base;
	char what[256];
	struct file file[FILES];
	struct buffer buffer[BUFFERS];
	struct page arena[ARENA];
};

static unsigned long page_size;
static struct device devices[MAX_DEVICES];
static unsigned int nr_devices, nr_workers;
static struct shared *shared;
static uint64_t seed;
static long replay = -1;
static bool pins_files;			/* this kernel's io_uring pins mappings of files */

/*
 * Addresses that were just unmapped belong to their worker all the same. Whoever makes such holes
 * in its arena holds this for reading, and whoever lets the kernel choose an address holds it for
 * writing.
 */
static pthread_rwlock_t holes = PTHREAD_RWLOCK_INITIALIZER;

/* ------------------------------- randomness ------------------------------- */

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static uint64_t any(struct worker *w)
{
	w->random += 0x9e3779b97f4a7c15;
	return mix(w->random);
}

static uint32_t below(struct worker *w, uint32_t limit)
{
	return any(w) % limit;
}

static bool one_in(struct worker *w, uint32_t n)
{
	return below(w, n) == 0;
}

/* Values around which mistakes are made */
static uint64_t boundary(struct worker *w, uint64_t size)
{
	const uint64_t values[] = {
		0, 1, PAGE - 1, PAGE, PAGE + 1,
		size - PAGE, size - 1, size, size + 1, size + PAGE, 2 * size,
		1ULL << 31, (1ULL << 31) - PAGE, 1ULL << 32, (1ULL << 32) - PAGE,
		(1ULL << 32) + PAGE, 1ULL << 44, 1ULL << 52, 1ULL << 63, (1ULL << 63) - PAGE,
		-size, -PAGE, -1ULL, any(w),
	};

	if (one_in(w, 3))
		return below(w, size / PAGE) * PAGE;
	return values[below(w, sizeof(values) / sizeof(*values))];
}

/* Lengths: mostly short, now and then all there is */
static uint32_t some_pages(struct worker *w, uint32_t max)
{
	switch (below(w, 32)) {
	case 0:
		return max;
	case 1 ... 2:
		return 1 + below(w, max);
	case 3 ... 8:
		return 1;
	default:
		return 1 + below(w, max < 24 ? max : 24);
	}
}

/* ------------------------------ what went wrong --------------------------- */

#define WHAT(w, ...) do {							\
	snprintf((w)->what, sizeof((w)->what), __VA_ARGS__);			\
	if (replay >= 0)							\
		printf("# op %lu: %s\n", (w)->op, (w)->what);			\
} while (0)

static void __attribute__((format(printf, 2, 3))) wrong(struct worker *w, const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (!atomic_exchange(&shared->failed, true))
		snprintf(shared->report, sizeof(shared->report), "worker %u, op %lu: %s: %s",
			 w->id, w->op, w->what, text);
	atomic_store(&shared->stop, true);
}

typedef unsigned __int128 errors;

#define E(error)	((errors)1 << (error))
#define OK		E(0)

static const char *name_of(int error)
{
	const char *name = error ? strerrorname_np(error) : "success";

	return name ? name : "?";
}

static __thread unsigned int current_op;

static void expect(struct worker *w, errors want, int got)
{
	struct tally *tally = &shared->tally[current_op];
	char list[128] = "";

	atomic_fetch_add(got ? &tally->refused : &tally->ok, 1);
	if (want & E(got))
		return;
	for (int error = 0; error < 128; error++)
		if (want & E(error))
			snprintf(list + strlen(list), sizeof(list) - strlen(list), " %s",
				 name_of(error));
	wrong(w, "answered %s, expected%s", name_of(got), list);
}

/* The same for something that a device has to do with, of which @life is known */
static void expect_life(struct worker *w, errors want, int got, enum life life)
{
	if (life == DYING)
		want |= E(ENODEV);
	if (life == DEAD)
		want = (want & ~OK) | E(ENODEV);
	expect(w, want, got);
}

static unsigned int moment(unsigned int dev)
{
	return atomic_load(&shared->plug[dev].ended);
}

/* @before: moment() before the operation that is judged now */
static enum life life_of(unsigned int dev, unsigned int gen, unsigned int before)
{
	if (before > gen)
		return DEAD;
	return atomic_load(&shared->plug[dev].begun) == gen ? ALIVE : DYING;
}

/* ------------------------------ looking at memory ------------------------- */

static __thread sigjmp_buf caught_env;
static __thread volatile bool catching;

static void caught(int sig, siginfo_t *info, void *context)
{
	(void)info;
	(void)context;
	if (!catching) {
		signal(sig, SIG_DFL);
		return;
	}
	catching = false;
	siglongjmp(caught_env, sig);
}

/* 0, or the signal that the access gave */
static int access_word(volatile uint64_t *word, uint64_t *value, bool write)
{
	int sig = sigsetjmp(caught_env, 0);

	if (sig)
		return sig;
	catching = true;
	if (write)
		*word = *value;
	else
		*value = *word;
	catching = false;
	return 0;
}

static unsigned int word_offset[4] = { 0, 8, 2048 };	/* and the last of the page */

static uint64_t word_value(unsigned int dev, uint32_t page, uint32_t count)
{
	return (uint64_t)(0xa0 + dev) << 56 | (uint64_t)page << 32 | count;
}

static bool mine(struct worker *w, uint32_t page)
{
	return page % nr_workers == w->id;
}

/* Whether @value is what this word of the device holds, as far as the worker can know */
static void check_value(struct worker *w, uint64_t value, unsigned int dev, uint32_t page,
			unsigned int word)
{
	uint64_t want = word_value(dev, page, shared->written[dev][page][word]);

	if (value == want)
		return;
	if (mine(w, page))
		wrong(w, "device %u page %u word %u shows %#llx, written was %#llx", dev, page,
		      word, (unsigned long long)value, (unsigned long long)want);
	else if (value >> 32 != want >> 32)
		wrong(w, "device %u page %u word %u shows %#llx, which is not of this page", dev,
		      page, word, (unsigned long long)value);
}

/* Reads or writes one word of page @at of the arena, and judges it. */
static void look(struct worker *w, uint32_t at, unsigned int word, bool write)
{
	struct page *page = &w->arena[at];
	uint64_t *address = (uint64_t *)(w->base + at * PAGE + word_offset[word]);
	unsigned int before = moment(page->dev);
	uint64_t value = 0xdeadbeefdeadbeef;
	uint32_t count = 0;
	enum life life;
	int sig;

	if (write) {
		if (page->mapped && !mine(w, page->page))
			return;
		count = shared->written[page->dev][page->page][word] + 1;
		value = word_value(page->dev, page->page, count);
	}
	sig = access_word(address, &value, write);
	life = life_of(page->dev, page->gen, before);

	if (!page->mapped || !(page->prot & (write ? PROT_WRITE : PROT_READ | PROT_WRITE))) {
		if (sig != SIGSEGV)
			wrong(w, "access that the protection forbids gave signal %d", sig);
		return;
	}
	if (sig && (sig != SIGBUS || life == ALIVE)) {
		wrong(w, "signal %d at page %u (device %u page %u, %s)", sig, at, page->dev,
		      page->page, life == ALIVE ? "alive" : "gone");
		return;
	}
	if (!sig && life == DEAD) {
		wrong(w, "device %u is gone, its page %u can still be %s", page->dev, page->page,
		      write ? "written" : "read");
		return;
	}
	if (sig)
		return;
	if (write)
		shared->written[page->dev][page->page][word] = count;
	else
		check_value(w, value, page->dev, page->page, word);
}

/* --------------------------------- the arena ------------------------------ */

static void reserve(struct worker *w, uint32_t at, uint32_t n)
{
	void *p = mmap(w->base + at * PAGE, n * PAGE, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

	if (p == MAP_FAILED)
		wrong(w, "cannot reserve address space: %s", name_of(errno));
	memset(&w->arena[at], 0, n * sizeof(struct page));
}

/* A mapped page if there is one to be found, else any */
static uint32_t some_page(struct worker *w)
{
	uint32_t at = 0;

	for (int i = 0; i < 12; i++) {
		at = below(w, ARENA);
		if (w->arena[at].mapped)
			break;
	}
	return at;
}

/* How many pages from @at on, at most @max, are mapped; with @vma, by one VMA in order */
static uint32_t run_of(struct worker *w, uint32_t at, uint32_t max, bool vma)
{
	struct page *first = &w->arena[at];
	uint32_t n = 0;

	while (n < max && at + n < ARENA && first[n].mapped &&
	       (!vma || (first[n].vma == first->vma && first[n].page == first->page + n)))
		n++;
	return n;
}

/* A change to @n pages from @at on cuts VMAs: before them, and behind them. */
static void cut(struct worker *w, uint32_t at, uint32_t n)
{
	uint32_t i;
	unsigned int old = 0;

	if (at + n < ARENA && w->arena[at + n].mapped) {
		old = w->arena[at + n].vma;
		w->vmas++;
		for (i = at + n; i < ARENA && w->arena[i].mapped && w->arena[i].vma == old; i++)
			w->arena[i].vma = w->vmas;
	}
	for (i = at; i < at + n; i++) {
		if (i == at || w->arena[i].vma != old)
			w->vmas++;
		old = w->arena[i].vma;
		w->arena[i].vma = w->vmas;
	}
}

static struct file *some_file(struct worker *w)
{
	struct file *file = &w->file[below(w, FILES)];

	for (int i = 0; i < 4 && file->fd < 0; i++)
		file = &w->file[below(w, FILES)];
	return file->fd < 0 ? NULL : file;
}

static struct buffer *some_buffer(struct worker *w)
{
	struct buffer *buffer = &w->buffer[below(w, BUFFERS)];

	for (int i = 0; i < 4 && buffer->fd < 0; i++)
		buffer = &w->buffer[below(w, BUFFERS)];
	return buffer->fd < 0 ? NULL : buffer;
}

/* What is mapped: a device, or a DMA-BUF, as a window of pages @low to @high of device @dev */
struct source {
	int fd;
	uint8_t dev;
	bool may_read, may_write;
	uint32_t low, high;
	unsigned int gen;
};

static bool some_source(struct worker *w, struct source *s)
{
	struct file *file = some_file(w);
	struct buffer *buffer = some_buffer(w);

	if (buffer && (!file || one_in(w, 2)))
		*s = (struct source) { buffer->fd, buffer->dev, true, true, buffer->first,
				       buffer->first + buffer->pages, buffer->gen };
	else if (file)
		*s = (struct source) { file->fd, file->dev, file->mode != O_WRONLY,
				       file->mode == O_RDWR, 0, devices[file->dev].pages,
				       file->gen };
	else
		return false;
	return true;
}

static int some_prot(struct worker *w)
{
	static const int prots[] = {
		PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
		PROT_READ, PROT_READ, PROT_WRITE, PROT_NONE,
	};

	return prots[below(w, sizeof(prots) / sizeof(*prots))];
}

/* Pages @at on now show the source from its page @page on. */
static void fill(struct worker *w, uint32_t at, uint32_t n, const struct source *s, uint32_t page,
		 int prot)
{
	w->vmas++;
	for (uint32_t i = 0; i < n; i++)
		w->arena[at + i] = (struct page) {
			.mapped = true, .may_write = s->may_write, .dev = s->dev, .prot = prot,
			.page = s->low + page + i, .low = s->low, .high = s->high,
			.gen = s->gen, .vma = w->vmas,
		};
}

/* --------------------------------- operations ----------------------------- */

static void op_open(struct worker *w)
{
	static const int modes[] = { O_RDWR, O_RDWR, O_RDWR, O_RDONLY, O_WRONLY };
	struct file *file = &w->file[below(w, FILES)];
	unsigned int dev = below(w, nr_devices);
	int mode = modes[below(w, 5)];
	struct plug *plug = &shared->plug[dev];
	unsigned int back = atomic_load(&plug->back), begun = atomic_load(&plug->begun);
	bool stable;
	int fd, err;

	WHAT(w, "open device %u, mode %d", dev, mode);
	if (file->fd >= 0) {
		close(file->fd);
		file->fd = -1;
	}
	fd = open(devices[dev].node, mode | O_CLOEXEC);
	err = fd < 0 ? errno : 0;
	stable = back == begun && atomic_load(&plug->begun) == begun;
	expect(w, stable ? OK : OK | E(ENOENT) | E(ENXIO) | E(ENODEV), err);
	if (fd >= 0 && !stable)
		close(fd);	/* of which generation it is nobody knows */
	else if (fd >= 0)
		*file = (struct file) { fd, dev, mode, begun };
}

static void op_close(struct worker *w)
{
	struct file *file = some_file(w);

	WHAT(w, "close a file");
	if (!file)
		return;
	expect(w, OK, close(file->fd) ? errno : 0);
	file->fd = -1;
}

static void op_dup(struct worker *w)
{
	struct file *file = some_file(w);
	int fd;

	WHAT(w, "duplicate a file, close the first");
	if (!file)
		return;
	fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 0);
	expect(w, OK, fd < 0 ? errno : 0);
	close(file->fd);
	file->fd = fd;
}

/* Somewhere in the arena, as anybody would or at any odd place */
static void op_mmap(struct worker *w)
{
	uint32_t window, offset, n, at;
	unsigned int before;
	struct source s;
	errors want = 0;
	int prot, flags, err;
	void *p;

	if (!some_source(w, &s))
		return;
	window = s.high - s.low;
	offset = one_in(w, 3) ? 0 : below(w, window + 2);
	n = some_pages(w, one_in(w, 10) ? window + 2 : window);
	if (n > ARENA)
		n = ARENA;
	at = below(w, ARENA - n + 1);
	/* Most of the time such that huge pages are possible */
	if (!one_in(w, 3) && at >= 512)
		at = (at & ~511) + (s.low + offset) % 512;
	if (at + n > ARENA)
		n = ARENA - at;
	prot = some_prot(w);
	flags = one_in(w, 20) ? MAP_PRIVATE : one_in(w, 8) ? MAP_SHARED_VALIDATE : MAP_SHARED;
	if (one_in(w, 8))
		flags |= MAP_POPULATE;
	WHAT(w, "mmap device %u window %u-%u at page %u: offset %u, %u pages, prot %d, flags %#x",
	     s.dev, s.low, s.high, at, offset, n, prot, flags);

	if ((flags & MAP_TYPE) == MAP_PRIVATE)
		want |= E(EINVAL);
	if (offset > window || n > window - offset)
		want |= E(EINVAL);
	if (!s.may_read)
		want |= E(EACCES);
	if ((prot & PROT_WRITE) && !s.may_write && (flags & MAP_TYPE) != MAP_PRIVATE)
		want |= E(EACCES);
	if (!want)
		want = OK;

	pthread_rwlock_rdlock(&holes);
	before = moment(s.dev);
	p = mmap(w->base + at * PAGE, n * PAGE, prot, flags | MAP_FIXED, s.fd, offset * PAGE);
	err = p == MAP_FAILED ? errno : 0;
	if (err)
		reserve(w, at, n);
	pthread_rwlock_unlock(&holes);

	expect_life(w, want, err, life_of(s.dev, s.gen, before));
	if (!err)
		fill(w, at, n, &s, offset, prot);
}

/* Arguments that nobody would use */
static void op_mmap_absurd(struct worker *w)
{
	uint64_t size, offset, length;
	unsigned int before;
	struct source s;
	bool inside;
	int err = 0;
	void *p;

	if (!some_source(w, &s))
		return;
	size = (s.high - s.low) * PAGE;
	offset = boundary(w, size);
	length = boundary(w, size);
	WHAT(w, "mmap device %u window %u-%u: offset %#llx, length %#llx", s.dev, s.low, s.high,
	     (unsigned long long)offset, (unsigned long long)length);

	pthread_rwlock_wrlock(&holes);
	before = moment(s.dev);
	p = (void *)syscall(SYS_mmap, NULL, length, PROT_READ, MAP_SHARED, s.fd, offset);
	if (p == MAP_FAILED)
		err = errno;
	else
		munmap(p, length);
	pthread_rwlock_unlock(&holes);

	inside = length && !(offset % PAGE) && offset < size && length <= size - offset;
	if (inside && s.may_read)
		expect_life(w, OK, err, life_of(s.dev, s.gen, before));
	else
		expect_life(w, E(EINVAL) | (s.may_read ? 0 : E(EACCES)) | E(ENOMEM) | E(EOVERFLOW),
			    err, life_of(s.dev, s.gen, before));
}

/* Where the kernel likes, and away again in two pieces */
static void op_mmap_anywhere(struct worker *w)
{
	uint32_t window, offset, n, cut_at;
	uint64_t first = 0, last = 0;
	unsigned int before;
	int err = 0, sig = 0;
	enum life life;
	struct source s;
	char *p;

	if (!some_source(w, &s))
		return;
	window = s.high - s.low;
	offset = below(w, window);
	n = some_pages(w, window - offset);
	cut_at = below(w, n);
	WHAT(w, "mmap device %u window %u-%u anywhere: offset %u, %u pages", s.dev, s.low, s.high,
	     offset, n);

	pthread_rwlock_wrlock(&holes);
	before = moment(s.dev);
	p = mmap(NULL, n * PAGE, PROT_READ, MAP_SHARED, s.fd, offset * PAGE);
	if (p == MAP_FAILED) {
		err = errno;
	} else {
		sig = access_word((void *)(p + (n - 1) * PAGE), &last, false);
		if (!sig)
			sig = access_word((void *)p, &first, false);
		if (munmap(p + cut_at * PAGE, (n - cut_at) * PAGE) ||
		    (cut_at && munmap(p, cut_at * PAGE)))
			wrong(w, "munmap failed with %s", name_of(errno));
	}
	pthread_rwlock_unlock(&holes);

	life = life_of(s.dev, s.gen, before);
	expect_life(w, s.may_read ? OK : E(EACCES), err, life);
	if (err)
		return;
	if (sig && life == ALIVE)
		wrong(w, "signal %d", sig);
	if (sig)
		return;
	check_value(w, first, s.dev, s.low + offset, 0);
	check_value(w, last, s.dev, s.low + offset + n - 1, 0);
}

static void op_read(struct worker *w)
{
	uint32_t at = some_page(w);

	WHAT(w, "read page %u", at);
	look(w, at, below(w, 4), false);
}

static void op_write(struct worker *w)
{
	uint32_t at = some_page(w);

	/* Find a page of our own nearby. */
	for (int i = 0;
	     i < 64 && at < ARENA - 1 && w->arena[at].mapped && !mine(w, w->arena[at].page); i++)
		at++;
	WHAT(w, "write page %u", at);
	look(w, at, below(w, 4), true);
}

static void op_read_all(struct worker *w)
{
	uint32_t at = some_page(w);
	uint32_t n = run_of(w, at, some_pages(w, 600), true);
	unsigned int word = below(w, 4);

	WHAT(w, "read pages %u-%u", at, at + n);
	for (uint32_t i = 0; i < n; i++)
		look(w, at + i, word, false);
}

static void op_munmap(struct worker *w)
{
	uint32_t at = some_page(w);
	uint32_t n = some_pages(w, ARENA - at < 700 ? ARENA - at : 700);
	int err;

	WHAT(w, "munmap pages %u-%u", at, at + n);
	pthread_rwlock_rdlock(&holes);
	err = munmap(w->base + at * PAGE, n * PAGE) ? errno : 0;
	cut(w, at, n);
	reserve(w, at, n);
	pthread_rwlock_unlock(&holes);
	expect(w, OK, err);
}

static void op_mprotect(struct worker *w)
{
	uint32_t at = some_page(w), i;
	uint32_t n = run_of(w, at, some_pages(w, 300), false);
	int prot = some_prot(w), err;
	bool refused = false;

	if (!n)
		return;
	WHAT(w, "mprotect pages %u-%u, prot %d", at, at + n, prot);
	err = mprotect(w->base + at * PAGE, n * PAGE, prot) ? errno : 0;
	cut(w, at, n);
	/* VMAs before the one that refuses have changed. */
	for (i = 0; i < n && !refused; i++) {
		refused = (prot & PROT_WRITE) && !w->arena[at + i].may_write;
		if (!refused)
			w->arena[at + i].prot = prot;
	}
	expect(w, refused ? E(EACCES) : OK, err);
}

static void op_mremap_shrink(struct worker *w)
{
	uint32_t at = some_page(w);
	uint32_t n = run_of(w, at, some_pages(w, 600), true);
	uint32_t rest;
	void *p;
	int err;

	if (n < 2)
		return;
	rest = 1 + below(w, n - 1);
	WHAT(w, "mremap pages %u-%u to %u pages", at, at + n, rest);
	pthread_rwlock_rdlock(&holes);
	p = mremap(w->base + at * PAGE, n * PAGE, rest * PAGE, one_in(w, 2) ? MREMAP_MAYMOVE : 0);
	err = p == MAP_FAILED ? errno : 0;
	cut(w, at, n);
	if (!err)
		reserve(w, at + rest, n - rest);
	pthread_rwlock_unlock(&holes);
	expect(w, OK, err);
	if (!err && p != w->base + at * PAGE)
		wrong(w, "shrinking moved the mapping");
}

static void op_mremap_move(struct worker *w)
{
	uint32_t at = some_page(w);
	uint32_t n = run_of(w, at, some_pages(w, 600), true);
	uint32_t to = below(w, ARENA - n + 1);
	bool dontunmap = one_in(w, 10);
	void *p;
	int err;

	if (one_in(w, 2) && to >= 512)	/* keeps huge pages */
		to = (to & ~511) + at % 512;
	if (!n || to + n > ARENA || (to < at + n && at < to + n))
		return;
	WHAT(w, "mremap pages %u-%u to %u%s", at, at + n, to,
	     dontunmap ? ", without unmapping" : "");
	pthread_rwlock_rdlock(&holes);
	p = mremap(w->base + at * PAGE, n * PAGE, n * PAGE,
		   MREMAP_MAYMOVE | MREMAP_FIXED | (dontunmap ? MREMAP_DONTUNMAP : 0),
		   w->base + to * PAGE);
	err = p == MAP_FAILED ? errno : 0;
	cut(w, at, n);
	cut(w, to, n);
	if (err) {
		reserve(w, to, n);
	} else {
		memcpy(&w->arena[to], &w->arena[at], n * sizeof(struct page));
		reserve(w, at, n);
	}
	pthread_rwlock_unlock(&holes);
	expect(w, dontunmap ? E(EINVAL) : OK, err);
}

/* Not one page more than was mapped, in no way */
static void op_mremap_grow(struct worker *w)
{
	uint32_t at = some_page(w);
	uint32_t n = run_of(w, at, some_pages(w, 600), true);
	uint32_t more = some_pages(w, 600), to;
	unsigned int how = below(w, 3);
	void *p;
	int err;

	if (!n)
		return;
	if (one_in(w, 5))
		n = 0;		/* a second mapping of the same */
	WHAT(w, "mremap pages %u-%u to %u pages, way %u", at, at + n, n + more, how);
	to = n + more <= ARENA ? below(w, ARENA - n - more + 1) : 0;
	if (how == 2 && (n + more > ARENA || (to < at + n + 1 && at < to + n + more)))
		how = 1;
	if (how == 2)
		pthread_rwlock_rdlock(&holes);
	else
		pthread_rwlock_wrlock(&holes);
	p = mremap(w->base + at * PAGE, n * PAGE, (n + more) * PAGE,
		   how == 0 ? 0 : how == 1 ? MREMAP_MAYMOVE : MREMAP_MAYMOVE | MREMAP_FIXED,
		   w->base + to * PAGE);
	err = p == MAP_FAILED ? errno : 0;
	if (how == 2) {
		cut(w, to, n + more);
		reserve(w, to, n + more);
	}
	pthread_rwlock_unlock(&holes);
	expect(w, n || how ? E(EFAULT) : E(EFAULT) | E(EINVAL), err);
}

static void op_madvise(struct worker *w)
{
	static const int advices[] = {
		MADV_DONTNEED, MADV_DONTNEED, MADV_REMOVE, MADV_FREE, MADV_WILLNEED, MADV_COLD,
		MADV_PAGEOUT, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_COLLAPSE, MADV_MERGEABLE,
		MADV_UNMERGEABLE, MADV_DONTDUMP, MADV_DODUMP, MADV_WIPEONFORK, MADV_SEQUENTIAL,
		MADV_RANDOM, MADV_NORMAL, MADV_POPULATE_READ, MADV_POPULATE_WRITE,
	};
	int advice = advices[below(w, sizeof(advices) / sizeof(*advices))];
	uint32_t at = some_page(w);
	uint32_t n = run_of(w, at, some_pages(w, 600), false);
	int err;

	if (!n)
		return;
	WHAT(w, "madvise pages %u-%u, advice %d", at, at + n, advice);
	err = madvise(w->base + at * PAGE, n * PAGE, advice) ? errno : 0;
	cut(w, at, n);
	/* Whatever it answers, every byte stays: that is looked at here and by all that follows. */
	expect(w, err == EINTR ? 0 : E(err), err);
	look(w, at, 0, false);
	look(w, at + n - 1, 3, false);
}

static void op_lock(struct worker *w)
{
	uint32_t at = some_page(w);
	uint32_t n = run_of(w, at, some_pages(w, 600), false);
	int err;

	if (!n)
		return;
	WHAT(w, "mlock, msync and munlock pages %u-%u", at, at + n);
	err = mlock(w->base + at * PAGE, n * PAGE) ? errno : 0;
	msync(w->base + at * PAGE, n * PAGE, MS_SYNC);
	munlock(w->base + at * PAGE, n * PAGE);
	cut(w, at, n);
	expect(w, OK | E(ENOMEM), err);		/* it reads every page, and some cannot be read */
}

/*
 * Old and emulated, and the one call that asks for another part of a mapping's file without its
 * descriptor: it must not show what the descriptor that was mapped could not.
 */
static void op_remap_file_pages(struct worker *w)
{
	uint32_t at = some_page(w);
	uint32_t n = run_of(w, at, some_pages(w, 40), true);
	struct page was = w->arena[at];
	uint32_t to = below(w, devices[was.dev].pages + 2), shown;
	unsigned int before = moment(was.dev);
	struct source s;
	uint64_t value;
	int err;

	if (!n)
		return;
	WHAT(w, "remap_file_pages pages %u-%u to %u", at, at + n, to);
	pthread_rwlock_rdlock(&holes);
	err = syscall(SYS_remap_file_pages, w->base + at * PAGE, n * PAGE, 0, (size_t)to, 0) ?
	      errno : 0;
	cut(w, at, n);
	if (err)
		reserve(w, at, n);
	pthread_rwlock_unlock(&holes);
	expect(w, OK | E(EINVAL) | (life_of(was.dev, was.gen, before) == ALIVE ? 0 : E(ENODEV)),
	       err);
	if (err)
		return;

	s = (struct source) { .dev = was.dev, .may_write = was.may_write, .low = was.low,
			      .high = was.high, .gen = was.gen };
	fill(w, at, n, &s, 0, was.prot);
	if (!(was.prot & (PROT_READ | PROT_WRITE)) ||
	    access_word((void *)(w->base + at * PAGE), &value, false)) {
		/* Not known what it shows */
		pthread_rwlock_rdlock(&holes);
		reserve(w, at, n);
		pthread_rwlock_unlock(&holes);
		return;
	}
	shown = value >> 32 & 0xffffff;
	if (value >> 56 != 0xa0U + was.dev || shown < was.low || shown + n > was.high)
		wrong(w, "shows %#llx, but the mapping was one of device %u, window %u-%u",
		      (unsigned long long)value, was.dev, was.low, was.high);
	fill(w, at, n, &s, shown - was.low, was.prot);
}

/* The kernel reads for somebody: through the page tables, and through get_user_pages(). */
static void op_copy(struct worker *w)
{
	uint32_t at = some_page(w);
	struct page *page = &w->arena[at];
	unsigned int before = moment(page->dev), word = below(w, 4);
	uint64_t value = 0xdeadbeefdeadbeef;
	void *address = w->base + at * PAGE + word_offset[word];
	struct iovec from = { address, 8 }, to = { &value, 8 };
	bool pipe = one_in(w, 2);
	/* The processor reads what it can write, get_user_pages() does not. */
	bool readable = page->mapped && (page->prot & (pipe ? PROT_READ | PROT_WRITE : PROT_READ));
	enum life life;
	ssize_t n;
	int err;

	WHAT(w, "%s from page %u", pipe ? "write to a pipe" : "process_vm_readv", at);
	if (pipe) {
		n = write(w->pipe[1], address, 8);
		if (n == 8 && read(w->pipe[0], &value, 8) != 8)
			wrong(w, "the pipe is empty");
	} else {
		n = process_vm_readv(getpid(), &to, 1, &from, 1, 0);
	}
	err = n == 8 ? 0 : errno;
	life = life_of(page->dev, page->gen, before);
	if (!readable)
		expect(w, E(EFAULT), err);
	else if (!pipe && !devices[page->dev].dmabuf)
		expect(w, E(EFAULT), err);	/* no struct pages to get */
	else if (!pipe && !devices[page->dev].pins)
		expect(w, OK | E(EFAULT), err);	/* only where huge pages fit */
	else
		expect(w, life == ALIVE ? OK : life == DEAD ? E(EFAULT) : OK | E(EFAULT), err);
	if (!err && readable)
		check_value(w, value, page->dev, page->page, word);
}

/* A long-term pin, as VFIO takes one */
static void op_pin(struct worker *w)
{
	struct io_uring_params params = { 0 };
	uint32_t at = some_page(w);
	struct page *page = &w->arena[at];
	uint32_t n = run_of(w, at, some_pages(w, 600), true);
	struct iovec range = { w->base + at * PAGE, n * PAGE };
	unsigned int before = moment(page->dev);
	errors want = OK;
	int ring, err;

	if (!n)
		return;
	WHAT(w, "pin pages %u-%u", at, at + n);
	ring = syscall(SYS_io_uring_setup, 1, &params);
	if (ring < 0)
		return;
	err = syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &range, 1) ?
	      errno : 0;
	if (!pins_files)
		want = E(EOPNOTSUPP) | E(EFAULT);
	else if (!(page->prot & PROT_WRITE) || !devices[page->dev].dmabuf)
		want = E(EFAULT);
	else if (!devices[page->dev].pins || life_of(page->dev, page->gen, before) != ALIVE)
		want = OK | E(EFAULT);
	expect(w, want, err);
	look(w, at, 0, false);
	close(ring);
}

static void op_getsize(struct worker *w)
{
	struct file *file = some_file(w);
	unsigned int before;
	int size, err;

	if (!file)
		return;
	WHAT(w, "get the size of device %u", file->dev);
	before = moment(file->dev);
	size = ioctl(file->fd, KVMFR_DMABUF_GETSIZE, any(w));
	err = size < 0 ? errno : 0;
	expect_life(w, OK, err, life_of(file->dev, file->gen, before));
	if (!err && (uint32_t)size != devices[file->dev].pages * PAGE)
		wrong(w, "is %d", size);
}

static void op_seek(struct worker *w)
{
	struct file *file = some_file(w);
	unsigned int before;
	uint64_t size, to;
	off_t at;
	int whence, err;

	if (!file)
		return;
	size = devices[file->dev].pages * PAGE;
	to = boundary(w, size);
	whence = below(w, 2) ? SEEK_SET : SEEK_END;
	WHAT(w, "seek device %u to %#llx, from %d", file->dev, (unsigned long long)to, whence);
	before = moment(file->dev);
	at = lseek(file->fd, to, whence);
	err = at < 0 ? errno : 0;
	if (whence == SEEK_END)
		to += size;
	expect_life(w, to <= size ? OK : E(EINVAL) | E(EOVERFLOW), err,
		    life_of(file->dev, file->gen, before));
	if (!err && (uint64_t)at != to)
		wrong(w, "is at %#llx", (unsigned long long)at);
}

static void op_ioctl_unknown(struct worker *w)
{
	struct file *file = some_file(w);
	unsigned int cmd, before;
	char junk[4096];
	int err;

	if (!file)
		return;
	/* Any number, or a near miss; never one that exists for all files */
	cmd = one_in(w, 2) ? _IOC(below(w, 4), 'u', below(w, 256), below(w, 64)) : any(w);
	if (cmd == KVMFR_DMABUF_GETSIZE || cmd == KVMFR_DMABUF_CREATE || _IOC_TYPE(cmd) == 'T' ||
	    cmd == KVMFR_DOORBELL_INFO || cmd == KVMFR_DOORBELL_RING ||
	    cmd == KVMFR_DOORBELL_EVENTFD || _IOC_TYPE(cmd) == 'f' || _IOC_TYPE(cmd) == 'X' || _IOC_TYPE(cmd) == 0)
		return;
	WHAT(w, "ioctl %#x", cmd);
	memset(junk, any(w), sizeof(junk));
	before = moment(file->dev);
	err = ioctl(file->fd, cmd, one_in(w, 2) ? (void *)junk : (void *)any(w)) < 0 ? errno : 0;
	expect_life(w, E(ENOTTY), err, life_of(file->dev, file->gen, before));
}

/* Numbers of peers, vectors and descriptors, that are there and that are not */
static uint32_t small_number(struct worker *w, uint32_t limit)
{
	const uint32_t values[] = { 0, limit, limit - 1, 255, 256, 65535, 65536, -1U, any(w) };

	return one_in(w, 2) ? below(w, limit) : values[below(w, 9)];
}

static void op_doorbell(struct worker *w)
{
	struct file *file = some_file(w);
	struct kvmfr_doorbell_eventfd listen;
	struct kvmfr_doorbell_info info;
	struct kvmfr_doorbell_ring ring;
	unsigned int before, how = below(w, 3);
	uint32_t vectors;
	errors want = OK;
	int err;

	if (!file)
		return;
	vectors = devices[file->dev].vectors;
	ring.peer = small_number(w, 4);
	ring.vector = listen.vector = small_number(w, vectors ?: 4);
	listen.fd = one_in(w, 4) ? -1 : one_in(w, 8) ? (int)any(w) | 1 << 20 :
		    one_in(w, 8) ? file->fd : w->event;
	WHAT(w, "doorbell of device %u, way %u: peer %#x vector %#x fd %d", file->dev, how,
	     ring.peer, ring.vector, listen.fd);
	before = moment(file->dev);
	err = (how == 0 ? ioctl(file->fd, KVMFR_DOORBELL_INFO, &info) :
	       how == 1 ? ioctl(file->fd, KVMFR_DOORBELL_RING, &ring) :
			  ioctl(file->fd, KVMFR_DOORBELL_EVENTFD, &listen)) ? errno : 0;
	if (!vectors)
		want = E(EOPNOTSUPP);
	else if (how == 1 && file->mode == O_RDONLY)
		want = E(EACCES);
	else if (how == 1 && (ring.peer > 65535 || ring.vector > 65535))
		want = E(EINVAL);
	else if (how == 2 && listen.vector >= vectors)
		want = E(EINVAL);
	else if (how == 2 && listen.fd != -1)
		want = listen.fd == w->event ? OK | E(ENOSPC) :
		       listen.fd == file->fd ? E(EINVAL) : E(EBADF);
	expect_life(w, want, err, life_of(file->dev, file->gen, before));
	if (how == 0 && !err && info.vectors != vectors)
		wrong(w, "has %u vectors", info.vectors);
}

static void op_nonsense(struct worker *w)
{
	struct file *file = some_file(w);
	int err;

	if (!file)
		return;
	WHAT(w, "truncate a device");
	err = ftruncate(file->fd, PAGE) < 0 ? errno : 0;
	expect(w, E(EINVAL) | E(EBADF), err);
}

/* Nothing has ever to be written back. */
static void op_sync(struct worker *w)
{
	struct file *file = some_file(w);
	bool data = one_in(w, 2);
	unsigned int before;
	int err;

	if (!file)
		return;
	WHAT(w, "%s device %u", data ? "fdatasync" : "fsync", file->dev);
	before = moment(file->dev);
	err = (data ? fdatasync(file->fd) : fsync(file->fd)) ? errno : 0;
	expect_life(w, OK, err, life_of(file->dev, file->gen, before));
}

/* read(), and what it has read is what was written by whatever way */
static void op_pread(struct worker *w)
{
	static __thread char buffer[24 * 65536];
	struct file *file = some_file(w);
	uint32_t page, n, pages;
	unsigned int before;
	enum life life;
	ssize_t got;
	int err;

	if (!file)
		return;
	page = below(w, devices[file->dev].pages);
	n = some_pages(w, devices[file->dev].pages - page);
	if (n > 24)
		n = 24;
	WHAT(w, "pread device %u pages %u-%u", file->dev, page, page + n);
	before = moment(file->dev);
	got = pread(file->fd, buffer, n * PAGE, page * PAGE);
	err = got < 0 ? errno : 0;
	life = life_of(file->dev, file->gen, before);
	expect_life(w, file->mode == O_WRONLY ? E(EBADF) : OK, err, life);
	if (err)
		return;
	if (got == 0 || got > (ssize_t)(n * PAGE) || (life == ALIVE && got < (ssize_t)(n * PAGE)))
		wrong(w, "returned %zd", got);
	pages = got / PAGE;
	for (uint32_t i = 0; i < pages; i++) {
		unsigned int word = below(w, 4);
		uint64_t value;

		memcpy(&value, buffer + i * PAGE + word_offset[word], 8);
		check_value(w, value, file->dev, page + i, word);
	}
}

static void op_pwrite(struct worker *w)
{
	struct file *file = some_file(w);
	unsigned int before, word = below(w, 4);
	uint32_t page, count;
	enum life life;
	uint64_t value;
	ssize_t put;
	int err;

	if (!file)
		return;
	page = below(w, devices[file->dev].pages / nr_workers) * nr_workers + w->id;
	count = shared->written[file->dev][page][word] + 1;
	value = word_value(file->dev, page, count);
	WHAT(w, "pwrite device %u page %u word %u", file->dev, page, word);
	before = moment(file->dev);
	put = pwrite(file->fd, &value, 8, page * PAGE + word_offset[word]);
	err = put < 0 ? errno : 0;
	life = life_of(file->dev, file->gen, before);
	expect_life(w, file->mode == O_RDONLY ? E(EBADF) : OK, err, life);
	if (err)
		return;
	if (put != 8)
		wrong(w, "returned %zd", put);
	else
		shared->written[file->dev][page][word] = count;
}

/* Reads anywhere; writes nothing, or past the end, or from nowhere. */
static void op_pread_absurd(struct worker *w)
{
	struct file *file = some_file(w);
	unsigned int before, how = below(w, 3);
	uint64_t size, at;
	char buffer[8];
	errors want = OK;
	ssize_t done;
	int err;

	if (!file)
		return;
	size = devices[file->dev].pages * PAGE;
	at = boundary(w, size);
	if (how == 1 && at < size)
		at += size;
	WHAT(w, "%s device %u at %#llx", how == 0 ? "pread" : how == 1 ? "pwrite" :
	     "pwrite from nowhere", file->dev, (unsigned long long)at);
	before = moment(file->dev);
	done = how == 0 ? pread(file->fd, buffer, 8, at) :
	       how == 1 ? pwrite(file->fd, buffer, 8, at) : pwrite(file->fd, (void *)PAGE, 8, at);
	err = done < 0 ? errno : 0;
	if (file->mode == (how ? O_RDONLY : O_WRONLY))
		want = E(EBADF) | ((int64_t)(at + 8) < 0 || (int64_t)at < 0 ? E(EINVAL) : 0);
	else if ((int64_t)(at + 8) < 0 || (int64_t)at < 0)
		want = E(EINVAL);
	else if (how)
		want = at < size ? E(EFAULT) : OK;
	if (want == E(EINVAL))
		expect(w, want, err);
	else
		expect_life(w, want, err, life_of(file->dev, file->gen, before));
	if (!how && !err && done != (ssize_t)(at >= size ? 0 : size - at < 8 ? size - at : 8))
		wrong(w, "returned %zd", done);
}

static void close_buffer(struct worker *w, struct buffer *buffer)
{
	struct drm_gem gem = { buffer->handle, 0 };

	if (buffer->fd < 0)
		return;
	if (buffer->handle && ioctl(w->drm, DRM_GEM_CLOSE, &gem))
		wrong(w, "closing an import failed with %s", name_of(errno));
	if (close(buffer->fd))
		wrong(w, "close failed with %s", name_of(errno));
	*buffer = (struct buffer) { .fd = -1 };
}

static void op_create(struct worker *w)
{
	struct buffer *buffer = &w->buffer[below(w, BUFFERS)];
	struct file *file = some_file(w);
	struct kvmfr_dmabuf_create create;
	unsigned int before;
	uint64_t size;
	errors want = 0;
	bool bad_pointer;
	int fd, err;

	if (!file)
		return;
	size = devices[file->dev].pages * PAGE;
	memset(&create, any(w), sizeof(create));	/* the padding, too */
	create.flags = one_in(w, 20) ? any(w) : KVMFR_DMABUF_FLAG_CLOEXEC;
	if (one_in(w, 4)) {
		create.offset = boundary(w, size);
		create.size = boundary(w, size);
	} else {
		create.offset = below(w, devices[file->dev].pages) * PAGE;
		create.size = some_pages(w, (size - create.offset) / PAGE) * PAGE;
	}
	bad_pointer = one_in(w, 50);
	WHAT(w, "create a DMA-BUF of device %u: flags %#x, offset %#llx, size %#llx%s", file->dev,
	     create.flags, (unsigned long long)create.offset, (unsigned long long)create.size,
	     bad_pointer ? ", bad pointer" : "");

	if (bad_pointer)
		want |= E(EFAULT);
	else {
		if (create.flags & ~KVMFR_DMABUF_FLAG_CLOEXEC)
			want |= E(EINVAL);
		if (!create.size || create.size % PAGE || create.offset % PAGE ||
		    create.size > size || create.offset > size - create.size)
			want |= E(EINVAL);
		if (file->mode != O_RDWR)
			want |= E(EACCES);
		if (!devices[file->dev].dmabuf)
			want |= E(EOPNOTSUPP);
		if (!want)
			want = OK;
	}

	close_buffer(w, buffer);
	before = moment(file->dev);
	fd = ioctl(file->fd, KVMFR_DMABUF_CREATE, bad_pointer ? (void *)-PAGE : &create);
	err = fd < 0 ? errno : 0;
	expect_life(w, want, err, life_of(file->dev, file->gen, before));
	if (err)
		return;
	*buffer = (struct buffer) {
		.fd = fd, .dev = file->dev, .first = create.offset / PAGE,
		.pages = create.size / PAGE, .gen = file->gen,
	};
	if (lseek(fd, 0, SEEK_END) != (off_t)create.size)
		wrong(w, "the DMA-BUF has another size");
	if (!!(fcntl(fd, F_GETFD) & FD_CLOEXEC) != !!(create.flags & KVMFR_DMABUF_FLAG_CLOEXEC))
		wrong(w, "close-on-exec is not as asked for");
}

static void op_buffer_close(struct worker *w)
{
	struct buffer *buffer = some_buffer(w);

	WHAT(w, "close a DMA-BUF");
	if (buffer)
		close_buffer(w, buffer);
}

static void op_buffer_sync(struct worker *w)
{
	struct buffer *buffer = some_buffer(w);
	struct dma_buf_sync sync;
	unsigned int before;
	bool valid;
	int err;

	if (!buffer)
		return;
	sync.flags = one_in(w, 8) ? any(w) : below(w, 8);
	valid = !(sync.flags & ~DMA_BUF_SYNC_VALID_FLAGS_MASK) && (sync.flags & DMA_BUF_SYNC_RW);
	WHAT(w, "sync a DMA-BUF of device %u, flags %#llx", buffer->dev,
	     (unsigned long long)sync.flags);
	before = moment(buffer->dev);
	err = ioctl(buffer->fd, DMA_BUF_IOCTL_SYNC, &sync) ? errno : 0;
	if (valid && (sync.flags & DMA_BUF_SYNC_END))
		expect(w, OK, err);	/* what was begun can be ended, always */
	else if (valid)
		expect_life(w, OK, err, life_of(buffer->dev, buffer->gen, before));
	else
		expect(w, E(EINVAL), err);
}

/* A GPU driver attaches and maps it. Removal waits until it lets go, so not for long. */
static void op_import(struct worker *w)
{
	struct drm_prime prime = { 0 };
	struct buffer *buffer = some_buffer(w);
	unsigned int before;
	int err;

	if (!buffer || w->drm < 0)
		return;
	if (buffer->handle) {
		struct drm_gem gem = { buffer->handle, 0 };

		WHAT(w, "close the import of a DMA-BUF of device %u", buffer->dev);
		expect(w, OK, ioctl(w->drm, DRM_GEM_CLOSE, &gem) ? errno : 0);
		buffer->handle = 0;
		return;
	}
	WHAT(w, "import a DMA-BUF of device %u", buffer->dev);
	prime.fd = buffer->fd;
	before = moment(buffer->dev);
	err = ioctl(w->drm, DRM_PRIME_FD_TO_HANDLE, &prime) ? errno : 0;
	expect_life(w, OK, err, life_of(buffer->dev, buffer->gen, before));
	if (err)
		return;
	buffer->handle = prime.handle;
	if (!one_in(w, 8))
		op_import(w);
}

/* A child sees what its parent sees, and leaves without cleaning up. */
static void op_fork(struct worker *w)
{
	struct rlimit none = { 0, 0 };
	struct kvmfr_dmabuf_create create = { .size = PAGE };
	struct file *file = some_file(w);
	uint32_t at[16];
	unsigned int before;
	int status;
	pid_t pid;

	for (int i = 0; i < 16; i++)
		at[i] = some_page(w);
	WHAT(w, "fork");
	pid = fork();
	if (pid < 0) {
		wrong(w, "fork failed with %s", name_of(errno));
		return;
	}
	if (pid) {
		if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status))
			wrong(w, "the child ended with status %#x", status);
		return;
	}

	for (int i = 0; i < 16; i++)
		look(w, at[i], i % 4, i % 4 == 0);
	munmap(w->base + at[0] * PAGE, PAGE);
	if (file) {
		setrlimit(RLIMIT_NOFILE, &none);
		before = moment(file->dev);
		status = ioctl(file->fd, KVMFR_DMABUF_CREATE, &create) < 0 ? errno : 0;
		expect_life(w, file->mode != O_RDWR ? E(EACCES) | E(EOPNOTSUPP) :
			    devices[file->dev].dmabuf ? E(EMFILE) : E(EOPNOTSUPP), status,
			    life_of(file->dev, file->gen, before));
	}
	_exit(0);
}

static const struct {
	const char *name;
	void (*run)(struct worker *w);
	unsigned int weight;
} operations[] = {
	{ "open", op_open, 60 },
	{ "close", op_close, 20 },
	{ "dup", op_dup, 10 },
	{ "mmap", op_mmap, 140 },
	{ "mmap absurd", op_mmap_absurd, 30 },
	{ "mmap anywhere", op_mmap_anywhere, 20 },
	{ "read", op_read, 350 },
	{ "write", op_write, 350 },
	{ "read all", op_read_all, 8 },
	{ "munmap", op_munmap, 50 },
	{ "mprotect", op_mprotect, 40 },
	{ "mremap shrink", op_mremap_shrink, 20 },
	{ "mremap move", op_mremap_move, 30 },
	{ "mremap grow", op_mremap_grow, 20 },
	{ "madvise", op_madvise, 50 },
	{ "mlock", op_lock, 10 },
	{ "remap_file_pages", op_remap_file_pages, 10 },
	{ "copy", op_copy, 40 },
	{ "pin", op_pin, 4 },
	{ "getsize", op_getsize, 40 },
	{ "seek", op_seek, 40 },
	{ "ioctl unknown", op_ioctl_unknown, 40 },
	{ "nonsense", op_nonsense, 2 },
	{ "sync", op_sync, 5 },
	{ "doorbell", op_doorbell, 60 },
	{ "pread", op_pread, 60 },
	{ "pwrite", op_pwrite, 60 },
	{ "pread absurd", op_pread_absurd, 20 },
	{ "create", op_create, 80 },
	{ "buffer close", op_buffer_close, 20 },
	{ "buffer sync", op_buffer_sync, 60 },
	{ "import", op_import, 12 },
	{ "fork", op_fork, 1 },
};

#define NR_OPERATIONS (sizeof(operations) / sizeof(*operations))

static void one_operation(struct worker *w)
{
	unsigned int total = 0, i;
	uint32_t dice;

	for (i = 0; i < NR_OPERATIONS; i++)
		total += operations[i].weight;
	w->random = mix(mix(seed) ^ mix((uint64_t)w->id << 40 ^ w->op));
	dice = below(w, total);
	for (i = 0; dice >= operations[i].weight; i++)
		dice -= operations[i].weight;
	current_op = i;
	operations[i].run(w);
}

/* ----------------------------------- workers ------------------------------ */

static void *work(void *arg)
{
	struct worker *w = arg;

	while (w->op < w->ops && !atomic_load(&shared->stop)) {
		one_operation(w);
		w->op++;
		atomic_store(&shared->done[w->id], w->op);
		atomic_fetch_add(&shared->ops, 1);
	}
	return NULL;
}

static void prepare(struct worker *w, unsigned int id, unsigned long ops)
{
	char *p = mmap(NULL, ARENA * PAGE + HUGE, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	w->id = id;
	w->ops = ops;
	w->base = (char *)(((uintptr_t)p + HUGE - 1) & -HUGE);
	w->drm = open("/dev/dri/card0", O_RDWR | O_CLOEXEC);
	w->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p == MAP_FAILED || w->event < 0 || pipe2(w->pipe, O_CLOEXEC | O_NONBLOCK))
		wrong(w, "setting up failed with %s", name_of(errno));
	for (int i = 0; i < FILES; i++)
		w->file[i].fd = -1;
	for (int i = 0; i < BUFFERS; i++)
		w->buffer[i].fd = -1;
}

static void work_as_process(unsigned int first, unsigned int threads, unsigned long ops)
{
	const struct sigaction catch = { .sa_sigaction = caught,
					 .sa_flags = SA_SIGINFO | SA_NODEFER };
	struct worker *workers = calloc(threads, sizeof(*workers));

	sigaction(SIGSEGV, &catch, NULL);
	sigaction(SIGBUS, &catch, NULL);
	for (unsigned int i = 0; i < threads; i++) {
		prepare(&workers[i], first + i, ops);
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			wrong(&workers[i], "no thread");
	}
	for (unsigned int i = 0; i < threads; i++)
		pthread_join(workers[i].thread, NULL);
	/* Everything that is open or mapped goes away with the process. */
	_exit(0);
}

/* --------------------------------- plugging ------------------------------- */

static bool put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return done;
}

/* Away and back: unbound from the driver, or removed from the bus and found again */
static void replug(struct worker *w, unsigned int dev)
{
	struct plug *plug = &shared->plug[dev];
	bool remove = one_in(w, 4);
	char path[96];

	WHAT(w, "%s %s", remove ? "remove" : "unbind", devices[dev].address);
	atomic_fetch_add(&plug->begun, 1);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/remove", devices[dev].address);
	if (!(remove ? put(path, "1") :
		       put("/sys/bus/pci/drivers/kvmfr/unbind", devices[dev].address))) {
		wrong(w, "failed with %s", name_of(errno));
		return;
	}
	if (!access(devices[dev].node, F_OK))
		wrong(w, "%s is still there", devices[dev].node);
	atomic_store(&plug->ended, atomic_load(&plug->begun));
	if (one_in(w, 2))
		usleep(below(w, 20000));
	if (!(remove ? put("/sys/bus/pci/rescan", "1") :
		       put("/sys/bus/pci/drivers/kvmfr/bind", devices[dev].address))) {
		wrong(w, "coming back failed with %s", name_of(errno));
		return;
	}
	if (access(devices[dev].node, F_OK))
		wrong(w, "%s did not come back", devices[dev].node);
	atomic_store(&plug->back, atomic_load(&plug->begun));
	atomic_fetch_add(&shared->cycles, 1);
}

/* ------------------------------ static_size_mb ---------------------------- */

#define PARAMETER	"/sys/module/kvmfr/parameters/static_size_mb"
#define EXTRA_DEVICES	6
#define EXTRA_MB	4	/* at most */

/* What keeps a static device from being removed, by its minor number */
static struct hold {
	uint64_t size;		/* of the device, 0: nothing does */
	int fd;			/* of the device or of its DMA-BUF; -1: there is a mapping only */
	void *base;
	bool stays;		/* to the end, since the workers use it */
} holds[64];

static char kept[64], sizes[96];	/* those at the beginning, which stay; those there are */

static void let_go(struct hold *hold)
{
	if (hold->size && hold->fd >= 0)
		close(hold->fd);
	else if (hold->size)
		munmap(hold->base, hold->size);
	*hold = (struct hold){ 0 };
}

/* By a descriptor; or if @any, perhaps by a mapping or a DMA-BUF */
static void hold_minor(struct worker *w, unsigned int minor, bool any)
{
	struct kvmfr_dmabuf_create create = { 0 };
	struct hold *hold = &holds[minor];
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/sys/class/kvmfr/kvmfr%u/device", minor);
	if (!access(path, F_OK))
		return;		/* an IVSHMEM device */
	snprintf(path, sizeof(path), "/dev/kvmfr%u", minor);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	hold->size = create.size = lseek(fd, 0, SEEK_END);
	hold->fd = fd;
	if (any && one_in(w, 3)) {
		hold->base = mmap(NULL, hold->size, PROT_READ, MAP_SHARED, fd, 0);
		hold->fd = hold->base == MAP_FAILED ? fd : -1;
	} else if (any && one_in(w, 2)) {
		hold->fd = ioctl(fd, KVMFR_DMABUF_CREATE, &create);
		hold->fd = hold->fd < 0 ? fd : hold->fd;
	}
	if (hold->fd != fd)
		close(fd);
}

static bool read_sizes(char *text, size_t room)
{
	FILE *file = fopen(PARAMETER, "re");
	bool done = file && fgets(text, room, file);

	if (file)
		fclose(file);
	text[strcspn(text, "\n")] = 0;
	return done;
}

/* Of each size the list needs as many as are held, or nothing may change. */
static int answer_to(const char *list)
{
	for (unsigned int i = 0; i < 64; i++) {
		int n = 0;

		for (unsigned int j = 0; j < 64; j++)
			n += holds[i].size && holds[j].size == holds[i].size;
		for (const char *p = list; p && *p; p = strchr(p, ','), p += !!p)
			n -= strtoul(p, NULL, 10) << 20 == holds[i].size;
		if (n > 0)
			return EBUSY;
	}
	return 0;
}

static void append(char *list, size_t room, unsigned int mb)
{
	snprintf(list + strlen(list), room - strlen(list), "%s%u", *list ? "," : "", mb);
}

static void resize(struct worker *w)
{
	char list[96], now[96] = "";
	int want, got;

	for (unsigned int minor = 0; minor < 16; minor++) {
		if (holds[minor].stays || one_in(w, 2))
			continue;
		let_go(&holds[minor]);
		if (one_in(w, 2))
			hold_minor(w, minor, true);
	}
	snprintf(list, sizeof(list), "%s", kept);
	for (unsigned int minor = 0; minor < 16; minor++)
		if (holds[minor].size && !holds[minor].stays && !one_in(w, 8))
			append(list, sizeof(list), holds[minor].size >> 20);
	for (unsigned int n = below(w, EXTRA_DEVICES + 1); n; n--)
		append(list, sizeof(list), 1 + below(w, EXTRA_MB));
	WHAT(w, "%s becomes %s", sizes, list);
	want = answer_to(list);
	got = put(PARAMETER, *list ? list : "\n") ? 0 : errno;
	if (got != want)
		wrong(w, "answered %s, expected %s", name_of(got), name_of(want));
	if (!got)
		snprintf(sizes, sizeof(sizes), "%s", list);
	if (!read_sizes(now, sizeof(now)) || strcmp(now, sizes))
		wrong(w, "there is %s then", now);
	atomic_fetch_add(got ? &shared->resize.refused : &shared->resize.ok, 1);
}

static void *plug_and_unplug(void *arg)
{
	struct worker *w = arg;
	unsigned int pci[MAX_DEVICES], n = 0;
	unsigned long next = 0;

	for (unsigned int i = 0; i < nr_devices; i++)
		if (devices[i].address[0])
			pci[n++] = i;
	read_sizes(kept, sizeof(kept));
	snprintf(sizes, sizeof(sizes), "%s", kept);
	for (unsigned int minor = 0; minor < 64; minor++) {
		hold_minor(w, minor, false);
		holds[minor].stays = holds[minor].size;
	}
	for (w->op = 0; !atomic_load(&shared->stop); w->op++) {
		w->random = mix(mix(seed) ^ mix((uint64_t)w->id << 40 ^ w->op));
		next += 100 + below(w, 3000);
		while (atomic_load(&shared->ops) < next && !atomic_load(&shared->stop))
			usleep(1000);
		if (atomic_load(&shared->stop))
			break;
		if (n)
			replug(w, pci[below(w, n)]);
		for (unsigned int i = below(w, 8); i; i--)
			resize(w);
	}
	for (unsigned int minor = 0; minor < 64; minor++)
		let_go(&holds[minor]);
	return NULL;
}

/* ----------------------------------- main --------------------------------- */

static void die(const char *format, ...)
{
	va_list args;

	printf("# ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\nBail out!\n");
	exit(1);
}

static void load(void)
{
	const char *ko = getenv("KVMFR_KO");
	int fd;

	if (!access("/sys/module/kvmfr", F_OK))
		return;
	fd = open(ko ? ko : "/lib/kvmfr/kvmfr.ko", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || syscall(SYS_finit_module, fd, "static_size_mb=6,3", 0))
		die("cannot load kvmfr: %s", name_of(errno));
	close(fd);
}

static void find_devices(void)
{
	for (unsigned int minor = 0; nr_devices < MAX_DEVICES && minor < 64; minor++) {
		struct kvmfr_dmabuf_create create = { .size = PAGE };
		struct device *dev = &devices[nr_devices];
		char path[64], link[256], *base;
		FILE *vectors;
		ssize_t n;
		int fd, buffer;
		off_t size;

		snprintf(dev->node, sizeof(dev->node), "/dev/kvmfr%u", minor);
		fd = open(dev->node, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			continue;
		snprintf(path, sizeof(path), "/sys/class/kvmfr/kvmfr%u/device", minor);
		n = readlink(path, link, sizeof(link) - 1);
		if (n > 0) {
			link[n] = 0;
			base = strrchr(link, '/') + 1;
			snprintf(dev->address, sizeof(dev->address), "%.*s",
				 (int)sizeof(dev->address) - 1, base);
		}
		snprintf(path, sizeof(path), "/sys/class/kvmfr/kvmfr%u/vectors", minor);
		vectors = fopen(path, "re");
		if (vectors && fscanf(vectors, "%u", &dev->vectors) != 1)
			die("%s is no number", path);
		if (vectors)
			fclose(vectors);
		size = lseek(fd, 0, SEEK_END);
		dev->pages = size / PAGE;
		buffer = ioctl(fd, KVMFR_DMABUF_CREATE, &create);
		dev->dmabuf = buffer >= 0;
		dev->pins = dev->dmabuf && !dev->address[0];
		if (buffer >= 0)
			close(buffer);
		if (size > 0 && dev->pages <= MAX_PAGES) {
			printf("# device %u: %s, %u pages, %s%s, %u vectors\n", nr_devices,
			       dev->node, dev->pages, dev->address[0] ? dev->address : "static",
			       dev->dmabuf ? "" : ", without DMA-BUFs", dev->vectors);
			nr_devices++;
		}
		close(fd);
	}
	if (!nr_devices)
		die("there is no /dev/kvmfrN that can be opened");
}

/* Every word that is looked at, written or checked; which device is wrong, or -1 */
static int all_memory(bool write)
{
	for (unsigned int dev = 0; dev < nr_devices; dev++) {
		int fd = open(devices[dev].node, O_RDWR | O_CLOEXEC);
		char *p = mmap(NULL, devices[dev].pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			       fd, 0);

		close(fd);
		if (p == MAP_FAILED)
			return dev;
		for (uint32_t page = 0; page < devices[dev].pages; page++) {
			for (int word = 0; word < 4; word++) {
				uint64_t *at = (uint64_t *)(p + page * PAGE + word_offset[word]);
				uint32_t count = shared->written[dev][page][word];
				uint64_t want = word_value(dev, page, count);

				if (write)
					*at = want;
				else if (*at != want)
					return dev;
			}
		}
		munmap(p, devices[dev].pages * PAGE);
	}
	return -1;
}

/* Where the threads of a process are stuck */
static void show_stacks(pid_t pid)
{
	char path[300], line[128];
	struct dirent *task;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (task = readdir(dir))) {
		FILE *stack;

		snprintf(path, sizeof(path), "/proc/%d/task/%s/stack", pid, task->d_name);
		stack = fopen(path, "re");
		if (stack)
			printf("# task %s\n", task->d_name);
		while (stack && fgets(line, sizeof(line), stack))
			printf("#   %s", line);
		if (stack)
			fclose(stack);
	}
	if (dir)
		closedir(dir);
}

static bool unload(void)
{
	for (int tries = 0; tries < 1000; tries++) {
		if (!syscall(SYS_delete_module, "kvmfr", O_NONBLOCK))
			return true;
		usleep(10000);	/* a closed file is let go a moment later */
	}
	return false;
}

static bool pins(void)
{
	struct io_uring_params params = { 0 };
	int ring = syscall(SYS_io_uring_setup, 1, &params), fd;
	struct iovec range = { .iov_len = PAGE };
	bool yes = false;

	/* 6.1 refuses every file but shmem and hugetlbfs. */
	if (ring < 0)
		return false;
	for (unsigned int dev = 0; dev < nr_devices && !yes; dev++) {
		if (!devices[dev].dmabuf)
			continue;
		fd = open(devices[dev].node, O_RDWR | O_CLOEXEC);
		range.iov_base = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		yes = !syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &range, 1);
		munmap(range.iov_base, PAGE);
		close(fd);
	}
	close(ring);
	return yes;
}

static unsigned long number(const char *text)
{
	char *end;
	unsigned long n = strtoul(text, &end, 0);

	if (!*text || *end) {
		fprintf(stderr, "fuzz: \"%s\" is not a number\n", text);
		exit(2);
	}
	return n;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "ops", required_argument, NULL, 'o' },
		{ "threads", required_argument, NULL, 't' },
		{ "procs", required_argument, NULL, 'p' },
		{ "replay", required_argument, NULL, 'r' },
		{ "keep", no_argument, NULL, 'k' },
		{ }
	};
	unsigned long ops = 20000, last = 0, idle = 0, patience = 120;
	unsigned int threads = 2, procs = 3, alive;
	struct worker plugger = { 0 };
	pid_t pids[MAX_WORKERS] = { 0 };
	bool keep = false, stuck = false, clean, unloaded = true;
	int option, bad, status;
	time_t begin;

	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		seed = time(NULL);
	seed >>= 32;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 's':
			seed = number(optarg);
			break;
		case 'o':
			ops = number(optarg);
			break;
		case 't':
			threads = number(optarg);
			break;
		case 'p':
			procs = number(optarg);
			break;
		case 'r':
			replay = number(optarg);
			break;
		case 'k':
			keep = true;
			break;
		default:
			fprintf(stderr, "usage: fuzz [--seed N] [--ops N] [--procs N] [--threads N]"
				" [--replay WORKER] [--keep]\n");
			return 2;
		}
	}
	nr_workers = procs * threads;
	if (!nr_workers || nr_workers > MAX_WORKERS || replay >= nr_workers) {
		fprintf(stderr,
			"fuzz: from 1 to %d workers are possible, --replay takes one of them\n",
			MAX_WORKERS);
		return 2;
	}
	for (; optind < argc; optind++)		/* NAME=VALUE, as the other programs take it */
		if (strchr(argv[optind], '='))
			putenv(argv[optind]);
	if (getenv("KTAP_TIMEOUT_SCALE"))
		patience *= number(getenv("KTAP_TIMEOUT_SCALE"));

	page_size = sysconf(_SC_PAGESIZE);
	word_offset[3] = PAGE - 8;
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("KTAP version 1\n1..3\n");
	printf("# fuzz --seed %llu --ops %lu --procs %u --threads %u\n", (unsigned long long)seed,
	       ops, procs, threads);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	if (shared == MAP_FAILED)
		die("no memory");
	load();
	find_devices();
	pins_files = pins();
	if (all_memory(true) >= 0)
		die("cannot map a device");

	begin = time(NULL);
	fflush(stdout);
	for (unsigned int i = 0; i < procs; i++) {
		unsigned int first = i * threads;

		if (replay >= 0) {
			if (i)
				break;
			first = replay;
		}
		pids[i] = fork();
		if (!pids[i])
			work_as_process(first, replay < 0 ? threads : 1,
					(ops + nr_workers - 1) / nr_workers);
	}
	plugger.id = MAX_WORKERS;
	pthread_create(&plugger.thread, NULL, plug_and_unplug, &plugger);

	do {
		unsigned long now;

		alive = 0;
		sleep(1);
		for (unsigned int i = 0; i < procs; i++) {
			if (!pids[i])
				continue;
			if (waitpid(pids[i], &status, WNOHANG) != pids[i]) {
				alive++;
				continue;
			}
			pids[i] = 0;
			if (!WIFEXITED(status) && !atomic_exchange(&shared->failed, true))
				snprintf(shared->report, sizeof(shared->report),
					 "a process died of signal %d", WTERMSIG(status));
			if (!WIFEXITED(status))
				atomic_store(&shared->stop, true);
		}
		now = atomic_load(&shared->ops);
		idle = now == last && alive ? idle + 1 : 0;
		last = now;
		if ((time(NULL) - begin) % 10 == 9)
			printf("# %lu operations, %lu unplugged, %ld s\n", now,
			       atomic_load(&shared->cycles), time(NULL) - begin);
		stuck = idle > patience;
	} while (alive && !stuck);

	if (stuck) {
		printf("# nothing has moved for %lu s\n", idle);
		for (unsigned int i = 0; i < procs; i++)
			if (pids[i])
				show_stacks(pids[i]);
		show_stacks(getpid());
	}
	atomic_store(&shared->stop, true);
	if (!stuck)
		pthread_join(plugger.thread, NULL);

	for (unsigned int i = 0; i < NR_OPERATIONS; i++)
		printf("# %-18s %8lu done %8lu refused\n", operations[i].name,
		       atomic_load(&shared->tally[i].ok), atomic_load(&shared->tally[i].refused));
	printf("# %-18s %8lu done %8lu refused\n", "static_size_mb",
	       atomic_load(&shared->resize.ok), atomic_load(&shared->resize.refused));
	printf("# fuzz: %lu operations, seed %llu, %lu unplug cycles, %ld s\n",
	       atomic_load(&shared->ops), (unsigned long long)seed, atomic_load(&shared->cycles),
	       time(NULL) - begin);
	if (shared->failed)
		printf("# %s\n# again: fuzz --seed %llu --ops %lu --procs %u --threads %u, and "
		       "with --replay WORKER one alone\n",
		       shared->report, (unsigned long long)seed, ops, procs, threads);
	clean = !stuck && !shared->failed;
	printf("%sok 1 fuzz_every_answer_is_as_expected\n", clean ? "" : "not ");
	fflush(stdout);
	if (stuck)
		exit(1);

	bad = all_memory(false);
	if (bad >= 0)
		printf("# %s is not what was written\n", devices[bad].node);
	printf("%sok 2 fuzz_memory_is_what_was_written\n", bad >= 0 ? "not " : "");
	if (keep)
		printf("ok 3 fuzz_leaves_a_module_that_unloads # SKIP --keep\n");
	else
		unloaded = unload();
	if (!keep)
		printf("%sok 3 fuzz_leaves_a_module_that_unloads\n", unloaded ? "" : "not ");
	return clean && bad < 0 && unloaded ? 0 : 1;
}
