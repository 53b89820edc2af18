/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A workspace's place on disk: <base>/NAME/, where base is --state-dir, else $XDG_STATE_HOME/slirp-med, else
 * ~/.local/state/slirp-med.
 *
 *   egress.jsonl, egress.jsonl.1   the audit (audit/file.h); kept
 *   settings.json                  what `create` was told, which each `start` does again (settings.h); of created workspaces alone
 *   workspace.json                 what was made of the flags at the last start (or, before the first, at `create`), as it is now: `reload`,
 *                                  `publish` and `unpublish` are in it. For `status` and `list`; nothing is started from it, so that
 *                                  what changes at run time ends with the run
 *   exit.json                      how the last run ended (exit.h)
 *   ca.key, ca.pem                 the CA of this run, where TLS is intercepted; new files on every start, filled by the core; ca.key goes
 *                                  with the run, ca.pem stays
 *   ca.kept                        both stay, and are used again (keepca.h)
 *   pins.json, policy.json,        what `restore` brought (restore.h)
 *   restored.json
 *   counters.json                  bytes moved so far, over all runs with a byte cap (core/counters.h); kept
 *   lock                           flock(2)ed by the supervisor while it runs; holds its pid as text, which goes before the lock is given
 *                                  back: a pid in a lock that nobody holds is that of one that was killed. Never removed while in use
 *   control.sock                   while it runs (supervisor/control.h)
 *   vmm.sock, vsock.sock,          while a virtual machine of `vm` runs: what QEMU connects its devices to (supervisor/listens.h)
 *   serial.sock
 *
 * The folder is 0700 and the caller's, the files 0600. Opening is distrustful: no symbolic link in place of the folder
 * or a file, the caller's own, no access for group and others; and nobody else may be able to put another folder in its
 * place.
 */
#ifndef SM_LAUNCH_STATE_H
#define SM_LAUNCH_STATE_H

#include <glib.h>

#include "base/fd.h"
#include "core/counters.h"

#define SM_STATE_LOCK "lock"
#define SM_STATE_CREATED "settings.json"
#define SM_STATE_SETTINGS "workspace.json"
#define SM_STATE_EXIT "exit.json"
/** Behind the name of a file that is being written; a rename makes it the file. */
#define SM_STATE_NEW ".new"
#define SM_STATE_CA_KEY "ca.key"
#define SM_STATE_CA_CERT "ca.pem"
#define SM_STATE_VMM "vmm.sock"
#define SM_STATE_VSOCK "vsock.sock"
#define SM_STATE_SERIAL "serial.sock"
#define SM_STATE_COUNTERS "counters.json"
/** Largest workspace.json: of the lists it has what was given as flags, and a command line has at most 2 MiB. */
#define SM_STATE_SETTINGS_MAX (4u << 20)

struct sm_workspace {
    char *name;
    char *base; /* absolute, no symbolic links in it */
    int base_fd;
    int dirfd;
    int lock_fd;       /* -1: not locked by us */
    bool created;      /* the folder is from this sm_workspace_open() */
    pid_t crashed_pid; /* locked by us: who held it before us and was killed; 0: nobody */
};

/** sm_state_name_check() - the name rule [A-Za-z0-9][A-Za-z0-9._-]{0,62}; false with error that says it. */
bool sm_state_name_check(const char *name, GError **error) SM_WARN_UNUSED;
/** sm_state_name_new() - "run-" and eight random hex digits; g_free(). */
char *sm_state_name_new(void);

/**
 * sm_state_default_base() - where workspaces are without --state-dir; g_free(). NULL with error when there is no home.
 */
char *sm_state_default_base(GError **error);

/**
 * sm_state_base_open() - the folder that holds the workspaces of a user, which nobody else can exchange. Returns a
 * descriptor and its path (g_free(), no symbolic links in it), or -1 with error set: SM_ERROR_INVALID when it is not
 * there and is not to be made.
 */
int sm_state_base_open(const char *state_dir, bool create, char **ret_base, GError **error);

/**
 * sm_workspace_open() - open the folder of a workspace.
 * @state_dir: --state-dir, or NULL.
 * @create: make it (and the base) if it is not there; otherwise a missing one is SM_ERROR_INVALID that says where was
 * looked. Returns 0, or -1 with error set and nothing made that was not there.
 */
int sm_workspace_open(const char *state_dir, const char *name, bool create, struct sm_workspace *ret, GError **error);
/** sm_workspace_close() - also unlocks. Fit for sm_cleanup(); a zeroed struct is not: begin with SM_WORKSPACE_INIT. */
void sm_workspace_close(struct sm_workspace *ws);
#define SM_WORKSPACE_INIT                                                                                              \
    {                                                                                                                  \
        .base_fd = -1, .dirfd = -1, .lock_fd = -1                                                                      \
    }

/**
 * sm_workspace_lock() - become the one that runs it. 0, or -1: SM_ERROR_BUSY (names the holder's pid), SM_ERROR_SYSTEM.
 */
int sm_workspace_lock(struct sm_workspace *ws, GError **error);
/** sm_workspace_unlock() - give it back; harmless when it is not ours. */
void sm_workspace_unlock(struct sm_workspace *ws);
/**
 * sm_workspace_holder() - 1 and the pid (0: not written yet) when somebody runs it, 0 when nobody does, -1 with errno.
 */
