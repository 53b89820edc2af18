/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The mediation core: the process that decides, dials and records. This header holds what its files share; nobody outside core/ includes it
 * except for sm_core_main().
 *
 * Who does what:
 *   main.c     the process: configuration, sandbox, link to the supervisor, start and orderly end
 *   session.c  a flow's life, from OPEN to its close line: strings the stages together and calls audit
 *   tcp.c      dialling, classification of first bytes, hand-over, the end as the kernel tells it
 *   limits.c   the caps at work (limits.h); caps.c the arithmetic, counters.c the text of counters.json
 *   mediate.c  flows that pass through the core: TLS on both sides, HTTP bridges (mediate.h); pki.c, requests.c beside it
 *   udp.c      connected sockets and the datagram pair
 *   names.c    the resolver service glued to policy, pins and audit; DNS over TCP
 *   dnsserve.c, resolver.c  what it is made of; headers of their own
 *   turn.c     the end of a turn: commit the audit batch, then release effects
 *   ownaddr.c  the host's own addresses, followed by netlink
 *   ingress.c  clients of published ports
 *   reload.c   new lists while the workspace runs
 *   vsock.c    the host's vsock ports: the CA certificate and the mediation channel; no session, no policy (vsock.h)
 *
 * Effects (spec section 8: "a decision that cannot be recorded is not carried out"). Code that decides appends its audit line and then
 * schedules what the decision releases (dial, accept, write, attach, reply) with sm_core_effect(). turn.c commits the batch at the end of the
 * turn; only then do effects run, with ok true. If the commit fails they run with ok false and must refuse. A session has at most one effect
 * waiting. The end of a flow releases nothing, so it comes after them (sm_core_end_later()).
 */
#ifndef SM_CORE_CORE_H
#define SM_CORE_CORE_H

#include "audit/event.h"
#include "audit/repeat.h"
#include "audit/writer.h"
#include "base/buf.h"
#include "base/loop.h"
#include "core/config.h"
#include "core/dnsserve.h"
#include "core/resolver.h"
#include "flow/channel.h"
#include "http/head.h"
#include "policy/decide.h"
#include "tls/ca.h"
#include "tls/clienthello.h"
#include "tls/conn.h"

/** Flows of one workspace at once. The front has the same bound; each costs one descriptor (what was handed over) to
 * three (a pair on its way) and about 2 KiB here. */
#define SM_CORE_SESSIONS_MAX 16384
/** Descriptors of RLIMIT_NOFILE that flows leave to the resolver, audit and the rest. */
#define SM_CORE_FD_RESERVE 256
/** First bytes of all flows together that wait for their verdict: some 900 flows with the largest head, or all of them with usual ones. */
#define SM_CORE_HELD_TOTAL (64u << 20)
/** DNS connections over TCP at once: each may hold 256 KiB of answers that the guest does not read. */
#define SM_CORE_DNS_TCP_MAX 256
/** Addresses tried when the core dials its own resolution of a name. */
#define SM_CORE_DIAL_ADDRS_MAX 4
/** Strict: a guest that proves nothing and says nothing is let go after this. */
#define SM_CORE_SILENT_US INT64_C(30000000)
/** A guest that began a head or a hello must finish it in this time. */
#define SM_CORE_PARTIAL_US INT64_C(60000000)
/** A guest that has said a few letters and pauses ("hi") may be waiting for an answer to them: after this they are sent on, if a flow that names
 * nobody would be allowed; classification goes on. */
#define SM_CORE_RELEASE_US INT64_C(100000)
/** SYNs of a dial are repeated this often: ETIMEDOUT comes after 63 s, before the guest's side of the handshake gives up (75 s in libslirp),
 * so that the guest hears of it and the record has the reason. */
#define SM_CORE_SYN_RETRIES 5
/** How long a line that lets nothing happen (a close line) waits for others to be written with: as the channel has it for the end itself
 * (SM_CHANNEL_PATIENCE_US). */
