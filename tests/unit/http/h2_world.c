/* SPDX-License-Identifier: BSD-3-Clause */
/* Client, bridge, server in memory; see h2_world.h. */
#include "h2_world.h"

#include <stdio.h>
#include <stdlib.h>

static uint8_t pattern(uint64_t at)
{
    return (uint8_t)(at * 31 + (at >> 9) + 7);
}

static enum sm_bridge_side end_of(struct h2_world *w, nghttp2_session *s)
{
    return s == w->end[SM_BRIDGE_GUEST] ? SM_BRIDGE_GUEST : SM_BRIDGE_ORIGIN;
}

static void seen_free(void *p)
{
    struct h2_seen *s = p;
    g_string_free(s->head, TRUE);
    g_string_free(s->interim, TRUE);
    g_string_free(s->trailers, TRUE);
    g_string_free(s->text, TRUE);
    g_free(s);
}

struct h2_seen *h2_seen(struct h2_world *w, enum sm_bridge_side end, int32_t id)
{
    struct h2_seen *s = g_hash_table_lookup(w->seen[end], GINT_TO_POINTER(id));
    if (!s) {
        s = g_new0(struct h2_seen, 1);
        s->id = id;
        s->head = g_string_new(NULL);
        s->interim = g_string_new(NULL);
        s->trailers = g_string_new(NULL);
        s->text = g_string_new(NULL);
        g_hash_table_insert(w->seen[end], GINT_TO_POINTER(id), s);
    }
    return s;
}

/* "name: value\n" lines to fields. */
static size_t fields_of(char *text, nghttp2_nv *nv, size_t max)
{
    size_t n = 0;
    for (char *line = text; *line && n < max;) {
        char *next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        else
            next = line + strlen(line);
        /* A pseudo-header begins with a colon. */
        char *sep = strpbrk(line + 1, ":!");
        assert_non_null(sep);
        bool never = *sep == '!';
        *sep = '\0';
        char *value = sep[1] == ' ' ? sep + 2 : sep + 1;
        nv[n++] = (nghttp2_nv){(uint8_t *)line, (uint8_t *)value, strlen(line), strlen(value),
                               never ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE};
        line = next;
    }
    return n;
}

static ssize_t read_source(nghttp2_session *session, int32_t id, uint8_t *buf, size_t len, uint32_t *flags,
                           nghttp2_data_source *source, void *user_data)
{
    struct h2_world *w = user_data;
    struct h2_seen *s = h2_seen(w, end_of(w, session), id);
    size_t n = (size_t)SM_MIN((uint64_t)len, s->to_send - s->sent);

    if (n == 0 && s->send_more) {
        s->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    for (size_t i = 0; i < n; i++)
        buf[i] = s->send_text ? (uint8_t)s->send_text[s->sent + i] : pattern(s->sent + i);
    s->sent += n;
    if (s->sent == s->to_send && !s->send_more) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (s->send_trailer) {
            const char *value = s->trailer_value ? s->trailer_value : "yes";
            nghttp2_nv nv = {(uint8_t *)s->send_trailer, (uint8_t *)value, strlen(s->send_trailer), strlen(value), 0};
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            assert_int_equal(nghttp2_submit_trailer(session, id, &nv, 1), 0);
        }
    }
    return (ssize_t)n;
}

void h2_more(struct h2_world *w, enum sm_bridge_side end, int32_t id, uint64_t n, bool last)
{
    struct h2_seen *s = h2_seen(w, end, id);
    s->to_send += n;
    s->send_more = !last;
    if (s->deferred) {
        s->deferred = false;
        nghttp2_session_resume_data(w->end[end], id);
    }
}

void h2_respond(struct h2_world *w, int32_t id, const char *fields, int64_t body)
{
    nghttp2_nv nv[300];
    g_autofree char *text = g_strdup(fields);
    nghttp2_data_provider prd = {.read_callback = read_source};
    size_t n = fields_of(text, nv, SM_ARRAY_LEN(nv));
    if (body > 0)
        h2_seen(w, SM_BRIDGE_ORIGIN, id)->to_send += (uint64_t)body;
    assert_int_equal(nghttp2_submit_response(w->end[SM_BRIDGE_ORIGIN], id, nv, n, body < 0 ? NULL : &prd), 0);
}

