/* SPDX-License-Identifier: BSD-3-Clause */
/* The rules for single values of a swap entry; see internal.h. */
#include <string.h>

#include "base/error.h"
#include "cred/internal.h"

static bool refuse(GError **error, const char *fmt, ...) SM_PRINTF(2, 3);

static bool refuse(GError **error, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    sm_error_set(error, SM_ERROR_INVALID, "%s", text);
    return false;
}

static bool made_of(const char *text, const char *more)
{
    for (const char *p = text; *p; p++)
        if (!g_ascii_isalnum(*p) && !strchr(more, *p))
            return false;
    return text[0] != '\0';
}

/* Visible ASCII, without space. */
static bool is_visible(const char *text)
{
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f)
            return false;
    return text[0] != '\0';
}

static bool too_long(const char *text, size_t max, GError **error)
{
    return strlen(text) > max && !refuse(error, "too long: at most %zu bytes", max);
}

bool sm_swap_check_name(const char *text, GError **error)
{
    if (!made_of(text, "._-") || strlen(text) > SM_SWAP_NAME_MAX || strchr("._-", text[0]))
        return refuse(error,
                      "the name of a swap has 1 to %d letters, digits, dots, underscores and hyphens, the first a "
                      "letter or digit",
                      SM_SWAP_NAME_MAX);
    return true;
}

/*
 * Headers that say where a message goes, where it ends, how it is coded or who it passes through (RFC 9110, 9112, 9113,
 * 7540 3.2.1): a credential in one of them would change the request, and several are ours to write.
 */
bool sm_swap_check_header(const char *text, GError **error)
{
    static const char *const taken[] = {
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "te",
        "trailer",
        "upgrade",
        "keep-alive",
        "expect",
        "accept-encoding",
        "alt-used",
        "content-encoding",
        "content-range",
        "max-forwards",
        "via",
        "forwarded",
        "http2-settings",
        "close",
        "date",
        "range",
    };

    if (text[0] == ':')
        return refuse(error, "names that begin with ':' are HTTP/2's own");
    if (too_long(text, SM_SWAP_HEADER_MAX, error))
        return false;
    if (!made_of(text, "!#$%&'*+-.^_`|~"))
        return refuse(error, "not the name of a header: letters, digits and hyphens, as in Authorization or x-api-key");
    for (size_t i = 0; i < SM_ARRAY_LEN(taken); i++)
        if (g_ascii_strcasecmp(taken[i], text) == 0)
            return refuse(error, "'%s' frames or routes the message: it cannot hold a credential", taken[i]);
    if (g_ascii_strncasecmp(text, "proxy-", strlen("proxy-")) == 0)
        return refuse(error, "'Proxy-...' speaks to proxies: it cannot hold a credential");
    return true;
}

bool sm_swap_check_format(enum sm_swap_type type, const char *text, GError **error)
{
    const char *marker = sm_swap_marker(type);
    const char *other = sm_swap_marker(type == SM_SWAP_STATIC ? SM_SWAP_OAUTH2_CC : SM_SWAP_STATIC);
    const char *at = strstr(text, marker);

    if (too_long(text, SM_SWAP_FORMAT_MAX, error))
        return false;
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
            return refuse(error, "visible ASCII and spaces only");
    if (text[0] == ' ' || text[strlen(text) - 1] == ' ')
        return refuse(error, "no space at its ends");
    if (strstr(text, other))
        return refuse(error, "type %s has %s, not %s", sm_swap_type_name(type), marker, other);
    if (!at || strstr(at + strlen(marker), marker))
        return refuse(error, "must hold %s exactly once, as in \"Bearer %s\"", marker, marker);
    return true;
}

bool sm_swap_check_placeholder(const char *text, GError **error)
{
    if (strlen(text) < SM_SWAP_PLACEHOLDER_MIN)
        return refuse(error, "too short: at least %d bytes, so that it stands nowhere by chance",
                      SM_SWAP_PLACEHOLDER_MIN);
    if (too_long(text, SM_SWAP_PLACEHOLDER_MAX, error))
        return false;
    if (!made_of(text, "-._~+/=:"))
        return refuse(error, "letters, digits and -._~+/=: only, as keys have");
    return true;
}

