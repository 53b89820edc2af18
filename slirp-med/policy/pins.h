/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pins: (name, address) pairs that the core itself learnt from a DNS answer that it gave this guest, or from its own
 * resolution. A pin is proof that the name stood behind the address (spec section 3); nothing that a guest asserts ever
 * makes one.
 *
 * A pin is live until its expiry (the record's TTL, at least 60 s, at most 1 day), and for as long as a flow holds it.
 * One table a workspace. Bounded: the least recently used pin that no flow holds makes room; when every pin is held,
 * nothing is added. Trees, not hashes: the guest chooses the names, and may not choose collisions.
 *
 * Time is CLOCK_MONOTONIC microseconds, always an argument. Names are canonical (names.h). Single-threaded; no I/O.
 */
#ifndef SM_POLICY_PINS_H
#define SM_POLICY_PINS_H

#include "policy/names.h"

#define SM_PINS_TTL_MIN_S 60
#define SM_PINS_TTL_MAX_S 86400
/** Pins of one workspace (about 6 MB when full of long names): a browser session of a day needs a few thousand. */
#define SM_PINS_MAX 16384
/** Names on one address: a decision walks them all, and a CDN edge seen by one guest carries some dozens. */
#define SM_PINS_PER_ADDR_MAX 128

struct sm_pins;

/** One pin, read-only to others. It stays where it is while it is held; otherwise until the next call that adds,
 * releases or expires. */
struct sm_pin {
    struct sm_addr addr;
    int64_t expires_us;
    uint32_t holds; /* flows that use it */
    const char *name;
};

struct sm_pins *sm_pins_new(size_t max);
void sm_pins_free(struct sm_pins *pins);
/** sm_pins_freep() - for sm_cleanup(). */
static inline void sm_pins_freep(struct sm_pins **pins)
{
    sm_pins_free(*pins);
}

/**
 * sm_pins_add() - learn or renew a pin. @ttl_s is brought into [60, 86400]; a renewal never shortens.
 * Return: the pin, or NULL when there is no room (all held) or the name is not canonical in length.
 */
const struct sm_pin *sm_pins_add(struct sm_pins *pins, const char *name, const struct sm_addr *addr, uint32_t ttl_s,
                                 int64_t now_us);

/**
 * sm_pins_restore() - a pin of a snapshot: it ends at expires_us, at most SM_PINS_TTL_MAX_S from now; one that is over is not taken. Otherwise as
 * sm_pins_add().
 */
const struct sm_pin *sm_pins_restore(struct sm_pins *pins, const char *name, const struct sm_addr *addr,
                                     int64_t expires_us, int64_t now_us);

/** sm_pins_find() - the live pin of exactly this name on exactly this address, or NULL. Does not count as use. */
const struct sm_pin *sm_pins_find(const struct sm_pins *pins, const char *name, const struct sm_addr *addr,
                                  int64_t now_us);

/**
 * sm_pins_of() - all live pins of an address, the most recently learnt first.
 * @ret: room for SM_PINS_PER_ADDR_MAX pointers. Return: how many.
 */
size_t sm_pins_of(const struct sm_pins *pins, const struct sm_addr *addr, int64_t now_us,
                  const struct sm_pin *ret[SM_PINS_PER_ADDR_MAX]);

/** sm_pins_hold() - a flow begins to use the live pin; NULL when there is none. Each hold needs one sm_pins_release().
 */
const struct sm_pin *sm_pins_hold(struct sm_pins *pins, const char *name, const struct sm_addr *addr, int64_t now_us);
/** sm_pins_release() - the flow has ended; the pin goes on until its expiry. NULL is fine. */
void sm_pins_release(struct sm_pins *pins, const struct sm_pin *pin, int64_t now_us);

/** sm_pins_expire() - drop what is over; call it now and then (look-ups never see expired pins anyway). Return: how
 * many went. */
size_t sm_pins_expire(struct sm_pins *pins, int64_t now_us);
size_t sm_pins_count(const struct sm_pins *pins);
/** sm_pins_each() - every pin that is live at now_us, in address order (snapshot, status). The callback must not change
 * the table. */
void sm_pins_each(const struct sm_pins *pins, int64_t now_us, void (*fn)(const struct sm_pin *pin, void *data),
                  void *data);

#endif
