/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libslirp-med inside: the object behind include/slirp-med/slirp-med.h, which is its manual.
 *
 *   embed.c           life: spawn, readiness, the order of events, the end
 *   embed_config.c    a typed configuration as the command line of `slirp-med attach`
 *   embed_control.c   questions over the control socket
 *   embed_event.c     an audit line as a struct
 *
 * The library is a client: it decides nothing, and what it says about a workspace is what the workspace says itself.
 */
#ifndef SM_EMBED_EMBED_H
#define SM_EMBED_EMBED_H

#include <glib.h>
#include <jansson.h>
#include <slirp-med/slirp-med.h>

#include "audit/reader.h"
#include "base/defs.h"

/** Longest line that a workspace's processes say for the operator (supervisor/words.h bounds them below that). */
#define SM_EMBED_LINE_MAX 4096
/** How long a question over the control socket may take. */
#define SM_EMBED_ANSWER_MS 5000

enum sm_embed_state { SM_EMBED_IDLE, SM_EMBED_STARTING, SM_EMBED_RUNNING, SM_EMBED_ENDED };

/** Lines out of a pipe. */
struct sm_embed_lines {
    int fd; /* -1: none, or it has ended */
    size_t len;
    bool cutting; /* inside a line that was too long; its beginning has been told */
    char buf[SM_EMBED_LINE_MAX];
};

struct slirp_med {
    /* The configuration. */
    char *name, *state_dir, *program;
    char **flags; /* of attach */
    char **env;   /* NULL: the process's, at the time of the start */

    enum sm_embed_state state;
    int epoll_fd, wake_fd;
    int pidfd;
    int pid;
    int owner_fd; /* our end of the socket that says READY, and by its end that we are gone */
    struct sm_embed_lines words, news;
    char *folder; /* state_dir/NAME; known when it is running */
    int dirfd;
    struct sm_audit_reader *reader;
    int watch_fd; /* the reader's */
    bool audit;   /* this run has one */
    int status;

    /* What the last event, and the last network record, point at. */
    char text[SM_EMBED_LINE_MAX + 1];
    char last_word[SM_EMBED_LINE_MAX + 1];
    json_t *network;
    char *network_json, *ca_path, *audit_path;
    struct sm_audit_line line; /* to be told after LOST */
    bool line_held;
};

/** sm_embed_fail() - fill *error (may be NULL) and return -1. */
int sm_embed_fail(struct slirp_med_error *error, enum slirp_med_code code, const char *fmt, ...) SM_PRINTF(3, 4);

/** sm_embed_flags() - the flags of attach for this configuration; g_strfreev(). NULL with *error filled. */
char **sm_embed_flags(const struct slirp_med_config *config, struct slirp_med_error *error);

/** sm_embed_event_of() - the members of a RECORD out of a line's JSON; strings are the JSON's. */
void sm_embed_event_of(struct slirp_med_event *event, const struct sm_audit_line *line);

/** sm_embed_open_folder() - dirfd and reader of the workspace that was said to run in folder. False with *error filled. */
bool sm_embed_open_folder(struct slirp_med *med, struct slirp_med_error *error);

#endif
