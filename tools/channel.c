// SPDX-License-Identifier: GPL-2.0
/*
 * kvmfrctl channel: lists, creates and removes channels, and connects standard input
 * and output to one. kvmfrd has the channels open; this asks kvmfrd, or only looks at
 * the memory.
 */
#include "kvmfrctl.h"

#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../kvmfrd/control.h"
#include "../lib/libkvmfr-channel.h"

#define MAX_PLACES	64
#define HOST		KVMFR_CHANNEL_HOST
#define GUEST		KVMFR_CHANNEL_GUEST

/* A memory that may have channels in it. */
struct place {
	const char *vm;		/* on a host: the VM; or NULL */
	const char *device;	/* in a guest: the device; or NULL */
	const char *peer;	/* the device, for kvmfr_peer_open() */
	const char *directory;	/* of the channels' sockets */
};

struct request {
	const char *vm, *device;
	bool json;
	char **arguments;
};

static const char *place_name(const struct place *place)
{
	return place->vm ?: place->device;
}

/* --- where there are channels ---------------------------------------------- */

static struct place place_of_vm(const char *vm)
{
	return (struct place){
		.vm = vm,
		.directory = path("/run/kvmfr/%s", vm),
	};
}

static struct place place_of_device(const char *name)
{
	const char *node = *name == '/' ? name : text("/dev/%s", name);

	return (struct place){ .device = node, .peer = path("%s", node),
			       .directory = path("/run/kvmfr") };
}

/* VMs whose kvmfrd serves channels, and devices with doorbells. */
static int places_find(struct place *places)
{
	glob_t found = { 0 };
	int n = 0;

	glob(path("/run/kvmfr/*.control"), 0, NULL, &found);
	glob(path("/sys/class/kvmfr/*/vectors"), found.gl_pathc ? GLOB_APPEND : 0, NULL, &found);
	for (size_t i = 0; i < found.gl_pathc && n < MAX_PLACES; i++) {
		char *name = found.gl_pathv[i], *end = strrchr(name, '.');

		if (end && !strcmp(end, ".control")) {
			*end = 0;
			places[n++] = place_of_vm(text("%s", strrchr(name, '/') + 1));
		} else {
			*strrchr(name, '/') = 0;
			places[n++] = place_of_device(text("%s", strrchr(name, '/') + 1));
		}
	}
	globfree(&found);
	return n;
}

/* The place that --vm or --device names, or all there are. */
static int places_meant(const struct request *r, struct place *places)
{
	int n = 1;

	if (r->vm && r->device)
		misuse("channel: either --vm or --device");
	if (r->vm)
		places[0] = place_of_vm(r->vm);
	else if (r->device)
		places[0] = place_of_device(r->device);
	else
		n = places_find(places);
	if (!n)
		fail("there are no channels here: on a host kvmfrd has them with --channels, in a guest a device with doorbells");
	return n;
}

static struct place place_meant(const struct request *r)
{
	struct place places[MAX_PLACES];
	char *names = text("%s", "");
	int n = places_meant(r, places);

	for (int i = 0; i < n; i++)
		names = text("%s %s", names, place_name(&places[i]));
	if (n > 1)
		misuse("channel: which of%s is meant? Say it with --vm or --device", names);
	return places[0];
}

/* --- sockets --------------------------------------------------------------- */

/* A connected socket, or a negative errno. */
static int socket_connect(const char *name, int type)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, ret;

	if (strlen(name) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, name);
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (!connect(fd, (struct sockaddr *)&address, sizeof(address)))
		return fd;
	ret = -errno;
	close(fd);
	return ret;
}

/* Sends a request to kvmfrd. *fd becomes the descriptor that comes with the answer. */
static struct control_answer ask(const struct place *place, const struct control_request *request,
				 int *fd)
{
	struct control_answer answer = { .error = -EOPNOTSUPP };
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec part = { .iov_base = &answer, .iov_len = sizeof(answer) };
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control),
	};
	const char *name = text("%s.control", place->directory);
	int client;

	if (!place->vm)
		fail("channels are created, removed, left and attached on the host, with kvmfrctl there");
	client = socket_connect(name, SOCK_SEQPACKET);
	if (client < 0 && client != -ENOENT && client != -ECONNREFUSED)
		fail("%s: %s: %s", place->vm, name, strerror(-client));
	if (client >= 0 &&
	    (send(client, request, sizeof(*request), MSG_NOSIGNAL) != sizeof(*request) ||
	     recvmsg(client, &message, MSG_CMSG_CLOEXEC) != sizeof(answer)))
		fail("%s: kvmfrd gives no answer", place->vm);
	if (control.header.cmsg_type == SCM_RIGHTS && fd)
		memcpy(fd, CMSG_DATA(&control.header), sizeof(*fd));
	close(client);
	if (answer.error == -EOPNOTSUPP)
		fail("%s: no kvmfrd serves channels for it; it does with --channels, see kvmfrd(8)",
		     place->vm);
	if (answer.error == -EAGAIN)
		fail("%s: kvmfrd is attaching to the memory just now; try it again", place->vm);
	if (answer.error == -ENOTCONN)
		fail("%s: kvmfrd has left the channels for a live migration; 'kvmfrctl channel attach' brings it back",
		     place->vm);
	return answer;
}

