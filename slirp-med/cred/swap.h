/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Credential swap, the configuration side (spec section 6): which credential goes into which header of requests to
 * which hosts. The set is read by the launcher, travels to the core as JSON, and is asked there for each request.
 *
 *   swaps:
 *     NAME:                                1 to 63 letters, digits, dots, underscores and hyphens
 *       type: static | oauth2-cc | jwt-bearer
 *       domains: [api.example.com, .example.org]   exact, or a suffix; an exact one beats a suffix, a longer suffix a
 *                                          shorter one, and a domain stands in one entry only
 *       header: Authorization              default; no header that frames or routes the message
 *       format: "Bearer {key}"             {token} for the other types; default for Authorization: Bearer; else bare
 *       placeholder: sk-0000-placeholder   what the guest's program holds in place of the credential
 *       scrub: true                        default: the credential is taken out of responses
 *   static:      key_ref*
 *   oauth2-cc:   token_url*, client_id_ref*, client_secret_ref*, scopes, audience, token_response_field (access_token),
 *                token_ttl_seconds, auth_style (body, basic)
 *   jwt-bearer:  signing_key_ref*, algorithm* (RS256, ES256, EdDSA), claims, token_ttl_seconds, token_url,
 *                token_response_field (with token_url)
 *
 * Keys with a star are required; each *_ref is a reference (ref.h). ${NAME} in the text of a claim is replaced when the
 * file is read; a variable that is unset or empty is an error. iat, exp and jti are ours.
 *
 * Strict as the policy file is: an unknown or repeated key, an empty or wrong value, a second document, anchors,
 * aliases and tags are errors that begin "FILE:LINE: ". No error text has any part of a refused reference, of a
 * placeholder or of a variable's value.
 *
 * Ownership: a set owns its entries and references; pointers into it live as long as it does, and a set is not changed
 * once it is in use. Pure: no file, no clock, no environment but through the function that is given. Single-threaded.
 */
#ifndef SM_CRED_SWAP_H
#define SM_CRED_SWAP_H

#include <jansson.h>

#include "cred/ref.h"
#include "policy/entry.h"

/** Largest swap file: 64 entries of 4 KiB. */
#define SM_SWAP_FILE_MAX ((size_t)256 * 1024)
/** Values of a swap file: far above what the bounds below let through, so that memory stays small. */
#define SM_SWAP_NODES_MAX 32768
/** Entries of a set: a person writes and reviews them one by one. */
#define SM_SWAPS_MAX 64
/** Domains of an entry: one service has a handful. */
#define SM_SWAP_DOMAINS_MAX 64
/** Name of an entry, without the NUL: goes into every audit line of it. */
#define SM_SWAP_NAME_MAX 63
/** Name of a header: the longest registered one has 42 bytes. */
#define SM_SWAP_HEADER_MAX 64
/** Format: a scheme's word or two around the credential. */
#define SM_SWAP_FORMAT_MAX 256
/** Placeholder: shorter ones stand in ordinary text by chance; longer than keys in use helps nobody. */
#define SM_SWAP_PLACEHOLDER_MIN 8
#define SM_SWAP_PLACEHOLDER_MAX 256
/** token_url: what servers commonly take. */
#define SM_SWAP_URL_MAX 2048
/** Scopes of an entry, and bytes of one. */
#define SM_SWAP_SCOPES_MAX 64
#define SM_SWAP_SCOPE_MAX 256
/** audience: an URL or an identifier. */
#define SM_SWAP_AUDIENCE_MAX 1024
/** token_response_field: a key of a JSON object. */
#define SM_SWAP_FIELD_MAX 64
/** token_ttl_seconds: a token that lives longer than a day is a key, and belongs into `static`. */
#define SM_SWAP_TTL_MAX 86400
/** Claims of an entry; values of a list of one; bytes of a name; bytes of a text, variables replaced. The token goes
 * into a header, and servers take 8 KiB of that. */
#define SM_SWAP_CLAIMS_MAX 32
#define SM_SWAP_CLAIM_VALUES_MAX 32
#define SM_SWAP_CLAIM_NAME_MAX 128
#define SM_SWAP_CLAIM_TEXT_MAX 1024
/** Variables that the claims of a set name. */
#define SM_SWAPS_VARIABLES_MAX 256

enum sm_swap_type { SM_SWAP_STATIC = 0, SM_SWAP_OAUTH2_CC, SM_SWAP_JWT_BEARER, SM_SWAP_TYPES };
enum sm_swap_auth { SM_SWAP_AUTH_BODY = 0, SM_SWAP_AUTH_BASIC, SM_SWAP_AUTHS };
enum sm_swap_algorithm { SM_SWAP_RS256 = 0, SM_SWAP_ES256, SM_SWAP_EDDSA, SM_SWAP_ALGORITHMS };

const char *sm_swap_type_name(enum sm_swap_type type);
const char *sm_swap_auth_name(enum sm_swap_auth auth);
const char *sm_swap_algorithm_name(enum sm_swap_algorithm algorithm);