#define SM_CORE_LINES_US INT64_C(1000)
/** How long an ended flow waits for the other side's word on how it ended, before its close line is written. */
#define SM_CORE_END_WAIT_US INT64_C(2000000)
/** How long the end waits for the front's last word: longer than SM_FRONT_LINGER_US (3 s), in which it delivers what the guest sent last.
 * A front that is stuck must not hold up the record. */
#define SM_CORE_STOP_WAIT_US INT64_C(4000000)
/** UDP flows: unreplied and replied idle times (spec: issue 2 item 4). */
#define SM_CORE_UDP_IDLE_US INT64_C(30000000)
#define SM_CORE_UDP_REPLIED_US INT64_C(180000000)
/** Pins that are over are forgotten this often: they are none before that, and all of them are looked at. */
#define SM_CORE_PINS_US INT64_C(60000000)
/** Clients of published ports may have this share of all flows (1/n): a flood of them leaves the guest its own, and the other way round. */
#define SM_CORE_INGRESS_SHARE 2
/** Flow ids of these begin here (beside SM_FLOW_ID_CORE), and the front's end: in the record, which has them without that bit and whose
 * readers take 53 bits, no two flows share one. */
#define SM_CORE_INGRESS_IDS (UINT64_C(1) << 52)
/** How long the front may repeat a refusal without asking. */
#define SM_CORE_HOLD_MS 1000

struct sm_core;
struct sm_session;
struct sm_mediation;
struct sm_creds;
struct sm_limits;
struct sm_limited;

typedef void (*sm_effect_fn)(struct sm_session *s, bool ok);

/* The states of a session; docs/ARCHITECTURE.md has the message-by-state table. Declared once: enum, names and checks come from here. */
#define SM_SESSION_STATES(X)                                                                                           \
    X(NEW)        /* decided or being decided, nothing released yet */                                                 \
    X(DIALLING)   /* connecting to the guest's address; on a card the guest's handshake is pending */                  \
    X(HELD)       /* accepted; the bytes stay in the front; classification */                                          \
    X(RESOLVING)  /* a name was asserted that only its own resolution can prove */                                     \
    X(REDIALLING) /* connecting to an address of that resolution */                                                    \
    X(JUDGED)     /* writing the judged bytes upstream, then ATTACH */                                                 \
    X(ATTACHED)   /* the flow is the upstream socket (or the pair) */                                                  \
    X(SECURING)   /* TLS with upstream, before the guest hears of it */                                                \
    X(MEDIATED)   /* the flow is a pair; the core relays and judges */                                                 \
    X(SERVED)     /* DNS over TCP: the core itself is the server */

enum sm_session_state {
#define X(name) SM_SESSION_##name,
    SM_SESSION_STATES(X)
#undef X
        SM_SESSION_STATES_COUNT
};

struct sm_session {
    struct sm_core *core;
    uint64_t id;
    enum sm_session_state state;
    enum sm_proto proto;
    struct sm_endpoint src, dst; /* the guest's view; inbound: the client, and the guest's port */
    struct sm_endpoint dialled;  /* where upstream goes: dst, or an address of the own resolution */
    struct sm_verdict verdict;   /* the last one */
    const struct sm_pin *pin;    /* held while the flow lives; NULL when the name is not pinned */

    bool inbound;                /* a client of a published port (ingress.c); upstream is its socket */
    bool ingress_owed;           /* ... and the supervisor waits for our word */
    struct sm_endpoint seen;     /* ... where the guest sees it come from */
    struct sm_endpoint listener; /* ... where it has come in */
    uint64_t tuple;              /* ... its key in core->ingress */

    struct sm_watch upstream; /* fd -1: none */
    struct sm_watch pair;     /* UDP, DNS and mediated flows: our end; fd -1: none */
    int give_fd;              /* the descriptor that the next ATTACH carries */
    bool upstream_up;         /* the handshake with upstream is complete */
    bool accepted;            /* the guest's handshake was let through */
    bool allowed;             /* an allow line was written: a close line is owed */
    bool dial_recorded;       /* a dial line was written and no allow line: a close line is owed too */
    bool *unwritten;          /* which of the two stands for a line that waits for the end of the turn; NULL: neither */
    bool guest_eof;           /* EOF came, before anything was handed over */
    bool gone;                /* GONE came */
    enum sm_flow_why gone_why;
    bool kernel_end;   /* the kernel says that both directions are over */
    bool kernel_reset; /* ... by a reset */