int32_t h2_request_raw(struct h2_world *w, const char *fields, int64_t body)
{
    nghttp2_nv nv[2000];
    g_autofree char *text = g_strdup(fields);
    nghttp2_data_provider prd = {.read_callback = read_source};
    size_t n = fields_of(text, nv, SM_ARRAY_LEN(nv));
    int32_t id = nghttp2_submit_request(w->end[SM_BRIDGE_GUEST], NULL, nv, n, body < 0 ? NULL : &prd, NULL);
    assert_true(id > 0);
    if (body > 0)
        h2_seen(w, SM_BRIDGE_GUEST, id)->to_send = (uint64_t)body;
    return id;
}

int32_t h2_request(struct h2_world *w, const char *method, const char *path, int64_t body, const char *more)
{
    g_autofree char *text = g_strdup_printf(":method: %s\n:scheme: %s\n:authority: ok.test\n:path: %s\n%s", method,
                                            w->b->config.tls ? "https" : "http", path, more ? more : "");
    return h2_request_raw(w, text, body);
}

/* ---- the server's ways ---- */

static void serve_token(struct h2_world *w, int32_t id, unsigned long n)
{
    bool old = strstr(h2_seen(w, SM_BRIDGE_ORIGIN, id)->head->str, "x-key! " H2_OLD "\n");

    bool head = strstr(h2_seen(w, SM_BRIDGE_ORIGIN, id)->head->str, ":method: HEAD\n");
    int64_t body = head ? -1 : old ? (int64_t)n : 5;

    h2_respond(w, id, old ? ":status: 401\necho: " H2_OLD "\n" : ":status: 200\n", body);
}

