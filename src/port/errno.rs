//! What the kernel calls the errors of devices, for whoever counts them: a fixed set of names, so that labels of metrics stay
//! few whatever a device says.

use std::io;

use super::SendError;

/// What has none of the names here, and what has no number.
pub const OTHER: &str = "other";

/// The errors that reads and writes of TUN devices and packet sockets are known to give, and those that a device without
/// room, permission or link would.
const NAMES: [(i32, &str); 20] = [
    (libc::EPERM, "EPERM"),
    (libc::EIO, "EIO"),
    (libc::ENXIO, "ENXIO"),
    (libc::EBADF, "EBADF"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::EACCES, "EACCES"),
    (libc::EFAULT, "EFAULT"),
    (libc::EBUSY, "EBUSY"),
    (libc::ENODEV, "ENODEV"),
    (libc::EINVAL, "EINVAL"),
    (libc::EPIPE, "EPIPE"),
    (libc::EBADFD, "EBADFD"),
    (libc::EMSGSIZE, "EMSGSIZE"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::ENETDOWN, "ENETDOWN"),
    (libc::ENETUNREACH, "ENETUNREACH"),
    (libc::EHOSTUNREACH, "EHOSTUNREACH"),
    (libc::ENOBUFS, "ENOBUFS"),
    (libc::ENOTCONN, "ENOTCONN"),
];

/// The name of an error: `EIO`.
pub fn name(error: &io::Error) -> &'static str {
    error.raw_os_error().map_or(OTHER, of_number)
}

fn of_number(number: i32) -> &'static str {
    NAMES.iter().find(|(known, _)| *known == number).map_or(OTHER, |(_, name)| name)
}

impl SendError {
    /// The name of the error that the device gave; none where it was not asked.
    pub fn errno(&self) -> Option<&'static str> {
        match self {
            Self::Full(number) => number.map(of_number),
            Self::TooBig => Some(of_number(libc::EMSGSIZE)),
            Self::Device(error) => Some(name(error)),
            Self::NeighbourUnknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::send_error;
    use super::*;

    #[test]
    fn errors_have_the_kernels_names_and_what_has_none_is_other() {
        let of = |number| send_error(io::Error::from_raw_os_error(number)).errno();
        assert_eq!(
            [libc::EIO, libc::EINVAL, libc::ENOBUFS, libc::EAGAIN, libc::EMSGSIZE].map(of),
            ["EIO", "EINVAL", "ENOBUFS", "EAGAIN", "EMSGSIZE"].map(Some)
        );
        assert_eq!(of(libc::EXDEV), Some(OTHER));
        assert_eq!(SendError::Device(io::ErrorKind::InvalidData.into()).errno(), Some(OTHER));
        assert_eq!((SendError::Full(None).errno(), SendError::NeighbourUnknown.errno()), (None, None));
    }

    /// The rest of the names follow from their constants alone; none stands twice.
    #[test]
    fn no_number_and_no_name_stands_twice() {
        for (place, (number, name)) in NAMES.iter().enumerate() {
            assert!(NAMES[..place].iter().all(|(other, text)| other != number && text != name), "{name}");
        }
    }
}
