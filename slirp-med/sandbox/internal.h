/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of sandbox/ share and nobody else may see. */
#ifndef SM_SANDBOX_INTERNAL_H
#define SM_SANDBOX_INTERNAL_H

#include "sandbox/sandbox.h"

#if defined(__SANITIZE_ADDRESS__)
#define SM_SANDBOX_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SM_SANDBOX_SANITIZED 1
#endif
#endif
#ifndef SM_SANDBOX_SANITIZED
#define SM_SANDBOX_SANITIZED 0
#endif

/** The programs for the kernel (filter.c). */
enum sm_filter {
    SM_FILTER_FRONT,
    SM_FILTER_FRONT_MEMORY,  /* maps memory that a VMM shares */
    SM_FILTER_FRONT_ACCEPTS, /* takes clients of listening sockets */
    SM_FILTER_FRONT_SPLICES, /* accepts, and moves bytes through pipes */
    SM_FILTER_FRONT_MEMORY_SPLICES,
    SM_FILTER_CORE,
    SM_FILTER_FETCH,
    SM_FILTER_GUEST,
    SM_FILTERS
};
/** Stands in the programs where the process id belongs, once in each but the guest's. Larger than any process id, and
 * no other number in them. */
#define SM_FILTER_PID 0x7fedcba9u

struct sock_fprog;
/** The program as it was made, with SM_FILTER_PID in it: for the test. */
const struct sock_fprog *sm_sandbox_program(enum sm_filter filter);

/** The early stage has been passed in this process. */
extern bool sm_sandbox_early_done;

/** Set where a process leaves its namespaces or stops being dumpable: LeakSanitizer's check at exit is a clone that
 * ptraces us, which then fails or hangs. Without a meaning in other builds. */
extern int sm_sandbox_leak_check_off;

/** sm_sandbox_landlock() - no access to any file by path from here on. 1 done, 0 this kernel has no Landlock, -1 with
 * errno. */
int sm_sandbox_landlock(void);

#endif
