//! Publications: one connection that listens, beside the one for commands.
//!
//! It is made anew when it breaks, and listens again to everything that it listened to; [`Heard::Missed`] then
//! says that something may have been lost meanwhile. In a cluster publications are sharded: they go through the
//! nodes that own their hash tags, and a slot that moves is treated like a connection that broke.

mod ears;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redis::{PushInfo, PushKind, Value};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::link::{Backoff, LOOK_EVERY};
use super::{Redis, RedisFault, connection};
use crate::tasks::Tasks;
use ears::Ears;

/// How many names are asked for at once.
const TOGETHER: usize = 64;
/// How many orders may wait for the task; beyond it who asks waits, too.
const ORDERS: usize = 1024;

/// What was heard.
#[derive(Debug)]
pub enum Heard {
    /// A publication.
    Message {
        /// Its name, with the prefix.
        name: Vec<u8>,
        /// What it says.
        payload: Vec<u8>,
    },
    /// Something may have been published that was not heard. From now on everything is heard again.
    Missed,
}

/// Takes what is heard; must not wait. Whether it took it: what it did not take counts as missed.
pub type Listener = Arc<dyn Fn(Heard) -> bool + Send + Sync>;

/// Listens to publications by their names.
#[derive(Debug, Clone)]
pub struct Subscriber {
    orders: mpsc::Sender<Order>,
    state: watch::Receiver<Result<(), RedisFault>>,
}

#[derive(Debug)]
enum Order {
    Listen(String, oneshot::Sender<()>),
    Forget(String),
}

impl Subscriber {
    /// Starts a task that listens, to nothing yet. `listener` is called for everything that is heard, in the order
    /// of its publication.
    #[must_use]
    pub fn start(redis: &Redis, listener: Listener, tasks: &Tasks) -> Self {
        let (orders, queue) = mpsc::channel(ORDERS);
        let ear = Ear::new(listener);
        let (tell, state) = watch::channel(Err(RedisFault::Away("not connected yet".to_owned())));
        let (redis, wanted, failed) = (redis.clone(), BTreeSet::new(), BTreeSet::new());
        let task = Listening { redis, wanted, failed, waiting: Vec::new(), ear, state: tell };
        tasks.spawn("redis-subscriber", task.run(queue));
        Self { orders, state }
    }

    /// Listens to `name`, from when this returns on. What was asked for stays so after an error, and is listened to
    /// as soon as that is possible.
    pub async fn listen(&self, redis: &Redis, name: String) -> Result<(), RedisFault> {
        let (done, listening) = oneshot::channel();
        let away = || RedisFault::Away("publications cannot be listened to".to_owned());
        let asking = async {
            self.orders.send(Order::Listen(name, done)).await.map_err(|_| away())?;
            listening.await.map_err(|_| away())
        };
        tokio::time::timeout(redis.options().response, asking).await.unwrap_or_else(|_| Err(away()))
    }

    /// Whether publications are heard now; if not, why.
    pub fn ready(&self) -> Result<(), RedisFault> {
        self.state.borrow().clone()
    }

    /// Listens to `name` no longer. Whether there was room for the order; if not, ask again later.
    #[must_use]
    pub fn forget(&self, name: String) -> bool {
        // Without its task there is nothing to forget.
        !matches!(self.orders.try_send(Order::Forget(name)), Err(mpsc::error::TrySendError::Full(_)))
    }
}

/// Where pushes of the connection arrive.
struct Ear {
    listener: Listener,
    /// Something was heard that the listener had no room for.
    dropped: AtomicBool,
    /// The connection is of no more use.
    broken: Notify,
    /// What is about not to be listened to any more, because somebody asked for it.
    leaving: Mutex<BTreeSet<Vec<u8>>>,
}

impl Ear {
    fn new(listener: Listener) -> Arc<Self> {
        let (dropped, broken) = (AtomicBool::new(false), Notify::new());
        Arc::new(Self { listener, dropped, broken, leaving: Mutex::default() })
    }

    fn leaving(&self) -> MutexGuard<'_, BTreeSet<Vec<u8>>> {
        // A set is never left half changed.
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the connection says by itself.
    fn hear(&self, push: PushInfo) {
        match push.kind {
            PushKind::Message | PushKind::SMessage => {
                let mut data = push.data.into_iter();
                if let (Some(Value::BulkString(name)), Some(Value::BulkString(payload))) =
                    (data.next(), data.next())
                    && !(self.listener)(Heard::Message { name, payload })
                {
                    self.dropped.store(true, Ordering::Release);
                }
            }
            PushKind::Disconnection => self.broken.notify_one(),
            PushKind::SUnsubscribe => {
                let asked_for = match push.data.first() {
                    Some(Value::BulkString(name)) => self.leaving().remove(name),
                    _ => false,
                };
                if !asked_for {
                    // The slot of the name has moved to another node.
                    self.broken.notify_one();
                }
            }
            _ => {}
        }
    }
}

struct Listening {
    redis: Redis,
    wanted: BTreeSet<String>,
    /// What could not be listened to: its part of a cluster is away.
    failed: BTreeSet<String>,
    /// Who waits for what is not listened to yet.
    waiting: Vec<(String, oneshot::Sender<()>)>,
    ear: Arc<Ear>,
    state: watch::Sender<Result<(), RedisFault>>,
}

