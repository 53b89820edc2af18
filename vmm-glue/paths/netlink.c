/* SPDX-License-Identifier: BSD-3-Clause */
/* Netlink requests; see netlink.h. */
#include "paths/netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"

#define ALIGNED(len) (((len) + 3u) & ~(size_t)3)

void sm_netlink_init(struct sm_netlink *n)
{
    memset(n, 0, sizeof(*n));
}

/* len bytes at the end, zeroed up to the next boundary; NULL makes the request bad. */
static void *grow(struct sm_netlink *n, size_t len)
{
    if (n->bad || ALIGNED(len) > sizeof(n->buf) - n->len) {
        n->bad = true;
        return NULL;
    }
    void *at = n->buf + n->len;
    memset(at, 0, ALIGNED(len));
    n->len += ALIGNED(len);
    return at;
}

static void put_length(struct sm_netlink *n)
{
    uint32_t len = (uint32_t)(n->len - n->head);
    if (!n->bad)
        memcpy(n->buf + n->head, &len, sizeof(len));
}

void sm_netlink_begin(struct sm_netlink *n, uint16_t type, uint16_t flags, const void *fixed, size_t len)
{
    struct nlmsghdr head = {.nlmsg_type = type, .nlmsg_flags = flags | NLM_F_REQUEST, .nlmsg_seq = ++n->acks};

    if (!(flags & NLM_F_ACK))
        n->acks--;
    n->head = n->len;
    n->depth = 0;
    void *at = grow(n, sizeof(head) + len);
    if (!at)
        return;
    memcpy(at, &head, sizeof(head));
    memcpy((uint8_t *)at + sizeof(head), fixed, len);
    put_length(n);
}

void sm_netlink_attr(struct sm_netlink *n, uint16_t type, const void *data, size_t len)
{
    struct nlattr head = {.nla_type = type, .nla_len = (uint16_t)(sizeof(head) + len)};
    void *at = grow(n, sizeof(head) + len);

    if (!at)
        return;
    memcpy(at, &head, sizeof(head));
    if (len > 0)
        memcpy((uint8_t *)at + sizeof(head), data, len);
    put_length(n);
}

void sm_netlink_u32(struct sm_netlink *n, uint16_t type, uint32_t v)
{
    sm_netlink_attr(n, type, &v, sizeof(v));
}

void sm_netlink_be32(struct sm_netlink *n, uint16_t type, uint32_t v)
{
    sm_netlink_u32(n, type, htonl(v));
}

void sm_netlink_text(struct sm_netlink *n, uint16_t type, const char *text)
{
    sm_netlink_attr(n, type, text, strlen(text) + 1);
}

void sm_netlink_open_with(struct sm_netlink *n, uint16_t type, const void *fixed, size_t len)
{
    if (n->depth >= SM_NETLINK_DEPTH) {
        n->bad = true;
        return;
    }
    n->nest[n->depth++] = n->len;
    sm_netlink_attr(n, type | NLA_F_NESTED, fixed, len);
}

void sm_netlink_open(struct sm_netlink *n, uint16_t type)
{
    sm_netlink_open_with(n, type, NULL, 0);
}

void sm_netlink_close(struct sm_netlink *n)
{
    if (n->bad || n->depth == 0) {
        n->bad = true;
        return;
    }
    size_t at = n->nest[--n->depth];
    uint16_t len = (uint16_t)(n->len - at);
    memcpy(n->buf + at, &len, sizeof(len));
}

/* The answers to one request: 0 when all of them say that it is done. */
static int read_acks(int sock, unsigned acks)
{
    _Alignas(8) uint8_t buf[SM_NETLINK_MAX];
    int err = 0;

    while (acks > 0) {
        ssize_t got = recv(sock, buf, sizeof(buf), 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        size_t left = (size_t)got;
        for (const uint8_t *p = buf; left >= sizeof(struct nlmsghdr) && acks > 0;) {
            struct nlmsghdr head;
            struct nlmsgerr answer;
            memcpy(&head, p, sizeof(head));
            if (head.nlmsg_len < sizeof(head) || head.nlmsg_len > left)
                break;
            if (head.nlmsg_type == NLMSG_ERROR && head.nlmsg_len >= sizeof(head) + sizeof(answer)) {
                memcpy(&answer, p + sizeof(head), sizeof(answer));
                if (answer.error != 0) { /* a batch is taken as a whole or not at all */
                    errno = -answer.error;
                    return -1;
                }
                acks--;
            }
            size_t step = SM_MIN(ALIGNED((size_t)head.nlmsg_len), left);
            p += step;
            left -= step;
        }
    }
    return err;
}

int sm_netlink_send(struct sm_netlink *n, int protocol)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    sm_autofd sock = -1;

    if (n->bad || n->depth > 0) {
        errno = EMSGSIZE;
        return -1;
    }
    sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
    if (sock < 0 || sendto(sock, n->buf, n->len, 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
        return -1;
    return read_acks(sock, n->acks);
}
