/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flow.c: the embedder in place of the host's sockets.
 *
 * Stock libslirp turns each connection of the guest into a host socket, in
 * slirp.c, socket.c and udp.c. This file takes the place of those three: what
 * they did with a file descriptor is done here with a callback, and nothing
 * in it, or in what is built with it, can open, connect or send.
 *
 * The engine (tcp_input.c and the rest) keeps its structure: struct socket is
 * a flow, so_rcv holds what the embedder has not taken, so_snd what the guest
 * has not acknowledged. The guest's bytes leave at slirp_send and
 * flow_deliver, its FIN at sofcantsendmore, its end at flow_closed, and room
 * for it is told at sodrop.
 *
 * A callback may call anything. So that a flow is not freed or sent from
 * while the engine works on it, calls only note what to do (flow_sock.todo)
 * and flow_leave does it when the outermost library call is about to return.
 */
#include "slirp.h"
#include "ip_icmp.h"

#define ops(slirp) ((slirp)->fl.ops)

/* --- deferred work ------------------------------------------------------- */

void flow_enter(Slirp *slirp)
{
    if (!slirp->fl.depth)
        flow_tick(slirp);
    slirp->fl.depth++;
}

/* Note work for a flow; needs flow_enter around it. Its counters are brought up
 * to the present, and flow_leave looks what has become of its timers. */
static void flow_todo(struct socket *so, unsigned what)
{
    struct flow_state *fs = &so->slirp->fl;

    if (so->fl.synced != fs->tick)
        flow_sync(so);
    so->fl.todo |= what;
    if (so->fl.queued)
        return;
    so->fl.queued = true;
    so->fl.todo_next = NULL;
    if (fs->todo_tail)
        fs->todo_tail->fl.todo_next = so;
    else
        fs->todo_head = so;
    fs->todo_tail = so;
}

/* The engine is going to look at the flow's counters, or to set them. */
void flow_touch(struct socket *so)
{
    flow_todo(so, 0);
}

/* The flow is being freed: forget its work. */
static void flow_todo_remove(struct socket *so)
{
    struct flow_state *fs = &so->slirp->fl;
    struct socket **p, *prev = NULL;

    if (!so->fl.queued)
        return;
    for (p = &fs->todo_head; *p != so; p = &(*p)->fl.todo_next)
        prev = *p;
    *p = so->fl.todo_next;
    if (fs->todo_tail == so)
        fs->todo_tail = prev;
    so->fl.queued = false;
}

/* What the engine has to send, when the embedder hands over many frames: after
 * the last of them. */
void flow_output(struct tcpcb *tp)
{
    struct socket *so = tp->t_socket;

    if (so->slirp->fl.depth > 1 && so->fl.taken)
        flow_todo(so, FLOW_TODO_OUTPUT);
    else
        tcp_output(tp);
}

static bool flow_is_pending(const struct socket *so)
{
    return so->so_state & SS_ISFCONNECTING;
}

static void flow_addr4(const struct socket *so, SlirpFlowAddr *ret)
{
    ret->guest = so->so_laddr;
    ret->peer = so->so_faddr;
    ret->guest_port = ntohs(so->so_lport);
    ret->peer_port = ntohs(so->so_fport);
}

static void flow_unreach(Slirp *slirp, const SlirpFlowAddr *addr,
                         uint8_t proto, uint32_t word, uint8_t code);

static bool flow_unreach_code(SlirpFlowVerdict how, uint8_t *ret_code)
{
    switch (how) {
    case SLIRP_FLOW_UNREACH_NET:
        *ret_code = ICMP_UNREACH_NET;
        return true;
    case SLIRP_FLOW_UNREACH_HOST:
        *ret_code = ICMP_UNREACH_HOST;
        return true;
    case SLIRP_FLOW_UNREACH_PORT:
        *ret_code = ICMP_UNREACH_PORT;
        return true;
    case SLIRP_FLOW_UNREACH_ADMIN:
        *ret_code = 13; /* RFC 1812, 5.2.7.1 */
        return true;
    case SLIRP_FLOW_DROP:
    case SLIRP_FLOW_RST:
    case SLIRP_FLOW_PENDING:
    case SLIRP_FLOW_ACCEPT:
        break;
    }
    return false;
}

static void flow_do_refuse(struct socket *so)
{
    struct tcpcb *tp = sototcpcb(so);
    SlirpFlowAddr addr;
    uint8_t code;

    if (so->fl.refuse == SLIRP_FLOW_RST) {
        tcp_drop(tp, 0);
        return;
    }
    if (flow_unreach_code(so->fl.refuse, &code)) {
        flow_addr4(so, &addr);
        flow_unreach(so->slirp, &addr, IPPROTO_TCP, tp->irs, code);
    }
    tcp_close(tp);
}

/* False: the flow is gone. */
static bool flow_do(struct socket *so)
{
    struct tcpcb *tp = sototcpcb(so);
    unsigned todo = so->fl.todo;

    so->fl.todo = 0;
    if (!todo || !so->fl.taken)
        return true;

    if (todo & (FLOW_TODO_ABORT | FLOW_TODO_REFUSE)) {
        so->fl.end = SLIRP_FLOW_END_LOCAL;
        if ((todo & FLOW_TODO_REFUSE) && flow_is_pending(so))
            flow_do_refuse(so);
        else
            tcp_drop(tp, 0);
        return false;
    }
    if ((todo & FLOW_TODO_ACCEPT) && flow_is_pending(so)) {
        so->so_state &= ~SS_ISFCONNECTING;
        tp->t_flags |= TF_ACKNOW;
        tp->t_timer[TCPT_KEEP] = TCPTV_KEEP_INIT;
        tcp_output(tp);
    }
    /* Before that the handshake comes first; soisfconnected asks again. */
    if (tp->t_state < TCPS_ESTABLISHED)
        return true;
    if (todo & FLOW_TODO_EOF)
        tcp_sockclosed(tp); /* frees only what is not established */
    else if (todo & FLOW_TODO_OUTPUT)
        tcp_output(tp);
    return true;
}

