//! A network of two wires between this machine and a Redis that has a network of its own
//! ([`RedisServer::start_apart`]), whose packets the kernel drops as it is told.
//!
//! It takes root, `ip` and `nft`. Everything of it ends with the process of that Redis, however that ends.

use std::process::Command;

use super::redis::RedisServer;

/// The way to one Redis.
#[derive(Debug)]
pub(crate) struct Network {
    pid: u32,
    /// Where Redis is.
    address: String,
}

/// Which packets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    ToRedis,
    FromRedis,
}

impl Network {
    /// Whether this machine allows it; if not, why.
    pub(crate) fn is_possible() -> Result<(), String> {
        run("unshare", &["--net", "--", "nft", "list", "tables"])?;
        run("ip", &["link", "show"])
    }

    /// Lays the wires; the error says what the machine does not allow.
    pub(crate) fn to(redis: &RedisServer) -> Result<Self, String> {
        let pid = redis.pid();
        // A network of four addresses that nobody else has, with much luck.
        let (a, b) = (fastrand::u8(..), fastrand::u8(..64) * 4);
        let (here, there) = (format!("10.231.{a}.{}", b + 1), format!("10.231.{a}.{}", b + 2));
        let (outer, inner) = (format!("td{pid}o"), format!("td{pid}i"));
        let network = Self { pid, address: there.clone() };
        let netns = pid.to_string();
        run("ip", &["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &netns])?;
        run("ip", &["addr", "add", &format!("{here}/30"), "dev", &outer])?;
        run("ip", &["link", "set", &outer, "up"])?;
        network.inside("ip", &["addr", "add", &format!("{there}/30"), "dev", &inner])?;
        network.inside("ip", &["link", "set", &inner, "up"])?;
        for (chain, hook) in [("to", "input"), ("from", "output")] {
            let rules = format!(
                "add table inet weather; add chain inet weather {chain} {{ type filter hook {hook} priority 0; }}"
            );
            network.inside("nft", &[&rules])?;
        }
        // Before anybody relies on it.
        network.drop(Way::ToRedis, 50)?;
        network.clear()?;
        Ok(network)
    }

    /// Where Redis is, seen from here.
    pub(crate) fn url(&self, redis: &RedisServer) -> String {
        format!("redis://{}:{}", self.address, redis.port())
    }

    /// So many of a hundred packets are lost on this way from now on.
    pub(crate) fn drop(&self, way: Way, percent: u8) -> Result<(), String> {
        let chain = match way {
            Way::ToRedis => "to",
            Way::FromRedis => "from",
        };
        let end = if chain == "to" { "iifname" } else { "oifname" };
        let some = if percent < 100 { format!("numgen random mod 100 < {percent}") } else { String::new() };
        // What Redis says to itself is not on the wires.
        let rule = format!("add rule inet weather {chain} meta {end} != lo {some} counter drop");
        self.inside("nft", &[&rule])
    }

    /// All packets pass again.
    pub(crate) fn clear(&self) -> Result<(), String> {
        self.inside("nft", &["flush table inet weather"])
    }

    fn inside(&self, program: &str, args: &[&str]) -> Result<(), String> {
        let pid = self.pid.to_string();
        let mut all = vec!["--net", "--target", &pid, "--", program];
        all.extend(args);
        run("nsenter", &all)
    }
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    // Daemons and their tools are not in everybody's path.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(args).env("PATH", path).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{program} {}: {}", args.join(" "), said.trim()))
    }
}
