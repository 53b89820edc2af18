/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sm_decide() against a second opinion: a small model, written from the spec over plain arrays and linear search, must
 * give the same action and the same passthrough on random workspaces and questions. The generator is seeded: a failure
 * prints the seed and the question, and comes again on every run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "policy/decide.h"

#define WORLDS 3000
#define QUESTIONS 80

static uint64_t rng_state;

static unsigned pick(unsigned n)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (unsigned)((rng_state >> 11) % n);
}

/* ---- a small universe ---- */

static const char *const names[] = {"x.test", "a.x.test", "b.a.x.test", "y.test", "c.y.test", "evilx.test", "z.test"};
#define NAMES (int)SM_ARRAY_LEN(names)

/* What the model believes about addresses: which kind of opening each needs. */
enum need { NEED_NOTHING, NEED_PIN_OR_RULE, NEED_RULE, NEED_SMALL_RULE, NEED_MIRACLE };
static const struct {
    uint8_t a[4];
    enum need need;
} addrs[] = {
    {{192, 0, 2, 7}, NEED_NOTHING},          {{192, 0, 2, 8}, NEED_NOTHING},      {{10, 0, 0, 5}, NEED_PIN_OR_RULE},
    {{100, 64, 3, 4}, NEED_PIN_OR_RULE},     {{198, 18, 0, 1}, NEED_RULE},        {{127, 0, 0, 1}, NEED_SMALL_RULE},
    {{169, 254, 169, 254}, NEED_SMALL_RULE}, {{203, 0, 113, 5}, NEED_SMALL_RULE}, /* the host's own */
    {{10, 77, 0, 9}, NEED_MIRACLE},                                               /* another workspace */
};
#define ADDRS (int)SM_ARRAY_LEN(addrs)

static const uint16_t ports[] = {80, 443, 853, 53, 123};

struct line { /* one entry of a list */
    enum sm_list_kind list;
    bool is_name;
    bool suffix;
    int name; /* index of names */
    uint8_t net[4];
    int bits;
    uint16_t port;
};

struct model {
    struct line lines[12];
    int n_lines;
    bool pinned[NAMES][ADDRS];
};

struct ask {
    enum sm_mode mode;
    enum sm_stage stage;
    enum sm_proto proto;
    bool opaque;
    int addr;
    uint16_t port;
    int name; /* -1: none */
};

/* ---- the second opinion ---- */

static bool ends_below(const char *name, const char *apex)
{
    g_autofree char *dotted = g_strconcat(".", name, NULL), *tail = g_strconcat(".", apex, NULL);
    return g_str_has_suffix(dotted, tail);
}

static bool covers(const struct line *l, const struct ask *q, int name)
{
    if (l->port && l->port != q->port)
        return false;
    if (l->is_name)
        return name >= 0 && (l->suffix ? ends_below(names[name], names[l->name]) : l->name == name);
    if (name >= 0)
        return false;
    for (int bit = 0; bit < l->bits; bit++)
        if (((l->net[bit / 8] ^ addrs[q->addr].a[bit / 8]) >> (7 - bit % 8)) & 1)
            return false;
    return true;
}

static bool is_exact(const struct line *l)
{
    return l->is_name ? !l->suffix : l->bits == 32;
}

/* > 0: a wins */
static int beats(const struct line *a, const struct line *b)
{
    if (is_exact(a) != is_exact(b))
        return is_exact(a) ? 1 : -1;
    if (!is_exact(a) && a->is_name == b->is_name) {
        int sa = a->is_name ? (int)strlen(names[a->name]) : a->bits,
            sb = b->is_name ? (int)strlen(names[b->name]) : b->bits;
        if (sa != sb)
            return sa - sb;
    }
    if (!a->port != !b->port)
        return a->port ? 1 : -1;
    return (a->list == SM_LIST_PASSTHROUGH) - (b->list == SM_LIST_PASSTHROUGH);
}

/* The winning entry for a name (or, with -1, for the address). */
static const struct line *winner(const struct model *m, const struct ask *q, int name)
{
    const struct line *best = NULL;
    for (int i = 0; i < m->n_lines; i++)
        if (m->lines[i].list != SM_LIST_DENY && covers(&m->lines[i], q, name) &&
            (!best || beats(&m->lines[i], best) > 0))
            best = &m->lines[i];
    return best;
}

static bool denied(const struct model *m, const struct ask *q, int name)
{
    for (int i = 0; i < m->n_lines; i++)
        if (m->lines[i].list == SM_LIST_DENY && covers(&m->lines[i], q, name))
            return true;
    return false;
}

static bool is_pass(const struct line *l)
{
    return l && l->list == SM_LIST_PASSTHROUGH;
}

static const struct line *stronger(const struct line *a, const struct line *b)
{
    return !a || (b && beats(b, a) > 0) ? b : a;
}

