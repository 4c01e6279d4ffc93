//! The stream as a whole, against the rules of the benchmark.

use std::collections::{HashMap, HashSet};

use super::event_maker::{FIRST_AUCTION_ID, FIRST_CATEGORY_ID, FIRST_PERSON_ID, HOT_EVERY, ID_LEAD};
use super::*;

fn events(config: &NexmarkConfig, count: u64) -> Vec<(i64, Event)> {
    Generator::new(config, 0, 1, count).unwrap().collect()
}

fn bids(config: &NexmarkConfig, count: u64) -> Vec<Bid> {
    events(config, count).into_iter().filter_map(|(_, event)| event.as_bid().cloned()).collect()
}

#[test]
fn kinds_come_in_proportion_and_in_order() {
    let mut pattern = String::new();
    for (_, event) in events(&NexmarkConfig::default(), 5000) {
        pattern.push(match event {
            Event::Person(_) => 'p',
            Event::Auction(_) => 'a',
            Event::Bid(_) => 'b',
        });
    }
    assert_eq!(pattern, ("paaa".to_owned() + &"b".repeat(46)).repeat(100));
}

#[test]
fn kinds_may_be_missing() {
    for (person, auction, bid) in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 3, 46), (1, 0, 46), (5, 5, 0)] {
        let config = NexmarkConfig {
            person_proportion: person,
            auction_proportion: auction,
            bid_proportion: bid,
            ..NexmarkConfig::default()
        };
        let count = u64::from(config.total_proportion()) * 20;
        let events = events(&config, count);
        let people = events.iter().filter(|(_, event)| event.as_person().is_some()).count();
        let auctions = events.iter().filter(|(_, event)| event.as_auction().is_some()).count();
        let bids = events.iter().filter(|(_, event)| event.as_bid().is_some()).count();
        assert_eq!(
            (people, auctions, bids),
            (person as usize * 20, auction as usize * 20, bid as usize * 20)
        );
    }
}

#[test]
fn equal_settings_make_equal_streams_and_another_seed_another() {
    let config = NexmarkConfig::default();
    assert_eq!(events(&config, 1000), events(&config, 1000));
    let other = NexmarkConfig { seed: 1, ..config.clone() };
    let same = events(&config, 1000).into_iter().zip(events(&other, 1000)).filter(|(a, b)| a == b).count();
    assert_eq!(same, 0);
}

