// The frames of a batch into its input tensor: planar YUV to RGB of float16 or float32, in planes or packed, bilinear,
// with padding and masks. The arithmetic is that of `backend/planar.rs`: whole numbers, of 8 bits down a column and 14
// along a row, up to the conversion to RGB.
//
// A block writes a tile of the input. First its threads work out which source pixels the tile's columns and rows are
// made of, since that takes divisions; then each writes a pair of pixels in several rows, neighbours beside neighbours, so
// that both what a warp reads and what it writes lies together. It is instructions that it waits for, not memory: what is
// the same for a whole tile is asked once.

enum {
    TILE_WIDTH = 128,
    TILE_HEIGHT = 32,
    LETTERBOX_THREADS = 256,
    // So many blocks at least that a multiprocessor has registers for: fewer leave it waiting.
    LETTERBOX_BLOCKS = 4,
    // Pairs of pixels in a row of the tile, and rows that a block writes at a time.
    PAIRS = TILE_WIDTH / 2,
    ROWS = LETTERBOX_THREADS / PAIRS,
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
    // A pixel's three values lie side by side and have a zero behind them; of float16.
    u32 packed;
};

static_assert(sizeof(LetterboxArgs) == 72, "LetterboxArgs has 72 bytes");

// The first of two neighbouring source pixels, and the second one's weight.
struct Tap {
    u32 index;
    u32 weight;
};

// Two neighbouring source rows: where the first begins, bytes from there to the second, and the second one's weight.
struct Line {
    const u8 *first;
    u32 step;
    u32 weight;
};

