/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The decision. First the whole table as literal matrices (mode x stage x what stands behind the address x what is
 * asserted x kind of destination), then every trap of spec section 3 as a test with its own name.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "policy/decide.h"

#define NOW ((int64_t)1000000)

/* A workspace to ask: lists, pins and ground that a test fills by text. */
struct world {
    struct sm_lists *lists;
    struct sm_pins *pins;
    struct sm_ground *ground;
    bool opaque;
};

static struct sm_endpoint at(const char *text)
{
    struct sm_endpoint e = {0};
    if (!sm_endpoint_parse(text, 443, &e))
        fail_msg("bad endpoint %s in the test", text);
    return e;
}

/* Own 203.0.113.5 and 192.168.1.10, network 10.0.2.0/24 with resolver .3, inside 198.51.100.0/25,
 * workspace 10.77.0.0/24, listeners 203.0.113.50:443 and 0.0.0.0:9090. */
static struct sm_ground *ground_new(void)
{
    struct sm_ground *g = sm_ground_new();
    const struct sm_addr own[] = {at("203.0.113.5").addr, at("192.168.1.10").addr};
    const struct sm_prefix network = {at("10.0.2.0").addr, 24}, other = {at("10.77.0.0").addr, 24},
                           extra = {at("198.51.100.0").addr, 25};
    const struct sm_addr resolver = at("10.0.2.3").addr;
    const struct sm_endpoint listeners[] = {at("203.0.113.50:443"), at("0.0.0.0:9090")};

    assert_true(sm_ground_set_own(g, own, 2));
    sm_ground_set_network(g, &network, &resolver);
    assert_true(sm_ground_add_inside(g, &extra));
    assert_true(sm_ground_set_workspaces(g, &other, 1));
    assert_true(sm_ground_set_listeners(g, listeners, 2));
    return g;
}

/* Space-separated entries for each list; pins as name=address. */
static struct world world_new(const char *allow, const char *passthrough, const char *denied, const char *pins)
{
    struct world w = {sm_lists_new(), sm_pins_new(SM_PINS_MAX), ground_new(), false};
    const char *const texts[] = {allow, passthrough, denied};

    for (int k = 0; k < SM_LIST_KINDS; k++) {
        g_auto(GStrv) words = g_strsplit(texts[k], " ", -1);
        for (char **word = words; *word && **word; word++)
            if (!sm_lists_add_text(w.lists, (enum sm_list_kind)k, *word, NULL))
                fail_msg("bad entry %s in the test", *word);
    }
    g_auto(GStrv) words = g_strsplit(pins, " ", -1);
    for (char **word = words; *word && **word; word++) {
        char *equals = strchr(*word, '=');
        *equals = '\0';
        struct sm_addr a = at(equals + 1).addr;
        assert_non_null(sm_pins_add(w.pins, *word, &a, 300, 0));
    }
    return w;
}

static void world_free(struct world *w)
{
    sm_lists_free(w->lists);
    sm_pins_free(w->pins);
    sm_ground_free(w->ground);
}

static struct sm_verdict ask(const struct world *w, enum sm_mode mode, enum sm_stage stage, enum sm_proto proto,
                             const char *dst, enum sm_assertion assertion, const char *name)
{
    struct sm_host host;
    struct sm_verdict v;
    struct sm_question q = {
        .mode = mode,
        .stage = stage,
        .proto = proto,
        .opaque = w->opaque,
        .assertion = assertion,
        .lists = w->lists,
        .pins = w->pins,
        .ground = w->ground,
        .now_us = NOW,
    };
    if (dst)
        q.dst = at(dst);
    else
        q.dst.port = 443;
    if (name) {
        (void)sm_host_parse(name, strlen(name), &host);
        q.asserted = &host;
    }
    memset(&v, 0xa5, sizeof(v));
    sm_decide(&q, &v);
    /* What holds for every verdict. */
    if (v.action == SM_ACTION_DENY) {
        assert_int_equal(v.refuse, proto == SM_PROTO_UDP ? SM_REFUSAL_ICMP_ADMIN : SM_REFUSAL_RST);
        assert_false(v.passthrough);
        assert_false(v.intercept);
        assert_false(v.unlisted);
        assert_int_not_equal(v.reason, SM_REASON_NONE);
        assert_true(v.reason < SM_REASON_OFF);
    } else {
        assert_int_equal(v.refuse, SM_REFUSAL_NONE);
        assert_true(v.reason >= SM_REASON_OFF);
        assert_false(v.passthrough && v.intercept);
        assert_false(v.passthrough && v.unlisted);
    }
    return v;
}

#define TCP_SYN(w, mode, dst) ask(w, mode, SM_STAGE_ATTEMPT, SM_PROTO_TCP, dst, SM_ASSERTION_NONE, NULL)
#define UDP_FIRST(w, mode, dst) ask(w, mode, SM_STAGE_ATTEMPT, SM_PROTO_UDP, dst, SM_ASSERTION_NONE, NULL)
#define SNI(w, mode, dst, name) ask(w, mode, SM_STAGE_ASSERT, SM_PROTO_TCP, dst, SM_ASSERTION_SNI, name)
#define HOST(w, mode, dst, name) ask(w, mode, SM_STAGE_ASSERT, SM_PROTO_TCP, dst, SM_ASSERTION_HOST, name)
#define NAMELESS(w, mode, dst) ask(w, mode, SM_STAGE_ASSERT, SM_PROTO_TCP, dst, SM_ASSERTION_OPAQUE, NULL)
#define RESOLVED(w, mode, dst, name) ask(w, mode, SM_STAGE_RESOLVED, SM_PROTO_TCP, dst, SM_ASSERTION_SNI, name)
#define CONNECT(w, mode, name) ask(w, mode, SM_STAGE_ASSERT, SM_PROTO_TCP, NULL, SM_ASSERTION_CONNECT, name)

