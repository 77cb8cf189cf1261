/* SPDX-License-Identifier: MIT */
/*
 * libkvmfr: memory shared between machines, for programs
 *
 * The library has no threads, handles no signals and prints nothing. Nothing
 * blocks unless a function's text says so. Two threads may use two objects at
 * once; one object is used by one thread at a time.
 *
 * A function that can fail returns a negative errno, as in -ENODEV; errno
 * itself is not set.
 */
#ifndef LIBKVMFR_H
#define LIBKVMFR_H

#ifdef __cplusplus
extern "C" {
#endif

/* Marks what the library exports; libkvmfr.map has the same names. */
#define KVMFR_API __attribute__((visibility("default")))

/* The library's version as in "1.1.0". A constant, never freed. */
KVMFR_API const char *kvmfr_library_version(void);

#ifdef __cplusplus
}
#endif

#endif
