//! Images from files: what is read, scaled, split, left out.

use std::path::Path;

use image::{DynamicImage, ImageBuffer, Luma, LumaA, Rgb};

use super::fixtures::*;
use crate::data::{DataWarning, Dataset, DatasetSpec, ImageDataset, PreviewExamples, preview};

fn encoded(image: &DynamicImage) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn png(width: u32, height: u32, color: [u8; 3], is_grey: bool) -> Vec<u8> {
    let image = DynamicImage::from(image::RgbImage::from_pixel(width, height, Rgb(color)));
    encoded(&if is_grey { image.grayscale() } else { image })
}

/// Two images each of the classes `a` and `b` in `folder`, 3x3 and grey.
fn two_classes(folder: &Path) {
    for name in ["a/8.png", "a/9.png", "b/8.png", "b/9.png"] {
        write_all(folder, &[(name, png(3, 3, [50; 3], true))]);
    }
}

fn folder_spec(folder: &Path) -> DatasetSpec {
    DatasetSpec::ImageFolder { path: folder.to_owned(), image_size: (3, 3) }
}

/// What was left out: how many, and the first reasons.
fn skipped(dataset: &ImageDataset) -> (usize, String) {
    let told = dataset.warnings.iter().find_map(|warning| match warning {
        DataWarning::SkippedFiles { count, examples } => Some((*count, examples.join("; "))),
        DataWarning::ClassImbalance { .. }
        | DataWarning::SmallValidation { .. }
        | DataWarning::UnknownCharacters { .. }
        | DataWarning::NotCached { .. } => None,
    });
    told.unwrap_or_default()
}

#[test]
fn idx_plain_and_packed_are_one() {
    let plain = tempfile::tempdir().unwrap();
    write_all(plain.path(), &idx_files());
    let packed = tempfile::tempdir().unwrap();
    for (name, bytes) in idx_files() {
        write_all(packed.path(), &[(&format!("{name}.gz"), gz(&bytes))]);
    }
    let (plain, packed) = (images(&idx_spec(plain.path())), images(&idx_spec(packed.path())));
    assert_eq!((&plain.train, &plain.validation, &plain.test), (&packed.train, &packed.validation, &packed.test));
    assert_eq!((plain.channels, plain.height, plain.width, plain.classes.len()), (1, 2, 3, 3));
    // The last tenth, in order.
    assert_eq!(plain.validation.labels, [0, 1, 2]);
    assert_eq!(plain.validation.pixels[0], 27);
    let mean = (0..27).sum::<i32>() as f32 / 27.0 / 255.0;
    assert!((plain.mean[0] - mean).abs() < 1e-6);
    assert!(plain.warnings.contains(&DataWarning::SmallValidation { count: 3 }));
}

#[test]
fn idx_without_test_files_has_no_test_part() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), &idx_files()[..2]);
    let dataset = images(&idx_spec(folder.path()));
    assert_eq!(dataset.split.num_test, 0);
    assert!(dataset.split.rule.contains("no test part"));
    // One of the two is a mistake.
    write_all(folder.path(), &idx_files()[2..3]);
    assert!(error_text(&idx_spec(folder.path())).contains("t10k-labels"));
}

#[test]
fn sorted_labels_are_split_by_class() {
    let folder = tempfile::tempdir().unwrap();
    let labels: Vec<u8> = (0..40).map(|i| i / 20).collect();
    write_all(
        folder.path(),
        &[("train-images-idx3-ubyte", idx(&[40, 1, 1], &[5; 40])), ("train-labels-idx1-ubyte", idx(&[40], &labels))],
    );
    let dataset = images(&idx_spec(folder.path()));
    assert_eq!(dataset.validation.labels, [0, 0, 1, 1]);
    assert!(dataset.split.rule.contains("tenth of each class"));
}

