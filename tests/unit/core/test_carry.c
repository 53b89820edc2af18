/* SPDX-License-Identifier: BSD-3-Clause */
/* What a snapshot carries: pins with the time that they have left, counters and entries; and what is wrong with each field is found and named. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/link.h"
#include "core/carry.h"
#include "core/mediate.h"
#include "fixture.h"

#define S ((int64_t)1000000)
#define WALL ((int64_t)1795000000 * S)

static const struct sm_addr A = {SM_FAMILY_V4, {203, 0, 113, 1}};
static const struct sm_addr B = {SM_FAMILY_V6, {0x20, 1, 0xd, 0xb8, 1}};

static void test_pins_there_and_back(void **state)
{
    sm_cleanup(sm_pins_freep) struct sm_pins *pins = sm_pins_new(SM_PINS_MAX), *again = sm_pins_new(SM_PINS_MAX);
    const struct sm_pin *of[SM_PINS_PER_ADDR_MAX];

    assert_non_null(sm_pins_add(pins, "old.test", &A, 300, 0));
    assert_non_null(sm_pins_add(pins, "new.test", &A, 600, 0));
    assert_non_null(sm_pins_add(pins, "six.test", &B, 90000, 0));
    assert_non_null(sm_pins_add(pins, "held.test", &B, 100, 0));
    assert_non_null(sm_pins_hold(pins, "held.test", &B, 0));
    json_auto_t *array = sm_carry_pins(pins, 200 * S, WALL);
    /* held.test lives by its flow alone, and flows are not carried. */
    assert_int_equal(json_array_size(array), 3);
    assert_true(sm_carry_pins_check(array, NULL));
    assert_string_equal(json_string_value(json_object_get(json_array_get(array, 0), "name")), "new.test");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(array, 0), "expires_us")), WALL + 400 * S);

    /* Ten seconds later, on a clock that began elsewhere. */
    assert_int_equal(sm_carry_pins_load(array, again, 7 * S, WALL + 10 * S), 3);
    assert_int_equal(sm_pins_of(again, &A, 7 * S, of), 2);
    assert_string_equal(of[0]->name, "new.test");
    assert_string_equal(of[1]->name, "old.test");
    assert_int_equal(of[0]->expires_us, (7 + 390) * S);
    assert_int_equal(of[1]->expires_us, (7 + 90) * S);
    assert_int_equal(of[0]->holds, 0);
    /* What is over by then is not taken. */
    sm_cleanup(sm_pins_freep) struct sm_pins *late = sm_pins_new(SM_PINS_MAX);
    assert_int_equal(sm_carry_pins_load(array, late, 7 * S, WALL + 100 * S), 2);
    assert_null(sm_pins_find(late, "old.test", &A, 7 * S));
    sm_cleanup(sm_pins_freep) struct sm_pins *later = sm_pins_new(SM_PINS_MAX);
    assert_int_equal(sm_carry_pins_load(array, later, 7 * S, WALL + 90000 * S), 0);
    /* A clock that was set back makes a pin last a day at most. */
    sm_cleanup(sm_pins_freep) struct sm_pins *back = sm_pins_new(SM_PINS_MAX);
    assert_int_equal(sm_carry_pins_load(array, back, 0, WALL - 1000000 * S), 3);
    assert_int_equal(sm_pins_find(back, "old.test", &A, 0)->expires_us, SM_PINS_TTL_MAX_S * S);
    assert_int_equal(sm_carry_pins_load(array, back, 0, 0), 3);
    assert_int_equal(sm_carry_pins_load(NULL, back, 0, 0), 0);
}

