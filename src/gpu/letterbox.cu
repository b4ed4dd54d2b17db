// The frames of a batch into its input tensor: planar YUV to planar RGB of float16 or float32, bilinear, with padding
// and masks. The arithmetic is that of `backend/planar.rs`: whole numbers, of 8 bits down a column and 14 along a row,
// up to the conversion to RGB.
//
// A block writes a tile of the input. First its threads work out which source pixels the tile's columns and rows are
// made of, since that takes divisions; then each writes pairs of pixels, neighbours beside neighbours, so that both what
// a warp reads and what it writes lies together.

enum {
    TILE_WIDTH = 128,
    TILE_HEIGHT = 16,
    LETTERBOX_THREADS = 256,
    // Pixels that a warp writes at a time.
    PAIRS_WIDTH = 64,
    ROW_ONE = 1 << 8,
    COLUMN_ONE = 1 << 14
};

// `LetterboxArgs` of letterbox.rs.
struct LetterboxArgs {
    const Lane *lanes;
    void *out;
    u32 width, height;
    u32 half;
    u32 bgr;
    // For each plane of the tensor: factor and constant from 0..255.
    float values[3][2];
    float pads[3];
    u32 reserved;
};

static_assert(sizeof(LetterboxArgs) == 72, "LetterboxArgs has 72 bytes");

// The first of two neighbouring source pixels, and the second one's weight.
struct Tap {
    u32 index;
    u32 weight;
};

struct Tile {
    Tap luma_x[TILE_WIDTH];
    Tap chroma_x[TILE_WIDTH];
    Tap luma_y[TILE_HEIGHT];
    Tap chroma_y[TILE_HEIGHT];
};

// Where output pixel `at` of `count` lies in a plane of `length` pixels; `source / (halvings * count)` of them make one
// output pixel. Sides of up to 65,535 and 16,384 keep every product within 32 bits.
DEVICE Tap tap(u32 at, u32 count, u32 length, u32 source, u32 halvings, u32 one) {
    const u32 unit = 2 * halvings * count;
    const u32 doubled = (2 * at + 1) * source;
    const u32 centre = doubled > unit / 2 ? doubled - unit / 2 : 0;
    const u32 index = centre / unit;
    if (length == 1) {
        return Tap{0, 0};
    }
    if (index >= length - 1) {
        return Tap{length - 2, one};
    }
    return Tap{index, (2 * (centre - index * unit) * one + unit) / (2 * unit)};
}

// Thread `thread` of a block works out its share of the tile that begins at `left`, `top`.
DEVICE void prepare(const Lane &lane, Tile &tile, u32 left, u32 top, u32 thread) {
    const u32 half_width = (lane.width + 1) / 2, half_height = (lane.height + 1) / 2;
    const u32 column = thread % TILE_WIDTH;
    // Columns of the padding wrap around to huge numbers.
    const u32 x = left + column - lane.pad_x;
    if (x < lane.picture_width) {
        if (thread < TILE_WIDTH) {
            tile.luma_x[column] = tap(x, lane.picture_width, lane.width, lane.width, 1, COLUMN_ONE);
        } else {
            tile.chroma_x[column] = tap(x, lane.picture_width, half_width, lane.width, 2, COLUMN_ONE);
        }
    }
    const u32 row = thread % TILE_HEIGHT;
    const u32 y = top + row - lane.pad_y;
    if (y < lane.picture_height) {
        if (thread < TILE_HEIGHT) {
            tile.luma_y[row] = tap(y, lane.picture_height, lane.height, lane.height, 1, ROW_ONE);
        } else if (thread < 2 * TILE_HEIGHT) {
            tile.chroma_y[row] = tap(y, lane.picture_height, half_height, lane.height, 2, ROW_ONE);
        }
    }
}

// One row of the tile, ready to be sampled.
struct Row {
    const u8 *y[2];
    const u8 *u[2];
    const u8 *v[2];
    u32 luma_weight, chroma_weight;
    // U and V lie side by side and may be read as one.
    bool paired;
};

DEVICE Row row_of(const Lane &lane, Tap luma, Tap chroma) {
    Row row;
    row.luma_weight = luma.weight;
    row.chroma_weight = chroma.weight;
    row.y[0] = lane.planes[0] + (u64)luma.index * lane.strides[0];
    row.u[0] = lane.planes[1] + (u64)chroma.index * lane.strides[1];
    row.v[0] = lane.nv12 ? row.u[0] + 1 : lane.planes[2] + (u64)chroma.index * lane.strides[2];
    // The only row of a one-row picture has no neighbour, and its weight is 0.
    const u32 next = luma.weight ? 1 : 0, next_chroma = chroma.weight ? 1 : 0;
    row.y[1] = row.y[0] + next * lane.strides[0];
    row.u[1] = row.u[0] + next_chroma * lane.strides[1];
    row.v[1] = row.v[0] + next_chroma * (lane.nv12 ? lane.strides[1] : lane.strides[2]);
    row.paired = lane.nv12 && (((u64)lane.planes[1] | lane.strides[1]) & 1) == 0;
    return row;
}

// Two neighbours down a column, as 8.8 bits.
DEVICE u32 blend(u32 above, u32 below, u32 weight) { return above * (ROW_ONE - weight) + below * weight; }

// Two neighbours of 8.8 bits along a row, as 0..255.
DEVICE float mix(u32 left, u32 right, u32 weight) {
    return (float)(int)(left * (COLUMN_ONE - weight) + right * weight) * (1.0f / ((float)ROW_ONE * COLUMN_ONE));
}

DEVICE u32 luma_at(const Row &row, u32 x) {
    const u32 above = load(row.y[0] + x);
    return row.luma_weight ? blend(above, load(row.y[1] + x), row.luma_weight) : above * ROW_ONE;
}

