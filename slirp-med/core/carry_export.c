/* SPDX-License-Identifier: BSD-3-Clause */
/* What a snapshot keeps of the core, written out; see carry.h. Apart from carry.c, which the launcher reads with
 * too. */
#include "core/carry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/link.h"
#include "base/log.h"
#include "core/core.h"
#include "core/limits.h"
#include "tls/ca.h"

static json_t *entries(const struct sm_lists *lists, enum sm_list_kind kind)
{
    char text[SM_ENTRY_STRLEN];
    json_t *a = json_array();

    for (size_t i = 0; i < sm_lists_count(lists, kind); i++)
        (void)json_array_append_new(a, json_string(sm_entry_format(sm_lists_get(lists, kind, i), text)));
    return a;
}

static json_t *policy(const struct sm_core *core)
{
    const struct sm_lists *lists = core->config->lists;

    if (core->config->mode == SM_MODE_OFF)
        return json_null();
    return json_pack("{s:o, s:o}", "allow", entries(lists, SM_LIST_ALLOW), "passthrough",
                     entries(lists, SM_LIST_PASSTHROUGH));
}

static json_t *counters(const struct sm_core *core)
{
    uint64_t moved[SM_CAPS_DIRS];

    if (!sm_limits_counted(core, moved))
        return json_null();
    return json_pack("{s:I, s:I}", "bytes_up", (json_int_t)moved[SM_CAPS_UP], "bytes_down",
                     (json_int_t)moved[SM_CAPS_DOWN]);
}

static bool write_out(struct sm_core *core, int fd, GError **error)
{
    char fingerprint[SM_TLS_FINGERPRINT_STRLEN] = "";
    int64_t wall = sm_clock_wall_us();

    if (core->ca)
        sm_tls_ca_fingerprint(core->ca, fingerprint);
    json_auto_t *all =
        json_pack("{s:I, s:o, s:o, s:o, s:o}", "taken_us", (json_int_t)wall, "ca_sha256",
                  core->ca ? json_string(fingerprint) : json_null(), "counters", counters(core), "policy", policy(core),
                  "pins", sm_carry_pins(core->pins, sm_loop_now(core->loop), wall));
    char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
    bool ok = text && sm_fd_write_all(fd, text, strlen(text)) == 0;
    if (!ok)
        sm_error_set_errno(error, text ? errno : ENOMEM, "write what the core has");
    free(text);
    return ok;
}

void sm_carry_export(struct sm_core *core, int fd)
{
    g_autoptr(GError) error = NULL;

    (void)write_out(core, fd, &error);
    if (sm_link_send(core->link.fd, SM_LINK_SNAPSHOT, error ? error->message : NULL, -1) < 0)
        sm_log_error("the supervisor is not told that a snapshot is written");
}
