/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A turn's lines are kept as entries without a seq until the commit composes them, so that a failed commit has used
 * none and can be repeated with what must not be forgotten. See writer.h for the contract.
 *
 * What a commit does, in order: look at the file (removed? at its limit?), reserve space, write once, sync if asked.
 * Whatever fails, the file is cut back to where it was; only when that fails too do the seqs of the batch stay used.
 */
#include "audit/writer.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/file.h"
#include "base/error.h"
#include "base/fd.h"

static const char *const need_names[] = {
    [SM_AUDIT_NEED_NOTHING] = "nothing",
    [SM_AUDIT_NEED_ROTATE] = "rotate",
    [SM_AUDIT_NEED_REOPEN] = "reopen",
};
SM_NAME_TABLE_COVERS(need_names, SM_AUDIT_NEEDS);

/* An entry of the batch; its fields follow it in the arena, then padding to 8. */
struct entry {
    int64_t wall_us;
    uint32_t len;
    uint8_t event;
    bool fact;
    bool truncated;
};
#define ENTRY_SIZE(len) ((sizeof(struct entry) + (len) + 7) & ~(size_t)7)

/* Memory that is kept between turns; a burst's is given back. */
#define KEEP_BYTES (64u << 10)

struct sm_audit_writer {
    int fd;
    char workspace[64];
    bool sync;
    uint64_t hard; /* a file never grows beyond this */
    uint64_t soft; /* from here on a rotation is wanted */
    size_t batch_max;

    uint64_t next_seq;
    uint64_t size;        /* of the file, as far as we know */
    uint64_t reserved_to; /* space is reserved up to this offset */
    bool cannot_reserve;  /* the file system has no fallocate */

    GByteArray *arena; /* entries, in the order in which they came */
    size_t n_entries;
    size_t n_decisions;
    size_t fact_bytes;     /* composed, at most */
    size_t decision_bytes; /* composed, at most */
    GByteArray *out;

    bool healthy;
    char *failure;
    int last_errno;
    enum sm_audit_need need;
    uint64_t failures; /* since the last success */
    uint64_t lost;
    uint64_t lost_recorded;
    uint64_t torn_bytes;     /* behind the last newline of the file; to be ended and recorded */
    const char *adopted_why; /* to be recorded as the first line of this file; NULL: no */
    uint64_t adopted_previous;
};

const char *sm_audit_need_name(enum sm_audit_need need)
{
    return (unsigned)need < SM_AUDIT_NEEDS ? need_names[need] : "unknown";
}

bool sm_audit_healthy(const struct sm_audit_writer *w)
{
    return w->healthy;
}

const char *sm_audit_failure(const struct sm_audit_writer *w)
{
    return w->healthy ? NULL : w->failure;
}

uint64_t sm_audit_next_seq(const struct sm_audit_writer *w)
{
    return w->next_seq;
}

size_t sm_audit_pending(const struct sm_audit_writer *w)
{
    return w->n_entries;
}

bool sm_audit_crowded(const struct sm_audit_writer *w)
{
    return SM_MAX(w->fact_bytes, w->decision_bytes) > w->batch_max / 4;
}

uint64_t sm_audit_lost(const struct sm_audit_writer *w)
{
    return w->lost;
}

enum sm_audit_need sm_audit_need(const struct sm_audit_writer *w)
{
    if (w->need != SM_AUDIT_NEED_NOTHING)
        return w->need;
    return w->size >= w->soft ? SM_AUDIT_NEED_ROTATE : SM_AUDIT_NEED_NOTHING;
}

/* ---- the batch ---- */

