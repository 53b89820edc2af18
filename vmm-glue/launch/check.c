/* SPDX-License-Identifier: BSD-3-Clause */
/* A connection's way through the core's questions; see check.h. */
#include "launch/check.h"

#include <ifaddrs.h>
#include <netinet/in.h>
#include <string.h>

#include "base/error.h"
#include "core/config.h"
#include "core/rules.h"
#include "cred/provider.h"
#include "cred/swap.h"
#include "launch/messages.h"
#include "launch/swaps.h"
#include "policy/file.h"

#define PORT_HTTP 80
#define PORT_HTTPS 443
/** Longest METHOD and PATH: as much as a request line that the core takes. */
#define METHOD_MAX 64
#define PATH_MAX_LEN 8192

static const char *const as_names[] = {
    [SM_CHECK_AS_PORT] = "port",     [SM_CHECK_AS_TLS] = "tls", [SM_CHECK_AS_HTTP] = "http",
    [SM_CHECK_AS_OPAQUE] = "opaque", [SM_CHECK_AS_UDP] = "udp",
};
SM_NAME_TABLE_COVERS(as_names, SM_CHECK_AS_COUNT);

const char *sm_check_as_name(enum sm_check_as as)
{
    return (unsigned)as < SM_CHECK_AS_COUNT ? as_names[as] : "?";
}

/* ---- the question ---- */

static bool bad_host(const char *text, GError **error, const char *why)
{
    g_autofree char *shown = g_utf8_make_valid(text, -1);
    g_autofree char *escaped = g_strescape(shown, NULL);

    sm_error_set(error, SM_ERROR_INVALID, "%.300s: %s: write HOST or HOST:PORT, for instance api.example.com:443",
                 escaped, why);
    return false;
}

bool sm_check_parse(const char *text, struct sm_check *ret, GError **error)
{
    struct sm_check c = {.port = PORT_HTTPS};
    struct sm_addr v6;

    if (strlen(text) > SM_ENTRY_TEXT_MAX)
        return bad_host(text, error, "too long");
    if (sm_addr_parse(text, &v6) && v6.family == SM_FAMILY_V6) {
        (void)sm_name_classify(text, strlen(text), &c.host);
    } else if (sm_host_parse(text, strlen(text), &c.host) == SM_NAME_BAD) {
        /* With U-labels, or in no form at all. */
        const char *colon = strrchr(text, ':');
        g_autofree char *name = colon ? g_strndup(text, (gsize)(colon - text)) : g_strdup(text);
        g_autofree char *ascii = NULL;
        char canonical[SM_NAME_STRLEN];
        if (!g_utf8_validate(name, -1, NULL) || !sm_name_from_operator(name, canonical, NULL))
            return bad_host(text, error, "neither a name nor an address");
        ascii = g_strconcat(canonical, colon ? colon : "", NULL);
        if (sm_host_parse(ascii, strlen(ascii), &c.host) == SM_NAME_BAD)
            return bad_host(text, error, "its port is none");
    }
    if (c.host.port)
        c.port = c.host.port;
    ret->host = c.host;
    ret->port = c.port;
    return true;
}

bool sm_check_request(const char *method, const char *path, struct sm_check *ret, GError **error)
{
    size_t len = strlen(method);
    bool token = len > 0 && len <= METHOD_MAX;

    for (size_t i = 0; i < len; i++) /* RFC 9110 5.6.2 */
        token &= g_ascii_isalnum(method[i]) || strchr("!#$%&'*+-.^_`|~", method[i]) != NULL;
    if (!token) {
        g_autofree char *shown = g_strescape(method, NULL);
        sm_error_set(error, SM_ERROR_INVALID, "%.80s: not a method: write GET, POST or another", shown);
        return false;
    }
    bool plain = path[0] == '/' && strlen(path) <= PATH_MAX_LEN;
    for (const char *c = path; *c; c++)
        plain &= *c > 0x20 && *c < 0x7f;
    if (!plain) {
        g_autofree char *shown = g_strescape(path, NULL);
        sm_error_set(error, SM_ERROR_INVALID, "%.80s: not a path: it begins with '/' and has no blanks", shown);
        return false;
    }
    ret->method = method;
    ret->path = path;
    return true;
}

/* ---- the ground ---- */

