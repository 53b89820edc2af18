/* SPDX-License-Identifier: BSD-3-Clause */
/* What an audit says was used, as suggest.c collects it and suggest_write.c reads it. */
#ifndef SM_LAUNCH_SUGGEST_SEEN_H
#define SM_LAUNCH_SUGGEST_SEEN_H

#include "launch/suggest.h"
#include "policy/decide.h"

/** Traffic, of a use or added up. */
struct sm_seen_count {
    uint64_t flows, requests, uploads; /* uploads: POST, PUT and PATCH */
    uint64_t bytes_up, bytes_down;
};

/** Was TLS or QUIC left alone? With --egress-opaque everything is, and a log whose beginning is gone does not say. */
enum sm_seen_passthrough { SM_SEEN_LOOKED_INTO = 0, SM_SEEN_UNKNOWN, SM_SEEN_PASSTHROUGH };

/** A name or address on a port. */
struct sm_seen_use {
    uint16_t port; /* 0: over SM_SUGGEST_PORTS_MAX, any */
    enum sm_seen_passthrough passthrough;
    struct sm_seen_count count;
    bool pinned; /* some flow's name was looked up; otherwise it is only what the guest said */
    bool odd;    /* some flow asserted another address */
};

struct sm_seen {
    char *name; /* canonical name or text of the address; NULL: the names over SM_SUGGEST_NAMES_MAX of a domain */
    struct sm_addr addr;
    uint64_t lookups;
    bool internal;
    struct sm_addr inside; /* internal: an address that it had */
    GArray *uses;          /* struct sm_seen_use */
};

struct sm_seen_domain {
    char *name;
    bool collapses; /* it may be a suffix entry */
    GTree *names;   /* char * -> struct sm_seen */
    unsigned n;     /* that may be collapsed */
    struct sm_seen rest;
    uint64_t rest_names; /* times that a name over the maximum was used */
};

/** A refused destination and the reason. */
struct sm_seen_denied {
    char entry[SM_ENTRY_STRLEN];
    char reason[48];
    char name[SM_NAME_STRLEN]; /* inside: the name that it was asked by; else "" */
    bool opens;                /* an entry could open it */
    bool stays;                /* worth saying, also when the destination is listed */
    uint64_t count;
    struct sm_entry parsed;
};

struct sm_suggest {
    struct sm_suggest_counts counts;
    GPtrArray *bad;
    uint64_t last_seq;
    bool start_seen, opaque, mitm_seen;
    GTree *domains; /* char * -> struct sm_seen_domain */
    GTree *addrs;   /* char * -> struct sm_seen */
    unsigned n_domains, n_addrs, n_exact, n_denied;
    GTree *denied;         /* entry and reason -> struct sm_seen_denied */
    GTree *denied_domains; /* char * -> how many names of it are in denied */
    uint64_t other_denied; /* ICMP, IPv6 and the like: no entry is about these */
};

#endif
