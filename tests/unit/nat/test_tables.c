/* SPDX-License-Identifier: BSD-3-Clause */
/* The small pure parts: holds, counts of others, the port's queue, the configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "frames.h"
#include "nat/config.h"
#include "nat/holds.h"
#include "nat/others.h"
#include "nat/port.h"

static uint64_t reported;
static unsigned reports;
static bool accept_reports = true;

static bool on_hold(const struct sm_hold_key *key, uint32_t count, void *data)
{
    if (accept_reports) {
        reported += count;
        reports++;
    }
    return accept_reports;
}

static bool on_other(enum sm_flow_other kind, uint8_t proto, const struct sm_addr *dst, uint32_t count, void *data)
{
    assert_int_not_equal(dst->family, SM_FAMILY_NONE);
    if (accept_reports) {
        reported += count;
        reports++;
    }
    return accept_reports;
}

static int setup(void **state)
{
    reported = 0;
    reports = 0;
    accept_reports = true;
    return 0;
}

static struct sm_holds holds;
static const uint64_t secret[2] = {11, 22};

static void test_holds(void **state)
{
    struct sm_hold_key k = {.dst = 1, .dst_port = 80, .src_port = 4000, .proto = 6};
    enum sm_flow_how how;

    sm_holds_init(&holds, secret);
    assert_false(sm_holds_match(&holds, &k, 0, &how));
    sm_holds_add(&holds, &k, SM_SCOPE_TUPLE, SM_HOW_RST, 100, 0, on_hold, NULL);
    assert_true(sm_holds_match(&holds, &k, 0, &how));
    assert_int_equal(how, SM_HOW_RST);
    assert_true(sm_holds_match(&holds, &k, 99999, &how));
    assert_false(sm_holds_match(&holds, &k, 100000, &how));
    struct sm_hold_key other = k;
    other.src_port++;
    assert_false(sm_holds_match(&holds, &other, 0, &how));
    sm_holds_add(&holds, &k, SM_SCOPE_DESTINATION, SM_HOW_ICMP_ADMIN, 100, 0, on_hold, NULL);
    assert_true(sm_holds_match(&holds, &other, 0, &how));
    assert_int_equal(how, SM_HOW_ICMP_ADMIN);
    other.proto = 17;
    assert_false(sm_holds_match(&holds, &other, 0, &how));
    /* A count that cannot be told is kept. */
    accept_reports = false;
    sm_holds_report(&holds, on_hold, NULL);
    accept_reports = true;
    sm_holds_report(&holds, on_hold, NULL);
    assert_int_equal(reported, 3);
    assert_int_equal(holds.untold, 0);
    sm_holds_release(&holds);
    assert_false(sm_holds_match(&holds, &k, 0, &how));
    /* A hold of no time is none, an absurd one is cut. */
    sm_holds_add(&holds, &k, SM_SCOPE_TUPLE, SM_HOW_RST, 0, 0, on_hold, NULL);
    assert_false(sm_holds_match(&holds, &k, 0, &how));
    sm_holds_add(&holds, &k, SM_SCOPE_TUPLE, SM_HOW_RST, UINT32_MAX, 0, on_hold, NULL);
    assert_true(sm_holds_match(&holds, &k, SM_HOLDS_MS_MAX * INT64_C(1000) - 1, &how));
    assert_false(sm_holds_match(&holds, &k, SM_HOLDS_MS_MAX * INT64_C(1000), &how));
}

/* Ten times as many holds as there is room: what is answered is always right, most of the table is in use, no count is
 * lost. */
static void test_holds_full(void **state)
{
    const unsigned all = 10 * SM_HOLDS_SETS * SM_HOLDS_WAYS;
    enum sm_flow_how how;
    uint64_t matched = 0;

    sm_holds_init(&holds, secret);
    for (unsigned i = 0; i < all; i++) {
        struct sm_hold_key k = {.dst = i, .dst_port = 80, .src_port = 4000, .proto = 6};
        sm_holds_add(&holds, &k, SM_SCOPE_TUPLE, i % 2 ? SM_HOW_RST : SM_HOW_SILENT, 1000, i, on_hold, NULL);
        assert_true(sm_holds_match(&holds, &k, i, &how));
        matched++;
    }
    unsigned alive = 0;
    for (unsigned i = 0; i < all; i++) {
        struct sm_hold_key k = {.dst = i, .dst_port = 80, .src_port = 4000, .proto = 6};
        if (!sm_holds_match(&holds, &k, all, &how))
            continue;
        matched++;
        alive++;
        assert_int_equal(how, i % 2 ? SM_HOW_RST : SM_HOW_SILENT);
    }
    assert_in_range(alive, SM_HOLDS_SETS * SM_HOLDS_WAYS * 9 / 10, SM_HOLDS_SETS * SM_HOLDS_WAYS);
    sm_holds_report(&holds, on_hold, NULL);
    assert_int_equal(reported, matched);
}

