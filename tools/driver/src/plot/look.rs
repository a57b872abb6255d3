//! Which locks are in colour, and the style rules that make them so. A figure's elements
//! name their lock by a class; the page's script writes the same rules anew when the
//! reader chooses others.
//!
//! Ten looks, told apart by colour and by mark: colours after Okabe and Ito (Color
//! Universal Design, 2008), with three more of Tol's kind between them. The first is the
//! text's own colour and belongs to the baseline.

use super::figure::{LockIndex, Subject};
use crate::run::{Round, Run};
use maud::{Markup, PreEscaped, html};

pub use figures::LOOK as CSS;

/// How many locks can be told apart.
pub const LOOKS: usize = 10;

/// A lock's look; none is grey.
#[derive(Clone, Debug, PartialEq)]
pub struct Looks(pub Vec<Option<usize>>);

impl Looks {
    /// The locks that `highlight` names, or as many as there are looks: the baseline,
    /// autolock, then the fastest over all cells.
    pub fn choose(subject: &Subject, highlight: &[String]) -> Looks {
        let locks = &subject.locks;
        let named = |name: &str| locks.iter().position(|l| l == name);
        let mut chosen: Vec<LockIndex> = Vec::new();
        let baseline = named(&subject.runs[0].settings.baseline);
        if highlight.is_empty() {
            chosen.extend(baseline);
            chosen.extend(named("autolock"));
            if locks.len() <= LOOKS {
                chosen.extend(0..locks.len());
            } else {
                chosen.extend(fastest(subject.runs[0], locks));
            }
        } else {
            chosen.extend(highlight.iter().filter_map(|name| named(name)));
        }
        let mut looks = vec![None; locks.len()];
        // The first look is kept for the baseline.
        let mut next = 1;
        for lock in chosen {
            if looks[lock].is_some() || next > LOOKS - usize::from(Some(lock) != baseline) {
                continue;
            }
            if Some(lock) == baseline {
                looks[lock] = Some(0);
            } else {
                looks[lock] = Some(next);
                next += 1;
            }
        }
        Looks(looks)
    }

    /// Those in colour, in the order of their looks.
    pub fn coloured(&self) -> Vec<LockIndex> {
        let mut all: Vec<(usize, LockIndex)> = self
            .0
            .iter()
            .enumerate()
            .filter_map(|(lock, look)| Some(((*look)?, lock)))
            .collect();
        all.sort_unstable();
        all.into_iter().map(|(_, lock)| lock).collect()
    }

    pub fn grey(&self) -> Vec<LockIndex> {
        let locks = 0..self.0.len();
        locks.filter(|&lock| self.0[lock].is_none()).collect()
    }

    /// The script's `rule` writes the same.
    pub fn css(&self) -> String {
        // Many bands upon one another would be a smear.
        let band = if self.coloured().len() > 4 {
            0.05
        } else {
            0.13
        };
        let rule = |(lock, look): (usize, &Option<usize>)| {
            let look = (*look)?;
            Some(format!(
                ".L{lock}{{--c:var(--p{look});--m:url(#m{look});--w:2;--b:{band}}}\n"
            ))
        };
        self.0.iter().enumerate().filter_map(rule).collect()
    }
}

/// By the geometric mean of their throughput over all cells.
fn fastest(run: &Run, locks: &[String]) -> Vec<LockIndex> {
    let mean = |name: &str| {
        let all = || run.cells.iter().flat_map(|c| &c.rounds);
        let logs: Vec<f64> = all()
            .filter(|r: &&Round| r.lock == name)
            .map(|r| r.ops_per_s().max(1e-9).ln())
            .collect();
        logs.iter().sum::<f64>() / logs.len().max(1) as f64
    };
    let mut order: Vec<(f64, LockIndex)> = locks
        .iter()
        .enumerate()
        .map(|(i, name)| (mean(name), i))
        .collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    order.into_iter().map(|(_, lock)| lock).collect()
}