static void add_entry(struct sm_audit_writer *w, const struct sm_audit_record *r, bool fact)
{
    struct entry e = {.wall_us = r->wall_us,
                      .len = (uint32_t)r->len,
                      .event = (uint8_t)r->event,
                      .fact = fact,
                      .truncated = r->truncated};
    static const uint8_t zero[8];
    g_byte_array_append(w->arena, (const guint8 *)&e, sizeof(e));
    g_byte_array_append(w->arena, (const guint8 *)r->fields, (guint)r->len);
    g_byte_array_append(w->arena, zero, (guint)(ENTRY_SIZE(r->len) - sizeof(e) - r->len));
    w->n_entries++;
    if (fact) {
        w->fact_bytes += r->len + SM_AUDIT_HEAD_MAX;
    } else {
        w->n_decisions++;
        w->decision_bytes += r->len + SM_AUDIT_HEAD_MAX;
    }
}

bool sm_audit_append(struct sm_audit_writer *w, const struct sm_audit_record *r)
{
    if (!w->healthy || w->decision_bytes + r->len + SM_AUDIT_HEAD_MAX > w->batch_max / 2)
        return false;
    add_entry(w, r, false);
    return true;
}

bool sm_audit_note(struct sm_audit_writer *w, const struct sm_audit_record *r)
{
    if (w->fact_bytes + r->len + SM_AUDIT_HEAD_MAX > w->batch_max / 2) {
        w->lost++;
        return false;
    }
    add_entry(w, r, true);
    return true;
}

static void empty_batch(struct sm_audit_writer *w)
{
    if (w->arena->len > KEEP_BYTES) {
        g_byte_array_unref(w->arena);
        w->arena = g_byte_array_new();
    } else {
        g_byte_array_set_size(w->arena, 0);
    }
    w->n_entries = w->n_decisions = 0;
    w->fact_bytes = w->decision_bytes = 0;
}

/* A failed commit: the decisions go, the facts stay. */
static void forget_decisions(struct sm_audit_writer *w)
{
    uint8_t *data = w->arena->data;
    size_t to = 0;

    for (size_t at = 0; at < w->arena->len;) {
        struct entry e;
        memcpy(&e, data + at, sizeof(e));
        size_t n = ENTRY_SIZE(e.len);
        if (e.fact) {
            memmove(data + to, data + at, n);
            to += n;
        } else {
            w->n_entries--;
        }
        at += n;
    }
    g_byte_array_set_size(w->arena, (guint)to);
    w->n_decisions = 0;
    w->decision_bytes = 0;
}

static void put_line(struct sm_audit_writer *w, uint64_t *seq, enum sm_audit_event event, int64_t wall_us,
                     const void *fields, size_t len, bool truncated)
{
    guint at = w->out->len;
    g_byte_array_set_size(w->out, at + (guint)len + SM_AUDIT_HEAD_MAX);
    size_t n =
        sm_audit_format_line((char *)w->out->data + at, event, wall_us, (*seq)++, w->workspace, fields, len, truncated);
    g_byte_array_set_size(w->out, at + (guint)n);
}

static void put_record(struct sm_audit_writer *w, uint64_t *seq, const struct sm_audit_record *r)
{
    put_line(w, seq, r->event, r->wall_us, r->fields, r->len, r->truncated);
}

/* All that is to be written, into w->out. Returns the seq that comes after it. own_us: the time of the writer's own
 * lines. */
static uint64_t compose(struct sm_audit_writer *w, int64_t own_us)
{
    struct sm_audit_record r;
    uint64_t seq = w->next_seq;

    g_byte_array_set_size(w->out, 0);
    if (w->torn_bytes > 0) {
        g_byte_array_append(w->out, (const guint8 *)"\n", 1);
        sm_audit_begin(&r, SM_AUDIT_EGRESS_LOG_REPAIR, own_us);
        sm_audit_add_uint(&r, "torn_bytes", w->torn_bytes);
        put_record(w, &seq, &r);
    }
    if (w->adopted_why) {
        sm_audit_begin(&r, SM_AUDIT_EGRESS_LOG_ROTATE, own_us);
        sm_audit_add_str(&r, "why", w->adopted_why);
        sm_audit_add_uint(&r, "previous_bytes", w->adopted_previous);
        put_record(w, &seq, &r);
    }
    for (size_t at = 0; at < w->arena->len;) {
        struct entry e;
        memcpy(&e, w->arena->data + at, sizeof(e));
        put_line(w, &seq, (enum sm_audit_event)e.event, e.wall_us, w->arena->data + at + sizeof(e), e.len, e.truncated);
        at += ENTRY_SIZE(e.len);
    }
    if (!w->healthy || w->lost > w->lost_recorded) {
        sm_audit_begin(&r, SM_AUDIT_EGRESS_LOG_RESUME, own_us);
        if (!w->healthy)
            sm_audit_add_str(&r, "error", w->failure);
        sm_audit_add_uint(&r, "failures", w->failures);
        sm_audit_add_uint(&r, "lost", w->lost - w->lost_recorded);
        put_record(w, &seq, &r);
    }
    return seq;
}