static void test_others(void **state)
{
    static struct sm_others o;
    struct sm_addr a = sm_addr_v4(1, 2, 3, 4), none = {0};

    sm_others_add(&o, SM_OTHER_ICMP, 1, &a, on_other, NULL);
    assert_int_equal(reports, 1);
    sm_others_add(&o, SM_OTHER_ICMP, 1, &a, on_other, NULL);
    sm_others_add(&o, SM_OTHER_LINK, 0, &none, on_other, NULL);
    assert_int_equal(reports, 2);
    accept_reports = false;
    sm_others_tick(&o, on_other, NULL);
    accept_reports = true;
    assert_false(sm_others_idle(&o));
    sm_others_tick(&o, on_other, NULL);
    assert_int_equal(reported, 3);
    sm_others_tick(&o, on_other, NULL);
    assert_true(sm_others_idle(&o));
    /* A first one that cannot be told is not lost either. */
    accept_reports = false;
    sm_others_add(&o, SM_OTHER_ICMP, 1, &a, on_other, NULL);
    accept_reports = true;
    sm_others_tick(&o, on_other, NULL);
    assert_int_equal(reported, 4);
}

/* A port whose other side takes `credit` frames and then is full; or dies. */
struct fake {
    struct sm_port port;
    unsigned credit;
    bool dies;
    uint8_t next;
};

static int fake_read(struct sm_port *port, struct sm_frame *frames, unsigned n)
{
    return 0;
}

static int fake_write(struct sm_port *port, const struct sm_frame_out *frames, unsigned n)
{
    struct fake *f = (struct fake *)(void *)port;
    unsigned i;
    if (f->dies)
        return -1;
    for (i = 0; i < n && f->credit > 0; i++, f->credit--) {
        /* In order, whole, with their metadata. */
        uint8_t joined[8];
        size_t len = 0;
        for (unsigned k = 0; k < frames[i].n_iov; k++) {
            if (frames[i].iov[k].iov_len > 0)
                memcpy(joined + len, frames[i].iov[k].iov_base, frames[i].iov[k].iov_len);
            len += frames[i].iov[k].iov_len;
        }
        assert_int_equal(len, 2);
        assert_int_equal(joined[0], f->next);
        assert_int_equal(joined[1], (uint8_t)~f->next);
        assert_int_equal(frames[i].offload.gso_size, f->next);
        f->next++;
    }
    return (int)i;
}

static void fake_free(struct sm_port *port)
{
}

static void send_one(struct fake *f, uint8_t number)
{
    uint8_t a = number, b = (uint8_t)~number;
    struct iovec iov[3] = {{&a, 1}, {NULL, 0}, {&b, 1}};
    struct sm_frame_out out = {.iov = iov, .n_iov = 3, .offload = {.gso_size = number}};
    assert_int_equal(sm_port_send(&f->port, &out), 0);
}

/* What waits for a driver that has agreed to it does not reach one that has not. */
static void test_port_offloads(void **state)
{
    static const struct sm_port_ops ops = {.name = "fake", .read = fake_read, .write = fake_write, .free = fake_free};
    struct fake f = {.credit = 1};
    const uint8_t parts[4][2] = {{0, 0xff}, {1, 0xfe}, {2, 0xfd}, {3, 0xfc}};
    const struct sm_offload offloads[] = {
        {.gso_size = 0},
        {.gso_size = 1, .flags = SM_OFFLOAD_NEEDS_CSUM},
        {.gso_size = 2, .flags = SM_OFFLOAD_NEEDS_CSUM, .gso_type = SM_GSO_TCPV4},
        {.gso_size = 3},
    };

    sm_port_init(&f.port, &ops, -1, 1514);
    f.port.connected = true;
    f.port.tx_offloads = SM_OFFLOAD_NEEDS_CSUM | SM_OFFLOAD_GSO(SM_GSO_TCPV4);
    for (unsigned i = 0; i < SM_ARRAY_LEN(offloads); i++) {
        struct iovec iov = {(void *)(uintptr_t)parts[i], 2};
        assert_int_equal(sm_port_send(&f.port, &(struct sm_frame_out){&iov, 1, offloads[i]}), 0);
    }
    assert_int_equal(f.port.queued_frames, 3);
    f.port.tx_offloads = SM_OFFLOAD_NEEDS_CSUM;
    f.credit = 1;
    assert_int_equal(sm_port_flush(&f.port), 0);
    assert_int_equal(f.next, 2);
    assert_int_equal(f.port.queued_frames, 1);
    f.next = 3; /* 2 is not written */
    f.credit = 10;
    assert_int_equal(sm_port_flush(&f.port), 0);
    assert_int_equal(f.next, 4);
    assert_int_equal(f.port.tx_dropped, 1);
    assert_int_equal(f.port.queued_bytes, 0);
    struct iovec iov = {(void *)(uintptr_t)parts[2], 2};
    assert_int_equal(sm_port_send(&f.port, &(struct sm_frame_out){&iov, 1, offloads[2]}), 0);
    assert_int_equal(f.port.tx_dropped, 2);
    assert_int_equal(f.next, 4);
    sm_port_free(&f.port);
}

