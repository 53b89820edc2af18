/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * slirp-med-guest: the program that makes a guest trust its workspace. One process, one thread, the C library alone;
 * static, so that it runs in an initrd that holds nothing else. slirp-med-guest.sh does the same with a shell and the
 * tools of busybox: a change here is a change there, and tests/unit/guest puts both through the same.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "guest/fetch.h"
#include "guest/install.h"
#include "guest/tool.h"

/** An hour: whoever needs longer has a service manager that restarts. */
#define WAIT_MAX 3600
#define WAIT_DEFAULT 10

/** What is asked for. */
struct command {
    struct sm_fetch fetch;
    struct sm_install install;
    char expect[65]; /* lower case; empty: any */
    bool json, uninstall, print_env, print_cert;
    bool fetching; /* an option that says how to fetch was there */
};

static const char usage[] =
    "usage: slirp-med-guest [--from LIST] [--wait SECONDS] [--expect SHA256] [--layout LAYOUT] [--root DIR] "
    "[--dry-run] [--json]\n"
    "       slirp-med-guest --print-cert [--from LIST] [--wait SECONDS] [--expect SHA256]\n"
    "       slirp-med-guest --uninstall [--root DIR] [--dry-run] [--json]\n"
    "       slirp-med-guest --print-env [--root DIR]\n"
    "\n"
    "Fetches the certificate of this guest's slirp-med workspace from the host, and installs it.\n"
    "\n"
    "  --from LIST         where from, in this order: vsock, serial, fw_cfg, file:PATH, - (standard input), with "
    "commas between\n"
    "                      (default: vsock,serial,fw_cfg)\n"
    "  --vsock [CID:]PORT  (default: 2:1027)\n"
    "  --serial PATH       the port (default: the virtio-serial port named org.slirp-med.0)\n"
    "  --wait SECONDS      for one of them to be there (default: 10)\n"
    "  --expect SHA256     refuse any other certificate\n"
    "  --layout LAYOUT     auto, debian, fedora, alpine or none (default: auto, by what is there)\n"
    "  --root DIR          install into another root; nothing is run there\n"
    "  --dry-run           say what would be done\n"
    "  --json              one JSON object on standard output\n"
    "  --print-cert        write the certificate to standard output, install nothing\n"
    "  --print-env         what is installed, as lines for a shell: eval \"$(slirp-med-guest --print-env)\"\n"
    "  --uninstall         remove what was installed\n"
    "  --sys DIR, --dev DIR  where sysfs and the devices are (default: /sys, /dev)\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 done or unchanged, 1 not fetched in time, 2 usage, 3 bad certificate, 4 could not write.\n";

/** A decimal number up to max, all of text; -1: it is none. */
static long number(const char *text, unsigned long max)
{
    char *end;

    if (*text < '0' || *text > '9' || strlen(text) > 10)
        return -1;
    unsigned long n = strtoul(text, &end, 10);
    return *end != '\0' || n > max ? -1 : (long)n;
}

static bool add_channel(struct sm_fetch *f, char *name)
{
    enum sm_channel_kind kind = SM_CHANNELS;
    const char *path = NULL;

    if (f->n == SM_FETCH_CHANNELS)
        return false;
    if (strcmp(name, "-") == 0) {
        kind = SM_CHANNEL_FILE;
        path = name;
    } else if (strncmp(name, "file:", 5) == 0 && name[5]) {
        kind = SM_CHANNEL_FILE;
        path = name + 5;
    } else {
        for (unsigned k = 0; k < SM_CHANNEL_FILE; k++)
            if (strcmp(name, sm_channel_names[k]) == 0)
                kind = (enum sm_channel_kind)k;
    }
    if (kind == SM_CHANNELS)
        return false;
    f->channels[f->n].kind = kind;
    f->channels[f->n++].path = path;
    return true;
}

static bool set_from(struct command *c, char *list)
{
    for (char *name = list; name;) {
        char *comma = strchr(name, ',');
        if (comma)
            *comma++ = '\0';
        if (!add_channel(&c->fetch, name))
            return false;
        name = comma;
    }
    return true;
}

