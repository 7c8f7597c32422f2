//! What is remembered between prompts, in memory and in files, and texts that go on together.

use foretrain_edge::{CacheFormat, EdgeError, Finish, GenerateOptions, Message, Model};

use super::talker::write_talker;

fn greedy(max_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens, temperature: 0.0, repeat_penalty: 1.3, ..GenerateOptions::default() }
}

/// What `model` says to `prompt` by itself.
fn alone(model: &Model, prompt: &[u32], options: &GenerateOptions) -> String {
    model.context().generate(prompt.to_vec(), options, &mut |_| true).unwrap().text
}

#[test]
fn prompts_that_start_alike_are_read_from_where_they_differ() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_talker(dir.path(), 200, 1);
    for format in [CacheFormat::Auto, CacheFormat::F32, CacheFormat::F16, CacheFormat::Int8] {
        let model = Model::open(&path).unwrap().with_cache_format(format);
        let (first, second) = ("A long story begins", "A long story ends");
        let options = greedy(20);
        let mut context = model.context();
        let prompt = model.prompt_tokens(first).unwrap();
        assert_eq!((prompt[0], prompt.len()), (256, 1 + first.len()));
        let told = context.generate(prompt.clone(), &options, &mut |_| true).unwrap();
        assert_eq!((told.cached_tokens, told.prompt_tokens, told.num_tokens), (0, 20, 20));
        let other = model.prompt_tokens(second).unwrap();
        let retold = context.generate(other.clone(), &options, &mut |_| true).unwrap();
        assert_eq!(retold.cached_tokens, 1 + "A long story ".len());
        assert_eq!(retold.text, alone(&model, &other, &options), "{format:?}");
        // The same again: all but the last token is known.
        let again = context.generate(other.clone(), &options, &mut |_| true).unwrap();
        assert_eq!((again.cached_tokens, again.text), (other.len() - 1, retold.text));
    }
}

#[test]
fn a_saved_context_is_taken_up_and_strangers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::open(&write_talker(dir.path(), 64, 1)).unwrap();
    let file = dir.path().join("story.cache");
    let prompt = model.prompt_tokens("Once upon a time").unwrap();
    let mut context = model.context();
    let told = context.generate(prompt.clone(), &greedy(8), &mut |_| true).unwrap();
    context.save(&file).unwrap();
    let mut other = model.context();
    other.load(&file).unwrap();
    assert_eq!(other.tokens(), context.tokens());
    let retold = other.generate(prompt.clone(), &greedy(8), &mut |_| true).unwrap();
    assert_eq!((retold.cached_tokens, retold.text), (prompt.len() - 1, told.text));

    let refused = |model: &Model, says: &str| {
        let error = model.context().load(&file).unwrap_err();
        let is_refusal = matches!(error, EdgeError::Format { .. } | EdgeError::Unsuited { .. });
        assert!(is_refusal && error.to_string().contains(says), "{error}");
    };
    let others = |model: &Model| {
        let error = model.context().load(&file).unwrap_err();
        assert!(matches!(error, EdgeError::Unsuited { .. }) && error.to_string().contains("another's"), "{error}");
    };
    others(&Model::open(&write_talker(dir.path(), 64, 2)).unwrap());
    let reopened = |format| Model::open(&dir.path().join("talker-1.gguf")).unwrap().with_cache_format(format);
    others(&reopened(CacheFormat::Int8));
    others(&reopened(CacheFormat::F32));
    let whole = std::fs::read(&file).unwrap();
    for at in (0..whole.len()).step_by(97).chain(44..60) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&file, damaged).unwrap();
        refused(&model, "story.cache");
    }
    for len in [0, 1, 51, 52, 84, whole.len() - 1] {
        std::fs::write(&file, &whole[..len]).unwrap();
        refused(&model, "story.cache");
    }
    // A number of tokens that no file could hold takes no memory.
    let mut lying = whole;
    lying[44..52].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(&file, lying).unwrap();
    refused(&model, "as many bytes");
}

#[test]
fn texts_that_go_on_together_are_those_that_go_on_alone() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::open(&write_talker(dir.path(), 700, 3)).unwrap();
    // One longer than what is read at once.
    let long = "All work and no play. ".repeat(28);
    let prompts = [long.as_str(), "b", "Once", "Twice upon"].map(|text| model.prompt_tokens(text).unwrap());
    let mut options = [greedy(12), greedy(30), greedy(5), greedy(9)];
    options[3] = GenerateOptions { temperature: 1.0, seed: 9, ..greedy(9) };
    let mut batch = model.batch(3);
    let mut texts = vec![String::new(); 4];
    let mut owners = [None; 3];
    let mut waiting = (0..4).collect::<Vec<_>>();
    let mut num_ended = 0;
    while num_ended < 4 {
        while batch.has_room() && !waiting.is_empty() {
            let number = waiting.remove(0);
            let (slot, _) = batch.start(prompts[number].clone(), &options[number]).unwrap();
            owners[slot] = Some(number);
        }
        if !batch.has_room() {
            assert!(batch.start(vec![1], &greedy(1)).unwrap_err().to_string().contains("free slot"));
        }
        for progress in batch.step().unwrap() {
            let Some(number) = owners[progress.slot] else { continue };
            texts[number].push_str(&progress.text);
            if let Some(finish) = progress.finish {
                assert_eq!((finish, progress.num_tokens), (Finish::Length, options[number].max_tokens));
                num_ended += 1;
                owners[progress.slot] = None;
            }
        }
    }
    for ((prompt, options), text) in prompts.iter().zip(&options).zip(&texts) {
        assert_eq!(*text, alone(&model, prompt, options));
    }
}

