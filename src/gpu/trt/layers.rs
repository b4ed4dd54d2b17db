//! How far TensorRT 8 has come with a build, by the details of its log: it tells nobody, but names each layer that it
//! chooses kernels for, and how many there are. Pure.

/// Layers so far.
#[derive(Debug, Default)]
pub(super) struct Layers {
    done: u32,
    total: u32,
}

impl Layers {
    /// A line of the log; layers done and in all, where it says that another one's turn has come.
    pub(super) fn hear(&mut self, line: &str) -> Option<(u32, u32)> {
        // After each pass over the graph; what is left after the last is built.
        if let Some(passed) = line.strip_prefix("After ").and_then(|line| line.strip_suffix(" layers")) {
            self.total = passed.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(self.total);
            return None;
        }
        if self.total == 0 || !line.starts_with("=============== Computing costs for") {
            return None;
        }
        let before = self.done;
        self.done += 1;
        Some((before.min(self.total), self.total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_counted_once_it_is_known_how_many_there_are() {
        let mut layers = Layers::default();
        let mut hear = |line: &str| layers.hear(line);
        assert_eq!(hear("=============== Computing costs for conv"), None);
        for line in [
            "Original: 12 layers",
            "After dead-layer removal: 9 layers",
            "After Myelin optimization: 3 layers",
            "After all the others: many layers",
            "=============== Computing reformatting costs",
            "*************** Autotuning format combination: Half(1,2) -> Half(1,2) ***************",
            "--------------- Timing Runner: conv (CaskConvolution)",
        ] {
            assert_eq!(hear(line), None, "{line}");
        }
        let told: Vec<_> = (0..5).map(|_| hear("=============== Computing costs for ")).collect();
        assert_eq!(told, [0, 1, 2, 3, 3].map(|done| Some((done, 3))));
    }
}
