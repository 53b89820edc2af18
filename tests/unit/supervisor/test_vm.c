/* SPDX-License-Identifier: BSD-3-Clause */
/* `slirp-med vm`: its flags, QEMU's command line, and what guest-init and the front are told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "launch/kvm.h"
#include "launch/messages.h"
#include "launch/options.h"
#include "launch/qemu.h"
#include "launch/vm.h"
#include "paths/guest_config.h"

static char dir[64];
static char *kernel, *initrd;

/** Arguments behind "vm", separated by one space; K and I stand for the two files. */
static int parse(const char *args, struct sm_run_options *o, GError **error, char ***ret_argv)
{
    g_autofree char *line = g_strconcat("vm ", args, NULL);
    char **argv = g_strsplit(line, " ", -1);

    for (char **a = argv; *a; a++) {
        const char *path = strcmp(*a, "K") == 0 ? kernel : strcmp(*a, "I") == 0 ? initrd : NULL;
        if (path) {
            g_free(*a);
            *a = g_strdup(path);
        }
    }
    memset(o, 0, sizeof(*o));
    *ret_argv = argv;
    return sm_run_options_parse((int)g_strv_length(argv), argv, o, error);
}

static void good(const char *args, struct sm_run_options *o, char ***ret_argv)
{
    g_autoptr(GError) error = NULL;
    if (parse(args, o, &error, ret_argv) < 0)
        fail_msg("'%s': %s", args, error->message);
}

static void test_options(void **state)
{
    struct sm_run_options o;
    {
        g_auto(GStrv) argv = NULL;
        good("--kernel K", &o, &argv);
        assert_int_equal(o.command, SM_COMMAND_VM);
        assert_string_equal(o.vm.kernel, kernel);
        assert_null(o.vm.initrd);
        assert_int_equal(o.vm.memory_mib, 512);
        assert_int_equal(o.vm.cpus, 1);
        assert_int_equal(o.vm.port, SM_QEMU_STREAM);
        assert_null(o.argv);
        sm_run_options_clear(&o);
    }
    {
        g_auto(GStrv) argv = NULL;
        good("--egress strict --kernel K --initrd I --append quiet --memory 2G --cpus 4 --port stream --qemu q -- -S K",
             &o, &argv);
        assert_int_equal(o.mode, SM_MODE_STRICT);
        assert_string_equal(o.vm.initrd, initrd);
        assert_string_equal(o.vm.append, "quiet");
        assert_int_equal(o.vm.memory_mib, 2048);
        assert_int_equal(o.vm.cpus, 4);
        assert_string_equal(o.vm.qemu, "q");
        assert_string_equal(o.argv[0], "-S");
        assert_string_equal(o.argv[1], kernel);
        assert_null(o.argv[2]);
        sm_run_options_clear(&o);
    }
    {
        g_auto(GStrv) argv = NULL;
        good("--kernel K --memory 96", &o, &argv); /* MiB, as QEMU has it */
        assert_int_equal(o.vm.memory_mib, 96);
        sm_run_options_clear(&o);
    }
}

