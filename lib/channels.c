// SPDX-License-Identifier: MIT
/* One side of a memory with channels: attaching, the table of channels, events. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "channel-set.h"

#define HOST	KVMFR_CHANNEL_HOST
#define GUEST	KVMFR_CHANNEL_GUEST

/* Another program, such as Looking Glass, would have written here. */
#define EMPTY_END	(64 * 1024)

/* --- the header ------------------------------------------------------------ */

/* Makes a checked copy of the header. Returns NULL, or what is wrong with it. */
static const char *header_read(const struct format_memory *memory, size_t size,
			       struct format_header *copy)
{
	if (size < FORMAT_SLOTS_OFFSET)
		return "the memory is too small for channels";
	/* Acquire: the magic is written last. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	memcpy(copy->magic, memory->header.magic, sizeof(copy->magic));
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	copy->major = format_load(&memory->header.major);
	copy->slots = format_load(&memory->header.slots);
	copy->data = format_load(&memory->header.data);
	copy->pages = format_load(&memory->header.pages);
	copy->identity = format_load(&memory->header.identity);

	if (memcmp(copy->magic, FORMAT_MAGIC, sizeof(copy->magic)))
		return "the memory is not in the format of channels";
	if (copy->major > FORMAT_MAJOR)
		return "the channels in the memory are of a newer version of the format";
	if (copy->major != FORMAT_MAJOR)
		return "the channels in the memory are of an unknown version of the format";
	if (!copy->slots || copy->slots > FORMAT_SLOTS_MAX ||
	    copy->pages > size / FORMAT_PAGE || copy->data > copy->pages ||
	    copy->data < (FORMAT_SLOTS_OFFSET + copy->slots * sizeof(struct format_slot) +
			  FORMAT_PAGE - 1) / FORMAT_PAGE)
		return "the header of the channels in the memory is damaged";
	return NULL;
}

const char *kvmfr_channels_problem(const void *memory, size_t size)
{
	struct format_header header;

	return header_read(memory, size, &header);
}

static bool is_zero(const uint8_t *data, size_t size)
{
	return !size || (!data[0] && !memcmp(data, data + 1, size - 1));
}

static bool is_empty(const struct kvmfr_channels_backing *backing)
{
	const uint8_t *memory = backing->memory;
	size_t end = backing->size < EMPTY_END ? backing->size : EMPTY_END;

	return is_zero(memory, FORMAT_PAGE) && is_zero(memory + backing->size - end, end);
}

static uint32_t random_word(void)
{
	uint32_t word = 0;

	if (getrandom(&word, sizeof(word), GRND_NONBLOCK) != sizeof(word))
		word = (uint32_t)getpid();
	return word;
}

static int format(const struct kvmfr_channels_backing *backing)
{
	const struct format_memory *old = backing->memory;
	bool guest = !kvmfr_channels_problem(old, backing->size) &&
		     (format_load(&old->side[GUEST].session) & 1);
	uint32_t peer = format_load(&old->side[GUEST].peer) & 0xffff;
	struct format_memory *memory = backing->memory;
	uint32_t pages = backing->size / FORMAT_PAGE < UINT32_MAX ?
			 backing->size / FORMAT_PAGE : UINT32_MAX;
	uint32_t slots = pages / 4 < 1000 ? pages / 4 : 1000;
	uint32_t data = FORMAT_SLOTS_OFFSET / FORMAT_PAGE + (slots + 3) / 4;
	uint32_t identity = format_load(&memory->header.identity);

	if (pages < FORMAT_SLOTS_OFFSET / FORMAT_PAGE + 3)
		return -ENOSPC;
	memset(memory->header.magic, 0, sizeof(memory->header.magic));
	format_fence();
	memset((uint8_t *)memory + FORMAT_LINE, 0, data * (size_t)FORMAT_PAGE - FORMAT_LINE);
	format_store(&memory->header.major, FORMAT_MAJOR);
	format_store(&memory->header.minor, FORMAT_MINOR);
	format_store(&memory->header.slots, slots);
	format_store(&memory->header.data, data);
	format_store(&memory->header.pages, pages);
	format_store(&memory->header.identity, identity ^ (random_word() | 1));
	__atomic_thread_fence(__ATOMIC_RELEASE);
	memcpy(memory->header.magic, FORMAT_MAGIC, sizeof(memory->header.magic));
	format_fence();
	if (guest)
		backing->ring(backing->opaque, peer, 0);
	return 0;
}

/* --- telling the other side, and being told -------------------------------- */

void kvmfr__channels_signal(struct kvmfr_channels *set, int slot)
{
	const struct format_side *other = &set->memory->side[set->other];
	uint32_t *word = &set->memory->signal[set->mine][slot + 1];

	format_store_release(word, format_load(word) + 1);
	format_fence();
	if (format_load(&other->session) & 1)
		set->backing.ring(set->backing.opaque, format_load(&other->peer) & 0xffff, 0);
}

uint32_t kvmfr__channels_other_state(struct kvmfr_channels *set, struct format_end *end)
{
	uint32_t word = format_load_acquire(&end->state);

	return set->gone ? FORMAT_STATE(word >> FORMAT_STATE_BITS, STATE_CLOSED) : word;
}

/* Was the memory formatted again, or replaced, since this side attached? */
static bool is_stale(struct kvmfr_channels *set)
{
	return format_load(&set->memory->header.identity) != set->identity ||
	       (!set->observe &&
		format_load(&set->memory->side[set->mine].session) != set->session);
}

static void look_at_all(struct kvmfr_channels *set)
{
	for (uint32_t i = 0; i < set->slots; i++)
		set->slot[i].look = true;
}

static void look_at_signals(struct kvmfr_channels *set)
{
	const uint32_t *signal = set->memory->signal[set->other];
	uint32_t word = format_load_acquire(&signal[0]);

	if (word != set->seen) {
		set->seen = word;
		look_at_all(set);
		if (format_load(&set->memory->side[set->other].session) != set->gone_session)
			set->gone = false;
	}
	for (uint32_t i = 0; i < set->slots; i++) {
		word = format_load_acquire(&signal[i + 1]);
		if (word != set->slot[i].seen) {
			set->slot[i].seen = word;
			set->slot[i].look = true;
		}
	}
}

int kvmfr__channels_look(struct kvmfr_channels *set)
{
	int ret = set->error;

	if (!ret)
		ret = set->backing.clear(set->backing.opaque);
	if (ret < 0 && !set->error)
		set->error = ret;
	if (!set->error && is_stale(set))
		set->error = -ESTALE;
	if (!set->error && ret > 0)
		look_at_signals(set);
	return set->error;
}

void kvmfr_channels_peer_gone(struct kvmfr_channels *set, uint32_t id)
{
	const struct format_side *other = &set->memory->side[set->other];

	if (set->gone || format_load(&other->peer) != id)
		return;
	set->gone = true;
	set->gone_session = format_load(&other->session);
	look_at_all(set);
}

int kvmfr_channels_fault(struct kvmfr_channels *set, const void *address)
{
	uintptr_t start = (uintptr_t)set->backing.memory, at = (uintptr_t)address;
	int saved = errno;
	void *p;

	if (at < start || at - start >= set->backing.size)
		return 0;
	p = mmap(set->backing.memory, set->backing.size, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
	errno = saved;
	if (p == MAP_FAILED)
		return 0;
	set->error = -ENODEV;
	return 1;
}

int kvmfr_channels_fd(const struct kvmfr_channels *set)
{
	return set->backing.wake;
}

/* --- the table ------------------------------------------------------------- */

struct format_slot *kvmfr__channels_slot(struct kvmfr_channels *set, const struct slot *slot)
{
	return &set->memory->slot[slot - set->slot];
}

bool kvmfr_channel_name_is_valid(const char *name)
{
	size_t length = strnlen(name, FORMAT_NAME_SIZE);

	if (!length || length == FORMAT_NAME_SIZE || !strcmp(name, ".") || !strcmp(name, ".."))
		return false;
	for (size_t i = 0; i < length; i++)
		if (name[i] < ' ' || name[i] > '~' || name[i] == '/')
			return false;
	return true;
}

static bool ring_is_valid(const struct kvmfr_channels *set, uint32_t page, uint32_t size)
{
	return size >= FORMAT_RING_MIN && size <= FORMAT_RING_MAX && !(size & (size - 1)) &&
	       page >= set->data && page <= set->pages &&
	       size / FORMAT_PAGE <= set->pages - page;
}

/*
 * Copies a descriptor; true if it is a channel's. If not, the copy has the rings
 * of a removed channel, or none. Rings may overlap those of another channel: that
 * garbles only the streams of the side that wrote the descriptor.
 */
static bool descriptor_read(const struct kvmfr_channels *set, uint32_t slot,
			    struct descriptor *copy)
{
	const struct format_descriptor *d = &set->memory->slot[slot].descriptor;
	bool valid;

	copy->serial = format_load_acquire(&d->serial);
	for (int i = 0; i < 2; i++) {
		copy->page[i] = format_load(&d->ring[i].page);
		copy->size[i] = format_load(&d->ring[i].size);
	}
	memcpy(copy->name, d->name, FORMAT_NAME_SIZE);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	valid = (copy->serial & 1) && format_load(&d->serial) == copy->serial &&
		kvmfr_channel_name_is_valid(copy->name);
	if (!ring_is_valid(set, copy->page[0], copy->size[0]) ||
	    !ring_is_valid(set, copy->page[1], copy->size[1])) {
		/* space_find() trusts the copy */
		memset(copy->size, 0, sizeof(copy->size));
		valid = false;
	}
	return valid;
}

static struct slot *slot_find(struct kvmfr_channels *set, const char *name)
{
	for (uint32_t i = 0; i < set->slots; i++)
		if (set->slot[i].exists && !strcmp(set->slot[i].d.name, name))
			return &set->slot[i];
	return NULL;
}

/* The channel of a slot was removed. */
static void slot_clear(struct slot *slot)
{
	if (!slot->added) {
		slot->removed = true;
		memcpy(slot->removed_name, slot->d.name, FORMAT_NAME_SIZE);
	}
	slot->added = false;
	slot->exists = false;
	slot->left_open = false;
	if (slot->open)
		kvmfr__channel_gone(slot->open);
}

void kvmfr__channels_refresh(struct kvmfr_channels *set, struct slot *slot)
{
	struct descriptor copy;

	if ((set->mine == HOST && !set->observe) ||
	    format_load(&kvmfr__channels_slot(set, slot)->descriptor.serial) == slot->d.serial)
		return;
	if (slot->exists)
		slot_clear(slot);
	slot->exists = descriptor_read(set, slot - set->slot, &copy);
	slot->d = copy;
	slot->added = slot->exists;
}

/* The host, the only writer of the table, adopts what is in it and removes the rest. */
static void table_adopt(struct kvmfr_channels *set)
{
	for (uint32_t i = 0; i < set->slots; i++) {
		struct slot *slot = &set->slot[i];
		struct descriptor copy;
		bool valid = descriptor_read(set, i, &copy) && !slot_find(set, copy.name);

		slot->d = copy;
		slot->exists = valid;
		if (valid || !(copy.serial & 1))
			continue;
		slot->d.serial++;
		format_store_release(&set->memory->slot[i].descriptor.serial, slot->d.serial);
	}
}

static void table_refresh(struct kvmfr_channels *set)
{
	for (uint32_t i = 0; i < set->slots; i++)
		kvmfr__channels_refresh(set, &set->slot[i]);
}

/* May anybody still use the rings of a slot? */
static bool slot_is_used(struct kvmfr_channels *set, const struct slot *slot)
{
	struct format_half *guest = &kvmfr__channels_slot(set, slot)->half[GUEST];
	uint32_t state;

	if (slot->exists)
		return true;
	if (!(format_load(&set->memory->side[GUEST].session) & 1))
		return false;
	state = kvmfr__channels_other_state(set, &guest->end) % (1 << FORMAT_STATE_BITS);
	return slot->d.size[0] && state != STATE_CLOSED;
}

/* The first of @pages consecutive pages that no ring covers, or 0. */
static uint32_t space_find(struct kvmfr_channels *set, const bool *used, uint32_t pages)
{
	uint32_t at = set->data;

	for (uint32_t i = 0; i < set->slots && pages <= set->pages - at; i++) {
		const struct descriptor *d = &set->slot[i].d;

		for (int j = 0; used[i] && j < 2; j++) {
			uint32_t end = d->page[j] + d->size[j] / FORMAT_PAGE;

			if (d->page[j] >= at + pages || end <= at)
				continue;
			at = end;
			i = -1;	/* look at all of them again */
			break;
		}
	}
	return pages <= set->pages - at ? at : 0;
}

/* Sets @used for each slot. Returns the first slot that is free, or NULL. */
static struct slot *slots_used(struct kvmfr_channels *set, bool *used)
{
	struct slot *free = NULL;

	for (uint32_t i = set->slots; i--;) {
		used[i] = slot_is_used(set, &set->slot[i]);
		if (!used[i])
			free = &set->slot[i];
	}
	return free;
}

uint64_t kvmfr_channels_room(struct kvmfr_channels *set)
{
	uint32_t low = 0, high = set->pages - set->data;
	bool used[FORMAT_SLOTS_MAX];

	if (!slots_used(set, used))
		return 0;
	while (low < high) {
		uint32_t middle = high - (high - low) / 2;

		if (space_find(set, used, middle))
			low = middle;
		else
			high = middle - 1;
	}
	return (uint64_t)low * FORMAT_PAGE;
}

/* The size of a ring for this many bytes, or 0 if that is too many. */
static uint32_t ring_size(size_t bytes)
{
	uint32_t size = FORMAT_RING_MIN;

	if (bytes > FORMAT_RING_MAX)
		return 0;
	while (size < bytes)
		size *= 2;
	return size;
}

static void descriptor_write(struct kvmfr_channels *set, struct slot *slot)
{
	struct format_descriptor *d = &kvmfr__channels_slot(set, slot)->descriptor;

	for (int i = 0; i < 2; i++) {
		format_store(&d->ring[i].page, slot->d.page[i]);
		format_store(&d->ring[i].size, slot->d.size[i]);
	}
	format_store(&d->tag, 0);
	memcpy(d->name, slot->d.name, FORMAT_NAME_SIZE);
	/* Release: the rest is stored before the odd serial. */
	format_store_release(&d->serial, slot->d.serial);
	kvmfr__channels_signal(set, slot - set->slot);
}

int kvmfr_channel_create(struct kvmfr_channels *set, const char *name, size_t to_guest,
			 size_t to_host)
{
	uint32_t size[2] = { ring_size(to_guest), ring_size(to_host) }, page;
	bool used[FORMAT_SLOTS_MAX];
	struct slot *slot;

	if (set->mine != HOST || set->observe)
		return -EPERM;
	if (set->error)
		return -ENODEV;
	if (!kvmfr_channel_name_is_valid(name) || !size[0] || !size[1])
		return -EINVAL;
	if (slot_find(set, name))
		return -EEXIST;
	slot = slots_used(set, used);
	page = slot ? space_find(set, used, (size[0] + size[1]) / FORMAT_PAGE) : 0;
	if (!page)
		return -ENOSPC;

	slot->d = (struct descriptor){
		.serial = slot->d.serial + 1,
		.page = { page, page + size[0] / FORMAT_PAGE },
		.size = { size[0], size[1] },
	};
	memcpy(slot->d.name, name, strlen(name));
	slot->exists = true;
	slot->added = true;
	slot->left_open = false;
	descriptor_write(set, slot);
	return 0;
}

/* The channel that the host wants to change. */
static int slot_of_host(struct kvmfr_channels *set, const char *name, struct slot **slot)
{
	if (set->mine != HOST || set->observe)
		return -EPERM;
	if (set->error)
		return -ENODEV;
	if (!kvmfr_channel_name_is_valid(name))
		return -EINVAL;
	*slot = slot_find(set, name);
	return *slot ? 0 : -ENOENT;
}

int kvmfr_channel_set_tag(struct kvmfr_channels *set, const char *name, uint32_t tag)
{
	struct slot *slot;
	int ret = slot_of_host(set, name, &slot);

	if (ret)
		return ret;
	format_store(&kvmfr__channels_slot(set, slot)->descriptor.tag, tag);
	return 0;
}

int kvmfr_channel_remove(struct kvmfr_channels *set, const char *name)
{
	struct format_slot *memory;
	struct slot *slot;
	int ret = slot_of_host(set, name, &slot);

	if (ret)
		return ret;
	memory = kvmfr__channels_slot(set, slot);
	slot->d.serial++;
	format_store_release(&memory->descriptor.serial, slot->d.serial);
	/* Either a guest that opens sees the serial, or slot_is_used() sees its open end. */
	format_fence();
	slot_clear(slot);
	kvmfr__channels_signal(set, slot - set->slot);
	return 0;
}

/* --- what there is, and what has happened ---------------------------------- */

static enum kvmfr_channel_state end_state(struct kvmfr_channels *set, int side,
					  struct format_end *end)
{
	uint32_t word = side == set->other ? kvmfr__channels_other_state(set, end) :
					     format_load(&end->state);

	if (!(format_load(&set->memory->side[side].session) & 1) ||
	    (side == set->other && set->gone))
		return KVMFR_CHANNEL_ABSENT;
	switch (word % (1 << FORMAT_STATE_BITS)) {
	case STATE_OPEN:
	case STATE_ENDED:
		return KVMFR_CHANNEL_OPEN;
	case STATE_CONNECTED:
	case STATE_FINISHED:
		return KVMFR_CHANNEL_CONNECTED;
	default:
		return KVMFR_CHANNEL_CLOSED;
	}
}

/* What a half counts is of the last channel in this slot that it was opened for. */
uint64_t kvmfr__channels_bytes(const struct slot *slot, const struct format_half *half)
{
	if (format_load(&half->end.serial) != slot->d.serial)
		return 0;
	return le64toh(__atomic_load_n(&half->writer.bytes, __ATOMIC_RELAXED));
}

static void info_fill(struct kvmfr_channels *set, struct slot *slot,
		      struct kvmfr_channel_info *info)
{
	struct format_slot *memory = kvmfr__channels_slot(set, slot);

	*info = (struct kvmfr_channel_info){ 0 };
	memcpy(info->name, slot->d.name, sizeof(info->name));
	info->tag = format_load(&memory->descriptor.tag);
	for (int i = 0; i < 2; i++) {
		const struct format_writer *writer = &memory->half[i].writer;
		const struct format_reader *reader = &memory->half[!i].reader;
		uint32_t waiting = format_load(&writer->head) - format_load(&reader->tail);

		info->state[i] = end_state(set, i, &memory->half[i].end);
		info->size[i] = slot->d.size[i];
		info->waiting[i] = waiting < info->size[i] ? waiting : info->size[i];
		info->bytes[i] = kvmfr__channels_bytes(slot, &memory->half[i]);
	}
	/* Data that nobody will read isn't waiting. */
	for (int i = 0; i < 2; i++)
		if (info->state[!i] != KVMFR_CHANNEL_CONNECTED)
			info->waiting[i] = 0;
}

int kvmfr_channels_list(struct kvmfr_channels *set, struct kvmfr_channel_info *infos, int count)
{
	int n = 0;

	if (set->error)
		return -ENODEV;
	table_refresh(set);
	for (uint32_t i = 0; i < set->slots; i++) {
		if (!set->slot[i].exists)
			continue;
		if (n < count)
			info_fill(set, &set->slot[i], &infos[n]);
		n++;
	}
	return n;
}

/* Fills in the next event of a slot; false if there is none after all. */
static bool slot_event(struct kvmfr_channels *set, struct slot *slot,
		       struct kvmfr_channel_event *event)
{
	if (slot->look)
		kvmfr__channels_refresh(set, slot);
	*event = (struct kvmfr_channel_event){ .channel = slot->open };
	memcpy(event->name, slot->removed ? slot->removed_name : slot->d.name,
	       sizeof(event->name));
	event->other = end_state(set, set->other,
				 &kvmfr__channels_slot(set, slot)->half[set->other].end);
	if (slot->removed) {
		event->what = KVMFR_CHANNEL_REMOVED;
		slot->removed = false;
	} else if (slot->added) {
		event->what = KVMFR_CHANNEL_ADDED;
		slot->added = false;
	} else {
		event->what = KVMFR_CHANNEL_CHANGED;
		slot->look = false;
		/* The others are next, however busy this one is. */
		set->cursor = (set->cursor + 1) % set->slots;
	}
	return event->what != KVMFR_CHANNEL_CHANGED || slot->exists;
}

int kvmfr_channels_event(struct kvmfr_channels *set, struct kvmfr_channel_event *event)
{
	int ret = kvmfr__channels_look(set);

	if (ret < 0)
		return ret;
	for (uint32_t i = 0; i < set->slots; i++) {
		struct slot *slot = &set->slot[set->cursor];

		if (!slot->look && !slot->removed && !slot->added)
			set->cursor = (set->cursor + 1) % set->slots;
		else if (slot_event(set, slot, event))
			return 1;
	}
	return 0;
}

/* --- attaching ------------------------------------------------------------- */

/*
 * Locks one byte of the memory's file, so that the kernel ends the lock with the
 * process. A descriptor that came through a socket shares its open file, and so
 * its OFD lock, with other processes: the file is opened again. A DMA-BUF refuses
 * that, so there it is a lock of the process (F_SETLK). Returns the descriptor
 * that holds the lock, -1 if none does, or a negative errno below -1.
 */
static int side_lock(int fd, int side)
{
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = side, .l_len = 1,
	};
	char path[32];
	int own, ret;

	if (fd < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, O_RDWR | O_CLOEXEC);
	if (own >= 0) {
		ret = fcntl(own, F_OFD_SETLK, &lock) ? -errno : own;
		if (ret < 0)
			close(own);
	} else {
		ret = fcntl(fd, F_SETLK, &lock) ? -errno : -1;
	}
	return ret == -EAGAIN || ret == -EACCES ? -EBUSY : ret;
}

static void side_unlock(struct kvmfr_channels *set)
{
	struct flock lock = {
		.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = set->mine, .l_len = 1,
	};

	if (set->lock >= 0) {
		/* A forked child has the descriptor, too, and would keep the lock. */
		fcntl(set->lock, F_OFD_SETLK, &lock);
		close(set->lock);
	} else if (set->backing.fd >= 0 && !set->observe) {
		fcntl(set->backing.fd, F_SETLK, &lock);
	}
}

/*
 * Closes ends that are open in the memory but in no process. The ack of a
 * connected one stays, so that the next process can go on with it.
 */
static void close_what_is_open(struct kvmfr_channels *set)
{
	for (uint32_t i = 0; i < set->slots; i++) {
		struct format_end *end = &set->memory->slot[i].half[set->mine].end;
		uint32_t word = format_load(&end->state);
		uint32_t state = word % (1 << FORMAT_STATE_BITS);

		if (state == STATE_OPEN)
			format_store(&end->ack, 0);
		if (state != STATE_CLOSED)
			format_store_release(&end->state, word - state + STATE_CLOSED);
		set->slot[i].left_open = set->slot[i].exists && format_load(&end->ack) &&
					 format_load(&end->serial) == set->slot[i].d.serial;
	}
}

static void side_begin(struct kvmfr_channels *set)
{
	struct format_side *side = &set->memory->side[set->mine];

	set->session = (format_load(&side->session) + 1) | 1;
	format_store(&side->peer, set->backing.id);
	format_store(&side->vectors, 1);
	format_store_release(&side->session, set->session);
	kvmfr__channels_signal(set, -1);
}

static struct kvmfr_channels *set_new(const struct kvmfr_channels_backing *backing, int side,
				      bool observe, const struct format_header *header)
{
	struct kvmfr_channels *set;

	set = calloc(1, sizeof(*set) + header->slots * sizeof(set->slot[0]));
	if (!set)
		return NULL;
	set->backing = *backing;
	set->memory = backing->memory;
	set->mine = side;
	set->other = !side;
	set->observe = observe;
	set->data = header->data;
	set->pages = header->pages;
	set->identity = header->identity;
	set->slots = header->slots;
	return set;
}

/* Reads the header, after formatting the memory if that is needed and allowed. */
static int header_get(const struct kvmfr_channels_backing *backing, unsigned int flags,
		      struct format_header *header)
{
	const char *problem = header_read(backing->memory, backing->size, header);
	int ret = -EPROTO;

