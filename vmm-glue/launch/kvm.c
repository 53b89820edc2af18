/* SPDX-License-Identifier: BSD-3-Clause */
/* A virtual machine of one page that counts down and halts; see kvm.h. x86-64. */
#include "launch/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/kvm.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>

#include "base/fd.h"
#include "base/loop.h"

#define PAGE 4096
#define CODE_AT 0x1000
/** Rounds of the loop below: under 1 us on a processor, 600 us where KVM emulates each of them. */
#define ROUNDS 256
/** Far from both: entering and leaving a machine takes some 2 us, and 30 us where the host is a virtual machine itself. */
#define LIMIT_US 200
/** The best of so many counts, or the first that is fast enough: whoever is preempted is no emulator. */
#define TRIES 3
/** A run that does not come back is interrupted after this. */
#define HANG_US 100000

struct probe {
    int dev, vm, vcpu;
    void *page;
    struct kvm_run *run;
    size_t run_size;
};

static void probe_clear(struct probe *p)
{
    if (p->run)
        (void)munmap(p->run, p->run_size);
    if (p->page)
        (void)munmap(p->page, PAGE);
    sm_fd_close(&p->vcpu);
    sm_fd_close(&p->vm);
    sm_fd_close(&p->dev);
}

static void *map(size_t size, int flags, int fd)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

static bool make(struct probe *p)
{
    /* 16-bit code: mov ecx, ROUNDS; here: loop here (by ecx); hlt */
    static const uint8_t code[] = {0x66, 0xb9, ROUNDS & 0xff, ROUNDS >> 8, 0, 0, 0x67, 0xe2, 0xfd, 0xf4};
    int size = ioctl(p->dev, KVM_GET_VCPU_MMAP_SIZE, 0);

    if (ioctl(p->dev, KVM_GET_API_VERSION, 0) != KVM_API_VERSION || size < (int)sizeof(struct kvm_run))
        return false;
    p->run_size = (size_t)size;
    p->vm = ioctl(p->dev, KVM_CREATE_VM, 0);
    p->page = map(PAGE, MAP_SHARED | MAP_ANONYMOUS, -1);
    if (p->vm < 0 || !p->page)
        return false;
    memcpy(p->page, code, sizeof(code));
    struct kvm_userspace_memory_region region = {
        .guest_phys_addr = CODE_AT, .memory_size = PAGE, .userspace_addr = (uint64_t)(uintptr_t)p->page};
    if (ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0 || (p->vcpu = ioctl(p->vm, KVM_CREATE_VCPU, 0)) < 0)
        return false;
    p->run = map(p->run_size, MAP_SHARED, p->vcpu);
    return p->run != NULL;
}

/** Once from the beginning: how long it took, or -1. */
static int64_t run_once(const struct probe *p)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs = {.rip = CODE_AT, .rflags = 2};

    if (ioctl(p->vcpu, KVM_GET_SREGS, &sregs) < 0)
        return -1;
    sregs.cs.base = sregs.cs.selector = 0;
    if (ioctl(p->vcpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(p->vcpu, KVM_SET_REGS, &regs) < 0)
        return -1;
    int64_t begin = sm_clock_us();
    if (ioctl(p->vcpu, KVM_RUN, 0) < 0 || p->run->exit_reason != KVM_EXIT_HLT)
        return -1;
    return sm_clock_us() - begin;
}

static void on_alarm(int signo)
{
    (void)signo; /* it ends KVM_RUN with EINTR */
}

bool sm_kvm_usable(const char **ret_why)
{
    sm_cleanup(probe_clear) struct probe p = {.dev = -1, .vm = -1, .vcpu = -1};
    const struct itimerval hang = {.it_value = {.tv_usec = HANG_US}}, off = {0};
    struct sigaction old, alarm = {.sa_handler = on_alarm};
    int64_t best = -1;

    p.dev = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (p.dev < 0) {
        *ret_why = errno == ENOENT ? "there is no /dev/kvm" : "/dev/kvm cannot be opened";
        return false;
    }
    if (!make(&p)) {
        *ret_why = "KVM makes no virtual machine";
        return false;
    }
    if (sigaction(SIGALRM, &alarm, &old) < 0)
        return false;
    for (int i = 0; i < TRIES && (best < 0 || best > LIMIT_US); i++) {
        (void)setitimer(ITIMER_REAL, &hang, NULL);
        int64_t us = run_once(&p);
        (void)setitimer(ITIMER_REAL, &off, NULL);
        if (us < 0) {
            best = -1;
            break;
        }
        best = i == 0 ? us : SM_MIN(best, us);
    }
    (void)sigaction(SIGALRM, &old, NULL);
    if (best < 0 || best > LIMIT_US) {
        *ret_why = best < 0 ? "KVM does not run a guest's code" : "KVM only emulates a guest's code, slower than QEMU";
        return false;
    }
    return true;
}

struct sm_kvm_asked {
    GThread *thread;
    sigset_t old; /* the asker's signal mask */
    bool usable;
    const char *why;
};

static void *look(void *data)
{
    struct sm_kvm_asked *a = data;
    sigset_t alarm;

    (void)sigemptyset(&alarm);
    (void)sigaddset(&alarm, SIGALRM);
    (void)pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
    a->usable = sm_kvm_usable(&a->why);
    return NULL;
}

struct sm_kvm_asked *sm_kvm_ask(void)
{
    struct sm_kvm_asked *a = g_new0(struct sm_kvm_asked, 1);
    sigset_t all;

    /* The alarm of a run that hangs has to interrupt that, and the caller's signals are the caller's. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, &a->old);
    a->thread = g_thread_try_new("kvm", look, a, NULL);
    sigset_t mine = a->old;
    (void)sigaddset(&mine, SIGALRM);
    (void)pthread_sigmask(SIG_SETMASK, a->thread ? &mine : &a->old, NULL);
    if (!a->thread)
        g_clear_pointer(&a, g_free);
    return a;
}

bool sm_kvm_answer(struct sm_kvm_asked **asked, const char **ret_why)
{
    struct sm_kvm_asked *a = *asked;

    if (!a)
        return sm_kvm_usable(ret_why);
    (void)g_thread_join(a->thread);
    (void)pthread_sigmask(SIG_SETMASK, &a->old, NULL);
    bool usable = a->usable;
    if (!usable)
        *ret_why = a->why;
    g_clear_pointer(asked, g_free);
    return usable;
}