static void expect_at(const struct sm_verdict *v, enum sm_action action, enum sm_reason reason, int line)
{
    if (v->action != action || v->reason != reason)
        fail_msg("line %d: %s (%s), not %s (%s)", line, sm_action_name(v->action), sm_reason_name(v->reason),
                 sm_action_name(action), sm_reason_name(reason));
}
#define EXPECT(verdict, action, reason)                                                                                \
    do {                                                                                                               \
        struct sm_verdict expect_v_ = verdict;                                                                         \
        expect_at(&expect_v_, SM_ACTION_##action, SM_REASON_##reason, __LINE__);                                       \
    } while (0)

/* ---- the whole table ---- */

enum dest_class { PUBLIC, BY_PIN, BY_RULE, SMALL, NEVER, DEST_CLASSES };

static const struct {
    const char *addr, *wide; /* wide: a range around it that is larger than a /24 */
    enum dest_class class;
    enum sm_reason reason; /* of a denial for being inside */
} dests[] = {
    {"192.0.2.7", "192.0.0.0/16", PUBLIC, SM_REASON_NONE},
    {"10.0.0.5", "10.0.0.0/8", BY_PIN, SM_REASON_INSIDE},
    {"172.16.0.1", "172.16.0.0/12", BY_PIN, SM_REASON_INSIDE},
    {"192.168.1.11", "192.168.0.0/16", BY_PIN, SM_REASON_INSIDE},
    {"100.64.0.1", "100.64.0.0/10", BY_PIN, SM_REASON_INSIDE},
    {"192.0.0.8", "192.0.0.0/16", BY_RULE, SM_REASON_INSIDE},
    {"198.18.0.1", "198.18.0.0/15", BY_RULE, SM_REASON_INSIDE},
    {"240.0.0.1", "240.0.0.0/4", BY_RULE, SM_REASON_INSIDE},
    {"198.51.100.9", "198.51.0.0/16", BY_RULE, SM_REASON_INSIDE},
    {"127.0.0.1", "127.0.0.0/8", SMALL, SM_REASON_LOOPBACK},
    {"0.0.0.0", "0.0.0.0/8", SMALL, SM_REASON_LOOPBACK},
    {"0.1.2.3", "0.0.0.0/8", SMALL, SM_REASON_LOOPBACK},
    {"169.254.0.1", "169.254.0.0/16", SMALL, SM_REASON_LINK_LOCAL},
    {"169.254.169.254", "169.254.0.0/16", SMALL, SM_REASON_METADATA},
    {"168.63.129.16", "168.63.0.0/16", SMALL, SM_REASON_METADATA},
    {"100.100.100.200", "100.64.0.0/10", SMALL, SM_REASON_METADATA},
    {"224.0.0.1", "224.0.0.0/4", SMALL, SM_REASON_MULTICAST},
    {"255.255.255.255", "240.0.0.0/4", SMALL, SM_REASON_MULTICAST},
    {"203.0.113.5", "203.0.0.0/16", SMALL, SM_REASON_OWN_ADDRESS},
    {"192.168.1.10", "192.168.0.0/16", SMALL, SM_REASON_OWN_ADDRESS},
    {"10.0.2.2", "10.0.0.0/8", SMALL, SM_REASON_VIRTUAL_NETWORK},
    {"10.0.2.3", "10.0.0.0/8", SMALL, SM_REASON_VIRTUAL_NETWORK}, /* the resolver, but not port 53 */
    {"10.77.0.9", "10.0.0.0/8", NEVER, SM_REASON_EAST_WEST},
    {"203.0.113.50", "203.0.0.0/16", NEVER, SM_REASON_LISTENER},
};

#define ALLOW_LIST "listed.test .suffix.test"
#define PASS_LIST "pass.test"

/* What stands behind the address, in the order of the columns below. */
static const char *const pinned_names[] = {"", "", "", "listed.test", "x.suffix.test", "unlisted.test", "pass.test"};
enum { BG_NOTHING, BG_RULE, BG_WIDE, BG_PIN_EXACT, BG_PIN_SUFFIX, BG_PIN_UNLISTED, BG_PIN_PASS, BACKGROUNDS };

static struct world world_for(size_t dest, int bg)
{
    const char *rule = bg == BG_RULE ? dests[dest].addr : bg == BG_WIDE ? dests[dest].wide : "";
    g_autofree char *allow = g_strdup_printf(ALLOW_LIST "%s%s", *rule ? " " : "", rule);
    g_autofree char *pins =
        *pinned_names[bg] ? g_strdup_printf("%s=%s", pinned_names[bg], dests[dest].addr) : g_strdup("");
    return world_new(allow, PASS_LIST, "", pins);
}

/* D deny, I dial, H hold, R resolve, A allow */
static char letter(const struct sm_verdict *v)
{
    switch (v->action) {
    case SM_ACTION_DENY:
        return 'D';
    case SM_ACTION_DNS:
        return 'N';
    case SM_ACTION_DIAL:
        return 'I';
    case SM_ACTION_HOLD:
        return 'H';
    case SM_ACTION_RESOLVE:
        return 'R';
    case SM_ACTION_ALLOW:
        return 'A';
    case SM_ACTIONS:
        break;
    }
    return '?';
}

/* Columns: nothing, IP rule, wide CIDR rule, pin of: exact listed, suffix listed, unlisted, passthrough name. */
static void the_table_of_attempts(void **state)
{
    static const struct {
        enum sm_mode mode;
        enum sm_proto proto;
        const char *port;
        const char *row[DEST_CLASSES];
    } table[] = {
        {SM_MODE_GUARDED, SM_PROTO_TCP, "443", {"IIIIIII", "DIIIDDI", "DIIDDDD", "DIDDDDD", "DDDDDDD"}},
        {SM_MODE_GUARDED, SM_PROTO_UDP, "123", {"IIIIIII", "DIIIDDI", "DIIDDDD", "DIDDDDD", "DDDDDDD"}},
        {SM_MODE_GUARDED, SM_PROTO_UDP, "443", {"DIIDDDI", "DIIDDDI", "DIIDDDD", "DIDDDDD", "DDDDDDD"}},
        {SM_MODE_STRICT, SM_PROTO_TCP, "443", {"HIIIIHI", "DIIIDDI", "DIIDDDD", "DIDDDDD", "DDDDDDD"}},
        {SM_MODE_STRICT, SM_PROTO_UDP, "123", {"DIIIIDI", "DIIIDDI", "DIIDDDD", "DIDDDDD", "DDDDDDD"}},
        {SM_MODE_STRICT, SM_PROTO_UDP, "443", {"DIIDDDI", "DIIDDDI", "DIIDDDD", "DIDDDDD", "DDDDDDD"}},
        {SM_MODE_GUARDED, SM_PROTO_TCP, "853", {"DDDDDDD", "DDDDDDD", "DDDDDDD", "DDDDDDD", "DDDDDDD"}},
        {SM_MODE_STRICT, SM_PROTO_UDP, "853", {"DDDDDDD", "DDDDDDD", "DDDDDDD", "DDDDDDD", "DDDDDDD"}},
        {SM_MODE_GUARDED, SM_PROTO_UDP, "53", {"NNNNNNN", "NNNNNNN", "NNNNNNN", "NNNNNNN", "NNNNNNN"}},
        {SM_MODE_STRICT, SM_PROTO_TCP, "53", {"NNNNNNN", "NNNNNNN", "NNNNNNN", "NNNNNNN", "NNNNNNN"}},
    };
    for (size_t t = 0; t < SM_ARRAY_LEN(table); t++) {
        for (size_t d = 0; d < SM_ARRAY_LEN(dests); d++) {
            if (strcmp(dests[d].addr, "203.0.113.50") == 0 && strcmp(table[t].port, "123") == 0)
                continue; /* the listener is on 443 */
            for (int bg = 0; bg < BACKGROUNDS; bg++) {
                struct world w = world_for(d, bg);
                g_autofree char *dst = g_strdup_printf("%s:%s", dests[d].addr, table[t].port);
                struct sm_verdict v =
                    ask(&w, table[t].mode, SM_STAGE_ATTEMPT, table[t].proto, dst, SM_ASSERTION_NONE, NULL);
                if (letter(&v) != table[t].row[dests[d].class][bg])
                    fail_msg("%s %s %s with background %d: %s (%s)", sm_mode_name(table[t].mode),
                             sm_proto_name(table[t].proto), dst, bg, sm_action_name(v.action),
                             sm_reason_name(v.reason));
                if (table[t].proto == SM_PROTO_TCP && letter(&v) == 'D' && strcmp(table[t].port, "443") == 0) {
                    assert_int_equal(v.reason, dests[d].reason);
                    assert_true(sm_reason_is_inside(v.reason));
                    assert_true(v.internal);
                }
                world_free(&w);
            }
        }
    }
}

static void the_table_of_assertions(void **state)
{
    enum { L, S, U, T, O, ASSERTED };
    static const char *const names[ASSERTED] = {"listed.test", "x.suffix.test", "unlisted.test", "pass.test", NULL};
    static const struct {
        enum sm_mode mode;
        enum dest_class class;
        const char *row[ASSERTED];
    } table[] = {
        {SM_MODE_GUARDED, PUBLIC, {"AAAAAAA", "AAAAAAA", "AAAAAAA", "RRRRRRA", "AAAAAAA"}},
        {SM_MODE_GUARDED, BY_PIN, {"DAAADDD", "DAADDDD", "DAADDDD", "DRRRDDA", "DAAADDA"}},
        {SM_MODE_GUARDED, BY_RULE, {"DAADDDD", "DAADDDD", "DAADDDD", "DRRDDDD", "DAADDDD"}},
        {SM_MODE_GUARDED, SMALL, {"DADDDDD", "DADDDDD", "DADDDDD", "DRDDDDD", "DADDDDD"}},
        {SM_MODE_GUARDED, NEVER, {"DDDDDDD", "DDDDDDD", "DDDDDDD", "DDDDDDD", "DDDDDDD"}},
        {SM_MODE_STRICT, PUBLIC, {"RAAARRR", "RAARARR", "DDDDDDD", "RRRRRRA", "DAAAADA"}},
        {SM_MODE_STRICT, BY_PIN, {"DAAADDR", "DAARDDR", "DDDDDDD", "DRRRDDA", "DAAADDA"}},
        {SM_MODE_STRICT, BY_RULE, {"DAADDDD", "DAADDDD", "DDDDDDD", "DRRDDDD", "DAADDDD"}},
        {SM_MODE_STRICT, SMALL, {"DADDDDD", "DADDDDD", "DDDDDDD", "DRDDDDD", "DADDDDD"}},
        {SM_MODE_STRICT, NEVER, {"DDDDDDD", "DDDDDDD", "DDDDDDD", "DDDDDDD", "DDDDDDD"}},
    };
    for (size_t t = 0; t < SM_ARRAY_LEN(table); t++) {
        for (size_t d = 0; d < SM_ARRAY_LEN(dests); d++) {
            if (dests[d].class != table[t].class)
                continue;
            for (int bg = 0; bg < BACKGROUNDS; bg++) {
                struct world w = world_for(d, bg);
                for (int n = 0; n < ASSERTED; n++) {
                    struct sm_verdict v = names[n] ? SNI(&w, table[t].mode, dests[d].addr, names[n])
                                                   : NAMELESS(&w, table[t].mode, dests[d].addr);
                    if (letter(&v) != table[t].row[n][bg])
                        fail_msg("%s %s, %s asserted, background %d: %s (%s)", sm_mode_name(table[t].mode),
                                 dests[d].addr, names[n] ? names[n] : "nothing", bg, sm_action_name(v.action),
                                 sm_reason_name(v.reason));
                    /* A Host is worth what an SNI is. */
                    if (names[n]) {
                        struct sm_verdict h = HOST(&w, table[t].mode, dests[d].addr, names[n]);
                        assert_int_equal(h.action, v.action);
                        assert_int_equal(h.reason, v.reason);
                    }
                }
                world_free(&w);
            }
        }
    }
}

static void the_table_of_own_resolutions(void **state)
{
    enum { L, S, U, T, ASSERTED };
    static const char *const names[ASSERTED] = {"listed.test", "x.suffix.test", "unlisted.test", "pass.test"};
    static const struct {
        enum sm_mode mode;
        const char *row[DEST_CLASSES]; /* columns: the names above without, then with an IP rule */
    } table[] = {
        {SM_MODE_GUARDED, {"AAAAAAAA", "ADDAAAAA", "DDDDAAAA", "DDDDAAAA", "DDDDDDDD"}},
        {SM_MODE_STRICT, {"AADAAADA", "ADDAAADA", "DDDDAADA", "DDDDAADA", "DDDDDDDD"}},
    };
    for (size_t t = 0; t < SM_ARRAY_LEN(table); t++) {
        for (size_t d = 0; d < SM_ARRAY_LEN(dests); d++) {
            for (int c = 0; c < 2 * ASSERTED; c++) {
                struct world w = world_for(d, c < ASSERTED ? BG_NOTHING : BG_RULE);
                struct sm_verdict v = RESOLVED(&w, table[t].mode, dests[d].addr, names[c % ASSERTED]);
                if (letter(&v) != table[t].row[dests[d].class][c])
                    fail_msg("%s %s resolved for %s (%d): %s (%s)", sm_mode_name(table[t].mode), dests[d].addr,
                             names[c % ASSERTED], c, sm_action_name(v.action), sm_reason_name(v.reason));
                if (v.action == SM_ACTION_ALLOW) {
                    assert_true(v.proof);
                    assert_int_equal(v.name_source, SM_NAME_SOURCE_PIN);
                    assert_int_equal(v.passthrough, c % ASSERTED == T);
                }
                world_free(&w);
            }
        }
    }
}

static void the_table_of_off(void **state)
{
    struct world w = world_new("", "", "192.0.2.7 .denied.test", "");
    for (size_t d = 0; d < SM_ARRAY_LEN(dests); d++) {
        struct sm_verdict v = TCP_SYN(&w, SM_MODE_OFF, dests[d].addr);
        bool refused = dests[d].reason == SM_REASON_LOOPBACK || dests[d].reason == SM_REASON_LISTENER;
        if (v.action != (refused ? SM_ACTION_DENY : SM_ACTION_DIAL))
            fail_msg("off %s: %s (%s)", dests[d].addr, sm_action_name(v.action), sm_reason_name(v.reason));
        assert_false(v.intercept);
        assert_false(v.unlisted);
    }
    EXPECT(TCP_SYN(&w, SM_MODE_OFF, "192.0.2.8:853"), DIAL, OFF);
    EXPECT(UDP_FIRST(&w, SM_MODE_OFF, "192.0.2.8:443"), DIAL, OFF);
    EXPECT(UDP_FIRST(&w, SM_MODE_OFF, "192.0.2.8:53"), DIAL, OFF);
    EXPECT(UDP_FIRST(&w, SM_MODE_OFF, "10.0.2.3:53"), DNS, RESOLVER);
    EXPECT(TCP_SYN(&w, SM_MODE_OFF, "127.0.0.1:53"), DENY, LOOPBACK);
    EXPECT(TCP_SYN(&w, SM_MODE_OFF, "203.0.113.5:9090"), DENY, LISTENER);
    EXPECT(TCP_SYN(&w, SM_MODE_OFF, "[2606:4700::1]:443"), DENY, IPV6);
    EXPECT(CONNECT(&w, SM_MODE_OFF, "x.denied.test"), RESOLVE, OFF);
    EXPECT(CONNECT(&w, SM_MODE_OFF, "127.0.0.1"), DENY, LOOPBACK);
    world_free(&w);
}

/* ---- the traps, one by one ---- */

static const enum sm_mode judged_modes[] = {SM_MODE_GUARDED, SM_MODE_STRICT};

static void a_zeroed_verdict_is_a_denial(void **state)
{
    struct sm_verdict v = {0};
    assert_int_equal(v.action, SM_ACTION_DENY);
    assert_int_equal(SM_NAME_BAD, 0);
    /* A zeroed question has no destination. */
    sm_decide(&(struct sm_question){0}, &v);
    assert_int_equal(v.action, SM_ACTION_DENY);
    assert_int_equal(v.reason, SM_REASON_BAD_DESTINATION);
}

static void an_asserted_name_never_overrides_inside(void **state)
{
    struct world w = world_new("listed.test .suffix.test", "pass.test", "", "");
    static const char *const names[] = {"listed.test", "x.suffix.test", "pass.test"};
    static const char *const inside[] = {"10.0.0.5", "169.254.169.254", "127.0.0.1", "203.0.113.5", "10.77.0.9"};
    for (size_t m = 0; m < 2; m++)
        for (size_t n = 0; n < SM_ARRAY_LEN(names); n++)
            for (size_t i = 0; i < SM_ARRAY_LEN(inside); i++) {
                assert_int_equal(SNI(&w, judged_modes[m], inside[i], names[n]).action, SM_ACTION_DENY);
                assert_int_equal(HOST(&w, judged_modes[m], inside[i], names[n]).action, SM_ACTION_DENY);
                assert_int_equal(TCP_SYN(&w, judged_modes[m], inside[i]).action, SM_ACTION_DENY);
            }
    world_free(&w);
}

static void the_dns_of_a_listed_name_does_not_open_metadata(void **state)
{
    static const char *const metadata[] = {"169.254.169.254", "168.63.129.16", "100.100.100.200", "169.254.1.1"};
    for (size_t i = 0; i < SM_ARRAY_LEN(metadata); i++) {
        g_autofree char *pins = g_strdup_printf("listed.test=%s", metadata[i]);
        struct world w = world_new("listed.test", "", "", pins);
        for (size_t m = 0; m < 2; m++) {
            assert_int_equal(TCP_SYN(&w, judged_modes[m], metadata[i]).action, SM_ACTION_DENY);
            assert_int_equal(UDP_FIRST(&w, judged_modes[m], metadata[i]).action, SM_ACTION_DENY);
            assert_int_equal(SNI(&w, judged_modes[m], metadata[i], "listed.test").action, SM_ACTION_DENY);
            assert_int_equal(RESOLVED(&w, judged_modes[m], metadata[i], "listed.test").action, SM_ACTION_DENY);
        }
        world_free(&w);
    }
}

static void a_pin_opens_a_private_address_for_an_exact_name_only(void **state)
{
    struct world exact = world_new("db.corp.test", "", "", "db.corp.test=10.0.0.5");
    struct world suffix = world_new(".corp.test", "", "", "db.corp.test=10.0.0.5");
    for (size_t m = 0; m < 2; m++) {
        EXPECT(TCP_SYN(&exact, judged_modes[m], "10.0.0.5"), DIAL, PIN);
        EXPECT(TCP_SYN(&exact, judged_modes[m], "10.0.0.6"), DENY, INSIDE); /* to that very address */
        EXPECT(TCP_SYN(&suffix, judged_modes[m], "10.0.0.5"), DENY, INSIDE);
    }
    assert_true(TCP_SYN(&exact, SM_MODE_GUARDED, "10.0.0.5").internal);
    assert_string_equal(TCP_SYN(&exact, SM_MODE_GUARDED, "10.0.0.5").rule, "db.corp.test");
    assert_string_equal(TCP_SYN(&exact, SM_MODE_GUARDED, "10.0.0.5").host, "db.corp.test");
    world_free(&exact);
    world_free(&suffix);
}

static void a_port_on_the_entry_binds_the_pin_override(void **state)
{
    struct world w = world_new("db.corp.test:5432", "", "", "db.corp.test=10.0.0.5");
    EXPECT(TCP_SYN(&w, SM_MODE_GUARDED, "10.0.0.5:5432"), DIAL, PIN);
    EXPECT(TCP_SYN(&w, SM_MODE_GUARDED, "10.0.0.5:22"), DENY, INSIDE);
    EXPECT(TCP_SYN(&w, SM_MODE_STRICT, "10.0.0.5:22"), DENY, INSIDE);
    world_free(&w);
}

static void another_name_does_not_ride_on_a_pin_to_an_inside_address(void **state)
{
    struct world w = world_new("db.corp.test other.test", "", "", "db.corp.test=10.0.0.5 rebind.test=10.0.0.5");
    EXPECT(SNI(&w, SM_MODE_GUARDED, "10.0.0.5", "db.corp.test"), ALLOW, PIN);
    EXPECT(SNI(&w, SM_MODE_GUARDED, "10.0.0.5", "rebind.test"), DENY, INSIDE); /* pinned, not listed */
    EXPECT(SNI(&w, SM_MODE_GUARDED, "10.0.0.5", "other.test"), DENY, INSIDE);  /* listed, not pinned */
    EXPECT(SNI(&w, SM_MODE_GUARDED, "10.0.0.5", "no.test"), DENY, INSIDE);
    EXPECT(SNI(&w, SM_MODE_STRICT, "10.0.0.5", "other.test"), RESOLVE, LISTED); /* its own address is dialled */
    EXPECT(NAMELESS(&w, SM_MODE_GUARDED, "10.0.0.5"), ALLOW, PIN);
    EXPECT(HOST(&w, SM_MODE_GUARDED, "10.0.0.5", "10.0.0.5"), ALLOW, PIN); /* a Host that is the address names nobody */
    EXPECT(HOST(&w, SM_MODE_GUARDED, "10.0.0.5", "10.0.0.6"), DENY, INSIDE);
    world_free(&w);
}

static void rebinding_is_met_by_the_address(void **state)
{
    struct world w = world_new("", "", "", "rebind.test=192.0.2.7 rebind.test=10.0.0.5");
    EXPECT(TCP_SYN(&w, SM_MODE_GUARDED, "192.0.2.7"), DIAL, PUBLIC);
    EXPECT(TCP_SYN(&w, SM_MODE_GUARDED, "10.0.0.5"), DENY, INSIDE);
    world_free(&w);
}

static void only_a_small_rule_opens_loopback_and_its_like(void **state)
{
    static const char *const addresses[] = {"127.0.0.1", "169.254.169.254", "224.0.0.1", "203.0.113.5", "10.0.2.2"};
    for (size_t i = 0; i < SM_ARRAY_LEN(addresses); i++) {
        uint32_t n = 0;
        struct sm_addr a = at(addresses[i]).addr;
        for (uint8_t len = 20; len <= 32; len++) {
            n = sm_addr_to_u32(&a) & (len == 32 ? UINT32_MAX : ~(UINT32_MAX >> len));
            struct sm_prefix p = {sm_addr_from_u32(n), len};
            char text[SM_PREFIX_STRLEN];
            struct world w = world_new(sm_prefix_format(&p, text), "", "", "");
            for (size_t m = 0; m < 2; m++)
                assert_int_equal(TCP_SYN(&w, judged_modes[m], addresses[i]).action,
                                 len >= 24 ? SM_ACTION_DIAL : SM_ACTION_DENY);
            world_free(&w);
        }
    }
}

static void workspaces_and_listeners_are_never_reachable(void **state)
{
    struct world w = world_new("10.77.0.9 10.77.0.0/24 203.0.113.50 203.0.113.0/24 127.0.0.1 listed.test", "", "",
                               "listed.test=10.77.0.9 listed.test=203.0.113.50");
    for (size_t m = 0; m < 2; m++) {
        EXPECT(TCP_SYN(&w, judged_modes[m], "10.77.0.9"), DENY, EAST_WEST);
        EXPECT(UDP_FIRST(&w, judged_modes[m], "10.77.0.9:1"), DENY, EAST_WEST);
        EXPECT(SNI(&w, judged_modes[m], "10.77.0.9", "listed.test"), DENY, EAST_WEST);
        EXPECT(RESOLVED(&w, judged_modes[m], "10.77.0.9", "listed.test"), DENY, EAST_WEST);
        EXPECT(TCP_SYN(&w, judged_modes[m], "203.0.113.50:443"), DENY, LISTENER);
        EXPECT(RESOLVED(&w, judged_modes[m], "203.0.113.50:443", "listed.test"), DENY, LISTENER);
        EXPECT(TCP_SYN(&w, judged_modes[m], "127.0.0.1:9090"), DENY, LISTENER);
        EXPECT(TCP_SYN(&w, judged_modes[m], "127.0.0.1:9091"), DIAL, RULE);
    }
    world_free(&w);
}

static void strict_holds_until_a_listed_name_and_dials_its_own_answer(void **state)
{
    struct world w = world_new("listed.test", "", "", "");
    struct sm_verdict v = TCP_SYN(&w, SM_MODE_STRICT, "192.0.2.7");
    expect_at(&v, SM_ACTION_HOLD, SM_REASON_WAITING, __LINE__);
    v = SNI(&w, SM_MODE_STRICT, "192.0.2.7", "LISTED.test.");
    expect_at(&v, SM_ACTION_RESOLVE, SM_REASON_LISTED, __LINE__);
    assert_string_equal(v.host, "listed.test");
    assert_string_equal(v.rule, "listed.test");
    assert_false(v.proof);
    assert_false(v.passthrough);
    v = RESOLVED(&w, SM_MODE_STRICT, "198.51.100.200", "listed.test");
    expect_at(&v, SM_ACTION_ALLOW, SM_REASON_RESOLVED, __LINE__);
    assert_true(v.proof);
    /* The name may resolve to the inside: exact and private only. */
    EXPECT(RESOLVED(&w, SM_MODE_STRICT, "10.0.0.5", "listed.test"), ALLOW, RESOLVED);
    EXPECT(RESOLVED(&w, SM_MODE_STRICT, "127.0.0.1", "listed.test"), DENY, LOOPBACK);
    EXPECT(RESOLVED(&w, SM_MODE_STRICT, "203.0.113.5", "listed.test"), DENY, OWN_ADDRESS);
    EXPECT(RESOLVED(&w, SM_MODE_STRICT, "192.0.2.1", "unlisted.test"), DENY, UNLISTED_NAME);
    EXPECT(RESOLVED(&w, SM_MODE_STRICT, "192.0.2.1", "192.0.2.1"), DENY, BAD_NAME);
    world_free(&w);
}

static void strict_refuses_at_classification(void **state)
{
    struct world w = world_new("listed.test", "", "", "");
    EXPECT(SNI(&w, SM_MODE_STRICT, "192.0.2.7", "evil.test"), DENY, UNLISTED_NAME);
    EXPECT(NAMELESS(&w, SM_MODE_STRICT, "192.0.2.7"), DENY, NO_NAME);
    EXPECT(ask(&w, SM_MODE_STRICT, SM_STAGE_ASSERT, SM_PROTO_TCP, "192.0.2.7", SM_ASSERTION_TIMEOUT, NULL), DENY,
           CLASSIFY_TIMEOUT);
    EXPECT(ask(&w, SM_MODE_STRICT, SM_STAGE_ASSERT, SM_PROTO_TCP, "192.0.2.7", SM_ASSERTION_SERVER_FIRST, NULL), DENY,
           NO_NAME);
    EXPECT(HOST(&w, SM_MODE_STRICT, "192.0.2.7", "192.0.2.7"), DENY, NO_NAME); /* bare address */
    EXPECT(HOST(&w, SM_MODE_STRICT, "192.0.2.7", "192.0.2.8"), DENY, UNLISTED_NAME);
    world_free(&w);
}

static void silence_and_server_first_with_proof_go_on(void **state)
{
    static const enum sm_assertion nameless[] = {SM_ASSERTION_NONE, SM_ASSERTION_OPAQUE, SM_ASSERTION_SERVER_FIRST,
                                                 SM_ASSERTION_TIMEOUT};
    struct world pin = world_new("ssh.test", "", "", "ssh.test=192.0.2.7");
    struct world rule = world_new("192.0.2.0/24:22", "", "", "");
    struct world none = world_new("", "", "", "");
    for (size_t i = 0; i < SM_ARRAY_LEN(nameless); i++) {
        EXPECT(ask(&pin, SM_MODE_STRICT, SM_STAGE_ASSERT, SM_PROTO_TCP, "192.0.2.7:22", nameless[i], NULL), ALLOW, PIN);
        EXPECT(ask(&rule, SM_MODE_STRICT, SM_STAGE_ASSERT, SM_PROTO_TCP, "192.0.2.7:22", nameless[i], NULL), ALLOW,
               RULE);
        EXPECT(ask(&none, SM_MODE_GUARDED, SM_STAGE_ASSERT, SM_PROTO_TCP, "192.0.2.7:22", nameless[i], NULL), ALLOW,
               PUBLIC);
    }
    world_free(&pin);
    world_free(&rule);
    world_free(&none);
}

static void a_forged_name_buys_no_uninspected_connection(void **state)
{
    struct world w = world_new("api.test", "pass.test", "", "pass.test=192.0.2.7");
    for (size_t m = 0; m < 2; m++) {
        /* to the guest's own server: the name's own address is dialled instead */
        struct sm_verdict v = SNI(&w, judged_modes[m], "192.0.2.66", "pass.test");
        expect_at(&v, SM_ACTION_RESOLVE, SM_REASON_LISTED, __LINE__);
        assert_false(v.passthrough);
        v = SNI(&w, judged_modes[m], "192.0.2.7", "pass.test");
        expect_at(&v, SM_ACTION_ALLOW, SM_REASON_PIN, __LINE__);
        assert_true(v.passthrough);
        assert_false(v.intercept);
        v = RESOLVED(&w, judged_modes[m], "192.0.2.9", "pass.test");
        assert_true(v.passthrough);
    }
    world_free(&w);
}

static void guarded_unlisted_names_are_recorded_as_such(void **state)
{
    struct world w = world_new("listed.test", "", "", "seen.test=192.0.2.8");
    struct sm_verdict v = SNI(&w, SM_MODE_GUARDED, "192.0.2.7", "any.test");
    expect_at(&v, SM_ACTION_ALLOW, SM_REASON_PUBLIC, __LINE__);
    assert_true(v.unlisted);
    assert_true(v.intercept);
    assert_false(v.proof);
    assert_int_equal(v.name_source, SM_NAME_SOURCE_SNI);
    assert_string_equal(v.host, "any.test");
    assert_string_equal(v.rule, "");
    v = HOST(&w, SM_MODE_GUARDED, "192.0.2.7", "any.test:80");
    assert_int_equal(v.name_source, SM_NAME_SOURCE_HOST);
    /* a listed name that nothing proves is granted nothing */
    v = SNI(&w, SM_MODE_GUARDED, "192.0.2.7", "listed.test");
    assert_true(v.unlisted);
    assert_false(v.proof);
    assert_string_equal(v.rule, "");
    /* proven, but not listed */
    v = SNI(&w, SM_MODE_GUARDED, "192.0.2.8", "seen.test");
    assert_true(v.unlisted);
    assert_true(v.proof);
    assert_int_equal(v.name_source, SM_NAME_SOURCE_PIN);
    v = TCP_SYN(&w, SM_MODE_GUARDED, "192.0.2.9");
    assert_true(v.unlisted);
    assert_int_equal(v.name_source, SM_NAME_SOURCE_IP);
    assert_string_equal(v.host, "");
    world_free(&w);
}

static void several_names_on_one_address(void **state)
{
    struct world w = world_new("api.test", "pass.test", "",
                               "pass.test=192.0.2.7 api.test=192.0.2.7 other.test=192.0.2.7 pass.test=192.0.2.8");
    for (size_t m = 0; m < 2; m++) {
        /* an asserted name picks among the pins */
        struct sm_verdict v = SNI(&w, judged_modes[m], "192.0.2.7", "pass.test");
        assert_true(v.action == SM_ACTION_ALLOW && v.passthrough && v.proof);
        v = SNI(&w, judged_modes[m], "192.0.2.7", "api.test");
        assert_true(v.action == SM_ACTION_ALLOW && v.intercept && v.proof);
        /* with none asserted any listed pin admits, and interception beats passthrough */
        v = NAMELESS(&w, judged_modes[m], "192.0.2.7");
        assert_true(v.action == SM_ACTION_ALLOW && v.intercept && !v.passthrough);
        assert_string_equal(v.host, "api.test");
        /* passthrough only if every live pin is passthrough */
        v = NAMELESS(&w, judged_modes[m], "192.0.2.8");
        assert_true(v.action == SM_ACTION_ALLOW && v.passthrough);
        assert_int_equal(UDP_FIRST(&w, judged_modes[m], "192.0.2.8:443").action, SM_ACTION_DIAL);
        assert_int_equal(UDP_FIRST(&w, judged_modes[m], "192.0.2.7:443").action, SM_ACTION_DENY);
    }
    world_free(&w);

    w = world_new("", "pass.test", "", "pass.test=192.0.2.7 other.test=192.0.2.7");
    assert_false(NAMELESS(&w, SM_MODE_GUARDED, "192.0.2.7").passthrough); /* other.test might be meant */
    world_free(&w);
}

static void passthrough_wins_ties_and_specific_entries_win(void **state)
{
    struct world w = world_new("tie.test in.pass.test 192.0.2.7", "tie.test .pass.test 192.0.2.0/24", "",
                               "tie.test=198.51.100.200 in.pass.test=198.51.100.201 x.pass.test=198.51.100.202");
    assert_true(SNI(&w, SM_MODE_STRICT, "198.51.100.200", "tie.test").passthrough);
    assert_false(SNI(&w, SM_MODE_STRICT, "198.51.100.201", "in.pass.test").passthrough);
    assert_true(SNI(&w, SM_MODE_STRICT, "198.51.100.202", "x.pass.test").passthrough);
    assert_false(NAMELESS(&w, SM_MODE_STRICT, "192.0.2.7").passthrough);
    assert_true(NAMELESS(&w, SM_MODE_STRICT, "192.0.2.8").passthrough);
    assert_string_equal(NAMELESS(&w, SM_MODE_STRICT, "192.0.2.8").rule, "192.0.2.0/24");
    world_free(&w);
}

static void a_passthrough_rule_for_the_address_is_proof(void **state)
{
    struct world w = world_new("listed.test", "192.0.2.7", "", "");
    struct sm_verdict v = SNI(&w, SM_MODE_GUARDED, "192.0.2.7", "any.test");
    assert_true(v.action == SM_ACTION_ALLOW && v.passthrough && !v.unlisted);
    assert_string_equal(v.rule, "192.0.2.7");
    v = SNI(&w, SM_MODE_STRICT, "192.0.2.7", "any.test"); /* strict: the name must be listed all the same */
    expect_at(&v, SM_ACTION_DENY, SM_REASON_UNLISTED_NAME, __LINE__);
    world_free(&w);
}

static void deny_beats_everything(void **state)
{
    struct world w = world_new("192.0.2.7 192.0.2.8 bad.test good.test", "192.0.2.9", "192.0.2.7 bad.test .worse.test",
                               "good.test=192.0.2.7 bad.test=192.0.2.8 bad.test=192.0.2.10 good.test=192.0.2.10");
    for (size_t m = 0; m < 2; m++) {
        enum sm_mode mode = judged_modes[m];
        EXPECT(TCP_SYN(&w, mode, "192.0.2.7"), DENY, DENY_LIST);
        EXPECT(UDP_FIRST(&w, mode, "192.0.2.7:1"), DENY, DENY_LIST);
        EXPECT(SNI(&w, mode, "192.0.2.7", "good.test"), DENY, DENY_LIST);
        EXPECT(RESOLVED(&w, mode, "192.0.2.7", "good.test"), DENY, DENY_LIST);
        /* a denied name, wherever it is asserted, listed or not */
        EXPECT(SNI(&w, mode, "192.0.2.9", "bad.test"), DENY, DENY_LIST);
        EXPECT(HOST(&w, mode, "192.0.2.9", "x.worse.test"), DENY, DENY_LIST);
        EXPECT(CONNECT(&w, mode, "x.worse.test"), DENY, DENY_LIST);
        EXPECT(RESOLVED(&w, mode, "192.0.2.9", "bad.test"), DENY, DENY_LIST);
        /* only denied pins: no flow, an IP rule notwithstanding */
        EXPECT(TCP_SYN(&w, mode, "192.0.2.8"), DENY, DENY_LIST);
        EXPECT(SNI(&w, mode, "192.0.2.8", "good.test"), DENY, DENY_LIST);
        /* mixed pins: only a flow that asserts the other pinned name goes on */
        EXPECT(TCP_SYN(&w, mode, "192.0.2.10"), DIAL, PIN);
        EXPECT(SNI(&w, mode, "192.0.2.10", "good.test"), ALLOW, PIN);
        EXPECT(SNI(&w, mode, "192.0.2.10", "bad.test"), DENY, DENY_LIST);
        EXPECT(NAMELESS(&w, mode, "192.0.2.10"), DENY, DENY_LIST);
        EXPECT(UDP_FIRST(&w, mode, "192.0.2.10:1"), DENY, DENY_LIST);
        /* a Host that is a denied address */
        EXPECT(HOST(&w, mode, "192.0.2.9", "192.0.2.7"), DENY, DENY_LIST);
        EXPECT(CONNECT(&w, mode, "192.0.2.7"), DENY, DENY_LIST);
    }
    EXPECT(SNI(&w, SM_MODE_GUARDED, "192.0.2.10", "any.test"), DENY, DENY_LIST);
    assert_string_equal(SNI(&w, SM_MODE_GUARDED, "192.0.2.9", "a.worse.test").rule, ".worse.test");
    world_free(&w);
}

static void look_alike_names(void **state)
{
    struct world w = world_new(".pypi.org", "", "", "");
    EXPECT(SNI(&w, SM_MODE_STRICT, "192.0.2.7", "pypi.org"), RESOLVE, LISTED);
    EXPECT(SNI(&w, SM_MODE_STRICT, "192.0.2.7", "files.PyPI.org."), RESOLVE, LISTED);
    EXPECT(SNI(&w, SM_MODE_STRICT, "192.0.2.7", "evilpypi.org"), DENY, UNLISTED_NAME);
    EXPECT(SNI(&w, SM_MODE_STRICT, "192.0.2.7", "pypi.org.evil.test"), DENY, UNLISTED_NAME);
    EXPECT(SNI(&w, SM_MODE_STRICT, "192.0.2.7", "org"), DENY, UNLISTED_NAME);
    world_free(&w);
}

static void bad_names_are_refused_in_both_modes(void **state)
{
    static const char *const bad[] = {"2130706433", "0x7f.1",    "0177.0.0.1",      "127.1",
                                      "a..b",       "pypi .org", "p\xc3\xbfpi.org", "x:0"};
    struct world w = world_new("192.0.2.7 .pypi.org", "", "", "");
    for (size_t m = 0; m < 2; m++) {
        for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
            EXPECT(SNI(&w, judged_modes[m], "192.0.2.7", bad[i]), DENY, BAD_NAME);
            EXPECT(HOST(&w, judged_modes[m], "192.0.2.7", bad[i]), DENY, BAD_NAME);
            EXPECT(CONNECT(&w, judged_modes[m], bad[i]), DENY, BAD_NAME);
        }
        EXPECT(SNI(&w, judged_modes[m], "192.0.2.7", NULL), DENY, BAD_NAME);
    }
    world_free(&w);
}

