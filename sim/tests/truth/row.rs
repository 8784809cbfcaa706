//! A row of the table of truths: what was measured, what is exact, and how far both may be apart.

use std::fmt::Write as _;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// What every test run can bear.
    Quick,
    /// What `make truth` does, optimised.
    Long,
}

impl Effort {
    /// One of two numbers.
    pub fn choose<T>(self, quick: T, long: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Long => long,
        }
    }
}

/// One case of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The number of the truth, as `V1`.
    pub id: &'static str,
    /// What was measured, in words.
    pub case: String,
    pub measured: f64,
    /// Half of the 95 % interval over seeds; nothing where nothing is left to chance.
    pub interval: Option<f64>,
    pub exact: f64,
    /// How far measured and exact may be apart.
    pub tolerance: f64,
}

impl Row {
    /// From one number for each seed. `tolerance` is relative to the exact value.
    pub fn of_seeds(
        id: &'static str,
        case: impl Into<String>,
        seeds: &[f64],
        exact: f64,
        tolerance: f64,
    ) -> Self {
        let count = seeds.len() as f64;
        let mean = seeds.iter().sum::<f64>() / count;
        let square = seeds.iter().map(|one| (one - mean) * (one - mean)).sum::<f64>() / (count - 1.0);
        let interval = Some(student(seeds.len() - 1) * (square / count).sqrt());
        Self { id, case: case.into(), measured: mean, interval, exact, tolerance: tolerance * exact.abs() }
    }

    /// Of something that has one value.
    pub fn of(id: &'static str, case: impl Into<String>, measured: f64, exact: f64, tolerance: f64) -> Self {
        Self { id, case: case.into(), measured, interval: None, exact, tolerance: tolerance * exact.abs() }
    }

    /// The row as a line of Markdown.
    pub fn line(&self) -> String {
        let mut measured = digits(self.measured);
        if let Some(interval) = self.interval {
            write!(measured, " ± {}", digits(interval)).unwrap();
        }
        let apart = 100.0 * (self.measured - self.exact) / self.exact;
        let apart = if self.exact == 0.0 { String::new() } else { format!("{apart:+.2} %") };
        let tolerance = if self.exact == 0.0 {
            "0".to_owned()
        } else {
            format!("{:.2} %", 100.0 * self.tolerance / self.exact)
        };
        format!(
            "| {} | {} | {} | {measured} | {apart} | {tolerance} |",
            self.id,
            self.case,
            digits(self.exact),
        )
    }

    /// Fails where measured and exact are too far apart, or chance has hidden whether they are.
    pub fn check(&self) {
        let apart = (self.measured - self.exact).abs();
        assert!(apart <= self.tolerance + 1e-12, "{}", self.line());
        if let Some(interval) = self.interval {
            assert!(interval <= self.tolerance, "too few requests to tell: {}", self.line());
        }
    }
}

/// The head of the table.
pub const HEAD: &str = "| | case | exact | measured | apart | tolerance |\n|---|---|---|---|---|---|\n";

/// Five digits that mean something.
fn digits(value: f64) -> String {
    let size = if value == 0.0 { 0.0 } else { value.abs().log10().floor() };
    let behind = (4.0 - size).clamp(0.0, 6.0) as usize;
    format!("{value:.behind$}")
}

/// The 97.5 % quantile of Student's t.
fn student(freedom: usize) -> f64 {
    const T: [f64; 12] =
        [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179];
    T.get(freedom.max(1) - 1).copied().unwrap_or(1.96)
}

#[test]
fn a_row_tells_what_is_apart() {
    let row = Row::of_seeds("V0", "three seeds", &[1.0, 1.1, 1.2], 1.0, 0.2);
    assert_eq!(row.line(), "| V0 | three seeds | 1.0000 | 1.1000 ± 0.24843 | +10.00 % | 20.00 % |");
    let far = Row::of("V0", "one value", 2.0, 1.0, 0.5);
    assert!(std::panic::catch_unwind(|| far.check()).is_err());
    assert!(std::panic::catch_unwind(|| row.check()).is_err(), "the interval is wider than the tolerance");
    Row::of("V0", "nothing", 0.0, 0.0, 0.1).check();
}
