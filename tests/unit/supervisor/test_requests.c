/* SPDX-License-Identifier: BSD-3-Clause */
/* The request table against a second, independently written statement of what is allowed: all verbs, roles, states and attachments. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "supervisor/requests.h"

/** "role state verb attachments": t a text, f a descriptor, - nothing; q: only when an answer is owed. Everything else is refused. */
static const char *const allowed[] = {
    "core started CA t",         "core stopping CA t",         "core started READY -",     "core stopping READY -",
    "front started READY -",     "front stopping READY -",     "guest started TAP -",      "guest started TAP f",
    "guest stopping TAP -",      "guest stopping TAP f",       "guest running EXIT t",     "guest stopping EXIT t",
    "core serving WANT t",       "core stopping WANT t",       "core serving FETCH f",     "core stopping FETCH f",
    "core serving STATUS tq",    "core stopping STATUS tq",    "front serving STATUS tq",  "front stopping STATUS tq",
    "core started FAIL -",       "core serving FAIL -",        "core running FAIL -",      "core stopping FAIL -",
    "core started FAIL t",       "core serving FAIL t",        "core running FAIL t",      "core stopping FAIL t",
    "front started FAIL -",      "front serving FAIL -",       "front running FAIL -",     "front stopping FAIL -",
    "front started FAIL t",      "front serving FAIL t",       "front running FAIL t",     "front stopping FAIL t",
    "guest started FAIL -",      "guest serving FAIL -",       "guest running FAIL -",     "guest stopping FAIL -",
    "guest started FAIL t",      "guest serving FAIL t",       "guest running FAIL t",     "guest stopping FAIL t",
    "core serving LISTENERS -q", "core stopping LISTENERS -q", "core serving INGRESS -q",  "core stopping INGRESS -q",
    "core serving POLICY -q",    "core stopping POLICY -q",    "core serving POLICY tq",   "core stopping POLICY tq",
    "front serving PORT t",      "front stopping PORT t",      "core serving SNAPSHOT -q", "core stopping SNAPSHOT -q",
    "core serving SNAPSHOT tq",  "core stopping SNAPSHOT tq",  "guest started TAP t",      "guest started TAP tf",
    "guest stopping TAP t",      "guest stopping TAP tf",
};

static bool is_allowed(const char *role, const char *state, const char *verb, const char *attached, bool owed)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(allowed); i++) {
        g_auto(GStrv) w = g_strsplit(allowed[i], " ", 4);
        bool needs_owed = g_str_has_suffix(w[3], "q");
        g_autofree char *with = g_strndup(w[3], strlen(w[3]) - (needs_owed ? 1 : 0));
        if (strcmp(w[0], role) == 0 && strcmp(w[1], state) == 0 && strcmp(w[2], verb) == 0 &&
            strcmp(with, attached) == 0 && (!needs_owed || owed))
            return true;
    }
    return false;
}

static void test_every_combination(void **state)
{
    static struct sm_link_msg msg;
    unsigned found = 0;

    for (unsigned role = 0; role < SM_CHILDREN; role++) {
        for (unsigned st = 0; st < SM_CHILD_STATES; st++) {
            for (unsigned verb = 0; verb < SM_LINK_VERBS; verb++) {
                for (unsigned with = 0; with < 8; with++) {
                    const char *attached = (const char *[]){"-", "t", "f", "tf"}[with & 3];
                    enum sm_request_op op = SM_REQUEST_OPS;
                    const char *why = NULL;
                    msg.verb = (enum sm_link_verb)verb;
                    strcpy(msg.text, with & 1 ? "x" : "");
                    msg.fd = with & 2 ? 9 : -1;
                    bool ok =
                        sm_request_find((enum sm_child_role)role, (enum sm_child_state)st, &msg, with >> 2, &op, &why);
                    bool want = is_allowed(sm_child_role_name((enum sm_child_role)role),
                                           sm_child_state_name((enum sm_child_state)st), sm_link_verb_name(msg.verb),
                                           attached, with >> 2);
                    if (ok != want)
                        fail_msg("%s in %s says %s with %s: %s", sm_child_role_name((enum sm_child_role)role),
                                 sm_child_state_name((enum sm_child_state)st), sm_link_verb_name(msg.verb), attached,
                                 ok ? "taken" : "refused");
                    if (ok) {
                        assert_true(op < SM_REQUEST_OPS);
                        found++;
                    } else {
                        assert_non_null(why);
                        assert_int_equal(op, SM_REQUEST_OPS);
                    }
                }
            }
        }
    }
    assert_true(found > SM_ARRAY_LEN(allowed));
}

