//! The tree: import, listing, and the secrets with which endpoints and relays of a site or unit come in.

use super::rows;
use super::scope::{Scope, Visible};
use crate::bus::Hint;
use crate::convert::{site_to_row, unit_to_row};
use crate::core::{Caller, Core};
use crate::status::Failure;
use crate::store::UnitEffect;
use crate::units::By;
use futures_util::stream;
use muster_domain::unit::LINK;
use muster_domain::{
    Action, ImportPlan, Millis, Order, Record, Refusal, SiteId, Target, Tree, UnitId, authorize_import,
    plan_import,
};
use muster_identity::{EnrolToken, Identity, random_secret, sha256_text};
use muster_proto::command::v1 as pb;
use pb::create_enrol_token_request::Target as EnrolTarget;
use pb::directory_service_server::DirectoryService;
use pb::import_sites_with_progress_response::Step;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

const DAY_S: u32 = 24 * 3600;
/// The longest time that a secret which is given out may hold.
const MAX_VALID_S: u32 = 90 * DAY_S;

/// What an import came to.
type Imported = Result<pb::ImportSitesResponse, Status>;

pub struct Directory(pub Arc<Core>);

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn errors_answer(errors: Vec<pb::ImportError>) -> pb::ImportSitesResponse {
    pb::ImportSitesResponse {
        errors,
        ..Default::default()
    }
}

fn plan(csv: &[u8], current: &Tree) -> Result<ImportPlan, Vec<pb::ImportError>> {
    let (header, rows) = rows::read(csv).map_err(|error| vec![error])?;
    plan_import(current, &header, &rows).map_err(|errors| {
        let wire = |error: muster_domain::ImportError| pb::ImportError {
            line: error.line,
            column: error.column,
            found: error.found,
            expected: error.expected,
        };
        errors.into_iter().map(wire).collect()
    })
}

fn ends(valid_s: u32, now_ms: i64) -> Result<i64, Failure> {
    match valid_s {
        0 => Ok(now_ms + i64::from(DAY_S) * 1000),
        1..=MAX_VALID_S => Ok(now_ms + i64::from(valid_s) * 1000),
        _ => Err(Failure::BadRequest(format!(
            "valid_s: found {valid_s}, expected at most {MAX_VALID_S} (90 days)"
        ))),
    }
}

/// Rows of one step of an import: what progress is told in.
const STEP: usize = 500;

