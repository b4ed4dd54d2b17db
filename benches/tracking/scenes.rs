//! Scenes whose truth is known: people and cars on their ways, and what a detector makes of them.
//!
//! A person is 1.75 m high and walks 1 to 1.6 m/s; how large it is follows from where in the picture it stands. Who is nearer
//! hides who is farther, and so do pillars. Everything comes from the seed.

use std::time::Duration;

use watchpost::letterbox::Rect;
use watchpost::yolo::Detection;

pub const SIZE: (u32, u32) = (1280, 720);
const PERSON: u32 = 0;
const CAR: u32 = 2;

/// What the detector does wrong.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    /// Standard deviation of an edge, in shares of the box's side.
    pub jitter: f32,
    /// Share of the boxes that are missing.
    pub missing: f32,
    /// Share of the boxes whose score falls to 0.15..0.4.
    pub doubtful: f32,
    /// Boxes of nothing, a frame.
    pub wrong: f32,
    /// Share of the frames after which up to a second of frames is dropped.
    pub gaps: f32,
}

pub const NO_NOISE: Noise = Noise { jitter: 0.01, missing: 0.0, doubtful: 0.0, wrong: 0.0, gaps: 0.0 };
const NOISE: Noise = Noise { jitter: 0.04, missing: 0.05, doubtful: 0.1, wrong: 0.1, gaps: 0.0 };

/// Someone on the way: the middle of the foot in pixels, and when it is there in seconds.
#[derive(Clone, Debug)]
pub struct Actor {
    pub class: u32,
    pub way: Vec<(f32, [f32; 2])>,
}

#[derive(Clone, Debug)]
pub struct Scene {
    pub name: &'static str,
    /// Of the noise.
    pub seed: u64,
    pub seconds: f32,
    pub actors: Vec<Actor>,
    /// What hides everybody behind it, in pixels.
    pub pillars: Vec<Rect>,
    pub noise: Noise,
}

/// A frame: what is there, and what the detector says.
#[derive(Clone, Debug)]
pub struct Shot {
    pub at: Duration,
    /// Actors of whom enough is visible, and their boxes, 0..1.
    pub truth: Vec<(usize, Rect)>,
    pub detections: Vec<Detection>,
    /// Of each detection its actor; none for a wrong one.
    pub of: Vec<Option<usize>>,
}

/// All scenes. Those of another `seed` are as hard, and other ones: what is tried out on them is not made for these.
pub fn all(seed: u64) -> Vec<Scene> {
    vec![clean(seed), crossings(seed), pillars(seed), crowd(seed), gaps(seed), returns(seed), cars(seed)]
}

/// Six people one after the other in each of three rows, both ways; no noise.
pub fn clean(seed: u64) -> Scene {
    let mut random = fastrand::Rng::with_seed(1 + 100 * seed);
    let mut actors = Vec::new();
    for (row, foot) in [330.0, 480.0, 680.0].into_iter().enumerate() {
        for n in 0..6 {
            let speed = 1.0 + 0.6 * random.f32();
            let leftward = (n + row) % 2 == 0;
            actors.push(across(foot + 30.0 * random.f32(), 4.0 * n as f32 + random.f32(), speed, leftward));
        }
    }
    Scene { name: "clean", seed, seconds: 40.0, actors, pillars: vec![], noise: NO_NOISE }
}

/// Pairs that pass each other, the farther one hidden for a moment; noise.
pub fn crossings(seed: u64) -> Scene {
    let mut random = fastrand::Rng::with_seed(2 + 100 * seed);
    let mut actors = Vec::new();
    for n in 0..8 {
        let (foot, start) = (400.0 + 30.0 * n as f32, 4.0 * n as f32);
        actors.push(across(foot, start, 1.0 + 0.5 * random.f32(), true));
        actors.push(across(foot + 15.0, start, 1.0 + 0.5 * random.f32(), false));
    }
    Scene { name: "crossings", seed, seconds: 45.0, actors, pillars: vec![], noise: NOISE }
}

