/* SPDX-License-Identifier: BSD-3-Clause */
/* vhost-user messages over a stream socket; see proto.h. */
#include "vhost/proto.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"

static const struct sm_vhost_msg_info infos[] = {
#define X(name, number, min, max, fds, reply)                                                                          \
    {#name, SM_VHOST_##name, min, max, SM_VHOST_FDS_##fds, SM_VHOST_REPLY_##reply},
    SM_VHOST_MSGS(X)
#undef X
};

const struct sm_vhost_msg_info *sm_vhost_msg_info(uint32_t request)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(infos); i++)
        if ((uint32_t)infos[i].request == request)
            return &infos[i];
    return NULL;
}

void sm_vhost_msg_clear(struct sm_vhost_msg *msg)
{
    for (unsigned i = 0; i < msg->n_fds; i++)
        sm_fd_close(&msg->fds[i]);
    msg->n_fds = 0;
    msg->got = 0;
}

/* The descriptors of one recvmsg() join those that the message has. False when they are too many; all are closed later. */
static bool take_fds(struct sm_vhost_msg *msg, struct msghdr *m)
{
    bool fit = !(m->msg_flags & MSG_CTRUNC);

    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (msg->n_fds < SM_VHOST_FDS_MAX)
                msg->fds[msg->n_fds++] = fd;
            else {
                fit = false;
                sm_fd_close(&fd);
            }
        }
    }
    return fit;
}

/* Read up to n bytes at `to`. Returns how many, 0 when none are there now, -1 with *ret_why when it is over. */
static ssize_t read_some(int sock, struct sm_vhost_msg *msg, uint8_t *to, size_t n, const char **ret_why)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(SM_VHOST_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = to, .iov_len = n};
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space)};
    ssize_t got;

    do {
        got = recvmsg(sock, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN)
        return 0;
    *ret_why = got == 0 && msg->got > 0 ? "the VMM has left in the middle of a message" : NULL;
    if (got <= 0) /* an error is an end too: ECONNRESET, when our answer was not read */
        return -1;
    if (!take_fds(msg, &m)) {
        *ret_why = "a message with more descriptors than any needs";
        return -1;
    }
    return got;
}

static const char *read_head(struct sm_vhost_msg *msg)
{
    struct sm_rd r = sm_rd_init(msg->head, sizeof(msg->head));

    msg->request = sm_vhost_u32(&r);
    msg->flags = sm_vhost_u32(&r);
    msg->size = sm_vhost_u32(&r);
    if ((msg->flags & 3) != SM_VHOST_VERSION || (msg->flags & (SM_VHOST_FLAG_REPLY | ~SM_VHOST_FLAGS_KNOWN)))
        return "a message of another version of the protocol";
    if (msg->size > SM_VHOST_PAYLOAD_MAX)
        return "a message that is longer than any";
    return NULL;
}

int sm_vhost_msg_read(int sock, struct sm_vhost_msg *msg, const char **ret_why)
{
    for (;;) {
        bool head = msg->got < SM_VHOST_HEADER_LEN;
        if (!head && msg->got == SM_VHOST_HEADER_LEN + msg->size)
            return 1;
        size_t at = head ? msg->got : msg->got - SM_VHOST_HEADER_LEN;
        /* Never beyond the message: the next one's descriptors stay with the next one. */
        ssize_t got = read_some(sock, msg, (head ? msg->head : msg->payload) + at,
                                (head ? SM_VHOST_HEADER_LEN : msg->size) - at, ret_why);
        if (got <= 0)
            return (int)got;
        msg->got += (size_t)got;
        if (head && msg->got == SM_VHOST_HEADER_LEN && (*ret_why = read_head(msg)) != NULL)
            return -1;
    }
}

void sm_vhost_out_set(struct sm_vhost_out *out, uint32_t request, const void *payload, uint32_t len)
{
    const uint32_t head[3] = {request, SM_VHOST_VERSION | SM_VHOST_FLAG_REPLY, len};
    struct sm_wr w = sm_wr_init(out->data, sizeof(out->data));

    sm_wr_bytes(&w, head, sizeof(head));
    sm_wr_bytes(&w, payload, len);
    out->len = w.bad ? 0 : w.len;
    out->done = 0;
}

int sm_vhost_out_write(int sock, struct sm_vhost_out *out)
{
    while (out->done < out->len) {
        ssize_t n = write(sock, out->data + out->done, out->len - out->done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n <= 0)
            return -1;
        out->done += (size_t)n;
    }
    return 0;
}