void flow_leave(Slirp *slirp)
{
    struct flow_state *fs = &slirp->fl;
    struct socket *so;

    if (fs->depth > 1) {
        fs->depth--;
        return;
    }
    while ((so = fs->todo_head)) {
        fs->todo_head = so->fl.todo_next;
        if (!fs->todo_head)
            fs->todo_tail = NULL;
        so->fl.queued = false;
        if (flow_do(so))
            flow_settle(so);
    }
    fs->depth--;
}

/* --- struct socket: what socket.c did ------------------------------------ */

struct socket *socreate(Slirp *slirp, int type)
{
    struct socket *so = g_new0(struct socket, 1);

    so->so_type = type;
    so->slirp = slirp;
    so->s = so->s_aux = -1;
    slirp->fl.nflows++;
    return so;
}

static void flow_time_wait_add(struct socket *so)
{
    struct flow_state *fs = &so->slirp->fl;

    if (so->fl.evictable)
        return;
    so->fl.evictable = true;
    so->fl.tw_next = NULL;
    so->fl.tw_prev = fs->time_wait_tail;
    if (fs->time_wait_tail)
        fs->time_wait_tail->fl.tw_next = so;
    else
        fs->time_wait_head = so;
    fs->time_wait_tail = so;
}

static void flow_time_wait_remove(struct socket *so)
{
    struct flow_state *fs = &so->slirp->fl;

    if (!so->fl.evictable)
        return;
    so->fl.evictable = false;
    if (so->fl.tw_prev)
        so->fl.tw_prev->fl.tw_next = so->fl.tw_next;
    else
        fs->time_wait_head = so->fl.tw_next;
    if (so->fl.tw_next)
        so->fl.tw_next->fl.tw_prev = so->fl.tw_prev;
    else
        fs->time_wait_tail = so->fl.tw_prev;
}

void sofree(struct socket *so)
{
    Slirp *slirp = so->slirp;

    flow_todo_remove(so);
    if (so->fl.time_wait)
        slirp->fl.ntime_wait--;
    slirp->fl.nflows--;
    flow_table_remove(so);
    flow_unsettle(so);
    flow_time_wait_remove(so);
    slirp_remque(so);
    g_free(so);
}

/* Both ways are shut: the engine resets a guest that sends more. */
static void flow_shut(struct socket *so, int mine, int other)
{
    if (so->so_state & other) {
        so->so_state &= SS_PERSISTENT_MASK;
        so->so_state |= SS_NOFDREF;
    } else {
        so->so_state |= mine;
    }
}

static void flow_finish(struct socket *so);

/* The guest's last byte has been taken after its FIN. */
static void sofcantsendmore(struct socket *so)
{
    Slirp *slirp = so->slirp;

    so->so_state &= ~SS_FWDRAIN;
    flow_shut(so, SS_FCANTSENDMORE, SS_FCANTRCVMORE);
    if (so->fl.eof_in)
        return;
    so->fl.eof_in = true;
    if (so->fl.taken)
        ops(slirp)->tcp_eof(so->fl.cookie, slirp->opaque);
}

void sofwdrain(struct socket *so)
{
    if (so->so_rcv.sb_cc)
        so->so_state |= SS_FWDRAIN;
    else
        sofcantsendmore(so);
}

/* The handshake is complete, in either direction. */
void soisfconnected(struct socket *so)
{
    Slirp *slirp = so->slirp;

    so->so_state &= ~(SS_ISFCONNECTING | SS_NOFDREF);
    so->so_state |= SS_ISFCONNECTED;
    if (so->fl.taken && ops(slirp)->tcp_established)
        ops(slirp)->tcp_established(so->fl.cookie, slirp->opaque);
    flow_todo(so, so->fl.eof_out ? FLOW_TODO_EOF : FLOW_TODO_OUTPUT);
}

/* A buffer may be empty now. While flows are few it keeps its memory; a guest
 * that fills one after the other of very many is not to have all of it at once. */
static void flow_spare(struct socket *so, struct sbuf *sb)
{
    if (sb->sb_cc || so->slirp->fl.nflows <= FLOW_SPARE_MAX)
        return;
    sbfree(sb);
    sb->sb_data = sb->sb_rptr = sb->sb_wptr = NULL;
}

/* The guest has acknowledged num bytes. */
void sodrop(struct socket *so, int num)
{
    Slirp *slirp = so->slirp;
    bool room = num > 0 && sbdrop(&so->so_snd, num);

    if (num > 0)
        flow_spare(so, &so->so_snd);
    if (room && so->fl.taken && !so->fl.eof_out)
        ops(slirp)->tcp_writable(so->fl.cookie, sbspace(&so->so_snd),
                                 slirp->opaque);
}

/* The engine has bytes from the guest and nothing is held: offer them where
 * they are. Returns how many were taken. */
ssize_t slirp_send(struct socket *so, const void *buf, size_t len, int flags)
{
    Slirp *slirp = so->slirp;
    struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
    size_t n;

    if (!so->fl.taken)
        return len;
    so->fl.in_data = true;
    n = ops(slirp)->tcp_data(so->fl.cookie, &iov, 1, slirp->opaque);
    so->fl.in_data = false;
    return MIN(n, len);
}

static size_t flow_pieces(const struct sbuf *sb, struct iovec iov[2])
{
    size_t right = sb->sb_data + sb->sb_datalen - sb->sb_rptr;

    iov[0].iov_base = sb->sb_rptr;
    iov[0].iov_len = MIN(right, sb->sb_cc);
    iov[1].iov_base = sb->sb_data;
    iov[1].iov_len = sb->sb_cc - iov[0].iov_len;
    return sb->sb_cc;
}

/* Bytes left the receive buffer: offer the window, end what was waiting. */
static void flow_consumed(struct socket *so)
{
    flow_todo(so, FLOW_TODO_OUTPUT);
    if (so->so_rcv.sb_cc == 0 && (so->so_state & SS_FWDRAIN)) {
        sofcantsendmore(so);
        flow_finish(so);
    }
}

