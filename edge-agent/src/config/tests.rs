use super::*;

fn config(flags: &[&str]) -> Result<Config, ConfigError> {
    let args = [
        "muster-edge",
        "--control-plane",
        "cp:8443",
        "--identity",
        "/tmp/id",
    ]
    .iter()
    .chain(flags);
    Config::from_args(Args::try_parse_from(args).expect("flags"))
}

#[test]
fn sources_are_named_with_their_size() {
    assert_eq!("testcard".parse(), Ok(Source::TestCard(PictureSize::P180_5)));
    assert_eq!(
        "testcard:1080p30".parse(),
        Ok(Source::TestCard(PictureSize::P1080_30))
    );
    let source = "rtsps://user:secret@10.0.0.9/1";
    let error = source.parse::<Source>().expect_err(source);
    assert!(matches!(error, ConfigError::SourceNotYet(_)));
    assert!(error.to_string().contains("not in this version"));
    assert!(!error.to_string().contains("secret"));
    assert_eq!("page".parse(), Ok(Source::Page));
    assert_eq!("page:1".parse::<Source>(), Err(ConfigError::UnknownSource));
    assert_eq!("camera".parse::<Source>(), Err(ConfigError::UnknownSource));
    assert!(matches!(
        "testcard:4k".parse::<Source>(),
        Err(ConfigError::Size(_))
    ));
}

#[test]
fn a_network_camera_has_one_stream_or_two() {
    let both = [
        "--source",
        "rtsp://admin:hush@cam/1",
        "--source-low",
        "rtsp://admin:hush@cam:8554/2",
    ];
    let config = config(&both).expect("settings");
    let Source::Rtsp(streams) = &config.source else {
        panic!("another source")
    };
    let hosts: Vec<_> = streams.iter().map(CameraAddress::host).collect();
    assert_eq!(hosts, ["cam:8554", "cam:554"], "the smallest first");
    assert!(!format!("{config:?} {}", config.source).contains("hush"));
    let error = super::tests::config(&both[2..]).expect_err("no main stream");
    assert_eq!(error, ConfigError::NoSecondStream);
    let error = super::tests::config(&["--source", "rtsp:admin:hush@cam"]).expect_err("no address");
    assert!(!error.to_string().contains("hush"), "{error}");
}

#[test]
fn a_camera_at_the_box_is_captured_as_the_file_says() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("edge.toml");
    let told = |text: &str| {
        std::fs::write(&path, text).expect("written");
        config(&["--config", path.to_str().expect("a name")])
    };
    let text = "source = \"v4l2:/dev/video2\"\nmicrophone = \"hw:1\"\n[capture]\nsize = \"640x480\"\nfps = 15\nkbps = 800";
    let Source::Capture(capture) = told(text).expect("settings").source else {
        panic!("another source")
    };
    assert_eq!(
        (capture.width, capture.height, capture.fps, capture.kbps),
        (640, 480, 15, 800)
    );
    assert_eq!(capture.microphone.as_deref(), Some("hw:1"));
    for (wrong, says) in [
        ("source = \"v4l2:video0\"", "v4l2:/dev/videoN"),
        ("microphone = \"hw:1\"", "v4l2:/dev/videoN"),
        (
            "source = \"v4l2:/dev/video0\"\n[capture]\nsize = \"big\"",
            "capture.size: expected WIDTHxHEIGHT",
        ),
        (
            "source = \"v4l2:/dev/video0\"\n[capture]\nfps = 0",
            "capture.fps: expected 1 to 120",
        ),
        (
            "source = \"v4l2:/dev/video0\"\n[capture]\nframerate = 25",
            "framerate",
        ),
    ] {
        let error = told(wrong).expect_err(wrong).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_page_that_is_the_camera_is_served_where_a_browser_on_the_box_opens_it() {
    let with = |page: &str| config(&["--source", "page", "--page", page]);
    for page in [
        "127.0.0.1:8088",
        "127.0.0.2:8088",
        "0.0.0.0:80",
        "[::1]:80",
        "[::]:80",
    ] {
        assert!(with(page).is_ok(), "{page}");
    }
    for page in ["192.168.1.5:8088", "[fe80::1]:8088"] {
        assert_eq!(with(page).expect_err(page), ConfigError::PageNotHere);
        assert!(config(&["--page", page]).is_ok(), "with another source: {page}");
    }
    assert_eq!(with("off").expect_err("no page"), ConfigError::NoPage);
}

#[test]
fn flags_win_over_the_file_and_unknown_keys_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("edge.toml");
    let file = path.to_str().expect("a name");
    std::fs::write(
        &path,
        "source = \"testcard:360p15\"\nlog = \"debug\"\nutc_offset_minutes = 0",
    )
    .expect("written");
    let both = config(&["--config", file, "--source", "testcard:720p30"]).expect("settings");
    assert_eq!(both.source, Source::TestCard(PictureSize::P720_30));
    assert_eq!((both.log.as_str(), both.utc_offset_minutes), ("debug", 0));
    std::fs::write(&path, "sorce = \"testcard\"").expect("written");
    let error = config(&["--config", file])
        .expect_err("a misspelt key")
        .to_string();
    assert!(error.contains("sorce"), "{error}");
}

