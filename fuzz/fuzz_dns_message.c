/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dns/message.h: the input is a query of a guest, and also the response of an upstream to the question that it holds
 * (or to a fixed one). What we encode must be read back by our own parser with the same meaning, and never hold `ech`,
 * `h3` where it is to be removed, AD or AA.
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

/* No HTTPS or SVCB record of ours has ech or, when it must not, h3: read without the writer's helpers. */
static void check_svcb(const uint8_t *msg, const struct sm_dns_response *back, bool no_h3)
{
    for (unsigned i = 0; i < back->n_keep; i++) {
        struct sm_rd r = {.p = msg, .len = back->msg_len, .pos = back->keep[i].off};
        struct sm_dns_name name;
        sm_dns_name_read(&r, &name);
        uint16_t type = sm_rd_u16(&r);
        sm_rd_skip(&r, 6);
        uint16_t rdlen = sm_rd_u16(&r);
        if (type != SM_DNS_HTTPS && type != SM_DNS_SVCB)
            continue;
        struct sm_rd rdata = {.p = msg, .len = r.pos + rdlen, .pos = r.pos, .bad = r.bad};
        sm_rd_u16(&rdata);
        sm_dns_name_read(&rdata, &name);
        bool alpn = false, no_default = false, mandatory_alpn = false;
        while (sm_rd_left(&rdata) > 0) {
            uint16_t key = sm_rd_u16(&rdata);
            struct sm_rd value = sm_rd_sub(&rdata, sm_rd_u16(&rdata));
            if (key == 4 || key == 5 || key == 6)
                abort();
            alpn |= key == 1;
            no_default |= key == 2;
            while (key == 0 && sm_rd_left(&value) > 0)
                mandatory_alpn |= sm_rd_u16(&value) == 1;
            while (key == 1 && sm_rd_left(&value) > 0) {
                uint8_t n = sm_rd_u8(&value);
                const uint8_t *id = sm_rd_take(&value, n);
                if (!id || n == 0 || (no_h3 && n >= 2 && memcmp(id, "h3", 2) == 0 && (n == 2 || id[2] == '-')))
                    abort();
            }
        }
        if (!sm_rd_done(&rdata) || (no_default && !alpn) || (mandatory_alpn && !alpn))
            abort();
    }
}

static void as_response(const uint8_t *data, size_t size, bool no_h3, size_t max)
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
    size_t len = sm_dns_reply_encode(&q, &resp, no_h3, max, out, max, &truncated);
    if (len == 0 || len > max)
        abort();
    if (out[2] & 4 || out[3] & 0x20 || sm_dns_response_parse(out, len, q.id, &q, &back) != SM_DNS_RESPONSE_OK)
        abort();
    check_svcb(out, &back, no_h3);
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
    as_response(data, size, false, 512);
    as_response(data, size, true, 512);
    as_response(data, size, false, SM_DNS_MESSAGE_MAX);
    as_response(data, size, true, SM_DNS_MESSAGE_MAX);
    size_t used = sm_dns_frame_next(data, size, SM_DNS_QUERY_MAX, &msg, &len, &bad);
    if (used > 0 && (bad || used != len + 2 || msg != data + 2))
        abort();
    return 0;
}
