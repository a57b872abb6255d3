//! Axes: from a value to its place, and where the labels stand. Pure.
//!
//! Places are what the figures are drawn in: the value itself, or its logarithm. A
//! percentile axis is HdrHistogram's: the place of quantile q is log10(1 / (1 - q)), so
//! that every further nine takes the same room.

/// A label and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    pub at: f64,
    pub label: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Linear,
    Log10,
    Log2,
    Percentile,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// With the unit.
    pub title: String,
    /// Of places.
    pub range: (f64, f64),
    pub ticks: Vec<Tick>,
    scale: Scale,
}

/// Above this ratio between the greatest and the least value an axis is logarithmic.
const LINEAR_UP_TO: f64 = 20.0;
/// How many labels an axis of values aims at.
const LABELS: f64 = 5.0;

impl Axis {
    /// Numbers of threads, each in its place; doubling is a step of the same size.
    pub fn threads(counts: &[usize]) -> Axis {
        let place = |n: usize| (n as f64).log2();
        let mut sorted = counts.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let least = sorted.first().map_or(0.0, |&n| place(n));
        let most = sorted.last().map_or(1.0, |&n| place(n));
        // A label needs about a 20th of the axis.
        let room = (most - least) / 20.0;
        let mut ticks: Vec<Tick> = Vec::new();
        for n in sorted {
            let at = place(n);
            if ticks.last().is_none_or(|last| at - last.at >= room) {
                let label = n.to_string();
                ticks.push(Tick { at, label });
            }
        }
        let margin = ((most - least) * 0.04).max(0.1);
        Axis {
            title: "threads (log scale)".into(),
            range: (least - margin, most + margin),
            ticks,
            scale: Scale::Log2,
        }
    }

    /// Whatever is measured. From 0 if the values are of one magnitude, else logarithmic
    /// over the positive ones. Zeros, and what is below `floor`, stand at the edge then,
    /// which says so.
    pub fn values(
        title: &str,
        label: fn(f64) -> String,
        floor: f64,
        values: impl Iterator<Item = f64>,
    ) -> Axis {
        let values: Vec<f64> = values.filter(|v| v.is_finite()).collect();
        let positive = || values.iter().copied().filter(|v| *v > 0.0);
        let most = positive().fold(0.0, f64::max);
        if most == 0.0 {
            return Axis::linear(title, label, 1.0);
        }
        let all = positive().fold(most, f64::min);
        if most / all <= LINEAR_UP_TO {
            return Axis::linear(title, label, most);
        }
        let least = all.max(floor);
        let mut axis = Axis::logarithmic(title, label, least, most);
        let edge = if least > all {
            Some(format!("< {}", label(least)))
        } else {
            let zeros = values.iter().any(|v| *v <= 0.0);
            zeros.then(|| "0".to_owned())
        };
        if let Some(label) = edge {
            // Clear of the lowest value that does have a place.
            let width = axis.range.1 - axis.range.0;
            let at = axis.range.0 - width * 0.08;
            axis.range.0 = at;
            axis.ticks.retain(|tick| tick.at > at + width * 0.06);
            axis.ticks.insert(0, Tick { at, label });
        }
        axis
    }

    /// From 0 to at least `most`.
    pub fn linear(title: &str, label: fn(f64) -> String, most: f64) -> Axis {
        let step = nice_step(most / LABELS);
        let steps = (most / step - 1e-9).ceil().max(1.0);
        let ticks = (0..=steps as u32).map(|i| {
            let at = f64::from(i) * step;
            let label = if i == 0 { "0".into() } else { label(at) };
            Tick { at, label }
        });
        Axis {
            title: title.into(),
            range: (0.0, steps * step * 1.03),
            ticks: ticks.collect(),
            scale: Scale::Linear,
        }
    }

    /// From a little below `least` to a little above `most`, both positive.
    pub fn logarithmic(title: &str, label: fn(f64) -> String, least: f64, most: f64) -> Axis {
        let (low, high) = (least.log10(), most.log10());
        let margin = ((high - low) * 0.04).max(0.02);
        let range = (low - margin, high + margin);
        let decades = range.1 - range.0;
        let steps: &[f64] = match decades {
            d if d > 3.0 => &[1.0],
            d if d > 1.5 => &[1.0, 3.0],
            _ => &[1.0, 2.0, 5.0],
        };
        let skip = (decades / 8.0).ceil().max(1.0) as i32;
        let exponents = range.0.floor() as i32..=range.1.ceil() as i32;
        let ticks = exponents
            .filter(|e| e.rem_euclid(skip) == 0)
            .flat_map(|e| steps.iter().map(move |s| s * 10f64.powi(e)))
            .map(|value| Tick {
                at: value.log10(),
                label: label(value),
            })
            .filter(|tick| range.0 <= tick.at && tick.at <= range.1);
        Axis {
            title: format!("{title} (log scale)"),
            range,
            ticks: ticks.collect(),
            scale: Scale::Log10,
        }
    }

    /// Up to the place of the greatest of `count` values.
    pub fn percentiles(count: f64) -> Axis {
        let most = count.max(1e3).log10();
        let half = Tick {
            at: percentile_place(0.5),
            label: "50%".into(),
        };
        let nines = (1..=most.floor() as i32).map(|n| Tick {
            at: f64::from(n),
            label: match n {
                1 => "90%".into(),
                2 => "99%".into(),
                // Long ones next to each other would touch.
                n if n > 4 && n % 2 == 1 && most > 6.0 => String::new(),
                n => format!("99.{}%", "9".repeat(n as usize - 2)),
            },
        });
        Axis {
            title: "percentile of acquisitions (every nine takes the same room)".into(),
            range: (0.0, most * 1.02),
            ticks: [half].into_iter().chain(nines).collect(),
            scale: Scale::Percentile,
        }
    }

