/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a snapshot carries out of the core and back into one, as JSON.
 *
 * The core writes (sm_carry_export(), asked for with SNAPSHOT of base/link.h) one object:
 *
 *   taken_us     integer          wall clock, microseconds since 1970
 *   ca_sha256    string or null   fingerprint of its CA; null: nothing is intercepted
 *   counters     {bytes_up, bytes_down} or null   null: this run counts nothing
 *   policy       {allow, passthrough}: arrays of entries, those in force: of flags, policy files and the last reload; null with mode off. What is
 *                denied is in flags alone
 *   pins         array of {"name": canonical host name, "addr": address, "expires_us": integer}
 *
 * A pin's end is kept in wall-clock time, so that the time that passes while nothing runs counts; a pin that only a flow kept alive is not
 * carried: its flow is not either. Restored pins end when they would have ended, at most a day from then (SM_PINS_TTL_MAX_S) whatever the
 * clock says; what is over is dropped.
 *
 * Texts are taken as hostile: they have been outside. Errors (SM_ERROR_INVALID, SM_ERROR_LIMIT) begin with the field, as in
 * "pins[3].name: ...". Pure but for sm_carry_export().
 */
#ifndef SM_CORE_CARRY_H
#define SM_CORE_CARRY_H

#include <glib.h>
#include <jansson.h>

#include "core/counters.h"
#include "policy/pins.h"

struct sm_core;

/** Largest export: 16,384 pins with the longest names are 6 MiB, the lists have the configuration's bound. */
#define SM_CARRY_MAX (64u << 20)
/** Times in microseconds up to the year 9999. */
#define SM_CARRY_TIME_MAX_US INT64_C(253402300799999999)

/** sm_carry_is_hex() - exactly n lower-case hex digits. */
bool sm_carry_is_hex(const char *text, size_t n);

/** sm_carry_pins() - the pins that have not ended; a new reference. @now_us: monotonic; @wall_us: the same moment on the wall. */
json_t *sm_carry_pins(const struct sm_pins *pins, int64_t now_us, int64_t wall_us);
/** sm_carry_pins_check() - is that such an array, each field right and no more pins than a table holds? */
bool sm_carry_pins_check(const json_t *array, GError **error) SM_WARN_UNUSED;
/** sm_carry_pins_load() - a checked array into a table. Return: how many were taken. */
size_t sm_carry_pins_load(const json_t *array, struct sm_pins *pins, int64_t now_us, int64_t wall_us);

/** sm_carry_counters_check() - {bytes_up, bytes_down}. */
bool sm_carry_counters_check(const json_t *object, uint64_t ret[SM_CAPS_DIRS], GError **error) SM_WARN_UNUSED;

/** sm_carry_export() - SNAPSHOT of the supervisor: write, and answer. The descriptor stays the caller's. */
void sm_carry_export(struct sm_core *core, int fd);

#endif
