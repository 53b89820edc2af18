/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ways out of a network namespace that lie in the file system and in the environment: pathname Unix sockets (a path
 * is not bound to a network namespace), and the variables that name them.
 */
#ifndef SM_PATHS_GUEST_ENV_H
#define SM_PATHS_GUEST_ENV_H

#include <glib.h>

#include "base/defs.h"

/** Directory entries looked at by the walk for sockets: bounds the start-up time (about 10 ms at the maximum). */
#define SM_GUEST_WALK_MAX 8192

/**
 * sm_guest_sockets() - the absolute path of every pathname socket that /proc/net/unix lists, in our network namespace
 * and in those of all processes that we may look at, and of every socket found in /tmp, /var/tmp and home (a bounded
 * walk: sockets bound by a relative path, or in namespaces that we cannot see). Call it before leaving the caller's
 * namespaces.
 * @home: the caller's home folder, or NULL. Returns a set of strings (g_hash_table_unref()).
 */
GHashTable *sm_guest_sockets(const char *home);

/** sm_guest_sockets_parse() - add the pathname sockets of one /proc/net/unix text (it is written to: line ends become
 * NUL). */
void sm_guest_sockets_parse(char *text, GHashTable *set);

/**
 * sm_guest_environment() - CMD's environment: env less the variables of guest_init.h.
 * @unset: names to remove, NULL-terminated; @sockets: paths. Returns a list for g_strfreev().
 */
char **sm_guest_environment(char **env, char **unset, GHashTable *sockets);

#endif
