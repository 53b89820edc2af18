/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Programs of the guest that are run: the one that updates its store, and modprobe. Small helpers for descriptors
 * besides.
 */
#ifndef SM_GUEST_TOOL_H
#define SM_GUEST_TOOL_H

#include "base/defs.h"

/**
 * Updating the store takes half a second; a guest without KVM is twenty times slower, and may have other things to
 * do.
 */
#define SM_GUEST_TOOL_SECONDS 180
/** Most arguments a tool gets. */
#define SM_GUEST_TOOL_ARGS 4

/**
 * sm_guest_tool_find() - where the program is, in the folders where such tools are, or NULL. ret: room for the path.
 */
const char *sm_guest_tool_find(const char *name, char *ret, size_t size);

/**
 * sm_guest_tool_run() - run it: no input, its output to our stderr, an environment of PATH and LC_ALL alone, killed
 * after seconds.
 * @argv: NULL-terminated, argv[0] the path. Returns its exit status (128 + N when signal N ended it), or -1 with
 * errno (ETIMEDOUT: killed).
 */
int sm_guest_tool_run(const char *const *argv, unsigned seconds);

void sm_guest_close(int *fd);
/** An owning descriptor variable, as sm_autofd of base, which is not free of GLib. */
#define sm_guest_autofd sm_cleanup(sm_guest_close) int

/** sm_guest_now() - the monotonic clock in milliseconds. */
int64_t sm_guest_now(void);

/** sm_guest_read() - read(2), again after a signal. */
ssize_t sm_guest_read(int fd, void *buf, size_t len);
/** sm_guest_write_all() - write(2) until all is written; blocking descriptors only. Returns 0 or -1 with errno. */
int sm_guest_write_all(int fd, const void *data, size_t len);

#endif