/// People who walk behind pillars and are hidden for half a second to a second; noise.
pub fn pillars(seed: u64) -> Scene {
    let mut random = fastrand::Rng::with_seed(3 + 100 * seed);
    let actors = (0..10).map(|n| {
        let foot = 400.0 + 200.0 * random.f32();
        across(foot, 4.0 * n as f32, 1.0 + 0.6 * random.f32(), n % 2 == 0)
    });
    let pillar = |x: f32| [x, 0.0, x + 90.0, 720.0];
    Scene {
        name: "pillars",
        seed,
        seconds: 55.0,
        actors: actors.collect(),
        pillars: vec![pillar(300.0), pillar(820.0)],
        noise: NOISE,
    }
}

/// Twenty people who stroll about, stop and turn; noise.
pub fn crowd(seed: u64) -> Scene {
    let mut random = fastrand::Rng::with_seed(4 + 100 * seed);
    let actors = (0..20).map(|_| stroll(&mut random, 60.0));
    Scene { name: "crowd", seed, seconds: 60.0, actors: actors.collect(), pillars: vec![], noise: NOISE }
}

/// The clean scene with noise and with up to a second of frames dropped now and then.
pub fn gaps(seed: u64) -> Scene {
    Scene { name: "gaps", noise: Noise { gaps: 0.03, ..NOISE }, ..clean(seed) }
}

/// People who walk out of the picture, turn round outside and come back after 4 to 8 s: whoever comes back counts anew; noise.
pub fn returns(seed: u64) -> Scene {
    let mut random = fastrand::Rng::with_seed(5 + 100 * seed);
    let mut actors = Vec::new();
    for n in 0..6 {
        let (foot, leftward) = (360.0 + 60.0 * n as f32, n % 2 == 0);
        let mut start = 5.0 * random.f32();
        for turn in 0..3 {
            let walk = across(foot, start, 1.0 + 0.5 * random.f32(), leftward == (turn % 2 == 0));
            start = walk.way[1].0 + 2.0 + 2.0 * random.f32();
            actors.push(walk);
        }
    }
    Scene { name: "returns", seed, seconds: 60.0, actors, pillars: vec![], noise: NOISE }
}

/// Cars at 8 to 14 m/s, two lanes; noise.
pub fn cars(seed: u64) -> Scene {
    let mut random = fastrand::Rng::with_seed(6 + 100 * seed);
    let mut actors = Vec::new();
    for n in 0..12 {
        for (lane, leftward) in [(420.0, true), (560.0, false)] {
            let car = across(lane, 4.0 * n as f32 + random.f32(), 8.0 + 6.0 * random.f32(), leftward);
            actors.push(Actor { class: CAR, ..car });
        }
    }
    Scene { name: "cars", seed, seconds: 55.0, actors, pillars: vec![], noise: NOISE }
}

/// Pixels of a metre where the foot is.
fn metre(foot: f32) -> f32 {
    foot * 0.16
}

/// From one side of the picture to the other, m/s.
pub fn across(foot: f32, start: f32, speed: f32, leftward: bool) -> Actor {
    let (near, far) = (-150.0, SIZE.0 as f32 + 150.0);
    let (from, to) = if leftward { (far, near) } else { (near, far) };
    let time = (far - near) / (speed * metre(foot));
    Actor { class: PERSON, way: vec![(start, [from, foot]), (start + time, [to, foot])] }
}

/// From place to place in the picture, with stops.
fn stroll(random: &mut fastrand::Rng, seconds: f32) -> Actor {
    let place = |random: &mut fastrand::Rng| [1280.0 * random.f32(), 300.0 + 400.0 * random.f32()];
    let mut here = place(random);
    let mut time = 5.0 * random.f32();
    let mut way = vec![(time, here)];
    while time < seconds {
        if random.f32() < 0.3 {
            time += 1.0 + 3.0 * random.f32();
            way.push((time, here));
        }
        let next = place(random);
        let pace = (1.0 + 0.4 * random.f32()) * metre((here[1] + next[1]) / 2.0);
        time += (next[0] - here[0]).hypot(next[1] - here[1]) / pace;
        way.push((time, next));
        here = next;
    }
    Actor { class: PERSON, way }
}

