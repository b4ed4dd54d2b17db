// The C ABI between watchpost and TensorRT: opaque pointers, plain structs, callbacks. src/lib.rs is the same in Rust.
//
// Every function of the table is noexcept and returns a Status; what a call hands out goes through a callback, so no
// memory changes hands. Sizes and offsets are asserted in slice.cpp and in the tests of src/lib.rs.
#ifndef WATCHPOST_SHIM_H
#define WATCHPOST_SHIM_H

#include <stddef.h>
#include <stdint.h>

extern "C" {

enum Status : int32_t {
    STATUS_OK = 0,
    STATUS_REFUSED = 1,     // TensorRT said no; its log has the reason
    STATUS_UNAVAILABLE = 2, // no runtime or no builder: mostly no GPU
    STATUS_MODEL = 3,       // the ONNX file was not understood; `refused` was called with the reasons
    STATUS_EXCEPTION = 4,   // something was thrown; last_error() has its text
};

enum { SHIM_DIMS = 8 };

typedef void (*LogFn)(int32_t severity, char const* text);
typedef void (*BytesFn)(void* user, void const* bytes, size_t length);
typedef void (*TimeFn)(void* user, char const* layer, float ms);
typedef void (*NodeFn)(void* user, int64_t node);

// Where the libraries' functions are, as the loader found them.
struct Entry {
    void* create_runtime;  // createInferRuntime_INTERNAL
    void* create_builder;  // createInferBuilder_INTERNAL; null: no building
    void* plugin_registry; // getPluginRegistry; null: none
    void* create_parser;   // createNvOnnxParser_INTERNAL; null until the parser is open
    int32_t version;       // getInferLibVersion(): the library wants its own number back, not the headers'
    int32_t parser_version;
};

struct Tensor {
    char const* name; // the engine's
    int64_t dims[SHIM_DIMS];
    int32_t rank;
    int32_t element; // nvinfer1::DataType
    int32_t input;
    int32_t layout; // 0 row by row, 1 three or four channels of a place side by side (CHW4), -1 another
};

// Shapes that an input may have.
struct Profile {
    char const* input;
    int64_t min[SHIM_DIMS];
    int64_t opt[SHIM_DIMS];
    int64_t max[SHIM_DIMS];
    int32_t rank;
    int32_t reserved;
};

struct Options {
    Profile const* profiles;
    size_t profile_count;
    void const* timing_cache;
    size_t timing_cache_bytes;
    uint64_t workspace_bytes; // 0: TensorRT's own limit
    int32_t precision;        // 0 FP32, 1 FP16, 2 INT8
    int32_t dla_core;         // -1: GPU
    int32_t gpu_fallback;
    int32_t sparse;
    int32_t half_io;
    int32_t cache_interval_ms; // between two calls of `timing_cache` while building
};

// What a build tells and asks. All but `phase` are called on the building thread only.
struct Callbacks {
    void* user;
    void (*phase)(void* user, char const* name, int32_t done, int32_t total);
    BytesFn timing_cache;
    BytesFn engine;
    void (*refused)(void* user, int64_t node, char const* name, char const* op, char const* reason);
    int32_t calibrate; // 1: the four below are asked
    int32_t batch_size;
    int32_t (*next)(void* user, char const* input, uint64_t* address); // 0: no more
    void const* (*read_cache)(void* user, size_t* length);             // valid until the next call
    BytesFn write_cache;
};

struct Engine;
struct Context;

// One header set's functions.
struct Table {
    int32_t headers[4]; // major, minor, patch, build
    int32_t rtx;
    int32_t strongly_typed; // precision comes from the model; no calibrator
    int32_t tells_progress; // `phase` is called
    int32_t reserved;

    char const* (*last_error)();
    void (*log)(LogFn log, int32_t most);

    Status (*engine_load)(Entry const*, void const* bytes, size_t length, int32_t dla_core, Engine** out);
    void (*engine_free)(Engine*);
    Status (*engine_tensors)(Engine const*, int32_t* count);
    Status (*engine_tensor)(Engine const*, int32_t index, Tensor* out);
    Status (*engine_memory)(Engine const*, uint64_t* bytes);
    Status (*engine_layers)(Engine const*, BytesFn json, void* user);

    Status (*context_new)(Engine*, Context** out);
    void (*context_free)(Context*);
    Status (*context_set_shape)(Context*, char const* name, int64_t const* dims, int32_t rank);
    Status (*context_shape)(Context const*, char const* name, Tensor* out);
    Status (*context_set_address)(Context*, char const* name, uint64_t address);
    Status (*context_enqueue)(Context*, void* stream);
    Status (*context_profile)(Context*, int32_t on);
    Status (*context_times)(Context const*, TimeFn, void* user);

    Status (*build)(Entry const*, void const* onnx, size_t length, char const* path, Options const*, Callbacks const*);
    Status (*supports)(Entry const*, void const* onnx, size_t length, char const* path, NodeFn supported, Callbacks const*);
    Status (*load_plugins)(Entry const*, char const* path, void* init);
};

} // extern "C"

#endif
