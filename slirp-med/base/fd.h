/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * File descriptors: owning variables, sealed configuration memfds, and SEQPACKET messages that carry descriptors.
 * Every function here is async-signal agnostic and single-threaded; none blocks unless it says so.
 */
#ifndef SM_BASE_FD_H
#define SM_BASE_FD_H

#include <glib.h>

#include "base/defs.h"

/** Most descriptors one message may carry: the sockets of the kernel path (nat/tproxy.h); all others have two at most. */
#define SM_FD_MSG_MAX 5

void sm_fd_close(int *fd);
/** An owning descriptor variable: closed when it leaves its scope, unless stolen. */
#define sm_autofd sm_cleanup(sm_fd_close) int

static inline int sm_steal_fd(int *fd)
{
    int stolen = *fd;
    *fd = -1;
    return stolen;
}

/** sm_fd_set_nonblock() - O_NONBLOCK on. Returns 0 or -1 with errno. */
int sm_fd_set_nonblock(int fd);
/** sm_fd_set_cloexec() - FD_CLOEXEC on or off. Returns 0 or -1 with errno. */
int sm_fd_set_cloexec(int fd, bool on);

/** sm_fd_memfd() - a sealed (no write, grow, shrink) memfd that holds data. Returns a descriptor (CLOEXEC) or -1 with error set. */
int sm_fd_memfd(const char *name, const void *data, size_t len, GError **error);

/** sm_fd_read_all() - everything a regular file or memfd holds, from offset 0, at most max bytes (one more is an error).
 * Returns a NUL-terminated buffer for g_free() and sets *ret_len, or NULL with error set. */
char *sm_fd_read_all(int fd, size_t max, size_t *ret_len, GError **error);

/** sm_fd_write_all() - write(2) until all is written; blocking descriptors only. Returns 0 or -1 with errno. */
int sm_fd_write_all(int fd, const void *data, size_t len);

/**
 * sm_fd_send() - one SEQPACKET message with n_fds descriptors (they stay the caller's).
 * Returns len, or -1 with errno (EAGAIN: the queue is full, nothing was sent).
 */
ssize_t sm_fd_send(int sock, const void *data, size_t len, const int *fds, size_t n_fds);

/**
 * sm_fd_recv() - one SEQPACKET message and its descriptors (received CLOEXEC; they become the caller's).
 * @ret_fds: room for SM_FD_MSG_MAX; @ret_n_fds: how many came.
 * Returns the length, 0 at end of stream, or -1 with errno. A truncated message or control part is -1/EMSGSIZE and its fds are closed.
 */
ssize_t sm_fd_recv(int sock, void *buf, size_t cap, int ret_fds[SM_FD_MSG_MAX], size_t *ret_n_fds);

/** sm_fd_seqpair() - a CLOEXEC SOCK_SEQPACKET pair; nonblock applies to both ends. Returns 0 or -1 with errno. */
int sm_fd_seqpair(int ret[2], bool nonblock);

#endif
