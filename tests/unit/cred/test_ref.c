/* SPDX-License-Identifier: BSD-3-Clause */
/* References: what is one, its canonical form, and that what is none never comes back in an error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "cred/ref.h"

static void good(void **state)
{
    static const struct {
        const char *text, *folder;
        enum sm_ref_kind kind;
        const char *canonical, *name, *path, *field;
    } rows[] = {
        {"env:OPENAI_API_KEY", NULL, SM_REF_ENV, "env:OPENAI_API_KEY", "OPENAI_API_KEY", NULL, NULL},
        {"env:_x9", "/f", SM_REF_ENV, "env:_x9", "_x9", NULL, NULL},
        {"file:/etc/key", NULL, SM_REF_FILE, "file:/etc/key", NULL, "/etc/key", NULL},
        {"file:key", "/home/u", SM_REF_FILE, "file:/home/u/key", NULL, "/home/u/key", NULL},
        {"file:./a/../key", "/home/u", SM_REF_FILE, "file:/home/u/key", NULL, "/home/u/key", NULL},
        {"file:../../../../key", "/home/u", SM_REF_FILE, "file:/key", NULL, "/key", NULL},
        {"file:/a b/sm\xc3\xb6r#x", NULL, SM_REF_FILE, "file:/a b/sm\xc3\xb6r#x", NULL, "/a b/sm\xc3\xb6r#x", NULL},
        {"vault:secret/openai#key", NULL, SM_REF_VAULT, "vault:secret/openai#key", NULL, "secret/openai", "key"},
        {"vault:kv/team/a.b_c-1#api-key", "/f", SM_REF_VAULT, "vault:kv/team/a.b_c-1#api-key", NULL, "kv/team/a.b_c-1",
         "api-key"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        sm_cleanup(sm_ref_clear) struct sm_ref ref = {0}, again = {0};
        g_autoptr(GError) error = NULL;
        if (!sm_ref_parse(rows[i].text, strlen(rows[i].text), rows[i].folder, &ref, &error))
            fail_msg("row %zu: %s", i, error->message);
        assert_int_equal(ref.kind, rows[i].kind);
        assert_string_equal(ref.text, rows[i].canonical);
        assert_int_equal(g_strcmp0(ref.name, rows[i].name), 0);
        assert_int_equal(g_strcmp0(ref.path, rows[i].path), 0);
        assert_int_equal(g_strcmp0(ref.field, rows[i].field), 0);
        assert_true(g_str_has_prefix(ref.text, sm_ref_kind_name(ref.kind)));
        assert_true(sm_ref_parse(ref.text, strlen(ref.text), NULL, &again, NULL));
        assert_string_equal(again.text, ref.text);
    }
}

/** No run of four bytes of the value that follows the scheme (or of a value without one) may be in the error. */
static void refuse(const char *text, size_t len, const char *folder, const char *says)
{
    struct sm_ref ref = {0};
    g_autoptr(GError) error = NULL;

    if (sm_ref_parse(text, len, folder, &ref, &error))
        fail_msg("'%s' was taken", text);
    assert_null(ref.text); /* untouched */
    assert_true(g_error_matches(error, SM_ERROR, SM_ERROR_INVALID));
    if (!strstr(error->message, says))
        fail_msg("'%s': '%s' lacks '%s'", text, error->message, says);
    const char *secret = memchr(text, ':', len) ? (const char *)memchr(text, ':', len) + 1 : text;
    for (size_t left = len - (size_t)(secret - text); left >= 4; left--, secret++) {
        g_autofree char *run = g_strndup(secret, 4);
        if (strlen(run) == 4 && strstr(error->message, run))
            fail_msg("'%s' has '%s' of a refused value", error->message, run);
    }
}

