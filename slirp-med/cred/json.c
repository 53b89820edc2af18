/* SPDX-License-Identifier: BSD-3-Clause */
/* jansson with a wiping free(); see json.h. */
#include "cred/json.h"

#include <malloc.h>
#include <stdlib.h>

static void wipe_and_free(void *p)
{
    if (p)
        sm_wipe(p, malloc_usable_size(p));
    free(p);
}

void sm_cred_json_wipe(void)
{
    json_set_alloc_funcs(malloc, wipe_and_free);
}

json_t *sm_cred_json_object(const void *bytes, size_t len)
{
    json_error_t at;

    sm_cred_json_wipe();
    json_t *root = json_loadb(bytes, len, JSON_REJECT_DUPLICATES, &at);
    sm_wipe(&at, sizeof(at));
    if (!json_is_object(root)) {
        json_decref(root);
        return NULL;
    }
    return root;
}

static int take(const char *bytes, size_t len, void *data)
{
    struct sm_cred_text *t = data;
    sm_cred_text_add(t, bytes, len);
    return t->bad ? -1 : 0;
}

bool sm_cred_json_dump(const json_t *json, struct sm_cred_text *t)
{
    sm_cred_json_wipe();
    return json_dump_callback(json, take, t, JSON_COMPACT) == 0;
}
