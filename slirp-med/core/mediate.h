/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A mediated flow: the guest's end is one half of a socket pair, the origin's end is the socket that the core dialled, and between them stand
 * TLS on both sides (intercepted flows) and a bridge (http/bridge.h) whose judge sees every request.
 *
 *   TLS        DIALLED ─► egress_mitm_dial ─► UPSTREAM handshake ─┬─ failed: egress_mitm_upstream_error, the guest gets an alert
 *              ─► LEAF (minted at a bounded rate) ─► egress_allow ─► pair, ATTACH consumed 0 ─► GUEST handshake ─┬─ failed:
 *              egress_mitm_handshake_error                                                                    │
 *              ─► ALPN h2 or http/1.1: RELAY; none: SNIFF the first bytes; other: egress_mitm_opaque, RELAY raw ◄┘
 *   cleartext  egress_allow ─► pair, ATTACH consumed 0 ─► RELAY
 *   raw        egress_allow ─► the same, where a byte cap forbids to hand the socket over and the flow is nobody's HTTP
 *   page       egress_deny ─► pair, ATTACH consumed 0, the page, CLOSING
 *
 * What the verdict rested on is read again from the pair: the TLS engine compares the hello's name, the bridge judges the first head as it
 * judges every other. A request is judged by requests.c; its line is written, and at the end of the turn the bridge gets its answer.
 */
#ifndef SM_CORE_MEDIATE_H
#define SM_CORE_MEDIATE_H

#include "core/creds.h"
#include "core/limits.h"
#include "core/rules.h"
#include "http/bridge.h"
#include "tls/conn.h"

/** The verified handshake with upstream, and the guest's: longer than any that comes to an end. */
#define SM_MEDIATE_UPSTREAM_US INT64_C(10000000)
#define SM_MEDIATE_GUEST_US INT64_C(30000000)
/**
 * How long a flow that is over waits for the guest to take its last bytes and to close; then it is aborted. Once the
 * front has closed its end, SM_CORE_END_WAIT_US is left for it to say why.
 */
#define SM_MEDIATE_CLOSING_US INT64_C(3000000)
/**
 * What the pair's kernel queue may hold in one direction while there are at most so many flows: with the default of 208 KiB the core waits for
 * the front every 100 KiB (a download is 14 % slower); with thousands of slow guests it would be gigabytes.
 */
#define SM_MEDIATE_PAIR_BYTES (1 << 20)
#define SM_MEDIATE_PAIR_FLOWS 256
/** First bytes inside TLS that are looked at before it is clear whether they are HTTP: a head. */
#define SM_MEDIATE_SNIFF_MAX SM_HTTP_HEAD_MAX
/** Rounds of the pump for one flow before others get their turn: up to 64 KiB each way a round. */
#define SM_MEDIATE_ROUNDS 8
/** ... at the end of the workspace, when nobody waits for a turn: what a socket buffer holds, and some. */
#define SM_MEDIATE_STOP_ROUNDS 16
/**
 * Bytes that wait in all mediated flows together, unfinished heads and what TLS has read ahead included. A flow may hold
 * up to 0.5 MiB (HTTP/1) or the windows of HTTP/2, a thousand busy ones hold far less than this; beyond it a flow that holds more than its share is not read any more, and an HTTP/2 connection is ended.
 */
#define SM_MEDIATE_TOTAL ((size_t)512 << 20)
#define SM_MEDIATE_SHARE ((size_t)16 << 10)
/** Requests of one flow whose response line is owed: the HTTP/2 bridge's streams and queue, the HTTP/1 bridge's pipeline, with room. */
#define SM_MEDIATE_REQUESTS_MAX 1024

