/* SPDX-License-Identifier: BSD-3-Clause */
/* A CA that stays between runs; see keepca.h. */
#include "launch/keepca.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "core/carry.h"
#include "paths/certs.h"

#define FINGERPRINT_LEN (SM_TLS_FINGERPRINT_STRLEN - 1)

int sm_kept_ca_read(const struct sm_workspace *ws, char ret[SM_TLS_FINGERPRINT_STRLEN], GError **error)
{
    GError *local = NULL;
    sm_autofd fd = sm_workspace_open_own(ws, SM_STATE_CA_KEPT, &local);

    if (fd < 0 && errno == ENOENT) {
        g_error_free(local);
        return 0;
    }
    if (fd < 0) {
        g_propagate_error(error, local);
        return -1;
    }
    g_autofree char *text = sm_fd_read_all(fd, FINGERPRINT_LEN + 1, NULL, NULL);
    if (text && strlen(text) == FINGERPRINT_LEN + 1 && text[FINGERPRINT_LEN] == '\n') {
        text[FINGERPRINT_LEN] = '\0';
        if (sm_carry_is_hex(text, FINGERPRINT_LEN)) {
            g_strlcpy(ret, text, SM_TLS_FINGERPRINT_STRLEN);
            return 1;
        }
    }
    sm_error_set(error, SM_ERROR_INVALID, "%s/%s/" SM_STATE_CA_KEPT ": not a fingerprint: put a copy back", ws->base,
                 ws->name);
    return -1;
}

int sm_kept_ca_check(const struct sm_workspace *ws, bool intercepts, bool keep, char ret[SM_TLS_FINGERPRINT_STRLEN],
                     GError **error)
{
    ret[0] = '\0';
    int r = intercepts ? sm_kept_ca_read(ws, ret, error) : 0;
    if (r > 0 && !keep) {
        sm_error_set(
            error, SM_ERROR_INVALID,
            "workspace '%s' keeps its CA, which a start without --keep-ca would throw away: give --keep-ca, or "
            "another --name",
            ws->name);
        return -1;
    }
    return r < 0 ? -1 : 0;
}

int sm_kept_ca_open(const struct sm_workspace *ws, struct sm_workspace_ca *ret, GError **error)
{
    sm_autofd key = sm_workspace_open_own(ws, SM_STATE_CA_KEY, error);
    sm_autofd cert = key < 0 ? -1 : sm_workspace_open_own(ws, SM_STATE_CA_CERT, error);
    sm_autofd guest = cert < 0 ? -1 : sm_workspace_open_own(ws, SM_STATE_CA_CERT, error);

    if (guest < 0) {
        g_prefix_error(error, "the CA that workspace '%s' keeps: ", ws->name);
        return -1;
    }
    ret->key_fd = sm_steal_fd(&key);
    ret->cert_fd = sm_steal_fd(&cert);
    ret->guest_fd = sm_steal_fd(&guest);
    return 0;
}

/* Of the one that the core has just made, without OpenSSL: the launcher has none. */
static bool fingerprint(const char *cert, char out[SM_TLS_FINGERPRINT_STRLEN])
{
    struct sm_certs *certs = sm_certs_new();
    bool one = sm_certs_add_pem(certs, cert, strlen(cert)) == 1 && sm_certs_count(certs) == 1;

    if (one) {
        size_t len;
        const uint8_t *der = sm_certs_get(certs, 0, &len);
        g_autofree char *hex = g_compute_checksum_for_data(G_CHECKSUM_SHA256, der, len);
        g_strlcpy(out, hex, SM_TLS_FINGERPRINT_STRLEN);
    }
    sm_certs_free(certs);
    return one;
}

bool sm_kept_ca_mark(const struct sm_workspace *ws, GError **error)
{
    char line[SM_TLS_FINGERPRINT_STRLEN + 1];
    sm_autofd fd = sm_workspace_open_own(ws, SM_STATE_CA_CERT, error);
    g_autofree char *cert = fd < 0 ? NULL : sm_fd_read_all(fd, SM_TLS_CA_CERT_PEM_MAX, NULL, error);

    if (!cert)
        return false;
    if (!fingerprint(cert, line)) {
        sm_error_set(error, SM_ERROR_INVALID, "%s/%s/" SM_STATE_CA_CERT ": not a certificate", ws->base, ws->name);
        return false;
    }
    line[FINGERPRINT_LEN] = '\n';
    return sm_workspace_stage(ws, SM_STATE_CA_KEPT, line, FINGERPRINT_LEN + 1, error) == 0 &&
           sm_workspace_commit(ws, SM_STATE_CA_KEPT, error) == 0;
}

bool sm_kept_ca_exists(const struct sm_workspace *ws)
{
    struct stat st;

    return fstatat(ws->dirfd, SM_STATE_CA_KEPT, &st, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}
