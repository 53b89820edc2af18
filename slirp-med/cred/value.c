/* SPDX-License-Identifier: BSD-3-Clause */
/* What may be a secret and what may be a header's value; see value.h. */
#include "cred/value.h"

#include <string.h>

#include "base/error.h"
#include "cred/text.h"

bool sm_cred_value_ok(const void *bytes, size_t len)
{
    const uint8_t *p = bytes;

    if (len == 0 || p[0] == ' ' || p[len - 1] == ' ')
        return false;
    for (size_t i = 0; i < len; i++)
        if (p[i] < 0x20 || p[i] > 0x7e)
            return false;
    return true;
}

enum sm_cred_reason sm_cred_value_clean(const struct sm_secret *raw, struct sm_secret **ret)
{
    size_t len;
    const uint8_t *p = sm_secret_bytes(raw, &len);

    if (len > 0 && p[len - 1] == '\n') {
        len--;
        if (len > 0 && p[len - 1] == '\r')
            len--;
    }
    if (len == 0)
        return SM_CRED_VALUE_EMPTY;
    if (len > SM_CRED_SECRET_MAX)
        return SM_CRED_VALUE_TOO_LARGE;
    if (memchr(p, '\0', len))
        return SM_CRED_VALUE_INVALID;
    sm_cleanup(sm_cred_text_clear) struct sm_cred_text t = sm_cred_text_init(SM_CRED_SECRET_MAX);
    sm_cred_text_add(&t, p, len);
    *ret = sm_cred_text_secret(&t);
    return SM_CRED_OK;
}

bool sm_cred_format_check(const char *format, const char *slot, GError **error)
{
    static const char *const slots[] = {"{key}", "{token}"};
    const char *at = strstr(format, slot);

    if (strlen(format) > SM_CRED_FORMAT_MAX) {
        sm_error_set(error, SM_ERROR_LIMIT, "the format is longer than %d bytes", SM_CRED_FORMAT_MAX);
        return false;
    }
    if (!at || strstr(at + 1, slot)) {
        sm_error_set(error, SM_ERROR_INVALID, "the format must have %s exactly once", slot);
        return false;
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(slots); i++) {
        if (strcmp(slots[i], slot) != 0 && strstr(format, slots[i])) {
            sm_error_set(error, SM_ERROR_INVALID, "the format has %s, but what is put in here is %s", slots[i], slot);
            return false;
        }
    }
    if (!sm_cred_value_ok(format, strlen(format))) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "the format must be visible ASCII without blanks at its ends: it becomes a header's value");
        return false;
    }
    return true;
}

enum sm_cred_reason sm_cred_value_header(const struct sm_secret *secret, const char *format, const char *slot,
                                         struct sm_secret **ret)
{
    size_t len;
    const uint8_t *p = sm_secret_bytes(secret, &len);
    const char *at = strstr(format, slot);

    g_assert(at);
    if (len == 0)
        return SM_CRED_VALUE_EMPTY;
    if (len > SM_CRED_TOKEN_MAX)
        return SM_CRED_VALUE_TOO_LARGE;
    if (!sm_cred_value_ok(p, len))
        return SM_CRED_VALUE_INVALID;
    sm_cleanup(sm_cred_text_clear) struct sm_cred_text t = sm_cred_text_init(SM_CRED_TOKEN_MAX + SM_CRED_FORMAT_MAX);
    sm_cred_text_add(&t, format, (size_t)(at - format));
    sm_cred_text_add(&t, p, len);
    sm_cred_text_str(&t, at + strlen(slot));
    struct sm_secret *value = sm_cred_text_secret(&t);
    if (!value)
        return SM_CRED_VALUE_TOO_LARGE;
    *ret = value;
    return SM_CRED_OK;
}
