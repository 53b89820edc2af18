/* SPDX-License-Identifier: BSD-3-Clause */
/* Refusals that need no question; see holds.h. */
#include "nat/holds.h"

#include <string.h>

#include "nat/wire.h"

void sm_holds_init(struct sm_holds *holds, const uint64_t secret[2])
{
    memset(holds, 0, sizeof(*holds));
    holds->secret[0] = secret[0];
    holds->secret[1] = secret[1];
}

static struct sm_hold_entry *set_of(struct sm_holds *holds, const struct sm_hold_key *k)
{
    uint64_t tuple = (uint64_t)k->dst << 32 | (uint32_t)k->src_port << 16 | k->dst_port;
    uint64_t h = sm_mix64(tuple ^ holds->secret[0]) + k->proto;
    return holds->entries[sm_mix64(h ^ holds->secret[1]) % SM_HOLDS_SETS];
}

static bool key_equal(const struct sm_hold_key *a, const struct sm_hold_key *b)
{
    return a->dst == b->dst && a->dst_port == b->dst_port && a->src_port == b->src_port && a->proto == b->proto;
}

static struct sm_hold_key scoped(const struct sm_hold_key *key, enum sm_flow_scope scope)
{
    struct sm_hold_key k = *key;
    if (scope == SM_SCOPE_DESTINATION)
        k.src_port = 0;
    return k;
}

static struct sm_hold_entry *find(struct sm_holds *holds, const struct sm_hold_key *key, enum sm_flow_scope scope)
{
    struct sm_hold_key k = scoped(key, scope);
    struct sm_hold_entry *set = set_of(holds, &k);
    for (size_t i = 0; i < SM_HOLDS_WAYS; i++)
        if (set[i].until_us != 0 && set[i].scope == scope && key_equal(&set[i].key, &k))
            return &set[i];
    return NULL;
}

void sm_holds_add(struct sm_holds *holds, const struct sm_hold_key *key, enum sm_flow_scope scope, enum sm_flow_how how,
                  uint32_t hold_ms, int64_t now_us, sm_holds_report_fn *report, void *data)
{
    if (hold_ms == 0)
        return;
    struct sm_hold_entry *e = find(holds, key, scope);
    if (!e) {
        struct sm_hold_key k = scoped(key, scope);
        struct sm_hold_entry *set = set_of(holds, &k);
        e = &set[0];
        for (size_t i = 1; i < SM_HOLDS_WAYS; i++)
            if (set[i].until_us < e->until_us)
                e = &set[i];
        if (e->count > 0) {
            (void)report(&e->key, e->count,
                         data); /* a count that the core's queue has no room for is lost with its hold */
            holds->untold -= e->count;
        }
        e->key = k;
        e->scope = (uint8_t)scope;
        e->count = 0;
    }
    e->how = (uint8_t)how;
    e->until_us = now_us + (int64_t)SM_MIN(hold_ms, (uint32_t)SM_HOLDS_MS_MAX) * 1000;
}

bool sm_holds_match(struct sm_holds *holds, const struct sm_hold_key *key, int64_t now_us, enum sm_flow_how *ret_how)
{
    static const enum sm_flow_scope scopes[] = {SM_SCOPE_DESTINATION, SM_SCOPE_TUPLE};
    for (size_t i = 0; i < SM_ARRAY_LEN(scopes); i++) {
        struct sm_hold_entry *e = find(holds, key, scopes[i]);
        if (!e || e->until_us <= now_us)
            continue;
        if (e->count < UINT32_MAX) {
            e->count++;
            holds->untold++;
        }
        *ret_how = (enum sm_flow_how)e->how;
        return true;
    }
    return false;
}

void sm_holds_report(struct sm_holds *holds, sm_holds_report_fn *report, void *data)
{
    if (holds->untold == 0)
        return;
    for (size_t s = 0; s < SM_HOLDS_SETS; s++) {
        for (size_t i = 0; i < SM_HOLDS_WAYS; i++) {
            struct sm_hold_entry *e = &holds->entries[s][i];
            if (e->count == 0 || !report(&e->key, e->count, data))
                continue;
            holds->untold -= e->count;
            e->count = 0;
        }
    }
}

void sm_holds_release(struct sm_holds *holds)
{
    /* A time long past, and not "never used": the count is still to be told. */
    for (size_t s = 0; s < SM_HOLDS_SETS; s++)
        for (size_t i = 0; i < SM_HOLDS_WAYS; i++)
            if (holds->entries[s][i].until_us != 0)
                holds->entries[s][i].until_us = -1;
}
