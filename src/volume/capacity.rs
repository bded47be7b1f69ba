//! Sizes. The cloud counts in whole GiB (it writes "GB"), CSI in bytes.
//!
//! Disks are billed in steps of 10 GiB and the plugin we replace makes them in such steps, so a size is rounded
//! up to the next step: the user gets what is paid for, and a disk can always be grown while it is attached
//! (the API takes only steps of 10 there).

use std::fmt;

use super::DiskType;

/// The step in which disks are made and grown, and so the smallest disk.
pub const STEP: Gib = Gib::new(10);

/// A size in whole GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Gib(u32);

impl Gib {
    pub const fn new(gib: u32) -> Self {
        Self(gib)
    }

    pub const fn get(self) -> u32 {
        self.0
    }

    pub const fn bytes(self) -> u64 {
        (self.0 as u64) << 30
    }
}

impl fmt::Display for Gib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} GiB", self.0)
    }
}

/// Why no disk fits a capacity range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CapacityError {
    #[error("capacity_range.{field} is {value}; it must not be negative")]
    Negative { field: &'static str, value: i64 },
    #[error(
        "capacity_range.limit_bytes ({}) is below capacity_range.required_bytes ({})",
        Bytes(*limit),
        Bytes(*required)
    )]
    Inverted { required: u64, limit: u64 },
    #[error(
        "no disk has at least {} and at most {}: disks come in steps of {STEP}, {}",
        Bytes(*required),
        Bytes(*limit),
        Neighbours(*limit)
    )]
    BetweenSteps { required: u64, limit: u64 },
    #[error("{} are more than a disk{} can have, which is {max}", Bytes(*required), OfType(*disk_type))]
    TooLarge { required: u64, max: Gib, disk_type: Option<DiskType> },
}

/// The size to make: already rounded, inside the type's range and the caller's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeRequest {
    /// What to make.
    pub wanted: Gib,
    /// An existing disk is compatible from this size in bytes…
    pub required_bytes: u64,
    /// …up to this one, when there is a limit.
    pub limit_bytes: Option<u64>,
}

/// The sizes that a caller accepts; CSI's capacity range, checked for sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SizeRange {
    /// 0: no lower bound.
    pub required_bytes: u64,
    pub limit_bytes: Option<u64>,
}

impl SizeRange {
    /// Takes the numbers as CSI has them, where 0 stands for "no bound".
    pub fn parse(required: i64, limit: i64) -> Result<Self, CapacityError> {
        let required_bytes = u64::try_from(required)
            .map_err(|_| CapacityError::Negative { field: "required_bytes", value: required })?;
        let limit = u64::try_from(limit)
            .map_err(|_| CapacityError::Negative { field: "limit_bytes", value: limit })?;
        match limit {
            0 => Ok(Self { required_bytes, limit_bytes: None }),
            _ if limit < required_bytes => Err(CapacityError::Inverted { required: required_bytes, limit }),
            _ => Ok(Self { required_bytes, limit_bytes: Some(limit) }),
        }
    }

    /// Whether a disk of this size is acceptable as it is.
    pub fn admits(self, size: Gib) -> bool {
        size.bytes() >= self.required_bytes && self.limit_bytes.is_none_or(|limit| size.bytes() <= limit)
    }

    /// The smallest size to make or grow to. Without a lower bound it is one step: no smaller disk is billed,
    /// so it is the cheapest that answers "any size".
    ///
    /// A type that is not known (a disk made by hand) is given the largest maximum; the cloud has the last word.
    pub fn smallest(self, disk_type: Option<DiskType>) -> Result<Gib, CapacityError> {
        let max = match disk_type {
            Some(disk_type) => disk_type.max_size(),
            None => DiskType::ALL.map(DiskType::max_size).into_iter().max().unwrap_or(STEP),
        };
        let steps = self.required_bytes.div_ceil(STEP.bytes()).max(1);
        let too_large = CapacityError::TooLarge { required: self.required_bytes, max, disk_type };
        let size = u32::try_from(steps)
            .ok()
            .and_then(|steps| steps.checked_mul(STEP.get()))
            .map(Gib)
            .filter(|size| *size <= max)
            .ok_or(too_large)?;
        match self.limit_bytes {
            Some(limit) if size.bytes() > limit => {
                Err(CapacityError::BetweenSteps { required: self.required_bytes, limit })
            }
            Some(_) | None => Ok(size),
        }
    }

    /// The size for a new disk of this type.
    pub fn request(self, disk_type: DiskType) -> Result<SizeRequest, CapacityError> {
        Ok(SizeRequest {
            wanted: self.smallest(Some(disk_type))?,
            required_bytes: self.required_bytes,
            limit_bytes: self.limit_bytes,
        })
    }
}

/// A number of bytes for people: `15 GiB`, or the exact number when it is no whole GiB.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = self.0 >> 30;
        if gib << 30 == self.0 {
            write!(f, "{gib} GiB")
        } else {
            write!(f, "{} bytes ({gib}.{} GiB)", self.0, ((self.0 - (gib << 30)) * 10) >> 30)
        }
    }
}

