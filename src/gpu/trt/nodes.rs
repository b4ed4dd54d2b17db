//! Names of the nodes of an ONNX graph, in its order: TensorRT 8 tells nodes by their index alone.
//!
//! Fields are those of onnx.proto: `ModelProto.graph` 7, `GraphProto.node` 1, `NodeProto.output` 2, `name` 3, `op_type` 4.

use crate::engine::onnx::fields::Fields;

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// Its name, or its first output's where it has none.
    pub(super) name: String,
    /// Its operator.
    pub(super) op: String,
}

/// The nodes of a model; none where it cannot be read. Pure.
pub(super) fn nodes(model: &[u8]) -> Vec<Node> {
    let graphs = Fields(model).filter_map(|field| field.ok()?.bytes(7));
    graphs.flat_map(Fields).filter_map(|field| field.ok()?.bytes(1)).map(read).collect()
}

fn read(node: &[u8]) -> Node {
    let mut found = Node::default();
    let mut output = None;
    for field in Fields(node).flatten() {
        output = output.or_else(|| field.text(2));
        found.name = field.text(3).unwrap_or(found.name);
        found.op = field.text(4).unwrap_or(found.op);
    }
    if found.name.is_empty() {
        found.name = output.unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, body: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(body.len()).unwrap()], body].concat()
    }

    #[test]
    fn nodes_have_a_name_or_their_output_s_and_cuts_end_the_list() {
        let named = [field(1, b"x"), field(2, b"y"), field(3, b"first"), field(4, b"Relu")].concat();
        let bare = [field(1, b"y"), field(2, b"z"), field(2, b"other"), field(4, b"Split")].concat();
        let graph = [field(1, &named), field(2, b"graph"), vec![0x18, 5], field(1, &bare)].concat();
        let model = [vec![8, 8], field(7, &graph)].concat();
        let node = |name: &str, op: &str| Node { name: name.to_owned(), op: op.to_owned() };
        assert_eq!(nodes(&model), [node("first", "Relu"), node("z", "Split")]);
        for end in 0..model.len() {
            assert!(nodes(&model[..end]).is_empty(), "{end}");
        }
        assert!(nodes(&[0xff; 32]).is_empty());
    }
}
