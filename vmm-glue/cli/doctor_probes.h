/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What `doctor` tries. A probe does the thing itself in a child process (scratch namespaces die with it) and fills in
 * one finding.
 */
#ifndef SM_CLI_DOCTOR_PROBES_H
#define SM_CLI_DOCTOR_PROBES_H

#include "base/defs.h"

enum sm_probe_status {
    SM_PROBE_OK,
    SM_PROBE_DEGRADED, /* works, but with less than there could be */
    SM_PROBE_MISSING,
    SM_PROBE_STATUSES
};
const char *sm_probe_status_name(enum sm_probe_status status);

enum sm_probe_need {
    SM_PROBE_FOR_RUN,       /* `run` cannot work without it */
    SM_PROBE_FOR_TPROXY,    /* --datapath tproxy */
    SM_PROBE_FOR_HARDENING, /* a second wall */
    SM_PROBE_FOR_COMFORT,
    SM_PROBE_NEEDS
};
const char *sm_probe_need_name(enum sm_probe_need need);

/** What a probe found: plain bytes, since it comes out of the child through a pipe (one write: both texts fit
 * PIPE_BUF). */
struct sm_probe_finding {
    enum sm_probe_status status;
    char detail[1024];
    char fix[1024]; /* "" when nothing is to be done */
};

struct sm_probe {
    const char *name; /* stable: part of the JSON schema */
    enum sm_probe_need need;
    void (*fn)(struct sm_probe_finding *ret); /* may unshare, sandbox itself and die */
};

extern const struct sm_probe sm_probes[];
extern const size_t sm_n_probes;

/** sm_probe_run() - the probe in a child. A child that dies or hangs (10 s) is SM_PROBE_MISSING with the reason. */
void sm_probe_run(const struct sm_probe *probe, struct sm_probe_finding *ret);

#endif
