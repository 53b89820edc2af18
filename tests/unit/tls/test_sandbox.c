/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * All of TLS with the core's sandbox closed around it: after sm_tls_library_init() OpenSSL and the C library need no
 * file, no device and no system call that is not on the core's list. A child does what the core does in a life; a call
 * too many kills it with SIGSYS.
 */
#include "pair.h"

#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "sandbox/sandbox.h"

/* cmocka's assertions longjmp in the parent's image: in the child a step that fails is an exit status. */
#define MUST(n, e)                                                                                                     \
    do {                                                                                                               \
        if (!(e))                                                                                                      \
            _exit(n);                                                                                                  \
    } while (0)

static void all_of_it(int version)
{
    static const uint8_t h2[] = "\x02h2";
    GError *error = NULL;
    int64_t at;
    X509 *leaf = NULL;
    struct link link;
    char buf[64], fp[65];
    size_t n;

    struct sm_tls_ca *ca = sm_tls_ca_new("w", WALL, &error);
    MUST(10, ca);
    sm_tls_ca_fingerprint(ca, fp);
    struct sm_secret *key = sm_tls_ca_key_pem(ca);
    MUST(11, key);
    struct sm_tls_ca *again = sm_tls_ca_load(sm_tls_ca_cert_pem(ca), key, &error);
    MUST(12, again);
    struct sm_tls_upstream *u = sm_tls_upstream_new(&error);
    struct sm_tls_guest *g = sm_tls_guest_new(ca, &error);
    MUST(13, u && g);
    MUST(14, sm_tls_upstream_add_roots(u, sm_tls_ca_cert_pem(ca), strlen(sm_tls_ca_cert_pem(ca))) == 1);
    MUST(15, sm_tls_ca_leaf(ca, "www.example", NULL, 0, WALL, &leaf, &at) == SM_TLS_LEAF_OK);

    /*
     * Ours with ours: the newest version. Then a refusal: another name, an expired certificate, whose texts are
     * looked up.
     */
    for (unsigned i = 0; i < 3; i++) {
        link_init(&link);
        const struct sm_tls_wire cw = client_wire(&link), sw = server_wire(&link);
        const struct sm_tls_peer peer = {.name = i == 1 ? "other.example" : "www.example",
                                         .port = 443,
                                         .send_sni = true,
                                         .alpn = h2,
                                         .alpn_len = 3,
                                         .wall_us = i == 2 ? WALL + 100 * DAY_S * 1000000 : WALL};
        struct sm_tls_conn *c = sm_tls_conn_new_upstream(u, &peer, &cw, &error);
        struct sm_tls_conn *s = sm_tls_conn_new_guest(g, peer.name, leaf, h2 + 1, 2, &sw, &error);
        enum sm_tls_io a = SM_TLS_IO_WANT_READ, b = a;
        for (unsigned k = 0; k < 10; k++) {
            a = sm_tls_conn_handshake(c);
            b = sm_tls_conn_handshake(s);
        }
        if (i == 0) {
            MUST(20, a == SM_TLS_IO_OK && b == SM_TLS_IO_OK);
            MUST(21, sm_tls_conn_write(c, "hello", 5, &n) == SM_TLS_IO_OK && sm_tls_conn_flush(c) == SM_TLS_IO_OK);
            MUST(22, sm_tls_conn_read(s, buf, sizeof(buf), &n) == SM_TLS_IO_OK && n == 5);
            MUST(23, sm_tls_conn_shutdown(c) == SM_TLS_IO_OK);
            MUST(24, sm_tls_conn_read(s, buf, sizeof(buf), &n) == SM_TLS_IO_EOF);
            link.down.write_err = EPIPE;
            (void)sm_tls_conn_write(s, "x", 1, &n);
            MUST(25, sm_tls_conn_flush(s) == SM_TLS_IO_ERROR && strlen(sm_tls_conn_error(s)) > 0);
        } else {
            MUST(26, sm_tls_conn_failure(c) == (i == 1 ? SM_TLS_FAILURE_NAME_MISMATCH : SM_TLS_FAILURE_EXPIRED));
            MUST(27, sm_tls_conn_failure(s) == SM_TLS_FAILURE_ALERT && sm_tls_conn_alert(s));
        }
        sm_tls_conn_free(c);
        sm_tls_conn_free(s);
        link_clear(&link);
    }

    /*
     * A server of the given version with RSA, twice: the second time it is resumed. Its end is plain OpenSSL, in the
     * same sandbox.
     */
    struct cert root = cert_make(NULL, &(struct cert_spec){.cn = "root", .rsa_bits = 2048, .ca = true});
    struct cert rsa = cert_make(&root, &(struct cert_spec){.cn = "x", .san = "DNS:rsa.example", .rsa_bits = 2048});
    char *pem = cert_pem(root.x);
    MUST(30, sm_tls_upstream_add_roots(u, pem, strlen(pem)) == 1);
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    MUST(31, SSL_CTX_set_max_proto_version(ctx, version) == 1 && SSL_CTX_use_certificate(ctx, rsa.x) == 1 &&
                 SSL_CTX_use_PrivateKey(ctx, rsa.key) == 1);
    for (unsigned i = 0; i < 2; i++) {
        link_init(&link);
        const struct sm_tls_wire cw = client_wire(&link);
        const struct sm_tls_peer peer = {.name = "rsa.example", .port = 443, .send_sni = true, .wall_us = WALL};
        struct sm_tls_conn *c = sm_tls_conn_new_upstream(u, &peer, &cw, &error);
        SSL *ssl = raw_new(ctx, true);
        enum sm_tls_io a = SM_TLS_IO_WANT_READ;
        for (unsigned k = 0; k < 10; k++) {
            a = sm_tls_conn_handshake(c);
            raw_move(ssl, &link.up, &link.down);
            (void)SSL_do_handshake(ssl);
            raw_move(ssl, &link.up, &link.down);
        }
        MUST(32, a == SM_TLS_IO_OK);
        MUST(33, sm_tls_conn_read(c, buf, sizeof(buf), &n) == SM_TLS_IO_WANT_READ);
        MUST(34, sm_tls_conn_resumed(c) == (i == 1));
        sm_tls_conn_free(c);
        SSL_free(ssl);
        link_clear(&link);
    }
    SSL_CTX_free(ctx);
    g_free(pem);
    cert_free(&rsa);
    cert_free(&root);
    X509_free(leaf);
    sm_tls_upstream_free(u);
    sm_tls_guest_free(g);
    sm_tls_ca_free(again);
    sm_tls_ca_free(ca);
    sm_secret_free(key);
}