/** The host's own addresses are inside; asking the kernel for them is not asking the network. */
static bool add_own(struct sm_ground *ground, GError **error)
{
    g_autoptr(GArray) own = g_array_new(FALSE, FALSE, sizeof(struct sm_addr));
    struct ifaddrs *all = NULL;

    if (getifaddrs(&all) < 0) {
        sm_error_set_errno(error, errno, "this host's addresses cannot be had");
        return false;
    }
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        struct sockaddr_storage ss = {0};
        struct sm_endpoint e;
        if (!i->ifa_addr || (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6))
            continue;
        memcpy(&ss, i->ifa_addr,
               i->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
        if (sm_endpoint_from_sockaddr(&ss, &e))
            g_array_append_val(own, e.addr);
    }
    freeifaddrs(all);
    if (sm_ground_set_own(ground, (const struct sm_addr *)(const void *)own->data, own->len))
        return true;
    sm_error_set(error, SM_ERROR_LIMIT, "this host has more than %d addresses", SM_GROUND_OWN_MAX);
    return false;
}

/** Everything that a case looks at. */
struct world {
    const struct sm_run_options *o;
    struct sm_core_config *config; /* what the core would be started with, decoded as the core does */
    struct sm_pins *pins;
    const struct sm_check *check;
    enum sm_check_as as;
    enum sm_proto proto;
};

static void config_freep(struct sm_core_config **c)
{
    if (*c)
        sm_core_config_free(*c);
}

static void pins_freep(struct sm_pins **p)
{
    sm_pins_free(*p);
}

static enum sm_check_as what(const struct sm_check *c)
{
    if (c->as != SM_CHECK_AS_PORT)
        return c->as;
    if (c->port == PORT_HTTPS)
        return SM_CHECK_AS_TLS;
    return c->port == PORT_HTTP || c->method ? SM_CHECK_AS_HTTP : SM_CHECK_AS_OPAQUE;
}

/* ---- where an entry stands ---- */

static bool in_list(const struct sm_lists *lists, enum sm_list_kind kind, const struct sm_entry *entry)
{
    for (size_t i = 0; i < sm_lists_count(lists, kind); i++)
        if (sm_entry_equal(sm_lists_get(lists, kind, i), entry))
            return true;
    return false;
}

/** "--egress-allow", "--cred-swap=openai" or "FILE:LINE"; NULL: in no such list. */
static char *place_in(const struct sm_run_options *o, enum sm_list_kind kind, const struct sm_entry *entry)
{
    static const char *const flags[] = {[SM_LIST_ALLOW] = "--egress-allow",
                                        [SM_LIST_PASSTHROUGH] = "--egress-passthrough",
                                        [SM_LIST_DENY] = "--egress-deny"};
    SM_NAME_TABLE_COVERS(flags, SM_LIST_KINDS);

    for (guint i = 0; kind == SM_LIST_ALLOW && i < o->given->len; i++) { /* --cred-swap lists its host */
        const char *flag = g_ptr_array_index(o->given, i);
        if (!g_str_has_prefix(flag, "--cred-swap="))
            continue;
        const char *value = flag + strlen("--cred-swap=");
        g_autofree char *name = g_strndup(value, strcspn(value, "="));
        const struct sm_provider *provider = sm_provider_find(name);
        if (provider && entry->kind == SM_ENTRY_HOST && entry->port == 0 && strcmp(entry->name, provider->host) == 0)
            return g_strconcat("--cred-swap=", provider->name, NULL);
    }
    if (in_list(o->flag_lists, kind, entry))
        return g_strdup(flags[kind]);
    for (guint i = 0; kind != SM_LIST_DENY && i < o->policy_files->len; i++) {
        const char *path = g_ptr_array_index(o->policy_files, i);
        size_t len;
        g_autofree char *data = sm_option_read_file(path, SM_POLICY_FILE_MAX, &len, NULL);
        size_t line = data ? sm_policy_file_line(path, data, len, kind, entry) : 0;
        if (line)
            return g_strdup_printf("%s:%zu", path, line);
    }
    return NULL;
}

