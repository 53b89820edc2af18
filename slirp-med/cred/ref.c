/* SPDX-License-Identifier: BSD-3-Clause */
/* References to secrets; see ref.h. */
#include "cred/ref.h"

#include <string.h>

#include "base/error.h"

static const char *const kind_names[] = {[SM_REF_ENV] = "env", [SM_REF_FILE] = "file", [SM_REF_VAULT] = "vault"};
SM_NAME_TABLE_COVERS(kind_names, SM_REF_KINDS);

const char *sm_ref_kind_name(enum sm_ref_kind kind)
{
    return (unsigned)kind < SM_REF_KINDS ? kind_names[kind] : "invalid";
}

/* The only way out of this file with an error: a fixed text, so that nothing of the input can be in it. */
static bool refuse(GError **error, const char *text)
{
    sm_error_set(error, SM_ERROR_INVALID, "%s", text);
    return false;
}

bool sm_ref_env_name(const char *text, size_t len)
{
    if (len == 0 || len > SM_REF_NAME_MAX || g_ascii_isdigit(text[0]))
        return false;
    for (size_t i = 0; i < len; i++)
        if (!g_ascii_isalnum(text[i]) && text[i] != '_')
            return false;
    return true;
}

/* A path in a store goes into a URL and must mean one place there: plain bytes, no empty, "." or ".." part. */
static bool vault_text(const char *text, const char *more)
{
    for (const char *p = text; *p; p++)
        if (!g_ascii_isalnum(*p) && !strchr(more, *p))
            return false;
    return text[0] != '\0';
}

static bool vault_path(const char *text)
{
    if (!vault_text(text, "-_.~+=@:,/") || strlen(text) > SM_REF_VAULT_MAX)
        return false;
    g_auto(GStrv) parts = g_strsplit(text, "/", -1);
    for (size_t i = 0; parts[i]; i++)
        if (parts[i][0] == '\0' || strcmp(parts[i], ".") == 0 || strcmp(parts[i], "..") == 0)
            return false;
    return parts[1] != NULL; /* the mount alone holds no secret */
}

static bool parse_env(const char *rest, struct sm_ref *ref, GError **error)
{
    if (!sm_ref_env_name(rest, strlen(rest)))
        return refuse(error, "env: wants the name of a variable behind it (letters, digits, underscores; not shown, in "
                             "case it is a secret)");
    ref->name = g_strdup(rest);
    ref->text = g_strconcat("env:", rest, NULL);
    return true;
}

static bool parse_file(const char *rest, const char *folder, struct sm_ref *ref, GError **error)
{
    size_t len = strlen(rest);

    if (len == 0)
        return refuse(error, "file: wants a path behind it");
    if (!g_utf8_validate(rest, -1, NULL))
        return refuse(error, "file: wants a path that is UTF-8");
    for (const char *p = rest; *p; p = g_utf8_next_char(p))
        if (g_unichar_iscntrl(g_utf8_get_char(p))) /* those beyond ASCII: the path is shown on terminals */
            return refuse(error, "file: wants a path without control characters");
    if (rest[0] == '~')
        return refuse(error, "file: does not know '~': write the folder out");
    if (rest[len - 1] == '/')
        return refuse(error, "file: wants a file, not a folder");
    if (rest[0] != '/' && !folder)
        return refuse(error, "file: wants an absolute path here");
    g_autofree char *path = g_canonicalize_filename(rest, folder ? folder : "/");
    if (strlen(path) >= SM_REF_FILE_STRLEN)
        return refuse(error, "file: has a path that is too long: at most 4095 bytes");
    if (path[1] == '\0')
        return refuse(error, "file: wants a file, not a folder");
    ref->text = g_strconcat("file:", path, NULL);
    ref->path = g_steal_pointer(&path);
    return true;
}

static bool parse_vault(const char *rest, struct sm_ref *ref, GError **error)
{
    const char *hash = strchr(rest, '#');
    g_autofree char *path = hash ? g_strndup(rest, (gsize)(hash - rest)) : NULL;

    if (!path || !vault_path(path) || !vault_text(hash + 1, "-_.~+=@:,") || strlen(hash + 1) > SM_REF_FIELD_MAX)
        return refuse(error, "vault: wants PATH#FIELD behind it, as in vault:secret/openai#key (not shown, in case it "
                             "is a secret)");
    ref->text = g_strconcat("vault:", rest, NULL);
    ref->path = g_steal_pointer(&path);
    ref->field = g_strdup(hash + 1);
    return true;
}

bool sm_ref_parse(const char *text, size_t len, const char *folder, struct sm_ref *ret, GError **error)
{
    struct sm_ref ref = {0};
    bool ok = false;

    if (len == 0)
        return refuse(error, "empty: write env:NAME, file:PATH or vault:PATH#FIELD");
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return refuse(error, "a NUL or control character is in it (not shown, in case it is a secret): write "
                                 "env:NAME, file:PATH or vault:PATH#FIELD");
    g_autofree char *copy = g_strndup(text, len);
    if (g_str_has_prefix(copy, "env:")) {
        ref.kind = SM_REF_ENV;
        ok = parse_env(copy + strlen("env:"), &ref, error);
    } else if (g_str_has_prefix(copy, "file:")) {
        ref.kind = SM_REF_FILE;
        ok = parse_file(copy + strlen("file:"), folder, &ref, error);
    } else if (g_str_has_prefix(copy, "vault:")) {
        ref.kind = SM_REF_VAULT;
        ok = parse_vault(copy + strlen("vault:"), &ref, error);
    } else {
        refuse(error, "not a reference (not shown, in case it is a secret): a secret is never written down here; write "
                      "where it is, as env:NAME, file:PATH or vault:PATH#FIELD");
    }
    if (ok)
        *ret = ref;
    return ok;
}

void sm_ref_clear(struct sm_ref *ref)
{
    g_free(ref->text);
    g_free(ref->name);
    g_free(ref->path);
    g_free(ref->field);
    *ref = (struct sm_ref){0};
}
