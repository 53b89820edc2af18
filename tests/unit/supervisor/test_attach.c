/* SPDX-License-Identifier: BSD-3-Clause */
/* `slirp-med attach`: its flags, what a VMM is to be started with, what the front is told, and sd_notify's protocol. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "launch/messages.h"
#include "launch/notify.h"
#include "launch/options.h"
#include "supervisor/supervisor.h"

static int parse(const char *args, struct sm_run_options *o, GError **error)
{
    g_autofree char *line = g_strconcat("attach ", args, NULL);
    g_auto(GStrv) argv = g_strsplit(line, " ", -1);
    memset(o, 0, sizeof(*o));
    return sm_run_options_parse((int)g_strv_length(argv), argv, o, error);
}

static struct sm_run_options good(const char *args)
{
    g_autoptr(GError) error = NULL;
    struct sm_run_options o;
    if (parse(args, &o, &error) < 0)
        fail_msg("'%s': %s", args, error->message);
    assert_int_equal(o.command, SM_COMMAND_ATTACH);
    return o;
}

static void wrong(const char *args, const char *words)
{
    g_autoptr(GError) error = NULL;
    struct sm_run_options o;
    if (parse(args, &o, &error) == 0)
        fail_msg("'%s' is taken", args);
    assert_int_equal(error->code, SM_ERROR_INVALID);
    if (!strstr(error->message, words))
        fail_msg("'%s': '%s' lacks '%s'", args, error->message, words);
}

static void test_flags(void **state)
{
    struct sm_run_options o = good("w1 --stream /run/x.sock --egress strict --egress-allow example.com");
    assert_string_equal(o.name, "w1");
    assert_false(o.name_generated);
    assert_int_equal(o.mode, SM_MODE_STRICT);
    assert_int_equal(o.attach.way, SM_ATTACH_STREAM);
    assert_string_equal(o.attach.path, "/run/x.sock");
    assert_string_equal(o.net.guest_mac, SM_NET_GUEST_MAC);
    assert_true(sm_run_options_intercepts(&o));
    sm_run_options_clear(&o);

    o = good("--stream x.sock"); /* a name is made up, and a path is where we are */
    assert_true(o.name_generated);
    assert_true(o.attach.path[0] == '/' && g_str_has_suffix(o.attach.path, "/x.sock"));
    sm_run_options_clear(&o);

    o = good("--stream tcp:127.0.0.1:4000 w1 --mac 52:54:00:AB:cd:01");
    assert_string_equal(o.name, "w1");
    assert_null(o.attach.path);
    assert_int_equal(o.attach.endpoint.port, 4000);
    assert_string_equal(o.net.guest_mac, "52:54:00:ab:cd:01");
    assert_int_equal(o.warnings->len, 1); /* TCP knows no users */
    sm_run_options_clear(&o);

    o = good("--stream=tcp:[::1]:4000 --client --name=w1");
    assert_true(o.attach.client);
    assert_int_equal(o.warnings->len, 0);
    sm_run_options_clear(&o);

    o = good("--dgram /a/b");
    assert_string_equal(o.attach.peer, "/a/b.vmm");
    sm_run_options_clear(&o);
    o = good("--dgram /a/b,/c/d");
    assert_string_equal(o.attach.path, "/a/b");
    assert_string_equal(o.attach.peer, "/c/d");
    sm_run_options_clear(&o);

    o = good("--vhost-user /v --client --json");
    assert_int_equal(o.attach.kind, SM_KIND_VHOST_USER);
    assert_true(o.json);
    sm_run_options_clear(&o);
}

