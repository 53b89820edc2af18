/* SPDX-License-Identifier: BSD-3-Clause */
/* Children's stderr, line by line; see words.h. */
#include "supervisor/words.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"

struct sm_words {
    struct sm_loop *loop;
    struct sm_watch watch;
    int out_fd;
    int64_t second_us; /* start of the second that is counted */
    unsigned lines;
    uint64_t lost;
    size_t len;
    char line[SM_WORDS_LINE_MAX];
};

static void put(int fd, const char *text, size_t len)
{
    ssize_t n = write(fd, text, len);
    (void)n; /* our own stderr is gone: nobody to tell */
}

static void pass_line(struct sm_words *w)
{
    char out[SM_WORDS_LINE_MAX * 4 + 1];
    size_t n = 0;
    int64_t now = sm_clock_us();

    if (now - w->second_us >= G_USEC_PER_SEC) {
        if (w->lost > 0) {
            n = (size_t)snprintf(out, sizeof(out), "slirp-med: %" G_GUINT64_FORMAT " more messages were not shown\n",
                                 w->lost);
            put(w->out_fd, out, n);
        }
        w->second_us = now;
        w->lines = 0;
        w->lost = 0;
        n = 0;
    }
    if (w->lines++ >= SM_WORDS_RATE) {
        w->lost++;
        w->len = 0;
        return;
    }
    for (size_t i = 0; i < w->len; i++) {
        unsigned char c = (unsigned char)w->line[i];
        if (c >= 0x20 && c < 0x7f)
            out[n++] = (char)c;
        else
            n += (size_t)snprintf(out + n, 5, "\\x%02x", c);
    }
    out[n++] = '\n';
    put(w->out_fd, out, n);
    w->len = 0;
}

/* One read. Returns false when there is nothing (more) to read. */
static bool take(struct sm_words *w)
{
    char buf[4096];
    ssize_t n = read(w->watch.fd, buf, sizeof(buf));

    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            sm_loop_unwatch(w->loop, &w->watch);
        return false;
    }
    for (ssize_t i = 0; i < n; i++) {
        if (buf[i] != '\n')
            w->line[w->len++] = buf[i];
        if (buf[i] == '\n' || w->len == sizeof(w->line))
            pass_line(w);
    }
    return true;
}

static void on_words(struct sm_watch *watch, uint32_t events)
{
    (void)events;
    (void)take(sm_container_of(watch, struct sm_words, watch));
}

struct sm_words *sm_words_new(struct sm_loop *loop, int out_fd, int *ret_fd, GError **error)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0) {
        sm_error_set_errno(error, errno, "pipe");
        return NULL;
    }
    struct sm_words *w = g_new0(struct sm_words, 1);
    w->loop = loop;
    w->out_fd = out_fd;
    sm_watch_init(&w->watch, fds[0], on_words);
    if (sm_loop_watch(loop, &w->watch, EPOLLIN) < 0) {
        sm_error_set_errno(error, errno, "watch a pipe");
        sm_fd_close(&fds[1]);
        sm_words_free(w);
        return NULL;
    }
    *ret_fd = fds[1];
    return w;
}

void sm_words_drain(struct sm_words *w)
{
    /* Bounded by what a pipe holds: the writer has ended. */
    while (take(w))
        continue;
    if (w->len > 0)
        pass_line(w);
}

void sm_words_free(struct sm_words *w)
{
    if (!w)
        return;
    sm_loop_unwatch(w->loop, &w->watch);
    sm_fd_close(&w->watch.fd);
    g_free(w);
}
