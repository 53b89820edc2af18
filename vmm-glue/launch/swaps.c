/* SPDX-License-Identifier: BSD-3-Clause */
/* The flags of credential swap; see swaps.h. */
#include "launch/swaps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "cred/jwt.h"
#include "cred/provider.h"
#include "cred/token.h"
#include "cred/vault.h"
#include "launch/cafile.h"

#define HTTPS_PORT 443

char *sm_option_read_file(const char *path, size_t max, size_t *ret_len, GError **error)
{
    struct stat st;
    sm_autofd fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0 || fstat(fd, &st) < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "cannot be read: %s", strerror(errno));
        return NULL;
    }
    if (!S_ISREG(st.st_mode)) {
        sm_error_set(error, SM_ERROR_INVALID, "not a regular file");
        return NULL;
    }
    return sm_fd_read_all(fd, max, ret_len, error);
}

/* ---- reading ---- */

static const char *variable(const char *name, void *data)
{
    (void)data;
    return getenv(name);
}

static bool read_config(struct sm_run_options *o, const char *file, GError **error)
{
    g_autofree char *shown = g_utf8_make_valid(file, -1);
    g_autofree char *dir = g_path_get_dirname(file);
    g_autofree char *folder = g_canonicalize_filename(dir, NULL);
    struct sm_swap_source source = {.file = shown, .folder = folder, .variable = variable};
    size_t len;

    g_autofree char *data = sm_option_read_file(file, SM_SWAP_FILE_MAX, &len, error);
    if (!data) {
        g_prefix_error(error, "--egress-swap-config=%.200s: ", shown);
        return false;
    }
    struct sm_swaps *swaps = sm_swaps_parse(&source, data, len, error);
    if (!swaps) {
        g_prefix_error(error, "--egress-swap-config: "); /* the parser names file and line */
        return false;
    }
    sm_swaps_free(o->swaps);
    o->swaps = swaps;
    return true;
}

static bool add_provider(struct sm_run_options *o, const char *value, GError **error)
{
    const char *equals = strchr(value, '=');
    g_autofree char *name = equals ? g_strndup(value, (gsize)(equals - value)) : g_strdup(value);
    const struct sm_provider *provider = sm_provider_find(name);
    g_autofree char *cwd = g_get_current_dir();

    if (!provider) {
        g_autofree const char **words = g_new(const char *, sm_n_providers);
        g_autoptr(GString) all = g_string_new(NULL);
        for (size_t i = 0; i < sm_n_providers; i++) {
            words[i] = sm_providers[i].name;
            g_string_append_printf(all, "%s%s", i ? ", " : "", words[i]);
        }
        /* A misspelt provider is near one; what is not may be a key, and is not shown. */
        const char *like = sm_option_suggest(name, words, sm_n_providers);
        if (like)
            sm_error_set(error, SM_ERROR_INVALID, "--cred-swap: no such provider; did you mean %s? (there are %s)",
                         like, all->str);
        else
            sm_error_set(error, SM_ERROR_INVALID,
                         "--cred-swap: no such provider: write PROVIDER or PROVIDER=REF, with one of %s", all->str);
        return false;
    }
    g_autofree char *place = g_strconcat("--cred-swap=", provider->name, NULL);
    if (!sm_swaps_add_provider(o->swaps, provider, equals ? equals + 1 : NULL, cwd, place, error))
        return false;
    if (!sm_lists_add_text(o->lists, SM_LIST_ALLOW, provider->host, error) ||
        !sm_lists_add_text(o->flag_lists, SM_LIST_ALLOW, provider->host, error)) {
        g_prefix_error(error, "%s: ", place);
        return false;
    }
    return true;
}

/* ---- can it apply? ---- */

static bool refuse(const struct sm_swap *swap, const struct sm_swap_domain *domain, GError **error, const char *fmt,
                   ...) SM_PRINTF(4, 5);

