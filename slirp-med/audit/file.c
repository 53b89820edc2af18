/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening and rotating by name. A rotation creates the new file first, under a third name, so that every step that can
 * fail for want of space or descriptors comes before the first rename; see file.h.
 */
#include "audit/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/event.h"
#include "base/error.h"
#include "base/fd.h"

#define OPEN_FLAGS (O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)

/* The folder must be ours alone, or another user could swap the file under us. */
static bool check_folder(int dirfd, GError **error)
{
    struct stat st;
    if (fstat(dirfd, &st) < 0) {
        sm_error_set_errno(error, errno, "audit: cannot stat the workspace's folder");
        return false;
    }
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "audit: the workspace's folder must be a folder of user %u with mode 0700 (it is of user %u, mode "
                     "%04o): chmod 700 it",
                     (unsigned)geteuid(), (unsigned)st.st_uid, (unsigned)(st.st_mode & 07777));
        return false;
    }
    return true;
}

static bool check_file(int fd, const char *name, GError **error)
{
    struct stat st;
    if (fstat(fd, &st) < 0) {
        sm_error_set_errno(error, errno, "audit: cannot stat %s", name);
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        sm_error_set(error, SM_ERROR_INVALID, "audit: %s is not a regular file: move it away", name);
        return false;
    }
    if (st.st_uid != geteuid() || (st.st_mode & 077) != 0) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "audit: %s must belong to user %u with mode 0600 (it is of user %u, mode %04o): move it away",
                     name, (unsigned)geteuid(), (unsigned)st.st_uid, (unsigned)(st.st_mode & 07777));
        return false;
    }
    if (st.st_nlink != 1) {
        sm_error_set(error, SM_ERROR_INVALID, "audit: %s has %lu hard links, one is expected: move it away", name,
                     (unsigned long)st.st_nlink);
        return false;
    }
    return true;
}

static int open_checked(int dirfd, const char *name, int flags, GError **error)
{
    sm_autofd fd = openat(dirfd, name, flags | OPEN_FLAGS, 0600);
    if (fd < 0) {
        int err = errno;
        if (err == ELOOP)
            sm_error_set(error, SM_ERROR_INVALID, "audit: %s is a symbolic link: move it away", name);
        else
            sm_error_set_errno(error, err, "audit: cannot open %s", name);
        errno = err;
        return -1;
    }
    if (!check_file(fd, name, error)) {
        errno = EINVAL;
        return -1;
    }
    return sm_steal_fd(&fd);
}

static bool rotated_seq(int dirfd, uint64_t *ret_seq, GError **error)
{
    uint64_t seq = 0;
    sm_autofd fd = open_checked(dirfd, SM_AUDIT_FILE_ROTATED, O_RDONLY, error);
    if (fd < 0) {
        if (errno != ENOENT)
            return false;
        g_clear_error(error);
    } else if (sm_audit_last_seq(fd, &seq, NULL, NULL) < 0) {
        sm_error_set_errno(error, errno, "audit: cannot read %s", SM_AUDIT_FILE_ROTATED);
        return false;
    }
    *ret_seq = seq;
    return true;
}

int sm_audit_open(int dirfd, uint64_t *ret_seq_floor, GError **error)
{
    /* A local error, because a missing rotated file is none and the caller may pass NULL. */
    g_autoptr(GError) problem = NULL;
    uint64_t floor = 0;
    sm_autofd fd = -1;

    if (check_folder(dirfd, &problem) && (!ret_seq_floor || rotated_seq(dirfd, &floor, &problem)))
        fd = open_checked(dirfd, SM_AUDIT_FILE, O_RDWR | O_APPEND | O_CREAT, &problem);
    if (fd < 0) {
        g_propagate_error(error, g_steal_pointer(&problem));
        return -1;
    }
    if (ret_seq_floor)
        *ret_seq_floor = floor;
    return sm_steal_fd(&fd);
}