static void bad(void **state)
{
    static const struct {
        const char *text, *folder, *says;
    } rows[] = {
        {"", NULL, "empty"},
        {"sk-ant-api03-CANARYqx71", NULL, "not a reference"},
        {"ghp_CANARYqx71ZZ99", "/f", "not a reference"},
        {"-----BEGIN PRIVATE KEY-----\nQx71Zw99", NULL, "control character"},
        {"Env:QX71ZW99", NULL, "not a reference"},
        {" env:QX71ZW99", NULL, "not a reference"},
        {"environment:QX71ZW99", NULL, "not a reference"},
        {"https://qx71.zw99/", NULL, "not a reference"},
        {"env:", NULL, "name of a variable"},
        {"env:sk-Qx71Zw99", NULL, "name of a variable"},
        {"env:9QX71ZW99", NULL, "name of a variable"},
        {"env:QX71 ZW99", NULL, "name of a variable"},
        {"env:QX71=ZW99", NULL, "name of a variable"},
        {"env:\xc3\x84qx71zw99", NULL, "name of a variable"},
        {"env:QX71\nZW99", NULL, "control character"},
        {"env:QX71\x7fZW99", NULL, "control character"},
        {"file:", "/f", "path behind it"},
        {"file:/", NULL, "not a folder"},
        {"file:/..", NULL, "not a folder"},
        {"file:qx71zw99/", "/f", "not a folder"},
        {"file:qx71zw99", NULL, "absolute"},
        {"file:~/qx71zw99", "/f", "'~'"},
        {"file:/qx71\xff"
         "zw99",
         NULL, "UTF-8"},
        {"file:/qx71\tzw99", NULL, "control character"},
        {"file:/qx71\xc2\x9bzw99", NULL, "control character"},
        {"vault:", NULL, "PATH#FIELD"},
        {"vault:qx71/zw99", NULL, "PATH#FIELD"},
        {"vault:qx71/zw99#", NULL, "PATH#FIELD"},
        {"vault:#qx71", NULL, "PATH#FIELD"},
        {"vault:qx71#zw99", NULL, "PATH#FIELD"},
        {"vault:/qx71/zw99#k", NULL, "PATH#FIELD"},
        {"vault:qx71//zw99#k", NULL, "PATH#FIELD"},
        {"vault:qx71/../zw99#k", NULL, "PATH#FIELD"},
        {"vault:qx71/./zw99#k", NULL, "PATH#FIELD"},
        {"vault:qx71/zw99/#k", NULL, "PATH#FIELD"},
        {"vault:qx71/zw99#k#l", NULL, "PATH#FIELD"},
        {"vault:qx71/zw99?v=1#k", NULL, "PATH#FIELD"},
        {"vault:qx71/zw%39#k", NULL, "PATH#FIELD"},
        {"vault:qx71/zw 99#k", NULL, "PATH#FIELD"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++)
        refuse(rows[i].text, strlen(rows[i].text), rows[i].folder, rows[i].says);
    refuse("env:QX71\0ZW99", 13, NULL, "control character");
    refuse("\0", 1, NULL, "control character");
}

/** One byte more than each bound is refused; the bound itself is not. */
static void bounds(void **state)
{
    static const struct {
        const char *before, *behind;
        size_t max;
    } rows[] = {
        {"env:", "", SM_REF_NAME_MAX},
        {"file:/", "", SM_REF_FILE_STRLEN - 2},
        {"vault:m/", "#k", SM_REF_VAULT_MAX - 2},
        {"vault:m/p#", "", SM_REF_FIELD_MAX},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        for (size_t more = 0; more < 2; more++) {
            sm_cleanup(sm_ref_clear) struct sm_ref ref = {0};
            g_autofree char *fill = g_strnfill(rows[i].max + more, 'q');
            g_autofree char *text = g_strconcat(rows[i].before, fill, rows[i].behind, NULL);
            if (more)
                refuse(text, strlen(text), NULL, "");
            else
                assert_true(sm_ref_parse(text, strlen(text), NULL, &ref, NULL));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(good), cmocka_unit_test(bad), cmocka_unit_test(bounds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
