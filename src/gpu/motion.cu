// Mean luma of each cell of a coarse grid over each lane's source: what the motion gate compares.

enum { GRID_WIDTH = 64, GRID_HEIGHT = 36, CELLS_A_BLOCK = 8 };

// `MotionArgs` of motion.rs.
struct MotionArgs {
    const Lane *lanes;
    // Of each lane: GRID_HEIGHT x GRID_WIDTH means.
    u8 *out;
};

// Thread `thread` of the warp that has cell `cell`. Cells of a source smaller than the grid overlap.
DEVICE void luma_cell(const MotionArgs &args, u32 lane_number, u32 cell, u32 thread) {
    const Lane &lane = args.lanes[lane_number];
    const u32 column = cell % GRID_WIDTH, row = cell / GRID_WIDTH;
    const u32 left = column * lane.width / GRID_WIDTH, right = (column + 1) * lane.width / GRID_WIDTH;
    const u32 top = row * lane.height / GRID_HEIGHT, bottom = (row + 1) * lane.height / GRID_HEIGHT;
    const u32 width = right > left ? right - left : 1, height = bottom > top ? bottom - top : 1;
    const u32 pixels = width * height;
    u32 sum = 0;
    for (u32 at = thread; at < pixels; at += WARP) {
        sum += load(lane.planes[0] + (u64)(top + at / width) * lane.strides[0] + left + at % width);
    }
    sum = warp_sum(sum);
    if (thread == 0) {
        args.out[(u64)lane_number * GRID_WIDTH * GRID_HEIGHT + cell] = (u8)((sum + pixels / 2) / pixels);
    }
}

#ifdef __CUDACC__
KERNEL __launch_bounds__(32 * CELLS_A_BLOCK) luma_cells(const MotionArgs args) {
    const u32 cell = blockIdx.x * CELLS_A_BLOCK + threadIdx.x / WARP;
    if (cell < GRID_WIDTH * GRID_HEIGHT && args.lanes[blockIdx.y].used) {
        luma_cell(args, blockIdx.y, cell, threadIdx.x % WARP);
    }
}
#endif
