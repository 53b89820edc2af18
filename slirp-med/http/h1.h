/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bounds of the HTTP/1 bridge (sm_bridge_new_h1() in bridge.h; h1.c tells how it works).
 *
 * Memory of a connection: about 520 bytes when idle, with no buffer. At most, on top: 120 bytes a request in flight,
 * and the value that it has yet to be given (SM_BRIDGE_VALUE_MAX); SM_SCRUB_HELD_MAX of a body that is scrubbed; for one
 * request that may be sent again its head, SM_BRIDGE_REPLAY_BODY_MAX and SM_BRIDGE_REPLAY_RESPONSE_MAX;
 * towards each side SM_BRIDGE_OUT_MAX, which also counts what that side is owed but cannot be sent yet (an unjudged
 * head, bytes behind an upgrade request), and rounds up to blocks of 32 KiB; one page (SM_HTTP_PAGE_MAX) a refused
 * request, of which there is one.
 */
#ifndef SM_HTTP_H1_H
#define SM_HTTP_H1_H

/** Requests that are passed on and not answered: browsers do not pipeline, package managers send up to about ten ahead. */
#define SM_H1_IN_FLIGHT_MAX 64
/**
 * What a guest may still send behind a refusal, or behind a response that came early, so that it gets to read it: closing at once would reset
 * the connection under it. Dropping costs a read. A guest that sends nothing is the caller's to time out (sm_bridge_out_closed() is true for
 * both sides then).
 */
#define SM_H1_LINGER_MAX (64u << 20)

#endif