static bool refuse(const struct sm_swap *swap, const struct sm_swap_domain *domain, GError **error, const char *fmt,
                   ...)
{
    bool flag = g_str_has_prefix(domain->place, "--");
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    sm_error_set(error, SM_ERROR_INVALID, "%s%s: swap '%s': '%s' %s",
                 flag ? "" : "--egress-swap-config: ", domain->place, swap->name, domain->text, text);
    return false;
}

/* On this port: allowed, so that its TLS is intercepted? */
static bool applies_at(const struct sm_lists *lists, const char *name, uint16_t port)
{
    struct sm_match m = sm_lists_name(lists, name, port);
    return m.entry && m.list == SM_LIST_ALLOW && !sm_lists_deny_name(lists, name, port);
}

static bool check_exact(const struct sm_lists *lists, const struct sm_swap *swap, const struct sm_swap_domain *d,
                        GError **error)
{
    const char *name = d->entry.name;
    char text[SM_ENTRY_STRLEN];

    if (applies_at(lists, name, HTTPS_PORT))
        return true;
    for (size_t i = 0; i < sm_lists_count(lists, SM_LIST_ALLOW); i++) {
        const struct sm_entry *e = sm_lists_get(lists, SM_LIST_ALLOW, i);
        if (e->port != 0 && applies_at(lists, name, e->port))
            return true;
    }
    /* What to say: the usual port first, then whatever else lists the name. */
    struct sm_match m = sm_lists_name(lists, name, HTTPS_PORT);
    const struct sm_entry *deny = sm_lists_deny_name(lists, name, HTTPS_PORT);
    if (!m.entry)
        m = sm_lists_name(lists, name, SM_LISTS_ANY_PORT);
    if (!m.entry)
        return refuse(swap, d, error, "is not listed: add --egress-allow %s", d->text);
    if (!deny && m.entry->port != 0)
        deny = sm_lists_deny_name(lists, name, m.entry->port);
    if (deny)
        return refuse(swap, d, error, "is denied by '%s': nothing can be put into its requests",
                      sm_entry_format(deny, text));
    return refuse(swap, d, error, "is passthrough by '%s': its TLS is left alone, and nothing can be put into it",
                  sm_entry_format(m.entry, text));
}

/* A suffix entry that covers the whole of the domain, at a port. */
static bool covers(const struct sm_entry *e, const struct sm_swap_domain *d, uint16_t port)
{
    return e->kind == SM_ENTRY_SUFFIX && (e->port == 0 || e->port == port) && sm_name_under(d->entry.name, e->name);
}

static bool check_suffix(const struct sm_lists *lists, const struct sm_swap *swap, const struct sm_swap_domain *d,
                         GError **error)
{
    const struct sm_entry *in_the_way = NULL;
    bool listed = false, denied = false;
    char text[SM_ENTRY_STRLEN];

    for (size_t i = 0; i < sm_lists_count(lists, SM_LIST_ALLOW); i++) {
        const struct sm_entry *allow = sm_lists_get(lists, SM_LIST_ALLOW, i);
        uint16_t port = allow->port ? allow->port : HTTPS_PORT;
        bool beaten = false;
        if (!covers(allow, d, port))
            continue;
        listed = true;
        for (size_t k = 0; k < sm_lists_count(lists, SM_LIST_PASSTHROUGH) && !beaten; k++) {
            const struct sm_entry *e = sm_lists_get(lists, SM_LIST_PASSTHROUGH, k);
            if (covers(e, d, port) && sm_entry_specificity_cmp(e, allow) >= 0) {
                in_the_way = e;
                denied = false;
                beaten = true;
            }
        }
        for (size_t k = 0; k < sm_lists_count(lists, SM_LIST_DENY) && !beaten; k++) {
            const struct sm_entry *e = sm_lists_get(lists, SM_LIST_DENY, k);
            if (covers(e, d, port)) {
                in_the_way = e;
                denied = beaten = true;
            }
        }
        if (!beaten)
            return true;
    }
    if (!listed)
        return refuse(swap, d, error, "is not listed as a whole: add --egress-allow %s", d->text);
    if (denied)
        return refuse(swap, d, error, "is denied by '%s': nothing can be put into its requests",
                      sm_entry_format(in_the_way, text));
    return refuse(swap, d, error, "is passthrough by '%s': its TLS is left alone, and nothing can be put into it",
                  sm_entry_format(in_the_way, text));
}

