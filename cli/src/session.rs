//! Passwords and the kept session. The session token is a secret like a password: its file has mode 0600,
//! and it is never printed. One session is kept, of one control plane.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use muster_proto::command::v1::session_service_client::SessionServiceClient;
use muster_proto::command::v1::{SignInRequest, SignInResponse, SignOutRequest};
use serde::{Deserialize, Serialize};
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::args::Access;
use crate::client::{Bearer, connect};
use crate::failure::Failure;
use crate::output::show;

/// Metadata of signing in.
const DEVICE_KEY: &str = "muster-device";
/// Accounts whose devices are remembered.
const MOST_DEVICES: usize = 64;

#[derive(Serialize, Deserialize)]
struct KeptSession {
    server: String,
    account: String,
    token: String,
    expires_ms: i64,
}

pub async fn sign_in(access: &Access) -> Result<(), Failure> {
    let account = access
        .account
        .as_deref()
        .ok_or_else(|| Failure::Usage("sign-in needs --account NAME".to_owned()))?;
    let password = password(access, account)?;
    let channel = connect(&access.server, access.ca.as_deref()).await?;
    let session = request_session(channel, &access.server, account, &password).await?;
    let kept = KeptSession {
        server: access.server.clone(),
        account: account.to_owned(),
        token: session.session_token,
        expires_ms: session.expires_ms,
    };
    let path = session_path()?;
    write_private(
        &path,
        &serde_json::to_vec_pretty(&kept).map_err(|e| Failure::Refused(e.to_string()))?,
    )?;
    let name = session.account.map(|a| a.display_name).filter(|n| !n.is_empty());
    show(&format!(
        "signed in as {} at {}\n",
        name.as_deref().unwrap_or(account),
        access.server
    ))
}

pub async fn sign_out(access: &Access) -> Result<(), Failure> {
    let token = kept_token(&access.server)?;
    let path = session_path()?;
    fs::remove_file(&path).map_err(|e| Failure::Refused(format!("{}: {e}", path.display())))?;
    let bearer = Bearer::new(&token)?;
    SessionServiceClient::with_interceptor(connect(&access.server, access.ca.as_deref()).await?, bearer)
        .sign_out(SignOutRequest {})
        .await?;
    Ok(())
}

/// Opens a session, as a device that has signed in before if it has.
pub async fn request_session(
    channel: Channel,
    server: &str,
    account: &str,
    password: &str,
) -> Result<SignInResponse, Failure> {
    let mut request = Request::new(SignInRequest {
        account: account.to_owned(),
        password: password.to_owned(),
    });
    let mut devices = Devices::load();
    if let Some(device) = devices.of(server, account).and_then(|text| text.parse().ok()) {
        request.metadata_mut().insert(DEVICE_KEY, device);
    }
    match SessionServiceClient::new(channel).sign_in(request).await {
        Ok(response) => {
            let device = response.metadata().get(DEVICE_KEY);
            if let Some(device) = device.and_then(|text| text.to_str().ok()) {
                devices.keep(server, account, device);
            }
            Ok(response.into_inner())
        }
        Err(status) if status.code() == Code::Unauthenticated => Err(Failure::NotSignedIn(format!(
            "sign-in as {account} was refused: {}",
            status.message()
        ))),
        Err(status) => Err(status.into()),
    }
}

/// What shows that somebody signed in from here before, by server and account. It opens nothing; without it a command waits
/// among strangers where an account is guessed at.
#[derive(Default, Serialize, Deserialize)]
struct Devices(BTreeMap<String, String>);

impl Devices {
    fn path() -> Option<PathBuf> {
        Some(session_path().ok()?.with_file_name("devices.json"))
    }

    fn load() -> Self {
        let text = Self::path().and_then(|path| fs::read(path).ok());
        text.and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    fn key(server: &str, account: &str) -> String {
        format!("{account} {}", server.trim_end_matches('/'))
    }

    fn of(&self, server: &str, account: &str) -> Option<&str> {
        self.0.get(&Self::key(server, account)).map(String::as_str)
    }

    /// A command does what it was asked for where this cannot be kept.
    fn keep(&mut self, server: &str, account: &str, device: &str) {
        let key = Self::key(server, account);
        if !self.0.contains_key(&key) && self.0.len() >= MOST_DEVICES {
            self.0.pop_first();
        }
        self.0.insert(key, device.to_owned());
        if let (Some(path), Ok(text)) = (Self::path(), serde_json::to_vec_pretty(&self)) {
            let _ = write_private(&path, &text);
        }
    }
}

/// The token of the kept session, if it is for `server` and has not expired.
pub fn kept_token(server: &str) -> Result<String, Failure> {
    let path = session_path()?;
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(not_signed_in("not signed in"));
        }
        Err(error) => return Err(Failure::Refused(format!("{}: {error}", path.display()))),
    };
    kept_token_in(&text, server, now_ms())
}