/** What only the supervisor says is never taken from a child. */
static void test_supervisors_own_verbs(void **state)
{
    static const enum sm_link_verb ours[] = {SM_LINK_TAKE, SM_LINK_GO, SM_LINK_SIGNAL, SM_LINK_GIVE, SM_LINK_STOP};
    static struct sm_link_msg msg = {.fd = -1};
    enum sm_request_op op;
    const char *why;

    for (size_t i = 0; i < SM_ARRAY_LEN(ours); i++) {
        for (unsigned role = 0; role < SM_CHILDREN; role++) {
            for (unsigned st = 0; st < SM_CHILD_STATES; st++) {
                msg.verb = ours[i];
                assert_false(sm_request_find((enum sm_child_role)role, (enum sm_child_state)st, &msg, 1, &op, &why));
                assert_string_equal(why, "is not its to say");
            }
        }
    }
}

static void test_exit_status(void **state)
{
    static const char *const good[] = {"0", "7", "42", "255", "007"};
    static const int values[] = {0, 7, 42, 255, 7};
    static const char *const wrong[] = {"", " 1", "1 ", "+1", "-1", "256", "0x1", "1.0", "0001", "99999999999", "a"};
    int n = -1;

    for (size_t i = 0; i < SM_ARRAY_LEN(good); i++) {
        assert_true(sm_request_exit_status(good[i], &n));
        assert_int_equal(n, values[i]);
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(wrong); i++) {
        n = -1;
        assert_false(sm_request_exit_status(wrong[i], &n));
        assert_int_equal(n, -1);
    }
}

static void test_keeper_pid(void **state)
{
    static const char *const wrong[] = {"", "0", "1", "-2", " 2", "2 ", "0x2", "99999999", "2a", "\n2"};
    pid_t pid = -1;

    for (size_t i = 0; i < SM_ARRAY_LEN(wrong); i++) {
        assert_false(sm_request_keeper_pid(wrong[i], &pid));
        assert_int_equal(pid, -1);
    }
    assert_true(sm_request_keeper_pid("2", &pid));
    assert_int_equal(pid, 2);
    assert_true(sm_request_keeper_pid("4194304", &pid));
    assert_int_equal(pid, 4194304);
}

static void test_open_roles(void **state)
{
    static const char *const wrong[] = {"",           "Audit",   "audit ",   " audit",    "/etc/passwd",
                                        "audit/../x", "policy",  "ref",      "ref:",      "ref:x",
                                        "ref: 1",     "ref:-1",  "ref:1024", "ref:00001", "ref:1x",
                                        "refs:1",     "audit:1", "roots:0",  "ref:1:2"};
    enum sm_open_role role;
    unsigned index;

    for (unsigned i = 0; i < SM_OPEN_ROLES; i++) {
        if (i == SM_OPEN_REF)
            continue;
        assert_true(sm_open_role_parse(sm_open_role_name((enum sm_open_role)i), &role, &index));
        assert_int_equal(role, i);
        assert_int_equal(index, 0);
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(wrong); i++)
        assert_false(sm_open_role_parse(wrong[i], &role, &index));
    assert_true(sm_open_role_parse("ref:0", &role, &index));
    assert_int_equal(role, SM_OPEN_REF);
    assert_int_equal(index, 0);
    assert_true(sm_open_role_parse("ref:1023", &role, &index));
    assert_int_equal(index, 1023);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_combination), cmocka_unit_test(test_supervisors_own_verbs),
        cmocka_unit_test(test_exit_status),       cmocka_unit_test(test_keeper_pid),
        cmocka_unit_test(test_open_roles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
