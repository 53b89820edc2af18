/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The configuration of guest-init as a struct: parsed strictly (unknown keys, wrong types and values out of range are
 * errors that name the key). Keys and meaning: guest_init.h. Pure: no file, no clock.
 */
#ifndef SM_PATHS_GUEST_CONFIG_H
#define SM_PATHS_GUEST_CONFIG_H

#include <glib.h>

#include "base/addr.h"
#include "base/defs.h"
#include "base/link.h"
#include "ports/tap.h"

/** Most entries of a list of paths, binds or variables: far above use, so that a mistake cannot eat the machine. */
#define SM_GUEST_LIST_MAX 1024

/** Where "files" begin, and how many there may be: a kernel, an initrd, and three sockets. */
#define SM_GUEST_FILES_FD (SM_GUEST_MORE_FD + SM_GUEST_MORE_MAX)
#define SM_GUEST_FILES_MAX 5

/** Resolvers in CMD's resolv.conf: as many as it can be told of in other ways (SM_LINK_DNS_MAX); the C library asks the first three. */
#define SM_GUEST_DNS_MAX 8

struct sm_guest_bind {
    char *src, *dst;
};

struct sm_guest_config {
    char *name;
    char **argv;
    char *cwd;
    bool isolated;          /* CMD's namespace has lo alone */
    struct sm_tap_spec tap; /* name is a static string */
    bool tproxy; /* the kernel path; the next two belong to it. With bare CMD gets its tap as SM_GUEST_MORE_FD */
    uint8_t gateway_mac[6];
    struct sm_addr resolver;
    struct sm_addr dns[SM_GUEST_DNS_MAX];
    size_t n_dns;
    char *hostname;
    int64_t uid, gid;     /* -1: not given */
    int64_t umask;        /* -1: as inherited */
    int64_t nofile, core; /* soft limits; -1 unlimited, -2: as inherited */
    char *state_dir;      /* or NULL */
    char **masks;
    char **unset_env;
    bool ca; /* descriptor 7 is there */
    bool ro;
    bool bare;      /* nothing of the machine but its programs; the next two belong to it */
    int64_t n_more; /* descriptors from SM_GUEST_MORE_FD on that CMD gets */
    char **files;   /* paths that become descriptors of CMD's, from SM_GUEST_FILES_FD on */
    char *rootfs;   /* or NULL */
    struct sm_guest_bind *binds;
    size_t n_binds;
};

/** sm_guest_config_parse() - text is JSON of len bytes. Returns a config for sm_guest_config_free(), or NULL with error
 * set. */
struct sm_guest_config *sm_guest_config_parse(const char *text, size_t len, GError **error);
void sm_guest_config_free(struct sm_guest_config *config);

#endif