/* --- list ------------------------------------------------------------------ */

static const char * const states[] = {
	[KVMFR_CHANNEL_ABSENT] = "absent",
	[KVMFR_CHANNEL_CLOSED] = "closed",
	[KVMFR_CHANNEL_OPEN] = "open",
	[KVMFR_CHANNEL_CONNECTED] = "connected",
};

static void set_list(struct kvmfr_channels *set, struct kvmfr_channel_info **infos, int *n)
{
	*n = kvmfr_channels_list(set, NULL, 0);
	*infos = calloc(*n > 0 ? *n : 1, sizeof(**infos));
	if (!*infos)
		fail("out of memory");
	if (*n > 0)
		kvmfr_channels_list(set, *infos, *n);
}

/* The doorbell of a set that only observes: neither rings nor waits. */
static int no_clear(void *opaque)
{
	(void)opaque;
	return 0;
}

static int no_ring(void *opaque, uint32_t peer, uint32_t vector)
{
	(void)opaque;
	(void)peer;
	(void)vector;
	return 0;
}

/* Peers that aren't connected to the server have gone, whatever they left in the memory. */
static void tell_who_is_away(struct kvmfr_channels *set, const struct control_answer *answer)
{
	bool there[65536] = { false };

	for (uint32_t i = 0; i < answer->n_peers && i < CONTROL_PEERS; i++)
		there[answer->peers[i] & 0xffff] = true;
	for (uint32_t id = 0; id < 65536; id++)
		if (!there[id])
			kvmfr_channels_peer_gone(set, id);
}

/* On a host: as kvmfrd sees it. 0, or -EPROTO and the problem. */
static int vm_list(const struct place *place, struct kvmfr_channel_info **infos, int *n,
		   const char **problem)
{
	struct control_request request = { .what = CONTROL_LOOK };
	struct kvmfr_channels_backing backing = {
		.fd = -1, .wake = -1, .clear = no_clear, .ring = no_ring,
	};
	struct control_answer answer;
	struct kvmfr_channels *set;
	struct stat st;
	int ret, fd = -1;

	answer = ask(place, &request, &fd);
	if (answer.error || fd < 0 || fstat(fd, &st))
		fail("%s: its channels can't be looked at now", place->vm);
	backing.size = st.st_size;
	backing.memory = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (backing.memory == MAP_FAILED)
		fail("%s: mapping the memory: %s", place->vm, strerror(errno));
	*problem = kvmfr_channels_problem(backing.memory, backing.size);
	ret = kvmfr_channels_attach(&set, &backing, HOST, KVMFR_CHANNELS_OBSERVE);
	if (!ret) {
		tell_who_is_away(set, &answer);
		set_list(set, infos, n);
		kvmfr_channels_detach(set);
	}
	munmap(backing.memory, backing.size);
	close(fd);
	return ret;
}

static int device_list(const struct place *place, struct kvmfr_channel_info **infos, int *n,
		       const char **problem)
{
	struct kvmfr_channels_backing backing;
	struct kvmfr_channels *set;
	struct kvmfr_peer *peer;
	int ret = kvmfr_peer_open(place->peer, 0, 1, &peer);

	if (!ret)
		ret = kvmfr_channels_back(&backing, peer);
	if (ret == -ENXIO)
		fail("%s: the device has no doorbells, so there are no channels", place->device);
	if (ret)
		fail("%s: %s", place->peer, strerror(-ret));
	*problem = kvmfr_channels_problem(backing.memory, backing.size);
	ret = kvmfr_channels_attach(&set, &backing, GUEST, KVMFR_CHANNELS_OBSERVE);
	if (!ret) {
		set_list(set, infos, n);
		kvmfr_channels_detach(set);
	}
	kvmfr_channels_unback(&backing);
	kvmfr_peer_close(peer);
	return ret;
}

/* Lists the channels of a place; false: its memory has none, and *problem says why. */
static bool place_list(const struct place *place, struct kvmfr_channel_info **infos, int *n,
		       const char **problem)
{
	int ret = place->vm ? vm_list(place, infos, n, problem) :
			      device_list(place, infos, n, problem);

	if (ret && ret != -EPROTO)
		fail("%s: %s", place_name(place), strerror(-ret));
	return !ret;
}

