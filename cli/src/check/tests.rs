//! Judgements.
