/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The pin table: a tree of addresses, each with its names, and one list of idle pins in order of use; see pins.h.
 *
 * Held pins are not on the idle list, so the pin to evict is always its head.
 */
#include "policy/pins.h"

#include <string.h>

struct slot;

/* The public part comes first: a const struct sm_pin * that we gave out is the pin itself. */
struct pin {
    struct sm_pin pub;
    struct slot *slot;
    struct pin *prev_on_slot, *next_on_slot; /* most recently learnt first */
    guint hash;                              /* of the name: a slot's other names need not be looked at */
    struct pin *older, *newer;               /* idle list; both NULL when held or alone */
    char name[];
};

struct slot {
    struct sm_addr addr;
    struct pin *first, *last;
    size_t count;
};

struct sm_pins {
    size_t max;
    size_t count;
    GTree *slots; /* struct sm_addr (in the slot) -> struct slot (owned) */
    struct pin *oldest, *newest;
};

#define US_PER_S ((int64_t)1000000)

static gint compare_addr(gconstpointer a, gconstpointer b, gpointer unused)
{
    (void)unused;
    return sm_addr_cmp(a, b);
}

static void slot_free(gpointer p)
{
    struct slot *slot = p;
    while (slot->first) {
        struct pin *pin = slot->first;
        slot->first = pin->next_on_slot;
        g_free(pin);
    }
    g_free(slot);
}

struct sm_pins *sm_pins_new(size_t max)
{
    struct sm_pins *pins = g_new0(struct sm_pins, 1);
    pins->max = max;
    pins->slots = g_tree_new_full(compare_addr, NULL, NULL, slot_free);
    return pins;
}

void sm_pins_free(struct sm_pins *pins)
{
    if (!pins)
        return;
    g_tree_unref(pins->slots);
    g_free(pins);
}

static void idle_remove(struct sm_pins *pins, struct pin *pin)
{
    *(pin->older ? &pin->older->newer : &pins->oldest) = pin->newer;
    *(pin->newer ? &pin->newer->older : &pins->newest) = pin->older;
    pin->older = pin->newer = NULL;
}

static void idle_append(struct sm_pins *pins, struct pin *pin)
{
    pin->older = pins->newest;
    pin->newer = NULL;
    *(pins->newest ? &pins->newest->newer : &pins->oldest) = pin;
    pins->newest = pin;
}

static void slot_unlink(struct slot *slot, struct pin *pin)
{
    *(pin->prev_on_slot ? &pin->prev_on_slot->next_on_slot : &slot->first) = pin->next_on_slot;
    *(pin->next_on_slot ? &pin->next_on_slot->prev_on_slot : &slot->last) = pin->prev_on_slot;
    slot->count--;
}

static void slot_prepend(struct slot *slot, struct pin *pin)
{
    pin->prev_on_slot = NULL;
    pin->next_on_slot = slot->first;
    *(slot->first ? &slot->first->prev_on_slot : &slot->last) = pin;
    slot->first = pin;
    slot->count++;
}

/* Drop an idle pin; with its last pin its slot goes too. */
static void drop(struct sm_pins *pins, struct pin *pin)
{
    struct slot *slot = pin->slot;

    idle_remove(pins, pin);
    slot_unlink(slot, pin);
    pins->count--;
    if (slot->count == 0)
        g_tree_remove(pins->slots, &slot->addr);
    g_free(pin);
}

static bool is_live(const struct pin *pin, int64_t now_us)
{
    return pin->pub.holds > 0 || now_us < pin->pub.expires_us;
}

static struct pin *find(const struct slot *slot, const char *name)
{
    guint hash = slot ? g_str_hash(name) : 0;

    for (struct pin *pin = slot ? slot->first : NULL; pin; pin = pin->next_on_slot)
        if (pin->hash == hash && strcmp(pin->name, name) == 0)
            return pin;
    return NULL;
}

/* The idle pin of an address that was learnt longest ago; NULL when all are held. */
static struct pin *oldest_of(const struct slot *slot)
{
    struct pin *pin = slot->last;
    while (pin && pin->pub.holds > 0)
        pin = pin->prev_on_slot;
    return pin;
}

