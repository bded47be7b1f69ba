//! What the controller leaves with the caller for later calls: facts on the volume and on its attachment.
//!
//! Both are stored in Kubernetes for as long as the volume or the attachment lives, so they outlive versions of
//! this driver and come also from the plugin it replaces: unknown keys are not looked at.

use std::collections::BTreeMap;

use super::{Adoption, BlankSectors, DiskType, FsType, Gib, Quoted};

/// Facts on a volume that never change: what CSI calls volume context and Kubernetes volume attributes.
///
/// Nothing is needed: a PersistentVolume made by hand works with its volume handle alone. So nothing here is ever
/// an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeContext {
    /// UCloud's scheduler extension reads it from the PersistentVolume.
    pub disk_type: Option<DiskType>,
    /// The file system that the StorageClass names, for callers that leave it out of the capability.
    pub fs: Option<FsType>,
    /// What the disk shows where nothing was written.
    pub blank: BlankSectors,
    /// Which mark of another disk may be replaced.
    pub adoption: Adoption,
}

impl VolumeContext {
    pub const TYPE: &'static str = "type";
    pub const FS_TYPE: &'static str = "fsType";
    pub const NOISE: &'static str = "blankReadsAsNoise";
    pub const ADOPT: &'static str = "adoptMarkOf";

    pub fn parse(map: &BTreeMap<String, String>) -> Self {
        Self {
            disk_type: map.get(Self::TYPE).and_then(|word| DiskType::from_word(word)),
            fs: map.get(Self::FS_TYPE).and_then(|word| FsType::from_word(word)),
            blank: map.get(Self::NOISE).and_then(|word| BlankSectors::from_noise(word)).unwrap_or_default(),
            adoption: map.get(Self::ADOPT).map(|word| Adoption::parse(word)).unwrap_or_default(),
        }
    }

    pub fn to_map(&self) -> BTreeMap<String, String> {
        [
            (Self::TYPE, self.disk_type.map(DiskType::word)),
            (Self::FS_TYPE, self.fs.map(FsType::word)),
            (Self::NOISE, (self.blank == BlankSectors::Noise).then_some("yes")),
            (Self::ADOPT, self.adoption.word()),
        ]
        .into_iter()
        .filter_map(|(key, word)| Some((key.to_owned(), word?.to_owned())))
        .collect()
    }
}

/// What the controller hands to the node with an attachment. Stable for ever; unknown keys are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublishContext {
    /// The slot as the API names it, lower case without `/dev/`: `vdc`. `None` in attachments of older plugins.
    pub device: Option<String>,
    /// The disk's size when it was attached.
    pub size: Option<Gib>,
}

/// Why a publish context cannot be used: ours, and damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    #[error(
        "publish_context key {:?} is {}; it must be a device name such as vdc",
        PublishContext::DEVICE,
        Quoted(.value)
    )]
    Device { value: String },
    #[error(
        "publish_context key {:?} is {}; it must be a number of GiB such as 20",
        PublishContext::SIZE,
        Quoted(.value)
    )]
    Size { value: String },
}

impl PublishContext {
    pub const DEVICE: &'static str = "device";
    pub const SIZE: &'static str = "size";

    pub fn parse(map: &BTreeMap<String, String>) -> Result<Self, ContextError> {
        Ok(Self {
            device: map.get(Self::DEVICE).map(|value| device(value)).transpose()?.flatten(),
            size: map.get(Self::SIZE).map(|value| size(value)).transpose()?,
        })
    }

    pub fn to_map(&self) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        if let Some(device) = &self.device {
            map.insert(Self::DEVICE.to_owned(), device.clone());
        }
        if let Some(size) = self.size {
            map.insert(Self::SIZE.to_owned(), size.get().to_string());
        }
        map
    }
}

