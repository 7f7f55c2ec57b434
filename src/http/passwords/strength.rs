//! Whether a password is easy to guess: words and names, dates, keyboard rows, repeats, and what is on the
//! lists of passwords that were stolen elsewhere.
//!
//! The estimator is `zxcvbn`; nothing is asked of anybody, so no password leaves the node. What a guesser
//! would try first here (the address, the tenant's names, ours) counts as known. Its work grows fast with
//! the length of what is made to trouble it, and for nothing: whatever is hard to guess is so within
//! [`LOOKED_AT_MAX`] characters. It still may cost as much as a few hashes, so it is done in a hash's turn.
//!
//! Refuses: to say anything of a password but the estimator's own advice.

use zxcvbn::{Score, zxcvbn};

/// Characters of a password that are looked at.
const LOOKED_AT_MAX: usize = 32;
/// What a password has to come to, of four: ten to the eighth guesses at least.
const SCORE_MIN: Score = Score::Three;
/// Shorter parts of names are in everything.
const WORD_CHARACTERS_MIN: usize = 3;
/// Words of one's own that are looked for.
const WORDS_MAX: usize = 32;

/// What is wrong with a password that is too easy to guess; nothing if it is not.
pub(super) fn advice(password: &str, known: &[String]) -> Option<String> {
    let end = password.char_indices().nth(LOOKED_AT_MAX).map_or(password.len(), |(at, _)| at);
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let estimate = zxcvbn(&password[..end], &known);
    if estimate.score() >= SCORE_MIN {
        return None;
    }
    let mut advice = "is too easy to guess.".to_owned();
    if let Some(feedback) = estimate.feedback() {
        let warning = feedback.warning().map(|warning| warning.to_string());
        let suggestions = feedback.suggestions().iter().map(ToString::to_string);
        for sentence in warning.into_iter().chain(suggestions) {
            advice.push(' ');
            advice.push_str(&sentence);
        }
    }
    Some(advice)
}

/// The words that a guesser would begin with.
pub(super) fn known_words(email: &str, names: &[String]) -> Vec<String> {
    let mut words = vec!["bulkhead".to_owned()];
    let texts = std::iter::once(email).chain(names.iter().map(String::as_str));
    for text in texts.map(str::to_lowercase) {
        let parts = text.split(|c: char| !c.is_alphanumeric());
        let parts: Vec<_> = parts.filter(|it| it.chars().count() >= WORD_CHARACTERS_MIN).collect();
        words.extend(parts.iter().map(|part| (*part).to_owned()));
        if let Some((local, _)) = text.split_once('@') {
            words.push(local.to_owned());
        }
        words.push(text);
    }
    words.truncate(WORDS_MAX);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(password: &str) -> Option<String> {
        let names = ["initech-ltd".to_owned(), "Initech Limited".to_owned()];
        advice(password, &known_words("milton.waddams@initech.example", &names))
    }

    #[test]
    fn what_is_easy_to_guess_is_refused_with_advice_and_without_the_password() {
        for password in [
            "password123",
            "Password1!",
            "qwertyuiop",
            "1234567890",
            "abcdefghijkl",
            "aaaaaaaaaaaaa",
            "iloveyou12",
            "P@ssw0rd123",
            "20122012",
            "letmein123",
            "zaq12wsxcde3",
            "football2024",
            "hunter2hunter2",
        ] {
            let advice = refused(password).unwrap_or_else(|| panic!("{password}"));
            assert!(advice.starts_with("is too easy to guess. "), "{password}: {advice}");
            assert!(!advice.contains(password) && advice.ends_with('.'), "{password}: {advice}");
        }
    }

    #[test]
    fn names_of_ones_own_are_the_first_guess() {
        let names =
            ["miltonwaddams", "waddamsmilton", "initech-ltd1", "initechlimited", "milton.waddams1"];
        for password in names {
            assert!(refused(password).is_some(), "{password}");
        }
        // For somebody else some of them would do.
        assert!(names.iter().any(|password| advice(password, &[]).is_none()));
        assert!(refused("bulkhead12").is_some());
    }

    #[test]
    fn a_few_words_that_do_not_belong_together_are_good() {
        for password in [
            "correct horse battery",
            "another correct horse",
            "ünïcödé pässwörd",
            "k3v9-tq2x-r8zp",
            "stapler in the basement",
            "Zwei Enten im Regen",
            "пять синих слонов",
        ] {
            assert_eq!(refused(password), None, "{password}");
        }
    }

    #[test]
    fn what_is_made_to_trouble_the_estimator_is_cut_before_it_does() {
        let nasty: String = "4@8({[<369!1|0$5+7%2".chars().cycle().take(128).collect();
        let cut: String = nasty.chars().take(LOOKED_AT_MAX).collect();
        assert_eq!(refused(&nasty), refused(&cut));
        // Cut between characters, also where they take several bytes.
        assert!(refused(&"ü".repeat(128)).is_some());
    }

    #[test]
    fn long_names_do_not_make_long_work() {
        let names = vec!["word ".repeat(1_000); 2];
        assert_eq!(known_words("a@b.example", &names).len(), WORDS_MAX);
    }
}
