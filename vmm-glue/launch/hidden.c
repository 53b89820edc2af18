/* SPDX-License-Identifier: BSD-3-Clause */
/* Which folders are the credentials' own; see hidden.h. */
#include "launch/hidden.h"

#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool same_folder(const struct stat *st, const char *path)
{
    struct stat other;

    return path && stat(path, &other) == 0 && other.st_dev == st->st_dev && other.st_ino == st->st_ino;
}

/* Is it a path of one of the files, as they are written or where their links lead? */
static bool is_file(const char *path, char *const *files)
{
    for (char *const *f = files; *f; f++) {
        char *real = realpath(*f, NULL);
        bool same = strcmp(path, *f) == 0 || (real && strcmp(path, real) == 0);
        free(real);
        if (same)
            return true;
    }
    return false;
}

/* @folder: as a file's path has it. */
static bool is_their_own(const char *folder, char *const *files, const char *cwd, const char *home)
{
    struct stat st;
    const char *name;

    if (stat(folder, &st) < 0 || !S_ISDIR(st.st_mode) || (st.st_uid != geteuid() && st.st_uid != 0) ||
        (st.st_mode & (S_IWGRP | S_IWOTH)) || same_folder(&st, cwd) || same_folder(&st, home) || same_folder(&st, "/"))
        return false;
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        if (!is_file(path, files))
            return false;
    }
    return dir != NULL;
}

static void add(GPtrArray *list, char *path)
{
    if (g_ptr_array_find_with_equal_func(list, path, g_str_equal, NULL))
        g_free(path);
    else
        g_ptr_array_add(list, path);
}

char **sm_hidden_paths(char *const *files, const char *cwd, const char *home)
{
    GPtrArray *list = g_ptr_array_new();

    for (char *const *f = files; *f; f++) {
        char *real = realpath(*f, NULL);
        const char *ways[] = {*f, real};
        add(list, g_strdup(*f));
        for (size_t i = 0; i < SM_ARRAY_LEN(ways) && ways[i]; i++) {
            g_autofree char *folder = g_path_get_dirname(ways[i]);
            if (is_their_own(folder, files, cwd, home))
                add(list, g_strdup(folder));
        }
        free(real);
    }
    g_ptr_array_add(list, NULL);
    return (char **)(void *)g_ptr_array_free(list, FALSE);
}

const char *sm_hidden_open(char *const *files, char *const *hidden)
{
    for (char *const *f = files; *f; f++) {
        g_autofree char *folder = g_path_get_dirname(*f);
        if (!g_strv_contains((const char *const *)hidden, folder))
            return *f;
    }
    return NULL;
}
