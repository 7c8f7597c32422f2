//! Images from files: what is read, scaled, split, left out.

use super::fixtures::*;
use crate::data::{DataWarning, Dataset, DatasetSpec, PreviewExamples, preview};

fn png(width: u32, height: u32, color: [u8; 3], is_grey: bool) -> Vec<u8> {
    let image = image::DynamicImage::from(image::RgbImage::from_pixel(width, height, image::Rgb(color)));
    let image = if is_grey { image.grayscale() } else { image };
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
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
    // Width and height of the header, then its checksum.
    huge[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    let mut crc = flate2::Crc::new();
    crc.update(&huge[12..29]);
    huge[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    write_all(folder.path(), &[("a/huge.png", huge)]);
    for (class, i) in [("a", 0), ("a", 1), ("b", 0), ("b", 1)] {
        write_all(folder.path(), &[(&format!("{class}/{i}.png"), png(3, 3, [9, 8, 7], false))]);
    }
    let dataset = images(&DatasetSpec::ImageFolder { path: folder.path().into(), image_size: (3, 3) });
    assert_eq!(dataset.split.num_train + dataset.split.num_validation, 4);
    assert!(dataset.warnings.iter().any(|w| matches!(w, DataWarning::SkippedFiles { count: 1, .. })));
}
