/* SPDX-License-Identifier: BSD-3-Clause */
/* A typed configuration as flags of `slirp-med attach`: what a value means is judged there, by the one parser. */
#include "embed/embed.h"

#include <string.h>

#include "audit/event.h"

static const char *const mode_names[] = {
    [SLIRP_MED_GUARDED] = "guarded", [SLIRP_MED_STRICT] = "strict", [SLIRP_MED_OFF] = "off"};

static void put(GPtrArray *flags, const char *name, const char *value)
{
    if (value)
        g_ptr_array_add(flags, g_strdup_printf("--%s=%s", name, value));
}

static void put_list(GPtrArray *flags, const char *name, const char *const *values)
{
    for (; values && *values; values++)
        put(flags, name, *values);
}

static void put_number(GPtrArray *flags, const char *name, uint64_t value)
{
    if (value > 0)
        g_ptr_array_add(flags, g_strdup_printf("--%s=%" G_GUINT64_FORMAT, name, value));
}

static void put_switch(GPtrArray *flags, const char *name, bool on)
{
    if (on)
        g_ptr_array_add(flags, g_strdup_printf("--%s", name));
}

char **sm_embed_flags(const struct slirp_med_config *c, struct slirp_med_error *error)
{
    if (!c->name || !sm_audit_name_valid(c->name)) {
        (void)sm_embed_fail(error, SLIRP_MED_ERROR_INVALID, "name: '%.80s' is not [A-Za-z0-9][A-Za-z0-9._-]{0,62}",
                            c->name ? c->name : "");
        return NULL;
    }
    if ((unsigned)c->mode >= SM_ARRAY_LEN(mode_names)) {
        (void)sm_embed_fail(error, SLIRP_MED_ERROR_INVALID, "mode: %d is none", (int)c->mode);
        return NULL;
    }
    GPtrArray *flags = g_ptr_array_new();
    put(flags, "egress", mode_names[c->mode]);
    put(flags, "state-dir", c->state_dir);
    put_switch(flags, "egress-opaque", c->opaque);
    put_list(flags, "egress-allow", c->allow);
    put_list(flags, "egress-passthrough", c->passthrough);
    put_list(flags, "egress-deny", c->deny);
    put_list(flags, "egress-inside", c->inside);
    put(flags, "egress-policy", c->policy_file);
    put(flags, "egress-swap-config", c->swap_config);
    put_list(flags, "cred-swap", c->cred_swaps);
    put_list(flags, "egress-ca-file", c->ca_files);
    put_list(flags, "dns", c->dns);
    put_number(flags, "egress-max-bps", c->max_bps);
    put_number(flags, "egress-max-total-bytes", c->max_total_bytes);
    put_number(flags, "egress-max-conns", c->max_conns);
    put_number(flags, "audit-max-bytes", c->audit_max_bytes);
    put_switch(flags, "audit-sync", c->audit_sync);
    put_list(flags, "publish", c->publish);
    put_list(flags, "mediation", c->mediation);
    put_list(flags, "mediation-optional", c->mediation_optional);
    put(flags, "vsock", c->vsock);
    put(flags, "mac", c->mac);
    put_number(flags, "mtu", c->mtu);
    for (const char *const *more = c->more; more && *more; more++)
        g_ptr_array_add(flags, g_strdup(*more));
    g_ptr_array_add(flags, NULL);
    return (char **)g_ptr_array_free(flags, FALSE);
}