static void ipv6_from_the_guest_is_refused(void **state)
{
    struct world w = world_new("2001:db8::/32 listed.test", "", "", "listed.test=2606:4700::1");
    static const enum sm_mode modes[] = {SM_MODE_GUARDED, SM_MODE_STRICT, SM_MODE_OFF};
    for (size_t m = 0; m < SM_ARRAY_LEN(modes); m++) {
        EXPECT(TCP_SYN(&w, modes[m], "[2606:4700::1]:443"), DENY, IPV6);
        EXPECT(UDP_FIRST(&w, modes[m], "[2001:db8::1]:53"), DENY, IPV6);
        EXPECT(SNI(&w, modes[m], "[2606:4700::1]:443", "listed.test"), DENY, IPV6);
    }
    /* The core's own resolution may be IPv6, and is judged like any address. */
    EXPECT(RESOLVED(&w, SM_MODE_STRICT, "[2606:4700::1]:443", "listed.test"), ALLOW, RESOLVED);
    EXPECT(RESOLVED(&w, SM_MODE_STRICT, "[fd12::1]:443", "listed.test"), ALLOW, RESOLVED);
    EXPECT(RESOLVED(&w, SM_MODE_STRICT, "[fd00:ec2::254]:443", "listed.test"), DENY, METADATA);
    EXPECT(RESOLVED(&w, SM_MODE_STRICT, "[::1]:443", "listed.test"), DENY, LOOPBACK);
    EXPECT(RESOLVED(&w, SM_MODE_STRICT, "[::ffff:10.0.0.5]:443", "listed.test"), DENY, INSIDE);
    EXPECT(RESOLVED(&w, SM_MODE_STRICT, "[64:ff9b::a9fe:a9fe]:443", "listed.test"), DENY, METADATA);
    EXPECT(RESOLVED(&w, SM_MODE_STRICT, "[::ffff:203.0.113.5]:443", "listed.test"), DENY, OWN_ADDRESS);
    world_free(&w);
}

