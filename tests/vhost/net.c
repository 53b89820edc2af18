/* SPDX-License-Identifier: BSD-3-Clause */
/* The network driver of the front-end simulator. */
#include "net.h"

#include <string.h>
#include <sys/types.h>

#define PIECES_MAX 1024
#define UNTOUCHED 0xa5

const struct sim_shape sim_shapes[] = {
    {.name = "one"},
    {.name = "header-apart", .cuts = {NET_HDR}},
    {.name = "header-and-ethernet", .cuts = {NET_HDR + 14}},
    {.name = "header-cut", .cuts = {1, 2, 3}},
    {.name = "header-by-bytes", .cuts = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
    {.name = "ethernet-cut", .cuts = {NET_HDR + 3, 9, 4}},
    {.name = "sevens", .every = 7},
    {.name = "pages", .cuts = {NET_HDR}, .every = 4096},
    {.name = "across-regions", .across = true},
    {.name = "header-across-regions", .cuts = {5}, .across = true},
    {.name = "indirect", .cuts = {NET_HDR}, .indirect = true},
    {.name = "indirect-one", .indirect = true},
    {.name = "indirect-sevens", .every = 7, .indirect = true},
    {.name = "indirect-across", .cuts = {1, 14}, .indirect = true, .across = true},
};
const unsigned sim_n_shapes = sizeof(sim_shapes) / sizeof(sim_shapes[0]);

void sim_net_hdr_put(uint8_t p[NET_HDR], const struct sim_net_hdr *hdr)
{
    p[0] = hdr->flags;
    p[1] = hdr->gso_type;
    sim_put16(p + 2, hdr->hdr_len);
    sim_put16(p + 4, hdr->gso_size);
    sim_put16(p + 6, hdr->csum_start);
    sim_put16(p + 8, hdr->csum_offset);
    sim_put16(p + 10, hdr->num_buffers);
}

void sim_net_hdr_get(const uint8_t p[NET_HDR], struct sim_net_hdr *ret)
{
    *ret = (struct sim_net_hdr){
        .flags = p[0],
        .gso_type = p[1],
        .hdr_len = sim_get16(p + 2),
        .gso_size = sim_get16(p + 4),
        .csum_start = sim_get16(p + 6),
        .csum_offset = sim_get16(p + 8),
        .num_buffers = sim_get16(p + 10),
    };
}

/* Cuts len bytes as the shape says. Pieces lie in all regions in turn, or side by side in one buffer when it crosses.
 */
static unsigned cut(struct sim *sim, const struct sim_shape *shape, uint32_t len, bool write,
                    struct sim_piece pieces[PIECES_MAX])
{
    uint64_t across = shape->across ? sim_buffer_across(sim, len) : 0;
    unsigned n = 0;
    uint32_t left = len;

    for (unsigned i = 0; left > 0; i++) {
        uint32_t want = i < SIM_SHAPE_CUTS ? shape->cuts[i] : 0;
        if (want == 0) {
            i = SIM_SHAPE_CUTS;
            want = shape->every ? shape->every : left;
        }
        if (want > left)
            want = left;
        SIM_MUST(n < PIECES_MAX);
        pieces[n] = (struct sim_piece){
            .gpa = shape->across ? across + (len - left) : sim_buffer(sim, n % SIM_REGIONS, want),
            .len = want,
            .write = write,
        };
        n++;
        left -= want;
    }
    return n;
}

/* data from `at` on, in the pieces' order */
static void scatter(struct sim *sim, const struct sim_piece *pieces, unsigned n, size_t at, const void *data,
                    size_t len)
{
    const uint8_t *from = data;

    for (unsigned i = 0; i < n && len > 0; i++) {
        if (at >= pieces[i].len) {
            at -= pieces[i].len;
            continue;
        }
        size_t part = pieces[i].len - at < len ? pieces[i].len - at : len;
        sim_write(sim, pieces[i].gpa + at, from, part);
        from += part;
        len -= part;
        at = 0;
    }
    SIM_MUST(len == 0);
}

static void gather(struct sim *sim, const struct sim_piece *pieces, unsigned n, size_t at, void *data, size_t len)
{
    uint8_t *to = data;

    for (unsigned i = 0; i < n && len > 0; i++) {
        if (at >= pieces[i].len) {
            at -= pieces[i].len;
            continue;
        }
        size_t part = pieces[i].len - at < len ? pieces[i].len - at : len;
        sim_read(sim, pieces[i].gpa + at, to, part);
        to += part;
        len -= part;
        at = 0;
    }
    SIM_MUST(len == 0);
}

int sim_net_add(struct sim *sim, const struct sim_net_hdr *hdr, const void *frame, size_t len,
                const struct sim_shape *shape)
{
    static const struct sim_net_hdr plain;
    struct sim_piece pieces[PIECES_MAX];
    uint8_t bytes[NET_HDR];

    SIM_MUST(len <= SIM_FRAME_MAX);
    sim_net_hdr_put(bytes, hdr ? hdr : &plain);
    unsigned n = cut(sim, shape, (uint32_t)(NET_HDR + len), false, pieces);
    scatter(sim, pieces, n, 0, bytes, NET_HDR);
    scatter(sim, pieces, n, NET_HDR, frame, len);
    return sim_queue_add(&sim->queues[NET_TX], pieces, n, shape->indirect) < 0 ? -1 : 0;
}

int sim_net_send(struct sim *sim, const struct sim_net_hdr *hdr, const void *frame, size_t len,
                 const struct sim_shape *shape)
{
    if (sim_net_add(sim, hdr, frame, len, shape) < 0)
        return -1;
    (void)sim_queue_publish(&sim->queues[NET_TX]);
    return 0;
}

unsigned sim_net_reap(struct sim *sim)
{
    unsigned n = 0;
    uint32_t len;

    while (sim_queue_pop(&sim->queues[NET_TX], &len))
        n++;
    return n;
}

unsigned sim_net_supply(struct sim *sim, unsigned n, uint32_t len, const struct sim_shape *shape)
{
    struct sim_queue *q = &sim->queues[NET_RX];
    struct sim_piece pieces[PIECES_MAX];
    unsigned done;

    for (done = 0; done < n && q->n_free > 0; done++) {
        unsigned n_pieces = cut(sim, shape, len, true, pieces);
        for (unsigned i = 0; i < n_pieces; i++)
            sim_fill(sim, pieces[i].gpa, UNTOUCHED, pieces[i].len);
        if (sim_queue_add(q, pieces, n_pieces, shape->indirect) < 0)
            break;
    }
    (void)sim_queue_publish(q);
    return done;
}

/* What lies behind the written part must be as it was. */
static void check_tail(struct sim *sim, const struct sim_chain *c, uint32_t len)
{
    uint32_t at = 0;

    for (unsigned i = 0; i < c->n; i++)
        for (uint32_t j = 0; j < c->pieces[i].len; j++, at++) {
            uint8_t byte;
            if (at < len)
                continue;
            sim_read(sim, c->pieces[i].gpa + j, &byte, 1);
            if (byte != UNTOUCHED) {
                sim_wrong(sim, "byte %u of a buffer was written, of which %u were told", at, len);
                return;
            }
        }
}

ssize_t sim_net_receive(struct sim *sim, struct sim_net_hdr *ret_hdr, uint8_t *frame, size_t cap)
{
    struct sim_queue *q = &sim->queues[NET_RX];
    unsigned done = sim_queue_done(q);
    uint8_t bytes[NET_HDR];
    uint32_t len;
    const struct sim_chain *c = done > 0 ? sim_queue_pop(q, &len) : NULL;

    if (!c)
        return -1;
    check_tail(sim, c, len);
    if (len < NET_HDR) {
        sim_wrong(sim, "a frame of %u bytes with its header", len);
        return -1;
    }
    gather(sim, c->pieces, c->n, 0, bytes, NET_HDR);
    sim_net_hdr_get(bytes, ret_hdr);
    unsigned most = sim->acked & NET_F_MRG_RXBUF ? done : 1;
    if (ret_hdr->num_buffers < 1 || ret_hdr->num_buffers > most) {
        sim_wrong(sim, "a frame in %u buffers where %u may be", ret_hdr->num_buffers, most);
        return -1;
    }
    size_t at = len - NET_HDR;
    if (at > cap)
        return -1;
    gather(sim, c->pieces, c->n, NET_HDR, frame, at);
    for (unsigned i = 1; i < ret_hdr->num_buffers; i++) {
        c = sim_queue_pop(q, &len);
        if (!c)
            return -1;
        check_tail(sim, c, len);
        if (len > cap - at)
            return -1;
        gather(sim, c->pieces, c->n, 0, frame + at, len);
        at += len;
    }
    return (ssize_t)at;
}
