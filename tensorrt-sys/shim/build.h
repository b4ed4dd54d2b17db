// The part of slice.cpp that builds engines, included there in the middle: it is no header of its own.

#if SHIM_PROGRESS
// Its calls may come from TensorRT's own threads.
class Monitor final : public IProgressMonitor {
public:
    Callbacks const* callbacks;

    explicit Monitor(Callbacks const* to) : callbacks{to} {}

    void phaseStart(char const* phase, char const*, int32_t steps) noexcept override {
        callbacks->phase(callbacks->user, phase ? phase : "", 0, steps);
    }

    bool stepComplete(char const* phase, int32_t step) noexcept override {
        callbacks->phase(callbacks->user, phase ? phase : "", step + 1, -1);
        if (cache_watch) {
            cache_watch->tick();
        }
        return true;
    }

    void phaseFinish(char const* phase) noexcept override {
        callbacks->phase(callbacks->user, phase ? phase : "", -1, -1);
    }
};
#endif

// A flag's place in a set of them.
template <typename Flag>
constexpr uint32_t bit(Flag flag) noexcept {
    return 1U << static_cast<uint32_t>(flag);
}

#if !SHIM_STRONG
// Two of TensorRT's algorithms differ in the class that they are derived from, and in nothing else.
template <typename Algorithm>
class Calibrator final : public Algorithm {
public:
    Callbacks const* callbacks;
    std::string& table;

    Calibrator(Callbacks const* to, std::string& table) : callbacks{to}, table{table} {}

    int32_t getBatchSize() const noexcept override { return callbacks->batch_size; }

    bool getBatch(void* bindings[], char const* names[], int32_t count) noexcept override {
        for (int32_t i = 0; i < count; ++i) {
            uint64_t address = 0;
            if (!callbacks->next(callbacks->user, names[i], &address)) {
                return false;
            }
            bindings[i] = reinterpret_cast<void*>(address);
        }
        return true;
    }

    void const* readCalibrationCache(size_t& length) noexcept override {
        length = table.size();
        return table.empty() ? nullptr : table.data();
    }

    void writeCalibrationCache(void const* bytes, size_t length) noexcept override {
        callbacks->write_cache(callbacks->user, bytes, length);
        table.assign(static_cast<char const*>(bytes), length);
    }
};

// Ends a build that was begun for its table as soon as there is one, before kernels are timed.
class EndsWithTable final : public IAlgorithmSelector {
public:
    std::string const& table;

    explicit EndsWithTable(std::string const& of) : table{of} {}

    int32_t selectAlgorithms(IAlgorithmContext const&, IAlgorithm const* const*, int32_t count,
        int32_t* selection) noexcept override {
        std::iota(selection, selection + count, 0);
        return table.empty() ? count : 0;
    }

    void reportAlgorithms(IAlgorithmContext const* const*, IAlgorithm const* const*, int32_t) noexcept override {}
};

// The largest value rules, not entropy, which cuts off what detectors live by: simulated as in mixed.h, AP is .301 with
// one and .238 with the other; with TensorRT 8.5 others found the same (https://github.com/NVIDIA/TensorRT/issues/3922).
// The accelerators of Jetson take entropy only. A table is of use only to the algorithm that its first line names.
bool wants_entropy(std::string const& table, Options const& options) {
    std::string const line = table.substr(0, table.find('\n'));
    return table.empty() ? options.dla_core >= 0 : line.find("EntropyCalibration2") != std::string::npos;
}
#endif

// What a build holds. Members are destroyed from the last to the first, and TensorRT wants all of them until then: the
// parser holds the weights, the configuration the cache, all of them the builder.
struct Build {
    std::unique_ptr<IBuilder> builder;
#if !SHIM_STRONG
    std::unique_ptr<Mixed> mixed;
    bool has_int8 = true;
#endif
    std::unique_ptr<INetworkDefinition> network;
    std::unique_ptr<nvonnxparser::IParser> parser;
    std::unique_ptr<IBuilderConfig> config;
    std::unique_ptr<ITimingCache> cache;

