//! Mount options: words as people write them, flags and data as mount(2) takes them.
//!
//! CSI says that options may hold credentials, so an error names the option and never shows its value.

use std::fmt;

use nix::mount::MsFlags;

/// The kernel copies one page of data and cuts off the rest without a word.
const MAX_DATA: usize = 4095;

/// Options whose value is an SELinux context, which may hold commas.
const CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// Why options cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    #[error("mount option {option:?} is not for a volume: it would change or move other mounts")]
    NotForVolumes { option: String },
    #[error("mount option {option:?} holds a zero byte or a line break")]
    Character { option: String },
    #[error("the mount options are longer than the {MAX_DATA} bytes that the kernel takes")]
    TooLong,
}

/// Options for mount(2).
#[derive(Clone, PartialEq, Eq)]
pub struct MountOptions {
    pub flags: MsFlags,
    /// What only the file system understands.
    data: Vec<String>,
}

impl MountOptions {
    pub fn read_only(&self) -> bool {
        self.flags.contains(MsFlags::MS_RDONLY)
    }

    /// What only the file system understands, as mount(2) takes it.
    pub fn data(&self) -> String {
        self.data.join(",")
    }

    /// The names of these options.
    pub fn names(&self) -> Vec<&str> {
        self.data.iter().map(|option| name(option)).collect()
    }
}

/// An option without its value.
fn name(option: &str) -> &str {
    option.split_once('=').map_or(option, |(name, _)| name)
}

impl fmt::Debug for MountOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountOptions").field("flags", &self.flags).field("data", &self.names()).finish()
    }
}

enum Word {
    Set(MsFlags),
    Clear(MsFlags),
    /// For mount(8) and its callers, nothing to the kernel.
    Ignore,
    Refuse,
    Data,
}

fn word(option: &str) -> Word {
    match option {
        "ro" => Word::Set(MsFlags::MS_RDONLY),
        "rw" => Word::Clear(MsFlags::MS_RDONLY),
        "nosuid" => Word::Set(MsFlags::MS_NOSUID),
        "suid" => Word::Clear(MsFlags::MS_NOSUID),
        "nodev" => Word::Set(MsFlags::MS_NODEV),
        "dev" => Word::Clear(MsFlags::MS_NODEV),
        "noexec" => Word::Set(MsFlags::MS_NOEXEC),
        "exec" => Word::Clear(MsFlags::MS_NOEXEC),
        "sync" => Word::Set(MsFlags::MS_SYNCHRONOUS),
        "async" => Word::Clear(MsFlags::MS_SYNCHRONOUS),
        "dirsync" => Word::Set(MsFlags::MS_DIRSYNC),
        "noatime" => Word::Set(MsFlags::MS_NOATIME),
        "atime" => Word::Clear(MsFlags::MS_NOATIME),
        "nodiratime" => Word::Set(MsFlags::MS_NODIRATIME),
        "diratime" => Word::Clear(MsFlags::MS_NODIRATIME),
        "relatime" => Word::Set(MsFlags::MS_RELATIME),
        "norelatime" => Word::Clear(MsFlags::MS_RELATIME),
        "strictatime" => Word::Set(MsFlags::MS_STRICTATIME),
        "nostrictatime" => Word::Clear(MsFlags::MS_STRICTATIME),
        "lazytime" => Word::Set(MsFlags::MS_LAZYTIME),
        "nolazytime" => Word::Clear(MsFlags::MS_LAZYTIME),
        "mand" => Word::Set(MsFlags::MS_MANDLOCK),
        "nomand" => Word::Clear(MsFlags::MS_MANDLOCK),
        "iversion" => Word::Set(MsFlags::MS_I_VERSION),
        "noiversion" => Word::Clear(MsFlags::MS_I_VERSION),
        "silent" => Word::Set(MsFlags::MS_SILENT),
        "loud" => Word::Clear(MsFlags::MS_SILENT),
        "defaults" | "auto" | "noauto" | "user" | "nouser" | "users" | "owner" | "group" | "_netdev"
        | "nofail" => Word::Ignore,
        "bind" | "rbind" | "move" | "remount" | "shared" | "rshared" | "slave" | "rslave" | "private"
        | "rprivate" | "unbindable" | "runbindable" | "loop" => Word::Refuse,
        other if other.starts_with("x-") || other.starts_with("X-") || other.starts_with("comment=") => {
            Word::Ignore
        }
        _ => Word::Data,
    }
}

