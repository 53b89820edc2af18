/* SPDX-License-Identifier: BSD-3-Clause */
/* Tap devices by ioctl; see tap.h. */
#include "ports/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/route.h>
#include <linux/virtio_net.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"

static const char *const tun_path = "/dev/net/tun";

/* What a guest's kernel may leave to us. */
#define GUEST_OFFLOADS (TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN)
/* TUN_F_USO4 | TUN_F_USO6: Linux 6.2, and only both together. */
#define TUN_USO 0x60

bool sm_tap_cuts_udp(int fd)
{
    bool known = ioctl(fd, TUNSETOFFLOAD, GUEST_OFFLOADS | TUN_USO) == 0;

    /* It was only asked for to see whether this kernel knows it: from the guest nothing like that is wanted. */
    return known && ioctl(fd, TUNSETOFFLOAD, GUEST_OFFLOADS) == 0;
}

static int set_vnet_hdr(int fd, const char *name, GError **error)
{
    int hdr_len = sizeof(struct virtio_net_hdr_v1), little_endian = 1;

    if (ioctl(fd, TUNSETVNETHDRSZ, &hdr_len) < 0 || ioctl(fd, TUNSETVNETLE, &little_endian) < 0 ||
        ioctl(fd, TUNSETOFFLOAD, GUEST_OFFLOADS) < 0) {
        sm_error_set_errno(error, errno, "tap: virtio-net header on %s", name);
        return -1;
    }
    return 0;
}

int sm_tap_adopt(int fd, bool *ret_vnet_hdr, GError **error)
{
    struct ifreq ifr = {0};

    if (ioctl(fd, TUNGETIFF, &ifr) < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "not a tap device");
        return -1;
    }
    if (!(ifr.ifr_flags & IFF_TAP) || !(ifr.ifr_flags & IFF_NO_PI)) {
        sm_error_set(error, SM_ERROR_INVALID, "%.*s is no tap of frames alone: make it with IFF_TAP and IFF_NO_PI",
                     IFNAMSIZ, ifr.ifr_name);
        return -1;
    }
    bool vnet_hdr = ifr.ifr_flags & IFF_VNET_HDR;
    if (vnet_hdr && set_vnet_hdr(fd, ifr.ifr_name, error) < 0)
        return -1;
    *ret_vnet_hdr = vnet_hdr;
    return 0;
}

int sm_tap_open(const char *name, bool vnet_hdr, GError **error)
{
    struct ifreq ifr = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (vnet_hdr ? IFF_VNET_HDR : 0))};

    if (strlen(name) >= sizeof(ifr.ifr_name)) {
        sm_error_set(error, SM_ERROR_INVALID, "tap: interface name '%s' is longer than %zu characters", name,
                     sizeof(ifr.ifr_name) - 1);
        return -1;
    }
    memcpy(ifr.ifr_name, name, strlen(name));
    sm_autofd fd = open(tun_path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        int err = errno;
        if (err == ENOENT || err == ENODEV || err == ENXIO)
            sm_error_set(error, SM_ERROR_MISSING,
                         "tap: %s: %s: load the driver with `modprobe tun` (as root); in a container pass the device "
                         "in (--device %s)",
                         tun_path, g_strerror(err), tun_path);
        else if (err == EACCES || err == EPERM)
            sm_error_set(error, SM_ERROR_MISSING,
                         "tap: %s: %s: allow it with `chmod 0666 %s` (as root; a udev rule makes it last)", tun_path,
                         g_strerror(err), tun_path);
        else
            sm_error_set_errno(error, err, "tap: open %s", tun_path);
        return -1;
    }
    if (ioctl(fd, TUNSETIFF, &ifr) < 0) {
        sm_error_set_errno(error, errno, "tap: make %s", name);
        return -1;
    }
    if (vnet_hdr && set_vnet_hdr(fd, name, error) < 0)
        return -1;
    return sm_steal_fd(&fd);
}

int sm_tap_keep(int fd, GError **error)
{
    if (ioctl(fd, TUNSETPERSIST, 1) == 0)
        return 0;
    sm_error_set_errno(error, errno, "tap: keep the device until its namespace ends");
    return -1;
}

