//! Who stored a record: the batch's head in the broker's own file tells, consumers are not told.

use std::path::{Path, PathBuf};

use crate::support::Kafka;

/// Bytes of a batch before its records.
const HEAD: usize = 61;

/// The producer and its sequence for a record, as it is on the disk of a broker that has it.
pub fn producer_of(kafka: &Kafka, topic: &str, partition: i32, offset: i64) -> String {
    let logs = kafka.ctl("all", "log");
    let folders = logs.lines().filter_map(|log| Path::new(log).parent());
    let folders = folders.map(|broker| broker.join(format!("data/{topic}-{partition}")));
    let found =
        folders.flat_map(segments).find_map(|file| look(&std::fs::read(file).ok()?, offset));
    found.unwrap_or_else(|| "no batch has it".to_owned())
}

fn segments(folder: PathBuf) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    files
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect()
}

/// [The head of a batch](https://kafka.apache.org/documentation/#recordbatch).
fn look(mut file: &[u8], offset: i64) -> Option<String> {
    while file.len() >= HEAD {
        let number = |at: usize, length: usize| {
            let bytes = file.get(at..at + length).unwrap_or_default();
            let unsigned = bytes.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
            let unused = 64 - 8 * u32::try_from(length).unwrap_or(8);
            (unsigned << unused).cast_signed() >> unused
        };
        let (base, length) = (number(0, 8), usize::try_from(number(8, 4)).ok()?);
        if length == 0 {
            return None; // what is allocated and not written
        }
        let last = base + number(23, 4);
        if (base..=last).contains(&offset) {
            return Some(format!(
                "offsets {base} to {last}, producer {} epoch {} sequence {}, leader epoch {}",
                number(43, 8),
                number(51, 2),
                number(53, 4),
                number(12, 4)
            ));
        }
        file = file.get(12 + length..)?;
    }
    None
}
