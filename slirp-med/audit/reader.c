/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Following a file that another process appends to, cuts back after a failed write, and renames.
 *
 * Only whole lines are consumed. Bytes behind the last newline are read again next time, because the writer may have
 * taken them back. Which file comes next is decided by where the one that we hold stands now: it is the current one
 * (wait), the rotated one (the current one is next, as soon as it holds something: until then the writer may still be
 * appending here), or it has no name any more (the rotated one is next, as far as its seqs are new, then the current
 * one).
 */
#include "audit/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/event.h"
#include "audit/file.h"
#include "base/error.h"
#include "base/fd.h"

static const char *const kind_names[] = {
    [SM_AUDIT_LINE_RECORD] = "record",
    [SM_AUDIT_LINE_INVALID] = "invalid",
    [SM_AUDIT_LINE_TORN] = "torn",
};
SM_NAME_TABLE_COVERS(kind_names, SM_AUDIT_LINE_KINDS);

/* Read in one step; more than a line, so that one that is too long is seen as such. */
#define READ_BYTES (4 * SM_AUDIT_LINE_MAX)

struct sm_audit_reader {
    int dirfd;
    int watch;
    int fd;
    bool catching_up; /* lines up to last_seq are skipped: this file may have been read under another name */
    bool last_look;   /* the next file holds lines: one more look at this one, then go on */
    bool skip_long;   /* inside an over-long line that was already reported */
    uint64_t offset;  /* of buf[pos] in the file */
    char *buf;
    size_t pos, len;
    bool ended; /* the last read found the end: what is in buf is an unfinished line */
    uint64_t last_seq;
    json_t *json;
    GString *line;
};

const char *sm_audit_line_kind_name(enum sm_audit_line_kind kind)
{
    return (unsigned)kind < SM_AUDIT_LINE_KINDS ? kind_names[kind] : "unknown";
}

void sm_audit_parse_line(const char *text, size_t len, struct sm_audit_line *ret, json_t **ret_json)
{
    json_error_t ignored;
    json_t *json = NULL;

    if (len < SM_AUDIT_LINE_MAX)
        json = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &ignored);
    if (json && !json_is_object(json)) {
        json_decref(json);
        json = NULL;
    }
    *ret = (struct sm_audit_line){.kind = json ? SM_AUDIT_LINE_RECORD : SM_AUDIT_LINE_INVALID,
                                  .text = text,
                                  .len = len,
                                  .json = json,
                                  .event = ""};
    if (json) {
        const json_t *seq = json_object_get(json, "seq");
        const char *event = json_string_value(json_object_get(json, "event"));
        if (json_is_integer(seq) && json_integer_value(seq) > 0)
            ret->seq = (uint64_t)json_integer_value(seq);
        if (event)
            ret->event = event;
    }
    *ret_json = json;
}

/* ---- files ---- */

static int open_file(struct sm_audit_reader *r, const char *name, GError **error)
{
    struct stat st;
    sm_autofd fd = openat(r->dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        int err = errno;
        if (err == ENOENT)
            return -1;
        sm_error_set_errno(error, err, "cannot open %s", name);
        return -1;
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        sm_error_set(error, SM_ERROR_INVALID, "%s is not a regular file", name);
        return -1;
    }
    return sm_steal_fd(&fd);
}