static void test_wrong_flags(void **state)
{
    static const struct {
        const char *args, *words;
    } all[] = {
        {"w1", "no port"},
        {"w1 w2 --stream /x", "one NAME"},
        {"w1 --name w2 --stream /x", "given twice"},
        {"--name w2 w1 --stream /x", "one NAME"},
        {"../w --stream /x", "--name=../w"},
        {"--stream /x --vhost-user /y", "--stream was given too"},
        {"--stream /x --dgram /y", "one port"},
        {"--stream /x --stream /y", "given twice"},
        {"--stream ", "--stream=: not the path"},
        {"--stream /x/", "--stream"},
        {"--stream tcp:", "127.0.0.1:PORT"},
        {"--stream tcp:host:1", "127.0.0.1:PORT"},
        {"--stream tcp:10.0.0.1:1", "loopback"},
        {"--stream tcp:127.0.0.1", "loopback"},
        {"--stream /a\tb", "control characters"},
        {"--dgram /a,/a", "both ends"},
        {"--dgram /a,", "--dgram"},
        {"--dgram /a --client", "--client"},
        {"--stream /x --fd-kind stream", "--fd-kind"},
        {"--fd 3x", "--fd=3x"},
        {"--fd 2", "not a descriptor"},
        {"--fd -1", "not a descriptor"},
        {"--fd 999999", "not a descriptor"},
        {"--fd 99999999999", "not a descriptor"},
        {"--stream /x --ready-fd 1", "--ready-fd"},
        {"--stream /x --mac 52:54:00:00:00", "MAC"},
        {"--stream /x --mac 53:54:00:00:00:01", "MAC"},
        {"--stream /x --mac 00:00:00:00:00:00", "MAC"},
        {"--stream /x --mac " SM_NET_GATEWAY_MAC, "gateway"},
        {"--stream /x -- true", "starts no command"},
        {"--stream /x --rootfs /", "not for attach"},
        {"--stream /x --ro", "not for attach"},
        {"--stream /x --bind /a", "not for attach"},
        {"--stream /x --network isolated", "not for attach"},
        {"--stream /x --datapath tproxy", "--tap PATH or --device NAME"},
        {"--datapath tproxy", "--tap PATH or --device NAME"},
        {"--tap /x", "only with --datapath tproxy"},
        {"--device veth0 --datapath slirp", "only with --datapath tproxy"},
        {"--tap /x --device veth0 --datapath tproxy", "one port"},
        {"--tap /x/ --datapath tproxy", "--tap"},
        {"--tap /x --client --datapath tproxy", "--client"},
        {"--tap /x --fd-kind tap --datapath tproxy", "--fd-kind"},
        {"--device  --datapath tproxy", "--device=: not the name"},
        {"--device a/b --datapath tproxy", "--device=a/b: not the name"},
        {"--device .. --datapath tproxy", "--device=..: not the name"},
        {"--device sixteen-letters! --datapath tproxy", "not the name"},
        {"--device sixteen-letters_ --datapath tproxy", "not the name"},
        {"--stream /x --kernel /k", "not for attach"},
        {"--stream /x --steam", "did you mean --stream"},
        {"--stream /x --egress off --egress-max-conns 3", "--egress-max-conns"},
    };
    g_autoptr(GError) error = NULL;

    for (size_t i = 0; i < SM_ARRAY_LEN(all); i++)
        wrong(all[i].args, all[i].words);
    /* and what is attach's is not run's */
    char *argv[] = {(char[]){"run"}, (char[]){"--stream"}, (char[]){"/x"}, (char[]){"true"}, NULL};
    struct sm_run_options o;
    assert_int_equal(sm_run_options_parse(4, argv, &o, &error), -1);
    assert_non_null(strstr(error->message, "unknown flag"));
}

/** What comes by a device of the kernel's: a socket that gives a tap away, or nothing to listen at. */
static void test_kernel_path(void **state)
{
    g_autoptr(GError) error = NULL;
    struct sm_listen_spec row;
    struct sm_run_options o = good("w1 --datapath tproxy --tap /run/it's,here.sock --mtu 9000");

    assert_int_equal(o.attach.way, SM_ATTACH_TAP);
    assert_true(sm_attach_listens(&o.attach, &row));
    assert_string_equal(row.tag, SM_LISTEN_TAG_TAP);
    assert_string_equal(row.path, "/run/it's,here.sock");
    assert_false(row.single || row.client);
    g_autofree char *front = sm_message_front(&o, &error);
    assert_non_null(strstr(front, "\"port\":\"tproxy\""));
    json_t *args = sm_attach_args(&o, NULL);
    json_t *qemu = json_object_get(args, "qemu");
    assert_string_equal(json_string_value(json_array_get(qemu, 0)), "-netdev");
    const char *netdev = json_string_value(json_array_get(qemu, 1));
    assert_true(g_str_has_prefix(netdev, "tap,id=net0,helper="));
    assert_non_null(strstr(netdev, " tap '/run/it'\\''s,,here.sock'")); /* for a shell, and its comma for QEMU */
    assert_true(json_is_null(json_object_get(args, "cloud_hypervisor")));
    json_decref(args);
    sm_run_options_clear(&o);

    o = good("w1 --device veth0 --datapath=tproxy");
    assert_int_equal(o.attach.way, SM_ATTACH_DEVICE);
    assert_string_equal(o.attach.device, "veth0");
    assert_false(sm_attach_listens(&o.attach, &row));
    json_t *facts = sm_attach_facts(&o.attach);
    const char *kind, *device;
    assert_int_equal(json_unpack(facts, "{s:s, s:s, s:n, s:n}", "kind", &kind, "device", &device, "path", "address"),
                     0);
    assert_string_equal(kind, "device");
    assert_string_equal(device, "veth0");
    json_decref(facts);
    args = sm_attach_args(&o, NULL);
    assert_true(json_is_null(json_object_get(args, "qemu")));
    g_autofree char *text = sm_attach_args_text(args);
    assert_non_null(strstr(text, "other end of veth0"));
    json_decref(args);
    sm_run_options_clear(&o);
}

