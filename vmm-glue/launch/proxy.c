/* SPDX-License-Identifier: BSD-3-Clause */
/* The flags of `slirp-med proxy`, its listening socket, and telling that all is ready; see proxy.h. */
#include "launch/proxy.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/secret.h"
#include "cred/ref.h"
#include "launch/attach.h"
#include "launch/options.h"
#include "paths/proxy_config.h"
#include "supervisor/refs.h"

/* ---- flags ---- */

bool sm_proxy_take_listen(struct sm_proxy_options *p, const char *value, GError **error)
{
    const char *colon = strrchr(value, ':');

    /* The port is written out: 0 is any free one, which is printed. */
    if (!colon || colon[1] == '\0' || strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
        !sm_endpoint_parse(value, 0, &p->listen) || (p->listen.addr.family == SM_FAMILY_V6 && value[0] != '[')) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "not an address to listen on: write ADDRESS:PORT, for instance 172.20.0.1:3128");
        return false;
    }
    p->listens = true;
    return true;
}

bool sm_proxy_take_client(struct sm_proxy_options *p, const char *value, GError **error)
{
    if (p->n_clients == SM_PROXY_CLIENTS_MAX) {
        sm_error_set(error, SM_ERROR_INVALID, "too many: at most %d networks", SM_PROXY_CLIENTS_MAX);
        return false;
    }
    if (!sm_prefix_parse(value, &p->clients[p->n_clients])) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "not a network: write ADDRESS/BITS with zeros behind the prefix, for instance 172.20.0.0/16");
        return false;
    }
    p->n_clients++;
    return true;
}

bool sm_proxy_take_auth(struct sm_proxy_options *p, const char *value, GError **error)
{
    g_autofree char *cwd = g_get_current_dir();
    struct sm_ref ref = {0};

    if (!sm_ref_parse(value, strlen(value), cwd, &ref, error))
        return false;
    bool ok = ref.kind != SM_REF_VAULT;
    if (ok)
        p->auth = g_strdup(ref.text);
    else
        sm_error_set(error, SM_ERROR_INVALID, "cannot be Vault's: write env:NAME or file:PATH");
    sm_ref_clear(&ref);
    return ok;
}

bool sm_proxy_take_route(struct sm_proxy_options *p, const char *value, GError **error)
{
    return sm_routes_add(&p->routes, value, error);
}

static bool is_any(const struct sm_addr *a)
{
    static const struct sm_addr any4 = {.family = SM_FAMILY_V4}, any6 = {.family = SM_FAMILY_V6};

    return sm_addr_equal(a, &any4) || sm_addr_equal(a, &any6);
}

bool sm_proxy_check(const struct sm_proxy_options *p, GError **error)
{
    if (!p->listens) {
        sm_error_set(error, SM_ERROR_INVALID, "no address: say where clients come to with --listen ADDRESS:PORT");
        return false;
    }
    if (is_any(&p->listen.addr) && p->n_clients == 0) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "--listen: every address of this machine: say who may use the proxy with --client-net");
        return false;
    }
    return true;
}

void sm_proxy_clear(struct sm_proxy_options *p)
{
    g_clear_pointer(&p->auth, g_free);
}

/* ---- the socket ---- */

/* Bits of a netmask: those that are set, from the first on. */
static uint8_t mask_len(const struct sockaddr *mask)
{
    const uint8_t *bytes;
    size_t n;
    uint8_t len = 0;

    if (mask->sa_family == AF_INET) {
        bytes = (const uint8_t *)&((const struct sockaddr_in *)(const void *)mask)->sin_addr;
        n = 4;
    } else {
        bytes = (const uint8_t *)&((const struct sockaddr_in6 *)(const void *)mask)->sin6_addr;
        n = 16;
    }
    while (len < 8 * n && (bytes[len / 8] >> (7 - len % 8) & 1))
        len++;
    return len;
}