struct sm_swap_domain {
    struct sm_entry entry;      /* HOST or SUFFIX, no port */
    char text[SM_ENTRY_STRLEN]; /* canonical: "api.example.com", ".example.org" */
    char *place;                /* where it was written, for errors: "swaps.yaml:5" */
};

/** One entry. Text is never NULL unless it says so; what does not belong to the type is NULL, empty or zero. */
struct sm_swap {
    char *name;
    enum sm_swap_type type;
    char *place; /* where it was written, for errors: "swaps.yaml:3", "--cred-swap=openai" */
    struct sm_swap_domain *domains;
    size_t n_domains;  /* at least 1 */
    char *header;      /* as written */
    char *format;      /* holds sm_swap_marker() of the type exactly once */
    char *placeholder; /* or NULL */
    bool scrub;
    const struct sm_ref *key_ref;                           /* static */
    char *token_url;                                        /* oauth2-cc; jwt-bearer: or NULL */
    const struct sm_ref *client_id_ref, *client_secret_ref; /* oauth2-cc */
    char **scopes;                        /* oauth2-cc: NULL-terminated, may be empty; otherwise NULL */
    char *audience;                       /* oauth2-cc: or NULL */
    char *token_response_field;           /* where there is a token_url; otherwise NULL */
    unsigned token_ttl_seconds;           /* 0: not given */
    enum sm_swap_auth auth_style;         /* oauth2-cc */
    const struct sm_ref *signing_key_ref; /* jwt-bearer */
    enum sm_swap_algorithm algorithm;     /* jwt-bearer */
    json_t *claims; /* jwt-bearer: an object of strings, numbers and flat arrays of these, variables replaced */
};

/** sm_swap_marker() - what the format of a type has in place of the credential: "{key}" or "{token}". */
const char *sm_swap_marker(enum sm_swap_type type);

struct sm_swaps;
struct sm_provider;

struct sm_swaps *sm_swaps_new(void);
void sm_swaps_free(struct sm_swaps *swaps);
/** sm_swaps_freep() - for sm_cleanup(). */
static inline void sm_swaps_freep(struct sm_swaps **swaps)
{
    sm_swaps_free(*swaps);
}

/** What a swap file is read with. */
struct sm_swap_source {
    const char *file;   /* as the operator wrote it: its ending gives the format, errors begin with it */
    const char *folder; /* absolute: where relative file: references begin */
    /** The value of a variable, or NULL. What it returns is copied at once. */
    const char *(*variable)(const char *name, void *data);
    void *data;
};

/** sm_swaps_parse() - a whole swap file. Return: a set for sm_swaps_free(), or NULL with error (SM_ERROR_INVALID,
 * SM_ERROR_LIMIT). */
struct sm_swaps *sm_swaps_parse(const struct sm_swap_source *source, const char *data, size_t len, GError **error);

/**
 * sm_swaps_add_provider() - the entry that `--cred-swap PROVIDER[=REF]` stands for (provider.h).
 * @ref: or NULL: the provider's own variable. @folder: as in sm_ref_parse(). @place: for errors, without the reference.
 * Return: true, or false with error and swaps untouched.
 */
bool sm_swaps_add_provider(struct sm_swaps *swaps, const struct sm_provider *provider, const char *ref,
                           const char *folder, const char *place, GError **error) SM_WARN_UNUSED;

size_t sm_swaps_count(const struct sm_swaps *swaps);
/** sm_swaps_get() - entry i < count, in the order of adding. */
const struct sm_swap *sm_swaps_get(const struct sm_swaps *swaps, size_t i);
/** sm_swaps_match() - the entry for a canonical host name: exact, or else the longest suffix; NULL: none. */
const struct sm_swap *sm_swaps_match(const struct sm_swaps *swaps, const char *name);

/** The distinct references of the set, numbered from 0 in the order of first use: number N is what the core asks the
 * supervisor for. */
size_t sm_swaps_ref_count(const struct sm_swaps *swaps);
const struct sm_ref *sm_swaps_ref(const struct sm_swaps *swaps, size_t i);
/** sm_swaps_ref_index() - the number of a reference of this set (a pointer that an entry has). */
size_t sm_swaps_ref_index(const struct sm_swaps *swaps, const struct sm_ref *ref);

/**
 * sm_swaps_hidden_variables(), sm_swaps_hidden_files() - what CMD must not see: each variable that an env: reference or
 * a claim names, VAULT_TOKEN when there is a vault: reference (it opens the same secret); each file of a file:
 * reference. No name twice. Return: NULL-terminated, for g_strfreev().
 */
char **sm_swaps_hidden_variables(const struct sm_swaps *swaps);
char **sm_swaps_hidden_files(const struct sm_swaps *swaps);

/**
 * sm_swaps_to_json() - what the core is told: {"refs": [text...], "entries": [{...}...]}, with a number into refs for
 * each reference. Holds no secret. A new reference, or NULL when out of memory.
 * sm_swaps_from_json() - the same set again (places are "entry N"; which variables claims named is not known any more),
 * under the same rules as a file, or NULL with error naming the key.
 */
json_t *sm_swaps_to_json(const struct sm_swaps *swaps);
struct sm_swaps *sm_swaps_from_json(const json_t *json, GError **error);

#endif
