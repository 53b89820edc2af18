/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The policy file (spec section 2, --egress-policy): a mapping with the keys `allow` and `passthrough`, each a sequence
 * of entries as text.
 *
 *   allow:                                   {"allow": ["api.openai.com", ".pypi.org:443"],
 *     - api.openai.com                        "passthrough": [".corp.example"]}
 *     - .pypi.org:443
 *   passthrough: [.corp.example]
 *
 * Strict: an unknown or repeated key, an empty entry, a second document, a wrong type (a plain `true` or `null` too),
 * an anchor, alias or tag is an error that begins "FILE:LINE: ". The format goes by the name: .yaml and .yml (libyaml
 * events), .json (jansson). Opening and reading is the caller's (sm_fd_read_all() with SM_POLICY_FILE_MAX).
 */
#ifndef SM_POLICY_FILE_H
#define SM_POLICY_FILE_H

#include "policy/list.h"

/** Largest policy file: 100k entries of ten bytes; a bigger one is the wrong file. */
#define SM_POLICY_FILE_MAX ((size_t)1024 * 1024)

/**
 * sm_policy_file_parse() - add what a policy file lists to lists.
 * @file_name: as the operator wrote it; used for the format and in errors.
 * Return: true, or false with error (SM_ERROR_INVALID, SM_ERROR_LIMIT) and lists untouched.
 */
bool sm_policy_file_parse(const char *file_name, const char *data, size_t len, struct sm_lists *lists,
                          GError **error) SM_WARN_UNUSED;

/** sm_policy_file_line() - the line of the first such entry in that list; 0: the file does not list it, or does not parse. */
size_t sm_policy_file_line(const char *file_name, const char *data, size_t len, enum sm_list_kind list,
                           const struct sm_entry *entry);

#endif
