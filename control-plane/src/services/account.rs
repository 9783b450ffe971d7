//! Accounts and their roles. Nobody gives, or takes away, what they could not have given.

use crate::convert::{account_to_wire, actor_from_row, role_from_wire};
use crate::core::{Caller, Core};
use crate::status::Failure;
use crate::store::{AccountRow, UnitEffect};
use crate::units::By;
use muster_domain::{
    AccountName, Action, Actor, Grant, Millis, Order, Record, Refusal, Tree, UnitId, authorize_account,
    authorize_grant, check_password, leaves_a_commander,
};
use muster_proto::command::v1 as pb;
use pb::account_service_server::AccountService;
use std::collections::HashMap;
use std::sync::Arc;
use tonic::{Request, Response, Status};

const MAX_DISPLAY_NAME: usize = 80;
/// Refusals in one answer.
const MAX_REFUSALS: u32 = 10_000;

pub struct AccountCalls(pub Arc<Core>);

/// Whether the account has a role within these units, or none at all.
fn concerns(actor: &Actor, units: &[UnitId], tree: &Tree) -> bool {
    let within = |grant: &Grant| {
        units
            .iter()
            .any(|unit| &grant.unit == unit || tree.is_within(&grant.unit, unit))
    };
    actor.grants.is_empty() || actor.grants.iter().any(within)
}

/// Where what is done to an account is written: the unit of its first role, else one of who does it.
pub fn home_of(caller: &Caller, account: &Actor) -> Option<UnitId> {
    let first = |actor: &Actor| actor.grants.first().map(|grant| grant.unit.clone());
    first(account).or_else(|| first(&caller.actor))
}

/// The account of this name and what it may do.
pub async fn known(core: &Core, name: &str) -> Result<(AccountRow, Actor), Status> {
    let row = core.store.account(name).await?;
    let row = row.ok_or_else(|| Failure::NoAccount(name.chars().take(80).collect()))?;
    let actor = actor_from_row(&row)?;
    Ok((row, actor))
}

/// Whether the caller may manage an account with these roles; a refusal is recorded.
pub fn may_manage(core: &Core, caller: &Caller, grants: &[Grant]) -> Result<(), Status> {
    authorize_account(&caller.actor, grants, &core.tree(), core.clock.now())
        .map_err(|refusal| core.refused(caller, Action::ManageAccounts, refusal))
}

impl AccountCalls {
    /// The units in which the caller may do this; a refusal is recorded.
    fn units_for(&self, caller: &Caller, action: Action) -> Result<Vec<UnitId>, Status> {
        let units = caller.actor.units_for(action, &self.0.tree(), self.0.clock.now());
        if units.is_empty() {
            return Err(self.0.refused(
                caller,
                action,
                caller.actor.without_role(action, self.0.clock.now()),
            ));
        }
        Ok(units)
    }

    fn may_give(&self, caller: &Caller, grant: &Grant) -> Result<(), Status> {
        authorize_grant(&caller.actor, grant, &self.0.tree(), self.0.clock.now())
            .map_err(|refusal| self.0.refused(caller, Action::ManageAccounts, refusal))
    }

    /// Whether somebody still commands the tree if this grant goes, or another takes its place.
    async fn may_go(
        &self,
        caller: &Caller,
        account: &AccountName,
        grant: &Grant,
        after: Option<&Grant>,
    ) -> Result<(), Status> {
        let rows = self.0.store.accounts().await?;
        let all = rows.iter().map(actor_from_row).collect::<Result<Vec<_>, _>>()?;
        leaves_a_commander(grant, account, after, &all, &self.0.tree(), self.0.clock.now())
            .map_err(|refusal| self.0.refused(caller, Action::ManageAccounts, refusal))
    }

    async fn act(
        &self,
        caller: &Caller,
        unit: &UnitId,
        cause: &'static str,
        order: Order,
        also: Vec<UnitEffect>,
    ) -> Result<(), Failure> {
        let by = By {
            actor: &caller.account.name,
            cause,
        };
        self.0.units.act(unit, by, order, also).await.map(|_| ())
    }

    async fn shown(&self, name: &str) -> Result<Option<pb::Account>, Status> {
        Ok(self.0.store.account(name).await?.as_ref().map(account_to_wire))
    }
}

fn asked(role: i32, unit: &str) -> Result<(muster_domain::Role, UnitId), Failure> {
    let known = role_from_wire(role)
        .ok_or_else(|| Failure::BadRequest(format!("role: found {role}, expected a role from 1 to 4")))?;
    Ok((known, UnitId::new(unit)?))
}

fn display_name(found: &str, before: Option<&AccountRow>, name: &AccountName) -> Result<String, Failure> {
    let found = found.trim();
    if found.chars().count() > MAX_DISPLAY_NAME || found.chars().any(char::is_control) {
        let text = "display_name: expected 80 characters at most, no control characters";
        return Err(Failure::BadRequest(text.to_owned()));
    }
    Ok(match (found, before) {
        ("", Some(before)) => before.display_name.clone(),
        ("", None) => name.to_string(),
        (found, _) => found.to_owned(),
    })
}

