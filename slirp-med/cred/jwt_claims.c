/* SPDX-License-Identifier: BSD-3-Clause */
/* The claims of a token as an operator writes them; see jwt.h. Apart from jwt.c, so that who only reads settings need
 * not have OpenSSL. */
#include "cred/jwt.h"

#include "base/error.h"
#include "cred/json.h"
#include "cred/text.h"

bool sm_jwt_claims_check(const json_t *claims, GError **error)
{
    static const char *const ours[] = {"iat", "exp", "jti"};
    sm_cleanup(sm_cred_text_clear) struct sm_cred_text t = sm_cred_text_init(SM_JWT_CLAIMS_MAX);

    if (!claims)
        return true;
    if (!json_is_object(claims)) {
        sm_error_set(error, SM_ERROR_INVALID, "the claims must be a mapping");
        return false;
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(ours); i++) {
        if (json_object_get(claims, ours[i])) {
            sm_error_set(error, SM_ERROR_INVALID, "the claim %s is set for each token: remove it", ours[i]);
            return false;
        }
    }
    if (!sm_cred_json_dump(claims, &t)) {
        sm_error_set(error, SM_ERROR_LIMIT, "the claims are longer than %d bytes", SM_JWT_CLAIMS_MAX);
        return false;
    }
    return true;
}
