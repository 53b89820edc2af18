/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * settings.json, as `start` reads it and as a snapshot carries it. Beyond "no crash": what is taken obeys the bounds, holds no flag that is not kept, and is the
 * same when it is written and read again; a refusal names the file and leaves nothing.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "launch/canonical.h"
#include "launch/settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

static bool same(char *const *a, char *const *b)
{
    return a && b ? g_strv_equal((const char *const *)a, (const char *const *)b) : a == b;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sm_cleanup(sm_settings_clear) struct sm_settings s = {0}, again = {0};
    g_autoptr(GError) error = NULL;

    if (!sm_settings_parse("file", (const char *)data, size, &s, &error)) {
        require(error && g_str_has_prefix(error->message, "file:") && !s.args && !s.cmd && !s.spec && !s.created);
        return 0;
    }
    require(!error && g_strv_length(s.args) <= SM_SETTINGS_ARGS_MAX && s.created);
    require(!s.cmd || g_strv_length(s.cmd) <= SM_SETTINGS_CMD_MAX);
    for (size_t i = 0; s.args[i]; i++) {
        require(g_str_has_prefix(s.args[i], "--"));
        g_autofree char *name = g_strndup(s.args[i] + 2, strcspn(s.args[i] + 2, "="));
        require(name[0] && strcmp(name, "name") != 0 && strcmp(name, "state-dir") != 0 &&
                !sm_option_of_one_start(name));
    }
    json_t *o = sm_settings_json(&s);
    char *text = json_dumps(o, JSON_COMPACT);
    require(text && sm_settings_parse("file", text, strlen(text), &again, &error));
    require(again.command == s.command && same(s.args, again.args) && same(s.cmd, again.cmd));
    free(text);
    json_decref(o);
    return 0;
}
