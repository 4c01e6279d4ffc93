//! The threads that answer requests, the port, and their end.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use actix_web::dev::ServerHandle as ActixHandle;
use actix_web::web::{Data, to};
use actix_web::{App, HttpServer};
use tokio::sync::oneshot;

use super::disposals::Disposals;
use super::gate::{Api, serve};
use super::options::{Options, StartError};
use super::services::Services;
use flott_schema::config::options::REST_BIND_ADDRESS;
use flott_schema::security::check_bound_address;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 256;

/// Connections a thread serves at once; further ones wait.
const CONNECTIONS_MAX: usize = 1_024;

/// Deadline for the head of a request.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// How long requests in course may take when the server ends, seconds.
const SHUTDOWN_SECS: u64 = 2;

/// Threads that read files for one that answers requests.
const BLOCKING_THREADS_MAX: usize = 4;

/// The server of the REST API.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Opens the port and answers requests from now on, on threads of its own.
    pub fn start(options: Options, services: Services) -> Result<ServerHandle, StartError> {
        let listener = bind(&options)?;
        let address = listener.local_addr().map_err(StartError::Thread)?;
        check_bound_address(REST_BIND_ADDRESS.key(), address, &options.token).map_err(StartError::Open)?;
        let own = options.advertised_address.clone().filter(|_| options.bind_ports != [0]);
        let threads = options.threads.max(1);
        let idleness = Duration::from_millis(options.idleness_timeout_ms);
        let body_max = usize::try_from(options.content_length_max_bytes).unwrap_or(usize::MAX);
        let api = Data::new(Api {
            options,
            services,
            address: own.unwrap_or_else(|| address.to_string()),
            disposals: Disposals::default(),
        });

        let (started, start) = std::sync::mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("flott-rest".into()).spawn(move || {
            let system = actix_rt::System::new();
            system.block_on(async move {
                let server = HttpServer::new(move || {
                    App::new()
                        .app_data(api.clone())
                        .app_data(actix_web::web::PayloadConfig::new(body_max))
                        .default_service(to(serve))
                })
                .workers(threads)
                .worker_max_blocking_threads(BLOCKING_THREADS_MAX)
                .backlog(BACKLOG)
                .max_connections(CONNECTIONS_MAX)
                .client_request_timeout(HEAD_DEADLINE)
                .keep_alive(idleness)
                .shutdown_timeout(SHUTDOWN_SECS)
                .disable_signals()
                .listen(listener);
                match server {
                    Ok(server) => {
                        let server = server.run();
                        let _ = started.send(Ok(server.handle()));
                        if let Err(error) = server.await {
                            tracing::error!(%error, "the REST API has ended");
                        }
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            });
        });
        let thread = thread.map_err(StartError::Thread)?;
        let gone = || std::io::Error::other("the thread ended at once");
        let server = start.recv().map_err(|_| StartError::Thread(gone()))?.map_err(StartError::Thread)?;
        tracing::info!(%address, "REST API");
        Ok(ServerHandle { address, server, thread: Some(thread) })
    }
}

/// Opens the first free port.
fn bind(options: &Options) -> Result<TcpListener, StartError> {
    let mut last = std::io::Error::from(std::io::ErrorKind::InvalidInput);
    for port in &options.bind_ports {
        match TcpListener::bind((options.bind_address.as_str(), *port)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    let ports: Vec<String> = options.bind_ports.iter().take(10).map(u16::to_string).collect();
    Err(StartError::Bind { address: options.bind_address.clone(), ports: ports.join(", "), source: last })
}

/// A running server. It ends when this is dropped.
#[derive(Debug)]
pub struct ServerHandle {
    address: SocketAddr,
    server: ActixHandle,
    thread: Option<thread::JoinHandle<()>>,
}

impl ServerHandle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the server: requests in course get a moment. Returns when the port is closed.
    pub async fn stop(mut self) {
        let (ended, end) = oneshot::channel();
        drop(self.server.stop(true));
        if let Some(thread) = self.thread.take() {
            thread::spawn(move || {
                let _ = ended.send(thread.join());
            });
            if let Ok(Err(_)) = end.await {
                tracing::error!("the thread of the REST API panicked");
            }
        }
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        // The command is sent when the future is made; nobody waits for the end.
        drop(self.server.stop(false));
    }
}