#[test]
fn a_batch_remembers_refuses_and_lets_go() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::open(&write_talker(dir.path(), 32, 3)).unwrap();
    let mut batch = model.batch(2);
    let prompt = model.prompt_tokens("0123456789").unwrap();
    let finish = |batch: &mut foretrain_edge::Batch<'_>| {
        while !batch.is_idle() {
            let all = batch.step().unwrap();
            if let Some(progress) = all.into_iter().find(|progress| progress.finish.is_some()) {
                return (progress.finish.unwrap(), progress.num_tokens);
            }
        }
        panic!("nothing ended");
    };
    let (first, cached) = batch.start(prompt.clone(), &greedy(2)).unwrap();
    assert_eq!(cached, 0);
    assert_eq!(finish(&mut batch), (Finish::Length, 2));
    // The slot that knows the prompt, not the other one.
    assert_eq!(batch.start(prompt.clone(), &greedy(100)).unwrap(), (first, prompt.len() - 1));
    // As many as there are positions: the last token needs none.
    assert_eq!(finish(&mut batch), (Finish::Length, 32 - prompt.len() + 1));
    let (slot, _) = batch.start(prompt.clone(), &greedy(9)).unwrap();
    batch.step().unwrap();
    batch.cancel(slot);
    assert!(batch.is_idle() && batch.step().unwrap().is_empty());
    for (prompt, says) in [(vec![], "0 tokens"), (vec![1; 32], "32 tokens"), (vec![999], "token 999")] {
        assert!(batch.start(prompt, &greedy(1)).unwrap_err().to_string().contains(says));
    }
    let hot = GenerateOptions { top_p: 0.0, ..greedy(1) };
    assert!(batch.start(prompt, &hot).unwrap_err().to_string().contains("top_p"));
}

#[test]
fn pieces_make_the_text_and_stop_before_what_nobody_wants() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::open(&write_talker(dir.path(), 100, 5)).unwrap();
    let prompt = model.prompt_tokens("Tell").unwrap();
    let whole = alone(&model, &prompt, &greedy(40));
    let mut pieces = model.generate("Tell", &greedy(40)).unwrap();
    let collected: Vec<String> = pieces.by_ref().map(Result::unwrap).collect();
    assert_eq!(collected.concat(), whole);
    assert_eq!((pieces.finish(), pieces.num_tokens()), (Some(Finish::Length), 40));
    assert!(collected.iter().all(|piece| !piece.is_empty()));
    // Every part of the text of 3 characters that comes first where it is.
    let chars: Vec<(usize, char)> = whole.char_indices().collect();
    for window in chars.windows(3) {
        let stop: String = window.iter().map(|(_, c)| c).collect();
        let at = whole.find(&stop).unwrap();
        let options = GenerateOptions { stop: vec![stop.clone()], ..greedy(40) };
        let mut shown = String::new();
        let stopped = model.context().generate(prompt.clone(), &options, &mut |piece| {
            shown.push_str(piece);
            true
        });
        let stopped = stopped.unwrap();
        assert_eq!((shown.as_str(), stopped.text.as_str(), stopped.finish), (&whole[..at], &whole[..at], Finish::Stop));
    }
    let cancelled = model.context().generate(prompt, &greedy(40), &mut |_| false).unwrap();
    assert_eq!((cancelled.finish, cancelled.num_tokens), (Finish::Cancelled, 1));
    assert!(model.generate("Tell", &GenerateOptions { min_p: 2.0, ..greedy(1) }).is_err());
    assert!(model.generate("Tell", &GenerateOptions { stop: vec![String::new()], ..greedy(1) }).is_err());
}

#[test]
fn kept_bytes_change_little() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_talker(dir.path(), 300, 7);
    let losses = |format| {
        let model = Model::open(&path).unwrap().with_cache_format(format);
        let tokens = model.tokens(&"The quick brown fox jumps over the lazy dog. ".repeat(6)).unwrap();
        model.text_losses(&tokens).unwrap()
    };
    let exact = losses(CacheFormat::F32);
    let mean = |losses: &[f32]| losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / losses.len() as f64;
    for (format, tolerance) in [(CacheFormat::F16, 2e-3), (CacheFormat::Int8, 2e-2)] {
        let kept = losses(format);
        assert!((mean(&kept) - mean(&exact)).abs() <= tolerance * mean(&exact), "{format:?}");
        assert_ne!(kept, exact, "{format:?}");
    }
}

#[test]
fn a_file_alone_has_its_name_template_and_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::open(&write_talker(dir.path(), 64, 1)).unwrap();
    assert_eq!((model.name(), model.max_positions(), model.has_chat_template()), ("talker-1", 64, true));
    let prompt = model.chat_prompt(&[Message::new("user", "Hi é")]).unwrap();
    assert_eq!(prompt.text, "<s><user>Hi é\n<assistant>");
    // The template's start is the token, once.
    let tokens = model.prompt_tokens(&prompt.text).unwrap();
    assert_eq!((tokens[0], tokens[1], tokens.len()), (256, u32::from(b'<'), prompt.text.len() - 2));
    assert_eq!(model.tokenizer().decode(&tokens, true).unwrap(), "<user>Hi é\n<assistant>");
    assert!(Model::open(dir.path()).unwrap_err().to_string().contains("manifest.json"));
}
