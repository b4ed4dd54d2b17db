// shim/mixed.h over stand-ins for the few types of TensorRT that it uses: prints what reads what in INT8 in a net like
// YOLOX. A real network needs a builder, and that a GPU.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#define NV_TENSORRT_MAJOR 8
#define SHIM_STRONG 0

enum class DataType { kFLOAT, kHALF, kINT8, kINT32 };
enum class LayerType {
    kCONVOLUTION, kMATRIX_MULTIPLY, kACTIVATION, kELEMENTWISE, kPARAMETRIC_RELU, kSCALE, kCONCATENATION, kPADDING, kPOOLING,
    kRESIZE, kSHUFFLE, kSLICE, kSOFTMAX, kSHAPE, kCONSTANT, kQUANTIZE, kDEQUANTIZE
};

struct Dims {
    int32_t nbDims = 0;
    int32_t d[8] = {};
};

struct Weights {
    DataType type;
    void const* values;
    int64_t count;
};

struct ILayer;

struct ITensor {
    std::string name;
    DataType type = DataType::kFLOAT;
    char const* getName() const { return name.c_str(); }
    void setName(char const* to) { name = to; }
    bool isNetworkOutput() const { return false; }
    DataType getType() const { return type; }
    Dims getDimensions() const { return {4, {1, 16, 8, 8}}; }
};

struct ILayer {
    std::string name;
    LayerType type{};
    std::vector<ITensor*> inputs;
    ITensor output;
    int32_t groups = 1;
    Weights weights{DataType::kFLOAT, nullptr, 0};
    Weights bias{DataType::kFLOAT, nullptr, 0};
    Dims dims, stride, pre, post, dilation;
    int32_t mode = 0;
    int32_t axis = -1;

    LayerType getType() const { return type; }
    int32_t getNbInputs() const { return static_cast<int32_t>(inputs.size()); }
    int32_t getNbOutputs() const { return 1; }
    ITensor* getInput(int32_t i) { return inputs.at(static_cast<size_t>(i)); }
    ITensor* getOutput(int32_t) { return &output; }
    int32_t getNbGroups() const { return groups; }
    int32_t getNbOutputMaps() const { return 2; }
    Dims getKernelSizeNd() const { return {2, {1, 3}}; }
    char const* getName() const { return name.c_str(); }
    void setName(char const* to) { name = to; }
    void setNbGroups(int32_t to) { groups = to; }
    Weights getKernelWeights() const { return weights; }
    Weights getBiasWeights() const { return bias; }
    Dims getStrideNd() const { return stride; }
    void setStrideNd(Dims to) { stride = to; }
    Dims getPrePadding() const { return pre; }
    void setPrePadding(Dims to) { pre = to; }
    Dims getPostPadding() const { return post; }
    void setPostPadding(Dims to) { post = to; }
    Dims getDilationNd() const { return dilation; }
    void setDilationNd(Dims to) { dilation = to; }
    int32_t getPaddingMode() const { return mode; }
    void setPaddingMode(int32_t to) { mode = to; }
    void setAxis(int32_t to) { axis = to; }
    void setInput(int32_t i, ITensor& to) {
        inputs.resize(std::max(inputs.size(), static_cast<size_t>(i) + 1));
        inputs[static_cast<size_t>(i)] = &to;
    }
};

using IConvolutionLayer = ILayer;

// Two filters over four channels: the second has zeros only.
float const FILTERS[24] = {1, -12.7F, 3};

struct INetworkDefinition {
    std::deque<ILayer> layers;

    int32_t getNbLayers() const { return static_cast<int32_t>(layers.size()); }
    ILayer* getLayer(int32_t i) { return &layers.at(static_cast<size_t>(i)); }

    ILayer* add(std::string const& name, LayerType type, std::vector<ITensor*> inputs) {
        ILayer& layer = layers.emplace_back();
        layer.name = layer.output.name = name;
        layer.type = type;
        layer.inputs = std::move(inputs);
        return &layer;
    }

    ITensor* plain(std::string const& name, ITensor* input, int32_t groups = 1) {
        ILayer* const layer = add(name, LayerType::kCONVOLUTION, {input});
        layer->groups = groups;
        layer->weights = Weights{DataType::kFLOAT, FILTERS, 24};
        layer->bias.count = layer->mode = 1;
        layer->stride.nbDims = layer->pre.nbDims = layer->post.nbDims = layer->dilation.nbDims = 2;
        layer->stride.d[1] = 3, layer->pre.d[1] = 4, layer->post.d[1] = 5, layer->dilation.d[1] = 6;
        return &layer->output;
    }

    // With its SiLU.
    ITensor* convolution(std::string const& name, ITensor* input, int32_t groups = 1) {
        ITensor* const raw = plain(name, input, groups);
        ITensor* const sigmoid = &add(name + ".sigmoid", LayerType::kACTIVATION, {raw})->output;
        return &add(name + ".mul", LayerType::kELEMENTWISE, {raw, sigmoid})->output;
    }