/* Offer all that is held. */
void flow_deliver(struct socket *so)
{
    Slirp *slirp = so->slirp;
    struct iovec iov[2];
    size_t n, held;

    if (so->fl.in_data || !so->fl.taken || !so->so_rcv.sb_cc)
        return;
    held = flow_pieces(&so->so_rcv, iov);
    so->fl.in_data = true;
    n = ops(slirp)->tcp_data(so->fl.cookie, iov, iov[1].iov_len ? 2 : 1,
                             slirp->opaque);
    so->fl.in_data = false;
    n = MIN(n, held);
    if (n) {
        sbtake(&so->so_rcv, n);
        flow_spare(so, &so->so_rcv);
        flow_consumed(so);
    }
}

/* --- beginning and end of a flow ----------------------------------------- */

/* The engine is about to free a flow. */
void flow_closed(struct socket *so)
{
    Slirp *slirp = so->slirp;

    if (!so->fl.taken)
        return;
    so->fl.taken = false;
    ops(slirp)->tcp_closed(so->fl.cookie, so->fl.end, slirp->opaque);
}

/* In TIME-WAIT with nothing left to fetch, the embedder is done with it. */
static void flow_finish(struct socket *so)
{
    if (!so->fl.time_wait || so->so_rcv.sb_cc)
        return;
    so->fl.end = SLIRP_FLOW_END_CLEAN;
    flow_closed(so);
    sbfree(&so->so_rcv);
    sbfree(&so->so_snd);
    so->so_rcv.sb_data = so->so_snd.sb_data = NULL;
    flow_time_wait_add(so);
}

/* Free the flow that nobody needs and that is in TIME-WAIT for the longest time,
 * but not this one. */
static bool flow_evict(Slirp *slirp, struct socket *keep)
{
    struct socket *so = slirp->fl.time_wait_head;

    if (so && so == keep)
        so = so->fl.tw_next;
    if (!so)
        return false;
    tcp_close(sototcpcb(so));
    return true;
}

/* The engine has put a flow into TIME-WAIT. */
void flow_time_wait(struct socket *so)
{
    Slirp *slirp = so->slirp;

    if (!so->fl.time_wait) {
        so->fl.time_wait = true;
        slirp->fl.ntime_wait++;
    }
    flow_finish(so);
    if (slirp->fl.ntime_wait > FLOW_TIME_WAIT_MAX)
        flow_evict(slirp, so);
}

/* RFC 6528: a clock of 4 us plus a keyed hash of the four-tuple, as in Linux
 * SipHash-2-4. */
uint32_t flow_isn(const struct socket *so)
{
    Slirp *slirp = so->slirp;

    return (uint32_t)flow_prf(slirp->fl.isn_key, so->so_laddr, so->so_lport,
                              so->so_faddr, so->so_fport) +
           (uint32_t)(ops(slirp)->clock_ns(slirp->opaque) / 4000);
}

/* The same for a four-tuple that is in TIME-WAIT, beyond the last sequence
 * number of the old connection (RFC 1122, 4.2.2.13). */
uint32_t flow_isn_after(const struct socket *so, uint32_t last)
{
    uint32_t isn = flow_isn(so);

    if (SEQ_GT(isn, last + 65535))
        return isn;
    return last + 65536 + (isn & 0xffff);
}

/*
 * How much more the guest may send. Without scaling 64 KiB is all that can be
 * said; with it, and once the guest has sent some, a flow's limit is its share
 * of what all may have on the way, and never less than that. It grows while
 * nothing is held: sb_datalen is then a promise, and sbappend allocates as
 * much.
 */
long flow_window(struct socket *so)
{
    struct tcpcb *tp = sototcpcb(so);
    struct sbuf *sb = &so->so_rcv;
    size_t limit = FLOW_RCVSPACE;

    if ((tp->t_flags & TF_RCVD_SCALE) &&
        (so->fl.rcv_limit > FLOW_RCVSPACE ||
         tp->rcv_nxt - tp->irs > FLOW_RCVSPACE / 2))
        limit = CLAMP(FLOW_RCVSPACE_SHARED / so->slirp->fl.nflows,
                      FLOW_RCVSPACE, FLOW_RCVSPACE_MAX);
    if (!sb->sb_cc && sb->sb_datalen < limit) {
        sbfree(sb);
        sb->sb_data = NULL;
        sb->sb_datalen = limit;
    }
    so->fl.rcv_limit = MIN(limit, sb->sb_datalen);
    return MAX((long)so->fl.rcv_limit - (long)sb->sb_cc, 0);
}

static struct socket *flow_new(Slirp *slirp, const SlirpFlowAddr *addr,
                               void *cookie)
{
    struct socket *so = socreate(slirp, IPPROTO_TCP);
    struct tcpcb *tp;

    so->so_ffamily = so->so_lfamily = AF_INET;
    so->so_laddr = addr->guest;
    so->so_lport = htons(addr->guest_port);
    so->so_faddr = addr->peer;
    so->so_fport = htons(addr->peer_port);
    so->fl.cookie = cookie;
    so->fl.taken = true;
    so->fl.end = SLIRP_FLOW_END_PROTOCOL;
    so->fl.synced = slirp->fl.tick;
    tcp_attach(so);
    flow_table_add(so);
    tp = sototcpcb(so);
    so->so_snd.sb_datalen = TCP_SNDSPACE;
    so->so_rcv.sb_datalen = FLOW_RCVSPACE;
    so->fl.rcv_limit = FLOW_RCVSPACE;
    while (TCP_MAXWIN << tp->request_r_scale < FLOW_RCVSPACE_MAX)
        tp->request_r_scale++;
    tcp_template(tp);
    flow_touch(so);
    return so;
}

/* Class E is here: hosts connect to it, and whoever asks is to be answered. */
static bool flow_unicast(struct in_addr a)
{
    uint32_t host = ntohl(a.s_addr);

    return host != 0 && host >> 28 != 0xe && host != 0xffffffffu;
}

/* What the guest's SYN says about it. */
static void flow_syn_options(struct socket *so, struct tcpiphdr *ti,
                             uint8_t *optp, int optlen)
{
    struct tcpcb *tp = sototcpcb(so);

    tcp_dooptions(tp, optp, optlen, ti);
    tp->irs = ti->ti_seq;
    tcp_rcvseqinit(tp);
    tp->rcv_up = tp->rcv_nxt;
    tp->snd_wnd = tp->max_sndwnd = ti->ti_win;
    tp->snd_wl1 = ti->ti_seq;
    tp->snd_wl2 = tp->iss;
}

