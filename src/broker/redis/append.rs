//! Appending: groups of messages become calls of one script, and its answers become places.
//!
//! What a message changes in a snapshot is worked out here, onto the state that was seen last; the script takes it
//! only if that is still the state. If not it stops and tells the state, and the rest goes again. Most calls are as they
//! are expected to be, and are done by a cheaper script (`together`).

mod memory;
mod plan;
mod together;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;

use super::core::{APPEND, Core, KEPT, Known, NOTE, Stored, ms};
use super::record;
use crate::broker::append::{Append, AppendGroup};
use crate::broker::{AppendError, Appended, BrokerError};
use crate::fault::Cause;
use crate::metrics;
use crate::model::{ChannelName, Epoch, MessageId, Position, Published, Snapshot, now_ms};
use crate::redis::{Call, RedisFault};
use memory::Memory;
use plan::{Planned, plan};

/// How many groups go into one call at most: others wait for no more than that.
const GROUPS: usize = 128;
/// How many bytes of messages go into one call, unless a group alone has more.
const BYTES: usize = 256 * 1024;

/// What became of some groups.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// One per group, in order.
    pub(super) answers: Vec<Result<Appended, AppendError>>,
    /// What was appended to channels that are wanted, in order.
    pub(super) told: Vec<(MessageId, Arc<Published>)>,
}

/// What the script says: the offsets of the messages, the epochs of the channels, and the snapshot that stopped it.
type Reply = (Vec<i64>, Vec<String>, i64, String);

/// A channel of a call.
struct Slot<'a> {
    /// One of its messages.
    append: &'a Append,
    /// How far it was known to be before.
    known: Option<Known>,
}

/// What is appended as a whole.
#[derive(Clone, Copy)]
struct Unit<'a> {
    first: &'a Append,
    mirrors: &'a [Append],
}

impl<'a> Unit<'a> {
    fn of(group: &'a AppendGroup) -> Self {
        Self { first: &group.first, mirrors: &group.mirrors }
    }

    fn alone(first: &'a Append) -> Self {
        Self { first, mirrors: &[] }
    }

    fn messages(self) -> impl Iterator<Item = &'a Append> {
        std::iter::once(self.first).chain(self.mirrors)
    }
}

/// One call.
struct Batch<'a> {
    groups: &'a [Unit<'a>],
    channels: Vec<Slot<'a>>,
    places: HashMap<&'a ChannelName, usize>,
    plans: Vec<Option<Planned>>,
    // What each message is to an inbox, in their order; nothing, most often.
    news: Vec<String>,
}

impl Core {
    /// Appends the groups, in order. `wanted` says of which channels to tell.
    pub(super) async fn append(
        &self,
        groups: &[AppendGroup],
        wanted: impl Fn(&ChannelName) -> bool,
    ) -> Result<Outcome, BrokerError> {
        if self.redis.is_cluster() {
            return self.append_sharded(groups, &wanted).await;
        }
        let units: Vec<_> = groups.iter().map(Unit::of).collect();
        self.append_units(&units, &wanted).await
    }

    /// The same where channels may be on different servers: each one's own messages together, then their mirrors.
    ///
    /// Should this process die in between, the mirrors are missing until the sender, who was not answered, sends
    /// again: the first message is known then, and its mirrors are tried again by their ids.
    async fn append_sharded(
        &self,
        groups: &[AppendGroup],
        wanted: &impl Fn(&ChannelName) -> bool,
    ) -> Result<Outcome, BrokerError> {
        let mut shards: Vec<(&ChannelName, Vec<usize>)> = Vec::new();
        for (n, group) in groups.iter().enumerate() {
            add_to(&mut shards, &group.first.channel, n);
        }
        let appending = shards.iter().map(async |(_, members)| {
            let units: Vec<_> = members.iter().map(|n| Unit::alone(&groups[*n].first)).collect();
            self.append_units(&units, wanted).await
        });
        let mut answers: Vec<Option<Result<Appended, AppendError>>> = vec![None; groups.len()];
        let mut told = Vec::new();
        for ((_, members), outcome) in shards.iter().zip(join_all(appending).await) {
            let outcome = outcome?;
            for (n, answer) in members.iter().zip(outcome.answers) {
                answers[*n] = Some(answer);
            }
            told.extend(outcome.told);
        }
        let mut mirrors: Vec<(&ChannelName, Vec<&Append>)> = Vec::new();
        for (group, answer) in groups.iter().zip(&answers) {
            if matches!(answer, Some(Ok(_))) {
                for mirror in &group.mirrors {
                    add_to(&mut mirrors, &mirror.channel, mirror);
                }
            }
        }
        let mirroring = mirrors.iter().map(async |(_, messages)| {
            let units: Vec<_> = messages.iter().map(|mirror| Unit::alone(mirror)).collect();
            self.append_units(&units, wanted).await
        });
        for outcome in join_all(mirroring).await {
            told.extend(outcome?.told);
        }
        // Each group is a member of exactly one shard.
        Ok(Outcome { answers: answers.into_iter().flatten().collect(), told })
    }

