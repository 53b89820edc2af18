/* SPDX-License-Identifier: BSD-3-Clause */
/* `slirp-med run`, `vm`, `attach` and `proxy`: options, then what only shows something, or launch/run.c. */
#include "launch/run.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/log.h"
#include "cli/cli.h"
#include "launch/dryrun.h"
#include "launch/vm.h"
#include "supervisor/supervisor.h"

static void print_vm_help(void)
{
    g_autofree char *flags = sm_run_options_help(SM_COMMAND_VM);

    printf(
        "usage: slirp-med vm [FLAGS] --kernel FILE [--initrd FILE] [-- QEMU ARGUMENT...]\n"
        "\n"
        "Boot a virtual machine under QEMU, in namespaces without any network. Its network card's frames go to "
        "slirp-med: every connection\n"
        "is judged, dialled by slirp-med itself, and recorded (see 'slirp-med egress'). Its serial console is this "
        "terminal (Ctrl-a x ends it).\n"
        "\n"
        "%s"
        "\n"
        "A flag may be written '--flag value' or '--flag=value'. What follows -- is added to QEMU's command line.\n"
        "\n"
        "Exit status: QEMU's (0 when the guest powered off); 128+n when signal n ended it; 125 when slirp-med itself "
        "failed;\n"
        "127 when there is no QEMU; 2 when a flag, a policy or swap file or the state folder is wrong.\n",
        flags);
}

static void print_attach_help(void)
{
    g_autofree char *flags = sm_run_options_help(SM_COMMAND_ATTACH);

    printf("usage: slirp-med attach [NAME] --stream PATH | --vhost-user PATH | --dgram PATH[,PEER] | --fd N [FLAGS]\n"
           "\n"
           "Serve a virtual machine that somebody else starts: its network card's frames come to slirp-med, and every "
           "connection is judged,\n"
           "dialled by slirp-med itself, and recorded (see 'slirp-med egress'). What the VMM is to be started with is "
           "printed when all is ready.\n"
           "A VMM that ends may be started again: it finds the same workspace. Runs until a signal or 'slirp-med "
           "stop'.\n"
           "\n"
           "%s"
           "\n"
           "A flag may be written '--flag value' or '--flag=value'. Ready is also told by sd_notify(3).\n"
           "\n"
           "Exit status: 0 after SIGINT, SIGTERM, 'slirp-med stop', or the end of a connection that came by --fd; 125 "
           "when slirp-med itself\n"
           "failed; 2 when a flag, a policy or swap file or the state folder is wrong; 128+n when signal n came before "
           "all was ready.\n",
           flags);
}

static void print_proxy_help(void)
{
    g_autofree char *flags = sm_run_options_help(SM_COMMAND_PROXY);

    printf(
        "usage: slirp-med proxy [NAME] --listen ADDR:PORT [FLAGS]\n"
        "\n"
        "Be an HTTP proxy (CONNECT and absolute form) for clients whose network has no gateway, such as containers: "
        "every request is judged,\n"
        "the name in it is resolved and dialled by slirp-med itself, and recorded (see 'slirp-med egress'). Runs "
        "until a signal or 'slirp-med stop'.\n"
        "\n"
        "%s"
        "\n"
        "A flag may be written '--flag value' or '--flag=value'. The proxy's address and the certificate that clients "
        "need are printed when all is ready,\n"
        "which is also told by sd_notify(3).\n"
        "\n"
        "Exit status: 0 after SIGINT, SIGTERM or 'slirp-med stop'; 125 when slirp-med itself failed; 2 when a flag, a "
        "policy or swap file, the\n"
        "address or the state folder is wrong; 128+n when signal n came before all was ready.\n",
        flags);
}

static void print_run_help(void)
{
    g_autofree char *flags = sm_run_options_help(SM_COMMAND_RUN);

    printf("usage: slirp-med run [FLAGS] [--] CMD [ARG...]\n"
           "\n"
           "Run CMD in namespaces of its own. Its only way out is a network device whose frames slirp-med reads: every "
           "connection is judged,\n"
           "dialled by slirp-med itself, and recorded (see 'slirp-med egress').\n"
           "\n"
           "%s"
           "\n"
           "A flag may be written '--flag value' or '--flag=value'. The first argument that is no flag begins CMD.\n"
           "\n"
           "Exit status: CMD's; 128+n when signal n ended it; 125 when slirp-med itself failed; 126 when CMD could not "
           "be executed;\n"
           "127 when CMD was not found; 2 when a flag, a policy or swap file or the state folder is wrong.\n",
           flags);
}

static void print_help(enum sm_command command)
{
    switch (command) {
    case SM_COMMAND_RUN:
        print_run_help();
        return;
    case SM_COMMAND_VM:
        print_vm_help();
        return;
    case SM_COMMAND_ATTACH:
        print_attach_help();
        return;
    case SM_COMMAND_PROXY:
        print_proxy_help();
        return;
    case SM_COMMANDS:
        return;
    }
}

/** Takes what is to be shown: as JSON, or as text for people. */
static int show(const struct sm_run_options *o, json_t *what, char *(*as_text)(const json_t *what))
{
    if (o->json) {
        char *text = json_dumps(what, JSON_INDENT(2));
        puts(text ? text : "null");
        free(text);
    } else {
        g_autofree char *text = as_text(what);
        fputs(text, stdout);
    }
    json_decref(what);
    return fflush(stdout) == 0 ? 0 : SM_SUPERVISOR_FAILED;
}

static int print_command(const struct sm_run_options *o)
{
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_vm_clear) struct sm_vm vm = SM_VM_INIT;

    int missing = sm_vm_prepare(o, &vm, &error);
    if (missing) {
        (void)sm_cli_fail(error, missing);
        return missing;
    }
    sm_vm_command(o, &vm);
    g_autofree char *text = sm_qemu_show(vm.argv);
    fputs(text, stdout);
    return fflush(stdout) == 0 ? 0 : SM_SUPERVISOR_FAILED;
}

int sm_cli_run(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_run_options_clear) struct sm_run_options o = {0};

    sm_log_init("supervisor");
    if (sm_run_options_parse(argc, argv, &o, &error) < 0) {
        if (g_error_matches(error, SM_ERROR, SM_ERROR_MISSING)) {
            fprintf(stderr, "%s\n", error->message); /* the spec's words, as they are */
            return SM_SUPERVISOR_FAILED;
        }
        return sm_cli_fail(error, SM_CLI_USAGE);
    }
    if (o.help) {
        print_help(o.command);
        return 0;
    }
    if (o.dry_run)
        return show(&o, sm_dry_run(&o), sm_dry_run_text);
    if (o.attach.print_args) /* the CA's path is not known before there is a workspace */
        return show(&o, sm_attach_args(&o, NULL), sm_attach_args_text);
    if (o.vm.print_command)
        return print_command(&o);
    for (guint i = 0; i < o.warnings->len; i++)
        fprintf(stderr, "slirp-med: warning: %s\n", (const char *)g_ptr_array_index(o.warnings, i));
    if (!sm_vsock_resolve(&o.vsock, &error)) {
        fprintf(stderr, "slirp-med: %s\n", error->message);
        return SM_SUPERVISOR_FAILED;
    }
    return sm_launch_run(&o, NULL);
}
