/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dns/message.h: the input is a query of a guest, and also the response of an upstream to the question that it holds
 * (or to a fixed one). What we encode must be read back by our own parser with the same meaning, and never hold `ech`,
 * AD or AA.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dns/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void as_query(const uint8_t *data, size_t size)
{
    struct sm_dns_query q, back;
    enum sm_dns_rcode rcode = SM_DNS_NOERROR;
    uint8_t out[SM_DNS_UPSTREAM_QUERY_MAX];
    char text[SM_DNS_NAME_TEXT_MAX];
    enum sm_dns_query_result result = sm_dns_query_parse(data, size, &q, &rcode);

    if (result == SM_DNS_QUERY_DROP)
        return;
    if (result == SM_DNS_QUERY_ERROR) {
        uint8_t reply[512];
        if (rcode == SM_DNS_NOERROR || sm_dns_reply_simple(&q, rcode, reply, sizeof(reply)) == 0)
            abort();
        return;
    }
    if (strlen(sm_dns_name_text(&q.qname, text)) >= SM_DNS_NAME_TEXT_MAX)
        abort();
    size_t len = sm_dns_query_build(&q, 1, out, sizeof(out));
    if (len == 0 || sm_dns_query_parse(out, len, &back, &rcode) != SM_DNS_QUERY_OK ||
        !sm_dns_name_equal(&q.qname, &back.qname) || back.qtype != q.qtype || back.dnssec_ok != q.dnssec_ok || back.cd)
        abort();
}

static void as_response(const uint8_t *data, size_t size, size_t max)
{
    static struct sm_dns_response resp, back;
    static uint8_t out[SM_DNS_MESSAGE_MAX];
    struct sm_dns_query q = {.id = 0x1234, .has_question = true, .qclass = 1, .edns = true, .dnssec_ok = size & 1};
    struct sm_rd r = sm_rd_init(data, size);
    bool truncated;

    /* The question that this would answer. */
    uint16_t id = sm_rd_u16(&r);
    sm_rd_skip(&r, 10);
    sm_dns_name_read(&r, &q.qname);
    q.qtype = sm_rd_u16(&r);
    if (r.bad || sm_dns_response_parse(data, size, id, &q, &resp) != SM_DNS_RESPONSE_OK)
        return;
    size_t len = sm_dns_reply_encode(&q, &resp, max, out, max, &truncated);
    if (len == 0 || len > max)
        abort();
    if (out[2] & 4 || out[3] & 0x20 || sm_dns_response_parse(out, len, q.id, &q, &back) != SM_DNS_RESPONSE_OK)
        abort();
    if (!truncated &&
        (back.n_addrs != resp.n_addrs || memcmp(back.addrs, resp.addrs, resp.n_addrs * sizeof(resp.addrs[0])) != 0 ||
         !sm_dns_name_equal(&back.final, &resp.final)))
        abort();
    if (truncated && back.n_addrs != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *msg = NULL;
    size_t len = 0;
    bool bad;

    if (size > SM_DNS_MESSAGE_MAX)
        return 0;
    as_query(data, size);
    as_response(data, size, 512);
    as_response(data, size, SM_DNS_MESSAGE_MAX);
    size_t used = sm_dns_frame_next(data, size, SM_DNS_QUERY_MAX, &msg, &len, &bad);
    if (used > 0 && (bad || used != len + 2 || msg != data + 2))
        abort();
    return 0;
}
