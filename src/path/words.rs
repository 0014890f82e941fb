//! Words that a flow has to have somewhere: what people type to find one flow among many, asked of every flow by the worker
//! that has it.
//!
//! Names are looked up once, when the words are made. What is left for each flow is a search in a few short texts, and
//! addresses are written only for words that could be part of one. Nothing is allocated.

use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};

use super::forwarder::FlowSummary;
use super::kind::PathKind;
use crate::snapshot::PortId;

/// Most words.
pub const WORDS: usize = 8;

/// Longest word, in bytes: longer than an IPv6 address with a port.
pub const LONGEST: usize = 64;

/// Words that all have to be somewhere in a flow, whatever their case; none are in every flow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words(Vec<Word>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    text: String,
    /// Ports whose name has it, by their number.
    ports: Vec<bool>,
    /// Protocols whose name has it, by their number.
    protocols: Vec<bool>,
    /// Whether it could be a part of an address with a port.
    is_address: bool,
}

/// Why words cannot be looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// There are too many.
    #[error("the filter has more than {WORDS} words")]
    Many,
    /// One is too long.
    #[error("a word of the filter is longer than {LONGEST} bytes")]
    Long,
}

impl Words {
    /// The words of a text. `ports` has the name of every port by its number, `protocol` names one.
    ///
    /// # Errors
    /// [`WordsError`]
    pub fn new<'a>(
        text: &str,
        ports: impl Iterator<Item = &'a str> + Clone,
        protocol: impl Fn(u8) -> String,
    ) -> Result<Self, WordsError> {
        let mut words = Vec::new();
        for word in text.split_whitespace() {
            if words.len() == WORDS {
                return Err(WordsError::Many);
            }
            if word.len() > LONGEST {
                return Err(WordsError::Long);
            }
            let text = word.to_lowercase();
            words.push(Word {
                ports: ports.clone().map(|name| name.to_lowercase().contains(&text)).collect(),
                protocols: (0..=u8::MAX).map(|number| protocol(number).to_lowercase().contains(&text)).collect(),
                is_address: text.bytes().all(|byte| byte.is_ascii_hexdigit() || b".:[]".contains(&byte)),
                text,
            });
        }
        Ok(Self(words))
    }

    /// Whether a flow has all of them.
    pub(super) fn are_in(&self, flow: &FlowSummary) -> bool {
        self.0.iter().all(|word| word.is_in(flow))
    }
}

impl Word {
    fn is_in(&self, FlowSummary { sides, state }: &FlowSummary) -> bool {
        let has_port = |port: PortId| self.ports.get(usize::from(port.0)).copied().unwrap_or_default();
        let names = [PathKind::of(state.next_hop_type).name(), state.next_hop_type.name(), state.phase.name()];
        has_port(sides.ingress)
            || has_port(sides.egress)
            || self.protocols.get(usize::from(sides.protocol)).copied().unwrap_or_default()
            || names.iter().any(|name| contains(name.as_bytes(), self.text.as_bytes()))
            || self.is_address && {
                let has_ports = super::nsg::has_ports(sides.protocol);
                let sockets = [sides.source, sides.destination, sides.presented, sides.reached];
                // The two of a side are the same where nothing is translated.
                let differ = [true, true, sides.presented != sides.source, sides.reached != sides.destination];
                sockets.iter().zip(differ).any(|(&socket, differs)| differs && self.is_in_socket(socket, has_ports))
            }
    }

    fn is_in_socket(&self, (address, port): (IpAddr, u16), has_ports: bool) -> bool {
        let mut text = Text::default();
        // It has room for the longest socket there is.
        let _ = match has_ports {
            true => write!(text, "{}", SocketAddr::new(address, port)),
            false => write!(text, "{address}"),
        };
        contains(text.as_bytes(), self.text.as_bytes())
    }
}

/// Whether a text has a part, which is in lower case.
fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len().max(1)).any(|window| window.eq_ignore_ascii_case(part))
}

/// A short text that is written without memory from the heap.
struct Text {
    bytes: [u8; 64],
    length: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; 64], length: 0 }
    }
}

impl Text {
    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Write for Text {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let end = self.length + more.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(more.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::flow::{FlowState, Phase};
    use crate::path::redecide::Sides;
    use crate::snapshot::NextHopType;

    fn flow(protocol: u8, source: &str, presented: &str, destination: &str) -> FlowSummary {
        let socket = |text: &str| text.parse::<SocketAddr>().map(|socket| (socket.ip(), socket.port())).unwrap();
        FlowSummary {
            sides: Sides {
                protocol,
                ingress: PortId(0),
                source: socket(source),
                destination: socket(destination),
                egress: PortId(2),
                presented: socket(presented),
                reached: socket(destination),
            },
            state: FlowState::at(Phase::Established, NextHopType::VirtualNetworkServiceEndpoint, 1),
        }
    }

    fn words(text: &str) -> Words {
        let protocol = |number: u8| if number == 6 { "tcp".to_owned() } else { number.to_string() };
        Words::new(text, ["vm1", "vm2", "Contoso"].into_iter(), protocol).unwrap()
    }

    #[test]
    fn a_word_may_be_in_any_text_of_a_flow() {
        let four = flow(6, "10.1.1.4:40000", "203.0.113.200:1024", "20.60.1.10:443");
        let six = flow(6, "[fd00::a4]:40000", "[fd00::a4]:40000", "[2603:1020::10]:443");
        for text in ["", "vm1", "VM1", "contoso", "tcp", "endpoint", "serviceendpoint", "established", "443", "10.1.1"]
        {
            assert!(words(text).are_in(&four), "{text}");
        }
        for text in ["203.0.113.200:1024", ":443", "vm1 443 contoso"] {
            assert!(words(text).are_in(&four), "{text}");
        }
        for text in ["vm2", "udp", "tunnel", "444", "10.1.2", "vm1 444", "[20.60"] {
            assert!(!words(text).are_in(&four), "{text}");
        }
        for text in ["FD00::A4", "[2603:1020::10]:443", "]:40000"] {
            assert!(words(text).are_in(&six), "{text}");
        }
        // Without ports, there is none to be found.
        let ping = flow(1, "10.1.1.4:7777", "10.1.1.4:7777", "20.60.1.10:0");
        assert!(words("20.60.1.10").are_in(&ping) && !words("7777").are_in(&ping));
    }

    #[test]
    fn words_are_few_and_short() {
        let protocol = |number: u8| number.to_string();
        let made = |text: &str| Words::new(text, std::iter::empty(), protocol).map(|words| words.0.len());
        assert_eq!((made("  "), made("a b"), made(&"a ".repeat(WORDS))), (Ok(0), Ok(2), Ok(WORDS)));
        assert_eq!(made(&"a ".repeat(WORDS + 1)), Err(WordsError::Many));
        assert_eq!((made(&"a".repeat(LONGEST)), made(&"a".repeat(LONGEST + 1))), (Ok(1), Err(WordsError::Long)));
    }
}
