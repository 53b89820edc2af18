/* SPDX-License-Identifier: BSD-3-Clause */
/* vhost-user back-end: one function a message; see backend.h. */
#include "vhost/backend.h"

#include <linux/virtio_config.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

void sm_vhost_init(struct sm_vhost *vhost, const struct sm_vhost_device *device, const void *config, size_t config_len)
{
    *vhost = (struct sm_vhost){.device = device, .config = config, .config_len = config_len, .fd = -1};
    for (unsigned i = 0; i < SM_VHOST_RINGS_MAX; i++)
        sm_vhost_ring_init(&vhost->rings[i]);
}

/* ---- rings ---- */

static void set_kick(struct sm_vhost *vhost, unsigned i, int fd)
{
    struct sm_vhost_ring *ring = &vhost->rings[i];

    if (ring->kick_fd >= 0 || fd >= 0)
        vhost->device->kick(vhost, i, fd);
    sm_fd_close(&ring->kick_fd);
    ring->kick_fd = fd;
}

static void stop_ring(struct sm_vhost *vhost, unsigned i)
{
    struct sm_vhost_ring *ring = &vhost->rings[i];

    set_kick(vhost, i, -1);
    sm_fd_close(&ring->call_fd);
    sm_vhost_ring_stop(ring);
}

void sm_vhost_close(struct sm_vhost *vhost)
{
    for (unsigned i = 0; i < vhost->device->n_rings; i++) {
        stop_ring(vhost, i);
        sm_fd_close(&vhost->rings[i].err_fd);
        sm_vhost_ring_init(&vhost->rings[i]);
    }
    sm_vhost_mem_clear(&vhost->mem);
    sm_vhost_msg_clear(&vhost->in);
    vhost->out = (struct sm_vhost_out){0};
    vhost->features = 0;
    vhost->protocol_features = 0;
    vhost->fd = -1;
}

void sm_vhost_open(struct sm_vhost *vhost, int fd)
{
    sm_vhost_close(vhost);
    vhost->fd = fd;
}

bool sm_vhost_check(struct sm_vhost *vhost, unsigned index)
{
    struct sm_vhost_ring *ring = &vhost->rings[index];
    const uint64_t one = 1;

    if (ring->fault == SM_VHOST_FAULT_NONE || ring->fault_said)
        return ring->fault != SM_VHOST_FAULT_NONE;
    ring->fault_said = true;
    vhost->stats.broken++;
    sm_log_warning("vhost-user %s: ring %u is broken: %s", vhost->device->name, index,
                   sm_vhost_fault_name(ring->fault));
    if (ring->err_fd >= 0)
        (void)!write(ring->err_fd, &one, sizeof(one));
    return true;
}

static void set_enabled(struct sm_vhost *vhost)
{
    for (unsigned i = 0; i < vhost->device->n_rings; i++) {
        struct sm_vhost_ring *ring = &vhost->rings[i];
        ring->enabled = ring->enable >= 0 ? ring->enable > 0 : !sm_vhost_has(vhost, SM_VHOST_F_PROTOCOL_FEATURES);
    }
}

/* Start each ring that has all it needs by now. Returns what is wrong with one that lies outside memory. */
static const char *start_rings(struct sm_vhost *vhost)
{
    set_enabled(vhost);
    for (unsigned i = 0; i < vhost->device->n_rings; i++) {
        struct sm_vhost_ring *ring = &vhost->rings[i];
        if (ring->started || ring->num == 0 || !ring->has_addr || ring->kick_fd < 0 || vhost->mem.n == 0)
            continue;
        if (!sm_vhost_ring_map(ring, &vhost->mem)) {
            ring->fault = SM_VHOST_FAULT_NONE; /* it has not started */
            ring->has_addr = false;
            return sm_vhost_fault_name(SM_VHOST_FAULT_MEMORY);
        }
        sm_vhost_ring_start(ring, sm_vhost_has(vhost, VIRTIO_RING_F_EVENT_IDX),
                            sm_vhost_has(vhost, VIRTIO_RING_F_INDIRECT_DESC));
    }
    return NULL;
}

/* Memory has changed: what runs must be found anew. */
static void remap_rings(struct sm_vhost *vhost)
{
    for (unsigned i = 0; i < vhost->device->n_rings; i++) {
        struct sm_vhost_ring *ring = &vhost->rings[i];
        if (ring->started && ring->fault == SM_VHOST_FAULT_NONE && !sm_vhost_ring_map(ring, &vhost->mem))
            (void)sm_vhost_check(vhost, i);
    }
}

