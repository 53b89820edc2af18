/* SPDX-License-Identifier: BSD-3-Clause */
/* Runs a fuzz target over the files of its corpus, so that every crash ever found stays a test without libFuzzer. */
#include <glib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
    g_autofree char *data = NULL;
    gsize len = 0;
    if (!g_file_get_contents(path, &data, &len, NULL)) {
        fprintf(stderr, "cannot read %s\n", path);
        return 1;
    }
    /* A copy of the exact size, so that ASan sees one byte too many. */
    uint8_t *exact = malloc(len ? len : 1);
    if (!exact)
        abort();
    for (gsize i = 0; i < len; i++)
        exact[i] = (uint8_t)data[i];
    LLVMFuzzerTestOneInput(exact, len);
    free(exact);
    return 0;
}

int main(int argc, char **argv)
{
    unsigned count = 0;
    int failed = 0;

    for (int i = 1; i < argc; i++) {
        GDir *dir = g_dir_open(argv[i], 0, NULL);
        if (!dir) {
            failed |= replay(argv[i]);
            count++;
            continue;
        }
        const char *name;
        while ((name = g_dir_read_name(dir))) {
            g_autofree char *path = g_build_filename(argv[i], name, NULL);
            failed |= replay(path);
            count++;
        }
        g_dir_close(dir);
    }
    printf("%u inputs replayed\n", count);
    return failed || count == 0;
}