/** The entry that a verdict names, and where it stands. */
static void put_rule(const struct world *w, const struct sm_verdict *v, json_t *step)
{
    static const enum sm_list_kind order[] = {SM_LIST_DENY, SM_LIST_PASSTHROUGH, SM_LIST_ALLOW};
    struct sm_entry entry;

    if (!v->rule[0] || !sm_entry_parse(v->rule, &entry, NULL))
        return;
    (void)json_object_set_new(step, "rule", json_string(v->rule));
    for (size_t i = 0; i < SM_ARRAY_LEN(order); i++) {
        if ((v->action == SM_ACTION_DENY) != (order[i] == SM_LIST_DENY) || !in_list(w->config->lists, order[i], &entry))
            continue;
        g_autofree char *place = place_in(w->o, order[i], &entry);
        (void)json_object_set_new(step, "list", json_string(sm_list_kind_name(order[i])));
        if (place && g_utf8_validate(place, -1, NULL))
            (void)json_object_set_new(step, "place", json_string(place));
        return;
    }
}

static json_t *step_of(const struct world *w, const char *name, const struct sm_verdict *v)
{
    json_t *step = json_pack("{s:s, s:s, s:s}", "step", name, "action", sm_action_name(v->action), "reason",
                             sm_reason_name(v->reason));

    if (v->action == SM_ACTION_DENY && v->refuse != SM_REFUSAL_NONE)
        (void)json_object_set_new(step, "answer", json_string(sm_refusal_name(v->refuse)));
    put_rule(w, v, step);
    return step;
}

/* ---- one case ---- */

static struct sm_question question(const struct world *w, enum sm_stage stage, const struct sm_addr *addr)
{
    return (struct sm_question){
        .mode = w->config->mode,
        .stage = stage,
        .proto = w->proto,
        .opaque = w->config->opaque,
        .dst = {.addr = *addr, .port = w->check->port},
        .lists = w->config->lists,
        .pins = w->pins,
        .ground = w->config->ground,
    };
}

/** What the first bytes name. TLS to an address names nobody (RFC 6066 3: no address in an SNI). */
static enum sm_assertion assertion_of(const struct world *w)
{
    switch (w->as) {
    case SM_CHECK_AS_TLS:
        return w->check->host.kind == SM_NAME_HOST ? SM_ASSERTION_SNI : SM_ASSERTION_OPAQUE;
    case SM_CHECK_AS_HTTP:
        return SM_ASSERTION_HOST;
    case SM_CHECK_AS_PORT:
    case SM_CHECK_AS_OPAQUE:
    case SM_CHECK_AS_UDP:
    case SM_CHECK_AS_COUNT:
        break;
    }
    return SM_ASSERTION_OPAQUE;
}

static void never_asked(void *data, const struct sm_host *host, struct sm_verdict *ret)
{
    (void)data;
    (void)host;
    memset(ret, 0, sizeof(*ret)); /* a denial: the connection asserts what the request is for */
}

/** The request, where the core looks at one. False: it is refused. */
static bool judge_request(const struct world *w, const struct sm_addr *addr, const struct sm_verdict *v,
                          enum sm_mediate_kind kind, json_t *one, json_t *steps)
{
    const struct sm_check *c = w->check;
    const struct sm_host none = {.kind = SM_NAME_BAD};
    bool sni = assertion_of(w) != SM_ASSERTION_OPAQUE;
    struct sm_rule_connection connection = {.asserted = sni ? &c->host : &none,
                                            .dst = {.addr = *addr, .port = c->port},
                                            .tls = kind == SM_MEDIATE_TLS,
                                            .verified = v->host,
                                            .ask = never_asked};
    uint16_t status;

    const struct sm_swap *swap =
        kind == SM_MEDIATE_TLS && c->host.kind == SM_NAME_HOST ? sm_swaps_match(w->config->swaps, c->host.name) : NULL;
    bool echoes = swap && c->method && sm_rule_echoes(c->method, strlen(c->method));
    if (swap && !echoes)
        (void)json_object_set_new(one, "credential",
                                  json_pack("{s:s, s:s, s:s}", "name", swap->name, "type",
                                            sm_swap_type_name(swap->type), "header", swap->header));
    if (!c->method)
        return true;
    if (kind == SM_MEDIATE_NOT) {
        (void)json_array_append_new(steps, json_pack("{s:s, s:s, s:s}", "step", "request", "action", "unseen", "reason",
                                                     v->passthrough ? "passthrough" : "not_http"));
        return true;
    }
    const char *reason = sm_rule_request(&connection, &c->host, c->host.port, &status);
    if (!reason && echoes) {
        reason = "trace_with_credential";
        status = 403;
    }
    if (reason)
        (void)json_array_append_new(steps, json_pack("{s:s, s:s, s:s, s:i}", "step", "request", "action", "deny",
                                                     "reason", reason, "status", (int)status));
    else
        (void)json_array_append_new(
            steps, json_pack("{s:s, s:s, s:s}", "step", "request", "action", "allow", "reason", "authority"));
    return !reason;
}