/*
 * A SYN without a flow: ask, and allocate only for PENDING and ACCEPT. Data
 * in the SYN is not acknowledged, so it comes again after the handshake.
 * Returns RST when the caller has to answer with one; everything else has
 * been dealt with.
 */
SlirpFlowVerdict flow_tcp_syn(Slirp *slirp, struct tcpiphdr *ti, uint8_t *optp,
                              int optlen, uint32_t iss)
{
    struct flow_state *fs = &slirp->fl;
    SlirpFlowAddr addr = {
        .guest = ti->ti_src,
        .peer = ti->ti_dst,
        .guest_port = ntohs(ti->ti_sport),
        .peer_port = ntohs(ti->ti_dport),
    };
    SlirpFlowVerdict verdict;
    void *cookie = NULL;
    struct socket *so;
    struct tcpcb *tp;
    uint8_t code;

    if (!addr.guest_port || !addr.peer_port || !flow_unicast(addr.peer)) {
        if (fs->ops->other)
            fs->ops->other(IPPROTO_TCP, addr.guest, addr.peer, slirp->opaque);
        return SLIRP_FLOW_DROP;
    }
    if (fs->nflows >= fs->max_flows && !flow_evict(slirp, NULL)) {
        fs->stats.drop_syn++;
        return SLIRP_FLOW_DROP;
    }

    verdict = fs->ops->tcp_open(&addr, &cookie, slirp->opaque);
    if (verdict != SLIRP_FLOW_PENDING && verdict != SLIRP_FLOW_ACCEPT) {
        if (flow_unreach_code(verdict, &code))
            flow_unreach(slirp, &addr, IPPROTO_TCP, ti->ti_seq, code);
        return verdict;
    }

    so = flow_new(slirp, &addr, cookie);
    so->so_state = SS_ISFCONNECTING;
    tp = sototcpcb(so);
    tp->t_state = TCPS_SYN_RECEIVED;
    tp->t_timer[TCPT_KEEP] = TCPTV_KEEP_INIT;
    tp->iss = iss ? iss : flow_isn(so);
    tcp_sendseqinit(tp);
    flow_syn_options(so, ti, optp, optlen);
    fs->ops->tcp_opened(so, cookie, slirp->opaque);
    if (verdict == SLIRP_FLOW_ACCEPT)
        flow_todo(so, FLOW_TODO_ACCEPT);
    return verdict;
}

/* A segment for a pending flow: the same SYN again is nothing new, another
 * one is a new attempt with the same ports, an RST ends it. */
void flow_tcp_pending(struct socket *so, struct tcpiphdr *ti, uint8_t *optp,
                      int optlen)
{
    struct tcpcb *tp = sototcpcb(so);

    if ((ti->ti_flags & TH_RST)) {
        if (ti->ti_seq == tp->rcv_nxt) {
            so->fl.end = SLIRP_FLOW_END_GUEST_RST;
            tcp_close(tp);
        }
        return;
    }
    if ((ti->ti_flags & (TH_SYN | TH_ACK | TH_FIN)) == TH_SYN &&
        ti->ti_seq != tp->irs)
        flow_syn_options(so, ti, optp, optlen);
}

/* --- frames --------------------------------------------------------------- */

/* The packet in m has no handler. m stays the caller's. */
void flow_other(struct mbuf *m, uint8_t proto)
{
    Slirp *slirp = m->slirp;
    struct ip *ip = mtod(m, struct ip *);

    if (ops(slirp)->other)
        ops(slirp)->other(proto, ip->ip_src, ip->ip_dst, slirp->opaque);
}

/* Count an mbuf that is going to be held. False: too much is held already. */
bool flow_hold(struct mbuf *m)
{
    struct flow_state *fs = &m->slirp->fl;

    if (fs->stats.held_bytes + m->m_size > FLOW_HELD_MAX)
        return false;
    m->m_held = m->m_size;
    fs->stats.held_bytes += m->m_held;
    return true;
}

/* The most bytes of a flow in one packet: with TSO what an IPv4 packet holds.
 * Window and congestion go on counting in segments (t_maxseg). */
int flow_send_max(const struct tcpcb *tp)
{
    if (!(tp->t_socket->slirp->fl.offload & SLIRP_FLOW_OFFLOAD_TSO))
        return tp->t_maxseg;
    return 65535 - sizeof(struct ip) - sizeof(struct tcphdr);
}

/* What may be on the way before the guest has acknowledged anything (RFC 6928). */
uint32_t flow_initial_window(uint32_t mss)
{
    return MIN(10 * mss, MAX(2 * mss, 14600));
}

/* Data for a packet, len bytes at off in the send buffer, without a copy: m has
 * the headers only. False when the checksum needs the bytes anyway. A packet is
 * sent before tcp_output returns, so the buffer does not move under it. */
bool flow_gather(struct socket *so, struct mbuf *m, size_t off, size_t len)
{
    struct tcpcb *tp = sototcpcb(so);
    struct sbuf *sb = &so->so_snd;
    size_t right;
    char *from;

    if (!(so->slirp->fl.offload & SLIRP_FLOW_OFFLOAD_CSUM))
        return false;
    g_assert(off + len <= sb->sb_cc);
    from = sb->sb_rptr + off;
    if (from >= sb->sb_data + sb->sb_datalen)
        from -= sb->sb_datalen;
    right = sb->sb_data + sb->sb_datalen - from;
    m->m_off.tail[0].iov_base = from;
    m->m_off.tail[0].iov_len = MIN(right, len);
    m->m_off.tail[1].iov_base = sb->sb_data;
    m->m_off.tail[1].iov_len = len - m->m_off.tail[0].iov_len;
    m->m_off.csum_partial = true;
    m->m_off.gso_size = len > tp->t_maxseg ? tp->t_maxseg : 0;
    return true;
}

