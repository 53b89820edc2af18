/* SPDX-License-Identifier: BSD-3-Clause */
/* Endpoints' URLs; see url.h. */
#include "cred/url.h"

#include <string.h>

#include "base/error.h"

static bool fail(GError **error, const char *what)
{
    sm_error_set(error, SM_ERROR_INVALID, "%s", what);
    return false;
}

static bool is_loopback(const struct sm_host *host)
{
    static const uint8_t one[16] = {[15] = 1};
    return (host->kind == SM_NAME_IPV4 && host->addr.bytes[0] == 127) ||
           (host->kind == SM_NAME_IPV6 && memcmp(host->addr.bytes, one, sizeof(one)) == 0) ||
           (host->kind == SM_NAME_HOST && strcmp(host->name, "localhost") == 0);
}

bool sm_cred_url_parse(const char *text, struct sm_cred_url *ret, GError **error)
{
    struct sm_cred_url url = {.tls = g_ascii_strncasecmp(text, "https://", 8) == 0};

    if (strlen(text) > SM_CRED_URL_MAX)
        return fail(error, "the URL is longer than 2048 bytes");
    for (const char *p = text; *p; p++)
        if (*p <= ' ' || *p > '~' || strchr("\\\"<>^`{|}", *p))
            return fail(error, "the URL has a byte that must be percent-encoded");
    if (!url.tls && g_ascii_strncasecmp(text, "http://", 7) != 0)
        return fail(error, "the URL must begin with https:// (http:// for loopback only)");
    if (strchr(text, '#'))
        return fail(error, "the URL must not have a fragment (#...)");
    const char *authority = text + (url.tls ? 8 : 7);
    size_t len = strcspn(authority, "/?");
    if (memchr(authority, '@', len))
        return fail(error, "the URL must not have a user or password in it");
    if (sm_host_parse(authority, len, &url.host) == SM_NAME_BAD)
        return fail(error, "the URL's host or port is not valid");
    if (url.host.port == 0)
        url.host.port = url.tls ? 443 : 80;
    url.loopback = is_loopback(&url.host);
    if (!url.tls && !url.loopback)
        return fail(error, "the URL must be https: a secret goes there (http is for loopback only)");
    url.path = authority + len;
    if (ret)
        *ret = url;
    return true;
}
