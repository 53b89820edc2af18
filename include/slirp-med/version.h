/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The version of slirp-med, for those who link it. The embedding API (opaque types, pkg-config `slirp-med`) joins this folder with the microVM
 * ports; until then slirp-med is a program. tests/meta holds these numbers to meson.build.
 */
#ifndef SLIRP_MED_VERSION_H
#define SLIRP_MED_VERSION_H

#define SLIRP_MED_VERSION_MAJOR 0
#define SLIRP_MED_VERSION_MINOR 1
#define SLIRP_MED_VERSION_PATCH 0

#endif
