/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An intercepted flow, phase by phase: a scripted front, a guest and an origin that speak TLS (plain OpenSSL), a real
 * core between them. What is looked at is the order: each effect after its line, and nothing at all where the line could
 * not be written.
 *
 * watch() is the eye. It runs before the end of each turn (when nothing of this turn may have been released) and after
 * it, moves what guest and origin have to say, and fails as soon as something is seen whose line is not in the file.
 */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../tls/pair.h"
#include "base/fd.h"
#include "base/link.h"
#include "base/log.h"

#define ID 1
#define NAME "name.test"

static const char request[] = "GET /a?b HTTP/1.1\r\nHost: " NAME "\r\nX: y\r\n\r\n";
static const char response[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/* What stands behind the flow; zeroed is a guest and an origin as they should be, with ALPN http/1.1. */
struct scene {
    const char *alpn;     /* of guest and origin, wire format; "": none */
    const char *san;      /* of the origin's certificate */
    bool unknown_issuer;  /* ... signed by nobody that is trusted */
    bool expired;         /* ... and long over */
    bool ask_certificate; /* the origin wants one of the client */
    bool guest_distrusts; /* the guest knows no CA */
    bool no_roots;        /* the supervisor has not answered yet */
    const char *other;    /* on the pair the guest names somebody else */
};

enum end { OPEN, FIN, RESET };

/* Text that has come out of TLS, or, of a burst, how much and in what records. */
struct heard {
    char text[8192];
    size_t len;
    bool bulk;
    size_t bytes;
    unsigned records, whole; /* with data, as the wire has them; ... as long as one may be */
};

struct story {
    struct fixture *f;
    struct scene scene;
    struct cert root, leaf;
    SSL_CTX *origin_ctx, *guest_ctx;
    SSL *origin, *guest;
    uint8_t hello[4096];
    size_t hello_len;
    int peer;   /* the origin's socket; -1: not accepted */
    bool mute;  /* the origin reads nothing */
    size_t raw; /* bytes of any kind that reached the origin */
    enum end peer_end;
    struct heard said;     /* by the guest, as the origin got it */
    struct heard answered; /* by the origin, as the guest got it */
    enum end guest_end;
    bool accepted, attached, aborted, refused;
    bool hold_pair; /* the guest does nothing with its pair */
    size_t word;    /* so many letters may go on under the allow line, before it is clear what they are */
};

static int alpn_as_offered(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                           unsigned len, void *data)
{
    *out = in + 1;
    *out_len = in[0];
    return SSL_TLSEXT_ERR_OK;
}

static struct cert certificate(const struct cert *issuer, const char *cn, const char *san, int64_t from_days,
                               int64_t until)
{
    int64_t today = (sm_clock_wall_us() / 1000000 - WALL_S) / DAY_S;
    struct cert_spec spec = {
        .cn = cn, .san = san, .ca = !issuer, .from_days = today + from_days, .until_days = today + until};
    return cert_make(issuer, &spec);
}

static void make_origin(struct story *s)
{
    struct cert stranger = certificate(NULL, "stranger", NULL, -10, 10);

    s->root = certificate(NULL, "root", NULL, -10, 10);
    s->leaf = certificate(s->scene.unknown_issuer ? &stranger : &s->root, "leaf",
                          s->scene.san ? s->scene.san : "DNS:" NAME, -9, s->scene.expired ? -2 : 9);
    cert_free(&stranger);
    s->origin_ctx = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate(s->origin_ctx, s->leaf.x), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(s->origin_ctx, s->leaf.key), 1);
    SSL_CTX_set_alpn_select_cb(s->origin_ctx, alpn_as_offered, NULL);
    SSL_CTX_set_num_tickets(s->origin_ctx, 0);
    if (s->scene.ask_certificate)
        SSL_CTX_set_verify(s->origin_ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    s->origin = raw_new(s->origin_ctx, true);
}

static void make_guest(struct story *s, const char *name)
{
    s->guest = raw_new(s->guest_ctx, false);
    assert_int_equal(SSL_set_tlsext_host_name(s->guest, name), 1);
    assert_int_equal(SSL_set1_host(s->guest, name), 1);
    if (s->scene.alpn[0])
        assert_int_equal(SSL_set_alpn_protos(s->guest, (const uint8_t *)s->scene.alpn, (unsigned)strlen(s->scene.alpn)),
                         0);
    assert_true(SSL_do_handshake(s->guest) < 0);
    int n = BIO_read(SSL_get_wbio(s->guest), s->hello, sizeof(s->hello));
    assert_true(n > 0 && (size_t)n < sizeof(s->hello));
    s->hello_len = (size_t)n;
}

static void give_roots(struct story *s)
{
    g_autofree char *pem = cert_pem(s->root.x);
    int fd = memfd_create("roots", MFD_CLOEXEC);

    assert_int_equal(sm_fd_write_all(fd, pem, strlen(pem)), 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    sm_pki_news(&s->f->core, fd);
    close(fd);
}

/* --- the eye */

static void keep(struct heard *h, const void *data, size_t len)
{
    if (h->bulk) {
        h->bytes += len;
        return;
    }
    assert_true(h->len + len < sizeof(h->text));
    memcpy(h->text + h->len, data, len);
    h->len += len;
}

/* What the wire has for the engine, and what the engine has for the wire. Returns the bytes that came. */
static size_t move(SSL *ssl, int fd, enum end *end)
{
    uint8_t buf[4096];
    size_t came = 0;
    ssize_t n;
    int m;

    while ((n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
        assert_int_equal(BIO_write(SSL_get_rbio(ssl), buf, (int)n), n);
        came += (size_t)n;
    }
    if (n == 0 && *end == OPEN)
        *end = FIN;
    if (n < 0 && errno != EAGAIN && *end == OPEN)
        *end = RESET;
    while ((m = BIO_read(SSL_get_wbio(ssl), buf, sizeof(buf))) > 0)
        (void)!send(fd, buf, (size_t)m, MSG_NOSIGNAL | MSG_DONTWAIT);
    return came;
}

static size_t speak(SSL *ssl, int fd, enum end *end, struct heard *h)
{
    char buf[4096];
    int n;
    size_t came = move(ssl, fd, end);

    while ((n = SSL_read(ssl, buf, sizeof(buf))) > 0)
        keep(h, buf, (size_t)n);
    (void)move(ssl, fd, end);
    return came;
}

static void watch_origin(struct story *s)
{
    struct pollfd p = {.fd = s->f->listener, .events = POLLIN};
    char peeked;

    if (s->peer < 0 && poll(&p, 1, 0) == 1) {
        s->peer = accept4(s->f->listener, NULL, NULL, SOCK_CLOEXEC);
        assert_true(audit_has(s->f, "egress_dial"));
    }
    if (s->peer < 0)
        return;
    if (s->mute)
        s->raw += recv(s->peer, &peeked, 1, MSG_DONTWAIT | MSG_PEEK) > 0;
    else
        s->raw += speak(s->origin, s->peer, &s->peer_end, &s->said);
    if (s->raw > 0)
        assert_true(audit_has(s->f, "egress_mitm_dial"));
    if (s->said.len > s->word)
        assert_true(audit_has(s->f, "egress_http_request") || audit_has(s->f, "egress_mitm_opaque"));
    if (s->said.len > 0)
        assert_true(audit_has(s->f, "egress_allow"));
}

static void on_attach(struct story *s)
{
    assert_false(s->attached);
    assert_int_equal(s->f->last.consumed, 0); /* the core reads it all again */
    if (s->scene.unknown_issuer && !sm_audit_healthy(s->f->core.audit))
        assert_int_equal(sm_tls_ca_minted(s->f->core.ca), 0); /* an alert, and its line is kept until there is room */
    else
        assert_true(audit_has(s->f, "egress_allow") || audit_has(s->f, "egress_mitm_upstream_error"));
    s->attached = true;
    if (s->scene.other) {
        SSL_free(s->guest);
        make_guest(s, s->scene.other);
    }
    if (!s->hold_pair)
        assert_int_equal(send(s->f->attached, s->hello, s->hello_len, MSG_NOSIGNAL), (ssize_t)s->hello_len);
}

static void watch_front(struct story *s)
{
    while (heard(s->f)) {
        assert_int_equal(s->f->last.id, ID);
        s->accepted |= s->f->last.type == SM_FLOW_ACCEPT;
        s->aborted |= s->f->last.type == SM_FLOW_ABORT;
        s->refused |= s->f->last.type == SM_FLOW_REFUSE;
        if (s->f->last.type == SM_FLOW_ATTACH)
            on_attach(s);
    }
}

static void watch(struct story *s)
{
    watch_origin(s);
    watch_front(s);
    if (s->attached && s->f->attached >= 0 && !s->hold_pair)
        (void)speak(s->guest, s->f->attached, &s->guest_end, &s->answered);
}

static bool before_turn_ends(void *data)
{
    struct story *s = data;

    watch(s);
    return sm_core_turn_end(&s->f->core);
}

static void turn(struct story *s)
{
    assert_int_equal(sm_loop_turn(s->f->core.loop, 10), 0);
    watch(s);
}

/** Turns until it is so. */
#define UNTIL(s, what)                                                                                                 \
    do {                                                                                                               \
        for (int turns_ = 0; turns_ < 500 && !(what); turns_++)                                                        \
            turn(s);                                                                                                   \
        assert_true(what);                                                                                             \
    } while (0)

/** A few turns in which nothing should happen. */
static void settle(struct story *s)
{
    for (int i = 0; i < 4; i++)
        turn(s);
}

/* --- a story begins and ends */

static struct story *story_new(struct scene scene)
{
    struct story *s = g_new0(struct story, 1);
    g_autoptr(GError) error = NULL;
    struct sm_core *core;

    s->scene = scene;
    if (!s->scene.alpn)
        s->scene.alpn = "\x08http/1.1";
    s->peer = -1;
    s->f = fixture_new("guarded", "\"127.0.0.1\"");
    core = &s->f->core;
    assert_true(sm_pki_make(core, -1, -1, &error) && sm_pki_open(core, &error));
    make_origin(s);
    s->guest_ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_verify(s->guest_ctx, SSL_VERIFY_PEER, NULL);
    if (!scene.guest_distrusts)
        assert_int_equal(X509_STORE_add_cert(SSL_CTX_get_cert_store(s->guest_ctx), core->ca->cert), 1);
    make_guest(s, NAME);
    core->roots_asked = true;
    if (!scene.no_roots)
        give_roots(s);
    sm_loop_set_turn_end(core->loop, before_turn_ends, s);
    return s;
}

static void story_free(struct story *s)
{
    harness_disk(false);
    SSL_free(s->guest);
    SSL_free(s->origin);
    SSL_CTX_free(s->guest_ctx);
    SSL_CTX_free(s->origin_ctx);
    cert_free(&s->root);
    cert_free(&s->leaf);
    sm_fd_close(&s->peer);
    fixture_free(s->f);
    g_free(s);
}

static unsigned flows(const struct story *s)
{
    return g_hash_table_size(s->f->core.sessions);
}

static struct sm_session *session(const struct story *s)
{
    uint64_t id = ID;
    return g_hash_table_lookup(s->f->core.sessions, &id);
}

static bool in_phase(const struct story *s, enum sm_mediate_phase phase)
{
    const struct sm_session *flow = session(s);
    return flow && flow->mediation && flow->mediation->phase == phase;
}

/* The events of the file, in order, with blanks between. */
static char *events(const struct story *s)
{
    g_autofree char *text = audit_text(s->f);
    GString *all = g_string_new(NULL);
    static const char key[] = "\"event\":\"";

    for (const char *p = text; (p = strstr(p, key));) {
        p += sizeof(key) - 1;
        g_string_append_printf(all, "%s%.*s", all->len ? " " : "", (int)strcspn(p, "\""), p);
    }
    return g_string_free(all, FALSE);
}

static void expect_events(const struct story *s, const char *want)
{
    g_autofree char *got = events(s);
    assert_string_equal(got, want);
}

static void expect_in(const struct story *s, const char *event, const char *text)
{
    g_autofree char *line = audit_line(s->f, event, 0);
    if (!line || !strstr(line, text))
        fail_msg("%s has no %s: %s", event, text, line ? line : "no such line");
}

/* --- the steps of the way */

static void until_accepted(struct story *s)
{
    open_tcp(s->f, ID, loopback, s->f->port);
    UNTIL(s, s->accepted && s->peer >= 0);
}

static void say_hello(struct story *s)
{
    bytes(s->f, ID, s->hello, s->hello_len);
}

/* The origin has got a hello and does not answer. */
static void until_upstream(struct story *s)
{
    s->mute = true;
    until_accepted(s);
    say_hello(s);
    UNTIL(s, s->raw > 0);
    assert_true(in_phase(s, SM_MEDIATE_UPSTREAM));
}

static void until_waiting_for_a_leaf(struct story *s)
{
    struct sm_tls_ca *ca = s->f->core.ca;
    int64_t now = sm_loop_now(s->f->core.loop) + INT64_C(60000000), at;
    enum sm_tls_leaf_status status = SM_TLS_LEAF_OK;

    for (unsigned i = 0; i <= SM_TLS_MINT_BURST && status == SM_TLS_LEAF_OK; i++) {
        g_autofree char *name = g_strdup_printf("n%u.test", i);
        X509 *leaf = NULL;
        status = sm_tls_ca_leaf(ca, name, NULL, now, sm_clock_wall_us(), &leaf, &at);
        X509_free(leaf);
    }
    assert_int_equal(status, SM_TLS_LEAF_LATER); /* for a minute, as seen from now */
    until_accepted(s);
    say_hello(s);
    UNTIL(s, in_phase(s, SM_MEDIATE_LEAF));
}

/* Handed over; the guest has not said a word on the pair. */
static void until_attached(struct story *s)
{
    s->hold_pair = true;
    until_accepted(s);
    say_hello(s);
    UNTIL(s, s->attached);
    assert_true(in_phase(s, SM_MEDIATE_GUEST));
}

static void until_secured(struct story *s)
{
    until_accepted(s);
    say_hello(s);
    UNTIL(s, SSL_is_init_finished(s->guest));
    UNTIL(s, in_phase(s, s->scene.alpn[0] ? SM_MEDIATE_RELAY : SM_MEDIATE_SNIFF));
}

static void guest_says(struct story *s, const char *text)
{
    assert_int_equal(SSL_write(s->guest, text, (int)strlen(text)), (int)strlen(text));
    (void)move(s->guest, s->f->attached, &s->guest_end);
}

static void origin_says(struct story *s, const char *text, size_t len)
{
    assert_int_equal(SSL_write(s->origin, text, (int)len), (int)len);
    (void)move(s->origin, s->peer, &s->peer_end);
}

/* A request is at the origin and waits for its answer. */
static void until_asked(struct story *s)
{
    until_secured(s);
    guest_says(s, request);
    UNTIL(s, s->said.len == sizeof(request) - 1);
}

/* Over: the guest has our last word and does not close. */
static void until_closing(struct story *s)
{
    until_accepted(s);
    say_hello(s);
    UNTIL(s, in_phase(s, SM_MEDIATE_CLOSING));
}

/* A request was answered 400 and both sides are shut; what the guest still sends is dropped. */
static void until_refused(struct story *s)
{
    until_secured(s);
    guest_says(s, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    UNTIL(s, s->guest_end != OPEN);
    assert_memory_equal(s->answered.text, "HTTP/1.1 400 ", 13);
    UNTIL(s, sm_timer_armed(&session(s)->timer));
}

static void guest_closes(struct story *s, enum sm_flow_why why)
{
    sm_fd_close(&s->f->attached);
    gone(s->f, ID, why);
}

/* --- the tests */

static void test_each_line_before_its_effect(void **state)
{
    struct story *s = story_new((struct scene){0});

    until_accepted(s);
    expect_events(s, "egress_dial");
    assert_int_equal(s->raw, 0); /* silence decides nothing */
    for (size_t i = 0; i < s->hello_len; i += 100) {
        assert_int_equal(s->raw, 0);
        bytes(s->f, ID, s->hello + i, SM_MIN((size_t)100, s->hello_len - i));
        turn(s);
    }
    UNTIL(s, s->attached);
    expect_events(s, "egress_dial egress_mitm_dial egress_allow");
    expect_in(s, "egress_mitm_dial", "\"host\":\"" NAME "\"");
    expect_in(s, "egress_allow", "\"mitm\":true");
    expect_in(s, "egress_allow", "\"alpn\":\"http/1.1\"");
    expect_in(s, "egress_allow", "\"tls_version\":\"TLSv1.3\"");
    UNTIL(s, SSL_is_init_finished(s->guest));
    assert_int_equal(SSL_get_verify_result(s->guest), X509_V_OK);
    g_autoptr(GString) head = g_string_new(request);
    for (size_t i = 0; i < head->len; i++) {
        char letter[2] = {head->str[i]};
        assert_int_equal(s->said.len, 0);
        guest_says(s, letter);
        turn(s);
    }
    UNTIL(s, s->said.len == sizeof(request) - 1);
    assert_memory_equal(s->said.text, request, s->said.len);
    expect_events(s, "egress_dial egress_mitm_dial egress_allow egress_http_request");
    expect_in(s, "egress_http_request", "\"path\":\"/a\"");
    origin_says(s, response, sizeof(response) - 2); /* not yet its end */
    UNTIL(s, s->answered.len == sizeof(response) - 2);
    assert_false(audit_has(s->f, "egress_http_response"));
    origin_says(s, response + sizeof(response) - 2, 1);
    UNTIL(s, s->answered.len == sizeof(response) - 1);
    assert_memory_equal(s->answered.text, response, s->answered.len);
    UNTIL(s, audit_has(s->f, "egress_http_response"));
    expect_in(s, "egress_http_response", "\"status\":200");
    expect_in(s, "egress_http_response", "\"bytes_down\":2");
    expect_in(s, "egress_http_response", "\"outcome\":\"done\"");
    (void)SSL_shutdown(s->guest);
    (void)move(s->guest, s->f->attached, &s->guest_end);
    guest_closes(s, SM_WHY_CLOSED);
    UNTIL(s, s->peer_end != OPEN);
    assert_int_equal(s->peer_end, FIN);
    assert_int_equal(SSL_get_shutdown(s->origin) & SSL_RECEIVED_SHUTDOWN, SSL_RECEIVED_SHUTDOWN);
    (void)SSL_shutdown(s->origin);
    (void)move(s->origin, s->peer, &s->peer_end);
    sm_fd_close(&s->peer);
    UNTIL(s, flows(s) == 0);
    expect_events(s, "egress_dial egress_mitm_dial egress_allow egress_http_request egress_http_response egress_close");
    story_free(s);
}

/* The guest gets an alert that fits, and nothing that a client could take for a server. */
static void expect_alert(struct story *s, uint8_t alert, const char *reason)
{
    uint8_t got[64];
    g_autofree char *word = g_strdup_printf("\"reason\":\"%s\"", reason);

    s->hold_pair = true;
    until_accepted(s);
    say_hello(s);
    UNTIL(s, s->attached);
    assert_int_equal(recv_turning(s->f, s->f->attached, got, sizeof(got)), 7);
    assert_memory_equal(got, ((const uint8_t[]){21, 3, 3, 0, 2, SSL3_AL_FATAL, alert}), 7);
    assert_int_equal(recv_turning(s->f, s->f->attached, got, sizeof(got)), 0);
    assert_int_equal(sm_tls_ca_minted(s->f->core.ca), 0);
    assert_int_equal(s->said.len, 0);
    UNTIL(s, s->peer_end != OPEN);
    guest_closes(s, SM_WHY_CLOSED);
    UNTIL(s, flows(s) == 0);
    expect_in(s, "egress_mitm_upstream_error", word);
    expect_in(s, "egress_mitm_upstream_error", "\"hint\":");
    expect_events(s, "egress_dial egress_mitm_dial egress_mitm_upstream_error egress_close");
    expect_in(s, "egress_close", word);
    story_free(s);
}

static void test_bad_certificates(void **state)
{
    expect_alert(story_new((struct scene){.unknown_issuer = true}), SSL_AD_UNKNOWN_CA, "certificate_unknown_issuer");
    expect_alert(story_new((struct scene){.expired = true}), SSL_AD_CERTIFICATE_EXPIRED, "certificate_expired");
    expect_alert(story_new((struct scene){.san = "DNS:other.test"}), SSL_AD_BAD_CERTIFICATE,
                 "certificate_name_mismatch");
}

static void test_client_certificate_demanded(void **state)
{
    struct story *s = story_new((struct scene){.ask_certificate = true});
    expect_alert(s, SSL_AD_CERTIFICATE_REQUIRED, "client_certificate_required");
}

static void test_guest_rejects_the_leaf(void **state)
{
    struct story *s = story_new((struct scene){.guest_distrusts = true});

    until_accepted(s);
    say_hello(s);
    UNTIL(s, audit_has(s->f, "egress_mitm_handshake_error"));
    expect_in(s, "egress_mitm_handshake_error", "\"reason\":\"peer_alert\"");
    expect_in(s, "egress_mitm_handshake_error", "\"alert\":\"unknown_ca\"");
    expect_in(s, "egress_mitm_handshake_error", "--egress-passthrough " NAME);
    UNTIL(s, s->peer_end != OPEN);
    assert_int_equal(s->said.len, 0);
    guest_closes(s, SM_WHY_CLOSED);
    UNTIL(s, flows(s) == 0);
    expect_events(s, "egress_dial egress_mitm_dial egress_allow egress_mitm_handshake_error egress_close");
    story_free(s);
}

static void test_another_name_on_the_pair(void **state)
{
    struct story *s = story_new((struct scene){.other = "other.test"});

    until_accepted(s);
    say_hello(s);
    UNTIL(s, audit_has(s->f, "egress_mitm_handshake_error"));
    expect_in(s, "egress_mitm_handshake_error", "\"reason\":\"hello_changed\"");
    UNTIL(s, s->guest_end != OPEN);
    assert_false(SSL_is_init_finished(s->guest));
    assert_null(SSL_get0_peer_certificate(s->guest)); /* it was not even shown a leaf */
    assert_int_equal(ERR_GET_REASON(ERR_peek_last_error()), SSL_R_TLSV1_UNRECOGNIZED_NAME);
    ERR_clear_error();
    assert_int_equal(s->said.len, 0);
    guest_closes(s, SM_WHY_CLOSED);
    UNTIL(s, flows(s) == 0);
    story_free(s);
}

/* --- what cannot be recorded */

/* @known: the core has found out already; otherwise it will when it writes the line. */
static void fill_disk(struct story *s, bool known)
{
    struct sm_audit_record r;

    harness_disk(true);
    if (!known)
        return;
    sm_audit_begin(&r, SM_AUDIT_EGRESS_ALLOW, sm_clock_wall_us());
    assert_true(sm_core_record(&s->f->core, &r));
    assert_false(sm_core_commit_now(&s->f->core));
    s->f->core.turn_failed = false;
    assert_false(sm_audit_healthy(s->f->core.audit));
}

/* When there is room again, facts that were kept come; what was begun has its end, once, and what could not be recorded
 * has not happened. */
static void expect_ends(struct story *s, const char *want)
{
    harness_disk(false);
    if (s->f->attached >= 0)
        guest_closes(s, SM_WHY_CLOSED);
    UNTIL(s, flows(s) == 0);
    if (!sm_audit_healthy(s->f->core.audit))
        assert_true(sm_audit_probe(s->f->core.audit, sm_clock_wall_us()));
    g_autofree char *got = events(s);
    g_autoptr(GString) rest = g_string_new(got);
    (void)g_string_replace(rest, "egress_log_resume", "", 0);
    (void)g_string_replace(rest, "  ", " ", 0);
    assert_string_equal(g_strstrip(rest->str), want);
    story_free(s);
}

static void test_unrecorded_dial(void **state)
{
    for (int known = 0; known < 2; known++) {
        struct story *s = story_new((struct scene){0});
        fill_disk(s, known);
        open_tcp(s->f, ID, loopback, s->f->port);
        UNTIL(s, s->refused);
        settle(s);
        assert_int_equal(s->peer, -1);
        expect_ends(s, "");
    }
}

static void test_unrecorded_mitm_dial(void **state)
{
    for (int known = 0; known < 2; known++) {
        struct story *s = story_new((struct scene){0});
        until_accepted(s);
        fill_disk(s, known);
        say_hello(s);
        UNTIL(s, s->aborted);
        UNTIL(s, s->peer_end != OPEN);
        assert_int_equal(s->raw, 0);
        assert_false(s->attached);
        expect_ends(s, "egress_dial egress_close");
    }
}

static void test_unrecorded_allow(void **state)
{
    for (int known = 0; known < 2; known++) {
        struct story *s = story_new((struct scene){0});
        until_upstream(s);
        fill_disk(s, known);
        s->mute = false;
        UNTIL(s, s->aborted);
        UNTIL(s, s->peer_end != OPEN);
        assert_true(SSL_is_init_finished(s->origin)); /* the line was all that was missing */
        assert_false(s->attached);
        expect_ends(s, "egress_dial egress_mitm_dial egress_close");
    }
}

static void test_unrecorded_request(void **state)
{
    for (int known = 0; known < 2; known++) {
        struct story *s = story_new((struct scene){0});
        until_secured(s);
        fill_disk(s, known);
        guest_says(s, request);
        UNTIL(s, s->guest_end != OPEN);
        assert_int_equal(s->said.len, 0);
        assert_non_null(strstr(s->answered.text, "HTTP/1.1 503 "));
        assert_non_null(strstr(s->answered.text, "\"not_recorded\""));
        expect_ends(s, "egress_dial egress_mitm_dial egress_allow egress_close");
    }
}

static void test_unrecorded_opaque(void **state)
{
    for (int known = 0; known < 2; known++) {
        struct story *s = story_new((struct scene){.alpn = ""});
        until_secured(s);
        fill_disk(s, known);
        guest_says(s, "\x01\x02\x03");
        UNTIL(s, s->guest_end != OPEN || s->aborted);
        UNTIL(s, s->peer_end != OPEN);
        assert_int_equal(s->said.len, 0);
        expect_ends(s, "egress_dial egress_mitm_dial egress_allow egress_close");
    }
}

/* A failure is a fact: it is not forgotten, and a full disk makes nobody a server. */
static void test_unrecorded_failures(void **state)
{
    for (int known = 0; known < 2; known++) {
        struct story *s = story_new((struct scene){.unknown_issuer = true});
        until_upstream(s);
        fill_disk(s, known);
        s->mute = false;
        UNTIL(s, s->aborted || s->guest_end != OPEN);
        assert_int_equal(sm_tls_ca_minted(s->f->core.ca), 0);
        expect_ends(s, "egress_dial egress_mitm_dial egress_mitm_upstream_error egress_close");
    }
    for (int known = 0; known < 2; known++) {
        struct story *s = story_new((struct scene){.guest_distrusts = true});
        until_attached(s);
        fill_disk(s, known);
        s->hold_pair = false;
        assert_int_equal(send(s->f->attached, s->hello, s->hello_len, MSG_NOSIGNAL), (ssize_t)s->hello_len);
        UNTIL(s, s->peer_end != OPEN);
        assert_int_equal(s->said.len, 0);
        expect_ends(s, "egress_dial egress_mitm_dial egress_allow egress_mitm_handshake_error egress_close");
    }
}

/* --- ends and silence, in each phase */

static const struct phase {
    const char *name;
    void (*reach)(struct story *s);
    struct scene scene;
    int64_t limit_us;    /* after which the core gives up; 0: it waits as long as guest and origin do */
    const char *gave_up; /* the line that says so, with reason tls_timeout */
    const char *ended;   /* why it is over in this phase already */
} phases[] = {
    {.name = "held", .reach = until_accepted},
    {.name = "upstream",
     .reach = until_upstream,
     .limit_us = SM_MEDIATE_UPSTREAM_US,
     .gave_up = "egress_mitm_upstream_error"},
    {.name = "leaf",
     .reach = until_waiting_for_a_leaf,
     .limit_us = SM_MEDIATE_UPSTREAM_US,
     .gave_up = "egress_mitm_upstream_error"},
    {.name = "guest",
     .reach = until_attached,
     .limit_us = SM_MEDIATE_GUEST_US,
     .gave_up = "egress_mitm_handshake_error"},
    {.name = "sniff", .reach = until_secured, .scene.alpn = ""},
    {.name = "relay", .reach = until_secured},
    {.name = "asked", .reach = until_asked},
    {.name = "refused", .reach = until_refused, .limit_us = SM_MEDIATE_GUEST_US, .ended = "http_host_repeated"},
    {.name = "closing",
     .reach = until_closing,
     .scene.guest_distrusts = true,
     .limit_us = SM_MEDIATE_CLOSING_US,
     .ended = "peer_alert"},
};

/* The time is over now. */
static void time_out(struct story *s, int64_t limit_us)
{
    struct sm_session *flow = session(s);
    struct sm_loop *loop = s->f->core.loop;

    assert_true(sm_timer_armed(&flow->timer));
    assert_in_range(flow->timer.due_us - sm_loop_now(loop), 1, limit_us); /* no longer than promised */
    sm_loop_arm(loop, &flow->timer, sm_loop_now(loop));
}

static unsigned count(const struct story *s, const char *event)
{
    unsigned n = 0;
    for (char *line; (line = audit_line(s->f, event, n)); n++)
        g_free(line);
    return n;
}

/* The guest resets, wherever the flow is: it is over at once, on all sides, with one close line that says so. */
static void test_guest_resets(void **state)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(phases); i++) {
        struct story *s = story_new(phases[i].scene);
        print_message("           %s\n", phases[i].name);
        phases[i].reach(s);
        size_t said = s->said.len;
        guest_closes(s, SM_WHY_GUEST_RST);
        UNTIL(s, flows(s) == 0);
        s->mute = false;
        UNTIL(s, s->peer_end != OPEN);
        assert_int_equal(s->said.len, said);
        assert_int_equal(count(s, "egress_close"), 1);
        g_autofree char *word = g_strdup_printf("\"reason\":\"%s\"", phases[i].ended ? phases[i].ended : "guest_reset");
        expect_in(s, "egress_close", word);
        assert_int_equal(count(s, "egress_http_response"), phases[i].reach == until_asked);
        assert_int_equal(s->f->core.mint_wait.length, 0);
        assert_int_equal(s->f->core.relayed_now, 0);
        story_free(s);
    }
}

/* It resets in the turn in which a line waits to be written: what the line would have released is not. */
static void test_guest_resets_while_a_line_waits(void **state)
{
    struct story *s = story_new((struct scene){0});

    until_accepted(s);
    say_hello(s);
    gone(s->f, ID, SM_WHY_GUEST_RST);
    UNTIL(s, flows(s) == 0);
    UNTIL(s, s->peer_end != OPEN);
    assert_int_equal(s->raw, 0);
    expect_events(s, "egress_dial egress_mitm_dial egress_close");
    story_free(s);
}

/* ... and the disk is full in that same turn: neither the dial nor its end is in the file. */
static void test_guest_resets_before_the_first_line(void **state)
{
    struct story *s = story_new((struct scene){0});

    fill_disk(s, false);
    open_tcp(s->f, ID, loopback, s->f->port);
    gone(s->f, ID, SM_WHY_GUEST_RST);
    UNTIL(s, !sm_audit_healthy(s->f->core.audit));
    assert_int_equal(s->peer, -1);
    expect_ends(s, "");
}

static void test_limits(void **state)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(phases); i++) {
        const struct phase *p = &phases[i];
        if (p->limit_us == 0)
            continue;
        struct story *s = story_new(p->scene);
        print_message("           %s\n", p->name);
        p->reach(s);
        s->hold_pair = true;
        bool was_attached = s->attached;
        time_out(s, p->limit_us);
        if (p->gave_up) {
            UNTIL(s, audit_has(s->f, p->gave_up));
            expect_in(s, p->gave_up, "\"reason\":\"tls_timeout\"");
            UNTIL(s, in_phase(s, SM_MEDIATE_CLOSING));
            assert_true(s->attached); /* so that it hears the alert */
            assert_int_equal(audit_has(s->f, "egress_allow"), was_attached);
            time_out(s, SM_MEDIATE_CLOSING_US); /* and it does not close */
        }
        UNTIL(s, flows(s) == 0);
        assert_true(s->aborted);
        s->mute = false;
        UNTIL(s, s->peer_end != OPEN);
        assert_int_equal(s->said.len, 0);
        assert_int_equal(count(s, "egress_close"), 1);
        story_free(s);
    }
}

