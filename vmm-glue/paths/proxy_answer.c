/* SPDX-License-Identifier: BSD-3-Clause */
/* Answers of the proxy front; see proxy_answer.h. */
#include "paths/proxy_answer.h"

#include <string.h>

#include "http/page.h"
#include "nat/sock.h"
#include "policy/reason.h"

GBytes *sm_proxy_answer(const struct sm_proxy_answer *a)
{
    char body[SM_HTTP_PAGE_MAX];
    struct sm_http_page page = {.status = a->status, .reason = a->reason, .workspace = a->workspace};

    if (a->host)
        page.host = (struct sm_text){a->host, strlen(a->host)};
    size_t len = sm_http_page_body(&page, body, sizeof(body));
    GString *out = g_string_new(NULL);
    g_string_printf(out, "HTTP/1.1 %u %s\r\n", (unsigned)a->status, sm_http_status_text(a->status));
    if (a->status == 407)
        g_string_append(out, "Proxy-Authenticate: Basic realm=\"slirp-med\"\r\n");
    g_string_append_printf(out, "Content-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
                           len);
    if (!a->head_only)
        g_string_append_len(out, body, (gssize)len);
    return g_string_free_to_bytes(out);
}
_Static_assert(SM_HTTP_PAGE_MAX + SM_HTTP_PAGE_HEAD_MAX <= SM_SOCK_ANSWER_MAX, "an answer is one that a hook may give");

void sm_proxy_answer_refusal(const struct sm_flow_msg *msg, struct sm_proxy_answer *ret)
{
    enum sm_reason reason = msg && msg->reason < SM_REASONS ? (enum sm_reason)msg->reason : SM_REASON_LIMIT;

    ret->reason = sm_reason_name(reason);
    switch (reason) {
    case SM_REASON_NONE: /* nobody decided it: upstream is so */
        ret->status = msg && (msg->how == SM_HOW_ICMP_HOST || msg->how == SM_HOW_SILENT) ? 504 : 502;
        ret->reason = ret->status == 504 ? "upstream_unreachable" : "upstream_refused";
        return;
    case SM_REASON_BAD_NAME:
    case SM_REASON_BAD_DESTINATION:
        ret->status = 400;
        return;
    case SM_REASON_UNRESOLVED:
        ret->status = 502;
        return;
    case SM_REASON_LIMIT:
        ret->status = 503;
        return;
    case SM_REASON_INSIDE:
    case SM_REASON_LOOPBACK:
    case SM_REASON_LINK_LOCAL:
    case SM_REASON_METADATA:
    case SM_REASON_MULTICAST:
    case SM_REASON_OWN_ADDRESS:
    case SM_REASON_VIRTUAL_NETWORK:
    case SM_REASON_EAST_WEST:
    case SM_REASON_LISTENER:
    case SM_REASON_DENY_LIST:
    case SM_REASON_UNLISTED:
    case SM_REASON_UNLISTED_NAME:
    case SM_REASON_NO_NAME:
    case SM_REASON_CLASSIFY_TIMEOUT:
    case SM_REASON_QUIC:
    case SM_REASON_DNS_OVER_TLS:
    case SM_REASON_IPV6:
    case SM_REASON_NAME_MISMATCH:
    /* why it would be let through: no refusal has these, and one that says so is a refusal */
    case SM_REASON_OFF:
    case SM_REASON_PUBLIC:
    case SM_REASON_RULE:
    case SM_REASON_PIN:
    case SM_REASON_RESOLVED:
    case SM_REASON_ROUTE:
    case SM_REASON_LISTED:
    case SM_REASON_WAITING:
    case SM_REASON_RESOLVER:
    case SM_REASONS:
        break;
    }
    ret->status = 403;
}
