/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside table, and the facts of this machine beside it: see inside.h.
 *
 * The table is scanned from the top and the first range that holds the address wins, so a special address stands above
 * the range it lies in.
 */
#include "policy/inside.h"

#include <string.h>

static const char *const kind_names[] = {
    [SM_INSIDE_NONE] = "none",
    [SM_INSIDE_PRIVATE] = "private",
    [SM_INSIDE_SHARED] = "shared",
    [SM_INSIDE_UNIQUE_LOCAL] = "unique_local",
    [SM_INSIDE_PROTOCOL] = "protocol",
    [SM_INSIDE_BENCHMARK] = "benchmark",
    [SM_INSIDE_RESERVED] = "reserved",
    [SM_INSIDE_SITE_LOCAL] = "site_local",
    [SM_INSIDE_EXTRA] = "extra",
    [SM_INSIDE_LOOPBACK] = "loopback",
    [SM_INSIDE_THIS_NETWORK] = "this_network",
    [SM_INSIDE_LINK_LOCAL] = "link_local",
    [SM_INSIDE_METADATA] = "metadata",
    [SM_INSIDE_MULTICAST] = "multicast",
    [SM_INSIDE_BROADCAST] = "broadcast",
    [SM_INSIDE_OWN] = "own",
    [SM_INSIDE_NETWORK] = "network",
    [SM_INSIDE_WORKSPACE] = "workspace",
    [SM_INSIDE_LISTENER] = "listener",
};
SM_NAME_TABLE_COVERS(kind_names, SM_INSIDE_KINDS);

#define V4(a, b, c, d, bits, k)                                                                                        \
    {                                                                                                                  \
        {{SM_FAMILY_V4, {a, b, c, d}}, bits}, k                                                                        \
    }
#define V6(bits, k, ...)                                                                                               \
    {                                                                                                                  \
        {{SM_FAMILY_V6, {__VA_ARGS__}}, bits}, k                                                                       \
    }

/* The one table. */
static const struct {
    struct sm_prefix range;
    enum sm_inside_kind kind;
} inside_table[] = {
    V4(169, 254, 169, 254, 32, SM_INSIDE_METADATA),  /* AWS, GCP, Azure, OpenStack, ... */
    V4(168, 63, 129, 16, 32, SM_INSIDE_METADATA),    /* Azure wire server: a public number */
    V4(100, 100, 100, 200, 32, SM_INSIDE_METADATA),  /* Alibaba Cloud, inside 100.64/10 */
    V4(255, 255, 255, 255, 32, SM_INSIDE_BROADCAST), /* RFC 919 */
    V4(0, 0, 0, 0, 8, SM_INSIDE_THIS_NETWORK),       /* RFC 791 */
    V4(10, 0, 0, 0, 8, SM_INSIDE_PRIVATE),           /* RFC 1918 */
    V4(100, 64, 0, 0, 10, SM_INSIDE_SHARED),         /* RFC 6598 */
    V4(127, 0, 0, 0, 8, SM_INSIDE_LOOPBACK),         /* RFC 1122 */
    V4(169, 254, 0, 0, 16, SM_INSIDE_LINK_LOCAL),    /* RFC 3927 */
    V4(172, 16, 0, 0, 12, SM_INSIDE_PRIVATE),        /* RFC 1918 */
    V4(192, 0, 0, 0, 24, SM_INSIDE_PROTOCOL),        /* RFC 6890 */
    V4(192, 168, 0, 0, 16, SM_INSIDE_PRIVATE),       /* RFC 1918 */
    V4(198, 18, 0, 0, 15, SM_INSIDE_BENCHMARK),      /* RFC 2544 */
    V4(224, 0, 0, 0, 4, SM_INSIDE_MULTICAST),        /* RFC 5771 */
    V4(240, 0, 0, 0, 4, SM_INSIDE_RESERVED),         /* RFC 1112 */
    V6(128, SM_INSIDE_METADATA, 0xfd, 0x00, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54), /* AWS */
    V6(128, SM_INSIDE_METADATA, 0xfd, 0x20, 0x00, 0xce, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54), /* GCP */
    V6(128, SM_INSIDE_THIS_NETWORK, 0),                                                            /* RFC 4291 */
    V6(128, SM_INSIDE_LOOPBACK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1),                   /* RFC 4291 */
    V6(7, SM_INSIDE_UNIQUE_LOCAL, 0xfc),                                                           /* RFC 4193 */
    V6(10, SM_INSIDE_LINK_LOCAL, 0xfe, 0x80),                                                      /* RFC 4291 */
    V6(10, SM_INSIDE_SITE_LOCAL, 0xfe, 0xc0),                                                      /* RFC 3879 */
    V6(8, SM_INSIDE_MULTICAST, 0xff),                                                              /* RFC 4291 */
};

