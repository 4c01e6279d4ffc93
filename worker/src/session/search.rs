//! Which coordinator is tried next, and after which delay. Pure: time and chance come from outside.

use std::collections::BTreeMap;

/// Delay before the first repetition.
const DELAY_MIN_MS: u64 = 100;

/// Longest delay.
const DELAY_MAX_MS: u64 = 5_000;

/// The search for the coordinator that leads.
#[derive(Debug)]
pub(super) struct Search {
    addresses: Vec<String>,
    /// Index of the configured address to try next.
    next: usize,
    /// A leader that a coordinator or an earlier session has named: tried before the configured ones.
    hint: Option<String>,
    /// Hints followed since the last delay.
    hints_followed: usize,
    delay_ms: u64,
    /// What each address said last, so that the log says it once.
    said: BTreeMap<String, String>,
}

impl Search {
    /// A search among these addresses, the first one first.
    pub(super) fn new(addresses: Vec<String>) -> Self {
        let said = BTreeMap::new();
        Search { addresses, next: 0, hint: None, hints_followed: 0, delay_ms: DELAY_MIN_MS, said }
    }

    /// The address to try now.
    pub(super) fn address(&mut self) -> String {
        if let Some(hint) = self.hint.take() {
            return hint;
        }
        let address = self.addresses.get(self.next).cloned().unwrap_or_default();
        self.next = (self.next + 1) % self.addresses.len().max(1);
        address
    }

    /// A coordinator has named the leader. True: try it at once. A hint that leads in circles is not followed.
    pub(super) fn follow(&mut self, leader: &str) -> bool {
        if leader.is_empty() || self.hints_followed > self.addresses.len() {
            return false;
        }
        self.hints_followed += 1;
        self.hint = Some(leader.to_string());
        true
    }

    /// An attempt has failed: how long to wait before the next one. `chance` is any number; it spreads the workers of a cluster,
    /// so that they do not all come at the same time.
    pub(super) fn delay_ms(&mut self, chance: u64) -> u64 {
        self.hints_followed = 0;
        let full = self.delay_ms;
        self.delay_ms = (full * 2).min(DELAY_MAX_MS);
        // Between half and all of it.
        full / 2 + chance % (full / 2 + 1)
    }

    /// The worker is registered with the coordinator at that address, which will be asked first when the connection breaks.
    pub(super) fn found(&mut self, address: &str) {
        self.hint = Some(address.to_string());
        self.hints_followed = 0;
        self.delay_ms = DELAY_MIN_MS;
        self.said.clear();
    }

    /// The connection to the coordinator at that address is of no use any more. Others are asked first, if there are any: it
    /// may hang, and not have died.
    pub(super) fn left(&mut self, address: &str) {
        if self.addresses.len() > 1 {
            self.hint = None;
            if let Some(index) = self.addresses.iter().position(|known| known == address) {
                self.next = (index + 1) % self.addresses.len();
            }
        }
    }

    /// Whether this is news of an address, to be put in the log.
    pub(super) fn is_news(&mut self, address: &str, reason: &str) -> bool {
        match self.said.get_mut(address) {
            Some(said) if said == reason => false,
            Some(said) => {
                *said = reason.to_string();
                true
            }
            None => {
                // A leader that moves from address to address must not make this grow.
                if self.said.len() > 4 * self.addresses.len() + 16 {
                    self.said.clear();
                }
                self.said.insert(address.to_string(), reason.to_string());
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(addresses: &[&str]) -> Search {
        Search::new(addresses.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn addresses_are_tried_in_turn() {
        let mut search = search(&["a", "b"]);
        assert_eq!([search.address(), search.address(), search.address()], ["a", "b", "a"]);
    }

    #[test]
    fn a_leader_that_was_left_is_tried_last() {
        let mut search = search(&["a", "b", "c"]);
        search.found("b");
        search.left("b");
        assert_eq!([search.address(), search.address(), search.address()], ["c", "a", "b"]);
        let mut alone = Search::new(vec!["a".into()]);
        alone.found("a");
        alone.left("a");
        assert_eq!(alone.address(), "a");
    }

    #[test]
    fn a_named_leader_is_tried_next_but_not_in_circles() {
        let mut search = search(&["a", "b"]);
        search.address();
        assert!(!search.follow(""));
        assert!(search.follow("c"));
        assert_eq!(search.address(), "c");
        assert!(search.follow("b"));
        assert_eq!(search.address(), "b");
        assert!(search.follow("c"));
        assert_eq!(search.address(), "c");
        assert!(!search.follow("b"));
        search.delay_ms(0);
        assert!(search.follow("b"));
    }

    #[test]
    fn delays_grow_to_a_bound_are_spread_and_start_small_again_once_registered() {
        let mut search = search(&["a"]);
        for full in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            let before = search.delay_ms;
            let low = search.delay_ms(0);
            search.delay_ms = before;
            let high = search.delay_ms(full / 2);
            assert_eq!((low, high), (full / 2, full));
        }
        for chance in 0..10_000 {
            assert!((2_500..=5_000).contains(&search.delay_ms(chance)));
        }
        search.found("a");
        assert!(search.delay_ms(u64::MAX) <= 100);
    }

    #[test]
    fn after_a_lost_session_its_leader_is_asked_first() {
        let mut search = search(&["a", "b", "c"]);
        search.address();
        search.found("c");
        assert_eq!([search.address(), search.address()], ["c", "b"]);
    }

    #[test]
    fn the_same_reason_is_news_once_for_each_address_until_registered_again() {
        let mut search = search(&["a", "b"]);
        assert!(search.is_news("a", "refused"));
        assert!(search.is_news("b", "refused"));
        assert!(!search.is_news("a", "refused"));
        assert!(search.is_news("a", "timed out"));
        search.found("b");
        assert!(search.is_news("a", "timed out"));
    }
}
