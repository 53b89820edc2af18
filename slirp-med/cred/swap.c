/* SPDX-License-Identifier: BSD-3-Clause */
/* The set of swap entries: what may stand beside what, and which one a host has; see swap.h. */
#include <string.h>

#include "base/error.h"
#include "cred/internal.h"
#include "cred/provider.h"

static const char *const type_names[] = {
    [SM_SWAP_STATIC] = "static", [SM_SWAP_OAUTH2_CC] = "oauth2-cc", [SM_SWAP_JWT_BEARER] = "jwt-bearer"};
SM_NAME_TABLE_COVERS(type_names, SM_SWAP_TYPES);

static const char *const auth_names[] = {[SM_SWAP_AUTH_BODY] = "body", [SM_SWAP_AUTH_BASIC] = "basic"};
SM_NAME_TABLE_COVERS(auth_names, SM_SWAP_AUTHS);

static const char *const algorithm_names[] = {
    [SM_SWAP_RS256] = "RS256", [SM_SWAP_ES256] = "ES256", [SM_SWAP_EDDSA] = "EdDSA"};
SM_NAME_TABLE_COVERS(algorithm_names, SM_SWAP_ALGORITHMS);

const char *sm_swap_type_name(enum sm_swap_type type)
{
    return (unsigned)type < SM_SWAP_TYPES ? type_names[type] : "invalid";
}

const char *sm_swap_auth_name(enum sm_swap_auth auth)
{
    return (unsigned)auth < SM_SWAP_AUTHS ? auth_names[auth] : "invalid";
}

const char *sm_swap_algorithm_name(enum sm_swap_algorithm algorithm)
{
    return (unsigned)algorithm < SM_SWAP_ALGORITHMS ? algorithm_names[algorithm] : "invalid";
}

const char *sm_swap_marker(enum sm_swap_type type)
{
    return type == SM_SWAP_STATIC ? "{key}" : "{token}";
}

void sm_swap_free(struct sm_swap *swap)
{
    if (!swap)
        return;
    for (size_t i = 0; i < swap->n_domains; i++)
        g_free(swap->domains[i].place);
    g_free(swap->domains);
    g_free(swap->name);
    g_free(swap->place);
    g_free(swap->header);
    g_free(swap->format);
    g_free(swap->placeholder);
    g_free(swap->token_url);
    g_strfreev(swap->scopes);
    g_free(swap->audience);
    g_free(swap->token_response_field);
    json_decref(swap->claims);
    g_free(swap);
}

static void swap_destroy(gpointer swap)
{
    sm_swap_free(swap);
}

static void ref_destroy(gpointer ref)
{
    sm_ref_clear(ref);
    g_free(ref);
}

struct sm_swaps *sm_swaps_new(void)
{
    struct sm_swaps *swaps = g_new0(struct sm_swaps, 1);
    swaps->entries = g_ptr_array_new_with_free_func(swap_destroy);
    swaps->refs = g_ptr_array_new_with_free_func(ref_destroy);
    swaps->domains = g_hash_table_new(g_str_hash, g_str_equal);
    swaps->variables = g_ptr_array_new_with_free_func(g_free);
    return swaps;
}

void sm_swaps_free(struct sm_swaps *swaps)
{
    if (!swaps)
        return;
    g_hash_table_unref(swaps->domains);
    g_ptr_array_unref(swaps->entries);
    g_ptr_array_unref(swaps->refs);
    g_ptr_array_unref(swaps->variables);
    g_free(swaps);
}

size_t sm_swaps_count(const struct sm_swaps *swaps)
{
    return swaps->entries->len;
}

const struct sm_swap *sm_swaps_get(const struct sm_swaps *swaps, size_t i)
{
    return g_ptr_array_index(swaps->entries, i);
}

const struct sm_swap *sm_swaps_match(const struct sm_swaps *swaps, const char *name)
{
    char suffix[1 + SM_NAME_STRLEN] = ".";
    const struct sm_swap *found = NULL;

    if (name[0] == '\0' || name[0] == '.' || g_strlcpy(suffix + 1, name, SM_NAME_STRLEN) >= SM_NAME_STRLEN)
        return NULL; /* no canonical name */
    found = g_hash_table_lookup(swaps->domains, name);
    /* Cut label after label off: the first suffix that is there is the longest. */
    for (const char *at = suffix; at && !found; at = strchr(at + 1, '.'))
        found = g_hash_table_lookup(swaps->domains, at);
    return found;
}

size_t sm_swaps_ref_count(const struct sm_swaps *swaps)
{
    return swaps->refs->len;
}

const struct sm_ref *sm_swaps_ref(const struct sm_swaps *swaps, size_t i)
{
    return g_ptr_array_index(swaps->refs, i);
}

size_t sm_swaps_ref_index(const struct sm_swaps *swaps, const struct sm_ref *ref)
{
    size_t i = 0;
    while (i < swaps->refs->len && g_ptr_array_index(swaps->refs, i) != ref)
        i++;
    g_assert(i < swaps->refs->len); /* a caller's mistake: the pointer is of another set */
    return i;
}

const struct sm_ref *sm_swaps_intern(struct sm_swaps *swaps, struct sm_ref *ref)
{
    for (guint i = 0; i < swaps->refs->len; i++) {
        struct sm_ref *there = g_ptr_array_index(swaps->refs, i);
        if (strcmp(there->text, ref->text) == 0) {
            sm_ref_clear(ref);
            return there;
        }
    }
    struct sm_ref *kept = g_new(struct sm_ref, 1);
    *kept = *ref;
    *ref = (struct sm_ref){0};
    g_ptr_array_add(swaps->refs, kept);
    return kept;
}

