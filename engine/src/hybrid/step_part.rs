//! Marks around parts of a step whose time somebody may want: whoever holds a clock can take it.

/// A mark: a part of a step begins or ends now. Marks come in pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It begins.
    Begins(StepPart),
    /// It is done.
    Ends(StepPart),
}

/// A part of a step beside its passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepPart {
    /// Measuring error norms for the gate, in Warmup and Full, which otherwise do what vanilla training does: a pair for
    /// each micro-batch.
    ErrorNorms,
    /// Letting the strategy remember how the weights moved, in Warmup and Full: one pair, not for a strategy that does not
    /// predict.
    Memory,
    /// Deciding: phases, gate, forecaster, guard. Two pairs in every step, before and after the passes.
    Decisions,
    /// Moving the weights: a pair around norm and clipping of the gradient in every step, one around the optimizer and what
    /// follows the weights in every step that diverged not.
    Update,
}

impl StepPart {
    /// What vanilla training would not do in a Warmup or Full step, which is a vanilla one but for that.
    pub const BEYOND_VANILLA: [Self; 2] = [Self::ErrorNorms, Self::Memory];
}

/// `work` between a pair of marks.
pub(super) fn marked<T>(mark: &dyn Fn(Mark), part: StepPart, work: impl FnOnce() -> T) -> T {
    mark(Mark::Begins(part));
    let done = work();
    mark(Mark::Ends(part));
    done
}