/* Prefixes under which an IPv6 address stands for an IPv4 one. */
static const struct sm_prefix mapped = {{SM_FAMILY_V6, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}}, 96};
static const struct sm_prefix compatible = {{SM_FAMILY_V6, {0}}, 96};
static const struct sm_prefix nat64 = {{SM_FAMILY_V6, {0x00, 0x64, 0xff, 0x9b}}, 96};
static const struct sm_prefix nat64_local = {{SM_FAMILY_V6, {0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}}, 48};
static const struct sm_prefix sixtofour = {{SM_FAMILY_V6, {0x20, 0x02}}, 16};
static const struct sm_prefix teredo = {{SM_FAMILY_V6, {0x20, 0x01, 0x00, 0x00}}, 32};

struct sm_ground {
    struct sm_addr *own;
    size_t n_own;
    struct sm_prefix network; /* family none: not set */
    struct sm_addr resolver;  /* family none: none */
    struct sm_prefix *extra;
    size_t n_extra;
    struct sm_prefix *workspaces;
    size_t n_workspaces;
    struct sm_endpoint *listeners;
    size_t n_listeners;
};

const char *sm_inside_kind_name(enum sm_inside_kind kind)
{
    return (unsigned)kind < SM_INSIDE_KINDS ? kind_names[kind] : "?";
}

enum sm_inside_class sm_inside_class(enum sm_inside_kind kind)
{
    switch (kind) {
    case SM_INSIDE_NONE:
        return SM_INSIDE_CLASS_PUBLIC;
    case SM_INSIDE_PRIVATE:
    case SM_INSIDE_SHARED:
    case SM_INSIDE_UNIQUE_LOCAL:
        return SM_INSIDE_CLASS_PIN;
    case SM_INSIDE_PROTOCOL:
    case SM_INSIDE_BENCHMARK:
    case SM_INSIDE_RESERVED:
    case SM_INSIDE_SITE_LOCAL:
    case SM_INSIDE_EXTRA:
        return SM_INSIDE_CLASS_RULE;
    case SM_INSIDE_LOOPBACK:
    case SM_INSIDE_THIS_NETWORK:
    case SM_INSIDE_LINK_LOCAL:
    case SM_INSIDE_METADATA:
    case SM_INSIDE_MULTICAST:
    case SM_INSIDE_BROADCAST:
    case SM_INSIDE_OWN:
    case SM_INSIDE_NETWORK:
        return SM_INSIDE_CLASS_SMALL_RULE;
    case SM_INSIDE_WORKSPACE:
    case SM_INSIDE_LISTENER:
    case SM_INSIDE_KINDS:
        break;
    }
    return SM_INSIDE_CLASS_NEVER;
}

static enum sm_inside_kind table_kind(const struct sm_addr *addr)
{
    if (addr->family == SM_FAMILY_NONE)
        return SM_INSIDE_RESERVED;
    for (size_t i = 0; i < SM_ARRAY_LEN(inside_table); i++)
        if (sm_prefix_contains(&inside_table[i].range, addr))
            return inside_table[i].kind;
    return SM_INSIDE_NONE;
}

static struct sm_addr v4_at(const uint8_t b[4])
{
    return sm_addr_v4(b[0], b[1], b[2], b[3]);
}