/// The possible sizes around an impossible limit.
struct Neighbours(u64);

impl fmt::Display for Neighbours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = self.0 / STEP.bytes() * u64::from(STEP.get());
        let above = below + u64::from(STEP.get());
        match below {
            0 => write!(f, "the smallest is {above} GiB"),
            _ => write!(f, "the nearest are {below} GiB and {above} GiB"),
        }
    }
}

struct OfType(Option<DiskType>);

impl fmt::Display for OfType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(disk_type) => write!(f, " of type {disk_type}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: i64 = 1 << 30;

    fn size(required: i64, limit: i64, disk_type: DiskType) -> Result<u32, String> {
        SizeRange::parse(required, limit)
            .and_then(|range| range.request(disk_type))
            .map(|request| request.wanted.get())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn sizes_are_rounded_up_to_steps_inside_the_range() {
        for (required, limit, wanted) in [
            (0, 0, 10),
            (0, 10 * GIB, 10),
            (0, 500 * GIB, 10),
            (1, 0, 10),
            (10 * GIB, 0, 10),
            (10 * GIB, 10 * GIB, 10),
            (10 * GIB + 1, 0, 20),
            (15 * GIB, 20 * GIB, 20),
            (7_991 * GIB, 0, 8_000),
            (8_000 * GIB, 8_000 * GIB, 8_000),
        ] {
            assert_eq!(size(required, limit, DiskType::Ssd), Ok(wanted), "{required} {limit}");
        }
        assert_eq!(size(8_001 * GIB, 0, DiskType::Rssd), Ok(8_010));
    }

    #[test]
    fn impossible_ranges_say_what_is_possible() {
        for (required, limit, text) in [
            (-1, 0, "capacity_range.required_bytes is -1; it must not be negative"),
            (
                i64::MIN,
                i64::MIN,
                "capacity_range.required_bytes is -9223372036854775808; it must not be negative",
            ),
            (0, -5, "capacity_range.limit_bytes is -5; it must not be negative"),
            (
                20 * GIB,
                10 * GIB,
                "capacity_range.limit_bytes (10 GiB) is below capacity_range.required_bytes (20 GiB)",
            ),
            (
                11 * GIB,
                15 * GIB,
                "no disk has at least 11 GiB and at most 15 GiB: disks come in steps of 10 GiB, \
                 the nearest are 10 GiB and 20 GiB",
            ),
            (
                0,
                5 * GIB + GIB / 2,
                "no disk has at least 0 GiB and at most 5905580032 bytes (5.5 GiB): disks come in steps of \
                 10 GiB, the smallest is 10 GiB",
            ),
            (8_001 * GIB, 0, "8001 GiB are more than a disk of type ssd can have, which is 8000 GiB"),
            (
                i64::MAX,
                i64::MAX,
                "9223372036854775807 bytes (8589934591.9 GiB) are more than a disk of type ssd can have, \
                 which is 8000 GiB",
            ),
        ] {
            assert_eq!(size(required, limit, DiskType::Ssd), Err(text.to_owned()));
        }
    }

    #[test]
    fn a_disk_of_unknown_type_may_grow_as_far_as_any() {
        let range = SizeRange { required_bytes: Gib(32_000).bytes(), limit_bytes: None };
        assert_eq!(range.smallest(None), Ok(Gib(32_000)));
        let range = SizeRange { required_bytes: Gib(32_001).bytes(), limit_bytes: None };
        assert_eq!(
            range.smallest(None).unwrap_err().to_string(),
            "32001 GiB are more than a disk can have, which is 32000 GiB"
        );
    }

    proptest! {
        /// Whatever is asked: the answer is a step, admitted, and one step less would not do.
        #[test]
        fn the_size_is_the_smallest_step_that_fits(
            required in prop_oneof![any::<i64>(), 0..40_000 * GIB],
            limit in prop_oneof![Just(0), any::<i64>(), 0..40_000 * GIB],
            index in 0..DiskType::ALL.len(),
        ) {
            let disk_type = DiskType::ALL[index];
            let Ok(range) = SizeRange::parse(required, limit) else {
                prop_assert!(required < 0 || limit < 0 || (limit != 0 && limit < required));
                return Ok(());
            };
            match range.smallest(Some(disk_type)) {
                Ok(size) => {
                    prop_assert!(range.admits(size));
                    prop_assert_eq!(size.get() % STEP.get(), 0);
                    prop_assert!(size >= STEP && size <= disk_type.max_size());
                    let less = Gib(size.get() - STEP.get());
                    prop_assert!(less.get() == 0 || !range.admits(less));
                }
                Err(_) => {
                    let fits = (1..=disk_type.max_size().get() / STEP.get())
                        .any(|step| range.admits(Gib(step * STEP.get())));
                    prop_assert!(!fits);
                }
            }
        }
    }
}
