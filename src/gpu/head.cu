// The outputs of a model into candidates. The rules are those of `yolo/decode.rs`: a box has one class, its best, the
// first where two are equal; kept are boxes that reach the threshold, are finite and touch the picture within the
// letterbox. One thread a box; the order of what is kept is free.

enum { HEAD_THREADS = 256, HEAD_BOXES = 256 };

// What a tensor holds.
enum { F32 = 0, F16 = 1, I32 = 2, I64 = 3 };

// `GpuBox` of head.rs.
struct __align__(8) Box {
    float rect[4];
    float score;
    u32 category;
};

// `HeadArgs` of head.rs.
struct HeadArgs {
    const Lane *lanes;
    // Which is which depends on the kernel.
    const void *tensors[4];
    // Of each lane: boxes that were kept.
    u32 *counts;
    // Of each lane: the highest class without a label, and 1; 0 where there is none.
    u32 *unlabelled;
    Box *found;
    Box *overflow;
    u32 elements[4];
    u32 boxes, classes;
    u32 logits;
    u32 raw_grid;
    float confidence;
    // Raw scores below cannot reach `confidence`.
    float floor;
    float width, height;
    u32 grid_widths[3];
    u32 grid_cells[3];
};

static_assert(sizeof(Box) == 24, "GpuBox has 24 bytes");
static_assert(sizeof(HeadArgs) == 144, "HeadArgs has 144 bytes");

DEVICE float element(const float *tensor, u64 at) { return load(tensor + at); }
DEVICE float element(const u16 *tensor, u64 at) { return from_half(load(tensor + at)); }

// An element of a tensor of floating-point numbers.
DEVICE float real(const HeadArgs &args, u32 which, u64 at) {
    const void *tensor = args.tensors[which];
    return args.elements[which] == F16 ? element((const u16 *)tensor, at) : element((const float *)tensor, at);
}

// NaN stays: it passes no threshold.
DEVICE float probability(const HeadArgs &args, float raw) {
    if (args.logits) {
        return 1.0f / (1.0f + expf(-raw));
    }
    return raw < 0.0f ? 0.0f : raw > 1.0f ? 1.0f : raw;
}

// One thread's box on its way.
struct Candidate {
    bool keep;
    u32 category;
    float score;
    float rect[4];
};

DEVICE void corners(Candidate &out, float x, float y, float width, float height) {
    const float half_width = width / 2, half_height = height / 2;
    out.rect[0] = x - half_width;
    out.rect[1] = y - half_height;
    out.rect[2] = x + half_width;
    out.rect[3] = y + half_height;
}

// Writes what is kept. All threads of a warp come here together.
DEVICE void offer(const HeadArgs &args, u32 lane_number, Candidate &candidate) {
    bool keep = candidate.keep;
    const float *r = candidate.rect;
    if (keep) {
        const Lane &lane = args.lanes[lane_number];
        const float left = (float)lane.pad_x, top = (float)lane.pad_y;
        const float right = left + (float)lane.picture_width, bottom = top + (float)lane.picture_height;
        keep = fmaxf(r[0], left) < fminf(r[2], right) && fmaxf(r[1], top) < fminf(r[3], bottom) && finite(r[0]) &&
               finite(r[1]) && finite(r[2]) && finite(r[3]) && finite(candidate.score);
    }
    const u32 slot = take_slot(args.counts + lane_number, keep);
    if (!keep) {
        return;
    }
    const u32 capacity = args.boxes > HEAD_BOXES ? args.boxes - HEAD_BOXES : 0;
    Box *to;
    if (slot < HEAD_BOXES) {
        to = args.found + (u64)lane_number * HEAD_BOXES + slot;
    } else if (slot - HEAD_BOXES < capacity) {
        to = args.overflow + (u64)lane_number * capacity + (slot - HEAD_BOXES);
    } else {
        return;
    }
    for (u32 side = 0; side < 4; side++) {
        to->rect[side] = r[side];
    }
    to->score = candidate.score;
    to->category = candidate.category;
}

// The class of the best finite score and that score; false where none is finite.
template <class Scores> DEVICE bool best_class(u32 classes, const Scores &score, u32 &category, float &best) {
    bool any = false;
    for (u32 each = 0; each < classes; each++) {
        const float value = score(each);
        if (finite(value) && (!any || value > best)) {
            any = true;
            best = value;
            category = each;
        }
    }
    return any;
}