size_t sm_inside_embedded(const struct sm_addr *addr, struct sm_addr ret[SM_INSIDE_EMBEDDED_MAX])
{
    const uint8_t *b = addr->bytes;

    if (addr->family != SM_FAMILY_V6)
        return 0;
    if (sm_prefix_contains(&mapped, addr) || sm_prefix_contains(&nat64, addr)) {
        ret[0] = v4_at(b + 12);
        return 1;
    }
    if (sm_prefix_contains(&compatible, addr)) {
        /* :: and ::1 are addresses of their own, and the table has them. */
        if (table_kind(addr) != SM_INSIDE_NONE)
            return 0;
        ret[0] = v4_at(b + 12);
        return 1;
    }
    if (sm_prefix_contains(&nat64_local, addr)) {
        /* RFC 6052 2.2: under a /48 bits 64..71 are zero in the middle of the address; whoever chose a /96 has it at
         * the end. We cannot know which one the site's translator uses, so both count, and all-zero is what the layout
         * that is not used looks like. */
        struct sm_addr inner = sm_addr_v4(b[6], b[7], b[9], b[10]);
        struct sm_addr outer = v4_at(b + 12);
        size_t n = 0;
        if (sm_addr_to_u32(&inner) != 0)
            ret[n++] = inner;
        if (sm_addr_to_u32(&outer) != 0 || n == 0)
            ret[n++] = outer;
        return n;
    }
    if (sm_prefix_contains(&sixtofour, addr)) {
        ret[0] = v4_at(b + 2);
        return 1;
    }
    if (sm_prefix_contains(&teredo, addr)) {
        ret[0] = v4_at(b + 4);
        ret[1] = sm_addr_v4((uint8_t)~b[12], (uint8_t)~b[13], (uint8_t)~b[14], (uint8_t)~b[15]);
        return 2;
    }
    return 0;
}

enum sm_inside_kind sm_inside_kind(const struct sm_addr *addr)
{
    return sm_ground_kind(NULL, &(struct sm_endpoint){.addr = *addr}, NULL);
}

struct sm_ground *sm_ground_new(void)
{
    return g_new0(struct sm_ground, 1);
}

void sm_ground_free(struct sm_ground *ground)
{
    if (!ground)
        return;
    g_free(ground->own);
    g_free(ground->extra);
    g_free(ground->workspaces);
    g_free(ground->listeners);
    g_free(ground);
}

static void *copy_array(const void *items, size_t n, size_t size)
{
    return n ? g_memdup2(items, n * size) : NULL;
}

bool sm_ground_set_own(struct sm_ground *ground, const struct sm_addr *addrs, size_t n)
{
    if (n > SM_GROUND_OWN_MAX)
        return false;
    g_free(ground->own);
    ground->own = copy_array(addrs, n, sizeof(*addrs));
    ground->n_own = n;
    return true;
}

void sm_ground_set_network(struct sm_ground *ground, const struct sm_prefix *network, const struct sm_addr *resolver)
{
    ground->network = *network;
    ground->resolver = resolver ? *resolver : (struct sm_addr){0};
}

bool sm_ground_add_inside(struct sm_ground *ground, const struct sm_prefix *range)
{
    if (ground->n_extra >= SM_GROUND_EXTRA_MAX)
        return false;
    ground->extra = g_renew(struct sm_prefix, ground->extra, ground->n_extra + 1);
    ground->extra[ground->n_extra++] = *range;
    return true;
}

bool sm_ground_set_workspaces(struct sm_ground *ground, const struct sm_prefix *ranges, size_t n)
{
    if (n > SM_GROUND_WORKSPACES_MAX)
        return false;
    g_free(ground->workspaces);
    ground->workspaces = copy_array(ranges, n, sizeof(*ranges));
    ground->n_workspaces = n;
    return true;
}

bool sm_ground_set_listeners(struct sm_ground *ground, const struct sm_endpoint *listeners, size_t n)
{
    if (n > SM_GROUND_LISTENERS_MAX)
        return false;
    g_free(ground->listeners);
    ground->listeners = copy_array(listeners, n, sizeof(*listeners));
    ground->n_listeners = n;
    return true;
}

