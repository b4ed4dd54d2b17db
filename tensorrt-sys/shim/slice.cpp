// One slice: these functions over one TensorRT header set. Compiled once for each set that build.rs finds, with SLICE
// naming its only symbol.
//
// The headers' own namespaces are renamed, because their inline functions would otherwise be one function for all
// slices to the linker, with the virtual table of whichever came first. The interfaces implemented here get other type
// names by that, for which TensorRT does not ask: 8.5.3 has no such names to compare with, RTX 1.7 was tried.
#define SLICE_JOIN_(a, b) a##b
#define SLICE_JOIN(a, b) SLICE_JOIN_(a, b)
#define nvinfer1 SLICE_JOIN(nvinfer1_, SLICE)
#define nvonnxparser SLICE_JOIN(nvonnxparser_, SLICE)

#include "shim.h"

#include <NvInfer.h>
#include <NvOnnxParser.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <dlfcn.h>

#ifdef TRT_MAJOR_RTX
#define SHIM_RTX 1
#else
#define SHIM_RTX 0
#endif
#define SHIM_STRONG (SHIM_RTX || NV_TENSORRT_MAJOR >= 11)
#define SHIM_PROGRESS (SHIM_RTX || NV_TENSORRT_MAJOR >= 10)
// Before 10 a profile of varying shapes belongs to one context at a time: an engine has as many as may run at once.
#define SHIM_PROFILES (SHIM_PROGRESS ? 1 : 2)

static_assert(sizeof(void*) == 8, "64-bit targets only");
static_assert(sizeof(Entry) == 40 && sizeof(Tensor) == 88 && sizeof(Profile) == 208, "src/lib.rs says the same");
static_assert(sizeof(Options) == 64 && sizeof(Callbacks) == 72 && sizeof(Table) == 184, "src/lib.rs says the same");
static_assert(offsetof(Options, cache_interval_ms) == 60 && offsetof(Callbacks, write_cache) == 64, "as there");
static_assert(offsetof(Table, last_error) == 32 && offsetof(Table, load_plugins) == 176, "as there");

namespace {
namespace SLICE {

using namespace nvinfer1;
using Clock = std::chrono::steady_clock;

thread_local char error_text[512];

void remember(char const* text) noexcept {
    std::snprintf(error_text, sizeof error_text, "%s", text ? text : "");
}

char const* last_error() noexcept { return error_text; }

// Runs a body; nothing thrown leaves it.
template <typename Body>
Status guarded(Body body) noexcept {
    error_text[0] = 0;
    try {
        return body();
    } catch (std::exception const& error) {
        remember(error.what());
    } catch (...) {
        remember("an exception of no known type");
    }
    return STATUS_EXCEPTION;
}

// The timing cache of the build on this thread, handed out now and then so that a build that is cut short is not lost.
//
// serialize() is called from within a callback of TensorRT: on the building thread only, and never from within itself.
// There the builder is waiting for that callback and writes no entry, and the cache locks itself against other threads'
// (createTimingCache() allows it to be shared by builders). From 10 on the callback is the one between two steps of a
// phase; 8 has only its log, where the lines come between tactics.
struct CacheWatch {
    ITimingCache const* cache;
    Callbacks const* callbacks;
    std::chrono::milliseconds interval;
    Clock::time_point last = Clock::now();
    bool busy = false;

    void hand_out() {
        std::unique_ptr<IHostMemory> bytes{cache->serialize()};
        if (bytes && bytes->size() > 0) {
            callbacks->timing_cache(callbacks->user, bytes->data(), bytes->size());
        }
    }

    void tick() noexcept {
        if (busy || Clock::now() - last < interval) {
            return;
        }
        busy = true;
        guarded([&] { return hand_out(), STATUS_OK; });
        // Counted from its end, so that a slow one cannot fill the build.
        last = Clock::now();
        busy = false;
    }
};

thread_local CacheWatch* cache_watch = nullptr;

// TensorRT keeps the first logger it was given for the whole process, so there is one for ever.
class Logger final : public ILogger {
public:
    std::atomic<LogFn> to{nullptr};
    std::atomic<int32_t> most{2};

