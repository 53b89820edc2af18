/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The swap file in both formats, a reference, and the core's configuration of swaps, over the same bytes. Beyond "no
 * crash": a set that is taken survives its way to the core, obeys its bounds and finds each of its domains; a refusal
 * names its place; and no refusal of a reference quotes any of it.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cred/swap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

static const char *variable(const char *name, void *data)
{
    (void)data;
    return name[0] == 'E' ? "" : name[0] == 'U' ? NULL : "value";
}

static void check_swap(const struct sm_swaps *swaps, const struct sm_swap *s)
{
    const char *marker = sm_swap_marker(s->type), *at = strstr(s->format, marker);

    require(s->name[0] && s->header[0] && at && !strstr(at + 1, marker));
    require(s->n_domains >= 1 && s->n_domains <= SM_SWAP_DOMAINS_MAX);
    require((s->type == SM_SWAP_STATIC) == (s->key_ref != NULL));
    require((s->type == SM_SWAP_OAUTH2_CC) == (s->client_secret_ref != NULL && s->client_id_ref != NULL));
    require((s->type == SM_SWAP_JWT_BEARER) == (s->signing_key_ref != NULL && json_is_object(s->claims)));
    require((s->token_url != NULL) == (s->token_response_field != NULL));
    require(s->token_ttl_seconds <= SM_SWAP_TTL_MAX);
    for (size_t i = 0; i < s->n_domains; i++) {
        const struct sm_swap *found = sm_swaps_match(swaps, s->domains[i].entry.name);
        require(found != NULL);
        require(found == s || s->domains[i].entry.kind == SM_ENTRY_SUFFIX); /* an exact one may beat the apex */
    }
}

static void check_set(const struct sm_swaps *swaps)
{
    g_auto(GStrv) variables = sm_swaps_hidden_variables(swaps), files = sm_swaps_hidden_files(swaps);

    require(sm_swaps_count(swaps) <= SM_SWAPS_MAX);
    require(g_strv_length(variables) <= SM_SWAPS_VARIABLES_MAX + sm_swaps_ref_count(swaps));
    for (size_t i = 0; files[i]; i++)
        require(files[i][0] == '/');
    for (size_t i = 0; i < sm_swaps_count(swaps); i++)
        check_swap(swaps, sm_swaps_get(swaps, i));
}

static void check_json(const json_t *json)
{
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_swaps_freep) struct sm_swaps *swaps = sm_swaps_from_json(json, &error);

    require((swaps != NULL) == (error == NULL));
    if (!swaps)
        return;
    check_set(swaps);
    json_t *again = sm_swaps_to_json(swaps);
    sm_cleanup(sm_swaps_freep) struct sm_swaps *more = sm_swaps_from_json(again, NULL);
    require(more != NULL && sm_swaps_count(more) == sm_swaps_count(swaps));
    json_decref(again);
}

static void check_file(const char *name, const char *data, size_t size)
{
    struct sm_swap_source source = {.file = name, .folder = "/folder", .variable = variable};
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_swaps_freep) struct sm_swaps *swaps = sm_swaps_parse(&source, data, size, &error);

    require((swaps != NULL) == (error == NULL));
    if (!swaps) {
        require(g_str_has_prefix(error->message, name));
        require(g_utf8_validate(error->message, -1, NULL));
        return;
    }
    check_set(swaps);
    json_t *json = sm_swaps_to_json(swaps);
    require(json != NULL);
    sm_cleanup(sm_swaps_freep) struct sm_swaps *again = sm_swaps_from_json(json, NULL);
    require(again != NULL);
    json_t *json2 = sm_swaps_to_json(again);
    require(json_equal(json, json2));
    json_decref(json);
    json_decref(json2);
}

static void check_ref(const char *data, size_t size)
{
    sm_cleanup(sm_ref_clear) struct sm_ref ref = {0}, again = {0};
    g_autoptr(GError) error = NULL;
    char run[9] = {0};

    if (sm_ref_parse(data, size, "/folder", &ref, &error)) {
        require(sm_ref_parse(ref.text, strlen(ref.text), NULL, &again, NULL));
        require(strcmp(ref.text, again.text) == 0 && ref.kind == again.kind);
        return;
    }
    /* Eight bytes with a digit are no word of ours. */
    for (size_t i = 0; i + 8 <= size; i++) {
        memcpy(run, data + i, 8);
        if (strlen(run) == 8 && strpbrk(run, "0123456789"))
            require(!strstr(error->message, run));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);

    check_file("f.yaml", text, size);
    check_file("f.json", text, size);
    check_ref(text, size);
    if (json)
        check_json(json);
    json_decref(json);
    return 0;
}
