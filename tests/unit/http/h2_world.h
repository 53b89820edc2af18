/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An nghttp2 client and an nghttp2 server with the bridge between them, all in memory. h2_run() moves bytes until
 * nobody has any more; what each side was told is kept for the test to look at.
 *
 * The server does what the path says:
 *   /size/N     200 and N bytes           /echo        200, and each byte back as it comes
 *   /trailers   200, body, trailers       /status/N    that status, END_STREAM on it
 *   /interim    103, 100, 200             /early       200 whole at once, then RST_STREAM NO_ERROR
 *   /reset/N    RST_STREAM N              /partial/N   200, 10 bytes, then RST_STREAM N in the same flight
 *   /wait       nothing: the test answers /alt-svc     200 with alt-svc
 *   /token/N    401 and N bytes to H2_OLD, 200 and 5 bytes to any other x-key; once the request is whole
 *   /hasty/N    the same at once
 */
#ifndef SM_TEST_H2_WORLD_H
#define SM_TEST_H2_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <glib.h>
#include <nghttp2/nghttp2.h>

#include "http/bridge.h"
#include "http/h2.h"

/** The token that the server does not like any more. */
#define H2_OLD "old-token"

/** One stream as one end saw it. */
struct h2_seen {
    int32_t id;
    GString *head; /* of the last head: "name: value\n"; never-indexed ones "name! value\n" */
    GString *interim;
    GString *trailers;
    GString *text; /* the first 4 KiB of the body */
    unsigned heads;
    int status;
    uint64_t body;
    bool bad_body; /* not the pattern */
    bool ended;
    bool closed;
    uint32_t code;

    /* What this end sends. */
    uint64_t to_send;
    uint64_t sent;
    bool send_more; /* no end yet */
    bool deferred;
    const char *send_trailer;  /* name of one, value "yes" */
    const char *trailer_value; /* instead of "yes" */
    const char *send_text;     /* instead of the pattern; as long as all that is sent */
};

enum h2_judge { H2_PASS, H2_REFUSE, H2_LATER };

struct h2_world {
    struct sm_bridge *b;
    nghttp2_session *end[SM_BRIDGE_SIDES]; /* client, server */
    GHashTable *seen[SM_BRIDGE_SIDES];
    GByteArray *wire[SM_BRIDGE_SIDES]; /* written by that end, not yet fed */
    GByteArray *got[SM_BRIDGE_SIDES];  /* for tests that are an end themselves: what it was sent */
    bool deaf[SM_BRIDGE_SIDES];        /* that end takes nothing from the bridge */
    size_t cut;                        /* bytes at a time; 0: all */
    size_t wire_out[SM_BRIDGE_SIDES];  /* bytes given to that end */
    bool goaway[SM_BRIDGE_SIDES];
    uint32_t goaway_code[SM_BRIDGE_SIDES];
    int32_t goaway_last[SM_BRIDGE_SIDES];
    GString *goaway_text[SM_BRIDGE_SIDES];

    enum h2_judge judge;
    uint16_t refuse_status;
    const struct sm_bridge_edit *edit; /* of what passes */
    enum h2_judge again;               /* REFUSE: let the 401 pass, PASS: send it again at once, LATER: when told */
    const struct sm_bridge_edit *edit_again;
    GQueue rejected; /* requests whose 401 waits for h2_answer_next() */
    size_t account;
    GString *fields; /* of the last request, as the judge sees them: "name=value\n" */
    GString *asked;  /* "1 GET https ok.test 0 /path ?query\n", and "1 again /path\n" for a 401 */
    GString *told;   /* "1 done 200 up down\n"; " *n" and " unscrubbed" before its end when they are so */
    GString *broken; /* "guest 1 word\n" */
    unsigned requests, responses;
};

struct h2_options {
    bool cleartext;
    bool slow_client; /* never opens its windows */
    bool slow_server;
    uint32_t server_streams; /* MAX_CONCURRENT_STREAMS; 0: 100 */
    uint32_t windows;        /* of both ends; 0: the default */
};

void h2_world_init(struct h2_world *w, const struct h2_options *o);
void h2_world_done(struct h2_world *w);
/** Until nothing moves. */
void h2_run(struct h2_world *w);
/** One step of one side; true when something moved. */
bool h2_step_in(struct h2_world *w, enum sm_bridge_side from, size_t max);
bool h2_step_out(struct h2_world *w, enum sm_bridge_side to, size_t max);

struct h2_seen *h2_seen(struct h2_world *w, enum sm_bridge_side end, int32_t id);
/** A request; body < 0: END_STREAM on the head. more: fields "name: value\n". */
int32_t h2_request(struct h2_world *w, const char *method, const char *path, int64_t body, const char *more);
/** Raw fields: "name: value\n" ("name! value": never indexed), nothing added. */
int32_t h2_request_raw(struct h2_world *w, const char *fields, int64_t body);
/** The server's answer to a /wait: body < 0: END_STREAM on the head. */
void h2_respond(struct h2_world *w, int32_t id, const char *fields, int64_t body);
/** More bytes, or the end, from a stream with send_more. */
void h2_more(struct h2_world *w, enum sm_bridge_side end, int32_t id, uint64_t n, bool last);
void h2_answer(struct h2_world *w, uint64_t req, bool pass);
/** h2_answer_next() - send the next of w->rejected again; false when there is none. */
bool h2_answer_next(struct h2_world *w);
/** The answer to a 401. */
void h2_answer_again(struct h2_world *w, uint64_t req, bool pass);
/** Bytes straight into the bridge. */
void h2_raw(struct h2_world *w, enum sm_bridge_side from, const void *data, size_t len);

#endif