    struct sm_buf held; /* copies of the bytes that the front holds */
    struct sm_http_head *http;
    struct sm_tls_hello *tls;
    /* Since when there is something to classify: the first held byte is there, and upstream (HOLD: the guest's handshake). */
    int64_t held_us;
    size_t judged; /* of held, bytes that the core writes upstream itself */
    size_t written;
    const char
        *classified; /* what the first bytes were: "tls", "http", "h2", "opaque", "server_first"; NULL: not known yet */
    enum sm_assertion assertion;
    struct sm_host asserted;

    bool by_name;                 /* a proxy front's: the client named whom it wants (asserted, CONNECT) */
    const struct sm_route *route; /* ... and the operator says where that is */
    enum sm_assertion spoken;     /* ... and what its first bytes assert, */
    struct sm_host inner;         /* of whom */

    struct sm_mediation *mediation; /* SECURING and MEDIATED */
    struct sm_limited *limited;     /* admitted under a cap; NULL: there is none */
    bool mitm;                      /* intercepted */
    const char *page_reason;        /* of the denial that a page explains */

    struct sm_resolver_req *lookup;
    struct sm_addr addrs[SM_CORE_DIAL_ADDRS_MAX];
    unsigned n_addrs, next_addr;

    struct sm_timer timer;
    int64_t opened_us;
    int64_t last_us; /* UDP: last datagram */
    bool replied;
    uint16_t segment_max; /* UDP: see base/dgrams.h */
    uint64_t bytes_up, bytes_down;
    const char *end_reason; /* the core ends it: ABORT was sent, and the front's GONE is waited for */

    sm_effect_fn effect;
    GList effect_link; /* its place in effect_in; data is the session */
    GQueue *effect_in; /* &core->effects, &core->ends, or &core->running while the first of them is worked off */
    GList attach_link; /* its place in core->attach_wait */
    GList age_link;    /* its place in core->by_age */
    bool attach_waiting;
    bool attach_acked; /* ATTACHED came: the front has the descriptor and can be held to what it says of it */

    struct sm_buf dns_in, dns_out;
    unsigned dns_pending; /* queries of this connection that have not been answered */
    bool dns_flush;       /* dns_out may leave: its lines are written */
};

