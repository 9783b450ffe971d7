//! Reading an SDP offer.

/// What is wrong with an offer: the line (1-based; 0 for the whole), and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offer line {line}: expected {expected}")]
pub struct OfferError {
    /// 1-based line of the offer; 0 where the offer as a whole is meant.
    pub line: usize,
    /// What was expected there.
    pub expected: String,
}
