/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Token endpoints: what is asked (RFC 6749 4.4 client credentials, RFC 7523 2.1 assertion) and what is believed of the
 * answer (RFC 6749 5.1, 5.2). Pure: the request is carried out elsewhere, the answer comes in as bytes.
 *
 * Read strictly. 200 and nothing else; application/json; one object, no member twice. The token stands in one exact
 * member (no path into the object), is text, not empty, at most SM_CRED_TOKEN_MAX bytes, and may stand in a header's
 * value.
 *   token_type   when the member is RFC 6749's own, access_token: absent, "bearer" or "BearerToken" (what Apigee says)
 *                in any case. Another type (mac, DPoP) needs a proof with each request that is not made here, and RFC
 *                6749 7.1 forbids to use it. An operator who names a member of his own has an answer that is not RFC
 *                6749's: its token_type means nothing to us and is not read.
 *   expires_in   a number or its text, at least 1; brought down to SM_TOKEN_TTL_MAX_S. Absent or null: the caller's
 *                default. Anything else, 0 and less included, is an error: a life that cannot be read is not guessed.
 *   error        RFC 6749 5.2's code is shown when it is a registered word (our own text of it); error_description and
 *                error_uri never are. It is looked for under any status, and in an answer of 200 without a token, which
 *                is how some servers refuse.
 */
#ifndef SM_CRED_TOKEN_H
#define SM_CRED_TOKEN_H

#include <glib.h>

#include "cred/request.h"
#include "cred/value.h"

/** RFC 6749's member, and the life of a token whose answer names none: short enough to notice a revocation soon. */
#define SM_TOKEN_FIELD "access_token"
#define SM_TOKEN_TTL_DEFAULT_S 300
/** A token is fetched anew at least once a day, whatever its server says. */
#define SM_TOKEN_TTL_MAX_S 86400
/**
 * A form or a Basic value at its longest: two secrets, three bytes for each of theirs, four thirds of that in base64,
 * and the rest.
 */
#define SM_TOKEN_FORM_MAX (640u << 10)
/** All scopes, and the audience, in text: room for 64 scopes of 256 bytes; the longest lists in use are some hundred. */
#define SM_TOKEN_PARAM_MAX 20480

/** How the client says who it is (RFC 6749 2.3.1). */
enum sm_token_auth {
    SM_TOKEN_AUTH_BODY,  /* client_id and client_secret in the form */
    SM_TOKEN_AUTH_BASIC, /* both form-encoded, then Basic */
    SM_TOKEN_AUTHS
};
const char *sm_token_auth_name(enum sm_token_auth auth);
bool sm_token_auth_parse(const char *name, enum sm_token_auth *ret) SM_WARN_UNUSED;

struct sm_token_client {
    const char *token_url;
    const struct sm_secret *client_id;
    const struct sm_secret *client_secret;
    const char *const *scopes; /* NULL-terminated; NULL: none */
    const char *audience;      /* NULL: none */
    enum sm_token_auth auth;
};

/**
 * sm_token_params_check() - what configuration says, before there is any secret: the URL, each scope (RFC 6749 3.3) and
 * the audience. The error quotes nothing.
 */
bool sm_token_params_check(const char *token_url, const char *const *scopes, const char *audience,
                           GError **error) SM_WARN_UNUSED;

/** sm_token_client_request() - grant_type=client_credentials. @ret is cleared by the caller; on failure it is empty. */
bool sm_token_client_request(const struct sm_token_client *client, struct sm_cred_request *ret,
                             GError **error) SM_WARN_UNUSED;
/** sm_token_assertion_request() - grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer. @assertion: a JWT (jwt.h). */
bool sm_token_assertion_request(const char *token_url, const struct sm_secret *assertion, struct sm_cred_request *ret,
                                GError **error) SM_WARN_UNUSED;

struct sm_token {
    struct sm_secret *token; /* NULL unless OK; the caller frees it */
    uint32_t ttl_s;          /* 1..SM_TOKEN_TTL_MAX_S when OK */
    const char *error_code;  /* static, a registered word, or NULL; also when not OK */
};

/**
 * sm_token_read() - judge an answer.
 * @field: the member that holds the token (SM_TOKEN_FIELD unless configured). @default_ttl_s: 0 is
 * SM_TOKEN_TTL_DEFAULT_S.
 * @ret: always filled.
 */
enum sm_cred_reason sm_token_read(const struct sm_cred_response *r, const char *field, uint32_t default_ttl_s,
                                  struct sm_token *ret);

#endif