    async fn append_units(
        &self,
        units: &[Unit<'_>],
        wanted: &impl Fn(&ChannelName) -> bool,
    ) -> Result<Outcome, BrokerError> {
        let mut outcome = Outcome::default();
        let mut rest = units;
        while !rest.is_empty() {
            let mut batch = Batch::new(self, &rest[..part_of(rest)]).await?;
            let asked = Instant::now();
            let reply: Reply = match self.append_together(&mut batch).await? {
                Some(reply) => reply,
                None => self.redis.call(&batch.call(self)).await?,
            };
            metrics::append_seconds(asked.elapsed());
            let done = self.take(&batch, reply, wanted, &mut outcome).await?;
            rest = &rest[done..];
        }
        Ok(outcome)
    }

    /// Takes the answer of a call; how many of its groups are done.
    async fn take(
        &self,
        batch: &Batch<'_>,
        (offsets, epochs, version, text): Reply,
        wanted: &impl Fn(&ChannelName) -> bool,
        outcome: &mut Outcome,
    ) -> Result<usize, BrokerError> {
        let mut epochs: Vec<Epoch> = epochs.iter().map(|epoch| Epoch::new(epoch)).collect();
        self.mind_the_tops(batch, &offsets, &mut epochs).await?;
        let mut offsets = offsets.into_iter();
        let mut done = 0;
        for (group, plan) in batch.groups.iter().zip(&batch.plans) {
            let Some(offset) = offsets.next() else { break };
            done += 1;
            let epoch = &epochs[batch.places[&group.first.channel]];
            let position = |offset: i64| Position { epoch: epoch.clone(), offset: offset.unsigned_abs() };
            let id = group.first.id.clone();
            let refusal = plan.as_ref().and_then(|plan| plan.outcome.as_ref().err());
            match refusal {
                Some(refused) if offset == 0 => outcome.answers.push(Err(refused.clone().into())),
                _ => {
                    let appended = Appended { id, position: position(offset), duplicate: offset < 0 };
                    outcome.answers.push(Ok(appended));
                }
            }
            if let Some(plan) = plan {
                self.settle(plan, offset).await?;
            }
            outcome.tell(group.first, epoch, offset, wanted);
            for mirror in group.mirrors {
                let epoch = &epochs[batch.places[&mirror.channel]];
                outcome.tell(mirror, epoch, offsets.next().unwrap_or(0), wanted);
            }
        }
        if let (Ok(version), Some(Some(plan))) = (u64::try_from(version), batch.plans.get(done)) {
            let snapshot = if version == 0 { None } else { Some(Arc::new(parse(&text)?)) };
            self.snapshots.put(plan.channel.clone(), Stored { version, snapshot });
        }
        Ok(done)
    }

    /// What follows from a change of a snapshot, or from a message that was known already.
    async fn settle(&self, plan: &Planned, offset: i64) -> Result<(), BrokerError> {
        if let Ok((snapshot, indexed)) = &plan.outcome
            && offset > 0
        {
            let stored = Stored { version: plan.before + 1, snapshot: Some(snapshot.clone()) };
            self.snapshots.put(plan.channel.clone(), stored);
            if *indexed && self.redis.is_cluster() {
                self.note(snapshot, plan.before + 1, false).await?;
            }
        } else if offset < 0 && self.redis.is_cluster() {
            // Whoever appended it may have died before the lists of tests knew.
            self.top(&plan.channel).await?;
            if let Some(Stored { version, snapshot: Some(snapshot) }) = self.snapshots.get(&plan.channel) {
                self.note(&snapshot, version, false).await?;
            }
        }
        Ok(())
    }

    /// Tells the lists of tests, where the script that changes the snapshot cannot; `anew` if the test begins anew.
    pub(super) async fn note(
        &self,
        snapshot: &Snapshot,
        version: u64,
        anew: bool,
    ) -> Result<(), BrokerError> {
        let mut call = NOTE.call(&[self.index()]);
        call.arg(snapshot.test_id.as_str()).arg(snapshot.state.name()).arg(version).arg(now_ms());
        call.arg(u8::from(anew));
        Ok(self.redis.call(&call).await?)
    }

    /// Remembers how far the channels are. One that is not further than it was before the call has lost what it had:
    /// it gets another epoch, before anybody is told of a place that somebody else has had.
    async fn mind_the_tops(
        &self,
        batch: &Batch<'_>,
        offsets: &[i64],
        epochs: &mut [Epoch],
    ) -> Result<(), BrokerError> {
        let messages = batch.groups.iter().flat_map(|group| group.messages());
        let mut spans: HashMap<usize, (u64, u64, &MessageId)> = HashMap::new();
        for (message, offset) in messages.zip(offsets) {
            if let Ok(offset @ 1..) = u64::try_from(*offset) {
                let place = batch.places[&message.channel];
                let span = spans.entry(place).or_insert((offset, offset, &message.id));
                (span.1, span.2) = (offset, &message.id);
            }
        }
        for (place, (first, last, id)) in spans {
            let Slot { append, known } = &batch.channels[place];
            let channel = &append.channel;
            if let Some(known) = known
                && known.epoch == epochs[place]
                && known.offset >= first
            {
                (epochs[place], _) = self.check(channel, known).await?;
            }
            let now = Known { epoch: epochs[place].clone(), offset: last, id: Some(id.clone()) };
            // Of answers that cross, the later place counts.
            let later = |other: &Known| other.epoch == now.epoch && other.offset > now.offset;
            if !self.tops.get(channel).as_ref().is_some_and(later) {
                self.tops.put(channel.clone(), now);
            }
        }
        Ok(())
    }
}

impl Outcome {
    fn tell(&mut self, append: &Append, epoch: &Epoch, offset: i64, wanted: &impl Fn(&ChannelName) -> bool) {
        let Ok(offset @ 1..) = u64::try_from(offset) else { return };
        metrics::published(&append.namespace.name, append.priority, 1);
        if wanted(&append.channel) {
            self.told.push((append.id.clone(), record::published(append, epoch, offset)));
        }
    }
}

fn add_to<K: PartialEq, V>(lists: &mut Vec<(K, Vec<V>)>, key: K, value: V) {
    match lists.iter_mut().find(|(known, _)| *known == key) {
        Some((_, list)) => list.push(value),
        None => lists.push((key, vec![value])),
    }
}

/// How many groups go into the next call.
fn part_of(groups: &[Unit<'_>]) -> usize {
    let mut bytes = 0;
    let fits = |group: &&Unit<'_>| {
        bytes += group.messages().map(|message| message.open.as_str().len()).sum::<usize>();
        bytes <= BYTES
    };
    groups.iter().take(GROUPS).take_while(fits).count().max(1)
}

impl<'a> Batch<'a> {
    async fn new(core: &Core, groups: &'a [Unit<'a>]) -> Result<Self, RedisFault> {
        let (mut channels, mut places) = (Vec::new(), HashMap::new());
        for append in groups.iter().flat_map(|group| group.messages()) {
            places.entry(&append.channel).or_insert_with(|| {
                channels.push(Slot { append, known: core.tops.get(&append.channel) });
                channels.len() - 1
            });
        }
        let mut news = Vec::with_capacity(groups.len());
        for group in groups {
            news.push(core.notes.word(group.first).await?);
            for mirror in group.mirrors {
                news.push(core.notes.word(mirror).await?);
            }
        }
        Ok(Self { groups, channels, places, plans: plan(core, groups.iter().map(|group| group.first)), news })
    }

