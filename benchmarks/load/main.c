/* A load generator for HTTP/1.1 and unary gRPC: one thread, epoll, loopback; its result is one JSON object on stdout.
 *
 * Closed loop: each connection has its next request sent as soon as it has its answer.
 * Open loop (--rate): requests are due at fixed times, whatever the answers do; latency counts from when a request was
 * due, so a wait for a free connection is part of it; what has no connection before its deadline is not sent. */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct options options = {.host = "127.0.0.1", .connections = 1, .streams = 1, .seconds = 5, .warm_up = 1, .answer_bytes = 100, .grace = 10};
struct requests requests;

enum { READ_SIZE = 256 << 10, STATUSES = 600, MAX_FAILURES = 10000 };

static struct {
    const struct protocol *protocol;
    struct connection *connections, **idle; /* idle: open loop, one entry for each free stream */
    int idle_count, poller, timer, dumped;
    uint32_t next_request;
    uint64_t start, measured, end; /* answers count from `measured` on */
    uint64_t due, in_flight;       /* due: open loop, requests sent so far */
    uint64_t errors, failures, in_time, unsent, statuses[STATUSES];
    struct histogram good, refused;
    FILE *dump;
} load;

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void dump_answer(uint32_t request, const struct answer *answer) {
    uint32_t head[4] = {request, (uint32_t)answer->status, (uint32_t)answer->head_length, (uint32_t)answer->body_length};
    fwrite(head, sizeof head, 1, load.dump);
    fwrite(answer->head, 1, answer->head_length, load.dump);
    fwrite(answer->body, 1, answer->body_length, load.dump);
    load.dumped++;
}

static void count(const struct stream *stream, const struct answer *answer, uint64_t now) {
    /* An open loop owes an account of what was due; a closed one of what came back. */
    uint64_t moment = options.rate > 0 ? stream->started : now;
    if (moment < load.measured || moment > load.end) return;
    uint64_t took = now - stream->started;
    bool good = answer->status >= 200 && answer->status < 300;
    load.statuses[answer->status < STATUSES ? answer->status : STATUSES - 1]++;
    histogram_add(good ? &load.good : &load.refused, took);
    if (good && (options.deadline_ms <= 0 || (double)took <= options.deadline_ms * 1e6)) load.in_time++;
    if (load.dump && load.dumped < options.dump_count) dump_answer(stream->request, answer);
}

static void begin(struct connection *connection, struct stream *stream, uint64_t started) {
    stream->busy = true;
    stream->started = started;
    stream->request = load.next_request;
    load.next_request = load.next_request + 1 == requests.count ? 0 : load.next_request + 1;
    connection->busy++;
    load.in_flight++;
    load.protocol->send(connection, stream);
}

void answered(struct connection *connection, struct stream *stream, const struct answer *answer) {
    uint64_t now = now_ns();
    count(stream, answer, now);
    stream->busy = false;
    connection->busy--;
    load.in_flight--;
    if (options.rate > 0) {
        if (!connection->closing) load.idle[load.idle_count++] = connection;
    } else if (!connection->closing && now < load.end) {
        begin(connection, stream, now);
    }
}

static void watch(struct connection *connection, int operation, bool writing) {
    struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0u), .data.ptr = connection};
    if (epoll_ctl(load.poller, operation, connection->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
    connection->writing = writing;
}

static void reopen(struct connection *connection);

static void flush(struct connection *connection) {
    while (buffer_size(&connection->out)) {
        ssize_t sent = send(connection->fd, buffer_head(&connection->out), buffer_size(&connection->out), MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) break;
        if (sent < 0) {
            reopen(connection);
            return;
        }
        buffer_take(&connection->out, (size_t)sent);
    }
    bool writing = buffer_size(&connection->out) > 0;
    if (writing != connection->writing) watch(connection, EPOLL_CTL_MOD, writing);
}

static void connected(struct connection *connection) {
    connection->connecting = false;
    load.protocol->opened(connection);
    uint64_t now = now_ns();
    for (int i = 0; i < options.streams; i++) {
        if (options.rate > 0) load.idle[load.idle_count++] = connection;
        else if (now < load.end) begin(connection, &connection->streams[i], now);
    }
    flush(connection);
}

static void open_connection(struct connection *connection) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    if (inet_pton(AF_INET, options.host, &address.sin_addr) != 1) fail("%s is not an IPv4 address", options.host);
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->fd < 0) fail("socket: %s", strerror(errno));
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    connection->connecting = true;
    connection->closing = false;
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        fail("cannot connect to %s:%d: %s", options.host, options.port, strerror(errno));
    watch(connection, EPOLL_CTL_ADD, true);
}

