//! Who does not belong here.

use std::time::Duration;

use flott_schema::config::Configuration;
use flott_schema::error::ErrorKind;
use flott_schema::security::{CONTROL_PROTOCOL, Token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::peer::{Greeting, connect, registered};
use super::{Cluster, Options, Zeros, run, soon, start};

fn guarded() -> Options {
    Options { token: Token::new("correct-horse").unwrap(), ..Options::default() }
}

#[test]
fn who_has_not_the_token_is_turned_away_with_the_reason_and_counted() {
    run(async {
        let cluster = Cluster::start(guarded());
        for (token, reason) in
            [("", "no token"), ("wrong-horse", "another one"), ("correct-horse-", "another one")]
        {
            let (mut line, answer) =
                connect(&cluster.address(), Greeting { token, ..Greeting::default() }).await;
            let error = answer.err().expect("refused").to_string();
            assert!(error.contains(reason) && error.contains("security.token"), "{error}");
            assert!(!error.contains("correct"), "{error}");
            line.closed().await;
        }
        assert_eq!(cluster.rpc.refused(), 3);
        let (_line, answer) =
            connect(&cluster.address(), Greeting { token: "correct-horse", ..Greeting::default() }).await;
        answer.unwrap();
        assert_eq!(cluster.rpc.refused(), 3);
    });
}

#[test]
fn who_speaks_another_protocol_is_turned_away_with_the_reason() {
    run(async {
        let cluster = Cluster::start(Options::default());
        for protocol in [0, CONTROL_PROTOCOL + 1] {
            let (_line, answer) =
                connect(&cluster.address(), Greeting { protocol, ..Greeting::default() }).await;
            let error = answer.err().expect("refused").to_string();
            assert!(error.contains(&format!("protocol {protocol}")), "{error}");
        }
        assert_eq!(cluster.rpc.refused(), 2);
    });
}

/// Sends bytes and waits until the other side closes the connection.
async fn send(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other side may close while this still writes.
    let _ = stream.write_all(bytes).await;
    let mut rest = Vec::new();
    let _ = soon("the end of the connection", stream.read_to_end(&mut rest)).await;
}

#[test]
fn garbage_and_oversized_messages_end_their_connection_and_nothing_else() {
    run(async {
        let cluster = Cluster::start(Options::default());
        let worker = registered(&cluster.address(), 1).await;
        let mut messages: Vec<Vec<u8>> = vec![
            b"GET / HTTP/1.1\r\nHost: flott\r\n\r\n".to_vec(),
            vec![0xff; 1 << 20],
            // One segment of 32 GiB.
            [0_u32.to_le_bytes(), u32::MAX.to_le_bytes()].concat(),
            // 60 MiB, which a member might send.
            [0_u32.to_le_bytes(), (60_u32 << 17).to_le_bytes()].concat(),
            // A message of one segment of zeros: a null root.
            [vec![0; 4], 4_u32.to_le_bytes().to_vec(), vec![0; 32]].concat().repeat(10_000),
        ];
        // A generator of Lehmer's: the same bytes in every run.
        let mut number: u64 = 1;
        for _ in 0..100 {
            let noise = (0..256).map(|_| {
                number = number * 48_271 % 0x7fff_ffff;
                number as u8
            });
            // A header that is right, so that the noise is read as a call.
            messages.push(
                [vec![0; 4], 32_u32.to_le_bytes().to_vec()].concat().into_iter().chain(noise).collect(),
            );
        }
        for bytes in &messages {
            let mut stream = TcpStream::connect(cluster.address()).await.unwrap();
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = soon("the end of the connection", stream.read_to_end(&mut rest)).await;
        }
        worker.heartbeat(&Default::default()).await.unwrap();
        registered(&cluster.address(), 1).await;
    });
}

#[test]
fn what_is_no_message_is_cut_off_without_waiting_for_more() {
    run(async {
        let never = Options { hello_timeout_ms: super::peer::NEVER_MS, ..Options::default() };
        let cluster = Cluster::start(never);
        send(&cluster.address(), b"SSH-2.0-OpenSSH_9.2p1\r\n").await;
        send(&cluster.address(), &[0xff; 64]).await;
        // A connection is closed a moment before it is counted.
        while cluster.rpc.refused() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn who_says_nothing_is_cut_off() {
    run(async {
        let cluster = Cluster::start(Options { hello_timeout_ms: 100, ..Options::default() });
        send(&cluster.address(), b"").await;
        assert_eq!(cluster.rpc.refused(), 1);
        // A member may be quiet for longer.
        let worker = registered(&cluster.address(), 1).await;
        send(&cluster.address(), b"").await;
        worker.heartbeat(&Default::default()).await.unwrap();
    });
}

#[test]
fn more_connections_than_there_is_room_for_are_turned_away() {
    run(async {
        let cluster = Cluster::start(Options { connections_max: 1, ..Options::default() });
        let worker = registered(&cluster.address(), 1).await;
        send(&cluster.address(), b"").await;
        assert_eq!(cluster.rpc.refused(), 1);
        worker.heartbeat(&Default::default()).await.unwrap();
    });
}

#[test]
fn an_address_that_others_can_reach_is_not_bound_without_a_token() {
    run(async {
        let cluster = Cluster::start(Options::default());
        let open = |token| Options { bind_host: "0.0.0.0".into(), token, ..Options::default() };
        let parts = || super::Parts {
            handle: cluster.handle.clone(),
            link: cluster.link.clone(),
            programs: std::sync::Arc::new(Zeros),
            peer: None,
        };
        let error = start(open(Token::none()), parts()).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("coordinator.bind-host"), "{error}");
        start(open(Token::new("correct-horse").unwrap()), parts()).unwrap();
    });
}

#[test]
fn settings_come_out_of_the_configuration_and_a_timeout_below_the_interval_is_refused() {
    let config = |pairs: &[&str]| Configuration::from_pairs(pairs.iter().copied()).unwrap();
    let pairs = ["coordinator.port=7000-7002", "heartbeat.interval=2 s", "heartbeat.timeout=9 s"];
    let options = Options::from_configuration(&config(&pairs), Token::none()).unwrap();
    assert_eq!((options.heartbeat_interval_ms, options.heartbeat_timeout_ms), (2_000, 9_000));
    assert_eq!((options.bind_host.as_str(), options.ports), ("127.0.0.1", vec![7_000, 7_001, 7_002]));
    let equal = ["heartbeat.interval=9 s", "heartbeat.timeout=9 s"];
    let error = Options::from_configuration(&config(&equal), Token::none()).unwrap_err();
    assert!(error.to_string().contains("heartbeat.timeout must be longer"), "{error}");
}

#[test]
fn a_port_that_is_taken_is_named_and_the_next_of_a_range_is_tried() {
    run(async {
        let cluster = Cluster::start(Options::default());
        let taken = cluster.rpc.address().port();
        let parts = || super::Parts {
            handle: cluster.handle.clone(),
            link: cluster.link.clone(),
            programs: std::sync::Arc::new(Zeros),
            peer: None,
        };
        let error = start(Options { ports: vec![taken], ..Options::default() }, parts()).expect_err("taken");
        let text = error.to_string();
        assert!(text.contains(&taken.to_string()) && text.contains("coordinator.port"), "{text}");
        let other = start(Options { ports: vec![taken, 0], ..Options::default() }, parts()).unwrap();
        assert_ne!(other.address().port(), taken);
    });
}
