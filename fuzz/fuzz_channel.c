/* SPDX-License-Identifier: BSD-3-Clause */
/* Handoff messages: what decodes encodes back to the same bytes; nothing else is believed. */
#include <stdlib.h>
#include <string.h>

#include "base/rw.h"
#include "flow/msg.h"
#include "flow/udpbatch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sm_flow_msg msg;
    static uint8_t out[SM_FLOW_MSG_MAX];

    if (sm_flow_decode(data, size, &msg)) {
        size_t len = sm_flow_encode(&msg, out, sizeof(out));
        if (len != size || memcmp(out, data, size) != 0)
            abort();
    }
    struct sm_rd r = sm_rd_init(data, size);
    const uint8_t *datagram;
    size_t n, total = 0;
    while (sm_udpbatch_next(&r, &datagram, &n))
        total += n + 2;
    if (total > size)
        abort();
    return 0;
}