static void serve(struct h2_world *w, int32_t id)
{
    nghttp2_session *server = w->end[SM_BRIDGE_ORIGIN];
    struct h2_seen *s = h2_seen(w, SM_BRIDGE_ORIGIN, id);
    const char *path = strstr(s->head->str, ":path: ");
    unsigned long n = 0;

    assert_non_null(path);
    path += strlen(":path: ");
    if (sscanf(path, "/size/%lu", &n) == 1) {
        h2_respond(w, id, ":status: 200\nserver: test\n", (int64_t)n);
    } else if (g_str_has_prefix(path, "/echo")) {
        s->send_more = true;
        h2_respond(w, id, ":status: 200\n", 0);
    } else if (g_str_has_prefix(path, "/trailers")) {
        s->send_trailer = "grpc-status";
        h2_respond(w, id, ":status: 200\ncontent-type: application/grpc\n", 5);
    } else if (sscanf(path, "/status/%lu", &n) == 1) {
        g_autofree char *text = g_strdup_printf(":status: %lu\ncontent-length: 5\n", n);
        h2_respond(w, id, n == 204 ? ":status: 204\n" : text, -1);
    } else if (g_str_has_prefix(path, "/interim")) {
        nghttp2_nv hints[] = {{(uint8_t *)":status", (uint8_t *)"103", 7, 3, 0},
                              {(uint8_t *)"link", (uint8_t *)"</x>", 4, 4, 0}};
        nghttp2_nv go = {(uint8_t *)":status", (uint8_t *)"100", 7, 3, 0};
        nghttp2_submit_headers(server, 0, id, NULL, hints, 2, NULL);
        nghttp2_submit_headers(server, 0, id, NULL, &go, 1, NULL);
        h2_respond(w, id, ":status: 200\n", 10);
    } else if (g_str_has_prefix(path, "/early")) {
        h2_respond(w, id, ":status: 413\n", 20);
    } else if (sscanf(path, "/reset/%lu", &n) == 1) {
        nghttp2_submit_rst_stream(server, 0, id, (uint32_t)n);
    } else if (sscanf(path, "/partial/%lu", &n) == 1) {
        s->send_more = true;
        h2_respond(w, id, ":status: 200\n", 10);
    } else if (sscanf(path, "/hasty/%lu", &n) == 1) {
        serve_token(w, id, n);
    } else if (g_str_has_prefix(path, "/alt-svc")) {
        h2_respond(w, id, ":status: 200\nalt-svc: h3=\":443\"; ma=5, h2=\":8443\"\nalt-svc: h3=\":444\"\nx: y\n", -1);
    }
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *user_data)
{
    struct h2_world *w = user_data;
    enum sm_bridge_side end = end_of(w, session);
    struct h2_seen *s = h2_seen(w, end, frame->hd.stream_id);
    bool trailer = frame->headers.cat == NGHTTP2_HCAT_HEADERS && (s->status >= 200 || end == SM_BRIDGE_ORIGIN);

    g_string_append_printf(trailer ? s->trailers : s->head, "%.*s%s %.*s\n", (int)name_len, name,
                           flags & NGHTTP2_NV_FLAG_NO_INDEX ? "!" : ":", (int)value_len, value);
    if (!trailer && name_len == 7 && memcmp(name, ":status", 7) == 0)
        s->status = atoi((const char *)value);
    return 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2_world *w = user_data;
    struct h2_seen *s = h2_seen(w, end_of(w, session), frame->hd.stream_id);
    if (session == w->end[SM_BRIDGE_GUEST] && s->status < 200) {
        g_string_append(s->interim, s->head->str);
        g_string_truncate(s->head, 0);
    }
    s->heads++;
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len,
                   void *user_data)
{
    struct h2_world *w = user_data;
    enum sm_bridge_side end = end_of(w, session);
    struct h2_seen *s = h2_seen(w, end, id);
    for (size_t i = 0; i < len; i++)
        if (data[i] != pattern(s->body + i))
            s->bad_body = true;
    if (s->text->len < 4096)
        g_string_append_len(s->text, (const char *)data, (gssize)len);
    s->body += len;
    if (end == SM_BRIDGE_ORIGIN && strstr(s->head->str, ":path: /echo"))
        h2_more(w, end, id, len, false);
    return 0;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2_world *w = user_data;
    enum sm_bridge_side end = end_of(w, session);

    if (frame->hd.type == NGHTTP2_GOAWAY) {
        w->goaway[end] = true;
        w->goaway_code[end] = frame->goaway.error_code;
        w->goaway_last[end] = frame->goaway.last_stream_id;
        g_string_append_len(w->goaway_text[end], (const char *)frame->goaway.opaque_data,
                            (gssize)frame->goaway.opaque_data_len);
    }
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    struct h2_seen *s = h2_seen(w, end, frame->hd.stream_id);
    if (frame->hd.type == NGHTTP2_HEADERS && end == SM_BRIDGE_ORIGIN && s->heads == 1)
        serve(w, frame->hd.stream_id);
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
        unsigned long n;
        const char *path = strstr(s->head->str, ":path: ");
        s->ended = true;
        if (end == SM_BRIDGE_ORIGIN && sscanf(path, ":path: /token/%lu", &n) == 1)
            serve_token(w, frame->hd.stream_id, n);
        if (end == SM_BRIDGE_ORIGIN && strstr(s->head->str, ":path: /echo"))
            h2_more(w, end, frame->hd.stream_id, 0, true);
    }
    return 0;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2_world *w = user_data;
    unsigned long code;
    if (end_of(w, session) != SM_BRIDGE_ORIGIN || frame->hd.type != NGHTTP2_DATA)
        return 0;
    struct h2_seen *s = h2_seen(w, SM_BRIDGE_ORIGIN, frame->hd.stream_id);
    const char *path = strstr(s->head->str, ":path: ");
    if (g_str_has_prefix(path, ":path: /early") && frame->hd.flags & NGHTTP2_FLAG_END_STREAM && !s->ended)
        nghttp2_submit_rst_stream(session, 0, frame->hd.stream_id, NGHTTP2_NO_ERROR);
    if (sscanf(path, ":path: /partial/%lu", &code) == 1)
        nghttp2_submit_rst_stream(session, 0, frame->hd.stream_id, (uint32_t)code);
    return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t code, void *user_data)
{
    struct h2_world *w = user_data;
    struct h2_seen *s = h2_seen(w, end_of(w, session), id);
    s->closed = true;
    s->code = code;
    return 0;
}

/* ---- the judge ---- */

void h2_answer(struct h2_world *w, uint64_t req, bool pass)
{
    struct sm_bridge_answer a = {
        .pass = pass, .status = w->refuse_status, .body = "{\"no\":1}", .body_len = 8, .edit = w->edit};
    sm_bridge_answer(w->b, req, &a);
}

void h2_answer_again(struct h2_world *w, uint64_t req, bool pass)
{
    struct sm_bridge_answer a = {
        .pass = pass, .status = w->refuse_status, .body = "{\"no\":2}", .body_len = 8, .edit = w->edit_again};
    sm_bridge_answer(w->b, req, &a);
}