/// A stream that changes between versions would break the promise of exactly-once for jobs that resume from a savepoint:
/// when this fails, the generator has changed, not the test.
#[test]
fn the_stream_is_the_one_of_the_first_version() {
    let config = NexmarkConfig { out_of_order_group_size: 10, ..NexmarkConfig::default() };
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let first = Generator::new(&config, 0, 1, 10_000).unwrap();
    let far = Generator::new(&config, 1_000_000_000_000, 1, 10_000).unwrap();
    for item in first.chain(far) {
        for byte in serde_json::to_vec(&item).unwrap() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    assert_eq!(format!("{hash:016x}"), "3af555e76cd22164");
}

#[test]
fn readers_together_make_the_whole_stream() {
    for (group, count) in [(1, 1003), (10, 1003), (1000, 2500)] {
        let config =
            NexmarkConfig { event_count: count, out_of_order_group_size: group, ..NexmarkConfig::default() };
        let whole: Vec<_> = Generator::reader(&config, 0, 1).unwrap().collect();
        assert_eq!(whole.len() as u64, count);
        for readers in [2, 3, 7, 50, 2000] {
            let mut shares: Vec<_> =
                (0..readers).map(|index| Generator::reader(&config, index, readers).unwrap()).collect();
            let mut union = Vec::new();
            while let Some(item) = shares[union.len() % readers as usize].next() {
                union.push(item);
            }
            assert_eq!(union, whole, "{readers} readers, groups of {group}");
            assert_eq!(shares.iter().map(Generator::remaining).sum::<u64>(), 0);
        }
    }
}

#[test]
fn a_generator_resumes_from_its_position() {
    let config = NexmarkConfig { out_of_order_group_size: 7, ..NexmarkConfig::default() };
    let whole: Vec<_> = Generator::new(&config, 5, 3, 1000).unwrap().collect();
    for stop in [0, 1, 499, 999, 1000] {
        let mut generator = Generator::new(&config, 5, 3, 1000).unwrap();
        let head: Vec<_> = generator.by_ref().take(stop).collect();
        let position = generator.position();
        assert_eq!(position, 5 + 3 * stop as u64);
        let mut resumed = Generator::new(&config, 5, 3, 1000).unwrap();
        resumed.seek(position).unwrap();
        assert_eq!(resumed.remaining(), 1000 - stop as u64);
        let tail: Vec<_> = resumed.collect();
        assert_eq!([head, tail].concat(), whole);
        generator.seek(5).unwrap();
        assert_eq!(generator.next(), whole.first().cloned());
    }
}

#[test]
fn a_position_of_another_share_is_refused() {
    let mut generator = Generator::new(&NexmarkConfig::default(), 5, 3, 10).unwrap();
    generator.next();
    for position in [0, 4, 6, 7, 38, u64::MAX] {
        let error = generator.seek(position).unwrap_err();
        assert_eq!(error, NexmarkError::ForeignPosition { position, first: 5, step: 3 });
        assert_eq!(generator.position(), 8);
    }
    assert_eq!(generator.seek(35), Ok(()));
    assert_eq!(generator.next(), None);
}

#[test]
fn shares_that_cannot_be_are_refused() {
    let config = NexmarkConfig::default();
    assert_eq!(Generator::new(&config, 0, 0, 1).unwrap_err(), NexmarkError::NoStep);
    assert_eq!(
        Generator::reader(&config, 3, 3).unwrap_err(),
        NexmarkError::NoSuchReader { index: 3, readers: 3 }
    );
    assert!(Generator::new(&config, u64::MAX, 1, 1).is_err());
    let invalid = NexmarkConfig { events_per_second: 0, ..config };
    assert!(Generator::new(&invalid, 0, 1, 1).is_err());
}

#[test]
fn the_stream_ends_at_the_last_number() {
    let config = NexmarkConfig { events_per_second: 1, ..NexmarkConfig::default() };
    let first = LAST_EVENT_NUMBER - 100;
    let mut generator = Generator::new(&config, first, 7, u64::MAX).unwrap();
    let timestamps: Vec<i64> = generator.by_ref().map(|(timestamp_ms, _)| timestamp_ms).collect();
    assert_eq!(timestamps.len(), 14);
    assert_eq!(timestamps[1], config.base_time_ms + (first as i64 + 7) * 1000);
    assert_eq!(generator.position(), first + 98);
    assert_eq!(Generator::new(&config, 9, u64::MAX, u64::MAX).unwrap().count(), 0);
}

#[test]
fn batches_hold_what_the_iterator_gives() {
    let config = NexmarkConfig { out_of_order_group_size: 4, ..NexmarkConfig::default() };
    let expected = events(&config, 1000);
    let mut generator = Generator::new(&config, 0, 1, 1000).unwrap();
    let mut bid_generator = generator.clone();

    let (mut events, mut timestamps) = (Vec::new(), Vec::new());
    let mut sizes = Vec::new();
    while let count @ 1.. = generator.fill(300, &mut events, &mut timestamps) {
        sizes.push(count);
    }
    assert_eq!(sizes, [300, 300, 300, 100]);
    assert!(timestamps.iter().copied().zip(events).eq(expected.iter().cloned()));

    let (mut bids, mut timestamps) = (Vec::new(), Vec::new());
    let mut passed = 0;
    while let count @ 1.. = bid_generator.fill_bids(300, &mut bids, &mut timestamps) {
        passed += count;
    }
    assert_eq!(passed, 1000);
    let expected_bids =
        expected.iter().filter_map(|(timestamp_ms, event)| Some((*timestamp_ms, event.as_bid()?)));
    assert!(timestamps.iter().copied().zip(&bids).eq(expected_bids));
}

#[test]
fn timestamps_follow_the_rate() {
    for rate in [1, 3, 10_000, 1_000_003, 100_000_000] {
        let config = NexmarkConfig { events_per_second: rate, base_time_ms: 500, ..NexmarkConfig::default() };
        // Far out, where a 32-bit float counts in steps of minutes.
        let first = 40_000_000_000_000;
        for (number, (timestamp_ms, event)) in (first..).zip(Generator::new(&config, first, 1, 500).unwrap())
        {
            let exact = 500 + i128::from(number) * 1000 / i128::from(rate);
            assert_eq!(i128::from(timestamp_ms), exact, "event {number} at {rate}/s");
            assert_eq!(event.date_time(), timestamp_ms);
        }
    }
}

#[test]
fn out_of_order_events_stay_in_their_group() {
    let config = NexmarkConfig {
        events_per_second: 1000,
        base_time_ms: 0,
        out_of_order_group_size: 100,
        ..NexmarkConfig::default()
    };
    let mut generator = Generator::new(&config, 0, 1, 1000).unwrap();
    let mut timestamps = Vec::new();
    let mut low = generator.lowest_timestamp_ms();
    for number in 0..1000 {
        assert_eq!(generator.due_timestamp_ms(), number);
        let (timestamp_ms, _) = generator.next().unwrap();
        assert_eq!(timestamp_ms, number / 100 * 100 + number * 953 % 100);
        assert!(timestamp_ms >= low, "{timestamp_ms} after a promise of {low}");
        assert!(generator.lowest_timestamp_ms() >= low);
        low = generator.lowest_timestamp_ms();
        timestamps.push(timestamp_ms);
    }
    assert!(timestamps.windows(2).filter(|pair| pair[0] > pair[1]).count() > 100, "in order after all");
    timestamps.sort_unstable();
    assert!(timestamps.into_iter().eq(0..1000));
}

#[test]
fn ids_have_no_gaps() {
    let all = events(&NexmarkConfig::default(), 50_000);
    let people = all.iter().filter_map(|(_, event)| event.as_person()).map(|person| person.id);
    assert!(people.eq(1000..2000));
    let auctions = all.iter().filter_map(|(_, event)| event.as_auction()).map(|auction| auction.id);
    assert!(auctions.eq(1000..4000));
}

#[test]
fn references_are_to_what_may_exist() {
    let config = NexmarkConfig::default();
    let (mut last_person, mut last_auction) = (FIRST_PERSON_ID, FIRST_AUCTION_ID);
    let mut early = 0;
    let mut references = 0;
    let mut check = |id: i64, first: i64, last: i64, reach: i64| {
        // The hot one is the first of its hundred, or the second, and may be older than the reach.
        let oldest = (last - reach).min((last - first) / HOT_EVERY * HOT_EVERY + first).max(first);
        assert!((oldest..=last + ID_LEAD).contains(&id), "{id} when the last was {last}");
        early += u32::from(id > last);
        references += 1;
    };
    for (_, event) in events(&config, 200_000) {
        match event {
            Event::Person(person) => last_person = person.id,
            Event::Auction(auction) => {
                check(auction.seller, FIRST_PERSON_ID, last_person, config.active_people.into());
                last_auction = auction.id;
            }
            Event::Bid(bid) => {
                check(bid.auction, FIRST_AUCTION_ID, last_auction, config.auctions_in_flight.into());
                // The id of a person, with the first id added a second time.
                let person = bid.bidder - FIRST_PERSON_ID;
                check(person, FIRST_PERSON_ID, last_person, config.active_people.into());
            }
        }
    }
    assert!(early > 0, "nothing overtakes");
    assert!(early < references / 20, "{early} of {references} refer to what is still to come");
}

/// The share of items that one value has, at most.
fn share_of_most_frequent<T: std::hash::Hash + Eq>(items: impl Iterator<Item = T>) -> f64 {
    let mut counts: HashMap<T, usize> = HashMap::new();
    items.for_each(|item| *counts.entry(item).or_default() += 1);
    let total: usize = counts.values().sum();
    counts.into_values().max().unwrap() as f64 / total as f64
}

fn assert_near(value: f64, expected: f64) {
    assert!((value - expected).abs() < 0.02, "{value} is not near {expected}");
}

#[test]
fn hot_auctions_bidders_and_sellers_are_as_hot_as_told() {
    // People 10,000 to 10,099 are the last ones, and so the first of them is hot all the time; so with auctions 0 to 99.
    let config = NexmarkConfig { auction_proportion: 1, bid_proportion: 48, ..NexmarkConfig::default() };
    let hundred = || Generator::new(&config, 10_000 * 50, 1, 100 * 50).unwrap().map(|(_, event)| event);
    let bids: Vec<Bid> = hundred().filter_map(|event| event.as_bid().cloned()).collect();
    let hot_auction = bids.iter().filter(|bid| bid.auction == 11_000).count() as f64 / bids.len() as f64;
    assert_near(hot_auction, 0.5 + 0.5 / 110.0);
    let hot_bidder = bids.iter().filter(|bid| bid.bidder == 12_001).count() as f64 / bids.len() as f64;
    assert_near(hot_bidder, 0.75);

    // Sellers are few in a hundred people: count how many auctions went to any hot seller over many hundreds.
    let auctions: Vec<_> =
        events(&config, 500_000).into_iter().filter_map(|(_, event)| event.as_auction().cloned()).collect();
    let hot = auctions.iter().filter(|auction| auction.seller % HOT_EVERY == 0).count();
    assert_near(hot as f64 / auctions.len() as f64, 0.75 + 0.25 / 100.0);
}

#[test]
fn a_ratio_of_one_means_no_skew() {
    let even = NexmarkConfig {
        hot_auction_ratio: 1,
        hot_bidder_ratio: 1,
        hot_seller_ratio: 1,
        ..NexmarkConfig::default()
    };
    // The last 2,500 of 52,500 events: a thousand people are active, a hundred auctions are open.
    let bids = bids(&even, 52_500).split_off(46 * 1000);
    assert!(share_of_most_frequent(bids.iter().map(|bid| bid.auction)) < 0.03);
    assert!(share_of_most_frequent(bids.iter().map(|bid| bid.bidder)) < 0.01);
    let skewed = super::tests::bids(&NexmarkConfig::default(), 52_500).split_off(46 * 1000);
    assert!(share_of_most_frequent(skewed.iter().map(|bid| bid.auction)) > 0.3);
    assert!(share_of_most_frequent(skewed.iter().map(|bid| bid.bidder)) > 0.7);
}

#[test]
fn people_are_written_as_the_queries_expect() {
    let config = NexmarkConfig { auction_proportion: 0, bid_proportion: 0, ..NexmarkConfig::default() };
    let mut states = HashSet::new();
    let mut cities = HashSet::new();
    let mut names = HashSet::new();
    for (_, event) in events(&config, 5000) {
        let person = event.as_person().unwrap();
        states.insert(person.state.to_string());
        cities.insert(person.city.to_string());
        names.insert(person.name.to_string());
        let groups: Vec<&str> = person.credit_card.split(' ').collect();
        assert_eq!(groups.len(), 4, "{person:?}");
        assert!(groups.iter().all(|group| group.len() == 4 && group.parse::<u16>().is_ok()), "{person:?}");
        let (local, host) = person.email_address.split_once('@').unwrap();
        let host = host.strip_suffix(".com").unwrap();
        assert!(local.len() < 7 && local.trim() == local, "{person:?}");
        assert!(host.len() < 5 && host.trim() == host, "{person:?}");
    }
    // Query 3 asks for OR, ID and CA.
    let expected_states = ["AZ", "CA", "ID", "OR", "WA", "WY"];
    assert_eq!(states, expected_states.map(String::from).into());
    assert_eq!(cities.len(), 10);
    assert!(cities.contains("San Francisco"));
    assert_eq!(names.len(), 11 * 9);
    assert!(names.contains("Peter Shultz"));
}

#[test]
fn auctions_have_sound_prices_times_and_categories() {
    let config = NexmarkConfig { person_proportion: 0, bid_proportion: 0, ..NexmarkConfig::default() };
    let mut lengths_ms = Vec::new();
    let mut categories = HashSet::new();
    for (_, event) in events(&config, 5000) {
        let auction = event.as_auction().unwrap();
        assert!(auction.initial_bid >= 100 && auction.reserve >= auction.initial_bid + 100, "{auction:?}");
        categories.insert(auction.category);
        lengths_ms.push(auction.expires - auction.date_time);
    }
    let expected: HashSet<i64> = (FIRST_CATEGORY_ID..FIRST_CATEGORY_ID + 5).collect();
    assert_eq!(categories, expected);
    // A hundred auctions at 10,000 a second are 10 ms: lengths are even over 1 to 20 ms.
    assert_eq!((lengths_ms.iter().min(), lengths_ms.iter().max()), (Some(&1), Some(&20)));
    let mean_ms = lengths_ms.iter().sum::<i64>() as f64 / lengths_ms.len() as f64;
    assert!((mean_ms - 10.5).abs() < 0.3, "{mean_ms}");
}

#[test]
fn random_strings_have_random_lengths_and_some_spaces() {
    let config = NexmarkConfig { person_proportion: 0, bid_proportion: 0, ..NexmarkConfig::default() };
    let auctions = events(&config, 20_000);
    let auctions: Vec<&Auction> = auctions.iter().filter_map(|(_, event)| event.as_auction()).collect();
    let check = |end: usize, get: fn(&Auction) -> &Text| {
        let texts: Vec<&Text> = auctions.iter().map(|auction| get(auction)).collect();
        assert!(texts.iter().all(|text| text.len() < end && text.trim() == text.as_str()));
        let lengths: HashSet<usize> = texts.iter().map(|text| text.len()).collect();
        assert!((3..end).all(|length| lengths.contains(&length)), "{lengths:?}");
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        // Trimming takes off 2/12 of a character on average.
        let mean = bytes as f64 / texts.len() as f64;
        assert!((mean - ((3 + end - 1) as f64 / 2.0 - 2.0 / 12.0)).abs() < 0.7, "mean length {mean}");
        let inner: usize = texts.iter().filter(|text| text.len() > 2).map(|text| text.len() - 2).sum();
        let spaces: usize = texts.iter().map(|text| text.matches(' ').count()).sum();
        assert!((spaces as f64 / inner as f64 * 13.0 - 1.0).abs() < 0.05, "{spaces} of {inner}");
        assert!(texts.iter().all(|text| text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b' '))));
    };
    check(20, |auction| &auction.item_name);
    check(100, |auction| &auction.description);
}

