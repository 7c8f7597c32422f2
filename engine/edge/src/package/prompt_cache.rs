//! A context in a file.
//!
//! Layout (little-endian): magic, version u32, fingerprint of the model (32 bytes), number of tokens u64, the tokens as
//! u32, keys and values as they are kept, SHA-256 of everything before.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::EdgeError;
use crate::models::LanguageModel;
use crate::text::Memory;

const MAGIC: [u8; 8] = *b"FTEDGEPC";
const VERSION: u32 = 1;
/// Magic, version, fingerprint, number of tokens.
const HEADER_BYTES: usize = 8 + 4 + 32 + 8;
const DIGEST_BYTES: usize = 32;

/// Writes `memory` to the file at `path`.
pub(super) fn save(path: &Path, fingerprint: &[u8; 32], memory: &Memory) -> Result<(), EdgeError> {
    let failed = |source| EdgeError::Save { path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    let partial = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(File::create(&partial)?);
        let mut hasher = Sha256::new();
        let mut put = |bytes: &[u8]| {
            hasher.update(bytes);
            file.write_all(bytes)
        };
        put(&MAGIC)?;
        put(&VERSION.to_le_bytes())?;
        put(fingerprint)?;
        put(&(memory.tokens.len() as u64).to_le_bytes())?;
        put(bytemuck::cast_slice(&memory.tokens))?;
        memory.cache.parts().try_for_each(put)?;
        file.write_all(&hasher.finalize())?;
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    };
    let written = write().and_then(|()| std::fs::rename(&partial, path));
    if written.is_err() {
        // It may not be there at all; the error to tell is the other one.
        let _ = std::fs::remove_file(&partial);
    }
    written.map_err(failed)
}

/// Reads what [`save`] wrote.
pub(super) fn load(path: &Path, fingerprint: &[u8; 32], model: &LanguageModel) -> Result<Memory, EdgeError> {
    let failed = EdgeError::read(path, "Is this the file of a prompt cache?");
    let refuse = |expected: &str, found: String| EdgeError::format(path, expected, found);
    let mut file = File::open(path).map_err(failed)?;
    let file_bytes = file.metadata().map_err(failed)?.len();
    if file_bytes < (HEADER_BYTES + DIGEST_BYTES) as u64 {
        return Err(refuse("a prompt cache", format!("{file_bytes} bytes")));
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).map_err(failed)?;
    let (magic, rest) = header.split_at(MAGIC.len());
    let (version, rest) = rest.split_at(4);
    let (found_fingerprint, num_tokens) = rest.split_at(32);
    if magic != MAGIC || version != VERSION.to_le_bytes() {
        let found = format!("{:?}", magic.escape_ascii().to_string());
        return Err(EdgeError::unsuited(path, "a prompt cache of this version", found));
    }
    if found_fingerprint != fingerprint {
        let expected = "the prompt cache of this model and way to keep keys and values";
        return Err(EdgeError::unsuited(path, expected, "another's"));
    }
    let num_tokens = num_tokens.as_chunks::<8>().0.first().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let num_tokens = usize::try_from(num_tokens).ok().filter(|tokens| *tokens <= model.max_positions());
    let sizes = num_tokens.and_then(|tokens| Some((tokens, tokens.checked_mul(4)?, model.cache_bytes(tokens)?)));
    let fitting = sizes.filter(|(_, token_bytes, cache_bytes)| {
        let fixed = HEADER_BYTES + DIGEST_BYTES;
        token_bytes.checked_add(*cache_bytes).and_then(|sum| sum.checked_add(fixed)).map(|sum| sum as u64)
            == Some(file_bytes)
    });
    let Some((num_tokens, token_bytes, cache_bytes)) = fitting else {
        return Err(refuse("as many bytes as its tokens take", format!("{file_bytes} bytes")));
    };
    let mut body = vec![0; token_bytes + cache_bytes];
    file.read_exact(&mut body).map_err(failed)?;
    let mut digest = [0; DIGEST_BYTES];
    file.read_exact(&mut digest).map_err(failed)?;
    let mut hasher = Sha256::new();
    hasher.update(header);
    hasher.update(&body);
    if hasher.finalize().as_slice() != digest {
        return Err(refuse("a prompt cache whose checksum matches", "a damaged one".to_owned()));
    }
    let (tokens, cache) = body.split_at(token_bytes);
    let tokens = tokens.as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
    let cache = model.restored_cache(num_tokens, cache);
    let cache = cache.ok_or_else(|| refuse("the keys and values of its tokens", "others".to_owned()))?;
    Ok(Memory { tokens, cache })
}
