/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Routes of the proxy front (spec section 11): a name of the operator's choice that leads to a fixed upstream,
 * `search=http://10.0.0.9:8080`.
 *
 * Whoever asks the proxy for that name on the route's port is connected to that upstream and to nothing else. The name
 * need not exist in any DNS, and the upstream may be inside: it is the operator who named it, as with an IP rule. Only
 * a deny entry of the name, another workspace and our own listeners are stronger. A route is for cleartext HTTP: what
 * the client says goes there as it is (the Host is still the route's name), judged and recorded like any other request;
 * what is no cleartext HTTP is refused as route_not_http (except with --egress off, which looks at nothing).
 *
 *   NAME[:PORT]=http://HOST[:PORT]     both ports are 80 when they are left out; HOST is a name or an address
 *
 * A path, https, a user or a query in the URL are errors: nothing in a request is rewritten.
 */
#ifndef SM_POLICY_ROUTE_H
#define SM_POLICY_ROUTE_H

#include "policy/entry.h"
#include "policy/names.h"

/** Each is a service that somebody runs by hand beside the containers; the table is looked through in order. */
#define SM_ROUTES_MAX 64

struct sm_route {
    char name[SM_NAME_STRLEN]; /* canonical */
    uint16_t port;
    struct sm_host target; /* HOST, IPV4 or IPV6; port filled in */
};

struct sm_routes {
    struct sm_route item[SM_ROUTES_MAX];
    size_t n;
};

/** sm_routes_add() - one more, from its text. False with error (SM_ERROR_INVALID) that says what is wrong; no flag's
 * name is in it. */
bool sm_routes_add(struct sm_routes *routes, const char *text, GError **error) SM_WARN_UNUSED;

/** sm_routes_find() - of a canonical name and the port that a client asks for. NULL: none. @routes may be NULL. */
const struct sm_route *sm_routes_find(const struct sm_routes *routes, const char *name, uint16_t port);

/** sm_route_format() - "NAME:PORT=http://HOST:PORT", which sm_routes_add() takes again; g_free(). */
char *sm_route_format(const struct sm_route *route);

/** sm_route_rule() - what stands as `rule` in the record: "route NAME". */
const char *sm_route_rule(const struct sm_route *route, char out[SM_ENTRY_STRLEN]);

#endif
