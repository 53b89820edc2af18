/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * After a head with a credential has left, the credential is nowhere in this process's memory but where the test itself keeps it: all that is
 * writable is searched, through /proc/self/mem, while the bridge lives on and after it was freed. The stack is not: the dynamic linker saves
 * the vector registers there, and with them what memcpy() had in them last.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <fcntl.h>
#include <glib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "http/bridge.h"
#include "http/scrub.h"

#define CANARY_LEN 60
#define TAIL 20 /* what is searched for: free() itself overwrites beginnings */
/* Sanitizers reserve terabytes; the heap of this test is small. */
#define MAP_MAX (256u << 20)

/* A page of its own, which is not searched; the page behind it is the buffer that the search reads into. */
static char *canary;
static char *window;
#define WINDOW (1u << 20)

static void make_canary(void)
{
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz0123456789";

    canary = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    window = mmap(NULL, WINDOW, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(canary != MAP_FAILED && window != MAP_FAILED);
    assert_int_equal(getrandom(canary, CANARY_LEN, 0), CANARY_LEN);
    for (unsigned i = 0; i < CANARY_LEN; i++)
        canary[i] = alphabet[(uint8_t)canary[i] % (sizeof(alphabet) - 1)];
}

/* How often it is in writable memory. */
static unsigned search(void)
{
    unsigned found = 0;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");
    int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);

    assert_true(maps && mem >= 0);
    while (fgets(line, sizeof(line), maps)) {
        unsigned long from, to;
        char how[8];
        if (sscanf(line, "%lx-%lx %7s", &from, &to, how) != 3 || how[0] != 'r' || how[1] != 'w' ||
            to - from > MAP_MAX || strstr(line, "[stack]"))
            continue;
        for (unsigned long at = from; at < to; at += WINDOW - CANARY_LEN) {
            ssize_t n = pread(mem, window, SM_MIN(to - at, (unsigned long)WINDOW), (off_t)at);
            for (char *p = window; n > 0 && (p = memmem(p, (size_t)(window + n - p), canary + CANARY_LEN - TAIL, TAIL));
                 p++) {
                uintptr_t where = at + (uintptr_t)(p - window);
                bool own = where - (uintptr_t)canary < 4096 || where - (uintptr_t)window < WINDOW;
                /* The kernel may show the canary's page and its neighbours as one. */
                found += !own;
            }
            if (n > 0)
                memset(window, 0, (size_t)n);
        }
    }
    (void)fclose(maps);
    (void)close(mem);
    return found;
}

static struct sm_scrub *scrub;
static bool again;

static void pass(struct sm_bridge *b, uint64_t req, const char *value, size_t len)
{
    struct sm_bridge_edit edit = {
        .name = "Authorization", .value = value, .value_len = len, .scrub = scrub, .replay = scrub != NULL};
    struct sm_bridge_answer a = {.pass = true, .edit = &edit};

    sm_bridge_answer(b, req, &a);
}

static void on_request(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *r)
{
    (void)ctx;
    pass(b, r->req, canary, CANARY_LEN);
}

static bool on_rejected(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *r)
{
    (void)ctx;
    (void)b;
    (void)r;
    return again;
}

static void on_response(void *ctx, const struct sm_bridge_response *r)
{
    (void)ctx;
    (void)r;
}

static void on_broken(void *ctx, enum sm_bridge_side by, uint64_t req, const char *reason)
{
    (void)ctx;
    (void)by;
    (void)req;
    fail_msg("%s", reason);
}

static const struct sm_bridge_ops ops = {
    .request = on_request, .response = on_response, .broken = on_broken, .rejected = on_rejected};
static const struct sm_bridge_config config = {.tls = true};

/* Takes all without keeping any of it. */
static size_t discard(struct sm_bridge *b, enum sm_bridge_side to)
{
    const uint8_t *p;
    size_t n, all = 0;

    for (; (n = sm_bridge_out(b, to, &p)) > 0; all += n)
        sm_bridge_took(b, to, n);
    return all;
}

static void test_http1(void **state)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: fake\r\n\r\n";
    struct sm_bridge *b = sm_bridge_new_h1(&ops, NULL, &config);

    (void)state;
    assert_int_equal(search(), 0);
    sm_bridge_feed(b, SM_BRIDGE_GUEST, (const uint8_t *)request, sizeof(request) - 1);
    assert_int_equal(search(), 1); /* it waits for the origin, and nowhere else; and the search finds */
    assert_int_equal(discard(b, SM_BRIDGE_ORIGIN), sizeof(request) - 1 + CANARY_LEN - strlen("fake"));
    assert_int_equal(search(), 0);
    /* One that nobody takes goes with the bridge. */
    sm_bridge_feed(b, SM_BRIDGE_GUEST, (const uint8_t *)request, sizeof(request) - 1);
    assert_int_equal(search(), 1);
    sm_bridge_free(b);
    assert_int_equal(search(), 0);
}

