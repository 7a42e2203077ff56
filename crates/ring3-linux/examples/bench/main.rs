//! What running programs in ring 3 costs, against a bare exit of a vCPU and against starting a
//! process, all in the same run: a table for people on stderr, JSON on stdout.
//!
//! `bench [ROUNDS]`; `npm run bench ring3` runs it here and where KVM is native. Figures are
//! medians of single operations, in nanoseconds; where instructions are counted, in instructions.

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
    /// The median.
    pub value: f64,
    /// What it is compared with, where that is measured along with it.
    pub against: Option<f64>,
}

fn main() {
    let rounds = std::env::args()
        .nth(1)
        .map_or(50, |rounds| rounds.parse().unwrap());
    let figures = cases::all(rounds);
    let find = |name| {
        figures
            .iter()
            .find(|figure| figure.name == name)
            .unwrap()
            .value
    };
    let (exit, spawn) = (find(cases::BARE_EXIT), find(cases::SPAWN));
    let (mut table, mut json) = (String::new(), Vec::new());
    table.push_str("| what | median | ratio |\n| --- | --- | --- |\n");
    for figure in &figures {
        let (against, unit) = match figure.reference {
            Reference::Exit => (Some(exit), "bare exits"),
            Reference::Spawn => (Some(spawn), "of posix_spawn and wait"),
            Reference::Native => (figure.against, "of the same outside"),
            Reference::None => (None, ""),
        };
        let ratio = against.map(|against| figure.value / against);
        let shown = ratio.map_or(String::new(), |ratio| format!("{} {unit}", digits(ratio)));
        writeln!(
            table,
            "| {} | {:.1} | {shown} |",
            figure.name,
            figure.value / 1000.0
        )
        .unwrap();
        let ratio = ratio.map_or("null".to_owned(), |ratio| format!("{ratio:.4}"));
        json.push(format!(
            "    {{ \"name\": \"{}\", \"nanoseconds\": {:.0}, \"ratio\": {ratio} }}",
            figure.name, figure.value
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
        format!("{ratio:.2}")
    }
}
