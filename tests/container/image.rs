//! What is in the image.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::podman::{image, must, podman};

/// The image's files, mounted read-only as long as this lives.
pub struct Image {
    root: PathBuf,
}

impl Image {
    pub fn mount() -> Self {
        let mut command = podman();
        command.args(["image", "mount", &image()]);
        Self { root: must(command).into() }
    }

    fn inspect(what: &str) -> String {
        let mut command = podman();
        command.args(["image", "inspect", "--format", what, &image()]);
        must(command)
    }

    /// Bytes, uncompressed.
    pub fn size(&self) -> u64 {
        Self::inspect("{{.Size}}").parse().unwrap()
    }

    pub fn label(&self, name: &str) -> String {
        Self::inspect(&format!("{{{{index .Labels \"{name}\"}}}}"))
    }

    fn walk(&self, dir: &Path, visit: &mut impl FnMut(&str, &fs::Metadata)) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                self.walk(&path, visit);
            } else {
                visit(path.strip_prefix(&self.root).unwrap().to_str().unwrap(), &metadata);
            }
        }
    }

    /// Paths and lengths in bytes, sorted by path.
    pub fn files(&self) -> Vec<(String, u64)> {
        let mut files = Vec::new();
        self.walk(&self.root, &mut |path, metadata| files.push((path.to_owned(), metadata.len())));
        files.sort();
        files
    }

    /// The names of all that can be called.
    pub fn programs(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.walk(&self.root, &mut |path, metadata| {
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
            let may = metadata.is_symlink() || metadata.permissions().mode() & 0o111 != 0;
            if may && (dir.ends_with("bin") || !name.contains(".so")) {
                names.push(name.to_owned());
            }
        });
        names.sort();
        names
    }

    pub fn setuid(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.walk(&self.root, &mut |path, metadata| {
            if metadata.is_file() && metadata.permissions().mode() & 0o6000 != 0 {
                paths.push(path.to_owned());
            }
        });
        paths
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = podman().args(["image", "unmount", &image()]).output();
    }
}
