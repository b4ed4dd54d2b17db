// What all kernels share: names of types, the table of lanes, float16.
//
// Compiled by NVRTC for the GPU, without any header, and by a C++ compiler for the tests on the CPU (`host_tests`),
// where one thread is a whole warp.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef __CUDACC__
#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__
#define KERNEL extern "C" __global__ void
#define WARP 32u
#define FULL_WARP 0xffffffffu

// Reads what no kernel of the same launch writes: through the read-only cache, which the oldest GPUs need to be told.
template <class T> DEVICE T load(const T *at) { return __ldg(at); }

// float16 by instruction: its header is not on every machine.
DEVICE float from_half(u16 bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

DEVICE u16 to_half(float value) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

// The next `keep` slots of a counter, one for each thread of the warp that wants one: one atomic a warp. All threads of
// a warp must come here together and count on the same counter.
DEVICE u32 take_slot(u32 *counter, bool keep) {
    const u32 wanted = __ballot_sync(FULL_WARP, keep);
    if (wanted == 0) {
        return 0;
    }
    const u32 self = threadIdx.x % WARP;
    const u32 leader = __ffs(wanted) - 1;
    u32 first = 0;
    if (self == leader) {
        first = atomicAdd(counter, __popc(wanted));
    }
    return __shfl_sync(FULL_WARP, first, leader) + __popc(wanted & ((1u << self) - 1));
}

DEVICE void raise(u32 *to, u32 value) { atomicMax(to, value); }

// Two bytes as the lower halves of two 16-bit numbers.
DEVICE u32 apart(u32 pair) { return __byte_perm(pair, 0, 0x4140); }

// The sum over a warp, in its first thread.
DEVICE u32 warp_sum(u32 value) {
    for (u32 step = WARP / 2; step > 0; step /= 2) {
        value += __shfl_down_sync(FULL_WARP, value, step);
    }
    return value;
}

#define INFINITE __int_as_float(0x7f800000)
#endif

DEVICE bool finite(float value) { return value - value == 0.0f; }

// One lane of a batch; `LaneEntry` of letterbox.rs.
struct Lane {
    const u8 *planes[3];
    // One bit a pixel of the input, or null.
    const u32 *mask;
    u32 strides[3];
    u32 width, height;
    u32 nv12;
    u32 used;
    u32 pad_x, pad_y;
    u32 picture_width, picture_height;
    // For red, green and blue: factors of Y, U and V, and the constant.
    float rgb[3][4];
    // The padding of the input is there already.
    u32 padded;
};

static_assert(sizeof(Lane) == 128, "LaneEntry has 128 bytes");