/// Translates a list of options; later ones win over earlier ones.
///
/// One entry is one option, and an SELinux context holds commas: it stays in one piece. In the data it must be in
/// quotes, which the kernel's parser of such options understands, so a bare one is quoted. Other commas the kernel
/// takes as ends of options, so what is between them is looked at by itself: `noatime,discard` as one entry worked
/// with drivers that call mount(8), and would otherwise be refused as a whole.
pub fn translate<'a>(options: impl IntoIterator<Item = &'a str>) -> Result<MountOptions, OptionError> {
    let mut flags = MsFlags::empty();
    let mut data: Vec<String> = Vec::new();
    for entry in options {
        if entry.contains(['\0', '\n']) {
            return Err(OptionError::Character { option: name(entry).to_owned() });
        }
        if let Some(context) = context(entry) {
            data.push(context);
            continue;
        }
        for option in entry.split(',').filter(|option| !option.is_empty()) {
            match word(option) {
                Word::Set(flag) => flags.insert(flag),
                Word::Clear(flag) => flags.remove(flag),
                Word::Ignore => {}
                Word::Refuse => return Err(OptionError::NotForVolumes { option: name(option).to_owned() }),
                Word::Data => data.push(option.to_owned()),
            }
        }
    }
    let options = MountOptions { flags, data };
    if options.data().len() > MAX_DATA {
        return Err(OptionError::TooLong);
    }
    Ok(options)
}

/// The entry as it goes into the data, if its commas do not separate options.
fn context(entry: &str) -> Option<String> {
    if entry.contains('"') {
        return Some(entry.to_owned());
    }
    let (key, value) = entry.split_once('=')?;
    CONTEXTS.contains(&key).then(|| format!("{key}=\"{value}\""))
}

/// The flags of an existing mount, from the words of mountinfo. A bind remount drops those that it does not repeat.
pub(super) fn flags_of_mount(options: &str) -> MsFlags {
    let kept = MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC
        | MsFlags::MS_NOATIME
        | MsFlags::MS_NODIRATIME
        | MsFlags::MS_RELATIME;
    options.split(',').fold(MsFlags::empty(), |flags, option| match word(option) {
        Word::Set(flag) => flags | (flag & kept),
        Word::Clear(_) | Word::Ignore | Word::Refuse | Word::Data => flags,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_flags_and_the_rest_data() {
        let options = translate(["noatime", "discard", "nosuid", "data=ordered", "defaults", "_netdev", ""]);
        let options = options.unwrap();
        assert_eq!(options.flags, MsFlags::MS_NOATIME | MsFlags::MS_NOSUID);
        assert_eq!(options.data(), "discard,data=ordered");
        assert!(!format!("{options:?}").contains("ordered"));
        assert_eq!(translate(["ro", "rw"]).unwrap().flags, MsFlags::empty());
        assert!(translate(["rw", "ro"]).unwrap().read_only());
    }

    #[test]
    fn several_options_in_one_entry_mean_what_they_say() {
        let options = translate(["discard,noatime,data=ordered", "errors=panic"]).unwrap();
        assert_eq!(options.flags, MsFlags::MS_NOATIME);
        assert_eq!(options.data(), "discard,data=ordered,errors=panic");
    }

    #[test]
    fn an_selinux_context_stays_one_option() {
        let quoted = r#"context="system_u:object_r:container_file_t:s0:c1,c2""#;
        assert_eq!(translate([quoted, "discard"]).unwrap().data(), format!("{quoted},discard"));
        assert_eq!(translate(["context=u:r:t:s0:c1,ro"]).unwrap().data(), r#"context="u:r:t:s0:c1,ro""#);
        assert_eq!(translate(["fscontext=u:r:t:s0"]).unwrap().data(), r#"fscontext="u:r:t:s0""#);
    }

    #[test]
    fn what_would_fail_obscurely_is_refused_by_name() {
        assert!(
            matches!(translate(["remount"]), Err(OptionError::NotForVolumes { option }) if option == "remount")
        );
        assert!(matches!(translate(["a\0b"]), Err(OptionError::Character { .. })));
        let long = "x".repeat(MAX_DATA);
        assert!(translate([long.as_str()]).is_ok());
        assert_eq!(translate([long.as_str(), "y"]), Err(OptionError::TooLong));
    }

    #[test]
    fn the_flags_of_a_mount_are_read_back() {
        let flags = flags_of_mount("ro,nosuid,relatime,idmapped");
        assert_eq!(flags, MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_RELATIME);
    }
}