    /// One line for each name, the first at the top.
    pub fn names(names: &[String]) -> Axis {
        let last = names.len() as f64 - 1.0;
        let ticks = names.iter().enumerate().map(|(i, name)| Tick {
            at: last - i as f64,
            label: name.clone(),
        });
        Axis {
            title: String::new(),
            range: (-0.7, last + 0.7),
            ticks: ticks.collect(),
            scale: Scale::Linear,
        }
    }

    /// Where a value stands; what a logarithm cannot show stands at the edge.
    pub fn place(&self, value: f64) -> f64 {
        let place = match self.scale {
            Scale::Linear => value,
            Scale::Log10 => value.log10(),
            Scale::Log2 => value.log2(),
            Scale::Percentile => percentile_place(value),
        };
        // Of a NaN, too.
        place.max(self.range.0).min(self.range.1)
    }

    /// The label of a tick's place.
    pub fn label(&self, place: f64) -> String {
        self.ticks
            .iter()
            .find(|tick| (tick.at - place).abs() < 1e-9)
            .map_or_else(String::new, |tick| tick.label.clone())
    }
}

/// Of a quantile from 0 to 1.
pub fn percentile_place(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

/// The next of 1, 2 or 5 times a power of ten.
fn nice_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0].map(|s| s * power);
    step.into_iter()
        .find(|&s| s >= least * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(value: f64) -> String {
        format!("{value}")
    }

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|t| t.label.as_str()).collect()
    }

    #[test]
    fn every_nine_takes_the_same_room() {
        let axis = Axis::percentiles(1e5);
        assert_eq!(
            labels(&axis),
            ["50%", "90%", "99%", "99.9%", "99.99%", "99.999%"]
        );
        let at: Vec<f64> = axis.ticks.iter().map(|t| t.at).collect();
        for pair in at[1..].windows(2) {
            assert!((pair[1] - pair[0] - 1.0).abs() < 1e-6, "{at:?}");
        }
        assert!((axis.place(0.999) - 3.0).abs() < 1e-9);
        // The maximum is at 100 %, which has no place: the edge.
        assert_eq!(axis.place(1.0), axis.range.1);
    }

    #[test]
    fn doubling_the_threads_is_one_step_and_crowded_labels_go() {
        let axis = Axis::threads(&[16, 1, 2, 4, 8, 8]);
        assert_eq!(labels(&axis), ["1", "2", "4", "8", "16"]);
        assert_eq!(axis.place(8.0) - axis.place(4.0), 1.0);
        let all: Vec<usize> = (1..=64).collect();
        let axis = Axis::threads(&all);
        assert!(axis.ticks.len() < 25, "{:?}", labels(&axis));
        assert!(axis.range.0 < 0.0 && axis.range.1 > 6.0);
    }

    #[test]
    fn values_of_one_magnitude_start_at_zero() {
        let axis = Axis::values("x", plain, 0.0, [3.0, 9.2].into_iter());
        assert_eq!(labels(&axis), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(axis.range.0, 0.0);
        assert!(axis.range.1 >= 9.2);
    }

    #[test]
    fn values_of_many_magnitudes_get_a_logarithm_and_say_so() {
        let axis = Axis::values("x", plain, 0.0, [1.0, 1e4].into_iter());
        assert_eq!(labels(&axis), ["1", "10", "100", "1000", "10000"]);
        assert!(axis.title.contains("log"));
        assert_eq!(axis.place(100.0), 2.0);
        for unplaceable in [0.0, -1.0, f64::NAN] {
            assert_eq!(axis.place(unplaceable), axis.range.0);
        }
    }

    #[test]
    fn zeros_and_what_is_out_of_reach_stand_at_a_labelled_edge() {
        let axis = Axis::values("x", plain, 0.0, [0.0, 1.0, 1e4].into_iter());
        assert_eq!(axis.label(axis.place(0.0)), "0");
        assert!(axis.place(1.0) > axis.place(0.0));
        let axis = Axis::values("x", plain, 1.0, [0.001, 2.0, 100.0].into_iter());
        assert_eq!(axis.label(axis.place(0.001)), "< 1");
        assert!(axis.place(2.0) > axis.place(0.001));
        let axis = Axis::values("x", plain, 1.0, [2.0, 100.0].into_iter());
        assert_eq!(axis.label(axis.range.0), "", "nothing stands there");
    }

    #[test]
    fn an_axis_of_no_values_or_equal_ones_still_has_a_width() {
        for values in [vec![], vec![0.0], vec![7.0, 7.0]] {
            let axis = Axis::values("x", plain, 0.0, values.iter().copied());
            assert!(axis.range.1 > axis.range.0, "{values:?}: {axis:?}");
            assert!(axis.ticks.len() >= 2, "{values:?}: {axis:?}");
        }
        let axis = Axis::logarithmic("x", plain, 5.0, 5.0);
        assert!(axis.range.1 > axis.range.0);
    }

    #[test]
    fn steps_are_1_2_or_5() {
        let steps = [0.9, 1.0, 1.1, 2.3, 7.0, 0.013].map(nice_step);
        let expected = [1.0, 1.0, 2.0, 5.0, 10.0, 0.02];
        for (step, expected) in steps.iter().zip(expected) {
            assert!((step / expected - 1.0).abs() < 1e-9, "{steps:?}");
        }
    }
}