/* The network of the interface that has the address. */
static bool find_network(const struct sm_addr *addr, struct sm_prefix *ret)
{
    struct ifaddrs *all = NULL;
    bool found = false;

    if (getifaddrs(&all) < 0)
        return false;
    for (const struct ifaddrs *i = all; i && !found; i = i->ifa_next) {
        struct sockaddr_storage ss = {0};
        struct sm_endpoint e;
        if (!i->ifa_addr || !i->ifa_netmask ||
            (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6))
            continue;
        size_t len = i->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        memcpy(&ss, i->ifa_addr, len);
        if (!sm_endpoint_from_sockaddr(&ss, &e))
            continue;
        ret->len = mask_len(i->ifa_netmask);
        /* 127.0.0.2 is of loopback's network though no interface is said to have it. */
        ret->addr = e.addr;
        found = sm_addr_equal(&e.addr, addr) ||
                ((i->ifa_flags & IFF_LOOPBACK) && sm_prefix_contains(ret, addr) && ret->len > 0);
    }
    freeifaddrs(all);
    if (!found)
        return false;
    unsigned n = ret->addr.family == SM_FAMILY_V4 ? 4 : 16;
    for (unsigned i = 0; i < n; i++) { /* the host's part is zero */
        unsigned keep = ret->len > 8 * i ? SM_MIN(ret->len - 8 * i, 8u) : 0;
        ret->addr.bytes[i] &= (uint8_t)(0xff00u >> keep);
    }
    return true;
}

int sm_proxy_open(struct sm_proxy_options *p, GError **error)
{
    struct sockaddr_storage ss;
    socklen_t len = sm_endpoint_to_sockaddr(&p->listen, &ss);
    char text[SM_ENDPOINT_STRLEN];
    int on = 1;
    sm_autofd fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    /* An accepted socket has the listener's options: the front can set none. */
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
        (ss.ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0) ||
        bind(fd, (struct sockaddr *)&ss, len) < 0 || listen(fd, SM_PROXY_BACKLOG) < 0) {
        int err = errno;
        sm_error_set(error,
                     err == EADDRINUSE || err == EADDRNOTAVAIL || err == EACCES ? SM_ERROR_INVALID : SM_ERROR_SYSTEM,
                     "--listen=%s: %s", sm_endpoint_format(&p->listen, text), strerror(err));
        return -1;
    }
    len = sizeof(ss);
    if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0 || !sm_endpoint_from_sockaddr(&ss, &p->listen)) {
        sm_error_set_errno(error, errno, "--listen: getsockname");
        return -1;
    }
    if (p->n_clients == 0) {
        if (!find_network(&p->listen.addr, &p->clients[0])) {
            sm_error_set(error, SM_ERROR_INVALID,
                         "--listen=%s: no interface has this address: say who may use the proxy with --client-net",
                         sm_endpoint_format(&p->listen, text));
            return -1;
        }
        p->n_clients = 1;
    }
    return sm_steal_fd(&fd);
}

/* ---- messages ---- */

static json_t *clients_json(const struct sm_proxy_options *p)
{
    char text[SM_PREFIX_STRLEN];
    json_t *a = json_array();

    for (size_t i = 0; i < p->n_clients; i++)
        (void)json_array_append_new(a, json_string(sm_prefix_format(&p->clients[i], text)));
    return a;
}

static json_t *routes_json(const struct sm_proxy_options *p)
{
    json_t *a = json_array();

    for (size_t i = 0; i < p->routes.n; i++) {
        g_autofree char *text = sm_route_format(&p->routes.item[i]);
        (void)json_array_append_new(a, json_string(text));
    }
    return a;
}

json_t *sm_proxy_core_message(const struct sm_proxy_options *p)
{
    char text[SM_ENDPOINT_STRLEN];

    return json_pack("{s:s, s:o, s:o}", "listen", sm_endpoint_format(&p->listen, text), "clients", clients_json(p),
                     "routes", routes_json(p));
}

json_t *sm_proxy_facts(const struct sm_proxy_options *p)
{
    json_t *o = sm_proxy_core_message(p);

    (void)json_object_set_new(o, "auth", json_boolean(p->auth != NULL));
    return o;
}

/* user:password, without the line end that an editor put behind it. */
static struct sm_secret *read_auth(const char *text, GError **error)
{
    struct sm_ref ref = {0};
    const char *why = NULL;
    size_t len = 0;