#[test]
fn cifar_archive_and_folder_are_one() {
    let names = "zero\none\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n\n";
    let files = [
        ("c/data_batch_1.bin", cifar_file(40)),
        ("c/data_batch_5.bin", cifar_file(20)),
        ("c/test_batch.bin", cifar_file(10)),
        ("c/batches.meta.txt", names.into()),
        ("c/readme.html", vec![1; 99]),
    ];
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), &files);
    let from_folder = images(&DatasetSpec::Cifar10 { path: folder.path().join("c") });
    let archive = folder.path().join("c.tar.gz");
    std::fs::write(&archive, gz(&tar(&files))).unwrap();
    let from_archive = images(&DatasetSpec::Cifar10 { path: archive.clone() });
    assert_eq!((&from_folder.train, &from_folder.test), (&from_archive.train, &from_archive.test));
    assert_eq!(from_folder.classes[9], "nine");
    // The fifth batch is held out whole.
    assert_eq!((from_folder.split.num_train, from_folder.split.num_validation), (40, 20));
    // With one batch only, its last tenth.
    std::fs::write(&archive, gz(&tar(&[("data_batch_1.bin", cifar_file(200))]))).unwrap();
    let one = images(&DatasetSpec::Cifar10 { path: archive });
    assert_eq!((one.split.num_train, one.split.num_validation, one.split.num_test), (180, 20, 0));
    assert_eq!(one.classes[0], "airplane");
}

#[test]
fn image_folder_is_scaled_split_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for i in 0..40_u8 {
        files.push((format!("cat/{i:02}.png"), png(6, 5, [i, 100, 200], false)));
    }
    for i in 0..10_u8 {
        files.push((format!("dog/{i:02}.PNG"), png(4, 4, [i, 0, 0], true)));
    }
    files.push(("dog/broken.png".into(), b"\x89PNG\r\n\x1a\nnothing".to_vec()));
    files.push(("dog/readme.txt".into(), b"words".to_vec()));
    for (name, bytes) in &files {
        write_all(folder.path(), &[(name, bytes.clone())]);
    }
    let spec = DatasetSpec::ImageFolder { path: folder.path().into(), image_size: (4, 4) };
    let dataset = images(&spec);
    assert_eq!((dataset.channels, dataset.classes.as_slice()), (3, &["cat".to_owned(), "dog".to_owned()][..]));
    assert_eq!((dataset.split.num_train, dataset.split.num_validation), (45, 5));
    assert_eq!(dataset.validation.labels, [0, 0, 0, 0, 1]);
    assert_eq!(dataset, images(&spec), "the seeded split is always the same");
    assert!(dataset.warnings.iter().any(|w| matches!(w, DataWarning::SkippedFiles { count: 2, .. })));
    let imbalance = |w: &DataWarning| matches!(w, DataWarning::ClassImbalance { largest, smallest } if largest.1 == 36 && smallest.1 == 9);
    assert!(dataset.warnings.iter().any(imbalance), "{:?}", dataset.warnings);
    let PreviewExamples::Images { images, class_counts, .. } = preview(&Dataset::Images(dataset), 8).examples else {
        panic!("expected images")
    };
    assert_eq!(images.iter().map(|image| image.label).collect::<Vec<_>>(), [0, 0, 0, 0, 1, 1, 1, 1]);
    assert_eq!(class_counts, [36, 9]);
}

#[test]
fn grey_folders_and_named_parts() {
    let folder = tempfile::tempdir().unwrap();
    for part in ["train", "test"] {
        for class in ["a", "b"] {
            for i in 0..4_u8 {
                let name = format!("{part}/{class}/{i}.png");
                write_all(folder.path(), &[(&name, png(3, 3, [i * 9; 3], true))]);
            }
        }
    }
    let dataset = images(&DatasetSpec::ImageFolder { path: folder.path().into(), image_size: (3, 3) });
    assert_eq!(dataset.channels, 1);
    assert_eq!((dataset.split.num_train, dataset.split.num_validation, dataset.split.num_test), (6, 2, 8));
    assert_eq!(dataset.test.pixels[9], 9);
}

#[test]
fn huge_headers_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut huge = png(3, 3, [1, 2, 3], false);
    // Width and height of the header.
    huge[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    fix_header_checksum(&mut huge);
    write_all(folder.path(), &[("a/huge.png", huge)]);
    for (class, i) in [("a", 0), ("a", 1), ("b", 0), ("b", 1)] {
        write_all(folder.path(), &[(&format!("{class}/{i}.png"), png(3, 3, [9, 8, 7], false))]);
    }
    let dataset = images(&DatasetSpec::ImageFolder { path: folder.path().into(), image_size: (3, 3) });
    assert_eq!(dataset.split.num_train + dataset.split.num_validation, 4);
    assert!(dataset.warnings.iter().any(|w| matches!(w, DataWarning::SkippedFiles { count: 1, .. })));
}

