//! Who may speak to a leg: connectivity checks, consent, and the handshake with either end as its
//! client.

use super::*;

#[test]
fn a_client_with_another_certificate_is_refused() {
    let mut c = Client::new(&[7], false);
    c.check(&[]).expect("answered");
    c.drive();
    assert_eq!(c.closed(), Some(CloseReason::HandshakeFailed));
    assert!(!c.leg.is_connected());
}

#[test]
fn a_client_without_our_profiles_is_refused() {
    let mut c = Client::new(&[8], true);
    c.check(&[]).expect("answered");
    c.drive();
    assert_eq!(c.closed(), Some(CloseReason::HandshakeFailed));
}

#[test]
fn keys_are_for_gcm_where_the_peer_has_it_whoever_says_hello() {
    for setup in ["active", "passive"] {
        for (offered, chosen) in [
            (&[1, 7][..], Profile::AeadAes128Gcm),
            (&[7, 1], Profile::AeadAes128Gcm),
            (&[2, 1], Profile::Aes128CmHmacSha1_80),
        ] {
            let mut c = Client::with_setup(offered, true, setup);
            c.check(&[ATTR_USE_CANDIDATE]).expect("answered");
            c.drive();
            assert_eq!(c.events, [LegEvent::Connected], "{setup} {offered:?}");
            assert_eq!(c.profile, Some(chosen), "{setup} {offered:?}");
            assert_eq!(c.leg.srtp_profile(), Some(chosen));
            let mut lo = c.packet(10, "lo", 5, b"x");
            assert_eq!(c.give(&mut lo), Ok(Some((0, 0, 5))));
        }
    }
}

#[test]
fn a_server_with_another_certificate_or_other_profiles_is_refused() {
    for (profiles, honest) in [(&[7][..], false), (&[8], true)] {
        let mut c = Client::with_setup(profiles, honest, "passive");
        assert!(c.leg.poll_transmit().is_none(), "not before the path is known");
        c.check(&[]).expect("answered");
        c.drive();
        assert!(!c.leg.is_connected());
        assert_eq!(c.closed(), Some(CloseReason::HandshakeFailed), "{profiles:?}");
    }
}

#[test]
fn authentic_media_shows_that_the_peer_is_there() {
    let mut c = Client::connected(&[7]);
    for seq in 0..4 {
        c.wait(9000 * MS);
        let mut packet = c.packet(10, "lo", seq, b"x");
        c.give(&mut packet).expect("taken");
        assert!(c.give(&mut packet).is_err(), "not once more");
    }
    c.wait(9999 * MS);
    assert_eq!(c.closed(), None);
    let mut forged = vec![0x80; 60];
    assert!(c.give(&mut forged).is_err());
    c.wait(MS);
    assert_eq!(c.closed(), Some(CloseReason::TimedOut));
}

#[test]
fn only_the_right_password_opens_an_address() {
    let mut c = Client::new(&[7], true);
    let ufrag = c.leg.local_ufrag().to_owned();
    let wrong = Err(Ignored::StunWrongCredentials);
    assert_eq!(c.give(&mut stun(&ufrag, "guess", &[])), wrong);
    let pwd = c.pwd.clone();
    assert_eq!(c.give(&mut stun("other", &pwd, &[])), wrong);
    assert_eq!(c.give(&mut [22, 0xfe, 0xfd, 0, 0]), Err(Ignored::UnknownAddress));
    assert_eq!(c.leg.tables().addresses, 0);
    assert_eq!(stun_ufrag(&stun(&ufrag, "guess", &[])), Some(&ufrag[..]));
    assert!(c.check(&[]).is_ok());
    assert_eq!(c.leg.remote_address(), Some(c.address));
}

#[test]
fn a_peer_in_the_controlled_role_is_told_of_the_conflict() {
    let mut c = Client::new(&[7], true);
    c.check(&[ATTR_ICE_CONTROLLED]).expect("answered");
    let answer = c.leg.poll_transmit().expect("an answer").data;
    let mut m = Message::new();
    m.unmarshal_binary(&answer).expect("well-formed");
    let code: Vec<&RawAttribute> = m.attributes.0.iter().filter(|a| a.typ.0 == 9).collect();
    assert_eq!(code[0].value[2..4], [4, 87]);
    assert_eq!(c.leg.tables().addresses, 0);
}

