/* SPDX-License-Identifier: BSD-3-Clause */
/* Sockets and variables that lead out; see guest_env.h. */
#include "paths/guest_env.h"

#include <dirent.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

/** /proc/net/unix of a very busy machine: 100,000 sockets of 160 bytes. */
#define UNIX_TABLE_MAX (16u << 20)

/* Variables that name a socket, a session or a daemon outside. */
static const char *const removed_variables[] = {
    "DBUS_*_ADDRESS", "SSH_AUTH_SOCK",   "SSH_AGENT_PID",   "DOCKER_HOST",    "CONTAINER_HOST",
    "GPG_AGENT_INFO", "XDG_RUNTIME_DIR", "WAYLAND_DISPLAY", "WAYLAND_SOCKET", "DISPLAY",
    "PULSE_SERVER",   "NOTIFY_SOCKET",   "LISTEN_*",        "SLIRP_MED_*",
};

void sm_guest_sockets_parse(char *text, GHashTable *set)
{
    char *save = NULL;

    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        /* Num RefCount Protocol Flags Type St Inode [Path]; '@' begins an abstract name, which is bound to its network
         * namespace. */
        char *p = line;
        for (int field = 0; field < 7 && p; field++) {
            p += strspn(p, " ");
            p = strchr(p, ' ');
        }
        if (!p)
            continue;
        p += strspn(p, " ");
        if (*p == '/')
            (void)g_hash_table_add(set, g_strdup(p));
    }
}

static void add_table(const char *path, GHashTable *set)
{
    sm_autofd fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    g_autofree char *text = sm_fd_read_all(fd, UNIX_TABLE_MAX, NULL, NULL);
    if (text)
        sm_guest_sockets_parse(text, set);
}

/* A daemon in another network namespace (a container engine's, say) may have a socket that our files show. */
static void add_other_namespaces(GHashTable *set)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    DIR *proc = opendir("/proc");
    struct dirent *e;

    while (proc && (e = readdir(proc)) != NULL) {
        char target[64];
        if (!g_ascii_isdigit(e->d_name[0]))
            continue;
        g_autofree char *ns = g_strconcat("/proc/", e->d_name, "/ns/net", NULL);
        ssize_t n = readlink(ns, target, sizeof(target));
        if (n <= 0 || !g_hash_table_add(seen, g_strndup(target, (gsize)n)))
            continue;
        g_autofree char *table = g_strconcat("/proc/", e->d_name, "/net/unix", NULL);
        add_table(table, set);
    }
    if (proc)
        (void)closedir(proc);
}

/** One read of a folder: most have one, and then nothing more. */
#define ENTRIES_LEN 32768
#define DEPTH_MAX 3

struct walk {
    unsigned left; /* entries to be looked at */
    GHashTable *set;
    char entries[DEPTH_MAX + 1][ENTRIES_LEN] __attribute__((aligned(8)));
};

/* Not readdir(3): for each of hundreds of folders that is a stream to be made, at twice the system calls. */
static void walk(struct walk *w, int dir_fd, const char *path, int depth)
{
    sm_autofd fd = openat(dir_fd, dir_fd == AT_FDCWD ? path : strrchr(path, '/') + 1,
                          O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t len;

    while (fd >= 0 && w->left > 0 && (len = getdents64(fd, w->entries[depth], ENTRIES_LEN)) > 0) {
        const struct dirent64 *e;
        for (ssize_t at = 0; at < len && w->left > 0; at += e->d_reclen) {
            e = (const struct dirent64 *)(const void *)(w->entries[depth] + at);
            if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
                continue;
            w->left--;
            unsigned char type = e->d_type;
            struct stat st;
            if (type == DT_UNKNOWN && fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
                type = (unsigned char)IFTODT(st.st_mode);
            if (type != DT_SOCK && (type != DT_DIR || depth == 0))
                continue; /* nearly all of them: nothing is made for these */
            g_autofree char *child = g_strconcat(path, "/", e->d_name, NULL);
            if (type == DT_SOCK)
                (void)g_hash_table_add(w->set, g_steal_pointer(&child));
            else
                walk(w, fd, child, depth - 1);
        }
    }
}

GHashTable *sm_guest_sockets(const char *home)
{
    GHashTable *set = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    const struct {
        const char *path;
        int depth;
    } folders[] = {{"/tmp", 2}, {"/var/tmp", 2}, {home, DEPTH_MAX}};

    add_table("/proc/net/unix", set);
    add_other_namespaces(set);
    g_autofree struct walk *w = g_new(struct walk, 1);
    w->set = set;
    for (size_t i = 0; i < SM_ARRAY_LEN(folders); i++) {
        w->left = SM_GUEST_WALK_MAX;
        if (folders[i].path && folders[i].path[0] == '/' && folders[i].path[1])
            walk(w, AT_FDCWD, folders[i].path, folders[i].depth);
    }
    return set;
}

static bool name_removed(const char *name, char **unset)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(removed_variables); i++)
        if (fnmatch(removed_variables[i], name, 0) == 0)
            return true;
    return unset && g_strv_contains((const char *const *)unset, name);
}

/* The path stands in the value as a whole: not followed by more of a file name. */
static bool value_names(const char *value, const char *path)
{
    size_t len = strlen(path);
    for (const char *at = strstr(value, path); at; at = strstr(at + 1, path)) {
        char next = at[len];
        if (next == '\0' || !(g_ascii_isalnum(next) || strchr("/._-", next)))
            return true;
    }
    return false;
}

static bool value_removed(const char *value, GHashTable *sockets)
{
    GHashTableIter it;
    gpointer path;

    if (!strchr(value, '/'))
        return false;
    g_hash_table_iter_init(&it, sockets);
    while (g_hash_table_iter_next(&it, &path, NULL))
        if (value_names(value, path))
            return true;
    return false;
}

char **sm_guest_environment(char **env, char **unset, GHashTable *sockets)
{
    g_autoptr(GPtrArray) kept = g_ptr_array_new_with_free_func(g_free);

    for (char **e = env; e && *e; e++) {
        const char *equal = strchr(*e, '=');
        if (!equal || equal == *e)
            continue; /* not a variable: nothing that a program could ask for */
        g_autofree char *name = g_strndup(*e, (gsize)(equal - *e));
        if (!name_removed(name, unset) && !value_removed(equal + 1, sockets))
            g_ptr_array_add(kept, g_strdup(*e));
    }
    g_ptr_array_add(kept, NULL);
    return (char **)(void *)g_ptr_array_free(g_steal_pointer(&kept), FALSE);
}
