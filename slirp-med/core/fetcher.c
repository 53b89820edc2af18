/* SPDX-License-Identifier: BSD-3-Clause */
/* One HTTP request over a socket that was given; see fetcher.h. */
#include "core/fetcher.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <glib.h>
#include <jansson.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/secret.h"
#include "core/fetchmsg.h"
#include "cred/reason.h"
#include "sandbox/sandbox.h"

/** Wakes up this often at the latest: only so that a lost event is no endless wait; the time-out is libcurl's. */
#define POLL_MS 1000
/** Pieces of the body in one message. */
#define PIECE_MAX (16u << 10)

/* libcurl, as far as it is used. Typed by its own header, so that a wrong call does not compile. */
static struct {
    __typeof__(&curl_global_init) global_init;
    __typeof__(&curl_easy_init) easy_init;
    __typeof__(&curl_easy_setopt) easy_setopt;
    __typeof__(&curl_easy_getinfo) easy_getinfo;
    __typeof__(&curl_multi_init) multi_init;
    __typeof__(&curl_multi_add_handle) multi_add_handle;
    __typeof__(&curl_multi_perform) multi_perform;
    __typeof__(&curl_multi_poll) multi_poll;
    __typeof__(&curl_multi_info_read) multi_info_read;
    __typeof__(&curl_slist_append) slist_append;
} lib;

static const struct {
    const char *name;
    void *where;
} symbols[] = {
    {"curl_global_init", &lib.global_init},         {"curl_easy_init", &lib.easy_init},
    {"curl_easy_setopt", &lib.easy_setopt},         {"curl_easy_getinfo", &lib.easy_getinfo},
    {"curl_multi_init", &lib.multi_init},           {"curl_multi_add_handle", &lib.multi_add_handle},
    {"curl_multi_perform", &lib.multi_perform},     {"curl_multi_poll", &lib.multi_poll},
    {"curl_multi_info_read", &lib.multi_info_read}, {"curl_slist_append", &lib.slist_append},
};

struct fetch {
    CURL *easy;
    CURLM *multi;
    json_t *question;
    struct sm_secret *headers, *body; /* each with a NUL behind it */
    char *roots;
    size_t roots_len;
    int socket; /* -1: libcurl has it */
    uint8_t *got;
    size_t got_len;
    bool too_large;
};

static void send_msg(char kind, const void *data, size_t len)
{
    g_autofree char *msg = g_malloc(1 + len);

    msg[0] = kind;
    memcpy(msg + 1, data, len);
    (void)!write(SM_FETCH_FD, msg, 1 + len); /* a core that has gone needs no answer */
    sm_wipe(msg, 1 + len);
}

static int refuse(enum sm_cred_reason reason)
{
    const char *word = sm_cred_reason_name(reason);

    send_msg(SM_FETCH_F, word, strlen(word));
    return 1;
}

static bool load_library(void)
{
    void *handle = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);

    for (size_t i = 0; handle && i < SM_ARRAY_LEN(symbols); i++) {
        void *symbol = dlsym(handle, symbols[i].name);
        if (!symbol)
            return false;
        memcpy(symbols[i].where, &symbol, sizeof(symbol));
    }
    return handle != NULL;
}

/* One message of the core: its kind must be this one. */
static struct sm_secret *receive(char kind, int *fds, size_t n_wanted)
{
    static char buf[SM_FETCH_MSG_MAX + 2];
    int got[SM_FD_MSG_MAX];
    size_t n = 0;
    ssize_t len = sm_fd_recv(SM_FETCH_FD, buf, sizeof(buf) - 1, got, &n);

    for (size_t i = 0; len > 0 && i < n; i++) {
        if (i < n_wanted && n == n_wanted)
            fds[i] = got[i];
        else
            sm_fd_close(&got[i]);
    }
    if (len < 1 || buf[0] != kind || n != n_wanted)
        return NULL;
    buf[len] = '\0';
    return sm_secret_new(buf + 1, (size_t)len); /* the NUL is taken along, and the source is wiped */
}

static const char *text(const struct sm_secret *secret, size_t *ret_len)
{
    size_t len;
    const uint8_t *p = sm_secret_bytes(secret, &len);

    *ret_len = len - 1;
    return (const char *)p;
}