static void expect_kind(int fd, const char *more, enum sm_attach_kind kind)
{
    g_autofree char *args = g_strdup_printf("--fd %d%s", fd, more);
    struct sm_run_options o = good(args);
    assert_int_equal(o.attach.fd, fd);
    assert_int_equal(o.attach.kind, kind);
    sm_run_options_clear(&o);
}

static void refuse_fd(int fd, const char *more, const char *words)
{
    g_autofree char *args = g_strdup_printf("--fd %d%s", fd, more);
    wrong(args, words);
}

static void test_descriptors(void **state)
{
    int stream[2], dgram[2], seq[2], file = open("/dev/null", O_RDWR | O_CLOEXEC);
    int lone = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, dgram), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, seq), 0);
    expect_kind(stream[0], "", SM_KIND_STREAM);
    expect_kind(stream[0], " --fd-kind stream", SM_KIND_STREAM);
    expect_kind(stream[0], " --fd-kind vhost-user", SM_KIND_VHOST_USER);
    expect_kind(dgram[0], "", SM_KIND_DGRAM);
    expect_kind(dgram[0], " --fd-kind dgram", SM_KIND_DGRAM);
    refuse_fd(dgram[0], " --fd-kind stream", "another kind");
    refuse_fd(dgram[0], " --fd-kind vhost-user", "another kind");
    refuse_fd(stream[0], " --fd-kind dgram", "another kind");
    refuse_fd(stream[0], " --fd-kind tap", "another kind");
    refuse_fd(stream[0], " --fd-kind tap-vnet", "no such kind");
    refuse_fd(seq[0], "", "another kind");
    refuse_fd(lone, "", "not connected");
    refuse_fd(file, "", "not a tap");
    refuse_fd(file, " --fd-kind tap", "not a tap");
    refuse_fd(file, " --fd-kind stream", "no socket");
    g_autofree char *same = g_strdup_printf(" --ready-fd %d", stream[0]);
    refuse_fd(stream[0], same, "that is --fd");
    for (int i = 0; i < 2; i++) {
        close(stream[i]);
        close(dgram[i]);
        close(seq[i]);
    }
    close(file);
    close(lone);
}

static char *list_text(const json_t *list)
{
    GString *out = g_string_new(NULL);
    json_t *item;
    size_t i;
    if (!json_is_array(list))
        return g_string_free(g_string_append(out, "null"), FALSE);
    json_array_foreach((json_t *)(uintptr_t)list, i, item)
        g_string_append_printf(out, "%s%s", i ? " " : "", json_string_value(item));
    return g_string_free(out, FALSE);
}

static void test_arguments(void **state)
{
#define CARD                                                                                                           \
    " -device virtio-net-pci,netdev=net0,mac=" SM_NET_GUEST_MAC " -fw_cfg name=" SM_QEMU_FW_CFG_CA ",file=/state/"     \
    "ca.pem"
#define SHARED "-m 512M -object memory-backend-memfd,id=mem0,size=512M,share=on -machine memory-backend=mem0 "
    static const struct {
        const char *args, *qemu, *cloud_hypervisor;
    } all[] = {
        {"--stream /s", "-netdev stream,id=net0,server=off,addr.type=unix,addr.path=/s" CARD, "null"},
        {"--stream /s --client", "-netdev stream,id=net0,server=on,addr.type=unix,addr.path=/s" CARD, "null"},
        {"--stream /a,b,,c", "-netdev stream,id=net0,server=off,addr.type=unix,addr.path=/a,,b,,,,c" CARD, "null"},
        {"--stream tcp:127.0.0.1:99",
         "-netdev stream,id=net0,server=off,addr.type=inet,addr.host=127.0.0.1,addr.port=99" CARD, "null"},
        {"--stream tcp:[::1]:99", "-netdev stream,id=net0,server=off,addr.type=inet,addr.host=::1,addr.port=99" CARD,
         "null"},
        {"--dgram /d", "-netdev dgram,id=net0,local.type=unix,local.path=/d.vmm,remote.type=unix,remote.path=/d" CARD,
         "null"},
        {"--vhost-user /v", SHARED "-chardev socket,id=chr0,path=/v -netdev vhost-user,id=net0,chardev=chr0" CARD,
         "--memory size=512M,shared=on --net vhost_user=true,socket=/v,mac=" SM_NET_GUEST_MAC},
        {"--vhost-user /v --client",
         SHARED "-chardev socket,id=chr0,path=/v,server=on -netdev vhost-user,id=net0,chardev=chr0" CARD,
         "--memory size=512M,shared=on --net vhost_user=true,socket=/v,vhost_mode=server,mac=" SM_NET_GUEST_MAC},
        {"--vhost-user /a,b", SHARED "-chardev socket,id=chr0,path=/a,,b -netdev vhost-user,id=net0,chardev=chr0" CARD,
         "null"},
    };

    for (size_t i = 0; i < SM_ARRAY_LEN(all); i++) {
        struct sm_run_options o = good(all[i].args);
        json_t *args = sm_attach_args(&o, "/state/ca.pem");
        assert_non_null(args);
        g_autofree char *qemu = list_text(json_object_get(args, "qemu"));
        g_autofree char *ch = list_text(json_object_get(args, "cloud_hypervisor"));
        g_autofree char *text = sm_attach_args_text(args);
        assert_string_equal(qemu, all[i].qemu);
        assert_string_equal(ch, all[i].cloud_hypervisor);
        assert_string_equal(json_string_value(json_object_get(args, "ca_certificate")), "/state/ca.pem");
        assert_string_equal(json_string_value(json_object_get(args, "mac")), SM_NET_GUEST_MAC);
        assert_non_null(strstr(text, "/state/ca.pem"));
        assert_int_equal(strstr(text, "vectors=0") != NULL, o.attach.kind == SM_KIND_VHOST_USER);
        assert_int_equal(strstr(text, "cloud-hypervisor") != NULL, strcmp(ch, "null") != 0);
        json_decref(args);
        sm_run_options_clear(&o);
    }
}

