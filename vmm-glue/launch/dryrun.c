/* SPDX-License-Identifier: BSD-3-Clause */
/* What a start would do; see dryrun.h. The text is made of the JSON and of nothing else. */
#include "launch/dryrun.h"
#include "launch/messages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- what the host has ---- */

static bool variable_set(const char *name)
{
    const char *value = getenv(name);
    return value && value[0];
}

/* Vault is asked at run time; what is needed to ask it is looked for now. */
static char *vault_problem(void)
{
    static const char *const needed[] = {"VAULT_ADDR", "VAULT_TOKEN"};

    for (size_t i = 0; i < SM_ARRAY_LEN(needed); i++)
        if (!variable_set(needed[i]))
            return g_strdup_printf("%s is not set", needed[i]);
    return NULL;
}

/* @ret_present: is there something to read? The problem may be that others can read it too. */
static char *file_problem(const char *path, bool *ret_present)
{
    struct stat st;

    *ret_present = false;
    if (stat(path, &st) < 0)
        return g_strdup(errno == ENOENT ? "no such file" : strerror(errno));
    if (!S_ISREG(st.st_mode))
        return g_strdup("not a regular file");
    if (access(path, R_OK) < 0)
        return g_strdup_printf("cannot be read: %s", strerror(errno));
    if (st.st_size == 0)
        return g_strdup("empty");
    *ret_present = true;
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return g_strdup_printf("belongs to another user (%u), who can change it", (unsigned)st.st_uid);
    if (st.st_mode & 077)
        return g_strdup_printf("mode %04o: others may use it; chmod 600 it", (unsigned)st.st_mode & 07777);
    return NULL;
}

static void add_ref(json_t *refs, const char *key, const struct sm_ref *ref)
{
    g_autofree char *problem = NULL;
    json_t *present = NULL;
    bool there = false;

    if (!ref)
        return;
    switch (ref->kind) {
    case SM_REF_ENV:
        there = variable_set(ref->name);
        if (!there)
            problem = g_strdup(getenv(ref->name) ? "empty" : "not set");
        break;
    case SM_REF_FILE:
        problem = file_problem(ref->path, &there);
        break;
    case SM_REF_VAULT:
        problem = vault_problem();
        if (!problem)
            present = json_null();
        break;
    case SM_REF_KINDS:
        break;
    }
    if (!present)
        present = json_boolean(there);
    (void)json_array_append_new(
        refs, json_pack("{s:s, s:s, s:o, s:s?}", "key", key, "ref", ref->text, "present", present, "problem", problem));
}

/* ---- what would be done ---- */

static json_t *swap_json(const struct sm_swap *s)
{
    json_t *domains = json_array(), *refs = json_array();
    g_autofree char *url = s->token_url ? g_strndup(s->token_url, strcspn(s->token_url, "?")) : NULL;

    for (size_t i = 0; i < s->n_domains; i++)
        (void)json_array_append_new(domains, json_string(s->domains[i].text));
    add_ref(refs, "key_ref", s->key_ref);
    add_ref(refs, "client_id_ref", s->client_id_ref);
    add_ref(refs, "client_secret_ref", s->client_secret_ref);
    add_ref(refs, "signing_key_ref", s->signing_key_ref);
    return json_pack("{s:s, s:s, s:o, s:s, s:s, s:b, s:b, s:s?, s:o}", "name", s->name, "type",
                     sm_swap_type_name(s->type), "domains", domains, "header", s->header, "format", s->format,
                     "placeholder", s->placeholder != NULL, "scrub", (int)s->scrub, "token_url", url, "refs", refs);
}

static json_t *strv_json(char **list)
{
    json_t *a = json_array();
    for (size_t i = 0; list[i]; i++)
        (void)json_array_append_new(a, json_string(list[i]));
    return a;
}

