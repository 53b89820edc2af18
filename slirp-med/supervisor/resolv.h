/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Following the host's resolv.conf: the core cannot open it, so the supervisor watches it and passes on each new content.
 *
 * inotify on the folder of the path, and on the folder of what it points at when it is a symbolic link (systemd-resolved, resolvconf). A burst
 * of events is one look; the content is passed on only when it differs from the last one that was read. The core gets a sealed memfd and
 * not the file: it cannot change under its feet or block. Nothing here looks at what the file says.
 */
#ifndef SM_SUPERVISOR_RESOLV_H
#define SM_SUPERVISOR_RESOLV_H

#include <glib.h>

#include "base/loop.h"

#define SM_RESOLV_PATH "/etc/resolv.conf"
/** Eight name servers and a page of search domains and comments are far less. */
#define SM_RESOLV_MAX (64u << 10)
/** Editors and DHCP clients remove, write and rename; look when they are done. */
#define SM_RESOLV_SETTLE_US (100 * 1000)

struct sm_resolv_watch;

/** sm_resolv_read() - the file's text (g_free()), or NULL with error set (no such file, not regular, over SM_RESOLV_MAX). */
char *sm_resolv_read(const char *path, GError **error);

/** sm_resolv_watch_new() - changed() is called from the loop with a memfd that is the callee's. known: the content already passed on; may be NULL. */
struct sm_resolv_watch *sm_resolv_watch_new(struct sm_loop *loop, const char *path, const char *known,
                                            void (*changed)(void *data, int fd), void *data, GError **error);
void sm_resolv_watch_free(struct sm_resolv_watch *watch);
/** sm_resolv_watch_get() - the content now, as a memfd, and remember it as passed on. -1 with error set when it cannot be had. */
int sm_resolv_watch_get(struct sm_resolv_watch *watch, GError **error);

#endif