static const char *treatment(enum sm_mediate_kind kind, const struct sm_verdict *v)
{
    switch (kind) {
    case SM_MEDIATE_TLS:
        return "intercepted";
    case SM_MEDIATE_CLEARTEXT:
        return "judged_by_request";
    case SM_MEDIATE_NOT:
        break;
    }
    return v->passthrough ? "passthrough" : "relayed";
}

/** The stages of a flow, as core/session.c asks them. Returns true when it is let through. */
static bool flow(const struct world *w, const struct sm_addr *addr, json_t *one, json_t *steps)
{
    struct sm_question q = question(w, SM_STAGE_ATTEMPT, addr);
    struct sm_verdict v;

    sm_decide(&q, &v);
    (void)json_array_append_new(steps, step_of(w, "attempt", &v));
    (void)json_object_set_new(one, "inside", v.internal ? json_string(sm_inside_kind_name(v.inside)) : json_null());
    if (v.action == SM_ACTION_DENY)
        return false;
    if (v.action == SM_ACTION_DNS) {
        (void)json_object_set_new(one, "treatment", json_string("resolver"));
        return true;
    }
    if (w->proto == SM_PROTO_UDP) {
        (void)json_object_set_new(one, "treatment", json_string(v.passthrough ? "passthrough" : "relayed"));
        return v.action == SM_ACTION_DIAL;
    }
    q = question(w, SM_STAGE_ASSERT, addr);
    q.assertion = assertion_of(w);
    q.asserted = q.assertion == SM_ASSERTION_OPAQUE ? NULL : &w->check->host;
    sm_decide(&q, &v);
    (void)json_array_append_new(steps, step_of(w, "first_bytes", &v));
    if (v.action == SM_ACTION_RESOLVE) {
        q.stage = SM_STAGE_RESOLVED;
        sm_decide(&q, &v);
        (void)json_array_append_new(steps, step_of(w, "resolved", &v));
    }
    if (v.action != SM_ACTION_ALLOW)
        return false;
    enum sm_mediate_kind kind = sm_rule_kind(w->config->mode, &v, sm_check_as_name(w->as));
    (void)json_object_set_new(one, "treatment", json_string(treatment(kind, &v)));
    return judge_request(w, addr, &v, kind, one, steps);
}

static bool add_case(const struct world *w, const char *kind, const struct sm_addr *addr, json_t *cases)
{
    char text[SM_ADDR_STRLEN];
    json_t *steps = json_array();
    json_t *one = json_pack("{s:s, s:s}", "address", kind, "example", sm_addr_format(addr, text));

    if (w->check->host.kind == SM_NAME_HOST)
        (void)!sm_pins_add(w->pins, w->check->host.name, addr, SM_PINS_TTL_MIN_S, 0);
    bool allowed = flow(w, addr, one, steps);
    (void)json_object_set_new(one, "action", json_string(allowed ? "allow" : "deny"));
    (void)json_object_set_new(one, "steps", steps);
    (void)json_array_append_new(cases, one);
    return allowed;
}

/** An address of the class that no entry speaks of; failing that, any of the class. */
static bool example(const struct world *w, enum sm_inside_class class, struct sm_addr *ret)
{
    bool found = false;

    for (unsigned i = 0; i < 256; i++) {
        const struct sm_addr tries[] = {class == SM_INSIDE_CLASS_PUBLIC ? sm_addr_v4((uint8_t)i, 23, 45, 67)
                                                                        : sm_addr_v4(10, (uint8_t)i, 45, 67),
                                        class == SM_INSIDE_CLASS_SMALL_RULE ? sm_addr_v4(169, 254, (uint8_t)i, 67)
                                                                            : sm_addr_v4(192, 168, (uint8_t)i, 67)};
        for (size_t k = 0; k < SM_ARRAY_LEN(tries); k++) {
            struct sm_endpoint e = {.addr = tries[k], .port = w->check->port};
            enum sm_inside_class have;
            (void)sm_ground_kind(w->config->ground, &e, &have);
            if (have != class)
                continue;
            bool spoken_of = sm_lists_addr(w->config->lists, &e).entry || sm_lists_deny_addr(w->config->lists, &e);
            if (!found || !spoken_of)
                *ret = tries[k];
            found = true;
            if (!spoken_of)
                return true;
        }
    }
    return found;
}