/* Send a frame whose first piece has all headers. */
static void flow_send(Slirp *slirp, const struct iovec *iov, int cnt,
                      const SlirpFlowMeta *meta)
{
    if (ops(slirp)->send_packetv)
        ops(slirp)->send_packetv(iov, cnt, meta, slirp->opaque);
    else
        ops(slirp)->send_packet(iov->iov_base, iov->iov_len, slirp->opaque);
}

/* Put the Ethernet header in front of a packet and send it. */
int if_encap(Slirp *slirp, struct mbuf *m)
{
    struct iovec iov[SLIRP_FLOW_IOV_MAX];
    SlirpFlowMeta meta = { 0 };
    const struct ip *ip = mtod(m, struct ip *);
    struct ethhdr *eh;
    int i, cnt = 1;

    if (!slirp->fl.guest_known || M_ROOMBEFORE(m) < ETH_HLEN)
        return 1;
    eh = (struct ethhdr *)(m->m_data - ETH_HLEN);
    memcpy(eh->h_dest, slirp->fl.guest_mac, ETH_ALEN);
    memcpy(eh->h_source, slirp->fl.gateway_mac, ETH_ALEN);
    eh->h_proto = htons(ETH_P_IP);
    iov[0].iov_base = eh;
    iov[0].iov_len = m->m_len + ETH_HLEN;
    for (i = 0; i < 2; i++)
        if (m->m_off.tail[i].iov_len)
            iov[cnt++] = m->m_off.tail[i];
    if (m->m_off.csum_partial) {
        meta.needs_csum = true;
        meta.csum_start = ETH_HLEN + sizeof(struct ip);
        if (ip->ip_p == IPPROTO_TCP) {
            meta.csum_offset = offsetof(struct tcphdr, th_sum);
            meta.hdr_len = meta.csum_start + sizeof(struct tcphdr);
        } else {
            meta.csum_offset = offsetof(struct udphdr, uh_sum);
            meta.hdr_len = meta.csum_start + sizeof(struct udphdr);
        }
        meta.gso_size = m->m_off.gso_size;
    }
    flow_send(slirp, iov, cnt, &meta);
    return 1;
}

static void flow_arp(Slirp *slirp, const uint8_t *frame, size_t len)
{
    struct flow_state *fs = &slirp->fl;
    uint8_t reply[64] = { 0 };
    struct iovec iov = { .iov_base = reply, .iov_len = sizeof(reply) };
    SlirpFlowMeta meta = { 0 };
    struct ethhdr *eh = (struct ethhdr *)reply;
    struct slirp_arphdr ask, *answer = (struct slirp_arphdr *)(reply + ETH_HLEN);

    if (len < ETH_HLEN + sizeof(ask)) {
        fs->stats.drop_frame++;
        return;
    }
    memcpy(&ask, frame + ETH_HLEN, sizeof(ask));
    if (ask.ar_hrd != htons(1) || ask.ar_pro != htons(ETH_P_IP) ||
        ask.ar_hln != ETH_ALEN || ask.ar_pln != 4) {
        fs->stats.drop_frame++;
        return;
    }
    /* 0 is a probe (RFC 5227) */
    if (memcmp(ask.ar_sha, fs->guest_mac, ETH_ALEN) != 0 ||
        (ask.ar_sip != 0 && ask.ar_sip != fs->guest.s_addr)) {
        fs->stats.drop_source++;
        return;
    }
    if (ask.ar_op != htons(ARPOP_REQUEST) || ask.ar_tip == ask.ar_sip ||
        ask.ar_tip == fs->guest.s_addr)
        return;
    if (ask.ar_tip != slirp->vhost_addr.s_addr &&
        ask.ar_tip != slirp->vnameserver_addr.s_addr &&
        !(fs->arp_all && ask.ar_sip != 0))
        return;

    memcpy(eh->h_dest, fs->guest_mac, ETH_ALEN);
    memcpy(eh->h_source, fs->gateway_mac, ETH_ALEN);
    eh->h_proto = htons(ETH_P_ARP);
    *answer = ask;
    answer->ar_op = htons(ARPOP_REPLY);
    memcpy(answer->ar_sha, fs->gateway_mac, ETH_ALEN);
    answer->ar_sip = ask.ar_tip;
    memcpy(answer->ar_tha, fs->guest_mac, ETH_ALEN);
    answer->ar_tip = ask.ar_sip;
    flow_send(slirp, &iov, 1, &meta);
}

/* To align the IP header, room for the tcpiphdr in front of it, and with the
 * Ethernet header for two pointers in front of that, which are aligned too. */
#define FLOW_ROOM (TCPIPHDR_DELTA + 2)
G_STATIC_ASSERT(SLIRP_FLOW_HEADROOM >= FLOW_ROOM &&
                (SLIRP_FLOW_HEADROOM - FLOW_ROOM) % 8 == 0);

static void flow_ip(Slirp *slirp, const uint8_t *frame, size_t len,
                    bool csum_ok, bool lent)
{
    struct flow_state *fs = &slirp->fl;
    struct mbuf *m;
    uint16_t frag;
    uint8_t proto;

    if (memcmp(frame, fs->gateway_mac, ETH_ALEN) != 0 ||
        len < ETH_HLEN + sizeof(struct ip) || len > ETH_HLEN + 65535) {
        fs->stats.drop_frame++;
        return;
    }
    if (memcmp(frame + ETH_HLEN + offsetof(struct ip, ip_src),
               &fs->guest.s_addr, 4) != 0) {
        fs->stats.drop_source++;
        return;
    }
    memcpy(&frag, frame + ETH_HLEN + offsetof(struct ip, ip_off), 2);
    frag = ntohs(frag) & (IP_MF | IP_OFFMASK);
    proto = frame[ETH_HLEN + offsetof(struct ip, ip_p)];
    m = m_get(slirp);
    if (lent && !frag && (proto == IPPROTO_TCP || proto == IPPROTO_UDP)) {
        m->m_ext = (char *)frame - FLOW_ROOM;
        m->m_size = FLOW_ROOM + len;
        m->m_data = m->m_ext;
        m->m_flags |= M_EXT | M_LENT;
    } else {
        if (M_FREEROOM(m) < (int)len + FLOW_ROOM)
            m_inc(m, len + FLOW_ROOM);
        memcpy(m->m_data + FLOW_ROOM, frame, len);
    }
    m->m_data += FLOW_ROOM + ETH_HLEN;
    m->m_len = len - ETH_HLEN;
    /* The datagram that a fragment ends up in is not what was vouched for. */
    m->m_off.csum_ok = csum_ok && !frag;
    ip_input(m);
}

