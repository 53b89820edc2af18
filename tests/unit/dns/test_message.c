/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages built by hand, good and with one fault each; every good one also cut at every byte and with every byte
 * changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "dns/message.h"

/* A message under construction: names are written plain unless a test puts in pointers itself. */
static uint8_t buf[70000];
static struct sm_wr m;

static void put_name(const char *text)
{
    while (*text) {
        size_t n = strcspn(text, ".");
        sm_wr_u8(&m, (uint8_t)n);
        sm_wr_bytes(&m, text, n);
        text += n + (text[n] == '.');
    }
    sm_wr_u8(&m, 0);
}

static void start(uint16_t id, uint16_t flags, uint16_t qd, uint16_t an, uint16_t ns, uint16_t ar)
{
    m = sm_wr_init(buf, sizeof(buf));
    sm_wr_u16(&m, id);
    sm_wr_u16(&m, flags);
    sm_wr_u16(&m, qd);
    sm_wr_u16(&m, an);
    sm_wr_u16(&m, ns);
    sm_wr_u16(&m, ar);
}

static void question(const char *name, uint16_t type)
{
    put_name(name);
    sm_wr_u16(&m, type);
    sm_wr_u16(&m, 1);
}

static void rr(const char *owner, uint16_t type, uint16_t class, uint32_t ttl, const void *rdata, size_t len)
{
    put_name(owner);
    sm_wr_u16(&m, type);
    sm_wr_u16(&m, class);
    sm_wr_u32(&m, ttl);
    sm_wr_u16(&m, (uint16_t)len);
    sm_wr_bytes(&m, rdata, len);
}

static void rr_name(const char *owner, uint16_t type, uint32_t ttl, const char *target)
{
    rr(owner, type, 1, ttl, "", 0);
    size_t at = m.len;
    put_name(target);
    buf[at - 2] = (uint8_t)((m.len - at) >> 8);
    buf[at - 1] = (uint8_t)(m.len - at);
}

static void rr_a(const char *owner, uint32_t ttl, uint8_t last)
{
    const uint8_t a[4] = {203, 0, 113, last};
    rr(owner, SM_DNS_A, 1, ttl, a, 4);
}

static void opt(uint16_t size, uint32_t ttl, const void *options, size_t len)
{
    sm_wr_u8(&m, 0);
    sm_wr_u16(&m, SM_DNS_OPT);
    sm_wr_u16(&m, size);
    sm_wr_u32(&m, ttl);
    sm_wr_u16(&m, (uint16_t)len);
    sm_wr_bytes(&m, options, len);
}

static struct sm_dns_query query_for(const char *name, uint16_t type)
{
    struct sm_dns_query q = {
        .id = 0x1234, .rd = true, .has_question = true, .qtype = type, .qclass = 1, .udp_size = 512};
    assert_true(sm_dns_name_from_text(name, &q.qname));
    return q;
}

/* Exact-size copies, so that the sanitizers see one byte too many. */
static enum sm_dns_query_result parse_query(struct sm_dns_query *q, enum sm_dns_rcode *rcode)
{
    uint8_t *copy = malloc(m.len ? m.len : 1);
    memcpy(copy, buf, m.len);
    enum sm_dns_query_result result = sm_dns_query_parse(copy, m.len, q, rcode);
    free(copy);
    return result;
}

/* ---- names ---- */

static void test_names(void **state)
{
    struct sm_dns_name a, b, root = {.len = 1, .wire = {0}};
    char text[SM_DNS_NAME_TEXT_MAX];
    char longest[300];

    (void)state;
    assert_true(sm_dns_name_from_text("WWW.Ok.test.", &a));
    assert_true(sm_dns_name_from_text("www.ok.TEST", &b));
    assert_true(sm_dns_name_equal(&a, &b));
    assert_string_equal(sm_dns_name_text(&a, text), "WWW.Ok.test");
    assert_string_equal(sm_dns_name_text(&root, text), ".");
    assert_true(sm_dns_name_from_text("ok.test", &b));
    assert_false(sm_dns_name_equal(&a, &b));
    assert_true(sm_dns_name_within(&a, &b));
    assert_true(sm_dns_name_within(&a, &a));
    assert_true(sm_dns_name_within(&a, &root));
    assert_false(sm_dns_name_within(&b, &a));
    assert_true(sm_dns_name_from_text("wok.test", &a));
    assert_false(sm_dns_name_within(&a, &b)); /* a suffix of bytes is no parent */

    static const char *const bad[] = {"", ".", "a..b", ".a", "a b", "a\\b", "b\xc3\xbc", "a.b/", "*.a"};
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++)
        if (sm_dns_name_from_text(bad[i], &a))
            fail_msg("accepted %s", bad[i]);
    memset(longest, 'a', sizeof(longest));
    longest[64] = '\0';
    assert_false(sm_dns_name_from_text(longest, &a));
    longest[63] = '\0';
    assert_true(sm_dns_name_from_text(longest, &a));
    memset(longest, 'a', sizeof(longest));
    for (size_t i = 1; i < sizeof(longest); i += 2)
        longest[i] = '.';
    longest[253] = '\0';
    assert_true(sm_dns_name_from_text(longest, &a));
    assert_int_equal(a.len, 255);
    longest[253] = '.';
    longest[255] = '\0';
    assert_false(sm_dns_name_from_text(longest, &a));

    /* Bytes that are no host name can be told from one that is. */
    const struct sm_dns_name odd = {.len = 10, .wire = {8, 'a', '.', 'b', '\\', 0, 0xff, ' ', 'z', 0}};
    assert_string_equal(sm_dns_name_text(&odd, text), "a\\.b\\\\\\000\\255\\032z");
    struct sm_dns_name worst = {.len = 255};
    for (size_t i = 0; i < 254; i++)
        worst.wire[i] = i % 64 == 0 ? (uint8_t)SM_MIN(63, 253 - (int)i) : 0xff;
    assert_true(strlen(sm_dns_name_text(&worst, text)) < SM_DNS_NAME_TEXT_MAX);
}