#[test]
fn channels_have_one_url_each_and_half_of_the_bids_the_hot_ones() {
    let mut urls: HashMap<String, String> = HashMap::new();
    let bids = bids(&NexmarkConfig::default(), 100_000);
    let mut hot = 0;
    for bid in &bids {
        let known = urls.entry(bid.channel.to_string()).or_insert_with(|| bid.url.to_string());
        assert_eq!(bid.url, known.as_str(), "{}", bid.channel);
        hot += usize::from(!bid.channel.starts_with("channel-"));
    }
    assert_near(hot as f64 / bids.len() as f64, 0.5);
    assert_eq!(urls.keys().filter(|channel| !channel.starts_with("channel-")).count(), 4);
    assert!(urls.len() > 9800, "{}", urls.len());

    let mut with_id = 0;
    for (channel, url) in &urls {
        let path = url.strip_prefix("https://www.nexmark.com/").unwrap();
        let parts: Vec<&str> = path.split('/').collect();
        assert_eq!(parts.len(), 4, "{url}");
        assert!(parts[..3].iter().all(|part| (3..=4).contains(&part.len())), "{url}");
        let query = parts[3].strip_prefix("item.htm?query=1").unwrap();
        if let Some(id) = query.strip_prefix("&channel_id=") {
            let number: u32 = channel.strip_prefix("channel-").unwrap().parse().unwrap();
            let reversed = number.reverse_bits() as i32;
            assert_eq!(id, reversed.wrapping_abs().to_string(), "{channel}");
            with_id += 1;
        } else {
            assert_eq!(query, "", "{url}");
        }
    }
    assert_near(f64::from(with_id) / urls.len() as f64, 0.9);
}

