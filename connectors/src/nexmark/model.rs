//! The three events of the auction house. Times are milliseconds since the epoch, money is in cents.

use serde::{Deserialize, Serialize};

use super::text::Text;

/// A person who registers, to sell or to bid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Person {
    /// From 1000 upwards, without gaps.
    pub id: i64,
    /// First and last name.
    pub name: Text,
    pub email_address: Text,
    /// Four groups of four digits.
    pub credit_card: Text,
    /// A city of the western United States.
    pub city: Text,
    /// Two upper-case letters; not related to the city.
    pub state: Text,
    /// When the person registered.
    pub date_time: i64,
    /// Filler up to the configured average size.
    pub extra: Text,
}

/// An item offered for sale.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Auction {
    /// From 1000 upwards, without gaps.
    pub id: i64,
    pub item_name: Text,
    pub description: Text,
    /// Lowest bid accepted.
    pub initial_bid: i64,
    /// Price below which the seller does not sell; at least `initial_bid`.
    pub reserve: i64,
    /// When the auction opened.
    pub date_time: i64,
    /// When it closes; after `date_time`.
    pub expires: i64,
    /// Id of a [`Person`].
    pub seller: i64,
    /// One of five, 10 to 14.
    pub category: i64,
    /// Filler up to the configured average size.
    pub extra: Text,
}

/// A bid on an auction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bid {
    /// Id of an [`Auction`].
    pub auction: i64,
    /// Id of a [`Person`] plus 1000: the Java generator adds its first id twice, and published results depend on it.
    pub bidder: i64,
    pub price: i64,
    /// Where the bidder came from: one of four large ones, or `channel-0` to `channel-9999`.
    pub channel: Text,
    /// One address for each channel; nine of ten small channels have a `channel_id` in it.
    pub url: Text,
    /// When the bid was made.
    pub date_time: i64,
    /// Filler up to the configured average size.
    pub extra: Text,
}

/// One event of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    Person(Person),
    Auction(Auction),
    Bid(Bid),
}

impl Event {
    /// When it happened, in milliseconds since the epoch: the event time.
    #[inline]
    pub fn date_time(&self) -> i64 {
        match self {
            Event::Person(person) => person.date_time,
            Event::Auction(auction) => auction.date_time,
            Event::Bid(bid) => bid.date_time,
        }
    }

    /// The person, if it is one.
    pub fn as_person(&self) -> Option<&Person> {
        if let Event::Person(person) = self { Some(person) } else { None }
    }

    /// The auction, if it is one.
    pub fn as_auction(&self) -> Option<&Auction> {
        if let Event::Auction(auction) = self { Some(auction) } else { None }
    }

    /// The bid, if it is one.
    pub fn as_bid(&self) -> Option<&Bid> {
        if let Event::Bid(bid) = self { Some(bid) } else { None }
    }
}