#[test]
fn an_error_in_the_file_names_its_line_and_no_secret() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("edge.toml");
    let check = |text: &str, flags: &[&str], says: &[&str]| {
        std::fs::write(&path, text).expect("written");
        let flags = [&["--config", path.to_str().expect("a name")], flags].concat();
        let error = config(&flags).expect_err(text).to_string();
        for words in says {
            assert!(error.contains(words), "{error}");
        }
        assert!(!error.contains("hush"), "{error}");
    };
    check(
        "log = \"info\"\n\nsorce = \"rtsp://a:hush@cam\"",
        &[],
        &["edge.toml: line 3: sorce", "unknown field `sorce`", "`source`"],
    );
    check("source = rtsp://a:hush@cam", &[], &["edge.toml: line 1: source"]);
    check(
        "log = \"info\"\nutc_offset_minutes = \"hush\"",
        &[],
        &["line 2: utc_offset_minutes", "expected i64"],
    );
    check(
        "log = \"info\"\nsource = \"camera:hush\"",
        &[],
        &["line 2: source", "expected testcard"],
    );
    check(
        "source = \"v4l2:/dev/video0\"\n[capture]\n fps = 999",
        &[],
        &["line 3: fps", "expected 1 to 120"],
    );
    check(
        "source_low = \"rtsp://a:hush@cam/2\"",
        &[],
        &["line 1: source_low"],
    );
    // The flag is at fault, not the file.
    std::fs::write(&path, "source = \"testcard\"").expect("written");
    let flags = ["--config", path.to_str().expect("a name"), "--source", "camera"];
    assert_eq!(config(&flags).err(), Some(ConfigError::UnknownSource));
}

#[test]
fn the_settings_that_are_printed_say_the_same_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("edge.toml");
    let flags = [
        "--source",
        "v4l2:/dev/video1",
        "--microphone",
        "hw:\"1",
        "--log",
        "debug",
    ];
    let told = config(&flags).expect("settings");
    std::fs::write(&path, told.to_toml()).expect("written");
    let args = Args::try_parse_from(["muster-edge", "--config", path.to_str().expect("a name")]);
    let again = Config::from_args(args.expect("flags")).expect("settings");
    assert_eq!(again.to_toml(), told.to_toml());
    assert_eq!(again.source, told.source);
}

#[test]
fn replicas_stand_in_one_text_in_several_flags_or_in_a_list() {
    let several = config(&["--control-plane", "b:1,cp:8443"]).expect("settings");
    assert_eq!(several.control_plane, ["cp:8443", "b:1"]);
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("edge.toml");
    for text in ["\"a:1, b:2\"", "[\"a:1\", \"b:2\"]"] {
        std::fs::write(&path, format!("identity_dir = \"x\"\ncontrol_plane = {text}")).expect("written");
        let flags = ["muster-edge", "--config", path.to_str().expect("a name")];
        let args = Args::try_parse_from(flags).expect("flags");
        let config = Config::from_args(args).expect("settings");
        assert_eq!(config.control_plane, ["a:1", "b:2"]);
    }
}

#[test]
fn the_page_is_for_this_box_alone_unless_told_otherwise() {
    let page = |flags: &[&str]| config(flags).map(|config| config.page);
    let default = page(&[]).expect("settings").expect("served");
    assert!(default.ip().is_loopback());
    assert_eq!(page(&["--page", "off"]), Ok(None));
    assert_eq!(page(&["--page", "0.0.0.0:80"]), Ok("0.0.0.0:80".parse().ok()));
    assert_eq!(page(&["--page", "localhost"]), Err(ConfigError::Page));
    assert_eq!(config(&[]).expect("settings").state_dir, Some("/tmp/id".into()));
    let elsewhere = config(&["--state", "/tmp/state"]).expect("settings");
    assert_eq!(elsewhere.state_dir, Some("/tmp/state".into()));
    let limits = elsewhere.recordings.expect("recorded");
    assert_eq!((limits.most, limits.keep_free), (2048 * MIB, 1024 * MIB));
    assert_eq!(recordings(Some(0), None).map(|limits| limits.is_none()), Ok(true));
}

#[test]
fn addresses_and_tokens_are_checked_at_once() {
    for address in ["cp", ":8443", "cp:0", "cp:x"] {
        let args = Args::try_parse_from(["muster-edge", "--control-plane", address, "--identity", "/tmp/id"]);
        assert_eq!(
            Config::from_args(args.expect("flags")).err(),
            Some(ConfigError::Address),
            "{address}"
        );
    }
    let error = config(&["--enrol-token", "met1.hush"])
        .expect_err("cut short")
        .to_string();
    assert!(
        error.contains("met1.SECRET") && !error.contains("hush"),
        "{error}"
    );
}

