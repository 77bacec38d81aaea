/* What the parts of the load generator have in common. Times are nanoseconds of CLOCK_MONOTONIC. */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- buffers (support.c): bytes [start, end) of data are not consumed yet ---- */
struct buffer {
    uint8_t *data;
    size_t start, end, capacity;
};
uint8_t *buffer_reserve(struct buffer *buffer, size_t more);
void buffer_add(struct buffer *buffer, const void *bytes, size_t length);
void buffer_take(struct buffer *buffer, size_t length);
static inline size_t buffer_size(const struct buffer *buffer) { return buffer->end - buffer->start; }
static inline const uint8_t *buffer_head(const struct buffer *buffer) { return buffer->data + buffer->start; }

_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t now_ns(void);

/* ---- the requests of a file (support.c); each is gathered from segments that requests may share ---- */
struct segment {
    uint64_t offset, length;
};
struct requests {
    uint32_t count;
    const uint32_t *ends; /* of each request in segments, exclusive */
    const struct segment *segments;
    const uint8_t *bytes;
};
void requests_open(struct requests *requests, const char *path);
size_t request_size(const struct requests *requests, uint32_t request);
/* Appends bytes [from, from + length) of a request. */
void request_copy(const struct requests *requests, uint32_t request, size_t from, size_t length, struct buffer *to);

/* ---- latencies (support.c): log-linear, within 0.4 % ---- */
enum { SUB_BITS = 8, HISTOGRAM_SLOTS = (40 - SUB_BITS + 1) << SUB_BITS };
struct histogram {
    uint64_t count, max, sum;
    uint64_t slots[HISTOGRAM_SLOTS];
};
void histogram_add(struct histogram *histogram, uint64_t value);
uint64_t histogram_quantile(const struct histogram *histogram, double quantile);

/* ---- connections ---- */
enum { MAX_STREAMS = 64 };
struct stream { /* one request in flight */
    bool busy;
    uint32_t id, request;
    uint64_t started;
    size_t sent;   /* of the request's bytes; HTTP/2 only */
    int64_t window; /* what the peer lets this stream send; HTTP/2 only */
    size_t received;
    struct buffer body; /* HTTP/2: DATA so far */
};
struct connection {
    int fd;
    bool connecting, writing; /* writing: EPOLLOUT is asked for */
    struct buffer in, out;
    uint32_t busy; /* streams in use */
    struct stream streams[MAX_STREAMS]; /* HTTP/1 uses the first */
    /* HTTP/2 */
    uint32_t next_id, peer_frame;
    int64_t window, peer_window;
    size_t unacknowledged;
    bool closing;
};

struct answer {
    int status; /* of HTTP; gRPC: 200 for an answer with a message, 0 for one without */
    const uint8_t *head, *body;
    size_t head_length, body_length;
};

/* A protocol writes requests to `out` and finds answers in `in`. `read` returns false if the connection must go. */
struct protocol {
    void (*opened)(struct connection *connection);
    void (*send)(struct connection *connection, struct stream *stream);
    bool (*read)(struct connection *connection);
};
extern const struct protocol http1, grpc;

/* Called by protocols for each answer; frees the stream, and may send the next request on it. */
void answered(struct connection *connection, struct stream *stream, const struct answer *answer);

struct options {
    const char *host, *requests, *path, *dump, *timeout;
    int port, connections, streams, dump_count, answer_bytes;
    double seconds, warm_up, grace, rate, deadline_ms;
    bool grpc, serve;
};
extern struct options options;
extern struct requests requests;

/* ---- the responder (serve.c): answers at once, whatever it is sent; what the generator can do against no work ---- */
_Noreturn void serve(void);

/* HTTP/1 heads, for both sides: the size of the head with its blank line, or 0 if it is not whole. */
size_t head_size(const uint8_t *bytes, size_t length);
/* The value of a header as a number, -1 if it is not there. `name` is lower case and ends with a colon. */
long long header_number(const uint8_t *head, size_t length, const char *name);
bool header_has(const uint8_t *head, size_t length, const char *name, const char *value);

/* HTTP/2 frames, for both sides (RFC 9113, section 4.1). */
enum { FRAME_DATA, FRAME_HEADERS, FRAME_RST_STREAM = 3, FRAME_SETTINGS, FRAME_PING = 6, FRAME_GOAWAY, FRAME_WINDOW_UPDATE };
enum { FLAG_ACK = 1, FLAG_END_STREAM = 1, FLAG_END_HEADERS = 4, FLAG_PADDED = 8 };
enum { FRAME_HEAD = 9, SETTING_INITIAL_WINDOW = 4, SETTING_MAX_FRAME = 5, DEFAULT_WINDOW = 65535, DEFAULT_FRAME = 16384 };
struct frame {
    uint32_t length, stream;
    uint8_t type, flags;
    const uint8_t *payload;
};
/* The first frame of `in`; false if it is not whole. It stays in the buffer. */
bool frame_read(const struct buffer *in, struct frame *frame);
void frame_add_head(struct buffer *out, uint32_t length, uint8_t type, uint8_t flags, uint32_t stream);
void frame_add_window(struct buffer *out, uint32_t stream, uint32_t more);
static inline uint32_t big_endian(const uint8_t *bytes) {
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}
#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
enum { PREFACE_SIZE = sizeof PREFACE - 1 };

#endif
