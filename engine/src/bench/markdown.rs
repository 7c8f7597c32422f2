//! A measurement as a page: a function of the result alone.

use std::fmt::Write as _;

use super::{CaseSpeed, PeerOutcome, TrainSpeed, TurnTimes};

impl TrainSpeed {
    /// The tables in Markdown, without a heading.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut page);
        page
    }

    fn write(&self, page: &mut String) -> std::fmt::Result {
        let machine = &self.machine;
        writeln!(
            page,
            "{}, {} threads at once, {}, {}; {} compute threads, products in {}; {} rounds in turns of {} s; medians of the rounds' \
             medians, with the least and the most.\n",
            if machine.processor.is_empty() { "Unnamed processor" } else { &machine.processor },
            machine.num_cores,
            machine.vector_instructions,
            machine.system,
            self.num_threads,
            self.precision.label(),
            self.rounds,
            self.seconds_per_turn,
        )?;
        writeln!(
            page,
            "| model | batch | full step, ms | a second | forward pass, ms | forwards in the time of a step |"
        )?;
        writeln!(page, "| --- | --- | --- | --- | --- | --- |")?;
        for case in &self.cases {
            writeln!(
                page,
                "| {}, {:.2}M | {} | {} | {:.0} {} | {} | {:.1} |",
                case.model.label(),
                case.num_params as f64 / 1e6,
                batch(case.size),
                times(&case.step),
                case.examples_per_second(),
                case.model.unit(),
                times(&case.forward),
                case.forward_speedup(),
            )?;
        }
        self.write_peers(page)?;
        self.write_scaling(page)
    }

    fn write_peers(&self, page: &mut String) -> std::fmt::Result {
        let Some(version) = &self.torch else { return Ok(()) };
        writeln!(
            page,
            "\nPyTorch {version}, the same weights, batch and threads, fused AdamW, gradients clipped likewise. A ratio is \
             PyTorch's time over ours within a round: above 1, ours is faster.\n"
        )?;
        writeln!(page, "| model | PyTorch | full step, ms | ours, ms | ratio | by processor time |")?;
        writeln!(page, "| --- | --- | --- | --- | --- | --- |")?;
        for case in &self.cases {
            for peer in &case.peers {
                write!(page, "| {} | {} | ", case.model.label(), peer.variant.label())?;
                match &peer.outcome {
                    PeerOutcome::Measured { step, ratio, ratio_least, ratio_most, .. } => writeln!(
                        page,
                        "{} | {:.1} | {ratio:.2} ({ratio_least:.2} to {ratio_most:.2}) | {} |",
                        times(step),
                        case.step.median_ms,
                        processor_ratio(step, &case.step),
                    )?,
                    PeerOutcome::Unavailable(why) => writeln!(page, "not to be had: {why} | | | |")?,
                }
            }
        }
        Ok(())
    }

    fn write_scaling(&self, page: &mut String) -> std::fmt::Result {
        writeln!(
            page,
            "\nA full step by the size of its batch: time grows in step with it where the last column stays level.\n"
        )?;
        writeln!(page, "| model | batch | full step, ms | µs for each token or image |")?;
        writeln!(page, "| --- | --- | --- | --- |")?;
        for case in &self.cases {
            let whole = super::ScalePoint { size: case.size, step: case.step };
            for point in case.scaling.iter().chain([&whole]) {
                let each = point.step.median_ms * 1e3 / point.size.examples() as f64;
                writeln!(
                    page,
                    "| {} | {} | {} | {each:.1} |",
                    case.model.label(),
                    batch(point.size),
                    times(&point.step)
                )?;
            }
        }
        Ok(())
    }

    /// The slowest and the fastest of the ratios against PyTorch computing in the way called `variant`, with their
    /// models; `None` when none was measured.
    #[must_use]
    pub fn ratio_range(&self, variant: super::TorchVariant) -> Option<[(&'static str, f64); 2]> {
        let ratio = |case: &CaseSpeed| {
            let peer = case.peers.iter().find(|peer| peer.variant == variant)?;
            match peer.outcome {
                PeerOutcome::Measured { ratio, .. } => Some((case.model.label(), ratio)),
                PeerOutcome::Unavailable(_) => None,
            }
        };
        let ratios = || self.cases.iter().filter_map(ratio);
        let by_ratio = |a: &(&str, f64), b: &(&str, f64)| a.1.total_cmp(&b.1);
        Some([ratios().min_by(by_ratio)?, ratios().max_by(by_ratio)?])
    }
}

fn batch(size: super::BenchSize) -> String {
    if size.tokens > 0 { format!("{} x {}", size.batch, size.tokens) } else { size.batch.to_string() }
}

fn times(times: &TurnTimes) -> String {
    format!("{:.1} ({:.1} to {:.1})", times.median_ms, times.least_ms, times.most_ms)
}

fn processor_ratio(theirs: &TurnTimes, ours: &TurnTimes) -> String {
    match theirs.processor_ms.zip(ours.processor_ms) {
        Some((theirs, ours)) if ours > 0.0 => format!("{:.2}", theirs / ours),
        _ => String::new(),
    }
}
