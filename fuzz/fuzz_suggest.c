/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An audit of the input's making: whatever its lines are, the suggestion is a policy file that our own reader takes, in plain ASCII, with as many
 * entries as the JSON form has.
 */
#include <glib.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "launch/suggest.h"
#include "policy/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x))                                                                                                      \
            abort();                                                                                                   \
    } while (0)

static void feed(struct sm_suggest *s, const char *text, size_t len)
{
    struct sm_audit_line line;
    json_t *json = NULL;

    sm_audit_parse_line(text, len, &line, &json);
    sm_suggest_line(s, &line);
    json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sm_cleanup(sm_suggest_freep) struct sm_suggest *s = sm_suggest_new();
    const char *at = (const char *)data, *end = at + size;

    while (at < end) {
        const char *nl = memchr(at, '\n', (size_t)(end - at));
        size_t len = (size_t)((nl ? nl : end) - at);
        g_autofree char *text = g_strndup(at, len); /* up to a NUL, as the reader's are NUL-terminated */
        feed(s, text, strlen(text));
        at += len + 1;
    }
    sm_cleanup(sm_suggestion_freep) struct sm_suggestion *g = sm_suggest_finish(s);
    sm_cleanup(sm_lists_freep) struct sm_lists *lists = sm_lists_new();
    g_autofree char *yaml = sm_suggestion_yaml(g, "fuzz", NULL);
    if (!yaml)
        return 0; /* larger than a policy file */
    for (const char *c = yaml; *c; c++)
        CHECK((*c >= 0x20 && *c < 0x7f) || *c == '\n');
    CHECK(sm_policy_file_parse("fuzz.yaml", yaml, strlen(yaml), lists, NULL));
    json_t *json = sm_suggestion_json(g, "fuzz");
    CHECK(json);
    CHECK(json_array_size(json_object_get(json, "entries")) ==
          sm_lists_count(lists, SM_LIST_ALLOW) + sm_lists_count(lists, SM_LIST_PASSTHROUGH));
    json_decref(json);
    return 0;
}
