//! Makes the event that belongs at a place, by the rules of the Java generator.

use std::hint::select_unpredictable;

use super::config::NexmarkConfig;
use super::model::{Auction, Bid, Event, Person};
use super::price::price;
use super::random::{Random, below};
use super::text::Text;
use super::timeline::{Place, Stride, Timeline};
use super::word_pools::WordPools;

/// Ids do not begin at 0, so that queries for a given id find something in short streams too.
pub(super) const FIRST_PERSON_ID: i64 = 1000;
pub(super) const FIRST_AUCTION_ID: i64 = 1000;
pub(super) const FIRST_CATEGORY_ID: i64 = 10;
const CATEGORIES: u32 = 5;

/// Sellers, bidders and bids may refer to so many people and auctions that are still to come: as if events had overtaken
/// each other.
pub(super) const ID_LEAD: i64 = 10;
/// One person or auction in so many is a hot one.
pub(super) const HOT_EVERY: i64 = 100;

/// Item names and descriptions are shorter than this.
const ITEM_NAME_BYTES_END: u32 = 20;
const DESCRIPTION_BYTES_END: u32 = 100;
/// What a number counts for in the size of an event.
const NUMBER_BYTES: u32 = 8;

/// A function from places to events, with all that it needs at hand.
#[derive(Clone)]
pub(super) struct EventMaker {
    seed: u64,
    people_per_epoch: i64,
    auctions_per_epoch: i64,
    /// Offsets below this are people.
    auction_offset: u64,
    /// Offsets from this on are bids.
    bid_offset: u64,
    hot_auction_ratio: u32,
    hot_seller_ratio: u32,
    hot_bidder_ratio: u32,
    auctions_in_flight: i64,
    active_people: i64,
    /// The events in which [`Self::auctions_in_flight`] auctions open.
    auction_horizon: Stride,
    person_average_bytes: u32,
    auction_average_bytes: u32,
    bid_extra: ExtraLength,
    words: &'static WordPools,
}

/// The lengths that `extra` may have.
#[derive(Clone, Copy)]
struct ExtraLength {
    shortest: u32,
    /// How many lengths there are, from the shortest on; at least 1.
    choices: u32,
}

impl ExtraLength {
    /// A fifth more or less than what is missing from the average; none if nothing is.
    #[inline]
    fn new(bytes: u32, average_bytes: u32) -> Self {
        let missing = average_bytes.saturating_sub(bytes);
        // A fifth, rounded to the nearest.
        let spread = (2 * missing + 5) / 10;
        Self { shortest: missing - spread, choices: (2 * spread).max(1) }
    }

    #[inline]
    fn cut(self, words: &WordPools, (length_draw, draw): (u32, u32)) -> Text {
        words.filler(draw, self.shortest + below(length_draw, self.choices))
    }
}

impl EventMaker {
    /// For valid settings.
    pub fn new(config: &NexmarkConfig, timeline: &Timeline) -> Self {
        let horizon_events = u64::from(config.auctions_in_flight) * u64::from(config.total_proportion())
            / u64::from(config.auction_proportion.max(1));
        Self {
            seed: config.seed,
            people_per_epoch: config.person_proportion.into(),
            auctions_per_epoch: config.auction_proportion.into(),
            auction_offset: config.person_proportion.into(),
            bid_offset: (config.person_proportion + config.auction_proportion).into(),
            hot_auction_ratio: config.hot_auction_ratio,
            hot_seller_ratio: config.hot_seller_ratio,
            hot_bidder_ratio: config.hot_bidder_ratio,
            auctions_in_flight: config.auctions_in_flight.into(),
            active_people: config.active_people.into(),
            auction_horizon: timeline.stride(horizon_events),
            person_average_bytes: config.person_average_bytes,
            auction_average_bytes: config.auction_average_bytes,
            bid_extra: ExtraLength::new(4 * NUMBER_BYTES, config.bid_average_bytes),
            words: WordPools::shared(),
        }
    }

    #[inline]
    pub fn is_bid(&self, place: Place) -> bool {
        place.offset >= self.bid_offset
    }

    /// The event at a place. Always inlined, as is [`Self::bid`]: it is then written where it will stay, not copied there.
    #[inline(always)]
    pub fn event(&self, place: Place, timeline: &Timeline) -> Event {
        if self.is_bid(place) {
            Event::Bid(self.bid(place))
        } else if place.offset >= self.auction_offset {
            Event::Auction(self.auction(place, timeline))
        } else {
            Event::Person(self.person(place))
        }
    }

