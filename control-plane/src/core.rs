//! What all services share, and how a caller is known.
//!
//! Every way in comes through here: a session token, a site link's secret, or a certificate; and every command is
//! put to the domain's `authorize` before anything is done. Refusals of people who are signed in are recorded.

use crate::accounts::Accounts;
use crate::admission::Admission;
use crate::bus::Bus;
use crate::clock::Clock;
use crate::convert::actor_from_row;
use crate::counters::turned_away;
use crate::drills::Drills;
use crate::endpoints::{Endpoints, Proof};
use crate::fleet::Relays;
use crate::meetings::Meetings;
use crate::net::Peer;
use crate::quality::Qualities;
use crate::replicas::Replicas;
use crate::status::{Failure, unauthenticated};
use crate::store::{AccountRow, Store, StoreError};
use crate::tickets::Tickets;
use crate::units::Units;
use crate::upkeep::Seen;
use muster_domain::{
    Able, AccountName, Action, Actor, Meeting, Refusal, SiteId, Target, Tree, UnitId, authorize, may_chair,
};
use muster_identity::{Authority, Identity, sha256_text};
use muster_proto::command::v1 as pb;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

/// Refusals that wait to be recorded; more are counted only.
pub const AUDIT_QUEUE: usize = 256;

/// A refusal of somebody who is signed in.
pub struct Refused {
    pub actor: String,
    pub action: String,
    pub reason: String,
}

/// The parts of a running control plane.
pub struct Core {
    pub store: Store,
    pub clock: Clock,
    pub accounts: Accounts,
    pub endpoints: Arc<Endpoints>,
    pub relays: Arc<Relays>,
    pub meetings: Arc<Meetings>,
    pub tickets: Tickets,
    /// Endpoints that attach.
    pub door: Admission,
    pub units: Units,
    pub drills: Drills,
    pub qualities: Arc<Qualities>,
    pub replicas: Arc<Replicas>,
    pub bus: Bus,
    pub authority: Authority,
    pub shutdown: CancellationToken,
    pub audit: mpsc::Sender<Refused>,
    /// Held while an import is planned and stored.
    pub import: tokio::sync::Mutex<()>,
    /// When sites were seen, until it is stored.
    pub seen: Seen,
    /// Another replica has changed the tree.
    pub tree_news: Notify,
    tree: RwLock<Arc<Tree>>,
}

/// The parts that [`Core::new`] takes.
pub struct Parts {
    pub store: Store,
    pub clock: Clock,
    pub accounts: Accounts,
    pub endpoints: Arc<Endpoints>,
    pub relays: Arc<Relays>,
    pub meetings: Arc<Meetings>,
    pub tickets: Tickets,
    pub qualities: Arc<Qualities>,
    pub replicas: Arc<Replicas>,
    pub bus: Bus,
    pub authority: Authority,
    pub shutdown: CancellationToken,
    pub audit: mpsc::Sender<Refused>,
    pub units: Units,
    pub tree: Tree,
}

/// Somebody who is signed in.
#[derive(Clone)]
pub struct Caller {
    pub account: AccountRow,
    pub actor: Actor,
    pub token: String,
    pub expires_ms: i64,
}

impl Caller {
    /// Somebody in whose name something is done, without a session: what a schedule convenes.
    pub fn without_session(account: AccountRow) -> Result<Self, StoreError> {
        let actor = actor_from_row(&account)?;
        Ok(Self {
            account,
            actor,
            token: String::new(),
            expires_ms: 0,
        })
    }
}

