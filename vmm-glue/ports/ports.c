/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of ports; see ports.h. */
#include "ports/ports.h"

/** QEMU's and cloud-hypervisor's vhost-user-vsock device. */
static struct sm_port *new_vhost_vsock(int fd, unsigned guest_cid, GError **error)
{
    return sm_port_vhost_vsock_new(fd, guest_cid, error);
}

const struct sm_port_kind sm_port_kinds[] = {
    {.name = "tap", .new = sm_port_tap_new},
    {.name = "tap-vnet", .new = sm_port_tap_vnet_new},
    {.name = "stream", .new = sm_port_stream_new, .later = true},
    {.name = "dgram", .new = sm_port_dgram_new, .later = true},
    {.name = "vhost-user", .new = sm_port_vhost_net_new, .later = true, .guest_memory = true},
    {.name = "vhost-user-vsock", .new = new_vhost_vsock, .vsock = true, .later = true, .guest_memory = true},
};
const size_t sm_port_kinds_count = SM_ARRAY_LEN(sm_port_kinds);