static int control(int sock, unsigned long request, struct ifreq *ifr, const char *what, GError **error)
{
    if (ioctl(sock, request, ifr) >= 0)
        return 0;
    sm_error_set_errno(error, errno, "tap: %s of %s", what, ifr->ifr_name);
    return -1;
}

static void set_inet(struct sockaddr *sa, struct in_addr in)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = in};
    memcpy(sa, &sin, sizeof(sin));
}

static int interface_up(int sock, const char *name, GError **error)
{
    struct ifreq ifr = {0};
    g_strlcpy(ifr.ifr_name, name, sizeof(ifr.ifr_name));
    if (control(sock, SIOCGIFFLAGS, &ifr, "flags", error) < 0)
        return -1;
    ifr.ifr_flags = (short)(ifr.ifr_flags | IFF_UP);
    return control(sock, SIOCSIFFLAGS, &ifr, "bring up", error);
}

int sm_tap_loopback_up(GError **error)
{
    sm_autofd sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sock < 0) {
        sm_error_set_errno(error, errno, "tap: socket");
        return -1;
    }
    return interface_up(sock, "lo", error);
}

static struct in_addr netmask(unsigned len)
{
    return (struct in_addr){.s_addr = htonl(len == 0 ? 0 : ~UINT32_C(0) << (32 - len))};
}

static int add_route(int sock, const struct sm_tap_spec *spec, const struct sm_prefix *to, GError **error)
{
    char device[IFNAMSIZ], text[SM_PREFIX_STRLEN];
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY, .rt_dev = device};

    g_strlcpy(device, spec->name, sizeof(device));
    set_inet(&route.rt_dst, sm_addr_to_in(&to->addr));
    set_inet(&route.rt_genmask, netmask(to->len));
    set_inet(&route.rt_gateway, sm_addr_to_in(&spec->gateway));
    if (to->len == 32)
        route.rt_flags |= RTF_HOST;
    if (ioctl(sock, SIOCADDRT, &route) >= 0)
        return 0;
    sm_error_set_errno(error, errno, "tap: route %s through %s (is the gateway in its subnet?)",
                       sm_prefix_format(to, text), spec->name);
    return -1;
}

int sm_tap_configure(const struct sm_tap_spec *spec, GError **error)
{
    struct ifreq ifr = {0};

    sm_autofd sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sock < 0) {
        sm_error_set_errno(error, errno, "tap: socket");
        return -1;
    }
    g_strlcpy(ifr.ifr_name, spec->name, sizeof(ifr.ifr_name));
    ifr.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    memcpy(ifr.ifr_hwaddr.sa_data, spec->mac, sizeof(spec->mac));
    if (control(sock, SIOCSIFHWADDR, &ifr, "MAC address", error) < 0)
        return -1;
    ifr.ifr_mtu = (int)spec->mtu;
    if (control(sock, SIOCSIFMTU, &ifr, "MTU", error) < 0)
        return -1;
    set_inet(&ifr.ifr_addr, sm_addr_to_in(&spec->ip));
    if (control(sock, SIOCSIFADDR, &ifr, "address", error) < 0)
        return -1;
    set_inet(&ifr.ifr_netmask, netmask(spec->prefix_len));
    if (control(sock, SIOCSIFNETMASK, &ifr, "netmask", error) < 0)
        return -1;
    if (interface_up(sock, spec->name, error) < 0)
        return -1;
    for (size_t i = 0; spec->gateway.family == SM_FAMILY_V4 && i < spec->n_routes; i++)
        if (add_route(sock, spec, &spec->routes[i], error) < 0)
            return -1;
    return 0;
}

bool sm_tap_parse_mac(const char *text, uint8_t ret[6])
{
    uint8_t mac[6];

    if (strlen(text) != 17)
        return false;
    for (int i = 0; i < 6; i++) {
        int hi = g_ascii_xdigit_value(text[3 * i]), lo = g_ascii_xdigit_value(text[3 * i + 1]);
        if (hi < 0 || lo < 0 || (i < 5 && text[3 * i + 2] != ':'))
            return false;
        mac[i] = (uint8_t)(hi << 4 | lo);
    }
    if (mac[0] & 1)
        return false;
    memcpy(ret, mac, sizeof(mac));
    return true;
}
