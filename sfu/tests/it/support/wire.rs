//! A wire between two UDP ports that can be cut.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Whoever sends to `address` reaches the far port, and is answered, while the wire is whole.
pub struct Wire {
    pub address: SocketAddr,
    cut: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    pub async fn to(far: SocketAddr) -> Self {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
        let address = near.local_addr().expect("bound");
        let cut = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(carry(near, far, cut.clone()));
        Self { address, cut, task }
    }

    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}

async fn carry(near: Arc<UdpSocket>, far: SocketAddr, cut: Arc<AtomicBool>) {
    let mut back: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut answers = tokio::task::JoinSet::new();
    let mut buffer = vec![0; 65_536];
    while let Ok((length, from)) = near.recv_from(&mut buffer).await {
        if cut.load(Ordering::Relaxed) {
            continue;
        }
        let socket = match back.get(&from) {
            Some(socket) => socket.clone(),
            None => {
                let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
                socket.connect(far).await.expect("connected");
                back.insert(from, socket.clone());
                answers.spawn(answer(near.clone(), from, socket.clone(), cut.clone()));
                socket
            }
        };
        // What the far side refuses is lost, as on any wire.
        let _ = socket.send(&buffer[..length]).await;
    }
}

async fn answer(near: Arc<UdpSocket>, to: SocketAddr, from: Arc<UdpSocket>, cut: Arc<AtomicBool>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok(length) = from.recv(&mut buffer).await else {
            continue;
        };
        if !cut.load(Ordering::Relaxed) {
            let _ = near.send_to(&buffer[..length], to).await;
        }
    }
}