static void run(int version)
{
    int pair[2], status;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        GError *error = NULL;
        const struct sm_sandbox_spec spec = {.keep_fds = &pair[1], .n_keep_fds = 1, .parent_fd = pair[1]};
        (void)close(pair[0]);
        if (sm_sandbox_early(SM_ROLE_CORE, &spec, &error) < 0 || !sm_tls_library_init(&error) ||
            sm_sandbox_enter(SM_ROLE_CORE, &spec, &error) < 0) {
            (void)fprintf(stderr, "%s\n", error->message);
            _exit(2);
        }
        all_of_it(version);
        _exit(0);
    }
    (void)close(pair[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    (void)close(pair[0]);
    if (status != 0)
        fail_msg("the child: signal %d, step %d", WIFSIGNALED(status) ? WTERMSIG(status) : 0,
                 WIFEXITED(status) ? WEXITSTATUS(status) : 0);
}

static void test_tls13(void **state)
{
    run(TLS1_3_VERSION);
}

static void test_tls12(void **state)
{
    run(TLS1_2_VERSION);
}

/* The sandbox is what the others ran in: a file is still out of reach. */
static void test_control(void **state)
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        GError *error = NULL;
        const struct sm_sandbox_spec spec = {.parent_fd = -1};
        if (!sm_tls_library_init(&error) || sm_sandbox_enter(SM_ROLE_CORE, &spec, &error) < 0)
            _exit(2);
        FILE *f = fopen("/etc/ssl/openssl.cnf", "r");
        _exit(f ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true((WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) ||
                (WIFEXITED(status) && WEXITSTATUS(status) == 1)); /* refused: a sanitizer build */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tls13),
        cmocka_unit_test(test_tls12),
        cmocka_unit_test(test_control),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
