/* SPDX-License-Identifier: BSD-3-Clause */
/* What the tests of the engines share: secrets out of text and back, errors that are there and quote nothing. */
#ifndef TESTS_CRED_ENGINE_H
#define TESTS_CRED_ENGINE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "cred/text.h"

static inline struct sm_secret *secret_of(const void *bytes, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    if (len > 0)
        memcpy(copy, bytes, len);
    struct sm_secret *s = sm_secret_new(copy, len);
    free(copy);
    return s;
}

static inline struct sm_secret *secret(const char *text)
{
    return secret_of(text, strlen(text));
}

/* Its bytes with a NUL; the caller frees them. */
static inline char *text_of(const struct sm_secret *s)
{
    size_t len;
    assert_non_null(s);
    const uint8_t *p = sm_secret_bytes(s, &len);
    char *text = malloc(len + 1);
    assert_non_null(text);
    memcpy(text, p, len);
    text[len] = '\0';
    return text;
}

static inline void assert_secret(const struct sm_secret *s, const char *want)
{
    char *text = text_of(s);
    assert_string_equal(text, want);
    free(text);
}

/* An error with this in its text, which is then dropped. */
static inline void assert_error(GError **error, enum sm_error_code code, const char *part)
{
    assert_non_null(*error);
    assert_true((*error)->domain == SM_ERROR);
    assert_int_equal((*error)->code, code);
    if (!strstr((*error)->message, part))
        fail_msg("\"%s\" is not in \"%s\"", part, (*error)->message);
    g_clear_error(error);
}

#endif