impl Core {
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            store,
            clock,
            accounts,
            endpoints,
            relays,
            meetings,
            tickets,
            qualities,
            replicas,
            bus,
            authority,
            shutdown,
            audit,
            units,
            tree,
        } = parts;
        let tree = Arc::new(tree);
        relays.set_tree(tree.clone());
        let (import, tree) = (tokio::sync::Mutex::default(), RwLock::new(tree));
        Arc::new(Self {
            store,
            clock,
            accounts,
            endpoints,
            relays,
            meetings,
            tickets,
            door: Admission::default(),
            units,
            drills: Drills::default(),
            qualities,
            replicas,
            bus,
            authority,
            shutdown,
            audit,
            import,
            seen: Seen::default(),
            tree_news: Notify::new(),
            tree,
        })
    }

    /// The tree as it is now.
    pub fn tree(&self) -> Arc<Tree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_tree(&self, tree: Tree) {
        let tree = Arc::new(tree);
        self.relays.set_tree(tree.clone());
        *self.tree.write().unwrap_or_else(PoisonError::into_inner) = tree;
    }

    /// Who calls, by the session token, which the gate has looked at if the call came through it.
    pub async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        if let Some(caller) = request.extensions().get::<Arc<Caller>>() {
            return Ok(Caller::clone(caller));
        }
        let token = bearer(request).ok_or_else(|| {
            turned_away("session", "missing");
            unauthenticated("expected `authorization: Bearer TOKEN`")
        })?;
        self.caller_of(token).await
    }

    /// Who has the session of this token.
    pub async fn caller_of(&self, token: &str) -> Result<Caller, Status> {
        let session = self.accounts.session(token).await?;
        let (account, expires_ms) =
            session.ok_or_else(|| unauthenticated("the session has ended: sign in again"))?;
        let actor = actor_from_row(&account)?;
        Ok(Caller {
            account,
            actor,
            token: token.to_owned(),
            expires_ms,
        })
    }

    /// The relay that calls, by its certificate.
    pub fn relay<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let Some(Identity::Relay(id)) = peer_identity(request) else {
            turned_away("relay", "not_a_relay");
            return Err(unauthenticated("expected a relay's certificate: enrol first"));
        };
        Ok(id)
    }

    /// The site of an endpoint: by its certificate, else by the secret of a site link. The gate has looked at it if the call
    /// came through it.
    pub async fn endpoint<T>(&self, request: &Request<T>) -> Result<(SiteId, Proof), Status> {
        if let Some(known) = request.extensions().get::<Arc<(SiteId, Proof)>>() {
            return Ok((SiteId::clone(&known.0), known.1.clone()));
        }
        if let Some(Identity::Agent(site)) = peer_identity(request) {
            return Ok((SiteId::new(site).map_err(Failure::from)?, Proof::Certificate));
        }
        let secret = bearer(request).ok_or_else(|| {
            turned_away("endpoint", "missing");
            unauthenticated("expected an agent's certificate or a site link's secret as bearer token")
        })?;
        let hash = sha256_text(secret.as_bytes());
        match self.store.site_link(&hash).await? {
            Some((site, expires_ms)) if expires_ms > self.clock.now_ms() => {
                Ok((SiteId::new(site).map_err(Failure::from)?, Proof::Link(hash)))
            }
            other => {
                let reason = if other.is_some() {
                    "link_expired"
                } else {
                    "link_unknown"
                };
                turned_away("endpoint", reason);
                Err(unauthenticated("the link has run out: ask for a new one"))
            }
        }
    }

    /// Asks the domain whether the caller may; a refusal is recorded.
    pub fn authorize(&self, caller: &Caller, action: Action, target: &Target) -> Result<(), Status> {
        authorize(&caller.actor, action, target, &self.tree(), self.clock.now())
            .map_err(|refusal| self.refused(caller, action, refusal))
    }

    /// Whether the caller may, where a no is nothing that anybody tried.
    pub fn permits(&self, caller: &Caller, action: Action, target: &Target) -> bool {
        authorize(&caller.actor, action, target, &self.tree(), self.clock.now()).is_ok()
    }

    /// Which of these accounts may have the chair of a meeting of this unit and these sites now.
    pub async fn able_to_chair(
        &self,
        accounts: impl IntoIterator<Item = &AccountName>,
        unit: &UnitId,
        sites: &Arc<[SiteId]>,
    ) -> Result<Able, Failure> {
        let (tree, now) = (self.tree(), self.clock.now());
        let mut able = Able::new();
        for name in accounts {
            let Some(row) = self.store.account(name).await? else {
                continue;
            };
            if may_chair(&actor_from_row(&row)?, unit, sites, &tree, now) {
                able.insert(name.clone());
            }
        }
        Ok(able)
    }

    /// Records a refusal and turns it into the answer.
    pub fn refused(&self, caller: &Caller, action: Action, refusal: Refusal) -> Status {
        metrics::counter!("muster_refused", "code" => refusal.code()).increment(1);
        let refused = Refused {
            actor: caller.account.name.clone(),
            action: action.to_string(),
            reason: refusal.to_string(),
        };
        if self.audit.try_send(refused).is_err() {
            metrics::counter!("muster_audit_dropped").increment(1);
        }
        Failure::from(refusal).into()
    }

    /// The live meeting of this id, if the caller may do this in it.
    pub async fn meeting_for(
        &self,
        caller: &Caller,
        id: &str,
        action: Action,
    ) -> Result<Arc<Meeting>, Status> {
        if let Some(meeting) = self.meetings.view(id) {
            self.authorize(caller, action, &target_of(&meeting)?)?;
            return Ok(meeting);
        }
        let found = self.meetings.find(id).await?;
        self.authorize(caller, action, &target_of_wire(&found)?)?;
        // Another replica may have convened it a moment ago: then it is known here by now.
        self.meetings
            .view(id)
            .ok_or_else(|| Failure::from(Refusal::MeetingEnded).into())
    }
}

/// The meeting as the domain's `authorize` wants it.
pub fn target_of(meeting: &Meeting) -> Result<Target, Status> {
    match (meeting.unit(), meeting.chair()) {
        (Some(unit), Some(chair)) => Ok(Target::Meeting {
            unit: unit.clone(),
            chair: chair.clone(),
            taken_from: meeting.taken_from().cloned(),
            sites: meeting.sites().clone(),
        }),
        _ => Err(Failure::from(Refusal::NotConvened).into()),
    }
}

/// The same of a meeting as it is told: of one that has ended, its final state.
pub fn target_of_wire(meeting: &pb::Meeting) -> Result<Target, Failure> {
    let taken_from = match meeting.taken_from.as_str() {
        "" => None,
        account => Some(account.parse()?),
    };
    let sites = meeting.summonses.iter().map(|summons| SiteId::new(&summons.site));
    Ok(Target::Meeting {
        sites: sites.collect::<Result<_, _>>()?,
        unit: meeting.unit.parse()?,
        chair: meeting.chair.parse()?,
        taken_from,
    })
}

fn bearer<T>(request: &Request<T>) -> Option<&str> {
    let value = request.metadata().get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.trim())
}

/// The identity in the caller's certificate, if it showed one.
pub fn peer_identity<T>(request: &Request<T>) -> Option<Identity> {
    request
        .extensions()
        .get::<Peer>()
        .and_then(|peer| peer.identity.clone())
}

/// Where the call comes from.
pub fn peer_ip(extensions: &http::Extensions) -> IpAddr {
    extensions
        .get::<Peer>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.addr.ip())
}
