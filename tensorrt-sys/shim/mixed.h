// The part of slice.cpp that says what of a calibrated network is computed in INT8, included there before build.h: it is no
// header of its own.
//
// A calibrated tensor has one scale for all of its channels, and TensorRT, left to itself, gives INT8 to whatever is
// faster in it. That ruins a net in places: YOLOX-nano on 47 pictures of COCO, calibrated with 134 frames of clips by
// their largest values, simulated with ONNX Runtime: AP .297 in float32; .014 where what goes into depthwise convolutions
// is INT8 as well, .198 where what comes out of convolutions is so before its activation, .283 with the last convolutions.
// With all of these kept it is .301.
//
// So INT8 gets the convolutions that more of the kind follow, by quantizing what they read and their filters in the
// network itself. TensorRT 8.5 does not do it by a layer's precision (it finds no convolution fused with its activation
// that obeys, and takes the fastest, which is INT8), nor by leaving scales out (it finds none at all).

#if !SHIM_STRONG
class Mixed {
public:
    // Both live until the engine is built: filters and scales are read by then.
    explicit Mixed(INetworkDefinition& of) : network{of} {
        for (int32_t i = 0; i < network.getNbLayers(); ++i) {
            layers.push_back(Place{network.getLayer(i)});
        }
        for (Place& place : layers) {
            place.kind = kind_of(*place.layer);
            for (int32_t i = 0; i < place.layer->getNbInputs(); ++i) {
                if (ITensor const* const input = place.layer->getInput(i)) {
                    readers[input].push_back(&place);
                }
            }
        }
        // Layers stand behind those that they read.
        std::for_each(layers.rbegin(), layers.rend(), [&](Place& place) { look_ahead(place); });
    }

    // Quantizes by a calibration table (a first line, then `NAME: SCALE`, the bits of a float in hexadecimal). False where
    // nothing gains by it. Throws where the table is of another network.
    bool quantize(std::string const& table) {
        std::map<std::string, float> const scales = read(table);
        bool is_wanted = false, is_known = false;
        for (Place& place : layers) {
            if (place.kind != Kind::kDENSE || !place.leads_on) {
                continue;
            }
            is_wanted = true;
            auto const scale = scales.find(place.layer->getInput(0)->getName());
            if (scale != scales.end()) {
                is_known = true;
                quantize(static_cast<IConvolutionLayer&>(*place.layer), scale->second);
            }
        }
        if (is_wanted && !is_known) {
            throw std::invalid_argument{"the calibration table knows none of the model's tensors: calibrate again"};
        }
        return is_wanted;
    }

private:
    enum class Kind {
        kFLOAT,     // loses by INT8, or has no kernels for it
        kDEPTHWISE, // a filter for each channel
        kDENSE,     // gains by INT8
        kPASSES,    // is fused with a convolution, or brings values elsewhere
    };

    struct Place {
        ILayer* layer;
        Kind kind = Kind::kFLOAT;
        bool leads_on = false; // to another convolution, by nothing but such that pass

        explicit Place(ILayer* of) : layer{of} {}
    };

    INetworkDefinition& network;
    std::vector<Place> layers;
    std::map<ITensor const*, std::vector<Place*>> readers;
    std::map<ITensor const*, ITensor*> quantized_inputs;
    std::deque<std::vector<float>> values;

    static bool is_float(ITensor const* tensor) {
        return tensor && (tensor->getType() == DataType::kFLOAT || tensor->getType() == DataType::kHALF);
    }

    // Only one whose filters are in its own hands: others are quantized already, or computed.
    static Kind convolution(IConvolutionLayer& layer) {
        int64_t const groups = layer.getNbGroups();
        Dims const dims = layer.getInput(0)->getDimensions();
        Weights const filters = layer.getKernelWeights();
        if (groups > 1 && dims.nbDims > 1 && groups == dims.d[1]) {
            return Kind::kDEPTHWISE;
        }
        bool const has_filters = layer.getNbInputs() == 1 && filters.type == DataType::kFLOAT && filters.count > 0;
        return has_filters && !layer.getOutput(0)->isNetworkOutput() ? Kind::kDENSE : Kind::kFLOAT;
    }

    static Kind kind_of(ILayer& layer) {
        // Asked for one that it does not have, a layer logs an error.
        bool const has_both = layer.getNbInputs() > 0 && layer.getNbOutputs() > 0;
        if (!has_both || !is_float(layer.getInput(0)) || !is_float(layer.getOutput(0))) {
            return Kind::kFLOAT;
        }
        switch (layer.getType()) {
        case LayerType::kCONVOLUTION: return convolution(static_cast<IConvolutionLayer&>(layer));
        case LayerType::kACTIVATION:
        case LayerType::kELEMENTWISE:
        case LayerType::kPARAMETRIC_RELU:
        case LayerType::kSCALE:
        case LayerType::kCONCATENATION:
        case LayerType::kPADDING:
        case LayerType::kPOOLING:
        case LayerType::kRESIZE:
        case LayerType::kSHUFFLE:
        case LayerType::kSLICE: return Kind::kPASSES;
        default: return Kind::kFLOAT;
        }
    }

