/* Buffers, the request file, the histogram. */
#include "load.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

static const size_t MAX_BUFFER = 256u << 20;

void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(2);
}

uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

uint8_t *buffer_reserve(struct buffer *buffer, size_t more) {
    if (buffer->start && buffer->end + more > buffer->capacity) {
        memmove(buffer->data, buffer->data + buffer->start, buffer_size(buffer));
        buffer->end -= buffer->start;
        buffer->start = 0;
    }
    if (buffer->end + more > buffer->capacity) {
        size_t capacity = buffer->capacity ? buffer->capacity : 4096;
        while (capacity < buffer->end + more) capacity *= 2;
        if (capacity > MAX_BUFFER) fail("a message is larger than %zu bytes", MAX_BUFFER);
        buffer->data = realloc(buffer->data, capacity);
        if (!buffer->data) fail("out of memory");
        buffer->capacity = capacity;
    }
    return buffer->data + buffer->end;
}

void buffer_add(struct buffer *buffer, const void *bytes, size_t length) {
    memcpy(buffer_reserve(buffer, length), bytes, length);
    buffer->end += length;
}

void buffer_take(struct buffer *buffer, size_t length) {
    buffer->start += length;
    if (buffer->start == buffer->end) buffer->start = buffer->end = 0;
}

/* "SLUICE01", u32 requests, u32 segments, u32 end of each request in segments (padded to 8 bytes),
 * {u64 offset, u64 length} of each segment in the bytes that follow. Little endian. */
void requests_open(struct requests *opened, const char *path) {
    int fd = open(path, O_RDONLY);
    struct stat status;
    if (fd < 0 || fstat(fd, &status)) fail("cannot read %s", path);
    size_t size = (size_t)status.st_size;
    const uint8_t *file = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (file == MAP_FAILED || size < 16 || memcmp(file, "SLUICE01", 8)) fail("%s is not a file of requests", path);
    uint32_t counts[2];
    memcpy(counts, file + 8, sizeof counts);
    size_t ends_size = ((size_t)counts[0] * 4 + 7) / 8 * 8, head = 16 + ends_size + (size_t)counts[1] * 16;
    if (!counts[0] || head > size) fail("%s is truncated", path);
    opened->count = counts[0];
    opened->ends = (const uint32_t *)(file + 16);
    opened->segments = (const struct segment *)(file + 16 + ends_size);
    opened->bytes = file + head;
    for (uint32_t i = 0; i < counts[0]; i++)
        if (opened->ends[i] > counts[1] || (i && opened->ends[i] < opened->ends[i - 1])) fail("%s is damaged", path);
    for (uint32_t i = 0; i < counts[1]; i++)
        if (opened->segments[i].offset + opened->segments[i].length > size - head) fail("%s is truncated", path);
}

static uint32_t first_segment(const struct requests *from, uint32_t request) {
    return request ? from->ends[request - 1] : 0;
}

size_t request_size(const struct requests *from, uint32_t request) {
    size_t size = 0;
    for (uint32_t i = first_segment(from, request); i < from->ends[request]; i++) size += from->segments[i].length;
    return size;
}

void request_copy(const struct requests *from, uint32_t request, size_t skip, size_t length, struct buffer *to) {
    for (uint32_t i = first_segment(from, request); length && i < from->ends[request]; i++) {
        struct segment segment = from->segments[i];
        if (skip >= segment.length) {
            skip -= segment.length;
            continue;
        }
        size_t part = segment.length - skip < length ? segment.length - skip : length;
        buffer_add(to, from->bytes + segment.offset + skip, part);
        length -= part;
        skip = 0;
    }
}

/* Values below 2^SUB_BITS are exact; above, each power of two has 2^SUB_BITS slots. */
void histogram_add(struct histogram *histogram, uint64_t value) {
    unsigned shift = 0;
    if (value >> SUB_BITS) shift = 63u - (unsigned)__builtin_clzll(value) - SUB_BITS + 1;
    size_t slot = ((size_t)shift << (SUB_BITS - 1)) + (value >> shift);
    if (slot >= HISTOGRAM_SLOTS) slot = HISTOGRAM_SLOTS - 1;
    histogram->slots[slot]++;
    histogram->count++;
    histogram->sum += value;
    if (value > histogram->max) histogram->max = value;
}

uint64_t histogram_quantile(const struct histogram *histogram, double quantile) {
    uint64_t rank = (uint64_t)(quantile * (double)histogram->count), seen = 0;
    for (size_t slot = 0; slot < HISTOGRAM_SLOTS; slot++) {
        seen += histogram->slots[slot];
        if (seen > rank) {
            if (slot < (1u << SUB_BITS)) return slot;
            unsigned shift = (unsigned)(slot >> (SUB_BITS - 1)) - 1;
            uint64_t mantissa = slot - ((size_t)shift << (SUB_BITS - 1));
            return (mantissa << shift) + ((1ull << shift) >> 1);
        }
    }
    return histogram->max;
}
