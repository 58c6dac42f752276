//! `$CREDENTIALS_DIRECTORY/name`, for every key that takes a path.
//!
//! systemd puts what a unit's `LoadCredential=` names into a folder that only the service can read, and
//! says where in this variable. No other variable is understood in a path.
//! See <https://systemd.io/CREDENTIALS/>.

use std::ffi::OsStr;

/// What systemd sets.
pub(super) const VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// The path, with the folder in place of the variable that it may begin with.
///
/// # Errors
/// It begins with the variable, and that is not set.
pub(super) fn expand(path: String, folder: Option<&OsStr>) -> Result<String, String> {
    let prefixes = [format!("${VARIABLE}/"), format!("${{{VARIABLE}}}/")];
    let Some(name) = prefixes.iter().find_map(|prefix| path.strip_prefix(prefix)) else {
        return Ok(path);
    };
    match folder.map(OsStr::to_str) {
        Some(Some(folder)) => Ok(format!("{}/{name}", folder.trim_end_matches('/'))),
        Some(None) => Err(format!("begins with ${VARIABLE}, which is not UTF-8")),
        None => Err(format!(
            "begins with ${VARIABLE}, which is not set: systemd sets it for a unit that has \
             LoadCredential=; elsewhere name the file by its path"
        )),
    }
}