    fn keys(&self, core: &Core) -> Vec<String> {
        let mut keys = Vec::with_capacity(self.channels.len() * 2 + 1);
        for slot in &self.channels {
            keys.extend(["m", "h"].map(|name| core.key(&slot.append.channel, name)));
        }
        if !core.redis.is_cluster() {
            keys.push(core.index());
        }
        keys
    }

    fn call(&self, core: &Core) -> Call<'static> {
        let mut call = APPEND.call(&self.keys(core));
        call.arg(now_ms())
            .arg(ms(KEPT))
            .arg(Epoch::generate().as_str())
            .arg(core.publish())
            .arg(core.publication());
        call.arg(self.channels.len()).arg(self.groups.len());
        for slot in &self.channels {
            let history = slot.append.namespace.history;
            call.arg(history.size).arg(ms(history.ttl));
        }
        let mut news = self.news.iter();
        let mut add = |call: &mut Call<'_>, append: &Append, is_first: bool| {
            call.arg(self.places[&append.channel] + 1).arg(append.id.as_str());
            call.arg(Memory::of(append, is_first, core).word()).arg(record::write(append));
            call.arg(news.next().map_or("", String::as_str));
        };
        for (group, plan) in self.groups.iter().zip(&self.plans) {
            add(&mut call, group.first, true);
            match plan {
                None => call.arg("0"),
                Some(plan) => plan.add_to(&mut call),
            };
            call.arg(group.mirrors.len());
            for mirror in group.mirrors {
                add(&mut call, mirror, false);
            }
        }
        call
    }
}

/// Reads a stored snapshot.
pub(super) fn parse(text: &str) -> Result<Snapshot, BrokerError> {
    serde_json::from_str(text).map_err(|error| BrokerError::Unavailable(Cause::new(error)))
}