static void test_name_compression(void **state)
{
    struct sm_dns_name name;
    struct sm_rd r;
    char text[SM_DNS_NAME_TEXT_MAX];

    (void)state;
    start(0, 0, 0, 0, 0, 0);
    put_name("ok.test"); /* at 12 */
    sm_wr_bytes(&m,
                "\3www\xc0\x0c"
                "x",
                7); /* at 21 */
    r = (struct sm_rd){.p = buf, .len = m.len, .pos = 21};
    assert_true(sm_dns_name_read(&r, &name));
    assert_string_equal(sm_dns_name_text(&name, text), "www.ok.test");
    assert_int_equal(r.pos, 27);

    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {
        {"\xc0\x0c", 2},         /* itself */
        {"\1a\xc0\x0c", 4},      /* its own beginning */
        {"\xc0\x0e\xc0\x0c", 4}, /* forwards, and back */
        {"\xc0\x04", 2},         /* the header */
        {"\xc0", 1},             /* half a pointer */
        {"\x40", 1},             /* other label types */
        {"\x80\0", 2},
        {"\5abcd", 5},
        {"\1a", 2},
        {"", 0},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        start(0, 0, 0, 0, 0, 0);
        sm_wr_bytes(&m, bad[i].bytes, bad[i].len);
        r = (struct sm_rd){.p = buf, .len = m.len, .pos = 12};
        assert_false(sm_dns_name_read(&r, &name));
        assert_true(r.bad);
        assert_int_equal(name.len, 0);
    }
    /* A chain of pointers each one further back ends, and the name they make is bounded. */
    start(0, 0, 0, 0, 0, 0);
    sm_wr_u8(&m, 0);
    for (unsigned i = 0; i < 200; i++) {
        size_t before = i == 0 ? 12 : 13 + 4u * (i - 1);
        sm_wr_bytes(&m, "\1a", 2);
        sm_wr_u16(&m, (uint16_t)(0xc000 | before));
    }
    r = (struct sm_rd){.p = buf, .len = m.len, .pos = 13 + 4 * 126};
    assert_true(sm_dns_name_read(&r, &name));
    assert_int_equal(name.len, 255);
    r = (struct sm_rd){.p = buf, .len = m.len, .pos = 13 + 4 * 127};
    assert_false(sm_dns_name_read(&r, &name));
}

/* ---- queries ---- */

static void test_query(void **state)
{
    struct sm_dns_query q;
    enum sm_dns_rcode rcode;
    char text[SM_DNS_NAME_TEXT_MAX];

    (void)state;
    start(0xbeef, 0x0100, 1, 0, 0, 0);
    question("Ok.Test", SM_DNS_A);
    assert_int_equal(parse_query(&q, &rcode), SM_DNS_QUERY_OK);
    assert_int_equal(q.id, 0xbeef);
    assert_true(q.rd && q.has_question && !q.edns && !q.dnssec_ok && !q.cd);
    assert_int_equal(q.udp_size, 512);
    assert_string_equal(sm_dns_name_text(&q.qname, text), "Ok.Test");

    /* What we ask: our id, RD, nothing of the guest's but the question and DO. */
    uint8_t out[SM_DNS_UPSTREAM_QUERY_MAX];
    size_t len = sm_dns_query_build(&q, 0x4321, out, sizeof(out));
    static const uint8_t want[] = {0x43, 0x21, 1, 0, 0, 1, 0, 0, 0, 0,  0, 1,    2, 'O', 'k', 4, 'T', 'e',
                                   's',  't',  0, 0, 1, 0, 1, 0, 0, 41, 4, 0xd0, 0, 0,   0,   0, 0,   0};
    assert_int_equal(len, sizeof(want));
    assert_memory_equal(out, want, len);
    for (size_t cap = 0; cap < len; cap++)
        assert_int_equal(sm_dns_query_build(&q, 1, out, cap), 0);

    /* EDNS: sizes are clamped, DO is taken over, options (client subnet, cookie) are not. */
    static const struct {
        uint16_t said, taken;
    } sizes[] = {{0, 512}, {512, 512}, {1232, 1232}, {4096, 1232}, {65535, 1232}};
    for (size_t i = 0; i < SM_ARRAY_LEN(sizes); i++) {
        start(1, 0x0110, 1, 0, 0, 1);
        question("ok.test", SM_DNS_A);
        opt(sizes[i].said, 0x8000,
            "\0\x08\0\7\0\1\x18\0\xcb\0\x71\0\x0a\0\x08"
            "cookiexx",
            23);
        assert_int_equal(parse_query(&q, &rcode), SM_DNS_QUERY_OK);
        assert_int_equal(q.udp_size, sizes[i].taken);
        assert_true(q.edns && q.dnssec_ok && q.cd);
    }
    len = sm_dns_query_build(&q, 7, out, sizeof(out));
    assert_int_equal(out[2] << 8 | out[3], 0x0100); /* no CD */
    assert_memory_equal(out + len - 11, "\0\0\x29\x04\xd0\0\0\x80\0\0\0", 11);
}

static void expect_query(enum sm_dns_query_result want, enum sm_dns_rcode want_rcode, bool has_question)
{
    struct sm_dns_query q;
    enum sm_dns_rcode rcode = SM_DNS_NOERROR;

    assert_int_equal(parse_query(&q, &rcode), want);
    assert_int_equal(rcode, want_rcode);
    assert_int_equal(q.has_question, has_question);
    if (want != SM_DNS_QUERY_ERROR)
        return;
    uint8_t out[512];
    size_t len = sm_dns_reply_simple(&q, rcode, out, sizeof(out));
    assert_true(len >= 12);
    assert_int_equal(out[3] & 15, want_rcode & 15);
    assert_int_equal(out[5], has_question);
}

