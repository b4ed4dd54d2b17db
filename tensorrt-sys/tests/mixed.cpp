// shim/mixed.h over stand-ins for the few types of TensorRT that it uses: prints what becomes of each layer of a net like
// YOLOX. A real network needs a builder, and that a GPU.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <map>
#include <string>
#include <vector>

#define NV_TENSORRT_MAJOR 8
#define SHIM_STRONG 0

enum class DataType { kFLOAT, kHALF, kINT8, kINT32 };
enum class LayerType {
    kCONVOLUTION, kDECONVOLUTION, kFULLY_CONNECTED, kMATRIX_MULTIPLY, kACTIVATION, kELEMENTWISE, kPARAMETRIC_RELU, kSCALE,
    kCONCATENATION, kPADDING, kPOOLING, kRESIZE, kSHUFFLE, kSLICE, kGATHER, kREDUCE, kSOFTMAX, kUNARY, kSHAPE, kCONSTANT, kTOPK
};

struct Dims {
    int32_t nbDims = 4;
    int32_t d[8] = {1, 16, 8, 8};
};

struct ITensor {
    DataType type = DataType::kFLOAT;
    bool network_output = false;
    DataType getType() const { return type; }
    Dims getDimensions() const { return {}; }
    bool isNetworkOutput() const { return network_output; }
};

struct ILayer {
    std::string name;
    LayerType type;
    std::vector<ITensor*> inputs;
    ITensor output;
    int32_t groups = 1;
    bool half = false;
    bool half_out = false;

    LayerType getType() const { return type; }
    int32_t getNbInputs() const { return static_cast<int32_t>(inputs.size()); }
    int32_t getNbOutputs() const { return 1; }
    ITensor* getInput(int32_t i) { return inputs.at(static_cast<size_t>(i)); }
    ITensor* getOutput(int32_t) { return &output; }
    int32_t getNbGroups() const { return groups; }
    void setPrecision(DataType to) { half = to == DataType::kHALF; }
    void setOutputType(int32_t, DataType to) { half_out = to == DataType::kHALF; }
};

using IConvolutionLayer = ILayer;
using IDeconvolutionLayer = ILayer;

struct INetworkDefinition {
    std::deque<ILayer> layers;

    int32_t getNbLayers() const { return static_cast<int32_t>(layers.size()); }
    ILayer* getLayer(int32_t i) { return &layers.at(static_cast<size_t>(i)); }

    ITensor* add(char const* name, LayerType type, std::vector<ITensor*> inputs, int32_t groups = 1) {
        layers.push_back({name, type, std::move(inputs), {}, groups});
        return &layers.back().output;
    }

    // With its SiLU.
    ITensor* convolution(std::string const& name, ITensor* input, int32_t groups = 1) {
        ITensor* const plain = add(name.c_str(), LayerType::kCONVOLUTION, {input}, groups);
        ITensor* const sigmoid = add((name + ".sigmoid").c_str(), LayerType::kACTIVATION, {plain});
        return add((name + ".mul").c_str(), LayerType::kELEMENTWISE, {plain, sigmoid});
    }
};

#include "../shim/mixed.h"

int main() {
    INetworkDefinition net;
    ITensor image;
    ITensor* const stem = net.convolution("stem", &image);
    ITensor* const left = net.convolution("left", stem);
    ITensor* const right = net.convolution("right", stem);
    ITensor* const depthwise = net.convolution("depthwise", left, 16);
    ITensor* const point = net.convolution("point", depthwise);
    ITensor* const joined = net.add("join", LayerType::kCONCATENATION, {point, right});
    ITensor* const shape = net.add("shape", LayerType::kSHAPE, {joined});
    shape->type = DataType::kINT32;
    ITensor* const sized = net.add("shape.slice", LayerType::kSLICE, {shape});
    sized->type = DataType::kINT32;
    ITensor* const grouped = net.convolution("grouped", net.add("resize", LayerType::kRESIZE, {joined, sized}), 4);
    ITensor* const boxes = net.add("boxes", LayerType::kCONVOLUTION, {grouped});
    ITensor* const scores = net.add("scores", LayerType::kCONVOLUTION, {grouped});
    ITensor* const sure = net.add("scores.sigmoid", LayerType::kACTIVATION, {scores});
    ITensor* const head = net.add("head", LayerType::kCONCATENATION, {boxes, sure});
    // A convolution behind softmax, as YOLOv8 makes distances of: what it reads is no less fine than boxes are.
    ITensor* const soft = net.add("soft", LayerType::kSOFTMAX, {head});
    ITensor* const distances = net.add("distances", LayerType::kCONVOLUTION, {soft});
    net.add("output", LayerType::kSHUFFLE, {distances})->network_output = true;
    ITensor* const matrix = net.add("matrix", LayerType::kCONSTANT, {});
    ITensor* const first = net.add("first", LayerType::kMATRIX_MULTIPLY, {left, matrix});
    ITensor* const middle = net.add("middle", LayerType::kMATRIX_MULTIPLY, {first, matrix});
    ITensor* const attention = net.add("attention", LayerType::kMATRIX_MULTIPLY, {middle, middle});
    net.add("second", LayerType::kMATRIX_MULTIPLY, {attention, matrix})->network_output = true;

    Mixed{net}.keep(DataType::kHALF);
    for (ILayer const& layer : net.layers) {
        std::printf("%s %s\n", layer.name.c_str(), layer.half ? "half" : layer.half_out ? "half-out" : "free");
    }
}
