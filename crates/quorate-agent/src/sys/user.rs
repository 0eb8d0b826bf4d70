//! Who a run runs as.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;

/// A user with all groups, as a child takes them on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: libc::uid_t,
    pub(crate) gid: libc::gid_t,
    pub(crate) groups: Vec<libc::gid_t>,
}

/// Looks a user up by name or number. May ask the host's name services and so take its time: only
/// for a process that nothing waits for.
pub(crate) fn find_user(name: &str) -> io::Result<Option<User>> {
    let Ok(c_name) = CString::new(name) else {
        return Ok(None);
    };
    let mut text = vec![0; 64 * 1024];
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let mut found = std::ptr::null_mut();
    let uid = name.parse::<libc::uid_t>();
    // SAFETY: the entry, the text buffer of the given length and the result pointer are writable and
    // outlive the call; the name is a C string.
    let error = unsafe {
        match uid {
            Ok(uid) => libc::getpwuid_r(
                uid,
                entry.as_mut_ptr(),
                text.as_mut_ptr(),
                text.len(),
                &raw mut found,
            ),
            Err(_) => libc::getpwnam_r(
                c_name.as_ptr(),
                entry.as_mut_ptr(),
                text.as_mut_ptr(),
                text.len(),
                &raw mut found,
            ),
        }
    };
    if found.is_null() {
        return match error {
            0 | libc::ENOENT | libc::ESRCH => Ok(None),
            other => Err(io::Error::from_raw_os_error(other)),
        };
    }
    // SAFETY: a result that is not null says that the entry was filled in; its name is a C string
    // inside `text`, which still lives.
    let (uid, gid, name) = unsafe {
        let entry = entry.assume_init();
        (entry.pw_uid, entry.pw_gid, CStr::from_ptr(entry.pw_name))
    };
    Ok(Some(User {
        uid,
        gid,
        groups: groups_of(name, gid),
    }))
}

fn groups_of(name: &CStr, gid: libc::gid_t) -> Vec<libc::gid_t> {
    let mut groups = vec![0; 64];
    loop {
        let mut count = libc::c_int::try_from(groups.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the list has room for `count` groups, and the name is a C string.
        let result =
            unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        if result >= 0 {
            groups.truncate(count);
            return groups;
        }
        // The kernel takes 65,536 groups at most.
        if groups.len() >= 65_536 {
            return vec![gid];
        }
        groups.resize(count.max(groups.len() * 2), 0);
    }
}
