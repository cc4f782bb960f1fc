//! The short way: a call whose messages are all new, onto snapshots that are known, is written out here as far as it
//! can be, so that the script has next to nothing to do for each message.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::{Batch, Core, Memory, Reply, Slot, parse, plan};
use crate::broker::BrokerError;
use crate::broker::append::{Append, Count};
use crate::broker::redis::core::{KEPT, Stored, TOGETHER, ms};
use crate::broker::redis::record;
use crate::model::{ChannelName, Epoch, now_ms};
use crate::redis::Call;

/// How often snapshots that turn out to be others are planned onto anew, before the long way is taken.
const TRIES: usize = 3;

/// The history of a channel that is known to be further than this is taken for a long one. A mistake costs some time only.
const SHORT_OFFSET: u64 = 24;
/// What a short history begins with that has all messages of its channel.
const BEGINS: &str = "0\n";
/// What has more bytes is not handed over as a short history has it.
const SHORT_BYTES: usize = 2048;

/// What the script says: whether it did it; epochs, or snapshots that are others; tops before.
type Answer = (i64, Vec<String>, Vec<i64>);

/// What a call does to one channel.
#[derive(Default)]
struct Part<'a> {
    messages: u64,
    /// Ids that have to be unknown.
    asked: Vec<&'a Append>,
    /// Ids that are noted, with their numbers among the channel's messages of the call.
    noted: Vec<(&'a Append, u64)>,
    /// Rows, with the lowest and the highest number.
    rows: Vec<(&'a str, i64, i64)>,
    texts: Vec<Text>,
}

/// Records of messages that are published together.
#[derive(Default)]
struct Text {
    kind: &'static str,
    first: u64,
    lengths: Vec<usize>,
    text: String,
}

/// The arguments of a call, which are counted.
struct Args {
    call: Call<'static>,
    count: usize,
}

impl Args {
    /// Adds one; at which place it stands.
    fn add(&mut self, arg: &str) -> usize {
        self.call.arg(arg);
        self.count += 1;
        self.count
    }
}

impl Core {
    /// Appends the batch, if it is as it is thought to be: else nothing is changed.
    pub(super) async fn append_together(&self, batch: &mut Batch<'_>) -> Result<Option<Reply>, BrokerError> {
        if batch.news.iter().any(|news| !news.is_empty()) || batch.is_odd(self) {
            return Ok(None);
        }
        for _ in 0..TRIES {
            let (status, texts, tops): Answer = self.redis.call(&batch.call_together(self)).await?;
            match status {
                1 => return Ok(Some(batch.reply(texts, &tops))),
                0 => {
                    for other in texts.chunks_exact(3) {
                        let [place, version, text] = other else { continue };
                        self.learn(batch, place, version, text)?;
                    }
                    batch.plans = plan(self, batch.groups.iter().map(|group| group.first));
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Remembers a snapshot that is another one than was thought.
    fn learn(&self, batch: &Batch<'_>, place: &str, version: &str, text: &str) -> Result<(), BrokerError> {
        let slot = place.parse::<usize>().ok().and_then(|place| batch.channels.get(place.checked_sub(1)?));
        let (Some(slot), Ok(version)) = (slot, version.parse::<u64>()) else { return Ok(()) };
        let snapshot = if version == 0 { None } else { Some(Arc::new(parse(text)?)) };
        self.snapshots.put(slot.append.channel.clone(), Stored { version, snapshot });
        Ok(())
    }
}

impl<'a> Batch<'a> {
    /// Whether the group is left out, because its test does not admit it.
    fn refused(&self, group: usize) -> bool {
        self.plans[group].as_ref().is_some_and(|plan| plan.outcome.is_err())
    }

    /// Whether an id occurs twice in one channel, or all of a history has to be looked through for one.
    fn is_odd(&self, core: &Core) -> bool {
        let mut seen = HashSet::new();
        let mut messages =
            self.groups.iter().flat_map(|group| group.messages()).filter(|append| !append.fresh);
        messages.any(|append| {
            !seen.insert((&append.channel, &append.id)) || Memory::of(append, true, core) == Memory::Doubtful
        })
    }

    /// The messages in the order in which they are published. Within a channel it is that of the call. Groups that
    /// follow each other and have the same mirrors go first messages first, then mirror by mirror, so that each
    /// mirror is one publication; what tells of one job stays in its order all the same. Of each, whether it is a first one.
    fn order(&self) -> Vec<(&'a Append, bool)> {
        let groups: Vec<_> =
            (0..self.groups.len()).filter(|n| !self.refused(*n)).map(|n| self.groups[n]).collect();
        let mut order = Vec::new();
        let mut rest = &groups[..];
        while let Some(head) = rest.first() {
            let mirrors = || head.mirrors.iter().map(|mirror| &mirror.channel);
            let alike = rest.iter().take_while(|group| {
                group.mirrors.iter().map(|mirror| &mirror.channel).eq(mirrors())
                    && mirrors().all(|mirror| *mirror != group.first.channel)
            });
            let (stretch, others) = rest.split_at(alike.count().max(1));
            order.extend(stretch.iter().map(|group| (group.first, true)));
            for mirror in 0..head.mirrors.len() {
                order.extend(stretch.iter().map(|group| (&group.mirrors[mirror], false)));
            }
            rest = others;
        }
        order
    }

    /// What the call does to each channel, and the publications in their order: channel and which of its texts.
    fn parts(&self, core: &Core) -> (Vec<Part<'a>>, Vec<(usize, usize)>) {
        let mut parts: Vec<Part<'a>> = self.channels.iter().map(|_| Part::default()).collect();
        let mut publications: Vec<(usize, usize)> = Vec::new();
        for (append, is_first) in self.order() {
            let place = self.places[&append.channel];
            let (part, memory) = (&mut parts[place], Memory::of(append, is_first, core));
            part.messages += 1;
            part.note(append, memory);
            // The first three are one to a history.
            let kind = if Part::kept(memory) { "m" } else { memory.word() };
            let goes_on = publications.last().is_some_and(|(last, _)| *last == place)
                && part.texts.last().is_some_and(|text| text.kind == kind);
            if !goes_on {
                publications.push((place, part.texts.len()));
                part.texts.push(Text { kind, first: part.messages, ..Text::default() });
            }
            let Some(text) = part.texts.last_mut() else { continue };
            let before = text.text.len();
            record::write_to(append, &mut text.text);
            text.lengths.push(text.text.len() - before);
        }
        // One that is known is no news, whatever its test says to it by now.
        for first in (0..self.groups.len()).filter(|n| self.refused(*n)).map(|n| self.groups[n].first) {
            parts[self.places[&first.channel]].ask(first);
        }
        (parts, publications)
    }

    fn call_together(&self, core: &Core) -> Call<'static> {
        let mut call = TOGETHER.call(&self.keys(core));
        call.arg(now_ms()).arg(ms(KEPT)).arg(Epoch::generate().as_str());
        call.arg(core.publish()).arg(core.publication()).arg(self.channels.len());
        let mut args = Args { call, count: 6 };
        let rules = self.rules();
        args.add(&rules.len().to_string());
        for (size, ttl) in &rules {
            args.add(&size.to_string());
            args.add(&ttl.to_string());
        }
        let (parts, publications) = self.parts(core);
        let mut stands = Vec::with_capacity(parts.len());
        let snapshots = self.snapshots();
        for (slot, part) in self.channels.iter().zip(&parts) {
            let rule = rules.iter().position(|rule| *rule == slot.rule()).unwrap_or_default();
            args.add(&(rule + 1).to_string());
            args.add(&part.messages.to_string());
            match snapshots.get(&slot.append.channel) {
                None => args.add(""),
                Some(change) => change.iter().fold(0, |_, arg| args.add(arg)),
            };
            part.add_ids(&mut args);
            stands.push(part.add_texts(&mut args, slot));
        }
        let mut told = String::new();
        for (place, n) in publications {
            let (text, (stand, from, to)) = (&parts[place].texts[n], &stands[place][n]);
            // Writing to a text does not fail.
            let _ = write!(told, "{} {} {stand} {from} {to}{};", place + 1, text.first, text.lengths());
        }
        args.add(&told);
        args.call
    }

    /// The rules of all channels, each once: size, and ttl in ms.
    fn rules(&self) -> Vec<(u64, u64)> {
        let mut rules = Vec::new();
        for rule in self.channels.iter().map(Slot::rule) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        rules
    }

    /// What becomes of the snapshots of channels: the version that is expected, then, of what is written, version, text,
    /// test, state, and whether lists have to know.
    fn snapshots(&self) -> HashMap<&ChannelName, [String; 6]> {
        let mut changes: HashMap<&ChannelName, [String; 6]> = HashMap::new();
        for plan in self.plans.iter().flatten() {
            let change = changes.entry(&plan.channel).or_insert_with(|| {
                let mut change = [const { String::new() }; 6];
                change[0] = plan.before.to_string();
                change
            });
            if let Ok((snapshot, indexed)) = &plan.outcome {
                change[1] = (plan.before + 1).to_string();
                change[3] = snapshot.test_id.to_string();
                change[4] = snapshot.state.name().to_owned();
                if *indexed {
                    "1".clone_into(&mut change[5]);
                }
            }
        }
        // Only the last state is written.
        let mut written = HashSet::new();
        for plan in self.plans.iter().rev().flatten() {
            if let Ok((snapshot, _)) = &plan.outcome
                && written.insert(&plan.channel)
                && let Some(change) = changes.get_mut(&plan.channel)
            {
                // A struct of strings, numbers and JSON always serialises.
                change[2] = serde_json::to_string(&**snapshot).unwrap_or_default();
            }
        }
        changes
    }

    /// The answer as the long way would give it.
    fn reply(&self, epochs: Vec<String>, tops: &[i64]) -> Reply {
        let mut tops = tops.to_vec();
        let mut offsets = Vec::new();
        for (n, group) in self.groups.iter().enumerate() {
            let refused = self.refused(n);
            for append in group.messages() {
                let top = &mut tops[self.places[&append.channel]];
                if !refused {
                    *top += 1;
                }
                offsets.push(if refused { 0 } else { *top });
            }
        }
        (offsets, epochs, -1, String::new())
    }
}

impl Slot<'_> {
    /// How it is kept: size, and ttl in ms.
    fn rule(&self) -> (u64, u64) {
        let history = self.append.namespace.history;
        (history.size, ms(history.ttl))
    }

    /// Whether its history is taken for a short one.
    fn may_be_short(&self) -> bool {
        self.known.as_ref().is_none_or(|known| known.offset < SHORT_OFFSET)
    }
}

impl<'a> Part<'a> {
    /// Has the message known again, where there is a history that it would stand in.
    fn note(&mut self, append: &'a Append, memory: Memory) {
        if append.namespace.history.size == 0 {
            return;
        }
        match (memory, &append.count) {
            (Memory::Mirrored, _) => {}
            (Memory::Counted, Some(count)) => self.count(count, true),
            _ => {
                if memory != Memory::Fresh {
                    self.asked.push(append);
                }
                self.noted.push((append, self.messages));
            }
        }
    }

    /// Has it asked for, without being noted.
    fn ask(&mut self, append: &'a Append) {
        match &append.count {
            _ if append.namespace.history.size == 0 => {}
            Some(count) => self.count(count, false),
            None => self.asked.push(append),
        }
    }

    fn count(&mut self, count: &'a Count, is_noted: bool) {
        match self.rows.iter_mut().find(|(of, ..)| *of == &*count.of) {
            Some((_, lowest, highest)) => {
                *lowest = count.number.min(*lowest);
                if is_noted {
                    *highest = count.number.max(*highest);
                }
            }
            None => self.rows.push((&count.of, count.number, if is_noted { count.number } else { 0 })),
        }
    }

    /// Adds what is asked of ids and noted of them.
    fn add_ids(&self, args: &mut Args) {
        args.add(&self.asked.len().to_string());
        args.add(&self.rows.len().to_string());
        for append in &self.asked {
            args.add(&format!("i{}", append.id));
        }
        for (of, ..) in &self.rows {
            args.add(&format!("j{of}"));
        }
        for (_, lowest, highest) in &self.rows {
            args.add(&lowest.to_string());
            args.add(&highest.to_string());
        }
        args.add(&self.noted.len().to_string());
        for (append, number) in &self.noted {
            args.add(&format!("i{}", append.id));
            args.add(&number.to_string());
        }
    }

    /// Adds the texts; of each, at which argument it stands, and from where to where in that.
    fn add_texts(&self, args: &mut Args, slot: &Slot<'_>) -> Vec<(usize, usize, usize)> {
        if slot.may_be_short() && self.is_small() {
            let (kind, head) = if slot.known.is_none() { ("-1", BEGINS) } else { ("0", "") };
            args.add(kind);
            let (text, spans) = self.joined(head);
            let stand = args.add(&text);
            return spans.into_iter().map(|(from, to)| (stand, from, to)).collect();
        }
        args.add(&self.texts.len().to_string());
        let mut stands = Vec::with_capacity(self.texts.len());
        for text in &self.texts {
            args.add(&text.name());
            stands.push((args.add(&text.text), 1, text.text.len()));
        }
        stands
    }

    /// Whether it fits into a short history, and is something.
    fn is_small(&self) -> bool {
        let bytes: usize = self.texts.iter().map(|text| text.text.len()).sum();
        (1..=SHORT_BYTES).contains(&bytes)
    }

    /// Its texts as they stand in a short history, behind `head`, and of each from where to where its records stand there.
    fn joined(&self, head: &str) -> (String, Vec<(usize, usize)>) {
        let (mut joined, mut spans) = (head.to_owned(), Vec::with_capacity(self.texts.len()));
        for text in &self.texts {
            // Writing to a text does not fail.
            let _ = writeln!(joined, "{} {}", text.name(), text.text.len());
            let from = joined.len() + 1;
            joined.push_str(&text.text);
            spans.push((from, joined.len()));
        }
        (joined, spans)
    }

    fn kept(memory: Memory) -> bool {
        !matches!(memory, Memory::Counted | Memory::Mirrored)
    }
}

impl Text {
    /// The name of its field.
    fn name(&self) -> String {
        format!("{}{}", self.kind, self.lengths().trim_start())
    }

    /// The lengths of its records, a space before each; nothing if there is only one.
    fn lengths(&self) -> String {
        let mut lengths = String::new();
        if self.lengths.len() > 1 {
            for length in &self.lengths {
                // Writing to a text does not fail.
                let _ = write!(lengths, " {length}");
            }
        }
        lengths
    }
}
