//! Accounts, their roles and sessions, and what people were refused.

use std::io::BufRead as _;
use std::path::Path;

use muster_proto::command::v1::{
    Account, GrantRoleRequest, ListAccountsRequest, ListRefusalsRequest, ListSessionsRequest,
    PutAccountRequest, RevokeRoleRequest, RevokeSessionsRequest, Role,
};
use serde_json::json;

use crate::args::{AccountCommand, Form, Refusals};
use crate::client::Client;
use crate::failure::Failure;
use crate::json::{self, word_of};
use crate::output::{print_json, show, table, time};
use crate::session::now_ms;

pub async fn account(client: &Client, command: AccountCommand, form: Form) -> Result<(), Failure> {
    match command {
        AccountCommand::List => {
            let accounts = client.accounts().list_accounts(ListAccountsRequest {}).await?;
            list(&accounts.into_inner().accounts, form)
        }
        AccountCommand::Put {
            name,
            display_name,
            new_password_file,
        } => {
            let password = new_password_file.as_deref().map(first_line).transpose()?;
            let request = PutAccountRequest {
                name,
                display_name,
                password: password.unwrap_or_default(),
            };
            let put = client.accounts().put_account(request).await?.into_inner();
            print_account(put.account, form)
        }
        AccountCommand::Grant {
            name,
            role,
            unit,
            until,
        } => {
            let request = GrantRoleRequest {
                account: name,
                role: Role::from(role).into(),
                unit,
                expires_ms: until.map_or(0, |until| until.ms(now_ms())),
            };
            let granted = client.accounts().grant_role(request).await?.into_inner();
            print_account(granted.account, form)
        }
        AccountCommand::Revoke { name, role, unit } => {
            let request = RevokeRoleRequest {
                account: name,
                role: Role::from(role).into(),
                unit,
            };
            let revoked = client.accounts().revoke_role(request).await?.into_inner();
            print_account(revoked.account, form)
        }
        AccountCommand::Sessions { name } => sessions(client, name, form).await,
        AccountCommand::EndSessions { name, session } => {
            let request = RevokeSessionsRequest {
                account: name,
                session,
            };
            let revoked = client
                .sessions()
                .revoke_sessions(request)
                .await?
                .into_inner()
                .revoked;
            match form {
                Form::Json => print_json(&json!({ "revoked": revoked })),
                Form::Table => show(&format!("{revoked} sessions ended\n")),
            }
        }
    }
}

/// A password: the first line of a file, or of the input.
fn first_line(file: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::Usage(format!("{}: {error}", file.display()));
    let line = if file == Path::new("-") {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map_err(failed)?;
        line
    } else {
        std::fs::read_to_string(file).map_err(failed)?
    };
    match line.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(Failure::Usage(format!(
            "{}: expected a password in the first line",
            file.display()
        ))),
    }
}

/// `commander of WH, duty officer of WH-EL until 2026-…`
fn roles(account: &Account) -> String {
    let grants = account.grants.iter().map(|grant| {
        let role = word_of!(grant.role(), "ROLE_").replace('_', " ");
        match grant.expires_ms {
            0 => format!("{role} of {}", grant.unit),
            until => format!("{role} of {} until {}", grant.unit, time(until)),
        }
    });
    grants.collect::<Vec<_>>().join(", ")
}

fn list(accounts: &[Account], form: Form) -> Result<(), Failure> {
    if form == Form::Json {
        return print_json(&json::list(accounts, json::account));
    }
    let row = |account: &Account| [account.name.clone(), account.display_name.clone(), roles(account)];
    let rows: Vec<_> = accounts.iter().map(row).collect();
    show(&table(["account", "name", "roles"], &rows))
}

fn print_account(account: Option<Account>, form: Form) -> Result<(), Failure> {
    let account = account
        .ok_or_else(|| Failure::Refused("the control plane answered without an account".to_owned()))?;
    match form {
        Form::Json => print_json(&json::account(&account)),
        Form::Table if account.grants.is_empty() => show(&format!("{}: no role\n", account.name)),
        Form::Table => show(&format!("{}: {}\n", account.name, roles(&account))),
    }
}

async fn sessions(client: &Client, account: String, form: Form) -> Result<(), Failure> {
    let request = ListSessionsRequest { account };
    let sessions = client
        .sessions()
        .list_sessions(request)
        .await?
        .into_inner()
        .sessions;
    if form == Form::Json {
        return print_json(&json::list(&sessions, |session| {
            json!({
                "id": session.id, "account": session.account, "created_ms": session.created_ms,
                "expires_ms": session.expires_ms, "current": session.current,
            })
        }));
    }
    let rows: Vec<_> = sessions
        .iter()
        .map(|session| {
            [
                session.id.clone(),
                session.account.clone(),
                time(session.created_ms),
                time(session.expires_ms),
                if session.current { "this one" } else { "" }.to_owned(),
            ]
        })
        .collect();
    show(&table(["session", "account", "since", "until", ""], &rows))
}

pub async fn refusals(client: &Client, options: Refusals, form: Form) -> Result<(), Failure> {
    let request = ListRefusalsRequest { limit: options.limit };
    let refusals = client
        .accounts()
        .list_refusals(request)
        .await?
        .into_inner()
        .refusals;
    if form == Form::Json {
        return print_json(&json::list(&refusals, |refusal| {
            json!({
                "at_ms": refusal.at_ms, "account": refusal.account, "action": refusal.action,
                "reason": refusal.reason,
            })
        }));
    }
    let rows: Vec<_> = refusals
        .iter()
        .map(|refusal| {
            let reason = refusal.reason.escape_debug().to_string();
            [
                time(refusal.at_ms),
                refusal.account.clone(),
                refusal.action.clone(),
                reason,
            ]
        })
        .collect();
    show(&table(["at", "account", "action", "reason"], &rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::command::v1::Grant;

    #[test]
    fn roles_say_of_what_and_until_when() {
        let grant = |role: Role, expires_ms| Grant {
            role: role.into(),
            unit: "WH".to_owned(),
            expires_ms,
            ..Grant::default()
        };
        let account = Account {
            grants: vec![
                grant(Role::Commander, 0),
                grant(Role::DutyOfficer, 1_580_911_402_000),
            ],
            ..Account::default()
        };
        let expected = "commander of WH, duty officer of WH until 2020-02-05 14:03:22Z";
        assert_eq!(roles(&account), expected);
    }

    #[test]
    fn a_password_is_the_first_line_and_not_an_empty_one() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("p");
        std::fs::write(&file, "one two\nthree\n").expect("written");
        assert_eq!(first_line(&file), Ok("one two".to_owned()));
        std::fs::write(&file, "\nx").expect("written");
        assert!(matches!(first_line(&file), Err(Failure::Usage(_))));
        assert!(matches!(
            first_line(&folder.path().join("none")),
            Err(Failure::Usage(_))
        ));
    }
}
