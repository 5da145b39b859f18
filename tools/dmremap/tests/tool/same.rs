// SPDX-License-Identifier: GPL-2.0

//! What is given twice, under whatever name, is refused by every command, before anything is written.

use std::fs;
use std::os::unix::fs::symlink;

use super::image::dmremap;
use super::image::Image;
use super::image::Ran;

const FORMAT: [&str; 4] = ["--main-sectors", "100000", "--main-block", "512"];

/// The image under other names: a symlink, a hard link, a detour.
fn names(image: &Image) -> [String; 4] {
    let (soft, hard) = (image.beside("soft"), image.beside("hard"));
    symlink(&image.path, &soft).unwrap();
    fs::hard_link(&image.path, &hard).unwrap();
    let folder = image.folder.path().display();
    [
        image.text().into(),
        soft,
        hard,
        format!(
            "{folder}/../{}/./spare.img",
            image.folder.path().file_name().unwrap().to_str().unwrap()
        ),
    ]
}

#[track_caller]
fn refused(ran: &Ran, text: &str) {
    assert_eq!(ran.status, 16, "{ran:?}");
    assert!(ran.err.contains(text), "{text}: {ran:?}");
    assert_eq!(ran.out, "");
}

#[test]
fn a_spare_by_two_names_is_no_set() {
    let image = Image::blank(8192);
    let names = names(&image);
    let other = Image::blank(8192);
    for name in &names {
        for list in [
            vec![image.text(), name],
            vec![name, image.text()],
            // All pairs are compared, not only neighbours.
            vec![image.text(), other.text(), name],
        ] {
            let ran = dmremap(&[&["format"], list.as_slice(), &FORMAT].concat());
            let same = *name == names[0];
            refused(&ran, if same { "given twice" } else { "the same file" });
            let blank = image.bytes().iter().chain(&other.bytes()).all(|b| *b == 0);
            assert!(blank, "{list:?}");
        }
    }
}

#[test]
fn parts_of_one_file_must_not_overlap() {
    let image = Image::blank(16384);
    let name = image.text();
    let format = |starts: [&str; 2], lens: [&str; 2]| {
        let [a, b] = starts;
        let [c, d] = lens;
        let parts = [
            "--spare-start",
            a,
            "--spare-start",
            b,
            "--spare-len",
            c,
            "--spare-len",
            d,
        ];
        dmremap(&[&["format", name, name], parts.as_slice(), &FORMAT].concat())
    };
    for (starts, lens) in [
        (["0", "4095"], ["4096", "4096"]),
        (["4095", "0"], ["4096", "4096"]),
        (["0", "1024"], ["8192", "1024"]),
        (["8", "8"], ["4096", "8192"]),
    ] {
        refused(&format(starts, lens), "overlap");
        assert!(image.bytes().iter().all(|byte| *byte == 0));
    }
    // The same part for both.
    let once = ["--spare-start", "8", "--spare-len", "4096"];
    let ran = dmremap(&[&["format", name, name], once.as_slice(), &FORMAT].concat());
    refused(&ran, "given twice");
    // To the end.
    let once = ["--spare-start", "8", "--spare-start", "4096"];
    let ran = dmremap(&[&["format", name, name], once.as_slice(), &FORMAT].concat());
    refused(&ran, "overlap");
    // Parts that have nothing in common are a set.
    let ran = format(["0", "4096"], ["4096", "4096"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    let parts = [
        "--spare-start",
        "0",
        "--spare-start",
        "4096",
        "--spare-len",
        "4096",
        "--spare-len",
        "4096",
    ];
    let ran = dmremap(&[&["check", name, name], parts.as_slice()].concat());
    assert_eq!(ran.status, 0, "{ran:?}");
}

#[test]
fn main_is_no_spare() {
    let image = Image::blank(8192);
    let other = Image::blank(8192);
    for name in names(&image) {
        for list in [vec![image.text()], vec![other.text(), image.text()]] {
            let main = ["--main", &name, "--main-block", "512"];
            let ran = dmremap(&[&["format"], list.as_slice(), &main].concat());
            refused(&ran, "main and spare must be apart");
        }
        // A part of main is main's, too.
        let part = [
            "--spare-start",
            "4096",
            "--main",
            &name,
            "--main-block",
            "512",
        ];
        refused(&image.run("format", &part), "main and spare must be apart");
        assert!(image.bytes().iter().all(|byte| *byte == 0));
    }
    // As much of it as the table has.
    let image = Image::blank(8192);
    let part = ["--spare-start", "4096"];
    let main = ["--main-sectors", "4096", "--main-block", "512"];
    let ran = image.run("format", &[part.as_slice(), &main].concat());
    assert_eq!(ran.status, 0, "{ran:?}");
    let main = ["--main", image.text()];
    let ran = image.run("linear-table", &[part.as_slice(), &main].concat());
    refused(&ran, "main and spare must be apart");
    let more = ["--main-sectors", "4097"];
    let ran = image.run("linear-table", &[part.as_slice(), &main, &more].concat());
    refused(&ran, "main and spare must be apart");
    let more = ["--main-sectors", "4096"];
    let ran = image.run("linear-table", &[part.as_slice(), &main, &more].concat());
    assert_eq!(ran.status, 0, "{ran:?}");
}

#[test]
fn every_command_asks_that() {
    let image = Image::used();
    let soft = names(&image)[1].clone();
    let (good, dump, backup) = (image.bytes(), image.beside("dump"), image.beside("backup"));
    fs::write(&dump, image.run("dump", &["--json"]).out).unwrap();
    for words in [
        &["check", image.text(), &soft][..],
        &["check", image.text(), &soft, "--quiet"],
        &["dump", image.text(), &soft],
        &["repair", image.text(), &soft, "--backup", &backup],
        &["repair", image.text(), &soft, "--dry-run"],
        &["restore", image.text(), &soft, &dump, "--backup", &backup],
        &[
            "linear-table",
            image.text(),
            &soft,
            "--main",
            "/dev/m",
            "--main-sectors",
            "8",
        ],
        &[
            "linear-table",
            image.text(),
            "--spare",
            &soft,
            "--main",
            "/dev/m",
            "--main-sectors",
            "8",
        ],
    ] {
        refused(&dmremap(words), "the same file");
    }
    assert!(image.bytes() == good);
    assert!(!fs::exists(&backup).unwrap());
}
