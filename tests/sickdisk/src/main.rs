// SPDX-License-Identifier: GPL-2.0
//! `sickdisk`: serves one disk until it is killed, and changes it on command.
//!
//! ```text
//! sickdisk serve NAME --size 64M [--logical-block 4096] [--physical-block 4096]
//!                     [--file PATH] [--no-cache] [--read-only]
//! sickdisk NAME bad 2000 8 both
//! ```
//!
//! `serve` prints the block device's path when it is there. The other form talks to it through
//! the socket `/run/sickdisk/NAME`.

use std::fs;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use sickdisk::control;
use sickdisk::Options;
use sickdisk::SickDisk;

const USAGE: &str = "\
usage: sickdisk serve NAME --size BYTES[K|M|G] | --file PATH
                [--logical-block BYTES] [--physical-block BYTES] [--no-cache] [--read-only]
       sickdisk NAME COMMAND...";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["serve", name, options @ ..] => parse(options)
            .and_then(|options| serve(name, options).map_err(|error| format!("{name}: {error}"))),
        [name, first, ..] if !name.starts_with('-') && *first != "help" => {
            ask(name, &words[1..].join(" "))
        }
        _ => Err(format!("{USAGE}\n\ncommands:\n{}", control::HELP)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(words: &[&str]) -> Result<Options, String> {
    let mut words = words.iter().copied();
    let mut size = None;
    let mut file = None;
    let mut logical = 512;
    let mut physical = 512;
    let mut caches = true;
    let mut read_only = false;
    while let Some(word) = words.next() {
        let mut argument = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word {
            "--size" => size = Some(bytes(argument()?)?),
            "--file" => file = Some(argument()?.to_string()),
            "--logical-block" => logical = block(argument()?)?,
            "--physical-block" => physical = block(argument()?)?,
            "--no-cache" => caches = false,
            "--read-only" => read_only = true,
            _ => return Err(format!("unknown option '{word}'")),
        }
    }
    let mut options = match (size, file) {
        (Some(size), None) => Options::memory(size),
        (None, Some(file)) => Options::file(file),
        _ => return Err("one of --size and --file is needed".into()),
    }
    .physical_block(physical)
    .logical_block(logical);
    if !caches {
        options = options.without_cache();
    }
    if read_only {
        options = options.read_only();
    }
    Ok(options)
}

fn bytes(word: &str) -> Result<u64, String> {
    let (digits, shift) = match word.strip_suffix(['K', 'M', 'G']) {
        None => (word, 0),
        Some(digits) if word.ends_with('K') => (digits, 10),
        Some(digits) if word.ends_with('M') => (digits, 20),
        Some(digits) => (digits, 30),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("'{word}' is not a size"))?;
    number
        .checked_mul(1 << shift)
        .filter(|size| size % 4096 == 0 && *size > 0)
        .ok_or_else(|| format!("'{word}' is not a multiple of 4096 bytes"))
}

fn block(word: &str) -> Result<u32, String> {
    match word {
        "512" | "1024" | "2048" | "4096" => word.parse().map_err(|_| word.to_string()),
        _ => Err(format!("'{word}' is none of 512, 1024, 2048, 4096")),
    }
}

fn socket(name: &str) -> PathBuf {
    PathBuf::from("/run/sickdisk").join(name)
}

fn serve(name: &str, options: Options) -> io::Result<()> {
    let socket = socket(name);
    if let Some(folder) = socket.parent() {
        fs::create_dir_all(folder)?;
    }
    if UnixStream::connect(&socket).is_ok() {
        return Err(io::Error::other("is being served already"));
    }
    // Left by a server that was killed, if it is there at all.
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket)?;
    let disk = SickDisk::start(options)?;
    println!("{}", disk.path().display());
    for stream in listener.incoming() {
        // One caller's trouble is not the disk's.
        if let Err(error) = stream.and_then(|stream| answer(&disk, stream)) {
            eprintln!("{name}: {error}");
        }
    }
    Ok(())
}

fn answer(disk: &SickDisk, mut stream: UnixStream) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let answer = match control::command(&mut disk.disk(), &line) {
        Ok(answer) => format!("+{answer}\n"),
        Err(error) => format!("-{error}\n"),
    };
    stream.write_all(answer.as_bytes())
}

fn ask(name: &str, line: &str) -> Result<(), String> {
    let talk = || {
        let mut stream = UnixStream::connect(socket(name))?;
        writeln!(stream, "{line}")?;
        io::read_to_string(stream)
    };
    let answer = talk().map_err(|error| format!("{name}: {error}"))?;
    match answer.split_at_checked(1) {
        Some(("+", "ok\n")) => Ok(()),
        Some(("+", answer)) => {
            print!("{answer}");
            Ok(())
        }
        Some(("-", error)) => Err(error.trim_end().to_string()),
        _ => Err(format!("{name}: no answer")),
    }
}
