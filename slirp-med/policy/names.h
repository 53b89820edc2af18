/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Host names in one canonical form, and the question "is this text a name, an address, or neither?".
 *
 * Canonical: lower case ASCII, no trailing dot, labels of 1..63 bytes out of letters, digits, hyphen and underscore, at
 * most 253 bytes. A text whose last label is a number (decimal, octal or 0x hex: "2130706433", "0177.0.0.1", "127.1",
 * "0x7f.1") is what inet_aton(3) and URL parsers (WHATWG URL, section 3.5 "ends in a number") take for an IPv4 address.
 * It is an address when it is a strict dotted quad and bad otherwise, never a name, so that no such text can be
 * compared with a list as if it were one.
 *
 * Two ways in:
 * - sm_name_classify(), sm_host_parse(): bytes of a guest (SNI, Host, CONNECT, DNS qname). ASCII only, no IDN mapping,
 * no allocation, no error text.
 * - sm_name_from_operator(): a configured name. U-labels become A-labels with libidn2 (UTS 46 non-transitional, RFC
 * 5890).
 *
 * Pure and thread-safe. Sources: RFC 1034 3.1, RFC 1123 2.1, RFC 5890, UTS 46, RFC 9110 7.2.
 */
#ifndef SM_POLICY_NAMES_H
#define SM_POLICY_NAMES_H

#include <glib.h>

#include "base/addr.h"

/** Longest host name in text without the trailing dot (RFC 1035 2.3.4: 255 octets on the wire), and room for it with
 * the NUL. */
#define SM_NAME_MAX 253
#define SM_NAME_LABEL_MAX 63
#define SM_NAME_STRLEN (SM_NAME_MAX + 1)

enum sm_name_kind {
    SM_NAME_BAD = 0, /* neither: empty, illegal, over-long, or an address in an odd form */
    SM_NAME_HOST,    /* a host name */
    SM_NAME_IPV4,    /* a strict dotted quad */
    SM_NAME_IPV6,    /* RFC 4291 text without brackets and without a zone */
    SM_NAME_KINDS
};

/** A name or address, and a port, as found in a Host field, an SNI or a CONNECT target. A zeroed one is bad. */
struct sm_host {
    enum sm_name_kind kind;
    char name[SM_NAME_STRLEN]; /* HOST: canonical name; IPV4, IPV6: canonical text; BAD: "" */
    struct sm_addr addr;       /* IPV4, IPV6 */
    uint16_t port;             /* 0 when there was none */
};

const char *sm_name_kind_name(enum sm_name_kind kind);

/**
 * sm_name_kind() - what len bytes are, without copying them out.
 */
enum sm_name_kind sm_name_kind(const char *text, size_t len);

/**
 * sm_name_classify() - canonicalise len bytes of a guest (SNI, DNS name in text form without escapes). One trailing dot
 * is dropped from a name.
 * @ret: always filled; kind BAD when the bytes are no name and no address. The port is 0.
 * Return: ret->kind.
 */
enum sm_name_kind sm_name_classify(const char *text, size_t len, struct sm_host *ret);

/**
 * sm_host_parse() - a Host field value, an :authority or a CONNECT target: name[:port], a.b.c.d[:port], [v6][:port].
 * Unbracketed v6, userinfo, an empty, zero, signed or over-large port and white space are bad.
 * @ret: always filled. Return: ret->kind.
 */
enum sm_name_kind sm_host_parse(const char *text, size_t len, struct sm_host *ret);

/**
 * sm_name_from_operator() - canonicalise a configured name (NUL-terminated UTF-8), with IDN conversion.
 * Return: true and @out, or false with error (SM_ERROR_INVALID, says what is wrong with which part; no file or flag
 * name). A text that is or becomes an address is an error here: addresses have their own syntax (entry.h).
 */
bool sm_name_from_operator(const char *text, char out[SM_NAME_STRLEN], GError **error) SM_WARN_UNUSED;

/**
 * sm_name_under() - is name equal to apex or below it at a label boundary? Both canonical; apex without a leading dot.
 * sm_name_under("evilpypi.org", "pypi.org") is false.
 */
bool sm_name_under(const char *name, const char *apex);

/**
 * sm_name_is_public_suffix() - would "everything under name" be a whole public suffix (ICANN or private section of the
 * list, the implicit rule for unlisted top-level domains, or a wildcard rule right below the name)? @name: canonical,
 * without a leading dot. Without a built-in list in libpsl every name counts as one (fail-closed).
 */
bool sm_name_is_public_suffix(const char *name);

/**
 * sm_name_registrable() - the part of a canonical name that somebody registered: the public suffix and one label ("example.co.uk" of
 * "a.b.example.co.uk"). Return: a place inside @name, or NULL: it is itself a public suffix, or everything under that part would be one
 * (sm_name_is_public_suffix()), so that no suffix entry may be made of it.
 */
const char *sm_name_registrable(const char *name);

#endif
