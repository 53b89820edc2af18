/* SPDX-License-Identifier: BSD-3-Clause */
/* Batches of datagrams on a connected UDP socket; see dgrams.h. */
#include "base/dgrams.h"

#include <errno.h>
#include <glib.h>
#include <netinet/in.h>
#include <string.h>

/* linux/udp.h and netinet/udp.h cannot be had together, and older ones of the second lack these. */
#define OPT_SEGMENT 103
#define OPT_GRO 104
/* Apart by more than a power of two, or all buffers' first lines would share a few places of the processor's cache. */
#define SLOT_SIZE (65536 + 2112)

union control {
    struct cmsghdr align;
    uint8_t bytes[CMSG_SPACE(sizeof(int))];
};

struct sm_dgrams {
    struct mmsghdr msgs[SM_DGRAMS_RECV_MAX];
    struct iovec iov[SM_DGRAMS_RECV_MAX];
    union control control[SM_DGRAMS_RECV_MAX];
    int n, at;                /* messages; the next one */
    struct sm_dgrams_run run; /* what is left of the last one */
    uint8_t *slots;
};

/* ---- sending ---- */

/* Messages on their way to one sendmmsg(2), and how many datagrams each holds. */
struct out {
    struct mmsghdr msgs[SM_DGRAMS_SEND_MAX];
    struct iovec iov[SM_DGRAMS_SEND_MAX];
    union control control[SM_DGRAMS_SEND_MAX];
    size_t count[SM_DGRAMS_SEND_MAX];
    unsigned n;
};

/* The list from here on: what is left of its first run, then the others. */
struct rest {
    struct sm_dgrams_run first;
    const struct sm_dgrams_run *next, *end;
    bool over;
};

static void rest_next(struct rest *r)
{
    if (r->next == r->end)
        r->over = true;
    else
        r->first = *r->next++;
}

static void rest_skip(struct rest *r, size_t bytes)
{
    r->first.data += bytes;
    r->first.len -= bytes;
    if (r->first.len == 0)
        rest_next(r);
}

static void put_message(struct out *o, const struct sm_dgrams_run *run)
{
    struct mmsghdr *m = &o->msgs[o->n];

    o->iov[o->n] = (struct iovec){.iov_base = (void *)(uintptr_t)run->data, .iov_len = run->len};
    *m = (struct mmsghdr){.msg_hdr = {.msg_iov = &o->iov[o->n], .msg_iovlen = 1}};
    o->count[o->n] = sm_dgrams_run_count(run);
    if (o->count[o->n] > 1) {
        uint16_t size = (uint16_t)run->size;
        union control *control = &o->control[o->n];
        memset(control, 0, sizeof(*control));
        m->msg_hdr.msg_control = control;
        m->msg_hdr.msg_controllen = CMSG_SPACE(sizeof(size));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m->msg_hdr);
        c->cmsg_level = IPPROTO_UDP;
        c->cmsg_type = OPT_SEGMENT;
        c->cmsg_len = CMSG_LEN(sizeof(size));
        memcpy(CMSG_DATA(c), &size, sizeof(size));
    }
    o->n++;
}

static void put_messages(struct out *o, struct rest r, uint16_t segment_max)
{
    for (o->n = 0; !r.over && o->n < SM_DGRAMS_SEND_MAX; rest_skip(&r, o->iov[o->n - 1].iov_len)) {
        struct sm_dgrams_run run = r.first;
        if (run.size > segment_max && run.len > run.size)
            run.len = run.size;
        put_message(o, &run);
    }
}

/* This errno says of a message that is to be cut that it cannot be, and nothing about the socket. */
static bool cannot_cut(int err)
{
    return err == EINVAL || err == EMSGSIZE || err == EIO || err == EOPNOTSUPP;
}

static size_t count_of(struct rest r)
{
    size_t n = 0;
    for (; !r.over; rest_next(&r))
        n += sm_dgrams_run_count(&r.first);
    return n;
}

