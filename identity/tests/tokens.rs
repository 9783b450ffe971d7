//! Join tokens: what a relay takes and what it refuses.

use muster_identity::{Authority, JoinClaims, TOKEN_VALID_S, TokenError, TokenVerifier};

const NOW: i64 = 1_800_000_000;

fn authority() -> (tempfile::TempDir, Authority) {
    let dir = tempfile::tempdir().expect("temp dir");
    let authority = Authority::load_or_create(dir.path()).expect("authority");
    (dir, authority)
}

#[test]
fn a_token_is_taken_until_it_expires() {
    let (_dir, authority) = authority();
    let claims = JoinClaims::new("m1", "WH-S01", false, true, NOW);
    let token = authority
        .token_signer()
        .expect("signer")
        .sign(&claims)
        .expect("token");
    let verifier = TokenVerifier::from_pem(&authority.token_key_pem()).expect("verifier");
    assert_eq!(verifier.verify(&token, NOW), Ok(claims.clone()));
    assert_eq!(verifier.verify(&token, NOW + TOKEN_VALID_S - 1), Ok(claims));
    assert_eq!(
        verifier.verify(&token, NOW + TOKEN_VALID_S),
        Err(TokenError::Expired)
    );
}

#[test]
fn a_token_of_another_authority_or_an_altered_one_is_refused() {
    let (_dir, authority) = authority();
    let (_other_dir, other) = self::authority();
    let claims = JoinClaims::new("m1", "WH-S01", false, true, NOW);
    let token = other
        .token_signer()
        .expect("signer")
        .sign(&claims)
        .expect("token");
    let verifier = TokenVerifier::from_pem(&authority.token_key_pem()).expect("verifier");
    assert_eq!(verifier.verify(&token, NOW), Err(TokenError::Invalid));

    let good = authority
        .token_signer()
        .expect("signer")
        .sign(&claims)
        .expect("token");
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(bytes).expect("ascii");
        // The last character of a base64 part may carry unused bits; all else must break the token.
        if verifier.verify(&altered, NOW).is_ok() {
            panic!("altering character {at} went unnoticed");
        }
    }
    for junk in ["", ".", "..", "a.b.c", &"x".repeat(100_000)] {
        assert_eq!(verifier.verify(junk, NOW), Err(TokenError::Invalid));
    }
}

#[test]
fn two_tokens_never_share_their_number() {
    let a = JoinClaims::new("m1", "WH-S01", false, true, NOW);
    let b = JoinClaims::new("m1", "WH-S01", false, true, NOW);
    assert_ne!(a.jti, b.jti);
}

#[test]
fn an_authority_survives_a_restart_and_a_half_written_start() {
    let dir = tempfile::tempdir().expect("temp dir");
    std::fs::write(dir.path().join("ca-key.pem"), "half").expect("write");
    let first = Authority::load_or_create(dir.path()).expect("new");
    let second = Authority::load_or_create(dir.path()).expect("loaded");
    assert_eq!(first.fingerprint(), second.fingerprint());
    assert_eq!(first.token_key_pem(), second.token_key_pem());
    std::fs::remove_file(dir.path().join("ca-key.pem")).expect("remove");
    let error = Authority::load_or_create(dir.path()).err().expect("refused");
    assert!(
        error.to_string().contains("restore them from a backup"),
        "{error}"
    );
}
