//! Whether the true end lies in the forecast's range: over recorded series, and over made-up ones.

use serde::Deserialize;

use super::*;

/// `tests/samples/durations/record.py` recorded it: of each run, when each of its ten steps ended, in ms.
const RECORDED: &str = include_str!("../../../tests/samples/durations/recorded.json");
/// So many runs are known before forecasts are judged.
const KNOWN: usize = 5;

#[derive(Deserialize)]
struct Series {
    name: String,
    runs: Vec<Vec<u64>>,
}

/// How often the end lay in the range, and how wide it was at the beginning and in the end, as shares of the duration.
struct Score {
    hits: usize,
    asked: usize,
    first_width: f64,
    last_width: f64,
}

impl Score {
    fn share(&self) -> f64 {
        self.hits as f64 / self.asked as f64
    }
}

fn score(runs: &[Vec<u64>]) -> Score {
    let mut score = Score { hits: 0, asked: 0, first_width: 0.0, last_width: 0.0 };
    let totals: Vec<u64> = runs.iter().map(|run| *run.last().unwrap()).collect();
    let judged = (runs.len() - KNOWN) as f64;
    for (n, run) in runs.iter().enumerate().skip(KNOWN) {
        for step in 0..run.len() {
            let elapsed = if step == 0 { 0 } else { run[step - 1] };
            let progress = step as f64 * 100.0 / run.len() as f64;
            let EtaMs { low, high } = remaining(&totals[..n], elapsed, progress).unwrap();
            score.asked += 1;
            score.hits += usize::from((low..=high).contains(&(totals[n] - elapsed)));
            let width = (high - low) as f64 / totals[n] as f64 / judged;
            score.first_width += if step == 0 { width } else { 0.0 };
            score.last_width += if step == run.len() - 1 { width } else { 0.0 };
        }
    }
    score
}

fn judge(name: &str, runs: &[Vec<u64>]) {
    let score = score(runs);
    println!(
        "{name}: {:.0} % of {} ends within the range, {:.0} % of the duration wide at first and {:.0} % at last",
        score.share() * 100.0,
        score.asked,
        score.first_width * 100.0,
        score.last_width * 100.0
    );
    assert!(score.share() >= 0.8, "{name}: {}", score.share());
    assert!(score.last_width < score.first_width, "{name}: the range does not shrink");
}

#[test]
fn the_end_of_recorded_jobs_lies_within_the_range() {
    let series: Vec<Series> = serde_json::from_str(RECORDED).unwrap();
    assert!(series.len() >= 5);
    for Series { name, runs } in &series {
        judge(name, runs);
    }
}

/// A normal variable.
fn normal(random: &mut fastrand::Rng) -> f64 {
    (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos()
}

/// Ten steps whose lengths differ by chance, and by `uneven` from the first to the last.
fn steps(total: f64, uneven: f64, random: &mut fastrand::Rng) -> Vec<u64> {
    let weights: Vec<f64> =
        (0..10).map(|n| (1.0 + (uneven - 1.0) * f64::from(n) / 9.0) * (0.3 * normal(random)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut at = 0.0;
    let ends = weights.iter().map(|weight| {
        at += weight / sum * total;
        at.round() as u64
    });
    ends.collect()
}

#[test]
fn the_end_of_made_up_series_lies_within_the_range() {
    let random = &mut fastrand::Rng::with_seed(42);
    let mut series = |name: &str, uneven: f64, total: &dyn Fn(usize, &mut fastrand::Rng) -> f64| {
        let runs: Vec<Vec<u64>> = (0..200)
            .map(|n| {
                let total = total(n, random);
                steps(total, uneven, random)
            })
            .collect();
        judge(name, &runs);
    };
    series("lognormal", 1.0, &|_, random| 60_000.0 * (0.4 * normal(random)).exp());
    series("lognormal, wide", 1.0, &|_, random| 60_000.0 * (normal(random)).exp());
    series("bimodal", 1.0, &|_, random| {
        let mode = if random.f64() < 0.3 { 20_000.0 } else { 90_000.0 };
        mode * (0.08 * normal(random)).exp()
    });
    series("trend", 1.0, &|n, random| 30_000.0 * (1.0 + n as f64 * 0.01) * (0.05 * normal(random)).exp());
    series("steady", 1.0, &|_, random| 30_000.0 * (0.01 * normal(random)).exp());
    series("later steps take five times as long", 5.0, &|_, random| 60_000.0 * (0.2 * normal(random)).exp());
    series("first steps take five times as long", 0.2, &|_, random| 60_000.0 * (0.2 * normal(random)).exp());
}

#[test]
fn without_a_past_the_rate_says_when_and_too_early_nobody_does() {
    assert_eq!(remaining(&[], 10_000, 0.0), None);
    assert_eq!(remaining(&[9, 9], 1_000, 50.0), None);
    let half = remaining(&[], 60_000, 50.0).unwrap();
    assert!(half.low < 60_000 && half.high > 60_000, "{half:?}");
    let late = remaining(&[], 114_000, 95.0).unwrap();
    assert!(late.high - late.low < half.high - half.low, "{late:?}");
    // No number that may come from outside breaks it.
    for progress in [f64::NAN, -1.0, 1e300, 100.0] {
        for elapsed in [0, 1, u64::MAX] {
            for durations in [&[][..], &[0, 0, 0], &[u64::MAX, 1, u64::MAX]] {
                let eta = remaining(durations, elapsed, progress);
                assert!(
                    eta.is_none_or(|eta| eta.low <= eta.high),
                    "{durations:?} {elapsed} {progress}: {eta:?}"
                );
            }
        }
    }
}

fn outlook(durations: &[u64]) -> Outlook {
    Outlook { durations: durations.to_vec(), began_ms: 0, stage: None, changed_ms: 0 }
}

#[test]
fn who_takes_longer_than_nearly_all_before_is_slower_than_usual() {
    let mut outlook = outlook(&[100, 110, 90, 105, 120]);
    let stage = Stage { progress: 50.0, counts: Counts::default(), current: &[] };
    assert_eq!(outlook.look(stage, None, false, 110).slower, None);
    assert_eq!(outlook.look(stage, None, false, 121).slower, Some(Slower { usual_ms: 105, limit_ms: 120 }));
}

#[test]
fn who_is_alive_without_progress_is_stalled_by_what_is_usual() {
    let stage = |progress| Stage { progress, counts: Counts::default(), current: &[] };
    let mut plain = outlook(&[]);
    assert_eq!(plain.look(stage(5.0), None, false, 1_000).stalled, None);
    assert_eq!(plain.look(stage(5.0), None, false, 60_999).stalled, None);
    assert_eq!(plain.look(stage(5.0), None, false, 61_000).stalled, Some(Stalled { since_ms: 60_000 }));
    assert_eq!(plain.look(stage(5.5), None, false, 62_000).stalled, None, "it goes on");
    // An hour is usual: a quarter of that would be too long.
    let mut long = outlook(&[3_600_000; 5]);
    long.look(stage(1.0), None, false, 0);
    assert_eq!(long.stalled(599_999), None);
    assert!(long.stalled(600_000).is_some());
    let mut short = outlook(&[1_000; 5]);
    short.look(stage(1.0), None, false, 0);
    assert!(short.stalled(29_999).is_none() && short.stalled(30_000).is_some());
}
