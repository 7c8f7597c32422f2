//! `serve`: OpenAI's interface over HTTP/1.1.
//!
//! One thread owns the batch ([`engine`]); each connection has a short-lived thread of its own ([`connection`]) that reads
//! one request ([`http`]), turns it into a job ([`api`]) and writes what comes back. Nothing that a client sends decides how
//! much memory is taken: heads, bodies, connections and waiting jobs have limits, and whoever is slow is left.
//!
//! The server is written here rather than taken from a library because it needs little of HTTP (a request per connection,
//! bodies of known length) and exact control of deadlines and of noticing that a client is gone.

mod api;
mod connection;
mod engine;
mod http;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use foretrain_edge::Model;

use super::model_arguments::{ModelArguments, SamplingArguments};
use connection::Server;

/// Connections at a time; further ones are told to come back.
const MAX_CONNECTIONS: usize = 64;
/// After a connection that could not be accepted: the system may be out of files for a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Arguments of `serve`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  foretrain-edge serve --gguf model-TQ2_0.gguf
  FORETRAIN_API_KEY=secret foretrain-edge serve --package packages/talk --host 0.0.0.0 --parallel 8
  curl localhost:8080/v1/completions -H 'Content-Type: application/json' -d '{\"prompt\": \"Once\", \"max_tokens\": 32}'

Endpoints: POST /v1/chat/completions, POST /v1/completions, GET /v1/models, GET /health.
The sampling options here are what a request gets that names none.")]
pub(super) struct ServeArguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// Address to listen on. Any but this machine's own needs --api-key.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// What clients must send as `Authorization: Bearer KEY`. The environment variable keeps it out of process lists.
    #[arg(long, value_name = "KEY", env = "FORETRAIN_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Requests answered at a time; they share the reading of the weights.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// Requests that may wait for their turn; further ones are told to come back.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(0..=4096))]
    queue: u16,
}

pub(super) fn run(arguments: &ServeArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let ServeArguments { host, port, parallel, queue, .. } = arguments;
    let api_key = arguments.api_key.as_deref().filter(|key| !key.is_empty());
    if !host.is_loopback() && api_key.is_none() {
        bail!(
            "serving on {host}: expected --api-key or FORETRAIN_API_KEY, found none; whoever reaches {host} could use it"
        );
    }
    let defaults = arguments.sampling.options(0);
    defaults.check()?;
    let model = arguments.model.open()?;
    let listener =
        TcpListener::bind(SocketAddr::new(*host, *port)).with_context(|| format!("listening on {host}:{port}"))?;
    let address = listener.local_addr()?;
    writeln!(out, "serving {} on http://{address}, {parallel} at a time", model.name())?;
    out.flush()?;
    let (jobs, waiting) = mpsc::sync_channel(usize::from(*queue));
    let server = Server::new(&model, defaults, api_key, host.is_loopback(), jobs);
    let num_threads = arguments.model.num_threads();
    serve(&model, &listener, &server, move |model| engine::run(model, usize::from(*parallel), num_threads, &waiting))
}

/// Accepts connections for as long as the program runs.
fn serve(
    model: &Model,
    listener: &TcpListener,
    server: &Server<'_>,
    engine: impl FnOnce(&Model) + Send,
) -> anyhow::Result<()> {
    let num_connections = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        std::thread::Builder::new().name("engine".to_owned()).spawn_scoped(scope, move || engine(model))?;
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                std::thread::sleep(ACCEPT_PAUSE);
                continue;
            };
            let place = Place::take(&num_connections);
            if num_connections.load(Ordering::SeqCst) > MAX_CONNECTIONS {
                connection::turn_away(&stream);
                continue;
            }
            let thread = std::thread::Builder::new().name("connection".to_owned());
            // A thread that the system refuses closes the connection.
            let _ = thread.spawn_scoped(scope, move || {
                let _place = place;
                server.answer(&stream);
            });
        }
        Ok(())
    })
}

/// One of the connections, counted until it ends, however it ends.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
