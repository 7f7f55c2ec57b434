//! How far long work is: a bar or a spinner on a terminal, plain lines elsewhere. Both on standard error, so
//! that results can be piped.

use std::io::IsTerminal;

use actors::backup::Told;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output;
use crate::jobs::JobStatus;

/// A step of less work than this is over in one line.
const LONG: u64 = 20;
/// Work of unknown amount gets its next line at this much, and then each time it has doubled.
const UNKNOWN_FIRST: u64 = 1000;

/// Shows one job.
pub struct Display {
    bar: Option<Bar>,
    lines: Lines,
}

impl Display {
    /// Nothing shown yet.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(Bar::default);
        Self { bar, lines: Lines::default() }
    }

    /// Shows how far the job is now.
    pub fn show(&mut self, status: &JobStatus) {
        if status.outcome.is_some() {
            // Work that was over before the first look was work all the same.
            if self.bar.is_none()
                && let Some(line) = self.lines.next(status)
            {
                output::complain(&line);
            }
            return self.clear();
        }
        match &mut self.bar {
            Some(bar) => bar.show(status),
            None => {
                if let Some(line) = self.lines.next(status) {
                    output::complain(&line);
                }
            }
        }
    }

    /// Takes away what is shown.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.bar.finish_and_clear();
        }
    }

    /// Shows what work in this process tells.
    pub fn teller(&mut self) -> impl FnMut(Told<'_>) {
        let mut status =
            JobStatus { job: 0, step: String::new(), done: 0, total: 0, outcome: None };
        move |told| {
            match told {
                Told::Step { name, total } => {
                    (status.step, status.done, status.total) = (name.to_owned(), 0, total);
                }
                Told::At(done) => status.done = done,
            }
            self.show(&status);
        }
    }
}

/// What a step looks like on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// How much there is, is known.
    Bar,
    /// It is not, but some was done.
    CountingSpinner,
    /// Nothing is known.
    Spinner,
}

impl Shape {
    fn of(status: &JobStatus) -> Self {
        match (status.done, status.total) {
            (0, 0) => Self::Spinner,
            (_, 0) => Self::CountingSpinner,
            _ => Self::Bar,
        }
    }

    fn template(self) -> &'static str {
        match self {
            Self::Bar => "{msg:30} [{bar:30}] {pos}/{len} {elapsed}",
            Self::CountingSpinner => "{msg:30} {spinner} {pos} {elapsed}",
            Self::Spinner => "{msg:30} {spinner} {elapsed}",
        }
    }
}

/// A line of a terminal that is written over and over.
struct Bar {
    bar: ProgressBar,
    shape: Option<Shape>,
}

impl Default for Bar {
    fn default() -> Self {
        Self { bar: ProgressBar::no_length(), shape: None }
    }
}

impl Bar {
    fn show(&mut self, status: &JobStatus) {
        let shape = Shape::of(status);
        if self.shape != Some(shape) {
            let style = ProgressStyle::with_template(shape.template());
            let style = style.expect("the template is well formed");
            self.bar.set_style(style.progress_chars("=> ").tick_chars("|/-\\ "));
            self.shape = Some(shape);
        }
        match status.total {
            0 => self.bar.unset_length(),
            total => self.bar.set_length(total),
        }
        self.bar.set_position(status.done);
        self.bar.set_message(status.step.clone());
        self.bar.tick();
    }
}

/// What a log shows: a line for each step, and a line for each further tenth of a long one.
#[derive(Default)]
struct Lines {
    step: String,
    done: u64,
    total: u64,
    /// The next line of this step is due from here on.
    due: u64,
}

