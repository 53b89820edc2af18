/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * HashiCorp Vault's HTTP API, as much as `vault:PATH#FIELD` needs: one GET of /v1/PATH, one text out of the answer.
 *
 * PATH is the path of the API, not of the command line: a secret "openai" of a KV version 2 engine mounted at "secret"
 * is secret/data/openai (the command line's `vault kv get secret/openai` puts the data/ in by itself), and
 * secret/openai of a version 1 engine. It is taken as plain text: odd bytes are percent-encoded here, a '%' too. Dots
 * as segments, empty segments, '?', '#', backslashes and control bytes are errors: one reference reads one secret and
 * nothing else.
 *
 * Version 1 and 2 are told apart by the answer's shape: data.data and data.metadata both objects is version 2, and
 * FIELD is a member of data.data; otherwise it is a member of data. (Version 1 data with two members of just these
 * names, both objects, would be taken for version 2 and read as missing: no secret is made up.) The same reading serves
 * other engines that answer with data (databases).
 *
 * The life of what was read is lease_duration when it is above 0 (SM_VAULT_TTL_MAX_S at most, since leases are not
 * renewed and KV version 1 says 32 days for everything), else SM_VAULT_TTL_DEFAULT_S. Vault's own error texts are never
 * shown.
 *
 * Source: Vault's API documentation ("HTTP API", "KV Secrets Engine" version 1 and 2).
 */
#ifndef SM_CRED_VAULT_H
#define SM_CRED_VAULT_H

#include <glib.h>

#include "cred/request.h"
#include "cred/value.h"

/** PATH and FIELD at their longest: Vault's own storage limits keys to 512 bytes and less. */
#define SM_VAULT_PATH_MAX 512
#define SM_VAULT_FIELD_MAX 256
#define SM_VAULT_TTL_DEFAULT_S 300
/** A changed secret is seen within the hour. */
#define SM_VAULT_TTL_MAX_S 3600

struct sm_vault_server {
    const char *addr; /* VAULT_ADDR: https, or http on loopback; a path before /v1 is allowed, a query is not */
    const struct sm_secret *token; /* VAULT_TOKEN, cleaned (value.h) */
    const char *namespace_;        /* VAULT_NAMESPACE; NULL or "": none */
};

/**
 * sm_vault_addr_check(), sm_vault_path_check(), sm_vault_field_check() - at load. Errors quote nothing: a secret may
 * stand in the wrong place.
 */
bool sm_vault_addr_check(const char *addr, GError **error) SM_WARN_UNUSED;
bool sm_vault_path_check(const char *path, GError **error) SM_WARN_UNUSED;
bool sm_vault_field_check(const char *field, GError **error) SM_WARN_UNUSED;

/** sm_vault_request() - @ret is cleared by the caller; on failure it is empty. */
bool sm_vault_request(const struct sm_vault_server *server, const char *path, struct sm_cred_request *ret,
                      GError **error) SM_WARN_UNUSED;

struct sm_vault_value {
    struct sm_secret
        *secret; /* NULL unless OK; the caller frees it. Raw, as a file's content is: sm_cred_value_clean() follows */
    uint32_t ttl_s; /* 1..SM_VAULT_TTL_MAX_S when OK */
};

/** sm_vault_read() - judge an answer. @ret: always filled. */
enum sm_cred_reason sm_vault_read(const struct sm_cred_response *r, const char *field, struct sm_vault_value *ret);

#endif
