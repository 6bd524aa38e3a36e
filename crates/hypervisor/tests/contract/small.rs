//! The domain that the suite works with.

use mainstay_hypervisor::DomainUuid;

/// A domain as small as it gets, with a disk at `path`. Its UUID follows from its name.
pub fn domain_xml(name: &str, path: &str) -> (DomainUuid, String) {
    let mut bytes = [0x40u8; 16];
    for (slot, byte) in bytes.iter_mut().zip(name.bytes()) {
        *slot = byte;
    }
    // libvirt takes any UUID but one whose bytes are all the same.
    bytes[15] = 1;
    let uuid = DomainUuid(bytes);
    let xml = format!(
        "<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>16</memory><vcpu>1</vcpu>
        <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os><features><acpi/></features>
        <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>
        <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
        <disk type='file' device='disk'><driver name='qemu' type='raw' error_policy='stop'/><source file='{path}'/><target dev='vda' bus='virtio'/></disk>
        <serial type='file'><source path='{path}.serial'/></serial><controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"
    );
    (uuid, xml)
}