impl Actor {
    /// The whole box in pixels; none before and after its way.
    pub fn rect(&self, time: f32) -> Option<Rect> {
        let legs = self.way.windows(2);
        let (from, to) = legs.map(|leg| (leg[0], leg[1])).find(|(from, to)| from.0 <= time && time < to.0)?;
        let share = (time - from.0) / (to.0 - from.0);
        let at = |n: usize| from.1[n] + share * (to.1[n] - from.1[n]);
        let (x, foot) = (at(0), at(1));
        let (width, height) = if self.class == CAR { (4.2, 1.5) } else { (0.6, 1.75) };
        let (w, h) = (width * metre(foot), height * metre(foot));
        Some([x - w / 2.0, foot - h, x + w / 2.0, foot])
    }
}

impl Scene {
    /// The scene at so many frames a second.
    pub fn shots(&self, rate: f32) -> Vec<Shot> {
        let mut random = fastrand::Rng::with_seed(u64::from(rate.to_bits()) + (self.seed << 32));
        let mut shots = Vec::new();
        let mut frame = 0;
        while (frame as f32) < self.seconds * rate {
            shots.push(self.shot(frame as f32 / rate, &mut random));
            frame += 1;
            if random.f32() < self.noise.gaps {
                frame += (rate * random.f32()) as u32;
            }
        }
        shots
    }

    fn shot(&self, time: f32, random: &mut fastrand::Rng) -> Shot {
        let mut shot =
            Shot { at: Duration::from_secs_f32(time), truth: Vec::new(), detections: Vec::new(), of: Vec::new() };
        let there: Vec<(usize, Rect)> =
            self.actors.iter().enumerate().filter_map(|(n, actor)| Some((n, actor.rect(time)?))).collect();
        for (n, whole) in &there {
            let nearer = there.iter().filter(|(_, other)| other[3] > whole[3]).map(|(_, other)| other);
            let visible = visible(whole, nearer.chain(&self.pillars));
            if visible < 0.3 {
                continue;
            }
            shot.truth.push((*n, to_source(*whole)));
            if random.f32() >= self.noise.missing {
                let class = self.actors[*n].class;
                shot.detections.push(self.detect(*whole, class, visible, random));
                shot.of.push(Some(*n));
            }
        }
        if random.f32() < self.noise.wrong {
            let (x, y, w, h) =
                (random.f32(), random.f32(), 20.0 + 80.0 * random.f32(), 40.0 + 160.0 * random.f32());
            let rect = to_source([x * 1200.0, y * 600.0, x * 1200.0 + w, y * 600.0 + h]);
            shot.detections.push(Detection { rect, score: 0.2 + 0.5 * random.f32(), class: PERSON });
            shot.of.push(None);
        }
        shot
    }

    fn detect(&self, whole: Rect, class: u32, visible: f32, random: &mut fastrand::Rng) -> Detection {
        let (w, h) = (whole[2] - whole[0], whole[3] - whole[1]);
        let mut edge = |side: f32| self.noise.jitter * side * normal(random);
        let rect = to_source([whole[0] + edge(w), whole[1] + edge(h), whole[2] + edge(w), whole[3] + edge(h)]);
        let sure = (0.9 * visible.sqrt() - 0.1 * random.f32()).max(0.15);
        let score = if random.f32() < self.noise.doubtful { 0.15 + 0.25 * random.f32() } else { sure };
        Detection { rect, score, class }
    }
}

/// The share of the box that is in the picture and not behind another.
fn visible<'a>(whole: &Rect, hiding: impl Iterator<Item = &'a Rect>) -> f32 {
    let picture = [0.0, 0.0, SIZE.0 as f32, SIZE.1 as f32];
    let hidden: f32 = hiding.map(|other| shared(whole, other)).fold(0.0, f32::max);
    shared(whole, &picture) - hidden
}

/// The share of `a` that lies in `b`.
fn shared(a: &Rect, b: &Rect) -> f32 {
    let side = |n: usize| (a[n + 2].min(b[n + 2]) - a[n].max(b[n])).max(0.0) / (a[n + 2] - a[n]);
    side(0) * side(1)
}

/// Roughly normal, of standard deviation 1.
fn normal(random: &mut fastrand::Rng) -> f32 {
    (0..12).map(|_| random.f32()).sum::<f32>() - 6.0
}

fn to_source(rect: Rect) -> Rect {
    let x = |v: f32| (v / SIZE.0 as f32).clamp(0.0, 1.0);
    let y = |v: f32| (v / SIZE.1 as f32).clamp(0.0, 1.0);
    [x(rect[0]), y(rect[1]), x(rect[2]), y(rect[3])]
}