static bool name_cases(const struct world *w, json_t *cases)
{
    static const struct {
        const char *kind;
        enum sm_inside_class class;
    } kinds[] = {
        {"public", SM_INSIDE_CLASS_PUBLIC}, {"private", SM_INSIDE_CLASS_PIN}, {"special", SM_INSIDE_CLASS_SMALL_RULE}};
    bool allowed = false, first = true;

    for (size_t i = 0; i < SM_ARRAY_LEN(kinds); i++) {
        struct sm_addr addr;
        if (!example(w, kinds[i].class, &addr))
            continue;
        bool one = add_case(w, kinds[i].kind, &addr, cases);
        allowed = first ? one : allowed;
        first = false;
    }
    return allowed;
}

/* ---- the report ---- */

static json_t *caps_of(const struct sm_caps_limits *caps)
{
    return json_pack("{s:o, s:o, s:o}", sm_cap_name(SM_CAP_MAX_BPS),
                     caps->bps ? json_integer((json_int_t)caps->bps) : json_null(), sm_cap_name(SM_CAP_MAX_TOTAL_BYTES),
                     caps->total ? json_integer((json_int_t)caps->total) : json_null(), sm_cap_name(SM_CAP_MAX_CONNS),
                     caps->conns ? json_integer((json_int_t)caps->conns) : json_null());
}

static bool judge(const struct world *w, json_t *report, json_t *cases)
{
    const struct sm_check *c = w->check;
    struct sm_verdict v;

    if (w->o->net.mode == SM_NETWORK_ISOLATED) {
        (void)json_object_set_new(report, "reason", json_string("isolated"));
        return false;
    }
    if (c->host.kind != SM_NAME_HOST)
        return add_case(w, "given", &c->host.addr, cases);
    sm_decide_dns(w->config->mode, w->config->lists, c->host.name, strlen(c->host.name), &v);
    (void)json_object_set_new(report, "dns", step_of(w, "dns", &v));
    if (v.action == SM_ACTION_DENY) {
        (void)json_object_set_new(report, "reason", json_string(sm_reason_name(v.reason)));
        return false;
    }
    if (c->address.family != SM_FAMILY_NONE)
        return add_case(w, "given", &c->address, cases);
    return name_cases(w, cases);
}

json_t *sm_check_run(const struct sm_run_options *o, const struct sm_check *check, GError **error)
{
    const struct sm_launch_ground nothing = {.resolv_conf = ""};
    g_autofree char *message = sm_message_core(o, &nothing, error);
    sm_cleanup(config_freep) struct sm_core_config *config =
        message ? sm_core_config_load(message, strlen(message), error) : NULL;
    sm_cleanup(pins_freep) struct sm_pins *pins = sm_pins_new(SM_PINS_PER_ADDR_MAX);

    if (!config || !add_own(config->ground, error))
        return NULL;
    struct world w = {.o = o, .config = config, .pins = pins, .check = check, .as = what(check)};
    w.proto = w.as == SM_CHECK_AS_UDP ? SM_PROTO_UDP : SM_PROTO_TCP;
    json_t *report =
        json_pack("{s:i, s:s, s:i, s:s, s:s, s:b}", "schema", 1, "host", check->host.name, "port", (int)check->port,
                  "as", sm_check_as_name(w.as), "mode", sm_mode_name(config->mode), "opaque", config->opaque);
    json_t *cases = json_array();
    bool allowed = judge(&w, report, cases);
    (void)json_object_set_new(report, "verdict", json_string(allowed ? "allow" : "deny"));
    (void)json_object_set_new(report, "cases", cases);
    (void)json_object_set_new(report, "caps", caps_of(&config->caps));
    return report;
}

bool sm_check_allowed(const json_t *report)
{
    const char *verdict = json_string_value(json_object_get(report, "verdict"));
    return verdict && strcmp(verdict, "allow") == 0;
}