static void quic_and_dns_over_tls(void **state)
{
    struct world w = world_new("listed.test 192.0.2.0/28", "", "", "listed.test=192.0.2.77");
    EXPECT(UDP_FIRST(&w, SM_MODE_GUARDED, "192.0.2.77:443"), DENY, QUIC);
    EXPECT(UDP_FIRST(&w, SM_MODE_GUARDED, "192.0.2.99:443"), DENY, QUIC);
    EXPECT(UDP_FIRST(&w, SM_MODE_STRICT, "192.0.2.77:443"), DENY, QUIC);
    EXPECT(UDP_FIRST(&w, SM_MODE_STRICT, "192.0.2.99:443"), DENY, UNLISTED);
    EXPECT(UDP_FIRST(&w, SM_MODE_STRICT, "192.0.2.1:443"), DIAL, RULE);
    EXPECT(UDP_FIRST(&w, SM_MODE_GUARDED, "192.0.2.1:853"), DENY, DNS_OVER_TLS);
    EXPECT(TCP_SYN(&w, SM_MODE_STRICT, "192.0.2.1:853"), DENY, DNS_OVER_TLS);
    w.opaque = true;
    EXPECT(UDP_FIRST(&w, SM_MODE_GUARDED, "192.0.2.99:443"), DIAL, PUBLIC);
    EXPECT(UDP_FIRST(&w, SM_MODE_STRICT, "192.0.2.77:443"), DIAL, PIN);
    EXPECT(UDP_FIRST(&w, SM_MODE_STRICT, "192.0.2.99:443"), DENY, UNLISTED);
    world_free(&w);
}

