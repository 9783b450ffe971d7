use crate::support::{EASTLAKE, Fixture, SMALL, small, start_in};
use muster_control_plane::{Bootstrap, Config, ControlPlane};
use muster_proto::command::v1 as pb;

async fn listed(fixture: &Fixture) -> pb::ListSitesResponse {
    let person = fixture.person().await;
    let answer = person
        .directory()
        .list_sites(person.request(pb::ListSitesRequest {}))
        .await;
    answer.expect("listed").into_inner()
}

#[tokio::test]
async fn the_same_file_again_changes_nothing() {
    let fixture = small().await;
    let person = fixture.person().await;
    let again = person.import(SMALL.as_bytes()).await.expect("imported");
    assert_eq!(
        again,
        pb::ImportSitesResponse {
            unchanged: 8,
            ..Default::default()
        }
    );
    let windows = format!("\u{feff}{}", SMALL.replace('\n', "\r\n"));
    let again = person.import(windows.as_bytes()).await.expect("imported");
    assert_eq!(
        again,
        pb::ImportSitesResponse {
            unchanged: 8,
            ..Default::default()
        }
    );
    let tree = listed(&fixture).await;
    assert_eq!(
        (tree.units.len(), tree.sites.len(), tree.presence.len()),
        (3, 5, 5)
    );
}

#[tokio::test]
async fn one_bad_line_keeps_the_whole_file_out() {
    let fixture = small().await;
    let person = fixture.person().await;
    let bad = "C,unit,street,D,丙街,Street C,30.5,114.4,,existing\nC1,site,street,C,丙一,C one,300,114.4,pigeon,new\n";
    let answer = person
        .import(format!("{SMALL}{bad}").as_bytes())
        .await
        .expect("answered");
    let named: Vec<_> = answer
        .errors
        .iter()
        .map(|error| (error.line, error.column.as_str()))
        .collect();
    assert_eq!(named, [(11, "access"), (11, "lat")]);
    assert_eq!(answer.errors[0].found, "pigeon");
    assert!(answer.errors[0].expected.contains("satellite"), "{answer:?}");
    assert_eq!(
        listed(&fixture).await.units.len(),
        3,
        "not even the good line came in"
    );
}

#[tokio::test]
async fn a_file_that_is_not_utf_8_is_named_as_such() {
    let fixture = small().await;
    let person = fixture.person().await;
    let answer = person
        .import(b"external_id,kind\nX,\xce\xe4\n")
        .await
        .expect("answered");
    assert_eq!(answer.errors.len(), 1);
    assert_eq!(answer.errors[0].line, 2);
    assert!(answer.errors[0].expected.contains("UTF-8"));
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let fixture = small().await;
    let person = fixture.person().await;
    let csv = SMALL.replace("A one", "A first").into_bytes();
    let message = pb::ImportSitesRequest { csv, dry_run: true };
    let answer = person
        .directory()
        .import_sites(person.request(message))
        .await
        .expect("planned")
        .into_inner();
    assert_eq!((answer.sites_changed, answer.unchanged), (1, 7));
    assert!(
        listed(&fixture)
            .await
            .sites
            .iter()
            .all(|site| site.name_en != "A first")
    );
}

#[tokio::test]
async fn the_real_tree_outlives_a_restart() {
    let dir = tempfile::tempdir().expect("folder");
    let bootstrap = Bootstrap {
        account: crate::support::ACCOUNT.into(),
        password: crate::support::PASSWORD.into(),
        role: pb::Role::Commander,
        unit: "WH".into(),
    };
    let config = Config {
        bootstrap: Some(bootstrap),
        ..Config::local(dir.path())
    };
    let control_plane = ControlPlane::start(config.clone()).await.expect("started");
    let fixture = Fixture { control_plane, dir };
    let answer = fixture.person().await.import(EASTLAKE).await.expect("imported");
    assert_eq!(answer.errors, []);
    assert_eq!(answer.sites_added, 140);
    let before = listed(&fixture).await;
    let Fixture { control_plane, dir } = fixture;
    control_plane.shutdown().await;
    let control_plane = ControlPlane::start(config).await.expect("started again");
    let after = listed(&Fixture { control_plane, dir }).await;
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_port_in_use_is_told_in_one_line() {
    let dir = tempfile::tempdir().expect("folder");
    let first = start_in(dir.path()).await;
    let other = tempfile::tempdir().expect("folder");
    let config = Config {
        listen: first.addr(),
        ..Config::local(other.path())
    };
    let error = ControlPlane::start(config).await.err().expect("refused");
    assert!(error.to_string().contains("--listen"), "{error}");
}
