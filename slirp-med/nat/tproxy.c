/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The kernel path's front; see tproxy.h. TCP is sock.c's, from the listener on; here are datagrams, in and out, frames that are
 * no flow's, DHCP, and the dialling of published ports.
 *
 * Sources: ip(7) (IP_RECVORIGDSTADDR), raw(7) (IP_HDRINCL), packet(7) (PACKET_AUXDATA), RFC 768, RFC 791 2.3 and 3.2 (fragments),
 * RFC 792, RFC 2131 4.1.
 */
#include "nat/tproxy.h"

#include <errno.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "nat/dhcp.h"
#include "nat/guard.h"
#include "nat/sock.h"

#define DATAGRAM_MAX 65536
#define ICMP_UNREACH 3
#define DHCP_SERVER_PORT 67
/* VIRTIO_NET_HDR_GSO_UDP_L4 (virtio 1.3), which the headers of Linux before 6.2 do not have. */
#define GSO_UDP_L4 5
/** The number in a VLAN tag; 0 is a tag for the priority alone, which the kernel takes for none (802.1Q 9.6). */
#define VLAN_ID 0xfff

struct tproxy {
    struct sm_loop *loop;
    struct sm_front *front;
    struct sm_link link;
    struct sm_guard guard;
    struct sm_dhcp dhcp;
    struct sm_watch keeper, datagram, frame;
    struct sm_buf asks; /* records for the keeper, which it has no room for yet */
    int raw, runs;
    bool cuts;      /* the kernel takes runs */
    uint16_t ident; /* of the next datagram that has to be cut */
    void (*failed)(const char *text, void *data);
    void *failed_data;
    uint8_t buf[DATAGRAM_MAX + SM_ETH_HLEN];
};

/* ---- to the guest ---- */

/* One packet, or one fragment of one: flags_offset is the field of the header. */
static bool send_ip(const struct tproxy *t, uint32_t src, uint8_t proto, uint16_t ident, uint16_t flags_offset,
                    const struct iovec *parts, int n_parts, size_t len)
{
    uint8_t head[SM_IP_HLEN];
    struct sm_wr w = sm_wr_init(head, sizeof(head));
    struct iovec iov[3] = {{head, sizeof(head)}};
    ssize_t n;

    sm_wr_ip(&w, src, t->link.guest, proto, len);
    if (w.bad || n_parts > 2)
        return false;
    sm_put_u16(head + 4, ident);
    sm_put_u16(head + 6, flags_offset); /* the kernel makes the checksum anew */
    memcpy(iov + 1, parts, (size_t)n_parts * sizeof(*parts));
    do {
        n = writev(t->raw, iov, n_parts + 1);
    } while (n < 0 && errno == EINTR);
    return n >= 0;
}

static bool on_push(const struct sm_hold_key *key, const uint8_t *data, size_t len, void *owner)
{
    struct tproxy *t = owner;
    uint8_t *udp = t->buf; /* not in use: datagrams that come in are done with when one goes out */
    size_t total = SM_UDP_HLEN + len, room = t->link.mtu - SM_IP_HLEN;

    if (total > SM_IP_MAX - SM_IP_HLEN)
        return false;
    memmove(udp + SM_UDP_HLEN, data, len);
    sm_put_u16(udp, key->dst_port);
    sm_put_u16(udp + 2, key->src_port);
    sm_put_u16(udp + 4, (uint16_t)total);
    sm_put_u16(udp + SM_UDP_CSUM, 0);
    sm_put_u16(udp + SM_UDP_CSUM, sm_csum_udp(key->dst, t->link.guest, udp, total));
    if (total <= room) {
        struct iovec part = {udp, total};
        return send_ip(t, key->dst, SM_IPPROTO_UDP, 0, 0, &part, 1, total);
    }
    uint16_t ident = ++t->ident ? t->ident : ++t->ident; /* 0 would be the kernel's to choose, for each fragment anew */
    room &= ~(size_t)7;
    for (size_t at = 0; at < total; at += room) {
        size_t n = SM_MIN(room, total - at);
        struct iovec part = {udp + at, n};
        if (!send_ip(t, key->dst, SM_IPPROTO_UDP, ident, (uint16_t)((at + n < total ? SM_IP_MF : 0) | at / 8), &part, 1,
                     n))
            return false;
    }
    return true;
}

