/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A core without its process: a real loop, channel and audit file. The caller has the front's end of the channel, and
 * turns the loop.
 */
#ifndef SM_TEST_CORE_HARNESS_H
#define SM_TEST_CORE_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/mediate.h"

struct harness_options {
    const char *mode;
    const char *allow, *deny; /* JSON strings with commas between; NULL: none */
    const char *vsock;        /* the key "vsock" (JSON); NULL: none */
    const char *proxy;        /* the key "proxy" (JSON); NULL: none */
    uint16_t dns_port;        /* of the host's resolver on loopback */
    unsigned dns_qps;
    unsigned pins, sessions;          /* bounds */
    struct sm_caps_limits caps;       /* counted from zero; no counters.json */
    const struct sm_channel_ops *ops; /* data is the core */
};

/** harness_start() - all that main.c makes, but no CA (sm_pki_make()). The audit file is dir/egress.jsonl. */
void harness_start(struct sm_core *core, const char *dir, const struct harness_options *o, int *ret_audit_fd,
                   int *ret_front);
/** harness_end() - free it all; sessions must be gone. */
void harness_end(struct sm_core *core);

/** harness_disk() - from now on nothing can be written to any file of this process, or again. */
void harness_disk(bool full);

#endif