static void opaque_mode_polices_names_and_intercepts_nothing(void **state)
{
    struct world w = world_new("listed.test", "", "", "listed.test=192.0.2.7");
    w.opaque = true;
    EXPECT(SNI(&w, SM_MODE_STRICT, "192.0.2.7", "listed.test"), ALLOW, PIN);
    assert_false(SNI(&w, SM_MODE_STRICT, "192.0.2.7", "listed.test").intercept);
    assert_false(SNI(&w, SM_MODE_STRICT, "192.0.2.7", "listed.test").passthrough);
    EXPECT(SNI(&w, SM_MODE_STRICT, "192.0.2.7", "evil.test"), DENY, UNLISTED_NAME);
    EXPECT(SNI(&w, SM_MODE_STRICT, "192.0.2.8", "listed.test"), RESOLVE, LISTED);
    world_free(&w);
}

static void connect_is_resolved_by_the_core(void **state)
{
    struct world w = world_new("listed.test 10.0.0.5", "", "", "");
    EXPECT(CONNECT(&w, SM_MODE_GUARDED, "any.test:443"), RESOLVE, PUBLIC);
    EXPECT(CONNECT(&w, SM_MODE_STRICT, "any.test:443"), DENY, UNLISTED_NAME);
    EXPECT(CONNECT(&w, SM_MODE_STRICT, "listed.test:443"), RESOLVE, LISTED);
    EXPECT(CONNECT(&w, SM_MODE_GUARDED, "169.254.169.254"), DENY, METADATA);
    EXPECT(CONNECT(&w, SM_MODE_GUARDED, "[::ffff:169.254.169.254]"), DENY, METADATA);
    EXPECT(CONNECT(&w, SM_MODE_GUARDED, "10.0.0.6"), DENY, INSIDE);
    EXPECT(CONNECT(&w, SM_MODE_GUARDED, "192.0.2.7"), ALLOW, PUBLIC);
    EXPECT(CONNECT(&w, SM_MODE_STRICT, "192.0.2.7"), DENY, NO_NAME);
    EXPECT(CONNECT(&w, SM_MODE_STRICT, "10.0.0.5"), ALLOW, RULE);
    struct sm_verdict v =
        ask(&w, SM_MODE_STRICT, SM_STAGE_RESOLVED, SM_PROTO_TCP, "192.0.2.7", SM_ASSERTION_CONNECT, "listed.test");
    expect_at(&v, SM_ACTION_ALLOW, SM_REASON_RESOLVED, __LINE__);
    assert_int_equal(v.name_source, SM_NAME_SOURCE_CONNECT);
    assert_true(v.proof);
    world_free(&w);
}

