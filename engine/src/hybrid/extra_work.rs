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
    /// Letting the strategy remember how the weights moved, in Warmup and Full: one pair, not for a strategy that does not
    /// predict.
    Memory,
    /// Deciding: phases, gate, forecaster, guard. Two pairs in every step, before and after the passes.
    Decisions,
}

impl ExtraWork {
    /// What vanilla training would not do in a Warmup or Full step, which is a vanilla one but for that.
    pub const BEYOND_VANILLA: [Self; 2] = [Self::ErrorNorms, Self::Memory];
}
