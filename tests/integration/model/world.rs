//! All that the model knows: the pasts of the channels, the stored places, and what has been tried.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};
use tidings::broker::{AppendError, Appended};
use tidings::model::{Epoch, Position};
use tidings::sync::{Basis, Place, Saved};

use super::ops::{DEVICES, Room};
use super::past::{News, Past, Sent, Span, Stored, Tick};

pub(super) type Checked = Result<(), TestCaseError>;

/// An answer to one message of a call.
#[derive(Debug)]
struct Answer {
    room: Room,
    sent: Sent,
    result: Result<Appended, AppendError>,
    span: Span,
}

/// What may be asked and told by many tasks at once.
#[derive(Debug, Default)]
pub(super) struct World {
    clock: AtomicU64,
    pasts: Mutex<HashMap<Room, Vec<Past>>>,
    answers: Mutex<Vec<Answer>>,
    /// Held from the look at what is to be saved to the end of the save, so that the model knows the order.
    pub(super) places: tokio::sync::Mutex<StoredPlaces>,
    tried: Mutex<BTreeMap<&'static str, u64>>,
}

impl World {
    pub(super) fn tick(&self) -> Tick {
        self.clock.fetch_add(1, Ordering::AcqRel)
    }

    pub(super) fn pasts(&self) -> MutexGuard<'_, HashMap<Room, Vec<Past>>> {
        self.pasts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look at the newest past of `room`.
    pub(super) fn current<T>(&self, room: Room, look: impl FnOnce(&mut Past) -> T) -> T {
        look(self.pasts().get_mut(&room).and_then(|pasts| pasts.last_mut()).expect("every room has a past"))
    }

    pub(super) fn top(&self, room: Room) -> Position {
        self.current(room, |past| Position { epoch: past.epoch.clone(), offset: past.top() })
    }

    pub(super) fn epoch(&self, room: Room) -> Epoch {
        self.current(room, |past| past.epoch.clone())
    }

    /// The answers to one call. They are understood when the channel is at rest.
    pub(super) fn answered(
        &self,
        room: Room,
        sent: Vec<Sent>,
        results: Vec<Result<Appended, AppendError>>,
        span: Span,
    ) {
        assert_eq!(sent.len(), results.len(), "an answer per message");
        let answers = sent.into_iter().zip(results);
        let answers = answers.map(|(sent, result)| Answer { room, sent, result, span });
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).extend(answers);
    }

    /// Puts what was answered into its place, now that no publisher waits.
    pub(super) fn understand(&self) -> Checked {
        let answers = std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner));
        let mut refused = Vec::new();
        {
            let mut pasts = self.pasts();
            for Answer { room, sent, result, span } in answers {
                let past = pasts.get_mut(&room).and_then(|pasts| pasts.last_mut()).expect("a past");
                match result {
                    Ok(appended) => self.place(past, sent, &appended, span)?,
                    Err(error) => refused.push((room, sent.news, error, span)),
                }
            }
            for past in pasts.values().filter_map(|pasts| pasts.last()) {
                let offsets = past.messages.keys().copied();
                let whole = offsets.eq((1..).take(past.messages.len()));
                prop_assert!(
                    whole || past.room.is_lossy(),
                    "{:?}: offsets {:?}",
                    past.room,
                    past.messages.keys()
                );
                prop_assert_eq!(past.doubled(), None, "{:?} has a message twice", past.room);
                let state = past.test_at(past.top());
                prop_assert!(state.is_ok(), "{:?}: offset {state:?} should have been refused", past.room);
            }
        }
        for (room, news, error, span) in refused {
            self.try_one("refused by the state of a test");
            let news: News = news.expect("only news of tests are refused");
            let possible = self.current(room, |past| past.may_refuse(news, span));
            prop_assert_eq!(possible, Ok(true), "{:?} was refused: {}", news, error);
        }
        Ok(())
    }

    fn place(&self, past: &mut Past, sent: Sent, appended: &Appended, span: Span) -> Checked {
        let Appended { id, position, duplicate } = appended;
        prop_assert_eq!(id.as_str(), &sent.id);
        prop_assert_eq!(&position.epoch, &past.epoch, "the epoch of {:?}", past.room);
        if *duplicate {
            self.try_one("known id");
        }
        let Some(known) = past.messages.get_mut(&position.offset) else {
            let (serials, certain) = (vec![sent.serial], !duplicate);
            past.messages.insert(position.offset, Stored { sent, serials, certain, span });
            return Ok(());
        };
        prop_assert_eq!(&known.sent.id, &sent.id, "{:?} {}", past.room, position);
        known.span.begin = known.span.begin.min(span.begin);
        known.span.end = known.span.end.min(span.end);
        // Several senders may send one id at the same time: the content is that of the one who was first.
        if !*duplicate {
            prop_assert!(!known.certain, "two messages of {:?} got {}", past.room, position);
            (known.serials, known.certain, known.sent) = (vec![sent.serial], true, sent);
        } else if !known.certain {
            known.serials.push(sent.serial);
        }
        Ok(())
    }

    /// Notes that something was tried.
    pub(super) fn try_one(&self, what: &'static str) {
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    pub(super) fn tried(&self) -> BTreeMap<&'static str, u64> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The places that the store should have: what was acknowledged and what was written are two.
#[derive(Debug, Default)]
pub(super) struct StoredPlaces(HashMap<(usize, Room, bool), Position>);

impl StoredPlaces {
    /// What a save does to them, while the channels are in the epochs that `world` says.
    pub(super) fn save(&mut self, world: &World, saved: &[Saved]) {
        for Saved { device, channel, place } in saved {
            let user = device.user_id.as_ref().map_or("", |user| user.as_str());
            let device = DEVICES.iter().position(|d| *d == (user, device.client_id.as_str()));
            let room = Room::of(channel.as_str());
            let key = (device.expect("a device of this test"), room, place.basis == Basis::Acknowledged);
            if world.epoch(room) != place.position.epoch {
                world.try_one("late save of another epoch");
                continue;
            }
            let known = self.0.get(&key).filter(|known| known.epoch == place.position.epoch);
            match known {
                Some(known) if known.offset > place.position.offset => {
                    world.try_one("late save of an old connection");
                }
                _ => {
                    self.0.insert(key, place.position.clone());
                }
            }
        }
    }

    /// Where a device is.
    pub(super) fn load(&self, device: usize, room: Room) -> Option<Place> {
        let of = |acknowledged: bool, basis| {
            let position = self.0.get(&(device, room, acknowledged))?.clone();
            Some(Place { position, basis })
        };
        of(true, Basis::Acknowledged).or_else(|| of(false, Basis::Written))
    }

    /// One of the two.
    pub(super) fn of(&self, device: usize, room: Room, basis: Basis) -> Option<&Position> {
        self.0.get(&(device, room, basis == Basis::Acknowledged))
    }
}
