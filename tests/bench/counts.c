/* SPDX-License-Identifier: BSD-3-Clause */
/*
 *   counts list             one line for each harness: name, how often its thing is done, what that thing is
 *   counts NAME [N]         runs it, under a counting tool or not; prints how often, in how many turns of the loop, and
 *                           how many allocations were made in them
 *   counts known [N]        allocates in a turn what test_counts.py knows the number of, and as much outside of it
 */
#include "counts.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

static bool begun;
static unsigned long turns;

/* Time as the code under test sees it (linked in place of libc's): it begins with the real one and goes on by a step a
 * question, so that timers fire alike in every run, and a question is no system call, as it would be under a tool that
 * hides the vDSO. */
#define STEP_NS 20000
int __real_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    static int64_t begin_ns[2], passed_ns;
    int64_t *begin = &begin_ns[id == CLOCK_REALTIME];

    if (*begin == 0) {
        if (__real_clock_gettime(id, t) < 0)
            return -1;
        *begin = (int64_t)t->tv_sec * 1000000000 + t->tv_nsec - passed_ns;
    }
    passed_ns += STEP_NS;
    t->tv_sec = (*begin + passed_ns) / 1000000000;
    t->tv_nsec = (*begin + passed_ns) % 1000000000;
    return 0;
}

void counts_begin(void)
{
    begun = true;
}

/* The counting tool knows this function by its name. */
int counts_counted_turn(struct sm_loop *loop, int timeout_ms);
__attribute__((noinline)) int counts_counted_turn(struct sm_loop *loop, int timeout_ms)
{
    counts_allocations_count(true);
    int status = sm_loop_turn(loop, timeout_ms);

    counts_allocations_count(false);
    turns++;
    return status;
}

void counts_turn(struct sm_loop *loop, int timeout_ms)
{
    if ((begun ? counts_counted_turn : sm_loop_turn)(loop, timeout_ms) != 0) {
        perror("counts: epoll");
        exit(1);
    }
}

/* One of each that counts_alloc.c knows, and of GLib's two: ten. */
static void allocate(void)
{
    static void *volatile p[9]; /* or the compiler would leave them out */
    void *aligned = NULL;

    p[0] = malloc(1);
    p[1] = calloc(1, 1);
    p[2] = malloc(1);
    p[2] = realloc(p[2], 5000);
    p[3] = reallocarray(NULL, 1, 1);
    p[4] = memalign(64, 64);
    p[5] = aligned_alloc(64, 64);
    p[6] = posix_memalign(&aligned, 64, 64) == 0 ? aligned : NULL;
    p[7] = g_malloc(1);
    p[8] = g_slice_alloc(48);
    for (unsigned i = 0; i < 8; i++)
        free(p[i]);
    g_slice_free1(48, p[8]);
}

static void on_known(struct sm_watch *watch, uint32_t events)
{
    uint64_t n;

    if (read(watch->fd, &n, sizeof(n)) == sizeof(n))
        allocate();
}

static void known(unsigned n)
{
    struct sm_loop *loop = sm_loop_new(NULL);
    struct sm_watch watch;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    sm_watch_init(&watch, fd, on_known);
    if (!loop || fd < 0 || sm_loop_watch(loop, &watch, EPOLLIN) < 0) {
        perror("counts: known");
        exit(1);
    }
    for (unsigned i = 0; i < n + 1; i++) {
        if (i == 1)
            counts_begin();
        allocate();
        if (eventfd_write(fd, 1) < 0)
            exit(1);
        counts_turn(loop, 0);
    }
}

static const struct counts_case case_known = {"known", "ten allocations", 100, known};

static const struct counts_case *find(const struct counts_case *c, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(c[i].name, name) == 0)
            return &c[i];
    return NULL;
}

static void list(const struct counts_case *c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        printf("%s\t%u\t%s\n", c[i].name, c[i].n, c[i].unit);
}

int main(int argc, char **argv)
{
    const struct {
        const struct counts_case *cases;
        size_t n;
    } all[] = {{counts_front, n_counts_front}, {counts_vhost, n_counts_vhost}, {counts_core, n_counts_core}};
    const struct counts_case *c = NULL;

    for (size_t i = 0; argc >= 2 && i < SM_ARRAY_LEN(all); i++) {
        if (strcmp(argv[1], "list") == 0)
            list(all[i].cases, all[i].n);
        else if (!c)
            c = find(all[i].cases, all[i].n, argv[1]);
    }
    if (argc == 2 && strcmp(argv[1], "list") == 0)
        return 0;
    if (argc >= 2 && strcmp(argv[1], case_known.name) == 0)
        c = &case_known;
    int n = argc == 3 ? atoi(argv[2]) : c ? (int)c->n : 0;
    if (!c || n <= 0 || argc > 3) {
        fprintf(stderr, "usage: counts list | counts NAME [N]\n");
        return 2;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    c->run((unsigned)n);
    if (!begun) {
        fprintf(stderr, "counts: %s did not begin\n", c->name);
        return 1;
    }
    printf("%d %lu %lu\n", n, turns, counts_allocations_made());
    (void)fflush(stdout);
    _exit(0); /* taking it all down is not looked at, and takes long */
}