static void flow_input(Slirp *slirp, const uint8_t *frame, size_t len,
                       bool csum_ok, bool lent)
{
    struct flow_state *fs = &slirp->fl;
    uint16_t type;

    if (len < ETH_HLEN) {
        fs->stats.drop_frame++;
        return;
    }
    if (!fs->guest_known ||
        memcmp(frame + ETH_ALEN, fs->guest_mac, ETH_ALEN) != 0) {
        fs->stats.drop_source++;
        return;
    }
    flow_enter(slirp);
    type = (uint16_t)(frame[12] << 8 | frame[13]);
    if (type == ETH_P_IP)
        flow_ip(slirp, frame, len, csum_ok, lent);
    else if (type == ETH_P_ARP)
        flow_arp(slirp, frame, len);
    else
        fs->stats.drop_frame++;
    flow_leave(slirp);
}

void slirp_flow_input(Slirp *slirp, const uint8_t *frame, size_t len)
{
    flow_input(slirp, frame, len, false, false);
}

void slirp_flow_input_trusted(Slirp *slirp, const uint8_t *frame, size_t len)
{
    flow_input(slirp, frame, len, true, false);
}

void slirp_flow_input_lent(Slirp *slirp, uint8_t *frame, size_t len,
                           bool trusted)
{
    flow_input(slirp, frame, len, trusted, true);
}

void slirp_flow_begin(Slirp *slirp)
{
    flow_enter(slirp);
}

void slirp_flow_end(Slirp *slirp)
{
    flow_leave(slirp);
}

void slirp_flow_set_offload(Slirp *slirp, unsigned flags)
{
    flags &= SLIRP_FLOW_OFFLOAD_CSUM | SLIRP_FLOW_OFFLOAD_TSO |
             SLIRP_FLOW_OFFLOAD_USO;
    if (!(flags & SLIRP_FLOW_OFFLOAD_CSUM) || !ops(slirp)->send_packetv)
        flags = 0;
    slirp->fl.offload = flags;
}

/* --- UDP: what udp.c did -------------------------------------------------- */

/* m_data points at the IP header, ip_len is what follows the header. */
void udp_input(struct mbuf *m, int iphlen)
{
    Slirp *slirp = m->slirp;
    SlirpFlowAddr addr;
    struct ip *ip;
    struct udphdr *uh;
    int len;

    if (iphlen > (int)sizeof(struct ip)) {
        ip_stripoptions(m, NULL);
        iphlen = sizeof(struct ip);
    }
    ip = mtod_check(m, iphlen + sizeof(struct udphdr));
    if (!ip)
        goto out;
    uh = (struct udphdr *)((char *)ip + iphlen);
    len = ntohs(uh->uh_ulen);
    if (len < (int)sizeof(struct udphdr) || len > ip->ip_len)
        goto out;
    m->m_len = iphlen + len;

    addr.guest = ip->ip_src;
    addr.peer = ip->ip_dst;
    addr.guest_port = ntohs(uh->uh_sport);
    addr.peer_port = ntohs(uh->uh_dport);

    if (uh->uh_sum && !m->m_off.csum_ok) {
        memset(&((struct ipovly *)ip)->ih_mbuf, 0, sizeof(struct mbuf_ptr));
        ((struct ipovly *)ip)->ih_x1 = 0;
        ((struct ipovly *)ip)->ih_len = uh->uh_ulen;
        if (cksum(m, m->m_len))
            goto out;
    }
    ops(slirp)->udp_input(&addr, (const uint8_t *)(uh + 1),
                          len - sizeof(struct udphdr), slirp->opaque);
out:
    m_free(m);
}

/* An empty mbuf with room for len bytes of IP packet and its link header. */
static struct mbuf *flow_packet(Slirp *slirp, size_t len)
{
    struct mbuf *m = m_get(slirp);

    m->m_data += IF_MAXLINKHDR;
    if (M_ROOM(m) < (int)len)
        m_inc(m, len);
    m->m_len = len;
    return m;
}

/* gather: the bytes stay where they are, and the card sums them; size: it cuts
 * them into datagrams of so many, if not 0. */
static void udp_push(Slirp *slirp, const SlirpFlowAddr *addr, const void *data,
                     size_t len, bool gather, size_t size)
{
    struct udpiphdr *ui;
    struct mbuf *m;

    flow_enter(slirp);
    m = flow_packet(slirp, sizeof(*ui) + (gather ? 0 : len));
    ui = mtod(m, struct udpiphdr *);
    memset(ui, 0, sizeof(*ui));
    if (gather) {
        m->m_off.csum_partial = true;
        m->m_off.gso_size = (uint16_t)size;
        m->m_off.tail[0].iov_base = (void *)data;
        m->m_off.tail[0].iov_len = len;
    } else if (len) {
        memcpy(ui + 1, data, len);
    }
    ui->ui_pr = IPPROTO_UDP;
    ui->ui_len = ui->ui_ulen = htons((uint16_t)(sizeof(struct udphdr) + len));
    ui->ui_src = addr->peer;
    ui->ui_dst = addr->guest;
    ui->ui_sport = htons(addr->peer_port);
    ui->ui_dport = htons(addr->guest_port);
    if (gather)
        ui->ui_sum = ~cksum(m, offsetof(struct udpiphdr, ui_u));
    else if ((ui->ui_sum = cksum(m, m->m_len)) == 0)
        ui->ui_sum = 0xffff;
    memset(ui, 0, offsetof(struct ip, ip_src));
    ((struct ip *)ui)->ip_len = sizeof(*ui) + len;
    ((struct ip *)ui)->ip_ttl = IPDEFTTL;
    ((struct ip *)ui)->ip_p = IPPROTO_UDP;
    ip_output(NULL, m);
    flow_leave(slirp);
}

