/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * JSON that holds secrets: jansson, with a free() that wipes.
 *
 * jansson's allocator is one for the process (json_set_alloc_funcs()), so the switch is made once, for good, at the
 * first use from here: blocks still come from malloc(3), only what is given back is overwritten first, up to
 * malloc_usable_size(3). Because the blocks are malloc's own, it does not matter whether one was taken before the
 * switch, and no other module needs to know. The rest of the process pays for wiping what it frees through jansson: the
 * core's configuration and a status object. Nobody else sets an allocator. Not thread-safe; the core has one thread.
 *
 * jansson draws its hash seed from a device on the first object of a process: a process with a closed sandbox makes one
 * before it closes (the core's configuration is one).
 */
#ifndef SM_CRED_JSON_H
#define SM_CRED_JSON_H

#include <jansson.h>

#include "base/defs.h"
#include "cred/text.h"

/**
 * sm_cred_json_wipe() - from now on jansson wipes. Each function of cred/ that uses jansson calls it; calling again is
 * free.
 */
void sm_cred_json_wipe(void);

/**
 * sm_cred_json_object() - bytes that must be one JSON object and nothing else: UTF-8, no member twice, no NUL in a
 * string, nothing behind it. The caller frees it with json_decref(). NULL: it is not, and jansson's text about it,
 * which quotes the bytes, is dropped.
 */
json_t *sm_cred_json_object(const void *bytes, size_t len);

/** sm_cred_json_dump() - the compact text of an object, added to @t. False: it did not fit or is no JSON. */
bool sm_cred_json_dump(const json_t *json, struct sm_cred_text *t);

#endif