static struct json_object *json_direction(const struct kvmfr_channel_info *info, int side)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "bytes", json_object_new_uint64(info->bytes[side]));
	json_object_object_add(o, "waiting", json_object_new_uint64(info->waiting[side]));
	json_object_object_add(o, "size", json_object_new_uint64(info->size[side]));
	return o;
}

static struct json_object *json_string(const char *s)
{
	return s ? json_object_new_string(s) : NULL;
}

static void list_json(struct json_object *array, const struct place *place,
		      const struct kvmfr_channel_info *info)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "vm", json_string(place->vm));
	json_object_object_add(o, "device", json_string(place->device));
	json_object_object_add(o, "name", json_string(info->name));
	json_object_object_add(o, "host", json_string(states[info->state[HOST]]));
	json_object_object_add(o, "guest", json_string(states[info->state[GUEST]]));
	json_object_object_add(o, "to_guest", json_direction(info, HOST));
	json_object_object_add(o, "to_host", json_direction(info, GUEST));
	json_object_array_add(array, o);
}

/* "12345 (10 of 65536 wait)" */
static const char *direction(const struct kvmfr_channel_info *info, int side)
{
	const char *bytes = text("%" PRIu64, info->bytes[side]);

	return info->waiting[side] ? text("%s (%u of %u wait)", bytes, info->waiting[side],
					  info->size[side]) : bytes;
}

static void list_line(const struct place *place, const struct kvmfr_channel_info *info)
{
	printf("%-12s %-28s %-10s %-10s %-24s %s\n", place_name(place), info->name,
	       states[info->state[HOST]], states[info->state[GUEST]], direction(info, HOST),
	       direction(info, GUEST));
}

static int channel_list(struct request *r)
{
	struct json_object *array = json_object_new_array();
	struct place places[MAX_PLACES];
	int n = places_meant(r, places), all = 0;
	const char *problem = NULL;

	for (int i = 0; i < n; i++) {
		struct kvmfr_channel_info *infos;
		int count;

		if (!place_list(&places[i], &infos, &count, &problem)) {
			if (n == 1)
				fail("%s: %s", place_name(&places[i]), problem);
			continue;
		}
		for (int j = 0; j < count; j++) {
			if (!r->json && !all++)
				printf("%s\n", column(BOLD, 0,
				       text("%-12s %-28s %-10s %-10s %-24s %s", "WHERE", "NAME", "HOST",
					    "GUEST", "BYTES TO GUEST", "BYTES TO HOST")));
			if (r->json)
				list_json(array, &places[i], &infos[j]);
			else
				list_line(&places[i], &infos[j]);
		}
		free(infos);
	}
	if (r->json)
		printf("%s\n", json_object_to_json_string_ext(array, JSON_C_TO_STRING_PRETTY |
							      JSON_C_TO_STRING_SPACED));
	json_object_put(array);
	return 0;
}

/* --- create, remove -------------------------------------------------------- */

static void name_check(const char *name)
{
	if (!kvmfr_channel_name_is_valid(name))
		misuse("channel: a name has 1 to %d printable ASCII characters without '/', and isn't '.' or '..'",
		       KVMFR_CHANNEL_NAME_SIZE - 1);
}

static int channel_create(struct request *r)
{
	struct control_request request = {
		.what = CONTROL_CREATE, .to_guest = CHANNEL_SIZE, .to_host = CHANNEL_SIZE,
	};
	const char *name = r->arguments[0], *size = r->arguments[1];
	struct control_answer answer;
	struct place place;

	name_check(name);
	strcpy(request.name, name);
	if (size) {
		if (!size_parse(size, &request.to_guest))
			misuse("channel: '%s' is not a size, for example 65536, 64K or 1M; at most 1G",
			       size);
		request.to_host = request.to_guest;
	}
	place = place_meant(r);
	answer = ask(&place, &request, NULL);
	if (answer.error == -EEXIST)
		fail("%s: there is a channel %s already", place.vm, name);
	if (answer.error == -ENOSPC)
		fail("%s: no room for two rings of %" PRIu64 " bytes: the largest free piece has %" PRIu64 " bytes%s",
		     place.vm, request.to_guest, answer.room,
		     answer.room ? "" : ", or there are as many channels as there can be");
	if (answer.error)
		fail("%s: %s: %s", place.vm, name, strerror(-answer.error));
	return 0;
}

static int channel_remove(struct request *r)
{
	struct control_request request = { .what = CONTROL_REMOVE };
	const char *name = r->arguments[0];
	struct control_answer answer;
	struct place place;

	name_check(name);
	strcpy(request.name, name);
	place = place_meant(r);
	answer = ask(&place, &request, NULL);
	if (answer.error == -ENOENT)
		fail("%s: there is no channel %s", place.vm, name);
	if (answer.error)
		fail("%s: %s: %s", place.vm, name, strerror(-answer.error));
	return 0;
}