// Scores that lie `step` apart.
template <class T> struct Strided {
    const T *first;
    u64 step;
    DEVICE_MEMBER float operator()(u32 each) const { return element(first, each * step); }
};

// Scores of tensor `which` from `first` on.
struct InRow {
    const HeadArgs &args;
    u32 which;
    u64 first;
    DEVICE_MEMBER float operator()(u32 each) const { return real(args, which, first + each); }
};

// Centre and size in input pixels of a raw grid's box `index`.
DEVICE void off_grid(const HeadArgs &args, u32 index, float centre[4]) {
    for (u32 level = 0; level < 3; level++) {
        if (index < args.grid_cells[level]) {
            const float stride = (float)(8u << level);
            centre[0] = (centre[0] + (float)(index % args.grid_widths[level])) * stride;
            centre[1] = (centre[1] + (float)(index / args.grid_widths[level])) * stride;
            centre[2] = expf(centre[2]) * stride;
            centre[3] = expf(centre[3]) * stride;
            return;
        }
        index -= args.grid_cells[level];
    }
}

// `boxes x (5 + classes)`: YOLOv5, and YOLOX with its raw grid.
DEVICE void rows(const HeadArgs &args, u32 lane, u32 box, Candidate &out) {
    const u32 columns = args.classes + 5;
    const u64 row = ((u64)lane * args.boxes + box) * columns;
    // A class score is at most 1: objectness alone rules nearly every box out.
    const float object = real(args, 0, row + 4);
    float best;
    if (!(object >= args.floor) || !best_class(args.classes, InRow{args, 0, row + 5}, out.category, best)) {
        return;
    }
    out.score = probability(args, object) * probability(args, best);
    out.keep = out.score >= args.confidence;
    if (out.keep) {
        float centre[4];
        for (u32 each = 0; each < 4; each++) {
            centre[each] = real(args, 0, row + each);
        }
        if (args.raw_grid) {
            off_grid(args, box, centre);
        }
        corners(out, centre[0], centre[1], centre[2], centre[3]);
    }
}

// `(4 + classes) x boxes`: YOLOv8. Only the best score is looked for at first, many loads at a time; the class is looked
// up for survivors.
template <class T> DEVICE void planes(const HeadArgs &args, u32 lane, u32 box, Candidate &out) {
    const T *first = (const T *)args.tensors[0] + (u64)lane * (args.classes + 4) * args.boxes + box;
    const T *scores = first + 4 * (u64)args.boxes;
    float best = -INFINITE;
    const T *at = scores;
#pragma unroll 16
    for (u32 each = 0; each < args.classes; each++, at += args.boxes) {
        best = fmaxf(best, element(at, 0));
    }
    if (!(best >= args.floor) || !best_class(args.classes, Strided<T>{scores, args.boxes}, out.category, best)) {
        return;
    }
    out.score = probability(args, best);
    out.keep = out.score >= args.confidence;
    if (out.keep) {
        const u64 step = args.boxes;
        corners(out, element(first, 0), element(first, step), element(first, 2 * step), element(first, 3 * step));
    }
}

// A box that the model has selected and classified itself; a class that is negative or not a number is the padding of an
// unused row. `category` is a class number as the model gives it.
template <class Number> DEVICE void select(const HeadArgs &args, u32 lane, float raw, Number category, Candidate &out) {
    out.score = probability(args, raw);
    if (!finite(raw) || !(out.score >= args.confidence) || !(category >= 0)) {
        return;
    }
    if (category >= (Number)args.classes) {
        const Number most = (Number)0x7fffff00;
        raise(args.unlabelled + lane, (u32)(category < most ? category : most) + 1);
        return;
    }
    out.category = (u32)category;
    out.keep = true;
}

// The same for a class that comes as a floating-point number: the nearest whole one, away from 0.
DEVICE void select_real(const HeadArgs &args, u32 lane, float raw, float category, Candidate &out) {
    if (finite(category) && category >= 0.0f) {
        select<float>(args, lane, raw, roundf(category), out);
    }
}

