/* SPDX-License-Identifier: BSD-3-Clause */
/* In slirp-med, what needs OpenSSL: the process becomes slirp-med-core, which starts over with the same arguments. See
 * launch/program.h. */
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/cli.h"
#include "cli/doctor.h"
#include "core/core.h"
#include "core/fetcher.h"
#include "launch/cafile.h"
#include "launch/program.h"
#include "supervisor/supervisor.h"

static char **started_with; /* NULL: this process stays what it is */

void sm_program_begin(char **argv)
{
    started_with = argv;
}

void sm_program_settle(void)
{
    started_with = NULL;
}

/** Returns only with error set. */
static void become_core(GError **error)
{
    g_autofree char *path = sm_program_path(SM_CORE_NAME, error);

    if (!path)
        return;
    if (started_with)
        (void)execv(path, started_with);
    sm_error_set_errno(error, started_with ? errno : EBUSY, "become %s", path);
}

static int command(void)
{
    g_autoptr(GError) error = NULL;

    become_core(&error);
    return sm_cli_fail(error, SM_SUPERVISOR_FAILED);
}

int sm_cli_snapshot(int argc, char **argv)
{
    return command();
}

int sm_cli_restore(int argc, char **argv)
{
    return command();
}

int sm_cli_doctor(int argc, char **argv)
{
    return command();
}

int sm_core_main(int argc, char **argv)
{
    return command();
}

int sm_fetcher_main(int argc, char **argv)
{
    return command();
}

/** Flags are read before anything is made. */
int sm_ca_file_read(const char *path, GString *pem, GError **error)
{
    become_core(error);
    return -1;
}
