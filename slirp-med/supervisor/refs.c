/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening what references name; see refs.h. */
#include "supervisor/refs.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

static int open_env(const char *name, const char **ret_why)
{
    const char *value = getenv(name);
    size_t len = value ? strlen(value) : 0;

    if (!value)
        *ret_why = "ref_missing";
    else if (len == 0)
        *ret_why = "ref_empty";
    else if (len > SM_REF_BYTES_MAX)
        *ret_why = "ref_too_large";
    else
        return sm_fd_memfd("reference", value, len, NULL);
    return -1;
}

void sm_ref_pin(struct sm_ref_source *source)
{
    if (source->env || !source->what)
        return;
    g_autofree char *folder = g_path_get_dirname(source->what);
    source->dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    source->pinned = source->dir >= 0;
}

void sm_ref_unpin(struct sm_ref_source *source)
{
    if (source->pinned)
        sm_fd_close(&source->dir);
    source->pinned = false;
}

static int open_file(const struct sm_ref_source *source, const char **ret_why)
{
    struct stat st;
    g_autofree char *name = g_path_get_basename(source->what);
    /* NONBLOCK: a FIFO without a writer must not hold us up; it is refused below. */
    sm_autofd fd = openat(source->pinned ? source->dir : AT_FDCWD, source->pinned ? name : source->what,
                          O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0) {
        *ret_why = errno == ENOENT || errno == ENOTDIR ? "ref_missing" : "ref_unreadable";
        return -1;
    }
    if (fstat(fd, &st) < 0)
        *ret_why = "ref_unreadable";
    else if (!S_ISREG(st.st_mode))
        *ret_why = "ref_not_a_file";
    else if (st.st_uid != geteuid() && st.st_uid != 0)
        *ret_why = "ref_owner";
    else if (st.st_mode & (S_IRWXG | S_IRWXO))
        *ret_why = "ref_mode";
    else if (st.st_size == 0)
        *ret_why = "ref_empty";
    else if (st.st_size > (off_t)SM_REF_BYTES_MAX)
        *ret_why = "ref_too_large";
    else
        return sm_steal_fd(&fd);
    return -1;
}

int sm_ref_open(const struct sm_ref_source *source, const char **ret_why)
{
    *ret_why = "ref_unreadable";
    if (!source->what)
        return -1;
    return source->env ? open_env(source->what, ret_why) : open_file(source, ret_why);
}
