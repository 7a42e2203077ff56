// What a program of Rust does: collections, files, panics that are caught and ones that are not.

use std::collections::HashMap;
use std::panic::catch_unwind;

fn main() {
    let mode = std::env::args().nth(1).unwrap_or_default();
    if mode == "panic" {
        panic!("on purpose");
    }
    let mut counts = HashMap::new();
    for number in 0..10_000u64 {
        *counts.entry(number % 7).or_insert(0u64) += number;
    }
    let mut keys: Vec<_> = counts.into_iter().collect();
    keys.sort();
    println!("{keys:?}");
    let caught = catch_unwind(|| {
        let numbers = vec![1, 2, 3];
        let index = std::hint::black_box(7);
        numbers[index]
    });
    println!("caught {}", caught.is_err());
    if let Some(path) = std::env::args().nth(2) {
        let text = std::fs::read_to_string(path).unwrap();
        println!("{} lines", text.lines().count());
        std::fs::write("/tmp/out", text.to_uppercase()).unwrap();
        println!("{}", std::fs::read_to_string("/tmp/out").unwrap().trim_end());
    }
    let sum: f64 = (1..=1000).map(|number| 1.0 / f64::from(number)).sum();
    println!("{sum:.9}");
}