static bool take_question(struct fetch *f)
{
    int fds[2] = {-1, -1};
    size_t len;
    struct sm_secret *q = receive(SM_FETCH_Q, fds, 2);
    const char *url, *method, *host, *addr;
    int port, timeout_ms;

    f->socket = fds[0];
    sm_autofd roots = fds[1];
    if (!q)
        return false;
    const char *json = text(q, &len);
    f->question = json_loadb(json, len, JSON_REJECT_DUPLICATES, NULL);
    sm_secret_free(q);
    if (!f->question ||
        json_unpack_ex(f->question, NULL, JSON_STRICT, "{s:s, s:s, s:s, s:i, s:s, s:i}", "url", &url, "method", &method,
                       "host", &host, "port", &port, "addr", &addr, "timeout_ms", &timeout_ms) < 0)
        return false;
    f->roots = sm_fd_read_all(roots, SM_FETCH_ROOTS_MAX, &f->roots_len, NULL);
    f->headers = receive(SM_FETCH_H, NULL, 0);
    f->body = f->headers ? receive(SM_FETCH_D, NULL, 0) : NULL;
    return f->roots && f->body;
}

/* libcurl asks for a socket once, and gets the one there is. */
static curl_socket_t on_open_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *addr)
{
    struct fetch *f = ctx;

    (void)purpose;
    (void)addr;
    return f->socket < 0 ? CURL_SOCKET_BAD : sm_steal_fd(&f->socket);
}

static int on_socket(void *ctx, curl_socket_t fd, curlsocktype purpose)
{
    (void)ctx;
    (void)fd;
    (void)purpose;
    return CURL_SOCKOPT_ALREADY_CONNECTED;
}

static size_t on_body(char *data, size_t size, size_t n, void *ctx)
{
    struct fetch *f = ctx;
    size_t len = size * n, fits = SM_MIN(len, SM_FETCH_BODY_MAX + 1 - f->got_len);

    memcpy(f->got + f->got_len, data, fits);
    f->got_len += fits;
    f->too_large = f->got_len > SM_FETCH_BODY_MAX;
    return f->too_large ? 0 : len;
}

static struct curl_slist *header_list(struct fetch *f)
{
    struct curl_slist *list = lib.slist_append(NULL, "Expect:");
    size_t len;
    const char *at = text(f->headers, &len);

    for (const char *end; list && (end = strchr(at, '\n')); at = end + 1) {
        g_autofree char *line = g_strndup(at, (size_t)(end - at));
        list = lib.slist_append(list, line);
        sm_wipe(line, (size_t)(end - at));
    }
    return list;
}

static bool set_up(struct fetch *f)
{
    const char *url = json_string_value(json_object_get(f->question, "url"));
    const char *host = json_string_value(json_object_get(f->question, "host"));
    const char *addr = json_string_value(json_object_get(f->question, "addr"));
    long port = (long)json_integer_value(json_object_get(f->question, "port"));
    bool post = g_strcmp0(json_string_value(json_object_get(f->question, "method")), "POST") == 0;
    g_autofree char *where = g_strdup_printf("%s:%ld:%s", host, port, addr);
    bool literal = g_strcmp0(host, addr) == 0;
    struct curl_slist *resolve = lib.slist_append(NULL, where), *headers = header_list(f);
    struct curl_blob roots = {.data = f->roots, .len = f->roots_len, .flags = CURL_BLOB_NOCOPY};
    size_t body_len;
    const char *body = text(f->body, &body_len);
    bool ok = resolve && headers;
#define SET(option, value) ok = ok && lib.easy_setopt(f->easy, option, value) == CURLE_OK
    SET(CURLOPT_URL, url);
    if (!literal)
        SET(CURLOPT_RESOLVE, resolve); /* there is no resolver here */
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_PROTOCOLS_STR, "https,http");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_CAINFO, NULL);
    SET(CURLOPT_CAPATH, NULL);
    SET(CURLOPT_CAINFO_BLOB, &roots);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_TIMEOUT_MS, (long)json_integer_value(json_object_get(f->question, "timeout_ms")));
    SET(CURLOPT_USERAGENT, "slirp-med/" SM_VERSION);
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    SET(CURLOPT_OPENSOCKETDATA, f);
    SET(CURLOPT_SOCKOPTFUNCTION, on_socket);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, f);
    if (post) {
        SET(CURLOPT_POST, 1L);
        SET(CURLOPT_POSTFIELDSIZE, (long)body_len);
        SET(CURLOPT_POSTFIELDS, body);
    }
#undef SET
    return ok && lib.multi_add_handle(f->multi, f->easy) == CURLM_OK;
}

