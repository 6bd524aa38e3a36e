//! Fuzz target `scenario`: a scenario file.

use mainstay_sim::Scenario;

/// Whether it is a scenario that could be run.
pub fn check(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    if let Err(error) = Scenario::parse("example", text) {
        assert!(error.to_string().starts_with("scenario example"), "the scenario is not named: {error}");
        return false;
    }
    // A key that nobody knows is refused: what is misspelt would not be tested.
    assert!(Scenario::parse("example", &format!("zz_novelty = 1\n{text}")).is_err());
    true
}
