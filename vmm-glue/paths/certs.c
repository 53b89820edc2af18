/* SPDX-License-Identifier: BSD-3-Clause */
/* A set of certificates; see certs.h. */
#include "paths/certs.h"

#include <string.h>

#include "base/rw.h"

#define BEGIN "-----BEGIN "
#define DASHES "-----"
/** A line of PEM, in bytes of what it stands for: 64 letters. */
#define LINE_BYTES 48
#define LINE_LEN (LINE_BYTES / 3 * 4)

struct sm_certs {
    GPtrArray *list;  /* GBytes *, of the table below */
    GHashTable *seen; /* GBytes * -> itself; owns them */
    size_t bytes;
};

/** The end of a certificate is its signature: as good as random, and it saves hashing the rest. */
static guint hash_end(gconstpointer bytes)
{
    gsize len;
    const guint8 *data = g_bytes_get_data((GBytes *)(uintptr_t)bytes, &len);
    guint h = (guint)len;
    for (gsize i = len > 8 ? len - 8 : 0; i < len; i++)
        h = h * 33 + data[i];
    return h;
}

struct sm_certs *sm_certs_new(void)
{
    struct sm_certs *c = g_new0(struct sm_certs, 1);
    c->list = g_ptr_array_new();
    c->seen = g_hash_table_new_full(hash_end, g_bytes_equal, (GDestroyNotify)(void *)g_bytes_unref, NULL);
    return c;
}

void sm_certs_free(struct sm_certs *c)
{
    if (!c)
        return;
    g_ptr_array_unref(c->list);
    g_hash_table_unref(c->seen);
    g_free(c);
}

/** The length of the DER SEQUENCE that data begins with, header included; 0: it begins with none that is whole. */
static size_t sequence_length(const uint8_t *data, size_t len)
{
    struct sm_rd r = sm_rd_init(data, len);
    uint8_t tag = sm_rd_u8(&r);
    uint8_t first = sm_rd_u8(&r);
    size_t content = first, header = 2;

    if (first & 0x80) {
        unsigned n = first & 0x7f;
        if (n < 1 || n > 3) /* the indefinite form is not DER; 16 MiB are enough */
            return 0;
        content = 0;
        for (unsigned i = 0; i < n; i++)
            content = content << 8 | sm_rd_u8(&r);
        header += n;
    }
    if (r.bad || tag != 0x30 || content == 0 || content > len - header)
        return 0;
    return header + content;
}

static void add(struct sm_certs *c, GBytes *bytes)
{
    size_t len = g_bytes_get_size(bytes);

    if (g_hash_table_contains(c->seen, bytes) || c->list->len >= SM_CERTS_MAX || c->bytes + len > SM_CERTS_BYTES_MAX)
        return;
    c->bytes += len;
    g_ptr_array_add(c->list, bytes);
    (void)g_hash_table_add(c->seen, g_bytes_ref(bytes));
}

static bool is_certificate(const char *label, size_t len)
{
    static const char *const labels[] = {"CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"};
    for (size_t i = 0; i < SM_ARRAY_LEN(labels); i++)
        if (strlen(labels[i]) == len && memcmp(labels[i], label, len) == 0)
            return true;
    return false;
}

/** The next place of needle at or behind at, or NULL. */
static const char *find(const char *at, const char *end, const char *needle)
{
    return memmem(at, (size_t)(end - at), needle, strlen(needle));
}

size_t sm_certs_add_pem(struct sm_certs *c, const char *text, size_t len)
{
    const char *end = text + len;
    size_t n = 0;

    for (const char *at = text; (at = find(at, end, BEGIN));) {
        const char *label = at + strlen(BEGIN);
        const char *body = find(label, end, DASHES);
        if (!body)
            break;
        size_t label_len = (size_t)(body - label);
        body += strlen(DASHES);
        const char *stop = find(body, end, DASHES); /* of the END line */
        at = body;
        if (!stop || !is_certificate(label, label_len))
            continue;
        g_autofree char *base64 = g_strndup(body, (gsize)(stop - body));
        gsize der_len;
        g_autofree guchar *der = g_base64_decode(base64, &der_len);
        size_t whole = sequence_length(der, der_len);
        if (whole > 0) {
            g_autoptr(GBytes) bytes = g_bytes_new(der, whole);
            add(c, bytes);
            n++;
        }
        at = stop;
    }
    return n;
}

void sm_certs_add_all(struct sm_certs *c, const struct sm_certs *from)
{
    for (guint i = 0; i < from->list->len; i++)
        add(c, g_ptr_array_index(from->list, i));
}

size_t sm_certs_count(const struct sm_certs *c)
{
    return c->list->len;
}

const uint8_t *sm_certs_get(const struct sm_certs *c, size_t i, size_t *ret_len)
{
    return g_bytes_get_data(g_ptr_array_index(c->list, (guint)i), ret_len);
}

/** One line, without its end. GLib's encoder goes by single bytes, and was a tenth of all that a start works for CMD's
 * trust. */
static size_t encode_line(const uint8_t *p, size_t len, char out[LINE_LEN])
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = 0;

    for (; len >= 3; p += 3, len -= 3, n += 4) {
        uint32_t v = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
        out[n] = letters[v >> 18];
        out[n + 1] = letters[v >> 12 & 63];
        out[n + 2] = letters[v >> 6 & 63];
        out[n + 3] = letters[v & 63];
    }
    if (len > 0) {
        uint32_t v = (uint32_t)p[0] << 16 | (len > 1 ? (uint32_t)p[1] << 8 : 0);
        out[n] = letters[v >> 18];
        out[n + 1] = letters[v >> 12 & 63];
        out[n + 2] = len > 1 ? letters[v >> 6 & 63] : '=';
        out[n + 3] = '=';
        n += 4;
    }
    return n;
}

GString *sm_certs_pem(const struct sm_certs *c)
{
    GString *out = g_string_sized_new(c->bytes * 3 / 2);

    for (guint i = 0; i < c->list->len; i++) {
        size_t len;
        const uint8_t *der = sm_certs_get(c, i, &len);
        g_string_append(out, BEGIN "CERTIFICATE" DASHES "\n");
        for (size_t at = 0; at < len; at += LINE_BYTES) {
            char line[LINE_LEN + 1];
            size_t n = encode_line(der + at, SM_MIN(len - at, (size_t)LINE_BYTES), line);
            line[n] = '\n';
            g_string_append_len(out, line, (gssize)(n + 1));
        }
        g_string_append(out, "-----END CERTIFICATE" DASHES "\n");
    }
    return out;
}
