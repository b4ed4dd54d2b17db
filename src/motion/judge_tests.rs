use super::*;

const FRAME: Duration = Duration::from_millis(40);

fn config(hold: u64, refresh: u64) -> MotionConfig {
    let seconds = Duration::from_secs;
    MotionConfig { threshold: 10, area: 0.002, hold: seconds(hold), refresh: seconds(refresh) }
}

/// What becomes of frames 40 ms apart, of which nothing is known.
fn run(judge: &mut Judge, frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<Option<Reason>> {
    let start = Instant::now();
    let frames = frames.into_iter().enumerate();
    frames.map(|(n, cells)| judge.judge(start + FRAME * n as u32, &cells, Known::Nothing)).collect()
}

fn count(reasons: &[Option<Reason>], reason: Option<Reason>) -> usize {
    reasons.iter().filter(|each| **each == reason).count()
}

/// A grey picture with a lighter rectangle of so many cells.
fn with_object(left: usize, top: usize, (width, height): (usize, usize)) -> Vec<u8> {
    let mut cells = vec![80; CELLS];
    for row in top..top + height {
        cells[row * GRID.0 + left..][..width].fill(120);
    }
    cells
}

#[test]
fn noise_below_the_threshold_is_no_motion() {
    let mut rng = fastrand::Rng::with_seed(1);
    let frames = (0..500).map(|_| (0..CELLS).map(|_| rng.u8(96..=104)).collect());
    let reasons = run(&mut Judge::new(&config(0, 3600), None), frames);
    assert_eq!(reasons[0], Some(Reason::Motion), "nothing was known");
    assert_eq!(count(&reasons, None), 499);
}

#[test]
fn light_that_drifts_slowly_is_no_motion_at_any_rate_and_what_jumps_is() {
    for fps in [1, 5, 25] {
        let mut judge = Judge::new(&config(0, 3600), None);
        let start = Instant::now();
        let at = |n: u32| start + Duration::from_secs(1) * n / fps;
        let level = |n: u32| vec![(20 + 2 * n / fps) as u8; CELLS];
        let gated = (0..100 * fps).filter(|n| judge.judge(at(*n), &level(*n), Known::Nothing).is_none()).count();
        assert_eq!(gated, 100 * fps as usize - 1, "2 levels a second at {fps} frames a second");
        let jump = level(100 * fps).iter().map(|cell| cell + 20).collect::<Vec<_>>();
        assert_eq!(
            judge.judge(at(100 * fps), &jump, Known::Nothing),
            Some(Reason::Motion),
            "a light is switched on"
        );
    }
}

#[test]
fn the_least_object_is_motion_in_its_first_frame_and_a_lesser_one_is_not() {
    // .002 of 2304 cells are 4.6.
    for (size, moves) in [((1, 5), true), ((5, 1), true), ((2, 2), false)] {
        let mut judge = Judge::new(&config(0, 3600), None);
        let still = std::iter::repeat_n(vec![80; CELLS], 50);
        let crossing = (0..40).map(|n| with_object(n, 10, size));
        let reasons = run(&mut judge, still.chain(crossing));
        assert_eq!(count(&reasons[1..50], None), 49);
        assert_eq!(reasons[50] == Some(Reason::Motion), moves, "{size:?}");
        if moves {
            assert_eq!(count(&reasons[50..], Some(Reason::Motion)), 40, "{size:?}");
        }
    }
}

#[test]
fn what_stands_still_becomes_part_of_the_scene_and_is_motion_when_it_leaves() {
    let mut judge = Judge::new(&config(0, 3600), None);
    let empty = || vec![80; CELLS];
    let frames = [empty()].into_iter().chain(std::iter::repeat_n(with_object(3, 3, (3, 5)), 500)).chain([empty()]);
    let reasons = run(&mut judge, frames);
    let moved = count(&reasons[1..501], Some(Reason::Motion));
    // 40 levels have come down to 10 after 1 s times ln 4.
    assert!((33..=37).contains(&moved) && reasons[1..=moved].iter().all(Option::is_some), "{moved}");
    assert_eq!(reasons[501], Some(Reason::Motion));
}

#[test]
fn what_a_mask_touches_does_not_count() {
    let left = RegionMask::new(vec![vec![[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]]);
    let at = |column: usize| {
        let mut judge = Judge::new(&config(0, 3600), Some(&left));
        run(&mut judge, [vec![80; CELLS], with_object(column, 10, (2, 6))])[1]
    };
    assert_eq!((at(0), at(30)), (None, None));
    assert_eq!((at(33), at(62)), (Some(Reason::Motion), Some(Reason::Motion)));
    let everything = RegionMask::new(vec![vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]]);
    let mut judge = Judge::new(&config(0, 3600), Some(&everything));
    assert_eq!(run(&mut judge, [vec![0; CELLS], vec![255; CELLS]])[1], None);
}

#[test]
fn hold_and_refresh_are_kept_to_the_frame() {
    let mut judge = Judge::new(&config(1, 3), None);
    let mut frames = vec![vec![80; CELLS]; 200];
    frames[99] = with_object(5, 5, (4, 4));
    let reasons = run(&mut judge, frames);
    // Motion in frame 0, 25 frames of which the last is a second later; then one each 3 s; an object in frame 99.
    let given: Vec<usize> = (0..200).filter(|n| reasons[*n].is_some()).collect();
    let wanted: Vec<usize> = (0..25).chain([24 + 75]).chain(100..124).chain([123 + 75]).collect();
    assert_eq!(given, wanted);
    assert_eq!(
        (reasons[24], reasons[99], reasons[198]),
        (Some(Reason::Hold), Some(Reason::Motion), Some(Reason::Refresh))
    );
}

#[test]
fn a_track_opens_the_gate_and_so_does_what_is_not_yet_known() {
    let (mut judge, start) = (Judge::new(&config(0, 3600), None), Instant::now());
    let cells = vec![80; CELLS];
    let mut judged = |n, known| judge.judge(start + FRAME * n, &cells, known);
    assert_eq!(judged(0, Known::Nothing), Some(Reason::Motion));
    assert_eq!(judged(1, Known::NotYet), Some(Reason::Awaited));
    assert_eq!(judged(2, Known::Wanted), Some(Reason::Track));
    assert_eq!(judged(3, Known::Nothing), None);
}

#[test]
fn time_goes_on_where_frames_are_a_little_out_of_order_or_a_file_begins_again() {
    let (mut judge, start) = (Judge::new(&config(0, 10), None), Instant::now());
    let cells = vec![80; CELLS];
    let mut given = 0;
    for round in 0..4 {
        for n in 0..125 {
            // 5 s a round; every third frame is 60 ms early.
            let at = start + FRAME * n + if n % 3 == 0 { FRAME * 3 / 2 } else { Duration::ZERO };
            given += u32::from(judge.judge(at, &cells, Known::Nothing).is_some());
        }
        assert_eq!(given, 1 + round / 2, "round {round}");
    }
}