json_t *sm_dry_run(const struct sm_run_options *o)
{
    json_t *swaps = json_array(), *dns = json_array(), *warnings = json_array(), *publishes = json_array();
    g_auto(GStrv) variables = sm_swaps_hidden_variables(o->swaps), files = sm_swaps_hidden_files(o->swaps);
    char text[SM_ENDPOINT_STRLEN];

    for (size_t i = 0; i < sm_swaps_count(o->swaps); i++)
        (void)json_array_append_new(swaps, swap_json(sm_swaps_get(o->swaps, i)));
    for (size_t i = 0; i < o->n_dns; i++)
        (void)json_array_append_new(dns, json_string(sm_endpoint_format(&o->dns[i], text)));
    for (guint i = 0; i < o->publishes->len; i++)
        (void)json_array_append_new(publishes, sm_publish_json(&g_array_index(o->publishes, struct sm_publish, i)));
    for (guint i = 0; i < o->warnings->len; i++)
        (void)json_array_append_new(warnings, json_string(g_ptr_array_index(o->warnings, i)));
    return json_pack(
        "{s:s?, s:s, s:b, s:b, s:s, s:o, s:o, s:s, s:i, s:{s:I, s:I, s:I, s:I}, s:o, s:o, s:{s:o, s:o}, s:o}",
        "workspace", o->name_generated ? NULL : o->name, "mode", sm_mode_name(o->mode), "opaque", (int)o->opaque,
        "intercepts", (int)sm_run_options_intercepts(o), "network", sm_network_mode_name(o->net.mode), "plan",
        sm_message_network(o), "publishes", publishes, "datapath",
        o->command == SM_COMMAND_PROXY ? "proxy" : sm_datapath_name(o->datapath), "mtu", (int)o->net.mtu, "lists",
        "allow", (json_int_t)sm_lists_count(o->lists, SM_LIST_ALLOW), "passthrough",
        (json_int_t)sm_lists_count(o->lists, SM_LIST_PASSTHROUGH), "deny",
        (json_int_t)sm_lists_count(o->lists, SM_LIST_DENY), "inside", (json_int_t)o->inside->len, "dns", dns, "swaps",
        swaps, "hidden", "variables", strv_json(variables), "files", strv_json(files), "warnings", warnings);
}

/* ---- the same for people ---- */

enum { NAME, TYPE, HOSTS, HEADER, FORMAT, REFERENCE, PRESENT, COLUMNS };

/** Rows of cells; owned by the table. */
struct table {
    GPtrArray *cells; /* char *, COLUMNS a row */
    glong width[COLUMNS];
};

static void add_row(struct table *t, const char *const cells[COLUMNS])
{
    for (int i = 0; i < COLUMNS; i++) {
        char *cell = g_strdup(cells[i] ? cells[i] : "");
        t->width[i] = SM_MAX(t->width[i], g_utf8_strlen(cell, -1));
        g_ptr_array_add(t->cells, cell);
    }
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "";
}

static char *present_text(const json_t *ref)
{
    const json_t *present = json_object_get(ref, "present");
    const char *word = json_is_null(present) ? "not asked" : json_is_true(present) ? "yes" : "no";
    const char *problem = json_string_value(json_object_get(ref, "problem"));

    return problem ? g_strdup_printf("%s (%s)", word, problem) : g_strdup(word);
}

/* A row for each host and each reference, whichever are more. */
static void add_swap(struct table *t, const json_t *swap)
{
    const json_t *domains = json_object_get(swap, "domains"), *refs = json_object_get(swap, "refs");
    size_t n = SM_MAX(json_array_size(domains), json_array_size(refs));

    for (size_t i = 0; i < n; i++) {
        const json_t *ref = json_array_get(refs, i);
        g_autofree char *present = ref ? present_text(ref) : NULL;
        g_autofree char *shown = NULL;
        if (ref)
            shown = json_array_size(refs) > 1 ? g_strdup_printf("%s %s", text_of(ref, "key"), text_of(ref, "ref"))
                                              : g_strdup(text_of(ref, "ref"));
        const char *cells[COLUMNS] = {
            [HOSTS] = json_string_value(json_array_get(domains, i)), [REFERENCE] = shown, [PRESENT] = present};
        if (i == 0) {
            cells[NAME] = text_of(swap, "name");
            cells[TYPE] = text_of(swap, "type");
            cells[HEADER] = text_of(swap, "header");
            cells[FORMAT] = text_of(swap, "format");
        }
        add_row(t, cells);
    }
}

