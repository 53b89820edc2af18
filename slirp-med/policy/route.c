/* SPDX-License-Identifier: BSD-3-Clause */
/* Routes: reading, finding, showing; see route.h. */
#include "policy/route.h"

#include <string.h>

#include "base/error.h"

#define SCHEME "http://"
#define PORT_HTTP 80
#define PORT_DNS 53
#define PORT_DNS_OVER_TLS 853

static bool bad(const char *text, const char *why, GError **error)
{
    sm_error_set(error, SM_ERROR_INVALID, "'%s': %s (write NAME=http://HOST:PORT)", text, why);
    return false;
}

/* NAME[:PORT], as an operator writes it: IDN too. */
static bool take_name(const char *text, const char *name, struct sm_route *ret, GError **error)
{
    const char *colon = strrchr(name, ':');
    g_autofree char *bare = colon ? g_strndup(name, (gsize)(colon - name)) : g_strdup(name);
    guint64 port = PORT_HTTP;

    if (colon && (!g_ascii_isdigit(colon[1]) || !g_ascii_string_to_unsigned(colon + 1, 10, 1, 65535, &port, NULL)))
        return bad(text, "the name's port is none", error);
    /* The decision answers port 53 itself and refuses 853 whatever stands behind it: a route there would do nothing. */
    if (port == PORT_DNS || port == PORT_DNS_OVER_TLS)
        return bad(text, "a route is for HTTP, and not for a port of DNS", error);
    ret->port = (uint16_t)port;
    if (sm_name_from_operator(bare, ret->name, error))
        return true;
    g_prefix_error(error, "'%s': ", text);
    return false;
}

static bool take_target(const char *text, const char *url, struct sm_host *ret, GError **error)
{
    if (g_ascii_strncasecmp(url, SCHEME, strlen(SCHEME)) != 0)
        return bad(text, "only http:// is routed", error);
    const char *authority = url + strlen(SCHEME);
    size_t len = strlen(authority);

    if (len > 0 && authority[len - 1] == '/')
        len--;
    if (memchr(authority, '/', len) || memchr(authority, '?', len) || memchr(authority, '#', len))
        return bad(text, "a path cannot be given: requests are passed on as they are", error);
    if (sm_host_parse(authority, len, ret) == SM_NAME_BAD)
        return bad(text, "the URL names no host", error);
    if (ret->port == 0)
        ret->port = PORT_HTTP;
    return true;
}

bool sm_routes_add(struct sm_routes *routes, const char *text, GError **error)
{
    const char *equals = strchr(text, '=');
    struct sm_route r = {0};

    if (!equals)
        return bad(text, "there is no '='", error);
    g_autofree char *name = g_strndup(text, (gsize)(equals - text));
    if (!take_name(text, name, &r, error) || !take_target(text, equals + 1, &r.target, error))
        return false;
    if (sm_routes_find(routes, r.name, r.port))
        return bad(text, "this name has a route already", error);
    if (routes->n >= SM_ROUTES_MAX) {
        sm_error_set(error, SM_ERROR_INVALID, "'%s': more than %d routes", text, SM_ROUTES_MAX);
        return false;
    }
    routes->item[routes->n++] = r;
    return true;
}

const struct sm_route *sm_routes_find(const struct sm_routes *routes, const char *name, uint16_t port)
{
    for (size_t i = 0; routes && i < routes->n; i++)
        if (routes->item[i].port == port && strcmp(routes->item[i].name, name) == 0)
            return &routes->item[i];
    return NULL;
}

char *sm_route_format(const struct sm_route *r)
{
    bool v6 = r->target.kind == SM_NAME_IPV6;

    return g_strdup_printf("%s:%u=" SCHEME "%s%s%s:%u", r->name, (unsigned)r->port, v6 ? "[" : "", r->target.name,
                           v6 ? "]" : "", (unsigned)r->target.port);
}

const char *sm_route_rule(const struct sm_route *r, char out[SM_ENTRY_STRLEN])
{
    (void)g_strlcpy(out, "route ", SM_ENTRY_STRLEN);
    (void)g_strlcat(out, r->name, SM_ENTRY_STRLEN);
    return out;
}