static void test_query_faults(void **state)
{
    (void)state;
    for (size_t len = 0; len < 12; len++) {
        start(1, 0x0100, 1, 0, 0, 0);
        m.len = len;
        expect_query(SM_DNS_QUERY_DROP, SM_DNS_NOERROR, false);
    }
    start(1, 0x8100, 1, 0, 0, 0);
    question("ok.test", SM_DNS_A);
    expect_query(SM_DNS_QUERY_DROP, SM_DNS_NOERROR, false);

    static const uint16_t opcodes[] = {1, 2, 4, 5, 6, 15};
    for (size_t i = 0; i < SM_ARRAY_LEN(opcodes); i++) {
        start(1, (uint16_t)(0x0100 | opcodes[i] << 11), 1, 0, 0, 0);
        question("ok.test", SM_DNS_A);
        expect_query(SM_DNS_QUERY_ERROR, SM_DNS_NOTIMP, false);
    }
    start(1, 0x0100, 0, 0, 0, 0);
    expect_query(SM_DNS_QUERY_ERROR, SM_DNS_FORMERR, false);
    start(1, 0x0100, 2, 0, 0, 0);
    question("ok.test", SM_DNS_A);
    question("evil.test", SM_DNS_A);
    expect_query(SM_DNS_QUERY_ERROR, SM_DNS_FORMERR, false);
    start(1, 0x0100, 1, 0, 0, 0);
    question("ok.test", SM_DNS_A);
    question("evil.test", SM_DNS_A); /* behind the one that is counted */
    expect_query(SM_DNS_QUERY_ERROR, SM_DNS_FORMERR, true);
    start(1, 0x0100, 1, 1, 0, 0);
    question("ok.test", SM_DNS_A);
    rr_a("ok.test", 1, 1);
    expect_query(SM_DNS_QUERY_ERROR, SM_DNS_FORMERR, false);
    start(1, 0x0100, 1, 0, 1, 0);
    question("ok.test", SM_DNS_A);
    rr_a("ok.test", 1, 1);
    expect_query(SM_DNS_QUERY_ERROR, SM_DNS_FORMERR, false);
    start(1, 0x0100, 1, 0, 0, 1);
    question("ok.test", SM_DNS_A);
    rr_a("ok.test", 1, 1);
    expect_query(SM_DNS_QUERY_ERROR, SM_DNS_FORMERR, true);
    start(1, 0x0100, 1, 0, 0, 2);
    question("ok.test", SM_DNS_A);
    opt(512, 0, "", 0);
    opt(512, 0, "", 0);
    expect_query(SM_DNS_QUERY_ERROR, SM_DNS_FORMERR, false);
    start(1, 0x0100, 1, 0, 0, 1);
    question("ok.test", SM_DNS_A);
    opt(512, 0, "\0\1\0\5x", 5); /* an option that lies */
    expect_query(SM_DNS_QUERY_ERROR, SM_DNS_FORMERR, true);
    start(1, 0x0100, 1, 0, 0, 1);
    question("ok.test", SM_DNS_A);
    opt(512, 0x00010000, "", 0);
    expect_query(SM_DNS_QUERY_ERROR, SM_DNS_BADVERS, true);
    start(1, 0x0100, 1, 0, 0, 0);
    sm_wr_bytes(&m, "\xc0\x0c\0\1\0\1", 6);
    expect_query(SM_DNS_QUERY_ERROR, SM_DNS_FORMERR, false);
    start(1, 0x0100, 1, 0, 0, 0);
    question("version.bind", SM_DNS_TXT);
    buf[m.len - 1] = 3; /* CHAOS */
    expect_query(SM_DNS_QUERY_ERROR, SM_DNS_REFUSED, true);
    start(1, 0x0100, 1, 0, 0, 0);
    question("ok.test", SM_DNS_OPT);
    expect_query(SM_DNS_QUERY_ERROR, SM_DNS_FORMERR, true);
    start(1, 0x0300, 1, 0, 0, 0);
    question("ok.test", SM_DNS_A);
    expect_query(SM_DNS_QUERY_ERROR, SM_DNS_FORMERR, false);

    /* Cut anywhere it is refused, whole it is not. */
    start(1, 0x0100, 1, 0, 0, 1);
    question("a.long.name.ok.test", SM_DNS_A);
    opt(1232, 0, "\0\x0c\0\2\0\0", 6);
    size_t len = m.len;
    struct sm_dns_query q;
    enum sm_dns_rcode rcode;
    for (m.len = 12; m.len < len; m.len++)
        assert_int_equal(parse_query(&q, &rcode), SM_DNS_QUERY_ERROR);
    assert_int_equal(parse_query(&q, &rcode), SM_DNS_QUERY_OK);

    /* Over the maximum, however it is filled. */
    start(1, 0x0100, 1, 0, 0, 1);
    question("ok.test", SM_DNS_A);
    uint8_t padding[SM_DNS_QUERY_MAX] = {0, 12, SM_DNS_QUERY_MAX >> 8, SM_DNS_QUERY_MAX & 255};
    size_t room = SM_DNS_QUERY_MAX - m.len - 11;
    padding[2] = (uint8_t)((room - 4) >> 8);
    padding[3] = (uint8_t)(room - 4);
    opt(1232, 0, padding, room);
    assert_int_equal(m.len, SM_DNS_QUERY_MAX);
    assert_int_equal(parse_query(&q, &rcode), SM_DNS_QUERY_OK);
    sm_wr_u8(&m, 0);
    assert_int_equal(parse_query(&q, &rcode), SM_DNS_QUERY_ERROR);
}

/* ---- responses ---- */

static struct sm_dns_response resp;

static enum sm_dns_response_result parse_response(const struct sm_dns_query *q)
{
    static uint8_t *copy;

    free(copy);
    copy = malloc(m.len ? m.len : 1);
    memcpy(copy, buf, m.len);
    return sm_dns_response_parse(copy, m.len, 0x5555, q, &resp);
}

/* The reply as the guest reads it: parsed again as a response to its own question. */
static uint8_t reply[SM_DNS_MESSAGE_MAX];
static size_t reply_len;
static bool reply_truncated;
static bool no_h3;
static struct sm_dns_response again;

static void encode(const struct sm_dns_query *q, size_t max)
{
    uint8_t *exact = malloc(max);
    reply_len = sm_dns_reply_encode(q, &resp, no_h3, max, exact, max, &reply_truncated);
    assert_true(reply_len > 0 && reply_len <= max);
    memcpy(reply, exact, reply_len);
    free(exact);
    assert_int_equal(reply[2] & 0x84, 0x80); /* QR, never AA */
    assert_int_equal(reply[3] & 0xa0, 0x80); /* RA, never AD */
    assert_int_equal(sm_dns_response_parse(reply, reply_len, q->id, q, &again), SM_DNS_RESPONSE_OK);
    assert_int_equal(again.truncated, reply_truncated);
}

static unsigned count(unsigned section)
{
    return (unsigned)reply[6 + 2 * section] << 8 | reply[7 + 2 * section];
}

static bool reply_has(const void *bytes, size_t len)
{
    return memmem(reply, reply_len, bytes, len) != NULL;
}

