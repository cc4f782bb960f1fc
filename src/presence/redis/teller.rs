//! Telling: what the scripts noted of users who came and went becomes messages.
//!
//! Any node tells, one at a time. What was told is removed afterwards; should that be forgotten it is told again under
//! the same ids, which the broker knows.

use std::sync::Arc;
use std::time::Duration;

use ::redis::cmd;

use super::Shared;
use super::scripts::{HUSH, TOLD, ms};
use crate::broker::Broker;
use crate::config::channels::Rules;
use crate::model::{MessageId, UserId};
use crate::presence::news;
use crate::presence::table::Change;
use crate::redis::RedisFault;

/// How many changes are told at once.
const TOLD_AT_ONCE: usize = 256;
/// The pause before a change that could not be told is offered again.
const RETRY: Duration = Duration::from_millis(500);
/// The pause before it is asked again whether somebody else has told everything.
const OTHERS: Duration = Duration::from_millis(20);
/// How long one node has the right to tell without saying so again.
const RIGHT: Duration = Duration::from_secs(10);

pub(super) struct Teller {
    pub(super) shared: Arc<Shared>,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) rules: Arc<Rules>,
}

impl Teller {
    pub(super) async fn run(&self) {
        let mut warned = false;
        loop {
            self.shared.untold.notified().await;
            while let Err(error) = self.tell_all().await {
                if !warned {
                    tracing::warn!(%error, "who came and went could not be told; trying again");
                    warned = true;
                }
                tokio::time::sleep(RETRY).await;
            }
            warned = false;
        }
    }

    /// Tells everything that waits, wherever it came from.
    pub(super) async fn tell_all(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        for base in self.shared.users.bases() {
            self.tell(&base).await?;
        }
        Ok(())
    }

    async fn tell(&self, base: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let redis = self.shared.users.redis();
        let teller = ulid::Ulid::generate().to_string();
        let outbox = format!("{base}o");
        loop {
            let waiting: usize = redis.query(cmd("LLEN").arg(&outbox)).await?;
            if waiting == 0 {
                return Ok(());
            }
            let mut right = cmd("SET");
            right.arg(format!("{base}l")).arg(&teller).arg("NX").arg("PX").arg(ms(RIGHT));
            if redis.query::<Option<String>>(&right).await?.is_none() {
                tokio::time::sleep(OTHERS).await;
                continue;
            }
            let told = self.tell_in_turn(base, &outbox, &teller).await;
            let mut hush = HUSH.call(&[base]);
            hush.arg(&teller);
            let hushed: Result<(), RedisFault> = redis.call(&hush).await;
            told?;
            hushed?;
        }
    }

    /// Tells what waits, in its order.
    async fn tell_in_turn(
        &self,
        base: &str,
        outbox: &str,
        teller: &str,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let redis = self.shared.users.redis();
        loop {
            let waiting: Vec<String> =
                redis.query(cmd("LRANGE").arg(outbox).arg(0).arg(TOLD_AT_ONCE - 1)).await?;
            let groups: Vec<_> = waiting.iter().filter_map(|text| self.group(base, text)).collect();
            if !groups.is_empty() {
                self.broker.append(groups).await?;
            }
            let mut call = TOLD.call(&[base]);
            call.arg(teller).arg(ms(RIGHT));
            for text in &waiting {
                call.arg(text);
            }
            if redis.call::<usize>(&call).await? == 0 {
                return Ok(());
            }
        }
    }

    /// The message of a note; none of one that nobody can read, or where the rules have no such channel.
    fn group(&self, base: &str, text: &str) -> Option<crate::broker::AppendGroup> {
        let mut words = text.split(' ');
        let (id, user, sum) = (words.next()?, words.next()?, words.next()?);
        let connections: usize = sum.parse().ok()?;
        let user_id = UserId::parse(user).ok()?;
        let place = base.rsplit(':').next()?.trim_end_matches(['}', 'p']);
        let id = MessageId::parse(&format!("presence:{place}:{id}")).ok()?;
        let change = Change { user_id, online: connections > 0, connections };
        news::group(&self.rules, &change, id, false)
    }
}
