/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The channels over which a host gives a guest its certificate. Only a request line ("ca", on the serial port) goes
 * to the host.
 *
 *   vsock    a stream to a port of the host (vsock(7)): the host writes the PEM and ends the stream
 *   serial   a virtio-serial port found by its name: after the line "ca" the host writes the PEM (no end of the stream)
 *   fw_cfg   QEMU's firmware configuration, as the module qemu_fw_cfg shows it in sysfs
 *   file     a file, or "-": standard input
 *
 * The channels are tried in order, again and again, until one gives a whole certificate or the time is over: a
 * guest's devices appear while it boots. Nothing tells of all of them (a host that begins to listen makes no event in
 * the guest), so between two rounds there is a pause. A channel that is there and silent holds the later ones up for
 * its share of the time only; one that says "error" (the serial port: the host has no CA) is not asked again. One
 * that gives bytes which can be no certificate ends it: a host that is wrong about this is not asked for more.
 */
#ifndef SM_GUEST_FETCH_H
#define SM_GUEST_FETCH_H

#include "guest/pem.h"
#include "guest/report.h"

enum sm_channel_kind { SM_CHANNEL_VSOCK, SM_CHANNEL_SERIAL, SM_CHANNEL_FW_CFG, SM_CHANNEL_FILE, SM_CHANNELS };

/** Names as in --from. */
extern const char *const sm_channel_names[SM_CHANNELS];

#define SM_GUEST_SERIAL_NAME "org.slirp-med.0"
#define SM_GUEST_FW_CFG_NAME "opt/org.slirp-med/ca.pem"
#define SM_GUEST_VSOCK_CID 2 /* the host */
#define SM_GUEST_VSOCK_PORT 1027
/** Each kind once, and a few files. */
#define SM_FETCH_CHANNELS 8
/** Between two rounds: short beside a boot, long beside a round. */
#define SM_FETCH_PAUSE_MS 100

struct sm_fetch {
    size_t n;
    struct {
        enum sm_channel_kind kind;
        const char *path; /* of a file */
    } channels[SM_FETCH_CHANNELS];
    unsigned cid, port;
    const char *serial;    /* the port's path, or NULL: by its name */
    const char *sys, *dev; /* normally /sys and /dev */
    bool load;             /* modules may be loaded */
    int64_t wait_ms;
};

/** sm_guest_fetch() - Returns SM_GUEST_DONE with *ret set and told to r, or why not, told to r as its error. */
enum sm_guest_status sm_guest_fetch(const struct sm_fetch *f, struct sm_guest_cert *ret, struct sm_report *r);

#endif