bool h2_answer_next(struct h2_world *w)
{
    guint req = GPOINTER_TO_UINT(g_queue_pop_head(&w->rejected));

    if (req)
        h2_answer_again(w, req, true);
    return req != 0;
}

static void fields_to(struct h2_world *w, const struct sm_bridge_request *r)
{
    struct sm_text name, value;

    g_string_truncate(w->fields, 0);
    for (size_t at = 0; sm_bridge_request_field(r, &at, &name, &value);)
        g_string_append_printf(w->fields, "%.*s=%.*s\n", (int)name.len, name.ptr, (int)value.len, value.ptr);
}

static bool on_rejected(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *r)
{
    struct h2_world *w = ctx;

    if (w->again == H2_PASS)
        h2_answer_again(w, r->req, true);
    /* Also after the answer the texts hold until the callback returns. */
    fields_to(w, r);
    g_string_append_printf(w->asked, "%u again %.*s\n", (unsigned)r->req, (int)r->path.len, r->path.ptr);
    if (w->again == H2_LATER)
        g_queue_push_tail(&w->rejected, GUINT_TO_POINTER((guint)r->req));
    return w->again != H2_REFUSE;
}

static void on_request(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *r)
{
    struct h2_world *w = ctx;

    w->requests++;
    fields_to(w, r);
    assert_string_equal(r->protocol, "HTTP/2");
    assert_false(r->upgrade);
    if (w->judge != H2_LATER)
        h2_answer(w, r->req, w->judge == H2_PASS);
    /* Also after the answer the texts hold until the callback returns. */
    g_string_append_printf(w->asked, "%u %.*s %.*s %.*s %u %.*s %s%.*s\n", (unsigned)r->req, (int)r->method.len,
                           r->method.ptr, (int)r->scheme.len, r->scheme.ptr, (int)r->host.len, r->host.ptr, r->port,
                           (int)r->path.len, r->path.ptr, r->query.ptr ? "?" : "-", (int)r->query.len,
                           r->query.ptr ? r->query.ptr : "");
}

static void on_response(void *ctx, const struct sm_bridge_response *r)
{
    struct h2_world *w = ctx;
    w->responses++;
    g_string_append_printf(w->told, "%u %s %u %u %u", (unsigned)r->req, sm_bridge_outcome_name(r->outcome), r->status,
                           (unsigned)r->bytes_up, (unsigned)r->bytes_down);
    if (r->scrubbed)
        g_string_append_printf(w->told, " *%u", r->scrubbed);
    g_string_append(w->told, r->unscrubbed ? " unscrubbed\n" : "\n");
}

static void on_broken(void *ctx, enum sm_bridge_side by, uint64_t req, const char *reason)
{
    struct h2_world *w = ctx;
    g_string_append_printf(w->broken, "%s %u %s\n", sm_bridge_side_name(by), (unsigned)req, reason);
}

static size_t on_page(void *ctx, uint16_t status, const char *reason, char *out, size_t cap)
{
    return (size_t)snprintf(out, cap, "{\"%u\":\"%s\"}", status, reason);
}

static const struct sm_bridge_ops ops = {
    .request = on_request, .response = on_response, .broken = on_broken, .page = on_page, .rejected = on_rejected};

/* ---- moving bytes ---- */

static void collect(struct h2_world *w, enum sm_bridge_side end)
{
    const uint8_t *p;
    ssize_t n;
    while ((n = nghttp2_session_mem_send(w->end[end], &p)) > 0)
        g_byte_array_append(w->wire[end], p, (guint)n);
}

bool h2_step_in(struct h2_world *w, enum sm_bridge_side from, size_t max)
{
    collect(w, from);
    size_t n = SM_MIN(SM_MIN((size_t)w->wire[from]->len, sm_bridge_room(w->b, from)), max);
    if (n == 0)
        return false;
    /* A copy of the exact size, for the sanitizer. */
    g_autofree uint8_t *copy = g_memdup2(w->wire[from]->data, n);
    g_byte_array_remove_range(w->wire[from], 0, (guint)n);
    sm_bridge_feed(w->b, from, copy, n);
    return true;
}

