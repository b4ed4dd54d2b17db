//! Labels that settings name, to be held against those of the model.

use super::Problem;
use super::report::NAME_BYTES_MAX;
use super::shape::nearest;

/// A label where a setting names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelUse {
    /// The label as written.
    pub label: String,
    /// Line of the setting, from 1, where known.
    pub line: Option<usize>,
    /// Path of the setting, such as `camera[gate].zone[drive].labels`.
    pub path: String,
}

/// A problem for each use of a label that is none of `known`, the model's class names.
pub fn unknown_labels(uses: &[LabelUse], known: &[String]) -> Vec<Problem> {
    let unknown = uses.iter().filter(|used| !known.contains(&used.label));
    unknown
        .map(|used| {
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            let advice = match nearest(&used.label.to_lowercase(), &names) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "give one of the labels in the engine's manifest".to_owned(),
            };
            let label = Some(&used.label).filter(|label| label.len() <= NAME_BYTES_MAX);
            let label = label.map_or_else(|| "so long".to_owned(), |label| format!("{label:?}"));
            let text = format!("the model has no label {label}: {advice}");
            Problem { line: used.line, path: used.path.clone(), text }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_the_model_has_not_is_named_with_its_nearest() {
        let known = ["person", "traffic light"].map(str::to_owned);
        let used =
            |label: &str| LabelUse { label: label.to_owned(), line: Some(3), path: "events.labels".to_owned() };
        let found = unknown_labels(&["person", "Persn", "zebra"].map(used), &known);
        let texts: Vec<&str> = found.iter().map(|problem| problem.text.as_str()).collect();
        let none = "the model has no label \"zebra\": give one of the labels in the engine's manifest";
        assert_eq!(texts, ["the model has no label \"Persn\": did you mean \"person\"?", none]);
        assert_eq!((found[0].line, found[0].path.as_str()), (Some(3), "events.labels"));
    }
}
