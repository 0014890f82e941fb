//! What a service answers to whom its firewall denies: Sidestep leads such connections to the firewall's `answering_port`,
//! and here is who listens there.
//!
//! HTTP gets the 403 of Azure Storage (Azure, "Configure Azure Storage firewalls and virtual networks"), in its shape to
//! the byte-order mark. Azure SQL closes the connection; its log has the number of the error: 40914 where the caller came
//! over an endpoint, else 40615 with the caller's address (Azure, "Use virtual network service endpoints and rules for
//! servers"). Every refusal is a line of the service's log.

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;

/// Where and how a service refuses: `ADDRESS:PORT=http` or `ADDRESS:PORT=sql` on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// An address of the service and its answering port.
    pub at: SocketAddr,
    /// How it answers there.
    pub language: Language,
}

/// How a service answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// By the 403 of Azure Storage.
    Http,
    /// Not at all, as Azure SQL.
    Sql,
}

impl std::str::FromStr for Refusal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (at, language) = text.split_once('=').ok_or("expected ADDRESS:PORT=http or ADDRESS:PORT=sql")?;
        let language = match language {
            "http" => Language::Http,
            "sql" => Language::Sql,
            _ => return Err(format!("unknown language `{language}`")),
        };
        Ok(Self { at: at.parse().map_err(|_| format!("`{at}` is not an address and a port"))?, language })
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.at, if self.language == Language::Sql { "sql" } else { "http" })
    }
}

/// The refusals of a web server, and its log.
#[derive(Debug)]
pub(super) struct Refusals {
    all: Vec<Refusal>,
    endpoint_sources: Vec<IpNet>,
    log: Mutex<File>,
}

impl Refusals {
    /// Refusals with a log that is appended to. `endpoint_sources` are the addresses that callers over an endpoint have.
    ///
    /// # Errors
    /// The log cannot be opened.
    pub(super) fn open(all: Vec<Refusal>, endpoint_sources: Vec<IpNet>, log: &Path) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        Ok(Self { all, endpoint_sources, log: Mutex::new(log) })
    }

    /// The ports that are answered on.
    pub(super) fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.all.iter().map(|refusal| refusal.at.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// How the service at an address and port answers.
    pub(super) fn language(&self, at: SocketAddr) -> Option<Language> {
        self.all.iter().find(|refusal| refusal.at == at).map(|refusal| refusal.language)
    }

    /// Refuses an HTTP request.
    pub(super) fn refuse_http(
        &self,
        server: &str,
        source: IpAddr,
        is_head: bool,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.log(
            now,
            server,
            "403",
            source,
            "AuthorizationFailure: this request is not authorized to perform this operation",
        )?;
        let number = fastrand::u128(..);
        let (first, last) = (number as u32, number as u64 >> 32);
        let id = format!("{first:08x}-{:04x}-{:04x}-{:04x}-{last:08x}0000", first >> 16, first & 0xffff, last >> 16);
        out.write_all(&denial(now, &id, is_head))?;
        out.flush()
    }

    /// Notes that a caller of a database server is refused.
    pub(super) fn refuse_sql(&self, server: &str, source: IpAddr) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let over_endpoint = self.endpoint_sources.iter().any(|prefix| prefix.contains(&source));
        let (number, text) = sql_error(server, source, over_endpoint);
        self.log(now, server, number, source, &text)
    }

    fn log(&self, now: Duration, server: &str, number: &str, source: IpAddr, text: &str) -> io::Result<()> {
        let line = format!("{} {server} {number} {source} {text}\n", time(now));
        self.log.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes())
    }
}

/// The error of Azure SQL and its text.
fn sql_error(server: &str, source: IpAddr, over_endpoint: bool) -> (&'static str, String) {
    let start = format!("Cannot open server '{server}' requested by the login.");
    if over_endpoint {
        ("40914", format!("{start} Client is not allowed to access the server."))
    } else {
        ("40615", format!("{start} Client with IP address '{source}' is not allowed to access the server."))
    }
}

/// The answer of Azure Storage.
fn denial(now: Duration, id: &str, without_body: bool) -> Vec<u8> {
    const TEXT: &str = "This request is not authorized to perform this operation.";
    let body = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>AuthorizationFailure</Code><Message>{TEXT}\n\
         RequestId:{id}\nTime:{}</Message></Error>",
        time(now)
    );
    let head = format!(
        "HTTP/1.1 403 {TEXT}\r\nContent-Length: {}\r\nContent-Type: application/xml\r\nx-ms-request-id: {id}\r\n\
         x-ms-error-code: AuthorizationFailure\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut bytes = head.into_bytes();
    if !without_body {
        bytes.extend(body.into_bytes());
    }
    bytes
}

/// A time since 1970 as Azure writes it, in steps of 100 ns.
fn time(since: Duration) -> String {
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Howard Hinnant's `civil_from_days`: years begin in March, so that the leap day is a year's last.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:07}Z", since.subsec_nanos() / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_written_as_it_is_read() {
        for text in ["20.60.1.10:8403=http", "[2603:1020::10]:14330=sql"] {
            assert_eq!(text.parse::<Refusal>().expect("a refusal").to_string(), text);
        }
        for text in ["20.60.1.10:8403", "20.60.1.10=http", "20.60.1.10:8403=smb"] {
            assert!(text.parse::<Refusal>().is_err(), "{text}");
        }
    }

    #[test]
    fn http_hears_what_azure_storage_says() {
        let text = String::from_utf8(denial(Duration::from_millis(1_582_979_696_789), "1-2", false)).expect("text");
        assert_eq!(
            text,
            "HTTP/1.1 403 This request is not authorized to perform this operation.\r\nContent-Length: 213\r\n\
             Content-Type: application/xml\r\nx-ms-request-id: 1-2\r\nx-ms-error-code: AuthorizationFailure\r\n\
             Connection: close\r\n\r\n\
             \u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>AuthorizationFailure</Code>\
             <Message>This request is not authorized to perform this operation.\nRequestId:1-2\n\
             Time:2020-02-29T12:34:56.7890000Z</Message></Error>"
        );
        assert!(denial(Duration::ZERO, "1-2", true).ends_with(b"\r\n\r\n"), "HEAD has no body");
    }

    #[test]
    fn times_are_right_at_the_edges_of_years() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.0000000Z"),
            (951_782_399, "2000-02-28T23:59:59.0000000Z"),
            (951_868_800, "2000-03-01T00:00:00.0000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.0000000Z"),
        ] {
            assert_eq!(time(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn the_log_of_a_database_server_tells_endpoint_and_address_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let sources = vec!["10.1.0.0/16".parse().expect("a prefix")];
        let refusals = Refusals::open(Vec::new(), sources, &log).expect("a log");
        for source in ["10.1.1.4", "203.0.113.10"] {
            refusals.refuse_sql("contoso", source.parse().expect("an address")).expect("a line");
        }
        let text = std::fs::read_to_string(log).expect("text");
        let lines: Vec<_> = text.lines().filter_map(|line| Some(line.split_once(' ')?.1)).collect();
        assert_eq!(
            lines,
            [
                "contoso 40914 10.1.1.4 Cannot open server 'contoso' requested by the login. Client is not allowed to \
                 access the server.",
                "contoso 40615 203.0.113.10 Cannot open server 'contoso' requested by the login. Client with IP address \
                 '203.0.113.10' is not allowed to access the server."
            ]
        );
    }
}