enum sm_mediate_phase {
    SM_MEDIATE_UPSTREAM, /* handshake with upstream (or waiting for the roots); the guest is held by the front */
    SM_MEDIATE_LEAF,     /* waiting for its turn to have a leaf signed */
    SM_MEDIATE_COMMIT,   /* a line waits for the end of the turn; nothing moves */
    SM_MEDIATE_GUEST,    /* handshake with the guest */
    SM_MEDIATE_SNIFF,    /* inside TLS, no ALPN: is it HTTP? */
    SM_MEDIATE_RELAY,
    SM_MEDIATE_CLOSING /* over: the guest's last bytes and its end */
};

/** One side of the relay. */
struct sm_mediate_end {
    struct sm_watch *watch;
    struct sm_tls_wire wire; /* its bytes, under TLS or bare */
    struct sm_tls_conn *tls; /* NULL: cleartext */
    bool readable;           /* there may be bytes: epoll said so, and no read has come back empty since */
    bool stuck;              /* reading waits until what TLS has to answer is taken */
    bool eof;                /* nothing more will be read */
    bool cut;                /* ... and it was no orderly end */
    bool told;               /* ... and the bridge knows */
    bool dead;               /* nothing more can be written */
    bool shut;               /* the writing side was shut down in order */
};

struct sm_mediation {
    struct sm_session *s;
    enum sm_mediate_phase phase;
    bool tls;
    struct sm_mediate_end end[SM_BRIDGE_SIDES];
    struct sm_bridge *bridge;
    struct sm_buf sniff;
    struct sm_http_head head; /* of sniff */
    bool h2;
    bool raw;              /* neither HTTP nor TLS: what the guest says has no end but the FIN */
    bool word_awaited;     /* ... and the front has closed its end of the pair: a FIN or a reset, as GONE will say */
    bool word_late;        /* ... but did not in time */
    bool aborted;          /* the guest was told: only the front's end of the pair is waited for */
    size_t held;           /* bytes that wait in the bridge; it counts them */
    size_t counted;        /* ... and in TLS, as last added to core->relayed_now */
    size_t skip;           /* bytes for the origin that were released before there was a bridge: not sent twice */
    X509 *leaf;            /* from LEAF to GUEST */
    uint8_t alert[7];      /* the record for a guest whose server was not acceptable */
    const char *why;       /* why it ended, for the close line; NULL: in order */
    struct sm_timer again; /* more to do than one turn may take */
    GArray *answers;       /* of struct sm_mediate_answer, until the end of the turn */
    GQueue credentials;    /* of requests that wait for their credential (requests.c) */
    GArray *open;          /* of struct sm_mediate_open: requests whose response line is owed */
    GList wait_link;       /* in core->roots_wait or core->mint_wait */
    GQueue *wait_in;
};

struct sm_mediate_answer {
    uint64_t req;
    uint16_t status; /* 0: pass */
    const char *reason;
    char *host;                       /* that was asked for; NULL: pass */
    const struct sm_swap *swap;       /* pass, and put this entry's credential in; NULL: as it is */
    struct sm_credential *credential; /* ours */
    struct sm_secret *value; /* the header's, where it is not the credential's own: a placeholder was replaced */
    bool again;              /* the second answer, after a 401: its request line is in the file */
};

struct sm_mediate_open {
    uint64_t req;
    int64_t began_us;
    const struct sm_swap *swap;       /* whose credential it was given; NULL: none */
    struct sm_credential *credential; /* ours */
    bool rejected;                    /* upstream's 401 to it is known (sm_creds_rejected()) */
};

/** sm_mediate_kind() - what becomes of a flow that may go on: handed over, intercepted, or bridged as it is. */
enum sm_mediate_kind sm_mediate_kind(const struct sm_session *s);

