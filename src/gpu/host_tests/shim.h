// The kernels' sources as C++ for the CPU: what NVRTC brings by itself, in plain words. One thread is a whole warp, and
// every read is checked against the memory that the test has named.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#define DEVICE static inline
#define DEVICE_MEMBER inline
#define WARP 1u
#define INFINITE INFINITY
#define __align__(bytes) __attribute__((aligned(bytes)))

struct float2 {
    float x, y;
};

static inline float2 make_float2(float x, float y) { return float2{x, y}; }

struct uint2 {
    unsigned x, y;
};

static inline uint2 make_uint2(unsigned x, unsigned y) { return uint2{x, y}; }

struct uint4 {
    unsigned x, y, z, w;
};

static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return uint4{x, y, z, w}; }

// Memory that kernels may read: first address and length.
static std::vector<std::pair<uintptr_t, size_t>> readable;
static uint64_t bad_reads = 0;

template <class T> static inline T load(const T *at) {
    const uintptr_t from = (uintptr_t)at;
    for (const auto &range : readable) {
        if (from >= range.first && from + sizeof(T) <= range.first + range.second && from % alignof(T) == 0) {
            return *at;
        }
    }
    bad_reads++;
    return T();
}

static inline float from_half(unsigned short bits) {
    const uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 0) {
        const float value = std::ldexp((float)fraction, -24);
        return sign ? -value : value;
    }
    const uint32_t wide = sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
}

// To the nearest, ties to even.
static inline unsigned short to_half(float value) {
    uint32_t wide;
    std::memcpy(&wide, &value, sizeof wide);
    const uint32_t sign = wide >> 16 & 0x8000, magnitude = wide & 0x7fffffff;
    if (magnitude > 0x7f800000) {
        return sign | 0x7fff;
    }
    if (magnitude >= 0x477ff000) {
        return sign | 0x7c00;
    }
    if (magnitude < 0x38800000) {
        return sign | (uint32_t)std::nearbyint(std::ldexp(std::fabs(value), 24));
    }
    const uint32_t rebased = magnitude - 0x38000000;
    return sign | (rebased + 0xfff + (rebased >> 13 & 1)) >> 13;
}

static inline unsigned take_slot(unsigned *counter, bool keep) { return keep ? (*counter)++ : 0; }

static inline void raise(unsigned *to, unsigned value) {
    if (value > *to) {
        *to = value;
    }
}

static inline unsigned warp_sum(unsigned value) { return value; }

static inline unsigned apart(unsigned pair) { return (pair & 0xff) | pair >> 8 << 16; }