    void log(Severity severity, AsciiChar const* text) noexcept override {
        LogFn const say = to.load();
        if (say && static_cast<int32_t>(severity) <= most.load()) {
            say(static_cast<int32_t>(severity), text ? text : "");
        }
#if !SHIM_PROGRESS
        if (cache_watch) {
            cache_watch->tick();
        }
#endif
    }
};

// Never destroyed: TensorRT may log while the process ends.
Logger& logger() noexcept {
    static Logger& only = *new Logger;
    return only;
}

void set_log(LogFn to, int32_t most) noexcept {
    logger().most = most;
    logger().to = to;
}

Dims to_dims(int64_t const* from, int32_t rank) noexcept {
    Dims dims{};
    dims.nbDims = std::min<int32_t>(rank, SHIM_DIMS);
    for (int32_t i = 0; i < dims.nbDims; ++i) {
        dims.d[i] = static_cast<std::remove_reference_t<decltype(dims.d[0])>>(from[i]);
    }
    return dims;
}

// -1 dimensions: a rank TensorRT does not know.
bool from_dims(Dims const& dims, Tensor& out) noexcept {
    out.rank = std::min<int32_t>(dims.nbDims, SHIM_DIMS);
    for (int32_t i = 0; i < out.rank; ++i) {
        out.dims[i] = dims.d[i];
    }
    return dims.nbDims >= 0;
}

template <typename T>
std::unique_ptr<T> create(void* function, int32_t version) {
    using Create = void* (*)(void*, int32_t);
    return std::unique_ptr<T>{function ? static_cast<T*>(reinterpret_cast<Create>(function)(&logger(), version)) : nullptr};
}

} // namespace SLICE
} // namespace

// Opaque to Rust, and of the same name in every slice: only pointers to them leave this file, and each comes back to the
// slice that made it.
namespace {
namespace SLICE {

// Members are destroyed from the last to the first: the engine before its runtime.
struct OwnEngine {
    std::unique_ptr<IRuntime> runtime;
    std::unique_ptr<ICudaEngine> engine;
    // Profiles that a context has, where only one may. Contexts are made and freed on threads of their own.
    std::vector<bool> taken;
    std::mutex taking;
};

class Profiler final : public IProfiler {
public:
    std::vector<std::pair<std::string, float>> times;

    void reportLayerTime(char const* layer, float ms) noexcept override {
        guarded([&] { return times.emplace_back(layer ? layer : "", ms), STATUS_OK; });
    }
};

struct OwnContext {
    Profiler profiler;
    std::unique_ptr<IExecutionContext> context;
    bool profiling = false;
    OwnEngine* engine = nullptr;
    size_t profile = 0;