/* All datagrams of a run as one frame: to the kernel it is one datagram, with the length of all, which it cuts. Their checksums are
 * left to whoever has to have them. */
static bool on_push_run(const struct sm_hold_key *key, const struct sm_dgrams_run *run, void *owner)
{
    enum { HEADERS = SM_ETH_HLEN + SM_IP_HLEN + SM_UDP_HLEN };
    struct tproxy *t = owner;
    size_t total = SM_UDP_HLEN + run->len;
    struct virtio_net_hdr offload = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                     .gso_type = GSO_UDP_L4,
                                     .hdr_len = HEADERS,
                                     .gso_size = (uint16_t)run->size,
                                     .csum_start = SM_ETH_HLEN + SM_IP_HLEN,
                                     .csum_offset = SM_UDP_CSUM};
    uint8_t head[HEADERS];
    struct sm_wr w = sm_wr_init(head, sizeof(head));
    struct iovec iov[] = {{&offload, sizeof(offload)}, {head, sizeof(head)}, {(void *)(uintptr_t)run->data, run->len}};
    ssize_t n;

    if (!t->cuts || SM_IP_HLEN + SM_UDP_HLEN + run->size > t->link.mtu || total > SM_IP_MAX - SM_IP_HLEN)
        return false;
    sm_wr_eth(&w, t->link.guest_mac, t->link.our_mac, SM_ETHERTYPE_IPV4);
    sm_wr_ip(&w, key->dst, t->link.guest, SM_IPPROTO_UDP, total);
    sm_wr_u16(&w, key->dst_port);
    sm_wr_u16(&w, key->src_port);
    sm_wr_u16(&w, (uint16_t)total);
    sm_wr_u16(&w, sm_csum_udp_pseudo(key->dst, t->link.guest, total));
    if (w.bad)
        return false;
    do {
        n = writev(t->runs, iov, SM_ARRAY_LEN(iov));
    } while (n < 0 && errno == EINTR);
    t->cuts = n >= 0 || errno != EINVAL;
    return n >= 0;
}

/* "Destination unreachable", with what names the datagram: its header and its ports. */
static void on_refuse(const struct sm_hold_key *key, enum sm_flow_how how, void *owner)
{
    struct tproxy *t = owner;
    int code = sm_flow_how_icmp_code(how);
    uint8_t icmp[8 + SM_IP_HLEN + SM_UDP_HLEN] = {ICMP_UNREACH};
    struct iovec part = {icmp, sizeof(icmp)};

    if (code < 0)
        return;
    struct sm_wr w = sm_wr_init(icmp + 8, sizeof(icmp) - 8);
    sm_wr_ip(&w, t->link.guest, key->dst, SM_IPPROTO_UDP, SM_UDP_HLEN);
    sm_wr_u16(&w, key->src_port);
    sm_wr_u16(&w, key->dst_port);
    sm_wr_u16(&w, SM_UDP_HLEN);
    sm_wr_u16(&w, 0);
    icmp[1] = (uint8_t)code;
    sm_put_u16(icmp + 2, sm_csum_fold(sm_csum_add(0, icmp, sizeof(icmp))));
    (void)send_ip(t, t->link.gateway, SM_IPPROTO_ICMP, 0, 0, &part, 1, sizeof(icmp));
}

static void on_free(void *owner)
{
    struct tproxy *t = owner;

    sm_loop_unwatch(t->loop, &t->keeper);
    sm_loop_unwatch(t->loop, &t->datagram);
    sm_loop_unwatch(t->loop, &t->frame);
    sm_fd_close(&t->keeper.fd);
    sm_fd_close(&t->datagram.fd);
    sm_fd_close(&t->frame.fd);
    sm_fd_close(&t->raw);
    sm_fd_close(&t->runs);
    sm_buf_clear(&t->asks);
    g_free(t);
}

