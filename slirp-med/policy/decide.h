/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The decision (spec section 3), pure: a question in, a verdict out; no fd, no clock, no log, no memory of the past.
 *
 * Stages of a flow, and which actions each can give:
 *
 *   stage     asked when                                       actions
 *   ATTEMPT   SYN, or the first datagram of a 4-tuple          DENY, DNS, DIAL; strict TCP without proof: HOLD
 *   ASSERT    TCP: a name was asserted (SNI, Host), or it is   DENY, ALLOW (go on with the guest's address, dialled or
 *             known that there is none; proxy front: CONNECT   not yet), RESOLVE (drop what was dialled, resolve
 *                                                              `host`, ask RESOLVED for each address)
 *   RESOLVED  an address of the core's own resolution of the   DENY, ALLOW (dial this address)
 *             asserted name (the caller adds the pin; the
 *             verdict is the same before and after). After
 *             CONNECT asked again for the first bytes: `inner`
 *
 * UDP is decided in one stage. ASSERT looks at everything again: a reload between the stages lets nothing slip through.
 * A verdict starts as DENY: a zeroed one is a refusal.
 *
 * Rules where the spec leaves room:
 * - Deny list. A denied address or a denied asserted name: no flow. When every live pin of the address is denied: no
 *   flow. When some are: only a TCP flow that asserts another name pinned there, or whose name the core resolves
 *   itself, goes on. An IP rule changes none of that.
 * - A listed name that is asserted but not pinned, on an address with an IP rule: the address is proven, the name is
 *   not. The flow goes on to the guest's address; passthrough that only the name's entry would give goes to RESOLVE.
 * - A strict flow on an IP rule that asserts an unlisted name is refused (spec's table, step 3).
 * - An inside address that only a pin opened: a flow that asserts a name must assert an exact listed name pinned there.
 * - Passthrough with no name asserted: for each live pin the better of the name's and the address's entry must be
 *   passthrough; without pins, the address's. UDP 443 needs that by at least one pin, or any IP rule, or opaque mode.
 * - A Host that is an address: the destination itself means "no name"; any other address is an unlisted name.
 * - A name that has no canonical form is refused in guarded and strict: it cannot be compared with the deny list.
 * - IPv6 destinations of guests are refused in every mode; the core's own resolution and CONNECT may use IPv6.
 * - After CONNECT to a name the flow speaks for that name alone: an SNI of another name is refused (`inner`), and so is
 *   a Host where nobody would judge the requests (passthrough); elsewhere every request is judged (step 4).
 * - A route (route.h) is the operator's own rule for one name: it counts as listed and opens any address but another
 *   workspace and our own listeners. Deny entries of the name and of the address are stronger.
 * - Mode off: loopback, 0/8 and our own listeners are refused; the resolver is answered; all else is dialled.
 */
#ifndef SM_POLICY_DECIDE_H
#define SM_POLICY_DECIDE_H

#include "policy/inside.h"
#include "policy/list.h"
#include "policy/names.h"
#include "policy/pins.h"
#include "policy/reason.h"
#include "policy/route.h"

enum sm_mode { SM_MODE_GUARDED = 0, SM_MODE_STRICT, SM_MODE_OFF, SM_MODES };
enum sm_proto { SM_PROTO_TCP = 0, SM_PROTO_UDP, SM_PROTOS };
enum sm_stage { SM_STAGE_ATTEMPT = 0, SM_STAGE_ASSERT, SM_STAGE_RESOLVED, SM_STAGES };

/** Where an asserted name comes from, or why there is none. */
enum sm_assertion {
    SM_ASSERTION_NONE = 0,     /* ATTEMPT: nothing was said yet */
    SM_ASSERTION_SNI,          /* TLS ClientHello */
    SM_ASSERTION_HOST,         /* HTTP/1 Host (an HTTP/2 preface on cleartext names nobody yet: OPAQUE) */
    SM_ASSERTION_CONNECT,      /* proxy front: CONNECT or absolute form; the core resolves it, so it is proof */
    SM_ASSERTION_OPAQUE,       /* the guest spoke, and named nobody */
    SM_ASSERTION_SERVER_FIRST, /* the server spoke first */
    SM_ASSERTION_TIMEOUT,      /* strict: the guest stayed silent for the classification time-out */
    SM_ASSERTIONS
};

enum sm_action {
    SM_ACTION_DENY = 0, /* refuse as `refuse` says */
    SM_ACTION_DNS,      /* port 53: the core's resolver answers, nothing is dialled */
    SM_ACTION_DIAL,     /* dial the guest's address; mirror its outcome */
    SM_ACTION_HOLD,     /* complete the handshake, dial nothing, wait for a name */
    SM_ACTION_RESOLVE,  /* resolve `host` and ask again for each address (RESOLVED) */
    SM_ACTION_ALLOW,    /* go on with this address */
    SM_ACTIONS
};

/** How the guest is told; flow/ has its own numbers for the wire. */
enum sm_refusal { SM_REFUSAL_NONE = 0, SM_REFUSAL_RST, SM_REFUSAL_ICMP_ADMIN, SM_REFUSAL_DNS_REFUSED, SM_REFUSALS };

/** name_source of an audit line. */
enum sm_name_source {
    SM_NAME_SOURCE_IP = 0,
    SM_NAME_SOURCE_PIN,
    SM_NAME_SOURCE_SNI,
    SM_NAME_SOURCE_HOST,
    SM_NAME_SOURCE_CONNECT,
    SM_NAME_SOURCES
};

/** Everything a decision looks at. Pointers are borrowed for the call; lists, pins and ground may be NULL (nothing
 * listed, pinned, known). */
struct sm_question {
    enum sm_mode mode;
    enum sm_stage stage;
    enum sm_proto proto;
    bool opaque;            /* --egress-opaque */
    struct sm_endpoint dst; /* where the guest goes; RESOLVED: the address to dial; CONNECT to a name: address of family
                               none, the port */
    enum sm_assertion assertion;
    const struct sm_host
        *asserted; /* SNI, HOST, CONNECT: from names.h; its port is not looked at. NULL counts as bad */
    /* RESOLVED after CONNECT, first bytes: what they name, by SNI or (inner_is_host) by Host; NULL: nobody */
    const struct sm_host *inner;
    bool inner_is_host;
    const struct sm_route *route; /* CONNECT: of the asserted name and the port asked for; NULL: none */
    const struct sm_lists *lists;
    const struct sm_pins *pins;
    const struct sm_ground *ground;
    int64_t now_us;
};

struct sm_verdict {
    enum sm_action action;
    enum sm_reason reason;
    enum sm_refusal refuse; /* DENY */
    enum sm_inside_kind inside;
    bool internal;    /* the destination is inside (denied or opened) */
    bool unlisted;    /* guarded: no rule with proof stands behind the flow */
    bool passthrough; /* not to be intercepted; always backed by proof */
    bool intercept;   /* TLS is to be intercepted: neither passthrough nor opaque nor off */
    bool proof;       /* host is proven: by a pin to this address or by the core's own resolution */
    enum sm_name_source name_source;
    char host[SM_NAME_STRLEN];  /* the flow's name; "" for a bare address. RESOLVE: the name to resolve */
    char rule[SM_ENTRY_STRLEN]; /* the entry that decided, canonical; "" for none */
};

const char *sm_mode_name(enum sm_mode mode);
/** sm_mode_parse() - --egress: "", guarded, strict, off, open, disabled. False with error naming value and choices. */
bool sm_mode_parse(const char *text, enum sm_mode *ret, GError **error) SM_WARN_UNUSED;
const char *sm_proto_name(enum sm_proto proto);
const char *sm_stage_name(enum sm_stage stage);
const char *sm_assertion_name(enum sm_assertion assertion);
const char *sm_action_name(enum sm_action action);
const char *sm_refusal_name(enum sm_refusal refusal);
const char *sm_name_source_name(enum sm_name_source source);

/** sm_decide() - the verdict on one question. @ret is overwritten. */
void sm_decide(const struct sm_question *q, struct sm_verdict *ret);

/**
 * sm_decide_dns() - may this name be resolved for the guest? guarded and off: any canonical name (guarded: unless
 * denied); strict: listed on any port.
 * @qname, @len: the question's name as text (labels joined by dots, no escapes; a label with another byte is a bad
 * name). Verdict: action ALLOW or DENY (refuse DNS_REFUSED), host the canonical name, rule, reason, unlisted,
 * passthrough (the name's own entry for port 443 is: what its HTTPS record may advertise; reach is judged by pin).
 */
void sm_decide_dns(enum sm_mode mode, const struct sm_lists *lists, const char *qname, size_t len,
                   struct sm_verdict *ret);

#endif
