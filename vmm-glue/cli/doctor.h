/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `slirp-med doctor [--json]`: does this machine have what `run` needs? Each probe does the thing itself, in a scratch
 * namespace or a child process, and never reads a version number in its place. Nothing is left behind.
 *
 * --json (schema 1): {"schema":1, "version":"x.y.z", "run":true|false, "probes":[{"name":...,
 * "status":"ok"|"degraded"|"missing", "detail":..., "fix":... or null,
 * "needed_for":"run"|"tproxy"|"hardening"|"comfort"}, ...]}. Probe names are stable.
 *
 * Exit status: 0 when `run` can work, 1 when it cannot, 2 for a wrong flag.
 */
#ifndef SM_CLI_DOCTOR_H
#define SM_CLI_DOCTOR_H

int sm_cli_doctor(int argc, char **argv);

#endif
