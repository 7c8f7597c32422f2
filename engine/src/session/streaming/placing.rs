//! Where a streamed training computes, and what it takes there.

use crate::device::{ComputeDevice, GpuBudget, Placement, usable_gpus};
use crate::memory::format_bytes;
use crate::models::Network;
use crate::offload::{OffloadPlan, Precision};
use crate::session::{RunConfig, SessionError, planning};

/// A device that is settled, with the plan for it.
pub(super) struct Placed {
    /// Never [`ComputeDevice::Auto`].
    pub(super) device: ComputeDevice,
    pub(super) plan: OffloadPlan,
    /// Why it is this device, where the recipe left that open.
    pub(super) why: Option<String>,
}

/// Settles the recipe's device by its GPU's share, as for a run in memory. A plan that does not fit is the caller's to refuse.
/// Errors: a GPU that cannot be used; a model of images.
pub(super) fn place(
    config: &RunConfig,
    network: &Network,
    dataset_bytes: u64,
    precision: Precision,
) -> Result<Placed, SessionError> {
    let planned = |gpu: Option<GpuBudget>| {
        planning::streamed(config, network, (dataset_bytes, gpu), precision).ok_or_else(|| {
            let what =
                "streaming trains language models; expected a gpt2 or llama model, found one of images".to_owned();
            SessionError::Recipe { what }
        })
    };
    let (device, why) = match config.device {
        ComputeDevice::Cpu | ComputeDevice::Cuda(_) => (config.device, None),
        ComputeDevice::Auto => {
            let unbounded = GpuBudget { bytes: u64::MAX, source: String::new() };
            let needed_bytes = planned(Some(unbounded))?.gpu.map_or(u64::MAX, |gpu| gpu.total_bytes());
            let needs = (needed_bytes, config.vram_limit_bytes);
            let Placement { device, why } =
                Placement::choose(usable_gpus(), needs, format_bytes, planning::starter(config));
            (device, Some(why))
        }
    };
    planning::check_precision(config, device, why.as_deref())?;
    let budget = match device {
        ComputeDevice::Cpu | ComputeDevice::Auto => None,
        ComputeDevice::Cuda(index) => {
            let gpu = planning::gpu_for(config, index)?;
            Some(GpuBudget::of(&gpu, config.vram_limit_bytes, format_bytes))
        }
    };
    Ok(Placed { device, plan: planned(budget)?, why })
}

/// Errors: the plan of the machine's memory, or of a GPU's, that does not fit.
pub(super) fn check(plan: &OffloadPlan) -> Result<(), SessionError> {
    match plan.over() {
        Some(over) => Err(SessionError::Memory { plan: Box::new(over.clone()) }),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::data::DatasetSpec;
    use crate::device::has_cuda;
    use crate::models::DataShape;
    use crate::models::ops;
    use crate::session::{recipe, tier};

    fn config(device: ComputeDevice) -> (RunConfig, Network) {
        let recipe = recipe("grammar-gpt2-char").unwrap();
        let config = recipe.run_config(&tier("vanilla").unwrap(), DatasetSpec::Grammar).unwrap();
        let network = Network::new(&config.model.fitted_to(DataShape::Text { vocab_size: 30 }).unwrap()).unwrap();
        (RunConfig { device, ..config }, network)
    }

    fn placed(config: &RunConfig, network: &Network) -> Result<Placed, SessionError> {
        place(config, network, 0, Precision::Compact)
    }

    #[test]
    fn auto_is_settled_and_says_why() {
        let (auto, network) = config(ComputeDevice::Auto);
        let found = placed(&auto, &network).unwrap();
        assert!(found.device != ComputeDevice::Auto && found.why.is_some());
        assert_eq!(found.plan.gpu.is_some(), found.device != ComputeDevice::Cpu);
        // A GPU with no room is none.
        let found = placed(&RunConfig { vram_limit_bytes: 1 << 20, ..auto.clone() }, &network).unwrap();
        assert!(found.device == ComputeDevice::Cpu && found.why.unwrap().contains("Computing on the processor"));
        // Products in bf16 are a GPU's, or the processor's where it has them.
        match placed(&RunConfig { precision: ops::Precision::Bf16, ..auto }, &network) {
            Ok(found) => assert!(found.device != ComputeDevice::Cpu || ops::Precision::Bf16.missing().is_none()),
            Err(error) => assert!(error.to_string().contains("precision bf16"), "{error}"),
        }
        let (named, network) = config(ComputeDevice::Cpu);
        let found = placed(&named, &network).unwrap();
        assert_eq!((found.device, found.why, found.plan.gpu), (ComputeDevice::Cpu, None, None));
    }

    #[test]
    fn a_gpu_that_is_named_is_never_replaced() {
        let (named, network) = config(ComputeDevice::Cuda(4096));
        let error = placed(&named, &network).err().unwrap().to_string();
        assert!(error.contains("GPU 4096") && error.contains("--device cpu"), "{error}");
        assert!(has_cuda() || error.contains("packaging/cuda/build"), "{error}");
    }

    #[test]
    fn a_share_that_does_not_fit_is_refused_with_its_figures() {
        let (config, network) = config(ComputeDevice::Cpu);
        let budget = |bytes| GpuBudget { bytes, source: "what is free of a GPU".to_owned() };
        let planned = |gpu| planning::streamed(&config, &network, (0, Some(gpu)), Precision::Compact).unwrap();
        let ample = planned(budget(u64::MAX));
        assert!(check(&ample).is_ok());
        let needs = ample.gpu.unwrap().total_bytes();
        let SessionError::Memory { plan } = check(&planned(budget(needs - 1))).unwrap_err() else {
            panic!("expected a plan that does not fit")
        };
        assert!(plan.budget_source.contains("GPU") && plan.total_bytes() == needs);
        assert!(plan.remedies.iter().any(|remedy| remedy.what.contains("or the processor")), "{:?}", plan.remedies);
    }
}
