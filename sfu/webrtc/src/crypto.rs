//! The one crypto back end: aws-lc-rs behind the webrtc-rs provider trait.

use std::sync::{Arc, LazyLock};

use rtc_dtls::crypto_provider::RTCCryptoProvider;

static PROVIDER: LazyLock<Arc<dyn RTCCryptoProvider>> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "fails only when no back end is compiled in")]
    rtc_dtls::crypto_provider::default_provider().expect("aws-lc-rs is compiled in")
});

/// Stateless: key-less primitives and the generator that DTLS draws from.
pub(crate) fn provider() -> &'static Arc<dyn RTCCryptoProvider> {
    &PROVIDER
}
