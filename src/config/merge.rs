//! Which of two values wins: defaults ← service file ← `PG…` ← file ← `PGSLUICE_…` ← `--set`.

use std::{collections::BTreeMap, ffi::OsString, path::Path};

use super::{Sources, file, kind::Value, layer::Layer, libpq};

/// Begins every variable of ours; `__` stands between levels.
const PREFIX: &str = "PGSLUICE_";

/// All layers in one.
pub(super) fn merge(sources: &Sources, found: Option<&Path>) -> Layer {
    let mut upper = libpq::variables(&sources.vars);
    if let Some(path) = found {
        match file::read(path) {
            Ok(dict) => upper.put(Layer::of_file(&dict, &path.display().to_string())),
            Err(problem) => upper.problems.push(problem),
        }
    }
    upper.put(variables(&sources.vars));
    upper.put(options(&sources.set));
    let Some(Value::Text(service)) = upper.entries.get("postgres.service").map(|e| e.value.clone())
    else {
        return upper;
    };
    let mut all = libpq::service(&sources.vars, &service);
    all.put(upper);
    all
}

fn variables(vars: &BTreeMap<OsString, OsString>) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in vars {
        let Some(name) = name.to_str() else { continue };
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        match value.to_str() {
            Some(text) => layer.set(&path.to_lowercase().replace("__", "."), text, name),
            None => layer.refuse(name, "", "is no UTF-8".into()),
        }
    }
    layer.expand_url();
    layer
}

fn options(set: &[(String, String)]) -> Layer {
    let mut layer = Layer::default();
    for (key, text) in set {
        layer.set(key, text, "--set");
    }
    layer.expand_url();
    layer
}