static void test_chain(void **state)
{
    struct sm_dns_query q = query_for("WWW.ok.test", SM_DNS_A);
    char text[SM_DNS_NAME_TEXT_MAX];

    (void)state;
    /* Out of order, other case, with strangers between: a record for another name, another class, another type. */
    start(0x5555, 0x85a0, 1, 7, 0, 0); /* AA and AD set */
    question("www.ok.test", SM_DNS_A);
    rr_a("EDGE.cdn.test", 50, 1);
    rr_a("evil.test", 60, 66);
    rr_name("cdn.test", SM_DNS_CNAME, 300, "edge.cdn.test");
    rr("edge.cdn.test", SM_DNS_A, 3, 60, "\1\2\3\4", 4);
    rr("edge.cdn.test", SM_DNS_TXT, 1, 60, "\1x", 2);
    rr_name("www.OK.test", SM_DNS_CNAME, 40, "cdn.test");
    rr_a("edge.cdn.test", 70, 2);
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
    assert_int_equal(resp.chain_len, 2);
    assert_int_equal(resp.n_addrs, 2);
    assert_int_equal(resp.n_final, 2);
    assert_int_equal(resp.addrs[0].bytes[3], 1);
    assert_int_equal(resp.addrs[1].bytes[3], 2);
    assert_int_equal(resp.min_ttl, 40);
    assert_string_equal(sm_dns_name_text(&resp.final, text), "edge.cdn.test");

    encode(&q, 512);
    assert_false(reply_truncated);
    assert_int_equal(count(0), 4);
    assert_int_equal(count(1), 0);
    assert_int_equal(count(2), 0);
    assert_int_equal(reply[0] << 8 | reply[1], 0x1234);
    assert_true(reply_has("\3WWW\2ok", 7)); /* the letters that were asked */
    assert_false(reply_has("\4evil", 5));
    assert_int_equal(again.n_addrs, 2);
    assert_int_equal(again.chain_len, 2);
    assert_int_equal(again.min_ttl, 40);
    assert_true(reply_len < m.len);

    /* CNAME itself asked for: not followed. */
    q = query_for("www.ok.test", SM_DNS_CNAME);
    start(0x5555, 0x8180, 1, 2, 0, 0);
    question("www.ok.test", SM_DNS_CNAME);
    rr_name("www.ok.test", SM_DNS_CNAME, 40, "cdn.test");
    rr_name("cdn.test", SM_DNS_CNAME, 40, "x.test");
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
    assert_int_equal(resp.chain_len, 0);
    assert_int_equal(resp.n_final, 1);
    encode(&q, 512);
    assert_int_equal(count(0), 1);

    /* DNAME above the name is kept with the CNAME that comes of it; one elsewhere is not. */
    q = query_for("a.old.test", SM_DNS_A);
    start(0x5555, 0x8180, 1, 4, 0, 0);
    question("a.old.test", SM_DNS_A);
    rr_name("old.test", SM_DNS_DNAME, 40, "new.test");
    rr_name("else.test", SM_DNS_DNAME, 40, "new.test");
    rr_name("a.old.test", SM_DNS_CNAME, 40, "a.new.test");
    rr_a("a.new.test", 90, 9);
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
    encode(&q, 512);
    assert_int_equal(count(0), 3);
    assert_int_equal(again.n_addrs, 1);
}

static void test_response_mismatch(void **state)
{
    struct sm_dns_query q = query_for("ok.test", SM_DNS_A);
    static const struct {
        uint16_t id, flags, qd;
        const char *name;
        uint16_t type;
    } cases[] = {
        {0x5554, 0x8180, 1, "ok.test", SM_DNS_A},    {0x5555, 0x0180, 1, "ok.test", SM_DNS_A},
        {0x5555, 0xa180, 1, "ok.test", SM_DNS_A},    {0x5555, 0x8180, 0, "ok.test", SM_DNS_A},
        {0x5555, 0x8180, 2, "ok.test", SM_DNS_A},    {0x5555, 0x8180, 1, "evil.test", SM_DNS_A},
        {0x5555, 0x8180, 1, "ok.test", SM_DNS_AAAA},
    };
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        start(cases[i].id, cases[i].flags, cases[i].qd, 1, 0, 0);
        question(cases[i].name, cases[i].type);
        rr_a(cases[i].name, 60, 1);
        assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_MISMATCH);
    }
    start(0x5555, 0x8180, 1, 0, 0, 0);
    question("ok.test", SM_DNS_A);
    buf[m.len - 1] = 3;
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_MISMATCH);
}

static void test_response_malformed(void **state)
{
    struct sm_dns_query q = query_for("ok.test", SM_DNS_A);

    (void)state;
    /* Counts that say more or less than there is. */
    for (uint16_t n = 0; n < 4; n++) {
        start(0x5555, 0x8180, 1, n, 0, 0);
        question("ok.test", SM_DNS_A);
        rr_a("ok.test", 60, 1);
        rr_a("ok.test", 60, 2);
        assert_int_equal(parse_response(&q), n == 2 ? SM_DNS_RESPONSE_OK : SM_DNS_RESPONSE_MALFORMED);
    }
    start(0x5555, 0x8180, 1, 0xffff, 0xffff, 0xffff);
    question("ok.test", SM_DNS_A);
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_MALFORMED);
    /* Too many records. */
    for (uint16_t n = SM_DNS_RECORDS_MAX; n <= SM_DNS_RECORDS_MAX + 1; n++) {
        start(0x5555, 0x8180, 1, n, 0, 0);
        question("ok.test", SM_DNS_A);
        for (unsigned i = 0; i < n; i++)
            rr("ok.test", SM_DNS_TXT, 1, 1, "\1x", 2);
        assert_int_equal(parse_response(&q), n == SM_DNS_RECORDS_MAX ? SM_DNS_RESPONSE_OK : SM_DNS_RESPONSE_MALFORMED);
    }
    /* Loops, of one and of two. */
    start(0x5555, 0x8180, 1, 1, 0, 0);
    question("ok.test", SM_DNS_A);
    rr_name("ok.test", SM_DNS_CNAME, 60, "ok.test");
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_MALFORMED);
    start(0x5555, 0x8180, 1, 2, 0, 0);
    question("ok.test", SM_DNS_A);
    rr_name("ok.test", SM_DNS_CNAME, 60, "b.test");
    rr_name("b.test", SM_DNS_CNAME, 60, "ok.test");
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_MALFORMED);
    /* Two targets. */
    start(0x5555, 0x8180, 1, 2, 0, 0);
    question("ok.test", SM_DNS_A);
    rr_name("ok.test", SM_DNS_CNAME, 60, "b.test");
    rr_name("ok.test", SM_DNS_CNAME, 60, "c.test");
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_MALFORMED);
    /* A CNAME with something behind its name, and an address of five bytes. */
    start(0x5555, 0x8180, 1, 1, 0, 0);
    question("ok.test", SM_DNS_A);
    rr("ok.test", SM_DNS_CNAME, 1, 60, "\1a\0x", 4);
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_MALFORMED);
    start(0x5555, 0x8180, 1, 1, 0, 0);
    question("ok.test", SM_DNS_A);
    rr("ok.test", SM_DNS_A, 1, 60, "\1\2\3\4\5", 5);
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_MALFORMED);
    /* An RDATA name that reads beyond its RDATA. */
    start(0x5555, 0x8180, 1, 1, 0, 0);
    question("ok.test", SM_DNS_A);
    rr("ok.test", SM_DNS_CNAME, 1, 60, "\5ab", 3);
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_MALFORMED);
    /* OPT twice, and in the wrong section. */
    start(0x5555, 0x8180, 1, 0, 0, 2);
    question("ok.test", SM_DNS_A);
    opt(512, 0, "", 0);
    opt(512, 0, "", 0);
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_MALFORMED);
    start(0x5555, 0x8180, 1, 1, 0, 0);
    question("ok.test", SM_DNS_A);
    opt(512, 0, "", 0);
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_MALFORMED);
    /* Chains up to the limit, and one longer. */
    for (unsigned n = SM_DNS_CHAIN_MAX; n <= SM_DNS_CHAIN_MAX + 1; n++) {
        char owner[32], target[32];
        start(0x5555, 0x8180, 1, (uint16_t)n, 0, 0);
        question("ok.test", SM_DNS_A);
        for (unsigned i = 0; i < n; i++) {
            snprintf(owner, sizeof(owner), "c%u.test", i);
            snprintf(target, sizeof(target), "c%u.test", i + 1);
            rr_name(i == 0 ? "ok.test" : owner, SM_DNS_CNAME, 60, target);
        }
        assert_int_equal(parse_response(&q), n == SM_DNS_CHAIN_MAX ? SM_DNS_RESPONSE_OK : SM_DNS_RESPONSE_MALFORMED);
        if (n == SM_DNS_CHAIN_MAX)
            encode(&q, 4096);
    }
}

