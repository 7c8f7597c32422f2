//! The networks in plain loops and 64-bit floats, written from the papers and not from the runtime.

use std::collections::BTreeMap;

use super::builder::Array;

/// Tensors by Hugging Face name, matrices output-major.
pub type Arrays = BTreeMap<String, Array>;

/// W·x for a matrix (out, in…); the input is rounded to int8 first when the matrix is of integers.
fn product(matrix: &Array, x: &[f64]) -> Vec<f64> {
    let cols = x.len();
    assert_eq!(matrix.values.len(), matrix.shape[0] * cols);
    let x: Vec<f64> = if matrix.is_integer {
        let scale = x.iter().fold(0.0_f64, |m, v| m.max(v.abs())) / 127.0;
        x.iter().map(|v| if scale > 0.0 { (v / scale).round() * scale } else { 0.0 }).collect()
    } else {
        x.to_vec()
    };
    matrix.values.chunks(cols).map(|row| row.iter().zip(&x).map(|(w, x)| w * x).sum()).collect()
}

pub fn linear(arrays: &Arrays, name: &str, x: &[f64]) -> Vec<f64> {
    let mut y = product(&arrays[&format!("{name}.weight")], x);
    if let Some(bias) = arrays.get(&format!("{name}.bias")) {
        y.iter_mut().zip(&bias.values).for_each(|(y, b)| *y += b);
    }
    y
}

pub fn relu(x: &mut [f64]) {
    x.iter_mut().for_each(|x| *x = x.max(0.0));
}

pub fn gelu(x: &mut [f64]) {
    let c = (2.0 / std::f64::consts::PI).sqrt();
    x.iter_mut().for_each(|x| *x = 0.5 * *x * (1.0 + (c * (*x + 0.044715 * x.powi(3))).tanh()));
}

/// An image or feature map (channels, height, width).
#[derive(Clone)]
pub struct Map {
    pub size: [usize; 3],
    pub values: Vec<f64>,
}

impl Map {
    fn at(&self, c: usize, y: isize, x: isize) -> f64 {
        let [_, h, w] = self.size;
        if y < 0 || x < 0 || y >= h as isize || x >= w as isize {
            return 0.0;
        }
        self.values[(c * h + y as usize) * w + x as usize]
    }
}

/// A convolution with padding (k - 1) / 2, then the bias or batch norm of the same name.
pub fn conv(arrays: &Arrays, weight: &str, input: &Map, stride: usize) -> Map {
    let matrix = &arrays[weight];
    let (out, k) = (matrix.shape[0], matrix.shape[2]);
    let pad = (k as isize - 1) / 2;
    let [channels, h, w] = input.size;
    let (oh, ow) = ((h + 2 * pad as usize - k) / stride + 1, (w + 2 * pad as usize - k) / stride + 1);
    let mut values = vec![0.0; out * oh * ow];
    for y in 0..oh {
        for x in 0..ow {
            let mut patch = Vec::new();
            for c in 0..channels {
                for ky in 0..k as isize {
                    for kx in 0..k as isize {
                        patch.push(input.at(c, (y * stride) as isize + ky - pad, (x * stride) as isize + kx - pad));
                    }
                }
            }
            for (o, value) in product(matrix, &patch).into_iter().enumerate() {
                values[(o * oh + y) * ow + x] = value;
            }
        }
    }
    Map { size: [out, oh, ow], values }
}

pub fn batch_norm(arrays: &Arrays, name: &str, map: &mut Map) {
    let [_, h, w] = map.size;
    let get = |part: &str| &arrays[&format!("{name}.{part}")].values;
    let (weight, bias, mean, var) = (get("weight"), get("bias"), get("running_mean"), get("running_var"));
    for (c, channel) in map.values.chunks_mut(h * w).enumerate() {
        channel.iter_mut().for_each(|v| *v = (*v - mean[c]) / (var[c] + 1e-5).sqrt() * weight[c] + bias[c]);
    }
}

pub fn add_bias(arrays: &Arrays, name: &str, map: &mut Map) {
    let [_, h, w] = map.size;
    for (channel, bias) in map.values.chunks_mut(h * w).zip(&arrays[name].values) {
        channel.iter_mut().for_each(|v| *v += bias);
    }
}

pub fn max_pool(map: &Map) -> Map {
    let [channels, h, w] = map.size;
    let mut values = Vec::new();
    for c in 0..channels {
        for y in 0..h / 2 {
            for x in 0..w / 2 {
                let corners = [(0, 0), (0, 1), (1, 0), (1, 1)];
                let best = corners.map(|(dy, dx)| map.at(c, (2 * y + dy) as isize, (2 * x + dx) as isize));
                values.push(best.into_iter().fold(f64::NEG_INFINITY, f64::max));
            }
        }
    }
    Map { size: [channels, h / 2, w / 2], values }
}

fn layer_norm(arrays: &Arrays, name: &str, x: &[f64]) -> Vec<f64> {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64;
    let (w, b) = (&arrays[&format!("{name}.weight")].values, &arrays[&format!("{name}.bias")].values);
    x.iter().zip(w).zip(b).map(|((v, w), b)| (v - mean) / (var + 1e-5).sqrt() * w + b).collect()
}

fn rms_norm(arrays: &Arrays, name: &str, x: &[f64]) -> Vec<f64> {
    let square = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
    let w = &arrays[&format!("{name}.weight")].values;
    x.iter().zip(w).map(|(v, w)| v / (square + 1e-5).sqrt() * w).collect()
}

