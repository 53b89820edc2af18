/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The one certificate that a guest is given, and the bundle that it is added to (RFC 7468, X.690 for the outer length).
 *
 * What comes over a channel is believed only when it is exactly one CERTIFICATE block, with nothing around it but
 * empty lines, strict base64 in lines of at most SM_GUEST_LINE_MAX, and in it one DER SEQUENCE that is as long as it
 * says. Nothing more is parsed: the programs that trust the certificate parse it. It is written again in normal form,
 * so that two ways of writing one certificate give one file.
 *
 * Pure: bytes in, bytes out; no allocation. Of the C library only, so that the guest's program is small and static.
 */
#ifndef SM_GUEST_PEM_H
#define SM_GUEST_PEM_H

#include "base/defs.h"

/** What a channel may send: a P-256 certificate has 700 bytes. The same as for `run` (paths/guest_trust.h). */
#define SM_GUEST_PEM_MAX (64u << 10)
/** One line: 64 in PEM, 76 in MIME. */
#define SM_GUEST_LINE_MAX 76
#define SM_GUEST_DER_MAX (SM_GUEST_PEM_MAX / 4 * 3)
/** In normal form: a line end for every 64 letters where the input had one for every 76, and the armour. */
#define SM_GUEST_NORMAL_MAX (SM_GUEST_PEM_MAX + SM_GUEST_PEM_MAX / 64 + 128)

#define SM_GUEST_BEGIN "-----BEGIN CERTIFICATE-----"
#define SM_GUEST_END "-----END CERTIFICATE-----"

/** What is wrong with a text. NONE is zero; UNFINISHED: it may become right when more comes. */
enum sm_pem_fault {
    SM_PEM_NONE,
    SM_PEM_UNFINISHED,
    SM_PEM_TOO_LONG,
    SM_PEM_CONTROL,
    SM_PEM_NO_BEGIN,
    SM_PEM_BASE64,
    SM_PEM_TRAILING,
    SM_PEM_DER,
    SM_PEM_FAULTS,
};

/** In words, for a message. */
extern const char *const sm_pem_fault_names[SM_PEM_FAULTS];

struct sm_guest_cert {
    size_t der_len, pem_len;
    uint8_t der[SM_GUEST_DER_MAX];
    char pem[SM_GUEST_NORMAL_MAX]; /* normal form; not terminated */
};

/** sm_guest_pem_check() - believe a text or not. *ret is set only if the answer is SM_PEM_NONE. */
enum sm_pem_fault sm_guest_pem_check(const char *text, size_t len, struct sm_guest_cert *ret);

/**
 * sm_guest_bundle_filter() - the CERTIFICATE blocks of a bundle, without comments, keys and broken blocks, without
 * cert, and without those of former workspaces: a guest that is not in one any more has no use for its CA. They are
 * known by their name (slirp-med/tls/ca.c gives it).
 * @out: room for len + 1 bytes. @ret_has: whether cert was among them.
 * Returns the length of what is in out; *ret_count says how many blocks that is.
 */
size_t sm_guest_bundle_filter(const char *text, size_t len, const struct sm_guest_cert *cert, char *out,
                              size_t *ret_count, bool *ret_has);

#endif