bool slirp_flow_udp_push(Slirp *slirp, const SlirpFlowAddr *addr,
                         const void *data, size_t len)
{
    if (len > 65535 - sizeof(struct udpiphdr))
        return false;
    /* A fragmented datagram has its checksum: no card completes that. */
    udp_push(slirp, addr, data, len,
             len && (slirp->fl.offload & SLIRP_FLOW_OFFLOAD_CSUM) &&
                 sizeof(struct udpiphdr) + len <= slirp->if_mtu,
             0);
    return true;
}

bool slirp_flow_udp_push_run(Slirp *slirp, const SlirpFlowAddr *addr,
                             const void *data, size_t len, size_t size)
{
    if (!(slirp->fl.offload & SLIRP_FLOW_OFFLOAD_USO) || size == 0 ||
        len <= size || len > 65535 - sizeof(struct udpiphdr) ||
        sizeof(struct udpiphdr) + size > slirp->if_mtu)
        return false;
    udp_push(slirp, addr, data, len, true, size);
    return true;
}

/* --- ICMP ------------------------------------------------------------------ */

/* Destination unreachable about a packet that is not at hand: its header and
 * first eight bytes are made from the tuple. word (host order) is what follows
 * the ports: TCP's sequence number, UDP's length and checksum. */
static void flow_unreach(Slirp *slirp, const SlirpFlowAddr *addr,
                         uint8_t proto, uint32_t word, uint8_t code)
{
    struct packet {
        struct ip ip;
        uint8_t type, code;
        uint16_t sum;
        uint32_t unused;
        struct ip inner;
        uint16_t sport, dport;
        uint32_t word;
    } SLIRP_PACKED *p;
    struct mbuf *m;

    m = flow_packet(slirp, sizeof(*p));
    p = mtod(m, struct packet *);
    memset(p, 0, sizeof(*p));

    p->inner.ip_v = IPVERSION;
    p->inner.ip_hl = sizeof(struct ip) >> 2;
    p->inner.ip_len = htons((uint16_t)(sizeof(struct ip) +
                                       (proto == IPPROTO_TCP ?
                                            sizeof(struct tcphdr) :
                                            sizeof(struct udphdr))));
    p->inner.ip_ttl = IPDEFTTL;
    p->inner.ip_p = proto;
    p->inner.ip_src = addr->guest;
    p->inner.ip_dst = addr->peer;
    p->sport = htons(addr->guest_port);
    p->dport = htons(addr->peer_port);
    p->word = htonl(word);
    m->m_data += offsetof(struct packet, inner);
    m->m_len -= offsetof(struct packet, inner);
    p->inner.ip_sum = cksum(m, sizeof(struct ip));

    p->type = ICMP_UNREACH;
    p->code = code;
    m->m_data -= offsetof(struct packet, inner) - offsetof(struct packet, type);
    m->m_len += offsetof(struct packet, inner) - offsetof(struct packet, type);
    p->sum = cksum(m, m->m_len);
    m->m_data -= offsetof(struct packet, type);
    m->m_len += offsetof(struct packet, type);

    p->ip.ip_len = m->m_len;
    p->ip.ip_ttl = MAXTTL;
    p->ip.ip_p = IPPROTO_ICMP;
    p->ip.ip_src = slirp->vhost_addr;
    p->ip.ip_dst = addr->guest;
    ip_output(NULL, m);
}

void slirp_flow_udp_unreach(Slirp *slirp, const SlirpFlowAddr *addr,
                            uint8_t code)
{
    flow_enter(slirp);
    flow_unreach(slirp, addr, IPPROTO_UDP,
                 (uint32_t)sizeof(struct udphdr) << 16, code);
    flow_leave(slirp);
}

/* --- the flow API ---------------------------------------------------------- */

static void flow_ask(SlirpFlow *so, unsigned what)
{
    if (!so->fl.taken)
        return;
    flow_enter(so->slirp);
    flow_todo(so, what);
    flow_leave(so->slirp);
}

void slirp_flow_accept(SlirpFlow *so)
{
    flow_ask(so, FLOW_TODO_ACCEPT);
}

void slirp_flow_refuse(SlirpFlow *so, SlirpFlowVerdict how)
{
    so->fl.refuse = how;
    flow_ask(so, FLOW_TODO_REFUSE);
}

void slirp_flow_abort(SlirpFlow *so)
{
    flow_ask(so, FLOW_TODO_ABORT);
}

void slirp_flow_eof(SlirpFlow *so)
{
    if (!so->fl.taken || so->fl.eof_out)
        return;
    so->fl.eof_out = true;
    flow_shut(so, SS_FCANTRCVMORE, SS_FCANTSENDMORE);
    flow_ask(so, FLOW_TODO_EOF);
}

size_t slirp_flow_room(SlirpFlow *so, struct iovec iov[2])
{
    struct sbuf *sb = &so->so_snd;
    size_t room, right;

    room = so->fl.taken && !so->fl.eof_out ? sbspace(sb) : 0;
    if (!iov)
        return room;
    if (!sb->sb_data)
        sbreserve(sb, sb->sb_datalen);
    right = sb->sb_data + sb->sb_datalen - sb->sb_wptr;
    iov[0].iov_base = sb->sb_wptr;
    iov[0].iov_len = MIN(right, room);
    iov[1].iov_base = sb->sb_data;
    iov[1].iov_len = room - iov[0].iov_len;
    return room;
}

void slirp_flow_commit(SlirpFlow *so, size_t n)
{
    struct sbuf *sb = &so->so_snd;

    n = MIN(n, slirp_flow_room(so, NULL));
    if (!n || !sb->sb_data) {
        flow_spare(so, sb);
        return;
    }
    sb->sb_cc += n;
    sb->sb_wptr += n;
    if (sb->sb_wptr >= sb->sb_data + sb->sb_datalen)
        sb->sb_wptr -= sb->sb_datalen;
    flow_ask(so, FLOW_TODO_OUTPUT);
}