/* The first bytes of a flow that CONNECT opened, at the address that it got. */
static struct sm_verdict within(const struct world *w, enum sm_mode mode, const char *dst, const char *name,
                                const char *inner, bool is_host, const struct sm_route *route)
{
    struct sm_host host, said;
    struct sm_verdict v;
    struct sm_question q = {.mode = mode,
                            .stage = SM_STAGE_RESOLVED,
                            .dst = at(dst),
                            .assertion = SM_ASSERTION_CONNECT,
                            .asserted = &host,
                            .lists = w->lists,
                            .pins = w->pins,
                            .ground = w->ground,
                            .inner_is_host = is_host,
                            .route = route,
                            .now_us = NOW};
    (void)sm_name_classify(name, strlen(name), &host);
    if (inner) {
        (void)sm_host_parse(inner, strlen(inner), &said);
        q.inner = &said;
    }
    sm_decide(&q, &v);
    return v;
}

static void first_bytes_speak_for_the_name_of_connect(void **state)
{
    struct world w = world_new("listed.test .too.test", "through.test", "", "");
    const enum sm_mode modes[] = {SM_MODE_GUARDED, SM_MODE_STRICT};

    for (size_t m = 0; m < SM_ARRAY_LEN(modes); m++) {
        EXPECT(within(&w, modes[m], "192.0.2.7", "listed.test", "listed.test", false, NULL), ALLOW, RESOLVED);
        EXPECT(within(&w, modes[m], "192.0.2.7", "listed.test", "LISTED.test.", false, NULL), ALLOW, RESOLVED);
        EXPECT(within(&w, modes[m], "192.0.2.7", "listed.test", NULL, false, NULL), ALLOW, RESOLVED);
        /* Another name is refused, however well it is listed; so is what is none. */
        EXPECT(within(&w, modes[m], "192.0.2.7", "listed.test", "x.too.test", false, NULL), DENY, NAME_MISMATCH);
        EXPECT(within(&w, modes[m], "192.0.2.7", "listed.test", "192.0.2.7", false, NULL), DENY, NAME_MISMATCH);
        EXPECT(within(&w, modes[m], "192.0.2.7", "listed.test", "bad..name", false, NULL), DENY, NAME_MISMATCH);
        EXPECT(within(&w, modes[m], "192.0.2.7", "through.test", "listed.test", false, NULL), DENY, NAME_MISMATCH);
        /* Requests are judged one by one, where somebody judges them. */
        EXPECT(within(&w, modes[m], "192.0.2.7", "listed.test", "x.too.test", true, NULL), ALLOW, RESOLVED);
        EXPECT(within(&w, modes[m], "192.0.2.7", "through.test", "listed.test", true, NULL), DENY, NAME_MISMATCH);
    }
    EXPECT(within(&w, SM_MODE_OFF, "192.0.2.7", "listed.test", "other.test", false, NULL), ALLOW, OFF);
    world_free(&w);
}

