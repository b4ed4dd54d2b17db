"""The usual Python loop with ONNX Runtime (float32; its CPU provider has no bfloat16)."""

import common
import onnxruntime


def main():
    options = common.arguments(__doc__).parse_args()
    if options.precision != "f32":
        raise SystemExit("ONNX Runtime's CPU provider runs this model at f32 only: give --precision f32")
    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(options.model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    cameras, counter = common.Cameras(options.clip, options.streams), common.Counter(options)
    while counter.running():
        tensor, scale = cameras.next()
        output = session.run(None, {name: tensor})[0]
        counter.add(common.detections(output[0], scale))
    common.report("OpenCV + ONNX Runtime", f"onnxruntime {onnxruntime.__version__}", options, counter)


if __name__ == "__main__":
    main()
