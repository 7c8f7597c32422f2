//! GPUs in the window: which to compute on, its memory, what it says without one.

use egui_kittest::kittest::{NodeT, Queryable};
use foretrain::state::{Machine, Screen};
use foretrain::theme::ThemeChoice;
use foretrain_engine::device::{ComputeDevice, Gpu, GpuReading};
use foretrain_engine::optim::StatePlace;
use foretrain_engine::session::{Command, RunSnapshot, RunStatus};

use crate::scene::{self, Window, click, commands};

const GIB: u64 = 1 << 30;

fn settings(device: ComputeDevice) -> Window {
    let mut harness = scene::window(ThemeChoice::Light);
    let saved = harness.state_mut().saved_mut();
    (saved.screen, saved.settings.device) = (Screen::Settings, device);
    harness.run();
    harness
}

#[test]
fn without_a_gpu_the_settings_say_why() {
    let harness = settings(ComputeDevice::Cpu);
    harness.get_by_label("No GPU: a machine for tests has no GPU.");
    assert!(harness.query_by_label("GPU limit").is_none());
}

#[test]
fn a_gpu_that_was_chosen_elsewhere_is_named_as_missing() {
    let harness = settings(ComputeDevice::Cuda(1));
    assert!(harness.query_all_by_value("GPU 1, which is not there").next().is_some(), "it can be taken back");
}

#[test]
fn the_chosen_device_and_its_limit_are_the_next_run_s() {
    let mut harness = scene::window(ThemeChoice::Dark);
    let gpu = Gpu {
        index: 0,
        name: "A model".to_owned(),
        total_bytes: 8 * GIB,
        free_bytes: 7 * GIB,
        uuid: String::new(),
        compute_capability: None,
    };
    harness.state_mut().live_mut().machine = Machine { gpus: Ok(vec![gpu]), ..Machine::default() };
    let settings = &mut harness.state_mut().saved_mut().settings;
    (settings.device, settings.vram_limit_bytes) = (ComputeDevice::Cuda(0), 6 * GIB);
    harness.run();
    click(&mut harness, "Start training");
    let sent = commands(&mut harness);
    let [Command::Start(_, config)] = sent.as_slice() else { panic!("expected Start, found {sent:?}") };
    assert_eq!((config.device, config.vram_limit_bytes), (ComputeDevice::Cuda(0), 6 * GIB));
    // On the processor the limit means nothing, and the recipe does not carry it.
    harness.state_mut().saved_mut().settings.device = ComputeDevice::Cpu;
    let draft = harness.state().saved().draft.clone().unwrap();
    let config = draft.run_config(&harness.state().saved().settings).unwrap();
    assert_eq!((config.device, config.vram_limit_bytes), (ComputeDevice::Cpu, 0));
}

#[test]
fn the_gauge_tells_this_program_from_others() {
    let mut run = scene::snapshot(300, RunStatus::Training);
    let mut config = scene::config();
    (config.device, config.vram_limit_bytes) = (ComputeDevice::Cuda(1), 4 * GIB);
    run.config = config.into();
    let mut gauges = run.gauges.take().unwrap();
    gauges.gpus = vec![GpuReading {
        index: 1,
        name: "A model".to_owned(),
        used_bytes: 5 * GIB,
        own_bytes: 2 * GIB,
        total_bytes: 8 * GIB,
        load: 0.7,
        temperature_c: Some(61),
        power_w: Some(118.4),
    }];
    let harness = scene::window_with(RunSnapshot { gauges: Some(gauges), ..run }, ThemeChoice::Dark);
    for text in ["A model", "61 °C", "118 W", "Planned for the run"] {
        assert!(harness.query_all_by_label_contains(text).next().is_some(), "expected {text:?}");
    }
}

#[test]
fn moments_can_be_kept_in_host_memory_where_a_gpu_may_compute() {
    let window = |device: ComputeDevice| {
        let mut harness = scene::window(ThemeChoice::Dark);
        let settings = &mut harness.state_mut().saved_mut().settings;
        (settings.device, settings.is_expert) = (device, true);
        harness.run();
        harness.get_by_label("on the host").scroll_to_me();
        harness.run();
        harness
    };
    let choice = |harness: &Window| harness.get_by_label("on the host").accesskit_node().is_disabled();
    assert!(choice(&window(ComputeDevice::Cpu)));
    for device in [ComputeDevice::Auto, ComputeDevice::Cuda(0)] {
        let mut harness = window(device);
        assert!(!choice(&harness), "{device}");
        click(&mut harness, "on the host");
        click(&mut harness, "Start training");
        let sent = commands(&mut harness);
        let [Command::Start(_, config)] = sent.as_slice() else { panic!("expected Start, found {sent:?}") };
        assert_eq!(config.optimizer.state_place, StatePlace::HostMemory);
        // The form keeps it; a recipe for the processor does not carry it.
        harness.state_mut().saved_mut().settings.device = ComputeDevice::Cpu;
        harness.run();
        let draft = harness.state().saved().draft.clone().unwrap();
        assert_eq!(draft.config.optimizer.state_place, StatePlace::HostMemory);
        let config = draft.run_config(&harness.state().saved().settings).unwrap();
        assert_eq!(config.optimizer.state_place, StatePlace::WithWeights);
    }
}

#[test]
fn the_recipe_of_a_run_says_where_its_moments_were_kept() {
    let mut run = scene::snapshot(300, RunStatus::Training);
    let mut config = scene::config();
    config.device = ComputeDevice::Cuda(0);
    config.optimizer.state_place = StatePlace::HostMemory;
    run.config = config.into();
    let harness = scene::window_with(run, ThemeChoice::Dark);
    harness.get_by_label("Moments kept");
    harness.get_by_label("on the host");
}
