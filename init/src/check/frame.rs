//! An Ethernet frame with one TCP segment without data: written and read. Pure.

use std::net::{IpAddr, SocketAddr};

/// Flags of a TCP segment (RFC 9293 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flags(u8);

impl Flags {
    pub(super) const SYN: Self = Self(0x02);
    pub(super) const RST: Self = Self(0x04);
    pub(super) const ACK: Self = Self(0x10);

    pub(super) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Who a frame is from and who it is for, on each level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addressed {
    /// Hardware addresses: from, to.
    pub(super) hardware: ([u8; 6], [u8; 6]),
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
}

/// What a segment said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) flags: Flags,
    pub(super) sequence: u32,
    pub(super) acknowledged: u32,
}

const TCP: u8 = 6;
const ETHERNET: usize = 14;
const TCP_LENGTH: u8 = 20;

impl Addressed {
    pub(super) fn reversed(self) -> Self {
        Self {
            hardware: (self.hardware.1, self.hardware.0),
            from: self.to,
            to: self.from,
        }
    }

    /// A frame with these addresses.
    pub(super) fn write(&self, flags: Flags, sequence: u32, acknowledged: u32) -> Vec<u8> {
        let mut tcp = Vec::from(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(sequence.to_be_bytes());
        tcp.extend(acknowledged.to_be_bytes());
        tcp.extend([(TCP_LENGTH / 4) << 4, flags.0, 0xff, 0xff, 0, 0, 0, 0]);
        // The pseudo-header: both addresses, the protocol and the length (RFC 9293 3.1, RFC 8200 8.1).
        let pseudo = [
            octets(self.from.ip()),
            octets(self.to.ip()),
            vec![0, TCP, 0, TCP_LENGTH],
        ]
        .concat();
        let sum = checksum(&[&pseudo[..], &tcp].concat());
        tcp[16..18].copy_from_slice(&sum);

        let mut frame = [self.hardware.1, self.hardware.0].concat();
        match self.from.ip() {
            IpAddr::V4(_) => {
                frame.extend([0x08, 0x00]);
                let mut ip = vec![0x45, 0, 0, 20 + TCP_LENGTH, 0, 0, 0x40, 0, 64, TCP, 0, 0];
                ip.extend(octets(self.from.ip()));
                ip.extend(octets(self.to.ip()));
                let sum = checksum(&ip);
                ip[10..12].copy_from_slice(&sum);
                frame.extend(ip);
            }
            IpAddr::V6(_) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, TCP_LENGTH, TCP, 64]);
                frame.extend(octets(self.from.ip()));
                frame.extend(octets(self.to.ip()));
            }
        }
        frame.extend(tcp);
        frame
    }

    /// What a frame says, when it has these addresses.
    pub(super) fn read(&self, frame: &[u8]) -> Option<Segment> {
        let packet = frame.get(ETHERNET..)?;
        let (from, to, tcp) = match (self.from.ip(), frame.get(12..ETHERNET)?) {
            (IpAddr::V4(_), [0x08, 0x00]) if packet.get(9) == Some(&TCP) => {
                let header = usize::from(packet[0] & 0x0f) * 4;
                (packet.get(12..16)?, packet.get(16..20)?, packet.get(header..)?)
            }
            (IpAddr::V6(_), [0x86, 0xdd]) if packet.get(6) == Some(&TCP) => {
                (packet.get(8..24)?, packet.get(24..40)?, packet.get(40..)?)
            }
            _ => return None,
        };
        let number = |at: usize| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?));
        let ports = [self.from.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
        let ours = from == octets(self.from.ip()) && to == octets(self.to.ip()) && tcp.get(..4)? == ports;
        ours.then_some(Segment {
            sequence: number(4)?,
            acknowledged: number(8)?,
            flags: Flags(*tcp.get(13)?),
        })
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded to 16 bits above.
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addressed(from: &str, to: &str) -> Addressed {
        Addressed {
            hardware: ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
        }
    }

    #[test]
    fn what_is_written_is_read_back_by_the_one_it_is_for() {
        for (from, to) in [
            ("192.0.2.27:40000", "192.0.2.26:2717"),
            ("[2001:db8::27]:40000", "[2001:db8::26]:2717"),
        ] {
            let request = addressed(from, to);
            let frame = request.write(Flags::SYN | Flags::ACK, 7, 9);
            let segment = Segment {
                flags: Flags::SYN | Flags::ACK,
                sequence: 7,
                acknowledged: 9,
            };
            assert_eq!(request.read(&frame), Some(segment));
            assert_eq!(request.reversed().read(&frame), None, "the other direction");
            for length in 0..frame.len() {
                // Never a panic; and nothing is read before the flags have come.
                let read = request.read(&frame[..length]);
                assert!(read.is_none() || read == Some(segment));
            }
        }
    }

    #[test]
    fn checksums_are_those_of_the_rfc() {
        // RFC 1071 section 3, the example: the sum is ddf2.
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            (!0xddf2_u16).to_be_bytes()
        );
        // A checksum that is in place makes the sum nothing.
        let frame = addressed("192.0.2.27:40000", "192.0.2.26:2717").write(Flags::SYN, 1, 0);
        assert_eq!(checksum(&frame[ETHERNET..ETHERNET + 20]), [0, 0]);
    }
}