    ILayer* addConvolutionNd(ITensor& input, int32_t, Dims const&, Weights weights, Weights bias) {
        ILayer* const layer = add("convolution", LayerType::kCONVOLUTION, {&input});
        layer->weights = weights;
        layer->bias = bias;
        return layer;
    }
    ILayer* addConstant(Dims const& dims, Weights weights) {
        ILayer* const layer = add("constant", LayerType::kCONSTANT, {});
        layer->dims = dims;
        layer->weights = weights;
        return layer;
    }
    ILayer* addQuantize(ITensor& input, ITensor& scale) {
        return add(input.name + ".q", LayerType::kQUANTIZE, {&input, &scale});
    }
    ILayer* addDequantize(ITensor& input, ITensor& scale) {
        return add(input.name + ".dq", LayerType::kDEQUANTIZE, {&input, &scale});
    }
};

#include "../shim/mixed.h"

void fill(INetworkDefinition& net, ITensor* image) {
    ITensor* const stem = net.convolution("stem", image);
    ITensor* const left = net.convolution("left", stem);
    ITensor* const right = net.convolution("right", stem);
    ITensor* const depthwise = net.convolution("depthwise", left, 16);
    ITensor* const point = net.convolution("point", depthwise);
    ITensor* const joined = &net.add("join", LayerType::kCONCATENATION, {point, right})->output;
    ITensor* const shape = &net.add("shape", LayerType::kSHAPE, {joined})->output;
    shape->type = DataType::kINT32;
    ITensor* const sized = &net.add("shape.slice", LayerType::kSLICE, {shape})->output;
    sized->type = DataType::kINT32;
    ITensor* const resized = &net.add("resize", LayerType::kRESIZE, {joined, sized})->output;
    ITensor* const grouped = net.convolution("grouped", resized, 4);
    ITensor* const boxes = net.plain("boxes", grouped);
    ITensor* const scores = net.plain("scores", grouped);
    ITensor* const sure = &net.add("scores.sigmoid", LayerType::kACTIVATION, {scores})->output;
    ITensor* const head = &net.add("head", LayerType::kCONCATENATION, {boxes, sure})->output;
    // A convolution behind softmax, as YOLOv8 makes distances of: what it reads is no less fine than boxes are.
    ITensor* const soft = &net.add("soft", LayerType::kSOFTMAX, {head})->output;
    net.add("output", LayerType::kSHUFFLE, {net.plain("distances", soft)});
    // Quantized already.
    ILayer* const own = net.add("own", LayerType::kCONVOLUTION, {left, right});
    net.plain("after", &own->output);
}

int main(int count, char** arguments) {
    INetworkDefinition net;
    ITensor image{"image"};
    fill(net, &image);
    std::string table = "TRT-8503-MinMaxCalibration\nimage: 40008102\nother: in: 3c010a14\n";
    for (ILayer const& layer : net.layers) {
        table += layer.name + ": 3f800000\n";
    }
    bool const is_half = count > 1 && !std::strcmp(arguments[1], "half");
    for (ILayer& layer : net.layers) {
        layer.weights.type = is_half ? DataType::kHALF : layer.weights.type;
    }
    auto const before = net.layers.size();
    Mixed mixed{net};
    try {
        std::printf("%d\n", mixed.quantize(count > 1 && !is_half ? arguments[1] : table));
    } catch (std::invalid_argument const& error) {
        std::puts(error.what());
        return 0;
    }
    std::map<ITensor*, std::string> readers;
    for (ILayer& layer : net.layers) {
        for (ITensor* input : layer.inputs) {
            readers[input] += " " + layer.name;
        }
    }
    for (size_t i = before; i < net.layers.size(); ++i) {
        ILayer& layer = net.layers[i];
        bool const is_like_the_old = layer.stride.d[1] == 3 && layer.pre.d[1] == 4 && layer.post.d[1] == 5
            && layer.dilation.d[1] == 6 && layer.mode == 1 && layer.bias.count == 1;
        if (layer.type == LayerType::kCONVOLUTION && is_like_the_old) {
            std::printf("%s reads %s and %s, %d groups, read by%s\n", layer.output.name.c_str(), layer.inputs[0]->name.c_str(),
                layer.inputs[1]->name.c_str(), layer.groups, readers[&layer.output].c_str());
        }
    }
    for (size_t i = 0; i < before; ++i) {
        ILayer& layer = net.layers[i];
        if (layer.output.name.find(" as it was") != std::string::npos && !readers[&layer.output].empty()) {
            std::puts("an old one is read");
        }
    }
    for (size_t i = before; i < net.layers.size(); ++i) {
        ILayer const& layer = net.layers[i];
        auto const* const values = static_cast<float const*>(layer.weights.values);
        if (layer.type == LayerType::kQUANTIZE && layer.axis != 0) {
            std::puts("axis");
        }
        if (layer.type == LayerType::kCONSTANT && layer.dims.nbDims < 2) {
            std::printf("scale of %d:", static_cast<int>(layer.weights.count));
            for (int64_t j = 0; j < layer.weights.count; ++j) {
                std::printf(" %.4f", static_cast<double>(values[j]));
            }
            std::puts("");
        } else if (layer.type == LayerType::kCONSTANT) {
            std::printf("filters of %d x %d x %d x %d\n", layer.dims.d[0], layer.dims.d[1], layer.dims.d[2], layer.dims.d[3]);
        }
    }
}