int sm_workspace_holder(const struct sm_workspace *ws, pid_t *ret_pid);

enum sm_workspace_state {
    SM_WORKSPACE_EMPTY,    /* nothing but an audit, perhaps (`delete --keep-audit`): the name is free */
    SM_WORKSPACE_CREATED,  /* never started */
    SM_WORKSPACE_RESTORED, /* made by `restore`, and not started since */
    SM_WORKSPACE_RUNNING,
    SM_WORKSPACE_STOPPED,
    SM_WORKSPACE_CRASHED, /* its supervisor was killed; the next start cleans up */
    SM_WORKSPACE_STATES
};
const char *sm_workspace_state_name(enum sm_workspace_state state);
/**
 * sm_workspace_look() - which of these; never blocks. *ret_pid: of whom that runs it, or crashed; 0: not known. 0, or
 * -1 with errno.
 */
int sm_workspace_look(const struct sm_workspace *ws, enum sm_workspace_state *ret, pid_t *ret_pid);

/**
 * sm_workspace_write_file() - replace a file of the folder as a whole (0600). 0, or -1 with error set and the old one
 * in place.
 */
int sm_workspace_write_file(const struct sm_workspace *ws, const char *name, const char *text, GError **error);
/** sm_workspace_read_file() - its text (g_free(); NUL-terminated, *ret_len without that; NULL: not wanted), at most max bytes. A symbolic link or
 * what is no regular file is not followed. NULL with error set. */
char *sm_workspace_read_file(const struct sm_workspace *ws, const char *name, size_t max, size_t *ret_len,
                             GError **error);
/** sm_workspace_write_settings() - replace workspace.json. 0, or -1 with error set and the old one in place. */
int sm_workspace_write_settings(const struct sm_workspace *ws, const char *text, GError **error);
/** sm_workspace_read_settings() - its text (g_free()), or NULL with error set. */
char *sm_workspace_read_settings(const struct sm_workspace *ws, GError **error);

/**
 * sm_workspace_open_own() - a file of the folder for reading: the caller's own plain file of one name, closed to
 * others. -1 with error set, which names the file (SM_ERROR_INVALID when it is not such a file), and errno.
 */
int sm_workspace_open_own(const struct sm_workspace *ws, const char *name, GError **error);
/** sm_workspace_stage() - NAME.new (0600) with that in it. 0, or -1 with error set and no such file. */
int sm_workspace_stage(const struct sm_workspace *ws, const char *name, const void *data, size_t len, GError **error);
/** sm_workspace_commit() - put NAME.new in the place of NAME. 0, or -1 with error set and NAME as it was. */
int sm_workspace_commit(const struct sm_workspace *ws, const char *name, GError **error);

/** The files of a run's CA; -1 when there is none. */
struct sm_workspace_ca {
    int key_fd, cert_fd; /* for writing */
    int guest_fd;        /* the certificate for reading */
};
#define SM_WORKSPACE_CA_INIT                                                                                           \
    {                                                                                                                  \
        .key_fd = -1, .cert_fd = -1, .guest_fd = -1                                                                    \
    }

/**
 * sm_workspace_new_ca() - empty, new ca.key and ca.pem (0600), in place of what an earlier run left (a run that was
 * killed leaves its key). Only under the lock. Returns 0, or -1 with error set and neither file there.
 */
int sm_workspace_new_ca(const struct sm_workspace *ws, struct sm_workspace_ca *ret, GError **error);
/** sm_workspace_ca_close() - fit for sm_cleanup(). */
void sm_workspace_ca_close(struct sm_workspace_ca *ca);
/** sm_workspace_drop_ca() - ca.key is needed no more, or neither file; none being there is no error. */
void sm_workspace_drop_ca(const struct sm_workspace *ws, bool key_alone);

/**
 * sm_workspace_open_counters() - counters.json for writing, made (empty) if it is not there, and what it says. Only
 * under the lock. Returns a descriptor, or -1 with error set, which names the file: also when it is damaged. Nobody
 * guesses what it may have said.
 */
int sm_workspace_open_counters(const struct sm_workspace *ws, struct sm_counters *ret, GError **error);
/**
 * sm_workspace_read_counters() - what it says, for `status`; all zero when there is none. False with error set:
 * damaged, or cannot be read.
 */
bool sm_workspace_read_counters(const struct sm_workspace *ws, struct sm_counters *ret, GError **error) SM_WARN_UNUSED;

/**
 * sm_state_names() - the workspaces of a state folder (NULL: the default), sorted; g_strfreev(). None where there is no
 * such folder. NULL with error.
 */
char **sm_state_names(const char *state_dir, GError **error);

/**
 * sm_workspace_delete() - remove the folder, under the lock. What is in it and not of slirp-med is not touched, and
 * keeps all else: an error then, and nothing was removed.
 * @keep_audit: but for the record, whose seq goes on when the name is used again.
 * @ret_removed: the names of the files that went (char *).
 */
int sm_workspace_delete(struct sm_workspace *ws, bool keep_audit, GPtrArray *ret_removed, GError **error);

/**
 * sm_workspace_undo() - after a start that failed before anything was recorded: remove the folder if this start made it
 * and nothing was written to the audit. Call it under the lock.
 */
void sm_workspace_undo(struct sm_workspace *ws);

#endif