/* A ring is to be set up anew. One that runs is not; one that is started but disabled is stopped by it. */
static bool may_change(struct sm_vhost *vhost, unsigned i)
{
    const struct sm_vhost_ring *ring = &vhost->rings[i];

    if (ring->started && ring->enabled)
        return false;
    if (ring->started)
        stop_ring(vhost, i);
    return true;
}

/* ---- messages. Each returns NULL, or what is wrong with it. ---- */

static const char no_ring[] = "a message for a ring that this device does not have";
static const char is_running[] = "a running ring cannot be changed like that";

static const char *answer(struct sm_vhost *vhost, const void *payload, uint32_t len)
{
    sm_vhost_out_set(&vhost->out, vhost->in.request, payload, len);
    return NULL;
}

static const char *answer_u64(struct sm_vhost *vhost, uint64_t value)
{
    return answer(vhost, &value, sizeof(value));
}

static uint64_t offered(const struct sm_vhost *vhost)
{
    return vhost->device->features | UINT64_C(1) << SM_VHOST_F_PROTOCOL_FEATURES;
}

static const char *set_features(struct sm_vhost *vhost, struct sm_rd *r)
{
    uint64_t features = sm_vhost_u64(r);

    if (features & ~offered(vhost))
        return "features that were not offered";
    if (features == vhost->features)
        return NULL;
    for (unsigned i = 0; i < vhost->device->n_rings; i++)
        if (!may_change(vhost, i))
            return is_running;
    vhost->features = features;
    return NULL;
}

static const char *set_protocol_features(struct sm_vhost *vhost, struct sm_rd *r)
{
    uint64_t features = sm_vhost_u64(r);

    if (features & ~vhost->device->protocol_features)
        return "protocol features that were not offered";
    vhost->protocol_features = features;
    return NULL;
}

static struct sm_vhost_region_spec read_region(struct sm_rd *r)
{
    struct sm_vhost_region_spec s;

    s.gpa = sm_vhost_u64(r);
    s.size = sm_vhost_u64(r);
    s.uva = sm_vhost_u64(r);
    s.offset = sm_vhost_u64(r);
    return s;
}

static const char *set_mem_table(struct sm_vhost *vhost, struct sm_rd *r)
{
    uint32_t n = sm_vhost_u32(r);
    const char *why = NULL;

    (void)sm_vhost_u32(r); /* padding */
    if (n == 0 || n > SM_VHOST_FDS_MAX || sm_rd_left(r) != (size_t)n * SM_VHOST_REGION_LEN)
        why = "a memory table whose length does not fit its regions";
    else if (vhost->in.n_fds != n)
        why = "a memory table with more or fewer descriptors than regions";
    sm_vhost_mem_clear(&vhost->mem);
    for (uint32_t i = 0; i < n && !why; i++) {
        struct sm_vhost_region_spec s = read_region(r);
        (void)sm_vhost_mem_add(&vhost->mem, &s, vhost->in.fds[i], &why);
    }
    if (why)
        sm_vhost_mem_clear(&vhost->mem);
    remap_rings(vhost);
    return why;
}

static const char *add_mem_reg(struct sm_vhost *vhost, struct sm_rd *r)
{
    const char *why = NULL;

    (void)sm_vhost_u64(r); /* padding */
    struct sm_vhost_region_spec s = read_region(r);
    (void)sm_vhost_mem_add(&vhost->mem, &s, vhost->in.fds[0], &why);
    return why; /* the table has grown: what was found is where it was */
}

static const char *rem_mem_reg(struct sm_vhost *vhost, struct sm_rd *r)
{
    const char *why = NULL;

    (void)sm_vhost_u64(r); /* padding */
    struct sm_vhost_region_spec s = read_region(r);
    if (sm_vhost_mem_remove(&vhost->mem, &s, &why) == 0)
        remap_rings(vhost);
    return why;
}

static struct sm_vhost_ring *ring_of(struct sm_vhost *vhost, uint32_t index)
{
    return index < vhost->device->n_rings ? &vhost->rings[index] : NULL;
}

static const char *set_vring_num(struct sm_vhost *vhost, struct sm_rd *r)
{
    uint32_t index = sm_vhost_u32(r), num = sm_vhost_u32(r);
    struct sm_vhost_ring *ring = ring_of(vhost, index);

    if (!ring)
        return no_ring;
    if (num == 0 || num > SM_VHOST_RING_SIZE_MAX || (num & (num - 1)) != 0)
        return "a ring size that is no power of two, or too large";
    if (!may_change(vhost, index))
        return is_running;
    ring->num = num;
    return NULL;
}

