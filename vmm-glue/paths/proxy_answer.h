/* SPDX-License-Identifier: BSD-3-Clause */
/* What the proxy front says to its clients: pages (http/page.h) with the status that belongs to the reason. Pure. */
#ifndef SM_PATHS_PROXY_ANSWER_H
#define SM_PATHS_PROXY_ANSWER_H

#include <glib.h>

#include "flow/msg.h"

struct sm_proxy_answer {
    uint16_t status;
    const char *reason;
    const char *host; /* whom the client asked for; NULL: not known */
    const char *workspace;
    bool head_only; /* of a HEAD request */
};

/** sm_proxy_answer() - the whole response, with Connection: close; 407 asks for Basic. */
GBytes *sm_proxy_answer(const struct sm_proxy_answer *a);
/** sm_proxy_answer_refusal() - status and reason of the core's REFUSE, or of a bound of ours (NULL). */
void sm_proxy_answer_refusal(const struct sm_flow_msg *msg, struct sm_proxy_answer *ret);

#endif
