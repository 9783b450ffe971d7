//! A database server that is there and does not answer one call: another connection holds a table. The call is given up at its
//! deadline with a clear error, what needs other tables goes on meanwhile, and all of it does afterwards.

use crate::servers::Postgres;
use crate::support::{Person, small_with};
use muster_control_plane::store::{Append, ChainHead, NewEvent, Store, StoreError};
use muster_proto::command::v1 as pb;
use pb::watch_response::Event as Watched;
use sqlx::{Connection as _, PgConnection};
use std::time::{Duration, Instant};
use tonic::Code;

/// A usual call's deadline, and as much again as a busy machine may take to tell.
const USUAL: Duration = Duration::from_secs(3);
const TOLD: Duration = Duration::from_millis(4500);
/// After so long the server itself gives up a statement that waits for a lock.
const LOCK: Duration = Duration::from_secs(5);
/// Heartbeats come each second.
const SILENCE: Duration = Duration::from_millis(2500);

/// A connection of a stranger that lets nobody read or write a table until it is dropped.
struct Held(PgConnection);

impl Held {
    async fn table(url: &str, table: &'static str) -> Self {
        let mut connection = PgConnection::connect(url).await.expect("connected");
        for statement in ["BEGIN", &format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
                .execute(&mut connection)
                .await
                .expect("locked");
        }
        Self(connection)
    }

    async fn release(mut self) {
        sqlx::raw_sql("ROLLBACK")
            .execute(&mut self.0)
            .await
            .expect("released");
        self.0.close().await.expect("closed");
    }
}

fn next(head: ChainHead) -> Append {
    let event = NewEvent {
        seq: head.seq + 1,
        at_ms: 5,
        actor: "wang".into(),
        payload: b"noted".to_vec(),
    };
    Append {
        meeting: "m1".into(),
        head,
        events: vec![event],
        ..Append::default()
    }
}

async fn timed<T>(call: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    (call.await, began.elapsed())
}

/// The words of a call that was given up.
fn given_up<T: std::fmt::Debug>(call: (Result<T, StoreError>, Duration)) -> (String, Duration) {
    match call {
        (Err(StoreError::Unavailable(words)), took) => (words, took),
        (answer, took) => panic!("after {took:?}: {answer:?}"),
    }
}

#[tokio::test]
async fn a_call_that_hangs_is_given_up_at_its_deadline_and_the_store_goes_on() {
    let server = Postgres::start();
    let url = server.database();
    let store = Store::connect(&url).await.expect("connected");
    let head = store.append(&next(ChainHead::default())).await.expect("stored");
    let held = Held::table(&url, "events").await;
    let append = next(head);
    let (write, read, long, (other, other_took)) = tokio::join!(
        timed(store.append(&append)),
        timed(store.head("m1")),
        timed(store.streams()),
        timed(store.accounts()),
    );
    println!("write {write:?}, read {read:?}, of whole tables {long:?}, of another table {other_took:?}");
    for (words, took) in [given_up(write), given_up(read)] {
        assert_eq!(words, "the database does not answer");
        assert!(took >= USUAL && took < TOLD, "{took:?}");
    }
    // A call that may take longer is refused by the server before its own deadline.
    let (words, took) = given_up(long);
    assert!(words.contains("lock timeout"), "{words}");
    assert!(took >= LOCK && took < LOCK + TOLD, "{took:?}");
    assert!(other.expect("another table").is_empty());
    assert!(other_took < USUAL, "{other_took:?}");
    assert!(!store.health().is_ok(), "it is known that the store is away");

    held.release().await;
    assert_eq!(
        store.head("m1").await.expect("read"),
        head,
        "nothing of it is there"
    );
    let appended = store.append(&append).await.expect("taken");
    assert_eq!(appended.seq, head.seq + 1);
    store.close().await;
}

async fn meetings(person: &Person) -> Vec<pb::Meeting> {
    let request = person.request(pb::ListMeetingsRequest { include_ended: true });
    let listed = person.meetings().list_meetings(request).await;
    listed.expect("listed").into_inner().meetings
}

/// Follows until `over` ends: there is no silence. How many messages came.
async fn follow<T>(
    stream: &mut tonic::Streaming<pb::WatchResponse>,
    over: impl Future<Output = T>,
) -> (T, usize) {
    tokio::pin!(over);
    let mut beats = 0;
    loop {
        tokio::select! {
            answer = &mut over => return (answer, beats),
            message = tokio::time::timeout(SILENCE, stream.message()) => {
                let message = message.expect("no silence").expect("it goes on").expect("it has not ended");
                beats += usize::from(matches!(message.event, Some(Watched::Heartbeat(_))));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_table_is_held_is_refused_in_words_and_the_control_plane_goes_on() {
    let server = Postgres::start();
    let url = server.database();
    let dir = tempfile::tempdir().expect("folder");
    let control = small_with(dir, |config| {
        config.database_url = Some(muster_control_plane::service_url::parse(&url).expect("an address"));
    })
    .await;
    let person = control.person().await;
    let before = person.convene(&["A1"]).await.expect("convened");
    let mut stream = person.watch(Vec::new()).await;

    let held = Held::table(&url, "events").await;
    let refused = async { timed(person.convene(&["A2"])).await };
    let ((refused, took), beats) = follow(&mut stream, refused).await;
    let refused = refused.expect_err("refused");
    println!("refused after {took:?}: {refused}; {beats} heartbeats meanwhile");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(
        refused
            .message()
            .contains("the store is not available: the database does not answer"),
        "{refused}"
    );
    assert!(took >= USUAL && took < TOLD, "{took:?}");
    assert!(beats >= 2, "watchers hear on: {beats}");
    // Who signs in meanwhile needs another table.
    let (newcomer, took) = timed(control.person()).await;
    assert!(took < USUAL, "{took:?}");
    assert_eq!(meetings(&newcomer).await.len(), 1);

    held.release().await;
    let began = Instant::now();
    let after = loop {
        match person.convene(&["A2"]).await {
            Ok(meeting) => break meeting,
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
                assert!(began.elapsed() < LOCK * 2, "{status}");
            }
        }
    };
    println!("convenes again after {:?}", began.elapsed());
    assert_eq!(
        meetings(&person).await.len(),
        2,
        "nothing that was refused is there"
    );
    for meeting in [before, after] {
        person.end(&meeting.id).await;
    }
}
