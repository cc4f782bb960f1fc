//! Writing: what this node has, into Redis, batch after batch.
//!
//! A batch has a number within an incarnation of the node, and each place that it is written to knows the last one,
//! so that a batch which was written without an answer is not written twice. Who finds that it is not known, because
//! it was taken for dead or because Redis lost its data, begins a new incarnation and writes everything anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::cmd;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Shared;
use super::journal::{Batch, Here};
use super::scripts::{BEGIN, BEGIN_OWN, CHECK, KEPT, Names, OWN, ms};
use crate::model::{ChannelName, UserId, now_ms};
use crate::presence::Line;
use crate::redis::{Call, Redis, RedisFault};

/// The pause before what could not be written is offered again.
const RETRY: Duration = Duration::from_millis(200);
/// The own keys of rooms are written again so often, long before they go by themselves.
const WRITE_ROOMS: Duration = Duration::from_secs(24 * 3600);

/// What is known of a connection.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Known {
    #[serde(rename = "c")]
    pub(super) client_id: String,
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub(super) user_id: Option<UserId>,
    #[serde(rename = "a")]
    pub(super) connected_at_ms: i64,
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) rooms: Vec<ChannelName>,
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub(super) transport: Option<String>,
}

/// Why this node has to begin anew.
struct Unknown;

/// What carries a connection, as it is written.
type Carried = (Arc<dyn Line>, Option<&'static str>);

/// Where a part of a batch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Users(usize),
    Rooms(usize),
    Own,
}