/* The credential that gets a token goes there: only over TLS, or to this machine. */
bool sm_swap_check_url(const char *text, GError **error)
{
    bool https = g_ascii_strncasecmp(text, "https://", strlen("https://")) == 0;
    bool http = g_ascii_strncasecmp(text, "http://", strlen("http://")) == 0;
    struct sm_host host;

    if (too_long(text, SM_SWAP_URL_MAX, error))
        return false;
    if (!is_visible(text) || strpbrk(text, "\"<>\\^`{|}"))
        return refuse(error, "not a URL: visible ASCII only, anything else percent-encoded");
    if (!https && !http)
        return refuse(error, "not a URL: write https://HOST/PATH");
    const char *authority = text + (https ? strlen("https://") : strlen("http://"));
    size_t len = strcspn(authority, "/?#");
    if (strchr(text, '#'))
        return refuse(error, "a fragment (#...) is never sent: leave it out");
    if (memchr(authority, '@', len))
        return refuse(error, "no user or password in it: client_id_ref and client_secret_ref say where these are");
    if (sm_host_parse(authority, len, &host) == SM_NAME_BAD)
        return refuse(error, "its host is no name or address");
    if (http) {
        static const struct sm_addr loopback6 = {SM_FAMILY_V6, {[15] = 1}};
        bool local = (host.kind == SM_NAME_IPV4 && host.addr.bytes[0] == 127) ||
                     (host.kind == SM_NAME_IPV6 && sm_addr_equal(&host.addr, &loopback6)) ||
                     (host.kind == SM_NAME_HOST && strcmp(host.name, "localhost") == 0);
        if (!local)
            return refuse(error, "plain http is for this machine only (localhost, 127.0.0.1, [::1]): write https://");
    }
    return true;
}

bool sm_swap_check_scope(const char *text, GError **error)
{
    if (too_long(text, SM_SWAP_SCOPE_MAX, error))
        return false;
    if (!is_visible(text) || strpbrk(text, "\"\\")) /* RFC 6749 3.3 */
        return refuse(error, "a scope is visible ASCII without spaces, \" and \\: write one an element");
    return true;
}

bool sm_swap_check_audience(const char *text, GError **error)
{
    if (too_long(text, SM_SWAP_AUDIENCE_MAX, error))
        return false;
    return is_visible(text) || refuse(error, "visible ASCII without spaces only");
}

bool sm_swap_check_field(const char *text, GError **error)
{
    if (too_long(text, SM_SWAP_FIELD_MAX, error))
        return false;
    return made_of(text, "-_.") || refuse(error, "the name of a field: letters, digits, -, _ and . only");
}

bool sm_swap_check_claim_name(const char *text, GError **error)
{
    static const char *const ours[] = {"iat", "exp", "jti"};

    for (size_t i = 0; i < SM_ARRAY_LEN(ours); i++)
        if (strcmp(text, ours[i]) == 0)
            return refuse(error, "'%s' is set for each token: leave it out%s", ours[i],
                          i == 1 ? " (token_ttl_seconds says how long one lives)" : "");
    if (too_long(text, SM_SWAP_CLAIM_NAME_MAX, error))
        return false;
    return is_visible(text) || refuse(error, "the name of a claim is visible ASCII without spaces");
}

bool sm_swap_claim_text_ok(const char *text)
{
    if (!g_utf8_validate(text, -1, NULL))
        return false;
    for (const char *p = text; *p; p = g_utf8_next_char(p))
        if (g_unichar_iscntrl(g_utf8_get_char(p)))
            return false;
    return true;
}

bool sm_swap_parse_domain(const char *text, struct sm_swap_domain *ret, GError **error)
{
    struct sm_entry entry;

    if (!sm_entry_parse(text, &entry, error))
        return false;
    if (entry.kind == SM_ENTRY_ADDR || entry.kind == SM_ENTRY_CIDR)
        return refuse(error, "'%s' is an address: a credential is for a name that a certificate proves", text);
    if (entry.port != 0)
        return refuse(error, "'%s' has a port: a credential is for the name, on every port", text);
    ret->entry = entry;
    (void)sm_entry_format(&entry, ret->text);
    return true;
}
