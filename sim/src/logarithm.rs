//! The natural logarithm of a draw, which every exponential gap and service time needs: a table and a short polynomial,
//! in a third of the time of [`libm::log`] and, being sums and products alone, the same on every machine.
//!
//! x = 2^e m with m in [1, 2). The table has an inverse i of about each 128th of that range, so that r = m i - 1 is at
//! most 1/256, and ln x = e ln 2 - ln i + ln(1 + r), the last one by its series up to the sixth power (Tang,
//! "Table-driven implementation of the logarithm function", ACM TOMS 16(4), 1990).

use core::f64::consts::LN_2;

/// Bits of the significand that choose a row.
const ROW_BITS: u32 = 7;
/// Bits of a draw.
const DRAW_BITS: u32 = 53;
/// Bits of a significand behind the point, and what is added to an exponent (IEEE 754 binary64).
const SIGNIFICAND_BITS: u32 = 52;
const BIAS: u64 = 1_023;

/// An inverse, and minus its logarithm.
#[derive(Clone, Copy)]
struct Row {
    inverse: f64,
    logarithm: f64,
}

static ROWS: [Row; 1 << ROW_BITS] = rows();

/// Minus the natural logarithm of a draw from (0, 1], which is made of the highest 53 of these bits: one more than they say, in
/// parts of 2^53. Off by at most 8 * 10^-16, or by that part of a result above 1, and never below 0.
#[inline]
pub(crate) fn minus_ln(bits: u64) -> f64 {
    // From whole numbers to the parts of a float without a float between.
    let parts = (bits >> (u64::BITS - DRAW_BITS)) + 1;
    let zeros = parts.leading_zeros();
    let behind_point = parts << zeros << 1;
    let Row { inverse, logarithm } = row_at(behind_point >> (u64::BITS - ROW_BITS));
    let significand =
        f64::from_bits(behind_point >> (u64::BITS - SIGNIFICAND_BITS) | BIAS << SIGNIFICAND_BITS);
    let exponent = f64::from(zeros - (u64::BITS - 1 - DRAW_BITS));
    let r = significand * inverse - 1.0;
    let square = r * r;
    let [third, fifth, sixth] = const { [1.0 / 3.0, 1.0 / 5.0, 1.0 / 6.0] };
    let tail = square * ((r * third - 0.5) + square * ((r * fifth - 0.25) - square * sixth));
    (exponent * LN_2 - (logarithm + (r + tail))).max(0.0)
}

#[inline]
fn row_at(row: u64) -> Row {
    let none = Row { inverse: 1.0, logarithm: 0.0 };
    usize::try_from(row).ok().and_then(|row| ROWS.get(row)).copied().unwrap_or(none)
}

#[allow(clippy::indexing_slicing, reason = "within the array's own bounds, and before the program runs")]
const fn rows() -> [Row; 1 << ROW_BITS] {
    let mut rows = [Row { inverse: 1.0, logarithm: 0.0 }; 1 << ROW_BITS];
    let mut row = 0;
    while row < rows.len() {
        #[allow(clippy::cast_precision_loss, reason = "a row has seven bits")]
        let inverse = 1.0 / (1.0 + (row as f64 + 0.5) / (1 << ROW_BITS) as f64);
        rows[row] = Row { inverse, logarithm: -series(inverse) };
        row += 1;
    }
    rows
}

/// ln x = 2 (z + z^3 / 3 + z^5 / 5 ...) with z = (x - 1) / (x + 1), for x from 1/2 to 1: z^2 is at most 1/9, so that the
/// twentieth term is below 10^-19.
const fn series(x: f64) -> f64 {
    let z = (x - 1.0) / (x + 1.0);
    let mut sum = 0.0;
    let mut term = 20;
    // From the smallest one, which keeps the sum exact.
    while term > 0 {
        term -= 1;
        #[allow(clippy::cast_precision_loss, reason = "at most 39")]
        let odd = (2 * term + 1) as f64;
        sum = sum * z * z + 1.0 / odd;
    }
    2.0 * z * sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[allow(clippy::cast_precision_loss, reason = "53 bits")]
    fn unit(whole: u64) -> f64 {
        whole as f64 / (1u64 << 53) as f64
    }

    #[test]
    fn it_is_the_logarithm() {
        let mut stream = Stream::new(1, "logarithm", "test");
        // Even draws, draws of every size, and the ends of all rows.
        let even = (0..100_000).map(|_| stream.bits() >> 11);
        let sizes = (0..100_000u32).map(|number| (0x1f_ffff_ffff_ffff - u64::from(number)) >> (number % 53));
        let ends = (0..=128u64).flat_map(|row| (0..3).map(move |off| ((128 + row) << 45) + off - 1));
        for whole in even.chain(sizes).chain(ends).map(|whole| whole.clamp(1, 1 << 53)) {
            let (found, wanted) = (minus_ln((whole - 1) << 11 | whole & 0x7ff), -libm::log(unit(whole)));
            let near = 8e-16 * wanted.max(1.0);
            assert!(found >= 0.0 && (found - wanted).abs() <= near, "{whole}: {found:e} {wanted:e}");
        }
        assert!(minus_ln(u64::MAX) < 1e-16);
    }
}
