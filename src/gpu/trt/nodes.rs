//! Names of the nodes of an ONNX graph, in its order: TensorRT 8 tells nodes by their index alone.
//!
//! Fields are those of onnx.proto: `ModelProto.graph` 7, `GraphProto.node` 1, `NodeProto.output` 2, `name` 3, `op_type` 4.

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
    let graphs = Fields(model).filter(|(field, _)| *field == 7);
    graphs
        .flat_map(|(_, graph)| Fields(graph))
        .filter(|(field, _)| *field == 1)
        .map(|(_, node)| read(node))
        .collect()
}

fn read(node: &[u8]) -> Node {
    let mut found = Node::default();
    let mut output = None;
    for (field, value) in Fields(node) {
        let text = || String::from_utf8_lossy(value).into_owned();
        match field {
            2 if output.is_none() => output = Some(text()),
            3 => found.name = text(),
            4 => found.op = text(),
            _ => {}
        }
    }
    if found.name.is_empty() {
        found.name = output.unwrap_or_default();
    }
    found
}

/// The fields of a message that have a length, with their bytes; ends where the message is broken.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let tag = self.varint()?;
            match tag & 7 {
                0 => drop(self.varint()?),
                1 => drop(self.take(8)?),
                2 => {
                    let length = usize::try_from(self.varint()?).ok()?;
                    return Some((tag >> 3, self.take(length)?));
                }
                5 => drop(self.take(4)?),
                _ => return None,
            }
        }
    }
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for index in 0..10 {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f).checked_shl(7 * index).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }
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