static void test_wrong_pins(void **state)
{
    static const struct {
        const char *json, *words;
    } rows[] = {
        {"{}", "pins: must be an array"},
        {"[1]", "pins[0]: must be an object"},
        {"[{\"name\":\"a.test\",\"addr\":\"203.0.113.1\"}]", "pins[0]: must be an object"},
        {"[{\"name\":\"a.test\",\"addr\":\"203.0.113.1\",\"expires_us\":1,\"x\":1}]", "pins[0]: must be an object"},
        {"[{\"nam\":\"a.test\",\"addr\":\"203.0.113.1\",\"expires_us\":1}]", "pins[0].name"},
        {"[{\"name\":\"A.test\",\"addr\":\"203.0.113.1\",\"expires_us\":1}]", "pins[0].name"},
        {"[{\"name\":\"a.test.\",\"addr\":\"203.0.113.1\",\"expires_us\":1}]", "pins[0].name"},
        {"[{\"name\":\"203.0.113.1\",\"addr\":\"203.0.113.1\",\"expires_us\":1}]", "pins[0].name"},
        {"[{\"name\":\"\",\"addr\":\"203.0.113.1\",\"expires_us\":1}]", "pins[0].name"},
        {"[{\"name\":7,\"addr\":\"203.0.113.1\",\"expires_us\":1}]", "pins[0].name"},
        {"[{\"name\":\"a.test\",\"addr\":\"203.0.113\",\"expires_us\":1}]", "pins[0].addr"},
        {"[{\"name\":\"a.test\",\"addr\":\"2001:DB8::1\",\"expires_us\":1}]", "pins[0].addr"},
        {"[{\"name\":\"a.test\",\"addr\":\"203.0.113.1\",\"expires_us\":-1}]", "pins[0].expires_us"},
        {"[{\"name\":\"a.test\",\"addr\":\"203.0.113.1\",\"expires_us\":1.0}]", "pins[0].expires_us"},
        {"[{\"name\":\"a.test\",\"addr\":\"203.0.113.1\",\"expires_us\":253402300800000000}]", "pins[0].expires_us"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        json_auto_t *array = json_loads(rows[i].json, 0, NULL);
        g_autoptr(GError) error = NULL;
        assert_non_null(array);
        assert_false(sm_carry_pins_check(array, &error));
        assert_true(g_str_has_prefix(error->message, rows[i].words));
    }
    json_auto_t *many = json_array(),
                *one = json_loads("{\"name\":\"a.test\",\"addr\":\"203.0.113.1\",\"expires_us\":1}", 0, NULL);
    for (int i = 0; i < SM_PINS_MAX; i++)
        (void)json_array_append(many, one);
    assert_true(sm_carry_pins_check(many, NULL));
    (void)json_array_append(many, one);
    assert_false(sm_carry_pins_check(many, NULL));
}

static void test_counters(void **state)
{
    static const char *const wrong[] = {"null",
                                        "[]",
                                        "{\"bytes_up\":1}",
                                        "{\"bytes_up\":1,\"bytes_down\":-1}",
                                        "{\"bytes_up\":1,\"bytes_down\":2,\"x\":3}",
                                        "{\"bytes_up\":\"1\",\"bytes_down\":2}",
                                        "{\"bytes_up\":1.0,\"bytes_down\":2}"};
    uint64_t got[SM_CAPS_DIRS] = {7, 8};

    for (size_t i = 0; i < SM_ARRAY_LEN(wrong); i++) {
        json_auto_t *o = json_loads(wrong[i], JSON_DECODE_ANY, NULL);
        g_autoptr(GError) error = NULL;
        assert_false(sm_carry_counters_check(o, got, &error));
        assert_true(g_str_has_prefix(error->message, "counters"));
        assert_true(got[0] == 7 && got[1] == 8);
    }
    json_auto_t *o = json_loads("{\"bytes_up\":1,\"bytes_down\":9223372036854775807}", 0, NULL);
    assert_true(sm_carry_counters_check(o, got, NULL));
    assert_true(got[SM_CAPS_UP] == 1 && got[SM_CAPS_DOWN] == INT64_MAX);
}

static int link_end; /* the supervisor's */

static struct fixture *begin(struct fixture *f)
{
    int pair[2];

    assert_int_equal(sm_fd_seqpair(pair, true), 0);
    f->core.link.fd = pair[0];
    link_end = pair[1];
    return f;
}

static void end(struct fixture *f)
{
    int fd = f->core.link.fd;

    fixture_free(f);
    close(fd);
    close(link_end);
}

/* "" when it was written. */
static const char *export(struct fixture *f, int fd)
{
    static struct sm_link_msg m;

    sm_carry_export(&f->core, fd);
    assert_int_equal(sm_link_recv(link_end, &m), 1);
    assert_int_equal(m.verb, SM_LINK_SNAPSHOT);
    return m.text;
}

static void test_export(void **state)
{
    struct fixture *f = begin(fixture_new("strict", "\"ok.test\",\".more.test:443\""));
    sm_autofd fd = memfd_create("snapshot", MFD_CLOEXEC);
    json_error_t at;
    size_t len;

    assert_non_null(sm_pins_add(f->core.pins, "ok.test", &A, 300, sm_loop_now(f->core.loop)));
    assert_string_equal(export(f, fd), "");
    g_autofree char *text = sm_fd_read_all(fd, SM_CARRY_MAX, &len, NULL);
    json_auto_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES, &at);
    assert_int_equal(json_object_size(o), 5);
    assert_true(json_is_null(json_object_get(o, "ca_sha256")));
    assert_true(json_is_null(json_object_get(o, "counters")));
    json_t *allow = json_object_get(json_object_get(o, "policy"), "allow");
    assert_string_equal(json_string_value(json_array_get(allow, 0)), "ok.test");
    assert_string_equal(json_string_value(json_array_get(allow, 1)), ".more.test:443");
    assert_int_equal(json_array_size(json_object_get(json_object_get(o, "policy"), "passthrough")), 0);
    assert_true(sm_carry_pins_check(json_object_get(o, "pins"), NULL));
    assert_int_equal(json_array_size(json_object_get(o, "pins")), 1);
    int64_t taken = json_integer_value(json_object_get(o, "taken_us")),
            ends = json_integer_value(json_object_get(json_array_get(json_object_get(o, "pins"), 0), "expires_us"));
    assert_true(ends - taken > 290 * S && ends - taken <= 300 * S);
    end(f);
}