static void test_http2(void **state)
{
    static const uint8_t preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
    static const uint8_t settings[] = {0, 0, 0, 4, 0, 0, 0, 0, 0};
    uint8_t head[] = {0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x87, 0x84, 0x01, 0x01, 'a'};
    struct sm_bridge *b = sm_bridge_new_h2(&ops, NULL, &config);

    (void)state;
    sm_bridge_feed(b, SM_BRIDGE_ORIGIN, settings, sizeof(settings));
    sm_bridge_feed(b, SM_BRIDGE_GUEST, preface, sizeof(preface));
    for (unsigned i = 0; i < 150; i++) {
        head[8] = (uint8_t)(2 * i + 1);
        head[7] = (uint8_t)((2 * i + 1) >> 8);
        sm_bridge_feed(b, SM_BRIDGE_GUEST, head, sizeof(head));
        if (i < 99)
            assert_true(discard(b, SM_BRIDGE_ORIGIN) > 0);
        /* Huffman-coded in what is sent; as it is only in what waits for a place at the origin. */
        if (i == 0 || i == 98)
            assert_int_equal(search(), 0);
    }
    sm_bridge_free(b);
    assert_int_equal(search(), 0);
}

/* @head, the canary, and nothing of both left here. */
static void feed_with_canary(struct sm_bridge *b, const void *head, size_t len)
{
    char bytes[256];

    memcpy(bytes, head, len);
    memcpy(bytes + len, canary, CANARY_LEN);
    sm_bridge_feed(b, SM_BRIDGE_ORIGIN, (const uint8_t *)bytes, len + CANARY_LEN);
    explicit_bzero(bytes, sizeof(bytes));
}

/* A 401 that says it back is held, and gone when the request was sent again or the bridge freed. */
static void test_replay(void **state)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: fake\r\n\r\n";
    static const char no[] = "HTTP/1.1 401 x\r\nContent-Length: 60\r\n\r\n";
    static const uint8_t h2[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0\0\0\6\1\5\0\0\0\1\x82\x87\x84\1\1a";
    static const uint8_t h2_no[] = "\0\0\0\4\0\0\0\0\0\0\0\5\1\4\0\0\0\1\10\003401\0\0\74\0\1\0\0\0\1";

    (void)state;
    for (unsigned how = 0; how < 8; how++) {
        bool second = how & 1, by_h2 = how & 4;
        again = !(how & 2);
        scrub = sm_scrub_new((const uint8_t *)canary, CANARY_LEN);
        struct sm_bridge *b = (by_h2 ? sm_bridge_new_h2 : sm_bridge_new_h1)(&ops, NULL, &config);
        if (by_h2)
            sm_bridge_feed(b, SM_BRIDGE_GUEST, h2, sizeof(h2) - 1);
        else
            sm_bridge_feed(b, SM_BRIDGE_GUEST, (const uint8_t *)request, sizeof(request) - 1);
        assert_true(discard(b, SM_BRIDGE_ORIGIN) > 0);
        assert_int_equal(search(), 0);
        feed_with_canary(b, by_h2 ? (const void *)h2_no : no, by_h2 ? sizeof(h2_no) - 1 : sizeof(no) - 1);
        assert_int_equal(search(), again ? 1 : 0); /* what is let go is scrubbed */
        if (second) {
            pass(b, 1, "new", 3);
            assert_int_equal(search(), 0);
            assert_true(again == (discard(b, SM_BRIDGE_ORIGIN) > (by_h2 ? 20 : 0)));
        }
        sm_bridge_free(b);
        assert_int_equal(search(), 0);
        sm_scrub_unref(sm_steal_ptr(&scrub));
    }
}

/* What the matcher knows does not look like it. */
static void test_scrub(void **state)
{
    struct sm_outq q = {0};

    (void)state;
    scrub = sm_scrub_new((const uint8_t *)canary, CANARY_LEN);
    struct sm_scrub_stream *s = sm_scrub_stream_new(scrub, NULL);
    assert_int_equal(search(), 0);
    /* Held up to where it is sure. */
    for (size_t i = 0; i < CANARY_LEN; i++) {
        sm_scrub_data(s, (const uint8_t *)canary + i, 1, &q);
        assert_int_equal(sm_scrub_held(s), i < 23 ? i + 1 : 0);
    }
    assert_int_equal(search(), 0);
    sm_outq_clear(&q);
    sm_scrub_stream_free(s);
    sm_scrub_unref(sm_steal_ptr(&scrub));
    assert_int_equal(search(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_http1),
        cmocka_unit_test(test_http2),
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_scrub),
    };
    make_canary();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