static void test_negative_answers(void **state)
{
    static const uint8_t soa[] = "\2ns\7example\0\4root\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0\5";
    struct sm_dns_query q = query_for("no.ok.test", SM_DNS_A);

    (void)state;
    start(0x5555, 0x8183, 1, 1, 4, 1);
    question("no.ok.test", SM_DNS_A);
    rr_name("no.ok.test", SM_DNS_CNAME, 30, "gone.ok.test");
    rr("evil.test", SM_DNS_SOA, 1, 300, soa, sizeof(soa) - 1);
    rr_name("ok.test", SM_DNS_NS, 300, "ns.ok.test");
    rr("ok.test", SM_DNS_SOA, 1, 300, soa, sizeof(soa) - 1);
    rr("x.ok.test", SM_DNS_NSEC, 1, 300, "\1y\2ok\4test\0\0\1\x40", 15);
    rr_a("ns.ok.test", 60, 3);
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
    assert_int_equal(resp.rcode, SM_DNS_NXDOMAIN);
    assert_int_equal(resp.n_addrs, 0);
    encode(&q, 512);
    assert_int_equal(reply[3] & 15, SM_DNS_NXDOMAIN);
    assert_int_equal(count(0), 1);
    assert_int_equal(count(1), 1);
    assert_int_equal(count(2), 0);
    assert_false(reply_has("\4evil", 5));
    /* With DO the proofs come too. */
    q.edns = q.dnssec_ok = true;
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
    encode(&q, 512);
    assert_int_equal(count(1), 2);
    assert_int_equal(count(2), 1);
    assert_memory_equal(reply + reply_len - 11, "\0\0\x29\x04\xd0\0\0\x80\0\0\0", 11);
}

static void test_signatures(void **state)
{
    static const uint8_t sig[] = "\0\1\x0d\2\0\0\0\1\0\0\0\1\0\0\0\1\0\1\2ok\4test\0sigsigsig";
    struct sm_dns_query q = query_for("ok.test", SM_DNS_A);

    (void)state;
    for (int with_do = 0; with_do < 2; with_do++) {
        q.edns = q.dnssec_ok = with_do;
        start(0x5555, 0x81a0, 1, 2, 0, 0);
        question("ok.test", SM_DNS_A);
        rr_a("ok.test", 60, 1);
        rr("ok.test", SM_DNS_RRSIG, 1, 60, sig, sizeof(sig) - 1);
        assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
        encode(&q, 512);
        assert_int_equal(count(0), with_do ? 2 : 1);
    }
}

