//! The fixed shape of each input of a model: batch and picture size chosen. Pure.

use super::manifest::Manifest;
use super::onnx::graph::Input;

/// The picture input's sides, in pixels.
const SIDES: std::ops::RangeInclusive<usize> = 1..=8192;
/// What a dimension beyond the batch that the model leaves open is taken for: width and height of `orig_target_sizes`.
const OPEN: usize = 2;

/// A model's inputs with nothing left open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shapes {
    /// Name of the picture input.
    pub picture: String,
    /// Width and height of the picture input in pixels.
    pub size: (u32, u32),
    /// Least, best and most frames a call.
    pub batches: [usize; 3],
    /// The inputs that leave a dimension open, each with its least, best and greatest shape.
    pub profile: Vec<(String, [Vec<usize>; 3])>,
}

/// Chooses the shapes of `inputs` for `batch` frames a call; `batches` is the range a dynamic model is to take.
///
/// # Errors
///
/// One sentence where no input is a picture, or the model fixes another batch or size.
pub fn choose(
    inputs: &[Input],
    manifest: &Manifest,
    batch: usize,
    batches: Option<[usize; 3]>,
) -> Result<Shapes, String> {
    let (picture, size) = picture(inputs, manifest)?;
    let [least, _, most] = batches.unwrap_or([batch; 3]);
    if !(least..=most).contains(&batch) {
        return Err(format!("a batch of {batch} is not among {least} to {most}: correct tensorrt.batches"));
    }
    let dynamic = picture.shape[0].is_none();
    if let Some(fixed) = picture.shape[0].filter(|fixed| *fixed != batch) {
        return Err(format!(
            "it takes batches of {fixed}, not of {batch}: set engine.batch = {fixed} (--batch {fixed}), or export it with \
             a dynamic batch"
        ));
    }
    let batches = batches.filter(|_| dynamic).unwrap_or([batch; 3]);
    let shape = |input: &Input, batch: usize| -> Vec<usize> {
        if input.name == picture.name {
            return vec![batch, 3, size.1 as usize, size.0 as usize];
        }
        let first = input.shape.first().map(|d| d.unwrap_or(batch));
        first.into_iter().chain(input.shape.iter().skip(1).map(|d| d.unwrap_or(OPEN))).collect()
    };
    let open = inputs.iter().filter(|input| input.shape.contains(&None));
    let profile = open.map(|input| (input.name.clone(), batches.map(|batch| shape(input, batch)))).collect();
    Ok(Shapes { picture: picture.name.clone(), size, batches, profile })
}

/// The input that takes the picture, and its width and height in pixels.
///
/// # Errors
///
/// One sentence where there is none, or where manifest and model disagree about its size.
pub fn picture<'a>(inputs: &'a [Input], manifest: &Manifest) -> Result<(&'a Input, (u32, u32)), String> {
    let is_picture =
        |input: &&Input| input.shape.len() == 4 && matches!(input.shape[1], Some(3) | None) && !input.integer;
    let Some(input) = inputs.iter().find(is_picture) else {
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        let names = names.join(", ");
        return Err(format!(
            "no input is a picture (N x 3 x height x width) among {names}: export it with an NCHW input"
        ));
    };
    let side = |d: Option<usize>| d.filter(|d| SIDES.contains(d)).and_then(|d| u32::try_from(d).ok());
    match (side(input.shape[3]), side(input.shape[2]), manifest.input.size) {
        (Some(width), Some(height), Some(wanted)) if (width, height) != wanted => Err(format!(
            "its input is {width}x{height}, the manifest says {}x{}: correct input.size",
            wanted.0, wanted.1
        )),
        (Some(width), Some(height), _) => Ok((input, (width, height))),
        (_, _, Some(wanted)) => Ok((input, wanted)),
        _ => Err("its input size is open: set input.size = [width, height] in the manifest".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn manifest(size: &str) -> Manifest {
        let text = format!("name = \"m\"\nmodel = \"m.onnx\"\nlabels = [\"a\"]\n[input]\n{size}\n");
        Manifest::parse(&text, Path::new(""), |_| Err(std::io::ErrorKind::NotFound.into())).expect("a manifest")
    }

    fn input(name: &str, shape: &[usize]) -> Input {
        let shape = shape.iter().map(|d| Some(*d).filter(|d| *d > 0)).collect();
        Input { name: name.to_owned(), shape, integer: name == "sizes" }
    }

    #[test]
    fn a_fixed_model_needs_no_profile() {
        let shapes = choose(&[input("images", &[4, 3, 384, 640])], &manifest(""), 4, None).expect("shapes");
        assert_eq!((shapes.size, shapes.batches, shapes.profile.len()), ((640, 384), [4, 4, 4], 0));
        let error = choose(&[input("images", &[1, 3, 384, 640])], &manifest(""), 4, None).unwrap_err();
        assert!(error.starts_with("it takes batches of 1, not of 4: set engine.batch = 1"), "{error}");
    }

    #[test]
    fn what_a_model_leaves_open_is_chosen() {
        let inputs = [input("images", &[0, 3, 0, 0]), input("sizes", &[0, 2])];
        let shapes = choose(&inputs, &manifest("size = [640, 384]"), 16, None).expect("shapes");
        let pictures = vec![16, 3, 384, 640];
        let expected = [("images", pictures), ("sizes", vec![16, 2])]
            .map(|(name, shape)| (name.to_owned(), [shape.clone(), shape.clone(), shape]));
        assert_eq!((shapes.size, shapes.batches, shapes.profile), ((640, 384), [16; 3], expected.to_vec()));
        let ranged = choose(&inputs, &manifest("size = [32, 32]"), 8, Some([1, 8, 16])).expect("shapes");
        assert_eq!(ranged.profile[0].1, [[1, 3, 32, 32], [8, 3, 32, 32], [16, 3, 32, 32]]);
        let error = choose(&inputs, &manifest("size = [32, 32]"), 32, Some([1, 8, 16])).unwrap_err();
        assert!(error.contains("a batch of 32 is not among 1 to 16"), "{error}");
    }

    #[test]
    fn a_model_that_does_not_fit_is_refused_in_words() {
        let open = [input("images", &[0, 3, 0, 0])];
        assert!(choose(&open, &manifest(""), 1, None).unwrap_err().contains("its input size is open"));
        let fixed = [input("images", &[1, 3, 32, 32])];
        let error = choose(&fixed, &manifest("size = [64, 64]"), 1, None).unwrap_err();
        assert!(error.contains("its input is 32x32, the manifest says 64x64"), "{error}");
        let flat = [input("x", &[1, 10]), input("y", &[1, 32, 32, 3])];
        assert!(choose(&flat, &manifest(""), 1, None).unwrap_err().contains("no input is a picture"));
    }
}
