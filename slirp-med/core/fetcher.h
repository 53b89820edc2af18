/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The fetch helper: one HTTP request to a token endpoint or to Vault, in a process of its own (subcommand `fetch`), so that libcurl and what
 * it drags in are never mapped in the core. It is started by the supervisor for each request and ends with it.
 *
 * It has no network: it gets a socket that the core has connected, after judging the address, and an empty network namespace of its own. It
 * has no file, no capability, and dies with the supervisor. Redirects are refused, proxies and the environment are not looked at, TLS 1.2 or
 * newer is verified for the URL's host against the roots that it was given. libcurl is loaded (dlopen) by this subcommand only.
 *
 * The messages stand in fetchmsg.h.
 */
#ifndef SM_CORE_FETCHER_H
#define SM_CORE_FETCHER_H

/** sm_fetcher_main() - the subcommand `fetch`; returns the exit status. */
int sm_fetcher_main(int argc, char **argv);

#endif
