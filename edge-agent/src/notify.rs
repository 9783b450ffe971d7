//! What systemd is told of the agent (sd_notify): that it runs, that its loop is alive, and in a few words where it is.
//!
//! One datagram to the socket that the environment names; no library. A loop that hangs tells nothing, and the unit's
//! watchdog starts the agent anew. Outside systemd nothing is sent. It never waits and never fails the agent.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;

/// The way to the one who started the agent.
#[derive(Clone, Debug)]
pub struct Notifier(Arc<UnixDatagram>);

impl Notifier {
    /// Out of `NOTIFY_SOCKET`; none where nobody listens.
    pub fn from_environment() -> Option<Self> {
        let name = std::env::var_os("NOTIFY_SOCKET")?;
        Self::connect(&name)
            .inspect_err(|error| tracing::warn!(%error, "cannot tell systemd that the agent runs"))
            .ok()
    }

    /// To a socket by its path, or by its abstract name after an `@`.
    ///
    /// # Errors
    /// What the system says, if there is no such socket.
    pub fn connect(name: &OsString) -> std::io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&address)?;
        Ok(Self(Arc::new(socket)))
    }

    /// The agent has begun its work.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The loop is alive, and this is where it is (one line).
    pub fn alive(&self, words: &str) {
        let line = words.replace(['\n', '\r'], " ");
        self.tell(&format!("WATCHDOG=1\nSTATUS={line}"));
    }

    /// The agent ends in good order.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, words: &str) {
        if let Err(error) = self.0.send(words.as_bytes()) {
            tracing::debug!(%error, "systemd was not told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_may_be_a_file_or_a_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let name = format!("muster-edge-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).expect("a name");
        for (socket, told) in [
            (UnixDatagram::bind(&path), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&abstract_name), format!("@{name}").into()),
        ] {
            let socket = socket.expect("bound");
            let notifier = Notifier::connect(&told).expect("connected");
            notifier.ready();
            notifier.alive("on air\nREADY=1");
            let mut heard = [0; 100];
            let length = socket.recv(&mut heard).expect("heard");
            assert_eq!(&heard[..length], b"READY=1");
            let length = socket.recv(&mut heard).expect("heard");
            assert_eq!(&heard[..length], b"WATCHDOG=1\nSTATUS=on air READY=1");
        }
        assert!(Notifier::connect(&folder.path().join("none").into_os_string()).is_err());
    }
}