static bool set_vsock(struct command *c, const char *text)
{
    const char *colon = strchr(text, ':');
    char cid[11] = "2";

    if (colon) {
        if ((size_t)(colon - text) >= sizeof(cid))
            return false;
        memcpy(cid, text, (size_t)(colon - text));
        cid[colon - text] = '\0';
    }
    long a = number(cid, UINT32_MAX), b = number(colon ? colon + 1 : text, UINT32_MAX);
    c->fetch.cid = (unsigned)a;
    c->fetch.port = (unsigned)b;
    return a >= 0 && b >= 0;
}

/** With or without colons, in either case: what openssl prints, and what sha256sum does. */
static bool set_expect(struct command *c, const char *text)
{
    size_t n = 0;

    for (; *text; text++) {
        char d = *text;
        if (d == ':')
            continue;
        if (d >= 'A' && d <= 'F')
            d = (char)(d - 'A' + 'a');
        if (n == 64 || !((d >= '0' && d <= '9') || (d >= 'a' && d <= 'f')))
            return false;
        c->expect[n++] = d;
    }
    return n == 64;
}

static bool set_layout(struct command *c, const char *name)
{
    for (unsigned l = 0; l < SM_LAYOUTS; l++) {
        if (strcmp(name, sm_layout_names[l]) == 0) {
            c->install.layout = (enum sm_layout)l;
            return true;
        }
    }
    return false;
}

/** A path that is there; "/" in whatever spelling is "/". */
static bool set_root(struct command *c, const char *path)
{
    c->install.root = strspn(path, "/") == strlen(path) ? "/" : path;
    return *path != '\0';
}

static bool set_wait(struct command *c, const char *text)
{
    long n = number(text, WAIT_MAX);

    c->fetch.wait_ms = n * 1000;
    return n >= 0;
}

enum option {
    FROM,
    VSOCK,
    SERIAL,
    WAIT,
    EXPECT,
    LAYOUT,
    ROOT,
    SYS,
    DEV,
    DRY_RUN,
    JSON,
    CERT,
    ENV,
    UNINSTALL,
    HELP,
    VERSION,
    OPTIONS
};

/* Those before DRY_RUN have a value; those up to EXPECT say how to fetch. */
static const char *const options[] = {
    [FROM] = "--from",     [VSOCK] = "--vsock",         [SERIAL] = "--serial", [WAIT] = "--wait",
    [EXPECT] = "--expect", [LAYOUT] = "--layout",       [ROOT] = "--root",     [SYS] = "--sys",
    [DEV] = "--dev",       [DRY_RUN] = "--dry-run",     [JSON] = "--json",     [CERT] = "--print-cert",
    [ENV] = "--print-env", [UNINSTALL] = "--uninstall", [HELP] = "--help",     [VERSION] = "--version",
};
SM_NAME_TABLE_COVERS(options, OPTIONS);

/** One option's value. Returns whether it is one that the option takes. */
static bool take(struct command *c, enum option option, char *value)
{
    switch (option) {
    case FROM:
        return set_from(c, value);
    case VSOCK:
        return set_vsock(c, value);
    case SERIAL:
        c->fetch.serial = value;
        return *value != '\0';
    case WAIT:
        return set_wait(c, value);
    case EXPECT:
        return set_expect(c, value);
    case LAYOUT:
        return set_layout(c, value);
    case ROOT:
        return set_root(c, value);
    case SYS:
        c->fetch.sys = value;
        c->fetch.load = false;
        return *value != '\0';
    case DEV:
        c->fetch.dev = value;
        return *value != '\0';
    case DRY_RUN:
        c->install.dry_run = true;
        return true;
    case JSON:
        c->json = true;
        return true;
    case CERT:
        c->print_cert = true;
        return true;
    case ENV:
        c->print_env = true;
        return true;
    case UNINSTALL:
        c->uninstall = true;
        return true;
    case HELP:
    case VERSION:
        (void)fputs(option == HELP ? usage : "slirp-med-guest " SM_VERSION "\n", stdout);
        exit(SM_GUEST_DONE);
    case OPTIONS:
        break;
    }
    return false;
}

/** Which option an argument is: --NAME, or --NAME=VALUE where there is a value. */
static enum option find_option(char *argument, char **ret_value)
{
    char *equal = strchr(argument, '=');
    size_t len = equal ? (size_t)(equal - argument) : strlen(argument);

