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

/** The early stage has been passed in this process. */
extern bool sm_sandbox_early_done;

/** Set where a process leaves its namespaces or stops being dumpable: LeakSanitizer's check at exit is a clone that
 * ptraces us, which then fails or hangs. Without a meaning in other builds. */
extern int sm_sandbox_leak_check_off;

/** sm_sandbox_landlock() - no access to any file by path from here on. 1 done, 0 this kernel has no Landlock, -1 with
 * errno. */
int sm_sandbox_landlock(void);

#endif