bool sm_option_swaps_apply(const struct sm_swaps *swaps, const struct sm_lists *lists, GError **error)
{
    for (size_t i = 0; i < sm_swaps_count(swaps); i++) {
        const struct sm_swap *s = sm_swaps_get(swaps, i);
        for (size_t k = 0; k < s->n_domains; k++) {
            const struct sm_swap_domain *d = &s->domains[k];
            bool ok =
                d->entry.kind == SM_ENTRY_HOST ? check_exact(lists, s, d, error) : check_suffix(lists, s, d, error);
            if (!ok)
                return false;
        }
    }
    return true;
}

/* ---- can it be had? ---- */

/* What the engines want of an entry, before there is any secret. */
static bool check_entry(const struct sm_swap *s, GError **error)
{
    bool ok =
        sm_jwt_claims_check(s->claims, error) &&
        (!s->token_url || sm_token_params_check(s->token_url, (const char *const *)s->scopes, s->audience, error));

    if (!ok)
        g_prefix_error(error,
                       "%s%s: swap '%s': ", g_str_has_prefix(s->place, "--") ? "" : "--egress-swap-config: ", s->place,
                       s->name);
    return ok;
}

static bool check_vault(struct sm_run_options *o, GError **error)
{
    const char *addr = getenv("VAULT_ADDR"), *space = getenv("VAULT_NAMESPACE"), *ca = getenv("VAULT_CACERT");
    const struct sm_ref *ref = NULL;

    for (size_t i = 0; i < sm_swaps_ref_count(o->swaps); i++) {
        const struct sm_ref *r = sm_swaps_ref(o->swaps, i);
        if (r->kind != SM_REF_VAULT)
            continue;
        ref = r;
        if (!sm_vault_path_check(r->path, error) || !sm_vault_field_check(r->field, error)) {
            g_prefix_error(error, "%s: ", r->text);
            return false;
        }
    }
    if (!ref || o->dry_run)
        return true;
    if (!addr || !addr[0]) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "%s: VAULT_ADDR is not set: it says where Vault is, as in https://vault.example.com:8200",
                     ref->text);
        return false;
    }
    if (!sm_vault_addr_check(addr, error)) {
        g_prefix_error(error, "VAULT_ADDR: ");
        return false;
    }
    o->vault_roots = g_string_new(NULL);
    if (ca && ca[0] && sm_ca_file_read(ca, o->vault_roots, error) < 0) {
        g_prefix_error(error, "VAULT_CACERT: ");
        return false;
    }
    o->vault_addr = g_strdup(addr);
    o->vault_namespace = g_strdup(space ? space : "");
    return true;
}

bool sm_option_swaps(struct sm_run_options *o, const char *file, const GPtrArray *cred_swaps, GError **error)
{
    const char *flag = file ? "--egress-swap-config" : "--cred-swap";
    const char *why = NULL;

    if (!file && cred_swaps->len == 0)
        return true;
    if (o->mode == SM_MODE_OFF)
        why = "nothing is judged with --egress off: leave it out, or use --egress guarded or strict";
    else if (o->opaque)
        why = "no TLS is intercepted with --egress-opaque, so nothing can be put into requests: leave one of them out";
    else if (o->net.mode == SM_NETWORK_ISOLATED)
        why = "there are no requests with --network isolated: leave one of them out";
    if (why) {
        sm_error_set(error, SM_ERROR_INVALID, "%s: %s", flag, why);
        return false;
    }
    if (file && !read_config(o, file, error))
        return false;
    for (guint i = 0; i < cred_swaps->len; i++)
        if (!add_provider(o, g_ptr_array_index(cred_swaps, i), error))
            return false;
    for (size_t i = 0; i < sm_swaps_count(o->swaps); i++)
        if (!check_entry(sm_swaps_get(o->swaps, i), error))
            return false;
    return sm_option_swaps_apply(o->swaps, o->lists, error) && check_vault(o, error);
}
