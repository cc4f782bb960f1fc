//! A worker of one's own: jobs of the type `primes` count the primes below `config.below`.
//!
//! ```sh
//! cargo run --example worker                                   # a server with this worker, on a free port
//! cargo run --example worker -- redis://127.0.0.1              # a worker beside servers that share a Redis
//! tidings submit primes --config '{"below":200000}' --wait
//! ```

use std::time::Duration;

use tidings::kit::{Failed, Job, Progress, Results, Worker};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let worker = Worker::builder().handler("primes", primes);
    if let Some(redis) = std::env::args().nth(1) {
        worker.redis(redis).run().await?;
        return Ok(());
    }
    let data = std::env::temp_dir().join(format!("tidings-example-{}", std::process::id()));
    let running = worker.embedded("127.0.0.1:0".parse()?, &data).start().await?;
    if let Some(address) = running.address() {
        println!("listening on http://{address}");
    }
    tokio::signal::ctrl_c().await?;
    running.stop().await;
    std::fs::remove_dir_all(data)?;
    Ok(())
}

async fn primes(job: Job, progress: Progress) -> Result<Results, Failed> {
    let below = job.config.get("below").and_then(serde_json::Value::as_u64);
    let below = below.ok_or_else(|| Failed::tests("config.below is missing: how far to count"))?;
    let mut found = 0_u64;
    for n in 0..below {
        if n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| n % d != 0) {
            found += 1;
        }
        progress.set(n + 1, below);
        if n % 1000 == 0 {
            progress.metric("primes", found);
            progress.message(format!("at {n}"));
            // Others want to run, too; and somebody may have cancelled the job.
            tokio::time::sleep(Duration::from_millis(1)).await;
            if progress.is_cancelled() {
                return Err(Failed::tests("cancelled"));
            }
        }
    }
    progress.metric("primes", found);
    progress.log(format!("{found} primes below {below}"));
    Ok(Results::from_iter([("primes".to_owned(), found.into())]))
}