static const struct sm_sock_udp udp_ops = {
    .push = on_push, .push_run = on_push_run, .refuse = on_refuse, .free = on_free};

/* ---- from the guest ---- */

/* What asks for an address goes to everybody, and what renews one to us; the answer is a whole frame, for the guest's card. One
 * that the card has no room for is lost, as on any wire. */
static void answer_dhcp(struct tproxy *t, const uint8_t *msg, size_t len)
{
    uint8_t answer[SM_DHCP_FRAME_MAX];
    size_t n = sm_dhcp_answer(&t->dhcp, msg, len, NULL, answer);

    if (n > 0)
        (void)!write(t->frame.fd, answer, n);
}

/* Where a datagram, or a run of them, was meant to go; false when the kernel did not say. */
static bool original_destination(struct msghdr *msg, struct sm_endpoint *ret)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        struct sockaddr_in sin;
        if (c->cmsg_level != IPPROTO_IP || c->cmsg_type != IP_ORIGDSTADDR || c->cmsg_len < CMSG_LEN(sizeof(sin)))
            continue;
        memcpy(&sin, CMSG_DATA(c), sizeof(sin));
        *ret = (struct sm_endpoint){.addr = sm_addr_from_in(sin.sin_addr), .port = ntohs(sin.sin_port)};
        return sin.sin_family == AF_INET;
    }
    return false;
}

static void on_datagram(struct sm_watch *watch, uint32_t events)
{
    struct tproxy *t = sm_container_of(watch, struct tproxy, datagram);

    for (int i = 0; i < SM_TPROXY_DATAGRAMS && sm_sock_reading(t->front);) {
        union {
            char buf[CMSG_SPACE(sizeof(struct sockaddr_in)) + CMSG_SPACE(sizeof(int))];
            struct cmsghdr align;
        } control;
        struct sockaddr_in from = {0};
        struct iovec iov = {t->buf, DATAGRAM_MAX};
        struct msghdr msg = {.msg_name = &from,
                             .msg_namelen = sizeof(from),
                             .msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.buf,
                             .msg_controllen = sizeof(control.buf)};
        struct sm_endpoint dst;
        ssize_t n = recvmsg(watch->fd, &msg, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break; /* nothing now, or an error that was this read's alone */
        struct sm_dgrams_run run = {.data = t->buf, .len = (size_t)n, .size = sm_dgrams_size(&msg, (size_t)n)};
        i += (int)sm_dgrams_run_count(&run);
        if (from.sin_family != AF_INET || ntohl(from.sin_addr.s_addr) != t->link.guest || from.sin_port == 0 ||
            !original_destination(&msg, &dst) || dst.port == 0)
            continue; /* the rules let no such thing through */
        struct sm_hold_key key = {.dst = sm_addr_to_u32(&dst.addr),
                                  .dst_port = dst.port,
                                  .src_port = ntohs(from.sin_port),
                                  .proto = SM_FLOW_UDP};
        bool dhcp = dst.port == DHCP_SERVER_PORT && key.dst == t->link.gateway, more;
        do {
            struct iovec one;
            more = sm_dgrams_run_take(&run, &one);
            if (dhcp)
                answer_dhcp(t, one.iov_base, one.iov_len);
            else
                sm_sock_udp_input(t->front, &key, one.iov_base, one.iov_len);
        } while (more);
    }
    sm_sock_udp_flush(t->front);
}

/* The kernel has taken the tag of a VLAN off, and then drops the frame: there is no such device. */
static bool of_vlan(struct msghdr *msg)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        struct tpacket_auxdata aux;
        if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA || c->cmsg_len < CMSG_LEN(sizeof(aux)))
            continue;
        memcpy(&aux, CMSG_DATA(c), sizeof(aux));
        return (aux.tp_status & TP_STATUS_VLAN_VALID) && (aux.tp_vlan_tci & VLAN_ID);
    }
    return false;
}

/* No packet on a wire may be for these (RFC 1122 3.2.1.3), and the kernel takes none, whatever the rules say. */
static bool undeliverable(const struct sm_addr *dst)
{
    uint32_t addr = sm_addr_to_u32(dst);
    return addr == INADDR_ANY || addr >> IN_CLASSA_NSHIFT == IN_LOOPBACKNET;
}