static void test_port_queue(void **state)
{
    static const struct sm_port_ops ops = {.name = "fake", .read = fake_read, .write = fake_write, .free = fake_free};
    struct fake f = {.credit = 3};

    sm_port_init(&f.port, &ops, -1, 1514);
    f.port.connected = true;
    for (unsigned i = 0; i < 100; i++)
        send_one(&f, (uint8_t)i);
    assert_int_equal(f.next, 3);
    assert_int_equal(f.port.queued_frames, 97);
    assert_true(sm_port_waiting(&f.port));
    f.credit = 20;
    assert_int_equal(sm_port_flush(&f.port), 0);
    assert_int_equal(f.next, 23);
    /* Nothing overtakes what waits. */
    f.credit = 1000;
    send_one(&f, 100);
    assert_int_equal(sm_port_flush(&f.port), 0);
    assert_int_equal(f.next, 101);
    assert_int_equal(f.port.tx_frames, 101);
    assert_int_equal(f.port.queued_bytes, 0);
    assert_false(sm_port_waiting(&f.port));

    f.credit = 0;
    f.next = 0;
    for (unsigned i = 0; i < SM_PORT_QUEUE_FRAMES + 10; i++) {
        send_one(&f, (uint8_t)i);
        assert_int_equal(sm_port_congested(&f.port), i + 1 >= SM_PORT_QUEUE_FRAMES / 2);
    }
    assert_int_equal(f.port.queued_frames, SM_PORT_QUEUE_FRAMES);
    assert_int_equal(f.port.tx_dropped, 10);
    f.dies = true;
    assert_int_equal(sm_port_flush(&f.port), -1);
    sm_port_free(&f.port);
    assert_int_equal(f.port.queued_bytes, 0);
}

#define GOOD                                                                                                           \
    "{\"workspace\":\"ws\",\"mac\":\"52:54:00:12:34:56\",\"gateway_mac\":\"52:55:0a:00:02:02\",\"guest\":\"10.0.2."    \
    "15\","                                                                                                            \
    "\"prefix_len\":24,\"gateway\":\"10.0.2.2\",\"resolver\":\"10.0.2.3\",\"dns\":[\"9.9.9.9\",\"10.0.2.3\"],"         \
    "\"routes\":[\"0.0.0.0/0\",\"172.16.0.0/12\"],\"mtu\":1500,\"dns_any\":true,\"port\":"                             \
    "\"tap\"}"

static void test_config(void **state)
{
    struct sm_nat_config c;
    g_autoptr(GError) error = NULL;

    assert_true(sm_nat_config_parse(GOOD, strlen(GOOD), &c, &error));
    assert_null(error);
    assert_memory_equal(c.link.guest_mac, test_link.guest_mac, 6);
    assert_memory_equal(c.link.our_mac, test_link.our_mac, 6);
    assert_int_equal(c.link.guest, test_link.guest);
    assert_int_equal(c.link.mtu, 1500);
    assert_int_equal(c.link.n_dns, 2);
    assert_int_equal(c.link.dns[0], IP4(9, 9, 9, 9));
    assert_int_equal(c.link.n_routes, 2);
    assert_int_equal(c.link.routes[1].net, IP4(172, 16, 0, 0));
    assert_int_equal(c.link.routes[1].len, 12);
    assert_true(c.dns_any);
    assert_string_equal(c.workspace, "ws");
    assert_string_equal(c.vsock_port, "");
    g_autofree char *vsock =
        g_strdup_printf("%.*s,\"vsock\":{\"port\":\"stream\",\"cid\":77}}", (int)strlen(GOOD) - 1, GOOD);
    assert_true(sm_nat_config_parse(vsock, strlen(vsock), &c, &error));
    assert_string_equal(c.vsock_port, "stream");
    assert_int_equal(c.vsock_cid, 77);
}

