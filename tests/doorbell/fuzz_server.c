// SPDX-License-Identifier: GPL-2.0
/*
 * A libFuzzer target: clients that come, read some, say something, and go, in
 * any order, against kvmfrd's server.c. What each of them is told must be the
 * protocol. In the end everybody knows who is there, rings whom an id means and
 * nobody else, and no descriptor is lost.
 *
 * The input is a row of commands of two bytes: what, and to which client.
 */
#include <stdio.h>

/* What is said of each client that goes is not for the log of the fuzzer. */
static FILE *quiet;
#undef stderr
#define stderr quiet
#include "../../kvmfrd/server.c"

#include <fcntl.h>
#include <sys/mman.h>

#define CLIENTS	(SERVER_PEERS + 4)	/* more than there is room for */
#define VECTORS	2

static struct client {
	int fd;				/* -1: not there */
	unsigned int messages;		/* that it has read */
	unsigned int partly;		/* bytes of the next one */
	char word[8];
	int id;
	struct known {
		int id;
		unsigned int vectors;	/* 0: nobody is here */
		int eventfds[VECTORS];	/* the kernel's numbers of what it rings them by */
	} known[SERVER_PEERS];		/* whom it was told of */
	bool mute;			/* has said something or shut down: is dropped */
} clients[CLIENTS];

static struct server *server;
static sd_event *event;
static bool joined;			/* the daemon is a peer, too, as it is with channels */
static unsigned int gone, come;		/* clients, as it is told */

#define must(holds) do {							\
	if (!(holds)) {								\
		dprintf(2, "does not hold: %s, line %d\n", #holds, __LINE__);	\
		abort();							\
	}									\
} while (0)

/* What the client knows of the id; if nothing, where that will be. */
static struct known *known_of(struct client *client, int id)
{
	struct known *free = NULL;

	for (unsigned int i = 0; i < SERVER_PEERS; i++) {
		if (!client->known[i].vectors)
			free = &client->known[i];
		else if (client->known[i].id == id)
			return &client->known[i];
	}
	must(free);
	free->id = id;
	return free;
}

static struct peer *peer_with(int id)
{
	for (unsigned int i = 0; i < SERVER_PEERS; i++)
		if (server->peers[i].id == id)
			return &server->peers[i];
	return NULL;
}

static void changed(void *data)
{
	(void)data;
}

static void on_gone(void *data, unsigned int id)
{
	(void)data;
	must(id < IDS && id != SERVER_SELF);
	gone++;
}

static void run(void)
{
	while (sd_event_run(event, 0) > 0)
		;
}

static void client_connect(struct client *client)
{
	int pair[2];

	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
	*client = (struct client){ .fd = pair[0], .id = NOBODY };
	come += server_accept(server, pair[1]) >= 0;
}

static void client_close(struct client *client)
{
	close(client->fd);
	client->fd = -1;
}

/* Two descriptors with the same number are one eventfd. */
static int eventfd_number(int fd)
{
	char path[48], text[512], *at;
	ssize_t n;
	int info;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = open(path, O_RDONLY | O_CLOEXEC);
	n = read(info, text, sizeof(text) - 1);
	close(info);
	must(n > 0);
	text[n] = 0;
	at = strstr(text, "eventfd-id:");
	must(at);
	return atoi(at + strlen("eventfd-id:"));
}

static void take(struct client *client, int64_t value, int fd)
{
	struct known *known;

	switch (client->messages++) {
	case 0:
		must(!value && fd < 0);
		return;
	case 1:
		must(value >= 0 && value < IDS && fd < 0);
		client->id = value;
		for (int i = 0; i < CLIENTS; i++)
			must(&clients[i] == client || clients[i].fd < 0 || client->mute ||
			     clients[i].mute || clients[i].id != value);
		return;
	case 2:
		must(value == -1 && fd >= 0);
		return;
	}
	must(value >= 0 && value < IDS);
	known = known_of(client, value);
	if (fd >= 0) {
		must(known->vectors < VECTORS);
		known->eventfds[known->vectors++] = eventfd_number(fd);
	} else {
		must(known->vectors && value != client->id);
		known->vectors = 0;
	}
}

