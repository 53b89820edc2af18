/* SPDX-License-Identifier: BSD-3-Clause */
/* The core's own rules; see rules.h. */
#include "core/rules.h"

#include <string.h>
#include <strings.h>

#include "base/defs.h"

enum sm_mediate_kind sm_rule_kind(enum sm_mode mode, const struct sm_verdict *v, const char *classified)
{
    if (mode == SM_MODE_OFF || v->passthrough || !classified)
        return SM_MEDIATE_NOT;
    if (strcmp(classified, "tls") == 0)
        return v->intercept ? SM_MEDIATE_TLS : SM_MEDIATE_NOT;
    if (strcmp(classified, "http") == 0 || strcmp(classified, "h2") == 0)
        return SM_MEDIATE_CLEARTEXT;
    return SM_MEDIATE_NOT;
}

const char *sm_rule_request(const struct sm_rule_connection *c, const struct sm_host *host, uint16_t port,
                            uint16_t *ret_status)
{
    struct sm_verdict v;

    *ret_status = 421;
    if (port && port != c->dst.port)
        return "authority_mismatch";
    if (c->asserted->kind == SM_NAME_HOST)
        return host->kind == SM_NAME_HOST && strcmp(host->name, c->asserted->name) == 0 ? NULL : "authority_mismatch";
    if (host->kind != SM_NAME_HOST)
        return sm_addr_equal(&host->addr, &c->dst.addr) ? NULL : "authority_mismatch";
    if (c->asserted->kind != SM_NAME_BAD)
        return "authority_mismatch"; /* it asserted an address */
    /* Inside TLS the origin has proven who it is: the name that it was verified for, or its address alone. */
    if (c->tls && strcmp(host->name, c->verified) != 0)
        return "authority_mismatch";
    c->ask(c->data, host, &v);
    switch (v.action) {
    case SM_ACTION_ALLOW:
        return NULL;
    case SM_ACTION_DENY:
        *ret_status = 403;
        return sm_reason_name(v.reason);
    case SM_ACTION_RESOLVE: /* listed, and only an own resolution could prove it: this connection goes elsewhere */
    case SM_ACTION_DNS:
    case SM_ACTION_DIAL:
    case SM_ACTION_HOLD:
    case SM_ACTIONS:
        break;
    }
    return "unproven_name";
}

bool sm_rule_echoes(const char *method, size_t len)
{
    static const char *const words[] = {"TRACE", "TRACK"};

    for (size_t i = 0; i < SM_ARRAY_LEN(words); i++)
        if (len == strlen(words[i]) && strncasecmp(method, words[i], len) == 0)
            return true;
    return false;
}
