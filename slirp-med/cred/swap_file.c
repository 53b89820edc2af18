/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From a tree to entries; see swap.h for what an entry may have. The table of keys says which type has which key; one
 * function takes each.
 */
#include <string.h>

#include "base/error.h"
#include "cred/internal.h"

#define BIT(type) (1u << (type))
#define ALL_TYPES (BIT(SM_SWAP_STATIC) | BIT(SM_SWAP_OAUTH2_CC) | BIT(SM_SWAP_JWT_BEARER))
#define WITH_TOKEN (BIT(SM_SWAP_OAUTH2_CC) | BIT(SM_SWAP_JWT_BEARER))

/** An entry in the making. */
struct draft {
    struct sm_swaps *set;
    const struct sm_swap_source *source;
    bool numbered;
    struct sm_swap *swap;
};

struct key;
typedef bool (*take_fn)(struct draft *d, const struct sm_node *node, GError **error);

struct key {
    const char *name;
    unsigned types;    /* which have it */
    unsigned required; /* which must */
    take_fn take;
};

/** "FILE:LINE"; the core's configuration has no lines. */
static char *place_of(const struct sm_swap_source *source, size_t line)
{
    return line ? g_strdup_printf("%s:%zu", source->file, line) : g_strdup(source->file);
}

static bool fail(const struct draft *d, size_t line, GError **error, const char *fmt, ...) SM_PRINTF(4, 5);

static bool fail(const struct draft *d, size_t line, GError **error, const char *fmt, ...)
{
    g_autofree char *place = place_of(d->source, line);
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    if (d->swap)
        sm_error_set(error, SM_ERROR_INVALID, "%s: swap '%s': %s", place, d->swap->name, text);
    else
        sm_error_set(error, SM_ERROR_INVALID, "%s: %s", place, text);
    return false;
}

/** The place in front of what a rule said. */
static bool prefixed(const struct draft *d, const struct sm_node *node, const char *key, GError **error)
{
    g_autofree char *place = place_of(d->source, node->line);
    g_prefix_error(error, "%s: swap '%s': %s: ", place, d->swap->name, key);
    return false;
}

/** Text that is there and has no NUL; never quoted. */
static const char *text_of(const struct draft *d, const struct sm_node *node, const char *key, GError **error)
{
    if (node->kind == SM_NODE_NULL || (node->kind == SM_NODE_TEXT && node->len == 0))
        fail(d, node->line, error, "%s: is empty", key);
    else if (node->kind != SM_NODE_TEXT)
        fail(d, node->line, error, "%s: wrong type: it is text, not %s", key, sm_node_kind_words(node->kind));
    else if (strlen(node->text) != node->len)
        fail(d, node->line, error, "%s: a NUL byte is in it", key);
    else
        return node->text;
    return NULL;
}

typedef bool (*check_fn)(const char *text, GError **error);

static bool take_text(const struct draft *d, const struct sm_node *node, check_fn check, char **ret, GError **error)
{
    const char *text = text_of(d, node, node->key, error);
    if (!text)
        return false;
    if (!check(text, error))
        return prefixed(d, node, node->key, error);
    *ret = g_strdup(text);
    return true;
}

static bool take_list(const struct draft *d, const struct sm_node *node, size_t max, GError **error)
{
    if (node->kind != SM_NODE_LIST)
        return fail(d, node->line, error, "%s: wrong type: it is a list, not %s", node->key,
                    node->kind == SM_NODE_NULL ? "empty" : sm_node_kind_words(node->kind));
    if (node->items->len > max) {
        g_autofree char *place = place_of(d->source, node->line);
        sm_error_set(error, SM_ERROR_LIMIT, "%s: swap '%s': %s: more than %zu", place, d->swap->name, node->key, max);
        return false;
    }
    return true;
}

