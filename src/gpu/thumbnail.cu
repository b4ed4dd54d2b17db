// A frame in small, planar: each pixel is the mean of those it stands for, in whole pixels. `thumbnail/shrink.rs` has the same
// arithmetic on the CPU, bit for bit.
//
// Neighbouring threads of a warp write neighbouring pixels of a row, and read what lies beside each other.

enum { SMALL_WIDTH = 32, SMALL_HEIGHT = 8, MEAN_BITS = 24 };

// `ThumbnailArgs` of thumbnail.rs.
struct ThumbnailArgs {
    const Lane *lanes;
    // Y, U and V, one after the other without padding.
    u8 *out;
    u32 lane;
    // Of the thumbnail; neither is larger than the source's.
    u32 width, height;
    u32 reserved;
};

static_assert(sizeof(ThumbnailArgs) == 32, "ThumbnailArgs has 32 bytes");

// Columns and rows of a plane that one pixel stands for.
struct Share {
    u32 left, right, top, bottom;
};

// `step` is 2 where U and V lie side by side. Of more than 65,535 pixels the products would not fit: the largest sources, of
// 65,535 a side, have 103 x 103.
DEVICE u8 mean_of(const u8 *plane, u32 stride, u32 step, const Share &share) {
    u32 sum = 0;
    for (u32 row = share.top; row < share.bottom; row++) {
        const u8 *line = plane + (u64)row * stride;
        for (u32 column = share.left; column < share.right; column++) {
            sum += load(line + column * step);
        }
    }
    const u32 count = (share.right - share.left) * (share.bottom - share.top);
    const u32 inverse = ((1u << MEAN_BITS) + count / 2) / count;
    return (u8)((sum * inverse + (1u << (MEAN_BITS - 1))) >> MEAN_BITS);
}

// Pixel `x`, `y` of Y, or where `chroma` is 1, of both U and V.
DEVICE void shrink_pixel(const ThumbnailArgs &args, u32 chroma, u32 x, u32 y) {
    const Lane &lane = args.lanes[args.lane];
    const u32 width = (args.width + chroma) >> chroma, height = (args.height + chroma) >> chroma;
    const u32 from_width = (lane.width + chroma) >> chroma, from_height = (lane.height + chroma) >> chroma;
    if (x >= width || y >= height) {
        return;
    }
    const Share share = {x * from_width / width, (x + 1) * from_width / width, y * from_height / height,
                         (y + 1) * from_height / height};
    u8 *out = args.out + y * width + x;
    if (!chroma) {
        *out = mean_of(lane.planes[0], lane.strides[0], 1, share);
        return;
    }
    out += args.width * args.height;
    const u8 *v = lane.nv12 ? lane.planes[1] + 1 : lane.planes[2];
    const u32 step = lane.nv12 ? 2 : 1;
    out[0] = mean_of(lane.planes[1], lane.strides[1], step, share);
    out[width * height] = mean_of(v, lane.nv12 ? lane.strides[1] : lane.strides[2], step, share);
}

#ifdef __CUDACC__
KERNEL __launch_bounds__(SMALL_WIDTH * SMALL_HEIGHT) shrink(const ThumbnailArgs args) {
    const u32 x = blockIdx.x * SMALL_WIDTH + threadIdx.x % SMALL_WIDTH;
    const u32 y = blockIdx.y * SMALL_HEIGHT + threadIdx.x / SMALL_WIDTH;
    shrink_pixel(args, blockIdx.z, x, y);
}
#endif
