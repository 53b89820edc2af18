/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `slirp-med-edge keeper`: the kernel path (tproxy.h) of a guest that is not ours to start (`attach`). It makes the
 * mediator's network namespace and what is in it, hands that over, and becomes the keeper.
 *
 * Descriptors at start: 3 SOCK_SEQPACKET to the launcher; 4 memfd with the configuration. Messages on 3 (base/link.h):
 *   K -> TAP ns +fd     with "device" alone: the namespace that the launcher is to bring the device into; answered by
 *   L -> GO             it is there. Closing the link instead ends the keeper.
 *   K -> TAP +fd        all stands: the bundle for the front (nat/tproxy.h)
 *   K -> TAP card +fd   without "device": the tap, for the VMM
 *   K -> FAIL text      it could not be made; text is for the operator (the spec's message when the kernel refuses
 *                       TPROXY)
 * After that the link is closed: the keeper's only descriptor leads to the front, and its end is the front's.
 *
 * Configuration (JSON object, all required but "device"; unknown keys are an error): name, ip, gateway, resolver, mac,
 * gateway_mac, mtu, device: the name that the device has when it comes.
 */
#ifndef SM_PATHS_KEEPER_H
#define SM_PATHS_KEEPER_H

/** Largest configuration: a dozen short texts. */
#define SM_KEEPER_CONFIG_MAX 4096

/** Texts of TAP. */
#define SM_KEEPER_NAMESPACE "ns"
#define SM_KEEPER_CARD "card"

/** sm_keeper_main() - the subcommand. Returns the process's exit status, if it comes back at all. */
int sm_keeper_main(int argc, char **argv);

#endif
