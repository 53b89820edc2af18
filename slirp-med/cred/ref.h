/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A reference: where on the host a secret is, never the secret (spec section 6).
 *
 *   env:NAME           the variable NAME of the caller's environment
 *   file:PATH          what the file holds; a relative PATH begins at the folder that the parser is given
 *   vault:PATH#FIELD   field FIELD of the secret at PATH in a Vault KV store, as in `vault kv get -field=FIELD PATH`
 *
 * Whatever is no reference is taken for a secret that somebody wrote down by mistake: no error text has any part of
 * what was refused, not even the part behind "env:".
 *
 * The canonical text has an absolute path without "." and "..", and parses to the same reference whatever the folder.
 * Pure: nothing is opened, read or asked. Errors are SM_ERROR_INVALID; the caller puts the place in front.
 */
#ifndef SM_CRED_REF_H
#define SM_CRED_REF_H

#include <glib.h>

#include "base/defs.h"

enum sm_ref_kind { SM_REF_ENV = 0, SM_REF_FILE, SM_REF_VAULT, SM_REF_KINDS };

/** Longest name of a variable: names in use have a tenth of that. */
#define SM_REF_NAME_MAX 128
/** Longest path of a file with its NUL: the kernel takes no longer one (PATH_MAX). */
#define SM_REF_FILE_STRLEN 4096
/** Longest path in a Vault store: mounts and secrets in use have a quarter of that. */
#define SM_REF_VAULT_MAX 512
/** Longest name of a field of a Vault secret. */
#define SM_REF_FIELD_MAX 128

/** A zeroed one is none: text is NULL. */
struct sm_ref {
    enum sm_ref_kind kind;
    char *text;  /* canonical */
    char *name;  /* ENV: the variable; otherwise NULL */
    char *path;  /* FILE: absolute; VAULT: as written; otherwise NULL */
    char *field; /* VAULT; otherwise NULL */
};

/** sm_ref_kind_name() - "env", "file", "vault". */
const char *sm_ref_kind_name(enum sm_ref_kind kind);

/**
 * sm_ref_parse() - len bytes of an operator, which may be anything.
 * @folder: absolute; where a relative file: path begins. NULL: a relative one is an error.
 * Return: true and *ret (for sm_ref_clear()), or false with error and *ret untouched.
 */
bool sm_ref_parse(const char *text, size_t len, const char *folder, struct sm_ref *ret, GError **error) SM_WARN_UNUSED;
void sm_ref_clear(struct sm_ref *ref);

/** sm_ref_env_name() - may len bytes be the name of a variable: a letter or underscore, then those and digits? */
bool sm_ref_env_name(const char *text, size_t len);

#endif