	if (!problem && !(flags & KVMFR_CHANNELS_OVERWRITE))
		return 0;
	if ((flags & KVMFR_CHANNELS_OVERWRITE) ||
	    ((flags & KVMFR_CHANNELS_FORMAT) && is_empty(backing)))
		ret = format(backing);
	if (!ret && header_read(backing->memory, backing->size, header))
		ret = -EPROTO;
	return ret;
}

static bool arguments_are_valid(const struct kvmfr_channels_backing *backing, int side,
				unsigned int flags)
{
	unsigned int formatting = KVMFR_CHANNELS_FORMAT | KVMFR_CHANNELS_OVERWRITE;

	return (side == HOST || side == GUEST) &&
	       !(flags & ~(formatting | KVMFR_CHANNELS_OBSERVE)) &&
	       (!(flags & formatting) || (side == HOST && !(flags & KVMFR_CHANNELS_OBSERVE))) &&
	       backing->memory && !((uintptr_t)backing->memory % FORMAT_PAGE) &&
	       !(backing->size % FORMAT_PAGE);
}

int kvmfr_channels_attach(struct kvmfr_channels **result,
			  const struct kvmfr_channels_backing *backing,
			  enum kvmfr_channel_side side, unsigned int flags)
{
	bool observe = flags & KVMFR_CHANNELS_OBSERVE;
	struct format_header header;
	struct kvmfr_channels *set;
	int ret, lock = -1;

