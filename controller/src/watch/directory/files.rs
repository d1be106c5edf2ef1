//! The files below a directory: which there are, whether they changed, what is in them.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use weft_proto::limits;

/// Directories inside of directories that are followed; a link in a circle ends here.
const DEPTH: usize = 16;

/// What a change of a file changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether it is the same file, written anew in place, and not another that was put in its stead.
    pub(super) fn same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// What is below a directory.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) files: BTreeMap<PathBuf, Stamp>,
    pub(super) errors: Vec<(PathBuf, io::Error)>,
}

/// Lists the YAML and JSON files. Names that start with a dot are left out: editors and Kubernetes' volumes use them.
pub(super) fn list(root: &Path) -> Listing {
    let mut listing = Listing::default();
    let mut open = vec![(root.to_owned(), 0)];
    while let Some((directory, depth)) = open.pop() {
        let entries = match fs::read_dir(&directory).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            // Removed since its parent was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => continue,
            Err(error) => {
                listing.errors.push((directory, error));
                continue;
            }
        };
        for entry in entries {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() && depth < DEPTH => open.push((path, depth + 1)),
                Ok(metadata) if metadata.is_file() && is_ours(&path) => {
                    listing.files.insert(path, Stamp::of(&metadata));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => listing.errors.push((path, error)),
            }
        }
    }
    listing
}

fn is_ours(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

/// A file's text, if it is still the one that was listed.
pub(super) fn read(path: &Path, listed: &Stamp) -> Result<Option<String>, String> {
    if listed.size > limits::OBJECT_FILE as u64 {
        return Err(format!(
            "the file has {} bytes; at most {} are read",
            listed.size,
            limits::OBJECT_FILE
        ));
    }
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    match fs::metadata(path) {
        Ok(metadata) if Stamp::of(&metadata) == *listed => {}
        _ => return Ok(None),
    }
    String::from_utf8(bytes).map(Some).map_err(|error| {
        format!(
            "the file is not UTF-8: byte {} is not part of a character",
            error.utf8_error().valid_up_to()
        )
    })
}