/* --- leave, attach --------------------------------------------------------- */

static int channel_leave(struct request *r)
{
	struct control_request request = { .what = CONTROL_LEAVE };
	struct place place = place_meant(r);
	struct control_answer answer = ask(&place, &request, NULL);

	if (answer.error)
		fail("%s: %s", place.vm, strerror(-answer.error));
	return 0;
}

static int channel_attach(struct request *r)
{
	struct control_request request = { .what = CONTROL_ATTACH };
	struct place place = place_meant(r);
	struct control_answer answer = ask(&place, &request, NULL);

	if (answer.error == -EPROTO)
		fail("%s: the memory is not in the format of channels: has the guest arrived? 'query-migrate' of QEMU says when",
		     place.vm);
	if (answer.error)
		fail("%s: %s", place.vm, strerror(-answer.error));
	return 0;
}

/* --- connect --------------------------------------------------------------- */

/* Copies until the end of @from, or until @to takes no more. */
static void copy(int from, int to)
{
	char data[65536];
	ssize_t n, done, m;

	while ((n = read(from, data, sizeof(data))) > 0)
		for (done = 0; done < n; done += m) {
			m = write(to, data + done, n - done);
			if (m < 0)
				return;
		}
}

/* systemd starts kvmfrd when somebody asks it something; it has its sockets then. */
static void wake(const struct place *place)
{
	struct control_request request = { .what = CONTROL_LOOK };
	int memory = -1;

	if (!place->vm || access(text("%s.control", place->directory), W_OK))
		return;
	ask(place, &request, &memory);
	close(memory);
}

static void connect_fail(const struct place *place, const char *name, int error)
{
	if (error == -ENOENT)
		fail("%s: there is no channel %s that programs connect to; 'kvmfrctl channel list' shows what there is",
		     place_name(place), name);
	if (error == -ECONNREFUSED)
		fail("%s: kvmfrd doesn't run: nobody listens at %s/%s", place_name(place),
		     place->directory, name);
	fail("%s: %s/%s: %s", place_name(place), place->directory, name, strerror(-error));
}

static int channel_connect(struct request *r)
{
	const char *name = r->arguments[0];
	struct pollfd closed = { 0 };
	struct place place;
	pid_t sender;
	int fd;

	name_check(name);
	place = place_meant(r);
	fd = socket_connect(text("%s/%s", place.directory, name), SOCK_STREAM);
	if (fd == -ENOENT) {
		wake(&place);
		fd = socket_connect(text("%s/%s", place.directory, name), SOCK_STREAM);
	}
	if (fd < 0)
		connect_fail(&place, name, fd);
	sender = fork();
	if (sender < 0)
		fail("fork: %s", strerror(errno));
	if (!sender) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		copy(STDIN_FILENO, fd);
		shutdown(fd, SHUT_WR);
		_exit(0);
	}
	copy(fd, STDOUT_FILENO);
	/* The other end sends no more, but may still read what we send. */
	closed.fd = fd;
	while (poll(&closed, 1, -1) < 0 && errno == EINTR)
		;
	kill(sender, SIGKILL);
	return 0;
}

static const struct {
	const char *name;
	int least, most;	/* arguments */
	int (*run)(struct request *r);
	const char *usage;
} actions[] = {
	{ "list", 0, 0, channel_list, "list [--json]" },
	{ "create", 1, 2, channel_create, "create NAME [SIZE]" },
	{ "remove", 1, 1, channel_remove, "remove NAME" },
	{ "connect", 1, 1, channel_connect, "connect NAME" },
	{ "leave", 0, 0, channel_leave, "leave" },
	{ "attach", 0, 0, channel_attach, "attach" },
};

int cmd_channel(int argc, char **argv)
{
	static const struct option options[] = {
		{ "vm", required_argument, NULL, 'v' },
		{ "device", required_argument, NULL, 'd' },
		{ "json", no_argument, NULL, 'j' },
		{ }
	};
	struct request r = { };
	int c;

	while ((c = option_next(argc, argv, options)) != -1) {
		if (c == 'v')
			r.vm = optarg;
		else if (c == 'd')
			r.device = optarg;
		else
			r.json = true;
	}
	argc -= optind;
	argv += optind;
	for (size_t i = 0; i < sizeof(actions) / sizeof(*actions); i++) {
		if (!argc || strcmp(argv[0], actions[i].name))
			continue;
		if (argc - 1 < actions[i].least || argc - 1 > actions[i].most ||
		    (r.json && actions[i].run != channel_list))
			misuse("channel: expected '%s'", actions[i].usage);
		r.arguments = argv + 1;
		return actions[i].run(&r);
	}
	misuse("channel: expected list, create, remove, connect, leave or attach");
}