bool sm_swaps_name_variable(struct sm_swaps *swaps, const char *name)
{
    for (guint i = 0; i < swaps->variables->len; i++)
        if (strcmp(g_ptr_array_index(swaps->variables, i), name) == 0)
            return true;
    if (swaps->variables->len >= SM_SWAPS_VARIABLES_MAX)
        return false;
    g_ptr_array_add(swaps->variables, g_strdup(name));
    return true;
}

static bool beside(const struct sm_swap *swap, const struct sm_swap *there, GError **error)
{
    if (strcmp(there->name, swap->name) == 0) {
        sm_error_set(error, SM_ERROR_INVALID, "%s: a swap '%s' is there already (%s): give each its own name, once",
                     swap->place, swap->name, there->place);
        return false;
    }
    /* With one inside the other, which one a guest sent could not be told. */
    if (swap->placeholder && there->placeholder &&
        (strstr(swap->placeholder, there->placeholder) || strstr(there->placeholder, swap->placeholder))) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "%s: the placeholder of '%s' and that of '%s' (%s) are equal, or one is part of the other: they "
                     "must be told apart",
                     swap->place, swap->name, there->name, there->place);
        return false;
    }
    return true;
}

static bool domains_free(const struct sm_swaps *swaps, const struct sm_swap *swap, GError **error)
{
    for (size_t i = 0; i < swap->n_domains; i++) {
        const struct sm_swap_domain *d = &swap->domains[i];
        const struct sm_swap *other = g_hash_table_lookup(swaps->domains, d->text);
        const char *place = NULL;
        for (size_t k = 0; other && k < other->n_domains; k++)
            if (strcmp(other->domains[k].text, d->text) == 0)
                place = other->domains[k].place;
        for (size_t k = 0; !other && !place && k < i; k++)
            if (strcmp(swap->domains[k].text, d->text) == 0)
                place = swap->domains[k].place;
        if (place) {
            sm_error_set(error, SM_ERROR_INVALID,
                         "%s: domain '%s' of swap '%s' is there already, in '%s' (%s): a host has one credential",
                         d->place, d->text, swap->name, other ? other->name : swap->name, place);
            return false;
        }
    }
    return true;
}

bool sm_swaps_add(struct sm_swaps *swaps, struct sm_swap *swap, GError **error)
{
    if (swaps->entries->len >= SM_SWAPS_MAX) {
        sm_error_set(error, SM_ERROR_LIMIT, "%s: more than %d swaps", swap->place, SM_SWAPS_MAX);
        return false;
    }
    for (guint i = 0; i < swaps->entries->len; i++)
        if (!beside(swap, g_ptr_array_index(swaps->entries, i), error))
            return false;
    if (!domains_free(swaps, swap, error))
        return false;
    for (size_t i = 0; i < swap->n_domains; i++)
        g_hash_table_insert(swaps->domains, swap->domains[i].text, swap);
    g_ptr_array_add(swaps->entries, swap);
    return true;
}

bool sm_swaps_add_provider(struct sm_swaps *swaps, const struct sm_provider *provider, const char *ref,
                           const char *folder, const char *place, GError **error)
{
    const char *text = ref ? ref : provider->ref;
    sm_cleanup(sm_ref_clear) struct sm_ref parsed = {0};
    sm_cleanup(sm_swap_freep) struct sm_swap *swap = g_new0(struct sm_swap, 1);

    if (!sm_ref_parse(text, strlen(text), folder, &parsed, error)) {
        g_prefix_error(error, "%s: ", place);
        return false;
    }
    swap->name = g_strdup(provider->name);
    swap->type = SM_SWAP_STATIC;
    swap->place = g_strdup(place);
    swap->header = g_strdup(provider->header);
    swap->format = g_strdup(provider->format);
    swap->scrub = true;
    swap->domains = g_new0(struct sm_swap_domain, 1);
    swap->n_domains = 1;
    swap->domains[0].place = g_strdup(place);
    if (!sm_swap_parse_domain(provider->host, &swap->domains[0], error) || !sm_swaps_add(swaps, swap, error))
        return false;
    struct sm_swap *kept = sm_steal_ptr(&swap); /* the set's */
    kept->key_ref = sm_swaps_intern(swaps, &parsed);
    return true;
}

/* Each text once, in the order of first use. */
static void add_distinct(GPtrArray *list, GHashTable *seen, const char *text)
{
    if (g_hash_table_add(seen, (gpointer)(uintptr_t)text))
        g_ptr_array_add(list, g_strdup(text));
}

static char **strv_of(GPtrArray *list)
{
    g_ptr_array_add(list, NULL);
    return (char **)(void *)g_ptr_array_free(list, FALSE);
}

char **sm_swaps_hidden_variables(const struct sm_swaps *swaps)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    GPtrArray *list = g_ptr_array_new();

    for (guint i = 0; i < swaps->refs->len; i++) {
        const struct sm_ref *ref = g_ptr_array_index(swaps->refs, i);
        if (ref->kind == SM_REF_ENV)
            add_distinct(list, seen, ref->name);
        else if (ref->kind == SM_REF_VAULT)
            add_distinct(list, seen, "VAULT_TOKEN");
    }
    for (guint i = 0; i < swaps->variables->len; i++)
        add_distinct(list, seen, g_ptr_array_index(swaps->variables, i));
    return strv_of(list);
}

char **sm_swaps_hidden_files(const struct sm_swaps *swaps)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    GPtrArray *list = g_ptr_array_new();

    for (guint i = 0; i < swaps->refs->len; i++) {
        const struct sm_ref *ref = g_ptr_array_index(swaps->refs, i);
        if (ref->kind == SM_REF_FILE)
            add_distinct(list, seen, ref->path);
    }
    return strv_of(list);
}
