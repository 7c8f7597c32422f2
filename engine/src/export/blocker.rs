//! Why a target cannot take a model: shown beside the disabled button, before the click.

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// What does not go together: "needs 14.2 GB, the target has 8.0 GB".
    pub what: String,
    /// A way out: "Choose ternary".
    pub remedy: String,
}
