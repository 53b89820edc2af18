/* SPDX-License-Identifier: BSD-3-Clause */
/* The gateway answers a ping; see echo.h. */
#include "nat/echo.h"

#define COST_US (1000000 / SM_ECHO_RATE)

static bool take_token(struct sm_echo *echo, int64_t now_us)
{
    int64_t full = (int64_t)SM_ECHO_BURST * COST_US;

    if (!echo->started) {
        echo->started = true;
        echo->tokens_us = full;
        echo->last_us = now_us;
    }
    if (now_us > echo->last_us) {
        int64_t gained = now_us - echo->last_us;
        echo->tokens_us = gained > full - echo->tokens_us ? full : echo->tokens_us + gained;
        echo->last_us = now_us;
    }
    if (echo->tokens_us < COST_US)
        return false;
    echo->tokens_us -= COST_US;
    return true;
}

size_t sm_echo_answer(struct sm_echo *echo, const struct sm_link *link, const uint8_t *frame, size_t len,
                      int64_t now_us, uint8_t *out, size_t cap)
{
    struct sm_rd r = sm_rd_init(frame, len);

    sm_rd_skip(&r, SM_ETH_HLEN + SM_IP_HLEN);
    size_t icmp_len = sm_rd_left(&r);
    const uint8_t *icmp = sm_rd_take(&r, icmp_len);
    if (!icmp || icmp_len < 8 || SM_MAX(len, (size_t)SM_ETH_MIN) > cap)
        return 0;
    if (sm_csum_fold(sm_csum_add(0, icmp, icmp_len)) != 0 || !take_token(echo, now_us))
        return 0;

    struct sm_wr w = sm_wr_init(out, cap);
    sm_wr_eth(&w, link->guest_mac, link->our_mac, SM_ETHERTYPE_IPV4);
    sm_wr_ip(&w, link->gateway, link->guest, SM_IPPROTO_ICMP, icmp_len);
    uint8_t *reply = sm_wr_room(&w, icmp_len);
    if (!reply || w.bad)
        return 0;
    memcpy(reply, icmp, icmp_len);
    reply[0] = 0;
    sm_put_u16(reply + 2, 0);
    sm_put_u16(reply + 2, sm_csum_fold(sm_csum_add(0, reply, icmp_len)));
    while (w.len < SM_ETH_MIN)
        sm_wr_u8(&w, 0);
    return w.len;
}
