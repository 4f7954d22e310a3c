//! Which boot of the system this is. A file that another boot wrote may have lost what was not synced.

use once_cell::race::OnceBox;
#[cfg(target_os = "linux")]
use std::fs::File;
use std::io;

/// Names the running kernel; `None` where the system does not tell. A failure for want of descriptors or
/// memory is not that: it must not make a file that others use look like one from before a reboot.
pub(crate) fn boot_id() -> io::Result<Option<[u8; 16]>> {
    static BOOT_ID: OnceBox<[u8; 16]> = OnceBox::new();
    if let Some(boot_id) = BOOT_ID.get() {
        return Ok(Some(*boot_id));
    }
    let text = match read_boot_id() {
        Ok(text) => text,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => return Ok(None),
            _ => return Err(error),
        },
    };
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let boot_id = u128::from_str_radix(&digits, 16).ok().map(u128::to_le_bytes);
    Ok(boot_id.map(|boot_id| *BOOT_ID.get_or_init(|| Box::new(boot_id))))
}

#[cfg(target_os = "linux")]
fn read_boot_id() -> io::Result<String> {
    use std::io::Read as _;
    // No more than there is: files of this kind have no size, and looking for their end takes calls.
    let mut uuid = String::with_capacity(64);
    File::open("/proc/sys/kernel/random/boot_id")?.take(36).read_to_string(&mut uuid)?;
    Ok(uuid)
}

#[cfg(target_os = "macos")]
fn read_boot_id() -> io::Result<String> {
    let output = std::process::Command::new("/usr/sbin/sysctl")
        .args(["-n", "kern.bootsessionuuid"])
        .output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(io::Error::other("sysctl does not tell which boot this is")),
    }
}
