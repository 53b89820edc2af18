/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The resolver service: asks the host's resolvers (or --dns) through c-ares on our loop, and never blocks it.
 *
 * One per core, one thread. It opens no file at run time: servers are given, no hosts file, no search domains, no
 * environment. Messages are ours (dns/message.h); c-ares 1.18 does transport: UDP, TCP when truncated, time-outs
 * (SM_RESOLVER_TIMEOUT_MS, SM_RESOLVER_TRIES rounds over the servers, doubling), fail-over on SERVFAIL, REFUSED and
 * NOTIMP. Ids are random and unique among the queries in flight.
 *
 * A callback is called exactly once for each request, from the loop and never from inside sm_resolver_query(); not
 * after a cancel, and not after sm_resolver_free(), which must not be called from inside a callback.
 *
 * A server that does not know EDNS (FORMERR without OPT) is asked again without it. From then on c-ares takes UDP
 * answers over 512 bytes for truncated and fetches them over TCP: slower, never wrong.
 *
 * Sockets are open only while something is in flight, so that ports change; c-ares matches server address, id and
 * question, and the parser checks id and question once more.
 *
 * System calls while running (for the seccomp list), all from resolver.c's own socket functions:
 * socket(AF_INET|AF_INET6, DGRAM|STREAM | NONBLOCK | CLOEXEC), setsockopt(IPPROTO_TCP, TCP_NODELAY), connect, sendmsg,
 * recvfrom, close; getrandom; the loop's epoll_ctl; clock_gettime (usually not a system call). sm_resolver_new() also
 * opens /dev/urandom (c-ares' ids, which are not used here) and nothing else: call it before the sandbox is
 * closed. sm_resolver_set_servers() opens nothing.
 */
#ifndef SM_CORE_RESOLVER_H
#define SM_CORE_RESOLVER_H

#include "base/loop.h"
#include "dns/message.h"

/** Queries in flight over all askers: 16-bit ids must stay sparse enough to be unguessable. */
#define SM_RESOLVER_INFLIGHT_MAX 1024
#define SM_RESOLVER_SERVERS_MAX 8
#define SM_RESOLVER_TIMEOUT_MS 2000
#define SM_RESOLVER_TRIES 2

struct sm_resolver;
struct sm_resolver_req;

enum sm_resolver_status {
    SM_RESOLVER_OK,          /* a response to the question came; its rcode may still be NXDOMAIN and the like */
    SM_RESOLVER_TIMEOUT,     /* no server answered in time */
    SM_RESOLVER_REFUSED,     /* every server that answered said REFUSED, */
    SM_RESOLVER_SERVFAIL,    /* ... SERVFAIL or NOTIMP, */
    SM_RESOLVER_BAD,         /* ... or something that is no believable response */
    SM_RESOLVER_UNREACHABLE, /* no server could be reached */
    SM_RESOLVER_STATUS_COUNT
};
const char *sm_resolver_status_name(enum sm_resolver_status status);

/** What is called when it is over. resp: only for SM_RESOLVER_OK, and valid only during the call; NULL otherwise. */
struct sm_resolver_done {
    void (*fn)(void *data, enum sm_resolver_status status, const struct sm_dns_response *resp);
    void *data;
};

/** sm_resolver_new() - servers are tried in their order; port 0 means 53. Returns NULL with error set. */
struct sm_resolver *sm_resolver_new(struct sm_loop *loop, const struct sm_endpoint *servers, size_t n_servers,
                                    GError **error);
/** sm_resolver_free() - drops all requests without calling back. */
void sm_resolver_free(struct sm_resolver *res);
/** sm_resolver_set_servers() - from now on these; queries in flight are asked again of the new ones. False with error
 * set: unchanged. */
bool sm_resolver_set_servers(struct sm_resolver *res, const struct sm_endpoint *servers, size_t n_servers,
                             GError **error);

/** sm_resolver_query() - ask q upstream (q is copied). Returns a handle until the callback, or NULL when
 * SM_RESOLVER_INFLIGHT_MAX is reached. */
struct sm_resolver_req *sm_resolver_query(struct sm_resolver *res, const struct sm_dns_query *q,
                                          struct sm_resolver_done done);
/** sm_resolver_lookup() - the core's own resolution of a canonical host name: type A. NULL also when the text is no
 * name. */
struct sm_resolver_req *sm_resolver_lookup(struct sm_resolver *res, const char *name, struct sm_resolver_done done);
/** sm_resolver_cancel() - forget the asker: no callback will come. req must be a live handle. */
void sm_resolver_cancel(struct sm_resolver_req *req);
unsigned sm_resolver_inflight(const struct sm_resolver *res);

/**
 * sm_resolv_conf_parse() - the `nameserver` lines of a resolv.conf (port 53); other lines, and addresses with a zone,
 * are passed over. Return: how many were stored, at most max.
 */
size_t sm_resolv_conf_parse(const char *text, size_t len, struct sm_endpoint *ret, size_t max);

#endif
