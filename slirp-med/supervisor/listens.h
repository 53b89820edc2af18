/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where virtual machine monitors come in: sockets that listen for one, or that go and connect to one. What comes of it is
 * a descriptor with the tag of its row; this file reads and writes no byte of it.
 *
 *   kind    listens                                      client                        who is let in
 *   unix    on a path, mode 0600                         connects to a path            peers of our uid (SO_PEERCRED)
 *   tcp     on a loopback address                        connects to one               any user of this machine: TCP tells
 *                                                                                      no uid; loopback peers only
 *   dgram   binds a path, mode 0600, and connects to     -                             the file modes say it, and once the
 *           the peer's path when that is there                                         VMM is there nobody else is heard
 *
 * A path's folder is opened once and reached through /proc/self/fd/N from then on, so that the length of the path does not
 * matter (sun_path holds 108 bytes) and no folder on the way can be exchanged. A socket that is in the way is removed only
 * when it is ours and nobody answers on it. At the end the name is removed if it is still the one that we made.
 *
 * A row that is `single` serves one VMM at a time. Who comes while one is there is held for SM_LISTENS_HOLD_US: a VMM that
 * was killed and started again is often here before the end of the old connection was met. If the one that is there stays,
 * the newcomer is closed, which is logged once; a third that comes meanwhile is closed at once.
 *
 * A client tries again with pauses that double from SM_LISTENS_RETRY_MIN_US to SM_LISTENS_RETRY_MAX_US, for ever: the VMM may
 * be started next week. So does a dgram row, which looks whether its peer's socket is another one than last time.
 *
 * Nothing blocks. When descriptors or memory run out, accepting pauses for a second instead of spinning.
 */
#ifndef SM_SUPERVISOR_LISTENS_H
#define SM_SUPERVISOR_LISTENS_H

#include <glib.h>

#include "base/addr.h"
#include "base/loop.h"

/** Rows of one workspace: a network port, and a vsock port or two for each mediation target. */
#define SM_LISTENS_MAX 136
/** Waiting in the kernel: a VMM, and one that is started in its place; a hybrid vsock's guest may open more at once. */
#define SM_LISTENS_BACKLOG 16
/** The end of a killed process's sockets is met within milliseconds; a front that is under load may need longer. */
#define SM_LISTENS_HOLD_US (2 * INT64_C(1000000))
#define SM_LISTENS_RETRY_MIN_US (50 * INT64_C(1000))
#define SM_LISTENS_RETRY_MAX_US (1000 * INT64_C(1000))
/** How often a dgram row looks for its peer: one stat(2). */
#define SM_LISTENS_LOOK_US (250 * INT64_C(1000))
/** After accept(2) failed for want of descriptors or memory. */
#define SM_LISTENS_PAUSE_US (1000 * INT64_C(1000))

enum sm_listen_kind { SM_LISTEN_UNIX, SM_LISTEN_TCP, SM_LISTEN_DGRAM, SM_LISTEN_KINDS };
const char *sm_listen_kind_name(enum sm_listen_kind kind);

struct sm_listen_spec {
    enum sm_listen_kind kind;
    bool client;                 /* unix, tcp: the VMM listens, and we connect */
    bool single;                 /* one connection at a time; sm_listens_gone() says that it is over */
    const char *tag;             /* whose the connections are; borrowed */
    const char *path;            /* unix, dgram: absolute; borrowed */
    const char *peer;            /* dgram: the VMM's; absolute; borrowed */
    struct sm_endpoint endpoint; /* tcp */
};

struct sm_listens;

struct sm_listens_ops {
    /** a connection has come: fd (CLOEXEC, non-blocking) is taken. For dgram at the start, and
     * the same socket again when another VMM is behind the peer's name. */
    void (*connected)(void *data, const char *tag, int fd);
};

/** sm_listens_check() - could this row ever work? False with error (SM_ERROR_INVALID): a path that is too long at its end, or an
 * address that is not loopback. Touches nothing. */
bool sm_listens_check(const struct sm_listen_spec *spec, GError **error) SM_WARN_UNUSED;

/**
 * sm_listens_new() - bind and listen, all rows; nobody is let in before sm_listens_start(), but who comes already waits.
 * Returns NULL with error set and nothing left: SM_ERROR_BUSY when somebody answers there, SM_ERROR_INVALID for a path that
 * cannot be used, SM_ERROR_SYSTEM.
 */
struct sm_listens *sm_listens_new(struct sm_loop *loop, const struct sm_listen_spec *specs, size_t n_specs,
                                  const struct sm_listens_ops *ops, void *data, GError **error);
void sm_listens_start(struct sm_listens *listens);
/** sm_listens_gone() - the connection of a `single` row is over: who was held comes in; a client connects again. */
void sm_listens_gone(struct sm_listens *listens, const char *tag);
/** sm_listens_free() - closes what is held, and removes the names. NULL is fine. */
void sm_listens_free(struct sm_listens *listens);

#endif
