//! Which machine and which boot of it this is.

use std::fs;
use std::path::Path;

use quorate_core::record::Place;

/// What makers write where they should have written a number of its own for each machine.
const PLACEHOLDERS: [&str; 4] = [
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "03000200-0400-0500-0006-000700080009",
    "12345678-1234-5678-90ab-cddeefaabbcc",
];

/// What `statfs` tells of a file of the kernel's own.
const PROC: u64 = 0x9fa0;

/// The kernel's boot identifier; empty where it cannot be known.
pub(crate) fn boot_id() -> String {
    boot_in("/proc/sys/kernel/random/boot_id")
}

/// Some containers (systemd-nspawn, LXC) have a file of their own in this place. Two of them on one machine
/// would look like two boots of it, and what executes in one like what is over since the boot of the other.
fn boot_in(path: &str) -> String {
    let kernels = rustix::fs::statfs(Path::new(path))
        .is_ok_and(|system| u64::try_from(system.f_type) == Ok(PROC));
    kernels.then(|| read(path)).flatten().unwrap_or_default()
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
    fn what_a_container_was_given_as_its_boot_is_none_of_the_machine() {
        assert_eq!(boot_id().len(), 36, "of the machine that tests this");
        let given = tempfile::NamedTempFile::new().unwrap();
        fs::write(&given, "0d6b1f7e-5a55-4c3e-9c35-6b1a0a3a1b11\n").unwrap();
        assert_eq!(boot_in(given.path().to_str().unwrap()), "");
        assert_eq!(boot_in("/nowhere"), "");
    }

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
