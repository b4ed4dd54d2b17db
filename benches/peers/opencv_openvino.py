"""The usual Python loop with OpenVINO: its own queue of asynchronous requests, post-processing in the callback."""

import common
import openvino


def main():
    parser = common.arguments(__doc__)
    parser.add_argument("--requests", type=int, default=2)
    options = parser.parse_args()
    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": options.precision,
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": str(options.requests),
    }
    model = core.compile_model(options.model, "CPU", settings)
    requests = openvino.AsyncInferQueue(model, options.requests)
    cameras, counter = common.Cameras(options.clip, options.streams), common.Counter(options)

    def finished(request, scale):
        counter.add(common.detections(request.get_output_tensor(0).data[0], scale))

    requests.set_callback(finished)
    while counter.running():
        tensor, scale = cameras.next()
        requests.start_async({0: tensor}, scale)
    requests.wait_all()
    common.report("OpenCV + OpenVINO", f"openvino {openvino.__version__}", options, counter)


if __name__ == "__main__":
    main()
