/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The proxy front's configuration message (descriptor 4, one JSON object), written by launch/proxy.c.
 *
 *   workspace  string
 *   clients    array of CIDR         who may come; another client's connection is closed at once, and reported
 *   auth       {salt, digest}        hexadecimal, 16 and 32 bytes: a client's credentials (the token68 of Basic) are right if
 *                                    HMAC-SHA-256 with the salt as key gives the digest. Without it nobody is asked for any
 *
 * The password itself stays with the launcher: what is taken over here has nothing that another service would take.
 */
#ifndef SM_PATHS_PROXY_CONFIG_H
#define SM_PATHS_PROXY_CONFIG_H

#include <glib.h>

#include "core/config.h"

#define SM_PROXY_CONFIG_MAX (64u << 10)
#define SM_PROXY_SALT_LEN 16
#define SM_PROXY_DIGEST_LEN 32

struct sm_proxy_config {
    char *workspace;
    struct sm_prefix clients[SM_PROXY_CLIENTS_MAX];
    size_t n_clients;
    bool auth;
    uint8_t salt[SM_PROXY_SALT_LEN], digest[SM_PROXY_DIGEST_LEN];
};

/** sm_proxy_config_parse() - strict. False with error naming the key. */
bool sm_proxy_config_parse(const char *json, size_t len, struct sm_proxy_config *ret, GError **error) SM_WARN_UNUSED;
void sm_proxy_config_clear(struct sm_proxy_config *c);

/** sm_proxy_digest() - of a token68. */
void sm_proxy_digest(const uint8_t salt[SM_PROXY_SALT_LEN], const void *token, size_t len,
                     uint8_t ret[SM_PROXY_DIGEST_LEN]);
/** sm_proxy_config_admits() - are these credentials right? The time it takes does not depend on how far they are. */
bool sm_proxy_config_admits(const struct sm_proxy_config *c, const void *token, size_t len);
/** sm_proxy_config_is_client() - may this address use the proxy? */
bool sm_proxy_config_is_client(const struct sm_proxy_config *c, const struct sm_addr *addr);

#endif