static const struct sm_pin *add(struct sm_pins *pins, const char *name, const struct sm_addr *addr, int64_t expires)
{
    size_t len = strlen(name);
    struct slot *slot = g_tree_lookup(pins->slots, addr);
    struct pin *pin = find(slot, name);

    if (pin) {
        pin->pub.expires_us = MAX(pin->pub.expires_us, expires);
        slot_unlink(slot, pin);
        slot_prepend(slot, pin);
        if (pin->pub.holds == 0) {
            idle_remove(pins, pin);
            idle_append(pins, pin);
        }
        return &pin->pub;
    }
    if (len == 0 || len > SM_NAME_MAX || addr->family == SM_FAMILY_NONE)
        return NULL;
    if (slot && slot->count >= SM_PINS_PER_ADDR_MAX) {
        struct pin *victim = oldest_of(slot);
        if (!victim)
            return NULL;
        drop(pins, victim); /* the slot stays: it holds more than one */
    } else if (pins->count >= pins->max) {
        if (!pins->oldest)
            return NULL;
        drop(pins, pins->oldest);
        slot = g_tree_lookup(pins->slots, addr);
    }
    if (!slot) {
        slot = g_new0(struct slot, 1);
        slot->addr = *addr;
        g_tree_insert(pins->slots, &slot->addr, slot);
    }
    pin = g_malloc0(sizeof(*pin) + len + 1);
    memcpy(pin->name, name, len + 1);
    pin->pub = (struct sm_pin){.addr = *addr, .expires_us = expires, .name = pin->name};
    pin->slot = slot;
    pin->hash = g_str_hash(name);
    slot_prepend(slot, pin);
    pins->count++;
    idle_append(pins, pin);
    return &pin->pub;
}

const struct sm_pin *sm_pins_add(struct sm_pins *pins, const char *name, const struct sm_addr *addr, uint32_t ttl_s,
                                 int64_t now_us)
{
    return add(pins, name, addr, now_us + CLAMP((int64_t)ttl_s, SM_PINS_TTL_MIN_S, SM_PINS_TTL_MAX_S) * US_PER_S);
}

const struct sm_pin *sm_pins_restore(struct sm_pins *pins, const char *name, const struct sm_addr *addr,
                                     int64_t expires_us, int64_t now_us)
{
    if (expires_us <= now_us)
        return NULL;
    return add(pins, name, addr, MIN(expires_us, now_us + SM_PINS_TTL_MAX_S * US_PER_S));
}

const struct sm_pin *sm_pins_find(const struct sm_pins *pins, const char *name, const struct sm_addr *addr,
                                  int64_t now_us)
{
    const struct pin *pin = find(g_tree_lookup(pins->slots, addr), name);
    return pin && is_live(pin, now_us) ? &pin->pub : NULL;
}

size_t sm_pins_of(const struct sm_pins *pins, const struct sm_addr *addr, int64_t now_us,
                  const struct sm_pin *ret[SM_PINS_PER_ADDR_MAX])
{
    const struct slot *slot = g_tree_lookup(pins->slots, addr);
    size_t n = 0;
    for (const struct pin *pin = slot ? slot->first : NULL; pin && n < SM_PINS_PER_ADDR_MAX; pin = pin->next_on_slot)
        if (is_live(pin, now_us))
            ret[n++] = &pin->pub;
    return n;
}

const struct sm_pin *sm_pins_hold(struct sm_pins *pins, const char *name, const struct sm_addr *addr, int64_t now_us)
{
    struct pin *pin = find(g_tree_lookup(pins->slots, addr), name);
    if (!pin || !is_live(pin, now_us) || pin->pub.holds == UINT32_MAX)
        return NULL;
    if (pin->pub.holds++ == 0)
        idle_remove(pins, pin);
    return &pin->pub;
}

void sm_pins_release(struct sm_pins *pins, const struct sm_pin *pub, int64_t now_us)
{
    struct pin *pin = (struct pin *)pub;
    if (!pin)
        return;
    g_assert(pin->pub.holds > 0);
    if (--pin->pub.holds > 0)
        return;
    idle_append(pins, pin);
    if (!is_live(pin, now_us))
        drop(pins, pin);
}

size_t sm_pins_expire(struct sm_pins *pins, int64_t now_us)
{
    size_t gone = 0;
    for (struct pin *pin = pins->oldest, *next; pin; pin = next) {
        next = pin->newer;
        if (!is_live(pin, now_us)) {
            drop(pins, pin);
            gone++;
        }
    }
    return gone;
}

size_t sm_pins_count(const struct sm_pins *pins)
{
    return pins->count;
}

struct each {
    int64_t now_us;
    void (*fn)(const struct sm_pin *pin, void *data);
    void *data;
};

static gboolean each_slot(gpointer key, gpointer value, gpointer data)
{
    const struct slot *slot = value;
    const struct each *each = data;
    for (const struct pin *pin = slot->first; pin; pin = pin->next_on_slot)
        if (is_live(pin, each->now_us))
            each->fn(&pin->pub, each->data);
    return FALSE;
}

void sm_pins_each(const struct sm_pins *pins, int64_t now_us, void (*fn)(const struct sm_pin *pin, void *data),
                  void *data)
{
    struct each each = {now_us, fn, data};
    g_tree_foreach(pins->slots, each_slot, &each);
}
