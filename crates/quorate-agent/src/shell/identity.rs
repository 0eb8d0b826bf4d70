//! Which machine and which boot of it this is.

use std::fs;

/// The kernel's boot identifier.
pub(crate) fn boot_id() -> String {
    read("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// Which machine this is, as it says of itself.
pub(crate) fn machine_id() -> String {
    ["/sys/class/dmi/id/product_uuid", "/etc/machine-id"]
        .into_iter()
        .find_map(read)
        .or_else(|| read("/proc/sys/kernel/hostname"))
        .unwrap_or_default()
}

fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
