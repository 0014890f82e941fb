//! What can be wrong with a document of service tags, and how it is said.

use std::fmt;
use std::io;

use ipnet::IpNet;

/// Why there is no catalogue.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The file cannot be read.
    #[error("{name}: the service tags cannot be read")]
    Read {
        /// The file.
        name: String,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// There is nothing in it, or nothing but white space.
    #[error("{name}: the document of service tags is empty")]
    Empty {
        /// The document.
        name: String,
    },
    /// It is not what it should be.
    #[error("{}", Listing { name, mistakes })]
    Broken {
        /// The document.
        name: String,
        /// Every mistake in the order of the document; at least one.
        mistakes: Vec<Mistake>,
    },
}

/// One mistake of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// The entry of `values`, from 0; none where the mistake is outside of them.
    pub entry: Option<usize>,
    /// The name of the tag, where it is known.
    pub tag: Option<String>,
    /// The entry of the tag's `addressPrefixes`, from 0; none where the mistake is outside of them.
    pub prefix: Option<usize>,
    /// What is wrong.
    pub kind: MistakeKind,
}

/// What is wrong with a part of a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MistakeKind {
    /// The bytes are no UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// The JSON ends early.
    #[error("the JSON is cut off: {0}")]
    CutOff(String),
    /// The JSON is broken in another way.
    #[error("the JSON is broken: {0}")]
    Syntax(String),
    /// A part of the document is not an object, or has a field twice.
    #[error("{0}")]
    Structure(String),
    /// `values` is empty: a catalogue without tags would take every endpoint's routes away.
    #[error("`values` has no tags")]
    NoTags,
    /// A field is missing that has to be there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A field has a value that it cannot have.
    #[error("`{field}` has to be {expected}, not {found}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What is there, cut if long.
        found: String,
    },
    /// An address prefix is none.
    #[error("{found} is no address prefix such as \"192.0.2.0/24\" or \"2001:db8::/32\"")]
    NoPrefix {
        /// What is there, cut if long.
        found: String,
    },
    /// An address prefix has no length.
    #[error("\"{address}\" has no prefix length; a single address is written \"{suggestion}\"")]
    NoLength {
        /// What is there.
        address: String,
        /// The address as a prefix.
        suggestion: IpNet,
    },
    /// An address prefix is longer than its address.
    #[error("\"{prefix}\" has a prefix length above {limit}")]
    LengthTooLong {
        /// What is there.
        prefix: String,
        /// The longest length of the address family in bits.
        limit: u8,
    },
    /// An address prefix has bits set beyond its length.
    #[error("\"{prefix}\" has host bits set; the prefix is \"{suggestion}\"")]
    HostBits {
        /// What is there.
        prefix: String,
        /// The same with its host bits clear.
        suggestion: IpNet,
    },
    /// A tag of this name came before.
    #[error("the tag is there already: values[{entry}] \"{name}\" on line {line}")]
    TagTwice {
        /// The entry of `values` that came first, from 0.
        entry: usize,
        /// The name as it is spelled there.
        name: String,
        /// The line of it, from 1.
        line: usize,
    },
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if let Some(entry) = self.entry {
            write!(f, "values[{entry}]")?;
            if let Some(tag) = &self.tag {
                write!(f, " \"{tag}\"")?;
            }
            if let Some(prefix) = self.prefix {
                write!(f, ", addressPrefixes[{prefix}]")?;
            }
            f.write_str(": ")?;
        }
        write!(f, "{}", self.kind)
    }
}

/// All mistakes as text: one in one line, several below a heading.
struct Listing<'a> {
    name: &'a str,
    mistakes: &'a [Mistake],
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, mistakes } = self;
        if let [mistake] = mistakes {
            return write!(f, "{name}:{mistake}");
        }
        write!(f, "{name}: {} mistakes in the service tags", mistakes.len())?;
        for mistake in *mistakes {
            write!(f, "\n  {name}:{mistake}")?;
        }
        Ok(())
    }
}