int sm_audit_rotate(int dirfd, GError **error)
{
    if (!check_folder(dirfd, error))
        return -1;
    if (unlinkat(dirfd, SM_AUDIT_FILE_NEW, 0) < 0 && errno != ENOENT) {
        sm_error_set_errno(error, errno, "audit: cannot remove a stale %s", SM_AUDIT_FILE_NEW);
        return -1;
    }
    sm_autofd fd = open_checked(dirfd, SM_AUDIT_FILE_NEW, O_RDWR | O_APPEND | O_CREAT | O_EXCL, error);
    if (fd < 0)
        return -1;
    bool had_old = true;
    if (renameat(dirfd, SM_AUDIT_FILE, dirfd, SM_AUDIT_FILE_ROTATED) < 0) {
        had_old = errno != ENOENT;
        if (had_old) {
            sm_error_set_errno(error, errno, "audit: cannot rename %s to %s", SM_AUDIT_FILE, SM_AUDIT_FILE_ROTATED);
            (void)unlinkat(dirfd, SM_AUDIT_FILE_NEW, 0);
            return -1;
        }
    }
    if (renameat(dirfd, SM_AUDIT_FILE_NEW, dirfd, SM_AUDIT_FILE) < 0) {
        sm_error_set_errno(error, errno, "audit: cannot rename %s to %s", SM_AUDIT_FILE_NEW, SM_AUDIT_FILE);
        if (had_old)
            (void)renameat(dirfd, SM_AUDIT_FILE_ROTATED, dirfd, SM_AUDIT_FILE);
        (void)unlinkat(dirfd, SM_AUDIT_FILE_NEW, 0);
        return -1;
    }
    return sm_steal_fd(&fd);
}

bool sm_audit_is_current(int dirfd, int fd)
{
    struct stat a, b;
    return fstatat(dirfd, SM_AUDIT_FILE, &a, AT_SYMLINK_NOFOLLOW) == 0 && fstat(fd, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* pread(2) until n bytes are there; a file that is shorter than it was is EIO. */
static int read_at(int fd, char *buf, size_t n, uint64_t offset)
{
    while (n > 0) {
        ssize_t got = pread(fd, buf, n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            if (got == 0)
                errno = EIO;
            return -1;
        }
        buf += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

int sm_audit_last_seq(int fd, uint64_t *ret_seq, uint64_t *ret_size, uint64_t *ret_torn)
{
    enum { CHUNK = 65536, HEAD = 96 /* what sm_audit_parse_head() looks at: 35 + 27 + 10 */ };
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -1;

    const uint64_t size = (uint64_t)st.st_size;
    /* One byte before the chunk (is it a newline?) and a head's length behind it. */
    g_autofree char *buf = g_malloc(1 + CHUNK + HEAD);
    bool newline_seen = false;
    uint64_t torn = size, hi = size, seq = 0;
    int found = 0;

    while (hi > 0 && !found) {
        uint64_t lo = hi > CHUNK ? hi - CHUNK : 0;
        uint64_t from = lo > 0 ? lo - 1 : 0;
        uint64_t to = SM_MIN(hi + HEAD, size);
        if (read_at(fd, buf, (size_t)(to - from), from) < 0)
            return -1;
        for (uint64_t p = hi; p-- > lo && !found;) {
            /* p is a byte of the chunk; a line starts there when it is the first or follows a newline. */
            if (newline_seen && (p == 0 || buf[p - 1 - from] == '\n') &&
                sm_audit_parse_head(buf + (p - from), (size_t)(to - p), &seq))
                found = 1;
            if (!newline_seen && buf[p - from] == '\n') {
                newline_seen = true;
                torn = size - p - 1;
                /* An empty line is no line of ours; go on with what ends here. */
            }
        }
        hi = lo;
    }
    if (ret_size)
        *ret_size = size;
    if (ret_torn)
        *ret_torn = torn;
    if (found)
        *ret_seq = seq;
    return found;
}
