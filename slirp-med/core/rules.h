/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the core decides of a flow that policy/decide.h lets through, as pure functions: sessions ask here, and so does `slirp-med check`,
 * which explains without a flow.
 *
 * Requests (spec section 3, step 4). A connection speaks for one name: the one that it asserted (SNI, or the first Host) and that the flow's
 * verdict was given for. Every request's authority must be that name, and its port, if it gives one, the guest's destination port;
 * otherwise 421. Where no name was asserted, the authority may be the guest's destination address, or, if policy allows
 * it as if it had been asserted for the address that was dialled,
 *   inside TLS    the one name that the origin was verified for: the pin of the address; else none;
 *   on cleartext  any name (HTTP/2 with prior knowledge; HTTP/1.0 whose first request had no Host).
 * A connection that asserted an address speaks for the address alone. A request without any authority goes where its
 * connection goes; to a host that has a credential it does not go at all.
 */
#ifndef SM_CORE_RULES_H
#define SM_CORE_RULES_H

#include "policy/decide.h"

/** What becomes of a flow: handed over as it is, TLS that is terminated, or cleartext HTTP that is judged request by request. */
enum sm_mediate_kind { SM_MEDIATE_NOT, SM_MEDIATE_TLS, SM_MEDIATE_CLEARTEXT };

/** sm_rule_kind() - @classified: "tls", "http", "h2", another word, or NULL: what the first bytes were. */
enum sm_mediate_kind sm_rule_kind(enum sm_mode mode, const struct sm_verdict *v, const char *classified);

/** A connection, as a request's authority is compared with it. */
struct sm_rule_connection {
    const struct sm_host *asserted; /* kind BAD: nothing */
    struct sm_endpoint dst;
    bool tls;
    const char *verified; /* tls: the name that the origin was verified for; "" for none */
    /** Policy's verdict, were this host asserted for the address that was dialled. */
    void (*ask)(void *data, const struct sm_host *host, struct sm_verdict *ret);
    void *data;
};

/**
 * sm_rule_request() - may a request for this authority go out on this connection?
 * @host: of the authority (not BAD); @port: its port, 0 for none. Return: NULL, or the reason and the status that the guest gets.
 */
const char *sm_rule_request(const struct sm_rule_connection *c, const struct sm_host *host, uint16_t port,
                            uint16_t *ret_status);

/** sm_rule_echoes() - is it a method whose answer is the request (TRACE, in any case, and TRACK)? None goes out with a credential. */
bool sm_rule_echoes(const char *method, size_t len);

#endif
