//! Quantities as people write them: delay, rate and probability of a link, lifetimes of flows.

use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::mistake::Report;
use super::read::Read;

/// The longest delay of a link: longer than any path on earth, short enough to bound what a link holds.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// The highest rate of a link in bits a second, 1 Tbit/s.
const MAX_RATE: f64 = 1e12;

/// A one-way delay: `"20ms"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delay(pub(super) Duration);

/// How long something lives: `"240s"`, `"4m"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lifetime(pub(super) Duration);

/// Bits a second: `"200mbit"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate(pub(super) u64);

/// A probability from 0 to 1: `0.01` or `"1%"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probability(pub(super) f64);

/// Splits `20ms` into the number and the unit.
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

impl Read for Delay {
    const EXPECTED: &'static str = "a duration";

    fn read(value: &Spanned<DeValue<'_>>, report: &Report<'_>) -> Option<Self> {
        let written = String::read(value, report)?;
        let seconds = number_and_unit(&written).and_then(|(number, unit)| match unit {
            "us" => Some(number / 1e6),
            "ms" => Some(number / 1e3),
            "s" => Some(number),
            _ => None,
        });
        let Some(seconds) = seconds else {
            report.mistake_with_help(
                &value.span(),
                format!("`{written}` is not a duration"),
                "write a number and one of us, ms and s, such as \"20ms\"",
            );
            return None;
        };
        match Duration::try_from_secs_f64(seconds) {
            Ok(delay) if delay <= MAX_DELAY => Some(Self(delay)),
            _ => {
                let message = format!("the delay `{written}` is out of range");
                report.mistake_with_help(&value.span(), message, "a link delays by 10s at most");
                None
            }
        }
    }
}

impl Read for Lifetime {
    const EXPECTED: &'static str = "a duration";

    fn read(value: &Spanned<DeValue<'_>>, report: &Report<'_>) -> Option<Self> {
        let written = String::read(value, report)?;
        let seconds = number_and_unit(&written).and_then(|(number, unit)| match unit {
            "ms" => Some(number / 1e3),
            "s" => Some(number),
            "m" => Some(number * 60.0),
            "h" => Some(number * 3600.0),
            _ => None,
        });
        let lifetime = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        if lifetime.is_none() {
            report.mistake_with_help(
                &value.span(),
                format!("`{written}` is not a duration"),
                "write a number and one of ms, s, m and h, such as \"240s\"",
            );
        }
        lifetime.map(Self)
    }
}

impl Read for Rate {
    const EXPECTED: &'static str = "a rate";

    fn read(value: &Spanned<DeValue<'_>>, report: &Report<'_>) -> Option<Self> {
        let written = String::read(value, report)?;
        let rate = number_and_unit(&written).and_then(|(number, unit)| match unit {
            "bit" => Some(number),
            "kbit" => Some(number * 1e3),
            "mbit" => Some(number * 1e6),
            "gbit" => Some(number * 1e9),
            _ => None,
        });
        let Some(rate) = rate else {
            report.mistake_with_help(
                &value.span(),
                format!("`{written}` is not a rate"),
                "write a number and one of bit, kbit, mbit and gbit, such as \"200mbit\"",
            );
            return None;
        };
        if !(1.0..=MAX_RATE).contains(&rate) {
            let message = format!("the rate `{written}` is out of range");
            report.mistake_with_help(&value.span(), message, "a link carries 1bit to 1000gbit a second");
            return None;
        }
        Some(Self(rate.round() as u64))
    }
}

impl Read for Probability {
    const EXPECTED: &'static str = "a probability";

    fn read(value: &Spanned<DeValue<'_>>, report: &Report<'_>) -> Option<Self> {
        let (written, probability) = match value.get_ref() {
            DeValue::String(text) => {
                let percent = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
                (text.to_string(), percent.map(|percent| percent / 100.0))
            }
            DeValue::Float(float) => (float.to_string(), float.as_str().parse().ok()),
            DeValue::Integer(integer) => (integer.to_string(), integer.as_str().parse().ok()),
            _ => ("this".to_owned(), None),
        };
        match probability {
            Some(probability) if (0.0..=1.0).contains(&probability) => Some(Self(probability)),
            _ => {
                report.mistake_with_help(
                    &value.span(),
                    format!("`{written}` is not a probability"),
                    "write a number from 0 to 1 or a percentage, such as 0.01 or \"1%\"",
                );
                None
            }
        }
    }
}
