/* SPDX-License-Identifier: BSD-3-Clause */
/* The guest's vsock on the command line; see vsock.h. */
#include "launch/vsock.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/error.h"
#include "nat/vsock.h"
#include "supervisor/supervisor.h"

/** Of a host name (RFC 1123, and RFC 1035 2.3.4). */
#define HOST_MAX 253

static bool port_number(const char *text, size_t len, uint64_t max, uint64_t *ret)
{
    g_autofree char *copy = g_strndup(text, len);
    guint64 n;

    if (!g_ascii_isdigit(copy[0]) || !g_ascii_string_to_unsigned(copy, 10, 1, max, &n, NULL))
        return false;
    *ret = n;
    return true;
}

/* HOST:PORT. host: without brackets; g_free(). */
static bool split_target(const char *text, char **ret_host, uint16_t *ret_port)
{
    static const char of_names[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    struct sm_endpoint e;
    const char *colon = strrchr(text, ':');
    uint64_t port;

    if (!colon || !port_number(colon + 1, strlen(colon + 1), UINT16_MAX, &port))
        return false;
    size_t len = (size_t)(colon - text);
    if (sm_endpoint_parse(text, 0, &e)) {
        char addr[SM_ADDR_STRLEN];
        *ret_host = g_strdup(sm_addr_format(&e.addr, addr));
    } else {
        if (len == 0 || len > HOST_MAX || strspn(text, of_names) != len || text[0] == '-')
            return false;
        *ret_host = g_strndup(text, len);
    }
    *ret_port = (uint16_t)port;
    return true;
}

bool sm_vsock_take_target(struct sm_vsock_options *v, const char *value, bool required, GError **error)
{
    const char *equals = strchr(value, '=');
    g_autofree char *host = NULL;
    uint16_t target_port;
    uint64_t port;

    if (!equals || !port_number(value, (size_t)(equals - value), SM_VSOCK_PORT_MAX, &port) ||
        !split_target(equals + 1, &host, &target_port)) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "not PORT=HOST:PORT: write the guest's vsock port and the target, as in 5000=127.0.0.1:8080");
        return false;
    }
    if (v->n_targets == SM_MEDIATION_TARGETS_MAX) {
        sm_error_set(error, SM_ERROR_LIMIT, "too many targets: at most %d", SM_MEDIATION_TARGETS_MAX);
        return false;
    }
    for (size_t i = 0; i < v->n_targets; i++) {
        if (v->targets[i].port == (uint32_t)port) {
            sm_error_set(error, SM_ERROR_INVALID, "vsock port %u leads to %s already", (unsigned)port,
                         v->targets[i].text);
            return false;
        }
    }
    v->targets[v->n_targets++] =
        (struct sm_mediation_target){.port = (uint32_t)port, .text = g_strdup(equals + 1), .required = required};
    return true;
}

bool sm_vsock_take_ca_port(struct sm_vsock_options *v, const char *value, GError **error)
{
    uint64_t port;

    if (!port_number(value, strlen(value), SM_VSOCK_PORT_MAX, &port)) {
        sm_error_set(error, SM_ERROR_INVALID, "not a vsock port: write 1 to %u", SM_VSOCK_PORT_MAX);
        return false;
    }
    v->ca_port = (uint32_t)port;
    return true;
}

bool sm_vsock_take_cid(struct sm_vsock_options *v, const char *value, GError **error)
{
    uint64_t cid;

    if (!port_number(value, strlen(value), SM_VSOCK_CID_MAX, &cid) || cid < SM_VSOCK_CID_MIN) {
        sm_error_set(error, SM_ERROR_INVALID, "not the CID of a guest: write %d to %u", SM_VSOCK_CID_MIN,
                     SM_VSOCK_CID_MAX);
        return false;
    }
    v->guest_cid = (uint32_t)cid;
    return true;
}

bool sm_vsock_take_path(const char *value, char **ret, GError **error)
{
    bool plain = value[0] != '\0' && g_utf8_validate(value, -1, NULL) && !g_str_has_suffix(value, "/");

    for (const char *p = value; *p; p++)
        plain = plain && (unsigned char)*p >= 0x20 && *p != 0x7f;
    if (!plain) {
        sm_error_set(error, SM_ERROR_INVALID, "not the path of a socket, in UTF-8 and without control characters");
        return false;
    }
    *ret = g_canonicalize_filename(value, NULL);
    return true;
}