    void look_ahead(Place& place) {
        for (int32_t i = 0; i < place.layer->getNbOutputs(); ++i) {
            for (Place const* reader : readers[place.layer->getOutput(i)]) {
                bool const is_convolution = reader->layer->getType() == LayerType::kCONVOLUTION;
                bool const passes_on = reader->kind == Kind::kPASSES && reader->leads_on;
                place.leads_on = place.leads_on || is_convolution || passes_on;
            }
        }
    }

    static std::map<std::string, float> read(std::string const& table) {
        std::map<std::string, float> scales;
        std::istringstream lines{table};
        for (std::string line; std::getline(lines, line);) {
            size_t const end = line.rfind(": ");
            if (end != std::string::npos) {
                auto const bits = static_cast<uint32_t>(std::strtoul(line.c_str() + end + 2, nullptr, 16));
                float scale = 0;
                std::memcpy(&scale, &bits, sizeof scale);
                if (scale > 0 && std::isfinite(scale)) {
                    scales[line.substr(0, end)] = scale;
                }
            }
        }
        return scales;
    }

    static ITensor* output(ILayer* layer) {
        if (!layer) {
            throw std::runtime_error{"TensorRT does not take a layer that quantizes"};
        }
        return layer->getOutput(0);
    }

    // To INT8 and back, which TensorRT takes as a wish to compute what reads it in INT8. Along the first axis where there
    // is a scale for each channel.
    ITensor* there_and_back(ITensor& tensor, std::vector<float> scale) {
        Dims dims{};
        dims.nbDims = scale.size() > 1 ? 1 : 0;
        dims.d[0] = static_cast<int32_t>(scale.size());
        std::vector<float> const& kept = values.emplace_back(std::move(scale));
        Weights const weights{DataType::kFLOAT, kept.data(), static_cast<int64_t>(kept.size())};
        ITensor* const scales = output(network.addConstant(dims, weights));
        auto* const there = network.addQuantize(tensor, *scales);
        ITensor* const quantized = output(there);
        auto* const back = network.addDequantize(*quantized, *scales);
        ITensor* const result = output(back);
        there->setAxis(0);
        back->setAxis(0);
        return result;
    }

    void quantize(IConvolutionLayer& layer, float scale) {
        ITensor* const input = layer.getInput(0);
        ITensor*& quantized = quantized_inputs[input];
        if (!quantized) {
            quantized = there_and_back(*input, {scale});
        }
        Weights const filters = layer.getKernelWeights();
        auto const* value = static_cast<float const*>(filters.values);
        std::vector<float> scales(static_cast<size_t>(layer.getNbOutputMaps()));
        int64_t const each = filters.count / layer.getNbOutputMaps();
        for (float& most : scales) {
            for (int64_t i = 0; i < each; ++i) {
                most = std::max(most, std::fabs(*value++));
            }
            most = most > 0 ? most / 127 : 1;
        }
        // As many channels of the input as are left of a filter.
        Dims const kernel = layer.getKernelSizeNd();
        int64_t area = 1;
        Dims dims{};
        dims.nbDims = kernel.nbDims + 2;
        for (int32_t i = 0; i < kernel.nbDims; ++i) {
            dims.d[i + 2] = kernel.d[i];
            area *= kernel.d[i];
        }
        dims.d[0] = static_cast<int32_t>(layer.getNbOutputMaps());
        dims.d[1] = static_cast<int32_t>(each / area);
        ITensor* const filter = there_and_back(*output(network.addConstant(dims, filters)), std::move(scales));
        replace(layer, *quantized, *filter);
    }

    // By one of computed filters, which a layer with its own cannot become. TensorRT drops the old one, which nobody reads.
    void replace(IConvolutionLayer& old, ITensor& input, ITensor& filter) {
        Weights const none{DataType::kFLOAT, nullptr, 0};
        IConvolutionLayer* const layer = network.addConvolutionNd(
            input, old.getNbOutputMaps(), old.getKernelSizeNd(), none, old.getBiasWeights());
        ITensor* const result = output(layer);
        layer->setInput(1, filter);
        layer->setStrideNd(old.getStrideNd());
        layer->setPrePadding(old.getPrePadding());
        layer->setPostPadding(old.getPostPadding());
        layer->setPaddingMode(old.getPaddingMode());
        layer->setDilationNd(old.getDilationNd());
        layer->setNbGroups(old.getNbGroups());
        ITensor* const before = old.getOutput(0);
        for (Place* reader : readers[before]) {
            for (int32_t i = 0; i < reader->layer->getNbInputs(); ++i) {
                if (reader->layer->getInput(i) == before) {
                    reader->layer->setInput(i, *result);
                }
            }
        }
        // The table and people know it by its name.
        std::string const name = before->getName(), of = old.getName();
        before->setName((name + " as it was").c_str());
        old.setName((of + " as it was").c_str());
        result->setName(name.c_str());
        layer->setName(of.c_str());
    }
};
#endif
