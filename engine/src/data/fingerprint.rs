//! What tells one dataset from another.
//!
//! SHA-256 over what follows, cut to 16 hexadecimal digits. Numbers are 64 bits, little-endian; a text is its length in
//! bytes, then its bytes; a list of bytes or of 32-bit numbers (little-endian) is its length in bytes, then the SHA-256
//! of each 4 MiB of it, so that all cores can share the work.
//!
//! - the text "foretrain dataset 1";
//! - images: the text "images", channels, height, width, the number of classes and the name of each; then for training,
//!   validation and test the labels and the pixels;
//! - text: the text "text", the vocabulary size, the number of tokens with a spelling, and by number the number and
//!   spelling of each; then for training, validation and test the tokens, the number of documents and where each ends.
//!
//! Counts of the split are in it as lengths. Not in it is what changes no example: names of files, the split in words,
//! warnings, mean and standard deviation.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{Dataset, ImageDataset, ImageSplit, SplitPart, TextDataset};

/// Bytes that one core digests at a time.
const BLOCK_BYTES: usize = 4 << 20;
const PARTS: [SplitPart; 3] = [SplitPart::Train, SplitPart::Validation, SplitPart::Test];

impl Dataset {
    /// 16 lower-case hexadecimal digits that another dataset, another split or another vocabulary does not have; the
    /// same on every machine and from every copy of the files. Reads all examples: a second for some gigabytes, so
    /// that a caller keeps what it was told.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hasher = Hasher(Sha256::new());
        hasher.text("foretrain dataset 1");
        match self {
            Self::Images(images) => hasher.images(images),
            Self::Text(text) => hasher.tokens(text),
        }
        hasher.0.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

struct Hasher(Sha256);

impl Hasher {
    fn images(&mut self, images: &ImageDataset) {
        self.text("images");
        for size in [images.channels, images.height, images.width, images.classes.len()] {
            self.number(size);
        }
        for class in &images.classes {
            self.text(class);
        }
        for part in PARTS {
            let ImageSplit { pixels, labels } = images.part(part);
            self.numbers(labels);
            self.bytes(pixels);
        }
    }

    fn tokens(&mut self, text: &TextDataset) {
        self.text("text");
        self.number(text.vocab_size);
        let mut vocab: Vec<(u32, String)> =
            text.tokenizer.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
        vocab.sort_unstable();
        self.number(vocab.len());
        for (id, token) in vocab {
            self.number(id as usize);
            self.text(&token);
        }
        for part in PARTS {
            self.numbers(text.part(part));
            let ends = text.document_ends(part);
            self.number(ends.len());
            ends.iter().for_each(|&end| self.number(end));
        }
    }

    fn number(&mut self, number: usize) {
        self.0.update((number as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.0.update(text.as_bytes());
    }

    fn numbers(&mut self, numbers: &[u32]) {
        if cfg!(target_endian = "little") {
            self.bytes(bytemuck::cast_slice(numbers));
        } else {
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            self.bytes(&bytes);
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len());
        let digests: Vec<_> = bytes.par_chunks(BLOCK_BYTES).map(Sha256::digest).collect();
        for digest in digests {
            self.0.update(digest);
        }
    }
}