static void test_export_that_cannot_be_written(void **state)
{
    struct fixture *f = begin(fixture_new("guarded", ""));
    sm_autofd full = open("/dev/full", O_WRONLY | O_CLOEXEC);

    assert_true(full >= 0);
    assert_non_null(strstr(export(f, full), "No space left"));
    assert_non_null(strstr(export(f, -1), "Bad file descriptor"));
    sm_autofd fd = memfd_create("snapshot", MFD_CLOEXEC);
    assert_string_equal(export(f, fd), ""); /* and goes on */
    end(f);
}

static void test_mode_off_has_no_policy(void **state)
{
    struct fixture *f = begin(fixture_new("off", "\"ok.test\""));
    sm_autofd fd = memfd_create("snapshot", MFD_CLOEXEC);

    assert_string_equal(export(f, fd), "");
    g_autofree char *text = sm_fd_read_all(fd, SM_CARRY_MAX, NULL, NULL);
    assert_non_null(strstr(text, "\"policy\":null"));
    end(f);
}

static int memfd_of(const void *data, size_t len)
{
    int fd = memfd_create("file", MFD_CLOEXEC);
    assert_int_equal(write(fd, data, len), (ssize_t)len);
    return fd;
}

/* The files of a CA, as the descriptors of a core; it closes them. */
static bool load(struct fixture *f, const char *fingerprint, const struct sm_tls_ca *ca, const char *cert,
                 GError **error)
{
    struct sm_secret *key = sm_tls_ca_key_pem(ca);
    size_t len;
    const uint8_t *bytes_of_key = sm_secret_bytes(key, &len);
    int key_fd = memfd_of(bytes_of_key, len), cert_fd = memfd_of(cert, strlen(cert));

    sm_secret_free(key);
    g_free(f->core.config->ca_sha256);
    f->core.config->ca_sha256 = g_strdup(fingerprint);
    return sm_pki_make(&f->core, key_fd, cert_fd, error) && sm_pki_open(&f->core, error);
}