/* Frames that are no TCP and UDP of the guest's card and address: the kernel has dropped them, or has answered an echo to the
 * gateway or ARP by itself. The guard says which of them are recorded, and as what; DHCP is ours to answer. */
static void on_frame(struct sm_watch *watch, uint32_t events)
{
    struct tproxy *t = sm_container_of(watch, struct tproxy, frame);

    for (int i = 0; i < SM_TPROXY_FRAMES; i++) {
        union {
            char buf[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
            struct cmsghdr align;
        } control;
        struct sm_frame frame = {.data = t->buf, .cap = sizeof(t->buf)};
        struct iovec iov = {frame.data, frame.cap};
        struct msghdr msg = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control.buf)};
        ssize_t n = recvmsg(watch->fd, &msg, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;
        frame.len = (size_t)n;
        struct sm_guard_verdict v = sm_guard_judge(&t->guard, &frame, sm_loop_now(t->loop));
        if (v.action == SM_GUARD_REPORT)
            sm_sock_other(t->front, v.other, v.proto, &v.dst);
        else if (v.action != SM_GUARD_DROP && of_vlan(&msg))
            sm_sock_other(t->front, SM_OTHER_LINK, 0, &(struct sm_addr){0});
        else if (v.action == SM_GUARD_PASS_IP && undeliverable(&v.dst))
            sm_sock_other(t->front, SM_OTHER_PROTO, v.proto, &v.dst);
        else if (v.action == SM_GUARD_PASS_DHCP)
            answer_dhcp(t, frame.data + v.l4, v.frame_len - v.l4);
    }
}

static void on_client(int fd, const struct sm_endpoint *src, const struct sm_endpoint *dst, void *data)
{
    struct tproxy *t = data;
    struct sm_flow_msg open = {.src = *src, .dst = *dst};

    if (sm_addr_to_u32(&src->addr) != t->link.guest) { /* the rules let nobody else through */
        sm_sock_answer(t->front, fd, NULL);
        return;
    }
    sm_sock_open(t->front, fd, &open, NULL, 0, NULL, NULL);
}

/* ---- published ports ---- */

/* What is asked of the keeper, one record a message. It is slower than clients come: what it has no room for waits. */
static bool tell_keeper(struct tproxy *t)
{
    while (t->asks.len > 0) {
        ssize_t n = write(t->keeper.fd, sm_buf_peek(&t->asks), SM_TPROXY_ASK_LEN);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break; /* no room; or it has gone, which its end tells */
        sm_buf_consume(&t->asks, SM_TPROXY_ASK_LEN);
    }
    return sm_loop_watch(t->loop, &t->keeper, EPOLLIN | (t->asks.len > 0 ? EPOLLOUT : 0u)) == 0;
}

static bool on_dial(uint64_t id, const struct sm_endpoint *src, uint16_t guest_port, void *data)
{
    struct tproxy *t = data;
    uint8_t ask[SM_TPROXY_ASK_LEN];
    struct sm_wr w = sm_wr_init(ask, sizeof(ask));

    if (src->addr.family != SM_FAMILY_V4)
        return false;
    sm_wr_u64(&w, id);
    sm_wr_u32(&w, sm_addr_to_u32(&src->addr));
    sm_wr_u16(&w, src->port);
    sm_wr_u16(&w, guest_port);
    return !w.bad && sm_buf_append(&t->asks, ask, sizeof(ask)) && tell_keeper(t);
}
_Static_assert(SM_TPROXY_ASK_LEN == 8 + 4 + 2 + 2, "the record of tproxy.h");