static const char *set_vring_addr(struct sm_vhost *vhost, struct sm_rd *r)
{
    uint32_t index = sm_vhost_u32(r), flags = sm_vhost_u32(r);
    struct sm_vhost_ring *ring = ring_of(vhost, index);
    uint64_t desc = sm_vhost_u64(r), used = sm_vhost_u64(r), avail = sm_vhost_u64(r);

    if (!ring)
        return no_ring;
    if (flags != 0)
        return "a ring whose writes are to be logged, which was not offered";
    if (!may_change(vhost, index))
        return is_running;
    ring->desc_uva = desc;
    ring->used_uva = used;
    ring->avail_uva = avail;
    ring->has_addr = true;
    return NULL;
}

static const char *set_vring_base(struct sm_vhost *vhost, struct sm_rd *r)
{
    uint32_t index = sm_vhost_u32(r), base = sm_vhost_u32(r);
    struct sm_vhost_ring *ring = ring_of(vhost, index);

    if (!ring)
        return no_ring;
    if (base > UINT16_MAX)
        return "a ring index that a split ring does not have";
    if (!may_change(vhost, index))
        return is_running;
    ring->last_avail = (uint16_t)base;
    return NULL;
}

static const char *get_vring_base(struct sm_vhost *vhost, struct sm_rd *r)
{
    uint32_t index = sm_vhost_u32(r);
    struct sm_vhost_ring *ring = ring_of(vhost, index);

    if (!ring)
        return no_ring;
    stop_ring(vhost, index);
    const uint32_t state[2] = {index, ring->last_avail};
    return answer(vhost, state, sizeof(state));
}

static const char *set_vring_enable(struct sm_vhost *vhost, struct sm_rd *r)
{
    struct sm_vhost_ring *ring = ring_of(vhost, sm_vhost_u32(r));
    uint32_t on = sm_vhost_u32(r);

    if (!ring)
        return no_ring;
    if (on > 1)
        return "a ring that is to be neither enabled nor disabled";
    ring->enable = (int8_t)on;
    return NULL;
}

static const char *set_vring_fd(struct sm_vhost *vhost, struct sm_rd *r)
{
    uint64_t what = sm_vhost_u64(r);
    uint32_t index = what & SM_VHOST_VRING_INDEX;
    struct sm_vhost_ring *ring = ring_of(vhost, index);
    bool none = what & SM_VHOST_VRING_NOFD;

    if (!ring)
        return no_ring;
    if (what & ~(uint64_t)(SM_VHOST_VRING_INDEX | SM_VHOST_VRING_NOFD))
        return "unknown bits beside a ring's index";
    if (vhost->in.n_fds != (none ? 0u : 1u))
        return "a ring's descriptor that is missing, or one too many";
    if (none && vhost->in.request == SM_VHOST_SET_VRING_KICK)
        return "a ring that is to be polled, which is not done here";
    if (!none && sm_fd_set_nonblock(vhost->in.fds[0]) < 0)
        return "a ring's descriptor that cannot be used";
    int fd = -1;
    if (!none) {
        fd = vhost->in.fds[0];
        vhost->in.n_fds = 0;
    }
    if (vhost->in.request == SM_VHOST_SET_VRING_KICK)
        set_kick(vhost, index, fd);
    else {
        int *to = vhost->in.request == SM_VHOST_SET_VRING_CALL ? &ring->call_fd : &ring->err_fd;
        sm_fd_close(to);
        *to = fd;
    }
    return NULL;
}

static const char *get_config(struct sm_vhost *vhost, struct sm_rd *r)
{
    uint8_t reply[12 + SM_VHOST_CONFIG_MAX] = {0};
    uint32_t offset = sm_vhost_u32(r), size = sm_vhost_u32(r), flags = sm_vhost_u32(r);
    const uint32_t head[3] = {offset, size, flags};

    if (!(vhost->protocol_features >> SM_VHOST_PROTOCOL_CONFIG & 1) || sm_rd_left(r) != size)
        return "a question for a configuration space that there is not";
    /* "On error the back-end sends a zero length payload." */
    if (size > SM_VHOST_CONFIG_MAX || size > vhost->config_len || offset > vhost->config_len - size)
        return answer(vhost, NULL, 0);
    memcpy(reply, head, sizeof(head));
    memcpy(reply + sizeof(head), vhost->config + offset, size);
    return answer(vhost, reply, (uint32_t)sizeof(head) + size);
}

