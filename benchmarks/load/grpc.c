/* Unary gRPC calls over cleartext HTTP/2 with prior knowledge (RFC 9113; gRPC's PROTOCOL-HTTP2).
 *
 * The headers of a request are constant, so they are encoded once, as literals that touch no table. The headers of an
 * answer are not decoded: a unary call that succeeds has a message, one that fails has none. */
#include "load.h"

#include <string.h>

static const uint32_t OWN_WINDOW = 1u << 30;

bool frame_read(const struct buffer *in, struct frame *frame) {
    const uint8_t *head = buffer_head(in);
    if (buffer_size(in) < FRAME_HEAD) return false;
    frame->length = (uint32_t)head[0] << 16 | (uint32_t)head[1] << 8 | head[2];
    frame->type = head[3];
    frame->flags = head[4];
    frame->stream = big_endian(head + 5) & 0x7fffffffu;
    frame->payload = head + FRAME_HEAD;
    return buffer_size(in) >= FRAME_HEAD + (size_t)frame->length;
}

void frame_add_head(struct buffer *out, uint32_t length, uint8_t type, uint8_t flags, uint32_t stream) {
    uint8_t head[FRAME_HEAD] = {
        (uint8_t)(length >> 16), (uint8_t)(length >> 8), (uint8_t)length, type, flags,
        (uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream,
    };
    buffer_add(out, head, sizeof head);
}

void frame_add_window(struct buffer *out, uint32_t stream, uint32_t more) {
    uint8_t bytes[4] = {(uint8_t)(more >> 24), (uint8_t)(more >> 16), (uint8_t)(more >> 8), (uint8_t)more};
    frame_add_head(out, 4, FRAME_WINDOW_UPDATE, 0, stream);
    buffer_add(out, bytes, sizeof bytes);
}

static void add_text(struct buffer *block, const char *text) {
    size_t length = strlen(text);
    if (length > 126) fail("a gRPC header is longer than 126 bytes");
    buffer_add(block, &(uint8_t){(uint8_t)length}, 1);
    buffer_add(block, text, length);
}

/* Literals without indexing (RFC 7541, section 6.2.2), names from the static table where it has them. */
static const struct buffer *header_block(void) {
    static struct buffer block;
    if (block.end) return &block;
    buffer_add(&block, "\x83\x86\x04", 3); /* :method POST, :scheme http, :path */
    add_text(&block, options.path);
    buffer_add(&block, "\x01", 1); /* :authority */
    add_text(&block, options.host);
    buffer_add(&block, "\x0f\x10", 2); /* content-type */
    add_text(&block, "application/grpc");
    buffer_add(&block, "\x00", 1);
    add_text(&block, "te");
    add_text(&block, "trailers");
    if (options.timeout) {
        buffer_add(&block, "\x00", 1);
        add_text(&block, "grpc-timeout");
        add_text(&block, options.timeout);
    }
    return &block;
}

static void grpc_opened(struct connection *connection) {
    connection->next_id = 1;
    connection->window = connection->peer_window = DEFAULT_WINDOW;
    connection->peer_frame = DEFAULT_FRAME;
    connection->unacknowledged = 0;
    buffer_add(&connection->out, PREFACE, PREFACE_SIZE);
    frame_add_head(&connection->out, 6, FRAME_SETTINGS, 0, 0);
    uint8_t setting[6] = {0, SETTING_INITIAL_WINDOW, OWN_WINDOW >> 24, 0, 0, 0};
    buffer_add(&connection->out, setting, sizeof setting);
    frame_add_window(&connection->out, 0, OWN_WINDOW - DEFAULT_WINDOW);
}

/* Sends what the peer's windows let go. */
static void pump(struct connection *connection, struct stream *stream) {
    size_t size = request_size(&requests, stream->request);
    while (stream->sent < size && stream->window > 0 && connection->window > 0) {
        size_t part = size - stream->sent;
        if (part > connection->peer_frame) part = connection->peer_frame;
        if ((int64_t)part > stream->window) part = (size_t)stream->window;
        if ((int64_t)part > connection->window) part = (size_t)connection->window;
        uint8_t flags = stream->sent + part == size ? FLAG_END_STREAM : 0;
        frame_add_head(&connection->out, (uint32_t)part, FRAME_DATA, flags, stream->id);
        request_copy(&requests, stream->request, stream->sent, part, &connection->out);
        stream->sent += part;
        stream->window -= (int64_t)part;
        connection->window -= (int64_t)part;
    }
}

static void pump_all(struct connection *connection) {
    for (int i = 0; i < options.streams; i++)
        if (connection->streams[i].busy) pump(connection, &connection->streams[i]);
}

static void grpc_send(struct connection *connection, struct stream *stream) {
    const struct buffer *block = header_block();
    stream->id = connection->next_id;
    connection->next_id += 2;
    stream->sent = stream->received = 0;
    stream->window = connection->peer_window;
    stream->body.start = stream->body.end = 0;
    frame_add_head(&connection->out, (uint32_t)block->end, FRAME_HEADERS, FLAG_END_HEADERS, stream->id);
    buffer_add(&connection->out, block->data, block->end);
    pump(connection, stream);
}

static void read_settings(struct connection *connection, const struct frame *frame) {
    if (frame->flags & FLAG_ACK) return;
    for (uint32_t at = 0; at + 6 <= frame->length; at += 6) {
        uint32_t value = big_endian(frame->payload + at + 2);
        if (frame->payload[at + 1] == SETTING_MAX_FRAME) connection->peer_frame = value;
        if (frame->payload[at + 1] != SETTING_INITIAL_WINDOW) continue;
        for (int i = 0; i < options.streams; i++)
            connection->streams[i].window += (int64_t)value - connection->peer_window;
        connection->peer_window = value;
    }
    frame_add_head(&connection->out, 0, FRAME_SETTINGS, FLAG_ACK, 0);
    pump_all(connection);
}

static struct stream *stream_of(struct connection *connection, uint32_t id) {
    for (int i = 0; i < options.streams; i++)
        if (connection->streams[i].busy && connection->streams[i].id == id) return &connection->streams[i];
    return NULL;
}

static void read_window(struct connection *connection, const struct frame *frame) {
    uint32_t more = big_endian(frame->payload) & 0x7fffffffu;
    struct stream *stream = frame->stream ? stream_of(connection, frame->stream) : NULL;
    if (!frame->stream) connection->window += more;
    if (stream) stream->window += more;
    pump_all(connection);
}

static void read_data(struct connection *connection, struct stream *stream, const struct frame *frame) {
    const uint8_t *bytes = frame->payload;
    size_t length = frame->length;
    if (frame->flags & FLAG_PADDED && length) {
        length -= 1u + bytes[0];
        bytes++;
    }
    buffer_add(&stream->body, bytes, length);
    stream->received += length;
    connection->unacknowledged += frame->length;
    if (connection->unacknowledged > OWN_WINDOW / 2) {
        frame_add_window(&connection->out, 0, (uint32_t)connection->unacknowledged);
        connection->unacknowledged = 0;
    }
}

static bool grpc_read(struct connection *connection) {
    struct frame frame;
    while (frame_read(&connection->in, &frame)) {
        struct stream *stream = frame.stream ? stream_of(connection, frame.stream) : NULL;
        bool ends = frame.type == FRAME_RST_STREAM;
        if (frame.type == FRAME_SETTINGS) read_settings(connection, &frame);
        if (frame.type == FRAME_WINDOW_UPDATE) read_window(connection, &frame);
        if (frame.type == FRAME_PING && !(frame.flags & FLAG_ACK)) {
            frame_add_head(&connection->out, 8, FRAME_PING, FLAG_ACK, 0);
            buffer_add(&connection->out, frame.payload, 8);
        }
        if (frame.type == FRAME_GOAWAY) connection->closing = true;
        if (frame.type == FRAME_DATA && stream) read_data(connection, stream, &frame);
        if (frame.type == FRAME_DATA || frame.type == FRAME_HEADERS) ends = frame.flags & FLAG_END_STREAM;
        buffer_take(&connection->in, FRAME_HEAD + frame.length);
        if (!stream || !ends) continue;
        if (stream->sent < request_size(&requests, stream->request)) return false; /* refused before it was read */
        struct answer answer = {.status = stream->received >= 5 ? 200 : 0, .body = stream->body.data};
        answer.body_length = stream->received;
        answered(connection, stream, &answer);
        if (connection->closing && !connection->busy) return false;
    }
    return true;
}

const struct protocol grpc = {grpc_opened, grpc_send, grpc_read};