/// The marks `m0`.. and `rest`, to be referred to from the same document.
pub fn marks() -> Markup {
    const SHAPES: [&str; LOOKS] = [
        "M-3,-3H3V3H-3Z",
        "M-3.6,0A3.6,3.6 0 1 1 3.6,0A3.6,3.6 0 1 1 -3.6,0Z",
        "M0,-4.4L4,3H-4Z",
        "M0,-4.6L4.6,0L0,4.6L-4.6,0Z",
        "M0,4.4L4,-3H-4Z",
        "M-4,-1.2H-1.2V-4H1.2V-1.2H4V1.2H1.2V4H-1.2V1.2H-4Z",
        "M-4,-4H-1.6L0,-1.8L1.6,-4H4L1.3,0L4,4H1.6L0,1.8L-1.6,4H-4L-1.3,0Z",
        "M-4.4,0L-2.2,-3.8H2.2L4.4,0L2.2,3.8H-2.2Z",
        "M-4.4,0L3,-4V4Z",
        "M4.4,0L-3,-4V4Z",
    ];
    html! {
        @for (i, shape) in SHAPES.iter().enumerate() {
            (mark(&format!("m{i}"), shape, &format!("var(--p{i})")))
        }
        (mark("rest", "M-1.6,-1.6H1.6V1.6H-1.6Z", "var(--rest)"))
    }
}

fn mark(id: &str, shape: &str, fill: &str) -> Markup {
    let style = PreEscaped(format!("fill:{fill};stroke:none"));
    html! {
        marker id=(id) markerUnits="userSpaceOnUse" markerWidth="10" markerHeight="10"
            viewBox="-5 -5 10 10" refX="0" refY="0" { path d=(shape) style=(style) {} }
    }
}

/// Locks by the last word of their names (`..._autolock`), where two or more share it;
/// the rest under "others". One group of everything where there are few.
pub fn families(locks: &[String]) -> Vec<(String, Vec<LockIndex>)> {
    const OTHERS: &str = "others";
    let last = |name: &str| {
        name.rsplit_once('_')
            .map_or(name, |(_, last)| last)
            .to_owned()
    };
    let shared = |word: &str| locks.iter().filter(|l| last(l) == word).count() > 1;
    let mut families: Vec<(String, Vec<LockIndex>)> = Vec::new();
    for (lock, name) in locks.iter().enumerate() {
        let family = match last(name) {
            word if locks.len() > LOOKS && shared(&word) => word,
            _ => OTHERS.into(),
        };
        match families.iter_mut().find(|(name, _)| *name == family) {
            Some((_, members)) => members.push(lock),
            None => families.push((family, vec![lock])),
        }
    }
    families.sort_by_key(|(name, _)| name == OTHERS);
    if let [(only, _)] = &mut families[..] {
        *only = "all".into();
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::tests::many_locks;
    use crate::run::tests::sample;

    #[test]
    fn few_locks_are_all_in_colour_and_the_baseline_has_the_first() {
        let run = sample();
        let looks = Looks::choose(&Subject::new(&run, None), &[]);
        assert_eq!(looks.0, [Some(0), Some(1)]);
    }

    #[test]
    fn of_many_locks_the_baseline_autolock_and_the_fastest_are_in_colour() {
        let run = many_locks(45);
        let subject = Subject::new(&run, None);
        let looks = Looks::choose(&subject, &[]);
        let coloured = looks.coloured();
        assert_eq!(coloured.len(), LOOKS);
        assert_eq!(coloured[..2], [0, 1]);
        // Later ones are faster there.
        assert!(coloured[2..].iter().all(|&l| l >= 45 - 8), "{coloured:?}");
        assert_eq!(looks.grey().len(), 35);
        assert_eq!(looks.css().lines().count(), LOOKS);
    }

    #[test]
    fn no_two_highlighted_locks_share_a_look() {
        let run = many_locks(45);
        let subject = Subject::new(&run, None);
        // Without the baseline, its look stays free.
        for (names, expected) in [(&subject.locks[1..30], 9), (&subject.locks[..30], 10)] {
            let looks = Looks::choose(&subject, names);
            let mut used: Vec<usize> = looks.0.iter().flatten().copied().collect();
            used.sort_unstable();
            used.dedup();
            assert_eq!(used.len(), expected);
            assert_eq!(looks.coloured().len(), expected);
            assert!(used.iter().all(|&look| look < LOOKS));
        }
    }

    #[test]
    fn families_share_their_last_word() {
        let run = many_locks(45);
        let all = families(&run.locks.iter().map(|l| l.name.clone()).collect::<Vec<_>>());
        let members: usize = all.iter().map(|(_, m)| m.len()).sum();
        assert_eq!(members, 45);
        assert!(
            all.iter()
                .any(|(name, m)| name == "spinlock" && m.len() > 1)
        );
        assert_eq!(all.last().expect("some").0, "others");
        assert_eq!(families(&["a_x".into(), "b_x".into()])[0].0, "all");
    }
}