    Status open(Entry const* entry) {
        builder = create<IBuilder>(entry->create_builder, entry->version);
        if (!builder) {
            return STATUS_UNAVAILABLE;
        }
#if SHIM_RTX
        uint32_t const flags = 1U << static_cast<uint32_t>(NetworkDefinitionCreationFlag::kSTRONGLY_TYPED);
#elif NV_TENSORRT_MAJOR < 10
        uint32_t const flags = 1U << static_cast<uint32_t>(NetworkDefinitionCreationFlag::kEXPLICIT_BATCH);
#else
        uint32_t const flags = 0;
#endif
        network.reset(builder->createNetworkV2(flags));
        using Create = void* (*)(void*, void*, int);
        if (network && entry->create_parser) {
            parser.reset(static_cast<nvonnxparser::IParser*>(reinterpret_cast<Create>(entry->create_parser)(
                network.get(), &logger(), entry->parser_version)));
        }
        return parser ? STATUS_OK : STATUS_UNAVAILABLE;
    }

    Status configure(Options const* options);
    Status shapes(Options const* options);
    bool fill(IOptimizationProfile& profile, Options const& options) const;
#if !SHIM_STRONG
    bool calibrate(IInt8Calibrator& calibrator, std::string& table, Options const& options);
#endif
};

void tell_refused(nvonnxparser::IParser const& parser, Callbacks const* callbacks) {
    for (int32_t i = 0; i < parser.getNbErrors(); ++i) {
        nvonnxparser::IParserError const* const error = parser.getError(i);
#if SHIM_PROGRESS
        char const* const name = error->nodeName();
        char const* const op = error->nodeOperator();
#else
        char const* const name = "";
        char const* const op = "";
#endif
        char const* const reason = error->desc();
        callbacks->refused(
            callbacks->user, error->node(), name ? name : "", op ? op : "", reason ? reason : "");
    }
}

bool has_input(INetworkDefinition const& network, char const* name) {
    for (int32_t i = 0; i < network.getNbInputs(); ++i) {
        if (std::strcmp(network.getInput(i)->getName(), name) == 0) {
            return true;
        }
    }
    return false;
}

bool Build::fill(IOptimizationProfile& profile, Options const& options) const {
    bool taken = true;
    for (size_t i = 0; taken && i < options.profile_count; ++i) {
        Profile const& from = options.profiles[i];
        if (!has_input(*network, from.input)) {
            throw std::invalid_argument{std::string{"the model has no input \""} + from.input + '"'};
        }
        taken = profile.setDimensions(from.input, OptProfileSelector::kMIN, to_dims(from.min, from.rank))
            && profile.setDimensions(from.input, OptProfileSelector::kOPT, to_dims(from.opt, from.rank))
            && profile.setDimensions(from.input, OptProfileSelector::kMAX, to_dims(from.max, from.rank));
    }
    return taken;
}

// Inputs whose shape varies; TensorRT refuses to build where one of them has no profile.
Status Build::shapes(Options const* options) {
    if (options->profile_count == 0) {
        return STATUS_OK;
    }
    for (int32_t n = 0; n < SHIM_PROFILES; ++n) {
        IOptimizationProfile* const profile = builder->createOptimizationProfile();
        if (!profile || !fill(*profile, *options) || config->addOptimizationProfile(profile) < 0) {
            return STATUS_REFUSED;
        }
#if !SHIM_STRONG
        if (config->getInt8Calibrator()) {
            config->setCalibrationProfile(profile);
        }
#endif
    }
    return STATUS_OK;
}

#if !SHIM_STRONG && NV_TENSORRT_MAJOR < 10
bool can_open(char const* library) {
    void* const handle = dlopen(library, RTLD_LAZY | RTLD_LOCAL);
    if (handle) {
        dlclose(handle);
    }
    return handle != nullptr;
}

