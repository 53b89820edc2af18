/* SPDX-License-Identifier: BSD-3-Clause */
/* The request table; see requests.h. */
#include "supervisor/requests.h"

#include <string.h>

static const char *const role_names[] = {
    [SM_CHILD_CORE] = "core", [SM_CHILD_FRONT] = "front", [SM_CHILD_GUEST] = "guest"};
SM_NAME_TABLE_COVERS(role_names, SM_CHILDREN);

static const char *const state_names[] = {
    [SM_CHILD_ABSENT] = "absent",   [SM_CHILD_STARTED] = "started",   [SM_CHILD_SERVING] = "serving",
    [SM_CHILD_RUNNING] = "running", [SM_CHILD_STOPPING] = "stopping", [SM_CHILD_GONE] = "gone",
};
SM_NAME_TABLE_COVERS(state_names, SM_CHILD_STATES);

static const char *const op_names[] = {
    [SM_REQUEST_CA] = "ca",
    [SM_REQUEST_READY] = "ready",
    [SM_REQUEST_TAP] = "tap",
    [SM_REQUEST_EXIT] = "exit",
    [SM_REQUEST_WANT] = "want",
    [SM_REQUEST_FETCH] = "fetch",
    [SM_REQUEST_LISTENERS] = "listeners",
    [SM_REQUEST_INGRESS] = "ingress",
    [SM_REQUEST_POLICY] = "policy",
    [SM_REQUEST_SNAPSHOT] = "snapshot",
    [SM_REQUEST_STATUS] = "status",
    [SM_REQUEST_FAIL] = "fail",
    [SM_REQUEST_PORT] = "port",
};
SM_NAME_TABLE_COVERS(op_names, SM_REQUEST_OPS);

static const char *const open_names[] = {[SM_OPEN_AUDIT] = "audit",
                                         [SM_OPEN_RESOLV] = "resolv",
                                         [SM_OPEN_ROOTS] = "roots",
                                         [SM_OPEN_FETCHROOTS] = "fetchroots",
                                         [SM_OPEN_REF] = "ref"};
SM_NAME_TABLE_COVERS(open_names, SM_OPEN_ROLES);

/** What may come with a message. */
enum need { NEED_NONE, NEED_ONE, NEED_EITHER };

#define BIT(n) (1u << (n))
#define CORE BIT(SM_CHILD_CORE)
#define FRONT BIT(SM_CHILD_FRONT)
#define GUEST BIT(SM_CHILD_GUEST)
#define STARTED BIT(SM_CHILD_STARTED)
#define SERVING BIT(SM_CHILD_SERVING)
#define RUNNING BIT(SM_CHILD_RUNNING)
#define STOPPING BIT(SM_CHILD_STOPPING)

static const struct request {
    enum sm_link_verb verb;
    unsigned roles, states; /* bit sets */
    enum need text, fd;
    bool owed; /* only as the answer to something asked */
    enum sm_request_op op;
} requests[] = {
    {SM_LINK_CA, CORE, STARTED | STOPPING, NEED_ONE, NEED_NONE, false, SM_REQUEST_CA},
    {SM_LINK_READY, CORE | FRONT, STARTED | STOPPING, NEED_NONE, NEED_NONE, false, SM_REQUEST_READY},
    {SM_LINK_TAP, GUEST, STARTED | STOPPING, NEED_EITHER, NEED_EITHER, false, SM_REQUEST_TAP},
    {SM_LINK_EXIT, GUEST, RUNNING | STOPPING, NEED_ONE, NEED_NONE, false, SM_REQUEST_EXIT},
    {SM_LINK_WANT, CORE, SERVING | STOPPING, NEED_ONE, NEED_NONE, false, SM_REQUEST_WANT},
    {SM_LINK_FETCH, CORE, SERVING | STOPPING, NEED_NONE, NEED_ONE, false, SM_REQUEST_FETCH},
    {SM_LINK_LISTENERS, CORE, SERVING | STOPPING, NEED_NONE, NEED_NONE, true, SM_REQUEST_LISTENERS},
    {SM_LINK_INGRESS, CORE, SERVING | STOPPING, NEED_NONE, NEED_NONE, true, SM_REQUEST_INGRESS},
    {SM_LINK_POLICY, CORE, SERVING | STOPPING, NEED_EITHER, NEED_NONE, true, SM_REQUEST_POLICY},
    {SM_LINK_SNAPSHOT, CORE, SERVING | STOPPING, NEED_EITHER, NEED_NONE, true, SM_REQUEST_SNAPSHOT},
    {SM_LINK_PORT, FRONT, SERVING | STOPPING, NEED_ONE, NEED_NONE, false, SM_REQUEST_PORT},
    {SM_LINK_STATUS, CORE | FRONT, SERVING | STOPPING, NEED_ONE, NEED_NONE, true, SM_REQUEST_STATUS},
    {SM_LINK_FAIL, CORE | FRONT | GUEST, STARTED | SERVING | RUNNING | STOPPING, NEED_EITHER, NEED_NONE, false,
     SM_REQUEST_FAIL},
};

