// Runs the kernels on the CPU: every block and every thread in turn. See host_tests/mod.rs.

#include "shim.h"

#include "../lane.cu"
#include "../letterbox.cu"
#include "../head.cu"
#include "../motion.cu"
#include "../thumbnail.cu"

extern "C" {

void host_forget() {
    readable.clear();
    bad_reads = 0;
}

void host_allow(uintptr_t from, size_t bytes) { readable.push_back({from, bytes}); }

uint64_t host_bad_reads() { return bad_reads; }

float host_from_half(unsigned short bits) { return from_half(bits); }

unsigned short host_to_half(float value) { return to_half(value); }

// What `letterbox` does, with the barrier between its halves as two loops.
void host_letterbox(const LetterboxArgs *args, const u32 grid[3]) {
    for (u32 z = 0; z < grid[2]; z++) {
        const Lane &lane = args->lanes[z];
        if (!lane.used) {
            continue;
        }
        for (u32 block = 0; block < grid[0] * grid[1]; block++) {
            const u32 left = block % grid[0] * TILE_WIDTH, top = block / grid[0] * TILE_HEIGHT;
            if (is_padded(lane, top)) {
                continue;
            }
            Tile tile = {};
            bool blends = false;
            for (u32 thread = 0; thread < LETTERBOX_THREADS; thread++) {
                blends |= prepare(lane, tile, left, top, thread);
            }
            for (u32 thread = 0; thread < LETTERBOX_THREADS; thread++) {
                draw_tile(*args, lane, tile, blends, z, left, top, thread);
            }
        }
    }
}

// Returns whether there is a kernel of that name.
bool host_head(const char *name, const HeadArgs *args, const u32 grid[3]) {
    const struct {
        const char *name;
        void (*kernel)(const HeadArgs &, u32, u32);
    } kernels[] = {{"head_rows", head_rows},
                   {"head_planes_f32", head_planes_f32},
                   {"head_planes_f16", head_planes_f16},
                   {"head_end_to_end", head_end_to_end},
                   {"head_selected", head_selected},
                   {"head_queries", head_queries}};
    for (const auto &each : kernels) {
        if (std::strcmp(each.name, name) == 0) {
            for (u32 lane = 0; lane < grid[1]; lane++) {
                for (u32 box = 0; box < grid[0] * HEAD_THREADS; box++) {
                    each.kernel(*args, lane, box);
                }
            }
            return true;
        }
    }
    return false;
}

void host_luma_cells(const MotionArgs *args, u32 lanes) {
    for (u32 lane = 0; lane < lanes; lane++) {
        for (u32 cell = 0; args->lanes[lane].used && cell < GRID_WIDTH * GRID_HEIGHT; cell++) {
            luma_cell(*args, lane, cell, 0);
        }
    }
}

void host_shrink(const ThumbnailArgs *args, const u32 grid[3]) {
    for (u32 z = 0; z < grid[2]; z++) {
        for (u32 y = 0; y < grid[1] * SMALL_HEIGHT; y++) {
            for (u32 x = 0; x < grid[0] * SMALL_WIDTH; x++) {
                shrink_pixel(*args, z, x, y);
            }
        }
    }
}
}
