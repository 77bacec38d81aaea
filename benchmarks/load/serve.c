/* A responder that does nothing but answer: what remains is the cost of the generator and of the sockets. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct peer {
    int fd;
    bool http2, writing;
    size_t consumed; /* DATA of HTTP/2 since the last update of the connection's window */
    struct buffer in, out;
};

static struct buffer http1_answer, grpc_head, grpc_trailers;
static int poller;

static void prepare(void) {
    char head[200];
    int length = snprintf(head, sizeof head,
                          "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
                          options.answer_bytes);
    buffer_add(&http1_answer, head, (size_t)length);
    memset(buffer_reserve(&http1_answer, (size_t)options.answer_bytes), ' ', (size_t)options.answer_bytes);
    http1_answer.end += (size_t)options.answer_bytes;
    buffer_add(&grpc_head, "\x88\x0f\x10\x10" "application/grpc", 20);     /* :status 200, content-type */
    buffer_add(&grpc_trailers, "\x00\x0b" "grpc-status" "\x01" "0", 15);
}

static bool answer_http1(struct peer *peer) {
    for (;;) {
        size_t size = head_size(buffer_head(&peer->in), buffer_size(&peer->in));
        if (!size) return true;
        long long length = header_number(buffer_head(&peer->in), size, "content-length:");
        size_t whole = size + (size_t)(length > 0 ? length : 0);
        if (buffer_size(&peer->in) < whole) return true;
        buffer_take(&peer->in, whole);
        buffer_add(&peer->out, buffer_head(&http1_answer), buffer_size(&http1_answer));
    }
}

static void answer_stream(struct peer *peer, uint32_t stream) {
    frame_add_head(&peer->out, (uint32_t)grpc_head.end, FRAME_HEADERS, FLAG_END_HEADERS, stream);
    buffer_add(&peer->out, grpc_head.data, grpc_head.end);
    uint32_t size = (uint32_t)options.answer_bytes;
    uint8_t prefix[5] = {0, (uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size};
    frame_add_head(&peer->out, size + 5, FRAME_DATA, 0, stream);
    buffer_add(&peer->out, prefix, sizeof prefix);
    buffer_add(&peer->out, http1_answer.data + http1_answer.end - size, size);
    frame_add_head(&peer->out, (uint32_t)grpc_trailers.end, FRAME_HEADERS, FLAG_END_HEADERS | FLAG_END_STREAM, stream);
    buffer_add(&peer->out, grpc_trailers.data, grpc_trailers.end);
}

static bool answer_http2(struct peer *peer) {
    struct frame frame;
    while (frame_read(&peer->in, &frame)) {
        if (frame.type == FRAME_SETTINGS && !(frame.flags & FLAG_ACK))
            frame_add_head(&peer->out, 0, FRAME_SETTINGS, FLAG_ACK, 0);
        if (frame.type == FRAME_DATA) peer->consumed += frame.length;
        if (frame.type == FRAME_DATA && frame.flags & FLAG_END_STREAM) answer_stream(peer, frame.stream);
        buffer_take(&peer->in, FRAME_HEAD + frame.length);
    }
    if (peer->consumed > 1u << 20) {
        frame_add_window(&peer->out, 0, (uint32_t)peer->consumed);
        peer->consumed = 0;
    }
    return true;
}

static bool upgrade(struct peer *peer) {
    if (peer->http2 || buffer_size(&peer->in) < PREFACE_SIZE || memcmp(buffer_head(&peer->in), PREFACE, PREFACE_SIZE))
        return peer->http2;
    buffer_take(&peer->in, PREFACE_SIZE);
    frame_add_head(&peer->out, 12, FRAME_SETTINGS, 0, 0);
    uint8_t settings[12] = {0, SETTING_INITIAL_WINDOW, 0x40, 0, 0, 0, 0, SETTING_MAX_FRAME, 0, 0x10, 0, 0};
    buffer_add(&peer->out, settings, sizeof settings);
    frame_add_window(&peer->out, 0, 1u << 30);
    return peer->http2 = true;
}

static bool peer_flush(struct peer *peer) {
    while (buffer_size(&peer->out)) {
        ssize_t sent = send(peer->fd, buffer_head(&peer->out), buffer_size(&peer->out), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN) return false;
        if (sent < 0) break;
        buffer_take(&peer->out, (size_t)sent);
    }
    bool writing = buffer_size(&peer->out) > 0;
    if (writing != peer->writing) {
        struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0u), .data.ptr = peer};
        epoll_ctl(poller, EPOLL_CTL_MOD, peer->fd, &event);
        peer->writing = writing;
    }
    return true;
}

static bool peer_ready(struct peer *peer) {
    uint8_t *space = buffer_reserve(&peer->in, 256u << 10);
    ssize_t length = recv(peer->fd, space, 256u << 10, MSG_DONTWAIT);
    if (length == 0 || (length < 0 && errno != EAGAIN)) return false;
    if (length > 0) peer->in.end += (size_t)length;
    bool more = length <= 0 || (upgrade(peer) ? answer_http2(peer) : answer_http1(peer));
    return more && peer_flush(peer);
}

static void accept_peer(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    struct peer *peer = calloc(1, sizeof *peer);
    if (!peer) fail("out of memory");
    peer->fd = fd;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

void serve(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024))
        fail("cannot listen on 127.0.0.1:%d", options.port);
    prepare();
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event own = {.events = EPOLLIN}, events[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &own);
    for (;;) {
        int ready = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            struct peer *peer = events[i].data.ptr;
            if (!peer) {
                accept_peer(listener);
            } else if (!peer_ready(peer)) {
                close(peer->fd);
                free(peer->in.data);
                free(peer->out.data);
                free(peer);
            }
        }
    }
}
