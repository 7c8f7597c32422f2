//! Marks around parts of a step whose time somebody may want: whoever holds a clock can take it.

/// A mark: a part of a step begins or ends now. Marks come in pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It begins.
    Begins(ExtraWork),
    /// It is done.
    Ends(ExtraWork),
}

/// A part of a step beyond passes and update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtraWork {
    /// Measuring error norms for the gate, in Warmup and Full, which otherwise do what vanilla training does: a pair for
    /// each micro-batch.
    ErrorNorms,
    /// Deciding: phases, gate, forecaster, guard. Two pairs in every step, before and after the passes.
    Decisions,
}
