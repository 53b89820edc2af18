/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What would become of a connection, and by which entry: the questions that the core asks of a flow (policy/decide.h, core/rules.h), asked
 * without one. Nothing is resolved and nothing is sent.
 *
 * A name is judged at an address, and which one it has only the resolver knows. So it is asked about for three kinds, each at an example that
 * no address entry speaks of, with the name pinned there as after a look-up:
 *   public    not inside
 *   private   inside, of the kind that an exact listed name opens (10/8, 192.168/16, ...)
 *   special   inside, of a kind that only an address entry opens (link-local, metadata, loopback, ...)
 * or, with an address given, for that one. The verdict as a whole is the first one's.
 *
 * Not known without the running core: other names on the same address, listeners, other workspaces, caps used up, the upstream's certificate.
 */
#ifndef SM_LAUNCH_CHECK_H
#define SM_LAUNCH_CHECK_H

#include <jansson.h>

#include "launch/options.h"

/** What the connection carries; by default that of the port (443: tls, 80: http, else opaque; with a method and another port: http). */
enum sm_check_as {
    SM_CHECK_AS_PORT = 0,
    SM_CHECK_AS_TLS,
    SM_CHECK_AS_HTTP,
    SM_CHECK_AS_OPAQUE,
    SM_CHECK_AS_UDP,
    SM_CHECK_AS_COUNT
};
const char *sm_check_as_name(enum sm_check_as as);

struct sm_check {
    struct sm_host host; /* a name or an address */
    uint16_t port;
    enum sm_check_as as;
    struct sm_addr address;    /* that the name is to be taken to have; family none: not given */
    const char *method, *path; /* NULL: no request */
};

/** sm_check_parse() - HOST[:PORT] into host and port (443 when there is none); a name may have U-labels. False with error naming the text. */
bool sm_check_parse(const char *text, struct sm_check *ret, GError **error) SM_WARN_UNUSED;
/** sm_check_request() - METHOD and PATH. False with error. */
bool sm_check_request(const char *method, const char *path, struct sm_check *ret, GError **error) SM_WARN_UNUSED;

/** sm_check_run() - the report (docs/JSON.md), or NULL with error. @o: of a start; its lists and files say where an entry stands. */
json_t *sm_check_run(const struct sm_run_options *o, const struct sm_check *check, GError **error);
/** sm_check_allowed() - the report's verdict. */
bool sm_check_allowed(const json_t *report);

#endif
