/* SPDX-License-Identifier: BSD-3-Clause */
/* Pins, counters and lists between a core and a snapshot; see carry.h. */
#include "core/carry.h"

#include <string.h>

#include "base/error.h"

bool sm_carry_is_hex(const char *text, size_t n)
{
    return strlen(text) == n && strspn(text, "0123456789abcdef") == n;
}

struct gather {
    json_t *array;
    int64_t now_us, wall_us;
};

static void gather_pin(const struct sm_pin *pin, void *data)
{
    const struct gather *g = data;
    char addr[SM_ADDR_STRLEN];

    if (pin->expires_us <= g->now_us)
        return; /* held by a flow, which ends here */
    json_int_t ends = g->wall_us + (pin->expires_us - g->now_us);
    (void)json_array_append_new(g->array, json_pack("{s:s, s:s, s:I}", "name", pin->name, "addr",
                                                    sm_addr_format(&pin->addr, addr), "expires_us", ends));
}

json_t *sm_carry_pins(const struct sm_pins *pins, int64_t now_us, int64_t wall_us)
{
    struct gather g = {json_array(), now_us, wall_us};

    sm_pins_each(pins, now_us, gather_pin, &g);
    return g.array;
}

static bool bad_pin(size_t i, const char *field, const char *want, GError **error)
{
    sm_error_set(error, SM_ERROR_INVALID, "pins[%zu]%s%s: must be %s", i, field[0] ? "." : "", field, want);
    return false;
}

/* One pin, whole: what stands in it is what we would have written. */
static bool read_pin(const json_t *item, size_t i, struct sm_host *ret_name, struct sm_addr *ret_addr,
                     int64_t *ret_expires_us, GError **error)
{
    const json_t *name = json_object_get(item, "name"), *addr = json_object_get(item, "addr"),
                 *expires = json_object_get(item, "expires_us");
    char canonical[SM_ADDR_STRLEN];

    if (!json_is_object(item) || json_object_size(item) != 3)
        return bad_pin(i, "", "an object of name, addr and expires_us", error);
    if (!json_is_string(name) ||
        sm_name_classify(json_string_value(name), json_string_length(name), ret_name) != SM_NAME_HOST ||
        strlen(ret_name->name) != json_string_length(name) || strcmp(ret_name->name, json_string_value(name)) != 0)
        return bad_pin(i, "name", "a canonical host name", error);
    if (!json_is_string(addr) || strlen(json_string_value(addr)) != json_string_length(addr) ||
        !sm_addr_parse(json_string_value(addr), ret_addr) ||
        strcmp(sm_addr_format(ret_addr, canonical), json_string_value(addr)) != 0)
        return bad_pin(i, "addr", "an address in its canonical form", error);
    if (!json_is_integer(expires) || json_integer_value(expires) < 0 ||
        json_integer_value(expires) > SM_CARRY_TIME_MAX_US)
        return bad_pin(i, "expires_us", "a time in microseconds since 1970", error);
    *ret_expires_us = json_integer_value(expires);
    return true;
}

bool sm_carry_pins_check(const json_t *array, GError **error)
{
    struct sm_host name;
    struct sm_addr addr;
    int64_t expires;

    if (!json_is_array(array)) {
        sm_error_set(error, SM_ERROR_INVALID, "pins: must be an array");
        return false;
    }
    if (json_array_size(array) > SM_PINS_MAX) {
        sm_error_set(error, SM_ERROR_LIMIT, "pins: more than %d", SM_PINS_MAX);
        return false;
    }
    for (size_t i = 0; i < json_array_size(array); i++)
        if (!read_pin(json_array_get(array, i), i, &name, &addr, &expires, error))
            return false;
    return true;
}

size_t sm_carry_pins_load(const json_t *array, struct sm_pins *pins, int64_t now_us, int64_t wall_us)
{
    struct sm_host name;
    struct sm_addr addr;
    int64_t expires;
    size_t n = 0;

    /* Backwards: of one address the pin that was learnt last stands first, and is to be the last that is learnt here. */
    for (size_t i = json_array_size(array); i-- > 0;)
        if (read_pin(json_array_get(array, i), i, &name, &addr, &expires, NULL))
            n += sm_pins_restore(pins, name.name, &addr, now_us + (expires - wall_us), now_us) != NULL;
    return n;
}

bool sm_carry_counters_check(const json_t *object, uint64_t ret[SM_CAPS_DIRS], GError **error)
{
    static const char *const keys[SM_CAPS_DIRS] = {[SM_CAPS_UP] = "bytes_up", [SM_CAPS_DOWN] = "bytes_down"};
    uint64_t got[SM_CAPS_DIRS];

    if (!json_is_object(object) || json_object_size(object) != SM_CAPS_DIRS) {
        sm_error_set(error, SM_ERROR_INVALID, "counters: must be an object of bytes_up and bytes_down");
        return false;
    }
    for (size_t i = 0; i < SM_CAPS_DIRS; i++) {
        const json_t *n = json_object_get(object, keys[i]);
        if (!json_is_integer(n) || json_integer_value(n) < 0) {
            sm_error_set(error, SM_ERROR_INVALID, "counters.%s: must be a number of bytes", keys[i]);
            return false;
        }
        got[i] = (uint64_t)json_integer_value(n);
    }
    memcpy(ret, got, sizeof(got));
    return true;
}
