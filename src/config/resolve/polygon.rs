//! Checks polygons and lines.

/// Most polygons of a camera.
const POLYGONS_MAX: usize = 64;
/// Most points of a polygon; the check for crossings compares every side with every other.
const POINTS_MAX: usize = 256;

/// The polygons, without a last point that repeats the first.
///
/// # Errors
///
/// One sentence about the first polygon that is none.
pub(super) fn polygons(written: &[Vec<Vec<f64>>]) -> Result<Vec<Vec<[f32; 2]>>, String> {
    if written.len() > POLYGONS_MAX {
        return Err(format!("{} polygons: give at most {POLYGONS_MAX}", written.len()));
    }
    let mut polygons = Vec::with_capacity(written.len());
    for (index, points) in written.iter().enumerate() {
        polygons.push(polygon(points).map_err(|text| format!("polygon {}: {text}", index + 1))?);
    }
    Ok(polygons)
}

/// The corners of a polygon, without a last point that repeats the first.
///
/// # Errors
///
/// One sentence that says why it is none.
pub(super) fn polygon(written: &[Vec<f64>]) -> Result<Vec<[f32; 2]>, String> {
    let mut points = pairs(written)?;
    if points.len() > 2 && points.first() == points.last() {
        points.pop();
    }
    check(&points)?;
    Ok(rounded(&points))
}

/// The points of a line.
///
/// # Errors
///
/// One sentence that says why it is none.
pub(super) fn line(written: &[Vec<f64>]) -> Result<Vec<[f32; 2]>, String> {
    let points = pairs(written)?;
    if points.len() < 2 {
        return Err("give at least two points".to_owned());
    }
    in_the_picture(&points)?;
    if points.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("two points that follow each other are the same: remove one".to_owned());
    }
    let segments: Vec<Side> = points.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let crosses = |i: usize| (i + 2..segments.len()).any(|j| touch(segments[i], segments[j]));
    if (0..segments.len()).any(crosses) {
        return Err("it crosses or touches itself: give a line from one side to the other, or a zone".to_owned());
    }
    Ok(rounded(&points))
}

fn pairs(written: &[Vec<f64>]) -> Result<Vec<[f64; 2]>, String> {
    let points: Option<Vec<[f64; 2]>> = written.iter().map(|point| point.as_slice().try_into().ok()).collect();
    points.ok_or_else(|| "give each point as [x, y]".to_owned())
}

fn rounded(points: &[[f64; 2]]) -> Vec<[f32; 2]> {
    points.iter().map(|p| [p[0] as f32, p[1] as f32]).collect()
}

fn in_the_picture(points: &[[f64; 2]]) -> Result<(), String> {
    if points.len() > POINTS_MAX {
        return Err(format!("give at most {POINTS_MAX} points"));
    }
    if !points.iter().flatten().all(|value| (0.0..=1.0).contains(value)) {
        return Err("give points from 0 to 1: shares of the picture's width and height".to_owned());
    }
    Ok(())
}

fn check(points: &[[f64; 2]]) -> Result<(), String> {
    if points.len() < 3 {
        return Err("give at least three points".to_owned());
    }
    in_the_picture(points)?;
    if crosses_itself(points) {
        return Err("its sides cross or touch each other: give the corners in order around the area".to_owned());
    }
    if area(points) == 0.0 {
        return Err("its points lie on one line: give corners of an area".to_owned());
    }
    Ok(())
}

fn area(points: &[[f64; 2]]) -> f64 {
    sides(points).iter().map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum::<f64>().abs() / 2.0
}

fn crosses_itself(points: &[[f64; 2]]) -> bool {
    let sides = sides(points);
    let count = sides.len();
    (0..count).any(|i| {
        // Neighbours share a point: the next side, and for the first the last.
        let end = if i == 0 { count - 1 } else { count };
        (i + 2..end).any(|j| touch(sides[i], sides[j]))
    })
}

type Side = ([f64; 2], [f64; 2]);

fn sides(points: &[[f64; 2]]) -> Vec<Side> {
    points.iter().zip(points.iter().cycle().skip(1)).map(|(a, b)| (*a, *b)).collect()
}

