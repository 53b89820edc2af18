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

/** sm_sandbox_landlock() - no access to any file by path from here on. 1 done, 0 this kernel has no Landlock, -1 with
 * errno. */
int sm_sandbox_landlock(void);

#endif
