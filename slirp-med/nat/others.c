/* SPDX-License-Identifier: BSD-3-Clause */
/* Counting what is dropped; see others.h. */
#include "nat/others.h"

static const struct sm_addr nowhere = {.family = SM_FAMILY_V4};

static void count_up(uint32_t *count)
{
    if (*count < UINT32_MAX)
        (*count)++;
}

void sm_others_add(struct sm_others *others, enum sm_flow_other kind, uint8_t proto, const struct sm_addr *dst,
                   sm_others_report_fn *report, void *data)
{
    struct sm_others_entry *empty = NULL;

    if (dst->family == SM_FAMILY_NONE)
        dst = &nowhere;
    for (size_t i = 0; i < SM_OTHERS_MAX; i++) {
        struct sm_others_entry *e = &others->entries[i];
        if (!e->used) {
            empty = empty ? empty : e;
            continue;
        }
        if (e->kind == kind && e->proto == proto && sm_addr_equal(&e->dst, dst)) {
            count_up(&e->count);
            return;
        }
    }
    if (!empty) {
        count_up(&others->overflow[kind]);
        return;
    }
    *empty = (struct sm_others_entry){.used = true, .kind = (uint8_t)kind, .proto = proto, .dst = *dst};
    others->used++;
    if (!report(kind, proto, dst, 1, data))
        empty->count = 1;
}

void sm_others_tick(struct sm_others *others, sm_others_report_fn *report, void *data)
{
    for (size_t i = 0; i < SM_OTHERS_MAX; i++) {
        struct sm_others_entry *e = &others->entries[i];
        if (!e->used)
            continue;
        if (e->count == 0) {
            e->used = false;
            others->used--;
        } else if (report((enum sm_flow_other)e->kind, e->proto, &e->dst, e->count, data)) {
            e->count = 0;
        }
    }
    for (unsigned kind = 0; kind < SM_OTHERS; kind++)
        if (others->overflow[kind] > 0 && report((enum sm_flow_other)kind, 0, &nowhere, others->overflow[kind], data))
            others->overflow[kind] = 0;
}

bool sm_others_idle(const struct sm_others *others)
{
    if (others->used > 0)
        return false;
    for (unsigned kind = 0; kind < SM_OTHERS; kind++)
        if (others->overflow[kind] > 0)
            return false;
    return true;
}
