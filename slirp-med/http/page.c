/* SPDX-License-Identifier: BSD-3-Clause */
/* Denial pages: one JSON object, written by hand because it is six strings and one of them is the guest's. See page.h. */
#include "http/page.h"

#include <glib.h>
#include <string.h>

#include "base/rw.h"

/* A name is at most this long; what the guest wrote behind it explains nothing. */
#define HOST_MAX 253

static const struct {
    uint16_t status;
    const char *text;
    const char *error; /* the page's word */
} statuses[] = {
    {400, "Bad Request", "bad_request"},
    {403, "Forbidden", "forbidden"},
    {407, "Proxy Authentication Required", "proxy_authentication_required"},
    {408, "Request Timeout", "request_timeout"},
    {421, "Misdirected Request", "misdirected_request"},
    {429, "Too Many Requests", "too_many_requests"},
    {431, "Request Header Fields Too Large", "head_too_large"},
    {501, "Not Implemented", "not_implemented"},
    {502, "Bad Gateway", "bad_gateway"},
    {503, "Service Unavailable", "service_unavailable"},
    {504, "Gateway Timeout", "gateway_timeout"},
};

static const struct {
    const char *reason; /* exact, or a beginning when it ends in '*' */
    const char *hint;
} hints[] = {
    {"unlisted_name", "this workspace reaches only listed names; its owner can add this one with --egress-allow"},
    {"unlisted", "nothing that is listed stands behind this address; its owner can list the name or the address with "
                 "--egress-allow"},
    {"no_name", "the connection names nobody and its address is not listed; use the name, or list the address with "
                "--egress-allow"},
    {"unproven_name", "the address was not learnt from this name; open a connection of its own for it"},
    {"classification_timeout", "nothing was said that names the destination; its owner can list the address with "
                               "--egress-allow"},
    {"deny_list", "an --egress-deny entry of this workspace forbids it"},
    {"inside", "the address is not on the public internet; its owner can list it with --egress-allow ADDRESS or CIDR"},
    {"link_local",
     "the address is not on the public internet; its owner can list it with --egress-allow ADDRESS or CIDR"},
    {"loopback", "the host's own loopback is not reachable from a workspace unless its owner lists the address"},
    {"own_address", "the host's own addresses are not reachable from a workspace unless its owner lists the address"},
    {"metadata", "the metadata service is not reachable from a workspace unless its owner lists the address"},
    {"listener", "this is the mediator's own address; nothing behind it is reached this way"},
    {"ipv6", "IPv6 addresses are not reached from here; use the name, or the IPv4 address"},
    {"name_mismatch", "what was said inside the tunnel names another host than the tunnel was asked for"},
    {"limit", "a bound of this workspace is reached; try again later"},
    {"unresolved", "the name has no IPv4 address that this workspace's resolver finds"},
    {"upstream_refused", "the destination refuses the connection"},
    {"upstream_unreachable", "the destination does not answer"},
    {"proxy_authorization", "this proxy wants credentials (Proxy-Authorization: Basic); its owner has them"},
    {"proxy_origin_form", "this is a proxy: ask it with CONNECT, or with an absolute http:// target"},
    {"proxy_https_target", "ask for https with CONNECT"},
    {"proxy_authority", "CONNECT names HOST:PORT, both written out"},
    {"proxy_head_timeout", "the head of the request did not come in time"},
    {"proxy_*", "the request cannot be served by a proxy as it is written; the reason says why"},
    {"bad_name", "write the host as a plain name, or as an address in its usual form"},
    {"authority_mismatch", "this connection was opened for another name; open a new one for this name"},
    {"not_recorded", "the audit log cannot be written, and what cannot be recorded is not carried out; its owner must "
                     "make room"},
    {"too_many_requests", "too many requests are open on this connection; wait for answers, or open another"},
    {"client_certificate_required", "the server asks for a client certificate, which interception cannot forward; its "
                                    "owner can list the name with --egress-passthrough"},
    {"certificate_unknown_issuer", "the server's certificate was issued by nobody that this host trusts, or an "
                                   "intermediate is missing; its owner can add the issuer with --egress-ca-file"},
    {"certificate_self_signed", "the server's certificate vouches for itself; its owner can trust it with "
                                "--egress-ca-file"},
    {"certificate_*", "the server's certificate does not verify, so nothing was sent to it; the reason says how"},
    {"interception_unavailable", "this run has no certificate authority; its owner can list the name with "
                                 "--egress-passthrough"},
    {"placeholder_elsewhere", "this placeholder stands for a credential of another host, and is sent nowhere else"},
    {"trace_with_credential", "TRACE would show the credential that is put into requests to this host"},
    {"cleartext_with_credential", "a credential is put into requests to this host, which must be for https"},
    {"ref_*",
     "the credential of this host cannot be read on the host of this workspace; its owner can look at the reference"},
    {"value_*", "the credential of this host cannot stand in a header; its owner can look at what the reference names"},
    {"signing_*", "a token for this host cannot be signed; its owner can look at the signing key and the claims"},
    {"endpoint_*", "the service that issues the credential of this host cannot be reached; try again later"},
    {"token_*",
     "the service that issues the credential of this host gave none; its owner can look at the swap's settings"},
    {"vault_*", "Vault does not give the credential of this host; its owner can look at path, field and policy"},
    {"fetch_*", "the credential of this host cannot be fetched now; try again later"},
    {"edit_invalid", "the credential cannot be put into this request"},
    {"http_connect", "this is not a proxy: connect to the destination itself"},
    {"http_host_*", "a request names its host once, as a plain name with an optional port"},
    {"http_upgrade", "HTTP/2 on cleartext begins with its preface, and TLS with a connection of its own"},
    {"http_upgrade_unasked", "the server changed the protocol though nobody had asked"},
    {"http_response_*", "the server's response breaks HTTP in a way that is not repaired here"},
    {"http_*", "the message breaks HTTP in a way that is not repaired here; the reason says how"},
    {"h2_*", "the stream breaks HTTP/2 in a way that is not repaired here; the reason says how"},
};