/* ---- the file ---- */

static bool fail(struct sm_audit_writer *w, int err, enum sm_audit_need need, const char *what)
{
    g_free(w->failure);
    if (need == SM_AUDIT_NEED_NOTHING)
        w->failure = g_strdup_printf(
            "audit log of workspace %s cannot be written (%s: %s); nothing new is admitted until it can: "
            "make room on the disk that holds the state folder",
            w->workspace, what, strerror(err));
    else
        w->failure = g_strdup_printf("audit log of workspace %s %s; nothing new is admitted until it is replaced",
                                     w->workspace, what);
    w->need = need;
    w->last_errno = err;
    w->healthy = false;
    w->failures++;
    return false;
}

static int reserve_range(struct sm_audit_writer *w, uint64_t from, uint64_t to)
{
    int n;
    do {
        n = fallocate(w->fd, FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from));
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno;
    w->reserved_to = to;
    return 0;
}

/* Space for the file up to `to` and, if it can be had, some more. Returns 0 or an errno that means that there is none.
 */
static int reserve(struct sm_audit_writer *w, uint64_t to, uint64_t least_more)
{
    if (w->cannot_reserve || to + least_more <= w->reserved_to)
        return 0;
    int err = reserve_range(w, w->size, to + SM_MAX(least_more, SM_AUDIT_RESERVE_BYTES));
    if (err == ENOSPC || err == EDQUOT || err == EFBIG)
        err = reserve_range(w, w->size, to + least_more);
    if (err == ENOSPC || err == EDQUOT || err == EFBIG || err == EIO)
        return err;
    if (err != 0)
        w->cannot_reserve = true; /* EOPNOTSUPP and the like: then a short write is what tells us */
    return 0;
}

/* Cut the file back to `size`. Also gives back what was reserved behind it. */
static bool cut_back(struct sm_audit_writer *w, uint64_t size)
{
    int n;
    do {
        n = ftruncate(w->fd, (off_t)size);
    } while (n < 0 && errno == EINTR);
    w->reserved_to = size;
    return n == 0;
}

/* w->out into the file, whole or not at all. own: the writer's own few lines, which may pass the limit that a rotation
 * is to mend. */
