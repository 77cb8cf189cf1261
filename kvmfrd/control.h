/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How kvmfrctl asks kvmfrd on a host to create or remove a channel, to let it look at
 * all of them, and to leave its side to another host. One request, one answer, each a
 * message on a socket of type SOCK_SEQPACKET.
 * Looking as a peer of the server would have each guest interrupted by it.
 */
#ifndef KVMFRD_CONTROL_H
#define KVMFRD_CONTROL_H

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum control_what {
	CONTROL_CREATE = 1,
	CONTROL_REMOVE = 2,
	CONTROL_LOOK = 3,		/* the memory's descriptor comes with the answer */
	CONTROL_LEAVE = 4,		/* stop being the host's side, before a live migration */
	CONTROL_ATTACH = 5,		/* be it again, of what is in the memory now */
};

#define CONTROL_PEERS	64
#define CHANNEL_SIZE	65536	/* of a ring that nobody asked another size for, in bytes */
#define CHANNEL_SIZE_MAX (1ull << 30)

struct control_request {
	uint32_t what;			/* enum control_what */
	char name[68];			/* of the channel, with a NUL */
	uint64_t to_guest, to_host;	/* to create: sizes of the rings, in bytes */
};

struct control_answer {
	int32_t error;			/* 0, or a negative errno */
	uint32_t n_peers;
	uint64_t room;			/* the largest piece of memory that is free, in bytes */
	uint32_t peers[CONTROL_PEERS];	/* ids of those who are connected to the server */
};

/*
 * Bytes of a ring as people write them, with K, M or G behind. False: it is something
 * else, or too much.
 */
static inline bool size_parse(const char *text, uint64_t *size)
{
	static const char units[] = "KMG";
	const char *unit;
	char *end;

	errno = 0;
	*size = strtoull(text, &end, 10);
	if (errno || !isdigit((unsigned char)*text))
		return false;
	if (!*end)
		return *size <= CHANNEL_SIZE_MAX;
	unit = strchr(units, toupper((unsigned char)*end));
	if (!unit || end[1] || *size > UINT32_MAX)
		return false;
	*size <<= 10 * (unit - units + 1);
	return *size <= CHANNEL_SIZE_MAX;
}

#endif
