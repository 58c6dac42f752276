//! A configuration: `form and purpose (1) │ text`. The text is a TOML, YAML or JSON file, or lines `key=value` as `--set`
//! takes them or as variables. It is used or refused with a reason, and nothing secret shows.

#![no_main]

use std::{env, fs, path::PathBuf, process, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use pgsluice::config::{self, Purpose, Sources};

/// A file per process, in memory if there is such a place.
static FILES: LazyLock<[PathBuf; 3]> = LazyLock::new(|| {
    let shared = PathBuf::from("/dev/shm");
    let folder = if shared.is_dir() { shared } else { env::temp_dir() };
    ["toml", "yaml", "json"]
        .map(|end| folder.join(format!("pgsluice-fuzz-{}.{end}", process::id())))
});

const PASSWORD: &str = "Pa55-w0rd-that-must-not-show";

fuzz_target!(|input: &[u8]| {
    let Some((form, text)) = input.split_first() else { return };
    let purpose = if form & 0x80 == 0 { Purpose::Run } else { Purpose::Tail };
    let mut sources = Sources::default();
    sources.vars.insert("PGSLUICE_POSTGRES__PASSWORD".into(), PASSWORD.into());
    match usize::from(form & 0x7f) % 5 {
        3 => sources.set = pairs(text),
        4 => sources.vars.extend(pairs(text).into_iter().map(|(k, v)| (k.into(), v.into()))),
        at => {
            let path = FILES.get(at).expect("three files");
            fs::write(path, text).expect("there is room for a file");
            sources.file = Some(path.clone());
        }
    }
    let (said, listing) = match config::load(&sources, purpose) {
        Ok(config) => (format!("{config:?} {:?}", config.warnings), config.listing),
        Err(invalid) => {
            assert!(!invalid.problems.is_empty(), "refused without a reason");
            (format!("{invalid:?} {invalid}"), String::new())
        }
    };
    assert!(!said.contains(PASSWORD) && !listing.contains(PASSWORD), "the password shows");
    if let Some(path) = &sources.file {
        let _ = fs::remove_file(path);
    }
});

fn pairs(text: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(text);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs
        .filter(|(_, value)| !value.contains('\0'))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
