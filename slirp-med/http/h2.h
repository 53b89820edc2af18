/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The HTTP/2 bridge: sm_bridge_new_h2() of bridge.h. This header has its bounds, each with its reason, and the words
 * for broken rules.
 *
 * Two nghttp2 sessions stand back to back: we are the server of the guest's connection and the client of the
 * origin's. Frames are not relayed but their meaning is, stream by stream: heads, bodies, trailers, resets, GOAWAY.
 * What belongs to one hop stays on it: SETTINGS, PING, WINDOW_UPDATE, PRIORITY, padding, HPACK; ALTSVC, ORIGIN and
 * unknown frames end here. Server push is off and a PUSH_PROMISE ends the connection; extended CONNECT (RFC 8441) is
 * not offered, CONNECT is refused with a page.
 *
 * The life of a stream, guest side first:
 *   head complete -> judged by sm_h2_head_request(); a broken one is answered 400 (431: too large) with a page, and
 *        ops->broken is all that is told of it
 *   -> ops->request -> sm_bridge_answer()
 *        refuse: the page on this stream, then RST_STREAM NO_ERROR if the guest is still sending
 *        pass:   HEADERS to the origin with the same fields in the same order, when it permits one more stream
 *   -> bodies, trailers, interim responses both ways -> both sides closed -> ops->response.
 *   401, and it may be sent again: held -> whole, and closed at the origin -> ops->rejected -> sm_bridge_answer()
 *        -> as above, on a new stream of the origin's
 * A reset of one side becomes a reset of the other with the same code; what the origin sent before it is delivered
 * first. Streams that the origin will surely not process (its GOAWAY, its connection's end before they were sent) are
 * reset with REFUSED_STREAM, so that a client may try again. An origin that goes away without that leaves the guest
 * what a direct client would have: an ended connection.
 *
 * Flow control: bytes count as consumed (WINDOW_UPDATE) only when the other side's output has taken them, so a slow
 * reader closes the window of the writer. Memory of one direction of a connection: SM_H2_STREAMS_MAX x
 * SM_H2_WINDOW_MIN + SM_H2_WINDOW_POOL at the very worst, of one stream SM_H2_WINDOW_MAX; and nothing while nobody is
 * slow. What a scrub holds back of a body (scrub.h) is not consumed either, so it is within that. On top for a stream
 * that may be sent again (bridge.h): its head and SM_BRIDGE_REPLAY_BODY_MAX.
 *
 * Floods (no clock here, so all is counted against useful work): see enum sm_h2_flood in h2.c. A flood ends the
 * connection with GOAWAY ENHANCE_YOUR_CALM.
 *
 * Sources: RFC 9113, RFC 9110, RFC 7541; the attacks of 2019 (CVE-2019-9511 ff.), of 2023 (CVE-2023-44487) and of
 * 2024 (VU#421644).
 */
#ifndef SM_HTTP_H2_H
#define SM_HTTP_H2_H

#include "base/defs.h"
#include "http/bridge.h"

/** Streams that a guest may have open, and that we open at an origin: what servers offer. */
#define SM_H2_STREAMS_MAX 100u
/**
 * Streams in memory: a closed one of the guest's may still have its body on the way to the origin. Above it new ones
 * get REFUSED_STREAM.
 */
#define SM_H2_STREAMS_HELD_MAX (2u * SM_H2_STREAMS_MAX)
/**
 * Bytes of request heads that wait for an answer or for the origin; above it new ones get REFUSED_STREAM. 100 heads of
 * a browser are 100 KiB.
 */
#define SM_H2_WAITING_MAX (1u << 20)

/**
 * Receive window of a new stream: the protocol's own default, so that it also holds before the SETTINGS are seen. All
 * streams stuck at once must not close the connection's window, or one slow reader would stop every other stream; so
 * this times the streams is what a connection can cost.
 */
#define SM_H2_WINDOW_MIN 65535u
/**
 * A stream whose reader keeps up gets twice the window each time it was the limit, up to this. 2 MiB in flight are
 * 300 Mbit/s at 50 ms.
 */
#define SM_H2_WINDOW_MAX (2u << 20)
/** What all streams of a connection together may have above SM_H2_WINDOW_MIN. */
#define SM_H2_WINDOW_POOL (4u << 20)
#define SM_H2_WINDOW_CONNECTION (SM_H2_STREAMS_MAX * SM_H2_WINDOW_MIN + SM_H2_WINDOW_POOL)

/** Interim responses (1xx) of one stream. */
#define SM_H2_INTERIM_MAX 100u
/** Text that a GOAWAY may carry on ("too_many_pings"): a client acts on it. */
#define SM_H2_DEBUG_MAX 128u

enum sm_h2_broken {
    SM_H2_BROKEN_NONE,

    /* Of a message. */
    SM_H2_BROKEN_HEADER_INVALID,     /* a character that may not stand in a name or a value, an upper-case name */
    SM_H2_BROKEN_TOO_LARGE,          /* over SM_H2_LIST_MAX */
    SM_H2_BROKEN_TOO_MANY_FIELDS,    /* over SM_H2_FIELDS_MAX */
    SM_H2_BROKEN_PSEUDO,             /* a pseudo-header field missing, repeated, unknown, or behind a plain one */
    SM_H2_BROKEN_METHOD,             /* no token, or over SM_HTTP_METHOD_MAX */
    SM_H2_BROKEN_CONNECT,            /* CONNECT of either kind */
    SM_H2_BROKEN_SCHEME,             /* not the one of this connection */
    SM_H2_BROKEN_PATH,               /* not origin-form (or OPTIONS *), a fragment, a character outside of ASCII */
    SM_H2_BROKEN_AUTHORITY_MISSING,  /* neither :authority nor host */
    SM_H2_BROKEN_AUTHORITY_INVALID,  /* not host[:port], userinfo, host twice */
    SM_H2_BROKEN_AUTHORITY_MISMATCH, /* :authority and host differ */
    SM_H2_BROKEN_CONNECTION_FIELD,   /* connection, transfer-encoding, upgrade and their kind */
    SM_H2_BROKEN_TE,                 /* te other than trailers */
    SM_H2_BROKEN_LENGTH,             /* content-length twice, not digits, or not the length that came */
    SM_H2_BROKEN_STATUS,             /* :status not three digits, or 101 */
    SM_H2_BROKEN_TRAILER,            /* a field that frames, routes or authorises behind the body */
    SM_H2_BROKEN_MESSAGE,            /* frames of a stream that make no message */
    SM_H2_BROKEN_INTERIM,            /* more than SM_H2_INTERIM_MAX interim responses */

    /* Of a connection. */
    SM_H2_BROKEN_PREFACE,
    SM_H2_BROKEN_PROTOCOL,
    SM_H2_BROKEN_FLOW_CONTROL,
    SM_H2_BROKEN_FRAME_SIZE,
    SM_H2_BROKEN_COMPRESSION,
    SM_H2_BROKEN_STREAM_CLOSED, /* frames for a stream that the sender had ended */
    SM_H2_BROKEN_PUSH,          /* PUSH_PROMISE though push is off */
    SM_H2_BROKEN_RESET_FLOOD,
    SM_H2_BROKEN_PING_FLOOD,
    SM_H2_BROKEN_SETTINGS_FLOOD,
    SM_H2_BROKEN_WINDOW_FLOOD,
    SM_H2_BROKEN_PRIORITY_FLOOD,
    SM_H2_BROKEN_EMPTY_FLOOD, /* DATA without data */
    SM_H2_BROKEN_CONTINUATION_FLOOD,
    SM_H2_BROKEN_HEADER_FLOOD, /* a block that unpacks to SM_H2_BOMB_FACTOR times what may be */
    SM_H2_BROKEN_INTERNAL,     /* nghttp2 gave up: memory */
    SM_H2_BROKEN_COUNT
};

/** sm_h2_broken_name() - the stable word for ops->broken and the audit: "h2_authority_mismatch". */
const char *sm_h2_broken_name(enum sm_h2_broken broken);

#endif
