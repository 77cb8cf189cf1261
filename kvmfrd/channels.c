// SPDX-License-Identifier: GPL-2.0
/* One side of a memory with channels: which links there are, and who looks at them. */
#include "channels.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The tag of a channel that is there because a configuration names it. */
#define CONFIGURED	0x666e6f63	/* "conf" */
#define LINKS	1023	/* as many channels as the format has */
#define TURNS	256	/* events until it is the turn of others */

struct channels {
	struct channels_options o;
	struct kvmfr_channels *set;
	sd_event_source *woken, *again;
	unsigned int n;
	struct link *links[LINKS];
};

static struct link **find(struct channels *c, const char *name)
{
	for (unsigned int i = 0; i < c->n; i++)
		if (!strcmp(link_name(c->links[i]), name))
			return &c->links[i];
	return NULL;
}

static void add(struct channels *c, const char *name)
{
	struct link *link;

	if (c->n == LINKS)
		return;
	link = link_new(c->o.event, c->set, c->o.directory, config_find(c->o.config, name), name);
	if (link)
		c->links[c->n++] = link;
}

static void drop(struct channels *c, struct link **link)
{
	link_free(*link);
	*link = c->links[--c->n];
}

/* Makes links for all channels, or for the one of that name. */
static void add_existing(struct channels *c, const char *name)
{
	struct kvmfr_channel_info *infos = calloc(LINKS, sizeof(*infos));
	int n = infos ? kvmfr_channels_list(c->set, infos, LINKS) : 0;

	for (int i = 0; i < n && i < LINKS; i++)
		if (!name || !strcmp(name, infos[i].name))
			add(c, infos[i].name);
	free(infos);
}

static void handle(struct channels *c, const struct kvmfr_channel_event *event)
{
	struct link **link = find(c, event->name);

	if (event->what == KVMFR_CHANNEL_CHANGED) {
		if (link)
			link_look(*link);
		return;
	}
	/* One that was made anew in another slot may be told of before it is removed. */
	if (link)
		drop(c, link);
	add_existing(c, event->name);
}

/* The other side decides how many events there are, so not all at once. */
void channels_look(struct channels *c)
{
	struct kvmfr_channel_event event;
	int ret = 1;

	for (unsigned int i = 0; i < TURNS && ret > 0; i++) {
		ret = kvmfr_channels_event(c->set, &event);
		if (ret > 0)
			handle(c, &event);
	}
	if (ret > 0)
		sd_event_source_set_enabled(c->again, SD_EVENT_ONESHOT);
	if (ret < 0) {
		/* Nobody clears the doorbell any more. */
		sd_event_source_set_enabled(c->woken, SD_EVENT_OFF);
		c->o.ended(c->o.data, ret);
	}
}

static int on_wake(sd_event_source *source, int fd, uint32_t events, void *data)
{
	(void)source;
	(void)fd;
	(void)events;
	channels_look(data);
	return 0;
}

static int on_again(sd_event_source *source, void *data)
{
	(void)source;
	channels_look(data);
	return 0;
}

/* Whether a ring of that size is what is made for so many bytes. */
static bool is_for(uint32_t size, uint64_t bytes)
{
	return size >= bytes && (size == 4096 || size / 2 < bytes);
}

/*
 * What an earlier configuration has made and this one doesn't name, or with another size.
 * What kvmfrctl has created stays.
 */
static void remove_outdated(struct channels *c)
{
	struct kvmfr_channel_info *infos = calloc(LINKS, sizeof(*infos));
	int n = infos ? kvmfr_channels_list(c->set, infos, LINKS) : 0;

	for (int i = 0; i < n && i < LINKS; i++) {
		const struct kvmfr_channel_info *info = &infos[i];
		const struct channel_config *s = config_find(c->o.config, info->name);

		if (info->tag == CONFIGURED &&
		    (!*s->name || !is_for(info->size[KVMFR_CHANNEL_HOST], s->to_guest) ||
		     !is_for(info->size[KVMFR_CHANNEL_GUEST], s->to_host)))
			kvmfr_channel_remove(c->set, info->name);
	}
	free(infos);
}

/* What the configuration names and isn't there yet. */
static void create_configured(struct channels *c)
{
	for (const struct channel_config *s = c->o.config; s; s = s->next) {
		const struct channel_config *used = config_find(c->o.config, s->name);
		int ret = s == used ? kvmfr_channel_create(c->set, s->name, s->to_guest,
							   s->to_host) : 0;

		if (ret == -ENOSPC)
			complain("channel %s: there is no room for rings of %llu and %llu bytes, the largest free piece has %llu",
				 s->name, (unsigned long long)s->to_guest,
				 (unsigned long long)s->to_host,
				 (unsigned long long)kvmfr_channels_room(c->set));
		else if (ret && ret != -EEXIST)
			complain("channel \"%s\": %s", s->name, strerror(-ret));
		else
			kvmfr_channel_set_tag(c->set, s->name, CONFIGURED);
	}
}

static int add_sources(struct channels *c)
{
	int ret = sd_event_add_io(c->o.event, &c->woken, kvmfr_channels_fd(c->set), EPOLLIN,
				  on_wake, c);

	if (ret >= 0)
		ret = sd_event_add_defer(c->o.event, &c->again, on_again, c);
	return ret < 0 ? ret : 0;
}

int channels_new(struct channels **result, const struct channels_options *options)
{
	struct channels *c = calloc(1, sizeof(*c));
	struct kvmfr_channel_event event;
	int ret;

	if (!c)
		return -ENOMEM;
	c->o = *options;
	ret = kvmfr_channels_attach(&c->set, c->o.backing, c->o.side, c->o.flags);
	if (!ret)
		ret = add_sources(c);
	if (ret) {
		channels_free(c);
		return ret;
	}
	if (c->o.restarted)
		remove_outdated(c);
	if (c->o.side == KVMFR_CHANNEL_HOST)
		create_configured(c);
	/* What has happened until now is in the list. */
	for (unsigned int i = 0; i < 2 * LINKS && kvmfr_channels_event(c->set, &event) > 0; i++)
		;
	add_existing(c, NULL);
	*result = c;
	return 0;
}

void channels_free(struct channels *c)
{
	if (!c)
		return;
	while (c->n)
		link_leave(c->links[--c->n]);
	sd_event_source_disable_unref(c->woken);
	sd_event_source_disable_unref(c->again);
	kvmfr_channels_leave(c->set);
	free(c);
}

void channels_peer_gone(struct channels *c, uint32_t id)
{
	kvmfr_channels_peer_gone(c->set, id);
	sd_event_source_set_enabled(c->again, SD_EVENT_ONESHOT);
}

void channels_unlink(const struct channels *c)
{
	for (unsigned int i = 0; i < c->n; i++)
		link_unlink(c->links[i]);
}

void channels_request(struct channels *c, const struct control_request *request,
		      struct control_answer *answer)
{
	if (request->what == CONTROL_CREATE)
		answer->error = kvmfr_channel_create(c->set, request->name, request->to_guest,
						     request->to_host);
	else if (request->what == CONTROL_REMOVE)
		answer->error = kvmfr_channel_remove(c->set, request->name);
	else
		answer->error = -EOPNOTSUPP;
	answer->room = kvmfr_channels_room(c->set);
	/* Who is answered finds the socket, or no more. */
	channels_look(c);
}
