//! What a comparison of growth says, in figures and in words.

use serde::{Deserialize, Serialize};

use super::words::{compared, interval};
use super::{Estimate, GrowthResult, TrialResult};

/// What the comparison says; ratios are seed by seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GrowthSummary {
    /// Half depth's loss over full depth's, both given the time that growing takes: above 1, depth matters.
    pub depth_ratio: Option<Estimate>,
    /// Share of floating-point operations that growing saves against as many steps at full depth.
    pub flops_saved: Option<f64>,
    /// Share of measured training time that it saved against them.
    pub time_saved: Option<Estimate>,
    /// Its loss over theirs: 1.02 is 2% worse.
    pub loss_ratio: Option<Estimate>,
    /// Its loss over that of full depth given the same time.
    pub loss_ratio_full: Option<Estimate>,
    /// Its loss over that of half depth given the same time.
    pub loss_ratio_half: Option<Estimate>,
    /// Its loss over that of growing by random blocks.
    pub loss_ratio_random: Option<Estimate>,
    /// Measured training time of full depth, half depth (same time) and growing by random blocks over its own: 1 if the
    /// match came out.
    pub time_ratios: [Option<Estimate>; 3],
}

/// The three controls, in the order of [`GrowthSummary::time_ratios`].
const CONTROLS: [&str; 3] = ["full depth in the same time", "half depth in the same time", "growing by random blocks"];

impl GrowthResult {
    /// What the figures say.
    #[must_use]
    pub fn summary(&self) -> GrowthSummary {
        let pairs = |a: usize, b: usize, figure: &dyn Fn(&TrialResult) -> f64| -> Vec<(f64, f64)> {
            let of = |index: usize| self.results.get(index).into_iter().flatten().map(figure);
            of(a).zip(of(b)).collect()
        };
        let loss = |result: &TrialResult| result.held_out().loss;
        let seconds = |result: &TrialResult| result.seconds;
        let loss_over = |other: usize| Estimate::of_ratio(&pairs(Self::GROWN, other, &loss));
        let shares = pairs(Self::GROWN, Self::FULL_SAME_STEPS, &seconds);
        let shares: Vec<f64> = shares.into_iter().map(|(grown, full)| 1.0 - grown / full).collect();
        let flops = self.flops.get(Self::GROWN).zip(self.flops.get(Self::FULL_SAME_STEPS));
        let controls = [Self::FULL_SAME_TIME, Self::HALF_SAME_TIME, Self::GROWN_RANDOM];
        GrowthSummary {
            depth_ratio: Estimate::of_ratio(&pairs(Self::HALF_SAME_TIME, Self::FULL_SAME_TIME, &loss)),
            flops_saved: flops.map(|(grown, full)| 1.0 - grown / full),
            time_saved: Estimate::of(&shares),
            loss_ratio: loss_over(Self::FULL_SAME_STEPS),
            loss_ratio_full: loss_over(Self::FULL_SAME_TIME),
            loss_ratio_half: loss_over(Self::HALF_SAME_TIME),
            loss_ratio_random: loss_over(Self::GROWN_RANDOM),
            time_ratios: controls.map(|control| Estimate::of_ratio(&pairs(control, Self::GROWN, &seconds))),
        }
    }

    /// The verdict in words, with its uncertainty.
    #[must_use]
    pub fn verdict(&self) -> String {
        self.summary().verdict()
    }
}

impl GrowthSummary {
    /// Loss ratios against the three controls, in the order of [`Self::time_ratios`].
    #[must_use]
    pub fn controls(&self) -> [Option<Estimate>; 3] {
        [self.loss_ratio_full, self.loss_ratio_half, self.loss_ratio_random]
    }

    /// True when the loss of growing by copies lies below that of each control, with the whole 95% interval.
    #[must_use]
    pub fn beats_all(&self) -> bool {
        self.controls().iter().all(|ratio| ratio.is_some_and(|ratio| ratio.is_below(1.0)))
    }