#[test]
fn what_systems_leave_behind_is_no_class() {
    let folder = tempfile::tempdir().unwrap();
    two_classes(folder.path());
    for name in [".ipynb_checkpoints/1.png", "__MACOSX/1.png", "a/._8.png", "a/.DS_Store", "a/.hidden/1.png"] {
        write_all(folder.path(), &[(name, png(3, 3, [200; 3], true))]);
    }
    let dataset = images(&folder_spec(folder.path()));
    assert_eq!(dataset.classes, ["a", "b"]);
    assert_eq!(dataset.split.num_train + dataset.split.num_validation, 4);
    assert_eq!(skipped(&dataset), (0, String::new()));
}

#[test]
fn a_class_that_training_lacks_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for part in ["train", "val", "test"] {
        two_classes(&folder.path().join(part));
    }
    let image = || png(3, 3, [1; 3], true);
    write_all(
        folder.path(),
        &[
            ("val/zebra/1.png", image()),
            ("val/zebra/2.jpg", image()),
            ("test/lion/1.png", image()),
            ("test/.trash/1.png", image()),
            ("test/__MACOSX/1.png", image()),
            ("test/empty/note.txt", b"no image".to_vec()),
        ],
    );
    let dataset = images(&folder_spec(folder.path()));
    assert_eq!((dataset.split.num_train, dataset.split.num_validation, dataset.split.num_test), (4, 4, 4));
    let (count, examples) = skipped(&dataset);
    assert_eq!(count, 3, "{examples}");
    assert!(examples.contains("val/zebra: no such class in the training part (images: 2)"), "{examples}");
    assert!(examples.contains("test/lion: no such class"), "{examples}");
}

#[test]
#[cfg(target_os = "linux")]
fn names_need_not_be_unicode() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    // As an old archive unpacks: in Latin-1.
    let class = folder.path().join(std::ffi::OsStr::from_bytes(b"\xe9t\xe9"));
    if std::fs::create_dir(&class).is_err() {
        eprintln!("SKIPPED: this file system takes Unicode only");
        return;
    }
    two_classes(folder.path());
    for name in ["1.png", "2.png"] {
        std::fs::write(class.join(name), png(3, 3, [9; 3], true)).unwrap();
    }
    let dataset = images(&folder_spec(folder.path()));
    assert_eq!(dataset.classes, ["a", "b", "\u{fffd}t\u{fffd}"]);
    assert_eq!(dataset.class_counts(), [1, 1, 1]);
    assert_eq!(dataset.validation.labels, [0, 1, 2]);
    assert!(dataset.train.pixels.ends_with(&[9; 9]));
}

/// Loads `image` as the only picture of its class; its pixels, and what was left out.
fn load_beside(image: Vec<u8>) -> (Vec<u8>, usize, String) {
    let folder = tempfile::tempdir().unwrap();
    two_classes(folder.path());
    write_all(folder.path(), &[("c/1.png", image)]);
    let dataset = images(&folder_spec(folder.path()));
    let size = dataset.image_bytes();
    let pixels = dataset.train.pixels.chunks(size).zip(&dataset.train.labels).filter(|&(_, &label)| label == 2);
    let pixels = pixels.flat_map(|(pixels, _)| pixels.to_vec()).collect();
    let (count, examples) = skipped(&dataset);
    (pixels, count, examples)
}

