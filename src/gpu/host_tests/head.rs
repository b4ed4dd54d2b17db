use super::Host;
use super::support::{Case, assert_same, cases, unlabelled};
use crate::gpu::element::Element;
use crate::gpu::error::GpuError;
use crate::gpu::head::{GpuBox, HEAD_BOXES, HeadPlan};
use crate::yolo::Candidates;

/// What lies behind the buffers, and must stay.
const GUARD: u64 = 0xA5A5_A5A5_A5A5_A5A5;

/// A case's buffers after its kernel has run.
struct Run {
    plan: HeadPlan,
    found: Vec<u8>,
    overflow: Vec<u8>,
}

impl Run {
    fn new(host: &Host, case: &Case) -> Self {
        let plan = HeadPlan::new(&case.head, &case.specs, &case.elements(), case.confidence).unwrap();
        // As the device's memory: aligned, and cleared where the counts are.
        let aligned = |bytes: &[u8]| {
            let word = |chunk: &[u8]| u64::from_ne_bytes(std::array::from_fn(|i| *chunk.get(i).unwrap_or(&0)));
            bytes.chunks(8).map(word).collect::<Vec<u64>>()
        };
        let outputs: Vec<(Vec<u64>, usize)> =
            case.outputs.iter().map(|output| output.bytes()).map(|bytes| (aligned(&bytes), bytes.len())).collect();
        let addresses: Vec<u64> = outputs
            .iter()
            .map(|(words, bytes)| {
                // Not beyond the tensor: what fills up the last word is not the kernel's.
                host.allow_bytes(words.as_ptr() as usize, *bytes)
            })
            .collect();
        let table = case.table();
        let guarded = |bytes: usize| vec![GUARD; bytes / 8 + 4];
        let mut found = guarded(plan.found_bytes(case.lanes));
        found[..plan.header_bytes(case.lanes) / 8].fill(0);
        let mut overflow = guarded(plan.overflow_bytes(case.lanes));
        let (found_at, overflow_at) = (found.as_mut_ptr() as u64, overflow.as_mut_ptr() as u64);
        let (name, args) =
            plan.args(case.lanes, table.as_ptr() as u64, |output| addresses[output], found_at, overflow_at);
        host.head(name, &args, [plan.boxes().div_ceil(256) as u32, case.lanes as u32, 1]);
        assert!(found[found.len() - 4..].iter().chain(&overflow[overflow.len() - 4..]).all(|word| *word == GUARD));
        let bytes = |words: Vec<u64>| words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        Self { plan, found: bytes(found), overflow: bytes(overflow) }
    }

    fn read(&self, case: &Case, lane: usize, limit: usize) -> Result<Candidates, GpuError> {
        let mut out = Candidates::default();
        let more = self.plan.overflowed_in(&self.found, case.lanes, lane) * size_of::<GpuBox>();
        let overflow = &self.overflow[lane * self.plan.overflow_bytes(1)..][..more];
        self.plan.read_bytes(&self.found, overflow, case.lanes, lane, limit, &mut out).map(|()| out)
    }
}

#[test]
fn every_layout_in_every_type_reads_as_on_the_host() {
    let mut rng = fastrand::Rng::with_seed(11);
    let (mut boxes, mut overflowed) = (0, 0);
    for (number, case) in cases(&mut rng).iter().enumerate() {
        let host = Host::get();
        let run = Run::new(&host, case);
        for lane in 0..case.lanes {
            for limit in [usize::MAX, 10, 0] {
                let said = format!("case {number} ({}) lane {lane} limit {limit}", case.head.kind());
                let expected = case.expected(lane, limit).unwrap();
                let got = run.read(case, lane, limit).unwrap();
                assert_same(&got, &expected, 1e-6, &said);
                boxes += got.boxes.len();
            }
            overflowed += run.plan.overflowed_in(&run.found, case.lanes, lane);
        }
    }
    println!("{boxes} boxes, {overflowed} of them in the overflow");
    assert!(boxes > 10_000 && overflowed > 1000, "the noise is too quiet: {boxes} {overflowed}");
}

#[test]
fn a_class_without_a_label_is_the_hosts_sentence() {
    for case in [Element::I32, Element::I64, Element::F32].into_iter().flat_map(unlabelled) {
        let host = Host::get();
        let run = Run::new(&host, &case);
        for lane in 0..case.lanes {
            let said = format!("{} lane {lane}", case.head.kind());
            match (run.read(&case, lane, 300), case.expected(lane, 300)) {
                (Ok(got), Ok(expected)) => assert_same(&got, &expected, 1e-6, &said),
                (Ok(got), Err(_)) if case.letterboxes[lane].is_none() => assert!(got.boxes.is_empty(), "{said}"),
                (Err(GpuError::Config(got)), Err(expected)) => {
                    // The GPU names the highest such class, the host the first.
                    let words = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
                    assert_eq!(words(&got), words(&expected.to_string()), "{said}");
                }
                (got, expected) => panic!("{said}: {got:?} {expected:?}"),
            }
        }
    }
}

#[test]
fn boxes_beyond_the_first_are_asked_for() {
    let mut rng = fastrand::Rng::with_seed(12);
    let host = Host::get();
    let case = cases(&mut rng).into_iter().find(|case| case.confidence == 0.0).unwrap();
    let run = Run::new(&host, &case);
    assert!(run.plan.boxes() > HEAD_BOXES && run.plan.overflowed_in(&run.found, case.lanes, 0) > 0);
    let mut out = Candidates::default();
    let error = run.plan.read_bytes(&run.found, &[], case.lanes, 0, 300, &mut out).unwrap_err();
    assert!(matches!(error, GpuError::Failed(_)) && out.boxes.is_empty(), "{error:?}");
}