/** One word of a table: the number of the value, or -1 with error. */
static int take_word(const struct draft *d, const struct sm_node *node, const char *(*name)(unsigned), unsigned n,
                     GError **error)
{
    const char *text = text_of(d, node, node->key, error);
    g_autoptr(GString) all = g_string_new(NULL);

    if (!text)
        return -1;
    for (unsigned i = 0; i < n; i++) {
        if (strcmp(name(i), text) == 0)
            return (int)i;
        g_string_append_printf(all, "%s%s", i == 0 ? "" : i + 1 == n ? " or " : ", ", name(i));
    }
    fail(d, node->line, error, "%s: write %s", node->key, all->str);
    return -1;
}

static const char *type_word(unsigned i)
{
    return sm_swap_type_name((enum sm_swap_type)i);
}

static const char *auth_word(unsigned i)
{
    return sm_swap_auth_name((enum sm_swap_auth)i);
}

static const char *algorithm_word(unsigned i)
{
    return sm_swap_algorithm_name((enum sm_swap_algorithm)i);
}

static bool take_ref(struct draft *d, const struct sm_node *node, const struct sm_ref **ret, GError **error)
{
    sm_cleanup(sm_ref_clear) struct sm_ref ref = {0};

    if (d->numbered) {
        if (node->kind != SM_NODE_INTEGER || node->integer < 0 || (uint64_t)node->integer >= d->set->refs->len)
            return fail(d, node->line, error, "%s: not the number of a reference", node->key);
        *ret = g_ptr_array_index(d->set->refs, (size_t)node->integer);
        return true;
    }
    if (node->kind != SM_NODE_TEXT && node->kind != SM_NODE_NULL)
        return fail(d, node->line, error, "%s: wrong type: a reference is text (env:NAME, file:PATH, vault:PATH#FIELD)",
                    node->key);
    if (!sm_ref_parse(node->text ? node->text : "", node->len, d->source->folder, &ref, error))
        return prefixed(d, node, node->key, error);
    *ret = sm_swaps_intern(d->set, &ref);
    return true;
}

/* ---- each key ---- */

static bool take_type(struct draft *d, const struct sm_node *node, GError **error)
{
    return true; /* read before the others */
}

static bool take_domains(struct draft *d, const struct sm_node *node, GError **error)
{
    struct sm_swap *s = d->swap;

    if (!take_list(d, node, SM_SWAP_DOMAINS_MAX, error))
        return false;
    if (node->items->len == 0)
        return fail(d, node->line, error, "domains: is empty: list a host or a .suffix");
    s->domains = g_new0(struct sm_swap_domain, node->items->len);
    for (guint i = 0; i < node->items->len; i++) {
        const struct sm_node *item = g_ptr_array_index(node->items, i);
        const char *text = text_of(d, item, "domains", error);
        if (!text)
            return false;
        if (!sm_swap_parse_domain(text, &s->domains[i], error))
            return prefixed(d, item, "domains", error);
        s->domains[i].place = place_of(d->source, item->line);
        s->n_domains = i + 1;
    }
    return true;
}

static bool take_header(struct draft *d, const struct sm_node *node, GError **error)
{
    return take_text(d, node, sm_swap_check_header, &d->swap->header, error);
}

static bool take_format(struct draft *d, const struct sm_node *node, GError **error)
{
    const char *text = text_of(d, node, "format", error);
    if (!text)
        return false;
    if (!sm_swap_check_format(d->swap->type, text, error))
        return prefixed(d, node, "format", error);
    d->swap->format = g_strdup(text);
    return true;
}

static bool take_placeholder(struct draft *d, const struct sm_node *node, GError **error)
{
    return take_text(d, node, sm_swap_check_placeholder, &d->swap->placeholder, error);
}

static bool take_scrub(struct draft *d, const struct sm_node *node, GError **error)
{
    if (node->kind != SM_NODE_BOOLEAN)
        return fail(d, node->line, error, "scrub: write true or false");
    d->swap->scrub = node->boolean;
    return true;
}

static bool take_key_ref(struct draft *d, const struct sm_node *node, GError **error)
{
    return take_ref(d, node, &d->swap->key_ref, error);
}

static bool take_client_id_ref(struct draft *d, const struct sm_node *node, GError **error)
{
    return take_ref(d, node, &d->swap->client_id_ref, error);
}

