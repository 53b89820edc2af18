/* SPDX-License-Identifier: BSD-3-Clause */
/* This machine's certificates; see roots.h. */
#include "supervisor/roots.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"

static const char *const known_paths[] = {
    "/etc/ssl/certs/ca-certificates.crt",                /* Debian, Alpine, Arch */
    "/etc/pki/tls/certs/ca-bundle.crt",                  /* Fedora */
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", /* Fedora, newer */
    "/etc/ssl/ca-bundle.pem",                            /* SUSE */
    "/etc/ssl/cert.pem",                                 /* Alpine without the ca-certificates package */
};

char **sm_roots_paths(const char *preferred)
{
    char **paths = g_new0(char *, SM_ARRAY_LEN(known_paths) + 2);
    size_t n = 0;

    if (preferred && preferred[0] == '/') /* a relative one means another file wherever we are */
        paths[n++] = g_strdup(preferred);
    for (size_t i = 0; i < SM_ARRAY_LEN(known_paths); i++)
        paths[n++] = g_strdup(known_paths[i]);
    return paths;
}

/** 1 and *ret, 0 when there is no such file, -1 with why. */
static int try_path(const char *path, int *ret, const char **ret_why)
{
    struct stat st;
    size_t len;
    sm_autofd fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (fd < 0 || fstat(fd, &st) < 0) {
        *ret_why = strerror(errno);
        return -1;
    }
    if (!S_ISREG(st.st_mode) || st.st_size == 0 || st.st_size > SM_ROOTS_MAX) {
        *ret_why = S_ISREG(st.st_mode) ? (st.st_size ? "larger than 4 MiB" : "empty") : "not a regular file";
        return -1;
    }
    g_autofree char *text = sm_fd_read_all(fd, SM_ROOTS_MAX, &len, NULL);
    sm_autofd copy = text ? sm_fd_memfd("roots", text, len, NULL) : -1;
    if (copy < 0) {
        *ret_why = "cannot be read";
        return -1;
    }
    /* A memfd is open for writing too (its seals refuse it): hand out one that is not. */
    g_autofree char *again = g_strdup_printf("/proc/self/fd/%d", copy);
    *ret = open(again, O_RDONLY | O_CLOEXEC);
    if (*ret < 0)
        *ret = sm_steal_fd(&copy); /* without /proc */
    return 1;
}

int sm_roots_open(char *const *paths, const char **ret_path, GError **error)
{
    g_autoptr(GString) wrong = g_string_new(NULL);

    for (; *paths; paths++) {
        const char *why = "";
        int fd = -1;
        int r = try_path(*paths, &fd, &why);
        if (r > 0) {
            if (ret_path)
                *ret_path = *paths;
            return fd;
        }
        if (r < 0)
            g_string_append_printf(wrong, "%s%s: %s", wrong->len ? "; " : "", *paths, why);
    }
    if (wrong->len)
        sm_error_set(error, SM_ERROR_MISSING, "certificates that this machine trusts: %s", wrong->str);
    else
        sm_error_set(error, SM_ERROR_MISSING,
                     "this machine has no file of certificates that it trusts (install ca-certificates)");
    return -1;
}