/* Reads at most so many bytes. False: there are none. */
static bool client_read(struct client *client, unsigned int most)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(4 * sizeof(int))];
	} control;
	size_t want = sizeof(client->word) - client->partly;
	struct iovec part = {
		.iov_base = client->word + client->partly,
		.iov_len = want < most ? want : most,
	};
	struct msghdr header = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	static int fd = -1;
	ssize_t n = recvmsg(client->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&header) : NULL;
	uint64_t word;

	if (n <= 0)
		return false;
	if (c) {
		must(c->cmsg_len == CMSG_LEN(sizeof(int)) && !client->partly);
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	}
	client->partly += n;
	if (client->partly < sizeof(word)) {
		/* The rest of it is taken at once, so that fd is this client's. */
		return client_read(client, sizeof(word));
	}
	client->partly = 0;
	memcpy(&word, client->word, sizeof(word));
	take(client, (int64_t)le64toh(word), fd);
	if (fd >= 0)
		close(fd);
	fd = -1;
	return true;
}

static void command(unsigned char what, unsigned char who)
{
	struct client *client = &clients[who % CLIENTS];

	if (what % 8 == 0) {
		run();
		return;
	}
	if (what % 8 == 1 && what & 128) {
		/* Ids have gone round. */
		if (server_peers(server))
			server->next_id = IDS - 1 - who % 4;
		return;
	}
	if (client->fd < 0) {
		client_connect(client);
		return;
	}
	switch (what % 8) {
	case 1:
	case 2:
		for (unsigned int n = what / 8; n; n--)
			if (!client_read(client, 1 + who % 8))
				return;
		return;
	case 3:
		while (client_read(client, 8))
			;
		return;
	case 4:
		client_close(client);
		return;
	case 5:
		client->mute = send(client->fd, "what?", 1 + what / 8 % 5,
				    MSG_NOSIGNAL | MSG_DONTWAIT) > 0 || client->mute;
		return;
	case 6:
		client->mute |= !shutdown(client->fd, what & 8 ? SHUT_WR : SHUT_RDWR);
		return;
	default:
		/* It goes in the midst of a message. */
		client_read(client, 1 + who % 7);
		client_close(client);
	}
}

static void expect_known(const struct known *known)
{
	struct peer *peer = peer_with(known->id);

	must(peer && known->vectors == VECTORS);
	for (unsigned int v = 0; v < VECTORS; v++)
		must(known->eventfds[v] == eventfd_number(peer->eventfd[v]));
}

/* When all have read all. */
static void expect_all_known(struct client *client)
{
	unsigned int n = 0;
	ssize_t end;

	if (client->mute) {
		end = recv(client->fd, client->word, 1, MSG_DONTWAIT);
		must(!end || (end < 0 && errno == ECONNRESET));
		return;
	}
	for (unsigned int i = 0; i < SERVER_PEERS; i++) {
		if (!client->known[i].vectors)
			continue;
		expect_known(&client->known[i]);
		n++;
	}
	must(peer_with(client->id) && n == server_peers(server) + joined);
}

static void settle(void)
{
	bool news;

	do {
		run();
		news = false;
		for (int i = 0; i < CLIENTS; i++)
			while (clients[i].fd >= 0 && client_read(&clients[i], 8))
				news = true;
	} while (news);
	for (int i = 0; i < CLIENTS; i++)
		if (clients[i].fd >= 0 && clients[i].id != NOBODY)
			expect_all_known(&clients[i]);
}

static unsigned int count_descriptors(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	static int memory = -1;
	unsigned int before;

	if (memory < 0) {
		memory = memfd_create("fuzz", MFD_CLOEXEC);
		quiet = fopen("/dev/null", "we");
	}
	for (int i = 0; i < CLIENTS; i++)
		clients[i].fd = -1;
	before = count_descriptors();
	must(!sd_event_new(&event));
	server = server_new(event, memory, VECTORS, changed, NULL);
	must(server);

	joined = size && data[0] % 2;
	gone = come = 0;
	must(!joined || server_join(server, on_gone, NULL) >= 0);

	for (; size >= 2; data += 2, size -= 2)
		command(data[0], data[1]);
	settle();
	for (int i = 0; i < CLIENTS; i++)
		if (clients[i].fd >= 0 && i % 2)
			client_close(&clients[i]);
	settle();
	must(!joined || come - gone == server_peers(server));
	server_free(server);
	for (int i = 0; i < CLIENTS; i++)
		if (clients[i].fd >= 0)
			client_close(&clients[i]);
	sd_event_unref(event);
	must(count_descriptors() == before);
	return 0;
}