static bool take_client_secret_ref(struct draft *d, const struct sm_node *node, GError **error)
{
    return take_ref(d, node, &d->swap->client_secret_ref, error);
}

static bool take_signing_key_ref(struct draft *d, const struct sm_node *node, GError **error)
{
    return take_ref(d, node, &d->swap->signing_key_ref, error);
}

static bool take_token_url(struct draft *d, const struct sm_node *node, GError **error)
{
    return take_text(d, node, sm_swap_check_url, &d->swap->token_url, error);
}

static bool take_scopes(struct draft *d, const struct sm_node *node, GError **error)
{
    if (!take_list(d, node, SM_SWAP_SCOPES_MAX, error))
        return false;
    d->swap->scopes = g_new0(char *, node->items->len + 1);
    for (guint i = 0; i < node->items->len; i++) {
        const struct sm_node *item = g_ptr_array_index(node->items, i);
        const char *text = text_of(d, item, "scopes", error);
        if (!text)
            return false;
        if (!sm_swap_check_scope(text, error))
            return prefixed(d, item, "scopes", error);
        d->swap->scopes[i] = g_strdup(text);
    }
    return true;
}

static bool take_audience(struct draft *d, const struct sm_node *node, GError **error)
{
    return take_text(d, node, sm_swap_check_audience, &d->swap->audience, error);
}

static bool take_field(struct draft *d, const struct sm_node *node, GError **error)
{
    return take_text(d, node, sm_swap_check_field, &d->swap->token_response_field, error);
}

static bool take_ttl(struct draft *d, const struct sm_node *node, GError **error)
{
    if (node->kind != SM_NODE_INTEGER || node->integer < 1 || node->integer > SM_SWAP_TTL_MAX)
        return fail(d, node->line, error, "token_ttl_seconds: write a number of seconds from 1 to %d", SM_SWAP_TTL_MAX);
    d->swap->token_ttl_seconds = (unsigned)node->integer;
    return true;
}

static bool take_auth_style(struct draft *d, const struct sm_node *node, GError **error)
{
    int i = take_word(d, node, auth_word, SM_SWAP_AUTHS, error);
    if (i < 0)
        return false;
    d->swap->auth_style = (enum sm_swap_auth)i;
    return true;
}

static bool take_algorithm(struct draft *d, const struct sm_node *node, GError **error)
{
    int i = take_word(d, node, algorithm_word, SM_SWAP_ALGORITHMS, error);
    if (i < 0)
        return false;
    d->swap->algorithm = (enum sm_swap_algorithm)i;
    return true;
}

/* Appends the value of the variable that at begins ("${NAME}"). Return: what is behind it, or NULL with error. */
static const char *expand_one(struct draft *d, size_t line, const char *claim, const char *at, GString *out,
                              GError **error)
{
    const char *name = at + strlen("${"), *end = strchr(name, '}');

    if (!end || !sm_ref_env_name(name, (size_t)(end - name))) {
        fail(d, line, error, "claims: %s: ${ begins a variable: write ${NAME}", claim);
        return NULL;
    }
    g_autofree char *variable = g_strndup(name, (gsize)(end - name));
    const char *value = d->source->variable(variable, d->source->data);
    if (!value || !value[0])
        fail(d, line, error, "claims: %s: the variable %s is %s", claim, variable, value ? "empty" : "not set");
    else if (strlen(value) > SM_SWAP_CLAIM_TEXT_MAX)
        fail(d, line, error, "claims: %s: the variable %s is too long: at most %d bytes", claim, variable,
             SM_SWAP_CLAIM_TEXT_MAX);
    else if (!sm_swap_claim_text_ok(value))
        fail(d, line, error, "claims: %s: the variable %s has a control character, or is not UTF-8", claim, variable);
    else if (!sm_swaps_name_variable(d->set, variable))
        fail(d, line, error, "claims: %s: more than %d variables in all", claim, SM_SWAPS_VARIABLES_MAX);
    else {
        g_string_append(out, value);
        return end + 1;
    }
    return NULL;
}