impl Lines {
    fn next(&mut self, status: &JobStatus) -> Option<String> {
        let JobStatus { step, done, total, .. } = status;
        if step.is_empty() {
            return None;
        }
        // The same step anew, of the next of several backups, begins at nothing again.
        let is_new = (&self.step, self.total) != (step, *total) || *done < self.done;
        self.done = *done;
        if !is_new && *done < self.due {
            return None;
        }
        (self.step, self.total) = (step.clone(), *total);
        self.due = match *total {
            0 => done.saturating_mul(2).max(UNKNOWN_FIRST),
            total if total < LONG => u64::MAX,
            // Past the end nothing is due any more.
            total => match (done.saturating_mul(10) / total + 1).min(11) {
                11 => u64::MAX,
                tenth => (total.saturating_mul(tenth)).div_ceil(10),
            },
        };
        Some(line(status))
    }
}

fn line(status: &JobStatus) -> String {
    match (status.done, status.total) {
        (0, 0) => status.step.clone(),
        (done, 0) => format!("{}: {done}", status.step),
        (done, total) => format!("{}: {done} of {total}", status.step),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(step: &str, done: u64, total: u64) -> JobStatus {
        JobStatus { job: 1, step: step.to_owned(), done, total, outcome: None }
    }

    #[test]
    fn a_line_says_what_is_known() {
        assert_eq!(line(&status("reading", 0, 0)), "reading");
        assert_eq!(line(&status("reading", 7, 0)), "reading: 7");
        assert_eq!(line(&status("reading", 7, 9)), "reading: 7 of 9");
    }

    #[test]
    fn a_step_of_unknown_amount_is_a_spinner_and_never_a_full_bar() {
        assert_eq!(Shape::of(&status("reading", 0, 0)), Shape::Spinner);
        assert_eq!(Shape::of(&status("reading", 7, 0)), Shape::CountingSpinner);
        assert_eq!(Shape::of(&status("reading", 0, 9)), Shape::Bar);
        for shape in [Shape::Spinner, Shape::CountingSpinner] {
            assert!(!shape.template().contains("{bar") && !shape.template().contains("{len}"));
        }
        let mut bar = Bar { bar: ProgressBar::hidden(), shape: None };
        bar.show(&status("verifying", 3, 9));
        assert_eq!((bar.bar.length(), bar.bar.position()), (Some(9), 3));
        bar.show(&status("signing", 0, 0));
        assert_eq!((bar.bar.length(), bar.bar.position()), (None, 0));
    }

    /// What a log gets of a step that is looked at after each piece.
    fn told(total: u64, pieces: u64) -> Vec<String> {
        let mut lines = Lines::default();
        (0..=pieces).filter_map(|done| lines.next(&status("work", done, total))).collect()
    }

    #[test]
    fn a_log_gets_one_line_a_step_and_each_tenth_of_a_long_one() {
        assert_eq!(told(19, 19), ["work: 0 of 19"]);
        let long = told(1000, 1000);
        assert_eq!(long.len(), 11, "{long:?}");
        assert_eq!((&*long[1], &*long[10]), ("work: 100 of 1000", "work: 1000 of 1000"));
        assert_eq!(told(25, 25).len(), 11);
        let unknown = told(0, 10_000);
        assert_eq!(unknown, ["work", "work: 1000", "work: 2000", "work: 4000", "work: 8000"]);

        let mut lines = Lines::default();
        assert_eq!(lines.next(&status("", 0, 0)), None);
        assert_eq!(lines.next(&status("one", 5, 9)).as_deref(), Some("one: 5 of 9"));
        assert_eq!(lines.next(&status("one", 9, 9)), None);
        assert_eq!(lines.next(&status("two", 0, 0)).as_deref(), Some("two"));
        assert_eq!(lines.next(&status("one", 5, 12)).as_deref(), Some("one: 5 of 12"));
        assert_eq!(lines.next(&status("one", 0, 12)).as_deref(), Some("one: 0 of 12"));
        // A late look at a nearly finished step.
        assert_eq!(lines.next(&status("big", 99, 100)).as_deref(), Some("big: 99 of 100"));
        assert_eq!(lines.next(&status("big", 100, 100)).as_deref(), Some("big: 100 of 100"));
        assert_eq!(lines.next(&status("big", 100, 100)), None);
    }
}
