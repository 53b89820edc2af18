/* SPDX-License-Identifier: BSD-3-Clause */
/* The embedding library's side of its child, with a script in slirp-med's place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "slirp-med/slirp-med.h"

/** A program that ends on no signal (slirp-med does not while it waits for its stderr), but with its last word. */
static const char talkative[] = "#!/bin/sh\n"
                                "trap '' TERM\n"
                                "i=0\n"
                                "while [ $i -lt 4000 ]; do\n"
                                "    echo 'a line of some length, as it stands in a log' >&2 || :\n"
                                "    i=$((i + 1))\n"
                                "done\n"
                                "exit 0\n";

/** The host does not ask for events, and a guest can have more said than a pipe holds: it can be stopped all the same. */
static void test_stop_with_unread_messages(void **state)
{
    g_autofree char *folder = g_dir_make_tmp("slirp-med-embed-XXXXXX", NULL);
    g_autofree char *program = g_build_filename(folder, "talkative", NULL);
    struct slirp_med_config config = SLIRP_MED_CONFIG_INIT;
    struct slirp_med_error error = {0};
    struct slirp_med_event event;
    unsigned messages = 0;

    assert_true(g_file_set_contents(program, talkative, -1, NULL));
    assert_int_equal(chmod(program, 0700), 0);
    config.name = "t";
    config.state_dir = folder;
    config.program = program;
    struct slirp_med *med = slirp_med_new(&config, &error);
    if (!med)
        fail_msg("%s", error.message);
    if (slirp_med_start_path(med, SLIRP_MED_STREAM, "/nowhere", false, &error) < 0)
        fail_msg("%s", error.message);
    assert_int_equal(slirp_med_wait(med, 10000, &event), 1); /* it is past its trap */
    assert_int_equal(event.type, SLIRP_MED_MESSAGE);
    assert_int_equal(slirp_med_stop(med, 10000, &error), 0);
    /* What fitted is told, and then the end. */
    while (slirp_med_next(med, &event) > 0 && event.type == SLIRP_MED_MESSAGE)
        messages++;
    assert_int_equal(event.type, SLIRP_MED_STOPPED);
    assert_int_equal(event.status, 0);
    assert_true(messages > 100 && messages < 4000);
    slirp_med_free(med);
    assert_int_equal(g_unlink(program), 0);
    (void)g_rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stop_with_unread_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
