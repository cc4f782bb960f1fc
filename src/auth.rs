//! Who somebody is, and what they may do: the only place where either is decided, for sockets and HTTP alike.
//!
//! `token` and `keys` say whether a token is believed (`jwks` fetches keys), [`claims`] makes an [`Identity`] of it,
//! `standing` knows who is shut out and whose time is over, [`access`] decides, and [`rights`] looks up what a decision
//! needs to know. [`bearer`] knows where requests carry tokens, [`origin`] which web pages may ask.

pub mod access;
pub mod bearer;
pub mod claims;
mod crypto;
mod identity;
mod jwks;
mod keys;
pub mod mint;
pub mod origin;
pub mod rights;
mod standing;
pub mod token;

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

pub use identity::{ADMIN, Identity, METRICS, SUBMIT, WORKER};
pub use keys::KeyError;
pub use rights::{Denied, Rights};
pub use standing::Watched;

use crate::config::live::Live;
use crate::config::reload::{Follower, PutInForce};
use crate::config::settings::{self, Settings};
use crate::fault::Fault;
use crate::model::{UserId, now_ms};
use crate::revocation::{Change, RevocationError, Revocations};
use crate::tasks::Tasks;
use claims::ClaimNames;
use jwks::Remote;
use keys::Key;
use standing::Standing;
use token::{Doubt, Expected, Head};

/// Why somebody is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no token.
    #[error(
        "this server wants a token: in the handshake's `auth.token`, as `Authorization: Bearer`, or as `?token=`"
    )]
    Required,
    /// It is not believed.
    #[error("the token is not taken: {0}")]
    Invalid(String),
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token holds only later (nbf)")]
    NotYetValid,
    /// It was taken back.
    #[error("the token was revoked")]
    Revoked,
    /// Its user is shut out.
    #[error("user {0} is blocked")]
    Blocked(UserId),
    /// It is not known whether it can be believed.
    #[error("the keys of tokens could not be fetched yet (auth.jwks_url): {0}")]
    Unavailable(String),
}

impl AuthError {
    /// The stable code that clients see.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Required => "token_required",
            Self::Invalid(_) => "invalid_token",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Revoked => "token_revoked",
            Self::Blocked(_) => "user_blocked",
            Self::Unavailable(_) => "auth_unavailable",
        }
    }
}

/// Why nobody can be let in.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The list of those who are shut out.
    #[error("it is not known who is shut out: {0}")]
    Revocations(#[from] Fault),
}

/// Whether the keys that `settings` name can be used; those that have to be fetched are not asked for.
///
/// # Errors
/// A key that cannot be read, or is none.
pub fn check(settings: &settings::Auth) -> Result<(), KeyError> {
    keys::fixed(settings)?;
    Remote::of(settings)?;
    Ok(())
}

/// Believes tokens, or nobody's if authentication is off; and knows who is shut out in any case.
pub struct Auth {
    policy: Live<Policy>,
    standing: Arc<Standing>,
    tasks: Tasks,
}

/// What holds until keys or settings change.
struct Policy {
    settings: settings::Auth,
    fixed: Arc<[Key]>,
    remote: Option<Arc<Remote>>,
    expected: Expected,
    names: ClaimNames,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("on", &self.is_on()).finish_non_exhaustive()
    }
}

impl Policy {
    /// By `settings`; what was fetched for `before` holds on where the same is to be fetched.
    fn of(settings: &settings::Auth, before: Option<&Self>) -> Result<Self, KeyError> {
        let before = before.and_then(|before| before.remote.as_ref());
        Ok(Self {
            settings: settings.clone(),
            fixed: keys::fixed(settings)?,
            remote: Remote::of(settings)?.map(|remote| match before {
                Some(before) => remote.in_place_of(before),
                None => remote,
            }),
            expected: Expected::of(settings),
            names: ClaimNames::of(settings),
        })
    }

    async fn believe(&self, token: &str) -> Result<Identity, AuthError> {
        let head = Head::read(token)?;
        let at_hand = self.remote.as_ref().and_then(|remote| remote.keys());
        let claims = match (self.verify(token, &head, at_hand.as_deref()), &self.remote) {
            // It may be signed with a key that is newer than ours.
            (Err(Doubt::Unsigned(_)), Some(remote))
                if !at_hand.as_deref().is_some_and(|keys| head.names_one_of(keys)) =>
            {
                match (remote.look_again().await, remote.keys()) {
                    (Some(fault), None) => return Err(AuthError::Unavailable(fault)),
                    (_, fetched) => self.verify(token, &head, fetched.as_deref()),
                }
            }
            (claims, _) => claims,
        };
        let claims = claims.map_err(|doubt| match doubt {
            Doubt::Unsigned(error) | Doubt::Untrue(error) => error,
        })?;
        claims::identity(&claims, &self.names)
    }

