/* SPDX-License-Identifier: BSD-3-Clause */
/* The control socket's clients; see client.h. */
#include "supervisor/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/error.h"
#include "base/fd.h"

/** Asked at once: descriptors are bounded (1024 by default), and each of these has its folder open beside. */
#define BATCH 128

static int milliseconds_until(int64_t until_us)
{
    int64_t left = (until_us - sm_clock_us() + 999) / 1000;
    return left > 0 ? (int)left : 0;
}

static json_t *take_answer(const char *line, enum sm_client_failure *ret_why, GError **error)
{
    json_t *answer = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    const char *why = json_string_value(json_object_get(answer, "error"));

    if (json_is_object(answer) && json_is_true(json_object_get(answer, "ok"))) {
        (void)json_object_del(answer, "ok");
        sm_control_decode_status(answer);
        return answer;
    }
    *ret_why = why ? SM_CLIENT_REFUSED : SM_CLIENT_SILENT;
    sm_error_set(error, SM_ERROR_SYSTEM, "%s", why ? why : "its answer is not understood");
    json_decref(answer);
    return NULL;
}

json_t *sm_client_ask(int dirfd, int timeout_ms, enum sm_control_verb verb, const char *argument,
                      enum sm_client_failure *ret_why, GError **error)
{
    enum sm_client_failure ignored = SM_CLIENT_NONE, *why = ret_why ? ret_why : &ignored;
    g_autoptr(GError) local = NULL;

    *why = SM_CLIENT_NONE;
    sm_autofd sock = sm_control_connect(dirfd, timeout_ms);
    if (sock < 0) {
        *why = SM_CLIENT_UNREACHED;
        sm_error_set_errno(error, errno, "its control socket cannot be reached");
        return NULL;
    }
    g_autofree char *line = sm_control_ask_about(sock, verb, argument, &local);
    if (line)
        return take_answer(line, why, error);
    *why = g_error_matches(local, SM_ERROR, SM_ERROR_INVALID) ? SM_CLIENT_ARGUMENT : SM_CLIENT_SILENT;
    g_propagate_error(error, g_steal_pointer(&local));
    return NULL;
}

/* ---- many at once ---- */

struct asked {
    struct sm_client_question *question;
    int fd;
    GString *line;
};

static void asked_close(struct asked *a)
{
    sm_fd_close(&a->fd);
    if (a->line)
        (void)g_string_free(a->line, TRUE);
    a->line = NULL;
}

/** What has come. Closes when that is all there will be. */
static void take_more(struct asked *a)
{
    char buf[4096];
    enum sm_client_failure why;

    ssize_t n = recv(a->fd, buf, sizeof(buf), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || a->line->len + (size_t)n > SM_CONTROL_REPLY_MAX) {
        asked_close(a);
        return;
    }
    g_string_append_len(a->line, buf, n);
    char *end = memchr(a->line->str, '\n', a->line->len);
    if (!end)
        return;
    *end = '\0';
    a->question->answer = take_answer(a->line->str, &why, NULL);
    asked_close(a);
}

static void ask_batch(struct sm_client_question *questions, size_t n, enum sm_control_verb verb, int64_t until_us)
{
    struct asked asked[BATCH];
    struct pollfd fds[BATCH];
    g_autofree char *line = g_strconcat(sm_control_verb_name(verb), "\n", NULL);
    size_t left = n;

    for (size_t i = 0; i < n; i++) {
        struct asked *a = &asked[i];
        *a = (struct asked){.question = &questions[i], .fd = sm_control_connect(questions[i].dirfd, -1)};
        if (a->fd < 0)
            continue;
        a->line = g_string_new(NULL);
        if (send(a->fd, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)strlen(line))
            asked_close(a);
    }
    while (left > 0) {
        left = 0;
        for (size_t i = 0; i < n; i++) {
            fds[i] = (struct pollfd){.fd = asked[i].fd, .events = POLLIN};
            left += asked[i].fd >= 0;
        }
        int r = left > 0 ? poll(fds, (nfds_t)n, milliseconds_until(until_us)) : 0;
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            break;
        for (size_t i = 0; i < n; i++)
            if (asked[i].line && fds[i].revents)
                take_more(&asked[i]);
    }
    for (size_t i = 0; i < n; i++)
        asked_close(&asked[i]);
}

void sm_client_ask_all(struct sm_client_question *questions, size_t n, enum sm_control_verb verb, int timeout_ms)
{
    int64_t until = sm_clock_us() + (int64_t)timeout_ms * 1000;

    for (size_t i = 0; i < n; i++)
        questions[i].answer = NULL;
    for (size_t i = 0; i < n; i += BATCH)
        ask_batch(questions + i, SM_MIN(n - i, (size_t)BATCH), verb, until);
}

/* ---- stop ---- */

int sm_client_stop(int dirfd, int timeout_ms, GError **error)
{
    int64_t until = sm_clock_us() + (int64_t)timeout_ms * 1000;
    char buf[256];
    sm_autofd sock = sm_control_connect(dirfd, SM_MAX(timeout_ms, 1));

    if (sock < 0) {
        sm_error_set_errno(error, errno, "its control socket cannot be reached");
        return -1;
    }
    g_autofree char *line = sm_control_ask(sock, SM_CONTROL_STOP, error);
    if (!line)
        return -1;
    for (;;) { /* the supervisor closes the stream last of all */
        struct pollfd pfd = {.fd = sock, .events = POLLIN};
        int r = poll(&pfd, 1, milliseconds_until(until));
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return 0;
        ssize_t n = recv(sock, buf, sizeof(buf), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
            return 1;
    }
}
