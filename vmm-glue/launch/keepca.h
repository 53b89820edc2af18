/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The CA that a workspace keeps (--keep-ca, or one that `restore` brought), from the first start to the end of the workspace.
 *
 *   ca.key, ca.pem   stay between runs
 *   ca.kept          the fingerprint of the certificate, as 64 hex digits and a newline: the mark that there is a CA to come back to. Written
 *                    when a first start is complete, before the guest goes
 *
 * With the mark a start uses that CA or fails: files that are missing, damaged or of another pair, a fingerprint that differs, a life that is
 * nearly over are errors, and never the reason for a silent new one, which every guest of before would refuse. Without it a start makes a new CA,
 * as ever. A start that intercepts without --keep-ca where there is a mark is refused: it would throw the CA away.
 *
 * Errors: SM_ERROR_INVALID, SM_ERROR_SYSTEM; they name the file.
 */
#ifndef SM_LAUNCH_KEEPCA_H
#define SM_LAUNCH_KEEPCA_H

#include "launch/state.h"
#include "tls/ca.h"

#define SM_STATE_CA_KEPT "ca.kept"

/** sm_kept_ca_read() - 1 and the fingerprint where a CA is kept, 0 where none is, -1 with error set. */
int sm_kept_ca_read(const struct sm_workspace *ws, char ret[SM_TLS_FINGERPRINT_STRLEN], GError **error);
/**
 * sm_kept_ca_check() - before a start: what it is to do about the CA.
 * @intercepts: it needs one. @keep: --keep-ca.
 * @ret: the fingerprint of the CA that it has to use; "": it makes one, or needs none.
 * Returns 0, or -1 with error set.
 */
int sm_kept_ca_check(const struct sm_workspace *ws, bool intercepts, bool keep, char ret[SM_TLS_FINGERPRINT_STRLEN],
                     GError **error);
/** sm_kept_ca_open() - its files, for reading. 0, or -1 with error set. */
int sm_kept_ca_open(const struct sm_workspace *ws, struct sm_workspace_ca *ret, GError **error);
/** sm_kept_ca_mark() - the CA of the run that is starting is complete, and stays. */
bool sm_kept_ca_mark(const struct sm_workspace *ws, GError **error) SM_WARN_UNUSED;
/** sm_kept_ca_exists() - is there a mark? What cannot be looked at counts as one. */
bool sm_kept_ca_exists(const struct sm_workspace *ws);

/**
 * sm_kept_ca_load() - the CA's files themselves, for a snapshot: they fit together, and are @fingerprint's.
 * @ret_cert: PEM, g_free(). @ret_key: sm_secret_free().
 */
bool sm_kept_ca_load(const struct sm_workspace *ws, const char *fingerprint, char **ret_cert,
                     struct sm_secret **ret_key, GError **error) SM_WARN_UNUSED;

#endif