/// The rows of a plan in steps, parents first, and how many rows each step has.
fn steps(plan: &ImportPlan) -> (Vec<UnitEffect>, Vec<usize>) {
    let units: Vec<_> = plan.units.iter().map(unit_to_row).collect();
    let sites: Vec<_> = plan.sites.iter().map(site_to_row).collect();
    let (mut effects, mut sizes) = (Vec::new(), Vec::new());
    for units in units.chunks(STEP) {
        sizes.push(units.len());
        effects.push(UnitEffect::PutDirectory {
            units: units.to_vec(),
            sites: Vec::new(),
        });
    }
    for sites in sites.chunks(STEP) {
        sizes.push(sites.len());
        effects.push(UnitEffect::PutDirectory {
            units: Vec::new(),
            sites: sites.to_vec(),
        });
    }
    (effects, sizes)
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where an import tells how far it has come: the newest counts, whoever is slow.
type Telling = watch::Sender<pb::ImportProgress>;

impl Directory {
    async fn store_plan(
        &self,
        caller: &Caller,
        plan: ImportPlan,
        sha256: String,
        told: &Telling,
    ) -> Result<(), Failure> {
        let (effects, sizes) = steps(&plan);
        let units = caller
            .actor
            .units_for(Action::ImportSites, &plan.tree, self.0.clock.now());
        let (Some(unit), false) = (units.first(), effects.is_empty()) else {
            return Ok(());
        };
        let record = Record::Imported {
            units_added: plan.units_added,
            units_changed: plan.units_changed,
            sites_added: plan.sites_added,
            sites_changed: plan.sites_changed,
            sha256,
        };
        let by = By {
            actor: &caller.account.name,
            cause: "import_sites",
        };
        let (progress, mut carried_out) = watch::channel(0);
        let order = Order::Record(record);
        let storing = self.0.units.act_telling(unit, by, order, effects, Some(progress));
        tokio::pin!(storing);
        loop {
            tokio::select! {
                stored = &mut storing => break stored.map(|_| ())?,
                Ok(()) = carried_out.changed() => {
                    let steps = *carried_out.borrow_and_update();
                    let rows: usize = sizes.iter().take(steps).sum();
                    told.send_modify(|told| told.done = small(plan.unchanged + rows));
                }
            }
        }
        tracing::info!(
            units = plan.units.len(),
            sites = plan.sites.len(),
            "tree imported"
        );
        self.0.set_tree(plan.tree);
        self.0.bus.publish(Hint::Directory);
        Ok(())
    }

    async fn import(
        &self,
        caller: Caller,
        csv: Vec<u8>,
        dry_run: bool,
        told: &Telling,
    ) -> Result<pb::ImportSitesResponse, Status> {
        let action = Action::ImportSites;
        let _one_at_a_time = self.0.import.lock().await;
        let current = self.0.tree();
        let before = current.clone();
        let sha256 = hexadecimal(&csv);
        let planned = tokio::task::spawn_blocking(move || plan(&csv, &before));
        let plan = match planned.await.map_err(|_| Failure::Busy)? {
            Ok(plan) => plan,
            Err(errors) => return Ok(errors_answer(errors)),
        };
        authorize_import(&caller.actor, &plan, &current, self.0.clock.now())
            .map_err(|refusal| self.0.refused(&caller, action, refusal))?;
        let answer = pb::ImportSitesResponse {
            units_added: small(plan.units_added),
            units_changed: small(plan.units_changed),
            sites_added: small(plan.sites_added),
            sites_changed: small(plan.sites_changed),
            unchanged: small(plan.unchanged),
            errors: Vec::new(),
        };
        let total = plan.unchanged + plan.units.len() + plan.sites.len();
        told.send_modify(|told| {
            (told.total, told.done) = (small(total), small(plan.unchanged));
        });
        if !dry_run {
            self.store_plan(&caller, plan, sha256, told).await?;
        }
        Ok(answer)
    }

    /// Imports in a task of its own: a caller that goes away must not leave a tree that is stored and not in use.
    fn begin(
        &self,
        caller: Caller,
        csv: Vec<u8>,
        dry_run: bool,
    ) -> Result<(watch::Receiver<pb::ImportProgress>, JoinHandle<Imported>), Status> {
        let action = Action::ImportSites;
        let units = caller.actor.units_for(action, &self.0.tree(), self.0.clock.now());
        if units.is_empty() {
            return Err(self.0.refused(&caller, action, Refusal::NoRole { action }));
        }
        let this = Self(self.0.clone());
        let (told, progress) = watch::channel(pb::ImportProgress::default());
        let import = tokio::spawn(async move { this.import(caller, csv, dry_run, &told).await });
        Ok((progress, import))
    }

    /// Stores a secret that is given out, with its line in the log.
    async fn give_out(
        &self,
        caller: &Caller,
        unit: &UnitId,
        cause: &'static str,
        record: Record,
        secret: UnitEffect,
    ) -> Result<(), Failure> {
        let by = By {
            actor: &caller.account.name,
            cause,
        };
        let order = Order::Record(record);
        self.0.units.act(unit, by, order, vec![secret]).await.map(|_| ())
    }

    fn unit_of(&self, site: &SiteId) -> Result<UnitId, Failure> {
        let tree = self.0.tree();
        let known = tree
            .site(site)
            .ok_or_else(|| Refusal::UnknownSite(site.to_string()))?;
        Ok(known.unit.clone())
    }

    /// Who enrols, and the unit in whose stream that is written.
    fn enrol_identity(
        &self,
        caller: &Caller,
        target: Option<EnrolTarget>,
    ) -> Result<(Identity, UnitId), Status> {
        match target {
            Some(EnrolTarget::Site(site)) => {
                let site = SiteId::new(site).map_err(Failure::from)?;
                self.0
                    .authorize(caller, Action::Enrol, &Target::Site(site.clone()))?;
                let unit = self.unit_of(&site)?;
                Ok((Identity::Agent(site.into()), unit))
            }
            Some(EnrolTarget::RelayUnit(unit)) => {
                let unit = UnitId::new(unit).map_err(Failure::from)?;
                self.0
                    .authorize(caller, Action::Enrol, &Target::Unit(unit.clone()))?;
                // Several relays of one unit each have a name of their own, within the 64 characters of an id.
                let stem: String = unit.chars().take(55).collect();
                let relay = Identity::Relay(format!("{stem}-{:08x}", rand::random::<u32>()));
                Ok((relay, unit))
            }
            None => Err(Failure::BadRequest("target: expected a site or a relay's unit".into()).into()),
        }
    }
}

#[tonic::async_trait]
impl DirectoryService for Directory {
    async fn import_sites(
        &self,
        request: Request<pb::ImportSitesRequest>,
    ) -> Result<Response<pb::ImportSitesResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let pb::ImportSitesRequest { csv, dry_run } = request.into_inner();
        let (_, import) = self.begin(caller, csv, dry_run)?;
        import.await.map_err(|_| Failure::Busy)?.map(Response::new)
    }

    async fn list_sites(
        &self,
        request: Request<pb::ListSitesRequest>,
    ) -> Result<Response<pb::ListSitesResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let tree = self.0.tree();
        let now = self.0.clock.now();
        let Visible { units, sites } = Scope::of(&caller.actor, &tree, &[], now).visible(&tree);
        let presence = self
            .0
            .endpoints
            .presences(sites.iter().map(|site| site.id.as_str()));
        Ok(Response::new(pb::ListSitesResponse {
            units,
            sites,
            presence,
        }))
    }

    async fn create_enrol_token(
        &self,
        request: Request<pb::CreateEnrolTokenRequest>,
    ) -> Result<Response<pb::CreateEnrolTokenResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let pb::CreateEnrolTokenRequest { target, valid_s } = request.into_inner();
        let (identity, unit) = self.enrol_identity(&caller, target)?;
        let expires_ms = ends(valid_s, self.0.clock.now_ms())?;
        let token = EnrolToken::new(self.0.authority.fingerprint());
        let secret = UnitEffect::AddEnrolToken {
            hash: sha256_text(token.secret.as_bytes()),
            identity: identity.to_string(),
            by: caller.account.name.clone(),
            expires_ms,
        };
        let record = Record::SecretMade {
            identity: identity.to_string(),
            expires: Millis(expires_ms),
        };
        self.give_out(&caller, &unit, "create_enrol_token", record, secret)
            .await?;
        Ok(Response::new(pb::CreateEnrolTokenResponse {
            token: token.to_string(),
            expires_ms,
        }))
    }

    async fn create_site_link(
        &self,
        request: Request<pb::CreateSiteLinkRequest>,
    ) -> Result<Response<pb::CreateSiteLinkResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let pb::CreateSiteLinkRequest { site, valid_s } = request.into_inner();
        let site = SiteId::new(site).map_err(Failure::from)?;
        self.0
            .authorize(&caller, Action::CreateSiteLink, &Target::Site(site.clone()))?;
        let expires_ms = ends(valid_s, self.0.clock.now_ms())?;
        let secret = random_secret();
        let link = UnitEffect::AddSiteLink {
            hash: sha256_text(secret.as_bytes()),
            site: site.to_string(),
            by: caller.account.name.clone(),
            now_ms: self.0.clock.now_ms(),
            expires_ms,
        };
        let record = Record::SecretMade {
            identity: format!("{LINK}{site}"),
            expires: Millis(expires_ms),
        };
        let unit = self.unit_of(&site)?;
        self.give_out(&caller, &unit, "create_site_link", record, link)
            .await?;
        Ok(Response::new(pb::CreateSiteLinkResponse {
            path: format!("/join#{secret}"),
            expires_ms,
        }))
    }

    type ImportSitesWithProgressStream = super::Answers<pb::ImportSitesWithProgressResponse>;

    async fn import_sites_with_progress(
        &self,
        request: Request<pb::ImportSitesWithProgressRequest>,
    ) -> Result<Response<Self::ImportSitesWithProgressStream>, Status> {
        let caller = self.0.caller(&request).await?;
        let pb::ImportSitesWithProgressRequest { csv, dry_run } = request.into_inner();
        let (progress, import) = self.begin(caller, csv, dry_run)?;
        let telling = Importing {
            progress,
            import: Some(import),
        };
        Ok(Response::new(Box::pin(stream::unfold(telling, Importing::next))))
    }
}

/// An import as the stream of its progress.
struct Importing {
    progress: watch::Receiver<pb::ImportProgress>,
    /// None once its end was told.
    import: Option<JoinHandle<Imported>>,
}

impl Importing {
    async fn next(mut self) -> Option<(Result<pb::ImportSitesWithProgressResponse, Status>, Self)> {
        let import = self.import.as_mut()?;
        let step = tokio::select! {
            biased;
            Ok(()) = self.progress.changed() => Ok(Step::Progress(*self.progress.borrow_and_update())),
            done = import => {
                self.import = None;
                match done {
                    Ok(done) => done.map(Step::Done),
                    Err(_) => Err(Failure::Busy.into()),
                }
            }
        };
        let answer = step.map(|step| pb::ImportSitesWithProgressResponse { step: Some(step) });
        Some((answer, self))
    }
}
