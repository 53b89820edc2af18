/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Does KVM run guests here? That /dev/kvm can be opened says little: there are machines whose KVM executes one
 * instruction after the other in software, or never gets through the firmware. So a few instructions are run, and timed.
 */
#ifndef SM_LAUNCH_KVM_H
#define SM_LAUNCH_KVM_H

#include "base/defs.h"

/** sm_kvm_usable() - true, or false and a static text that says why not. Takes a few milliseconds: most of it is the kernel's, for making and ending a virtual machine. */
bool sm_kvm_usable(const char **ret_why);

struct sm_kvm_asked;

/** sm_kvm_ask() - the same in a thread of its own, beside what the caller has to do: nearly all of it is waiting.
 * SIGALRM is blocked until sm_kvm_answer(). NULL: there is no thread to be had; then the answer is looked for when it
 * is asked for. */
struct sm_kvm_asked *sm_kvm_ask(void);
/** sm_kvm_answer() - wait for the end of it. *asked becomes NULL. */
bool sm_kvm_answer(struct sm_kvm_asked **asked, const char **ret_why);

#endif
