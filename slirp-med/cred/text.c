/* SPDX-License-Identifier: BSD-3-Clause */
/* The wiping buffer and its encodings; see text.h. */
#include "cred/text.h"

#include <glib.h>
#include <string.h>

/** What a text begins with: most credentials are shorter, so that it need not move. */
#define TEXT_FIRST 1024

void sm_cred_text_clear(struct sm_cred_text *t)
{
    if (t->data)
        sm_wipe(t->data, t->cap);
    g_free(t->data);
    t->data = NULL;
    t->len = t->cap = 0;
}

/*
 * A place for n bytes more, or NULL with the error set. Not realloc(): that would leave the old bytes where they were.
 */
static uint8_t *room(struct sm_cred_text *t, size_t n)
{
    if (t->bad || n > t->max - t->len) {
        t->bad = true;
        return NULL;
    }
    if (n > t->cap - t->len) {
        size_t cap = SM_MIN(SM_MAX(SM_MAX(t->cap * 2, t->len + n), (size_t)TEXT_FIRST), SM_MAX(t->max, (size_t)1));
        uint8_t *data = g_malloc(cap);
        size_t len = t->len;
        if (len > 0)
            memcpy(data, t->data, len);
        sm_cred_text_clear(t);
        t->data = data;
        t->len = len;
        t->cap = cap;
    }
    uint8_t *at = t->data + t->len;
    t->len += n;
    return at;
}

void sm_cred_text_add(struct sm_cred_text *t, const void *bytes, size_t len)
{
    uint8_t *at = len > 0 ? room(t, len) : NULL;
    if (at)
        memcpy(at, bytes, len);
}

void sm_cred_text_str(struct sm_cred_text *t, const char *text)
{
    sm_cred_text_add(t, text, strlen(text));
}

static void escape(struct sm_cred_text *t, uint8_t c)
{
    static const char hex[] = "0123456789ABCDEF";
    uint8_t *at = room(t, 3);
    if (at) {
        at[0] = '%';
        at[1] = (uint8_t)hex[c >> 4];
        at[2] = (uint8_t)hex[c & 15];
    }
}

static void encode(struct sm_cred_text *t, const uint8_t *p, size_t len, const char *keep, bool plus)
{
    for (size_t i = 0; i < len; i++) {
        if (g_ascii_isalnum(p[i]) || (p[i] != '\0' && strchr(keep, p[i])))
            sm_cred_text_add(t, p + i, 1);
        else if (plus && p[i] == ' ')
            sm_cred_text_add(t, "+", 1);
        else
            escape(t, p[i]);
    }
}

void sm_cred_text_form(struct sm_cred_text *t, const void *bytes, size_t len)
{
    encode(t, bytes, len, "-._~*", true);
}

void sm_cred_text_percent(struct sm_cred_text *t, const void *bytes, size_t len)
{
    encode(t, bytes, len, "-._~", false);
}

void sm_cred_text_base64(struct sm_cred_text *t, const void *bytes, size_t len)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *p = bytes;

    if (len == 0)
        return;
    if (len > SIZE_MAX / 2) {
        t->bad = true;
        return;
    }
    /* Straight into its place: GLib's keeps what is left over in variables of its caller's, which would have to be
     * wiped. */
    uint8_t *at = room(t, (len + 2) / 3 * 4);
    for (size_t i = 0; at && i < len; i += 3, at += 4) {
        size_t left = len - i;
        at[0] = (uint8_t)letters[p[i] >> 2];
        at[1] = (uint8_t)letters[(p[i] & 3) << 4 | (left > 1 ? p[i + 1] >> 4 : 0)];
        at[2] = left > 1 ? (uint8_t)letters[(p[i + 1] & 15) << 2 | (left > 2 ? p[i + 2] >> 6 : 0)] : '=';
        at[3] = left > 2 ? (uint8_t)letters[p[i + 2] & 63] : '=';
    }
}

void sm_cred_text_base64url(struct sm_cred_text *t, const void *bytes, size_t len)
{
    size_t from = t->len;
    sm_cred_text_base64(t, bytes, len);
    if (t->bad)
        return;
    while (t->len > from && t->data[t->len - 1] == '=')
        t->len--;
    for (size_t i = from; i < t->len; i++) {
        if (t->data[i] == '+')
            t->data[i] = '-';
        else if (t->data[i] == '/')
            t->data[i] = '_';
    }
}

struct sm_secret *sm_cred_text_secret(struct sm_cred_text *t)
{
    /* sm_secret_new() wipes its source; what lies beyond len (padding, growth) is wiped by the clear. */
    struct sm_secret *secret = t->bad ? NULL : sm_secret_new(t->data, t->len);
    sm_cred_text_clear(t);
    return secret;
}
