//! Which server is done first: each has one time, and the least wins; of equal times the first server.

/// A time for each of a number of players.
#[derive(Debug)]
pub(super) struct Tournament {
    /// The winner's.
    least: u64,
    /// A complete tree in which place 0 has the least time, and the four of `quads[n]` are at the places `4 n + 1` to
    /// `4 n + 4`, below place `n`.
    quads: Vec<[u64; 4]>,
}

impl Tournament {
    /// So many players, who are never done yet.
    pub(super) fn new(players: usize) -> Self {
        let (mut leaves, mut quads) = (1, 0);
        while leaves < players {
            quads += leaves;
            leaves *= 4;
        }
        Self { least: u64::MAX, quads: vec![[u64::MAX; 4]; quads] }
    }

    /// The least time.
    #[inline]
    pub(super) const fn next(&self) -> u64 {
        self.least
    }

    /// Who has it; a player even where no time is set.
    #[inline]
    pub(super) fn winner(&self) -> usize {
        let mut place = 0;
        while let Some([first, second, third, _]) = self.quads.get(place) {
            // Without branches: nobody can predict who it is.
            let is_behind_first = *first != self.least;
            let is_behind_second = is_behind_first & (*second != self.least);
            let is_fourth = is_behind_second & (*third != self.least);
            let slot = usize::from(is_behind_first) + usize::from(is_behind_second) + usize::from(is_fourth);
            place = 4 * place + 1 + slot;
        }
        place - self.quads.len()
    }

    /// Sets the time of a player.
    #[inline]
    pub(super) fn set(&mut self, player: usize, time: u64) {
        let (mut place, mut least) = (self.quads.len() + player, time);
        // All the way up: where it could stop is nothing that a processor can predict.
        while place > 0 {
            let slot = (place - 1) % 4;
            place = (place - 1) / 4;
            let Some(times) = self.quads.get_mut(place) else { return };
            if let Some(time) = times.get_mut(slot) {
                *time = least;
            }
            let [first, second, third, fourth] = *times;
            least = first.min(second).min(third.min(fourth));
        }
        self.least = least;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn the_winner_is_the_first_of_the_least() {
        let mut stream = Stream::new(1, "tournament", "test");
        for players in [1, 2, 3, 10, 33] {
            let mut tournament = Tournament::new(players);
            let mut times = vec![u64::MAX; players];
            for _ in 0..500 {
                let player = usize::try_from(stream.below(players as u64)).unwrap();
                times[player] = if stream.below(4) == 0 { u64::MAX } else { stream.below(20) };
                tournament.set(player, times[player]);
                let least = *times.iter().min().unwrap();
                assert_eq!(tournament.next(), least);
                assert_eq!(tournament.winner(), times.iter().position(|time| *time == least).unwrap());
            }
        }
    }

    #[test]
    fn nobody_is_never_done() {
        assert_eq!(Tournament::new(0).next(), u64::MAX);
    }
}
