/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A line from both ends. The input as guest bytes through the builder must give one line of valid JSON that reads back;
 * the input as a line of the file (and as a whole file) must come out of the reader's parser and both displays without
 * a byte that acts on a terminal.
 */
#include <glib.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "audit/event.h"
#include "audit/file.h"
#include "audit/reader.h"
#include "audit/show.h"
#include "base/fd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x))                                                                                                      \
            abort();                                                                                                   \
    } while (0)

static void check_printable(const char *text, size_t len)
{
    CHECK(g_utf8_validate(text, (gssize)len, NULL));
    for (size_t i = 0; i < len; i++)
        CHECK((unsigned char)text[i] >= 0x20 && text[i] != 0x7f);
}

static void check_line(const char *text, size_t len, bool ours)
{
    struct sm_audit_line line;
    json_t *json = NULL;
    json_error_t error;
    uint64_t seq = 0;

    if (sm_audit_parse_head(text, len, &seq))
        CHECK(seq <= SM_AUDIT_SEQ_MAX);
    sm_audit_parse_line(text, len, &line, &json);
    if (ours)
        CHECK(line.kind == SM_AUDIT_LINE_RECORD && line.seq == 7);
    GString *out = g_string_new(NULL);
    sm_audit_show_columns(out, &line);
    CHECK(out->len > 0 && out->str[out->len - 1] == '\n');
    check_printable(out->str, out->len - 1);
    g_string_truncate(out, 0);
    sm_audit_show_json(out, &line);
    check_printable(out->str, out->len);
    json_t *again = json_loadb(out->str, out->len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    CHECK(again);
    json_decref(again);
    json_decref(json);
    g_string_free(out, TRUE);
}

static void check_builder(const uint8_t *data, size_t size)
{
    static char line[SM_AUDIT_LINE_MAX];
    struct sm_audit_record r;
    g_autofree char *text = g_strndup((const char *)data, size); /* up to a NUL */
    const char *strv[] = {text, "192.0.2.1", text};

    sm_audit_begin(&r, SM_AUDIT_EGRESS_HTTP_REQUEST, (int64_t)size * INT64_C(1000000007));
    sm_audit_add_guest(&r, "host", data, size);
    sm_audit_add_guest_max(&r, "path", data, size, SIZE_MAX);
    sm_audit_add_strv(&r, "answers", strv, SM_ARRAY_LEN(strv));
    sm_audit_add_str(&r, "rule", text);
    sm_audit_add_uint(&r, "bytes", UINT64_MAX);
    size_t n = sm_audit_format_line(line, r.event, r.wall_us, 7, "fuzz", r.fields, r.len, r.truncated);
    CHECK(n <= sizeof(line) && line[n - 1] == '\n' && !memchr(line, '\n', n - 1));
    uint64_t seq = 0;
    CHECK(sm_audit_parse_head(line, n, &seq) && seq == 7);
    check_line(line, n - 1, true);
}

static void check_tail(const uint8_t *data, size_t size)
{
    uint64_t seq, len, torn;
    sm_autofd fd = memfd_create("audit", MFD_CLOEXEC);
    CHECK(fd >= 0 && sm_fd_write_all(fd, data, size) == 0);
    CHECK(sm_audit_last_seq(fd, &seq, &len, &torn) >= 0);
    CHECK(len == size && torn <= size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_builder(data, size);
    check_line((const char *)data, size, false);
    check_tail(data, size);
    return 0;
}
