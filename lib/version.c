// SPDX-License-Identifier: MIT
#include "libkvmfr.h"

const char *kvmfr_library_version(void)
{
	return VERSION;
}
