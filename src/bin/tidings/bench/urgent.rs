//! `tidings bench urgent`: how long a critical message takes to a client that is owed thousands of low ones.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tidings::client::http::HttpClient;
use tidings::client::room::Since;
use tidings::client::socket::{ConnectOptions, SocketClient};

use super::queue::OwnServer;
use crate::Failure;

/// The low messages are spread over so many rooms, and published in arrays of so many.
const ROOMS: usize = 10;
const ARRAY: usize = 500;
/// How long the messages of one round may take.
const ROUND_DEADLINE: Duration = Duration::from_secs(60);

/// Arguments of `bench urgent`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How often it is measured.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = super::at_least_one)]
    rounds: usize,
    /// How many low messages are published before the critical one.
    #[arg(long, default_value_t = 5_000, value_name = "N", value_parser = super::at_least_one)]
    low: usize,
    /// The length of each low message's data in bytes.
    #[arg(long, default_value_t = 1_000, value_name = "BYTES", value_parser = super::a_payload)]
    payload: usize,
    /// A running server; without it, one is started in a temporary directory.
    #[arg(long, env = "TIDINGS_SERVER", value_name = "URL")]
    server: Option<String>,
    /// The token, where the server wants one.
    #[arg(long, env = "TIDINGS_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// What was measured.
struct Figures {
    idle: Histogram<u64>,
    behind: Histogram<u64>,
    /// How many low ones came before the critical one, and how many after it, in all rounds.
    before: usize,
    overtaken: usize,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let own = if args.server.is_some() { None } else { Some(OwnServer::start(None).await?) };
    let url =
        args.server.clone().or_else(|| own.as_ref().map(OwnServer::url)).context("there is no server")?;
    let measured = measure(&url, &args).await;
    if let Some(own) = own {
        own.stop().await;
    }
    let Figures { idle, behind, before, overtaken } = measured?;
    let rounds = args.rounds;
    if args.json {
        let us =
            |delays: &Histogram<u64>| json!({ "p50": delays.value_at_quantile(0.5), "max": delays.max() });
        super::print_json(&json!({
            "benchmark": "urgent", "rounds": rounds, "low": args.low, "delivered": rounds * (args.low + 2),
            "before": before, "overtaken": overtaken, "idle_us": us(&idle), "behind_us": us(&behind)
        }))?;
    } else {
        let text = |delays: &Histogram<u64>| {
            let at = |us| Duration::from_micros(us);
            format!("p50 {:?}, max {:?}", at(delays.value_at_quantile(0.5)), at(delays.max()))
        };
        super::print(&format!(
            "a critical message to an idle client: {}\nright behind {} low ones: {}; it overtook {} of them on average",
            text(&idle),
            args.low,
            text(&behind),
            overtaken / rounds
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(url: &str, args: &Args) -> anyhow::Result<Figures> {
    let run = ulid::Ulid::generate().to_string();
    let rooms: Vec<String> = (0..ROOMS).map(|n| format!("test-progress-bench-{run}-{n}")).collect();
    let http = HttpClient::new(url, args.token.as_deref())?;
    let options = ConnectOptions { token: args.token.clone(), ..ConnectOptions::default() };
    let mut socket = SocketClient::connect(url, options).await?;
    for room in rooms.iter().map(String::as_str).chain(["system-alerts"]) {
        socket.join(room, Since::Now).await?;
    }
    let histogram = || Histogram::new(3).context("a histogram of three digits");
    let mut figures = Figures { idle: histogram()?, behind: histogram()?, before: 0, overtaken: 0 };
    for _ in 0..args.rounds {
        for low in [0, args.low] {
            let round = round(&http, &mut socket, &rooms, low, args.payload);
            let (delay, before) = tokio::time::timeout(ROUND_DEADLINE, round)
                .await
                .context("the messages of a round did not come in time")??;
            let delay = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
            let delays = if low == 0 { &mut figures.idle } else { &mut figures.behind };
            delays.record(delay).context("a delay beyond measure")?;
            figures.before += before;
            figures.overtaken += low - before;
        }
    }
    Ok(figures)
}

/// Publishes `low` low messages, and then a critical one; its delay, and how many low ones came before it.
async fn round(
    http: &HttpClient,
    socket: &mut SocketClient,
    rooms: &[String],
    low: usize,
    payload: usize,
) -> anyhow::Result<(Duration, usize)> {
    let data = json!({ "padding": "x".repeat(payload) });
    let message = |n: usize| json!({ "channel": rooms[n % rooms.len()], "event": "custom:bench", "priority": 1, "data": data });
    let messages: Vec<Value> = (0..low).map(message).collect();
    for array in messages.chunks(ARRAY) {
        let _: Value = http.post("/api/v1/events", &array).await?;
    }
    let alert = json!({ "level": "critical", "message": "a benchmark" });
    let alert = json!({ "channel": "system-alerts", "event": "system:alert", "data": alert });
    let sent = Instant::now();
    let publish = async { http.post::<_, Value>("/api/v1/events", &alert).await };
    let receive = async {
        let (mut came, mut critical) = (0, None);
        while came < low || critical.is_none() {
            let event = socket.next().await.context("the connection ended")??;
            match event.name.as_str() {
                "custom:bench" => came += 1,
                "system:alert" => critical = Some((sent.elapsed(), came)),
                "connection:established" => {}
                other => bail!("`{other}` came, which nobody sent"),
            }
        }
        critical.context("the critical message is missing")
    };
    let (published, received) = tokio::join!(publish, receive);
    published?;
    received
}
