//! Files that a person names in the configuration: secrets, certificates, the configuration itself.
//!
//! **Must stay true.** No path keeps us waiting or fills the memory, whatever it leads to: a pipe
//! that nobody writes to, a device without an end, a log of gigabytes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Longest file of certificates that is read: a bundle of all public CAs has 250 kB.
pub const LONGEST: u64 = 16 << 20;

/// All of a file, which may have `most` bytes.
///
/// # Errors
/// The system's, or that it is no plain file, or longer.
pub fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Read to the limit, not measured before: a file may grow, and one of /proc has no length.
    open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it is longer than {most} bytes")));
    }
    Ok(bytes)
}

/// The same for text.
///
/// # Errors
/// Those of [`read_file`], or that it is no UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read_file(path, most)?).map_err(|_| io::Error::other("it is not UTF-8"))
}

fn open(path: &Path) -> io::Result<File> {
    // Without O_NONBLOCK the opening of a pipe waits for somebody to write to it.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    // Of a folder the system says so itself when it is read.
    if kind.is_file() || kind.is_dir() {
        Ok(file)
    } else {
        Err(io::Error::other("it is no plain file"))
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, process::Command};

    use super::*;

    /// A folder that is gone when the test is.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("pgsluice-{}-file-{name}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn reads_up_to_the_limit_and_not_a_byte_more() {
        let folder = Folder::new("limit");
        let path = folder.0.join("f");
        std::fs::write(&path, "1234").unwrap();
        assert_eq!(read_text(&path, 4).unwrap(), "1234");
        assert_eq!(read_file(&path, 3).unwrap_err().to_string(), "it is longer than 3 bytes");
        std::fs::write(&path, [0xff]).unwrap();
        assert_eq!(read_text(&path, 4).unwrap_err().to_string(), "it is not UTF-8");
        assert!(!read_file(Path::new("/proc/self/status"), LONGEST).unwrap().is_empty());
    }

    #[test]
    fn no_path_keeps_us_waiting() {
        let folder = Folder::new("waiting");
        let pipe = folder.0.join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe.as_path(), Path::new("/dev/zero")] {
            let error = read_file(path, LONGEST).unwrap_err();
            assert_eq!(error.to_string(), "it is no plain file", "{}", path.display());
        }
        let error = read_file(&folder.0, LONGEST).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
        assert_eq!(
            read_file(&folder.0.join("none"), 1).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