#[test]
fn uplinks_are_interfaces_by_name_in_their_order() {
    let config = |words: &[&str], file: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("edge.toml");
        let base = "control_plane = \"a:1\"\nidentity_dir = \"/i\"\n";
        std::fs::write(&path, format!("{base}{file}\n")).expect("written");
        let path = path.display().to_string();
        let all = [&["muster-edge", "--config", path.as_str()], words].concat();
        Config::from_args(Args::try_parse_from(all).expect("flags"))
    };
    let uplinks = |words: &[&str], file: &str| config(words, file).expect("good").uplinks;
    assert_eq!(uplinks(&[], ""), [""; 0]);
    assert_eq!(uplinks(&[], "uplink = [\"eth0\", \"wwan0\"]"), ["eth0", "wwan0"]);
    assert_eq!(uplinks(&[], "uplink = \"eth0\""), ["eth0"]);
    let flags = ["--uplink", "wwan0", "--uplink", "eth0"];
    assert_eq!(
        uplinks(&flags, "uplink = \"eth1\""),
        ["wwan0", "eth0"],
        "flags win"
    );
    assert!(
        config(&flags, "")
            .expect("good")
            .to_toml()
            .contains("uplink = [\"wwan0\", \"eth0\"]")
    );
    for bad in ["an-interface-with-a-long-name", "a/b", ""] {
        let error = config(&[], &format!("uplink = [\"{bad}\"]"))
            .expect_err("refused")
            .to_string();
        assert!(error.contains("line 3: uplink"), "{error}");
    }
    let twice = config(&["--uplink", "eth0", "--uplink", "eth0"], "").expect_err("refused");
    assert!(twice.to_string().contains("each once"), "{twice}");
}

#[test]
fn the_source_page_needs_the_page() {
    let one = config(&["--source", "page"]).expect("settings");
    assert_eq!(one.source, Source::Page);
    assert!(one.to_toml().contains("source = \"page\""));
    let off = config(&["--source", "page", "--page", "off"]).expect_err("no page");
    assert_eq!(off, ConfigError::NoPage);
    assert!(off.to_string().contains("instead of off"), "{off}");
    let low = config(&["--source", "page", "--source-low", "rtsp://cam/2"]).expect_err("one camera");
    assert_eq!(low, ConfigError::NoSecondStream);
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("edge.toml");
    std::fs::write(&path, "source = \"page\"\npage = \"off\"").expect("written");
    let error = config(&["--config", path.to_str().expect("a name")]).expect_err("no page");
    assert!(error.to_string().contains("line 2: page: "), "{error}");
}

#[test]
fn what_is_out_of_range_is_refused_and_not_made_to_fit() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("edge.toml");
    let told = |text: &str| {
        std::fs::write(&path, format!("source = \"testcard\"\n{text}\n")).expect("written");
        config(&["--config", path.to_str().expect("a name")])
    };
    for (text, says) in [
        (
            "utc_offset_minutes = 841",
            "utc_offset_minutes: found `841`, expected -720 to 840",
        ),
        (
            "utc_offset_minutes = -721",
            "utc_offset_minutes: found `-721`, expected -720",
        ),
        (
            "utc_offset_minutes = 4294967776",
            "utc_offset_minutes: found `4294967776`, expected",
        ),
        (
            "recordings_mib = 16777217",
            "recordings_mib: found `16777217`, expected 0 to 16777216",
        ),
        (
            "recordings_mib = 9223372036854775807",
            "recordings_mib: found `9223372036854775807`, expected",
        ),
        ("recordings_mib = -1", "recordings_mib: found `-1`, expected 0"),
        (
            "keep_free_mib = 99999999",
            "keep_free_mib: found `99999999`, expected 0",
        ),
        (
            "log = \"===\"",
            "log: found `===`, expected off, error, warn, info",
        ),
        ("log = \"inof\"", "log: found `inof`, expected off"),
        (
            "log = \"muster_edge=loud\"",
            "log: found `muster_edge=loud`, expected off",
        ),
    ] {
        let error = told(text).expect_err(text).to_string();
        assert!(error.contains(&format!("edge.toml: line 2: {says}")), "{error}");
    }
    for (text, offset, most) in [
        ("utc_offset_minutes = -720\nrecordings_mib = 1", -720, 1),
        (
            "utc_offset_minutes = 840\nrecordings_mib = 16777216",
            840,
            16_777_216,
        ),
    ] {
        let config = told(text).expect(text);
        let limits = config.recordings.expect("recorded");
        assert_eq!((config.utc_offset_minutes, limits.most), (offset, most * MIB));
    }
    // The flag is at fault, not the file, which is good.
    std::fs::write(&path, "log = \"info\"").expect("written");
    let flags = ["--config", path.to_str().expect("a name"), "--log", "==="];
    let error = config(&flags).expect_err("no filter").to_string();
    assert!(error.starts_with("log: found `===`, expected off"), "{error}");
    for good in [
        "off",
        "WARN",
        "info,rtc=error,webrtc=error",
        "muster_edge=debug",
        "[span]=trace",
    ] {
        assert_eq!(config(&["--log", good]).expect(good).log, good);
    }
}
