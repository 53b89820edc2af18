/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The policy file in both formats, one entry, one host field and one name, over the same bytes. Beyond "no crash": what
 * is taken survives a round trip through its canonical text, a refusal has an error that names its place, and a refused
 * file leaves the lists empty.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "policy/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

static void check_entry(const struct sm_entry *entry)
{
    struct sm_entry again;
    char text[SM_ENTRY_STRLEN];
    require(sm_entry_parse(sm_entry_format(entry, text), &again, NULL));
    require(sm_entry_equal(entry, &again));
}

static void check_file(const char *name, const char *data, size_t size)
{
    sm_cleanup(sm_lists_freep) struct sm_lists *lists = sm_lists_new();
    g_autoptr(GError) error = NULL;
    bool ok = sm_policy_file_parse(name, data, size, lists, &error);

    require(ok == (error == NULL));
    require(ok || g_str_has_prefix(error->message, name));
    require(sm_lists_count(lists, SM_LIST_DENY) == 0);
    for (int k = 0; k < SM_LIST_KINDS; k++) {
        size_t n = sm_lists_count(lists, (enum sm_list_kind)k);
        require(ok || n == 0);
        for (size_t i = 0; i < n; i++)
            check_entry(sm_lists_get(lists, (enum sm_list_kind)k, i));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct sm_host host, again;
    struct sm_entry entry;
    g_autofree char *string = g_strndup(text, size);

    check_file("f.yaml", text, size);
    check_file("f.json", text, size);
    if (sm_entry_parse(string, &entry, NULL))
        check_entry(&entry);
    if (sm_name_classify(text, size, &host) != SM_NAME_BAD) {
        require(sm_name_classify(host.name, strlen(host.name), &again) == host.kind);
        require(strcmp(host.name, again.name) == 0);
    }
    if (sm_host_parse(text, size, &host) == SM_NAME_BAD)
        require(host.name[0] == '\0' && host.port == 0);
    return 0;
}