static char model_decide(const struct model *m, const struct ask *q, bool *passthrough)
{
    enum need need = addrs[q->addr].need;
    const struct line *rule = winner(m, q, -1);
    bool by_rule = rule && (need <= NEED_RULE || (need == NEED_SMALL_RULE && rule->bits >= 24));
    const struct line *usable = by_rule ? rule : NULL;
    int pins = 0, denied_pins = 0, pass_pins = 0, good_pins = 0, openers = 0;

    *passthrough = false;
    if (q->port == 53)
        return 'N';
    if (q->port == 853 || need == NEED_MIRACLE || denied(m, q, -1))
        return 'D';
    for (int n = 0; n < NAMES; n++) {
        if (!m->pinned[n][q->addr])
            continue;
        const struct line *l = winner(m, q, n);
        bool bad = denied(m, q, n);
        bool opens = !bad && (need == NEED_NOTHING || (need == NEED_PIN_OR_RULE && l && is_exact(l)));
        pins++;
        denied_pins += bad;
        pass_pins += is_pass(stronger(l, rule));
        good_pins += opens && l;
        openers += opens || need == NEED_NOTHING;
    }
    if (pins && denied_pins == pins && q->stage != SM_STAGE_RESOLVED)
        return 'D';

    if (q->name >= 0 && q->stage != SM_STAGE_ATTEMPT) {
        const struct line *l = winner(m, q, q->name);
        bool proven = q->stage == SM_STAGE_RESOLVED || m->pinned[q->name][q->addr];
        bool reach = need == NEED_NOTHING || by_rule;
        if (denied(m, q, q->name))
            return 'D';
        if (q->mode == SM_MODE_STRICT && !l)
            return 'D';
        if (proven) {
            if (!reach && !(need == NEED_PIN_OR_RULE && l && is_exact(l)))
                return 'D';
            *passthrough = is_pass(stronger(l, usable));
            return 'A';
        }
        if (!reach && !openers)
            return 'D';
        if (l && q->mode == SM_MODE_STRICT && !by_rule)
            return 'R';
        if (is_pass(l) && (!usable || beats(l, usable) > 0))
            return 'R';
        if (!reach || denied_pins)
            return 'D';
        *passthrough = is_pass(stronger(usable, l));
        return 'A';
    }

    if (denied_pins && !(q->proto == SM_PROTO_TCP && q->stage == SM_STAGE_ATTEMPT))
        return 'D';
    if (need != NEED_NOTHING && !by_rule && !good_pins)
        return 'D';
    if (by_rule || good_pins || q->mode == SM_MODE_GUARDED) {
        bool all_pass = pins ? pass_pins == pins : is_pass(rule);
        if (q->proto == SM_PROTO_UDP && q->port == 443 && !q->opaque && !by_rule && !(pins && all_pass))
            return 'D';
        *passthrough = (by_rule || good_pins) && all_pass;
        return q->stage == SM_STAGE_ATTEMPT ? 'I' : 'A';
    }
    return q->proto == SM_PROTO_TCP && q->stage == SM_STAGE_ATTEMPT ? 'H' : 'D';
}

/* ---- the real thing on the same world ---- */

struct real {
    struct sm_lists *lists;
    struct sm_pins *pins;
    struct sm_ground *ground;
};

static struct sm_addr addr_of(int i)
{
    return sm_addr_v4(addrs[i].a[0], addrs[i].a[1], addrs[i].a[2], addrs[i].a[3]);
}

static void line_text(const struct line *l, char text[128])
{
    char port[16] = "";
    if (l->port)
        g_snprintf(port, sizeof(port), ":%u", (unsigned)l->port);
    if (l->is_name)
        g_snprintf(text, 128, "%s%s%s", l->suffix ? "." : "", names[l->name], port);
    else
        g_snprintf(text, 128, "%d.%d.%d.%d/%d%s", l->net[0], l->net[1], l->net[2], l->net[3], l->bits, port);
}

