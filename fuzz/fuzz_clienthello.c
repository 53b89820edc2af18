/* SPDX-License-Identifier: BSD-3-Clause */
/* tls/clienthello.h: the first byte says where to cut, the rest is the connection. The answer must not depend on the
 * cut. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tls/clienthello.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sm_tls_hello whole, cut;

    if (size == 0)
        return 0;
    size_t step = data[0] % 17u + 1u;
    data++;
    size--;
    sm_tls_hello_init(&whole);
    sm_tls_hello_feed(&whole, data, size);
    sm_tls_hello_init(&cut);
    for (size_t n = 0; n < size; n += step)
        sm_tls_hello_feed(&cut, data, n);
    sm_tls_hello_feed(&cut, data, size);
    if (whole.status != cut.status || whole.reject != cut.reject || whole.consumed != cut.consumed ||
        strcmp(whole.sni, cut.sni) != 0)
        abort();
    if ((whole.status == SM_TLS_REJECT) != (whole.reject != SM_TLS_REJECT_NONE))
        abort();
    if (whole.status == SM_TLS_NEED_MORE && size >= SM_TLS_HELLO_RAW_MAX)
        abort();
    if (whole.status == SM_TLS_HELLO) {
        if (whole.consumed > size || strlen(whole.sni) != whole.sni_len)
            abort();
        for (size_t pos = 0; pos < whole.alpn_len; pos += 1u + whole.alpn[pos])
            if (whole.alpn[pos] == 0 || pos + 1u + whole.alpn[pos] > whole.alpn_len)
                abort();
    }
    sm_tls_hello_clear(&whole);
    sm_tls_hello_clear(&cut);
    return 0;
}
