/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the strategies want from the network: one HTTP request, and one answer to it. Who carries it out is not known
 * here; it follows no redirect, takes at most SM_CRED_TRANSFER_US, and gives up a body at SM_CRED_BODY_MAX + 1 bytes,
 * which is then "too large" for the reader.
 */
#ifndef SM_CRED_REQUEST_H
#define SM_CRED_REQUEST_H

#include <jansson.h>

#include "base/defs.h"
#include "base/secret.h"
#include "cred/reason.h"

/** Issue 4: a token endpoint answers within this, and with at most this much. */
#define SM_CRED_TRANSFER_US INT64_C(10000000)
#define SM_CRED_BODY_MAX (1u << 20)
/** Fields of a request: Vault's four are the most. */
#define SM_CRED_FIELDS_MAX 4

/** A header line. The value is a secret for all: the type does not ask which one holds a token. */
struct sm_cred_field {
    const char *name; /* static */
    struct sm_secret *value;
};

/** Owns all but method. A zeroed one is empty. */
struct sm_cred_request {
    const char *method; /* static: GET, POST */
    char *url;          /* as sm_cred_url_parse() takes it; no secret */
    struct sm_cred_field fields[SM_CRED_FIELDS_MAX];
    size_t n_fields;
    struct sm_secret *body; /* NULL: none */
};

/** sm_cred_request_clear() - for sm_cleanup() too. */
void sm_cred_request_clear(struct sm_cred_request *r);
/**
 * sm_cred_request_field() - add a line; @value is copied. _secret(): taken over, also when NULL (which is what a text
 * that did not fit gives). False: NULL.
 */
void sm_cred_request_field(struct sm_cred_request *r, const char *name, const char *value);
bool sm_cred_request_secret(struct sm_cred_request *r, const char *name, struct sm_secret *value) SM_WARN_UNUSED;

/** An answer, borrowed. Its body may hold a token: whoever keeps the bytes wipes them. */
struct sm_cred_response {
    unsigned status;
    const char *content_type; /* NULL: none */
    const uint8_t *body;
    size_t len;
};

/** The words that a reader has for an answer that is not JSON of the right kind. */
struct sm_cred_response_words {
    enum sm_cred_reason type;
    enum sm_cred_reason too_large;
    enum sm_cred_reason malformed;
};

/** sm_cred_content_is_json() - "application/json", in any case, with or without parameters. */
bool sm_cred_content_is_json(const char *content_type);

/**
 * sm_cred_response_object() - the body as a JSON object, whatever the status. @ret: json_decref() it.
 * Not OK: *ret is NULL.
 */
enum sm_cred_reason sm_cred_response_object(const struct sm_cred_response *r,
                                            const struct sm_cred_response_words *words, json_t **ret);

#endif