static void a_route_is_the_operators_rule(void **state)
{
    struct world w = world_new("", "", "denied.test 10.0.0.66", "");
    struct sm_routes routes = {0};
    const enum sm_mode modes[] = {SM_MODE_GUARDED, SM_MODE_STRICT};

    assert_true(sm_routes_add(&routes, "search=http://10.0.0.9:8080", NULL));
    assert_true(sm_routes_add(&routes, "denied.test=http://10.0.0.9:8080", NULL));
    const struct sm_route *r = sm_routes_find(&routes, "search", 80), *d = sm_routes_find(&routes, "denied.test", 80);
    for (size_t m = 0; m < SM_ARRAY_LEN(modes); m++) {
        const char *const opened[] = {"10.0.0.9:8080", "127.0.0.1:8080", "169.254.1.1:80", "192.0.2.7:80"};
        for (size_t i = 0; i < SM_ARRAY_LEN(opened); i++) {
            struct sm_verdict v = within(&w, modes[m], opened[i], "search", NULL, false, r);
            expect_at(&v, SM_ACTION_ALLOW, SM_REASON_ROUTE, __LINE__);
            assert_string_equal(v.rule, "route search");
            assert_false(v.unlisted);
            assert_int_equal(v.name_source, SM_NAME_SOURCE_CONNECT);
        }
        EXPECT(within(&w, modes[m], "10.0.0.66:8080", "search", NULL, false, r), DENY, DENY_LIST);
        EXPECT(within(&w, modes[m], "10.77.0.9:8080", "search", NULL, false, r), DENY, EAST_WEST);
        EXPECT(within(&w, modes[m], "203.0.113.50:443", "search", NULL, false, r), DENY, LISTENER);
        EXPECT(within(&w, modes[m], "10.0.0.9:8080", "denied.test", NULL, false, d), DENY, DENY_LIST);
        EXPECT(within(&w, modes[m], "10.0.0.9:8080", "search", "other.test", false, r), DENY, NAME_MISMATCH);
        EXPECT(within(&w, modes[m], "10.0.0.9:8080", "search", NULL, false, NULL), DENY, INSIDE);
    }
    EXPECT(within(&w, SM_MODE_OFF, "127.0.0.1:8080", "search", NULL, false, r), ALLOW, ROUTE);
    world_free(&w);
}

static void routes_are_read_strictly(void **state)
{
    static const char *const bad[] = {"search",
                                      "search=",
                                      "=http://a.test",
                                      "search=a.test",
                                      "search=https://a.test",
                                      "search=http://",
                                      "search=http:///",
                                      "search=http://a.test/x",
                                      "search=http://a.test?x",
                                      "search=http://u@a.test",
                                      "search=http://a.test:0",
                                      "search=http://0x7f.1",
                                      "search:0=http://a.test",
                                      "search:65536=http://a.test",
                                      "search:x=http://a.test",
                                      "search:53=http://a.test",
                                      "search:853=http://a.test",
                                      "10.0.0.1=http://a.test",
                                      "a b=http://a.test"};
    static const struct {
        const char *text, *shown;
    } good[] = {{"search=http://searxng:8080", "search:80=http://searxng:8080"},
                {"Search:8080=HTTP://10.0.0.9/", "search:8080=http://10.0.0.9:80"},
                {"six=http://[fd00::1]:81", "six:80=http://[fd00::1]:81"}};
    struct sm_routes routes = {0};

    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        g_autoptr(GError) error = NULL;
        if (sm_routes_add(&routes, bad[i], &error))
            fail_msg("%s was taken", bad[i]);
        assert_non_null(error);
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(good); i++) {
        assert_true(sm_routes_add(&routes, good[i].text, NULL));
        g_autofree char *shown = sm_route_format(&routes.item[i]);
        assert_string_equal(shown, good[i].shown);
        assert_false(sm_routes_add(&routes, shown, NULL)); /* twice */
    }
    assert_null(sm_routes_find(&routes, "search", 81));
    assert_null(sm_routes_find(NULL, "search", 80));
    for (size_t i = routes.n; i < SM_ROUTES_MAX; i++) {
        g_autofree char *more = g_strdup_printf("n%zu=http://a.test", i);
        assert_true(sm_routes_add(&routes, more, NULL));
    }
    assert_false(sm_routes_add(&routes, "more=http://a.test", NULL));
}

static void an_empty_list_lists_nothing(void **state)
{
    struct world w = world_new("", "", "", "");
    EXPECT(TCP_SYN(&w, SM_MODE_STRICT, "192.0.2.7"), HOLD, WAITING);
    EXPECT(SNI(&w, SM_MODE_STRICT, "192.0.2.7", "any.test"), DENY, UNLISTED_NAME);
    EXPECT(UDP_FIRST(&w, SM_MODE_STRICT, "192.0.2.7:1"), DENY, UNLISTED);
    world_free(&w);
    struct sm_verdict v;
    sm_decide(&(struct sm_question){.mode = SM_MODE_STRICT, .proto = SM_PROTO_UDP, .dst = at("192.0.2.7:1")}, &v);
    assert_int_equal(v.action, SM_ACTION_DENY); /* and neither do no lists */
}

static void an_expired_pin_proves_nothing(void **state)
{
    struct world w = world_new("listed.test", "", "", "");
    struct sm_addr a = at("192.0.2.7").addr;
    struct sm_verdict v;
    assert_non_null(sm_pins_add(w.pins, "listed.test", &a, 60, 0));
    struct sm_question q = {.mode = SM_MODE_STRICT,
                            .proto = SM_PROTO_UDP,
                            .dst = at("192.0.2.7:123"),
                            .lists = w.lists,
                            .pins = w.pins,
                            .now_us = 60 * 1000000 - 1};
    sm_decide(&q, &v);
    assert_int_equal(v.action, SM_ACTION_DIAL);
    q.now_us++;
    sm_decide(&q, &v);
    assert_int_equal(v.action, SM_ACTION_DENY);
    world_free(&w);
}

static void ports_on_entries_in_strict(void **state)
{
    struct world w = world_new("listed.test:443 192.0.2.9:22", "", "", "listed.test=192.0.2.7");
    EXPECT(TCP_SYN(&w, SM_MODE_STRICT, "192.0.2.7:443"), DIAL, PIN);
    EXPECT(TCP_SYN(&w, SM_MODE_STRICT, "192.0.2.7:80"), HOLD, WAITING);
    EXPECT(HOST(&w, SM_MODE_STRICT, "192.0.2.7:80", "listed.test"), DENY, UNLISTED_NAME);
    EXPECT(TCP_SYN(&w, SM_MODE_STRICT, "192.0.2.9:22"), DIAL, RULE);
    EXPECT(TCP_SYN(&w, SM_MODE_STRICT, "192.0.2.9:23"), HOLD, WAITING);
    /* The port that a Host field names is not the port of the flow. */
    EXPECT(HOST(&w, SM_MODE_STRICT, "192.0.2.7:80", "listed.test:443"), DENY, UNLISTED_NAME);
    world_free(&w);
}