/* The connection is lost or at its end: what was in flight on it is an error, and another takes its place. */
static void reopen(struct connection *connection) {
    int kept = 0;
    for (int i = 0; i < load.idle_count; i++)
        if (load.idle[i] != connection) load.idle[kept++] = load.idle[i];
    load.idle_count = kept;
    load.errors += connection->busy;
    load.in_flight -= connection->busy;
    for (int i = 0; i < options.streams; i++) connection->streams[i].busy = false;
    connection->busy = 0;
    close(connection->fd);
    connection->in.start = connection->in.end = connection->out.start = connection->out.end = 0;
    if (!connection->closing && ++load.failures > MAX_FAILURES) fail("%d connections were lost", MAX_FAILURES);
    open_connection(connection);
}

static void readable(struct connection *connection) {
    uint8_t *space = buffer_reserve(&connection->in, READ_SIZE);
    ssize_t length = recv(connection->fd, space, READ_SIZE, 0);
    if (length < 0 && errno == EAGAIN) return;
    if (length > 0) connection->in.end += (size_t)length;
    if (length <= 0 || !load.protocol->read(connection)) reopen(connection);
    else flush(connection);
}

static void ready(struct connection *connection, uint32_t events) {
    if (connection->connecting) {
        int error = 0;
        getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof error});
        if (error) fail("cannot connect to %s:%d: %s", options.host, options.port, strerror(error));
        if (events & EPOLLOUT) connected(connection);
        return;
    }
    if (events & EPOLLOUT) flush(connection);
    if (connection->connecting) return; /* it was lost while it was written to */
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(connection);
}

/* Sends what is due and has a connection; arms the timer for the next one. */
static void send_due(void) {
    double interval = 1e9 / options.rate;
    uint64_t now = now_ns(), next;
    while ((next = load.start + (uint64_t)((double)load.due * interval)) <= now && next <= load.end) {
        if (options.deadline_ms > 0 && (double)(now - next) > options.deadline_ms * 1e6) {
            load.due++; /* nobody sends what is too late already */
            if (next >= load.measured) load.unsent++;
            continue;
        }
        if (!load.idle_count) break;
        struct connection *connection = load.idle[--load.idle_count];
        for (int i = 0; i < options.streams; i++) {
            if (connection->streams[i].busy) continue;
            begin(connection, &connection->streams[i], next);
            break;
        }
        load.due++;
        flush(connection);
    }
    if (next <= now) return; /* the next connection that becomes free sends it */
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(next / 1000000000u), .tv_nsec = (long)(next % 1000000000u)}};
    timerfd_settime(load.timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static int wait_ms(uint64_t until) {
    uint64_t now = now_ns();
    return now >= until ? 0 : (int)((until - now) / 1000000u) + 1;
}

/* Requests in flight at the end are waited for: left behind, they would be the next run's burden. */
static uint64_t grace_ns(void) { return (uint64_t)(options.grace * 1e9); }

static bool running(uint64_t now) {
    if (now < load.end) return true;
    return load.in_flight && now < load.end + grace_ns();
}

static double run(void) {
    struct epoll_event events[512];
    double cpu = -1;
    load.start = now_ns();
    load.measured = load.start + (uint64_t)(options.warm_up * 1e9);
    load.end = load.measured + (uint64_t)(options.seconds * 1e9);
    for (int i = 0; i < options.connections; i++) open_connection(&load.connections[i]);
    for (uint64_t now = load.start; running(now); now = now_ns()) {
        if (cpu < 0 && now >= load.measured) cpu = cpu_seconds();
        uint64_t until = cpu < 0 ? load.measured : now < load.end ? load.end : load.end + grace_ns();
        int count = epoll_wait(load.poller, events, 512, wait_ms(until));
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr) ready(events[i].data.ptr, events[i].events);
            else if (read(load.timer, &(uint64_t){0}, 8) < 0 && errno != EAGAIN) fail("timer: %s", strerror(errno));
        }
        if (options.rate > 0) send_due();
    }
    if (options.rate > 0) {
        load.errors += load.in_flight;
        double due = (options.seconds + options.warm_up) * options.rate;
        if (due > (double)load.due) load.unsent += (uint64_t)(due - (double)load.due);
    }
    return cpu_seconds() - cpu;
}

static void print_histogram(const char *name, const struct histogram *histogram) {
    double mean = histogram->count ? (double)histogram->sum / (double)histogram->count : 0;
    printf("\"%s\": {\"count\": %llu, \"mean\": %.4f, \"p50\": %.4f, \"p90\": %.4f, \"p99\": %.4f, \"max\": %.4f}, ", name,
           (unsigned long long)histogram->count, mean / 1e6, (double)histogram_quantile(histogram, 0.5) / 1e6,
           (double)histogram_quantile(histogram, 0.9) / 1e6, (double)histogram_quantile(histogram, 0.99) / 1e6,
           (double)histogram->max / 1e6);
}

