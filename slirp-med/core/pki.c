/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The core's keys and roots: the workspace's CA, made before the sandbox closes; upstream roots, asked of the supervisor when the first flow is
 * intercepted; and the queue of flows that wait for a leaf, so that a guest that asks for ever new names waits and nobody else does.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/link.h"
#include "base/log.h"
#include "core/mediate.h"

/** A bundle of roots: distributions ship 200 to 300 KiB. */
#define ROOTS_MAX (8u << 20)
/** Flows that wait for a leaf: two and a half seconds' worth at SM_TLS_MINT_PER_SECOND; later ones are refused. */
#define MINT_WAIT_MAX 512

static void on_mint_timer(struct sm_timer *timer, int64_t now_us);

static bool write_out(int fd, const char *what, const void *data, size_t len, GError **error)
{
    bool ok = sm_fd_write_all(fd, data, len) == 0;

    if (!ok)
        sm_error_set_errno(error, errno, "%s in the workspace's folder", what);
    (void)close(fd);
    return ok;
}

static struct sm_tls_ca *load_kept(const char *fingerprint, int key_fd, int cert_fd, GError **error)
{
    sm_cleanup(sm_secret_freep) struct sm_secret *key = sm_secret_read(key_fd, SM_TLS_CA_KEY_PEM_MAX);
    g_autofree char *cert = key ? sm_fd_read_all(cert_fd, SM_TLS_CA_CERT_PEM_MAX, NULL, error) : NULL;
    char found[SM_TLS_FINGERPRINT_STRLEN];

    if (!key)
        sm_error_set_errno(error, errno, "ca.key in the workspace's folder");
    (void)close(key_fd);
    (void)close(cert_fd);
    struct sm_tls_ca *ca = cert ? sm_tls_ca_load(cert, key, error) : NULL;
    if (!ca)
        return NULL;
    sm_tls_ca_fingerprint(ca, found);
    if (strcmp(found, fingerprint) != 0)
        sm_error_set(error, SM_ERROR_INVALID, "the workspace's CA has the fingerprint %s, and %s was kept", found,
                     fingerprint);
    else if (sm_tls_ca_lasts(ca, sm_clock_wall_us(), error))
        return ca;
    sm_tls_ca_free(ca);
    return NULL;
}

static struct sm_tls_ca *make_new(const char *workspace, int key_fd, int cert_fd, GError **error)
{
    struct sm_tls_ca *ca = sm_tls_ca_new(workspace, sm_clock_wall_us(), error);
    size_t len;

    if (!ca)
        return NULL;
    sm_cleanup(sm_secret_freep) struct sm_secret *key = sm_tls_ca_key_pem(ca);
    if (!key)
        sm_error_set(error, SM_ERROR_SYSTEM, "out of memory for the CA key");
    const uint8_t *bytes = key ? sm_secret_bytes(key, &len) : NULL;
    bool ok = key && (key_fd < 0 || write_out(key_fd, "ca.key", bytes, len, error));
    const char *cert = sm_tls_ca_cert_pem(ca);
    if (ok && (cert_fd < 0 || write_out(cert_fd, "ca.pem", cert, strlen(cert), error)))
        return ca;
    sm_tls_ca_free(ca);
    return NULL;
}

bool sm_pki_make(struct sm_core *core, int ca_key_fd, int ca_cert_fd, GError **error)
{
    const char *kept = core->config->ca_sha256;

    g_queue_init(&core->roots_wait);
    g_queue_init(&core->mint_wait);
    sm_timer_init(&core->mint_timer, on_mint_timer);
    if (!sm_tls_library_init(error))
        return false;
    core->ca = kept ? load_kept(kept, ca_key_fd, ca_cert_fd, error)
                    : make_new(core->config->workspace, ca_key_fd, ca_cert_fd, error);
    return core->ca != NULL;
}

bool sm_pki_open(struct sm_core *core, GError **error)
{
    core->tls_guest = sm_tls_guest_new(core->ca, error);
    core->tls_upstream = sm_tls_upstream_new(error);
    return core->tls_guest && core->tls_upstream;
}

