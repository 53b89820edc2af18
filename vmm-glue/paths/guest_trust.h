/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * CMD trusts the workspace's CA: the certificate, in every form in which programs look for one, without a byte written to the host.
 *
 * All that is made lies in one private tmpfs, SM_TRUST_DIR in CMD's view, read-only when CMD runs:
 *
 *   slirp-med-ca.pem   the CA's certificate
 *   ca-bundle.pem      what the file system that CMD sees trusts, what the caller's variables name, and the CA
 *   node-extra.pem     the same less what the file system trusts (Node adds it to its own list)
 *   ca-bundle.jks      the same as ca-bundle.pem for Java; password changeit
 *   hashed/            the CA under its OpenSSL subject hash, for SSL_CERT_DIR
 *   store-N, folder-N  what is laid over the distribution's files and folders
 *   nss-N              what is laid over NSS databases in the home folder (guest_nss.h); writable
 *
 * Over the files and folders where a distribution keeps its trust (the tables in guest_stores.c and guest_folders.c) lie copies with the CA added, read-only. What is
 * not there is not made, but inside a folder that is covered. Chromium has no such file: it gets a managed policy, in a copy of its folder in
 * /etc. The variables that SM_TRUST_VARIABLES names are pointed at the bundle.
 *
 * Names are looked up inside CMD's root: a symbolic link cannot lead out of it, /proc's links are not followed, and nothing is read from the
 * kernel's file systems (/proc/1 is guest-init). Bytes that are read there may be a former CMD's: see certs.h. The CA's own certificate, which the core made, is parsed by libcrypto.
 *
 * Steps: sm_trust_new(), sm_trust_build() (files only, so that it can be tried in any folder), sm_trust_attach() (mounts),
 * sm_trust_environment(). Errors are of SM_ERROR_SYSTEM: give the start up. A store that cannot be read or is too large is left as it is, with a
 * warning: what CMD cannot read it cannot use.
 */
#ifndef SM_PATHS_GUEST_TRUST_H
#define SM_PATHS_GUEST_TRUST_H

#include <glib.h>

#include "base/defs.h"

#define SM_TRUST_DIR "/run/slirp-med"
/** Largest ca.pem: a P-256 certificate has 700 bytes. */
#define SM_TRUST_CA_MAX (64u << 10)
/** One folder that is copied: entries (Debian has 430, RHEL 600), and bytes of the files in it. */
#define SM_TRUST_FOLDER_ENTRIES 8192
#define SM_TRUST_FOLDER_BYTES (16u << 20)
/** The tmpfs: bundles, Java stores, and folders. Only what is written takes memory: 1 MiB on Debian. */
#define SM_TRUST_SIZE "size=128m,nr_inodes=65536"

struct sm_trust;

/** What is laid over what: for tests. */
struct sm_trust_cover {
    char *target; /* path in CMD's root */
    char *source; /* name in the tmpfs */
    bool writable;
};

/** Hex digits, lower case. */
#define SM_TRUST_HASH_LEN 8
/**
 * sm_trust_new() - pem: the CA's certificate, one block; hash: of its subject, as OpenSSL names files in a folder of certificates (the core
 * has it from OpenSSL, so that this process need not load it). NULL with error set when they are none.
 */
struct sm_trust *sm_trust_new(const char *pem, size_t len, const char *hash, GError **error);
void sm_trust_free(struct sm_trust *trust);

/**
 * sm_trust_build() - make the files.
 * @root: descriptor of CMD's root; @dir: of the empty tmpfs. Both stay the caller's and must outlive trust.
 * @env: CMD's environment; @cwd: what a relative path in it means.
 * Returns 0, or -1 with error set.
 */
int sm_trust_build(struct sm_trust *trust, int root, int dir, char *const *env, const char *cwd, GError **error);
size_t sm_trust_n_covers(const struct sm_trust *trust);
const struct sm_trust_cover *sm_trust_cover(const struct sm_trust *trust, size_t i);

/** sm_trust_attach() - dir becomes read-only, the covers are put in place. Once, in the mount namespace whose root `root` is. */
int sm_trust_attach(struct sm_trust *trust, GError **error);

/** sm_trust_environment() - env with the variables that lead to the bundle; a new list for g_strfreev(). */
char **sm_trust_environment(const struct sm_trust *trust, char *const *env);

#endif