bool h2_step_out(struct h2_world *w, enum sm_bridge_side to, size_t max)
{
    const uint8_t *p;
    size_t n = SM_MIN(sm_bridge_out(w->b, to, &p), max);
    if (w->deaf[to] || n == 0)
        return false;
    g_autofree uint8_t *copy = g_memdup2(p, n);
    sm_bridge_took(w->b, to, n);
    w->wire_out[to] += n;
    /* An end that has had enough takes no more; that is its own affair. */
    ssize_t taken = nghttp2_session_mem_recv(w->end[to], copy, n);
    assert_true(taken == (ssize_t)n);
    return true;
}

void h2_run(struct h2_world *w)
{
    size_t max = w->cut ? w->cut : SIZE_MAX;
    bool more = true;
    while (more) {
        more = false;
        for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
            more |= h2_step_in(w, side, max);
            more |= h2_step_out(w, side, max);
        }
    }
}

void h2_raw(struct h2_world *w, enum sm_bridge_side from, const void *data, size_t len)
{
    const uint8_t *p = data;
    while (len > 0) {
        size_t n = SM_MIN(len, sm_bridge_room(w->b, from));
        if (n == 0)
            return;
        sm_bridge_feed(w->b, from, p, n);
        p += n;
        len -= n;
    }
}

static nghttp2_session *session_new(struct h2_world *w, enum sm_bridge_side end, const struct h2_options *o)
{
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    nghttp2_session *session;

    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_option_new(&option);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_option_set_no_auto_window_update(option, end == SM_BRIDGE_GUEST ? o->slow_client : o->slow_server);
    nghttp2_option_set_max_send_header_block_length(option, 1 << 24);
    /* The ends may say anything; what they may not say is the bridge's to find. */
    nghttp2_option_set_no_http_messaging(option, 1);
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
         end == SM_BRIDGE_ORIGIN && o->server_streams ? o->server_streams : 100},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, o->windows ? o->windows : 65535},
    };
    if (end == SM_BRIDGE_GUEST)
        nghttp2_session_client_new2(&session, callbacks, w, option);
    else
        nghttp2_session_server_new2(&session, callbacks, w, option);
    nghttp2_submit_settings(session, 0, settings, SM_ARRAY_LEN(settings));
    if (o->windows)
        nghttp2_session_set_local_window_size(session, 0, 0, (int32_t)o->windows);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
    return session;
}

void h2_world_init(struct h2_world *w, const struct h2_options *o)
{
    static const struct h2_options none;
    struct sm_bridge_config config = {.tls = !(o && o->cleartext), .strip_alt_svc = true, .account = &w->account};

    *w = (struct h2_world){.judge = H2_PASS, .refuse_status = 403};
    w->asked = g_string_new(NULL);
    w->fields = g_string_new(NULL);
    w->told = g_string_new(NULL);
    w->broken = g_string_new(NULL);
    for (unsigned end = 0; end < SM_BRIDGE_SIDES; end++) {
        w->end[end] = session_new(w, end, o ? o : &none);
        w->seen[end] = g_hash_table_new_full(NULL, NULL, NULL, seen_free);
        w->wire[end] = g_byte_array_new();
        w->got[end] = g_byte_array_new();
        w->goaway_text[end] = g_string_new(NULL);
    }
    w->b = sm_bridge_new_h2(&ops, w, &config);
}

void h2_world_done(struct h2_world *w)
{
    sm_bridge_eof(w->b, SM_BRIDGE_GUEST, true);
    sm_bridge_eof(w->b, SM_BRIDGE_ORIGIN, true);
    assert_int_not_equal(sm_bridge_ended(w->b), SM_BRIDGE_LIVE);
    sm_bridge_free(w->b);
    assert_int_equal(w->requests, w->responses);
    assert_int_equal(w->account, 0);
    g_queue_clear(&w->rejected);
    g_string_free(w->asked, TRUE);
    g_string_free(w->fields, TRUE);
    g_string_free(w->told, TRUE);
    g_string_free(w->broken, TRUE);
    for (unsigned end = 0; end < SM_BRIDGE_SIDES; end++) {
        nghttp2_session_del(w->end[end]);
        g_hash_table_destroy(w->seen[end]);
        g_byte_array_free(w->wire[end], TRUE);
        g_byte_array_free(w->got[end], TRUE);
        g_string_free(w->goaway_text[end], TRUE);
    }
}