static void test_what_the_front_is_told(void **state)
{
    static const char *const all[][2] = {{"--stream /s --mac 52:54:00:00:00:09", "stream"},
                                         {"--dgram /s --mac 52:54:00:00:00:09", "dgram"},
                                         {"--vhost-user /s --mac 52:54:00:00:00:09", "vhost-user"}};

    for (size_t i = 0; i < SM_ARRAY_LEN(all); i++) {
        struct sm_run_options o = good(all[i][0]);
        g_autofree char *text = sm_message_front(&o, NULL);
        json_t *m = json_loads(text, 0, NULL), *facts = sm_message_facts(&o);
        assert_string_equal(json_string_value(json_object_get(m, "port")), all[i][1]);
        assert_string_equal(json_string_value(json_object_get(m, "mac")), "52:54:00:00:00:09");
        json_t *port = json_object_get(facts, "port");
        assert_string_equal(json_string_value(json_object_get(port, "kind")), all[i][1]);
        assert_string_equal(json_string_value(json_object_get(port, "path")), "/s");
        assert_string_equal(json_string_value(json_object_get(json_object_get(facts, "network"), "mac")),
                            "52:54:00:00:00:09");
        json_decref(m);
        json_decref(facts);
        sm_run_options_clear(&o);
    }
}

static void test_notify(void **state)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    char dir[] = "/tmp/sm-notify-XXXXXX", buf[64];
    g_autofree char *long_name = g_strnfill(200, '/');
    g_autofree char *abstract = g_strdup_printf("@sm-notify-%d", (int)getpid());

    assert_int_equal(sm_notify_send(NULL, "READY=1\n"), 0); /* nobody waits */
    assert_int_equal(sm_notify_send("", "READY=1\n"), 0);
    static const char *const odd[] = {"relative", "@", "/", "vsock:2:1234"};
    for (size_t i = 0; i < SM_ARRAY_LEN(odd); i++) {
        assert_int_equal(sm_notify_send(odd[i], "READY=1\n"), -1);
        assert_int_equal(errno, EINVAL);
    }
    assert_int_equal(sm_notify_send(long_name, "READY=1\n"), -1);
    assert_non_null(mkdtemp(dir));
    g_autofree char *path = g_strconcat(dir, "/n", NULL);
    assert_int_equal(sm_notify_send(path, "READY=1\n"), -1);
    assert_int_equal(errno, ENOENT);

    for (int round = 0; round < 2; round++) {
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        const char *name = round ? abstract : path;
        memcpy(sun.sun_path, name, strlen(name) + 1);
        if (round)
            sun.sun_path[0] = '\0';
        socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name) + (round ? 0 : 1));
        assert_int_equal(bind(fd, (struct sockaddr *)&sun, len), 0);
        assert_int_equal(sm_notify_send(name, "READY=1\nSTATUS=x\n"), 0);
        assert_int_equal(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), 17);
        assert_memory_equal(buf, "READY=1\nSTATUS=x\n", 17);
        for (int i = 0; i < 4096; i++) /* a manager that does not read is not waited for */
            if (sm_notify_send(name, "STOPPING=1\n") < 0)
                break;
        assert_int_equal(errno, EAGAIN);
        close(fd);
    }
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flags),       cmocka_unit_test(test_kernel_path),
        cmocka_unit_test(test_wrong_flags), cmocka_unit_test(test_descriptors),
        cmocka_unit_test(test_arguments),   cmocka_unit_test(test_what_the_front_is_told),
        cmocka_unit_test(test_notify),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