static void test_https_records(void **state)
{
    /* priority 1, target "."; mandatory {alpn, ech}, alpn h2, port 443, ipv4hint, ech, ipv6hint, a private key. */
    static const uint8_t in[] = "\0\1\0"
                                "\0\0\0\4\0\1\0\5"
                                "\0\1\0\3\2h2"
                                "\0\3\0\2\1\xbb"
                                "\0\4\0\4\1\2\3\4"
                                "\0\5\0\5ECHXX"
                                "\0\6\0\x10"
                                "0123456789abcdef"
                                "\xff\0\0\2zz";
    static const uint8_t out[] = "\0\1\0"
                                 "\0\0\0\2\0\1"
                                 "\0\1\0\3\2h2"
                                 "\0\3\0\2\1\xbb"
                                 "\xff\0\0\2zz";
    struct sm_dns_query q = query_for("ok.test", SM_DNS_HTTPS);
    static const uint16_t types[] = {SM_DNS_HTTPS, SM_DNS_SVCB};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        q.qtype = types[i];
        start(0x5555, 0x8180, 1, 1, 0, 0);
        question("ok.test", types[i]);
        rr("ok.test", types[i], 1, 60, in, sizeof(in) - 1);
        assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
        encode(&q, 512);
        assert_int_equal(count(0), 1);
        assert_false(reply_has("ECHXX", 5));
        assert_int_equal(reply_len, 12 + 13 + 12 + sizeof(out) - 1);
        assert_memory_equal(reply + reply_len - (sizeof(out) - 1), out, sizeof(out) - 1);
        assert_int_equal(reply[reply_len - (sizeof(out) - 1) - 1], sizeof(out) - 1);
    }
    q.qtype = SM_DNS_HTTPS;
    /* `mandatory` of ech alone goes with it; AliasMode keeps its target and nothing else; the target is not compressed.
     */
    static const struct {
        const char *in, *out;
        size_t in_len, out_len;
    } cases[] = {
        {"\0\1\0\0\0\0\2\0\5\0\5\0\2EC", "\0\1\0", 15, 3},
        {"\0\0\2ok\4test\0\0\1\0\3\2h2", "\0\0\2ok\4test\0", 18, 11},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        start(0x5555, 0x8180, 1, 1, 0, 0);
        question("ok.test", SM_DNS_HTTPS);
        rr("ok.test", SM_DNS_HTTPS, 1, 60, cases[i].in, cases[i].in_len);
        assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
        encode(&q, 512);
        assert_int_equal(count(0), 1);
        assert_int_equal(reply[reply_len - cases[i].out_len - 1], cases[i].out_len);
        assert_memory_equal(reply + reply_len - cases[i].out_len, cases[i].out, cases[i].out_len);
    }
    /* Malformed: keys not rising (ech could stand twice), lengths that lie, half a header. The record goes, the reply
     * stays. */
    static const struct {
        const char *in;
        size_t len;
    } bad[] = {
        {"\0\1\0\0\5\0\0\0\5\0\0", 11}, {"\0\1\0\0\5\0\0\0\1\0\0", 11}, {"\0\1\0\0\5\0\7xx", 9}, {"\0\1\0\0\5", 5},
        {"\0\1\0\0\0\0\1x", 8},         {"\0\1\0\0\0\0\0", 7},          {"\0\1\3ab", 5},         {"\0", 1},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        start(0x5555, 0x8180, 1, 1, 0, 0);
        question("ok.test", SM_DNS_HTTPS);
        rr("ok.test", SM_DNS_HTTPS, 1, 60, bad[i].in, bad[i].len);
        assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
        encode(&q, 512);
        assert_int_equal(count(0), 0);
    }
}

static void test_https_without_h3(void **state)
{
    static const struct {
        const char *in, *out; /* RDATA; out NULL: the record is left out */
        size_t in_len, out_len;
    } cases[] = {
#define RR(in, out)                                                                                                    \
    {                                                                                                                  \
        in, out, sizeof(in) - 1, sizeof(out) - 1                                                                       \
    }
#define GONE(in)                                                                                                       \
    {                                                                                                                  \
        in, NULL, sizeof(in) - 1, 0                                                                                    \
    }
        /* The usual browser record, and h3's drafts. */
        RR("\0\1\0\0\1\0\6\2h3\2h2", "\0\1\0\0\1\0\3\2h2"),
        RR("\0\1\0\0\1\0\x1d\5h3-29\2h3\2h2\7h3-Q050\10http/1.1", "\0\1\0\0\1\0\x0c\2h2\10http/1.1"),
        /* Only what is HTTP/3 goes; ids compare as bytes. */
        RR("\0\1\0\0\1\0\x0c\2H3\3h3x\4h\0003-", "\0\1\0\0\1\0\x0c\2H3\3h3x\4h\0003-"),
        RR("\0\1\0\0\1\0\2\1h", "\0\1\0\0\1\0\2\1h"),
        /* Nothing left: the parameter goes, and the scheme's default holds. */
        RR("\0\1\0\0\1\0\3\2h3", "\0\1\0"),
        RR("\0\1\0\0\1\0\3\2h3\0\3\0\2\1\xbb", "\0\1\0\0\3\0\2\1\xbb"),
        /* `mandatory` names what is there: alpn stays in it while alpn stays, and goes with it. */
        RR("\0\1\0\0\0\0\4\0\1\0\3\0\1\0\6\2h3\2h2\0\3\0\2\1\xbb", "\0\1\0\0\0\0\4\0\1\0\3\0\1\0\3\2h2\0\3\0\2\1\xbb"),
        RR("\0\1\0\0\0\0\4\0\1\0\3\0\1\0\3\2h3\0\3\0\2\1\xbb", "\0\1\0\0\0\0\2\0\3\0\3\0\2\1\xbb"),
        RR("\0\1\0\0\0\0\2\0\1\0\1\0\3\2h3", "\0\1\0"),
        /* no-default-alpn stays with an alpn; without one the place speaks HTTP/3 alone. */
        RR("\0\1\0\0\1\0\6\2h3\2h2\0\2\0\0", "\0\1\0\0\1\0\3\2h2\0\2\0\0"),
        GONE("\0\1\0\0\1\0\3\2h3\0\2\0\0"),
        GONE("\0\1\0\0\0\0\4\0\1\0\2\0\1\0\3\2h3\0\2\0\0"),
        GONE("\0\1\0\0\2\0\0"),
        /* Together with ech and hints; AliasMode says nothing. */
        RR("\0\1\0\0\1\0\6\2h3\2h2\0\4\0\4\1\2\3\4\0\5\0\2EC", "\0\1\0\0\1\0\3\2h2"),
        RR("\0\0\2ok\4test\0\0\1\0\3\2h3\0\2\0\0", "\0\0\2ok\4test\0"),
        /* `mandatory` that names what is not there, itself, or out of order: no client would take the record. */
        GONE("\0\1\0\0\0\0\2\0\1\0\3\0\2\1\xbb"),
        GONE("\0\1\0\0\0\0\2\0\7\0\3\0\2\1\xbb"),
        GONE("\0\1\0\0\0\0\2\0\0\0\3\0\2\1\xbb"),
        GONE("\0\1\0\0\0\0\4\0\3\0\1\0\1\0\3\2h2\0\3\0\2\1\xbb"),
        GONE("\0\1\0\0\0\0\4\0\1\0\1\0\1\0\3\2h2"),
        /* alpn that is no list of ids. */
        GONE("\0\1\0\0\1\0\0"),
        GONE("\0\1\0\0\1\0\1\0"),
        GONE("\0\1\0\0\1\0\4\2h3\0"),
        GONE("\0\1\0\0\1\0\4\3h2\0\0"),
        GONE("\0\1\0\0\1\0\3\3h2"),
#undef RR
#undef GONE
    };
    static const uint16_t types[] = {SM_DNS_HTTPS, SM_DNS_SVCB};
    struct sm_dns_query q = query_for("ok.test", SM_DNS_HTTPS);

    (void)state;
    for (size_t i = 0; i < 2 * SM_ARRAY_LEN(cases); i++) {
        size_t c = i / 2;
        q.qtype = types[i % 2];
        start(0x5555, 0x81a0, 1, 1, 0, 0);
        question("ok.test", q.qtype);
        rr("ok.test", q.qtype, 1, 60, cases[c].in, cases[c].in_len);
        assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
        no_h3 = true;
        encode(&q, 512);
        no_h3 = false;
        assert_int_equal(count(0), cases[c].out != NULL);
        if (cases[c].out) {
            assert_int_equal(reply_len, 12 + 13 + 12 + cases[c].out_len);
            assert_int_equal(reply[reply_len - cases[c].out_len - 1], cases[c].out_len);
            assert_memory_equal(reply + reply_len - cases[c].out_len, cases[c].out, cases[c].out_len);
        } else {
            assert_int_equal(reply_len, 12 + 13);
        }
    }
    /* A record that is left out takes no other with it; a name that is not intercepted keeps its h3. */
    q.qtype = SM_DNS_HTTPS;
    for (int strip = 0; strip < 2; strip++) {
        start(0x5555, 0x8180, 1, 2, 0, 0);
        question("ok.test", SM_DNS_HTTPS);
        rr("ok.test", SM_DNS_HTTPS, 1, 60, "\0\1\0\0\1\0\3\2h3\0\2\0\0", 14);
        rr("ok.test", SM_DNS_HTTPS, 1, 60, "\0\2\0\0\1\0\6\2h3\2h2", 13);
        assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
        no_h3 = strip;
        encode(&q, 512);
        no_h3 = false;
        assert_int_equal(count(0), strip ? 1 : 2);
        assert_int_equal(reply_has("\2h3", 3), !strip);
        assert_true(reply_has("\2h2", 3));
    }
}