struct Tile {
    Tap luma_x[TILE_WIDTH];
    Tap chroma_x[TILE_WIDTH];
    Line y[TILE_HEIGHT];
    Line u[TILE_HEIGHT];
    Line v[TILE_HEIGHT];
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

DEVICE Line line_of(const u8 *plane, u32 stride, Tap tap) {
    // The only row of a plane has no neighbour, and its weight is 0.
    return Line{plane + (u64)tap.index * stride, tap.weight ? stride : 0, tap.weight};
}

// Thread `thread` of a block works out its share of the tile that begins at `left`, `top`. Returns whether there is luma
// that is made of more than one pixel: at 3 to 1, say, there is none.
DEVICE bool prepare(const Lane &lane, Tile &tile, u32 left, u32 top, u32 thread) {
    const u32 half_width = (lane.width + 1) / 2, half_height = (lane.height + 1) / 2;
    bool blends = false;
    for (u32 at = thread; at < 2 * TILE_WIDTH; at += LETTERBOX_THREADS) {
        const u32 column = at % TILE_WIDTH;
        // Columns of the padding wrap around to huge numbers. They are read as the first is, and not shown.
        const u32 x = left + column - lane.pad_x;
        const u32 shown = x < lane.picture_width ? x : 0;
        if (at < TILE_WIDTH) {
            tile.luma_x[column] = tap(shown, lane.picture_width, lane.width, lane.width, 1, COLUMN_ONE);
            blends |= tile.luma_x[column].weight != 0;
        } else {
            tile.chroma_x[column] = tap(shown, lane.picture_width, half_width, lane.width, 2, COLUMN_ONE);
        }
    }
    const u32 row = thread % TILE_HEIGHT;
    const u32 y = top + row - lane.pad_y;
    if (y < lane.picture_height && thread < 2 * TILE_HEIGHT) {
        if (thread < TILE_HEIGHT) {
            const Tap luma = tap(y, lane.picture_height, lane.height, lane.height, 1, ROW_ONE);
            tile.y[row] = line_of(lane.planes[0], lane.strides[0], luma);
            blends |= luma.weight != 0;
        } else {
            const Tap chroma = tap(y, lane.picture_height, half_height, lane.height, 2, ROW_ONE);
            tile.u[row] = line_of(lane.planes[1], lane.strides[1], chroma);
            tile.v[row] = lane.nv12 ? line_of(lane.planes[1] + 1, lane.strides[1], chroma)
                                    : line_of(lane.planes[2], lane.strides[2], chroma);
        }
    }
    return blends;
}

// Two neighbours down a column, as 8.8 bits.
DEVICE u32 blend(u32 above, u32 below, u32 weight) { return above * (ROW_ONE - weight) + below * weight; }

// Two neighbours of 8.8 bits along a row, as 8.22 bits.
DEVICE float mix(u32 left, u32 right, u32 weight) {
    return (float)(int)(left * (COLUMN_ONE - weight) + right * weight);
}

// What is the same for a tile and decides what is read. PAIRED: U and V lie side by side, are read as one, and no plane is
// but a pixel wide. BLENDS: luma is made of several pixels.
template <bool PAIRED> DEVICE u32 next_of(Tap tap) { return PAIRED || tap.weight ? 1 : 0; }

template <bool PAIRED, bool BLENDS> DEVICE float luma_at(const Line &line, Tap tap) {
    const u8 *at = line.first + tap.index;
    if (!BLENDS) {
        return (float)(int)(load(at) * (u32)(ROW_ONE * COLUMN_ONE));
    }
    const u8 *below = at + line.step;
    const u32 next = next_of<PAIRED>(tap);
    const u32 left = blend(load(at), load(below), line.weight);
    return mix(left, blend(load(at + next), load(below + next), line.weight), tap.weight);
}

// U in the lower half, V in the upper; both blends at once: neither half overflows.
template <bool PAIRED> DEVICE u32 chroma_column(const u8 *u, const u8 *v, u32 u_step, u32 v_step, u32 weight) {
    if (PAIRED) {
        const u32 above = load((const u16 *)u), below = load((const u16 *)(u + u_step));
        return blend(apart(above), apart(below), weight);
    }
    return blend(load(u) | (u32)load(v) << 16, load(u + u_step) | (u32)load(v + v_step) << 16, weight);
}

// Red, green and blue, 0..255, of which `factors` are for 8.22 bits.
template <bool PAIRED, bool BLENDS>
DEVICE void pixel(const Tile &tile, u32 row, u32 bytes, const float factors[3][4], Tap luma, Tap chroma, float rgb[3]) {
    const float y = luma_at<PAIRED, BLENDS>(tile.y[row], luma);
    const Line u_line = tile.u[row];
    const u32 index = chroma.index * bytes, next = next_of<PAIRED>(chroma) * bytes, weight = u_line.weight;
    const u8 *u_at = u_line.first + index, *v_at = u_at;
    u32 v_step = 0;
    if (!PAIRED) {
        v_at = tile.v[row].first + index;
        v_step = tile.v[row].step;
    }
    const u32 left = chroma_column<PAIRED>(u_at, v_at, u_line.step, v_step, weight);
    const u32 right = chroma_column<PAIRED>(u_at + next, v_at + next, u_line.step, v_step, weight);
    const float u = mix(left & 0xffff, right & 0xffff, chroma.weight);
    const float v = mix(left >> 16, right >> 16, chroma.weight);
#pragma unroll
    for (u32 colour = 0; colour < 3; colour++) {
        const float sum = factors[colour][0] * y + factors[colour][1] * u + factors[colour][2] * v + factors[colour][3];
        rgb[colour] = fminf(fmaxf(sum, 0.0f), 255.0f);
    }
}

// Writes two neighbouring pixels, their values side by side; the second may lie beyond the row.
DEVICE void store_packed(const LetterboxArgs &args, u8 *at, u32 x, const float values[3][2]) {
    u32 words[4];
#pragma unroll
    for (u32 each = 0; each < 2; each++) {
        words[2 * each] = to_half(values[0][each]) | (u32)to_half(values[1][each]) << 16;
        words[2 * each + 1] = to_half(values[2][each]);
    }
    if (args.width % 2 == 0) {
        *(uint4 *)at = make_uint4(words[0], words[1], words[2], words[3]);
        return;
    }
    ((uint2 *)at)[0] = make_uint2(words[0], words[1]);
    if (x + 1 < args.width) {
        ((uint2 *)at)[1] = make_uint2(words[2], words[3]);
    }
}

// Writes two neighbouring pixels of each plane of the tensor; the second may lie beyond the row.
DEVICE void store(const LetterboxArgs &args, u8 *at, u64 plane_bytes, u32 x, const float values[3][2]) {
    const bool even = args.width % 2 == 0;
    if (even && args.half) {
#pragma unroll
        for (u32 plane = 0; plane < 3; plane++, at += plane_bytes) {
            *(u32 *)at = to_half(values[plane][0]) | (u32)to_half(values[plane][1]) << 16;
        }
        return;
    }
#pragma unroll
    for (u32 plane = 0; plane < 3; plane++, at += plane_bytes) {
        if (even) {
            *(float2 *)at = make_float2(values[plane][0], values[plane][1]);
            continue;
        }
        for (u32 each = 0; each < 2 && x + each < args.width; each++) {
            if (args.half) {
                ((u16 *)at)[each] = to_half(values[plane][each]);
            } else {
                ((float *)at)[each] = values[plane][each];
            }
        }
    }
}

// Thread `thread` of a block writes its share of the tile.
template <bool PAIRED, bool BLENDS>
DEVICE void draw(const LetterboxArgs &args, const Lane &lane, const Tile &tile, u32 lane_number, u32 left, u32 top, u32 thread) {
    const u32 column = 2 * (thread % PAIRS), x = left + column;
    if (x >= args.width) {
        return;
    }
    const Tap luma[2] = {tile.luma_x[column], tile.luma_x[column + 1]};
    const Tap chroma[2] = {tile.chroma_x[column], tile.chroma_x[column + 1]};
    const bool within[2] = {x - lane.pad_x < lane.picture_width, x + 1 - lane.pad_x < lane.picture_width};
    float factors[3][4];
#pragma unroll
    for (u32 colour = 0; colour < 3; colour++) {
#pragma unroll
        for (u32 of = 0; of < 4; of++) {
            factors[colour][of] = lane.rgb[colour][of] * (of < 3 ? 1.0f / ((float)ROW_ONE * COLUMN_ONE) : 1.0f);
        }
    }
    const u32 *mask = lane.mask;
    const u32 pad_y = lane.pad_y, picture_height = lane.picture_height, bytes = lane.nv12 ? 2 : 1;
    const bool padded = lane.padded;
    // Of a pixel, in a plane or packed.
    const u32 size = args.packed ? 8 : args.half ? 2 : 4;
    const u64 stride = (u64)args.width * size, plane_bytes = stride * args.height;
    u8 *out = (u8 *)args.out + (args.packed ? 1 : 3) * lane_number * plane_bytes + (top + thread / PAIRS) * stride + x * size;
    for (u32 row = thread / PAIRS; row < TILE_HEIGHT; row += ROWS, out += ROWS * stride) {
        const u32 y = top + row;
        if (y >= args.height) {
            return;
        }
        const bool inside = y - pad_y < picture_height;
        if (!inside && padded) {
            continue;
        }
        float rgb[2][3] = {};
        bool shown[2] = {false, false};
        if (inside) {
#pragma unroll
            for (u32 each = 0; each < 2; each++) {
                pixel<PAIRED, BLENDS>(tile, row, bytes, factors, luma[each], chroma[each], rgb[each]);
                shown[each] = within[each];
            }
            if (mask) {
                const u32 masked = load(mask + (u64)y * ((args.width + 31) / 32) + x / 32) >> x % 32;
                shown[0] = shown[0] && !(masked & 1);
                shown[1] = shown[1] && !(masked & 2);
            }
        }
        float values[3][2];
#pragma unroll
        for (u32 plane = 0; plane < 3; plane++) {
#pragma unroll
            for (u32 each = 0; each < 2; each++) {
                const float byte = args.bgr ? rgb[each][2 - plane] : rgb[each][plane];
                values[plane][each] = shown[each] ? byte * args.values[plane][0] + args.values[plane][1] : args.pads[plane];
            }
        }
        if (args.packed) {
            store_packed(args, out, x, values);
        } else {
            store(args, out, plane_bytes, x, values);
        }
    }
}

// Writes the tile, whose `blends` is what `prepare` said of any of its threads.
DEVICE void draw_tile(const LetterboxArgs &args, const Lane &lane, const Tile &tile, bool blends, u32 lane_number, u32 left, u32 top, u32 thread) {
    const bool paired = lane.nv12 && lane.width > 2 && (((u64)lane.planes[1] | lane.strides[1]) & 1) == 0;
    if (!paired) {
        draw<false, true>(args, lane, tile, lane_number, left, top, thread);
    } else if (blends) {
        draw<true, true>(args, lane, tile, lane_number, left, top, thread);
    } else {
        draw<true, false>(args, lane, tile, lane_number, left, top, thread);
    }
}

// Whether all rows from `top` on are padding that is there already.
DEVICE bool is_padded(const Lane &lane, u32 top) {
    return lane.padded && (top + TILE_HEIGHT <= lane.pad_y || top >= lane.pad_y + lane.picture_height);
}

#ifdef __CUDACC__
KERNEL __launch_bounds__(LETTERBOX_THREADS, LETTERBOX_BLOCKS) letterbox(const LetterboxArgs args) {
    __shared__ Tile tile;
    const Lane &lane = args.lanes[blockIdx.z];
    const u32 left = blockIdx.x * TILE_WIDTH, top = blockIdx.y * TILE_HEIGHT;
    if (!lane.used || is_padded(lane, top)) {
        return;
    }
    const bool blends = __syncthreads_or(prepare(lane, tile, left, top, threadIdx.x));
    draw_tile(args, lane, tile, blends, blockIdx.z, left, top, threadIdx.x);
}
#endif
