/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A core (harness.h), the front that speaks to it, and a listener on loopback, for tests that tell one story: the
 * caller says what the front says and turns the loop until the core answers.
 */
#ifndef SM_TEST_CORE_FIXTURE_H
#define SM_TEST_CORE_FIXTURE_H

#include "harness.h"

struct fixture {
    struct sm_core core;
    char dir[64];
    int audit_fd; /* our own view of the file */
    int front;    /* the front's end of the channel */
    int listener;
    uint16_t port;
    int attached; /* fd of the last ATTACH */
    struct sm_flow_msg last;
    struct sm_flow_packet packet; /* what is left of the packet that it came in */
    uint8_t buf[SM_FLOW_MSG_MAX];
};

extern const struct sm_addr loopback;

struct fixture *fixture_new(const char *mode, const char *allow);
/** fixture_new_vsock() - vsock is the key of the configuration; the caller calls sm_core_vsock_new(). */
struct fixture *fixture_new_vsock(const char *mode, const char *vsock);
/** fixture_new_proxy() - the front is a proxy's; routes is an array of JSON; every client is let in from 172.20.0.0/16. */
struct fixture *fixture_new_proxy(const char *mode, const char *allow, const char *routes, struct sm_caps_limits caps);
struct fixture *fixture_new_capped(const char *mode, const char *allow, struct sm_caps_limits caps);
/** fixture_new_with() - of options that are all the caller's own, ops included. */
struct fixture *fixture_new_with(const struct harness_options *o);
/** fixture_free() - what flows are left are closed. */
void fixture_free(struct fixture *f);

/** audit_text() - all lines; g_free(). audit_has() - is there a line of that event? audit_line() - the nth (from 0) such
 * line, or NULL. */
char *audit_text(const struct fixture *f);
bool audit_has(const struct fixture *f, const char *event);
char *audit_line(const struct fixture *f, const char *event, unsigned n);

/* The front speaks. */
void tell(struct fixture *f, const struct sm_flow_msg *m);
void open_tcp(struct fixture *f, uint64_t id, struct sm_addr dst, uint16_t port);
void open_name(struct fixture *f, uint64_t id, const char *name, uint16_t port);
void bytes(struct fixture *f, uint64_t id, const void *data, size_t len);
void gone(struct fixture *f, uint64_t id, enum sm_flow_why why);

/** heard() - has the core said something? The message is in f->last, its descriptor in f->attached; ATTACH is
 * acknowledged. */
bool heard(struct fixture *f);
/** hear() - turns until it has. */
enum sm_flow_type hear(struct fixture *f);
bool says_nothing(struct fixture *f);

int server_accept(struct fixture *f);
/** core_end() - the core's socket of a connection that was accepted as fd: it is in this process. */
int core_end(int fd);
/** until_arrived() - there it can read so many bytes: on a loaded machine what was sent over loopback is there a little
 * later, and a turn would find a part of it. */
void until_arrived(int core_fd, size_t len);
/** recv_turning() - turns until there is something to read, or the end. */
ssize_t recv_turning(struct fixture *f, int fd, void *buf, size_t cap);

#endif
