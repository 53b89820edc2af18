/* SPDX-License-Identifier: BSD-3-Clause */
/* Response heads, line by line; each line is judged once, when its LF is there. See response.h. */
#include "http/response.h"

#include <string.h>

#include "http/field.h"

void sm_http_response_init(struct sm_http_response *r)
{
    *r = (struct sm_http_response){.status = SM_HTTP_NEED_MORE};
}

static void refuse(struct sm_http_response *r, enum sm_http_reject why)
{
    r->status = SM_HTTP_REJECT;
    r->reject = why;
}

static void judge_status_line(struct sm_http_response *r, const uint8_t *line, size_t len)
{
    static const char begin[] = "HTTP/1.";
    size_t at = sizeof(begin) - 1;

    if (len < 12 || memcmp(line, begin, at) != 0 || (line[at] != '0' && line[at] != '1') || line[at + 1] != ' ' ||
        line[at + 2] == '0' || (len > 12 && line[12] != ' ')) {
        refuse(r, SM_HTTP_REJECT_STATUS_LINE);
        return;
    }
    r->minor = (uint8_t)(line[at] - '0');
    for (size_t i = 9; i < 12; i++) {
        if (!sm_http_is(line[i], SM_HTTP_DIGIT)) {
            refuse(r, SM_HTTP_REJECT_STATUS_LINE);
            return;
        }
        r->code = (uint16_t)(r->code * 10 + (line[i] - '0'));
    }
    for (size_t i = 12; i < len; i++) {
        if (!sm_http_is(line[i], SM_HTTP_TEXT)) {
            refuse(r, line[i] == '\r' ? SM_HTTP_REJECT_BARE_CR : SM_HTTP_REJECT_CONTROL);
            return;
        }
    }
}

static void judge_field(struct sm_http_response *r, const uint8_t *line, size_t len)
{
    struct sm_http_field f;
    enum sm_http_reject why = sm_http_field_read(line, len, &f);

    if (why == SM_HTTP_REJECT_NONE && ++r->fields > SM_HTTP_FIELDS_MAX)
        why = SM_HTTP_REJECT_TOO_MANY_FIELDS;
    if (why == SM_HTTP_REJECT_NONE)
        why = sm_http_framing_field(&r->framing, r->minor, &f);
    if (why != SM_HTTP_REJECT_NONE) {
        refuse(r, why);
    } else if (sm_http_field_is(&f, "Upgrade")) {
        /* Outside a 101 it only says what the server could do; some say h2c with every answer. */
        r->upgrade = true;
        r->upgrade_bad |= !sm_http_upgrade_ok(f.value, f.value_len);
    } else if (sm_http_field_is(&f, "Alt-Svc")) {
        r->alt_svc = true;
    } else if (sm_http_field_is(&f, "Content-Encoding")) {
        r->coded |= sm_http_coded(f.value, f.value_len);
    }
}

enum sm_http_status sm_http_response_feed(struct sm_http_response *r, const uint8_t *data, size_t len)
{
    len = SM_MIN(len, (size_t)SM_HTTP_RESPONSE_HEAD_MAX);
    while (r->status == SM_HTTP_NEED_MORE) {
        const uint8_t *lf = r->scanned < len ? memchr(data + r->scanned, '\n', len - r->scanned) : NULL;
        if (!lf) {
            r->scanned = (uint32_t)len;
            if (len >= SM_HTTP_RESPONSE_HEAD_MAX)
                refuse(r, SM_HTTP_REJECT_TOO_LARGE);
            break;
        }
        size_t end = (size_t)(lf - data);
        size_t begin = r->line;
        r->scanned = r->line = (uint32_t)end + 1;
        if (end == begin || data[end - 1] != '\r') {
            refuse(r, SM_HTTP_REJECT_BARE_LF);
        } else if (!r->line_read) {
            r->line_read = true;
            judge_status_line(r, data, end - 1);
        } else if (end > begin + 1) {
            judge_field(r, data + begin, end - 1 - begin);
        } else if (r->framing.has_length && r->framing.chunked) {
            refuse(r, SM_HTTP_REJECT_LENGTH_AND_CODING);
        } else {
            r->upgrade &= !r->upgrade_bad;
            r->consumed = end + 1;
            r->status = SM_HTTP_HTTP1;
        }
    }
    return r->status;
}

enum sm_http_body_kind sm_http_response_body(const struct sm_http_response *r, bool head)
{
    if (head || r->code < 200 || r->code == 204 || r->code == 304)
        return SM_HTTP_BODY_NONE;
    if (r->framing.chunked)
        return SM_HTTP_BODY_CHUNKED;
    if (!r->framing.has_length)
        return SM_HTTP_BODY_CLOSE;
    return r->framing.content_length > 0 ? SM_HTTP_BODY_LENGTH : SM_HTTP_BODY_NONE;
}