/* The text of a claim with its variables replaced, or NULL with error. */
static char *expand(struct draft *d, size_t line, const char *claim, const char *text, GError **error)
{
    g_autoptr(GString) out = g_string_new(NULL);
    const char *start;

    while (text && d->source->variable && (start = strstr(text, "${")) && out->len <= SM_SWAP_CLAIM_TEXT_MAX) {
        g_string_append_len(out, text, start - text);
        text = expand_one(d, line, claim, start, out, error);
    }
    if (!text)
        return NULL;
    g_string_append(out, text);
    if (out->len > SM_SWAP_CLAIM_TEXT_MAX) {
        fail(d, line, error, "claims: %s: too long: at most %d bytes", claim, SM_SWAP_CLAIM_TEXT_MAX);
        return NULL;
    }
    return g_string_free(g_steal_pointer(&out), FALSE);
}

/* A text or number of a claim, or NULL with error. */
static json_t *claim_value(struct draft *d, const struct sm_node *node, const char *claim, GError **error)
{
    switch (node->kind) {
    case SM_NODE_TEXT: {
        if (strlen(node->text) != node->len || !sm_swap_claim_text_ok(node->text)) {
            fail(d, node->line, error, "claims: %s: a control character is in it", claim);
            return NULL;
        }
        g_autofree char *text = expand(d, node->line, claim, node->text, error);
        return text ? json_string(text) : NULL;
    }
    case SM_NODE_INTEGER:
        return json_integer(node->integer);
    case SM_NODE_REAL:
        return json_real(node->real);
    case SM_NODE_MAP:
    case SM_NODE_LIST:
    case SM_NODE_BOOLEAN:
    case SM_NODE_NULL:
    case SM_NODE_ODD:
    case SM_NODE_KINDS:
        break;
    }
    fail(d, node->line, error, "claims: %s: wrong type: a claim is text, a number, or a list of these, not %s", claim,
         sm_node_kind_words(node->kind));
    return NULL;
}

static bool take_claim(struct draft *d, const struct sm_node *node, GError **error)
{
    json_t *value = NULL;

    if (node->key[0] == '\0' || !sm_swap_check_claim_name(node->key, error)) {
        if (node->key[0] == '\0')
            return fail(d, node->line, error, "claims: a claim has an empty name");
        return prefixed(d, node, "claims", error);
    }
    if (node->kind == SM_NODE_LIST) {
        if (node->items->len > SM_SWAP_CLAIM_VALUES_MAX)
            return fail(d, node->line, error, "claims: %s: more than %d values", node->key, SM_SWAP_CLAIM_VALUES_MAX);
        value = json_array();
        for (guint i = 0; i < node->items->len; i++) {
            json_t *item = claim_value(d, g_ptr_array_index(node->items, i), node->key, error);
            if (!item) {
                json_decref(value);
                return false;
            }
            (void)json_array_append_new(value, item);
        }
    } else {
        value = claim_value(d, node, node->key, error);
    }
    return value && json_object_set_new(d->swap->claims, node->key, value) == 0;
}

static bool take_claims(struct draft *d, const struct sm_node *node, GError **error)
{
    if (node->kind != SM_NODE_MAP)
        return fail(d, node->line, error, "claims: wrong type: it is a mapping, not %s",
                    node->kind == SM_NODE_NULL ? "empty" : sm_node_kind_words(node->kind));
    if (node->items->len > SM_SWAP_CLAIMS_MAX)
        return fail(d, node->line, error, "claims: more than %d", SM_SWAP_CLAIMS_MAX);
    for (guint i = 0; i < node->items->len; i++)
        if (!take_claim(d, g_ptr_array_index(node->items, i), error))
            return false;
    return true;
}

