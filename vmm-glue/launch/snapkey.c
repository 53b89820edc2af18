/* SPDX-License-Identifier: BSD-3-Clause */
/* The operator's key for snapshots; see snapkey.h. */
#include "launch/snapkey.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "launch/snapfile.h"

#define HEX_LEN (2 * SM_SNAPSHOT_KEY_BYTES)

static struct sm_secret *parse(const struct sm_secret *text)
{
    size_t len;
    const uint8_t *p = sm_secret_bytes(text, &len);
    uint8_t key[SM_SNAPSHOT_KEY_BYTES];
    struct sm_secret *s = NULL;
    size_t i;

    if (len != HEX_LEN + 1 || p[HEX_LEN] != '\n')
        return NULL;
    for (i = 0; i < sizeof(key) && g_ascii_isxdigit((char)p[2 * i]) && g_ascii_isxdigit((char)p[2 * i + 1]); i++)
        key[i] = (uint8_t)(g_ascii_xdigit_value((char)p[2 * i]) << 4 | g_ascii_xdigit_value((char)p[2 * i + 1]));
    if (i == sizeof(key))
        s = sm_secret_new(key, sizeof(key));
    sm_wipe(key, sizeof(key));
    return s;
}

/** errno is told apart by the caller: ENOENT. */
static struct sm_secret *read_key(int dirfd, const char *name, const char *shown, GError **error)
{
    struct stat st;
    sm_autofd fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0 || fstat(fd, &st) < 0) {
        int saved = errno;
        sm_error_set(error, SM_ERROR_INVALID, "%s: %s", shown, strerror(saved));
        errno = saved;
        return NULL;
    }
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077)) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "%s: a key that others could know or exchange: it has to be a file of yours with mode 0600",
                     shown);
        errno = EPERM;
        return NULL;
    }
    sm_cleanup(sm_secret_freep) struct sm_secret *text = sm_secret_read(fd, HEX_LEN + 1);
    struct sm_secret *key = text ? parse(text) : NULL;
    if (!key)
        sm_error_set(error, SM_ERROR_INVALID, "%s: not a snapshot key: it is 64 hex digits and a newline", shown);
    errno = EPERM;
    return key;
}

/* Written under another name and linked: whoever loses the race reads the winner's, and nobody reads half of one. */
static bool make_key(int base_fd, const char *shown, GError **error)
{
    uint8_t key[SM_SNAPSHOT_KEY_BYTES];
    char hex[HEX_LEN + 2];
    g_autofree char *name = g_strdup_printf(SM_SNAPSHOT_KEY_FILE ".%d", (int)getpid());

    if (getrandom(key, sizeof(key), 0) != (ssize_t)sizeof(key)) {
        sm_error_set_errno(error, errno, "random bytes for %s", shown);
        return false;
    }
    for (size_t i = 0; i < sizeof(key); i++)
        (void)g_snprintf(hex + 2 * i, 3, "%02x", key[i]);
    sm_wipe(key, sizeof(key));
    memcpy(hex + HEX_LEN, "\n", 2);
    (void)unlinkat(base_fd, name, 0); /* of a process that had our number and was killed */
    sm_autofd fd = openat(base_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && sm_fd_write_all(fd, hex, HEX_LEN + 1) == 0 &&
              (linkat(base_fd, name, base_fd, SM_SNAPSHOT_KEY_FILE, 0) == 0 || errno == EEXIST);
    if (!ok)
        sm_error_set_errno(error, errno, "make %s", shown);
    sm_wipe(hex, sizeof(hex));
    if (fd >= 0)
        (void)unlinkat(base_fd, name, 0);
    return ok;
}

struct sm_secret *sm_snapshot_key(int base_fd, const char *base, bool make, GError **error)
{
    g_autofree char *shown = g_build_filename(base, SM_SNAPSHOT_KEY_FILE, NULL);
    GError *local = NULL;
    struct sm_secret *key = read_key(base_fd, SM_SNAPSHOT_KEY_FILE, shown, &local);

    if (key)
        return key;
    if (errno != ENOENT) {
        g_propagate_error(error, local);
        return NULL;
    }
    g_error_free(local);
    if (!make) {
        sm_error_set(
            error, SM_ERROR_MISSING,
            "there is no %s yet, so the snapshot is from elsewhere: give the key it was made with, --key-file FILE",
            shown);
        return NULL;
    }
    return make_key(base_fd, shown, error) ? read_key(base_fd, SM_SNAPSHOT_KEY_FILE, shown, error) : NULL;
}

struct sm_secret *sm_snapshot_key_file(const char *path, GError **error)
{
    g_autofree char *shown = g_utf8_make_valid(path, -1);
    return read_key(AT_FDCWD, path, shown, error);
}