static const char *dispatch(struct sm_vhost *vhost, enum sm_vhost_request request)
{
    struct sm_rd r = sm_rd_init(vhost->in.payload, vhost->in.size);

    switch (request) {
    case SM_VHOST_GET_FEATURES:
        return answer_u64(vhost, offered(vhost));
    case SM_VHOST_SET_FEATURES:
        return set_features(vhost, &r);
    case SM_VHOST_SET_OWNER:
        return NULL;
    case SM_VHOST_RESET_OWNER: /* deprecated: "the back-end should ignore it" */
        return NULL;
    case SM_VHOST_SET_MEM_TABLE:
        return set_mem_table(vhost, &r);
    case SM_VHOST_SET_VRING_NUM:
        return set_vring_num(vhost, &r);
    case SM_VHOST_SET_VRING_ADDR:
        return set_vring_addr(vhost, &r);
    case SM_VHOST_SET_VRING_BASE:
        return set_vring_base(vhost, &r);
    case SM_VHOST_GET_VRING_BASE:
        return get_vring_base(vhost, &r);
    case SM_VHOST_SET_VRING_KICK:
    case SM_VHOST_SET_VRING_CALL:
    case SM_VHOST_SET_VRING_ERR:
        return set_vring_fd(vhost, &r);
    case SM_VHOST_GET_PROTOCOL_FEATURES:
        return answer_u64(vhost, vhost->device->protocol_features);
    case SM_VHOST_SET_PROTOCOL_FEATURES:
        return set_protocol_features(vhost, &r);
    case SM_VHOST_GET_QUEUE_NUM:
        return answer_u64(vhost, vhost->device->queue_num);
    case SM_VHOST_SET_VRING_ENABLE:
        return set_vring_enable(vhost, &r);
    case SM_VHOST_GET_CONFIG:
        return get_config(vhost, &r);
    case SM_VHOST_GET_MAX_MEM_SLOTS:
        return answer_u64(vhost, SM_VHOST_MEM_SLOTS);
    case SM_VHOST_ADD_MEM_REG:
        return add_mem_reg(vhost, &r);
    case SM_VHOST_REM_MEM_REG:
        return rem_mem_reg(vhost, &r);
    }
    return "a message that is not in the table";
}

static bool fds_fit(const struct sm_vhost_msg_info *info, unsigned n)
{
    switch (info->fds) {
    case SM_VHOST_FDS_NONE:
        return n == 0;
    case SM_VHOST_FDS_VRING:
    case SM_VHOST_FDS_IGNORED:
        return n <= 1;
    case SM_VHOST_FDS_ONE:
        return n == 1;
    case SM_VHOST_FDS_REGIONS:
        return n >= 1;
    }
    return false;
}

/* One whole message. Returns NULL, or why the connection is over. */
static const char *message(struct sm_vhost *vhost)
{
    struct sm_vhost_msg *m = &vhost->in;
    const struct sm_vhost_msg_info *info = sm_vhost_msg_info(m->request);
    const char *why = NULL;

    vhost->stats.messages++;
    if (!info)
        why = "a request that was not offered";
    else if (m->size < info->min || m->size > info->max)
        why = "a message of a wrong length";
    else if (!fds_fit(info, m->n_fds))
        why = "a message with the wrong number of descriptors";
    if (!why)
        why = dispatch(vhost, info->request);
    const char *start = start_rings(vhost);
    if (!why)
        why = start;
    vhost->device->changed(vhost);
    bool said = sm_vhost_wants_output(vhost);
    bool asked = m->flags & SM_VHOST_FLAG_NEED_REPLY && vhost->protocol_features >> SM_VHOST_PROTOCOL_REPLY_ACK & 1;
    bool ack = asked && !said && !(info && info->reply == SM_VHOST_REPLY_PAYLOAD);
    if (why) {
        vhost->stats.refused++;
        sm_log_warning("vhost-user %s: %s: %s", vhost->device->name, info ? info->name : "a message", why);
    }
    if (ack) {
        (void)answer_u64(vhost, why ? 1 : 0);
        why = NULL;
    }
    sm_vhost_msg_clear(m);
    return why;
}

int sm_vhost_output(struct sm_vhost *vhost)
{
    return sm_vhost_out_write(vhost->fd, &vhost->out);
}

int sm_vhost_input(struct sm_vhost *vhost, const char **ret_why)
{
    *ret_why = NULL;
    for (unsigned i = 0; i < SM_VHOST_INPUT_MAX && !sm_vhost_wants_output(vhost); i++) {
        int rc = sm_vhost_msg_read(vhost->fd, &vhost->in, ret_why);
        if (rc < 0 && *ret_why)
            vhost->stats.refused++;
        if (rc <= 0)
            return rc;
        if ((*ret_why = message(vhost)) != NULL)
            return -1;
        if (sm_vhost_output(vhost) < 0)
            return -1;
    }
    return 0;
}