struct sm_core {
    struct sm_loop *loop;
    struct sm_core_config *config;
    struct sm_channel *channel;
    struct sm_audit_writer *audit;
    struct sm_audit_repeats *repeats;
    struct sm_pins *pins;
    struct sm_resolver *resolver;
    struct sm_dnsserve *dns;
    struct sm_limits *limits;    /* NULL: no cap is set */
    struct sm_core_vsock *vsock; /* NULL: every vsock port is refused */
    struct sm_tls_ca *ca;        /* NULL: nothing is intercepted */
    struct sm_tls_guest *tls_guest;
    struct sm_tls_upstream *tls_upstream;
    bool roots_asked, roots_loaded;
    GQueue roots_wait, mint_wait; /* of struct sm_mediation */
    struct sm_timer mint_timer;
    struct sm_creds *creds;           /* NULL: nothing is swapped */
    GQueue fetch_wait, fetch_running; /* of struct sm_fetch */
    int fetch_roots;                  /* PEM, for the fetch helper; -1: not asked for yet */
    bool fetch_roots_asked;
    struct sm_watch link;
    struct sm_watch netlink;
    struct sm_watch ghost; /* sockets that the front should have closed; see tcp.c */
    struct sm_timer stop_timer;
    char *stop_reason; /* STOP came: the end waits for the front's last word, its counts */
    /* Audit probe, repeats, pins, rotation, what ingress and limits have to tell: at most once a second, and only while
     * one of them waits. */
    struct sm_timer second;
    int64_t second_us, pins_us; /* when it ran last; when pins were last looked through */
    GHashTable *sessions;       /* id -> struct sm_session, owned */
    GQueue by_age;              /* of the same, oldest first */
    unsigned sessions_max;
    int fd_max; /* no flow has a descriptor from here on: RLIMIT_NOFILE less the reserve */
    /* Flows that there were when one would have had such a descriptor: before another ends, none begins. 0: none
     * would. */
    unsigned fd_sessions;
    uint64_t last_id;   /* of the front's OPENs: they rise, so that no two flows of the record share one */
    size_t relayed_now; /* bytes that wait in all mediated flows */
    size_t held_now;    /* bytes in all sessions' held */
    unsigned dns_tcp_now;
    bool front_odd;          /* told the operator that the front does what no front of ours does */
    GQueue effects, running; /* of struct sm_session, linked by effect_link */
    GQueue ends;             /* of the same: flows that are over, which wait until what others wait for is done */
    bool ends_waited;        /* for a turn already */
    struct sm_timer lines;   /* lines that nothing waits for are written by then */
    uint64_t dns_key;        /* last key given to a UDP query */
    char dns_rule[SM_ENTRY_STRLEN];
    GByteArray *replies; /* DNS over UDP, recorded and about to leave (turn.c); NULL: none yet */
    bool turn_failed;    /* a commit of this turn failed: none of its effects may be released */
    bool audit_down;     /* told the operator */
    bool asked_audit;
    int64_t asked_audit_us;
    int64_t hold_until_us; /* until then the front may hold a refusal that a new pin could change */
    unsigned attach_inflight;
    GQueue attach_wait; /* of struct sm_session: ATTACH is ready but too many are un-acknowledged */
    bool stopping;
    uint64_t n_opened, n_allowed, n_denied;
    struct sm_dgrams *dgrams;        /* from the first UDP flow on */
    uint64_t udp_lost[SM_CAPS_DIRS]; /* datagrams for which there was no room, or that were too large for the path */
    GHashTable *ingress;             /* set of session->tuple; NULL: no client of a published port is here */
    uint64_t last_inbound, n_ingress;
    unsigned ingress_port;   /* what is given out next */
    unsigned ingress_unsaid; /* words to the supervisor that the link did not take */
};

/** sm_core_main() - the subcommand `core`; returns the exit status. Descriptors as in base/link.h. */
int sm_core_main(int argc, char **argv);

/** sm_core_stop() - every flow's close line, the stop line, then the loop ends with status. Does nothing the second time. */
void sm_core_stop(struct sm_core *core, const char *reason, int status);

/* turn.c */
void sm_core_effect(struct sm_session *s, sm_effect_fn fn);
void sm_core_effect_cancel(struct sm_session *s);
/** sm_core_end_later() - fn (whose ok is true) ends the flow behind this turn's effects, and its lines go with the next write: within
 * SM_CORE_LINES_US. An effect of the flow that waits is given up. */
void sm_core_end_later(struct sm_session *s, sm_effect_fn fn);
/** sm_core_run_ends() - now, because somebody needs the room of flows that are over, or looks at all flows. */
void sm_core_run_ends(struct sm_core *core);
/** sm_core_lines_due() - what core->lines calls: a turn, at the end of which they are written. */
void sm_core_lines_due(struct sm_timer *timer, int64_t now_us);
bool sm_core_turn_end(void *core);
/** sm_core_commit_now() - for an effect that cannot wait for the end of the turn. */
bool sm_core_commit_now(struct sm_core *core) SM_WARN_UNUSED;
/** sm_core_make_room() - for who ends many flows in one go: their lines are written when they have become many. */
void sm_core_make_room(struct sm_core *core);
/** sm_core_reply() - queue a DATAGRAM to the guest until the turn's lines are written. */
void sm_core_reply(struct sm_core *core, const struct sm_endpoint *guest, const struct sm_endpoint *peer,
                   const uint8_t *msg, size_t len);
/** sm_core_record() - a decision's line. False: it cannot be recorded. sm_core_note() - a fact's line. */
bool sm_core_record(struct sm_core *core, const struct sm_audit_record *r) SM_WARN_UNUSED;
void sm_core_note(struct sm_core *core, const struct sm_audit_record *r);
void sm_core_every_second(struct sm_timer *timer, int64_t now_us);

