/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The certificate put where the guest's programs look for it. docs/TRUST.md has the tables.
 *
 *   /etc/slirp-med/ca.pem          the certificate, in normal form
 *   /etc/slirp-med/ca-bundle.pem   it, and what the guest's own bundle holds (none of its former ones)
 *   /etc/slirp-med/env             the variables, NAME=VALUE
 *   /etc/profile.d/slirp-med.sh    the same for shells
 *   the layout's anchor            the certificate, for the distribution's own tool to put into its store
 *
 * Every file is written beside its place and renamed, so that a reader sees the old or the new one; one that is right
 * already is left alone. The anchor has one name: a new certificate takes the place of the old one. The tool is run
 * when the store does not have the certificate. It belongs to the running system: in another root nothing is run.
 *
 * In another root names are looked up inside it (openat2(2), RESOLVE_IN_ROOT): no symbolic link there leads out.
 */
#ifndef SM_GUEST_INSTALL_H
#define SM_GUEST_INSTALL_H

#include "guest/pem.h"
#include "guest/report.h"

enum sm_layout { SM_LAYOUT_DEBIAN, SM_LAYOUT_FEDORA, SM_LAYOUT_ALPINE, SM_LAYOUT_NONE, SM_LAYOUT_AUTO, SM_LAYOUTS };

/** Names as in --layout. */
extern const char *const sm_layout_names[SM_LAYOUTS];

/** A bundle of the guest: distributions' have a quarter of that. The same as for `run` (paths/certs.h). */
#define SM_GUEST_BUNDLE_MAX (4u << 20)

struct sm_install {
    const char *root; /* "/", or another root */
    enum sm_layout layout;
    bool dry_run;
};

/** sm_guest_install() - Returns SM_GUEST_DONE, or SM_GUEST_NOT_WRITTEN told to r as its error. */
enum sm_guest_status sm_guest_install(const struct sm_install *i, const struct sm_guest_cert *cert,
                                      struct sm_report *r);

/**
 * sm_guest_uninstall() - take everything of ours away again, whatever layout it was for. Returns as
 * sm_guest_install().
 */
enum sm_guest_status sm_guest_uninstall(const struct sm_install *i, struct sm_report *r);

/**
 * sm_guest_print_env() - the variables as lines for a shell's eval, on stdout. False: nothing is installed in that
 * root.
 */
bool sm_guest_print_env(const char *root);

#endif
