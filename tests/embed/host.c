/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A host of libslirp-med for tests: built with pkg-config alone against what `meson install` laid out. It has threads
 * that allocate, fork and open descriptors all the time, and does what it is told on stdin, a line each; every answer
 * and every event is a line on stdout:
 *
 *   new KEY=VALUE...     program, state_dir, name, mode (0..2), allow, deny, policy_file, publish, mac
 *   start-fd PORT FD     PORT: 0 stream, 1 vhost-user, 2 dgram, 3 tap
 *   start-path PORT PATH CLIENT
 *   ready MS | network | publish SPEC | unpublish SPEC | policy PATH | stop MS | free
 *   events MS            until none has come for MS, or STOPPED
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <slirp-med/slirp-med.h>

#define LIST_MAX 8

static volatile sig_atomic_t over;

static void *busy(void *arg)
{
    while (!over) {
        void *p = malloc(4096);
        int fd = open("/dev/null", O_RDONLY); /* without CLOEXEC: must not end up in a workspace */
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        free(p);
        if (pid > 0)
            (void)waitpid(pid, NULL, 0);
        if (fd >= 0)
            close(fd);
    }
    return NULL;
}

static const char *or_dash(const char *text)
{
    return text && *text ? text : "-";
}

static int answer(int r, const struct slirp_med_error *error)
{
    if (r < 0)
        printf("error %d %s\n", (int)error->code, error->message);
    else
        printf("ok\n");
    return r;
}

static void tell(const struct slirp_med_event *e)
{
    switch (e->type) {
    case SLIRP_MED_READY:
        printf("event READY\n");
        break;
    case SLIRP_MED_RECORD:
        printf("event RECORD %s %s %u %s %s\n", e->json, e->name, e->port, or_dash(e->dst), or_dash(e->reason));
        break;
    case SLIRP_MED_LOST:
        printf("event LOST %llu\n", (unsigned long long)e->count);
        break;
    case SLIRP_MED_MESSAGE:
        printf("event MESSAGE %s\n", e->text);
        break;
    case SLIRP_MED_STOPPED:
        printf("event STOPPED %d %s\n", e->status, or_dash(e->text));
        break;
    }
}

/* Through poll(2) on the one descriptor, as an event loop would. */
static void events(struct slirp_med *med, int ms)
{
    struct slirp_med_event e;
    struct pollfd p = {.fd = slirp_med_fd(med), .events = POLLIN};

    while (poll(&p, 1, ms) > 0)
        while (slirp_med_next(med, &e) > 0) {
            tell(&e);
            if (e.type == SLIRP_MED_STOPPED)
                goto end;
        }
end:
    printf("ok\n");
}

static struct slirp_med *make(char *rest, struct slirp_med_error *error)
{
    struct slirp_med_config c = SLIRP_MED_CONFIG_INIT;
    const char *allow[LIST_MAX + 1] = {0}, *deny[LIST_MAX + 1] = {0}, *publish[LIST_MAX + 1] = {0};
    size_t n_allow = 0, n_deny = 0, n_publish = 0;
    char *save = NULL;

    for (char *word = strtok_r(rest, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        char *value = strchr(word, '=');
        if (!value)
            continue;
        *value++ = '\0';
        if (strcmp(word, "program") == 0)
            c.program = value;
        else if (strcmp(word, "state_dir") == 0)
            c.state_dir = value;
        else if (strcmp(word, "name") == 0)
            c.name = value;
        else if (strcmp(word, "mode") == 0)
            c.mode = (enum slirp_med_mode)strtol(value, NULL, 10);
        else if (strcmp(word, "policy_file") == 0)
            c.policy_file = value;
        else if (strcmp(word, "mac") == 0)
            c.mac = value;
        else if (strcmp(word, "allow") == 0 && n_allow < LIST_MAX)
            allow[n_allow++] = value;
        else if (strcmp(word, "deny") == 0 && n_deny < LIST_MAX)
            deny[n_deny++] = value;
        else if (strcmp(word, "publish") == 0 && n_publish < LIST_MAX)
            publish[n_publish++] = value;
        else if (strcmp(word, "size") == 0)
            c.size = strtoul(value, NULL, 10);
    }
    c.allow = allow;
    c.deny = deny;
    c.publish = publish;
    return slirp_med_new(&c, error);
}

int main(void)
{
    struct slirp_med_error error = {0};
    struct slirp_med_network net;
    struct slirp_med *med = NULL;
    char line[4096];
    pthread_t threads[3];

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < sizeof(threads) / sizeof(threads[0]); i++)
        if (pthread_create(&threads[i], NULL, busy, NULL) != 0)
            return 1;
    printf("host %s\n", slirp_med_version());
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\n")] = '\0';
        char *rest = strchr(line, ' ');
        rest = rest ? (*rest = '\0', rest + 1) : line + strlen(line);
        if (strcmp(line, "new") == 0) {
            med = make(rest, &error);
            (void)answer(med ? 0 : -1, &error);
        } else if (!med) {
            printf("error 0 nothing was made\n");
        } else if (strcmp(line, "start-fd") == 0) {
            int port = 0, fd = -1;
            (void)sscanf(rest, "%d %d", &port, &fd);
            if (answer(slirp_med_start_fd(med, (enum slirp_med_port)port, fd, &error), &error) == 0)
                close(fd);
        } else if (strcmp(line, "start-path") == 0) {
            char path[1024] = "";
            int port = 0, client = 0;
            (void)sscanf(rest, "%d %1023s %d", &port, path, &client);
            (void)answer(slirp_med_start_path(med, (enum slirp_med_port)port, path, client != 0, &error), &error);
        } else if (strcmp(line, "ready") == 0) {
            (void)answer(slirp_med_wait_ready(med, (int)strtol(rest, NULL, 10), &error), &error);
        } else if (strcmp(line, "network") == 0) {
            if (answer(slirp_med_network(med, &net, &error), &error) == 0)
                printf("network %s %s %s %u %s %u %s %d %s %s %d\n", or_dash(net.guest), or_dash(net.gateway),
                       or_dash(net.resolver), net.prefix_len, or_dash(net.mac), net.mtu, or_dash(net.state),
                       net.connected, or_dash(net.ca_path), or_dash(net.audit_path), slirp_med_pid(med));
        } else if (strcmp(line, "publish") == 0) {
            unsigned port = 0;
            if (answer(slirp_med_publish(med, rest, &port, &error), &error) == 0)
                printf("port %u\n", port);
        } else if (strcmp(line, "unpublish") == 0) {
            (void)answer(slirp_med_unpublish(med, rest, &error), &error);
        } else if (strcmp(line, "policy") == 0) {
            (void)answer(slirp_med_load_policy(med, *rest ? rest : NULL, &error), &error);
        } else if (strcmp(line, "stop") == 0) {
            (void)answer(slirp_med_stop(med, (int)strtol(rest, NULL, 10), &error), &error);
        } else if (strcmp(line, "events") == 0) {
            events(med, (int)strtol(rest, NULL, 10));
        } else if (strcmp(line, "free") == 0) {
            slirp_med_free(med);
            med = NULL;
            printf("ok\n");
        } else {
            printf("error 0 unknown: %s\n", line);
        }
    }
    slirp_med_free(med);
    over = 1;
    for (size_t i = 0; i < sizeof(threads) / sizeof(threads[0]); i++)
        (void)pthread_join(threads[i], NULL);
    return 0;
}
