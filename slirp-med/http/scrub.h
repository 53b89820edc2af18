/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Takes a secret out of what passes by: every byte of a match becomes '*', nothing becomes longer or shorter.
 *
 * What is found, if the secret has SM_SCRUB_SECRET_MIN to SM_SCRUB_SECRET_MAX bytes:
 * - the secret itself;
 * - the secret percent-encoded, in any mix: each byte as it is or as %XX in either case, a space also as '+';
 * - base64 of any text that contains it: the characters that depend on the secret alone, for each of the three
 *   offsets (modulo 3) that it can have in the text, in the standard alphabet, the one for URLs or a mix of both, and
 *   that percent-encoded again. The characters at the edges hold bits of what stands around it and stay.
 * What is not found: a secret that the origin cut in pieces, compressed or encoded in another way (JSON's \u002f, hex,
 * line breaks in base64). This is a net for an origin that echoes a credential, not a wall against one that wants to
 * hand it out. Shorter secrets are not looked for: six characters of ordinary text may well be somebody's password.
 *
 * What begins like a long secret is taken for it (a form of 32 characters or more: after its first half, 24 at most): so much behind
 * it is overwritten as the rest would have, up to a character that no form contains. Otherwise a guest that has its own text said back,
 * as a file that it stored, could tell by what is held whether its guess of the next character was right, and so read the whole secret.
 * The beginning it can learn, and of a shorter secret all: keys of services are longer.
 *
 * Of matches that overlap the leftmost counts, and the search goes on behind it. Of matches that begin at the same byte
 * the one that is complete first counts.
 *
 * A stream holds back only the bytes at its end that may still become a match: the answer does not depend on how the
 * stream was cut, and a server-sent event is not delayed unless the secret seems to begin at its end. Framing that lies
 * between such bytes is held with them and leaves as it was.
 *
 * How it works: a table of pairs of bytes (Wu and Manber's) says how far the text can be skipped; where a match may
 * begin, the few states that it can be in are followed byte by byte from there. Nothing of that depends on the length
 * of the secret but the memory: about 20 bytes for each of its bytes, 4 KiB for the table. At worst a byte is looked at
 * as often as the secret has beginnings that it also has elsewhere, which a random secret has not.
 *
 * Sans-I/O, no clock. A struct sm_scrub does not change after it was made and is shared by reference; it holds what the
 * secret looks like in memory for secrets (base/secret.h), wiped with the last reference. Counting is not atomic.
 */
#ifndef SM_HTTP_SCRUB_H
#define SM_HTTP_SCRUB_H

#include "base/defs.h"
#include "http/outq.h"

/** Shorter is what ordinary text contains by chance. */
#define SM_SCRUB_SECRET_MIN 6u
/** Longer is no credential: servers take 8 KiB for a whole header line. What is held of a stream depends on it. */
#define SM_SCRUB_SECRET_MAX 8192u
/**
 * Bytes that a stream holds back at most, framing between them included: of the text it is less than a hundred. A beginning of a match
 * over more framing than this (nobody sends chunks of a byte with long extensions) is overwritten as if it were one. Less than an HTTP/2
 * window, so that what is held cannot keep its own end from coming.
 */
#define SM_SCRUB_HELD_MAX 49152u

struct sm_scrub;
struct sm_scrub_stream;

/** sm_scrub_new() - for one secret, of which a copy is made. NULL: too short or too long, it is not looked for. */
struct sm_scrub *sm_scrub_new(const uint8_t *secret, size_t len);
struct sm_scrub *sm_scrub_ref(struct sm_scrub *scrub);
/** sm_scrub_unref() - NULL is allowed. */
void sm_scrub_unref(struct sm_scrub *scrub);

/** sm_scrub_text() - overwrite the matches in one whole text. Returns how many there were. */
unsigned sm_scrub_text(const struct sm_scrub *scrub, uint8_t *text, size_t len);

/** sm_scrub_stream_new() - takes a reference. @account: NULL, or where the bytes held back are counted; outlives it. */
struct sm_scrub_stream *sm_scrub_stream_new(struct sm_scrub *scrub, size_t *account);
/** sm_scrub_stream_free() - what is still held is lost. NULL is allowed. */
void sm_scrub_stream_free(struct sm_scrub_stream *s);
/** sm_scrub_data() - more of the text. What can go on is put into out. */
void sm_scrub_data(struct sm_scrub_stream *s, const uint8_t *data, size_t len, struct sm_outq *out);
/** sm_scrub_framing() - bytes that are not of the text but have to keep their place in it. */
void sm_scrub_framing(struct sm_scrub_stream *s, const uint8_t *data, size_t len, struct sm_outq *out);
/** sm_scrub_end() - the text has ended, so what is held is no match. The stream may be used again. */
void sm_scrub_end(struct sm_scrub_stream *s, struct sm_outq *out);
/** sm_scrub_held() - bytes held back now. */
size_t sm_scrub_held(const struct sm_scrub_stream *s);
/** sm_scrub_matches() - how many were overwritten so far. */
unsigned sm_scrub_matches(const struct sm_scrub_stream *s);

#endif