    ~OwnContext() {
        context.reset();
        if (engine) {
            std::lock_guard const turn{engine->taking};
            engine->taken[profile] = false;
        }
    }
};

OwnEngine* own(Engine* engine) noexcept { return reinterpret_cast<OwnEngine*>(engine); }
OwnEngine const* own(Engine const* engine) noexcept { return reinterpret_cast<OwnEngine const*>(engine); }
OwnContext* own(Context* context) noexcept { return reinterpret_cast<OwnContext*>(context); }
OwnContext const* own(Context const* context) noexcept { return reinterpret_cast<OwnContext const*>(context); }

Status engine_load(Entry const* entry, void const* bytes, size_t length, int32_t dla_core, Engine** out) noexcept {
    return guarded([&] {
        auto engine = std::make_unique<OwnEngine>();
        engine->runtime = create<IRuntime>(entry->create_runtime, entry->version);
        if (!engine->runtime) {
            return STATUS_UNAVAILABLE;
        }
        if (dla_core >= 0) {
            engine->runtime->setDLACore(dla_core);
        }
        engine->engine.reset(engine->runtime->deserializeCudaEngine(bytes, length));
        if (!engine->engine) {
            return STATUS_REFUSED;
        }
        *out = reinterpret_cast<Engine*>(engine.release());
        return STATUS_OK;
    });
}

void engine_free(Engine* engine) noexcept {
    guarded([&] { return delete own(engine), STATUS_OK; });
}

Status engine_tensors(Engine const* engine, int32_t* count) noexcept {
    return guarded([&] { return *count = own(engine)->engine->getNbIOTensors(), STATUS_OK; });
}

// Of all profiles, since each is tuned by itself: where they differ, that is another layout too.
int32_t layout_of(ICudaEngine const& engine, char const* name) {
    int32_t const profiles = std::max(1, engine.getNbOptimizationProfiles());
    auto const format = [&](int32_t profile) {
#if !SHIM_PROGRESS
        // A profile's bindings stand behind those of the one before; TensorRT 8.5 knows no other way to ask.
        return engine.getBindingFormat(engine.getBindingIndex(name) + profile * (engine.getNbBindings() / profiles));
#else
        return engine.getTensorFormat(name, profile);
#endif
    };
    TensorFormat const first = format(0);
    for (int32_t profile = 1; profile < profiles; ++profile) {
        if (format(profile) != first) {
            return -1;
        }
    }
    switch (first) {
    case TensorFormat::kLINEAR: return 0;
    case TensorFormat::kCHW4: return 1;
    default: return -1;
    }
}

Status engine_tensor(Engine const* engine, int32_t index, Tensor* out) noexcept {
    return guarded([&] {
        ICudaEngine const& from = *own(engine)->engine;
        out->name = from.getIOTensorName(index);
        if (!out->name) {
            return STATUS_REFUSED;
        }
        out->element = static_cast<int32_t>(from.getTensorDataType(out->name));
        out->input = from.getTensorIOMode(out->name) == TensorIOMode::kINPUT;
        out->layout = layout_of(from, out->name);
        return from_dims(from.getTensorShape(out->name), *out) ? STATUS_OK : STATUS_REFUSED;
    });
}

Status engine_memory(Engine const* engine, uint64_t* bytes) noexcept {
    return guarded([&] {
#if SHIM_STRONG
        *bytes = static_cast<uint64_t>(std::max<int64_t>(0, own(engine)->engine->getDeviceMemorySizeV2()));
#else
        *bytes = own(engine)->engine->getDeviceMemorySize();
#endif
        return STATUS_OK;
    });
}

Status engine_layers(Engine const* engine, BytesFn json, void* user) noexcept {
    return guarded([&] {
        std::unique_ptr<IEngineInspector> inspector{own(engine)->engine->createEngineInspector()};
        char const* text = inspector ? inspector->getEngineInformation(LayerInformationFormat::kJSON) : nullptr;
        if (!text) {
            return STATUS_REFUSED;
        }
        json(user, text, std::strlen(text));
        return STATUS_OK;
    });
}

#if !SHIM_PROGRESS
bool varies(ICudaEngine const& engine) {
    for (int32_t i = 0; i < engine.getNbIOTensors(); ++i) {
        Dims const dims = engine.getTensorShape(engine.getIOTensorName(i));
        if (std::any_of(dims.d, dims.d + dims.nbDims, [](int32_t dim) { return dim < 0; })) {
            return true;
        }
    }
    return false;
}

// Gives the context a profile of its own, where shapes vary. One whose least and most are the same leaves shapes that
// look fixed, and is asked for all the same; an engine without profiles says that it has one.
void take_profile(OwnEngine& engine, OwnContext& context) {
    int32_t const profiles = engine.engine->getNbOptimizationProfiles();
    if (profiles <= 1 && !varies(*engine.engine)) {
        return;
    }
    std::lock_guard const turn{engine.taking};
    engine.taken.resize(static_cast<size_t>(profiles));
    auto const free = std::find(engine.taken.begin(), engine.taken.end(), false);
    if (free == engine.taken.end()) {
        throw std::runtime_error{"its batch varies, and it was built for " + std::to_string(engine.taken.size())
            + " at once: set engine.tensorrt.contexts to that, or build it for one batch size"};
    }
    context.profile = static_cast<size_t>(free - engine.taken.begin());
    if (!context.context->setOptimizationProfile(static_cast<int32_t>(context.profile))) {
        throw std::runtime_error{"its profile of shapes cannot be used: build it again"};
    }
    context.engine = &engine;
    *free = true;
}
#endif

Status context_new(Engine* engine, Context** out) noexcept {
    return guarded([&] {
        auto context = std::make_unique<OwnContext>();
        context->context.reset(own(engine)->engine->createExecutionContext());
        if (!context->context) {
            return STATUS_REFUSED;
        }
#if !SHIM_PROGRESS
        take_profile(*own(engine), *context);
#endif
        *out = reinterpret_cast<Context*>(context.release());
        return STATUS_OK;
    });
}

void context_free(Context* context) noexcept {
    guarded([&] { return delete own(context), STATUS_OK; });
}

Status context_set_shape(Context* context, char const* name, int64_t const* dims, int32_t rank) noexcept {
    return guarded([&] {
        bool const taken = rank <= SHIM_DIMS && own(context)->context->setInputShape(name, to_dims(dims, rank));
        return taken ? STATUS_OK : STATUS_REFUSED;
    });
}

Status context_shape(Context const* context, char const* name, Tensor* out) noexcept {
    return guarded([&] {
        return from_dims(own(context)->context->getTensorShape(name), *out) ? STATUS_OK : STATUS_REFUSED;
    });
}

Status context_set_address(Context* context, char const* name, uint64_t address) noexcept {
    return guarded([&] {
        bool const taken = own(context)->context->setTensorAddress(name, reinterpret_cast<void*>(address));
        return taken ? STATUS_OK : STATUS_REFUSED;
    });
}

Status context_enqueue(Context* context, void* stream) noexcept {
    return guarded([&] {
        OwnContext& self = *own(context);
        if (self.profiling) {
            self.profiler.times.clear();
        }
        return self.context->enqueueV3(static_cast<cudaStream_t>(stream)) ? STATUS_OK : STATUS_REFUSED;
    });
}

Status context_profile(Context* context, int32_t on) noexcept {
    return guarded([&] {
        OwnContext& self = *own(context);
        self.profiling = on != 0;
        self.profiler.times.clear();
        self.context->setProfiler(on ? &self.profiler : nullptr);
        return STATUS_OK;
    });
}

Status context_times(Context const* context, TimeFn tell, void* user) noexcept {
    return guarded([&] {
        for (auto const& [layer, ms] : own(context)->profiler.times) {
            tell(user, layer.c_str(), ms);
        }
        return STATUS_OK;
    });
}

#include "mixed.h"

#include "build.h"

// The library is open already. `init` is its initLibNvInferPlugins, if it has one. Others registered themselves while
// they were opened (8, 10), or want the registry to ask them (10, 11, RTX).
Status load_plugins(Entry const* entry, char const* path, void* init) noexcept {
    return guarded([&] {
        if (init) {
            using Init = bool (*)(void*, char const*);
            return reinterpret_cast<Init>(init)(&logger(), "") ? STATUS_OK : STATUS_REFUSED;
        }
#if SHIM_PROGRESS
        using Registry = IPluginRegistry* (*)();
        IPluginRegistry* const registry
            = entry->plugin_registry ? reinterpret_cast<Registry>(entry->plugin_registry)() : nullptr;
        return registry && registry->loadLibrary(path) ? STATUS_OK : STATUS_REFUSED;
#else
        static_cast<void>(entry);
        static_cast<void>(path);
        return STATUS_OK;
#endif
    });
}

} // namespace SLICE
} // namespace

extern "C" __attribute__((visibility("hidden"))) Table const SLICE_JOIN(watchpost_tensorrt_, SLICE) = {
    {NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR, NV_TENSORRT_PATCH, NV_TENSORRT_BUILD},
    SHIM_RTX,
    SHIM_STRONG,
    SHIM_PROGRESS,
    0,
    SLICE::last_error,
    SLICE::set_log,
    SLICE::engine_load,
    SLICE::engine_free,
    SLICE::engine_tensors,
    SLICE::engine_tensor,
    SLICE::engine_memory,
    SLICE::engine_layers,
    SLICE::context_new,
    SLICE::context_free,
    SLICE::context_set_shape,
    SLICE::context_shape,
    SLICE::context_set_address,
    SLICE::context_enqueue,
    SLICE::context_profile,
    SLICE::context_times,
    SLICE::build,
    SLICE::supports,
    SLICE::load_plugins,
};