struct Part {
    place: Place,
    call: Call<'static>,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    written: watch::Sender<u64>,
    // Of this process, and of its incarnation now.
    process: String,
    incarnations: u64,
    incarnation: String,
    numbers: HashMap<Place, u64>,
    // What carries the connections that may yet change it.
    carried: HashMap<Arc<str>, Carried>,
    rooms_written: Instant,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, written: watch::Sender<u64>) -> Self {
        Self {
            shared,
            written,
            process: format!("{}.", ulid::Ulid::generate()),
            incarnations: 0,
            incarnation: String::new(),
            numbers: HashMap::new(),
            carried: HashMap::new(),
            rooms_written: Instant::now(),
        }
    }

    /// The incarnation under which this node was written last.
    pub(super) fn incarnation(&self) -> &str {
        &self.incarnation
    }

    pub(super) async fn run(&mut self) {
        let mut ticks = tokio::time::interval(self.shared.lease / 3);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut status = self.redis().status();
        let mut known = false;
        loop {
            if !known || self.shared.journal().is_too_much() {
                self.insist("who is here could not be told to Redis", Self::begin).await;
            }
            known = self.write_all().await.is_ok();
            if !known {
                continue;
            }
            tokio::select! {
                () = self.shared.changed.notified() => {}
                _ = ticks.tick() => {
                    self.look_at_carriers();
                    known = self.look().await;
                }
                // It may be back with less than it had.
                Ok(()) = status.changed() => known = self.look().await,
            }
        }
    }

    /// Tries `what` until it is done.
    async fn insist(&mut self, warning: &str, what: impl AsyncFn(&mut Self) -> Result<(), RedisFault>) {
        let mut warned = false;
        while let Err(error) = what(self).await {
            if !warned {
                tracing::warn!(%error, "{warning}; trying again");
                warned = true;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn redis(&self) -> &Redis {
        self.shared.users.redis()
    }

    /// Begins a new incarnation: Redis knows this node and what it counted before, and nothing is written yet.
    async fn begin(&mut self) -> Result<(), RedisFault> {
        let shared = self.shared.clone();
        self.incarnations += 1;
        self.incarnation = format!("{}{}", self.process, self.incarnations);
        self.numbers.clear();
        // Before anything that somebody could take out for want of it.
        shared.renew().await?;
        let users = self.begin_names(&shared.users).await?;
        let rooms = self.begin_names(&shared.rooms).await?;
        let mut call = BEGIN_OWN.call(&[&shared.own]);
        call.arg(&self.incarnation).arg(ms(KEPT));
        for room in &rooms {
            call.arg(room);
        }
        self.redis().call::<()>(&call).await?;
        let users = users.iter().filter_map(|name| UserId::parse(name).ok()).collect();
        let rooms = rooms.iter().filter_map(|name| ChannelName::parse(name).ok()).collect();
        self.carried.clear();
        shared.journal().begin(users, rooms);
        Ok(())
    }

    /// What this node counted before; another process of its name is taken out first.
    async fn begin_names(&self, names: &Names) -> Result<Vec<String>, RedisFault> {
        let node = &self.shared.node;
        let mut known = Vec::new();
        for bucket in 0..names.buckets() {
            loop {
                let mut call = BEGIN.call(&[names.base(bucket)]);
                call.arg(node).arg(&self.process).arg(&self.incarnation);
                let (other, counted): (String, Vec<String>) = self.redis().call(&call).await?;
                known.extend(counted);
                if other.is_empty() {
                    break;
                }
                let mut keys = cmd("HKEYS");
                keys.arg(format!("{}n:{node}", names.base(bucket)));
                known.extend(self.redis().query::<Vec<String>>(&keys).await?);
                if names.drop(bucket, node, &other).await? {
                    self.shared.untold.notify_one();
                }
            }
        }
        Ok(known)
    }

    /// Writes everything that is not written.
    async fn write_all(&mut self) -> Result<(), Unknown> {
        loop {
            let (batch, too_much) = {
                let mut journal = self.shared.journal();
                (journal.take(), journal.is_too_much())
            };
            if too_much {
                return Err(Unknown);
            }
            let generation = batch.generation;
            self.write(&batch).await?;
            if let Some(generation) = generation {
                self.written.send_replace(generation);
                if self.shared.journal().generation() == generation {
                    return Ok(());
                }
            }
        }
    }

    /// Writes a batch, however long that takes.
    async fn write(&mut self, batch: &Batch) -> Result<(), Unknown> {
        let mut parts = self.parts(batch);
        let mut warned = false;
        while !parts.is_empty() {
            let answers = join_all(parts.iter().map(|part| self.send(part))).await;
            let mut failed = Vec::new();
            for (part, answer) in parts.into_iter().zip(answers) {
                match answer {
                    Ok(true) => {}
                    Ok(false) => return Err(Unknown),
                    Err(error) => {
                        if !warned {
                            tracing::warn!(%error, "who came and went could not be written; trying again");
                            warned = true;
                        }
                        failed.push(part);
                    }
                }
            }
            parts = failed;
            if !parts.is_empty() {
                tokio::time::sleep(RETRY).await;
            }
        }
        Ok(())
    }

    /// Whether the incarnation counts.
    async fn send(&self, part: &Part) -> Result<bool, RedisFault> {
        if part.place == Place::Own {
            return self.redis().call(&part.call).await;
        }
        let (counts, untold): (bool, usize) = self.redis().call(&part.call).await?;
        if matches!(part.place, Place::Users(_)) && untold > 0 {
            self.shared.untold.notify_one();
        }
        Ok(counts)
    }

    fn number(&mut self, place: Place) -> u64 {
        let number = self.numbers.entry(place).or_default();
        *number += 1;
        *number
    }

    fn parts(&mut self, batch: &Batch) -> Vec<Part> {
        let shared = self.shared.clone();
        let mut parts: HashMap<Place, Call<'static>> = HashMap::new();
        for (user, count, since) in &batch.users {
            let bucket = shared.users.bucket(user.as_str());
            let call = self.part(&mut parts, Place::Users(bucket), &shared.users, bucket);
            call.arg(user.as_str()).arg(*count).arg(*since);
        }
        for (room, count) in &batch.rooms {
            let bucket = shared.rooms.bucket(room.as_str());
            let call = self.part(&mut parts, Place::Rooms(bucket), &shared.rooms, bucket);
            call.arg(room.as_str()).arg(*count).arg(now_ms());
        }
        let mut parts: Vec<_> = parts.into_iter().map(|(place, call)| Part { place, call }).collect();
        if !batch.connections.is_empty() || !batch.places.is_empty() {
            let number = self.number(Place::Own);
            let mut call = OWN.call(&[&shared.own]);
            call.arg(&self.incarnation).arg(number).arg(ms(KEPT)).arg(batch.connections.len());
            for (id, present) in &batch.connections {
                call.arg(&**id).arg(self.known(id, present.as_ref()));
            }
            for (room, user, count) in &batch.places {
                call.arg(room.as_str()).arg(user.as_ref().map_or("", UserId::as_str)).arg(*count);
            }
            parts.push(Part { place: Place::Own, call });
        }
        parts
    }

    fn part<'a>(
        &mut self,
        parts: &'a mut HashMap<Place, Call<'static>>,
        place: Place,
        names: &Names,
        bucket: usize,
    ) -> &'a mut Call<'static> {
        parts.entry(place).or_insert_with(|| {
            let number = self.number(place);
            names.count(bucket, &self.shared.node, &self.incarnation, number)
        })
    }

    /// What is written of a connection; nothing if it went.
    fn known(&mut self, id: &Arc<str>, present: Option<&Here>) -> String {
        let Some((present, line)) = present else {
            self.carried.remove(id);
            return String::new();
        };
        let transport = line.transport();
        if transport == Some("websocket") {
            // It stays with that.
            self.carried.remove(id);
        } else {
            self.carried.insert(id.clone(), (line.clone(), transport));
        }
        let known = Known {
            client_id: present.client_id.clone(),
            user_id: present.user_id.clone(),
            connected_at_ms: present.connected_at_ms,
            rooms: present.rooms.clone(),
            transport: transport.map(str::to_owned),
        };
        serde_json::to_string(&known).unwrap_or_default()
    }

    /// Has those connections written again that something else carries now, and now and then the rooms.
    fn look_at_carriers(&mut self) {
        let changed = self.carried.iter().filter(|(_, (line, before))| line.transport() != *before);
        let changed: Vec<_> = changed.map(|(id, _)| id.clone()).collect();
        let mut journal = self.shared.journal();
        changed.into_iter().for_each(|id| journal.touch(id));
        if self.rooms_written.elapsed() > WRITE_ROOMS {
            self.rooms_written = Instant::now();
            journal.touch_rooms();
        }
    }

    /// Whether Redis still has everything that was written. A fault shows again with the next batch or look.
    async fn look(&self) -> bool {
        self.is_known().await.unwrap_or(true)
    }

    async fn is_known(&self) -> Result<bool, RedisFault> {
        let shared = &self.shared;
        let looks = shared.users.bases().into_iter().enumerate().map(|(n, base)| (Place::Users(n), base));
        let rooms = shared.rooms.bases().into_iter().enumerate().map(|(n, base)| (Place::Rooms(n), base));
        let looks = looks.chain(rooms).map(|(place, base)| async move {
            let mut call = CHECK.call(&[base]);
            call.arg(&shared.node).arg(ms(KEPT));
            Ok::<_, RedisFault>(self.redis().call::<String>(&call).await? == self.expected(place))
        });
        let mut all = true;
        for known in join_all(looks).await {
            all &= known?;
        }
        Ok(all && shared.renew().await? == self.expected(Place::Own))
    }

    fn expected(&self, place: Place) -> String {
        format!("{} {}", self.incarnation, self.numbers.get(&place).copied().unwrap_or_default())
    }
}