const char *sm_http_status_text(uint16_t status)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(statuses); i++)
        if (statuses[i].status == status)
            return statuses[i].text;
    return "";
}

static const char *error_word(uint16_t status)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(statuses); i++)
        if (statuses[i].status == status)
            return statuses[i].error;
    return "refused";
}

const char *sm_http_page_hint(const char *reason)
{
    if (!reason)
        return NULL;
    for (size_t i = 0; i < SM_ARRAY_LEN(hints); i++) {
        size_t len = strlen(hints[i].reason);
        bool beginning = hints[i].reason[len - 1] == '*';
        if (beginning ? strncmp(reason, hints[i].reason, len - 1) == 0 : strcmp(reason, hints[i].reason) == 0)
            return hints[i].hint;
    }
    return NULL;
}

static void put(struct sm_wr *w, const char *text)
{
    sm_wr_bytes(w, text, strlen(text));
}

/* RFC 8259 section 7. What is not ASCII becomes U+FFFD: a name has none, and nobody promised that it is UTF-8. '<', '>' and '&' are written as
 * numbers, so that no reader who guesses at types takes a page for markup. */
static void put_string(struct sm_wr *w, const char *p, size_t len)
{
    if (!p) {
        put(w, "null");
        return;
    }
    sm_wr_u8(w, '"');
    for (size_t i = 0; i < len; i++) {
        uint8_t c = (uint8_t)p[i];
        char escaped[8];
        if (c >= 0x80) {
            put(w, "\\ufffd");
        } else if (c < 0x20 || c == 0x7f || c == '<' || c == '>' || c == '&') {
            g_snprintf(escaped, sizeof(escaped), "\\u%04x", c);
            put(w, escaped);
        } else {
            if (c == '"' || c == '\\')
                sm_wr_u8(w, '\\');
            sm_wr_u8(w, c);
        }
    }
    sm_wr_u8(w, '"');
}

static void put_word(struct sm_wr *w, const char *name, const char *value)
{
    put(w, ", \"");
    put(w, name);
    put(w, "\": ");
    put_string(w, value, value ? strlen(value) : 0);
}

size_t sm_http_page_body(const struct sm_http_page *page, char *out, size_t cap)
{
    struct sm_wr w = sm_wr_init(out, cap);

    put(&w, "{\"error\": \"");
    put(&w, error_word(page->status));
    put(&w, "\"");
    put_word(&w, "reason", page->reason);
    put(&w, ", \"host\": ");
    put_string(&w, page->host.ptr, SM_MIN(page->host.len, (size_t)HOST_MAX));
    put_word(&w, "workspace", page->workspace);
    put_word(&w, "hint", page->hint ? page->hint : sm_http_page_hint(page->reason));
    put(&w, "}\n");
    return w.bad ? 0 : w.len;
}

size_t sm_http_page_wrap(uint16_t status, const char *body, size_t body_len, bool head_only, bool keep, char *out,
                         size_t cap)
{
    struct sm_wr w = sm_wr_init(out, cap);
    char number[64];

    g_snprintf(number, sizeof(number), "HTTP/1.1 %u ", (unsigned)status);
    put(&w, number);
    put(&w, sm_http_status_text(status));
    put(&w, "\r\n");
    if (body)
        put(&w, "Content-Type: application/json\r\n");
    g_snprintf(number, sizeof(number), "Content-Length: %zu\r\n", body ? body_len : 0);
    put(&w, number);
    put(&w, keep ? "\r\n" : "Connection: close\r\n\r\n");
    if (body && !head_only)
        sm_wr_bytes(&w, body, body_len);
    return w.bad ? 0 : w.len;
}

size_t sm_http_page_response(const struct sm_http_page *page, bool head_only, char *out, size_t cap)
{
    char body[SM_HTTP_PAGE_MAX];
    size_t len = sm_http_page_body(page, body, sizeof(body));

    return len > 0 ? sm_http_page_wrap(page->status, body, len, head_only, false, out, cap) : 0;
}
