/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The URL of an endpoint that is given a secret: a token endpoint, Vault.
 *
 * https, or http when the host is loopback (127.0.0.0/8, ::1, "localhost"; RFC 6749 3.2 demands TLS, RFC 8252 8.3 says
 * why loopback may do without). Strict rather than repaired: visible ASCII, no user and password, no fragment, no
 * backslash and nothing else that URL readers disagree about; the host as policy/names.h takes it, so no odd form of an
 * address. Whoever dials resolves the host itself and dials loopback, and nothing else, for a host of which `loopback`
 * is said.
 *
 * Errors say what is wrong and quote nothing: somebody may have put a password into it.
 */
#ifndef SM_CRED_URL_H
#define SM_CRED_URL_H

#include <glib.h>

#include "base/defs.h"
#include "policy/names.h"

/** Longest URL: no endpoint has one of a quarter of this. */
#define SM_CRED_URL_MAX 2048

struct sm_cred_url {
    bool tls;
    bool loopback;
    struct sm_host host; /* its port is filled in: 443 or 80 when the URL names none */
    const char *path;    /* into the URL's text: what follows the authority, "" or beginning with '/' or '?' */
};

/** sm_cred_url_parse() - @ret may be NULL, and is filled only on success; it points into @text. */
bool sm_cred_url_parse(const char *text, struct sm_cred_url *ret, GError **error) SM_WARN_UNUSED;

#endif