static const struct key keys[] = {
    {"type", ALL_TYPES, ALL_TYPES, take_type},
    {"domains", ALL_TYPES, ALL_TYPES, take_domains},
    {"header", ALL_TYPES, 0, take_header},
    {"format", ALL_TYPES, 0, take_format},
    {"placeholder", ALL_TYPES, 0, take_placeholder},
    {"scrub", ALL_TYPES, 0, take_scrub},
    {"key_ref", BIT(SM_SWAP_STATIC), BIT(SM_SWAP_STATIC), take_key_ref},
    {"token_url", WITH_TOKEN, BIT(SM_SWAP_OAUTH2_CC), take_token_url},
    {"client_id_ref", BIT(SM_SWAP_OAUTH2_CC), BIT(SM_SWAP_OAUTH2_CC), take_client_id_ref},
    {"client_secret_ref", BIT(SM_SWAP_OAUTH2_CC), BIT(SM_SWAP_OAUTH2_CC), take_client_secret_ref},
    {"scopes", BIT(SM_SWAP_OAUTH2_CC), 0, take_scopes},
    {"audience", BIT(SM_SWAP_OAUTH2_CC), 0, take_audience},
    {"token_response_field", WITH_TOKEN, 0, take_field},
    {"token_ttl_seconds", WITH_TOKEN, 0, take_ttl},
    {"auth_style", BIT(SM_SWAP_OAUTH2_CC), 0, take_auth_style},
    {"signing_key_ref", BIT(SM_SWAP_JWT_BEARER), BIT(SM_SWAP_JWT_BEARER), take_signing_key_ref},
    {"algorithm", BIT(SM_SWAP_JWT_BEARER), BIT(SM_SWAP_JWT_BEARER), take_algorithm},
    {"claims", BIT(SM_SWAP_JWT_BEARER), 0, take_claims},
};

/* A key may be shown when it looks like one: anything else may be a secret in the wrong place. */
static bool showable(const char *key)
{
    size_t len = strspn(key, "abcdefghijklmnopqrstuvwxyz_");
    return len > 0 && len <= 32 && key[len] == '\0';
}

static const struct key *find_key(const struct draft *d, const struct sm_node *node, GError **error)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(keys); i++) {
        if (strcmp(keys[i].name, node->key) != 0)
            continue;
        if (keys[i].types & BIT(d->swap->type))
            return &keys[i];
        fail(d, node->key_line, error, "type %s has no key '%s'", sm_swap_type_name(d->swap->type), keys[i].name);
        return NULL;
    }
    if (showable(node->key))
        fail(d, node->key_line, error, "unknown key '%s'", node->key);
    else
        fail(d, node->key_line, error, "unknown key (not shown, in case it is a secret)");
    return NULL;
}

static const struct sm_node *child(const struct sm_node *map, const char *key)
{
    for (guint i = 0; i < map->items->len; i++) {
        const struct sm_node *node = g_ptr_array_index(map->items, i);
        if (strcmp(node->key, key) == 0)
            return node;
    }
    return NULL;
}

static void set_defaults(struct sm_swap *s)
{
    if (!s->header)
        s->header = g_strdup("Authorization");
    if (!s->format)
        s->format = g_strconcat(g_ascii_strcasecmp(s->header, "Authorization") == 0 ? "Bearer " : "",
                                sm_swap_marker(s->type), NULL);
    if (s->token_url && !s->token_response_field)
        s->token_response_field = g_strdup("access_token");
    if (s->type == SM_SWAP_OAUTH2_CC && !s->scopes)
        s->scopes = g_new0(char *, 1);
}

