//! Who was turned away at the port: counted, and put in the log once.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Peers that are remembered; whoever tries from more addresses than that appears in the log again.
const PEERS_MAX: usize = 1_024;

/// Peers that were turned away, with the reason that the log holds already.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    said: BTreeMap<IpAddr, String>,
}

impl Refusals {
    /// Notes a refusal. True: it is news.
    pub(super) fn note(&mut self, peer: IpAddr, reason: &str) -> bool {
        if self.said.get(&peer).is_some_and(|said| said == reason) {
            return false;
        }
        if self.said.len() >= PEERS_MAX {
            self.said.clear();
        }
        self.said.insert(peer, reason.to_string());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_news_once_for_each_reason_and_many_peers_do_not_pile_up() {
        let mut refusals = Refusals::default();
        let peer = IpAddr::from([127, 0, 0, 1]);
        assert!(refusals.note(peer, "wrong token"));
        assert!(!refusals.note(peer, "wrong token"));
        assert!(refusals.note(peer, "another protocol"));
        assert!(refusals.note(IpAddr::from([127, 0, 0, 2]), "wrong token"));
        for number in 0..10_000_u32 {
            refusals.note(IpAddr::from(number.to_be_bytes()), "wrong token");
        }
        assert!(refusals.said.len() <= PEERS_MAX);
    }
}