static void set_file(struct sm_audit_reader *r, int fd, bool catching_up)
{
    sm_fd_close(&r->fd);
    r->fd = fd;
    r->offset = 0;
    r->pos = r->len = 0;
    r->ended = false;
    r->skip_long = false;
    r->last_look = false;
    r->catching_up = catching_up;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* At the end of our file: 1 when another one has been taken up or this one is to be read again, 0 to wait, -1 with
 * error. */
static int advance(struct sm_audit_reader *r, GError **error)
{
    GError *problem = NULL;
    struct stat ours, cur, rot;

    if (r->fd < 0) {
        /* The oldest there is. The current one is opened first: if a rotation comes in between, it is the oldest now.
         */
        sm_autofd current = open_file(r, SM_AUDIT_FILE, &problem);
        sm_autofd rotated = problem ? -1 : open_file(r, SM_AUDIT_FILE_ROTATED, &problem);
        if (problem) {
            g_propagate_error(error, problem);
            return -1;
        }
        if (rotated < 0 && current < 0)
            return 0;
        set_file(r, rotated >= 0 ? sm_steal_fd(&rotated) : sm_steal_fd(&current), false);
        return 1;
    }

    if (fstat(r->fd, &ours) < 0) {
        sm_error_set_errno(error, errno, "fstat");
        return -1;
    }
    if ((uint64_t)ours.st_size < r->offset) { /* cut back behind what we have read: go on from its end */
        r->offset = (uint64_t)ours.st_size;
        r->skip_long = false;
        return 0;
    }
    bool have_cur = fstatat(r->dirfd, SM_AUDIT_FILE, &cur, AT_SYMLINK_NOFOLLOW) == 0;
    if (have_cur && same_file(&cur, &ours))
        return 0;
    bool have_rot = fstatat(r->dirfd, SM_AUDIT_FILE_ROTATED, &rot, AT_SYMLINK_NOFOLLOW) == 0;
    bool we_are_rot = have_rot && same_file(&rot, &ours);
    bool lost_place = !we_are_rot;
    if (we_are_rot && !(have_cur && cur.st_size > 0))
        return 0;
    if (lost_place && !have_cur && !have_rot)
        return 0;
    if (!r->last_look) {
        r->last_look = true;
        return 1;
    }
    if (r->len > 0) /* its torn end first; next() asks again */
        return 1;

    int fd = lost_place && have_rot ? open_file(r, SM_AUDIT_FILE_ROTATED, &problem) : -1;
    bool catching_up = fd >= 0;
    if (fd < 0 && !problem)
        fd = open_file(r, SM_AUDIT_FILE, &problem);
    if (problem) {
        g_propagate_error(error, problem);
        return -1;
    }
    if (fd < 0)
        return 0;
    set_file(r, fd, catching_up);
    return 1;
}

/* More bytes behind those in buf. 1 some, 0 end of file, -1 error. */
static int fill(struct sm_audit_reader *r, GError **error)
{
    if (r->pos > 0) {
        memmove(r->buf, r->buf + r->pos, r->len);
        r->pos = 0;
    }
    ssize_t n;
    do {
        n = pread(r->fd, r->buf + r->len, READ_BYTES - r->len, (off_t)(r->offset + r->len));
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        sm_error_set_errno(error, errno, "read");
        return -1;
    }
    r->len += (size_t)n;
    return n > 0;
}

static void consume(struct sm_audit_reader *r, size_t n)
{
    r->pos += n;
    r->len -= n;
    r->offset += n;
}

/* A finished line of len bytes at buf[pos]; false when it is to be passed over. */
static bool deliver(struct sm_audit_reader *r, size_t len, struct sm_audit_line *ret)
{
    g_string_truncate(r->line, 0);
    g_string_append_len(r->line, r->buf + r->pos, (gssize)len);
    if (r->json)
        json_decref(r->json);
    r->json = NULL;
    sm_audit_parse_line(r->line->str, r->line->len, ret, &r->json);
    if (r->catching_up) {
        if (ret->seq <= r->last_seq) /* also what is no record: it was shown when the file was current */
            return false;
        r->catching_up = false;
    }
    if (ret->seq > 0) {
        if (r->last_seq > 0 && ret->seq > r->last_seq + 1)
            ret->missing = ret->seq - r->last_seq - 1;
        r->last_seq = ret->seq;
    }
    return true;
}

int sm_audit_reader_next(struct sm_audit_reader *r, struct sm_audit_line *ret, GError **error)
{
    /* What was unfinished when the end was met is read afresh: it may have been taken back or finished. */
    if (r->ended) {
        r->ended = false;
        r->len = r->pos = 0;
    }
    for (;;) {
        if (r->fd < 0) {
            int n = advance(r, error);
            if (n <= 0)
                return n;
        }
        const char *at = r->buf + r->pos;
        const char *nl = r->len > 0 ? memchr(at, '\n', r->len) : NULL;
        if (nl) {
            size_t len = (size_t)(nl - at);
            bool skip = r->skip_long;
            r->skip_long = false;
            bool show = !skip && deliver(r, SM_MIN(len, SM_AUDIT_LINE_MAX), ret);
            consume(r, len + 1);
            if (show)
                return 1;
            continue;
        }
        if (r->len >= SM_AUDIT_LINE_MAX) {
            bool show = !r->skip_long && deliver(r, SM_AUDIT_LINE_MAX, ret);
            r->skip_long = true;
            consume(r, r->len);
            if (show)
                return 1;
            continue;
        }
        int n = fill(r, error);
        if (n < 0)
            return -1;
        if (n > 0)
            continue;

        bool looked = r->last_look;
        n = advance(r, error);
        if (n > 0 && looked && r->len > 0) {
            /* The writer has gone on to another file: this one's unfinished end stays so. */
            bool show = !r->skip_long && deliver(r, r->len, ret);
            ret->kind = ret->kind == SM_AUDIT_LINE_INVALID ? SM_AUDIT_LINE_TORN : ret->kind;
            consume(r, r->len);
            if (show)
                return 1;
            continue;
        }
        if (n <= 0) {
            r->ended = true;
            return n;
        }
    }
}

bool sm_audit_reader_tail(struct sm_audit_reader *r, struct sm_audit_line *ret)
{
    if (!r->ended || r->len == 0 || r->skip_long)
        return false;
    g_string_truncate(r->line, 0);
    g_string_append_len(r->line, r->buf + r->pos, (gssize)r->len);
    *ret = (struct sm_audit_line){.kind = SM_AUDIT_LINE_TORN, .text = r->line->str, .len = r->line->len, .event = ""};
    return true;
}

/* ---- life and waiting ---- */

struct sm_audit_reader *sm_audit_reader_new(int dirfd, GError **error)
{
    sm_autofd own = fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
    if (own < 0) {
        sm_error_set_errno(error, errno, "dup");
        return NULL;
    }
    struct sm_audit_reader *r = g_new0(struct sm_audit_reader, 1);
    r->dirfd = sm_steal_fd(&own);
    r->watch = r->fd = -1;
    r->buf = g_malloc(READ_BYTES);
    r->line = g_string_sized_new(SM_AUDIT_LINE_MAX);
    return r;
}

void sm_audit_reader_free(struct sm_audit_reader *r)
{
    if (!r)
        return;
    sm_fd_close(&r->fd);
    sm_fd_close(&r->watch);
    sm_fd_close(&r->dirfd);
    if (r->json)
        json_decref(r->json);
    g_string_free(r->line, TRUE);
    g_free(r->buf);
    g_free(r);
}

bool sm_audit_reader_skip(struct sm_audit_reader *r, GError **error)
{
    GError *problem = NULL;
    uint64_t size = 0, torn = 0;
    sm_autofd fd = open_file(r, SM_AUDIT_FILE, &problem);

    if (fd < 0 && !problem)
        fd = open_file(r, SM_AUDIT_FILE_ROTATED, &problem);
    if (problem) {
        g_propagate_error(error, problem);
        return false;
    }
    if (fd < 0)
        return true;
    if (sm_audit_last_seq(fd, &r->last_seq, &size, &torn) < 0) {
        sm_error_set_errno(error, errno, "read");
        return false;
    }
    set_file(r, sm_steal_fd(&fd), false);
    r->offset = size - torn;
    return true;
}

int sm_audit_reader_watch_fd(struct sm_audit_reader *r)
{
    if (r->watch >= 0)
        return r->watch;
    char path[64];
    sm_autofd fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (fd < 0)
        return -1;
    /* inotify wants a path; this one names our descriptor's folder even if it was renamed. */
    g_snprintf(path, sizeof(path), "/proc/self/fd/%d", r->dirfd);
    if (inotify_add_watch(fd, path,
                          IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CLOSE_WRITE |
                              IN_ONLYDIR) < 0)
        return -1;
    r->watch = sm_steal_fd(&fd);
    return r->watch;
}

bool sm_audit_reader_drain_watch(struct sm_audit_reader *r)
{
    char buf[4096];
    struct stat st;

    while (read(r->watch, buf, sizeof(buf)) > 0)
        ;
    /* IN_DELETE_SELF does not come while we hold the folder open. */
    return fstat(r->dirfd, &st) < 0 || st.st_nlink == 0;
}