static void bad_destinations(void **state)
{
    struct world w = world_new("", "", "", "");
    struct sm_verdict v;
    struct sm_question q = {.mode = SM_MODE_GUARDED, .dst = {.addr = at("192.0.2.7").addr}, .lists = w.lists};
    sm_decide(&q, &v);
    assert_int_equal(v.reason, SM_REASON_BAD_DESTINATION);
    q = (struct sm_question){.mode = SM_MODE_GUARDED, .dst = {.port = 80}};
    sm_decide(&q, &v);
    assert_int_equal(v.reason, SM_REASON_BAD_DESTINATION);
    /* values outside their enums deny */
    q = (struct sm_question){.stage = (enum sm_stage)9, .dst = at("192.0.2.7")};
    sm_decide(&q, &v);
    assert_int_equal(v.action, SM_ACTION_DENY);
    q = (struct sm_question){.stage = SM_STAGE_ASSERT, .assertion = (enum sm_assertion)99, .dst = at("192.0.2.7")};
    sm_decide(&q, &v);
    assert_int_equal(v.action, SM_ACTION_DENY);
    world_free(&w);
}

static void dns_questions(void **state)
{
    struct world w = world_new(".pypi.org api.test:443", "pass.test", ".denied.test port.test:443", "");
    static const struct {
        const char *name;
        enum sm_action guarded, strict;
        enum sm_reason guarded_reason, strict_reason;
    } rows[] = {
        {"pypi.org", SM_ACTION_ALLOW, SM_ACTION_ALLOW, SM_REASON_LISTED, SM_REASON_LISTED},
        {"Files.PyPI.Org.", SM_ACTION_ALLOW, SM_ACTION_ALLOW, SM_REASON_LISTED, SM_REASON_LISTED},
        {"api.test", SM_ACTION_ALLOW, SM_ACTION_ALLOW, SM_REASON_LISTED, SM_REASON_LISTED},
        {"pass.test", SM_ACTION_ALLOW, SM_ACTION_ALLOW, SM_REASON_LISTED, SM_REASON_LISTED},
        {"evilpypi.org", SM_ACTION_ALLOW, SM_ACTION_DENY, SM_REASON_PUBLIC, SM_REASON_UNLISTED_NAME},
        {"pypi.org.evil.test", SM_ACTION_ALLOW, SM_ACTION_DENY, SM_REASON_PUBLIC, SM_REASON_UNLISTED_NAME},
        {"x.denied.test", SM_ACTION_DENY, SM_ACTION_DENY, SM_REASON_DENY_LIST, SM_REASON_DENY_LIST},
        {"port.test", SM_ACTION_ALLOW, SM_ACTION_DENY, SM_REASON_PUBLIC, SM_REASON_UNLISTED_NAME},
        {"127.1", SM_ACTION_DENY, SM_ACTION_DENY, SM_REASON_BAD_NAME, SM_REASON_BAD_NAME},
        {"10.0.0.5", SM_ACTION_DENY, SM_ACTION_DENY, SM_REASON_BAD_NAME, SM_REASON_BAD_NAME},
        {"a..b", SM_ACTION_DENY, SM_ACTION_DENY, SM_REASON_BAD_NAME, SM_REASON_BAD_NAME},
        {"", SM_ACTION_DENY, SM_ACTION_DENY, SM_REASON_BAD_NAME, SM_REASON_BAD_NAME},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        struct sm_verdict v;
        sm_decide_dns(SM_MODE_GUARDED, w.lists, rows[i].name, strlen(rows[i].name), &v);
        expect_at(&v, rows[i].guarded, rows[i].guarded_reason, (int)i);
        assert_int_equal(v.refuse, v.action == SM_ACTION_DENY ? SM_REFUSAL_DNS_REFUSED : SM_REFUSAL_NONE);
        assert_int_equal(v.unlisted, v.reason == SM_REASON_PUBLIC);
        sm_decide_dns(SM_MODE_STRICT, w.lists, rows[i].name, strlen(rows[i].name), &v);
        expect_at(&v, rows[i].strict, rows[i].strict_reason, (int)i);
    }
    struct sm_verdict v;
    sm_decide_dns(SM_MODE_STRICT, w.lists, "FILES.pypi.org", 14, &v);
    assert_string_equal(v.host, "files.pypi.org");
    assert_string_equal(v.rule, ".pypi.org");
    sm_decide_dns(SM_MODE_OFF, w.lists, "x.denied.test", 13, &v);
    expect_at(&v, SM_ACTION_ALLOW, SM_REASON_OFF, __LINE__);
    /* What may advertise HTTP/3: what is passthrough on port 443, whatever other ports are. */
    static const struct {
        const char *name;
        enum sm_mode mode;
        bool passthrough;
    } https[] = {
        {"pass.test", SM_MODE_GUARDED, true},   {"PASS.test.", SM_MODE_STRICT, true},
        {"pass.test", SM_MODE_OFF, false},      {"pypi.org", SM_MODE_GUARDED, false},
        {"other.test", SM_MODE_GUARDED, false}, {"both.test", SM_MODE_STRICT, false},
    };
    struct world ports = world_new("both.test", "pass.test both.test:8443", "", "");
    for (size_t i = 0; i < SM_ARRAY_LEN(https); i++) {
        sm_decide_dns(https[i].mode, ports.lists, https[i].name, strlen(https[i].name), &v);
        assert_int_equal(v.passthrough, https[i].passthrough);
    }
    world_free(&ports);
    sm_decide_dns(SM_MODE_STRICT, NULL, "pypi.org", 8, &v);
    expect_at(&v, SM_ACTION_DENY, SM_REASON_UNLISTED_NAME, __LINE__);
    world_free(&w);
}

static void modes_by_name(void **state)
{
    static const struct {
        const char *text;
        enum sm_mode mode;
    } rows[] = {{"", SM_MODE_GUARDED}, {"guarded", SM_MODE_GUARDED}, {"strict", SM_MODE_STRICT},
                {"off", SM_MODE_OFF},  {"open", SM_MODE_OFF},        {"disabled", SM_MODE_OFF}};
    enum sm_mode mode = SM_MODES;
    g_autoptr(GError) error = NULL;
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        assert_true(sm_mode_parse(rows[i].text, &mode, NULL));
        assert_int_equal(mode, rows[i].mode);
    }
    mode = SM_MODES;
    assert_false(sm_mode_parse("Strict", &mode, &error));
    assert_int_equal(mode, SM_MODES);
    assert_non_null(strstr(error->message, "guarded, strict or off"));
    assert_string_equal(sm_reason_name(SM_REASON_EAST_WEST), "east_west");
    assert_string_equal(sm_reason_name((enum sm_reason)999), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_of_attempts),
        cmocka_unit_test(the_table_of_assertions),
        cmocka_unit_test(the_table_of_own_resolutions),
        cmocka_unit_test(the_table_of_off),
        cmocka_unit_test(a_zeroed_verdict_is_a_denial),
        cmocka_unit_test(an_asserted_name_never_overrides_inside),
        cmocka_unit_test(the_dns_of_a_listed_name_does_not_open_metadata),
        cmocka_unit_test(a_pin_opens_a_private_address_for_an_exact_name_only),
        cmocka_unit_test(a_port_on_the_entry_binds_the_pin_override),
        cmocka_unit_test(another_name_does_not_ride_on_a_pin_to_an_inside_address),
        cmocka_unit_test(rebinding_is_met_by_the_address),
        cmocka_unit_test(only_a_small_rule_opens_loopback_and_its_like),
        cmocka_unit_test(workspaces_and_listeners_are_never_reachable),
        cmocka_unit_test(strict_holds_until_a_listed_name_and_dials_its_own_answer),
        cmocka_unit_test(strict_refuses_at_classification),
        cmocka_unit_test(silence_and_server_first_with_proof_go_on),
        cmocka_unit_test(a_forged_name_buys_no_uninspected_connection),
        cmocka_unit_test(guarded_unlisted_names_are_recorded_as_such),
        cmocka_unit_test(several_names_on_one_address),
        cmocka_unit_test(passthrough_wins_ties_and_specific_entries_win),
        cmocka_unit_test(a_passthrough_rule_for_the_address_is_proof),
        cmocka_unit_test(deny_beats_everything),
        cmocka_unit_test(look_alike_names),
        cmocka_unit_test(bad_names_are_refused_in_both_modes),
        cmocka_unit_test(ipv6_from_the_guest_is_refused),
        cmocka_unit_test(quic_and_dns_over_tls),
        cmocka_unit_test(opaque_mode_polices_names_and_intercepts_nothing),
        cmocka_unit_test(connect_is_resolved_by_the_core),
        cmocka_unit_test(first_bytes_speak_for_the_name_of_connect),
        cmocka_unit_test(a_route_is_the_operators_rule),
        cmocka_unit_test(routes_are_read_strictly),
        cmocka_unit_test(an_empty_list_lists_nothing),
        cmocka_unit_test(an_expired_pin_proves_nothing),
        cmocka_unit_test(ports_on_entries_in_strict),
        cmocka_unit_test(bad_destinations),
        cmocka_unit_test(dns_questions),
        cmocka_unit_test(modes_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