    *ret_value = equal ? equal + 1 : NULL;
    for (enum option o = FROM; o < (equal ? DRY_RUN : OPTIONS); o++)
        if (strlen(options[o]) == len && memcmp(options[o], argument, len) == 0)
            return o;
    return OPTIONS;
}

/** Returns SM_GUEST_DONE, or SM_GUEST_USAGE after saying why. --help and --version end the process. */
static enum sm_guest_status parse(struct command *c, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char *value;
        enum option o = find_option(argv[i], &value);
        if (o == OPTIONS) {
            fprintf(stderr, "slirp-med-guest: unknown argument '%s'; see --help\n", argv[i]);
            return SM_GUEST_USAGE;
        }
        if (o < DRY_RUN && !value)
            value = argv[++i];
        if (o < DRY_RUN && !value) {
            fprintf(stderr, "slirp-med-guest: %s: its value is missing\n", options[o]);
            return SM_GUEST_USAGE;
        }
        if (!take(c, o, value)) {
            fprintf(stderr, "slirp-med-guest: %s: not a value it can have\n", options[o]);
            return SM_GUEST_USAGE;
        }
        c->fetching |= o <= EXPECT;
    }
    bool no_fetch = c->uninstall || c->print_env;
    if ((int)c->uninstall + (int)c->print_env + (int)c->print_cert > 1 || (no_fetch && c->fetching) ||
        ((c->print_env || c->print_cert) && (c->json || c->install.dry_run))) {
        fprintf(stderr, "slirp-med-guest: these options do not go together; see --help\n");
        return SM_GUEST_USAGE;
    }
    return SM_GUEST_DONE;
}

static enum sm_guest_status fetch(struct command *c, struct sm_guest_cert *ret, struct sm_report *r)
{
    if (c->fetch.n == 0)
        for (unsigned k = 0; k < SM_CHANNEL_FILE; k++)
            c->fetch.channels[c->fetch.n++].kind = (enum sm_channel_kind)k;
    enum sm_guest_status status = sm_guest_fetch(&c->fetch, ret, r);
    if (status == SM_GUEST_DONE && c->expect[0] && strcmp(c->expect, r->sha256) != 0) {
        sm_report_error(r, "this is not the certificate that is expected (SHA-256 %s)", c->expect);
        status = SM_GUEST_BAD_CERT;
    }
    return status;
}

int main(int argc, char **argv)
{
    static struct command c = {.fetch = {.cid = SM_GUEST_VSOCK_CID,
                                         .port = SM_GUEST_VSOCK_PORT,
                                         .sys = "/sys",
                                         .dev = "/dev",
                                         .load = true,
                                         .wait_ms = WAIT_DEFAULT * 1000},
                               .install = {.root = "/", .layout = SM_LAYOUT_AUTO}};
    static struct sm_guest_cert cert;
    static struct sm_report r;

    (void)umask(022);
    enum sm_guest_status status = parse(&c, argc, argv);
    if (status != SM_GUEST_DONE)
        return status;
    r = (struct sm_report){.json = c.json, .root = c.install.root, .dry_run = c.install.dry_run};
    if (c.print_env) {
        if (sm_guest_print_env(c.install.root))
            return SM_GUEST_DONE;
        fprintf(stderr, "slirp-med-guest: no certificate is installed\n");
        return SM_GUEST_NOT_FETCHED;
    }
    if (c.uninstall) {
        status = sm_guest_uninstall(&c.install, &r);
        sm_report_finish(&r, status, sm_report_changed(&r) ? "removed" : "unchanged");
        return status;
    }
    if (c.print_cert) {
        r.quiet = true;
        status = fetch(&c, &cert, &r);
        if (status == SM_GUEST_DONE && sm_guest_write_all(1, cert.pem, cert.pem_len) < 0)
            status = SM_GUEST_NOT_WRITTEN;
        return status;
    }
    status = fetch(&c, &cert, &r);
    if (status == SM_GUEST_DONE)
        status = sm_guest_install(&c.install, &cert, &r);
    sm_report_finish(&r, status, !sm_report_changed(&r) ? "unchanged" : r.replaced ? "replaced" : "installed");
    return status;
}