// `boxes x 6`.
DEVICE void end_to_end(const HeadArgs &args, u32 lane, u32 box, Candidate &out) {
    const u64 row = ((u64)lane * args.boxes + box) * 6;
    const float raw = real(args, 0, row + 4);
    if (!(raw >= args.floor)) {
        return;
    }
    select_real(args, lane, raw, real(args, 0, row + 5), out);
    for (u32 side = 0; side < 4; side++) {
        out.rect[side] = real(args, 0, row + side);
    }
}

// How many of a lane's boxes are meant; negative and NaN are 0.
DEVICE u32 valid_boxes(const HeadArgs &args, u32 lane) {
    const void *counts = args.tensors[3];
    if (!counts) {
        return args.boxes;
    }
    if (args.elements[3] == I32) {
        const int count = load((const int *)counts + lane);
        return count < 0 ? 0 : (u32)count;
    }
    if (args.elements[3] == I64) {
        const long long count = load((const long long *)counts + lane);
        return count < 0 ? 0 : count > args.boxes ? args.boxes : (u32)count;
    }
    const float count = real(args, 3, lane);
    return !(count > 0.0f) ? 0 : count > (float)args.boxes ? args.boxes : (u32)count;
}

// Boxes (0), scores (1), classes (2) and perhaps their number (3) in tensors of their own.
DEVICE void selected(const HeadArgs &args, u32 lane, u32 box, Candidate &out) {
    const u64 at = (u64)lane * args.boxes + box;
    const float raw = real(args, 1, at);
    if (!(raw >= args.floor) || box >= valid_boxes(args, lane)) {
        return;
    }
    if (args.elements[2] == I32) {
        select<int>(args, lane, raw, load((const int *)args.tensors[2] + at), out);
    } else if (args.elements[2] == I64) {
        select<long long>(args, lane, raw, load((const long long *)args.tensors[2] + at), out);
    } else {
        select_real(args, lane, raw, real(args, 2, at), out);
    }
    for (u32 side = 0; side < 4; side++) {
        out.rect[side] = real(args, 0, 4 * at + side);
    }
}

// Logits (0) and boxes (1) of a DETR as trained: centre and size in 0..1.
DEVICE void queries(const HeadArgs &args, u32 lane, u32 box, Candidate &out) {
    const u64 at = (u64)lane * args.boxes + box;
    float best;
    if (!best_class(args.classes, InRow{args, 0, at * args.classes}, out.category, best)) {
        return;
    }
    out.score = probability(args, best);
    out.keep = out.score >= args.confidence;
    if (out.keep) {
        corners(out, real(args, 1, 4 * at) * args.width, real(args, 1, 4 * at + 1) * args.height,
                real(args, 1, 4 * at + 2) * args.width, real(args, 1, 4 * at + 3) * args.height);
    }
}

// Reads box `box` of a lane by one of the functions above and writes it. Threads beyond the last box go along.
#define READ_BOX(function, args, lane, box)                                                                            \
    do {                                                                                                               \
        Candidate candidate;                                                                                           \
        candidate.keep = false;                                                                                        \
        if ((box) < (args).boxes && (args).lanes[lane].used) {                                                         \
            function(args, lane, box, candidate);                                                                      \
        }                                                                                                              \
        offer(args, lane, candidate);                                                                                  \
    } while (false)

#ifdef __CUDACC__
#define HEAD_KERNEL(name, function)                                                                                    \
    KERNEL __launch_bounds__(HEAD_THREADS) name(const HeadArgs args) {                                                 \
        READ_BOX(function, args, blockIdx.y, blockIdx.x *HEAD_THREADS + threadIdx.x);                                  \
    }
#else
#define HEAD_KERNEL(name, function)                                                                                    \
    static void name(const HeadArgs &args, u32 lane, u32 box) { READ_BOX(function, args, lane, box); }
#endif

HEAD_KERNEL(head_rows, rows)
HEAD_KERNEL(head_planes_f32, planes<float>)
HEAD_KERNEL(head_planes_f16, planes<u16>)
HEAD_KERNEL(head_end_to_end, end_to_end)
HEAD_KERNEL(head_selected, selected)
HEAD_KERNEL(head_queries, queries)