static bool decode_entry(struct draft *d, const struct sm_node *node, GError **error)
{
    sm_cleanup(sm_swap_freep) struct sm_swap *s = g_new0(struct sm_swap, 1);
    const struct sm_node *type_node;

    if (!sm_swap_check_name(node->key, error)) {
        g_autofree char *place = place_of(d->source, node->key_line);
        g_prefix_error(error, "%s: ", place);
        return false;
    }
    s->name = g_strdup(node->key);
    s->place = place_of(d->source, node->key_line);
    s->scrub = true;
    d->swap = s;
    if (node->kind != SM_NODE_MAP)
        return fail(d, node->line, error, "wrong type: a swap is a mapping, not %s",
                    node->kind == SM_NODE_NULL ? "empty" : sm_node_kind_words(node->kind));
    if (!(type_node = child(node, "type")))
        return fail(d, node->key_line, error, "lacks type (static, oauth2-cc or jwt-bearer)");
    int type = take_word(d, type_node, type_word, SM_SWAP_TYPES, error);
    if (type < 0)
        return false;
    s->type = (enum sm_swap_type)type;
    if (s->type == SM_SWAP_JWT_BEARER)
        s->claims = json_object();
    for (guint i = 0; i < node->items->len; i++) {
        const struct sm_node *value = g_ptr_array_index(node->items, i);
        const struct key *key = find_key(d, value, error);
        if (!key || !key->take(d, value, error))
            return false;
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(keys); i++)
        if ((keys[i].required & BIT(s->type)) && !child(node, keys[i].name))
            return fail(d, node->key_line, error, "lacks %s, which type %s needs", keys[i].name, type_word(s->type));
    if (s->token_response_field && !s->token_url)
        return fail(d, node->key_line, error, "token_response_field: there is no token_url that could answer");
    set_defaults(s);
    if (!sm_swaps_add(d->set, s, error))
        return false;
    (void)sm_steal_ptr(&s);
    return true;
}

bool sm_swaps_decode(struct sm_swaps *swaps, const struct sm_node *entries, const struct sm_swap_source *source,
                     bool numbered, GError **error)
{
    struct draft d = {.set = swaps, .source = source, .numbered = numbered};

    if (entries->kind != SM_NODE_MAP)
        return fail(&d, entries->line, error, "wrong type: 'swaps' is a mapping of names to entries, not %s",
                    entries->kind == SM_NODE_NULL ? "empty" : sm_node_kind_words(entries->kind));
    for (guint i = 0; i < entries->items->len; i++) {
        d.swap = NULL;
        if (!decode_entry(&d, g_ptr_array_index(entries->items, i), error))
            return false;
    }
    return true;
}

struct sm_swaps *sm_swaps_parse(const struct sm_swap_source *source, const char *data, size_t len, GError **error)
{
    sm_cleanup(sm_swaps_freep) struct sm_swaps *swaps = sm_swaps_new();
    static const struct sm_tree_format format = {.noun = "a swap file",
                                                 .keys = "text",
                                                 .empty = "write swaps: {} to swap nothing",
                                                 .twice = "",
                                                 .nodes_max = SM_SWAP_NODES_MAX,
                                                 .secret = true,
                                                 .free_keys = true};
    struct draft d = {.set = swaps, .source = source};
    const struct sm_node *entries = NULL;

    if (len > SM_SWAP_FILE_MAX) {
        sm_error_set(error, SM_ERROR_LIMIT, "%s: a swap file has at most %zu bytes", source->file, SM_SWAP_FILE_MAX);
        return NULL;
    }
    sm_cleanup(sm_node_freep) struct sm_node *root = sm_tree_parse(&format, source->file, data, len, NULL, error);
    if (!root)
        return NULL;
    if (root->kind != SM_NODE_MAP) {
        fail(&d, root->line, error, "wrong type: a swap file is a mapping with the key swaps, not %s",
             sm_node_kind_words(root->kind));
        return NULL;
    }
    for (guint i = 0; i < root->items->len; i++) {
        const struct sm_node *node = g_ptr_array_index(root->items, i);
        if (strcmp(node->key, "swaps") == 0) {
            entries = node;
            continue;
        }
        if (showable(node->key))
            fail(&d, node->key_line, error, "unknown key '%s': a swap file has swaps", node->key);
        else
            fail(&d, node->key_line, error, "unknown key: a swap file has swaps");
        return NULL;
    }
    if (!entries) {
        fail(&d, root->line, error, "lacks the key swaps: write swaps: {} to swap nothing");
        return NULL;
    }
    if (!sm_swaps_decode(swaps, entries, source, false, error))
        return NULL;
    return sm_steal_ptr(&swaps);
}