    /// The bid at a place that is one's.
    #[inline(always)]
    pub fn bid(&self, place: Place) -> Bid {
        let mut random = Random::new(self.seed, place.number);

        let last_auction = (place.epoch as i64 + 1) * self.auctions_per_epoch - 1;
        let (hot_draw, draw) = random.pair();
        let any_auction = self.open_auction(draw, last_auction);
        let hot_auction = last_auction / HOT_EVERY * HOT_EVERY;
        let is_hot = below(hot_draw, self.hot_auction_ratio) > 0;
        let auction = select_unpredictable(is_hot, hot_auction, any_auction);

        let last_person = (place.epoch as i64 + 1) * self.people_per_epoch - 1;
        let (hot_draw, draw) = random.pair();
        let any_bidder = self.active_person(draw, last_person);
        // The second of the hundred; the first is the hot seller.
        let hot_bidder = last_person / HOT_EVERY * HOT_EVERY + 1;
        let is_hot = below(hot_draw, self.hot_bidder_ratio) > 0;
        let bidder = select_unpredictable(is_hot, hot_bidder, any_bidder);

        let price = price(random.word());
        let (channel, url) = self.words.channel(random.pair());
        Bid {
            auction: FIRST_AUCTION_ID + auction,
            // Twice: see `Bid::bidder`.
            bidder: FIRST_PERSON_ID + FIRST_PERSON_ID + bidder,
            price,
            channel,
            url,
            date_time: place.timestamp_ms,
            extra: self.bid_extra.cut(self.words, random.pair()),
        }
    }

    fn auction(&self, place: Place, timeline: &Timeline) -> Auction {
        let mut random = Random::new(self.seed, place.number);
        let (hot_draw, draw) = random.pair();
        let last_person = (place.epoch as i64 + 1) * self.people_per_epoch - 1;
        let seller = if below(hot_draw, self.hot_seller_ratio) > 0 {
            last_person / HOT_EVERY * HOT_EVERY
        } else {
            self.active_person(draw, last_person)
        };
        let initial_bid = price(random.word());
        let horizon_ms = timeline.passing_ms(place, &self.auction_horizon);
        let length_ms = 1 + random.below_wide(2 * horizon_ms as u64) as i64;
        let item_name = self.words.prose(random.pair(), ITEM_NAME_BYTES_END);
        let description = self.words.prose(random.pair(), DESCRIPTION_BYTES_END);
        let bytes = 6 * NUMBER_BYTES + (item_name.len() + description.len()) as u32;
        Auction {
            id: FIRST_AUCTION_ID
                + place.epoch as i64 * self.auctions_per_epoch
                + (place.offset - self.auction_offset) as i64,
            item_name,
            description,
            initial_bid,
            reserve: initial_bid + price(random.word()),
            date_time: place.timestamp_ms,
            expires: place.timestamp_ms + length_ms,
            seller: FIRST_PERSON_ID + seller,
            category: FIRST_CATEGORY_ID + i64::from(below(random.pair().0, CATEGORIES)),
            extra: ExtraLength::new(bytes, self.auction_average_bytes).cut(self.words, random.pair()),
        }
    }

    fn person(&self, place: Place) -> Person {
        let mut random = Random::new(self.seed, place.number);
        let (name_draw, email_draw) = random.pair();
        let (card_draw, city_draw) = random.pair();
        let name = self.words.name(name_draw);
        let email_address = self.words.email(email_draw);
        let credit_card = self.words.credit_card(card_draw);
        let city = self.words.city(city_draw);
        let state = self.words.state(random.pair().0);
        let bytes = NUMBER_BYTES
            + (name.len() + email_address.len() + credit_card.len() + city.len() + state.len()) as u32;
        Person {
            id: FIRST_PERSON_ID + place.epoch as i64 * self.people_per_epoch + place.offset as i64,
            name,
            email_address,
            credit_card,
            city,
            state,
            date_time: place.timestamp_ms,
            extra: ExtraLength::new(bytes, self.person_average_bytes).cut(self.words, random.pair()),
        }
    }

    /// Any of the last auctions, or of the next few. Counts auctions from 0, as all here.
    #[inline]
    fn open_auction(&self, draw: u32, last: i64) -> i64 {
        let first = (last - self.auctions_in_flight).max(0);
        first + i64::from(below(draw, (last - first + 1 + ID_LEAD) as u32))
    }

    /// Any of the last people, or of the next few.
    #[inline]
    fn active_person(&self, draw: u32, last: i64) -> i64 {
        let people = last + 1;
        let active = people.min(self.active_people);
        people - active + i64::from(below(draw, (active + ID_LEAD) as u32))
    }
}