static void build(struct model *m, struct real *r)
{
    static const int lengths[] = {8, 16, 23, 24, 25, 32};
    static const uint16_t entry_ports[] = {0, 0, 0, 80, 443};
    const struct sm_addr own = sm_addr_v4(203, 0, 113, 5);
    const struct sm_prefix other = {sm_addr_v4(10, 77, 0, 0), 24};

    memset(m, 0, sizeof(*m));
    *r = (struct real){sm_lists_new(), sm_pins_new(SM_PINS_MAX), sm_ground_new()};
    assert_true(sm_ground_set_own(r->ground, &own, 1));
    assert_true(sm_ground_set_workspaces(r->ground, &other, 1));
    m->n_lines = (int)pick(SM_ARRAY_LEN(m->lines) + 1);
    for (int i = 0; i < m->n_lines; i++) {
        struct line *l = &m->lines[i];
        char text[128];
        unsigned which = pick(7);
        l->list = which < 3 ? SM_LIST_ALLOW : which < 6 ? SM_LIST_PASSTHROUGH : SM_LIST_DENY;
        l->is_name = pick(5) < 3;
        l->suffix = pick(2) == 0;
        l->name = (int)pick((unsigned)NAMES);
        l->bits = lengths[pick(SM_ARRAY_LEN(lengths))];
        l->port = entry_ports[pick(SM_ARRAY_LEN(entry_ports))];
        memcpy(l->net, addrs[pick((unsigned)ADDRS)].a, 4);
        for (int bit = l->bits; bit < 32; bit++)
            l->net[bit / 8] &= (uint8_t) ~(0x80 >> (bit % 8));
        line_text(l, text);
        assert_true(sm_lists_add_text(r->lists, l->list, text, NULL));
    }
    for (unsigned i = pick(10); i > 0; i--) {
        int n = (int)pick((unsigned)NAMES), a = (int)pick((unsigned)ADDRS);
        struct sm_addr address = addr_of(a);
        m->pinned[n][a] = true;
        assert_non_null(sm_pins_add(r->pins, names[n], &address, 300, 0));
    }
}

static char real_decide(const struct real *r, const struct ask *ask, struct sm_verdict *v)
{
    static const char letters[] = {[SM_ACTION_DENY] = 'D', [SM_ACTION_DNS] = 'N',     [SM_ACTION_DIAL] = 'I',
                                   [SM_ACTION_HOLD] = 'H', [SM_ACTION_RESOLVE] = 'R', [SM_ACTION_ALLOW] = 'A'};
    struct sm_host host;
    struct sm_question q = {
        .mode = ask->mode,
        .stage = ask->stage,
        .proto = ask->proto,
        .opaque = ask->opaque,
        .dst = {addr_of(ask->addr), ask->port},
        .assertion = ask->name >= 0 ? SM_ASSERTION_SNI : SM_ASSERTION_OPAQUE,
        .lists = r->lists,
        .pins = r->pins,
        .ground = r->ground,
        .now_us = 1,
    };
    if (ask->name >= 0) {
        (void)sm_name_classify(names[ask->name], strlen(names[ask->name]), &host);
        q.asserted = &host;
    }
    sm_decide(&q, v);
    return letters[v->action];
}

static void the_model_agrees(void **state)
{
    unsigned seen[128] = {0};

    for (uint64_t seed = 1; seed <= WORLDS; seed++) {
        struct model m;
        struct real r;
        rng_state = seed * 0x9e3779b97f4a7c15u;
        build(&m, &r);
        for (int i = 0; i < QUESTIONS; i++) {
            struct sm_verdict v;
            struct ask q = {
                .mode = pick(2) ? SM_MODE_STRICT : SM_MODE_GUARDED,
                .stage = (enum sm_stage)pick(SM_STAGES),
                .opaque = pick(4) == 0,
                .addr = (int)pick((unsigned)ADDRS),
                .port = ports[pick(20) < 18 ? pick(2) : pick(SM_ARRAY_LEN(ports))],
                .name = (int)pick((unsigned)NAMES + 1) - 1,
            };
            bool passthrough;
            if (q.stage == SM_STAGE_ATTEMPT)
                q.proto = pick(2) ? SM_PROTO_UDP : SM_PROTO_TCP;
            if (q.stage == SM_STAGE_RESOLVED && q.name < 0)
                q.name = 0;
            char expected = model_decide(&m, &q, &passthrough);
            char got = real_decide(&r, &q, &v);
            seen[(unsigned char)got]++;
            if (expected != got || passthrough != v.passthrough) {
                for (int l = 0; l < m.n_lines; l++) {
                    char text[128];
                    line_text(&m.lines[l], text);
                    print_error("  %s %s\n", sm_list_kind_name(m.lines[l].list), text);
                }
                for (int n = 0; n < NAMES; n++)
                    if (m.pinned[n][q.addr])
                        print_error("  pin %s\n", names[n]);
                fail_msg("seed %u question %d: %s %s %s %d.%d.%d.%d:%u name %s: %c (%s, passthrough %d), model %c (%d)",
                         (unsigned)seed, i, sm_mode_name(q.mode), sm_stage_name(q.stage), sm_proto_name(q.proto),
                         addrs[q.addr].a[0], addrs[q.addr].a[1], addrs[q.addr].a[2], addrs[q.addr].a[3],
                         (unsigned)q.port, q.name < 0 ? "none" : names[q.name], got, sm_reason_name(v.reason),
                         v.passthrough, expected, passthrough);
            }
        }
        sm_lists_free(r.lists);
        sm_pins_free(r.pins);
        sm_ground_free(r.ground);
    }
    /* A generator that no longer reaches an action would make this test blind to it. */
    for (const char *p = "DNIHRA"; *p; p++)
        if (seen[(unsigned char)*p] < 1000)
            fail_msg("only %u verdicts %c", seen[(unsigned char)*p], *p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_model_agrees)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