/* Names inside RDATA that point into the upstream's message must mean the same in ours. */
static void test_rdata_names_are_moved(void **state)
{
    static const struct {
        uint16_t type;
        const char *prefix;
        size_t prefix_len;
        unsigned names;
        const char *suffix;
        size_t suffix_len;
    } types[] = {
        {SM_DNS_MX, "\0\x0a", 2, 1, "", 0},
        {SM_DNS_NS, "", 0, 1, "", 0},
        {SM_DNS_PTR, "", 0, 1, "", 0},
        {SM_DNS_SRV, "\0\1\0\2\0\x50", 6, 1, "", 0},
        {SM_DNS_SOA, "", 0, 2, "01234567890123456789", 20},
        {17, "", 0, 2, "", 0},
        {35, "\0\1\0\2\1u\3abc\0", 10 + 1, 1, "", 0},
    };
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(types); i++) {
        struct sm_dns_query q = query_for("a.ok.test", types[i].type);
        start(0x5555, 0x8180, 1, 2, 0, 0);
        question("a.ok.test", types[i].type);
        rr("stranger.evil.test", SM_DNS_TXT, 1, 60, "\3far", 4); /* so that offsets differ */
        size_t far = m.len;
        put_name("a.ok.test");
        sm_wr_u16(&m, types[i].type);
        sm_wr_u16(&m, 1);
        sm_wr_u32(&m, 60);
        sm_wr_u16(&m, (uint16_t)(types[i].prefix_len + types[i].names * 5 + types[i].suffix_len));
        sm_wr_bytes(&m, types[i].prefix, types[i].prefix_len);
        for (unsigned n = 0; n < types[i].names; n++) {
            sm_wr_bytes(&m, "\2mx", 3);
            sm_wr_u16(&m, (uint16_t)(0xc000 | (far + 2))); /* ok.test of this record's owner */
        }
        sm_wr_bytes(&m, types[i].suffix, types[i].suffix_len);
        assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
        encode(&q, 512);
        assert_int_equal(count(0), 1);
        struct sm_rd r = sm_rd_init(reply, reply_len);
        struct sm_dns_name name, want;
        assert_true(sm_dns_name_from_text("mx.ok.test", &want));
        sm_rd_skip(&r, 12);
        sm_dns_name_read(&r, &name);
        sm_rd_skip(&r, 4);
        sm_dns_name_read(&r, &name);
        sm_rd_skip(&r, 8);
        size_t rdlen = sm_rd_u16(&r);
        assert_int_equal(rdlen, sm_rd_left(&r));
        sm_rd_skip(&r, types[i].prefix_len);
        for (unsigned n = 0; n < types[i].names; n++) {
            assert_true(sm_dns_name_read(&r, &name));
            assert_true(sm_dns_name_equal(&name, &want));
        }
        sm_rd_skip(&r, types[i].suffix_len);
        assert_true(sm_rd_done(&r));
    }
}

static void test_truncation(void **state)
{
    struct sm_dns_query q = query_for("big.ok.test", SM_DNS_TXT);
    uint8_t txt[256];

    (void)state;
    memset(txt, 'x', sizeof(txt));
    txt[0] = 255;
    start(0x5555, 0x8180, 1, 8, 0, 0);
    question("big.ok.test", SM_DNS_TXT);
    for (unsigned i = 0; i < 8; i++)
        rr("big.ok.test", SM_DNS_TXT, 1, 60, txt, sizeof(txt));
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
    static const size_t sizes[] = {512, 1232, 2000};
    for (size_t i = 0; i < SM_ARRAY_LEN(sizes); i++) {
        for (int edns = 0; edns < 2; edns++) {
            q.edns = edns;
            encode(&q, sizes[i]);
            assert_true(reply_truncated);
            assert_int_equal(count(0), 0);
            assert_int_equal(count(2), edns);
        }
    }
    encode(&q, SM_DNS_MESSAGE_MAX);
    assert_false(reply_truncated);
    assert_int_equal(count(0), 8);
    /* At every size it is whole or empty. */
    size_t whole = reply_len;
    for (size_t max = 300; max < whole + 3; max++) {
        encode(&q, max);
        assert_int_equal(reply_truncated, max < whole);
        assert_int_equal(count(0), max < whole ? 0 : 8);
    }
    /* An upstream that still says TC makes a truncated reply. */
    buf[2] |= 2;
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
    assert_true(resp.truncated);
    encode(&q, SM_DNS_MESSAGE_MAX);
    assert_true(reply_truncated);

    /* More addresses than are pinned are not given either. */
    q = query_for("many.test", SM_DNS_A);
    start(0x5555, 0x8180, 1, 100, 0, 0);
    question("many.test", SM_DNS_A);
    for (unsigned i = 0; i < 100; i++)
        rr_a("many.test", 60, (uint8_t)i);
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
    assert_int_equal(resp.n_addrs, SM_DNS_ADDRS_MAX);
    encode(&q, SM_DNS_MESSAGE_MAX);
    assert_int_equal(count(0), SM_DNS_ADDRS_MAX);
}

