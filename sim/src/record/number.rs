//! Numbers as people read them, and the way between whole numbers and floats.
//!
//! In: counts, nanoseconds, shares. Out: short text. Floats are for showing and for statistics over runs; no
//! hash is ever taken of one.

/// A count as a float; exact below 2^53.
#[must_use]
pub(crate) const fn float(count: u64) -> f64 {
    count as f64
}

/// The length of a list as a float.
#[must_use]
pub(crate) const fn length(count: usize) -> f64 {
    count as f64
}

/// The length of a list as a count.
#[must_use]
pub(crate) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// `part / whole` in millionths, rounded down; nothing of nothing.
#[must_use]
pub(crate) fn millionths(part: u64, whole: u64) -> Option<u64> {
    let share = (u128::from(part) * 1_000_000).checked_div(u128::from(whole))?;
    Some(u64::try_from(share).unwrap_or(u64::MAX))
}

/// `part` of `whole` as a share: `33.3 %`; `-` of nothing.
#[must_use]
pub fn percent_of(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{} %", plain(float(part) * 100.0 / float(whole))) }
}

/// A count with commas: `1,234,567`.
#[must_use]
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits, without an exponent; large numbers keep all digits before the point.
#[must_use]
pub fn plain(value: f64) -> String {
    /// Smaller numbers are shown as zero.
    const DECIMALS_MAX: usize = 9;
    if !value.is_finite() {
        return "-".to_owned();
    }
    // Half of the last digit that is shown, so that 9.996 is 10.0 and not 10.00.
    let mut bound = 99.95;
    let mut decimals = 0;
    while value.abs() < bound && decimals < DECIMALS_MAX {
        bound /= 10.0;
        decimals += 1;
    }
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A mean of counts: with commas where it is large, with three digits where it is small.
#[must_use]
pub fn counted(value: f64) -> String {
    if value.abs() < 99.95 || !value.is_finite() {
        return plain(value);
    }
    let sign = if value < 0.0 { "-" } else { "" };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounded, above zero; the cast saturates"
    )]
    let whole = libm::round(value.abs()) as u64;
    format!("{sign}{}", grouped(whole))
}

/// A number near one, to four digits behind the point.
#[must_use]
pub fn index(value: f64) -> String {
    format!("{value:.4}")
}

/// Three significant digits with `k`, `M`, `G` or `T`: `12.3k`.
#[must_use]
pub fn short(value: f64) -> String {
    let (value, unit) = scaled(value, &[(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")], "");
    format!("{}{unit}", plain(value))
}

/// A time given in nanoseconds, with its unit: `1.23 ms`.
#[must_use]
pub fn duration(nanoseconds: f64) -> String {
    let (value, unit) = scaled(nanoseconds, &[(1e9, "s"), (1e6, "ms"), (1e3, "µs")], "ns");
    format!("{} {unit}", plain(value))
}

/// The same for a whole number of nanoseconds.
#[must_use]
pub fn nanoseconds(time: u64) -> String {
    duration(float(time))
}

/// A number of bytes with its unit: `1.23 MB`.
#[must_use]
pub fn bytes(bytes: f64) -> String {
    let (value, unit) = scaled(bytes, &[(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")], "B");
    format!("{} {unit}", plain(value))
}

/// Millionths as a plain number: 1,250,000 is `1.25`.
#[must_use]
pub fn ratio(millionths: u64) -> String {
    plain(float(millionths) / 1e6)
}

/// Millionths as a share: 12,500 is `1.25 %`.
#[must_use]
pub fn percent(millionths: u64) -> String {
    format!("{} %", plain(float(millionths) / 1e4))
}

/// The largest unit that the number fills once it is rounded to three digits.
fn scaled(value: f64, units: &[(f64, &'static str)], smallest: &'static str) -> (f64, &'static str) {
    let fits = units.iter().find(|(size, _)| value.abs() >= size * 0.9995);
    fits.map_or((value, smallest), |(size, unit)| (value / size, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_commas() {
        let shown = [0, 999, 1_000, 12_345, 1_234_567, u64::MAX].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "12,345", "1,234,567", "18,446,744,073,709,551,615"]);
    }

    #[test]
    fn numbers_keep_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (1.25, "1.25"),
            (9.996, "10"),
            (12.34, "12.3"),
            (99.96, "100"),
            (123_456.7, "123457"),
            (0.1234, "0.123"),
            (0.001_234, "0.00123"),
            (1e-12, "0"),
            (-2.5, "-2.5"),
            (f64::NAN, "-"),
            (f64::INFINITY, "-"),
        ] {
            assert_eq!(plain(value), text, "{value}");
        }
    }

    #[test]
    fn means_of_counts_and_indices_keep_what_tells_them_apart() {
        assert_eq!([0.5, 99.96, 12_345.6, -1_234.5].map(counted), ["0.5", "100", "12,346", "-1,235"]);
        assert_eq!([0.99964, 1.0].map(index), ["0.9996", "1.0000"]);
    }

    #[test]
    fn units_change_where_the_rounded_number_would_have_four_digits() {
        let times =
            [0, 999, 1_000, 999_949, 999_950, 12_300_000, 3_000_000_000, 90_000_000_000].map(nanoseconds);
        assert_eq!(times, ["0 ns", "999 ns", "1 µs", "1 ms", "1 ms", "12.3 ms", "3 s", "90 s"]);
        assert_eq!([999.0, 12_345.0, 2e6, 5e13].map(short), ["999", "12.3k", "2M", "50T"]);
        assert_eq!([12.0, 1_500.0, 2.5e9].map(bytes), ["12 B", "1.5 kB", "2.5 GB"]);
    }

    #[test]
    fn shares_are_millionths() {
        assert_eq!((millionths(1, 3), millionths(1, 0), millionths(0, 5)), (Some(333_333), None, Some(0)));
        assert_eq!(millionths(u64::MAX, 1), Some(u64::MAX));
        assert_eq!((percent_of(1, 3), percent_of(1, 0)), ("33.3 %".to_owned(), "-".to_owned()));
        assert_eq!((ratio(1_250_000), percent(12_500)), ("1.25".to_owned(), "1.25 %".to_owned()));
    }
}
