//! A number that goes up and down with time: its mean over time, and its greatest value.

/// The level of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Level {
    value: u64,
    /// Each rise and fall, times when it was; what was before the beginning counts as then. The value times now is more than
    /// this by the area under it, whatever it was in between.
    moment: i128,
    max: u64,
    /// Where the mean begins.
    begin: u64,
}

impl Level {
    /// A level that is 0, and whose mean begins at `begin`.
    pub(super) const fn new(begin: u64) -> Self {
        Self { value: 0, moment: 0, max: 0, begin }
    }

    /// It is `value` from `now` on.
    #[inline]
    pub(super) fn set(&mut self, value: u64, now: u64) {
        let rise = value.wrapping_sub(self.value).cast_signed();
        self.moment += i128::from(rise) * i128::from(time(now.max(self.begin)));
        self.value = value;
        self.max = self.max.max(value);
    }

    /// It is one more from `now` on.
    #[inline]
    pub(super) fn rise(&mut self, now: u64) {
        self.moment += i128::from(now.max(self.begin));
        self.value += 1;
        self.max = self.max.max(self.value);
    }

    /// It is one less from `now` on, if it was not 0.
    #[inline]
    pub(super) fn fall(&mut self, now: u64) {
        if let Some(value) = self.value.checked_sub(1) {
            self.moment -= i128::from(now.max(self.begin));
            self.value = value;
        }
    }

    /// The greatest value.
    pub(super) const fn max(&self) -> u64 {
        self.max
    }

    /// The mean up to `now`, in millionths.
    pub(super) fn mean_millionths(self, now: u64) -> u64 {
        let end = now.max(self.begin);
        let area = i128::from(self.value) * i128::from(time(end)) - self.moment;
        let mean = (area.saturating_mul(1_000_000)).checked_div(i128::from(end - self.begin));
        mean.and_then(|mean| u64::try_from(mean).ok()).unwrap_or(0)
    }
}

/// A time as a factor; no run comes near half of all nanoseconds, which are 292 years.
#[inline]
fn time(nanoseconds: u64) -> i64 {
    i64::try_from(nanoseconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_weighs_values_by_their_time() {
        let mut level = Level::new(0);
        level.set(4, 10);
        level.set(1, 20);
        assert_eq!((level.mean_millionths(40), level.max()), (1_500_000, 4));
    }

    #[test]
    fn steps_of_one_are_what_setting_it_is() {
        let (mut stepped, mut set) = (Level::new(15), Level::new(15));
        for (now, value, is_more) in
            [(3, 1, true), (20, 2, true), (25, 1, false), (40, 0, false), (41, 0, false)]
        {
            if is_more {
                stepped.rise(now)
            } else {
                stepped.fall(now)
            }
            set.set(value, now);
            assert_eq!(stepped, set);
        }
    }

    #[test]
    fn the_mean_leaves_out_what_was_before_its_beginning() {
        let mut level = Level::new(15);
        level.set(4, 10);
        level.set(2, 20);
        assert_eq!(level.mean_millionths(25), 3_000_000);
        assert_eq!(Level::new(5).mean_millionths(5), 0);
    }
}
