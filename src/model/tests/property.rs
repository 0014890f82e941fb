//! Whatever is done to a document, the parser answers: with a network, or with mistakes that lie in the document.

use std::path::Path;

use proptest::prelude::*;

use super::{BASE, Tags};
use crate::model::{mistake_at_tags, parse, tags_path};

/// Texts that mean something in TOML or in the language.
const PIECES: [&str; 24] = [
    "\"",
    "'''",
    "[",
    "]",
    "[[",
    "{",
    "}",
    "=",
    ",",
    "\n",
    "#",
    ".",
    "0",
    "-1",
    "1e400",
    "\\u0000",
    "ä",
    "true",
    "/0",
    "\"::/0\"",
    "\"10.0.0.0/8\"",
    "name = \"hub\"\n",
    "2026-01-01",
    "\"VirtualNetworkGateway\"",
];

#[derive(Debug, Clone)]
enum Damage {
    Remove(prop::sample::Index, usize),
    Insert(prop::sample::Index, &'static str),
    SwapLines(prop::sample::Index, prop::sample::Index),
    RepeatLine(prop::sample::Index, prop::sample::Index),
    Character(prop::sample::Index, char),
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), 1..40usize).prop_map(|(at, length)| Damage::Remove(at, length)),
        (index(), prop::sample::select(&PIECES[..])).prop_map(|(at, piece)| Damage::Insert(at, piece)),
        (index(), index()).prop_map(|(a, b)| Damage::SwapLines(a, b)),
        (index(), index()).prop_map(|(from, to)| Damage::RepeatLine(from, to)),
        (index(), any::<char>()).prop_map(|(at, character)| Damage::Character(at, character)),
    ]
}

fn apply(text: &str, damage: &Damage) -> String {
    if text.is_empty() {
        return String::new();
    }
    let mut characters: Vec<char> = text.chars().collect();
    let mut lines: Vec<&str> = text.lines().collect();
    match damage {
        Damage::Remove(at, length) => {
            let start = at.index(characters.len());
            let end = (start + length).min(characters.len());
            characters.drain(start..end);
        }
        Damage::Insert(at, piece) => {
            let at = at.index(characters.len());
            characters.splice(at..at, piece.chars());
        }
        Damage::Character(at, character) => {
            let at = at.index(characters.len());
            characters[at] = *character;
        }
        Damage::SwapLines(a, b) => {
            let count = lines.len();
            lines.swap(a.index(count), b.index(count));
            return lines.join("\n");
        }
        Damage::RepeatLine(from, to) => {
            let line = lines[from.index(lines.len())];
            lines.insert(to.index(lines.len()), line);
            return lines.join("\n");
        }
    }
    characters.into_iter().collect()
}

fn check_answer(text: &str) {
    let path = Path::new("network.toml");
    if let Err(mistakes) = parse(text, path, Some(&Tags)) {
        let lines: Vec<&str> = text.split('\n').collect();
        assert!(!mistakes.mistakes.is_empty());
        assert!(mistakes.mistakes.is_sorted());
        for mistake in &mistakes.mistakes {
            assert!(!mistake.message.is_empty());
            let line = lines.get(mistake.line - 1).unwrap_or_else(|| panic!("{mistake:?} is beyond the document"));
            // A mistake may stand at the end of its line.
            assert!(mistake.column <= line.chars().count() + 1, "{mistake:?} is beyond its line");
        }
    }
    let place = mistake_at_tags(text, String::new(), None);
    assert!(place.line >= 1 && place.column >= 1);
    let _ = tags_path(text, path);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_damaged_document_gets_an_answer(damages in prop::collection::vec(damage(), 1..6)) {
        let text = damages.iter().fold(BASE.to_owned(), |text, damage| apply(&text, damage));
        check_answer(&text);
    }

    #[test]
    fn any_text_gets_an_answer(text in "(?s).{0,200}") {
        check_answer(&text);
    }
}