static void append_table(GString *out, const struct table *t)
{
    for (guint i = 0; i < t->cells->len; i++) {
        const char *cell = g_ptr_array_index(t->cells, i);
        bool last = i % COLUMNS == COLUMNS - 1;
        glong pad = last ? 0 : t->width[i % COLUMNS] - g_utf8_strlen(cell, -1) + 2;
        g_string_append_printf(out, "%s%*s", cell, (int)pad, "");
        if (last) {
            while (out->len > 0 && out->str[out->len - 1] == ' ')
                g_string_truncate(out, out->len - 1);
            g_string_append_c(out, '\n');
        }
    }
}

static void append_list(GString *out, const char *title, const json_t *list)
{
    const json_t *item;
    size_t i;

    json_array_foreach(list, i, item)
    {
        g_string_append_printf(out, "%-12s%s\n", i == 0 ? title : "", json_string_value(item));
    }
}

/* What the guest is told. */
static void append_plan(GString *out, const json_t *plan)
{
    if (!json_object_get(plan, "ip"))
        return;
    g_string_append_printf(out, "%-12s%s in %s, gateway %s\n", "guest", text_of(plan, "ip"), text_of(plan, "subnet"),
                           text_of(plan, "gateway"));
    append_list(out, "resolvers", json_object_get(plan, "resolvers"));
    append_list(out, "routes", json_object_get(plan, "routes"));
}

static void append_publishes(GString *out, const json_t *list)
{
    const json_t *p;
    size_t i;

    json_array_foreach(list, i, p)
    {
        g_string_append_printf(
            out, "%-12s%s port %" JSON_INTEGER_FORMAT " to port %" JSON_INTEGER_FORMAT " of the guest\n",
            i == 0 ? "published" : "", text_of(p, "host"), json_integer_value(json_object_get(p, "hostPort")),
            json_integer_value(json_object_get(p, "guestPort")));
    }
}

static json_int_t count_of(const json_t *dry_run, const char *list)
{
    return json_integer_value(json_object_get(json_object_get(dry_run, "lists"), list));
}

char *sm_dry_run_text(const json_t *d)
{
    static const char *const titles[COLUMNS] = {"NAME",   "TYPE",      "HOSTS",       "HEADER",
                                                "FORMAT", "REFERENCE", "ON THIS HOST"};
    const json_t *swaps = json_object_get(d, "swaps"), *hidden = json_object_get(d, "hidden"), *swap;
    struct table t = {.cells = g_ptr_array_new_with_free_func(g_free)};
    GString *out = g_string_new("a dry run: nothing is started, and nothing was made\n\n");
    const char *name = text_of(d, "workspace");
    size_t i;

    g_string_append_printf(out, "%-12s%s\n", "workspace", name[0] ? name : "(a name is generated)");
    g_string_append_printf(out, "%-12s%s\n", "mode", text_of(d, "mode"));
    g_string_append_printf(out, "%-12s%s\n", "TLS",
                           json_is_true(json_object_get(d, "intercepts")) ? "intercepted" : "not intercepted");
    g_string_append_printf(out, "%-12s%s, datapath %s\n", "network", text_of(d, "network"), text_of(d, "datapath"));
    g_string_append_printf(out,
                           "%-12s%" JSON_INTEGER_FORMAT " allowed, %" JSON_INTEGER_FORMAT
                           " passthrough, %" JSON_INTEGER_FORMAT " denied, %" JSON_INTEGER_FORMAT " more inside\n",
                           "lists", count_of(d, "allow"), count_of(d, "passthrough"), count_of(d, "deny"),
                           count_of(d, "inside"));
    append_plan(out, json_object_get(d, "plan"));
    append_publishes(out, json_object_get(d, "publishes"));
    append_list(out, "DNS", json_object_get(d, "dns"));
    append_list(out, "hidden", json_object_get(hidden, "variables"));
    append_list(out, json_array_size(json_object_get(hidden, "variables")) ? "" : "hidden",
                json_object_get(hidden, "files"));
    append_list(out, "warning", json_object_get(d, "warnings"));
    g_string_append(out, json_array_size(swaps) ? "\n" : "\nno credential is swapped\n");
    if (json_array_size(swaps))
        add_row(&t, titles);
    json_array_foreach(swaps, i, swap)
    {
        add_swap(&t, swap);
    }
    append_table(out, &t);
    g_ptr_array_unref(t.cells);
    return g_string_free(out, FALSE);
}
