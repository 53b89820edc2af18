/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the filters let through, in libseccomp's terms. Making a filter of it takes libseccomp 1 to 3 ms, in each of the
 * processes of each start; so it is done once, when this is built: make_filters.c writes the programs for the kernel as
 * tables, and filter.c loads these. Nobody else includes this but the test that holds the tables against what
 * libseccomp makes where it runs.
 */
#ifndef SM_SANDBOX_RULES_H
#define SM_SANDBOX_RULES_H

#include <seccomp.h>

#include "sandbox/internal.h"

static const char *const sm_filter_names[] = {
    [SM_FILTER_FRONT] = "front",
    [SM_FILTER_FRONT_MEMORY] = "front, memory",
    [SM_FILTER_FRONT_ACCEPTS] = "front, accepts",
    [SM_FILTER_FRONT_SPLICES] = "front, accepts, splices",
    [SM_FILTER_FRONT_MEMORY_SPLICES] = "front, memory, accepts, splices",
    [SM_FILTER_CORE] = "core",
    [SM_FILTER_FETCH] = "fetch",
    [SM_FILTER_GUEST] = "guest",
};
SM_NAME_TABLE_COVERS(sm_filter_names, SM_FILTERS);

/** Of all filters but the guest's. @pid: who may be sent a signal, by abort(). Returns 0 or a negative errno; *ret, if
 * not NULL, is the caller's to release in both cases. */
int sm_sandbox_rules(enum sm_filter filter, uint32_t pid, scmp_filter_ctx *ret);
int sm_sandbox_guest_rules(scmp_filter_ctx *ret);

#endif
