//! Files of certificates and keys, read anew at every connect.

use std::path::Path;

use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

use super::{Error, LONGEST, read_file};

/// Who is believed.
#[derive(Debug)]
pub(super) struct Trusted {
    pub(super) roots: RootCertStore,
    /// The same, as they are in the user's own file; of the system's none.
    pub(super) listed: Vec<CertificateDer<'static>>,
}

/// The CAs of `path`, or the system's.
pub(super) fn trusted(path: Option<&Path>) -> Result<Trusted, Error> {
    let (mut roots, mut listed) = (RootCertStore::empty(), Vec::new());
    if let Some(path) = path {
        listed = certificates(path)?;
        for certificate in listed.iter().cloned() {
            let unfit = |why| refuse(path, format!("it holds a certificate that is no CA: {why}"));
            roots.add(certificate).map_err(unfit)?;
        }
    } else {
        // The system's bundle may hold a few that nobody can use.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(Error::NoSystemRoots);
        }
    }
    Ok(Trusted { roots, listed })
}

/// All certificates of `path`, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(refuse(path, missing(&text, "certificate"))),
        Ok(found) => Ok(found),
        Err(error) => Err(refuse(path, broken(&error))),
    }
}

/// The private key of `path`.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let text = read(path)?;
    // rustls would say of either that there is no key.
    if has(&text, "-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(&text, "Proc-Type: 4,ENCRYPTED") {
        let why = "its key is encrypted; store it without a passphrase, readable only by this user";
        return Err(refuse(path, why.to_owned()));
    }
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(refuse(path, missing(&text, "private key"))),
        Err(error) => Err(refuse(path, broken(&error))),
    }
}

/// That `path` cannot be used.
pub(super) fn refuse(path: &Path, why: String) -> Error {
    Error::File { path: path.to_owned(), why }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    read_file(path, LONGEST).map_err(|error| refuse(path, error.to_string()))
}

fn missing(text: &[u8], what: &str) -> String {
    if !has(text, "-----BEGIN ") {
        // DER and PKCS#12 both begin with a SEQUENCE.
        let binary = text.first() == Some(&0x30);
        let form = if binary { "it looks like DER or PKCS#12" } else { "no line says -----BEGIN" };
        return format!("it is not PEM: {form}");
    }
    format!("it holds no {what}")
}

/// The library's own text shows the line that it could not read, which may be part of a key.
fn broken(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "it is cut off: a -----END line is missing",
        pem::Error::IllegalSectionStart { .. } => "a -----BEGIN line is broken",
        pem::Error::Base64Decode(_) => "what is between BEGIN and END is not base64",
        _ => "it is not PEM",
    }
    .to_owned()
}

fn has(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    /// A file that is gone when the test is.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str, text: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("pgsluice-{}-{name}", std::process::id()));
            fs::write(&path, text).unwrap();
            Self(path)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn why<T>(result: Result<T, Error>) -> String {
        let Err(error @ Error::File { .. }) = result else { panic!("that file is fine") };
        error.to_string()
    }

    #[test]
    fn says_what_is_wrong_with_a_file() {
        let cases: [(&str, &[u8], &str); 6] = [
            ("empty", b"", "it is not PEM: no line says -----BEGIN"),
            ("der", &[0x30, 0x82, 1, 2], "it is not PEM: it looks like DER or PKCS#12"),
            ("csr", b"-----BEGIN X-----\n-----END X-----\n", "it holds no private key"),
            ("cut", b"-----BEGIN PRIVATE KEY-----\nAAAA\n", "it is cut off"),
            ("base", b"-----BEGIN PRIVATE KEY-----\n*\n-----END PRIVATE KEY-----\n", "not base64"),
            ("locked", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n", "its key is encrypted"),
        ];
        for (name, text, expected) in cases {
            let file = Temporary::new(name, text);
            let said = why(key(&file.0));
            assert!(said.contains(expected), "{name}: {said}");
            assert!(said.contains(&file.0.display().to_string()), "{name}: {said}");
        }
    }

    #[test]
    fn names_a_file_that_is_missing() {
        let said = why(trusted(Some(Path::new("/nowhere/ca.pem"))));
        assert!(said.contains("/nowhere/ca.pem") && said.contains("No such file"), "{said}");
    }

    #[test]
    fn refuses_a_root_that_is_no_certificate() {
        let text = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let file = Temporary::new("root", text);
        assert!(why(trusted(Some(&file.0))).contains("no CA"));
    }
}
