/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of guest_trust.h share, and nobody else: guest_trust.c (life, look-ups, mounts, variables), guest_stores.c (files: bundles,
 * Java stores, NSS databases), guest_folders.c (folders).
 *
 * Covering works in two kinds. A file is replaced by one with the CA added. A folder is replaced by a copy of it with files added: links as links,
 * files as copies (or what replaces them), folders as mounts of the originals; so that nothing else in it changes.
 */
#ifndef SM_PATHS_GUEST_TRUST_INTERNAL_H
#define SM_PATHS_GUEST_TRUST_INTERNAL_H

#include <sys/stat.h>

#include "paths/certs.h"
#include "paths/guest_trust.h"

#define CA_NAME "slirp-med-ca.pem"
#define BUNDLE_NAME "ca-bundle.pem"
#define NODE_NAME "node-extra.pem"
#define JAVA_NAME "ca-bundle.jks"
#define HASHED_NAME "hashed"
#define NODE_VARIABLE "NODE_EXTRA_CA_CERTS"

/** The variables that name a bundle; NULL-terminated. NODE_VARIABLE is not among them. */
extern const char *const sm_trust_variables[];

/** A file that is covered, by what identifies it. */
struct store {
    dev_t dev;
    ino_t ino;
    char *source; /* in dir */
};

/** Something to be added to a folder's copy. */
struct addition {
    char *name; /* relative, may have folders in it */
    char *link; /* a symbolic link to this, or NULL: */
    const char *text;
};

struct folder {
    char *path;
    dev_t dev;
    ino_t ino;
    GArray *additions; /* struct addition */
    char *source;
    GPtrArray *kept; /* char *: folders in it, which stay as they are */
};

struct sm_trust {
    char *pem;               /* the CA, one normal block */
    char *hash;              /* of its subject, eight digits */
    char *policy;            /* Chromium's */
    struct sm_certs *bundle; /* ca-bundle.pem: the CA first, so that there is always room for it */
    struct sm_certs *extra;  /* node-extra.pem */
    int root, dir;
    GArray *covers;  /* struct sm_trust_cover: files */
    GArray *stores;  /* struct store */
    GArray *folders; /* struct folder, inner before outer once sorted */
    GArray *shown;   /* struct sm_trust_cover: files and folders */
    bool has_bundle; /* the file system that CMD sees has one */
    bool has_extra;  /* node-extra.pem is more than the CA */
};

/* ---- guest_trust.c ---- */

/** An O_PATH descriptor of a file or folder of that type inside root, or -1: not there, or something else. */
int sm_trust_find(int root, const char *path, mode_t type, struct stat *ret_st);
/** The content of what an O_PATH descriptor (of a regular file) stands for; NULL with errno. */
char *sm_trust_read(int fd, size_t max, size_t *ret_len);
/** What covers the file that st is of, or NULL. */
const struct store *sm_trust_store_of(const struct sm_trust *t, const struct stat *st);
/** A new file in a folder of ours. */
int sm_trust_write(int dir, const char *name, const void *data, size_t len, mode_t mode, GError **error);
/** For sm_trust_cover(). */
void sm_trust_show(struct sm_trust *t, const char *target, const char *source);
GArray *sm_trust_array(size_t size, GDestroyNotify clear);

/* ---- guest_stores.c ---- */

int sm_trust_make_bundles(struct sm_trust *t, char *const *env, const char *cwd, GError **error);
int sm_trust_make_java(struct sm_trust *t, GError **error);
int sm_trust_make_nss(struct sm_trust *t, char *const *env, GError **error);

/* ---- guest_folders.c ---- */

/** After the stores: a folder's copy holds what replaces the files in it. */
int sm_trust_make_folders(struct sm_trust *t, GError **error);
/** SM_TRUST_DIR/hashed. */
int sm_trust_make_hashed(struct sm_trust *t, GError **error);
void sm_trust_clear_folder(void *folder);

#endif
