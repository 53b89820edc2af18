/* SPDX-License-Identifier: BSD-3-Clause */
/* Finding the other programs; see program.h. */
#include "launch/program.h"

#include <unistd.h>

#include "base/error.h"

char *sm_program_path(const char *name, GError **error)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", error);
    if (!self)
        return NULL;
    g_autofree char *dir = g_path_get_dirname(self);
    g_autofree char *beside = g_build_filename(dir, name, NULL);
    g_autofree char *prefix = g_build_filename(dir, "..", SM_LIBEXEC_IN_PREFIX, "slirp-med", name, NULL);
    g_autofree char *configured = g_build_filename(SM_LIBEXEC, "slirp-med", name, NULL);
    char **const places[] = {&beside, &prefix, &configured};

    for (size_t i = 0; i < G_N_ELEMENTS(places); i++)
        if (access(*places[i], X_OK) == 0)
            return g_steal_pointer(places[i]);
    sm_error_set(error, SM_ERROR_MISSING,
                 "the program %s is neither at %s nor at %s nor at %s: the installation is not whole", name, beside,
                 prefix, configured);
    return NULL;
}
