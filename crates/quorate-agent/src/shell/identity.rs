//! Which machine and which boot of it this is.

use std::fs;

use quorate_core::record::Place;

/// What makers write where they should have written a number of its own for each machine.
const PLACEHOLDERS: [&str; 4] = [
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "03000200-0400-0500-0006-000700080009",
    "12345678-1234-5678-90ab-cddeefaabbcc",
];

/// The kernel's boot identifier.
pub(crate) fn boot_id() -> String {
    read("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// Which machine this is, as it says of itself. What the hardware, real or virtual, was given is certain;
/// what stands on the disk was copied with it.
pub(crate) fn machine_id() -> String {
    if let Some(uuid) = read("/sys/class/dmi/id/product_uuid").and_then(|text| certain(&text)) {
        return uuid;
    }
    let named = |kind, path| read(path).map(|text| format!("{kind}:{text}"));
    named("machine-id", "/etc/machine-id")
        .or_else(|| named("host", "/proc/sys/kernel/hostname"))
        .unwrap_or_default()
}

fn certain(uuid: &str) -> Option<String> {
    let uuid = uuid.to_ascii_lowercase();
    let real = !PLACEHOLDERS.contains(&uuid.as_str());
    real.then(|| format!("{}{uuid}", Place::CERTAIN))
}

fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_many_machines_have_tells_none_of_them() {
        for placeholder in PLACEHOLDERS {
            assert_eq!(certain(placeholder), None);
            assert_eq!(certain(&placeholder.to_ascii_uppercase()), None);
        }
        let real = "4C4C4544-0042-3510-8051-B7C04F4E4D32";
        let told = certain(real).unwrap();
        assert_eq!(told, "uuid:4c4c4544-0042-3510-8051-b7c04f4e4d32");
    }
}