fn kept_token_in(text: &str, server: &str, now_ms: i64) -> Result<String, Failure> {
    let kept: KeptSession =
        serde_json::from_str(text).map_err(|_| not_signed_in("the session file is damaged"))?;
    if kept.server.trim_end_matches('/') != server.trim_end_matches('/') {
        return Err(not_signed_in(&format!(
            "the kept session is for {}, not for {server}",
            kept.server
        )));
    }
    if kept.expires_ms <= now_ms {
        return Err(not_signed_in("the session has expired"));
    }
    Ok(kept.token)
}

fn not_signed_in(why: &str) -> Failure {
    Failure::NotSignedIn(format!("{why}; sign in with: muster sign-in --account NAME"))
}

/// From the password file, MUSTER_PASSWORD, or a terminal, in this order.
pub fn password(access: &Access, account: &str) -> Result<String, Failure> {
    if let Some(path) = &access.password_file {
        let text = fs::read_to_string(path)
            .map_err(|error| Failure::Usage(format!("--password-file {}: {error}", path.display())))?;
        return Ok(text.lines().next().unwrap_or_default().to_owned());
    }
    if let Ok(password) = std::env::var("MUSTER_PASSWORD") {
        return Ok(password);
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "no password: give --password-file FILE or MUSTER_PASSWORD, or run on a terminal".to_owned(),
        ));
    }
    ask_password(account).map_err(|error| Failure::Refused(format!("cannot read the password: {error}")))
}

/// Reads a line from the terminal without showing it.
fn ask_password(account: &str) -> std::io::Result<String> {
    use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
    let input = std::io::stdin();
    eprint!("password of {account}: ");
    std::io::stderr().flush()?;
    let before = tcgetattr(&input)?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&input, SetArg::TCSANOW, &silent)?;
    let mut line = String::new();
    let read = input.read_line(&mut line);
    tcsetattr(&input, SetArg::TCSANOW, &before)?;
    eprintln!();
    read?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// `$XDG_CONFIG_HOME/muster/session.json`, or the same under `~/.config`.
fn session_path() -> Result<PathBuf, Failure> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let base = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    base.map(|base| base.join("muster/session.json"))
        .ok_or_else(|| Failure::Usage("neither XDG_CONFIG_HOME nor HOME is set: give --account".to_owned()))
}

/// Writes a file that only its owner can read; the folder is made if missing.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::Refused(format!("cannot write {}: {error}", path.display()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    // A new file each time: the mode of an old one would stay, and a reader never sees half of it.
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}", std::process::id()));
    let part = PathBuf::from(part);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)
        .map_err(failed)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    fs::rename(&part, path).map_err(failed)
}

pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: &str = r#"{"server":"http://a:1/","account":"duty","token":"t0ken","expires_ms":1000}"#;

    #[test]
    fn a_kept_session_is_for_its_server_and_its_time() {
        assert_eq!(kept_token_in(KEPT, "http://a:1", 999), Ok("t0ken".to_owned()));
        for (server, now, part) in [
            ("http://b:1", 999, "not for http://b:1"),
            ("http://a:1", 1000, "expired"),
        ] {
            match kept_token_in(KEPT, server, now) {
                Err(Failure::NotSignedIn(message)) => assert!(message.contains(part), "{message}"),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(
            kept_token_in("{", "http://a:1", 0),
            Err(Failure::NotSignedIn(_))
        ));
    }

    #[test]
    fn a_private_file_is_for_its_owner_only_even_if_it_was_open_before() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("deep/session.json");
        write_private(&path, b"one").expect("first write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        write_private(&path, b"two").expect("second write");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        assert_eq!(
            fs::metadata(&path).expect("metadata").permissions().mode() & 0o777,
            0o600
        );
    }
}