static bool write_out(struct sm_audit_writer *w, uint64_t seq_after, uint64_t least_more, bool own)
{
    const uint8_t *data = w->out->data;
    const size_t len = w->out->len;
    struct stat st;
    size_t done = 0;

    if (fstat(w->fd, &st) < 0)
        return fail(w, errno, SM_AUDIT_NEED_NOTHING, "fstat");
    if (st.st_nlink == 0)
        return fail(w, ENOENT, SM_AUDIT_NEED_REOPEN, "was removed while in use");
    if ((uint64_t)st.st_size < w->size) /* cut by somebody else: what was reserved may be gone */
        w->reserved_to = 0;
    w->size = (uint64_t)st.st_size;
    if (w->size + len > w->hard && !own)
        return fail(w, EFBIG, SM_AUDIT_NEED_ROTATE, "has reached its maximum size");
    if (seq_after > SM_AUDIT_SEQ_MAX)
        return fail(w, EOVERFLOW, SM_AUDIT_NEED_NOTHING, "seq");
    int err = reserve(w, w->size + len, least_more);
    if (err != 0)
        return fail(w, err, SM_AUDIT_NEED_NOTHING, "reserving space");

    /* One write(2), unless it comes back short: the second one says why. */
    while (done < len) {
        ssize_t n = write(w->fd, data + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            err = n < 0 ? errno : EIO;
            break;
        }
        done += (size_t)n;
    }
    if (err == 0 && w->sync && fdatasync(w->fd) < 0)
        err = errno;
    if (err != 0) {
        if (done > 0 && !cut_back(w, w->size)) {
            /* The bytes stay: a gap in seq is honest, a repeat is not. */
            const uint8_t *nl = memrchr(data, '\n', done);
            w->torn_bytes = nl ? (uint64_t)(data + done - nl - 1) : w->torn_bytes + done;
            w->next_seq = seq_after;
            w->size += done;
        }
        return fail(w, err, SM_AUDIT_NEED_NOTHING, done == len ? "fdatasync" : "write");
    }

    w->size += len;
    w->next_seq = seq_after;
    w->torn_bytes = 0;
    w->adopted_why = NULL;
    w->lost_recorded = w->lost;
    w->failures = 0;
    w->healthy = true;
    w->need = SM_AUDIT_NEED_NOTHING;
    return true;
}

static void trim_out(struct sm_audit_writer *w)
{
    if (w->out->len > KEEP_BYTES) {
        g_byte_array_unref(w->out);
        w->out = g_byte_array_new();
    }
}

/* The newest time that the batch knows of: the core's clock, without asking one. */
static int64_t batch_time(const struct sm_audit_writer *w)
{
    int64_t newest = 0;
    for (size_t at = 0; at < w->arena->len;) {
        struct entry e;
        memcpy(&e, w->arena->data + at, sizeof(e));
        newest = SM_MAX(newest, e.wall_us);
        at += ENTRY_SIZE(e.len);
    }
    return newest;
}

bool sm_audit_commit(struct sm_audit_writer *w)
{
    if (w->n_entries == 0 || !w->healthy) /* while unhealthy there are only facts, and they wait for the probe */
        return true;
    /* Own lines are rare; the batch is not walked for their sake. */
    bool own_lines = w->torn_bytes > 0 || w->adopted_why || w->lost > w->lost_recorded;
    uint64_t seq_after = compose(w, own_lines ? batch_time(w) : 0);
    if (write_out(w, seq_after, 0, false)) {
        empty_batch(w);
        trim_out(w);
        return true;
    }
    bool decisions = w->n_decisions > 0;
    forget_decisions(w);
    trim_out(w);
    return !decisions;
}

bool sm_audit_probe(struct sm_audit_writer *w, int64_t wall_us)
{
    if (w->healthy)
        return true;
    uint64_t seq_after = compose(w, wall_us);
    if (write_out(w, seq_after, SM_AUDIT_RESUME_BYTES, false))
        empty_batch(w);
    trim_out(w);
    return w->healthy;
}

/* ---- life ---- */

static bool check_fd(int fd, GError **error)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &st) < 0) {
        sm_error_set_errno(error, errno, "audit: descriptor %d", fd);
        return false;
    }
    if (!S_ISREG(st.st_mode) || (flags & O_ACCMODE) != O_RDWR || !(flags & O_APPEND)) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "audit: descriptor %d is not a regular file opened for reading and appending", fd);
        return false;
    }
    return true;
}

/* Learn size, torn tail and last seq of w->fd. */
static bool take_stock(struct sm_audit_writer *w, int fd, GError **error)
{
    uint64_t last = 0, size = 0, torn = 0;
    int found = sm_audit_last_seq(fd, &last, &size, &torn);
    if (found < 0) {
        sm_error_set_errno(error, errno, "audit: cannot read the log's last lines");
        return false;
    }
    if (found > 0)
        w->next_seq = SM_MAX(w->next_seq, last + 1);
    w->size = size;
    w->torn_bytes = torn;
    w->reserved_to = 0;
    w->cannot_reserve = false;
    return true;
}