bool sm_ground_is_resolver(const struct sm_ground *ground, const struct sm_endpoint *dst)
{
    return ground && dst->port == 53 && ground->resolver.family != SM_FAMILY_NONE &&
           sm_addr_equal(&ground->resolver, &dst->addr);
}

static bool is_unspecified(const struct sm_addr *a)
{
    static const uint8_t zero[16];
    return memcmp(a->bytes, zero, sizeof(zero)) == 0;
}

static bool is_own(const struct sm_ground *ground, const struct sm_addr *addr)
{
    for (size_t i = 0; i < ground->n_own; i++)
        if (sm_addr_equal(&ground->own[i], addr))
            return true;
    return false;
}

static bool in_any(const struct sm_prefix *ranges, size_t n, const struct sm_addr *addr)
{
    for (size_t i = 0; i < n; i++)
        if (sm_prefix_contains(&ranges[i], addr))
            return true;
    return false;
}

static bool is_listener(const struct sm_ground *ground, const struct sm_addr *addr, uint16_t port,
                        enum sm_inside_kind fixed)
{
    for (size_t i = 0; i < ground->n_listeners; i++) {
        const struct sm_endpoint *l = &ground->listeners[i];
        if (l->port != 0 && l->port != port)
            continue;
        if (sm_addr_equal(&l->addr, addr))
            return true;
        if (is_unspecified(addr) && table_kind(&l->addr) == SM_INSIDE_LOOPBACK)
            return true;
        if (is_unspecified(&l->addr) &&
            (fixed == SM_INSIDE_LOOPBACK || fixed == SM_INSIDE_THIS_NETWORK || is_own(ground, addr)))
            return true;
    }
    return false;
}

/* The kind of one address, embedded ones aside. */
static enum sm_inside_kind plain_kind(const struct sm_ground *ground, const struct sm_addr *addr, uint16_t port)
{
    enum sm_inside_kind fixed = table_kind(addr);

    if (!ground)
        return fixed;
    if (is_listener(ground, addr, port, fixed))
        return SM_INSIDE_LISTENER;
    if (in_any(ground->workspaces, ground->n_workspaces, addr))
        return SM_INSIDE_WORKSPACE;
    if (sm_ground_is_resolver(ground, &(struct sm_endpoint){.addr = *addr, .port = port}))
        return SM_INSIDE_NONE;
    if (sm_inside_class(fixed) == SM_INSIDE_CLASS_SMALL_RULE)
        return fixed;
    if (is_own(ground, addr))
        return SM_INSIDE_OWN;
    if (ground->network.addr.family != SM_FAMILY_NONE && sm_prefix_contains(&ground->network, addr))
        return SM_INSIDE_NETWORK;
    if (fixed == SM_INSIDE_NONE && in_any(ground->extra, ground->n_extra, addr))
        return SM_INSIDE_EXTRA;
    return fixed;
}

enum sm_inside_kind sm_ground_kind(const struct sm_ground *ground, const struct sm_endpoint *dst,
                                   enum sm_inside_class *ret_class)
{
    struct sm_addr embedded[SM_INSIDE_EMBEDDED_MAX];
    size_t n = sm_inside_embedded(&dst->addr, embedded);
    enum sm_inside_kind kind = plain_kind(ground, &dst->addr, dst->port);
    enum sm_inside_class strictest = sm_inside_class(kind);

    for (size_t i = 0; i < n; i++) {
        enum sm_inside_kind inner = plain_kind(ground, &embedded[i], dst->port);
        enum sm_inside_class inner_class = sm_inside_class(inner);
        if (inner_class == SM_INSIDE_CLASS_PIN)
            inner_class = SM_INSIDE_CLASS_RULE;
        if (inner_class > strictest) {
            kind = inner;
            strictest = inner_class;
        }
    }
    if (ret_class)
        *ret_class = strictest;
    return kind;
}