impl Listening {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut backoff = Backoff::new();
        let mut first = true;
        loop {
            match self.dial().await {
                Ok(mut ears) => {
                    backoff = Backoff::new();
                    if !first {
                        self.missed();
                    }
                    first = false;
                    self.tell_state();
                    match self.listen(&mut ears, &mut orders).await {
                        Some(fault) => {
                            tracing::warn!(%fault, "publications are not heard; listening anew");
                            self.tell(Err(fault));
                        }
                        None => return,
                    }
                }
                Err(fault) => tracing::debug!(%fault, "publications cannot be listened to yet"),
            }
            // Those who gave up are not remembered for as long as Redis is away.
            self.waiting.retain(|(_, done)| !done.is_closed());
            // What is asked for meanwhile is part of the next try.
            let pause = backoff.wait();
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    order = orders.recv() => match order {
                        Some(order) => { self.note(order); }
                        None => return,
                    },
                }
            }
        }
    }

    fn tell(&self, state: Result<(), RedisFault>) {
        self.state.send_modify(|now| *now = state);
    }

    /// A connection that listens to everything that is wanted.
    async fn dial(&mut self) -> Result<Ears, RedisFault> {
        // Another life: what an earlier connection says no longer counts.
        self.ear = Ear::new(self.ear.listener.clone());
        let ear = self.ear.clone();
        let push = move |info: PushInfo| -> Result<(), ()> {
            ear.hear(info);
            Ok(())
        };
        let options = self.redis.options();
        let mut ears = if self.redis.is_cluster() {
            Ears::Cluster(connection::cluster(options, Some(push)).await?)
        } else {
            let configuration = connection::configuration(options).set_push_sender(push);
            Ears::Single(connection::single(options, configuration).await?)
        };
        let names: Vec<String> = self.wanted.iter().cloned().collect();
        self.failed = ears.subscribe(&names).await?;
        self.tell_waiting();
        Ok(ears)
    }

    /// Carries out orders until the connection breaks: why, or nothing if there will be no more orders.
    async fn listen(&mut self, ears: &mut Ears, orders: &mut mpsc::Receiver<Order>) -> Option<RedisFault> {
        let mut taken = Vec::new();
        let mut look = tokio::time::interval(LOOK_EVERY);
        let ear = self.ear.clone();
        // A part of a cluster may be away for long; the others are heard all the same.
        let mut whole = false;
        loop {
            let done = tokio::select! {
                n = orders.recv_many(&mut taken, TOGETHER) => {
                    if n == 0 {
                        return None;
                    }
                    self.carry_out(ears, taken.drain(..)).await
                }
                _ = look.tick() => {
                    if self.ear.dropped.swap(false, Ordering::AcqRel) {
                        self.missed();
                    }
                    match ears.look().await {
                        Ok(()) if self.failed.is_empty() => {
                            whole = true;
                            Ok(())
                        }
                        Err(fault) if whole || matches!(ears, Ears::Single(_)) => Err(fault),
                        _ => self.try_again(ears).await,
                    }
                }
                () = ear.broken.notified() => Err(RedisFault::Away("the connection ended".to_owned())),
            };
            if let Err(fault) = done {
                return Some(fault);
            }
        }
    }

    async fn carry_out(
        &mut self,
        ears: &mut Ears,
        orders: impl Iterator<Item = Order>,
    ) -> Result<(), RedisFault> {
        let (mut more, mut less) = (BTreeSet::new(), BTreeSet::new());
        for order in orders {
            let (name, wanted) = self.note(order);
            let (to, from) = if wanted { (&mut more, &mut less) } else { (&mut less, &mut more) };
            from.remove(&name);
            to.insert(name);
        }
        let (more, less) = (more.into_iter().collect::<Vec<_>>(), less.into_iter().collect::<Vec<_>>());
        self.failed.extend(ears.subscribe(&more).await?);
        self.failed.retain(|name| self.wanted.contains(name));
        if matches!(ears, Ears::Cluster(_)) {
            self.ear.leaving().extend(less.iter().map(|name| name.clone().into_bytes()));
        }
        ears.unsubscribe(&less).await?;
        self.tell_waiting();
        self.tell_state();
        Ok(())
    }

    /// Remembers an order; its name, and whether it is wanted from now on.
    fn note(&mut self, order: Order) -> (String, bool) {
        match order {
            Order::Listen(name, done) => {
                self.wanted.insert(name.clone());
                self.waiting.push((name.clone(), done));
                (name, true)
            }
            Order::Forget(name) => {
                self.wanted.remove(&name);
                (name, false)
            }
        }
    }

    fn tell_waiting(&mut self) {
        for (name, done) in std::mem::take(&mut self.waiting) {
            if self.failed.contains(&name) {
                self.waiting.push((name, done));
            } else if self.wanted.contains(&name) {
                // Whoever asked may have gone.
                let _ = done.send(());
            }
        }
        self.waiting.retain(|(_, done)| !done.is_closed());
    }

    /// Asks again for what could not be listened to.
    async fn try_again(&mut self, ears: &mut Ears) -> Result<(), RedisFault> {
        let names: Vec<_> = self.failed.iter().cloned().collect();
        self.failed = ears.subscribe(&names).await?;
        if self.failed.len() < names.len() {
            self.missed();
            self.tell_waiting();
        }
        self.tell_state();
        Ok(())
    }

    fn tell_state(&self) {
        self.tell(if self.failed.is_empty() {
            Ok(())
        } else {
            Err(RedisFault::Away("a part of the cluster is away".to_owned()))
        });
    }

    fn missed(&self) {
        if !(self.ear.listener)(Heard::Missed) {
            // Told again with the next look.
            self.ear.dropped.store(true, Ordering::Release);
        }
    }
}
