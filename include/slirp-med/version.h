/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The version of slirp-med, at compile time; slirp_med_version() tells that of the library that is linked. tests/meta
 * holds these numbers to meson.build.
 */
#ifndef SLIRP_MED_VERSION_H
#define SLIRP_MED_VERSION_H

#define SLIRP_MED_VERSION_MAJOR 0
#define SLIRP_MED_VERSION_MINOR 1
#define SLIRP_MED_VERSION_PATCH 0

#endif
