//! What running programs in ring 3 costs, against a bare exit of a vCPU and against starting a
//! process, all in the same run: a table for people on stderr, JSON on stdout.
//!
//! `bench [ROUNDS [WORD…]]`, where a word picks the figures that have it in their names; `npm run bench ring3` runs it here and where KVM is native. Figures are
//! of single operations, in nanoseconds; where instructions are counted, in instructions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss
)]

mod cases;
mod programs;

use std::fmt::Write as _;

/// What a figure is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A bare exit of a vCPU.
    Exit,
    /// `posix_spawn` and `wait` of a static program.
    Spawn,
    /// The same work outside of a sandbox.
    Native,
    /// Nothing: it is a reference, or stands for itself.
    None,
}

/// One figure.
#[derive(Debug)]
pub struct Figure {
    /// What was measured.
    pub name: &'static str,
    /// What it is compared with.
    pub reference: Reference,
    /// How long it took.
    pub time: Time,
    /// What it is compared with, where that is measured along with it.
    pub against: Option<Time>,
}

/// Nanoseconds of an operation that was timed many times.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    /// The median, which what else runs on the machine is part of.
    pub median: f64,
    /// The fastest, which is least disturbed.
    pub fastest: f64,
}

fn main() {
    let mut words = std::env::args().skip(1);
    let rounds = words.next().map_or(50, |rounds| rounds.parse().unwrap());
    let words: Vec<String> = words.collect();
    let figures = cases::all(rounds, &words);
    let find = |name| {
        figures
            .iter()
            .find(|figure| figure.name == name)
            .unwrap()
            .time
    };
    let (exit, spawn) = (find(cases::BARE_EXIT), find(cases::SPAWN));
    let (mut table, mut json) = (String::new(), Vec::new());
    table.push_str("| what | median (µs) | ratio | fastest (µs) | ratio | to |\n");
    table.push_str("| --- | --- | --- | --- | --- | --- |\n");
    for Figure {
        name,
        reference,
        time,
        against,
    } in &figures
    {
        let (against, what) = match reference {
            Reference::Exit => (Some(exit), "a bare exit"),
            Reference::Spawn => (Some(spawn), "posix_spawn and wait"),
            Reference::Native => (*against, "the same outside"),
            Reference::None => (None, ""),
        };
        let median = against.map(|against| time.median / against.median);
        let fastest = against.map(|against| time.fastest / against.fastest);
        let shown = |ratio: Option<f64>| ratio.map_or(String::new(), digits);
        writeln!(
            table,
            "| {name} | {:.1} | {} | {:.1} | {} | {what} |",
            time.median / 1000.0,
            shown(median),
            time.fastest / 1000.0,
            shown(fastest),
        )
        .unwrap();
        let plain = |ratio: Option<f64>| ratio.map_or("null".to_owned(), |it| format!("{it:.4}"));
        json.push(format!(
            "    {{ \"name\": \"{name}\", \"median\": {:.0}, \"ratio\": {}, \"fastest\": {:.0}, \
             \"ratioOfFastest\": {} }}",
            time.median,
            plain(median),
            time.fastest,
            plain(fastest),
        ));
    }
    eprintln!("{table}");
    println!(
        "{{\n  \"host\": \"{:?}\",\n  \"rounds\": {rounds},\n  \"figures\": [\n{}\n  ]\n}}",
        cases::host(),
        json.join(",\n")
    );
}

/// A ratio with three digits; small ones as the part of a whole.
fn digits(ratio: f64) -> String {
    if ratio < 0.5 {
        format!("1/{:.1}", 1.0 / ratio)
    } else {
        format!("{ratio:.2} ×")
    }
}