static void report(double cpu) {
    printf("{\"seconds\": %.3f, \"answers_per_second\": %.2f, \"in_time_per_second\": %.2f, ", options.seconds,
           (double)load.good.count / options.seconds, (double)load.in_time / options.seconds);
    print_histogram("good_ms", &load.good);
    print_histogram("refused_ms", &load.refused);
    printf("\"errors\": %llu, \"reconnects\": %llu, \"unsent\": %llu, \"generator_cpu\": %.3f, \"statuses\": {",
           (unsigned long long)load.errors, (unsigned long long)load.failures, (unsigned long long)load.unsent,
           cpu / options.seconds);
    const char *comma = "";
    for (int i = 0; i < STATUSES; i++) {
        if (!load.statuses[i]) continue;
        printf("%s\"%d\": %llu", comma, i, (unsigned long long)load.statuses[i]);
        comma = ", ";
    }
    puts("}}");
}

static const char USAGE[] =
    "load --port P --requests FILE [--host 127.0.0.1] [--connections N] [--seconds S] [--warm-up S] [--grace S]\n"
    "     [--grpc --path /package.Service/Method [--streams N] [--timeout 250m]]\n"
    "     [--rate PER_SECOND [--deadline-ms MS]] [--dump FILE --dump-count K]\n"
    "load --serve --port P [--answer-bytes N]   answers at once, HTTP/1.1 and gRPC\n";

static const struct option KNOWN[] = {
    {"host", 1, 0, 'h'},    {"port", 1, 0, 'p'},    {"requests", 1, 0, 'r'},    {"connections", 1, 0, 'c'},
    {"seconds", 1, 0, 's'}, {"warm-up", 1, 0, 'w'}, {"grpc", 0, 0, 'g'},        {"path", 1, 0, 'a'},
    {"streams", 1, 0, 'm'}, {"timeout", 1, 0, 't'}, {"rate", 1, 0, 'R'},        {"deadline-ms", 1, 0, 'd'},
    {"dump", 1, 0, 'D'},    {"serve", 0, 0, 'S'},   {"answer-bytes", 1, 0, 'b'}, {"dump-count", 1, 0, 'k'},
    {"grace", 1, 0, 'G'},
    {0, 0, 0, 0},
};

static void parse(int count, char **arguments) {
    for (int option; (option = getopt_long(count, arguments, "", KNOWN, NULL)) != -1;) switch (option) {
        case 'h': options.host = optarg; break;
        case 'p': options.port = atoi(optarg); break;
        case 'r': options.requests = optarg; break;
        case 'c': options.connections = atoi(optarg); break;
        case 's': options.seconds = atof(optarg); break;
        case 'w': options.warm_up = atof(optarg); break;
        case 'G': options.grace = atof(optarg); break;
        case 'g': options.grpc = true; break;
        case 'a': options.path = optarg; break;
        case 'm': options.streams = atoi(optarg); break;
        case 't': options.timeout = optarg; break;
        case 'R': options.rate = atof(optarg); break;
        case 'd': options.deadline_ms = atof(optarg); break;
        case 'D': options.dump = optarg; break;
        case 'k': options.dump_count = atoi(optarg); break;
        case 'S': options.serve = true; break;
        case 'b': options.answer_bytes = atoi(optarg); break;
        default: fail("what it takes:\n%s", USAGE);
    }
    bool whole = options.port > 0 && options.port < 65536 && (options.serve || options.requests);
    if (!whole || optind < count || (options.grpc && !options.path)) fail("what it takes:\n%s", USAGE);
    if (options.connections < 1 || options.connections > 20000) fail("--connections: 1 to 20000");
    if (options.streams < 1 || options.streams > (options.grpc ? MAX_STREAMS : 1)) fail("--streams: 1 to %d, gRPC only", MAX_STREAMS);
    if (options.seconds <= 0 || options.warm_up < 0 || options.rate < 0) fail("times and rates are positive");
    if (options.answer_bytes < 0 || options.answer_bytes > 16000) fail("--answer-bytes: 0 to 16000");
}

int main(int count, char **arguments) {
    parse(count, arguments);
    signal(SIGPIPE, SIG_IGN);
    if (options.serve) serve();
    requests_open(&requests, options.requests);
    load.protocol = options.grpc ? &grpc : &http1;
    load.connections = calloc((size_t)options.connections, sizeof *load.connections);
    load.idle = calloc((size_t)(options.connections * options.streams), sizeof *load.idle);
    if (!load.connections || !load.idle) fail("out of memory");
    if (options.dump && !(load.dump = fopen(options.dump, "wb"))) fail("cannot write %s", options.dump);
    load.poller = epoll_create1(EPOLL_CLOEXEC);
    load.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(load.poller, EPOLL_CTL_ADD, load.timer, &event);
    double cpu = run();
    if (load.dump && fclose(load.dump)) fail("cannot write %s", options.dump);
    report(cpu);
    return 0;
}
