/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The set on its way from the launcher to the core; see swap.h. An entry looks as it does in a swap file, with numbers
 * in place of references, so that one decoder with one set of rules serves both.
 */
#include <string.h>

#include "base/error.h"
#include "cred/internal.h"

static void put(json_t *o, bool *ok, const char *key, json_t *value)
{
    if (!value || json_object_set_new(o, key, value) < 0)
        *ok = false;
}

static void put_text(json_t *o, bool *ok, const char *key, const char *text)
{
    if (text)
        put(o, ok, key, json_string(text));
}

static void put_ref(json_t *o, bool *ok, const char *key, const struct sm_swaps *swaps, const struct sm_ref *ref)
{
    if (ref)
        put(o, ok, key, json_integer((json_int_t)sm_swaps_ref_index(swaps, ref)));
}

static json_t *entry_to_json(const struct sm_swaps *swaps, const struct sm_swap *s, bool *ok)
{
    json_t *o = json_object(), *domains = json_array();

    for (size_t i = 0; i < s->n_domains; i++)
        *ok = json_array_append_new(domains, json_string(s->domains[i].text)) == 0 && *ok;
    put_text(o, ok, "type", sm_swap_type_name(s->type));
    put(o, ok, "domains", domains);
    put_text(o, ok, "header", s->header);
    put_text(o, ok, "format", s->format);
    put_text(o, ok, "placeholder", s->placeholder);
    put(o, ok, "scrub", json_boolean(s->scrub));
    put_ref(o, ok, "key_ref", swaps, s->key_ref);
    put_text(o, ok, "token_url", s->token_url);
    put_ref(o, ok, "client_id_ref", swaps, s->client_id_ref);
    put_ref(o, ok, "client_secret_ref", swaps, s->client_secret_ref);
    if (s->scopes) {
        json_t *scopes = json_array();
        for (size_t i = 0; s->scopes[i]; i++)
            *ok = json_array_append_new(scopes, json_string(s->scopes[i])) == 0 && *ok;
        put(o, ok, "scopes", scopes);
    }
    put_text(o, ok, "audience", s->audience);
    put_text(o, ok, "token_response_field", s->token_response_field);
    if (s->token_ttl_seconds)
        put(o, ok, "token_ttl_seconds", json_integer(s->token_ttl_seconds));
    if (s->type == SM_SWAP_OAUTH2_CC)
        put_text(o, ok, "auth_style", sm_swap_auth_name(s->auth_style));
    put_ref(o, ok, "signing_key_ref", swaps, s->signing_key_ref);
    if (s->type == SM_SWAP_JWT_BEARER) {
        put_text(o, ok, "algorithm", sm_swap_algorithm_name(s->algorithm));
        put(o, ok, "claims", json_incref(s->claims));
    }
    return o;
}

json_t *sm_swaps_to_json(const struct sm_swaps *swaps)
{
    json_t *o = json_object(), *refs = json_array(), *entries = json_object();
    bool ok = true;

    for (size_t i = 0; i < sm_swaps_ref_count(swaps); i++)
        ok = json_array_append_new(refs, json_string(sm_swaps_ref(swaps, i)->text)) == 0 && ok;
    for (size_t i = 0; i < sm_swaps_count(swaps); i++) {
        const struct sm_swap *s = sm_swaps_get(swaps, i);
        put(entries, &ok, s->name, entry_to_json(swaps, s, &ok));
    }
    put(o, &ok, "refs", refs);
    put(o, &ok, "entries", entries);
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* The same tree as a file gives, without lines. NULL when it is nested too deep. */
static struct sm_node *node_of(const json_t *json, int depth)
{
    sm_cleanup(sm_node_freep) struct sm_node *node = g_new0(struct sm_node, 1);
    const json_t *value;
    const char *key;
    size_t i;

    if (depth > SM_TREE_DEPTH_MAX)
        return NULL;
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        node->kind = SM_NODE_MAP;
        node->items = g_ptr_array_new_with_free_func((GDestroyNotify)sm_node_free);
        json_object_foreach((json_t *)(uintptr_t)json, key, value)
        {
            struct sm_node *item = node_of(value, depth + 1);
            if (!item)
                return NULL;
            item->key = g_strdup(key);
            g_ptr_array_add(node->items, item);
        }
        break;
    case JSON_ARRAY:
        node->kind = SM_NODE_LIST;
        node->items = g_ptr_array_new_with_free_func((GDestroyNotify)sm_node_free);
        json_array_foreach(json, i, value)
        {
            struct sm_node *item = node_of(value, depth + 1);
            if (!item)
                return NULL;
            g_ptr_array_add(node->items, item);
        }
        break;
    case JSON_STRING:
        node->kind = SM_NODE_TEXT;
        node->len = json_string_length(json);
        node->text = g_strndup(json_string_value(json), node->len);
        break;
    case JSON_INTEGER:
        node->kind = SM_NODE_INTEGER;
        node->integer = json_integer_value(json);
        break;
    case JSON_REAL:
        node->kind = SM_NODE_REAL;
        node->real = json_real_value(json);
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        node->kind = SM_NODE_BOOLEAN;
        node->boolean = json_is_true(json);
        break;
    case JSON_NULL:
        node->kind = SM_NODE_NULL;
        break;
    }
    return sm_steal_ptr(&node);
}

static bool load_refs(struct sm_swaps *swaps, const json_t *refs, GError **error)
{
    const json_t *item;
    size_t i;

    if (!json_is_array(refs)) {
        sm_error_set(error, SM_ERROR_INVALID, "swaps: \"refs\" must be an array");
        return false;
    }
    json_array_foreach(refs, i, item)
    {
        sm_cleanup(sm_ref_clear) struct sm_ref ref = {0};
        bool ok = json_is_string(item) &&
                  sm_ref_parse(json_string_value(item), json_string_length(item), NULL, &ref, NULL) &&
                  strcmp(ref.text, json_string_value(item)) == 0;
        if (ok)
            (void)sm_swaps_intern(swaps, &ref);
        if (!ok || swaps->refs->len != i + 1) {
            sm_error_set(error, SM_ERROR_INVALID, "swaps: refs[%zu] is not a canonical reference, or is there twice",
                         i);
            return false;
        }
    }
    return true;
}

struct sm_swaps *sm_swaps_from_json(const json_t *json, GError **error)
{
    sm_cleanup(sm_swaps_freep) struct sm_swaps *swaps = sm_swaps_new();
    const struct sm_swap_source source = {.file = "swaps"};
    const json_t *refs = json_object_get(json, "refs"), *entries = json_object_get(json, "entries");

    if (!refs || !entries || json_object_size(json) != 2) {
        sm_error_set(error, SM_ERROR_INVALID, "swaps: must be an object with \"refs\" and \"entries\"");
        return NULL;
    }
    if (!load_refs(swaps, refs, error))
        return NULL;
    sm_cleanup(sm_node_freep) struct sm_node *tree = node_of(entries, 2);
    if (!tree) {
        sm_error_set(error, SM_ERROR_INVALID, "swaps: nested too deep");
        return NULL;
    }
    if (!sm_swaps_decode(swaps, tree, &source, true, error))
        return NULL;
    return sm_steal_ptr(&swaps);
}
