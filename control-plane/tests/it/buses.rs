//! One suite on both networks of replicas: what the one in process does, NATS does.

use crate::servers::Nats;
use bytes::Bytes;
use muster_control_plane::bus::{Hub, Message, Network, Subject, Trouble, connect};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(30);

fn text(n: u32) -> Bytes {
    Bytes::from(n.to_string())
}

async fn next(receiver: &mut mpsc::Receiver<Message>) -> Message {
    tokio::time::timeout(PATIENCE, receiver.recv())
        .await
        .expect("a message in time")
        .expect("not over")
}

async fn until(network: &Arc<dyn Network>, connected: bool) {
    let mut state = network.state();
    tokio::time::timeout(PATIENCE, state.wait_for(|now| *now == connected))
        .await
        .expect("in time")
        .expect("not over");
}

/// Publishes until the other has heard once: a subscription takes effect some time after it was made.
async fn meet(from: &Arc<dyn Network>, to: &mut mpsc::Receiver<Message>) {
    let began = Instant::now();
    loop {
        from.publish(Subject::Replicas, Bytes::from_static(b"there?"));
        if tokio::time::timeout(Duration::from_millis(50), to.recv())
            .await
            .is_ok()
        {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "they never meet");
    }
    // What was published more than once may come late.
    while tokio::time::timeout(Duration::from_millis(100), to.recv())
        .await
        .is_ok()
    {}
}

async fn others_hear_it_once_and_in_order_and_oneself_never(places: [Arc<dyn Network>; 3]) {
    for place in &places {
        until(place, true).await;
    }
    let [a, b, c] = places;
    let (mut at_a, mut at_b, mut at_c) = (a.subscribe(), b.subscribe(), c.subscribe());
    meet(&a, &mut at_b).await;
    meet(&a, &mut at_c).await;
    while at_b.try_recv().is_ok() {}
    for n in 0..500 {
        a.publish(Subject::Stored, text(n));
    }
    for receiver in [&mut at_b, &mut at_c] {
        for n in 0..500 {
            let message = next(receiver).await;
            assert_eq!((message.subject, message.payload), (Subject::Stored, text(n)));
        }
    }
    assert!(at_a.try_recv().is_err(), "nobody hears oneself");
}

async fn who_does_not_read_keeps_nobody_from_it(places: [Arc<dyn Network>; 3]) {
    for place in &places {
        until(place, true).await;
    }
    let [a, b, _c] = places;
    let _asleep = b.subscribe();
    let mut awake = b.subscribe();
    meet(&a, &mut awake).await;
    for n in 0..20_000 {
        a.publish(Subject::Stored, text(n));
        if n % 1000 == 999 {
            // What the sender has queued goes out.
            while next(&mut awake).await.payload != text(n) {}
        }
    }
}

#[tokio::test]
async fn in_process_others_hear_it() {
    let hub = Hub::new(1);
    others_hear_it_once_and_in_order_and_oneself_never([hub.join(), hub.join(), hub.join()]).await;
    let hub = Hub::new(1);
    who_does_not_read_keeps_nobody_from_it([hub.join(), hub.join(), hub.join()]).await;
}

async fn three(server: &Nats) -> [Arc<dyn Network>; 3] {
    let place = async || connect(&server.url(), "test", None).await.expect("an address");
    [place().await, place().await, place().await]
}

#[tokio::test]
async fn over_nats_others_hear_it() {
    let server = Nats::start();
    others_hear_it_once_and_in_order_and_oneself_never(three(&server).await).await;
    who_does_not_read_keeps_nobody_from_it(three(&server).await).await;
}

#[tokio::test]
async fn a_bus_that_was_away_is_used_again_by_itself() {
    let mut server = Nats::start();
    let [a, b, _c] = three(&server).await;
    let mut at_b = b.subscribe();
    until(&a, true).await;
    until(&b, true).await;
    meet(&a, &mut at_b).await;
    server.kill();
    until(&a, false).await;
    until(&b, false).await;
    a.publish(Subject::Stored, Bytes::from_static(b"told to nobody"));
    server.resume();
    let began = Instant::now();
    until(&a, true).await;
    until(&b, true).await;
    println!("connected again after {:?}", began.elapsed());
    meet(&a, &mut at_b).await;
    a.publish(Subject::Stored, text(7));
    assert_eq!(
        next(&mut at_b).await.payload,
        text(7),
        "what is old is not told late"
    );
}

#[tokio::test]
async fn a_bus_that_is_away_at_the_start_is_dialled_until_it_is_there() {
    let mut server = Nats::start();
    server.kill();
    let network = connect(&server.url(), "test", None).await.expect("an address");
    assert!(!*network.state().borrow());
    server.resume();
    until(&network, true).await;
}

#[tokio::test]
async fn a_bus_with_accounts_and_tls_is_for_those_who_have_both() {
    let dir = tempfile::tempdir().expect("folder");
    let authority = muster_identity::Authority::load_or_create(&dir.path().join("ca")).expect("a CA");
    let files = authority
        .kept_server_certificate(dir.path(), &["127.0.0.1".to_owned()])
        .expect("made");
    let shown = |path: &std::path::Path| path.display().to_string();
    let flags = [
        ["--user", "muster", "--pass", "p@ss:word"]
            .map(str::to_owned)
            .to_vec(),
        vec!["--tls".to_owned(), "--tlscert".to_owned(), shown(&files.cert)],
        vec!["--tlskey".to_owned(), shown(&files.key)],
    ];
    let server = Nats::start_with(flags.concat());
    let ca = dir.path().join("ca/ca.pem");
    let address = |scheme: &str, account: &str| format!("{scheme}://{account}127.0.0.1:{}", server.port());
    let right = address("tls", "muster:p%40ss%3Aword@");
    let wrong = [
        connect(&address("tls", "muster:wrong@"), "test", Some(&ca)).await,
        connect(&address("tls", ""), "test", Some(&ca)).await,
        connect(&right, "test", None).await,
    ];
    let a = connect(&right, "test", Some(&ca)).await.expect("an address");
    let b = connect(&right, "test", Some(&ca)).await.expect("an address");
    until(&a, true).await;
    until(&b, true).await;
    meet(&a, &mut b.subscribe()).await;
    for network in wrong {
        assert!(!*network.expect("an address").state().borrow());
    }
    assert!(connect("nowhere at all", "test", None).await.is_err());
}

#[tokio::test]
async fn trouble_is_the_same_of_the_same_seed() {
    let heard = async |seed: u64| {
        let hub = Hub::new(seed);
        hub.set_trouble(Trouble {
            lost: 300,
            doubled: 300,
            ..Trouble::default()
        });
        let (a, b) = (hub.join(), hub.join());
        let mut at_b = b.subscribe();
        for n in 0..100 {
            a.publish(Subject::Stored, text(n));
        }
        let mut heard = Vec::new();
        while let Ok(message) = at_b.try_recv() {
            heard.push(message.payload);
        }
        heard
    };
    let first = heard(5).await;
    assert_eq!(first, heard(5).await);
    assert_ne!(first, heard(6).await);
    assert!(first.len() < 100 + 30 && first.len() > 50, "{}", first.len());
}