const char *sm_child_role_name(enum sm_child_role role)
{
    return (unsigned)role < SM_CHILDREN ? role_names[role] : "invalid";
}

const char *sm_child_state_name(enum sm_child_state state)
{
    return (unsigned)state < SM_CHILD_STATES ? state_names[state] : "invalid";
}

const char *sm_request_op_name(enum sm_request_op op)
{
    return (unsigned)op < SM_REQUEST_OPS ? op_names[op] : "invalid";
}

const char *sm_open_role_name(enum sm_open_role role)
{
    return (unsigned)role < SM_OPEN_ROLES ? open_names[role] : "invalid";
}

/* Decimal, at most @digits of them, nothing around it. */
static bool parse_number(const char *text, size_t digits, unsigned *ret)
{
    size_t n = strspn(text, "0123456789");
    unsigned value = 0;

    if (n == 0 || n > digits || text[n] != '\0')
        return false;
    for (size_t i = 0; i < n; i++)
        value = value * 10 + (unsigned)(text[i] - '0');
    *ret = value;
    return true;
}

bool sm_open_role_parse(const char *text, enum sm_open_role *ret, unsigned *ret_index)
{
    const char *colon = strchr(text, ':');
    unsigned index = 0;

    for (unsigned i = 0; i < SM_OPEN_ROLES; i++) {
        bool numbered = i == SM_OPEN_REF;
        size_t len = strlen(open_names[i]);
        if (strncmp(text, open_names[i], len) != 0 || text + len != (numbered ? colon : text + strlen(text)))
            continue;
        if (numbered && (!parse_number(colon + 1, 4, &index) || index >= SM_OPEN_REFS_MAX))
            return false;
        *ret = (enum sm_open_role)i;
        *ret_index = index;
        return true;
    }
    return false;
}

bool sm_request_ca_hash(const char *text)
{
    return strlen(text) == 8 && strspn(text, "0123456789abcdef") == 8;
}

bool sm_request_exit_status(const char *text, int *ret)
{
    unsigned value;

    if (!parse_number(text, 3, &value) || value > 255)
        return false;
    *ret = (int)value;
    return true;
}

bool sm_request_keeper_pid(const char *text, pid_t *ret)
{
    unsigned value;

    /* /proc/sys/kernel/pid_max ends at 4,194,304 */
    if (!parse_number(text, 7, &value) || value < 2)
        return false;
    *ret = (pid_t)value;
    return true;
}

static bool fits(enum need need, bool there)
{
    switch (need) {
    case NEED_NONE:
        return !there;
    case NEED_ONE:
        return there;
    case NEED_EITHER:
        return true;
    }
    return false;
}

bool sm_request_find(enum sm_child_role role, enum sm_child_state state, const struct sm_link_msg *msg, unsigned asked,
                     enum sm_request_op *ret, const char **ret_why)
{
    *ret_why = "is not its to say";
    for (size_t i = 0; i < SM_ARRAY_LEN(requests); i++) {
        const struct request *r = &requests[i];
        if (r->verb != msg->verb || !(r->roles & BIT(role)))
            continue;
        if (!(r->states & BIT(state))) {
            *ret_why = "comes at the wrong time";
            continue;
        }
        if (!fits(r->text, msg->text[0] != '\0')) {
            *ret_why = r->text == NEED_ONE ? "lacks its text" : "has a text that it may not have";
            return false;
        }
        if (!fits(r->fd, msg->fd >= 0)) {
            *ret_why = r->fd == NEED_ONE ? "lacks its descriptor" : "has a descriptor that it may not have";
            return false;
        }
        if (r->owed && asked == 0) {
            *ret_why = "was not asked for";
            return false;
        }
        *ret = r->op;
        return true;
    }
    return false;
}
