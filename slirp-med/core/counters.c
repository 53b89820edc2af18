/* SPDX-License-Identifier: BSD-3-Clause */
/* The text of counters.json; see counters.h. */
#include "core/counters.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"

/**
 * Hex digits of the checksum that are kept: it finds torn writes, it does not withstand forgers (who may write the file
 * may write another).
 */
#define CHECK_LEN 16

void sm_counters_encode(const struct sm_counters *counters, char out[SM_COUNTERS_RECORD])
{
    bool second = counters->seq % 2;
    g_autofree char *numbers =
        g_strdup_printf("%c{\"seq\":%" PRIu64 ",\"bytes_up\":%" PRIu64 ",\"bytes_down\":%" PRIu64, second ? ' ' : '[',
                        counters->seq, counters->bytes[SM_CAPS_UP], counters->bytes[SM_CAPS_DOWN]);
    g_autofree char *check = g_compute_checksum_for_string(G_CHECKSUM_SHA256, numbers, -1);
    g_autofree char *text = g_strdup_printf("%s,\"check\":\"%.*s\"}", numbers, CHECK_LEN, check);

    memset(out, ' ', SM_COUNTERS_RECORD);
    memcpy(out, text, SM_MIN(strlen(text), (size_t)SM_COUNTERS_RECORD - 2));
    out[SM_COUNTERS_RECORD - 2] = second ? ']' : ',';
    out[SM_COUNTERS_RECORD - 1] = '\n';
}

/* What stands before the digits, and they; *text is moved behind. @text is NUL-terminated. */
static bool take_number(const char **text, const char *before, uint64_t *ret)
{
    char *end;

    if (!g_str_has_prefix(*text, before) || !g_ascii_isdigit((*text)[strlen(before)]))
        return false;
    *ret = g_ascii_strtoull(*text + strlen(before), &end, 10);
    *text = end;
    return *ret <= INT64_MAX;
}

static bool decode_record(const char *record, bool second, struct sm_counters *ret)
{
    g_autofree char *text = g_strndup(record, SM_COUNTERS_RECORD);
    const char *at = text;
    struct sm_counters c;
    char want[SM_COUNTERS_RECORD];

    if (!take_number(&at, second ? " {\"seq\":" : "[{\"seq\":", &c.seq) ||
        !take_number(&at, ",\"bytes_up\":", &c.bytes[SM_CAPS_UP]) ||
        !take_number(&at, ",\"bytes_down\":", &c.bytes[SM_CAPS_DOWN]) || c.seq % 2 != second)
        return false;
    sm_counters_encode(&c, want);
    if (memcmp(record, want, SM_COUNTERS_RECORD) != 0)
        return false;
    *ret = c;
    return true;
}

bool sm_counters_decode(const char *text, size_t len, struct sm_counters *ret, GError **error)
{
    struct sm_counters found[2];
    bool right[2];

    if (len == 0) {
        *ret = (struct sm_counters){0};
        return true;
    }
    if (len != SM_COUNTERS_FILE) {
        sm_error_set(error, SM_ERROR_INVALID, "damaged: %zu bytes instead of %zu", len, SM_COUNTERS_FILE);
        return false;
    }
    for (unsigned i = 0; i < 2; i++)
        right[i] = decode_record(text + i * SM_COUNTERS_RECORD, i, &found[i]);
    if (!right[0] && !right[1]) {
        sm_error_set(error, SM_ERROR_INVALID, "damaged: neither of its two records is right");
        return false;
    }
    *ret = right[0] && (!right[1] || found[0].seq > found[1].seq) ? found[0] : found[1];
    return true;
}
