/* HTTP/1.1 with keep-alive, one request in flight on a connection (RFC 9112). */
#define _GNU_SOURCE
#include "load.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

size_t head_size(const uint8_t *bytes, size_t length) {
    const uint8_t *end = memmem(bytes, length, "\r\n\r\n", 4);
    return end ? (size_t)(end - bytes) + 4 : 0;
}

static const uint8_t *header(const uint8_t *head, size_t length, const char *name, size_t *left) {
    size_t size = strlen(name);
    const uint8_t *line = memchr(head, '\n', length), *end = head + length;
    for (; line && (size_t)(end - line) > size; line = memchr(line + 1, '\n', (size_t)(end - line - 1))) {
        if (strncasecmp((const char *)line + 1, name, size)) continue;
        const uint8_t *value = line + 1 + size;
        while (value < end && *value == ' ') value++;
        *left = (size_t)(end - value);
        return value;
    }
    return NULL;
}

long long header_number(const uint8_t *head, size_t length, const char *name) {
    size_t left;
    const uint8_t *value = header(head, length, name, &left);
    /* The head ends with a line break: strtoll stops there. */
    return value ? strtoll((const char *)value, NULL, 10) : -1;
}

bool header_has(const uint8_t *head, size_t length, const char *name, const char *wanted) {
    size_t left, size = strlen(wanted);
    const uint8_t *value = header(head, length, name, &left);
    return value && left >= size && !strncasecmp((const char *)value, wanted, size);
}

/* The whole size of a chunked body, its chunks joined in `body`; 0 if it is not whole, -1 if it is none. */
static long long read_chunks(const uint8_t *bytes, size_t length, struct buffer *body) {
    size_t at = 0;
    body->start = body->end = 0;
    for (;;) {
        const uint8_t *line = memmem(bytes + at, length - at, "\r\n", 2);
        if (!line) return 0;
        char *stop;
        unsigned long long size = strtoull((const char *)bytes + at, &stop, 16);
        if (stop == (const char *)bytes + at || size > (64u << 20)) return -1;
        at = (size_t)(line - bytes) + 2;
        if (length - at < size + 2) return 0;
        if (!size) return (long long)at + 2; /* servers here send no trailers */
        buffer_add(body, bytes + at, size);
        at += size + 2;
    }
}

static void http1_opened(struct connection *connection) { (void)connection; }

static void http1_send(struct connection *connection, struct stream *stream) {
    request_copy(&requests, stream->request, 0, SIZE_MAX, &connection->out);
}

static bool http1_read(struct connection *connection) {
    struct buffer *in = &connection->in;
    struct stream *stream = &connection->streams[0];
    const uint8_t *head = buffer_head(in);
    size_t size = head_size(head, buffer_size(in));
    if (!size) return true;
    if (!stream->busy || size < 16 || memcmp(head, "HTTP/1.", 7)) return false;
    struct answer answer = {.status = atoi((const char *)head + 9), .head = head, .head_length = size};
    long long length = header_number(head, size, "content-length:"), whole = length;
    answer.body = head + size;
    if (length < 0) {
        if (!header_has(head, size, "transfer-encoding:", "chunked")) return false;
        whole = read_chunks(head + size, buffer_size(in) - size, &stream->body);
        if (whole <= 0) return whole == 0;
        answer.body = stream->body.data;
        length = (long long)stream->body.end;
    }
    if (buffer_size(in) - size < (size_t)whole) return true;
    answer.body_length = (size_t)length;
    bool last = header_has(head, size, "connection:", "close");
    if (buffer_size(in) - size > (size_t)whole) return false; /* more than was asked for */
    connection->closing = last;
    buffer_take(in, size + (size_t)whole); /* the bytes stay where they are until the next read */
    answered(connection, stream, &answer);
    return !last;
}

const struct protocol http1 = {http1_opened, http1_send, http1_read};
