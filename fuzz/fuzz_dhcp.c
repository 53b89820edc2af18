/* SPDX-License-Identifier: BSD-3-Clause */
/* The DHCP responder: whatever comes, an answer is a well-formed frame for the one guest, or there is none. */
#include <stdlib.h>

#include "nat/dhcp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct sm_dhcp dhcp = {
    .link = {.guest_mac = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56},
             .our_mac = {0x52, 0x55, 0x0a, 0x00, 0x02, 0x02},
             .guest = 0x0a00020f,
             .gateway = 0x0a000202,
             .resolver = 0x0a000203,
             /* All that there can be, so that an answer is as long as it gets. */
             .dns = {1, 2, 3, 4, 5, 6, 7, 8},
             .n_dns = SM_LINK_DNS_MAX,
             .routes = {{1, 32}, {2, 32}, {3, 32}, {4, 32}, {5, 32}, {6, 32}, {7, 32}, {0, 0}},
             .n_routes = SM_LINK_ROUTES_MAX,
             .prefix_len = 24,
             .mtu = 1500},
    .hostname = "fuzz",
};

static void must(bool ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t out[SM_DHCP_FRAME_MAX];
    enum sm_dhcp_type got;
    size_t len = sm_dhcp_answer(&dhcp, data, size, &got, out);

    if (len == 0)
        return 0;
    must(got == SM_DHCP_DISCOVER || got == SM_DHCP_REQUEST || got == SM_DHCP_INFORM);
    must(len <= sizeof(out) && len >= 42 + 300);
    must((size_t)(out[16] << 8 | out[17]) == len - 14 && (size_t)(out[38] << 8 | out[39]) == len - 34);
    must(sm_csum_fold(sm_csum_add(0, out + 14, 20)) == 0);
    /* Offered or acknowledged: the guest's address or none. */
    uint32_t yiaddr = (uint32_t)out[58] << 24 | (uint32_t)out[59] << 16 | (uint32_t)out[60] << 8 | out[61];
    must(yiaddr == 0 || yiaddr == dhcp.link.guest);
    return 0;
}
