/* SPDX-License-Identifier: BSD-3-Clause */
/* What a start finds of a snapshot; see restore.h. */
#include "launch/restore.h"

#include <errno.h>

#include "base/error.h"
#include "core/carry.h"

/** pins.json: as large as a table's pins get. */
#define PINS_FILE_MAX (8u << 20)

bool sm_restored_pins(const struct sm_workspace *ws, json_t **ret, GError **error)
{
    GError *local = NULL;
    sm_autofd fd = sm_workspace_open_own(ws, SM_STATE_PINS, &local);
    json_error_t at;
    size_t len;

    if (fd < 0 && errno == ENOENT) {
        g_error_free(local);
        *ret = json_array();
        return true;
    }
    if (fd < 0) {
        g_propagate_error(error, local);
        return false;
    }
    g_autofree char *text = sm_fd_read_all(fd, PINS_FILE_MAX, &len, error);
    json_t *pins = text ? json_loadb(text, len, JSON_REJECT_DUPLICATES, &at) : NULL;
    if (text && !pins)
        sm_error_set(error, SM_ERROR_INVALID, "line %d: %s", at.line, at.text);
    if (pins && sm_carry_pins_check(pins, error)) {
        *ret = pins;
        return true;
    }
    json_decref(pins);
    g_prefix_error(error, "%s/%s/" SM_STATE_PINS ": ", ws->base, ws->name);
    return false;
}
