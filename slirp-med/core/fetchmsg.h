/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the core and the fetch helper say to each other, on a SOCK_SEQPACKET pair (descriptor 3 of the helper). The first byte of a message
 * is its kind.
 *
 *   Q  core -> helper   JSON {url, method, host, port, addr, timeout_ms}, with two descriptors: the connected socket, and the roots
 *                       (PEM, a sealed memfd). method is GET or POST; host and port are the URL's, addr is what the socket is connected to
 *   H  core -> helper   header lines, each ended by LF (they may hold secrets); may be empty
 *   D  core -> helper   the body; may be empty
 *   S  helper -> core   JSON {status, content_type}: a response came, whatever its status
 *   D  helper -> core   a piece of its body; one byte over SM_FETCH_BODY_MAX says that there was more
 *   E  helper -> core   that was all
 *   F  helper -> core   a word of cred/reason.h: no response
 *
 * Q, H and D come once each, in this order; then S, D..., E, or F at any time. The end of the pair without E or F is a failure.
 */
#ifndef SM_CORE_FETCHMSG_H
#define SM_CORE_FETCHMSG_H

#define SM_FETCH_Q 'Q'
#define SM_FETCH_H 'H'
#define SM_FETCH_D 'D'
#define SM_FETCH_S 'S'
#define SM_FETCH_E 'E'
#define SM_FETCH_F 'F'

/** The helper's descriptor. */
#define SM_FETCH_FD 3
/** A response's body: tokens and secrets are small; issue 4 has this limit. */
#define SM_FETCH_BODY_MAX (1u << 20)
/** One message: a request body with a signed assertion is some KiB. Two of them fit the default of a socket's queue. */
#define SM_FETCH_MSG_MAX (64u << 10)
/** The whole exchange, from the start of TLS to the last byte. */
#define SM_FETCH_TIMEOUT_MS 10000
/** A bundle of roots and what --egress-ca-file and VAULT_CACERT add to it. */
#define SM_FETCH_ROOTS_MAX (9u << 20)

#endif
