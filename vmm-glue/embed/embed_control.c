/* SPDX-License-Identifier: BSD-3-Clause */
/* Questions to the running workspace, over its control socket. Each opens a connection of its own, and waits. */
#include "embed/embed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "audit/file.h"
#include "base/error.h"
#include "base/fd.h"
#include "supervisor/client.h"

static void json_freep(json_t **j)
{
    json_decref(*j);
}

/** The answer to one question; NULL with *error filled. */
static json_t *ask(struct slirp_med *med, enum sm_control_verb verb, const char *argument,
                   struct slirp_med_error *error)
{
    g_autoptr(GError) problem = NULL;
    enum sm_client_failure why;

    if (med->state != SM_EMBED_RUNNING) {
        (void)sm_embed_fail(error, SLIRP_MED_ERROR_STATE, "workspace '%s' does not run", med->name);
        return NULL;
    }
    json_t *answer = sm_client_ask(med->dirfd, SM_EMBED_ANSWER_MS, verb, argument, &why, &problem);
    switch (why) {
    case SM_CLIENT_NONE:
        return answer;
    case SM_CLIENT_ARGUMENT:
        (void)sm_embed_fail(error, SLIRP_MED_ERROR_INVALID, "workspace '%s': %s", med->name, problem->message);
        return NULL;
    case SM_CLIENT_UNREACHED:
        (void)sm_embed_fail(error, SLIRP_MED_ERROR_STATE, "workspace '%s': %s", med->name, problem->message);
        return NULL;
    case SM_CLIENT_SILENT:
        (void)sm_embed_fail(error, SLIRP_MED_ERROR_TIMEOUT, "workspace '%s' does not answer: %s", med->name,
                            problem->message);
        return NULL;
    case SM_CLIENT_REFUSED:
    case SM_CLIENT_FAILURES:
        break;
    }
    (void)sm_embed_fail(error, SLIRP_MED_ERROR_REFUSED, "%s", problem->message);
    return NULL;
}

static const char *text(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static uint64_t count(const json_t *o, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(o, key));
    return value > 0 ? (uint64_t)value : 0;
}

int slirp_med_network(struct slirp_med *med, struct slirp_med_network *ret, struct slirp_med_error *error)
{
    json_t *answer = ask(med, SM_CONTROL_STATUS, NULL, error);
    if (!answer)
        return -1;
    json_decref(med->network);
    med->network = answer;
    char *dumped = json_dumps(answer, JSON_COMPACT);
    g_free(med->network_json);
    med->network_json = g_strdup(dumped);
    free(dumped);

    const json_t *network = json_object_get(answer, "network");
    const json_t *front = json_object_get(json_object_get(answer, "reports"), "front");
    const char *subnet = text(network, "subnet"), *slash = subnet ? strchr(subnet, '/') : NULL;
    *ret = (struct slirp_med_network){
        .guest = text(network, "ip"),
        .gateway = text(network, "gateway"),
        .resolver = text(network, "resolver"),
        .prefix_len = slash ? (unsigned)g_ascii_strtoull(slash + 1, NULL, 10) : 0,
        .mac = text(network, "mac"),
        .mtu = (unsigned)count(network, "mtu"),
        .state = text(answer, "state"),
        .connected = json_is_true(json_object_get(front, "connected")),
        .rx_frames = count(front, "rx_frames"),
        .tx_frames = count(front, "tx_frames"),
        .tx_dropped = count(front, "tx_dropped"),
        .ca_path = med->ca_path,
        .audit_path = med->audit ? med->audit_path : NULL,
        .json = med->network_json,
    };
    return 0;
}

int slirp_med_publish(struct slirp_med *med, const char *spec, unsigned *ret_port, struct slirp_med_error *error)
{
    sm_cleanup(json_freep) json_t *answer = ask(med, SM_CONTROL_PUBLISH, spec, error);
    if (!answer)
        return -1;
    if (ret_port)
        *ret_port = (unsigned)count(json_object_get(answer, "publish"), "hostPort");
    return 0;
}

int slirp_med_unpublish(struct slirp_med *med, const char *spec, struct slirp_med_error *error)
{
    sm_cleanup(json_freep) json_t *answer = ask(med, SM_CONTROL_UNPUBLISH, spec, error);
    return answer ? 0 : -1;
}

int slirp_med_load_policy(struct slirp_med *med, const char *path, struct slirp_med_error *error)
{
    sm_cleanup(json_freep) json_t *answer = ask(med, path ? SM_CONTROL_POLICY : SM_CONTROL_RELOAD, path, error);
    return answer ? 0 : -1;
}

bool sm_embed_open_folder(struct slirp_med *med, struct slirp_med_error *error)
{
    g_autoptr(GError) problem = NULL;

    sm_fd_close(&med->dirfd);
    med->dirfd = open(med->folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (med->dirfd < 0) {
        (void)sm_embed_fail(error, SLIRP_MED_ERROR_SYSTEM, "%s: %s", med->folder, g_strerror(errno));
        return false;
    }
    g_free(med->audit_path);
    med->audit_path = g_build_filename(med->folder, SM_AUDIT_FILE, NULL);
    if (!med->reader)
        med->reader = sm_audit_reader_new(med->dirfd, &problem);
    if (!med->reader) {
        (void)sm_embed_fail(error, SLIRP_MED_ERROR_SYSTEM, "%s: %s", med->audit_path, problem->message);
        return false;
    }
    return true;
}