    if (!sm_ref_parse(text, strlen(text), NULL, &ref, error))
        return NULL;
    struct sm_ref_source source = {.env = ref.kind == SM_REF_ENV, .what = ref.kind == SM_REF_ENV ? ref.name : ref.path};
    sm_autofd fd = sm_ref_open(&source, &why);
    char *data = fd < 0 ? NULL : sm_fd_read_all(fd, SM_REF_BYTES_MAX, &len, NULL);
    sm_ref_clear(&ref);
    while (data && len > 0 && (data[len - 1] == '\n' || data[len - 1] == '\r'))
        len--;
    bool ok = data && len <= SM_PROXY_AUTH_MAX && memchr(data, ':', len) && !memchr(data, '\n', len) &&
              !memchr(data, '\0', len);
    struct sm_secret *secret = ok ? sm_secret_new(data, len) : NULL;
    if (data && !ok)
        sm_wipe(data, len);
    g_free(data);
    if (!ok) /* nothing of it is in the text */
        sm_error_set(error, SM_ERROR_INVALID, "--proxy-auth=%s: %s", text,
                     fd < 0 ? why : "it has to hold USER:PASSWORD, on one line");
    return secret;
}

static char *hex(const uint8_t *p, size_t len)
{
    GString *s = g_string_new(NULL);

    for (size_t i = 0; i < len; i++)
        g_string_append_printf(s, "%02x", p[i]);
    return g_string_free(s, FALSE);
}

static json_t *auth_json(const char *text, GError **error)
{
    uint8_t salt[SM_PROXY_SALT_LEN], digest[SM_PROXY_DIGEST_LEN];
    size_t len;
    struct sm_secret *secret = read_auth(text, error);

    if (!secret)
        return NULL;
    if (getrandom(salt, sizeof(salt), 0) != (ssize_t)sizeof(salt)) {
        sm_error_set_errno(error, errno, "getrandom");
        sm_secret_free(secret);
        return NULL;
    }
    const uint8_t *bytes = sm_secret_bytes(secret, &len);
    char *token = g_base64_encode(bytes, len);
    sm_proxy_digest(salt, token, strlen(token), digest);
    sm_wipe(token, strlen(token));
    g_free(token);
    sm_secret_free(secret);
    g_autofree char *salt_text = hex(salt, sizeof(salt));
    g_autofree char *digest_text = hex(digest, sizeof(digest));
    return json_pack("{s:s, s:s}", "salt", salt_text, "digest", digest_text);
}

char *sm_proxy_front_message(const struct sm_run_options *o, GError **error)
{
    json_auto_t *m = json_pack("{s:s, s:o}", "workspace", o->name, "clients", clients_json(&o->proxy));

    if (o->proxy.auth) {
        json_t *auth = auth_json(o->proxy.auth, error);
        if (!auth)
            return NULL;
        (void)json_object_set_new(m, "auth", auth);
    }
    char *dumped = json_dumps(m, JSON_COMPACT);
    char *text = g_strdup(dumped);
    free(dumped);
    return text;
}

/* ---- telling ---- */

void sm_proxy_running(void *data)
{
    const struct sm_attach_tell *tell = data;
    char address[SM_ENDPOINT_STRLEN];
    const char *where = sm_endpoint_format(&tell->o->proxy.listen, address);

    if (tell->o->json) {
        json_auto_t *o = sm_proxy_facts(&tell->o->proxy);
        (void)json_object_set_new(o, "workspace", json_string(tell->o->name));
        (void)json_object_set_new(o, "ca_certificate", tell->ca ? json_string(tell->ca) : json_null());
        char *text = json_dumps(o, JSON_COMPACT);
        puts(text ? text : "null");
        free(text);
    } else {
        printf("HTTP_PROXY=http://%s\nHTTPS_PROXY=http://%s\n", where, where);
        if (tell->ca)
            printf("# CA certificate  %s\n", tell->ca);
    }
    (void)fflush(stdout); /* nobody need read it */
    sm_attach_tell_ready(tell, "proxy", where);
}
