//! One caller, from its first byte to the end of its connection.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use capnp::message::ReaderOptions;
use capnp_rpc::twoparty::VatNetwork;
use capnp_rpc::{RpcSystem, new_client, rpc_twoparty_capnp};
use flott_schema::wire::generated::control_capnp::coordinator;
use tokio::io::{BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use super::cluster::Bootstrap;
use super::guard::Guarded;
use super::server::Server;

/// Words of the largest message that a member of the cluster may send: 8 Mi words are 64 MiB.
const MESSAGE_WORDS_MAX: usize = 8 << 20;

/// How long a caller that was turned away may take to read why.
const PARTING_MS: u64 = 1_000;

/// What is known of a caller.
pub(super) struct Caller {
    pub peer: SocketAddr,
    /// Whether its hello was accepted.
    pub admitted: Rc<Cell<bool>>,
    /// Whether it has registered a worker, which it may do once.
    pub registered: Cell<bool>,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Open,
    /// To be closed once it has read its answer.
    Parting,
    /// To be closed at once.
    Closing,
    Ended,
}

impl Caller {
    pub(super) fn new(peer: SocketAddr) -> Self {
        Caller {
            peer,
            admitted: Rc::new(Cell::new(false)),
            registered: Cell::new(false),
            state: watch::Sender::new(State::Open),
        }
    }

    /// Closes the connection once the caller has read the answer to its call, or had time to.
    pub(super) fn part(&self) {
        self.advance(State::Parting);
    }

    /// Closes the connection.
    pub(super) fn close(&self) {
        self.advance(State::Closing);
    }

    /// Whether the connection is no more.
    pub(super) fn has_ended(&self) -> bool {
        *self.state.borrow() == State::Ended
    }

    /// Waits for the end of the connection.
    pub(super) async fn ended(&self) {
        self.reach(State::Ended).await;
    }

    fn advance(&self, to: State) {
        self.state.send_if_modified(|state| {
            let forward = *state < to;
            *state = to.max(*state);
            forward
        });
    }

    async fn reach(&self, wanted: State) {
        // The sender is in `self`, so this cannot fail.
        let _ = self.state.subscribe().wait_for(|state| *state >= wanted).await;
    }
}

/// Serves a caller until it hangs up or is turned away.
pub(super) async fn serve(server: Rc<Server>, stream: TcpStream, caller: Rc<Caller>) {
    let reason = converse(&server, stream, &caller).await;
    tracing::debug!(peer = %caller.peer, reason, "connection to the control port ended");
    caller.advance(State::Ended);
}

async fn converse(server: &Rc<Server>, stream: TcpStream, caller: &Rc<Caller>) -> String {
    if let Err(error) = stream.set_nodelay(true) {
        return error.to_string();
    }
    let (reader, writer) = stream.into_split();
    let reader = BufReader::new(Guarded::new(reader, caller.admitted.clone()));
    let options = *ReaderOptions::new().traversal_limit_in_words(Some(MESSAGE_WORDS_MAX));
    let network = VatNetwork::new(
        reader.compat(),
        BufWriter::new(writer).compat_write(),
        rpc_twoparty_capnp::Side::Server,
        options,
    );
    let bootstrap: coordinator::Client =
        new_client(Bootstrap { server: server.clone(), caller: caller.clone() });
    let mut rpc = RpcSystem::new(Box::new(network), Some(bootstrap.client));
    let hello_late = sleep(Duration::from_millis(server.options.hello_timeout_ms));
    let parting = async {
        caller.reach(State::Parting).await;
        tokio::select! {
            () = caller.reach(State::Closing) => {}
            () = sleep(Duration::from_millis(PARTING_MS)) => {}
        }
    };
    tokio::pin!(hello_late, parting);
    let mut greeted = false;
    loop {
        tokio::select! {
            ended = &mut rpc => {
                let reason = match ended {
                    Ok(()) => "it was closed".to_string(),
                    Err(error) => error.to_string(),
                };
                if !caller.admitted.get() && *caller.state.borrow() == State::Open {
                    server.refuse(caller, "it hung up, or sent what is no call, before it was let in");
                }
                return reason;
            }
            () = &mut parting => return "this side closed it".into(),
            () = &mut hello_late, if !greeted => {
                greeted = true;
                if !caller.admitted.get() {
                    server.refuse(caller, "it did not say hello in time");
                    return "no hello".into();
                }
            }
        }
    }
}