    fn verify(&self, token: &str, head: &Head, fetched: Option<&[Key]>) -> Result<Map<String, Value>, Doubt> {
        token::believe(token, head, [&*self.fixed].into_iter().chain(fetched), &self.expected)
    }

    /// Keeps what is fetched fresh, by a task that ends with the last one who has these keys.
    fn keep_fresh(&self, tasks: &Tasks) {
        if let Some(remote) = self.remote.as_ref().filter(|remote| remote.begin()) {
            tasks.spawn("jwks", Remote::run(Arc::downgrade(remote)));
        }
    }
}

impl Auth {
    /// Reads the keys that `settings` name, and the list of those who are shut out. Keys that have to be fetched may
    /// come later.
    ///
    /// # Errors
    /// A key that cannot be read, or is none; or the store of the list.
    pub async fn start(
        settings: &settings::Auth,
        list: Arc<dyn Revocations>,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        let policy = Policy::of(settings, None)?;
        policy.keep_fresh(tasks);
        let standing = Arc::new(Standing::load(list).await?);
        tasks.spawn("standing", standing.clone().run());
        Ok(Self { policy: Live::new(policy), standing, tasks: tasks.clone() })
    }

    /// Whether callers need a token.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.policy.read().settings.is_on()
    }

    /// For how long after its end a token is taken, in ms.
    #[must_use]
    pub fn leeway_ms(&self) -> i64 {
        i64::try_from(self.policy.read().settings.leeway.as_millis()).unwrap_or(0)
    }

    /// Who the bearer of `token` is. While authentication is off tokens count for nothing, and callers are whom they
    /// name.
    ///
    /// # Errors
    /// [`AuthError`]; nothing of the token stands in it.
    pub async fn identify(
        &self,
        token: Option<&str>,
        named: Option<UserId>,
    ) -> Result<Arc<Identity>, AuthError> {
        let policy = self.policy.get();
        let identity = match named {
            _ if policy.settings.is_on() => policy.believe(token.ok_or(AuthError::Required)?).await?,
            Some(user) => Identity::unrestricted(Some(user)),
            None => return Ok(Identity::nobody()),
        };
        match self.judge(&identity) {
            None => Ok(Arc::new(identity)),
            Some(error) => Err(error),
        }
    }

    /// Why `identity`, which was let in, may not stay, if so.
    #[must_use]
    pub fn judge(&self, identity: &Identity) -> Option<AuthError> {
        self.standing.judge(identity, now_ms())
    }

    /// A connection of `identity` is live: it is looked at again when its token expires.
    pub fn note(&self, identity: &Identity) {
        self.standing.note(identity);
    }

    /// Has `edge` end those of its connections that may not stay any longer.
    pub fn watch(&self, edge: &Arc<dyn Watched>) {
        self.standing.watch(edge);
    }

    /// Shuts somebody out, or lets them in again; whether that changed something. It holds on this node when this
    /// returns, and on the others within a second.
    ///
    /// # Errors
    /// There is no room, or the store cannot be reached.
    pub async fn revoke(&self, change: Change) -> Result<bool, RevocationError> {
        self.standing.apply(change).await
    }
}

impl Follower for Auth {
    /// Reads the keys anew. Connections that were let in by a key which is gone stay until their tokens expire; of the
    /// rooms they are in, they leave those that the rules keep from them now.
    fn prepare(&self, settings: &Settings) -> Result<PutInForce, Vec<String>> {
        let before = self.policy.get();
        if settings.auth.is_on() != before.settings.is_on() {
            let change =
                "`auth`: authentication is turned on or off by a restart only: clients are known by it";
            return Err(vec![change.to_owned()]);
        }
        let policy = Policy::of(&settings.auth, Some(&before)).map_err(|error| vec![error.to_string()])?;
        let (live, tasks, standing) = (self.policy.clone(), self.tasks.clone(), self.standing.clone());
        Ok(Box::new(move || {
            policy.keep_fresh(&tasks);
            live.replace(policy);
            // The rules hold already.
            tasks.spawn("memberships", standing.review_rooms());
        }))
    }
}