#[tonic::async_trait]
impl AccountService for AccountCalls {
    async fn list_accounts(
        &self,
        request: Request<pb::ListAccountsRequest>,
    ) -> Result<Response<pb::ListAccountsResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let units = self.units_for(&caller, Action::ManageAccounts)?;
        let tree = self.0.tree();
        let mut accounts = Vec::new();
        for row in self.0.store.accounts().await? {
            if concerns(&actor_from_row(&row)?, &units, &tree) {
                accounts.push(account_to_wire(&row));
            }
        }
        Ok(Response::new(pb::ListAccountsResponse { accounts }))
    }

    async fn put_account(
        &self,
        request: Request<pb::PutAccountRequest>,
    ) -> Result<Response<pb::PutAccountResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let asked = request.into_inner();
        let name = AccountName::new(&asked.name).map_err(Failure::from)?;
        let before = self.0.store.account(&name).await?;
        let actor = before.as_ref().map(actor_from_row).transpose()?;
        let grants = actor.as_ref().map_or(&[][..], |actor| &actor.grants);
        may_manage(&self.0, &caller, grants)?;
        let display_name = display_name(&asked.display_name, before.as_ref(), &name)?;
        let new_password = !asked.password.is_empty();
        if before.is_none() && !new_password {
            let text = "password: expected one for a new account";
            return Err(Failure::BadRequest(text.to_owned()).into());
        }
        let password_hash = if new_password {
            check_password(&name, &asked.password)
                .map_err(|error| Failure::BadRequest(format!("password: {error}")))?;
            Some(self.0.accounts.hash(asked.password).await?)
        } else {
            None
        };
        let put = UnitEffect::PutAccount {
            name: name.to_string(),
            display_name,
            password_hash,
            now_ms: self.0.clock.now_ms(),
        };
        let record = Record::AccountPut {
            account: name.clone(),
            new_password,
        };
        let action = Action::ManageAccounts;
        let unit = home_of(&caller, actor.as_ref().unwrap_or(&caller.actor));
        let unit = unit.ok_or_else(|| Failure::from(Refusal::NoRole { action }))?;
        self.act(&caller, &unit, "put_account", Order::Record(record), vec![put])
            .await?;
        let account = self.shown(&name).await?;
        Ok(Response::new(pb::PutAccountResponse { account }))
    }

    async fn grant_role(
        &self,
        request: Request<pb::GrantRoleRequest>,
    ) -> Result<Response<pb::GrantRoleResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let pb::GrantRoleRequest {
            account,
            role,
            unit,
            expires_ms,
        } = request.into_inner();
        let (role, unit) = asked(role, &unit)?;
        let grant = Grant {
            role,
            unit: unit.clone(),
            expires: (expires_ms != 0).then_some(Millis(expires_ms)),
        };
        self.may_give(&caller, &grant)?;
        let (row, actor) = known(&self.0, &account).await?;
        let same = |known: &&Grant| known.role == role && known.unit == unit;
        if let Some(before) = actor.grants.iter().find(same) {
            // To end it earlier is to take it away.
            self.may_give(&caller, before)?;
            self.may_go(&caller, &actor.account, before, Some(&grant)).await?;
        }
        let account = actor.account;
        let order = Order::Grant { account, grant };
        self.act(&caller, &unit, "grant_role", order, Vec::new()).await?;
        let account = self.shown(&row.name).await?;
        Ok(Response::new(pb::GrantRoleResponse { account }))
    }

    async fn revoke_role(
        &self,
        request: Request<pb::RevokeRoleRequest>,
    ) -> Result<Response<pb::RevokeRoleResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let pb::RevokeRoleRequest { account, role, unit } = request.into_inner();
        let (role, unit) = asked(role, &unit)?;
        self.units_for(&caller, Action::ManageAccounts)?;
        let (row, actor) = known(&self.0, &account).await?;
        let same = |known: &&Grant| known.role == role && known.unit == unit;
        let grant = actor
            .grants
            .iter()
            .find(same)
            .ok_or_else(|| Failure::NoSuchGrant {
                account: row.name.clone(),
                role: role.to_string(),
                unit: unit.to_string(),
            })?;
        self.may_give(&caller, grant)?;
        let _one_at_a_time = self.0.import.lock().await;
        self.may_go(&caller, &actor.account, grant, None).await?;
        let account = actor.account.clone();
        let order = Order::Revoke { account, role };
        self.act(&caller, &unit, "revoke_role", order, Vec::new()).await?;
        let account = self.shown(&row.name).await?;
        Ok(Response::new(pb::RevokeRoleResponse { account }))
    }

    async fn list_refusals(
        &self,
        request: Request<pb::ListRefusalsRequest>,
    ) -> Result<Response<pb::ListRefusalsResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let units = self.units_for(&caller, Action::ReadLog)?;
        let limit = match request.into_inner().limit {
            0 => 100,
            limit => limit.min(MAX_REFUSALS),
        };
        let tree = self.0.tree();
        let mut seen = HashMap::new();
        for row in self.0.store.accounts().await? {
            let concerns = concerns(&actor_from_row(&row)?, &units, &tree);
            seen.insert(row.name, concerns);
        }
        let rows = self.0.store.audit_rows(i64::from(MAX_REFUSALS)).await?;
        let refusals = rows
            .into_iter()
            .filter(|row| seen.get(&row.actor).copied().unwrap_or(true))
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .map(|row| pb::RefusalRecord {
                at_ms: row.at_ms,
                account: row.actor,
                action: row.action,
                reason: row.reason,
            })
            .collect();
        Ok(Response::new(pb::ListRefusalsResponse { refusals }))
    }
}