struct sm_dgrams_sent sm_dgrams_send(int fd, const struct sm_dgrams_run *runs, size_t n, uint16_t *segment_max,
                                     bool (*fatal)(int err))
{
    struct out o;
    struct rest r = {.next = runs, .end = runs + n};
    struct sm_dgrams_sent ret = {0};

    rest_next(&r);
    while (!r.over) {
        put_messages(&o, r, *segment_max);
        int done = sendmmsg(fd, o.msgs, o.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        int err = errno;
        for (int i = 0; i < done; i++) {
            ret.sent += o.count[i];
            ret.bytes += o.iov[i].iov_len;
            rest_skip(&r, o.iov[i].iov_len);
        }
        if (done > 0 || err == EINTR)
            continue; /* what stopped it says so when it is first */
        if (fatal(err)) {
            ret.err = err;
            break;
        }
        if (err == EAGAIN) { /* the rest would not find room either */
            ret.lost += count_of(r);
            break;
        }
        if (o.count[0] > 1 && cannot_cut(err)) {
            *segment_max = (uint16_t)(r.first.size - 1);
            continue;
        }
        ret.lost += o.count[0];
        rest_skip(&r, o.iov[0].iov_len);
    }
    return ret;
}

/* ---- receiving ---- */

struct sm_dgrams *sm_dgrams_new(void)
{
    struct sm_dgrams *d = g_new0(struct sm_dgrams, 1);

    d->slots = g_malloc((size_t)SLOT_SIZE * SM_DGRAMS_RECV_MAX);
    for (size_t i = 0; i < SM_DGRAMS_RECV_MAX; i++) {
        d->iov[i] = (struct iovec){.iov_base = d->slots + i * SLOT_SIZE, .iov_len = SLOT_SIZE};
        d->msgs[i].msg_hdr = (struct msghdr){.msg_iov = &d->iov[i],
                                             .msg_iovlen = 1,
                                             .msg_control = &d->control[i],
                                             .msg_controllen = sizeof(d->control[i])};
    }
    return d;
}

void sm_dgrams_free(struct sm_dgrams *d)
{
    if (!d)
        return;
    g_free(d->slots);
    g_free(d);
}

void sm_dgrams_gather(int fd)
{
    int on = 1;
    (void)setsockopt(fd, IPPROTO_UDP, OPT_GRO, &on, sizeof(on));
}

int sm_dgrams_recv(struct sm_dgrams *d, int fd)
{
    for (int i = 0; i < d->n; i++) /* what the last one was told of */
        d->msgs[i].msg_hdr.msg_controllen = sizeof(d->control[i]);
    d->n = recvmmsg(fd, d->msgs, SM_DGRAMS_RECV_MAX, MSG_DONTWAIT, NULL);
    d->at = 0;
    d->run.len = 0;
    return d->n;
}

size_t sm_dgrams_size(struct msghdr *msg, size_t len)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        int size;
        if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != OPT_GRO || c->cmsg_len < CMSG_LEN(sizeof(size)))
            continue;
        memcpy(&size, CMSG_DATA(c), sizeof(size));
        if (size > 0 && (unsigned)size < len)
            return (size_t)size;
    }
    return len;
}

bool sm_dgrams_next(struct sm_dgrams *d, struct sm_dgrams_run *ret)
{
    if (d->run.len == 0) {
        if (d->at >= d->n)
            return false;
        struct mmsghdr *m = &d->msgs[d->at];
        d->run = (struct sm_dgrams_run){
            .data = d->iov[d->at].iov_base, .len = m->msg_len, .size = sm_dgrams_size(&m->msg_hdr, m->msg_len)};
        d->at++;
    }
    *ret = d->run;
    ret->len = SM_MIN(ret->len, SM_DGRAMS_RUN_MAX * ret->size); /* newer kernels gather more */
    ret->size = SM_MIN(ret->size, ret->len);                    /* what is left over may be one that is shorter */
    d->run.data += ret->len;
    d->run.len -= ret->len;
    return true;
}