	*result = NULL;
	if (!arguments_are_valid(backing, side, flags))
		return -EINVAL;
	if (!observe)
		lock = side_lock(backing->fd, side);
	if (lock < -1)
		return lock;
	ret = header_get(backing, flags, &header);
	set = ret ? NULL : set_new(backing, side, observe, &header);
	if (!set) {
		if (lock >= 0)
			close(lock);
		return ret ? ret : -ENOMEM;
	}
	set->lock = lock;

	if (side == HOST && !observe)
		table_adopt(set);
	else
		table_refresh(set);
	for (uint32_t i = 0; i < set->slots; i++)
		set->slot[i].added = false;
	if (!observe) {
		close_what_is_open(set);
		side_begin(set);
	}
	look_at_signals(set);
	look_at_all(set);
	*result = set;
	return 0;
}

void kvmfr_channels_leave(struct kvmfr_channels *set)
{
	if (!set)
		return;
	for (uint32_t i = 0; i < set->slots; i++) {
		free(set->slot[i].open);
		set->slot[i].open = NULL;
	}
	if (!set->observe && !set->error)
		close_what_is_open(set);
	kvmfr_channels_detach(set);
}

void kvmfr_channels_detach(struct kvmfr_channels *set)
{
	if (!set)
		return;
	for (uint32_t i = 0; i < set->slots; i++)
		kvmfr_channel_close(set->slot[i].open);
	if (!set->observe && !set->error) {
		format_store_release(&set->memory->side[set->mine].session, set->session + 1);
		kvmfr__channels_signal(set, -1);
	}
	side_unlock(set);
	free(set);
}