size_t slirp_flow_push(SlirpFlow *so, const void *data, size_t len)
{
    struct iovec iov[2];
    size_t n;

    if (!len || !slirp_flow_room(so, NULL))
        return 0;
    len = MIN(len, slirp_flow_room(so, iov));
    n = MIN(len, iov[0].iov_len);
    memcpy(iov[0].iov_base, data, n);
    if (len > n)
        memcpy(iov[1].iov_base, (const char *)data + n, len - n);
    slirp_flow_commit(so, len);
    return len;
}

size_t slirp_flow_held(SlirpFlow *so, struct iovec iov[2])
{
    if (!iov)
        return so->so_rcv.sb_cc;
    if (!so->so_rcv.sb_data) {
        memset(iov, 0, 2 * sizeof(*iov));
        return 0;
    }
    return flow_pieces(&so->so_rcv, iov);
}

void slirp_flow_drop(SlirpFlow *so, size_t n)
{
    Slirp *slirp = so->slirp;

    n = MIN(n, so->so_rcv.sb_cc);
    if (!n || !so->fl.taken || so->fl.in_data)
        return;
    flow_enter(slirp);
    sbtake(&so->so_rcv, n);
    flow_spare(so, &so->so_rcv);
    flow_consumed(so);
    flow_leave(slirp);
}

void slirp_flow_pull(SlirpFlow *so)
{
    Slirp *slirp = so->slirp;

    flow_enter(slirp);
    flow_deliver(so);
    flow_leave(slirp);
}

void slirp_flow_addr(const SlirpFlow *so, SlirpFlowAddr *ret_addr)
{
    flow_addr4(so, ret_addr);
}

void *slirp_flow_cookie(const SlirpFlow *so)
{
    return so->fl.cookie;
}

SlirpFlow *slirp_flow_connect(Slirp *slirp, const SlirpFlowAddr *addr,
                              void *cookie)
{
    struct socket *so;
    struct tcpcb *tp;

    if (slirp->fl.nflows >= slirp->fl.max_flows ||
        flow_find(slirp, addr->guest, htons(addr->guest_port), addr->peer,
                  htons(addr->peer_port)))
        return NULL;

    flow_enter(slirp);
    so = flow_new(slirp, addr, cookie);
    so->so_state = SS_INCOMING;
    tp = sototcpcb(so);
    tp->t_state = TCPS_SYN_SENT;
    tp->t_timer[TCPT_KEEP] = TCPTV_KEEP_INIT;
    tp->iss = flow_isn(so);
    tcp_sendseqinit(tp);
    tcp_output(tp);
    flow_leave(slirp);
    return so;
}

/* --- the instance ----------------------------------------------------------- */

void slirp_flow_set_guest(Slirp *slirp, const uint8_t mac[6],
                          struct in_addr addr)
{
    static const uint8_t none[ETH_ALEN];

    memcpy(slirp->fl.guest_mac, mac, ETH_ALEN);
    slirp->fl.guest = addr;
    slirp->fl.guest_known = memcmp(mac, none, ETH_ALEN) != 0 &&
                            !(mac[0] & 1) && flow_unicast(addr);
}

Slirp *slirp_flow_new(const SlirpFlowConfig *cfg, const SlirpFlowOps *o,
                      void *opaque)
{
    static const uint8_t none[ETH_ALEN];
    Slirp *slirp;

    if ((cfg->mtu && (cfg->mtu < SLIRP_FLOW_MTU_MIN ||
                      cfg->mtu > SLIRP_FLOW_MTU_MAX)) ||
        !flow_unicast(cfg->gateway) || !o->clock_ns ||
        (!o->send_packet && !o->send_packetv) ||
        !o->tcp_open || !o->tcp_opened || !o->tcp_data || !o->tcp_eof ||
        !o->tcp_writable || !o->tcp_closed || !o->udp_input)
        return NULL;

    slirp = g_new0(Slirp, 1);
    slirp->opaque = opaque;
    slirp->in_enabled = true;
    slirp->if_mtu = slirp->if_mru = cfg->mtu ? cfg->mtu : IF_MTU_DEFAULT;
    slirp->vhost_addr = cfg->gateway;
    slirp->vnameserver_addr =
        cfg->resolver.s_addr ? cfg->resolver : cfg->gateway;
    slirp->fl.ops = o;
    slirp->fl.arp_all = cfg->arp_all;
    slirp->fl.next_tick_ns = o->clock_ns(opaque);
    slirp->fl.max_flows =
        cfg->max_flows ? cfg->max_flows : SLIRP_FLOW_MAX_DEFAULT;
    memcpy(slirp->fl.secret, cfg->secret, sizeof(slirp->fl.secret));
    memcpy(slirp->fl.gateway_mac, cfg->gateway_mac, ETH_ALEN);
    if (memcmp(cfg->gateway_mac, none, ETH_ALEN) == 0) {
        slirp->fl.gateway_mac[0] = 0x52;
        slirp->fl.gateway_mac[1] = 0x55;
        memcpy(slirp->fl.gateway_mac + 2, &cfg->gateway, 4);
    }
    slirp_flow_set_guest(slirp, cfg->guest_mac, cfg->guest);
    flow_table_init(slirp);
    if_init(slirp);
    ip_init(slirp);
    m_init(slirp);
    return slirp;
}

void slirp_flow_free(Slirp *slirp)
{
    struct socket *so, *next;

    if (!slirp)
        return;
    slirp->fl.depth++; /* for good: callbacks find nothing more done */
    for (so = slirp->tcb.so_next; so != &slirp->tcb; so = next) {
        next = so->so_next;
        so->fl.end = SLIRP_FLOW_END_SHUTDOWN;
    }
    ip_cleanup(slirp);
    m_cleanup(slirp);
    flow_table_free(slirp);
    flow_timer_free(slirp);
    memset(slirp->fl.secret, 0, sizeof(slirp->fl.secret));
    memset(slirp->fl.isn_key, 0, sizeof(slirp->fl.isn_key));
    memset(slirp->fl.table_key, 0, sizeof(slirp->fl.table_key));
    g_free(slirp);
}

void slirp_flow_stats(const Slirp *slirp, SlirpFlowStats *ret_stats)
{
    *ret_stats = slirp->fl.stats;
    ret_stats->flows = slirp->fl.nflows;
}