/* One replacement in a good configuration; each must be refused and say which key. */
static void test_config_bad(void **state)
{
    static const char *const rows[][3] = {
        {"52:54:00:12:34:56", "53:54:00:12:34:56", "mac"},
        {"52:54:00:12:34:56", "00:00:00:00:00:00", "mac"},
        {"52:54:00:12:34:56", "52:54:00:12:34:5", "mac"},
        {"52:54:00:12:34:56", "52-54-00-12-34-56", "mac"},
        {"52:55:0a:00:02:02", "52:54:00:12:34:56", "guest"},
        {"10.0.2.15", "10.0.3.15", "guest"},
        {"10.0.2.15", "10.0.2.255", "guest"},
        {"10.0.2.15", "10.0.2.0", "guest"},
        {"10.0.2.15", "10.0.2.2", "guest"},
        {"10.0.2.15", "::1", "guest"},
        {"10.0.2.3", "8.8.8.8", "resolver"},
        {"[\"9.9.9.9\",\"10.0.2.3\"]", "[]", "dns"},
        {"[\"9.9.9.9\",\"10.0.2.3\"]", "[\"9.9.9\"]", "dns"},
        {"[\"9.9.9.9\",\"10.0.2.3\"]", "[1]", "dns"},
        {"[\"9.9.9.9\",\"10.0.2.3\"]", "[\"::1\"]", "dns"},
        {"[\"9.9.9.9\",\"10.0.2.3\"]",
         "[\"1.1.1.1\",\"1.1.1.2\",\"1.1.1.3\",\"1.1.1.4\",\"1.1.1.5\",\"1.1.1.6\",\"1.1.1.7\",\"1.1.1.8\",\"1.1.1."
         "9\"]",
         "dns"},
        {"172.16.0.0/12", "172.16.0.1/12", "routes"},
        {"172.16.0.0/12", "fd00::/8", "routes"},
        {"\"172.16.0.0/12\"", "5", "routes"},
        {"[\"0.0.0.0/0\",\"172.16.0.0/12\"]", "{}", "routes"},
        {":24", ":31", "prefix_len"},
        {":24", ":7", "prefix_len"},
        {":1500", ":575", "mtu"},
        {":1500", ":65521", "mtu"},
        {":1500", ":\"1500\"", ""},
        {"\"mtu\"", "\"mtv\"", ""},
        {"\"tap\"}", "\"tap\",\"x\":1}", ""},
        {"\"tap\"}", "\"tap\"", "JSON"},
        {"\"tap\"", "\"a name far longer than any kind of port\"", "port"},
        {"\"port\"", "\"prot\"", ""},
        {"\"tap\"}", "\"tap\",\"vsock\":{\"port\":\"stream\",\"cid\":2}}", "cid"},
        {"\"tap\"}", "\"tap\",\"vsock\":{\"port\":\"stream\",\"cid\":4294967295}}", "cid"},
        {"\"tap\"}", "\"tap\",\"vsock\":{\"port\":\"stream\",\"cid\":-1}}", "cid"},
        {"\"tap\"}", "\"tap\",\"vsock\":{\"port\":\"stream\"}}", ""},
        {"\"tap\"}", "\"tap\",\"vsock\":{\"port\":\"stream\",\"cid\":3,\"x\":1}}", ""},
    };

    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        struct sm_nat_config c = {.link = {.mtu = 77}};
        g_autoptr(GError) error = NULL;
        const char *at = strstr(GOOD, rows[i][0]);
        assert_non_null(at);
        g_autofree char *json =
            g_strdup_printf("%.*s%s%s", (int)(at - GOOD), GOOD, rows[i][1], at + strlen(rows[i][0]));
        assert_false(sm_nat_config_parse(json, strlen(json), &c, &error));
        assert_non_null(error);
        assert_non_null(strstr(error->message, rows[i][2]));
        assert_int_equal(c.link.mtu, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_holds, setup),  cmocka_unit_test_setup(test_holds_full, setup),
        cmocka_unit_test_setup(test_others, setup), cmocka_unit_test(test_port_queue),
        cmocka_unit_test(test_port_offloads),       cmocka_unit_test(test_config),
        cmocka_unit_test(test_config_bad),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