    /// One sentence for each question, as far as it was measured, and what follows.
    #[must_use]
    pub fn verdict(&self) -> String {
        let mut sentences = Vec::new();
        if let (Some(flops), Some(time), Some(ratio)) = (self.flops_saved, self.time_saved, self.loss_ratio) {
            sentences.push(format!(
                "Growing by copies saves {:.1}% of the operations and {} of the training time of as many steps at full depth.",
                100.0 * flops,
                interval(&time, 100.0, 1, "%")
            ));
            sentences.push(compared("Its loss is", &ratio, "theirs"));
        }
        for (ratio, control) in self.controls().iter().zip(CONTROLS) {
            sentences.extend(
                ratio.map(|ratio| compared(&format!("Against {control} its loss is"), &ratio, "what that reaches")),
            );
        }
        if let Some(ratio) = self.depth_ratio {
            sentences.push(compared("Given that time, half depth's loss is", &ratio, "full depth's"));
        }
        sentences.push(self.conclusion());
        sentences.join(" ")
    }

    /// What follows from the intervals.
    fn conclusion(&self) -> String {
        let Some(depth) = self.depth_ratio.filter(|_| self.controls().iter().all(Option::is_some)) else {
            return "A contender diverged, so nothing follows.".to_owned();
        };
        if depth.interval.is_none() {
            return "One seed has no interval, so nothing follows.".to_owned();
        }
        let beaten = |is_beaten: bool| -> String {
            let controls = self.controls().into_iter().zip(CONTROLS);
            let named = controls.filter(|(ratio, _)| ratio.is_some_and(|ratio| ratio.is_below(1.0)) == is_beaten);
            named.map(|(_, name)| name).collect::<Vec<_>>().join(", ")
        };
        let mut conclusion = if self.beats_all() {
            "So growing by copies beats all three controls.".to_owned()
        } else if beaten(true).is_empty() {
            "So growing by copies beats none of its three controls.".to_owned()
        } else {
            format!("So growing by copies beats {}, but not {}.", beaten(true), beaten(false))
        };
        if !depth.is_above(1.0) {
            conclusion.push_str(
                " Half depth does not clearly lose here, so this text cannot show what growing is worth to a deep network.",
            );
        }
        conclusion
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::{GrowthResult, literal};

    #[test]
    fn ratios_are_seed_by_seed_against_each_control() {
        let summary = literal::growth().summary();
        assert!((summary.loss_ratio.unwrap().mean - 1.25).abs() < 1e-12);
        assert!((summary.loss_ratio_full.unwrap().mean - 0.8).abs() < 1e-3);
        assert!((summary.depth_ratio.unwrap().mean - 1.25).abs() < 1e-3);
        assert!((summary.time_saved.unwrap().mean - 0.5).abs() < 1e-12);
        let [full, half, random] = summary.time_ratios.map(|ratio| ratio.unwrap().mean);
        assert!((full - 1.0).abs() < 1e-12 && (half - 1.0).abs() < 1e-12 && (random - 1.0).abs() < 1e-12);
        assert!(summary.flops_saved.is_some_and(|saved| (0.2..0.4).contains(&saved)), "{:?}", summary.flops_saved);
    }

    #[test]
    fn beating_all_controls_takes_each_whole_interval() {
        let result = literal::growth();
        assert!(result.summary().beats_all());
        let verdict = result.verdict();
        assert!(verdict.ends_with("So growing by copies beats all three controls."), "{verdict}");
        assert!(verdict.contains("Given that time, half depth's loss is 25.0% higher than full depth's"), "{verdict}");

        let mut mixed = result.clone();
        for (trial, loss) in mixed.results[GrowthResult::GROWN_RANDOM].iter_mut().zip([0.09, 0.3]) {
            trial.validation.loss = loss;
        }
        let verdict = mixed.verdict();
        assert!(!mixed.summary().beats_all());
        let expected = "So growing by copies beats full depth in the same time, half depth in the same time, but not growing \
                        by random blocks.";
        assert!(verdict.ends_with(expected), "{verdict}");

        let mut shallow = result;
        shallow.results[GrowthResult::HALF_SAME_TIME] = shallow.results[GrowthResult::GROWN].clone();
        let verdict = shallow.verdict();
        assert!(verdict.contains("but not half depth") && verdict.contains("cannot show"), "{verdict}");
    }

    #[test]
    fn one_seed_and_a_divergence_conclude_nothing() {
        let mut one = literal::growth();
        one.results.iter_mut().for_each(|results| results.truncate(1));
        assert!(one.verdict().ends_with("nothing follows.") && !one.summary().beats_all(), "{}", one.verdict());
        let mut diverged = literal::growth();
        diverged.results[GrowthResult::GROWN_RANDOM][0].validation.loss = f64::NAN;
        assert!(diverged.verdict().ends_with("A contender diverged, so nothing follows."), "{}", diverged.verdict());
    }
}
