//! ONNX models of a few hundred bytes, written field by field (onnx.proto), so that tests need no model to download.

/// Values on the wire: a number, or bytes with their length.
fn number(field: u8, value: u8) -> Vec<u8> {
    assert!(value < 0x80, "one byte is enough here");
    vec![field << 3, value]
}

fn bytes(field: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    let mut left = body.len();
    while left >= 0x80 {
        out.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
    out.extend_from_slice(body);
    out
}

/// A float32 tensor's name and shape; a dimension of 0 is left open.
fn tensor(name: &str, shape: &[u64]) -> Vec<u8> {
    let dimension = |d: &u64| {
        if *d == 0 {
            return bytes(1, &bytes(2, b"batch"));
        }
        let (low, high) = ((d & 0x7f) as u8 | 0x80, u8::try_from(d >> 7).unwrap());
        bytes(1, &[1 << 3, low, high])
    };
    let shape: Vec<u8> = shape.iter().flat_map(dimension).collect();
    let kind = bytes(1, &[number(1, 1), bytes(2, &shape)].concat());
    [bytes(1, name.as_bytes()), bytes(2, &kind)].concat()
}

fn model(nodes: &[u8], initializers: &[u8], output: &[u64]) -> Vec<u8> {
    let input = bytes(11, &tensor("images", &[output[0], 3, 32, 32]));
    let output = bytes(12, &tensor("output", output));
    let graph = [nodes, &bytes(2, b"tiny"), initializers, &input, &output].concat();
    let opset = [bytes(1, b""), number(2, 13)].concat();
    [number(1, 8), bytes(7, &graph), bytes(8, &opset)].concat()
}

/// Input 1 x 3 x 32 x 32 as 1 x 6 x 512: read as a YOLOv8 head of two classes.
pub fn yolov8() -> Vec<u8> {
    yolov8_of_batch(1, 1)
}

/// The same for any batch: Reshape takes a 0 for the input's own.
pub fn yolov8_any_batch() -> Vec<u8> {
    yolov8_of_batch(0, 1)
}

/// The same for four pictures a call.
pub fn yolov8_of_four() -> Vec<u8> {
    yolov8_of_batch(4, 4)
}

/// The same, and the model says so: its batch is left open.
pub fn yolov8_open_batch() -> Vec<u8> {
    yolov8_of_batch(0, 0)
}

/// `batch` as Reshape takes it, `said` as inputs and outputs do.
fn yolov8_of_batch(batch: i64, said: u64) -> Vec<u8> {
    let node = [bytes(1, b"images"), bytes(1, b"shape"), bytes(2, b"output"), bytes(4, b"Reshape")].concat();
    let values: Vec<u8> = [batch, 6, 512].iter().flat_map(|v| v.to_le_bytes()).collect();
    let shape = [number(1, 3), number(2, 7), bytes(8, b"shape"), bytes(9, &values)].concat();
    model(&bytes(1, &node), &bytes(5, &shape), &[said, 6, 512])
}

/// One operator from the picture to an output of the same shape: fits no head, whatever the operator.
pub fn picture(operator: &str) -> Vec<u8> {
    let node = [bytes(1, b"images"), bytes(2, b"output"), bytes(4, operator.as_bytes())].concat();
    model(&bytes(1, &node), &[], &[1, 3, 32, 32])
}

/// A convolution before it, so that there is something to compute: each two pixels of a row become a box, in the picture
/// and of a size; grey ones are of a score of .2, of noise some are above .25. Any batch.
pub fn yolov8_convolution() -> Vec<u8> {
    let list = |name: &[u8], values: [u8; 2]| {
        let values = values.map(|value| number(8, value)).concat();
        // AttributeProto.type = INTS, field 20.
        bytes(5, &[bytes(1, name), values, vec![0xa0, 1, 7]].concat())
    };
    let attributes = [list(b"kernel_shape", [1, 2]), list(b"strides", [1, 2])].concat();
    let names = [bytes(1, b"images"), bytes(1, b"weight"), bytes(2, b"boxes"), bytes(3, b"conv")].concat();
    let convolution = bytes(1, &[names, bytes(4, b"Conv"), attributes].concat());
    let reshape = [bytes(1, b"boxes"), bytes(1, b"shape"), bytes(2, b"output"), bytes(4, b"Reshape")].concat();
    // What becomes of pixels that are all 1: centre, size, and the score of each class.
    let sums = [32.0_f32, 32.0, 16.0, 16.0, 0.4, 0.4];
    let weight = |(kind, sum): (usize, f32)| {
        (0..6_usize).map(move |i| (sum * (1 + (i * 5 + kind) % 6) as f32 / 21.0).to_le_bytes())
    };
    let weights: Vec<u8> = sums.into_iter().enumerate().flat_map(weight).flatten().collect();
    let dims = [6, 3, 1, 2].map(|d| number(1, d)).concat();
    let weight = [dims, number(2, 1), bytes(8, b"weight"), bytes(9, &weights)].concat();
    let values: Vec<u8> = [0_i64, 6, 512].iter().flat_map(|v| v.to_le_bytes()).collect();
    let shape = [number(1, 3), number(2, 7), bytes(8, b"shape"), bytes(9, &values)].concat();
    let nodes = [convolution, bytes(1, &reshape)].concat();
    model(&nodes, &[bytes(5, &weight), bytes(5, &shape)].concat(), &[0, 6, 512])
}
