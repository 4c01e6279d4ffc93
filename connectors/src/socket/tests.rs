use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::timeout;

use flott_dataflow::context::OperatorContext;
use flott_dataflow::source::{Assignment, Source, SourceReader, SplitEnumerator};
use flott_schema::Result;

use super::{SocketReader, SocketSplit, SocketText};
use crate::bad_record::OnBadRecord;
use crate::test_kit::context;

const PATIENCE: Duration = Duration::from_secs(60);

async fn listener() -> (TcpListener, SocketText) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, SocketText::new("127.0.0.1", port).retry_delay(Duration::from_millis(1)))
}

/// Serves one text for each connection, then stops listening.
fn serve(listener: TcpListener, texts: Vec<&'static [u8]>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        for text in texts {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(text).await.unwrap();
        }
    })
}

fn reader(source: &SocketText, ctx: &OperatorContext) -> SocketReader {
    let mut reader = source.reader(ctx).unwrap();
    reader.add_split(SocketSplit).unwrap();
    reader
}

async fn next(reader: &mut SocketReader, max: usize) -> Result<Option<Vec<String>>> {
    let batch = timeout(
        PATIENCE,
        poll_fn(|cx| match reader.read(max, cx) {
            Ok(poll) => poll.map(Ok),
            Err(error) => Poll::Ready(Err(error)),
        }),
    );
    Ok(batch.await.expect("an answer in time")?.map(|batch| batch.records))
}

async fn all(reader: &mut SocketReader) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    while let Some(batch) = next(reader, 3).await? {
        assert!(batch.len() <= 3);
        lines.extend(batch);
    }
    Ok(lines)
}

#[tokio::test]
async fn lines_are_read_until_the_peer_closes() {
    let (listener, source) = listener().await;
    serve(listener, vec![b"a\r\nb\n\nc\nd\ne\nlast"]);
    let mut reader = reader(&source, &context(0, 1));
    assert_eq!(reader.snapshot(), [SocketSplit]);
    assert_eq!(all(&mut reader).await.unwrap(), ["a", "b", "", "c", "d", "e", "last"]);
    assert_eq!(reader.snapshot(), []);
}

#[tokio::test]
async fn a_line_is_given_as_soon_as_it_is_whole() {
    let (listener, source) = listener().await;
    let mut reader = reader(&source, &context(0, 1));
    let server = tokio::spawn(async move { listener.accept().await.unwrap().0 });
    let waiting = timeout(Duration::from_millis(50), poll_fn(|cx| reader.read(10, cx).unwrap()));
    assert!(waiting.await.is_err(), "nothing was sent");
    let mut stream = server.await.unwrap();
    stream.write_all(b"one;tw").await.unwrap();
    let waiting = timeout(Duration::from_millis(50), poll_fn(|cx| reader.read(10, cx).unwrap()));
    assert!(waiting.await.is_err(), "there is no line end yet");
    stream.write_all(b"o\nthree\nfo").await.unwrap();
    let mut lines = Vec::new();
    while lines.len() < 2 {
        lines.extend(next(&mut reader, 10).await.unwrap().unwrap());
    }
    assert_eq!(lines, ["one;two", "three"]);
}

#[tokio::test]
async fn another_delimiter_can_be_chosen() {
    let (listener, source) = listener().await;
    serve(listener, vec![b"a\nb;c;"]);
    assert_eq!(all(&mut reader(&source.delimiter(b';'), &context(0, 1))).await.unwrap(), ["a\nb", "c"]);
}

#[tokio::test]
async fn a_connection_that_ends_is_made_again_as_often_as_configured() {
    let (listener, source) = listener().await;
    let server = serve(listener, vec![b"a\nb", b"c\n", b"d\n"]);
    let mut reader = reader(&source.retries(2), &context(0, 1));
    let mut lines = Vec::new();
    while lines.len() < 4 {
        lines.extend(next(&mut reader, 10).await.unwrap().unwrap());
    }
    assert_eq!(lines, ["a", "b", "c", "d"], "data resets the count of failures, so two retries do for three");
    server.await.unwrap();
    let error = next(&mut reader, 10).await.unwrap_err().to_string();
    assert!(
        error.starts_with("cannot connect to '127.0.0.1:") && error.contains("(after 2 retries)"),
        "{error}"
    );
}

#[tokio::test]
async fn a_refused_connection_is_an_error_that_names_the_address() {
    // Bound and not listening: the port is nobody else's, and refuses.
    let bound = tokio::net::TcpSocket::new_v4().unwrap();
    bound.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = bound.local_addr().unwrap().port();
    let source = SocketText::new("127.0.0.1", port);
    let error = next(&mut reader(&source, &context(0, 1)), 10).await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot connect to '127.0.0.1:{port}': Connection refused")),
        "{error}"
    );
}

#[tokio::test]
async fn bad_lines_are_dealt_with_as_configured() {
    let (listener, source) = listener().await;
    let server = tokio::spawn(async move {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The reader that fails hangs up.
            let _ = stream.write_all(b"good\n\xff\nlonger than eight\n").await;
        }
    });
    let error = all(&mut reader(&source, &context(0, 1))).await.unwrap_err().to_string();
    assert!(
        error.starts_with("127.0.0.1:") && error.contains(": line 2: column 1: not valid UTF-8"),
        "{error}"
    );

    let ctx = context(0, 1);
    let source = source.on_bad_record(OnBadRecord::SkipAndCount);
    assert_eq!(all(&mut reader(&source, &ctx)).await.unwrap(), ["good", "longer than eight"]);
    assert_eq!(ctx.metrics.undecodable_records.load(Ordering::Relaxed), 1);

    let error = all(&mut reader(&source.max_line_bytes(8), &context(0, 1))).await.unwrap_err().to_string();
    assert!(error.contains("the line at byte 7 is longer than 8 bytes"), "{error}");
    server.await.unwrap();
}

#[test]
fn only_one_reader_gets_the_connection_and_an_address_must_be_complete() {
    let source = SocketText::new("localhost", 1);
    source.check().unwrap();
    let mut enumerator = source.enumerator(2).unwrap();
    assert_eq!(enumerator.next_split(1).unwrap(), Assignment::Split(SocketSplit));
    assert_eq!(enumerator.next_split(0).unwrap(), Assignment::NoMore);
    assert!(SocketText::new("", 1).check().is_err());
    assert!(SocketText::new("localhost", 0).check().unwrap_err().to_string().contains("'localhost:0'"));
}

#[tokio::test]
async fn a_restored_source_connects_once_and_reads_what_is_sent_then() {
    let (listener, source) = listener().await;
    let mut driver = crate::test_kit::Driver::new(&source, 2);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert_eq!(driver.turn(1, 1, &mut cx).unwrap(), crate::test_kit::Turn::GotSplit);
    let snapshot = driver.snapshot();
    assert_eq!(snapshot.splits.len(), 1);
    let mut enumerator = source.enumerator(3).unwrap();
    enumerator.restore(&snapshot.enumerator).unwrap();
    assert_eq!(enumerator.next_split(0).unwrap(), Assignment::NoMore, "the reader that has it keeps it");
    serve(listener, vec![b"later\n"]);
    let mut reader = reader(&source, &context(0, 1));
    assert_eq!(all(&mut reader).await.unwrap(), ["later"]);
}