static void test_a_kept_ca(void **state)
{
    struct fixture *f = fixture_new("guarded", "");
    int64_t now = sm_clock_wall_us();
    struct sm_tls_ca *ca = sm_tls_ca_new("w", now, NULL), *other = sm_tls_ca_new("w", now, NULL),
                     *old = sm_tls_ca_new("w", now - (SM_TLS_CA_DAYS - 6) * 86400 * S, NULL);
    char a[SM_TLS_FINGERPRINT_STRLEN], b[SM_TLS_FINGERPRINT_STRLEN], of_old[SM_TLS_FINGERPRINT_STRLEN];
    g_autoptr(GError) error = NULL;

    sm_tls_ca_fingerprint(ca, a);
    sm_tls_ca_fingerprint(other, b);
    sm_tls_ca_fingerprint(old, of_old);
    const struct {
        const char *fingerprint, *words;
        const struct sm_tls_ca *key;
        const char *cert;
    } wrong[] = {
        {b, "was kept", ca, sm_tls_ca_cert_pem(ca)},
        {a, "not a P-256 CA of one pair", other, sm_tls_ca_cert_pem(ca)},
        {a, "was kept", other, sm_tls_ca_cert_pem(other)},
        {a, "certificate is no PEM", ca, ""},
        {of_old, "too soon", old, sm_tls_ca_cert_pem(old)},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(wrong); i++) {
        assert_false(load(f, wrong[i].fingerprint, wrong[i].key, wrong[i].cert, &error));
        if (!strstr(error->message, wrong[i].words))
            fail_msg("'%s' lacks '%s'", error->message, wrong[i].words);
        assert_null(f->core.ca); /* and no new one */
        g_clear_error(&error);
    }
    assert_true(load(f, a, ca, sm_tls_ca_cert_pem(ca), &error));
    sm_tls_ca_fingerprint(f->core.ca, b);
    assert_string_equal(a, b);
    assert_string_equal(sm_tls_ca_cert_pem(f->core.ca), sm_tls_ca_cert_pem(ca));
    sm_tls_ca_free(ca);
    sm_tls_ca_free(other);
    sm_tls_ca_free(old);
    fixture_free(f);
}

/* The configuration is held to the same rules. */
static void test_configuration(void **state)
{
    static const struct {
        const char *more, *words;
    } rows[] = {
        {"", NULL},
        {",\"ca_sha256\":\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"", NULL},
        {",\"pins\":[{\"name\":\"a.test\",\"addr\":\"203.0.113.1\",\"expires_us\":1}]", NULL},
        {",\"ca_sha256\":\"0123\"", "\"ca_sha256\" must be"},
        {",\"ca_sha256\":\"0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef\"",
         "\"ca_sha256\" must be"},
        {",\"ca_sha256\":null", "core configuration"},
        {",\"pins\":{}", "pins: must be an array"},
        {",\"pins\":[{\"name\":\"a..test\",\"addr\":\"203.0.113.1\",\"expires_us\":1}]", "pins[0].name"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *text = g_strconcat(
            "{\"workspace\":\"t\",\"mode\":\"guarded\",\"opaque\":false,\"log_query\":false,\"extra_roots\":\"\","
            "\"allow\":[],"
            "\"passthrough\":[],\"deny\":[],\"swaps\":{\"refs\":[],\"entries\":{}},\"inside\":[],\"dns\":[],"
            "\"resolv_conf\":\"\",\"dns_qps\":0,\"network\":{\"guest\":\"10.0.2.15\",\"prefix_len\":24,\"gateway\":"
            "\"10.0.2.2\","
            "\"resolver\":\"10.0.2.3\"},\"audit\":{\"sync\":false,\"max_bytes\":0,\"seq_floor\":0},\"caps\":{\"max_"
            "bps\":0,"
            "\"max_total_bytes\":0,\"max_conns\":0,\"counters\":{\"seq\":0,\"bytes_up\":0,\"bytes_down\":0}}",
            rows[i].more, "}", NULL);
        struct sm_core_config *c = sm_core_config_load(text, strlen(text), &error);
        assert_int_equal(c == NULL, rows[i].words != NULL);
        if (rows[i].words && !strstr(error->message, rows[i].words))
            fail_msg("'%s' lacks '%s'", error->message, rows[i].words);
        sm_core_config_free(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pins_there_and_back),
        cmocka_unit_test(test_wrong_pins),
        cmocka_unit_test(test_counters),
        cmocka_unit_test(test_export),
        cmocka_unit_test(test_export_that_cannot_be_written),
        cmocka_unit_test(test_mode_off_has_no_policy),
        cmocka_unit_test(test_a_kept_ca),
        cmocka_unit_test(test_configuration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
