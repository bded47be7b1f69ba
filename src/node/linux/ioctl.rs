//! ioctl(2) on block devices and mounted file systems.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use nix::Result;

mod raw {
    use super::{BtrfsDevice, BtrfsVolumeArgs, XfsGeometry, XfsGrowData};

    nix::ioctl_read!(blkgetsize64, 0x12, 114, usize);
    nix::ioctl_read_bad!(blksszget, nix::libc::BLKSSZGET, nix::libc::c_int);
    nix::ioctl_write_ptr_bad!(blkroset, nix::request_code_none!(0x12, 93), nix::libc::c_int);
    nix::ioctl_read_bad!(blkroget, nix::request_code_none!(0x12, 94), nix::libc::c_int);
    nix::ioctl_write_ptr!(ext4_resize_fs, b'f', 16, u64);
    nix::ioctl_read!(xfs_geometry, b'X', 100, XfsGeometry);
    nix::ioctl_write_ptr!(xfs_grow_data, b'X', 110, XfsGrowData);
    nix::ioctl_write_ptr!(btrfs_resize, 0x94, 3, BtrfsVolumeArgs);
    nix::ioctl_readwrite!(btrfs_device, 0x94, 30, BtrfsDevice);
}

/// `struct xfs_fsop_geom_v1`.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct XfsGeometry {
    pub(super) block_size: u32,
    rt_extent_size: u32,
    ag_blocks: u32,
    ag_count: u32,
    log_blocks: u32,
    sector_size: u32,
    inode_size: u32,
    pub(super) inode_max_percent: u32,
    pub(super) data_blocks: u64,
    rt_blocks: u64,
    rt_extents: u64,
    log_start: u64,
    uuid: [u8; 16],
    stripe_unit: u32,
    stripe_width: u32,
    version: i32,
    flags: u32,
    log_sector_size: u32,
    rt_sector_size: u32,
    dir_block_size: u32,
}

/// `struct xfs_growfs_data`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct XfsGrowData {
    pub(super) new_blocks: u64,
    pub(super) inode_max_percent: u32,
}

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
pub(super) struct BtrfsVolumeArgs {
    fd: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_dev_info_args`.
#[repr(C)]
pub(super) struct BtrfsDevice {
    id: u64,
    uuid: [u8; 16],
    used_bytes: u64,
    total_bytes: u64,
    unused: [u64; 379],
    path: [u8; 1024],
}

/// The size of an open block device in bytes.
pub(super) fn block_device_size(device: &File) -> Result<u64> {
    let mut size = 0usize;
    // SAFETY: the descriptor is open for the whole call, and BLKGETSIZE64 writes eight bytes, the size of `usize`
    // on the 64-bit machines that this driver is built for; on a 32-bit one the request number would not match.
    unsafe { raw::blkgetsize64(device.as_raw_fd(), &raw mut size) }?;
    Ok(size as u64)
}

/// The smallest that a transfer from or to an open block device can be, in bytes.
pub(super) fn logical_block_size(device: &File) -> Result<u64> {
    let mut size = 0;
    // SAFETY: the descriptor is open for the whole call, and BLKSSZGET writes one `int`.
    unsafe { raw::blksszget(device.as_raw_fd(), &raw mut size) }?;
    u64::try_from(size).ok().filter(|size| size.is_power_of_two()).ok_or(nix::errno::Errno::EINVAL)
}

/// Whether the kernel refuses writes to an open block device.
pub(super) fn is_read_only(device: &File) -> Result<bool> {
    let mut flag = 0;
    // SAFETY: the descriptor is open for the whole call, and BLKROGET writes one `int`.
    unsafe { raw::blkroget(device.as_raw_fd(), &raw mut flag) }?;
    Ok(flag != 0)
}

/// Makes the kernel refuse writes to a block device, or take them again if the disk itself does.
pub(super) fn set_read_only(device: &File, read_only: bool) -> Result<()> {
    let flag = nix::libc::c_int::from(read_only);
    // SAFETY: the descriptor is open for the whole call, and BLKROSET only reads one `int`.
    unsafe { raw::blkroset(device.as_raw_fd(), &raw const flag) }.map(drop)
}

/// Grows a mounted ext3 or ext4 to `blocks` of its blocks.
pub(super) fn ext4_resize(mount: &File, blocks: u64) -> Result<()> {
    // SAFETY: the descriptor is open for the whole call, and the kernel only reads the number.
    unsafe { raw::ext4_resize_fs(mount.as_raw_fd(), &raw const blocks) }.map(drop)
}

/// The geometry of a mounted xfs.
pub(super) fn xfs_geometry(mount: &File) -> Result<XfsGeometry> {
    let mut geometry = XfsGeometry::default();
    // SAFETY: the descriptor is open for the whole call, and the structure has the layout and size that the request
    // number (which contains the size) promises to the kernel.
    unsafe { raw::xfs_geometry(mount.as_raw_fd(), &raw mut geometry) }?;
    Ok(geometry)
}

/// Grows the data section of a mounted xfs.
pub(super) fn xfs_grow(mount: &File, new_blocks: u64, inode_max_percent: u32) -> Result<()> {
    let wanted = XfsGrowData { new_blocks, inode_max_percent };
    // SAFETY: the descriptor is open for the whole call, and the kernel only reads the structure, whose layout and
    // size are those that the request number promises.
    unsafe { raw::xfs_grow_data(mount.as_raw_fd(), &raw const wanted) }.map(drop)
}

/// Grows one device of a mounted btrfs to the size that the device has.
pub(super) fn btrfs_grow_to_device(mount: &File, id: u64) -> Result<()> {
    let mut wanted = BtrfsVolumeArgs { fd: 0, name: [0; 4088] };
    let name = format!("{id}:max");
    wanted.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: as above; the name ends with a zero byte.
    unsafe { raw::btrfs_resize(mount.as_raw_fd(), &raw const wanted) }.map(drop)
}

/// How much of one device a mounted btrfs takes for its own, in bytes. What statfs(2) says is less where all is stored
/// twice.
pub(super) fn btrfs_device_size(mount: &File, id: u64) -> Result<u64> {
    let mut device =
        BtrfsDevice { id, uuid: [0; 16], used_bytes: 0, total_bytes: 0, unused: [0; 379], path: [0; 1024] };
    // SAFETY: the descriptor is open for the whole call, and the structure has the layout and size that the request
    // number promises to the kernel.
    unsafe { raw::btrfs_device(mount.as_raw_fd(), &raw mut device) }?;
    Ok(device.total_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request numbers contain these sizes, so a wrong layout would be refused, not misread.
    #[test]
    fn structures_have_the_kernel_s_sizes() {
        assert_eq!(size_of::<XfsGeometry>(), 112);
        assert_eq!(size_of::<XfsGrowData>(), 16);
        assert_eq!(size_of::<BtrfsVolumeArgs>(), 4096);
        assert_eq!(size_of::<BtrfsDevice>(), 4096);
    }
}