/* session.c */
void sm_core_message(const struct sm_flow_msg *msg, const int *fds, size_t n_fds, void *core);
void sm_session_free(struct sm_session *s);
/**
 * sm_session_fd() - may a flow have this descriptor, which was just made for it?
 * @fd: what socket(2) said; -1 with errno is passed on.
 *
 * The kernel gives out the lowest number that is free, so a number says how many are in use: one that the reserve is to
 * have is closed. Returns fd, or -1 with errno (EMFILE for the reserve's sake).
 */
int sm_session_fd(struct sm_core *core, int fd);
/** sm_session_pair() - socketpair(2) of this type for a flow, non-blocking, under the same rule; the caller's. 0, or -1
 * with errno. */
int sm_session_pair(struct sm_core *core, int type, int ret[2]);
/** sm_session_new() - of msg's id, proto, src and dst; in core->sessions. */
struct sm_session *sm_session_new(struct sm_core *core, const struct sm_flow_msg *msg);
const char *sm_session_state_name(enum sm_session_state state);
/** sm_session_line() - begin a line of this flow with what all its lines share. */
void sm_session_line(const struct sm_session *s, struct sm_audit_record *r, enum sm_audit_event event,
                     const char *reason);
/** sm_session_deny() - one denial line (or a count), then the refusal; the session is over. */
void sm_session_deny(struct sm_session *s, const char *reason);
/** sm_session_refuse() - tell the guest and forget the session; no line. @reason: for a front that says why; NONE: upstream is as @how says. */
void sm_session_refuse(struct sm_session *s, enum sm_flow_how how, uint32_t hold_ms, enum sm_reason reason);
/** sm_session_give_up() - the close line (if one is owed), then the refusal: it cannot go on, whatever policy says. */
void sm_session_give_up(struct sm_session *s, const char *reason);
/** sm_session_not_recorded() - the line that an effect waited for could not be written: give up the flow. */
void sm_session_not_recorded(struct sm_session *s);
/** sm_session_judge() - ask policy and act on the answer. */
void sm_session_judge(struct sm_session *s, enum sm_stage stage);
/** sm_session_close() - the close line (if one is owed), then forget the session. reason may be NULL. */
void sm_session_close(struct sm_session *s, const char *reason);
/** sm_session_record() - a line that lets the flow go on: written, and then fn; a flow that cannot be recorded is refused. */
void sm_session_record(struct sm_session *s, const struct sm_audit_record *r, sm_effect_fn fn);
/** sm_session_record_denial() - a denial's line, or a count if it repeats one. @name: what tells it from others beside destination and reason. */
void sm_session_record_denial(struct sm_session *s, struct sm_audit_record *r, const char *reason, const void *name,
                              size_t name_len);
/** sm_session_dst() - where the flow goes, as far as it is known: by name, the address is that of the own look-up. */
struct sm_endpoint sm_session_dst(const struct sm_session *s);
/** sm_session_is_named() - is the session by a host's name (an address that a proxy's client named is an address)? */
bool sm_session_is_named(const struct sm_session *s);
/** sm_session_ask_host() - the verdict if this name had been asserted for the address that was dialled. */
void sm_session_ask_host(struct sm_session *s, const struct sm_host *host, struct sm_verdict *ret);
/** sm_session_drop_first_bytes() - the parsers of the first bytes have done their work. */
void sm_session_drop_first_bytes(struct sm_session *s);
/** sm_session_attach() - send ATTACH with give_fd, now or when the front has caught up. */
void sm_session_attach(struct sm_session *s);
void sm_session_attached(struct sm_core *core);
/** sm_session_rejudge() - the lists have changed: a flow that they do not allow at the stage that it has reached ends (policy_changed). */
void sm_session_rejudge(struct sm_session *s);