static void test_errors(void **state)
{
    static const struct {
        const char *args;
        const char *words[3];
    } bad[] = {
        {"--egress strict", {"--kernel"}},
        {"--kernel /nonexistent/k", {"--kernel", "/nonexistent/k", "No such file"}},
        {"--kernel /", {"--kernel", "not a file"}},
        {"--kernel /dev/null", {"--kernel", "not a file"}},
        {"--kernel K --initrd /nonexistent/i", {"--initrd", "/nonexistent/i"}},
        {"--kernel K --kernel K", {"--kernel", "twice"}},
        {"--kernel K --memory 63M", {"--memory", "63M", "64M"}},
        {"--kernel K --memory lots", {"--memory", "lots"}},
        {"--kernel K --memory 99999999", {"--memory"}},
        {"--kernel K --memory -1", {"--memory"}},
        {"--kernel K --cpus 0", {"--cpus", "1 to 255"}},
        {"--kernel K --cpus 256", {"--cpus"}},
        {"--kernel K --port tap", {"--port", "tap", "stream or vhost-user"}},
        {"--kernel K --port", {"--port", "lacks its value"}},
        {"--kernel K --rootfs /", {"--rootfs", "unknown flag", "slirp-med vm --help"}},
        {"--kernel K --ro", {"--ro", "unknown flag"}},
        {"--kernel K ls", {"ls", "behind --"}},
        {"--kernel K --print-command=x", {"--print-command", "takes no value"}},
        {"--kernel K -m 3", {"-m", "unknown flag", "behind --"}},
        {"--kernel K -- -name \xff", {"UTF-8"}},
        {"--kernel K --datapath tproxy --port vhost-user", {"--port=vhost-user", "by a tap"}},
    };

    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        g_auto(GStrv) argv = NULL;
        g_autoptr(GError) error = NULL;
        struct sm_run_options o;
        if (parse(bad[i].args, &o, &error, &argv) == 0)
            fail_msg("'%s' was taken", bad[i].args);
        assert_true(g_error_matches(error, SM_ERROR, SM_ERROR_INVALID));
        for (size_t w = 0; w < SM_ARRAY_LEN(bad[i].words) && bad[i].words[w]; w++)
            if (!strstr(error->message, bad[i].words[w]))
                fail_msg("'%s': '%s' lacks '%s'", bad[i].args, error->message, bad[i].words[w]);
    }
}

/** What is only vm's is not run's, and the helps say so. */
static void test_run_does_not_know_them(void **state)
{
    char *argv[] = {(char *)"run", (char *)"--kernel", kernel, (char *)"true", NULL};
    g_autoptr(GError) error = NULL;
    struct sm_run_options o;

    assert_int_equal(sm_run_options_parse(4, argv, &o, &error), -1);
    assert_non_null(strstr(error->message, "--kernel: unknown flag"));
    g_autofree char *run = sm_run_options_help(SM_COMMAND_RUN), *vm = sm_run_options_help(SM_COMMAND_VM);
    assert_null(strstr(run, "--kernel"));
    assert_non_null(strstr(run, "  --rootfs"));
    assert_non_null(strstr(vm, "--kernel"));
    assert_null(strstr(vm, "  --rootfs"));
    assert_non_null(strstr(vm, "--egress-allow"));
}

/** Is option there with exactly this value? */
static bool has(char **argv, const char *option, const char *value)
{
    for (size_t i = 0; argv[i] && argv[i + 1]; i++)
        if (strcmp(argv[i], option) == 0 && strcmp(argv[i + 1], value) == 0)
            return true;
    return false;
}

static struct sm_qemu plain(void)
{
    return (struct sm_qemu){.program = "/q",
                            .name = "w",
                            .network = true,
                            .mac = "52:55:0a:00:02:0f",
                            .mtu = 1500,
                            .memory_mib = 256,
                            .cpus = 2,
                            .initrd = true,
                            .ca = true};
}