uint32_t sm_vsock_ca_port(const struct sm_vsock_options *v)
{
    return v->ca_port ? v->ca_port : SM_VSOCK_CA_PORT;
}

uint32_t sm_vsock_cid(const struct sm_vsock_options *v)
{
    return v->guest_cid ? v->guest_cid : SM_VSOCK_CID_DEFAULT;
}

bool sm_vsock_given(const struct sm_vsock_options *v)
{
    return v->n_targets > 0 || v->hybrid || v->device || v->serial || v->ca_port || v->guest_cid;
}

static const char *flag_of(const struct sm_listen_spec *row)
{
    if (strcmp(row->tag, SM_LISTEN_TAG_VSOCK) == 0)
        return "vhost-user-vsock";
    return strcmp(row->tag, SM_LISTEN_TAG_SERIAL) == 0 ? "serial" : "vsock";
}

static bool check_rows(const struct sm_vsock_options *v, GError **error)
{
    g_autoptr(GArray) rows = g_array_new(FALSE, FALSE, sizeof(struct sm_listen_spec));
    g_autoptr(GPtrArray) texts = g_ptr_array_new_with_free_func(g_free);

    sm_vsock_listens(v, rows, texts);
    for (guint i = 0; i < rows->len; i++) {
        const struct sm_listen_spec *row = &g_array_index(rows, struct sm_listen_spec, i);
        if (!sm_listens_check(row, error)) {
            g_prefix_error(error, "--%s: %s: ", flag_of(row), row->path);
            return false;
        }
    }
    return true;
}

bool sm_vsock_check(const struct sm_vsock_options *v, bool isolated, bool guest_has_device, GPtrArray *warnings,
                    GError **error)
{
    if (isolated && sm_vsock_given(v)) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "--network isolated: without a network there is no process that could serve a vsock: leave "
                     "--mediation and --vsock flags out, or use --network user");
        return false;
    }
    for (size_t i = 0; i < v->n_targets; i++) {
        if (v->targets[i].port == sm_vsock_ca_port(v)) {
            sm_error_set(
                error, SM_ERROR_INVALID,
                "--mediation %u=%s: that is the port of the CA's certificate: take another one, or move it with "
                "--vsock-ca-port",
                v->targets[i].port, v->targets[i].text);
            return false;
        }
    }
    if (v->guest_cid && !v->device && !guest_has_device) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "--guest-cid: of a device that there is not: add --vhost-user-vsock, or leave it out");
        return false;
    }
    if (v->n_targets > 0 && !v->hybrid && !v->device && !guest_has_device)
        g_ptr_array_add(warnings, g_strdup("--mediation: the guest has no vsock to come by: add --vsock PATH, or "
                                           "--vhost-user-vsock PATH with attach"));
    return check_rows(v, error);
}

void sm_vsock_clear(struct sm_vsock_options *v)
{
    for (size_t i = 0; i < v->n_targets; i++)
        g_free(v->targets[i].text);
    v->n_targets = 0;
    g_clear_pointer(&v->hybrid, g_free);
    g_clear_pointer(&v->device, g_free);
    g_clear_pointer(&v->serial, g_free);
}

/* ---- names ---- */

static int resolve(struct sm_mediation_target *t)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    g_autofree char *host = NULL;
    uint16_t port;

    if (!split_target(t->text, &host, &port)) /* it was taken as one */
        return EAI_NONAME;
    g_autofree char *service = g_strdup_printf("%u", port);
    int rc = getaddrinfo(host, service, &hints, &found);
    if (rc != 0)
        return rc;
    t->n_addrs = 0;
    for (const struct addrinfo *a = found; a && t->n_addrs < SM_MEDIATION_ADDRS_MAX; a = a->ai_next) {
        struct sockaddr_storage ss = {0};
        memcpy(&ss, a->ai_addr, SM_MIN((size_t)a->ai_addrlen, sizeof(ss)));
        if (sm_endpoint_from_sockaddr(&ss, &t->addrs[t->n_addrs]))
            t->n_addrs++;
    }
    freeaddrinfo(found);
    return t->n_addrs > 0 ? 0 : EAI_NONAME;
}

