/* SPDX-License-Identifier: BSD-3-Clause */
/* Secrets: own pages, locked and out of core dumps where allowed, wiped at the end; see secret.h. */
#include "base/secret.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct sm_secret {
    size_t map_len; /* of the whole mapping, this header included */
    size_t len;
    uint8_t bytes[];
};

void sm_wipe(void *p, size_t len)
{
    if (len > 0)
        explicit_bzero(p, len);
}

struct sm_secret *sm_secret_new(void *bytes, size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t map_len = (sizeof(struct sm_secret) + len + page - 1) / page * page;
    struct sm_secret *s = mmap(NULL, map_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED)
        abort();                              /* as every allocation of ours: no memory ends the process */
    (void)mlock(s, map_len);                  /* best effort: RLIMIT_MEMLOCK may be small */
    (void)madvise(s, map_len, MADV_DONTDUMP); /* best effort */
    s->map_len = map_len;
    s->len = len;
    if (len > 0)
        memcpy(s->bytes, bytes, len);
    sm_wipe(bytes, len);
    return s;
}

struct sm_secret *sm_secret_read(int fd, size_t max)
{
    uint8_t buf[SM_SECRET_READ_MAX + 1];
    struct sm_secret *s = NULL;
    size_t len = 0;
    ssize_t n;

    max = SM_MIN(max, (size_t)SM_SECRET_READ_MAX);
    do {
        n = pread(fd, buf + len, max + 1 - len, (off_t)len);
        len += n > 0 ? (size_t)n : 0;
    } while ((n > 0 && len <= max) || (n < 0 && errno == EINTR));
    int saved = n < 0 ? errno : EFBIG;
    if (n == 0)
        s = sm_secret_new(buf, len);
    sm_wipe(buf, sizeof(buf));
    if (!s)
        errno = saved;
    return s;
}

void sm_secret_free(struct sm_secret *s)
{
    if (!s)
        return;
    size_t map_len = s->map_len;
    sm_wipe(s, map_len);
    (void)munmap(s, map_len);
}

const uint8_t *sm_secret_bytes(const struct sm_secret *s, size_t *ret_len)
{
    *ret_len = s->len;
    return s->bytes;
}