#[test]
fn media_follows_the_nomination_and_the_restart() {
    let mut c = Client::connected(&[7]);
    c.address = address(2);
    c.check(&[]).expect("answered");
    assert_eq!(c.leg.remote_address(), Some(address(1)), "not nominated");
    c.check(&[ATTR_USE_CANDIDATE]).expect("answered");
    assert_eq!(c.leg.remote_address(), Some(address(2)));

    let (old_ufrag, old_pwd) = (c.leg.local_ufrag().to_owned(), c.pwd.clone());
    let new = c.leg.restart_ice("abcd");
    assert_ne!(new.ufrag, old_ufrag);
    assert!(
        c.give(&mut stun(&old_ufrag, &old_pwd, &[])).is_ok(),
        "until the new are used"
    );
    c.address = address(3);
    assert!(c.give(&mut stun(&new.ufrag, &new.pwd, &[])).is_ok());
    assert_eq!(c.leg.remote_address(), Some(address(3)));
    let wrong = Err(Ignored::StunWrongCredentials);
    assert_eq!(c.give(&mut stun(&old_ufrag, &old_pwd, &[])), wrong);
}

#[test]
fn a_check_sent_again_from_elsewhere_moves_no_media() {
    let mut c = Client::connected(&[7]);
    let overheard = stun(c.leg.local_ufrag(), &c.pwd, &[ATTR_USE_CANDIDATE]);
    c.give(&mut overheard.clone()).expect("answered");
    c.give(&mut overheard.clone())
        .expect("answered again: the answer may be lost");
    c.address = address(66);
    assert_eq!(c.give(&mut overheard.clone()), Err(Ignored::StunReplayed));
    assert_eq!(c.leg.remote_address(), Some(address(1)));
    assert_eq!(c.leg.tables().addresses, 1);
}

#[test]
fn a_check_sent_again_brings_back_no_old_address_and_renews_no_consent() {
    let mut c = Client::connected(&[7]);
    let old = stun(c.leg.local_ufrag(), &c.pwd, &[ATTR_USE_CANDIDATE]);
    c.give(&mut old.clone()).expect("answered");
    c.address = address(2);
    c.check(&[ATTR_USE_CANDIDATE]).expect("answered");
    c.wait(9000 * MS);
    c.address = address(1);
    c.give(&mut old.clone()).expect("answered");
    assert_eq!(c.leg.remote_address(), Some(address(2)));
    c.wait(1000 * MS);
    assert_eq!(c.closed(), Some(CloseReason::TimedOut));
}

#[test]
fn consent_lasts_ten_seconds() {
    let mut c = Client::connected(&[7]);
    for _ in 0..5 {
        c.wait(9000 * MS);
        c.check(&[]).expect("answered");
    }
    assert_eq!(c.closed(), None);
    c.wait(10_000 * MS);
    assert_eq!(c.closed(), Some(CloseReason::TimedOut));
    assert_eq!(c.leg.poll_timeout(), None);
    assert_eq!(c.check(&[]), Err(Ignored::Closed));
}

#[test]
fn either_side_may_hang_up() {
    let mut c = Client::connected(&[7]);
    c.dtls.close(c.now).expect("close_notify");
    c.drive();
    assert_eq!(c.closed(), Some(CloseReason::HungUp));

    let mut c = Client::connected(&[7]);
    c.leg.close(c.now);
    assert_eq!(c.leg.poll_transmit().map(|t| t.data[0]), Some(21), "an alert");
    c.drive();
    assert_eq!(c.closed(), Some(CloseReason::ClosedHere));
}

#[test]
fn a_lost_flight_is_sent_again() {
    let mut c = Client::new(&[7], true);
    c.check(&[]).expect("answered");
    while c.leg.poll_transmit().is_some() {}
    // Up to the server's certificate flight, which is lost.
    for _ in 0..2 {
        while let Some(t) = c.dtls.poll_transmit() {
            let _ = c.give(&mut t.message.to_vec());
        }
        let flight: Vec<Transmit> = std::iter::from_fn(|| c.leg.poll_transmit()).collect();
        let hello_verify = flight.len() == 1 && flight[0].data.len() < 100;
        if hello_verify {
            c.hear_dtls(&flight[0].data);
        }
    }
    assert!(!c.leg.is_connected());
    let due = c.leg.poll_timeout().expect("open") - c.now;
    assert!(due <= 500 * MS, "{due:?}");
    c.wait(due);
    assert!(c.leg.is_connected());
}
