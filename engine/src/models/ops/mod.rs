//! Differentiable operations of our own, where candle has none or a slow one.