static void test_ttl_and_extended_rcode(void **state)
{
    struct sm_dns_query q = query_for("ok.test", SM_DNS_A);

    (void)state;
    start(0x5555, 0x8180, 1, 1, 0, 0);
    question("ok.test", SM_DNS_A);
    rr_a("ok.test", 0x80000001u, 1);
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
    assert_int_equal(resp.min_ttl, 0);
    start(0x5555, 0x8187, 1, 0, 0, 1);
    question("ok.test", SM_DNS_A);
    opt(512, 0x01000000, "", 0);
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
    assert_int_equal((int)resp.rcode, 23);
    encode(&q, 512);
    assert_int_equal(reply[3] & 15, SM_DNS_SERVFAIL);
    q.edns = true;
    encode(&q, 512);
    assert_int_equal(reply[3] & 15, 7);
    assert_int_equal((int)again.rcode, 23);
}

static void test_simple_replies(void **state)
{
    struct sm_dns_query q = query_for("No.Test", SM_DNS_A);
    uint8_t out[512];

    (void)state;
    size_t len = sm_dns_reply_simple(&q, SM_DNS_REFUSED, out, sizeof(out));
    static const uint8_t want[] = {0x12, 0x34, 0x81, 0x85, 0,   1,   0,   0, 0, 0, 0, 0, 2,
                                   'N',  'o',  4,    'T',  'e', 's', 't', 0, 0, 1, 0, 1};
    assert_int_equal(len, sizeof(want));
    assert_memory_equal(out, want, len);
    for (size_t cap = 0; cap < len; cap++)
        assert_int_equal(sm_dns_reply_simple(&q, SM_DNS_REFUSED, out, cap), 0);
    q.edns = true;
    q.cd = true;
    q.rd = false;
    len = sm_dns_reply_simple(&q, SM_DNS_BADVERS, out, sizeof(out));
    assert_int_equal(len, sizeof(want) + 11);
    assert_int_equal(out[2] << 8 | out[3], 0x8090);
    assert_int_equal(out[len - 6], 1); /* the extended part of 16 */
    assert_string_equal(sm_dns_rcode_name(SM_DNS_REFUSED), "REFUSED");
    assert_string_equal(sm_dns_type_name(SM_DNS_HTTPS), "HTTPS");
    assert_null(sm_dns_type_name(1000));
}

/* Cut and damaged at every byte: never believed wrongly long, never read outside (the sanitizers watch), and what is
 * encoded is sound. */
static void test_damage(void **state)
{
    struct sm_dns_query q = query_for("www.ok.test", SM_DNS_A);
    static uint8_t good[1024];
    uint8_t out[2048];
    bool truncated;

    (void)state;
    q.edns = q.dnssec_ok = true;
    start(0x5555, 0x8180, 1, 3, 1, 1);
    question("www.ok.test", SM_DNS_A);
    rr_name("www.ok.test", SM_DNS_CNAME, 40, "cdn.test");
    rr_a("cdn.test", 70, 2);
    rr("cdn.test", SM_DNS_RRSIG, 1, 60, "\0\1\x0d\2\0\0\0\1\0\0\0\1\0\0\0\1\0\1\2ok\4test\0sig", 31);
    rr("test", SM_DNS_SOA, 1, 300,
       "\1a\0\1b\0"
       "01234567890123456789",
       26);
    opt(1232, 0x8000, "\0\3\0\1x", 5);
    size_t len = m.len;
    memcpy(good, buf, len);
    assert_int_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
    assert_int_equal(resp.n_addrs, 1);
    for (m.len = 0; m.len < len; m.len++)
        assert_int_not_equal(parse_response(&q), SM_DNS_RESPONSE_OK);
    m.len = len;
    for (size_t i = 0; i < len; i++) {
        for (unsigned v = 0; v < 256; v++) {
            memcpy(buf, good, len);
            buf[i] = (uint8_t)v;
            if (parse_response(&q) != SM_DNS_RESPONSE_OK)
                continue;
            size_t n = sm_dns_reply_encode(&q, &resp, true, sizeof(out), out, sizeof(out), &truncated);
            assert_true(n > 0);
            assert_int_equal(sm_dns_response_parse(out, n, q.id, &q, &again), SM_DNS_RESPONSE_OK);
        }
    }
}

/* ---- TCP framing ---- */

static void test_frames(void **state)
{
    uint8_t stream[200];
    const uint8_t *msg = NULL;
    size_t n = 0;
    bool bad;

    (void)state;
    memset(stream, 7, sizeof(stream));
    stream[0] = 0;
    stream[1] = 12;
    stream[14] = 0;
    stream[15] = 100;
    for (size_t len = 0; len < 14; len++) {
        assert_int_equal(sm_dns_frame_next(stream, len, 100, &msg, &n, &bad), 0);
        assert_false(bad);
    }
    assert_int_equal(sm_dns_frame_next(stream, sizeof(stream), 100, &msg, &n, &bad), 14);
    assert_ptr_equal(msg, stream + 2);
    assert_int_equal(n, 12);
    /* The next one, pipelined behind it. */
    assert_int_equal(sm_dns_frame_next(stream + 14, sizeof(stream) - 14, 100, &msg, &n, &bad), 102);
    assert_int_equal(n, 100);
    assert_int_equal(sm_dns_frame_next(stream + 14, sizeof(stream) - 14, 99, &msg, &n, &bad), 0);
    assert_true(bad);
    stream[1] = 11;
    assert_int_equal(sm_dns_frame_next(stream, 2, 100, &msg, &n, &bad), 0);
    assert_true(bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_name_compression),
        cmocka_unit_test(test_query),
        cmocka_unit_test(test_query_faults),
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_response_mismatch),
        cmocka_unit_test(test_response_malformed),
        cmocka_unit_test(test_negative_answers),
        cmocka_unit_test(test_signatures),
        cmocka_unit_test(test_https_records),
        cmocka_unit_test(test_https_without_h3),
        cmocka_unit_test(test_rdata_names_are_moved),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_ttl_and_extended_rcode),
        cmocka_unit_test(test_simple_replies),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
