//! Weighs a regular expression of a form schema before it is compiled.
//!
//! The engine is linear in the text, but its factor is the number of states the expression compiles
//! to, and its memory grows with them too. They are estimated here from the expression's text,
//! rather too high than too low.
//!
//! Refuses: repetition counts over a cap, groups other than `( )` and `(?: )`, groups deep inside
//! each other, and classes that ECMAScript and the engine read differently.

use std::iter::Peekable;
use std::str::Chars;

use crate::limits;

/// Groups inside each other.
const GROUPS_MAX: usize = 32;
/// States of a class of a Unicode property (`\p{L}`).
const PROPERTY_STATES: u64 = 600;
/// States of a class that takes most of Unicode (`\S`, `[^a]`).
const WIDE_STATES: u64 = 40;
/// States of the dot.
const DOT_STATES: u64 = 12;
/// States of a character that is not ASCII, or of a range that begins or ends with one.
const CHARACTER_STATES: u64 = 8;

/// Why a regular expression is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatternRefusal {
    /// A repetition is copied so many times.
    #[error(
        "repeats something more than {} times; use \"maxLength\" for long texts",
        limits::PATTERN_REPEAT_MAX
    )]
    Repeat,
    /// Lookaround, flags and named groups.
    #[error("has a group that begins with \"(?\"; only \"(?:\" is supported")]
    Group,
    /// Groups inside each other.
    #[error("has more than {GROUPS_MAX} groups inside each other")]
    Deep,
    /// A parenthesis or bracket without its other half.
    #[error("has a parenthesis or bracket without its other half")]
    Unbalanced,
    /// `[` in a class, or a class with nothing in it.
    #[error("has an empty class, or a \"[\" in a class that is not written \"\\[\"")]
    Class,
}

/// Estimates the states that `pattern` compiles to.
pub(super) fn states(pattern: &str) -> Result<u64, PatternRefusal> {
    let mut text = pattern.chars().peekable();
    let mut outer = Vec::new();
    let mut sum: u64 = 1;
    let mut last: u64 = 0;
    while let Some(character) = text.next() {
        let atom = match character {
            '(' => {
                if text.next_if_eq(&'?').is_some() && text.next() != Some(':') {
                    return Err(PatternRefusal::Group);
                }
                if outer.len() >= GROUPS_MAX {
                    return Err(PatternRefusal::Deep);
                }
                outer.push(sum);
                (sum, last) = (0, 0);
                continue;
            }
            ')' => {
                let group = sum;
                sum = outer.pop().ok_or(PatternRefusal::Unbalanced)?;
                group.saturating_add(2)
            }
            '{' => match repeats(&mut text)? {
                Some(copies) => {
                    let copied = last.saturating_mul(copies.max(1));
                    sum = sum.saturating_add(copied - last);
                    last = copied;
                    continue;
                }
                None => 1,
            },
            '*' | '+' | '?' => {
                sum = sum.saturating_add(1);
                last = last.saturating_add(1);
                continue;
            }
            '[' => class(&mut text)?,
            '\\' => escape(&mut text),
            '.' => DOT_STATES,
            other if other.is_ascii() => 1,
            _ => CHARACTER_STATES,
        };
        last = atom;
        sum = sum.saturating_add(atom);
    }
    if outer.is_empty() { Ok(sum) } else { Err(PatternRefusal::Unbalanced) }
}

/// Reads a repetition after its `{`: how many copies it makes. `None` if it is not one.
fn repeats(text: &mut Peekable<Chars<'_>>) -> Result<Option<u64>, PatternRefusal> {
    let ahead: String = text.clone().take_while(|character| *character != '}').collect();
    let (least, most) = ahead.split_once(',').unwrap_or((&ahead, &ahead));
    let is_count = |part: &str| part.chars().all(|digit| digit.is_ascii_digit());
    if least.is_empty() || !is_count(least) || !is_count(most) {
        return Ok(None);
    }
    let count = |part: &str| match part.parse::<u64>() {
        Ok(count) if count <= limits::PATTERN_REPEAT_MAX => Ok(count),
        _ => Err(PatternRefusal::Repeat),
    };
    let copies = if most.is_empty() { count(least)? + 1 } else { count(most)?.max(count(least)?) };
    text.by_ref().find(|character| *character == '}');
    Ok(Some(copies))
}

/// Reads a class after its `[`.
fn class(text: &mut Peekable<Chars<'_>>) -> Result<u64, PatternRefusal> {
    let mut sum = if text.next_if_eq(&'^').is_some() { WIDE_STATES } else { 2 };
    if text.peek() == Some(&']') {
        return Err(PatternRefusal::Class);
    }
    loop {
        sum += match text.next().ok_or(PatternRefusal::Unbalanced)? {
            ']' => return Ok(sum),
            '[' => return Err(PatternRefusal::Class),
            '\\' => escape(text),
            other if other.is_ascii() => 0,
            _ => CHARACTER_STATES,
        };
    }
}

/// Reads an escape after its `\`.
fn escape(text: &mut Peekable<Chars<'_>>) -> u64 {
    let Some(kind) = text.next() else { return 1 };
    if matches!(kind, 'p' | 'P' | 'u' | 'x') && text.next_if_eq(&'{').is_some() {
        text.by_ref().find(|character| *character == '}');
    }
    match kind {
        'p' | 'P' => PROPERTY_STATES,
        's' | 'S' | 'D' | 'W' => WIDE_STATES,
        'u' | 'x' => CHARACTER_STATES,
        'd' | 'w' => 2,
        other if other.is_ascii() => 1,
        _ => CHARACTER_STATES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_multiply_what_they_repeat() {
        assert_eq!(states("abc"), Ok(4));
        assert_eq!(states("(?:ab){10}"), Ok(41));
        assert_eq!(states("a{10}{10}"), Ok(101));
        assert_eq!(states("((a{10}){10}){10}"), Ok(1 + 10 * (10 * (10 + 2) + 2)));
        assert_eq!(states("a{2,}"), Ok(4));
        assert!(states("^[A-Z]{2}\\d{4}$").is_ok_and(|states| states < 20));
        assert!(states("^\\p{L}{3}$").is_ok_and(|states| states > 1_800));
    }

    #[test]
    fn what_the_weight_could_be_hidden_behind_is_refused() {
        for pattern in ["a{101}", "a{1,101}", "a{101,}", "a{99999999999999999999}"] {
            assert_eq!(states(pattern), Err(PatternRefusal::Repeat), "{pattern}");
        }
        for pattern in ["(?i)a", "(?=a)", "(?<n>a)", "(?x: a)"] {
            assert_eq!(states(pattern), Err(PatternRefusal::Group), "{pattern}");
        }
        for pattern in ["[a[b]]", "[]", "[^]a]"] {
            assert_eq!(states(pattern), Err(PatternRefusal::Class), "{pattern}");
        }
        for pattern in ["(a", "a)", "[a"] {
            assert_eq!(states(pattern), Err(PatternRefusal::Unbalanced), "{pattern}");
        }
        assert_eq!(states(&"(".repeat(40)), Err(PatternRefusal::Deep));
    }
}