/// Causal attention of per-position queries, keys and values (each heads · head_dim long).
fn attention(q: &[Vec<f64>], k: &[Vec<f64>], v: &[Vec<f64>], heads: usize, kv_heads: usize) -> Vec<Vec<f64>> {
    let dim = q[0].len() / heads;
    let mut out = vec![vec![0.0; q[0].len()]; q.len()];
    for t in 0..q.len() {
        for head in 0..heads {
            let (qs, ks) = (head * dim, head * kv_heads / heads * dim);
            let dot = |s: usize| (0..dim).map(|i| q[t][qs + i] * k[s][ks + i]).sum::<f64>() / (dim as f64).sqrt();
            let weights: Vec<f64> = (0..=t).map(|s| dot(s).exp()).collect();
            let total: f64 = weights.iter().sum();
            for i in 0..dim {
                out[t][qs + i] = (0..=t).map(|s| weights[s] / total * v[s][ks + i]).sum();
            }
        }
    }
    out
}

fn added(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn row(arrays: &Arrays, name: &str, row: usize) -> Vec<f64> {
    let table = &arrays[name];
    table.values.chunks(table.shape[1]).nth(row).unwrap().to_vec()
}

/// Logits at each position.
pub fn gpt2(arrays: &Arrays, layers: usize, heads: usize, tokens: &[u32]) -> Vec<Vec<f64>> {
    let mut xs: Vec<Vec<f64>> = (0_usize..)
        .zip(tokens)
        .map(|(p, &t)| {
            added(&row(arrays, "transformer.wte.weight", t as usize), &row(arrays, "transformer.wpe.weight", p))
        })
        .collect();
    for layer in 0..layers {
        let name = |part: &str| format!("transformer.h.{layer}.{part}");
        let qkv: Vec<Vec<f64>> =
            xs.iter().map(|x| linear(arrays, &name("attn.c_attn"), &layer_norm(arrays, &name("ln_1"), x))).collect();
        let width = xs[0].len();
        let part = |n: usize| qkv.iter().map(|r| r[n * width..(n + 1) * width].to_vec()).collect::<Vec<_>>();
        let attended = attention(&part(0), &part(1), &part(2), heads, heads);
        for (x, a) in xs.iter_mut().zip(attended) {
            *x = added(x, &linear(arrays, &name("attn.c_proj"), &a));
            let mut hidden = linear(arrays, &name("mlp.c_fc"), &layer_norm(arrays, &name("ln_2"), x));
            gelu(&mut hidden);
            *x = added(x, &linear(arrays, &name("mlp.c_proj"), &hidden));
        }
    }
    let head = &arrays["transformer.wte.weight"];
    xs.iter().map(|x| product(head, &layer_norm(arrays, "transformer.ln_f", x))).collect()
}

fn rotated(x: &[f64], dim: usize, position: usize) -> Vec<f64> {
    let mut out = x.to_vec();
    for head in 0..x.len() / dim {
        for i in 0..dim / 2 {
            let angle = position as f64 / 10_000_f64.powf(2.0 * i as f64 / dim as f64);
            let (a, b) = (head * dim + i, head * dim + i + dim / 2);
            out[a] = x[a] * angle.cos() - x[b] * angle.sin();
            out[b] = x[b] * angle.cos() + x[a] * angle.sin();
        }
    }
    out
}

/// Logits at each position; the head is `lm_head` when there is one.
pub fn llama(arrays: &Arrays, layers: usize, heads: usize, kv_heads: usize, tokens: &[u32]) -> Vec<Vec<f64>> {
    let mut xs: Vec<Vec<f64>> = tokens.iter().map(|&t| row(arrays, "model.embed_tokens.weight", t as usize)).collect();
    for layer in 0..layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let normed: Vec<Vec<f64>> = xs.iter().map(|x| rms_norm(arrays, &name("input_layernorm"), x)).collect();
        let project = |part: &str| normed.iter().map(|x| linear(arrays, &name(part), x)).collect::<Vec<_>>();
        let (q, k, v) = (project("self_attn.q_proj"), project("self_attn.k_proj"), project("self_attn.v_proj"));
        let dim = q[0].len() / heads;
        let turn = |x: Vec<Vec<f64>>| x.iter().enumerate().map(|(p, x)| rotated(x, dim, p)).collect::<Vec<_>>();
        let attended = attention(&turn(q), &turn(k), &v, heads, kv_heads);
        for (x, a) in xs.iter_mut().zip(attended) {
            *x = added(x, &linear(arrays, &name("self_attn.o_proj"), &a));
            let normed = rms_norm(arrays, &name("post_attention_layernorm"), x);
            let (gate, up) =
                (linear(arrays, &name("mlp.gate_proj"), &normed), linear(arrays, &name("mlp.up_proj"), &normed));
            let hidden: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            *x = added(x, &linear(arrays, &name("mlp.down_proj"), &hidden));
        }
    }
    let head = arrays.get("lm_head.weight").unwrap_or(&arrays["model.embed_tokens.weight"]);
    xs.iter().map(|x| product(head, &rms_norm(arrays, "model.norm", x))).collect()
}

/// -ln softmax(logits)[target].
pub fn loss(logits: &[f64], target: u32) -> f64 {
    logits.iter().map(|l| l.exp()).sum::<f64>().ln() - logits[target as usize]
}

/// Fails unless `found` is within `tolerance` of `expected`, relative to the largest expected magnitude.
#[track_caller]
pub fn assert_near(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-9_f64, |m, v| m.max(v.abs()));
    for (found, expected) in found.iter().zip(expected) {
        let error = (f64::from(*found) - expected).abs() / largest;
        assert!(error <= tolerance, "{what}: found {found}, expected {expected}");
    }
}
