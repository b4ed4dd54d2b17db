// The part of slice.cpp that says which layers of a calibrated network INT8 may have, included there before build.h: it
// is no header of its own.
//
// A calibrated tensor has one scale for all of its channels, and TensorRT gives INT8 to whatever is faster in it. That
// ruins a net in places: YOLOX-nano on 47 pictures of COCO, calibrated with 134 frames of clips by their largest values,
// simulated with ONNX Runtime: AP .297 in float32; .014 where what goes into depthwise convolutions is INT8 as well, .198
// where what comes out of convolutions is so before its activation, .283 with the last convolutions. With all of these
// kept it is .301, and .293 where TensorRT does not fuse the remaining convolutions with their activations.
//
// So INT8 gets the convolutions (and products with constant matrices) that more of the kind follow, and what lies between
// them; the rest and what it reads stays floating. These are wishes: a build does not fail for want of a kernel.

#if !SHIM_STRONG
class Mixed {
public:
    explicit Mixed(INetworkDefinition& network) {
        for (int32_t i = 0; i < network.getNbLayers(); ++i) {
            layers.push_back(Place{network.getLayer(i)});
        }
        for (Place& place : layers) {
            for (int32_t i = 0; i < place.layer->getNbOutputs(); ++i) {
                makers[place.layer->getOutput(i)] = &place;
            }
        }
        for (Place& place : layers) {
            place.kind = kind_of(*place.layer);
            for (int32_t i = 0; i < place.layer->getNbInputs(); ++i) {
                if (ITensor const* const input = place.layer->getInput(i)) {
                    readers[input].push_back(&place);
                }
            }
        }
    }

    // Keeps what is to be kept in `type`. Layers stand behind those that they read.
    void keep(DataType type) {
        std::for_each(layers.rbegin(), layers.rend(), [&](Place& place) { look_ahead(place); });
        for (Place& place : layers) {
            if (place.kind == Kind::kNEVER) {
                continue;
            }
            place.kept = is_kept(place);
            if (place.kept) {
                place.layer->setPrecision(type);
            }
            for (int32_t i = 0; (place.kept || !place.fits) && i < place.layer->getNbOutputs(); ++i) {
                if (is_float(place.layer->getOutput(i))) {
                    place.layer->setOutputType(i, type);
                }
            }
        }
    }

private:
    enum class Kind {
        kNEVER,     // has no kernels for INT8, or works on other than floats: left alone
        kFLOAT,     // loses by INT8
        kDEPTHWISE, // a filter for each channel
        kDENSE,     // gains by INT8
        kPOINTWISE, // what a dense one is fused with
        kMOVES,     // brings values elsewhere
    };

    struct Place {
        ILayer* layer;
        Kind kind = Kind::kNEVER;
        bool leads_on = false; // to another convolution, by nothing but pointwise layers and such that move
        bool fits = false;     // all who read its outputs take INT8
        bool kept = false;

        explicit Place(ILayer* of) : layer{of} {}

        bool passes() const { return kind == Kind::kPOINTWISE || kind == Kind::kMOVES; }
        // The last ones are read by what makes boxes and scores of it.
        bool is_quantized() const { return kind == Kind::kDENSE && leads_on; }
    };

    std::vector<Place> layers;
    std::map<ITensor const*, Place*> makers;
    std::map<ITensor const*, std::vector<Place*>> readers;

    static bool is_float(ITensor const* tensor) {
        return tensor && (tensor->getType() == DataType::kFLOAT || tensor->getType() == DataType::kHALF);
    }

    template <typename Convolution>
    static Kind convolution(ILayer& layer) {
        int64_t const groups = static_cast<Convolution&>(layer).getNbGroups();
        Dims const dims = layer.getInput(0)->getDimensions();
        return groups > 1 && dims.nbDims > 1 && groups == dims.d[1] ? Kind::kDEPTHWISE : Kind::kDENSE;
    }

    bool is_constant(ITensor const* tensor) const {
        auto const maker = makers.find(tensor);
        return maker != makers.end() && maker->second->layer->getType() == LayerType::kCONSTANT;
    }

    Kind kind_of(ILayer& layer) const {
        // Asked for one that it does not have, a layer logs an error.
        bool const has_both = layer.getNbInputs() > 0 && layer.getNbOutputs() > 0;
        if (!has_both || !is_float(layer.getInput(0)) || !is_float(layer.getOutput(0))) {
            return Kind::kNEVER;
        }
        switch (layer.getType()) {
        case LayerType::kCONVOLUTION: return convolution<IConvolutionLayer>(layer);
        case LayerType::kDECONVOLUTION: return convolution<IDeconvolutionLayer>(layer);
#if NV_TENSORRT_MAJOR < 10
        case LayerType::kFULLY_CONNECTED: return Kind::kDENSE;
#endif
        case LayerType::kMATRIX_MULTIPLY:
            return is_constant(layer.getInput(0)) || is_constant(layer.getInput(1)) ? Kind::kDENSE : Kind::kFLOAT;
        case LayerType::kACTIVATION:
        case LayerType::kELEMENTWISE:
        case LayerType::kPARAMETRIC_RELU:
        case LayerType::kSCALE: return Kind::kPOINTWISE;
        case LayerType::kCONCATENATION:
        case LayerType::kPADDING:
        case LayerType::kPOOLING:
        case LayerType::kRESIZE:
        case LayerType::kSHUFFLE:
        case LayerType::kSLICE: return Kind::kMOVES;
        case LayerType::kGATHER:
        case LayerType::kREDUCE:
        case LayerType::kSOFTMAX:
        case LayerType::kUNARY: return Kind::kFLOAT;
        default: return Kind::kNEVER;
        }
    }

    void look_ahead(Place& place) {
        bool is_read = false;
        place.fits = true;
        for (int32_t i = 0; i < place.layer->getNbOutputs(); ++i) {
            ITensor const* const output = place.layer->getOutput(i);
            place.fits = place.fits && !output->isNetworkOutput();
            for (Place const* reader : readers[output]) {
                if (reader->layer->getType() == LayerType::kSHAPE) {
                    continue;
                }
                is_read = true;
                bool const is_convolution = reader->kind == Kind::kDENSE || reader->kind == Kind::kDEPTHWISE;
                place.leads_on = place.leads_on || is_convolution || (reader->passes() && reader->leads_on);
                place.fits = place.fits && (reader->is_quantized() || (reader->passes() && reader->fits));
            }
        }
        place.fits = place.fits && is_read;
    }

    bool is_kept(Place const& place) const {
        switch (place.kind) {
        case Kind::kDENSE: return !place.leads_on;
        case Kind::kMOVES: return !place.fits;
        case Kind::kPOINTWISE: return !place.fits || reads_kept(place);
        default: return true;
        }
    }

    // Its input would be made INT8 for it, which is what the layer before was kept from.
    bool reads_kept(Place const& place) const {
        for (int32_t i = 0; i < place.layer->getNbInputs(); ++i) {
            auto const maker = makers.find(place.layer->getInput(i));
            if (maker != makers.end() && maker->second->kept) {
                return true;
            }
        }
        return false;
    }
};
#endif
