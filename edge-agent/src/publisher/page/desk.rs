//! Where the page's server, the driver of its connection and the agent meet: orders one way, what is wanted of the
//! browser the other.
//!
//! Every queue is bounded and nobody waits in it: what does not fit is refused with a word. One browser is served at a
//! time; each has a number, and whoever comes with another one is told that it is over.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

/// Offers and words that wait for the driver.
const ORDERS: usize = 16;
/// Packets for the page that wait for the driver: a second of 5 Mbit/s.
const SHOWN: usize = 512;
/// For an answer to an offer.
const PATIENCE: Duration = Duration::from_secs(3);
/// A question about what is wanted is answered after this, changed or not.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Layers of the browser's camera.
pub const LAYERS: usize = 2;

/// Why a browser is not served: a word for the page, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotServed {
    pub word: &'static str,
    pub expected: String,
}

impl NotServed {
    pub fn new(word: &'static str, expected: impl Into<String>) -> Self {
        let expected = expected.into();
        Self { word, expected }
    }
}

/// The answer to an offer.
#[derive(Clone, Debug, Serialize)]
pub struct Served {
    pub sdp: String,
    /// Names the connection in everything that the page says later.
    pub session: u64,
    /// Of [`Wanted`] since it is served: what an earlier version says is of before.
    pub version: u64,
}

/// What the page says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    pub session: u64,
    pub camera: Device,
    pub microphone: Device,
    /// Pixels of the camera's picture; 0 if unknown.
    pub width: u32,
    pub height: u32,
    /// Pixels in which the stage is shown.
    pub stage_width: u32,
    pub stage_height: u32,
}

/// A camera or a microphone as the browser finds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    On,
    /// Being opened.
    #[default]
    Asking,
    Missing,
    /// Another program has it.
    Busy,
    /// The person or the browser's settings do not allow it.
    Denied,
}

/// What is wanted of the browser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Wanted {
    /// Changes with everything else.
    pub version: u64,
    /// Of the browser that is served; 0: none is.
    pub session: u64,
    /// Whether each layer of the camera is to be sent, the smallest first.
    pub layers: [bool; LAYERS],
}

/// What the driver is to do.
#[derive(Debug)]
pub enum Order {
    Offer {
        sdp: String,
        /// Where the page was reached, and so where its media is taken.
        at: IpAddr,
        answer: oneshot::Sender<Result<Served, NotServed>>,
    },
    Words(Words),
    /// Of a layer of the camera.
    KeyFrame(usize),
}

/// A packet of a slot, as it came over the link.
#[derive(Debug)]
pub struct Shown {
    /// Place of the slot in the join: the stage, then the sound.
    pub slot: usize,
    /// Of the leg at the relay.
    pub leg: u64,
    pub packet: Bytes,
}

/// The desk's public side; clones are the same desk.
#[derive(Clone, Debug)]
pub struct Desk {
    orders: mpsc::Sender<Order>,
    shown: mpsc::Sender<Shown>,
    wanted: watch::Sender<Wanted>,
}

/// What the driver takes from.
#[derive(Debug)]
pub struct DriverEnd {
    pub orders: mpsc::Receiver<Order>,
    pub shown: mpsc::Receiver<Shown>,
    pub desk: Desk,
}

impl Desk {
    pub fn open() -> (Self, DriverEnd) {
        let (orders, orders_end) = mpsc::channel(ORDERS);
        let (shown, shown_end) = mpsc::channel(SHOWN);
        let desk = Self {
            orders,
            shown,
            // Anywhere, so that a page notices that the agent was started again.
            wanted: watch::Sender::new(Wanted {
                version: rand::random::<u32>().into(),
                ..Wanted::default()
            }),
        };
        let end = DriverEnd {
            orders: orders_end,
            shown: shown_end,
            desk: desk.clone(),
        };
        (desk, end)
    }

    /// Connects a browser with this offer; the one before is told that it is over.
    ///
    /// # Errors
    /// [`NotServed`]: the offer is of no use, or the agent is not ready.
    pub async fn offer(&self, sdp: String, at: IpAddr) -> Result<Served, NotServed> {
        let starting = || NotServed::new("starting", "an agent that is ready: try again in a moment");
        let (answer, answered) = oneshot::channel();
        self.order(Order::Offer { sdp, at, answer })?;
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(served)) => served,
            Ok(Err(_)) | Err(_) => Err(starting()),
        }
    }

    /// Takes what the page says.
    ///
    /// # Errors
    /// [`NotServed`]: another browser is served by now, or none.
    pub fn say(&self, words: Words) -> Result<(), NotServed> {
        if words.session == 0 || words.session != self.wanted().session {
            return Err(NotServed::new("over", "the number of the present session"));
        }
        self.order(Order::Words(words))
    }

    /// Asks the browser for a key frame of a layer.
    pub fn ask_key_frame(&self, layer: usize) {
        // Where the queue is full somebody asks again.
        let _ = self.orders.try_send(Order::KeyFrame(layer));
    }

    fn order(&self, order: Order) -> Result<(), NotServed> {
        self.orders
            .try_send(order)
            .map_err(|_| NotServed::new("busy", "fewer requests at once"))
    }

    /// Hands a packet of a slot on to the page. `false`: there is no room for it.
    pub fn show(&self, shown: Shown) -> bool {
        self.shown.try_send(shown).is_ok()
    }

    pub fn wanted(&self) -> Wanted {
        *self.wanted.borrow()
    }

    /// What is wanted, as soon as it is not what this version said any more, or after a while.
    pub async fn wanted_after(&self, version: u64) -> Wanted {
        let mut wanted = self.wanted.subscribe();
        let changed = wanted.wait_for(|wanted| wanted.version != version);
        let _ = tokio::time::timeout(LONGEST_WAIT, changed).await;
        *wanted.borrow()
    }

    pub fn want_layers(&self, layers: [bool; LAYERS]) {
        self.change(|wanted| wanted.layers = layers);
    }

    pub fn serve(&self, session: u64) {
        self.change(|wanted| wanted.session = session);
    }

    fn change(&self, change: impl FnOnce(&mut Wanted)) {
        self.wanted.send_if_modified(|wanted| {
            let before = *wanted;
            change(wanted);
            let changed = *wanted != before;
            wanted.version += u64::from(changed);
            changed
        });
    }
}