void sm_pki_free(struct sm_core *core)
{
    if (!core->ca)
        return;
    sm_loop_disarm(core->loop, &core->mint_timer);
    sm_tls_guest_free(core->tls_guest);
    sm_tls_upstream_free(core->tls_upstream);
    sm_tls_ca_free(core->ca);
    core->ca = NULL;
}

static void wait_in(struct sm_mediation *m, GQueue *queue)
{
    m->wait_link = (GList){.data = m};
    m->wait_in = queue;
    g_queue_push_tail_link(queue, &m->wait_link);
}

void sm_pki_wait_cancel(struct sm_mediation *m)
{
    if (!m->wait_in)
        return;
    g_queue_unlink(m->wait_in, &m->wait_link);
    m->wait_in = NULL;
}

bool sm_pki_roots(struct sm_mediation *m)
{
    struct sm_core *core = m->s->core;

    if (core->roots_loaded)
        return true;
    if (!core->roots_asked && sm_link_send(core->link.fd, SM_LINK_WANT, "roots", -1) < 0)
        sm_log_error("the CA bundle of this host cannot be asked for: %s", strerror(errno));
    core->roots_asked = true;
    wait_in(m, &core->roots_wait);
    return false;
}

void sm_pki_news(struct sm_core *core, int fd)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;
    size_t len = 0, n = 0;

    if (core->roots_loaded || !core->roots_asked)
        return;
    if (fd >= 0)
        text = sm_fd_read_all(fd, ROOTS_MAX, &len, &error);
    if (text)
        n = sm_tls_upstream_add_roots(core->tls_upstream, text, len);
    size_t extra =
        sm_tls_upstream_add_roots(core->tls_upstream, core->config->extra_roots, strlen(core->config->extra_roots));
    if (n == 0)
        sm_log_error("no CA bundle of this host could be read%s%s: only --egress-ca-file is trusted (%zu certificates)",
                     error ? ": " : "", error ? error->message : "", extra);
    core->roots_loaded = true;
    while (core->roots_wait.head) {
        struct sm_mediation *m = core->roots_wait.head->data;
        sm_pki_wait_cancel(m);
        sm_mediate_go_on(m);
    }
}

static enum sm_tls_leaf_status ask(struct sm_mediation *m, int64_t *ret_at_us)
{
    struct sm_session *s = m->s;
    const char *name = s->asserted.kind == SM_NAME_HOST ? s->asserted.name : NULL;

    const struct sm_addr *addr = name ? NULL : &s->dst.addr;

    if (!name && s->verdict.host[0])
        name = s->verdict.host; /* no SNI: the guest looks for the address, or for the name that it is pinned for */
    return sm_tls_ca_leaf(s->core->ca, name, addr, sm_loop_now(s->core->loop), sm_clock_wall_us(), &m->leaf, ret_at_us);
}

/* Those who waited first come first; a flow may end when its turn comes. */
static void serve_waiting(struct sm_core *core)
{
    while (core->mint_wait.head) {
        struct sm_mediation *m = core->mint_wait.head->data;
        int64_t at_us = 0;

        if (ask(m, &at_us) == SM_TLS_LEAF_LATER) {
            sm_loop_arm(core->loop, &core->mint_timer, at_us);
            return;
        }
        sm_pki_wait_cancel(m);
        sm_mediate_go_on(m); /* without a leaf: it failed */
    }
}

static void on_mint_timer(struct sm_timer *timer, int64_t now_us)
{
    (void)now_us;
    serve_waiting(sm_container_of(timer, struct sm_core, mint_timer));
}

enum sm_tls_leaf_status sm_pki_leaf(struct sm_mediation *m)
{
    struct sm_core *core = m->s->core;
    int64_t at_us = 0;

    serve_waiting(core);
    enum sm_tls_leaf_status status = ask(m, &at_us);
    if (status != SM_TLS_LEAF_LATER)
        return status;
    if (core->mint_wait.length >= MINT_WAIT_MAX)
        return SM_TLS_LEAF_FAILED;
    wait_in(m, &core->mint_wait);
    sm_loop_arm(core->loop, &core->mint_timer, at_us);
    return SM_TLS_LEAF_LATER;
}
