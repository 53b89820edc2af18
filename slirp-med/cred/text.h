/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Text that is made of secrets: a buffer born with a maximum that wipes what it leaves behind, when it grows and when
 * it ends, and the encodings that credentials need. Nothing of a secret passes through a GString or a printf.
 *
 * The error is sticky: text that would not fit is not added, `bad` stays set, and sm_cred_text_secret() then gives
 * NULL; so a writer writes straight on and checks once. No memory ends the process, as everywhere.
 *
 * Sources: WHATWG URL 5.2 and RFC 6749 appendix B (form), RFC 3986 2.1 (percent), RFC 4648 4 and 5 (base64, base64url).
 */
#ifndef SM_CRED_TEXT_H
#define SM_CRED_TEXT_H

#include "base/defs.h"
#include "base/secret.h"

struct sm_cred_text {
    uint8_t *data;
    size_t len;
    size_t cap;
    size_t max;
    bool bad;
};

static inline struct sm_cred_text sm_cred_text_init(size_t max)
{
    return (struct sm_cred_text){.max = max};
}
/** sm_cred_text_clear() - wipe and let go; for sm_cleanup() too. */
void sm_cred_text_clear(struct sm_cred_text *t);

void sm_cred_text_add(struct sm_cred_text *t, const void *bytes, size_t len);
void sm_cred_text_str(struct sm_cred_text *t, const char *text);
/**
 * sm_cred_text_form() - as a name or value of application/x-www-form-urlencoded. A space becomes '+'; letters, digits
 * and "-._~*" stay; the rest is %XX. (WHATWG writes '~' as %7E and others write '*' as %2A: either reads back the same,
 * and a server that forgets to decode the Basic user and password, as many do, still gets what is usual in them.)
 */
void sm_cred_text_form(struct sm_cred_text *t, const void *bytes, size_t len);
/** sm_cred_text_percent() - as a segment of a path: letters, digits and "-._~" stay, the rest is %XX. */
void sm_cred_text_percent(struct sm_cred_text *t, const void *bytes, size_t len);
/**
 * sm_cred_text_base64() - with padding. sm_cred_text_base64url() - RFC 7515 2: the URL-safe letters, without padding.
 */
void sm_cred_text_base64(struct sm_cred_text *t, const void *bytes, size_t len);
void sm_cred_text_base64url(struct sm_cred_text *t, const void *bytes, size_t len);

/**
 * sm_cred_text_secret() - what was written, as a secret that the caller frees; the text is empty afterwards. NULL when
 * it did not fit.
 */
struct sm_secret *sm_cred_text_secret(struct sm_cred_text *t);

/** sm_cred_secret_freep() - for sm_cleanup(). */
static inline void sm_cred_secret_freep(struct sm_secret **secret)
{
    sm_secret_free(*secret);
}

#endif