static enum sm_cred_reason reason_of(CURLcode code)
{
    if (code == CURLE_OPERATION_TIMEDOUT)
        return SM_CRED_ENDPOINT_TIMEOUT;
    if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CONNECT_ERROR || code == CURLE_SSL_CERTPROBLEM ||
        code == CURLE_SSL_CIPHER || code == CURLE_SSL_CACERT_BADFILE || code == CURLE_SSL_ISSUER_ERROR)
        return SM_CRED_ENDPOINT_TLS;
    return SM_CRED_ENDPOINT_UNREACHABLE;
}

/* Until libcurl is done. False: the core has gone. */
static bool perform(struct fetch *f, CURLcode *ret)
{
    for (;;) {
        int running = 0, left = 0;
        struct curl_waitfd core = {.fd = SM_FETCH_FD, .events = CURL_WAIT_POLLIN};
        if (lib.multi_perform(f->multi, &running) != CURLM_OK)
            return false;
        const CURLMsg *msg = lib.multi_info_read(f->multi, &left);
        if (msg && msg->msg == CURLMSG_DONE) {
            *ret = msg->data.result;
            return true;
        }
        if (running == 0 || lib.multi_poll(f->multi, &core, 1, POLL_MS, NULL) != CURLM_OK || core.revents != 0)
            return false; /* the core has nothing more to say: this is its end */
    }
}

static void answer(struct fetch *f)
{
    long status = 0;
    const char *type = NULL;

    (void)lib.easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
    (void)lib.easy_getinfo(f->easy, CURLINFO_CONTENT_TYPE, &type);
    g_autofree char *valid = g_utf8_make_valid(type ? type : "", -1);
    json_t *head = json_pack("{s:i, s:s}", "status", (int)status, "content_type", valid);
    char *dumped = head ? json_dumps(head, JSON_COMPACT) : NULL;
    if (!dumped || strlen(dumped) > SM_FETCH_MSG_MAX) {
        (void)refuse(SM_CRED_ENDPOINT_UNREACHABLE);
    } else {
        send_msg(SM_FETCH_S, dumped, strlen(dumped));
        for (size_t at = 0; at < f->got_len; at += PIECE_MAX)
            send_msg(SM_FETCH_D, f->got + at, SM_MIN(f->got_len - at, (size_t)PIECE_MAX));
        send_msg(SM_FETCH_E, "", 0);
    }
    free(dumped);
    json_decref(head);
}

int sm_fetcher_main(int argc, char **argv)
{
    static const int keep[] = {SM_FETCH_FD};
    /* The other end of descriptor 3 is the core's: our life hangs on the parent-death signal alone. */
    const struct sm_sandbox_spec sandbox = {.keep_fds = keep, .n_keep_fds = SM_ARRAY_LEN(keep), .parent_fd = -1};
    static struct fetch f; /* one a process */
    CURLcode code = CURLE_OK;
    struct tm tm;

    (void)argc;
    (void)argv;
    if (sm_sandbox_early(SM_ROLE_FETCH, &sandbox, NULL) < 0)
        return 1;
    /* All that reads files comes before the sandbox: the library, OpenSSL's configuration, /etc/localtime, jansson's seed. */
    json_object_seed(0);
    tzset();
    (void)gmtime_r(&(const time_t){0}, &tm);
    if (!load_library())
        return refuse(SM_CRED_FETCH_HELPER);
    if (lib.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || !(f.easy = lib.easy_init()) ||
        !(f.multi = lib.multi_init()))
        return refuse(SM_CRED_FETCH_HELPER);
    f.got = g_malloc(SM_FETCH_BODY_MAX + 1);
    f.socket = -1;
    if (sm_sandbox_enter(SM_ROLE_FETCH, &sandbox, NULL) < 0)
        return refuse(SM_CRED_FETCH_HELPER);
    if (!take_question(&f) || !set_up(&f))
        return refuse(SM_CRED_FETCH_HELPER);
    bool done = perform(&f, &code);
    /* A body that was cut off is for the reader to judge: it is one byte over what may be. */
    if (done && (code == CURLE_OK || f.too_large))
        answer(&f);
    else if (done)
        (void)refuse(reason_of(code));
    sm_wipe(f.got, SM_FETCH_BODY_MAX + 1);
    sm_secret_free(f.headers);
    sm_secret_free(f.body);
    return 0; /* the rest goes with the process */
}