bool sm_vsock_resolve(struct sm_vsock_options *v, GError **error)
{
    for (size_t i = 0; i < v->n_targets; i++) {
        struct sm_mediation_target *t = &v->targets[i];
        int rc = resolve(t);
        const char *why = rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc);
        if (rc != 0 && t->required) {
            sm_error_set(error, SM_ERROR_MISSING, "--mediation %u=%s: the name cannot be resolved: %s", t->port,
                         t->text, why);
            return false;
        }
        if (rc != 0)
            fprintf(stderr, "slirp-med: warning: --mediation-optional %u=%s: the name cannot be resolved: %s\n",
                    t->port, t->text, why);
    }
    return true;
}

/* ---- messages ---- */

json_t *sm_vsock_core_message(const struct sm_vsock_options *v)
{
    char text[SM_ENDPOINT_STRLEN];
    json_t *table = json_array();

    for (size_t i = 0; i < v->n_targets; i++) {
        const struct sm_mediation_target *t = &v->targets[i];
        json_t *addrs = json_array();
        for (size_t k = 0; k < t->n_addrs; k++)
            (void)json_array_append_new(addrs, json_string(sm_endpoint_format(&t->addrs[k], text)));
        (void)json_array_append_new(table, json_pack("{s:I, s:s, s:b, s:o}", "port", (json_int_t)t->port, "target",
                                                     t->text, "required", (int)t->required, "addrs", addrs));
    }
    return json_pack("{s:I, s:o}", "ca_port", (json_int_t)sm_vsock_ca_port(v), "mediation", table);
}

static json_t *text_or_null(const char *text)
{
    return text ? json_string(text) : json_null();
}

json_t *sm_vsock_facts(const struct sm_vsock_options *v)
{
    json_t *table = json_array();

    if (!sm_vsock_given(v)) {
        json_decref(table);
        return NULL;
    }
    for (size_t i = 0; i < v->n_targets; i++) {
        const struct sm_mediation_target *t = &v->targets[i];
        (void)json_array_append_new(table, json_pack("{s:I, s:s, s:b}", "port", (json_int_t)t->port, "target", t->text,
                                                     "required", (int)t->required));
    }
    return json_pack("{s:I, s:I, s:o, s:o, s:o, s:o}", "ca_port", (json_int_t)sm_vsock_ca_port(v), "guest_cid",
                     (json_int_t)sm_vsock_cid(v), "hybrid", text_or_null(v->hybrid), "vhost_user",
                     text_or_null(v->device), "serial", text_or_null(v->serial), "mediation", table);
}

/* ---- doors ---- */

static const char *keep(GPtrArray *texts, char *text)
{
    g_ptr_array_add(texts, text);
    return text;
}

static void add_hybrid(const struct sm_vsock_options *v, uint32_t port, GArray *rows, GPtrArray *texts)
{
    struct sm_listen_spec row = {.kind = SM_LISTEN_UNIX};

    row.path = keep(texts, g_strdup_printf("%s_%u", v->hybrid, port));
    row.tag = keep(texts, g_strdup_printf(SM_LISTEN_TAG_HYBRID "%u", port));
    g_array_append_val(rows, row);
}

void sm_vsock_listens(const struct sm_vsock_options *v, GArray *rows, GPtrArray *texts)
{
    if (v->hybrid) {
        add_hybrid(v, sm_vsock_ca_port(v), rows, texts);
        for (size_t i = 0; i < v->n_targets; i++)
            add_hybrid(v, v->targets[i].port, rows, texts);
    }
    if (v->device) {
        struct sm_listen_spec row = {
            .kind = SM_LISTEN_UNIX, .single = true, .path = v->device, .tag = SM_LISTEN_TAG_VSOCK};
        g_array_append_val(rows, row);
    }
    if (v->serial) {
        struct sm_listen_spec row = {.kind = SM_LISTEN_UNIX, .path = v->serial, .tag = SM_LISTEN_TAG_SERIAL};
        g_array_append_val(rows, row);
    }
}
