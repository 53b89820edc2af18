/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests and what all answers have in common; see request.h. */
#include "cred/request.h"

#include <glib.h>
#include <string.h>

#include "cred/json.h"

void sm_cred_request_clear(struct sm_cred_request *r)
{
    for (size_t i = 0; i < r->n_fields; i++)
        sm_secret_free(r->fields[i].value);
    sm_secret_free(r->body);
    g_free(r->url);
    *r = (struct sm_cred_request){0};
}

bool sm_cred_request_secret(struct sm_cred_request *r, const char *name, struct sm_secret *value)
{
    g_assert(r->n_fields < SM_CRED_FIELDS_MAX);
    if (!value)
        return false;
    r->fields[r->n_fields++] = (struct sm_cred_field){.name = name, .value = value};
    return true;
}

void sm_cred_request_field(struct sm_cred_request *r, const char *name, const char *value)
{
    sm_cleanup(sm_cred_text_clear) struct sm_cred_text t = sm_cred_text_init(strlen(value));
    sm_cred_text_str(&t, value);
    bool fits = sm_cred_request_secret(r, name, sm_cred_text_secret(&t));
    g_assert(fits);
}

bool sm_cred_content_is_json(const char *content_type)
{
    static const char json[] = "application/json";

    if (!content_type || g_ascii_strncasecmp(content_type, json, sizeof(json) - 1) != 0)
        return false;
    const char *rest = content_type + sizeof(json) - 1;
    rest += strspn(rest, " \t");
    return *rest == '\0' || *rest == ';';
}

enum sm_cred_reason sm_cred_response_object(const struct sm_cred_response *r,
                                            const struct sm_cred_response_words *words, json_t **ret)
{
    *ret = NULL;
    if (r->len > SM_CRED_BODY_MAX)
        return words->too_large;
    if (!sm_cred_content_is_json(r->content_type))
        return words->type;
    *ret = sm_cred_json_object(r->body, r->len);
    return *ret ? SM_CRED_OK : words->malformed;
}
