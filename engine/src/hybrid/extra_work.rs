//! What a step does that vanilla training would not: marked, so that whoever holds a clock can take its time out.

/// A mark around work that vanilla training would not do, in a step that otherwise does what vanilla does: measuring
/// error norms for the gate, in Warmup and Full. Marks come in pairs, one for each micro-batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtraWork {
    /// It begins now.
    Begins,
    /// It is done.
    Ends,
}