/* Half a hello, and then silence. */
static void test_unfinished_hello(void **state)
{
    struct story *s = story_new((struct scene){0});

    until_accepted(s);
    bytes(s->f, ID, s->hello, s->hello_len / 2);
    UNTIL(s, session(s)->held.len > 0);
    sm_loop_disarm(s->f->core.loop, &session(s)->timer);
    session(s)->held_us -= SM_CORE_PARTIAL_US;
    sm_loop_arm(s->f->core.loop, &session(s)->timer, sm_loop_now(s->f->core.loop));
    UNTIL(s, s->aborted);
    assert_int_equal(s->raw, 0);
    expect_in(s, "egress_deny", "\"reason\":\"classification_timeout\"");
    expect_events(s, "egress_dial egress_deny egress_close");
    story_free(s);
}

static void reset_origin(struct story *s)
{
    struct linger now = {.l_onoff = 1};
    assert_int_equal(setsockopt(s->peer, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    sm_fd_close(&s->peer);
}

static void test_origin_resets(void **state)
{
    struct story *s = story_new((struct scene){0});
    until_accepted(s);
    reset_origin(s);
    UNTIL(s, s->aborted);
    UNTIL(s, audit_has(s->f, "egress_close"));
    expect_events(s, "egress_dial egress_close");
    story_free(s);

    s = story_new((struct scene){0});
    until_upstream(s);
    reset_origin(s);
    UNTIL(s, audit_has(s->f, "egress_mitm_upstream_error"));
    expect_in(s, "egress_mitm_upstream_error", "\"reason\":\"reset\"");
    UNTIL(s, s->attached); /* the alert */
    assert_false(audit_has(s->f, "egress_allow"));
    story_free(s);

    s = story_new((struct scene){0});
    until_upstream(s);
    assert_int_equal(shutdown(s->peer, SHUT_WR), 0);
    UNTIL(s, audit_has(s->f, "egress_mitm_upstream_error"));
    expect_in(s, "egress_mitm_upstream_error", "\"reason\":\"closed_in_handshake\"");
    UNTIL(s, s->attached);
    assert_false(audit_has(s->f, "egress_allow"));
    story_free(s);

    /* Between the two handshakes: the guest finds out behind its own. It has asked nothing, so nothing is missing. */
    s = story_new((struct scene){0});
    until_attached(s);
    reset_origin(s);
    s->hold_pair = false;
    assert_int_equal(send(s->f->attached, s->hello, s->hello_len, MSG_NOSIGNAL), (ssize_t)s->hello_len);
    UNTIL(s, s->guest_end != OPEN);
    assert_true(SSL_is_init_finished(s->guest));
    assert_int_equal(s->answered.len, 0);
    guest_closes(s, SM_WHY_CLOSED);
    UNTIL(s, flows(s) == 0);
    expect_events(s, "egress_dial egress_mitm_dial egress_allow egress_close");
    story_free(s);

    s = story_new((struct scene){0});
    until_asked(s);
    reset_origin(s);
    UNTIL(s, s->guest_end != OPEN);
    assert_int_equal(s->answered.len, 0);
    assert_int_equal(SSL_get_shutdown(s->guest) & SSL_RECEIVED_SHUTDOWN, 0); /* no server has said that it is done */
    UNTIL(s, audit_has(s->f, "egress_http_response"));
    expect_in(s, "egress_http_response", "\"outcome\":\"reset\"");
    guest_closes(s, SM_WHY_CLOSED);
    UNTIL(s, flows(s) == 0);
    assert_int_equal(count(s, "egress_close"), 1);
    story_free(s);

    /* In the middle of a response: no 502 can be said any more, and no close_notify may say that it was whole. */
    s = story_new((struct scene){0});
    until_asked(s);
    origin_says(s, response, sizeof(response) - 2);
    UNTIL(s, s->answered.len == sizeof(response) - 2);
    reset_origin(s);
    UNTIL(s, s->guest_end != OPEN);
    assert_int_equal(s->answered.len, sizeof(response) - 2);
    assert_int_equal(SSL_get_shutdown(s->guest) & SSL_RECEIVED_SHUTDOWN, 0);
    expect_in(s, "egress_http_response", "\"outcome\":\"reset\"");
    story_free(s);
}

/* --- roots and leaves are waited for */

static void test_roots_are_asked_for_once(void **state)
{
    struct story *s = story_new((struct scene){.no_roots = true});
    struct sm_core *core = &s->f->core;
    struct sm_link_msg m;
    int pair[2];

    assert_int_equal(sm_fd_seqpair(pair, true), 0);
    core->link.fd = pair[0];
    core->roots_asked = false;
    until_accepted(s);
    say_hello(s);
    UNTIL(s, in_phase(s, SM_MEDIATE_UPSTREAM));
    assert_int_equal(sm_link_recv(pair[1], &m), 1);
    assert_int_equal(m.verb, SM_LINK_WANT);
    assert_string_equal(m.text, "roots");
    settle(s);
    assert_int_equal(s->raw, 0); /* who cannot verify does not even say whom it looks for */
    assert_int_equal(sm_link_recv(pair[1], &m), -1);
    give_roots(s);
    UNTIL(s, s->attached);
    assert_int_equal(sm_link_recv(pair[1], &m), -1);
    core->link.fd = -1;
    close(pair[0]);
    close(pair[1]);
    story_free(s);
}

static void test_guest_gone_while_roots_are_awaited(void **state)
{
    struct story *s = story_new((struct scene){.no_roots = true});

    until_accepted(s);
    say_hello(s);
    UNTIL(s, in_phase(s, SM_MEDIATE_UPSTREAM));
    gone(s->f, ID, SM_WHY_GUEST_RST);
    UNTIL(s, flows(s) == 0);
    give_roots(s); /* nobody waits any more */
    settle(s);
    assert_int_equal(s->raw, 0);
    story_free(s);

    s = story_new((struct scene){.no_roots = true});
    until_accepted(s);
    say_hello(s);
    UNTIL(s, in_phase(s, SM_MEDIATE_UPSTREAM));
    time_out(s, SM_MEDIATE_UPSTREAM_US);
    UNTIL(s, audit_has(s->f, "egress_mitm_upstream_error"));
    expect_in(s, "egress_mitm_upstream_error", "\"reason\":\"tls_timeout\"");
    give_roots(s);
    settle(s);
    assert_int_equal(s->raw, 0);
    assert_false(audit_has(s->f, "egress_allow"));
    story_free(s);
}

/* --- without ALPN */

static void test_http_without_alpn(void **state)
{
    struct story *s = story_new((struct scene){.alpn = ""});

    until_secured(s);
    guest_says(s, "GET /a?b HT");
    settle(s);
    assert_int_equal(s->said.len, 0);
    guest_says(s, request + 11);
    UNTIL(s, s->said.len == sizeof(request) - 1);
    assert_memory_equal(s->said.text, request, s->said.len);
    assert_true(audit_has(s->f, "egress_http_request"));
    assert_false(audit_has(s->f, "egress_mitm_opaque"));
    story_free(s);
}

static void test_not_http(void **state)
{
    struct story *s = story_new((struct scene){.alpn = ""});

    until_secured(s);
    guest_says(s, "\x01\x02\x03");
    UNTIL(s, s->said.len == 3);
    assert_memory_equal(s->said.text, "\x01\x02\x03", 3);
    expect_in(s, "egress_mitm_opaque", "\"reason\":\"not_http\"");
    assert_false(audit_has(s->f, "egress_http_request"));
    origin_says(s, "\x04\x05", 2);
    UNTIL(s, s->answered.len == 2);
    story_free(s);
}

static void test_server_speaks_first(void **state)
{
    struct story *s = story_new((struct scene){.alpn = ""});

    until_secured(s);
    settle(s);
    assert_true(in_phase(s, SM_MEDIATE_SNIFF));
    origin_says(s, "220 hi\r\n", 8);
    UNTIL(s, s->answered.len == 8);
    assert_memory_equal(s->answered.text, "220 hi\r\n", 8);
    expect_in(s, "egress_mitm_opaque", "\"reason\":\"server_first\"");
    guest_says(s, "EHLO x\r\n");
    UNTIL(s, s->said.len == 8);
    story_free(s);
}

/* A few letters may be all that is said before an answer: after a moment they go on as what is no HTTP. */
static struct story *story_of_a_word(const char *word)
{
    struct story *s = story_new((struct scene){.alpn = ""});

    until_secured(s);
    s->word = strlen(word);
    guest_says(s, word);
    UNTIL(s, sm_timer_armed(&session(s)->timer));
    assert_int_equal(s->said.len, 0);
    time_out(s, SM_CORE_RELEASE_US);
    UNTIL(s, s->said.len == strlen(word));
    assert_false(audit_has(s->f, "egress_mitm_opaque"));
    assert_false(audit_has(s->f, "egress_http_request"));
    return s;
}

/* All that it says before it is answered. */
static void test_short_word(void **state)
{
    struct story *s = story_of_a_word("hi");

    origin_says(s, "hello", 5);
    UNTIL(s, s->answered.len == 5);
    expect_in(s, "egress_mitm_opaque", "\"reason\":\"not_http\"");
    guest_says(s, "bye");
    UNTIL(s, s->said.len == 5);
    assert_memory_equal(s->said.text, "hibye", 5);
    story_free(s);
}

/* The beginning of a request line: judged all the same, and the origin gets it once. */
static void test_request_letter_by_letter(void **state)
{
    struct story *s = story_of_a_word("G");

    assert_memory_equal(request, "G", 1);
    guest_says(s, request + 1);
    UNTIL(s, s->said.len == sizeof(request) - 1);
    assert_memory_equal(s->said.text, request, sizeof(request) - 1);
    expect_in(s, "egress_http_request", "\"method\":\"GET\"");
    assert_false(audit_has(s->f, "egress_mitm_opaque"));
    story_free(s);
}

static void test_another_protocol_by_alpn(void **state)
{
    struct story *s = story_new((struct scene){.alpn = "\x03xyz"});

    until_secured(s);
    expect_in(s, "egress_allow", "\"alpn\":\"xyz\"");
    expect_in(s, "egress_mitm_opaque", "\"reason\":\"alpn\"");
    guest_says(s, request); /* whatever it looks like */
    UNTIL(s, s->said.len == sizeof(request) - 1);
    assert_false(audit_has(s->f, "egress_http_request"));
    story_free(s);
}

/* --- bulk: few records, and long ones */

/** Plaintext of a record at its longest, and what is around it in TLS 1.3 (RFC 8446, 5.1, 5.2). */
#define RECORD_MAX 16384u
#define RECORD_HEAD 5u
#define RECORD_OVER (1u + 16u)
/** Less than a receive buffer takes at once. */
#define BURST (2 * RECORD_MAX)
#define BURSTS 16u

static void on_tls_message(int sent, int version, int type, const void *buf, size_t len, SSL *ssl, void *data)
{
    struct heard *h = data;
    const uint8_t *head = buf;

    if (sent || type != SSL3_RT_HEADER || !h->bulk)
        return;
    assert_int_equal(len, RECORD_HEAD);
    assert_int_equal(head[0], SSL3_RT_APPLICATION_DATA);
    h->records++;
    h->whole += ((unsigned)head[3] << 8 | head[4]) == RECORD_MAX + RECORD_OVER;
}

static void listen_to(struct heard *h, SSL *ssl)
{
    h->bulk = true;
    SSL_set_msg_callback(ssl, on_tls_message);
    SSL_set_msg_callback_arg(ssl, h);
}

/* What was written is there for the core before its next turn, all of it. */
static void send_all(struct story *s, SSL *ssl)
{
    static uint8_t buf[2 * BURST];
    int n = BIO_read(SSL_get_wbio(ssl), buf, sizeof(buf)), fd = ssl == s->origin ? s->peer : s->f->attached;

    assert_true(n > 0 && (size_t)n < sizeof(buf));
    assert_int_equal(send(fd, buf, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT), n);
    if (fd == s->peer)
        until_arrived(core_end(fd), (size_t)n);
}

/* A burst at a time, in records of so many bytes, one way. However they came, the other end gets whole ones: one may be
 * in two, since the first read after the head asks for less. */
static void pour(struct story *s, SSL *ssl, struct heard *h, size_t size)
{
    static const uint8_t zeros[RECORD_MAX];
    int big = 1 << 20;

    (void)setsockopt(ssl == s->origin ? s->peer : s->f->attached, SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
    for (unsigned i = 0; i < BURSTS; i++) {
        for (size_t sent = 0, n; sent < BURST; sent += n) {
            n = SM_MIN(size, BURST - sent);
            assert_int_equal(SSL_write(ssl, zeros, (int)n), (int)n);
        }
        send_all(s, ssl);
        UNTIL(s, h->bytes == (i + 1) * BURST);
    }
    assert_in_range(h->whole, BURSTS * 2 - 1, BURSTS * 2);
    assert_in_range(h->records, h->whole, BURSTS * 2 + 1);
}

static void bulk(const char *alpn, size_t size)
{
    struct story *s = story_new((struct scene){.alpn = alpn});
    g_autofree char *head = g_strdup_printf("HTTP/1.1 200 OK\r\nContent-Length: %u\r\n\r\n", BURST * BURSTS);
    g_autofree char *put =
        g_strdup_printf("PUT / HTTP/1.1\r\nHost: " NAME "\r\nContent-Length: %u\r\n\r\n", BURST * BURSTS);

    until_asked(s);
    origin_says(s, head, strlen(head));
    UNTIL(s, s->answered.len > 0);
    listen_to(&s->answered, s->guest);
    pour(s, s->origin, &s->answered, size);

    s->said.len = 0;
    guest_says(s, put);
    UNTIL(s, s->said.len == strlen(put));
    listen_to(&s->said, s->origin);
    pour(s, s->guest, &s->said, size);
    story_free(s);
}

static void test_bulk_in_whole_records(void **state)
{
    static const size_t sizes[] = {RECORD_MAX, 1000, 1400, 4096};

    (void)state;
    for (unsigned i = 0; i < SM_ARRAY_LEN(sizes); i++) {
        bulk("\x08http/1.1", sizes[i]);
        bulk("\x03xyz", sizes[i]); /* another protocol, passed on as it is */
    }
}

/* Frames of HTTP/2 (RFC 9113, 4.1 and 6) into TLS; where it goes from there is send_all()'s. */
static void h2_frame(SSL *ssl, uint8_t type, uint8_t flags, uint32_t stream, const void *data, size_t len)
{
    uint8_t head[9];
    struct sm_wr w = sm_wr_init(head, sizeof(head));

    sm_wr_u8(&w, (uint8_t)(len >> 16));
    sm_wr_u16(&w, (uint16_t)len);
    sm_wr_u8(&w, type);
    sm_wr_u8(&w, flags);
    sm_wr_u32(&w, stream);
    assert_false(w.bad);
    assert_int_equal(SSL_write(ssl, head, sizeof(head)), sizeof(head));
    if (len > 0)
        assert_int_equal(SSL_write(ssl, data, (int)len), (int)len);
}

/** In frames as long as one may be, within the first window of a stream (65,535). */
#define H2_FRAMES 2u
enum { H2_DATA = 0, H2_HEADERS = 1, H2_SETTINGS = 4, H2_END_STREAM = 1, H2_END_HEADERS = 4 };

static void h2_pour(struct story *s, SSL *ssl, struct heard *h)
{
    static const uint8_t zeros[RECORD_MAX];

    settle(s); /* what the two sides agree on has been said: what follows is the body's */
    listen_to(h, ssl == s->origin ? s->guest : s->origin);
    for (unsigned i = 0; i < H2_FRAMES; i++)
        h2_frame(ssl, H2_DATA, 0, 1, zeros, sizeof(zeros));
    send_all(s, ssl);
    UNTIL(s, h->bytes >= H2_FRAMES * (9 + RECORD_MAX));
    assert_in_range(h->whole, H2_FRAMES - 1, H2_FRAMES);
    assert_in_range(h->records, h->whole, H2_FRAMES + 1);
}

static struct story *h2_story(const char *head, uint8_t flags)
{
    struct story *s = story_new((struct scene){.alpn = "\x02h2"});
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    s->word = 256; /* a preface and settings, which say nothing of a request */
    until_secured(s);
    assert_int_equal(SSL_write(s->guest, preface, sizeof(preface) - 1), sizeof(preface) - 1);
    h2_frame(s->guest, H2_SETTINGS, 0, 0, NULL, 0);
    h2_frame(s->guest, H2_HEADERS, flags, 1, head, strlen(head));
    send_all(s, s->guest);
    h2_frame(s->origin, H2_SETTINGS, 0, 0, NULL, 0);
    send_all(s, s->origin);
    UNTIL(s, audit_has(s->f, "egress_http_request"));
    UNTIL(s, s->said.len > sizeof(preface) - 1 + strlen(head));
    return s;
}

static void test_h2_bulk_in_whole_records(void **state)
{
    /* GET or POST, https, /, and the authority, as RFC 7541 has them (appendix A) */
    struct story *s = h2_story("\x82\x87\x84\x01\x09" NAME, H2_END_HEADERS | H2_END_STREAM);

    (void)state;
    h2_frame(s->origin, H2_HEADERS, H2_END_HEADERS, 1, "\x88", 1); /* :status 200 */
    send_all(s, s->origin);
    h2_pour(s, s->origin, &s->answered);
    story_free(s);

    s = h2_story("\x83\x87\x84\x01\x09" NAME, H2_END_HEADERS);
    h2_pour(s, s->guest, &s->said);
    story_free(s);
}

/* Whatever became of the test: the next one can write. */
static int disk_again(void **state)
{
    harness_disk(false);
    return 0;
}

int main(void)
{
#define T(fn) cmocka_unit_test_teardown(fn, disk_again)
    const struct CMUnitTest tests[] = {
        T(test_each_line_before_its_effect),
        T(test_bad_certificates),
        T(test_client_certificate_demanded),
        T(test_guest_rejects_the_leaf),
        T(test_another_name_on_the_pair),
        T(test_unrecorded_dial),
        T(test_unrecorded_mitm_dial),
        T(test_unrecorded_allow),
        T(test_unrecorded_request),
        T(test_unrecorded_opaque),
        T(test_unrecorded_failures),
        T(test_guest_resets),
        T(test_guest_resets_while_a_line_waits),
        T(test_guest_resets_before_the_first_line),
        T(test_limits),
        T(test_unfinished_hello),
        T(test_origin_resets),
        T(test_roots_are_asked_for_once),
        T(test_guest_gone_while_roots_are_awaited),
        T(test_http_without_alpn),
        T(test_not_http),
        T(test_server_speaks_first),
        T(test_short_word),
        T(test_request_letter_by_letter),
        T(test_another_protocol_by_alpn),
        T(test_bulk_in_whole_records),
        T(test_h2_bulk_in_whole_records),
    };
    sm_log_set_level(SM_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