/* tcp.c */
void sm_tcp_dial(struct sm_session *s, bool ok);
void sm_tcp_redial(struct sm_session *s, bool ok);
/** sm_tcp_accept() - let the guest's handshake through. */
bool sm_tcp_accept(struct sm_session *s);
/** sm_tcp_proceed() - the verdict allows it and upstream is up: hand over, or mediate. */
void sm_tcp_proceed(struct sm_session *s);
void sm_tcp_drop_upstream(struct sm_session *s, bool reset);
void sm_tcp_hold(struct sm_session *s, bool ok);
void sm_tcp_hand_over(struct sm_session *s, bool ok);
/** sm_session_allows_opaque() - would a flow that names nobody be let through on the upstream it has? Fills s->verdict if so. */
bool sm_session_allows_opaque(struct sm_session *s);
/** sm_session_allow() - write the allow line and schedule fn. */
void sm_session_allow(struct sm_session *s, sm_effect_fn fn);
void sm_tcp_bytes(struct sm_session *s, const uint8_t *data, size_t len);
void sm_tcp_guest_eof(struct sm_session *s);
/** sm_tcp_gone() - an effect: the front says that a flow which was handed over is over. */
void sm_tcp_gone(struct sm_session *s, bool ok);
/** sm_tcp_end() - of a flow that was handed over: the front closes first, so that both sides get a reset; one that does not is cut off. */
void sm_tcp_end(struct sm_session *s, const char *reason);
void sm_tcp_resolve(struct sm_session *s);
/** sm_tcp_ghost() - what core->ghost calls. */
void sm_tcp_ghost(struct sm_watch *ghost, uint32_t events);
/** sm_tcp_count() - bytes_up and bytes_down from the kernel. */
void sm_tcp_count(struct sm_session *s);
/** sm_tcp_how() - how an upstream error looks to the guest. */
enum sm_flow_how sm_tcp_how(int err);

/* udp.c */
/** sm_udp_free() - the buffers that all flows share; when no flow is left. */
void sm_udp_free(struct sm_core *core);
void sm_udp_start(struct sm_session *s, bool ok);
/** sm_udp_end() - tell the front, the close line, and forget it. */
void sm_udp_end(struct sm_session *s, const char *reason);

/* names.c */
bool sm_names_init(struct sm_core *core, GError **error);
void sm_names_datagram(struct sm_core *core, const struct sm_flow_msg *msg);
void sm_names_serve(struct sm_session *s, bool ok);
void sm_names_learn(struct sm_core *core, const char *name, const struct sm_addr *addrs, size_t n, uint32_t ttl);
void sm_names_news(struct sm_core *core, const char *resolv_conf, size_t len);

/* ingress.c */
/** sm_ingress_take() - INGRESS of the supervisor; *fd is taken if the client is let in. */
void sm_ingress_take(struct sm_core *core, const char *text, int *fd);
/** sm_ingress_listeners() - LISTENERS: our own addresses, which no guest reaches from now on. */
void sm_ingress_listeners(struct sm_core *core, const char *text);
/** sm_ingress_line() - begin a line of an inbound flow, or of one that was not let in. */
void sm_ingress_line(const struct sm_session *s, struct sm_audit_record *r, enum sm_audit_event event,
                     const char *reason);
/** sm_ingress_sent() - INBOUND is on its way; sm_ingress_forget() - the session ends. Harmless for other sessions. */
void sm_ingress_sent(struct sm_session *s);
void sm_ingress_forget(struct sm_session *s);
void sm_ingress_every_second(struct sm_core *core);
/** sm_ingress_count() - clients that are here now. */
unsigned sm_ingress_count(const struct sm_core *core);
/** sm_ingress_shown_as_is() - may the guest see this address of a client, or does it appear as the gateway? */
bool sm_ingress_shown_as_is(const struct sm_prefix *network, const struct sm_addr *client);

/* reload.c */
/** sm_reload_take() - POLICY of the supervisor; the descriptor stays the caller's. */
void sm_reload_take(struct sm_core *core, int fd);

/* report.c */
/** sm_core_report() - the answer to STATUS, JSON text for free(). */
char *sm_core_report(struct sm_core *core);

/* ownaddr.c */
bool sm_ownaddr_init(struct sm_core *core, GError **error);

#endif