// TensorRT 8 takes kernels of cuBLAS and cuDNN too, and a build ends where one of the two is asked for and missing.
void leave_out_missing_sources(IBuilderConfig& config) {
    TacticSources sources = config.getTacticSources();
    if (!can_open("libcublas.so.11") && !can_open("libcublas.so.12")) {
        sources &= ~(bit(TacticSource::kCUBLAS) | bit(TacticSource::kCUBLAS_LT));
    }
    if (!can_open("libcudnn.so.8")) {
        sources &= ~bit(TacticSource::kCUDNN);
    }
    config.setTacticSources(sources);
}
#endif

Status Build::configure(Options const* options) {
#if !SHIM_STRONG && NV_TENSORRT_MAJOR < 10
    leave_out_missing_sources(*config);
#endif
    if (options->workspace_bytes > 0) {
        config->setMemoryPoolLimit(MemoryPoolType::kWORKSPACE, options->workspace_bytes);
    }
    // So that the inspector can say which precision and kernel each layer got.
    config->setProfilingVerbosity(ProfilingVerbosity::kDETAILED);
    if (options->sparse) {
        config->setFlag(BuilderFlag::kSPARSE_WEIGHTS);
    }
    if (options->dla_core >= 0) {
        config->setDefaultDeviceType(DeviceType::kDLA);
        config->setDLACore(options->dla_core);
        if (options->gpu_fallback) {
            config->setFlag(BuilderFlag::kGPU_FALLBACK);
        }
    }
#if !SHIM_STRONG
    // INT8 with FP16 beside it: layers that have no INT8 kernel are then no slower than in FP16.
    if (options->precision >= 1) {
        config->setFlag(BuilderFlag::kFP16);
    }
    if (options->precision >= 2 && has_int8) {
        config->setFlag(BuilderFlag::kINT8);
    }
    auto const half = [](ITensor& tensor, bool may_be_packed) {
        if (tensor.getType() == DataType::kFLOAT) {
            tensor.setType(DataType::kHALF);
        }
        if (tensor.getType() == DataType::kHALF) {
            tensor.setAllowedFormats(bit(TensorFormat::kLINEAR) | (may_be_packed ? bit(TensorFormat::kCHW4) : 0));
        }
    };
    for (int32_t i = 0; options->half_io && i < network->getNbInputs(); ++i) {
        // Tensor cores read a picture packed: where it comes so, nothing is reordered before the first convolution. From
        // TensorRT 10 on that is said to be for INT8 alone.
        ITensor& input = *network->getInput(i);
        Dims const dims = input.getDimensions();
        half(input, !SHIM_PROGRESS && options->dla_core < 0 && dims.nbDims == 4 && dims.d[1] == 3);
    }
    for (int32_t i = 0; options->half_io && i < network->getNbOutputs(); ++i) {
        half(*network->getOutput(i), false);
    }
#endif
    // A cache of another device or version is no cache: TensorRT says so in its log, and a new one is begun.
    cache.reset(config->createTimingCache(options->timing_cache, options->timing_cache_bytes));
    if (!cache || !config->setTimingCache(*cache, false)) {
        cache.reset(config->createTimingCache(nullptr, 0));
        if (cache && !config->setTimingCache(*cache, false)) {
            cache.reset();
        }
    }
    return shapes(options);
}

#if !SHIM_STRONG
// Has a table made, where there is none, and the network quantized by it. False where none could be made. An accelerator
// of Jetson would hand each layer that floats to the GPU: there the calibrator rules.
bool Build::calibrate(IInt8Calibrator& calibrator, std::string& table, Options const& options) {
    if (options.dla_core >= 0) {
        config->setInt8Calibrator(&calibrator);
        return true;
    }
    if (table.empty()) {
        EndsWithTable selector{table};
        config->setInt8Calibrator(&calibrator);
        config->setAlgorithmSelector(&selector);
        config->setFlag(BuilderFlag::kREJECT_EMPTY_ALGORITHMS);
        if (configure(&options) == STATUS_OK) {
            std::unique_ptr<IHostMemory>{builder->buildSerializedNetwork(*network, *config)}.reset();
        }
        config.reset(builder->createBuilderConfig());
        if (table.empty() || !config) {
            return false;
        }
    }
    mixed = std::make_unique<Mixed>(*network);
    has_int8 = mixed->quantize(table);
    if (!has_int8) {
        logger().log(ILogger::Severity::kWARNING, "watchpost: no convolution of this model gains by INT8: the engine computes in float16");
    }
    return true;
}
#endif

