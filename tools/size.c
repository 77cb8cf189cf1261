// SPDX-License-Identifier: GPL-2.0
/* How much memory Looking Glass needs for a screen. */
#include "kvmfrctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SIDE	65535

/* Two frames and the cursor, as the documentation of release B7 has it. */
static uint64_t bytes_b7(uint64_t width, uint64_t height, bool hdr)
{
	return width * height * (hdr ? 8 : 4) * 2 + 10 * MIB;
}

/* Three frames with lines of whole 256 bytes, HDR or not: August 2026. */
static uint64_t bytes_now(uint64_t width, uint64_t height)
{
	return (width * 4 + 255) / 256 * 256 * height * 3 + 4 * MIB;
}

/* A side of the screen at the start of s; what follows it, or NULL. */
static const char *parse_side(const char *s, uint64_t *side)
{
	char *end;

	if (*s < '1' || *s > '9')
		return NULL;
	*side = strtoull(s, &end, 10);
	return *side > MAX_SIDE ? NULL : end;
}

int cmd_size(int argc, char **argv)
{
	static const struct option options[] = {
		{ "b7", no_argument, NULL, 'b' },
		{ "hdr", no_argument, NULL, 'h' },
		{ }
	};
	uint64_t width, height, bytes, mib = 1;
	bool b7 = false, hdr = false;
	const char *rest;
	int c;

	while ((c = option_next(argc, argv, options)) != -1) {
		if (c == 'b')
			b7 = true;
		else
			hdr = true;
	}
	if (argc - optind != 1)
		misuse("size: wants one screen, for example 'kvmfrctl size 3840x2160'");

	rest = parse_side(argv[optind], &width);
	if (!rest || *rest != 'x' || !(rest = parse_side(rest + 1, &height)) ||
	    *rest)
		misuse("size: '%s' is not a screen of up to %ux%u, for example 3840x2160",
		       argv[optind], MAX_SIDE, MAX_SIDE);

	bytes = b7 ? bytes_b7(width, height, hdr) : bytes_now(width, height);
	while (mib * MIB < bytes)
		mib *= 2;

	printf("%" PRIu64 " MiB\n", mib);
	printf("# in /etc/modprobe.d/kvmfr.conf:\n");
	printf("options kvmfr static_size_mb=%" PRIu64 "\n", mib);
	printf("# or on the kernel's command line (Bazzite, Silverblue and other images):\n");
	printf("kvmfr.static_size_mb=%" PRIu64 "\n", mib);
	return 0;
}
