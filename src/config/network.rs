//! Addresses in the configuration: where to listen, and which networks are trusted. Resolves no
//! names, because a name can point elsewhere tomorrow.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A network in CIDR notation; a single address is the network of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is not a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// No address before the slash.
    #[error("not an address; write 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32")]
    Address,
    /// No length after the slash, or too long a one.
    #[error("the prefix length must be a number from 0 to {max}")]
    Prefix {
        /// The longest prefix of that address family.
        max: u8,
    },
    /// Bits behind the prefix.
    #[error("address bits are set behind the prefix; write {expected}")]
    HostBits {
        /// The network that was probably meant.
        expected: Network,
    },
}

impl Network {
    /// Whether `address` lies in the network. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                network.to_bits() == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                network.to_bits() == address.to_bits() & mask
            }
            _ => false,
        }
    }

    fn masked(address: IpAddr, prefix: u8) -> Self {
        let address = match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4((address.to_bits() & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6((address.to_bits() & mask).into())
            }
        };
        Self { address, prefix }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => max,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|&prefix: &u8| prefix <= max)
                .ok_or(NetworkError::Prefix { max })?,
        };
        let network = Self::masked(address, prefix);
        if network.address != address {
            return Err(NetworkError::HostBits { expected: network });
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| serde::de::Error::custom(format!("{text:?}: {error}")))
    }
}

/// Reads `ADDRESS:PORT`; `localhost` stands for the IPv4 loopback address.
pub(super) fn bind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    let literal = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.clone(),
    };
    literal.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "{text:?} is not ADDRESS:PORT with a port from 0 to 65535; write 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        let network: Network = "10.1.0.0/16".parse().expect("network");
        assert!(network.contains("10.1.255.3".parse().expect("address")));
        assert!(network.contains("::ffff:10.1.2.3".parse().expect("address")));
        assert!(!network.contains("10.2.0.1".parse().expect("address")));
        assert!(!network.contains("::1".parse().expect("address")));
        let everyone: Network = "0.0.0.0/0".parse().expect("network");
        assert!(everyone.contains("203.0.113.9".parse().expect("address")));
    }

    #[test]
    fn a_network_with_host_bits_is_refused_and_the_right_one_named() {
        let error = "10.1.2.3/16".parse::<Network>().expect_err("host bits");
        assert!(error.to_string().contains("10.1.0.0/16"), "{error}");
        assert_eq!("10.0.0.0/33".parse::<Network>(), Err(NetworkError::Prefix { max: 32 }));
        assert_eq!("proxy".parse::<Network>(), Err(NetworkError::Address));
    }
}
