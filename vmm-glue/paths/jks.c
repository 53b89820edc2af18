/* SPDX-License-Identifier: BSD-3-Clause */
/* Java truststores; see jks.h. */
#include "paths/jks.h"

#include <string.h>

#include "base/rw.h"

#define MAGIC 0xfeedfeedu
#define VERSION 2
#define TAG_CERTIFICATE 2
#define HEADER_LEN 12
#define COUNT_AT 8
#define DIGEST_LEN 20
#define SALT "Mighty Aphrodite"

struct sm_jks {
    GByteArray *bytes; /* without the digest */
    uint32_t count;
};

static void put_u16(GByteArray *a, uint16_t v)
{
    uint8_t b[2] = {(uint8_t)(v >> 8), (uint8_t)v};
    g_byte_array_append(a, b, sizeof(b));
}

static void put_u32(GByteArray *a, uint32_t v)
{
    put_u16(a, (uint16_t)(v >> 16));
    put_u16(a, (uint16_t)v);
}

static void put_u64(GByteArray *a, uint64_t v)
{
    put_u32(a, (uint32_t)(v >> 32));
    put_u32(a, (uint32_t)v);
}

static void put_text(GByteArray *a, const char *text)
{
    size_t len = strlen(text);
    g_assert(len <= UINT16_MAX);
    put_u16(a, (uint16_t)len);
    g_byte_array_append(a, (const guint8 *)text, (guint)len);
}

static void digest(const uint8_t *data, size_t len, uint8_t out[DIGEST_LEN])
{
    static const char password[] = SM_JKS_PASSWORD;
    GChecksum *sum = g_checksum_new(G_CHECKSUM_SHA1);
    gsize n = DIGEST_LEN;

    for (size_t i = 0; i < sizeof(password) - 1; i++) {
        guchar unit[2] = {0, (guchar)password[i]};
        g_checksum_update(sum, unit, sizeof(unit));
    }
    g_checksum_update(sum, (const guchar *)SALT, (gssize)strlen(SALT));
    g_checksum_update(sum, data, (gssize)len);
    g_checksum_get_digest(sum, out, &n);
    g_checksum_free(sum);
}

struct sm_jks *sm_jks_new(void)
{
    struct sm_jks *j = g_new0(struct sm_jks, 1);
    j->bytes = g_byte_array_new();
    put_u32(j->bytes, MAGIC);
    put_u32(j->bytes, VERSION);
    put_u32(j->bytes, 0);
    return j;
}

struct sm_jks *sm_jks_open(const uint8_t *data, size_t len)
{
    struct sm_rd r = sm_rd_init(data, len);
    uint8_t sum[DIGEST_LEN];
    uint32_t magic = sm_rd_u32(&r), version = sm_rd_u32(&r), count = sm_rd_u32(&r);

    if (len < HEADER_LEN + DIGEST_LEN || len > SM_JKS_MAX || magic != MAGIC || version != VERSION || count > INT32_MAX)
        return NULL;
    digest(data, len - DIGEST_LEN, sum);
    if (memcmp(sum, data + len - DIGEST_LEN, DIGEST_LEN) != 0)
        return NULL;
    struct sm_jks *j = g_new0(struct sm_jks, 1);
    j->bytes = g_byte_array_new();
    g_byte_array_append(j->bytes, data, (guint)(len - DIGEST_LEN));
    j->count = count;
    return j;
}

void sm_jks_free(struct sm_jks *j)
{
    if (!j)
        return;
    g_byte_array_unref(j->bytes);
    g_free(j);
}

void sm_jks_add(struct sm_jks *j, const char *alias, int64_t when_ms, const uint8_t *der, size_t len)
{
    g_assert(len <= INT32_MAX);
    put_u32(j->bytes, TAG_CERTIFICATE);
    put_text(j->bytes, alias);
    put_u64(j->bytes, (uint64_t)when_ms);
    put_text(j->bytes, "X.509");
    put_u32(j->bytes, (uint32_t)len);
    g_byte_array_append(j->bytes, der, (guint)len);
    j->count++;
}

GBytes *sm_jks_finish(struct sm_jks *j)
{
    uint8_t sum[DIGEST_LEN];

    for (unsigned i = 0; i < 4; i++)
        j->bytes->data[COUNT_AT + i] = (uint8_t)(j->count >> (24 - 8 * i));
    digest(j->bytes->data, j->bytes->len, sum);
    g_byte_array_append(j->bytes, sum, sizeof(sum));
    GBytes *done = g_byte_array_free_to_bytes(g_steal_pointer(&j->bytes));
    g_free(j);
    return done;
}