struct sm_audit_writer *sm_audit_writer_new(int fd, const struct sm_audit_options *options, int64_t wall_us,
                                            GError **error)
{
    uint64_t max = options->max_bytes ? options->max_bytes : SM_AUDIT_MAX_BYTES_DEFAULT;

    if (!options->workspace || !sm_audit_name_valid(options->workspace)) {
        sm_error_set(error, SM_ERROR_INVALID, "audit: not a workspace name: %s",
                     options->workspace ? options->workspace : "(none)");
        return NULL;
    }
    if (max < SM_AUDIT_MAX_BYTES_MIN) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "--audit-max-bytes: %" G_GUINT64_FORMAT " is too small: at least %" G_GUINT64_FORMAT, max,
                     SM_AUDIT_MAX_BYTES_MIN);
        return NULL;
    }
    if (options->seq_floor >= SM_AUDIT_SEQ_MAX || !check_fd(fd, error)) {
        if (options->seq_floor >= SM_AUDIT_SEQ_MAX)
            sm_error_set(error, SM_ERROR_INVALID, "audit: seq is used up: move the old log away");
        return NULL;
    }

    struct sm_audit_writer *w = g_new0(struct sm_audit_writer, 1);
    w->fd = -1;
    g_strlcpy(w->workspace, options->workspace, sizeof(w->workspace));
    w->sync = options->sync;
    /* Room between soft and hard for two full batches, so that a rotation has a turn or two to come back. */
    w->hard = max / 2;
    w->batch_max = (size_t)SM_MIN(w->hard / 8, SM_AUDIT_BATCH_MAX);
    w->soft = w->hard - 2 * w->batch_max;
    w->next_seq = options->seq_floor + 1;
    w->arena = g_byte_array_new();
    w->out = g_byte_array_new();
    w->healthy = true;
    bool ok = take_stock(w, fd, error);
    w->fd = fd;
    if (ok && w->torn_bytes > 0 && !write_out(w, compose(w, wall_us), 0, true)) {
        sm_error_set(error, SM_ERROR_SYSTEM, "%s", w->failure);
        ok = false;
    }
    if (!ok) {
        w->fd = -1; /* it stays the caller's */
        sm_audit_writer_free(w);
        return NULL;
    }
    return w;
}

/* Done with a file: give back what is reserved behind its end. */
static void let_go(int fd, uint64_t reserved_to)
{
    struct stat st;
    if (fd < 0)
        return;
    if (reserved_to > 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_size < reserved_to)
        (void)!ftruncate(fd, st.st_size); /* should it fail: nothing is lost but space, until the file is removed */
    (void)close(fd);
}

void sm_audit_writer_free(struct sm_audit_writer *w)
{
    if (!w)
        return;
    let_go(w->fd, w->reserved_to);
    g_byte_array_unref(w->arena);
    g_byte_array_unref(w->out);
    g_free(w->failure);
    g_free(w);
}

bool sm_audit_adopt(struct sm_audit_writer *w, int fd, int64_t wall_us)
{
    sm_autofd owned = fd;
    enum sm_audit_need need = sm_audit_need(w);
    uint64_t previous = w->size, reserved_to = w->reserved_to;

    if (!check_fd(fd, NULL) || !take_stock(w, fd, NULL))
        return false;
    let_go(w->fd, reserved_to);
    w->fd = sm_steal_fd(&owned);
    w->need = SM_AUDIT_NEED_NOTHING;
    w->adopted_previous = previous;
    switch (need) {
    case SM_AUDIT_NEED_ROTATE:
        w->adopted_why = "size";
        break;
    case SM_AUDIT_NEED_REOPEN:
        w->adopted_why = "removed";
        break;
    case SM_AUDIT_NEED_NOTHING:
    case SM_AUDIT_NEEDS:
        w->adopted_why = "requested";
        break;
    }
    if (!w->healthy)
        (void)sm_audit_probe(w, wall_us);
    return true;
}
