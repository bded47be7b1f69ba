//! Whether kubelet sees what is mounted for it.

use std::path::Path;

use super::linux::mountinfo::{Mount, Mounts};

/// What is wrong with the mount that holds kubelet's directory, as advice for the operator.
///
/// In a container whose volume mount lacks Bidirectional propagation everything seems to work, and pods start with
/// empty directories: the mounts stay in the container.
pub fn fault(mounts: &Mounts, kubelet_dir: &Path) -> Option<String> {
    let holder = holder(mounts, kubelet_dir)?;
    if holder.shared {
        return None;
    }
    Some(format!(
        "kubelet will not see what is mounted below {}: the mount {} is not shared; set mountPropagation: \
         Bidirectional on the container's volume mount of that directory, or name kubelet's directory with \
         --kubelet-dir",
        kubelet_dir.display(),
        holder.mount_point.display(),
    ))
}

/// The mount that `path` is in: the deepest, and of two on one path the one on top.
fn holder<'m>(mounts: &'m Mounts, path: &Path) -> Option<&'m Mount> {
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.mount_point))
        .max_by_key(|mount| mount.mount_point.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
28 1 8:1 / / rw shared:1 - ext4 /dev/vda1 rw
40 28 0:44 / /var/lib/kubelet rw - ext4 /dev/vda1 rw
41 28 0:44 / /data/kubelet rw - ext4 /dev/vda1 rw
42 41 0:44 / /data/kubelet rw shared:9 - ext4 /dev/vda1 rw
";

    #[test]
    fn only_a_shared_mount_reaches_kubelet() {
        let mounts = Mounts::parse(LIST.as_bytes()).unwrap();
        let text = fault(&mounts, Path::new("/var/lib/kubelet")).unwrap();
        assert!(
            text.contains("mountPropagation: Bidirectional") && text.contains("/var/lib/kubelet"),
            "{text}"
        );
        assert_eq!(fault(&mounts, Path::new("/data/kubelet")), None);
        assert_eq!(fault(&mounts, Path::new("/var/lib/kubelet2")), None);
    }
}