// U in the lower half, V in the upper.
DEVICE u32 chroma_pair(const Row &row, u32 which, u32 x, u32 step) {
    if (row.paired) {
        const u32 both = load((const u16 *)row.u[which] + x);
        return (both & 0xff) | (both >> 8) << 16;
    }
    return load(row.u[which] + step * x) | (u32)load(row.v[which] + step * x) << 16;
}

// Both blends at once: neither half overflows.
DEVICE u32 chroma_at(const Row &row, u32 x, u32 step) {
    const u32 above = chroma_pair(row, 0, x, step);
    return row.chroma_weight ? blend(above, chroma_pair(row, 1, x, step), row.chroma_weight) : above * ROW_ONE;
}

// Red, green and blue, 0..255.
DEVICE void pixel(const Lane &lane, const Row &row, Tap luma, Tap chroma, float rgb[3]) {
    // A neighbour of no weight is not read: at 3 to 1, none is, and the only column of a plane has none.
    const u32 next = luma.weight ? luma_at(row, luma.index + 1) : 0;
    const float y = mix(luma_at(row, luma.index), next, luma.weight);
    const u32 step = lane.nv12 ? 2 : 1;
    const u32 left = chroma_at(row, chroma.index, step);
    const u32 right = chroma.weight ? chroma_at(row, chroma.index + 1, step) : 0;
    const float u = mix(left & 0xffff, right & 0xffff, chroma.weight);
    const float v = mix(left >> 16, right >> 16, chroma.weight);
#pragma unroll
    for (u32 colour = 0; colour < 3; colour++) {
        const float *factors = lane.rgb[colour];
        const float sum = factors[0] * y + factors[1] * u + factors[2] * v + factors[3];
        rgb[colour] = fminf(fmaxf(sum, 0.0f), 255.0f);
    }
}

// Writes two neighbouring pixels of a plane of the tensor; the second may lie beyond the row.
DEVICE void store(const LetterboxArgs &args, u64 at, u32 x, float first, float second) {
    if (args.width % 2 == 0) {
        if (args.half) {
            *(u32 *)((u16 *)args.out + at) = to_half(first) | (u32)to_half(second) << 16;
        } else {
            *(float2 *)((float *)args.out + at) = make_float2(first, second);
        }
        return;
    }
    for (u32 each = 0; each < 2 && x + each < args.width; each++) {
        const float value = each == 0 ? first : second;
        if (args.half) {
            ((u16 *)args.out)[at + each] = to_half(value);
        } else {
            ((float *)args.out)[at + each] = value;
        }
    }
}

// Pixels `x` and `x + 1` of a row of the input.
DEVICE void draw_pair(const LetterboxArgs &args, const Lane &lane, const Tile &tile, const Row &row, bool inside, u32 lane_number, u32 x, u32 y) {
    float values[2][3];
#pragma unroll
    for (u32 each = 0; each < 2; each++) {
        const u32 column = (x + each) % TILE_WIDTH;
        bool shown = inside && x + each - lane.pad_x < lane.picture_width;
        if (shown && lane.mask) {
            const u32 words = (args.width + 31) / 32;
            shown = !(load(lane.mask + (u64)y * words + (x + each) / 32) >> (x + each) % 32 & 1);
        }
        if (shown) {
            float rgb[3];
            pixel(lane, row, tile.luma_x[column], tile.chroma_x[column], rgb);
#pragma unroll
            for (u32 plane = 0; plane < 3; plane++) {
                const float byte = args.bgr ? rgb[2 - plane] : rgb[plane];
                values[each][plane] = byte * args.values[plane][0] + args.values[plane][1];
            }
        } else {
#pragma unroll
            for (u32 plane = 0; plane < 3; plane++) {
                values[each][plane] = args.pads[plane];
            }
        }
    }
    const u64 area = (u64)args.width * args.height;
    const u64 at = 3 * lane_number * area + (u64)y * args.width + x;
#pragma unroll
    for (u32 plane = 0; plane < 3; plane++) {
        store(args, at + plane * area, x, values[0][plane], values[1][plane]);
    }
}

// Thread `thread` of a block writes its share of the tile.
DEVICE void draw(const LetterboxArgs &args, const Lane &lane, const Tile &tile, u32 lane_number, u32 left, u32 top, u32 thread) {
    const u32 warps = LETTERBOX_THREADS / 32;
    for (u32 row_number = thread / 32; row_number < TILE_HEIGHT; row_number += warps) {
        const u32 y = top + row_number;
        if (y >= args.height) {
            return;
        }
        const bool inside = y - lane.pad_y < lane.picture_height;
        Row row;
        if (inside) {
            row = row_of(lane, tile.luma_y[row_number], tile.chroma_y[row_number]);
        }
        for (u32 from = 0; from < TILE_WIDTH; from += PAIRS_WIDTH) {
            const u32 x = left + from + 2 * (thread % 32);
            if (x < args.width) {
                draw_pair(args, lane, tile, row, inside, lane_number, x, y);
            }
        }
    }
}

#ifdef __CUDACC__
KERNEL __launch_bounds__(LETTERBOX_THREADS) letterbox(const LetterboxArgs args) {
    __shared__ Tile tile;
    const Lane &lane = args.lanes[blockIdx.z];
    if (!lane.used) {
        return;
    }
    const u32 left = blockIdx.x * TILE_WIDTH, top = blockIdx.y * TILE_HEIGHT;
    prepare(lane, tile, left, top, threadIdx.x);
    __syncthreads();
    draw(args, lane, tile, blockIdx.z, left, top, threadIdx.x);
}
#endif