static void on_keeper(struct sm_watch *watch, uint32_t events)
{
    struct tproxy *t = sm_container_of(watch, struct tproxy, keeper);
    uint8_t answer[SM_TPROXY_ANSWER_LEN];
    int fds[SM_FD_MSG_MAX];
    size_t n_fds;

    if ((events & EPOLLOUT) && !tell_keeper(t)) {
        t->failed("the keeper cannot be watched", t->failed_data);
        return;
    }
    ssize_t n = sm_fd_recv(watch->fd, answer, sizeof(answer), fds, &n_fds);

    if (n < 0 && errno == EAGAIN)
        return;
    for (size_t i = 1; n > 0 && i < n_fds; i++)
        (void)close(fds[i]);
    if (n != (ssize_t)sizeof(answer)) {
        if (n > 0 && n_fds > 0)
            (void)close(fds[0]);
        sm_loop_unwatch(t->loop, watch);
        t->failed("the guest's network namespace is gone", t->failed_data);
        return;
    }
    struct sm_rd r = sm_rd_init(answer, sizeof(answer));
    sm_sock_dialled(t->front, sm_rd_u64(&r), n_fds > 0 ? fds[0] : -1);
}

/* ---- life ---- */

static bool take_bundle(int keeper, int ret[SM_TPROXY_FDS], GError **error)
{
    char hello = 0;
    int fds[SM_FD_MSG_MAX];
    size_t n_fds = 0;
    ssize_t n = sm_fd_recv(keeper, &hello, 1, fds, &n_fds);
    bool ok = n == 1 && hello == SM_TPROXY_HELLO && n_fds == SM_TPROXY_FDS;

    _Static_assert((int)SM_TPROXY_FDS <= SM_FD_MSG_MAX, "one message brings them");
    for (size_t i = 0; i < n_fds; i++)
        ok = ok && sm_fd_set_nonblock(fds[i]) == 0;
    for (size_t i = 0; i < n_fds; i++) {
        if (ok)
            ret[i] = fds[i];
        else
            (void)close(fds[i]);
    }
    if (!ok)
        sm_error_set(error, SM_ERROR_SYSTEM,
                     "front: the descriptor of the supervisor brings no sockets of a namespace");
    return ok && sm_fd_set_nonblock(keeper) == 0;
}

struct sm_front *sm_front_new_tproxy(struct sm_loop *loop, const struct sm_front_config *cfg, int keeper,
                                     int channel_fd, void (*failed)(const char *text, void *data), void *data,
                                     GError **error)
{
    int fds[SM_TPROXY_FDS];

    if (!take_bundle(keeper, fds, error)) {
        (void)close(keeper);
        (void)close(channel_fd);
        return NULL;
    }
    struct tproxy *t = g_new0(struct tproxy, 1);
    t->loop = loop;
    t->link = cfg->net.link;
    t->raw = fds[SM_TPROXY_RAW];
    t->runs = fds[SM_TPROXY_RUNS];
    t->cuts = true;
    t->failed = failed;
    t->failed_data = data;
    sm_guard_init(&t->guard, &t->link, 0);
    t->dhcp.link = t->link;
    g_strlcpy(t->dhcp.hostname, cfg->net.hostname, sizeof(t->dhcp.hostname));
    sm_watch_init(&t->keeper, keeper, on_keeper);
    sm_buf_init(&t->asks, (size_t)SM_FRONT_TCP_MAX * SM_TPROXY_ASK_LEN); /* one for each flow that there can be */
    sm_watch_init(&t->datagram, fds[SM_TPROXY_DATAGRAM], on_datagram);
    sm_watch_init(&t->frame, fds[SM_TPROXY_FRAME], on_frame);
    t->front = sm_front_new_sock(loop, cfg, channel_fd, failed, data);
    if (sm_sock_splice(t->front) == 0) /* others of the same user have used up what it may have */
        sm_log_info("the kernel gives no pipe of the wanted size; bytes are copied");
    sm_sock_on_udp(t->front, &udp_ops, t);
    sm_sock_on_inbound(t->front, on_dial, t);
    sm_sock_listen(t->front, fds[SM_TPROXY_LISTENER], on_client, t);
    sm_sock_watch_source(t->front, &t->datagram);
    if (sm_loop_watch(loop, &t->keeper, EPOLLIN) < 0 || sm_loop_watch(loop, &t->frame, EPOLLIN) < 0) {
        sm_error_set_errno(error, errno, "front: epoll_ctl");
        sm_front_free(t->front);
        return NULL;
    }
    return t->front;
}