#[test]
fn other_kinds_of_pixels_become_bytes() {
    // Transparency is dropped, however transparent.
    let grey = ImageBuffer::from_fn(3, 3, |x, y| LumaA([(30 * x + y) as u8, (100 * y) as u8]));
    let expected: Vec<u8> = (0..9).map(|i| 30 * (i % 3) + i / 3).collect();
    let loaded = load_beside(encoded(&DynamicImage::ImageLumaA8(grey)));
    assert_eq!(loaded, (expected, 0, String::new()), "grey with transparency stays grey");
    // Of 16 bits, the nearest of 8 bits: 257 steps to one.
    let deep = ImageBuffer::from_fn(3, 3, |x, y| Luma([257 * (80 * x + y) as u16]));
    let expected: Vec<u8> = (0..9).map(|i| 80 * (i % 3) + i / 3).collect();
    assert_eq!(load_beside(encoded(&DynamicImage::ImageLuma16(deep))), (expected, 0, String::new()));
    let deep = ImageBuffer::from_pixel(3, 3, Rgb([257_u16 * 10, 257 * 20, 257 * 255]));
    let expected = [[10; 9], [20; 9], [255; 9]].concat();
    assert_eq!(load_beside(encoded(&DynamicImage::ImageRgb16(deep))), (expected, 0, String::new()));
}

#[test]
fn damaged_images_are_left_out_and_named() {
    let noise =
        image::RgbImage::from_fn(32, 32, |x, y| Rgb([(x * 7) ^ (y * 13), x * y, x * 31 + y * 17].map(|v| v as u8)));
    let noise = encoded(&DynamicImage::from(noise));
    let mut no_width = png(3, 3, [1; 3], false);
    no_width[16..20].fill(0);
    fix_header_checksum(&mut no_width);
    for (what, image) in [
        ("empty", Vec::new()),
        ("cut off", noise[..noise.len() / 2].to_vec()),
        ("without width", no_width),
        ("a page about an error", b"<!DOCTYPE html><p>404".to_vec()),
    ] {
        let (pixels, count, examples) = load_beside(image);
        assert_eq!((pixels.len(), count), (0, 1), "{what}: {examples}");
        assert!(examples.starts_with("1.png: "), "{what}: {examples}");
    }
}

/// The checksum of a PNG's first chunk, which holds its width and height.
fn fix_header_checksum(png: &mut [u8]) {
    let mut crc = flate2::Crc::new();
    crc.update(&png[12..29]);
    png[29..33].copy_from_slice(&crc.sum().to_be_bytes());
}

/// The chunks of a PNG: names and contents.
fn chunks(png: &[u8]) -> Vec<([u8; 4], Vec<u8>)> {
    let mut chunks = Vec::new();
    let mut rest = &png[8..];
    while !rest.is_empty() {
        let len = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        chunks.push((rest[4..8].try_into().unwrap(), rest[8..8 + len].to_vec()));
        rest = &rest[12 + len..];
    }
    chunks
}

fn push_chunk(png: &mut Vec<u8>, name: [u8; 4], content: &[u8]) {
    png.extend((content.len() as u32).to_be_bytes());
    let body = [&name[..], content].concat();
    let mut crc = flate2::Crc::new();
    crc.update(&body);
    png.extend(&body);
    png.extend(crc.sum().to_be_bytes());
}

#[test]
fn of_an_animation_the_first_picture_is_taken() {
    let first = png(3, 3, [11, 22, 33], false);
    let second = png(3, 3, [200; 3], false);
    let frame = |number: u32| {
        let mut control = [number, 3, 3, 0, 0].map(u32::to_be_bytes).concat();
        // A second each, nothing disposed of, nothing blended.
        control.extend([0, 1, 0, 1, 0, 0]);
        control
    };
    let mut animated = first[..8].to_vec();
    for (name, content) in chunks(&first) {
        if name == *b"IDAT" {
            push_chunk(&mut animated, *b"acTL", &[2_u32, 0].map(u32::to_be_bytes).concat());
            push_chunk(&mut animated, *b"fcTL", &frame(0));
        }
        if name == *b"IEND" {
            push_chunk(&mut animated, *b"fcTL", &frame(1));
            for (_, content) in chunks(&second).iter().filter(|(name, _)| name == b"IDAT") {
                push_chunk(&mut animated, *b"fdAT", &[&2_u32.to_be_bytes()[..], content].concat());
            }
        }
        push_chunk(&mut animated, name, &content);
    }
    assert_eq!(load_beside(animated), ([[11; 9], [22; 9], [33; 9]].concat(), 0, String::new()));
}
