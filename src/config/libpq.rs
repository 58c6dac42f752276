//! libpq's variables and service file: for what the file leaves open.
//!
//! Source: <https://www.postgresql.org/docs/current/libpq-envars.html>

use std::{collections::BTreeMap, ffi::OsString, fs, path::PathBuf};

use super::{layer::Layer, url::parameter};

/// Variable and the parameter that it stands for.
const VARIABLES: &[(&str, &str)] = &[
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGUSER", "user"),
    ("PGDATABASE", "dbname"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGSERVICE", "service"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGAPPNAME", "application_name"),
    ("PGOPTIONS", "options"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
];

/// What the variables say.
pub(super) fn variables(vars: &BTreeMap<OsString, OsString>) -> Layer {
    let mut layer = Layer::default();
    for (variable, name) in VARIABLES {
        let Some(value) = vars.get(&OsString::from(variable)) else { continue };
        match value.to_str() {
            None => layer.refuse(variable, "", "is no UTF-8".into()),
            Some("") => {}
            Some(text) => add(&mut layer, name, text, variable),
        }
    }
    layer
}

/// What the section `service` of the service file says.
pub(super) fn service(vars: &BTreeMap<OsString, OsString>, service: &str) -> Layer {
    let mut layer = Layer::default();
    let var = |name: &str| vars.get(&OsString::from(name)).map(PathBuf::from);
    let paths = [
        var("PGSERVICEFILE"),
        var("HOME").map(|home| home.join(".pg_service.conf")),
        var("PGSYSCONFDIR").map(|folder| folder.join("pg_service.conf")),
    ];
    for path in paths.into_iter().flatten() {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let mut here = false;
        let mut found = false;
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            if let Some(section) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                here = section == service;
                found |= here;
            } else if let Some((name, value)) = line.split_once('=').filter(|_| here) {
                add(&mut layer, name.trim(), value.trim(), &path.display().to_string());
            }
        }
        if found {
            return layer;
        }
    }
    layer.refuse("", "postgres.service", format!("is {service:?}, which no service file has"));
    layer
}

fn add(layer: &mut Layer, name: &str, text: &str, origin: &str) {
    match parameter(name, text) {
        Ok(Some((key, text))) => layer.set(key, &text, origin),
        Ok(None) => {}
        Err(why) => layer.refuse(origin, "", why),
    }
}