fn touch((a, b): Side, (c, d): Side) -> bool {
    let (c_side, d_side) = (turn(a, b, c), turn(a, b, d));
    let (a_side, b_side) = (turn(c, d, a), turn(c, d, b));
    if c_side * d_side < 0.0 && a_side * b_side < 0.0 {
        return true;
    }
    let on =
        |side: f64, (p, q): Side, r: [f64; 2]| side == 0.0 && (0..2).all(|axis| within(p[axis], q[axis], r[axis]));
    on(c_side, (a, b), c) || on(d_side, (a, b), d) || on(a_side, (c, d), a) || on(b_side, (c, d), b)
}

fn within(p: f64, q: f64, r: f64) -> bool {
    p.min(q) <= r && r <= p.max(q)
}

/// Above zero where `c` lies left of the line from `a` to `b`, below where right, zero on it.
fn turn(a: [f64; 2], b: [f64; 2], c: [f64; 2]) -> f64 {
    (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polygons(written: &[Vec<[f64; 2]>]) -> Result<Vec<Vec<[f32; 2]>>, String> {
        let points = |polygon: &Vec<[f64; 2]>| polygon.iter().map(|point| point.to_vec()).collect();
        super::polygons(&written.iter().map(points).collect::<Vec<_>>())
    }

    #[test]
    fn sound_and_unsound_lines() {
        let line = |points: &[[f64; 2]]| super::line(&points.iter().map(|p| p.to_vec()).collect::<Vec<_>>());
        for good in [&[[0.0, 0.0], [1.0, 1.0]][..], &[[0.0, 0.0], [0.5, 0.5], [0.5, 0.0]]] {
            assert!(line(good).is_ok(), "{good:?}");
        }
        for (bad, text) in [
            (&[][..], "two points"),
            (&[[0.0, 0.0]], "two points"),
            (&[[0.0, 0.0], [0.0, 0.0]], "are the same"),
            (&[[0.0, 0.0], [-0.1, 0.0]], "from 0 to 1"),
            (&[[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]], "crosses or touches itself"),
            (&[[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]], "crosses or touches itself"),
            (&vec![[0.5, 0.5]; POINTS_MAX + 1], "at most"),
        ] {
            let error = line(bad).unwrap_err();
            assert!(error.contains(text), "{bad:?}: {error}");
        }
        assert!(super::line(&[vec![0.0, 0.0], vec![1.0, 0.0, 0.0]]).unwrap_err().contains("[x, y]"));
    }

    #[test]
    fn sound_and_unsound_polygons() {
        let square = vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
        let mut closed = square.clone();
        closed.push([0.0, 0.0]);
        let hook = vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 0.2], [0.0, 1.0]];
        for good in [square.clone(), closed, hook, square[..3].to_vec()] {
            assert!(polygons(std::slice::from_ref(&good)).is_ok(), "{good:?}");
        }
        let circle = |n: usize| {
            let at = |i: usize| std::f64::consts::TAU * i as f64 / n as f64;
            (0..n).map(|i| [0.5 + 0.4 * at(i).cos(), 0.5 + 0.4 * at(i).sin()]).collect::<Vec<_>>()
        };
        assert!(polygons(&[circle(POINTS_MAX)]).is_ok());
        for (bad, text) in [
            (vec![], "three points"),
            (square[..2].to_vec(), "three points"),
            (vec![[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]], "three points"),
            (vec![[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]], "cross"),
            (vec![[0.0, 0.0], [1.0, 0.0], [0.5, 0.0], [0.5, 1.0]], "cross or touch"),
            (vec![[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]], "one line"),
            (vec![[0.0, 0.0], [1.5, 0.0], [1.0, 1.0]], "from 0 to 1"),
            (vec![[0.0, 0.0], [f64::NAN, 0.0], [1.0, 1.0]], "from 0 to 1"),
            (circle(POINTS_MAX + 1), "at most"),
        ] {
            let error = polygons(&[square.clone(), bad.clone()]).unwrap_err();
            assert!(error.starts_with("polygon 2: ") && error.contains(text), "{bad:?}: {error}");
        }
        assert!(polygons(&vec![square; POLYGONS_MAX + 1]).is_err());
    }
}
