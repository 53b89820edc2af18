/* SPDX-License-Identifier: BSD-3-Clause */
/* Flags in the form in which they are kept; see canonical.h. */
#include "launch/canonical.h"

#include <string.h>

#define REF_FILE "file:"

static char *absolute(const char *path)
{
    /* A folder behind which something is to be put (attach.h) keeps its last '/'. */
    g_autofree char *whole = g_canonicalize_filename(path, NULL);
    return g_str_has_suffix(path, "/") && strcmp(whole, "/") != 0 ? g_strconcat(whole, "/", NULL)
                                                                  : g_steal_pointer(&whole);
}

static char *endpoint_or_path(const char *name, const char *value)
{
    if (g_str_has_prefix(value, "tcp:"))
        return g_strdup(value);
    if (strcmp(name, "qemu") == 0 && !strchr(value, '/')) /* looked for in PATH */
        return g_strdup(value);
    return absolute(value);
}

/** Two paths with sep between them; the second is the guest's where only_first is set. */
static char *pair(const char *value, char sep, bool only_first)
{
    const char *at = strchr(value, sep);
    g_autofree char *left = at ? g_strndup(value, (gsize)(at - value)) : g_strdup(value);
    g_autofree char *first = absolute(left);

    if (!at)
        return g_steal_pointer(&first);
    g_autofree char *second = only_first ? g_strdup(at + 1) : absolute(at + 1);
    return g_strdup_printf("%s%c%s", first, sep, second);
}

static char *reference(const char *value)
{
    if (!g_str_has_prefix(value, REF_FILE))
        return g_strdup(value);
    g_autofree char *path = absolute(value + strlen(REF_FILE));
    return g_strconcat(REF_FILE, path, NULL);
}

static char *provider(const char *value)
{
    const char *equals = strchr(value, '=');

    if (!equals)
        return g_strdup(value);
    g_autofree char *ref = reference(equals + 1);
    return g_strdup_printf("%.*s=%s", (int)(equals - value), value, ref);
}

char *sm_option_canonical(const char *name, const char *metavar, const char *value)
{
    g_autofree char *kept = NULL;

    if (!metavar)
        return g_strconcat("--", name, NULL);
    if (strcmp(metavar, "FILE") == 0 || strcmp(metavar, "DIR") == 0)
        kept = absolute(value);
    else if (strcmp(metavar, "PATH") == 0)
        kept = endpoint_or_path(name, value);
    else if (strcmp(metavar, "PATH[,PEER]") == 0)
        kept = pair(value, ',', false);
    else if (strcmp(metavar, "SRC[:DST]") == 0)
        kept = pair(value, ':', true);
    else if (strcmp(metavar, "PROVIDER[=REF]") == 0)
        kept = provider(value);
    else if (strcmp(metavar, "REF") == 0)
        kept = reference(value);
    else
        kept = g_strdup(value);
    return g_strconcat("--", name, "=", kept, NULL);
}

bool sm_option_of_one_start(const char *name)
{
    static const char *const names[] = {"fd",   "fd-kind",    "ready-fd",      "owner-fd", "dry-run",
                                        "json", "print-args", "print-command", NULL};
    return g_strv_contains(names, name);
}
