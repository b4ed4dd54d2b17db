# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_watchpost_global_optspecs
    string join \n log= h/help V/version
end

function __fish_watchpost_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_watchpost_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_watchpost_using_subcommand
    set -l cmd (__fish_watchpost_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c watchpost -n "__fish_watchpost_needs_command" -l log -d 'What is logged, such as `debug` or `info,watchpost::camera=debug` (also WATCHPOST_LOG)' -r
complete -c watchpost -n "__fish_watchpost_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c watchpost -n "__fish_watchpost_needs_command" -s V -l version -d 'Print version'
complete -c watchpost -n "__fish_watchpost_needs_command" -f -a "run" -d 'Run the daemon'
complete -c watchpost -n "__fish_watchpost_needs_command" -f -a "check" -d 'Check a configuration and this machine: every problem at once'
complete -c watchpost -n "__fish_watchpost_needs_command" -f -a "probe" -d 'Connect to one camera, say what it delivers and save one picture'
complete -c watchpost -n "__fish_watchpost_needs_command" -f -a "detect" -d 'Run a model over pictures'
complete -c watchpost -n "__fish_watchpost_needs_command" -f -a "engine" -d 'TensorRT engines: build, calibrate, inspect, check, bench'
complete -c watchpost -n "__fish_watchpost_needs_command" -f -a "bench" -d 'Measure end to end, the engine alone and decoding alone, in one run'
complete -c watchpost -n "__fish_watchpost_needs_command" -f -a "schema" -d 'Print the JSON Schemas of the messages'
complete -c watchpost -n "__fish_watchpost_needs_command" -f -a "manual" -d 'Write man pages and shell completions'
complete -c watchpost -n "__fish_watchpost_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c watchpost -n "__fish_watchpost_using_subcommand run" -l log -d 'What is logged, such as `debug` or `info,watchpost::camera=debug` (also WATCHPOST_LOG)' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand run" -s h -l help -d 'Print help'
complete -c watchpost -n "__fish_watchpost_using_subcommand check" -l log -d 'What is logged, such as `debug` or `info,watchpost::camera=debug` (also WATCHPOST_LOG)' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand check" -s h -l help -d 'Print help'
complete -c watchpost -n "__fish_watchpost_using_subcommand probe" -l duration -d 'How long to watch' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand probe" -l jpeg -d 'Where the picture goes' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand probe" -l ca-file -d 'Certificate authority (PEM) of an RTSPS camera' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand probe" -l log -d 'What is logged, such as `debug` or `info,watchpost::camera=debug` (also WATCHPOST_LOG)' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand probe" -l udp -d 'RTP over UDP instead of TCP'
complete -c watchpost -n "__fish_watchpost_using_subcommand probe" -l insecure -d 'Accept any certificate'
complete -c watchpost -n "__fish_watchpost_using_subcommand probe" -s h -l help -d 'Print help'
complete -c watchpost -n "__fish_watchpost_using_subcommand detect" -l engine -d 'Engine manifest' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand detect" -l model -d 'ONNX file in place of the manifest\'s' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand detect" -l coco -d 'Write COCO results here; the image id is the number in the file name' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand detect" -l fps-max -d 'With --track, most frames a second of video time' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand detect" -l confidence -d 'Least score [default: 0.01 with --coco, 0.1 with --track, else the manifest\'s]' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand detect" -l nms -d 'Overlap limit of NMS [default: 0.65 with --coco, else the manifest\'s]' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand detect" -l precision -d 'Inference precision: auto, f32, f16, bf16' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand detect" -l device -d 'OpenVINO device' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand detect" -l openvino -d 'Path of libopenvino_c.so' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand detect" -l built -d 'Run this TensorRT engine, built by `engine build` from the same manifest' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand detect" -l tensorrt -d 'Folder of TensorRT\'s libraries' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand detect" -l log -d 'What is logged, such as `debug` or `info,watchpost::camera=debug` (also WATCHPOST_LOG)' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand detect" -l track -d 'Follow objects through videos, with the default settings of [tracking]: a line of JSON a frame and a track'
complete -c watchpost -n "__fish_watchpost_using_subcommand detect" -s h -l help -d 'Print help'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and not __fish_seen_subcommand_from build calibrate inspect check bench help" -l log -d 'What is logged, such as `debug` or `info,watchpost::camera=debug` (also WATCHPOST_LOG)' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and not __fish_seen_subcommand_from build calibrate inspect check bench help" -s h -l help -d 'Print help'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and not __fish_seen_subcommand_from build calibrate inspect check bench help" -f -a "build" -d 'Build a TensorRT engine of a model, for the GPU and the TensorRT of this machine'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and not __fish_seen_subcommand_from build calibrate inspect check bench help" -f -a "calibrate" -d 'Gather frames for INT8, from live cameras or from a folder'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and not __fish_seen_subcommand_from build calibrate inspect check bench help" -f -a "inspect" -d 'Show what a built engine is: its stamp, its layers after fusion, their time'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and not __fish_seen_subcommand_from build calibrate inspect check bench help" -f -a "check" -d 'Find operators that TensorRT will not take, and whether an engine fits this machine'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and not __fish_seen_subcommand_from build calibrate inspect check bench help" -f -a "bench" -d 'Run a built engine alone in a loop'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and not __fish_seen_subcommand_from build calibrate inspect check bench help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from build" -l manifest -d 'Engine manifest' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from build" -l config -d 'Configuration file: its manifest, model, batch, device and state_dir hold' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from build" -l onnx -d 'ONNX file in place of the manifest\'s' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from build" -l batch -d 'Frames a call [default: the configuration\'s, else the model\'s, else 1]' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from build" -l batches -d 'Least, best and most frames a call of a model whose batch is dynamic, such as 1,8,16 [default: the manifest\'s]' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from build" -l precision -d 'fp32, fp16 or int8 [default: the manifest\'s]' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from build" -l out -d 'Where the engine goes [default: the configuration\'s, else a name that says what it is for, in state_dir/engines, or in `built` beside the manifest]' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from build" -l timing-cache -d 'The builder\'s measurements, read and written [default: beside the engine, one file a GPU and TensorRT]' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from build" -l workspace -d 'Most GPU memory that a layer may use while it runs, such as 1GiB [default: the manifest\'s]' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from build" -l calibration -d 'For int8: frames of `engine calibrate`, or a table of TensorRT\'s [default: the manifest\'s]' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from build" -l progress -d 'How progress is told' -r -f -a "auto\t'A bar on a terminal, else a line every ten seconds'
json\t'A JSON object a line on standard output, each second'"
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from build" -l tensorrt -d 'Folder of libnvinfer and the ONNX parser [default: the configuration\'s, else the loader\'s path]' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from build" -l device -d 'Number of the CUDA device [default: the configuration\'s, else 0]' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from build" -l log -d 'What is logged, such as `debug` or `info,watchpost::camera=debug` (also WATCHPOST_LOG)' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from build" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from calibrate" -l manifest -d 'Engine manifest [default: the configuration\'s]' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from calibrate" -l images -d 'Pictures and clips, or folders of them' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from calibrate" -l config -d 'Configuration file: frames come from its cameras' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from calibrate" -l seconds -d 'How long to watch the cameras: a day\'s light and traffic make better frames than a minute\'s' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from calibrate" -l frames -d 'How many frames in all' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from calibrate" -l out -d 'Where they go; put this path into the manifest as `tensorrt.calibration`' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from calibrate" -l log -d 'What is logged, such as `debug` or `info,watchpost::camera=debug` (also WATCHPOST_LOG)' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from calibrate" -s h -l help -d 'Print help'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from inspect" -l plugins -d 'A plug-in library that it was built with; once for each' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from inspect" -l tensorrt -d 'Folder of libnvinfer and the ONNX parser [default: the configuration\'s, else the loader\'s path]' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from inspect" -l device -d 'Number of the CUDA device [default: the configuration\'s, else 0]' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from inspect" -l log -d 'What is logged, such as `debug` or `info,watchpost::camera=debug` (also WATCHPOST_LOG)' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from inspect" -l json -d 'Print the inspector\'s own JSON in place of the table'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from inspect" -s h -l help -d 'Print help'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from check" -l engine -d 'A built engine whose stamp is held against manifest and machine' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from check" -l batch -d 'Frames a call that the engine must take [default: what it was built for]' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from check" -l tensorrt -d 'Folder of libnvinfer and the ONNX parser [default: the configuration\'s, else the loader\'s path]' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from check" -l device -d 'Number of the CUDA device [default: the configuration\'s, else 0]' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from check" -l log -d 'What is logged, such as `debug` or `info,watchpost::camera=debug` (also WATCHPOST_LOG)' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from bench" -l batch -d 'Frames a call [default: what the engine was tuned for]' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from bench" -l contexts -d 'Contexts at work at once' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from bench" -l seconds -d 'How long to measure' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from bench" -l plugins -d 'A plug-in library that it was built with; once for each [default: the manifest\'s]' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from bench" -l tensorrt -d 'Folder of libnvinfer and the ONNX parser [default: the configuration\'s, else the loader\'s path]' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from bench" -l device -d 'Number of the CUDA device [default: the configuration\'s, else 0]' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from bench" -l log -d 'What is logged, such as `debug` or `info,watchpost::camera=debug` (also WATCHPOST_LOG)' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from bench" -l no-graph -d 'Without CUDA graphs'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from bench" -l json -d 'Print the figures as JSON'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from bench" -s h -l help -d 'Print help'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from help" -f -a "build" -d 'Build a TensorRT engine of a model, for the GPU and the TensorRT of this machine'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from help" -f -a "calibrate" -d 'Gather frames for INT8, from live cameras or from a folder'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from help" -f -a "inspect" -d 'Show what a built engine is: its stamp, its layers after fusion, their time'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from help" -f -a "check" -d 'Find operators that TensorRT will not take, and whether an engine fits this machine'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from help" -f -a "bench" -d 'Run a built engine alone in a loop'
complete -c watchpost -n "__fish_watchpost_using_subcommand engine; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c watchpost -n "__fish_watchpost_using_subcommand bench" -l seconds -d 'Seconds for each of the three measurements' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand bench" -l json -d 'Write the figures here as JSON too' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand bench" -l log -d 'What is logged, such as `debug` or `info,watchpost::camera=debug` (also WATCHPOST_LOG)' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand bench" -s h -l help -d 'Print help'
complete -c watchpost -n "__fish_watchpost_using_subcommand schema" -l out -d 'Write one file a message into this folder instead' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand schema" -l log -d 'What is logged, such as `debug` or `info,watchpost::camera=debug` (also WATCHPOST_LOG)' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand schema" -s h -l help -d 'Print help'
complete -c watchpost -n "__fish_watchpost_using_subcommand manual" -l out -d 'Folder in which `man` and `completions` are made' -r -F
complete -c watchpost -n "__fish_watchpost_using_subcommand manual" -l log -d 'What is logged, such as `debug` or `info,watchpost::camera=debug` (also WATCHPOST_LOG)' -r
complete -c watchpost -n "__fish_watchpost_using_subcommand manual" -s h -l help -d 'Print help'
complete -c watchpost -n "__fish_watchpost_using_subcommand help; and not __fish_seen_subcommand_from run check probe detect engine bench schema manual help" -f -a "run" -d 'Run the daemon'
complete -c watchpost -n "__fish_watchpost_using_subcommand help; and not __fish_seen_subcommand_from run check probe detect engine bench schema manual help" -f -a "check" -d 'Check a configuration and this machine: every problem at once'
complete -c watchpost -n "__fish_watchpost_using_subcommand help; and not __fish_seen_subcommand_from run check probe detect engine bench schema manual help" -f -a "probe" -d 'Connect to one camera, say what it delivers and save one picture'
complete -c watchpost -n "__fish_watchpost_using_subcommand help; and not __fish_seen_subcommand_from run check probe detect engine bench schema manual help" -f -a "detect" -d 'Run a model over pictures'
complete -c watchpost -n "__fish_watchpost_using_subcommand help; and not __fish_seen_subcommand_from run check probe detect engine bench schema manual help" -f -a "engine" -d 'TensorRT engines: build, calibrate, inspect, check, bench'
complete -c watchpost -n "__fish_watchpost_using_subcommand help; and not __fish_seen_subcommand_from run check probe detect engine bench schema manual help" -f -a "bench" -d 'Measure end to end, the engine alone and decoding alone, in one run'
complete -c watchpost -n "__fish_watchpost_using_subcommand help; and not __fish_seen_subcommand_from run check probe detect engine bench schema manual help" -f -a "schema" -d 'Print the JSON Schemas of the messages'
complete -c watchpost -n "__fish_watchpost_using_subcommand help; and not __fish_seen_subcommand_from run check probe detect engine bench schema manual help" -f -a "manual" -d 'Write man pages and shell completions'
complete -c watchpost -n "__fish_watchpost_using_subcommand help; and not __fish_seen_subcommand_from run check probe detect engine bench schema manual help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c watchpost -n "__fish_watchpost_using_subcommand help; and __fish_seen_subcommand_from engine" -f -a "build" -d 'Build a TensorRT engine of a model, for the GPU and the TensorRT of this machine'
complete -c watchpost -n "__fish_watchpost_using_subcommand help; and __fish_seen_subcommand_from engine" -f -a "calibrate" -d 'Gather frames for INT8, from live cameras or from a folder'
complete -c watchpost -n "__fish_watchpost_using_subcommand help; and __fish_seen_subcommand_from engine" -f -a "inspect" -d 'Show what a built engine is: its stamp, its layers after fusion, their time'
complete -c watchpost -n "__fish_watchpost_using_subcommand help; and __fish_seen_subcommand_from engine" -f -a "check" -d 'Find operators that TensorRT will not take, and whether an engine fits this machine'
complete -c watchpost -n "__fish_watchpost_using_subcommand help; and __fish_seen_subcommand_from engine" -f -a "bench" -d 'Run a built engine alone in a loop'
