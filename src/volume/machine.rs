//! What a host's machine type says about disks.

use super::id::{HostId, HostKind};

/// Whether RDMA disks can be attached to a host: the O family of virtual machines (`O`, `OS`, `OPRO`, …) and bare
/// metal with cloud disks. `None`: a virtual machine of unknown type, about which nothing may be guessed.
pub fn takes_rdma_disks(host: &HostId, machine_type: Option<&str>) -> Option<bool> {
    match host.kind() {
        HostKind::BareMetal => Some(true),
        HostKind::Virtual => machine_type.map(|name| name.starts_with(['O', 'o'])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_o_family_and_bare_metal_take_rdma_disks() {
        let machine = HostId::parse("uhost-1").unwrap();
        for (name, takes) in
            [("O", true), ("OS", true), ("OMAX", true), ("N", false), ("C", false), ("G", false)]
        {
            assert_eq!(takes_rdma_disks(&machine, Some(name)), Some(takes), "{name}");
        }
        assert_eq!(takes_rdma_disks(&machine, None), None);
        assert_eq!(takes_rdma_disks(&HostId::parse("upm-1").unwrap(), None), Some(true));
    }
}