/// The name becomes part of a path, so it is letters and digits or it is refused.
fn device(value: &str) -> Result<Option<String>, ContextError> {
    let name = value.strip_prefix("/dev/").unwrap_or(value).to_ascii_lowercase();
    if value.is_empty() {
        return Ok(None);
    }
    if name.is_empty() || name.len() > 32 || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(ContextError::Device { value: value.to_owned() });
    }
    Ok(Some(name))
}

fn size(value: &str) -> Result<Gib, ContextError> {
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    value
        .parse()
        .ok()
        .filter(|size| digits && *size > 0)
        .map(Gib::new)
        .ok_or_else(|| ContextError::Size { value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn publish(entries: &[(&str, &str)]) -> Result<(Option<String>, Option<u32>), String> {
        PublishContext::parse(&map(entries))
            .map(|context| (context.device, context.size.map(Gib::get)))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn publish_contexts_of_all_ages_are_read() {
        for (entries, device, size) in [
            (&[][..], None, None),
            (&[("device", "vdc"), ("size", "20")], Some("vdc"), Some(20)),
            (&[("device", "/dev/VDC")], Some("vdc"), None),
            (&[("device", "vdaa"), ("future", "?")], Some("vdaa"), None),
            (&[("device", ""), ("size", "32000")], None, Some(32_000)),
            (&[("devicePath", "/dev/vdb")], None, None),
        ] {
            assert_eq!(publish(entries), Ok((device.map(str::to_owned), size)), "{entries:?}");
        }
    }

    #[test]
    fn a_damaged_publish_context_names_the_key() {
        for bad in ["../sda", "/dev/", "vd c", "/dev/disk/by-id/x"] {
            assert_eq!(
                publish(&[("device", bad)]),
                Err(format!(
                    "publish_context key \"device\" is {bad:?}; it must be a device name such as vdc"
                ))
            );
        }
        for bad in ["", "0", "-1", "+20", "20 GiB", "99999999999"] {
            assert_eq!(
                publish(&[("size", bad)]),
                Err(format!(
                    "publish_context key \"size\" is {bad:?}; it must be a number of GiB such as 20"
                ))
            );
        }
    }

    #[test]
    fn a_volume_context_is_read_leniently() {
        let context = VolumeContext {
            disk_type: Some(DiskType::Rssd),
            fs: Some(FsType::Xfs),
            ..VolumeContext::default()
        };
        assert_eq!(context.to_map(), map(&[("type", "rssd"), ("fsType", "xfs")]));
        assert_eq!(VolumeContext::parse(&context.to_map()), context);
        let noisy = VolumeContext { blank: BlankSectors::Noise, ..context.clone() };
        let entries = [("type", "rssd"), ("fsType", "xfs"), ("blankReadsAsNoise", "yes")];
        assert_eq!(noisy.to_map(), map(&entries));
        assert_eq!(VolumeContext::parse(&noisy.to_map()), noisy);
        let copy = VolumeContext { adoption: Adoption::parse("bs-1"), ..context };
        let entries = [("type", "rssd"), ("fsType", "xfs"), ("adoptMarkOf", "bs-1")];
        assert_eq!(copy.to_map(), map(&entries));
        assert_eq!(VolumeContext::parse(&copy.to_map()), copy);
        let odd = map(&[
            ("type", "tape"),
            ("fsType", ""),
            ("blankReadsAsNoise", "maybe"),
            ("storage.kubernetes.io/csiProvisionerIdentity", "1-8081-udisk.csi.ucloud.cn"),
        ]);
        assert_eq!(VolumeContext::parse(&odd), VolumeContext::default());
        assert!(VolumeContext::default().to_map().is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            device in proptest::option::of("vd[a-z]{1,2}"),
            size in proptest::option::of(1u32..),
        ) {
            let context = PublishContext { device, size: size.map(Gib::new) };
            prop_assert_eq!(PublishContext::parse(&context.to_map()), Ok(context));
        }

        #[test]
        fn a_device_can_never_lead_out_of_its_directory(value in "\\PC{0,40}") {
            if let Ok((Some(device), _)) = publish(&[("device", &value)]) {
                prop_assert!(device.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()));
            }
        }
    }
}