#[test]
fn extra_makes_up_the_average_size() {
    let sizes = |config: &NexmarkConfig| {
        let mut totals: HashMap<&str, (usize, usize)> = HashMap::new();
        for (_, event) in events(config, 50_000) {
            let (kind, bytes) = match &event {
                Event::Person(person) => (
                    "person",
                    8 + person.name.len()
                        + person.email_address.len()
                        + person.credit_card.len()
                        + person.city.len()
                        + person.state.len()
                        + person.extra.len(),
                ),
                Event::Auction(auction) => (
                    "auction",
                    48 + auction.item_name.len() + auction.description.len() + auction.extra.len(),
                ),
                Event::Bid(bid) => ("bid", 32 + bid.extra.len()),
            };
            let (count, total) = totals.entry(kind).or_default();
            *count += 1;
            *total += bytes;
        }
        ["person", "auction", "bid"].map(|kind| totals[kind].1 as f64 / totals[kind].0 as f64)
    };
    for (mean, average) in sizes(&NexmarkConfig::default()).into_iter().zip([200.0, 500.0, 100.0]) {
        assert!((mean - average).abs() < average * 0.02, "{mean} instead of {average}");
    }
    let bare = NexmarkConfig { bid_average_bytes: 0, ..NexmarkConfig::default() };
    assert!(bids(&bare, 1000).iter().all(|bid| bid.extra.is_empty()));
    let lengths: Vec<usize> =
        bids(&NexmarkConfig::default(), 20_000).iter().map(|bid| bid.extra.len()).collect();
    // 68 bytes are missing, a fifth of them is 14.
    assert_eq!((lengths.iter().min(), lengths.iter().max()), (Some(&54), Some(&81)));
    let pieces: HashSet<Text> =
        bids(&NexmarkConfig::default(), 1000).into_iter().map(|bid| bid.extra).collect();
    assert!(
        pieces.len() > 900 && pieces.iter().all(|piece| piece.bytes().all(|byte| byte.is_ascii_lowercase()))
    );
}

#[test]
fn events_survive_serialisation() {
    for (_, event) in events(&NexmarkConfig::default(), 200) {
        let bytes = postcard::to_stdvec(&event).unwrap();
        assert_eq!(postcard::from_bytes::<Event>(&bytes).unwrap(), event);
        let json = serde_json::to_string(&event).unwrap();
        let back: Event = serde_json::from_str(&json).unwrap();
        assert_eq!(back, event);
        // The copy owns its strings; a copy of the copy is equal again.
        assert_eq!(back.clone(), event);
    }
}

#[test]
fn events_are_small() {
    assert_eq!(size_of::<Text>(), 16);
    assert_eq!(size_of::<Bid>(), 80);
    assert!(size_of::<Event>() <= 120);
}
