/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The engines with the core's sandbox closed around them: reading a key of each kind for the first time, signing, and
 * JSON need no file, no device and no system call that is not on the core's list. A child does it all; a call too many
 * kills it with SIGSYS.
 */
#include "engine.h"
#include "keys.h"

#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cred/cache.h"
#include "cred/jwt.h"
#include "cred/token.h"
#include "cred/vault.h"
#include "sandbox/sandbox.h"
#include "tls/internal.h"

/* cmocka's assertions longjmp in the parent's image: in the child a step that fails is an exit status. */
#define MUST(n, e)                                                                                                     \
    do {                                                                                                               \
        if (!(e))                                                                                                      \
            _exit(n);                                                                                                  \
    } while (0)

static void sign_and_ask(int step, enum sm_jwt_alg alg, const char *pem_text)
{
    struct sm_secret *pem = secret(pem_text);
    json_t *claims = json_pack("{s:s}", "iss", "me");
    struct sm_cred_request r;
    struct sm_jwt_key *key = sm_jwt_key_load(alg, pem, NULL);
    MUST(step, key);
    struct sm_secret *token = sm_jwt_sign(key, "k", claims, 1893456000000000, 300, NULL);
    MUST(step + 1, token);
    MUST(step + 2, sm_token_assertion_request("https://a.example/", token, &r, NULL));
    sm_cred_request_clear(&r);
    sm_secret_free(token);
    sm_jwt_key_free(key);
    json_decref(claims);
    sm_secret_free(pem);
}

static void all_of_it(void)
{
    static const char body[] = "{\"access_token\":\"abc\",\"data\":{\"key\":\"k\"}}";
    const struct sm_cred_response answer = {200, "application/json", (const uint8_t *)body, sizeof(body) - 1};
    struct sm_secret *s = secret("s");
    struct sm_cred_request r;
    struct sm_token token;
    struct sm_vault_value value;
    GError *error = NULL;

    sign_and_ask(10, SM_JWT_RS256, RSA_PKCS1);
    sign_and_ask(20, SM_JWT_RS256, RSA_PKCS8);
    sign_and_ask(30, SM_JWT_ES256, EC_SEC1);
    sign_and_ask(40, SM_JWT_ES256, EC_PKCS8);
    sign_and_ask(50, SM_JWT_EDDSA, ED25519);
    MUST(60, !sm_jwt_key_load(SM_JWT_RS256, s, &error) && error);
    g_clear_error(&error);
    const struct sm_token_client client = {
        .token_url = "https://a.example/", .client_id = s, .client_secret = s, .auth = SM_TOKEN_AUTH_BASIC};
    MUST(61, sm_token_client_request(&client, &r, NULL));
    sm_cred_request_clear(&r);
    MUST(62, sm_token_read(&answer, SM_TOKEN_FIELD, 0, &token) == SM_CRED_OK);
    MUST(63, sm_vault_read(&answer, "key", &value) == SM_CRED_OK);
    sm_secret_free(token.token);
    sm_secret_free(value.secret);
    sm_secret_free(s);
}

static int in_sandbox(void (*what)(void))
{
    int pair[2], status;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        GError *error = NULL;
        const struct sm_sandbox_spec spec = {.keep_fds = &pair[1], .n_keep_fds = 1, .parent_fd = pair[1]};
        (void)close(pair[0]);
        json_decref(json_object()); /* jansson's seed, as the core's configuration draws it */
        if (sm_sandbox_early(SM_ROLE_CORE, &spec, &error) < 0 || !sm_tls_library_init(&error) ||
            sm_sandbox_enter(SM_ROLE_CORE, &spec, &error) < 0) {
            (void)fprintf(stderr, "%s\n", error->message);
            _exit(2);
        }
        what();
        _exit(0);
    }
    (void)close(pair[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    (void)close(pair[0]);
    return status;
}

static void test_engines(void **state)
{
    (void)state;
    int status = in_sandbox(all_of_it);
    if (status != 0)
        fail_msg("the child: signal %d, step %d", WIFSIGNALED(status) ? WTERMSIG(status) : 0,
                 WIFEXITED(status) ? WEXITSTATUS(status) : 0);
}

static void read_a_file(void)
{
    FILE *f = fopen("/etc/hostname", "r");
    _exit(f ? 0 : 1);
}

/* The sandbox is what the other ran in: a file is still out of reach. */
static void test_control(void **state)
{
    (void)state;
    int status = in_sandbox(read_a_file);
    assert_true((WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) ||
                (WIFEXITED(status) && WEXITSTATUS(status) == 1)); /* refused: a sanitizer build */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_engines), cmocka_unit_test(test_control)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
