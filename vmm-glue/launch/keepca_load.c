/* SPDX-License-Identifier: BSD-3-Clause */
/* The kept CA itself, for a snapshot; see keepca.h. */
#include "launch/keepca.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"

bool sm_kept_ca_load(const struct sm_workspace *ws, const char *fingerprint, char **ret_cert,
                     struct sm_secret **ret_key, GError **error)
{
    sm_autofd cert_fd = sm_workspace_open_own(ws, SM_STATE_CA_CERT, error);
    sm_autofd key_fd = cert_fd < 0 ? -1 : sm_workspace_open_own(ws, SM_STATE_CA_KEY, error);
    g_autofree char *cert = key_fd < 0 ? NULL : sm_fd_read_all(cert_fd, SM_TLS_CA_CERT_PEM_MAX, NULL, error);
    char found[SM_TLS_FINGERPRINT_STRLEN];

    if (!cert)
        return false;
    sm_cleanup(sm_secret_freep) struct sm_secret *key = sm_secret_read(key_fd, SM_TLS_CA_KEY_PEM_MAX);
    if (!key) {
        sm_error_set_errno(error, errno, "read %s/%s/" SM_STATE_CA_KEY, ws->base, ws->name);
        return false;
    }
    struct sm_tls_ca *ca = sm_tls_ca_load(cert, key, error);
    if (!ca) {
        g_prefix_error(error, "%s/%s: ", ws->base, ws->name);
        return false;
    }
    sm_tls_ca_fingerprint(ca, found);
    sm_tls_ca_free(ca);
    if (strcmp(found, fingerprint) != 0) {
        sm_error_set(error, SM_ERROR_INVALID, "%s/%s/" SM_STATE_CA_CERT " has the fingerprint %s, and not %s", ws->base,
                     ws->name, found, fingerprint);
        return false;
    }
    *ret_cert = g_steal_pointer(&cert);
    *ret_key = sm_steal_ptr(&key);
    return true;
}
