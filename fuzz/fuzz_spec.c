/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The spec file in both formats. Beyond "no crash": a refusal has an error that names file and line and changes nothing; what is taken is a plan
 * whose addresses are hosts of its subnet and not each other's, whose publishes do not clash, and which comes out the same when what is kept of
 * the document is read again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "launch/spec.h"
#include "supervisor/publish.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

static bool is_host(const struct sm_net_plan *p, const struct sm_addr *a)
{
    uint32_t bits = UINT32_MAX >> p->subnet.len, at = sm_addr_to_u32(a) & bits;
    return sm_prefix_contains(&p->subnet, a) && at != 0 && at != bits;
}

static void check_plan(const struct sm_net_plan *p)
{
    if (p->mode == SM_NETWORK_ISOLATED)
        return;
    require(p->subnet.len >= SM_NET_PREFIX_MIN && p->subnet.len <= SM_NET_PREFIX_MAX);
    require(is_host(p, &p->guest) && is_host(p, &p->gateway) && is_host(p, &p->resolver));
    require(!sm_addr_equal(&p->guest, &p->gateway) && !sm_addr_equal(&p->guest, &p->resolver));
    require(p->n_dns >= 1 && p->n_dns <= SM_NET_DNS_MAX && p->n_routes <= SM_NET_ROUTES_MAX);
    for (size_t i = 0; i < p->n_dns; i++)
        require(!sm_prefix_contains(&p->subnet, &p->dns[i]) || sm_addr_equal(&p->dns[i], &p->gateway) ||
                sm_addr_equal(&p->dns[i], &p->resolver));
}

static void check_publishes(const GArray *publishes)
{
    for (guint i = 0; i < publishes->len; i++)
        for (guint j = 0; j < i; j++)
            require(!sm_publish_clashes(&g_array_index(publishes, struct sm_publish, i),
                                        &g_array_index(publishes, struct sm_publish, j)));
}

static void check(const char *file, const char *text, size_t len, bool isolated)
{
    const struct sm_publish given = {.host = {.addr = sm_addr_v4(127, 0, 0, 1), .port = 8080}, .guest_port = 80};
    g_autoptr(GArray) publishes = g_array_new(FALSE, FALSE, sizeof(struct sm_publish));
    g_autoptr(GArray) again = g_array_new(FALSE, FALSE, sizeof(struct sm_publish));
    g_autoptr(GError) error = NULL;
    struct sm_net_plan before, plan, same;
    json_t *kept = NULL, *kept_again = NULL;

    sm_net_plan_reference(&before);
    if (isolated)
        before.mode = SM_NETWORK_ISOLATED;
    else
        g_array_append_val(publishes, given);
    plan = same = before;
    bool ok = sm_spec_apply(file, text, len, isolated, &plan, publishes, &kept, &error);
    require(ok == (error == NULL) && ok == (kept != NULL));
    if (!ok) {
        require(g_str_has_prefix(error->message, file));
        require(sm_net_plan_equal(&plan, &before) && publishes->len == !isolated && !kept);
        return;
    }
    check_plan(&plan);
    check_publishes(publishes);
    char *dumped = json_dumps(kept, 0);
    require(dumped != NULL);
    if (!isolated)
        g_array_append_val(again, given);
    require(sm_spec_apply("kept.json", dumped, strlen(dumped), isolated, &same, again, &kept_again, &error));
    require(sm_net_plan_equal(&plan, &same) && again->len == publishes->len && json_equal(kept, kept_again));
    free(dumped);
    json_decref(kept);
    json_decref(kept_again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;

    check("f.yaml", text, size, false);
    check("f.json", text, size, false);
    check("f.yaml", text, size, true);
    return 0;
}