static void test_command_line(void **state)
{
    struct sm_qemu q = plain();
    char *more[] = {(char *)"-device", (char *)"isa-debug-exit", NULL};
    q.append = "quiet";
    q.sandbox = true;
    q.more = more;
    g_auto(GStrv) argv = sm_qemu_argv(&q);
    guint n = g_strv_length(argv);

    assert_string_equal(argv[0], "/q");
    assert_true(has(argv, "-kernel", "/proc/self/fd/12"));
    assert_true(has(argv, "-initrd", "/proc/self/fd/13"));
    assert_true(has(argv, "-append", "console=ttyS0 panic=-1 quiet"));
    assert_true(has(argv, "-netdev", "stream,id=net0,server=off,addr.type=fd,addr.str=8"));
    assert_true(
        has(argv, "-device", "virtio-net-pci,id=nic0,netdev=net0,romfile=,mac=52:55:0a:00:02:0f,host_mtu=1500"));
    assert_true(has(argv, "-fw_cfg", "name=opt/org.slirp-med/ca.pem,file=/proc/self/fd/7"));
    assert_true(has(argv, "-machine", "q35,accel=tcg"));
    assert_true(has(argv, "-cpu", "max"));
    assert_true(has(argv, "-chardev", "stdio,id=console,signal=off"));
    assert_true(has(argv, "-m", "256M"));
    assert_true(has(argv, "-smp", "2"));
    assert_true(has(argv, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"));
    assert_true(g_strv_contains((const char *const *)argv, "-nodefaults"));
    assert_string_equal(argv[n - 1], "isa-debug-exit"); /* the user's come last: they win */
}

static void test_command_line_without(void **state)
{
    struct sm_qemu q = plain();
    q.network = q.ca = q.initrd = false;
    q.kvm = q.terminal = true;
    g_auto(GStrv) argv = sm_qemu_argv(&q);
    g_autofree char *text = g_strjoinv(" ", argv);

    assert_null(strstr(text, "netdev"));
    assert_null(strstr(text, "virtio-net"));
    assert_null(strstr(text, "fw_cfg"));
    assert_null(strstr(text, "-initrd"));
    assert_null(strstr(text, "-sandbox"));
    assert_true(has(argv, "-machine", "q35,accel=kvm"));
    assert_true(has(argv, "-cpu", "host"));
    assert_true(has(argv, "-chardev", "stdio,id=console,signal=off,mux=on"));
    assert_true(has(argv, "-append", "console=ttyS0 panic=-1"));
}

/** The front reads the guest's memory, so it has to be shared; and QEMU 7.2 under TCG bears no MSI-X there. */
static void test_command_line_vhost_user(void **state)
{
    struct sm_qemu q = plain();
    q.port = SM_QEMU_VHOST_USER;
    for (int kvm = 0; kvm < 2; kvm++) {
        q.kvm = kvm;
        g_auto(GStrv) argv = sm_qemu_argv(&q);
        g_autofree char *text = g_strjoinv(" ", argv);
        assert_true(has(argv, "-chardev", "socket,id=net0-socket,path=/proc/self/fd/14"));
        assert_true(has(argv, "-netdev", "vhost-user,id=net0,chardev=net0-socket"));
        assert_true(has(argv, "-object", "memory-backend-memfd,id=memory0,size=256M,share=on"));
        assert_non_null(strstr(text, ",memory-backend=memory0 "));
        assert_int_equal(strstr(text, ",vectors=0") != NULL, !kvm);
        assert_null(strstr(text, "addr.type"));
    }
    q.initrd = false;
    g_auto(GStrv) without = sm_qemu_argv(&q);
    assert_true(has(without, "-chardev", "socket,id=net0-socket,path=/proc/self/fd/13"));
    q.network = false;
    g_auto(GStrv) argv = sm_qemu_argv(&q);
    g_autofree char *text = g_strjoinv(" ", argv);
    assert_null(strstr(text, "memory0"));
}

/** On the kernel path QEMU has a tap in its hands; the rest is where it was. */
static void test_command_line_tap(void **state)
{
    struct sm_qemu q = plain();
    q.tap = q.serial = true;
    g_auto(GStrv) argv = sm_qemu_argv(&q);
    g_autofree char *text = g_strjoinv(" ", argv);

    assert_true(has(argv, "-netdev", "tap,id=net0,fd=8,vhost=off"));
    assert_true(
        has(argv, "-device", "virtio-net-pci,id=nic0,netdev=net0,romfile=,mac=52:55:0a:00:02:0f,host_mtu=1500"));
    assert_true(has(argv, "-chardev", "socket,id=serial0,path=/proc/self/fd/14"));
    assert_null(strstr(text, "memory0"));
    assert_null(strstr(text, "addr.type"));
}

/** Each socket has the descriptor that guest-init gives it: in the order of `files`, as far as they are there. */
static void test_command_line_devices(void **state)
{
    struct sm_qemu q = plain();
    q.vsock = q.serial = true;
    {
        g_auto(GStrv) argv =
            sm_qemu_argv(&q); /* the stream has its socket already, and the vsock device needs shared memory */
        assert_true(has(argv, "-chardev", "socket,id=vsock0,path=/proc/self/fd/14"));
        assert_true(has(argv, "-chardev", "socket,id=serial0,path=/proc/self/fd/15"));
        assert_true(has(argv, "-device", "vhost-user-vsock-pci,chardev=vsock0,vectors=0"));
        assert_true(has(argv, "-device", "virtserialport,chardev=serial0,name=org.slirp-med.0"));
        assert_true(has(argv, "-object", "memory-backend-memfd,id=memory0,size=256M,share=on"));
    }
    q.port = SM_QEMU_VHOST_USER;
    q.kvm = true;
    q.initrd = false;
    g_auto(GStrv) argv = sm_qemu_argv(&q);
    assert_true(has(argv, "-chardev", "socket,id=net0-socket,path=/proc/self/fd/13"));
    assert_true(has(argv, "-chardev", "socket,id=vsock0,path=/proc/self/fd/14"));
    assert_true(has(argv, "-chardev", "socket,id=serial0,path=/proc/self/fd/15"));
    assert_true(has(argv, "-device", "vhost-user-vsock-pci,chardev=vsock0"));
}

static void test_devices(void **state)
{
    static const struct {
        const char *args;
        bool serial, vsock;
    } rows[] = {
        {"--kernel K --state-dir /s --name w", true, false},
        {"--kernel K --state-dir /s --name w --port vhost-user", true, true},
        {"--kernel K --state-dir /s --name w --mediation 5000=127.0.0.1:80", true, true},
        {"--kernel K --state-dir /s --name w --egress-opaque", false, false},
        {"--kernel K --state-dir /s --name w --network isolated --port vhost-user", false, false},
    };

    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        struct sm_run_options o;
        g_auto(GStrv) argv = NULL;
        good(rows[i].args, &o, &argv);
        if (rows[i].serial)
            assert_string_equal(o.vsock.serial, "/s/w/serial.sock");
        else
            assert_null(o.vsock.serial);
        if (rows[i].vsock)
            assert_string_equal(o.vsock.device, "/s/w/vsock.sock");
        else
            assert_null(o.vsock.device);
        sm_run_options_clear(&o);
    }
}

/** What is shown is what a shell would run. */
static void test_shown(void **state)
{
    char *argv[] = {(char *)"/q", (char *)"-append", (char *)"a b 'c'", (char *)"-S", (char *)"", NULL};
    g_autofree char *text = sm_qemu_show(argv);
    g_auto(GStrv) parsed = NULL;
    int n;

    assert_int_equal(g_str_has_suffix(text, "\n"), 1);
    assert_true(g_shell_parse_argv(text, &n, &parsed, NULL));
    assert_int_equal(n, 5);
    for (int i = 0; i < n; i++)
        assert_string_equal(parsed[i], argv[i]);
}

static void test_messages(void **state)
{
    char *none[] = {NULL}, *command[] = {(char *)"/q", (char *)"-S", NULL};
    struct sm_launch_ground ground = {.resolv_conf = "",
                                      .cwd = "/somewhere",
                                      .hidden = none,
                                      .vmm_argv = command,
                                      .vmm_program = "/opt/q",
                                      .n_more = 1,
                                      .nofile = -1,
                                      .core = -1};
    char base[] = "/state";
    struct sm_workspace ws = {.base = base, .base_fd = -1, .dirfd = -1, .lock_fd = -1};
    struct sm_run_options o;
    g_auto(GStrv) argv = NULL;
    g_autoptr(GError) error = NULL;

    good("--kernel K --initrd I --name w --memory 1G", &o, &argv);
    g_autofree char *guest = sm_message_guest(&o, &ws, &ground, &error);
    struct sm_guest_config *c = guest ? sm_guest_config_parse(guest, strlen(guest), &error) : NULL;
    if (!c)
        fail_msg("%s", error->message);
    assert_true(c->bare && c->isolated && c->ca); /* no network device of any kind for QEMU */
    assert_int_equal(c->n_more, 1);
    assert_string_equal(c->files[0], kernel);
    assert_string_equal(c->files[1], initrd);
    assert_true(g_str_has_suffix(c->files[2], "/w/serial.sock"));
    assert_null(c->files[3]);
    assert_string_equal(c->cwd, "/");
    assert_string_equal(c->argv[1], "-S");
    assert_string_equal(c->state_dir, "/state");
    assert_int_equal(c->n_binds, 1);
    assert_string_equal(c->binds[0].src, "/opt/q"); /* /usr is in the view anyway */
    sm_guest_config_free(c);

    g_autofree char *front = sm_message_front(&o, &error);
    assert_non_null(strstr(front, "\"port\":\"stream\""));
    json_t *facts = sm_message_facts(&o);
    const char *port, *path;
    json_int_t memory;
    assert_int_equal(
        json_unpack(facts, "{s:{s:s s:s s:I}}", "vm", "port", &port, "kernel", &path, "memory_mib", &memory), 0);
    assert_string_equal(port, "stream");
    assert_string_equal(path, kernel);
    assert_int_equal(memory, 1024);
    json_decref(facts);
    sm_run_options_clear(&o);
}

/** guest-init makes the tap, and the front the sockets at its other end its port. */
static void test_messages_tproxy(void **state)
{
    char *none[] = {NULL}, *command[] = {(char *)"/q", NULL};
    struct sm_launch_ground ground = {
        .resolv_conf = "", .cwd = "/", .hidden = none, .vmm_argv = command, .vmm_program = "/usr/bin/q"};
    char base[] = "/state";
    struct sm_workspace ws = {.base = base, .base_fd = -1, .dirfd = -1, .lock_fd = -1};
    struct sm_run_options o;
    g_auto(GStrv) argv = NULL;
    g_autoptr(GError) error = NULL;

    good("--kernel K --name w --datapath tproxy --mtu 9000", &o, &argv);
    g_autofree char *guest = sm_message_guest(&o, &ws, &ground, &error);
    struct sm_guest_config *c = guest ? sm_guest_config_parse(guest, strlen(guest), &error) : NULL;
    if (!c)
        fail_msg("%s", error->message);
    assert_true(c->bare && c->isolated && c->tproxy && c->tap.vnet_hdr);
    assert_int_equal(c->n_more, 0);
    assert_int_equal(c->tap.mtu, 9000);
    sm_guest_config_free(c);
    g_autofree char *front = sm_message_front(&o, &error);
    assert_non_null(strstr(front, "\"port\":\"tproxy\""));
    json_t *facts = sm_message_facts(&o);
    const char *port, *datapath;
    assert_int_equal(json_unpack(facts, "{s:{s:s} s:s}", "vm", "port", &port, "datapath", &datapath), 0);
    assert_string_equal(port, "tap");
    assert_string_equal(datapath, "tproxy");
    json_decref(facts);
    sm_run_options_clear(&o);
}

/** QEMU is looked for before anything else is done, and its absence has words and a status of its own. */
static void test_no_qemu(void **state)
{
    struct sm_run_options o;
    g_auto(GStrv) argv = NULL;

    good("--kernel K --print-command", &o, &argv);
    g_autofree char *path = g_strdup(getenv("PATH"));
    g_setenv("PATH", dir, TRUE);
    {
        sm_cleanup(sm_vm_clear) struct sm_vm vm = SM_VM_INIT;
        g_autoptr(GError) error = NULL;
        assert_int_equal(sm_vm_prepare(&o, &vm, &error), 127);
        assert_non_null(strstr(error->message, "qemu-system-x86"));
    }
    g_setenv("PATH", path, TRUE);
    o.vm.qemu = g_strdup("/nonexistent/qemu");
    {
        sm_cleanup(sm_vm_clear) struct sm_vm vm = SM_VM_INIT;
        g_autoptr(GError) error = NULL;
        assert_int_equal(sm_vm_prepare(&o, &vm, &error), 127);
        assert_non_null(strstr(error->message, "--qemu=/nonexistent/qemu"));
    }
    sm_run_options_clear(&o);
}

/** A QEMU that needs libseccomp gets -sandbox, another does not. */
static void test_sandbox_is_found(void **state)
{
    static const char *const texts[] = {"....libseccomp.so.2....", "....libsomething.so.2...."};

    for (size_t i = 0; i < SM_ARRAY_LEN(texts); i++) {
        struct sm_run_options o;
        g_auto(GStrv) argv = NULL;
        g_autoptr(GError) error = NULL;
        sm_cleanup(sm_vm_clear) struct sm_vm vm = SM_VM_INIT;
        good("--kernel K --print-command", &o, &argv);
        o.vm.qemu = g_build_filename(dir, "qemu", NULL);
        assert_true(g_file_set_contents(o.vm.qemu, texts[i], -1, NULL) && chmod(o.vm.qemu, 0755) == 0);
        assert_int_equal(sm_vm_prepare(&o, &vm, &error), 0);
        sm_vm_command(&o, &vm);
        assert_int_equal(g_strv_contains((const char *const *)vm.argv, "-sandbox"), i == 0);
        (void)unlink(o.vm.qemu);
        sm_run_options_clear(&o);
    }
}

/** Whatever this machine has: an answer, and a reason with a no; and our alarm clock is as it was. */
static void test_kvm(void **state)
{
    const char *why = NULL;
    struct sigaction before, after;

    assert_int_equal(sigaction(SIGALRM, NULL, &before), 0);
    bool usable = sm_kvm_usable(&why);
    assert_int_equal(sigaction(SIGALRM, NULL, &after), 0);
    assert_true(usable || why);
    assert_true(before.sa_handler == after.sa_handler);

    /* Beside something else the same, and our signals are as they were. */
    sigset_t mask, mask_after;
    assert_int_equal(sigprocmask(SIG_SETMASK, NULL, &mask), 0);
    struct sm_kvm_asked *asked = sm_kvm_ask();
    assert_non_null(asked);
    const char *why_too = NULL;
    assert_int_equal(sm_kvm_answer(&asked, &why_too), usable);
    assert_null(asked);
    assert_true(usable ? !why_too : why_too == why);
    assert_int_equal(sigprocmask(SIG_SETMASK, NULL, &mask_after), 0);
    for (int sig = 1; sig < 32; sig++)
        assert_int_equal(sigismember(&mask, sig), sigismember(&mask_after, sig));
    assert_int_equal(sigaction(SIGALRM, NULL, &after), 0);
    assert_true(before.sa_handler == after.sa_handler);
    if (access("/dev/kvm", R_OK | W_OK) < 0)
        assert_false(usable);
}

static int setup(void **state)
{
    (void)snprintf(dir, sizeof(dir), "/tmp/sm-vm-test.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    kernel = g_build_filename(dir, "kernel", NULL);
    initrd = g_build_filename(dir, "initrd", NULL);
    return g_file_set_contents(kernel, "k", -1, NULL) && g_file_set_contents(initrd, "i", -1, NULL) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)unlink(kernel);
    (void)unlink(initrd);
    (void)rmdir(dir);
    g_free(kernel);
    g_free(initrd);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_run_does_not_know_them),
        cmocka_unit_test(test_command_line),
        cmocka_unit_test(test_command_line_without),
        cmocka_unit_test(test_command_line_vhost_user),
        cmocka_unit_test(test_command_line_tap),
        cmocka_unit_test(test_command_line_devices),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_shown),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_messages_tproxy),
        cmocka_unit_test(test_no_qemu),
        cmocka_unit_test(test_sandbox_is_found),
        cmocka_unit_test(test_kvm),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
