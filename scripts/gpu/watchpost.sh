# How the stages of scripts/gpu/host configure and call watchpost: the one place to change when its settings or commands
# do. Sourced. Uses $G (the folder of what was unpacked) and $run (the command that sets the environment).

# Engines by name: what they are made of. The first is the one of the benches.
engine_precision() {
    case $1 in
    # Quantized before: the model brings its own scales.
    *-qdq) echo int8 ;;
    *) echo "${1##*-}" ;;
    esac
}

# manifest ENGINE: writes the engine's manifest and prints its path.
manifest() {
    local file=$G/manifests/$1.toml precision model
    precision=$(engine_precision "$1")
    mkdir -p "$G/manifests"
    case $1 in
    yolov8n-*)
        # The model's own manifest, its ONNX named in full; its own [tensorrt] section, if any, stands last.
        sed "s|^model = \"\([^/].*\)\"|model = \"$G/model/\1\"|; /^\[tensorrt\]/,\$d" "$G/model/yolov8n.toml" >"$file"
        ;;
    yolox-nano-*)
        model=$G/assets/models/yolox_nano.onnx
        [ "$1" != yolox-nano-qdq ] || model=$G/qdq/yolox_nano_qdq.onnx
        cat >"$file" <<TOML
name = "yolox-nano"
model = "$model"
labels = "coco80"
[input]
range = "0..255"
channels = "bgr"
letterbox = "top-left"
[output]
head = "yolox"
TOML
        ;;
    *)
        echo "no engine $1: yolov8n-fp16, yolox-nano-fp32, yolox-nano-fp16, yolox-nano-int8" >&2
        return 1
        ;;
    esac
    {
        echo "[tensorrt]"
        echo "precision = \"$precision\""
        [ "${1##*-}" != int8 ] || echo "calibration = \"$G/calibration/${1%-*}.frames\""
    } >>"$file"
    echo "$file"
}

engine_batch() {
    case $1 in yolov8n-*) echo 16 ;; *) echo 1 ;; esac
}

# config ENGINE CLIP STREAMS PACE FILE: a configuration in FILE, with a folder for its state beside it. A PACE of rtsp: RTSP
# servers have the clip, the first at RTSP_PORT, CAMERAS_A_SERVER cameras each. CONFIG_LINES: more sections, such as [motion].
# CAMERA_LINES: more settings of each camera.
config() {
    local engine=$1 clip=$2 streams=$3 pace=$4 file=$5 n decoders from
    read -r -a decoders <<<"${DECODE:-cuda}"
    {
        cat <<TOML
node = "${NODE:-gpu}"
state_dir = "${file%.toml}-state"
[engine]
manifest = "$(manifest "$engine")"
backend = "tensorrt"
batch = $(engine_batch "$engine")
batch_deadline = "${BATCH_DEADLINE:-20ms}"
[engine.tensorrt]
library = "$G/trt"
engine = "$G/engines/$engine.engine"
contexts = ${CONTEXTS:-2}
build = false
[mqtt]
broker = "mqtt://127.0.0.1:$BROKER_PORT"
[events]
enabled = ${EVENTS:-true}
[http]
listen = "127.0.0.1:$HTTP_PORT"
[snapshots]
enabled = ${SNAPSHOTS:-true}
${CONFIG_LINES:-}
TOML
        for ((n = 0; n < streams; n++)); do
            from="url = \"$clip\"\npace = \"$pace\"\nrepeat = true"
            [ "$pace" != rtsp ] || from="url = \"rtsp://127.0.0.1:$((RTSP_PORT + n / CAMERAS_A_SERVER))/live\""
            cat <<TOML
[[camera]]
id = "stream$n"
$(echo -e "$from")
decode = "${decoders[n % ${#decoders[@]}]}"
${CAMERA_LINES:-}
TOML
        done
    } >"$file"
}

# engine_build ENGINE: $G/engines/ENGINE.engine and its stamp, with and into the timing cache $G/engines/timing.cache.
engine_build() {
    local frames=$G/calibration/${1%-*}.frames
    mkdir -p "$G/engines" "$G/calibration"
    if [ "${1##*-}" = int8 ] && [ ! -f "$frames" ]; then
        $run "$G/bin/watchpost" engine calibrate --manifest "$(manifest "${1%-*}-fp32")" \
            --images "$G/assets/calibration" --out "$frames"
    fi
    # In place of the shell: what ends that ends the build.
    exec $run "$G/bin/watchpost" --log "${ENGINE_LOG:-info}" engine build --manifest "$(manifest "$1")" --batch "$(engine_batch "$1")" \
        --tensorrt "$G/trt" --timing-cache "$G/engines/timing.cache" --out "$G/engines/$1.engine"
}

# engine_alone ENGINE CONTEXTS SECONDS [OPTION...]: JSON of the engine in a loop.
engine_alone() {
    local engine=$G/engines/$1.engine contexts=$2 seconds=$3
    shift 3
    $run "$G/bin/watchpost" engine bench "$engine" --contexts "$contexts" --seconds "$seconds" --json \
        --tensorrt "$G/trt" "$@"
}

# detect_coco ENGINE FILE: COCO results of the pictures, which the CPU decodes: as where they are compared.
detect_coco() {
    GST_PLUGIN_FEATURE_RANK=nvjpegdec:NONE $run "$G/bin/watchpost" --log warn detect --engine "$(manifest "$1")" --built "$G/engines/$1.engine" \
        --tensorrt "$G/trt" --coco "$2" "$G/assets/coco-ccby/images"
}

# bench CONFIG SECONDS JSON
bench() {
    $run "$G/bin/watchpost" --log warn bench "$1" --seconds "$2" --json "$3"
}
