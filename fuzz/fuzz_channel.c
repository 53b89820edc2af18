/* SPDX-License-Identifier: BSD-3-Clause */
/* Handoff messages: what decodes encodes back to the same bytes; nothing else is believed. */
#include <stdlib.h>
#include <string.h>

#include "base/rw.h"
#include "flow/msg.h"
#include "flow/udpbatch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool true_)
{
    if (!true_)
        abort();
}

/* A packet of a UDP pair: what is taken lies inside of it, keeps the bounds, and can be put into a packet again. */
static void take_apart(const uint8_t *data, size_t size)
{
    static uint8_t out[SM_FLOW_UDP_BATCH_DATAGRAMS * SM_UDPBATCH_HEAD + SM_FLOW_UDP_BATCH_MAX];
    struct sm_udpbatch again = sm_udpbatch_init(out, sizeof(out));
    struct sm_rd r = sm_rd_init(data, size);
    struct sm_dgrams_run run;
    unsigned count = 0, taken = 0;

    if (size > SM_FLOW_UDP_BATCH_MAX) /* neither side reads more */
        return;
    while (sm_udpbatch_next(&r, &count, &run)) {
        must(run.data >= data && run.len <= SM_DGRAM_MAX && run.data + run.len <= data + size);
        must(sm_dgrams_run_count(&run) <= SM_DGRAMS_RUN_MAX);
        struct iovec d;
        bool more;
        do {
            more = sm_dgrams_run_take(&run, &d);
            must(sm_udpbatch_add(&again, d.iov_base, d.iov_len));
            taken++;
        } while (more);
    }
    must(taken == count && taken == again.count && count <= SM_FLOW_UDP_BATCH_DATAGRAMS);
    must(again.w.len <= size); /* runs may join, never the other way round */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sm_flow_msg msg;
    static uint8_t out[SM_FLOW_MSG_MAX];

    if (sm_flow_decode(data, size, &msg)) {
        size_t len = sm_flow_encode(&msg, out, sizeof(out));
        if (len != size || memcmp(out, data, size) != 0)
            abort();
    }
    struct sm_flow_packet packet = sm_flow_packet_init(data, size);
    size_t total = 0;
    while (sm_flow_packet_next(&packet, &msg)) {
        must(packet.many ? sm_flow_fds(msg.type) == 0 : total == 0);
        total += sm_flow_encode(&msg, out, sizeof(out));
    }
    must(total <= size);
    take_apart(data, size);
    return 0;
}
