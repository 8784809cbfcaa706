//! Which server is done first: each has one time, and the least wins; of equal times the first server.

/// A time for each of a number of players.
#[derive(Debug)]
pub(super) struct Tournament {
    /// A complete tree: the winner's time at place 1, the children of place `n` at `2 n` and `2 n + 1`.
    times: Vec<u64>,
    leaves: usize,
}

impl Tournament {
    /// So many players, who are never done yet.
    pub(super) fn new(players: usize) -> Self {
        let leaves = players.next_power_of_two();
        Self { times: vec![u64::MAX; 2 * leaves], leaves }
    }

    /// The least time.
    #[inline]
    pub(super) fn next(&self) -> u64 {
        self.at(1)
    }

    /// Who has it; a player even where no time is set.
    #[inline]
    pub(super) fn winner(&self) -> usize {
        let (mut place, least) = (1, self.at(1));
        while place < self.leaves {
            // Without a branch: nobody can predict who it is.
            place = 2 * place + usize::from(self.at(2 * place) != least);
        }
        place - self.leaves
    }

    /// Sets the time of a player.
    #[inline]
    pub(super) fn set(&mut self, player: usize, time: u64) {
        let mut place = self.leaves + player;
        if let Some(leaf) = self.times.get_mut(place) {
            *leaf = time;
        }
        while place > 1 {
            place /= 2;
            let least = self.at(2 * place).min(self.at(2 * place + 1));
            match self.times.get_mut(place) {
                Some(time) if *time != least => *time = least,
                _ => break,
            }
        }
    }

    #[inline]
    fn at(&self, place: usize) -> u64 {
        self.times.get(place).copied().unwrap_or(u64::MAX)
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
