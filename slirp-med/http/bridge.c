/* SPDX-License-Identifier: BSD-3-Clause */
/* The bridge's contract as functions: dispatch to the HTTP/1 or HTTP/2 engine behind it, and the name tables. See bridge.h. */
#include "http/bridge.h"

#include <string.h>
#include <strings.h>

static const char *const side_names[] = {
    [SM_BRIDGE_GUEST] = "guest",
    [SM_BRIDGE_ORIGIN] = "origin",
};
SM_NAME_TABLE_COVERS(side_names, SM_BRIDGE_SIDES);

static const char *const outcome_names[] = {
    [SM_BRIDGE_DONE] = "done",   [SM_BRIDGE_REFUSED] = "refused",   [SM_BRIDGE_BROKEN] = "broken",
    [SM_BRIDGE_RESET] = "reset", [SM_BRIDGE_UPGRADED] = "upgraded",
};
SM_NAME_TABLE_COVERS(outcome_names, SM_BRIDGE_OUTCOMES);

const char *sm_bridge_side_name(enum sm_bridge_side side)
{
    return side_names[side];
}

const char *sm_bridge_outcome_name(enum sm_bridge_outcome outcome)
{
    return outcome_names[outcome];
}

bool sm_bridge_request_field(const struct sm_bridge_request *r, size_t *at, struct sm_text *ret_name,
                             struct sm_text *ret_value)
{
    return r->next_field(r, at, ret_name, ret_value);
}

struct sm_text sm_bridge_request_value(const struct sm_bridge_request *r, const char *name, size_t index)
{
    struct sm_text n, value;
    size_t at = 0, len = strlen(name);

    while (sm_bridge_request_field(r, &at, &n, &value))
        if (n.len == len && strncasecmp(n.ptr, name, len) == 0 && index-- == 0)
            return value;
    return (struct sm_text){NULL, 0};
}

void sm_bridge_free(struct sm_bridge *b)
{
    if (b)
        b->vtable->free(b);
}

size_t sm_bridge_room(const struct sm_bridge *b, enum sm_bridge_side from)
{
    return b->vtable->room(b, from);
}

void sm_bridge_feed(struct sm_bridge *b, enum sm_bridge_side from, const uint8_t *data, size_t len)
{
    b->vtable->feed(b, from, data, len, false);
}

void sm_bridge_lend(struct sm_bridge *b, enum sm_bridge_side from, const uint8_t *data, size_t len)
{
    b->vtable->feed(b, from, data, len, true);
}

void sm_bridge_keep(struct sm_bridge *b)
{
    if (b->vtable->keep)
        b->vtable->keep(b);
}

void sm_bridge_eof(struct sm_bridge *b, enum sm_bridge_side from, bool cut)
{
    b->vtable->eof(b, from, cut);
}

size_t sm_bridge_out(struct sm_bridge *b, enum sm_bridge_side to, const uint8_t **ret)
{
    return b->vtable->out(b, to, ret);
}

void sm_bridge_took(struct sm_bridge *b, enum sm_bridge_side to, size_t n)
{
    b->vtable->took(b, to, n);
}

bool sm_bridge_out_closed(const struct sm_bridge *b, enum sm_bridge_side to)
{
    return b->vtable->out_closed(b, to);
}

void sm_bridge_answer(struct sm_bridge *b, uint64_t req, const struct sm_bridge_answer *answer)
{
    b->vtable->answer(b, req, answer);
}

enum sm_bridge_end sm_bridge_ended(const struct sm_bridge *b)
{
    return b->vtable->ended(b);
}

bool sm_bridge_idle(const struct sm_bridge *b)
{
    return b->vtable->idle(b);
}