/** sm_mediate_tls() - the verdict allows it and upstream is connected. Writes egress_mitm_dial and goes on from there. */
void sm_mediate_tls(struct sm_session *s);
/** sm_mediate_cleartext() - effect of the allow line. */
void sm_mediate_cleartext(struct sm_session *s, bool ok);
/** sm_mediate_raw() - the same for a flow that is neither TLS to be opened nor HTTP, and must not be handed over: it is under a byte cap. */
void sm_mediate_raw(struct sm_session *s, bool ok);
/** sm_mediate_wake() - what it waited for in limits.c is there. */
void sm_mediate_wake(struct sm_session *s, enum sm_caps_dir dir);
/** sm_mediate_tear_down() - reset both sides of a TCP flow in whatever state, with a close line. */
void sm_mediate_tear_down(struct sm_session *s, const char *why);
/** sm_mediate_can_page() - can this flow, which is to be refused, be told why in HTTP? */
bool sm_mediate_can_page(const struct sm_session *s);
/** sm_mediate_page() - effect of the denial's line. */
void sm_mediate_page(struct sm_session *s, bool ok);
/** sm_mediate_gone() - GONE came for a flow in state MEDIATED. */
void sm_mediate_gone(struct sm_session *s);
/** sm_mediate_stop() - the workspace ends: what is already on its way is moved on as far as it goes without waiting. */
void sm_mediate_stop(struct sm_session *s);
/** sm_mediate_settle() - before the close line: the bridge tells how each open request ended. */
void sm_mediate_settle(struct sm_session *s);
void sm_mediate_free(struct sm_session *s);
/** sm_mediate_pump() - go on after answers. May end the session. */
void sm_mediate_pump(struct sm_session *s);

/* inject.c */
/** sm_inject_judge() - what speaks against the request because of credentials, or NULL. @swap: its host's entry, or NULL. */
const char *sm_inject_judge(struct sm_mediation *m, const struct sm_bridge_request *r, const struct sm_swap *swap);
/** sm_inject() - the request may pass (again), with swap's credential: now, later, or not at all. */
void sm_inject(struct sm_mediation *m, const struct sm_bridge_request *r, const struct sm_swap *swap);
/** sm_inject_forget() - the request is over: it waits no more. */
void sm_inject_forget(struct sm_mediation *m, uint64_t req);
void sm_inject_clear(struct sm_mediation *m);

/* requests.c */
/**
 * sm_request_pass() - write the lines and let it pass; credential and value (or NULL) are taken, NULL without a swap.
 * A request that has its line is sent again.
 */
void sm_request_pass(struct sm_mediation *m, const struct sm_bridge_request *r, const struct sm_swap *swap,
                     struct sm_credential *credential, struct sm_secret *value);
/** sm_request_fail() - its credential cannot be had: egress_swap_error and 502. */
void sm_request_fail(struct sm_mediation *m, const struct sm_bridge_request *r, const struct sm_swap *swap,
                     enum sm_cred_reason reason);
extern const struct sm_bridge_ops sm_request_ops;
void sm_requests_init(struct sm_mediation *m);
void sm_requests_clear(struct sm_mediation *m);

/* pki.c */
/**
 * sm_pki_make() - before the sandbox: the CA is made and written to ca_key_fd and ca_cert_fd, or, where the
 * configuration names one that was kept, read from them: then it must be that one, and its life must not be nearly
 * over. Both are closed.
 */
bool sm_pki_make(struct sm_core *core, int ca_key_fd, int ca_cert_fd, GError **error) SM_WARN_UNUSED;
/** sm_pki_open() - after that, still before the sandbox: what connections are made of. */
bool sm_pki_open(struct sm_core *core, GError **error) SM_WARN_UNUSED;
void sm_pki_free(struct sm_core *core);
/** sm_pki_roots() - true when upstream roots are there; otherwise m->s is called back (sm_mediate_go_on) once they are. */
bool sm_pki_roots(struct sm_mediation *m);
/** sm_pki_news() - the answer to WANT roots; fd may be -1; not taken. */
void sm_pki_news(struct sm_core *core, int fd);
/** sm_pki_leaf() - m->leaf for the flow's name. OK, LATER (called back), FAILED. */
enum sm_tls_leaf_status sm_pki_leaf(struct sm_mediation *m);
void sm_pki_wait_cancel(struct sm_mediation *m);
/** sm_mediate_go_on() - what was waited for is there. */
void sm_mediate_go_on(struct sm_mediation *m);

#endif
