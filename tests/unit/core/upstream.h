/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A small DNS server on loopback for tests, UDP and TCP on one port, in the test's own loop. What it answers is decided
 * by the first label of the question: chain     CNAME to cdn.test and its address        nx        NXDOMAIN with a SOA
 *   big       40 TXT records; TC over UDP               servfail, refused   that rcode
 *   middle    an answer of about 1100 bytes             formerr   FORMERR without OPT while the query has an OPT
 *   silent    nothing                                   wrongid   an answer with another id
 *   other     an answer to another question             broken    an answer whose counts lie
 *   https     an HTTPS record with ech                  hold      nothing until upstream_release()
 *   anything else: A 203.0.113.N, N being the server's number; of number 0 A 127.0.0.1, which a test may dial
 */
#ifndef SM_TEST_UPSTREAM_H
#define SM_TEST_UPSTREAM_H

#include "base/addr.h"
#include "base/loop.h"

struct upstream;

struct upstream *upstream_new(struct sm_loop *loop, uint8_t number);
void upstream_free(struct upstream *u);
struct sm_endpoint upstream_endpoint(const struct upstream *u);
/** How many queries have come, over UDP and over TCP; the last one's bytes. */
unsigned upstream_udp(const struct upstream *u);
unsigned upstream_tcp(const struct upstream *u);
const uint8_t *upstream_last(const struct upstream *u, size_t *ret_len);
/** Answer the oldest of the held queries now, at most 64. Returns how many. */
unsigned upstream_release(struct upstream *u);

#endif