Status build(Entry const* entry, void const* onnx, size_t length, char const* path, Options const* options,
    Callbacks const* callbacks) noexcept {
    return guarded([&] {
#if SHIM_PROGRESS
        Monitor monitor{callbacks};
#endif
#if !SHIM_STRONG
        std::string table;
        Calibrator<IInt8MinMaxCalibrator> by_largest{callbacks, table};
        Calibrator<IInt8EntropyCalibrator2> by_entropy{callbacks, table};
#endif
        Build build;
        Status const opened = build.open(entry);
        if (opened != STATUS_OK) {
            return opened;
        }
        if (!build.parser->parse(onnx, length, path)) {
            tell_refused(*build.parser, callbacks);
            return STATUS_MODEL;
        }
        build.config.reset(build.builder->createBuilderConfig());
        if (!build.config) {
            return STATUS_UNAVAILABLE;
        }
#if !SHIM_STRONG
        if (callbacks->calibrate) {
            size_t length = 0;
            char const* const known = static_cast<char const*>(callbacks->read_cache(callbacks->user, &length));
            table.assign(known ? known : "", length);
            bool const entropy = wants_entropy(table, *options);
            IInt8Calibrator& calibrator = entropy ? static_cast<IInt8Calibrator&>(by_entropy) : by_largest;
            if (!build.calibrate(calibrator, table, *options)) {
                return STATUS_REFUSED;
            }
        }
#endif
#if SHIM_PROGRESS
        build.config->setProgressMonitor(&monitor);
#endif
        Status const configured = build.configure(options);
        if (configured != STATUS_OK) {
            return configured;
        }
        CacheWatch watch{build.cache.get(), callbacks, std::chrono::milliseconds{options->cache_interval_ms}};
        cache_watch = build.cache ? &watch : nullptr;
        std::unique_ptr<IHostMemory> engine{build.builder->buildSerializedNetwork(*build.network, *build.config)};
        cache_watch = nullptr;
        if (build.cache) {
            // A build that failed has timed something all the same.
            watch.hand_out();
        }
        if (!engine || engine->size() == 0) {
            return STATUS_REFUSED;
        }
        callbacks->engine(callbacks->user, engine->data(), engine->size());
        return STATUS_OK;
    });
}

// `supported` is called with each node in a part that TensorRT takes.
Status supports(Entry const* entry, void const* onnx, size_t length, char const* path, NodeFn supported,
    Callbacks const* callbacks) noexcept {
    return guarded([&] {
        Build build;
        Status const opened = build.open(entry);
        if (opened != STATUS_OK) {
            return opened;
        }
#if SHIM_STRONG
        bool const all = build.parser->supportsModelV2(onnx, length, path);
        for (int64_t part = 0; part < build.parser->getNbSubgraphs(); ++part) {
            int64_t nodes = 0;
            int64_t const* const first = build.parser->getSubgraphNodes(part, nodes);
            for (int64_t i = 0; first && i < nodes; ++i) {
                supported(callbacks->user, first[i]);
            }
        }
#else
        SubGraphCollection_t parts;
        bool const all = build.parser->supportsModel(onnx, length, parts, path);
        for (auto const& part : parts) {
            for (size_t const node : part.first) {
                supported(callbacks->user, static_cast<int64_t>(node));
            }
        }
#endif
        tell_refused(*build.parser, callbacks);
        return all ? STATUS_OK : STATUS_MODEL;
    });
}
